"""What the tests in a real browser share: how a notebook is opened, run and looked at."""

from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parent.parent.parent
HEIGHT = 2000
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
READABLE = 4.5  # WCAG's least contrast of a text


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
