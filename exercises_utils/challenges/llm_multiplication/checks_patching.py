"""The checks of lesson 05's third part: pairs of prompts, and activations of one put into the run on the other."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from exercises_utils.challenges.llm_multiplication import task
from exercises_utils.challenges.llm_multiplication.checks_common import (
    METRICS,
    MODELS,
    THREE_LAYERS,
    TWO_LAYERS,
    Patching,
    pair,
    recorded,
)
from exercises_utils.challenges.llm_multiplication.task import Products, Vocabulary
from exercises_utils.checking import Case, Check, Question

Metric = Callable[[Tensor], Tensor]
ATOL = 1e-3
"""Scores are quotients: float32 noise of the logits is divided by the distance of clean and corrupted."""


# ── pairs ───────────────────────────────────────────────────────────────────────────────────────────────────


def _text_tokens(text: str, vocabulary: Vocabulary) -> list[int]:
    """The ids of a text, longest sign first, character by character."""
    names = {" x": vocabulary.times, " =": vocabulary.equals, " ": vocabulary.space, task.END: vocabulary.end}
    names |= {str(digit): token for digit, token in enumerate(vocabulary.digits)}
    ids = []
    while text:
        sign = max((name for name in names if text.startswith(name)), key=len)
        ids.append(names[sign])
        text = text[len(sign) :]
    return ids


def _texts(products: Products, answers: Products | None = None, end: bool = False) -> list[str]:
    """ "<|endoftext|>123 x 45 = 5535", with the answers of other products if they are given."""
    answers = products if answers is None else answers
    return [
        f"{task.END}{a} x {b} = {c}" + task.END * end
        for a, b, c in zip(products.a.tolist(), products.b.tolist(), answers.product.tolist(), strict=True)
    ]


def _tokens(texts: list[str], vocabulary: Vocabulary) -> Int[Tensor, "batch position"]:
    return torch.tensor([_text_tokens(text, vocabulary) for text in texts])


def _pair_tokens(
    clean: Products, corrupted: Products, vocabulary: Vocabulary
) -> tuple[Int[Tensor, "batch position"], Int[Tensor, "batch position"]]:
    """From the texts."""
    return _tokens(_texts(clean), vocabulary), _tokens(_texts(corrupted, clean), vocabulary)


OTHER_VOCABULARY = Vocabulary(
    digits=(15, 16, 17, 18, 19, 20, 21, 22, 23, 24), times=856, space=220, equals=284, end=151643
)
"""Ids in the order of Qwen2.5's tokenizer, none of them the bundled model's."""


def _products(*pairs: tuple[int, int]) -> Products:
    a, b = zip(*pairs, strict=True)
    return Products(torch.tensor(a), torch.tensor(b))


def _pair_tokens_cases() -> list[Case]:
    cases = []
    for name, clean, corrupted, vocabulary in (
        (
            "three by two digits",
            _products((312, 47), (845, 63), (907, 21)),
            _products((342, 47), (841, 63), (907, 28)),
            task.BUNDLED,
        ),
        (
            "two by three digits, with another model's token ids",
            _products((47, 312), (63, 845)),
            _products((46, 312), (83, 845)),
            OTHER_VOCABULARY,
        ),
        (
            "two by two digits",
            _products((41, 27), (38, 50), (62, 34)),
            _products((48, 27), (33, 50), (62, 37)),
            task.BUNDLED,
        ),
    ):
        right = clean_tokens, corrupted_tokens = _pair_tokens(clean, corrupted, vocabulary)
        length = 5 + sum(len(str(number[0].item())) for number in (clean.a, clean.b))
        own_answers = _tokens(_texts(corrupted), vocabulary)
        with_end = tuple(
            _tokens(texts, vocabulary)
            for texts in (_texts(clean, end=True), _texts(corrupted, clean, end=True))
        )
        theirs = _tokens(_texts(clean, corrupted), vocabulary), own_answers
        bundled = _pair_tokens(clean, corrupted, task.BUNDLED)
        mistakes: dict[str, Any] = {
            "The corrupted sequences are fed their own products, so they differ from the clean ones in several tokens. Feed "
            "the *clean* product to both.": (clean_tokens, own_answers),
            "Both are fed the *corrupted* product; feed the clean one to both.": theirs,
            "The products are exchanged: each is fed the other's. Feed the clean product to both.": (
                theirs[0],
                corrupted_tokens,
            ),
            "The END after the product is there; leave it out, so that the product's last digit comes last.": with_end,
            "The END after the product is there, and the corrupted sequences are fed their own products. Feed the clean "
            "product to both, and leave END out.": (
                with_end[0],
                _tokens(_texts(corrupted, end=True), vocabulary),
            ),
            "Only the prompts are there; the clean product's digits follow in both.": (
                clean_tokens[:, :length],
                corrupted_tokens[:, :length],
            ),
            "The last digit of the product is missing. (No logit that is read comes from it, but the shape asked for is "
            "prompt and whole product.)": (clean_tokens[:, :-1], corrupted_tokens[:, :-1]),
            "Clean and corrupted are exchanged: return (clean, corrupted).": (corrupted_tokens, clean_tokens),
            "Clean and corrupted are exchanged, and each is fed its own product: return (clean, corrupted), both with the "
            "clean product.": (own_answers, clean_tokens),
            "Both are the clean sequences; the prompt of the second is the corrupted one.": (
                clean_tokens,
                clean_tokens,
            ),
            "The END at the beginning is missing.": (clean_tokens[:, 1:], corrupted_tokens[:, 1:]),
        }
        if vocabulary is not task.BUNDLED:
            mistakes["The ids are the bundled model's; take those of `vocabulary`."] = bundled
        cases.append(
            Case(name, (clean, corrupted, vocabulary), right, axes=("clean", "corrupted"), mistakes=mistakes)
        )
    return cases


pair_tokens = Check(
    "pair_tokens",
    "Two prompts that differ in one token",
    core=True,
    cases=_pair_tokens_cases,
    reference=_pair_tokens,
)

corrupted_that_is_not = Question(
    "corrupted_that_is_not",
    "Find the bug: a corrupted prompt that is not",
    core=False,
    options={
        "a": (
            "nothing: each row has another row's prompt, so its answer is wrong for it",
            "it is another prompt altogether: other operands, all digits at once. And the figures say 0.27 against 0.23: "
            'the "corrupted" run is the better one.',
        ),
        "b": (
            "reversing a batch moves the padding, so the positions do not match",
            "all prompts have as many tokens; reversing their order moves no token inside a prompt.",
        ),
        "c": (
            "the rows are unrelated prompts, and the corrupted metric is not below the clean one",
            "nothing is held fixed between a row and its partner, so a patch brings everything at once; and "
            "(patched - 0.27) / (0.23 - 0.27) calls it recovery when the metric *falls*. A pair should differ in one digit, "
            "and clean should beat corrupted before anything is patched.",
        ),
        "d": (
            "the batch of eight is too small; with more prompts the two averages would move apart",
            "the prompts are the same in both runs, only in another order: more of them would not make the second run a "
            "corrupted one.",
        ),
    },
    answer="c",
)


# ── patching ────────────────────────────────────────────────────────────────────────────────────────────────


def _normalised(patched: Tensor, clean: Tensor, corrupted: Tensor) -> Tensor:
    return (patched - corrupted) / (clean - corrupted)


def _sweep(
    model: Any,
    clean_tokens: Tensor,
    corrupted_tokens: Tensor,
    metric: Metric,
    names: list[str],
    index_of: Any,
) -> Float[Tensor, "layer index *metric"]:
    """The metric, normalised, with each of `index_of(activation)` of each layer patched; one run a patch."""
    with torch.no_grad():
        clean_logits, seen = recorded(model, clean_tokens, names)
        clean = metric(clean_logits)
        corrupted = metric(model(corrupted_tokens))
        rows = []
        for name in names:
            row = []
            for index in index_of(seen[name]):

                def put(value: Tensor, hook: Any, index: Any = index, name: str = name) -> Tensor:
                    value = value.clone()
                    value[index] = seen[name][index]
                    return value

                patched = metric(model.run_with_hooks(corrupted_tokens, fwd_hooks=[(name, put)]))
                row.append(_normalised(patched, clean, corrupted))
            rows.append(torch.stack(row))
        return torch.stack(rows)


def _patch_positions(
    model: Any,
    clean_tokens: Int[Tensor, "batch position"],
    corrupted_tokens: Int[Tensor, "batch position"],
    metric: Metric,
    activation: str,
) -> Float[Tensor, "layer position *metric"]:
    """By plain hooks."""
    names = [f"blocks.{layer}.hook_{activation}" for layer in range(model.cfg.n_layers)]
    return _sweep(
        model,
        clean_tokens,
        corrupted_tokens,
        metric,
        names,
        lambda value: [(slice(None), position) for position in range(value.shape[1])],
    )


def _metric_axes(metric: str) -> tuple[str, ...]:
    return {"one number": (), "one number a place": ("place",)}.get(metric, ("sequence", "place"))


OTHER_ACTIVATIONS = {
    "resid_pre": "the residual stream before the layer, `resid_pre`",
    # One position's stream after attention decides its stream after the MLP, so both patches give the same.
    "resid_mid": "the residual stream after attention or after the whole layer, `resid_mid` or `resid_post`",
    "attn_out": "what attention writes, `attn_out`",
    "mlp_out": "what the MLP writes, `mlp_out`",
    "q": "the queries",
    "k": "the keys",
    "v": "the values",
    "z": "the heads' outputs, z",
    "pattern": "the patterns",
}


def _patch_positions_cases() -> list[Case]:
    cases = []
    for model, activation, metric, position, seed in (
        (TWO_LAYERS, "resid_pre", "one number", 2, 60),
        (THREE_LAYERS, "attn_out", "one number a place", 1, 61),
        (TWO_LAYERS, "mlp_out", "one number a sequence and place", 3, 62),
    ):
        length = 7 if model == TWO_LAYERS else 6
        clean, corrupted = pair(model, 2, length, position, seed)
        way = Patching(model, clean, corrupted, METRICS[metric])
        everywhere = [(slice(None), at) for at in range(length)]
        right = way.scores(activation, everywhere)
        wrong_activations = {
            f"Patched is {OTHER_ACTIVATIONS[other]}, and not the activation that is asked for.": partial(
                way.scores, other, everywhere
            )
            for other in ("resid_pre", "resid_mid", "attn_out", "mlp_out")
            if other != activation
        }
        all_at_once = [(slice(None), slice(None))] * length
        up_to = [(slice(None), slice(at + 1)) for at in range(length)]
        from_there = [(slice(None), slice(at, None)) for at in range(length)]
        first_row = [(slice(1), at) for at in range(length)]
        mistakes: dict[str, Any] = {
            "All positions are patched at once; patch one position at a time.": partial(
                way.scores, activation, all_at_once
            ),
            **way.ways_to_scale(activation, everywhere, "one layer at one position"),
            **wrong_activations,
            "All positions up to the one are patched; patch that one alone.": partial(
                way.scores, activation, up_to
            ),
            "All positions from the one on are patched; patch that one alone.": partial(
                way.scores, activation, from_there
            ),
            "Only the first sequence is patched; patch that position in the whole batch.": partial(
                way.scores, activation, first_row
            ),
            "Layer and position are exchanged: the layers are the first axis.": right.transpose(0, 1),
            "The first layer is missing.": right[1:],
            "The last layer is missing.": right[:-1],
            "The first position is missing.": right[:, 1:],
            "The last position is missing.": right[:, :-1],
        }
        if right.ndim > 2:
            mistakes |= {
                "The metric is averaged; keep its shape on the last axes.": right.flatten(2).mean(2),
                "The metric is averaged before it is normalised; keep its shape on the last axes.": (
                    lambda way=way, activation=activation, everywhere=everywhere: _of_the_mean(
                        way, activation, everywhere
                    )
                ),
                "The metric's axes come first; the result is (layer, position, *metric).": right.movedim(
                    (0, 1), (-2, -1)
                ),
                "Only the metric's first number is there; keep its whole shape on the last axes.": right.flatten(
                    2
                )[..., 0],
            }
        cases.append(
            Case(
                f"{model}: {activation}, {metric}",
                (MODELS[model], clean, corrupted, METRICS[metric], activation),
                right,
                axes=("layer", "position", *_metric_axes(metric)),
                atol=ATOL,
                rtol=ATOL,
                mistakes=mistakes,
            )
        )
    return cases


def _of_the_mean(way: Patching, activation: str, indices: list[tuple[Any, ...]]) -> Tensor:
    """The scores of the mean of all the metric's numbers."""
    patched = way.sweep(activation, indices).flatten(2).mean(2)
    return _normalised(patched, way.ceiling.mean(), way.floor.mean())


patch_positions = Check(
    "patch_positions",
    "Patch one position of one layer",
    core=True,
    cases=_patch_positions_cases,
    reference=_patch_positions,
)


def _sweep_share(n_layers: int, n_positions: int, first: int) -> float:
    """By going through the cells of each site."""
    cells = [(layer, position) for layer in range(n_layers) for position in range(n_positions)]
    needed = sum(
        layer >= site_layer and position >= site_position
        for site_layer, site_position in cells
        if site_position >= first
        for layer, position in cells
    )
    return needed / len(cells) ** 2


def _sweep_share_cases() -> list[Case]:
    cases = []
    for n_layers, n_positions, first in ((4, 15, 1), (3, 7, 0), (24, 14, 8), (2, 5, 3)):
        right = _sweep_share(n_layers, n_positions, first)
        simple = (n_layers * n_positions) ** 2

        def share(
            layers: Callable[[int], int],
            positions: Callable[[int], int],
            first: int = first,
            size: tuple[int, int, int] = (n_layers, n_positions, simple),
        ) -> float:
            """With other numbers of layers and positions for a site."""
            return (
                sum(layers(i) * positions(p) for i in range(size[0]) for p in range(first, size[1])) / size[2]
            )

        def above(layer: int, n: int = n_layers) -> int:
            return n - layer

        def after(position: int, n: int = n_positions) -> int:
            return n - position

        def every_layer(layer: int, n: int = n_layers) -> int:
            return n

        def every_position(position: int, n: int = n_positions) -> int:
            return n

        visited = n_positions - first
        cases.append(
            Case(
                f"{n_layers} layers, {n_positions} positions, first {first}",
                (n_layers, n_positions, first),
                right,
                mistakes={
                    "The positions *before* the patched one are counted; a patch changes nothing there. Count "
                    "n_positions - p, the patched one and those after it.": share(above, lambda p: p + 1),
                    "The patched layer itself is left out: L to n_layers - 1 are n_layers - L layers.": share(
                        lambda i: above(i) - 1, after
                    ),
                    "The patched position itself is left out: p to n_positions - 1 are n_positions - p positions.": share(
                        above, lambda p: after(p) - 1
                    ),
                    "Both the patched layer and the patched position are left out; they are computed again as well.": share(
                        lambda i: above(i) - 1, lambda p: after(p) - 1
                    ),
                    "Sites before `first` are counted; nothing can be patched there.": share(
                        above, after, first=0
                    ),
                    "The sites begin after `first`; the position `first` itself is one.": share(
                        above, after, first=first + 1
                    ),
                    "All positions are counted for each site; only those from p on change.": share(
                        above, every_position
                    ),
                    "All layers are counted for each site; only those from L on change.": share(
                        every_layer, after
                    ),
                    "This is the share of the sites that are visited; each of them also costs less than a whole pass.": (
                        visited / n_positions
                    ),
                    "It is divided by the simple sweep over the visited sites only; the simple one visits all "
                    "n_layers * n_positions.": right * n_positions / visited,
                    "It is divided by one forward pass; the simple sweep makes one for each site.": right
                    * n_layers
                    * n_positions,
                    "This is the number of cells; divide by those of the simple sweep.": right * simple,
                    "This is the share that is saved; return the share that is left.": 1 - right,
                    "This is how many times less work it is; return the share, one over that.": 1 / right,
                    "This is a percentage; return a share between 0 and 1.": 100 * right,
                    "The division is an integer one: `/`, not `//`.": 0.0,
                },
            )
        )
    return cases


sweep_share = Check(
    "sweep_share",
    "How much of a sweep a patch can change",
    core=False,
    cases=_sweep_share_cases,
    reference=_sweep_share,
)


def _hook_name(activation: str, layer: int) -> str:
    return f"blocks.{layer}.attn.hook_{activation}"


def _patch_heads(
    model: Any,
    clean_tokens: Int[Tensor, "batch position"],
    corrupted_tokens: Int[Tensor, "batch position"],
    metric: Metric,
    activation: str,
) -> Float[Tensor, "layer head *metric"]:
    """By plain hooks."""
    names = [_hook_name(activation, layer) for layer in range(model.cfg.n_layers)]

    def index_of(value: Tensor) -> list[tuple[Any, ...]]:
        if activation == "pattern":
            return [(slice(None), head) for head in range(value.shape[1])]
        return [(slice(None), slice(None), head) for head in range(value.shape[2])]

    return _sweep(model, clean_tokens, corrupted_tokens, metric, names, index_of)


def _patch_heads_cases() -> list[Case]:
    cases = []
    for model, activation, metric, position, seed in (
        (TWO_LAYERS, "v", "one number", 3, 70),
        (TWO_LAYERS, "z", "one number", 3, 70),
        (THREE_LAYERS, "pattern", "one number a place", 2, 71),
        (THREE_LAYERS, "k", "one number", 1, 72),
        (TWO_LAYERS, "q", "one number a sequence and place", 4, 73),
    ):
        length = 8 if model == TWO_LAYERS else 7
        clean, corrupted = pair(model, 2, length, position, seed)
        way = Patching(model, clean, corrupted, METRICS[metric])
        heads = range(way.n_heads(activation))
        n_heads, n_groups = way.plain.n_heads, way.plain.n_groups
        singly = [way.heads(activation, [head]) for head in heads]
        right = way.scores(activation, singly)
        together = [way.heads(activation, list(heads))] * len(heads)

        def by_position(count: int, way: Patching = way, activation: str = activation) -> Tensor:
            """The head's number taken for a position (of a pattern: for a query position)."""
            before = (slice(None), slice(None)) if activation == "pattern" else (slice(None),)
            return way.scores(activation, [(*before, head) for head in range(count)])

        def at_positions(
            where: Any, way: Patching = way, activation: str = activation, heads: range = heads
        ) -> Tensor:
            """Only some (query) positions of each head."""
            if activation == "pattern":
                return way.scores(activation, [(slice(None), head, where) for head in heads])
            return way.scores(activation, [(slice(None), where, head) for head in heads])

        if activation == "pattern":
            used_for_positions = {
                "In the pattern the head's number is used for a query position: its axes are (batch, head, query, key), so "
                "a head is `[:, head]`.": partial(by_position, n_heads)
            }
        else:
            used_for_positions = {
                "The head's number is used for a position: the axes are (batch, position, head, d_head), so a head is "
                "`[:, :, head]`.": partial(by_position, len(heads)),
                "Positions were patched, as many as there are query heads: the axes are (batch, position, head, d_head), so "
                "a head is `[:, :, head]`, and keys and values have only `n_key_value_heads` of them.": partial(
                    by_position, n_heads
                ),
            }
        others = {"v": "kz", "k": "vz", "z": "vq", "q": "z", "pattern": ["z", "q"]}[activation]
        mistakes: dict[str, Any] = {
            **used_for_positions,
            "The head's number is used for a position everywhere: a head is `[:, :, head]` of (batch, position, head, "
            "d_head), and `[:, head]` of a pattern, (batch, head, query, key).": partial(
                by_position, len(heads)
            ),
            **way.ways_to_scale(activation, singly, "one head of one layer"),
            **{
                f"Patched is {OTHER_ACTIVATIONS[other]}, and not the activation that is asked for.": partial(
                    lambda other, way=way: way.scores(
                        other, [way.heads(other, [head]) for head in range(way.n_heads(other))]
                    ),
                    other,
                )
                for other in others
            },
            "All heads are patched at once; patch one head at a time.": partial(
                way.scores, activation, together
            ),
            "Only the last position is patched; patch the head at all positions.": partial(at_positions, -1),
            "Only one position is patched, that of the last but one token; patch the head at all positions.": partial(
                at_positions, -2
            ),
            "Only the first sequence is patched; patch the head in the whole batch.": partial(
                way.scores, activation, [(slice(1), *index[1:]) for index in singly]
            ),
            "Layer and head are exchanged: the layers are the first axis.": right.transpose(0, 1),
            "The first layer is missing.": right[1:],
        }
        if n_groups < n_heads and activation in "kv":
            message = (
                "There is a column for each *query* head; an activation has as many heads as it has: keys and values have "
                "`n_key_value_heads`. "
            )
            repeats = n_heads // n_groups
            mistakes |= {
                message + "Return one column for each key/value head, not one for each head that reads it.": (
                    right.repeat_interleave(repeats, dim=1)
                ),
                message + "Each is there several times over.": right.repeat(
                    1, repeats, *[1] * (right.ndim - 2)
                ),
                message + "The columns after those are 0.": torch.cat(
                    [right, torch.zeros(len(right), n_heads - n_groups, *right.shape[2:])], dim=1
                ),
            }
        if n_groups < n_heads and activation not in "kv":
            mistakes[
                "There is a column for each key/value head only; queries, outputs and patterns have one for each query head."
            ] = right[:, :n_groups]
        if right.ndim > 2:
            mistakes |= {
                "The metric is averaged; keep its shape on the last axes.": right.flatten(2).mean(2),
                "The metric is averaged before it is normalised; keep its shape on the last axes.": partial(
                    _of_the_mean, way, activation, singly
                ),
                "The metric's axes come first; the result is (layer, head, *metric).": right.movedim(
                    (0, 1), (-2, -1)
                ),
            }
        cases.append(
            Case(
                f"{model}: {activation}, {metric}",
                (MODELS[model], clean, corrupted, METRICS[metric], activation),
                right,
                axes=("layer", "head", *_metric_axes(metric)),
                atol=ATOL,
                rtol=ATOL,
                mistakes=mistakes,
            )
        )
    return cases


patch_heads = Check(
    "patch_heads",
    "Patch one head",
    core=True,
    cases=_patch_heads_cases,
    reference=_patch_heads,
)


def _query_heads_of(kv_head: int, n_heads: int, n_key_value_heads: int) -> list[int]:
    """By asking each query head."""
    return [head for head in range(n_heads) if head * n_key_value_heads // n_heads == kv_head]


def _query_heads_of_cases() -> list[Case]:
    cases = []
    for kv_head, n_heads, n_groups in ((1, 14, 2), (1, 6, 3), (0, 4, 2), (2, 4, 4), (0, 4, 1), (2, 12, 3)):
        right = _query_heads_of(kv_head, n_heads, n_groups)
        size = n_heads // n_groups
        cases.append(
            Case(
                f"key/value head {kv_head} of {n_groups}, {n_heads} query heads",
                (kv_head, n_heads, n_groups),
                right,
                mistakes={
                    "The query heads are dealt out in turns (head % n_key_value_heads); they stand in groups: the first "
                    "n_heads / n_key_value_heads of them read key/value head 0.": [
                        head for head in range(n_heads) if head % n_groups == kv_head
                    ],
                    "Each group has n_key_value_heads heads; it has n_heads / n_key_value_heads.": list(
                        range(kv_head * n_groups, (kv_head + 1) * n_groups)
                    ),
                    "This is the group of the next key/value head; they are counted from 0.": list(
                        range((kv_head + 1) * size, (kv_head + 2) * size)
                    ),
                    "This is the group of the key/value head before; they are counted from 0.": list(
                        range((kv_head - 1) * size, kv_head * size)
                    ),
                    "This is the key/value head itself; return the query heads that read it.": [kv_head],
                    "This is one head too many.": list(range(kv_head * size, (kv_head + 1) * size + 1)),
                    "The last head of the group is missing; `range` leaves its end out.": right[:-1],
                    "This is the first head of the group only; return all of them.": right[:1],
                    "This is which key/value head each query head reads; return the query heads of `kv_head`.": [
                        head // size for head in range(n_heads)
                    ],
                    "This is how many they are; return their numbers.": size,
                },
            )
        )
    return cases


query_heads_of = Check(
    "query_heads_of",
    "Which query heads read a key/value head",
    core=False,
    cases=_query_heads_of_cases,
    reference=_query_heads_of,
)

positions_for_heads = Question(
    "positions_for_heads",
    "Find the bug: positions for heads",
    core=False,
    options={
        "a": (
            "values have 14 heads like queries, so the line patches head by head, as meant",
            "the table of hooks says otherwise: `hook_v` is (batch, position, key/value head, d_head), with two heads.",
        ),
        "b": (
            "indices beyond the two heads are ignored, so only heads 0 and 1 were patched",
            "an index beyond an axis raises an IndexError. None was raised: the axis that is indexed has 14 entries.",
        ),
        "c": (
            "PyTorch repeats the two key/value heads to 14, so each was patched seven times",
            "indexing never repeats anything; the model repeats keys and values later, inside the attention.",
        ),
        "d": (
            "the prompts have 14 tokens and the model 14 query heads, so every index is a valid position: each entry "
            "patches the values of all key/value heads at one position",
            "the second axis is the position. With a prompt of another length the loop would raise an error or miss "
            'positions; as it is, the map of "heads" is a map of positions, and nothing that rests on it holds.',
        ),
    },
    answer="d",
)


def _patch_groups(
    model: Any,
    clean_tokens: Int[Tensor, "batch position"],
    corrupted_tokens: Int[Tensor, "batch position"],
    metric: Metric,
    activation: str,
) -> Float[Tensor, "layer kv_head *metric"]:
    """By plain hooks."""
    n_groups = model.cfg.n_key_value_heads
    names = [_hook_name(activation, layer) for layer in range(model.cfg.n_layers)]

    def index_of(value: Tensor) -> list[tuple[Any, ...]]:
        groups = [_query_heads_of(group, model.cfg.n_heads, n_groups) for group in range(n_groups)]
        before = (slice(None),) if activation == "pattern" else (slice(None), slice(None))
        return [(*before, group) for group in groups]

    return _sweep(model, clean_tokens, corrupted_tokens, metric, names, index_of)


def _patch_groups_cases() -> list[Case]:
    cases = []
    for model, activation, metric, position, seed in (
        (TWO_LAYERS, "z", "one number", 3, 80),
        (TWO_LAYERS, "pattern", "one number a place", 2, 81),
        (THREE_LAYERS, "z", "one number a sequence and place", 1, 82),
    ):
        length = 8 if model == TWO_LAYERS else 7
        clean, corrupted = pair(model, 2, length, position, seed)
        way = Patching(model, clean, corrupted, METRICS[metric])
        n_heads, n_groups = way.plain.n_heads, way.plain.n_groups
        groups = [_query_heads_of(group, n_heads, n_groups) for group in range(n_groups)]
        indices = [way.heads(activation, group) for group in groups]
        right = way.scores(activation, indices)
        singly = way.scores(activation, [way.heads(activation, [head]) for head in range(n_heads)])
        size = n_heads // n_groups
        by_group = singly.unflatten(1, (n_groups, size))
        values = way.scores("v", [way.heads("v", [group]) for group in range(n_groups)])
        other = "z" if activation == "pattern" else "pattern"
        mistakes: dict[str, Any] = {
            **way.ways_to_scale(activation, indices, "one group of one layer"),
            f"Patched is {OTHER_ACTIVATIONS[other]}, and not the activation that is asked for.": partial(
                way.scores, other, [way.heads(other, group) for group in groups]
            ),
            "These are sums of the single heads' scores; patch the heads of a group together, in one run.": by_group.sum(
                2
            ),
            "These are means of the single heads' scores; patch the heads of a group together, in one run.": by_group.mean(
                2
            ),
            "There is one column for each query head; patch all query heads of one key/value head together.": singly,
            "Each key/value head's own values are patched (`v`); patch z or the pattern of the query heads that read it.": (
                values
            ),
            "Layer and key/value head are exchanged: the layers are the first axis.": right.transpose(0, 1),
        }
        if n_groups > 1:
            turns = [list(range(group, n_heads, n_groups)) for group in range(n_groups)]
            mistakes |= {
                "The query heads are grouped in turns (head % n_key_value_heads); the first n_heads / n_key_value_heads of "
                "them read key/value head 0.": partial(
                    way.scores, activation, [way.heads(activation, group) for group in turns]
                ),
                "Only the head with the key/value head's own number is patched; patch all query heads that read it.": (
                    singly[:, :n_groups]
                ),
                "Only the first head of each group is patched; patch all of them.": by_group[:, :, 0],
                "Groups of n_key_value_heads heads are patched; a group has n_heads / n_key_value_heads.": partial(
                    way.scores,
                    activation,
                    [
                        way.heads(activation, list(range(g * n_groups, (g + 1) * n_groups)))
                        for g in range(n_heads // n_groups)
                    ],
                ),
                "All heads are patched at once; patch one group at a time.": partial(
                    way.scores, activation, [way.heads(activation, list(range(n_heads)))] * n_groups
                ),
            }
        if right.ndim > 2:
            mistakes["The metric is averaged; keep its shape on the last axes."] = right.flatten(2).mean(2)
        cases.append(
            Case(
                f"{model}: {activation}, {metric}",
                (MODELS[model], clean, corrupted, METRICS[metric], activation),
                right,
                axes=("layer", "kv_head", *_metric_axes(metric)),
                atol=ATOL,
                rtol=ATOL,
                mistakes=mistakes,
            )
        )
    return cases


patch_groups = Check(
    "patch_groups",
    "Patch the heads that share keys and values",
    core=False,
    cases=_patch_groups_cases,
    reference=_patch_groups,
)
