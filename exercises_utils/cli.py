"""The command `exercises`: check, train, evidence, build, verify, compare, published, release, set-repository."""

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from exercises_utils import lessons
from exercises_utils.checking.display import FAILED, MARKS, PASSED, UNCHECKED
from exercises_utils.lessons import attempts, colab
from exercises_utils.lessons.running import environment

PACKAGE = Path(__file__).resolve().parent
CHALLENGES = PACKAGE / "challenges"
COLOURS = {PASSED: "green", FAILED: "red", UNCHECKED: "yellow"}

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Mechanistic interpretability exercises: see what a notebook solves, and build the course.",
)


def repository() -> Path:
    """Returns the folder that the package is in: the repository's, in a clone."""
    return PACKAGE.parent


def challenge_module(challenge: str, part: str) -> ModuleType:
    """Returns a challenge's `task`, `checks`, …; the one place that finds a challenge by its name."""
    known = sorted(path.parent.name for path in CHALLENGES.glob("*/task.py"))
    if challenge not in known:
        raise UsageError(f"There is no challenge {challenge!r}. There are: {', '.join(known)}.")
    return import_module(f"exercises_utils.challenges.{challenge}.{part}")


class UsageError(Exception):
    """What was asked for does not exist; the message says what does."""


@app.command()
def check(
    notebook: Annotated[Path, typer.Argument(help="The notebook, saved. It is not changed.")],
    timeout: Annotated[float, typer.Option(help="Seconds that one cell may take.")] = 120,
) -> None:
    """Run a notebook in a fresh process, and say which exercises it solves."""
    content = attempts.read_notebook(notebook)
    module = challenge_module(attempts.challenge_of(content), "checks")
    exercises = module.CHECKS
    results = attempts.run_attempts(content, exercises, timeout)
    titles = {exercise.exercise: exercise for exercise in exercises}
    width = max(len(name) for name in titles)
    for result in results:
        exercises.record(result.exercise, result.status)
        exercise = titles[result.exercise]
        mark = typer.style(MARKS[result.status], fg=COLOURS.get(result.status))
        tell = result.message and result.status in (FAILED, UNCHECKED)
        message = f": {result.message}" if tell else ""
        kind = "" if exercise.core else " (optional)"
        typer.echo(f"{mark} {result.exercise:<{width}}  {result.status}{message}{kind}")
    typer.echo(exercises.progress_line())
    if not all(exercises.is_solved(exercise.exercise) for exercise in exercises if exercise.core):
        raise typer.Exit(1)


@app.command()
def train(
    challenge: Annotated[str, typer.Argument(help="Such as: palindromes")],
    seed: Annotated[int, typer.Option(help="Of the weights and of the data, such as: 17.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The .safetensors file (or model's folder) to write. Default: the challenge's own instance of that seed."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    variant: Annotated[
        str, typer.Option(help="Which of the challenge's models, where it has several.")
    ] = "default",
) -> None:
    """Train a model (some minutes), and write its weights and its card."""
    from exercises_utils.models import DEFAULT_VARIANT, CheckpointError, checkpoint_path
    from exercises_utils.models.training import run_training

    task = challenge_module(challenge, "task")
    own = (CHALLENGES / challenge / "training.py").is_file()
    if variant != DEFAULT_VARIANT and not own:
        raise UsageError(f"{challenge} has one model, no variant {variant!r}.")
    try:
        if own:
            card = challenge_module(challenge, "training").run_training(seed, out, force, variant)
        else:
            card = run_training(task, seed, out, force)
    except CheckpointError as error:
        raise UsageError(str(error)) from None
    path = out or checkpoint_path(challenge, card.instance)
    accuracy = f"accuracy {card.accuracy['value']:.4f} on {card.accuracy['n']:,} fresh examples"
    typer.echo(f"{path} is written: {accuracy}.")
    typer.echo(
        f"Next, the inputs that are hard for it: exercises evidence {challenge} {out or card.instance}"
    )


@app.command()
def evidence(
    challenge: Annotated[str, typer.Argument(help="Such as: palindromes")],
    instance: Annotated[str, typer.Argument(help="Such as: seed0, or the path of its file or folder.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> None:
    """Search inputs that are hard for a model, and score random circuits: the last exercises need both."""
    from tqdm.auto import tqdm

    from exercises_utils.evidence.stored import evidence_path, write_evidence
    from exercises_utils.models import CheckpointError, checkpoint_path

    try:
        weights = checkpoint_path(challenge, instance)
        write_evidence(challenge_module(challenge, "evidence"), weights, progress=tqdm, force=force)
    except CheckpointError as error:
        raise UsageError(str(error)) from None
    typer.echo(f"{evidence_path(weights)} is written.")


Lessons = Annotated[list[str] | None, typer.Argument(help="Such as: 03. Default: all.")]


@app.command()
def build(
    lesson: Lessons = None,
) -> None:
    """Execute the solutions, and generate the exercise notebooks from them."""
    chosen = lessons.find_lessons(repository(), lesson or ())
    with _progress() as progress:
        for item in chosen:
            lessons.build(item, _bar(progress, item.name))


@app.command()
def verify(
    lesson: Lessons = None,
    instance: Annotated[list[str] | None, typer.Option(help="Such as: seed1. Default: all.")] = None,
) -> None:
    """Run every solution on every set of weights, with every check strict.

    Where EXERCISES_PUBLISHED_DIR says where the write-ups' own models are, on these as well.
    """
    failures, runs = [], []
    for item in lessons.find_lessons(repository(), lesson or ()):
        instances = _instances(item.challenge, instance)
        if not instances:
            failures.append(f"{item.name}: there are no weights in checkpoints/{item.challenge}.")
        runs += [(item, name) for name in instances]

    def failure(item: lessons.Lesson, name: str, on_cell: Callable[[int, int], Any]) -> str | None:
        settings = environment(EXERCISES_STRICT="1", EXERCISES_INSTANCE=name)
        try:
            lessons.execute(item, lessons.read_source(item), settings, on_cell)
        except lessons.LessonError as error:
            return f"On {name}: {error}"
        return None

    # Each run is a process of its own: as many at a time as there are processors, and memory for (1 GB each).
    with _progress() as progress, ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        bars = [_bar(progress, f"{item.name} on {name}") for item, name in runs]
        failures += filter(None, pool.map(failure, *zip(*runs, strict=True), bars) if runs else ())
    if failures:
        raise lessons.LessonError("\n\n".join(failures))


@app.command()
def compare(
    lesson: Lessons = None,
    instance: Annotated[list[str] | None, typer.Option(help="Such as: seed1. Default: all.")] = None,
    page: Annotated[
        bool, typer.Option("--page", help="Only the page, from the figures that are stored.")
    ] = False,
) -> None:
    """Run the solutions on all models, and write what these have in common and what not: docs/figures.md."""
    from exercises_utils.lessons import comparison

    docs = repository() / "docs"
    every = {
        item.challenge: item
        for item in lessons.find_lessons(repository())
        if (CHALLENGES / item.challenge / "figures.py").is_file()
    }
    chosen = [item for item in lessons.find_lessons(repository(), lesson or ()) if item in every.values()]
    with _progress() as progress:
        for item in () if page else chosen:
            for name in _instances(item.challenge, instance):
                task = challenge_module(item.challenge, "task")
                found = comparison.measure(item, task, name, _bar(progress, f"{item.name} on {name}"))
                comparison.store_figures(docs, item.challenge, name, found)
    comparison.write_page(docs, {name: challenge_module(name, "figures") for name in every})
    typer.echo(f"{docs / 'figures.md'} is written.")


@app.command()
def published(
    challenge: Annotated[list[str] | None, typer.Argument(help="Such as: palindromes. Default: all.")] = None,
) -> None:
    """Measure what the write-ups published again, on their models (fetched if need be) and beside it on ours."""
    from rich.console import Console
    from rich.table import Table

    from exercises_utils.models import CheckpointError, lesson_instances, load_model

    console = Console(width=None if sys.stdout.isatty() else 180)
    wrong = 0
    for name in challenge or sorted(path.parent.name for path in CHALLENGES.glob("*/figures.py")):
        figures = challenge_module(name, "figures").FIGURES
        ours = lesson_instances(name)
        try:
            models = {instance: load_model(name, instance) for instance in ("published", *ours)}
        except CheckpointError as error:
            raise UsageError(str(error)) from None
        table = Table("figure", "published", "measured", "difference", *ours, title=name)
        for figure in figures:
            measured = figure.measure(models["published"])
            wrong += not figure.agrees(measured)
            colour = "green" if figure.agrees(measured) else "red"
            difference = figure.difference(measured)
            table.add_row(
                figure.name,
                figure.text(figure.published),
                f"[{colour}]{figure.text(measured)}[/]",
                "" if difference is None else f"{difference:+.{figure.decimals + 2}f}",
                *(figure.text(figure.measure(models[instance])) for instance in ours),
            )
        console.print(table)
    if wrong:
        typer.secho(f"{wrong} figures are not what was published.", err=True, fg="red")
        raise typer.Exit(1)


@app.command()
def release(
    out: Annotated[Path, typer.Option(help="The folder to write: new, or empty.")],
    without_solutions: Annotated[
        bool, typer.Option("--without-solutions", help="Without the folded solutions: for a graded course.")
    ] = False,
) -> None:
    """Write the students' version: the notebooks, and the package to install."""
    from exercises_utils.lessons.release import write_release

    write_release(repository(), out, with_solutions=not without_solutions)
    typer.echo(f"Written: {out}. Its README.md says how to begin.")


@app.command()
def set_repository(
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="On GitHub, such as: maria/interp.")],
) -> None:
    """Write the public address into pyproject.toml and, for Google Colab, into all notebooks."""
    root = repository()
    lessons.set_repository(root, name)
    tag = colab.Publication.of(root).tag
    typer.echo(
        f"The address is https://github.com/{name}, and the notebooks install the course from its tag {tag}. "
        f"Next: commit, then `git tag {tag}` and push both."
    )


def _instances(challenge: str, asked: list[str] | None) -> list[str]:
    """What a lesson is run on: what is asked for, or the shipped instances and, where its folder is known and its
    evidence is shipped, the published one. That one is fetched here: a lesson's own kernel does not know the folder.
    """
    from exercises_utils.models import CheckpointError, checkpoint_path, checkpoints_folder, lesson_instances
    from exercises_utils.models.published import INSTANCE, LOCAL

    names = list(asked or lesson_instances(challenge))
    folder = checkpoints_folder() / challenge
    if not asked and LOCAL in os.environ and (folder / f"{INSTANCE}.json").is_file():
        if (folder / "evidence" / f"{INSTANCE}.safetensors").is_file():
            names.append(INSTANCE)
        else:
            typer.echo(
                f"{challenge}: not on the published model, whose evidence is not there yet: "
                f"exercises evidence {challenge} {INSTANCE}"
            )
    if INSTANCE in names:
        try:
            checkpoint_path(challenge, INSTANCE)
        except CheckpointError as error:
            raise UsageError(str(error)) from None
    return names


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns)


def _bar(progress: Progress, description: str) -> Callable[[int, int], None]:
    """What moves a bar; its time counts from the first call."""
    task = progress.add_task(description, start=False)

    def move(done: int, of: int) -> None:
        progress.start_task(task)
        progress.update(task, completed=done, total=of)

    return move


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; what a person can mend is said in a sentence, without a traceback."""
    try:
        app(arguments)
    except (UsageError, lessons.LessonError) as error:
        typer.secho(str(error), err=True, fg="red")
        sys.exit(1)
    except attempts.NotebookError as error:
        typer.secho(str(error), err=True, fg="red")
        sys.exit(2)
