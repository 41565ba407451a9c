"""Fast sweeps give the values of one whole forward pass a site, on every architecture of the course."""

import warnings

import pytest
import torch
from torch import Tensor
from transformer_lens import patching as library

from exercises_utils.models.architecture import ModelConfig
from exercises_utils.models.huggingface import random_model
from exercises_utils.models.native import build_model
from exercises_utils.tools.hooks import ablate
from exercises_utils.tools.patching import AT_POSITIONS, OF_HEADS, get_act_patch

WHOLE_PASSES = {
    "resid_pre": library.get_act_patch_resid_pre,
    "attn_out": library.get_act_patch_attn_out,
    "mlp_out": library.get_act_patch_mlp_out,
    "z": library.get_act_patch_attn_head_out_all_pos,
    "q": library.get_act_patch_attn_head_q_all_pos,
    "k": library.get_act_patch_attn_head_k_all_pos,
    "v": library.get_act_patch_attn_head_v_all_pos,
    "pattern": library.get_act_patch_attn_head_pattern_all_pos,
}
ACTIVATIONS = (*AT_POSITIONS, *OF_HEADS)
N_POSITIONS = 9


def qwen(processed: bool = True):
    return random_model(
        n_layers=3, d_model=20, n_heads=6, n_key_value_heads=3, d_head=8, d_mlp=28, processed=processed
    )


def attention_only(normalization="LN"):
    sizes = {"n_layers": 2, "d_model": 20, "n_heads": 3, "d_head": 8, "n_ctx": N_POSITIONS, "d_vocab": 13}
    biases = {} if normalization else {"attention_biases": False}
    return build_model(ModelConfig(**sizes, d_vocab_out=11, normalization=normalization, **biases), seed=1)


def prompts(first: int = 3, n_pairs: int = 4) -> tuple[Tensor, Tensor]:
    """Random prompts, and others that differ at `first`, one pair also later."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(0, 10, (n_pairs, N_POSITIONS), generator=generator)
    corrupted = clean.clone()
    corrupted[:, first] = (corrupted[:, first] + 3) % 10
    corrupted[0, -2] = (corrupted[0, -2] + 1) % 10
    return clean, corrupted


def metric(logits: Tensor) -> Tensor:
    """Nothing that a sweep could know of: every logit counts, and not linearly."""
    weights = torch.linspace(-1, 1, logits.numel()).view(logits.shape)
    return (logits * weights).sum() + logits.pow(2).mean()


def one_by_one(model, clean, corrupted, activation, read, answers=None):
    """The library's sweep: a whole forward pass a site."""
    _, cache = model.run_with_cache(clean)

    def read_metric(logits):
        logits = logits[:, list(read)]
        if answers is not None:
            logits = torch.stack([logits[i][:, row] for i, row in enumerate(answers)])
        return metric(logits)

    with torch.no_grad():
        return WHOLE_PASSES[activation](model, corrupted, cache, read_metric)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("read", [(-1,), (5, 8, 6)])
def test_a_grouped_query_model_with_mlps_gets_the_same_values(activation, read):
    model, (clean, corrupted) = qwen(), prompts()
    found = get_act_patch(model, clean, corrupted, metric, activation, read=read, progress=False)
    expected = one_by_one(model, clean, corrupted, activation, read)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    assert found.std() > 0.01


@pytest.mark.parametrize("normalization", ["LN", None])
@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "mlp_out"])
def test_a_small_model_of_the_course_gets_the_same_values(activation, normalization):
    model, (clean, corrupted) = attention_only(normalization), prompts()
    found = get_act_patch(model, clean, corrupted, metric, activation, read=(4, -1), progress=False)
    torch.testing.assert_close(
        found, one_by_one(model, clean, corrupted, activation, (4, -1)), atol=1e-4, rtol=1e-5
    )


def test_only_the_answers_that_are_asked_for_are_unembedded():
    model, (clean, corrupted) = qwen(), prompts()
    answers = torch.tensor([[1, 2], [3, 4], [9, 0], [7, 7]])
    found = get_act_patch(model, clean, corrupted, metric, "z", read=(6, 7), answers=answers, progress=False)
    torch.testing.assert_close(
        found, one_by_one(model, clean, corrupted, "z", (6, 7), answers), atol=1e-4, rtol=1e-5
    )


def each_row_and_position(logits: Tensor) -> Tensor:
    return logits.pow(2).sum(-1) - logits[..., 0]


@pytest.mark.parametrize("activation", ["attn_out", "k"])
def test_a_metric_may_give_several_numbers(activation):
    model, (clean, corrupted) = qwen(), prompts()
    found = get_act_patch(
        model, clean, corrupted, each_row_and_position, activation, read=(5, 8), progress=False
    )
    _, cache = model.run_with_cache(clean)
    for row, column in ((0, 0), (3, 1)):
        with torch.no_grad():
            expected = WHOLE_PASSES[activation](
                model,
                corrupted,
                cache,
                lambda logits, at=(row, column): each_row_and_position(logits[:, [5, 8]])[at],
            )
        torch.testing.assert_close(found[:, :, row, column], expected, atol=1e-4, rtol=1e-5)


def test_the_library_too_gets_a_metric_of_several_numbers():
    model, (clean, corrupted) = qwen(), prompts()
    fast = get_act_patch(model, clean, corrupted, each_row_and_position, "z", progress=False)
    with (
        ablate(model, [(2, 0)], how="zero"),
        pytest.warns(UserWarning, match="one whole forward pass"),
    ):
        slow = get_act_patch(model, clean, corrupted, each_row_and_position, "z", progress=False)
    assert slow.shape == fast.shape == (3, 6, 4, 1)


def test_unprocessed_weights_are_swept_as_well():
    model, (clean, corrupted) = qwen(processed=False), prompts()
    found = get_act_patch(model, clean, corrupted, metric, "v", progress=False)
    torch.testing.assert_close(found, one_by_one(model, clean, corrupted, "v", (-1,)), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_patching_a_run_with_itself_changes_nothing(activation):
    model, (clean, _) = qwen(), prompts()
    found = get_act_patch(model, clean, clean, metric, activation, progress=False)
    assert (found == found[0, 0]).all()


def test_nothing_is_patched_before_the_first_difference_nor_after_what_is_read():
    model, (clean, corrupted) = qwen(), prompts(first=4)
    found = get_act_patch(model, clean, corrupted, metric, "resid_pre", read=(6,), progress=False)
    assert found.shape == (3, N_POSITIONS)
    untouched = found[:, [0, 1, 2, 3, 7, 8]]
    assert (untouched == untouched[0, 0]).all()
    assert (found[0, 4] - found[0, 0]).abs() > 1e-3


def test_the_model_and_the_gradient_mode_are_left_alone():
    model, (clean, corrupted) = qwen(), prompts()
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    with torch.enable_grad():
        found = get_act_patch(model, clean, corrupted, metric, "resid_pre", progress=False)
        assert torch.is_grad_enabled()
    assert not found.requires_grad
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert not any(hook_point.fwd_hooks for hook_point in model.hook_dict.values())


def test_a_model_with_hooks_on_is_swept_by_the_library_and_that_is_said():
    model, (clean, corrupted) = qwen(), prompts()
    with (
        ablate(model, [(1, 2)], how="zero"),
        pytest.warns(UserWarning, match="one whole forward pass a site"),
    ):
        found = get_act_patch(model, clean, corrupted, metric, "mlp_out", progress=False)
    with ablate(model, [(1, 2)], how="zero"):
        torch.testing.assert_close(found, one_by_one(model, clean, corrupted, "mlp_out", (-1,)))


def test_a_covered_model_is_swept_without_a_warning():
    model, (clean, corrupted) = qwen(), prompts()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        get_act_patch(model, clean, corrupted, metric, "pattern", progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "hook_z"}, "expected one of resid_pre"),
        ({"read": (9,)}, "expected positions of the 9"),
        ({"read": ()}, "expected positions"),
        (
            {"corrupted_tokens": torch.zeros(4, 5, dtype=torch.long)},
            r"\(4, 9\) and corrupted_tokens \(4, 5\)",
        ),
    ],
)
def test_what_cannot_be_swept_is_refused(change, message):
    clean, corrupted = prompts()
    arguments = {
        "clean_tokens": clean,
        "corrupted_tokens": corrupted,
        "metric": metric,
        "activation": "z",
        **change,
    }
    with pytest.raises(ValueError, match=message):
        get_act_patch(qwen(), **arguments)


def test_a_model_without_mlps_has_no_mlp_out():
    with pytest.raises(ValueError, match="no MLPs"):
        get_act_patch(attention_only(), *prompts(), metric, "mlp_out")
