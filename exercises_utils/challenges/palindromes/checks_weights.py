"""The checks of lesson 03's optional measurements: circuits read from the weights, and what each head is worth."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from exercises_utils.challenges.palindromes import task
from exercises_utils.challenges.palindromes.checks_common import (
    DEEP,
    FAMILY,
    few_tokens,
    intact_tokens,
    misread_head,
    pick,
    put,
    run,
    some_tokens,
    verdict_direction,
)
from exercises_utils.checking import Call, Draw, Question, arg, exercise, on_models, then
from exercises_utils.tools import circuits, hooks

PAIR_OF_HEADS: dict[str, Any] = dict(matcher=pick((0, 1), (1, 2)), reader=pick((1, 0), (2, 1)))
OTHER_PAIR: dict[str, Any] = dict(matcher=pick((0, 0), (0, 3)), reader=pick((1, 1), (1, 2)))


@exercise("Full QK circuit of the values", core=False, axes="query_value key_value")
def token_circuit(
    model, head, scale, *, power=2, root=0.5, width="d_head", rows="values", bias=False, circuit="QK"
):  # fmt: skip
    """In double precision, query and key apart."""
    weights, biases = {"QK": ("W_Q", "W_K"), "OV": ("W_V", "W_O")}[circuit], ("b_Q", "b_K")
    embeddings = {"values": model.W_E[:-2], "all": model.W_E, "without the first": model.W_E[2:]}
    embedding = embeddings.get(rows, model.W_pos).double()
    left, right = (getattr(model, name)[head].double() for name in weights)
    queries, keys = embedding @ left, embedding @ (right.T if circuit == "OV" else right)
    if bias:
        queries, keys = (
            side + scale * getattr(model, b)[head] for side, b in zip((queries, keys), biases, strict=True)
        )
    return queries @ keys.T / (scale**power * getattr(model.cfg, width) ** root)


token_circuit.given(
    on_models(FAMILY, head=Draw.head, scale=pick(1.4, 0.6, 1.7)),
    on_models(DEEP, head=pick((0, 0), (0, 3)), scale=pick(0.7, 2.5)),
)
token_circuit.slips(
    {
        "The scores are not divided by sqrt(d_head): attention divides by it before the softmax.": dict(
            root=0
        ),
        "The scores are divided by d_head; attention divides by its square root.": dict(root=1),
        "The scores are divided by sqrt(d_model); the width of a head is d_head.": dict(width="d_model"),
        "The scale is used once; it divides the query and the key, so the scores by its square.": dict(
            power=1
        ),
        "The LayerNorm scale is forgotten: divide both sides by it.": dict(power=0),
        "You multiplied by the LayerNorm scale; divide by it, on both sides.": dict(power=-2),
        "The two special tokens are in it: leave out the last two rows of W_E.": dict(rows="all"),
        "The first two rows of W_E are left out; the special tokens are the last two.": dict(
            rows="without the first"
        ),
        "This is the circuit of the positions: put W_E on both sides, not W_pos.": dict(rows="positions"),
        "The biases b_Q and b_K are in it; the exercise leaves them out.": dict(bias=True),
        "This is the OV circuit's W_V W_O; attention scores come from W_Q and W_K.": dict(circuit="OV"),
        **misread_head(token_circuit),
    }
)


@exercise("What positions add", core=False, axes="query key")
def attention_without_positions(
    model, head, tokens, *, parts="tokens", norm="own", eps=None, mask="before", bias=True, root=0.5, over=-1
):  # fmt: skip
    """From the scores of one vector with itself."""
    tokens_alone, positions = model.W_E[tokens], model.W_pos[: len(tokens)]
    vector = {"tokens": tokens_alone, "positions": positions, "both": tokens_alone + positions}[parts]
    normed_by = tokens_alone + positions if norm == "of both" else vector
    if norm != "none":
        eps = model.cfg.eps if eps is None else eps
        vector = vector / (normed_by.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    b_Q, b_K = (model.b_Q[head], model.b_K[head]) if bias else (0, 0)
    scores = (vector @ model.W_Q[head] + b_Q) @ (vector @ model.W_K[head] + b_K).T / model.cfg.d_head**root
    pattern = (circuits.causal(scores) if mask == "before" else scores).softmax(over)
    return pattern.tril() if mask == "after" else pattern


attention_without_positions.given(
    on_models(
        FAMILY, head=pick((0, 1), (0, 2), (0, 0)),
        tokens=lambda draw: torch.tensor([31, *[4, 9, 4, 30] * 5, 32]) if draw.is_lesson else few_tokens(draw)[0],
    ),
    on_models(DEEP, seed=50, head=pick((0, 0), (0, 3)), tokens=lambda draw: few_tokens(draw)[1, :7]),
)  # fmt: skip
attention_without_positions.slips(
    {
        "The positions are still in it: this is the model's own pattern.": dict(parts="both"),
        "The token embeddings are gone instead of the positions.": dict(parts="positions"),
        "The LayerNorm is missing: normalise the embeddings, which are now all there is.": dict(norm="none"),
        "The scale is that of the full residual stream; without positions the vector is shorter, so LayerNorm divides by "
        "less.": dict(norm="of both"),
        "LayerNorm's epsilon is missing: the model adds `model.cfg.eps` to the mean square, under the root.": dict(
            eps=0
        ),
        "LayerNorm's epsilon is always 1e-5; take `model.cfg.eps`.": dict(eps=1e-5),
        "The causal mask is missing: a query attends to nothing after it.": dict(mask="none"),
        "Numbers after the mask were set to 0 when the softmax had been taken; mask the scores before it.": dict(
            mask="after"
        ),
        "The biases b_Q and b_K are missing.": dict(bias=False),
        "The scores are not divided by sqrt(d_head).": dict(root=0),
        "The scores are divided by d_head; attention divides by its square root.": dict(root=1),
        "The softmax runs over the queries; it runs over the keys, the last axis.": dict(over=-2),
    }
)


@exercise("What a reader makes of each place", core=False, axes="reading position")
def composed_readings(
    model, matcher, reader, query, *, root=0.5, vote_root=0, through="W_pos", moved="by the matcher", keys_with="W_K",
    votes_with="W_V W_O", towards=(1, 0), exchanged=False, only=None,
):  # fmt: skip
    """From the reader back to the positions, one factor after the other."""
    if only is not None:  # the slip is in one row
        rest = dict(
            root=root, vote_root=vote_root, through=through, keys_with=keys_with, votes_with=votes_with
        )
        rows = partial(composed_readings.truth, model, matcher, reader, query, **rest, towards=towards)
        right, wrong = rows(), rows(moved=moved, exchanged=exchanged)
        return torch.stack([wrong[row] if row == only else right[row] for row in (0, 1)])
    matcher, reader = (reader, matcher) if exchanged else (matcher, reader)
    asks = getattr(model, keys_with)[reader] @ query / model.cfg.d_head**root
    wants = verdict_direction(model, towards) / model.cfg.d_head**vote_root
    if votes_with == "W_V W_O":
        wants = model.W_V[reader] @ (model.W_O[reader] @ wants)
    both = torch.stack([asks, wants])
    back = both @ model.W_O[matcher].T @ model.W_V[matcher].T
    back = {"by the matcher": back, "not": both, "and not": back + both}[moved]
    return back @ getattr(model, through).T


IN_ROWS: dict[str, dict[str, Any]] = {
    "the matcher is missing: this is the position embedding, read directly.": dict(moved="not"),
    "the position embedding itself is added; only what the matcher moves is asked for.": dict(
        moved="and not"
    ),
    "the two heads are exchanged: the matcher moves, the reader reads.": dict(exchanged=True),
}


def query_of(draw):
    """A query of the reader."""
    return draw.randn(draw.model.cfg.d_head)


composed_readings.given(
    on_models(DEEP, **PAIR_OF_HEADS, query=query_of), on_models(DEEP, seed=50, **OTHER_PAIR, query=query_of)
)
composed_readings.slips(
    {
        "The scores of row 0 are not divided by sqrt(d_head).": dict(root=0),
        "The scores of row 0 are divided by d_head; attention divides by its square root.": dict(root=1),
        "The votes of row 1 are divided by sqrt(d_head); only attention scores are.": dict(vote_root=0.5),
        **{f"In both rows {what}": change for what, change in IN_ROWS.items()},
        **{f"In row {i} {what}": {**change, "only": i} for what, change in IN_ROWS.items() for i in (0, 1)},
        "These are the token embeddings; use W_pos.": dict(through="W_E"),
        "Row 0 goes through the reader's W_Q; keys are made with W_K.": dict(keys_with="W_Q"),
        "Row 0 goes through the reader's W_V; keys are made with W_K.": dict(keys_with="W_V"),
        "In row 1 the reader is missing: this is what the matcher writes, read directly.": dict(
            votes_with=None
        ),
        "In row 1 the sign is turned round: towards palindrome is `W_U[:, 1] - W_U[:, 0]`.": dict(
            towards=(0, 1)
        ),
        "Row 1 is the logit of palindrome alone; subtract `W_U[:, 0]`.": dict(towards=(1,)),
        "Row 1 is the logit of no palindrome alone; take `W_U[:, 1] - W_U[:, 0]`.": dict(towards=(0,)),
        "START and END are left out; return all positions.": then(lambda right: right[:, 1:-1]),
        "The rows are exchanged: first the key scores, then the votes.": then(lambda right: right.flip(0)),
        "A softmax has been taken over the positions; return the scores.": then(
            lambda right: torch.stack([right[0].softmax(0), right[1]])
        ),
        **misread_head(composed_readings, "matcher"),
        **misread_head(composed_readings, "reader"),
    }
)


@exercise("What each value is worth as a vote", core=False, axes="sequence position")
def verdict_by_position(
    model, matcher, reader, tokens, *, activation="v", of="matcher", through="reader", towards=(1, 0), first=1
):  # fmt: skip
    """From the direction back to the value."""
    asked = verdict_direction(model, towards)
    if through == "reader":
        asked = model.W_V[reader] @ (model.W_O[reader] @ asked)
    layer, index = matcher if of == "matcher" else reader
    said = run(model, tokens)[activation, layer][:, :, index] @ (model.W_O[layer, index] @ asked)
    return said if first is None else said[:, first : tokens.shape[1] - 2 + first]


verdict_by_position.given(
    on_models(DEEP, batch=5, lesson_batch=6, **PAIR_OF_HEADS, tokens=intact_tokens),
    on_models(DEEP, seed=50, **OTHER_PAIR, tokens=few_tokens),
)
verdict_by_position.slips(
    {
        "START and END are in it; return the values' positions only.": dict(first=None),
        "Off by one: leave out START (position 0) and END (the last).": dict(first=0),
        "The sign is turned round: towards palindrome is `W_U[:, 1] - W_U[:, 0]`.": dict(towards=(0, 1)),
        "This is the logit of palindrome alone; subtract `W_U[:, 0]`.": dict(towards=(1,)),
        "This is the head's output `z`, already averaged by its attention; take the value `v` of each position.": dict(
            activation="z"
        ),
        "These are the matcher's keys; a vote is what its value `v` says.": dict(activation="k"),
        "These are the reader's values, through its own W_O; start from the matcher's.": dict(
            of="reader", through=None
        ),
        "The reader is missing: this is the direct effect of what the matcher writes.": dict(through=None),
        "The two heads are exchanged: the matcher's value comes first, then the reader's W_V and W_O.": dict(
            matcher=arg("reader"), reader=arg("matcher")
        ),
        **misread_head(verdict_by_position, "matcher"),
        **misread_head(verdict_by_position, "reader"),
    }
)


@exercise("Composition score", core=False)
def composition_score(A, B, *, order="AB", norm="fro", divide="both"):
    """By singular values: the Frobenius norm is the root of the sum of their squares."""
    of = {
        "fro": lambda matrix: torch.linalg.svdvals(matrix.double()).pow(2).sum().sqrt(),
        "square": lambda matrix: matrix.pow(2).sum(),
        "spectral": lambda matrix: torch.linalg.matrix_norm(matrix, 2),
        "nuclear": lambda matrix: torch.linalg.matrix_norm(matrix, "nuc"),
        "absolute": lambda matrix: matrix.abs().sum(),
    }[norm]
    a, b = of(A), of(B)
    product = of({"AB": lambda: A @ B, "BA": lambda: B @ A, "ABt": lambda: A @ B.T}[order]())
    by = {"both": a * b, "A": a, "B": b, None: 1, "sum": a + b, "brackets": a / b}[divide]
    return float(product / by)


def _matrices() -> list[Call]:
    """Of several shapes, of rank one and aligned (a score of 1), and with small numbers."""
    generator = torch.Generator().manual_seed(0)
    calls = []
    for (d_in, d_mid, d_out), size in (((6, 6, 6), 1.0), ((5, 8, 3), 1.0), ((12, 4, 9), 2e-3)):
        A, B = (torch.randn(*shape, generator=generator) * size for shape in ((d_in, d_mid), (d_mid, d_out)))
        calls.append(
            Call(f"matrices {d_in}×{d_mid} and {d_mid}×{d_out}, numbers of {size:g}", dict(A=A, B=B))
        )
    a, b, c = (torch.randn(size, generator=generator) for size in (5, 7, 4))
    calls.append(Call("matrices of rank one that fit", dict(A=torch.outer(a, b), B=torch.outer(b, c))))
    return calls


composition_score.given(_matrices)
composition_score.slips(
    {
        "These are spectral norms (the largest singular value); use Frobenius norms.": dict(norm="spectral"),
        "These are nuclear norms (the sum of singular values); use Frobenius norms.": dict(norm="nuclear"),
        "These are sums of absolute values; use Frobenius norms.": dict(norm="absolute"),
        "The square root is missing: these are squared norms.": dict(norm="square"),
        "Divide by both norms, of A and of B.": dict(divide="A"),
        "Divide by both norms, of A and of B; that of A is missing.": dict(divide="B"),
        "Divide by the product of the norms, not by their sum.": dict(divide="sum"),
        "Brackets are missing: `x / a * b` multiplies by b. Divide by both norms.": dict(divide="brackets"),
        "This is the norm of the product; divide it by the norms of A and of B.": dict(divide=None),
        "The order is turned round: A comes first, A @ B.": dict(order="BA"),
        "B is transposed; A @ B is what reaches the second head.": dict(order="ABt"),
    }
)


@exercise("What each activation of each head is worth", core=False, axes="layer head", atol=2e-5)
def ablation_costs(
    model, tokens, labels, activation, how, *, together="head", before=True, reduction="mean", at=-1,
    mean_over=0, exchanged=False,
):  # fmt: skip
    """By a forward pass without hooks."""

    def cost(ablated: list[tuple[int, int]]) -> torch.Tensor:
        if how in ("resample", "noise"):  # what is drawn is the course's own
            with hooks.ablate(model, ablated, activation=activation, how=how):
                logits = model(tokens)[:, at]
        else:
            edits = {}
            for layer in {layer for layer, _ in ablated}:
                own = [head for in_layer, head in ablated if in_layer == layer]
                edits[activation, layer] = lambda value, own=own: put(activation, replaced(value), own)(value)
            logits = run(model, tokens, edits)["logits"][:, at]
        return F.cross_entropy(logits, labels, reduction=reduction)

    def replaced(value: torch.Tensor) -> torch.Tensor:
        return (
            0 * value
            if (how == "zero") != exchanged
            else value.mean(mean_over, keepdim=True).expand_as(value)
        )

    heads = [(layer, head) for layer in range(model.cfg.n_layers) for head in range(model.cfg.n_heads)]
    untouched, costs = cost([]), []
    for one in heads:
        chosen = {
            "head": [one],
            "layer": [h for h in heads if h[0] == one[0]],
            "before": [h for h in heads if h <= one],
            "others": [h for h in heads if h != one],
            "none": [],
        }[together]
        costs.append(cost(chosen) - (untouched if before else 0))
    return torch.stack(costs).view(model.cfg.n_layers, -1)


def _labels(draw: Draw) -> torch.Tensor:
    """Not always those of the tokens."""
    if draw.is_lesson and draw["how"] == "mean":
        return task.make_data(draw.batch, seed=3).labels.long()
    return torch.arange(len(draw["tokens"])) % 3 % 2


ablation_costs.given(
    on_models(
        FAMILY, lesson_batch=16, tokens=some_tokens, activation=pick("q", "v", "k"),
        how=pick("mean", "zero", "zero"), labels=_labels,
    ),
    on_models(
        DEEP, seed=50, tokens=few_tokens, activation=pick("z", "k"), how=pick("zero", "resample"), labels=_labels
    ),
)  # fmt: skip
ablation_costs.slips(
    {
        "These are the losses after ablation; subtract the loss before it.": dict(before=False),
        "The sign is turned round: the loss after ablation minus the loss before it.": then(
            lambda right: -right
        ),
        "Everything is log(2) times too large: bits, not nats.": then(
            lambda right: right / torch.tensor(2.0).log()
        ),
        "Mean and zero are exchanged.": dict(exchanged=True),
        "The mean is over positions, too; take it over sequences, position by position.": dict(
            mean_over=(0, 1)
        ),
        "The loss is summed over sequences; take the mean.": dict(reduction="sum"),
        "This is the loss at the last value; the model answers at END, position -1.": dict(at=-2),
        "Nothing is ablated: every loss is compared with itself. The loss before is computed outside the `with` block, the "
        "loss after inside it.": dict(together="none"),
        "All heads of the layer are ablated at once; ablate one head at a time.": dict(together="layer"),
        "The heads before are still ablated; ablate one head at a time, from a fresh list.": dict(
            together="before"
        ),
        "Every head but the one is ablated; ablate the one.": dict(together="others"),
    }
)


stale_label = Question(
    "stale_label",
    "Find the bug: whose queries?",
    core=False,
    options={
        "a": (
            "head 0.0's, as the line says",
            "the line prints `layer` and `head`; the hook uses `target_layer` and `target_head`.",
        ),
        "b": (
            "head 1.0's",
            "the hook acts on head 1.0, the line prints variables left over from an early cell. In the write-up, such "
            "lines mislabel results of the reading head as results of the matching head.",
        ),
        "c": (
            "nobody's",
            "2.491 nats came from somewhere: the hook is called for the queries of layer 1.",
        ),
        "d": ("those of all heads of layer 1", "the third index picks one head, `target_head`."),
    },
    answer="b",
)

what_processing_keeps = Question(
    "what_processing_keeps",
    "What processing the weights can change",
    core=False,
    options={
        "a": (
            "the probability of palindrome",
            "it depends on the logit difference alone, and that stays.",
        ),
        "b": (
            "the logit difference",
            "centring `W_U` over its outputs takes the same amount from both logits, and the rest is exact algebra.",
        ),
        "c": (
            "the two logits, by the same amount",
            "centring `W_U` and `b_U` over the outputs shifts both logits alike, which the softmax does not see.",
        ),
        "d": (
            "the attention patterns",
            "folding moves LayerNorm's weights into W_Q and W_K; the scores stay what they were.",
        ),
    },
    answer="c",
)
