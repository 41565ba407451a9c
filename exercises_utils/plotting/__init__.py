"""Figures and widgets: `plotting.heatmap(…)` and the like; a game with a model; drawings of mechanisms."""

from exercises_utils.plotting import drawing
from exercises_utils.plotting.figures import (
    bar,
    heatmap,
    heatmap_facets,
    histogram,
    histogram_facets,
    line,
    line_facets,
    plane_facets,
    scatter,
    strip,
)
from exercises_utils.plotting.play import Reply, play, read_numbers
from exercises_utils.plotting.widgets import attention_heads, display_sequence

__all__ = [
    "Reply",
    "attention_heads",
    "bar",
    "display_sequence",
    "drawing",
    "heatmap",
    "heatmap_facets",
    "histogram",
    "histogram_facets",
    "line",
    "line_facets",
    "plane_facets",
    "play",
    "read_numbers",
    "scatter",
    "strip",
]
