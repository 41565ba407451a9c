"""The strip plot: every number is drawn at its height, in its own group's strip."""

import numpy as np
import torch

from exercises_utils import plotting


def test_every_number_is_drawn_in_its_strip() -> None:
    random = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    figure = plotting.strip(
        {"random": random, "named": [0.9, 1.0]}, title="T", x="X", y="Y", reference_lines={"yours": 1.0}
    )
    points, named, line = figure.data
    np.testing.assert_allclose(points.y, random, rtol=1e-6)
    assert np.abs(np.array(points.x)).max() <= 0.3501
    assert np.unique(np.round(points.x, 5)).size > 900  # points do not hide each other
    np.testing.assert_allclose(named.y, [0.9, 1.0], rtol=1e-6)
    assert np.abs(np.array(named.x) - 1).max() <= 0.3501
    assert (line.name, list(line.y)) == ("yours", [1.0, 1.0])
    assert figure.layout.title.text == "T"
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("X", "Y")
    assert list(figure.layout.xaxis.ticktext) == ["random", "named"]


def test_the_same_numbers_give_the_same_figure() -> None:
    figures = [plotting.strip([1.0, 2.0], title="T", x="X", y="Y").to_json() for _ in range(2)]
    assert figures[0] == figures[1]
