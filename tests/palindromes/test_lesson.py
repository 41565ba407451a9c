"""What lesson 03 brings along: the game, its predictions, the drawing, and shares with their intervals."""

import re

import numpy as np
import pytest
import torch

from exercises_utils.challenges.palindromes import game, mechanism, pictures, predictions, task
from exercises_utils.checking import Prediction, letters
from exercises_utils.models.loading import load_model
from exercises_utils.plotting.drawing import assemble
from tools.environment import ROOT


@pytest.fixture(scope="module")
def model():
    return load_model("palindromes", "seed0", device="cpu")


def test_the_game_asks_the_model(model):
    reply = game.reply(model, game.FIRST)
    assert reply.said == reply.right == "no palindrome"
    assert [pair for pair, agree in reply.links.items() if not agree] == [(4, 17)]
    assert game.reply(model, game.mirrored(game.FIRST)).said == "palindrome"


def test_its_buttons_give_what_they_say():
    halves = game.new_palindrome("").split()
    assert halves == halves[::-1]
    assert len(halves) == task.LENGTH
    before, after = game.FIRST.split(), game.one_changed(game.FIRST).split()
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
    with pytest.raises(ValueError, match="Expected 10 whole numbers from 0 to 30"):
        game.mirrored("1 2 3")


def test_the_lesson_shows_the_options_of_its_predictions():
    text = (ROOT / "solutions" / "03_palindromes.py").read_text(encoding="utf-8")
    of_letters = {name: p for name, p in vars(predictions).items() if isinstance(p, Prediction)}
    for name, prediction in of_letters.items():
        assert prediction.exercise == name
        assert f"predictions.{name}(...)" in text
        assert f"predictions.{name}.compare(" in text
        shown = "".join(f"# {line}\n" for line in prediction.markdown().splitlines())
        assert shown in text, name
    assert sorted(re.findall(r"\*\*Prediction (\d)\.\*\*", text)) == [
        str(i) for i in range(1, len(of_letters) + 1)
    ]


def test_the_sketches_are_in_the_order_of_their_letters():
    panels = [np.asarray(trace.z) for trace in predictions.sketches().data]
    kinds = ["itself" if z[0].sum() == 1 else "half" if z[0, 10:].all() else "name" for z in panels]
    assert kinds == list(letters("what_it_says", ["half", "itself", "name"]).values())


def test_our_pieces_leave_nothing_open():
    ours = mechanism.pieces((0, 1), {11: [(1, 0)], 12: [(1, 1)], 13: []}, weak=13)
    drawing = assemble(mechanism.PLAN, ours)
    assert drawing.open == ()
    assert "head 1.0, 1.1, deaf to place 13" in drawing.text
    assert set(assemble(mechanism.PLAN, {}).open) == set(ours)


def test_shares_and_their_intervals():
    one_row = pictures.share(torch.arange(100) < 10)  # Wilson's, as in Newcombe (1998)
    assert (one_row.share, one_row.n) == (pytest.approx(0.1), 100)
    assert (one_row.low, one_row.high) == (pytest.approx(0.0552, abs=1e-4), pytest.approx(0.1744, abs=1e-4))
    # Ten places that always agree are no more than one.
    repeated = pictures.share((torch.arange(300) < 100).expand(10, -1))
    alone = pictures.share(torch.arange(300) < 100)
    assert repeated.n == 3000
    assert repeated.high - repeated.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert str(pictures.share(torch.zeros(10, 300, dtype=torch.bool))) == "0 [0, .013]"


def test_a_map_of_shares_never_rounds_up_to_one():
    table = torch.tensor([[0.9996, 1.0], [0.25, float("nan")]])
    labels = {"x_labels": ["a", "b"], "y_labels": ["c", "d"]}
    figure = pictures.share_map(table, title="t", x="x", y="y", **labels)
    assert figure.data[0].text == ([">.999", "1"], [".250", ""])
    figure = pictures.share_map(torch.tensor([[0.99, 1.0], [0.25, 0.0]]), title="t", x="x", y="y", **labels)
    assert figure.data[0].text == ([".99", "1"], [".25", "0"])
