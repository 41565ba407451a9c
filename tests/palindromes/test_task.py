"""The palindromes task: its data is the original challenge's, and the shipped cards are true."""

import dataclasses
import inspect
import math
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint

from exercises_utils.challenges.palindromes import task
from exercises_utils.models.checkpoints import load_checkpoint
from exercises_utils.models.native import build_model
from exercises_utils.models.sources import available_instances, checkpoint_path
from exercises_utils.models.training import DATA_SEED, EVALUATION_SEED, Task, as_generator, logits_function

INSTANCES = ["seed0", "seed1", "seed2", "seed3", "seed4"]


def test_the_module_is_a_task() -> None:
    assert isinstance(task, Task)
    assert task.CHALLENGE == "palindromes"


def test_data_is_drawn_in_the_published_order() -> None:
    """The published recipe, written out a second time with loops and the global random state."""
    state = torch.random.get_rng_state()
    torch.manual_seed(42)
    half = torch.randint(0, 31, (10, 10))
    replacement = torch.randint(0, 31, (10, 10))
    replace = torch.randint(0, 2, (10, 10)).bool()
    palindrome = torch.randint(0, 31, (10, 10))
    order = torch.randperm(20)
    torch.random.set_rng_state(state)
    rows = []
    for i in range(10):
        rows.append([31, *palindrome[i].tolist(), *palindrome[i].flip(0).tolist(), 32])
    for i in range(10):
        mirrored = half[i].flip(0).tolist()
        second = [replacement[i, j].item() if replace[i, j] else mirrored[j] for j in range(10)]
        rows.append([31, *half[i].tolist(), *second, 32])
    data = task.make_data(20, seed=42)
    assert data.tokens.tolist() == [rows[i] for i in order]
    assert data.is_palindrome.tolist() == [row == [31, *row[1:-1][::-1], 32] for row in data.tokens.tolist()]
    assert torch.equal(data.labels, data.is_palindrome)


def test_a_generator_goes_on_where_a_seed_starts_again() -> None:
    state = torch.random.get_rng_state()
    generator = as_generator(7)
    first, second = task.make_data(6, generator), task.make_data(6, generator)
    assert torch.equal(first.tokens, task.make_data(6, 7).tokens)
    assert not torch.equal(first.tokens, second.tokens)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_shape_and_special_tokens_of_a_large_batch() -> None:
    data = task.make_data(4000, seed=1)
    assert data.tokens.shape == (4000, 22)
    assert data.tokens.dtype == torch.int64
    assert len(data) == 4000
    assert (data.tokens[:, 0] == task.START).all()
    assert (data.tokens[:, -1] == task.END).all()
    values = data.tokens[:, 1:-1]
    assert values.unique().tolist() == list(range(31))
    # 2,000 drawn as palindromes, and others by chance with probability ((1 + 1/31) / 2)^10 = 0.0013.
    assert 2000 <= data.is_palindrome.sum() <= 2020
    # Each pair of the others differs with probability 1/2 * 30/31.
    differs = (values != values.flip(-1))[:, :10].double().mean(0) * 2
    assert (differs - 15 / 31).abs().max() < 0.06


def test_data_is_frozen() -> None:
    data = task.make_data(2, seed=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.tokens = data.tokens  # type: ignore[misc]


@pytest.mark.parametrize("size", [0, -2, 7])
def test_size_must_be_even_and_positive(size: int) -> None:
    with pytest.raises(ValueError, match=f"size is {size}; expected an even number"):
        task.make_data(size, seed=0)


@pytest.mark.parametrize("pair", range(1, 11))
def test_one_mismatch_differs_in_that_pair_alone(pair: int) -> None:
    data = task.one_mismatch(600, pair, seed=2)
    tokens = data.tokens
    mismatched = (tokens != tokens.flip(-1))[:, 1:11]
    assert mismatched[:, pair - 1].all()
    assert mismatched.sum() == 600
    assert not data.is_palindrome.any()
    assert ((tokens[:, 0] == 31) & (tokens[:, -1] == 32)).all()
    difference = (tokens[:, 21 - pair] - tokens[:, pair]) % 31
    assert difference.unique().tolist() == list(range(1, 31))  # each other value occurs
    assert torch.equal(tokens, task.one_mismatch(600, pair, seed=2).tokens)


@pytest.mark.parametrize("pair", [0, 11, -1])
def test_pair_must_exist(pair: int) -> None:
    with pytest.raises(ValueError, match=f"pair is {pair}; expected 1 .* to 10"):
        task.one_mismatch(4, pair, seed=0)
    with pytest.raises(ValueError, match="size is 0"):
        task.one_mismatch(0, 1, seed=0)


def test_str_tokens() -> None:
    tokens = task.one_mismatch(1, 1, seed=0).tokens[0]
    names = task.str_tokens(tokens)
    assert names[0] == "START"
    assert names[-1] == "END"
    assert [int(name) for name in names[1:-1]] == tokens[1:-1].tolist()
    with pytest.raises(ValueError, match=r"shape \(1, 22\); expected one sequence"):
        inspect.unwrap(task.str_tokens)(tokens[None])  # without the tests' own check of shapes


def test_loss_and_accuracy_are_read_at_end() -> None:
    data = task.make_data(4, seed=0)
    logits = torch.full((4, 22, 2), 50.0)
    logits[:, :-1, 0] = -50.0  # other positions are confidently wrong or right: they must not count
    logits[:, -1, 0] = 0.0
    logits[:, -1, 1] = torch.where(data.is_palindrome, 2.0, -2.0)
    assert task.loss(logits, data).item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert task.correct(logits, data).all()
    logits[0, -1, 1] *= -1
    assert task.correct(logits, data).tolist() == [False, True, True, True]


def accept_all(tokens: Tensor) -> Tensor:
    return torch.tensor([0.0, 1.0]).expand(*tokens.shape, 2)


def sees_all_but_pair_three(tokens: Tensor) -> Tensor:
    same = (tokens == tokens.flip(-1))[:, 1:11]
    same[:, 2] = True
    return torch.nn.functional.one_hot(same.all(-1).long(), 2).float()[:, None].expand(-1, 22, 2)


def test_hard_slices_find_the_blind_pair() -> None:
    blind = task.hard_slices(sees_all_but_pair_three, seed=1)["one_mismatch"]
    assert blind["by_pair"] == {str(pair): float(pair != 3) for pair in range(1, 11)}
    assert blind["accuracy"] == 0.9
    assert blind["n"] == 20_000
    assert task.hard_slices(accept_all, seed=1)["one_mismatch"]["accuracy"] == 0


@pytest.mark.skipif(
    "EXERCISES_PUBLISHED_DIR" not in os.environ,
    reason="EXERCISES_PUBLISHED_DIR does not say where the originals are",
)
def test_the_original_model_has_its_published_loss_on_this_data() -> None:
    path = Path(os.environ["EXERCISES_PUBLISHED_DIR"]) / "palindrome_classifier.pt"
    legacy = torch.load(path, map_location="cpu", weights_only=True)
    empty = build_model(task.CONFIG, device="cpu")
    weights = convert_tl_checkpoint(legacy, empty.cfg)
    data = task.make_data(500, seed=42)
    for processed in (True, False):
        model = build_model(task.CONFIG, weights, device="cpu", processed=processed)
        assert task.loss(model(data.tokens), data).item() == pytest.approx(0.0137133, abs=1e-6)
    by_pair = task.hard_slices(model, seed=1)["one_mismatch"]["by_pair"]
    assert [pair for pair, value in by_pair.items() if value < 0.05] == ["2", "4"]


# ---- the shipped models ------------------------------------------------------------------------------------


def test_five_instances_are_shipped() -> None:
    assert available_instances("palindromes") == INSTANCES


@pytest.mark.parametrize("instance", INSTANCES)
def test_the_card_is_true(instance: str) -> None:
    """The card's own figures, measured again on the card's own data, and then on other data."""
    weights, card = load_checkpoint(checkpoint_path("palindromes", instance))
    logits = logits_function(task, weights)
    assert card.accuracy["n"] == 10_000
    assert card.accuracy["value"] >= 0.995
    data = task.make_data(card.accuracy["n"], card.accuracy["seed"])
    # Another machine's arithmetic may move a few borderline sequences.
    assert abs(task.correct(logits(data.tokens), data).double().mean() - card.accuracy["value"]) <= 3e-4
    other = task.make_data(10_000, seed=77)
    assert task.correct(logits(other.tokens), other).double().mean() >= 0.993

    stored = card.hard_slices["one_mismatch"]
    measured = task.hard_slices(logits, stored["seed"])["one_mismatch"]
    assert measured.keys() == stored.keys()
    assert measured["n"] == stored["n"] == 20_000
    for pair, value in stored["by_pair"].items():
        assert abs(measured["by_pair"][pair] - value) <= 1.5e-3, pair
    assert stored["accuracy"] == pytest.approx(sum(stored["by_pair"].values()) / 10, abs=1e-6)
    # Other sequences: four standard errors of two samples, plus a little where the rate is near 0 or 1.
    fresh = task.hard_slices(logits, seed=78)["one_mismatch"]
    for pair, value in stored["by_pair"].items():
        error = math.sqrt(2 * value * (1 - value) / 2000)
        assert abs(fresh["by_pair"][pair] - value) <= 4 * error + 3e-3, pair


@pytest.mark.parametrize("instance", INSTANCES)
def test_the_model_has_a_weakness_to_find(instance: str) -> None:
    _, card = load_checkpoint(checkpoint_path("palindromes", instance))
    assert 0.6 <= card.hard_slices["one_mismatch"]["accuracy"] <= 0.95


@pytest.mark.parametrize("instance", INSTANCES)
def test_the_card_says_how_the_model_came_about(instance: str) -> None:
    _, card = load_checkpoint(checkpoint_path("palindromes", instance))
    assert f"seed{card.seed}" == instance
    assert card.config == task.CONFIG
    for name, value in dataclasses.asdict(task.TRAINING).items():
        stored = card.training[name]
        assert (tuple(stored) if isinstance(stored, list) else stored) == value, name
    assert card.versions.keys() == {"python", "mechinterp-exercises", "torch", "safetensors"}
    training_seeds = {DATA_SEED + seed for seed in range(5)} | set(range(5))
    assert not training_seeds & {EVALUATION_SEED, EVALUATION_SEED + 1, card.accuracy["seed"]}
