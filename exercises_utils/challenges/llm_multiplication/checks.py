"""The checks of lesson 05, in the order of the lesson. They, and the modules they come from, contain the answers.

Each truth comes by a way that the lesson's solution does not take: from the text of the numbers, or from a Qwen2
written out by hand (`checks_common.Plain`). Each check runs on random numbers or on small random models with unequal
numbers of query and key/value heads; `mistakes` maps a message to the value that a common mistake gives.
"""

from exercises_utils.challenges.llm_multiplication import (
    checks_attribution,
    checks_evidence,
    checks_patching,
    checks_reading,
)
from exercises_utils.checking import CheckList

CHECKS = CheckList("05 LLM multiplication")
progress = CHECKS.progress

answer_logits = CHECKS.add(checks_reading.answer_logits)
place_accuracy = CHECKS.add(checks_reading.place_accuracy)
logit_difference = CHECKS.add(checks_reading.logit_difference)
lens = CHECKS.add(checks_attribution.lens)
component_attribution = CHECKS.add(checks_attribution.component_attribution)
sum_or_mean = CHECKS.add(checks_attribution.sum_or_mean)
head_attribution = CHECKS.add(checks_attribution.head_attribution)
pair_tokens = CHECKS.add(checks_patching.pair_tokens)
corrupted_that_is_not = CHECKS.add(checks_patching.corrupted_that_is_not)
patch_positions = CHECKS.add(checks_patching.patch_positions)
sweep_share = CHECKS.add(checks_patching.sweep_share)
reach = CHECKS.add(checks_reading.reach)
patch_heads = CHECKS.add(checks_patching.patch_heads)
query_heads_of = CHECKS.add(checks_patching.query_heads_of)
positions_for_heads = CHECKS.add(checks_patching.positions_for_heads)
counterexamples = CHECKS.add(checks_evidence.counterexamples)
circuit = CHECKS.add(checks_evidence.circuit)
explanation = CHECKS.add(checks_evidence.explanation)
