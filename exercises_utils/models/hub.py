"""Models on the Hugging Face hub, by name: `load_model("llm_multiplication", "qwen2.5-0.5b")` fetches one.

The project has their addresses, in `checkpoints/<challenge>/<name>.json`: the repository, one commit of it, the files
that are needed, and the hash of the weights. `huggingface_hub` fetches them into its own cache (`HF_HUB_CACHE`), shows
how far it is and goes on where it was cut off. Nothing is read before the weights' hash is right, and nothing is fetched
that the memory cannot hold.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from exercises_utils.models import devices
from exercises_utils.models.architecture import QwenConfig
from exercises_utils.models.cards import (
    WEIGHTS,
    Card,
    CheckpointError,
    MalformedCardError,
    MissingCardError,
    MissingWeightsError,
    TamperedError,
    WrongWeightsError,
    card_path,
)
from exercises_utils.models.checkpoints import Source, read_folder


class HubError(CheckpointError):
    """A model on the hub cannot be had: there is no network, or the hub does not have it any more."""


@dataclass(frozen=True)
class OnHub(Source):
    """A model on the hub, and what it must be; or the same one in a local `folder` without a card.

    `sha256` is of its weights, one safetensors file.
    """

    challenge: str
    instance: str
    folder: Path | None
    repo: str
    revision: str
    files: tuple[str, ...]
    sha256: str
    config: QwenConfig
    by: str
    licence: str

    @classmethod
    def at(cls, address: Path, folder: Path | None = None) -> "OnHub":
        """The model that the address in a file is of. Raises MalformedCardError."""
        try:
            values = json.loads(address.read_text(encoding="utf-8"))
            names = {"kind", *(field.name for field in fields(cls))} - {"challenge", "instance", "folder"}
            if values.keys() != names or values.pop("kind") != "hub" or WEIGHTS not in values["files"]:
                raise ValueError(
                    f"expected exactly {sorted(names)}, of kind 'hub', with {WEIGHTS} in `files`"
                )
            values |= {"files": tuple(values["files"]), "config": QwenConfig.from_dict(values["config"])}
            return cls(address.parent.name, address.stem, folder, **values)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise MalformedCardError(
                f"{address} is not the address of a model on the hub: {error}."
            ) from error

    @property
    def card(self) -> Card:
        """What the address says, as a card."""
        return Card(
            challenge=self.challenge,
            instance=self.instance,
            config=self.config,
            training={"by": self.by, "repo": self.repo, "revision": self.revision},
            sha256=self.sha256,
            kind="hub",
        )

    @classmethod
    def in_folder(cls, folder: Path, addresses: Sequence[Path]) -> "OnHub":
        """The model in a local folder without a card, which must be the one of an address.

        Raises MissingWeightsError, and MissingCardError where the folder's weights are those of no address.
        """
        found = _sha256(folder)
        for address in addresses:
            if (model := cls.at(address, folder)).sha256 == found:
                return model
        raise MissingCardError(
            f"{folder} has no card ({card_path(folder).name} beside it), and its weights (SHA-256 {found}) are not those "
            f"of {', '.join(address.stem for address in addresses)} either. Only a model that is known is loaded."
        )

    def place(self, device: str | torch.device | None, processed: bool) -> tuple[torch.device, torch.dtype]:
        """`devices.default_device()`, the GPU if there is one; and float32 where there is room, else bfloat16.

        Prints one line: how much memory the model needs, how much is free, and the number type. Raises
        MemoryTooSmallError where not even bfloat16 fits.
        """
        device = devices.default_device() if device is None else torch.device(device)
        dtype, said = devices.choose_dtype(self.config, devices.free_memory(device), processed)
        print(f"{self.repo} on {device.type}: {said}")
        return device, dtype

    def fetch(self) -> Path:
        """The model's folder: the local one, that in the hub's cache, or fetched into it.

        Raises HubError where it is not in the cache and cannot be fetched.
        """
        if self.folder is not None:
            return self.folder
        try:
            folder = self._snapshot(local_files_only=True)
            if not self._missing(folder):
                return folder
        except Exception:  # it is not in the cache, or not whole
            pass
        try:
            folder = self._snapshot(local_files_only=False)
            if missing := self._missing(folder):
                raise FileNotFoundError(f"the repository has no {', '.join(missing)}")
        except Exception as error:
            raise HubError(
                f"{self.repo} could not be fetched from the hub ({type(error).__name__}: {str(error).splitlines()[0]}). "
                "Try again with a network: what is there already is not fetched again. Or fetch it elsewhere "
                f"(`hf download {self.repo} --revision {self.revision} --local-dir FOLDER`) and give the folder's path "
                "instead of the name; or set HF_HUB_CACHE to a cache that has it. The bundled models need no network."
            ) from error
        return folder

    def read(self, path: Path) -> tuple[dict[str, Tensor], Card]:
        """The weights in the folder, and `card`.

        Raises TamperedError or MissingWeightsError where the weights are not the ones of the address, and
        WrongWeightsError where the folder's config.json is not.
        """
        found = _sha256(path)
        if found != self.sha256:
            raise TamperedError(
                f"{path / WEIGHTS} has SHA-256 {found}; that of {self.repo} at {self.revision} is {self.sha256}. "
                "Nothing of it was read. Remove the file, and fetch it again."
            )
        config, weights = read_folder(path)
        # Which context length a config.json announces changes nothing for short prompts.
        if replace(config, n_ctx=self.config.n_ctx) != self.config:
            raise WrongWeightsError(f"{path / 'config.json'} is not that of {self.repo} at {self.revision}.")
        return weights, self.card

    def _snapshot(self, local_files_only: bool) -> Path:
        from huggingface_hub import snapshot_download  # needed here alone

        return Path(
            snapshot_download(
                self.repo,
                revision=self.revision,
                allow_patterns=list(self.files),
                local_files_only=local_files_only,
            )
        )

    def _missing(self, folder: Path) -> list[str]:
        return [name for name in self.files if not (folder / name).is_file()]


def _sha256(folder: Path) -> str:
    """The hash of the weights in a folder."""
    if not (folder / WEIGHTS).is_file():
        raise MissingWeightsError(f"There is no {WEIGHTS} in {folder}.")
    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
