"""The checks of lesson 01's sections on the weights: what the head writes (OV), and its scores in four terms (QK)."""

from statistics import mean
from typing import Any

import torch
from torch.nn.functional import one_hot

from exercises_utils.challenges.sorted_list_one_head import checks_models as shared
from exercises_utils.checking import Call, Question, exercise, on_models, then
from exercises_utils.tools import causal

OV = ("W_V", "W_O")


@exercise("The full OV circuit", core=True, axes="token logit")
def full_ov_circuit(model, *, source="W_E", heads=slice(1), by=OV, to="W_U", direct=0):
    """In double precision, from the logits backwards."""
    logits = getattr(model, to).double() if to else torch.eye(model.cfg.d_model, dtype=torch.float64)
    through = logits[None]
    for name in reversed(by):
        weight = getattr(model, name)[0, heads].double()
        through = (weight.mT if name == "W_K" else weight) @ through
    written = through.sum(0) + direct * logits
    return (getattr(model, source).double() @ written if source else written).float()


@exercise("What a position adds", core=False, axes="position logit")
def position_bias(model, *, source="W_pos", heads=slice(1), by=OV, to="W_U", direct=0):
    """As the circuit of the tokens."""
    return full_ov_circuit.truth(model, source=source, heads=heads, by=by, to=to, direct=direct)


OV_SLIPS: dict[str, dict[str, Any]] = {
    "The head is missing: this is the direct path, without W_V W_O.": dict(by=()),
    "These are vectors of the residual stream; multiply by W_U to get logits.": dict(to=None),
    "The embedding is missing: put it in front of W_V.": dict(source=None),
    "This is W_Q W_K^T, where the head attends; what it writes is W_V W_O.": dict(by=("W_Q", "W_K")),
    "The head's matrices are in the wrong order: W_V first, then W_O.": dict(by=OV[::-1]),
    "The direct path is in it; return what the head adds alone.": dict(direct=1),
    "All heads are added up; head 0.0 alone is asked for.": dict(heads=slice(None)),
}
full_ov_circuit.given(on_models(shared.MODELS))
full_ov_circuit.slips(
    {
        **OV_SLIPS,
        "The rows of BOS and MID are missing; keep all rows of W_E.": then(lambda rows: rows[:-2]),
        "This is the circuit of the positions; put W_E in front, not W_pos.": dict(source="W_pos"),
    }
)
position_bias.given(on_models(shared.MODELS))
position_bias.slips(
    {
        **OV_SLIPS,
        "Only the list's positions are there; return a row for each.": then(lambda rows: rows[1:11]),
        "This is the circuit of the tokens; put W_pos in front, not W_E.": dict(source="W_E"),
    }
)


@exercise("Does it copy?", core=False)
def copying_share(ov, *, more=0, turned=False, size=False, is_on=lambda row, i: row[i] == max(row), of=None):
    """By counting rows."""
    table = ov[: ov.shape[1] + more].abs() if size else ov[: ov.shape[1] + more]
    hits = [i < len(row) and is_on(row, i) for i, row in enumerate((table.T if turned else table).tolist())]
    return torch.tensor(hits).float() if of == "each" else sum(hits) / (of or len(hits))


def _circuit(n: int, strength: float, generator: torch.Generator) -> Call:
    """A random circuit that copies in part, some of whose rows are low or high as a whole."""
    ov = torch.randn(n + 2, n, generator=generator) + strength * torch.eye(n + 2)[:, :n]
    ov += 1.5 * torch.randn(n + 2, 1, generator=generator)
    ov[0] *= -1  # a row whose own number is at the bottom
    return Call(f"a random circuit of {n} numbers", dict(ov=ov))


COPYING = {12: 2.0, 30: 1.5, 61: 2.5}
OWN = "it has to be the top logit of its row"
copying_share.given(
    lambda: [_circuit(n, strength, torch.Generator().manual_seed(n)) for n, strength in COPYING.items()]
)
copying_share.slips(
    {
        "The rows of BOS and MID count as misses; leave out the last two rows.": dict(more=2),
        "The largest is taken over rows; ask of each row which column is the largest.": dict(turned=True),
        f"This counts own logits that are lowest; {OWN}.": dict(is_on=lambda row, i: row[i] == min(row)),
        f"Absolute values are compared; {OWN}, with its sign.": dict(size=True),
        f"This counts own logits that are positive; {OWN}.": dict(is_on=lambda row, i: row[i] > 0),
        f"This counts own logits above the row's mean; {OWN}.": dict(is_on=lambda row, i: row[i] > mean(row)),
        f"This is the mean of the diagonal; {OWN}: count.": dict(is_on=lambda row, i: row[i]),
        "This is a count; return the share.": dict(of=1),
        "The count is divided by 50 whatever the size; divide by the number of rows.": dict(of=50),
        "This says of each row whether it copies; take the mean.": dict(of="each"),
    }
)


@exercise("What a head that only copies would answer", core=False, axes="list answer")
def copied_answers(model, tokens, *, queries=(11, 21), places=(0, 22), specials=0, most=False):
    """By gathering each place's attention in the table of its number."""
    rows, places = slice(*queries), slice(*places)
    pattern = shared.masked_scores(model, tokens).softmax(-1)[:, 0, rows, places].double()
    table = torch.zeros(*pattern.shape[:2], model.cfg.d_vocab, dtype=torch.float64)
    index, add = tokens[:, None, places].expand_as(pattern), "amax" if most else "sum"
    table.scatter_reduce_(-1, index, pattern, add)
    return table[..., : model.cfg.d_vocab_out + specials].argmax(-1)


ADD = "Add up the attention to all places that hold the same number."
copied_answers.given(on_models(shared.MODELS, tokens=shared.some_lists, batch=20))
copied_answers.slips(
    {
        f"This is the token at the most attended place, BOS or MID, too. {ADD}": dict(most=True, specials=2),
        f"This is the number at the most attended place. {ADD}": dict(most=True),
        "BOS and MID are among the answers; they are no numbers.": dict(specials=2),
        "These are the answers at 12 to 21; the answer positions are 11 to 20.": dict(queries=(12, 22)),
        "Only the list is counted; add the attention to the sorted part.": dict(places=(1, 11)),
        "Only the sorted part is counted; add the attention to the list.": dict(places=(12, 22)),
        "These are all 22 positions; return the ten answer positions.": dict(queries=(0, 22)),
        "These are the model's own answers; see what it looks at.": lambda m, t: m(t)[:, 11:21].argmax(-1),
        "These are places; return the numbers there.": lambda m, t: shared.patterns(m, t)[:, 0, 11:21].argmax(
            -1
        ),
    }
)


@exercise("The scores in four terms", core=True, axes="query_part key_part list query key", reads=torch.tril)
def score_terms(model, tokens, *, parts=("token", "position"), root="d_head"):
    """By taking parts away: the head's own scores when it reads only this part of the query and that of the key."""
    token, whole = model.W_E[tokens], shared.residual(model, tokens)
    part = {"token": token, "position": whole - token, "whole": whole}
    rows = [torch.stack([shared.scores(model, part[query], part[key]) for key in parts]) for query in parts]
    return torch.stack(rows) * (model.cfg.d_head / getattr(model.cfg, root)) ** 0.5


score_terms.given(on_models(shared.MODELS, tokens=shared.shorter, batch=2, lesson_batch=2))
score_terms.slips(
    {
        "The scores are divided by sqrt(d_model); the width of a head is d_head.": dict(root="d_model"),
        "Every term is the whole score; take W_E and W_pos one at a time.": dict(parts=("whole", "whole")),
        "Queries and keys are swapped: W_Q is the query's, the row's.": then(lambda t: t.transpose(0, 1).mT),
        "Queries and keys are swapped: rows are queries.": then(lambda t: t.mT),
        "The query's part is the first axis; here it is the second.": then(lambda t: t.transpose(0, 1)),
        "Index 0 is the token, index 1 the position; they are swapped.": dict(parts=("position", "token")),
        "A softmax has been taken; return the scores.": then(lambda t: causal(t).softmax(-1)),
        "This is the sum of the terms; return them one by one.": then(lambda t: t.sum((0, 1))),
    }
)


@exercise("Which number is scored highest", core=False)
def successor_share(token_scores, *, more=0, keys=(0, 0), turned=False, size=False, step=1, of=None):
    """By counting the numbers that have a successor."""
    n = len(token_scores) - 2
    table = (token_scores.T if turned else token_scores)[: n - 1 + more, keys[0] : n + keys[1]]
    rows = (table.abs() if size else table).tolist()
    steps = [row.index(max(row)) + keys[0] - i for i, row in enumerate(rows)]
    return sum(each > 0 if step == "up" else each == step for each in steps) / (of or len(steps))


def _score_table(n: int, generator: torch.Generator) -> Call:
    """A random table in which half of the numbers prefer the next one; some rows are low or high as a whole."""
    step = torch.tensor([1, 1, 1, 1, 1, 0, 0, -1, 2, 3])[torch.randint(10, (n + 2,), generator=generator)]
    table = torch.randn(n + 2, n + 2, generator=generator) + 3 * torch.randn(n + 2, 1, generator=generator)
    table += 3 * one_hot((torch.arange(n + 2) + step) % (n + 2), n + 2)
    table[:: n // 4, [0, n]] += 5  # some prefer 0, and some BOS
    return Call(f"random scores of {n} numbers", dict(token_scores=table))


NEXT = "ask for the next one."
successor_share.given(lambda: [_score_table(n, torch.Generator().manual_seed(n)) for n in (17, 25, 61)])
successor_share.slips(
    {
        "The last number counts as a miss; it has no successor. Leave it out.": dict(more=1),
        "BOS and MID are among the keys; compare the keys of numbers.": dict(keys=(0, 2)),
        "All rows count; BOS, MID and the last number have no successor.": dict(more=3, keys=(0, 2)),
        "This is the share of all rows; BOS, MID and the last number have no successor.": dict(more=3),
        "The number 0 is not among the keys.": dict(keys=(1, 0)),
        "Rows and columns are swapped: the query is the row.": dict(turned=True),
        "This is the score farthest from 0; take the highest, with its sign.": dict(size=True),
        f"This is the share of numbers that score themselves highest; {NEXT}": dict(step=0),
        f"This is the share of numbers that score some larger number highest; {NEXT}": dict(step="up"),
        f"This is the share of numbers that score the one before them highest; {NEXT}": dict(step=-1),
        "This is a count; return the share.": dict(of=1),
        "The count is divided by 49 whatever the size; divide by the numbers with a successor.": dict(of=49),
        "The count is divided by 50 whatever the size; divide by the numbers with a successor.": dict(of=50),
    }
)


what_is_wrong_with_062 = Question(
    "what_is_wrong_with_062",
    "Find the bug: 31 of how many?",
    core=False,
    options={
        "a": ("without the root other keys are on top", "a positive factor changes no argmax, so no count."),
        "b": ("31 is right and 50 is not", "31 of 49: 0.63. The root changes no argmax, but every softmax."),
        "c": ("the argmax has to be taken over queries", "which key a query scores highest: the last axis."),
        "d": ("BOS and MID belong to the count: 31 of 52", "they are no numbers: there is no token + 1."),
    },
    answer="b",
)


@exercise("High or low, answer by answer", core=False, axes="answer")
def slope_by_position(model, *, positions=(11, 21), turned=False, keys="numbers", fit="slope"):
    """By the normal equations, with the constant."""
    words = model.W_E[: model.cfg.d_vocab_out] if keys == "numbers" else model.W_E
    table = shared.scores(model, words, model.W_pos).T if turned else shared.scores(model, model.W_pos, words)
    rows, x = table[slice(*positions)].double(), torch.arange(len(words), dtype=torch.float64)
    if fit in ("ends", "joined"):
        return (rows[:, -1] - rows[:, 0]) / (1 if fit == "ends" else len(words) - 1)
    if fit == "through zero":
        return rows @ x / x.pow(2).sum()
    design = torch.stack([x, torch.ones_like(x)], -1)
    slope, constant = torch.linalg.solve(design.T @ design, design.T @ rows.T)
    return {"slope": slope, "constant": constant, "correlation": slope * x.std() / rows.std(-1)}[fit]


slope_by_position.given(on_models(shared.MODELS))
slope_by_position.slips(
    {
        "This is token→position: put W_pos on the query's side (W_Q), W_E on the key's.": dict(turned=True),
        "These are all positions; return the ten answer positions, 11 to 20.": dict(positions=(None,)),
        "Off by one: these are positions 12 to 21; the answers are at 11 to 20.": dict(positions=(12, 22)),
        "These are all positions from 12 on; the answers are at 11 to 20.": dict(positions=(12, None)),
        "Off by one: these are positions 10 to 19; the answers are at 11 to 20.": dict(positions=(10, 20)),
        "These are the positions of the list; the answers are at 11 to 20.": dict(positions=(1, 11)),
        "BOS and MID are in the fit; fit over the numbers.": dict(keys="tokens"),
        "This is the difference of the two ends; fit a line to all numbers.": dict(fit="ends"),
        "This joins the two ends; fit a line to all numbers by least squares.": dict(fit="joined"),
        "The line is forced through zero; fit a constant as well (subtract means).": dict(fit="through zero"),
        "These are correlations; return slopes, score per number.": dict(fit="correlation"),
        "These are intercepts; return the slopes.": dict(fit="constant"),
    }
)
