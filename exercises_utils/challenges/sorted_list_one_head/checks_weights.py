"""The checks of lesson 01's sections on the weights: what the head writes (OV), and its scores in four terms (QK)."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import FactoredMatrix

from exercises_utils.challenges.sorted_list_one_head import task
from exercises_utils.challenges.sorted_list_one_head.checks_models import (
    LARGE,
    LESSON,
    MODELS,
    SMALL,
    at_answers,
    later,
    lists,
    masked,
    residual,
    scores,
)
from exercises_utils.checking import Case, Check, Output, Question
from exercises_utils.checking.values import convert
from exercises_utils.tools import hooks

# ── 6 · what a token's value does to the logits ─────────────────────────────────────────────────────────────


def _ov(model: Any, source: Tensor) -> Float[Tensor, "source d_vocab_out"]:
    """What the head adds to the logits for each source, by TransformerLens's factored product."""
    return (source @ FactoredMatrix(model.W_V[0, 0], model.W_O[0, 0]) @ model.W_U).AB


def _full_ov_circuit(model: Any) -> Float[Tensor, "d_vocab d_vocab_out"]:
    return _ov(model, model.W_E)


def _ov_mistakes(model: Any, source: Tensor) -> dict[str, Any]:
    """What both full OV circuits, of tokens and of positions, go wrong with."""
    right = _ov(model, source)
    qk = model.W_Q[0, 0] @ model.W_K[0, 0].T
    mistakes = {
        "Rows and columns are swapped: a row is a source, a column a logit.": right.T,
        "The head is missing: this is the direct path, without W_V W_O.": source @ model.W_U,
        "These are vectors of the residual stream; multiply by W_U to get logits.": source
        @ model.W_V[0, 0]
        @ model.W_O[0, 0],
        "The embedding is missing: put it in front of W_V.": model.W_V[0, 0] @ model.W_O[0, 0] @ model.W_U,
        "This is W_Q W_K^T, where the head attends; what it writes is W_V W_O.": source @ qk @ model.W_U,
        "It is divided by sqrt(d_head), as scores are; the OV circuit is not.": right / model.cfg.d_head**0.5,
        "A softmax has been taken; return the logits.": right.softmax(-1),
        "The direct path is in it; return what the head adds alone.": right + source @ model.W_U,
    }
    return mistakes


def _full_ov_circuit_cases() -> list[Case]:
    cases = []
    for name, fresh in MODELS.items():
        model = fresh.get()
        right = _full_ov_circuit(model)
        mistakes = {
            **_ov_mistakes(model, model.W_E),
            "The rows of BOS and MID are missing; keep all rows of W_E.": right[:-2],
            "This is the circuit of the positions; put W_E in front, not W_pos.": _ov(model, model.W_pos),
        }
        if model.cfg.d_model == model.cfg.d_head:
            mistakes["The head's matrices are in the wrong order: W_V first, then W_O."] = (
                model.W_E @ model.W_O[0, 0] @ model.W_V[0, 0] @ model.W_U
            )
        cases.append(Case(name, (fresh,), right, axes=("source token", "logit"), mistakes=mistakes))
    return cases


full_ov_circuit = Check(
    "full_ov_circuit",
    "The full OV circuit",
    core=True,
    cases=_full_ov_circuit_cases,
    reference=_full_ov_circuit,
)


# ── 7 · does it copy ────────────────────────────────────────────────────────────────────────────────────────


def _copying_share(ov: Float[Tensor, "d_vocab d_vocab_out"]) -> float:
    """By counting rows."""
    rows = ov.tolist()[: ov.shape[1]]
    return sum(row.index(max(row)) == i for i, row in enumerate(rows)) / len(rows)


def _copying_share_cases() -> list[Case]:
    cases = []
    for n, strength, seed in ((12, 2.0, 0), (30, 1.5, 1), (50, 2.5, 2)):
        generator = torch.Generator().manual_seed(seed)
        ov = torch.randn(n + 2, n, generator=generator)
        ov[:n] += strength * torch.eye(n)
        ov[0] *= -1  # a row whose own number is at the bottom
        ov += 1.5 * torch.randn(n + 2, 1, generator=generator)  # rows that are high or low as a whole
        ov[n, :] += 4 * torch.eye(n)[seed]
        right = _copying_share(ov)
        hits = (ov[:n].argmax(-1) == torch.arange(n)).double()
        cases.append(
            Case(
                f"a random circuit of {n} numbers",
                (ov,),
                right,
                mistakes={
                    "The rows of BOS and MID count as misses; they have no number of their own. Leave out the last two "
                    "rows.": float(hits.sum() / (n + 2)),
                    "This is the share of columns that are largest in their own row; ask of each row which column is the "
                    "largest.": float((ov[:n].argmax(0) == torch.arange(n)).double().mean()),
                    "The largest is taken over rows, BOS and MID included; ask of each row which column is the largest.": (
                        float((ov.argmax(0) == torch.arange(n)).double().mean())
                    ),
                    "This is the smallest of each row; the top logit is the largest.": float(
                        (ov[:n].argmin(-1) == torch.arange(n)).double().mean()
                    ),
                    "This is the largest absolute value of each row; the top logit is the largest, with its sign.": float(
                        (ov[:n].abs().argmax(-1) == torch.arange(n)).double().mean()
                    ),
                    "This is a count; return the share.": float(hits.sum()),
                    "These are percents; return a share from 0 to 1.": right * 100,
                    "This is the share of rows whose own logit is positive; it must be the largest of its row.": float(
                        (ov[:n].diagonal() > 0).double().mean()
                    ),
                    "This is the share of rows whose own logit is above the row's mean; it must be the largest.": float(
                        (ov[:n].diagonal() > ov[:n].mean(-1)).double().mean()
                    ),
                    "This is the mean of the diagonal; return the share of rows whose top logit lies on it.": float(
                        ov[:n].diagonal().mean()
                    ),
                    "This says of each row whether it copies; take the mean.": hits,
                },
            )
        )
    return cases


copying_share = Check(
    "copying_share", "Does it copy?", core=False, cases=_copying_share_cases, reference=_copying_share
)


# ── 8 · what a position's value does ────────────────────────────────────────────────────────────────────────


def _position_bias(model: Any) -> Float[Tensor, "position d_vocab_out"]:
    return _ov(model, model.W_pos)


def _position_bias_cases() -> list[Case]:
    cases = []
    for name, fresh in MODELS.items():
        model = fresh.get()
        right = _position_bias(model)
        mistakes = {
            **_ov_mistakes(model, model.W_pos),
            "Only the list's positions are there; return all 22 rows.": right[1:11],
            "BOS's position is missing; return all 22 rows.": right[1:],
            "This is the circuit of the tokens; put W_pos in front, not W_E.": _full_ov_circuit(model),
            "This is the mean over positions; return a row for each.": right.mean(0),
        }
        cases.append(Case(name, (fresh,), right, axes=("position", "logit"), mistakes=mistakes))
    return cases


position_bias = Check(
    "position_bias",
    "What a position adds",
    core=False,
    cases=_position_bias_cases,
    reference=_position_bias,
)


# ── 9 · what a head that only copied would answer ───────────────────────────────────────────────────────────


def _copied_answers(model: Any, tokens: Int[Tensor, "list 22"]) -> Int[Tensor, "list answer"]:
    """By adding up, place by place."""
    resid = residual(model, tokens)
    pattern = masked(scores(model, resid, resid)).softmax(-1).double().tolist()
    n_numbers = model.cfg.d_vocab_out
    answers: list[list[int]] = []
    for row, sequence in zip(pattern, tokens.tolist(), strict=True):
        answers.append([])
        for query in task.ANSWER_POSITIONS:
            of_number = [0.0] * n_numbers
            for place in range(query + 1):
                if sequence[place] < n_numbers:
                    of_number[sequence[place]] += row[query][place]
            answers[-1].append(of_number.index(max(of_number)))
    return torch.tensor(answers)


def _copied_answers_cases() -> list[Case]:
    cases = []
    for name, size in ((LESSON, 40), (SMALL, 20), (LARGE, 20)):
        model, tokens = MODELS[name].get(), lists(name, size, seed=6)
        with hooks.record(model, "blocks.0.attn.hook_pattern") as seen:
            logits = model(tokens)
        pattern, n_numbers = seen["blocks.0.attn.hook_pattern"][:, 0], model.cfg.d_vocab_out
        one_hot = torch.nn.functional.one_hot(tokens, model.cfg.d_vocab).float()
        every = pattern @ one_hot  # attention to each token, special ones too
        of_list = pattern[..., 1:11] @ one_hot[:, 1:11]
        of_sorted = pattern[..., 12:] @ one_hot[:, 12:]
        numbers_only = pattern.masked_fill((tokens >= n_numbers)[:, None], 0)
        cases.append(
            Case(
                name,
                (MODELS[name], tokens),
                _copied_answers(model, tokens),
                axes=("list", "answer"),
                mistakes={
                    "Copies are not added up: this is the token at the most attended place. Add the attention to all "
                    "places that hold the same number.": at_answers(_token_at(tokens, pattern)),
                    "Copies are not added up: this is the number at the most attended place. Add the attention to all "
                    "places that hold the same number.": at_answers(_token_at(tokens, numbers_only)),
                    "BOS and MID are among the answers; they are no numbers.": at_answers(every).argmax(-1),
                    "These are the answers at positions 12 to 21; the answer positions are 11 to 20.": (
                        every[:, 12:, :n_numbers].argmax(-1)
                    ),
                    "Only the places of the list are counted; add the attention to the sorted part as well.": (
                        at_answers(of_list)[..., :n_numbers].argmax(-1)
                    ),
                    "Only the sorted part is counted; add the attention to the places of the list.": (
                        at_answers(of_sorted)[..., :n_numbers].argmax(-1)
                    ),
                    "These are the model's own answers; ask which number gets most attention.": (
                        at_answers(logits).argmax(-1)
                    ),
                    "These are the most attended places; return the number that stands there.": (
                        at_answers(pattern).argmax(-1)
                    ),
                    "These are all 22 positions; return the ten answer positions.": every[
                        ..., :n_numbers
                    ].argmax(-1),
                },
            )
        )
    return cases


def _token_at(tokens: Tensor, pattern: Tensor) -> Int[Tensor, "list query"]:
    """The token at each query's most attended place."""
    return tokens.gather(1, pattern.argmax(-1))


copied_answers = Check(
    "copied_answers",
    "What a head that only copies would answer",
    core=False,
    cases=_copied_answers_cases,
    reference=_copied_answers,
)


# ── 10 · the scores in four terms ───────────────────────────────────────────────────────────────────────────


class _LowerTriangleCheck(Check):
    """Compares on and below the diagonal: above it, where a mask may or may not have been put, anything goes."""

    def _collect_case(self, case: Case, answer: Any) -> Output:
        output = super()._collect_case(case, answer)
        value = convert(output.value, case.expected)
        if isinstance(value, Tensor) and value.ndim > 1 and value.shape[-1] == value.shape[-2]:
            object.__setattr__(output, "value", value.masked_fill(later(value.shape[-1]), 0))
        return output


def _score_terms(
    model: Any, tokens: Int[Tensor, "list 22"]
) -> Float[Tensor, "query_part key_part list query key"]:
    """By taking parts away: the head's own scores when it reads only this part of the query and that of the key."""
    token, position = model.W_E[tokens], model.W_pos[: tokens.shape[1]].expand(*tokens.shape, -1)
    rows = []
    for query_part in (token, position):
        queries = query_part @ model.W_Q[0, 0]
        keys = [key_part @ model.W_K[0, 0] for key_part in (token, position)]
        rows.append(torch.stack([torch.einsum("lqd,lkd->lqk", queries, key) for key in keys]))
    return torch.stack(rows) / model.cfg.d_head**0.5


def _score_terms_cases() -> list[Case]:
    cases = []
    for name, size in ((LESSON, 6), (SMALL, 5), (LARGE, 7)):
        model, tokens = MODELS[name].get(), lists(name, size, seed=7)
        right, root = _score_terms(model, tokens).tril(), model.cfg.d_head**0.5
        resid = residual(model, tokens)
        turned = _score_terms(model, tokens).transpose(-1, -2)
        cases.append(
            Case(
                name,
                (MODELS[name], tokens),
                right,
                axes=("query part", "key part", "list", "query", "key"),
                mistakes={
                    "The scores are not divided by sqrt(d_head): the terms do not add up to the model's scores.": right
                    * root,
                    "The scores are divided by d_head; attention divides by its square root.": right / root,
                    "The scores are divided by sqrt(d_model); the width of a head is d_head.": right
                    * root
                    / model.cfg.d_model**0.5,
                    "Every term is the whole score; the parts of the residual stream are asked for, W_E and W_pos, one at "
                    "a time.": scores(model, resid, resid).tril().expand(2, 2, -1, -1, -1),
                    "Queries and keys are swapped: W_Q belongs to the query (the row), W_K to the key (the column).": (
                        turned.transpose(0, 1).tril()
                    ),
                    "Queries and keys are swapped: rows are queries, columns are keys.": turned.tril(),
                    "The first axis is the query's part, the second the key's; they are swapped.": right.transpose(
                        0, 1
                    ),
                    "Index 0 is the token, index 1 the position; they are swapped.": right.flip(0, 1),
                    "Index 0 is the token, index 1 the position; on the query's axis they are swapped.": right.flip(
                        0
                    ),
                    "Index 0 is the token, index 1 the position; on the key's axis they are swapped.": right.flip(
                        1
                    ),
                    "A softmax has been taken; return the scores.": masked(
                        _score_terms(model, tokens)
                    ).softmax(-1),
                    "This is the sum of the terms; return them one by one.": right.sum((0, 1)),
                    "This is the mean over lists; keep the list axis.": right.mean(2),
                },
            )
        )
    return cases


score_terms = _LowerTriangleCheck(
    "score_terms",
    "The scores in four terms",
    core=True,
    cases=_score_terms_cases,
    reference=_score_terms,
)


# ── 11, 12 · which number is scored highest ─────────────────────────────────────────────────────────────────


def _successor_share(token_scores: Float[Tensor, "d_vocab d_vocab"]) -> float:
    """By counting the numbers that have a successor."""
    n = len(token_scores) - 2
    rows = [row[:n] for row in token_scores.tolist()[: n - 1]]
    return sum(row.index(max(row)) == i + 1 for i, row in enumerate(rows)) / len(rows)


def _successor_share_cases() -> list[Case]:
    cases = []
    for n, seed in ((17, 3), (24, 4), (50, 5)):
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(n + 2, n + 2, generator=generator)
        # Half of the numbers score the next one high, others themselves, the one before, one further up, 0, or BOS.
        offsets = torch.tensor([1, 1, 1, 1, 1, 0, 0, -1, 2, 3])
        preferred = offsets[torch.randint(len(offsets), (n + 2,), generator=generator)]
        preferred[[n // 2, n // 2 + 2]] = 1
        table += 6.0 * torch.nn.functional.one_hot((torch.arange(n + 2) + preferred) % (n + 2), n + 2)
        table[[n // 2, n // 2 + 2], 0] += 12.0
        table[: n // 4, n] += 9.0
        table[n - 2, n - 1] += 9.0
        right = _successor_share(table)
        hits = table[: n - 1, :n].argmax(-1) == torch.arange(1, n)
        cases.append(
            Case(
                f"random scores of {n} numbers",
                (table,),
                right,
                mistakes={
                    "The last number counts as a miss; it has no successor. Leave it out.": float(
                        hits.sum() / n
                    ),
                    "BOS and MID are among the keys; compare the keys of numbers, the first columns.": float(
                        (table[: n - 1].argmax(-1) == torch.arange(1, n)).double().mean()
                    ),
                    "BOS and MID are among the keys, and the last number counts; compare number keys, and leave it out.": (
                        float((table[:n].argmax(-1) == torch.arange(1, n + 1)).double().mean())
                    ),
                    "This is the share over all rows; BOS, MID and the last number have no successor.": float(
                        hits.sum() / (n + 2)
                    ),
                    "All rows count; BOS, MID and the last number have no successor.": float(
                        (table.argmax(-1) == torch.arange(1, n + 3)).double().mean()
                    ),
                    "The highest is taken over queries; ask of each query (row) which key is the highest.": float(
                        (table[:n, 1:n].argmax(0) == torch.arange(n - 1)).double().mean()
                    ),
                    "Rows and columns are swapped: the query is the row.": float(
                        (table[:n, : n - 1].argmax(0) == torch.arange(1, n)).double().mean()
                    ),
                    "This is the share of numbers that score themselves highest; ask for the next one.": float(
                        (table[: n - 1, :n].argmax(-1) == torch.arange(n - 1)).double().mean()
                    ),
                    "This is the share of numbers that score themselves highest; ask for the next one"
                    " (and leave out the last).": float(
                        (table[:n, :n].argmax(-1) == torch.arange(n)).double().mean()
                    ),
                    "This is the share of numbers that score some larger number highest; ask for the next one.": float(
                        (table[: n - 1, :n].argmax(-1) > torch.arange(n - 1)).double().mean()
                    ),
                    "This is the share of numbers that score the number before them highest; ask for the next one.": float(
                        (table[1:n, :n].argmax(-1) == torch.arange(n - 1)).double().mean()
                    ),
                    "This is a count; return the share.": float(hits.sum()),
                    "The count is divided by 49 whatever the size; divide by the numbers that have a successor.": float(
                        hits.sum() / 49
                    ),
                    "The count is divided by 50 whatever the size; divide by the numbers that have a successor.": float(
                        hits.sum() / 50
                    ),
                    "These are percents; return a share from 0 to 1.": right * 100,
                },
            )
        )
    return cases


successor_share = Check(
    "successor_share",
    "Which number is scored highest",
    core=False,
    cases=_successor_share_cases,
    reference=_successor_share,
)


what_is_wrong_with_062 = Question(
    "what_is_wrong_with_062",
    "Find the bug: 31 of how many?",
    core=False,
    options={
        "a": (
            "without 1/sqrt(d_head) other keys come out on top, so that 31 is a wrong count",
            "a positive factor changes no argmax: the count is the same with it.",
        ),
        "b": (
            "31 is right and 50 is not, because 49 has no successor; and what the missing root changes is something else",
            "31 of the 49 numbers that have one: 0.63. The missing 1/sqrt(d_head) changes no argmax, but every softmax.",
        ),
        "c": (
            "the argmax has to be taken over the queries",
            "the question is which key a query scores highest, so the argmax runs over keys, the last axis.",
        ),
        "d": (
            "BOS and MID belong to the count: 31 of 52",
            "they are no numbers, so there is no token + 1 for them.",
        ),
    },
    answer="b",
)


# ── 13 · high or low, position by position ──────────────────────────────────────────────────────────────────


def _position_to_token(model: Any) -> Float[Tensor, "position number"]:
    return scores(model, model.W_pos, model.W_E[: model.cfg.d_vocab_out])


def _slopes(rows: Float[Tensor, "row number"]) -> Float[Tensor, " row"]:
    """Least squares, by the formula."""
    x = torch.arange(rows.shape[1], dtype=torch.float64)
    x -= x.mean()
    return ((rows.double() * x).sum(-1) / x.pow(2).sum()).float()


def _slope_by_position(model: Any) -> Float[Tensor, " answer"]:
    """By the normal equations, with the constant."""
    rows = at_answers(_position_to_token(model).double(), dim=0)
    x = torch.arange(rows.shape[1], dtype=torch.float64)
    design = torch.stack([x, torch.ones_like(x)], -1)
    return torch.linalg.solve(design.T @ design, design.T @ rows.T)[0].float()


def _slope_by_position_cases() -> list[Case]:
    cases = []
    for name, fresh in MODELS.items():
        model = fresh.get()
        table, root = _position_to_token(model), model.cfg.d_head**0.5
        right, n = _slope_by_position(model), model.cfg.d_vocab_out
        rows = at_answers(table, dim=0)
        turned = scores(model, model.W_E[:n], model.W_pos).T
        with_special = scores(model, model.W_pos, model.W_E)
        x = torch.arange(n, dtype=torch.float32)
        cases.append(
            Case(
                name,
                (fresh,),
                right,
                axes=("answer",),
                mistakes={
                    "The scores are not divided by sqrt(d_head).": right * root,
                    "The scores are divided by d_head; attention divides by its square root.": right / root,
                    "This is the term token→position: put W_pos on the query's side (W_Q), W_E on the key's (W_K).": (
                        _slopes(at_answers(turned, dim=0))
                    ),
                    "These are all 22 positions; return the ten answer positions, 11 to 20.": _slopes(table),
                    "Off by one: these are positions 12 to 21; the answer positions are 11 to 20.": _slopes(
                        table[12:]
                    ),
                    "Off by one: these are positions 10 to 19; the answer positions are 11 to 20.": _slopes(
                        table[10:20]
                    ),
                    "These are the positions of the list; the answer positions are 11 to 20.": _slopes(
                        table[1:11]
                    ),
                    "BOS and MID are in the fit; fit over the numbers.": _slopes(
                        at_answers(with_special, dim=0)
                    ),
                    "This is the difference of the two ends; fit a line to all numbers.": rows[:, -1]
                    - rows[:, 0],
                    "This joins the two ends; fit a line to all numbers by least squares.": (
                        (rows[:, -1] - rows[:, 0]) / (n - 1)
                    ),
                    "The line is forced through zero; fit a constant as well (subtract the means).": (
                        (rows @ x) / x.pow(2).sum()
                    ),
                    "These are correlations; return slopes, score per number.": _correlations(rows),
                    "The sign is turned round: the slope is positive where higher numbers get higher scores.": -right,
                    "These are intercepts; return the slopes.": rows.mean(-1) - right * x.mean(),
                    "This is the mean over answer positions; return a slope for each.": right.mean(),
                },
            )
        )
    return cases


def _correlations(rows: Tensor) -> Float[Tensor, " row"]:
    x = torch.arange(rows.shape[1], dtype=torch.float32)
    x = x - x.mean()
    centred = rows - rows.mean(-1, keepdim=True)
    return (centred * x).sum(-1) / (centred.norm(dim=-1) * x.norm())


slope_by_position = Check(
    "slope_by_position",
    "High or low, answer by answer",
    core=False,
    cases=_slope_by_position_cases,
    reference=_slope_by_position,
)
