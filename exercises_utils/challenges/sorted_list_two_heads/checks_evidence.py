"""Checks of lesson 02, its end: a bug to find, counterexamples, where the heads fail, the circuit, an explanation.

This file contains the answers.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.utilities import get_act_name

from exercises_utils.challenges.sorted_list_two_heads import evidence as evidence_task
from exercises_utils.challenges.sorted_list_two_heads import task
from exercises_utils.challenges.sorted_list_two_heads.checks_common import (
    CHECKS,
    FINAL_SCALE,
    FOUR_HEADS,
    LESSON,
    MODELS,
    THREE_HEADS,
    at_answers,
    length_of,
    lesson_model,
    lists,
    right_answers,
    seen,
)
from exercises_utils.checking import Case, Check, Question
from exercises_utils.evidence import (
    CircuitScorer,
    CounterexamplesCheck,
    Evidence,
    ExplanationCheck,
    SitesCheck,
    accuracy,
    load_evidence,
)
from exercises_utils.models import DEFAULT_INSTANCE, build_model, checkpoint_path

MOST_SITES = 15
"""How many of the 20 sites a circuit may have: all of them are the whole model."""


NEEDED = 0.8
"""How much of what the model can do a circuit must keep."""


# ── a bug to find ───────────────────────────────────────────────────────────────────────────────────────────


swapped_axes = CHECKS.add(
    Question(
        "swapped_axes",
        "Find the bug: which axis is which?",
        core=False,
        options={
            "a": (
                "comment and figure are both right",
                "they name the axes in two orders. The shapes of the indices say which: `sources[:, None, :]` varies along "
                "the last axis.",
            ),
            "b": (
                "the comment is wrong, the figure is right",
                "`tokens[:, :, None]` varies along the rows and `sources[:, None, :]` along the columns, so `picked` is "
                "(list, prediction, source): rows are predictions, the figure's y, and columns sources, its x.",
            ),
            "c": (
                "the comment is right, the figure is wrong",
                "look at where the `None` stands: `tokens[:, :, None]`, the predictions, varies along the middle axis, the "
                "rows of the figure.",
            ),
            "d": (
                "comment and figure are both wrong",
                "they contradict each other, and there are only two orders: one of them is right.",
            ),
        },
        answer="b",
    )
)


# ── where it breaks ─────────────────────────────────────────────────────────────────────────────────────────


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


def _right_attention(model: Any, tokens: Tensor) -> Float[Tensor, "batch answer d_vocab_out"]:
    """By the heads' outputs: at each answer position the value of the right number, the mean if it is there twice."""
    n = length_of(tokens)
    (values,) = seen(model, tokens, "v")

    def put(z: Tensor, hook: Any) -> Tensor:
        for i, row in enumerate(tokens.tolist()):
            for answer, number in enumerate(sorted(row[:n])):
                places = [place for place in range(n) if row[place] == number]
                z[i, n + answer] = values[i, places].mean(0)
        return z

    with model.hooks(fwd_hooks=[(get_act_name("z", 0), put)]):
        return at_answers(model(tokens), tokens)


def _with_rows(
    model: Any, tokens: Tensor, change: Callable[[Tensor, Tensor], Tensor], *, everywhere: bool = False
) -> Tensor:
    """Logits with rows of the pattern changed: `change` gets the pattern, a copy, and the right answers' places
    (batch, answer, list place) as 0 and 1."""
    n = length_of(tokens)
    (pattern,) = seen(model, tokens, "pattern")
    places = (tokens[:, None, :n] == right_answers(tokens)[..., None]).to(pattern)
    new = change(pattern.clone(), places)
    with model.hooks(fwd_hooks=[(get_act_name("pattern", 0), lambda pattern, hook: new)]):
        logits = model(tokens)
    return logits if everywhere else at_answers(logits, tokens)


def _right_attention_cases() -> list[Case]:
    cases = []
    for name, size in ((LESSON, 6), (THREE_HEADS, 5), (FOUR_HEADS, 4)):
        fresh = MODELS[name]
        model = fresh.get()
        tokens = lists(model, size, seed=16)
        n = length_of(tokens)
        unsorted = tokens[:, :n].clone()
        unsorted[0, 2], unsorted[1, n - 1], unsorted[1, 1] = unsorted[0, 0], unsorted[1, 0], unsorted[1, 0]
        tokens = torch.cat([unsorted, tokens[:, n : n + 1], unsorted.sort(-1).values], dim=-1)
        right = _right_attention(model, tokens)
        asking = (tokens[:, None, :n] == tokens[:, n : 2 * n, None]).float()

        def put(
            rows: Tensor | None = None,
            *,
            shares: bool = True,
            clear: bool = True,
            heads: slice = slice(None),
            late: int = 0,
            offset: int = 0,
            n: int = n,
        ) -> Callable[[Tensor, Tensor], Tensor]:
            """Rows put into the answer positions of a pattern, with parts that a mistake changes."""

            def change(pattern: Tensor, places: Tensor) -> Tensor:
                wanted = places if rows is None else rows
                wanted = wanted / wanted.sum(-1, keepdim=True).clamp(min=1) if shares else wanted
                if clear:
                    pattern[:, heads, n + late : 2 * n + late] = 0.0
                pattern[:, heads, n + late : 2 * n + late, offset : n + offset] = wanted[:, None]
                return pattern

            return change

        def instead(
            change: Callable[[Tensor, Tensor], Tensor],
            fresh: Any = fresh,
            tokens: Tensor = tokens,
            **how: Any,
        ) -> Callable[[], Tensor]:
            return lambda: _with_rows(fresh.get(), tokens, change, **how)

        first_place = (tokens[:, None, :n] == right_answers(tokens)[..., None]).float()
        first_place = F.one_hot(first_place.argmax(-1), n).float()
        in_order = torch.eye(n).expand(len(tokens), n, n)

        def scaled(pattern: Tensor, places: Tensor, n: int = n) -> Tensor:
            pattern[:, :, n : 2 * n, :n] *= places[:, None]
            pattern[:, :, n : 2 * n, n:] = 0.0
            return pattern

        def added(pattern: Tensor, places: Tensor, n: int = n) -> Tensor:
            pattern[:, :, n : 2 * n, :n] += (places / places.sum(-1, keepdim=True))[:, None]
            return pattern

        cases.append(
            Case(
                f"{name}, two lists with repeats",
                (fresh, tokens),
                right,
                axes=("list", "answer", "vocabulary"),
                mistakes={
                    "Nothing is changed: these are the model's own logits. Run the model inside the `with` block.": (
                        at_answers(model(tokens), tokens)
                    ),
                    "A number that stands in the list several times gets attention 1 at each place; give equal shares "
                    "that add up to 1.": instead(put(shares=False)),
                    "A number that stands in the list several times gets all attention at one place; give equal "
                    "shares.": instead(put(first_place)),
                    "The rest of the row keeps its attention; set it to zero, to SEP and to the sorted part as well.": (
                        instead(put(clear=False))
                    ),
                    "Attention is added to what was there; put the new row in its place.": instead(added),
                    "The attention to the right number keeps its size; it is 1.": instead(scaled),
                    "This is attention to the number at which the answer is read; attend to the right answer, the next "
                    "one.": instead(put(asking)),
                    "Off by one: the rows are put one position too late. The first answer is read at SEP.": instead(
                        put(late=1)
                    ),
                    "The places are those of the sorted part; attend to the list, positions 0 to L − 1.": instead(
                        put(in_order, offset=n + 1)
                    ),
                    "Answer k attends to place k of the list, which is unsorted; look up where the right number "
                    "stands.": instead(put(in_order)),
                    "Only head 0.0 is made to look; every head is.": instead(put(heads=slice(0, 1))),
                    "All positions are in it; return the answer positions only.": instead(
                        put(), everywhere=True
                    ),
                },
            )
        )
    return cases


right_attention = CHECKS.add(
    Check(
        "right_attention",
        "Make the heads look at the right number",
        core=True,
        cases=_right_attention_cases,
        reference=_right_attention,
    )
)


def _scorer(model: Any, trained: float | None = None) -> CircuitScorer:
    tokens = task.make_data(200, seed=15).tokens
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
    """The sites that are missed most when they alone are ablated; as few of them as keep what is needed."""
    scorer = _lesson_scorer()
    sites = list(evidence_task.SITES)
    left = scorer.scores([[site for site in sites if site != gone] for gone in sites])
    missed = [sites[i] for i in left.argsort().tolist()]
    prefixes = [missed[:size] for size in range(1, MOST_SITES + 1)]
    enough = (scorer.scores(prefixes) >= NEEDED + 0.02).nonzero().flatten()
    return prefixes[int(enough[0]) if len(enough) else -1]


circuit = CHECKS.add(
    SitesCheck(
        "circuit",
        "Which head is needed where",
        core=False,
        scorer=_lesson_scorer,
        twin=_twin_scorer,
        weights=_weights,
        task=evidence_task,
        example=[(0, 0, 10), (0, 1, 15)],
        most_sites=MOST_SITES,
        why_sites=(
            "These are heads without positions. Both heads everywhere are the whole model: name sites, (layer, head, "
            "position)."
        ),
        why_silent=(
            "in one layer, what a head writes there reaches no answer. Answers are read at positions 10 to 19."
        ),
        needed=NEEDED,
        reference=_best_circuit,
    )
)


def _explanation(model: Any) -> tuple[Callable[..., Tensor], dict[str, Tensor]]:
    """Tables of scores and of what is written, for a key of each number and kind of place: the list, SEP, the rest.

    A query's score is a table's by its token plus a table's by its position, each the mean over the other. The last
    LayerNorm's scale is one number, the mean: it changes the order of logits only through `b_U`.
    """
    n = task.LENGTH
    places = torch.stack([model.W_pos[:n].mean(0), model.W_pos[n], model.W_pos[n + 1 : 2 * n].mean(0)])

    def normed(resid: Tensor) -> Tensor:
        return resid / (resid.pow(2).mean(-1, keepdim=True) + model.cfg.eps).sqrt()

    keys = normed(model.W_E + places[:, None])  # (kind of place, token, d_model)
    queries = normed(model.W_E[:, None] + model.W_pos[n : 2 * n])  # (token, position, d_model)
    by_token, by_position, written = [], [], []
    for head in range(model.cfg.n_heads):
        q = (queries @ model.W_Q[0, head] + model.b_Q[0, head]) / model.cfg.d_head**0.5
        k = keys @ model.W_K[0, head] + model.b_K[0, head]
        scores = torch.einsum("tpd,ksd->tpks", q, k)
        by_token.append(scores.mean(1))
        by_position.append(scores.mean(0) - scores.mean((0, 1)))
        written.append((keys @ model.W_V[0, head] + model.b_V[0, head]) @ model.W_O[0, head] @ model.W_U)
    (final,) = seen(model, task.make_data(300, seed=16).tokens, FINAL_SCALE)
    bias = model.b_O[0] @ model.W_U + final[:, n : 2 * n].mean() * model.b_U
    numbers = {
        "by_token": torch.stack(by_token),
        "by_position": torch.stack(by_position),
        "written": torch.stack(written),
        "direct_token": model.W_E @ model.W_U,
        "direct_position": model.W_pos[n : 2 * n] @ model.W_U + bias,
    }

    def simulate(inputs: Tensor, numbers: dict[str, Tensor]) -> Tensor:
        places = torch.arange(20)
        kind = (places >= 10).long() + (places > 10).long()
        key, asking = inputs[:, :20], inputs[:, 10:20]
        logits = numbers["direct_token"][asking] + numbers["direct_position"]
        for from_token, from_position, written in zip(
            numbers["by_token"], numbers["by_position"], numbers["written"], strict=True
        ):
            scores = from_token[asking[:, :, None], kind, key[:, None]]
            scores = scores + from_position[torch.arange(10)[:, None], kind, key[:, None]]
            pattern = scores.masked_fill(places > places[10:, None], float("-inf")).softmax(-1)
            logits = logits + pattern @ written[kind, key]
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
        most_numbers=40_000,
        reference=_explanation,
    )
)
