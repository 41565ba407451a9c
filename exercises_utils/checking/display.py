"""How outcomes look: their names and marks, and a short text with colour in a notebook, without it elsewhere."""

from html import escape
from re import sub

PASSED, FAILED, NOT_ATTEMPTED, UNCHECKED = "passed", "failed", "not attempted", "could not be checked"
MARKS = {PASSED: "✓", FAILED: "✗", NOT_ATTEMPTED: "○", UNCHECKED: "?"}
COLOURS = {
    PASSED: ("--jp-success-color1", "#2e7d32"),
    FAILED: ("--jp-error-color1", "#c62828"),
    UNCHECKED: ("--jp-warn-color1", "#b26a00"),
}
NEUTRAL = ("--jp-border-color1", "#808080")


def show(text: str, status: str = "") -> None:
    """Display `text` with a coloured bar for `status` in a Jupyter kernel; print it where there is none.

    Backticks become code. The text itself keeps the notebook's own colour, so it reads on light and on dark.
    """
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        print(text)
        return
    from IPython.display import display

    display({"text/plain": text, "text/html": as_html(text, status)}, raw=True)


def as_html(text: str, status: str = "") -> str:
    """The text as HTML that is still readable where a site strips the style."""
    variable, fallback = COLOURS.get(status, NEUTRAL)
    lines = [sub(r"`([^`]+)`", r"<code>\1</code>", escape(line, quote=False)) for line in text.split("\n")]
    return (
        f'<div style="border-left: 4px solid var({variable}, {fallback}); padding: 2px 0 2px 10px">'
        + "<br>\n".join(lines)
        + "</div>"
    )
