"""An exercise in one place: its slips, those of all exercises, two at once, and the calls that they are tried on."""

import pytest
import torch
from torch import Tensor

from exercises_utils.checking import Call, Draw, Fresh, answer, arg, exercise, model_family, on_models, then
from exercises_utils.checking.universal import wrong_versions
from exercises_utils.models import ModelConfig
from tests.wrong_answers.harness import (
    FOUND,
    Answers,
    pair_findings,
    pairs_found,
    slips_named,
    sound,
    universal_findings,
    universals_found,
)

ROOT = "The scores are not divided by sqrt(d_head)."
MASK = "The mask is missing."
SIDES = "Queries and keys are exchanged."


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def scores_exercise(**settings):
    @exercise("Attention scores", core=True, axes="query key", **settings)
    def scores(q, k, layer, *, root=True, causal=True):
        """The truth."""
        found = (layer + 1) * q @ k.T / (q.shape[-1] ** 0.5 if root else 1.0)
        return found.tril() if causal else found

    scores.given(
        [
            Call(f"{n} positions", dict(q=numbers(n, 5), k=numbers(n, 5, seed=n), layer=n % 3))
            for n in (4, 6, 8)
        ]
    )
    scores.slips(
        {
            ROOT: dict(root=False),
            MASK: dict(causal=False),
            SIDES: dict(q=arg("k"), k=arg("q")),
            "The diagonal alone is kept.": then(lambda right: right.diag().diag()),
            "This is the mean query's row.": lambda q, k, layer: q.mean(0) @ k.T,
        }
    )
    return scores


def said(check, wrong) -> str:
    outcome = check.run(wrong)
    assert outcome.status == "failed", outcome
    return outcome.message


def test_the_truth_passes_and_its_choices_are_not_the_learner_s():
    check = scores_exercise()
    assert check.run(lambda q, k, layer: check.truth(q, k, layer)).passed
    assert "it must take (q, k, layer)" in said(check, lambda q, k: q)
    assert check.run(check.truth).status == "not attempted", "the course's own function is not an answer"


def test_a_slip_gets_its_message_whatever_kind_of_change_it_is():
    slips_named(scores_exercise())


def test_a_slip_can_only_change_what_the_truth_takes():
    with pytest.raises(TypeError, match="changes \\['rooot'\\], which its truth does not take"):
        scores_exercise().slips({"Typed wrongly.": dict(rooot=False)})


def test_slips_of_all_exercises_need_no_line():
    check = scores_exercise()
    universals_found(check)
    findings = universal_findings(check)
    assert len(findings) > 25
    assert "`query` and `key` are swapped" in said(check, lambda q, k, layer: check.truth(q, k, layer).T)
    assert "the mean over `query`" in said(check, lambda q, k, layer: check.truth(q, k, layer).mean(0))


def test_two_slips_at_once_are_found():
    check = scores_exercise()
    pairs_found(check)
    assert f"{ROOT} + {MASK}" in pair_findings(check)
    text = said(check, lambda q, k, layer: -check.truth(q, k, layer, causal=False))
    assert text == f"Two things at once. {MASK} Every number has the opposite sign."
    both = said(check, lambda q, k, layer: check.truth(q, k, layer, root=False, causal=False).flip(0))
    assert "numbers are wrong" in both, "three at once are located, not guessed"


def test_an_argument_that_is_not_used_is_named_with_its_value():
    check = scores_exercise()
    assert said(check, lambda q, k, layer: check.truth(q, k, 2)) == (
        "`layer` is not used: the answers are those for `layer = 2`, whatever is passed."
    )


def test_a_message_is_no_guess():
    """What is wrong in one way on one case and in another way on the next is located, and not explained."""
    check = scores_exercise()
    text = said(check, lambda q, k, layer: check.truth(q, k, layer, root=len(q) != 4, causal=len(q) == 4))
    assert ROOT not in text
    assert MASK not in text
    assert "This is on 4 positions" in text


def test_a_slip_that_makes_no_difference_is_no_half_of_two():
    """A wrong last row was once "one place too early" beside a slip that moves the rows: neither was true."""
    check = scores_exercise()
    check.slips({"The last row comes first.": then(lambda right: right.roll(1, 0))})

    def wrong_last_row(q, k, layer):
        found = check.truth(q, k, layer)
        found[-1] = torch.arange(len(q)) ** 2
        return found

    assert said(check, wrong_last_row).startswith("Right except at `query` 3.")


def test_what_is_right_in_some_cases_says_which_and_what_stands_in_the_code():
    check = scores_exercise()
    text = said(
        check, lambda q, k, layer: check.truth(q, k, layer) if len(q) < 8 else check.truth(q, k, layer) / 2
    )
    assert text.endswith(
        "This is on 8 positions; right on 4 positions and 6 positions. In its code stands 8."
    )


def test_what_is_left_open_is_not_compared():
    check = scores_exercise(reads=torch.tril)
    assert check.run(lambda q, k, layer: check.truth(q, k, layer, causal=False)).passed
    assert "shape" in said(check, lambda q, k, layer: torch.zeros(2, 3, 4))


def test_several_right_answers_are_judged_by_a_property():
    def refuse(value, total):
        return None if sum(value) == total else f"Their sum is {sum(value)}, not {total}."

    @exercise("Two numbers with a sum", core=False, axes="first second", requires=refuse)
    def summands(total):
        """One of many."""
        return total, 0

    summands.given([Call(f"total {n}", dict(total=n)) for n in (3, 5)])
    sound(Answers(summands))
    assert summands.run(lambda total: (1, total - 1)).passed
    assert "Their sum is 4, not 3." in said(summands, lambda total: (1, total))
    assert "Expected a tuple" in said(summands, lambda total: total)


def test_a_value_that_is_found_is_refused_or_praised():
    @answer(
        "The largest head",
        core=True,
        refuse=lambda v: None if v == (0, 1) else "Smaller.",
        praise=lambda v: f"{v}!",
    )
    def largest():
        return 0, 1

    assert largest.run((0, 1)).message == "(0, 1)!"
    assert said(largest, (1, 1)) == "Smaller."
    assert largest.course_version() == (0, 1)


def test_parts_have_axes_of_their_own():
    @exercise("Both", core=True, axes={"clean": "row column", "n": ""})
    def both(x):
        """The truth."""
        return x @ x.T + x[:, :1], len(x)

    both.given([Call(f"{n} rows", dict(x=numbers(n, 4))) for n in (3, 5)])
    assert said(both, lambda x: (both.truth(x)[0].T, len(x))).startswith(
        "In `clean`: The numbers are right, but `row`"
    )
    assert "`n` is wrong; the rest is right" in said(both, lambda x: (both.truth(x)[0], 7))


@pytest.mark.parametrize(
    ("given", "fragment"),
    [
        (lambda q, k, layer: {"scores": q @ k.T}, "a dict of 1 item came"),
        (lambda q, k, layer: (1, 2), "Expected shape (query: 4, key: 4), got (2,)"),
        (lambda q, k, layer: (row for row in q @ k.T), "Collect its items"),
        (lambda q, k, layer: torch.full((len(q), len(q)), torch.nan), "NaN"),
        (lambda q, k, layer: torch.empty(len(q), len(q), device="meta"), "has no numbers"),
        (lambda q, k, layer: (q @ k.T).to_sparse(), MASK),
        (lambda q, k, layer: [[1, 2], [3]], "came"),
        (lambda q, k, layer: object(), "an object of type `object` came"),
        (lambda q, k, layer: "scores", "the text 'scores' came"),
        (lambda q, k, layer: torch.zeros(0), "Expected shape"),
        (7, "Pass the function itself"),
        ([1, 2], "Pass the function itself"),
        (numbers(2), "Pass the function itself"),
        ({}, "Pass the function itself"),
    ],
)
def test_bad_input_gets_a_sentence(given, fragment):
    assert fragment in said(scores_exercise(), given)


def test_what_requires_gradients_is_taken_as_it_is():
    check = scores_exercise()

    def with_gradients(q, k, layer):
        with torch.enable_grad():
            return torch.nn.Parameter(check.truth(q, k, layer)) * 1

    assert check.run(with_gradients).passed


def test_what_contains_itself_gets_a_sentence():
    circle: list = []
    circle.append(circle)
    assert "cannot be read" in said(scores_exercise(), circle)
    assert "RecursionError" in said(scores_exercise(), lambda q, k, layer: [circle, 1])


# ── universal slips ─────────────────────────────────────────────────────────────────────────────────────────


def test_every_version_of_distinct_numbers_is_wrong_and_has_its_own_message():
    right = numbers(3, 4, 5) * 3
    versions = list(wrong_versions(right, ("layer", "head", "position")))
    assert len({message for message, _ in versions}) >= len(versions) - 6, (
        "a mean is there with and without its axis"
    )
    for message, wrong in versions:
        assert wrong.shape != right.shape or not torch.allclose(wrong, right.double(), equal_nan=True), (
            message
        )


# ── calls ───────────────────────────────────────────────────────────────────────────────────────────────────

CONFIG = ModelConfig(n_layers=2, n_heads=2, d_model=28, d_head=14, n_ctx=22, d_vocab=33, d_vocab_out=2)


def test_the_family_differs_from_the_lesson_s_model_in_everything():
    lesson, deeper, shallower = (
        fresh.get().cfg for fresh in model_family("palindromes", CONFIG, (26, 12)).values()
    )
    assert deeper.n_layers > lesson.n_layers > shallower.n_layers
    assert len({cfg.n_heads for cfg in (lesson, deeper, shallower)}) == 3
    assert len({cfg.n_ctx for cfg in (lesson, deeper, shallower)}) == 3
    assert len({cfg.d_vocab for cfg in (lesson, deeper, shallower)}) == 3
    assert deeper.eps != lesson.eps
    assert deeper.d_head * deeper.n_heads != deeper.d_model


def test_nothing_in_a_random_model_is_zero():
    for name, fresh in list(model_family("palindromes", CONFIG, (26, 12)).items())[1:]:
        model = fresh.get()
        for bias in (model.b_Q, model.b_K, model.b_V, model.b_O, model.b_U, model.W_U.mean(1)):
            assert (bias.abs() > 1e-4).float().mean() > 0.9, name


def test_calls_are_one_a_model_and_one_with_a_single_sequence():
    models = model_family("palindromes", CONFIG, (26, 12))
    calls = on_models(models, tokens=Draw.tokens, head=Draw.head, batch=3, lesson_batch=5)()
    assert [call.arguments["tokens"].shape for call in calls] == [(5, 22), (3, 26), (3, 12), (1, 26)]
    assert (
        calls[3].name
        == f"{list(models)[1]}, head {'.'.join(map(str, calls[3].arguments['head']))}, one sequence"
    )
    layers = [call.arguments["head"][0] for call in calls]
    assert layers[1] < 2, "the head asked for is not in the last layer"
    assert len(on_models(models, head=Draw.head)()) == 3, "nothing is drawn by the batch"


def test_an_argument_can_depend_on_one_before():
    class Model:
        cfg = CONFIG

    calls = on_models({"a": Fresh(Model)}, n=lambda d: d.randint(0, 9, 2), m=lambda d: 2 * d["n"], k=7)()
    assert torch.equal(calls[0].arguments["m"], 2 * calls[0].arguments["n"])
    assert calls[0].arguments["k"] == 7
    with pytest.raises(KeyError):
        calls[0].positional(("model", "missing"))


def test_the_counts_of_the_table_are_those_of_the_findings():
    check = scores_exercise()
    kinds = [finding.kind for finding in universal_findings(check).values() if finding]
    assert set(kinds) <= set(FOUND)
