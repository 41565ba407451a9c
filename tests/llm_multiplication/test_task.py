"""The data of lesson 05: what is held out, how a product is written, and where each digit is read."""

from typing import Any

import pytest
import torch
from torch import Tensor

from exercises_utils.challenges.llm_multiplication import task
from exercises_utils.challenges.llm_multiplication.task import (
    BUNDLED,
    Products,
    Vocabulary,
    all_pairs,
    both_orders,
    digit_at,
    digit_logits,
    make_data,
    n_digits,
    prompt_length,
    read_position,
    right_by_place,
    sequences,
    split,
    str_tokens,
)
from exercises_utils.challenges.llm_multiplication.tokenizer import build_tokenizer

OTHER = Vocabulary(digits=tuple(range(29, 19, -1)), times=3, space=5, equals=7, end=9)


def products(*pairs: tuple[int, int]) -> Products:
    a, b = torch.tensor(pairs).unbind(1)
    return Products(a, b)


def unordered(data: Products) -> set[tuple[int, int]]:
    return {(min(pair), max(pair)) for pair in zip(data.a.tolist(), data.b.tolist(), strict=True)}


# ---- numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [[0, 1, 9, 10, 99, 100, 1000, 98_901, 10**9]])
def test_digits_are_those_of_the_written_number(numbers: list[int]) -> None:
    assert n_digits(torch.tensor(numbers)).tolist() == [len(str(number)) for number in numbers]
    for place in range(5):
        expected = [int(str(number).zfill(5)[::-1][place]) for number in numbers]
        assert digit_at(torch.tensor(numbers), place).tolist() == expected


def test_places_may_differ_by_row() -> None:
    assert digit_at(torch.tensor([5535, 408]), torch.tensor([3, 1])).tolist() == [5, 0]


# ---- the split ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("digits", "n"), [((3, 2), 900 * 90), ((2, 2), 90 * 91 // 2)])
def test_every_pair_is_there_once(digits: tuple[int, int], n: int) -> None:
    pairs = all_pairs(digits)
    assert len(pairs) == n == len(unordered(pairs))
    assert int(n_digits(pairs.a).min()) == int(n_digits(pairs.a).max()) == digits[0]
    assert int(n_digits(pairs.b).min()) == int(n_digits(pairs.b).max()) == digits[1]


@pytest.mark.parametrize("digits", [(3, 2), (2, 2)])
def test_a_tenth_of_the_pairs_is_held_out_in_both_orders(digits: tuple[int, int]) -> None:
    trained, held_out = split(digits)
    assert len(held_out) == int(len(all_pairs(digits)) * 0.1)
    assert len(trained) + len(held_out) == len(all_pairs(digits))
    assert not unordered(both_orders(trained)) & unordered(both_orders(held_out))
    assert split(digits)[1].a.equal(held_out.a)  # the same every time


def test_both_orders_of_a_square_are_one() -> None:
    data = both_orders(products((12, 34), (56, 56), (78, 90)))
    assert list(zip(data.a.tolist(), data.b.tolist(), strict=True)) == [
        (12, 34),
        (56, 56),
        (78, 90),
        (34, 12),
        (90, 78),
    ]


# ---- drawing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held_out", [False, True])
def test_data_is_of_the_side_that_was_asked_for(held_out: bool) -> None:
    data = make_data(500, 1, held_out=held_out)
    assert unordered(data) <= unordered(split()[held_out])
    assert len({*zip(data.a.tolist(), data.b.tolist(), strict=True)}) == 500
    lengths = n_digits(data.a).tolist()
    assert 150 < lengths.count(3) < 350  # both orders


def test_a_seed_says_all() -> None:
    one, same, other = (make_data(50, seed) for seed in (1, 1, 2))
    assert one.a.equal(same.a)
    assert not one.a.equal(other.a)
    assert make_data(50, torch.Generator().manual_seed(1)).a.equal(one.a)
    state = torch.get_rng_state()
    make_data(50, 1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("length", [4, 5])
def test_data_of_one_length(length: int) -> None:
    data = make_data(300, 0, answer_digits=length, order="long first")
    assert (data.n_answer_digits == length).all()
    assert (n_digits(data.a) == 3).all()
    assert data.product.equal(data.a * data.b)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 10, "order": "short first"}, "order is 'short first'"),
        ({"size": 16_201}, "size is 16201; there are 16,200 such"),
        ({"size": 0}, "size is 0"),
        ({"size": 1, "answer_digits": 6}, "there are 0 such"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_data(seed=0, **arguments)


@pytest.mark.parametrize(
    ("a", "b", "message"), [([12, 3], [45, 6], "all must have as many"), ([12], [0], "at least 1")]
)
def test_products_that_are_none_are_refused(a: list[int], b: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Products(torch.tensor(a), torch.tensor(b))


# ---- sequences ---------------------------------------------------------------------------------------------


def test_a_sequence_is_the_text_as_the_tokenizer_cuts_it() -> None:
    tokenizer = build_tokenizer()
    for data in (make_data(40, 3), make_data(40, 3, digits=(2, 2))):
        rows = sequences(data)
        assert rows.shape[1] == prompt_length(data) + int(data.n_answer_digits.max()) + 1
        for row, prompt, product in zip(rows.tolist(), data.prompts, data.product.tolist(), strict=True):
            text = tokenizer.encode(f"{prompt} {product}")
            assert row[0] == BUNDLED.end
            assert row[1 : 1 + len(text)] == text
            assert set(row[1 + len(text) :]) == {BUNDLED.end}
            assert tokenizer.decode(row[1 : 1 + len(text)]) == f"{prompt} {product}"


def test_the_example_of_the_lesson() -> None:
    tokenizer = build_tokenizer()
    ids = [2, 3, 11, 12, 4, 5, 13, 12, 5, 1, 9]
    assert tokenizer.encode("12 x 34 = 408") == ids
    assert tokenizer.decode(ids) == "12 x 34 = 408"
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<unk>"]) == [0, task.UNKNOWN]
    assert tokenizer.encode("1 y 2")[2] == task.UNKNOWN
    assert len(tokenizer) == task.D_VOCAB
    assert Vocabulary.of(tokenizer) == BUNDLED
    assert sequences(products((12, 34))).tolist() == [[0, *ids, 0]]
    assert str_tokens(torch.tensor([0, *ids])) == [
        "<|endoftext|>",
        "1",
        "2",
        " x",
        " ",
        "3",
        "4",
        " =",
        " ",
        "4",
        "0",
        "8",
    ]


def test_another_vocabulary() -> None:
    row = sequences(products((12, 34)), OTHER)[0].tolist()
    assert row == [9, 28, 27, 3, 5, 26, 25, 7, 5, 25, 29, 21, 9]
    assert str_tokens(torch.tensor([9, 28, 3, 99]), OTHER) == ["<|endoftext|>", "1", " x", "<99>"]


def test_a_tokenizer_that_cuts_otherwise_is_refused() -> None:
    class Pairs:
        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            return list(range(max(1, len(text))))

    with pytest.raises(ValueError, match="makes 2 tokens of ' x'"):
        Vocabulary.of(Pairs())


# ---- reading -----------------------------------------------------------------------------------------------


def oracle(data: Products, vocabulary: Vocabulary = BUNDLED, wrong: tuple[int, int] | None = None) -> Tensor:
    """Logits that are right everywhere: at each position, 5 for the token that follows."""
    tokens = sequences(data, vocabulary)
    logits = torch.zeros(*tokens.shape, 30)
    logits[:, :-1].scatter_(2, tokens[:, 1:, None], 5.0)
    if wrong is not None:
        row, position = wrong
        logits[row, position] = logits[row, position].roll(1)
    return logits


@pytest.mark.parametrize("vocabulary", [BUNDLED, OTHER])
def test_each_digit_is_read_where_it_is_predicted(vocabulary: Vocabulary) -> None:
    data = products((123, 45), (999, 99), (10, 100))
    tokens = sequences(data, vocabulary)
    for place in range(4):
        at = read_position(data, place)
        following = tokens[torch.arange(3), at + 1]
        assert following.tolist() == [vocabulary.digits[d] for d in digit_at(data.product, place).tolist()]
        logits = digit_logits(oracle(data, vocabulary), data, place, vocabulary)
        assert logits.shape == (3, 10)
        assert logits.argmax(-1).tolist() == digit_at(data.product, place).tolist()
    with pytest.raises(ValueError, match=r"place is 4 \(ten-thousands\); 1000 has no digit there"):
        digit_logits(oracle(data, vocabulary), data, 4, vocabulary)


def test_right_answers_are_counted_by_place() -> None:
    data = make_data(20, 0, answer_digits=5)
    right = right_by_place(oracle(data), data)
    assert list(right) == ["units", "tens", "hundreds", "thousands", "ten-thousands"]
    assert all(value.all() for value in right.values())
    at = int(read_position(data, 2)[7])
    wrong = right_by_place(oracle(data, wrong=(7, at)), data)
    assert wrong["hundreds"].tolist() == [row != 7 for row in range(20)]
    assert wrong["tens"].all()
    with pytest.raises(ValueError, match=r"\[4, 5\] digits"):
        right_by_place(oracle(products((123, 45), (999, 99))), products((123, 45), (999, 99)))
