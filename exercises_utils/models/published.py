"""The write-ups' own models, by name: `load_model("palindromes", "published")` fetches one when it is asked for.

The project has no right to pass them on. It has their addresses and hashes, in `checkpoints/<challenge>/published.json`;
this module fetches the file, refuses it unless its hash is right, converts it to the project's format, and puts
weights and card into a folder of the user's cache. From then on it is an instance like any other.
"""

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pooch
import torch
from torch import Tensor

from exercises_utils.models.architecture import ModelConfig
from exercises_utils.models.checkpoints import (
    Card,
    CheckpointError,
    TamperedError,
    checkpoints_folder,
    save_checkpoint,
)

INSTANCE = "published"
LOCAL = "EXERCISES_PUBLISHED_DIR"
"""The environment variable that names a folder with the files, for whoever has them already."""


class PublishedError(CheckpointError):
    """A published model cannot be had: the challenge has none, or it could not be fetched or converted."""


@dataclass(frozen=True)
class Address:
    """Where a published model is, and what it must be."""

    url: str
    sha256: str
    config: ModelConfig
    by: str
    data: str

    @property
    def file(self) -> str:
        """The file's own name."""
        return self.url.rsplit("/", 1)[-1]


def address(challenge: str) -> Address:
    """Where a challenge's published model is. Raises PublishedError if it has none."""
    path = checkpoints_folder() / challenge / f"{INSTANCE}.json"
    if not path.is_file():
        raise PublishedError(f"{challenge} has no published model: there is no {path}.")
    values = json.loads(path.read_text(encoding="utf-8"))
    return Address(**{**values, "config": ModelConfig.from_dict(values["config"])})


def cache_folder() -> Path:
    """Where fetched models are kept: the user's cache, `~/.cache/mechinterp-exercises` on Linux."""
    return Path(pooch.os_cache("mechinterp-exercises"))


def published_path(challenge: str) -> Path:
    """The weights of a challenge's published model, fetched and converted if they are not there yet.

    Shows a progress bar while it fetches. Raises PublishedError without a network, TamperedError if what
    came is not the file that was published.
    """
    where = address(challenge)
    path = cache_folder() / challenge / f"{INSTANCE}.safetensors"
    if not (path.is_file() and path.with_suffix(".json").is_file()):
        _write(challenge, where, _content(challenge, where), path)
    return path


def converted(legacy: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The weights of a `HookedTransformer` state dict under today's names.

    Biases that the config does not have must be zero in the file, and are left out.
    """
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint

    sizes = {
        name: getattr(config, name)
        for name in ("n_layers", "d_model", "n_heads", "d_head", "n_ctx", "d_vocab")
    }
    weights = convert_tl_checkpoint(
        dict(legacy), TransformerBridgeConfig(attn_only=True, act_fn="relu", **sizes)
    )
    wanted = config.shapes()
    left_over = [name for name in weights.keys() - wanted.keys() if weights[name].any()]
    if left_over or not wanted.keys() <= weights.keys():
        raise PublishedError(
            f"the file is not of this model: unexpected {sorted(left_over)}, "
            f"missing {sorted(wanted.keys() - weights.keys())}"
        )
    return {name: weights[name] for name in wanted}


def _content(challenge: str, where: Address) -> bytes:
    """The published file, read once: what is checked is what is loaded."""
    if LOCAL in os.environ:
        path = Path(os.environ[LOCAL]) / where.file
        if not path.is_file():
            raise PublishedError(f"{LOCAL} is {os.environ[LOCAL]!r}; there is no {where.file} in it.")
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != where.sha256:
            raise TamperedError(f"{path} has SHA-256 {found}; {where.sha256} was published.")
        return content
    folder = cache_folder() / challenge
    try:
        downloader = pooch.HTTPDownloader(progressbar=True, timeout=30)
        fetched = pooch.retrieve(
            where.url, f"sha256:{where.sha256}", fname=where.file, path=folder, downloader=downloader
        )
    except ValueError as error:  # pooch's word for a hash that is not the expected one
        raise TamperedError(f"What came from {where.url} is not what was published: {error}") from error
    except Exception as error:
        raise PublishedError(
            f"The published model of {challenge} could not be fetched from {where.url} ({type(error).__name__}: {error}). "
            f"Try again with a network; or fetch {where.file} elsewhere, and set {LOCAL} to its folder. "
            "The models seed0 to seed4 need no network."
        ) from error
    return Path(fetched).read_bytes()


def _write(challenge: str, where: Address, content: bytes, path: Path) -> None:
    legacy = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    card = Card(
        challenge=challenge,
        instance=INSTANCE,
        config=where.config,
        training={"by": where.by, "url": where.url, "sha256": where.sha256, "why": "Trained by its author."},
        data=where.data,
        seed=0,
        versions={name: version(name) for name in ("mechinterp-exercises", "torch", "safetensors")},
        accuracy={},
        hard_slices={},
    )
    save_checkpoint(converted(legacy, where.config), card, path, force=True)
