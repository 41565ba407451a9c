"""The models of a challenge side by side: what all of them have in common, and what each has of its own.

`exercises compare` runs every lesson's solution on every instance (the seeds that are shipped, and the write-up's own
model where it can be had) and keeps the figures in `docs/figures.json`. The page `docs/figures.md` and its pictures
are made of these alone. What the page says in words is a list of claims, in each challenge's `figures` module, with
numbers filled in and a condition each: a page with a claim that its figures do not bear out is not written.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from nbformat.v4 import new_code_cell

from exercises_utils.evidence.claims import Claim, span
from exercises_utils.lessons import building as lessons
from exercises_utils.lessons.running import environment
from exercises_utils.models.checkpoints import load_checkpoint
from exercises_utils.models.files import write_whole
from exercises_utils.models.loading import load_model
from exercises_utils.models.sources import checkpoint_path
from exercises_utils.models.training import EVALUATION_SEED, evaluate, logits_function
from exercises_utils.plotting import bar, heatmap
from exercises_utils.tools.hooks import ablate

N_ABLATED = 1000
"""Examples that ablations are measured on."""
KINDS = ("counterexamples", "circuit", "explanation")
LAST_CELL = f"""\
import json

figures = {{name: getattr(checks, name).figures(globals()[name]) for name in {KINDS}}}
solved = [checks.CHECKS.is_solved(each.exercise) for each in checks.CHECKS]
print(json.dumps({{**figures, "solved": sum(solved), "exercises": len(solved)}}))"""
"""Run after a solution, in its own kernel: what its last three answers are worth."""

Figures = dict[str, Any]
"""All figures of one model, as in `docs/figures.json`."""


def measure(
    lesson: lessons.Lesson,
    task: Any,
    instance: str,
    on_cell: Callable[[int, int], Any] = lambda done, of: None,
) -> Figures:
    """The figures of one model: its accuracy, hard slices and ablations, and what the lesson's solution finds on it.

    Raises `LessonError` where a check of the solution fails on this model.
    """
    state_dict, card = load_checkpoint(checkpoint_path(lesson.challenge, instance), lesson.challenge)
    notebook = lessons.read_source(lesson)
    notebook.cells.append(new_code_cell(LAST_CELL))
    settings = environment(EXERCISES_STRICT="1", EXERCISES_INSTANCE=instance)
    lessons.execute(lesson, notebook, settings, on_cell)
    slices = card.hard_slices or task.hard_slices(logits_function(task, state_dict), EVALUATION_SEED + 1)
    return _rounded(
        {
            "weights": card.identity,
            "accuracy": (card.accuracy or evaluate(task, state_dict))["value"],
            "slices": dict(_accuracies(slices)),
            "ablations": ablations(load_model(lesson.challenge, instance, device="cpu"), task),
            **json.loads(notebook.cells[-1].outputs[0].text),
        }
    )


def ablations(model: Any, task: Any) -> dict[str, float]:
    """What it costs, in nats, to replace what each head writes by its mean over examples, position by position."""
    data = task.sample(N_ABLATED, EVALUATION_SEED)
    costs = {}
    with torch.no_grad():
        before = task.loss(model(data.tokens), data)
        for layer in range(model.cfg.n_layers):
            for head in range(model.cfg.n_heads):
                with ablate(model, [(layer, head)], activation="z", how="mean"):
                    costs[f"{layer}.{head}"] = float(task.loss(model(data.tokens), data) - before)
    return costs


def _accuracies(slices: Mapping[str, Mapping[str, Any]]) -> Iterable[tuple[str, float]]:
    """The accuracy on each slice of a card, and on each part of it where it has parts."""
    for name, values in slices.items():
        yield name.replace("_", " "), values["accuracy"]
        for key, parts in values.items():
            if isinstance(parts, Mapping) and key.startswith("by_"):
                yield from ((f"{key.removeprefix('by_')} {part}", value) for part, value in parts.items())


def _rounded(value: Any) -> Any:
    """The same with floats of six decimals: what a table or a claim can show, and no more."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 6) + 0.0 if isinstance(value, float) else value


# The page


def page(all_figures: Mapping[str, Mapping[str, Figures]], modules: Mapping[str, Any]) -> str:
    """The text of `docs/figures.md`, from the figures of each challenge and its `figures` module, in their order."""
    all_figures = {name: all_figures[name] for name in modules if name in all_figures}
    lines = [
        "# The models side by side",
        "",
        "Each lesson holds on several models: those that the course trained, each with a seed of its own, and the one "
        "that a write-up published. `exercises compare` runs the solutions on all of them, with every check strict, and "
        "makes this page: it is generated, and its figures are in [figures.json](figures.json).",
        "",
        "## What they have in common",
        "",
        *_claims(all_figures, modules, "in_common"),
        "",
        "## What each has of its own",
        "",
        *_claims(all_figures, modules, "of_its_own"),
        "",
        _HOW,
    ]
    for challenge, models in all_figures.items():
        lines += ["", f"## {_title(challenge)}"]
        for name in pictures(challenge, models):
            lines += ["", f"![{_ALT[name].format(_title(challenge))}](figures/{challenge}-{name}.png)"]
        lines += ["", *_table(models)]
    return "\n".join(lines) + "\n"


_HOW = (
    '**How to read the figures and tables.** *Slices*: "all" is data as in training, where every number of a list or digit '
    'of a sum has to be right ("fresh data" counts single answers); the others are hard ones, described in the cards beside '
    "the weights. *Lesson*: the exercises whose checks pass on this model, of all. *Accuracy*: of single "
    "answers, on fresh data. *Circuit*: what the model still does with everything outside the lesson's circuit replaced, "
    "as a share of the way from chance to the whole model; its rank among all sets of as many members, or the share of "
    "1,000 random circuits of its size that keep less; *twin*: the same circuit in a model with random weights. "
    "*Simulation*: how well the lesson's explanation predicts the model on hard inputs, the mean of where the model is "
    "right and where it is wrong (the perfect algorithm scores 0.5). *Counterexamples*: how many of the lesson's inputs "
    "fool the model, how many of these look like training data, and the share of random inputs that fool it. The "
    f"ablations replace what a head writes by its mean over {N_ABLATED:,} examples."
)
_ALT = {
    "slices": "{}: accuracy on fresh data and on the hard slices, by model",
    "ablations": "{}: what the mean ablation of each head costs, by model",
    "evidence": "{}: scores of the circuit, of its random twin and of the simulation, by model",
}


def _title(challenge: str) -> str:
    return challenge.replace("_", " ").capitalize()


def _claims(
    all_figures: Mapping[str, Mapping[str, Figures]], modules: Mapping[str, Any], kind: str
) -> list[str]:
    """What is said: of all challenges in a paragraph, then of each in an item of a list."""
    of_all = _in_all(all_figures) if kind == "in_common" else []
    of_each = {name: getattr(modules[name], kind)(models) for name, models in all_figures.items()}
    broken = [claim.text for claim in [*of_all, *chain(*of_each.values())] if not claim.holds]
    if broken:
        raise lessons.LessonError("The figures do not bear this out:\n" + "\n".join(broken))
    lines = [" ".join(claim.text for claim in of_all), ""] if of_all else []
    return lines + ["- " + " ".join(claim.text for claim in claims) for claims in of_each.values()]


def _in_all(all_figures: Mapping[str, Mapping[str, Figures]]) -> list[Claim]:
    """What holds in every model of every challenge."""
    every = [found for models in all_figures.values() for found in models.values()]
    twins = [found["circuit"]["twin"] for found in every]
    simulated = [found["explanation"]["score"] for found in every]
    by_chance = [found["counterexamples"]["random_share"] for found in every]
    fooled = [found["counterexamples"]["found"] / found["counterexamples"]["asked"] for found in every]
    best = [
        found["circuit"].get("rank") == 1 or found["circuit"].get("percentile", 0) >= 99 for found in every
    ]
    return [
        Claim(
            f"In all {len(every)} models the lesson's circuit keeps {span(found['circuit']['score'] for found in every)} "
            "of what the model can do, is the best of its size or better than 99 % of random ones, and is worth "
            f"{round(max(twins), 2) + 0.0:.2f} at most in a model with random weights.",
            all(best) and max(twins) < 0.2,
        ),
        Claim(
            f"The explanation predicts each of them better than the perfect algorithm does ({span(simulated)}; 0.50), and "
            f"{100 * min(fooled):.0f} % or more of the counterexamples fool it, where {100 * max(by_chance):.2f} % of "
            "random inputs do at most.",
            min(simulated) > 0.6 and min(fooled) >= 0.8 and max(by_chance) < 0.1,
        ),
    ]


def _table(models: Mapping[str, Figures]) -> list[str]:
    rows = [
        "| model | lesson | accuracy | circuit | score | place | twin | simulation | its numbers | counterexamples |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in models.items():
        circuit, explained, fooled = (found[kind] for kind in ("circuit", "explanation", "counterexamples"))
        members = circuit["members"]
        place = (
            f"{circuit['rank']} of {circuit['of']}" if "rank" in circuit else f"{circuit['percentile']:.1f} %"
        )
        cells = [
            name,
            f"{found['solved']} of {found['exercises']}",
            f"{found['accuracy']:.4f}",
            ", ".join(members) if len(members) < 5 else f"{len(members)} {circuit['unit']}s",
            f"{circuit['score']:.2f}",
            place,
            f"{round(circuit['twin'], 2) + 0.0:.2f}",
            f"{explained['score']:.2f}",
            f"{explained['numbers']:,}",
            f"{fooled['found']} of {fooled['asked']} ({fooled['in_distribution']}; {fooled['random_share']:.2%})",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def pictures(challenge: str, models: Mapping[str, Figures]) -> dict[str, Any]:
    """The plotly figures of one challenge, by the names of their files."""
    names, first = list(models), next(iter(models.values()))
    title = _title(challenge)

    def table(rows: Sequence[Sequence[float]]) -> torch.Tensor:
        return torch.tensor(rows, dtype=torch.float64)

    return {
        "slices": heatmap(
            table([[found["accuracy"], *found["slices"].values()] for found in models.values()]),
            title=f"{title}: accuracy on fresh data and on the hard slices",
            x="",
            y="model",
            unit="accuracy",
            x_labels=["fresh data", *first["slices"]],
            y_labels=names,
            signed=False,
            text=True,
        ),
        "ablations": heatmap(
            table([list(found["ablations"].values()) for found in models.values()]),
            title=f"{title}: cost of the mean ablation of each head",
            x="head",
            y="model",
            unit="nats",
            x_labels=list(first["ablations"]),
            y_labels=names,
            signed=False,
            text=True,
        ),
        "evidence": bar(
            names,
            {
                "circuit": [found["circuit"]["score"] for found in models.values()],
                "the same in a random twin": [found["circuit"]["twin"] for found in models.values()],
                "simulation": [found["explanation"]["score"] for found in models.values()],
            },
            title=f"{title}: how much the circuit keeps, and the simulation predicts",
            x="model",
            y="score",
            reference_lines={"simulation by the perfect algorithm": 0.5},
        ),
    }


def write_page(docs: Path, modules: Mapping[str, Any]) -> None:
    """Writes the page and its pictures from the figures that are stored in `docs`."""
    all_figures = read_figures(docs)
    text = page(all_figures, modules)
    drawn = {
        f"{challenge}-{name}.png": figure
        for challenge, models in all_figures.items()
        for name, figure in pictures(challenge, models).items()
    }
    (docs / "figures").mkdir(exist_ok=True)
    for name, picture in zip(drawn, lessons.pictures(list(drawn.values())), strict=True):
        write_whole(docs / "figures" / name, picture)
    write_whole(docs / "figures.md", text.encode())


def read_figures(docs: Path) -> dict[str, dict[str, Figures]]:
    """What is stored: figures by challenge and instance. Empty where nothing is."""
    path = docs / "figures.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def store_figures(docs: Path, challenge: str, instance: str, found: Figures) -> None:
    """Adds the figures of one model to what is stored, challenges and instances in order."""
    everything = read_figures(docs)
    models = {**everything.get(challenge, {}), instance: found}
    order = sorted(models, key=lambda name: (not name.startswith("seed"), len(name), name))
    everything[challenge] = {name: models[name] for name in order}
    text = json.dumps(dict(sorted(everything.items())), indent=1, ensure_ascii=False) + "\n"
    write_whole(docs / "figures.json", text.encode())
