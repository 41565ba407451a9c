"""What a learner's notebook solves: it is run in a fresh process, and the file itself is never touched.

This is a help, not an examination: the notebook's code runs as the user who calls it, and may do anything.
"""

import json
import re
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from exercises_utils.checking.display import MARKS, UNCHECKED
from exercises_utils.checking.progress import CheckList
from exercises_utils.lessons.running import RunError, environment, run_notebook

# The names may stand in brackets, on several lines.
_CHECKS_IMPORT = re.compile(
    r"^\s*from\s+exercises_utils\.challenges\.(\w+)\s+import\s+(?:\([^)]*\bchecks\b|[^#\n(]*\bchecks\b)",
    re.MULTILINE,
)


class NotebookError(Exception):
    """A file that is no notebook of the course; the message says why, and what to do."""


@dataclass(frozen=True)
class Attempt:
    """What came of one exercise."""

    exercise: str
    status: str
    message: str


def read_notebook(path: Path) -> NotebookNode:
    """Returns the notebook in a file that anybody may have written; raises `NotebookError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what nbformat mends on reading
            notebook = nbformat.read(path, as_version=4)
            nbformat.validate(notebook)
    except OSError as error:
        raise NotebookError(f"{path} cannot be read: {error.strerror}.") from None
    except Exception as error:  # whatever nbformat does with what is no notebook
        reason = (str(error).splitlines() or [""])[0][:200]
        raise NotebookError(
            f"{path} is not a Jupyter notebook, or is damaged ({type(error).__name__}: {reason}). "
            "Open it in JupyterLab, or begin again from the original in notebooks/."
        ) from None
    return notebook


def challenge_of(notebook: NotebookNode) -> str:
    """Returns the challenge whose checks the notebook imports; raises `NotebookError` if there is none."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and (found := _CHECKS_IMPORT.search(cell.source)):
            return found[1]
    raise NotebookError(
        "No cell of this notebook imports the checks of a lesson (from exercises_utils.challenges.… import checks, …). "
        "Is it a notebook of this course, with its setup cell?"
    )


def run_attempts(notebook: NotebookNode, exercises: CheckList, timeout: float) -> list[Attempt]:
    """Returns what comes of each exercise when the notebook is run from its beginning; fills in its errors.

    `timeout` is in seconds, for a cell. A cell that raises does not stop the run; one that takes longer, or
    ends the process, does, and the exercises after it could not be checked.
    """
    stop: RunError | None = None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "outcomes.jsonl"
        try:
            settings = environment(EXERCISES_OUTCOMES=str(file))
            run_notebook(notebook, Path(folder), settings, keep_going=True, timeout=timeout)
        except RunError as error:
            stop = error
        outcomes = _read_outcomes(file)
    return [
        outcomes.get(e.exercise) or Attempt(e.exercise, *_reason(notebook, e.exercise, stop))
        for e in exercises
    ]


def _read_outcomes(file: Path) -> dict[str, Attempt]:
    """Returns the latest outcome of each exercise; skips lines that no check wrote."""
    outcomes = {}
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    for line in text.splitlines():
        try:
            record = json.loads(line)
            attempt = Attempt(str(record["exercise"]), record["status"], str(record["message"]))
        except (ValueError, KeyError, TypeError):
            continue
        if attempt.status in MARKS:
            outcomes[attempt.exercise] = attempt
    return outcomes


def _reason(notebook: NotebookNode, exercise: str, stop: RunError | None) -> tuple[str, str]:
    """Returns the status and the message of an exercise whose check has left no outcome."""
    call = re.compile(rf"^\s*checks\.{exercise}\s*\(", re.MULTILINE)
    cells = [
        i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code" and call.search(cell.source)
    ]
    if not cells:
        return UNCHECKED, f"The cell checks.{exercise}({exercise}) is missing; copy it from the original."
    if stop and stop.cell <= cells[-1]:
        return UNCHECKED, f"The run ended before it, in cell {stop.cell + 1}. {stop}"
    errors = {i: error for i, cell in enumerate(notebook.cells) if (error := _error(cell))}
    answer = [i for i, cell in enumerate(notebook.cells) if cell.get("id") == exercise]
    for i in answer + cells:
        if i in errors:
            first = min(errors)
            cause = "" if first == i else f" (the first error is in cell {first + 1}: {errors[first]})"
            return UNCHECKED, f"Cell {i + 1} raised {errors[i]}{cause}"
    return UNCHECKED, "Its cell ran, but the check did not. Is `checks` still the course's module?"


def _error(cell: NotebookNode) -> str | None:
    for output in cell.get("outputs", []):
        if output.output_type == "error":
            return f"{output.ename}: {output.evalue}"
    return None
