"""What a model made of one input: as data, in words, and as a picture."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from exercises_utils.plotting import svg

MAX_ANSWERS = 5
"""How many answers are drawn: the most likely ones."""
_WIDTH, _EDGE, _LEFT = 750, 14, 72  # pixels: of the picture, around it, and of the names before the tokens
_BLUE, _PALE_BLUE, _RED, _DARK = "#0072b2", "#9db7c9", "#c94f00", "#08306b"


@dataclass(frozen=True)
class Reply:
    """What a model made of one input.

    - `tokens`: the input, token by token, as it should be read.
    - `probabilities`: of each answer, by its name. The most likely one is what the model says.
    - `right`: the name of the right answer; None where nobody knows.
    - `attention`: a pattern (query, key) for each head, by the head's name.
    - `links`: pairs of positions that belong together, and whether they agree. They are joined above the tokens, and
      those that do not agree are marked; a pair of a position with itself only marks it.

    Raises `ValueError` where there is no token or no answer, or a pattern or a pair does not fit the tokens.
    """

    tokens: Sequence[str]
    probabilities: Mapping[str, Any]
    right: str | None = None
    attention: Mapping[str, Float[Tensor, "query key"]] = field(default_factory=dict)
    links: Mapping[tuple[int, int], bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.tokens)
        if not n or not self.probabilities:
            raise ValueError("a reply needs tokens and the probability of at least one answer")
        for name, pattern in self.attention.items():
            if tuple(pattern.shape) != (n, n):
                raise ValueError(
                    f"the pattern of {name!r} has shape {tuple(pattern.shape)}; expected ({n}, {n}): (query, key) "
                    f"for {n} tokens. Did you index the sequence and the head?"
                )
        for pair in self.links:
            if not all(0 <= position < n for position in pair):
                raise ValueError(f"the pair {pair} does not fit {n} tokens, 0 to {n - 1}")
        object.__setattr__(self, "probabilities", {k: float(v) for k, v in self.probabilities.items()})

    @property
    def said(self) -> str:
        """The most likely answer."""
        return max(self.probabilities, key=lambda answer: self.probabilities[answer])


def probability(p: int | float) -> str:
    """Three decimals, and never 1.000 or .000."""
    return "above .999" if p >= 0.9995 else "below .001" if p < 0.0005 else f"{p:.3f}".removeprefix("0")


def verdict(reply: Reply) -> str:
    """What the model says, and whether that is right, in a sentence."""
    said = f"The model says “{reply.said}” with probability {probability(reply.probabilities[reply.said])}"
    if reply.right is None:
        return f"{said}."
    if reply.right == reply.said:
        return f"{said}, and that is right."
    return f"{said}. Right is “{reply.right}”: you have broken it!"


def described(reply: Reply) -> str:
    """A reply in words: the tokens (in brackets those that do not agree), and the verdict."""
    odd = _odd(reply)
    shown = " ".join(f"[{token}]" if i in odd else token for i, token in enumerate(reply.tokens))
    return f"{shown}\n{verdict(reply)}"


def _odd(reply: Reply) -> set[int]:
    """The positions that are marked."""
    return {position for pair, agree in reply.links.items() if not agree for position in pair}


# --- the picture ---


@dataclass(frozen=True)
class _Columns:
    """Where the tokens stand: the left edge and the width of each, and the size of their letters, in pixels."""

    left: list[svg.Pixels]
    width: list[svg.Pixels]
    size: svg.Pixels

    def middle(self, i: int) -> svg.Pixels:
        """The middle of a column."""
        return self.left[i] + self.width[i] / 2

    @property
    def right(self) -> svg.Pixels:
        """The right edge of the last column."""
        return self.left[-1] + self.width[-1]


def _columns(tokens: Sequence[str]) -> _Columns:
    """Columns as wide as their tokens need, in letters as large as fit the picture; beyond that, the picture grows."""
    room = _WIDTH - 2 * _EDGE - _LEFT
    for size in (12.0, 11.0, 10.0, 9.0, 8.0):
        width = [max(svg.text_width(token, size, bold=True) + 0.6 * size, 24 * size / 12) for token in tokens]
        if sum(width) <= room:
            break
    more = min(max(room - sum(width), 0) / len(tokens), 10)
    width = [w + more for w in width]
    left = [_EDGE + _LEFT + sum(width[:i]) for i in range(len(width))]
    return _Columns(left, width, size)


def picture(reply: Reply, query: int | None = None) -> str:
    """A reply as an SVG: tokens, answer, where position `query` (the last one, if none is named) attends, all patterns."""
    query = len(reply.tokens) - 1 if query is None else query
    columns = _columns(reply.tokens)
    y, parts = 8.0, []
    for block in (_draw_tokens, _draw_answers, _draw_row, _draw_patterns):
        drawn, height = block(reply, columns, query, y)
        parts += drawn
        y += height
    return svg.document(max(_WIDTH, columns.right + _EDGE), y + 6, parts, described(reply))


def _heading(y: svg.Pixels, words: str) -> str:
    return svg.text(_EDGE, y, words, 12, bold=True, text_anchor="start")


def _draw_tokens(reply: Reply, columns: _Columns, query: int, y: svg.Pixels) -> tuple[list[str], svg.Pixels]:
    """The tokens with their positions; over them, arcs that join those that belong together."""
    widest = max((abs(b - a) for a, b in reply.links), default=0)
    line = y + (16 + 44 * widest / len(reply.tokens) if widest else 4)
    parts = []
    for (a, b), agree in sorted(
        reply.links.items(), key=lambda link: not link[1]
    ):  # on top, what does not agree
        if a != b:
            height = 10 + (line - y - 16) * abs(b - a) / widest
            parts.append(_arc(columns.middle(min(a, b)), columns.middle(max(a, b)), line, height, agree))
    odd = _odd(reply)
    for i, token in enumerate(reply.tokens):
        fill, stroke, width = ("#fbe4d8", _RED, 1.5) if i in odd else (svg.PALE, svg.LINE, 1.0)
        box: dict[str, Any] = {"rx": 3, "fill": fill, "stroke": stroke, "stroke_width": width}
        base = line + 14 + 0.36 * columns.size
        parts.append(svg.rect(columns.left[i] + 1, line + 3, columns.width[i] - 2, 22, **box))
        parts.append(svg.text(columns.middle(i), base, token, columns.size, bold=i in odd))
        parts.append(svg.text(columns.middle(i), line + 37, str(i), 9, fill=svg.MUTED))
    parts.append(svg.text(_EDGE, line + 18, "tokens", 11, text_anchor="start", fill=svg.MUTED))
    parts.append(svg.text(_EDGE, line + 37, "position", 9, text_anchor="start", fill=svg.MUTED))
    return parts, line - y + 52


def _arc(x: svg.Pixels, x_end: svg.Pixels, y: svg.Pixels, height: svg.Pixels, agree: bool) -> str:
    """An arc over a line, `height` high; one that does not agree carries a sign, which needs no colour to be seen."""
    a, b, low, high = (svg.number(value) for value in (x, x_end, y, y - 4 / 3 * height))
    arc = f"M{a} {low}C{a} {high} {b} {high} {b} {low}"
    if agree:
        return svg.path(arc, stroke=svg.LINE)
    middle, top = (x + x_end) / 2, y - height
    return (
        svg.path(arc, stroke=_RED, stroke_width=2)
        + svg.rect(middle - 7, top - 7, 14, 14, rx=7, fill="white")
        + svg.text(middle, top + 4.5, "≠", 13, bold=True, fill=_RED)
    )


def _draw_answers(reply: Reply, columns: _Columns, query: int, y: svg.Pixels) -> tuple[list[str], svg.Pixels]:
    """A bar for each answer, the most likely ones if there are many."""
    ranked = sorted(reply.probabilities.items(), key=lambda item: -item[1])
    shown = ranked[:MAX_ANSWERS] if len(ranked) > MAX_ANSWERS else list(reply.probabilities.items())
    names = [svg.shortened(name, 230, 12, bold=True) for name, _ in shown]
    label = max(svg.text_width(name, 12, bold=True) for name in names)
    start, room = _EDGE + label + 10, _WIDTH - _EDGE - (_EDGE + label + 10) - 190
    parts = [_heading(y + 14, "The model's answer")]
    for i, ((name, p), short) in enumerate(zip(shown, names, strict=True)):
        top, chosen = y + 22 + 22 * i, name == reply.said
        colour = _PALE_BLUE if not chosen else _BLUE if reply.right in (None, name) else _RED
        truth = (
            " · right" if name == reply.right else " · wrong" if chosen and reply.right is not None else ""
        )
        parts.append(svg.text(start - 8, top + 13, short, 12, bold=chosen, text_anchor="end"))
        parts.append(svg.rect(start, top + 1, room, 16, fill=svg.PALE))
        parts.append(svg.rect(start, top + 1, max(room * p, 1), 16, fill=colour))
        parts.append(
            svg.text(start + room + 8, top + 13, probability(p) + truth, 12, bold=chosen, text_anchor="start")
        )
    return parts, 22 + 22 * len(shown) + 12


def _draw_row(reply: Reply, columns: _Columns, query: int, y: svg.Pixels) -> tuple[list[str], svg.Pixels]:
    """Where one position attends: a row for each head, a cell under each token."""
    if not reply.attention:
        return [], 0
    token = reply.tokens[query]
    parts = [_heading(y + 14, f"Where position {query} ({token}) attends, in each head")]
    for i, (name, pattern) in enumerate(reply.attention.items()):
        top = y + 22 + 22 * i
        parts.append(svg.text(_EDGE, top + 14, svg.shortened(name, _LEFT - 6, 11), 11, text_anchor="start"))
        for key, weight in enumerate(pattern[query].tolist()):
            x, width = columns.left[key] + 1, columns.width[key] - 2
            tip = f"{name}: from {query} ({token}) to {key} ({reply.tokens[key]}): {probability(weight)}"
            shade: dict[str, Any] = {"fill": _DARK, "fill_opacity": f"{weight:.2f}", "stroke": "#e3e3e3"}
            parts.append(svg.rect(x, top, width, 20, tip=tip, **shade))
            number = f"{weight:.2f}".removeprefix("0")
            if weight >= 0.05 and svg.text_width(number, 9) <= width:
                colour = "white" if weight > 0.65 else "black"  # whichever is easier to read there
                parts.append(svg.text(columns.middle(key), top + 13.5, number, 9, fill=colour))
    return parts, 22 + 22 * len(reply.attention) + 12


def _draw_patterns(
    reply: Reply, columns: _Columns, query: int, y: svg.Pixels
) -> tuple[list[str], svg.Pixels]:
    """All patterns, small; the row that is shown above is framed."""
    if not reply.attention:
        return [], 0
    across, gap = min(len(reply.attention), 4), 18
    side = min((_WIDTH - 2 * _EDGE - gap * (across - 1)) / across, 168)
    cell = side / len(reply.tokens)
    parts = [_heading(y + 14, "All of their attention, from rows to columns (the darker, the more)")]
    for i, (name, pattern) in enumerate(reply.attention.items()):
        left, top = _EDGE + (i % across) * (side + gap), y + 40 + (i // across) * (side + 26)
        parts.append(svg.text(left, top - 5, svg.shortened(name, side, 11), 11, text_anchor="start"))
        parts.append(svg.rect(left, top, side, side, fill="white", stroke=svg.LINE))
        for row, weights in enumerate(pattern.tolist()):
            for column, weight in enumerate(weights):
                if (shade := f"{weight:.2f}") != "0.00":
                    x, y_cell = left + column * cell, top + row * cell
                    parts.append(svg.rect(x, y_cell, cell, cell, fill=_DARK, fill_opacity=shade))
        parts.append(svg.rect(left, top + query * cell, side, cell, fill="none", stroke=_RED))
    return parts, 30 + math.ceil(len(reply.attention) / across) * (side + 26)
