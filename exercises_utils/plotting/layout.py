"""Where the boxes, arrows and labels of a drawing stand, so that none of their texts meets another.

From the left to the right: the names of the rows, then a column for each position. From the top to the bottom: headings,
then rows of boxes with lanes between them. Each arrow runs across in a lane of its own, as high as its label.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exercises_utils.plotting import svg

WIDTH, EDGE, ROW_NAMES = 750, 14, 74  # pixels: of the picture, around it, and of the names of the rows
HEADING, LABEL = 12.0, 11.5  # pixels: letters
_SIZES = (12.5, 11.5, 10.5)  # pixels: letters in boxes, the first that leaves words whole
_PAD = 9  # pixels between a text and its box
_TOP = 34  # pixels that the title takes

Point = tuple[svg.Pixels, svg.Pixels]


@dataclass(frozen=True)
class Part:
    """A box (`start`: its column, `end`: its row) or an arrow (the names of two boxes), with its text.

    `state` is "given" (by the plan), "found" (by the learner) or "open".
    """

    start: str
    end: str
    text: str
    state: str


@dataclass
class PlacedBox:
    """A box on the picture: its middle, its size, the lines of its text and the size of their letters."""

    x: svg.Pixels
    y: svg.Pixels
    width: svg.Pixels
    height: svg.Pixels
    lines: list[str]
    size: svg.Pixels
    state: str


@dataclass(frozen=True)
class PlacedArrow:
    """An arrow on the picture: its corners, the lines of its label, and where their middle is."""

    points: list[Point]
    label: list[str]
    at: Point
    state: str


@dataclass(frozen=True)
class _Way:
    """How an arrow runs: from x up to its first lane, across, and up to the box at `x_end`.

    Of two lanes, the way between them is at the edge of the column `turn`.
    """

    x: svg.Pixels
    x_end: svg.Pixels
    lanes: tuple[int, ...]
    turn: int = 0


class Layout:
    """All places, worked out from the columns (names and headings), the rows (the lowest first), boxes and arrows."""

    def __init__(
        self,
        columns: Mapping[str, str],
        rows: Sequence[str],
        boxes: Mapping[str, Part],
        arrows: Sequence[Part],
    ) -> None:
        self._boxes, self._arrows = boxes, arrows
        self.rows = list(rows)
        self.columns = self._column_spans(columns)
        self.headings = {
            name: svg.wrapped(columns[name], width - 10, HEADING, bold=True, lines=3)
            for name, (_, width) in self.columns.items()
        }
        self.top = _TOP + 15 * max(len(lines) for lines in self.headings.values())
        self.boxes = {name: self._measured(name) for name in boxes}
        self._ways = [self._way(i) for i in range(len(arrows))]
        self._labels = [self._wrapped(i) for i in range(len(arrows))]
        self.row_spans: dict[str, Point] = {}
        self._lane_at: dict[tuple[int, int], svg.Pixels] = {}
        self.bottom = self._place_rows()
        points = self._points()
        self.arrows = [
            PlacedArrow(points[i], self._labels[i], self._label_at(i, points), arrow.state)
            for i, arrow in enumerate(arrows)
        ]

    # Across

    def _here(self, column: str, row: str) -> list[str]:
        """The boxes of one place."""
        return [name for name, box in self._boxes.items() if (box.start, box.end) == (column, row)]

    def _column_spans(self, names: Mapping[str, str]) -> dict[str, Point]:
        """The left edge and the width of each column: wider where several boxes share a place."""
        shares = {
            name: 0.4 + 0.6 * max(1, *(len(self._here(name, row)) for row in self.rows)) for name in names
        }
        room = (WIDTH - 2 * EDGE - ROW_NAMES) / sum(shares.values())
        spans, left = {}, float(EDGE + ROW_NAMES)
        for name, share in shares.items():
            spans[name] = (left, room * share)
            left += room * share
        return spans

    def middle(self, column: str) -> svg.Pixels:
        """The middle of a column."""
        left, width = self.columns[column]
        return left + width / 2

    def _measured(self, name: str) -> PlacedBox:
        """A box with all but its height on the page; those of one place stand side by side."""
        box = self._boxes[name]
        here, (left, width) = self._here(box.start, box.end), self.columns[box.start]
        size, lines = _fitted(box.text, width / len(here) - 16 - 2 * _PAD)
        needed = max(svg.text_width(line, size, bold=True) for line in lines) + 2 * _PAD
        x = left + width * (here.index(name) + 0.5) / len(here)
        return PlacedBox(x, 0, max(needed, 56), 1.25 * size * len(lines) + 2 * _PAD, lines, size, box.state)

    def _row(self, name: str) -> int:
        return self.rows.index(self._boxes[name].end)

    def _port(self, i: int, end: str) -> svg.Pixels:
        """The x at which an arrow meets a box; the box's arrows stand side by side, in the order of their other ends."""
        other = "end" if end == "start" else "start"
        name = getattr(self._arrows[i], end)
        siblings = [k for k, a in enumerate(self._arrows) if getattr(a, end) == name]
        siblings.sort(key=lambda k: (self.boxes[getattr(self._arrows[k], other)].x, k))
        box = self.boxes[name]
        step = min(box.width / (len(siblings) + 1), 34)
        return box.x + step * (siblings.index(i) - (len(siblings) - 1) / 2)

    def _way(self, i: int) -> _Way:
        """Straight up where nothing stands in between; else by the space between two columns, to arrive from below."""
        arrow = self._arrows[i]
        x, x_end = self._straightened(i, self._port(i, "start"), self._port(i, "end"))
        first, last = self._row(arrow.start), self._row(arrow.end) - 1
        if first <= last and self._free(x_end, range(first + 1, last + 1)):
            return _Way(x, x_end, (first,))
        if first <= last and self._free(x, range(first + 1, last + 1)):
            return _Way(x, x_end, (last,))
        turn = list(self.columns).index(self._boxes[arrow.start].start) + (1 if x_end >= x else 0)
        return _Way(x, x_end, (first, last), turn)

    def _straightened(self, i: int, x: svg.Pixels, x_end: svg.Pixels) -> Point:
        """Both ends, one above the other where a box has no other arrow on that side and is wide enough."""
        arrow = self._arrows[i]
        start, end = self.boxes[arrow.start], self.boxes[arrow.end]
        leaves_alone = sum(a.start == arrow.start for a in self._arrows) == 1
        arrives_alone = sum(a.end == arrow.end for a in self._arrows) == 1
        if leaves_alone and abs(x_end - start.x) < start.width / 2 - 6:
            return x_end, x_end
        if arrives_alone and abs(x - end.x) < end.width / 2 - 6:
            return x, x
        return x, x_end

    def _wrapped(self, i: int) -> list[str]:
        """The lines of a label: short ones beside an arrow that goes up, longer ones over one that goes across."""
        if not self._arrows[i].text:
            return []
        across = abs(self._ways[i].x - self._ways[i].x_end)
        return svg.balanced(self._arrows[i].text, min(max(across, 150), 230), LABEL, lines=3)

    def _free(self, x: svg.Pixels, rows: range) -> bool:
        """Whether no box of these rows stands at x."""
        between = [box for name, box in self.boxes.items() if self._row(name) in rows]
        return all(abs(x - box.x) > box.width / 2 + 8 for box in between)

    # Down

    def _place_rows(self) -> svg.Pixels:
        """Gives rows and lanes their heights on the page, from the top; returns where the last row ends."""
        y, top = self.top + 8.0, len(self.rows) - 1
        for row in range(top, -2, -1):
            # The longest way across at the top: then arrows to one box do not cross.
            lanes = [i for i, way in enumerate(self._ways) if row in way.lanes]
            lanes.sort(key=lambda i: -abs(self._ways[i].x - self._ways[i].x_end))
            y += 12 if lanes else 0  # for the heads of the arrows
            for i in lanes:
                y += 12 + (1.25 * LABEL * len(self._labels[i]) if row == self._ways[i].lanes[0] else 0)
                self._lane_at[row, i] = y - 4
            y += 10 if lanes else 16 if 0 <= row < top else 0
            if row >= 0:
                here = [box for name, box in self.boxes.items() if self._row(name) == row]
                height = max([30.0, *(box.height for box in here)])
                for box in here:
                    box.y = y + height / 2
                self.row_spans[self.rows[row]] = (y, height)
                y += height
        return y

    # Arrows and labels

    def _points(self) -> list[list[Point]]:
        """The corners of each arrow; ways between the same two columns run side by side."""
        edges = [left for left, _ in self.columns.values()] + [float(WIDTH - EDGE)]
        taken: dict[int, int] = {}
        corners = []
        for i, (arrow, way) in enumerate(zip(self._arrows, self._ways, strict=True)):
            start, end = self.boxes[arrow.start], self.boxes[arrow.end]
            levels = [self._lane_at[lane, i] for lane in way.lanes]
            between = []
            if len(levels) == 2:
                n = taken[way.turn] = taken.get(way.turn, -1) + 1
                turn = edges[way.turn] + 5 * ((n + 1) // 2) * (-1) ** n
                between = [(turn, levels[0]), (turn, levels[1])]
            corners.append(
                [
                    (way.x, start.y - start.height / 2),
                    (way.x, levels[0]),
                    *between,
                    (way.x_end, levels[-1]),
                    (way.x_end, end.y + end.height / 2),
                ]
            )
        return corners

    def _label_at(self, i: int, ways: Sequence[Sequence[Point]]) -> Point:
        """The middle of a label, over its arrow's way across: as near to its middle as leaves other lines free."""
        if not self._labels[i]:
            return 0.0, 0.0
        width = max(svg.text_width(line, LABEL) for line in self._labels[i])
        height = 1.25 * LABEL * len(self._labels[i])
        (x, level), (x_end, _) = ways[i][1], ways[i][2]
        y = level - 3 - height / 2
        crossing = [
            a
            for way in ways
            for (a, above), (b, below) in zip(way, way[1:], strict=False)
            if a == b and min(above, below) < y + height / 2 and max(above, below) > y - height / 2
        ]
        lowest, highest = EDGE + ROW_NAMES + width / 2, WIDTH - EDGE - width / 2
        reach = int(abs(x_end - x) / 2 + width / 2 + 7)
        steps = sorted(range(-reach, reach + 1), key=lambda step: (abs(step), -step))
        places = [min(max((x + x_end) / 2 + step, lowest), highest) for step in steps]
        free = (place for place in places if all(abs(place - line) > width / 2 + 5 for line in crossing))
        return next(free, places[0]), y


def _fitted(text: str, room: svg.Pixels) -> tuple[svg.Pixels, list[str]]:
    """The size of the letters, and the lines, of a text in a box: as large as leaves it whole, in four lines."""
    for size in _SIZES:
        lines = svg.balanced(text, room, size, bold=True)
        if " ".join(lines) == " ".join(text.split()):
            break
    return size, lines
