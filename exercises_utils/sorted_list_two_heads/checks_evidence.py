"""Checks of lesson 02, its end: counterexamples, the circuit, an explanation, and a bug to find.

This file contains the answers.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from exercises_utils.checking import Question
from exercises_utils.checkpoints import checkpoint_path
from exercises_utils.evidence import CircuitScorer
from exercises_utils.evidence_checks import CircuitCheck, CounterexamplesCheck, ExplanationCheck
from exercises_utils.evidence_files import Evidence, accuracy, load_evidence
from exercises_utils.models import DEFAULT_INSTANCE, build_model
from exercises_utils.sorted_list_two_heads import evidence as evidence_task
from exercises_utils.sorted_list_two_heads import task
from exercises_utils.sorted_list_two_heads.checks_common import CHECKS, lesson_model

MOST_SITES = 17
"""How many of the 20 sites a circuit may have: all of them are the whole model."""


def _weights() -> Path:
    return checkpoint_path(task.CHALLENGE, DEFAULT_INSTANCE)


@functools.cache
def _evidence() -> Evidence:
    return load_evidence(_weights())


def _as_in_training(size: int, generator: torch.Generator) -> Int[Tensor, "input 21"]:
    return task.make_data(size, generator).tokens


def _known_counterexamples() -> Int[Tensor, "input 21"]:
    """From the stored pool of hard inputs, which was searched without knowing the mechanism."""
    pool = _evidence().pool
    return pool.tokens[~pool.model_is_right.all(-1)][:50]


def _what_is_right(tokens: Tensor) -> str | None:
    """About valid lists that the model sorts."""
    gaps = task.largest_gap(task.SortedListData(tokens))
    return (
        f"The model sorts {len(tokens)} of them rightly; their smallest numbers go up to "
        f"{int(tokens[:, task.SEP_POSITION + 1].max())}, their widest gaps up to {int(gaps.max())}."
    )


counterexamples = CHECKS.add(
    CounterexamplesCheck(
        "counterexamples",
        "Lists that the model does not sort",
        core=True,
        model=lesson_model,
        task=evidence_task,
        sample=_as_in_training,
        count=50,
        needed=40,
        reference=_known_counterexamples,
        describe=_what_is_right,
    )
)


class _SitesCheck(CircuitCheck):
    """A circuit of sites: two heads everywhere are the whole model, so places are asked for."""

    def _refuse(self, value: Any) -> str | None:
        if isinstance(value, list | tuple | set | frozenset) and value:
            try:
                circuit = self.scorer().check(list(value))
            except (ValueError, TypeError):
                return super()._refuse(value)
            if len(circuit[0]) == 2:
                return (
                    "These are heads without positions. Both heads everywhere are the whole model: name sites, "
                    "(layer, head, position)."
                )
            if len(circuit) > MOST_SITES:
                return (
                    f"{len(circuit)} sites are named; name at most {MOST_SITES}. A circuit that is the whole model explains "
                    "nothing."
                )
            silent = [site for site in circuit if site not in evidence_task.SITES]
            if silent:
                return (
                    f"Site {silent[0]} cannot matter: in one layer, what a head writes at position {silent[0][2]} reaches "
                    "no answer. Answers are read at positions 10 to 19."
                )
        return super()._refuse(value)


def _scorer(model: Any, trained: float | None = None) -> CircuitScorer:
    tokens = task.make_data(300, seed=15).tokens
    return CircuitScorer(
        model,
        tokens,
        accuracy(evidence_task, tokens),
        chance=evidence_task.CHANCE,
        ablation="resample",
        trained=trained,
    )


def _lesson_scorer() -> CircuitScorer:
    return _scorer(lesson_model.get())


def _twin_scorer(trained: float) -> CircuitScorer:
    return _scorer(build_model(task.CONFIG, seed=99, device="cpu"), trained)


def _best_circuit() -> list[tuple[int, ...]]:
    """By search: from all sites, the one that is missed least goes, again and again."""
    scorer = _lesson_scorer()
    circuit = list(evidence_task.SITES)
    while len(circuit) > 1:
        rest = [[site for site in circuit if site != gone] for gone in circuit]
        scores = scorer.scores(rest)
        if len(circuit) <= MOST_SITES and float(scores.max()) < NEEDED:
            break
        circuit = rest[int(scores.argmax())]
    return circuit


NEEDED = 0.8

circuit = CHECKS.add(
    _SitesCheck(
        "circuit",
        "Which head is needed where",
        core=False,
        scorer=_lesson_scorer,
        twin=_twin_scorer,
        weights=_weights,
        task=evidence_task,
        most_heads=2,
        needed=NEEDED,
        reference=_best_circuit,
    )
)


def _explanation(model: Any) -> tuple[Callable[..., Tensor], dict[str, Tensor]]:
    """Scores, values and the direct path as tables by token and by position, all at typical scales."""
    tokens = task.make_data(300, seed=16).tokens
    _, cache = model.run_with_cache(tokens)
    n, root = task.LENGTH, model.cfg.d_head**0.5
    scale = cache["scale", 0, "ln1"][..., 0].mean(0)
    final = cache["ln_final.hook_scale"][:, n : 2 * n, 0].mean(0)
    values = model.W_E @ model.W_V[0] @ model.W_O[0] @ model.W_U  # (head, token, prediction)
    numbers = {
        "query_tokens": model.W_E @ model.W_Q[0] / root,
        "query_places": (model.W_pos[n : 2 * n] @ model.W_Q[0]) / root,
        "query_bias": model.b_Q[0] / root,
        "key_tokens": model.W_E @ model.W_K[0],
        "key_places": model.W_pos @ model.W_K[0],
        "scale": scale,
        "values": values,
        "direct": model.W_E @ model.W_U,
        "final": final,
        "constant": (model.W_pos[n : 2 * n] + model.b_O[0]) @ model.W_U + final[:, None] * model.b_U,
    }

    def simulate(inputs: Tensor, numbers: dict[str, Tensor]) -> Tensor:
        first, n_positions = 10, inputs.shape[1]
        asking = inputs[:, first : 2 * first]
        places = torch.arange(n_positions)
        later = places[None, :] > torch.arange(first, 2 * first)[:, None]
        logits = numbers["direct"][asking] + numbers["constant"]
        for head in range(2):
            q = numbers["query_tokens"][head][asking] + numbers["query_places"][head]
            q = q / numbers["scale"][first : 2 * first, None] + numbers["query_bias"][head]
            k = (numbers["key_tokens"][head][inputs] + numbers["key_places"][head]) / numbers["scale"][
                :, None
            ]
            pattern = (q @ k.transpose(1, 2)).masked_fill(later, float("-inf")).softmax(-1)
            written = numbers["values"][head][inputs] / numbers["scale"][:, None]
            logits = logits + pattern @ written
        return logits.argmax(-1)

    return simulate, numbers


explanation = CHECKS.add(
    ExplanationCheck(
        "explanation",
        "Predict the model, mistakes included",
        core=False,
        model=lesson_model,
        evidence=_evidence,
        needed=0.65,
        reference=_explanation,
    )
)


swapped_axes = CHECKS.add(
    Question(
        "swapped_axes",
        "Find the bug: which axis is which?",
        core=False,
        options={
            "a": (
                "the figure is wrong and the comment is right",
                "the code puts queries in rows, which a figure shows from top to bottom, as the model does.",
            ),
            "b": (
                "the comment is wrong and the figure is right",
                "rows are queries and columns are keys; the comment names them the other way round.",
            ),
            "c": (
                "both are right",
                "they contradict each other: the comment's axes are those of the transpose.",
            ),
            "d": ("both are wrong", "the numbers are the model's own scores, rows by queries."),
        },
        answer="b",
    )
)
