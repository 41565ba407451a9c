"""Circuits are scored on models whose circuit is known by construction; counterexamples and simulations on tasks
small enough to know every answer."""

import dataclasses
import math
from itertools import combinations

import pytest
import torch
from jaxtyping import TypeCheckError
from transformer_lens.model_bridge import TransformerBridge
from transformers import Qwen2Config, Qwen2ForCausalLM

from exercises_utils.checking.isolation import model_state
from exercises_utils.evidence import scores as evidence
from exercises_utils.evidence.scores import (
    CircuitScorer,
    CounterexampleScore,
    Pool,
    Scorer,
    advantage,
    circuit_score,
    percentile_among_random,
    random_circuits,
    random_search,
    rank_among_sets,
    score_counterexamples,
    simulation_score,
)
from exercises_utils.evidence.sealed import SealError
from exercises_utils.models.native import build_model
from exercises_utils.tools.hooks import ablate
from tests import hand_made

EXACT = {"rel": 0, "abs": 1e-12}


def scorer_of(made: hand_made.HandMade, **settings) -> CircuitScorer:
    return CircuitScorer(made.model, made.tokens, made.accuracy, chance=made.chance, **settings)


@pytest.fixture(scope="module", params=hand_made.ALL, ids=lambda name: name.replace(" ", "_"))
def made(request: pytest.FixtureRequest) -> hand_made.HandMade:
    return hand_made.ALL[request.param]()


# ------------------------------------------------------------------------- circuits known by construction


BEST = {"a head that spoils": 1.5}
"""The right circuit scores 1, except where the model is worse than its circuit: 0.75 against 1."""


@pytest.mark.parametrize("name", hand_made.ALL)
def test_the_right_circuit_scores_one_and_its_complement_nothing(name: str) -> None:
    made = hand_made.ALL[name]()
    scorer = scorer_of(made)
    complement = [head for head in scorer.all_heads if head not in made.circuit]
    assert circuit_score(scorer, made.circuit).score == pytest.approx(BEST.get(name, 1.0), **EXACT)
    assert circuit_score(scorer, complement).score == pytest.approx(0.0, **EXACT)
    assert circuit_score(scorer, []).score == pytest.approx(0.0, **EXACT)


@pytest.mark.parametrize("name", [name for name in hand_made.ALL if name not in BEST])
def test_the_same_with_resampling(name: str) -> None:
    made = hand_made.ALL[name]()
    scorer = scorer_of(made, ablation="resample")
    complement = [head for head in scorer.all_heads if head not in made.circuit]
    assert circuit_score(scorer, made.circuit).score == pytest.approx(1.0, **EXACT)
    assert abs(circuit_score(scorer, complement).score) < 0.25  # another input's answer may be the same


@pytest.mark.parametrize("name", hand_made.ALL)
def test_a_decoy_does_not_help(name: str) -> None:
    made = hand_made.ALL[name]()
    scorer = scorer_of(made)
    decoys = [head for head in scorer.all_heads if head not in made.circuit]
    if name == "a head that spoils":
        decoys = []
    for kept in (
        members for size in range(len(made.circuit) + 1) for members in combinations(made.circuit, size)
    ):
        alone = circuit_score(scorer, kept).score
        for decoy in decoys:
            assert circuit_score(scorer, [*kept, decoy]).score == pytest.approx(alone, **EXACT)


@pytest.mark.parametrize("name", hand_made.ALL)
def test_the_right_sites_are_enough_and_where_they_are_matters(name: str) -> None:
    made = hand_made.ALL[name]()
    scorer = scorer_of(made)
    assert circuit_score(scorer, made.sites).score == pytest.approx(BEST.get(name, 1.0), **EXACT)
    elsewhere = [site for site in scorer.all_sites if site not in made.sites and site[:2] in made.circuit]
    assert circuit_score(scorer, elsewhere).score == pytest.approx(0.0, **EXACT)


def test_scores_between_are_what_construction_says() -> None:
    # Head 0 knows the values 0 and 1. Of the others it sees the mean, where 2 and 3 are equally likely and likelier
    # than 0 and 1, so one of them is always answered: right in 3 of 4 cases, (3/4 - 1/4) / (1 - 1/4).
    scorer = scorer_of(hand_made.split_values())
    for head in ((0, 0), (0, 1)):
        assert circuit_score(scorer, [head]).score == pytest.approx(2 / 3, **EXACT)
    assert circuit_score(scorer, [(0, 2)]).score == pytest.approx(0.0, **EXACT)


def test_minimality() -> None:
    both_needed = circuit_score(scorer_of(hand_made.equal_pair()), [(1, 0), (0, 1)])
    assert both_needed.lost == pytest.approx({(0, 1): 1.0, (1, 0): 1.0}, **EXACT)
    assert both_needed.minimal
    with_decoy = circuit_score(scorer_of(hand_made.equal_pair()), [(0, 0), (0, 1), (1, 0)])
    assert with_decoy.lost == pytest.approx({(0, 0): 0.0, (0, 1): 1.0, (1, 0): 1.0}, **EXACT)
    assert not with_decoy.minimal


def test_each_of_a_redundant_pair_can_be_dropped_but_not_both() -> None:
    scorer = scorer_of(hand_made.redundant_pair())
    pair = circuit_score(scorer, [(0, 0), (0, 2)])
    assert pair.lost == pytest.approx({(0, 0): 0.0, (0, 2): 0.0}, **EXACT)
    assert not pair.minimal
    assert circuit_score(scorer, [(0, 1)]).score == pytest.approx(0.0, **EXACT)


@pytest.mark.parametrize(
    ("name", "rank", "ties", "of"),
    [
        ("one head, three decoys", 1, 0, 4),
        ("redundant pair", 1, 2, 3),  # each of the two with the idle head does as well
        ("values split between two", 1, 0, 3),
        ("a head that spoils", 1, 0, 2),
        ("two layers, both needed", 1, 0, 6),
    ],
)
def test_rank_of_the_right_circuit(name: str, rank: int, ties: int, of: int) -> None:
    made = hand_made.ALL[name]()
    result = rank_among_sets(scorer_of(made), made.circuit)
    assert (result.rank, result.ties, result.of) == (rank, ties, of)
    assert dict(zip(result.sets, result.scores, strict=True))[made.circuit] == result.score


def test_tied_sets_share_the_better_rank() -> None:
    scorer = scorer_of(hand_made.one_head())
    decoys = [rank_among_sets(scorer, [(0, head)]) for head in (0, 2, 3)]
    assert [(result.rank, result.ties) for result in decoys] == [(2, 2)] * 3


class LetterScorer(Scorer):
    """Members that are neither heads nor sites: letters, of which each is worth its place in the alphabet."""

    unit, example, removed = "letter", '[("a",)]', "left out"
    chance, trained = 0.0, 6.0

    @property
    def all_members(self) -> list[tuple[str]]:
        return [("a",), ("b",), ("c",)]

    def check(self, circuit) -> tuple[tuple[str], ...]:
        return tuple(sorted(tuple(member) for member in circuit))

    def values(self, circuits) -> torch.Tensor:
        return torch.tensor([sum(ord(letter) - 96.0 for (letter,) in circuit) for circuit in circuits])


def test_circuits_of_other_members_are_scored_and_ranked_alike() -> None:
    scorer = LetterScorer()
    scored = circuit_score(scorer, [("c",), ("a",)])
    assert (scored.circuit, scored.value, scored.empty) == ((("a",), ("c",)), 4.0, 0.0)
    assert scored.score == pytest.approx(4 / 6)
    assert scored.lost == pytest.approx({("a",): 1 / 6, ("c",): 3 / 6})
    ranked = rank_among_sets(scorer, [("c",), ("a",)])
    assert (ranked.rank, ranked.ties, ranked.of) == (2, 0, 3)
    with pytest.raises(ValueError, match=r'expected one or more letters, such as \[\("a",\)\]'):
        rank_among_sets(scorer, [("z",)])
    assert scorer.label(("a",)) == "a"


# --------------------------------------------------------------------------------- what holds of any model


def test_all_heads_score_one_and_the_scorer_measured_the_model_itself(made: hand_made.HandMade) -> None:
    scorer = scorer_of(made)
    assert scorer.trained == made.accuracy(made.model(made.tokens))
    assert circuit_score(scorer, scorer.all_heads).score == pytest.approx(1.0, **EXACT)
    assert circuit_score(scorer, scorer.all_sites).score == pytest.approx(1.0, **EXACT)
    assert circuit_score(scorer, []).score == circuit_score(scorer, scorer.all_heads).empty


def random_case(n_layers: int = 2, n_heads: int = 3):
    """A random model with LayerNorm and biases, its tokens, and a metric that is not an accuracy."""
    weights = hand_made.Weights(n_layers, n_heads, n_positions=3, n_answers=4)
    config = type(weights.config)(
        **{**dataclasses.asdict(weights.config), "normalization": "LN", "attention_biases": True}
    )
    model = build_model(config, seed=3, device="cpu")
    tokens = torch.randint(0, 5, (40, 3), generator=torch.Generator().manual_seed(0))
    target = model(tokens)[:, -1].argmax(-1)

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, -1].log_softmax(-1).gather(-1, target[:, None]).mean()

    return model, tokens, metric


def test_agrees_with_ablating_through_other_hooks() -> None:
    model, tokens, metric = random_case()
    scorer = CircuitScorer(model, tokens, metric, chance=-10.0, ablation="mean")
    outside = [(0, 2), (1, 0)]
    with torch.no_grad(), ablate(model, outside, activation="z", how="mean", reference=tokens):
        expected = metric(model(tokens))
    kept = [head for head in scorer.all_heads if head not in outside]
    assert float(scorer.values([kept])[0]) == pytest.approx(float(expected), rel=1e-5)
    # The same, after W_O: that the bias stays is why both are the same.
    with torch.no_grad(), ablate(model, outside, activation="result", how="mean", reference=tokens):
        assert float(scorer.values([kept])[0]) == pytest.approx(float(metric(model(tokens))), rel=1e-5)


def test_several_circuits_in_one_pass_score_as_one_at_a_time() -> None:
    model, tokens, metric = random_case()
    scorer = CircuitScorer(model, tokens, metric, chance=-10.0)
    circuits = random_circuits(scorer.all_sites, size=4, count=60)
    together = scorer.values(circuits)
    alone = torch.cat([scorer.values([circuit]) for circuit in circuits])
    assert together.unique().numel() > 30  # else the comparison would not tell the circuits apart
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_resampling_everything_answers_for_another_input() -> None:
    made = hand_made.one_head()
    seen: list[torch.Tensor] = []

    def keep(logits: torch.Tensor) -> float:
        seen.append(logits[:, -1].argmax(-1))
        return 1.0

    scorer = CircuitScorer(made.model, made.tokens, keep, chance=0.0, ablation="resample", seed=5)
    scorer.values([()])
    answered = seen[-1]
    assert not torch.equal(answered, made.answers)
    assert torch.equal(
        answered.sort().values, made.answers.sort().values
    )  # each input's answer goes to one other
    again = CircuitScorer(made.model, made.tokens, keep, chance=0.0, ablation="resample", seed=5)
    again.values([()])
    assert torch.equal(seen[-1], answered)


def test_replacements_come_from_the_reference() -> None:
    made = hand_made.one_head()
    only_twos = torch.tensor([[2, value, hand_made.END] for value in range(4)])
    scorer = scorer_of(made, reference=only_twos)
    # The mean over sequences that all start with 2 answers 2 everywhere: right for a quarter, and it is chance.
    assert circuit_score(scorer, []).score == pytest.approx(0.0, **EXACT)
    with (
        torch.no_grad(),
        made.model.hooks(
            fwd_hooks=[
                ("blocks.0.attn.hook_z", scorer._ablation_hook(0, torch.zeros(1, 4, 3, dtype=torch.bool)))
            ]
        ),
    ):
        assert made.model(made.tokens)[:, -1].argmax(-1).tolist() == [2] * 16


def test_the_twin_is_scored_with_the_trained_models_denominator() -> None:
    made = hand_made.equal_pair()
    trained = scorer_of(made)
    twin = build_model(hand_made.Weights(2, 2, 3, 2).config, seed=1, device="cpu")
    scorer = CircuitScorer(twin, made.tokens, made.accuracy, chance=0.5, trained=trained.trained)
    accuracy = made.accuracy(twin(made.tokens))
    assert circuit_score(scorer, scorer.all_heads).score == pytest.approx((accuracy - 0.5) / 0.5, **EXACT)
    assert abs(circuit_score(scorer, made.circuit).score) < 0.3


def test_the_model_is_left_as_it_was(made: hand_made.HandMade) -> None:
    before = model_state(made.model)
    random_before = torch.get_rng_state()
    scorer = scorer_of(made, ablation="resample")
    circuit_score(scorer, made.circuit)
    rank_among_sets(scorer, made.circuit)
    percentile_among_random(scorer, made.sites, count=10)
    assert model_state(made.model) == before
    assert torch.equal(torch.get_rng_state(), random_before)


def test_random_circuits() -> None:
    sites = [(0, head, position) for head in range(3) for position in range(5)]
    circuits = random_circuits(sites, size=4, count=200, seed=1)
    assert circuits == random_circuits(sites, size=4, count=200, seed=1)
    assert circuits != random_circuits(sites, size=4, count=200, seed=2)
    assert all(len(set(circuit)) == 4 for circuit in circuits)
    counts = torch.tensor([sum(site in circuit for circuit in circuits) for site in sites])
    assert counts.min() > 30  # 200 * 4 / 15 = 53 on average
    assert all(
        small == large[:3] for small, large in zip(random_circuits(sites, 3, 200, 1), circuits, strict=True)
    )


def test_percentile() -> None:
    made = hand_made.equal_pair()
    scorer = scorer_of(made)
    sites = [site for site in scorer.all_sites if site[0] == 0 or site[2] == 2]
    result = percentile_among_random(scorer, made.sites, sites=sites)
    # 8 sites: 28 sets of two, of which one is the circuit; the rest scores nothing.
    drawn = random_circuits(sites, 2)
    hits = sum(set(circuit) == set(made.sites) for circuit in drawn)
    assert hits > 10
    assert result.percentile == pytest.approx(100 * (1 - hits / 1000))
    values = scorer.values(drawn)
    assert percentile_among_random(scorer, made.sites, sites=sites, values=values) == result
    assert percentile_among_random(scorer, [(0, 0, 0), (0, 0, 1)], sites=sites).percentile == 0


@pytest.mark.parametrize(
    ("circuit", "message"),
    [
        ([(0, 7)], r"\(0, 7\) names head 7; this model has heads 0 to 1"),
        ([(2, 0)], r"layer 2; this model has layers 0 to 1"),
        ([(0, 0, -1)], r"position -1; this model has positions 0 to 2"),
        ([(0, 0), (0, 1, 2)], "mixes heads and sites"),
        ([(0, 0), (0, 0)], r"names \(0, 0\) twice"),
        ([(0.0, 1)], r"got \(0.0, 1\)"),
        ([3], "got 3"),
        ([(0, 1, 2, 0)], r"got \(0, 1, 2, 0\)"),
    ],
)
def test_circuits_that_are_none(circuit: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scorer_of(hand_made.equal_pair()).check(circuit)


def test_tensors_name_heads_too() -> None:
    scorer = scorer_of(hand_made.equal_pair())
    assert scorer.check(torch.tensor([[1, 0], [0, 1]])) == ((0, 1), (1, 0))


def test_other_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    made = hand_made.equal_pair()
    with pytest.raises(ValueError, match='`ablation` is \'zero\'; expected "mean" or "resample"'):
        scorer_of(made, ablation="zero")
    with pytest.raises(ValueError, match=r"has shape \(1, 3\); expected \(reference, 3\) with two or more"):
        scorer_of(made, reference=made.tokens[:1])
    with pytest.raises(ValueError, match=r"has shape \(24, 2\); expected \(reference, 3\)"):
        scorer_of(made, reference=made.tokens[:, :2])
    with pytest.raises(ValueError, match=r"metric is 0.5000 and chance is 0.5000.*pass `trained=`"):
        scorer_of(made, trained=0.5)
    with pytest.raises(ValueError, match="in training mode"):
        CircuitScorer(made.model.train(), made.tokens, made.accuracy, chance=0.5)
    made.model.eval()
    scorer = scorer_of(made)
    with pytest.raises(ValueError, match="expected one or more heads"):
        rank_among_sets(scorer, made.sites)
    with pytest.raises(ValueError, match="expected one or more heads"):
        rank_among_sets(scorer, [])
    monkeypatch.setattr(evidence, "MOST_SETS", 5)
    with pytest.raises(ValueError, match=r"there are 6 sets of 2 heads of 4; at most 5 are scored"):
        rank_among_sets(scorer, made.circuit)
    with pytest.raises(ValueError, match="expected one or more sites"):
        percentile_among_random(scorer, made.circuit)
    with pytest.raises(ValueError, match=r"\(1, 0, 2\) is not among the 3 sites"):
        percentile_among_random(scorer, made.sites, sites=[(0, 1, 0), (0, 1, 1), (0, 1, 2)])
    with pytest.raises(ValueError, match="`size` is 4; there are 3 sites"):
        random_circuits([(0, 0), (0, 1), (1, 0)], size=4)


# ------------------------------------------------------------------------------- grouped-query attention


LIVE = ((0, 1), (1, 2))
"""The only query heads whose output is not multiplied by zero. Heads 0 and 1 share a key/value head, 2 and 3 too."""


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory):
    """A random Qwen2 with MLPs and two key/value heads for four query heads, of which it uses one a layer."""
    folder = tmp_path_factory.mktemp("qwen")
    config = Qwen2Config(
        vocab_size=15,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=16,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        model = Qwen2ForCausalLM(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, 0.3)
            for layer, block in enumerate(model.model.layers):
                for head in range(4):
                    if (layer, head) not in LIVE:
                        block.self_attn.o_proj.weight[:, 8 * head : 8 * (head + 1)] = 0
    model.save_pretrained(folder)
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    bridge = TransformerBridge.boot_transformers(str(folder), tokenizer=tokenizer, device="cpu")
    return bridge.eval()


def _tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<|endoftext|>": 0, **{str(digit): digit + 1 for digit in range(10)}, "<unk>": 11}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>", unk_token="<unk>"
    )


def test_query_heads_that_share_keys_and_values_are_different_heads(qwen) -> None:
    tokens = torch.randint(0, 15, (64, 6), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answers = qwen(tokens)[:, -1].argmax(-1)

    def agreement(logits: torch.Tensor) -> float:
        return float((logits[:, -1].argmax(-1) == answers).double().mean())

    chance = float(answers.bincount().max()) / len(answers)
    scorer = CircuitScorer(qwen, tokens, agreement, chance=chance)
    right = circuit_score(scorer, LIVE)
    assert right.score == pytest.approx(1.0, **EXACT)
    assert right.minimal
    assert right.empty < 0.9  # what the MLPs and embeddings do without any head
    dead = [head for head in scorer.all_heads if head not in LIVE]
    assert circuit_score(scorer, dead).score == pytest.approx(right.empty, **EXACT)
    # Naming the heads that share keys and values with the right ones is naming the wrong heads.
    assert circuit_score(scorer, [(0, 0), (1, 3)]).score == pytest.approx(right.empty, **EXACT)
    result = rank_among_sets(scorer, LIVE)
    assert (result.rank, result.ties, result.of) == (1, 0, 28)


# ------------------------------------------------------------------------------------------ counterexamples


def why_invalid(row: torch.Tensor) -> str | None:
    if len(row) != 3:
        return f"has {len(row)} tokens; expected 3"
    return (
        None
        if row[:2].min() >= 0 and row[:2].max() < 4 and row[2] == hand_made.END
        else "is no two values and END"
    )


def judged(made: hand_made.HandMade, inputs):
    def margin(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        last, right = logits[:, -1], tokens[:, :1]
        wrong = last.scatter(1, right, -torch.inf).max(-1).values
        return wrong - last.gather(1, right)[:, 0]

    return score_counterexamples(
        made.model,
        inputs,
        why_invalid=why_invalid,
        in_distribution=lambda tokens: tokens[:, 0] != tokens[:, 1],
        margin=margin,
    ), margin


def test_counterexamples_are_told_apart() -> None:
    made = hand_made.saboteur()  # wrong on exactly the inputs that start with 3: logits 3 for 0, 1 for 3
    inputs = [[3, 0, 4], [3, 3, 4], [2, 0, 4], [3, 0, 4], [3, 9, 4], [0, 3, 4]]
    score, _ = judged(made, inputs)
    assert score.reasons == (None, None, None, "repeats input 0", "is no two values and END", None)
    assert score.wrong.tolist() == [True, True, False, False, False, False]
    assert score.typical.tolist() == [True, False, True, False, False, True]
    assert (score.count(), score.count(typical=True), score.count(typical=False)) == (2, 1, 1)
    assert score.rate == pytest.approx(2 / 6)
    torch.testing.assert_close(score.margins[:3], torch.tensor([2.0, 2.0, -1.0]))
    assert score.margins[3:5].isnan().all()
    assert score.mean_margin() == pytest.approx((2 + 2 - 1 - 1) / 4)
    assert score.mean_margin(typical=False) == pytest.approx(2.0)


def test_a_tie_fools_nobody() -> None:
    tie = CounterexampleScore(margins=torch.zeros(1), reasons=(None,), typical=torch.tensor([True]))
    assert tie.count() == 0


def test_counterexamples_none_of_which_is_valid() -> None:
    score, _ = judged(hand_made.saboteur(), torch.zeros(2, 5, dtype=torch.int32))
    assert score.reasons == ("has 5 tokens; expected 3", "has 5 tokens; expected 3")
    assert score.count() == 0
    assert score.rate == 0
    assert math.isnan(score.mean_margin())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([[1, 2], [3]], "could not be read as a table.*Are all rows of one length"),
        ("palindrome", "could not be read as a table"),
        (None, "could not be read as a table"),
        (torch.zeros(2, 3), "holds torch.float32; expected whole numbers"),
        ([[1.5, 2, 4]], "holds torch.float32; expected whole numbers"),
        ([[True, False, True]], "holds torch.bool"),
        ([3, 0, 4], r"has shape \(3,\); expected \(input, position\)"),
        ([], r"has shape \(0,\)|holds torch.float32"),
    ],
)
def test_counterexamples_that_are_no_table(inputs, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judged(hand_made.saboteur(), inputs)


def test_advantage_over_random_search() -> None:
    made = hand_made.saboteur()
    score, margin = judged(made, [[3, value, 4] for value in range(4)])

    def sample(size: int, generator: torch.Generator) -> torch.Tensor:
        values = torch.randint(0, 4, (size, 2), generator=generator)
        return torch.cat([values, torch.full((size, 1), hand_made.END)], dim=1)

    margins = random_search(made.model, sample, margin=margin, budget=400, seed=2)
    rate = float((margins > 0).double().mean())
    assert 0.15 < rate < 0.35
    assert advantage(score, margins) == pytest.approx(1 / rate)
    assert advantage(score, torch.tensor([-1.0])) == math.inf
    nothing, _ = judged(made, [[0, 0, 4]])
    assert math.isnan(advantage(nothing, torch.tensor([-1.0])))
    assert torch.equal(margins, random_search(made.model, sample, margin=margin, budget=400, seed=2))


# ----------------------------------------------------------------------------------------------- simulation


def small_pool() -> Pool:
    """Is the first value less than 2? The model under test says so of values less than 3."""
    tokens = torch.tensor([[value, other] for value in range(4) for other in range(5)])
    return Pool(
        tokens=tokens,
        right_answers=(tokens[:, 0] < 2).long(),
        model_answers=(tokens[:, 0] < 3).long(),
        kinds=(tokens[:, 1] == 0).long(),
        kind_names=("other", "zero"),
        n_answers=2,
        how="all there are",
    )


def test_a_simulation_that_knows_the_model_scores_one() -> None:
    numbers = {"threshold": torch.tensor([2.0]), "slope": 1.0}
    score = simulation_score(
        lambda inputs, numbers: inputs[:, 0] < numbers["threshold"] + 0.5, numbers, small_pool()
    )
    # Two in `numbers`, and one written into the code.
    assert (score.score, score.where_right, score.where_wrong, score.n_numbers) == (1, 1, 1, 3)
    assert (score.perfect, score.opposite) == (0.5, 0.5)
    assert score.kind_names == ("other", "zero")
    # kinds: 4 of 5 inputs a value are "other"; the model is wrong on one value of four
    assert score.confusion.tolist() == [[[0, 4], [0, 12]], [[0, 1], [0, 3]]]


def test_right_answers_and_their_opposite_score_one_half() -> None:
    right = simulation_score(lambda inputs, numbers: inputs[:, 0] < 2, {}, small_pool())
    assert (right.score, right.where_right, right.where_wrong) == (0.5, 1, 0)
    opposite = simulation_score(lambda inputs, numbers: inputs[:, 0] >= 2, {}, small_pool())
    assert (opposite.score, opposite.where_right, opposite.where_wrong) == (0.5, 0, 1)
    assert opposite.agreement.tolist() == [[1, 0], [1, 0]]
    for constant in (0, 1):
        guess = simulation_score(lambda inputs, numbers, c=constant: inputs[:, 0] * 0 + c, {}, small_pool())
        assert guess.score == pytest.approx((2 / 3 + 1) / 2 if constant else (1 / 3) / 2)


def test_several_answers_an_input() -> None:
    pool = Pool(
        tokens=torch.tensor([[0], [1]]),
        right_answers=torch.tensor([[1, 2, 3], [4, 5, 6]]),
        model_answers=torch.tensor([[1, 2, 4], [4, 0, 0]]),
        kinds=torch.tensor([0, 1]),
        kind_names=("a", "b"),
        n_answers=7,
        how="",
    )
    score = simulation_score(
        lambda inputs, numbers: numbers["answers"], {"answers": pool.model_answers}, pool
    )
    assert (score.score, score.n_numbers) == (1, 6)
    assert score.confusion.tolist() == [[[0, 1], [0, 2]], [[0, 2], [0, 1]]]
    assert score.agreement.tolist() == [[1, 1], [1, 1]]
    assert score.perfect == 0.5
    assert score.opposite == pytest.approx((0 + 2 / 3) / 2)  # two of the three mistakes are right + 1


def test_the_pool_and_the_numbers_are_not_the_learners_to_change() -> None:
    pool = small_pool()
    numbers = {"threshold": torch.tensor([2.5])}

    def changes_inputs(inputs: torch.Tensor, numbers: dict) -> torch.Tensor:
        inputs[:] = 0
        return inputs[:, 0]

    def changes_numbers(inputs: torch.Tensor, numbers: dict) -> torch.Tensor:
        numbers["threshold"] += 1
        return inputs[:, 0]

    def takes_numbers(inputs: torch.Tensor, numbers: dict) -> torch.Tensor:
        return inputs[:, 0] < numbers.pop("threshold")

    with pytest.raises(ValueError, match="changed its inputs in place"):
        simulation_score(changes_inputs, numbers, pool)
    assert torch.equal(pool.tokens, small_pool().tokens)
    with pytest.raises(ValueError, match=r"changed `numbers\['threshold'\]` in place"):
        simulation_score(changes_numbers, numbers, pool)
    assert numbers["threshold"].tolist() == [2.5]
    with pytest.raises(ValueError, match=r"changed `numbers\['threshold'\]`"):
        simulation_score(takes_numbers, numbers, pool)


@pytest.mark.parametrize(
    ("simulate", "error", "message"),
    [
        (lambda inputs, numbers: None, TypeError, "returned nothing; expected a tensor"),
        (lambda inputs, numbers: [0] * 20, TypeError, "returned a list; expected a tensor"),
        (lambda inputs, numbers: inputs, ValueError, r"returned shape \(20, 2\); expected \(20,\)"),
        (
            lambda inputs, numbers: inputs[:, 0] * 1.0,
            TypeError,
            "returned torch.float32.*threshold or an argmax",
        ),
        (lambda inputs, numbers: 1 // 0, ZeroDivisionError, "by zero"),
        (lambda inputs, numbers: numbers["nothing"], KeyError, "nothing"),
        (lambda inputs: inputs, TypeError, "positional argument"),
        ("simulate", SealError, "expected a plain function"),
    ],
)
def test_simulations_that_return_no_answers(simulate, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        simulation_score(simulate, {}, small_pool())


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"table": [1, 2]}, r"`numbers\['table'\]` is a list; expected a tensor or a number"),
        ({"model": torch.nn.Linear(1, 1)}, "is a Linear"),
        ({3: torch.zeros(1)}, "has the key 3; expected names"),
    ],
)
def test_numbers_that_cannot_be_counted(numbers: dict, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        simulation_score(lambda inputs, numbers: inputs[:, 0], numbers, small_pool())


def test_whole_numbers_do_not_hold_several_others() -> None:
    """Four halves in one 64-bit number would count as one number."""
    packed = torch.randn(8, generator=torch.Generator().manual_seed(0)).half().view(torch.int64)
    with pytest.raises(ValueError, match=r"`numbers\['packed'\]` holds whole numbers of 16,777,216 or more"):
        simulation_score(lambda inputs, numbers: inputs[:, 0], {"packed": packed}, small_pool())
    small = {
        "index": torch.arange(5),
        "mask": torch.ones(3, dtype=torch.bool),
        "none": torch.empty(0, dtype=torch.long),
    }
    simulation_score(lambda inputs, numbers: inputs[:, 0], small, small_pool())


def test_shapes_are_checked() -> None:
    made = hand_made.one_head()
    with pytest.raises(TypeCheckError):
        CircuitScorer(made.model, made.tokens[0], made.accuracy, chance=0.25)
