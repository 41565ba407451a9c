"""The progress line says what is solved and what is next."""

import pytest

from exercises_utils.checking import Case, Check, CheckList


def lesson_of(*exercises: tuple[str, bool]) -> CheckList:
    lesson = CheckList("03 palindromes")
    for name, core in exercises:
        lesson.add(Check(name, name.title(), core, lambda: [Case("x", expected=1)]))
    return lesson


def test_the_line_counts_and_names_the_next_exercise_of_the_core():
    lesson = lesson_of(("first", True), ("extra", False), ("second", True))
    assert lesson.progress_line() == "0 of 3 solved (core 0 of 2). Next: `first`."
    lesson.record("first", "passed")
    assert lesson.progress_line() == "1 of 3 solved (core 1 of 2). Next: `second`."
    lesson.record("second", "passed")
    assert (
        lesson.progress_line() == "2 of 3 solved (core 2 of 2). The core is done. Next, if you like: `extra`."
    )
    lesson.record("extra", "passed")
    assert lesson.progress_line() == "3 of 3 solved (core 2 of 2). All done."


def test_the_latest_outcome_counts():
    lesson = lesson_of(("first", True))
    for status, solved in (("passed", 1), ("failed", 0), ("not attempted", 0), ("could not be checked", 0)):
        lesson.record("first", status)
        assert lesson.progress_line().startswith(f"{solved} of 1 solved")


def test_a_check_records_its_outcome(capsys):
    lesson = lesson_of(("first", True), ("second", True))
    first, _ = lesson
    first(2)
    assert not lesson.is_solved("first")
    first(1)
    assert lesson.is_solved("first")
    assert capsys.readouterr().out.endswith("1 of 2 solved (core 1 of 2). Next: `second`.\n")


def test_progress_lists_every_exercise(capsys):
    lesson = lesson_of(("first", True), ("extra", False), ("second", True), ("third", True))
    lesson.record("first", "passed")
    lesson.record("second", "failed")
    lesson.record("third", "could not be checked")
    lesson.progress()
    assert capsys.readouterr().out == (
        "✓ `first`: First\n○ `extra`: Extra (optional)\n✗ `second`: Second\n? `third`: Third\n"
        "1 of 4 solved (core 1 of 3). Next: `second`.\n"
    )


def test_a_name_is_used_once():
    lesson = lesson_of(("first", True))
    with pytest.raises(ValueError, match="already has an exercise named 'first'"):
        lesson.add(Check("first", "Again", True, lambda: [Case("x", expected=1)]))
