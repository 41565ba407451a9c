"""The game at the start of lesson 03: type twenty values, and try to break the palindrome model."""

import random
from typing import Any

import torch

from exercises_utils import plotting
from exercises_utils.challenges.palindromes import task
from exercises_utils.plotting.play import Game, Reply, read_numbers

TITLE = "The palindrome model"
FIRST = "3 17 25 5 9 11 0 2 30 8 8 30 2 0 11 9 7 25 17 3"
ANSWERS = ("no palindrome", "palindrome")


def reply(model: Any, text: str) -> Reply:
    """What the model makes of twenty values; raises `ValueError` where there are not twenty of them."""
    values = read_numbers(text, count=task.LENGTH, low=0, high=task.N_VALUES - 1)
    tokens = torch.tensor([task.START, *values, task.END])
    logits, cache = model.run_with_cache(tokens[None])
    pairs = {(i, task.mirror(i)): values[i - 1] == values[-i] for i in range(1, task.N_PAIRS + 1)}
    return Reply(
        task.str_tokens(tokens),
        dict(zip(ANSWERS, logits[0, -1].softmax(-1).tolist(), strict=True)),
        right=ANSWERS[all(pairs.values())],
        attention={
            f"head {layer}.{head}": cache["pattern", layer][0, head]
            for layer in range(model.cfg.n_layers)
            for head in range(model.cfg.n_heads)
        },
        links=pairs,
    )


def new_palindrome(text: str) -> str:
    """Another palindrome, whatever stood there."""
    half = [random.randrange(task.N_VALUES) for _ in range(task.N_PAIRS)]
    return _written([*half, *reversed(half)])


def mirrored(text: str) -> str:
    """The first ten values, and the same in reverse order.

    >>> mirrored("1 2 3 4 5 6 7 8 9 10")
    '1 2 3 4 5 6 7 8 9 10 10 9 8 7 6 5 4 3 2 1'
    """
    half = text.split()[: task.N_PAIRS]
    read_numbers(" ".join(half), count=task.N_PAIRS, low=0, high=task.N_VALUES - 1)
    return " ".join([*half, *reversed(half)])


def one_changed(text: str) -> str:
    """The same values but for one, at a place drawn at random."""
    values = read_numbers(text, count=task.LENGTH, low=0, high=task.N_VALUES - 1)
    place = random.randrange(task.LENGTH)
    values[place] = (values[place] + random.randrange(1, task.N_VALUES)) % task.N_VALUES
    return _written(values)


def _written(values: list[int]) -> str:
    return " ".join(map(str, values))


def play(model: Any) -> Game:
    """Show the game, and return it: `game.best_failure` is the most confident wrong answer so far, or None."""
    buttons = {
        "new palindrome": new_palindrome,
        "mirror the first half": mirrored,
        "change one value": one_changed,
    }
    return plotting.play(lambda text: reply(model, text), start=FIRST, title=TITLE, buttons=buttons)
