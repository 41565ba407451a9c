"""The three kinds of evidence that end lesson 01: counterexamples, the circuit of score terms, an explanation."""

import functools
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from exercises_utils.checkpoints import checkpoint_path
from exercises_utils.evidence import Site, circuit_score
from exercises_utils.evidence_checks import WORTH, CircuitCheck, CounterexamplesCheck, ExplanationCheck
from exercises_utils.evidence_files import Evidence, accuracy, load_evidence
from exercises_utils.models import DEFAULT_INSTANCE, build_model
from exercises_utils.sorted_list_one_head import evidence as evidence_task
from exercises_utils.sorted_list_one_head import task
from exercises_utils.sorted_list_one_head.checks_models import LESSON, MODELS
from exercises_utils.sorted_list_one_head.checks_rebuilding import matrices_of
from exercises_utils.sorted_list_one_head.terms import ALL_TERMS, TermScorer


def _weights() -> Path:
    return checkpoint_path(task.CHALLENGE, DEFAULT_INSTANCE)


@functools.cache
def _evidence() -> Evidence:
    return load_evidence(_weights())


def _known_counterexamples() -> Int[Tensor, "list 22"]:
    """From the stored pool of hard inputs, which was searched without knowing the mechanism."""
    pool = _evidence().pool
    return pool.tokens[~pool.model_is_right.all(-1)][:50]


def _sorted_rightly(tokens: Tensor) -> str:
    return f"The model sorts {len(tokens)} of them rightly. Which lists does it find hard, and which places in them?"


counterexamples = CounterexamplesCheck(
    "counterexamples",
    "Lists that the model cannot sort",
    core=True,
    model=MODELS[LESSON],
    task=evidence_task,
    sample=evidence_task.typical_inputs,
    count=50,
    needed=40,
    reference=_known_counterexamples,
    describe=_sorted_rightly,
)


def _scorer(model: Any, trained: float | None = None) -> TermScorer:
    tokens = task.make_data(500, seed=15).tokens
    metric = accuracy(evidence_task, tokens)
    return TermScorer(model, tokens, metric, chance=evidence_task.CHANCE, trained=trained)


def _best_circuit() -> list[Site]:
    """By exhaustive search: the best three terms, less those that add nothing."""
    scorer = circuit.scorer()
    sets = list(combinations(ALL_TERMS, 3))
    best = sets[int(scorer.scores(sets).argmax())]
    score = circuit_score(scorer, best)
    return [term for term in best if score.lost[term] >= WORTH]


circuit = CircuitCheck(
    "circuit",
    "The terms that do the work",
    core=False,
    scorer=lambda: _scorer(MODELS[LESSON].get()),
    twin=lambda trained: _scorer(build_model(task.CONFIG, seed=99, device="cpu"), trained),
    weights=_weights,
    task=evidence_task,
    most_heads=3,
    needed=0.8,
    reference=_best_circuit,
)


def _explanation(model: Any) -> tuple[Callable[..., Tensor], dict[str, Tensor]]:
    """The last ten queries alone, without the term position→position, and with one bias for all places of the list."""
    matrices = matrices_of(model)
    numbers = {
        name: matrices[name] for name in ("token_token", "token_position", "position_token", "ov_token")
    }
    numbers["bias"] = matrices["ov_position"][1:11].mean(0) + matrices["direct_position"][11:21].mean(0)
    numbers["direct_token"] = matrices["direct_token"]

    def simulate(inputs: Tensor, numbers: dict[str, Tensor]) -> Tensor:
        listed = inputs[:, :21]
        places = torch.arange(21)
        q, k = listed[:, 11:, None], listed[:, None, :]
        scores = numbers["token_token"][q, k] + numbers["token_position"][q, places]
        scores = scores + numbers["position_token"][places[11:, None], k]
        scores = scores.masked_fill(places[None, :] > places[11:, None], float("-inf"))
        head = scores.softmax(-1) @ numbers["ov_token"][listed]
        return (head + numbers["direct_token"][listed[:, 11:]] + numbers["bias"]).argmax(-1)

    return simulate, numbers


explanation = ExplanationCheck(
    "explanation",
    "Predict the model, mistakes included",
    core=False,
    model=MODELS[LESSON],
    evidence=_evidence,
    needed=0.7,
    reference=_explanation,
)
