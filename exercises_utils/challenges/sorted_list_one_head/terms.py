"""Circuits of a model with one attention head: which of the four terms of its attention scores do the work.

A score is a sum of four terms: the token or the position of the query, with the token or the position of the
key. A circuit is a set of pairs (query part, key part), such as `("position", "token")`. Outside it the terms are
dropped: the scores are the sum of the circuit's terms, and mask, softmax and everything after them are the model's.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from exercises_utils.evidence import Circuit, Scorer, Site
from exercises_utils.tools import causal

PARTS = ("position", "token")
ALL_TERMS = tuple(product(PARTS, PARTS))


class TermScorer(Scorer):
    """Scores sets of score terms of a model with one layer, one head, no LayerNorm and no attention biases.

    Args:
        model: the model.
        tokens: the sequences that the metric is measured on.
        metric: from the logits for `tokens` to a number.
        chance: the metric's value for knowing nothing.
        trained: the trained model's metric; this model's own by default. For a random-weights twin pass the
            trained model's.
    """

    unit, example, removed = "term", '[("token", "token")]', "dropped"

    def __init__(
        self,
        model: Any,
        tokens: Int[Tensor, "input position"],
        metric: Callable[[Tensor], Any],
        *,
        chance: float,
        trained: float | None = None,
    ) -> None:
        self.model, self.tokens, self.metric, self.chance = model, tokens, metric, chance
        self._terms = score_terms(model, tokens)
        self._known: dict[tuple[Site, ...], float] = {}
        self.trained = self._above_chance(self._value(ALL_TERMS) if trained is None else trained)

    @property
    def all_members(self) -> tuple[Site, ...]:
        """The four terms."""
        return ALL_TERMS

    def label(self, member: Site) -> str:
        """Such as "position→token"."""
        return "→".join(member)

    def check(self, circuit: Circuit) -> tuple[Site, ...]:
        """The circuit as sorted pairs of names. Raises ValueError for other members, and for repeats."""
        terms: list[Site] = []
        for member in circuit:
            term = tuple(member) if isinstance(member, list | tuple) else ()
            if len(term) != 2 or not all(isinstance(part, str) for part in term):
                raise ValueError(
                    f'a term is a pair (query part, key part), such as ("token", "position"); got {member!r}'
                )
            for part in term:
                if part not in PARTS:
                    raise ValueError(f'{term} names the part {part!r}; the parts are "token" and "position"')
            if term in terms:
                raise ValueError(f"the circuit names {term} twice")
            terms.append(term)
        return tuple(sorted(terms))

    def values(self, circuits: Sequence[Circuit]) -> Float[Tensor, " circuit"]:
        """The metric of the model with everything outside each circuit dropped from the scores."""
        return torch.tensor([self._value(self.check(circuit)) for circuit in circuits], dtype=torch.float64)

    def _value(self, circuit: tuple[Site, ...]) -> float:
        if circuit not in self._known:
            self._known[circuit] = float(self.metric(self._logits(circuit)))
        return self._known[circuit]

    def _logits(self, circuit: Sequence[Site]) -> Float[Tensor, "input position d_vocab_out"]:
        scores = sum((self._terms[term] for term in circuit), torch.zeros_like(self._terms["token", "token"]))

        def put(activation: Float[Tensor, "input head query key"], hook: Any) -> Tensor:
            return causal(scores)[:, None]

        with torch.no_grad(), self.model.hooks(fwd_hooks=[("blocks.0.attn.hook_attn_scores", put)]):
            return self.model(self.tokens)


def score_terms(
    model: Any, tokens: Int[Tensor, "input position"]
) -> dict[Site, Float[Tensor, "input query key"]]:
    """The four terms of the scores of head 0.0, without mask, by the parts of the query and of the key."""
    with torch.no_grad():
        parts = {
            "token": model.W_E[tokens],
            "position": model.W_pos[: tokens.shape[1]].expand(*tokens.shape, -1),
        }
        queries = {part: vectors @ model.W_Q[0, 0] for part, vectors in parts.items()}
        keys = {part: vectors @ model.W_K[0, 0] for part, vectors in parts.items()}
        return {(q, k): queries[q] @ keys[k].transpose(1, 2) / model.cfg.d_head**0.5 for q, k in ALL_TERMS}
