"""The checks of lesson 01, in the order of the lesson. The modules named `checks_…` contain the answers.

Each truth comes by a way that the lesson's solution does not take: a loop, or the weights instead of a hook. Each
check of code runs on the lesson's model and on random models of other shapes, or on random matrices.
"""

from exercises_utils.challenges.sorted_list_one_head import (
    checks_evidence,
    checks_looking,
    checks_rebuilding,
    checks_weights,
)
from exercises_utils.checking import CheckList

CHECKS = CheckList("01 sorted list, one head")
progress = CHECKS.progress

answer_accuracy = CHECKS.add(checks_looking.answer_accuracy)
mean_pattern = CHECKS.add(checks_looking.mean_pattern)
hide_position = CHECKS.add(checks_looking.hide_position)
what_if_hidden = CHECKS.add(checks_looking.what_if_hidden)
attention_to_answer = CHECKS.add(checks_looking.attention_to_answer)
full_ov_circuit = CHECKS.add(checks_weights.full_ov_circuit)
copying_share = CHECKS.add(checks_weights.copying_share)
position_bias = CHECKS.add(checks_weights.position_bias)
copied_answers = CHECKS.add(checks_weights.copied_answers)
score_terms = CHECKS.add(checks_weights.score_terms)
successor_share = CHECKS.add(checks_weights.successor_share)
what_is_wrong_with_062 = CHECKS.add(checks_weights.what_is_wrong_with_062)
slope_by_position = CHECKS.add(checks_weights.slope_by_position)
rebuilt_logits = CHECKS.add(checks_rebuilding.rebuilt_logits)
second_differences = CHECKS.add(checks_rebuilding.second_differences)
accuracy_with_terms = CHECKS.add(checks_rebuilding.accuracy_with_terms)
counterexamples = CHECKS.add(checks_evidence.counterexamples)
circuit = CHECKS.add(checks_evidence.circuit)
explanation = CHECKS.add(checks_evidence.explanation)
