"""The checks of lesson 03, in the order of the lesson. The modules named `checks_…` contain the answers.

Each truth comes by a way that the lesson's solution does not take: plain algebra instead of hooks, singular values
instead of norms. Each check runs on the lesson's model and on random models of other shapes.
"""

from exercises_utils.challenges.palindromes import (
    checks_evidence,
    checks_message,
    checks_verdict,
    checks_weights,
)
from exercises_utils.checking import CheckList

CHECKS = CheckList("03 palindromes")
progress = CHECKS.progress

logit_diff = CHECKS.add(checks_verdict.logit_diff)
logit_attribution = CHECKS.add(checks_verdict.logit_attribution)
mirror_attention = CHECKS.add(checks_verdict.mirror_attention)

swap_pattern = CHECKS.add(checks_message.swap_pattern)
necessity = CHECKS.add(checks_message.necessity)
send_message = CHECKS.add(checks_message.send_message)
swap_inputs = CHECKS.add(checks_message.swap_inputs)
counterexamples = CHECKS.add(checks_evidence.counterexamples)
mend = CHECKS.add(checks_message.mend)

token_circuit = CHECKS.add(checks_weights.token_circuit)
attention_without_positions = CHECKS.add(checks_weights.attention_without_positions)
composed_readings = CHECKS.add(checks_weights.composed_readings)
verdict_by_position = CHECKS.add(checks_weights.verdict_by_position)
composition_score = CHECKS.add(checks_weights.composition_score)
ablation_costs = CHECKS.add(checks_weights.ablation_costs)
stale_label = CHECKS.add(checks_weights.stale_label)
what_processing_keeps = CHECKS.add(checks_weights.what_processing_keeps)

circuit = CHECKS.add(checks_evidence.circuit)
explanation = CHECKS.add(checks_evidence.explanation)
