"""Pictures as SVG text, in which no text outgrows its room: what `play` and `drawing` are made of.

A picture is a white card with its own colours, so that it reads the same in a light and in a dark notebook. It has no
script, no style sheet and no id, so several can stand on one page. Everything about it is decided here, by the numbers
that come in: the same numbers give the same text on every machine.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

Pixels = int | float
INK, MUTED, LINE, PALE = "#222222", "#5f5f5f", "#b8b8b8", "#f1f3f5"
_FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
# Widths in em, rounded up from DejaVu Sans, the widest font of the list above.
_WIDTHS = {
    0.30: "'ijlIJ",
    0.36: ",. ·/:;\\|f-",
    0.42: "t()[]!rℓ",
    0.50: '"*_`–',
    0.56: "sz?cL",
    0.66: "vxykFP•aoTYebdghnpquESKσäöüß0123456789${}",
    0.78: "AVBRXZCUHNDG&",
    0.86: "OQw#+<=>^~−→≠×M",
}
_WIDTH_OF = {character: width for width, characters in _WIDTHS.items() for character in characters}
_BOLD = 1.17


def text_width(text: str, size: Pixels, bold: bool = False) -> Pixels:
    """How many pixels a text of this size (in pixels) takes at most, in any of the fonts that may draw it."""
    ems = sum(_WIDTH_OF.get(c, 1.0 if ord(c) < 0x1F000 else 1.4) for c in text)
    return ems * size * (_BOLD if bold else 1.0)


def wrapped(text: str, width: Pixels, size: Pixels, bold: bool = False, lines: int = 4) -> list[str]:
    """The text in lines of at most `width` pixels, broken between words, or within a word that is too long.

    A line break in the text is kept. Of a text that needs more than `lines` lines, the last one kept ends with an
    ellipsis.
    """
    done: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            for piece in _pieces(word, width, size, bold):
                longer = f"{line} {piece}".strip()
                if line and text_width(longer, size, bold) > width:
                    done.append(line)
                    longer = piece
                line = longer
        done.append(line)
    if len(done) <= lines:
        return done
    return [*done[: lines - 1], shortened(" ".join(done[lines - 1 :]), width, size, bold)]


def balanced(text: str, width: Pixels, size: Pixels, bold: bool = False, lines: int = 4) -> list[str]:
    """The text in as few lines as `wrapped` needs, and these as even as its words allow."""
    best = wrapped(text, width, size, bold, lines)
    for narrower in range(int(width) - 4, 40, -4):
        tried = wrapped(text, narrower, size, bold, lines)
        if len(tried) > len(best) or " ".join(tried) != " ".join(best):
            break
        best = tried
    return best


def shortened(text: str, width: Pixels, size: Pixels, bold: bool = False) -> str:
    """The text, or as much of its beginning as fits into `width` pixels, with an ellipsis."""
    if text_width(text, size, bold) <= width:
        return text
    while text and text_width(f"{text}…", size, bold) > width:
        text = text[:-1].rstrip()
    return f"{text}…"


def _pieces(word: str, width: Pixels, size: Pixels, bold: bool) -> Iterable[str]:
    """A word, in parts that fit into `width`."""
    while text_width(word, size, bold) > width and len(word) > 1:
        n = next((n for n in range(len(word) - 1, 1, -1) if text_width(word[:n], size, bold) <= width), 1)
        yield word[:n]
        word = word[n:]
    yield word


def number(value: Pixels) -> str:
    """A coordinate, to a tenth of a pixel."""
    return f"{value if abs(value) >= 0.05 else 0:.1f}".removesuffix(".0")


def escaped(text: str) -> str:
    """A text as it stands in SVG, without the characters that no SVG may have."""
    return escape("".join(c for c in text if c >= " " or c == "\n"))


def attributes(**values: Any) -> str:
    """Attributes of an element; `_` in a name stands for `-`."""
    return "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escaped(value) if isinstance(value, str) else number(value)}"'
        for name, value in values.items()
        if value is not None
    )


def text(x: Pixels, y: Pixels, words: str, size: Pixels = 12, *, bold: bool = False, **look: Any) -> str:
    """One line of text around x (or from it: `text_anchor="start"`), y being its base line."""
    look = {"text_anchor": "middle", "font_weight": "bold" if bold else None, "fill": INK} | look
    return f"<text{attributes(x=x, y=y, font_size=size, **look)}>{escaped(words)}</text>"


def lines(x: Pixels, middle: Pixels, words: Sequence[str], size: Pixels = 12, **look: Any) -> str:
    """Several lines of text around a point; a line is 1.25 times its size high."""
    step = 1.25 * size
    first = middle - step * (len(words) - 1) / 2 + 0.36 * size
    return "".join(text(x, first + i * step, line, size, **look) for i, line in enumerate(words))


def rect(x: Pixels, y: Pixels, width: Pixels, height: Pixels, *, tip: str = "", **look: Any) -> str:
    """A rectangle, with what the mouse shows over it."""
    inside = f"<title>{escaped(tip)}</title>" if tip else ""
    return f"<rect{attributes(x=x, y=y, width=width, height=height, **look)}>{inside}</rect>"


def path(d: str, **look: Any) -> str:
    """A line through the points of `d`; not filled, if nothing else is said."""
    return f"<path{attributes(d=d, **({'fill': 'none'} | look))}/>"


def document(width: Pixels, height: Pixels, parts: Iterable[str], about: str) -> str:
    """The whole picture on its card; `about` says in words what is on it, for those who cannot see it."""
    w, h = number(width), number(height)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img"'
        f' aria-label="{escaped(about)}" font-family="{_FONT}" style="max-width:100%;height:auto">'
        + rect(0.5, 0.5, width - 1, height - 1, rx=6, fill="white", stroke="#d9d9d9")
        + "".join(parts)
        + "</svg>"
    )
