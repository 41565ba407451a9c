"""Models: weights and their cards from wherever they are, and the hooked models that are built from them."""

from typing import TYPE_CHECKING

from exercises_utils import lazily

if TYPE_CHECKING:
    from exercises_utils.models.architecture import ModelConfig, PlainTransformer, QwenConfig
    from exercises_utils.models.cards import (
        DEFAULT_VARIANT,
        WEIGHTS,
        Card,
        CheckpointError,
        FolderCard,
        card_path,
    )
    from exercises_utils.models.checkpoints import load_checkpoint, require_free, save_checkpoint
    from exercises_utils.models.devices import default_device, lesson_device
    from exercises_utils.models.files import write_whole
    from exercises_utils.models.huggingface import random_model, save_folder
    from exercises_utils.models.loading import DEFAULT_INSTANCE, load_model, model_and_card
    from exercises_utils.models.native import build_model
    from exercises_utils.models.sources import (
        available_instances,
        checkpoint_path,
        checkpoints_folder,
        find,
        lesson_instances,
    )
    from exercises_utils.models.training import TrainingConfig, as_generator, draw_where, slice_on_card
else:
    __getattr__ = lazily(
        __name__,
        {
            "architecture": "ModelConfig PlainTransformer QwenConfig",
            "cards": "DEFAULT_VARIANT WEIGHTS Card CheckpointError FolderCard card_path",
            "checkpoints": "load_checkpoint require_free save_checkpoint",
            "devices": "default_device lesson_device",
            "files": "write_whole",
            "huggingface": "random_model save_folder",
            "loading": "DEFAULT_INSTANCE load_model model_and_card",
            "native": "build_model",
            "sources": "available_instances checkpoint_path checkpoints_folder find lesson_instances",
            "training": "TrainingConfig as_generator draw_where slice_on_card",
        },
    )
