"""Circuits read from the weights, and residual streams taken apart: what several lessons compute.

Everything here follows Elhage et al., *A Mathematical Framework for Transformer Circuits* (2021): an attention
head is a QK circuit, which decides where it attends, and an OV circuit, which decides what it writes when it
does. All functions expect processed weights (``load_model(..., processed=True)``: LayerNorm folded, writing
weights centred), for which the input of a layer is the residual stream divided by one number a position, the
LayerNorm scale.
"""

from typing import Any

import einops
import torch
from jaxtyping import Float
from torch import Tensor

Head = tuple[int, int]
"""A head, as (layer, head)."""


def qk_scores(
    model: Any,
    head: Head,
    queries: Float[Tensor, "query d_model"],
    keys: Float[Tensor, "key d_model"],
    scale: float = 1.0,
) -> Float[Tensor, "query key"]:
    """Attention scores (before the softmax) that vectors of the residual stream give each other in one head.

    ``queries @ W_Q @ W_K.T @ keys.T / (scale**2 * sqrt(d_head))``, without the biases ``b_Q`` and ``b_K``: what
    two *parts* of the residual stream add to the score. With ``W_E`` on both sides it is the full QK circuit of
    Elhage et al. (2021); write-up 000 leaves out ``sqrt(d_head)``.

    Args:
        model: a TransformerLens model with processed weights.
        head: (layer, head).
        queries: one row a query: a part of the residual stream, before LayerNorm.
        keys: one row a key.
        scale: the LayerNorm scale to divide both sides by; 1 for a model without LayerNorm.
    """
    layer, index = head
    W_QK = model.W_Q[layer, index] @ model.W_K[layer, index].T
    return queries @ W_QK @ keys.T / (scale**2 * model.cfg.d_head**0.5)


def ov_output(
    model: Any, head: Head, source: Float[Tensor, "source d_model"], scale: float = 1.0
) -> Float[Tensor, "source d_model"]:
    """What one head writes for each source vector if it attends to nothing else: ``source @ W_V @ W_O / scale``.

    Without the biases ``b_V`` (zero in processed weights) and ``b_O``.
    """
    layer, index = head
    return source @ model.W_V[layer, index] @ model.W_O[layer, index] / scale


def causal(scores: Float[Tensor, "*batch query key"]) -> Float[Tensor, "*batch query key"]:
    """The scores with minus infinity where the key comes after the query, ready for a softmax over keys."""
    n_query, n_key = scores.shape[-2:]
    later = torch.ones(n_query, n_key, dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(later, float("-inf"))


def residual_components(
    cache: Any, position: int = -1
) -> tuple[Float[Tensor, "component batch d_model"], list[str]]:
    """The final residual stream at one position as a sum, and the name of each summand.

    Embedding, positional embedding, the output of every head, and last the attention layers' output biases
    together (``b_O``). The sum over components is the residual stream before the last LayerNorm, exactly
    (a test holds that to 1e-4). For attention-only models with per-head results.

    Args:
        cache: from ``model.run_with_cache``.
        position: the position to read.
    """
    model = cache.model
    parts = [cache["embed"][:, position], cache["pos_embed"][:, position]]
    labels = ["embed", "pos_embed"]
    for layer in range(model.cfg.n_layers):
        heads = einops.rearrange(
            cache["result", layer][:, position], "batch head d_model -> head batch d_model"
        )
        parts += list(heads)
        labels += [f"{layer}.{head}" for head in range(len(heads))]
    parts.append(sum(model.b_O).expand_as(parts[0]))
    return torch.stack(parts), [*labels, "b_O"]


def random_composition_scores(d_model: int, d_head: int, n: int, seed: int) -> Float[Tensor, " pair"]:
    """Composition scores of ``n`` pairs of random matrices of the shape and rank of ``W_OV`` and ``W_QK``.

    The composition score of A followed by B is ``|A B| / (|A| |B|)`` with Frobenius norms (Elhage et al. 2021); these
    are the scores of matrices that have nothing to do with each other: Gaussian factors of shape (d_model, d_head),
    one draw a pair.
    """
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(4, n, d_model, d_head, generator=generator)
    W_A = einops.einsum(factors[0], factors[1], "n d_in d_head, n d_mid d_head -> n d_in d_mid")
    W_B = einops.einsum(factors[2], factors[3], "n d_mid d_head, n d_out d_head -> n d_mid d_out")
    product = W_A @ W_B
    return product.flatten(1).norm(dim=1) / (W_A.flatten(1).norm(dim=1) * W_B.flatten(1).norm(dim=1))
