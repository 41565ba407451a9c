"""Weights on disk: a `.safetensors` file and its card, a `.json` of the same name beside it.

A model in Hugging Face's format is a folder instead (`model.safetensors`, `config.json` and its tokenizer), with its
card beside the folder.

Loading is strict. The card says what the weights must be, and a file that is anything else is refused with an
error of its own class: each says what was expected, what was found and what to do. Nothing is ever unpickled.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from exercises_utils.models.architecture import ModelConfig, QwenConfig
from exercises_utils.models.files import write_whole

FORMAT_VERSION = 1
DEFAULT_VARIANT = "default"
WEIGHTS = "model.safetensors"
"""The weights in a model's folder."""
REMEDY = "Restore the file from the repository (`git checkout -- checkpoints`), or train it again."


class CheckpointError(Exception):
    """A checkpoint that cannot be used. Every class below is one reason."""


class UnknownChallengeError(CheckpointError):
    """No checkpoints are stored for a challenge of this name."""


class UnknownInstanceError(CheckpointError):
    """The challenge has no instance of this name."""


class MissingWeightsError(CheckpointError):
    """There is no weights file at the path."""


class MissingCardError(CheckpointError):
    """The weights have no card beside them, so nothing says what they are."""


class MalformedCardError(CheckpointError):
    """The card is not JSON, or lacks a field, or has one too many."""


class WrongVersionError(CheckpointError):
    """The card was written in another version of the format."""


class WrongChallengeError(CheckpointError):
    """The checkpoint belongs to another challenge."""


class UnsafeFileError(CheckpointError):
    """The file is a pickle, which can run code when it is loaded. It is not loaded."""


class TruncatedError(CheckpointError):
    """The weights file ends early, or is not a safetensors file at all."""


class SwappedError(CheckpointError):
    """The weights are intact, but belong to another card in the same folder."""


class TamperedError(CheckpointError):
    """The weights are not the ones that the card was written for."""


class WrongWeightsError(CheckpointError):
    """Names, shapes or number types are not those of the card's model config."""


class NotFiniteError(CheckpointError):
    """A weight is NaN or infinite."""


class CheckpointExistsError(CheckpointError):
    """Something would be overwritten without having been asked to."""


@dataclass(frozen=True)
class Card:
    """What a set of weights is, how it came about and how good it is; stored as JSON beside the weights.

    `accuracy` is {"value", "n", "seed"} on fresh data; `hard_slices` maps a slice's name to its "definition",
    "n", "seed" and measured values. `sha256` is of the weights file.
    """

    challenge: str
    instance: str
    config: ModelConfig | QwenConfig
    training: Mapping[str, Any]
    data: str
    seed: int
    versions: Mapping[str, str]
    accuracy: Mapping[str, Any]
    hard_slices: Mapping[str, Mapping[str, Any]]
    sha256: str = ""
    kind: str = "native"
    format_version: int = FORMAT_VERSION

    @property
    def identity(self) -> str:
        """The hash that says which weights these are: of the file as it was published, for a model that was fetched
        and converted, and of the weights for every other.
        """
        return str(self.training.get("sha256", self.sha256))

    def to_json(self) -> str:
        """The card's text, one line a field where that is readable."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, path: Path) -> "Card":
        """The card that `to_json` wrote; `path` is for the error messages."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise MalformedCardError(f"{path} is not JSON: {error}. {REMEDY}") from error
        if not isinstance(values, dict):
            raise MalformedCardError(
                f"{path} holds a JSON {type(values).__name__}; expected an object. {REMEDY}"
            )
        version = values.get("format_version")
        if version != FORMAT_VERSION:
            raise WrongVersionError(
                f"{path} has format version {version!r}; this package reads version {FORMAT_VERSION}. "
                "Use the checkpoint with the release of the package that wrote it, or train it again."
            )
        kind = values.get("kind", "native")
        if kind not in _KINDS:
            known = " and ".join(repr(name) for name in _KINDS)
            raise MalformedCardError(f"{path}: `kind` is {kind!r}; this package knows {known}. {REMEDY}")
        card_class, config_class = _KINDS[kind]
        names = {field.name for field in fields(card_class)}
        unknown, missing = sorted(values.keys() - names), sorted(names - values.keys())
        if unknown or missing:
            raise MalformedCardError(f"{path}: unknown fields {unknown}, missing fields {missing}. {REMEDY}")
        for name, kinds in _FIELD_TYPES.items():
            if name in values and not isinstance(values[name], kinds):
                raise MalformedCardError(
                    f"{path}: `{name}` is {values[name]!r}; expected {kinds.__name__}. {REMEDY}"
                )
        try:
            config = config_class.from_dict(values["config"])
        except (TypeError, ValueError) as error:
            raise MalformedCardError(f"{path}: {error}") from error
        return card_class(**{**values, "config": config})


@dataclass(frozen=True)
class FolderCard(Card):
    """The card of a model in a folder.

    `sha256` is of the weights, `files` of every other file by its name. `variant` says which of a challenge's models
    it is: "default" is the lesson's, any other is there to be compared with it.
    """

    kind: str = "huggingface"
    files: Mapping[str, str] = field(default_factory=dict)
    variant: str = DEFAULT_VARIANT


_KINDS: dict[str, tuple[type[Card], type[ModelConfig] | type[QwenConfig]]] = {
    "native": (Card, ModelConfig),
    "huggingface": (FolderCard, QwenConfig),
}
_FIELD_TYPES: dict[str, type] = {
    "challenge": str,
    "instance": str,
    "config": dict,
    "training": dict,
    "data": str,
    "seed": int,
    "versions": dict,
    "accuracy": dict,
    "hard_slices": dict,
    "sha256": str,
    "kind": str,
    "files": dict,
    "variant": str,
}


def checkpoints_folder() -> Path:
    """The folder of checkpoints, one per challenge: the repository's, or an installed package's."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_checkpoints"
    return installed if installed.is_dir() else package.parent / "checkpoints"


def available_instances(challenge: str) -> list[str]:
    """The names of the instances stored for a challenge, `seed2` before `seed10`. Empty if there are none."""
    folder = checkpoints_folder() / challenge
    names = [path.stem for path in folder.glob("*.safetensors")]
    names += [path.parent.name for path in folder.glob(f"*/{WEIGHTS}")]
    return sorted(
        names, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
    )


def lesson_instances(challenge: str) -> list[str]:
    """The instances that the challenge's lesson holds on: all but the models that it is only compared with."""

    def variant(name: str) -> str:
        try:
            card = json.loads((checkpoints_folder() / challenge / f"{name}.json").read_text(encoding="utf-8"))
            return str(card.get("variant", DEFAULT_VARIANT))
        except (OSError, ValueError, AttributeError):
            return DEFAULT_VARIANT  # whoever loads it hears what is wrong with its card

    return [name for name in available_instances(challenge) if variant(name) == DEFAULT_VARIANT]


def hub_addresses(challenge: str) -> dict[str, Path]:
    """The models of a challenge that are on the hub, not here: their names, and the files with their addresses."""
    found = {}
    for path in sorted((checkpoints_folder() / challenge).glob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # a damaged card: whoever loads its weights hears of it
        if isinstance(values, dict) and values.get("kind") == "hub":
            found[path.name.removesuffix(".json")] = path
    return found


def checkpoint_path(challenge: str, instance: str | Path) -> Path:
    """Where an instance's weights are: a `.safetensors` file, or a model's folder.

    `instance` is a name, or already the path of one of these. The name "published" is that of the write-up's own
    model, which is fetched the first time it is asked for.
    """
    folder = checkpoints_folder()
    challenges = sorted(path.name for path in folder.glob("*") if path.is_dir())
    if str(instance).endswith(".safetensors") or (is_path(instance) and Path(instance).is_dir()):
        return Path(instance)
    if challenge not in challenges:
        raise UnknownChallengeError(
            f"There is no challenge {challenge!r}. Challenges: {', '.join(challenges)}."
        )
    if instance == "published":
        from exercises_utils.models.published import published_path  # needs pooch, which nothing else does

        return published_path(challenge)
    instances = available_instances(challenge)
    if instance not in instances:
        fetched = [f'"{name}" from the hub (`load_model` only)' for name in hub_addresses(challenge)]
        others = ", ".join(fetched) or '"published"'
        raise UnknownInstanceError(
            f"{challenge} has no instance {str(instance)!r}. Instances: {', '.join(instances) or 'none'}; "
            f"or {others}, or the path of a .safetensors file or of a model's folder."
        )
    path = folder / challenge / f"{instance}.safetensors"
    return path if path.is_file() else path.with_suffix("")


def is_path(instance: str | Path) -> bool:
    """Whether an instance is named by its path: a `Path`, or a text with a separator in it."""
    return isinstance(instance, Path) or "/" in instance or os.sep in instance


def card_path(path: Path) -> Path:
    """Where the card of a weights file or of a model's folder is: beside it."""
    return path.with_suffix(".json") if path.suffix == ".safetensors" else path.with_name(f"{path.name}.json")


def save_checkpoint(
    state_dict: Mapping[str, Tensor], card: Card, path: str | Path, *, force: bool = False
) -> Card:
    """The card as written, with the hash of the weights in it. Writes both files, whole or not at all.

    Raises CheckpointExistsError if either file exists and `force` is False.
    """
    path = Path(path)
    require_free(path, force)
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = save({name: weight.detach().cpu().contiguous() for name, weight in state_dict.items()})
    card = Card(**{**_shallow(card), "sha256": hashlib.sha256(weights).hexdigest()})
    # The card comes last: until it is there, nothing loads the weights.
    card_text = card.to_json().encode()
    write_whole(path, weights)
    write_whole(card_path(path), card_text)
    return card


def require_free(path: Path, force: bool, *, folder: bool = False) -> None:
    """Raise CheckpointExistsError if weights or card are already at `path` and `force` is False."""
    if (path.suffix == ".safetensors") == folder:
        end = "is a folder's, without .safetensors" if folder else "ends in .safetensors"
        raise CheckpointError(f"A checkpoint's path {end}; got {path}.")
    taken = [str(file) for file in (path, card_path(path)) if file.exists()]
    if taken and not force:
        raise CheckpointExistsError(
            f"{' and '.join(taken)} exists already. Choose another path (--out) or overwrite it (--force)."
        )


def load_checkpoint(path: str | Path, challenge: str | None = None) -> tuple[dict[str, Tensor], Card]:
    """The weights at `path` and their card, after every check: what disagrees with the card is refused.

    `path` is a `.safetensors` file or a model's folder. With `challenge`, the card must be of that challenge. Raises
    the `CheckpointError` that names the reason.
    """
    path = Path(path)
    weights = path / WEIGHTS if path.is_dir() else path
    if not weights.is_file():
        raise MissingWeightsError(f"There is no weights file {weights}. {REMEDY}")
    if not card_path(path).is_file():
        raise MissingCardError(f"{path} has no card: {card_path(path).name} is missing. {REMEDY}")
    try:
        card = Card.from_json(card_path(path).read_text(encoding="utf-8"), card_path(path))
    except UnicodeDecodeError as error:
        raise MalformedCardError(f"{card_path(path)} is not text: {error}. {REMEDY}") from error
    if challenge is not None and card.challenge != challenge:
        raise WrongChallengeError(
            f"{path} belongs to the challenge {card.challenge!r}; expected {challenge!r}."
        )
    if isinstance(card, FolderCard) != path.is_dir():
        expected = "a folder" if isinstance(card, FolderCard) else "a file"
        raise MalformedCardError(f"{card_path(path)} is the card of {expected}; {path} is none. {REMEDY}")
    content = weights.read_bytes()  # read once: what is checked is what is loaded
    _require_safetensors(content, weights)
    _require_hash(content, card, path)
    if isinstance(card, FolderCard):
        _require_files(path, card)
    try:
        state_dict = load(content)
    except SafetensorError as error:
        raise TruncatedError(f"{weights} is not a whole safetensors file: {error}. {REMEDY}") from error
    _require_weights(state_dict, card.config, weights)
    return state_dict, card


def _shallow(card: Card) -> dict[str, Any]:
    return {field.name: getattr(card, field.name) for field in fields(card)}


def _require_safetensors(content: bytes, path: Path) -> None:
    if content.startswith((b"PK\x03\x04", b"\x80")):
        raise UnsafeFileError(
            f"{path} is a pickle (as torch.save writes), not a safetensors file. A pickle can run code "
            f"when it is loaded, so it was not. {REMEDY}"
        )
    header = int.from_bytes(content[:8], "little")
    if len(content) < 8 or len(content) < 8 + header:
        raise TruncatedError(f"{path} has {len(content)} bytes, fewer than its header announces. {REMEDY}")
    try:
        entries = json.loads(content[8 : 8 + header])
        end = max(
            (entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"), default=0
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise TruncatedError(
            f"{path} is not a safetensors file: its header cannot be read. {REMEDY}"
        ) from error
    if len(content) < 8 + header + end:
        raise TruncatedError(
            f"{path} has {len(content)} bytes; its header announces {8 + header + end}. {REMEDY}"
        )


def _require_hash(content: bytes, card: Card, path: Path) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found == card.sha256:
        return
    for other in sorted(path.parent.glob("*.json")):
        if other != card_path(path) and found in other.read_text(encoding="utf-8", errors="replace"):
            raise SwappedError(
                f"{path} holds the weights that belong to {other.name}, not to {card_path(path).name}. "
                f"Weights and card were swapped or misnamed. {REMEDY}"
            )
    raise TamperedError(f"{path} has SHA-256 {found}; its card says {card.sha256}. {REMEDY}")


def _require_files(folder: Path, card: FolderCard) -> None:
    """Refuse a folder that holds other files than its card says, or whose config.json is not the card's config."""
    found = {file.name: file for file in folder.iterdir() if not file.name.startswith(".")}
    missing = sorted(card.files.keys() - found.keys())
    if missing:
        raise MissingWeightsError(f"{folder} has no {', '.join(missing)}. {REMEDY}")
    extra = sorted(found.keys() - card.files.keys() - {WEIGHTS})
    if extra:
        pickles = [name for name in extra if name.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt"))]
        raise (UnsafeFileError if pickles else TamperedError)(
            f"{folder} holds what its card does not name: {', '.join(extra)}. Nothing of it was loaded. Remove it."
        )
    for name, sha256 in card.files.items():
        content = found[name].read_bytes() if found[name].is_file() else b""
        if hashlib.sha256(content).hexdigest() != sha256:
            raise TamperedError(f"{found[name]} is not the file that its card was written for. {REMEDY}")
    try:
        config = QwenConfig.from_huggingface(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise WrongWeightsError(f"{folder / 'config.json'} cannot be used: {error} {REMEDY}") from error
    if config != card.config:
        raise WrongWeightsError(f"{folder / 'config.json'} and the card have different sizes. {REMEDY}")


def _require_weights(state_dict: Mapping[str, Tensor], config: ModelConfig | QwenConfig, path: Path) -> None:
    expected = config.shapes()
    if state_dict.keys() != expected.keys():
        unknown, missing = (
            sorted(state_dict.keys() - expected.keys()),
            sorted(expected.keys() - state_dict.keys()),
        )
        raise WrongWeightsError(
            f"{path}: the card's config has no weights {unknown}, and needs {missing}. {REMEDY}"
        )
    for name, weight in state_dict.items():
        if tuple(weight.shape) != expected[name] or weight.dtype != torch.float32:
            raise WrongWeightsError(
                f"{path}: {name} is {weight.dtype} {tuple(weight.shape)}; "
                f"expected torch.float32 {expected[name]}. {REMEDY}"
            )
        if not weight.isfinite().all():
            raise NotFiniteError(f"{path}: {name} holds NaN or infinite numbers. {REMEDY}")
