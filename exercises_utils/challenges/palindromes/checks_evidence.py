"""The evidence of lesson 03: counterexamples, the circuit, and an explanation that predicts the model."""

import functools
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from exercises_utils.challenges.palindromes import evidence as evidence_task
from exercises_utils.challenges.palindromes import task
from exercises_utils.challenges.palindromes.checks_common import (
    lesson_model,
    palindromes,
    run,
    verdict,
)
from exercises_utils.challenges.palindromes.checks_message import send_message, swap_pattern
from exercises_utils.checking import Output
from exercises_utils.evidence import (
    CircuitCheck,
    CircuitScorer,
    CounterexamplesCheck,
    Evidence,
    ExplanationCheck,
    circuit_score,
    load_evidence,
    random_search,
    score_answers,
)
from exercises_utils.models import DEFAULT_INSTANCE, build_model, checkpoint_path

# ── 7 · break it ────────────────────────────────────────────────────────────────────────────────────────────

OFTEN, A_PAIR = 0.5, 500
"""A pair is weak that the model misses more often than this, in so many sequences with only that pair mismatched."""


def _weights() -> Path:
    return checkpoint_path(task.CHALLENGE, DEFAULT_INSTANCE)


@functools.cache
def _evidence() -> Evidence:
    return load_evidence(_weights())


@functools.cache
def missed_by_pair() -> Float[Tensor, " pair"]:
    """The share of sequences with one mismatched pair that the model accepts, the outermost pair first."""
    drawn = [task.one_mismatch(A_PAIR, pair, seed=70 + pair).tokens for pair in range(1, task.N_PAIRS + 1)]
    return torch.stack([(verdict(run(lesson_model.get(), tokens)) > 0).float().mean() for tokens in drawn])


def weak_pairs() -> list[int]:
    """The pairs that are missed more than half the time; if there is none, the one missed most. They count from 1."""
    missed = missed_by_pair()
    weak = (missed > OFTEN).nonzero().flatten().tolist() or [int(missed.argmax())]
    return [pair + 1 for pair in weak]


def off_the_weak_pairs(tokens: Int[Tensor, "input 22"]) -> Bool[Tensor, " input"]:
    """Which sequences are intact at every weak pair."""
    return ~evidence_task.mismatches(tokens)[:, [pair - 1 for pair in weak_pairs()]].any(-1)


def like_these(
    tokens: Int[Tensor, "input 22"], size: int, generator: torch.Generator
) -> Int[Tensor, "draw 22"]:
    """Random sequences that are mismatched at the same pairs as these, in turn."""
    differs = evidence_task.mismatches(tokens)[torch.arange(size) % len(tokens)]
    drawn = torch.randint(task.N_VALUES, differs.shape, generator=generator)
    shift = differs * torch.randint(1, task.N_VALUES, differs.shape, generator=generator)
    values = torch.cat([drawn, ((drawn + shift) % task.N_VALUES).flip(-1)], dim=-1)
    framed = torch.nn.functional.pad(values, (1, 1), value=task.START)
    framed[:, -1] = task.END
    return framed


def _interval(hits: int, n: int) -> str:
    """Wilson's 95 % interval."""
    p, z2 = hits / n, 1.96**2
    middle, half = p + z2 / 2 / n, (z2 * (p * (1 - p) / n + z2 / 4 / n**2)) ** 0.5
    return f"[{(middle - half) / (1 + z2 / n):.3f}, {(middle + half) / (1 + z2 / n):.3f}]"


class TwoKinds(CounterexamplesCheck):
    """Counterexamples of which `off` at least are no failures of the weak pairs: those would be one failure, many times."""

    off = 20

    def _refuse(self, value: Any) -> str | None:
        if problem := super()._refuse(value):
            return problem
        tokens = torch.as_tensor(value)
        fooled = tokens[self.score(value).wrong]
        off = int(off_the_weak_pairs(fooled).sum())
        if off >= self.off:
            return None
        weak, missed = weak_pairs(), missed_by_pair()
        at = " and ".join(f"pair {p} (missed in {missed[p - 1]:.0%} of {A_PAIR} sequences)" for p in weak)
        return (
            f"{len(fooled)} of {self.count} fool the model, but only {off} of these are intact at {at}; {self.off} must be. "
            "The others are one failure, over and over. At which other places can it fail, and with which values?"
        )

    def praise(self, outputs: Sequence[Output]) -> str:
        """How many count, of both kinds, and how random sequences with the same pairs mismatched do."""
        value, score = outputs[0].value, self.score(outputs[0].value)
        fooled = torch.as_tensor(value)[score.wrong]
        elsewhere = fooled[off_the_weak_pairs(fooled)]
        weak = "pair " + " and ".join(map(str, weak_pairs()))
        drawn = random_search(
            self.model.get(), functools.partial(like_these, elsewhere), margin=self.task.margin, budget=2000
        )
        hits, n = int((drawn > 0).sum()), len(drawn)
        return (
            f"{score.count()} of {self.count} fool the model, {score.count(typical=True)} in distribution, "
            f"{score.count(typical=False)} out of it; mean margin {score.mean_margin():.2f} logits. {len(elsewhere)} "
            f"of them are intact at {weak}. Of {n} random sequences that are mismatched at the same pairs as those {hits} "
            f"do: {hits / n:.3f} {_interval(hits, n)}. The tries that yours took are not counted."
        )


def _non_palindromes(size: int, generator: torch.Generator) -> Int[Tensor, "sequence position"]:
    """Random non-palindromes as in training, which `exercises compare` tells beside counterexamples."""
    data = task.make_data(2 * size + size // 20 + 20, generator)
    return data.tokens[~data.is_palindrome][:size]


def _known_counterexamples() -> Int[Tensor, "sequence position"]:
    """From the stored pool of hard inputs, which was searched without knowing the mechanism: 30 off the weak pairs first."""
    pool = _evidence().pool
    known = pool.tokens[(pool.right_answers == 0) & ~pool.model_is_right].unique(dim=0)
    off = off_the_weak_pairs(known)
    return torch.cat([known[off][:30], known[~off], known[off][30:]])[:50]


def _palindromes_among(tokens: Tensor) -> str | None:
    count = int(evidence_task.right_answers(tokens).sum())
    if count == 0:
        return None
    return (
        f"{count} of them are palindromes, and the model says so: a counterexample must be answered wrongly."
    )


counterexamples = TwoKinds(
    "counterexamples",
    "Non-palindromes that the model accepts",
    core=True,
    model=lesson_model,
    task=evidence_task,
    sample=_non_palindromes,
    count=50,
    needed=40,
    reference=_known_counterexamples,
    describe=_palindromes_among,
)


# ── 10 · does the story hold ────────────────────────────────────────────────────────────────────────────────


def _scorer(model: Any, trained: float | None = None) -> CircuitScorer:
    data = task.make_data(500, seed=15)

    def accuracy_of(logits: Tensor) -> float:
        return float(task.correct(logits, data).double().mean())

    return CircuitScorer(
        model, data.tokens, accuracy_of, chance=evidence_task.CHANCE, ablation="resample", trained=trained
    )


def _lesson_scorer() -> CircuitScorer:
    return _scorer(lesson_model.get())


def _twin_scorer(trained: float) -> CircuitScorer:
    return _scorer(build_model(task.CONFIG, seed=99, device="cpu"), trained)


def _best_circuit() -> list[tuple[int, ...]]:
    """By exhaustive search: the best three heads, less those that add nothing."""
    scorer = _lesson_scorer()
    sets = list(combinations(scorer.all_heads, 3))
    best = sets[int(scorer.scores(sets).argmax())]
    score = circuit_score(scorer, best)
    return [head for head in best if score.lost[head] >= 0.02]


circuit = CircuitCheck(
    "circuit",
    "The heads that do the work",
    core=False,
    scorer=_lesson_scorer,
    twin=_twin_scorer,
    weights=_weights,
    task=evidence_task,
    most_heads=3,
    needed=0.8,
    reference=_best_circuit,
)


def _matcher() -> tuple[int, int]:
    """The head of layer 0 whose swapped row turns more verdicts."""
    model, intact = lesson_model.get(), palindromes(60, 16)

    def turned(index: int) -> int:
        runs = [(p, task.change_value(intact, p, seed=p)) for p in task.SECOND_HALF]
        return sum(int((swap_pattern.truth(model, (0, index), intact, b, p) < 0).sum()) for p, b in runs)

    return 0, max(range(model.cfg.n_heads), key=turned)


def _explanation(model: Any) -> tuple[Callable[..., Tensor], dict[str, Tensor]]:
    """The matcher's attention alone: a place whose name is heard is in order if it attends as in its own palindrome.

    From one vector for each token and one for each position, where the lesson's own explanation adds up scores.
    """
    layer, index = head = _matcher()
    root = model.cfg.d_head**0.5
    few = palindromes(40, 17)
    heard = [
        sum(
            float((send_message.truth(model, head, few, place, j) < 0).float().mean())
            for place in (12, 15, 18)
        )
        for j in task.SECOND_HALF
    ]
    numbers = {
        **{
            f"{side}_token": model.W_E[:-1] @ W
            for side, W in (("q", model.W_Q[head]), ("k", model.W_K[head]))
        },
        **{f"{side}_place": model.W_pos @ W for side, W in (("q", model.W_Q[head]), ("k", model.W_K[head]))},
        "bias": model.b_Q[head] / root,
        "scale": (model.W_E[:-1, None] + model.W_pos[None]).pow(2).mean(-1).add(model.cfg.eps).sqrt(),
        "heard": (torch.tensor(heard) > 1.5).float(),
    }

    def simulate(inputs: Tensor, numbers: dict[str, Tensor]) -> Tensor:
        mirrored = inputs.clone()
        mirrored[:, 1:11] = inputs[:, 11:21].flip(-1)
        later = torch.ones(21, 21, dtype=torch.bool).triu(1)
        to_first_half = []
        for tokens in (inputs[:, :21], mirrored[:, :21]):
            scale = numbers["scale"][tokens, torch.arange(21)][..., None]
            k = (numbers["k_token"][tokens] + numbers["k_place"][:21]) / scale
            q = (numbers["q_token"][tokens] + numbers["q_place"][:21]) / scale / k.shape[-1] ** 0.5
            scores = (q + numbers["bias"]) @ k.transpose(1, 2)
            pattern = scores.masked_fill(later, float("-inf")).softmax(-1)
            to_first_half.append(pattern[:, 11:, 1:11].sum(-1))
        out_of_order = to_first_half[0] < 0.5 * to_first_half[1]
        return (~(out_of_order & (numbers["heard"] > 0)).any(-1)).long()

    return simulate, numbers


class BesideBlindRules(ExplanationCheck):
    """Prints what the best rule scores that never reads the model."""

    def blind_score(self) -> float:
        """Of the rules "accept if at most so many pairs differ", the best."""
        differ = evidence_task.mismatches(self.pool.tokens).sum(-1)
        return max(score_answers((differ <= most).long(), self.pool, 0).score for most in range(4))

    def praise(self, outputs: Sequence[Output]) -> str:
        """The score beside that of rules which know nothing of the model."""
        return (
            f"{super().praise(outputs)} The best rule that never reads the model (accept if at most one pair differs) "
            f"scores {self.blind_score():.2f}."
        )


explanation = BesideBlindRules(
    "explanation",
    "Predict the model, mistakes included",
    core=False,
    model=lesson_model,
    evidence=_evidence,
    needed=0.7,
    most_numbers=2500,
    reference=_explanation,
)
