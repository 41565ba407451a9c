"""What the checks of lesson 05 share: the models that they run on, and a Qwen2 written out by hand."""

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import silu

from exercises_utils.challenges.llm_multiplication import task
from exercises_utils.challenges.llm_multiplication.tokenizer import build_tokenizer
from exercises_utils.checking import Fresh
from exercises_utils.models import DEFAULT_INSTANCE, QwenConfig, lesson_instances, load_model
from exercises_utils.models.huggingface import build, random_weights

LESSON = "the bundled model"
Edit = Callable[[Tensor], Tensor]
Site = tuple[str, int]
"""An activation's short name and its layer, ("z", 1); what belongs to no layer has -1."""


def _ready(model: Any) -> Any:
    """The model after its first run, in which the library wires hooks of its own: no learner's function leaves them."""
    with torch.no_grad():
        model(torch.zeros(1, 2, dtype=torch.long))
    return model


def _random(seed: int, config: QwenConfig) -> Any:
    """A random model in which no bias is 0, not even what processing makes 0: an answer that forgets one is wrong."""
    model = build(config, random_weights(config, seed), build_tokenizer(), "cpu")
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.state_dict().items():
        if name.endswith("bias") and not weight.any():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return _ready(model)


def bundled_instance() -> str:
    """The instance that comes with the course, whatever model the lesson runs on."""
    shipped = lesson_instances(task.CHALLENGE)
    return DEFAULT_INSTANCE if DEFAULT_INSTANCE in shipped else shipped[0]


_DEEP = QwenConfig(5, 20, 6, 3, d_head=4, d_mlp=28, n_ctx=64, d_vocab=22, rope_theta=1e4, eps=1e-6)
_WIDE = QwenConfig(3, 16, 4, 1, d_head=6, d_mlp=24, n_ctx=64, d_vocab=31, rope_theta=1e4, eps=0.05)
MODELS = {
    LESSON: Fresh(lambda: _ready(load_model(task.CHALLENGE, bundled_instance(), device="cpu"))),
    "a random model with 5 layers, 6 query and 3 key/value heads": Fresh(partial(_random, 41, _DEEP)),
    "a random model with 3 layers, 4 query heads and one key/value head": Fresh(partial(_random, 42, _WIDE)),
}


class Plain:
    """A processed Qwen2 from its weights, which knows nothing of hooks or caches; a small one in double precision."""

    _made: "weakref.WeakKeyDictionary[Any, Plain]" = weakref.WeakKeyDictionary()

    def __init__(self, model: Any) -> None:
        cfg, small = model.cfg, model.cfg.d_model < 512
        self.n_layers, self.n_heads, self.n_groups = cfg.n_layers, cfg.n_heads, cfg.n_key_value_heads
        self.d_head, self.eps, self.theta = cfg.d_head, cfg.eps, cfg.rope_parameters["rope_theta"]
        weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
        self.w = {name: w.cpu().double() if small else w for name, w in weights.items()}
        self.W_U, self.b_U = self.w["unembed.weight"].T, self.w["unembed.bias"]
        self._known: dict[Any, Any] | None = {} if small else None

    @classmethod
    def of(cls, model: Any) -> "Plain":
        """That of a model, made once."""
        if model not in cls._made:
            cls._made[model] = cls(model)
        return cls._made[model]

    def _once(self, tokens: Tensor, key: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, remembered for small batches: all slips of an exercise share their runs and sweeps."""
        if self._known is None or tokens.numel() > 1000:
            return make()
        key += str(tokens.tolist())
        if key not in self._known:
            if len(self._known) > 300:
                self._known.clear()
            self._known[key] = make()
        return self._known[key]

    def scale(self, residual: Float[Tensor, "... d_model"]) -> Float[Tensor, "... 1"]:
        """What RMSNorm divides by."""
        return (residual.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()

    def W_O(self, layer: int) -> Float[Tensor, "head d_head d_model"]:
        """The output matrix, cut into heads."""
        return self.w[f"blocks.{layer}.attn.o.weight"].T.reshape(self.n_heads, self.d_head, -1)

    def b_O(self, layer: int) -> Float[Tensor, " d_model"]:
        """The bias of the attention's output."""
        return self.w[f"blocks.{layer}.attn.o.bias"]

    def run(self, tokens: Int[Tensor, "batch position"]) -> dict[Site, Tensor]:
        """Every activation of a run; ("logits", -1) at last."""
        return self._once(tokens, "", lambda: self.edited(tokens, {}))

    def edited(self, tokens: Int[Tensor, "batch position"], edits: Mapping[Site, Edit]) -> dict[Site, Tensor]:
        """Every activation of a run, each edited where `edits` has a function for it."""
        seen: dict[Site, Tensor] = {}

        def at(name: str, layer: int, value: Tensor) -> Tensor:
            edit = edits.get((name, layer))
            seen[name, layer] = value if edit is None else edit(value.clone())
            return seen[name, layer]

        residual = at("embed", -1, self.w["embed.weight"][tokens.to(self.W_U.device)])
        for layer in range(self.n_layers):
            residual = at("resid_pre", layer, residual)
            residual = at("resid_mid", layer, residual + self._attention(layer, residual, at))
            normed = residual / self.scale(residual) * self.w[f"blocks.{layer}.ln2.weight"]
            gate, into, out = (
                self.w[f"blocks.{layer}.mlp.{name}.weight"].T for name in ("gate", "in", "out")
            )
            written = at("mlp_out", layer, (silu(normed @ gate) * (normed @ into)) @ out)
            residual = at("resid_post", layer, residual + written)
        normed = residual / at("scale", -1, self.scale(residual)) * self.w["ln_final.weight"]
        at("logits", -1, normed @ self.W_U + self.b_U)
        return seen

    def _attention(self, layer: int, residual: Tensor, at: Callable[[str, int, Tensor], Tensor]) -> Tensor:
        """One key/value head after another, each with the query heads that read it."""
        block = {name.removeprefix(f"blocks.{layer}."): w for name, w in self.w.items()}
        normed = residual / self.scale(residual) * block["ln1.weight"]
        q, k, v = (
            at(name, layer, (normed @ weight.T + block[f"attn.{name}.bias"]).unflatten(-1, (-1, self.d_head)))
            for name in "qkv"
            for weight in [block[f"attn.{name}.weight"]]
        )
        by_group = self._rotated(q).unflatten(2, (self.n_groups, -1))
        scores = torch.einsum("bqgnd,bkgd->bgnqk", by_group, self._rotated(k)) / self.d_head**0.5
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        pattern = at("pattern", layer, scores.masked_fill(future, -torch.inf).softmax(-1).flatten(1, 2))
        read = torch.einsum("bgnqk,bkgd->bqgnd", pattern.unflatten(1, (self.n_groups, -1)), v)
        z = at("z", layer, read.flatten(2, 3))
        return at("attn_out", layer, z.flatten(2) @ block["attn.o.weight"].T + self.b_O(layer))

    def _rotated(self, x: Float[Tensor, "batch position head d_head"]) -> Tensor:
        half = self.d_head // 2
        places, turns = (torch.arange(n, device=x.device, dtype=x.dtype) for n in (x.shape[1], half))
        angles = torch.outer(places, self.theta ** -(turns / half))[:, None]
        y, z = x[..., :half], x[..., half:]
        return torch.cat([y * angles.cos() - z * angles.sin(), y * angles.sin() + z * angles.cos()], dim=-1)

    def patched(
        self, tokens: Tensor, source: Tensor, name: str, indices: list[Any], pile: bool = False
    ) -> Float[Tensor, "layer index batch position vocabulary"]:
        """The logits of a run on `tokens` for each layer and index of an activation, which has the numbers of `source`.

        With `pile` it has them at all earlier layers and indices, too.
        """
        seen, n = self.run(source), len(indices)

        def put(layer: int, at: int, now: Tensor) -> Tensor:
            copies = now.unflatten(0, (n, -1))  # one for each index
            for i, index in enumerate(indices):
                which = slice(i if at == layer else 0, None) if pile else slice(i, i + 1)
                copies[(which, *index)] = seen[name, at][index]
            return copies.flatten(0, 1)

        def logits(layer: int) -> Tensor:
            edits = {(name, at): partial(put, layer, at) for at in (range(layer + 1) if pile else [layer])}
            return self.edited(tokens.repeat(n, 1), edits)["logits", -1].unflatten(0, (n, -1))

        key = f"{source.tolist()} {name} {indices} {pile}"
        return self._once(tokens, key, lambda: torch.stack([logits(layer) for layer in range(self.n_layers)]))


def as_of(model: Any, value: Tensor) -> Tensor:
    """A number of `Plain`'s where the model is, in its precision, as the lesson's later cells expect it."""
    return value.to(model.W_U)


def other_tokens(tokens: Int[Tensor, " batch"], d_vocab: int, generator: torch.Generator) -> Tensor:
    """For each token another one."""
    return (tokens + torch.randint(1, d_vocab, tokens.shape, generator=generator)) % d_vocab
