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

import torch
from torch import Tensor

from exercises_utils.models.architecture import ModelConfig
from exercises_utils.models.cards import Card, CheckpointError, TamperedError
from exercises_utils.models.checkpoints import Stored, save_checkpoint

INSTANCE = "published"
LOCAL = "EXERCISES_PUBLISHED_DIR"
"""The environment variable that names a folder with the files, for whoever has them already."""


class PublishedError(CheckpointError):
    """A published model cannot be had: the challenge has none, or it could not be fetched or converted."""


def cache_folder() -> Path:
    """Where fetched models are kept: the user's cache, `~/.cache/mechinterp-exercises` on Linux."""
    import pooch  # needed here alone

    return Path(pooch.os_cache("mechinterp-exercises"))


@dataclass(frozen=True)
class Published(Stored):
    """A write-up's own model: at its place in the cache, once it has been fetched and converted."""

    challenge: str
    url: str
    sha256: str  # of the file as it was published
    config: ModelConfig
    by: str
    data: str

    @classmethod
    def at(cls, address: Path) -> "Published":
        """The model that the address in a file is of. Raises PublishedError if there is no such file."""
        challenge = address.parent.name
        if not address.is_file():
            raise PublishedError(f"{challenge} has no published model: there is no {address}.")
        values = json.loads(address.read_text(encoding="utf-8"))
        values["config"] = ModelConfig.from_dict(values["config"])
        return cls(cache_folder() / challenge / f"{INSTANCE}.safetensors", challenge, **values)

    def fetch(self) -> Path:
        """The weights in the cache, fetched and converted if they are not there yet.

        Shows a progress bar while it fetches. Raises PublishedError without a network, TamperedError if what
        came is not the file that was published.
        """
        if not (self.path.is_file() and self.path.with_suffix(".json").is_file()):
            # Read once: what is checked is what is loaded.
            content = self._local_file() if LOCAL in os.environ else self._from_the_network()
            legacy = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            save_checkpoint(converted(legacy, self.config), self._card(), self.path, force=True)
        return self.path

    @property
    def _file(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    def _local_file(self) -> bytes:
        path = Path(os.environ[LOCAL]) / self._file
        if not path.is_file():
            raise PublishedError(f"{LOCAL} is {os.environ[LOCAL]!r}; there is no {self._file} in it.")
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise TamperedError(f"{path} has SHA-256 {found}; {self.sha256} was published.")
        return content

    def _from_the_network(self) -> bytes:
        import pooch

        try:
            fetched = pooch.retrieve(
                self.url,
                f"sha256:{self.sha256}",
                fname=self._file,
                path=self.path.parent,
                downloader=pooch.HTTPDownloader(progressbar=True, timeout=30),
            )
        except ValueError as error:  # pooch's word for a hash that is not the expected one
            raise TamperedError(f"What came from {self.url} is not what was published: {error}") from error
        except Exception as error:
            raise PublishedError(
                f"The published model of {self.challenge} could not be fetched from {self.url} "
                f"({type(error).__name__}: {error}). Try again with a network; or fetch {self._file} elsewhere, "
                f"and set {LOCAL} to its folder. The models seed0 to seed4 need no network."
            ) from error
        return Path(fetched).read_bytes()

    def _card(self) -> Card:
        return Card(
            challenge=self.challenge,
            instance=INSTANCE,
            config=self.config,
            training={"by": self.by, "url": self.url, "sha256": self.sha256, "why": "Trained by its author."},
            data=self.data,
            versions={name: version(name) for name in ("mechinterp-exercises", "torch", "safetensors")},
        )


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
