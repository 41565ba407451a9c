"""The learner's half of a check: call what came in each case, and keep plain values of what it gave.

Nothing that the learner's code does stays behind, and what it tried to leave is said. What comes out can be pickled.
"""

import dis
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import CodeType, ModuleType
from typing import Any

import torch

from exercises_utils.checking.case import Case
from exercises_utils.checking.isolation import (
    Fresh,
    copy_of,
    describe_error,
    fingerprint,
    innermost_frame,
    is_blank,
    is_learners_code,
    parameter_names,
    same_process_state,
    side_effects,
)
from exercises_utils.checking.values import kind, listed, number, plain

WRITE_IT = "Write your answer and run this cell again."


@dataclass(frozen=True)
class Output:
    """What the learner's half gave for one case: a plain value, or why there is none.

    `facts` say what stands in the learner's code that no argument brings: useful where an answer is right in some cases.
    """

    case: str
    value: Any = None
    error: str | None = None
    not_attempted: str | None = None
    side_effects: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()


def collect_value(case: Case, exercise: str, answer: Any) -> Output:
    """What an answer that is no function gives."""
    if is_placeholder(answer):
        return Output(case.name, not_attempted=WRITE_IT)
    try:
        value = plain(answer)
    except Exception as error:
        return Output(case.name, error=f"Your answer cannot be read: {describe_error(error)}.")
    if case.arguments:
        message = f"Pass the function itself, without brackets: `checks.{exercise}({exercise})`; {kind(value)} came."
        return Output(case.name, error=message)
    return Output(case.name, value)


def call(case: Case, answer: Callable[..., Any], wanted: Sequence[str]) -> Output:
    """What a function gives, or why there is nothing; `wanted` are the names that its parameters should have."""
    if problem := _signature_problem(answer, len(case.arguments), wanted):
        return Output(case.name, error=problem)
    with same_process_state():
        arguments = [a.get() if isinstance(a, Fresh) else copy_of(a) for a in case.arguments]
        before = [fingerprint(argument) for argument in arguments]
    value, error, not_attempted = None, None, None
    effects: dict[int, str] = {}
    process: list[str] = []
    try:
        if "set_grad_enabled" in _names_in(
            answer
        ):  # only with gradients on is it seen that they are left off
            with same_process_state(process, gradients=True):
                answer(*[a if isinstance(a, torch.nn.Module) else copy_of(a) for a in arguments])
        with same_process_state(process):
            value = answer(*arguments)
            if is_placeholder(value) and (value is not None or is_blank(answer)):
                not_attempted = WRITE_IT
            elif value is None:
                error = "Your function returns None: is a `return` missing?"
            value = plain(value)
    except NotImplementedError as raised:
        not_attempted, error = _what_is_missing(raised, answer)
    except (Exception, SystemExit) as raised:
        error = f"Your code raised {describe_error(raised)}."
    finally:
        effects = side_effects(parameter_names(answer), before, arguments)
        for i in effects:
            if isinstance(wrapped := case.arguments[i], Fresh):
                wrapped.discard()
    return Output(
        case.name, value, error, not_attempted, (*effects.values(), *process), tuple(facts_about(answer))
    )


def is_placeholder(answer: Any) -> bool:
    """Whether nobody has written an answer yet: None, `...`, or a tuple or list of these."""
    if type(answer) in (tuple, list):
        return bool(answer) and all(item is not answer and is_placeholder(item) for item in answer)
    return answer is None or answer is Ellipsis or answer is NotImplemented


def _signature_problem(answer: Callable[..., Any], count: int, wanted_names: Sequence[str]) -> str | None:
    """What is wrong with the parameters of a function that is called with `count` arguments, or None."""
    names = parameter_names(answer)
    wanted = f"({', '.join(wanted_names)})" if len(wanted_names) == count else f"{count} arguments"
    if names != list(wanted_names) and sorted(names) == sorted(wanted_names):
        return f"Your function takes ({', '.join(names)}); the order must be {wanted}."
    try:
        inspect.signature(answer).bind(*range(count))
    except TypeError:
        return f"Your function takes ({', '.join(names)}); it must take {wanted}."
    except ValueError:  # a built-in function, whose parameters Python cannot tell
        return None
    return None


def _what_is_missing(error: NotImplementedError, answer: Callable[..., Any]) -> tuple[str | None, str | None]:
    """Whose the error is, as (not attempted, error): the stub's own, another stub's, or a library's."""
    frame = innermost_frame(error)
    if frame is None or not is_learners_code(frame.f_code.co_filename):
        return None, f"Your code raised {describe_error(error)}."
    own_code = getattr(inspect.unwrap(answer), "__code__", None)
    if own_code is None or frame.f_code is own_code:
        return WRITE_IT, None
    return f"Your function calls `{frame.f_code.co_name}`, which is still to be written.", None


# ── what stands in the code ─────────────────────────────────────────────────────────────────────────────────


def _codes(function: Callable[..., Any]) -> Iterator[CodeType]:
    """A function's code, and that of the functions inside it."""
    todo = [getattr(inspect.unwrap(function), "__code__", None)]
    while todo:
        code = todo.pop()
        if isinstance(code, CodeType):
            yield code
            todo += [constant for constant in code.co_consts if isinstance(constant, CodeType)]


def _names_in(function: Callable[..., Any]) -> set[str]:
    """The names of globals and attributes that a function's code uses."""
    return {name for code in _codes(function) for name in code.co_names}


def facts_about(function: Callable[..., Any]) -> list[str]:
    """What a function takes from elsewhere than its arguments: data of the notebook, and numbers in its code."""
    own = inspect.unwrap(function)
    read = {
        instruction.argval
        for code in _codes(function)
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    found = {name: value for name, value in getattr(own, "__globals__", {}).items() if name in read}
    data = sorted(name for name, value in found.items() if _is_data(value))
    numbers = sorted(
        {
            constant
            for code in _codes(function)
            for constant in code.co_consts
            if type(constant) in (int, float) and abs(constant) > 2
        }
    )
    facts = []
    if data:
        facts.append(f"Your function reads {listed(data)} from the notebook, not from its arguments.")
    if 0 < len(numbers) < 6:
        facts.append(f"In its code stands {' and '.join(number(n) for n in numbers)}.")
    return facts


def _is_data(value: Any) -> bool:
    if isinstance(value, torch.Tensor | torch.nn.Module | list | tuple | dict | set):
        return True
    return isinstance(value, int | float | str) and not isinstance(value, ModuleType | type)
