"""A published model is fetched once, refused unless it is the published file, and then an instance like any other."""

import functools
import hashlib
import http.server
import json
import os
import re
import threading
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from exercises_utils import cli
from exercises_utils.evidence.claims import Figure
from exercises_utils.models import published, sources
from exercises_utils.models.architecture import ModelConfig, PlainTransformer
from exercises_utils.models.cards import TamperedError
from exercises_utils.models.checkpoints import load_checkpoint
from exercises_utils.models.loading import load_model
from exercises_utils.models.native import build_model
from exercises_utils.models.published import PublishedError, converted
from exercises_utils.models.sources import checkpoint_path

CONFIG = ModelConfig(
    n_layers=1,
    d_model=6,
    n_heads=2,
    d_head=3,
    n_ctx=4,
    d_vocab=5,
    d_vocab_out=4,
    normalization=None,
    attention_biases=False,
    unembed_bias=False,
)
CHALLENGES = ("palindromes", "sorted_list_one_head", "sorted_list_two_heads", "sum_of_two_numbers")


def legacy_weights(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    """A state dict as `HookedTransformer` of TransformerLens 2 wrote it, for CONFIG."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "embed.W_E": (5, 6),
        "pos_embed.W_pos": (4, 6),
        "blocks.0.attn.W_Q": (2, 6, 3),
        "blocks.0.attn.W_K": (2, 6, 3),
        "blocks.0.attn.W_V": (2, 6, 3),
        "blocks.0.attn.W_O": (2, 3, 6),
        "unembed.W_U": (6, 4),
    }
    zeros = {f"blocks.0.attn.b_{name}": torch.zeros(2, 3) for name in "QKV"}
    return {
        **{name: torch.randn(shape, generator=generator) for name, shape in shapes.items()},
        **zeros,
        "blocks.0.attn.b_O": torch.zeros(6),
        "unembed.b_U": torch.zeros(4),
        "blocks.0.attn.mask": torch.ones(4, 4).tril().bool(),
        "blocks.0.attn.IGNORE": torch.tensor(-1e5),
        **changes,
    }


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A challenge "toy" with a published model on a server of this machine; the cache is empty."""
    served = tmp_path / "served"
    served.mkdir()
    torch.save(legacy_weights(), served / "toy.pt")
    content = (served / "toy.pt").read_bytes()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folder = tmp_path / "checkpoints" / "toy"
    folder.mkdir(parents=True)
    values = {
        "url": f"http://127.0.0.1:{server.server_port}/toy.pt",
        "sha256": hashlib.sha256(content).hexdigest(),
        "config": asdict(CONFIG),
        "by": "somebody",
        "data": "made up",
    }
    (folder / "published.json").write_text(json.dumps(values))
    monkeypatch.setattr(sources, "checkpoints_folder", lambda: tmp_path / "checkpoints")
    monkeypatch.setattr(published, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv(published.LOCAL, raising=False)
    yield served / "toy.pt"
    server.shutdown()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_it_is_fetched_once_and_then_needs_no_network(shelf, tmp_path, capsys) -> None:
    path = checkpoint_path("toy", "published")
    assert path == tmp_path / "cache" / "toy" / "published.safetensors"
    shelf.unlink()
    assert checkpoint_path("toy", "published") == path
    weights, card = load_checkpoint(path, "toy")
    assert card.training["by"] == "somebody"
    assert weights.keys() == PlainTransformer(CONFIG).state_dict().keys()


def test_it_computes_what_the_legacy_weights_say(shelf) -> None:
    """The whole model written out with the legacy matrices, one head at a time."""
    old = legacy_weights()
    tokens = torch.tensor([[0, 4, 2, 1], [3, 3, 0, 2]])
    resid = old["embed.W_E"][tokens] + old["pos_embed.W_pos"]
    out = resid.clone()
    for head in range(2):
        q, k, v = (resid @ old[f"blocks.0.attn.W_{name}"][head] for name in "QKV")
        scores = (q @ k.mT / 3**0.5).masked_fill(~old["blocks.0.attn.mask"], float("-inf"))
        out = out + scores.softmax(-1) @ v @ old["blocks.0.attn.W_O"][head]
    model = load_model("toy", "published", device="cpu", processed=False)
    torch.testing.assert_close(model(tokens), out @ old["unembed.W_U"], atol=1e-4, rtol=1e-5)


def test_another_file_is_refused_and_nothing_stays(shelf, tmp_path) -> None:
    torch.save(legacy_weights(**{"embed.W_E": torch.ones(5, 6)}), shelf)
    with pytest.raises(TamperedError, match="is not what was published"):
        checkpoint_path("toy", "published")
    assert not files(tmp_path / "cache")


def test_without_a_network_it_says_what_to_do(shelf, tmp_path) -> None:
    address = tmp_path / "checkpoints" / "toy" / "published.json"
    values = json.loads(address.read_text())
    address.write_text(json.dumps({**values, "url": "http://127.0.0.1:9/toy.pt"}))
    with pytest.raises(
        PublishedError, match=r"could not be fetched.*EXERCISES_PUBLISHED_DIR.*seed0 to seed4 need no network"
    ):
        checkpoint_path("toy", "published")
    assert not files(tmp_path / "cache")


def test_a_local_folder_serves_as_well(shelf, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(published.LOCAL, str(tmp_path / "served"))
    local = checkpoint_path("toy", "published").read_bytes()
    (tmp_path / "cache" / "toy" / "published.safetensors").unlink()
    monkeypatch.delenv(published.LOCAL)
    assert checkpoint_path("toy", "published").read_bytes() == local
    (tmp_path / "cache" / "toy" / "published.json").unlink()
    monkeypatch.setenv(published.LOCAL, str(tmp_path / "served"))
    shelf.write_bytes(b"something else")
    with pytest.raises(TamperedError, match="SHA-256"):
        checkpoint_path("toy", "published")
    shelf.unlink()
    with pytest.raises(PublishedError, match=r"there is no toy\.pt in it"):
        checkpoint_path("toy", "published")


def test_a_challenge_without_one(shelf, tmp_path) -> None:
    (tmp_path / "checkpoints" / "other").mkdir()
    with pytest.raises(PublishedError, match="other has no published model"):
        checkpoint_path("other", "published")


def test_biases_that_the_model_does_not_have_must_be_zero() -> None:
    assert not any("bias" in name for name in converted(legacy_weights(), CONFIG))
    with pytest.raises(PublishedError, match=r"unexpected \['blocks.0.attn.k.bias'\]"):
        converted(legacy_weights(**{"blocks.0.attn.b_K": torch.ones(2, 3)}), CONFIG)
    old = legacy_weights()
    del old["unembed.W_U"]
    with pytest.raises(PublishedError, match=r"missing \['unembed.weight'\]"):
        converted(old, CONFIG)


@pytest.mark.parametrize("challenge", CHALLENGES)
def test_every_toy_challenge_says_where_its_published_model_is(challenge) -> None:
    where = sources.find(challenge, published.INSTANCE)
    assert where.config == import_module(f"exercises_utils.challenges.{challenge}.task").CONFIG
    assert where.url.startswith("https://raw.githubusercontent.com/")
    assert len(where.sha256) == 64
    build_model(where.config, device="cpu")


def test_every_figure_that_was_published_is_measured() -> None:
    counts = {
        name: len(import_module(f"exercises_utils.challenges.{name}.figures").FIGURES) for name in CHALLENGES
    }
    # One head: three. Two heads: four of the probabilities, two ablations. Palindromes: the loss, four heads by four
    # ablations, two attributions, the token circuit. The sum: four of the probabilities, the active dimensions.
    assert counts == {
        "sorted_list_one_head": 3,
        "sorted_list_two_heads": 6,
        "palindromes": 20,
        "sum_of_two_numbers": 5,
    }


def test_a_figure_agrees_to_its_last_printed_place() -> None:
    figure = Figure("made up", 0.039, 3, lambda model: 0.0)
    assert figure.agrees(0.0387)
    assert figure.agrees(0.0399)
    assert not figure.agrees(0.0412)
    assert figure.text(0.0387) == "0.039"
    assert figure.difference(0.04) == pytest.approx(0.001)
    dimensions = Figure("made up", "19, 25", 0, lambda model: "")
    assert dimensions.agrees("19, 25")
    assert not dimensions.agrees("19")
    assert dimensions.difference("19") is None


@pytest.mark.skipif(
    published.LOCAL not in os.environ, reason=f"{published.LOCAL} does not say where the files are"
)
@pytest.mark.parametrize("challenge", CHALLENGES)
def test_every_published_figure_comes_out_again(challenge, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(published, "cache_folder", lambda: tmp_path)
    model = load_model(challenge, "published", device="cpu")
    figures = import_module(f"exercises_utils.challenges.{challenge}.figures").FIGURES
    measured = {figure: figure.measure(model) for figure in figures}
    assert not [(figure.name, value) for figure, value in measured.items() if not figure.agrees(value)]


def test_the_command_prints_the_table_and_counts_what_differs(shelf, capsys, monkeypatch) -> None:
    module = SimpleNamespace(
        FIGURES=(
            Figure("number of heads", 2.0, 1, lambda model: float(model.cfg.n_heads)),
            Figure("number of layers", 7.0, 1, lambda model: float(model.cfg.n_layers)),
        )
    )
    monkeypatch.setattr(cli, "challenge_module", lambda challenge, part: module)
    with pytest.raises(SystemExit) as ended:
        cli.main(["published", "toy"])
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert "1 figures are not what was published" in said.err
    assert re.search(r"number of heads .* 2\.0 .* 2\.0 .* \+0\.000", said.out)
