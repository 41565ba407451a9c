"""Cards: what a set of weights is, how it came about and how good it is; and every reason why one is refused."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from exercises_utils.models.architecture import ModelConfig, QwenConfig

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
    "n", "seed" and measured values; both are empty where nobody has measured. `sha256` is of the weights file.
    """

    challenge: str
    instance: str
    config: ModelConfig | QwenConfig
    training: Mapping[str, Any]
    data: str = ""
    seed: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    hard_slices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
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
        for each in fields(card_class):
            wanted = each.type if each.type in (str, int) else dict
            if not isinstance(values[each.name], wanted):
                raise MalformedCardError(
                    f"{path}: `{each.name}` is {values[each.name]!r}; expected {wanted.__name__}. {REMEDY}"
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


def card_path(path: Path) -> Path:
    """Where the card of a weights file or of a model's folder is: beside it."""
    return path.with_suffix(".json") if path.suffix == ".safetensors" else path.with_name(f"{path.name}.json")
