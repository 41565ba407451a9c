"""Figures with titles, axes and units: heatmaps, lines, bars, histograms and scatters, alone or side by side.

Each function takes numbers that are computed already and returns a plotly figure; `.show()` draws it. Figures
are white cards of 750 pixels at most, so they read the same in a light and in a dark notebook and as a
picture on a page. The functions with `_facets` draw one panel for each name, with shared scales.
"""

import math
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Num, Shaped
from plotly.subplots import make_subplots
from torch import Tensor

from exercises_utils.plotting.widgets import attention_heads, display_sequence

__all__ = [
    "attention_heads",
    "bar",
    "display_sequence",
    "heatmap",
    "heatmap_facets",
    "histogram",
    "histogram_facets",
    "line",
    "line_facets",
    "plane_facets",
    "scatter",
    "strip",
]

Series = Shaped[Tensor, " _item"] | Shaped[np.ndarray, " _item"] | Sequence[Any]
"""A row of numbers."""
Matrix = Num[Tensor, "_row _column"] | Num[np.ndarray, "_row _column"]
Groups = Series | Mapping[str, Series]
"""One row of numbers, or several by the name that the legend shows."""
Labels = Sequence[str] | None

WIDTH = 750
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
"""Told apart by people with any colour vision (Okabe and Ito)."""
DIVERGING = [[0, "#b2182b"], [0.25, "#ef8a62"], [0.5, "#f7f7f7"], [0.75, "#67a9cf"], [1, "#2166ac"]]
SEQUENTIAL = [[0, "#f7fbff"], [0.25, "#c6dbef"], [0.5, "#6baed6"], [0.75, "#2171b5"], [1, "#08306b"]]
_INK, _GRID = "#222222", "#e6e6e6"
_AXIS = {
    "automargin": True,
    "gridcolor": _GRID,
    "linecolor": "#bbbbbb",
    "showline": True,
    "ticks": "outside",
    "tickcolor": "#bbbbbb",
    "zerolinecolor": "#999999",
    "title": {"standoff": 8},
}
# Plotly's own templates add 7 kB to every figure; this is what is used of them.
_TEMPLATE = {
    "layout": {
        "colorway": COLOURS,
        "font": {"color": _INK, "family": "Helvetica, Arial, sans-serif", "size": 12},
        "hoverlabel": {"align": "left"},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }
}
_CHARACTER, _LINE, _GAP = 6.6, 20, 14  # pixels: a character of a label, a line of the legend, beside a label
_NARROW = 14  # pixels: where a row or a column has less than this, its label is written smaller


def heatmap(
    values: Matrix,
    *,
    title: str,
    x: str,
    y: str,
    unit: str,
    x_labels: Labels = None,
    y_labels: Labels = None,
    signed: bool = True,
    text: bool = False,
) -> go.Figure:
    """A heatmap, row 0 at the top; `unit` is the title of the colour bar.

    `signed` puts zero in the middle of a scale of two colours; without it the scale of one colour starts at
    zero or at the smallest value below it. `text` writes the numbers into the cells. Entries that are not
    finite stay blank. Without labels, rows and columns are numbered from 0.
    """
    return heatmap_facets(
        {"": values},
        title=title,
        x=x,
        y=y,
        unit=unit,
        x_labels=x_labels,
        y_labels=y_labels,
        signed=signed,
        text=text,
    )


def heatmap_facets(
    panels: Mapping[str, Matrix],
    *,
    title: str,
    x: str,
    y: str,
    unit: str,
    x_labels: Labels = None,
    y_labels: Labels = None,
    signed: bool = True,
    text: bool = False,
) -> go.Figure:
    """Heatmaps of one shape and one colour scale side by side, by the name above each; see `heatmap`."""
    matrices = {name: _finite(values) for name, values in panels.items()}
    n_rows, n_columns = _one_shape(matrices, x_labels, y_labels)
    row_labels = [str(i) for i in range(n_rows)] if y_labels is None else list(y_labels)

    left = 34 + _GAP + _CHARACTER * max(map(len, row_labels))
    right = 88 + _LINE * unit.count("<br>")
    gap = 60 if y_labels is None else left - 20
    grid_rows, grid_columns = _grid(len(panels))
    width = (WIDTH - left - right - gap * (grid_columns - 1)) / grid_columns
    if len(panels) > 4 and x_labels is not None and width / n_columns < _NARROW:
        grid_rows, grid_columns = _grid(len(panels), 2)  # so that every column has a label to read
        width = (WIDTH - left - right - gap) / 2
    if n_rows == n_columns:
        width = height = min(width, 500, max(46 * n_rows, 170))
    else:
        height = max(min(width / n_columns, 46, 520 / n_rows) * n_rows, 100)

    figure = _figure(list(panels), grid_rows, grid_columns, (width, height), gap, left, right)
    x_axis, y_axis = _ticks(x_labels, n_columns, width, "x"), _ticks(y_labels, n_rows, height, "y")
    scale = _colour_scale(list(matrices.values()), signed, unit)
    whole = all((m[np.isfinite(m)] % 1 == 0).all() for m in matrices.values())
    decimals = 0 if whole and scale["cmax"] > 1 else _decimals(scale["cmax"])  # zeros and ones may be shares
    for i, values in enumerate(matrices.values()):
        place = {"row": i // grid_columns + 1, "col": i % grid_columns + 1}
        figure.add_trace(
            go.Heatmap(
                z=values,
                coloraxis="coloraxis",
                hovertemplate=f"{x} %{{x}}<br>{y} %{{y}}<br>{_one_line(unit)} %{{z:.4~g}}<extra></extra>",
                texttemplate=f"%{{z:.{decimals}f}}" if text else None,
                xgap=1 if width / n_columns > 20 else 0,
                ygap=1 if height / n_rows > 20 else 0,
                hoverongaps=False,
            ),
            **place,
        )
        figure.update_xaxes(showgrid=False, zeroline=False, **x_axis, **place)
        figure.update_yaxes(showgrid=False, zeroline=False, autorange="reversed", **y_axis, **place)
    figure.update_layout(coloraxis=scale)
    return _finish(figure, title, x, y, grid_rows, grid_columns)


def _colour_scale(matrices: Sequence[np.ndarray], signed: bool, unit: str) -> dict[str, Any]:
    """The colours of heatmaps that share them, and the bar beside these."""
    shown = [m for m in matrices if np.isfinite(m).any()]
    peak = max((float(np.nanmax(np.abs(m))) for m in shown), default=1.0)
    lowest = min((float(np.nanmin(m)) for m in shown), default=0.0)
    # The empty line keeps the title away from the numbers.
    bar = {"title": {"text": f"<br>{unit}", "side": "right"}, "thickness": 14, "len": 1, "outlinewidth": 0}
    return {
        "colorscale": DIVERGING if signed else SEQUENTIAL,
        "cmin": -peak if signed else min(0.0, lowest),
        "cmax": peak,
        "colorbar": bar,
    }


def line(
    series: Groups,
    *,
    title: str,
    x: str,
    y: str,
    x_values: Series | None = None,
) -> go.Figure:
    """Lines over `x_values` (numbers or labels; by default 0, 1, 2, ...), by the names in the legend."""
    return line_facets({"": series}, title=title, x=x, y=y, x_values=x_values)


def line_facets(
    panels: Mapping[str, Groups],
    *,
    title: str,
    x: str,
    y: str,
    x_values: Series | None = None,
) -> go.Figure:
    """Panels of lines with shared axes and colours, by the name above each; see `line`."""
    groups = {name: _groups(series) for name, series in panels.items()}
    length = max(len(numbers) for series in groups.values() for numbers in series.values())
    labels = list(x_values) if x_values is not None and isinstance(x_values[0], str) else None
    at = np.arange(length) if x_values is None or labels else _numbers(x_values)
    if len(at) != length:
        raise ValueError(f"`x_values` has {len(at)} values; the lines have {length}")
    figure, width = _panels(list(groups), groups, height=300)
    for place, name, colour, numbers, first in _each(figure, groups):
        figure.add_trace(
            go.Scatter(
                x=at[: len(numbers)],
                y=numbers,
                name=name,
                legendgroup=name,
                showlegend=bool(name) and first,
                mode="lines+markers" if length <= 40 else "lines",
                line={"color": colour, "width": 2},
                hovertemplate=_hover(x, y, name),
            ),
            **place,
        )
    figure.update_xaxes(**_value_ticks(at, labels, width))
    if labels:
        figure.update_xaxes(zeroline=False)
    figure.update_yaxes(matches="y")
    return _finish(figure, title, x, y, *_grid(len(groups)), legend=_names(groups))


def bar(
    labels: Sequence[str],
    values: Groups,
    *,
    title: str,
    x: str,
    y: str,
    errors: Groups | None = None,
    reference_lines: Mapping[str, int | float] | None = None,
) -> go.Figure:
    """Bars over `labels`, one colour for each named group; `errors` are drawn to both sides of the ends.

    `reference_lines` are drawn across, by the names in the legend.
    """
    groups, spread = _groups(values), _groups(errors) if errors is not None else {}
    for name, numbers in groups.items():
        if len(numbers) != len(labels):
            raise ValueError(f"{name or 'values'!r} has {len(numbers)} values for {len(labels)} labels")
    shown = [*groups, *(reference_lines or {})]
    figure, width = _panels([""], {"": dict.fromkeys(shown, np.zeros(0))}, height=320)
    at = np.arange(len(labels))
    for place, name, colour, numbers, _ in _each(figure, {"": groups}):
        error = {"error_y": {"array": spread[name], "color": "#444444", "thickness": 1.2}} if spread else {}
        figure.add_trace(
            go.Bar(
                x=at,
                y=numbers,
                name=name,
                showlegend=bool(name),
                marker={"color": colour},
                hovertemplate=_hover(x, y, name),
                **error,
            ),
            **place,
        )
    _add_reference_lines(figure, reference_lines or {}, len(labels), y)
    figure.update_layout(barmode="group", bargap=0.25)
    figure.update_xaxes(showgrid=False, zeroline=False, **_ticks(labels, len(labels), width, "x"))
    return _finish(figure, title, x, y, 1, 1, legend=[name for name in shown if name])


def histogram(values: Groups, *, title: str, x: str, y: str) -> go.Figure:
    """Histograms over the same bins, one upon the other, by the names in the legend."""
    return histogram_facets({"": values}, title=title, x=x, y=y)


def histogram_facets(panels: Mapping[str, Groups], *, title: str, x: str, y: str) -> go.Figure:
    """Panels of histograms over the same bins, each with counts of its own, by the name above each."""
    groups = {name: _groups(values) for name, values in panels.items()}
    everything = np.concatenate([numbers for group in groups.values() for numbers in group.values()])
    bins = _bins(everything[np.isfinite(everything)], 40 if len(groups) == 1 else 30)
    figure, _ = _panels(list(groups), groups, height=300 if len(groups) == 1 else 170)
    for place, name, colour, numbers, first in _each(figure, groups):
        figure.add_trace(
            go.Histogram(
                x=numbers,
                xbins=bins,
                autobinx=False,
                name=name,
                legendgroup=name,
                showlegend=bool(name) and first,
                marker={"color": colour, "line": {"width": 0}},
                opacity=0.65 if len(_names(groups)) > 1 else 1,
                hovertemplate=_hover(x, y, name),
            ),
            **place,
        )
    figure.update_layout(barmode="overlay", bargap=0.03)
    figure.update_xaxes(range=[bins["start"], bins["end"]])
    return _finish(figure, title, x, y, *_grid(len(groups)), legend=_names(groups))


def scatter(points: Mapping[str, tuple[Series, Series]], *, title: str, x: str, y: str) -> go.Figure:
    """Points by group: the name in the legend, with the group's x and y values; later groups lie on top.

    Where a group has many points, they are small and let others through.
    """
    groups = {name: (_numbers(a), _numbers(b)) for name, (a, b) in points.items()}
    figure, _ = _panels([""], {"": dict.fromkeys(groups, np.zeros(0))}, height=360)
    for i, (name, (across, up)) in enumerate(groups.items()):
        if len(across) != len(up):
            raise ValueError(f"{name!r} has {len(across)} x values and {len(up)} y values")
        many = len(across) > 150
        figure.add_trace(
            go.Scatter(
                x=across,
                y=up,
                name=name,
                showlegend=bool(name),
                mode="markers",
                marker={
                    "color": COLOURS[i % len(COLOURS)],
                    "size": 5 if many else 8,
                    "opacity": 0.35 if many else 0.9,
                },
                hovertemplate=_hover(x, y, name),
            )
        )
    figure.update_layout(legend={"itemsizing": "constant"})
    return _finish(figure, title, x, y, 1, 1, legend=[name for name in groups if name])


def plane_facets(
    panels: Mapping[str, Mapping[str, tuple[Series, Series]]],
    *,
    title: str,
    x: str,
    y: str,
    labels: Mapping[str, Sequence[str]] | None = None,
    arrows: Sequence[str] = (),
) -> go.Figure:
    """Points of a plane in square panels with one scale for both axes, such as digits on a circle.

    Each panel holds groups by the name in the legend, with their x and y values, as in `scatter`. A group that is
    named in `labels` has a text beside each point; one that is named in `arrows` is drawn as lines from the
    origin to its points.
    """
    groups = {
        name: {group: (_numbers(a), _numbers(b)) for group, (a, b) in points.items()}
        for name, points in panels.items()
    }
    texts = labels or {}
    names = list(dict.fromkeys(group for points in groups.values() for group in points))
    for panel in groups.values():
        for name, (across, up) in panel.items():
            if len(across) != len(up):
                raise ValueError(f"{name!r} has {len(across)} x values and {len(up)} y values")
            if len(texts.get(name, across)) != len(across):
                raise ValueError(f"{name!r} has {len(texts[name])} labels for {len(across)} points")
    rows, columns = _grid(len(groups))
    left, right, gap = 70, 20, 60
    side = min((WIDTH - left - right - gap * (columns - 1)) / columns, 380)
    figure = _figure(list(groups), rows, columns, (side, side), gap, left, right)
    seen: set[str] = set()
    for i, panel in enumerate(groups.values()):
        for name, points in panel.items():
            figure.add_trace(
                go.Scatter(
                    name=name,
                    legendgroup=name,
                    showlegend=bool(name) and name not in seen,
                    hovertemplate=_hover(x, y, name),
                    **_drawn(
                        points, COLOURS[names.index(name) % len(COLOURS)], texts.get(name), name in arrows
                    ),
                ),
                row=i // columns + 1,
                col=i % columns + 1,
            )
            seen.add(name)
    every = [n for panel in groups.values() for both in panel.values() for n in both if n.size]
    reach = 1.18 * max((float(np.abs(n).max()) for n in every), default=1.0)
    for axis in ("xaxis", "yaxis"):
        ranges = {
            f"{axis}{i + 1 if i else ''}": {"range": [-reach, reach], "nticks": 5} for i in range(len(groups))
        }
        figure.update_layout(ranges)
    figure.update_layout(legend={"itemsizing": "constant"})
    return _finish(figure, title, x, y, rows, columns, legend=[name for name in names if name])


def _drawn(
    points: tuple[np.ndarray, np.ndarray], colour: str, texts: Sequence[str] | None, arrow: bool
) -> dict[str, Any]:
    """One group of `plane_facets` as plotly has it: points, or lines from the origin to them."""
    across, up = points
    many = len(across) > 150
    size: Any = 4 if many else 8
    labels = None if texts is None else list(texts)
    if arrow:  # one line of legs: to the point, back to the origin, a gap
        size = [0, 9, 0] * len(across)
        labels = None if texts is None else [t for text in texts for t in ("", text, "")]
        across, up = (
            np.stack([np.zeros(len(n)), n, np.full(len(n), np.nan)], axis=-1).ravel().astype(np.float32)
            for n in points
        )
    return {
        "x": across,
        "y": up,
        "mode": ("lines+markers" if arrow else "markers") + ("" if texts is None else "+text"),
        "text": labels,
        "textposition": "top center",
        "line": {"color": colour, "width": 2.5},
        "marker": {"color": colour, "size": size, "opacity": 0.4 if many and not arrow else 1},
    }


def strip(
    groups: Groups,
    *,
    title: str,
    x: str,
    y: str,
    reference_lines: Mapping[str, int | float] | None = None,
) -> go.Figure:
    """Every number of each group as a point of its own, in a strip above the group's name.

    Points are spread sideways so that they do not hide each other; that has no meaning. `reference_lines` are
    drawn across, by the names in the legend: such as one number to compare with all others.
    """
    named = _groups(groups)
    lines = reference_lines or {}
    figure, width = _panels([""], {"": dict.fromkeys(lines, np.zeros(0))}, height=320)
    for i, (name, numbers) in enumerate(named.items()):
        # Multiples of the golden ratio fall evenly, however many there are.
        sideways = (0.5 + np.arange(len(numbers)) * 0.6180339887) % 1 - 0.5
        figure.add_trace(
            go.Scatter(
                x=_compact(i + 0.7 * sideways),
                y=numbers,
                name=name,
                showlegend=False,
                mode="markers",
                marker={
                    "color": COLOURS[i % len(COLOURS)],
                    "size": 5 if len(numbers) > 150 else 8,
                    "opacity": 0.35 if len(numbers) > 150 else 0.8,
                },
                hovertemplate=f"{name}<br>{_one_line(y)} %{{y:.4~g}}<extra></extra>",
            )
        )
    _add_reference_lines(figure, lines, len(named), y)
    figure.update_xaxes(showgrid=False, zeroline=False, **_ticks(list(named), len(named), width, "x"))
    figure.update_xaxes(range=[-0.6, len(named) - 0.4])
    return _finish(figure, title, x, y, 1, 1, legend=list(lines))


def _add_reference_lines(figure: go.Figure, lines: Mapping[str, int | float], n_columns: int, y: str) -> None:
    """Horizontal lines across a figure whose columns are at 0, 1, 2, ..., by the names in the legend."""
    for i, (name, level) in enumerate(lines.items()):
        figure.add_trace(
            go.Scatter(
                x=[-0.5, n_columns - 0.5],
                y=[level, level],
                name=name,
                mode="lines",
                line={"color": "#444444", "dash": ("dash", "dot", "dashdot")[i % 3], "width": 1.5},
                hovertemplate=f"{name}<br>{y} %{{y:.4~g}}<extra></extra>",
            )
        )


# --- numbers ---


def _numbers(values: Series) -> np.ndarray:
    """A row of numbers as an array, whatever holds them."""
    if isinstance(values, Tensor):
        array = values.detach().cpu().double().numpy()
    elif isinstance(values, np.ndarray):
        array = values
    else:
        array = np.array([float(number) for number in values])
    if array.ndim != 1:
        raise ValueError(f"expected one axis of numbers; got shape {array.shape}")
    return _compact(array)


def _compact(array: np.ndarray) -> np.ndarray:
    """Whole numbers as they are, others in single precision: what a figure shows, in half the bytes."""
    whole = bool(np.isfinite(array).all()) and bool((array == np.round(array)).all())
    if whole and (array.size == 0 or np.abs(array).max() < 2**31):
        return array.astype(np.int32)
    return array.astype(np.float32)


def _groups(values: Groups) -> dict[str, np.ndarray]:
    """Named rows of numbers; a single row has the name "", which no legend shows."""
    if isinstance(values, Mapping):
        return {name: _numbers(numbers) for name, numbers in values.items()}
    return {"": _numbers(values)}


def _finite(values: Matrix) -> np.ndarray:
    """A matrix for a heatmap: what is not finite is blank."""
    array = values.detach().cpu().float().numpy() if isinstance(values, Tensor) else values.astype(np.float32)
    return np.where(np.isfinite(array), array, np.nan).astype(np.float32)


def _one_shape(matrices: Mapping[str, np.ndarray], x_labels: Labels, y_labels: Labels) -> tuple[int, int]:
    """The shape that all the matrices and their labels agree on."""
    shapes = {matrix.shape for matrix in matrices.values()}
    if len(shapes) != 1:
        raise ValueError(f"the panels need one shape; got {sorted(shapes)}")
    n_rows, n_columns = shapes.pop()
    for labels, size, axis in ((x_labels, n_columns, "columns"), (y_labels, n_rows, "rows")):
        if labels is not None and len(labels) != size:
            raise ValueError(f"{len(labels)} labels for {size} {axis}")
    return n_rows, n_columns


def _decimals(peak: float) -> int:
    """How many decimals to write in the cells of a heatmap: two, more for small numbers, fewer for large ones."""
    size = math.floor(math.log10(peak)) if peak > 0 else 0
    return max(0, 2 - max(size, 0)) if size >= -1 else min(6, 1 - size)


def _bins(values: np.ndarray, count: int) -> dict[str, float]:
    """About `count` bins of a round size that hold all values."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    raw = (high - low) / count or 1.0
    magnitude = 10.0 ** math.floor(math.log10(raw))
    size = next(step * magnitude for step in (1, 2, 5, 10) if step * magnitude >= raw)
    start = math.floor(low / size) * size
    return {"start": start, "end": start + size * (math.floor((high - start) / size) + 1), "size": size}


# --- what a figure is made of ---


def _grid(n_panels: int, columns: int | None = None) -> tuple[int, int]:
    """Rows and columns that hold this many panels."""
    columns = columns or (n_panels if n_panels <= 3 else 2 if n_panels == 4 else 3)
    return math.ceil(n_panels / columns), columns


def _figure(
    names: Sequence[str],
    rows: int,
    columns: int,
    panel: tuple[int | float, int | float],
    gap: int | float,
    left: int | float,
    right: int | float,
) -> go.Figure:
    """An empty figure with panels of this width and height in pixels; `_finish` adds the top and the bottom."""
    width, height = panel
    row_gap = 62 if any(names) else 40
    inner_width = columns * width + (columns - 1) * gap
    inner_height = rows * height + (rows - 1) * row_gap
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=list(names) if any(names) else None,
        horizontal_spacing=gap / inner_width if columns > 1 else 0,
        vertical_spacing=row_gap / inner_height if rows > 1 else 0,
    )
    figure.update_annotations(font={"size": 13}, yshift=2)
    figure.layout.template = _TEMPLATE
    figure.update_layout(
        width=max(round(inner_width + left + right), 480),
        height=round(inner_height),
        margin={"l": round(left), "r": round(right)},
    )
    return figure


def _panels(
    names: Sequence[str], groups: Mapping[str, Mapping[str, np.ndarray]], height: int | float
) -> tuple[go.Figure, float]:
    """An empty figure of the full width for these panels, and the width of one of them in pixels."""
    rows, columns = _grid(len(names))
    left, right, gap = 70, 20, 60
    width = (WIDTH - left - right - gap * (columns - 1)) / columns
    return _figure(names, rows, columns, (width, height), gap, left, right), width


def _finish(
    figure: go.Figure, title: str, x: str, y: str, rows: int, columns: int, legend: Sequence[str] = ()
) -> go.Figure:
    """The figure with its title, axis names and legend, and the room that they need."""
    layout = figure.layout
    panels = max(1, len(layout.annotations))
    for i in range(panels, rows * columns):  # the last places of the grid may be empty
        row, column = divmod(i, columns)
        figure.update_xaxes(visible=False, row=row + 1, col=column + 1)
        figure.update_yaxes(visible=False, row=row + 1, col=column + 1)
    lines = wrap(title, int((layout.width - 30) / 8)) or [""]
    # plotly.js puts a title of several lines 12 pixels higher than one of a single line.
    title_at = 12 if len(lines) == 1 else 24
    top = title_at + 4 + 22 * len(lines)
    legend_room = 6 + _LINE * _legend_lines(legend, layout.width) if legend else 0
    below = 26 + _tick_room(figure)
    margins = {"t": top + legend_room + (28 if layout.annotations else 8), "b": below + 32}
    height = layout.height + margins["t"] + margins["b"]
    if rows * columns == 1:
        figure.update_xaxes(title={"text": x})
        figure.update_yaxes(title={"text": y})
    else:
        middle = {"showarrow": False, "xref": "paper", "yref": "paper", "font": {"size": 14}}
        figure.add_annotation(text=x, x=0.5, y=0, yshift=-below, yanchor="top", **middle)
        figure.add_annotation(
            text=y, x=0, y=0.5, xshift=12 - layout.margin.l, textangle=-90, xanchor="left", **middle
        )
    figure.update_layout(
        title={
            "text": "<br>".join(lines),
            "font": {"size": 16},
            "x": 0.01,
            "xanchor": "left",
            "y": 1 - title_at / height,
            "yanchor": "top",
        },
        legend={
            "orientation": "h",
            "tracegroupgap": 0,
            "x": 0,
            "xanchor": "left",
            "y": 1 - top / height,
            "yref": "container",
            "yanchor": "top",
        },
        showlegend=bool(legend),
        height=height,
        margin=margins,
    )
    return figure


def _tick_room(figure: go.Figure) -> int:
    """How many pixels more than a line the labels of the x axis need, because they are turned."""
    axis = figure.layout.xaxis
    return round(_CHARACTER * max(map(len, axis.ticktext)) - 10) if axis.tickangle == -90 else 0


def _legend_lines(names: Sequence[str], width: int | float) -> int:
    """How many lines a legend takes in a figure of this width."""
    if not names:
        return 0
    entries = [50 + _CHARACTER * len(name) for name in names]
    if sum(entries) <= width - 90:  # one line; several have columns of the same width
        return 1
    return math.ceil(len(names) / max(1, int((width - 90) / max(entries))))


def _names(groups: Mapping[str, Mapping[str, np.ndarray]]) -> list[str]:
    """The names in the legend, in the order in which they first come."""
    return list(dict.fromkeys(name for group in groups.values() for name in group if name))


def _each(figure: go.Figure, groups: Mapping[str, Mapping[str, np.ndarray]]) -> list[tuple[Any, ...]]:
    """(place, name, colour, numbers, whether it is the first of its name) for every row of numbers."""
    _, columns = _grid(len(groups))
    names = _names(groups) or [""]
    seen: set[str] = set()
    each = []
    for i, group in enumerate(groups.values()):
        place = {"row": i // columns + 1, "col": i % columns + 1}
        for name, numbers in group.items():
            colour = COLOURS[names.index(name) % len(COLOURS)] if name in names else COLOURS[0]
            each.append((place, name, colour, numbers, name not in seen))
            seen.add(name)
    return each


def _hover(x: str, y: str, name: str) -> str:
    heading = f"{name}<br>" if name else ""
    return f"{heading}{_one_line(x)} %{{x}}<br>{_one_line(y)} %{{y:.4~g}}<extra></extra>"


def _one_line(text: str) -> str:
    return text.replace("<br>", " ")


def _ticks(labels: Labels, count: int, pixels: int | float, axis: str) -> dict[str, Any]:
    """Ticks at 0, 1, 2, ... with as many of the labels as can be read."""
    texts = [str(i) for i in range(count)] if labels is None else [str(label) for label in labels]
    room = pixels / max(count, 1)
    lying = max((_CHARACTER * len(text) + 3 for text in texts), default=0) if axis == "x" else 11
    # A name has to be read at its place; of numbers in order it is enough to read some.
    in_order = all(text.isdecimal() for text in texts) and texts == sorted(texts, key=int)
    turned = axis == "x" and not in_order and room < lying
    needed = 10.5 if turned else lying
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 1000) if s * room >= needed or s == 1000)
    at = list(range(0, count, step))
    ticks: dict[str, Any] = {"tickmode": "array", "tickvals": at, "ticktext": [texts[i] for i in at]}
    if axis == "x":
        ticks["tickangle"] = -90 if turned else 0
    if room < _NARROW:
        ticks["tickfont"] = {"size": 10}
    return ticks


def _value_ticks(at: np.ndarray, labels: Labels, pixels: float) -> dict[str, Any]:
    """Ticks of an axis of numbers: at each of a few whole ones, else where plotly puts them."""
    if labels is not None:
        return _ticks(labels, len(labels), pixels, "x")
    if at.dtype.kind == "i" and len(at) and pixels / len(at) >= 22:
        return {"tickmode": "array", "tickvals": at.tolist()}
    return {}
