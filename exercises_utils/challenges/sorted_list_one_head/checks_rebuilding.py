"""The checks of lesson 01's sections that rebuild the model from tables, and drop terms of its scores."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from exercises_utils.challenges.sorted_list_one_head import task
from exercises_utils.challenges.sorted_list_one_head.checks_models import (
    LESSON,
    LOGIT_NOISE,
    MODELS,
    SMALL,
    at_answers,
    lists,
    logits_with,
    masked,
    scores,
)
from exercises_utils.challenges.sorted_list_one_head.terms import score_terms
from exercises_utils.checking import Case, Check

Term = tuple[str, ...]
TERMS = tuple(itertools.product(("token", "position"), repeat=2))

# ── 14 · the model from eight tables ──────────────────────────────────────────────────────────────────────


def tables_of(model: Any) -> dict[str, Tensor]:
    """The eight tables that a model with one head and no LayerNorm is made of."""
    parts = {"token": model.W_E, "position": model.W_pos}
    W_OV = model.W_V[0, 0] @ model.W_O[0, 0]
    return {
        **{f"{q}_{k}": scores(model, parts[q], parts[k]) for q, k in TERMS},
        **{f"ov_{part}": vectors @ W_OV @ model.W_U for part, vectors in parts.items()},
        **{f"direct_{part}": vectors @ model.W_U for part, vectors in parts.items()},
    }


def _rebuilt_logits(
    tables: dict[str, Tensor], tokens: Int[Tensor, "list position"]
) -> Float[Tensor, "list position d_vocab_out"]:
    """By loops over lists and queries."""
    logits = []
    for sequence in tokens:
        places = torch.arange(len(sequence))
        for query, token in enumerate(sequence.tolist()):
            seen, at = sequence[: query + 1], places[: query + 1]
            row = tables["token_token"][token, seen] + tables["token_position"][token, at]
            row = row + tables["position_token"][query, seen] + tables["position_position"][query, at]
            values = tables["ov_token"][seen] + tables["ov_position"][at]
            direct = tables["direct_token"][token] + tables["direct_position"][query]
            logits.append(direct + row.softmax(0) @ values)
    return torch.stack(logits).view(*tokens.shape, -1)


def _parts(tables: dict[str, Tensor], tokens: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The four terms of the scores by name, the values, and the direct path."""
    n = tokens.shape[1]
    q, k, full = tokens[:, :, None], tokens[:, None, :], (*tokens.shape, n)
    terms = {
        "token_token": tables["token_token"][q, k],
        "token_position": tables["token_position"][tokens][..., :n],
        "position_token": tables["position_token"][:n, tokens].permute(1, 0, 2),
        "position_position": tables["position_position"][:n, :n].expand(full),
    }
    values = tables["ov_token"][tokens] + tables["ov_position"][:n]
    return terms, values, tables["direct_token"][tokens] + tables["direct_position"][:n]


def _rebuilt_mistakes(
    tables: dict[str, Tensor], tokens: Tensor, root: float
) -> dict[str, Callable[[], Tensor]]:
    terms, values, direct = _parts(tables, tokens)
    every = torch.stack([*terms.values()]).sum(0)
    n = tokens.shape[1]

    def logits(pattern: Tensor, values: Tensor = values, direct: Tensor = direct) -> Tensor:
        return direct + pattern @ values

    def without(term: str) -> Callable[[], Tensor]:
        return lambda: logits(masked(every - terms[term]).softmax(-1))

    pattern = masked(every).softmax(-1)
    turned = {
        **terms,
        "token_position": tables["token_position"][tokens][..., :n].transpose(1, 2),
        "position_token": tables["position_token"][:n, tokens].permute(1, 2, 0),
    }
    return {
        "The causal mask is missing: a query attends to nothing after it.": lambda: logits(every.softmax(-1)),
        "Attention after the query is set to 0 when the softmax has been taken; mask the scores before it.": lambda: (
            logits(every.softmax(-1).tril())
        ),
        "The softmax runs over the queries; it runs over the keys, the last axis.": lambda: logits(
            masked(every).softmax(-2)
        ),
        "The direct path is missing: add `direct_token` and `direct_position` at the query.": lambda: logits(
            pattern, direct=torch.zeros_like(direct)
        ),
        "The position's direct path, `direct_position`, is missing.": lambda: logits(
            pattern, direct=tables["direct_token"][tokens]
        ),
        "The token's direct path, `direct_token`, is missing.": lambda: logits(
            pattern, direct=tables["direct_position"][:n].expand_as(direct)
        ),
        "What the head writes for positions, `ov_position`, is missing.": lambda: logits(
            pattern, tables["ov_token"][tokens]
        ),
        "What the head writes for tokens, `ov_token`, is missing.": lambda: logits(
            pattern, tables["ov_position"][:n].expand_as(values)
        ),
        "The scores are divided by sqrt(d_head) once more; the tables have it already.": lambda: logits(
            masked(every / root).softmax(-1)
        ),
        "The head is missing: this is the direct path alone.": lambda: direct,
        "The direct path is missing, and the attention is uniform: look up the scores.": lambda: logits(
            masked(torch.zeros_like(every)).softmax(-1), direct=torch.zeros_like(direct)
        ),
        "The attention is uniform: no scores are looked up.": lambda: logits(
            masked(torch.zeros_like(every)).softmax(-1)
        ),
        "`ov_position` and `direct_position` are exchanged, or the head's position is that of the query: it writes what "
        "belongs to the place that it attends to.": lambda: (
            direct + pattern @ tables["ov_token"][tokens] + tables["ov_position"][:n]
        ),
        "`token_position` and `position_token` are mixed up: the query's part comes first, in the name and in the rows.": (
            lambda: logits(masked(torch.stack([*turned.values()]).sum(0)).softmax(-1))
        ),
        "`token_token` is turned round: the query's token is the row, the key's the column.": lambda: logits(
            masked(every - terms["token_token"] + terms["token_token"].transpose(1, 2)).softmax(-1)
        ),
        "`position_position` is turned round: the query's position is the row, the key's the column.": lambda: (
            logits(
                masked(
                    every - terms["position_position"] + terms["position_position"].transpose(1, 2)
                ).softmax(-1)
            )
        ),
        **{f"The term `{term}` of the scores is missing.": without(term) for term in terms},
        "These are the answers, the largest logits; return the logits.": lambda: logits(pattern).argmax(-1),
        "A softmax has been taken; return the logits.": lambda: logits(pattern).softmax(-1),
        "These are log-probabilities; return the logits.": lambda: logits(pattern).log_softmax(-1),
        "These are the logits at the ten answer positions; return those of all positions.": lambda: (
            at_answers(logits(pattern)) if n == task.N_CTX else logits(pattern)[:, -1:]
        ),
    }


def _random_tables(n_tokens: int, n_ctx: int, n_out: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = {"token": n_tokens, "position": n_ctx}
    shapes = {f"{q}_{k}": (sizes[q], sizes[k]) for q, k in TERMS}
    shapes |= {f"{what}_{part}": (sizes[part], n_out) for what in ("ov", "direct") for part in sizes}
    return {name: 2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def _rebuilt_logits_cases() -> list[Case]:
    cases = []
    model, tokens = MODELS[LESSON].get(), lists(LESSON, 8, seed=8)
    axes = ("list", "position", "logit")
    tables = {name: table.clone() for name, table in tables_of(model).items()}
    mistakes = _rebuilt_mistakes(tables, tokens, model.cfg.d_head**0.5)
    logits = model(tokens)
    noise = LOGIT_NOISE * logits.abs().max().item()
    cases.append(Case(LESSON, (tables, tokens), logits, axes=axes, mistakes=mistakes, atol=noise))
    for n_tokens, n_ctx, n_out, seed in ((13, 9, 7, 0), (6, 12, 10, 1)):
        tables = _random_tables(n_tokens, n_ctx, n_out, seed)
        tokens = torch.randint(n_tokens, (5, n_ctx), generator=torch.Generator().manual_seed(seed))
        cases.append(
            Case(
                f"random tables of {n_tokens} tokens and {n_ctx} positions",
                (tables, tokens),
                _rebuilt_logits(tables, tokens),
                axes=axes,
                mistakes=_rebuilt_mistakes(tables, tokens, 128**0.5),
            )
        )
    return cases


rebuilt_logits = Check(
    "rebuilt_logits",
    "The model from eight tables",
    core=True,
    cases=_rebuilt_logits_cases,
    reference=_rebuilt_logits,
)


# ── 15 · the kink ───────────────────────────────────────────────────────────────────────────────────────────


def _second_differences(ov: Float[Tensor, "source logit"]) -> Float[Tensor, "source inner"]:
    """As the difference of two differences."""
    return ov.diff(dim=1).diff(dim=1)


def _second_differences_cases() -> list[Case]:
    cases = []
    for rows, columns, seed in ((7, 12, 0), (9, 9, 1), (12, 5, 2)):
        ov = 10 * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).cumsum(1)
        right = _second_differences(ov)
        cases.append(
            Case(
                f"a random circuit of {rows} sources and {columns} numbers",
                (ov,),
                right,
                axes=("source", "inner number"),
                mistakes={
                    "These are first differences; take the difference of them once more.": ov.diff(dim=1),
                    "These are differences from one source to the next; go along each row, over the logits.": ov.diff(
                        dim=0
                    ).diff(dim=0),
                    "The sign is turned round: f(x+1) − 2 f(x) + f(x−1) is positive at the bottom of a dip.": -right,
                    "It is halved; return f(x+1) − 2 f(x) + f(x−1).": right / 2,
                    "The ends are there too, filled with zeros; return the inner numbers, two columns fewer.": (
                        torch.nn.functional.pad(right, (1, 1))
                    ),
                    "The row is taken to go on round its ends; return the inner numbers, two columns fewer.": (
                        ov.roll(-1, 1) - 2 * ov + ov.roll(1, 1)
                    ),
                    "The middle counts once; it counts twice: f(x+1) − 2 f(x) + f(x−1).": (
                        ov[:, 2:] - ov[:, 1:-1] + ov[:, :-2]
                    ),
                    "This is f(x+1) − f(x−1), the slope; the kink is f(x+1) − 2 f(x) + f(x−1).": ov[:, 2:]
                    - ov[:, :-2],
                    "The numbers are squared; return them as they are.": right**2,
                    "These are absolute values; keep the sign.": right.abs(),
                },
            )
        )
    return cases


second_differences = Check(
    "second_differences",
    "Where the ramps bend",
    core=False,
    cases=_second_differences_cases,
    reference=_second_differences,
)


# ── 16 · with some terms only ───────────────────────────────────────────────────────────────────────────────


def _hits_with_terms(
    model: Any,
    tokens: Tensor,
    kept: Sequence[Term],
    *,
    mask: bool = True,
    scale: float = 1.0,
    late: int = 0,
) -> Tensor:
    """Which answers are right, by the weights; `late` reads the logits that many positions later."""
    terms = score_terms(model, tokens)
    total = scale * sum((terms[term] for term in kept), torch.zeros_like(terms["token", "token"]))
    top = logits_with(model, tokens, (masked(total) if mask else total).softmax(-1)).argmax(-1)
    return top[:, 11 + late : 21 + late] == tokens[:, 12:]


def _accuracy_with_terms(model: Any, tokens: Int[Tensor, "list 22"], kept: list[Term]) -> float:
    return float(_hits_with_terms(model, tokens, kept).double().mean())


def _accuracy_with_terms_cases() -> list[Case]:
    named: list[tuple[str, str, list[Term]]] = [
        ("one term", LESSON, [("token", "token")]),
        ("two terms", LESSON, [("token", "token"), ("position", "token")]),
        ("three terms", LESSON, [("position", "token"), ("token", "position"), ("token", "token")]),
        ("no term", LESSON, []),
        ("all terms", LESSON, list(TERMS)),
        ("one term", SMALL, [("token", "position")]),
    ]
    return [_kept_case(f"{name}, {what}", name, kept) for what, name, kept in named]


def _kept_case(title: str, name: str, kept: list[Term]) -> Case:
    fresh, tokens = MODELS[name], lists(name, 60, seed=9)
    model, root = fresh.get(), fresh.get().cfg.d_head ** 0.5
    others = [term for term in TERMS if term not in kept]
    turned = [(k, q) for q, k in kept]
    right = _accuracy_with_terms(model, tokens, kept)

    def accuracy(which: Sequence[Term], **settings: Any) -> Callable[[], float]:
        return lambda: float(_hits_with_terms(fresh.get(), tokens, which, **settings).double().mean())

    def without_attention() -> float:
        top = logits_with(fresh.get(), tokens, torch.zeros(len(tokens), 22, 22)).argmax(-1)
        return float((at_answers(top) == tokens[:, 12:]).double().mean())

    def of_every_position() -> float:
        terms = score_terms(fresh.get(), tokens)
        total = sum((terms[term] for term in kept), torch.zeros_like(terms["token", "token"]))
        top = logits_with(fresh.get(), tokens, masked(total).softmax(-1)).argmax(-1)
        return float((top[:, :-1] == tokens[:, 1:]).double().mean())

    def with_means() -> float:
        terms = score_terms(fresh.get(), tokens)
        total = torch.zeros_like(terms["token", "token"])
        for term in TERMS:
            total += terms[term] if term in kept else terms[term].mean(0)
        top = logits_with(fresh.get(), tokens, masked(total).softmax(-1)).argmax(-1)
        return float((at_answers(top) == tokens[:, 12:]).double().mean())

    def of_whole_lists() -> float:
        return float(_hits_with_terms(fresh.get(), tokens, kept).all(-1).double().mean())

    return Case(
        title,
        (fresh, tokens, kept),
        right,
        atol=1.5 / (len(tokens) * task.LENGTH),
        mistakes={
            "The kept terms are dropped, and the others kept.": accuracy(others),
            "All terms are kept: this is the model's own accuracy. Does the hook return the new scores, and does the model "
            "run with it?": accuracy(list(TERMS)),
            "The parts are exchanged: the first name of a pair is the query's part, the second the key's.": accuracy(
                turned
            ),
            "The causal mask is missing: set the scores after the query to minus infinity.": accuracy(
                kept, mask=False
            ),
            "The terms are not divided by sqrt(d_head), so the softmax is too sharp.": accuracy(
                kept, scale=root
            ),
            "The terms are divided by sqrt(d_head) twice, so the softmax is too flat.": accuracy(
                kept, scale=1 / root
            ),
            "The logits are read one position too late; the answer positions are 11 to 20.": accuracy(
                kept, late=1
            ),
            "The head writes nothing: the pattern is zero. Replace the scores, before the softmax.": (
                without_attention
            ),
            "All positions are counted; count the ten answer positions, 11 to 20.": of_every_position,
            "This is the share of lists that are right as a whole; count answers.": of_whole_lists,
            "This is a share for each answer position; take the mean over all of them.": lambda: (
                _hits_with_terms(fresh.get(), tokens, kept).double().mean(0)
            ),
            "This is the share at MID alone; take the mean over all ten answer positions.": lambda: float(
                _hits_with_terms(fresh.get(), tokens, kept)[:, 0].double().mean()
            ),
            "The other terms are replaced by their mean over lists; drop them altogether.": with_means,
            "This is the share of mistakes; return the share of right answers.": 1 - right,
            "These are percents; return a share from 0 to 1.": 100 * right,
        },
    )


accuracy_with_terms = Check(
    "accuracy_with_terms",
    "With some terms only",
    core=True,
    cases=_accuracy_with_terms_cases,
    reference=_accuracy_with_terms,
)
