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
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from playwright.sync_api import sync_playwright

from exercises_utils.lessons import find_lessons, read_source
from exercises_utils.lessons.building import embed_images

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parent.parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"
SWITCHES = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", OFFLINE]
HEIGHT = 2000

THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
READABLE = 4.5  # WCAG's least contrast of a text


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A copy of the repository's notebooks."""
    folder = tmp_path_factory.mktemp("lab") / "course"
    for name in ("notebooks", "solutions"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def lab(course):
    """The address of a JupyterLab over the course, with settings of its own."""
    home = course.parent
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
            cwd=course,
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


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A Chromium for which no name outside exists."""
    assert CHROMIUM, "Chromium is missing. On Debian and Ubuntu, as root: apt-get install chromium"
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("profile")),
            executable_path=CHROMIUM,
            headless=True,
            args=SWITCHES,
            viewport={"width": 1200, "height": HEIGHT},
        )
        context.add_init_script(path=Path(__file__).parent / "page.js")
        yield context
        context.close()


@pytest.fixture
def page(browser):
    page = browser.new_page()
    yield page
    page.evaluate("() => window.jupyterapp?.shell.currentWidget?.sessionContext?.shutdown()")
    page.close()


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


def listen(page, lab):
    """A list that gets the page's errors, and every address outside that it asks for."""
    told = []
    page.on("pageerror", lambda error: told.append(f"page error: {error}"))

    def request(url):
        host = urlsplit(url)
        if host.scheme in ("http", "https", "ws", "wss") and host.netloc != urlsplit(lab).netloc:
            told.append(f"asks outside: {url}")

    page.on("request", lambda sent: request(sent.url))
    page.on("websocket", lambda socket: request(socket.url))
    return told


def run_all(page, address):
    """Opens a notebook, and runs it to the end or to its first error."""
    page.goto(f"{address}?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
    page.wait_for_function(
        "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'",
        timeout=120_000,
    )
    change_theme(page, "light")
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function("() => lesson.ended()", timeout=600_000, polling=1000)


def change_theme(page, theme):
    page.evaluate(
        "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", THEMES[theme]
    )
    page.wait_for_selector(f"body[data-jp-theme-name='{THEMES[theme]}']", state="attached")


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
    for kind in ("figures", "widgets", "details"):
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
        for kind in ("figures", "widgets", "details")
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
    cell.outputs = [type(cell)(output, data=type(cell)(output["data"]))]
    embed_images(notebook)
    assert cell.outputs[0].data["image/png"].startswith("iVBORw0KGgo")
