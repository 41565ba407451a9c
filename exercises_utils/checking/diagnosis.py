"""Say in words what is wrong with a plain value, and what likely caused it.

Everything here looks at values that are plain already (see `values.plain`) and runs no code of the learner's.
"""

import math
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from exercises_utils.checking.values import (
    Axes,
    UnusualValue,
    agree,
    double,
    kind,
    named_shape,
    number,
    same,
    shown,
    wanted,
)


def type_problem(value: Any, expected: Any, axes: Axes) -> str | None:
    """What is wrong with the type of a converted value; None if it can be compared with `expected`."""
    came = f"Expected {wanted(expected, axes)}; {kind(value)} came."
    if isinstance(value, UnusualValue):
        remedies = {
            "FactoredMatrix": " Multiply it out with `.AB`.",
            "function": " Are brackets missing, so that a function is returned instead of its result?",
            "method": " Are brackets missing, so that a function is returned instead of its result?",
            "generator": " Collect its items, for example in a list.",
        }
        return came + remedies.get(value.type_name, "")
    if isinstance(expected, Tensor):
        if not isinstance(value, Tensor):
            return came
        if value.is_complex() and not expected.is_complex():
            return "Expected real numbers; complex ones came. Is `.real` or `.abs()` missing?"
        if expected.dtype == torch.bool and value.dtype != torch.bool and value.shape == expected.shape:
            came = f"Expected True and False; numbers of type {_dtype(value)} came."
            return came + " Compare (`== 1`) or use `.bool()`."
        return None
    if isinstance(expected, float) and isinstance(value, float):
        return None
    if isinstance(expected, tuple | list):
        return None if isinstance(value, tuple | list) and len(value) == len(expected) else came
    if isinstance(expected, dict):
        if not isinstance(value, dict):
            return came
        missing, extra = [k for k in expected if k not in value], [k for k in value if k not in expected]
        if missing:
            return f"The key {missing[0]!r} is missing."
        return f"The key {extra[0]!r} is not asked for." if extra else None
    if isinstance(expected, set | frozenset):
        return None if isinstance(value, set | frozenset) else came
    if type(value) is not type(expected):
        one_number = isinstance(value, Tensor) and value.numel() == 1
        return came + (" Take the number out with `.item()`." if one_number else "")
    return None


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def shape_problem(value: Tensor, expected: Tensor, axes: Axes) -> str | None:
    """What is wrong with a tensor's shape, with the axes by name and the likely cause."""
    got, want = tuple(value.shape), tuple(expected.shape)
    if got == want:
        return None
    names = list(axes) if axes and len(axes) == len(want) else [f"axis {i}" for i in range(len(want))]
    return f"Expected shape {named_shape(expected, axes)}, got {got}.{_shape_cause(got, want, names)}"


def _shape_cause(got: tuple[int, ...], want: tuple[int, ...], names: Sequence[str]) -> str:
    if got == ():
        return " One number came: was everything summed or averaged?"
    if sorted(got) == sorted(want):
        return " Did you return the transpose?" if len(want) == 2 else " The axes are in another order."
    if len(got) == len(want) + 1:
        extra = [i for i in range(len(got)) if got[:i] + got[i + 1 :] == want]
        if extra and got[extra[0]] == 1:
            return (
                f" Axis {extra[0]}, of length 1, is one too many: index it away, or `.squeeze({extra[0]})`."
            )
        if extra:
            size = got[extra[0]]
            return f" Axis {extra[0]}, of length {size}, is one too many: index it, sum or average over it?"
    if len(got) + 1 == len(want):
        missing = [i for i in range(len(want)) if want[:i] + want[i + 1 :] == got]
        if missing:
            which = " or ".join(f"`{names[i]}`" for i in missing)
            return f" {which} is missing: was it summed, averaged or indexed away?"
    if len(got) == len(want):
        wrong = [i for i in range(len(want)) if got[i] != want[i]]
        first = wrong[0]
        if all(got[i] == 1 for i in wrong):
            return f" `{names[first]}` has length 1: was one picked out, or an average taken?"
        if all(got[i] > want[i] for i in wrong):
            return f" `{names[first]}` has {got[first] - want[first]} too many: does all of it belong there?"
        if all(got[i] < want[i] for i in wrong):
            return f" `{names[first]}` has {want[first] - got[first]} too few: is something left out?"
    if math.prod(got) == math.prod(want):
        return " As many numbers as expected, in another arrangement: is a reshape missing?"
    return ""


class Numbers:
    """A tensor and the expected one of the same shape, as float64, with the names of their axes.

    Entries that are infinite on either side (a mask) are left out of the diagnoses; `counted` are the others.
    """

    def __init__(
        self,
        value: Tensor,
        expected: Tensor,
        axes: Axes,
        atol: float | None = None,
        rtol: float | None = None,
    ) -> None:
        self.value, self.expected = double(value), double(expected)
        self.atol, self.rtol = atol, rtol
        named = axes is not None and len(axes) == expected.ndim
        self.axes = list(axes) if axes and named else [f"axis {i}" for i in range(expected.ndim)]
        self.counted = self.value.isfinite() & self.expected.isfinite()
        self.wrong = ~agree(self.value, self.expected, atol, rtol)

    def without_infinities(self) -> "Numbers":
        """The same with 0 on both sides where either is not finite, so that sums stay finite."""
        clean = Numbers(
            self.value.where(self.counted, 0.0),
            self.expected.where(self.counted, 0.0),
            self.axes,
            self.atol,
            self.rtol,
        )
        clean.counted, clean.wrong = self.counted, self.wrong
        return clean

    def is_near(self, other: Tensor) -> bool:
        """Whether the value agrees with another tensor in every entry that counts."""
        return other.shape == self.value.shape and bool(
            (agree(self.value, other, self.atol, self.rtol) | ~self.counted).all()
        )

    @property
    def difference(self) -> Tensor:
        """Value minus expected."""
        return self.value - self.expected


def _not_finite(n: Numbers) -> str | None:
    nan = n.value.isnan() & ~n.expected.isnan()
    if nan.any():
        return (
            f"{_share(nan)} NaN (not a number): look for 0/0, the logarithm of a negative number, "
            "or infinity minus infinity."
        )
    infinite = n.value.isinf() & n.expected.isfinite()
    if infinite.any():
        return f"{_share(infinite)} infinite: look for a division by 0, a log of 0, or a mask that stayed."
    unmasked = n.expected.isinf() & n.value.isfinite()
    if unmasked.any():
        return f"{_share(unmasked)} finite where infinity (a mask) is expected: is the mask missing?"
    return None


def _share(bad: Tensor) -> str:
    if bad.ndim == 0:
        return "The number is"
    if bad.all():
        return "All numbers are"
    count = int(bad.sum())
    return f"{count} of {bad.numel()} numbers {'is' if count == 1 else 'are'}"


def _transposed(n: Numbers) -> str | None:
    for order in permutations(range(n.expected.ndim)):
        if order != tuple(range(n.expected.ndim)) and n.is_near(n.expected.permute(order)):
            moved = [n.axes[i] for i, j in enumerate(order) if i != j]
            return f"The numbers are right, but {_list(moved)} are swapped: did you return the transpose?"
    return None


def _list(names: Sequence[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def _sign(n: Numbers) -> str | None:
    if n.expected.numel() == 1 or not n.is_near(-n.expected):
        return None
    return "Every number has the opposite sign."


def _factor(n: Numbers) -> str | None:
    square = float((n.expected**2).sum())
    if n.expected.numel() < 2 or square == 0:
        return None
    k = float((n.value * n.expected).sum()) / square
    if k == 0 or not n.is_near(k * n.expected):
        return None
    return f"Every number is {k:.3g} times the expected one{_meaning(k)}"


def _meaning(k: float) -> str:
    """What a constant factor may come from."""
    for size, is_large in ((abs(k), True), (1 / abs(k), False)):
        if 1.5 < size < 10_000 and abs(size - round(size)) < 1e-3:
            return (
                f" (a whole number, {round(size)}): is a sum taken where a mean is asked for?"
                if is_large
                else f" (1/{round(size)}): is a mean taken where a sum is asked for?"
            )
        if 1.2 < size < 100 and abs(size**2 - round(size**2)) < 1e-3:
            root = f"sqrt({round(size**2)})"
            return (
                f", which is {root}: is a division by it missing?"
                if is_large
                else f", which is 1/{root}: is one division by it too many?"
            )
    return ": is a scale missing, or one too many?"


def _offset(n: Numbers) -> str | None:
    if n.counted.sum() < 2:
        return None
    c = float(n.difference.sum() / n.counted.sum())
    if not n.is_near(n.expected + c):
        return None
    direction = "large" if c > 0 else "small"
    return (
        f"Every number is {abs(c):.3g} too {direction}: is a constant (a bias, a mean) missing or too many?"
    )


def _offset_per_row(n: Numbers) -> str | None:
    if n.expected.ndim < 2:
        return None
    for i, axis in enumerate(n.axes):
        count = n.counted.sum(i, keepdim=True)
        if count.max() > 1 and n.is_near(n.expected + n.difference.sum(i, keepdim=True) / count.clamp_min(1)):
            return (
                f"Differences along `{axis}` are right, but each {_others(n, i)} is off by its own constant: "
                "is a bias or a mean missing, or one too many?"
            )
    return None


def _factor_per_row(n: Numbers) -> str | None:
    if n.expected.ndim < 2:
        return None
    for i, axis in enumerate(n.axes):
        square = (n.expected**2).sum(i, keepdim=True)
        k = (n.value * n.expected).sum(i, keepdim=True) / square.where(square > 0, 1.0)
        scaled = n.counted.sum(i).max() > 1 and not ((k == 0) & (square > 0)).any()
        if scaled and n.is_near(k * n.expected):
            return (
                f"Proportions along `{axis}` are right, but each {_others(n, i)} has a scale of its own: "
                "is a normalisation missing, or taken over another axis?"
            )
    return None


def _others(n: Numbers, i: int) -> str:
    return _list([axis for j, axis in enumerate(n.axes) if j != i])


def _shifted(n: Numbers) -> str | None:
    for i, axis in enumerate(n.axes):
        size = n.expected.shape[i]
        if size < 3:
            continue
        for step in (1, -1):
            value = n.value.narrow(i, max(step, 0), size - 1)
            moved = n.expected.narrow(i, max(-step, 0), size - 1)
            varies = not agree(moved, moved.narrow(i, 0, 1).expand_as(moved)).all()
            if varies and agree(value, moved, n.atol, n.rtol).all():
                direction = "far" if step > 0 else "early"
                return f"The numbers are right, but one place too {direction} along `{axis}`: off by one."
    return None


def _reversed(n: Numbers) -> str | None:
    for i, axis in enumerate(n.axes):
        if n.is_near(n.expected.flip(i)):
            return f"The numbers are right, but in reverse order along `{axis}`."
    return None


def _transformed(n: Numbers) -> str | None:
    e = n.expected
    if n.is_near(e.abs()):
        return "Negative numbers came out positive: is an absolute value taken that is not asked for?"
    if e.min() > 0 and n.is_near(e.log()):
        return "These are the logarithms of the expected numbers."
    if e.numel() > 1 and n.is_near(e.exp()):
        return "These are the exponentials of the expected numbers: is a logarithm missing?"
    for i, axis in _probability_axes(n):
        if n.is_near(torch.zeros_like(e).scatter(i, e.argmax(i, keepdim=True), 1.0)):
            return f"Only the largest along `{axis}` is kept; the probabilities themselves are asked for."
    return None


def _probability_axes(n: Numbers) -> list[tuple[int, str]]:
    """The axes along which the expected numbers are probabilities: none negative, and a sum of 1."""
    if n.expected.is_complex() or not (n.expected >= 0).all():
        return []
    sums = {i: n.expected.sum(i) for i, size in enumerate(n.expected.shape) if size > 1}
    return [(i, n.axes[i]) for i, total in sums.items() if agree(total, torch.ones_like(total)).all()]


def _softmax_missing(n: Numbers) -> str | None:
    for i, axis in _probability_axes(n):
        if n.value.is_complex() or agree(n.value, n.expected.log(), n.atol, n.rtol).all():
            return None  # logarithms of probabilities: a softmax would hide that
        if agree(n.value.softmax(i), n.expected, n.atol, n.rtol).all():
            return f"A softmax over `{axis}` is missing."
    return None


def _above_the_diagonal(n: Numbers) -> str | None:
    if n.expected.ndim < 2 or n.expected.shape[-1] != n.expected.shape[-2]:
        return None
    rows, columns = n.axes[-2], n.axes[-1]
    if not n.wrong.tril().any():
        return f"Only numbers with `{columns}` after `{rows}` are wrong, those that a causal mask takes out."
    if not (n.wrong & ~torch.eye(n.wrong.shape[-1], dtype=torch.bool)).any():
        return f"Only the diagonal, where `{rows}` and `{columns}` are the same, is wrong."
    return None


def _some_indices(n: Numbers) -> str | None:
    """Where the wrong (or the right) numbers are confined to a few rows of one axis."""
    found: list[tuple[int, str]] = []
    for i, axis in enumerate(n.axes):
        others = tuple(j for j in range(n.wrong.ndim) if j != i)
        bad = n.wrong.any(others) if others else n.wrong
        for rows, text in ((bad, "Right except at"), (~bad, "Wrong except at")):
            count = int(rows.sum())
            if 0 < count <= max(1, rows.numel() // 3) < rows.numel() - 1:
                shown = rows.nonzero().flatten().tolist()
                listed = ", ".join(map(str, shown[:5])) + (", ..." if count > 5 else "")
                found.append((count, f"{text} `{axis}` {listed}."))
    return f"{min(found)[1]} {_farthest(n)}" if found else None


def _farthest(n: Numbers) -> str:
    """Where the value is farthest from the expected one, with both numbers."""
    if n.expected.ndim == 0:
        return f"Expected {number(n.expected.item())}, got {number(n.value.item())}."
    difference = n.difference.abs().nan_to_num(nan=0.0, posinf=0.0).where(n.wrong, 0.0)
    at = torch.unravel_index(difference.argmax(), difference.shape)
    place = ", ".join(f"`{axis}` {int(i)}" for axis, i in zip(n.axes, at, strict=True))
    return f"At {place}: expected {number(n.expected[at].item())}, got {number(n.value[at].item())}."


DIAGNOSES: tuple[Callable[[Numbers], str | None], ...] = (
    _transposed,
    _sign,
    _factor,
    _offset,
    _transformed,
    _shifted,
    _reversed,
    _offset_per_row,
    _factor_per_row,
    _above_the_diagonal,
    _some_indices,
)
"""Tried in this order. Each says in words what is wrong if that is all that is wrong, else None."""


def cause(failing: Sequence[Numbers]) -> str | None:
    """The first explanation that holds in every failing case, in the words for the first of them."""
    if all(missing := [_softmax_missing(n) for n in failing]):
        return missing[0]
    for n in failing:
        if problem := _not_finite(n):
            return problem
    if any(n.value.is_complex() for n in failing):
        return None
    clean = [n.without_infinities() for n in failing]
    for diagnose in DIAGNOSES:
        problems = [diagnose(n) for n in clean]
        if all(problems):
            return problems[0]
    return None


def together(pairs: Sequence[tuple[float, float]]) -> str | None:
    """What explains the numbers (got, expected) of several cases at once: a sign, a factor or an offset."""
    if len(pairs) < 2:
        return None
    got, expected = (torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True))
    if expected.isfinite().all() and got.isfinite().all():
        for diagnose in (_sign, _factor, _offset):
            if problem := diagnose(Numbers(got, expected, ("case",))):
                return problem
    return None


def how_far(n: Numbers) -> str:
    """How many numbers are wrong, and the worst of them."""
    if n.expected.ndim == 0:
        return _farthest(n)
    return f"{_share(n.wrong)} wrong. {_farthest(n)}"


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
        names = _item_names(expected, axes)
        wrong = [names[i] for i, (v, e) in enumerate(zip(value, expected, strict=True)) if not same(v, e)]
        if len(wrong) < len(expected):
            return f"{_list(wrong)} {'is' if len(wrong) == 1 else 'are'} wrong; the rest is right."
    if isinstance(expected, set | frozenset):
        extra, missing = len(value - expected), len(expected - value)
        return f"{extra} of your {len(value)} items do not belong; {missing} are missing."
    if isinstance(expected, dict):
        return f"Wrong at the key {', '.join(repr(k) for k in expected if not same(value[k], expected[k]))}."
    return f"{shown(value)} is not it."


def _item_names(expected: Sequence[Any], axes: Axes) -> list[str]:
    return list(axes) if axes and len(axes) == len(expected) else [f"item {i}" for i in range(len(expected))]


def parts(value: Any, expected: Any, axes: Axes) -> list[tuple[str, Any, Any]]:
    """The items of a tuple, list or dict: (name, item that came, item expected)."""
    if isinstance(expected, dict):
        return [(str(key), value[key], item) for key, item in expected.items()]
    if isinstance(expected, tuple | list):
        return list(zip(_item_names(expected, axes), value, expected, strict=True))
    return []
