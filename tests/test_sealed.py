"""A sealed function computes what it computed before, and cannot ask a model."""

import functools
import math
from types import SimpleNamespace

import einops
import numpy as np
import pytest
import torch
from einops import rearrange
from torch import nn

from exercises_utils.evidence.sealed import Sealed, SealError

MODEL = nn.Linear(2, 2)
TABLE = torch.ones(3)
ARRAY = np.ones(3)
HOLDER = SimpleNamespace(model=MODEL)
HALF = 0.5
START = 31
PAIRS = [(1, 20), (2, 19)]
STRENGTHS = {1: 0.25, 2: 0.75}
BOUND = MODEL.forward
ASK = functools.partial(MODEL.forward)


def helper(number: float) -> float:
    return number * HALF + math.sqrt(4)


def helper_that_asks(inputs: torch.Tensor) -> torch.Tensor:
    return MODEL(inputs)


def countdown(number: int) -> int:
    return 0 if number == 0 else countdown(number - 1)


class Explanation:
    def __init__(self) -> None:
        self.model = MODEL

    def __call__(self, inputs: torch.Tensor, numbers: dict) -> torch.Tensor:
        return self.model(inputs)


def with_libraries(inputs: torch.Tensor, numbers: dict) -> torch.Tensor:
    import itertools

    from torch.nn import functional

    rows = einops.reduce(rearrange(inputs, "a b -> b a").float(), "b a -> a", "sum")
    total = sum(first for first, _ in itertools.product([1, 2], repeat=2))
    return torch.where(functional.relu(rows) > np.sqrt(4), numbers["high"], START) + total


def test_computes_what_it_did() -> None:
    inputs, numbers = torch.arange(6).view(3, 2), {"high": torch.tensor(7)}
    assert torch.equal(Sealed(with_libraries)(inputs, numbers), with_libraries(inputs, numbers))
    assert Sealed(helper)(3) == helper(3)
    assert Sealed(countdown)(5) == 0
    assert Sealed(lambda x, *, pairs=PAIRS: [x * len(pairs), STRENGTHS[1]])(2) == [4, 0.25]


def test_closures_are_kept() -> None:
    threshold = 3

    def above(number: int) -> bool:
        return number > threshold

    def inner_recursion(number: int) -> int:
        return 0 if above(number) else inner_recursion(number + 1)

    assert Sealed(above)(4) is True
    assert Sealed(inner_recursion)(0) == 0


def by_default(inputs: torch.Tensor, model: nn.Module = MODEL) -> torch.Tensor:
    return model(inputs)


def by_keyword_default(inputs: torch.Tensor, *, model: nn.Module = MODEL) -> torch.Tensor:
    return model(inputs)


def closure_over(value):
    return lambda inputs, numbers: value


def by_attribute(inputs: torch.Tensor, numbers: dict) -> torch.Tensor:
    return by_attribute.model(inputs)


by_attribute.model = MODEL


def nested(inputs: torch.Tensor, numbers: dict) -> list:
    return [(lambda row: MODEL(row))(row) for row in inputs]


def imports_the_package(inputs: torch.Tensor, numbers: dict):
    from exercises_utils.models.loading import load_model

    return load_model("palindromes")


def imports_sys(inputs: torch.Tensor, numbers: dict):
    import sys

    return sys.modules["__main__"].model


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda inputs, numbers: MODEL(inputs), r"uses `MODEL`, a Linear: no model is in scope"),
        (nested, "uses `MODEL`, a Linear"),
        (lambda inputs, numbers: helper_that_asks(inputs), "uses `MODEL`, a Linear"),
        (closure_over(MODEL), "uses `value`, a Linear"),
        (closure_over([1, {"a": (MODEL,)}]), "uses `value`, a Linear"),
        (by_default, "uses a default value, a Linear"),
        (by_keyword_default, "uses the default of `model`, a Linear"),
        (lambda inputs, numbers: HOLDER.model(inputs), "uses `HOLDER`, a SimpleNamespace, from outside"),
        (lambda inputs, numbers: BOUND(inputs), "uses `BOUND`, a method, from outside"),
        (lambda inputs, numbers: ASK(inputs), "uses `ASK`, a partial, from outside"),
        (lambda inputs, numbers: TABLE[inputs], "uses `TABLE`, a Tensor from outside. Put it into `numbers`"),
        (
            lambda inputs, numbers: ARRAY[inputs],
            "uses `ARRAY`, a ndarray from outside. Put it into `numbers`",
        ),
        (closure_over(TABLE.add), "uses `value`, a builtin_function_or_method, from outside"),
        (closure_over(Explanation), "uses `value`, a type, from outside"),
        (closure_over(pytest), "uses `value`, the module pytest, from outside"),
        (Explanation(), "expected a plain function.*got a Explanation"),
        (MODEL, "got a Linear"),
        (MODEL.forward, "got a method"),
        (functools.partial(by_default), "got a partial"),
        (lambda inputs, numbers: globals()["MODEL"], "calls `globals`"),
        (lambda inputs, numbers: eval("MODEL"), "calls `eval`"),
        (lambda inputs, numbers: open("weights"), "calls `open`"),  # noqa: SIM115
    ],
)
def test_refused_before_it_runs(function, message: str) -> None:
    with pytest.raises(SealError, match=message):
        Sealed(function)


@pytest.mark.parametrize(
    ("function", "error"),
    [(imports_the_package, SealError), (imports_sys, SealError), (by_attribute, AttributeError)],
)
def test_refused_when_it_runs(function, error: type[Exception]) -> None:
    with pytest.raises(error):
        Sealed(function)(torch.ones(1, 2), {})


def test_the_function_itself_is_not_changed() -> None:
    before = dict(helper.__globals__)
    Sealed(helper)(1.0)
    assert helper.__globals__ == before
    assert helper(1.0) == 2.5


def test_what_is_written_into_the_code_is_counted() -> None:
    assert Sealed(lambda inputs, numbers: inputs[:, 1] == 3).n_floats == 0
    assert Sealed(lambda inputs, numbers: inputs > 0.5).n_floats == 1
    assert Sealed(lambda inputs, numbers: torch.tensor([0.5, 1.5, 2.5])[inputs]).n_floats == 3
    assert Sealed(lambda inputs, numbers, weights=(0.5, 2.5): weights).n_floats == 2
    assert Sealed(closure_over([0.1] * 7)).n_floats == 7
    assert Sealed(lambda inputs, numbers: STRENGTHS[1]).n_floats == 2
    assert Sealed(lambda inputs, numbers: [row * 0.5 for row in inputs]).n_floats == 1
    assert Sealed(lambda inputs, numbers: helper(1)).n_floats == 1  # the helper's HALF
