"""What evidence knows of the palindromes task, against definitions written out by hand."""

import pytest
import torch

from exercises_utils.challenges.palindromes import evidence
from exercises_utils.challenges.palindromes.task import END, START, correct, make_data, one_mismatch
from exercises_utils.evidence.scores import CircuitScorer
from exercises_utils.models.loading import load_model


def framed(values: list[int]) -> torch.Tensor:
    return torch.tensor([START, *values, END])


PALINDROME = [*range(10), *reversed(range(10))]


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        (framed(PALINDROME), None),
        (framed(PALINDROME[:-1]), "has 21 tokens; expected 22: START, 20 values, END"),
        (torch.tensor([0, *PALINDROME, END]), "starts with 0 and ends with 32; expected START"),
        (torch.tensor([START, *PALINDROME, START]), "starts with 31 and ends with 31; expected START"),
        (framed([*PALINDROME[:-1], 31]), "has 31 at position 20; expected a value from 0 to 30"),
        (framed([-1, *PALINDROME[1:]]), "has -1 at position 1; expected a value from 0 to 30"),
        (framed([END, *PALINDROME[1:]]), "has 32 at position 1"),
    ],
)
def test_validity(tokens: torch.Tensor, reason: str | None) -> None:
    found = evidence.why_invalid(tokens)
    assert (found is None) == (reason is None)
    assert reason is None or reason in found


def test_training_data_is_in_distribution_and_monotonous_sequences_are_not() -> None:
    assert evidence.in_distribution(make_data(20_000, 0).tokens).double().mean() > 0.998
    monotonous = torch.stack(
        [framed([7] * 20), framed([1, 2, 3, 4, 5] * 4), framed([0, 0, 0, 0, 0, 1, 2, 3, 4, 5] * 2)]
    )
    assert evidence.in_distribution(monotonous).tolist() == [False, False, True]


def test_right_answers_and_kinds() -> None:
    data = make_data(500, 1)
    assert torch.equal(evidence.right_answers(data.tokens).bool(), data.is_palindrome)
    for tokens, kind in zip(data.tokens, evidence.kinds(data.tokens).tolist(), strict=True):
        wrong = [pair for pair in range(1, 11) if tokens[pair] != tokens[21 - pair]]
        assert kind == (0 if not wrong else wrong[0] if len(wrong) == 1 else 11)
    for pair in range(1, 11):
        kinds = evidence.kinds(one_mismatch(20, pair, seed=pair).tokens)
        assert {evidence.KINDS[kind] for kind in kinds.tolist()} == {f"only pair {pair} differs"}


def test_the_margin_is_positive_exactly_where_the_model_is_wrong() -> None:
    data = make_data(100, 2)
    logits = torch.randn(100, 22, 2, generator=torch.Generator().manual_seed(0))
    margin = evidence.margin(logits, data.tokens)
    assert torch.equal(margin > 0, ~correct(logits, data))
    torch.testing.assert_close(margin.abs(), (logits[:, -1, 1] - logits[:, -1, 0]).abs())
    assert torch.equal(evidence.answers(logits) == evidence.right_answers(data.tokens), correct(logits, data))


def test_hard_inputs_are_as_they_are_described() -> None:
    tokens = evidence.hard_inputs(20_000, torch.Generator().manual_seed(3))
    assert not any(evidence.why_invalid(row) for row in tokens[:2000])
    shares = evidence.kinds(tokens).bincount(minlength=12) / len(tokens)
    expected = torch.tensor([0.5, *[0.375 / 10] * 10, 0.125])
    torch.testing.assert_close(shares, expected, atol=0.01, rtol=0)
    n_mismatches = evidence.mismatches(tokens).sum(-1)
    assert n_mismatches.max() == 2
    different = torch.tensor([row.unique().numel() for row in tokens[:, 1:11]])
    assert abs(float((different <= 3).double().mean()) - 0.25) < 0.02


def test_neighbours_keep_the_kind_and_change_one_pair() -> None:
    generator = torch.Generator().manual_seed(4)
    tokens = evidence.hard_inputs(2000, generator)
    before = tokens.clone()
    changed = evidence.neighbours(tokens, generator)
    assert torch.equal(tokens, before)
    assert torch.equal(evidence.kinds(changed), evidence.kinds(tokens))
    differs = changed != tokens
    assert (differs | differs.flip(-1))[:, 1:11].sum(-1).max() == 1
    assert differs.any(-1).double().mean() > 0.9
    assert not any(evidence.why_invalid(row) for row in changed[:500])


def test_sites_outside_cannot_matter() -> None:
    assert len(evidence.SITES) == 2 * 22 + 2
    model = load_model("palindromes", "seed0", device="cpu")
    tokens = make_data(40, seed=5).tokens
    weights = torch.arange(40.0)  # a resampled model answers the same things, to other sequences

    def metric(logits: torch.Tensor) -> float:
        return float(logits[:, -1, 1] @ weights)

    scorer = CircuitScorer(model, tokens, metric, chance=-1e6, ablation="resample")
    with_the_others, sites_alone, nothing = scorer.values([scorer.all_sites, evidence.SITES, ()])
    assert float(sites_alone) == pytest.approx(float(with_the_others), abs=0.01)
    assert abs(float(nothing - with_the_others)) > 100
