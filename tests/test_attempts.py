"""What `exercises check` says of notebooks that learners, and worse, hand in."""

import json
from types import SimpleNamespace

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from exercises_utils.checking.progress import CheckList
from exercises_utils.lessons import write_notebook
from exercises_utils.lessons.attempts import NotebookError, challenge_of, read_notebook, run_attempts

# Stands in for a lesson's checks: writes outcomes as `Check` does, without the seconds of importing torch.
SETUP = """
import json, os, time
class Checks:
    def __getattr__(self, exercise):
        def check(answer):
            status, message = answer
            with open(os.environ["EXERCISES_OUTCOMES"], "a") as file:
                file.write(json.dumps({"exercise": exercise, "status": status, "message": message}) + "\\n")
        return check
checks = Checks()
"""
PASSED = "('passed', '')"
FAILED = "('failed', 'transposed')"


@pytest.fixture
def exercises():
    checklist = CheckList("a lesson")
    for name, core in (("one", True), ("two", True), ("three", False)):
        checklist.add(SimpleNamespace(exercise=name, title=name, core=core, checklist=None))
    return checklist


def statuses(exercises, *sources, timeout=60.0):
    notebook = new_notebook(cells=[new_code_cell(source) for source in (SETUP, *sources)])
    return {
        attempt.exercise: (attempt.status, attempt.message)
        for attempt in run_attempts(notebook, exercises, timeout)
    }


def test_outcomes_in_order_and_only_the_latest_counts(exercises):
    found = statuses(
        exercises,
        f"checks.three({PASSED})",
        f"checks.one({FAILED})",
        "checks.two(('not attempted', ''))",
        f"checks.one({PASSED})",
        "checks.unknown(('passed', ''))",
    )
    assert list(found) == ["one", "two", "three"]
    assert [status for status, _ in found.values()] == ["passed", "not attempted", "passed"]


def test_an_exercise_without_an_outcome_says_why(exercises):
    broken = new_code_cell("one = = 3")
    broken.id = "one"
    notebook = new_notebook(
        cells=[
            new_code_cell(SETUP),
            broken,
            new_code_cell("checks.one(one)"),
            new_code_cell("checks.two(two)"),
        ]
    )
    one, two, three = run_attempts(notebook, exercises, 60.0)
    assert one.status == two.status == three.status == "could not be checked"
    assert one.message.startswith("Cell 2 raised SyntaxError")
    assert two.message.startswith("Cell 4 raised NameError: name 'two' is not defined (the first error is in")
    assert "in cell 2: SyntaxError" in two.message
    assert "checks.three(three) is missing" in three.message


@pytest.mark.parametrize(
    ("hostile", "timeout", "message"),
    [
        (
            "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
            1.0,
            "after 1 seconds",
        ),
        ("while True: print('x' * 100_000)", 1.0, "after 1 seconds"),
        ("import os; os._exit(0)", 60.0, "ended the Python process"),
    ],
)
def test_a_run_that_ends_early_keeps_what_came_before(exercises, hostile, timeout, message):
    found = statuses(exercises, f"checks.one({PASSED})", hostile, f"checks.two({PASSED})", timeout=timeout)
    assert found["one"] == ("passed", "")
    assert found["two"][0] == "could not be checked"
    assert "in cell 3" in found["two"][1]
    assert message in found["two"][1]


def test_nonsense_in_the_outcomes_is_skipped(exercises):
    found = statuses(
        exercises,
        f"checks.one({PASSED})",
        "checks.two(('excellent', ''))",
        "open(os.environ['EXERCISES_OUTCOMES'], 'ab').write(b'\\xff[]\\n{\"exercise\"\\n3\\n')",
        "checks = None",
        "checks.three(3) if checks else None",
    )
    assert found["one"] == ("passed", "")
    assert "but the check did not" in found["two"][1]
    assert "but the check did not" in found["three"][1]


def test_asking_for_input_is_an_error_in_its_cell(exercises):
    found = statuses(exercises, "checks.one(input())")
    assert "raised StdinNotImplementedError" in found["one"][1]


def test_the_notebook_runs_in_another_folder(exercises, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    statuses(exercises, "open('left-behind.txt', 'w').write('x')")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"print('hello')",
        b"[]",
        b"{}",
        b'{"cells": 3, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
        b'{"cells": [{"cell_type": "code"}], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
        json.dumps({"nbformat": 99, "cells": []}).encode(),
    ],
)
def test_what_is_no_notebook_is_said_to_be_none(tmp_path, content):
    file = tmp_path / "mine.ipynb"
    file.write_bytes(content)
    with pytest.raises(NotebookError, match="mine.ipynb is not a Jupyter notebook, or is damaged"):
        read_notebook(file)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(NotebookError, match="cannot be read: No such file"):
        read_notebook(tmp_path / "none.ipynb")
    with pytest.raises(NotebookError, match="cannot be read: Is a directory"):
        read_notebook(tmp_path)


def test_the_challenge_is_read_from_the_imports(tmp_path):
    source = "import torch\nfrom exercises_utils.challenges.palindromes import checks, task"
    notebook = new_notebook(cells=[new_markdown_cell("# Mine"), new_code_cell(source)])
    write_notebook(notebook, tmp_path / "renamed.ipynb")
    assert challenge_of(read_notebook(tmp_path / "renamed.ipynb")) == "palindromes"
    with pytest.raises(NotebookError, match="imports the checks of a lesson"):
        challenge_of(new_notebook(cells=[new_markdown_cell(source)]))
