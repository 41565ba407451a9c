"""Figures and tables of lesson 03: shares by place, each with the interval and the number that it rests on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from exercises_utils import plotting
from exercises_utils.challenges.palindromes.task import SECOND_HALF

Z = 1.959964
"""95 % of a normal distribution lie within so many standard deviations."""
RESAMPLES = 2000
_SYMBOLS = ("circle", "square", "diamond", "x", "triangle-up", "star")


@dataclass(frozen=True)
class Share:
    """A share of `n` things, and its 95 % interval."""

    share: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{short(self.share)} [{short(self.low)}, {short(self.high)}]"


def short(share: float | Tensor) -> str:
    """A share, as a number or a tensor of one, to three decimals; only what is exactly 0 or 1 is written so.

    >>> short(0.9996), short(0.25), short(0.0)
    ('>.999', '.250', '0')
    """
    share = float(share)
    if share in (0.0, 1.0):
        return str(int(share))
    text = f"{share:.3f}"
    return {"1.000": ">.999", "0.000": "<.001"}.get(text, text.removeprefix("0"))


def wilson(hits: int | float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `n` things that do not depend on each other.

    >>> [round(end, 3) for end in wilson(0, 300)]
    [0.0, 0.013]
    """
    p, z2 = hits / n, Z**2
    middle, half = p + z2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n**2))
    low, high = (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)
    return (0.0 if hits == 0 else low), (1.0 if hits == n else high)


def share(hits: Bool[Tensor, "*place sequence"]) -> Share:
    """How many of these are true, with a 95 % interval.

    Of one row: Wilson's. Of a table, in which the places of one sequence depend on each other: a bootstrap over
    sequences (where all are alike, Wilson's for as many sequences, which is wider).
    """
    values = hits.double().cpu()
    mean, n = float(values.mean()), values.shape[-1]
    if hits.ndim == 1 or mean in (0.0, 1.0):
        return Share(mean, *wilson(mean * n, n), hits.numel())
    by_sequence = values.flatten(0, -2).mean(0)
    chosen = torch.randint(n, (RESAMPLES, n), generator=torch.Generator().manual_seed(0))
    low, high = (
        by_sequence[chosen].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    )
    return Share(mean, low, high, hits.numel())


def print_shares(rows: Mapping[str, Bool[Tensor, "*place sequence"]]) -> None:
    """One line for each row: its name, the share, its 95 % interval, and how many."""
    width = max(map(len, rows))
    for name, hits in rows.items():
        of = " × ".join(str(size) for size in hits.shape)
        print(f"{name:{width}}  {share(hits)!s:20}  n = {of}")


def by_place(
    panels: Mapping[str, Mapping[str, Shaped[Tensor, "place ..."]]],
    *,
    title: str,
    y: str,
    x: str = "place",
    places: Sequence[int] = SECOND_HALF,
) -> go.Figure:
    """Means over sequences at each place, as points with 95 % intervals: Wilson's for shares, normal for other numbers.

    One number a place is a point without an interval.
    """
    tables = {
        panel: {name: rows if rows.ndim == 2 else rows[:, None] for name, rows in of.items()}
        for panel, of in panels.items()
    }
    means = {
        panel: {name: rows.double().mean(-1) for name, rows in of.items()} for panel, of in tables.items()
    }
    figure = plotting.line_facets(means, title=title, x=x, y=y, x_values=list(places))
    rows = [(i, len(of), table) for of in tables.values() for i, table in enumerate(of.values())]
    for trace, (i, of, table) in zip(figure.data, rows, strict=True):
        step = 0.7 / max(of, 4)
        trace.update(
            x=[place + step * (i - (of - 1) / 2) for place in places],
            mode="markers",
            marker={"size": 7, "symbol": _SYMBOLS[i % len(_SYMBOLS)]},
        )
        if table.shape[1] > 1:
            below, above = zip(*(_reach(row) for row in table.cpu()), strict=True)
            ends = {"array": above, "arrayminus": below, "symmetric": False}
            trace.update(error_y={**ends, "thickness": 1.2, "width": 2})
    figure.update_xaxes(tickmode="array", tickvals=list(places), range=[min(places) - 0.6, max(places) + 0.6])
    if all(mean.min() >= 0 and mean.max() <= 1 for of in means.values() for mean in of.values()):
        figure.update_yaxes(range=[-0.03, 1.03])
    return figure


def _reach(row: Shaped[Tensor, " sequence"]) -> tuple[float, float]:
    """How far the interval of a mean reaches below and above it."""
    n = len(row)
    if row.dtype == torch.bool:
        hits = float(row.double().sum())
        low, high = wilson(hits, n)
        return hits / n - low, high - hits / n
    half = Z * float(row.double().std()) / math.sqrt(n)
    return half, half


def share_map(
    shares: Float[Tensor, "row column"] | Mapping[str, Float[Tensor, "row column"]],
    *,
    title: str,
    x: str,
    y: str,
    x_labels: Sequence[Any],
    y_labels: Sequence[Any],
    text: bool = True,
) -> go.Figure:
    """Shares as a heatmap from 0 to 1; of several tables side by side.

    With `text` the numbers stand in the cells, and no colour bar beside them. What is not finite stays blank.
    """
    panels = shares if isinstance(shares, Mapping) else {"": shares}
    figure = plotting.heatmap_facets(
        panels,
        title=title,
        x=x,
        y=y,
        unit="share",
        x_labels=[str(label) for label in x_labels],
        y_labels=[str(label) for label in y_labels],
        signed=False,
    )
    figure.update_layout(coloraxis={"cmin": 0, "cmax": 1})
    if text:
        for trace, table in zip(figure.data, panels.values(), strict=True):
            trace.update(text=_cells(table), texttemplate="%{text}", textfont={"size": 10})
        figure.update_layout(coloraxis={"showscale": False}, margin={"r": 24})
    return figure


def _cells(table: Float[Tensor, "row column"]) -> list[list[str]]:
    """The numbers as `short` writes them, in two decimals where that is all there is to them (shares of 100)."""
    rows = [["" if math.isnan(value) else short(value) for value in row] for row in table.tolist()]
    if all(cell.endswith("0") or len(cell) < 4 for row in rows for cell in row):
        return [[cell[:-1] if len(cell) == 4 else cell for cell in row] for row in rows]
    return rows
