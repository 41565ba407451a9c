"""Figures carry their titles, names and units, fit a notebook's column and stay small."""

import base64
import functools
import inspect
import json

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from exercises_utils import plotting
from exercises_utils.plotting import (
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
    widgets,
)
from exercises_utils.plotting.figures import WIDTH

NAMES = {"title": "Scores", "x": "key position", "y": "query position"}
LONG = (
    "A title that is so long that it cannot stand in one line of a figure that fits the column of a notebook"
)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@functools.cache
def every_kind() -> dict[str, go.Figure]:
    rows = {"first": numbers(10), "second": numbers(10, seed=1)}
    matrices = {f"0.{head}": numbers(22, 22, seed=head) for head in range(4)}
    return {
        "heatmap": heatmap(numbers(4, 10), unit="score", **NAMES),
        "heatmap_facets": heatmap_facets(matrices, unit="score", **NAMES),
        "line": line(rows, **NAMES),
        "line_facets": line_facets({"0.0": rows, "0.1": rows}, **NAMES),
        "bar": bar(list("abcdefghij"), rows, errors=rows, reference_lines={"chance": 0.5}, **NAMES),
        "histogram": histogram(rows, **NAMES),
        "histogram_facets": histogram_facets({str(i): rows for i in range(5)}, **NAMES),
        "plane_facets": plane_facets(
            {"0.0": {"digits": (numbers(10), numbers(10, seed=1)), "sum": ([1.0], [0.5])}},
            labels={"digits": list("abcdefghij")},
            arrows=["sum"],
            **NAMES,
        ),
        "scatter": scatter({"all": (numbers(200), numbers(200)), "": ([1], [2])}, **NAMES),
        "strip": strip(rows, reference_lines={"chance": 0.5}, **NAMES),
    }


def texts(figure: go.Figure) -> list[str]:
    """Every name on the figure: of axes and of panels."""
    axes = [*figure.select_xaxes(), *figure.select_yaxes()]
    return [axis.title.text for axis in axes if axis.title.text] + [a.text for a in figure.layout.annotations]


@pytest.mark.parametrize("kind", every_kind())
def test_a_figure_says_what_it_shows_and_fits_the_column(kind):
    figure = every_kind()[kind]
    assert figure.layout.title.text == "Scores"
    assert texts(figure).count("key position") == 1
    assert texts(figure).count("query position") == 1
    assert 400 <= figure.layout.width <= WIDTH
    assert 200 <= figure.layout.height <= 800


@pytest.mark.parametrize("kind", every_kind())
def test_a_title_and_the_names_of_the_axes_are_required(kind):
    parameters = inspect.signature(getattr(plotting, kind)).parameters
    for name in ("title", "x", "y", *(["unit"] if "heatmap" in kind else [])):
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[name].default is inspect.Parameter.empty


@pytest.mark.parametrize("kind", every_kind())
def test_a_figure_is_small_and_carries_no_template_of_plotly_s(kind):
    layout = every_kind()[kind].layout.to_plotly_json()
    assert len(json.dumps(layout)) < 5500
    assert len(json.dumps(layout["template"])) < 1000


def test_the_numbers_of_a_heatmap_are_stored_in_four_bytes():
    assert len(heatmap(numbers(31, 31), unit="score", **NAMES).to_json()) < 4 / 3 * 4 * 31 * 31 + 4000


def test_a_long_title_is_broken_and_gets_its_room():
    short, long = (line(numbers(5), title=title, x="x", y="y") for title in ("Short", LONG))
    assert long.layout.title.text.replace("<br>", " ") == LONG
    assert long.layout.title.text.count("<br>") == 1
    assert long.layout.margin.t > short.layout.margin.t


def test_a_signed_heatmap_has_zero_in_the_middle():
    figure = heatmap(torch.tensor([[-1.0, 4.0]]), unit="logits", **NAMES)
    axis = figure.layout.coloraxis
    assert (axis.cmin, axis.cmax) == (-4, 4)
    middle = next(colour for at, colour in axis.colorscale if at == 0.5)
    assert middle == "#f7f7f7"
    assert axis.colorbar.title.text == "<br>logits"


def test_an_unsigned_heatmap_starts_at_zero():
    axis = heatmap(torch.tensor([[0.2, 0.5]]), unit="attention", signed=False, **NAMES).layout.coloraxis
    assert (axis.cmin, axis.cmax) == (0, 0.5)


def test_panels_share_their_colours():
    figure = heatmap_facets({"a": torch.ones(2, 2), "b": -3 * torch.ones(2, 2)}, unit="score", **NAMES)
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"}
    assert figure.layout.coloraxis.cmin == -3
    assert {"a", "b"} <= set(texts(figure))


def test_infinite_entries_are_blank_and_do_not_set_the_scale():
    masked = torch.tensor([[1.0, -torch.inf], [2.0, 3.0]])
    figure = heatmap(masked, unit="score", **NAMES)
    assert np.isnan(figure.data[0].z[0][1])
    assert figure.layout.coloraxis.cmax == 3


def test_row_0_is_at_the_top():
    figure = heatmap(numbers(3, 3), unit="score", **NAMES)
    assert figure.layout.yaxis.autorange == "reversed"


def test_a_square_matrix_is_drawn_as_a_square():
    figure = heatmap(numbers(31, 31), unit="score", **NAMES)
    margin = figure.layout.margin
    width = figure.layout.width - margin.l - margin.r
    height = figure.layout.height - margin.t - margin.b
    assert abs(width - height) <= 2


def test_labels_are_all_shown_where_they_fit_even_if_they_repeat():
    labels = ["START", *["7"] * 31, "END"]
    figure = heatmap(numbers(33, 33), unit="score", x_labels=labels, y_labels=labels, **NAMES)
    for axis in (figure.layout.xaxis, figure.layout.yaxis):
        assert list(axis.ticktext) == labels
        assert list(axis.tickvals) == list(range(33))
    assert figure.layout.xaxis.tickangle == -90
    few = heatmap(numbers(2, 2), unit="score", x_labels=["a", "b"], y_labels=["c", "d"], **NAMES)
    assert few.layout.xaxis.tickangle == 0
    many = heatmap(numbers(2, 300), unit="score", x_labels=["a"] * 300, **NAMES)
    assert len(many.layout.xaxis.ticktext) <= 65


def test_labels_and_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="3 labels for 2 columns"):
        heatmap(numbers(2, 2), unit="score", x_labels=["a", "b", "c"], **NAMES)
    with pytest.raises(ValueError, match="the panels need one shape"):
        heatmap_facets({"a": numbers(2, 2), "b": numbers(2, 3)}, unit="score", **NAMES)
    with pytest.raises(ValueError, match="'a' has 3 values for 2 labels"):
        bar(["p", "q"], {"a": numbers(3)}, **NAMES)
    with pytest.raises(ValueError, match="`x_values` has 2 values; the lines have 3"):
        line(numbers(3), x_values=[1, 2], **NAMES)
    with pytest.raises(ValueError, match="'a' has 2 x values and 3 y values"):
        scatter({"a": (numbers(2), numbers(3))}, **NAMES)


@pytest.mark.parametrize(
    ("peak", "written"),
    [(0.034, "%{z:.3f}"), (0.5, "%{z:.2f}"), (3.1, "%{z:.2f}"), (42.5, "%{z:.1f}"), (700.5, "%{z:.0f}")],
)
def test_numbers_in_cells_have_two_or_three_digits(peak, written):
    assert heatmap(torch.tensor([[peak]]), unit="score", text=True, **NAMES).data[0].texttemplate == written
    assert heatmap(torch.tensor([[peak]]), unit="score", **NAMES).data[0].texttemplate is None


def test_counts_are_written_whole_and_shares_are_not():
    def written(*row):
        return heatmap(torch.tensor([row]), unit="pairs", text=True, **NAMES).data[0].texttemplate

    assert written(2.0, 3.0, float("nan")) == "%{z:.0f}"
    assert written(2.0, 3.5) == "%{z:.2f}"
    assert written(0.0, 1.0) == "%{z:.2f}"


def test_of_numbers_on_an_axis_some_are_shown_lying_and_names_are_all_shown_turned():
    def ticks(labels):
        axis = heatmap(numbers(3, len(labels)), unit="score", x_labels=labels, **NAMES).layout.xaxis
        return axis.ticktext, axis.tickangle

    assert ticks([str(i) for i in range(1, 49)]) == (tuple(str(i) for i in range(1, 49, 2)), 0)
    names = [f"place {i}" for i in range(20)]
    assert ticks(names) == (tuple(names), -90)


def test_maps_with_many_named_columns_stand_two_in_a_row():
    def in_the_first_row(n_columns):
        panels = {name: numbers(4, n_columns) for name in "abcde"}
        labels = [f"p{i}" for i in range(n_columns)]
        figure = heatmap_facets(panels, unit="score", x_labels=labels, **NAMES)
        tops = [figure.layout[f"yaxis{i or ''}"].domain[1] for i in (0, 2, 3, 4, 5)]
        return tops.count(max(tops))

    assert in_the_first_row(5) == 3
    assert in_the_first_row(15) == 2


def test_lines_stand_at_their_values_and_share_colours_between_panels():
    panels = {head: {"equal": numbers(10), "differ": numbers(10, seed=1)} for head in ("0.0", "0.1")}
    figure = line_facets(panels, x_values=range(11, 21), **NAMES)
    assert all(list(trace.x) == list(range(11, 21)) for trace in figure.data)
    np.testing.assert_allclose(figure.data[0].y, numbers(10))
    assert [trace.showlegend for trace in figure.data] == [True, True, False, False]
    colours = {
        trace.name: {t.line.color for t in figure.data if t.name == trace.name} for trace in figure.data
    }
    assert all(len(colour) == 1 for colour in colours.values())
    assert colours["equal"] != colours["differ"]
    assert list(figure.layout.xaxis.tickvals) == list(range(11, 21))
    assert figure.layout.yaxis2.matches == "y"


def test_lines_over_labels():
    figure = line({"a": [1, 2]}, x_values=["q", "k"], **NAMES)
    assert list(figure.layout.xaxis.ticktext) == ["q", "k"]


def test_a_single_unnamed_group_has_no_legend():
    assert line(numbers(4), **NAMES).layout.showlegend is False
    assert bar(["a", "b"], [1, 2], **NAMES).layout.showlegend is False
    assert histogram(numbers(9), **NAMES).layout.showlegend is False
    assert line({"a": numbers(4)}, **NAMES).layout.showlegend is True


def test_a_legend_stands_above_the_panels_whatever_its_length():
    short = bar(["a"], {"one": [1], "two": [2]}, **NAMES)
    long = bar(["a"], {f"a group with quite a long name, number {i}": [i] for i in range(5)}, **NAMES)
    for figure in (short, long):
        assert figure.layout.legend.yref == "container"
    assert long.layout.margin.t >= short.layout.margin.t + 40


def test_bars_have_their_errors_and_reference_lines():
    figure = bar(
        ["q", "k"], {"a": [1, 2]}, errors={"a": [0.1, 0.2]}, reference_lines={"random": 0.5}, **NAMES
    )
    bars, reference = figure.data
    np.testing.assert_allclose(bars.error_y.array, [0.1, 0.2], rtol=1e-6)
    assert list(reference.y) == [0.5, 0.5]
    assert (reference.name, reference.mode) == ("random", "lines")
    assert list(figure.layout.xaxis.ticktext) == ["q", "k"]


def test_groups_of_a_histogram_share_bins_of_a_round_size():
    figure = histogram({"a": numbers(500), "b": numbers(500, seed=1) * 3 + 5}, **NAMES)
    first, second = figure.data
    assert first.xbins == second.xbins
    bins = first.xbins
    assert bins.size in (0.5, 1.0)
    everything = torch.cat([numbers(500), numbers(500, seed=1) * 3 + 5])
    assert bins.start <= everything.min()
    assert bins.end > everything.max()
    assert figure.layout.barmode == "overlay"


@pytest.mark.parametrize("same", [torch.full((5,), 3.0), torch.zeros(0)])
def test_a_histogram_of_one_value_or_none_is_drawn(same):
    bins = histogram(same, **NAMES).data[0].xbins
    assert bins.start < bins.end


def test_many_points_let_others_through():
    many, few = scatter({"many": (numbers(999), numbers(999)), "few": ([1], [2])}, **NAMES).data
    assert many.marker.opacity < few.marker.opacity
    assert many.marker.size < few.marker.size


def test_a_plane_is_square_with_one_scale_for_both_axes():
    panels = {"left": {"digits": ([3.0, 0.0], [0.0, -1.0])}, "right": {"digits": ([0.5], [0.5])}}
    figure = plane_facets(panels, labels={}, **NAMES)
    axes = [*figure.select_xaxes(), *figure.select_yaxes()]
    assert len({tuple(axis.range) for axis in axes}) == 1
    assert axes[0].range[1] > 3
    layout = figure.layout
    inner_height = layout.height - layout.margin.t - layout.margin.b
    inner_width = layout.width - layout.margin.l - layout.margin.r
    share = layout.xaxis.domain[1] - layout.xaxis.domain[0]
    assert inner_width * share == pytest.approx(inner_height, rel=0.02)


def test_an_arrow_runs_from_the_origin_to_each_of_its_points_and_carries_its_label():
    figure = plane_facets({"": {"rows": ([1, 2], [3, 4])}}, labels={"rows": "ab"}, arrows=["rows"], **NAMES)
    (trace,) = figure.data
    assert np.nan_to_num(trace.x, nan=-9).tolist() == [0, 1, -9, 0, 2, -9]
    assert np.nan_to_num(trace.y, nan=-9).tolist() == [0, 3, -9, 0, 4, -9]
    assert list(trace.text) == ["", "a", "", "", "b", ""]


def test_points_of_a_plane_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="'rows' has 2 x values and 1 y values"):
        plane_facets({"": {"rows": ([1, 2], [3])}}, **NAMES)
    with pytest.raises(ValueError, match="'rows' has 1 labels for 2 points"):
        plane_facets({"": {"rows": ([1, 2], [3, 4])}}, labels={"rows": "a"}, **NAMES)


def test_every_number_is_drawn_in_its_strip():
    figure = strip({"random": numbers(1000), "named": [0.9, 1.0]}, reference_lines={"yours": 1.0}, **NAMES)
    points, named, reference = figure.data
    np.testing.assert_allclose(points.y, numbers(1000), rtol=1e-6)
    assert np.abs(np.array(points.x)).max() <= 0.3501
    assert np.unique(np.round(points.x, 5)).size > 900  # points do not hide each other
    np.testing.assert_allclose(named.y, [0.9, 1.0], rtol=1e-6)
    assert np.abs(np.array(named.x) - 1).max() <= 0.3501
    assert (reference.name, list(reference.y)) == ("yours", [1.0, 1.0])
    assert list(figure.layout.xaxis.ticktext) == ["random", "named"]


@pytest.mark.parametrize(
    "values",
    [
        torch.tensor([1.5, 2.0]),
        torch.tensor([1.5, 2.0], dtype=torch.bfloat16),
        torch.tensor([1.5, 2.0], requires_grad=True),
        np.array([1.5, 2.0]),
        [1.5, 2],
        [torch.tensor(1.5), torch.tensor(2)],
        (1.5, 2.0),
    ],
)
def test_numbers_may_come_as_tensors_arrays_or_lists(values):
    np.testing.assert_allclose(line(values, **NAMES).data[0].y, [1.5, 2.0])


def test_the_empty_places_of_a_grid_stay_empty():
    figure = histogram_facets({str(i): numbers(20) for i in range(5)}, **NAMES)
    hidden = [axis.visible is False for axis in figure.select_xaxes()]
    assert hidden == [False] * 5 + [True]


# --- sequences and attention ---


@pytest.fixture
def shown(monkeypatch) -> list[dict[str, str]]:
    """What is displayed, as mime types."""
    bundles: list[dict[str, str]] = []
    monkeypatch.setattr(widgets, "display", lambda data, raw: bundles.append(data))
    monkeypatch.setattr(widgets, "_sent_with", None)
    return bundles


def test_a_sequence_marks_what_differs_from_its_mirror(shown):
    plotting.display_sequence(["START", "3", "5", "7", "3", "END"], mirrored=True, note="no palindrome")
    assert shown[0]["text/plain"] == "START 3 [5] [7] 3 END   (no palindrome)"
    assert shown[0]["text/html"].count("<b>") == 2
    assert "<b>5</b>" in shown[0]["text/html"]
    plotting.display_sequence(["START", "3", "5", "5", "3", "END"], mirrored=True)
    assert shown[1]["text/plain"] == "START 3 5 5 3 END"
    assert "<b>" not in shown[1]["text/html"]
    plotting.display_sequence(["a", "<b>"])
    assert "<b>" not in shown[2]["text/html"]
    plotting.display_sequence(["5", " ", "="])
    assert ">\u2423<" in shown[3]["text/html"], "a space alone is not drawn"


def test_no_colour_of_a_sequence_hides_the_text_on_light_or_dark(shown):
    plotting.display_sequence(["START", "3", "5", "END"], mirrored=True)
    html = shown[0]["text/html"]
    assert "color:" not in html.replace("border-color:", ""), "the text keeps the colour of the page"
    assert "background:rgba(" in html


def patterns(n_heads: int = 2, n_tokens: int = 3) -> torch.Tensor:
    return numbers(n_heads, n_tokens, n_tokens).softmax(-1)


def test_the_attention_widget_brings_its_bundle_once_and_needs_no_network(shown):
    for _ in range(2):
        plotting.attention_heads(patterns(), ["a", "b", "c"], names=["0.0", "0.1"])
    plotting.attention_heads(patterns(1), ["a", "b", "c"], names=["1.0"])
    first, again, other = [data["text/html"] for data in shown]
    assert first == again, (
        "the same call gives the same output; the cell that brought the bundle brings it again"
    )
    assert 300_000 < len(first) < 700_000
    assert len(other) < 5_000
    for html in (first, other):
        assert "http" not in html.replace("http://www.w3.org", "")
    assert "Attention of the heads 0.0, 0.1 on 3 tokens" in shown[0]["text/plain"]


def test_in_colab_every_widget_brings_its_bundle(shown, monkeypatch):
    monkeypatch.setitem(widgets.sys.modules, "google.colab", widgets.sys)
    for heads in (1, 2):
        plotting.attention_heads(patterns(heads), ["a", "b", "c"], names=["0.0", "0.1"][:heads])
    assert all(len(data["text/html"]) > 300_000 for data in shown)


def test_a_token_cannot_end_the_script(shown):
    plotting.attention_heads(patterns(), ["</script>", "b", "c"], names=["</script>", "0.1"])
    assert shown[0]["text/html"].count("</script>") == 1


def test_the_bundle_is_the_installed_one():
    packed = widgets._loader().split("atob('")[1].split("')")[0]
    assert b"AttentionPatterns" in widgets.gzip.decompress(base64.b64decode(packed))


def test_patterns_of_another_shape_are_refused(shown):
    with pytest.raises(ValueError, match=r"`patterns` has shape \(2, 3, 3\); expected \(1, 3, 3\)"):
        plotting.attention_heads(patterns(), ["a", "b", "c"], names=["0.0"])
