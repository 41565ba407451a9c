"""Circuits read from weights, held against the model's own activations."""

import pytest
import torch

from exercises_utils.models.architecture import ModelConfig
from exercises_utils.models.native import build_model
from exercises_utils.tools import circuits

SHAPES = {
    "LayerNorm": ModelConfig(n_layers=2, n_heads=3, d_model=20, d_head=6, n_ctx=9, d_vocab=11, d_vocab_out=4),
    "no LayerNorm, no biases": ModelConfig(
        n_layers=1,
        n_heads=2,
        d_model=12,
        d_head=12,
        n_ctx=7,
        d_vocab=9,
        d_vocab_out=9,
        normalization=None,
        attention_biases=False,
        unembed_bias=False,
    ),
}


@pytest.fixture(scope="module", params=SHAPES, ids=list(SHAPES))
def model(request):
    return build_model(SHAPES[request.param], seed=3, device="cpu")


@pytest.fixture(scope="module")
def cache(model):
    tokens = torch.randint(
        model.cfg.d_vocab, (5, model.cfg.n_ctx), generator=torch.Generator().manual_seed(0)
    )
    return model.run_with_cache(tokens)[1]


def test_qk_scores_and_biases_are_the_models_scores(model, cache):
    head = (model.cfg.n_layers - 1, 1)
    layer, index = head
    resid = cache["resid_pre", layer][2]
    has_norm = model.cfg.normalization_type == "LN"
    scale = cache["scale", layer, "ln1"][2] if has_norm else torch.ones(len(resid), 1)
    normed = resid / scale
    scores = circuits.qk_scores(model, head, normed, normed)
    if has_norm:
        q = normed @ model.W_Q[head]
        k = normed @ model.W_K[head]
        b_Q, b_K = model.b_Q[head], model.b_K[head]
        scores = scores + ((q @ b_K)[:, None] + (k @ b_Q)[None] + b_Q @ b_K) / model.cfg.d_head**0.5
    truth = cache["attn_scores", layer][2, index]
    earlier = torch.ones_like(truth).tril().bool()
    assert torch.allclose(scores[earlier], truth[earlier], atol=1e-4)
    assert torch.allclose(circuits.causal(scores).softmax(-1), cache["pattern", layer][2, index], atol=1e-4)


def test_the_scale_divides_both_sides(model):
    rows = model.W_E
    assert torch.allclose(
        circuits.qk_scores(model, (0, 1), rows, rows, scale=2.0),
        circuits.qk_scores(model, (0, 1), rows / 2, rows / 2),
        atol=1e-6,
    )


def test_ov_output_is_what_a_head_writes_when_it_attends_to_one_place(model, cache):
    layer, index = 0, 1
    resid = cache["resid_pre", layer][2]
    has_norm = model.cfg.normalization_type == "LN"
    scale = cache["scale", layer, "ln1"][2] if has_norm else torch.ones(len(resid), 1)
    written = cache["pattern", layer][2, index] @ circuits.ov_output(model, (layer, index), resid / scale)
    assert torch.allclose(written, cache["result", layer][2, :, index], atol=1e-4)


def test_causal_hides_what_comes_later():
    masked = circuits.causal(torch.zeros(2, 3, 3))
    assert torch.equal(masked.isinf(), torch.ones(3, 3).triu(1).bool().expand(2, 3, 3))


@pytest.mark.parametrize("position", [-1, 2])
def test_the_components_add_up_to_the_residual_stream(position):
    model = build_model(SHAPES["LayerNorm"], seed=3, device="cpu")
    tokens = torch.randint(11, (5, 9), generator=torch.Generator().manual_seed(0))
    _, cache = model.run_with_cache(tokens)
    components, labels = circuits.residual_components(cache, position)
    assert labels == ["embed", "pos_embed", "0.0", "0.1", "0.2", "1.0", "1.1", "1.2", "b_O"]
    assert components.shape == (9, 5, 20)
    assert (components.sum(0) - cache["resid_post", 1][:, position]).abs().max() < 1e-4


def test_random_composition_scores_depend_on_shape_and_seed_only():
    scores = circuits.random_composition_scores(28, 14, n=300, seed=0)
    assert torch.equal(scores, circuits.random_composition_scores(28, 14, n=300, seed=0))
    assert abs(scores.mean() - 28**-0.5) < 0.02  # independent Gaussian matrices: about 1 / sqrt(d_model)
    left, right = torch.randn(2, 4, 28, 14, generator=torch.Generator().manual_seed(1))
    product = left[0] @ right[0].T @ left[1] @ right[1].T
    by_hand = product.norm() / ((left[0] @ right[0].T).norm() * (left[1] @ right[1].T).norm())
    assert scores.min() < by_hand < scores.max()
