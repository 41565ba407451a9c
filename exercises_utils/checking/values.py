"""Plain values: how any answer becomes one, when two of them are the same, how they read in a sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

RTOL = 1e-4
"""Allowed error as a share of each expected number: above float32 noise, whatever the order of a sum."""
ATOL_SHARE = 1e-5
"""Allowed error as a share of the largest expected number, where a case names no `atol`."""

Axes = Sequence[str] | Mapping[str, Sequence[str]] | None
"""The names of an answer's axes or items; for a tuple or dict of tensors, each item's name and the names of its axes."""


@dataclass(frozen=True)
class UnusualValue:
    """Stands for a value that is neither a tensor nor plain Python, by the name of its type."""

    type_name: str


def plain(value: Any) -> Any:
    """`value` as plain data: CPU tensors without gradient, numbers, strings, and containers of these.

    Numpy arrays become tensors, numpy scalars Python numbers. Anything else becomes an `UnusualValue`,
    so that the result can be pickled and judged without running code of whoever made it.
    """
    if isinstance(value, Tensor) and value.is_meta:
        return UnusualValue("tensor on the device meta, which has no numbers")
    if isinstance(value, Tensor):
        dense = value.detach().to_dense() if value.layout != torch.strided else value.detach()
        return dense.to("cpu", copy=True).as_subclass(Tensor)
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy()) if value.dtype.kind in "biufc" else plain(value.tolist())
    if value is None or value is Ellipsis or type(value) in (bool, int, float, complex, str):
        return value
    if isinstance(value, Mapping):
        return {plain(key) if _hashable(key) else str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, list | range):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return {plain(item) if _hashable(plain(item)) else repr(item) for item in value}
    return UnusualValue(type(value).__name__)


def _hashable(value: Any) -> bool:
    return not isinstance(value, Tensor | np.ndarray) and type(value).__hash__ is not None


def convert(value: Any, expected: Any) -> Any:
    """`value` as the type of `expected` where that loses nothing; otherwise as it is.

    Lists become tensors, tensors become lists or tuples, 0-d tensors numbers, and whole floats integers.
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
    """Nested lists of numbers and tensors as one tensor; the list itself where its parts do not fit."""
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
    value, expected = double(value), double(expected)
    near = (value - expected).abs() <= tolerance(expected, atol, rtol)
    return near | (value == expected) | (value.isnan() & expected.isnan())


def double(tensor: Tensor) -> Tensor:
    """The same numbers in double precision, real or complex."""
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
        pair = [torch.tensor(number, dtype=torch.float64) for number in (value, expected)]
        return bool(agree(pair[0], pair[1], atol, rtol))
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
    if isinstance(expected, str) and isinstance(value, str):
        return value.split() == expected.split()
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
    if not axes or isinstance(axes, Mapping) or len(axes) != tensor.ndim:
        return str(tuple(tensor.shape))
    return "(" + ", ".join(f"{axis}: {size}" for axis, size in zip(axes, tensor.shape, strict=True)) + ")"


def shown(value: Any) -> str:
    """A short value as Python shows it."""
    text = number(value) if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: "`layer`, `head` and `position`"."""
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def axis_names(tensor: Tensor, axes: Axes) -> list[str]:
    """The names of a tensor's axes; "axis 0" and so on where they are not known."""
    if axes and not isinstance(axes, Mapping) and len(axes) == tensor.ndim:
        return list(axes)
    return [f"axis {i}" for i in range(tensor.ndim)]


def item_names(items: Sequence[Any], axes: Axes) -> list[str]:
    """The names of a tuple's or list's items; "item 0" and so on where they are not known."""
    return list(axes) if axes and len(axes) == len(items) else [f"item {i}" for i in range(len(items))]
