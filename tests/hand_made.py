"""Models whose circuit is known because their weights are written here, number by number.

All are attention only and without LayerNorm, so what each head does can be read off. The residual stream
holds one dimension for each token, one for each position, one for each answer (which the unembedding
reads), and a few spare ones. Scores are so far apart that a softmax over them is one-hot in float32.

Each comes with all inputs of its task, every answer equally often, so a model that ignores its input is
right on exactly the share `chance`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from exercises_utils.models.architecture import ModelConfig
from exercises_utils.models.native import build_model

STRONG = 100.0
N_VALUES = 4
END = N_VALUES


@dataclass(frozen=True)
class HandMade:
    """A model, its task, and what is known about it by construction."""

    model: Any
    tokens: Tensor  # (input, position): every input of the task
    answers: Tensor  # (input,)
    chance: float
    circuit: tuple[tuple[int, int], ...]  # the heads that do all the work
    sites: tuple[tuple[int, int, int], ...] = ()  # and where they do it

    def accuracy(self, logits: Tensor) -> float:
        """The share of right answers at the last position."""
        return float((logits[:, -1].argmax(-1) == self.answers).double().mean())


class Weights:
    """A state dict of zeros, with methods that write a head, by the names of the stream's dimensions."""

    def __init__(self, n_layers: int, n_heads: int, n_positions: int, n_answers: int) -> None:
        tokens = [f"token {token}" for token in range(N_VALUES + 1)]
        positions = [f"position {position}" for position in range(n_positions)]
        answers = [f"answer {answer}" for answer in range(n_answers)]
        self.dims = {name: i for i, name in enumerate([*tokens, *positions, *answers, "flag", "unread"])}
        self.config = ModelConfig(
            n_layers=n_layers,
            d_model=len(self.dims),
            n_heads=n_heads,
            d_head=8,
            n_ctx=n_positions,
            d_vocab=N_VALUES + 1,
            d_vocab_out=n_answers,
            normalization=None,
            attention_biases=False,
        )
        self.state = {name: torch.zeros(shape) for name, shape in self.config.shapes().items()}
        for token in range(N_VALUES + 1):
            self.state["embed.weight"][token, self.dims[f"token {token}"]] = 1
        for position in range(n_positions):
            self.state["pos_embed.weight"][position, self.dims[f"position {position}"]] = 1
        for answer in range(n_answers):
            self.state["unembed.weight"][answer, self.dims[f"answer {answer}"]] = 1

    def attend(
        self, head: tuple[int, int], query: str, key: str, score: float = STRONG, column: int = 0
    ) -> None:
        """The head's score is `score` more from where dimension `query` is 1 to where dimension `key` is "
        "1."""
        self._write("q", head, column, query, score * self.config.d_head**0.5)
        self._write("k", head, column, key, 1.0)

    def copy(self, head: tuple[int, int], source: str, target: str, column: int, factor: float = 1.0) -> None:
        """The head adds `factor` times the attended dimension `source` to dimension `target`."""
        self._write("v", head, column, source, 1.0)
        layer, index = head
        width = index * self.config.d_head + column
        self.state[f"blocks.{layer}.attn.o.weight"][self.dims[target], width] = factor

    def _write(self, letter: str, head: tuple[int, int], column: int, dimension: str, value: float) -> None:
        layer, index = head
        row = index * self.config.d_head + column
        self.state[f"blocks.{layer}.attn.{letter}.weight"][row, self.dims[dimension]] = value

    def copy_value(self, head: tuple[int, int], values: range = range(N_VALUES), factor: float = 1.0) -> None:
        """The head copies the attended token, if it is one of `values`, to the answer of that number."""
        for column, value in enumerate(values):
            self.copy(head, f"token {value}", f"answer {value}", column, factor)

    def model(self) -> Any:
        """The model with these weights."""
        return build_model(self.config, self.state, device="cpu")


def _read_first(
    write: Callable[[Weights], None], n_heads: int, circuit: tuple[tuple[int, int], ...]
) -> HandMade:
    """Task: two values, then END; the answer at END is the first value. `write` writes the heads."""
    weights = Weights(n_layers=1, n_heads=n_heads, n_positions=3, n_answers=N_VALUES)
    write(weights)
    tokens = torch.tensor([(*values, END) for values in product(range(N_VALUES), repeat=2)])
    return HandMade(
        model=weights.model(),
        tokens=tokens,
        answers=tokens[:, 0],
        chance=1 / N_VALUES,
        circuit=circuit,
        sites=tuple((*head, 2) for head in circuit),
    )


def one_head() -> HandMade:
    """Head 1 reads the answer. The other three are decoys, each of another kind, and louder than head 1."""

    def write(weights: Weights) -> None:
        for head in range(4):
            weights.attend((0, head), f"token {END}", "position 0")
        weights.copy_value((0, 1))
        for value in range(N_VALUES):
            # Head 0 reads the right value and writes it where the unembedding does not look.
            weights.copy((0, 0), f"token {value}", "unread", value, factor=50.0 * (value + 1))
            # Head 2 adds the same number to every answer: softmax and argmax do not see it.
            for answer in range(N_VALUES):
                weights.copy((0, 2), f"token {value}", f"answer {answer}", value, factor=50.0 * value)
            # Head 3 reads the value and writes nothing.
            weights.copy((0, 3), f"token {value}", "unread", value, factor=0.0)

    return _read_first(write, n_heads=4, circuit=((0, 1),))


def redundant_pair() -> HandMade:
    """Heads 0 and 2 both read the answer, and either would do. Head 1 does nothing."""

    def write(weights: Weights) -> None:
        for head in (0, 2):
            weights.attend((0, head), f"token {END}", "position 0")
            weights.copy_value((0, head))

    return _read_first(write, n_heads=3, circuit=((0, 0), (0, 2)))


def split_values() -> HandMade:
    """Head 0 reads the values 0 and 1, head 1 the values 2 and 3. Each alone scores 2/3; see the test."""

    def write(weights: Weights) -> None:
        for head in range(3):
            weights.attend((0, head), f"token {END}", "position 0")
        weights.copy_value((0, 0), range(0, 2))
        weights.copy_value((0, 1), range(2, 4))

    return _read_first(write, n_heads=3, circuit=((0, 0), (0, 1)))


def saboteur() -> HandMade:
    """Head 0 reads the answer; head 1 spoils it for the value 3, so the model is better without it: score "
    "3/2."""

    def write(weights: Weights) -> None:
        for head in range(2):
            weights.attend((0, head), f"token {END}", "position 0")
        weights.copy_value((0, 0))
        weights.copy((0, 1), "token 3", "answer 0", 0, factor=3.0)

    return _read_first(write, n_heads=2, circuit=((0, 0),))


def equal_pair() -> HandMade:
    """Two layers, two heads, both needed: are the two values equal? Heads (0, 1) and (1, 0) answer.

    At position 1, head (0, 1) attends to position 0 where the token there is the same, else to itself, and
    writes "flag" where it attended to position 0. At END, head (1, 0) reads the flag at position 1. Head
    (0, 0) is a decoy that reads both values to END and writes them where nobody looks; head (1, 1) attends
    to position 1 as the good one does, and writes the flag on both answers alike.
    """
    weights = Weights(n_layers=2, n_heads=2, n_positions=3, n_answers=2)
    for value in range(N_VALUES):
        weights.attend((0, 1), f"token {value}", f"token {value}", score=2 * STRONG, column=value)
    weights.attend((0, 1), "position 1", "position 0", column=N_VALUES)
    weights.copy((0, 1), "position 0", "flag", 0)
    for value in range(N_VALUES):
        weights.copy((0, 0), f"token {value}", "unread", value, factor=50.0 * (value + 1))
    for head in ((1, 0), (1, 1)):
        weights.attend(head, f"token {END}", "position 1")
    weights.copy((1, 0), "flag", "answer 1", 0)
    for answer in range(2):
        weights.copy((1, 1), "flag", f"answer {answer}", 0, factor=50.0)
    weights.state["unembed.bias"][0] = 0.5
    pairs = [(first, second) for first, second in product(range(N_VALUES), repeat=2) if first != second]
    equal = [(value, value) for value in range(N_VALUES)] * (len(pairs) // N_VALUES)
    tokens = torch.tensor([(*values, END) for values in pairs + equal])
    return HandMade(
        model=weights.model(),
        tokens=tokens,
        answers=(tokens[:, 0] == tokens[:, 1]).long(),
        chance=0.5,
        circuit=((0, 1), (1, 0)),
        sites=((0, 1, 1), (1, 0, 2)),
    )


ALL: dict[str, Callable[[], HandMade]] = {
    "one head, three decoys": one_head,
    "redundant pair": redundant_pair,
    "values split between two": split_values,
    "a head that spoils": saboteur,
    "two layers, both needed": equal_pair,
}
