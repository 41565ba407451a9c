"""Weights on disk: a `.safetensors` file and its card, a `.json` of the same name beside it.

A model in Hugging Face's format is a folder instead (`model.safetensors`, `config.json` and its tokenizer), with its
card beside the folder.

Loading is strict. The card says what the weights must be, and a file that is anything else is refused with an
error of its own class: each says what was expected, what was found and what to do. Nothing is ever unpickled.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor

from exercises_utils.models.architecture import ModelConfig, QwenConfig
from exercises_utils.models.cards import (
    REMEDY,
    WEIGHTS,
    Card,
    CheckpointError,
    CheckpointExistsError,
    FolderCard,
    MalformedCardError,
    MissingCardError,
    MissingWeightsError,
    NotFiniteError,
    SwappedError,
    TamperedError,
    TruncatedError,
    UnsafeFileError,
    WrongChallengeError,
    WrongWeightsError,
    card_path,
)
from exercises_utils.models.files import write_whole


class Source(ABC):
    """Where one model's weights are, whatever the place. A model comes from it in three steps: `place`, `fetch`, `read`.

    The kinds are `Stored` (on this machine, with a card beside the weights), `published.Published` and `hub.OnHub`;
    `sources.find` says which one a name means. Another kind is another class, and a line there.
    """

    def place(
        self, device: str | torch.device | None, processed: bool
    ) -> tuple[str | torch.device | None, torch.dtype | None]:
        """The device and the number type of the model, settled before anything is fetched; None: as models usually are."""
        return device, None

    @abstractmethod
    def fetch(self) -> Path:
        """The weights on this machine, a file or a model's folder; fetched first where they are elsewhere."""

    @abstractmethod
    def read(self, path: Path) -> tuple[Mapping[str, Tensor], Card]:
        """The weights that `fetch` brought and their card, after every check."""


@dataclass(frozen=True)
class Stored(Source):
    """Weights at a path, with their card beside them; of `challenge`, or of any where that is None."""

    path: Path
    challenge: str | None

    def fetch(self) -> Path:
        """The path: nothing has to be fetched."""
        return self.path

    def read(self, path: Path) -> tuple[dict[str, Tensor], Card]:
        """See `load_checkpoint`."""
        return load_checkpoint(path, self.challenge)


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
    card = replace(card, sha256=hashlib.sha256(weights).hexdigest())
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


def read_folder(folder: Path) -> tuple[QwenConfig, dict[str, Tensor]]:
    """The sizes and the weights in a model's folder, as they are: without a card nothing says what they must be.

    Raises MissingWeightsError or WrongWeightsError.
    """
    if not (folder / WEIGHTS).is_file():
        raise MissingWeightsError(
            f"There is no {WEIGHTS} in {folder}. Only safetensors are loaded, never pickles."
        )
    return _config(folder), load_file(folder / WEIGHTS)


def _config(folder: Path) -> QwenConfig:
    path = folder / "config.json"
    if not path.is_file():
        raise MissingWeightsError(f"There is no config.json in {folder}.")
    try:
        return QwenConfig.from_huggingface(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, AttributeError, TypeError) as error:
        raise WrongWeightsError(f"{path} cannot be used: {error}") from error


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
    if _config(folder) != card.config:
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
