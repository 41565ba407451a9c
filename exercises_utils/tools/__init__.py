"""Tools for looking into a model: hooks, circuits, activation patching, token sequences."""

from typing import TYPE_CHECKING

from exercises_utils import lazily

if TYPE_CHECKING:
    from exercises_utils.tools.circuits import (
        causal,
        ov_output,
        qk_scores,
        random_composition_scores,
        residual_components,
    )
    from exercises_utils.tools.hooks import ablate, get_act_name, patch, record
    from exercises_utils.tools.patching import get_act_patch
    from exercises_utils.tools.sequences import (
        TaskData,
        mean_cross_entropy,
        names_of,
        top_is_right,
        whole_numbers,
    )
else:
    __getattr__ = lazily(
        __name__,
        {
            "circuits": "causal ov_output qk_scores random_composition_scores residual_components",
            "hooks": "ablate get_act_name patch record",
            "patching": "get_act_patch",
            "sequences": "TaskData mean_cross_entropy names_of top_is_right whole_numbers",
        },
    )
