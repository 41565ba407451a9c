"""The checks of circuits, on a scorer whose values are known: each refusal, and what it says."""

from pathlib import Path

import pytest
import torch

from exercises_utils.challenges.sum_of_two_numbers import evidence
from exercises_utils.evidence.exercises import CircuitCheck, SitesCheck
from exercises_utils.evidence.scores import Scorer

# What each site adds to the model's work. Head 0.1 does nothing.
WORTHS = {(0, 0, 3): 0.5, (0, 0, 4): 0.2, (1, 0, 9): 0.3, (0, 1, 3): 0.0, (0, 1, 4): 0.0}


class Made(Scorer):
    """Adds up worths; a head without a position stands for all of its sites."""

    unit, example, removed, chance, trained = "head", "[(0, 1)]", "resampled", 0.0, 1.0
    all_members = ((0, 0), (0, 1), (1, 0))

    def check(self, circuit):
        if not all(isinstance(site, tuple) and len(site) in (2, 3) for site in circuit):
            raise ValueError("a site has three numbers")
        return tuple(sorted(circuit))

    def values(self, circuits):
        kept = [sum(w for at, w in WORTHS.items() if {at, at[:2]} & set(circuit)) for circuit in circuits]
        return torch.tensor(kept, dtype=torch.float64)


def made(kind, **settings):
    common = {
        "scorer": Made,
        "twin": lambda trained: Made(),
        "weights": Path,
        "task": evidence,
        "needed": 0.75,
    }
    return kind("circuit", "A circuit", False, reference=list, **common, **settings)


def sites_check(**settings):
    return made(SitesCheck, example=[(0, 0, 3)], most_sites=4, why_sites="Name sites, not heads.", **settings)


@pytest.mark.parametrize(
    ("answer", "message"),
    {
        "a text": ("0.0", r"such as \[\(0, 0, 3\)\]; '0.0' came"),
        "nothing named": ([], r"A circuit is a list of sites"),
        "not a site": ([(0, 0, 3), 7], "A site has three numbers."),
        "heads": ([(0, 0), (1, 0)], "Name sites, not heads."),
        "everything": (list(WORTHS), "5 sites are named; name at most 4"),
        "a site is missing": (
            [(0, 0, 3), (0, 0, 4)],
            "this circuit of 2 sites keeps 0.70.*Which site's work",
        ),
        "a head to spare": (
            [(0, 0, 3), (1, 0, 9), (0, 1, 4)],
            "Without the sites of head 0.1 the circuit keeps 0.80 instead of 0.80: leave them out",
        ),
    }.values(),
)
def test_sites_that_are_refused(answer, message):
    outcome = sites_check().run(answer)
    assert outcome.status in ("failed", "not attempted")
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(outcome.message)


def test_sites_that_cannot_matter_are_refused_only_where_the_lesson_says_why():
    answer = [(0, 0, 3), (0, 0, 4), (1, 0, 9), (1, 0, 3)]
    assert sites_check()._refuse(answer) is None
    said = sites_check(why_silent="nobody reads it.")._refuse(answer)
    assert said == "Site (1, 0, 3) cannot matter: nobody reads it. Leave it out."


def test_where_layers_are_dropped_no_head_has_to_be_worth_something():
    check = sites_check(groups="layer")
    answer = [(0, 0, 3), (1, 0, 9), (0, 1, 4)]
    assert check._refuse(answer) is None
    score, losses = check._score_and_losses(check.scorer().check(answer))
    assert (score, losses) == (pytest.approx(0.8), pytest.approx({"layer 0": 0.5, "layer 1": 0.3}))


def test_a_head_to_spare_does_not_belong_to_a_circuit_of_heads():
    check = made(CircuitCheck, most_heads=3)
    assert check._refuse([(0, 0), (1, 0)]) is None
    assert "Without head 0.1 the circuit keeps 1.00" in check._refuse([(0, 0), (0, 1), (1, 0)])
    assert "Which head's work is missing?" in check._refuse([(0, 0)])
