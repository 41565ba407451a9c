import io
import json

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook, new_output
from PIL import Image, ImageChops, ImageStat

from exercises_utils.lessons import (
    LessonError,
    build,
    exercise_notebook,
    find_lessons,
    out_of_step,
    read_source,
    write_notebook,
)
from exercises_utils.lessons.building import exercise_stub, smaller_png


@pytest.fixture
def lesson(lesson_folder):
    return find_lessons(lesson_folder)[0]


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


# Stubs


def test_a_stub_keeps_signature_docstring_and_given_code():
    source = (
        'def f(x: int) -> int:\n    """Doc."""\n    y = x\n'
        "    ### BEGIN SOLUTION\n    return y + 1\n    ### END SOLUTION\n"
    )
    stub = exercise_stub(source, "f")
    assert stub == (
        'def f(x: int) -> int:\n    """Doc."""\n    y = x\n'
        "    raise NotImplementedError()  # your code here\n"
    )


@pytest.mark.parametrize("solution", ["head = (0, 1)", "scores = [1]\nhead: tuple = (0, max(scores))"])
def test_a_value_becomes_none(solution):
    stub = exercise_stub(f"# Which?\n### BEGIN SOLUTION\n{solution}\n### END SOLUTION", "head")
    assert stub == "# Which?\nhead = None  # your answer"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("### BEGIN SOLUTION\nhead = 1", "no ### END"),
        ("head = 1\n### END SOLUTION", "no ### BEGIN"),
        ("### BEGIN SOLUTION\n### BEGIN SOLUTION\nhead = 1\n### END SOLUTION", "inside a solution"),
        ("### BEGIN SOLUTION\nheads = 1\n### END SOLUTION", "has to assign `head`"),
        ("### BEGIN SOLUTION\nfor i in [1]:\n    head = i\n### END SOLUTION", "has to assign `head`"),
    ],
)
def test_a_stub_that_cannot_be_made_says_why(source, message):
    with pytest.raises(ValueError, match=message):
        exercise_stub(source, "head")


# The exercise notebook


def test_exercises_have_stubs_and_folded_solutions_after_the_checks(lesson):
    cells = exercise_notebook(read_source(lesson)).cells
    ids = [cell.id for cell in cells]
    folded = cells[ids.index("check_total") + 1].source
    assert folded.startswith("<details><summary>Solution</summary>\n\n```python\ndef total(")
    assert "return secret_sum" in folded
    assert "### " not in folded
    assert "raise NotImplementedError()" in cells[ids.index("total")].source
    assert cells[ids.index("winner")].source == "winner = None  # your answer"
    assert "The secret is out" in cells[ids.index("check_winner") + 2].source


def test_without_solutions_nothing_of_them_is_left(lesson):
    text = nbformat.writes(exercise_notebook(read_source(lesson), with_solutions=False))
    assert "secret" not in text
    assert "Given to everybody." in text


def test_no_outputs_and_no_edits_to_checks(lesson):
    solution = read_source(lesson)
    for cell in solution.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [new_output("stream", text="secret")], 3
    notebook = exercise_notebook(solution)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    locked = [cell.id for cell in code if cell.metadata.get("editable") is False]
    assert locked == ["check_total", "check_winner"]


PREDICTION = """
# %% nbgrader={"grade_id": "guess", "solution": true, "grade": false, "locked": false, "schema_version": 3} tags=["prediction"]
### BEGIN SOLUTION
guess = "b"  # "a" or "b"
### END SOLUTION

# %% nbgrader={"grade_id": "check_guess", "solution": false, "grade": false, "locked": true, "schema_version": 3}
checks.guess(guess)

# %%
checks.guess.compare("a")
"""  # noqa: E501


def test_nobody_s_prediction_is_a_solution(lesson):
    lesson.source.write_text(lesson.source.read_text() + PREDICTION)
    cells = exercise_notebook(read_source(lesson)).cells
    ids = [cell.id for cell in cells]
    assert cells[ids.index("guess")].source == 'guess = None  # "a" or "b"'
    assert cells[ids.index("check_guess") + 1].source == 'checks.guess.compare("a")'


def test_a_prediction_without_what_came_is_refused(lesson):
    lesson.source.write_text(lesson.source.read_text() + PREDICTION.replace("compare(", "forget("))
    with pytest.raises(
        LessonError, match="`guess` is a prediction, and no cell after it has checks.guess.compare"
    ):
        read_source(lesson)


# What a source must not do


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"check_total"', '"check_totals"', "`total` has no cell `check_total` after it"),
        ("checks.total(total)\n", "checks.total(total, 3)\n", "`check_total` has to hold exactly"),
        ('"grade_id": "winner"', '"grade_id": "total"', "two cells have the grade_id `total`"),
        ("    ### END SOLUTION", "    pass", "`total`: ### BEGIN SOLUTION has no ### END"),
        ('"grade_id": "total", "solution": true', '"grade_id": "total"', "does not say `solution`"),
        ("# %% [markdown] tags", "# %%\n# NBVAL_SKIP\n# %% [markdown] tags", "a marker of nbval"),
    ],
)
def test_rules(lesson, old, new, message):
    edit(lesson.source, old, new)
    with pytest.raises(LessonError, match="01_small.py") as caught:
        read_source(lesson)
    assert message in str(caught.value)


def test_a_lesson_without_a_solution_region_is_refused(lesson):
    text = lesson.source.read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if "### " not in line]
    lesson.source.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(LessonError, match="`total` has no ### BEGIN SOLUTION"):
        read_source(lesson)


def test_lessons_are_found_by_number_name_or_challenge(lesson_folder):
    for name in ("01", "small", "01_small"):
        assert [x.challenge for x in find_lessons(lesson_folder, [name])] == ["small"]
    with pytest.raises(LessonError, match="no lesson '02'. There are: 01_small"):
        find_lessons(lesson_folder, ["02"])
    with pytest.raises(LessonError, match="clone of the repository"):
        find_lessons(lesson_folder / "notebooks")


# The build


def test_build_executes_and_is_the_same_every_time(lesson_folder, lesson):
    done = []
    build(lesson, lambda cell, of: done.append((cell, of)))
    first = [path.read_bytes() for path in (lesson.solution, lesson.exercises)]
    solution = nbformat.read(lesson.solution, as_version=4)
    shown = [cell.outputs[0].text for cell in solution.cells if cell.get("outputs")]
    assert shown == ["checked 5\n", "(0, 1)\n"]  # and nothing of the cell tagged drop-output
    assert set(solution.metadata) == {"kernelspec", "language_info"}
    assert done[-1] == (len(solution.cells), len(solution.cells))
    assert out_of_step(lesson_folder) == []
    build(lesson)
    assert [path.read_bytes() for path in (lesson.solution, lesson.exercises)] == first
    assert sorted(path.name for path in lesson_folder.rglob("*") if path.is_file()) == [
        "01_small.ipynb",
        "01_small.ipynb",
        "01_small.py",
        "pyproject.toml",
    ]


WIDGET = "application/vnd.jupyter.widget-view+json"
GAME = f"""
from ipywidgets import Text
view = {{"version_major": 2, "version_minor": 0, "model_id": Text().model_id}}
display({{"text/plain": "a game", "{WIDGET}": view}}, raw=True)
"""


def test_of_a_widget_what_stands_in_its_place_is_stored(lesson):
    edit(lesson.source, "checks.winner(winner)\n", "checks.winner(winner)\n\n# %%" + GAME)
    build(lesson)
    solution = nbformat.read(lesson.solution, as_version=4)
    shown = [output.data for cell in solution.cells for output in cell.get("outputs", []) if "data" in output]
    assert shown == [{"text/plain": "a game"}]
    assert "widgets" not in solution.metadata


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; print('look out', file=sys.stderr)", "writes to standard error:\nlook out"),
        ("import sys; print(sys.prefix + '/lib')", "shows a path of this machine"),
        ("import os; assert not os.environ['EXERCISES_STRICT']", "AssertionError"),
    ],
)
def test_a_build_that_fails_says_where_and_changes_nothing(lesson, line, message):
    lesson.solution.write_text("the old one")
    edit(lesson.source, "checks.winner(winner)\n", "checks.winner(winner)\n\n# %%\n" + line + "\n")
    with pytest.raises(LessonError) as caught:
        build(lesson)
    assert "01_small.py, cell" in str(caught.value)
    assert message in str(caught.value)
    assert lesson.solution.read_text() == "the old one"
    assert not lesson.exercises.exists()


def test_out_of_step_names_each_file(lesson_folder, lesson):
    assert out_of_step(lesson_folder) == [
        "solutions/01_small.ipynb is missing",
        "notebooks/01_small.ipynb is missing",
    ]
    build(lesson)

    def problems_after(path, old, new):
        before = path.read_text(encoding="utf-8")
        edit(path, old, new)
        problems = out_of_step(lesson_folder)
        path.write_text(before, encoding="utf-8")
        assert out_of_step(lesson_folder) == []
        return problems

    assert problems_after(lesson.source, "secret_sum = first + second", "secret_sum = second + first") == [
        "solutions/01_small.ipynb was built from another version of 01_small.py",
        "notebooks/01_small.ipynb is not what 01_small.py gives",
    ]
    assert problems_after(lesson.solution, "first + second", "second + first") == [
        "solutions/01_small.ipynb was built from another version of 01_small.py"
    ]
    assert problems_after(lesson.exercises, "winner = None", "winner = (0, 1)") == [
        "notebooks/01_small.ipynb is not what 01_small.py gives"
    ]
    assert problems_after(lesson.solution, '"execution_count": 3', '"execution_count": null') == [
        "solutions/01_small.ipynb has cells that were never executed"
    ]
    (lesson_folder / "notebooks" / "07_orphan.ipynb").write_text(json.dumps({}))
    assert out_of_step(lesson_folder) == ["notebooks/07_orphan.ipynb has no source solutions/07_orphan.py"]


def test_a_crash_while_writing_leaves_the_old_notebook(tmp_path, disk_fills_up):
    path = tmp_path / "x.ipynb"
    write_notebook(new_notebook(), path)
    before = path.read_bytes()
    disk_fills_up(1)
    with pytest.raises(OSError, match="the disk is full"):
        write_notebook(new_notebook(cells=[new_markdown_cell("new")]), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_picture_looks_the_same_and_loses_bytes():
    """A drawing's colours stay as they are, a colour scale's nearly; what is half transparent is left alone."""
    image = Image.new("RGBA", (300, 200), (255, 255, 255, 255))
    image.paste((10, 20, 30, 255), (5, 5, 40, 20))
    drawing = png(image)
    assert len(smaller_png(drawing)) < len(drawing)
    assert Image.open(io.BytesIO(smaller_png(drawing))).convert("RGBA").tobytes() == image.tobytes()
    for x in range(256):
        image.paste((x, 255 - x // 2, x // 3, 255), (x, 50, x + 1, 100))
        image.paste((255 - x, x // 3, 128, 255), (x, 110, x + 1, 160))
    scales = png(image)
    shown = Image.open(io.BytesIO(smaller_png(scales)))
    assert len(smaller_png(scales)) < len(scales)
    off = ImageStat.Stat(ImageChops.difference(shown.convert("RGB"), image.convert("RGB")))
    assert max(off.mean) < 1
    assert max(high for _, high in off.extrema) <= 4
    image.putpixel((0, 0), (0, 0, 0, 9))
    assert Image.open(io.BytesIO(smaller_png(png(image)))).tobytes() == image.tobytes()


def png(image):
    written = io.BytesIO()
    image.save(written, "PNG", compress_level=1)
    return written.getvalue()
