"""Models: weights and their cards from wherever they are, and the hooked model that is built from them."""

from typing import TYPE_CHECKING

from exercises_utils import lazily

if TYPE_CHECKING:
    from exercises_utils.models.architecture import ModelConfig, PlainTransformer, QwenConfig
    from exercises_utils.models.checkpoints import (
        DEFAULT_VARIANT,
        WEIGHTS,
        Card,
        CheckpointError,
        FolderCard,
        available_instances,
        card_path,
        checkpoint_path,
        checkpoints_folder,
        lesson_instances,
        load_checkpoint,
        require_free,
    )
    from exercises_utils.models.files import write_whole
    from exercises_utils.models.huggingface import random_model, save_folder
    from exercises_utils.models.loading import (
        DEFAULT_INSTANCE,
        build_model,
        default_device,
        lesson_device,
        load_model,
        model_and_card,
    )
    from exercises_utils.models.slices import draw_where, slice_on_card
    from exercises_utils.models.training import TrainingConfig, as_generator
else:
    __getattr__ = lazily(
        __name__,
        {
            "architecture": ["ModelConfig", "PlainTransformer", "QwenConfig"],
            "checkpoints": [
                "Card",
                "CheckpointError",
                "FolderCard",
                "DEFAULT_VARIANT",
                "WEIGHTS",
                "available_instances",
                "card_path",
                "checkpoint_path",
                "checkpoints_folder",
                "lesson_instances",
                "load_checkpoint",
                "require_free",
            ],
            "files": ["write_whole"],
            "huggingface": ["random_model", "save_folder"],
            "loading": [
                "DEFAULT_INSTANCE",
                "build_model",
                "default_device",
                "lesson_device",
                "load_model",
                "model_and_card",
            ],
            "slices": ["draw_where", "slice_on_card"],
            "training": ["TrainingConfig", "as_generator"],
        },
    )

__all__ = [
    "Card",
    "CheckpointError",
    "DEFAULT_INSTANCE",
    "DEFAULT_VARIANT",
    "FolderCard",
    "ModelConfig",
    "PlainTransformer",
    "QwenConfig",
    "TrainingConfig",
    "WEIGHTS",
    "as_generator",
    "available_instances",
    "build_model",
    "card_path",
    "checkpoint_path",
    "checkpoints_folder",
    "default_device",
    "draw_where",
    "lesson_device",
    "lesson_instances",
    "load_checkpoint",
    "load_model",
    "model_and_card",
    "random_model",
    "require_free",
    "save_folder",
    "slice_on_card",
    "write_whole",
]
