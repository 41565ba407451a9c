"""The checks of lesson 02, its end: where the heads fail, counterexamples, the circuit, an explanation.

This file contains the answers.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from exercises_utils import evidence as scoring
from exercises_utils.challenges.sorted_list_two_heads import checks_common as ours
from exercises_utils.challenges.sorted_list_two_heads import evidence as evidence_task
from exercises_utils.challenges.sorted_list_two_heads import task
from exercises_utils.checking import exercise, on_models
from exercises_utils.models import DEFAULT_INSTANCE, build_model, checkpoint_path

MOST_SITES = 15
"""How many of the 20 sites a circuit may have: all of them are the whole model."""
NEEDED = 0.8
"""How much of what the model can do a circuit must keep."""


def _weights() -> Path:
    return checkpoint_path(task.CHALLENGE, DEFAULT_INSTANCE)


@functools.cache
def _evidence() -> scoring.Evidence:
    return scoring.load_evidence(_weights())


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


counterexamples = scoring.CounterexamplesCheck(
    "counterexamples",
    "Lists that the model does not sort",
    core=True,
    model=ours.lesson_model,
    task=evidence_task,
    sample=_as_in_training,
    count=50,
    needed=40,
    reference=_known_counterexamples,
    describe=_what_is_right,
)


@exercise("Make the heads look at the right number", core=True, axes="list answer vocabulary")
def right_attention(
    model,
    tokens,
    *,
    to="right",
    shares="equal",
    rest="cleared",
    heads=None,
    late=0,
    layer=0,
    everywhere=False,
):
    """By z, the product of the new rows and the values."""
    pattern, values = ours.seen(model, tokens, "pattern", "v", layer=layer)
    size, numbers = tokens.shape[1], ours.numbers_by(tokens)
    n, in_list = size // 2, torch.arange(size) < size // 2
    if to in numbers:
        wanted = ((tokens[:, None] == numbers[to][..., None]) & in_list).float()
    else:
        wanted = torch.eye(n, size).roll(n + 1 if to == "sorted part" else 0, -1).expand(len(tokens), -1, -1)
    if shares == "equal":
        wanted = wanted / wanted.sum(-1, keepdim=True).clamp(min=1)
    wanted = wanted * (wanted.cumsum(-1) == 1) if shares == "one" else wanted
    now = ours.at_answers(pattern.transpose(1, 2), tokens, late)  # (list, answer, head, key)
    new = wanted[:, :, None].expand_as(now)
    others = {
        "outside": torch.where(in_list, new, now),
        "kept": torch.where(new > 0, new, now),
        "added": now + new,
        "own size": now * (new > 0),
        "all": now,
    }
    z = torch.einsum("bqhk,bkhd->bqhd", others.get(rest, new), values)

    def change(was):
        ours.at_answers(was, tokens, late)[:, :, :heads] = z[:, :, :heads]
        return was

    logits = ours.run_with(model, tokens, "z", change, layer)
    return logits if everywhere else ours.at_answers(logits, tokens)


SEVERAL = "A number that stands in the list several times gets {}; give equal shares that add up to 1."
right_attention.given(on_models(ours.FAMILY, tokens=ours.lists_with_repeats, lesson_batch=4))
right_attention.slips(
    {
        "Nothing is changed: these are the model's own logits. Run it inside the `with` block.": dict(
            rest="all"
        ),
        SEVERAL.format("attention 1 at each place"): dict(shares="1 each"),
        SEVERAL.format("all attention at one place"): dict(shares="one"),
        "SEP and the sorted part keep their attention; set the rest of the row to zero.": dict(
            rest="outside"
        ),
        "All but the right answer keep their attention; set the rest of the row to zero.": dict(rest="kept"),
        "Attention is added to what was there; put the new row in its place.": dict(rest="added"),
        "The attention to the right number keeps its size; it is 1.": dict(rest="own size"),
        "This attends to the number that asks; attend to the right answer, the next one.": dict(to="read at"),
        "The places are those of the sorted part; attend to the list.": dict(to="sorted part"),
        "Answer k attends to place k of the list; look up where it stands.": dict(to="in order"),
        "Off by one: the rows are put one position too late. The first is at SEP.": dict(late=1),
        "Only head 0.0 is made to look; every head is.": dict(heads=1),
        "The heads of the last layer are made to look; those of layer 0 are.": dict(layer=-1),
        ours.EVERYWHERE: dict(everywhere=True),
    }
)


def _scorer(model: Any, trained: float | None = None) -> scoring.CircuitScorer:
    tokens = task.make_data(200, seed=15).tokens
    return scoring.CircuitScorer(
        model,
        tokens,
        scoring.accuracy(evidence_task, tokens),
        chance=evidence_task.CHANCE,
        ablation="resample",
        trained=trained,
    )


def _lesson_scorer() -> scoring.CircuitScorer:
    return _scorer(ours.lesson_model.get())


def _twin_scorer(trained: float) -> scoring.CircuitScorer:
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


circuit = scoring.SitesCheck(
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
    (final,) = ours.seen(model, task.make_data(300, seed=16).tokens, ours.FINAL_SCALE)
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


explanation = scoring.ExplanationCheck(
    "explanation",
    "Predict the model, mistakes included",
    core=False,
    model=ours.lesson_model,
    evidence=_evidence,
    needed=0.65,
    most_numbers=40_000,
    reference=_explanation,
)
