"""Models on the Hugging Face hub, by name: `load_model("llm_multiplication", "qwen2.5-0.5b")` fetches one.

The project has their addresses, in `checkpoints/<challenge>/<name>.json`: the repository, one commit of it, the files
that are needed, and the hash of the weights. `huggingface_hub` fetches them into its own cache (`HF_HUB_CACHE`), shows
how far it is and goes on where it was cut off. Nothing is read before the weights' hash is right, and nothing is fetched
that the memory cannot hold.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from transformer_lens.model_bridge import TransformerBridge

from exercises_utils.models.architecture import QwenConfig
from exercises_utils.models.checkpoints import (
    WEIGHTS,
    CheckpointError,
    MalformedCardError,
    MissingCardError,
    MissingWeightsError,
    TamperedError,
    WrongWeightsError,
    card_path,
)
from exercises_utils.models.huggingface import load_folder, read_config
from exercises_utils.models.loading import default_device

GB = 1e9


class HubError(CheckpointError):
    """A model on the hub cannot be had: there is no network, or the hub does not have it any more."""


class MemoryTooSmallError(CheckpointError):
    """There is not enough memory for a model, in whatever number type."""


@dataclass(frozen=True)
class HubAddress:
    """Where a model on the hub is, and what it must be. `sha256` is of its weights, one safetensors file."""

    repo: str
    revision: str
    files: tuple[str, ...]
    sha256: str
    config: QwenConfig
    by: str
    licence: str

    @classmethod
    def from_json(cls, path: Path) -> "HubAddress":
        """The address in a file. Raises MalformedCardError."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            names = {"kind", *(field.name for field in fields(cls))}
            if values.keys() != names or values["kind"] != "hub" or WEIGHTS not in values["files"]:
                raise ValueError(
                    f"expected exactly {sorted(names)}, of kind 'hub', with {WEIGHTS} in `files`"
                )
            del values["kind"]
            return cls(
                **{
                    **values,
                    "files": tuple(values["files"]),
                    "config": QwenConfig.from_dict(values["config"]),
                }
            )
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise MalformedCardError(f"{path} is not the address of a model on the hub: {error}.") from error


def load_hub(
    address: Path,
    *,
    folder: Path | None = None,
    device: str | torch.device | None = None,
    processed: bool = True,
) -> TransformerBridge:
    """The model of an address, or of a local folder that must be the same one.

    It goes to `models.default_device()`, the GPU if there is one, unless `device` says otherwise. Prints one line: how
    much memory it needs, how much is free, and the number type. That is float32 where there is room, else bfloat16.

    Raises:
        HubError: it cannot be fetched.
        MemoryTooSmallError: not even bfloat16 fits; nothing is fetched then.
        TamperedError: the weights are not the ones of the address.
        WrongWeightsError: the folder's config.json is not the address's.
    """
    where = HubAddress.from_json(address)
    device = default_device() if device is None else torch.device(device)
    dtype, said = choose_dtype(where.config, free_memory(device), processed)
    print(f"{where.repo} on {device.type}: {said}")
    folder = fetch_hub(where) if folder is None else folder
    require_weights(folder, where)
    # Which context length a config.json announces changes nothing for short prompts.
    if replace(read_config(folder), n_ctx=where.config.n_ctx) != where.config:
        raise WrongWeightsError(f"{folder / 'config.json'} is not that of {where.repo} at {where.revision}.")
    return load_folder(folder, device=device, dtype=dtype, processed=processed)


def load_known(
    folder: Path,
    addresses: Mapping[str, Path],
    *,
    device: str | torch.device | None = None,
    processed: bool = True,
) -> TransformerBridge:
    """The model of a local folder without a card, which must be the model of one of these addresses.

    Raises as `load_hub` does, and MissingCardError where the folder's weights are those of no address.
    """
    if not (folder / WEIGHTS).is_file():
        raise MissingWeightsError(f"There is no {WEIGHTS} in {folder}.")
    found = _sha256(folder / WEIGHTS)
    for address in addresses.values():
        if HubAddress.from_json(address).sha256 == found:
            return load_hub(address, folder=folder, device=device, processed=processed)
    raise MissingCardError(
        f"{folder} has no card ({card_path(folder).name} beside it), and its weights (SHA-256 {found}) are not those "
        f"of {', '.join(addresses)} either. Only a model that is known is loaded."
    )


def fetch_hub(where: HubAddress) -> Path:
    """The folder with the files of an address: as it is in the hub's cache, else fetched into it.

    Raises HubError where it is not in the cache and cannot be fetched.
    """
    from huggingface_hub import snapshot_download

    def snapshot(local_files_only: bool) -> Path:
        return Path(
            snapshot_download(
                where.repo,
                revision=where.revision,
                allow_patterns=list(where.files),
                local_files_only=local_files_only,
            )
        )

    try:
        folder = snapshot(local_files_only=True)
        if all((folder / name).is_file() for name in where.files):
            return folder
    except Exception:  # it is not in the cache, or not whole
        pass
    try:
        folder = snapshot(local_files_only=False)
        missing = [name for name in where.files if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(f"the repository has no {', '.join(missing)}")
    except Exception as error:
        raise HubError(
            f"{where.repo} could not be fetched from the hub ({type(error).__name__}: {str(error).splitlines()[0]}). "
            "Try again with a network: what is there already is not fetched again. Or fetch it elsewhere "
            f"(`hf download {where.repo} --revision {where.revision} --local-dir FOLDER`) and give the folder's path "
            "instead of the name; or set HF_HUB_CACHE to a cache that has it. The bundled models need no network."
        ) from error
    return folder


def require_weights(folder: Path, where: HubAddress) -> None:
    """Raise TamperedError if the weights in a folder are not the ones of the address."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise MissingWeightsError(f"There is no {WEIGHTS} in {folder}.")
    found = _sha256(path)
    if found != where.sha256:
        raise TamperedError(
            f"{path} has SHA-256 {found}; that of {where.repo} at {where.revision} is {where.sha256}. Nothing of it was "
            "read. Remove the file, and fetch it again."
        )


def memory_needed(config: QwenConfig, dtype: torch.dtype, processed: bool = True) -> int:
    """Bytes that loading a model and running it on a few short prompts takes, at its peak."""
    size = dtype.itemsize
    weights = sum(torch.Size(shape).numel() for shape in config.shapes().values())
    embedding = config.d_vocab * config.d_model
    # Processing gives the unembedding a matrix of its own, made in float32.
    own = embedding * (size + 2 * torch.float32.itemsize) if processed else 0
    return weights * size + own + WORKING_MEMORY


WORKING_MEMORY = 1_500_000_000
"""For Python and PyTorch, the file while it is read, and the activations of a batch of short prompts, cached. With it, the
estimate is not below what `benchmarks/full_size.py` measures."""


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device, or None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = []
    try:
        import psutil

        free.append(int(psutil.virtual_memory().available))
    except ImportError:
        lines = _read("/proc/meminfo").splitlines()
        free += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    # A container may have less than its machine.
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    if limit.isdigit() and used.isdigit():
        statistics = dict(line.split() for line in _read("/sys/fs/cgroup/memory.stat").splitlines())
        free.append(int(limit) - int(used) + int(statistics.get("inactive_file", 0)))
    return min(free, default=None)


def choose_dtype(config: QwenConfig, free: int | None, processed: bool = True) -> tuple[torch.dtype, str]:
    """float32 where it fits into the free memory, else bfloat16; and what to say about it.

    Raises MemoryTooSmallError where neither fits. Where nobody knows what is free, it is float32.
    """
    needed = {dtype: memory_needed(config, dtype, processed) for dtype in (torch.float32, torch.bfloat16)}
    for dtype, bytes_ in needed.items():
        if free is None or bytes_ <= free:
            name = str(dtype).removeprefix("torch.")
            there = "nobody knows how much is free" if free is None else f"{free / GB:.1f} GB are free"
            less = "" if dtype == torch.float32 else ", too little for float32: numbers have about 3 digits"
            return dtype, f"{name}, which needs about {bytes_ / GB:.1f} GB of memory; {there}{less}."
    raise MemoryTooSmallError(
        f"The model needs about {needed[torch.float32] / GB:.1f} GB of memory in float32 and "
        f"{needed[torch.bfloat16] / GB:.1f} GB in bfloat16; {(free or 0) / GB:.1f} GB are free. Nothing was fetched. Close "
        "other notebooks, or take a machine with more memory; the bundled model needs next to none."
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
