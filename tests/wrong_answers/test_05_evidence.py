"""Lesson 05, the three kinds of evidence: the wrong answers that people give, and the message each must get."""

import pytest
import torch

from exercises_utils.challenges.llm_multiplication import checks, checks_evidence, evidence, task
from exercises_utils.challenges.llm_multiplication.task import Products
from tests.wrong_answers.harness import Answers, Made, Value, proofs

# ── counterexamples ─────────────────────────────────────────────────────────────────────────────────────────


def known():
    return checks.counterexamples.course_version()


def as_inputs(products):
    return evidence.tokens_of(products)


def ordinary_products():
    return as_inputs(task.make_data(50, 3, held_out=False))


def four_digits_times_one():
    a = torch.arange(3217, 3267)
    return as_inputs(Products(a, torch.full_like(a, 7)))


def one_more_in_the_product():
    tokens = known().clone()
    tokens[:15, 13] = 1 + tokens[:15, 13] % 10
    return tokens


def two_digits_times_two():
    a = torch.arange(17, 67)
    return torch.nn.functional.pad(task.sequences(Products(a, torch.full_like(a, 98))), (0, 3))[:, :16]


def the_models_own_product():
    """What the model answers, in place of the right product."""
    pool = checks_evidence.stored_evidence().pool
    wrong = ~pool.model_is_right.all(-1)
    tokens = pool.tokens[wrong][:50].clone()
    answers = pool.model_answers[wrong][:50]
    tokens[:, 10:15] = torch.where(answers == evidence.ENDED, 0, answers + 1)
    return tokens


def repeats():
    return torch.cat([known()[:25], known()[:25]])


def prompts_alone():
    return known()[:, :10]


def prompts_and_padding():
    tokens = known().clone()
    tokens[:, 10:] = 0
    return tokens


def too_few():
    return known()[:10]


def one_sequence():
    return known()[0]


def list_of_rows():
    return list(known())


def half_ordinary():
    return torch.cat([known()[:25], ordinary_products()[:25]])


def as_lists_of_numbers():
    return known().flip(0).tolist()


def some_misses():
    return torch.cat([known()[:45], ordinary_products()[:5]])


def some_beyond_training():
    return torch.cat([known()[:40], four_digits_times_one()[:10]])


# ── circuit ─────────────────────────────────────────────────────────────────────────────────────────────────


def pruned():
    return checks.circuit.course_version()


def every_site():
    return list(evidence.SITES)


def whole_heads():
    return [(layer, head) for layer in range(4) for head in range(4)]


def answer_positions_alone():
    return [site for site in evidence.SITES if site[2] >= 9 and site[0] < 3]


def without_layer_two():
    return [site for site in pruned() if site[0] != 2]


def at_the_end_token():
    return [*pruned()[1:], (0, 0, 0)]


def last_layer_at_a_number():
    return [*pruned()[1:], (3, 0, 2)]


def head_that_does_not_exist():
    return [*pruned()[1:], (0, 4, 9)]


def position_first():
    return [(position, layer, head) for layer, head, position in pruned()]


def mixed():
    return [(0, 1), (1, 0, 9)]


def as_a_set():
    return set(pruned())


# ── explanation ─────────────────────────────────────────────────────────────────────────────────────────────


def as_written(inputs):
    """The right answers: what is written."""
    return torch.where(inputs[:, 10:15] == 0, 10, inputs[:, 10:15] - 1)


def perfect_algorithm(model):
    return lambda inputs, numbers: as_written(inputs), {}


def token_ids(model):
    return lambda inputs, numbers: inputs[:, 10:15], {}


def units_first(model):
    return lambda inputs, numbers: as_written(inputs).flip(1), {}


def thousands_one_too_large(model):
    """What most scores would reward without a thought: the most frequent mistake, always."""

    def simulate(inputs, numbers):
        answers = as_written(inputs)
        five = (inputs[:, 14] != 0).long()
        rows = torch.arange(len(inputs))
        for column in (five, five + 1):
            answers[rows, column] = (answers[rows, column] + 1) % 10
        return answers

    return simulate, {}


def mistakes_away_from_the_border(model):
    """The model errs where a product is near a round thousand, not where it is far from one."""

    def simulate(inputs, numbers):
        answers = as_written(inputs)
        five = (inputs[:, 14] != 0).long()
        rows = torch.arange(len(inputs))
        hundreds = answers[rows, five + 1]
        answers[rows, five] = torch.where(
            (hundreds > 2) & (hundreds < 7), (answers[rows, five] + 1) % 10, answers[rows, five]
        )
        return answers

    return simulate, {}


def always_one(model):
    return lambda inputs, numbers: torch.ones(len(inputs), 5, dtype=torch.long), {}


def the_product(model):
    return lambda inputs, numbers: inputs[:, 10], {}


def asks_the_model(model):
    return lambda inputs, numbers: model(inputs)[:, 9:14].argmax(-1), {}


def gives_logits(model):
    return lambda inputs, numbers: torch.zeros(len(inputs), 5), {}


def only_the_function(model):
    return lambda inputs, numbers: as_written(inputs)


def the_whole_model(model):
    return lambda inputs, numbers: as_written(inputs), {"W_E": model.W_E, "W_in": model.blocks[0].mlp.W_in}


def near_a_border(model):
    """Right, and simpler than the course's: two borders, two numbers."""

    def simulate(inputs, numbers):
        answers = as_written(inputs)
        five = (inputs[:, 14] != 0).long()
        rows = torch.arange(len(inputs))
        rest = torch.stack([answers[rows, five + 1 + i] for i in range(3)], dim=1)
        for column, below, unit in (
            (five, rest[:, 0] * 100 + rest[:, 1] * 10 + rest[:, 2], 1000),
            (five + 1, rest[:, 1] * 10 + rest[:, 2], 100),
        ):
            near = numbers["near"][0 if unit == 1000 else 1]
            off = (below >= unit - near).long() - (below < near).long()
            answers[rows, column] = (answers[rows, column] + off) % 10
        return answers

    return simulate, {"near": torch.tensor(NEAR_THE_BORDER)}


NEAR_THE_BORDER = [80, 15]


LESSON = [
    Answers(
        checks.counterexamples,
        wrong={
            Made(ordinary_products): "40 are needed",
            Made(four_digits_times_one): "of these are needed",
            Made(one_more_in_the_product): "the right product",
            Made(the_models_own_product): "must follow the equals sign",
            Made(two_digits_times_two): "expected 5 in both numbers",
            Made(repeats): "repeats input 0",
            Made(prompts_alone): "has 10 tokens; expected 16",
            Made(prompts_and_padding): "= nothing",
            Made(too_few): "Give 50 sequences; 10 came",
            Made(one_sequence): "expected (input, position)",
            Made(list_of_rows): "torch.stack",
            Made(half_ordinary): "in distribution",
        },
        right=[Made(known), Made(as_lists_of_numbers), Made(some_misses), Made(some_beyond_training)],
    ),
    Answers(
        checks.circuit,
        wrong={
            Made(every_site): "name at most 60",
            Made(whole_heads): "Name sites",
            Made(answer_positions_alone): "is needed",
            Made(without_layer_two): "is needed",
            Made(at_the_end_token): "cannot matter",
            Made(last_layer_at_a_number): "cannot matter",
            Made(head_that_does_not_exist): "heads 0 to 3",
            Made(position_first): "names layer",
            Value((0, 1, 9)): "heads (layer, head) or sites",
            Made(mixed): "mixes heads and sites",
        },
        right=[Made(pruned), Made(as_a_set)],
    ),
    Answers(
        checks.explanation,
        wrong={
            perfect_algorithm: "as the task demands",
            thousands_one_too_large: "is needed",
            mistakes_away_from_the_border: "is needed",
            token_ids: "is needed",
            units_first: "is needed",
            always_one: "same answer to every input",
            the_product: "expected",
            asks_the_model: "model",
            gives_logits: "threshold or an argmax",
            only_the_function: "return two things",
            the_whole_model: "at most 500 are allowed",
        },
        right=[near_a_border],
    ),
]


@pytest.mark.parametrize("proof", proofs(LESSON))
def test_answers(proof):
    proof()
