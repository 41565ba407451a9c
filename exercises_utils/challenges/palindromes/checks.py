"""The checks of lesson 03, in the order of the lesson. The modules named `checks_…` contain the answers.

Each truth comes by a way that the lesson's solution does not take: an identity, a loop, or the effect of an
intervention. Each check runs on the lesson's model and on random models of other shapes; `mistakes` maps a
message to the value that a common mistake gives.
"""

from exercises_utils.challenges.palindromes import (
    checks_comparing,
    checks_evidence,
    checks_message,
    checks_verdict,
)
from exercises_utils.checking import CheckList

CHECKS = CheckList("03 palindromes")
progress = CHECKS.progress

logit_diff = CHECKS.add(checks_verdict.logit_diff)
logit_attribution = CHECKS.add(checks_verdict.logit_attribution)
reading_head = CHECKS.add(checks_verdict.reading_head)
where_end_looks = CHECKS.add(checks_verdict.where_end_looks)

mirror_attention = CHECKS.add(checks_comparing.mirror_attention)
token_circuit = CHECKS.add(checks_comparing.token_circuit)
matching_head = CHECKS.add(checks_comparing.matching_head)
position_circuit = CHECKS.add(checks_comparing.position_circuit)
attention_without_positions = CHECKS.add(checks_comparing.attention_without_positions)

swap_pattern = CHECKS.add(checks_message.swap_pattern)
swap_inputs = CHECKS.add(checks_message.swap_inputs)
composed_key_scores = CHECKS.add(checks_message.composed_key_scores)
composed_verdict = CHECKS.add(checks_message.composed_verdict)
composition_score = CHECKS.add(checks_message.composition_score)
verdict_by_position = CHECKS.add(checks_message.verdict_by_position)
ablation_costs = CHECKS.add(checks_message.ablation_costs)
stale_label = CHECKS.add(checks_message.stale_label)

counterexamples = CHECKS.add(checks_evidence.counterexamples)
circuit = CHECKS.add(checks_evidence.circuit)
explanation = CHECKS.add(checks_evidence.explanation)
what_processing_keeps = CHECKS.add(checks_evidence.what_processing_keeps)
