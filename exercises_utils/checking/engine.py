"""Checks of exercises in two halves: collect what the learner's code gives, then judge plain values.

A check is called in a notebook as ``checks.token_circuit(token_circuit)``. It shows one clear line, raises
nothing and changes nothing. `Check.collect` runs the learner's half and returns data that can be pickled;
`Check.judge` compares that data with the truth, so that a grader can run the halves in different processes.

Environment: ``EXERCISES_STRICT=1`` raises `CheckFailed` for anything but "passed";
``EXERCISES_OUTCOMES=path`` appends each outcome to a file as a line of JSON.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import update_wrapper
from typing import Any

from exercises_utils.checking.case import ANYTHING, Case
from exercises_utils.checking.collect import Output, call, collect_value
from exercises_utils.checking.display import FAILED, MARKS, NOT_ATTEMPTED, PASSED, UNCHECKED, show
from exercises_utils.checking.explain import explain, names_of
from exercises_utils.checking.isolation import describe_error, parameter_names, same_process_state
from exercises_utils.checking.progress import CheckList

STRICT_VARIABLE, OUTCOMES_VARIABLE = "EXERCISES_STRICT", "EXERCISES_OUTCOMES"


@dataclass(frozen=True)
class Outcome:
    """What a check found: `status` is "passed", "failed", "not attempted" or "could not be checked"."""

    exercise: str
    status: str
    message: str

    @property
    def passed(self) -> bool:
        """Whether the answer is right."""
        return self.status == PASSED

    def __str__(self) -> str:
        return f"{MARKS[self.status]} {self.status}: `{self.exercise}`. {self.message}".rstrip()


class CheckFailed(AssertionError):
    """Raised in strict mode for every outcome but "passed"."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome


class Check:
    """The check of one exercise; call it with the learner's function or value.

    `cases` makes the cases when the check first runs. `reference` is the course's own answer, which `working`
    hands out where the learner has none: the function itself, or for a value a function of no arguments that
    computes it (without one, the first case's expected value).
    """

    def __init__(
        self,
        exercise: str,
        title: str,
        core: bool,
        cases: Callable[[], Sequence[Case]],
        reference: Callable[..., Any] | None = None,
    ) -> None:
        self.exercise, self.title, self.core = exercise, title, core
        self.reference = reference
        self.checklist: CheckList | None = None
        self._make_cases = cases
        self._cases: tuple[Case, ...] = ()
        self._last: tuple[Any, Outcome] | None = None

    def cases(self) -> tuple[Case, ...]:
        """The cases, made at the first call, which changes neither the random state nor the grad mode."""
        if not self._cases:
            with same_process_state():
                self._cases = tuple(self._make_cases())
            if not self._cases:
                raise ValueError(f"the check {self.exercise!r} has no cases")
        return self._cases

    def __call__(self, answer: Any) -> None:
        """Check the answer, show one line and the progress, and record the outcome."""
        outcome = self.run(answer)
        self._last = (answer, outcome)
        text = str(outcome)
        if self.checklist is not None:
            self.checklist.record(self.exercise, outcome.status)
            text += "\n" + self.checklist.progress_line()
        show(text, outcome.status)
        _append_to_file(outcome)
        if os.environ.get(STRICT_VARIABLE) == "1" and not outcome.passed:
            raise CheckFailed(outcome)

    def run(self, answer: Any) -> Outcome:
        """The outcome for this answer. Shows and records nothing; lets only KeyboardInterrupt through."""
        if isinstance(answer, _CourseVersion) or (callable(answer) and answer is self.reference):
            return self._outcome(NOT_ATTEMPTED, "This is the course's own function; pass your own.")
        try:
            return self.judge(self.collect(answer))
        except Exception as error:
            return self._outcome(
                UNCHECKED,
                f"The check itself stopped with {describe_error(error).rstrip('.')}. Your answer is not to blame: "
                "restart the kernel and run the setup cell; if it happens again, please report it.",
            )

    def collect(self, answer: Any) -> list[Output]:
        """What the learner's answer gives in each case, as plain values that can be pickled.

        Stops after the first case that gives no value. Errors of the learner's code are part of the output;
        errors of the course's own (a model that does not load) are raised.
        """
        outputs: list[Output] = []
        for case in self.cases():
            outputs.append(self._collect_case(case, answer))
            if outputs[-1].error or outputs[-1].not_attempted:
                break
        return outputs

    def _collect_case(self, case: Case, answer: Any) -> Output:
        if callable(answer):
            return call(case, answer, self.parameter_names())
        return collect_value(case, self.exercise, answer)

    def parameter_names(self) -> list[str]:
        """The names of the parameters that the learner's function should have, where they are known."""
        return parameter_names(self.reference) if self.reference else []

    def judge(self, outputs: Sequence[Output]) -> Outcome:
        """The outcome for what `collect` returned; looks at plain values only."""
        cases = self.cases()[: len(outputs)]
        if not outputs or [output.case for output in outputs] != [case.name for case in cases]:
            raise ValueError(f"the outputs are not those of the cases of {self.exercise!r}, in their order")
        last = outputs[-1]
        if last.not_attempted:
            return self._outcome(NOT_ATTEMPTED, last.not_attempted)
        for output in outputs:
            if output.side_effects:
                return self._outcome(FAILED, output.side_effects[0])
        whole = outputs[:-1] if last.error else outputs
        if found := explain(cases[: len(whole)], [output.value for output in whole], last.facts):
            return self._outcome(FAILED, found.message)
        if last.error:
            where = (
                [f"This is on {last.case}; right on {names_of(cases[:-1])}.", *last.facts] if whole else []
            )
            return self._outcome(FAILED, " ".join([last.error, *where]))
        if len(outputs) < len(self.cases()):
            raise ValueError(
                f"{len(outputs)} outputs came for the {len(self.cases())} cases of {self.exercise!r}"
            )
        return self._outcome(PASSED, self.praise(outputs))

    def praise(self, outputs: Sequence[Output]) -> str:
        """What to say to a right answer."""
        return f"Right in all {len(outputs)} cases." if len(outputs) > 1 else ""

    def _outcome(self, status: str, message: str) -> Outcome:
        return Outcome(self.exercise, status, message)

    def working(self, answer: Any) -> Any:
        """The learner's answer if it passes, otherwise the course's own, so that later cells can go on.

        An answer that this check has just judged is not judged again. Where the course's version is used, one
        line says so.
        """
        outcome = self._last[1] if self._last is not None and self._last[0] is answer else self.run(answer)
        if outcome.passed:
            return answer
        show(f"`{self.exercise}`: from here on with the course's version (yours: {outcome.status}).")
        return self.course_version()

    def course_version(self) -> Any:
        """The course's own answer. A function is marked, so that no check takes it for the learner's."""
        first = self.cases()[0]
        if self.reference is not None:
            return _CourseVersion(self.reference) if first.arguments else self.reference()
        if first.arguments or first.expected is ANYTHING:
            raise ValueError(f"the check {self.exercise!r} has no reference to go on with")
        return first.expected


class _CourseVersion:
    """A function of the course, marked as such."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        update_wrapper(self, function)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.function(*arguments, **named)


def _append_to_file(outcome: Outcome) -> None:
    """Add the outcome to the file that EXERCISES_OUTCOMES names; say so where it cannot be written."""
    path = os.environ.get(OUTCOMES_VARIABLE)
    if not path:
        return
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(outcome), ensure_ascii=False) + "\n")
    except OSError as error:
        print(
            f"The outcome of {outcome.exercise!r} could not be written to {path!r}: {error}", file=sys.stderr
        )
