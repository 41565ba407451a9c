"""The published figures of the real model. They need the hub: without EXERCISES_NETWORK=1 they are skipped, not passed."""

import os

import pytest
import torch

from exercises_utils.models.loading import load_model

WHY = "needs the Hugging Face hub (1 GB) and 5 GB of memory: set EXERCISES_NETWORK=1"
pytestmark = [
    pytest.mark.network,
    pytest.mark.skipif(os.environ.get("EXERCISES_NETWORK") != "1", reason=WHY),
]
PROMPT = "68067 x 44086 ="
ANSWER = " " + str(68067 * 44086)
# What write-up 004 has: the top guess where each token of the answer is predicted, and its probability; None where
# it gives no figure. The right digits are fed.
PUBLISHED = {0: (" ", 0.8442), 1: ("3", 0.7358), 2: ("1", 0.5488), 9: ("6", 0.2432), 10: ("\n", 0.5330)}
# Wrong digits in the middle: the right one, the guess and its probability.
MIDDLE = {("8", "0", 0.6952), ("7", "2", 0.3317)}
ATOL = 0.005


@pytest.fixture(scope="module")
def model():
    return load_model("llm_multiplication", "qwen2.5-0.5b")


@pytest.fixture(scope="module")
def guesses(model):
    """For each token of the answer: the right token, the top guess, and its probability."""
    prompt, whole = model.to_tokens(PROMPT), model.to_tokens(PROMPT + ANSWER)
    assert whole[:, : prompt.shape[1]].equal(prompt)
    with torch.no_grad():
        probabilities = model(whole)[0, prompt.shape[1] - 1 : -1].float().softmax(-1)
    right = model.to_str_tokens(whole[0, prompt.shape[1] :], prepend_bos=False)
    values, tokens = probabilities.max(-1)
    return [
        (token, model.to_string(top[None]), value)
        for token, top, value in zip(right, tokens, values.tolist(), strict=True)
    ]


def test_the_prompt_has_the_write_up_s_tokens(model):
    tokens = model.to_str_tokens(PROMPT)
    assert tokens == ["<|endoftext|>", *"68067", " x", " ", *"44086", " ="]
    assert len(tokens) == 14
    assert model.to_str_tokens(PROMPT, prepend_bos=False) == tokens[1:]


def test_the_top_guesses_are_those_published(guesses):
    assert [token for token, _, _ in guesses] == list(ANSWER)
    for index, (guess, probability) in PUBLISHED.items():
        assert guesses[index][1] == guess, index
        assert guesses[index][2] == pytest.approx(probability, abs=ATOL), index
    found = {(right, guess, round(value, 4)) for right, guess, value in guesses[3:9]}
    for right, guess, probability in MIDDLE:
        assert any(
            (right, guess) == seen[:2] and seen[2] == pytest.approx(probability, abs=ATOL) for seen in found
        ), (right, guess)


def test_processing_changes_no_probability(model):
    raw = load_model("llm_multiplication", "qwen2.5-0.5b", processed=False)
    tokens = model.to_tokens(PROMPT)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).softmax(-1), raw(tokens).softmax(-1), atol=1e-4, rtol=0)
