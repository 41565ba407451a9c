"""The notebooks in JupyterLab, in a real Chromium that cannot reach anything outside.

EXERCISES_SCREENSHOTS names the folder for the pictures; by default they go to pytest's temporary folder.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from exercises_utils.lessons import embed_images, find_lessons, read_source

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parent.parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"
SWITCHES = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", OFFLINE]
HEIGHT = 2000

# An error is looked for in the model of the notebook: JupyterLab keeps only the cells in view in the page.
ENDED = """() => {
  const cells = [...window.jupyterapp.shell.currentWidget.content.model.cells].filter(cell => cell.type === 'code');
  const waits = cell => cell.executionCount == null && cell.sharedModel.getSource().trim();
  const failed = cell => [...Array(cell.outputs.length).keys()].some(i => cell.outputs.get(i).type === 'error');
  return !cells.some(waits) || cells.some(failed);
}"""
STATE = """() => {
  const cells = [...window.jupyterapp.shell.currentWidget.content.model.cells];
  const code = cells.filter(cell => cell.type === 'code' && cell.sharedModel.getSource().trim());
  const outputs = code.flatMap(cell => cell.outputs.toJSON());
  const drawn = (selector, part) =>
    [...document.querySelectorAll('.jp-OutputArea ' + selector)].filter(e => e.querySelector(part)).length;
  return {
    errors: outputs.filter(o => o.output_type === 'error').map(o => o.ename + ': ' + o.evalue),
    figures: outputs.filter(o => o.data && 'application/vnd.plotly.v1+json' in o.data).length,
    widgets: outputs.filter(o => [o.data?.['text/html'] ?? ''].flat().join('').includes('class="cv-')).length,
    figures_drawn: drawn('.js-plotly-plot', '.main-svg'),
    widgets_drawn: drawn('div[class^=cv-]', 'canvas'),
  };
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab over a copy of the repository's notebooks, with settings of its own."""
    home = tmp_path_factory.mktemp("lab")
    for folder in ("notebooks", "solutions"):
        shutil.copytree(ROOT / folder, home / "course" / folder)
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    variables |= {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "HOME": str(home)}
    variables |= {"JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces")}
    options = ["--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0"]
    options += ["--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True"]
    log = home / "server.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            cwd=home / "course",
            env=os.environ | variables,
            stdout=file,
            stderr=file,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/api/status", timeout=2)
                break
            except OSError:
                running = server.poll() is None and time.monotonic() < deadline
                assert running, f"JupyterLab did not start:\n{log.read_text()[-3000:]}"
                time.sleep(0.3)
        yield address
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()


@pytest.fixture
def page(tmp_path):
    assert CHROMIUM, "Chromium is missing. On Debian and Ubuntu, as root: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            str(tmp_path / "profile"),
            executable_path=CHROMIUM,
            headless=True,
            args=SWITCHES,
            viewport={"width": 1200, "height": HEIGHT},
        )
        yield browser.pages[0] if browser.pages else browser.new_page()
        browser.close()


@pytest.mark.parametrize("folder", ["notebooks", "solutions"])
@pytest.mark.parametrize("lesson", find_lessons(ROOT), ids=lambda lesson: lesson.name)
def test_run_all(lab, page, lesson, folder, tmp_path):
    """ "Run all" reaches the end without an error, and every figure and every widget is drawn."""
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{lab}/lab/tree/{folder}/{lesson.name}.ipynb?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
    page.wait_for_function(
        "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'",
        timeout=120_000,
    )
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(ENDED, timeout=600_000, polling=1000)
    shots = Path(os.environ.get("EXERCISES_SCREENSHOTS", tmp_path))
    photograph(page, shots / f"{lesson.name}-{folder}")
    state = page.evaluate(STATE)
    assert state["errors"] == []
    assert errors == []
    assert state["figures"] > 0
    assert state["widgets"] > 0
    assert state["figures_drawn"] == state["figures"]
    assert state["widgets_drawn"] == state["widgets"]


def photograph(page, prefix):
    """Scrolls through the notebook, so that all of it is drawn, and takes a picture of each screen."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    scroller = "document.querySelector('.jp-NotebookPanel-notebook .jp-WindowedPanel-outer')"
    total = page.evaluate(f"() => {scroller}.scrollHeight")
    for number, top in enumerate(range(0, total, HEIGHT - 200)):
        page.evaluate(f"() => {{ {scroller}.scrollTop = {top} }}")
        page.wait_for_timeout(1500)
        page.screenshot(path=f"{prefix}-{number:02}.png")


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
    cell.outputs = [type(cell)(output, data=type(cell)(output["data"]))]
    embed_images(notebook)
    assert cell.outputs[0].data["image/png"].startswith("iVBORw0KGgo")
