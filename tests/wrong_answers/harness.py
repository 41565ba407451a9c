"""Prove that a lesson's checks refuse wrong answers by name and accept right ones.

A lesson's test module lists its `Answers` in `LESSON`, one for each exercise, and runs `proofs(LESSON)`.
The table of what was refused and accepted, all lessons: ``python -m tests.wrong_answers.harness``.
"""

import importlib
import pickle
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from exercises_utils.checking import ANYTHING, Case, Check, CheckList, Exercise, Outcome, Question
from exercises_utils.checking.explain import Finding, explain, pairs_of
from exercises_utils.checking.universal import wrong_versions
from exercises_utils.checking.values import convert, kind, same


@dataclass(frozen=True)
class Answers:
    """What people answer to one exercise.

    `wrong` maps each wrong answer to a fragment of the message that it must get; `right` lists right answers
    other than the course's own, which is always tried. A value that cannot be a key goes into a
    `Value`, one that has to be computed into a `Made`. The
    options of a `Question` are tried without being listed.
    """

    check: Check
    wrong: Mapping[Any, str] = field(default_factory=dict)
    right: Sequence[Any] = ()

    @property
    def all_wrong(self) -> list[tuple[str, Any, str]]:
        """Every wrong answer, as (name, answer, fragment)."""
        listed = [(_name(answer), answer, fragment) for answer, fragment in self.wrong.items()]
        if isinstance(self.check, Question):
            right = self.check.right_letter()
            listed += [(k, k, why) for k, (_, why) in self.check.options.items() if k != right]
            listed += [("not an option", "z", "Choose one of the letters"), ("a number", 1, "Choose one of")]
        return listed

    @property
    def all_right(self) -> list[tuple[str, Any]]:
        """Every right answer, as (name, answer)."""
        listed = [(_name(answer), answer) for answer in self.right]
        if isinstance(self.check, Question):
            letter = self.check.right_letter()
            return [
                *listed,
                ("right", letter),
                ("capital", f" {letter.upper()} "),
                ("brackets", f"({letter})"),
            ]
        course = _as_learners(self.check)
        return listed if course is ANYTHING else [*listed, ("the course's", course)]

    def outcome(self, answer: Any) -> Outcome:
        """The outcome of an answer, the same in two runs and through a pickle of what was collected."""
        answer = _unwrap(answer)
        first, second = self.check.run(answer), self.check.run(answer)
        assert first == second, f"two runs of the check differ: {first} / {second}"
        if first.status != "could not be checked":
            collected = pickle.loads(pickle.dumps(self.check.collect(answer)))
            assert self.check.judge(collected) == first, "the halves, run apart, come to another outcome"
        return first


@dataclass(frozen=True, eq=False)
class Value:
    """An answer that cannot be the key of a dict, such as a list."""

    value: Any


@dataclass(frozen=True, eq=False)
class Made:
    """An answer that is made when a proof runs, because it comes from a model or from data."""

    make: Callable[[], Any]


def _unwrap(answer: Any) -> Any:
    if isinstance(answer, Made):
        return answer.make()
    return answer.value if isinstance(answer, Value) else answer


def _name(answer: Any) -> str:
    named = answer.make if isinstance(answer, Made) else answer
    return getattr(named, "__name__", None) or repr(_unwrap(answer))[:40]


def _as_learners(check: Check) -> Any:
    """The course's own answer as if a learner had written it; `ANYTHING` where the course has none."""
    reference, first = check.reference, check.cases()[0]
    if reference is None:
        return ANYTHING if first.arguments else first.expected
    return _same_parameters(reference) if first.arguments else reference()


def _same_parameters(function: Callable[..., Any]) -> Callable[..., Any]:
    def written_again(*arguments: Any) -> Any:
        return function(*arguments)

    return written_again


def _stub(*arguments: Any) -> Any:
    raise NotImplementedError


def refused(answers: Answers, answer: Any, fragment: str) -> None:
    """A wrong answer fails, with the message that it must get."""
    outcome = answers.outcome(answer)
    assert outcome.status == "failed", f"a wrong answer: {outcome}"
    assert fragment, "name the fragment of the message that the wrong answer must get"
    assert fragment.lower() in outcome.message.lower(), f"expected {fragment!r} in: {outcome.message}"


def accepted(answers: Answers, answer: Any) -> None:
    """A right answer passes."""
    outcome = answers.outcome(answer)
    assert outcome.passed, f"a right answer: {outcome}"


def not_attempted(answers: Answers) -> None:
    """The blank stub, None and `...` are "not attempted", and later cells can still go on."""
    blanks: list[Any] = [None, ..., (None, None)]
    if answers.check.cases()[0].arguments:
        blanks += [_stub, lambda *arguments: None, lambda *arguments: ...]
    for blank in blanks:
        outcome = answers.outcome(blank)
        assert outcome.status == "not attempted", f"{_name(blank)}: {outcome}"
    with redirect_stdout(StringIO()):  # it says that it takes the course's version
        assert answers.check.working(None) is not None


def sound(answers: Answers) -> None:
    """The check can tell answers apart: cases differ, names and axes fit, each named mistake is a mistake."""
    cases = answers.check.cases()
    assert len({case.name for case in cases}) == len(cases), "two cases have the same name"
    if cases[0].arguments and not all(case.requires for case in cases):
        assert len(cases) >= 2, "one case cannot tell an answer from a number written into the code"
        expected = [case.expected for case in cases]
        by_property = any(value is ANYTHING for value in expected)
        assert by_property or any(not same(value, expected[0]) for value in expected[1:]), (
            "the same value is expected in every case"
        )
    for case in cases:
        if hasattr(case.expected, "shape"):
            assert case.axes is not None, f"name the axes of {case.name}, {kind(case.expected)}"
            assert len(case.axes) == case.expected.ndim, f"{case.name}: {case.axes} for {kind(case.expected)}"
        if isinstance(case.expected, tuple):
            assert case.axes is None or len(case.axes) == len(case.expected), f"{case.name}: {case.axes}"
    unused = "is not used: the answers are those"  # made for every argument, whether it matters or not
    for message in {message for case in cases for message in case.mistakes if unused not in message}:
        told_apart = [
            not case.is_right(convert(case.wrong_value(message), case.expected))
            for case in cases
            if message in case.mistakes
        ]
        assert any(told_apart), f"the mistake {message!r} gives the right value in every case"


# ── what the table of an exercise promises ──────────────────────────────────────────────────────────────────

FOUND = ("named", "universal", "two")
"""How a mistake is found that is more than located."""


def slips_named(exercise: Exercise) -> None:
    """Every slip, given as an answer, is refused with its own message."""
    for message, change in exercise.slip_table.items():
        values = [case.wrong_value(message) for case in exercise.cases()]
        assert any(value is not Case.NO_VALUE for value in values), (
            f"this slip fails in every case: {message}"
        )
        outcome = exercise.run(exercise.with_slip(change))
        assert outcome.status == "failed", f"a slip passes: {message}"
        possible = all(value is not Case.NO_VALUE for value in values)
        assert outcome.message == message or not possible, f"expected {message!r}; got {outcome.message}"


def universal_findings(exercise: Exercise) -> dict[str, Finding | None]:
    """What is found for each universal slip that makes a difference, by the slip's message."""
    cases = exercise.cases()
    if not all(hasattr(case.expected, "shape") and case.requires is None for case in cases):
        return {}
    versions = [dict(wrong_versions(case.expected, case.axes)) for case in cases]
    return {
        message: explain(cases, values)
        for message in versions[0]
        if all(message in each for each in versions)
        and _differs(cases, values := [each[message] for each in versions])
    }


def pair_findings(exercise: Exercise) -> dict[str, Finding | None]:
    """What is found for two slips of the exercise at once, where they go together and make a difference."""
    cases = exercise.cases()
    found: dict[str, Finding | None] = {}
    if any(case.requires for case in cases):
        return found
    for one, other in pairs_of(list(exercise.slip_table)):
        values = [case.both(one, other) if case.both else Case.NO_VALUE for case in cases]
        if not any(value is Case.NO_VALUE for value in values) and _differs(cases, values):
            found[f"{one} + {other}"] = explain(cases, values)
    return found


def _differs(cases: Sequence[Case], values: Sequence[Any]) -> bool:
    return any(not case.is_right(convert(v, case.expected)) for case, v in zip(cases, values, strict=True))


def universals_found(exercise: Exercise) -> None:
    """Every universal slip is refused, and called by what it is."""
    _all_found(universal_findings(exercise))


def pairs_found(exercise: Exercise) -> None:
    """Every two slips at once are refused, and called by what they are."""
    _all_found(pair_findings(exercise))


def _all_found(findings: Mapping[str, Finding | None]) -> None:
    for what, finding in findings.items():
        assert finding is not None, f"this passes: {what}"
        assert finding.kind in FOUND, f"not recognised: {what}; said was: {finding.message}"


def proofs(lesson: Sequence[Answers]) -> list[Any]:
    """One pytest parameter for each thing to prove; call it without arguments."""
    params = []

    def add(name: str, function: Callable[..., None], *arguments: Any) -> None:
        params.append(pytest.param(lambda: function(*arguments), id=name))

    for answers in lesson:
        exercise = answers.check.exercise
        add(f"{exercise}-sound", sound, answers)
        add(f"{exercise}-blank", not_attempted, answers)
        if isinstance(answers.check, Exercise):
            add(f"{exercise}-slips", slips_named, answers.check)
            add(f"{exercise}-universal", universals_found, answers.check)
            add(f"{exercise}-pairs", pairs_found, answers.check)
        # Questions compute their right letter from a model, so what is listed is looked up when a proof runs.
        for answer, fragment in answers.wrong.items():
            add(f"{exercise}-wrong-{_name(answer)}", refused, answers, answer, fragment)
        if isinstance(answers.check, Question):
            add(f"{exercise}-distractors", _all_refused, answers)
        add(f"{exercise}-right", _all_accepted, answers)
    return params


def _all_refused(answers: Answers) -> None:
    for _, answer, fragment in answers.all_wrong:
        refused(answers, answer, fragment)


def _all_accepted(answers: Answers) -> None:
    for _, answer in answers.all_right:
        accepted(answers, answer)


def missing(checklist: CheckList, lesson: Sequence[Answers]) -> list[str]:
    """The exercises of a lesson for which no answers are listed, or no wrong ones: neither slips nor by hand."""
    listed = {
        a.check.exercise
        for a in lesson
        if a.wrong or isinstance(a.check, Question) or (isinstance(a.check, Exercise) and a.check.slip_table)
    }
    return [exercise.exercise for exercise in checklist if exercise.exercise not in listed]


def _holds(proof: Callable[..., None], *arguments: Any) -> bool:
    try:
        proof(*arguments)
    except AssertionError:
        return False
    return True


def table(lesson: Sequence[Answers]) -> str:
    """What was refused by name and accepted: slips of the table, universal ones, two at once, and answers by hand."""
    rows = []
    for answers in lesson:
        check = answers.check
        wrong = [_holds(refused, answers, answer, fragment) for _, answer, fragment in answers.all_wrong]
        right = [_holds(accepted, answers, answer) for _, answer in answers.all_right]
        derived = ["", "", ""]
        if isinstance(check, Exercise):
            slips = len(check.slip_table)
            derived[0] = f"{slips}/{slips}" if _holds(slips_named, check) else f"NO/{slips}"
            for i, findings in enumerate((universal_findings(check), pair_findings(check)), start=1):
                named = sum(f is not None and f.kind in FOUND for f in findings.values())
                derived[i] = f"{named}/{len(findings)}"
        blank = "yes" if _holds(not_attempted, answers) else "NO"
        counts = [f"{sum(wrong)}/{len(wrong)}", f"{sum(right)}/{len(right)}", blank]
        rows.append(f"| {' | '.join([check.exercise, *derived, *counts])} |")
    head = "| exercise | slips named | universal | two at once | wrong by hand | right accepted | blank |"
    return "\n".join([head, "|---|---|---|---|---|---|---|", *rows])


def main() -> None:
    """Print the table of every lesson beside this file."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        module = importlib.import_module(f"tests.wrong_answers.{path.stem}")
        print(f"{path.stem.removeprefix('test_')}\n\n{table(module.LESSON)}\n")


if __name__ == "__main__":
    main()
