"""Which exercises of a lesson are solved in this notebook, and which one is next."""

from collections.abc import Iterator
from typing import Protocol, TypeVar, runtime_checkable

from exercises_utils.checking.display import MARKS, NOT_ATTEMPTED, PASSED, show


@runtime_checkable
class Exercise(Protocol):
    """What the list needs to know of a check."""

    exercise: str
    title: str
    core: bool
    checklist: "CheckList | None"


AnyExercise = TypeVar("AnyExercise", bound=Exercise)


class CheckList:
    """A lesson's exercises in their order, with what came of each in this kernel."""

    def __init__(self, lesson: str) -> None:
        self.lesson = lesson
        self.exercises: dict[str, Exercise] = {}
        self.statuses: dict[str, str] = {}

    def add(self, check: AnyExercise) -> AnyExercise:
        """The same check, now part of this list; the order of definition is the order of the lesson."""
        if check.exercise in self.exercises:
            raise ValueError(f"the lesson {self.lesson!r} already has an exercise named {check.exercise!r}")
        self.exercises[check.exercise] = check
        check.checklist = self
        return check

    def __iter__(self) -> Iterator[Exercise]:
        return iter(self.exercises.values())

    def record(self, exercise: str, status: str) -> None:
        """Keep the latest status of an exercise."""
        self.statuses[exercise] = status

    def is_solved(self, exercise: str) -> bool:
        """Whether the latest check of this exercise passed."""
        return self.statuses.get(exercise) == PASSED

    def next_exercise(self) -> Exercise | None:
        """The first unsolved exercise of the core; after the core, the first unsolved optional one."""
        open_ones = [exercise for exercise in self if not self.is_solved(exercise.exercise)]
        return next((e for e in open_ones if e.core), open_ones[0] if open_ones else None)

    def progress_line(self) -> str:
        """One line, such as "4 of 13 solved (core 3 of 7). Next: `position_circuit`."."""
        core = [exercise for exercise in self if exercise.core]
        solved = sum(self.is_solved(e.exercise) for e in self)
        solved_core = sum(self.is_solved(e.exercise) for e in core)
        counts = f"{solved} of {len(self.exercises)} solved (core {solved_core} of {len(core)})."
        upcoming = self.next_exercise()
        if upcoming is None:
            return f"{counts} All done."
        if solved_core == len(core) and core:
            return f"{counts} The core is done. Next, if you like: `{upcoming.exercise}`."
        return f"{counts} Next: `{upcoming.exercise}`."

    def progress(self) -> None:
        """Show every exercise of the lesson with its state, and the line that says what is next."""
        lines = [
            f"{MARKS[self.statuses.get(e.exercise, NOT_ATTEMPTED)]} `{e.exercise}`: {e.title}"
            + ("" if e.core else " (optional)")
            for e in self
        ]
        show("\n".join([*lines, self.progress_line()]))
