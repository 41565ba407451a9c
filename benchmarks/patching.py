"""Activation patching: CPU-seconds of `exercises_utils.tools.patching` and of `transformer_lens.patching`, side by side.

    python benchmarks/patching.py bundled       # the bundled model of lesson 05: every site, seconds
    python benchmarks/patching.py full-size     # Qwen2.5-0.5B's sizes, random weights: 20 minutes or so, 8 GB
    python benchmarks/patching.py full-size --device cuda     # seconds by the clock, the GPU's work awaited

The sweeps are those of write-up 004: residual stream, attention out and MLP out at every layer and position, and z,
values and pattern at every layer and head. At full size the library runs a sample of the sites, spread over layers and
positions (each costs it one whole forward pass, whichever it is), and its time is scaled to all of them; ours runs all.
The two take turns, sweep by sweep, in one process. "Difference" is the largest one in the metric, a mean difference of
two logits, over the sites that both ran.

The floor is an operation count: the multiply-adds with weights that a patch changes (its positions from its layer on, the
tokens that are read), summed over the sites. "Floor" is their share of the library's; "at matmul speed" is how long they
take at the speed of one large product of matrices of this size, measured in the same run. What we take above that is
attention, norms, copies, and the two runs that are patched from and into; what we take below the share, that the library's
many small passes are slower than few large ones.
"""

import argparse
import contextlib
import functools
import io
import resource
import sys
import time
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformer_lens import patching as library

from exercises_utils.challenges.llm_multiplication.task import BUNDLED, Products, sequences
from exercises_utils.models.architecture import QwenConfig
from exercises_utils.models.huggingface import build, random_weights
from exercises_utils.models.loading import load_model
from exercises_utils.tools.patching import AT_POSITIONS, get_act_patch

SWEEPS = {
    "resid_pre": library.get_act_patch_resid_pre,
    "attn_out": library.get_act_patch_attn_out,
    "mlp_out": library.get_act_patch_mlp_out,
    "z": library.get_act_patch_attn_head_out_all_pos,
    "v": library.get_act_patch_attn_head_v_all_pos,
    "pattern": library.get_act_patch_attn_head_pattern_all_pos,
}
QWEN = QwenConfig(
    n_layers=24,
    d_model=896,
    n_heads=14,
    n_key_value_heads=2,
    d_head=64,
    d_mlp=4864,
    n_ctx=64,
    d_vocab=151_936,
    rope_theta=1e6,
    eps=1e-6,
)
N_PAIRS = 8


def main() -> None:
    """Print the table for one of the two models."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("size", choices=("bundled", "full-size"))
    parser.add_argument("--device", default="cpu", help="cpu (CPU-seconds, the default), or cuda (seconds)")
    arguments = parser.parse_args()
    full, device = arguments.size == "full-size", torch.device(arguments.device)
    unit = "CPU-s" if device.type == "cpu" else "s"
    console = Console(width=None if sys.stdout.isatty() else 120)
    model = (
        build(QWEN, random_weights(QWEN, seed=0), device=device)
        if full
        else load_model("llm_multiplication", device=device)
    )
    # The write-up multiplies five digits by five; the bundled model three by two.
    clean, corrupted = (tokens.to(device) for tokens in pairs((5, 5) if full else (3, 2)))
    first = int((clean != corrupted).any(0).long().argmax())
    answers = torch.arange(N_PAIRS * 2, device=device).view(N_PAIRS, 2) % 10 + 1
    columns = (
        f"library, {unit}",
        f"ours, {unit}",
        f"at matmul speed, {unit}",
        "ratio",
        "floor",
        "difference",
    )
    table = Table("sweep", "sites", *columns)
    totals = [0.0] * 4
    for activation in SWEEPS:
        sites, slow, ours, floor, difference = compare(
            model, clean, corrupted, answers, activation, first, 2 if full else None
        )
        operations = floor * sites * whole_pass(model.cfg, clean.shape[1]) * N_PAIRS
        fastest = operations / matmul_speed(model.cfg.d_model, model.cfg.d_mlp, device)
        for index, seconds in enumerate((slow, ours, fastest, floor * slow)):
            totals[index] += seconds
        table.add_row(
            activation,
            str(sites),
            f"{slow:.2f}",
            f"{ours:.2f}",
            f"{fastest:.2f}",
            f"{ours / slow:.3f}",
            f"{floor:.3f}",
            f"{difference:.0e}",
        )
        console.print(f"{activation}: {slow:.1f} and {ours:.1f} {unit}")
    table.add_row(
        "all",
        "",
        f"{totals[0]:.2f}",
        f"{totals[1]:.2f}",
        f"{totals[2]:.2f}",
        f"{totals[1] / totals[0]:.3f}",
        f"{totals[3] / totals[0]:.3f}",
    )
    console.print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    console.print(
        f"{N_PAIRS} pairs of {clean.shape[1]} tokens that differ from position {first} on; "
        f"{torch.get_num_threads()} threads; torch {torch.__version__}; peak memory {peak:.1f} GB"
        + ("" if device.type == "cpu" else f" of the host; {torch.cuda.get_device_name(device)}")
        + "."
        + (" The library ran 12 sites a sweep, scaled." if full else "")
    )


def compare(
    model: Any,
    clean: Tensor,
    corrupted: Tensor,
    answers: Tensor,
    activation: str,
    first: int,
    sample: int | None,
) -> tuple[int, float, float, float, float]:
    """The number of sites, the library's and our seconds for all of them, the floor, the largest difference."""

    device = clean.device

    def mean_difference(logits: Tensor) -> Tensor:
        return (logits[:, -1, 0] - logits[:, -1, 1]).mean()

    def from_all(logits: Tensor) -> Tensor:
        return mean_difference(logits[:, -1:].gather(-1, answers[:, None]))

    start = clock(device)
    ours = get_act_patch(
        model, clean, corrupted, mean_difference, activation, answers=answers, progress=False
    )
    our_seconds = clock(device) - start
    n_layers, n_sites = ours.shape
    chosen = [(layer, site) for layer in range(n_layers) for site in range(n_sites)]
    if sample is not None:
        layers = [0, 1, n_layers // 3, n_layers // 2, n_layers - 2, n_layers - 1]
        chosen = [(layer, site) for layer in layers for site in (n_sites // 2, n_sites - 1)]
    axes = ("layer", "pos" if activation in AT_POSITIONS else "head")
    start = clock(device)
    with contextlib.redirect_stderr(io.StringIO()), torch.no_grad():
        _, cache = model.run_with_cache(clean)
        once = clock(device) - start
        start = clock(device)
        values = SWEEPS[activation](
            model,
            corrupted,
            cache,
            from_all,
            index_axis_names=None,
            index_df=pd.DataFrame(chosen, columns=list(axes)),
        )
    library_seconds = once + (clock(device) - start) * ours.numel() / len(chosen)
    difference = max(
        abs(float(ours[site]) - float(value)) for site, value in zip(chosen, values, strict=True)
    )
    floor = least_share(model.cfg, clean.shape[1], first, activation, n_sites)
    return ours.numel(), library_seconds, our_seconds, floor, difference


def least_share(cfg: Any, n_positions: int, first: int, activation: str, n_sites: int) -> float:
    """Multiply-adds of one prompt that the sites' patches change, as a share of whole forward passes."""
    keys, queries, mlp = of_layer(cfg)
    layer = keys + queries + mlp

    def above(at: int, n_changed: int) -> int:
        """From layer `at` up, with so many changed positions: in the last layer one position is read."""
        if at >= cfg.n_layers:
            return 0
        return (cfg.n_layers - 1 - at) * n_changed * layer + n_changed * keys + queries + mlp

    needed = 0
    for at in range(cfg.n_layers):
        if activation in AT_POSITIONS:
            for position in range(first, n_positions):
                n_changed = n_positions - position
                own = {"resid_pre": 0, "attn_out": mlp, "mlp_out": 0}[activation]
                needed += (
                    own + above(at if activation == "resid_pre" else at + 1, n_changed) + 2 * cfg.d_model
                )
        else:
            n_changed = n_positions - first if at < cfg.n_layers - 1 else 1
            own = n_changed * (mlp + cfg.d_model * cfg.d_head)
            needed += n_sites * (own + above(at + 1, n_positions - first) + 2 * cfg.d_model)
    return needed / (cfg.n_layers * n_sites * whole_pass(cfg, n_positions))


def of_layer(cfg: Any) -> tuple[int, int, int]:
    """Multiply-adds of one position in one layer: keys and values, queries and the way out of the heads, MLP."""
    n_kv = cfg.n_key_value_heads or cfg.n_heads
    keys, queries = (2 * cfg.d_model * n * cfg.d_head for n in (n_kv, cfg.n_heads))
    return keys, queries, 3 * cfg.d_model * cfg.d_mlp


def whole_pass(cfg: Any, n_positions: int) -> int:
    """Multiply-adds of one prompt in one forward pass of the library."""
    return n_positions * (cfg.n_layers * sum(of_layer(cfg)) + cfg.d_model * cfg.d_vocab)


def clock(device: torch.device) -> float:
    """CPU-seconds, or seconds by the clock once the GPU has done what it was given."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


@functools.cache
def matmul_speed(
    d_model: int, d_mlp: int, device: torch.device, n_rows: int = 2048, n_times: int = 5
) -> float:
    """Multiply-adds a second of one large product with an MLP's weights: the best of `n_times`."""
    x, weight = (torch.randn(shape, device=device) for shape in ((n_rows, d_model), (d_mlp, d_model)))
    best = 0.0
    for _ in range(n_times):
        start = clock(device)
        for _ in range(10):
            torch.nn.functional.linear(x, weight)
        best = max(best, 10 * n_rows * weight.numel() / (clock(device) - start))
    return best


def pairs(digits: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Clean and corrupted prompts up to the space before the product; the first number's middle digit differs."""
    low, high = (10 ** (n - 1) for n in digits)
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(low, 10 * low, (N_PAIRS,), generator=generator)
    b = torch.randint(high, 10 * high, (N_PAIRS,), generator=generator)
    unit = 10 ** (digits[0] // 2)
    changed = torch.where(a // unit % 10 < 5, a + 3 * unit, a - 3 * unit)
    clean, corrupted = (
        sequences(Products(number, b), BUNDLED)[:, : 5 + sum(digits)] for number in (a, changed)
    )
    return clean, corrupted


if __name__ == "__main__":
    main()
