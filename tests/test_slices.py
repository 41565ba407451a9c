"""Slices hold what they say, drawn as the task draws it, and cards say what was right there."""

import pytest
import torch

from exercises_utils.models.training import draw_where, slice_on_card


def draws(*, seed: int = 0, highest: int = 6):
    generator = torch.Generator().manual_seed(seed)
    return lambda n: torch.randint(0, highest, (n, 3), generator=generator)


def test_rows_are_those_that_plain_drawing_gives_in_its_order() -> None:
    rows = draw_where(lambda rows: rows[:, 0] == 5, draws(), 40, at_once=50)
    plain = draws()
    everything = torch.cat([plain(50) for _ in range(20)])
    assert torch.equal(rows, everything[everything[:, 0] == 5][:40])
    assert rows.shape == (40, 3)


def test_a_condition_that_nothing_meets_ends() -> None:
    with pytest.raises(ValueError, match="none of a million rows meets the condition"):
        draw_where(lambda rows: rows[:, 0] > 9, draws(), 1, at_once=500_000)


def test_a_size_that_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="size is 0; expected at least 1"):
        draw_where(lambda rows: rows[:, 0] == 5, draws(), 0)


def test_a_card_counts_whole_examples_and_each_answer() -> None:
    right = torch.tensor([[True, True], [True, False], [False, True], [True, True]])
    assert slice_on_card(right, "made up", 7) == {
        "definition": "made up; accuracy counts examples that are right at every answer position",
        "seed": 7,
        "n": 4,
        "accuracy": 0.5,
        "accuracy_by_position": [0.75, 0.75],
    }
