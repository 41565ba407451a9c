"""One case of a check: a call, what is right, and what known slips would give. Plain data, and no code of a learner's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from exercises_utils.checking.forms import shape_problem, type_problem
from exercises_utils.checking.values import Axes, UnusualValue, kind, plain, same


class _Sentinel:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


ANYTHING = _Sentinel("ANYTHING")
"""Expected by a case that leaves the judgement to its `requires`."""


@dataclass(frozen=True)
class Case:
    """One call of the learner's function, or one look at the learner's value, and what is right.

    - `name` reads after "on": "the lesson's model", "a random model with 3 heads".
    - `arguments` are passed by position; a `Fresh` stands for what its factory makes. Without arguments, the
      answer is a value (or a function of no arguments). `parameters` are their names.
    - `axes` names the axes of an expected tensor, or the items of an expected tuple; for a tuple or dict of tensors it
      maps each item's name to the names of its axes.
    - `mistakes` maps a message to the wrong value that a mistake gives, or to a function of no arguments that
      computes it. The same message in several cases is one mistake, and has to explain all of them. `both` gives the
      value of two mistakes at once, by their messages.
    - `atol` is in the answer's own unit and `rtol` relative to each number; by default 1e-5 of the largest
      expected number, and 1e-4.
    - `requires` is for answers of which several are right: it returns a message for a wrong value, None for
      a right one. `expected` then shows only the type and the shape, and may be left out.
    """

    NO_VALUE: ClassVar[Any] = _Sentinel("NO_VALUE")
    """What a mistake gives that cannot be made in a case: its code raises."""

    name: str
    arguments: tuple[Any, ...] = ()
    expected: Any = ANYTHING
    axes: Axes = None
    mistakes: Mapping[str, Any] = field(default_factory=dict)
    atol: float | None = None
    rtol: float | None = None
    requires: Callable[[Any], str | None] | None = None
    both: Callable[[str, str], Any] | None = None
    parameters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.expected is not ANYTHING:
            object.__setattr__(self, "expected", plain(self.expected))
        elif self.requires is None:
            raise ValueError(
                f"the case {self.name!r} has neither `expected` nor `requires`: anything would pass"
            )

    def wrong_value(self, message: str) -> Any:
        """The value that the mistake with this message gives, or `NO_VALUE`."""
        wrong = self.mistakes[message]
        value = wrong() if callable(wrong) else wrong
        return value if value is self.NO_VALUE else plain(value)

    def is_right(self, value: Any) -> bool:
        """Whether a converted value is right."""
        if self.requires is None:
            return same(value, self.expected, self.atol, self.rtol)
        return self.form_problem(value) is None and self.requires(value) is None

    def form_problem(self, value: Any) -> str | None:
        """What is wrong with the type or the shape of a converted value."""
        if self.expected is ANYTHING:
            if isinstance(value, UnusualValue):
                return f"Expected a plain value, such as numbers, texts or a tensor; {kind(value)} came."
            return None
        if problem := type_problem(value, self.expected, self.axes):
            return problem
        if isinstance(self.expected, Tensor):
            return shape_problem(value, self.expected, self.axes)
        return None
