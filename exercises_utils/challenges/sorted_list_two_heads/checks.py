"""The checks of lesson 02, in the order of the lesson. The modules named `checks_…` contain the answers.

Each truth comes by a way that the lesson's solution does not take: an identity, a loop, or the effect of an
intervention. Each check runs on the lesson's model and on random models of other sizes.
"""

from exercises_utils.challenges.sorted_list_two_heads import (
    checks_behaviour,
    checks_circuits,
    checks_evidence,
)
from exercises_utils.checking import CheckList

CHECKS = CheckList("02 sorted list, two heads")
progress = CHECKS.progress
MOST_SITES = checks_evidence.MOST_SITES

answer_probabilities = CHECKS.add(checks_behaviour.answer_probabilities)
folded_unembedding = CHECKS.add(checks_behaviour.folded_unembedding)
what_folding_changes = CHECKS.add(checks_behaviour.what_folding_changes)
constant_scale_logits = CHECKS.add(checks_behaviour.constant_scale_logits)
sep_attends_to = CHECKS.add(checks_behaviour.sep_attends_to)
attention_to_next = CHECKS.add(checks_behaviour.attention_to_next)
ablation_costs = CHECKS.add(checks_behaviour.ablation_costs)
costs_by_number = CHECKS.add(checks_behaviour.costs_by_number)
owners_only = CHECKS.add(checks_behaviour.owners_only)
number_ranges = CHECKS.add(checks_behaviour.number_ranges)
head_circuits = CHECKS.add(checks_circuits.head_circuits)
copying_head = CHECKS.add(checks_circuits.copying_head)
shared_pattern = CHECKS.add(checks_circuits.shared_pattern)
key_scores = CHECKS.add(checks_circuits.key_scores)
position_key_scores = CHECKS.add(checks_circuits.position_key_scores)
without_direct_path = CHECKS.add(checks_circuits.without_direct_path)
dla_from_sources = CHECKS.add(checks_circuits.dla_from_sources)
swapped_axes = CHECKS.add(checks_circuits.swapped_axes)
counterexamples = CHECKS.add(checks_evidence.counterexamples)
right_attention = CHECKS.add(checks_evidence.right_attention)
circuit = CHECKS.add(checks_evidence.circuit)
explanation = CHECKS.add(checks_evidence.explanation)
