"""The page that compares the models is made of its stored figures, and these are of the weights that are here."""

import copy
import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from exercises_utils.challenges.palindromes import task as palindromes
from exercises_utils.evidence.claims import Claim, span
from exercises_utils.lessons import LessonError, comparison, find_lessons
from exercises_utils.lessons.comparison import ablations, page, read_figures, store_figures
from exercises_utils.models.architecture import PlainTransformer
from exercises_utils.models.cards import Card, card_path
from exercises_utils.models.native import build_model
from exercises_utils.models.sources import checkpoint_path, find, lesson_instances

ROOT = Path(__file__).parent.parent
STORED = read_figures(ROOT / "docs")
LESSONS = {lesson.challenge: lesson for lesson in find_lessons(ROOT)}
MODULES = {
    challenge: import_module(f"exercises_utils.challenges.{challenge}.figures")
    for challenge in LESSONS
    if (ROOT / "exercises_utils" / "challenges" / challenge / "figures.py").is_file()
}
FIGURES = {
    "weights": "0" * 64,
    "accuracy": 0.995,
    "slices": {"all": 0.9, "hard": 0.25},
    "ablations": {"0.0": 1.5, "0.1": 0.0},
    "counterexamples": {"asked": 50, "found": 45, "in_distribution": 40, "random_share": 0.012},
    "circuit": {
        "members": ["0.0"], "unit": "head", "score": 0.91, "lost": {"0.0": 0.9}, "twin": -0.0, "rank": 1, "of": 2
    },
    "explanation": {"score": 0.8, "where_right": 0.9, "where_wrong": 0.7, "perfect": 0.5, "numbers": 1234},
    "solved": 3,
    "exercises": 3,
}  # fmt: skip

MEASURED = pytest.mark.skipif(
    not STORED, reason="docs/figures.json is not there yet; it is made by `exercises compare`"
)


@MEASURED
@pytest.mark.parametrize("challenge", MODULES)
def test_the_figures_are_of_the_weights_that_are_here(challenge) -> None:
    models = STORED[challenge]
    assert list(models) == [*lesson_instances(challenge), "published"]
    for name, found in models.items():
        assert found["solved"] == found["exercises"] > 10, name
        if name == "published":
            assert found["weights"] == find(challenge, "published").sha256
            continue
        path = card_path(checkpoint_path(challenge, name))
        card = Card.from_json(path.read_text(encoding="utf-8"), path)
        assert found["weights"] == card.identity, name
        assert found["accuracy"] == card.accuracy["value"], name
        for slice_name, values in card.hard_slices.items():
            assert found["slices"][slice_name.replace("_", " ")] == values["accuracy"], name


@MEASURED
def test_the_page_is_what_its_figures_give() -> None:
    """And every claim on it is borne out: `page` refuses one that is not."""
    assert (ROOT / "docs" / "figures.md").read_text(encoding="utf-8") == page(STORED, MODULES)


@MEASURED
def test_its_pictures_are_there_and_small() -> None:
    text = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    shown = {
        f"figures/{challenge}-{name}.png"
        for challenge in MODULES
        for name in ("slices", "ablations", "evidence")
    }
    assert shown == {part.split(")")[0] for part in text.split("](")[1:] if part.startswith("figures/")}
    files = {f"figures/{path.name}": path.stat().st_size for path in (ROOT / "docs" / "figures").glob("*")}
    assert files.keys() == shown
    assert max(files.values()) < 60_000


def test_what_is_stored_is_in_order(tmp_path) -> None:
    for name in ("published", "seed10", "seed2"):
        store_figures(tmp_path, "b", name, FIGURES)
    store_figures(tmp_path, "a", "seed0", FIGURES)
    stored = read_figures(tmp_path)
    assert list(stored) == ["a", "b"]
    assert list(stored["b"]) == ["seed2", "seed10", "published"]
    assert stored["b"]["seed2"] == FIGURES


def module(holds: bool = True) -> SimpleNamespace:
    return SimpleNamespace(
        in_common=lambda models: [Claim(f"All {len(models)} are alike.", holds)],
        of_its_own=lambda models: [Claim("But in one thing.", True)],
    )


def test_a_page_of_two_models() -> None:
    other = copy.deepcopy(FIGURES)
    other["circuit"] = {
        **other["circuit"],
        "members": [f"0.0.{i}" for i in range(7)],
        "unit": "site",
        "percentile": 99.9,
    }
    del other["circuit"]["rank"], other["circuit"]["of"]
    text = page({"odd_numbers": {"seed0": FIGURES, "published": other}}, {"odd_numbers": module()})
    assert "All 2 are alike." in text.split("## What each has of its own")[0]
    assert "In all 2 models the lesson's circuit keeps 0.91 of what the model can do" in text
    row = "| seed0 | 3 of 3 | 0.9950 | 0.0 | 0.91 | 1 of 2 | 0.00 | 0.80 | 1,234 | 45 of 50 (40; 1.20%) |"
    assert row in text
    assert "| published | 3 of 3 | 0.9950 | 7 sites | 0.91 | 99.9 % |" in text
    assert (
        "![Odd numbers: what the mean ablation of each head costs, by model](figures/odd_numbers-ablations.png)"
        in text
    )


def test_a_claim_that_does_not_hold_is_not_written() -> None:
    with pytest.raises(LessonError, match="do not bear this out:\nAll 1 are alike"):
        page({"odd": {"seed0": FIGURES}}, {"odd": module(holds=False)})
    worse = copy.deepcopy(FIGURES)
    worse["explanation"]["score"] = 0.5
    with pytest.raises(LessonError, match="better than the perfect algorithm"):
        page({"odd": {"seed0": FIGURES, "seed1": worse}}, {"odd": module()})


def test_a_span_of_values() -> None:
    assert span([0.931, 0.84, 0.9]) == "0.84 to 0.93"
    assert span([0.501, 0.499]) == "0.50"
    assert span([1200, 15], 0) == "15 to 1,200"


def test_ablations_cost_what_the_loss_rises_by() -> None:
    """Against the loss of a model whose head writes the mean, put there by hand."""
    model = build_model(
        palindromes.CONFIG, PlainTransformer(palindromes.CONFIG, 3).state_dict(), device="cpu"
    )
    costs = ablations(model, palindromes)
    assert list(costs) == ["0.0", "0.1", "1.0", "1.1"]
    data = palindromes.sample(comparison.N_ABLATED, comparison.EVALUATION_SEED)
    _, cache = model.run_with_cache(data.tokens)
    mean = cache["z", 1][:, :, 1].mean(0)

    def hook(z: torch.Tensor, hook) -> torch.Tensor:
        z[:, :, 1] = mean
        return z

    logits = model.run_with_hooks(data.tokens, fwd_hooks=[("blocks.1.attn.hook_z", hook)])
    rise = palindromes.loss(logits, data) - palindromes.loss(model(data.tokens), data)
    assert costs["1.1"] == pytest.approx(float(rise), abs=1e-6)


@MEASURED
def test_the_figures_are_plain_numbers() -> None:
    """Six decimals at most, so that the file says no more than it knows."""
    text = (ROOT / "docs" / "figures.json").read_text(encoding="utf-8")
    assert json.loads(text) == STORED
    assert comparison._rounded(STORED) == STORED
