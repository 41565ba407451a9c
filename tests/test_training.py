"""The loop does what its settings say, the same way each time, and never writes half a result."""

import itertools
import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from exercises_utils.challenges.palindromes import task as palindromes
from exercises_utils.models.architecture import ModelConfig, PlainTransformer
from exercises_utils.models.cards import CheckpointError, CheckpointExistsError
from exercises_utils.models.checkpoints import load_checkpoint
from exercises_utils.models.training import (
    DATA_SEED,
    EVALUATION_SEED,
    TrainingConfig,
    as_generator,
    run_training,
    train,
)


@dataclass(frozen=True)
class ToyData:
    tokens: Tensor
    labels: Tensor


def toy_task(**settings: Any) -> SimpleNamespace:
    """Repeat the first token at the last position: learnt quickly. Records each batch it is shown."""
    shown: list[Tensor] = []

    def sample(size: int, seed: int | Generator) -> ToyData:
        tokens = torch.randint(0, 5, (size, 3), generator=as_generator(seed))
        return ToyData(tokens, tokens[:, 0])

    def loss(logits: Tensor, data: ToyData) -> Tensor:
        shown.append(data.tokens)
        assert torch.equal(data.tokens[:, 0], data.labels)
        return torch.nn.functional.cross_entropy(logits[:, -1], data.labels)

    defaults = {"lr": 1e-2, "steps": 8, "batch_size": 32, "why": "a test"}
    return SimpleNamespace(
        CHALLENGE="toy",
        CONFIG=ModelConfig(1, 8, 2, 4, 3, 5, 5),
        TRAINING=TrainingConfig(**{**defaults, **settings}),
        DATA="made up",
        sample=sample,
        loss=loss,
        correct=lambda logits, data: logits[:, -1].argmax(-1) == data.labels,
        hard_slices=lambda logits_fn, seed: {"zeros": {"definition": "first token 0", "n": 1, "seed": seed}},
        shown=shown,
    )


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_it_learns() -> None:
    task = toy_task(steps=150, batch_size=128)
    weights, history = train(task, 0, quiet=True)
    assert [entry.step for entry in history] == [0, 50, 100, 149]
    assert history[0].accuracy < 0.5
    assert history[-1].accuracy > 0.95
    assert history[-1].loss < 0.3 < history[0].loss
    assert not any(weight.requires_grad for weight in weights.values())


def test_a_seed_decides_everything_and_the_global_state_nothing() -> None:
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first, _ = train(toy_task(), 3, quiet=True)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    again, _ = train(toy_task(), 3, quiet=True)
    other, _ = train(toy_task(), 4, quiet=True)
    assert same(first, again)
    assert not same(first, other)


def test_training_data_comes_from_seeds_that_nothing_else_uses() -> None:
    task = toy_task()
    train(task, 3, quiet=True)
    generator = as_generator(DATA_SEED + 3)
    for batch in task.shown:
        assert torch.equal(batch, task.sample(32, generator).tokens)
    assert not {DATA_SEED + seed for seed in range(1000)} & {EVALUATION_SEED, EVALUATION_SEED + 1}


@pytest.mark.parametrize(
    ("settings", "reference"),
    [
        ({}, lambda p: torch.optim.Adam(p, lr=1e-2)),
        ({"weight_decay": 0.1}, lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=0.1)),
        (
            {"optimizer": "adamw", "weight_decay": 0.1, "betas": (0.9, 0.98)},
            lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, betas=(0.9, 0.98)),
        ),
        ({"lr_final": 1e-3}, lambda p: torch.optim.Adam(p, lr=1e-2)),
    ],
    ids=["adam", "L2", "adamw", "falling rate"],
)
def test_the_settings_reach_the_optimizer(settings: dict[str, Any], reference: Any) -> None:
    """The same eight steps in a loop written out here."""
    task = toy_task(**settings)
    weights, _ = train(task, 5, quiet=True)
    model, generator = PlainTransformer(task.CONFIG, 5), as_generator(DATA_SEED + 5)
    optimizer = reference(model.parameters())
    for step in range(8):
        if "lr_final" in settings:
            optimizer.param_groups[0]["lr"] = 1e-2 + (1e-3 - 1e-2) * step / 8
        data = task.sample(32, generator)
        loss = torch.nn.functional.cross_entropy(model(data.tokens)[:, -1], data.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weights[name], weight, atol=1e-6, rtol=1e-5, msg=name)
    if settings:
        assert not same(weights, train(toy_task(), 5, quiet=True)[0])


def test_a_finite_dataset_is_shown_by_epochs() -> None:
    task = toy_task(dataset_size=70, batch_size=20, steps=9)
    train(task, 0, quiet=True)
    dataset = sorted(map(tuple, task.sample(70, as_generator(DATA_SEED)).tokens.tolist()))
    epochs = [torch.cat(task.shown[start : start + 3]) for start in (0, 3, 6)]
    for epoch in epochs:  # three batches of 20; the last 10 of the 70 are left out, other ones each time
        rest = list(dataset)
        for row in map(tuple, epoch.tolist()):
            rest.remove(row)  # fails if a row is shown more often than the dataset has it
        assert len(rest) == 10
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(epochs, 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps and batch_size must be at least 1; got 0 and 32"),
        ({"dataset_size": 10}, "dataset_size is 10, less than one batch of 32"),
        ({"optimizer": "sgd"}, 'optimizer must be "adam" or "adamw"; got \'sgd\''),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy_task(**settings)


def test_the_bar_shows_loss_and_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    train(toy_task(), 2)
    shown = capsys.readouterr().err
    assert "toy seed 2" in shown
    assert re.search(r"8/8 .*accuracy=\d\.\d{4}, loss=\d\.\d{4}", shown)
    train(toy_task(), 2, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_run_training_writes_weights_and_a_card_of_them(tmp_path: Path) -> None:
    task, out = toy_task(steps=12), tmp_path / "deeper" / "mine.safetensors"
    card = run_training(task, 0, out, quiet=True)
    weights, stored = load_checkpoint(out, "toy")
    assert stored.sha256 == card.sha256
    assert same(weights, train(task, 0, quiet=True)[0])
    assert stored.instance == "mine"
    assert stored.seed == 0
    assert stored.accuracy["n"] == 10_000
    assert 0.3 < stored.accuracy["value"] < 0.99
    assert stored.training["why"] == "a test"
    assert stored.hard_slices["zeros"]["seed"] == EVALUATION_SEED + 1
    # The figure is that of the weights on the data that it names.
    data = task.sample(10_000, stored.accuracy["seed"])
    model = PlainTransformer(task.CONFIG)
    model.load_state_dict(weights)
    assert task.correct(model(data.tokens), data).double().mean() == pytest.approx(
        stored.accuracy["value"], abs=1e-6
    )


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        run_training(toy_task(), 1, tmp_path / folder / "seed1.safetensors", quiet=True)
    for name in ("seed1.safetensors", "seed1.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_some_steps_of_palindromes_give_the_same_weights_twice() -> None:
    task = SimpleNamespace(**{**vars(palindromes), "TRAINING": replace(palindromes.TRAINING, steps=3)})
    one, other = (train(task, 1, quiet=True)[0] for _ in range(2))
    assert same(one, other)


def test_a_file_that_exists_is_refused_before_training(tmp_path: Path) -> None:
    task, out = toy_task(), tmp_path / "seed0.safetensors"
    run_training(task, 0, out, quiet=True)
    before, shown = out.read_bytes(), len(task.shown)
    with pytest.raises(CheckpointExistsError, match=r"--out.*--force"):
        run_training(task, 1, out, quiet=True)
    assert len(task.shown) == shown
    assert out.read_bytes() == before
    run_training(task, 1, out, force=True, quiet=True)
    assert load_checkpoint(out)[1].seed == 1
    with pytest.raises(CheckpointError, match="ends in .safetensors"):
        run_training(task, 1, tmp_path, quiet=True)


def test_training_that_fails_writes_nothing(tmp_path: Path) -> None:
    task = toy_task()
    task.hard_slices = lambda logits_fn, seed: 1 / 0
    with pytest.raises(ZeroDivisionError):
        run_training(task, 0, tmp_path / "seed0.safetensors", quiet=True)
    assert not list(tmp_path.iterdir())
