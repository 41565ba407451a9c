"""What evidence knows of the sorted lists, and circuits of score terms, against definitions written out by hand."""

from itertools import combinations

import pytest
import torch

from exercises_utils.challenges.sorted_list_one_head import evidence, task
from exercises_utils.challenges.sorted_list_one_head.terms import ALL_TERMS, TermScorer, score_terms
from exercises_utils.checking.isolation import model_state
from exercises_utils.evidence.scores import Scorer, circuit_score, rank_among_sets, score_answers
from exercises_utils.evidence.stored import accuracy, evidence_path, load_evidence
from exercises_utils.models.checkpoints import load_checkpoint
from exercises_utils.models.native import build_model
from exercises_utils.models.sources import checkpoint_path
from exercises_utils.tools.circuits import causal

LISTS = {
    "all different, no gap of 20": [0, 5, 10, 15, 20, 25, 30, 35, 40, 45],
    "all different, a gap of 20 or more": [0, 1, 2, 3, 4, 24, 25, 26, 27, 28],
    "a number twice, no gap of 20": [7, 7, 9, 9, 28, 28, 30, 30, 31, 32],
    "a number twice, a gap of 20 or more": [49, 49, 1, 2, 3, 4, 5, 6, 7, 8],
    "a number three times, no gap of 20": [3, 3, 3, 3, 3, 3, 3, 3, 3, 3],
    "a number three times, a gap of 20 or more": [20, 20, 20, 40, 40, 40, 41, 42, 43, 44],
}
SOME = [9, 0, 9, 3, 49, 1, 1, 1, 30, 2]


def sequence(numbers: list[int], **changes: int) -> torch.Tensor:
    tokens = [50, *numbers, 51, *sorted(numbers)]
    for place, token in changes.items():
        tokens[int(place.removeprefix("at_"))] = token
    return torch.tensor(tokens)


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        (sequence(SOME), None),
        (sequence(SOME)[1:], "has 21 tokens; expected 22: BOS, 10 numbers, MID"),
        (torch.tensor(SOME), "has 10 tokens"),
        (sequence(SOME, at_0=51), "has 51 at position 0; expected BOS (50)"),
        (sequence(SOME, at_11=50), "has 50 at position 11; expected MID (51)"),
        (sequence(SOME, at_3=50), "has 50 at position 3; expected a number from 0 to 49"),
        (sequence(SOME, at_21=51), "has 51 at position 21"),
        (sequence(SOME, at_4=-1), "has -1 at position 4"),
        (sequence(SOME, at_4=4), "does not end with its ten numbers sorted"),
        (torch.tensor([50, *SOME, 51, *SOME]), "does not end with its ten numbers sorted"),
    ],
)
def test_validity(tokens: torch.Tensor, reason: str | None) -> None:
    found = evidence.why_invalid(tokens)
    assert (found is None) == (reason is None)
    assert reason is None or reason in found


def test_training_data_is_in_distribution_and_other_lists_are_not() -> None:
    share = evidence.in_distribution(task.make_data(20_000, 0).tokens).double().mean()
    assert abs(float(share) - 0.996) < 0.002
    lists = [[0, 1, 2, 3, 4, 5, 6, 6, 6, 6], [0, 1, 2, 3, 4, 5, 5, 5, 5, 5], [0, 29, *range(30, 38)]]
    lists.append([0, 30, *range(31, 39)])
    tokens = task.from_lists(lists).tokens
    assert evidence.in_distribution(tokens).tolist() == [True, False, True, False]


def test_right_answers_and_kinds() -> None:
    tokens = task.from_lists([*LISTS.values()]).tokens
    assert [evidence.KINDS[kind] for kind in evidence.kinds(tokens).tolist()] == [*LISTS]
    assert evidence.right_answers(tokens).tolist() == [sorted(numbers) for numbers in LISTS.values()]


def test_the_margin_is_positive_exactly_where_the_model_is_wrong_somewhere() -> None:
    data = task.make_data(200, 2)
    logits = torch.randn(200, 22, 50, generator=torch.Generator().manual_seed(0))
    logits[:, 11:21] += 4.5 * torch.nn.functional.one_hot(data.labels, 50)
    right = task.correct(logits, data)
    assert 0.1 < right.all(-1).double().mean() < 0.9
    assert torch.equal(evidence.margin(logits, data.tokens) > 0, ~right.all(-1))
    assert torch.equal(evidence.answers(logits) == evidence.right_answers(data.tokens), right)
    for row in range(5):
        by_hand = []
        for i, number in enumerate(data.labels[row].tolist()):
            at = logits[row, 11 + i].tolist()
            by_hand.append(max(at[:number] + at[number + 1 :]) - at[number])
        assert evidence.margin(logits[row : row + 1], data.tokens[row : row + 1]).item() == pytest.approx(
            max(by_hand), abs=1e-6
        )


def test_hard_inputs_are_as_they_are_described() -> None:
    tokens = evidence.hard_inputs(20_000, torch.Generator().manual_seed(3))
    assert not any(evidence.why_invalid(row) for row in tokens[:2000])
    data = task.SortedListData(tokens)
    assert evidence.kinds(tokens).unique().tolist() == [*range(6)]
    most = torch.stack([(data.labels == number).sum(-1) for number in range(50)]).max(0).values
    # Half have a copied number, two thirds of these one of three times or more; chance adds some.
    assert 0.33 < float((most >= 3).double().mean()) < 0.45
    assert 0.35 < float((task.largest_gap(data) >= 20).double().mean()) < 0.5
    assert tokens[:, 1:11].unique().tolist() == [*range(50)]


def test_neighbours_change_one_number() -> None:
    generator = torch.Generator().manual_seed(4)
    tokens = evidence.hard_inputs(2000, generator)
    before = tokens.clone()
    changed = evidence.neighbours(tokens, generator)
    assert torch.equal(tokens, before)
    assert not any(evidence.why_invalid(row) for row in changed[:500])
    differs = (changed != tokens)[:, 1:11].sum(-1)
    assert differs.max() == 1
    assert differs.double().mean() > 0.9


# ---- circuits of score terms -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scorer() -> TermScorer:
    state_dict, card = load_checkpoint(checkpoint_path("sorted_list_one_head", "seed0"))
    model = build_model(card.config, state_dict, device="cpu")
    tokens = task.make_data(100, seed=1).tokens
    return TermScorer(model, tokens, accuracy(evidence, tokens), chance=evidence.CHANCE)


def test_the_terms_add_up_to_the_models_scores(scorer: TermScorer) -> None:
    _, cache = scorer.model.run_with_cache(scorer.tokens)
    total = causal(torch.stack([*score_terms(scorer.model, scorer.tokens).values()]).sum(0))
    torch.testing.assert_close(total, cache["attn_scores", 0][:, 0], atol=1e-3, rtol=1e-4)


def test_a_term_scorer_is_a_scorer(scorer: TermScorer) -> None:
    assert isinstance(scorer, Scorer)
    assert scorer.all_members == scorer.check(scorer.all_members) == ALL_TERMS
    right = task.correct(scorer.model(scorer.tokens), task.SortedListData(scorer.tokens))
    assert scorer.trained == pytest.approx(right.double().mean().item(), abs=2e-3)
    assert float(scorer.scores([ALL_TERMS])[0]) == pytest.approx(1.0)
    assert scorer.label(("token", "position")) == "token→position"
    before = model_state(scorer.model)
    scorer.values([[("token", "token")], ()])
    assert model_state(scorer.model) == before


def test_dropping_terms_by_taking_vectors_away(scorer: TermScorer) -> None:
    """By another way: queries and keys made from one part each, where the circuit allows that."""
    model, tokens = scorer.model, scorer.tokens
    vectors = {"token": model.W_E[tokens], "position": model.W_pos.expand(len(tokens), -1, -1)}
    for q, k in ALL_TERMS:
        queries, keys = vectors[q] @ model.W_Q[0, 0], vectors[k] @ model.W_K[0, 0]
        hooks = [
            ("blocks.0.attn.hook_q", lambda activation, hook, new=queries: new[:, :, None]),
            ("blocks.0.attn.hook_k", lambda activation, hook, new=keys: new[:, :, None]),
        ]
        logits = model.run_with_hooks(tokens, fwd_hooks=hooks)
        value = task.correct(logits, task.SortedListData(tokens)).double().mean().item()
        assert float(scorer.values([[(q, k)]])[0]) == pytest.approx(value, abs=2.5e-3)


def test_scores_and_ranks_of_terms(scorer: TermScorer) -> None:
    three = [*combinations(ALL_TERMS, 3)]
    scores = scorer.scores(three).tolist()
    ranked = rank_among_sets(scorer, three[scores.index(max(scores))])
    assert (ranked.rank, ranked.of, ranked.score) == (1, 4, max(scores))
    scored = circuit_score(scorer, ranked.sets[scores.index(max(scores))])
    assert len(scored.lost) == 3
    assert scored.empty == pytest.approx(float(scorer.scores([()])[0]))
    assert scorer.scores_of(torch.tensor([evidence.CHANCE])).item() == pytest.approx(0.0)


def test_a_twin_with_random_weights_is_scored_with_the_trained_denominator(scorer: TermScorer) -> None:
    model = build_model(task.CONFIG, seed=99, device="cpu")
    metric = accuracy(evidence, scorer.tokens)
    twin = TermScorer(model, scorer.tokens, metric, chance=evidence.CHANCE, trained=scorer.trained)
    assert abs(float(twin.scores([ALL_TERMS])[0])) < 0.03
    with pytest.raises(ValueError, match="pass `trained=`"):
        TermScorer(model, scorer.tokens, metric, chance=0.5)


@pytest.mark.parametrize(
    ("circuit", "message"),
    [
        ([("token", "token"), ("token", "token")], "twice"),
        ([("tokens", "token")], "names the part 'tokens'"),
        (["token"], "got 'token'"),
        ([("token",)], r"got \('token',\)"),
        ([(0, 1)], r"got \(0, 1\)"),
    ],
)
def test_circuits_that_are_none(scorer: TermScorer, circuit: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scorer.check(circuit)


# ---- what is stored ----------------------------------------------------------------------------------------

STORED = [
    path.stem
    for path in sorted(checkpoint_path("sorted_list_one_head", "seed0").parent.glob("seed*.safetensors"))
    if evidence_path(path).is_file()
]


@pytest.mark.parametrize("instance", STORED)
def test_the_stored_pool_is_true(instance: str) -> None:
    weights = checkpoint_path("sorted_list_one_head", instance)
    stored = load_evidence(weights)
    pool = stored.pool
    state_dict, card = load_checkpoint(weights)
    model = build_model(card.config, state_dict, device="cpu")
    with torch.no_grad():
        agree = evidence.answers(model(pool.tokens)) == pool.model_answers
    assert agree.double().mean() > 0.9995  # another machine's arithmetic may move a borderline answer
    assert torch.equal(evidence.right_answers(pool.tokens), pool.right_answers)
    assert torch.equal(evidence.kinds(pool.tokens), pool.kinds)
    assert not any(evidence.why_invalid(row) for row in pool.tokens)
    assert len(pool.tokens.unique(dim=0)) == len(pool.tokens) == 1000
    wrong = ~pool.model_is_right.all(-1)
    assert int(wrong.sum()) == 500
    assert pool.kinds[wrong].bincount().tolist() == pool.kinds[~wrong].bincount().tolist()
    score = score_answers(pool.model_answers, pool)
    assert (score.score, score.perfect) == (1, 0.5)
    assert score.opposite < 0.5
    assert stored.circuits is None
