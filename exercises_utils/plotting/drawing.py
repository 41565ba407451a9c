"""A mechanism as a drawing: boxes in columns (positions) and rows (layers, the first at the bottom), joined by arrows.

A `Plan` is plain data. Its texts may have gaps in braces, such as ``"head {who compares}"``: `assemble` fills them with
a learner's own pieces, and what is still open is drawn as a question. The same plan with the course's pieces is the
course's drawing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from IPython.display import display

from exercises_utils.plotting import svg
from exercises_utils.plotting.layout import (
    EDGE,
    HEADING,
    LABEL,
    ROW_NAMES,
    WIDTH,
    Layout,
    Part,
    PlacedArrow,
    PlacedBox,
)

__all__ = ["Arrow", "Box", "Drawing", "Plan", "assemble"]

_GAP = re.compile(r"\{([^{}]+)\}")
_BLUE, _RED = "#0072b2", "#c94f00"
_FILLS = {"given": (svg.PALE, "#8a8a8a"), "found": ("#e3f0f9", _BLUE), "open": ("#fdf0e8", _RED)}
_DASHES = {"given": None, "found": None, "open": "5 3"}
UNKNOWN = "?"
"""The column of what nobody has placed yet."""


@dataclass(frozen=True)
class Box:
    """A token, a head, a decision: where it stands, and what stands in it. Each of the three may have gaps."""

    column: str
    row: str
    text: str


@dataclass(frozen=True)
class Arrow:
    """What goes from one box to another, by their names in the plan. Each of the three may have gaps."""

    start: str
    end: str
    label: str = ""


@dataclass(frozen=True)
class Plan:
    """What a drawing is made of.

    `columns` are headings by name, from left to right; `rows` are names, the lowest first; `boxes` are by name. A gap
    in the place of a column, a row or a box is filled by one of these names, or by the text that stands there.

    Raises `ValueError` where a box or an arrow refers to what is not there.
    """

    title: str
    columns: Mapping[str, str]
    rows: Sequence[str]
    boxes: Mapping[str, Box]
    arrows: Sequence[Arrow]

    def __post_init__(self) -> None:
        for name, box in self.boxes.items():
            _must_be("column", name, box.column, self.columns)
            _must_be("row", name, box.row, self.rows)
        for arrow in self.arrows:
            for end in (arrow.start, arrow.end):
                _must_be("box", f"{arrow.start} → {arrow.end}", end, self.boxes)

    @property
    def gaps(self) -> list[str]:
        """The names of the pieces that are to be found, each once, boxes before arrows."""
        texts = [t for box in self.boxes.values() for t in (box.column, box.row, box.text)]
        texts += [t for arrow in self.arrows for t in (arrow.start, arrow.end, arrow.label)]
        return list(dict.fromkeys(gap for text in texts for gap in _GAP.findall(text)))


def _must_be(what: str, where: str, name: str, known: Any) -> None:
    if not _GAP.search(name) and name not in known:
        raise ValueError(f"{where!r} is in the {what} {name!r}, and there are only: {', '.join(known)}")


@dataclass(frozen=True)
class Drawing:
    """A drawing: the picture as SVG, the same in words, and the pieces that are still open."""

    svg: str
    text: str
    open: tuple[str, ...] = ()

    def show(self) -> None:
        """Show the picture; where pictures are not shown, the words."""
        display({"image/svg+xml": self.svg, "text/plain": self.text}, raw=True)


def assemble(plan: Plan, pieces: Any = None, *, title: str | None = None) -> Drawing:
    """The drawing of a plan, with these pieces in its gaps.

    Args:
        plan: what to draw.
        pieces: what was found, by the names of the gaps (`plan.gaps`): texts, numbers, heads such as ``(0, 1)``, lists
            of them. What is None, or missing, or fits nowhere, stays open, and a line below the drawing says so;
            nothing is raised.
        title: instead of the plan's own.
    """
    filled = _Filled(plan, pieces)
    title = plan.title if title is None else title
    remarks = list(dict.fromkeys(filled.remarks))
    still_open = tuple(gap for gap in plan.gaps if gap not in filled.found or gap in filled.misplaced)
    if still_open:
        remarks.insert(0, f"Still open: {', '.join(still_open)}.")
    columns = dict(plan.columns)
    if any(box.start == UNKNOWN for box in filled.boxes.values()):
        columns[UNKNOWN] = "place?"
    text = "\n".join([title, *_words(columns, plan.rows, filled), *remarks])
    layout = Layout(columns, plan.rows, filled.boxes, filled.arrows)
    return Drawing(_picture(layout, title, remarks, text), text, still_open)


# --- a learner's pieces ---


class _Filled:
    """The boxes (`start` is a column, `end` a row) and the arrows of a plan with a learner's pieces in their gaps."""

    def __init__(self, plan: Plan, pieces: Any) -> None:
        self.plan = plan
        self.remarks: list[str] = []
        self.misplaced: set[str] = set()
        self.found = self._found(pieces)
        rows = {row: row for row in plan.rows}
        texts = {name: self._text(box.text) for name, box in plan.boxes.items()}
        places = {
            name: (self._place(box.column, plan.columns, UNKNOWN), self._place(box.row, rows, plan.rows[0]))
            for name, box in plan.boxes.items()
        }
        ends = [
            (self._place(a.start, texts, UNKNOWN), self._place(a.end, texts, UNKNOWN)) for a in plan.arrows
        ]
        self.boxes = {
            name: Part(*places[name], texts[name], self._state(box.column, box.row, box.text))
            for name, box in plan.boxes.items()
        }
        self.arrows = [
            Part(*ends[i], self._text(arrow.label), self._state(arrow.start, arrow.end, arrow.label))
            for i, arrow in enumerate(plan.arrows)
        ]
        for i in range(len(self.arrows)):
            self._give_ends(i)

    def _found(self, pieces: Any) -> dict[str, str]:
        """The pieces that are there, as texts."""
        gaps = self.plan.gaps
        if pieces is None:
            return {}
        if not isinstance(pieces, Mapping):
            self.remarks.append(
                f"Expected a dict with the keys {', '.join(gaps)}; {type(pieces).__name__} came."
            )
            return {}
        for name in pieces:
            if name not in gaps:
                near = get_close_matches(str(name), gaps, 1)
                hint = f"; did you mean “{near[0]}”?" if near else f"; there are: {', '.join(gaps)}."
                self.remarks.append(f"“{name}” is no piece of this drawing{hint}")
        return {name: said for name, value in pieces.items() if name in gaps and (said := _said(value))}

    def _text(self, template: str) -> str:
        """A text with its gaps filled, or named; whoever writes "head 0.1" where "head" stands already, writes it once."""
        text = _GAP.sub(lambda gap: self.found.get(gap[1], f"[{gap[1]}?]"), template)
        return re.sub(r"\b([A-Za-z]{3,}) \1\b", r"\1", text)

    def _state(self, *templates: str) -> str:
        """Whether what is made of these texts is the plan's own, found by the learner, or open."""
        gaps = {gap for template in templates for gap in _GAP.findall(template)}
        if not gaps:
            return "given"
        return "found" if gaps <= self.found.keys() - self.misplaced else "open"

    def _place(self, template: str, known: Mapping[str, str], otherwise: str) -> str:
        """The name that stands in a gap for a column, a row or a box, in whatever way it was written."""
        gaps = _GAP.findall(template)
        if not gaps:
            return template
        said = self._text(template)
        names = {_plain(words): key for key, words in known.items()} | {_plain(key): key for key in known}
        if _plain(said) in names:
            return names[_plain(said)]
        if all(gap in self.found for gap in gaps):
            there = ", ".join(map(_one_line, known.values()))
            self.remarks.append(f"“{said}” has no place here; expected one of: {there}.")
            self.misplaced.update(gaps)
        return otherwise

    def _give_ends(self, i: int) -> None:
        """An end that nobody knows yet becomes a box of its own, a row before or after the other end."""
        asked = self.plan.arrows[i]
        for end, other, step in (("start", "end", -1), ("end", "start", 1)):
            arrow = self.arrows[i]
            if getattr(arrow, end) != UNKNOWN:
                continue
            known = self.boxes.get(getattr(arrow, other))
            row = self.plan.rows.index(known.end) + step if known else 0
            row = min(max(row, 0), len(self.plan.rows) - 1)
            name = f"{UNKNOWN} {end} {i}"
            self.boxes[name] = Part(UNKNOWN, self.plan.rows[row], self._text(getattr(asked, end)), "open")
            self.arrows[i] = replace(arrow, **{end: name}, state="open")


def _said(value: Any) -> str:
    """A piece as text: a head (0, 1) is "0.1", several are "0.1, 1.0"; nothing for what is not there yet."""
    if isinstance(value, tuple) and len(value) == 2 and all(type(item) is int for item in value):
        return f"{value[0]}.{value[1]}"
    if isinstance(value, list | tuple | set):
        items = sorted(value, key=str) if isinstance(value, set) else value
        return ", ".join(filter(None, map(_said, items)))
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None or value is Ellipsis else _one_line(str(value))


def _plain(text: str) -> str:
    return _one_line(text).casefold()


def _words(columns: Mapping[str, str], rows: Sequence[str], filled: _Filled) -> list[str]:
    """The drawing in words: the boxes, row by row from the bottom, then the arrows."""
    lines = []
    for row in rows:
        here = [box for box in filled.boxes.values() if box.end == row]
        if here:
            inside = [f"{_one_line(columns[box.start])}: {box.text}" for box in here]
            lines.append(f"  {row}: {'; '.join(inside)}")
    for arrow in filled.arrows:
        label = f" ({arrow.text})" if arrow.text else ""
        lines.append(f"  {filled.boxes[arrow.start].text} → {filled.boxes[arrow.end].text}{label}")
    return lines


def _one_line(text: str) -> str:
    return " ".join(text.split())


# --- the picture ---


def _picture(layout: Layout, title: str, remarks: Sequence[str], about: str) -> str:
    """The drawing as SVG, with the remarks below it."""
    shown = svg.shortened(title, WIDTH - 2 * EDGE, 15, bold=True)
    parts = [svg.text(EDGE, 24, shown, 15, bold=True, text_anchor="start")]
    for row, (y, height) in layout.row_spans.items():
        names = svg.wrapped(row, ROW_NAMES - 12, LABEL)
        parts.append(svg.rect(EDGE, y - 5, WIDTH - 2 * EDGE, height + 10, rx=4, fill="#fafafa"))
        parts.append(svg.lines(EDGE + 6, y + height / 2, names, LABEL, text_anchor="start", fill=svg.MUTED))
    for name, lines in layout.headings.items():
        x, colour = layout.middle(name), _RED if name == UNKNOWN else svg.INK
        parts.append(svg.lines(x, layout.top - 7.5 * len(lines), lines, HEADING, bold=True, fill=colour))
        stream = f"M{svg.number(x)} {svg.number(layout.top + 4)}V{svg.number(layout.bottom)}"
        parts.append(svg.path(stream, stroke="#eceff1", stroke_width=7))
    parts += [_arrow(arrow) for arrow in layout.arrows]
    parts += [_label(arrow) for arrow in layout.arrows if arrow.label]
    parts += [_box(box) for box in layout.boxes.values()]
    below = [line for remark in remarks for line in svg.wrapped(remark, WIDTH - 2 * EDGE, LABEL, lines=3)]
    for i, line in enumerate(below):
        y = layout.bottom + 24 + 16 * i
        parts.append(svg.text(EDGE, y, line, LABEL, text_anchor="start", fill=svg.MUTED))
    return svg.document(WIDTH, layout.bottom + 20 + 16 * len(below), parts, about)


def _box(box: PlacedBox) -> str:
    fill, stroke = _FILLS[box.state]
    look: dict[str, Any] = {
        "rx": 5,
        "fill": fill,
        "stroke": stroke,
        "stroke_width": 1.5,
        "stroke_dasharray": _DASHES[box.state],
    }
    frame = svg.rect(box.x - box.width / 2, box.y - box.height / 2, box.width, box.height, **look)
    return frame + svg.lines(box.x, box.y, box.lines, box.size, bold=True)


def _arrow(arrow: PlacedArrow) -> str:
    colour = _RED if arrow.state == "open" else "#444444"
    *corners, (x, y) = arrow.points
    way = "M" + "L".join(f"{svg.number(a)} {svg.number(b)}" for a, b in [*corners, (x, y + 7)])
    line = svg.path(way, stroke=colour, stroke_width=1.6, stroke_dasharray=_DASHES[arrow.state])
    return line + svg.path(f"M{svg.number(x)} {svg.number(y + 1)}l-4.5 9h9z", fill=colour)


def _label(arrow: PlacedArrow) -> str:
    """A label, on a ground of its own where it has to stand on a line."""
    (x, y), height = arrow.at, 1.25 * LABEL * len(arrow.label)
    width = max(svg.text_width(words, LABEL) for words in arrow.label) + 4
    behind = svg.rect(x - width / 2, y - height / 2, width, height, fill="white", fill_opacity="0.9")
    colour = _RED if arrow.state == "open" else svg.INK
    return behind + svg.lines(x, y, arrow.label, LABEL, fill=colour)
