"""What the checks of lesson 05 share: models of other shapes, a Qwen2 written out by hand, wrong ways to patch.

The truth of every check that runs a model comes from `Plain`, which computes from the weights what the model
computes, and knows nothing of hooks or caches.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from exercises_utils.challenges.llm_multiplication import task
from exercises_utils.challenges.llm_multiplication.tokenizer import build_tokenizer
from exercises_utils.checking import Fresh
from exercises_utils.models import DEFAULT_INSTANCE, lesson_instances, load_model, random_model
from exercises_utils.tools import hooks

LESSON = "the bundled model"
TWO_LAYERS = "a random model with 2 layers, 6 query and 3 key/value heads"
THREE_LAYERS = "a random model with 3 layers, 4 query heads and one key/value head"

Edit = Callable[[Tensor], Tensor]
Site = tuple[str, int]
"""An activation's short name and its layer: ("z", 1)."""


def _ready(model: Any) -> Any:
    """The model after its first run, in which the library wires hooks of its own: no learner's function leaves them."""
    with torch.no_grad():
        model(torch.zeros(1, 2, dtype=torch.long))
    return model


def _random(seed: int, *sizes: int, d_head: int) -> Any:
    """A small random model whose unembedding has a bias, so that an answer that forgets it is wrong."""
    model = random_model(*sizes, d_head=d_head, seed=seed, tokenizer=build_tokenizer(), device="cpu")
    bias = model.state_dict()["unembed.bias"]
    bias.copy_(torch.randn(bias.shape, generator=torch.Generator().manual_seed(seed)))
    return _ready(model)


def _bundled() -> Any:
    """The bundled model, whatever model the lesson runs on."""
    shipped = lesson_instances(task.CHALLENGE)
    return _ready(
        load_model(
            task.CHALLENGE, DEFAULT_INSTANCE if DEFAULT_INSTANCE in shipped else shipped[0], device="cpu"
        )
    )


MODELS = {
    LESSON: Fresh(_bundled),
    # layers, d_model, query heads, key/value heads, d_mlp, vocabulary
    TWO_LAYERS: Fresh(functools.partial(_random, 41, 2, 20, 6, 3, 28, 15, d_head=4)),
    THREE_LAYERS: Fresh(functools.partial(_random, 42, 3, 16, 4, 1, 24, 17, d_head=6)),
}


class Plain:
    """A processed Qwen2 from its weights, in double precision. They are copied: the model may change later."""

    def __init__(self, model: Any) -> None:
        cfg = model.cfg
        self.n_layers, self.n_heads, self.n_groups = cfg.n_layers, cfg.n_heads, cfg.n_key_value_heads
        self.d_head, self.eps = cfg.d_head, cfg.eps
        self.theta = cfg.rope_parameters["rope_theta"]
        self.w = {name: tensor.detach().cpu().double() for name, tensor in model.state_dict().items()}
        self.W_U, self.b_U = self.w["unembed.weight"].T, self.w["unembed.bias"]

    @classmethod
    @functools.cache
    def of(cls, name: str) -> "Plain":
        """That of one of `MODELS`."""
        return cls(MODELS[name].get())

    def scale(self, residual: Float[Tensor, "... d_model"]) -> Float[Tensor, "... 1"]:
        """What RMSNorm divides by."""
        return (residual.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()

    def W_O(self, layer: int) -> Float[Tensor, "head d_head d_model"]:
        """The output matrix, cut into heads."""
        return self.w[f"blocks.{layer}.attn.o.weight"].T.reshape(self.n_heads, self.d_head, -1)

    def b_O(self, layer: int) -> Float[Tensor, " d_model"]:
        """The bias of the attention's output."""
        return self.w[f"blocks.{layer}.attn.o.bias"]

    def run(
        self, tokens: Int[Tensor, "batch position"], edits: Mapping[Site, Edit] | None = None
    ) -> dict[Site, Tensor]:
        """Every activation of a run, each edited where `edits` has a function for it; ("logits", -1) at last."""
        seen: dict[Site, Tensor] = {}
        edits = edits or {}

        def at(name: str, layer: int, value: Tensor) -> Tensor:
            edit = edits.get((name, layer))
            seen[name, layer] = value if edit is None else edit(value.clone())
            return seen[name, layer]

        angles = torch.arange(tokens.shape[1]).double()[:, None] / self.theta ** (
            torch.arange(0, self.d_head, 2).double() / self.d_head
        )
        turn = torch.polar(torch.ones_like(angles), angles)[:, None]

        def rotated(x: Float[Tensor, "batch position head d_head"]) -> Tensor:
            half = self.d_head // 2
            y = torch.complex(x[..., :half], x[..., half:]) * turn
            return torch.cat([y.real, y.imag], dim=-1)

        future = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).triu(1)
        residual = self.w["embed.weight"][tokens]
        at("embed", -1, residual)
        for layer in range(self.n_layers):
            weights = {
                name.removeprefix(f"blocks.{layer}."): w
                for name, w in self.w.items()
                if name.startswith(f"blocks.{layer}.")
            }
            residual = at("resid_pre", layer, residual)
            normed = residual / self.scale(residual) * weights["ln1.weight"]
            q, k, v = (
                at(
                    name,
                    layer,
                    (normed @ weights[f"attn.{name}.weight"].T + weights[f"attn.{name}.bias"]).unflatten(
                        -1, (-1, self.d_head)
                    ),
                )
                for name in "qkv"
            )
            q, k = rotated(q), rotated(k)
            # One key/value head after another, each with the query heads that read it.
            by_group = q.unflatten(2, (self.n_groups, -1))
            scores = torch.einsum("bqgnd,bkgd->bgnqk", by_group, k).flatten(1, 2) / self.d_head**0.5
            pattern = at("pattern", layer, scores.masked_fill(future, -torch.inf).softmax(-1))
            read = pattern.unflatten(1, (self.n_groups, -1))
            z = at("z", layer, torch.einsum("bgnqk,bkgd->bqgnd", read, v).flatten(2, 3))
            out = torch.einsum("bqhd,hdm->bqm", z, self.W_O(layer)) + self.b_O(layer)
            residual = at("resid_mid", layer, residual + at("attn_out", layer, out))
            normed = residual / self.scale(residual) * weights["ln2.weight"]
            gate = torch.nn.functional.silu(normed @ weights["mlp.gate.weight"].T)
            hidden = gate * (normed @ weights["mlp.in.weight"].T)
            residual = residual + at("mlp_out", layer, hidden @ weights["mlp.out.weight"].T)
            residual = at("resid_post", layer, residual)
        at("scale", -1, self.scale(residual))
        normed = residual / self.scale(residual) * self.w["ln_final.weight"]
        at("logits", -1, normed @ self.W_U + self.b_U)
        return seen

    def logits(
        self, tokens: Int[Tensor, "batch position"], edits: Mapping[Site, Edit] | None = None
    ) -> Tensor:
        """The logits of a run."""
        return self.run(tokens, edits)["logits", -1]


def recorded(
    model: Any, tokens: Int[Tensor, "batch position"], names: Sequence[str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits of a run, and copies of the activations by the names asked for."""
    with hooks.record(model, *names) as seen, torch.no_grad():
        logits = model(tokens)
    return logits, seen


def random_tokens(name: str, batch: int, length: int, seed: int) -> Int[Tensor, "batch position"]:
    """Random sequences for one of the random models, of all its tokens."""
    vocabulary = MODELS[name].get().cfg.d_vocab
    return torch.randint(vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))


def pair(
    name: str, batch: int, length: int, position: int, seed: int
) -> tuple[Int[Tensor, "batch position"], Int[Tensor, "batch position"]]:
    """Clean and corrupted sequences that differ in exactly one token, at `position`."""
    clean = random_tokens(name, batch, length, seed)
    corrupted = clean.clone()
    vocabulary = MODELS[name].get().cfg.d_vocab
    shift = torch.randint(1, vocabulary, (batch,), generator=torch.Generator().manual_seed(seed + 1))
    corrupted[:, position] = (clean[:, position] + shift) % vocabulary
    return clean, corrupted


def one_number(logits: Float[Tensor, "batch position vocabulary"]) -> Float[Tensor, ""]:
    """A metric for the checks: a mean difference of two logits at the last position but one."""
    return (logits[:, -2, 3] - logits[:, -2, 7]).mean()


def by_place(logits: Float[Tensor, "batch position vocabulary"]) -> Float[Tensor, " place"]:
    """A metric with three numbers, at three positions."""
    return (logits[:, -3:, 4] - 2 * logits[:, -3:, 9]).mean(0)


def by_row(logits: Float[Tensor, "batch position vocabulary"]) -> Float[Tensor, "row place"]:
    """A metric with two axes: one number a sequence and place."""
    return logits[:, -2:, 5] - logits[:, -2:, 8]


METRICS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "one number": one_number,
    "one number a place": by_place,
    "one number a sequence and place": by_row,
}


class Patching:
    """Right and wrong ways to patch a run on `corrupted` with activations of a run on `clean`, by `Plain`."""

    def __init__(
        self, name: str, clean: Tensor, corrupted: Tensor, metric: Callable[[Tensor], Tensor]
    ) -> None:
        self.plain, self.metric = Plain.of(name), metric
        self.clean_tokens, self.corrupted_tokens = clean, corrupted
        self.clean, self.corrupted = self.plain.run(clean), self.plain.run(corrupted)
        self.ceiling = metric(self.clean["logits", -1])
        self.floor = metric(self.corrupted["logits", -1])

    def normalised(self, value: Tensor) -> Tensor:
        """0 where nothing is recovered, 1 where all is."""
        return (value - self.floor) / (self.ceiling - self.floor)

    def metric_with(self, name: str, layer: int, *index: Any, back: bool = False) -> Tensor:
        """The metric with `activation[index]` of the clean run put into the corrupted one; `back`: the other way."""
        source = self.corrupted if back else self.clean
        tokens = self.clean_tokens if back else self.corrupted_tokens

        def put(now: Tensor) -> Tensor:
            now[index] = source[name, layer][index]
            return now

        return self.metric(self.plain.logits(tokens, {(name, layer): put}))

    def sweep(
        self, name: str, indices: list[tuple[Any, ...]], back: bool = False
    ) -> Float[Tensor, "layer index *metric"]:
        """The metric for each layer and each of the indices."""
        return torch.stack(
            [
                torch.stack([self.metric_with(name, layer, *index, back=back) for index in indices])
                for layer in range(self.plain.n_layers)
            ]
        )

    def growing(self, name: str, indices: list[tuple[Any, ...]]) -> Float[Tensor, "layer index *metric"]:
        """The metric where every earlier patch is still on the model."""
        done: dict[Site, list[tuple[Any, ...]]] = {}
        rows = []
        for layer in range(self.plain.n_layers):
            row = []
            for index in indices:
                done.setdefault((name, layer), []).append(index)
                edits = {site: self._put_all(site, list(which)) for site, which in done.items()}
                row.append(self.metric(self.plain.logits(self.corrupted_tokens, edits)))
            rows.append(torch.stack(row))
        return torch.stack(rows)

    def _put_all(self, site: Site, indices: list[tuple[Any, ...]]) -> Edit:
        def put(now: Tensor) -> Tensor:
            for index in indices:
                now[index] = self.clean[site][index]
            return now

        return put

    def heads(self, name: str, heads: list[int]) -> tuple[Any, ...]:
        """The index of some heads of an activation."""
        return (slice(None), heads) if name == "pattern" else (slice(None), slice(None), heads)

    def n_heads(self, name: str) -> int:
        """How many heads an activation has."""
        return self.plain.n_groups if name in "kv" else self.plain.n_heads

    def scores(self, name: str, indices: list[tuple[Any, ...]]) -> Float[Tensor, "layer index *metric"]:
        """What is asked for: `sweep`, normalised."""
        return self.normalised(self.sweep(name, indices))

    def ways_to_scale(self, name: str, indices: list[tuple[Any, ...]], where: str) -> dict[str, Any]:
        """What comes of the right patches in other scales, or with the runs exchanged; `where` names one entry."""
        swept = functools.cache(lambda: self.sweep(name, indices))
        back = functools.cache(lambda: self.sweep(name, indices, back=True))
        return {
            "The metric is not normalised: take (patched - corrupted) / (clean - corrupted).": swept,
            "The corrupted run's metric is subtracted, but nothing is divided by; divide by clean - corrupted.": (
                lambda: swept() - self.floor
            ),
            "The metric is divided by the clean run's alone; take (patched - corrupted) / (clean - corrupted).": (
                lambda: swept() / self.ceiling
            ),
            "The difference is divided by the clean run's metric; divide by clean - corrupted.": (
                lambda: (swept() - self.floor) / self.ceiling
            ),
            "The difference is divided by the corrupted run's metric; divide by clean - corrupted.": (
                lambda: (swept() - self.floor) / self.floor
            ),
            "Nothing is subtracted from the patched metric before it is divided: subtract the corrupted run's.": (
                lambda: swept() / (self.ceiling - self.floor)
            ),
            "This is what is still missing, 1 minus the score: subtract the corrupted run's metric, not the clean one's.": (
                lambda: 1 - self.normalised(swept())
            ),
            "The sign is turned round: both differences are from the corrupted run, patched - corrupted and "
            "clean - corrupted.": lambda: -self.normalised(swept()),
            "The runs are exchanged: run the *corrupted* tokens, and put the *clean* run's activation in.": (
                lambda: self.normalised(back())
            ),
            "Clean and corrupted are exchanged throughout, in the runs and in the scale: run the *corrupted* tokens, put "
            "the *clean* run's activation in, and let 0 be the corrupted run's metric.": (
                lambda: (back() - self.ceiling) / (self.floor - self.ceiling)
            ),
            f"The hooks of earlier entries are still on the model: each entry is one run with one patch, {where}. Use "
            "`with model.hooks(...)` or `run_with_hooks`, which take them off.": (
                lambda: self.normalised(self.growing(name, indices))
            ),
            "The metric is evaluated on the clean run's logits, not on the patched run's: every entry is 1.": (
                lambda: torch.ones_like(swept())
            ),
            "Every entry is 0, as if nothing had been patched: does the hook return the edited activation, and does it "
            "run at all?": lambda: torch.zeros_like(swept()),
        }
