"""Run a learner's function so that nothing it does stays behind, and say what it tried to leave.

Used by `checking.Check.collect`. Knows nothing of what a model means: a model is a module with
parameters, buffers and hooks, and all of them must be the same after the call as before.
"""

import hashlib
import inspect
import linecache
import random
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_LIBRARIES = tuple(
    str(Path(p).resolve()) for p in {sysconfig.get_path(k) for k in ("stdlib", "purelib", "platlib")}
)
_PACKAGE = str(Path(__file__).resolve().parent)


class Fresh:
    """A model (or anything else that can be changed) for a check's case, made when it is first needed.

    `factory` takes no arguments. The object is kept and handed out again as long as nobody changed it;
    `discard` throws it away, and the next `get` makes a new one. Share one `Fresh` between cases and
    checks that use the same model, so that it is built once.
    """

    def __init__(self, factory: Callable[[], Any]) -> None:
        self.factory = factory
        self._kept: list[Any] = []

    def get(self) -> Any:
        """The object, made now if there is none yet."""
        if not self._kept:
            self._kept.append(self.factory())
        return self._kept[0]

    def discard(self) -> None:
        """Forget the object: it was changed."""
        self._kept.clear()


@dataclass(frozen=True)
class UnusualValue:
    """Stands for a value that is neither a tensor nor plain Python, by the name of its type."""

    type_name: str


def plain(value: Any) -> Any:
    """`value` as plain data: CPU tensors without gradient, numbers, strings, and containers of these.

    Numpy arrays become tensors, numpy scalars Python numbers. Anything else becomes an `UnusualValue`,
    so that the result can be pickled and judged without running code of whoever made it.
    """
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


@contextmanager
def same_process_state() -> Iterator[None]:
    """Run a block with gradients off and seeded random generators; put all of that back after it.

    Random numbers that a learner's function draws are then the same in every run of a check, and the
    notebook's own random state never notices that a check ran.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    dtype = torch.get_default_dtype()
    try:
        with torch.random.fork_rng(enabled=True), torch.no_grad():
            torch.set_rng_state(torch.Generator("cpu").manual_seed(0).get_state())
            random.seed(0)
            np.random.set_state(np.random.RandomState(0).get_state())
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_default_dtype(dtype)


def fingerprint(value: Any) -> Any:
    """A small value that changes when any number inside `value` changes."""
    if isinstance(value, Tensor):
        data = value.detach().cpu().contiguous()
        raw = data.flatten().view(torch.uint8).numpy() if data.numel() else b""
        return tuple(data.shape), str(data.dtype), hashlib.blake2b(raw, digest_size=16).digest()
    if isinstance(value, np.ndarray):
        return value.shape, str(value.dtype), hashlib.blake2b(value.tobytes(), digest_size=16).digest()
    if isinstance(value, nn.Module):
        return model_state(value)
    if isinstance(value, Mapping):
        return tuple((str(key), fingerprint(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return type(value).__name__, tuple(fingerprint(item) for item in value)
    if isinstance(value, set | frozenset):
        return tuple(sorted(map(repr, value)))
    if is_dataclass(value) and not isinstance(value, type):
        return tuple((field.name, fingerprint(getattr(value, field.name))) for field in fields(value))
    return repr(value) if type(value) in (bool, int, float, complex, str) else None


@dataclass(frozen=True)
class ModelState:
    """What must be the same in a model after a learner's function as before it."""

    weights: dict[str, Any]
    hooks: dict[str, int]
    modes: dict[str, Any]


def model_state(model: nn.Module) -> ModelState:
    """The model's weights (as hashes), hooks (as counts) and modes, by name of parameter and module."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    modules = dict(model.named_modules())
    return ModelState(
        weights={name: fingerprint(tensor) for name, tensor in tensors.items()},
        hooks={name: count for name, module in modules.items() if (count := _count_hooks(module))},
        modes={name: (module.training, id(vars(module).get("forward"))) for name, module in modules.items()},
    )


def _count_hooks(module: nn.Module) -> int:
    """How many hooks somebody put on a module; those that its own library wires are not counted."""
    if hasattr(module, "fwd_hooks"):  # a hook point of TransformerLens keeps its own lists
        return len(module.fwd_hooks) + len(getattr(module, "bwd_hooks", ()))
    own_package = type(module).__module__.partition(".")[0]
    registries = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    hooks = [hook for registry in registries for hook in registry.values()]
    return sum(getattr(hook, "__module__", "").partition(".")[0] != own_package for hook in hooks)


def model_changes(before: ModelState, after: ModelState) -> list[str]:
    """What changed in a model, in words for the learner; empty if nothing did."""
    changes = []
    # Names come and go when a bridge is first used (buffers that it makes lazily): only what is in both counts.
    changed = [name for name, value in after.weights.items() if before.weights.get(name, value) != value]
    if changed:
        changes.append(
            f"Your function changes the model's weights (`{tidy_name(changed[0])}`), so everything after it would run "
            "on another model. Work on a copy (`.clone()`), or edit activations in a hook."
        )
    more = [name for name in after.hooks if after.hooks[name] > before.hooks.get(name, 0)]
    fewer = [name for name in before.hooks if before.hooks[name] > after.hooks.get(name, 0)]
    if more:
        changes.append(
            f"Your function leaves a hook on the model (at `{tidy_name(more[0])}`), which then acts on every later "
            "run. Use `with model.hooks(...)` or `model.run_with_hooks(...)`, which take the hook off again."
        )
    elif fewer:
        changes.append(f"Your function removes a hook that it did not add (at `{tidy_name(fewer[0])}`).")
    if any(before.modes.get(name, mode) != mode for name, mode in after.modes.items()):
        changes.append(
            "Your function switches the model between training and evaluation mode, or replaces a `forward`, and "
            "leaves it so. Put it back before you return."
        )
    return changes


def tidy_name(name: str) -> str:
    """A parameter's or module's name without the wrapper layers of a bridge."""
    parts = [part for part in name.split(".") if part not in ("_original_component", "original_component")]
    return ".".join(parts) or "the model itself"


def parameter_names(function: Callable[..., Any]) -> list[str]:
    """The names of a function's parameters, or nothing where Python cannot tell."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def is_blank(function: Callable[..., Any]) -> bool:
    """Whether a function's body is only `pass`, `...`, a docstring or `return None`."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return isinstance(code, CodeType) and not code.co_names and set(code.co_code[::2]) <= _blank_opcodes()


def _blank_opcodes() -> set[int]:
    def documented() -> None:
        """Only a docstring."""

    def dots() -> None: ...

    def explicit() -> None:
        return None

    return {op for function in (documented, dots, explicit) for op in function.__code__.co_code[::2]}


def innermost_frame(error: BaseException) -> FrameType | None:
    """The frame in which an error was raised."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame if traceback else None


def is_learners_code(filename: str) -> bool:
    """Whether a source file is neither this package, nor a library, nor Python's own."""
    if filename.startswith("<frozen"):
        return False
    path = str(Path(filename).resolve()) if not filename.startswith("<") else filename
    return not path.startswith((*_LIBRARIES, _PACKAGE, sys.prefix))


def describe_error(error: BaseException) -> str:
    """An error in one line: its type, its message, and the learner's own line that led to it."""
    text = " ".join(str(error).split())
    text = f"{type(error).__name__}: {text[:297] + '...' if len(text) > 300 else text}".removesuffix(": ")
    where: TracebackType | None = None
    traceback = error.__traceback__
    while traceback is not None:
        if is_learners_code(traceback.tb_frame.f_code.co_filename):
            where = traceback
        traceback = traceback.tb_next
    if where is None:
        return text
    line = linecache.getline(where.tb_frame.f_code.co_filename, where.tb_lineno).strip()
    return f"{text} (line {where.tb_lineno}{f': `{line}`' if line else ''})"


def copy_of(argument: Any) -> Any:
    """A deep copy of a case's argument, so that a learner's function cannot change the check's own."""
    if isinstance(argument, Tensor):
        return argument.clone()
    if isinstance(argument, nn.Module):
        raise TypeError(
            "a case passes a model itself; wrap its factory in `Fresh`, so that each call gets a clean one"
        )
    if isinstance(argument, Mapping) and type(argument) is dict:
        return {key: copy_of(item) for key, item in argument.items()}
    if type(argument) in (list, tuple):
        return type(argument)(copy_of(item) for item in argument)
    if isinstance(argument, np.ndarray):
        return argument.copy()
    if is_dataclass(argument) and not isinstance(argument, type):
        return type(argument)(
            **{field.name: copy_of(getattr(argument, field.name)) for field in fields(argument)}
        )
    return argument


def side_effects(names: Sequence[str], before: Sequence[Any], arguments: Sequence[Any]) -> list[str]:
    """What a call changed in its arguments, in words. `before` holds their fingerprints from before it."""
    found: list[str] = []
    for i, (earlier, argument) in enumerate(zip(before, arguments, strict=True)):
        now = fingerprint(argument)
        if isinstance(now, ModelState):
            found += model_changes(earlier, now)
        elif now != earlier:
            name = f"`{names[i]}`" if i < len(names) else f"number {i + 1}"
            found.append(
                f"Your function changes its argument {name} in place, and with it the caller's data. "
                "Make a copy first (`.clone()`) and change that."
            )
    return found
