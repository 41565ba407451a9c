"""The checks of the three kinds of evidence that end every lesson: counterexamples, the circuit, an explanation.

They put `evidence`'s scores into checks, for any challenge: a lesson's `checks.py` adds one of each to its list.
Both halves stay apart: what the learner gives is plain data (sequences, heads, predicted answers and a count of
numbers), and the judge scores it on a model of its own.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from exercises_utils.checking import Case, Check, Fresh, Output
from exercises_utils.evidence.pools import EvidenceTask
from exercises_utils.evidence.scores import (
    CircuitScorer,
    CounterexampleScore,
    Pool,
    Scorer,
    SimulationScore,
    Site,
    advantage,
    circuit_score,
    percentile_among_random,
    random_search,
    rank_among_sets,
    run_simulation,
    score_answers,
    score_counterexamples,
)
from exercises_utils.evidence.stored import Evidence, accuracy, load_evidence

LESSON = "the lesson's model"
MOST_FLOAT_NOISE = 0.02
"""Share of inputs whose answers may change with the order of the inputs: those on the edge of a threshold."""
STORED_TO = 1e-3
"""What is stored of a random circuit's accuracy: three digits. Nearer ones are ties, and do not count as less."""
WORTH = 0.02
"""What the score must lose without a member, or the member is none of the circuit's."""


class CheckedTask(EvidenceTask, Protocol):
    """What a challenge's `evidence` module offers besides, for counterexamples."""

    def why_invalid(self, tokens: Tensor) -> str | None:
        """Why a sequence is not a valid input of the task, or None."""

    def in_distribution(self, tokens: Tensor) -> Tensor:
        """Whether each sequence looks like the training data."""


class CounterexamplesCheck(Check):
    """Whether enough of the sequences that a learner gives are valid and answered wrongly by the model.

    `count` sequences are asked for, of which `needed` must fool the model. `describe` may say more about valid
    sequences that the model is right about, or return None. `sample` draws valid inputs at random: what
    counterexamples from the mechanism are compared with.
    """

    def __init__(
        self,
        exercise: str,
        title: str,
        core: bool,
        *,
        model: Fresh,
        task: CheckedTask,
        sample: Callable[[int, torch.Generator], Tensor],
        count: int,
        needed: int,
        reference: Callable[[], Tensor],
        describe: Callable[[Tensor], str | None],
    ) -> None:
        self.model, self.task, self.sample, self.describe = model, task, sample, describe
        self.count, self.needed = count, needed
        super().__init__(
            exercise, title, core, lambda: [Case(LESSON, requires=self._refuse)], reference=reference
        )

    def score(self, inputs: Any) -> CounterexampleScore:
        """What became of each sequence; see `evidence.score_counterexamples`."""
        return score_counterexamples(
            self.model.get(),
            inputs,
            why_invalid=self.task.why_invalid,
            in_distribution=self.task.in_distribution,
            margin=self.task.margin,
        )

    def random_margins(self, budget: int = 2000) -> Tensor:
        """The margins of `budget` random inputs."""
        return random_search(self.model.get(), self.sample, margin=self.task.margin, budget=budget)

    def _refuse(self, value: Any) -> str | None:
        if isinstance(value, list | tuple) and value and all(isinstance(row, Tensor) for row in value):
            return "A list of tensors came; give one tensor: `torch.stack(...)`."
        try:
            score = self.score(value)
        except ValueError as error:
            return str(error)
        if len(score.margins) != self.count:
            return f"Give {self.count} sequences; {len(score.margins)} came."
        found = score.count()
        if found >= self.needed:
            return None
        message = f"{found} of {self.count} fool the model; {self.needed} are needed."
        bad = [(i, reason) for i, reason in enumerate(score.reasons) if reason is not None]
        if bad:
            where, reason = bad[0]
            message += f" {len(bad)} do not count: sequence {where} {reason}."
        right = (score.margins <= 0).nonzero().flatten()
        if len(right):
            tokens = torch.as_tensor(value)[right]
            message += f" {self.describe(tokens) or f'The model answers {len(right)} of them rightly.'}"
        return message

    def figures(self, answer: Any) -> dict[str, Any]:
        """How many of an answer's sequences fool the model, and the share of random ones that do."""
        score = self.score(self.collect(answer)[0].value)
        return {
            "asked": self.count,
            "found": score.count(),
            "in_distribution": score.count(typical=True),
            "random_share": float((self.random_margins() > 0).double().mean()),
        }

    def praise(self, outputs: Sequence[Output]) -> str:
        """How many count, in and out of distribution, by what margin, and how random draws do."""
        score, by_chance = self.score(outputs[0].value), self.random_margins()
        wins = advantage(score, by_chance)
        lucky = int((by_chance > 0).sum())
        times = "" if math.isinf(wins) else f" ({wins:.0f} times less often)"
        return (
            f"{score.count()} of {self.count} fool the model, {score.count(typical=True)} in distribution, "
            f"{score.count(typical=False)} out of it; mean margin {score.mean_margin():.2f} logits. Of "
            f"{len(by_chance)} random sequences {lucky} do{times}; the tries that yours took are not counted."
        )


class CircuitCheck(Check):
    """Whether a circuit that a learner names does nearly all of the work, and has no member to spare.

    Heads `(layer, head)` or sites `(layer, head, position)`, at most `most_heads` different heads, or whatever members
    the scorer knows, at most as many; what becomes of everything else is the scorer's (see `evidence`). `scorer` makes
    the scorer of the lesson's model; `twin` that of a model with random weights, from the trained model's metric.
    `weights` is where the lesson's weights are: beside them lies what random circuits with positions are worth. The
    score must reach `needed`, and every head (every member) must be worth `WORTH` of it.
    """

    def __init__(
        self,
        exercise: str,
        title: str,
        core: bool,
        *,
        scorer: Callable[[], Scorer],
        twin: Callable[[float], Scorer],
        weights: Callable[[], Path],
        task: EvidenceTask,
        most_heads: int,
        needed: float,
        reference: Callable[[], Any],
    ) -> None:
        self.scorer = functools.cache(scorer)
        self.twin = functools.cache(lambda: twin(self.scorer().trained))
        self.weights, self.task = weights, task
        self.most_heads, self.needed = most_heads, needed
        super().__init__(
            exercise, title, core, lambda: [Case(LESSON, requires=self._refuse)], reference=reference
        )

    def _refuse(self, value: Any) -> str | None:
        scorer = self.scorer()
        unit = scorer.unit
        if not isinstance(value, list | tuple | set | frozenset) or not value:
            return f"A circuit is a list of {unit}s, such as {scorer.example}; {value!r} came."
        try:
            circuit = scorer.check(list(value))
        except (ValueError, TypeError) as error:
            return str(error)[:1].upper() + str(error)[1:] + "."
        heads = sorted({site[:2] for site in circuit})
        if len(heads) > self.most_heads:
            return (
                f"{len(heads)} {unit}s are named; name at most {self.most_heads}. A circuit that is the whole model "
                "explains nothing."
            )
        scored = circuit_score(scorer, circuit)
        if scored.score < self.needed:
            return (
                f"With everything else {scorer.removed}, {self._names(circuit)} keeps {scored.score:.2f} of what the "
                f"model can do; {self.needed:.2f} is needed. Which {unit}'s work is missing?"
            )
        for head in heads:
            rest = [site for site in circuit if site[:2] != head]
            lost = scored.score - float(scorer.scores([rest])[0])
            if lost < WORTH:
                return (
                    f"Without {unit} {scorer.label(head)} the circuit keeps {scored.score - lost:.2f} instead of "
                    f"{scored.score:.2f}: leave it out."
                )
        return None

    def figures(self, answer: Any) -> dict[str, Any]:
        """The score of an answer, what its members are worth, its rank or percentile, and the random twin's score."""
        return self._figures(self.scorer().check(list(answer)))

    def _figures(self, circuit: tuple[Site, ...]) -> dict[str, Any]:
        scorer = self.scorer()
        scored = circuit_score(scorer, circuit)
        place: dict[str, Any]
        if set(circuit) <= set(scorer.all_members):
            ranked = rank_among_sets(scorer, circuit)
            place = {"rank": ranked.rank, "of": ranked.of}
        else:
            size, percentile = self._among_random(circuit)
            place = {"percentile": percentile, "random_size": size}
        return {
            "members": [scorer.label(site) for site in circuit],
            "unit": scorer.unit if "rank" in place else "site",
            "score": scored.score,
            "lost": {scorer.label(site): loss for site, loss in scored.lost.items()},
            "twin": float(self.twin().scores([circuit])[0]),
            **place,
        }

    def praise(self, outputs: Sequence[Output]) -> str:
        """The score, its rank or percentile, what each member is worth, and the score of the random twin."""
        scorer = self.scorer()
        circuit = scorer.check(list(outputs[0].value))
        found = self._figures(circuit)
        if "rank" in found:
            place = f"rank {found['rank']} of the {found['of']} sets of {len(circuit)} {scorer.unit}s"
        else:
            place = f"{found['percentile']:.1f} % of 1,000 random circuits of {found['random_size']} sites keep less"
        lost = ", ".join(f"{label} {loss:.2f}" for label, loss in list(found["lost"].items())[:4])
        return (
            f"{self._names(circuit)} keeps {found['score']:.2f} of what the model can do, {place}. Lost by dropping a "
            f"member: {lost}. The same circuit in a random-weights twin: {round(found['twin'], 2) + 0.0:.2f}."
        )

    def _names(self, circuit: Sequence[Site]) -> str:
        if set(circuit) <= set(self.scorer().all_members):
            return ", ".join(map(self.scorer().label, circuit))
        return f"this circuit of {len(circuit)} sites"

    def _among_random(self, circuit: Sequence[Site]) -> tuple[int, float]:
        """How many percent of the stored random circuits keep less (mean ablation, the stored sequences), and their size.

        They have as many sites, or, where none of that size are stored, the next larger number.
        """
        stored, of_heads = load_evidence(self.weights()).circuits, self.scorer()
        if stored is None or not isinstance(of_heads, CircuitScorer):
            raise ValueError("no random circuits with positions are stored for this challenge")
        scorer = CircuitScorer(
            of_heads.model, stored.tokens, accuracy(self.task, stored.tokens), chance=self.task.CHANCE
        )
        circuit = [site for site in circuit if site in set(stored.sites)]  # the others cannot matter
        size = min((n for n in stored.sizes if n >= len(circuit)), default=len(circuit))
        theirs = stored.values(size)
        if theirs is None:
            return size, percentile_among_random(scorer, circuit, sites=stored.sites).percentile
        below = theirs < float(scorer.values([circuit])[0]) - STORED_TO
        return size, 100 * float(below.double().mean())


class SitesCheck(CircuitCheck):
    """Whether sites `(layer, head, position)` that a learner names do nearly all of the work.

    For models in which every head is needed somewhere: there a circuit of whole heads is the whole model, and is refused
    with `why_sites`. At most `most_sites` sites. With `why_silent`, sites that are not among the task's `SITES` are
    refused for that reason; without, they are accepted. `groups` says what is dropped to see what it is worth: the sites
    of a "head", each of which must be worth `WORTH` of the score, or those of a "layer", which is only told.
    """

    def __init__(
        self,
        exercise: str,
        title: str,
        core: bool,
        *,
        example: Sequence[Site],
        most_sites: int,
        why_sites: str,
        why_silent: str | None = None,
        groups: Literal["head", "layer"] = "head",
        **keywords: Any,
    ) -> None:
        self.example, self.most_sites = list(example), most_sites
        self.why_sites, self.why_silent, self.groups = why_sites, why_silent, groups
        super().__init__(exercise, title, core, most_heads=most_sites, **keywords)

    def _refuse(self, value: Any) -> str | None:
        if not isinstance(value, list | tuple | set | frozenset) or not value:
            return f"A circuit is a list of sites (layer, head, position), such as {self.example}; {value!r} came."
        try:
            sites = self.scorer().check(list(value))
        except (ValueError, TypeError) as error:
            return str(error)[:1].upper() + str(error)[1:] + "."
        if len(sites[0]) == 2:
            return self.why_sites
        silent = [site for site in sites if site not in self.task.SITES]
        if silent and self.why_silent:
            return f"Site {silent[0]} cannot matter: {self.why_silent} Leave it out."
        if len(sites) > self.most_sites:
            return (
                f"{len(sites)} sites are named; name at most {self.most_sites}. A circuit that is the whole model explains "
                "nothing."
            )
        score, losses = self._score_and_losses(sites)
        if score < self.needed:
            return (
                f"With everything else {self.scorer().removed}, this circuit of {len(sites)} sites keeps {score:.2f} of "
                f"what the model can do; {self.needed:.2f} is needed. Which site's work is missing?"
            )
        for head, loss in losses.items():
            if self.groups == "head" and loss < WORTH:
                return (
                    f"Without the sites of head {head} the circuit keeps {score - loss:.2f} instead of {score:.2f}: leave "
                    "them out."
                )
        return None

    def _score_and_losses(self, sites: Sequence[Site]) -> tuple[float, dict[str, float]]:
        """The score, and what it loses without the sites of each head, or of each layer."""
        of_group = [f"{site[0]}.{site[1]}" if self.groups == "head" else f"layer {site[0]}" for site in sites]
        names = sorted(set(of_group))
        rests = [[site for site, own in zip(sites, of_group, strict=True) if own != name] for name in names]
        score, *without = self.scorer().scores([sites, *rests]).tolist()
        return score, {name: score - rest for name, rest in zip(names, without, strict=True)}

    def praise(self, outputs: Sequence[Output]) -> str:
        """The score, its percentile, what the sites of each head or layer are worth, and the score of the random twin."""
        sites = self.scorer().check(list(outputs[0].value))
        score, losses = self._score_and_losses(sites)
        twin = float(self.twin().scores([sites])[0])
        lost = ", ".join(f"{name} {loss:.2f}" for name, loss in losses.items())
        size, percentile = self._among_random(sites)
        return (
            f"{len(sites)} of the {len(self.task.SITES)} sites that can matter keep {score:.2f} of what the model can "
            f"do; {percentile:.1f} % of 1,000 random circuits of {size} sites keep less (there: mean ablation). Lost "
            f"without the sites of a {self.groups}: {lost}. The same circuit in a random-weights twin: "
            f"{round(twin, 2) + 0.0:.2f}."
        )


class ExplanationCheck(Check):
    """Whether an explanation predicts what the model answers on hard inputs, right and wrong answers alike.

    The answer is a function from the model to `(simulate, numbers)`. `simulate` runs with no model in reach; see
    `evidence.run_simulation`. Its score on the pool that is stored with the model must reach `needed`, with no more than
    `most_numbers` numbers where that is given.
    """

    def __init__(
        self,
        exercise: str,
        title: str,
        core: bool,
        *,
        model: Fresh,
        evidence: Callable[[], Evidence],
        needed: float,
        most_numbers: int | None = None,
        reference: Callable[[Any], Any],
    ) -> None:
        self.evidence = functools.cache(evidence)
        self.needed, self.most_numbers = needed, most_numbers
        super().__init__(
            exercise,
            title,
            core,
            lambda: [Case(LESSON, arguments=(model,), requires=self._refuse)],
            reference=reference,
        )

    @property
    def pool(self) -> Pool:
        """The hard inputs."""
        return self.evidence().pool

    def _collect_case(self, case: Case, answer: Any) -> Output:
        if callable(answer):
            return super()._collect_case(case, self._predicting(answer))
        return super()._collect_case(case, answer)

    def _predicting(self, explain: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """From the model to what the explanation predicts, as plain data."""

        @functools.wraps(explain)
        def predict(model: Any) -> Any:
            explained = explain(model)
            if explained is None or explained is Ellipsis:
                return explained
            if not (isinstance(explained, tuple | list) and len(explained) == 2 and callable(explained[0])):
                raise TypeError("return two things, the function and its numbers: `return simulate, numbers`")
            simulate, numbers = explained
            answers, n_numbers = run_simulation(simulate, numbers, self.pool)
            order = torch.randperm(len(answers), generator=torch.Generator().manual_seed(0))
            mixed = dataclasses.replace(self.pool, tokens=self.pool.tokens[order])
            again, _ = run_simulation(simulate, numbers, mixed)
            changed = (again != answers[order]).reshape(len(order), -1).any(-1)
            if changed.double().mean() > MOST_FLOAT_NOISE:
                raise ValueError(
                    "`simulate` answers otherwise when the same sequences come in another order; what it says of a "
                    "sequence must follow from that sequence and the numbers alone"
                )
            return {"answers": answers, "n_numbers": n_numbers}

        return predict

    def score(self, value: Any) -> SimulationScore:
        """The score of predicted answers; see `evidence.score_answers`."""
        return score_answers(value["answers"], self.pool, value["n_numbers"])

    def _refuse(self, value: Any) -> str | None:
        if not (isinstance(value, dict) and set(value) == {"answers", "n_numbers"}):
            return "Return two things, the function and its numbers: `return simulate, numbers`."
        if self.most_numbers is not None and value["n_numbers"] > self.most_numbers:
            return (
                f"It uses {value['n_numbers']:,} numbers; at most {self.most_numbers:,} are allowed. All of the model "
                "explains nothing: which of its parts are not needed, or are nearly the same?"
            )
        score = self.score(value)
        if score.score >= self.needed:
            return None
        answers = value["answers"]
        if (answers == answers[:1]).all():
            advice = "It gives the same answer to every input."
        elif max(score.where_wrong, score.where_right) < 0.05:
            advice = "It hardly ever agrees. Are the answers whole numbers as the model gives them, in their order?"
        elif score.where_wrong < 0.05:
            advice = "It answers as the task demands, not as the model does: where does the model fail?"
        elif score.where_right < 0.05:
            advice = "It misses even where the model is right. Is the comparison turned round?"
        elif score.where_wrong > score.where_right:
            advice = "It predicts too many mistakes: what lets the model get the other ones right?"
        else:
            advice = "It predicts too few of the mistakes: which part of the mechanism is still missing?"
        return f"{self._agreement(score)} {self.needed:.2f} is needed. {advice}"

    def figures(self, answer: Any) -> dict[str, Any]:
        """The score of an answer, where the model is right and where it is wrong, and how many numbers it uses."""
        score = self.score(self.collect(answer)[0].value)
        return {
            "score": score.score,
            "where_right": score.where_right,
            "where_wrong": score.where_wrong,
            "perfect": score.perfect,
            "numbers": score.n_numbers,
        }

    def praise(self, outputs: Sequence[Output]) -> str:
        """The score beside the perfect algorithm's and its opposite's, and how many numbers were used."""
        score = self.score(outputs[0].value)
        return (
            f"{self._agreement(score)} The perfect algorithm scores {score.perfect:.2f}, its opposite "
            f"{score.opposite:.2f}. Your explanation uses {score.n_numbers:,} numbers."
        )

    def _agreement(self, score: SimulationScore) -> str:
        counted = "inputs" if self.pool.model_answers.ndim == 1 else "answers"
        return (
            f"Score {score.score:.2f}: it agrees with the model on {score.where_right:.0%} of the {counted} that the "
            f"model gets right and on {score.where_wrong:.0%} of those that it gets wrong."
        )
