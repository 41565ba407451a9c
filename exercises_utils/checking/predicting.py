"""Predictions: before a figure the learner commits to an answer; afterwards it stands beside what came.

A prediction is never right or wrong here, never counted, and nothing waits for it. What is kept belongs to the kernel,
by the name of the prediction: running a cell again, or the cell that defines it, loses nothing.
"""

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from html import escape
from itertools import combinations
from re import sub
from typing import Any

from IPython.display import display

from exercises_utils.checking.display import UNCHECKED, show

__all__ = ["Prediction", "letters", "predict", "predictions"]


def letters(exercise: str, options: Iterable[str]) -> dict[str, str]:
    """The options by letters "a", "b", …, in an order that depends on the exercise's name alone.

    So the right answer is now here, now there, and the same on every machine. Also for a `Question`:

    >>> letters("which_head", ["mean", "sum", "both"])
    {'a': 'both', 'b': 'mean', 'c': 'sum'}

    Raises `ValueError` for fewer than two options, or two that are the same.
    """
    names = list(options)
    if not 2 <= len(set(names)) == len(names) <= 26:
        raise ValueError(f"{exercise!r} needs from 2 to 26 options, all different; got {names}")
    mixed = sorted(names, key=lambda name: sha256(f"{exercise}\n{name}".encode()).digest())
    return {chr(ord("a") + i): name for i, name in enumerate(mixed)}


# --- the three kinds of answer ---


@dataclass(frozen=True)
class Letter:
    """One of several options, by its letter."""

    by_letter: Mapping[str, str]  # letter → the option's name
    texts: Mapping[str, str]  # the option's name → what it says

    @property
    def hint(self) -> str:
        """What to write."""
        *first, last = (f'"{letter}"' for letter in self.by_letter)
        return f"{', '.join(first)} or {last}"

    def read(self, answer: Any) -> str:
        """The option's name: from its letter (`"b"`, `"(B)"`, `"b."`), or from the name itself."""
        if isinstance(answer, str):
            letter = answer.strip(" ().").lower()
            if letter in self.by_letter:
                return self.by_letter[letter]
            if answer in self.texts:
                return answer
        raise ValueError(f"Expected one of the letters {self.hint}, in quotes; {_came(answer)} came.")

    def shown(self, value: str) -> str:
        """The letter and the option's text."""
        letter = next(letter for letter, name in self.by_letter.items() if name == value)
        return f"({letter}) {self.texts[value]}"

    def beside(self, answer: str, came: str) -> str:
        """Whether they are the same."""
        return "as you said" if answer == came else ""


@dataclass(frozen=True)
class Number:
    """A number, in a unit, perhaps between bounds."""

    unit: str
    low: int | float | None = None
    high: int | float | None = None

    @property
    def hint(self) -> str:
        """What to write."""
        bounds = {
            (False, False): "",
            (True, False): f" from {_short(self.low)} up",
            (False, True): f" up to {_short(self.high)}",
            (True, True): f" from {_short(self.low)} to {_short(self.high)}",
        }[self.low is not None, self.high is not None]
        return f"a number{bounds}" + (f" ({self.unit})" if self.unit else "")

    def read(self, answer: Any) -> float:
        """A finite number within the bounds."""
        value = _as_number(answer)
        low, high = -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high
        if value is None or not math.isfinite(value) or not low <= value <= high:
            raise ValueError(f"Expected {self.hint}; {_came(answer)} came.")
        return value

    def shown(self, value: int | float) -> str:
        """The number and its unit."""
        return f"{_short(value)} {self.unit}".rstrip()

    def beside(self, answer: int | float, came: int | float) -> str:
        """How far above or below."""
        gap = answer - came
        if _short(abs(gap)) == "0" or _short(answer) == _short(came):
            return "as you said"
        return f"you were {_short(abs(gap))} {'above' if gap > 0 else 'below'}"


@dataclass(frozen=True)
class Ranking:
    """All of some items, in order, the first one first."""

    items: Sequence[str]
    order: str  # such as "the most important first"

    @property
    def hint(self) -> str:
        """What to write."""
        return f"a list of {', '.join(self.items)}, {self.order}"

    def read(self, answer: Any) -> tuple[str, ...]:
        """The items in the learner's order; a text with commas will do."""
        if isinstance(answer, str):
            answer = answer.replace(">", ",").split(",")
        if isinstance(answer, list | tuple):
            named = tuple(_item(item) for item in answer)
            if sorted(named) == sorted(self.items):
                return named
            missing = [item for item in self.items if item not in named]
            foreign = [item for item in named if item not in self.items]
            twice = sorted({item for item in named if named.count(item) > 1})
            problems = {"missing": missing, "unknown": foreign, "more than once": twice}
            what = "; ".join(f"{word}: {', '.join(items)}" for word, items in problems.items() if items)
            raise ValueError(f"Expected {self.hint}. {what[0].upper()}{what[1:]}.")
        raise ValueError(f"Expected {self.hint}; {_came(answer)} came.")

    def shown(self, value: tuple[str, ...]) -> str:
        """The items in their order."""
        return " > ".join(value)

    def beside(self, answer: tuple[str, ...], came: tuple[str, ...]) -> str:
        """How many pairs stand in the same order."""
        pairs = list(combinations(self.items, 2))
        same = sum((answer.index(a) < answer.index(b)) == (came.index(a) < came.index(b)) for a, b in pairs)
        return "as you said" if same == len(pairs) else f"{same} of {len(pairs)} pairs in the same order"


Form = Letter | Number | Ranking
"""What can be answered. `hint` says what to write; `read` gives the answer as it is kept, or raises `ValueError` with a
sentence; `shown` puts it in words; `beside` says how it lies to what came, without judging it."""


def _as_number(value: Any) -> float | None:
    """A number, from whatever holds exactly one; None for anything else (True and False included)."""
    if hasattr(value, "item"):
        try:
            value = value.item()
        except (RuntimeError, ValueError):  # more than one number
            return None
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else None


def _item(item: Any) -> str:
    """An item of a ranking; a head (0, 1) is "0.1"."""
    if isinstance(item, tuple) and len(item) == 2:
        return f"{item[0]}.{item[1]}"
    return str(item).strip()


def _short(value: int | float | None) -> str:
    """A number to three significant digits, whole ones whole."""
    if value is None:
        return ""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e6 else f"{value:.3g}"


def _came(value: Any) -> str:
    """What was written instead, in a few words."""
    text = repr(value)
    return text if len(text) <= 40 else f"{type(value).__name__} {text[:30]}…"


# --- what is kept ---


@dataclass
class Record:
    """What was predicted and what came, in words; None where there is nothing yet."""

    question: str
    answer: Any = None
    said: str | None = None
    came: str | None = None
    beside: str = ""
    late: bool = False

    @property
    def outcome(self) -> str:
        """What came, and how the answer lies to it; or that it was said afterwards, where it was."""
        note = "said after it was shown" if self.late else self.beside
        return f"{self.came} ({note})" if note else str(self.came)


@dataclass
class Predictions:
    """All predictions of this kernel, in the order in which they were met."""

    records: dict[str, Record] = field(default_factory=dict)

    def summary(self) -> None:
        """Show a small table: what was predicted, and what came. No score."""
        met = [r for r in self.records.values() if r.said is not None or r.came is not None]
        if not met:
            show("No prediction has been met yet.")
            return
        rows = [
            (r.question, r.said or "open", "not yet looked at" if r.came is None else r.outcome) for r in met
        ]
        plain = "\n".join(f"{q}\n  you said:  {said}\n  what came: {came}" for q, said, came in rows)
        table = _table(("question", "you said", "what came"), rows)
        display({"text/plain": plain, "text/html": table}, raw=True)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def cells(row: Sequence[str], tag: str) -> str:
        shown = [sub(r"`([^`]+)`", r"<code>\1</code>", escape(cell, quote=False)) for cell in row]
        return "".join(f'<{tag} style="text-align:left;vertical-align:top">{cell}</{tag}>' for cell in shown)

    body = "\n".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table>\n<thead><tr>{cells(head, 'th')}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"


predictions = Predictions()
"""The predictions of this kernel: `predictions.summary()`."""


class Prediction:
    """A question that is answered before one looks; made by `predict`.

    Call it with the answer, which is kept; `compare` shows it beside what came.
    """

    def __init__(self, exercise: str, question: str, form: Form) -> None:
        self.exercise, self.question, self.form = exercise, question, form

    @property
    def record(self) -> Record:
        """What is kept under this name."""
        return predictions.records.setdefault(self.exercise, Record(self.question))

    def __call__(self, answer: Any) -> None:
        """Keep the answer and say so. None, "" and `...` are no answer yet; an answer of another form gets a sentence."""
        record = self.record
        if answer is None or answer is Ellipsis or answer == "":
            show(
                f"Prediction `{self.exercise}` is open. If you like, write {self.form.hint} and run this again before "
                "you look; nothing waits for it."
            )
            return
        try:
            value: Any = self.form.read(answer)
        except ValueError as error:
            kept = f" Your earlier one stays: {record.said}." if record.said else " Nothing is kept yet."
            show(f"Prediction `{self.exercise}`: {error}{kept}", UNCHECKED)
            return
        said = self.form.shown(value)
        if record.came is not None and record.said not in (None, said):
            show(
                f"Prediction `{self.exercise}`: what came has been shown, so your answer from before stays: "
                f"{record.said}. (After a restart of the kernel you can begin anew.)"
            )
            return
        record.late = record.late or (record.came is not None and record.said is None)
        record.answer, record.said = value, said
        show(f"Prediction `{self.exercise}`: you say {said}. It is kept, and will stand beside what comes.")

    def compare(self, result: Any) -> None:
        """Show what came, and beside it what was said.

        `result` is what was measured, in the form of an answer (of an option its letter or its name). What has another
        form is shown as it is.
        """
        record = self.record
        try:
            value: Any = self.form.read(result)
            record.came = self.form.shown(value)
            record.beside = "" if record.said is None else self.form.beside(record.answer, value)
        except ValueError:
            record.came, record.beside = result if isinstance(result, str) else _came(result), ""
        if record.said is None:
            show(f"What came: {record.came}.\nYour prediction `{self.exercise}` is open.")
            return
        show(f"You said: {record.said}.\nWhat came: {record.outcome}.")

    def markdown(self) -> str:
        """The options as they have to stand in the lesson, a line each; nothing for a number or a ranking."""
        if not isinstance(self.form, Letter):
            return ""
        return "\n".join(
            f"- **{letter}** {self.form.texts[name]}" for letter, name in self.form.by_letter.items()
        )


def predict(
    exercise: str,
    question: str,
    *,
    options: Mapping[str, str] | None = None,
    unit: str | None = None,
    low: int | float | None = None,
    high: int | float | None = None,
    ranking: Sequence[str] | None = None,
    order: str = "the largest first",
) -> Prediction:
    """A question to answer before one looks: with one of `options`, with a number, or with a `ranking`.

    Args:
        exercise: the name of the cell, of the learner's variable, and of what is kept.
        question: in a few words, for the table at the end.
        options: texts by names of your own, such as "mirror", which `compare` takes. Letters are given by `letters`, so
            the lesson shows `.markdown()`.
        unit: of a number, such as "logits" or "" for a share; `low` and `high` are its bounds.
        ranking: the items to put in order; `order` says in which.

    Raises:
        ValueError: none, or several, of options, unit and ranking; or an option's name could be taken for a letter.
    """
    if sum(form is not None for form in (options, unit, ranking)) != 1:
        raise ValueError(f"{exercise!r} needs one of `options`, `unit` and `ranking`")
    form: Form
    if options is not None:
        if short := [name for name in options if len(name) == 1]:
            raise ValueError(
                f"{exercise!r} has options named {short}, which could be taken for their letters"
            )
        form = Letter(letters(exercise, options), dict(options))
    elif unit is not None:
        form = Number(unit, low, high)
    else:
        form = Ranking(tuple(ranking or ()), order)
    return Prediction(exercise, question, form)
