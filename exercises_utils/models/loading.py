"""A model by its name: a source is found, gives weights and their card, and these become a hooked model."""

import os
from pathlib import Path

import torch
from transformer_lens.model_bridge import TransformerBridge

from exercises_utils.models.architecture import ModelConfig
from exercises_utils.models.cards import Card
from exercises_utils.models.checkpoints import Source, Stored
from exercises_utils.models.native import build_model
from exercises_utils.models.sources import find

DEFAULT_INSTANCE = os.environ.get("EXERCISES_INSTANCE", "seed0")


def load_model(
    challenge: str,
    instance: str | Path = DEFAULT_INSTANCE,
    device: str | torch.device | None = None,
    processed: bool = True,
) -> TransformerBridge:
    """The trained model of a challenge, with hooks, in evaluation mode.

    `instance` is a name such as "seed0" (the default; the environment variable EXERCISES_INSTANCE changes it)
    or the path of a `.safetensors` file, or of a model's folder, with its card beside it. A name such as
    "qwen2.5-0.5b" is of a model on the hub, fetched when it is asked for (see `hub`). Without a `device`, that one
    goes to `default_device()` and all others go to `lesson_device()`. `processed` folds the weights of LayerNorm or
    RMSNorm, the value biases and the means that change no probability (see `build_model` and `huggingface`).

    Raises a `CheckpointError` that says what is wrong with the file, or which challenges and instances exist.

    >>> model = load_model("palindromes", "seed0", device="cpu")
    >>> model.cfg.n_layers, model.cfg.n_heads
    (2, 2)
    """
    return _built(find(challenge, instance), device, processed)[0]


def model_and_card(
    path: str | Path,
    challenge: str | None = None,
    device: str | torch.device | None = None,
    processed: bool = True,
) -> tuple[TransformerBridge, Card]:
    """The model at a path, a file or a folder, after every check, and its card."""
    return _built(Stored(Path(path), challenge), device, processed)


def _built(
    source: Source, device: str | torch.device | None, processed: bool
) -> tuple[TransformerBridge, Card]:
    device, dtype = source.place(device, processed)
    path = source.fetch()
    weights, card = source.read(path)
    if isinstance(card.config, ModelConfig):
        return build_model(card.config, weights, device=device, processed=processed), card
    from exercises_utils.models.huggingface import (  # transformers takes seconds to import
        build,
        load_tokenizer,
    )

    return build(card.config, weights, load_tokenizer(path), device, dtype, processed), card
