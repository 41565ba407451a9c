"""The calls that an answer is tried on: many models, other sizes, other arguments, and a batch of one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from exercises_utils.checking.isolation import Fresh
from exercises_utils.checking.values import Axes, shown


@dataclass(frozen=True)
class Call:
    """One call of the learner's function: how it reads after "on", and the arguments by name.

    What is no parameter of the exercise is left out, so that calls can be shared. `axes` is for an answer whose axes are
    other ones in this call.
    """

    name: str
    arguments: Mapping[str, Any]
    axes: Axes = None

    def positional(self, parameters: tuple[str, ...]) -> tuple[Any, ...]:
        """The arguments in the order of a function's parameters. Raises KeyError for one that is missing."""
        return tuple(self.arguments[name] for name in parameters)


@dataclass
class Draw:
    """What the arguments of one call are drawn from: a model, its own generator, and what was drawn before."""

    name: str
    model: Any
    index: int
    is_lesson: bool
    generator: torch.Generator
    _batch: int
    drawn: dict[str, Any] = field(default_factory=dict)
    used_batch: bool = False

    @property
    def batch(self) -> int:
        """How many sequences are asked for; 1 in one of the calls."""
        self.used_batch = True
        return self._batch

    def __getitem__(self, name: str) -> Any:
        return self.drawn[name]

    def randn(self, *shape: int) -> Tensor:
        """Normal numbers."""
        return torch.randn(*shape, generator=self.generator)

    def randint(self, low: int, high: int, *shape: int) -> Int[Tensor, "..."]:
        """Whole numbers from `low` to `high - 1`."""
        return torch.randint(low, high, shape, generator=self.generator)

    def tokens(self) -> Int[Tensor, "batch position"]:
        """Random sequences of the model's full length, of all its tokens."""
        return self.randint(0, self.model.cfg.d_vocab, self.batch, self.model.cfg.n_ctx)

    def layer(self) -> int:
        """A layer; not the last one of a model with several."""
        return self.index % max(1, self.model.cfg.n_layers - 1)

    def head(self) -> tuple[int, int]:
        """A head (layer, head): not in the last of several layers, and its number is not its layer's where it can be."""
        return self.layer(), (self.index + 1) % self.model.cfg.n_heads


def on_models(
    models: Mapping[str, Fresh], *, seed: int = 0, batch: int = 6, lesson_batch: int = 24, **values: Any
) -> Callable[[], list[Call]]:
    """The calls that every exercise about a model needs, made when they are needed.

    One for each of `models` (the first is the lesson's), and one with a single sequence, on the second, if anything is
    drawn by the batch. Each of `values` is an argument, by its name: a value for all calls, or a function of a `Draw`
    that makes one for each. A name that is no parameter of the exercise is for the functions after it.

        logit_attribution.given(on_models(MODELS, tokens=Draw.tokens))
    """

    def make() -> list[Call]:
        items = list(models.items())
        draws = [
            _draw(i, name, fresh, seed + i, lesson_batch if i == 0 else batch)
            for i, (name, fresh) in enumerate(items)
        ]
        calls = [_call(draw, models[draw.name], values) for draw in draws]
        if any(draw.used_batch for draw in draws):
            i = min(1, len(items) - 1)
            single = _draw(i, items[i][0], items[i][1], seed + len(items), 1)
            calls.append(_call(single, items[i][1], values, "one sequence"))
        return calls

    return make


def _draw(index: int, name: str, fresh: Fresh, seed: int, batch: int) -> Draw:
    generator = torch.Generator().manual_seed(seed)
    return Draw(name, fresh.get(), index, index == 0, generator, batch)


def _call(draw: Draw, fresh: Fresh, values: Mapping[str, Any], *more: str) -> Call:
    for name, value in values.items():
        draw.drawn[name] = value(draw) if callable(value) else value
    named = [_described(name, value) for name, value in draw.drawn.items()]
    return Call(", ".join([draw.name, *filter(None, named), *more]), {"model": fresh, **draw.drawn})


def _described(name: str, value: Any) -> str:
    """How an argument reads in the name of a call; nothing for what is too long."""
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(i, int) for i in value):
        return f"{name} {value[0]}.{value[1]}"
    if isinstance(value, str | int | float | tuple) and len(shown(value)) < 30 and not name.startswith("_"):
        return f"{name} {value if isinstance(value, str) else shown(value)}"
    return ""
