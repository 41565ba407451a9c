"""The sorted-list task for one head: its data is the original challenge's, and the shipped cards are true."""

import dataclasses
import inspect
import math
import os

import pytest
import torch
from torch import Tensor

from exercises_utils.challenges.sorted_list_one_head import task
from exercises_utils.models import published
from exercises_utils.models.checkpoints import load_checkpoint
from exercises_utils.models.loading import load_model
from exercises_utils.models.sources import available_instances, checkpoint_path
from exercises_utils.models.training import DATA_SEED, EVALUATION_SEED, Task, as_generator, logits_function

INSTANCES = available_instances("sorted_list_one_head")


def test_the_module_is_a_task() -> None:
    assert isinstance(task, Task)
    assert task.CHALLENGE == "sorted_list_one_head"


def test_data_is_drawn_in_the_published_order() -> None:
    """The published recipe, written out a second time with loops and the global random state."""
    state = torch.random.get_rng_state()
    torch.manual_seed(42)
    lists = torch.randint(0, 50, (12, 10)).tolist()
    torch.random.set_rng_state(state)
    data = task.make_data(12, seed=42)
    assert data.tokens.tolist() == [[50, *numbers, 51, *sorted(numbers)] for numbers in lists]
    assert data.labels.tolist() == [sorted(numbers) for numbers in lists]


def test_a_generator_goes_on_where_a_seed_starts_again() -> None:
    state = torch.random.get_rng_state()
    generator = as_generator(7)
    first, second = task.make_data(6, generator), task.make_data(6, generator)
    assert torch.equal(first.tokens, task.sample(6, 7).tokens)
    assert not torch.equal(first.tokens, second.tokens)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_shape_and_special_tokens_of_a_large_batch() -> None:
    data = task.make_data(4000, seed=1)
    assert data.tokens.shape == (4000, 22)
    assert data.tokens.dtype == torch.int64
    assert len(data) == 4000
    assert (data.tokens[:, 0] == task.BOS).all()
    assert (data.tokens[:, task.MID_POSITION] == task.MID).all()
    assert data.tokens[:, 1:11].unique().tolist() == list(range(50))
    assert (data.labels.diff(dim=-1) >= 0).all()
    assert torch.equal(data.tokens[:, 1:11].sort(-1).values, data.labels)
    # All ten different: 50 · 49 · … · 41 / 50^10 = 0.3817.
    different = (data.labels.diff(dim=-1) > 0).all(-1).double().mean()
    assert abs(different - math.perm(50, 10) / 50**10) < 0.03


def test_data_is_frozen() -> None:
    data = task.make_data(2, seed=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.tokens = data.tokens  # type: ignore[misc]


@pytest.mark.parametrize("size", [0, -2])
def test_size_must_be_positive(size: int) -> None:
    with pytest.raises(ValueError, match=f"size is {size}; expected at least 1"):
        task.make_data(size, seed=0)
    with pytest.raises(ValueError, match=f"size is {size}; expected at least 1"):
        task.triple_lists(size, seed=0)


def test_sequences_of_given_lists() -> None:
    given = [[9, 0, 9, 3, 49, 1, 1, 1, 30, 2], [*range(10)]]
    tokens = task.from_lists(given).tokens
    assert tokens.tolist() == [[50, *numbers, 51, *sorted(numbers)] for numbers in given]
    assert torch.equal(task.from_lists(torch.tensor(given)).tokens, tokens)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([[1, 2, 3]], r"lists has shape \(1, 3\); expected \(batch, 10\)"),
        ([[*range(9), 50]], "whole numbers from 0 to 49"),
        ([[*range(9), -1]], "whole numbers from 0 to 49"),
        ([[*range(9), 0.5]], "whole numbers from 0 to 49"),
    ],
)
def test_lists_that_are_none(lists: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task.from_lists(lists)


def test_str_tokens() -> None:
    tokens = task.make_data(1, seed=0).tokens[0]
    names = task.str_tokens(tokens)
    assert (names[0], names[11]) == ("BOS", "MID")
    assert [int(name) for name in names[1:11]] == tokens[1:11].tolist()
    with pytest.raises(ValueError, match=r"shape \(1, 22\); expected one sequence"):
        inspect.unwrap(task.str_tokens)(tokens[None])  # without the tests' own check of shapes


def sorts(tokens: Tensor) -> Tensor:
    """Logits 5 for the next token where answers are read; elsewhere confidently something."""
    following = tokens.roll(-1, 1).clamp(max=49)
    following[:, [*range(11), 21]] = 7
    return 5.0 * torch.nn.functional.one_hot(following, 50).float()


def test_loss_and_accuracy_are_read_at_the_answer_positions() -> None:
    data = task.make_data(4, seed=0)
    logits = sorts(data.tokens)
    assert task.answer_logits(logits).shape == (4, 10, 50)
    assert task.correct(logits, data).all()
    assert task.loss(logits, data).item() == pytest.approx(math.log(1 + 49 * math.exp(-5)), rel=1e-5)
    logits[2, 11] = 0.0
    logits[2, 11, (data.labels[2, 0] + 1) % 50] = 1.0
    wrong = (~task.correct(logits, data)).nonzero().tolist()
    assert wrong == [[2, 0]]


# ---- where it is weak --------------------------------------------------------------------------------------


def test_triples_and_gaps() -> None:
    lists = [
        [1, 1, 1, 2, 3, 4, 5, 6, 7, 8],
        [1, 1, 2, 2, 3, 3, 4, 4, 5, 5],
        [9, 9, 0, 9, 9, 40, 41, 42, 43, 44],
        [*range(0, 50, 5)],
    ]
    data = task.from_lists(lists)
    assert task.has_triple(data).tolist() == [True, False, True, False]
    assert task.largest_gap(data).tolist() == [1, 1, 31, 5]


def test_hard_lists_are_what_they_are_called() -> None:
    triples = task.triple_lists(300, seed=3)
    assert len(triples) == 300
    for row in triples.labels.tolist():
        assert max(row.count(number) for number in row) >= 3
    gaps = task.gap_lists(300, seed=3, gap=25)
    for row in gaps.labels.tolist():
        assert max(b - a for a, b in zip(row, row[1:], strict=False)) >= 25
    assert torch.equal(gaps.tokens, task.gap_lists(300, seed=3, gap=25).tokens)
    # As drawn in training, under the condition: the first hit in the stream of lists is the first here.
    drawn = task.make_data(20_000, 3)
    assert torch.equal(triples.tokens[0], drawn.tokens[task.has_triple(drawn)][0])


def forgets_the_third(tokens: Tensor) -> Tensor:
    """Sorts, but says 0 instead of a number's third copy."""
    logits = sorts(tokens)
    labels = tokens[:, 12:]
    third = torch.zeros_like(labels, dtype=torch.bool)
    third[:, 2:] = labels[:, 2:] == labels[:, :-2]
    logits[:, 11:21][third] = torch.nn.functional.one_hot(torch.tensor(49), 50).float() * 9
    return logits


def test_hard_slices_find_the_weakness(monkeypatch: pytest.MonkeyPatch) -> None:
    slices = task.hard_slices(forgets_the_third, seed=1)
    assert set(slices) == {"all", "triple", "gap"}
    assert slices["triple"]["accuracy"] < 0.03  # all but lists whose triples are of 49
    assert slices["triple"]["accuracy_by_position"][:2] == [1.0, 1.0]
    assert abs(slices["all"]["accuracy"] - (1 - 0.0431)) < 0.006
    assert {one["n"] for one in slices.values()} == {20_000}


# ---- the original model ------------------------------------------------------------------------------------


@pytest.mark.skipif(
    published.LOCAL not in os.environ, reason=f"{published.LOCAL} does not say where the originals are"
)
def test_the_original_model_has_its_published_figures_on_this_data(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(published, "cache_folder", lambda: tmp_path)
    model = load_model("sorted_list_one_head", "published", device="cpu")
    data = task.make_data(256, seed=42)
    right = task.correct(model(data.tokens), data).double().mean().item()
    assert right == pytest.approx(0.9945313, abs=1e-6)
    ov = model.W_E @ model.W_V[0, 0] @ model.W_O[0, 0] @ model.W_U
    assert (ov[:50].argmax(-1) == torch.arange(50)).all()
    # The published figure counts 49, which has no successor.
    qk = model.W_E @ model.W_Q[0, 0] @ model.W_K[0, 0].T @ model.W_E.T
    favourite = qk[:50, :50].argmax(-1)
    assert (favourite == torch.arange(50) + 1).double().mean().item() == pytest.approx(0.62)
    assert int((favourite[:49] == torch.arange(1, 50)).sum()) == 31


# ---- the shipped models ------------------------------------------------------------------------------------


@pytest.mark.parametrize("instance", INSTANCES)
def test_the_card_is_true(instance: str) -> None:
    """The card's own figures, measured again on the card's own data, and then on other data."""
    weights, card = load_checkpoint(checkpoint_path("sorted_list_one_head", instance))
    logits = logits_function(task, weights)
    assert card.accuracy["n"] == 10_000
    assert card.accuracy["value"] >= 0.99
    data = task.make_data(card.accuracy["n"], card.accuracy["seed"])
    # Another machine's arithmetic may move a few borderline answers.
    assert abs(task.correct(logits(data.tokens), data).double().mean() - card.accuracy["value"]) <= 3e-4
    other = task.make_data(10_000, seed=77)
    assert task.correct(logits(other.tokens), other).double().mean() >= 0.988

    seed = card.hard_slices["all"]["seed"]
    measured = task.hard_slices(logits, seed)
    assert measured.keys() == card.hard_slices.keys()
    for name, stored in card.hard_slices.items():
        assert measured[name]["n"] == stored["n"] == 20_000
        assert abs(measured[name]["accuracy"] - stored["accuracy"]) <= 1e-3, name
        pairs = zip(measured[name]["accuracy_by_position"], stored["accuracy_by_position"], strict=True)
        assert max(abs(one - other) for one, other in pairs) <= 1e-3, name


@pytest.mark.parametrize("instance", INSTANCES)
def test_the_model_has_a_weakness_to_find(instance: str) -> None:
    _, card = load_checkpoint(checkpoint_path("sorted_list_one_head", instance))
    for name in ("triple", "gap"):
        assert card.hard_slices[name]["accuracy"] <= card.hard_slices["all"]["accuracy"] - 0.03


@pytest.mark.parametrize("instance", INSTANCES)
def test_the_card_says_how_the_model_came_about(instance: str) -> None:
    _, card = load_checkpoint(checkpoint_path("sorted_list_one_head", instance))
    assert f"seed{card.seed}" == instance
    assert card.config == task.CONFIG
    defaults = {field.name: field.default for field in dataclasses.fields(task.TRAINING)}
    for name, value in dataclasses.asdict(task.TRAINING).items():
        stored = card.training.get(name, defaults[name])  # a card may be older than a setting
        assert (tuple(stored) if isinstance(stored, list) else stored) == value, name
    assert card.versions.keys() == {"python", "mechinterp-exercises", "torch", "safetensors"}
    training_seeds = {DATA_SEED + seed for seed in range(5)} | set(range(5))
    assert not training_seeds & {EVALUATION_SEED, EVALUATION_SEED + 1, card.accuracy["seed"]}
