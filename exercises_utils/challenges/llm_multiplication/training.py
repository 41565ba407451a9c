"""How the bundled models of lesson 05 are trained: a small Qwen2 on products, a tenth of the pairs held out.

`exercises train llm_multiplication --seed 0` makes the lesson's model again, and `--variant two_digits` the one that
it is compared with. Both run on the CPU in the background, or on a GPU where there is one.
"""

import hashlib
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor
from tqdm.auto import tqdm

from exercises_utils.challenges.llm_multiplication.task import (
    BUNDLED,
    CHALLENGE,
    D_VOCAB,
    HELD_OUT_SEED,
    Products,
    both_orders,
    prompt_length,
    right_by_place,
    sequences,
    split,
)
from exercises_utils.models import (
    DEFAULT_VARIANT,
    WEIGHTS,
    Card,
    CheckpointError,
    FolderCard,
    QwenConfig,
    card_path,
    checkpoints_folder,
    default_device,
    require_free,
    write_whole,
)

IGNORED = -100


@dataclass(frozen=True)
class MultiplicationTraining:
    """A model's sizes, its data, and how it is trained; `why` says, for the card, why so."""

    digits: tuple[int, int]
    steps: int
    why: str
    n_layers: int = 4
    d_model: int = 128
    d_mlp: int = 512
    n_heads: int = 4
    n_key_value_heads: int = 2
    batch_size: int = 256
    lr: float = 2e-3
    lr_final_share: float = 0.05
    warm_up: int = 200
    weight_decay: float = 0.1
    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.98)


VARIANTS = {
    "default": MultiplicationTraining(
        digits=(3, 2),
        steps=16_000,
        why=(
            "Muon for the matrices and AdamW for the rest: after 1,000 steps the held-out loss was 0.61 nats a token, "
            "with AdamW alone 0.99. Three-digit by two-digit products, because two-digit products are few enough to be "
            "remembered."
        ),
    ),
    "two_digits": MultiplicationTraining(
        digits=(2, 2),
        steps=3_000,
        why="The same model on two-digit products, which are few enough to be remembered: the lesson compares the two.",
    ),
}
"""What can be trained: the lesson's model, and the one that it is compared with."""


def qwen2_config(settings: MultiplicationTraining) -> Any:
    """The `transformers` config of the model, with Qwen2.5's choices: RMSNorm, rotary positions, tied embeddings."""
    from transformers import Qwen2Config

    make: Any = Qwen2Config  # its signature does not name `attn_implementation`
    return make(
        vocab_size=D_VOCAB,
        hidden_size=settings.d_model,
        intermediate_size=settings.d_mlp,
        num_hidden_layers=settings.n_layers,
        num_attention_heads=settings.n_heads,
        num_key_value_heads=settings.n_key_value_heads,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        attn_implementation="eager",  # bfloat16's fused attention is slow on a CPU for sequences this short
    )


def train(
    settings: MultiplicationTraining, seed: int, *, quiet: bool = False
) -> tuple[Any, list[dict[str, Any]]]:
    """The trained `Qwen2ForCausalLM`, on the CPU, and the loss as it went: {"step", "loss"} in nats a token.

    The loss is over the digits of the product and the end after them. The global random state is left alone.
    Matrix products are in bfloat16, so the same seed gives the same weights only on the same machine with the same
    number of threads (the shipped weights: one).

    Raises:
        RuntimeError: a torch older than 2.9, which has no Muon.
    """
    from transformers import Qwen2ForCausalLM

    if not hasattr(torch.optim, "Muon"):
        raise RuntimeError(
            f"torch {torch.__version__} has no torch.optim.Muon; training needs torch 2.9 or newer."
        )
    device = default_device()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = Qwen2ForCausalLM(qwen2_config(settings))
        model = model.to(device).train()
    pairs = both_orders(split(settings.digits)[0])
    tokens, first = sequences(pairs), prompt_length(pairs)
    labels = tokens[:, first:].clone()
    end_of_answer = pairs.n_answer_digits[:, None]
    labels[torch.arange(labels.shape[1]) > end_of_answer] = IGNORED

    def loss_of(
        inputs: Int[Tensor, "batch position"], wanted: Int[Tensor, "batch answer"]
    ) -> Float[Tensor, ""]:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state[:, first - 1 :]
        logits = hidden.float() @ model.lm_head.weight.T
        return F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED)

    compiled = torch.compile(loss_of)
    optimizers = _optimizers(model, settings)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rate, settings)) for optimizer in optimizers
    ]
    generator = Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    history = []
    bar = tqdm(range(settings.steps), desc=f"{CHALLENGE} seed {seed}", disable=quiet, unit="step")
    for step in bar:
        if len(order) < settings.batch_size:  # the incomplete batch at an epoch's end is left out
            order = torch.randperm(len(tokens), generator=generator)
        chosen, order = order[: settings.batch_size], order[settings.batch_size :]
        loss = compiled(tokens[chosen, :-1].to(device), labels[chosen].to(device))
        loss.backward()
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if step % 50 == 0 or step == settings.steps - 1:
            history.append({"step": step, "loss": loss.item()})
            bar.set_postfix(loss=f"{loss.item():.4f}")
    return model.eval().cpu(), history


def _optimizers(model: Any, settings: MultiplicationTraining) -> list[Any]:
    """Muon for the matrices of the blocks, AdamW for the embedding, biases and norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    in_matrices = {id(p) for p in matrices}
    muon = torch.optim.Muon(
        matrices,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
        adjust_lr_fn="match_rms_adamw",
    )
    others = [p for p in model.parameters() if id(p) not in in_matrices]
    return [muon, torch.optim.AdamW(others, lr=settings.lr, betas=settings.betas, weight_decay=0.0)]


def _rate(settings: MultiplicationTraining, step: int) -> float:
    """The learning rate of a step, as a share of the largest: warm-up, then a cosine."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return min(1.0, (step + 1) / settings.warm_up) * (
        settings.lr_final_share + (1 - settings.lr_final_share) * cosine
    )


def run_training(
    seed: int,
    out: str | Path | None = None,
    force: bool = False,
    variant: str = DEFAULT_VARIANT,
    *,
    quiet: bool = False,
) -> Card:
    """Train, measure, write the model's folder and its card; the card comes back.

    `out` is the folder to write; None means the challenge's own, where it becomes the instance `seed<seed>`, or one
    named after the variant. Raises CheckpointExistsError before any training if something is there and `force` is
    False, and CheckpointError for an unknown variant. Folder and card appear whole, at the end, or not at all.
    """
    if variant not in VARIANTS:
        raise CheckpointError(f"There is no variant {variant!r}. Variants: {', '.join(VARIANTS)}.")
    name = f"seed{seed}" if variant == DEFAULT_VARIANT else variant
    out = checkpoints_folder() / CHALLENGE / name if out is None else Path(out)
    require_free(out, force, folder=True)
    model, history = train(VARIANTS[variant], seed, quiet=quiet)
    return card_and_folder(model, history, VARIANTS[variant], seed, out, variant)


def card_and_folder(
    model: Any,
    history: list[dict[str, Any]],
    settings: MultiplicationTraining,
    seed: int,
    out: Path,
    variant: str = DEFAULT_VARIANT,
) -> Card:
    """Measure a trained model, write its folder and its card (over what is there); the card comes back."""
    from exercises_utils.challenges.llm_multiplication.tokenizer import build_tokenizer
    from exercises_utils.models import save_folder

    accuracy, slices = measure(model, settings)
    save_folder(model, build_tokenizer(), out)
    packages = ("mechinterp-exercises", "torch", "transformers", "safetensors")
    card = FolderCard(
        challenge=CHALLENGE,
        instance=out.name,
        config=QwenConfig.from_huggingface(model.config.to_dict()),
        training={**asdict(settings), "final_loss": round(history[-1]["loss"], 6)},
        data=(
            f"All products of a number of {settings.digits[0]} digits and one of {settings.digits[1]}, in both orders, "
            "but a tenth of the pairs, held out in both orders."
        ),
        seed=seed,
        versions={"python": platform.python_version(), **{name: version(name) for name in packages}},
        accuracy=accuracy,
        hard_slices=slices,
        sha256=_sha256(out / WEIGHTS),
        files={file.name: _sha256(file) for file in sorted(out.iterdir()) if file.name != WEIGHTS},
        variant=variant,
    )
    # The card comes last: until it is there, nothing loads the folder.
    write_whole(card_path(out), card.to_json().encode())
    return card


def measure(model: Any, settings: MultiplicationTraining) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """How good a model is, for its card: on all that was held out, and on as many pairs it was trained on.

    The first is {"value", "n", "seed"}: the share of held-out products that are right as a whole. The second has, for
    held-out and trained pairs and for each length of the product, the share right as a whole and by place.
    """
    trained, held_out = split(settings.digits)
    chosen = torch.randperm(len(trained), generator=Generator().manual_seed(HELD_OUT_SEED))[: len(held_out)]
    slices, n_right, n = {}, 0, 0
    for what, pairs in (("held out", both_orders(held_out)), ("trained on", both_orders(trained[chosen]))):
        for length in pairs.n_answer_digits.unique().tolist():
            here = pairs[pairs.n_answer_digits == length]
            whole, places = _accuracy(model, here)
            slices[f"{what}, {length} digits"] = {
                "definition": (
                    f"All products of {length} digits among the pairs "
                    + (
                        "that were held out"
                        if what == "held out"
                        else "of a random sample of those trained on"
                    )
                    + ", both orders. Right digits fed; `accuracy`: every digit and the end after them is the top token."
                ),
                "n": len(here),
                "seed": HELD_OUT_SEED,
                "accuracy": round(whole, 6),
                "by_place": {place: round(share, 6) for place, share in places.items()},
            }
            if what == "held out":
                n_right, n = n_right + round(whole * len(here)), n + len(here)
    return {"value": round(n_right / n, 6), "n": n, "seed": HELD_OUT_SEED}, slices


@torch.no_grad()
def _accuracy(model: Any, products: Products) -> tuple[float, Mapping[str, float]]:
    """The share of products (all of one length) that are right as a whole, and by place."""
    tokens = sequences(products)
    logits = torch.cat([model(input_ids=part).logits for part in tokens[:, :-1].split(2000)])
    places = right_by_place(logits, products)
    whole = torch.stack([*places.values(), logits[:, -1].argmax(-1) == BUNDLED.end]).all(dim=0)
    return whole.double().mean().item(), {
        place: right.double().mean().item() for place, right in places.items()
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
