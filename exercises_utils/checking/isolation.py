"""Run a learner's function so that nothing it does stays behind, and say what it tried to leave.

Used by `checking.Check.collect`. Knows nothing of what a model means: a model is a module with
parameters, buffers and hooks, and all of them must be the same after the call as before.
"""

import hashlib
import inspect
import linecache
import random
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

_NOT_THE_LEARNERS = tuple(
    Path(folder).resolve()
    for folder in (
        *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")),
        str(Path(__file__).parent.parent),
    )
)


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


@contextmanager
def same_process_state(changes: list[str] | None = None, gradients: bool = False) -> Iterator[None]:
    """Run a block with gradients off and seeded random generators; put all of that back after it.

    Random numbers that a learner's function draws are then the same in every run of a check, and the
    notebook's own random state never notices that a check ran. `changes` is filled with what the block left changed in
    the process, in words for the learner. `gradients` runs it with gradients on: only so is it seen that a function
    leaves them off.
    """
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002 - the learner's code may use the global generator
    dtype = torch.get_default_dtype()
    try:
        with torch.random.fork_rng(), torch.set_grad_enabled(gradients):
            torch.set_rng_state(torch.Generator("cpu").manual_seed(0).get_state())
            random.seed(0)
            np.random.seed(0)  # noqa: NPY002
            yield
            if changes is not None:
                changes += _process_changes(dtype, gradients)
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_default_dtype(dtype)


def _process_changes(dtype: torch.dtype, gradients: bool) -> list[str]:
    """What is not as it was before a block that began with this default dtype and this grad mode."""
    found = []
    if torch.is_grad_enabled() != gradients:
        now = "off" if gradients else "on"
        found.append(
            f"Your function leaves gradients switched {now}, for everything that follows it. Use "
            f"`with torch.set_grad_enabled({not gradients}):`, which puts them back."
        )
    if torch.get_default_dtype() != dtype:
        found.append(
            f"Your function leaves the default dtype changed, to {str(torch.get_default_dtype()).removeprefix('torch.')}: "
            "every tensor made after it has that type. Name the dtype where a tensor is made."
        )
    return found


def fingerprint(value: Any, depth: int = 4) -> Any:
    """A small value that changes when any number inside `value` changes.

    Looks into containers, dataclasses and other objects, `depth` levels deep.
    """
    if isinstance(value, Tensor):
        data = (
            value.detach().cpu().clone(memory_format=torch.contiguous_format)
        )  # strides of 1, whatever its sizes
        return tuple(data.shape), str(data.dtype), _hash(data.flatten().view(torch.uint8).numpy())
    if isinstance(value, np.ndarray):
        return value.shape, str(value.dtype), _hash(np.ascontiguousarray(value))
    if isinstance(value, nn.Module):
        return model_state(value)
    if isinstance(value, Mapping):
        return tuple((str(key), fingerprint(item, depth)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return type(value).__name__, tuple(fingerprint(item, depth) for item in value)
    if isinstance(value, set | frozenset):
        return tuple(sorted(map(repr, value)))
    if type(value) in (bool, int, float, complex, str):
        return repr(value)
    if depth and hasattr(value, "__dict__") and not callable(value):
        return fingerprint(vars(value), depth - 1)
    return None


def _hash(array: np.ndarray) -> bytes:
    return hashlib.blake2b(array.tobytes(), digest_size=16).digest()


@dataclass(frozen=True)
class ModelState:
    """What must be the same in a model after a learner's function as before it."""

    weights: dict[str, Any]
    hooks: dict[str, int]
    modes: dict[str, Any]
    settings: dict[str, Any]


def model_state(model: nn.Module) -> ModelState:
    """The model's weights (as hashes), hooks (as counts), modes and settings, by name of parameter and module."""
    tensors = {**dict(model.named_buffers()), **model.state_dict()}
    modules = dict(model.named_modules())
    return ModelState(
        weights={name: fingerprint(tensor) for name, tensor in tensors.items()},
        hooks={name: count for name, module in modules.items() if (count := _count_hooks(module))},
        modes={name: (module.training, id(vars(module).get("forward"))) for name, module in modules.items()},
        settings=_settings(model),
    )


def _settings(model: nn.Module) -> dict[str, Any]:
    """The plain entries of the model's config, and which of its parameters ask for gradients."""
    config = getattr(getattr(model, "cfg", None), "__dict__", {})
    plain = {f"cfg.{name}": v for name, v in config.items() if type(v) in (bool, int, float, str, type(None))}
    return plain | {f"{name}.requires_grad": p.requires_grad for name, p in model.named_parameters()}


def _count_hooks(module: nn.Module) -> int:
    """How many hooks somebody put on a module; those that its own library wires are not counted."""
    if hasattr(module, "fwd_hooks"):  # a hook point of TransformerLens keeps its own lists
        point: Any = module
        return len(point.fwd_hooks) + len(point.bwd_hooks)
    own_package = type(module).__module__.partition(".")[0]
    registries = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    hooks = [hook for registry in registries for hook in registry.values()]
    return sum(getattr(hook, "__module__", "").partition(".")[0] != own_package for hook in hooks)


def model_change(before: ModelState, after: ModelState) -> str | None:
    """What changed in a model, in words for the learner; None if nothing did."""
    # Names come and go when a bridge is first used; only what is there both times can have been changed.
    changed = [name for name, value in after.weights.items() if before.weights.get(name, value) != value]
    if changed:
        return (
            f"Your function changes the model's weights (`{tidy_name(changed[0])}`): all that follows would "
            "run on another model. Work on a copy (`.clone()`), or edit activations in a hook."
        )
    if more := [name for name in after.hooks if after.hooks[name] > before.hooks.get(name, 0)]:
        return (
            f"Your function leaves a hook on the model (at `{tidy_name(more[0])}`), which acts on every "
            "later run. Use `with model.hooks(...)` or `model.run_with_hooks(...)`, which take it off again."
        )
    if fewer := [name for name in before.hooks if before.hooks[name] > after.hooks.get(name, 0)]:
        return (
            f"Your function takes off a hook that it did not put on the model (at `{tidy_name(fewer[0])}`)."
        )
    if any(before.modes.get(name, mode) != mode for name, mode in after.modes.items()):
        return (
            "Your function leaves the model in another mode (`train` or `eval`) than before, or with another "
            "`forward`. Put it back before you return."
        )
    if other := [n for n, value in before.settings.items() if after.settings.get(n, value) != value]:
        name = tidy_name(other[0])
        return (
            f"Your function leaves a setting of the model changed (`{name}`). Put it back before you return."
        )
    return None


def tidy_name(name: str) -> str:
    """A parameter's or module's name without the wrapper layers of a bridge."""
    parts = [part for part in name.split(".") if part not in ("_original_component", "original_component")]
    return ".".join(parts) or "the model itself"


def parameter_names(function: Callable[..., Any]) -> list[str]:
    """The names of a function's parameters, or nothing where Python cannot tell."""
    try:
        parameters = inspect.signature(function).parameters.values()
        return [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    except (TypeError, ValueError):
        return []


def is_blank(function: Callable[..., Any]) -> bool:
    """Whether a function's body is only `pass`, `...`, a docstring or `return None`."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return isinstance(code, CodeType) and not code.co_names and set(code.co_code[::2]) <= _blank_opcodes()


def _blank_opcodes() -> set[int]:
    # Lambdas, since a function would be another one where its types are checked (as they are in the tests).
    blanks: tuple[Callable[[], Any], ...] = (lambda: None, lambda: ...)
    return {op for function in blanks for op in function.__code__.co_code[::2]}


def innermost_frame(error: BaseException) -> FrameType | None:
    """The frame in which an error was raised."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame if traceback else None


def is_learners_code(filename: str) -> bool:
    """Whether a source file is neither this package, nor a library, nor Python's own."""
    if filename.startswith("<"):  # code without a file: a cell of an older IPython, or made by a decorator
        return not filename.startswith(("<frozen", "<@"))
    path = Path(filename).resolve()
    return not any(path.is_relative_to(folder) for folder in _NOT_THE_LEARNERS)


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
    """A copy of a case's argument down to its tensors, so that a call cannot change the check's own."""
    if isinstance(argument, Tensor):
        return argument.clone()
    if isinstance(argument, nn.Module):
        raise TypeError(
            "a case passes a model itself; pass `Fresh(factory)`, so that each call gets a clean one"
        )
    if isinstance(argument, torch.Generator):
        return torch.Generator(argument.device).set_state(argument.get_state())
    if type(argument) is dict:
        return {key: copy_of(item) for key, item in argument.items()}
    if type(argument) in (list, tuple):
        return type(argument)(copy_of(item) for item in argument)
    if isinstance(argument, np.ndarray):
        return argument.copy()
    if is_dataclass(argument) and not isinstance(argument, type):
        return type(argument)(
            **{field.name: copy_of(getattr(argument, field.name)) for field in fields(argument) if field.init}
        )
    return argument


def side_effects(names: Sequence[str], before: Sequence[Any], arguments: Sequence[Any]) -> dict[int, str]:
    """What a call changed in its arguments, in words by the argument's number.

    `before` holds the arguments' fingerprints from before the call, `names` the function's parameters.
    """
    found: dict[int, str] = {}
    for i, (earlier, argument) in enumerate(zip(before, arguments, strict=True)):
        now = fingerprint(argument)
        if isinstance(now, ModelState):
            if change := model_change(earlier, now):
                found[i] = change
        elif now != earlier:
            name = f"`{names[i]}`" if i < len(names) else f"number {i + 1}"
            found[i] = (
                f"Your function changes its argument {name} in place, and with it the caller's data. "
                "Make a copy first (`.clone()`) and change that."
            )
    return found
