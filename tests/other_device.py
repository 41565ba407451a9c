"""A second device on a machine that has only a CPU, to find code that mixes devices.

Inside `other_device()`, "cuda" is a device whose tensors hold their values on the CPU and behave as a GPU's do: they
refuse to meet a tensor of the CPU, except where PyTorch lets them (a CPU tensor without axes, CPU indices). The rules are
PyTorch's, written down again here; the arithmetic is the CPU's. So it shows where devices are mixed, and nothing about a
GPU's rounding, memory or speed, nor which operations a GPU has.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only
from transformers import PreTrainedModel

OTHER = torch.device("cuda:0")
_ops = torch.ops.aten
_set_data: Any = Tensor.data.__set__  # type: ignore[attr-defined]
_CROSSING = {_ops._to_copy, _ops.copy_, _ops.lift_fresh, _ops._local_scalar_dense}
_INDEXING = {_ops.index, _ops._unsafe_index}
_INDEXED_WRITING = {_ops.index_put, _ops.index_put_, _ops._index_put_impl_}


class MixedDevicesError(RuntimeError):
    """What PyTorch says of tensors on two devices."""


class Elsewhere(Tensor):
    """A tensor on the other device. To PyTorch's own code it is on "meta", which needs no driver."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Elsewhere":
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",
            requires_grad=held.requires_grad,
        )
        made.held = held.detach()
        return made

    device = property(lambda self: OTHER)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self, **_: Any) -> str:
        return f"{self.held!r} on the other device"

    def __format__(self, spec: str) -> str:
        return format(self.held, spec)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operation on the values, after the check that a GPU would make; the result is where it belongs."""
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    there = any(isinstance(value, Elsewhere) for value in tensors)
    packet = func.overloadpacket
    if packet in _CROSSING:
        there = isinstance(args[0], Elsewhere)
    elif packet in _INDEXING | _INDEXED_WRITING:
        first = isinstance(args[0], Elsewhere)
        if there and not first:
            raise MixedDevicesError(f"{func}: indices or values of the other device for a tensor on the CPU")
        written = args[2] if packet in _INDEXED_WRITING else args[0]
        if first and not isinstance(written, Elsewhere) and written.ndim:
            raise MixedDevicesError(f"{func}: values on the CPU for a tensor of the other device")
    elif there and any(value.ndim and not isinstance(value, Elsewhere) for value in tensors):
        where = [f"{tuple(value.shape)} on {value.device.type}" for value in tensors]
        raise MixedDevicesError(f"{func}: found tensors on two devices: {', '.join(where)}")
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]).type in (OTHER.type, "meta")
        kwargs = kwargs | {"device": torch.device("cpu")}
    if there and kwargs.get("generator") is not None:
        raise MixedDevicesError(f"{func}: a generator on the CPU for a tensor on the other device")

    def held(value: Any) -> Any:
        return value.held if isinstance(value, Elsewhere) else value

    result = func(*tree_map(held, args), **tree_map(held, kwargs))
    if not there:
        return result
    if args and isinstance(args[0], Elsewhere) and result is args[0].held:  # in place
        return args[0]
    return tree_map_only(Tensor, Elsewhere, result)


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _whole_name(value: Any) -> Any:
    """PyTorch asks a driver which of several devices "cuda" is, and here is none."""
    return OTHER if isinstance(value, str | torch.device) and str(value) == OTHER.type else value


def _indices(index: Any) -> Any:
    """An index without lists of numbers, which PyTorch would put on "meta", where they would lose their values."""
    several = isinstance(index, tuple) or (
        isinstance(index, list) and any(isinstance(each, Tensor | slice) for each in index)
    )
    if several:
        return tuple(map(_indices, index))
    return torch.tensor(index, dtype=None if index else torch.long) if isinstance(index, list) else index


class _Functions(TorchFunctionMode):
    """What PyTorch does in Python's own methods, before any operation."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {name: _whole_name(value) for name, value in (kwargs or {}).items()}
        first = args[0] if args else None
        if func is Tensor.to:
            args = tuple(map(_whole_name, args))
        if func in (torch.tensor, torch.as_tensor):
            device = kwargs.pop("device", None)
            if isinstance(first, list | tuple):  # numbers may be tensors of any device
                args = (tree_map_only(Elsewhere, lambda value: value.held, first), *args[1:])
            made = func(*args, **kwargs)
            return made if device is None else made.to(device)
        if isinstance(first, Elsewhere):
            if func == _set_data and isinstance(args[1], Elsewhere):  # how a module goes to another dtype
                first.held = args[1].held
            if func in (Tensor.__getitem__, Tensor.__setitem__):
                args = (first, _indices(args[1]), *args[2:])
            if func in (Tensor.numpy, Tensor.__array__):
                raise MixedDevicesError(
                    "a tensor of the other device cannot be a numpy array: `.cpu()` first"
                )
            if func in (Tensor.tolist, Tensor.__format__):
                return func(first.held, *args[1:])
        return func(*args, **kwargs)


def _from_pretrained(kind: Any, *args: Any, **named: Any) -> Any:
    """Weights are read on the CPU, as ever, but by way of "meta", which in the block is the other device."""
    with _disable_current_modes():
        return _read_weights(kind, *args, **named)


_read_weights = PreTrainedModel.from_pretrained.__func__  # type: ignore[attr-defined]


@contextmanager
def other_device() -> Iterator[torch.device]:
    """Inside the block there is another device, "cuda". Not for code that trains: there are no gradients."""
    reading = patch.object(PreTrainedModel, "from_pretrained", classmethod(_from_pretrained))
    with patch("torch.cuda._lazy_init", lambda: None), reading, torch.no_grad(), _Functions(), _Operations():
        yield OTHER
