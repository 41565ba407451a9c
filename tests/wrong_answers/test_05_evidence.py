"""Lesson 05, the three kinds of evidence: the wrong answers that people give, and the message each must get."""

import pytest
import torch
from torch.nn.functional import pad

from exercises_utils.challenges.llm_multiplication import checks, checks_evidence, evidence, task
from exercises_utils.challenges.llm_multiplication.task import Products
from tests.wrong_answers.harness import Answers, Made, Value, proofs

# ── counterexamples ─────────────────────────────────────────────────────────────────────────────────────────


def known():
    return checks.counterexamples.course_version()


def ordinary(size=50):
    return evidence.tokens_of(task.make_data(50, 3, held_out=False))[:size]


def four_digits_times_one(size=50):
    a = torch.arange(3217, 3217 + size)
    return evidence.tokens_of(Products(a, torch.full_like(a, 7)))


def two_digits_times_two():
    a = torch.arange(17, 67)
    return pad(task.sequences(Products(a, torch.full_like(a, 98))), (0, 3))[:, :16]


def one_more_in_the_product():
    tokens = known().clone()
    tokens[:15, 13] = 1 + tokens[:15, 13] % 10
    return tokens


def the_models_own_product():
    """What the model answers, in place of the right product."""
    pool = checks_evidence.stored_evidence().pool
    wrong = ~pool.model_is_right.all(-1)
    tokens, answers = pool.tokens[wrong][:50].clone(), pool.model_answers[wrong][:50]
    tokens[:, 10:15] = torch.where(answers == evidence.ENDED, 0, answers + 1)
    return tokens


# ── circuit ─────────────────────────────────────────────────────────────────────────────────────────────────


def pruned():
    return checks.circuit.course_version()


# ── explanation ─────────────────────────────────────────────────────────────────────────────────────────────


def as_written(inputs, numbers=None):
    """The right answers: what is written."""
    return torch.where(inputs[:, 10:15] == 0, 10, inputs[:, 10:15] - 1)


def perfect_algorithm(model):
    return as_written, {}


def changed(change):
    """An explanation: what is written, with some of thousands and hundreds changed by a function of both."""

    def explanation(model):
        def simulate(inputs, numbers):
            answers, rows = as_written(inputs), torch.arange(len(inputs))
            five = (inputs[:, 14] != 0).long()
            thousands, hundreds = change(answers[rows, five], answers[rows, five + 1])
            answers[rows, five], answers[rows, five + 1] = thousands % 10, hundreds % 10
            return answers

        return simulate, {}

    explanation.__name__ = change.__name__
    return explanation


def one_too_large(thousands, hundreds):
    """What most scores would reward without a thought: the most frequent mistake, always."""
    return thousands + 1, hundreds + 1


def wrong_away_from_the_border(thousands, hundreds):
    """The model errs where a product is near a round thousand, not where it is far from one."""
    return torch.where((hundreds > 2) & (hundreds < 7), thousands + 1, thousands), hundreds


def token_ids(model):
    return lambda inputs, numbers: inputs[:, 10:15], {}


def units_first(model):
    return lambda inputs, numbers: as_written(inputs).flip(1), {}


def always_one(model):
    return lambda inputs, numbers: torch.ones(len(inputs), 5, dtype=torch.long), {}


def the_first_digit(model):
    return lambda inputs, numbers: inputs[:, 10], {}


def asks_the_model(model):
    return lambda inputs, numbers: model(inputs)[:, 9:14].argmax(-1), {}


def gives_logits(model):
    return lambda inputs, numbers: torch.zeros(len(inputs), 5), {}


def only_the_function(model):
    return as_written


def the_whole_model(model):
    return as_written, {"W_E": model.W_E, "W_in": model.blocks[0].mlp.W_in}


LESSON = [
    Answers(
        checks.counterexamples,
        wrong={
            Made(ordinary): "40 are needed",
            Made(four_digits_times_one): "of these are needed",
            Made(one_more_in_the_product): "the right product",
            Made(the_models_own_product): "must follow the equals sign",
            Made(two_digits_times_two): "expected 5 in both numbers",
            Made(lambda: torch.cat([known()[:25], known()[:25]])): "repeats input 0",
            Made(lambda: known()[:, :10]): "has 10 tokens; expected 16",
            Made(lambda: pad(known()[:, :10], (0, 6))): "= nothing",
            Made(lambda: known()[:10]): "Give 50 sequences; 10 came",
            Made(lambda: known()[0]): "expected (input, position)",
            Made(lambda: list(known())): "torch.stack",
            Made(lambda: torch.cat([known()[:25], ordinary(25)])): "in distribution",
        },
        right=[
            Made(lambda: torch.cat([known()[:45], ordinary(5)]).tolist()),
            Made(lambda: torch.cat([known()[:40], four_digits_times_one(10)])),
        ],
    ),
    Answers(
        checks.circuit,
        wrong={
            Made(lambda: list(evidence.SITES)): "name at most 60",
            Made(lambda: [(layer, head) for layer in range(4) for head in range(4)]): "Name sites",
            Made(lambda: [site for site in evidence.SITES if site[2] >= 9 and site[0] < 3]): "is needed",
            Made(lambda: [site for site in pruned() if site[0] != 2]): "is needed",
            Made(lambda: [*pruned()[1:], (0, 0, 0)]): "cannot matter",
            Made(lambda: [*pruned()[1:], (3, 0, 2)]): "cannot matter",
            Made(lambda: [*pruned()[1:], (0, 4, 9)]): "heads 0 to 3",
            Made(lambda: [(position, layer, head) for layer, head, position in pruned()]): "names layer",
            Value((0, 1, 9)): "heads (layer, head) or sites",
            Value([(0, 1), (1, 0, 9)]): "mixes heads and sites",
        },
        right=[Made(lambda: set(pruned()))],
    ),
    Answers(
        checks.explanation,
        wrong={
            perfect_algorithm: "as the task demands",
            changed(one_too_large): "is needed",
            changed(wrong_away_from_the_border): "is needed",
            token_ids: "is needed",
            units_first: "is needed",
            always_one: "same answer to every input",
            the_first_digit: "expected",
            asks_the_model: "model",
            gives_logits: "threshold or an argmax",
            only_the_function: "return two things",
            the_whole_model: "at most 500 are allowed",
        },
    ),
]


@pytest.mark.parametrize("proof", proofs(LESSON))
def test_answers(proof):
    proof()
