"""The student version: the notebooks, and what is needed to run them, without the repository."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from exercises_utils.lessons import colab
from exercises_utils.lessons.building import (
    LessonError,
    exercise_notebook,
    find_lessons,
    read_source,
    write_notebook,
)

README = """\
# Exercises

You need Python 3.11 or later. In this folder:

    python3 -m venv .venv
    .venv/bin/pip install --constraint constraints.txt "./{wheel}[lab]"
    .venv/bin/jupyter lab notebooks/{first}

To see what a notebook solves so far, with the notebook saved:

    .venv/bin/exercises check notebooks/{first}
"""


def write_release(root: Path, out: Path, *, with_solutions: bool) -> None:
    """Writes the student version of the repository at `root` to the folder `out`, whole or not at all.

    It holds the notebooks, the package (with the weights) as a wheel, the exact versions and the licence; no
    solution and no wrong answer. Without solutions, the notebooks have none either: for a graded course.
    The checks are in the wheel, and they know the right results.

    Raises `LessonError` where `out` has anything in it already: that may be a learner's work.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LessonError(
            f"{out} is not empty, and what is in it may be somebody's work: nothing was written. "
            "Choose a new folder."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".release-") as temporary:
        folder = Path(temporary) / out.name
        folder.mkdir()
        lessons = find_lessons(root)
        for lesson in lessons:
            notebook = exercise_notebook(read_source(lesson), with_solutions=with_solutions)
            # The badge would lead to the public notebooks, and these have the solutions.
            notebook.cells = [cell for cell in notebook.cells if cell.id != colab.BADGE]
            write_notebook(notebook, folder / "notebooks" / lesson.exercises.name)
        for name in ("LICENSE", "constraints.txt"):
            shutil.copy(root / name, folder)
        wheel = _build_wheel(root, folder)
        text = README.format(wheel=wheel.name, first=lessons[0].exercises.name)
        (folder / "README.md").write_text(text, encoding="utf-8")
        if out.exists():
            out.rmdir()
        shutil.move(folder, out)


def _build_wheel(root: Path, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    finished = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if finished.returncode:
        raise LessonError(f"The package could not be built:\n{finished.stdout}{finished.stderr}")
    return next(folder.glob("*.whl"))
