"""Say what is wrong with plain values: the search goes from what the exercise names to what can only be located.

In this order: a slip that the exercise names; one of `universal`; two of them at once; the type or the shape; an answer
that does not follow its arguments; and where the numbers are wrong. A slip explains an answer only if it gives the same
numbers in every case, so a message is a finding, not a guess.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any

import torch
from torch import Tensor

from exercises_utils.checking.case import Case
from exercises_utils.checking.universal import (
    Numbers,
    cause,
    extra_rows,
    not_finite,
    where_wrong,
    wrong_versions,
)
from exercises_utils.checking.values import (
    Axes,
    convert,
    double,
    item_names,
    listed,
    number,
    plain,
    same,
    shown,
)

TWO = "Two things at once. "
MOST_PAIRS = 300
"""Pairs of an exercise's slips that are tried, so that a refusal does not take minutes."""


@dataclass(frozen=True)
class Finding:
    """What is wrong with an answer: the message, and how it was found.

    `kind` is "named" (a slip of the exercise), "universal", "two" (slips at once), "form", "ignored" (arguments) or
    "where" (nothing explains it, so it is only located).
    """

    kind: str
    message: str


def explain(cases: Sequence[Case], values: Sequence[Any], facts: Sequence[str] = ()) -> Finding | None:
    """What is wrong with the values of these cases; None if nothing is.

    `facts` about the learner's code are added where only some cases are wrong.
    """
    values = [convert(value, case.expected) for case, value in zip(cases, values, strict=True)]
    failing = [i for i, case in enumerate(cases) if not case.is_right(values[i])]
    if not failing:
        return None
    if message := _named(cases, values):
        return Finding("named", message)
    no_truth_values = any(_is_no_truth_value(values[i], cases[i].expected) for i in failing)
    some_cases = [cases[i] for i in failing], [values[i] for i in failing]
    if message := _named(*some_cases):
        return Finding("named", message + _which_cases(cases, failing, facts))
    for kind, search in () if no_truth_values else (("universal", _universal), ("two", _two)):
        if message := search(cases, values, failing):
            some_are_right = len(failing) < len(cases)
            return Finding(kind, message + (_which_cases(cases, failing, facts) if some_are_right else ""))
    case, value = cases[failing[0]], values[failing[0]]
    kind, problem = "form", case.form_problem(value)
    if problem is None and case.requires is not None:
        kind, problem = "named", case.requires(value)
    if problem is None:
        kind, problem = "ignored", _ignores(cases, values)
    if problem is None:
        kind, problem = "where", _where_wrong(case, value)
    return Finding(kind, problem + ("" if kind == "ignored" else _which_cases(cases, failing, facts)))


def _is_no_truth_value(value: Any, expected: Any) -> bool:
    """Whether numbers came where True and False are asked for: that is to be said first."""
    if not isinstance(expected, Tensor) or not isinstance(value, Tensor):
        return False
    return expected.dtype == torch.bool != value.dtype and value.shape == expected.shape


# ── one slip ────────────────────────────────────────────────────────────────────────────────────────────────


def _named(cases: Sequence[Case], values: Sequence[Any]) -> str | None:
    """The message of the named slip that gives the value of every case."""
    for message in dict.fromkeys(message for case in cases for message in case.mistakes):
        if all(_makes(case, value, message) for case, value in zip(cases, values, strict=True)):
            return message
    return None


def _makes(case: Case, value: Any, message: str) -> bool:
    """Whether a value is what the slip gives, or is right where a case does not name the slip."""
    if message not in case.mistakes:
        return case.is_right(value)
    wrong = case.wrong_value(message)
    return wrong is not case.NO_VALUE and same(convert(value, wrong), wrong, case.atol, case.rtol)


@dataclass(frozen=True)
class Pair:
    """A value that came in a case, and another one that it may have been made from."""

    value: Any
    base: Any
    axes: Axes
    case: Case

    @property
    def size(self) -> int:
        """How many numbers the base has; none where they are all the same, since anything could be made from these."""
        if not isinstance(self.base, Tensor) or not self.base.numel():
            return 0
        return self.base.numel() if (self.base != self.base.flatten()[0]).any() else 0

    def like(self) -> list[str]:
        """The universal slips that make the value of the base, by their messages."""
        if self.value.is_complex() and not self.base.is_complex():
            return []
        return [message for message, wrong in wrong_versions(self.base, self.axes) if self._is(wrong)]

    def _is(self, wrong: Tensor) -> bool:
        if wrong.shape != self.value.shape:
            return False
        return _ends_agree(self.value, wrong, self.case) and same(
            self.value, wrong, self.case.atol, self.case.rtol
        )

    def numbers(self) -> Numbers:
        """Both, for the search of what turns the base into the value."""
        return Numbers(self.value, self.base, self.axes, self.case.atol, self.case.rtol)


def _universal(cases: Sequence[Case], values: Sequence[Any], failing: Sequence[int]) -> str | None:
    """What turns the right values into those that came, in every failing case."""
    pairs = [Pair(values[i], cases[i].expected, cases[i].axes, cases[i]) for i in failing]
    if any(pair.case.requires for pair in pairs):
        return None
    if part := _one_part(pairs):
        text = _single(part[1], first_guess=True)
        return None if text is None else f"In `{part[0]}`: {text}"
    return _single(pairs, first_guess=True)


def _one_part(pairs: Sequence[Pair]) -> tuple[str, list[Pair]] | None:
    """The one part of a tuple or dict that is wrong in all cases, if the others are right."""
    wrong: dict[str, list[Pair]] = {}
    for pair in pairs:
        value, right, axes = pair.value, pair.base, pair.axes
        if not isinstance(right, tuple | list | dict) or type(value) is not type(right):
            return None
        if len(value) != len(right) or (isinstance(right, dict) and set(value) != set(right)):
            return None
        for name, item, wanted in parts(value, right, axes):
            item = convert(item, wanted)
            if not same(item, wanted):
                own = axes.get(name) if isinstance(axes, Mapping) else None
                wrong.setdefault(name, []).append(Pair(item, wanted, own, pair.case))
    return next(iter(wrong.items())) if len(wrong) == 1 else None


def parts(value: Any, expected: Any, axes: Axes) -> list[tuple[str, Any, Any]]:
    """The items of a tuple, list or dict: (name, item that came, item expected)."""
    if isinstance(expected, dict):
        return [(str(key), value[key], item) for key, item in expected.items()]
    return list(zip(item_names(expected, axes), value, expected, strict=True))


def _single(pairs: Sequence[Pair], first_guess: bool = False) -> str | None:
    """What turns every base into what came: tensors one by one, numbers of several cases taken together."""
    if len(pairs) > 1 and all(_is_number(pair.base) and _is_number(pair.value) for pair in pairs):
        came, base = (
            torch.tensor([float(x) for x in side], dtype=torch.float64)
            for side in zip(*[(pair.value, pair.base) for pair in pairs], strict=True)
        )
        pairs = [Pair(came, base, ("case",), pairs[0].case)]
    if not all(isinstance(t, Tensor) for pair in pairs for t in (pair.value, pair.base)):
        return None
    # Nearly anything turns one number, or several that are the same, into others. The smallest pair rules most slips out.
    sizes = [pair.size for pair in pairs]
    if sum(sizes) < 2:
        return None
    smallest = pairs[min((i for i, size in enumerate(sizes) if size), key=lambda i: sizes[i])]
    for message in smallest.like():
        if all(message in pair.like() for pair in pairs if pair is not smallest):
            return message
    if first_guess and all(extra := [extra_rows(pair.value, pair.base, pair.axes) for pair in pairs]):
        return extra[0]
    if any(p.value.shape != p.base.shape or torch.bool in (p.value.dtype, p.base.dtype) for p in pairs):
        return None
    numbers = [pair.numbers() for pair, size in zip(pairs, sizes, strict=True) if size]
    if bad := [problem for n in numbers if (problem := not_finite(n))]:
        return bad[0] if first_guess else None
    return cause(numbers, first_guess)


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool)


def _ends_agree(value: Tensor, wrong: Tensor, case: Case) -> bool:
    """Whether the first and the last number are near each other: quick, and enough to rule most slips out."""
    if not value.numel():
        return True
    value, wrong = double(value), double(wrong)
    finite = wrong[wrong.isfinite()].abs()
    slack = 10 * (case.atol or 0) + 1e-3 * max(float(finite.max()) if finite.numel() else 1.0, 1.0)
    for i in (0, -1):
        gap = (value.flatten()[i] - wrong.flatten()[i]).abs()
        if gap.isfinite() and gap > slack + (case.rtol or 0) * wrong.flatten()[i].abs():
            return False
    return True


# ── two slips at once ───────────────────────────────────────────────────────────────────────────────────────


def _two(cases: Sequence[Case], values: Sequence[Any], failing: Sequence[int]) -> str | None:
    """Two slips that together give the value of every case."""
    some, came = [cases[i] for i in failing], [values[i] for i in failing]
    if any(case.requires for case in some):
        return None
    smallest_first = sorted(zip(some, came, strict=True), key=lambda item: _size(item[0].expected))
    for one, other in pairs_of(list(some[0].mistakes)):
        both = all(_both(case, value, one, other) for case, value in smallest_first)
        if both and not any(_alone(some, came, message) for message in (one, other)):
            return f"{TWO}{one} {other}"
    if not all(isinstance(value, Tensor | float | int) for value in came):
        return None
    for message in some[0].mistakes:
        wrong = [case.wrong_value(message) if message in case.mistakes else Case.NO_VALUE for case in some]
        if any(value is Case.NO_VALUE for value in wrong):
            continue
        pairs = [Pair(v, w, case.axes, case) for v, w, case in zip(came, wrong, some, strict=True)]
        if not _alone(some, came, message) and (then_also := _single(pairs)):
            return f"{TWO}{message} {then_also}"
    return _two_universal(some, came)


def _alone(cases: Sequence[Case], came: Sequence[Any], message: str) -> bool:
    """Whether one slip alone gives the values of these cases: then a second one is no part of what is wrong."""
    return all(_makes(case, value, message) for case, value in zip(cases, came, strict=True))


def _size(value: Any) -> int:
    return value.numel() if isinstance(value, Tensor) else 0


def pairs_of(slips: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The pairs of slips that are tried: those of the first ones come first, an exercise's own before the derived."""
    every = ((one, other) for i, other in enumerate(slips) for one in slips[:i])
    return islice(every, MOST_PAIRS)


def _two_universal(cases: Sequence[Case], came: Sequence[Any]) -> str | None:
    if not all(isinstance(case.expected, Tensor) and not case.expected.is_complex() for case in cases):
        return None
    versions = [dict(wrong_versions(case.expected, case.axes)) for case in cases]
    for message in versions[0]:
        # A version that has lost numbers could be found in nearly anything.
        if versions[0][message].numel() < cases[0].expected.numel() or not all(
            message in v for v in versions
        ):
            continue
        pairs = [Pair(v, each[message], c.axes, c) for v, each, c in zip(came, versions, cases, strict=True)]
        if then_also := _single(pairs):
            return f"{TWO}{message} {then_also}"
    return None


def _both(case: Case, value: Any, one: str, other: str) -> bool:
    wrong = case.both(one, other) if case.both is not None else case.NO_VALUE
    return wrong is not case.NO_VALUE and same(convert(value, wrong), wrong, case.atol, case.rtol)


# ── no slip fits ────────────────────────────────────────────────────────────────────────────────────────────


def _ignores(cases: Sequence[Case], values: Sequence[Any]) -> str | None:
    """What can be said of a function that gives the same where what is right differs."""
    unchanged = [
        (a, b)
        for a, b in combinations(range(len(cases)), 2)
        if type(values[a]) is type(values[b])
        and same(values[a], values[b])
        and not same(cases[a].expected, cases[b].expected)
    ]
    if len(cases) > 1 and len(unchanged) == len(cases) * (len(cases) - 1) // 2:
        return "Your function gives the same answer in every case. Does it use all of its arguments?"
    for a, b in unchanged:
        named = enumerate(zip(cases[a].arguments, cases[b].arguments, strict=False))
        differ = [i for i, (one, other) in named if one is not other and not same(plain(one), plain(other))]
        if len(differ) == 1 and len(cases[a].parameters) == len(cases[a].arguments):
            return f"Your function gives the same answer for another `{cases[a].parameters[differ[0]]}`. Does it use it?"
    return None


def _where_wrong(case: Case, value: Any) -> str:
    """Which numbers of one value are wrong, or what kind of other value it is."""
    expected = case.expected
    if isinstance(expected, Tensor):
        return where_wrong(Numbers(value, expected, case.axes, case.atol, case.rtol)) + _precision(value)
    if case.arguments and isinstance(expected, float):
        return f"Expected {number(expected)}, got {number(value)}."
    if isinstance(expected, dict | tuple | list):
        for name, item, wanted in parts(value, expected, case.axes):
            axes = case.axes.get(name) if isinstance(case.axes, Mapping) else None
            part = Case(name, expected=wanted, axes=axes, atol=case.atol, rtol=case.rtol)
            item = convert(item, wanted)
            if not part.is_right(item) and (isinstance(wanted, Tensor) or part.form_problem(item)):
                return f"In `{name}`: {part.form_problem(item) or _where_wrong(part, item)}"
    return wrong_value(value, expected, case.axes)


def wrong_value(value: Any, expected: Any, axes: Axes) -> str:
    """What is wrong with a value of the right type, without giving the right one away."""
    if isinstance(value, float) and isinstance(expected, float):
        if math.isnan(value):
            return "The number is NaN (not a number)."
        if expected != 0 and same(value, -expected):
            return f"{number(value)} has the opposite sign."
        return f"{number(value)} is too {'large' if value > expected else 'small'}."
    if isinstance(expected, str) and value.lower().split() == expected.lower().split():
        return f"{value!r} differs only in its capital letters."
    if isinstance(expected, tuple | list) and len(expected) > 1:
        if same(tuple(value), tuple(reversed(expected))):
            order = f": ({', '.join(axes)})" if axes and len(axes) == len(expected) else ""
            return f"The right items, but in reverse order; the order asked for is the other{order}."
        names = item_names(expected, axes)
        wrong = [names[i] for i, (v, e) in enumerate(zip(value, expected, strict=True)) if not same(v, e)]
        if len(wrong) < len(expected):
            return f"{listed(wrong)} {'is' if len(wrong) == 1 else 'are'} wrong; the rest is right."
    if isinstance(expected, set | frozenset):
        extra, missing = len(value - expected), len(expected - value)
        return f"{extra} of your {len(value)} items do not belong; {missing} are missing."
    if isinstance(expected, dict):
        return f"Wrong at the key {', '.join(repr(k) for k in expected if not same(value[k], expected[k]))}."
    return f"{shown(value)} is not it."


def _precision(value: Tensor) -> str:
    if value.is_floating_point() and value.element_size() < 4:
        name = str(value.dtype).removeprefix("torch.")
        return f" The numbers are in {name}, which keeps about three digits; compute in float32."
    return ""


def _which_cases(cases: Sequence[Case], failing: Sequence[int], facts: Sequence[str]) -> str:
    """Which case a message is about and which ones are right; where some are, what stands in the learner's code."""
    if len(cases) == 1:
        return ""
    about = cases[failing[0]].name
    right = [case for i, case in enumerate(cases) if i not in failing]
    if not right:
        return f" This is on {about}."
    return " ".join([f" This is on {about}; right on {names_of(right)}.", *facts])


def names_of(cases: Sequence[Case]) -> str:
    """The names of cases, in a sentence."""
    names = [case.name for case in cases]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
