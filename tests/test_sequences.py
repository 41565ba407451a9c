"""What the tasks have in common: names of tokens, tables of whole numbers, the loss over several answers."""

import pytest
import torch

from exercises_utils.tools.sequences import mean_cross_entropy, names_of, top_is_right, whole_numbers


def test_names() -> None:
    assert names_of(torch.tensor([10, 3, 11]), {10: "+", 11: "="}) == ["+", "3", "="]
    with pytest.raises(ValueError, match=r"shape \(1, 2\); expected one sequence.* Index one"):
        names_of(torch.zeros(1, 2, dtype=torch.long), {})


def test_a_table_of_whole_numbers_comes_back_as_a_tensor() -> None:
    assert whole_numbers([[0, 9], [4, 5]], "pairs", 2, 9).tolist() == [[0, 9], [4, 5]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1, 2, 3]], r"pairs has shape \(1, 3\); expected \(batch, 2\)"),
        ([1, 2], r"pairs has shape \(2,\)"),
        ([[1, 10]], "pairs must hold whole numbers from 0 to 9"),
        ([[-1, 0]], "whole numbers from 0 to 9"),
        ([[1, 2], [3]], "Are all rows of one length"),
    ],
)
def test_other_tables_are_refused(rows, message) -> None:
    with pytest.raises(ValueError, match=message):
        whole_numbers(rows, "pairs", 2, 9)


def test_loss_and_right_answers_by_hand() -> None:
    logits = torch.tensor([[[0.0, 0.0], [2.0, 0.0]]])  # one example, two answers
    labels = torch.tensor([[1, 1]])
    by_hand = (torch.log(torch.tensor(2.0)) + torch.log(1 + torch.tensor(2.0).exp())) / 2
    assert mean_cross_entropy(logits, labels).item() == pytest.approx(by_hand.item())
    assert top_is_right(logits, torch.tensor([[0, 1]])).tolist() == [[True, False]]
