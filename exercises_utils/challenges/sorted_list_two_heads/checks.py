"""The checks of lesson 02. The modules that they come from contain the answers.

Each truth comes by a way that the lesson's solution does not take: an identity, a loop, or the effect of an
intervention. Each check runs on the lesson's model and on random models of other shapes; `mistakes` maps a
message to the value that a common mistake gives.
"""

# The order of these imports is the order of the lesson.
# ruff: isort: off
from exercises_utils.challenges.sorted_list_two_heads.checks_common import CHECKS
from exercises_utils.challenges.sorted_list_two_heads.checks_behaviour import (
    ablation_costs,
    answer_probabilities,
    attention_to_next,
    constant_scale_logits,
    costs_by_number,
    folded_unembedding,
    owners_only,
    sep_attends_to,
    what_folding_changes,
)
from exercises_utils.challenges.sorted_list_two_heads.checks_circuits import (
    copying_head,
    dla_from_sources,
    head_circuits,
    key_scores,
    number_ranges,
    position_key_scores,
    shared_pattern,
    without_direct_path,
)
from exercises_utils.challenges.sorted_list_two_heads.checks_evidence import (
    MOST_SITES,
    circuit,
    counterexamples,
    explanation,
    right_attention,
    swapped_axes,
)

progress = CHECKS.progress

__all__ = [
    "CHECKS",
    "MOST_SITES",
    "ablation_costs",
    "answer_probabilities",
    "attention_to_next",
    "circuit",
    "constant_scale_logits",
    "copying_head",
    "costs_by_number",
    "counterexamples",
    "dla_from_sources",
    "explanation",
    "folded_unembedding",
    "head_circuits",
    "key_scores",
    "number_ranges",
    "owners_only",
    "position_key_scores",
    "progress",
    "right_attention",
    "sep_attends_to",
    "shared_pattern",
    "swapped_axes",
    "what_folding_changes",
    "without_direct_path",
]
