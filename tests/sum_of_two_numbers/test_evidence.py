"""What evidence knows of the sum task, against definitions written out by hand."""

import pytest
import torch

from exercises_utils.challenges.sum_of_two_numbers import evidence, task
from exercises_utils.evidence.pools import EvidenceTask
from exercises_utils.evidence.scores import CircuitScorer
from exercises_utils.evidence.stored import evidence_path, load_evidence
from exercises_utils.models.native import build_model
from exercises_utils.models.sources import available_instances, checkpoint_path

RIGHT = [2, 7, 6, 4, 10, 0, 8, 1, 5, 11, 3, 5, 7, 9]


def changed(**digits: int) -> torch.Tensor:
    """2764+0815=3579 with other tokens at some positions, such as `at_4=11`."""
    tokens = list(RIGHT)
    for name, value in digits.items():
        tokens[int(name.removeprefix("at_"))] = value
    return torch.tensor(tokens)


def test_the_module_is_an_evidence_task() -> None:
    assert isinstance(evidence, EvidenceTask)


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        (changed(), None),
        (changed(at_0=3), "says 3764 + 815 = 3579"),
        (changed(at_0=8, at_10=9), None),
        (torch.tensor(RIGHT[:-1]), 'has 13 tokens; expected 14: four digits, "+", four digits, "="'),
        (changed(at_4=11), 'has 11 at position 4 and 11 at 9; expected "+" (10) and "=" (11)'),
        (changed(at_9=0), "has 10 at position 4 and 0 at 9"),
        (changed(at_3=10), "has 10 at position 3; expected a digit"),
        (changed(at_12=-1), "has -1 at position 12; expected a digit"),
        (changed(at_0=9, at_5=1), "is 9764 + 1815, which is 11579; the sum must be below 10000"),
        (
            changed(at_13=8),
            "says 2764 + 815 = 3578; the tokens after the equals sign must be the digits of 3579",
        ),
    ],
)
def test_validity(tokens: torch.Tensor, reason: str | None) -> None:
    found = evidence.why_invalid(tokens)
    assert (found is None) == (reason is None)
    assert reason is None or reason in found


def test_training_data_is_in_distribution_and_leading_digits_from_five_are_not() -> None:
    assert evidence.in_distribution(task.make_data(5000, 0).tokens).all()
    assert not evidence.in_distribution(task.untrained_sums(5000, 0).tokens).any()
    edge = task.from_numbers([(4999, 4999), (5000, 0), (0, 5000)]).tokens
    assert evidence.in_distribution(edge).tolist() == [True, False, False]


def test_chance_is_the_best_constant_answer() -> None:
    labels = task.make_data(200_000, 1).labels
    shares = torch.stack([labels[:, place].bincount(minlength=10) for place in range(4)]) / len(labels)
    assert float(shares.amax(-1).mean()) == pytest.approx(evidence.CHANCE, abs=0.002)
    # By counting: three digits plus three digits carry for 499,500 of 1,000,000 pairs.
    carry = 0.4995
    thousands = [0.0] * 10
    for a in range(5):
        for b in range(5):
            thousands[a + b] += (1 - carry) / 25
            thousands[a + b + 1] += carry / 25
    assert (max(thousands) + 0.3) / 4 == pytest.approx(evidence.CHANCE, abs=1e-5)


def test_right_answers_and_kinds() -> None:
    data = task.make_data(500, 1)
    assert torch.equal(evidence.right_answers(data.tokens), data.labels)
    for length in range(4):
        of_length = task.cascade_sums(50, length, seed=length).tokens
        assert evidence.kinds(of_length).unique().tolist() == [length]
    assert evidence.kinds(task.untrained_sums(200, 1).tokens).unique().tolist() == [4]
    assert len(evidence.KINDS) == 5


def test_the_margin_is_positive_exactly_where_a_digit_is_wrong() -> None:
    data = task.make_data(400, 2)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 14, 12, generator=generator)
    bonus = torch.nn.functional.one_hot(data.tokens[:, 1:], 12) * 3.0  # so that some sums come out right
    logits[:, :-1] += bonus
    margin = evidence.margin(logits, data.tokens)
    right = task.correct(logits, data)
    assert 50 < int(right.all(-1).sum()) < 350
    assert torch.equal(margin > 0, ~right.all(-1))
    assert torch.equal(evidence.answers(logits) == evidence.right_answers(data.tokens), right)
    for i in range(20):
        leads = []
        for place in range(4):
            numbers = logits[i, 9 + place].tolist()
            own = numbers.pop(int(data.labels[i, place]))
            leads.append(max(numbers) - own)
        assert float(margin[i]) == pytest.approx(max(leads), abs=1e-5)


def test_hard_inputs_are_as_they_are_described() -> None:
    tokens = evidence.hard_inputs(20_000, torch.Generator().manual_seed(3))
    assert not any(evidence.why_invalid(row) for row in tokens[:2000])
    data = task.SumData(tokens)
    beyond = ~evidence.in_distribution(tokens)
    assert abs(float(beyond.double().mean()) - 0.25) < 0.01
    assert (beyond == ((data.a[:, 0] >= 5) ^ (data.b[:, 0] >= 5))).all()
    sums = (data.a + data.b)[:, 1:]
    # Of the quarter drawn uniformly, a tenth come to nine and nine of a hundred to ten.
    assert ((sums == 9).double().mean(0) - (0.5 + 0.025)).abs().max() < 0.015
    assert ((sums == 10).double().mean(0) - (0.25 + 0.0225)).abs().max() < 0.015
    assert (evidence.kinds(tokens).bincount(minlength=5) > 500).all()
    again = evidence.hard_inputs(20_000, torch.Generator().manual_seed(3))
    assert torch.equal(tokens, again)


def test_neighbours_keep_kind_and_carries_and_change_one_column() -> None:
    generator = torch.Generator().manual_seed(4)
    tokens = evidence.hard_inputs(3000, generator)
    before = tokens.clone()
    changed = evidence.neighbours(tokens, generator)
    assert torch.equal(tokens, before)
    assert not any(evidence.why_invalid(row) for row in changed)
    assert torch.equal(evidence.kinds(changed), evidence.kinds(tokens))
    old, new = task.SumData(tokens), task.SumData(changed)
    assert torch.equal(task.carry_in(old), task.carry_in(new))
    assert torch.equal(evidence.in_distribution(changed), evidence.in_distribution(tokens))
    columns = (old.a != new.a) | (old.b != new.b)
    assert columns.sum(-1).max() == 1
    assert columns.any(-1).double().mean() > 0.85
    assert (columns.double().mean(0) > 0.2).all()


def test_sites_outside_cannot_matter() -> None:
    assert len(evidence.SITES) == 3 * 13 + 3 * 4
    model = build_model(task.CONFIG, seed=1, device="cpu")
    data = task.make_data(40, seed=5)
    weights = torch.arange(160.0).view(40, 4)

    def metric(logits: torch.Tensor) -> float:
        return float((task.answer_logits(logits)[..., 3] * weights).sum())

    scorer = CircuitScorer(model, data.tokens, metric, chance=-1e9, ablation="resample")
    everything, sites_alone, nothing = scorer.values([scorer.all_sites, evidence.SITES, ()])
    assert float(sites_alone) == pytest.approx(float(everything), abs=0.05)
    assert abs(float(nothing - everything)) > 10
    for layer in range(2):  # and each of the others does
        fewer = [site for site in evidence.SITES if site != (layer, 1, 9)]
        assert abs(float(scorer.values([fewer])[0] - everything)) > 0.05


@pytest.mark.parametrize("instance", available_instances("sum_of_two_numbers"))
def test_the_stored_evidence(instance: str) -> None:
    weights = checkpoint_path("sum_of_two_numbers", instance)
    if not evidence_path(weights).exists():
        pytest.skip(f"no evidence is stored for {instance} yet")
    stored = load_evidence(weights)
    pool = stored.pool
    assert pool.kind_names == evidence.KINDS
    assert pool.model_answers.shape == pool.right_answers.shape == (len(pool.tokens), 4)
    assert not any(evidence.why_invalid(row) for row in pool.tokens)
    assert torch.equal(pool.right_answers, evidence.right_answers(pool.tokens))
    assert pool.model_answers.max() < evidence.N_ANSWERS
    wrong = ~pool.model_is_right.all(-1)
    # A model may be right on too few sums of a kind (a leading digit 5 to 9) to match those that it gets wrong.
    assert 200 <= int(wrong.sum()) <= 1.25 * int((~wrong).sum())
    assert int((~wrong).sum()) <= int(wrong.sum())
    in_distribution = evidence.in_distribution(pool.tokens)
    assert int((wrong & in_distribution).sum()) >= 100
    assert int((wrong & ~in_distribution).sum()) >= 100
    assert set(stored.circuits.sites) == set(evidence.SITES)
