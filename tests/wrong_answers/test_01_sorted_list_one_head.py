"""Lesson 01: the wrong answers that people give, the message each must get, and other right answers."""

import einops
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from exercises_utils.challenges.sorted_list_one_head import checks, task
from exercises_utils.tools import circuits
from tests.wrong_answers.harness import Answers, Made, Value, missing, proofs

PATTERN, SCORES = "blocks.0.attn.hook_pattern", "blocks.0.attn.hook_attn_scores"
PARTS = ("token", "position")


def pattern_of(model, tokens):
    return model.run_with_cache(tokens)[1]["pattern", 0][:, 0]


# ── answer_accuracy ─────────────────────────────────────────────────────────────────────────────────────────


def hits(model, tokens):
    return (model(tokens)[:, 11:21].argmax(-1) == tokens[:, 12:]).float()


def read_too_late(model, tokens):
    return (model(tokens)[:, 12:].argmax(-1) == tokens[:, 12:]).float().mean(0)


def read_too_early(model, tokens):
    return (model(tokens)[:, 10:20].argmax(-1) == tokens[:, 12:]).float().mean(0)


def compared_in_place(model, tokens):
    return (model(tokens)[:, 11:21].argmax(-1) == tokens[:, 11:21]).float().mean(0)


def compared_with_the_list(model, tokens):
    return (model(tokens)[:, 11:21].argmax(-1) == tokens[:, 1:11]).float().mean(0)


def every_next_token(model, tokens):
    return (model(tokens)[:, :-1].argmax(-1) == tokens[:, 1:]).float().mean(0)


def one_number(model, tokens):
    return hits(model, tokens).mean()


def mean_over_answers(model, tokens):
    return hits(model, tokens).mean(1)


def whole_lists(model, tokens):
    return hits(model, tokens).all(1).float().mean()


def counted(model, tokens):
    return hits(model, tokens).sum(0)


def in_percent(model, tokens):
    return 100 * hits(model, tokens).mean(0)


def mean_probability(model, tokens):
    probabilities = model(tokens)[:, 11:21].softmax(-1)
    return probabilities.gather(-1, tokens[:, 12:, None])[..., 0].mean(0)


def accuracy_by_probabilities(model, tokens):
    best = model(tokens)[:, 11:21].softmax(-1).topk(1).indices[..., 0]
    return (best == tokens[:, 1:11].sort(-1).values).double().mean(0)


def accuracy_as_list(model, tokens):
    return [float((model(tokens)[:, p].argmax(-1) == tokens[:, p + 1]).float().mean()) for p in range(11, 21)]


# ── mean_pattern ────────────────────────────────────────────────────────────────────────────────────────────


def mean_of_scores(model, tokens):
    return model.run_with_cache(tokens)[1]["attn_scores", 0][:, 0].mean(0)


def softmax_of_the_mean(model, tokens):
    return mean_of_scores(model, tokens).softmax(-1)


def softmax_twice(model, tokens):
    return pattern_of(model, tokens).mean(0).softmax(-1)


def pattern_transposed(model, tokens):
    return pattern_of(model, tokens).mean(0).T


def pattern_summed(model, tokens):
    return pattern_of(model, tokens).sum(0)


def first_list(model, tokens):
    return pattern_of(model, tokens)[0]


def mean_over_queries(model, tokens):
    return pattern_of(model, tokens).mean(1)


def head_axis_kept(model, tokens):
    return model.run_with_cache(tokens)[1]["pattern", 0].mean(0)


def pattern_by_hand(model, tokens):
    x = (model.W_E[tokens] + model.W_pos).double()
    q, k = x @ model.W_Q[0, 0].double(), x @ model.W_K[0, 0].double()
    scores = einops.einsum(q, k, "b q d, b k d -> b q k") / np.sqrt(model.cfg.d_head)
    return circuits.causal(scores).softmax(-1).mean(0)


def pattern_by_loop(model, tokens):
    return sum(pattern_of(model, row[None])[0] for row in tokens) / len(tokens)


# ── hide_position ───────────────────────────────────────────────────────────────────────────────────────────


def with_scores(model, tokens, change, name=SCORES):
    def hook_fn(activation, hook):
        activation = activation.clone()
        change(activation)
        return activation

    with model.hooks(fwd_hooks=[(name, hook_fn)]):
        return model(tokens)


def setting(rows, columns, value):
    def change(activation):
        activation[:, :, rows, columns] = value

    return change


def hides(position):
    return setting(slice(None), position, float("-inf"))


def score_zero(model, tokens, position):
    return with_scores(model, tokens, setting(slice(None), position, 0.0))


def hides_the_query(model, tokens, position):
    return with_scores(model, tokens, setting(position, slice(None), float("-inf")))


def pattern_zero(model, tokens, position):
    return with_scores(model, tokens, setting(slice(None), position, 0.0), PATTERN)


def the_place_before(model, tokens, position):
    return with_scores(model, tokens, hides(position - 1))


def the_place_after(model, tokens, position):
    return with_scores(model, tokens, hides(position + 1))


def from_mid_alone(model, tokens, position):
    return with_scores(model, tokens, setting(11, position, float("-inf")))


def hook_returns_nothing(model, tokens, position):
    def hook_fn(activation, hook):
        activation = activation.clone()
        activation[..., position] = float("-inf")

    with model.hooks(fwd_hooks=[(SCORES, hook_fn)]):
        return model(tokens)


def hook_stays(model, tokens, position):
    model.hook_dict[SCORES].add_hook(
        lambda activation, hook: activation.index_fill(-1, torch.tensor([position]), float("-inf"))
    )
    return model(tokens)


def token_replaced(model, tokens, position):
    tokens = tokens.clone()
    tokens[:, position] = model.cfg.d_vocab_out
    return model(tokens)


def token_overwritten(model, tokens, position):
    tokens[:, position] = model.cfg.d_vocab_out
    return model(tokens)


def hidden_at_mid(model, tokens, position):
    return with_scores(model, tokens, hides(position))[:, 11]


def hidden_answers(model, tokens, position):
    return with_scores(model, tokens, hides(position)).argmax(-1)


def always_place_four(model, tokens, position):
    return with_scores(model, tokens, hides(4))


def hidden_in_place(model, tokens, position):
    def hook_fn(activation, hook):
        activation[..., position] = -torch.inf

    return model.run_with_hooks(tokens, fwd_hooks=[(SCORES, hook_fn)])


def hidden_by_a_large_number(model, tokens, position):
    return with_scores(model, tokens, setting(slice(None), position, -1e9))


def hidden_by_renormalising(model, tokens, position):
    """Zero attention, and the rest divided by what is left of it."""

    def change(activation):
        activation[..., position] = 0.0
        activation /= activation.sum(-1, keepdim=True)

    return with_scores(model, tokens, change, PATTERN)


# ── attention_to_answer ─────────────────────────────────────────────────────────────────────────────────────


def attention(model, tokens, queries=slice(11, 21), keys=slice(1, 11), labels=slice(12, 22), reduce=None):
    to = pattern_of(model, tokens)[:, queries, keys]
    is_right = tokens[:, labels, None] == tokens[:, None, keys if keys.start else slice(1, 11)]
    return (to * (is_right if reduce is None else reduce(is_right))).sum(-1)


def first_copy(model, tokens):
    return attention(model, tokens, reduce=lambda m: m & (m.cumsum(-1) == 1)).mean(0)


def last_copy(model, tokens):
    last = lambda m: m & (m.flip(-1).cumsum(-1).flip(-1) == 1)  # noqa: E731
    return attention(model, tokens, reduce=last).mean(0)


def share_of_the_list(model, tokens):
    to_list = pattern_of(model, tokens)[:, 11:21, 1:11].sum(-1)
    return (attention(model, tokens) / to_list).mean(0)


def sorted_part_too(model, tokens):
    return attention(model, tokens, keys=slice(1, 22)).mean(0)


def the_querys_own_number(model, tokens):
    return attention(model, tokens, labels=slice(11, 21)).mean(0)


def queries_too_late(model, tokens):
    return attention(model, tokens, queries=slice(12, 22)).mean(0)


def keys_off_by_one(model, tokens):
    return attention(model, tokens, keys=slice(0, 10)).mean(0)


def mean_over_copies(model, tokens):
    return attention(model, tokens, reduce=lambda m: m / m.sum(-1, keepdim=True)).mean(0)


def one_copy_by_argmax(model, tokens):
    to = pattern_of(model, tokens)[:, 11:21, 1:11]
    is_right = tokens[:, 12:, None] == tokens[:, None, 1:11]
    return (to * is_right).max(-1).values.mean(0)


def how_often_most(model, tokens):
    place = pattern_of(model, tokens)[:, 11:21, 1:11].argmax(-1)
    return (tokens[:, 1:11].gather(1, place) == tokens[:, 12:]).float().mean(0)


def attention_of_each_list(model, tokens):
    return attention(model, tokens)


def attention_by_einsum(model, tokens):
    same = F.one_hot(tokens[:, 12:]).double() @ F.one_hot(
        tokens[:, 1:11], int(tokens[:, 12:].max()) + 1
    ).double().transpose(1, 2)
    return torch.einsum("bqk,bqk->q", pattern_of(model, tokens)[:, 11:21, 1:11].double(), same) / len(tokens)


# ── full_ov_circuit and position_bias ───────────────────────────────────────────────────────────────────────


def ov(model, source):
    return source @ model.W_V[0, 0] @ model.W_O[0, 0] @ model.W_U


def tokens_ov(model):
    return ov(model, model.W_E)


def ov_transposed(model):
    return tokens_ov(model).T


def ov_without_head(model):
    return model.W_E @ model.W_U


def ov_without_unembedding(model):
    return model.W_E @ model.W_V[0, 0] @ model.W_O[0, 0]


def ov_without_embedding(model):
    return model.W_V[0, 0] @ model.W_O[0, 0] @ model.W_U


def ov_numbers_only(model):
    return tokens_ov(model)[:-2]


def ov_of_positions(model):
    return ov(model, model.W_pos)


def ov_by_qk(model):
    return model.W_E @ model.W_Q[0, 0] @ model.W_K[0, 0].T @ model.W_U


def ov_hard_coded(model):
    return tokens_ov(model)[:52, :50].reshape(52, 50)


def ov_with_direct_path(model):
    return tokens_ov(model) + model.W_E @ model.W_U


def ov_in_order_o_v(model):
    return model.W_E @ model.W_O[0, 0] @ model.W_V[0, 0] @ model.W_U


def ov_factored(model):
    return model.W_E @ model.OV[0, 0] @ model.W_U


def ov_multiplied_out(model):
    return (model.W_E @ model.OV[0, 0] @ model.W_U).AB


def ov_by_einsum(model):
    weights = [model.W_E, model.W_V[0, 0], model.W_O[0, 0], model.W_U]
    return einops.einsum(*[w.double() for w in weights], "t a, a h, h b, b o -> t o")


def position_ov_in_loop(model):
    return torch.stack([row @ model.W_V[0, 0] @ (model.W_O[0, 0] @ model.W_U) for row in model.W_pos])


def positions_of_the_list(model):
    return ov(model, model.W_pos)[1:11]


def position_bias_transposed(model):
    return ov(model, model.W_pos).T


def mean_position_bias(model):
    return ov(model, model.W_pos).mean(0)


def positions_direct(model):
    return model.W_pos @ model.W_U


# ── copying_share ───────────────────────────────────────────────────────────────────────────────────────────


def diagonal_on_top(ov, dim=-1):
    n = ov.shape[1]
    return (ov[:n].argmax(dim) == torch.arange(n)).float()


def special_rows_count(ov):
    return (ov.argmax(-1) == torch.arange(len(ov))).float().mean()


def top_of_each_column(ov):
    return diagonal_on_top(ov, 0).mean().item()


def top_of_each_column_of_all(ov):
    return (ov.argmax(0) == torch.arange(ov.shape[1])).float().mean().item()


def copying_count(ov):
    return diagonal_on_top(ov).sum().item()


def positive_diagonal(ov):
    return (ov.diagonal() > 0).float().mean().item()


def above_the_rows_mean(ov):
    n = ov.shape[1]
    return (ov[:n].diagonal() > ov[:n].mean(-1)).float().mean().item()


def fifty_numbers(ov):
    return diagonal_on_top(ov).sum().item() / 50


def largest_size(ov):
    return diagonal_on_top(ov.abs()).mean().item()


def copies_one_by_one(ov):
    return diagonal_on_top(ov)


def copying_in_numpy(ov):
    table = ov.numpy()[:-2]
    return np.mean(table.argmax(axis=1) == np.arange(len(table)))


# ── copied_answers ──────────────────────────────────────────────────────────────────────────────────────────


def attention_by_token(model, tokens, keys=slice(None), queries=slice(11, 21)):
    counts = F.one_hot(tokens[:, keys], model.cfg.d_vocab).float()
    return pattern_of(model, tokens)[:, queries, keys] @ counts


def most_attended_place(model, tokens):
    return tokens.gather(1, pattern_of(model, tokens)[:, 11:21].argmax(-1))


def most_attended_number(model, tokens):
    pattern = pattern_of(model, tokens)[:, 11:21]
    pattern = pattern.masked_fill((tokens >= model.cfg.d_vocab_out)[:, None], 0.0)
    return tokens.gather(1, pattern.argmax(-1))


def specials_are_answers(model, tokens):
    return attention_by_token(model, tokens).argmax(-1)


def copied_too_late(model, tokens):
    return attention_by_token(model, tokens, queries=slice(12, 22))[..., :-2].argmax(-1)


def copied_from_the_list(model, tokens):
    return attention_by_token(model, tokens, keys=slice(1, 11))[..., :-2].argmax(-1)


def models_own_answers(model, tokens):
    return model(tokens)[:, 11:21].argmax(-1)


def places_not_numbers(model, tokens):
    return pattern_of(model, tokens)[:, 11:21].argmax(-1)


def copied_everywhere(model, tokens):
    return attention_by_token(model, tokens, queries=slice(None))[..., :-2].argmax(-1)


def copied_by_scatter(model, tokens):
    pattern = pattern_of(model, tokens)[:, 11:21].double()
    table = torch.zeros(*pattern.shape[:2], model.cfg.d_vocab, dtype=torch.float64)
    table.scatter_add_(-1, tokens[:, None].expand_as(pattern), pattern)
    return table[..., : model.cfg.d_vocab_out].argmax(-1).tolist()


# ── score_terms ─────────────────────────────────────────────────────────────────────────────────────────────


def terms(model, tokens, scale=None, order=PARTS, swap=False):
    parts = {"token": model.W_E[tokens], "position": model.W_pos.expand(len(tokens), -1, -1)}
    stacked = torch.stack([parts[name] for name in order])
    q, k = stacked @ model.W_Q[0, 0], stacked @ model.W_K[0, 0]
    if swap:
        q, k = k, q
    scale = model.cfg.d_head**0.5 if scale is None else scale
    return torch.einsum("xbqd,ybkd->xybqk", q, k) / scale


def terms_without_root(model, tokens):
    return terms(model, tokens, scale=1.0)


def terms_over_d_head(model, tokens):
    return terms(model, tokens, scale=model.cfg.d_head)


def terms_over_root_d_model(model, tokens):
    return terms(model, tokens, scale=model.cfg.d_model**0.5)


def terms_position_first(model, tokens):
    return terms(model, tokens, order=PARTS[::-1])


def terms_query_and_key_swapped(model, tokens):
    return terms(model, tokens, swap=True)


def terms_part_axes_swapped(model, tokens):
    return terms(model, tokens).transpose(0, 1)


def whole_residual(model, tokens):
    resid = model.run_with_cache(tokens)[1]["resid_pre", 0]
    q, k = resid @ model.W_Q[0, 0], resid @ model.W_K[0, 0]
    return ((q @ k.transpose(1, 2)) / model.cfg.d_head**0.5).expand(2, 2, -1, -1, -1)


def terms_summed(model, tokens):
    return terms(model, tokens).sum((0, 1))


def terms_averaged(model, tokens):
    return terms(model, tokens).mean(2)


def terms_after_softmax(model, tokens):
    return circuits.causal(terms(model, tokens)).softmax(-1)


def terms_list_first(model, tokens):
    return terms(model, tokens).permute(2, 0, 1, 3, 4)


def terms_plain(model, tokens):
    return terms(model, tokens)


def terms_masked(model, tokens):
    return circuits.causal(terms(model, tokens))


def terms_with_nan_above(model, tokens):
    return terms(model, tokens).masked_fill(torch.ones(22, 22).triu(1).bool(), torch.nan)


def terms_as_nested_lists(model, tokens):
    parts = (model.W_E[tokens].double(), model.W_pos.double().expand(len(tokens), -1, -1))
    qk = (model.W_Q[0, 0] @ model.W_K[0, 0].T).double() / model.cfg.d_head**0.5
    return [[a @ qk @ b.transpose(1, 2) for b in parts] for a in parts]


# ── successor_share ─────────────────────────────────────────────────────────────────────────────────────────


def successor(token_scores, rows, columns, target=1):
    favourite = token_scores[:rows, :columns].argmax(-1)
    return (favourite == torch.arange(len(favourite)) + target).float()


def last_number_counts(token_scores):
    n = len(token_scores) - 2
    return successor(token_scores, n, n).mean().item()


def special_keys_count(token_scores):
    n = len(token_scores) - 2
    return successor(token_scores, n - 1, n + 2).mean().item()


def successor_of_all_tokens(token_scores):
    return successor(token_scores, len(token_scores), len(token_scores)).mean().item()


def highest_over_queries(token_scores):
    n = len(token_scores) - 2
    return (token_scores[:n, : n - 1].argmax(0) == torch.arange(1, n)).float().mean().item()


def scores_itself_highest(token_scores):
    n = len(token_scores) - 2
    return successor(token_scores, n - 1, n, target=0).mean().item()


def successor_count(token_scores):
    n = len(token_scores) - 2
    return successor(token_scores, n - 1, n).sum().item()


def of_49_whatever_the_size(token_scores):
    n = len(token_scores) - 2
    return successor(token_scores, n - 1, n).sum().item() / 49


def some_larger_number(token_scores):
    n = len(token_scores) - 2
    return (token_scores[: n - 1, :n].argmax(-1) > torch.arange(n - 1)).float().mean().item()


def zero_is_no_key(token_scores):
    n = len(token_scores) - 2
    return (token_scores[: n - 1, 1:n].argmax(-1) == torch.arange(n - 1)).float().mean().item()


def successor_in_numpy(token_scores):
    table = token_scores.numpy()[:-2, :-2]
    return np.mean([row.argmax() == i + 1 for i, row in enumerate(table[:-1])])


# ── slope_by_position ───────────────────────────────────────────────────────────────────────────────────────


def position_scores(model, root=True):
    numbers = model.W_E[: model.cfg.d_vocab_out]
    return circuits.qk_scores(model, (0, 0), model.W_pos, numbers) * (1 if root else model.cfg.d_head**0.5)


def fitted(rows):
    x = torch.arange(rows.shape[1]).float()
    x = x - x.mean()
    return rows @ x / (x @ x)


def slopes_without_root(model):
    return fitted(position_scores(model, root=False))[11:21]


def slopes_everywhere(model):
    return fitted(position_scores(model))


def slopes_too_late(model):
    return fitted(position_scores(model))[12:]


def slopes_of_other_term(model):
    numbers = model.W_E[: model.cfg.d_vocab_out]
    return fitted(circuits.qk_scores(model, (0, 0), numbers, model.W_pos).T)[11:21]


def slopes_with_specials(model):
    return fitted(circuits.qk_scores(model, (0, 0), model.W_pos, model.W_E))[11:21]


def differences_of_the_ends(model):
    rows = position_scores(model)[11:21]
    return rows[:, -1] - rows[:, 0]


def ends_joined(model):
    return differences_of_the_ends(model) / (model.cfg.d_vocab_out - 1)


def slopes_through_zero(model):
    rows = position_scores(model)[11:21]
    x = torch.arange(rows.shape[1]).float()
    return rows @ x / (x @ x)


def one_slope(model):
    return fitted(position_scores(model))[11:21].mean()


def slopes_by_polyfit(model):
    rows = position_scores(model)[11:21].double().numpy()
    return np.polyfit(np.arange(rows.shape[1]), rows.T, 1)[0]


def slopes_by_lstsq(model):
    rows = position_scores(model)[11:21].double()
    x = torch.arange(rows.shape[1]).double()
    return torch.linalg.lstsq(torch.stack([x, torch.ones_like(x)], -1), rows.T).solution[0]


# ── rebuilt_logits ──────────────────────────────────────────────────────────────────────────────────────────


def scores_from(tables, tokens):
    return (
        tables["token_token"][tokens[:, :, None], tokens[:, None, :]]
        + tables["token_position"][tokens]
        + tables["position_token"][:, tokens].transpose(0, 1)
        + tables["position_position"]
    )


def rebuilt(tables, tokens, scores=None, ov=True, direct=True, pattern=None):
    scores = scores_from(tables, tokens) if scores is None else scores
    pattern = circuits.causal(scores).softmax(-1) if pattern is None else pattern
    values = tables["ov_token"][tokens] + (tables["ov_position"] if ov else 0)
    out = pattern @ values
    return out + tables["direct_token"][tokens] + tables["direct_position"] if direct else out


def no_mask(tables, tokens):
    return rebuilt(tables, tokens, pattern=scores_from(tables, tokens).softmax(-1))


def mask_after_softmax(tables, tokens):
    return rebuilt(tables, tokens, pattern=scores_from(tables, tokens).softmax(-1).tril())


def softmax_over_queries(tables, tokens):
    return rebuilt(tables, tokens, pattern=circuits.causal(scores_from(tables, tokens)).softmax(-2))


def log_probabilities(tables, tokens):
    return rebuilt(tables, tokens).log_softmax(-1)


def no_direct_path(tables, tokens):
    return rebuilt(tables, tokens, direct=False)


def no_position_ov(tables, tokens):
    return rebuilt(tables, tokens, ov=False)


def no_position_direct(tables, tokens):
    return rebuilt(tables, tokens) - tables["direct_position"]


def position_ov_at_the_query(tables, tokens):
    return rebuilt(tables, tokens, ov=False) + tables["ov_position"]


def scaled_twice(tables, tokens):
    return rebuilt(tables, tokens, scores=scores_from(tables, tokens) / 128**0.5)


def mixed_up_terms(tables, tokens):
    scores = (
        tables["token_token"][tokens[:, :, None], tokens[:, None, :]]
        + tables["token_position"][tokens].transpose(1, 2)
        + tables["position_token"][:, tokens].permute(1, 2, 0)
        + tables["position_position"]
    )
    return rebuilt(tables, tokens, scores=scores)


def tokens_turned_round(tables, tokens):
    turned = {**tables, "token_token": tables["token_token"].T}
    return rebuilt(turned, tokens)


def forgets_token_position(tables, tokens):
    return rebuilt(tables, tokens, scores=scores_from(tables, tokens) - tables["token_position"][tokens])


def rebuilt_answers(tables, tokens):
    return rebuilt(tables, tokens).argmax(-1)


def uses_the_lessons_model(tables, tokens):
    return checks.checks_rebuilding.MODELS[checks.checks_rebuilding.LESSON].get()(tokens)


def rebuilt_plainly(tables, tokens):
    return rebuilt(tables, tokens)


def rebuilt_in_double(tables, tokens):
    return rebuilt({name: table.double() for name, table in tables.items()}, tokens)


def rebuilt_by_one_hot(tables, tokens):
    n, n_ctx = tables["token_token"].shape[0], tokens.shape[1]
    places = torch.eye(n_ctx).expand(len(tokens), -1, -1)
    x = torch.cat([F.one_hot(tokens, n).float(), places], -1)
    top = torch.cat([tables["token_token"], tables["token_position"]], 1)
    table = torch.cat([top, torch.cat([tables["position_token"], tables["position_position"]], 1)])
    pattern = circuits.causal(x @ table @ x.transpose(1, 2)).softmax(-1)
    ov = torch.cat([tables["ov_token"], tables["ov_position"]])
    direct = torch.cat([tables["direct_token"], tables["direct_position"]])
    return pattern @ x @ ov + x @ direct


# ── second_differences ──────────────────────────────────────────────────────────────────────────────────────


def first_differences(ov):
    return ov.diff(dim=-1)


def along_the_columns(ov):
    return ov[2:] - 2 * ov[1:-1] + ov[:-2]


def bends_turned_round(ov):
    return 2 * ov[:, 1:-1] - ov[:, 2:] - ov[:, :-2]


def bends_halved(ov):
    return (ov[:, 2:] + ov[:, :-2]) / 2 - ov[:, 1:-1]


def bends_padded(ov):
    return F.pad(ov.diff(dim=-1).diff(dim=-1), (1, 1))


def bends_round_the_ends(ov):
    return ov.roll(1, -1) + ov.roll(-1, -1) - 2 * ov


def middle_counts_once(ov):
    return ov[:, 2:] - ov[:, 1:-1] + ov[:, :-2]


def central_difference(ov):
    return ov[:, 2:] - ov[:, :-2]


def bends_by_convolution(ov):
    return F.conv1d(ov[:, None], torch.tensor([[[1.0, -2.0, 1.0]]]))[:, 0]


def bends_in_numpy(ov):
    return np.diff(ov.numpy(), n=2, axis=1)


# ── accuracy_with_terms ─────────────────────────────────────────────────────────────────────────────────────


def with_terms(model, tokens, kept, mask=True, scale=None, swap=False):
    every = terms(model, tokens, scale=scale)
    scores = torch.zeros_like(every[0, 0])
    for query, key in kept:
        query, key = (key, query) if swap else (query, key)
        scores = scores + every[PARTS.index(query), PARTS.index(key)]
    scores = circuits.causal(scores) if mask else scores
    with model.hooks(fwd_hooks=[(SCORES, lambda activation, hook: scores[:, None])]):
        return model(tokens)


def right_share(logits, tokens):
    return (logits[:, 11:21].argmax(-1) == tokens[:, 12:]).float().mean().item()


def drops_the_kept(model, tokens, kept):
    others = [(q, k) for q in PARTS for k in PARTS if (q, k) not in kept]
    return right_share(with_terms(model, tokens, others), tokens)


def ignores_kept(model, tokens, kept):
    return right_share(model(tokens), tokens)


def parts_exchanged(model, tokens, kept):
    return right_share(with_terms(model, tokens, kept, swap=True), tokens)


def terms_without_mask(model, tokens, kept):
    return right_share(with_terms(model, tokens, kept, mask=False), tokens)


def terms_too_sharp(model, tokens, kept):
    return right_share(with_terms(model, tokens, kept, scale=1.0), tokens)


def terms_read_too_late(model, tokens, kept):
    logits = with_terms(model, tokens, kept)
    return (logits[:, 12:].argmax(-1) == tokens[:, 12:]).float().mean().item()


def every_position_counts(model, tokens, kept):
    logits = with_terms(model, tokens, kept)
    return (logits[:, :-1].argmax(-1) == tokens[:, 1:]).float().mean().item()


def whole_lists_with_terms(model, tokens, kept):
    logits = with_terms(model, tokens, kept)
    return (logits[:, 11:21].argmax(-1) == tokens[:, 12:]).all(-1).float().mean().item()


def a_share_for_each_answer(model, tokens, kept):
    logits = with_terms(model, tokens, kept)
    return (logits[:, 11:21].argmax(-1) == tokens[:, 12:]).float().mean(0)


def pattern_of_zero(model, tokens, kept):
    return right_share(with_scores(model, tokens, setting(slice(None), slice(None), 0.0), PATTERN), tokens)


def others_by_their_mean(model, tokens, kept):
    every = terms(model, tokens)
    parts = [(q, k) for q in range(2) for k in range(2)]
    chosen = [every[q, k] if (PARTS[q], PARTS[k]) in kept else every[q, k].mean(0) for q, k in parts]
    scores = circuits.causal(sum(chosen, torch.zeros_like(every[0, 0])))
    with model.hooks(fwd_hooks=[(SCORES, lambda activation, hook: scores[:, None])]):
        return right_share(model(tokens), tokens)


def share_at_mid(model, tokens, kept):
    logits = with_terms(model, tokens, kept)
    return (logits[:, 11].argmax(-1) == tokens[:, 12]).float().mean().item()


def share_wrong(model, tokens, kept):
    return 1 - right_share(with_terms(model, tokens, kept), tokens)


def kept_plainly(model, tokens, kept):
    return right_share(with_terms(model, tokens, kept), tokens)


def kept_by_subtracting(model, tokens, kept):
    every, out = terms(model, tokens).double(), []
    for q, query in enumerate(PARTS):
        for k, key in enumerate(PARTS):
            if (query, key) not in [tuple(pair) for pair in kept]:
                out.append(every[q, k])

    def hook_fn(activation, hook):
        return activation - sum(out).float()[:, None] if out else activation

    with model.hooks(fwd_hooks=[(SCORES, hook_fn)]):
        logits = model(tokens)
    return (logits[:, 11:21].argmax(-1) == tokens[:, 12:]).double().mean()


# ── counterexamples ─────────────────────────────────────────────────────────────────────────────────────────


def known():
    return checks.counterexamples.course_version()


def ordinary_lists():
    return task.make_data(50, seed=3).tokens


def repeated():
    return known()[:1].expand(50, -1)


def lists_alone():
    return known()[:, 1:11]


def not_sorted():
    tokens = known().clone()
    tokens[:, 12:] = tokens[:, 12:].flip(-1)
    return tokens


def too_large():
    tokens = known().clone()
    tokens[:, 1], tokens[:, -1] = 50, 50
    return tokens


def without_mid():
    tokens = known().clone()
    tokens[:, 11] = 50
    return tokens


def too_few():
    return known()[:10]


def one_sequence():
    return known()[0]


def list_of_tensors():
    return list(known())


def as_data():
    return task.SortedListData(known())


def as_lists():
    return known().flip(0).tolist()


def some_misses():
    return torch.cat([known()[:41], task.make_data(9, seed=1).tokens])


def as_numpy():
    return known().numpy()


# ── circuit ─────────────────────────────────────────────────────────────────────────────────────────────────


def best():
    return checks.circuit.course_version()


def best_as_a_set():
    return set(best())


def best_as_lists():
    return [list(term) for term in reversed(best())]


# ── explanation ─────────────────────────────────────────────────────────────────────────────────────────────


def perfect_algorithm(model):
    return lambda inputs, numbers: inputs[:, 12:], {}


def list_as_it_is(model):
    return lambda inputs, numbers: inputs[:, 1:11], {}


def tables_of(model):
    parts = {"token": model.W_E, "position": model.W_pos}
    return {
        **{f"{q}_{k}": circuits.qk_scores(model, (0, 0), parts[q], parts[k]) for q in PARTS for k in PARTS},
        **{f"ov_{part}": ov(model, rows) for part, rows in parts.items()},
        **{f"direct_{part}": rows @ model.W_U for part, rows in parts.items()},
    }


def all_eight_tables(model):
    def simulate(inputs, numbers):
        scores = (
            numbers["token_token"][inputs[:, :, None], inputs[:, None, :]]
            + numbers["token_position"][inputs]
            + numbers["position_token"][:, inputs].transpose(0, 1)
            + numbers["position_position"]
        )
        scores = scores.masked_fill(torch.ones(22, 22).triu(1).bool(), float("-inf"))
        values = numbers["ov_token"][inputs] + numbers["ov_position"]
        logits = scores.softmax(-1) @ values + numbers["direct_token"][inputs] + numbers["direct_position"]
        return logits[:, 11:21].argmax(-1)

    return simulate, tables_of(model)


def asks_the_model(model):
    return lambda inputs, numbers: model(inputs)[:, 11:21].argmax(-1), {}


def only_the_function(model):
    return lambda inputs, numbers: inputs[:, 12:]


def gives_logits(model):
    numbers = {"worth": ov(model, model.W_E)}
    return lambda inputs, numbers: numbers["worth"][inputs[:, 11:21]].max(-1).values, numbers


def one_answer_a_list(model):
    return lambda inputs, numbers: inputs[:, 12], {}


def all_22_positions(model):
    return lambda inputs, numbers: inputs, {}


def the_same_to_every_list(model):
    return lambda inputs, numbers: torch.arange(10).expand(len(inputs), -1) * 5, {}


def remembers_the_answers(model):
    numbers = {"answers": checks.explanation.pool.model_answers}
    return lambda inputs, numbers: numbers["answers"], numbers


def remembers_the_mistakes(model):
    pool = checks.explanation.pool
    numbers = {"off": (pool.model_answers - pool.right_answers).short()}
    return lambda inputs, numbers: inputs[:, 12:] + numbers["off"], numbers


def copies_what_it_looks_at(model):
    numbers = {
        "scores": circuits.qk_scores(model, (0, 0), model.W_E, model.W_E),
        "by_position": circuits.qk_scores(model, (0, 0), model.W_pos[11:21], model.W_E),
    }

    def simulate(inputs, numbers):
        here, listed = inputs[:, 11:21, None], inputs[:, None, 1:11]
        scores = numbers["scores"][here, listed] + numbers["by_position"][torch.arange(10)[:, None], listed]
        return inputs[:, 1:11].gather(1, scores.argmax(-1))

    return simulate, numbers


def twelve_keys(model):
    place = torch.cat([model.W_pos[1:11].mean(0).expand(50, -1), model.W_pos[[0]], model.W_pos[[11]]])
    keys = model.W_E + place
    numbers = {
        "from_token": circuits.qk_scores(model, (0, 0), model.W_E, keys),
        "from_position": circuits.qk_scores(model, (0, 0), model.W_pos[11:21], keys),
        "worth": ov(model, keys),
    }

    def simulate(inputs, numbers):
        answers = []
        for i in range(10):
            scores = numbers["from_token"][inputs[:, 11 + i, None], inputs[:, :12]]
            scores = scores + numbers["from_position"][i][inputs[:, :12]]
            worth = numbers["worth"][inputs[:, :12]]
            answers.append(torch.einsum("bk,bkv->bv", scores.softmax(-1), worth).argmax(-1))
        return torch.stack(answers, dim=1)

    return simulate, numbers


LESSON = [
    Answers(
        checks.answer_accuracy,
        wrong={
            read_too_late: "one position too late",
            read_too_early: "one position too early",
            compared_in_place: "a position predicts the number after it",
            compared_with_the_list: "compare with the sorted list",
            every_next_token: "only those at positions 11 to 20",
            one_number: "mean over everything",
            mean_over_answers: "mean over lists",
            whole_lists: "right as a whole",
            counted: "divide by the number of lists",
            in_percent: "percents",
            hits: "take the mean over lists",
            mean_probability: "mean probability",
        },
        right=[accuracy_by_probabilities, accuracy_as_list],
    ),
    Answers(
        checks.mean_pattern,
        wrong={
            mean_of_scores: "before the softmax",
            softmax_of_the_mean: "average the patterns",
            softmax_twice: "once more",
            pattern_transposed: "swapped",
            pattern_summed: "take the mean",
            first_list: "first list alone",
            mean_over_queries: "mean over queries",
            head_axis_kept: "one too many",
            pattern_of: "list axis is still there",
        },
        right=[pattern_by_hand, pattern_by_loop],
    ),
    Answers(
        checks.hide_position,
        wrong={
            score_zero: "a score like any other",
            hides_the_query: "hide the key, the last axis",
            pattern_zero: "no longer adds up to 1",
            the_place_before: "the place before",
            the_place_after: "the place after",
            from_mid_alone: "from MID alone",
            hook_returns_nothing: "Does the hook return",
            hook_stays: "hook",
            token_replaced: "replaced by BOS",
            token_overwritten: "`tokens`",
            hidden_at_mid: "at MID alone",
            hidden_answers: "return the logits",
            always_place_four: "position 13",
        },
        right=[hidden_in_place, hidden_by_a_large_number, hidden_by_renormalising],
    ),
    Answers(checks.what_if_hidden),
    Answers(
        checks.attention_to_answer,
        wrong={
            first_copy: "first copy",
            last_copy: "last copy",
            share_of_the_list: "do not divide",
            sorted_part_too: "sorted part",
            the_querys_own_number: "stands at the query",
            queries_too_late: "too late",
            keys_off_by_one: "off by one",
            mean_over_copies: "add it up",
            one_copy_by_argmax: "most attention",
            how_often_most: "how often",
            attention_of_each_list: "mean over lists",
        },
        right=[attention_by_einsum],
    ),
    Answers(
        checks.full_ov_circuit,
        wrong={
            ov_transposed: "swapped",
            ov_without_head: "direct path",
            ov_without_unembedding: "W_U",
            ov_without_embedding: "embedding is missing",
            ov_numbers_only: "BOS and MID",
            ov_of_positions: "W_E in front",
            ov_by_qk: "W_V W_O",
            ov_hard_coded: "shape",
            ov_with_direct_path: "direct path",
            ov_in_order_o_v: "W_O",
            ov_factored: "`.AB`",
        },
        right=[ov_multiplied_out, ov_by_einsum],
    ),
    Answers(
        checks.copying_share,
        wrong={
            special_rows_count: "last two rows",
            top_of_each_column: "ask of each row",
            top_of_each_column_of_all: "ask of each row",
            copying_count: "share",
            positive_diagonal: "largest of its row",
            largest_size: "absolute",
            above_the_rows_mean: "above the row's mean",
            fifty_numbers: "right on a random circuit of 50 numbers",
            copies_one_by_one: "take the mean",
        },
        right=[copying_in_numpy],
    ),
    Answers(
        checks.position_bias,
        wrong={
            position_bias_transposed: "swapped",
            positions_of_the_list: "all 22 rows",
            tokens_ov: "W_pos in front",
            mean_position_bias: "mean over positions",
            positions_direct: "direct path",
        },
        right=[position_ov_in_loop],
    ),
    Answers(
        checks.copied_answers,
        wrong={
            most_attended_place: "not added up",
            most_attended_number: "not added up",
            specials_are_answers: "no numbers",
            copied_too_late: "11 to 20",
            copied_from_the_list: "sorted part as well",
            models_own_answers: "own answers",
            places_not_numbers: "number that stands there",
            copied_everywhere: "ten answer positions",
        },
        right=[copied_by_scatter],
    ),
    Answers(
        checks.score_terms,
        wrong={
            terms_without_root: "sqrt(d_head)",
            terms_over_d_head: "square root",
            terms_over_root_d_model: "sqrt(d_model)",
            terms_position_first: "Index 0 is the token",
            terms_query_and_key_swapped: "W_Q belongs to the query",
            terms_part_axes_swapped: "first axis is the query's part",
            whole_residual: "whole score",
            terms_summed: "one by one",
            terms_averaged: "keep the list axis",
            terms_after_softmax: "softmax",
            terms_list_first: "another order",
        },
        right=[terms_plain, terms_masked, terms_with_nan_above, terms_as_nested_lists],
    ),
    Answers(
        checks.successor_share,
        wrong={
            last_number_counts: "no successor",
            special_keys_count: "keys of numbers",
            successor_of_all_tokens: "no successor",
            highest_over_queries: "the query is the row",
            scores_itself_highest: "score themselves",
            successor_count: "share",
            of_49_whatever_the_size: "whatever the size",
            some_larger_number: "some larger number",
            zero_is_no_key: "Expected",
        },
        right=[successor_in_numpy],
    ),
    Answers(checks.what_is_wrong_with_062),
    Answers(
        checks.slope_by_position,
        wrong={
            slopes_without_root: "sqrt(d_head)",
            slopes_everywhere: "11 to 20",
            slopes_too_late: "off by one",
            slopes_of_other_term: "token→position",
            slopes_with_specials: "BOS and MID",
            differences_of_the_ends: "fit a line",
            ends_joined: "least squares",
            slopes_through_zero: "through zero",
            one_slope: "each",
        },
        right=[slopes_by_polyfit, slopes_by_lstsq],
    ),
    Answers(
        checks.rebuilt_logits,
        wrong={
            no_mask: "causal mask",
            mask_after_softmax: "mask the scores before",
            softmax_over_queries: "over the keys",
            no_direct_path: "direct path is missing",
            no_position_ov: "ov_position",
            no_position_direct: "direct_position",
            position_ov_at_the_query: "the place that it attends to",
            scaled_twice: "once more",
            mixed_up_terms: "mixed up",
            tokens_turned_round: "turned round",
            forgets_token_position: "`token_position`",
            rebuilt_answers: "return the logits",
            log_probabilities: "log-probabilities",
            uses_the_lessons_model: "random tables",
        },
        right=[rebuilt_plainly, rebuilt_in_double, rebuilt_by_one_hot],
    ),
    Answers(
        checks.second_differences,
        wrong={
            first_differences: "first differences",
            along_the_columns: "along each row",
            bends_turned_round: "sign",
            bends_halved: "halved",
            bends_padded: "two columns fewer",
            bends_round_the_ends: "two columns fewer",
            middle_counts_once: "counts twice",
            central_difference: "slope",
        },
        right=[bends_by_convolution, bends_in_numpy],
    ),
    Answers(
        checks.accuracy_with_terms,
        wrong={
            drops_the_kept: "the others kept",
            ignores_kept: "own accuracy",
            parts_exchanged: "exchanged",
            terms_without_mask: "mask",
            terms_too_sharp: "sqrt(d_head)",
            terms_read_too_late: "too late",
            every_position_counts: "ten answer positions",
            whole_lists_with_terms: "count answers",
            a_share_for_each_answer: "mean over all",
            others_by_their_mean: "drop them altogether",
            share_at_mid: "at MID alone",
            share_wrong: "share of mistakes",
            pattern_of_zero: "before the softmax",
        },
        right=[kept_plainly, kept_by_subtracting],
    ),
    Answers(
        checks.counterexamples,
        wrong={
            Made(ordinary_lists): "fool the model; 40 are needed",
            Made(repeated): "repeats input 0",
            Made(lists_alone): "expected 22: BOS, 10 numbers, MID",
            Made(not_sorted): "ten numbers sorted",
            Made(too_large): "expected a number from 0 to 49",
            Made(without_mid): "expected MID (51)",
            Made(too_few): "Give 50 sequences; 10 came",
            Made(one_sequence): "expected (input, position)",
            Made(list_of_tensors): "torch.stack",
            Made(as_data): "an object of type `SortedListData`",
        },
        right=[Made(as_lists), Made(some_misses), Made(as_numpy)],
    ),
    Answers(
        checks.circuit,
        wrong={
            Value([("token", "token")]): "0.75 is needed. Which term's work",
            Value([("token", "token"), ("position", "token")]): "0.75 is needed",
            Value([("token", "token"), ("position", "position"), ("position", "token")]): "0.75 is needed",
            Value([(q, k) for q in PARTS for k in PARTS]): "name at most 3",
            Value([(0, 0)]): "pair (query part, key part)",
            Value(["token_token"]): "pair (query part, key part)",
            Value(("token", "token")): "pair (query part, key part)",
            Value([("query", "key")]): 'the parts are "token" and "position"',
            Value("token"): "A circuit is a list of terms",
            Value([("token", "token"), ("token", "token")]): "twice",
        },
        right=[Made(best), Made(best_as_a_set), Made(best_as_lists)],
    ),
    Answers(
        checks.explanation,
        wrong={
            perfect_algorithm: "as the task demands",
            list_as_it_is: "0.70 is needed",
            all_eight_tables: "at most 8,000",
            asks_the_model: "model",
            only_the_function: "return two things",
            gives_logits: "argmax",
            one_answer_a_list: "answer position",
            all_22_positions: "answer position",
            the_same_to_every_list: "same answer to every input",
            remembers_the_answers: "in another order",
            remembers_the_mistakes: "in another order",
            copies_what_it_looks_at: "0.70 is needed",
        },
        right=[twelve_keys],
    ),
]


@pytest.mark.parametrize("proof", proofs(LESSON))
def test_answers(proof):
    proof()


def test_every_exercise_has_its_wrong_answers():
    assert missing(checks.CHECKS, LESSON) == []
