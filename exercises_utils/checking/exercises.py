"""An exercise in one place: the truth, the calls that it is tried on, and what people get wrong.

    @exercise("Direct logit attribution that adds up", core=True, axes="component sequence")
    def logit_attribution(model, tokens, *, scale="ln_final", position=-1):
        '''By a route that the lesson's solution does not take.'''
        ...

    logit_attribution.given(on_models(MODELS, tokens=random_tokens))
    logit_attribution.slips({
        "The last LayerNorm's scale is forgotten: the rows do not add up to the logit difference.": dict(scale=None),
        "The verdict is read at END, the last position.": dict(position=-2),
    })

The learner writes a function of the positional parameters. The keyword-only ones are the choices that one can get
wrong: a slip is the truth with some arguments changed, and is computed only when an answer is wrong. What is common to
all exercises (axes swapped, a sign, a sum for a mean, an argument that is not used) is in `universal` and needs no line
here. Two slips at once are found by themselves, and the tests are derived from the same table.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from exercises_utils.checking.calls import Call
from exercises_utils.checking.case import Case
from exercises_utils.checking.collect import Output
from exercises_utils.checking.engine import Check
from exercises_utils.checking.isolation import Fresh, copy_of, fingerprint, same_process_state
from exercises_utils.checking.values import Axes, convert, plain, shown

Calls = Sequence[Call] | Callable[[], Sequence[Call]]


@dataclass(frozen=True)
class arg:
    """In a slip's changed arguments: what another argument is in the same call, as in ``dict(clean=arg("corrupted"))``."""

    name: str


@dataclass(frozen=True)
class then:
    """A slip made on the right answer: ``then(lambda right: right[1:])``."""

    function: Callable[[Any], Any]


Change = Mapping[str, Any] | then | Callable[..., Any]
"""Changed arguments of the truth, by name; or `then(f)`; or a function of the exercise's positional parameters."""


class Exercise(Check):
    """The check of a function that the learner writes; made by `exercise`."""

    def __init__(
        self,
        truth: Callable[..., Any],
        title: str,
        core: bool,
        *,
        axes: Axes = None,
        atol: float | None = None,
        rtol: float | None = None,
        requires: Callable[..., str | None] | None = None,
        reads: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(truth.__name__, title, core, self._make, reference=truth)
        self.truth, self.axes, self.atol, self.rtol, self.requires = truth, axes, atol, rtol, requires
        self.reads = reads
        parameters = inspect.signature(truth).parameters.values()
        self.parameters = tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)
        self.choices = tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
        self._sources: tuple[Calls, ...] = ()
        self.slip_table: dict[str, Change] = {}
        self._known: dict[tuple[int, str], Any] = {}

    # ── the table ───────────────────────────────────────────────────────────────────────────────────────────

    def given(self, *calls: Calls) -> None:
        """Set the calls that an answer is tried on: lists of `Call`, or functions that make them when they are needed."""
        self._sources = calls

    def slips(self, slips: Mapping[str, Change]) -> None:
        """Set what people get wrong: the message that each slip gets, and what it changes.

        Raises TypeError where a change names an argument that the truth does not take.
        """
        for change in slips.values():
            unknown = set(change) - {*self.parameters, *self.choices} if isinstance(change, Mapping) else None
            if unknown:
                raise TypeError(
                    f"a slip of {self.exercise!r} changes {sorted(unknown)}, which its truth does not take"
                )
        self.slip_table |= slips

    def with_slip(self, change: Change) -> Callable[..., Any]:
        """An answer that makes this slip, for the tests."""

        def wrong(*arguments: Any) -> Any:
            return self._apply(arguments, change)

        return wrong

    # ── what the table gives ────────────────────────────────────────────────────────────────────────────────

    def _make(self) -> list[Case]:
        calls = [call for source in self._sources for call in (source() if callable(source) else source)]
        arguments = [call.positional(self.parameters) for call in calls]
        changes = {**self.slip_table, **self._unused(arguments, [call.name for call in calls])}
        cases = []
        for i, (call, given) in enumerate(zip(calls, arguments, strict=True)):
            requires = None if self.requires is None else partial(self._requires, given)
            mistakes = {message: partial(self._mistake, i, given, message, changes) for message in changes}
            axes = self.axes if call.axes is None else call.axes
            both = partial(self._both, i, given, changes)
            cases.append(
                Case(call.name, given, self._changed(given, {}), axes, mistakes, self.atol, self.rtol, requires, both,
                     self.parameters)
            )  # fmt: skip
        return cases

    def _unused(self, arguments: Sequence[tuple[Any, ...]], names: Sequence[str]) -> dict[str, Change]:
        """The slip of not using an argument: its value is that of one case in all of them."""
        found: dict[str, Change] = {}
        for i, name in enumerate(self.parameters):
            values = list({_identity(given[i]): given[i] for given in arguments}.values())
            if len(values) < 2:
                continue
            simple = all(isinstance(v, str | int | float | tuple) and len(shown(v)) < 40 for v in values)
            for value in values if simple else values[:1]:
                what = f"`{name} = {shown(value)}`" if simple else f"the `{name}` of {names[0]}"
                found[f"`{name}` is not used: the answers are those for {what}, whatever is passed."] = {
                    name: value
                }
        return found

    def _requires(self, given: tuple[Any, ...], value: Any) -> str | None:
        assert self.requires is not None
        with same_process_state():
            return self.requires(value, *_made(given))

    def _changed(self, given: tuple[Any, ...], change: Change, *after: then) -> Any:
        """The truth with a change, as a plain value."""
        with same_process_state():
            value = self._apply(_made(given), change)
            for one in after:
                value = one.function(value)
            return self._read(plain(value))

    def _apply(self, arguments: Sequence[Any], change: Change) -> Any:
        if isinstance(change, then):
            return change.function(self.truth(*arguments))
        if not isinstance(change, Mapping):
            return change(*arguments)
        named = dict(zip(self.parameters, arguments, strict=True))
        changed = {
            name: named[v.name] if isinstance(v, arg) else v.get() if isinstance(v, Fresh) else v
            for name, v in change.items()
        }
        positional = [changed.pop(name, value) for name, value in named.items()]
        return self.truth(*positional, **changed)

    def _read(self, value: Any) -> Any:
        """What is compared of a plain value."""
        if self.reads is None or not isinstance(value, Tensor):
            return value
        try:
            return self.reads(value)
        except (RuntimeError, IndexError):  # another shape: that is what will be said of it
            return value

    def _collect_case(self, case: Case, answer: Any) -> Output:
        output = super()._collect_case(case, answer)
        return replace(output, value=self._read(convert(output.value, case.expected)))

    def _mistake(
        self, index: int, given: tuple[Any, ...], message: str, changes: Mapping[str, Change]
    ) -> Any:
        if (index, message) not in self._known:
            self._known[index, message] = self._if_possible(given, changes[message])
        return self._known[index, message]

    def _both(
        self, index: int, given: tuple[Any, ...], changes: Mapping[str, Change], one: str, other: str
    ) -> Any:
        """What two slips give together; `NO_VALUE` where they change the same, or are functions of their own."""
        first, second = changes[one], changes[other]
        if isinstance(first, then):
            first, second = second, first
        if (index, one + other) not in self._known:
            value = Case.NO_VALUE
            if isinstance(first, Mapping) and isinstance(second, Mapping):
                if not set(first) & set(second):
                    value = self._if_possible(given, {**first, **second})
            elif isinstance(second, then) and not isinstance(first, then):
                value = self._if_possible(given, first, second)
            self._known[index, one + other] = value
        return self._known[index, one + other]

    def _if_possible(self, given: tuple[Any, ...], change: Change, *after: then) -> Any:
        try:
            return self._changed(given, change, *after)
        except Exception:  # a slip that fails on these shapes: a learner's code would fail, too
            return Case.NO_VALUE


def _identity(value: Any) -> Any:
    """The same for two arguments that mean the same."""
    return id(value) if isinstance(value, Fresh) or callable(value) else repr(fingerprint(value))


def _made(given: Sequence[Any]) -> list[Any]:
    return [value.get() if isinstance(value, Fresh) else copy_of(value) for value in given]


def exercise(
    title: str, *, core: bool, axes: Any = None, **settings: Any
) -> Callable[[Callable[..., Any]], Exercise]:
    """Make an `Exercise` of the function that follows, which is its truth and gives it its name.

    `axes` names the axes of the answer, "layer head"; of a tuple its items; of a tuple or dict of tensors it maps each
    item to its axes. Settings: `atol` (in the answer's unit), `rtol` (a share of each number); `reads`, what is
    compared of a tensor where the rest is left open (``torch.tril``); and `requires`, a function of the value and the
    arguments, where several answers are right: it returns a message for a wrong one, None for a right one, and the truth
    then gives one right answer.
    """
    if isinstance(axes, Mapping):
        axes = {name: tuple(each.split()) for name, each in axes.items()}
    elif axes is not None:
        axes = tuple(axes.split())
    return lambda truth: Exercise(truth, title, core, axes=axes, **settings)


class Answer(Check):
    """The check of a value that the learner finds; made by `answer`."""

    def __init__(
        self,
        find: Callable[[], Any],
        title: str,
        core: bool,
        refuse: Callable[[Any], str | None],
        praise: Callable[[Any], str] | None,
    ) -> None:
        case = partial(Case, "the lesson's model", requires=refuse)
        super().__init__(find.__name__, title, core, lambda: [case()], reference=find)
        self._praise = praise

    def praise(self, outputs: Sequence[Output]) -> str:
        """What to say to a right answer."""
        return self._praise(outputs[0].value) if self._praise else ""


def answer(
    title: str,
    *,
    core: bool,
    refuse: Callable[[Any], str | None],
    praise: Callable[[Any], str] | None = None,
) -> Callable[[Callable[[], Any]], Answer]:
    """Make the check of a value that the learner finds, such as a head; the function that follows finds it, too.

    `refuse` returns a message for a wrong value, and None for a right one; `praise` what to say to a right one.
    """
    return lambda find: Answer(find, title, core, refuse, praise)
