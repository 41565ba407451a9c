"""Where a model goes when no device is named, and whether the memory there holds it."""

import os
from pathlib import Path

import torch

from exercises_utils.models.architecture import QwenConfig
from exercises_utils.models.cards import CheckpointError

GB = 1e9
WORKING_MEMORY = 1_500_000_000
"""For Python and PyTorch, the file while it is read, and the activations of a batch of short prompts, cached. With it, the
estimate is not below what `benchmarks/full_size.py` measures."""


class MemoryTooSmallError(CheckpointError):
    """There is not enough memory for a model, in whatever number type."""


def default_device() -> torch.device:
    """Where much work is done when no device is named: a language model from the hub, and training.

    The environment variable EXERCISES_DEVICE names it, cpu or cuda; else it is the GPU if there is one, else the CPU.
    """
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(os.environ.get("EXERCISES_DEVICE") or automatic)


def lesson_device() -> torch.device:
    """Where the lessons' small models go when no device is named: the CPU, also where there is a GPU.

    They have a million parameters at most, so a GPU has nothing to gain, and what a learner makes (`torch.arange(n)`,
    fresh data) is on the CPU and meets them there. The environment variable EXERCISES_DEVICE names another device.
    """
    return torch.device(os.environ.get("EXERCISES_DEVICE") or "cpu")


def memory_needed(config: QwenConfig, dtype: torch.dtype, processed: bool = True) -> int:
    """Bytes that loading a model and running it on a few short prompts takes, at its peak."""
    size = dtype.itemsize
    weights = sum(torch.Size(shape).numel() for shape in config.shapes().values())
    embedding = config.d_vocab * config.d_model
    # Processing gives the unembedding a matrix of its own, made in float32.
    own = embedding * (size + 2 * torch.float32.itemsize) if processed else 0
    return weights * size + own + WORKING_MEMORY


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


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
