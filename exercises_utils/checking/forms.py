"""What is wrong with the type or the shape of an answer, before its numbers are looked at."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from exercises_utils.checking.values import Axes, UnusualValue, axis_names, kind, named_shape, wanted


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
    names = axis_names(expected, axes)
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
