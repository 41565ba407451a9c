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
from dataclasses import asdict, dataclass, field
from functools import update_wrapper
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from exercises_utils.checking.diagnosis import (
    Numbers,
    cause,
    how_far,
    parts,
    shape_problem,
    together,
    type_problem,
    wrong_value,
)
from exercises_utils.checking.display import FAILED, MARKS, NOT_ATTEMPTED, PASSED, UNCHECKED, show
from exercises_utils.checking.isolation import (
    Fresh,
    copy_of,
    describe_error,
    fingerprint,
    innermost_frame,
    is_blank,
    is_learners_code,
    parameter_names,
    same_process_state,
    side_effects,
)
from exercises_utils.checking.progress import CheckList
from exercises_utils.checking.values import UnusualValue, convert, kind, plain, same

__all__ = ["ANYTHING", "Case", "Check", "CheckFailed", "CheckList", "Fresh", "Outcome", "Output", "Question"]

STRICT_VARIABLE, OUTCOMES_VARIABLE = "EXERCISES_STRICT", "EXERCISES_OUTCOMES"
WRITE_IT = "Write your answer and run this cell again."
HARD_CODED = " Is a number fixed in the code, or something used from the notebook that is no argument?"


class _Anything:
    """Expected by a case that leaves the judgement to its `requires`."""

    def __repr__(self) -> str:
        return "ANYTHING"


ANYTHING = _Anything()


@dataclass(frozen=True)
class Case:
    """One call of the learner's function, or one look at the learner's value, and what is right.

    - `name` reads after "on": "the lesson's model", "a random model with 3 heads".
    - `arguments` are passed by position; a `Fresh` stands for what its factory makes. Without arguments, the
      answer is a value (or a function of no arguments).
    - `axes` names the axes of an expected tensor, or the items of an expected tuple.
    - `mistakes` maps a message to the wrong value that a mistake gives, or to a function of no arguments that
      computes it. The same message in several cases is one mistake, and has to explain all of them.
    - `atol` is in the answer's own unit and `rtol` relative to each number; by default 1e-5 of the largest
      expected number, and 1e-4.
    - `requires` is for answers of which several are right: it returns a message for a wrong value, None for
      a right one. `expected` then shows only the type and the shape, and may be left out.
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
        if self.expected is not ANYTHING:
            object.__setattr__(self, "expected", plain(self.expected))
        elif self.requires is None:
            raise ValueError(
                f"the case {self.name!r} has neither `expected` nor `requires`: anything would pass"
            )

    def wrong_value(self, message: str) -> Any:
        """The value that the mistake with this message gives."""
        wrong = self.mistakes[message]
        return plain(wrong() if callable(wrong) else wrong)

    def is_right(self, value: Any) -> bool:
        """Whether a converted value is right."""
        if self.requires is None:
            return same(value, self.expected, self.atol, self.rtol)
        return self.form_problem(value) is None and self.requires(value) is None

    def form_problem(self, value: Any) -> str | None:
        """What is wrong with the type or the shape of a converted value."""
        if self.expected is ANYTHING:
            if isinstance(value, UnusualValue):
                return f"Expected a plain value, such as numbers, texts or a tensor; {kind(value)} came."
            return None
        if problem := type_problem(value, self.expected, self.axes):
            return problem
        if isinstance(self.expected, Tensor):
            return shape_problem(value, self.expected, self.axes)
        return None


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
        if _is_placeholder(answer):
            return Output(case.name, not_attempted=WRITE_IT)
        if callable(answer):
            return self._call(case, answer)
        if case.arguments:
            message = (
                f"Pass the function itself, without brackets: `checks.{self.exercise}({self.exercise})`; "
            )
            return Output(case.name, error=f"{message}{kind(plain(answer))} came.")
        return Output(case.name, plain(answer))

    def _call(self, case: Case, answer: Callable[..., Any]) -> Output:
        if problem := self._signature_problem(answer, len(case.arguments)):
            return Output(case.name, error=problem)
        with same_process_state():
            arguments = [a.get() if isinstance(a, Fresh) else copy_of(a) for a in case.arguments]
            before = [fingerprint(argument) for argument in arguments]
        value, error, not_attempted = None, None, None
        effects: dict[int, str] = {}
        try:
            with same_process_state():
                value = answer(*arguments)
                if _is_placeholder(value) and (value is not None or is_blank(answer)):
                    not_attempted = WRITE_IT
                elif value is None:
                    error = "Your function returns None: is a `return` missing?"
                value = plain(value)
        except NotImplementedError as raised:
            not_attempted, error = _what_is_missing(raised, answer)
        except (Exception, SystemExit) as raised:
            error = f"Your code raised {describe_error(raised)}."
        finally:
            effects = side_effects(parameter_names(answer), before, arguments)
            for i in effects:
                if isinstance(wrapped := case.arguments[i], Fresh):
                    wrapped.discard()
        return Output(case.name, value, error, not_attempted, tuple(effects.values()))

    def _signature_problem(self, answer: Callable[..., Any], count: int) -> str | None:
        """What is wrong with the parameters of a function that is called with `count` arguments, or None."""
        wanted_names = parameter_names(self.reference) if self.reference else []
        names = parameter_names(answer)
        wanted = f"({', '.join(wanted_names)})" if len(wanted_names) == count else f"{count} arguments"
        if names != wanted_names and sorted(names) == sorted(wanted_names):
            return f"Your function takes ({', '.join(names)}); the order must be {wanted}."
        try:
            inspect.signature(answer).bind(*range(count))
        except TypeError:
            return f"Your function takes ({', '.join(names)}); it must take {wanted}."
        except ValueError:  # a built-in function, whose parameters Python cannot tell
            return None
        return None

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
        names = parameter_names(self.reference) if self.reference else []
        if problem := explain(cases[: len(whole)], [output.value for output in whole], names):
            return self._outcome(FAILED, problem)
        if last.error:
            where = f" This is on {last.case}; right on {_names(cases[:-1])}.{HARD_CODED}" if whole else ""
            return self._outcome(FAILED, last.error + where)
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


def _is_placeholder(answer: Any) -> bool:
    """Whether nobody has written an answer yet: None, `...`, or a tuple or list of these."""
    if isinstance(answer, tuple | list):
        return bool(answer) and all(_is_placeholder(item) for item in answer)
    return answer is None or answer is Ellipsis or answer is NotImplemented


def _what_is_missing(error: NotImplementedError, answer: Callable[..., Any]) -> tuple[str | None, str | None]:
    """Whose the error is, as (not attempted, error): the stub's own, another stub's, or a library's."""
    frame = innermost_frame(error)
    if frame is None or not is_learners_code(frame.f_code.co_filename):
        return None, f"Your code raised {describe_error(error)}."
    own_code = getattr(inspect.unwrap(answer), "__code__", None)
    if own_code is None or frame.f_code is own_code:
        return WRITE_IT, None
    return f"Your function calls `{frame.f_code.co_name}`, which is still to be written.", None


def explain(cases: Sequence[Case], values: Sequence[Any], names: Sequence[str] = ()) -> str | None:
    """What is wrong with the values of these cases, with the likely cause; None if nothing is.

    `names` are those of the function's parameters, if they are known.
    """
    values = [convert(value, case.expected) for case, value in zip(cases, values, strict=True)]
    failing = [i for i, case in enumerate(cases) if not case.is_right(values[i])]
    if not failing:
        return None
    if message := _named_mistake(cases, values):
        return message
    case, value = cases[failing[0]], values[failing[0]]
    if problem := case.form_problem(value):
        return problem + _where(cases, failing)
    if case.requires is not None:
        return f"{case.requires(value)}{_where(cases, failing)}"
    if problem := _ignores_arguments(cases, values, names):
        return problem
    tensors = [
        Numbers(values[i], cases[i].expected, cases[i].axes, cases[i].atol, cases[i].rtol)
        for i in failing
        if isinstance(cases[i].expected, Tensor) and cases[i].form_problem(values[i]) is None
    ]
    if tensors:
        if reason := cause(tensors):
            return reason + _where(cases, failing)
        return how_far(tensors[0]) + _where(cases, failing) + _precision(value)
    if case.arguments and isinstance(case.expected, float):
        pairs = [(values[i], cases[i].expected) for i in failing if isinstance(values[i], float)]
        if reason := together(pairs):
            return reason
        got, expected = (torch.tensor(number, dtype=torch.float64) for number in pairs[0])
        return how_far(Numbers(got, expected, None)) + _where(cases, failing)
    return _wrong_part(value, case) + _where(cases, failing)


def _named_mistake(cases: Sequence[Case], values: Sequence[Any]) -> str | None:
    """The message of the named mistake that explains every case that is wrong."""
    for message in dict.fromkeys(message for case in cases for message in case.mistakes):
        made = [_makes(case, value, message) for case, value in zip(cases, values, strict=True)]
        if all(made) and not all(case.is_right(value) for case, value in zip(cases, values, strict=True)):
            return message
    return None


def _makes(case: Case, value: Any, message: str) -> bool:
    """Whether a value is what the mistake gives, or is right where a case does not name the mistake."""
    if message not in case.mistakes:
        return case.is_right(value)
    wrong = case.wrong_value(message)
    return same(convert(value, wrong), wrong, case.atol, case.rtol)


def _wrong_part(value: Any, case: Case) -> str:
    """The problem of a value that is no tensor; where one part of it explains it, that part's problem."""
    for name, item, expected in parts(value, case.expected, case.axes):
        part = Case(name, expected=expected, atol=case.atol, rtol=case.rtol)
        item = convert(item, expected)
        if not part.is_right(item) and (isinstance(expected, Tensor) or part.form_problem(item)):
            return f"In `{name}`: {explain([part], [item])}"
    return wrong_value(value, case.expected, case.axes)


def _where(cases: Sequence[Case], failing: Sequence[int]) -> str:
    """Which case a message is about, which ones are right, and a guess why only the later ones are wrong."""
    if len(cases) == 1:
        return ""
    about = cases[failing[0]].name
    right = [case for i, case in enumerate(cases) if i not in failing]
    if not right:
        return f" This is on {about}."
    return f" This is on {about}; right on {_names(right)}." + (HARD_CODED if failing[0] > 0 else "")


def _names(cases: Sequence[Case]) -> str:
    names = [case.name for case in cases]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _ignores_arguments(cases: Sequence[Case], values: Sequence[Any], names: Sequence[str]) -> str | None:
    """The problem of a function that gives the same where its arguments, and what is right, differ."""
    unchanged = [
        (a, b)
        for a, b in combinations(range(len(cases)), 2)
        if _gives_the_same(values[a], values[b]) and not same(cases[a].expected, cases[b].expected)
    ]
    if len(cases) > 1 and len(unchanged) == len(cases) * (len(cases) - 1) // 2:
        return "Your function gives the same answer whatever its arguments are. Does it use all of them?"
    for a, b in unchanged:
        pairs = enumerate(zip(cases[a].arguments, cases[b].arguments, strict=False))
        differ = [i for i, (one, other) in pairs if one is not other and not same(plain(one), plain(other))]
        if len(differ) == 1 and len(names) == len(cases[a].arguments):
            return f"Your function gives the same answer for another `{names[differ[0]]}`. Does it use it?"
    return None


def _gives_the_same(value: Any, other: Any) -> bool:
    return type(value) is type(other) and same(value, other)


def _precision(value: Tensor) -> str:
    if value.is_floating_point() and value.element_size() < 4:
        name = str(value.dtype).removeprefix("torch.")
        return f" The numbers are in {name}, which keeps about three digits; compute in float32."
    return ""


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


class Question(Check):
    """A multiple-choice question; call it with the letter of an option, such as ``"b"``.

    `options` maps each letter to the option's text and to why it is right or wrong, which is shown for the
    option that was chosen. `answer` is the right letter, or a function of no arguments that computes it.
    """

    def __init__(
        self,
        exercise: str,
        title: str,
        core: bool,
        options: Mapping[str, tuple[str, str]],
        answer: str | Callable[[], str],
    ) -> None:
        self.options = dict(options)
        self._answer = answer
        super().__init__(exercise, title, core, self._question, self.right_letter)

    def right_letter(self) -> str:
        """The letter of the right option."""
        right = self._answer() if callable(self._answer) else self._answer
        if right not in self.options:
            raise ValueError(f"the answer {right!r} of {self.exercise!r} is none of {list(self.options)}")
        return right

    def _question(self) -> list[Case]:
        right = self.right_letter()

        def refuse(value: Any) -> str | None:
            letter = self._letter(value)
            if letter not in self.options:
                came = f"; {value!r} came" if isinstance(value, str) else ""
                return f"Choose one of the letters {', '.join(map(repr, self.options))}, in quotes{came}."
            text, why = self.options[letter]
            return None if letter == right else f"({letter}) {text}: {why}"

        return [Case("the question", requires=refuse)]

    def _letter(self, value: Any) -> Any:
        """The letter that is meant: `" B "`, `"(b)"` and `"b."` are all `"b"`."""
        return value.strip(" ().").lower() if isinstance(value, str) else None

    def _collect_case(self, case: Case, answer: Any) -> Output:
        if isinstance(answer, str) and not answer.strip():
            answer = None
        if _is_placeholder(answer):
            return Output(case.name, not_attempted="Choose a letter and run this cell again.")
        return Output(case.name, answer if isinstance(answer, str) else False)

    def praise(self, outputs: Sequence[Output]) -> str:
        """Why the right option is right."""
        letter = self._letter(outputs[0].value)
        return f"({letter}) {self.options[letter][1]}"
