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


Pair = tuple[Tensor, Tensor]
"""A tensor that came, and another one that it may have been made from."""


def _universal(cases: Sequence[Case], values: Sequence[Any], failing: Sequence[int]) -> str | None:
    """What turns the right values into those that came, in every failing case."""
    some, came = [cases[i] for i in failing], [values[i] for i in failing]
    if any(case.requires for case in some):
        return None
    expected = [case.expected for case in some]
    if parts := _one_part(came, expected, some[0].axes):
        name, came, expected, axes = parts
        return _prefix(f"In `{name}`: ", _single(came, expected, axes, some[0], first_guess=True))
    return _single(came, expected, some[0].axes, some[0], first_guess=True)


def _prefix(prefix: str, text: str | None) -> str | None:
    return None if text is None else prefix + text


def _one_part(
    came: Sequence[Any], expected: Sequence[Any], axes: Any
) -> tuple[str, list[Any], list[Any], Axes] | None:
    """The one part of a tuple or dict that is wrong in all cases, if the others are right."""
    wrong: dict[str, tuple[list[Any], list[Any], Axes]] = {}
    for value, right in zip(came, expected, strict=True):
        if (
            not isinstance(right, tuple | list | dict)
            or type(value) is not type(right)
            or len(value) != len(right)
        ):
            return None
        if isinstance(right, dict) and set(value) != set(right):
            return None
        for name, item, wanted in parts(value, right, axes):
            item = convert(item, wanted)
            if not same(item, wanted):
                own = axes.get(name) if isinstance(axes, Mapping) else None
                got, base, _ = wrong.setdefault(name, ([], [], own))
                got.append(item)
                base.append(wanted)
    if len(wrong) != 1:
        return None
    ((name, (got, base, own)),) = wrong.items()
    return name, got, base, own


def parts(value: Any, expected: Any, axes: Axes) -> list[tuple[str, Any, Any]]:
    """The items of a tuple, list or dict: (name, item that came, item expected)."""
    if isinstance(expected, dict):
        return [(str(key), value[key], item) for key, item in expected.items()]
    return list(zip(item_names(expected, axes), value, expected, strict=True))


def _single(
    came: Sequence[Any], base: Sequence[Any], axes: Axes, case: Case, first_guess: bool = False
) -> str | None:
    """What turns every base into what came: tensors one by one, numbers of several cases taken together."""
    if all(isinstance(b, float | int) and not isinstance(b, bool) for b in base) and len(base) > 1:
        if not all(isinstance(v, float | int) and not isinstance(v, bool) for v in came):
            return None
        came, base = ([torch.tensor([float(x) for x in side], dtype=torch.float64)] for side in (came, base))
        axes = ("case",)
    if not all(isinstance(t, Tensor) for t in (*came, *base)):
        return None
    # Nearly anything turns one number, or several that are the same, into others.
    if all(_is_constant(b) for b in base) or sum(b.numel() for b in base) < 2:
        return None
    pairs = list(zip(came, base, strict=True))
    for message in _versions_like(pairs[0], axes, case):
        if all(message in _versions_like(pair, axes, case) for pair in pairs[1:]):
            return message
    if first_guess and all(extra := [extra_rows(v, b, axes) for v, b in pairs]):
        return extra[0]
    if any(v.shape != b.shape or v.dtype == torch.bool or b.dtype == torch.bool for v, b in pairs):
        return None
    numbers = [Numbers(v, b, axes, case.atol, case.rtol) for v, b in pairs if not _is_constant(b)]
    if bad := [problem for n in numbers if (problem := not_finite(n))]:
        return bad[0] if first_guess else None
    return cause(numbers, per_row=first_guess)


def _is_constant(tensor: Tensor) -> bool:
    """Whether all numbers are the same, of several."""
    return tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all())


def _versions_like(pair: Pair, axes: Axes, case: Case) -> list[str]:
    """The universal slips that make the first tensor of the second, by their messages."""
    value, base = pair
    if value.is_complex() and not base.is_complex():
        return []
    return [
        message
        for message, wrong in wrong_versions(base, axes)
        if wrong.shape == value.shape
        and _ends_agree(value, wrong, case)
        and same(value, wrong, case.atol, case.rtol)
    ]


def _ends_agree(value: Tensor, wrong: Tensor, case: Case) -> bool:
    """Whether the first and the last number are near each other: quick, and enough to rule most slips out."""
    if not value.numel():
        return True
    value, wrong = double(value), double(wrong)
    slack = 1e-3 * max(float(wrong.abs().max()), 1.0) if case.atol is None else 10 * case.atol + 1e-3
    for i in (0, -1):
        one, other = complex(value.flatten()[i]), complex(wrong.flatten()[i])
        if abs(one - other) > slack + (case.rtol or 1e-3) * abs(other):
            return False
    return True


# ── two slips at once ───────────────────────────────────────────────────────────────────────────────────────


def _two(cases: Sequence[Case], values: Sequence[Any], failing: Sequence[int]) -> str | None:
    """Two slips that together give the value of every case."""
    some, came = [cases[i] for i in failing], [values[i] for i in failing]
    if any(case.requires for case in some):
        return None
    if all(isinstance(value, Tensor | float | int) for value in came):
        for first, second in _two_universal(some, came):
            return f"{TWO}{first} {second}"
        for message in some[0].mistakes:
            wrong = [
                case.wrong_value(message) if message in case.mistakes else Case.NO_VALUE for case in some
            ]
            if any(value is Case.NO_VALUE for value in wrong):
                continue
            if then_also := _single(came, wrong, some[0].axes, some[0]):
                return f"{TWO}{message} {then_also}"
    for one, other in pairs_of(list(some[0].mistakes)):
        if all(_both(case, value, one, other) for case, value in zip(some, came, strict=True)):
            return f"{TWO}{one} {other}"
    return None


def pairs_of(slips: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The pairs of slips that are tried: those of the first ones come first, an exercise's own before the derived."""
    every = ((one, other) for i, other in enumerate(slips) for one in slips[:i])
    return islice(every, MOST_PAIRS)


def _two_universal(cases: Sequence[Case], came: Sequence[Any]) -> Iterator[tuple[str, str]]:
    expected = [case.expected for case in cases]
    if not all(isinstance(right, Tensor) and not right.is_complex() for right in expected):
        return
    versions = [dict(wrong_versions(right, case.axes)) for right, case in zip(expected, cases, strict=True)]
    for message in versions[0]:
        # A version that has lost numbers could be found in nearly anything.
        if versions[0][message].numel() == expected[0].numel() and all(message in each for each in versions):
            second = _single(came, [each[message] for each in versions], cases[0].axes, cases[0])
            if second is not None:
                yield message, second


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
