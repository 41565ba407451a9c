"""What evidence knows of the sorted lists with two heads, against definitions written out by hand."""

import pytest
import torch

from exercises_utils.challenges.sorted_list_two_heads import evidence
from exercises_utils.challenges.sorted_list_two_heads.task import (
    SEP,
    answer_logits,
    correct,
    high_lists,
    make_data,
    repeat_lists,
)
from exercises_utils.evidence.scores import CircuitScorer
from exercises_utils.models.loading import load_model

NUMBERS = [9, 6, 2, 4, 5, 11, 50, 0, 33, 7]


def sequence(numbers: list[int]) -> torch.Tensor:
    return torch.tensor([*numbers, SEP, *sorted(numbers)])


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        (sequence(NUMBERS), None),
        (sequence(NUMBERS[:-1]), "has 19 tokens; expected 21: ten numbers, SEP, the ten numbers sorted"),
        (torch.tensor([*NUMBERS, 0, *sorted(NUMBERS)]), "has 0 at position 10; expected SEP (51)"),
        (sequence([51, *NUMBERS[1:]]), "has 51 at position 0; expected a number from 0 to 50"),
        (sequence([-1, *NUMBERS[1:]]), "has -1 at position 0; expected a number from 0 to 50"),
        (torch.tensor([*NUMBERS, SEP, *NUMBERS]), "does not have its ten numbers sorted"),
        (torch.tensor([*NUMBERS, SEP, *sorted(NUMBERS)[:-1], 49]), "does not have its ten numbers sorted"),
        (sequence([6, *NUMBERS[1:]]), "has the number 6 more than once"),
    ],
)
def test_validity(tokens: torch.Tensor, reason: str | None) -> None:
    found = evidence.why_invalid(tokens)
    assert (found is None) == (reason is None)
    assert reason is None or reason in found


def test_chance_is_the_best_constant_answer() -> None:
    labels = make_data(200_000, 0).labels
    best = [labels[:, k].bincount().max() / len(labels) for k in range(10)]
    assert float(torch.stack(best).mean()) == pytest.approx(evidence.CHANCE, abs=1e-3)
    # The ends, by hand: the smallest number is 0 in the ten of 51 sets that hold it.
    assert evidence.CHANCE > 2 * (10 / 51) / 10


def test_training_data_is_in_distribution_and_high_or_gapped_lists_are_not() -> None:
    data = make_data(100_000, 0)
    assert float(evidence.in_distribution(data.tokens).double().mean()) == pytest.approx(0.994, abs=1e-3)
    smallest, steps = data.labels[:, 0], data.labels.diff(dim=-1)
    assert float((smallest <= 20).double().mean()) == pytest.approx(0.998, abs=1e-3)
    assert float((steps <= 25).all(-1).double().mean()) == pytest.approx(0.996, abs=1e-3)
    for numbers, typical in (
        ([*range(20, 30)], True),
        ([*range(21, 31)], False),
        ([*range(9), 33], True),
        ([*range(9), 34], False),
        ([5, 5, *range(10, 18)], False),
    ):
        assert evidence.in_distribution(sequence(numbers)[None]).tolist() == [typical]


def test_right_answers_and_kinds() -> None:
    tokens = torch.cat([make_data(300, 1).tokens, high_lists(20, 2).tokens, repeat_lists(50, 3).tokens])
    for row, right, kind in zip(
        tokens.tolist(), evidence.right_answers(tokens).tolist(), evidence.kinds(tokens).tolist(), strict=True
    ):
        numbers = sorted(row[:10])
        assert right == numbers
        gaps = [b - a for a, b in zip(numbers[:-1], numbers[1:], strict=True)]
        rows = [n for n in numbers if n + 1 in numbers and n + 2 in numbers]
        if min(numbers) > 20:
            expected = "all high"
        elif max(gaps) > 15:
            expected = "wide gap"
        elif len(set(numbers)) == 10:
            expected = "near neighbours" if rows else "spread"
        else:
            continue  # what is in a row is defined for different numbers
        assert evidence.KINDS[kind] == expected


def test_the_margin_is_positive_exactly_where_an_answer_is_wrong() -> None:
    data = make_data(200, 2)
    logits = torch.randn(200, 21, 52, generator=torch.Generator().manual_seed(0))
    logits[:, range(10, 20)] += 4.5 * torch.nn.functional.one_hot(data.labels, 52)
    margin = evidence.margin(logits, data.tokens)
    right = correct(logits, data)
    assert 0.1 < float(right.all(-1).double().mean()) < 0.9
    assert torch.equal(margin > 0, ~right.all(-1))
    assert torch.equal(evidence.answers(logits) == evidence.right_answers(data.tokens), right)
    by_hand = []
    for rows, answers in zip(answer_logits(logits).tolist(), data.labels.tolist(), strict=True):
        worst = [
            max(value for i, value in enumerate(row) if i != answer) - row[answer]
            for row, answer in zip(rows, answers, strict=True)
        ]
        by_hand.append(max(worst))
    torch.testing.assert_close(margin, torch.tensor(by_hand))


def test_hard_inputs_are_as_they_are_described() -> None:
    tokens = evidence.hard_inputs(20_000, torch.Generator().manual_seed(3))
    assert not any(evidence.why_invalid(row) for row in tokens[:2000])
    numbers = evidence.right_answers(tokens)
    steps = numbers.diff(dim=-1)
    assert 0.25 < float((numbers[:, 0] >= 20).double().mean()) < 0.27
    assert float((steps.max(-1).values > 15).double().mean()) > 0.25
    in_a_row = ((steps[:, 1:] == 1) & (steps[:, :-1] == 1)).any(-1)
    assert float(in_a_row.double().mean()) > 0.25 + 0.5 * 0.22
    # The order before sorting is any order: each place holds the smallest number as often.
    places = tokens[:, :10].argmin(-1).bincount(minlength=10) / len(tokens)
    assert (places - 0.1).abs().max() < 0.01
    shares = evidence.kinds(tokens).bincount(minlength=len(evidence.KINDS)) / len(tokens)
    assert float(shares.min()) > 0.1


def test_neighbours_keep_the_kind_and_move_little() -> None:
    generator = torch.Generator().manual_seed(4)
    tokens = evidence.hard_inputs(2000, generator)
    before = tokens.clone()
    changed = evidence.neighbours(tokens, generator)
    assert torch.equal(tokens, before)
    assert torch.equal(evidence.kinds(changed), evidence.kinds(tokens))
    assert not any(evidence.why_invalid(row) for row in changed[:500])
    for old, new in zip(tokens[:500, :10].tolist(), changed[:500, :10].tolist(), strict=True):
        gone, come = set(old) - set(new), set(new) - set(old)
        assert len(gone) == len(come) <= 1
        assert all(1 <= abs(a - b) <= 3 for a, b in zip(gone, come, strict=True))
        assert 2 <= sum(a != b for a, b in zip(old, new, strict=True)) <= 3
    moved = evidence.right_answers(changed) != evidence.right_answers(tokens)
    assert 0.5 < float(moved.any(-1).double().mean()) < 0.95


def test_sites_outside_cannot_matter() -> None:
    assert len(evidence.SITES) == 2 * 10
    model = load_model("sorted_list_two_heads", "seed0", device="cpu")
    tokens = make_data(40, seed=5).tokens
    weights = torch.arange(40.0)  # a resampled model answers the same things, to other lists

    def metric(logits: torch.Tensor) -> float:
        return float(answer_logits(logits)[..., 25].mean(-1) @ weights)

    scorer = CircuitScorer(model, tokens, metric, chance=-1e6, ablation="resample")
    with_the_others, sites_alone, nothing = scorer.values([scorer.all_sites, evidence.SITES, ()])
    assert float(sites_alone) == pytest.approx(float(with_the_others), abs=0.01)
    assert abs(float(nothing - with_the_others)) > 10
