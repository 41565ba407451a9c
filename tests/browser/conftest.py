"""A JupyterLab, a Chromium that cannot reach anything outside, and a table of what was drawn, at the end of a run."""

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

from tests.browser.jupyterlab import HEIGHT, ROOT

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"
SWITCHES = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", OFFLINE]


@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """A copy of the repository's notebooks."""
    folder = tmp_path_factory.mktemp("lab") / "course"
    for name in ("notebooks", "solutions"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
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


def pytest_terminal_summary(terminalreporter):
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    rows = [dict(report.user_properties).get("row") for report in reports if report.when == "call"]
    rows = sorted(filter(None, rows))
    if rows:
        terminalreporter.section("drawn, in the light theme and in the dark one")
        terminalreporter.write_line("\n".join(rows))
