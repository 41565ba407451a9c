"""The figures that the write-ups published, measured again: on their own models, and on ours.

A challenge's `figures` module lists them. `exercises published` prints the table. A figure of the published model
that does not come out as it was printed is a defect of our tools or our data; on our own models it is another
number, and that is no defect.

The same module says what the challenge's models have in common and what each has of its own (`in_common` and
`of_its_own`, for `exercises compare`), as claims: sentences with a condition.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One published figure: what it is, what was printed, and how to measure it on a model of the challenge.

    `published` is a number as printed, or a text where it is not one number. `decimals` are those that were
    printed: a measured number agrees if it is within one unit of the last of them.
    """

    name: str
    published: float | str
    decimals: int
    measure: Callable[[Any], float | str]

    def difference(self, measured: float | str) -> float | None:
        """Measured minus published; None where they are texts."""
        if isinstance(measured, str) or isinstance(self.published, str):
            return None
        return measured - self.published

    def agrees(self, measured: float | str) -> bool:
        """Whether this is what was published, to the last printed place."""
        difference = self.difference(measured)
        if difference is None:
            return measured == self.published
        return abs(difference) <= 1.001 * 10.0**-self.decimals

    def text(self, value: float | str) -> str:
        """The value with as many decimals as were printed."""
        return value if isinstance(value, str) else f"{value:.{self.decimals}f}"


@dataclass(frozen=True)
class Claim:
    """A sentence about the models of a challenge, and whether their figures bear it out."""

    text: str
    holds: bool


Models = Mapping[str, Mapping[str, Any]]
"""What `exercises compare` measured of a challenge's models, by instance (see `comparison.measure`)."""


def span(values: Iterable[int | float], decimals: int = 2) -> str:
    """The smallest and the largest of some values, as "0.84 to 0.93"; one number where they are written alike."""
    values = sorted(values)
    low, high = f"{values[0]:,.{decimals}f}", f"{values[-1]:,.{decimals}f}"
    return low if low == high else f"{low} to {high}"
