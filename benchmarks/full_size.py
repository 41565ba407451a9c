"""What a model of Qwen2.5-0.5B's size takes: memory and seconds, with random weights and without a network.

    python benchmarks/full_size.py                 # a table
    python benchmarks/full_size.py --folder MODEL  # of a model's folder that is here already

Writes a folder as it is on the hub (1 GB, bfloat16), and loads it in a process of its own for each row, so that the peak
of memory is that row's. The last column compares with `transformers`, which loads the same folder by itself.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers import Qwen2ForCausalLM

from exercises_utils.models.checkpoints import read_folder
from exercises_utils.models.devices import GB, memory_needed
from exercises_utils.models.hub import OnHub
from exercises_utils.models.huggingface import (
    build,
    huggingface_config,
    load_tokenizer,
    numbered_tokenizer,
    save_folder,
)
from exercises_utils.models.sources import checkpoints_folder

ADDRESS = checkpoints_folder() / "llm_multiplication" / "qwen2.5-0.5b.json"
PROMPTS, LENGTH = 8, 14


def write_model(folder: Path) -> None:
    """Write random weights of the real model's size, in bfloat16."""
    config = OnHub.at(ADDRESS).config
    torch.manual_seed(0)
    model = Qwen2ForCausalLM._from_config(huggingface_config(config), dtype=torch.bfloat16)
    save_folder(model, numbered_tokenizer(config.d_vocab), folder)


def peak() -> float:
    """The most memory that this process has had, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GB


@torch.no_grad()
def measure(folder: Path, dtype: torch.dtype, processed: bool, compare: bool) -> dict[str, float]:
    """Seconds and peak memory of loading, and of a forward pass that keeps every activation."""
    found = {"imports": peak()}
    start = time.perf_counter()
    model = build(*read_folder(folder), load_tokenizer(folder), "cpu", dtype, processed)
    found |= {"load_seconds": time.perf_counter() - start, "load_peak": peak()}
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, model.cfg.d_vocab, (PROMPTS, LENGTH), generator=generator)
    start = time.perf_counter()
    logits, cache = model.run_with_cache(tokens)
    found |= {
        "forward_seconds": time.perf_counter() - start,
        "forward_peak": peak(),
        "activations": len(cache),
    }
    if compare:
        del model, cache
        plain = Qwen2ForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
        expected = plain(tokens).logits.log_softmax(-1)
        found["difference"] = (logits.log_softmax(-1) - expected).abs().max().item()
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="a model's folder; without it, one is made and removed")
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        write_model(arguments.write)
    elif arguments.row:
        dtype, processed = arguments.row
        row = measure(arguments.folder, getattr(torch, dtype), processed == "processed", dtype == "float32")
        print(json.dumps(row))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            folder = arguments.folder or Path(temporary) / "model"
            if arguments.folder is None:
                subprocess.run([sys.executable, __file__, "--write", folder], check=True)
            print_table(folder)


def print_table(folder: Path) -> None:
    """One row a number type, processed or not, each in a process of its own."""
    config = OnHub.at(ADDRESS).config
    table = Table(
        "weights",
        "estimate, GB",
        "load, s",
        "peak, GB",
        f"{PROMPTS} prompts x {LENGTH} tokens, s",
        "peak, GB",
        "largest difference of log probabilities",
    )
    for dtype in ("float32", "bfloat16"):
        for processed in ("processed", "raw"):
            command = [sys.executable, __file__, "--folder", folder, "--row", dtype, processed]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row = json.loads(done.stdout.splitlines()[-1])
            estimate = memory_needed(config, getattr(torch, dtype), processed == "processed") / GB
            table.add_row(
                f"{dtype}, {processed}",
                f"{estimate:.1f}",
                f"{row['load_seconds']:.1f}",
                f"{row['load_peak']:.1f}",
                f"{row['forward_seconds']:.1f}",
                f"{row['forward_peak']:.1f}",
                f"{row['difference']:.1e}" if "difference" in row else "",
            )
    Console(width=None if sys.stdout.isatty() else 140).print(table)


if __name__ == "__main__":
    main()
