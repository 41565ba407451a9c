"""A few steps of training give a folder that loads, whose card says how good the model is."""

import dataclasses
from pathlib import Path

import pytest
import torch

from exercises_utils.challenges.llm_multiplication import training
from exercises_utils.challenges.llm_multiplication.task import (
    CHALLENGE,
    Products,
    both_orders,
    right_by_place,
    sequences,
    split,
)
from exercises_utils.challenges.llm_multiplication.training import (
    VARIANTS,
    MultiplicationTraining,
    measure,
    run_training,
    train,
)
from exercises_utils.cli import main
from exercises_utils.models.cards import CheckpointError, CheckpointExistsError, FolderCard
from exercises_utils.models.checkpoints import load_checkpoint
from exercises_utils.models.loading import load_model, model_and_card
from exercises_utils.models.sources import available_instances, checkpoint_path

TINY = MultiplicationTraining(
    digits=(1, 1),
    steps=3,
    why="a test",
    n_layers=1,
    d_model=8,
    d_mlp=16,
    n_heads=2,
    n_key_value_heads=1,
    batch_size=16,
)
needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch older than 2.9 has no Muon")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch):
    """A variant "default" that is trained in a moment; nothing is compiled."""
    monkeypatch.setitem(VARIANTS, "default", TINY)
    with torch.compiler.set_stance("force_eager"):
        yield


@needs_muon
def test_training_writes_what_loads(tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    state = torch.get_rng_state()
    main_exits(["train", CHALLENGE, "--seed", "3", "--out", str(tmp_path / "mine")])
    assert torch.equal(torch.get_rng_state(), state)
    said = capsys.readouterr().out
    assert f"{tmp_path / 'mine'} is written: accuracy" in said
    model, card = model_and_card(tmp_path / "mine", CHALLENGE, device="cpu")
    assert isinstance(card, FolderCard)
    assert (card.instance, card.seed, card.variant) == ("mine", 3, "default")
    assert card.training["steps"] == 3
    assert card.training["final_loss"] > 0
    assert model.cfg.n_key_value_heads == 1
    n = len(both_orders(split((1, 1))[1]))
    assert (
        card.accuracy["n"]
        == n
        == sum(part["n"] for name, part in card.hard_slices.items() if name.startswith("held out"))
    )
    assert {name.split(",")[0] for name in card.hard_slices} == {"held out", "trained on"}
    with pytest.raises(CheckpointExistsError):
        run_training(3, tmp_path / "mine", quiet=True)


def main_exits(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code in (0, None)


@needs_muon
def test_a_seed_gives_the_same_model(tiny: None) -> None:
    one, same, other = (train(TINY, seed, quiet=True) for seed in (1, 1, 2))
    assert one[1] == same[1]
    weights = [dict(result[0].state_dict()) for result in (one, same, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(
        weights[0]["model.norm.weight"], weights[2]["model.norm.weight"]
    ) or not torch.equal(weights[0]["model.embed_tokens.weight"], weights[2]["model.embed_tokens.weight"])
    assert [step["step"] for step in one[1]] == [0, 2]


def test_variants_have_their_own_places(tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "checkpoints_folder", lambda: tmp_path)
    monkeypatch.setattr(training, "train", lambda *arguments, **keywords: (None, [{"step": 0, "loss": 1.0}]))
    written = []
    card = load_checkpoint(checkpoint_path("palindromes", "seed0"))[1]  # whichever
    monkeypatch.setattr(
        training, "card_and_folder", lambda *arguments: (written.append(arguments[-2:]), card)[1]
    )
    run_training(4)
    run_training(4, variant="two_digits")
    assert written == [
        (tmp_path / CHALLENGE / "seed4", "default"),
        (tmp_path / CHALLENGE / "two_digits", "two_digits"),
    ]
    with pytest.raises(CheckpointError, match="no variant 'big'. Variants: default, two_digits"):
        run_training(4, variant="big")
    with pytest.raises(CheckpointError, match="is a folder's"):
        run_training(4, tmp_path / "mine.safetensors")


def test_other_challenges_have_one_model(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["train", "palindromes", "--seed", "1", "--variant", "big"])
    assert "palindromes has one model, no variant 'big'" in capsys.readouterr().err


def test_what_is_measured_is_what_counting_gives() -> None:
    """A model that is right where the product is even, and says 7 elsewhere."""

    class Half:
        def __call__(self, input_ids: torch.Tensor) -> "Half":
            follows = torch.cat([input_ids[:, 1:], torch.zeros_like(input_ids[:, :1])], dim=1)
            self.logits = torch.nn.functional.one_hot(follows, 15).float()
            last = self.logits.shape[1] - 2  # where the last digit of the longest products is read
            odd = (input_ids[:, -1] - 1) % 2 == 1
            self.logits[odd, last] = torch.nn.functional.one_hot(torch.tensor(8), 15).float()
            return self

    settings = dataclasses.replace(TINY, digits=(2, 2))
    accuracy, slices = measure(Half(), settings)
    held_out = both_orders(split((2, 2))[1])
    assert accuracy["n"] == len(held_out)
    for length in (3, 4):
        here = held_out[held_out.n_answer_digits == length]
        part = slices[f"held out, {length} digits"]
        units = here.product % 10
        expected = ((units % 2 == 0) | (units == 7)).double().mean().item()
        assert part["by_place"]["units"] == pytest.approx(expected, abs=1e-6)
        assert part["by_place"]["tens"] == 1
        assert part["accuracy"] == pytest.approx(expected, abs=1e-6)
        assert part["n"] == len(here)
    whole = sum(part["accuracy"] * part["n"] for name, part in slices.items() if name.startswith("held out"))
    assert accuracy["value"] == pytest.approx(whole / len(held_out), abs=1e-5)
    counted = slices["trained on, 3 digits"]["n"] + slices["trained on, 4 digits"]["n"]
    assert abs(counted - len(held_out)) < 20  # as many pairs; a square has one order


# ---- what is shipped ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("instance", available_instances(CHALLENGE))
def test_a_shipped_model_is_what_its_card_says(instance: str) -> None:
    path = checkpoint_path(CHALLENGE, instance)
    weights, card = load_checkpoint(path, CHALLENGE)
    assert isinstance(card, FolderCard)
    assert card.instance == instance
    settings = VARIANTS[card.variant]
    recorded = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(settings).items()
    }
    assert {**card.training, "final_loss": None} == {**recorded, "final_loss": None}
    assert sum(file.stat().st_size for file in path.iterdir()) < 10_000_000
    assert card.config.n_key_value_heads < card.config.n_heads


@pytest.mark.parametrize("instance", available_instances(CHALLENGE))
def test_a_shipped_model_is_as_good_as_its_card_says(instance: str) -> None:
    """On a part of what the card was measured on."""
    _, card = load_checkpoint(checkpoint_path(CHALLENGE, instance), CHALLENGE)
    model = load_model(CHALLENGE, instance, device="cpu")
    digits = tuple(card.training["digits"])
    held_out = both_orders(split(digits)[1])
    for name, part in card.hard_slices.items():
        if not name.startswith("held out"):
            continue
        length = int(name.split()[2])
        rows = held_out[held_out.n_answer_digits == length]
        chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))[:500]
        data: Products = rows[chosen]
        with torch.no_grad():
            right = right_by_place(model(sequences(data)[:, :-1]), data)
        for place, value in right.items():
            share = part["by_place"][place]
            tolerance = 4 * (share * (1 - share) / len(data)) ** 0.5 + 1 / len(data)
            assert value.double().mean().item() == pytest.approx(share, abs=tolerance), (name, place)
