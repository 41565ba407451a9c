import os
from collections.abc import Callable
from pathlib import Path

import pytest

LESSON = '''\
# %% [markdown]
# # 01 · A lesson for the tests

# %% [markdown]
# ## Setup

# %%
from types import SimpleNamespace

checks = SimpleNamespace(total=lambda answer: print("checked", answer(2, 3)), winner=print)

# %% nbgrader={"grade_id": "total", "solution": true, "grade": false, "locked": false, "schema_version": 3}
def total(first: int, second: int) -> int:
    """The sum of two numbers."""
    # Given to everybody.
    ### BEGIN SOLUTION
    secret_sum = first + second
    return secret_sum
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_total", "solution": false, "grade": true, "points": 1, "locked": true, "schema_version": 3}
checks.total(total)

# %% nbgrader={"grade_id": "winner", "solution": true, "grade": false, "locked": false, "schema_version": 3}
### BEGIN SOLUTION
secret_scores = {(0, 1): 0.9, (1, 0): 0.2}
winner: tuple[int, int] = max(secret_scores, key=secret_scores.get)
### END SOLUTION

# %% nbgrader={"grade_id": "check_winner", "solution": false, "grade": true, "points": 1, "locked": true, "schema_version": 3}
checks.winner(winner)

# %% [markdown] tags=["solution-only"]
# The secret is out: it is head 0.1.

# %% tags=["drop-output"]
print("an interactive figure")
'''  # noqa: E501

PYPROJECT = """\
[project]
name = "small-course"
version = "1.2.3"

# The address.
[project.urls]
Repository = "https://github.com/ADDRESS-NOT-SET/small-course"
"""


@pytest.fixture
def lesson_folder(tmp_path: Path) -> Path:
    """A repository with one small lesson, not yet built."""
    (tmp_path / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions" / "01_small.py").write_text(LESSON, encoding="utf-8")
    return tmp_path


@pytest.fixture
def disk_fills_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[Path]]:
    """Lets the n-th file fail that is put in its place; gives the list of all that were to be put there."""

    def fails_at(n: int) -> list[Path]:
        real, calls = os.replace, []

        def replace(source: str, target: Path) -> None:
            calls.append(target)
            if len(calls) == n:
                raise OSError("the disk is full")
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
        return calls

    return fails_at
