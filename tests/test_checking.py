"""A check refuses wrong answers by name, accepts right ones of any type, and leaves no trace."""

import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exercises_utils.checking import ANYTHING, Case, Check, CheckFailed, CheckList, Fresh, Outcome, Question
from exercises_utils.checking.collect import WRITE_IT
from exercises_utils.models.architecture import ModelConfig
from exercises_utils.models.native import build_model

SIZES = {"the lesson's model": (5, 4, 5), "a random model of width 7": (7, 3, 6)}


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def product(W_V: Tensor, W_O: Tensor) -> Tensor:
    return W_V @ W_O


def product_cases() -> list[Case]:
    cases = []
    for name, (source, inner, destination) in SIZES.items():
        W_V, W_O = numbers(source, inner, seed=1), numbers(inner, destination, seed=2)
        mistakes = {
            "This is W_V alone: multiply it by W_O.": W_V,
            "The biases are added twice.": lambda W_V=W_V, W_O=W_O: W_V @ W_O + W_V.sum() * W_O.sum(0),
        }
        cases.append(Case(name, (W_V, W_O), W_V @ W_O, ("source", "destination"), mistakes))
    return cases


def product_check(**more) -> Check:
    return Check("ov_circuit", "The OV circuit", True, product_cases, product, **more)


def message(answer, check: Check | None = None) -> str:
    outcome = (check or product_check()).run(answer)
    assert outcome.status == "failed", outcome
    return outcome.message


def value_check(expected, axes=None, **more) -> Check:
    return Check("answer", "A value", True, lambda: [Case("the lesson's model", (), expected, axes, **more)])


def tensor_check(expected: Tensor, *axes: str, **more) -> Check:
    return value_check(expected, axes, **more)


# --- right answers, whatever their type ---


@pytest.mark.parametrize(
    "right",
    [
        product,
        lambda a, b: torch.einsum("ij,jk->ik", a, b),
        lambda a, b: a.double() @ b.double(),
        lambda a, b: (a @ b).numpy(),
        lambda a, b: (a @ b).tolist(),
        lambda a, b: nn.Parameter(a @ b),
        lambda a, b: list(a @ b),
        lambda a, b: torch.stack(
            [sum(a[:, i] * b[i, j] for i in range(a.shape[1])) for j in range(b.shape[1])], 1
        ),
        lambda a, b, scale=1.0: scale * a @ b,
        lambda W_V, W_O: product(W_V, W_O) + 1e-6,
    ],
)
def test_a_right_answer_passes_whatever_its_type(right):
    outcome = product_check().run(right if right is not product else lambda W_V, W_O: product(W_V, W_O))
    assert outcome.passed, outcome
    assert outcome.message == "Right in all 2 cases."


@pytest.mark.parametrize(
    ("expected", "answers"),
    [
        (0.5, [0.5, torch.tensor(0.5), np.float32(0.5), torch.tensor(0.5, requires_grad=True), 0.50001]),
        (3.0, [3, 3.0, torch.tensor(3)]),
        (7, [7, torch.tensor(7), np.int64(7), 7.0, torch.tensor(7.0)]),
        (True, [True, np.bool_(True), torch.tensor(True)]),
        ((0, 1), [(0, 1), [0, 1], torch.tensor([0, 1]), np.array([0, 1]), (torch.tensor(0), 1)]),
        ([3, 10], [[3, 10], (3, 10), torch.tensor([3, 10])]),
        (
            {(0, 1), (1, 0)},
            [{(0, 1), (1, 0)}, [(1, 0), (0, 1)], [[1, 0], [0, 1]], torch.tensor([[0, 1], [1, 0]])],
        ),
        ("W_O", ["W_O", " W_O "]),
        (torch.tensor([1.0, 2.0]), [[1, 2], (1.0, 2.0), np.array([1.0, 2.0]), [torch.tensor(1.0), 2.0]]),
        (torch.tensor([True, False]), [[True, False], np.array([True, False])]),
        (torch.tensor([1, 2]), [torch.tensor([1, 2], dtype=torch.int32), torch.tensor([1.0, 2.0])]),
        (torch.tensor(2.5), [2.5, torch.tensor(2.5)]),
        ({"a": 1.0}, [{"a": 1.0}, {"a": torch.tensor(1.0)}]),
    ],
)
def test_a_value_is_accepted_in_every_harmless_type(expected, answers):
    axes = tuple("xyz"[: expected.ndim]) if isinstance(expected, Tensor) else None
    for answer in answers:
        outcome = value_check(expected, axes).run(answer)
        assert outcome.passed, (answer, outcome)


def test_tolerance_follows_the_size_of_the_expected_numbers():
    small = tensor_check(torch.tensor([1e-6, 2e-6]), "x")
    assert small.run(torch.tensor([1e-6, 2e-6]) * (1 + 1e-5)).passed
    assert not small.run(torch.tensor([1.01e-6, 2e-6])).passed
    large = tensor_check(torch.tensor([0.0, 1e4]), "x")
    assert large.run(torch.tensor([0.05, 1e4])).passed, "float noise of a sum of large numbers"
    assert not large.run(torch.tensor([5.0, 1e4])).passed
    assert tensor_check(torch.tensor([1.0, 2.0]), "x", atol=0.1).run([1.05, 2.0]).passed
    assert tensor_check(torch.tensor([1.0, 2.0]), "x", rtol=0.1).run([1.0, 2.1]).passed


def test_masked_scores_compare_with_their_infinities():
    scores = numbers(4, 4).masked_fill(torch.ones(4, 4).triu(1).bool(), -torch.inf)
    check = tensor_check(scores, "query", "key")
    assert check.run(scores.clone()).passed
    assert "is the mask missing" in message(numbers(4, 4), check)
    assert "1/2" in message(scores / 2, check), "a factor is found beside the mask"
    assert "infinite" in message(scores, tensor_check(numbers(4, 4), "query", "key"))


# --- not attempted ---


def stub(W_V, W_O):
    """The docstring of a stub."""
    raise NotImplementedError


def blank(W_V, W_O):
    """Only a docstring."""


def dots(W_V, W_O): ...


def says_what_to_do(W_V, W_O):
    W_V = W_V.clone()
    raise NotImplementedError("write me")


@pytest.mark.parametrize(
    "answer", [stub, blank, dots, says_what_to_do, None, ..., NotImplemented, (None, None)]
)
def test_a_stub_is_not_attempted(answer):
    assert product_check().run(answer).status == "not attempted"


def test_a_stub_that_an_answer_calls_is_named():
    outcome = product_check().run(lambda W_V, W_O: 2 * stub(W_V, W_O))
    assert outcome.status == "not attempted"
    assert "`stub`, which is still to be written" in outcome.message


def test_a_library_that_lacks_something_is_an_error_and_no_stub():
    def unsupported(W_V, W_O):
        return nn.Module()(W_V)  # torch itself raises NotImplementedError here

    assert "NotImplementedError" in message(unsupported)


def test_a_forgotten_return_is_no_stub():
    def forgets(W_V, W_O):
        W_V @ W_O

    assert "is a `return` missing" in message(forgets)


# --- what is said about wrong answers ---


def test_a_named_mistake_is_named():
    assert message(lambda W_V, W_O: W_V) == "This is W_V alone: multiply it by W_O."


def test_a_mistake_can_be_computed_when_it_is_needed():
    assert message(lambda a, b: a @ b + a.sum() * b.sum(0)) == "The biases are added twice."


def test_a_mistake_has_to_explain_every_case():
    def sometimes(W_V, W_O):
        return W_V if W_V.shape[0] == 5 else 3 * W_V @ W_O

    assert "W_V alone" not in message(sometimes)


def test_a_mistake_that_changes_nothing_in_one_case_is_still_named():
    def cases():
        mistake = {"You forgot the bias.": None}
        for name, bias in {"no bias": 0.0, "a bias": 1.0}.items():
            x = numbers(3, seed=int(bias))
            yield Case(name, (x, bias), 2 * x + bias, ("x",), dict.fromkeys(mistake, 2 * x))

    check = Check("affine", "Affine", True, lambda: list(cases()))
    assert message(lambda x, bias: 2 * x, check) == "You forgot the bias."
    assert check.run(lambda x, bias: 2 * x + bias).passed


@pytest.mark.parametrize(
    ("wrong", "fragment"),
    [
        (lambda a, b: (a @ b).T, "did you return the transpose"),
        (lambda a, b: a @ b if len(a) == 5 else (a @ b).T, "transpose? This is on a random model of width 7"),
        (lambda a, b: (a @ b)[None], "Axis 0, of length 1, is one too many"),
        (lambda a, b: torch.stack([a @ b, a @ b]), "Axis 0, of length 2, is one too many"),
        (lambda a, b: (a @ b).sum(1), "the sum over `destination`"),
        (lambda a, b: (a @ b).mean(0), "the mean over `source`"),
        (lambda a, b: (a @ b).median(1, keepdim=True)[0], "`destination` has length 1"),
        (lambda a, b: torch.cat([a @ b, torch.zeros(2, b.shape[1])]), "`source` has 2 too many"),
        (lambda a, b: (a @ b)[:-1], "The last `source` is missing"),
        (lambda a, b: (a @ b)[[0, 0, 1]], "too few"),
        (lambda a, b: (a @ b).flatten(), "reshape"),
        (lambda a, b: -a @ b, "opposite sign"),
        (lambda a, b: 2 * a @ b, "2 times the expected one"),
        (lambda a, b: a @ b / 14**0.5, "1/sqrt(14)"),
        (lambda a, b: a @ b * 14**0.5, "sqrt(14): is a division by it missing"),
        (lambda a, b: a @ b / 10, "is a mean taken where a sum is asked for"),
        (lambda a, b: a @ b * 1.2345, "1.235 times"),
        (lambda a, b: a @ b + 0.25, "0.25 too large"),
        (lambda a, b: a @ b - 0.25, "0.25 too small"),
        (lambda a, b: a @ b + a[:, :1], "each `source` is off by its own constant"),
        (lambda a, b: (a @ b) * (1 + a[:, :1] ** 2), "each `source` has a scale of its own"),
        (lambda a, b: (a @ b).roll(1, 0), "one place too far along `source`"),
        (lambda a, b: (a @ b).roll(-1, 1), "one place too early along `destination`"),
        (lambda a, b: (a @ b).flip(1), "reverse order along `destination`"),
        (lambda a, b: (a @ b).abs(), "absolute value"),
        (lambda a, b: (a @ b).exp(), "exponentials"),
        (lambda a, b: (a @ b) / 0 * 0, "NaN"),
        (lambda a, b: (a @ b) / 0, "infinite"),
        (lambda a, b: (a @ b).index_fill(1, torch.tensor([2]), 9.0), "Right except at `destination` 2"),
        (lambda a, b: (a @ b) * (torch.arange(len(a)) == 1)[:, None], "Wrong except at `source` 1"),
        (lambda a, b: (a @ b).bfloat16(), "compute in float32"),
        (lambda a, b: (a @ b).to(torch.complex64), "complex"),
        (lambda a, b: (a @ b)[0, 0].item(), "One number came: was everything summed"),
        (lambda a, b: "W_O", "the text 'W_O' came"),
        (lambda a, b: product, "Are brackets missing"),
        (lambda a, b: (a @ b, a), "a list of 2 items came"),
        (lambda a, b: (row for row in a @ b), "Collect its items"),
        (lambda a, b: torch.ones(5, 5), "the same answer in every case"),
    ],
)
def test_the_likely_cause_is_named(wrong, fragment):
    assert fragment in message(wrong)


def test_a_message_says_how_far_off_and_where():
    expected = numbers(6, 6)
    value = expected.clone()
    value.view(-1)[15::2] += numbers(11, seed=5)
    text = message(value, tensor_check(expected, "query", "key"))
    assert f"At `query` 2, `key` 3: expected {expected[2, 3]:.4g}, got {value[2, 3]:.4g}" in text


OF_THE_NOTEBOOK = torch.ones(5, 5)


def test_where_an_answer_is_right_only_on_the_lesson_s_model_its_code_is_looked_at():
    def hard_coded(W_V, W_O):
        out = W_V @ W_O
        return out if len(out) == 5 else out + numbers(7, 6, seed=9) * OF_THE_NOTEBOOK[0, 0]

    text = message(hard_coded)
    assert "on a random model of width 7; right on the lesson's model" in text
    assert "Your function reads `OF_THE_NOTEBOOK` from the notebook, not from its arguments." in text
    assert "In its code stands 5 and 6 and 7 and 9." in text
    assert "notebook" not in message(lambda W_V, W_O: hard_coded(W_V, W_O) + numbers(5, 5)[: len(W_V)])


def softmax_cases() -> list[Case]:
    return [
        Case(f"scores {seed}", (scores := numbers(4, 5, seed=seed),), scores.softmax(1), ("query", "key"))
        for seed in (0, 1)
    ]


@pytest.mark.parametrize(
    ("wrong", "fragment"),
    [
        (lambda s: s, "A softmax over `key` is missing"),
        (lambda s: s.masked_fill(s == -torch.inf, 0) * 1.0, "A softmax over `key` is missing"),
        (lambda s: s.log_softmax(1), "logarithms"),
        (lambda s: s.exp(), "scale of its own"),
        (lambda s: torch.nn.functional.one_hot(s.argmax(1), 5).float(), "Only the largest along `key`"),
        (lambda s: s.softmax(0), "numbers are wrong"),
    ],
)
def test_confusions_of_probabilities_are_named(wrong, fragment):
    assert fragment in message(wrong, Check("pattern", "Pattern", True, softmax_cases))


def test_triangles_and_diagonals_are_seen():
    expected = numbers(5, 5).tril()
    check = tensor_check(expected, "query", "key")
    assert "`key` after `query` are wrong" in message(numbers(5, 5), check)
    assert "Only the diagonal" in message(expected + torch.eye(5) * torch.arange(1, 6), check)


def test_an_argument_that_is_never_used_is_named():
    def cases():
        x = numbers(3, 4)
        named = {"axes": ("width",), "parameters": ("x", "head")}
        return [Case(f"head {h}", (x, h), x[h], **named) for h in (0, 1, 2)]

    check = Check("head_of", "A head", True, cases, lambda x, head: x[head])
    assert "the same answer in every case" in message(lambda x, head: x[1], check)
    assert "another `head`" in message(lambda x, head: x[min(head, 1)], check)


def test_numbers_of_several_cases_are_explained_together():
    def cases():
        return [Case(f"case {n}", (n,), 1.5 * n) for n in (1, 2, 4)]

    check = Check("score", "Score", True, cases)
    assert "opposite sign" in message(lambda n: -1.5 * n, check)
    assert "is a mean taken" in message(lambda n: 0.15 * n, check)
    assert "1 too large" in message(lambda n: 1.5 * n + 1, check)
    assert "expected 1.5, got 1" in message(lambda n: float(n * n), check).lower()


@pytest.mark.parametrize(
    ("expected", "axes", "wrong", "fragment"),
    [
        ((0, 1), ("layer", "head"), (1, 0), "reverse order; the order asked for is the other: (layer, head)"),
        ((0, 1), ("layer", "head"), (0, 0), "`head` is wrong; the rest is right"),
        ((0, 1), ("layer", "head"), 1, "Expected a tuple (layer, head); the whole number 1 came"),
        ((0, 1), ("layer", "head"), (0, 1, 2), "a tuple of 3 items came"),
        ((0, 1), ("layer", "head"), ("0", "1"), "In `layer`: Expected one whole number; the text '0' came"),
        ((1, 1), None, (0, 0), "(0, 0) is not it"),
        (0.75, None, 0.5, "0.5 is too small"),
        (0.75, None, -0.75, "opposite sign"),
        (0.75, None, float("nan"), "NaN"),
        (0.75, None, torch.tensor([0.75]), "`.item()`"),
        (0.75, None, True, "Expected one number; `True` came"),
        (3, None, 3.5, "Expected one whole number; the number 3.5 came"),
        (3, None, 4, "4 is not it"),
        (True, None, False, "False is not it"),
        (True, None, 1, "Expected True or False"),
        ("W_O", None, "w_o", "capital letters"),
        ("W_O", None, "W_V", "'W_V' is not it"),
        ({(0, 1), (1, 1)}, None, [(0, 1)], "0 of your 1 items do not belong; 1 are missing"),
        ({"a": 1.0, "b": 2.0}, None, {"a": 1.0}, "The key 'b' is missing"),
        ({"a": 1.0}, None, {"a": 1.0, "c": 1}, "The key 'c' is not asked for"),
        ({"a": 1.0, "b": 2.0}, None, {"a": 1.0, "b": 3.0}, "Wrong at the key 'b'"),
        (
            (torch.ones(2), 1),
            ("scores", "n"),
            (torch.ones(3), 1),
            "In `scores`: Expected shape (2,), got (3,)",
        ),
        (torch.tensor([True, False]), ("x",), torch.tensor([1, 0]), "use `.bool()`"),
    ],
)
def test_wrong_values_are_explained_without_the_right_one(expected, axes, wrong, fragment):
    text = message(wrong, value_check(expected, axes))
    assert fragment in text
    if isinstance(expected, float):
        assert str(expected) not in text.replace(str(wrong), "")


def test_a_tensor_among_other_values_is_explained():
    check = value_check({"mean": torch.tensor([1.0, 2.0, 4.0]), "n": 3})
    assert "In `mean`: Every number has the opposite sign" in message(
        {"mean": -torch.tensor([1.0, 2, 4]), "n": 3}, check
    )


def test_several_right_answers_are_judged_by_a_property():
    def is_palindrome(tokens: Tensor) -> str | None:
        return None if (tokens == tokens.flip(0)).all() else f"{tokens.tolist()} is no palindrome."

    case = Case(
        "your tokens", expected=torch.zeros(4, dtype=torch.long), axes=("position",), requires=is_palindrome
    )
    check = Check("palindrome", "Write one", True, lambda: [case])
    assert check.run([1, 2, 2, 1]).passed
    assert check.run(torch.tensor([5, 5, 5, 5])).passed
    assert message([1, 2, 3, 4], check) == "[1, 2, 3, 4] is no palindrome."
    assert "`position` has 1 too few" in message([1, 2, 1], check)
    free = Check("any", "Any", True, lambda: [Case("x", requires=lambda value: None if value else "Empty.")])
    assert free.run("text").passed
    assert message([], free) == "Empty."
    assert "an object of type `object` came" in message(object(), free)


def test_a_case_must_be_able_to_refuse():
    with pytest.raises(ValueError, match="anything would pass"):
        Case("empty")


# --- errors of the learner, errors of the course ---


def test_an_error_comes_with_its_message_its_line_and_its_case():
    def raises(W_V, W_O):
        if W_V.shape[0] == 7:
            return torch.einsum("ij,kl,l->ik", W_V, W_O)
        return W_V @ W_O

    text = message(raises)
    assert "RuntimeError: einsum()" in text
    assert 'return torch.einsum("ij,kl,l->ik", W_V, W_O)' in text
    assert "This is on a random model of width 7; right on the lesson's model. In its code stands 7." in text


def test_an_earlier_wrong_value_is_told_before_a_later_error():
    def raises_later(W_V, W_O):
        return -W_V @ W_O if W_V.shape[0] == 5 else 1 / 0

    assert "opposite sign" in message(raises_later)


@pytest.mark.parametrize(
    "error", [SystemExit(1), RecursionError("deep"), MemoryError(), AssertionError("no")]
)
def test_no_error_of_an_answer_escapes(error):
    def raises(W_V, W_O):
        raise error

    assert type(error).__name__ in message(raises)


def test_an_interrupt_goes_through_and_leaves_the_state():
    def interrupted(W_V, W_O):
        torch.manual_seed(5)
        raise KeyboardInterrupt

    before = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        product_check().run(interrupted)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()


def test_an_error_of_the_course_is_not_the_learner_s():
    def broken():
        raise FileNotFoundError("seed0.safetensors")

    outcome = Check("broken", "Broken", True, broken).run(product)
    assert outcome.status == "could not be checked"
    assert "seed0.safetensors" in outcome.message
    assert "not to blame" in outcome.message
    no_model = Check("m", "M", True, lambda: [Case("a model", (Fresh(lambda: 1 / 0),), 1)])
    assert no_model.run(lambda model: 1).status == "could not be checked"


@pytest.mark.parametrize(
    ("wrong", "fragment"),
    [
        (lambda W_V: W_V, "takes (W_V); it must take (W_V, W_O)"),
        (lambda W_V, W_O, model: W_V, "takes (W_V, W_O, model); it must take (W_V, W_O)"),
        (lambda W_O, W_V: W_V @ W_O, "takes (W_O, W_V); the order must be (W_V, W_O)"),
        (numbers(5, 5), "Pass the function itself"),
        ("b", "Pass the function itself"),
    ],
)
def test_a_wrong_signature_is_named(wrong, fragment):
    assert fragment in message(wrong)


# --- side effects ---

CONFIG = ModelConfig(n_layers=2, d_model=12, n_heads=2, d_head=4, n_ctx=6, d_vocab=9, d_vocab_out=2)


def model_check(model: Fresh) -> Check:
    tokens = torch.arange(6)[None]

    def cases():
        with torch.no_grad():
            return [
                Case("a random model", (model, tokens), model.get()(tokens), ("batch", "position", "label"))
            ]

    return Check("logits", "Logits", True, cases, lambda model, tokens: model(tokens))


@pytest.fixture(scope="module")
def model() -> Fresh:
    return Fresh(lambda: build_model(CONFIG, seed=3, device="cpu"))


def edits_weights(model, tokens):
    logits = model(tokens)
    model.blocks[0].attn.W_Q.data.mul_(1.01)
    return logits


def edits_embedding(model, tokens):
    logits = model(tokens)
    with torch.no_grad():
        model.W_E[3] += 1
    return logits


def leaves_a_hook(model, tokens):
    logits = model(tokens)
    model.add_hook("blocks.1.attn.hook_z", lambda z, hook: z)
    return logits


def leaves_a_torch_hook(model, tokens):
    logits = model(tokens)
    model.blocks[0].register_forward_hook(lambda *arguments: None)
    return logits


def trains(model, tokens):
    logits = model(tokens)
    model.train()
    return logits


def asks_for_gradients(model, tokens):
    model.requires_grad_(True)
    return model(tokens).detach()


def leaves_a_setting(model, tokens):
    logits = model(tokens)
    model.cfg.eps = 1.0
    return logits


def edits_tokens(model, tokens):
    logits = model(tokens)
    tokens[0, 0] = 8
    return logits


@pytest.mark.parametrize(
    ("answer", "fragment"),
    [
        (edits_weights, "changes the model's weights (`blocks.0.attn.q.weight`)"),
        (edits_embedding, "changes the model's weights (`embed.weight`)"),
        (leaves_a_hook, "leaves a hook on the model"),
        (leaves_a_torch_hook, "leaves a hook on the model (at `blocks.0`"),
        (trains, "leaves the model in another mode"),
        (asks_for_gradients, "leaves a setting of the model changed"),
        (leaves_a_setting, "leaves a setting of the model changed (`cfg.eps`)"),
        (edits_tokens, "changes its argument `tokens` in place"),
    ],
)
def test_a_side_effect_is_refused_and_the_next_answer_gets_a_clean_model(model, answer, fragment):
    check = model_check(model)
    assert fragment in message(answer, check)
    assert fragment in message(answer, check), "the second run is on a clean model as well"
    assert check.run(lambda model, tokens: model(tokens)).passed


def test_an_unchanged_model_is_used_again(model):
    check = model_check(model)
    seen = []
    for _ in range(2):
        assert check.run(lambda model, tokens: seen.append(model) or model(tokens)).passed
    assert seen[0] is seen[1]


def test_hooks_that_are_taken_off_again_are_fine(model):
    def with_hooks(model, tokens):
        model.run_with_cache(tokens)
        with model.hooks([("blocks.0.attn.hook_pattern", lambda pattern, hook: pattern)]):
            return model(tokens)

    assert model_check(model).run(with_hooks).passed


def test_an_answer_may_ask_for_gradients(model):
    def with_gradients(model, tokens):
        with torch.enable_grad():
            return model(tokens)

    assert model_check(model).run(with_gradients).passed


def test_changed_arrays_dataclasses_and_dicts_are_seen():
    data = {"tokens": torch.zeros(3), "names": ["a"]}
    check = Check("d", "D", True, lambda: [Case("a dict", (data, np.zeros(2)), 1)])

    def edits_dict(data, array):
        data["tokens"][0] = 1
        return 1

    def edits_list(data, array):
        data["names"].append("b")
        return 1

    def edits_array(data, array):
        array += 1
        return 1

    assert "`data` in place" in message(edits_dict, check)
    assert "`data` in place" in message(edits_list, check)
    assert "`array` in place" in message(edits_array, check)
    assert check.run(lambda data, array: 1).passed


def test_a_row_of_a_transposed_matrix_can_be_an_argument():
    row = numbers(1, 5).T[2:3]  # one number, with a stride of 5
    check = Check("same", "Same", True, lambda: [Case("a row", (row,), row, ("x", "y"))], lambda x: x)
    assert check.run(lambda x: x + 0).passed


def test_a_model_that_is_not_wrapped_is_the_course_s_mistake():
    check = Check("m", "M", True, lambda: [Case("a model", (nn.Linear(2, 2),), 1)])
    outcome = check.run(lambda model: 1)
    assert outcome.status == "could not be checked"
    assert "Fresh" in outcome.message


def meddles(W_V, W_O):
    torch.manual_seed(0)
    torch.rand(3)
    np.random.rand(3)  # noqa: NPY002
    random.random()
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float64)
    return (W_V @ W_O).float()


def leaves_gradients_on(W_V, W_O):
    torch.set_grad_enabled(True)
    return W_V @ W_O


def leaves_gradients_off(W_V, W_O):
    torch.set_grad_enabled(False)
    return W_V @ W_O


def leaves_the_dtype(W_V, W_O):
    torch.set_default_dtype(torch.float64)
    return W_V @ W_O


def puts_them_back(W_V, W_O):
    with torch.set_grad_enabled(True), torch.no_grad():
        return W_V @ W_O


@pytest.mark.parametrize(
    ("answer", "fragment"),
    [
        (leaves_gradients_on, "leaves gradients switched on"),
        (leaves_gradients_off, "leaves gradients switched off"),
        (leaves_the_dtype, "leaves the default dtype changed, to float64"),
    ],
)
def test_what_is_left_changed_in_the_process_is_said(answer, fragment):
    assert fragment in message(answer)
    assert product_check().run(puts_them_back).passed


@pytest.mark.parametrize("enabled", [True, False])
def test_random_state_grad_mode_and_dtype_are_left_alone(enabled):
    with torch.set_grad_enabled(enabled):
        before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
        assert "leaves" in message(meddles)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
        assert torch.is_grad_enabled() is enabled
        assert torch.get_default_dtype() is torch.float32


def test_an_answer_that_draws_random_numbers_gets_the_same_ones_each_time():
    check = tensor_check(torch.zeros(3), "x")
    noisy = lambda: torch.rand(3) + torch.from_numpy(np.random.rand(3)) + random.random()  # noqa: E731, NPY002
    assert check.run(noisy) == check.run(noisy)


# --- two halves ---


def test_the_halves_run_apart_and_only_plain_values_pass_between_them():
    outputs = product_check().collect(lambda W_V, W_O: nn.Parameter(W_V @ W_O))
    assert type(outputs[0].value) is Tensor
    assert not outputs[0].value.requires_grad
    assert product_check().judge(pickle.loads(pickle.dumps(outputs))).passed
    errors = product_check().collect(lambda W_V, W_O: 1 / 0)
    assert "ZeroDivisionError" in product_check().judge(pickle.loads(pickle.dumps(errors))).message


def test_outputs_of_other_cases_are_not_judged():
    check = product_check()
    outputs = check.collect(lambda W_V, W_O: W_V @ W_O)
    for wrong in ([], outputs[:1], outputs[::-1], [*outputs, outputs[0]]):
        with pytest.raises(ValueError, match="outputs"):
            check.judge(wrong)


def test_an_object_with_a_will_of_its_own_is_refused():
    class AlwaysEqual:
        def __eq__(self, other):
            return True

        __hash__ = None

    assert "an object of type `AlwaysEqual` came" in message(lambda W_V, W_O: AlwaysEqual())
    assert "an object of type `AlwaysEqual` came" in message(AlwaysEqual(), value_check(3))


# --- in a notebook ---


def test_a_check_prints_one_line_and_the_progress_and_returns_nothing(capsys):
    lesson = CheckList("03 palindromes")
    check = lesson.add(product_check())
    lesson.add(value_check((0, 1)))
    assert check(lambda W_V, W_O: -W_V @ W_O) is None
    assert capsys.readouterr().out == (
        "✗ failed: `ov_circuit`. Every number has the opposite sign.\n"
        "0 of 2 solved (core 0 of 2). Next: `ov_circuit`.\n"
    )
    check(lambda W_V, W_O: W_V @ W_O)
    assert capsys.readouterr().out == (
        "✓ passed: `ov_circuit`. Right in all 2 cases.\n1 of 2 solved (core 1 of 2). Next: `answer`.\n"
    )


def test_strict_mode_raises_for_everything_but_passed(monkeypatch, capsys):
    monkeypatch.setenv("EXERCISES_STRICT", "1")
    check = product_check()
    check(lambda W_V, W_O: W_V @ W_O)
    for answer in (stub, lambda W_V, W_O: W_V):
        with pytest.raises(CheckFailed, match="ov_circuit"):
            check(answer)
    with pytest.raises(CheckFailed, match="could not be checked"):
        Check("broken", "Broken", True, lambda: 1 / 0)(1)


def test_outcomes_go_to_a_file(monkeypatch, tmp_path, capsys):
    path = tmp_path / "outcomes.jsonl"
    monkeypatch.setenv("EXERCISES_OUTCOMES", str(path))
    product_check()(stub)
    value_check((0, 1))((0, 1))
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert lines == [
        {"exercise": "ov_circuit", "status": "not attempted", "message": WRITE_IT},
        {"exercise": "answer", "status": "passed", "message": ""},
    ]


def test_a_file_that_cannot_be_written_is_reported_and_nothing_more(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("EXERCISES_OUTCOMES", str(tmp_path / "no" / "such" / "folder"))
    value_check(1)(1)
    output = capsys.readouterr()
    assert "could not be written" in output.err
    assert "✓ passed" in output.out


def test_working_gives_the_learner_s_answer_if_it_is_right(capsys):
    check = product_check()

    def right(W_V, W_O):
        return W_V @ W_O

    assert check.working(right) is right
    assert capsys.readouterr().out == ""
    assert value_check((0, 1)).working([0, 1]) == [0, 1]


def test_working_gives_the_course_s_answer_otherwise(capsys):
    check = product_check()
    function = check.working(stub)
    assert (
        capsys.readouterr().out
        == "`ov_circuit`: from here on with the course's version (yours: not attempted).\n"
    )
    assert torch.equal(function(torch.eye(2), torch.ones(2, 2)), torch.ones(2, 2))
    assert function.__name__ == "product"
    assert value_check((0, 1)).working(None) == (0, 1)
    computed = Check("best", "Best", True, lambda: [Case("x", expected=3)], reference=lambda: 3)
    assert computed.working(4) == 3


def test_working_does_not_judge_again_what_was_just_judged(capsys):
    calls = []

    def right(W_V, W_O):
        calls.append(1)
        return W_V @ W_O

    check = product_check()
    check(right)
    assert check.working(right) is right
    assert len(calls) == len(SIZES)


def test_the_course_s_function_is_not_an_answer():
    check = product_check()
    for answer in (check.course_version(), product):
        outcome = check.run(answer)
        assert outcome.status == "not attempted"
        assert "the course's own function" in outcome.message


def test_working_without_a_reference_says_so():
    check = Check("x", "X", True, lambda: [Case("x", (1,), 1), Case("y", (2,), 2)])
    with pytest.raises(ValueError, match="no reference"):
        check.working(None)


# --- questions ---

OPTIONS = {
    "a": ("The position", "Positions alone are the same for every sequence."),
    "b": ("The token", "The pattern follows the tokens."),
    "c": ("Both", "Shuffling the positions changes nothing."),
}


@pytest.mark.parametrize("answer", ["b", "B", " b ", "(b)", "b.", "b)"])
def test_a_question_takes_its_letter_in_any_dress(answer):
    outcome = Question("which", "Which", True, OPTIONS, "b").run(answer)
    assert outcome.passed
    assert outcome.message == "(b) The pattern follows the tokens."


@pytest.mark.parametrize("answer", ["z", "ab", 2, ["b"], True, len, b"b"])
def test_a_question_refuses_what_is_no_option(answer):
    text = message(answer, Question("which", "Which", True, OPTIONS, "b"))
    assert text.startswith("Choose one of the letters 'a', 'b', 'c', in quotes")


def test_each_distractor_has_its_own_message():
    question = Question("which", "Which", True, OPTIONS, lambda: "b")
    assert message("a", question) == "(a) The position: Positions alone are the same for every sequence."
    assert message("c", question) == "(c) Both: Shuffling the positions changes nothing."
    for blank_answer in ("", " ", None, ...):
        assert question.run(blank_answer).status == "not attempted"
    assert question.working(None) == "b"


def test_a_question_without_its_answer_is_the_course_s_mistake():
    assert Question("which", "Which", True, OPTIONS, "d").run("a").status == "could not be checked"


# --- the look in Jupyter ---


def test_in_a_kernel_the_line_is_html_and_the_same_text(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    from nbclient import NotebookClient

    source = (
        "from exercises_utils.checking import *\n"
        "check = Check('answer', 'A <value>', True, lambda: [Case('x', expected=3)])\n"
        "check(4)\ncheck(3)"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    failed, passed = [output["data"] for output in notebook.cells[0].outputs]
    assert failed["text/plain"] == "✗ failed: `answer`. 4 is not it."
    assert passed["text/plain"] == "✓ passed: `answer`."
    assert "--jp-error-color1" in failed["text/html"]
    assert "<code>answer</code>. 4 is not it." in failed["text/html"]


def test_a_check_is_the_same_in_another_process():
    # There also Python's own random state can be compared; here beartype draws from it.
    code = (
        "import random; from tests.test_checking import meddles, product_check\n"
        "before = random.getstate()\n"
        "print(product_check().run(lambda W_V, W_O: meddles(W_V, W_O) * 1.5))\n"
        "assert random.getstate() == before"
    )
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[1]), PYTHONIOENCODING="utf-8")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=True)
    assert done.stdout.strip() == str(product_check().run(lambda W_V, W_O: meddles(W_V, W_O) * 1.5))


def test_anything_is_readable():
    assert repr(ANYTHING) == "ANYTHING"
    assert str(Outcome("x", "passed", "")) == "✓ passed: `x`."
