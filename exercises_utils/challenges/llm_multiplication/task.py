"""The multiplication task: two numbers as a language model reads them, and the digits of their product.

The text is `123 x 45 = 5535`, one token a digit, and ` x`, ` `, ` =`, ` ` between them, as Qwen's tokenizer has it.
A sequence is "<|endoftext|>" (Qwen has no BOS token of its own; the course puts this one first, on purpose), the
text, and "<|endoftext|>" again where the product ends. The first digit of the product is predicted at the space
before it, each other one at the digit before it: with the right digits fed (teacher forcing), every digit is read
where it is predicted.

Places are counted from the right: the units have place 0, the tens 1, and so on. That is the same digit of the
product whatever its length, while the *first* digit of 408 and of 4080 are not.

The analysis that the lesson starts from is "LLM multiplication" in the write-ups (2025), which reads
Qwen2.5-0.5B. The data here is the course's own.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from exercises_utils.tools import TaskData

CHALLENGE = "llm_multiplication"
END, TIMES, SPACE, EQUALS = "<|endoftext|>", " x", " ", " ="
DIGITS = (3, 2)
"""How many digits the numbers have that the bundled model multiplies."""
PLACES = ("units", "tens", "hundreds", "thousands", "ten-thousands")
HELD_OUT_SEED = 0
HELD_OUT_SHARE = 0.1


@dataclass(frozen=True)
class Vocabulary:
    """The ids of the tokens that a product is written with, in one model's tokenizer."""

    digits: tuple[int, ...]  # of "0" to "9"
    times: int
    space: int
    equals: int
    end: int

    @classmethod
    def of(cls, tokenizer: Any) -> "Vocabulary":
        """The ids in this tokenizer. Raises ValueError where a digit or a sign is not one token.

        >>> Vocabulary.of(model.tokenizer).digits                # doctest: +SKIP
        (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
        """

        def one(text: str) -> int:
            ids = tokenizer.encode(text, add_special_tokens=False)
            if len(ids) != 1:
                raise ValueError(
                    f"this tokenizer makes {len(ids)} tokens of {text!r}; the lesson needs one token for each digit and sign"
                )
            return int(ids[0])

        return cls(
            digits=tuple(one(str(digit)) for digit in range(10)),
            times=one(TIMES),
            space=one(SPACE),
            equals=one(EQUALS),
            end=one(END),
        )


BUNDLED = Vocabulary(digits=tuple(range(1, 11)), times=11, space=12, equals=13, end=0)
"""The bundled model's tokens. `tokenizer.py` builds the tokenizer that gives these ids."""
D_VOCAB = 15
UNKNOWN = 14


@dataclass(frozen=True)
class Products(TaskData):
    """Multiplications, one a row. All rows have as many digits to multiply, so all prompts are of one length."""

    a: Int[Tensor, " batch"]
    b: Int[Tensor, " batch"]

    def __post_init__(self) -> None:
        if self.a.shape != self.b.shape or self.a.ndim != 1:
            raise ValueError(
                f"a has shape {tuple(self.a.shape)} and b {tuple(self.b.shape)}; expected (batch,) for both."
            )
        if len(self.a) and min(int(self.a.min()), int(self.b.min())) < 1:
            raise ValueError("a and b must be whole numbers of at least 1, without leading zeros.")
        total = n_digits(self.a) + n_digits(self.b)
        if len(self.a) and (total != total[0]).any():
            raise ValueError(
                f"the rows have {sorted(set(total.tolist()))} digits to multiply; all must have as many, so that their "
                "prompts are of one length."
            )

    @property
    def product(self) -> Int[Tensor, " batch"]:
        """The right answers."""
        return self.a * self.b

    @property
    def prompts(self) -> list[str]:
        """The texts to go on from, such as "123 x 45 =". A space and the product follow."""
        return [
            f"{a}{TIMES}{SPACE}{b}{EQUALS}" for a, b in zip(self.a.tolist(), self.b.tolist(), strict=True)
        ]

    @property
    def n_answer_digits(self) -> Int[Tensor, " batch"]:
        """How many digits each product has."""
        return n_digits(self.product)

    def __len__(self) -> int:
        return len(self.a)

    def __getitem__(self, rows: Any) -> "Products":
        """The chosen rows: a slice, indices, or a boolean a row."""
        return Products(self.a[rows], self.b[rows])


def n_digits(numbers: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """How many digits each whole number has; 1 for 0."""
    return 1 + sum((numbers >= 10**power).long() for power in range(1, 12))


def digit_at(numbers: Int[Tensor, "..."], place: int | Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """The digit at a place of each number: place 0 is the units.

    >>> digit_at(torch.tensor([5535, 408]), 1)
    tensor([3, 0])
    """
    return numbers // 10 ** torch.as_tensor(place) % 10


def prompt_length(products: Products) -> int:
    """How many tokens come before the product: END, both numbers, ` x`, ` `, ` =`, ` `."""
    return 5 + int(n_digits(products.a[0]) + n_digits(products.b[0]))


def sequences(products: Products, vocabulary: Vocabulary = BUNDLED) -> Int[Tensor, "batch position"]:
    """The token ids: END, the prompt, a space, the right product, END; shorter products are padded with END.

    >>> sequences(Products(torch.tensor([12]), torch.tensor([34])))
    tensor([[ 0,  2,  3, 11, 12,  4,  5, 13, 12,  5,  1,  9,  0]])
    """
    length_a, length_b = n_digits(products.a), n_digits(products.b)
    ids = torch.tensor(vocabulary.digits)
    rows = []
    width = int(products.n_answer_digits.max())
    for first in length_a.unique().tolist():
        chosen = length_a == first
        here = products[chosen]
        column = torch.ones(len(here), 1, dtype=torch.long)
        answer = torch.full((len(here), width + 1), vocabulary.end)
        length = here.n_answer_digits
        for n in length.unique().tolist():
            same = length == n
            answer[same, :n] = ids[_written(here.product[same], n)]
        tokens = torch.cat(
            [
                column * vocabulary.end,
                ids[_written(here.a, first)],
                column * vocabulary.times,
                column * vocabulary.space,
                ids[_written(here.b, int(length_b[chosen][0]))],
                column * vocabulary.equals,
                column * vocabulary.space,
                answer,
            ],
            dim=1,
        )
        rows.append((chosen.nonzero()[:, 0], tokens))
    out = torch.empty(len(products), rows[0][1].shape[1], dtype=torch.long)
    for where, tokens in rows:
        out[where] = tokens
    return out


def read_position(products: Products, place: int | Int[Tensor, "..."]) -> Int[Tensor, " batch"]:
    """The position at which the digit at this place is predicted: one before it stands."""
    return prompt_length(products) - 1 + products.n_answer_digits - 1 - place


def all_pairs(digits: tuple[int, int] = DIGITS) -> Products:
    """Every unordered pair of numbers with so many digits, once: the larger number first where lengths differ."""
    first, second = (torch.arange(10 ** (n - 1), 10**n) for n in digits)
    a, b = (grid.flatten() for grid in torch.meshgrid(first, second, indexing="ij"))
    once = a >= b if digits[0] == digits[1] else torch.ones_like(a, dtype=torch.bool)
    return Products(a[once], b[once])


@functools.cache
def _held_out(digits: tuple[int, int]) -> Bool[Tensor, " pair"]:
    """For each of `all_pairs(digits)`, whether it is held out."""
    n = len(all_pairs(digits))
    held_out = torch.zeros(n, dtype=torch.bool)
    held_out[
        torch.randperm(n, generator=Generator().manual_seed(HELD_OUT_SEED))[: int(n * HELD_OUT_SHARE)]
    ] = True
    return held_out


def split(digits: tuple[int, int] = DIGITS) -> tuple[Products, Products]:
    """The unordered pairs to train on, and the tenth that is held out.

    A pair is held out in both orders: 12 x 34 and 34 x 12 are on the same side.
    """
    pairs, held_out = all_pairs(digits), _held_out(digits)
    return pairs[~held_out], pairs[held_out]


def both_orders(pairs: Products) -> Products:
    """Each pair as a x b and, unless the two are equal, as b x a: first all of the one, then all of the other."""
    other = pairs.a != pairs.b
    return Products(torch.cat([pairs.a, pairs.b[other]]), torch.cat([pairs.b, pairs.a[other]]))


def make_data(
    size: int,
    seed: int | Generator,
    *,
    digits: tuple[int, int] = DIGITS,
    held_out: bool = True,
    answer_digits: int | None = None,
    order: str = "both",
) -> Products:
    """`size` different multiplications, drawn at random. A seed gives the same on every device.

    Args:
        size: how many.
        seed: of the draw, or a generator.
        digits: of the two numbers.
        held_out: from the pairs that were held out of the training; False: from those trained on.
        answer_digits: only products with so many digits.
        order: "both", or "long first": the number with more digits comes first.

    Raises:
        ValueError: an unknown order, or more than there are.
    """
    if order not in ("both", "long first"):
        raise ValueError(f'order is {order!r}; expected "both" or "long first".')
    pairs = split(digits)[held_out]
    everything = both_orders(pairs) if order == "both" else pairs
    if answer_digits is not None:
        everything = everything[everything.n_answer_digits == answer_digits]
    if not 1 <= size <= len(everything):
        raise ValueError(f"size is {size}; there are {len(everything):,} such multiplications.")
    generator = seed if isinstance(seed, Generator) else Generator().manual_seed(seed)
    return everything[torch.randperm(len(everything), generator=generator)[:size]]


def digit_logits(
    logits: Float[Tensor, "batch position vocabulary"],
    products: Products,
    place: int,
    vocabulary: Vocabulary = BUNDLED,
) -> Float[Tensor, "batch 10"]:
    """The logits of "0" to "9" where the digit at `place` is predicted. Every product must have that place."""
    if int(products.n_answer_digits.min()) <= place:
        raise ValueError(f"place is {place} ({PLACES[place]}); {products.product.min()} has no digit there.")
    at = read_position(products, place).to(logits.device)
    return logits[torch.arange(len(products), device=logits.device), at][:, list(vocabulary.digits)]


def right_by_place(
    logits: Float[Tensor, "batch position vocabulary"], products: Products, vocabulary: Vocabulary = BUNDLED
) -> dict[str, Bool[Tensor, " batch"]]:
    """For each place, units first, whether the top token of the whole vocabulary is the right digit there.

    Every product must have as many digits (see `make_data(answer_digits=...)`).
    """
    length = products.n_answer_digits
    if (length != length[0]).any():
        raise ValueError(f"the products have {sorted(set(length.tolist()))} digits; expected one length.")
    rows = torch.arange(len(products), device=logits.device)
    ids = torch.tensor(vocabulary.digits, device=logits.device)
    right = {}
    for place in range(int(length[0])):
        top = logits[rows, read_position(products, place).to(logits.device)].argmax(-1)
        right[PLACES[place]] = top == ids[digit_at(products.product, place).to(logits.device)]
    return right


def str_tokens(tokens: Int[Tensor, " position"], vocabulary: Vocabulary = BUNDLED) -> list[str]:
    """The tokens of one sequence as text: "<|endoftext|>", "1", "2", " x", " ", …"""
    names: Mapping[int, str] = {
        **{token: str(digit) for digit, token in enumerate(vocabulary.digits)},
        vocabulary.times: TIMES,
        vocabulary.space: SPACE,
        vocabulary.equals: EQUALS,
        vocabulary.end: END,
    }
    return [names.get(token, f"<{token}>") for token in tokens.tolist()]


def _written(numbers: Int[Tensor, " batch"], length: int) -> Int[Tensor, "batch length"]:
    """The digits of each number as they are written, the units last."""
    return numbers[:, None] // 10 ** torch.arange(length - 1, -1, -1) % 10
