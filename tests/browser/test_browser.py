"""The notebooks in JupyterLab, in a real Chromium that cannot reach anything outside.

EXERCISES_SCREENSHOTS names the folder for the pictures; by default they go to pytest's temporary folder.
"""

import base64
import io
import os
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_output
from PIL import Image
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from exercises_utils.lessons import find_lessons, read_source
from exercises_utils.lessons.building import embed_images
from tests.browser.jupyterlab import HEIGHT, READABLE, ROOT, THEMES, change_theme, listen, run_all

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("folder", ["notebooks", "solutions"])
@pytest.mark.parametrize("lesson", find_lessons(ROOT), ids=lambda lesson: lesson.name)
def test_run_all(lab, page, lesson, folder, tmp_path, record_property):
    """ "Run all" reaches the end, everything is drawn and can be read, in the light theme and in the dark one."""
    shots = Path(os.environ.get("EXERCISES_SCREENSHOTS", tmp_path))
    path = f"{folder}/{lesson.name}.ipynb"
    start = time.monotonic()
    told = listen(page, lab)
    run_all(page, f"{lab}/lab/tree/{path}")
    states = {}
    for theme in THEMES:
        change_theme(page, theme)
        photograph(page, shots / f"{lesson.name}-{folder}-{theme}")
        states[theme] = page.evaluate("lesson.state()")
    record_property("row", table_row(path, states, time.monotonic() - start))
    assert [fault for theme, state in states.items() for fault in faults(state, theme)] == []
    assert told == []
    for kind in ("figures", "widgets", "details"):
        assert states["light"][kind] > 0
    assert_details_fold(page)


def photograph(page, prefix, patience=10_000):
    """Scrolls through the notebook, so that all of it is drawn, and takes a picture of each screen."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    for number in range(200):
        page.evaluate(f"() => {{ lesson.scroller().scrollTop = {number * (HEIGHT - 200)} }}")
        # What is not drawn by then is counted afterwards.
        with suppress(PlaywrightTimeout):
            page.wait_for_function("() => lesson.viewIsDrawn()", timeout=patience, polling=100)
        page.screenshot(path=f"{prefix}-{number:02}.jpg", type="jpeg", quality=85)
        if page.evaluate("lesson.atEnd()"):
            return
    raise AssertionError(f"{prefix.name}: no end after 200 screens")


def faults(state, theme):
    """What is wrong with a notebook, in words."""
    found = [f"error output: {error}" for error in state["errors"]]
    for kind in ("figures", "widgets", "games", "details"):
        if state[f"{kind}_drawn"] != state[kind]:
            found.append(f"{theme}: {state[f'{kind}_drawn']} of {state[kind]} {kind} drawn")
    if state["contrast"] < READABLE:
        found.append(f"{theme}: a text with a contrast of {state['contrast']:.1f} to what is behind it")
    return found


def assert_details_fold(page):
    """A click unfolds what is folded, and another folds it again."""
    page.evaluate("() => { lesson.scroller().scrollTop = 0 }")
    details = page.locator(".jp-MarkdownOutput details").first
    heights = []
    for _ in range(3):
        heights.append((details.evaluate("e => e.open"), details.bounding_box()["height"]))
        details.locator("summary").click()
    (closed, low), (opened, high), (again, last) = heights
    assert (closed, opened, again) == (False, True, False)
    assert high > low == last


def table_row(path, states, seconds):
    counts = [
        f"{kind} " + " ".join(f"{state[f'{kind}_drawn']}/{state[kind]}" for state in states.values())
        for kind in ("figures", "widgets", "games", "details")
    ]
    size = (ROOT / path).stat().st_size / 1e6
    return f"{path:44}{'  '.join(counts)}  {seconds:4.0f} s  {size:.2f} MB"


BROKEN = """
from IPython.display import display
figure = {"data": [{"type": "scatter", "y": [1, 2]}], "layout": {}}
display({"application/vnd.plotly.v1+json": figure}, raw=True)
display({"application/vnd.plotly.v1+json": None}, raw=True)
display({"text/html": '<div class="cv-0">nothing is drawn here</div>'}, raw=True)
display({"text/html": '<p style="color: #777; background: #888">hardly to be read</p>'}, raw=True)
display({"text/html": '<img src="https://example.org/outside.png">'}, raw=True)
display({"text/html": "<script>setTimeout(() => { throw new Error('thrown') })</script>"}, raw=True)
raise ValueError("wrong")
"""


def test_a_broken_notebook_is_refused(lab, page, course, tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(BROKEN.strip())])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, course / "broken.ipynb")
    told = listen(page, lab)
    run_all(page, f"{lab}/lab/tree/broken.ipynb")
    photograph(page, tmp_path / "broken", patience=3_000)
    assert faults(page.evaluate("lesson.state()"), "light") == [
        "error output: ValueError: wrong",
        "light: 1 of 2 figures drawn",
        "light: 0 of 1 widgets drawn",
        "light: a text with a contrast of 1.3 to what is behind it",
    ]
    assert {line.split(" ")[0] for line in told} == {"asks", "page"}
    assert "asks outside: https://example.org/outside.png" in told
    assert "page error: thrown" in told


def test_pictures_are_put_beside_figures(lesson_folder):
    lesson = find_lessons(lesson_folder)[0]
    notebook = read_source(lesson)
    figure = {"data": [{"type": "scatter", "y": [1, 2, 3]}], "layout": {"title": {"text": "Three points"}}}
    output = {
        "output_type": "display_data",
        "metadata": {},
        "data": {"application/vnd.plotly.v1+json": figure},
    }
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    drawing = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20"><rect width="40" height="20" fill="red"/></svg>'
    cell.outputs = [
        new_output(**output),
        new_output("display_data", {"image/svg+xml": drawing, "text/plain": "red"}),
    ]
    embed_images(notebook)
    plot, red = cell.outputs
    assert plot.data["image/png"].startswith("iVBORw0KGgo")
    assert set(red.data) == {"image/png", "text/plain"}, "GitHub would show the SVG, and not every one"
    with Image.open(io.BytesIO(base64.b64decode(red.data["image/png"]))) as picture:
        assert picture.size == (80, 40)
        assert picture.convert("RGB").getpixel((40, 20)) == (255, 0, 0)
    assert red.metadata["image/png"] == {"width": 40, "height": 20}
