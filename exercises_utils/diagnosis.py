"""Compare a plain value with the expected one, and say in words what is wrong and what likely caused it.

Everything here works on plain values (see `isolation.plain`) and runs no code of the learner's.
"""

import math
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from exercises_utils.isolation import UnusualValue

RTOL = 1e-4
"""Allowed error as a share of each expected number: above the float noise of any reordering of float32 sums."""
ATOL_SHARE = 1e-5
"""Allowed error as a share of the largest expected number, where a case names no `atol`."""

Axes = Sequence[str] | None


def convert(value: Any, expected: Any) -> Any:
    """`value` as the type of `expected` where that loses nothing; otherwise as it is.

    Lists become tensors, tensors of one axis become lists or tuples, 0-d tensors numbers, and whole floats integers.
    """
    if isinstance(expected, Tensor):
        if isinstance(value, bool | int | float | complex):
            return (
                torch.tensor(value, dtype=torch.float64) if isinstance(value, float) else torch.tensor(value)
            )
        if isinstance(value, list | tuple):
            return _stack(value)
        return value
    if isinstance(value, Tensor) and value.ndim == 0:
        value = value.item()
    if isinstance(expected, bool) or isinstance(value, bool):
        return value
    if isinstance(expected, int) and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(expected, float) and isinstance(value, int):
        return float(value)
    if isinstance(expected, tuple | list | set | frozenset):
        if isinstance(value, Tensor):
            value = value.tolist()
        if isinstance(expected, set | frozenset) and isinstance(value, tuple | list | set | frozenset):
            try:
                return {tuple(item) if isinstance(item, list) else item for item in value}
            except TypeError:
                return value
        if isinstance(value, tuple | list):
            if len(value) == len(expected):
                return type(expected)(convert(v, e) for v, e in zip(value, expected, strict=True))
            return type(expected)(value)
    if isinstance(expected, dict) and isinstance(value, dict):
        return {key: convert(item, expected[key]) if key in expected else item for key, item in value.items()}
    return value


def _stack(items: Sequence[Any]) -> Any:
    """Nested lists of numbers and tensors as one tensor; the list itself where its parts do not fit together."""
    try:
        if any(isinstance(item, Tensor | list | tuple) for item in items):
            parts = [
                _stack(item) if isinstance(item, list | tuple) else torch.as_tensor(item) for item in items
            ]
            return torch.stack(parts)
        return torch.tensor(items, dtype=torch.float64) if _has_float(items) else torch.tensor(items)
    except (TypeError, ValueError, RuntimeError):
        return list(items)


def _has_float(items: Sequence[Any]) -> bool:
    return any(isinstance(item, float) for item in items)


def tolerance(expected: Tensor, atol: float | None, rtol: float | None) -> Tensor:
    """How far each number may be from the expected one, in the answer's own unit."""
    finite = expected[expected.isfinite()].abs()
    scale = finite.max().item() if finite.numel() else 1.0
    absolute = ATOL_SHARE * (scale or 1.0) if atol is None else atol
    return absolute + (RTOL if rtol is None else rtol) * expected.abs().nan_to_num(posinf=0.0)


def agree(value: Tensor, expected: Tensor, atol: float | None = None, rtol: float | None = None) -> Tensor:
    """Which entries agree, of two tensors of the same shape; equal infinities and two NaNs agree."""
    if not expected.is_floating_point() and not value.is_floating_point():
        return value == expected
    value, expected = _double(value), _double(expected)
    near = (value - expected).abs() <= tolerance(expected, atol, rtol)
    return near | (value == expected) | (value.isnan() & expected.isnan())


def _double(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def same(value: Any, expected: Any, atol: float | None = None, rtol: float | None = None) -> bool:
    """Whether a plain value is the expected one, up to float noise and harmless differences of type."""
    value = convert(value, expected)
    if isinstance(expected, Tensor):
        if (
            not isinstance(value, Tensor)
            or value.shape != expected.shape
            or value.is_complex() != expected.is_complex()
        ):
            return False
        if expected.dtype == torch.bool and value.dtype != torch.bool:
            return False
        return bool(agree(value, expected, atol, rtol).all())
    if isinstance(expected, float):
        if isinstance(value, bool) or not isinstance(value, float):
            return False
        return bool(
            agree(
                torch.tensor(value, dtype=torch.float64),
                torch.tensor(expected, dtype=torch.float64),
                atol,
                rtol,
            )
        )
    if isinstance(expected, tuple | list):
        return (
            isinstance(value, tuple | list)
            and len(value) == len(expected)
            and all(same(v, e, atol, rtol) for v, e in zip(value, expected, strict=True))
        )
    if isinstance(expected, dict):
        return (
            isinstance(value, dict)
            and value.keys() == expected.keys()
            and all(same(value[key], expected[key], atol, rtol) for key in expected)
        )
    if isinstance(value, Tensor | list | tuple | dict):
        return False
    return type(value) is type(expected) and bool(value == expected)


def kind(value: Any) -> str:
    """What a plain value is, in words with an article: "a tensor of shape (3, 4)"."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}" if value.ndim else "a tensor with one number"
    if isinstance(value, UnusualValue):
        return f"an object of type `{value.type_name}`"
    if isinstance(value, bool):
        return f"`{value}`"
    if isinstance(value, int):
        return f"the whole number {value}"
    if isinstance(value, float | complex):
        return f"the number {number(value)}"
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= 40 else "a long text"
    if isinstance(value, tuple | list | set | frozenset | dict):
        word = {tuple: "a tuple", list: "a list", dict: "a dict"}.get(type(value), "a set")
        return f"{word} of {len(value)} item{'s' if len(value) != 1 else ''}"
    return f"`{value}`"


def number(value: Any) -> str:
    """A number to four significant digits, without trailing zeros."""
    if isinstance(value, bool | int):
        return str(value)
    return f"{value:.4g}"


def wanted(expected: Any, axes: Axes = None) -> str:
    """What was expected, in words that do not give the answer away."""
    if isinstance(expected, Tensor):
        if expected.ndim == 0:
            return "one number"
        what = "a tensor of True and False" if expected.dtype == torch.bool else "a tensor"
        return f"{what} of shape {named_shape(expected, axes)}"
    if isinstance(expected, bool):
        return "True or False"
    if isinstance(expected, int):
        return "one whole number"
    if isinstance(expected, float):
        return "one number"
    if isinstance(expected, str):
        return "a text"
    if isinstance(expected, tuple | list):
        names = (
            f" ({', '.join(axes)})" if axes and len(axes) == len(expected) else f" of {len(expected)} items"
        )
        return f"a {type(expected).__name__}{names}"
    if isinstance(expected, set | frozenset):
        return "a set"
    if isinstance(expected, dict):
        return "a dict with the keys " + ", ".join(map(repr, expected))
    return kind(expected)


def named_shape(tensor: Tensor, axes: Axes) -> str:
    """A shape with the names of its axes: "(source: 31, destination: 31)"."""
    if not axes or len(axes) != tensor.ndim:
        return str(tuple(tensor.shape))
    return "(" + ", ".join(f"{axis}: {size}" for axis, size in zip(axes, tensor.shape, strict=True)) + ")"


def type_problem(value: Any, expected: Any, axes: Axes) -> str | None:
    """What is wrong with the type of a converted value; None if it can be compared with `expected`."""
    came = f"Expected {wanted(expected, axes)}; {kind(value)} came."
    if isinstance(value, UnusualValue):
        if value.type_name == "FactoredMatrix":
            return came + " Multiply it out with `.AB`."
        if value.type_name in ("function", "method", "builtin_function_or_method"):
            return came + " Is a pair of brackets missing, so that the function itself is returned?"
        if value.type_name == "generator":
            return came + " Collect its items, for example in a list."
        return came
    if isinstance(expected, Tensor):
        if isinstance(value, tuple) and value and all(isinstance(item, Tensor) for item in value):
            return came + " Return one tensor."
        if not isinstance(value, Tensor):
            return came
        if value.is_complex() and not expected.is_complex():
            return came + " Its numbers are complex; real ones were expected. Is `.real` or `.abs()` missing?"
        if expected.dtype == torch.bool and value.dtype != torch.bool and value.shape == expected.shape:
            return f"Expected True and False; numbers of type {_dtype(value)} came. Compare (`== 1`) or use `.bool()`."
        return None
    if isinstance(expected, float) and isinstance(value, float):
        return None
    if isinstance(expected, tuple | list) and isinstance(value, tuple | list):
        if len(value) == len(expected):
            return None
        return came
    if isinstance(expected, dict) and isinstance(value, dict):
        missing = [key for key in expected if key not in value]
        extra = [key for key in value if key not in expected]
        if missing:
            return f"The key {missing[0]!r} is missing."
        return f"There is a key {extra[0]!r} that was not asked for." if extra else None
    if isinstance(expected, set | frozenset):
        return None if isinstance(value, set | frozenset) else came
    if isinstance(value, bool) != isinstance(expected, bool) or not isinstance(value, type(expected)):
        if isinstance(value, Tensor) and value.numel() == 1:
            return came + " Take the number out of it with `.item()`."
        return came
    return None


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def shape_problem(value: Tensor, expected: Tensor, axes: Axes) -> str | None:
    """What is wrong with a tensor's shape, with the axes by name and the likely cause."""
    got, want = tuple(value.shape), tuple(expected.shape)
    if got == want:
        return None
    text = f"Expected shape {named_shape(expected, axes)}, got {got}."
    names = list(axes) if axes and len(axes) == len(want) else [f"axis {i}" for i in range(len(want))]
    if sorted(got) == sorted(want):
        return text + (
            " Did you return the transpose?"
            if len(want) == 2
            else " The same axes in another order: transpose them."
        )
    if len(got) == len(want) + 1:
        extra = [i for i in range(len(got)) if got[:i] + got[i + 1 :] == want]
        if extra and got[extra[0]] == 1:
            return (
                text
                + f" Axis {extra[0]} has length 1 and is one too many: index it away, or use `.squeeze({extra[0]})`."
            )
        if extra:
            return (
                text
                + f" Axis {extra[0]} (length {got[extra[0]]}) is one too many: should it be indexed, summed or averaged?"
            )
    if len(got) + 1 == len(want):
        missing = [i for i in range(len(want)) if want[:i] + want[i + 1 :] == got]
        if missing:
            return text + f" `{names[missing[0]]}` is missing: was it summed, averaged or indexed away?"
    if len(got) == len(want):
        wrong = [i for i in range(len(want)) if got[i] != want[i]]
        if all(got[i] == 1 for i in wrong):
            return (
                text
                + f" `{names[wrong[0]]}` has length 1: only one was kept, or an average was taken over all."
            )
        if all(got[i] > want[i] for i in wrong):
            return (
                text
                + f" `{names[wrong[0]]}` has {got[wrong[0]] - want[wrong[0]]} too many: is something included that does not belong?"
            )
        if all(got[i] < want[i] for i in wrong):
            return (
                text
                + f" `{names[wrong[0]]}` has {want[wrong[0]] - got[wrong[0]]} too few: is something left out?"
            )
    return text


class Numbers:
    """A pair of tensors of the same shape as float64, with the names of their axes, for the diagnoses."""

    def __init__(
        self, value: Tensor, expected: Tensor, axes: Axes, atol: float | None, rtol: float | None
    ) -> None:
        self.value, self.expected = _double(value), _double(expected)
        self.atol, self.rtol = atol, rtol
        named = axes and len(axes) == expected.ndim
        self.axes = list(axes) if axes and named else [f"axis {i}" for i in range(expected.ndim)]

    @property
    def finite(self) -> bool:
        """Whether every number on both sides is finite, and not every expected one is the same."""
        return bool(self.value.isfinite().all() and self.expected.isfinite().all())

    def is_near(self, other: Tensor) -> bool:
        """Whether the value agrees everywhere with another tensor that is not just the expected one again."""
        return other.shape == self.value.shape and bool(agree(self.value, other, self.atol, self.rtol).all())


def _nan(n: Numbers) -> str | None:
    bad = n.value.isnan() & ~n.expected.isnan()
    if bad.any():
        share = "All entries are" if bad.all() else f"{_share(bad)} entries are"
        return f"{share} NaN (not a number): look for 0/0, the logarithm of a negative number, or infinity minus infinity."
    infinite = n.value.isinf() & ~n.expected.isinf()
    if infinite.any():
        return f"{_share(infinite)} entries are infinite: look for a division by 0, a log of 0, or a mask that stayed."
    if (n.expected.isinf() & n.value.isfinite()).any():
        where = n.expected.isinf() & n.value.isfinite()
        return f"{_share(where)} entries should be infinite (masked), and are finite: is the mask missing?"
    return None


def _share(bad: Tensor) -> str:
    return f"{int(bad.sum())} of {bad.numel()}"


def _transposed(n: Numbers) -> str | None:
    for order in permutations(range(n.expected.ndim)):
        if order != tuple(range(n.expected.ndim)) and n.is_near(n.expected.permute(order)):
            moved = [n.axes[i] for i, j in enumerate(order) if i != j]
            return f"The numbers are right, but `{'` and `'.join(moved)}` are swapped: did you return the transpose?"
    return None


def _sign(n: Numbers) -> str | None:
    return "Every number has the opposite sign." if n.is_near(-n.expected) else None


def _factor(n: Numbers) -> str | None:
    square = float((n.expected**2).sum())
    if n.expected.numel() < 2 or square == 0:
        return None
    k = float((n.value * n.expected).sum()) / square
    if k == 0 or not n.is_near(k * n.expected):
        return None
    return f"Everything is {k:.3g} times what was expected{_meaning(k)}."


def _meaning(k: float) -> str:
    """What a constant factor may come from."""
    for size, too_big in ((abs(k), True), (1 / abs(k), False)):
        if 1.5 < size < 10_000 and abs(size - round(size)) < 1e-3 * size:
            return f" (1/{round(size)})" * (not too_big) + (
                ": was a sum taken where a mean is asked for?"
                if too_big
                else ": was a mean taken where a sum is asked for?"
            )
        if 1.2 < size < 100 and abs(size**2 - round(size**2)) < 1e-3 * size**2:
            root = f"sqrt({round(size**2)})"
            return (
                f", which is {root}: is a division by it missing?"
                if too_big
                else f", which is 1/{root}: is a division by it one too many?"
            )
    return ": is a scale missing or one too many?"


def _offset(n: Numbers) -> str | None:
    c = float((n.value - n.expected).mean())
    if n.expected.numel() < 2 or not n.is_near(n.expected + c):
        return None
    return f"Everything is {abs(c):.3g} too {'large' if c > 0 else 'small'}: is a constant (a bias, a mean) missing or one too many?"


def _offset_per_row(n: Numbers) -> str | None:
    if n.expected.ndim < 2:
        return None
    for i, axis in enumerate(n.axes):
        if n.expected.shape[i] > 1 and n.is_near(n.expected + (n.value - n.expected).mean(i, keepdim=True)):
            return f"The differences along `{axis}` are right, but a constant is off for each {_others(n, i)}: is a bias or a mean missing or one too many?"
    return None


def _factor_per_row(n: Numbers) -> str | None:
    if n.expected.ndim < 2:
        return None
    for i, axis in enumerate(n.axes):
        square = (n.expected**2).sum(i, keepdim=True)
        k = (n.value * n.expected).sum(i, keepdim=True) / square.clamp_min(1e-300)
        if n.expected.shape[i] > 1 and n.is_near(k * n.expected):
            return f"Along `{axis}` the proportions are right, but each {_others(n, i)} has its own scale: is a normalisation missing, or taken over another axis?"
    return None


def _others(n: Numbers, i: int) -> str:
    return " and ".join(f"`{axis}`" for j, axis in enumerate(n.axes) if j != i)


def _shifted(n: Numbers) -> str | None:
    for i, axis in enumerate(n.axes):
        size = n.expected.shape[i]
        if size < 3:
            continue
        for step in (1, -1):
            value = n.value.narrow(i, max(step, 0), size - 1)
            moved = n.expected.narrow(i, max(-step, 0), size - 1)
            varies = not bool(agree(moved, moved.select(i, 0).unsqueeze(i).expand_as(moved)).all())
            if varies and bool(agree(value, moved, n.atol, n.rtol).all()):
                return f"The numbers are right, but one too far {'up' if step > 0 else 'down'} along `{axis}`: off by one."
    return None


def _reversed(n: Numbers) -> str | None:
    for i, axis in enumerate(n.axes):
        if n.is_near(n.expected.flip(i)):
            return f"The numbers are right, but in reverse order along `{axis}`."
    return None


def _transformed(n: Numbers) -> str | None:
    e = n.expected
    if n.is_near(e.abs()):
        return "Negative numbers came out positive: is an absolute value taken that was not asked for?"
    if e.min() > 0 and n.is_near(e.log()):
        return "These are the logarithms of what was expected: probabilities instead of log-probabilities are asked for."
    if e.max() <= 0 and n.is_near(e.exp()):
        return "These are the exponentials of what was expected: the logarithms (such as log-probabilities) are asked for."
    for i, axis in enumerate(n.axes):
        sums = e.sum(i)
        if e.min() >= 0 and e.shape[i] > 1 and bool(agree(sums, torch.ones_like(sums)).all()):
            if Numbers(n.value.softmax(i), e, n.axes, n.atol, n.rtol).is_near(e):
                return f"A softmax over `{axis}` is missing."
            if n.is_near(
                e.argmax(i, keepdim=True)
                == torch.arange(e.shape[i]).view([-1 if j == i else 1 for j in range(e.ndim)])
            ):
                return f"Only the largest along `{axis}` is kept; the probabilities themselves are asked for."
    return None


def _masked(n: Numbers) -> str | None:
    if n.expected.ndim < 2 or n.expected.shape[-1] != n.expected.shape[-2]:
        return None
    wrong = ~agree(n.value, n.expected, n.atol, n.rtol)
    above = torch.ones_like(wrong).triu(1)
    diagonal = torch.eye(wrong.shape[-1], dtype=torch.bool).expand_as(wrong)
    rows, columns = n.axes[-2], n.axes[-1]
    if not (wrong & ~above).any():
        return f"Only entries with `{columns}` after `{rows}` are wrong, those that a causal mask takes out."
    if not (wrong & above).any() and wrong.sum() > wrong.shape[-1] and not (wrong & diagonal).any():
        return f"Only entries with `{columns}` before `{rows}` are wrong."
    if not (wrong & ~diagonal).any():
        return f"Only the diagonal (`{rows}` = `{columns}`) is wrong."
    return None


def _some_indices(n: Numbers) -> str | None:
    wrong = ~agree(n.value, n.expected, n.atol, n.rtol)
    found: list[tuple[float, str]] = []
    for i, axis in enumerate(n.axes):
        bad = wrong.any(dim=tuple(j for j in range(wrong.ndim) if j != i)) if wrong.ndim > 1 else wrong
        indices = bad.nonzero().flatten().tolist()
        if bad.numel() > 2 and len(indices) <= max(1, bad.numel() // 3):
            shown = ", ".join(map(str, indices[:5])) + (", ..." if len(indices) > 5 else "")
            found.append((len(indices) / bad.numel(), f"`{axis}` {shown}"))
    if not found:
        return None
    return f"Most of it is right; wrong only at {min(found)[1]}. {_farthest(n)}"


def _farthest(n: Numbers) -> str:
    """Where the value is farthest from the expected one, with both numbers."""
    difference = (n.value - n.expected).abs().nan_to_num(nan=0.0, posinf=0.0)
    difference[agree(n.value, n.expected, n.atol, n.rtol)] = 0.0
    if n.expected.ndim == 0:
        return f"Expected {number(n.expected.item())}, got {number(n.value.item())}."
    at = torch.unravel_index(difference.argmax(), difference.shape)
    place = ", ".join(f"{axis} {int(i)}" for axis, i in zip(n.axes, at, strict=True))
    return (
        f"For example at {place}: expected {number(n.expected[at].item())}, got {number(n.value[at].item())}."
    )


DIAGNOSES: tuple[Callable[[Numbers], str | None], ...] = (
    _transposed, _sign, _factor, _offset, _transformed, _shifted, _reversed,
    _offset_per_row, _factor_per_row, _masked, _some_indices,
)  # fmt: skip
"""Tried in this order; each says in words what is wrong if it is the whole explanation, else None."""


def number_problem(pairs: Sequence[Numbers]) -> str:
    """What is wrong with the numbers of the cases that fail, from the first explanation that holds in all of them."""
    for n in pairs:
        if problem := _nan(n):
            return problem
    if all(n.finite and not n.value.is_complex() for n in pairs):
        for diagnose in DIAGNOSES:
            texts = [diagnose(n) for n in pairs]
            if all(texts):
                return str(texts[0])
    n = pairs[0]
    wrong = ~agree(n.value, n.expected, n.atol, n.rtol)
    if n.expected.ndim == 0:
        return _farthest(n)
    return f"{_share(wrong)} entries are wrong. {_farthest(n)}"


def other_problem(value: Any, expected: Any, axes: Axes) -> str:
    """What is wrong with an answer that is not a tensor, without giving the right one away."""
    if isinstance(expected, float):
        if math.isnan(value):
            return "The number is NaN (not a number)."
        return number_problem([Numbers(torch.tensor(value), torch.tensor(expected), None, None, None)])
    if isinstance(expected, str):
        if value.strip().lower() == expected.strip().lower():
            return f"{kind(value).capitalize()} differs only in spaces or capital letters."
        return f"{kind(value).capitalize()} is not it."
    if isinstance(expected, tuple | list):
        if len(expected) > 1 and same(tuple(value), tuple(reversed(expected))):
            order = f": ({', '.join(axes)})" if axes and len(axes) == len(expected) else ""
            return f"The right items in reverse order; the order asked for is another{order}."
        wrong = [i for i, (v, e) in enumerate(zip(value, expected, strict=True)) if not same(v, e)]
        names = [axes[i] if axes and len(axes) == len(expected) else f"item {i}" for i in wrong]
        return f"{' and '.join(f'`{name}`' for name in names)} {'is' if len(names) == 1 else 'are'} wrong."
    if isinstance(expected, set | frozenset):
        extra, missing = len(value - expected), len(expected - value)
        return f"{extra} of your {len(value)} items do not belong, and {missing} are missing."
    if isinstance(expected, dict):
        wrong_keys = [key for key in expected if not same(value[key], expected[key])]
        return (
            f"Wrong at the key{'s' if len(wrong_keys) > 1 else ''} " + ", ".join(map(repr, wrong_keys)) + "."
        )
    if isinstance(expected, bool):
        return f"{value} is not it."
    return f"{kind(value).capitalize()} is not it."
