"""What every lesson shares, used as a learner does in JupyterLab: play, predict, draw; in light and in dark, by keyboard.

EXERCISES_SCREENSHOTS names the folder for the pictures; by default they go to pytest's temporary folder.
"""

import os
from itertools import combinations
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from exercises_utils.plotting import Reply
from exercises_utils.plotting.drawing import Arrow, Box, Plan, assemble
from exercises_utils.plotting.reply import picture
from tests.browser.jupyterlab import READABLE, THEMES, change_theme, listen, run_all

pytestmark = pytest.mark.browser

GAME = """\
import torch
from exercises_utils import plotting

def ask(text):
    a, b, c = plotting.read_numbers(text, count=3, low=0, high=9)
    sure = 0.5 + (a + b + c) / 60
    said, other = ("yes", "no") if a <= c else ("no", "yes")
    patterns = {f"head 0.{head}": torch.ones(3, 3).tril() / (head + 3) for head in range(2)}
    truth = "yes" if a == c else "no"
    return plotting.Reply([str(a), str(b), str(c)], {said: sure, other: 1 - sure}, truth, patterns, {(0, 2): a == c})

game = plotting.play(ask, start="1 2 1", title="Three digits", buttons={"turn round": lambda text: text[::-1]})
"""
PREDICTION = """\
from exercises_utils.checking import predict, predictions
where = predict("where", "Where does END look?", options={"mirror": "at its mirror", "start": "at `START`"})
where("a")
where.compare("mirror")
where("c")
predict("share", "How often?", unit="", low=0, high=1).compare(0.93)
predictions.summary()
"""
DRAWING = """\
from exercises_utils.plotting.drawing import Arrow, Box, Plan, assemble
plan = Plan(
    "How it works", {"7": "position 7", "END": "END"}, ("tokens", "layer 0"),
    {"value": Box("7", "tokens", "a value"), "head": Box("END", "layer 0", "head {who}")},
    [Arrow("value", "head", "{what}")],
)
assemble(plan, {"who": (0, 1)}).show()
"""


def field(page):
    return page.locator(".jupyter-widgets input[type=text]")


def retype(page, text):
    """Types into the field, as a person does."""
    field(page).focus()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type(text)


def sees(page, text):
    page.wait_for_function(
        "text => document.querySelector('.jp-Notebook').innerText.includes(text)", arg=text, timeout=20_000
    )


@pytest.fixture
def notebook(lab, page, course):
    """A notebook with a game, a prediction and a drawing, run to its end."""
    cells = [new_code_cell(source) for source in (GAME, PREDICTION, DRAWING)]
    made = new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    nbformat.write(made, course / "tools.ipynb")
    told = listen(page, lab)
    run_all(page, f"{lab}/lab/tree/tools.ipynb")
    yield page
    assert told == []
    assert page.evaluate("lesson.state()")["errors"] == []


def test_a_learner_plays_by_keyboard(notebook):
    page = notebook
    sees(page, "Nothing tried yet.")
    retype(page, "1 2 3")
    sees(page, "Right is “no”: you have broken it!")
    retype(page, "7 8 9")
    sees(page, "Your best failure: 7 8 9. The model says “yes” (.900), and right is “no”.")
    retype(page, "7 8")
    sees(page, "Expected 3 whole numbers from 0 to 9, with spaces between them; 2 came.")
    retype(page, "4 5 4")
    sees(page, "with probability .717, and that is right.")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "turn round"
    retype(page, "7 8 9")
    sees(page, "The model says “yes” with probability .900. Right is “no”")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")  # JupyterLab keeps Enter for itself
    sees(page, "The model says “no” with probability .900, and that is right.")
    assert field(page).input_value() == "9 8 7"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "your best failure"
    page.keyboard.press("Space")
    sees(page, "The model says “yes” with probability .900. Right is “no”")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    sees(page, "Where position 1 (8) attends")


def test_all_of_it_is_drawn_and_can_be_read_in_light_and_dark(notebook, tmp_path):
    page = notebook
    retype(page, "7 8")
    sees(page, "2 came.")
    shots = Path(os.environ.get("EXERCISES_SCREENSHOTS", tmp_path))
    shots.mkdir(parents=True, exist_ok=True)
    for theme in THEMES:
        change_theme(page, theme)
        page.wait_for_timeout(300)  # the theme's colours come with a transition
        page.screenshot(path=shots / f"tools-{theme}.png")
        state = page.evaluate("lesson.state()")
        assert state["contrast"] >= READABLE
        assert (state["games"], state["games_drawn"]) == (1, 1)
        picture = page.locator(".jp-RenderedSVG img")
        assert picture.evaluate("image => image.complete && image.naturalWidth") == 750
    sees(page, "You said: (a)")
    sees(page, "Your prediction share is open.")


def drawings():
    """A game's picture and drawings of many kinds, with long words and short."""
    reply = Reply(
        ["START", *map(str, range(20)), "END"], {"palindrome": 0.4, "no palindrome": 0.6}, "palindrome"
    )
    yield "game", picture(reply)
    for name, text in {
        "short": "0.1",
        "wide": "WWW MMM @@@ 000 — ≠ WWW MMM",
        "long": "what the head writes when it attends to the mirror of a value that has been changed " * 2,
    }.items():
        plan = Plan(
            text,
            {"1": text, "2": "END"},
            ("tokens", "layer 0", "layer 1"),
            {"a": Box("1", "tokens", text), "b": Box("1", "layer 0", text), "c": Box("2", "layer 1", text)},
            [Arrow("a", "b", text), Arrow("a", "c", text), Arrow("b", "c", text), Arrow("c", "c", text)],
        )
        yield name, assemble(plan).svg


@pytest.mark.parametrize(("name", "svg"), list(drawings()))
def test_no_text_meets_another_in_a_real_font(page, name, svg):
    page.set_content(svg)
    measured = page.evaluate(
        """() => [...document.querySelectorAll('text')].map(text => {
          const {x, width} = text.getBBox(), y = +text.getAttribute('y'), size = +text.getAttribute('font-size');
          return [text.textContent, x, y - 0.76 * size, x + width, y + 0.24 * size];
        })"""
    )
    width, height = (
        page.evaluate(f"document.querySelector('svg').viewBox.baseVal.{side}") for side in ("width", "height")
    )
    assert measured
    for text, left, top, right, bottom in measured:
        assert left >= 0, text
        assert top >= 0, text
        assert right <= width, text
        assert bottom <= height, text
    for (text, *a), (other, *b) in combinations(measured, 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] + 0.2 or b[3] <= a[1] + 0.2
        assert apart, f"{text} / {other}"
