"""What is computed once for a model is stored whole, loaded strictly, and is what computing it again gives."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from exercises_utils.challenges.palindromes import evidence as palindromes
from exercises_utils.evidence import stored as evidence_files
from exercises_utils.evidence.pools import NoMistakesError, build_pool
from exercises_utils.evidence.scores import (
    CircuitScorer,
    percentile_among_random,
    random_circuits,
    score_answers,
)
from exercises_utils.evidence.stored import (
    EvidenceFileError,
    accuracy,
    evidence_path,
    load_evidence,
    write_evidence,
)
from exercises_utils.models import published
from exercises_utils.models.cards import MissingWeightsError
from exercises_utils.models.checkpoints import load_checkpoint
from exercises_utils.models.native import build_model
from exercises_utils.models.sources import available_instances, checkpoint_path, checkpoints_folder, find

INSTANCES = available_instances("palindromes")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The default instance with its evidence, where a test may damage it."""
    source = checkpoint_path("palindromes", "seed0")
    (tmp_path / "evidence").mkdir()
    for path in (source, evidence_path(source)):
        for file in (path, path.with_suffix(".json")):
            shutil.copy(file, tmp_path / file.relative_to(source.parent))
    return tmp_path / source.name


@pytest.mark.parametrize("instance", INSTANCES)
def test_the_stored_pool_is_true(instance: str) -> None:
    weights = checkpoint_path("palindromes", instance)
    evidence = load_evidence(weights)
    pool = evidence.pool
    state_dict, card = load_checkpoint(weights)
    model = build_model(card.config, state_dict, device="cpu")
    with torch.no_grad():
        assert torch.equal(palindromes.answers(model(pool.tokens)), pool.model_answers)
    assert torch.equal(palindromes.right_answers(pool.tokens), pool.right_answers)
    assert torch.equal(palindromes.kinds(pool.tokens), pool.kinds)
    assert not any(palindromes.why_invalid(row) for row in pool.tokens)
    assert len(pool.tokens.unique(dim=0)) == len(pool.tokens) == 1000
    assert int(pool.model_is_right.sum()) == 500
    score = score_answers(pool.model_answers, pool)
    assert (score.score, score.perfect, score.opposite) == (1, 0.5, 0.5)
    for constant in (0, 1):
        assert score_answers(torch.full_like(pool.right_answers, constant), pool).score == pytest.approx(0.5)
    assert evidence.card.instance == instance
    assert palindromes.HARD_INPUTS in evidence.card.pool


@pytest.mark.parametrize("instance", INSTANCES)
def test_the_stored_random_circuits_are_what_computing_them_gives(instance: str) -> None:
    weights = checkpoint_path("palindromes", instance)
    circuits = load_evidence(weights).circuits
    state_dict, card = load_checkpoint(weights)
    model = build_model(card.config, state_dict, device="cpu")
    scorer = CircuitScorer(model, circuits.tokens, accuracy(palindromes, circuits.tokens), chance=0.5)
    assert circuits.sites == tuple(sorted(palindromes.SITES))
    for size in (1, 11, evidence_files.LARGEST_CIRCUIT):
        drawn = random_circuits(circuits.sites, size)
        stored = circuits.values(size)
        # The most different ones, and some as they come.
        chosen = [*stored.argsort()[[0, 500, 990, -2, -1]].tolist(), *range(20)]
        again = scorer.values([drawn[index] for index in chosen])
        # One input of 128 may lie on the fence.
        torch.testing.assert_close(stored[chosen], again, atol=1.5 / len(circuits.tokens), rtol=0)
    assert circuits.values(0) is None
    assert circuits.values(evidence_files.LARGEST_CIRCUIT + 1) is None


def test_the_stored_percentile_is_the_computed_one() -> None:
    weights = checkpoint_path("palindromes", "seed0")
    circuits = load_evidence(weights).circuits
    state_dict, card = load_checkpoint(weights)
    model = build_model(card.config, state_dict, device="cpu")
    scorer = CircuitScorer(model, circuits.tokens, accuracy(palindromes, circuits.tokens), chance=0.5)
    circuit = random_circuits(circuits.sites, 20, count=1, seed=99)[0]
    stored = percentile_among_random(scorer, circuit, sites=circuits.sites, values=circuits.values(20))
    computed = percentile_among_random(scorer, circuit, sites=circuits.sites, count=60)
    assert stored.scores[:60] == pytest.approx(computed.scores, abs=2.1 * 1.5 / len(circuits.tokens))
    assert len(stored.scores) == 1000


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evidence that is written in a second."""
    monkeypatch.setattr(evidence_files, "LARGEST_CIRCUIT", 1)
    monkeypatch.setattr(evidence_files, "N_CIRCUITS", 20)
    monkeypatch.setattr(
        evidence_files,
        "build_pool",
        lambda *arguments, seed: build_pool(*arguments, seed=seed, draws=5000, rounds=1),
    )


def test_writing_again_gives_the_same(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    with pytest.raises(EvidenceFileError, match="would be overwritten"):
        write_evidence(palindromes, copied)
    cards = [write_evidence(palindromes, copied, force=True) for _ in range(2)]
    assert cards[0] == cards[1]
    evidence = load_evidence(copied)
    assert evidence.card == cards[0]
    assert evidence.circuits.table.shape == (20, 1)
    assert evidence.pool.kind_names == palindromes.KINDS


def test_a_task_may_have_no_random_circuits_or_larger_ones(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    monkeypatch.setattr(palindromes, "LARGEST_CIRCUIT", 3, raising=False)
    write_evidence(palindromes, copied, force=True)
    circuits = load_evidence(copied).circuits
    assert circuits is not None
    assert circuits.table.shape == (20, 3)
    monkeypatch.setattr(palindromes, "SITES", ())
    card = write_evidence(palindromes, copied, force=True)
    assert card.circuits.startswith("None: ")
    evidence = load_evidence(copied)
    assert evidence.circuits is None
    assert len(evidence.pool.tokens) > 100


def damage_content(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def card_change(**changes):
    def change(path: Path) -> None:
        card = path.with_suffix(".json")
        card.write_text(json.dumps({**json.loads(card.read_text()), **changes}))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda path: path.unlink(),
            "seed0.safetensors has no evidence yet: .*`exercises evidence palindromes /",
        ),
        (lambda path: path.with_suffix(".json").unlink(), "has no evidence yet: .* or its card is missing"),
        (damage_content, "is not the file that its card was written for"),
        (truncate, "is not the file that its card was written for"),
        (lambda path: path.with_suffix(".json").write_text("{"), "cannot be read"),
        (lambda path: path.with_suffix(".json").write_text("[]"), "cannot be read"),
        (card_change(surprise=1), "cannot be read"),
        (card_change(format_version=7), "has format version 7; this package reads 1"),
        (card_change(weights_sha256="0" * 64), "was made for other weights"),
    ],
)
def test_damage_is_refused(copied: Path, damage, message: str) -> None:
    assert load_evidence(copied).card.instance == "seed0"
    damage(evidence_path(copied))
    with pytest.raises(EvidenceFileError, match=message):
        load_evidence(copied)


def test_an_instance_of_ones_own_is_told_how_to_get_evidence(copied: Path, monkeypatch) -> None:
    folder = copied.parent / "palindromes"
    folder.mkdir()
    for file in (copied, copied.with_suffix(".json")):
        shutil.copy(file, folder / file.with_stem("seed17").name)
    monkeypatch.setattr(evidence_files, "checkpoints_folder", lambda: copied.parent)
    with pytest.raises(EvidenceFileError, match=r"Make it: `exercises evidence palindromes seed17`\.$"):
        load_evidence(folder / "seed17.safetensors")
    with pytest.raises(MissingWeightsError):
        load_evidence(folder / "seed18.safetensors")


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_crash_while_writing_leaves_no_half_file(
    copied: Path, monkeypatch, disk_fills_up, fails_at: int
) -> None:
    small(monkeypatch)
    path = evidence_path(copied)
    before = path.read_bytes(), path.with_suffix(".json").read_bytes()
    disk_fills_up(fails_at)
    with pytest.raises(OSError, match="the disk is full"):
        write_evidence(palindromes, copied, force=True)
    assert sorted(file.name for file in path.parent.iterdir()) == ["seed0.json", "seed0.safetensors"]
    assert path.with_suffix(".json").read_bytes() == before[1]
    if fails_at == 1:
        assert path.read_bytes() == before[0]
    else:  # a new file, whole, with the old card: refused until it is written again
        with pytest.raises(EvidenceFileError, match="is not the file that its card was written for"):
            load_evidence(copied)


def test_a_model_without_mistakes_has_no_evidence(copied: Path, monkeypatch) -> None:
    def no_pool(*arguments, seed: int):
        raise NoMistakesError("the model makes no mistake")

    monkeypatch.setattr(evidence_files, "build_pool", no_pool)
    with pytest.raises(EvidenceFileError, match="the model makes no mistake. Train a model with another"):
        write_evidence(palindromes, copied, force=True)


def test_evidence_is_not_an_instance() -> None:
    assert all(name.startswith("seed") for name in INSTANCES)
    assert len(set(INSTANCES)) == len(INSTANCES) > 0


def test_the_evidence_of_a_published_model_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are in the user's cache, under any name of the cache; the evidence is with the challenge's own."""
    monkeypatch.setattr(published, "cache_folder", lambda: tmp_path)
    here = checkpoint_path("palindromes", "seed0").parent / "evidence" / "published.safetensors"
    assert evidence_path(tmp_path / "palindromes" / "published.safetensors") == here
    elsewhere = tmp_path / "mine" / "palindromes" / "published.safetensors"
    assert evidence_path(elsewhere) == elsewhere.parent / "evidence" / "published.safetensors"


def test_the_evidence_of_a_published_model_belongs_to_the_file_that_was_published() -> None:
    """Converted weights may differ in their bytes from one version of a library to the next; the original does not."""
    cards = sorted(checkpoints_folder().glob("*/evidence/published.json"))
    assert cards
    for path in cards:
        card = json.loads(path.read_text(encoding="utf-8"))
        assert card["weights_sha256"] == find(card["challenge"], published.INSTANCE).sha256, path
