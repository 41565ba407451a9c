"""Evidence: how well a named circuit does the work, a counterexample counts, an explanation predicts.

Three claims that a lesson ends with, each measured on the model instead of read by a person. Everything here
works for any challenge and any TransformerLens model of this course, grouped-query attention included, and
knows no challenge: what is valid, right and typical comes in as functions of the task.

**What is ablated.** A circuit is a set of heads ``(layer, head)``, or of sites ``(layer, head, position)``,
where the position is the one the head writes at (its query position). Everything outside the circuit is
ablated at ``hook_z``: the attention-weighted values of each *query* head, before ``W_O``. Its replacement
is

- ``"mean"``: that head's z at that position, averaged over the reference sequences, or
- ``"resample"``: that head's z at that position in *another* reference sequence: one for each input, the
  same for all ablated heads.

Both come from runs of the untouched model. Embeddings, all biases and the MLPs (of models that have any) stay
and are never part of a circuit; the MLPs, LayerNorms and later heads compute on what the ablation leaves.

**The score** is (ablated − chance) / (trained − chance) of a metric, usually accuracy: 1 for a circuit that
does all of the trained model's work, 0 for one at chance. It can leave [0, 1]. A random-weights twin is
scored with the *trained* model's denominator, or its own tiny one would make noise look like a circuit.

``transformer_lens.tools.analysis.faithfulness`` measures something else: edges instead of heads, one pair of
prompts at a time, recovery between a clean and a corrupted run, and no grouped-query attention. The forward
passes, hooks and contexts here are TransformerLens's.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from exercises_utils.evidence.sealed import Sealed

Site = tuple[Any, ...]
"""A head, as (layer, head), a head at one position, as (layer, head, position), or another kind of member of a
circuit that a `Scorer` knows."""

Circuit = Iterable[Any]
"""What a caller names as a circuit: heads, or sites. `CircuitScorer.check` says whether it is one."""

Metric = Callable[[Tensor], Any]
"""From logits (input, position, vocabulary) to one number, such as the accuracy."""

SEQUENCES_A_PASS = 1024
"""How many sequences go through the model at once: measured fastest for the small models on a CPU."""

MOST_SETS = 2000
"""How many sets are ranked at most: some seconds."""

LARGEST_WHOLE_NUMBER = 2**24
"""Whole numbers in an explanation stay below this, as in a float, so that none packs several others."""

SAME = 1e-9
"""Two scores closer than this are a tie."""


# ------------------------------------------------------------------------------------------------ circuits


@dataclass(frozen=True)
class CircuitScore:
    """What one circuit does with everything else ablated."""

    circuit: tuple[Site, ...]
    score: float  # (value - chance) / (trained - chance)
    value: float  # the metric of the ablated model
    empty: float  # the score when everything is ablated
    lost: Mapping[Site, float]  # what the score loses when this member is ablated as well
    trained: float
    chance: float

    @property
    def minimal(self) -> bool:
        """Whether every member is needed: dropping any of them lowers the score."""
        return all(loss > SAME for loss in self.lost.values())


@dataclass(frozen=True)
class CircuitRank:
    """Where a circuit stands among all sets of as many members. Rank 1 is the best."""

    score: float
    rank: int  # 1 + the number of sets that score strictly more: tied sets share the better rank
    ties: int  # how many other sets score the same
    sets: tuple[tuple[Site, ...], ...]
    scores: tuple[float, ...]  # of each of the sets

    @property
    def of(self) -> int:
        """How many sets there are."""
        return len(self.sets)


@dataclass(frozen=True)
class CircuitPercentile:
    """Where a circuit with positions stands among random circuits of as many sites."""

    score: float
    percentile: float  # percent of the random circuits that score strictly less (a tie is not less)
    scores: tuple[float, ...]  # of each random circuit


class Scorer(ABC):
    """Scores circuits: sets of members of one kind, such as heads or terms of the attention scores.

    `unit`, `example` and `removed` say in messages what a member is called, how a circuit is written, and what
    becomes of everything outside it.
    """

    unit: str
    example: str
    removed: str
    chance: int | float
    trained: int | float

    @property
    @abstractmethod
    def all_members(self) -> Sequence[Site]:
        """Every member that a circuit can have, in the order in which `check` sorts them."""

    @abstractmethod
    def check(self, circuit: Circuit) -> tuple[Site, ...]:
        """The circuit as sorted tuples. Raises ValueError for what is none of this model."""

    @abstractmethod
    def values(self, circuits: Sequence[Circuit]) -> Float[Tensor, " circuit"]:
        """The metric of the model with everything outside each circuit ablated."""

    def label(self, member: Site) -> str:
        """A member as it is named in messages."""
        return ".".join(map(str, member))

    def scores(self, circuits: Sequence[Circuit]) -> Float[Tensor, " circuit"]:
        """(ablated − chance) / (trained − chance) for each circuit."""
        return self.scores_of(self.values(circuits))

    def scores_of(self, values: Float[Tensor, " circuit"]) -> Float[Tensor, " circuit"]:
        """The scores that belong to these values of the metric."""
        return (values - self.chance) / (self.trained - self.chance)

    def _above_chance(self, trained: int | float) -> int | float:
        """The trained model's metric, where a score can be made of it."""
        if not trained > self.chance:
            raise ValueError(
                f"the trained model's metric is {trained:.4f} and chance is {self.chance:.4f}; a score "
                "needs it above chance. For a random-weights twin pass `trained=`, the trained model's "
                "metric."
            )
        return trained


class CircuitScorer(Scorer):
    """Scores circuits of heads, or of sites, of one model on one set of sequences. The convention is above.

    It runs the untouched model once, for the replacements, and keeps them, so that scoring a circuit is one
    forward pass over ``tokens``. The model is left as it was.

    Args:
        model: a TransformerLens model in evaluation mode.
        tokens: the sequences that the metric is measured on.
        metric: from the logits for ``tokens`` to a number, such as the share of right answers.
        chance: the metric's value for knowing nothing, such as the share of the most frequent answer.
        trained: the trained model's metric; this model's own by default. For a random-weights twin pass the
            trained model's (``CircuitScorer.trained`` of that one).
        ablation: ``"mean"`` or ``"resample"``.
        reference: the sequences that replacements come from; ``tokens`` by default.
        seed: for the draw of the other sequences in ``"resample"``.

    Raises:
        ValueError: a model in training mode, an unknown ablation, reference sequences of another length,
            fewer than two of them, or a trained metric not above chance.
    """

    unit, example = "head", "[(0, 1), (1, 0)]"

    def __init__(
        self,
        model: Any,
        tokens: Int[Tensor, "input position"],
        metric: Metric,
        *,
        chance: int | float,
        trained: int | float | None = None,
        ablation: str = "mean",
        reference: Int[Tensor, "reference _"] | None = None,
        seed: int = 0,
    ) -> None:
        if ablation not in ("mean", "resample"):
            raise ValueError(f'`ablation` is {ablation!r}; expected "mean" or "resample"')
        if model.training:
            raise ValueError("the model is in training mode; call `model.eval()` first")
        reference = tokens if reference is None else reference
        if reference.shape[1] != tokens.shape[1] or len(reference) < 2:
            raise ValueError(
                f"`reference` has shape {tuple(reference.shape)}; expected (reference, {tokens.shape[1]}) "
                "with two or more sequences, because replacements are taken position by position"
            )
        self.model = model
        self.metric = metric
        self.chance = chance
        self.removed = {"mean": "mean-ablated", "resample": "resampled"}[ablation]
        self.n_layers, self.n_heads, self.n_positions = model.cfg.n_layers, model.cfg.n_heads, tokens.shape[1]
        self.tokens = tokens.to(model.W_E.device)
        self._replacements = self._z_of(reference.to(self.tokens.device))
        if ablation == "mean":
            self._replacements = [z.mean(0, keepdim=True) for z in self._replacements]
        else:
            others = _another_one_each(len(self.tokens), len(reference), seed).to(self.tokens.device)
            self._replacements = [z[others] for z in self._replacements]
        own = float(self.values([self.all_heads])[0])
        self.trained = self._above_chance(own if trained is None else trained)

    @property
    def all_members(self) -> list[Site]:
        """Every head: what sets of heads are ranked among."""
        return self.all_heads

    @property
    def all_heads(self) -> list[Site]:
        """Every head of the model, as (layer, head)."""
        return [(layer, head) for layer in range(self.n_layers) for head in range(self.n_heads)]

    @property
    def all_sites(self) -> list[Site]:
        """Every head at every position, as (layer, head, position)."""
        return [(*head, position) for head in self.all_heads for position in range(self.n_positions)]

    def values(self, circuits: Sequence[Circuit]) -> Float[Tensor, " circuit"]:
        """The metric of the model with everything outside each circuit ablated, several circuits a pass."""
        kept = torch.stack([self._mask(circuit) for circuit in circuits])
        n_inputs = len(self.tokens)
        at_once = max(1, SEQUENCES_A_PASS // n_inputs)
        values = []
        for some in kept.split(at_once):
            names = {f"blocks.{layer}.attn.hook_z": layer for layer in range(self.n_layers)}
            hooks = [(name, self._ablation_hook(layer, some[:, layer])) for name, layer in names.items()]
            with torch.no_grad(), self.model.hooks(fwd_hooks=hooks):
                logits = self.model(repeat(self.tokens, "input position -> (n input) position", n=len(some)))
            logits = rearrange(logits, "(n input) ... -> n input ...", n=len(some))
            values += [float(self.metric(of_one_circuit)) for of_one_circuit in logits]
        return torch.tensor(values, dtype=torch.float64)

    def _z_of(
        self, tokens: Int[Tensor, "reference position"]
    ) -> list[Float[Tensor, "reference position head d_head"]]:
        names = [f"blocks.{layer}.attn.hook_z" for layer in range(self.n_layers)]
        with torch.no_grad():
            _, cache = self.model.run_with_cache(tokens, names_filter=names)
        return [cache[name].clone() for name in names]

    def _ablation_hook(
        self, layer: int, kept: Bool[Tensor, "circuit head position"]
    ) -> Callable[..., Tensor]:
        keep = rearrange(kept, "circuit head position -> circuit 1 position head 1").to(self.tokens.device)
        instead = self._replacements[layer]

        def hook_fn(z: Float[Tensor, "sequence position head d_head"], hook: Any) -> Tensor:
            by_circuit = rearrange(z, "(circuit input) ... -> circuit input ...", circuit=len(kept))
            return rearrange(
                torch.where(keep, by_circuit, instead), "circuit input ... -> (circuit input) ..."
            )

        return hook_fn

    def _mask(self, circuit: Circuit) -> Bool[Tensor, "layer head position"]:
        mask = torch.zeros(self.n_layers, self.n_heads, self.n_positions, dtype=torch.bool)
        for site in self.check(circuit):
            mask[site] = True
        return mask

    def check(self, circuit: Circuit) -> tuple[Site, ...]:
        """The circuit as sorted tuples of plain ints.

        Raises:
            ValueError: a member that is neither a head nor a site of this model, both kinds mixed, or named
                twice.
        """
        sizes = {"layer": self.n_layers, "head": self.n_heads, "position": self.n_positions}
        sites: list[Site] = []
        for member in circuit:
            try:
                site = tuple(index.__index__() for index in member)
            except (AttributeError, TypeError):
                site = ()
            if len(site) not in (2, 3):
                raise ValueError(
                    "a circuit's members are heads (layer, head) or sites (layer, head, position); got "
                    f"{member!r}"
                )
            for (name, size), index in zip(sizes.items(), site, strict=False):
                if not 0 <= index < size:
                    raise ValueError(f"{site} names {name} {index}; this model has {name}s 0 to {size - 1}")
            if sites and len(site) != len(sites[0]):
                raise ValueError(f"the circuit mixes heads and sites: {sites[0]} and {site}; use one kind")
            if site in sites:
                raise ValueError(f"the circuit names {site} twice")
            sites.append(site)
        return tuple(sorted(sites))


def _another_one_each(n_inputs: int, n_reference: int, seed: int) -> Int[Tensor, " input"]:
    """For each input the index of a reference sequence: never its own, where the reference is the inputs."""
    order = torch.randperm(n_reference, generator=torch.Generator().manual_seed(seed))
    following = torch.empty_like(order)
    following[order] = order.roll(1)
    return following[torch.arange(n_inputs) % n_reference]


def circuit_score(scorer: Scorer, circuit: Circuit) -> CircuitScore:
    """The score of one circuit, and what it loses when each of its members is ablated as well.

    A member whose loss is 0 does nothing that the others do not also do. Two members that can stand in for
    each other both lose 0, although dropping *both* would hurt: the test of minimality takes one at a time.

    >>> circuit_score(scorer, [(0, 1), (1, 0)]).score      # doctest: +SKIP
    """
    circuit = scorer.check(circuit)
    without = [tuple(site for site in circuit if site != member) for member in circuit]
    values = scorer.values([circuit, (), *without])
    scores = scorer.scores_of(values).tolist()
    return CircuitScore(
        circuit=circuit,
        score=scores[0],
        value=float(values[0]),
        empty=scores[1],
        lost={member: scores[0] - score for member, score in zip(circuit, scores[2:], strict=True)},
        trained=scorer.trained,
        chance=scorer.chance,
    )


def rank_among_sets(scorer: Scorer, circuit: Circuit) -> CircuitRank:
    """The rank of a circuit among *all* sets of as many members, each scored on the same sequences.

    Raises:
        ValueError: sites with positions (see `percentile_among_random`), no member at all, or more than
            `MOST_SETS` sets to score.
    """
    circuit, everything, units = scorer.check(circuit), scorer.all_members, f"{scorer.unit}s"
    if not circuit or not set(circuit) <= set(everything):
        raise ValueError(
            f"expected one or more {units}, such as {scorer.example}; circuits with positions go among random ones"
        )
    count = math.comb(len(everything), len(circuit))
    if count > MOST_SETS:
        raise ValueError(
            f"there are {count:,} sets of {len(circuit)} {units} of {len(everything)}; at most "
            f"{MOST_SETS:,} are scored. Name fewer {units}."
        )
    sets = tuple(combinations(everything, len(circuit)))
    scores = tuple(scorer.scores(sets).tolist())
    own = scores[sets.index(circuit)]
    return CircuitRank(
        score=own,
        rank=1 + sum(score > own + SAME for score in scores),
        ties=sum(abs(score - own) <= SAME for score in scores) - 1,
        sets=sets,
        scores=scores,
    )


def random_circuits(
    sites: Sequence[Site], size: int, count: int = 1000, seed: int = 0
) -> list[tuple[Site, ...]]:
    """``count`` circuits of ``size`` different sites each, the same for the same seed.

    Circuit i of one size contains circuit i of every smaller size, so a table over all sizes is a set of
    paths.
    """
    if not 1 <= size <= len(sites):
        raise ValueError(f"`size` is {size}; there are {len(sites)} sites to draw from")
    draws = torch.rand(count, len(sites), generator=torch.Generator().manual_seed(seed))
    return [tuple(sites[index] for index in order[:size]) for order in draws.argsort(-1).tolist()]


def percentile_among_random(
    scorer: CircuitScorer,
    circuit: Circuit,
    *,
    sites: Sequence[Site] | None = None,
    values: Float[Tensor, " random"] | None = None,
    count: int = 1000,
    seed: int = 0,
) -> CircuitPercentile:
    """The percentile of a circuit with positions among random circuits of as many sites.

    Args:
        scorer: the model and the sequences.
        circuit: sites (layer, head, position).
        sites: what random circuits draw from; every site by default. Leave out sites that cannot matter
            (the last layer at positions whose logits nobody reads), or the random circuits are weaker than
            they look.
        values: `CircuitScorer.values` of the random circuits where they are known already (they are the
            same for everyone); else they are computed here, which takes seconds.
        count: how many random circuits.
        seed: of the draw.

    Raises:
        ValueError: heads without positions, or sites that random circuits could not contain.
    """
    circuit = scorer.check(circuit)
    sites = scorer.all_sites if sites is None else [*scorer.check(sites)]
    if not circuit or len(circuit[0]) != 3:
        raise ValueError(
            "expected one or more sites (layer, head, position); sets of heads are ranked among all sets"
        )
    strangers = [site for site in circuit if site not in set(sites)]
    if strangers:
        raise ValueError(
            f"{strangers[0]} is not among the {len(sites)} sites that random circuits are drawn from: it "
            "cannot change what the metric reads"
        )
    if values is None:
        values = scorer.values(random_circuits(sites, len(circuit), count, seed))
    scores = scorer.scores_of(values.double())
    own = float(scorer.scores([circuit])[0])
    below = (scores < own - SAME).double().mean()
    return CircuitPercentile(score=own, percentile=100 * float(below), scores=tuple(scores.tolist()))


# ------------------------------------------------------------------------------------------ counterexamples


@dataclass(frozen=True, eq=False)
class CounterexampleScore:
    """What became of each input that was submitted as a counterexample.

    ``margins`` is the logit of the best wrong answer minus that of the right one, in logits: above 0 the
    model is wrong, and the larger, the surer of its mistake. It is NaN where ``reasons`` says why an input
    does not count.
    """

    margins: Float[Tensor, " input"]
    reasons: tuple[str | None, ...]
    typical: Bool[Tensor, " input"]  # in-distribution, by the task's own definition

    @property
    def wrong(self) -> Bool[Tensor, " input"]:
        """Which inputs count: valid, no repeat, and the model is wrong."""
        return self.margins > 0

    def count(self, typical: bool | None = None) -> int:
        """How many inputs count; only those in (True) or out of (False) distribution where asked."""
        return int((self.wrong if typical is None else self.wrong & (self.typical == typical)).sum())

    @property
    def rate(self) -> float:
        """The share of the *submitted* inputs that count, so that invalid ones and repeats are misses."""
        return self.count() / len(self.margins)

    def mean_margin(self, typical: bool | None = None) -> float:
        """The mean margin of the valid inputs, where the model is right included; NaN if there are none.

        Only of those in (True) or out of (False) distribution where asked.
        """
        valid = ~self.margins.isnan()
        return float(self.margins[valid if typical is None else valid & (self.typical == typical)].mean())


def score_counterexamples(
    model: Any,
    inputs: Any,
    *,
    why_invalid: Callable[[Tensor], str | None],
    in_distribution: Callable[[Tensor], Tensor],
    margin: Callable[[Tensor, Tensor], Tensor],
) -> CounterexampleScore:
    """How many of the inputs fool the model, by how much, and why the others do not count.

    Args:
        model: a TransformerLens model in evaluation mode.
        inputs: token ids, (input, position), as a tensor or as lists.
        why_invalid: the reason why one sequence (position) is not a valid input of the task, or None.
        in_distribution: from valid sequences (input, position) to a boolean each.
        margin: from logits and valid sequences to the logit of the best wrong answer minus the right one's,
            each.

    Raises:
        ValueError: ``inputs`` as a whole is not a table of whole numbers. (Single bad rows get a reason
            instead.)
    """
    tokens = _as_tokens(inputs)
    reasons: list[str | None] = []
    first_seen: dict[tuple[int, ...], int] = {}
    for index, row in enumerate(tokens):
        reason = why_invalid(row)
        first = first_seen.setdefault(tuple(row.tolist()), index)
        if reason is None and first != index:
            reason = f"repeats input {first}"
        reasons.append(reason)
    valid = torch.tensor([reason is None for reason in reasons])
    margins = torch.full((len(tokens),), math.nan)
    typical = torch.zeros(len(tokens), dtype=torch.bool)
    if valid.any():
        margins[valid] = _margins(model, tokens[valid], margin)
        typical[valid] = in_distribution(tokens[valid]).cpu()
    return CounterexampleScore(margins=margins, reasons=tuple(reasons), typical=typical)


def random_search(
    model: Any,
    sample: Callable[[int, torch.Generator], Tensor],
    *,
    margin: Callable[[Tensor, Tensor], Tensor],
    budget: int,
    seed: int = 0,
) -> Float[Tensor, " input"]:
    """The margins of ``budget`` inputs drawn at random: what counterexamples from the mechanism must beat.

    Args:
        model: a TransformerLens model in evaluation mode.
        sample: from a number and a generator to as many valid inputs of the task.
        margin: as in `score_counterexamples`.
        budget: how many inputs the search may try.
        seed: of the draws.
    """
    return _margins(model, sample(budget, torch.Generator().manual_seed(seed)), margin)


def advantage(found: CounterexampleScore, random_margins: Float[Tensor, " input"]) -> float:
    """How many times as often the submitted inputs count as random ones: infinite where no random one does.

    NaN where neither does.
    """
    random_rate = float((random_margins > 0).double().mean())
    if random_rate == 0:
        return math.inf if found.rate else math.nan
    return found.rate / random_rate


def _margins(
    model: Any, tokens: Tensor, margin: Callable[[Tensor, Tensor], Tensor]
) -> Float[Tensor, " input"]:
    device = model.W_E.device
    parts = []
    with torch.no_grad():
        for some in tokens.split(SEQUENCES_A_PASS):
            parts.append(margin(model(some.to(device)), some.to(device)).float().cpu())
    return torch.cat(parts)


def _as_tokens(inputs: Any) -> Int[Tensor, "input position"]:
    try:
        tokens = torch.as_tensor(inputs).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"`inputs` could not be read as a table of token ids (input, position): {error}. Are all rows "
            "of one length?"
        ) from None
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise ValueError(f"`inputs` holds {tokens.dtype}; expected whole numbers, such as torch.long")
    if tokens.ndim != 2 or 0 in tokens.shape:
        raise ValueError(
            f"`inputs` has shape {tuple(tokens.shape)}; expected (input, position), with one input or more"
        )
    return tokens.long()


# ----------------------------------------------------------------------------------------------- simulation


@dataclass(frozen=True, eq=False)
class Pool:
    """Inputs on which an explanation is put to the test, with what the model answers and what is right.

    ``right_answers`` and ``model_answers`` have one number an input, or one for each of its answer positions.
    Answers are numbers from 0 to ``n_answers`` − 1. ``kinds`` says for each input which of ``kind_names``
    it is.
    """

    tokens: Int[Tensor, "input position"]
    right_answers: Int[Tensor, "input ..."]
    model_answers: Int[Tensor, "input ..."]
    kinds: Int[Tensor, " input"]
    kind_names: tuple[str, ...]
    n_answers: int
    how: str  # how these inputs were found, for the reader

    @property
    def model_is_right(self) -> Bool[Tensor, "input ..."]:
        """Where the model gives the right answer."""
        return self.model_answers == self.right_answers


@dataclass(frozen=True, eq=False)
class SimulationScore:
    """How well an explanation predicts the model, beside two that do not need one."""

    score: float  # the mean of the two agreements
    where_right: float  # share of the answers predicted, where the model is right
    where_wrong: float  # … and where it is wrong
    n_numbers: int  # how many the explanation uses: those in `numbers`, and the floats in its code
    perfect: float  # the score of always giving the right answer
    opposite: float  # the score of never giving it (the right answer + 1, cyclically)
    confusion: Int[Tensor, "kind model_right agrees"]  # counts of answers, index 0 for no and 1 for yes
    kind_names: tuple[str, ...]

    @property
    def agreement(self) -> Float[Tensor, "kind model_right"]:
        """The share of answers predicted, by kind of input: where the model is wrong, where it is right."""
        return self.confusion[..., 1] / self.confusion.sum(-1)


def simulation_score(simulate: Any, numbers: Mapping[Any, Any], pool: Pool) -> SimulationScore:
    """How well ``simulate(inputs, numbers)`` predicts the model's answers on the pool.

    The score is the mean of two agreements: where the model is right, and where it is wrong. The perfect
    algorithm predicts the first and misses the second, its opposite the other way round: both score about one
    half (exactly that where there are two answers). Only knowing how the model works scores more.

    `run_simulation`, then `score_answers`: see the first for what ``simulate`` may do and what it raises.
    """
    answers, n_numbers = run_simulation(simulate, numbers, pool)
    return score_answers(answers, pool, n_numbers)


def run_simulation(
    simulate: Any, numbers: Mapping[Any, Any], pool: Pool
) -> tuple[Int[Tensor, "input ..."], int]:
    """What ``simulate(inputs, numbers)`` answers on the pool with no model in reach, and how many numbers it uses.

    It runs sealed (`exercises_utils.evidence.sealed`): it gets copies of the inputs and of the numbers, and nothing
    else. Counted are the numbers in ``numbers``, and the floats that stand in its code.

    Args:
        simulate: from inputs (input, position) and the numbers to an answer for each input, or for each
            answer position: whole numbers or booleans, in the shape of ``pool.model_answers``.
        numbers: tensors and plain numbers read from the weights, by name.
        pool: the inputs.

    Raises:
        SealError: ``simulate`` reaches for something other than its arguments.
        ValueError, TypeError: ``numbers`` holds other things than tensors and numbers; the answers have the
            wrong shape or type; ``simulate`` changed its arguments.
    """
    plain = {name: _as_number(name, value) for name, value in numbers.items()}
    inputs, given = pool.tokens.clone(), {name: tensor.clone() for name, tensor in plain.items()}
    explanation = Sealed(simulate)
    with torch.no_grad():
        answers = _as_answers(explanation(inputs, given), pool)
    if not torch.equal(inputs, pool.tokens):
        raise ValueError("`simulate` changed its inputs in place; work on a copy: `inputs = inputs.clone()`")
    for name, tensor in plain.items():
        if name not in given or not torch.equal(given[name], tensor):
            raise ValueError(f"`simulate` changed `numbers[{name!r}]` in place; work on a copy")
    return answers, sum(tensor.numel() for tensor in plain.values()) + explanation.n_floats


def score_answers(
    answers: Int[Tensor, "input ..."] | Bool[Tensor, "input ..."], pool: Pool, n_numbers: int = 0
) -> SimulationScore:
    """The score of answers that somebody predicted for the pool: `simulation_score` without running anything."""
    answers, right = answers.cpu(), pool.model_is_right
    agrees = answers == pool.model_answers
    kinds = torch.broadcast_to(pool.kinds.reshape(-1, *[1] * (right.ndim - 1)), right.shape)
    cells = (kinds * 2 + right.long()) * 2 + agrees.long()
    counts = torch.bincount(cells.flatten(), minlength=4 * len(pool.kind_names))
    where_right, where_wrong, score = _agreement(answers, pool)
    return SimulationScore(
        score=score,
        where_right=where_right,
        where_wrong=where_wrong,
        n_numbers=n_numbers,
        perfect=_agreement(pool.right_answers, pool)[2],
        opposite=_agreement((pool.right_answers + 1) % pool.n_answers, pool)[2],
        confusion=rearrange(counts, "(kind right agrees) -> kind right agrees", right=2, agrees=2),
        kind_names=pool.kind_names,
    )


def _agreement(answers: Tensor, pool: Pool) -> tuple[float, float, float]:
    """The agreement where the model is right, where it is wrong, and their mean."""
    agrees, right = (answers == pool.model_answers).double(), pool.model_is_right
    where_right, where_wrong = float(agrees[right].mean()), float(agrees[~right].mean())
    return where_right, where_wrong, (where_right + where_wrong) / 2


def _as_number(name: Any, value: Any) -> Tensor:
    if not isinstance(name, str):
        raise TypeError(f"`numbers` has the key {name!r}; expected names, such as 'token_circuit'")
    if isinstance(value, bool | int | float):
        value = torch.tensor(value)
    if isinstance(value, Tensor):
        whole = not value.is_floating_point() and not value.is_complex()
        if (
            whole
            and (
                value.long().clamp(-LARGEST_WHOLE_NUMBER, LARGEST_WHOLE_NUMBER).abs() == LARGEST_WHOLE_NUMBER
            ).any()
        ):
            raise ValueError(
                f"`numbers[{name!r}]` holds whole numbers of {LARGEST_WHOLE_NUMBER:,} or more; smaller ones count as one "
                "number each, and these could hold several"
            )
        return value.detach().cpu().clone()
    raise TypeError(
        f"`numbers[{name!r}]` is a {type(value).__name__}; expected a tensor or a number read from the "
        "weights, so that the check can count it"
    )


def _as_answers(answers: Any, pool: Pool) -> Tensor:
    expected = tuple(pool.model_answers.shape)
    if not isinstance(answers, Tensor):
        raise TypeError(
            f"`simulate` returned {'nothing' if answers is None else 'a ' + type(answers).__name__}; "
            f"expected a tensor of answers of shape {expected}"
        )
    answers = answers.cpu()
    if tuple(answers.shape) != expected:
        each = "an answer for each input" + (" and answer position" if len(expected) > 1 else "")
        raise ValueError(f"`simulate` returned shape {tuple(answers.shape)}; expected {expected}: {each}")
    if answers.is_floating_point() or answers.is_complex():
        raise TypeError(
            f"`simulate` returned {answers.dtype}; expected answers, as whole numbers or booleans, not "
            "logits or probabilities. Is a threshold or an argmax missing?"
        )
    return answers.long()
