"""Interventions as ``with`` blocks: record, ablate and patch the activations of a TransformerLens model.

Each block puts its hooks on the model when it is entered and takes them off when it is left, also after an
error, so that a model is never left changed. Blocks nest: ``with ablate(...), record(...) as seen:``.

>>> with ablate(model, [(0, 1)], activation="v", how="mean"):      # doctest: +SKIP
...     logits = model(tokens)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.utilities import get_act_name

PER_HEAD = ("q", "k", "v", "z", "result")
"""Activations of shape (batch, position, head, width)."""
PER_PAIR = ("attn_scores", "pattern")
"""Activations of shape (batch, head, query position, key position)."""
HOW = ("zero", "mean", "resample", "noise")


def _full_name(model: Any, activation: str, layer: int) -> str:
    """The hook's full name, or an error that says which names there are."""
    if activation not in PER_HEAD + PER_PAIR:
        raise ValueError(
            f"activation is {activation!r}; expected one of {', '.join(PER_HEAD + PER_PAIR)}, "
            "which are the activations that belong to single heads"
        )
    if not 0 <= layer < model.cfg.n_layers:
        raise ValueError(f"layer is {layer}; this model has layers 0 to {model.cfg.n_layers - 1}")
    return get_act_name(activation, layer)


def _by_layer(heads: Sequence[Any]) -> dict[int, list[int]]:
    layers: dict[int, list[int]] = {}
    for head in heads:
        if not (isinstance(head, tuple | list) and len(head) == 2):
            raise TypeError(f"a head is a pair (layer, head), such as (0, 1); got {head!r}")
        layers.setdefault(int(head[0]), []).append(int(head[1]))
    return layers


def _check_heads(activation: Tensor, name: str, head_axis: int, heads: Sequence[int]) -> None:
    n_heads = activation.shape[head_axis]
    for head in heads:
        if not 0 <= head < n_heads:
            raise IndexError(f"`{name}` has heads 0 to {n_heads - 1}; got head {head}")


def _replace(
    activation: Tensor,
    new: Tensor,
    head_axis: int,
    heads: Sequence[int] | None,
    positions: Sequence[int] | None,
) -> Tensor:
    """A copy of ``activation`` with ``new`` at the given heads and (query) positions."""
    position_axis = 1 if head_axis == 2 else 2
    keep = torch.zeros(activation.shape[head_axis], dtype=torch.bool, device=activation.device)
    keep[list(range(len(keep))) if heads is None else list(heads)] = True
    chosen = torch.zeros(activation.shape[position_axis], dtype=torch.bool, device=activation.device)
    chosen[list(range(len(chosen))) if positions is None else list(positions)] = True
    shape_of = {head_axis: keep, position_axis: chosen}
    mask = torch.ones((), dtype=torch.bool, device=activation.device)
    for axis, chosen_along in shape_of.items():
        shape = [1] * activation.ndim
        shape[axis] = -1
        mask = mask & chosen_along.view(shape)
    return torch.where(mask, new.to(activation), activation)


@contextmanager
def record(model: Any, *names: str) -> Iterator[dict[str, Tensor]]:
    """A dict that holds, after a forward pass inside the block, copies of the activations asked for.

    Unlike ``run_with_cache`` it stores copies, so a later in-place edit in the same pass does not show up in an
    earlier entry, and only what was asked for is stored. A second forward pass overwrites the first.

    Args:
        model: a TransformerLens model.
        names: full hook names, such as ``"blocks.0.attn.hook_pattern"`` (``get_act_name("pattern", 0)``).

    Raises:
        KeyError: the model has no hook of that name.
    """
    seen: dict[str, Tensor] = {}
    for name in names:
        if name not in model.hook_dict:
            raise KeyError(
                f"the model has no hook {name!r}; `sorted(model.hook_dict)` lists the names that exist"
            )

    def keep(name: str) -> Callable[..., None]:
        def hook_fn(activation: Tensor, hook: Any) -> None:
            seen[name] = activation.detach().clone()

        return hook_fn

    with model.hooks(fwd_hooks=[(name, keep(name)) for name in names]):
        yield seen


def _without_information(now: Tensor, how: str, pool: Tensor, generator: torch.Generator) -> Tensor:
    """What `ablate` puts in the place of an activation; `pool` has it in the reference sequences."""
    if how == "zero":
        return torch.zeros_like(now)
    if how == "noise":
        return torch.randn(now.shape, generator=generator).to(now)
    if how == "mean":
        return pool.mean(0, keepdim=True).expand_as(now)
    if pool is now:  # a cyclic shift of a random order: nobody gets its own
        order = torch.randperm(len(now), generator=generator)
        chosen = torch.empty_like(order)
        chosen[order] = order.roll(1)
    else:
        chosen = torch.randint(len(pool), (len(now),), generator=generator)
    return pool[chosen.to(pool.device)]


@contextmanager
def ablate(
    model: Any,
    heads: Sequence[Any],
    *,
    activation: str = "z",
    how: str = "mean",
    positions: Sequence[int] | None = None,
    reference: Int[Tensor, "reference position"] | None = None,
    seed: int = 0,
) -> Iterator[Any]:
    """The same model, with an activation of some heads replaced by something that carries no information.

    What replaces it (``how``):

    - ``"zero"``: zeros. The model has never seen a zero there, so part of the damage may come from that.
    - ``"mean"``: the mean over sequences, position by position. What differs between sequences is gone, what
      they have in common stays.
    - ``"resample"``: the activation of another sequence, drawn at random: as ``mean``, but it stays a value that
      the model has really seen.
    - ``"noise"``: standard normal noise, whatever the activation's own scale (write-up 002 calls it "random").

    Args:
        model: a TransformerLens model.
        heads: pairs (layer, head). For ``k`` and ``v`` of a model with grouped queries: key/value heads.
        activation: ``"q"``, ``"k"``, ``"v"``, ``"z"`` (the attention-weighted values, before ``W_O``),
            ``"result"`` (after ``W_O``), ``"attn_scores"`` (before the softmax) or ``"pattern"``.
        how: see above.
        positions: only at these positions (for scores and patterns: these query positions); all by default.
        reference: the sequences that means and resamples are taken from, run through the untouched model first;
            by default the very batch that is run inside the block.
        seed: for ``resample`` and ``noise``.

    Raises:
        ValueError, TypeError, IndexError: an unknown activation, layer, head or way to ablate.
    """
    if how not in HOW:
        raise ValueError(f"how is {how!r}; expected one of {', '.join(HOW)}")
    layers = _by_layer(heads)
    names = {layer: _full_name(model, activation, layer) for layer in layers}
    head_axis = 2 if activation in PER_HEAD else 1
    generator = torch.Generator().manual_seed(seed)
    source: Mapping[str, Tensor] = {}
    if reference is not None and how in ("mean", "resample"):
        with torch.no_grad(), record(model, *names.values()) as source:
            model(reference)

    def make_hook(layer: int) -> Callable[..., Tensor]:
        def hook_fn(activation_now: Tensor, hook: Any) -> Tensor:
            _check_heads(activation_now, activation, head_axis, layers[layer])
            pool = source.get(names[layer], activation_now)
            new = _without_information(activation_now, how, pool, generator)
            return _replace(activation_now, new, head_axis, layers[layer], positions)

        return hook_fn

    with model.hooks(fwd_hooks=[(name, make_hook(layer)) for layer, name in names.items()]):
        yield model


@contextmanager
def patch(
    model: Any,
    activation: str,
    layer: int,
    value: Float[Tensor, "..."],
    *,
    heads: Sequence[int] | int | None = None,
    positions: Sequence[int] | int | None = None,
) -> Iterator[Any]:
    """The same model, with an activation of one layer replaced by ``value`` (for example another run's).

    Args:
        model: a TransformerLens model.
        activation: as in :func:`ablate`.
        layer: the layer.
        value: the new activation, of the full shape: (batch, position, head, width) for ``q k v z result``,
            (batch, head, query, key) for ``attn_scores`` and ``pattern``; a batch axis of 1 is repeated.
        heads: only these heads, or this one; all by default.
        positions: only these (query) positions, or this one; all by default.

    Raises:
        ValueError: ``value`` does not have the activation's shape.
    """
    heads = [heads] if isinstance(heads, int) else heads
    positions = [positions] if isinstance(positions, int) else positions
    name = _full_name(model, activation, layer)
    head_axis = 2 if activation in PER_HEAD else 1
    axes = "(batch, position, head, width)" if head_axis == 2 else "(batch, head, query, key)"

    def hook_fn(activation_now: Tensor, hook: Any) -> Tensor:
        if value.ndim != activation_now.ndim or value.shape[1:] != activation_now.shape[1:]:
            raise ValueError(
                f"`value` has shape {tuple(value.shape)}; `{activation}` of layer {layer} has shape "
                f"{tuple(activation_now.shape)} {axes}. Pass the whole activation and choose with `heads` and `positions`."
            )
        if len(value) not in (1, len(activation_now)):
            raise ValueError(
                f"`value` holds {len(value)} sequences, the run {len(activation_now)}; expected 1 or as many"
            )
        _check_heads(activation_now, activation, head_axis, heads or [])
        return _replace(activation_now, value.expand_as(activation_now), head_axis, heads, positions)

    with model.hooks(fwd_hooks=[(name, hook_fn)]):
        yield model
