"""A mechanism is drawn from a learner's own pieces; what is open is said; and no text meets another."""

import random
import re
from itertools import combinations
from xml.etree import ElementTree

import pytest

from exercises_utils.plotting import svg
from exercises_utils.plotting.drawing import Arrow, Box, Plan, assemble

SVG = "{http://www.w3.org/2000/svg}"
PLAN = Plan(
    title="How the model knows",
    columns={"mirror": "position i\n(first half)", "place": "position 21 − i\n(second half)", "END": "END"},
    rows=("tokens", "layer 0", "layer 1"),
    boxes={
        "first": Box("mirror", "tokens", "a value"),
        "second": Box("place", "tokens", "its mirror"),
        "matcher": Box("{where}", "layer 0", "head {who compares}"),
        "reader": Box("END", "layer 1", "head {who reads}"),
    },
    arrows=[
        Arrow("first", "matcher", "attended to if equal"),
        Arrow("{what else}", "matcher"),
        Arrow("matcher", "reader", "{what it writes}, through {through}"),
    ],
)
PIECES = {
    "where": "place",
    "who compares": "0.1",
    "who reads": "1.0",
    "what else": "second",
    "what it writes": "a code of places",
    "through": "keys and values",
}


def elements(drawing, tag):
    return list(ElementTree.fromstring(drawing.svg).iter(SVG + tag))


def words(drawing) -> str:
    return " ".join(element.text for element in elements(drawing, "text"))


def extent(text) -> tuple[float, float, float, float]:
    """The room that a text takes at most: left, top, right, bottom."""
    size, x, y = (float(text.get(name)) for name in ("font-size", "x", "y"))
    width = svg.text_width(text.text, size, text.get("font-weight") == "bold")
    left = x - width / 2 if text.get("text-anchor") == "middle" else x
    return left, y - 0.76 * size, left + width, y + 0.24 * size


def inside(inner, outer) -> bool:
    return all(inner[i] >= outer[i] - 0.2 for i in (0, 1)) and all(inner[i] <= outer[i] + 0.2 for i in (2, 3))


def meet(a, b) -> bool:
    return min(a[2], b[2]) - max(a[0], b[0]) > 0.2 and min(a[3], b[3]) - max(a[1], b[1]) > 0.2


def faults(drawing) -> list[str]:
    """Texts that meet, leave the card or their box."""
    root = ElementTree.fromstring(drawing.svg)
    card = (0.0, 0.0, float(root.get("width")), float(root.get("height")))
    texts = [(text, extent(text)) for text in root.iter(f"{SVG}text")]
    found = [f"outside: {text.text}" for text, room in texts if not inside(room, card)]
    found += [f"meet: {a.text} / {b.text}" for (a, x), (b, y) in combinations(texts, 2) if meet(x, y)]
    for frame in (rect for rect in root.iter(f"{SVG}rect") if rect.get("rx") == "5"):
        x, y, width, height = (float(frame.get(name)) for name in ("x", "y", "width", "height"))
        box = (x, y, x + width, y + height)
        for text, room in texts:
            if meet(room, box) and not inside(room, box):
                found.append(f"out of its box, or on another's: {text.text}")
    return found


# Pieces


def test_nothing_found_yet_is_all_questions():
    drawing = assemble(PLAN)
    assert drawing.open == ("where", "who compares", "who reads", "what else", "what it writes", "through")
    for gap in ("who compares?", "who reads?", "what it writes?", "place?"):
        assert gap in words(drawing)
    assert "Still open: where, who compares, who reads, what else, what it writes, through." in drawing.text


def test_pieces_stand_in_their_gaps():
    drawing = assemble(PLAN, PIECES)
    assert drawing.open == ()
    assert "?" not in words(drawing)
    assert drawing.text == (
        "How the model knows\n"
        "  tokens: position i (first half): a value; position 21 − i (second half): its mirror\n"
        "  layer 0: position 21 − i (second half): head 0.1\n"
        "  layer 1: END: head 1.0\n"
        "  a value → head 0.1 (attended to if equal)\n"
        "  its mirror → head 0.1\n"
        "  head 0.1 → head 1.0 (a code of places, through keys and values)"
    )


def test_the_three_states_look_different():
    frames = {
        rect.get("stroke"): rect.get("stroke-dasharray")
        for rect in elements(assemble(PLAN, {"who reads": "1.0"}), "rect")
        if rect.get("rx") == "5"
    }
    assert len(frames) == 3
    assert list(frames.values()).count(None) == 2, "what is open has dashes"


@pytest.mark.parametrize(
    ("piece", "shown"),
    [
        ((0, 1), "head 0.1"),
        ("0.1", "head 0.1"),
        ("head 0.1", "head 0.1"),
        ([(0, 1), (0, 0)], "head 0.1, 0.0"),
        ({(0, 1), (0, 0)}, "head 0.0, 0.1"),
        (["0.1", None], "head 0.1"),
        (3, "head 3"),
        (0.123456, "head 0.1235"),
        (" 0.1\n", "head 0.1"),
        (None, "head [who compares?]"),
        (..., "head [who compares?]"),
        ("", "head [who compares?]"),
        ([], "head [who compares?]"),
    ],
)
def test_heads_are_written_in_many_ways(piece, shown):
    assert f"place?: {shown}" in assemble(PLAN, {"who compares": piece}).text


@pytest.mark.parametrize("where", ["place", "PLACE", "position 21 − i (second half)"])
def test_a_place_is_named_or_described(where):
    assert "(second half): head" in assemble(PLAN, {"where": where}).text


def test_what_has_no_place_stays_open_and_is_said_once():
    drawing = assemble(PLAN, PIECES | {"where": "nowhere", "what else": "the sun"})
    assert drawing.open == ("where", "what else")
    assert drawing.text.count("“nowhere” has no place here; expected one of: position i (first half), ") == 1
    assert (
        "“the sun” has no place here; expected one of: a value, its mirror, head 0.1, head 1.0."
        in drawing.text
    )


@pytest.mark.parametrize(
    ("pieces", "sentence"),
    [
        ({"who compare": "0.1"}, "“who compare” is no piece of this drawing; did you mean “who compares”?"),
        ({"colour": "red"}, "“colour” is no piece of this drawing; there are: where, who compares, "),
        ([1, 2], "Expected a dict with the keys where, who compares, "),
        ("0.1", "str came."),
    ],
)
def test_what_is_no_piece_gets_a_sentence(pieces, sentence):
    drawing = assemble(PLAN, pieces)
    assert sentence in drawing.text
    assert len(drawing.open) == 6


def test_what_a_learner_writes_stays_text():
    drawing = assemble(PLAN, PIECES | {"through": "<script>alert(1)</script> & {where} \x00"})
    assert {element.tag for element in ElementTree.fromstring(drawing.svg).iter()} == {
        f"{SVG}{tag}" for tag in ("svg", "rect", "text", "path")
    }
    assert "<script>" in words(drawing)
    assert "& {where}" in words(drawing)


# The plan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"boxes": {"a": Box("nowhere", "tokens", "")}, "arrows": []},
            "in the column 'nowhere', and there are only: mirror",
        ),
        ({"boxes": {"a": Box("END", "attic", "")}, "arrows": []}, "in the row 'attic'"),
        ({"arrows": [Arrow("first", "nobody")]}, "in the box 'nobody'"),
    ],
)
def test_a_plan_refers_to_what_is_there(change, message):
    fields = {name: getattr(PLAN, name) for name in ("title", "columns", "rows", "boxes", "arrows")}
    with pytest.raises(ValueError, match=re.escape(message)):
        Plan(**(fields | change))


# The picture


def test_the_picture_is_the_same_each_time_and_says_what_it_shows():
    first, second = assemble(PLAN, PIECES), assemble(PLAN, dict(reversed(PIECES.items())))
    assert first == second
    root = ElementTree.fromstring(first.svg)
    assert root.get("aria-label").split() == first.text.split()
    assert not re.search(r"<style|\bid=|\bon\w+=|href", first.svg)


def test_a_drawing_is_shown_as_a_picture_and_in_words(monkeypatch):
    shown = []
    monkeypatch.setattr("exercises_utils.plotting.drawing.display", lambda data, raw: shown.append(data))
    drawing = assemble(PLAN, PIECES, title="Ours")
    drawing.show()
    assert shown == [{"image/svg+xml": drawing.svg, "text/plain": drawing.text}]
    assert drawing.text.startswith("Ours\n")


@pytest.mark.parametrize(
    "pieces",
    [
        None,
        PIECES,
        {"where": "END", "what else": "reader"},
        dict.fromkeys(
            PIECES, "a long answer that somebody wrote without any thought of boxes or of arrows " * 3
        ),
        dict.fromkeys(PIECES, "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichenverordnung"),
    ],
)
def test_no_text_meets_another_or_leaves_its_box(pieces):
    assert faults(assemble(PLAN, pieces)) == []


def random_plan(seed: int) -> Plan:
    """Boxes anywhere, several in a place; arrows from anywhere to anywhere, also down and within a row."""
    rng = random.Random(seed)

    def text(n):
        return " ".join(
            rng.choice(["head", "0.1", "attends", "to", "W", "the", "mirror", "—"])
            for _ in range(rng.randint(1, n))
        )

    columns = {str(i): text(4) for i in range(rng.randint(1, 5))}
    rows = [f"layer {i}" for i in range(rng.randint(1, 4))]
    boxes = {
        f"box {i}": Box(rng.choice(list(columns)), rng.choice(rows), text(5))
        for i in range(rng.randint(1, 6))
    }
    ends = [(rng.choice(list(boxes)), rng.choice(list(boxes))) for _ in range(rng.randint(0, 8))]
    return Plan(text(6), columns, rows, boxes, [Arrow(a, b, text(9)) for a, b in ends])


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_no_text_meets_another_in_drawings_of_all_kinds(first):
    found = {seed: faults(assemble(random_plan(seed))) for seed in range(first, first + 50)}
    assert {seed: problems for seed, problems in found.items() if problems} == {}


# Texts


def test_a_text_is_wrapped_between_words_and_cut_at_the_last_line():
    lines = svg.wrapped("one two three four five six seven", 60, 12, lines=2)
    assert len(lines) == 2
    assert lines[0] == "one two"
    assert lines[1].endswith("…")
    assert all(svg.text_width(line, 12) <= 60 for line in lines)


def test_lines_are_as_even_as_the_words_allow():
    assert svg.wrapped("attended to if the values are equal", 200, 12) == [
        "attended to if the values are",
        "equal",
    ]
    assert svg.balanced("attended to if the values are equal", 200, 12) == [
        "attended to if the",
        "values are equal",
    ]


def test_a_line_break_stays():
    assert svg.wrapped("one\ntwo three", 200, 12) == ["one", "two three"]


def test_a_word_that_is_too_long_is_broken():
    lines = svg.wrapped("abcdefghijklmnopqrstuvwxyz", 60, 12, lines=9)
    assert "".join(lines) == "abcdefghijklmnopqrstuvwxyz"
    assert all(svg.text_width(line, 12) <= 60 for line in lines)


@pytest.mark.parametrize(
    ("value", "text"), [(3, "3"), (3.04, "3"), (3.05, "3.0"), (-0.01, "0"), (-1.25, "-1.2"), (10.0, "10")]
)
def test_a_coordinate_has_a_decimal_at_most(value, text):
    assert svg.number(value) in (text, text.removesuffix(".0"))
