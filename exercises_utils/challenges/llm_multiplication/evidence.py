"""What evidence needs to know of the multiplication task: valid inputs, margins, and inputs that are hard.

`exercises_utils.evidence` scores circuits, counterexamples and simulations, and its `pools` searches for hard
inputs, with these functions as their only knowledge of the task. They are for the bundled model and its tokens.

An input is a multiplication whose numbers have five digits together, so that the product begins at the same
position in all of them. It has five answers, in the order in which they are written: what the model predicts with the
right digits fed, first digit first. A product of four digits is followed by END, and that is the fifth answer.
"""

import dataclasses
import functools

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from exercises_utils.challenges.llm_multiplication.task import (
    BUNDLED,
    DIGITS,
    Products,
    all_pairs,
    both_orders,
    n_digits,
    sequences,
    split,
    str_tokens,
)
from exercises_utils.evidence import Pool, SimulationScore, score_answers

N_CTX = 16
"""END, five digits and four signs, five digits of the product or four and END, and END."""
N_OPERAND_DIGITS = sum(DIGITS)
EQUALS_POSITION = 8
ANSWER_POSITIONS = range(9, 14)
"""Where the five answers are read: one before the token that is predicted."""

ENDED, SIGN = 10, 11
"""Answers that are no digit: END, and any other sign."""
N_ANSWERS = 12

CHANCE = 0.18
"""The share of right digits for whoever knows nothing of a product and always gives the most frequent digits.

That is of three digits times two with a product of five, which circuits are scored on: a 1 as the ten-thousands is
right for 29 % of them, a 0 as the units for 26 %, the best other digits for 10 to 12 %.
"""

NEAR = 100
"""A product is near a round thousand if it is less than this below one, or not this much above one."""

KINDS: tuple[str, ...] = ("held out, near a round thousand", "held out, not near one", "trained on")

HARD_INPUTS = (
    "Numbers of three and two digits, in both orders: one half from the pairs that were held out of the training, one "
    "half from those trained on."
)

SITES: tuple[tuple[int, int, int], ...] = tuple(
    (layer, head, position)
    for layer in range(4)
    for head in range(4)
    for position in (range(1, ANSWER_POSITIONS.stop) if layer < 3 else ANSWER_POSITIONS)
)
"""Heads at positions that can matter: END sees only itself, the answers are read at 9 to 13, and nothing looks ahead."""

N_DRAWS, N_CIRCUIT_INPUTS, CIRCUIT_SIZES = 40_000, 24, (30, 45, 60)
"""Fewer than for the other challenges: this model takes a hundred times as long."""


def tokens_of(products: Products) -> Int[Tensor, "input 16"]:
    """The products as inputs. Their numbers have five digits together.

    >>> tokens_of(Products(torch.tensor([100]), torch.tensor([10])))
    tensor([[ 0,  2,  1,  1, 11, 12,  2,  1, 13, 12,  2,  1,  1,  1,  0,  0]])
    """
    tokens = sequences(products)
    return torch.nn.functional.pad(tokens, (0, N_CTX - tokens.shape[1]), value=BUNDLED.end)


def products_of(tokens: Int[Tensor, "input 16"]) -> Products:
    """The multiplications of valid inputs."""
    a, b = torch.zeros(2, len(tokens), dtype=torch.long)
    second = torch.zeros(len(tokens), dtype=torch.bool)
    for position in range(1, EQUALS_POSITION):
        token = tokens[:, position].cpu()
        second |= token == BUNDLED.times
        digit = (token >= BUNDLED.digits[0]) & (token <= BUNDLED.digits[-1])
        value = token - BUNDLED.digits[0]
        a = torch.where(digit & ~second, 10 * a + value, a)
        b = torch.where(digit & second, 10 * b + value, b)
    return Products(a, b)


def why_invalid(tokens: Int[Tensor, " position"]) -> str | None:
    """Why a sequence is not a valid input, or None if it is: END, `a x b = c` and END, and c is the product.

    >>> why_invalid(torch.tensor([0, 2, 3, 11]))
    'has 4 tokens; expected 16: END, five digits and the signs of a multiplication, its product, and END'
    """
    if len(tokens) != N_CTX:
        return (
            f"has {len(tokens)} tokens; expected {N_CTX}: END, five digits and the signs of a multiplication, its "
            "product, and END"
        )
    names = str_tokens(tokens)
    written = "".join(names[1:]).split("<|endoftext|>")[0]
    if names[0] != "<|endoftext|>":
        return f"begins with {names[0]!r}; expected END (token {BUNDLED.end})"
    prompt, equals, answer = written.partition(" = ")
    factors = prompt.split(" x ")
    if not equals or len(factors) != 2 or not all(factor.isdecimal() for factor in factors):
        return f'reads "{written}"; expected two numbers and their product, such as "123 x 45 = 5535"'
    a, b = (int(factor) for factor in factors)
    if sum(map(len, factors)) != N_OPERAND_DIGITS:
        return (
            f"multiplies {factors[0]} by {factors[1]}: {sum(map(len, factors))} digits; expected "
            f"{N_OPERAND_DIGITS} in both numbers together"
        )
    if any(factor.startswith("0") for factor in factors):
        return f"multiplies {factors[0]} by {factors[1]}; no number may begin with 0"
    if answer != str(a * b):
        return (
            f"says {a} x {b} = {answer or 'nothing'}; the right product, {a * b}, must follow the equals sign"
        )
    if any(name != "<|endoftext|>" for name in names[EQUALS_POSITION + 2 + len(answer) :]):
        return f"goes on after the product of {a} x {b}; expected END (token {BUNDLED.end}) up to the last position"
    return None


def in_distribution(tokens: Int[Tensor, "input 16"]) -> Bool[Tensor, " input"]:
    """Whether the numbers have three digits and two, in either order, as in training (held-out pairs included)."""
    products = products_of(tokens)
    return torch.minimum(n_digits(products.a), n_digits(products.b)) == min(DIGITS)


def right_answers(tokens: Int[Tensor, "input 16"]) -> Int[Tensor, "input 5"]:
    """What is written: the digits of the product, first digit first, and `ENDED` after a product of four."""
    return _answers(tokens[:, ANSWER_POSITIONS.start + 1 : ANSWER_POSITIONS.stop + 1])


def answers(logits: Float[Tensor, "input position vocabulary"]) -> Int[Tensor, "input 5"]:
    """The model's five answers: digits, `ENDED`, or `SIGN`."""
    return _answers(logits[:, ANSWER_POSITIONS.start : ANSWER_POSITIONS.stop].argmax(-1))


def margin(
    logits: Float[Tensor, "input position vocabulary"], tokens: Int[Tensor, "input 16"]
) -> Float[Tensor, " input"]:
    """The largest lead of a wrong token over the right one, among the five answers: above 0 the model is wrong."""
    read = logits[:, ANSWER_POSITIONS.start : ANSWER_POSITIONS.stop]
    right = tokens[:, ANSWER_POSITIONS.start + 1 : ANSWER_POSITIONS.stop + 1, None].to(read.device)
    wrong = read.scatter(-1, right, float("-inf")).amax(-1)
    return (wrong - read.gather(-1, right)[..., 0]).amax(-1)


def kinds(tokens: Int[Tensor, "input 16"]) -> Int[Tensor, " input"]:
    """Which of `KINDS` each multiplication of three digits and two is."""
    products = products_of(tokens)
    held_out = torch.where(near_a_thousand(products.product), 0, 1)
    return torch.where(_held_out()[_code(products)], held_out, len(KINDS) - 1)


def typical_inputs(size: int, generator: Generator) -> Int[Tensor, "input 16"]:
    """Three digits times two with a product of five, all alike position by position: what circuits are scored on."""
    pairs = all_pairs()
    return tokens_of(_some(pairs[pairs.n_answer_digits == N_OPERAND_DIGITS], size, generator))


def random_inputs(size: int, generator: Generator) -> Int[Tensor, "input 16"]:
    """Multiplications as the model was trained on: three digits and two in both orders, products of any length."""
    return tokens_of(_some(both_orders(all_pairs()), size, generator))


def hard_inputs(size: int, generator: Generator) -> Int[Tensor, "input 16"]:
    """Multiplications on which the model is tested hard; `HARD_INPUTS` says which."""
    half = size // 2
    trained, held_out = split()
    drawn = _some(both_orders(held_out), size - half, generator), _some(both_orders(trained), half, generator)
    return tokens_of(
        Products(*(torch.cat([some.a for some in drawn]), torch.cat([some.b for some in drawn])))
    )


def neighbours(tokens: Int[Tensor, "input 16"], generator: Generator) -> Int[Tensor, "input 16"]:
    """Each multiplication with one digit of one number changed by one; no first digit becomes 0."""
    products = products_of(tokens)
    second = torch.rand(len(tokens), generator=generator) < 0.5
    number = torch.where(second, products.b, products.a)
    length = n_digits(number)
    unit = 10 ** (torch.rand(len(tokens), generator=generator) * length).long()
    sign = torch.where(torch.rand(len(tokens), generator=generator) < 0.5, -1, 1)
    changed = number + sign * unit
    digit = number // unit % 10 + sign
    fits = (digit >= 0) & (digit < 10) & (changed > 0) & (n_digits(changed) == length)
    number = torch.where(fits, changed, number)
    return tokens_of(
        Products(torch.where(second, products.a, number), torch.where(second, number, products.b))
    )


def near_a_thousand(product: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
    """Whether each product is less than `NEAR` below a multiple of 1,000, or not as much above one."""
    return (product % 1000 < NEAR) | (product % 1000 >= 1000 - NEAR)


def score_by_place(answers: Int[Tensor, "input 5"], pool: Pool, n_numbers: int = 0) -> SimulationScore:
    """`evidence.score_answers`, with the right answers weighted so that each place counts as in the wrong ones.

    Most mistakes are in two places. Over all answers alike, "the hundreds are always one too large" would agree with
    many of the mistakes and lose only a fifth of the rest, without knowing when the model errs.
    """
    plain = score_answers(answers, pool, n_numbers)
    right, length = pool.model_is_right, n_digits(products_of(pool.tokens).product)
    place = length[:, None] - torch.arange(N_OPERAND_DIGITS)  # 1: units; 0: after the product
    weight = torch.zeros(place.shape, dtype=torch.float64)
    for one in place.unique().tolist():
        here = place == one
        n_right = int((here & right).sum())
        if n_right:
            weight[here & right] = int((here & ~right).sum()) / n_right

    def where_right(of: Tensor) -> float:
        return float((weight * (of == pool.model_answers)).sum() / weight.sum())

    def score(of: Tensor) -> float:
        wrong = (of == pool.model_answers)[~right].double().mean()
        return (where_right(of) + float(wrong)) / 2

    return dataclasses.replace(
        plain,
        score=score(answers),
        where_right=where_right(answers),
        perfect=score(pool.right_answers),
        opposite=score((pool.right_answers + 1) % pool.n_answers),
    )


def _answers(tokens: Int[Tensor, "input 5"]) -> Int[Tensor, "input 5"]:
    digit = (tokens >= BUNDLED.digits[0]) & (tokens <= BUNDLED.digits[-1])
    return torch.where(digit, tokens - BUNDLED.digits[0], torch.where(tokens == BUNDLED.end, ENDED, SIGN))


@functools.cache
def _held_out() -> Bool[Tensor, " pair"]:
    """Whether a pair was held out, by its code."""
    held_out = torch.zeros(1000 * 100, dtype=torch.bool)
    held_out[_code(split()[1])] = True
    return held_out


def _code(products: Products) -> Int[Tensor, " input"]:
    """A number for each unordered pair of three digits and two."""
    return 100 * torch.maximum(products.a, products.b) + torch.minimum(products.a, products.b)


def _some(products: Products, size: int, generator: Generator) -> Products:
    return products[torch.randint(len(products), (size,), generator=generator)]
