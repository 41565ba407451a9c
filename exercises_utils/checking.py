"""Checks of exercises in two halves: collect what the learner's code gives, then judge plain values.

A check is called in a notebook as ``checks.token_circuit(token_circuit)``. It shows one clear line, raises
nothing and changes nothing. `Check.collect` runs the learner's half and returns data that can be pickled;
`Check.judge` compares that data with the truth, so that a grader can run the halves in different processes.

Environment: ``EXERCISES_STRICT=1`` raises `CheckFailed` for anything but "passed";
``EXERCISES_OUTCOMES=path`` appends each outcome to a file as a line of JSON.
"""

import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from exercises_utils.diagnosis import (
    Numbers,
    convert,
    kind,
    number_problem,
    other_problem,
    same,
    shape_problem,
    type_problem,
    wanted,
)
from exercises_utils.display import show_html
from exercises_utils.isolation import (
    Fresh,
    UnusualValue,
    copy_of,
    describe_error,
    fingerprint,
    innermost_frame,
    is_blank,
    is_learners_code,
    parameter_names,
    plain,
    same_process_state,
    side_effects,
)
from exercises_utils.progress import CheckList

__all__ = ["ANYTHING", "Case", "Check", "CheckFailed", "CheckList", "Fresh", "Outcome", "Output", "Question"]

PASSED, FAILED, NOT_ATTEMPTED, UNCHECKED = "passed", "failed", "not attempted", "could not be checked"
MARKS = {PASSED: "✓", FAILED: "✗", NOT_ATTEMPTED: "○", UNCHECKED: "?"}
STRICT_VARIABLE, OUTCOMES_VARIABLE = "EXERCISES_STRICT", "EXERCISES_OUTCOMES"


class _Anything:
    """Expected by a case that leaves the judgement to its `requires`."""

    def __repr__(self) -> str:
        return "ANYTHING"


ANYTHING = _Anything()


@dataclass(frozen=True)
class Case:
    """One call of the learner's function, or one comparison of the learner's value, and what is right.

    `name` reads after "on": "the lesson's model", "a random model with 3 heads". `arguments` are passed by
    position; a `Fresh` among them stands for the object that its factory makes. Without arguments, the answer
    is a value (or a function of no arguments). `axes` names the axes of an expected tensor, or the items of
    an expected tuple. `mistakes` maps a message to the wrong value that a mistake gives; the same message in
    several cases is one mistake, and must explain all of them. `atol` and `rtol` are in the answer's unit and
    relative; by default 1e-5 of the largest expected number, and 1e-4. With `requires`, which returns a
    message for a wrong value and None for a right one, several answers are right: `expected` then only
    shows the type and shape, and may be left out.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    expected: Any = ANYTHING
    axes: tuple[str, ...] | None = None
    mistakes: Mapping[str, Any] = field(default_factory=dict)
    atol: float | None = None
    rtol: float | None = None
    requires: Callable[[Any], str | None] | None = None

    def __post_init__(self) -> None:
        if self.expected is ANYTHING and self.requires is None:
            raise ValueError(
                f"the case {self.name!r} has neither `expected` nor `requires`: it would accept anything"
            )


@dataclass(frozen=True)
class Output:
    """What the learner's half gave for one case: a plain value, or why there is none."""

    case: str
    value: Any = None
    error: str | None = None
    not_attempted: str | None = None
    side_effects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a check found: `status` is "passed", "failed", "not attempted" or "could not be checked"."""

    exercise: str
    status: str
    message: str
    core: bool = True
    hint: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the answer is right."""
        return self.status == PASSED

    def __str__(self) -> str:
        line = f"{MARKS[self.status]} {self.status}: `{self.exercise}`. {self.message}".rstrip()
        return f"{line} Hint: {self.hint}" if self.hint and self.status == FAILED else line


class CheckFailed(AssertionError):
    """Raised in strict mode for every outcome but "passed"."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome


class Check:
    """The check of one exercise; call it with the learner's function or value.

    `cases` is called once, when the check first runs. `reference` is the course's own answer, which `working`
    hands out where the learner has none: the function, or for a value a function of no arguments that computes
    it (by default the first case's expected value). `hint` is shown with every failure.
    """

    def __init__(
        self,
        exercise: str,
        title: str,
        core: bool,
        cases: Callable[[], Sequence[Case]],
        reference: Callable[..., Any] | None = None,
        hint: str | None = None,
    ) -> None:
        self.exercise, self.title, self.core, self.hint = exercise, title, core, hint
        self.reference = reference
        self.checklist: CheckList | None = None
        self._make_cases = cases
        self._cases: tuple[Case, ...] = ()
        self._last: tuple[Any, Outcome] | None = None

    def cases(self) -> tuple[Case, ...]:
        """The cases, computed at the first call without touching the random state or the grad mode."""
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
        if self.checklist is not None:
            self.checklist.record(self.exercise, outcome.status)
        text = str(outcome) if self.checklist is None else f"{outcome}\n{self.checklist.progress_line()}"
        show_html(text, outcome.status)
        _append(outcome)
        if os.environ.get(STRICT_VARIABLE) == "1" and not outcome.passed:
            raise CheckFailed(outcome)

    def run(self, answer: Any) -> Outcome:
        """The outcome for this answer; raises nothing but KeyboardInterrupt, and shows nothing."""
        if _is_course_version(answer) or (self.reference is not None and answer is self.reference):
            return self._outcome(
                NOT_ATTEMPTED, "This is the course's own function; pass the one that you wrote."
            )
        try:
            return self.judge(self.collect(answer))
        except Exception as error:
            return self._outcome(
                UNCHECKED,
                f"The check itself stopped with {describe_error(error)}. This is not your answer's fault: restart the "
                "kernel and run the setup cell; if it stays, please report it.",
            )

    def collect(self, answer: Any) -> list[Output]:
        """What the learner's answer gives in each case, as plain values that can be pickled.

        Stops at the first case that gives no value. Errors of the learner's function become part of the
        output; errors of the course's own code (a model that does not load) are raised.
        """
        outputs: list[Output] = []
        for case in self.cases():
            output = self._collect_case(case, answer)
            outputs.append(output)
            if output.error or output.not_attempted:
                break
        return outputs

    def _collect_case(self, case: Case, answer: Any) -> Output:
        if _is_placeholder(answer):
            return Output(case.name, not_attempted="Write your answer and run this cell again.")
        if not callable(answer):
            if case.arguments:
                return Output(case.name, error=f"{_not_a_function(plain(answer), self.exercise)}")
            return Output(case.name, plain(answer))
        with same_process_state():
            arguments = [a.get() if isinstance(a, Fresh) else copy_of(a) for a in case.arguments]
            before = [fingerprint(argument) for argument in arguments]
        if problem := self._signature_problem(answer, len(arguments)):
            return Output(case.name, error=problem)
        value, error, not_attempted = None, None, None
        try:
            with same_process_state():
                value = answer(*arguments)
                if value is None or value is Ellipsis or value is NotImplemented:
                    if is_blank(answer) or value is not None:
                        not_attempted = "Write your answer and run this cell again."
                    else:
                        error = "Your function returns None: is a `return` missing?"
                else:
                    value = plain(value)
        except NotImplementedError as problem_raised:
            not_attempted, error = _who_is_missing(problem_raised, answer)
        except (Exception, SystemExit) as problem_raised:
            error = f"Your code raised {describe_error(problem_raised)}."
        finally:
            effects = side_effects(parameter_names(answer), before, arguments)
            for wrapped, earlier, argument in zip(case.arguments, before, arguments, strict=True):
                if isinstance(wrapped, Fresh) and fingerprint(argument) != earlier:
                    wrapped.discard()
        return Output(case.name, value, error, not_attempted, tuple(effects))

    def _signature_problem(self, answer: Callable[..., Any], count: int) -> str | None:
        """What is wrong with the parameters of a function that gets `count` arguments, or None."""
        try:
            inspect.signature(answer).bind(*range(count))
        except TypeError:
            names = parameter_names(self.reference) if self.reference else []
            expected = f"({', '.join(names)})" if len(names) == count else f"{count} arguments"
            return f"Your function takes ({', '.join(parameter_names(answer))}); it must take {expected}."
        except ValueError:  # a built-in function whose signature Python cannot read
            return None
        return None

    def judge(self, outputs: Sequence[Output]) -> Outcome:
        """The outcome for what `collect` returned; looks at plain values only."""
        cases = self.cases()
        for case, output in zip(cases, outputs, strict=False):
            if output.not_attempted:
                return self._outcome(NOT_ATTEMPTED, output.not_attempted)
            if output.error:
                first = output is outputs[0]
                return self._outcome(
                    FAILED, output.error if first else f"{output.error} This is on {case.name}."
                )
        if len(outputs) != len(cases) or any(o.case != c.name for o, c in zip(outputs, cases, strict=False)):
            raise ValueError(
                f"{len(outputs)} outputs came for {len(cases)} cases of {self.exercise!r}, or in another order"
            )
        for output in outputs:
            if output.side_effects:
                return self._outcome(FAILED, output.side_effects[0])
        problem = explain(cases, [output.value for output in outputs])
        return self._outcome(FAILED, problem) if problem else self._outcome(PASSED, self.praise(outputs))

    def praise(self, outputs: Sequence[Output]) -> str:
        """What a right answer was compared with."""
        if len(outputs) == 1:
            return ""
        return f"Right in all {len(outputs)} cases."

    def _outcome(self, status: str, message: str) -> Outcome:
        return Outcome(self.exercise, status, message, self.core, self.hint)

    def working(self, answer: Any) -> Any:
        """The learner's answer if it passes, otherwise the course's own, so that later cells have what they need.

        An answer that was just checked is not checked again. Says so in one line where the course's version is used.
        """
        outcome = self._last[1] if self._last is not None and self._last[0] is answer else self.run(answer)
        if outcome.passed:
            return answer
        show_html(f"`{self.exercise}`: using the course's version from here on (yours: {outcome.status}).")
        return self.course_version()

    def course_version(self) -> Any:
        """The course's own answer; a function is marked, so that a check does not take it for the learner's."""
        first = self.cases()[0]
        if self.reference is None:
            if first.arguments or first.expected is ANYTHING:
                raise ValueError(f"the check {self.exercise!r} has no reference to go on with")
            return first.expected
        return _CourseVersion(self.reference) if first.arguments else self.reference()


class _CourseVersion:
    """A function of the course, marked as such."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__name__ = getattr(function, "__name__", "course_version")
        self.__doc__ = function.__doc__

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.function(*arguments, **named)

    def __repr__(self) -> str:
        return f"<the course's version of {self.__name__}>"


def _is_course_version(answer: Any) -> bool:
    return isinstance(answer, _CourseVersion)


def _is_placeholder(answer: Any) -> bool:
    """Whether nobody has written an answer yet: None, `...`, or a tuple or list of these."""
    if isinstance(answer, tuple | list):
        return bool(answer) and all(_is_placeholder(item) for item in answer)
    return answer is None or answer is Ellipsis or answer is NotImplemented


def _not_a_function(value: Any, exercise: str) -> str:
    return f"Pass the function itself, without brackets: `{exercise}`; {kind(value)} came."


def _who_is_missing(error: NotImplementedError, answer: Callable[..., Any]) -> tuple[str | None, str | None]:
    """Whether a NotImplementedError is the stub's own, another stub's, or a library's: (not attempted, error)."""
    frame = innermost_frame(error)
    if frame is None or not is_learners_code(frame.f_code.co_filename):
        return None, f"Your code raised {describe_error(error)}."
    own_code = getattr(inspect.unwrap(answer), "__code__", None)
    if own_code is None or frame.f_code is own_code:
        return "Write your answer and run this cell again.", None
    return f"Your function calls `{frame.f_code.co_name}`, which is still to be written.", None


def explain(cases: Sequence[Case], values: Sequence[Any]) -> str | None:
    """What is wrong with the values of these cases, in one message with the likely cause; None if all are right."""
    values = [convert(value, case.expected) for case, value in zip(cases, values, strict=True)]
    failing = [i for i, case in enumerate(cases) if not _is_right(case, values[i])]
    if not failing:
        return None
    first = failing[0]
    case, value = cases[first], values[first]
    if named := _named_mistake(cases, values):
        return named
    where = _where(cases, failing)
    if _is_placeholder(value):
        return f"{where}Nothing was returned."
    if case.expected is not ANYTHING:
        if problem := type_problem(value, case.expected, case.axes):
            return where + problem
        if isinstance(case.expected, Tensor) and (problem := shape_problem(value, case.expected, case.axes)):
            return where + problem
    if case.requires is not None:
        return where + str(case.requires(value))
    if same_everywhere := _ignores_arguments(cases, values):
        return same_everywhere
    if not isinstance(case.expected, Tensor):
        return where + _part_problem(value, case)
    pairs = [_numbers(cases[i], values[i]) for i in failing if _comparable(cases[i], values[i])]
    return where + number_problem(pairs) + _precision_note(value)


def _part_problem(value: Any, case: Case) -> str:
    """The problem of an answer that is not a tensor; of its first wrong tensor, if it has tensors inside."""
    expected = case.expected
    if isinstance(expected, tuple | list | dict):
        keys = list(expected) if isinstance(expected, dict) else range(len(expected))
        for i, key in enumerate(keys):
            part = expected[key]
            if isinstance(part, Tensor) and not same(value[key], part, case.atol, case.rtol):
                name = case.axes[i] if case.axes and len(case.axes) == len(expected) else repr(key)
                inner = Case(f"{name}", (), part, None, {}, case.atol, case.rtol)
                return f"In `{name}`: {explain([inner], [value[key]])}"
    return other_problem(value, expected, case.axes)


def _is_right(case: Case, value: Any) -> bool:
    if case.requires is None:
        return same(value, case.expected, case.atol, case.rtol)
    if case.expected is not ANYTHING:
        if type_problem(value, case.expected, case.axes):
            return False
        if isinstance(case.expected, Tensor) and shape_problem(value, case.expected, case.axes):
            return False
    return not isinstance(value, UnusualValue) and case.requires(value) is None


def _named_mistake(cases: Sequence[Case], values: Sequence[Any]) -> str | None:
    """The message of a named mistake that explains every case which has it."""
    for message in dict.fromkeys(message for case in cases for message in case.mistakes):
        matched = False
        for case, value in zip(cases, values, strict=True):
            right = _is_right(case, value)
            if message not in case.mistakes:
                if right:
                    continue
                break
            wrong = case.mistakes[message]
            if same(convert(value, wrong), wrong, case.atol, case.rtol) and not right:
                matched = True
            elif not (
                right and case.expected is not ANYTHING and same(wrong, case.expected, case.atol, case.rtol)
            ):
                break
        else:
            if matched:
                return message
    return None


def _where(cases: Sequence[Case], failing: Sequence[int]) -> str:
    """Which case a message is about, and that others were right; nothing where there is only one case."""
    if len(cases) == 1:
        return ""
    if failing[0] == 0:
        return f"On {cases[0].name}: "
    return (
        f"Right on {cases[0].name}, wrong on {cases[failing[0]].name} (is a number or a size fixed in the code, or "
        "something taken from the notebook instead of the arguments?): "
    )


def _ignores_arguments(cases: Sequence[Case], values: Sequence[Any]) -> str | None:
    """A message if the answer is the same in all cases although the expected one differs between them."""
    if len(cases) < 2 or any(case.requires is not None for case in cases):
        return None
    if all(same(case.expected, cases[0].expected) for case in cases[1:]):
        return None
    if not all(_same_kind(value, values[0]) and same(value, values[0]) for value in values[1:]):
        return None
    return "Your function gives the same answer in every case, whatever its arguments are. Does it use all of them?"


def _same_kind(value: Any, other: Any) -> bool:
    return type(value) is type(other)


def _comparable(case: Case, value: Any) -> bool:
    return (
        isinstance(value, Tensor) and isinstance(case.expected, Tensor) and value.shape == case.expected.shape
    )


def _numbers(case: Case, value: Tensor) -> Numbers:
    return Numbers(value, case.expected, case.axes, case.atol, case.rtol)


def _precision_note(value: Tensor) -> str:
    if value.is_floating_point() and value.element_size() < 4:
        return f" (It is in {str(value.dtype).removeprefix('torch.')}, which keeps about three digits; compute in float32.)"
    return ""


def _append(outcome: Outcome) -> None:
    """Add the outcome to the file that EXERCISES_OUTCOMES names; a file that cannot be written is only reported."""
    path = os.environ.get(OUTCOMES_VARIABLE)
    if not path:
        return
    record = {key: getattr(outcome, key) for key in ("exercise", "status", "message", "core")}
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    except OSError as error:
        print(
            f"the outcome of {outcome.exercise!r} could not be written to {path!r}: {error}", file=sys.stderr
        )


class Question(Check):
    """A multiple-choice question; call it with the letter of an option, such as ``"b"``.

    `options` maps each letter to the option's text and to why it is right or wrong, which is shown for
    the option that was chosen. `answer` is the right letter, or a function that computes it.
    """

    def __init__(
        self,
        exercise: str,
        title: str,
        core: bool,
        options: Mapping[str, tuple[str, str]],
        answer: str | Callable[[], str],
    ) -> None:
        self.options = {letter.lower(): option for letter, option in options.items()}

        def cases() -> list[Case]:
            right = answer() if callable(answer) else answer
            if right not in self.options:
                raise ValueError(
                    f"the answer {right!r} of {exercise!r} is none of its options {list(self.options)}"
                )
            return [Case("the question", expected=right, requires=self._refuse(right))]

        super().__init__(exercise, title, core, cases)

    def letter(self, value: Any) -> Any:
        """The letter that was meant: `" B "`, `"(b)"` and `"b."` are all `"b"`."""
        return value.strip().strip("().").strip().lower() if isinstance(value, str) else value

    def _refuse(self, right: str) -> Callable[[Any], str | None]:
        def refuse(value: Any) -> str | None:
            letter = self.letter(value)
            if letter not in self.options:
                return f"Choose one of the letters {', '.join(map(repr, self.options))}; {kind(value)} came."
            if letter == right:
                return None
            text, why = self.options[letter]
            return f"({letter}) {text}: {why}"

        return refuse

    def _collect_case(self, case: Case, answer: Any) -> Output:
        if isinstance(answer, str) and not answer.strip():
            answer = None
        if callable(answer):
            return Output(case.name, UnusualValue(type(answer).__name__))
        return super()._collect_case(case, answer)

    def praise(self, outputs: Sequence[Output]) -> str:
        """Why the right option is right."""
        letter = self.letter(outputs[0].value)
        return f"({letter}) {self.options[letter][1]}"
