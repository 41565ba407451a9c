"""A learner types, sees what the model makes of it, is told what is no input, and keeps the best failure."""

import re
import sys
from xml.etree import ElementTree

import pytest
import torch

from exercises_utils.plotting import Reply, play, read_numbers, svg
from exercises_utils.plotting.reply import described, picture, probability

MODULE = sys.modules["exercises_utils.plotting.play"]
SVG = "{http://www.w3.org/2000/svg}"


def ask(text: str) -> Reply:
    """A model that takes three digits for a palindrome if the first is not above the last, the surer the larger they are."""
    a, b, c = read_numbers(text, count=3, low=0, high=9)
    sure = 0.5 + (a + b + c) / 60
    said, other = ("yes", "no") if a <= c else ("no", "yes")
    pattern = torch.eye(3)
    pattern[2] = torch.tensor([0.25, 0.0, 0.75])
    return Reply(
        [str(a), str(b), str(c)],
        {said: sure, other: 1 - sure},
        right="yes" if a == c else "no",
        attention={"0.0": pattern},
        links={(0, 2): a == c},
    )


@pytest.fixture
def shown(monkeypatch):
    """What is displayed."""
    things: list = []
    monkeypatch.setattr(MODULE, "display", lambda data, raw=False: things.append(data))
    monkeypatch.setattr(MODULE, "_kept", {})
    return things


@pytest.fixture
def game(shown):
    return play(ask, start="1 2 1", title="Three digits", buttons={"turn round": lambda text: text[::-1]})


def told(game) -> str:
    return re.sub("<[^>]+>", "", game._said.value)


def press(game, name: str) -> None:
    buttons = [button for button in game.widget.children[2].children if button.description == name]
    buttons[0].click()


# Typing


def test_what_is_typed_is_asked_at_once(game):
    before = game._picture.value
    game.type("1 2 3")
    assert told(game) == "The model says “yes” with probability .600. Right is “no”: you have broken it!"
    assert game._picture.value != before
    game.type("4 2 4")
    assert told(game).endswith("and that is right.")


@pytest.mark.parametrize("text", ["", "1 2", "1 2 x", "1 2 10", "1 2 3 4"])
def test_what_is_no_input_gets_a_sentence_and_is_no_try(game, text):
    game.type("1 2 3")
    drawn = game._picture.value
    game.type(text)
    assert told(game).startswith("Expected 3 whole numbers from 0 to 9, with spaces between them; ")
    assert drawn in game._picture.value, "what was drawn before stays"
    assert "opacity" in game._picture.value
    assert len(game.tries) == 1
    game.type("1 2 4")
    assert "opacity:" not in game._picture.value


def test_an_error_of_the_model_s_own_is_a_sentence_too(shown):
    game = play(lambda text: {}[text] if text == "boom" else ask(text), start="1 2 1", title="Three digits")
    game.type("boom")
    assert told(game) == "The model could not be asked. KeyError: 'boom'"


def test_what_a_learner_types_cannot_become_html(game):
    game.type("1 2 <img src=x onerror=alert(1)>")
    assert "<img" not in game._said.value


def test_a_start_that_is_no_input_is_refused(shown):
    with pytest.raises(ValueError, match="Expected 3 whole numbers"):
        play(ask, start="1 2", title="Three digits")


# Tries and failures


def test_the_most_confident_failure_is_kept(game):
    assert game.best_failure is None
    for text in ("5 5 5", "1 1 2", "7 8 9", "1 1 3", "9 9 1"):
        game.type(text)
    best = game.best_failure
    assert (best.text, best.said, best.right, best.wrong) == ("7 8 9", "yes", "no", True)
    assert best.probability == pytest.approx(0.9)
    assert str(best) == "`7 8 9`. The model says “yes” (.900), and right is “no”"


def test_each_input_is_one_try_however_it_is_written(game):
    for text in ("1 2 3", "1,2,3", " 1  2 3 ", "[1, 2, 3]"):
        game.type(text)
    assert len(game.tries) == 1
    assert "You tried 1 input, and the model was wrong on 1." in game._score.value


def test_the_first_input_is_no_try(game):
    assert game.tries == {}
    assert "Nothing tried yet." in game._score.value


def test_running_the_cell_again_loses_nothing(game, shown):
    game.type("1 1 2")
    game.type("7 8 9")
    again = play(ask, start="1 2 1", title="Three digits")
    assert [t.text for t in again.tries.values()] == ["1 1 2", "7 8 9"]
    assert play(ask, start="1 2 1", title="Another").tries == {}


def test_what_is_no_input_any_more_is_let_go(game, shown):
    game.type("7 8 9")
    game.type("1 1 2")

    def small(text):
        read_numbers(text, count=3, low=0, high=5)
        return ask(text)

    assert [t.text for t in play(small, start="1 2 1", title="Three digits").tries.values()] == ["1 1 2"]


def test_the_report_says_it_in_words(game, shown):
    game.report()
    game.type("7 8 9")
    game.report()
    assert shown[-2]["text/plain"] == "Nothing tried yet."
    assert shown[-1]["text/plain"] == (
        "You tried 1 input, and the model was wrong on 1.\n"
        "Your best failure: `7 8 9`. The model says “yes” (.900), and right is “no”."
    )


def test_where_nobody_knows_what_is_right_nothing_is_a_failure(shown):
    game = play(lambda text: Reply([text], {"a": 0.9, "b": 0.1}), start="x", title="Any")
    game.type("y")
    assert game.best_failure is None
    assert told(game) == "The model says “a” with probability .900."


# Buttons and positions


def test_a_button_changes_the_input(game):
    game.type("1 2 3")
    press(game, "turn round")
    assert game._field.value == "3 2 1"
    assert len(game.tries) == 2


def test_a_button_that_cannot_says_why(shown):
    def refuse(text):
        raise ValueError("Expected something else.")

    game = play(ask, start="1 2 1", title="Three digits", buttons={"no": refuse})
    press(game, "no")
    assert told(game) == "Expected something else."


def test_the_best_failure_comes_back_by_its_button(game):
    best = game.widget.children[2].children[1]
    assert best.disabled
    game.type("7 8 9")
    game.type("5 5 5")
    assert not best.disabled
    press(game, "your best failure")
    assert game._field.value == "7 8 9"


def test_another_position_s_attention_is_shown(game):
    assert game._query.value == 2
    assert "Where position 2 (1) attends" in game._picture.value
    game._query.value = 0
    assert "Where position 0 (1) attends" in game._picture.value
    game.type("4 5 6")
    assert "Where position 0 (4) attends" in game._picture.value


def test_inputs_may_differ_in_length(shown):
    def letters(text):
        return Reply(list(text), {"a": 1.0}, attention={"0.0": torch.eye(len(text))})

    game = play(letters, start="abc", title="Letters")
    for text in ("abcdef", "a"):
        game.type(text)
        assert f"Where position {len(text) - 1} ({text[-1]}) attends" in game._picture.value


def test_enter_asks_where_the_model_takes_its_time(shown):
    assert play(ask, start="1 2 1", title="Slow", live=False)._field.continuous_update is False
    assert play(ask, start="1 2 1", title="Fast")._field.continuous_update is True


# What is shown


def test_a_picture_and_words_stand_beside_the_widget(game, shown):
    assert set(shown[0]) == {"text/plain", "image/svg+xml", "application/vnd.jupyter.widget-view+json"}
    assert shown[0]["text/plain"] == (
        "Three digits (a game, for a notebook with a kernel)\n1 2 1\n"
        "The model says “yes” with probability .567, and that is right."
    )


def test_in_colab_the_widget_is_shown_alone(monkeypatch, shown):
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    game = play(ask, start="1 2 1", title="Three digits")
    assert shown == [game.widget]


def test_the_picture_has_no_script_and_is_the_same_each_time():
    first, second = (picture(ask("1 2 3")) for _ in range(2))
    assert first == second
    root = ElementTree.fromstring(first)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg",
        "rect",
        "text",
        "path",
        "title",
    }
    assert not re.search(r"\bon\w+=|href|<style|\bid=", first)
    assert root.get("aria-label").split() == described(ask("1 2 3")).split()


def test_what_does_not_agree_is_not_told_by_colour_alone():
    assert "≠" in picture(ask("1 2 3"))
    assert "≠" not in picture(ask("1 2 1"))
    assert described(ask("1 2 3")).startswith("[1] 2 [3]\n")


@pytest.mark.parametrize("count", [1, 3, 22, 60])
def test_tokens_stand_in_their_boxes_and_on_the_card(count):
    tokens = ["START", *(str(7 * i % 31) for i in range(count))]
    reply = Reply(
        tokens, {"yes": 0.5, "no": 0.5}, attention={"a head with a long name": torch.eye(count + 1)}
    )
    root = ElementTree.fromstring(picture(reply))
    width, height = (float(pixels) for pixels in root.get("viewBox").split()[2:])
    for text in root.iter(f"{SVG}text"):
        size, x = float(text.get("font-size")), float(text.get("x"))
        wide = svg.text_width(text.text, size, text.get("font-weight") == "bold")
        left = {"middle": x - wide / 2, "start": x, "end": x - wide}[text.get("text-anchor")]
        assert left >= 0, text.text
        assert left + wide <= width + 0.1, text.text
        assert float(text.get("y")) <= height


def test_many_answers_are_cut_to_the_likeliest():
    reply = Reply(["x"], {str(i): i / 45 for i in range(10)})
    root = ElementTree.fromstring(picture(reply))
    named = [text.text for text in root.iter(f"{SVG}text") if text.get("text-anchor") == "end"]
    assert named == ["9", "8", "7", "6", "5"]


def test_tensors_are_probabilities_too():
    assert Reply(["x"], dict(zip("ab", torch.tensor([0.25, 0.75]), strict=True))).said == "b"


@pytest.mark.parametrize(
    ("p", "text"), [(1.0, "above .999"), (0.9994, ".999"), (0.5, ".500"), (0.0, "below .001")]
)
def test_a_probability_is_never_one_or_nothing(p, text):
    assert probability(p) == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": []}, "needs tokens"),
        ({"probabilities": {}}, "at least one answer"),
        ({"attention": {"0.0": torch.eye(3)}}, r"shape \(3, 3\); expected \(2, 2\)"),
        ({"links": {(0, 2): True}}, r"\(0, 2\) does not fit 2 tokens"),
    ],
)
def test_a_reply_that_does_not_fit_says_so(change, message):
    with pytest.raises(ValueError, match=message):
        Reply(**({"tokens": ["a", "b"], "probabilities": {"x": 1.0}} | change))


# Numbers


@pytest.mark.parametrize("text", ["1 2 3", "1,2,3", "[1, 2, 3]", " 1;2\t3\n", "(1 2 3)", "01 2 3"])
def test_numbers_are_read_however_they_are_written(text):
    assert read_numbers(text, count=3, low=0, high=9) == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("", "none came."),
        ("1 2", "2 came."),
        ("1 2 3 4", "4 came."),
        ("1 2.5 3", "number 2 is `2.5`."),
        ("1 2 -3", "number 3 is -3."),
        ("1 2 x", "number 3 is `x`."),
    ],
)
def test_what_is_no_number_is_named(text, end):
    with pytest.raises(ValueError, match="Expected 3 whole numbers from 0 to 9") as caught:
        read_numbers(text, count=3, low=0, high=9)
    assert str(caught.value).endswith(f"; {end}")
