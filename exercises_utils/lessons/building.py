"""From the source of a lesson to what a learner opens.

    solutions/NN_name.py     the source: percent format, nbgrader's markers and metadata
    solutions/NN_name.ipynb  the source, executed: `build`
    notebooks/NN_name.ipynb  the exercises: `exercise_notebook`

An exercise is a code cell with a `grade_id` and one or more regions between `### BEGIN SOLUTION` and
`### END SOLUTION`; the cell that checks it comes later, is named `check_<grade_id>` and holds
`checks.<grade_id>(<grade_id>)`. Three tags mean something: the outputs of a `drop-output` cell are not stored,
and a `solution-only` cell (prose that gives an answer away) is folded where solutions are shown and left out
where they are not. A `prediction` is an exercise whose answer is nobody's solution: it is shown nowhere, the comment
after it stays in the stub, and a later cell shows what came, with `checks.<grade_id>.compare(…)`. The course's
development extra has to be installed.
"""

import ast
import base64
import hashlib
import io
import json
import logging
import re
import shutil
import sys
import tokenize
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from exercises_utils.lessons import colab
from exercises_utils.lessons.running import RunError, environment, run_notebook
from exercises_utils.models.files import write_whole

PLOTLY, SVG = "application/vnd.plotly.v1+json", "image/svg+xml"
WIDGET = "application/vnd.jupyter.widget-view+json"
DROP_OUTPUT, SOLUTION_ONLY, PREDICTION = "drop-output", "solution-only", "prediction"
SOLUTIONS, EXERCISES = "solutions", "notebooks"
STUB = "raise NotImplementedError()  # your code here"
NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_REGION = re.compile(r"\s*### (BEGIN|END) SOLUTION\s*")


class LessonError(Exception):
    """A lesson that cannot be built, or is out of step; the message says where and what to do."""


@dataclass(frozen=True)
class Lesson:
    """Where the three forms of a lesson are."""

    source: Path

    @property
    def name(self) -> str:
        """Its number and name, such as `03_palindromes`."""
        return self.source.stem

    @property
    def challenge(self) -> str:
        """The challenge it is about, such as `palindromes`."""
        return self.name.partition("_")[2]

    @property
    def solution(self) -> Path:
        """The executed solution."""
        return self.source.with_suffix(".ipynb")

    @property
    def exercises(self) -> Path:
        """The notebook that a learner opens."""
        return self.root / EXERCISES / f"{self.name}.ipynb"

    @property
    def root(self) -> Path:
        """The repository's folder."""
        return self.source.parent.parent


def find_lessons(root: Path, names: Iterable[str] = ()) -> list[Lesson]:
    """Returns the lessons of the repository at `root`, or those that `names` names (`03` is enough)."""
    lessons = [Lesson(path) for path in sorted((root / SOLUTIONS).glob("[0-9][0-9]_*.py"))]
    if not lessons:
        raise LessonError("There are no lessons here: this command works in a clone of the repository.")
    chosen = []
    for name in names:
        matches = [x for x in lessons if name in (x.name, x.challenge, x.name.partition("_")[0])]
        if not matches:
            raise LessonError(
                f"There is no lesson {name!r}. There are: {', '.join(x.name for x in lessons)}."
            )
        chosen += matches
    return chosen or lessons


# The source


def read_source(lesson: Lesson, publication: colab.Publication | None = None) -> NotebookNode:
    """Returns the source as a notebook without outputs; raises `LessonError` where it breaks a rule.

    It has the two cells for Google Colab where the course has a public address: that in `pyproject.toml`, if no other
    `publication` is given.
    """
    try:
        import jupytext
    except ImportError:
        raise LessonError(
            "Lessons are read with jupytext, which is not installed here. From the repository's folder: "
            "pip install --constraint constraints.txt --editable '.[dev]'"
        ) from None

    cells = [_tidy_cell(cell) for cell in jupytext.read(lesson.source).cells]
    try:
        publication = publication or colab.Publication.of(lesson.root)
        cells = colab.with_cells(cells, publication, f"{SOLUTIONS}/{lesson.solution.name}")
    except ValueError as error:
        raise LessonError(f"{lesson.source.name}: {error}") from None
    notebook = new_notebook(cells=cells, metadata=NOTEBOOK_METADATA)
    _set_ids(notebook)
    problems = [f"{lesson.source.name}: {problem}" for problem in _broken_rules(notebook)]
    if problems:
        raise LessonError("\n".join(problems))
    return notebook


def _tidy_cell(cell: NotebookNode) -> NotebookNode:
    metadata = {key: cell.metadata[key] for key in ("nbgrader", "tags") if key in cell.metadata}
    make = new_code_cell if cell.cell_type == "code" else new_markdown_cell
    return make(cell.source, metadata=metadata, id=cell.id)


def _set_ids(notebook: NotebookNode) -> None:
    """Gives each cell its grade_id, or a digest of its text: the same id at every build.

    Generated cells keep theirs, whatever address stands in them.
    """
    taken: set[str] = set()
    for cell in notebook.cells:
        if colab.is_generated(cell):
            continue
        wish = _grade_id(cell) or hashlib.sha256(cell.source.encode()).hexdigest()[:8]
        cell.id, n = wish, 1
        while cell.id in taken:
            n += 1
            cell.id = f"{wish}-{n}"
        taken.add(cell.id)


def _grade_id(cell: NotebookNode) -> str:
    return cell.metadata.get("nbgrader", {}).get("grade_id", "")


def _is_exercise(cell: NotebookNode) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get("solution"))


def _has_tag(cell: NotebookNode, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def _broken_rules(notebook: NotebookNode) -> Iterator[str]:
    """Yields what would make a lesson's exercises unsolvable, or its regression blind."""
    names = [name for cell in notebook.cells if (name := _grade_id(cell))]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"two cells have the grade_id `{name}`"
    for i, cell in enumerate(notebook.cells):
        name = _grade_id(cell)
        if re.search("nbval", cell.source, re.IGNORECASE):
            yield f"cell {i}: a marker of nbval would switch the comparison off"
        if _is_exercise(cell):
            if f"check_{name}" not in [_grade_id(later) for later in notebook.cells[i:]]:
                yield f"`{name}` has no cell `check_{name}` after it"
            if _has_tag(cell, PREDICTION) and not _is_compared(notebook.cells[i:], name):
                yield f"`{name}` is a prediction, and no cell after it has checks.{name}.compare(…)"
            try:
                stub = exercise_stub(cell.source, name)
            except ValueError as error:
                yield f"`{name}`: {error}"
            else:
                if stub == cell.source:
                    yield f"`{name}` has no ### BEGIN SOLUTION"
        elif "### BEGIN" in cell.source or "### END" in cell.source:
            yield f"cell {i} has a marker of a solution, but its nbgrader metadata does not say `solution`"
        elif name:
            exercise = name.removeprefix("check_")
            if cell.source.strip() != f"checks.{exercise}({exercise})":
                yield f"`{name}` has to hold exactly: checks.{exercise}({exercise})"


def _is_compared(cells: Iterable[NotebookNode], name: str) -> bool:
    call = re.compile(rf"^checks\.{name}\.compare\(", re.MULTILINE)
    return any(cell.cell_type == "code" and call.search(cell.source) for cell in cells)


# The executed solution


def build(lesson: Lesson, on_cell: Callable[[int, int], Any] = lambda done, of: None) -> None:
    """Executes the source and writes the solution and the exercise notebook, each whole or not at all.

    It always executes everything, in strict mode, on the default instance. `on_cell` is called with the
    number of cells that are done and the number of all. Raises `LessonError`.
    """
    notebook = read_source(lesson)
    execute(lesson, notebook, environment(EXERCISES_STRICT="1"), on_cell)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            _tidy_outputs(cell, lesson)
    embed_images(notebook)
    write_notebook(notebook, lesson.solution)
    write_notebook(exercise_notebook(notebook), lesson.exercises)


def execute(
    lesson: Lesson,
    notebook: NotebookNode,
    environment: dict[str, str],
    on_cell: Callable[[int, int], Any] = lambda done, of: None,
) -> None:
    """Runs a lesson's cells; raises `LessonError` with the cell and its traceback where one fails."""
    count = len(notebook.cells)
    try:
        run_notebook(notebook, lesson.source.parent, environment, on_cell=lambda i: on_cell(i, count))
    except RunError as error:
        raise LessonError(f"{lesson.source.name}, {_place(notebook, error.cell)}:\n{error}") from None
    on_cell(count, count)


def _place(notebook: NotebookNode, index: int) -> str:
    cell = notebook.cells[index]
    first_line = next((line for line in cell.source.splitlines() if line.strip()), "")
    return f"cell {index} (`{_grade_id(cell) or first_line.strip()}`)"


def _tidy_outputs(cell: NotebookNode, lesson: Lesson) -> None:
    """Removes what differs from run to run; raises `LessonError` for what must not be stored."""
    where = f"{lesson.source.name}, cell `{cell.id}`"
    if _has_tag(cell, DROP_OUTPUT):
        cell.outputs = []
    for output in cell.outputs:
        output.get("data", {}).pop(WIDGET, None)  # it names what only this kernel has
        text = json.dumps(output)
        if output.output_type == "stream" and output.name == "stderr":
            raise LessonError(f"{where} writes to standard error:\n{output.text}")
        for path in {str(Path.home()), str(lesson.root.resolve()), sys.prefix}:
            if len(path) > 1 and re.search(rf"(?<![\w./-]){re.escape(path)}(?![\w-])", text):
                raise LessonError(f"{where} shows a path of this machine: {path}")


def embed_images(notebook: NotebookNode) -> None:
    """Puts a PNG beside each plotly output, and into the place of each SVG. Needs Chromium.

    GitHub shows no plotly and not every SVG, and JupyterLab shows SVG only in notebooks that are trusted.
    """
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", []) if output.get("data")]
    plots = [output for output in outputs if PLOTLY in output.data]
    drawn = [_plotly(output.data[PLOTLY]) for output in plots]
    for output, picture in zip(plots, pictures(drawn), strict=True):
        output.data["image/png"] = base64.b64encode(picture).decode()
    drawings = [output for output in outputs if SVG in output.data]
    cards = [_card(output.data.pop(SVG)) for output in drawings]
    for output, card, picture in zip(drawings, cards, pictures(cards, scale=2), strict=True):
        output.data["image/png"] = base64.b64encode(picture).decode()
        output.metadata["image/png"] = {"width": card.layout.width, "height": card.layout.height}


def _plotly(figure: NotebookNode) -> Any:
    import plotly.io

    return plotly.io.from_json(json.dumps({key: figure[key] for key in ("data", "layout")}))


def _card(svg: str) -> Any:
    """A plotly figure that is nothing but this SVG: so one way leads to every picture."""
    import plotly.graph_objects as go

    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    if size is None:
        raise LessonError("An SVG in the outputs has no viewBox from 0 0, so nobody knows how large it is.")
    width, height = (round(float(pixels)) for pixels in size.groups())
    figure = go.Figure(layout={"width": width, "height": height, "margin": dict.fromkeys("lrtb", 0)})
    figure.update_layout(xaxis_visible=False, yaxis_visible=False, plot_bgcolor="white")
    source = f"data:{SVG};base64,{base64.b64encode(svg.encode()).decode()}"
    place = {"xref": "paper", "yref": "paper", "x": 0, "y": 1, "sizex": 1, "sizey": 1}
    return figure.add_layout_image(source=source, sizing="stretch", layer="above", **place)


def pictures(figures: Sequence[Any], scale: int = 1) -> list[bytes]:
    """The plotly figures as PNGs, `scale` pixels for each of theirs. Needs Chromium, if there are any."""
    if not figures:
        return []
    with _image_server():
        return [smaller_png(figure.to_image(format="png", scale=scale)) for figure in figures]


def smaller_png(picture: bytes) -> bytes:
    """The same picture in less than half the bytes: without an unused transparency, and in its own best 256 colours.

    A figure has few colours, and its colour scales lose a few steps of 256 at most: rare colours count as much as common
    ones, so that colour bars stay smooth, and without dithering what is flat stays flat.
    """
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as image:
        opaque = image.mode != "RGBA" or image.getchannel("A").getextrema() == (255, 255)
        if opaque:
            few = image.convert("RGB").quantize(
                256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
            )
        written = io.BytesIO()
        (few if opaque else image).save(written, "PNG", optimize=True)
    return min(picture, written.getvalue(), key=len)


@contextmanager
def _image_server() -> Iterator[None]:
    import kaleido

    logging.getLogger("choreographer").setLevel(logging.CRITICAL)
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        raise LessonError(
            "Pictures of the figures need Chromium, which was not found (the lessons themselves do not "
            "need it). On Debian and Ubuntu, as root: apt-get install chromium"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The kopts argument")
        kaleido.start_sync_server(path=browser, silence_warnings=True)
        try:
            yield
        finally:
            kaleido.stop_sync_server(silence_warnings=True)


def write_notebook(notebook: NotebookNode, path: Path) -> None:
    """Writes a notebook so that a reader finds the old file or the new one, never half of it."""
    nbformat.validate(notebook)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, notebook_text(notebook).encode())


def notebook_text(notebook: NotebookNode) -> str:
    """Returns the text of a notebook's file."""
    return nbformat.writes(notebook, indent=1) + "\n"


# The exercises


def exercise_notebook(solution: NotebookNode, *, with_solutions: bool = True) -> NotebookNode:
    """Returns the notebook for learners: stubs for answers, no outputs.

    `with_solutions` folds each solution in `<details>` after its check; without, none is anywhere in it.
    """
    cells = []
    waiting: dict[str, NotebookNode] = {}
    for cell in solution.cells:
        name = _grade_id(cell)
        if _has_tag(cell, SOLUTION_ONLY):
            if with_solutions:
                cells.append(_folded("What came out, and what it means", cell))
            continue
        cells.append(_tidy_cell(cell))
        if cell.id == colab.BADGE:
            cells[-1].source = cell.source.replace(f"/{SOLUTIONS}/", f"/{EXERCISES}/")
        if name:
            # As nbgrader does: neither can be deleted, and a check cannot be edited.
            cells[-1].metadata["deletable"] = False
            if not _is_exercise(cell):
                cells[-1].metadata["editable"] = False
        if _is_exercise(cell):
            if _has_tag(cell, PREDICTION):
                cells[-1].source = exercise_stub(cell.source, name, keep_comment=True)
            else:
                cells[-1].source = exercise_stub(cell.source, name)
                waiting[f"check_{name}"] = cell
        elif name in waiting and with_solutions:
            cells.append(_folded("Solution", waiting.pop(name)))
    notebook = new_notebook(cells=cells, metadata=NOTEBOOK_METADATA)
    _set_ids(notebook)
    return notebook


def exercise_stub(source: str, name: str, *, keep_comment: bool = False) -> str:
    """Returns the source of an exercise's cell with its solution taken out.

    Inside a function, `raise NotImplementedError()` takes the solution's place, so the signature and the
    docstring stay. At the top level the solution assigns the answer, and `name = None` takes its place; with
    `keep_comment`, the solution's last comment stays beside it.

    Raises `ValueError` where the markers do not pair, or a top-level solution does not assign `name`.
    """
    lines: list[str] = []
    region: list[str] | None = None
    for line in source.split("\n"):
        marker = _REGION.fullmatch(line)
        if marker and marker[1] == "BEGIN":
            if region is not None:
                raise ValueError("### BEGIN SOLUTION stands inside a solution")
            region = []
            indent = line[: len(line) - len(line.lstrip())]
        elif marker:
            if region is None:
                raise ValueError("### END SOLUTION has no ### BEGIN SOLUTION")
            lines.append(f"{indent}{STUB}" if indent else _value_stub("\n".join(region), name, keep_comment))
            region = None
        elif region is not None:
            region.append(line)
        else:
            lines.append(line)
    if region is not None:
        raise ValueError("### BEGIN SOLUTION has no ### END SOLUTION")
    return "\n".join(lines)


def _value_stub(solution: str, name: str, keep_comment: bool) -> str:
    targets = [
        target
        for statement in ast.parse(dedent(solution)).body
        if isinstance(statement, ast.Assign | ast.AnnAssign)
        for target in (statement.targets if isinstance(statement, ast.Assign) else [statement.target])
    ]
    if name not in [target.id for target in targets if isinstance(target, ast.Name)]:
        raise ValueError(f"a solution at the top level has to assign `{name}`")
    tokens = tokenize.generate_tokens(io.StringIO(solution).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    comment = comments[-1] if keep_comment and comments else "# your answer"
    return f"{name} = None  {comment}"


def solution_code(source: str) -> str:
    """Returns the source of an exercise's cell as a learner reads it: solved, without the markers."""
    return "\n".join(line for line in source.split("\n") if not _REGION.fullmatch(line))


def _folded(summary: str, cell: NotebookNode) -> NotebookNode:
    text = cell.source
    if cell.cell_type == "code":
        text = f"```python\n{solution_code(text).strip()}\n```"
    return new_markdown_cell(f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>")


# In step


def out_of_step(root: Path) -> list[str]:
    """Returns what is out of step between the three forms of the lessons at `root`, each with its reason."""
    problems = []
    lessons = find_lessons(root)
    for lesson in lessons:
        for path in (lesson.solution, lesson.exercises):
            if not path.exists():
                problems.append(f"{_short(path)} is missing")
        if not lesson.solution.exists():
            continue
        source, solution = read_source(lesson), nbformat.read(lesson.solution, as_version=4)
        if [_identity(cell) for cell in source.cells] != [_identity(cell) for cell in solution.cells]:
            problems.append(
                f"{_short(lesson.solution)} was built from another version of {lesson.source.name}"
            )
        if any(
            c.cell_type == "code" and c.source.strip() and c.execution_count is None for c in solution.cells
        ):
            problems.append(f"{_short(lesson.solution)} has cells that were never executed")
        expected = notebook_text(exercise_notebook(source))
        if lesson.exercises.exists() and lesson.exercises.read_text(encoding="utf-8") != expected:
            problems.append(f"{_short(lesson.exercises)} is not what {lesson.source.name} gives")
    known = {lesson.name for lesson in lessons}
    for folder in (SOLUTIONS, EXERCISES):
        for path in sorted((root / folder).glob("*.ipynb")):
            if path.stem not in known:
                problems.append(f"{_short(path)} has no source solutions/{path.stem}.py")
    return problems


def _identity(cell: NotebookNode) -> tuple:
    return cell.id, cell.cell_type, cell.source, cell.metadata.get("nbgrader"), cell.metadata.get("tags")


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


# The public address


def set_repository(root: Path, name: str) -> None:
    """Writes the public address (`OWNER/NAME` on GitHub) into `pyproject.toml` and into the cells for Google Colab.

    Nothing is executed, and all other cells stay as they are, with their outputs. Raises `LessonError`, with nothing
    written, where a notebook is not what its source gives: that may be somebody's work.
    """
    lessons = find_lessons(root)
    pyproject = root / "pyproject.toml"
    try:
        publication = colab.Publication.of(root).at(name)
        text = colab.with_address(pyproject.read_text(encoding="utf-8"), publication.address)
    except ValueError as error:
        raise LessonError(str(error)) from None
    notebooks = [_republished(lesson, publication) for lesson in lessons]
    for lesson, (solution, exercises) in zip(lessons, notebooks, strict=True):
        write_notebook(solution, lesson.solution)
        write_notebook(exercises, lesson.exercises)
    write_whole(pyproject, text.encode())


def _republished(lesson: Lesson, publication: colab.Publication) -> tuple[NotebookNode, NotebookNode]:
    """The solution, with the outputs that are stored, and the exercises, both with the cells of `publication`."""
    source = read_source(lesson, publication)
    exercises = exercise_notebook(source)
    try:
        stored = nbformat.read(lesson.solution, as_version=4)
        opened = nbformat.read(lesson.exercises, as_version=4)
    except FileNotFoundError as error:
        raise LessonError(f"{_short(Path(error.filename))} is missing: run `make build` first.") from None
    for path, old, new in ((lesson.solution, stored, source), (lesson.exercises, opened, exercises)):
        if [_identity(cell) for cell in _own_cells(old)] != [_identity(cell) for cell in _own_cells(new)]:
            raise LessonError(
                f"{_short(path)} is not what {lesson.source.name} gives, so nothing was written. If that is "
                "somebody's work, keep a copy of it elsewhere; then run `make build` first."
            )
    for old, new in zip(_own_cells(stored), _own_cells(source), strict=True):
        if new.cell_type == "code":
            new.outputs, new.execution_count = old.outputs, old.execution_count
    executed = [cell for cell in source.cells if cell.cell_type == "code" and cell.source.strip()]
    if all(cell.execution_count is not None for cell in executed if not colab.is_generated(cell)):
        for count, cell in enumerate(executed, start=1):
            cell.execution_count = count
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = count
    source.metadata = stored.metadata
    return source, exercises


def _own_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if not colab.is_generated(cell)]
