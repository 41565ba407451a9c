"""Pools of hard inputs, on which an explanation of a model is put to the test: how they are searched for.

Random inputs are a poor test of an explanation: the model is nearly always right on them, so "it does the
task" predicts nearly everything. A pool holds as many inputs on which the model is wrong as on which it is
right, and both halves have the same mixture of right answers, so that no constant answer scores more than
one half. Where an input has several answers, such as the ten numbers of a sorted list, one wrong answer makes it an
input of the wrong half; both halves then have the same mixture of kinds, and scores count answers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from exercises_utils.evidence.scores import Pool, Site

BATCH = 4096


class NoMistakesError(ValueError):
    """A model without a mistake that the search finds: no pool can tell it from the perfect algorithm."""


@runtime_checkable
class EvidenceTask(Protocol):
    """What a challenge's `evidence` module offers."""

    CHANCE: float
    N_ANSWERS: int
    KINDS: tuple[str, ...]
    HARD_INPUTS: str
    SITES: tuple[Site, ...]

    def typical_inputs(self, size: int, generator: Generator) -> Tensor:
        """Inputs as the model was trained on."""

    def hard_inputs(self, size: int, generator: Generator) -> Tensor:
        """Valid inputs that are hard, without asking any model."""

    def neighbours(self, tokens: Tensor, generator: Generator) -> Tensor:
        """Valid inputs, each a small change of a given one. Those of another kind are left out of the search."""

    def right_answers(self, tokens: Tensor) -> Tensor:
        """The right answer, or answers, to each input."""

    def answers(self, logits: Tensor) -> Tensor:
        """The model's answer, or answers, to each input."""

    def margin(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """The logit of the best wrong answer minus the right one's: above 0 the model is wrong.

        Of several answers, the largest: above 0 where any of them is wrong.
        """

    def kinds(self, tokens: Tensor) -> Tensor:
        """Which of KINDS each input is."""


@dataclass(frozen=True)
class _Found:
    """Inputs in the order in which they were found, without repeats."""

    tokens: Tensor
    margins: Tensor
    kinds: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def where(self, chosen: Tensor) -> "_Found":
        return _Found(self.tokens[chosen], self.margins[chosen], self.kinds[chosen])

    def first(self, n: int) -> "_Found":
        return self.where(torch.arange(min(n, len(self))))

    def distinct(self) -> "_Found":
        """Each input where it comes first."""
        distinct, group = self.tokens.unique(dim=0, return_inverse=True)
        first = torch.full((len(distinct),), len(self))
        return self.where(
            first.scatter_reduce(0, group, torch.arange(len(self)), reduce="amin").sort().values
        )

    def and_new(self, other: "_Found") -> "_Found":
        """Both, the inputs of `other` that are not yet here after those that are."""
        pairs = ((self.tokens, other.tokens), (self.margins, other.margins), (self.kinds, other.kinds))
        return _Found(*(torch.cat(pair) for pair in pairs)).distinct()


@dataclass(frozen=True)
class _Search:
    """Looks at inputs with the eyes of a model, and searches its mistakes."""

    logits_fn: Callable[[Tensor], Tensor]
    task: EvidenceTask
    generator: Generator

    def read(self, tokens: Tensor, what: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """`what(logits, tokens)`, batch by batch: the logits of all inputs may be too many to keep."""
        with torch.no_grad():
            return torch.cat([what(self.logits_fn(some).cpu(), some) for some in tokens.split(BATCH)])

    def look_at(self, tokens: Tensor) -> _Found:
        """The inputs with their margins and kinds."""
        return _Found(tokens, self.read(tokens, self.task.margin), self.task.kinds(tokens))

    def mistakes_among(self, parents: _Found, kind: int, enough: int, rounds: int) -> _Found:
        """Mistakes of one kind: those among `parents`, and as many more as it takes among changed ones."""
        mistakes = parents.where(parents.margins > 0)
        for _ in range(rounds if len(parents) else 0):
            if len(mistakes) >= enough:
                break
            nearest = parents.where(parents.margins.topk(min(BATCH // 8, len(parents))).indices)
            children = self.look_at(self.task.neighbours(nearest.tokens.repeat(8, 1), self.generator))
            children = children.where(children.kinds == kind)
            mistakes = mistakes.and_new(children.where(children.margins > 0))
            parents = nearest.and_new(children)
        return mistakes


def build_pool(
    logits_fn: Callable[[Tensor], Tensor],
    task: EvidenceTask,
    *,
    size: int = 1000,
    seed: int = 0,
    draws: int = 200_000,
    rounds: int = 20,
) -> Pool:
    """A pool of `size` inputs, half of them with a wrong answer, with how it was found in `Pool.how`.

    First `draws` inputs are drawn with `task.hard_inputs`. Where they hold too few mistakes of one kind,
    the inputs of that kind nearest to a mistake are changed a little, over and over, and mistakes among the
    changed ones taken. The wrong half has as many of each kind as were found, up to equal shares: rare
    mistakes are tested too. The right half has the kinds as often as they are drawn, and each right answer
    as often as the wrong half; or, where an input has several answers, each kind as often as the wrong half.

    Args:
        logits_fn: the model, as a function from tokens to logits.
        task: the challenge's `evidence` module.
        size: how many inputs at most. It is less if too few mistakes are found.
        seed: of all draws.
        draws: how many inputs are drawn before the search begins.
        rounds: how many rounds of changes for each kind at most.

    Raises:
        NoMistakesError: no mistake was found at all, so nothing tells an explanation from the perfect algorithm.
    """
    generator = Generator().manual_seed(seed)
    search = _Search(logits_fn, task, generator)
    drawn = search.look_at(task.hard_inputs(draws, generator)).distinct()
    of_kind = [drawn.where(drawn.kinds == kind) for kind in range(len(task.KINDS))]
    enough = size // 2 // len(task.KINDS) + 1
    wrong = [search.mistakes_among(some, kind, enough, rounds) for kind, some in enumerate(of_kind)]
    if not any(map(len, wrong)):
        raise NoMistakesError(
            f"the model makes no mistake on {draws:,} hard inputs, nor in {rounds} rounds of search"
        )
    taken = _equal_shares([len(some) for some in wrong], size // 2)
    tokens = torch.cat([some.first(n).tokens for some, n in zip(wrong, taken, strict=True)])
    right = drawn.where(drawn.margins < 0).tokens
    several = task.right_answers(tokens).ndim > 1
    matched = task.kinds if several else task.right_answers
    tokens = torch.cat([tokens, _as_many_of_each(right, matched(right), matched(tokens))])
    tokens = tokens[torch.randperm(len(tokens), generator=generator)]
    return Pool(
        tokens=tokens,
        right_answers=task.right_answers(tokens),
        model_answers=search.read(tokens, lambda logits, _: task.answers(logits)),
        kinds=task.kinds(tokens),
        kind_names=task.KINDS,
        n_answers=task.N_ANSWERS,
        how=(
            f"{draws:,} inputs drawn with seed {seed}: {task.HARD_INPUTS} Where they held too few mistakes "
            "of a kind, inputs of that kind nearest to a mistake were changed a little, over and over. "
            f"Mistakes taken, drawn + searched: {_counts(task.KINDS, taken, of_kind)}. "
            f"{_MIXTURE_OF_SEVERAL if several else _MIXTURE}"
        ),
    )


def _counts(kinds: Sequence[str], taken: Sequence[int], drawn: Sequence[_Found]) -> str:
    """How many mistakes of each kind a pool has, of those that were drawn and of those that were searched."""
    n_drawn = [int((some.margins > 0).sum()) for some in drawn]
    return "; ".join(
        f"{name}: {min(n, first)} + {max(n - first, 0)}"
        for name, n, first in zip(kinds, taken, n_drawn, strict=True)
    )


_MIXTURE = (
    "Half of the pool is mistakes, the kinds in equal shares as far as they were found. The other half is "
    "inputs that the model gets right, as they were drawn, with the same number of each right answer."
)
_MIXTURE_OF_SEVERAL = (
    "Half of the pool is inputs with a mistake somewhere, the kinds in equal shares as far as they were found. "
    "The other half is inputs that the model gets right everywhere, as they were drawn, with the same number "
    "of each kind as far as there are so many."
)


def _as_many_of_each(tokens: Tensor, groups: Tensor, like: Tensor) -> Tensor:
    """The first tokens, each group (right answer, or kind) as often as in `like`, if there are that many."""
    counts = like.bincount().tolist()
    return torch.cat([tokens[groups == group][:count] for group, count in enumerate(counts)])


def _equal_shares(available: list[int], total: int) -> list[int]:
    """How many to take of each, as equally as what is available allows, `total` in all or everything."""
    taken = [0] * len(available)
    for _ in range(min(total, sum(available))):
        taken[min((n, i) for i, n in enumerate(taken) if n < available[i])[1]] += 1
    return taken
