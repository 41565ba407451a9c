"""Every way in which a checkpoint can be wrong has its own error, and nothing is ever unpickled."""

import dataclasses
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from exercises_utils.models import cards, checkpoints, sources
from exercises_utils.models.architecture import ModelConfig, PlainTransformer
from exercises_utils.models.cards import (
    Card,
    CheckpointError,
    CheckpointExistsError,
    MalformedCardError,
    MissingCardError,
    MissingWeightsError,
    NotFiniteError,
    SwappedError,
    TamperedError,
    TruncatedError,
    UnsafeFileError,
    WrongChallengeError,
    WrongVersionError,
    WrongWeightsError,
    card_path,
)
from exercises_utils.models.checkpoints import load_checkpoint, save_checkpoint
from exercises_utils.models.sources import available_instances, checkpoint_path

CONFIG = ModelConfig(n_layers=1, d_model=6, n_heads=2, d_head=4, n_ctx=5, d_vocab=7, d_vocab_out=3)


def weights_of(seed: int) -> dict[str, Tensor]:
    return PlainTransformer(CONFIG, seed).state_dict()


def card_for(seed: int) -> Card:
    return Card(
        challenge="toy",
        instance=f"seed{seed}",
        config=CONFIG,
        training={"steps": 3},
        data="none",
        seed=seed,
        versions={"torch": "2"},
        accuracy={"value": 0.5, "n": 10, "seed": 1},
        hard_slices={"hard": {"definition": "all of it", "n": 10, "accuracy": 0.25}},
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An intact checkpoint."""
    path = tmp_path / "seed0.safetensors"
    save_checkpoint(weights_of(0), card_for(0), path)
    return path


def change_card(path: Path, **changes: object) -> None:
    values = json.loads(card_path(path).read_text())
    values.update(changes)
    card_path(path).write_text(json.dumps(values))


def rewrite(path: Path, weights: dict[str, Tensor]) -> None:
    """Other weights, with a card whose hash is right: only what the weights are is wrong."""
    path.unlink()
    card_path(path).unlink()
    save_checkpoint(weights, card_for(0), path)


def test_what_is_saved_comes_back(path: Path) -> None:
    weights, card = load_checkpoint(path, "toy")
    assert card == dataclasses.replace(card_for(0), sha256=card.sha256)
    assert weights.keys() == weights_of(0).keys()
    assert all(torch.equal(weight, weights_of(0)[name]) for name, weight in weights.items())
    assert sorted(file.name for file in path.parent.iterdir()) == ["seed0.json", "seed0.safetensors"]


def test_the_same_weights_give_the_same_bytes(path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    save_checkpoint(dict(reversed(weights_of(0).items())), card_for(0), again)
    assert again.read_bytes() == path.read_bytes()
    assert card_path(again).read_bytes() == card_path(path).read_bytes()


# ---- each way to be wrong ----------------------------------------------------------------------------------


def without_weights(path: Path) -> None:
    path.unlink()


def without_card(path: Path) -> None:
    card_path(path).unlink()


def card_that_is_not_json(path: Path) -> None:
    card_path(path).write_text('{"format_version": 1,')


def card_that_is_not_text(path: Path) -> None:
    card_path(path).write_bytes(b"\xff\xfe\x00\x80")


def card_that_is_a_list(path: Path) -> None:
    card_path(path).write_text("[]")


def card_that_lacks_a_field(path: Path) -> None:
    values = json.loads(card_path(path).read_text())
    del values["accuracy"]
    card_path(path).write_text(json.dumps(values))


def card_with_an_unknown_field(path: Path) -> None:
    change_card(path, colour="red")


def card_with_a_field_of_the_wrong_kind(path: Path) -> None:
    change_card(path, seed="zero")


def card_of_an_unknown_kind(path: Path) -> None:
    change_card(path, kind="qwen")


def config_with_an_unknown_key(path: Path) -> None:
    change_card(path, config={**dataclasses.asdict(CONFIG), "d_mlp": 4})


def config_with_a_wrong_value(path: Path) -> None:
    change_card(path, config={**dataclasses.asdict(CONFIG), "n_heads": "2"})


def later_version(path: Path) -> None:
    change_card(path, format_version=2)


def another_challenge(path: Path) -> None:
    change_card(path, challenge="sums")


def truncated_in_the_weights(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def truncated_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def not_safetensors(path: Path) -> None:
    path.write_bytes((20).to_bytes(8, "little") + b"this is just a text and no header")


def header_without_offsets(path: Path) -> None:
    header = b'{"embed.weight": {"dtype": "F32"}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def one_byte_changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def something_appended(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def swapped_with_another(path: Path) -> None:
    other = path.with_name("seed1.safetensors")
    save_checkpoint(weights_of(1), card_for(1), other)
    shutil.copyfile(other, path)


def missing_weight(path: Path) -> None:
    weights = weights_of(0)
    del weights["unembed.bias"]
    rewrite(path, weights)


def transposed_weight(path: Path) -> None:
    weights = weights_of(0)
    rewrite(path, {**weights, "embed.weight": weights["embed.weight"].mT})


def half_precision(path: Path) -> None:
    rewrite(path, {name: weight.half() for name, weight in weights_of(0).items()})


def nan_weight(path: Path) -> None:
    weights = weights_of(0)
    weights["blocks.0.attn.q.weight"][1, 2] = torch.nan
    rewrite(path, weights)


def infinite_weight(path: Path) -> None:
    weights = weights_of(0)
    weights["unembed.bias"][0] = torch.inf
    rewrite(path, weights)


BROKEN: list[tuple[Callable[[Path], None], type[CheckpointError], str]] = [
    (without_weights, MissingWeightsError, "There is no weights file"),
    (without_card, MissingCardError, "has no card: seed0.json is missing"),
    (card_that_is_not_json, MalformedCardError, "is not JSON: Expecting property name"),
    (card_that_is_not_text, MalformedCardError, "is not text"),
    (card_that_is_a_list, MalformedCardError, "holds a JSON list; expected an object"),
    (card_that_lacks_a_field, MalformedCardError, r"missing fields \['accuracy'\]"),
    (card_with_an_unknown_field, MalformedCardError, r"unknown fields \['colour'\]"),
    (card_with_a_field_of_the_wrong_kind, MalformedCardError, "`seed` is 'zero'; expected int"),
    (card_of_an_unknown_kind, MalformedCardError, "`kind` is 'qwen'"),
    (config_with_an_unknown_key, MalformedCardError, r"unknown: \['d_mlp'\]"),
    (config_with_a_wrong_value, MalformedCardError, "n_heads must be a positive integer; got '2'"),
    (later_version, WrongVersionError, "has format version 2; this package reads version 1"),
    (another_challenge, WrongChallengeError, "belongs to the challenge 'sums'; expected 'toy'"),
    (truncated_in_the_weights, TruncatedError, "its header announces"),
    (truncated_in_the_header, TruncatedError, "has 50 bytes, fewer than its header announces"),
    (empty, TruncatedError, "has 0 bytes"),
    (not_safetensors, TruncatedError, "its header cannot be read"),
    (header_without_offsets, TruncatedError, "its header cannot be read"),
    (one_byte_changed, TamperedError, "has SHA-256 [0-9a-f]{64}; its card says [0-9a-f]{64}"),
    (something_appended, TamperedError, "has SHA-256"),
    (swapped_with_another, SwappedError, "the weights that belong to seed1.json, not to seed0.json"),
    (missing_weight, WrongWeightsError, r"needs \['unembed.bias'\]"),
    (
        transposed_weight,
        WrongWeightsError,
        r"embed.weight is torch.float32 \(6, 7\); expected torch.float32 \(7, 6\)",
    ),
    (half_precision, WrongWeightsError, "is torch.float16"),
    (nan_weight, NotFiniteError, "blocks.0.attn.q.weight holds NaN or infinite"),
    (infinite_weight, NotFiniteError, "unembed.bias holds NaN or infinite"),
]


@pytest.mark.parametrize(("damage", "error", "message"), BROKEN, ids=[case[0].__name__ for case in BROKEN])
def test_each_damage_has_its_own_error(
    path: Path, damage: Callable[[Path], None], error: type[CheckpointError], message: str
) -> None:
    load_checkpoint(path, "toy")
    damage(path)
    with pytest.raises(error, match=message) as raised:
        load_checkpoint(path, "toy")
    assert type(raised.value) is error
    if error is not WrongChallengeError:
        assert str(path.parent) in str(raised.value)  # the message says which file


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_bomb_does_not_go_off(path: Path, protocol: int) -> None:
    mark = path.with_name("exploded")
    path.write_bytes(pickle.dumps(Bomb(mark), protocol))
    for challenge in ("toy", None):
        with pytest.raises((UnsafeFileError, TruncatedError)):
            load_checkpoint(path, challenge)
    assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists()  # the bomb was real


@pytest.mark.parametrize("zipped", [True, False])
def test_a_bomb_from_torch_save_does_not_go_off_even_with_a_matching_card(path: Path, zipped: bool) -> None:
    mark = path.with_name("exploded")
    torch.save({"embed.weight": Bomb(mark)}, path, _use_new_zipfile_serialization=zipped)
    change_card(path, sha256=checkpoints.hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(UnsafeFileError, match="is a pickle .* so it was not") as raised:
        load_checkpoint(path)
    assert "\n" not in str(raised.value)
    assert not mark.exists()
    torch.load(path.rename(path.with_suffix(".pt")), weights_only=False)
    assert mark.exists()


def test_weights_with_a_matching_hash_are_still_checked_by_safetensors(path: Path) -> None:
    """A header that is valid JSON with overlapping tensors: the hash is right and the file is not."""
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({"a": entry, "b": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\0\0")
    change_card(path, sha256=checkpoints.hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(TruncatedError, match="not a whole safetensors file"):
        load_checkpoint(path)


# ---- saving ------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten_unasked(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(
        CheckpointExistsError, match=r"seed0.safetensors and .*seed0.json exists already.*--force"
    ):
        save_checkpoint(weights_of(1), card_for(1), path)
    assert path.read_bytes() == before
    card_path(path).unlink()
    with pytest.raises(CheckpointExistsError):
        save_checkpoint(weights_of(1), card_for(1), path)
    save_checkpoint(weights_of(1), card_for(1), path, force=True)
    assert torch.equal(load_checkpoint(path)[0]["embed.weight"], weights_of(1)["embed.weight"])


def test_only_safetensors_are_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="ends in .safetensors; got .*model.pt"):
        save_checkpoint(weights_of(0), card_for(0), tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_crash_while_writing_leaves_no_half_file(
    tmp_path: Path, disk_fills_up: Callable, fails_at: int
) -> None:
    calls = disk_fills_up(fails_at)
    with pytest.raises(OSError, match="the disk is full"):
        save_checkpoint(weights_of(1), card_for(1), tmp_path / "new" / "seed1.safetensors")
    assert len(calls) == fails_at
    files = sorted(file.name for file in (tmp_path / "new").iterdir())
    assert files == ["seed1.safetensors"][: fails_at - 1]  # whole weights without a card, which do not load
    if files:
        assert load_file(tmp_path / "new" / files[0]).keys() == weights_of(1).keys()
        with pytest.raises(MissingCardError):
            load_checkpoint(tmp_path / "new" / files[0])


def test_a_card_holds_no_nan(tmp_path: Path) -> None:
    card = dataclasses.replace(card_for(0), accuracy={"value": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_checkpoint(weights_of(0), card, tmp_path / "seed0.safetensors")
    assert not list(tmp_path.iterdir())


# ---- finding -----------------------------------------------------------------------------------------------


def test_instances_come_in_the_order_of_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "checkpoints_folder", lambda: tmp_path)
    (tmp_path / "toy").mkdir()
    for name in ("seed10", "seed2", "seed0"):
        save_file({"a": torch.zeros(1)}, tmp_path / "toy" / f"{name}.safetensors")
    assert available_instances("toy") == ["seed0", "seed2", "seed10"]
    assert available_instances("none") == []
    assert checkpoint_path("toy", "seed2") == tmp_path / "toy" / "seed2.safetensors"
    with pytest.raises(
        cards.UnknownInstanceError,
        match=r"Instances: seed0, seed2, seed10; or \"published\", or the path",
    ):
        checkpoint_path("toy", "seed1")
    with pytest.raises(cards.UnknownChallengeError, match="no challenge 'none'. Challenges: toy"):
        checkpoint_path("none", "seed0")


@pytest.mark.parametrize("name", ["../toy/seed0", "seed0.pt", ""])
def test_an_instance_is_a_name_not_a_way_out_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(sources, "checkpoints_folder", lambda: tmp_path)
    (tmp_path / "toy").mkdir()
    with pytest.raises(cards.UnknownInstanceError):
        checkpoint_path("toy", name)


@pytest.mark.parametrize("instance", available_instances("palindromes"))
def test_every_shipped_checkpoint_loads(instance: str) -> None:
    weights, card = load_checkpoint(checkpoint_path("palindromes", instance), "palindromes")
    assert card.instance == instance
    assert card.config.shapes() == {name: tuple(weight.shape) for name, weight in weights.items()}
