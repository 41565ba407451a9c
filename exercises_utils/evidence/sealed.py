"""A function run with nothing in reach but its arguments: how an explanation is kept from asking the model.

This is a guard for teaching, not a sandbox. It stops the accident (a global `model` used by habit) and the
honest shortcut, with a message that says what to do instead. It does not stop somebody who sets out to get
around it.
"""

import builtins
import dis
import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LIBRARIES = (
    "torch",
    "einops",
    "eindex",
    "math",
    "numpy",
    "itertools",
    "functools",
    "operator",
    "collections",
    "typing",
)
"""What a sealed function may import or name: tools for computing."""

FORBIDDEN = ("breakpoint", "compile", "eval", "exec", "globals", "input", "locals", "open", "vars")
"""Built-in functions that reach beyond the arguments."""


class SealError(ValueError):
    """A function reaches for something other than its arguments."""


class Sealed:
    """The function, rebuilt so that it sees only its arguments, computing libraries, constants and helpers.

    Helpers are other plain Python functions that it calls; they are rebuilt in the same way. Constants are
    numbers, strings, and lists, tuples and dicts of them. ``n_floats`` counts the floats that the function
    brings along, in its code or as constants from outside: numbers that it knows without having been given
    them. (Whole numbers are not counted: they are mostly positions and sizes.)

    Raises:
        SealError: the function, or a helper, names anything else, such as a model or a tensor.

    >>> Sealed(lambda inputs, numbers: inputs[:, 1] == numbers["token"])     # doctest: +ELLIPSIS
    <exercises_utils.evidence.sealed.Sealed object at ...>
    """

    def __init__(self, function: Any) -> None:
        self.n_floats = 0
        self._rebuilt: dict[int, types.FunctionType] = {}
        self._name = getattr(function, "__name__", "the function")
        # A decorator such as `torch.no_grad` is not part of an explanation.
        function = inspect.unwrap(function)
        if not isinstance(function, types.FunctionType):
            raise SealError(
                "expected a plain function, written with `def` or `lambda`; got a "
                f"{type(function).__name__}, which can carry a model with it"
            )
        self._call = self._rebuild(function)

    def __call__(self, *arguments: Any) -> Any:
        """What the sealed function returns."""
        return self._call(*arguments)

    def _rebuild(self, function: types.FunctionType) -> types.FunctionType:
        if id(function) in self._rebuilt:
            return self._rebuilt[id(function)]
        cells = tuple(types.CellType() for _ in function.__closure__ or ())
        scope: dict[str, Any] = {"__builtins__": _safe_builtins(), "__name__": "sealed"}
        rebuilt = types.FunctionType(function.__code__, scope, function.__name__, None, cells)
        self._rebuilt[id(function)] = rebuilt  # before looking further: functions may call themselves
        for name in _global_names(function.__code__):
            if name in function.__globals__:
                scope[name] = self._allowed(function.__globals__[name], f"`{name}`")
            elif name in FORBIDDEN:
                raise SealError(f"`{self._name}` calls `{name}`, which reaches beyond its arguments")
        for cell, name, outer in zip(
            cells, function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            try:
                contents = outer.cell_contents
            except ValueError:  # named, and not yet defined
                continue
            cell.cell_contents = self._allowed(contents, f"`{name}`")
        if function.__defaults__:
            rebuilt.__defaults__ = tuple(
                self._allowed(value, "a default value") for value in function.__defaults__
            )
        if function.__kwdefaults__:
            rebuilt.__kwdefaults__ = {
                name: self._allowed(value, f"the default of `{name}`")
                for name, value in function.__kwdefaults__.items()
            }
        self.n_floats += sum(1 for _ in _floats_in(function.__code__))
        return rebuilt

    def _allowed(self, value: Any, what: str) -> Any:
        """The value as the sealed function may see it, or an error that says what to do instead."""
        if isinstance(value, Tensor | np.ndarray | np.generic):
            raise SealError(
                f"`{self._name}` uses {what}, a {type(value).__name__} from outside. Put it into `numbers`, "
                "so that it is counted, and read it from there"
            )
        if isinstance(value, nn.Module):
            raise SealError(
                f"`{self._name}` uses {what}, a {type(value).__name__}: no model is in scope. Read what you "
                "need from its weights first, and put that into `numbers`"
            )
        if value is None or isinstance(value, bool | int | str | range | slice | torch.dtype | torch.device):
            return value
        if isinstance(value, float | complex):
            self.n_floats += 1
            return value
        if type(value) in (list, tuple, set, frozenset):
            return type(value)(self._allowed(item, what) for item in value)
        if type(value) is dict:
            return {key: self._allowed(item, what) for key, item in value.items()}
        if _comes_from_libraries(value):
            return value
        if isinstance(value, types.FunctionType):
            return self._rebuild(value)
        kind = (
            f"the module {value.__name__}"
            if isinstance(value, types.ModuleType)
            else f"a {type(value).__name__}"
        )
        raise SealError(
            f"`{self._name}` uses {what}, {kind}, from outside. In scope are its arguments, "
            f"{', '.join(LIBRARIES)}, constants, and functions of your own that keep to the same"
        )


def _comes_from_libraries(value: Any) -> bool:
    """Whether this is a module, a class or a function of one of the computing libraries."""
    if isinstance(value, types.ModuleType):
        return value.__name__.partition(".")[0] in LIBRARIES
    owner = getattr(value, "__self__", None)
    if not (owner is None or isinstance(owner, type | types.ModuleType)):
        return False  # a method carries its object along, such as a model's
    if isinstance(value, np.ufunc):
        return True
    function = types.FunctionType | types.BuiltinFunctionType | types.MethodDescriptorType | type(np.where)
    home = (getattr(value, "__module__", None) or "").partition(".")[0]
    return isinstance(value, function | type) and home in (*LIBRARIES, "builtins", "_operator")


def _safe_builtins() -> Mapping[str, Any]:
    def import_library(name: str, *arguments: Any) -> Any:
        if name.partition(".")[0] not in LIBRARIES:
            raise SealError(f"imports `{name}`; a sealed function may import {', '.join(LIBRARIES)}")
        return builtins.__import__(name, *arguments)

    safe = {name: value for name, value in vars(builtins).items() if name not in FORBIDDEN}
    return {**safe, "__import__": import_library}


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of a function and of everything defined inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _global_names(code: types.CodeType) -> set[str]:
    return {
        instruction.argval
        for inner in _codes(code)
        for instruction in dis.get_instructions(inner)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }


def _floats_in(code: types.CodeType) -> Iterator[float | complex]:
    stack = [constant for inner in _codes(code) for constant in inner.co_consts]
    while stack:
        constant = stack.pop()
        if isinstance(constant, tuple | frozenset):
            stack.extend(constant)
        elif isinstance(constant, float | complex):
            yield constant
