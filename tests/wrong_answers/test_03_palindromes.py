"""Lesson 03: the wrong answers that people give, the message each must get, and other right answers."""

import einops
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformer_lens.utilities import get_act_name

from exercises_utils.challenges.palindromes import checks, task
from exercises_utils.challenges.palindromes.checks_verdict import palindromes
from exercises_utils.tools import circuits
from exercises_utils.tools.hooks import ablate, patch
from tests.wrong_answers.harness import Answers, Made, missing, proofs


def diff(logits):
    return logits[:, -1, 1] - logits[:, -1, 0]


# ── logit_diff ──────────────────────────────────────────────────────────────────────────────────────────────


def sign_turned_round(model, tokens):
    return -diff(model(tokens))


def last_value(model, tokens):
    logits = model(tokens)[:, -2]
    return logits[:, 1] - logits[:, 0]


def at_start(model, tokens):
    logits = model(tokens)[:, 0]
    return logits[:, 1] - logits[:, 0]


def all_positions(model, tokens):
    logits = model(tokens)
    return logits[..., 1] - logits[..., 0]


def mean_over_positions(model, tokens):
    return all_positions(model, tokens).mean(1)


def probabilities(model, tokens):
    p = model(tokens)[:, -1].softmax(-1)
    return p[:, 1] - p[:, 0]


def one_logit(model, tokens):
    return model(tokens)[:, -1, 1]


def mean_over_sequences(model, tokens):
    return diff(model(tokens)).mean()


def both_logits(model, tokens):
    return model(tokens)[:, -1]


def log_probabilities(model, tokens):
    log_probs = model(tokens)[:, -1].log_softmax(-1)
    return log_probs[:, 1] - log_probs[:, 0]


def by_einsum(model, tokens):
    return torch.einsum(
        "sv,v->s", model(tokens)[:, -1].double(), torch.tensor([-1.0, 1.0], dtype=torch.float64)
    )


def by_loop_in_numpy(model, tokens):
    return np.array([float(row[-1][1] - row[-1][0]) for row in model(tokens)])


# ── logit_attribution ───────────────────────────────────────────────────────────────────────────────────────


def attribution(
    model, tokens, *, scale="ln_final.hook_scale", position=-1, sign=1.0, bias=True, mean_scale=False
):
    _, cache = model.run_with_cache(tokens)
    components, _ = circuits.residual_components(cache, position=position)
    direction = sign * (model.W_U[:, 1] - model.W_U[:, 0])
    divide_by = cache[scale][:, position] if scale else 1.0
    if mean_scale:
        divide_by = divide_by.mean()
    rows = (components / divide_by) @ direction
    if not bias:
        return rows
    return torch.cat([rows, sign * (model.b_U[1] - model.b_U[0]).expand(1, len(tokens))])


def no_scale(model, tokens):
    return attribution(model, tokens, scale=None)


def mean_scale(model, tokens):
    return attribution(model, tokens, mean_scale=True)


def first_layers_scale(model, tokens):
    return attribution(model, tokens, scale="blocks.0.ln1.hook_scale")


def towards_non_palindrome(model, tokens):
    return attribution(model, tokens, sign=-1.0)


def without_bias_row(model, tokens):
    return attribution(model, tokens, bias=False)


def zero_bias_row(model, tokens):
    rows = attribution(model, tokens, bias=False)
    return torch.cat([rows, torch.zeros(1, len(tokens))])


def wrong_position(model, tokens):
    return attribution(model, tokens, position=-2)


def one_column_of_W_U(model, tokens):
    _, cache = model.run_with_cache(tokens)
    components, _ = circuits.residual_components(cache)
    rows = (components / cache["ln_final.hook_scale"][:, -1]) @ model.W_U[:, 1]
    return torch.cat([rows, model.b_U[1].expand(1, len(tokens))])


def averaged(model, tokens):
    return attribution(model, tokens).mean(-1)


def transposed_attribution(model, tokens):
    return attribution(model, tokens).T


def attribution_by_einsum(model, tokens):
    _, cache = model.run_with_cache(tokens)
    heads = cache.stack_head_results(layer=-1, pos_slice=-1)
    parts = [cache["embed"][:, -1][None], cache["pos_embed"][:, -1][None], heads]
    parts.append(einops.repeat(model.b_O.sum(0), "d -> 1 s d", s=len(tokens)))
    normed = torch.cat(parts) / cache["ln_final.hook_scale"][None, :, -1]
    logits = einops.einsum(normed, model.W_U, "c s d, d v -> c s v")
    rows = [*(logits[..., 1] - logits[..., 0])]
    rows.append(torch.full((len(tokens),), (model.b_U[1] - model.b_U[0]).item()))
    return torch.stack(rows)


def own_scales(model, tokens):
    components, _ = circuits.residual_components(model.run_with_cache(tokens)[1])
    normed = components / (components.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    rows = normed @ (model.W_U[:, 1] - model.W_U[:, 0])
    return torch.cat([rows, (model.b_U[1] - model.b_U[0]).expand(1, len(tokens))])


def bias_row_first(model, tokens):
    return attribution(model, tokens).roll(1, 0)


def without_b_O(model, tokens):
    rows = attribution(model, tokens)
    return torch.cat([rows[:-2], rows[-1:]])


def attribution_by_logit_attrs(model, tokens):
    _, cache = model.run_with_cache(tokens)
    components, _ = circuits.residual_components(cache)
    verdicts = {name: torch.full((len(tokens),), i) for i, name in enumerate(("incorrect_tokens", "tokens"))}
    rows = cache.logit_attrs(components, pos_slice=-1, **verdicts)
    return [*rows, (model.b_U[1] - model.b_U[0]).expand(len(tokens))]


# ── reading_head ────────────────────────────────────────────────────────────────────────────────────────────


def the_other_reader():
    """It costs more to ablate, and separates the classes less."""
    layer, head = checks.reading_head.course_version()
    return layer, 1 - head


def head_as_tensor():
    layer, head = checks.reading_head.course_version()
    return layer, torch.tensor(head)


def head_as_numpy():
    return list(np.array(checks.reading_head.course_version()))


# ── mirror_attention ────────────────────────────────────────────────────────────────────────────────────────


def n_values(pattern):
    return pattern.shape[-1] - 2


def hard_coded_length(pattern):
    queries = torch.arange(11, 21)
    return pattern[:, queries, 21 - queries]


def n_with_specials(pattern):
    n = pattern.shape[-1]
    queries = torch.arange(n // 2 + 1, n)
    return pattern[:, queries, n - queries]


def wrong_mirror(pattern):
    n = n_values(pattern)
    queries = torch.arange(n // 2 + 1, n + 1)
    return pattern[:, queries, n - queries]


def half_starts_too_early(pattern):
    n = n_values(pattern)
    queries = torch.arange(n // 2, n)
    return pattern[:, queries, n + 1 - queries]


def rows_and_columns_swapped(pattern):
    n = n_values(pattern)
    queries = torch.arange(n // 2 + 1, n + 1)
    return pattern[:, n + 1 - queries, queries]


def whole_antidiagonal(pattern):
    n = pattern.shape[-1]
    return pattern[:, torch.arange(n), n - 1 - torch.arange(n)]


def reversed_order(pattern):
    return mirror(pattern).flip(-1)


def sequences_averaged(pattern):
    return mirror(pattern).mean(0)


def mirror(pattern):
    n = n_values(pattern)
    queries = torch.arange(n // 2 + 1, n + 1)
    return pattern[:, queries, n + 1 - queries]


def mirror_by_flip(pattern):
    antidiagonal = torch.diagonal(torch.flip(pattern, dims=[2]), dim1=1, dim2=2)
    return antidiagonal[:, pattern.shape[1] // 2 : -1]


# ── token_circuit and position_circuit ──────────────────────────────────────────────────────────────────────


def qk(model, head, rows):
    layer, index = head
    return rows @ model.W_Q[layer, index] @ model.W_K[layer, index].T @ rows.T


def no_root(model, head, scale):
    return qk(model, head, model.W_E[:-2]) / scale**2


def divided_by_d_head(model, head, scale):
    return qk(model, head, model.W_E[:-2]) / scale**2 / model.cfg.d_head


def divided_by_root_d_model(model, head, scale):
    return qk(model, head, model.W_E[:-2]) / scale**2 / model.cfg.d_model**0.5


def scale_once(model, head, scale):
    return qk(model, head, model.W_E[:-2]) / scale / model.cfg.d_head**0.5


def scale_forgotten(model, head, scale):
    return qk(model, head, model.W_E[:-2]) / model.cfg.d_head**0.5


def rows_are_keys(model, head, scale):
    return token_scores(model, head, scale).T


def with_special_tokens(model, head, scale):
    return qk(model, head, model.W_E) / scale**2 / model.cfg.d_head**0.5


def softmaxed(model, head, scale):
    return token_scores(model, head, scale).softmax(-1)


def always_head_0(model, head, scale):
    return token_scores(model, (0, 0), scale)


def ov_instead(model, head, scale):
    values = model.W_E[:-2]
    return values @ model.W_V[head] @ model.W_O[head] @ values.T / scale**2 / model.cfg.d_head**0.5


def hard_coded_d_head(model, head, scale):
    return qk(model, head, model.W_E[:-2]) / scale**2 / 14**0.5


def hard_coded_vocabulary(model, head, scale):
    return qk(model, head, model.W_E[:31]) / scale**2 / model.cfg.d_head**0.5


def token_scores(model, head, scale):
    return qk(model, head, model.W_E[:-2]) / scale**2 / model.cfg.d_head**0.5


def token_scores_by_einsum(model, head, scale):
    e = model.W_E[:-2].double() / scale
    q = einops.einsum(e, model.W_Q[head].double(), "value d_model, d_model d_head -> value d_head")
    k = einops.einsum(e, model.W_K[head].double(), "value d_model, d_model d_head -> value d_head")
    return einops.einsum(q, k, "query d_head, key d_head -> query key") / model.cfg.d_head**0.5


def positions_no_root(model, head, scale):
    return qk(model, head, model.W_pos) / scale**2


def positions_scale_once(model, head, scale):
    return qk(model, head, model.W_pos) / scale / model.cfg.d_head**0.5


def positions_transposed(model, head, scale):
    return position_scores(model, head, scale).T


def positions_masked(model, head, scale):
    return circuits.causal(position_scores(model, head, scale))


def positions_softmaxed(model, head, scale):
    return positions_masked(model, head, scale).softmax(-1)


def positions_without_specials(model, head, scale):
    return position_scores(model, head, scale)[1:-1, 1:-1]


def tokens_again(model, head, scale):
    return token_scores(model, head, scale)


def position_scores(model, head, scale):
    return qk(model, head, model.W_pos) / scale**2 / model.cfg.d_head**0.5


# ── attention_without_positions ─────────────────────────────────────────────────────────────────────────────


def zeroed(name):
    return [(name, lambda activation, hook: torch.zeros_like(activation))]


def positions_left_in(model, head, tokens):
    _, cache = model.run_with_cache(tokens[None])
    return cache["pattern", head[0]][0, head[1]]


def tokens_removed(model, head, tokens):
    with model.hooks(fwd_hooks=zeroed("hook_embed")):
        return positions_left_in(model, head, tokens)


def by_hand(model, head, tokens, *, mask=True, norm=True, biases=True, root=True):
    x = model.W_E[tokens]
    if norm:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    q, k = x @ model.W_Q[head], x @ model.W_K[head]
    if biases:
        q, k = q + model.b_Q[head], k + model.b_K[head]
    scores = q @ k.T / (model.cfg.d_head**0.5 if root else 1.0)
    if mask:
        scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -1e9)
    return scores.softmax(-1)


def no_mask(model, head, tokens):
    return by_hand(model, head, tokens, mask=False)


def no_layernorm(model, head, tokens):
    return by_hand(model, head, tokens, norm=False)


def no_biases(model, head, tokens):
    return by_hand(model, head, tokens, biases=False)


def no_epsilon(model, head, tokens):
    x = model.W_E[tokens] / model.W_E[tokens].pow(2).mean(-1, keepdim=True).sqrt()
    q, k = x @ model.W_Q[head] + model.b_Q[head], x @ model.W_K[head] + model.b_K[head]
    return circuits.causal(q @ k.T / model.cfg.d_head**0.5).softmax(-1)


def mask_after_softmax(model, head, tokens):
    return no_mask(model, head, tokens).tril()


def softmax_over_queries(model, head, tokens):
    with model.hooks(fwd_hooks=zeroed("hook_pos_embed")):
        _, cache = model.run_with_cache(tokens[None])
    return cache["attn_scores", head[0]][0, head[1]].softmax(-2)


def hook_left_behind(model, head, tokens):
    model.add_hook("hook_pos_embed", lambda activation, hook: torch.zeros_like(activation))
    return positions_left_in(model, head, tokens)


# ── swap_pattern and swap_inputs ────────────────────────────────────────────────────────────────────────────


def cached(model, tokens, name, layer):
    return model.run_with_cache(tokens)[1][name, layer]


def swapped(model, head, source, target, *, heads, positions, activation="pattern"):
    layer = head[0]
    with patch(
        model, activation, layer, cached(model, source, activation, layer), heads=heads, positions=positions
    ):
        return diff(model(target))


def forward_outside(model, head, intact, broken, position):
    layer, index = head
    value = cached(model, broken, "pattern", layer)
    with patch(model, "pattern", layer, value, heads=[index], positions=[position]):
        pass
    return diff(model(intact))


def pattern_of_intact(model, head, intact, broken, position):
    return swapped(model, head, intact, intact, heads=[head[1]], positions=[position])


def runs_exchanged(model, head, intact, broken, position):
    return swapped(model, head, intact, broken, heads=[head[1]], positions=[position])


def whole_pattern(model, head, intact, broken, position):
    return swapped(model, head, broken, intact, heads=[head[1]], positions=None)


def all_heads(model, head, intact, broken, position):
    return swapped(model, head, broken, intact, heads=None, positions=[position])


def column(model, head, intact, broken, position):
    layer, index = head
    source = cached(model, broken, "pattern", layer)

    def put(pattern, hook):
        pattern[:, index, :, position] = source[:, index, :, position]
        return pattern

    with model.hooks(fwd_hooks=[(get_act_name("pattern", layer), put)]):
        return diff(model(intact))


def output_instead(model, head, intact, broken, position):
    return swapped(model, head, broken, intact, heads=[head[1]], positions=[position], activation="z")


def another_row(model, head, intact, broken, position):
    return swapped(model, head, broken, intact, heads=[head[1]], positions=[position - 1])


def values_instead(model, head, intact, broken, position):
    return swapped(model, head, broken, intact, heads=[head[1]], positions=[position], activation="v")


def scores_by_hook(model, head, intact, broken, position):
    return swapped(
        model, head, broken, intact, heads=[head[1]], positions=[position], activation="attn_scores"
    )


def swap_sign(model, head, intact, broken, position):
    return -swapped(model, head, broken, intact, heads=[head[1]], positions=[position])


def row_by_own_hook(model, head, intact, broken, position):
    layer, index = head
    source = cached(model, broken, "pattern", layer)

    def put(pattern, hook):
        pattern[:, index, position] = source[:, index, position]
        return pattern

    return diff(model.run_with_hooks(intact, fwd_hooks=[(get_act_name("pattern", layer), put)]))


def inputs_swapped(model, layer, inputs, intact, broken, place_of, heads=None, target=None):
    _, cache = model.run_with_cache(broken)
    fwd_hooks = []
    for name in inputs:

        def put(value, hook, name=name):
            places = place_of(name)
            chosen = slice(None) if heads is None else heads
            source = cache[name, layer]
            if places is None:
                value[:, :, chosen] = source[:, :, chosen]
            else:
                value[:, places, chosen] = source[:, places, chosen]
            return value

        fwd_hooks.append((get_act_name(name, layer), put))
    return diff(model.run_with_hooks(intact if target is None else target, fwd_hooks=fwd_hooks))


def queries_at_position(model, layer, inputs, intact, broken, position):
    return inputs_swapped(model, layer, inputs, intact, broken, lambda name: position)


def everything_at_end(model, layer, inputs, intact, broken, position):
    return inputs_swapped(model, layer, inputs, intact, broken, lambda name: -1)


def all_places(model, layer, inputs, intact, broken, position):
    return inputs_swapped(model, layer, inputs, intact, broken, lambda name: None)


def first_head_only(model, layer, inputs, intact, broken, position):
    return inputs_swapped(
        model, layer, inputs, intact, broken, lambda n: -1 if n == "q" else position, heads=[0]
    )


def first_input_only(model, layer, inputs, intact, broken, position):
    return right_inputs(model, layer, inputs[:1], intact, broken, position)


def last_input_only(model, layer, inputs, intact, broken, position):
    return right_inputs(model, layer, inputs[-1:], intact, broken, position)


def bound_late(model, layer, inputs, intact, broken, position):
    _, cache = model.run_with_cache(broken)
    fwd_hooks = []
    for name in inputs:
        place = -1 if name == "q" else position

        def put(value, hook):
            value[:, place] = cache[name, layer][:, place]  # noqa: B023 - the mistake
            return value

        fwd_hooks.append((get_act_name(name, layer), put))
    return diff(model.run_with_hooks(intact, fwd_hooks=fwd_hooks))


def effects_added(model, layer, inputs, intact, broken, position):
    before = diff(model(intact))
    return before + sum(right_inputs(model, layer, (n,), intact, broken, position) - before for n in inputs)


def inputs_sign(model, layer, inputs, intact, broken, position):
    return -right_inputs(model, layer, inputs, intact, broken, position)


def on_broken(model, layer, inputs, intact, broken, position):
    return inputs_swapped(
        model, layer, inputs, intact, broken, lambda n: -1 if n == "q" else position, target=broken
    )


def right_inputs(model, layer, inputs, intact, broken, position):
    return inputs_swapped(model, layer, inputs, intact, broken, lambda n: -1 if n == "q" else position)


# ── composed circuits ───────────────────────────────────────────────────────────────────────────────────────


def moved(model, head, rows):
    return rows @ model.W_V[head] @ model.W_O[head]


def key_scores_no_root(model, matcher, reader, query):
    return moved(model, matcher, model.W_pos) @ model.W_K[reader] @ query


def key_scores_direct(model, matcher, reader, query):
    return model.W_pos @ model.W_K[reader] @ query / model.cfg.d_head**0.5


def key_scores_exchanged(model, matcher, reader, query):
    return key_scores(model, reader, matcher, query)


def key_scores_through_q(model, matcher, reader, query):
    return moved(model, matcher, model.W_pos) @ model.W_Q[reader] @ query / model.cfg.d_head**0.5


def key_scores_of_tokens(model, matcher, reader, query):
    return moved(model, matcher, model.W_E) @ model.W_K[reader] @ query / model.cfg.d_head**0.5


def key_scores_values_only(model, matcher, reader, query):
    return key_scores(model, matcher, reader, query)[1:-1]


def key_scores_as_column(model, matcher, reader, query):
    return key_scores(model, matcher, reader, query)[:, None]


def key_scores(model, matcher, reader, query):
    W_OV = model.W_V[matcher] @ model.W_O[matcher]
    return einops.einsum(model.W_pos, W_OV, model.W_K[reader], query, "pos d, d e, e h, h -> pos") / np.sqrt(
        model.cfg.d_head
    )


def verdict_sign(model, matcher, reader):
    return -composed(model, matcher, reader)


def verdict_without_matcher(model, matcher, reader):
    return moved(model, reader, model.W_pos) @ (model.W_U[:, 1] - model.W_U[:, 0])


def verdict_without_reader(model, matcher, reader):
    return moved(model, matcher, model.W_pos) @ (model.W_U[:, 1] - model.W_U[:, 0])


def verdict_wrong_order(model, matcher, reader):
    return composed(model, reader, matcher)


def verdict_of_tokens(model, matcher, reader):
    return moved(model, reader, moved(model, matcher, model.W_E)) @ (model.W_U[:, 1] - model.W_U[:, 0])


def verdict_one_column(model, matcher, reader):
    return moved(model, reader, moved(model, matcher, model.W_pos)) @ model.W_U[:, 1]


def verdict_other_column(model, matcher, reader):
    return moved(model, reader, moved(model, matcher, model.W_pos)) @ model.W_U[:, 0]


def composed(model, matcher, reader):
    logits = model.W_pos @ (model.OV[matcher].AB @ (model.OV[reader].AB @ model.W_U))
    return logits[:, 1] - logits[:, 0]


def spectral(A, B):
    return (
        torch.linalg.matrix_norm(A @ B, 2) / torch.linalg.matrix_norm(A, 2) / torch.linalg.matrix_norm(B, 2)
    ).item()


def squared(A, B):
    return right_score(A, B) ** 2


def one_norm_missing(A, B):
    return (torch.norm(A @ B) / torch.norm(A)).item()


def sum_of_norms(A, B):
    return (torch.norm(A @ B) / (torch.norm(A) + torch.norm(B))).item()


def not_divided(A, B):
    return torch.norm(A @ B).item()


def brackets_missing(A, B):
    return (torch.norm(A @ B) / torch.norm(A) * torch.norm(B)).item()


def right_score(A, B):
    return ((A @ B).pow(2).sum().sqrt() / (A.pow(2).sum() * B.pow(2).sum()).sqrt()).item()


def score_as_tensor(A, B):
    return torch.norm(A @ B) / (torch.norm(A) * torch.norm(B))


# ── verdict_by_position ─────────────────────────────────────────────────────────────────────────────────────


def votes(model, matcher, reader, tokens, name="v", keep=slice(1, -1)):
    value = cached(model, tokens, name, matcher[0])[:, keep, matcher[1]]
    written = value @ model.W_O[matcher]
    return moved(model, reader, written) @ (model.W_U[:, 1] - model.W_U[:, 0])


def votes_with_specials(model, matcher, reader, tokens):
    return votes(model, matcher, reader, tokens, keep=slice(None))


def votes_off_by_one(model, matcher, reader, tokens):
    return votes(model, matcher, reader, tokens, keep=slice(0, -2))


def votes_sign(model, matcher, reader, tokens):
    return -votes(model, matcher, reader, tokens)


def votes_from_z(model, matcher, reader, tokens):
    return votes(model, matcher, reader, tokens, name="z")


def votes_without_reader(model, matcher, reader, tokens):
    value = cached(model, tokens, "v", matcher[0])[:, 1:-1, matcher[1]]
    return value @ model.W_O[matcher] @ (model.W_U[:, 1] - model.W_U[:, 0])


def votes_of_reader(model, matcher, reader, tokens):
    value = cached(model, tokens, "v", reader[0])[:, 1:-1, reader[1]]
    return value @ model.W_O[reader] @ (model.W_U[:, 1] - model.W_U[:, 0])


def votes_averaged(model, matcher, reader, tokens):
    return votes(model, matcher, reader, tokens).mean(0)


def votes_by_einsum(model, matcher, reader, tokens):
    v = cached(model, tokens, "v", matcher[0])[:, 1:-1, matcher[1]]
    asked = einops.einsum(
        model.W_O[matcher], model.OV[reader].AB, model.W_U[:, 1] - model.W_U[:, 0], "h d, d e, e -> h"
    )
    return einops.einsum(v, asked, "s p h, h -> s p")


# ── ablation_costs ──────────────────────────────────────────────────────────────────────────────────────────


def costs(model, tokens, labels, activation, how, *, difference=True, sign=1.0, reduction="mean"):
    def loss():
        return F.cross_entropy(model(tokens)[:, -1], labels, reduction=reduction).item()

    before = loss() if difference else 0.0
    rows = []
    for layer in range(model.cfg.n_layers):
        rows.append([])
        for head in range(model.cfg.n_heads):
            with ablate(model, [(layer, head)], activation=activation, how=how):
                rows[-1].append(sign * (loss() - before))
    return torch.tensor(rows)


def losses_not_differences(model, tokens, labels, activation, how):
    return costs(model, tokens, labels, activation, how, difference=False)


def gains_not_costs(model, tokens, labels, activation, how):
    return costs(model, tokens, labels, activation, how, sign=-1.0)


def bits(model, tokens, labels, activation, how):
    return costs(model, tokens, labels, activation, how) / np.log(2)


def always_mean(model, tokens, labels, activation, how):
    return costs(model, tokens, labels, activation, "mean")


def always_z(model, tokens, labels, activation, how):
    return costs(model, tokens, labels, "z", how)


def summed(model, tokens, labels, activation, how):
    return costs(model, tokens, labels, activation, how, reduction="sum")


def costs_transposed(model, tokens, labels, activation, how):
    return costs(model, tokens, labels, activation, how).T


def heads_pile_up(model, tokens, labels, activation, how):
    heads, rows = [], costs(model, tokens, labels, activation, how)
    before = F.cross_entropy(model(tokens)[:, -1], labels)
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):
            heads.append((layer, head))
            with ablate(model, heads, activation=activation, how=how):
                rows[layer, head] = F.cross_entropy(model(tokens)[:, -1], labels) - before
    return rows


def loss_compared_with_itself(model, tokens, labels, activation, how):
    return torch.zeros_like(costs(model, tokens, labels, activation, how))


def hard_coded_heads(model, tokens, labels, activation, how):
    return costs(model, tokens, labels, activation, how)[:2, :2]


# ── counterexamples ─────────────────────────────────────────────────────────────────────────────────────────


def known():
    return checks.counterexamples.course_version()


def with_palindromes():
    return torch.cat([known()[:30], palindromes(20, seed=1)])


def ordinary_non_palindromes():
    data = task.make_data(400, seed=2)
    return data.tokens[~data.is_palindrome][:50]


def repeated():
    return torch.cat([known()[:25], known()[:25]])


def without_start_and_end():
    return known()[:, 1:-1]


def values_too_large():
    tokens = known().clone()
    tokens[:20, 3] = 31
    return tokens


def too_few():
    return known()[:10]


def one_sequence():
    return known()[0]


def list_of_tensors():
    return list(known())


def shuffled_lists():
    return known().flip(0).tolist()


def some_misses():
    return torch.cat([known()[:40], ordinary_non_palindromes()[:10]])


# ── circuit ─────────────────────────────────────────────────────────────────────────────────────────────────


def best_circuit():
    return checks.circuit.course_version()


def one_head_of_each_layer():
    return [best_circuit()[0], (1, 0)]


def without_the_matching_head():
    return [head for head in best_circuit() if head[0] == 1]


def other_matching_head():
    return [(0, 1 - best_circuit()[0][1]), (1, 0), (1, 1)]


def whole_model():
    return [(0, 0), (0, 1), (1, 0), (1, 1)]


def no_such_head():
    return [(0, 0), (2, 1)]


def a_single_pair():
    return (0, 1)


def heads_as_text():
    return ["0.1", "1.0"]


def sites():
    matcher = best_circuit()[0]
    return [(*matcher, p) for p in task.SECOND_HALF] + [(1, 0, 21), (1, 1, 21)]


def too_few_sites():
    return sites()[5:]


def every_position():
    matcher = best_circuit()[0]
    return [(*head, p) for head in (matcher, (1, 0), (1, 1)) for p in range(task.LENGTH + 2)]


def as_a_set():
    return set(best_circuit())


# ── explanation ─────────────────────────────────────────────────────────────────────────────────────────────


def perfect_algorithm(model):
    def simulate(inputs, numbers):
        return (inputs[:, 1:-1] == inputs[:, 1:-1].flip(-1)).all(-1)

    return simulate, {}


def turned_round(model):
    def simulate(inputs, numbers):
        return (inputs[:, 1:-1] != inputs[:, 1:-1].flip(-1)).any(-1)

    return simulate, {}


def asks_the_model(model):
    def simulate(inputs, numbers):
        return model(inputs)[:, -1].argmax(-1)

    return simulate, {}


def hides_the_answers(model):
    return (lambda inputs, numbers: numbers["model"](inputs)), {"model": model}


def only_the_function(model):
    return lambda inputs, numbers: torch.zeros(len(inputs))


def gives_logits(model):
    return (lambda inputs, numbers: numbers["bias"].expand(len(inputs))), {"bias": model.b_U[1]}


def one_answer_too_few(model):
    return (lambda inputs, numbers: torch.zeros(len(inputs) - 1, dtype=torch.long)), {}


def changes_its_inputs(model):
    def simulate(inputs, numbers):
        inputs[:, 0] = 0
        return torch.ones(len(inputs), dtype=torch.long)

    return simulate, {}


def all_blind(model):
    """Takes everything for a palindrome."""
    return (lambda inputs, numbers: torch.ones(len(inputs), dtype=torch.long)), {}


def remembers_the_answers(model):
    answers = model(checks.explanation.pool.tokens)[:, -1].argmax(-1)
    return (lambda inputs, numbers: numbers["answers"]), {"answers": answers}


def remembers_them_as_text(model):
    answers = "".join(map(str, checks.explanation.pool.model_answers.tolist()))
    return (lambda inputs, numbers: torch.tensor([int(letter) for letter in answers])), {}


def few_mismatches(model):
    return (lambda inputs, numbers: (inputs != inputs.flip(-1)).sum(-1) <= 4), {}


def with_a_helper(model):
    return checks.explanation.reference(model)


LESSON = [
    Answers(
        checks.logit_diff,
        wrong={
            sign_turned_round: "sign",
            last_value: "last value",
            at_start: "START",
            all_positions: "each position",
            mean_over_positions: "mean over positions",
            probabilities: "probabilities",
            one_logit: "palindrome alone",
            mean_over_sequences: "mean over sequences",
            both_logits: "both logits",
        },
        right=[log_probabilities, by_einsum, by_loop_in_numpy],
    ),
    Answers(
        checks.logit_attribution,
        wrong={
            no_scale: "scale is forgotten",
            mean_scale: "own scale",
            first_layers_scale: "first LayerNorm",
            towards_non_palindrome: "sign",
            without_bias_row: "last row",
            zero_bias_row: "not zero",
            wrong_position: "position -2",
            one_column_of_W_U: "subtract `W_U[:, 0]`",
            averaged: "mean over sequences",
            transposed_attribution: "transpose",
            own_scales: "scale of its own",
            bias_row_first: "comes first",
            without_b_O: "`b_O` is missing",
        },
        right=[attribution_by_einsum, attribution_by_logit_attrs],
    ),
    Answers(
        checks.reading_head,
        wrong={
            (0, 0): "layer 0",
            (0, 1): "layer 0",
            (2, 0): "no head",
            "1.0": "pair",
            (1,): "pair",
            1: "pair",
            Made(the_other_reader): "look for the largest difference",
            Made(head_as_tensor): "int(",
        },
        right=[Made(head_as_numpy)],
    ),
    Answers(checks.where_end_looks),
    Answers(
        checks.mirror_attention,
        wrong={
            hard_coded_length: "on patterns of 6 values",
            wrong_mirror: "off by one",
            n_with_specials: "two less",
            half_starts_too_early: "off by one",
            rows_and_columns_swapped: "rows are queries",
            whole_antidiagonal: "antidiagonal",
            reversed_order: "order",
            sequences_averaged: "mean over sequences",
        },
        right=[mirror, mirror_by_flip],
    ),
    Answers(
        checks.token_circuit,
        wrong={
            no_root: "sqrt(d_head)",
            divided_by_d_head: "square root",
            divided_by_root_d_model: "width of a head",
            scale_once: "used once",
            scale_forgotten: "forgotten",
            rows_are_keys: "swapped",
            with_special_tokens: "special tokens",
            softmaxed: "softmax",
            always_head_0: "head 0.1",
            ov_instead: "OV circuit",
            hard_coded_d_head: "a random model",
            hard_coded_vocabulary: "a random model",
        },
        right=[token_scores, token_scores_by_einsum],
    ),
    Answers(
        checks.matching_head,
        wrong={(1, 0): "layer 1", (1, 1): "layer 1", (0, 2): "no head", "0.0": "pair", 0: "pair"},
    ),
    Answers(
        checks.position_circuit,
        wrong={
            positions_no_root: "sqrt(d_head)",
            positions_scale_once: "used once",
            positions_transposed: "swapped",
            positions_masked: "mask",
            positions_softmaxed: "softmax",
            positions_without_specials: "left out",
            tokens_again: "W_pos",
        },
        right=[position_scores],
    ),
    Answers(
        checks.attention_without_positions,
        wrong={
            positions_left_in: "still in it",
            tokens_removed: "token embeddings are gone",
            no_mask: "causal mask",
            no_layernorm: "LayerNorm is missing",
            no_biases: "biases",
            softmax_over_queries: "over the queries",
            no_epsilon: "epsilon",
            mask_after_softmax: "mask the scores before",
            hook_left_behind: "hook",
        },
        right=[by_hand],
    ),
    Answers(
        checks.swap_pattern,
        wrong={
            forward_outside: "inside the `with` block",
            pattern_of_intact: "Nothing was swapped",
            runs_exchanged: "exchanged",
            whole_pattern: "All rows",
            all_heads: "All heads",
            column: "column",
            output_instead: "`z`",
            another_row: "is it the row of `position`",
            values_instead: "not the pattern",
            swap_sign: "sign",
        },
        right=[row_by_own_hook, scores_by_hook],
    ),
    Answers(
        checks.swap_inputs,
        wrong={
            queries_at_position: "at END",
            everything_at_end: "at `position`",
            all_places: "All positions",
            first_head_only: "all heads",
            first_input_only: "first of the `inputs`",
            last_input_only: "last of the `inputs` was swapped",
            bound_late: "as the loop left it",
            effects_added: "effects added",
            inputs_sign: "sign",
            on_broken: "run `intact`",
        },
        right=[right_inputs],
    ),
    Answers(
        checks.composed_key_scores,
        wrong={
            key_scores_no_root: "sqrt(d_head)",
            key_scores_direct: "matching head is missing",
            key_scores_exchanged: "exchanged",
            key_scores_through_q: "W_Q",
            key_scores_of_tokens: "W_pos",
            key_scores_values_only: "left out",
            key_scores_as_column: "shape",
        },
        right=[key_scores],
    ),
    Answers(
        checks.composed_verdict,
        wrong={
            verdict_sign: "sign",
            verdict_without_matcher: "matching head is missing",
            verdict_without_reader: "reading head is missing",
            verdict_wrong_order: "order",
            verdict_of_tokens: "W_pos",
            verdict_one_column: "subtract W_U[:, 0]",
            verdict_other_column: "no palindrome alone",
        },
        right=[composed],
    ),
    Answers(
        checks.composition_score,
        wrong={
            spectral: "Frobenius",
            squared: "square",
            one_norm_missing: "both norms",
            sum_of_norms: "not by their sum",
            not_divided: "norm of the product",
            brackets_missing: "Brackets",
        },
        right=[right_score, score_as_tensor],
    ),
    Answers(
        checks.verdict_by_position,
        wrong={
            votes_with_specials: "START and END",
            votes_off_by_one: "Off by one",
            votes_sign: "sign",
            votes_from_z: "`z`",
            votes_without_reader: "reading head is missing",
            votes_of_reader: "reading head's values",
            votes_averaged: "mean over sequences",
        },
        right=[votes, votes_by_einsum],
    ),
    Answers(
        checks.ablation_costs,
        wrong={
            losses_not_differences: "subtract the loss before",
            gains_not_costs: "sign",
            bits: "nats",
            always_mean: "always mean ablation",
            always_z: "always the ablation of `z`",
            summed: "take the mean",
            costs_transposed: "swapped",
            heads_pile_up: "still ablated",
            loss_compared_with_itself: "compared with itself",
            hard_coded_heads: "shape",
        },
        right=[costs],
    ),
    Answers(checks.stale_label),
    Answers(
        checks.counterexamples,
        wrong={
            Made(with_palindromes): "20 of them are palindromes",
            Made(ordinary_non_palindromes): "fool the model; 40 are needed",
            Made(repeated): "repeats input 0",
            Made(without_start_and_end): "expected 22: START, 20 values, END",
            Made(values_too_large): "expected a value from 0 to 30",
            Made(too_few): "Give 50 sequences; 10 came",
            Made(one_sequence): "expected (input, position)",
            Made(list_of_tensors): "torch.stack",
        },
        right=[Made(known), Made(shuffled_lists), Made(some_misses)],
    ),
    Answers(
        checks.circuit,
        wrong={
            Made(one_head_of_each_layer): "0.80 is needed",
            Made(without_the_matching_head): "0.80 is needed",
            Made(other_matching_head): "0.80 is needed",
            Made(whole_model): "name at most 3",
            Made(no_such_head): "layers 0 to 1",
            Made(a_single_pair): "heads (layer, head)",
            Made(heads_as_text): "heads (layer, head)",
            Made(too_few_sites): "0.80 is needed",
        },
        right=[Made(best_circuit), Made(as_a_set), Made(sites), Made(every_position)],
    ),
    Answers(
        checks.explanation,
        wrong={
            perfect_algorithm: "as the task demands",
            turned_round: "turned round",
            asks_the_model: "model",
            hides_the_answers: "expected a tensor or a number",
            only_the_function: "return two things",
            gives_logits: "threshold or an argmax",
            one_answer_too_few: "an answer for each input",
            changes_its_inputs: "changed its inputs",
            all_blind: "same answer to every input",
            remembers_the_answers: "in another order",
            remembers_them_as_text: "in another order",
            few_mismatches: "too many mistakes",
        },
        right=[with_a_helper],
    ),
    Answers(checks.what_processing_keeps),
]


@pytest.mark.parametrize("proof", proofs(LESSON))
def test_answers(proof):
    proof()


def test_every_exercise_has_its_wrong_answers():
    assert missing(checks.CHECKS, LESSON) == []
