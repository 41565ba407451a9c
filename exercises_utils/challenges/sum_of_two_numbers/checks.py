"""The checks of lesson 04, in the order of the lesson. They, and the modules they come from, contain the answers.

Each truth comes by a way that the lesson's solution does not take: an identity, a loop, or the effect of an
intervention. Each check runs on the lesson's model and on random models of other shapes, or on random numbers;
`mistakes` maps a message to the value that a common mistake gives.
"""

from exercises_utils.challenges.sum_of_two_numbers import (
    checks_carry,
    checks_evidence,
    checks_paths,
    checks_waves,
)
from exercises_utils.checking import CheckList

CHECKS = CheckList("04 sum of two numbers")
progress = CHECKS.progress

fourier_basis = CHECKS.add(checks_waves.fourier_basis)
frequency_shares = CHECKS.add(checks_waves.frequency_shares)
one_frequency = CHECKS.add(checks_waves.one_frequency)
circle_of_digits = CHECKS.add(checks_waves.circle_of_digits)
blind_frequency = CHECKS.add(checks_waves.blind_frequency)
column_attention = CHECKS.add(checks_carry.column_attention)
place_costs = CHECKS.add(checks_carry.place_costs)
carry_bug = CHECKS.add(checks_carry.carry_bug)
swap_site = CHECKS.add(checks_carry.swap_site)
carry_sites = CHECKS.add(checks_carry.carry_sites)
which_digit = CHECKS.add(checks_carry.which_digit)
digit_scores = CHECKS.add(checks_carry.digit_scores)
carry_message = CHECKS.add(checks_carry.carry_message)
carry_direction = CHECKS.add(checks_carry.carry_direction)
interchange = CHECKS.add(checks_carry.interchange)
path_attribution = CHECKS.add(checks_paths.path_attribution)
to_circle = CHECKS.add(checks_waves.to_circle)
pair_sums = CHECKS.add(checks_paths.pair_sums)
counterexamples = CHECKS.add(checks_evidence.counterexamples)
circuit = CHECKS.add(checks_evidence.circuit)
explanation = CHECKS.add(checks_evidence.explanation)
