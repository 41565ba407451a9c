"""The harness of the wrong answers fails where a check is too lenient, too strict or cannot tell answers apart."""

import pytest
import torch

from exercises_utils.checking import Case, Check, CheckList, Question
from tests.wrong_answers.harness import (
    Answers,
    Value,
    accepted,
    missing,
    not_attempted,
    proofs,
    refused,
    sound,
    table,
)


def doubled(x):
    return 2 * x


def tripled(x):
    return 3 * x


def check(cases=None, exercise="doubled", reference=doubled) -> Check:
    def two() -> list[Case]:
        x = torch.arange(1.0, 4.0)
        return [
            Case(f"x times {k}", (k * x,), 2 * k * x, ("x",), {"That is x itself.": k * x}) for k in (1, 3)
        ]

    return Check(exercise, "Doubled", True, cases or two, reference)


def test_full_answers_hold():
    answers = Answers(check(), {tripled: "1.5 times", (lambda x: x): "That is x itself"}, [lambda x: x + x])
    for parameter in proofs([answers]):
        parameter.values[0]()
    assert "| doubled |  |  |  | 2/2 | 2/2 | yes |" in table([answers])


def test_a_wrong_answer_that_passes_is_found():
    with pytest.raises(AssertionError, match="a wrong answer"):
        refused(Answers(check()), lambda x: x + x, "anything")


def test_a_refusal_without_the_fragment_is_found():
    with pytest.raises(AssertionError, match="expected 'transpose' in"):
        refused(Answers(check()), tripled, "transpose")
    with pytest.raises(AssertionError, match="name the fragment"):
        refused(Answers(check()), tripled, "")


def test_a_right_answer_that_fails_is_found():
    with pytest.raises(AssertionError, match="a right answer"):
        accepted(Answers(check()), tripled)
    assert "| doubled |  |  |  | 0/1 | 1/2 | yes |" in table(
        [Answers(check(), {doubled_again: "no"}, [tripled])]
    )


def doubled_again(x):
    return x + x


def test_a_check_that_takes_a_stub_for_an_answer_is_found():
    class Lenient(Check):
        def collect(self, answer):
            return super().collect(tripled)

    with pytest.raises(AssertionError, match="failed"):
        not_attempted(Answers(Lenient("doubled", "Doubled", True, check().cases, doubled)))


@pytest.mark.parametrize(
    ("cases", "problem"),
    [
        ([Case("one", (1,), 2)], "one case cannot tell"),
        ([Case("one", (1,), 2), Case("one", (2,), 4)], "the same name"),
        ([Case("one", (1,), 2), Case("two", (2,), 2)], "the same value is expected"),
        ([Case("one", (1,), torch.ones(2)), Case("two", (2,), torch.zeros(2))], "name the axes"),
        ([Case("one", (1,), torch.ones(2), ("a", "b")), Case("two", (2,), torch.zeros(2), ("a",))], "one: "),
        ([Case("one", (1,), 2, None, {"No.": 2}), Case("two", (2,), 4)], "'No.' gives the right value"),
    ],
)
def test_cases_that_cannot_tell_answers_apart_are_found(cases, problem):
    with pytest.raises(AssertionError, match=problem):
        sound(Answers(check(lambda: cases)))


def test_exercises_without_wrong_answers_are_listed():
    lesson = CheckList("x")
    first, second, third = (lesson.add(check(exercise=name)) for name in ("first", "second", "third"))
    question = lesson.add(Question("which", "Which", True, {"a": ("A", "no"), "b": ("B", "yes")}, "b"))
    listed = [Answers(first, {tripled: "1.5 times"}), Answers(second), Answers(question)]
    assert missing(lesson, listed) == ["second", "third"]
    assert third.exercise == "third"


def test_the_options_of_a_question_are_tried():
    options = {"a": ("A", "Because."), "b": ("B", "Right."), "c": ("C", "")}
    answers = Answers(Question("which", "Which", True, options, "b"))
    assert "| which |  |  |  | 3/4 | 3/3 | yes |" in table([answers]), (
        "an option without a reason is not proven"
    )


def test_values_that_cannot_be_keys_are_wrapped():
    pair = Check("pair", "Pair", True, lambda: [Case("x", expected=(0, 1), axes=("layer", "head"))])
    answers = Answers(pair, {Value([1, 0]): "reverse order", (0, 0): "`head` is wrong"}, [[0, 1]])
    for parameter in proofs([answers]):
        parameter.values[0]()
