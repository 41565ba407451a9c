"""A small game with a model: type an input, see what the model makes of it, and try to break it.

`play` knows nothing of a challenge: it gets a function that asks the model (text in, `Reply` out). Where no kernel runs,
the picture of the first input stands in the game's place.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from html import escape
from re import sub
from typing import Any

from IPython.display import display

from exercises_utils.plotting.reply import Reply, described, picture, probability, verdict

__all__ = ["Game", "Reply", "Try", "play", "read_numbers"]

WIDGET = "application/vnd.jupyter.widget-view+json"

Ask = Callable[[str], Reply]
Change = Callable[[str], str]


@dataclass(frozen=True)
class Try:
    """One input that was tried, and what the model said, with what probability; `right` as in `Reply`."""

    text: str
    said: str
    probability: float
    right: str | None

    @property
    def wrong(self) -> bool:
        """Whether the model's answer is known to be wrong."""
        return self.right is not None and self.said != self.right

    def __str__(self) -> str:
        truth = "" if self.right is None else f", and right is “{self.right}”"
        return f"`{self.text}`. The model says “{self.said}” ({probability(self.probability)}){truth}"


def read_numbers(text: str, count: int, low: int, high: int) -> list[int]:
    """The whole numbers in a text, with spaces or commas between them, in brackets or not.

    Raises `ValueError` with a sentence for the learner where there are not `count` of them from `low` to `high`.

    >>> read_numbers("[3, 1, 2]", count=3, low=0, high=9)
    [3, 1, 2]
    """
    words = text.translate(str.maketrans(",;[]()", "      ")).split()
    wanted = f"Expected {count} whole numbers from {low} to {high}, with spaces between them"
    numbers = []
    for i, word in enumerate(words, start=1):
        try:
            numbers.append(int(word))
        except ValueError:
            raise ValueError(f"{wanted}; number {i} is `{word[:20]}`.") from None
        if not low <= numbers[-1] <= high:
            raise ValueError(f"{wanted}; number {i} is {word[:20]}.")
    if len(numbers) != count:
        raise ValueError(f"{wanted}; {len(numbers) or 'none'} came.")
    return numbers


class Game:
    """What has been tried on a model; made and shown by `play`, which says what comes in."""

    def __init__(self, ask: Ask, start: str, title: str, buttons: Mapping[str, Change], live: bool) -> None:
        self.title = title
        self.tries: dict[tuple[str, ...], Try] = {}
        self._ask = ask
        self._reply = ask(start)
        for text in _kept.pop(title, []):
            try:
                self._keep(text)
            except Exception:  # the cell has been changed, and what it took before is no input now
                continue
        self._build(start, buttons, live)
        self._offer_positions()
        self._draw()
        self._field.observe(self._typed, "value")
        self._query.observe(self._chosen, "value")

    def _build(self, start: str, buttons: Mapping[str, Change], live: bool) -> None:
        """Makes the widget and its parts."""
        from ipywidgets import HTML, BoundedIntText, Button, HBox, Layout, Text, VBox

        narrow, own = Layout(width="auto"), {"description_width": "initial"}
        self._said, self._picture, self._score = HTML(), HTML(), HTML()
        self._field = Text(
            start, description="input", continuous_update=live, layout=Layout(width="99%"), style=own
        )
        # An arrow key in a list of positions would move JupyterLab to another cell; here it does not.
        self._query = BoundedIntText(
            description="attention from position",
            min=0,
            max=0,
            continuous_update=True,
            layout=Layout(width="210px"),
            style=own,
        )
        changes = [Button(description=name, layout=narrow) for name in buttons]
        for button, change in zip(changes, buttons.values(), strict=True):
            button.on_click(partial(self._press, change))
        self._best = Button(description="your best failure", layout=narrow)
        self._best.on_click(
            partial(self._press, lambda text: self.best_failure.text if self.best_failure else text)
        )
        ways = (
            "Type an input"
            + ("" if live else " and press Enter")
            + (", or press a button." if buttons else ".")
        )
        heading = HTML(_text(f"**{self.title}.** {ways} Can you find one that the model gets wrong?"))
        controls = HBox(
            [*changes, self._best, *([self._query] if self._reply.attention else [])],
            layout=Layout(flex_flow="row wrap", align_items="center"),
        )
        self.widget = VBox(
            [heading, self._field, controls, self._said, self._picture, self._score],
            layout=Layout(max_width="770px"),
        )

    @property
    def best_failure(self) -> Try | None:
        """The wrong answer that the model was most confident of, among all tries; None if there is none."""
        wrong = [t for t in self.tries.values() if t.wrong]
        return max(wrong, key=lambda t: t.probability, default=None)

    def type(self, text: str) -> None:
        """Put `text` into the field, as if it were typed there."""
        self._field.value = text

    def report(self) -> None:
        """Show how many inputs were tried, on how many the model was wrong, and the best failure."""
        score = self._counted()
        display({"text/plain": score, "text/html": _note(score)}, raw=True)

    def show(self) -> None:
        """Show the game, and for pages without a kernel the picture of the present input."""
        if "google.colab" in sys.modules:
            display(self.widget)  # of several forms, Colab might take the picture
            return
        words = f"{self.title} (a game, for a notebook with a kernel)\n{described(self._reply)}"
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        display({"text/plain": words, "image/svg+xml": self._drawn(), WIDGET: view}, raw=True)

    def _press(self, change: Change, button: Any) -> None:
        try:
            self.type(change(self._field.value))
        except Exception as error:
            self._complain(error)

    def _typed(self, event: Any) -> None:
        try:
            self._reply = self._keep(self._field.value)
        except Exception as error:
            self._complain(error)
            return
        self._offer_positions()
        self._draw()

    def _chosen(self, event: Any) -> None:
        self._picture.value = self._drawn()

    def _keep(self, text: str) -> Reply:
        """Asks the model, and keeps the input as a try, once."""
        reply = self._ask(text)
        said = reply.said
        if tuple(reply.tokens) not in self.tries:
            _kept.setdefault(self.title, []).append(text)
        self.tries[tuple(reply.tokens)] = Try(
            " ".join(text.split()), said, reply.probabilities[said], reply.right
        )
        return reply

    def _complain(self, error: Exception) -> None:
        """Says what is wrong with the input; what was drawn before stays, pale."""
        about = str(error)
        if not isinstance(error, ValueError):
            about = f"The model could not be asked. {type(error).__name__}: {about.splitlines()[0] if about else ''}"
        self._said.value = _note(about, "var(--jp-warn-color1, #b26a00)")
        self._picture.value = f'<div style="opacity:.45">{self._drawn()}</div>'

    def _offer_positions(self) -> None:
        """The positions that attention can be shown from; in an input of another length, the last one is."""
        last = len(self._reply.tokens) - 1
        if last != self._query.max:
            self._query.max = last
            self._query.value = last

    def _draw(self) -> None:
        self._said.value = _note(verdict(self._reply))
        self._picture.value = self._drawn()
        self._score.value = _note(self._counted())
        self._best.disabled = self.best_failure is None

    def _drawn(self) -> str:
        return picture(self._reply, self._query.value)

    def _counted(self) -> str:
        if not self.tries:
            return "Nothing tried yet."
        n, wrong = len(self.tries), sum(t.wrong for t in self.tries.values())
        count = f"You tried {n} input{'s' if n > 1 else ''}, and the model was wrong on {wrong or 'none'}."
        return f"{count}\nYour best failure: {self.best_failure}." if wrong else count


_kept: dict[str, list[str]] = {}
"""What was tried in this kernel, by the title of the game."""


def play(
    ask: Ask, *, start: str, title: str, buttons: Mapping[str, Change] | None = None, live: bool = True
) -> Game:
    """A small widget in which the learner types inputs and tries to break a model; shown, and returned.

    Each input that is valid is a try. `game.best_failure` is the `Try` with the most confident wrong answer, or None,
    for the end of the lesson; `game.report()` says it in words. A second game of the same title begins with the tries
    of the first, so that running a cell again loses none.

    Args:
        ask: the text as it was typed → a `Reply`. A `ValueError` is shown as a sentence: say what was expected and
            what came (`read_numbers` does). Any other error is shown with its type.
        start: the first input. It is no try, and its picture is what a page without a kernel shows.
        title: what this is, such as "The palindrome model"; for another model, another title.
        buttons: by their names, functions that get the present text and return another one.
        live: whether each keystroke asks the model; else Enter does. For models that take their time.

    Raises:
        ValueError: `start` itself is not valid.
    """
    game = Game(ask, start, title, buttons or {}, live)
    game.show()
    return game


def _text(text: str) -> str:
    """HTML in a notebook's own colours: `code` in backticks, **bold** in stars."""
    inside = sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    inside = sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", inside).replace("\n", "<br>\n")
    return f'<div style="line-height:1.5;margin:2px 0">{inside}</div>'


def _note(text: str, colour: str = "var(--jp-border-color1, #808080)") -> str:
    """The same with a bar at its left."""
    return f'<div style="border-left:4px solid {colour};padding-left:10px">{_text(text)}</div>'
