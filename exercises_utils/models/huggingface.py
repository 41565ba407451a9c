"""Qwen2 models in Hugging Face's folder format: saved, and built as hooked TransformerLens models.

TransformerLens 4 reads such a folder with `TransformerBridge.boot_transformers`. What is mended here, so that a Qwen2
model has what `native.py` promises for the small ones:

- The tokenizer is the folder's. (TransformerLens asks `AutoTokenizer` for one "with BOS" where the tokenizer has a BOS
  token; that one is rebuilt from Qwen2's own pattern, and loses tokens such as " x" and " =".)
- The sequence begins with "<|endoftext|>": `model.to_tokens` and `model("text")` put it there unless
  `prepend_bos=False` says otherwise. Qwen2 has no BOS token and TransformerLens's default is to put none; the course
  puts this one first, on purpose, as the write-up does.
- `hook_resid_mid` is the residual stream after attention, for the MLP and for everything after it. (Natively, a hook
  that returns a new tensor changes only what the MLP reads. To do that on purpose: `set_use_hook_mlp_in(True)` and
  `hook_mlp_in`; do not use both at once.)
- `hook_result` is there, [batch, position, head, d_model], and editing it changes the model.
- `hook_scale` and `hook_normalized` can be edited (natively an in-place edit is lost, and another one warns).
- Every hook can be edited by returning a tensor or in place, and no edit changes another cached activation.
- Processing (`processed=True`) folds RMSNorm's weights into the matrices that read after them and the value biases
  into `b_O`, and centres `W_U` over the vocabulary; `W_E` stays what it is. It is done before TransformerLens sees the
  model and needs no second copy of it (natively: 8 GB for the 2 GB of Qwen2.5-0.5B).
- The global random state is left alone, and nothing is printed but what the docstrings say.

What stays so: `hook_k`, `hook_v` and `hook_rot_k` are [batch, position, key-value head, d_head], one for several heads.
`hook_rot_q` and `hook_rot_k` are what the scores are made of: `hook_q` and `hook_k` after the rotation by position.
"""

import contextlib
import copy
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Generator, Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components import RMSNormalizationBridge
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.utils import logging as transformers_logging

from exercises_utils.models.architecture import QwenConfig, misfits
from exercises_utils.models.cards import WEIGHTS, MissingWeightsError, WrongWeightsError
from exercises_utils.models.devices import lesson_device
from exercises_utils.models.native import separate_hooks, take_tokens_from_anywhere

FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")
"""What a folder holds beside its weights."""


def save_folder(model: Any, tokenizer: Any, folder: str | Path) -> None:
    """Write a `Qwen2ForCausalLM` and its tokenizer as a folder, whole or not at all. A folder that is there is replaced.

    The folder holds `model.safetensors`, `config.json`, `tokenizer.json` and `tokenizer_config.json`.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        new, old = beside / "new", beside / "old"
        with _quiet():
            model.save_pretrained(new)
            tokenizer.save_pretrained(new)
        for file in new.iterdir():
            if file.name in (WEIGHTS, *FILES):
                file.chmod(0o644)
            else:
                file.unlink()
        new.chmod(0o755)
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except BaseException:
            if old.exists():
                old.rename(folder)
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def load_tokenizer(folder: Path) -> Any:
    """A folder's tokenizer, of the class that its `tokenizer_config.json` names.

    The course's own are `PreTrainedTokenizerFast`, whole in their `tokenizer.json`; anything else, such as Qwen2's own,
    is left to `AutoTokenizer`. Nothing is looked up on the hub.
    """
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        raise MissingWeightsError(f"There is no tokenizer_config.json in {folder}.")
    try:
        named = json.loads(path.read_text(encoding="utf-8")).get("tokenizer_class")
    except (ValueError, AttributeError) as error:
        raise WrongWeightsError(f"{path} cannot be used: {error}") from error
    # transformers 5 writes another name for the same class.
    general = named in (None, "PreTrainedTokenizerFast", "TokenizersBackend")
    kind = PreTrainedTokenizerFast if general else AutoTokenizer
    return kind.from_pretrained(folder, local_files_only=True)


def build(
    config: QwenConfig,
    weights: Mapping[str, Float[Tensor, "..."]],
    tokenizer: Any = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    processed: bool = True,
) -> TransformerBridge:
    """A hooked model with these weights, named as in Hugging Face's files; see this module's text for what is mended.

    Raises WrongWeightsError where names or shapes are not the config's.
    """
    if wrong := misfits(config, weights):
        raise WrongWeightsError(f"These weights do not belong to this config: {'; '.join(wrong[:5])}.")
    device = lesson_device() if device is None else torch.device(device)
    dtype = dtype or torch.float32
    with _quiet(), torch.random.fork_rng(devices=[]):
        plain: Any = Qwen2ForCausalLM.from_pretrained(
            None,
            config=huggingface_config(config),
            state_dict={name: weight.to(dtype, copy=True) for name, weight in weights.items()},
            dtype=dtype,
            attn_implementation="eager",
        )
        plain = plain.to(device)
        if processed:
            fold(plain)
        tokenizer = numbered_tokenizer(config.d_vocab) if tokenizer is None else copy.deepcopy(tokenizer)
        tokenizer.bos_token = (
            None  # or TransformerLens replaces the tokenizer; it makes the end token the BOS token
        )
        model: Any = TransformerBridge.boot_transformers(
            "Qwen2", hf_model=plain, tokenizer=tokenizer, device=device, dtype=dtype
        )
    model.cfg.default_prepend_bos = True
    for block in model.blocks:
        block.ln1.__class__ = _HookedNorm
        block.ln2.__class__ = _HookedMiddleNorm
    model.ln_final.__class__ = _HookedNorm
    separate_hooks(model)
    take_tokens_from_anywhere(model)
    model.set_use_attn_result(True)
    model.enable_compatibility_mode(
        disable_warnings=True, no_processing=True
    )  # the hooks' usual names and shapes
    model._weights_processed = processed  # what TransformerLens asks before it processes weights itself
    return model.eval().requires_grad_(False)


def numbered_tokenizer(d_vocab: int) -> Any:
    """For models without a tokenizer: "<|endoftext|>" is token 0, and every other token is its number."""
    ids = {"<|endoftext|>": 0, **{str(token): token for token in range(1, d_vocab)}}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )


def huggingface_config(config: QwenConfig) -> Qwen2Config:
    """The same sizes as `transformers` has them."""
    make: Any = Qwen2Config  # its signature does not name `head_dim`, which Qwen2's attention reads
    return make(
        vocab_size=config.d_vocab,
        hidden_size=config.d_model,
        intermediate_size=config.d_mlp,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_key_value_heads,
        head_dim=config.d_head,
        max_position_embeddings=config.n_ctx,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        rms_norm_eps=config.eps,
        tie_word_embeddings=True,
    )


@torch.no_grad()
def fold(plain: Any) -> None:
    """Process a `Qwen2ForCausalLM` in place, without changing any probability; one matrix at a time.

    RMSNorm's weights go into the matrices that read after them, value biases into a bias of the output projection
    (attention's weights sum to one), and the unembedding, no longer the embedding's, is centred over the vocabulary.
    """

    def scaled(linear: Any, norm: Any) -> None:
        linear.weight.copy_(linear.weight.float() * norm.weight.float())

    for layer in plain.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for linear in (attention.q_proj, attention.k_proj, attention.v_proj):
            scaled(linear, layer.input_layernorm)
        for linear in (mlp.gate_proj, mlp.up_proj):
            scaled(linear, layer.post_attention_layernorm)
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.weight.fill_(1.0)
        groups = attention.num_key_value_groups
        d_head = attention.head_dim
        values = attention.v_proj.bias.float().view(-1, d_head).repeat_interleave(groups, dim=0).flatten()
        out = attention.o_proj
        out.bias = nn.Parameter((out.weight.float() @ values).to(out.weight.dtype))
        attention.v_proj.bias.zero_()
    unembedding = plain.lm_head.weight.float() * plain.model.norm.weight.float()  # a copy: W_E stays
    unembedding -= unembedding.mean(dim=0, keepdim=True)
    plain.lm_head.weight = nn.Parameter(unembedding.to(plain.lm_head.weight.dtype))
    plain.config.tie_word_embeddings = False
    plain.model.norm.weight.fill_(1.0)


def random_weights(config: QwenConfig, seed: int) -> dict[str, Tensor]:
    """Weights drawn from a seed, with norms that are not one and biases that are not zero."""
    generator = Generator().manual_seed(seed)
    weights = {}
    for name, shape in config.shapes().items():
        drawn = torch.randn(shape, generator=generator)
        if "norm" in name:
            weights[name] = 1 + 0.3 * drawn
        elif name.endswith("bias"):
            weights[name] = 0.3 * drawn
        else:
            weights[name] = drawn / (1.0 if "embed" in name else shape[-1] ** 0.5)
    return weights


def random_model(
    n_layers: int = 2,
    d_model: int = 24,
    n_heads: int = 4,
    n_key_value_heads: int = 2,
    d_mlp: int = 40,
    d_vocab: int = 15,
    *,
    d_head: int | None = None,
    n_ctx: int = 64,
    seed: int = 0,
    tokenizer: Any = None,
    device: str | torch.device | None = None,
    processed: bool = True,
) -> TransformerBridge:
    """A small random model for checks: its norms are not one and its biases not zero.

    An answer that forgets one of them is wrong on it. Without a `tokenizer`, tokens are numbers.
    `d_head` is d_model / n_heads unless said otherwise.
    """
    config = QwenConfig(
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_key_value_heads=n_key_value_heads,
        d_head=d_model // n_heads if d_head is None else d_head,
        d_mlp=d_mlp,
        n_ctx=n_ctx,
        d_vocab=d_vocab,
        rope_theta=10_000.0,
        eps=1e-6,
    )
    return build(config, random_weights(config, seed), tokenizer, device, processed=processed)


class _HookedNorm(RMSNormalizationBridge):
    """RMSNorm computed through `hook_scale` and `hook_normalized`, so that every edit of them counts."""

    def forward(self, hidden_states: Float[Tensor, "batch position d_model"], **unused: Any) -> Tensor:
        return self.hook_out(self._python_norm_forward(self.hook_in(hidden_states)))


class _HookedMiddleNorm(_HookedNorm):
    """The MLP's norm, whose input hook, `hook_resid_mid`, is the residual stream's own."""

    def forward(self, hidden_states: Float[Tensor, "batch position d_model"], **unused: Any) -> Tensor:
        hooked = self.hook_in(hidden_states)
        if hooked is not hidden_states:
            # The block keeps this very tensor, the sum after attention, to add the MLP's output to it.
            hidden_states.copy_(hooked)
        return self.hook_out(self._python_norm_forward(hidden_states))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of `transformers`, which would stand in a notebook's outputs."""
    bars, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
