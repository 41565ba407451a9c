"""The proof that the regression sees what it must see: real notebooks, tampered with, under real pytest."""

import base64
import copy
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from exercises_utils.lessons import write_notebook
from exercises_utils.lessons.running import environment, run_notebook
from tests.notebooks.tolerant_nbval import PLOTLY, figure_difference, numbers_agree, text_difference

ROOT = Path(__file__).parent.parent.parent

PRINT = "print('loss 0.12345678, accuracy 0.9876 on 500, head 1.0')"
RESULT = "{'loss': 0.4321, 'n': 12}"
HTML = "from IPython.display import HTML; display(HTML('<table><td>0.412</td><td>17</td></table>'))"
MARKDOWN = "from IPython.display import Markdown; display(Markdown('| a | b |\\n|---|---|\\n| 0.412 | 17 |'))"
LIST_FIGURE = (
    "import plotly.graph_objects as go; go.Figure(go.Scatter(y=[0.5, 1.25, 3.0], x=['a', 'b', 'c'])).show()"
)
ARRAY_FIGURE = (
    "import numpy as np; import plotly.graph_objects as go;"
    "go.Figure(go.Heatmap(z=np.arange(6.0).reshape(2, 3) + 0.5), layout_title_text='share 0.4100').show()"
)
GAME = (
    "from IPython.display import display; import ipywidgets; view = {'model_id': ipywidgets.Text().model_id};"
    "display({'text/plain': 'head 0.1 reads', 'image/svg+xml': '<svg/>',"
    "'application/vnd.jupyter.widget-view+json': view}, raw=True)"
)


def _text(cell, old, new, kind="text"):
    output = cell.outputs[0]
    holder = output if kind == "text" else output.data
    assert old in holder[kind], f"the proof changes {old!r}, which the output does not have"
    holder[kind] = holder[kind].replace(old, new)


def _picture(cell):
    words = cell.outputs[0].data["text/plain"]
    cell.outputs[0].data = {"text/plain": words, "image/png": "aGVsbG8="}


def _figure(cell):
    return cell.outputs[0].data[PLOTLY]["data"][0]


def _array(cell, change):
    z = _figure(cell)["z"]
    array = np.frombuffer(base64.b64decode(z["bdata"]), z["dtype"]).copy()
    z["bdata"] = base64.b64encode(change(array).tobytes()).decode()


def _set(container, key, value):
    container[key] = value


# name: (source, what is done to the stored cell, whether the regression still passes)
CASES = {
    "untouched print": (PRINT, lambda c: None, True),
    "print: last place of a float": (PRINT, lambda c: _text(c, "0.9876", "0.9877"), True),
    "print: two units in the last place": (PRINT, lambda c: _text(c, "0.9876", "0.9878"), False),
    "print: float noise": (PRINT, lambda c: _text(c, "0.12345678", "0.12345668"), True),
    "print: an integer": (PRINT, lambda c: _text(c, "500", "501"), False),
    "print: the name of a head": (PRINT, lambda c: _text(c, "head 1.0", "head 1.1"), False),
    "print: a word": (PRINT, lambda c: _text(c, "accuracy", "precision"), False),
    "print: a sign": (PRINT, lambda c: _text(c, "0.9876", "-0.9876"), False),
    "print: a number more": (PRINT, lambda c: _text(c, "500", "500 501"), False),
    "print: a line less": (PRINT, lambda c: _set(c, "outputs", []), False),
    "untouched result": (RESULT, lambda c: None, True),
    "result: a float": (RESULT, lambda c: _text(c, "0.4321", "0.4331", "text/plain"), False),
    "result: an integer": (RESULT, lambda c: _text(c, "12", "13", "text/plain"), False),
    "untouched HTML": (HTML, lambda c: None, True),
    "HTML table: last place": (HTML, lambda c: _text(c, "0.412", "0.413", "text/html"), True),
    "HTML table: a float": (HTML, lambda c: _text(c, "0.412", "0.422", "text/html"), False),
    "HTML table: an integer": (HTML, lambda c: _text(c, "17", "18", "text/html"), False),
    "untouched game": (GAME, lambda c: None, True),
    "game: stored as a picture": (GAME, lambda c: _picture(c), True),
    "game: a word": (GAME, lambda c: _text(c, "reads", "writes", "text/plain"), False),
    "untouched Markdown": (MARKDOWN, lambda c: None, True),
    "Markdown table: a float": (MARKDOWN, lambda c: _text(c, "0.412", "0.512", "text/markdown"), False),
    "Markdown table: an integer": (MARKDOWN, lambda c: _text(c, "17", "71", "text/markdown"), False),
    "untouched list figure": (LIST_FIGURE, lambda c: None, True),
    "list figure: noise": (LIST_FIGURE, lambda c: _set(_figure(c)["y"], 1, 1.25 + 1e-7), True),
    "list figure: a number": (LIST_FIGURE, lambda c: _set(_figure(c)["y"], 1, 1.26), False),
    "list figure: a label": (LIST_FIGURE, lambda c: _set(_figure(c)["x"], 1, "d"), False),
    "list figure: a point less": (LIST_FIGURE, lambda c: _figure(c)["y"].pop(), False),
    "list figure: another kind": (LIST_FIGURE, lambda c: _set(_figure(c), "type", "bar"), False),
    "untouched array figure": (ARRAY_FIGURE, lambda c: None, True),
    "array figure: noise": (ARRAY_FIGURE, lambda c: _array(c, lambda z: z + 1e-7), True),
    "array figure: other precision": (
        ARRAY_FIGURE,
        lambda c: (_array(c, lambda z: z.astype("f4")), _set(_figure(c)["z"], "dtype", "f4")),
        True,
    ),
    "array figure: a number": (ARRAY_FIGURE, lambda c: _array(c, lambda z: z + 0.01 * (z == 2.5)), False),
    "array figure: its shape": (ARRAY_FIGURE, lambda c: _set(_figure(c)["z"], "shape", "3, 2"), False),
    "array figure: its title": (
        ARRAY_FIGURE,
        lambda c: _set(c.outputs[0].data[PLOTLY]["layout"]["title"], "text", "share 0.5100"),
        False,
    ),
    "figure: a PNG beside it": (
        LIST_FIGURE,
        lambda c: _set(c.outputs[0].data, "image/png", "aGVsbG8="),
        True,
    ),
    "an output too many": (RESULT, lambda c: c.outputs.append(copy.deepcopy(c.outputs[0])), False),
    "never executed": (PRINT, lambda c: (_set(c, "execution_count", None), _set(c, "outputs", [])), False),
    "empty cell": ("", lambda c: None, True),
    "standard error appears": (
        "import sys; print('look out', file=sys.stderr)",
        lambda c: _set(c, "outputs", []),
        False,
    ),
    "an exception": ("1 / 0", lambda c: _set(c, "outputs", []), False),
    "dropped output": (
        "import random; print(random.random())",
        lambda c: (_set(c, "outputs", []), _set(c.metadata, "tags", ["drop-output"])),
        True,
    ),
    "dropped output, exception": (
        "1 / 0",
        lambda c: (_set(c, "outputs", []), _set(c.metadata, "tags", ["drop-output"])),
        False,
    ),
    "strict mode is on": (
        "import os; print(os.environ['EXERCISES_STRICT'], 'EXERCISES_INSTANCE' in os.environ)",
        lambda c: _set(c, "outputs", [new_output("stream", name="stdout", text="1 False\n")]),
        True,
    ),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Whether each case passed, from one run of nbval over one notebook."""
    folder = tmp_path_factory.mktemp("proof")
    cells = [new_code_cell(source) for source, _, _ in CASES.values()]
    notebook = new_notebook(cells=cells)
    # An exception keeps its place as an executed cell without output; all others keep what they show.
    executed = new_notebook(cells=[c for c in cells if c.source != "1 / 0"])
    run_notebook(executed, folder, environment(EXERCISES_STRICT="1"))
    for cell, (_, change, _) in zip(notebook.cells, CASES.values(), strict=True):
        if cell.source == "1 / 0":
            cell.execution_count = 1
        change(cell)
    write_notebook(notebook, folder / "proof.ipynb")
    command = [sys.executable, "-m", "pytest", "-p", "tests.notebooks.tolerant_nbval", "--nbval", "-q"]
    finished = subprocess.run(
        [*command, "-p", "no:cacheprovider", "--junitxml=results.xml", "proof.ipynb"],
        cwd=folder,
        # What a user may have set does not reach the notebook.
        env=os.environ | {"PYTHONPATH": str(ROOT), "EXERCISES_INSTANCE": "seed3"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (folder / "results.xml").exists(), finished.stdout + finished.stderr
    reports = list(ElementTree.parse(folder / "results.xml").iter("testcase"))
    assert len(reports) == len(CASES)
    return dict(zip(CASES, reports, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_regression(results, name):
    failed = [child.text for child in results[name] if child.tag in ("failure", "error")]
    passes = CASES[name][2]
    assert (not failed) == passes, failed


def test_a_failure_says_what_differs(results):
    def text(name):
        return " ".join(child.text or child.get("message") for child in results[name])

    assert "number 3: stored 501, now 500" in text("print: an integer")
    assert "figure.data[0].y[1]: stored 1.26, now 1.25" in text("list figure: a number")
    assert "never executed: run `make build`" in text("never executed")
    assert "look out" in text("standard error appears")


@pytest.mark.parametrize(
    ("stored", "new", "agree"),
    [
        ("0.50", "0.51", True),
        ("0.50", "0.52", False),
        ("1.5e-3", "1.6e-3", True),
        ("1.5e-3", "1.5e-2", False),
        ("0.3", "0.30000001192", True),
        ("0.3", "0.31", True),
        ("0.3", "0.32", False),
        ("3", "3.0", False),
        ("12.5", "12.6", True),
        ("0.0", "1.0", False),
        ("-0.0000", "0.0000", True),
        ("nan", "0.5", False),
    ],
)
def test_numbers_agree(stored, new, agree):
    assert numbers_agree(stored, new) is agree


def test_text_keeps_its_words_and_ignores_spaces():
    assert text_difference("a  0.50\nb", "a 0.51 b") is None
    assert "words differ" in text_difference("L0H1 reads", "L0H1 writes")
    assert "number 2" in text_difference("L0H1 reads", "L0H0 reads")


def test_figures_compare_missing_values_and_nan():
    assert figure_difference({"y": [None, 1.0]}, {"y": [None, 1.0]}) is None
    assert figure_difference({"y": [None, 1.0]}, {"y": [0.0, 1.0]}) is not None
    assert figure_difference({"y": [float("nan")]}, {"y": [float("nan")]}) is None
    assert figure_difference({"y": [1, 2]}, {"y": [1, 3]}) is not None
