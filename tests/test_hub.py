"""A model on the hub is fetched once, refused unless it is the one that was asked for, and only where memory holds it."""

import hashlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from exercises_utils.challenges.llm_multiplication.tokenizer import build_tokenizer
from exercises_utils.models import devices, sources
from exercises_utils.models.cards import (
    WEIGHTS,
    CheckpointError,
    MalformedCardError,
    MissingCardError,
    MissingWeightsError,
    TamperedError,
    WrongWeightsError,
)
from exercises_utils.models.devices import MemoryTooSmallError, choose_dtype, free_memory, memory_needed
from exercises_utils.models.hub import HubError, OnHub
from exercises_utils.models.huggingface import save_folder
from exercises_utils.models.loading import load_model
from exercises_utils.models.sources import checkpoints_folder
from tests.test_huggingface import CONFIG, plain_model, tokens_for

QWEN = OnHub.at(checkpoints_folder() / "llm_multiplication" / "qwen2.5-0.5b.json")


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub with one model, and a challenge "toy" with its address, as "real". The cache is empty.

    Comes back: the model's folder on the hub. The hub answers like `snapshot_download`, without a network.
    """
    served, cache = tmp_path / "served", tmp_path / "cache"
    save_folder(plain_model(CONFIG), build_tokenizer(), served)
    (served / "README.md").write_text("not needed")
    (tmp_path / "checkpoints" / "toy").mkdir(parents=True)
    monkeypatch.setattr(sources, "checkpoints_folder", lambda: tmp_path / "checkpoints")
    monkeypatch.setattr(devices, "free_memory", lambda device: 10**10)
    values = {
        "kind": "hub",
        "repo": "somebody/something",
        "revision": "0" * 40,
        "files": sorted(file.name for file in served.iterdir() if file.name != "README.md"),
        "sha256": hashlib.sha256((served / WEIGHTS).read_bytes()).hexdigest(),
        "config": asdict(CONFIG),
        "by": "somebody",
        "licence": "none",
    }
    (tmp_path / "checkpoints" / "toy" / "real.json").write_text(json.dumps(values))

    def snapshot_download(
        repo: str, *, revision: str, allow_patterns: list[str], local_files_only: bool
    ) -> str:
        assert (repo, revision) == ("somebody/something", "0" * 40)
        if local_files_only:
            if not cache.exists():
                raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")
            return str(cache)
        if not served.exists():
            raise huggingface_hub.errors.LocalEntryNotFoundError("Name or service not known\nmore lines")
        cache.mkdir(exist_ok=True)
        for name in allow_patterns:
            if (served / name).exists():
                shutil.copy(served / name, cache)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return served


def address_of(shelf: Path) -> Path:
    return shelf.parent / "checkpoints" / "toy" / "real.json"


def test_a_model_is_fetched_once_and_then_needs_no_network(
    shelf: Path, capsys: pytest.CaptureFixture
) -> None:
    model = load_model("toy", "real", device="cpu")
    said = capsys.readouterr().out
    assert said.startswith(
        "somebody/something on cpu: float32, which needs about 1.5 GB of memory; 10.0 GB are free."
    )
    assert said.count("\n") == 1
    tokens = tokens_for(CONFIG)
    expected = plain_model(CONFIG)(tokens).logits.log_softmax(-1)
    torch.testing.assert_close(model(tokens).log_softmax(-1), expected, atol=1e-4, rtol=0)
    assert not (shelf.parent / "cache" / "README.md").exists()
    shutil.rmtree(shelf)
    again = load_model("toy", "real", device="cpu", processed=False)
    assert torch.equal(again.W_E, model.W_E)
    assert model.to_tokens("1 x 2").tolist() == [[0, 2, 11, 12, 3]]


def test_a_cache_that_is_not_whole_is_filled(shelf: Path) -> None:
    load_model("toy", "real", device="cpu")
    (shelf.parent / "cache" / WEIGHTS).unlink()
    load_model("toy", "real", device="cpu")
    assert (shelf.parent / "cache" / WEIGHTS).is_file()


def test_without_a_network_the_error_says_what_to_do(shelf: Path) -> None:
    shutil.rmtree(shelf)
    with pytest.raises(HubError, match="could not be fetched from the hub") as raised:
        load_model("toy", "real")
    said = str(raised.value)
    assert "LocalEntryNotFoundError: Name or service not known" in said
    assert f"hf download somebody/something --revision {'0' * 40} --local-dir FOLDER" in said
    assert "HF_HUB_CACHE" in said
    assert "\n" not in said


def test_a_repository_that_lost_a_file_is_said_to_have(shelf: Path) -> None:
    (shelf / "tokenizer.json").unlink()
    with pytest.raises(HubError, match="the repository has no tokenizer.json"):
        load_model("toy", "real")


def other_weights(folder: Path) -> None:
    save_folder(plain_model(CONFIG, seed=9), build_tokenizer(), folder)


def truncated_weights(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-4])


def other_config(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "rms_norm_eps": 0.5}))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (other_weights, TamperedError, "Nothing of it was read"),
        (truncated_weights, TamperedError, "has SHA-256"),
        (other_config, WrongWeightsError, "is not that of somebody/something"),
    ],
)
def test_what_comes_must_be_what_was_asked_for(
    shelf: Path, damage: Callable[[Path], None], error: type[CheckpointError], message: str
) -> None:
    damage(shelf)
    with pytest.raises(error, match=message):
        load_model("toy", "real", device="cpu")


def test_a_longer_context_in_the_config_is_no_other_model(shelf: Path) -> None:
    values = json.loads((shelf / "config.json").read_text())
    (shelf / "config.json").write_text(json.dumps({**values, "max_position_embeddings": 99}))
    assert load_model("toy", "real", device="cpu").cfg.n_layers == 2


def test_a_local_folder_serves_instead_of_the_hub(shelf: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    shutil.copytree(shelf, here)  # with its README: only a card's folder is held to its list of files
    shutil.rmtree(shelf)
    assert load_model("toy", here, device="cpu").cfg.d_model == 24
    assert load_model("toy", str(here), device="cpu").cfg.d_model == 24
    other_weights(here)
    with pytest.raises(MissingCardError, match=r"has no card .* are not those of real either"):
        load_model("toy", here)
    (here / WEIGHTS).unlink()
    with pytest.raises(MissingWeightsError):
        load_model("toy", here)


def test_what_memory_cannot_hold_is_not_even_fetched(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "free_memory", lambda device: 10**8)
    with pytest.raises(MemoryTooSmallError, match=r"0\.1 GB are free\. Nothing was fetched") as raised:
        load_model("toy", "real", device="cpu")
    assert "\n" not in str(raised.value)
    assert not (shelf.parent / "cache").exists()


def test_the_number_type_is_what_there_is_room_for() -> None:
    needed = {dtype: memory_needed(QWEN.config, dtype) for dtype in (torch.float32, torch.bfloat16)}
    assert 3e9 < needed[torch.bfloat16] < needed[torch.float32] < 8e9
    assert memory_needed(QWEN.config, torch.float32, processed=False) < needed[torch.float32]
    assert choose_dtype(QWEN.config, needed[torch.float32])[0] == torch.float32
    dtype, said = choose_dtype(QWEN.config, needed[torch.float32] - 1)
    assert dtype == torch.bfloat16
    assert "too little for float32" in said
    assert choose_dtype(QWEN.config, None)[0] == torch.float32
    with pytest.raises(MemoryTooSmallError):
        choose_dtype(QWEN.config, needed[torch.bfloat16] - 1)


def test_less_memory_gives_bfloat16(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "memory_needed", lambda config, dtype, processed: dtype.itemsize)
    monkeypatch.setattr(devices, "free_memory", lambda device: 3)
    assert load_model("toy", "real", device="cpu").W_E.dtype == torch.bfloat16


def test_free_memory_is_of_this_machine_and_of_its_container(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (free_memory(torch.device("cpu")) or 0) > 10**7
    files = {
        "/sys/fs/cgroup/memory.max": "1000000\n",
        "/sys/fs/cgroup/memory.current": "400000\n",
        "/sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 50000\n",
        "/proc/meminfo": "MemTotal: 1 kB\nMemAvailable:   500 kB\n",
    }
    monkeypatch.setattr(devices, "_read", lambda path: files.get(path, ""))
    with_psutil = importlib.util.find_spec("psutil") is not None
    assert free_memory(torch.device("cpu")) == (650_000 if with_psutil else 512_000)
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "psutil", None)  # as if it were not installed
        assert free_memory(torch.device("cpu")) == 512_000
        files["/proc/meminfo"] = ""
        assert free_memory(torch.device("cpu")) is None


@pytest.mark.parametrize(
    "changes", [{"kind": "native"}, {"colour": "red"}, {"config": {}}, {"files": ["a"]}, {"files": None}]
)
def test_a_damaged_address_is_refused(shelf: Path, changes: dict[str, Any]) -> None:
    path = address_of(shelf)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(MalformedCardError, match="is not the address of a model on the hub"):
        OnHub.at(path)


def test_the_real_model_s_address() -> None:
    assert QWEN.repo == "Qwen/Qwen2.5-0.5B"
    assert len(QWEN.revision) == 40
    assert len(QWEN.sha256) == 64
    shapes = QWEN.config.shapes()
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 494_032_768
