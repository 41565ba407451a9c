"""The sum task: its data is the original challenge's, carries are those of the integers, the cards are true."""

import dataclasses
import inspect
import math
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint

from exercises_utils.challenges.sum_of_two_numbers import task
from exercises_utils.models.checkpoints import load_checkpoint
from exercises_utils.models.native import build_model
from exercises_utils.models.sources import available_instances, checkpoint_path
from exercises_utils.models.training import DATA_SEED, EVALUATION_SEED, Task, as_generator, logits_function

INSTANCES = ["seed0", "seed1", "seed2", "seed4", "seed5"]


def numbers(data: task.SumData) -> list[tuple[int, int, int]]:
    """The three numbers of each sum, read from its tokens as text."""
    texts = ["".join(task.str_tokens(row)).replace("=", "+").split("+") for row in data.tokens]
    return [(int(a), int(b), int(c)) for a, b, c in texts]


def carries_out(a: int, b: int) -> list[bool]:
    """For each place, thousands first, whether what stands from it to the right overflows."""
    return [a % 10 ** (4 - i) + b % 10 ** (4 - i) >= 10 ** (4 - i) for i in range(4)]


def longest_way(a: int, b: int) -> int:
    """The longest way of a carry: from a column that overflows by itself, as far to the left as it goes."""
    best = 0
    out = carries_out(a, b)
    for start in range(3, 0, -1):
        digit = 10 ** (3 - start)
        if a // digit % 10 + b // digit % 10 < 10:
            continue  # no carry starts here
        way = 1
        for place in range(start - 1, 0, -1):
            column = a // 10 ** (3 - place) % 10 + b // 10 ** (3 - place) % 10
            if column >= 10 or not out[place]:
                break  # a carry of its own starts here, or none leaves
            way += 1
        best = max(best, way)
    return best


def test_the_module_is_a_task() -> None:
    assert isinstance(task, Task)
    assert task.CHALLENGE == "sum_of_two_numbers"


def test_data_is_drawn_in_the_published_order() -> None:
    """The published recipe, written out a second time with whole numbers and the global random state."""
    state = torch.random.get_rng_state()
    torch.manual_seed(42)
    a = torch.randint(0, 5, (20, 1)), torch.randint(0, 10, (20, 3))
    b = torch.randint(0, 5, (20, 1)), torch.randint(0, 10, (20, 3))
    torch.random.set_rng_state(state)
    expected = []
    for i in range(20):
        x, y = (int("".join(str(int(d)) for part in number for d in part[i].tolist())) for number in (a, b))
        symbols = f"{x:04}+{y:04}={x + y:04}"
        expected.append([{"+": 10, "=": 11}[s] if s in "+=" else int(s) for s in symbols])
    data = task.make_data(20, seed=42)
    assert data.tokens.tolist() == expected
    assert data.labels.tolist() == [row[10:] for row in expected]
    assert data.a.tolist() == [row[:4] for row in expected]
    assert data.b.tolist() == [row[5:9] for row in expected]
    assert torch.equal(task.sample(20, 42).tokens, data.tokens)


def test_a_generator_goes_on_where_a_seed_starts_again() -> None:
    state = torch.random.get_rng_state()
    generator = as_generator(7)
    first, second = task.make_data(6, generator), task.make_data(6, generator)
    assert torch.equal(first.tokens, task.make_data(6, 7).tokens)
    assert not torch.equal(first.tokens, second.tokens)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_shape_and_digits_of_a_large_batch() -> None:
    data = task.make_data(20_000, seed=1)
    assert data.tokens.shape == (20_000, 14)
    assert data.tokens.dtype == torch.int64
    assert len(data) == 20_000
    assert (data.tokens[:, 4] == task.PLUS).all()
    assert (data.tokens[:, task.EQUALS_POSITION] == task.EQUALS).all()
    for digits in (data.a, data.b):
        assert digits[:, 0].unique().tolist() == list(range(5))
        for place in range(1, 4):
            shares = digits[:, place].bincount(minlength=10) / len(data)
            assert (shares - 0.1).abs().max() < 0.01
    assert data.labels.max() == 9
    assert list(task.A_POSITIONS) == [0, 1, 2, 3]
    assert list(task.B_POSITIONS) == [5, 6, 7, 8]
    assert list(task.ANSWER_POSITIONS) == [9, 10, 11, 12]


def test_data_is_frozen() -> None:
    data = task.make_data(2, seed=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.tokens = data.tokens  # type: ignore[misc]


@pytest.mark.parametrize("size", [0, -2])
def test_size_must_be_positive(size: int) -> None:
    with pytest.raises(ValueError, match=f"size is {size}; expected at least 1"):
        task.make_data(size, seed=0)
    with pytest.raises(ValueError, match=f"size is {size}; expected at least 1"):
        task.untrained_sums(size, seed=0)


def test_sums_of_given_numbers() -> None:
    pairs = [(0, 0), (9, 1), (999, 1), (4999, 4999), (9999, 0), (5000, 4999), (1234, 5678)]
    data = task.from_numbers(pairs)
    assert numbers(data) == [(a, b, a + b) for a, b in pairs]
    assert torch.equal(data.tokens, task.from_numbers(torch.tensor(pairs)).tokens)
    assert torch.equal(data.tokens, task.from_digits(data.a, data.b).tokens)


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        ([[1, 2, 3]], [[1, 2, 3]], r"a has shape \(1, 3\); expected \(batch, 4\)"),
        ([[1, 2, 3, 4]], [1, 2, 3, 4], r"b has shape \(4,\); expected \(batch, 4\)"),
        ([[1, 2, 3, 10]], [[1, 2, 3, 4]], "a must hold whole numbers from 0 to 9"),
        ([[1, 2, 3, 4]], [[1, -2, 3, 4]], "b must hold whole numbers"),
        ([[1.0, 2, 3, 4]], [[1, 2, 3, 4]], "a must hold whole numbers"),
        ([[5, 0, 0, 0]], [[5, 0, 0, 0]], "below 10000; got 10000. It would have five digits"),
    ],
)
def test_what_is_no_sum_is_refused(a: list, b: list, reason: str) -> None:
    from_digits = inspect.unwrap(task.from_digits)  # without the tests' own check of shapes
    with pytest.raises(ValueError, match=reason):
        from_digits(torch.tensor(a), torch.tensor(b))


def test_pairs_that_are_no_sums_are_refused() -> None:
    from_numbers = inspect.unwrap(task.from_numbers)
    with pytest.raises(ValueError, match=r"shape \(2,\); expected \(batch, 2\)"):
        from_numbers(torch.tensor([1, 2]))
    for pair in ([10_000, 0], [0, -1], [0.5, 1.0]):
        with pytest.raises(ValueError, match="pairs must hold whole numbers from 0 to 9999"):
            from_numbers(torch.tensor([pair]))
    with pytest.raises(ValueError, match="got 10001"):
        from_numbers(torch.tensor([[9999, 2]]))


def test_str_tokens() -> None:
    (row,) = task.from_numbers([(2764, 815)]).tokens
    assert task.str_tokens(row) == list("2764+0815=3579")
    with pytest.raises(ValueError, match=r"shape \(1, 14\); expected one sequence"):
        inspect.unwrap(task.str_tokens)(row[None])


def test_loss_and_accuracy_are_read_at_the_answer_positions() -> None:
    data = task.make_data(4, seed=0)
    logits = torch.full((4, 14, 12), 0.0)
    logits[:, :9, 3] = logits[:, 13, 3] = 50.0  # other positions are sure of a 3: they must not count
    answers = task.answer_logits(logits)
    assert answers.shape == (4, 4, 12)
    answers.scatter_(-1, data.labels[..., None], 2.0)  # a view: this writes into `logits`
    log_denominator = math.log(math.exp(2) + 11)
    assert task.loss(logits, data).item() == pytest.approx(log_denominator - 2, abs=1e-6)
    assert task.correct(logits, data).all()
    logits[0, 9, 11] = 3.0  # "=" in the place of the thousands
    logits[1, 12, (data.labels[1, 3] + 1) % 10] = 3.0
    expected = torch.ones(4, 4, dtype=torch.bool)
    expected[0, 0] = expected[1, 3] = False
    assert torch.equal(task.correct(logits, data), expected)
    assert task.loss(logits, data) > log_denominator - 2


# ---- carries -----------------------------------------------------------------------------------------------


def test_carries_are_those_of_the_integers() -> None:
    for data in (task.make_data(3000, seed=2), task.untrained_sums(3000, seed=2)):
        ways = [carries_out(a, b) for a, b, _ in numbers(data)]
        assert task.carry_out(data).tolist() == ways
        assert task.carry_in(data).tolist() == [[*way[1:], False] for way in ways]
        assert not task.carry_out(data)[:, 0].any()


def test_carries_on_the_published_sums() -> None:
    """The write-up's own test, `a + b % 10 != c`, binds as `a + (b % 10)` and flags digits that overflow."""
    data = task.make_data(1000, seed=42)
    carry_in = task.carry_in(data)
    assert carry_in.sum(0).tolist() == [515, 477, 440, 0]
    assert int(carry_in.any(-1).sum()) == 826
    published = data.a + data.b % 10 != data.labels
    assert published.sum(0).tolist()[:3] == [515, 715, 689]
    assert torch.equal(published.any(-1), carry_in.any(-1))  # the split into two halves is the same


def test_the_longest_cascade_by_brute_force() -> None:
    edge = task.from_numbers(
        [(0, 0), (1, 9), (9, 1), (99, 1), (999, 1), (1999, 1), (555, 455), (550, 450), (599, 401), (4999, 1)]
    )
    assert task.longest_cascade(edge).tolist() == [0, 1, 1, 2, 3, 3, 2, 2, 3, 3]
    # 55 + 55: the tens overflow themselves, so the carry of the units goes one column.
    assert task.longest_cascade(task.from_numbers([(55, 55), (95, 5), (990, 20)])).tolist() == [1, 2, 2]
    for data in (task.make_data(5000, seed=3), task.untrained_sums(2000, seed=3)):
        assert task.longest_cascade(data).tolist() == [longest_way(a, b) for a, b, _ in numbers(data)]


@pytest.mark.parametrize("length", range(4))
def test_cascade_sums_have_that_cascade(length: int) -> None:
    data = task.cascade_sums(300, length, seed=4)
    assert len(data) == 300
    assert {longest_way(a, b) for a, b, _ in numbers(data)} == {length}
    assert data.a[:, 0].max() < 5
    assert data.b[:, 0].max() < 5
    assert torch.equal(data.tokens, task.cascade_sums(300, length, seed=4).tokens)


@pytest.mark.parametrize("length", [-1, 4])
def test_a_cascade_has_at_most_three_columns(length: int) -> None:
    with pytest.raises(ValueError, match=f"length is {length}"):
        task.cascade_sums(4, length, seed=0)


def test_untrained_sums_are_valid_and_were_never_trained_on() -> None:
    data = task.untrained_sums(5000, seed=5)
    found = numbers(data)
    assert len(data) == 5000
    assert all(a + b == c < 10_000 for a, b, c in found)
    assert all((a >= 5000) != (b >= 5000) for a, b, _ in found)
    first = sum(a >= 5000 for a, _, _ in found) / 5000
    assert abs(first - 0.5) < 0.03
    assert torch.equal(data.tokens, task.untrained_sums(5000, seed=5).tokens)


# ---- hard slices -------------------------------------------------------------------------------------------


def adds_without_carries(tokens: Tensor) -> Tensor:
    digits = (tokens[:, :4] + tokens[:, 5:9]) % 10
    logits = torch.zeros(len(tokens), 14, 12)
    logits[:, 9:13].scatter_(-1, digits[..., None], 1.0)
    return logits


def adds_rightly_below_five(tokens: Tensor) -> Tensor:
    right = tokens[:, 10:]
    answer = torch.where((tokens[:, :1] > 4) | (tokens[:, 5:6] > 4), 0, right)
    logits = torch.zeros(len(tokens), 14, 12)
    logits[:, 9:13].scatter_(-1, answer[..., None], 1.0)
    return logits


def test_hard_slices_find_what_a_model_cannot_do() -> None:
    by_slice = task.hard_slices(adds_without_carries, seed=1)
    assert by_slice["cascade_0"]["accuracy"] == 1
    assert [by_slice[f"cascade_{i}"]["accuracy"] for i in (1, 2, 3)] == [0, 0, 0]
    assert by_slice["all"]["accuracy"] == pytest.approx(0.166, abs=0.01)
    assert by_slice["all"]["accuracy_by_position"][3] == 1  # nothing carries into the units
    assert {values["n"] for values in by_slice.values()} == {20_000}
    by_slice = task.hard_slices(adds_rightly_below_five, seed=1)
    assert by_slice["all"]["accuracy"] == by_slice["cascade_3"]["accuracy"] == 1
    assert by_slice["untrained"]["accuracy"] < 0.001


# ---- the published model -----------------------------------------------------------------------------------


@pytest.mark.skipif(
    "EXERCISES_PUBLISHED_DIR" not in os.environ,
    reason="EXERCISES_PUBLISHED_DIR does not say where the originals are",
)
@pytest.mark.parametrize("processed", [True, False])
def test_the_original_model_has_its_published_figures_on_this_data(processed: bool) -> None:
    path = Path(os.environ["EXERCISES_PUBLISHED_DIR"]) / "sum_model.pt"
    legacy = torch.load(path, map_location="cpu", weights_only=True)
    empty = build_model(task.CONFIG, device="cpu")
    weights = convert_tl_checkpoint(legacy, empty.cfg)
    model = build_model(task.CONFIG, weights, device="cpu", processed=processed)
    data = task.make_data(1000, seed=42)
    logits = model(data.tokens)
    probs = task.answer_logits(logits).softmax(-1).gather(-1, data.labels[..., None])
    assert round(task.loss(logits, data).item(), 3) == 0.007
    assert round(probs.mean().item(), 3) == 0.993
    assert round(probs.median().item(), 3) == 0.996
    assert round(probs.min().item(), 3) == 0.759
    if processed:
        return
    # L2 inside Adam leaves W_U a few dimensions; processing spreads its mean over the others.
    sizes = model.W_U[:, :10].norm(dim=-1)
    assert sizes.topk(4).indices.sort().values.tolist() == [19, 25, 26, 37]
    others = sizes.sort(descending=True).values[4:]
    assert others.max() < 0.05 * sizes.topk(4).values.min()


# ---- the shipped models ------------------------------------------------------------------------------------


def test_five_instances_are_shipped() -> None:
    assert available_instances("sum_of_two_numbers") == INSTANCES


@pytest.mark.parametrize("instance", INSTANCES)
def test_the_card_is_true(instance: str) -> None:
    """The card's own figures, measured again on the card's own data, and then on other data."""
    weights, card = load_checkpoint(checkpoint_path("sum_of_two_numbers", instance))
    logits = logits_function(task, weights)
    assert card.accuracy["n"] == 10_000
    assert card.accuracy["value"] >= 0.999
    data = task.make_data(card.accuracy["n"], card.accuracy["seed"])
    # Another machine's arithmetic may move a few borderline digits.
    assert abs(task.correct(logits(data.tokens), data).double().mean() - card.accuracy["value"]) <= 3e-4
    other = task.make_data(10_000, seed=77)
    assert task.correct(logits(other.tokens), other).double().mean() >= 0.9985

    measured = task.hard_slices(logits, card.hard_slices["all"]["seed"])
    assert measured.keys() == card.hard_slices.keys()
    # Other sums: four standard errors of two samples, plus a little where the rate is near 0 or 1.
    fresh = task.hard_slices(logits, seed=78)
    for name, stored in card.hard_slices.items():
        assert measured[name]["definition"] == stored["definition"]
        assert measured[name]["n"] == stored["n"] == 20_000
        for was, now, elsewhere in zip(
            [stored["accuracy"], *stored["accuracy_by_position"]],
            [measured[name]["accuracy"], *measured[name]["accuracy_by_position"]],
            [fresh[name]["accuracy"], *fresh[name]["accuracy_by_position"]],
            strict=True,
        ):
            assert abs(now - was) <= 1.5e-3, name
            assert abs(elsewhere - was) <= 4 * math.sqrt(2 * was * (1 - was) / 20_000) + 3e-3, name


@pytest.mark.parametrize("instance", INSTANCES)
def test_the_model_has_a_weakness_to_find(instance: str) -> None:
    _, card = load_checkpoint(checkpoint_path("sum_of_two_numbers", instance))
    assert card.hard_slices["all"]["accuracy"] >= 0.99
    assert card.hard_slices["untrained"]["accuracy"] <= 0.5


@pytest.mark.parametrize("instance", INSTANCES)
def test_the_card_says_how_the_model_came_about(instance: str) -> None:
    _, card = load_checkpoint(checkpoint_path("sum_of_two_numbers", instance))
    assert f"seed{card.seed}" == instance
    assert card.config == task.CONFIG
    for name, value in dataclasses.asdict(task.TRAINING).items():
        stored = card.training[name]
        assert (tuple(stored) if isinstance(stored, list) else stored) == value, name
    assert card.versions.keys() == {"python", "mechinterp-exercises", "torch", "safetensors"}
    training_seeds = {DATA_SEED + seed for seed in range(6)} | set(range(6))
    assert not training_seeds & {EVALUATION_SEED, EVALUATION_SEED + 1, card.accuracy["seed"]}
