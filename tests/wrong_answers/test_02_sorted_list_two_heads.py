"""Lesson 02: the wrong answers that people give, the message each must get, and other right answers."""

import math
from itertools import pairwise

import einops
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from eindex import eindex

from exercises_utils.challenges.sorted_list_two_heads import checks, task
from exercises_utils.challenges.sorted_list_two_heads import evidence as evidence_task
from exercises_utils.tools import circuits
from exercises_utils.tools.hooks import ablate, patch, record
from tests.wrong_answers.harness import Answers, Made, missing, proofs


def middle(tokens):
    return tokens.shape[1] // 2


def labels(tokens):
    return tokens[:, middle(tokens) + 1 :]


def answers_of(logits, tokens):
    return logits[:, middle(tokens) : -1]


def pick(values, numbers):
    return values.gather(-1, numbers[..., None])[..., 0]


# ── answer_probabilities ────────────────────────────────────────────────────────────────────────────────────


def logits_not_probabilities(model, tokens):
    return pick(answers_of(model(tokens), tokens), labels(tokens))


def log_probabilities(model, tokens):
    return pick(answers_of(model(tokens), tokens).log_softmax(-1), labels(tokens))


def losses_not_probabilities(model, tokens):
    return -log_probabilities(model, tokens)


def softmax_without_SEP(model, tokens):
    return pick(answers_of(model(tokens)[..., :-1].softmax(-1), tokens), labels(tokens))


def read_too_late(model, tokens):
    return pick(model(tokens).softmax(-1)[:, middle(tokens) + 1 :], labels(tokens))


def read_in_the_list(model, tokens):
    return pick(model(tokens).softmax(-1)[:, : middle(tokens)], labels(tokens))


def of_the_token_itself(model, tokens):
    return pick(answers_of(model(tokens).softmax(-1), tokens), tokens[:, middle(tokens) : -1])


def of_the_unsorted_list(model, tokens):
    return pick(answers_of(model(tokens).softmax(-1), tokens), tokens[:, : middle(tokens)])


def of_the_best_guess(model, tokens):
    return answers_of(model(tokens).softmax(-1), tokens).max(-1).values


def softmax_over_positions(model, tokens):
    return pick(answers_of(model(tokens).softmax(1), tokens), labels(tokens))


def always_ten(model, tokens):
    return pick(model(tokens).softmax(-1)[:, 10:20], tokens[:, 11:21])


def averaged_over_lists(model, tokens):
    return answer_probabilities(model, tokens).mean(0)


def whole_distributions(model, tokens):
    return answers_of(model(tokens).softmax(-1), tokens)


def accuracies(model, tokens):
    return answers_of(model(tokens), tokens).argmax(-1) == labels(tokens)


def answer_probabilities(model, tokens):
    return pick(answers_of(model(tokens).softmax(-1), tokens), labels(tokens))


def probabilities_by_loop(model, tokens):
    rows = []
    for sequence, logits in zip(tokens, model(tokens).double(), strict=True):
        rows.append(
            [
                float(logits[p].softmax(-1)[sequence[p + 1]])
                for p in range(middle(tokens), tokens.shape[1] - 1)
            ]
        )
    return np.array(rows)


def probabilities_by_eindex(model, tokens):
    return eindex(answers_of(model(tokens).softmax(-1), tokens), labels(tokens), "b a [b a]")


# ── folded_unembedding ──────────────────────────────────────────────────────────────────────────────────────


def folded(model):
    return model.ln_final.w[:, None] * model.W_U, model.b_U + model.ln_final.b @ model.W_U


def nothing_folded(model):
    return model.W_U, model.b_U


def bias_not_folded(model):
    return folded(model)[0], model.b_U


def weight_not_folded(model):
    return model.W_U, folded(model)[1]


def weight_twice_in_the_bias(model):
    W_U, _ = folded(model)
    return W_U, model.b_U + model.ln_final.b @ W_U


def b_U_lost(model):
    return folded(model)[0], model.ln_final.b @ model.W_U


def centred_too(model):
    W_U, b_U = folded(model)
    return W_U - W_U.mean(-1, keepdim=True), b_U - b_U.mean()


def transposed_unembedding(model):
    W_U, b_U = folded(model)
    return W_U.T, b_U


def other_order(model):
    return folded(model)[::-1]


def first_layernorm(model):
    ln = model.blocks[0].ln1
    return ln.w[:, None] * model.W_U, model.b_U + ln.b @ model.W_U


def only_W_U(model):
    return folded(model)[0]


def folded_by_diagonal(model):
    w, b = model.ln_final.w.double(), model.ln_final.b.double()
    return [
        torch.diag(w) @ model.W_U.double(),
        einops.einsum(b, model.W_U.double(), "d, d v -> v") + model.b_U,
    ]


def folded_in_numpy(model):
    w, b, W_U = (tensor.numpy() for tensor in (model.ln_final.w, model.ln_final.b, model.W_U))
    return (W_U.T * w).T, model.b_U.numpy() + (W_U.T @ b)


# ── constant_scale_logits ───────────────────────────────────────────────────────────────────────────────────


def with_scale(model, tokens, of):
    _, cache = model.run_with_cache(tokens)
    at = answers_of(cache["resid_post", 0], tokens)
    return at / of(cache["ln_final.hook_scale"]) @ model.W_U + model.b_U


def own_scale(model, tokens):
    return answers_of(model(tokens), tokens)


def mean_over_all_positions(model, tokens):
    return with_scale(model, tokens, lambda scale: scale.mean())


def mean_too_late(model, tokens):
    return with_scale(model, tokens, lambda scale: scale[:, middle(tokens) + 1 :].mean())


def mean_with_the_last_position(model, tokens):
    return with_scale(model, tokens, lambda scale: scale[:, middle(tokens) :].mean())


def mean_over_lists_only(model, tokens):
    return with_scale(model, tokens, lambda scale: answers_of(scale, tokens).mean(0))


def no_scale_at_all(model, tokens):
    return with_scale(model, tokens, lambda scale: 1.0)


def multiplied(model, tokens):
    return with_scale(model, tokens, lambda scale: 1 / answers_of(scale, tokens).mean())


def mean_of_inverses(model, tokens):
    return with_scale(model, tokens, lambda scale: 1 / (1 / answers_of(scale, tokens)).mean())


def scale_of_ln1(model, tokens):
    _, cache = model.run_with_cache(tokens)
    scale = answers_of(cache["scale", 0, "ln1"], tokens).mean()
    return with_scale(model, tokens, lambda _: scale)


def bias_forgotten(model, tokens):
    return constant_scale(model, tokens) - model.b_U


def all_positions_scaled(model, tokens):
    _, cache = model.run_with_cache(tokens)
    scale = answers_of(cache["ln_final.hook_scale"], tokens).mean()
    return cache["resid_post", 0] / scale @ model.W_U + model.b_U


def constant_scale(model, tokens):
    return with_scale(model, tokens, lambda scale: answers_of(scale, tokens).mean())


def constant_scale_by_hook(model, tokens):
    _, cache = model.run_with_cache(tokens)
    mean = answers_of(cache["ln_final.hook_scale"], tokens).mean()
    put = ("ln_final.hook_scale", lambda scale, hook: torch.full_like(scale, mean.item()))
    return answers_of(model.run_with_hooks(tokens, fwd_hooks=[put]), tokens)


# ── attention_to_next ───────────────────────────────────────────────────────────────────────────────────────


def mask_of(tokens, numbers):
    return (tokens[:, None, : middle(tokens)] == numbers[..., None]).float()


def attention(model, tokens, *, numbers=None, activation="pattern", late=0):
    numbers = labels(tokens) if numbers is None else numbers
    _, cache = model.run_with_cache(tokens)
    n = middle(tokens)
    rows = cache[activation, 0][:, :, n + late : 2 * n + late, :n]
    return (rows * mask_of(tokens, numbers)[:, None]).sum(-1)


def to_next(model, tokens):
    return attention(model, tokens).mean(0)


def queries_too_late(model, tokens):
    return attention(model, tokens, late=1).mean(0)


def scores_not_pattern(model, tokens):
    return attention(model, tokens, activation="attn_scores").mean(0)


def summed_over_lists(model, tokens):
    return attention(model, tokens).sum(0)


def every_list(model, tokens):
    return attention(model, tokens)


def heads_averaged(model, tokens):
    return to_next(model, tokens).mean(0)


def in_the_sorted_part(model, tokens):
    _, cache = model.run_with_cache(tokens)
    n = middle(tokens)
    return cache["pattern", 0][:, :, range(n, 2 * n), range(n + 1, 2 * n + 1)].mean(0)


def place_k_for_answer_k(model, tokens):
    _, cache = model.run_with_cache(tokens)
    n = middle(tokens)
    return cache["pattern", 0][:, :, range(n, 2 * n), range(n)].mean(0)


def pattern_turned_round(model, tokens):
    _, cache = model.run_with_cache(tokens)
    n = middle(tokens)
    rows = cache["pattern", 0].transpose(-1, -2)[:, :, n : 2 * n, :n]
    return (rows * mask_of(tokens, labels(tokens))[:, None]).sum(-1).mean(0)


def to_itself(model, tokens):
    return attention(model, tokens, numbers=tokens[:, middle(tokens) : -1]).mean(0)


def to_itself_everywhere(model, tokens):
    _, cache = model.run_with_cache(tokens)
    same = tokens[:, middle(tokens) : -1, None] == tokens[:, None]
    return (cache["pattern", 0][:, :, middle(tokens) : -1] * same[:, None]).sum(-1).mean(0)


def next_transposed(model, tokens):
    return to_next(model, tokens).T


def next_by_argsort(model, tokens):
    _, cache = model.run_with_cache(tokens)
    n = middle(tokens)
    order = tokens[:, :n].argsort(-1)
    rows = cache["pattern", 0].double()[:, :, n:-1, :n]
    return rows.gather(-1, order[:, None, :, None].expand(-1, rows.shape[1], -1, 1))[..., 0].mean(0)


# ── ablation_costs ──────────────────────────────────────────────────────────────────────────────────────────


def loss(model, tokens):
    logits = answers_of(model(tokens), tokens)
    return F.cross_entropy(logits.flatten(0, 1), labels(tokens).flatten())


def costs(model, tokens, *, how="mean", activation="z", heads=lambda head, n: [head], loss=loss):
    before, found = loss(model, tokens), []
    for head in range(model.cfg.n_heads):
        with ablate(model, [(0, h) for h in heads(head, model.cfg.n_heads)], activation=activation, how=how):
            found.append(loss(model, tokens) - before)
    return torch.stack(found)


def probabilities_lost(model, tokens):
    return -costs(model, tokens, loss=lambda model, tokens: answer_probabilities(model, tokens).mean())


def logarithm_of_the_mean(model, tokens):
    return costs(model, tokens, loss=lambda model, tokens: -answer_probabilities(model, tokens).mean().log())


def medians_of_the_loss(model, tokens):
    return costs(model, tokens, loss=lambda model, tokens: (-log_probabilities(model, tokens)).median())


def losses_not_costs(model, tokens):
    return costs(model, tokens) + loss(model, tokens)


def gains(model, tokens):
    return -costs(model, tokens)


def in_bits(model, tokens):
    return costs(model, tokens) / math.log(2)


def summed_losses(model, tokens):
    return costs(model, tokens) * labels(tokens).numel()


def zero_ablation(model, tokens):
    return costs(model, tokens, how="zero")


def all_but_one(model, tokens):
    return costs(model, tokens, heads=lambda head, n: [h for h in range(n) if h != head])


def all_heads_at_once(model, tokens):
    return costs(model, tokens, heads=lambda head, n: list(range(n)))


def heads_pile_up(model, tokens):
    return costs(model, tokens, heads=lambda head, n: list(range(head + 1)))


def compared_with_itself(model, tokens):
    found = []
    for head in range(model.cfg.n_heads):
        with ablate(model, [(0, head)]):
            found.append(loss(model, tokens) - loss(model, tokens))
    return torch.stack(found)


def loss_at_all_positions(model, tokens):
    def everywhere():
        return F.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())

    before, found = everywhere(), []
    for head in range(model.cfg.n_heads):
        with ablate(model, [(0, head)]):
            found.append(everywhere() - before)
    return torch.stack(found)


def one_mean_for_all_positions(model, tokens):
    before, found = loss(model, tokens), []
    _, cache = model.run_with_cache(tokens)
    z = cache["z", 0]
    for head in range(model.cfg.n_heads):
        with patch(model, "z", 0, z.mean((0, 1), keepdim=True).expand_as(z), heads=[head]):
            found.append(loss(model, tokens) - before)
    return torch.stack(found)


def two_heads_always(model, tokens):
    return costs(model, tokens)[:2]


def costs_of_result(model, tokens):
    return costs(model, tokens, activation="result")


def costs_in_lists(model, tokens):
    before = -answer_probabilities(model, tokens).log().mean()
    found = []
    for head in range(model.cfg.n_heads):
        with ablate(model, [(0, head)]):
            found.append(float(-answer_probabilities(model, tokens).log().mean() - before))
    return found


def hook_left_on(model, tokens):
    result = costs(model, tokens)
    model.add_hook("blocks.0.attn.hook_z", lambda z, hook: z)
    return result


# ── costs_by_number ─────────────────────────────────────────────────────────────────────────────────────────


def losses(model, tokens):
    return -answer_probabilities(model, tokens).log()


def rises(model, tokens, how="mean"):
    before, found = losses(model, tokens), []
    for head in range(model.cfg.n_heads):
        with ablate(model, [(0, head)], how=how):
            found.append(losses(model, tokens) - before)
    return torch.stack(found)


def grouped(rise, numbers, n_numbers, how=torch.mean):
    return torch.stack([torch.stack([how(r[numbers == t]) for t in range(n_numbers)]) for r in rise])


def by_number(model, tokens):
    return grouped(rises(model, tokens), labels(tokens), model.cfg.d_vocab - 1)


def by_the_token_before(model, tokens):
    return grouped(rises(model, tokens), tokens[:, middle(tokens) : -1], model.cfg.d_vocab - 1)


def medians_by_number(model, tokens):
    return grouped(rises(model, tokens), labels(tokens), model.cfg.d_vocab - 1, how=torch.median)


def whole_lists_by_number(model, tokens):
    rise, right = rises(model, tokens), labels(tokens)
    numbers = range(model.cfg.d_vocab - 1)
    return torch.stack([rise[:, (right == t).any(1)].mean((1, 2)) for t in numbers], dim=-1)


def by_the_unsorted_list(model, tokens):
    return grouped(rises(model, tokens), tokens[:, : middle(tokens)], model.cfg.d_vocab - 1)


def infinity_for_nan(model, tokens):
    return by_number(model, tokens).nan_to_num(math.inf)


def minus_one_for_nan(model, tokens):
    return by_number(model, tokens).nan_to_num(-1.0)


def zeros_for_nan(model, tokens):
    return by_number(model, tokens).nan_to_num(0.0)


def sums_by_number(model, tokens):
    return grouped(rises(model, tokens), labels(tokens), model.cfg.d_vocab - 1, torch.sum)


def by_number_of_lists(model, tokens):
    return sums_by_number(model, tokens) / len(tokens)


def with_a_column_for_SEP(model, tokens):
    return grouped(rises(model, tokens), labels(tokens), model.cfg.d_vocab)


def gains_by_number(model, tokens):
    return -by_number(model, tokens)


def losses_by_number(model, tokens):
    return grouped(rises(model, tokens) + losses(model, tokens), labels(tokens), model.cfg.d_vocab - 1)


def zero_by_number(model, tokens):
    return grouped(rises(model, tokens, "zero"), labels(tokens), model.cfg.d_vocab - 1)


def numbers_are_rows(model, tokens):
    return by_number(model, tokens).T


def fifty_one_numbers(model, tokens):
    return grouped(rises(model, tokens), labels(tokens), 51)


def by_number_with_bincount(model, tokens):
    flat = labels(tokens).flatten()
    n = model.cfg.d_vocab - 1
    sums = torch.stack(
        [torch.bincount(flat, r.double().flatten(), minlength=n) for r in rises(model, tokens)]
    )
    return sums / torch.bincount(flat, minlength=n)


# ── owners_only ─────────────────────────────────────────────────────────────────────────────────────────────


def keep_owner(model, tokens, owner_at, *, invert=False, zero=False, over=0):
    n = middle(tokens)
    _, cache = model.run_with_cache(tokens)
    z = cache["z", 0].clone()
    keep = (owner_at[..., None] == torch.arange(z.shape[2])) != invert
    at = z[:, n:-1]
    mean = z.mean((0, 1)) if over == (0, 1) else at.mean(0)
    z[:, n:-1] = torch.where(keep[..., None], at, torch.zeros_like(at) if zero else mean)
    with patch(model, "z", 0, z):
        return model(tokens)


def only(model, tokens, owner):
    return answers_of(keep_owner(model, tokens, owner[labels(tokens)]), tokens)


def model_untouched(model, tokens, owner):
    return answers_of(model(tokens), tokens)


def owner_of_the_token(model, tokens, owner):
    owner = torch.cat([owner, owner[-1:]])
    return answers_of(keep_owner(model, tokens, owner[tokens[:, middle(tokens) : -1]]), tokens)


def owner_ablated(model, tokens, owner):
    return answers_of(keep_owner(model, tokens, owner[labels(tokens)], invert=True), tokens)


def others_zero(model, tokens, owner):
    return answers_of(keep_owner(model, tokens, owner[labels(tokens)], zero=True), tokens)


def others_one_mean(model, tokens, owner):
    return answers_of(keep_owner(model, tokens, owner[labels(tokens)], over=(0, 1)), tokens)


def owners_of_the_unsorted_list(model, tokens, owner):
    return answers_of(keep_owner(model, tokens, owner[tokens[:, : middle(tokens)]]), tokens)


def owners_at_all_positions(model, tokens, owner):
    return keep_owner(model, tokens, owner[labels(tokens)])


def mean_of_ablated_lists(model, tokens, owner):
    n = middle(tokens)
    _, cache = model.run_with_cache(tokens)
    z = cache["z", 0].clone()
    at = owner[labels(tokens)]
    for head in range(z.shape[2]):
        for answer in range(n):
            others = at[:, answer] != head
            if others.any():
                z[others, n + answer, head] = z[others, n + answer, head].mean(0)
    with patch(model, "z", 0, z):
        return answers_of(model(tokens), tokens)


def two_heads_only(model, tokens, owner):
    n = middle(tokens)
    _, cache = model.run_with_cache(tokens)
    z = cache["z", 0].clone()
    for head in range(2):
        others = owner[labels(tokens)] != head
        z[:, n:-1, head] = torch.where(others[..., None], z[:, n:-1, head].mean(0), z[:, n:-1, head])
    with patch(model, "z", 0, z):
        return answers_of(model(tokens), tokens)


def only_head_by_head(model, tokens, owner):
    """Every head's own run, and the answers that it owns picked from it."""
    n = middle(tokens)
    result = torch.zeros(len(tokens), n, model.cfg.d_vocab_out, dtype=torch.float64)
    for head in range(model.cfg.n_heads):
        others = [(0, h) for h in range(model.cfg.n_heads) if h != head]
        with ablate(model, others, activation="result", how="mean"):
            logits = answers_of(model(tokens), tokens)
        mine = owner[labels(tokens)] == head
        result[mine] = logits[mine].double()
    return result


def changes_the_owner(model, tokens, owner):
    result = only(model, tokens, owner)
    owner += 0 * owner + 1
    return result


# ── number_ranges ───────────────────────────────────────────────────────────────────────────────────────────


def runs(owner):
    cuts = [0, *[i for i, (a, b) in enumerate(pairwise(owner.tolist()), 1) if a != b], len(owner)]
    return [(int(owner[a]), a, b - 1) for a, b in pairwise(cuts)]


def ranges(owner):
    found = {}
    for head, first, last in runs(owner):
        found.setdefault(head, []).append((first, last))
    return found


def ends_exclusive(owner):
    return {head: [(a, b + 1) for a, b in pairs] for head, pairs in ranges(owner).items()}


def first_to_last(owner):
    return {head: [(pairs[0][0], pairs[-1][1])] for head, pairs in ranges(owner).items()}


def all_numbers(owner):
    return {int(h): (owner == h).nonzero().flatten().tolist() for h in owner.unique()}


def no_single_numbers(owner):
    found = {h: [(a, b) for a, b in pairs if a < b] for h, pairs in ranges(owner).items()}
    return {h: pairs for h, pairs in found.items() if pairs}


def single_numbers_bare(owner):
    return {h: [(a, b) if a < b else a for a, b in pairs] for h, pairs in ranges(owner).items()}


def last_run_forgotten(owner):
    found = {}
    start = 0
    for number, (a, b) in enumerate(pairwise(owner.tolist()), 1):
        if a != b:
            found.setdefault(a, []).append((start, number - 1))
            start = number
    return found


def overwritten(owner):
    return {head: [(first, last)] for head, first, last in runs(owner)}


def keys_are_texts(owner):
    return {str(head): found for head, found in ranges(owner).items()}


def keys_are_tensors(owner):
    return {torch.tensor(head): pairs for head, pairs in ranges(owner).items()}


def an_entry_for_every_head(owner):
    return {head: ranges(owner).get(head, []) for head in range(int(owner.max()) + 1)}


def list_of_runs(owner):
    return [(first, last) for _, first, last in runs(owner)]


def ranges_as_lists_of_tensors(owner):
    found = {}
    for head in owner.unique():
        mine = (owner == head).nonzero().flatten()
        breaks = (mine.diff() > 1).nonzero().flatten() + 1
        pieces = torch.tensor_split(mine, breaks)
        found[int(head)] = [[piece[0], piece[-1]] for piece in pieces]
    return found


# ── head_circuits ───────────────────────────────────────────────────────────────────────────────────────────


def ov_of(model, head):
    return model.W_E @ model.W_V[head] @ model.W_O[head] @ model.W_U


def qk_of(model, head):
    return model.W_E @ model.W_Q[head] @ model.W_K[head].T @ model.W_E.T


def both(model, head, scale, final_scale):
    return ov_of(model, head) / scale / final_scale, qk_of(model, head) / scale**2 / model.cfg.d_head**0.5


def qk_no_root(model, head, scale, final_scale):
    return both(model, head, scale, final_scale)[0], qk_of(model, head) / scale**2


def qk_scale_once(model, head, scale, final_scale):
    return both(model, head, scale, final_scale)[0], qk_of(model, head) / scale / model.cfg.d_head**0.5


def qk_transposed(model, head, scale, final_scale):
    ov, qk = both(model, head, scale, final_scale)
    return ov, qk.T


def ov_transposed(model, head, scale, final_scale):
    ov, qk = both(model, head, scale, final_scale)
    return ov.T, qk


def ov_without_final_scale(model, head, scale, final_scale):
    return ov_of(model, head) / scale, both(model, head, scale, final_scale)[1]


def ov_scale_twice(model, head, scale, final_scale):
    return ov_of(model, head) / scale**2, both(model, head, scale, final_scale)[1]


def ov_with_root(model, head, scale, final_scale):
    ov, qk = both(model, head, scale, final_scale)
    return ov / model.cfg.d_head**0.5, qk


def ov_into_W_E(model, head, scale, final_scale):
    written = model.W_E @ model.W_V[head] @ model.W_O[head] / scale / final_scale
    return written @ model.W_E.T, both(model, head, scale, final_scale)[1]


def scales_forgotten(model, head, scale, final_scale):
    return ov_of(model, head), qk_of(model, head) / model.cfg.d_head**0.5


def qk_first(model, head, scale, final_scale):
    return both(model, head, scale, final_scale)[::-1]


def without_SEP(model, head, scale, final_scale):
    ov, qk = both(model, head, scale, final_scale)
    return ov[:-1, :-1], qk[:-1, :-1]


def with_biases(model, head, scale, final_scale):
    q = model.W_E / scale @ model.W_Q[head] + model.b_Q[head]
    k = model.W_E / scale @ model.W_K[head] + model.b_K[head]
    return both(model, head, scale, final_scale)[0], q @ k.T / model.cfg.d_head**0.5


def other_circuits_head(model, head, scale, final_scale):
    return both(model, (0, 0), scale, final_scale)


def d_head_48(model, head, scale, final_scale):
    return both(model, head, scale, final_scale)[0], qk_of(model, head) / scale**2 / 48**0.5


def by_shared_functions(model, head, scale, final_scale):
    ov = circuits.ov_output(model, head, model.W_E, scale) @ model.W_U / final_scale
    return ov, circuits.qk_scores(model, head, model.W_E, model.W_E, scale)


def circuits_by_einsum(model, head, scale, final_scale):
    layer, index = head
    E = model.W_E.double() / scale
    v = einops.einsum(E, model.W_V[layer, index].double(), "s d, d h -> s h")
    o = einops.einsum(v, model.W_O[layer, index].double(), "s h, h d -> s d")
    q = einops.einsum(E, model.W_Q[layer, index].double(), "t d, d h -> t h")
    k = einops.einsum(E, model.W_K[layer, index].double(), "t d, d h -> t h")
    return [o @ model.W_U.double() / final_scale, (q @ k.T) / np.sqrt(model.cfg.d_head)]


# ── copying_head ────────────────────────────────────────────────────────────────────────────────────────────


def margins(ov, axis=-1):
    diagonal = torch.diagonal(ov, dim1=1, dim2=2)
    hole = torch.eye(ov.shape[1], dtype=torch.bool)
    return diagonal - ov.masked_fill(hole, float("-inf")).max(axis).values


def copier(ov):
    return margins(ov[:, :-1, :-1]).argmax(0)


def diagonal_alone(ov):
    return torch.diagonal(ov, dim1=1, dim2=2)[:, :-1].argmax(0)


def SEP_among_the_others(ov):
    return margins(ov)[:, :-1].argmax(0)


def margin_along_sources(ov):
    return margins(ov[:, :-1, :-1], 1).argmax(0)


def smallest_margin(ov):
    return margins(ov[:, :-1, :-1]).argmin(0)


def mean_of_the_others(ov):
    numbers = ov[:, :-1, :-1]
    own = torch.diagonal(numbers, dim1=1, dim2=2)
    return (own - (numbers.sum(-1) - own) / (numbers.shape[-1] - 1)).argmax(0)


def diagonal_left_in(ov):
    numbers = ov[:, :-1, :-1]
    return (torch.diagonal(numbers, dim1=1, dim2=2) - numbers.amax(-1)).argmax(0)


def zero_on_the_diagonal(ov):
    numbers = ov[:, :-1, :-1].clone()
    own = torch.diagonal(numbers, dim1=1, dim2=2).clone()
    numbers.diagonal(dim1=1, dim2=2).zero_()
    return (own - numbers.amax(-1)).argmax(0)


def SEP_has_an_answer(ov):
    return margins(ov).argmax(0)


def margins_themselves(ov):
    return margins(ov[:, :-1, :-1])


def best_number_of_each_head(ov):
    return margins(ov[:, :-1, :-1]).argmax(1)


def last_of_equals(ov):
    return len(ov) - 1 - margins(ov[:, :-1, :-1]).flip(0).argmax(0)


def copier_by_loop(ov):
    found = []
    for number in range(ov.shape[1] - 1):
        best, best_margin = 0, -math.inf
        for head in range(ov.shape[0]):
            row = ov[head, number, :-1]
            others = torch.cat([row[:number], row[number + 1 :]])
            margin = float(row[number] - others.max())
            if margin > best_margin:
                best, best_margin = head, margin
        found.append(best)
    return found


# ── shared_pattern ──────────────────────────────────────────────────────────────────────────────────────────


def with_pattern(model, tokens, change):
    _, cache = model.run_with_cache(tokens)
    with patch(model, "pattern", 0, change(cache["pattern", 0])):
        return answers_of(model(tokens), tokens)


def nothing_shared(model, tokens, giver):
    return answers_of(model(tokens), tokens)


def head_0_gives(model, tokens, giver):
    return with_pattern(model, tokens, lambda p: p[:, :1].expand_as(p))


def exchanged(model, tokens, giver):
    return with_pattern(model, tokens, lambda p: p.flip(1))


def mean_pattern_of_heads(model, tokens, giver):
    return with_pattern(model, tokens, lambda p: p.mean(1, keepdim=True).expand_as(p))


def output_shared(model, tokens, giver):
    _, cache = model.run_with_cache(tokens)
    z = cache["z", 0]
    with patch(model, "z", 0, z[:, :, giver : giver + 1].expand_as(z)):
        return answers_of(model(tokens), tokens)


def others_switched_off(model, tokens, giver):
    def change(p):
        kept = torch.zeros_like(p)
        kept[:, giver] = p[:, giver]
        return kept

    return with_pattern(model, tokens, change)


def first_lists_pattern(model, tokens, giver):
    return with_pattern(model, tokens, lambda p: p[:1, giver : giver + 1].expand_as(p))


def shared_everywhere(model, tokens, giver):
    _, cache = model.run_with_cache(tokens)
    p = cache["pattern", 0]
    with patch(model, "pattern", 0, p[:, giver : giver + 1].expand_as(p)):
        return model(tokens)


def shared(model, tokens, giver):
    return with_pattern(model, tokens, lambda p: p[:, giver : giver + 1].expand_as(p))


def shared_by_own_hook(model, tokens, giver):
    def put(pattern, hook):
        pattern[:] = pattern[:, [giver]]
        return pattern

    hooks = [("blocks.0.attn.hook_pattern", put)]
    return answers_of(model.run_with_hooks(tokens, fwd_hooks=hooks), tokens).double()


def shared_queries_and_keys(model, tokens, giver):
    _, cache = model.run_with_cache(tokens)
    q, k = cache["q", 0], cache["k", 0]
    with (
        patch(model, "q", 0, q[:, :, [giver]].expand_as(q)),
        patch(model, "k", 0, k[:, :, [giver]].expand_as(k)),
    ):
        return answers_of(model(tokens), tokens)


# ── key_scores ──────────────────────────────────────────────────────────────────────────────────────────────


def scores(model, head, q, k, *, biases=True, b_Q=True, b_K=True, normalise=True, root=True):
    def ln(x):
        return x / (x.pow(2).mean(-1, keepdim=True) + model.cfg.eps).sqrt() if normalise else x

    q = ln(q) @ model.W_Q[head] + (biases and b_Q) * model.b_Q[head]
    k = ln(k) @ model.W_K[head] + (biases and b_K) * model.b_K[head]
    return k @ q / (model.cfg.d_head**0.5 if root else 1)


def parts_of(model, query, position):
    n = model.cfg.n_ctx // 2
    return model.W_E[query] + model.W_pos[position], model.W_E[:-1] + model.W_pos[:n].mean(0)


def asks(model, head, query, position):
    return scores(model, head, *parts_of(model, query, position))


def asks_no_root(model, head, query, position):
    return scores(model, head, *parts_of(model, query, position), root=False)


def asks_no_b_Q(model, head, query, position):
    return scores(model, head, *parts_of(model, query, position), b_Q=False)


def asks_no_b_K(model, head, query, position):
    return scores(model, head, *parts_of(model, query, position), b_K=False)


def asks_no_biases(model, head, query, position):
    return scores(model, head, *parts_of(model, query, position), biases=False)


def asks_no_layernorm(model, head, query, position):
    return scores(model, head, *parts_of(model, query, position), normalise=False)


def asks_no_positions(model, head, query, position):
    return scores(model, head, model.W_E[query], model.W_E[:-1])


def asks_no_key_positions(model, head, query, position):
    return scores(model, head, parts_of(model, query, position)[0], model.W_E[:-1])


def asks_no_query_position(model, head, query, position):
    return scores(model, head, model.W_E[query], parts_of(model, query, position)[1])


def asks_all_positions(model, head, query, position):
    q, _ = parts_of(model, query, position)
    return scores(model, head, q, model.W_E[:-1] + model.W_pos.mean(0))


def asks_with_SEPs_position(model, head, query, position):
    q, _ = parts_of(model, query, position)
    return scores(model, head, q, model.W_E[:-1] + model.W_pos[: model.cfg.n_ctx // 2 + 1].mean(0))


def asks_softmax(model, head, query, position):
    return asks(model, head, query, position).softmax(-1)


def asks_SEP_too(model, head, query, position):
    q, _ = parts_of(model, query, position)
    n = model.cfg.n_ctx // 2
    return scores(model, head, q, model.W_E + model.W_pos[:n].mean(0))


def asks_the_other_way(model, head, query, position):
    q, keys = parts_of(model, query, position)
    return torch.stack([scores(model, head, key, q[None])[0] for key in keys])


def asks_list_of_ten(model, head, query, position):
    q, _ = parts_of(model, query, position)
    return scores(model, head, q, model.W_E[:-1] + model.W_pos[:10].mean(0))


def asks_by_einsum(model, head, query, position):
    q, k = (x.double() for x in parts_of(model, query, position))
    q = F.layer_norm(q, q.shape[-1:], eps=model.cfg.eps)
    k = F.layer_norm(k, k.shape[-1:], eps=model.cfg.eps)
    q = einops.einsum(q, model.W_Q[head].double(), "d, d h -> h") + model.b_Q[head]
    k = einops.einsum(k, model.W_K[head].double(), "n d, d h -> n h") + model.b_K[head]
    return (k * q).sum(-1) / math.sqrt(model.cfg.d_head)


# ── position_key_scores ─────────────────────────────────────────────────────────────────────────────────────


def position_scores(model, head, scale):
    return circuits.qk_scores(model, head, model.W_pos, model.W_E, scale)


def positions_no_root(model, head, scale):
    return position_scores(model, head, scale) * model.cfg.d_head**0.5


def positions_scale_once(model, head, scale):
    return position_scores(model, head, scale) * scale


def positions_no_scale(model, head, scale):
    return circuits.qk_scores(model, head, model.W_pos, model.W_E)


def positions_transposed(model, head, scale):
    return position_scores(model, head, scale).T


def tokens_ask(model, head, scale):
    return circuits.qk_scores(model, head, model.W_E, model.W_pos, scale)


def tokens_ask_turned(model, head, scale):
    return tokens_ask(model, head, scale).T


def positions_only(model, head, scale):
    return circuits.qk_scores(model, head, model.W_pos, model.W_pos, scale)


def tokens_only(model, head, scale):
    return circuits.qk_scores(model, head, model.W_E, model.W_E, scale)


def positions_without_SEP(model, head, scale):
    return position_scores(model, head, scale)[:, :-1]


def answer_positions_only(model, head, scale):
    return position_scores(model, head, scale)[model.cfg.n_ctx // 2 : -1]


def positions_by_einsum(model, head, scale):
    q = einops.einsum(model.W_pos.double(), model.W_Q[head].double(), "p d, d h -> p h") / scale
    k = einops.einsum(model.W_E.double(), model.W_K[head].double(), "t d, d h -> t h") / scale
    return einops.einsum(q, k, "p h, t h -> p t") / model.cfg.d_head**0.5


# ── without_direct_path ─────────────────────────────────────────────────────────────────────────────────────


def less(model, tokens, what, *, scale="ln_final.hook_scale"):
    logits, cache = model.run_with_cache(tokens)
    divide_by = cache[scale] if scale else 1.0
    return answers_of(logits - what / divide_by @ model.W_U, tokens)


def no_direct(model, tokens):
    return less(model, tokens, model.W_E[tokens])


def untouched(model, tokens):
    return answers_of(model(tokens), tokens)


def direct_no_scale(model, tokens):
    return less(model, tokens, model.W_E[tokens], scale=None)


def direct_first_scale(model, tokens):
    return less(model, tokens, model.W_E[tokens], scale="blocks.0.ln1.hook_scale")


def direct_added(model, tokens):
    return less(model, tokens, -model.W_E[tokens])


def direct_with_positions(model, tokens):
    return less(model, tokens, model.W_E[tokens] + model.W_pos[: tokens.shape[1]])


def direct_alone(model, tokens):
    return untouched(model, tokens) - no_direct(model, tokens)


def direct_scale_again(model, tokens):
    hooks = [("ln_final.hook_in", lambda resid, hook: resid - model.W_E[tokens])]
    return answers_of(model.run_with_hooks(tokens, fwd_hooks=hooks), tokens)


def no_embedding(model, tokens):
    hooks = [("hook_embed", lambda embed, hook: torch.zeros_like(embed))]
    return answers_of(model.run_with_hooks(tokens, fwd_hooks=hooks), tokens)


def direct_of_the_answer(model, tokens):
    return less(model, tokens, model.W_E[tokens.roll(-1, -1)])


def direct_everywhere(model, tokens):
    logits, cache = model.run_with_cache(tokens)
    return logits - cache["embed"] / cache["ln_final.hook_scale"] @ model.W_U


def no_direct_by_residual(model, tokens):
    _, cache = model.run_with_cache(tokens)
    rest = (cache["resid_post", 0] - cache["embed"]).double() / cache["ln_final.hook_scale"]
    return answers_of(rest @ model.W_U.double() + model.b_U, tokens)


def no_direct_with_the_scale_held(model, tokens):
    _, cache = model.run_with_cache(tokens)
    scale = cache["ln_final.hook_scale"]
    hooks = [
        ("ln_final.hook_in", lambda resid, hook: resid - cache["embed"]),
        ("ln_final.hook_scale", lambda now, hook: scale),
    ]
    return answers_of(model.run_with_hooks(tokens, fwd_hooks=hooks), tokens)


# ── dla_from_sources ────────────────────────────────────────────────────────────────────────────────────────


def attributed(
    model, tokens, head, queries, sources, predictions, *, values="v", scale="query", weighted=True
):
    layer, index = head
    _, cache = model.run_with_cache(tokens)
    rows = torch.arange(len(tokens))[:, None]
    v = cache["v", layer][rows, sources, index]
    if values == "no bias":
        v = v - model.b_V[layer, index]
    if values == "embedding":
        v = model.W_E[tokens][rows, sources] @ model.W_V[layer, index]
    if weighted:
        v = v * cache["pattern", layer][rows, index, queries[:, None], sources][..., None]
    final = cache["ln_final.hook_scale"]
    divide_by = {
        "query": final[rows, queries[:, None]],
        "source": final[rows, sources],
        "first": cache["scale", 0, "ln1"][rows, queries[:, None]],
        "none": 1.0,
    }[scale]
    logits = v @ model.W_O[layer, index] / divide_by @ model.W_U
    return logits.gather(-1, predictions[:, None].expand(-1, sources.shape[1], -1))


def dla(model, tokens, head, queries, sources, predictions):
    return attributed(model, tokens, head, queries, sources, predictions)


def dla_no_scale(model, tokens, head, queries, sources, predictions):
    return attributed(model, tokens, head, queries, sources, predictions, scale="none")


def dla_scale_at_source(model, tokens, head, queries, sources, predictions):
    return attributed(model, tokens, head, queries, sources, predictions, scale="source")


def dla_first_scale(model, tokens, head, queries, sources, predictions):
    return attributed(model, tokens, head, queries, sources, predictions, scale="first")


def dla_no_attention(model, tokens, head, queries, sources, predictions):
    return attributed(model, tokens, head, queries, sources, predictions, weighted=False)


def dla_no_b_V(model, tokens, head, queries, sources, predictions):
    return attributed(model, tokens, head, queries, sources, predictions, values="no bias")


def dla_from_embeddings(model, tokens, head, queries, sources, predictions):
    return attributed(model, tokens, head, queries, sources, predictions, values="embedding")


def dla_head_0(model, tokens, head, queries, sources, predictions):
    return attributed(model, tokens, (0, 0), queries, sources, predictions)


def dla_all_heads(model, tokens, head, queries, sources, predictions):
    heads = range(model.cfg.n_heads)
    return sum(attributed(model, tokens, (0, h), queries, sources, predictions) for h in heads)


def dla_first_query(model, tokens, head, queries, sources, predictions):
    return attributed(model, tokens, head, queries[:1].expand_as(queries), sources, predictions)


def dla_swapped(model, tokens, head, queries, sources, predictions):
    return dla(model, tokens, head, queries, sources, predictions).transpose(1, 2)


def dla_summed(model, tokens, head, queries, sources, predictions):
    return dla(model, tokens, head, queries, sources, predictions).sum(1)


def dla_averaged(model, tokens, head, queries, sources, predictions):
    return dla(model, tokens, head, queries, sources, predictions).mean(0)


def dla_with_b_U(model, tokens, head, queries, sources, predictions):
    return dla(model, tokens, head, queries, sources, predictions) + model.b_U[predictions][:, None]


def dla_paired(model, tokens, head, queries, sources, predictions):
    rows = dla(model, tokens, head, queries, sources, predictions)
    return torch.diagonal(rows, dim1=1, dim2=2)


def dla_by_loop(model, tokens, head, queries, sources, predictions):
    layer, index = head
    names = {n: f"blocks.{layer}.attn.hook_{n}" for n in ("pattern", "v")} | {"s": "ln_final.hook_scale"}
    with record(model, *names.values()) as seen:
        model(tokens)
    pattern, v, scale = (seen[names[n]].double() for n in ("pattern", "v", "s"))
    result = []
    for i in range(len(tokens)):
        query = queries[i]
        written = pattern[i, index, query, sources[i], None] * v[i, sources[i], index]
        logits = written @ model.W_O[layer, index].double() / scale[i, query] @ model.W_U.double()
        result.append(logits[:, predictions[i]])
    return torch.stack(result)


# ── counterexamples ─────────────────────────────────────────────────────────────────────────────────────────


def known():
    return checks.counterexamples.reference()


def gapped_lists():
    """By code: lists with a gap as the lesson finds them, the worst first."""
    model = checks.counterexamples.model.get()
    tokens = task.gap_lists(600, seed=3, gap=26).tokens
    margin = evidence_task.margin(model(tokens), tokens)
    return tokens[margin.argsort(descending=True)[:50]].tolist()


def ordinary_lists():
    return task.make_data(50, seed=7).tokens


def with_repeats():
    return task.repeat_lists(50, seed=7).tokens


def unsorted_answers():
    tokens = known().clone()
    tokens[:, 11:] = tokens[:, :10]
    return tokens


def lists_alone():
    return known()[:, :10]


def no_separator():
    tokens = known().clone()
    tokens[:, 10] = 0
    return tokens


def one_list_again():
    return known()[:1].expand(50, -1)


def too_few():
    return known()[:10]


def a_single_list():
    return known()[0]


def list_of_tensors():
    return list(known())


def number_too_large():
    tokens = known()
    return torch.where(tokens == tokens[:, 20:], 60, tokens)


# ── right_attention ─────────────────────────────────────────────────────────────────────────────────────────


def look(model, tokens, *, wanted=None, shares=True, clear=True, heads=slice(None), late=0, at=0):
    n = middle(tokens)
    _, cache = model.run_with_cache(tokens)
    pattern = cache["pattern", 0].clone()
    wanted = mask_of(tokens, labels(tokens)) if wanted is None else wanted
    wanted = wanted / wanted.sum(-1, keepdim=True).clamp(min=1) if shares else wanted
    if clear:
        pattern[:, heads, n + late : 2 * n + late] = 0
    pattern[:, heads, n + late : 2 * n + late, at : at + n] = wanted[:, None]
    with patch(model, "pattern", 0, pattern):
        return answers_of(model(tokens), tokens)


def looking(model, tokens):
    return look(model, tokens)


def look_outside(model, tokens):
    return answers_of(model(tokens), tokens)


def look_without_shares(model, tokens):
    return look(model, tokens, shares=False)


def look_at_the_first(model, tokens):
    first = mask_of(tokens, labels(tokens)).argmax(-1)
    return look(model, tokens, wanted=F.one_hot(first, middle(tokens)).float())


def rest_of_the_row_left(model, tokens):
    return look(model, tokens, clear=False)


def look_at_itself(model, tokens):
    return look(model, tokens, wanted=mask_of(tokens, tokens[:, middle(tokens) : -1]))


def look_too_late(model, tokens):
    return look(model, tokens, late=1)


def look_at_the_sorted_part(model, tokens):
    n = middle(tokens)
    return look(model, tokens, wanted=torch.eye(n).expand(len(tokens), n, n), at=n + 1)


def one_head_looks(model, tokens):
    return look(model, tokens, heads=slice(0, 1))


def look_in_two_heads(model, tokens):
    return look(model, tokens, heads=slice(0, 2))


def looking_by_scores(model, tokens):
    """By way of the scores: minus infinity everywhere else, and a softmax gives equal shares."""
    n = middle(tokens)
    _, cache = model.run_with_cache(tokens)
    scores = cache["attn_scores", 0].clone()
    scores[:, :, n:-1] = float("-inf")
    scores[:, :, n:-1, :n] = mask_of(tokens, labels(tokens)).log()[:, None]
    with patch(model, "attn_scores", 0, scores):
        return answers_of(model(tokens), tokens).double()


# ── circuit ─────────────────────────────────────────────────────────────────────────────────────────────────


def best_circuit():
    return checks.circuit.reference()


def as_a_set():
    return set(best_circuit())


def numpy_sites():
    return [tuple(np.array(site)) for site in best_circuit()]


def whole_model():
    return list(evidence_task.SITES)


def both_heads():
    return [(0, 0), (0, 1)]


def one_head_everywhere():
    return [(0, 0, position) for position in task.ANSWER_POSITIONS]


def first_answers_only():
    return [(0, head, position) for head in range(2) for position in range(10, 17)]


def sites_in_the_list():
    return [(0, head, position) for head in range(2) for position in range(5)]


def no_such_head():
    return [(0, 2, 12)]


def site_twice():
    return [(0, 0, 12), (0, 0, 12)]


# ── explanation ─────────────────────────────────────────────────────────────────────────────────────────────


def perfect_algorithm(model):
    return (lambda inputs, numbers: inputs[:, 11:]), {}


def next_in_the_list(model):
    """Sorts by itself instead of copying what is there."""
    return (lambda inputs, numbers: inputs[:, :10].sort(-1).values), {}


def never_right(model):
    return (lambda inputs, numbers: (inputs[:, 11:] + 1) % 52), {}


def asks_the_model(model):
    return (lambda inputs, numbers: model(inputs)[:, 10:20].argmax(-1)), {}


def hides_the_model(model):
    return (lambda inputs, numbers: numbers["model"](inputs)), {"model": model}


def only_the_function(model):
    return lambda inputs, numbers: inputs[:, 11:]


def gives_logits(model):
    return (lambda inputs, numbers: numbers["bias"].expand(len(inputs), 10, 52)), {"bias": model.b_U}


def gives_probabilities(model):
    return (lambda inputs, numbers: numbers["p"].expand(len(inputs), 10)), {"p": torch.tensor(0.5)}


def one_answer_each(model):
    return (lambda inputs, numbers: inputs[:, 11]), {}


def always_zero(model):
    return (lambda inputs, numbers: torch.zeros(len(inputs), 10, dtype=torch.long)), {}


def changes_its_inputs(model):
    def simulate(inputs, numbers):
        inputs[:, 0] = 0
        return inputs[:, 11:]

    return simulate, {}


def remembers_the_answers(model):
    return (lambda inputs, numbers: numbers["answers"]), {"answers": checks.explanation.pool.model_answers}


def all_of_the_model(model):
    """An answer that would pass, with every parameter among its numbers."""
    simulate, numbers = checks.explanation.reference(model)
    everything = torch.cat([weight.flatten() for weight in model.parameters()])
    return simulate, {**numbers, "everything": everything}


def as_the_course(model):
    return checks.explanation.reference(model)


LESSON = [
    Answers(
        checks.answer_probabilities,
        wrong={
            logits_not_probabilities: "softmax over the vocabulary first",
            log_probabilities: "log-probabilities",
            losses_not_probabilities: "These are losses",
            softmax_without_SEP: "SEP is left out of the softmax",
            read_too_late: "Off by one",
            read_in_the_list: "answers are read from SEP",
            of_the_token_itself: "stands at the position itself",
            of_the_unsorted_list: "sorted one",
            of_the_best_guess: "best guess",
            softmax_over_positions: "runs over the positions",
            always_ten: "random model",
            averaged_over_lists: "mean over lists",
            whole_distributions: "whole distributions",
            accuracies: "1 where the model is right",
        },
        right=[answer_probabilities, probabilities_by_loop, probabilities_by_eindex],
    ),
    Answers(
        checks.folded_unembedding,
        wrong={
            nothing_folded: "Nothing is folded",
            bias_not_folded: "bias of ln_final is not folded",
            weight_not_folded: "weight of ln_final is not folded",
            weight_twice_in_the_bias: "weight is in it twice",
            b_U_lost: "b_U itself is missing",
            centred_too: "only fold",
            transposed_unembedding: "transposed",
            other_order: "other order",
            first_layernorm: "ln1",
            only_W_U: "tuple (W_U, b_U)",
        },
        right=[folded, folded_by_diagonal, folded_in_numpy],
    ),
    Answers(checks.what_folding_changes),
    Answers(
        checks.constant_scale_logits,
        wrong={
            own_scale: "model's own logits",
            mean_over_all_positions: "over all positions",
            mean_over_lists_only: "over the lists only",
            mean_too_late: "one position too late",
            mean_with_the_last_position: "last position in it",
            no_scale_at_all: "scale is missing",
            multiplied: "multiplied",
            mean_of_inverses: "mean of 1/scale",
            scale_of_ln1: "ln1",
            bias_forgotten: "b_U is missing",
            all_positions_scaled: "answer positions only",
        },
        right=[constant_scale, constant_scale_by_hook],
    ),
    Answers(checks.sep_attends_to),
    Answers(
        checks.attention_to_next,
        wrong={
            queries_too_late: "one position too late",
            scores_not_pattern: "before the softmax",
            summed_over_lists: "sum over lists",
            every_list: "mean over lists",
            heads_averaged: "mean over heads",
            in_the_sorted_part: "in the sorted half",
            place_k_for_answer_k: "place k of the list",
            pattern_turned_round: "rows are queries",
            to_itself: "the next one",
            to_itself_everywhere: "and in the sorted half",
            next_transposed: "transpose",
        },
        right=[to_next, next_by_argsort],
    ),
    Answers(
        checks.ablation_costs,
        wrong={
            losses_not_costs: "subtract the loss before",
            probabilities_lost: "rise of the cross-entropy",
            logarithm_of_the_mean: "mean of the logarithms",
            medians_of_the_loss: "take the mean",
            gains: "sign",
            in_bits: "bits",
            summed_losses: "summed",
            zero_ablation: "zero ablation",
            all_but_one: "All heads but one",
            all_heads_at_once: "at once",
            heads_pile_up: "still ablated",
            compared_with_itself: "compared with itself",
            loss_at_all_positions: "over all positions",
            one_mean_for_all_positions: "each position has its own",
            two_heads_always: "shape",
            hook_left_on: "hook",
        },
        right=[costs, costs_of_result, costs_in_lists],
    ),
    Answers(
        checks.costs_by_number,
        wrong={
            by_the_token_before: "number that comes next",
            zeros_for_nan: "NaN",
            infinity_for_nan: "has infinity",
            minus_one_for_nan: "has −1",
            medians_by_number: "median",
            whole_lists_by_number: "whole lists",
            by_the_unsorted_list: "unsorted list",
            sums_by_number: "summed",
            by_number_of_lists: "number of lists",
            with_a_column_for_SEP: "SEP has a column",
            gains_by_number: "sign",
            losses_by_number: "subtract the losses before",
            zero_by_number: "zero ablation",
            numbers_are_rows: "swapped",
            fifty_one_numbers: "random model",
        },
        right=[by_number, by_number_with_bincount],
    ),
    Answers(
        checks.owners_only,
        wrong={
            model_untouched: "Nothing is ablated",
            owner_of_the_token: "owner of the right answer",
            owner_ablated: "other way round",
            others_zero: "set to zero",
            others_one_mean: "each position has its own",
            owners_of_the_unsorted_list: "unsorted list",
            owners_at_all_positions: "answer positions only",
            mean_of_ablated_lists: "over all lists",
            two_heads_only: "random model",
            changes_the_owner: "owner",
        },
        right=[only, only_head_by_head],
    ),
    Answers(
        checks.number_ranges,
        wrong={
            ends_exclusive: "number after its last",
            first_to_last: "over those of other heads",
            all_numbers: "first and the last of each run",
            no_single_numbers: "single number are left out",
            single_numbers_bare: "write (n, n)",
            last_run_forgotten: "last run is missing",
            overwritten: "add each to a list",
            keys_are_tensors: "int(head)",
            keys_are_texts: "texts",
            an_entry_for_every_head: "own nothing",
            list_of_runs: "dict",
        },
        right=[ranges, ranges_as_lists_of_tensors],
    ),
    Answers(
        checks.head_circuits,
        wrong={
            qk_no_root: "sqrt(d_head)",
            qk_scale_once: "used once",
            qk_transposed: "`qk` is transposed",
            ov_transposed: "`ov` is transposed",
            ov_without_final_scale: "final one is missing",
            ov_scale_twice: "by `scale` twice",
            ov_with_root: "belongs to the scores",
            ov_into_W_E: "read by W_U",
            scales_forgotten: "scales are forgotten",
            qk_first: "other order",
            without_SEP: "SEP is left out",
            with_biases: "b_Q and b_K",
            other_circuits_head: "head 0.1",
            d_head_48: "random model",
        },
        right=[both, by_shared_functions, circuits_by_einsum],
    ),
    Answers(
        checks.copying_head,
        wrong={
            diagonal_alone: "diagonal alone",
            SEP_among_the_others: "leave out the last column",
            margin_along_sources: "along the sources",
            smallest_margin: "smallest margin",
            mean_of_the_others: "subtract the largest",
            diagonal_left_in: "never above 0",
            zero_on_the_diagonal: "minus infinity",
            SEP_has_an_answer: "numbers only",
            margins_themselves: "These are the margins",
            best_number_of_each_head: "copies best",
            last_of_equals: "lowest",
        },
        right=[copier, copier_by_loop],
    ),
    Answers(
        checks.shared_pattern,
        wrong={
            nothing_shared: "Nothing is shared",
            head_0_gives: "Always head 0",
            exchanged: "exchanged",
            mean_pattern_of_heads: "mean of the patterns",
            output_shared: "output `z`",
            others_switched_off: "switched off",
            first_lists_pattern: "first one's pattern",
            shared_everywhere: "answer positions only",
        },
        right=[shared, shared_by_own_hook, shared_queries_and_keys],
    ),
    Answers(
        checks.key_scores,
        wrong={
            asks_no_root: "sqrt(d_head)",
            asks_no_biases: "b_Q and b_K",
            asks_no_b_Q: "query's bias",
            asks_no_b_K: "keys' bias",
            asks_no_layernorm: "LayerNorm is missing",
            asks_no_positions: "positions are missing",
            asks_no_key_positions: "missing from the keys",
            asks_no_query_position: "missing from the query",
            asks_all_positions: "over all positions",
            asks_with_SEPs_position: "SEP's included",
            asks_softmax: "softmax",
            asks_SEP_too: "SEP is among the keys",
            asks_the_other_way: "exchanged",
            asks_list_of_ten: "random model",
        },
        right=[asks, asks_by_einsum],
    ),
    Answers(
        checks.position_key_scores,
        wrong={
            positions_no_root: "sqrt(d_head)",
            positions_scale_once: "used once",
            positions_no_scale: "scale is forgotten",
            positions_transposed: "swapped",
            tokens_ask: "token asks",
            tokens_ask_turned: "exchanged",
            positions_only: "W_E",
            tokens_only: "W_pos",
            positions_without_SEP: "SEP is left out",
            answer_positions_only: "answer positions",
        },
        right=[position_scores, positions_by_einsum],
    ),
    Answers(
        checks.without_direct_path,
        wrong={
            untouched: "Nothing is taken away",
            direct_no_scale: "last LayerNorm's scale is missing",
            direct_first_scale: "ln1",
            direct_added: "subtract it",
            direct_with_positions: "W_pos stays",
            direct_alone: "subtract them",
            direct_scale_again: "computed again",
            no_embedding: "heads do not see it",
            direct_of_the_answer: "right answer",
            direct_everywhere: "answer positions only",
        },
        right=[no_direct, no_direct_by_residual, no_direct_with_the_scale_held],
    ),
    Answers(
        checks.dla_from_sources,
        wrong={
            dla_no_scale: "scale is missing",
            dla_scale_at_source: "at the source",
            dla_first_scale: "ln1",
            dla_no_attention: "attention is missing",
            dla_no_b_V: "b_V",
            dla_from_embeddings: "token embeddings alone",
            dla_head_0: "Always head 0.0",
            dla_all_heads: "All heads",
            dla_first_query: "first one's query",
            dla_swapped: "swapped",
            dla_summed: "sum over sources",
            dla_averaged: "mean over lists",
            dla_with_b_U: "b_U",
            dla_paired: "every source for every prediction",
        },
        right=[dla, dla_by_loop],
    ),
    Answers(checks.swapped_axes),
    Answers(
        checks.counterexamples,
        wrong={
            Made(ordinary_lists): "fool the model; 40 are needed",
            Made(with_repeats): "more than once",
            Made(unsorted_answers): "task.from_lists",
            Made(lists_alone): "expected 21: ten numbers, SEP",
            Made(no_separator): "expected SEP (51)",
            Made(one_list_again): "repeats input 0",
            Made(too_few): "Give 50 sequences; 10 came",
            Made(a_single_list): "expected (input, position)",
            Made(list_of_tensors): "torch.stack",
            Made(number_too_large): "expected a number from 0 to 50",
        },
        right=[Made(known), Made(gapped_lists)],
    ),
    Answers(
        checks.right_attention,
        wrong={
            look_outside: "inside the `with` block",
            look_without_shares: "add up to 1",
            look_at_the_first: "equal shares",
            rest_of_the_row_left: "set it to zero",
            look_at_itself: "the next one",
            look_too_late: "one position too late",
            look_at_the_sorted_part: "sorted part",
            one_head_looks: "every head is",
            look_in_two_heads: "random model",
        },
        right=[looking, looking_by_scores],
    ),
    Answers(
        checks.circuit,
        wrong={
            Made(whole_model): "name at most 15",
            Made(both_heads): "whole model",
            Made(one_head_everywhere): "0.80 is needed",
            Made(first_answers_only): "0.80 is needed",
            Made(sites_in_the_list): "cannot matter",
            Made(no_such_head): "heads 0 to 1",
            Made(site_twice): "twice",
            "all": "list of sites",
        },
        right=[Made(best_circuit), Made(as_a_set), Made(numpy_sites)],
    ),
    Answers(
        checks.explanation,
        wrong={
            perfect_algorithm: "as the task demands",
            next_in_the_list: "as the task demands",
            never_right: "needed",
            asks_the_model: "model",
            hides_the_model: "expected a tensor or a number",
            only_the_function: "return two things",
            gives_logits: "an answer for each input",
            gives_probabilities: "threshold or an argmax",
            one_answer_each: "an answer for each input",
            always_zero: "same answer to every input",
            changes_its_inputs: "changed its inputs",
            remembers_the_answers: "in another order",
            all_of_the_model: "at most 40,000 are allowed",
        },
        right=[as_the_course],
    ),
]


@pytest.mark.parametrize("proof", proofs(LESSON))
def test_answers(proof):
    proof()


def test_every_exercise_has_its_wrong_answers():
    assert missing(checks.CHECKS, LESSON) == []
