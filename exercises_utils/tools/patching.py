"""Activation patching of every site of a kind, with the same values as one forward pass a site and much less work.

`transformer_lens.patching` runs the whole model once for every site. Four facts save most of that:

- **Causality.** Before the first token in which clean and corrupted prompts differ, both runs are the same, so
  nothing can be patched there. And a patch at a position changes nothing at the positions before it: only those from
  the patched one on are computed again, with the corrupted run's keys and values for those before.
- **Depth.** Below the patched layer everything is as in the corrupted run, which is known: a site joins at its own
  layer, and goes up from there together with the sites that joined further down.
- **Linearity.** A head writes its z times W_O into a sum. So what every head of a layer would write after the patch
  is worked out at once, and each site adds its own head's difference.
- **Reading.** The metric reads some tokens' logits at some positions, so only those are unembedded, and the last layer
  runs at those positions only.

Every step is the model's own arithmetic on the model's own weights, in another order: the values are the library's up
to float noise. Before a sweep the corrupted run is computed in both ways and compared; a model for which they differ
(another architecture, or hooks that are on) is swept with the library.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens import patching as library

AT_POSITIONS = ("resid_pre", "attn_out", "mlp_out")
"""Activations of the residual stream's width: one site a layer and position."""
OF_HEADS = ("z", "q", "k", "v", "pattern")
"""Activations of heads: one site a layer and head, at all positions. `k` and `v` have key/value heads."""
SAME = 1e-4
"""Logits closer than this, relative to the largest one, are the same."""
ROWS_A_PASS = 256
"""How many sequences go through a layer at once."""

Metric = Callable[[Float[Tensor, "pair read token"]], Float[Tensor, "..."]]
"""A number, or several at once, such as one for each position that is read."""


@torch.no_grad()
def get_act_patch(
    model: Any,
    clean_tokens: Int[Tensor, "pair position"],
    corrupted_tokens: Int[Tensor, "_ _"],
    metric: Metric,
    activation: str,
    *,
    read: Sequence[int] = (-1,),
    answers: Int[Tensor, "pair token"] | None = None,
    progress: bool = True,
) -> Float[Tensor, "layer site ..."]:
    """The metric of the corrupted run with one activation from the clean run, for every site of that kind.

    Args:
        model: a TransformerLens model: a Qwen2, or one of the course's small models.
        clean_tokens: what the patched activations come from.
        corrupted_tokens: what the model runs on.
        metric: from logits to a number, or to a tensor of several. The logits are those of the tokens `answers` at the
            positions `read`.
        activation: "resid_pre", "attn_out" or "mlp_out", at one position (then a site is a position), or "z", "q", "k",
            "v" or "pattern", of one head at all positions (then a site is a head).
        read: the positions whose logits the metric gets, in this order; the last one by default.
        answers: the tokens whose logits the metric gets, a row of them for each pair; the whole vocabulary by default.
        progress: whether to show a bar.

    Returns:
        The metric for each layer and site (and, on further axes, what the metric has), in its own unit, not normalised.

    Raises:
        ValueError: an activation or a position that does not exist, or prompts of different shapes.

    The same as `transformer_lens.patching.get_act_patch_resid_pre`, `…_attn_head_out_all_pos` and their like.
    """
    _require(model, clean_tokens, corrupted_tokens, activation, read)
    device = model.W_E.device
    clean_tokens, corrupted_tokens = clean_tokens.to(device), corrupted_tokens.to(device)
    n_positions = clean_tokens.shape[1]
    reader = _Reader(model, [position % n_positions for position in read], answers)
    blocks = _blocks(model)
    if blocks is not None:
        sweep = _Sweep.of(blocks, model, clean_tokens, corrupted_tokens, reader)
        if sweep is not None:
            return sweep.run(activation, metric, progress)
    warnings.warn(
        "this model is not one that `get_act_patch` can resume in the middle: sweeping with transformer_lens.patching, "
        "one whole forward pass a site",
        stacklevel=2,
    )
    return _with_the_library(model, clean_tokens, corrupted_tokens, metric, activation, reader)


# ------------------------------------------------------------------------------------------------ one layer


@dataclass(frozen=True)
class _Block:
    """One layer as functions of the model's own weights; no hook sees what goes through it."""

    norm1: Any
    q: Any
    k: Any
    v: Any
    o: Any
    rotate: Callable[[Tensor, Tensor], Tensor]  # of q or k, at these positions
    norm2: Any | None  # None where there is no MLP
    mlp: Callable[[Tensor], Tensor] | None
    d_head: int

    def heads(
        self, linear: Any, x: Float[Tensor, "row position d_model"]
    ) -> Float[Tensor, "row position head d_head"]:
        return rearrange(
            linear(x), "row position (head d_head) -> row position head d_head", d_head=self.d_head
        )

    def attend(
        self,
        q: Float[Tensor, "row query head d_head"],
        k: Float[Tensor, "row key kv d_head"],
        at: Int[Tensor, " query"],
    ) -> Float[Tensor, "row head query key"]:
        k = repeat(k, "row key kv d_head -> row key (kv group) d_head", group=q.shape[2] // k.shape[2])
        scores = (
            einsum(q, k, "row query head d_head, row key head d_head -> row head query key")
            / self.d_head**0.5
        )
        future = torch.arange(k.shape[1], device=k.device) > at[:, None]
        return scores.masked_fill(future, float("-inf")).softmax(-1)

    def mix(
        self, pattern: Float[Tensor, "row head query key"], v: Float[Tensor, "row key kv d_head"]
    ) -> Float[Tensor, "row query head d_head"]:
        v = repeat(v, "row key kv d_head -> row key (kv group) d_head", group=pattern.shape[1] // v.shape[2])
        return einsum(pattern, v, "row head query key, row key head d_head -> row query head d_head")

    def write(self, z: Float[Tensor, "row position head d_head"]) -> Float[Tensor, "row position d_model"]:
        return cast(Tensor, self.o(rearrange(z, "row position head d_head -> row position (head d_head)")))

    def mlp_out(
        self, resid_mid: Float[Tensor, "row position d_model"]
    ) -> Float[Tensor, "row position d_model"]:
        if self.mlp is None or self.norm2 is None:
            return torch.zeros_like(resid_mid)
        return self.mlp(self.norm2(resid_mid))


@dataclass(frozen=True)
class _Seen:
    """What one run computed in one layer."""

    resid_pre: Float[Tensor, "pair position d_model"]
    q: Float[Tensor, "pair position head d_head"]
    k: Float[Tensor, "pair position kv d_head"]
    v: Float[Tensor, "pair position kv d_head"]
    pattern: Float[Tensor, "pair head query key"]
    z: Float[Tensor, "pair position head d_head"]
    attn_out: Float[Tensor, "pair position d_model"]
    mlp_out: Float[Tensor, "pair position d_model"]

    @property
    def resid_mid(self) -> Float[Tensor, "pair position d_model"]:
        return self.resid_pre + self.attn_out

    @property
    def resid_post(self) -> Float[Tensor, "pair position d_model"]:
        return self.resid_mid + self.mlp_out


def _see(block: _Block, resid: Float[Tensor, "pair position d_model"]) -> _Seen:
    at = torch.arange(resid.shape[1], device=resid.device)
    x = block.norm1(resid)
    q, k = block.rotate(block.heads(block.q, x), at), block.rotate(block.heads(block.k, x), at)
    v = block.heads(block.v, x)
    pattern = block.attend(q, k, at)
    z = block.mix(pattern, v)
    attn_out = block.write(z)
    return _Seen(resid, q, k, v, pattern, z, attn_out, block.mlp_out(resid + attn_out))


def _blocks(model: Any) -> list[_Block] | None:
    """The model's layers, or None where they are of a kind that is not known here."""
    try:
        return [_block(model, block) for block in model.blocks]
    except AttributeError:
        return None


def _block(model: Any, block: Any) -> _Block:
    attention = block.attn
    linear = {name: getattr(attention, name).original_component for name in "qkvo"}
    shared: dict[str, Any] = {**linear, "norm1": _norm(block, "ln1"), "d_head": model.cfg.d_head}
    if not hasattr(model, "original_model") or not hasattr(
        model.original_model, "config"
    ):  # the course's own
        return _Block(**shared, rotate=lambda x, at: x, norm2=None, mlp=None)
    if model.original_model.config.model_type != "qwen2":
        raise AttributeError("not a Qwen2")
    rotary, mlp = model.original_model.model.rotary_emb, block.mlp
    gate, into, out = (getattr(mlp, name).original_component for name in ("gate", "in", "out"))

    def rotate(x: Float[Tensor, "row position head d_head"], at: Int[Tensor, " position"]) -> Tensor:
        cos, sin = (table[0, :, None] for table in rotary(x, at[None]))
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-second, first], dim=-1) * sin

    def gated(x: Tensor) -> Tensor:
        return cast(Tensor, out(torch.nn.functional.silu(gate(x)) * into(x)))

    return _Block(**shared, rotate=rotate, norm2=_norm(block, "ln2"), mlp=gated)


def _norm(block: Any, name: str) -> Any:
    norm = getattr(block, name)
    return getattr(norm, "original_component", norm)


# ------------------------------------------------------------------------------------------------- the sweep


class _Reader:
    """From the residual stream after the last layer, at the positions that are read, to the metric's logits."""

    def __init__(self, model: Any, read: list[int], answers: Int[Tensor, "pair token"] | None) -> None:
        self.norm, self.read = _norm(model, "ln_final"), read
        self.W_U, self.b_U = model.unembed.original_component.weight, model.b_U
        self.answers = None if answers is None else answers.to(self.W_U.device)

    def logits(self, resid: Float[Tensor, "pair read d_model"]) -> Float[Tensor, "pair read token"]:
        x = self.norm(resid)
        if self.answers is None:
            return x @ self.W_U.T + self.b_U
        rows = self.W_U[self.answers]  # pair token d_model
        return (
            einsum(x, rows, "pair read d, pair token d -> pair read token") + self.b_U[self.answers][:, None]
        )

    def select(self, logits: Float[Tensor, "pair position vocabulary"]) -> Float[Tensor, "pair read token"]:
        """The same logits out of all of the model's."""
        at_read = logits[:, self.read]
        if self.answers is None:
            return at_read
        wanted = repeat(self.answers, "pair token -> pair read token", read=len(self.read))
        return at_read.gather(-1, wanted)


@dataclass(frozen=True)
class _Sweep:
    """Both runs, layer by layer, up to the last position that is read."""

    blocks: list[_Block]
    clean: list[_Seen]
    corrupted: list[_Seen]
    reader: _Reader
    first: int  # the first position at which the prompts differ
    n_positions: int  # of the prompts

    @classmethod
    def of(
        cls, blocks: list[_Block], model: Any, clean: Tensor, corrupted: Tensor, reader: _Reader
    ) -> "_Sweep | None":
        """The sweep, or None if the runs computed here are not the model's."""
        end = max(reader.read) + 1
        seen = []
        for tokens in (clean[:, :end], corrupted[:, :end]):
            name = "blocks.0.hook_resid_pre"
            logits, cache = model.run_with_cache(tokens, names_filter=[name])
            resid, layers = cache[name], []
            for block in blocks:
                layers.append(_see(block, resid))
                resid = layers[-1].resid_post
            expected, found = reader.select(logits), reader.logits(resid[:, reader.read])
            if (expected - found).abs().max() > SAME * expected.abs().max().clamp(min=1):
                return None
            seen.append(layers)
        differ = (clean != corrupted)[:, :end].any(0)
        first = int(differ.long().argmax()) if differ.any() else end
        return cls(blocks, seen[0], seen[1], reader, first, clean.shape[1])

    def run(self, activation: str, metric: Metric, progress: bool) -> Float[Tensor, "layer site ..."]:
        unchanged = metric(self.reader.logits(self.corrupted[-1].resid_post[:, self.reader.read]))
        n_layers, (n_pairs, end) = len(self.blocks), self.corrupted[0].resid_pre.shape[:2]
        n_sites = {"k": self.blocks[0].k, "v": self.blocks[0].v}.get(activation, self.blocks[0].q)
        n_sites = n_sites.weight.shape[0] // self.blocks[0].d_head
        if activation in AT_POSITIONS:
            n_sites = self.n_positions
        values = unchanged.expand(n_layers, n_sites, *unchanged.shape).clone()
        # In flight, by the first position that a patch changes: the sites, and the residual stream from there on.
        flying: dict[int, tuple[list[tuple[int, int]], Tensor]] = {}

        def join(
            start: int, sites: list[tuple[int, int]], resid: Float[Tensor, "row position d_model"]
        ) -> None:
            there, before = flying.get(start, ([], resid[:0]))
            flying[start] = (there + sites, torch.cat([before, resid]))

        starts = range(self.first, end)
        with tqdm(total=n_layers, desc=f"patching {activation}", unit="layer", disable=not progress) as bar:
            for layer, (block, clean, corrupted) in enumerate(
                zip(self.blocks, self.clean, self.corrupted, strict=True)
            ):
                if activation == "resid_pre":
                    for start in starts:
                        patched = corrupted.resid_pre[:, start:].clone()
                        patched[:, 0] = clean.resid_pre[:, start]
                        join(start, [(layer, start)], patched)
                last = layer == n_layers - 1
                for start, (sites, resid) in flying.items():
                    parts = [
                        self._up(block, corrupted, rows, start, last)
                        for rows in resid.split(self._rows(n_pairs))
                    ]
                    flying[start] = (sites, torch.cat(parts))
                if activation in ("attn_out", "mlp_out"):
                    for start in starts:
                        changed = corrupted.resid_mid[:, start : start + 1]
                        if activation == "attn_out":
                            changed = (corrupted.resid_pre + clean.attn_out)[:, start : start + 1]
                            changed = changed + block.mlp_out(changed)
                        else:
                            changed = changed + clean.mlp_out[:, start : start + 1]
                        patched = torch.cat([changed, corrupted.resid_post[:, start + 1 :]], dim=1)
                        join(start, [(layer, start)], self._read_only(patched, start) if last else patched)
                if activation in OF_HEADS and self.first < end:
                    mid = self._heads(block, clean, corrupted, activation)  # site pair position d_model
                    mid = rearrange(mid, "site pair position d -> (site pair) position d")
                    if last:
                        mid = self._read_only(mid, self.first)
                    parts = [rows + block.mlp_out(rows) for rows in mid.split(self._rows(n_pairs))]
                    join(self.first, [(layer, site) for site in range(n_sites)], torch.cat(parts))
                bar.update()
        final = self.corrupted[-1].resid_post[:, self.reader.read]
        for start, (sites, resid) in flying.items():
            read_again = [i for i, position in enumerate(self.reader.read) if position >= start]
            for site, rows in zip(sites, resid.split(n_pairs), strict=True):
                at_read = final.clone()
                at_read[:, read_again] = rows
                values[site] = metric(self.reader.logits(at_read))
        return values

    def _rows(self, n_pairs: int) -> int:
        return max(1, ROWS_A_PASS // n_pairs) * n_pairs

    def _kept(self, start: int) -> list[int]:
        """Which of the positions from `start` on are read."""
        return [position - start for position in self.reader.read if position >= start]

    def _read_only(
        self, resid: Float[Tensor, "row position d_model"], start: int
    ) -> Float[Tensor, "row read d_model"]:
        return resid[:, self._kept(start)]

    def _up(
        self,
        block: _Block,
        corrupted: _Seen,
        resid: Float[Tensor, "row position d_model"],
        start: int,
        last: bool,
    ) -> Float[Tensor, "row kept d_model"]:
        """The residual stream after a layer, from `start` on (of the last layer: at the positions that are read)."""
        n = len(resid) // len(corrupted.k)
        at = torch.arange(start, start + resid.shape[1], device=resid.device)
        x = block.norm1(resid)
        k = torch.cat(
            [corrupted.k[:, :start].repeat(n, 1, 1, 1), block.rotate(block.heads(block.k, x), at)], dim=1
        )
        v = torch.cat([corrupted.v[:, :start].repeat(n, 1, 1, 1), block.heads(block.v, x)], dim=1)
        if last:
            kept = self._kept(start)
            x, resid, at = x[:, kept], resid[:, kept], at[kept]
        q = block.rotate(block.heads(block.q, x), at)
        mid = resid + block.write(block.mix(block.attend(q, k, at), v))
        return mid + block.mlp_out(mid)

    def _heads(
        self, block: _Block, clean: _Seen, corrupted: _Seen, activation: str
    ) -> Float[Tensor, "site pair position d_model"]:
        """resid_mid from the first difference on, with the activation of one head after the other from the clean run."""
        at = torch.arange(self.first, corrupted.z.shape[1], device=corrupted.z.device)
        kept = slice(self.first, None)
        if activation == "z":
            z = clean.z[:, kept]
        elif activation == "v":
            z = block.mix(corrupted.pattern[:, :, kept], clean.v)
        elif activation == "pattern":
            z = block.mix(clean.pattern[:, :, kept], corrupted.v)
        elif activation == "q":
            z = block.mix(block.attend(clean.q[:, kept], corrupted.k, at), corrupted.v)
        else:
            z = block.mix(block.attend(corrupted.q[:, kept], clean.k, at), corrupted.v)
        W_O = rearrange(block.o.weight, "d_model (head d_head) -> head d_head d_model", d_head=block.d_head)
        change = einsum(
            z - corrupted.z[:, kept],
            W_O,
            "pair position head d_head, head d_head d_model -> head pair position d_model",
        )
        if activation in ("k", "v"):
            change = change.unflatten(0, (corrupted.k.shape[2], -1)).sum(1)
        return corrupted.resid_mid[:, kept] + change


# ------------------------------------------------------------------------------------------------- the library

_LIBRARY = {
    "resid_pre": library.get_act_patch_resid_pre,
    "attn_out": library.get_act_patch_attn_out,
    "mlp_out": library.get_act_patch_mlp_out,
    "z": library.get_act_patch_attn_head_out_all_pos,
    "q": library.get_act_patch_attn_head_q_all_pos,
    "k": library.get_act_patch_attn_head_k_all_pos,
    "v": library.get_act_patch_attn_head_v_all_pos,
    "pattern": library.get_act_patch_attn_head_pattern_all_pos,
}


def _with_the_library(
    model: Any, clean: Tensor, corrupted: Tensor, metric: Metric, activation: str, reader: _Reader
) -> Float[Tensor, "layer site ..."]:
    _, cache = model.run_with_cache(clean)
    shape = metric(reader.select(model(corrupted))).shape

    def entry(index: int) -> Callable[[Tensor], Tensor]:
        return lambda logits: metric(reader.select(logits)).flatten()[index]

    metrics = {str(index): entry(index) for index in range(shape.numel())}
    result = cast(library.PatchingResult, _LIBRARY[activation](model, corrupted, cache, metrics))
    values = result.values
    return values.movedim(0, -1).unflatten(-1, shape) if shape else values[0]


def _require(model: Any, clean: Tensor, corrupted: Tensor, activation: str, read: Sequence[int]) -> None:
    if activation not in _LIBRARY:
        raise ValueError(f"activation is {activation!r}; expected one of {', '.join(_LIBRARY)}.")
    if activation == "mlp_out" and getattr(model.cfg, "attn_only", False):
        raise ValueError("this model has no MLPs, so there is no mlp_out to patch.")
    if clean.ndim != 2 or clean.shape != corrupted.shape:
        raise ValueError(
            f"clean_tokens has shape {tuple(clean.shape)} and corrupted_tokens {tuple(corrupted.shape)}; expected the same "
            "(pair, position), so that every clean prompt has its corrupted one."
        )
    wrong = [position for position in read if not -clean.shape[1] <= position < clean.shape[1]]
    if wrong or not read:
        raise ValueError(f"read is {list(read)}; expected positions of the {clean.shape[1]} there are.")
