"""Pools are searched for on models whose every mistake is known, and say how they came about."""

import pytest
import torch

from exercises_utils.challenges.palindromes import evidence as palindromes
from exercises_utils.challenges.sorted_list_one_head import evidence as sorted_lists
from exercises_utils.evidence.pools import NoMistakesError, _equal_shares, build_pool
from exercises_utils.evidence.scores import score_answers


def answering(palindrome: torch.Tensor) -> torch.Tensor:
    """Logits that answer so at END, surer the further `palindrome` is from zero."""
    logits = torch.zeros(len(palindrome), 22, 2)
    logits[:, -1, 1] = palindrome
    return logits


def blind_to_the_outer_pair(tokens: torch.Tensor) -> torch.Tensor:
    """Wrong exactly where only pair 1 differs."""
    return answering(1.0 - 2 * palindromes.mismatches(tokens)[:, 1:].any(-1))


def rarely_rejects(tokens: torch.Tensor) -> torch.Tensor:
    """Blind to pair 1, and rejects palindromes that begin with 1, 2, 3, 4, 5: 1 in 29 million."""
    begun = (tokens[:, 1:6] == torch.arange(1, 6)).sum(-1)
    right = palindromes.right_answers(tokens).bool()
    return answering(torch.where(right, 4.5 - begun, 1.0 - 2 * palindromes.mismatches(tokens)[:, 1:].any(-1)))


def test_a_pool_of_a_model_blind_to_one_pair() -> None:
    pool = build_pool(blind_to_the_outer_pair, palindromes, size=400, draws=20_000, rounds=2)
    right = pool.model_is_right
    assert torch.equal(pool.right_answers, palindromes.right_answers(pool.tokens))
    assert torch.equal(pool.model_answers, palindromes.answers(blind_to_the_outer_pair(pool.tokens)))
    assert torch.equal(pool.kinds, palindromes.kinds(pool.tokens))
    assert len(pool.tokens.unique(dim=0)) == len(pool.tokens) == 400
    assert int(right.sum()) == 200
    assert {pool.kind_names[kind] for kind in pool.kinds[~right].tolist()} == {"only pair 1 differs"}
    # No palindrome is rejected, so none is among the right ones either, or "always a palindrome" would score well.
    assert pool.right_answers.sum() == 0
    assert not any(palindromes.why_invalid(row) for row in pool.tokens)
    assert "only pair 1 differs: 200 + 0" in pool.how
    assert "palindrome: 0 + 0" in pool.how
    assert palindromes.HARD_INPUTS in pool.how


def test_rare_mistakes_are_searched_for() -> None:
    pool = build_pool(rarely_rejects, palindromes, size=400, draws=20_000)
    wrong = ~pool.model_is_right
    assert int(wrong.sum()) == 200
    counts = pool.kinds[wrong].bincount(minlength=12)
    assert counts[0] >= 17  # an equal share of twelve kinds, or what the last round of search found
    assert counts[0] + counts[1] == 200
    assert pool.right_answers[~wrong].sum() == counts[0]  # as many palindromes among the right ones
    drawn, searched = map(int, pool.how.split("palindrome: ")[1].split(";")[0].split(" + "))
    assert drawn < 10
    assert drawn + searched == counts[0]


@pytest.mark.parametrize("model", [blind_to_the_outer_pair, rarely_rejects])
def test_no_answer_that_ignores_the_model_scores_more_than_a_half(model) -> None:
    pool = build_pool(model, palindromes, size=400, draws=20_000, rounds=4)
    score = score_answers(pool.model_answers, pool)
    assert (score.score, score.perfect, score.opposite) == (1, 0.5, 0.5)
    for constant in (0, 1):
        assert score_answers(torch.full_like(pool.right_answers, constant), pool).score == pytest.approx(0.5)


def says_two_at_a_third_copy(tokens: torch.Tensor) -> torch.Tensor:
    """Sorts, but answers 2 wherever a number is to be said for the third time; and errs on lists with 7, 8, 9."""
    answers = tokens[:, 12:].clone()
    answers[:, 2:][tokens[:, 14:] == tokens[:, 12:-2]] = 2
    answers[:, 5][(tokens[:, 1:4] == torch.tensor([7, 8, 9])).all(-1)] = 2
    logits = torch.zeros(len(tokens), 22, 50)
    logits[:, 11:21].scatter_(-1, answers[..., None], 1.0)
    # The nearer to 7, 8, 9, the less sure.
    near = (tokens[:, 1:4] == torch.tensor([7, 8, 9])).sum(-1)
    return logits * (4.0 - near)[:, None, None]


def test_a_pool_of_inputs_with_several_answers() -> None:
    pool = build_pool(says_two_at_a_third_copy, sorted_lists, size=300, draws=20_000)
    right = pool.model_is_right
    assert pool.right_answers.shape == pool.model_answers.shape == (300, 10)
    assert torch.equal(pool.right_answers, pool.tokens[:, 12:])
    wrong = ~right.all(-1)
    assert int(wrong.sum()) == 150
    assert len(pool.tokens.unique(dim=0)) == 300
    # Half of the pool has a mistake somewhere; most answers in it are right all the same.
    assert 0.8 < right.double().mean() < 0.99
    counts = pool.kinds[wrong].bincount(minlength=6)
    assert counts[4:].min() >= 25  # a number three times
    # Mistakes of the other kinds are so rare that they were searched for, and stayed of their kind.
    assert counts[:4].sum() > 20
    assert torch.equal(pool.kinds, sorted_lists.kinds(pool.tokens))
    assert "a mistake somewhere" in pool.how
    assert "the same number of each kind" in pool.how


def test_the_right_half_has_the_kinds_of_the_wrong_one() -> None:
    def forgets_small_triples(tokens: torch.Tensor) -> torch.Tensor:
        answers = tokens[:, 12:].clone()
        answers[:, 0][tokens[:, 12] == tokens[:, 13]] = 49
        return torch.nn.functional.one_hot(torch.nn.functional.pad(answers, (11, 1)), 50).float()

    pool = build_pool(forgets_small_triples, sorted_lists, size=200, draws=20_000, rounds=1)
    wrong = ~pool.model_is_right.all(-1)
    assert pool.kinds[wrong].bincount(minlength=6).tolist() == [0, 0, 25, 25, 25, 25]
    assert pool.kinds[~wrong].bincount(minlength=6).tolist() == [0, 0, 25, 25, 25, 25]
    score = score_answers(pool.model_answers, pool)
    assert (score.score, score.perfect) == (1, 0.5)
    for constant in (0, 25, 49):
        guess = score_answers(torch.full_like(pool.right_answers, constant), pool)
        assert guess.score <= (0.6 if constant == 49 else 0.1)


def test_the_same_seed_gives_the_same_pool() -> None:
    pools = [
        build_pool(rarely_rejects, palindromes, size=200, draws=5000, rounds=2, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert torch.equal(pools[0].tokens, pools[1].tokens)
    assert not torch.equal(pools[0].tokens, pools[2].tokens)


def test_a_model_without_mistakes_has_no_pool() -> None:
    def perfect(tokens: torch.Tensor) -> torch.Tensor:
        return answering(2.0 * palindromes.right_answers(tokens) - 1)

    with pytest.raises(NoMistakesError, match="no mistake on 2,000 hard inputs, nor in 1 rounds of search"):
        build_pool(perfect, palindromes, size=200, draws=2000, rounds=1)


@pytest.mark.parametrize(
    ("available", "total", "taken"),
    [([5, 5], 4, [2, 2]), ([1, 9, 9], 10, [1, 5, 4]), ([0, 3], 10, [0, 3]), ([2, 2], 0, [0, 0])],
)
def test_equal_shares(available: list[int], total: int, taken: list[int]) -> None:
    assert _equal_shares(available, total) == taken
