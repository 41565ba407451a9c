"""The task of the sorted lists with two heads: its data is the original challenge's, and the cards are true."""

import dataclasses
import inspect
import math
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from exercises_utils.challenges.sorted_list_two_heads import task
from exercises_utils.models import published
from exercises_utils.models.checkpoints import load_checkpoint
from exercises_utils.models.loading import load_model
from exercises_utils.models.sources import available_instances, checkpoint_path
from exercises_utils.models.training import DATA_SEED, EVALUATION_SEED, Task, as_generator, logits_function
from exercises_utils.tools.hooks import ablate

CHALLENGE = "sorted_list_two_heads"
INSTANCES = ["seed0", "seed1", "seed2", "seed3", "seed4"]
SHIPPED = [name for name in INSTANCES if name in available_instances(CHALLENGE)]
LISTS = torch.tensor([[9, 6, 2, 4, 5, 11, 50, 0, 33, 7], [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]])


def test_the_module_is_a_task() -> None:
    assert isinstance(task, Task)
    assert task.CHALLENGE == CHALLENGE


def test_data_is_drawn_in_the_published_order() -> None:
    """The published recipe, written out a second time with loops and the global random state."""
    state = torch.random.get_rng_state()
    torch.manual_seed(43)
    weights = torch.rand(6, 51)
    torch.random.set_rng_state(state)
    rows = []
    for i in range(6):
        order = sorted(range(51), key=lambda number, i=i: float(weights[i, number]))
        rows.append([*order[:10], 51, *sorted(order[:10])])
    assert task.make_data(6, seed=43).tokens.tolist() == rows


def test_a_generator_goes_on_where_a_seed_starts_again() -> None:
    state = torch.random.get_rng_state()
    generator = as_generator(7)
    first, second = task.make_data(6, generator), task.make_data(6, generator)
    assert torch.equal(first.tokens, task.make_data(6, 7).tokens)
    assert torch.equal(first.tokens, task.sample(6, 7).tokens)
    assert not torch.equal(first.tokens, second.tokens)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_large_batch_holds_different_numbers_each_as_often() -> None:
    data = task.make_data(20_000, seed=1)
    assert data.tokens.shape == (20_000, 21)
    assert data.tokens.dtype == torch.int64
    assert len(data) == 20_000
    assert (data.tokens[:, 10] == task.SEP).all()
    assert (data.labels.diff(dim=-1) > 0).all()
    for position in range(10):
        counts = data.tokens[:, position].bincount(minlength=52)
        assert counts[51] == 0
        assert (counts[:51] - 20_000 / 51).abs().max() < 6 * math.sqrt(20_000 / 51)


def test_from_lists() -> None:
    data = task.from_lists(LISTS)
    for row, numbers in zip(data.tokens.tolist(), LISTS.tolist(), strict=True):
        assert row == [*numbers, 51, *sorted(numbers)]
    assert data.labels.tolist() == [sorted(numbers) for numbers in LISTS.tolist()]
    assert torch.equal(task.from_lists(LISTS.tolist()).tokens, data.tokens)
    assert task.from_lists([[3] * 10]).tokens.tolist() == [[3] * 10 + [51] + [3] * 10]


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (torch.zeros(2, 9, dtype=torch.long), r"expected \(batch, 10\)"),
        (torch.zeros(10, dtype=torch.long), r"expected \(batch, 10\)"),
        (torch.full((1, 10), 51), "from 0 to 50"),
        (torch.full((1, 10), -1), "from 0 to 50"),
        (torch.zeros(1, 10), "whole numbers"),
    ],
)
def test_lists_that_are_none(lists: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(task.from_lists)(lists)  # without the tests' own check of shapes


def test_data_is_frozen() -> None:
    data = task.make_data(2, seed=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.tokens = data.tokens  # type: ignore[misc]


@pytest.mark.parametrize("size", [0, -2])
def test_size_must_be_positive(size: int) -> None:
    with pytest.raises(ValueError, match=f"size is {size}"):
        task.make_data(size, seed=0)


def test_str_tokens() -> None:
    tokens = task.from_lists(LISTS).tokens[0]
    names = task.str_tokens(tokens)
    assert names[10] == "SEP"
    assert [int(name) for i, name in enumerate(names) if i != 10] == [
        *tokens[:10].tolist(),
        *tokens[11:].tolist(),
    ]
    with pytest.raises(ValueError, match=r"shape \(1, 21\); expected one sequence"):
        inspect.unwrap(task.str_tokens)(tokens[None])  # without the tests' own check of shapes


def sorts(tokens: Tensor) -> Tensor:
    """Logits that are right everywhere, and confidently something else where nothing is asked."""
    logits = torch.zeros(len(tokens), 21, 52)
    for row, sequence in enumerate(tokens.tolist()):
        for position in range(21):
            answer = sequence[position + 1] if 10 <= position < 20 else 51
            logits[row, position, answer] = 5.0
    return logits


def test_loss_and_answers_are_read_at_sep_and_the_sorted_numbers() -> None:
    data = task.from_lists(LISTS)
    logits = sorts(data.tokens)
    assert task.answer_logits(logits).argmax(-1).tolist() == data.labels.tolist()
    assert task.loss(logits, data).item() == pytest.approx(math.log(math.exp(5) + 51) - 5)
    assert task.correct(logits, data).all()
    logits[0, 10] = 0.0
    logits[0, 10, 7] = 5.0
    expected = torch.ones(2, 10, dtype=torch.bool)
    expected[0, 0] = False
    assert torch.equal(task.correct(logits, data), expected)
    wrong = math.log(math.exp(5) + 51)
    assert task.loss(logits, data).item() == pytest.approx((wrong + 19 * (wrong - 5)) / 20)


def test_lists_drawn_where_the_model_is_weak() -> None:
    high = task.high_lists(2000, seed=2)
    assert (high.labels.diff(dim=-1) > 0).all()
    assert high.tokens[:, :10].unique().tolist() == list(range(30, 51))
    gap = task.gap_lists(300, seed=3)
    assert (gap.labels.diff(dim=-1) > 0).all()
    assert int(task.largest_gap(gap).min()) == 25
    assert task.largest_gap(task.from_lists(LISTS)).tolist() == [22, 1]
    repeats = task.repeat_lists(2000, seed=4)
    assert (repeats.labels.diff(dim=-1) == 0).any(-1).all()
    for data in (high, gap, repeats):
        assert torch.equal(data.labels, data.tokens[:, :10].sort(-1).values)
    for again, data in ((task.high_lists(2000, 2), high), (task.repeat_lists(2000, 4), repeats)):
        assert torch.equal(again.tokens, data.tokens)


def test_gap_lists_are_as_in_training_under_the_condition() -> None:
    wide = task.gap_lists(2000, seed=5, gap=18)
    drawn = task.make_data(60_000, seed=6)
    same = drawn.labels[task.largest_gap(drawn) >= 18].double()
    difference = wide.labels.double().mean(0) - same.mean(0)
    error = (wide.labels.double().var(0) / len(wide) + same.var(0) / len(same)).sqrt()
    assert (difference.abs() < 4 * error).all()


def misses_the_smallest_of_high_lists(tokens: Tensor) -> Tensor:
    logits = sorts(tokens)
    logits[tokens[:, 11] >= 30, 10] = 0.0
    return logits


def test_hard_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: getattr(task, name) for name in ("make_data", "high_lists", "gap_lists", "repeat_lists")}
    for name, draw in few.items():
        monkeypatch.setattr(task, name, lambda n, seed, draw=draw: draw(50, seed))
    slices = task.hard_slices(misses_the_smallest_of_high_lists, seed=1)
    assert {name: found["accuracy"] for name, found in slices.items()} == {
        "all": 1.0,
        "high": 0.0,
        "gap": 1.0,
        "repeats": 1.0,
    }
    assert slices["high"]["accuracy_by_position"] == [0.0] + [1.0] * 9


@pytest.mark.skipif(
    published.LOCAL not in os.environ, reason=f"{published.LOCAL} does not say where the originals are"
)
@pytest.mark.parametrize("processed", [True, False])
def test_the_original_model_has_its_published_figures_on_this_data(
    processed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "cache_folder", lambda: tmp_path)
    model = load_model(CHALLENGE, "published", device="cpu", processed=processed)
    data = task.make_data(500, seed=43)
    loss = task.loss(model(data.tokens), data).item()
    probabilities = task.answer_logits(model(data.tokens)).softmax(-1)
    right = probabilities.gather(-1, data.labels[..., None]).flatten()
    figures = (loss, right.mean().item(), right.median().item(), right.min().item())
    assert [round(figure, 3) for figure in figures] == [0.039, 0.966, 0.981, 0.001]
    costs = []
    for head in range(2):
        with ablate(model, [(0, head)], activation="result", how="mean"):
            costs.append(task.loss(model(data.tokens), data).item() - loss)
    assert [round(cost, 3) for cost in costs] == [0.920, 4.963]


# ---- the shipped models ------------------------------------------------------------------------------------


def test_five_instances_are_shipped() -> None:
    assert available_instances(CHALLENGE) == INSTANCES


@pytest.mark.parametrize("instance", SHIPPED)
def test_the_card_is_true(instance: str) -> None:
    """The card's own figures, measured again on the card's own data, and then on other data."""
    weights, card = load_checkpoint(checkpoint_path(CHALLENGE, instance))
    logits = logits_function(task, weights)
    assert card.accuracy["n"] == 10_000
    assert card.accuracy["value"] >= 0.99
    data = task.make_data(card.accuracy["n"], card.accuracy["seed"])
    # Another machine's arithmetic may move a few borderline answers.
    assert abs(task.correct(logits(data.tokens), data).double().mean() - card.accuracy["value"]) <= 3e-4
    other = task.make_data(10_000, seed=77)
    assert task.correct(logits(other.tokens), other).double().mean() >= 0.99

    measured = task.hard_slices(logits, card.hard_slices["all"]["seed"])
    assert measured.keys() == card.hard_slices.keys() == {"all", "high", "gap", "repeats"}
    for name, stored in card.hard_slices.items():
        assert measured[name]["definition"] == stored["definition"]
        assert measured[name]["n"] == stored["n"] == 20_000
        assert abs(measured[name]["accuracy"] - stored["accuracy"]) <= 1e-3, name
        pairs = zip(measured[name]["accuracy_by_position"], stored["accuracy_by_position"], strict=True)
        assert all(abs(now - then) <= 1e-3 for now, then in pairs), name

    draws = {
        "all": task.make_data,
        "high": task.high_lists,
        "gap": task.gap_lists,
        "repeats": task.repeat_lists,
    }
    for name, draw in draws.items():  # other lists: four standard errors of two samples
        fresh, share = draw(2000, 78), card.hard_slices[name]["accuracy"]
        found = float(task.correct(logits(fresh.tokens), fresh).all(-1).double().mean())
        error = math.sqrt(share * (1 - share) * (1 / 2000 + 1 / 20_000))
        assert abs(found - share) <= 4 * error + 1e-3, name


@pytest.mark.parametrize("instance", SHIPPED)
def test_the_model_has_a_weakness_to_find(instance: str) -> None:
    _, card = load_checkpoint(checkpoint_path(CHALLENGE, instance))
    assert card.hard_slices["all"]["accuracy"] >= 0.95
    for name in ("high", "gap", "repeats"):
        assert card.hard_slices[name]["accuracy"] <= 0.8, name


@pytest.mark.parametrize("instance", SHIPPED)
def test_the_card_says_how_the_model_came_about(instance: str) -> None:
    _, card = load_checkpoint(checkpoint_path(CHALLENGE, instance))
    assert f"seed{card.seed}" == instance
    assert card.config == task.CONFIG
    defaults = {field.name: field.default for field in dataclasses.fields(task.TRAINING)}
    for name, value in dataclasses.asdict(task.TRAINING).items():
        stored = card.training.get(name, defaults[name])  # a card may be older than a setting
        assert (tuple(stored) if isinstance(stored, list) else stored) == value, name
    assert card.versions.keys() == {"python", "mechinterp-exercises", "torch", "safetensors"}
    training_seeds = {DATA_SEED + seed for seed in range(5)} | set(range(5))
    assert not training_seeds & {EVALUATION_SEED, EVALUATION_SEED + 1, card.accuracy["seed"]}
