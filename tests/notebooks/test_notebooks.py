"""The lessons as they are in the repository. Their outputs are compared by nbval: `make regression`."""

import json
import re
from importlib import import_module
from pathlib import Path

import nbformat
import pytest

from exercises_utils.lessons import exercise_notebook, find_lessons, out_of_step, read_source
from exercises_utils.lessons.running import environment, run_notebook

ROOT = Path(__file__).parent.parent.parent
LESSONS = pytest.mark.parametrize("lesson", find_lessons(ROOT), ids=lambda lesson: lesson.name)


def test_notebooks_are_in_step_with_their_sources():
    problems = out_of_step(ROOT)
    assert problems == [], "run `make build`"


@LESSONS
def test_exercises_and_checks_are_the_same_list(lesson):
    checks = import_module(f"exercises_utils.challenges.{lesson.challenge}.checks").CHECKS
    cells = [c for c in read_source(lesson).cells if c.metadata.get("nbgrader", {}).get("solution")]
    assert [cell.metadata["nbgrader"]["grade_id"] for cell in cells] == [e.exercise for e in checks]


@LESSONS
def test_an_untouched_notebook_runs_to_its_end(lesson, tmp_path):
    """Every exercise can be skipped: each says "not attempted", and no cell raises."""
    notebook = exercise_notebook(read_source(lesson))
    outcomes = tmp_path / "outcomes.jsonl"
    run_notebook(notebook, tmp_path, environment(EXERCISES_OUTCOMES=str(outcomes)))
    records = [json.loads(line) for line in outcomes.read_text(encoding="utf-8").splitlines()]
    checks = import_module(f"exercises_utils.challenges.{lesson.challenge}.checks").CHECKS
    assert {r["exercise"]: r["status"] for r in records} == {e.exercise: "not attempted" for e in checks}
    noise = [o for cell in notebook.cells for o in cell.get("outputs", []) if o.get("name") == "stderr"]
    assert noise == []


@LESSONS
def test_every_figure_has_a_picture_beside_it(lesson):
    for cell in nbformat.read(lesson.solution, as_version=4).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            assert "application/vnd.plotly.v1+json" not in data or "image/png" in data, cell.id


@LESSONS
def test_github_shows_all_of_it(lesson):
    """GitHub and its like draw small files only, and no output that needs trust: scripts are left out of the page."""
    for path in (lesson.exercises, lesson.solution):
        assert path.stat().st_size <= 2_000_000, (
            f"{path.name}: see `smaller_png` in exercises_utils/lessons/building.py"
        )
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                assert "application/javascript" not in data, cell.id
                html = "".join(data.get("text/html", ""))
                assert not re.search(r"<script|<iframe|javascript:|\son\w+\s*=", html, re.IGNORECASE), cell.id
