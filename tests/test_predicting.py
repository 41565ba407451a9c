"""A prediction is kept, stands beside what came, is never counted as wrong, and holds nothing up."""

from collections import Counter
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from exercises_utils.checking import Prediction, letters, predict, predicting, predictions
from exercises_utils.lessons import find_lessons

OPTIONS = {"mirror": "at its mirror", "itself": "at itself", "start": "at `START`"}
LETTER_OF = {name: letter for letter, name in letters("where", OPTIONS).items()}


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No prediction is kept from elsewhere, and the strict mode of the course's own builds is on."""
    monkeypatch.setattr(predictions, "records", {})
    monkeypatch.setenv("EXERCISES_STRICT", "1")


@pytest.fixture
def said(monkeypatch):
    """What is shown, as text."""
    texts: list[str] = []
    monkeypatch.setattr(predicting, "show", lambda text, status="": texts.append(text))
    monkeypatch.setattr(predicting, "display", lambda data, raw: texts.append(data["text/plain"]))
    return texts


def where():
    return predict("where", "Where does END look?", options=OPTIONS)


def share():
    return predict("share", "How often?", unit="", low=0, high=1)


def order():
    return predict("order", "Which head first?", ranking=("0.0", "0.1", "1.0"), order="the strongest first")


# Commit, then compare


def test_a_prediction_is_kept_and_stands_beside_what_came(said):
    where()(LETTER_OF["mirror"])
    where().compare("itself")
    mirror, itself = (f"({LETTER_OF[name]}) {OPTIONS[name]}" for name in ("mirror", "itself"))
    assert said == [
        f"Prediction `where`: you say {mirror}. It is kept, and will stand beside what comes.",
        f"You said: {mirror}.\nWhat came: {itself}.",
    ]


def test_an_open_one_holds_nothing_up(said):
    for answer in (None, ..., ""):
        where()(answer)
    where().compare("itself")
    assert said[0] == said[1] == said[2]
    assert said[0].startswith(
        'Prediction `where` is open. If you like, write "a", "b" or "c" and run this again'
    )
    assert said[3] == f"What came: ({LETTER_OF['itself']}) at itself.\nYour prediction `where` is open."


def test_a_change_of_mind_before_one_looks_is_kept(said):
    share()(0.2)
    share()(0.7)
    share().compare(0.93)
    assert said[-1] == "You said: 0.7.\nWhat came: 0.93 (you were 0.23 below)."


def test_after_one_has_looked_the_first_answer_stays(said):
    share()(0.2)
    share().compare(0.93)
    share()(0.93)
    share().compare(0.93)
    assert "what came has been shown, so your answer from before stays: 0.2." in said[2]
    assert said[3] == said[1] == "You said: 0.2.\nWhat came: 0.93 (you were 0.73 below)."


def test_running_all_again_changes_nothing(said):
    for _ in range(2):
        share()(0.2)
        share().compare(0.93)
    assert said[0] == said[2]
    assert said[1] == said[3]


def test_what_is_said_after_one_has_looked_is_said_to_be(said):
    share().compare(0.93)
    share()(0.93)
    share().compare(0.93)
    assert said[-1] == "You said: 0.93.\nWhat came: 0.93 (said after it was shown)."


def test_what_came_may_change(said):
    share()(0.2)
    share().compare(0.5)
    share().compare(0.1)
    assert said[-1] == "You said: 0.2.\nWhat came: 0.1 (you were 0.1 above)."


@pytest.mark.parametrize(
    ("make", "answer", "came"),
    [
        (where, LETTER_OF["start"], "start"),
        (share, 0.5, 0.5),
        (order, "0.1, 0.0, 1.0", [(0, 1), (0, 0), (1, 0)]),
    ],
)
def test_what_came_as_it_was_said(said, make, answer, came):
    make()(answer)
    make().compare(came)
    assert said[-1].endswith(" (as you said).")


@pytest.mark.parametrize("make", [where, share, order])
@pytest.mark.parametrize("came", [None, "none of them", float("nan"), torch.zeros(3), [1, 2], object])
def test_what_came_may_be_anything(said, make, came):
    make().compare(came)
    make()({"where": "a", "share": 0.5, "order": ["0.0", "0.1", "1.0"]}[make.__name__])
    make().compare(came)
    assert len(said) == 3
    assert all("What came: " in text for text in (said[0], said[2]))


# The three forms


@pytest.mark.parametrize("written", ["{}", " {} ", "({})", "{}."])
@pytest.mark.parametrize("upper", [False, True])
def test_a_letter_is_written_in_many_ways(said, written, upper):
    letter = LETTER_OF["mirror"]
    where()(written.format(letter.upper() if upper else letter))
    assert f"you say ({letter}) at its mirror" in said[0]


@pytest.mark.parametrize("number", [1, 1.0, np.float32(1), np.int64(1), torch.tensor(1.0), torch.tensor([1])])
def test_a_number_is_a_number_whoever_holds_it(said, number):
    share()(number)
    assert "you say 1. " in said[0]


@pytest.mark.parametrize(
    "ranking", [["0.1", "1.0", "0.0"], "0.1 > 1.0 > 0.0", "0.1, 1.0, 0.0", ((0, 1), (1, 0), (0, 0))]
)
def test_a_ranking_is_written_in_many_ways(said, ranking):
    order()(ranking)
    assert "you say 0.1 > 1.0 > 0.0. " in said[0]


def test_a_ranking_says_how_many_pairs_agree(said):
    order()("0.0, 0.1, 1.0")
    order().compare("0.1, 0.0, 1.0")
    assert (
        said[-1] == "You said: 0.0 > 0.1 > 1.0.\nWhat came: 0.1 > 0.0 > 1.0 (2 of 3 pairs in the same order)."
    )


def test_a_number_has_its_unit(said):
    logits = predict("logits", "How many?", unit="logits")
    logits(-2)
    logits.compare(3.14159)
    assert said[-1] == "You said: -2 logits.\nWhat came: 3.14 logits (you were 5.14 below)."


@pytest.mark.parametrize(
    ("make", "answer", "sentence"),
    [
        (where, "z", """Expected one of the letters "a", "b" or "c", in quotes; 'z' came."""),
        (where, 1, 'Expected one of the letters "a", "b" or "c", in quotes; 1 came.'),
        (where, ["a"], "; ['a'] came."),
        (share, 70, "Expected a number from 0 to 1; 70 came."),
        (share, "half", "Expected a number from 0 to 1; 'half' came."),
        (share, True, "; True came."),
        (share, float("nan"), "; nan came."),
        (share, torch.zeros(2), "; tensor([0., 0.]) came."),
        (order, ["0.1", "0.0"], "Expected a list of 0.0, 0.1, 1.0, the strongest first. Missing: 1.0."),
        (order, ["0.1", "0.1", "7.7"], "Missing: 0.0, 1.0; unknown: 7.7; more than once: 0.1."),
        (order, [], "Missing: 0.0, 0.1, 1.0."),
        (order, 3, "; 3 came."),
        (order, {"0.0": 1}, "came."),
    ],
)
def test_what_is_no_answer_gets_a_sentence_and_is_not_kept(said, make, answer, sentence):
    make()(answer)
    assert sentence in said[0]
    assert said[0].endswith(" Nothing is kept yet.")
    make().compare("none of them")
    assert "is open" in said[1]


def test_an_answer_of_another_form_leaves_the_earlier_one(said):
    share()(0.5)
    share()("much")
    assert said[1].endswith("Your earlier one stays: 0.5.")


@pytest.mark.parametrize(
    ("low", "high", "hint"),
    [
        (None, None, "a number"),
        (0, None, "a number from 0 up"),
        (None, 2.5, "a number up to 2.5"),
        (0, 1, "a number from 0 to 1"),
    ],
)
def test_bounds_are_said(said, low, high, hint):
    predict("n", "How many?", unit="", low=low, high=high)("x")
    assert f"Expected {hint};" in said[0]


@pytest.mark.parametrize("forms", [{}, {"unit": "", "options": OPTIONS}, {"unit": "", "ranking": ("a", "b")}])
def test_a_prediction_has_one_form(forms):
    with pytest.raises(ValueError, match="needs one of"):
        predict("x", "?", **forms)


def test_an_option_is_not_named_like_a_letter():
    with pytest.raises(ValueError, match=r"\['a'\], which could be taken for their letters"):
        predict("x", "?", options={"a": "one", "two": "two"})


# The table


def test_the_table_has_what_was_met_in_its_order(said):
    share(), order()
    where()("a")
    share().compare(0.25)
    share()(0.5)
    predictions.summary()
    assert said[-1] == (
        "Where does END look?\n"
        f"  you said:  (a) {OPTIONS[letters('where', OPTIONS)['a']]}\n"
        "  what came: not yet looked at\n"
        "How often?\n"
        "  you said:  0.5\n"
        "  what came: 0.25 (said after it was shown)"
    )


def test_the_table_is_small_and_safe(monkeypatch):
    shown = []
    monkeypatch.setattr(predicting, "display", lambda data, raw: shown.append(data["text/html"]))
    predict("x", "Is 1 < 2 in `END`?", options={"yes": "<b>yes</b>", "no": "no"}).compare("<script>")
    predictions.summary()
    assert "Is 1 &lt; 2 in <code>END</code>?" in shown[0]
    assert "&lt;script&gt;" in shown[0]
    assert "<script" not in shown[0]


def test_nothing_met_is_said(said):
    predictions.summary()
    assert said == ["No prediction has been met yet."]


# Letters


def test_letters_belong_to_the_name_alone():
    assert letters("which_head", ["mean", "sum", "both"]) == {"a": "both", "b": "mean", "c": "sum"}
    assert letters("which_head", ["both", "sum", "mean"]) == letters("which_head", ["mean", "sum", "both"])


def test_no_letter_is_right_more_often_than_another():
    counts = Counter(
        next(
            letter
            for letter, option in letters(f"exercise {i}", ["right", "x", "y", "z"]).items()
            if option == "right"
        )
        for i in range(400)
    )
    assert set(counts) == set("abcd")
    assert max(counts.values()) < 1.4 * 100


@pytest.mark.parametrize("options", [[], ["one"], ["same", "same"], [str(i) for i in range(27)]])
def test_letters_need_options(options):
    with pytest.raises(ValueError, match="from 2 to 26 options, all different"):
        letters("x", options)


def test_a_question_can_use_them():
    from exercises_utils.checking import Question

    why = {"sum": ("the sum", "yes"), "mean": ("the mean", "no"), "both": ("both", "no")}
    by_letter = letters("which_head", why)
    right = next(letter for letter, name in by_letter.items() if name == "sum")
    question = Question("which_head", "Which", True, {a: why[name] for a, name in by_letter.items()}, right)
    assert question.run(right).passed
    assert [question.run(letter).passed for letter in by_letter].count(True) == 1


def test_the_options_as_the_lesson_has_to_show_them():
    lines = where().markdown().split("\n")
    assert [line[:8] for line in lines] == ["- **a** ", "- **b** ", "- **c** "]
    assert f"- **{LETTER_OF['start']}** at `START`" in lines
    assert share().markdown() == ""


@pytest.mark.parametrize("lesson", find_lessons(Path(__file__).parent.parent), ids=lambda lesson: lesson.name)
def test_a_lesson_shows_the_options_of_its_predictions(lesson):
    source = lesson.source.read_text(encoding="utf-8")
    if 'tags=["prediction"]' not in source:
        return
    checks = import_module(f"exercises_utils.challenges.{lesson.challenge}.checks")
    for prediction in (value for value in vars(checks).values() if isinstance(value, Prediction)):
        shown = "\n".join(f"# {line}" for line in prediction.markdown().split("\n"))
        assert shown.rstrip("# ") in source, (
            f"{prediction.exercise}: the lesson has to show\n{prediction.markdown()}"
        )
