"""What evidence knows of the multiplications, against definitions written out by hand."""

import pytest
import torch

from exercises_utils.challenges.llm_multiplication import evidence, task
from exercises_utils.challenges.llm_multiplication.task import Products
from exercises_utils.evidence.pools import EvidenceTask
from exercises_utils.evidence.scores import CircuitScorer, Pool
from exercises_utils.evidence.stored import evidence_path, load_evidence
from exercises_utils.models.huggingface import random_model
from exercises_utils.models.sources import checkpoint_path, lesson_instances

END, TIMES, SPACE, EQUALS = 0, 11, 12, 13
RIGHT = [END, 2, 3, 4, TIMES, SPACE, 5, 6, EQUALS, SPACE, 6, 6, 4, 6, END, END]
"""123 x 45 = 5535: a digit's token is one more than the digit."""


def changed(**tokens: int) -> torch.Tensor:
    """123 x 45 = 5535 with other tokens at some positions, such as `at_4=12`."""
    changed = list(RIGHT)
    for name, value in tokens.items():
        changed[int(name.removeprefix("at_"))] = value
    return torch.tensor(changed)


def multiplications(*pairs: tuple[int, int]) -> torch.Tensor:
    a, b = torch.tensor(pairs).T
    return evidence.tokens_of(Products(a, b))


def test_the_module_is_an_evidence_task() -> None:
    assert isinstance(evidence, EvidenceTask)


def test_tokens_and_products() -> None:
    assert torch.equal(multiplications((123, 45))[0], torch.tensor(RIGHT))
    pairs = [(123, 45), (45, 123), (999, 99), (10, 100), (1234, 5), (5, 1234), (9999, 9)]
    tokens = multiplications(*pairs)
    assert tokens.shape == (7, 16)
    back = evidence.products_of(tokens)
    assert list(zip(back.a.tolist(), back.b.tolist(), strict=True)) == pairs
    assert evidence.in_distribution(tokens).tolist() == [True] * 4 + [False] * 3
    assert not any(evidence.why_invalid(row) for row in tokens)


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        (changed(), None),
        (torch.tensor(RIGHT[:-1]), "has 15 tokens; expected 16"),
        (changed(at_0=2), "begins with '1'; expected END"),
        (changed(at_13=7), "says 123 x 45 = 5536; the right product, 5535, must follow"),
        (changed(at_10=END), "says 123 x 45 = nothing"),
        (changed(at_14=3), "says 123 x 45 = 55352"),
        (changed(at_15=3), "goes on after the product"),
        (changed(at_4=SPACE), 'reads "123  45 = 5535"; expected two numbers'),
        (changed(at_3=END), 'reads "12"'),
        (changed(at_2=14), "expected two numbers"),
        (changed(at_1=1), "multiplies 023 by 45; no number may begin with 0"),
        (changed(at_9=2), "expected two numbers and their product"),
        (torch.nn.functional.pad(torch.tensor([0, 2, 3, 11, 12, 4, 5, 13, 12, 5, 1, 9]), (0, 4)), "4 digits"),
    ],
)
def test_validity(tokens: torch.Tensor, reason: str | None) -> None:
    found = evidence.why_invalid(tokens)
    assert (found is None) == (reason is None), found
    assert reason is None or reason in found


def test_answers_are_as_they_are_written() -> None:
    tokens = multiplications((123, 45), (999, 99))
    assert evidence.right_answers(tokens).tolist() == [[5, 5, 3, 5, 10], [9, 8, 9, 0, 1]]
    logits = torch.zeros(2, 16, 15)
    logits[:, :-1].scatter_(-1, tokens[:, 1:, None], 1.0)
    assert torch.equal(evidence.answers(logits), evidence.right_answers(tokens))
    logits[1, 9, TIMES] = 2.0
    logits[1, 10, END] = 3.0
    assert evidence.answers(logits)[1].tolist() == [evidence.SIGN, evidence.ENDED, 9, 0, 1]
    assert evidence.margin(logits, tokens).tolist() == [-1.0, 2.0]


def test_the_margin_is_positive_exactly_where_an_answer_is_wrong() -> None:
    tokens = evidence.random_inputs(400, torch.Generator().manual_seed(0))
    logits = torch.randn(400, 16, 15, generator=torch.Generator().manual_seed(1))
    logits[:, :-1] += torch.nn.functional.one_hot(tokens[:, 1:], 15) * 3.5
    right = (evidence.answers(logits) == evidence.right_answers(tokens)).all(-1)
    margin = evidence.margin(logits, tokens)
    assert 50 < int(right.sum()) < 350
    assert torch.equal(margin > 0, ~right)
    for i in range(20):
        leads = []
        for position in range(9, 14):
            numbers = logits[i, position].tolist()
            own = numbers.pop(int(tokens[i, position + 1]))
            leads.append(max(numbers) - own)
        assert float(margin[i]) == pytest.approx(max(leads), abs=1e-5)


def test_chance_is_the_best_constant_answer() -> None:
    products = [a * b for a in range(100, 1000) for b in range(10, 100) if a * b >= 10_000]
    digits = [[int(digit) for digit in str(product)] for product in products]
    most = [max(column.count(digit) for digit in range(10)) for column in zip(*digits, strict=True)]
    assert sum(most) / 5 / len(products) == pytest.approx(evidence.CHANCE, abs=0.005)


def test_kinds() -> None:
    trained, held_out = task.split()
    assert evidence.kinds(evidence.tokens_of(task.both_orders(trained[:500]))).unique().tolist() == [2]
    tokens = evidence.tokens_of(task.both_orders(held_out))
    for product, kind in zip(
        task.both_orders(held_out).product.tolist(), evidence.kinds(tokens), strict=True
    ):
        distance = min(product % 1000, 999 - product % 1000)
        assert int(kind) == (0 if distance < 100 else 1)
    assert len(evidence.KINDS) == 3


def test_hard_inputs_are_as_they_are_described() -> None:
    tokens = evidence.hard_inputs(10_000, torch.Generator().manual_seed(3))
    assert not any(evidence.why_invalid(row) for row in tokens[::10])
    assert evidence.in_distribution(tokens).all()
    assert int((evidence.kinds(tokens) == 2).sum()) == 5000
    products = evidence.products_of(tokens)
    assert 0.45 < float((products.a > products.b).double().mean()) < 0.55
    assert torch.equal(tokens, evidence.hard_inputs(10_000, torch.Generator().manual_seed(3)))


def test_typical_inputs_are_alike_position_by_position() -> None:
    tokens = evidence.typical_inputs(1000, torch.Generator().manual_seed(4))
    assert (tokens[:, 4] == TIMES).all()
    assert (tokens[:, 14] > 0).all()
    assert (tokens[:, 15] == END).all()
    mixed = evidence.random_inputs(1000, torch.Generator().manual_seed(4))
    assert mixed[:, 4].unique().tolist() == [TIMES, SPACE]


def test_neighbours_change_one_digit() -> None:
    generator = torch.Generator().manual_seed(5)
    tokens = evidence.hard_inputs(3000, generator)
    before = tokens.clone()
    near = evidence.neighbours(tokens, generator)
    assert torch.equal(tokens, before)
    assert not any(evidence.why_invalid(row) for row in near[::5])
    different = (near != tokens)[:, 1:8].sum(-1)
    assert different.max() == 1
    assert different.double().mean() > 0.8
    steps = (near - tokens)[:, 1:8].sum(-1)
    assert set(steps.tolist()) == {-1, 0, 1}


def test_places_count_alike_in_the_score() -> None:
    tokens = multiplications(*[(123, 45)] * 6, (999, 99), (998, 99))
    right = evidence.right_answers(tokens)
    model = right.clone()
    model[:2, 1] += 1  # two of six hundreds of 5,535 are one too large, nothing else
    pool = Pool(tokens, right, model, torch.zeros(8, dtype=torch.long), ("all",), evidence.N_ANSWERS, "")
    perfect = evidence.score_by_place(right, pool)
    assert (perfect.score, perfect.where_right, perfect.where_wrong) == (0.5, 1.0, 0.0)
    always = right.clone()
    always[range(8), [1] * 6 + [2] * 2] += 1
    one_more = evidence.score_by_place(always, pool)
    assert (one_more.score, one_more.where_right, one_more.where_wrong) == (0.5, 0.0, 1.0)
    assert evidence.score_by_place(model, pool).score == 1.0
    half = model.clone()
    half[:3, 1] = model[:3, 1]
    half[0, 1] = right[0, 1]  # one mistake is missed
    half[2, 1] += 1  # one right digit of six of that place is thought wrong
    score = evidence.score_by_place(half, pool)
    assert score.where_wrong == 0.5
    assert score.where_right == pytest.approx(5 / 6)


def test_sites_outside_cannot_matter() -> None:
    assert len(set(evidence.SITES)) == 3 * 4 * 13 + 4 * 5
    model = random_model(4, 32, 4, 2, 48, 15, seed=3, device="cpu")
    tokens = evidence.typical_inputs(20, torch.Generator().manual_seed(6))
    weights = torch.arange(20.0)[:, None, None]

    def metric(logits: torch.Tensor) -> float:
        return float((logits[:, 9:14] * weights).abs().sum())

    scorer = CircuitScorer(model, tokens, metric, chance=-1e9, ablation="resample")
    everything, sites_alone, nothing = scorer.values([scorer.all_sites, evidence.SITES, ()])
    assert float(sites_alone) == pytest.approx(float(everything), rel=1e-5)
    assert abs(float(nothing / everything) - 1) > 1e-3


@pytest.mark.parametrize("instance", lesson_instances("llm_multiplication"))
def test_the_stored_evidence(instance: str) -> None:
    weights = checkpoint_path("llm_multiplication", instance)
    if not evidence_path(weights).exists():
        pytest.skip(f"no evidence is stored for {instance} yet")
    stored = load_evidence(weights)
    pool = stored.pool
    assert pool.kind_names == evidence.KINDS
    assert pool.model_answers.shape == pool.right_answers.shape == (len(pool.tokens), 5)
    assert not any(evidence.why_invalid(row) for row in pool.tokens)
    assert torch.equal(pool.right_answers, evidence.right_answers(pool.tokens))
    assert pool.model_answers.max() < evidence.N_ANSWERS
    wrong = ~pool.model_is_right.all(-1)
    assert int(wrong.sum()) * 2 == len(pool.tokens) >= 400
    assert evidence.in_distribution(pool.tokens).all()
    assert set(stored.circuits.sites) == set(evidence.SITES)
    assert stored.circuits.sizes == evidence.CIRCUIT_SIZES
    assert stored.circuits.values(60).shape == (1000,)
    assert stored.circuits.values(59) is None
