"""Figures and widgets: `plotting.heatmap(…)` and the like."""

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
