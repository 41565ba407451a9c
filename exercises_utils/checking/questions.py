"""Multiple-choice questions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from exercises_utils.checking.case import Case
from exercises_utils.checking.collect import Output, is_placeholder
from exercises_utils.checking.engine import Check


class Question(Check):
    """A multiple-choice question; call it with the letter of an option, such as ``"b"``.

    `options` maps each letter to the option's text and to why it is right or wrong, which is shown for the
    option that was chosen. `answer` is the right letter, or a function of no arguments that computes it.
    """

    def __init__(
        self,
        exercise: str,
        title: str,
        core: bool,
        options: Mapping[str, tuple[str, str]],
        answer: str | Callable[[], str],
    ) -> None:
        self.options = dict(options)
        self._answer = answer
        super().__init__(exercise, title, core, self._question, self.right_letter)

    def right_letter(self) -> str:
        """The letter of the right option."""
        right = self._answer() if callable(self._answer) else self._answer
        if right not in self.options:
            raise ValueError(f"the answer {right!r} of {self.exercise!r} is none of {list(self.options)}")
        return right

    def _question(self) -> list[Case]:
        right = self.right_letter()

        def refuse(value: Any) -> str | None:
            letter = self._letter(value)
            if letter not in self.options:
                came = f"; {value!r} came" if isinstance(value, str) else ""
                return f"Choose one of the letters {', '.join(map(repr, self.options))}, in quotes{came}."
            text, why = self.options[letter]
            return None if letter == right else f"({letter}) {text}: {why}"

        return [Case("the question", requires=refuse)]

    def _letter(self, value: Any) -> Any:
        """The letter that is meant: `" B "`, `"(b)"` and `"b."` are all `"b"`."""
        return value.strip(" ().").lower() if isinstance(value, str) else None

    def _collect_case(self, case: Case, answer: Any) -> Output:
        if isinstance(answer, str) and not answer.strip():
            answer = None
        if is_placeholder(answer):
            return Output(case.name, not_attempted="Choose a letter and run this cell again.")
        return Output(case.name, answer if isinstance(answer, str) else False)

    def praise(self, outputs: Sequence[Output]) -> str:
        """Why the right option is right."""
        letter = self._letter(outputs[0].value)
        return f"({letter}) {self.options[letter][1]}"
