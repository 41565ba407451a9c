"""The checks of lesson 05's third part: pairs of prompts, and activations of one put into the run on the other."""

import re
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from exercises_utils.challenges.llm_multiplication import task
from exercises_utils.challenges.llm_multiplication.checks_common import MODELS, Plain, as_of, other_tokens
from exercises_utils.challenges.llm_multiplication.task import Products, Vocabulary
from exercises_utils.checking import Call, Question, arg, exercise, then

# ── pairs ───────────────────────────────────────────────────────────────────────────────────────────────────


def _read(texts: list[str], vocabulary: Vocabulary) -> Int[Tensor, "batch position"]:
    """The token ids of texts, sign by sign."""
    signs = {task.END: vocabulary.end, " x": vocabulary.times, " =": vocabulary.equals, " ": vocabulary.space}
    signs |= {str(digit): token for digit, token in enumerate(vocabulary.digits)}
    cut = [re.findall(r"<.*?>| [x=]?|\d", text) for text in texts]
    return torch.tensor([[signs[sign] for sign in row] for row in cut])


PAIR = {"clean": "batch position", "corrupted": "batch position"}


@exercise("Two prompts that differ in one token", core=True, axes=PAIR)
def pair_tokens(clean, corrupted, vocabulary, *, fed="cc", end="", asked=None):
    """From the texts; `fed` says whose products: c (clean), x (corrupted), or none."""
    both = []
    for products, answers in ((clean, fed[:1]), (asked or corrupted, fed[1:])):
        given = {"c": clean.product.tolist(), "x": corrupted.product.tolist()}.get(answers, [""] * len(clean))
        numbers = zip(products.a.tolist(), products.b.tolist(), given, strict=True)
        both.append(_read([f"{task.END}{a} x {b} = {c}{end}" for a, b, c in numbers], vocabulary))
    return tuple(both)


def _pair_call(name: str, vocabulary: Vocabulary, pairs: str) -> Call:
    """Of pairs as text, clean > corrupted."""
    rows = [[int(number) for number in re.split("[x>]", pair)] for pair in pairs.split()]
    numbers = [torch.tensor(column) for column in zip(*rows, strict=True)]
    given = dict(clean=Products(*numbers[:2]), corrupted=Products(*numbers[2:]))
    return Call(name, given | dict(vocabulary=vocabulary))


BUNDLED = task.BUNDLED
QWEN = Vocabulary(digits=tuple(range(15, 25)), times=856, space=220, equals=284, end=151643)
"""Ids in the order of Qwen2.5's tokenizer, none of them the bundled model's."""
pair_tokens.given(
    [
        _pair_call("three by two digits", BUNDLED, "312x47>342x47 845x63>841x63 907x21>907x28"),
        _pair_call("two by three digits, other token ids", QWEN, "47x312>46x312 63x845>83x845"),
        _pair_call("two by two digits", BUNDLED, "41x27>48x27 38x50>33x50 62x34>62x37"),
        _pair_call("three by three digits, six in the product", BUNDLED, "512x347>512x847 731x290>431x290"),
        _pair_call("one pair", BUNDLED, "312x94>312x54"),
    ]
)
pair_tokens.slips(
    {
        "The corrupted sequences are fed their own products; feed the *clean* one to both.": dict(fed="cx"),
        "Both are fed the *corrupted* product; feed the clean one to both.": dict(fed="xx"),
        "The products are exchanged: feed the clean product to both.": dict(fed="xc"),
        "The END after the product is there; the product's last digit comes last.": dict(end=task.END),
        "Only the prompts are there; the clean product's digits follow in both.": dict(fed=""),
        "Both are the clean sequences; the second has the corrupted prompt.": dict(asked=arg("clean")),
        "The ids are the bundled model's; take those of `vocabulary`.": dict(vocabulary=BUNDLED),
        "Clean and corrupted are exchanged: return (clean, corrupted).": then(lambda both: both[::-1]),
        "The product's last digit is missing.": then(lambda both: [x[:, :-1] for x in both]),
        "The END at the beginning is missing.": then(lambda both: [x[:, 1:] for x in both]),
    }
)

corrupted_that_is_not = Question(
    "corrupted_that_is_not",
    "Find the bug: a corrupted prompt that is not",
    core=False,
    options={
        "a": (
            "nothing: each row has another row's prompt, so its answer is wrong for it",
            "it is another prompt altogether, with other digits throughout; and by 0.27 against 0.23 its run is better.",
        ),
        "b": (
            "reversing a batch moves the padding, so the positions do not match",
            "all prompts have as many tokens; reversing their order moves no token inside a prompt.",
        ),
        "c": (
            "the rows are unrelated prompts, and the corrupted metric is not below the clean one",
            "a patch brings everything at once, and (patched - 0.27) / (0.23 - 0.27) calls a metric that *falls* recovery.",
        ),
        "d": (
            "the batch of eight is too small; with more prompts the two averages would move apart",
            "the prompts are the same in both runs; more of them would not make the second run a corrupted one.",
        ),
    },
    answer="c",
)

# ── patching ────────────────────────────────────────────────────────────────────────────────────────────────

Index = tuple[Any, ...]
ALL = slice(None)
METRICS: dict[str, Callable[[Tensor], Tensor]] = {
    "one number": lambda logits: (logits[:, -2, 3] - logits[:, -2, 7]).mean(),
    "one number a place": lambda logits: (logits[:, -3:, 4] - 2 * logits[:, -3:, 9]).mean(0),
    "one a sequence and place": lambda logits: logits[:, -2:, 5] - logits[:, -2:, 8],
}
AXES = {"one number": (), "one number a place": ("place",), "one a sequence and place": ("sequence", "place")}


def _call(which: int, activation: str, metric: str, batch: int, length: int, axis: str) -> Call:
    """Pairs that differ in one token, for one of `MODELS`."""
    name, model = list(MODELS.items())[which]
    vocabulary, generator, at = model.get().cfg.d_vocab, torch.Generator().manual_seed(60 + batch), batch % 3
    clean = torch.randint(vocabulary, (batch, length), generator=generator)
    corrupted = clean.clone()
    corrupted[:, at] = other_tokens(clean[:, at], vocabulary, generator)
    given = dict(model=model, clean_tokens=clean, corrupted_tokens=corrupted, activation=activation)
    name = f"{name}: {activation}, {metric}, {batch} pair{'s' * (batch > 1)}"
    return Call(name, given | dict(metric=METRICS[metric]), ("layer", axis, *AXES[metric]))


def _share(patched: Tensor, clean: Tensor, corrupted: Tensor) -> Tensor:
    return (patched - corrupted) / (clean - corrupted)


def _patched(
    model: Any, clean: Tensor, corrupted: Tensor, metric: Any, activation: str, indices: list[Index], way: Any
) -> Float[Tensor, "layer index *metric"]:
    """The metric of `corrupted` with each index of each layer from the run on `clean`, by a model written out by hand.

    `way` is how it is scaled, whether patches pile up, and whether the metric is averaged.
    """
    plain, (by, pile, mean) = Plain.of(model), way

    def of(logits: Tensor) -> Tensor:
        return metric(logits).mean() if mean else metric(logits)

    logits = plain.patched(corrupted, clean, activation, indices, bool(pile))
    patched = torch.stack([torch.stack([of(one) for one in row]) for row in logits])
    ends = [of(plain.run(tokens)["logits", -1]) for tokens in (clean, corrupted)]
    return as_of(model, by(patched, *ends))


def _mean(scores: Float[Tensor, "layer index *metric"]) -> Tensor:
    return scores.flatten(2).mean(2) if scores.ndim > 2 else scores


EXCHANGED: Any = dict(clean_tokens=arg("corrupted_tokens"), corrupted_tokens=arg("clean_tokens"))
RUNS: Any = EXCHANGED | dict(by=lambda p, a, b: (p - a) / (b - a))
WAYS: Any = {
    "Not normalised: take (patched - corrupted) / (clean - corrupted).": dict(by=lambda p, a, b: p),
    "The difference alone is there; divide it by clean - corrupted.": dict(by=lambda p, a, b: p - b),
    "Divided by the clean run's metric; divide by clean - corrupted.": dict(by=lambda p, a, b: p / a),
    "The difference is divided by clean, not by clean - corrupted.": dict(by=lambda p, a, b: (p - b) / a),
    "The difference is divided by corrupted, not clean - corrupted.": dict(by=lambda p, a, b: (p - b) / b),
    "Corrupted is not subtracted before it is divided.": dict(by=lambda p, a, b: p / (a - b)),
    "This is what is still missing: subtract corrupted.": dict(by=lambda p, a, b: (a - p) / (a - b)),
    "Every entry is 1: is the metric that of the clean run?": dict(by=lambda p, a, b: 0 * p + 1),
    "Every entry is 0: does the hook run, and return what it edits?": dict(by=lambda p, a, b: 0 * p),
    "The runs are exchanged: run the *corrupted* tokens, and patch with the clean run.": RUNS,
    "Clean and corrupted are exchanged throughout: run the *corrupted* tokens; 0 is their metric.": EXCHANGED,
    "The hooks of earlier entries are still on; `with model.hooks(...)` takes them off.": dict(pile=1),
    "The metric is averaged before it is normalised; keep its shape on the last axes.": dict(mean=1),
    "The metric is averaged; keep its shape on the last axes.": then(_mean),
}


def _at(position: int) -> Index:
    return ALL, position


@exercise("Patch one position of one layer", core=True, atol=1e-3, rtol=1e-3)
def patch_positions(
    model, clean_tokens, corrupted_tokens, metric, activation, *, at=_at, by=_share, pile=0, mean=0
):
    """All positions of a layer in one run, a copy of the batch for each."""
    indices = [at(position) for position in range(clean_tokens.shape[1])]
    return _patched(model, clean_tokens, corrupted_tokens, metric, activation, indices, (by, pile, mean))


patch_positions.given(
    lambda: [
        _call(1, "resid_pre", "one number", 5, 6, "position"),
        _call(2, "attn_out", "one number a place", 4, 5, "position"),
        _call(0, "mlp_out", "one a sequence and place", 3, 6, "position"),
        _call(2, "resid_mid", "one a sequence and place", 1, 5, "position"),
    ]
)
patch_positions.slips(
    {
        "All positions are patched at once; patch one at a time.": dict(at=lambda p: (ALL, ALL)),
        "All positions up to the one are patched; patch it alone.": dict(at=lambda p: (ALL, slice(p + 1))),
        "All positions from there on are patched; patch one.": dict(at=lambda p: (ALL, slice(p, None))),
        "Only the first sequence is patched; patch the whole batch.": dict(at=lambda p: (slice(1), p)),
        "Patched is the stream after the layer, not what is asked for.": dict(activation="resid_post"),
        **WAYS,
    }
)


def _head(head: Any, of_pattern: bool) -> Index:
    return (ALL, head) if of_pattern else (ALL, ALL, head)


def _last(head: int, of_pattern: bool) -> Index:
    return (ALL, head, -1) if of_pattern else (ALL, -1, head)


@exercise("Patch one head", core=True, atol=1e-3, rtol=1e-3)
def patch_heads(
    model, clean_tokens, corrupted_tokens, metric, activation, *, at=_head, n="own", by=_share, pile=0, mean=0
):
    """All heads of a layer in one run, a copy of the batch for each."""
    plain, of_pattern = Plain.of(model), activation == "pattern"
    count = plain.n_groups if activation in "kv" and n != "query" else plain.n_heads
    indices = [at(head, of_pattern) for head in range(count)]
    right = _patched(model, clean_tokens, corrupted_tokens, metric, activation, indices, (by, pile, mean))
    more = [torch.zeros_like(right[:, :1])] * (plain.n_heads - count)
    repeated = right.repeat_interleave(plain.n_heads // count, 1)
    wrong = {"repeated": repeated, "zeros": torch.cat([right, *more], 1), "few": right[:, : plain.n_groups]}
    return wrong.get(n, right)


patch_heads.given(
    lambda: [
        _call(1, "v", "one number", 4, 8, "head"),
        _call(2, "pattern", "one number a place", 5, 7, "head"),
        _call(0, "z", "one a sequence and place", 3, 7, "head"),
        _call(2, "k", "one number", 3, 7, "head"),
        _call(1, "q", "one a sequence and place", 1, 8, "head"),
    ]
)
TAKEN = "The number is taken for a {}; a head is `[:, :, head]`, of a pattern `[:, head]`."
patch_heads.slips(
    {
        "Positions were patched, as many as there are query heads; a head is `[:, :, head]`, and keys and values have only "
        "`n_key_value_heads`.": dict(at=lambda i, p: (ALL, i), n="query"),
        TAKEN.format("position"): dict(at=lambda i, p: (ALL, i)),
        TAKEN.format("position everywhere"): dict(at=lambda i, p: _head(i, not p)),
        TAKEN.format("query position of a pattern"): dict(at=lambda i, p: (ALL, ALL, i)),
        "All heads are patched at once; patch one at a time.": dict(at=lambda i, p: _head(ALL, p)),
        "Only the last position is patched; patch all.": dict(at=_last),
        "Only the first sequence is patched; patch all.": dict(at=lambda i, p: (slice(1), *_head(i, p)[1:])),
        "There is a column for each *query* head that reads one of keys or values.": dict(n="repeated"),
        "There is a column for each *query* head; keys and values have fewer (0 here).": dict(n="zeros"),
        "There is a column for each key/value head; this has query heads.": dict(n="few"),
        **WAYS,
    }
)

# ── costs, and who shares what ──────────────────────────────────────────────────────────────────────────────


def _triangle(n: int) -> int:
    return n * (n + 1) // 2


@exercise("How much of a sweep a patch can change", core=False)
def sweep_share(n_layers, n_positions, first, *, layers="from it", positions="from it", per="sweep"):
    """In closed form."""
    left, run = n_positions - first, n_layers * n_positions
    deep = {"from it": _triangle(n_layers), "after it": _triangle(n_layers - 1), "all": n_layers**2}[layers]
    before = _triangle(n_positions) - _triangle(first)
    wide = {"from it": _triangle(left), "after it": _triangle(left - 1), "all": left * n_positions}
    cost = {"sweep": run**2, "run": run, "visited": run * n_layers * left, "cell": 1}[per]
    return deep * wide.get(positions, before) / cost


sweep_share.given(
    [
        Call(
            f"{layers} layers, {n} positions, first {first}",
            dict(n_layers=layers, n_positions=n, first=first),
        )
        for layers, n, first in ((4, 15, 1), (3, 7, 0), (24, 14, 8), (2, 5, 3))
    ]
)
sweep_share.slips(
    {
        "Positions *before* the patched one are counted; count n_positions - p.": dict(positions="before"),
        "The patched layer itself is left out: L to n_layers - 1 are n_layers - L.": dict(layers="after it"),
        "The patched position itself, or the site `first`, is left out.": dict(positions="after it"),
        "Sites before `first` are counted; nothing can be patched there.": dict(first=0),
        "All positions are counted for each site; only those from p on change.": dict(positions="all"),
        "All layers are counted for each site; only those from L on change.": dict(layers="all"),
        "This is the share of sites; each costs less, too.": dict(layers="all", positions="all"),
        "Divided by the simple sweep over visited sites; it visits all.": dict(per="visited"),
        "It is divided by one forward pass; the simple sweep makes one for each site.": dict(per="run"),
        "This is the number of cells; divide by those of the simple sweep.": dict(per="cell"),
        "This is the share that is saved; return the share that is left.": then(lambda share: 1 - share),
        "This is how many times less work it is; return the share.": then(lambda share: 1 / share),
        "The division is an integer one: `/`, not `//`.": then(lambda share: share // 1),
    }
)


@exercise("Which query heads read a key/value head", core=False)
def query_heads_of(kv_head, n_heads, n_key_value_heads, *, turns=False, step=0):
    """By asking each query head which key/value head it reads."""
    size = n_heads // n_key_value_heads
    reads = [
        head % n_key_value_heads if turns else head * n_key_value_heads // n_heads for head in range(n_heads)
    ]
    return [head + step * size for head in range(n_heads) if reads[head] == kv_head]


query_heads_of.given(
    [
        Call(
            f"key/value head {kv} of {groups}, {n} query heads",
            dict(kv_head=kv, n_heads=n, n_key_value_heads=groups),
        )
        for kv, n, groups in ((1, 14, 2), (1, 6, 3), (0, 4, 2), (2, 4, 4), (0, 4, 1), (2, 12, 3))
    ]
)
query_heads_of.slips(
    {
        "Heads are dealt out in turns (head % n_key_value_heads); neighbours share.": dict(turns=True),
        "This is the group of the next key/value head; they are counted from 0.": dict(step=1),
        "This is the group of the key/value head before; they are counted from 0.": dict(step=-1),
        "Each group has n_key_value_heads heads; it has n_heads / n_key_value_heads.": (
            lambda kv_head, n_heads, groups: list(range(kv_head * groups, (kv_head + 1) * groups))
        ),
        "This is which key/value head each query head reads; return the query heads of `kv_head`.": (
            lambda kv_head, n_heads, groups: [head * groups // n_heads for head in range(n_heads)]
        ),
        "This is the key/value head itself.": lambda kv_head, n_heads, groups: [kv_head],
        "This is one head too many.": then(lambda right: [*right, right[-1] + 1]),
        "The last head of the group is missing; `range` leaves its end out.": then(lambda right: right[:-1]),
        "This is the first head of the group only; return all of them.": then(lambda right: right[:1]),
        "This is how many they are; return their numbers.": then(len),
    }
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
            "the second axis is the position: the map of heads is one of positions, and nothing that rests on it holds.",
        ),
    },
    answer="d",
)
