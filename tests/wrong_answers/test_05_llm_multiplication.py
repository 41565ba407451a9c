"""Lesson 05: the wrong answers that people give, the message each must get, and other right answers.

Those of its last three exercises are in `test_05_evidence.py`.
"""

import einops
import pytest
import torch
from transformer_lens import patching
from transformer_lens.utilities import get_act_name

from exercises_utils.challenges.llm_multiplication import checks, checks_common, task
from exercises_utils.tools.hooks import patch, record
from tests.wrong_answers.harness import Answers, Value, missing, proofs

# ── answer_logits ───────────────────────────────────────────────────────────────────────────────────────────


def answers_at(logits, ids, first, n_answer):
    """The digits' logits at the positions from `first` on, turned round."""
    return logits[:, first : first + n_answer].flip(1)[..., list(ids)]


def all_at_the_prompts_end(logits, ids, prompt_length, n_answer):
    return logits[:, [prompt_length - 1] * n_answer][..., list(ids)]


def where_the_digit_stands(logits, ids, prompt_length, n_answer):
    at = [min(prompt_length + n_answer - 1 - p, logits.shape[1] - 1) for p in range(n_answer)]
    return logits[:, at][..., list(ids)]


def one_earlier(logits, ids, prompt_length, n_answer):
    return answers_at(logits, ids, prompt_length - 2, n_answer)


def as_written(logits, ids, prompt_length, n_answer):
    return logits[:, prompt_length - 1 : prompt_length - 1 + n_answer][..., list(ids)]


def as_written_and_late(logits, ids, prompt_length, n_answer):
    return logits[:, prompt_length : prompt_length + n_answer][..., list(ids)]


def first_ten_columns(logits, ids, prompt_length, n_answer):
    return answers_at(logits, range(10), prompt_length - 1, n_answer)


def probabilities_of_tokens(logits, ids, prompt_length, n_answer):
    return answers_at(logits.softmax(-1), ids, prompt_length - 1, n_answer)


def probabilities_of_digits(logits, ids, prompt_length, n_answer):
    return answers_at(logits, ids, prompt_length - 1, n_answer).softmax(-1)


def log_probabilities(logits, ids, prompt_length, n_answer):
    return answers_at(logits.log_softmax(-1), ids, prompt_length - 1, n_answer)


def from_the_end(logits, ids, prompt_length, n_answer):
    return logits[:, -n_answer - 1 : -1].flip(1)[..., list(ids)]


def whole_vocabulary(logits, ids, prompt_length, n_answer):
    return logits[:, prompt_length - 1 : prompt_length - 1 + n_answer].flip(1)


def digit_before_place(logits, ids, prompt_length, n_answer):
    return answers_at(logits, ids, prompt_length - 1, n_answer).transpose(1, 2)


def five_places(logits, ids, prompt_length, n_answer):
    return answers_at(logits, ids, prompt_length - 1, 5)


def ids_of_the_bundled_model(logits, ids, prompt_length, n_answer):
    return answers_at(logits, range(1, 11), prompt_length - 1, n_answer)


def answers_by_slices(logits, ids, prompt_length, n_answer):
    return answers_at(logits.double(), ids, prompt_length - 1, n_answer)


def answers_by_loops(logits, ids, prompt_length, n_answer):
    places = [logits[:, prompt_length - 1 + n_answer - 1 - p, ids] for p in range(n_answer)]
    return torch.stack(places, dim=1)


# ── place_accuracy and logit_difference ─────────────────────────────────────────────────────────────────────


def digits_of(products, n_places):
    return products[:, None] // 10 ** torch.arange(n_places) % 10


def hits(logits, products):
    return (logits.argmax(-1) == digits_of(products, logits.shape[1])).float()


def accuracy(logits, products):
    return hits(logits, products).mean(0)


def text_not_turned_round(logits, products):
    digits = torch.tensor([[int(digit) for digit in str(product)] for product in products.tolist()])
    return (logits.argmax(-1) == digits).float().mean(0)


def turned_round_at_the_end(logits, products):
    return accuracy(logits, products).flip(0)


def no_modulo(logits, products):
    return (logits.argmax(-1) == products[:, None] // 10 ** torch.arange(logits.shape[1])).float().mean(0)


def tens_for_units(logits, products):
    return (
        (logits.argmax(-1) == products[:, None] // 10 ** torch.arange(1, logits.shape[1] + 1) % 10)
        .float()
        .mean(0)
    )


def whole_products(logits, products):
    return hits(logits, products).all(-1).float().mean()


def mean_accuracy(logits, products):
    return hits(logits, products).mean()


def counts(logits, products):
    return hits(logits, products).sum(0)


def percentages(logits, products):
    return 100 * accuracy(logits, products)


def share_of_errors(logits, products):
    return 1 - accuracy(logits, products)


def mean_probability(logits, products):
    digits = digits_of(products, logits.shape[1])
    return logits.softmax(-1).gather(-1, digits[..., None])[..., 0].mean(0)


def row_by_row(logits, products):
    return hits(logits, products).mean(1)


def not_averaged(logits, products):
    return hits(logits, products)


def accuracy_by_texts(logits, products):
    top = logits.argmax(-1).tolist()
    right = [
        [int(str(p)[::-1][i]) == t for i, t in enumerate(row)]
        for row, p in zip(top, products.tolist(), strict=True)
    ]
    return torch.tensor(right).double().mean(0)


def accuracy_as_list(logits, products):
    return accuracy(logits, products).tolist()


def pick(logits, products, turned=False):
    digits = digits_of(products, logits.shape[1])
    return logits.gather(-1, (digits.flip(1) if turned else digits)[..., None])[..., 0]


def difference(logits, right, wrong):
    return pick(logits, right) - pick(logits, wrong)


def wrong_minus_right(logits, right, wrong):
    return -difference(logits, right, wrong)


def mean_over_places(logits, right, wrong):
    return difference(logits, right, wrong).mean(1)


def mean_over_rows(logits, right, wrong):
    return difference(logits, right, wrong).mean(0)


def mean_over_all(logits, right, wrong):
    return difference(logits, right, wrong).mean()


def sum_over_places(logits, right, wrong):
    return difference(logits, right, wrong).sum(1)


def of_probabilities(logits, right, wrong):
    return difference(logits.softmax(-1), right, wrong)


def best_other_digit(logits, right, wrong):
    digits = digits_of(right, logits.shape[1])
    others = logits.scatter(-1, digits[..., None], -torch.inf)
    return pick(logits, right) - others.amax(-1)


def right_logit_alone(logits, right, wrong):
    return pick(logits, right)


def first_written_first(logits, right, wrong):
    return pick(logits, right, turned=True) - pick(logits, wrong, turned=True)


def turned_differences(logits, right, wrong):
    return difference(logits, right, wrong).flip(1)


def first_digit_only(logits, right, wrong):
    return difference(logits, right, wrong)[:, -1]


def mean_where_they_differ(logits, right, wrong):
    differ = digits_of(right, logits.shape[1]) != digits_of(wrong, logits.shape[1])
    return (difference(logits, right, wrong) * differ).sum(1) / differ.sum(1)


def nan_where_they_agree(logits, right, wrong):
    differ = digits_of(right, logits.shape[1]) != digits_of(wrong, logits.shape[1])
    return difference(logits, right, wrong).where(differ, torch.nan)


def by_log_probabilities(logits, right, wrong):
    return difference(logits.double().log_softmax(-1), right, wrong)


def by_one_hot(logits, right, wrong):
    def one_hot(products):
        return torch.nn.functional.one_hot(digits_of(products, logits.shape[1]), 10).float()

    return torch.einsum("bpd,bpd->bp", logits, one_hot(right) - one_hot(wrong))


# ── lens ────────────────────────────────────────────────────────────────────────────────────────────────────


def streams(model, tokens, position):
    _, cache = model.run_with_cache(tokens)
    last = model.cfg.n_layers - 1
    names = [("resid_pre", "resid_mid")] * model.cfg.n_layers
    parts = [cache[name, layer][:, position] for layer, both in enumerate(names) for name in both]
    return torch.stack([*parts, cache["resid_post", last][:, position]]), cache


def rms(x, eps=1e-6):
    return (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()


def look(model, tokens, position, ids):
    stack, _ = streams(model, tokens, position)
    return (stack / rms(stack)) @ model.W_U[:, ids] + model.b_U[ids]


def lens_with_the_final_scale(model, tokens, position, ids):
    stack, cache = streams(model, tokens, position)
    stack = cache.apply_ln_to_stack(stack, layer=-1, pos_slice=position)
    return stack @ model.W_U[:, ids] + model.b_U[ids]


def lens_without_norm(model, tokens, position, ids):
    stack, _ = streams(model, tokens, position)
    return stack @ model.W_U[:, ids] + model.b_U[ids]


def lens_without_bias(model, tokens, position, ids):
    stack, _ = streams(model, tokens, position)
    return stack / rms(stack) @ model.W_U[:, ids]


def lens_before_layers(model, tokens, position, ids):
    return look(model, tokens, position, ids)[: 2 * model.cfg.n_layers : 2]


def lens_without_mid(model, tokens, position, ids):
    return look(model, tokens, position, ids)[::2]


def lens_without_the_last(model, tokens, position, ids):
    return look(model, tokens, position, ids)[:-1]


def lens_by_layernorm(model, tokens, position, ids):
    stack, _ = streams(model, tokens, position)
    centred = stack - stack.mean(-1, keepdim=True)
    return (centred / rms(centred)) @ model.W_U[:, ids] + model.b_U[ids]


def lens_divided_by_length(model, tokens, position, ids):
    stack, _ = streams(model, tokens, position)
    return stack / stack.norm(dim=-1, keepdim=True) @ model.W_U[:, ids] + model.b_U[ids]


def lens_of_the_parts(model, tokens, position, ids):
    stack, _ = streams(model, tokens, position)
    parts = torch.cat([stack[:1], stack.diff(dim=0)])
    return parts / rms(parts) @ model.W_U[:, ids] + model.b_U[ids]


def lens_at_the_end(model, tokens, position, ids):
    return look(model, tokens, -1, ids)


def lens_of_all_tokens(model, tokens, position, ids):
    stack, _ = streams(model, tokens, position)
    return (stack / rms(stack)) @ model.W_U + model.b_U


def lens_of_columns(model, tokens, position, ids):
    return look(model, tokens, position, list(range(10)))


def lens_as_probabilities(model, tokens, position, ids):
    return look(model, tokens, position, ids).softmax(-1)


def lens_by_transformer_lens(model, tokens, position, ids):
    _, cache = model.run_with_cache(tokens)
    stack = cache.accumulated_resid(layer=-1, incl_mid=True, pos_slice=position)
    normed = model.ln_final(stack)
    return (
        einops.einsum(normed, model.W_U[:, ids], "depth batch d, d digit -> depth batch digit")
        + model.b_U[ids]
    )


def lens_by_loops(model, tokens, position, ids):
    stack, _ = streams(model, tokens, position)
    return [
        [
            [float(row.double() @ model.W_U[:, i].double() / rms(row.double()) + model.b_U[i]) for i in ids]
            for row in depth
        ]
        for depth in stack
    ]


# ── component_attribution and head_attribution ──────────────────────────────────────────────────────────────


def parts_of(model, cache, position):
    parts = [cache["hook_embed"][:, position]]
    for layer in range(model.cfg.n_layers):
        parts += [cache["attn_out", layer][:, position], cache["mlp_out", layer][:, position]]
    return torch.stack(parts)


def attribution(
    model,
    tokens,
    position,
    right,
    wrong,
    *,
    scale="final",
    parts=parts_of,
    bias=True,
    only_right=False,
    shift=0,
):
    _, cache = model.run_with_cache(tokens)
    stack = parts(model, cache, position + shift)
    final = cache["ln_final.hook_scale"]
    scales = {
        "final": final[:, position + shift],
        "none": torch.ones(1),
        "own": rms(stack),
        "mean": final[:, position].mean(),
        "last": final[:, -1],
    }
    direction = model.W_U[:, right] - (0 if only_right else model.W_U[:, wrong])
    rows = torch.einsum("cbd,db->cb", stack / scales[scale], direction)
    if not bias:
        return rows
    return torch.cat([rows, (model.b_U[right] - model.b_U[wrong])[None]])


def no_scale(model, tokens, position, right, wrong):
    return attribution(model, tokens, position, right, wrong, scale="none")


def own_scale(model, tokens, position, right, wrong):
    return attribution(model, tokens, position, right, wrong, scale="own")


def mean_scale(model, tokens, position, right, wrong):
    return attribution(model, tokens, position, right, wrong, scale="mean")


def scale_of_the_last_position(model, tokens, position, right, wrong):
    return attribution(model, tokens, position, right, wrong, scale="last")


def no_scale_no_bias(model, tokens, position, right, wrong):
    return attribution(model, tokens, position, right, wrong, scale="none", bias=False)


def without_b_U(model, tokens, position, right, wrong):
    return attribution(model, tokens, position, right, wrong, bias=False)


def b_U_scaled(model, tokens, position, right, wrong):
    rows = attribution(model, tokens, position, right, wrong)
    _, cache = model.run_with_cache(tokens)
    return torch.cat([rows[:-1], rows[-1:] / cache["ln_final.hook_scale"][:, position, 0]])


def sum_over_the_batch(model, tokens, position, right, wrong):
    return attribution(model, tokens, position, right, wrong).sum(1)


def mean_over_the_batch(model, tokens, position, right, wrong):
    return attribution(model, tokens, position, right, wrong).mean(1)


def one_position_late(model, tokens, position, right, wrong):
    return attribution(model, tokens, position, right, wrong, shift=1)


def one_position_early(model, tokens, position, right, wrong):
    return attribution(model, tokens, position, right, wrong, shift=-1)


def right_and_wrong_exchanged(model, tokens, position, right, wrong):
    return attribution(model, tokens, position, wrong, right)


def stream_for_outputs(model, tokens, position, right, wrong):
    def stream(model, cache, position):
        parts = [cache["resid_pre", 0][:, position]]
        for layer in range(model.cfg.n_layers):
            parts += [cache["resid_mid", layer][:, position], cache["resid_post", layer][:, position]]
        return torch.stack(parts)

    return attribution(model, tokens, position, right, wrong, parts=stream)


def mlp_before_attention(model, tokens, position, right, wrong):
    rows = attribution(model, tokens, position, right, wrong)
    order = [0, *(i + j for i in range(1, len(rows) - 1, 2) for j in (1, 0)), len(rows) - 1]
    return rows[order]


def attentions_then_mlps(model, tokens, position, right, wrong):
    rows = attribution(model, tokens, position, right, wrong)
    return torch.cat([rows[:1], rows[1:-1:2], rows[2:-1:2], rows[-1:]])


def whole_layers(model, tokens, position, right, wrong):
    rows = attribution(model, tokens, position, right, wrong)
    return torch.cat([rows[:1], rows[1:-1:2] + rows[2:-1:2], rows[-1:]])


def right_token_alone(model, tokens, position, right, wrong):
    rows = attribution(model, tokens, position, right, wrong, bias=False, only_right=True)
    return torch.cat([rows, model.b_U[right][None]])


def attribution_by_transformer_lens(model, tokens, position, right, wrong):
    _, cache = model.run_with_cache(tokens)
    stack = cache.decompose_resid(layer=-1, mode="all", pos_slice=position, apply_ln=True)
    rows = einops.einsum(stack, model.W_U[:, right] - model.W_U[:, wrong], "c b d, d b -> c b")
    return torch.cat([rows, (model.b_U[right] - model.b_U[wrong])[None]])


def attribution_in_double(model, tokens, position, right, wrong):
    with torch.enable_grad():
        return attribution(model, tokens, position, right, wrong).double()


def attribution_by_loops(model, tokens, position, right, wrong):
    names = ["hook_embed"]
    for layer in range(model.cfg.n_layers):
        names += [get_act_name("attn_out", layer), get_act_name("mlp_out", layer)]
    with record(model, *names, "ln_final.hook_scale") as seen:
        model(tokens)
    rows = []
    for name in names:
        row = []
        for b in range(len(tokens)):
            vector = seen[name][b, position] / seen["ln_final.hook_scale"][b, position]
            row.append((vector @ model.W_U[:, right[b]] - vector @ model.W_U[:, wrong[b]]).item())
        rows.append(row)
    rows.append((model.b_U[right] - model.b_U[wrong]).tolist())
    return torch.tensor(rows)


def heads_of(model, cache, position, bias=0.0):
    rows = []
    for layer in range(model.cfg.n_layers):
        z = cache["z", layer][:, position]
        rows.append(torch.einsum("bhd,hdm->hbm", z, model.W_O[layer]) + bias * model.b_O[layer])
    return torch.cat(rows)


def by_head(model, tokens, position, right, wrong, **changes):
    rows = attribution(
        model, tokens, position, right, wrong, parts=changes.pop("parts", heads_of), bias=False, **changes
    )
    return rows.unflatten(0, (model.cfg.n_layers, -1))


def heads_without_scale(model, tokens, position, right, wrong):
    return by_head(model, tokens, position, right, wrong, scale="none")


def heads_with_their_own_scale(model, tokens, position, right, wrong):
    return by_head(model, tokens, position, right, wrong, scale="own")


def heads_late(model, tokens, position, right, wrong):
    return by_head(model, tokens, position, right, wrong, shift=1)


def bias_shared_out(model, tokens, position, right, wrong):
    def shared(model, cache, position):
        return heads_of(model, cache, position, 1 / model.cfg.n_heads)

    return by_head(model, tokens, position, right, wrong, parts=shared)


def bias_for_everyone(model, tokens, position, right, wrong):
    def biased(model, cache, position):
        return heads_of(model, cache, position, 1.0)

    return by_head(model, tokens, position, right, wrong, parts=biased)


def by_key_value_head(model, tokens, position, right, wrong):
    rows = by_head(model, tokens, position, right, wrong)
    return rows.unflatten(1, (model.cfg.n_key_value_heads, -1)).sum(2)


def values_at_the_position(model, tokens, position, right, wrong):
    def values(model, cache, position):
        repeats = model.cfg.n_heads // model.cfg.n_key_value_heads
        return torch.cat(
            [
                torch.einsum(
                    "bhd,hdm->hbm", cache["v", i][:, position].repeat_interleave(repeats, 1), model.W_O[i]
                )
                for i in range(model.cfg.n_layers)
            ]
        )

    return by_head(model, tokens, position, right, wrong, parts=values)


def groups_in_turns(model, tokens, position, right, wrong):
    def mixed(model, cache, position):
        repeats = model.cfg.n_heads // model.cfg.n_key_value_heads
        return torch.cat(
            [
                torch.einsum(
                    "bhk,bkhd,hdm->hbm",
                    cache["pattern", i][:, :, position],
                    cache["v", i].repeat(1, 1, repeats, 1),
                    model.W_O[i],
                )
                for i in range(model.cfg.n_layers)
            ]
        )

    return by_head(model, tokens, position, right, wrong, parts=mixed)


def heads_by_head_first(model, tokens, position, right, wrong):
    return by_head(model, tokens, position, right, wrong).transpose(0, 1)


def heads_in_one_axis(model, tokens, position, right, wrong):
    return by_head(model, tokens, position, right, wrong).flatten(0, 1)


def mean_head(model, tokens, position, right, wrong):
    return by_head(model, tokens, position, right, wrong).mean(-1)


def heads_turned_round(model, tokens, position, right, wrong):
    return by_head(model, tokens, position, wrong, right)


def heads_by_transformer_lens(model, tokens, position, right, wrong):
    _, cache = model.run_with_cache(tokens)
    stack = cache.stack_head_results(layer=-1, pos_slice=position)
    stack = cache.apply_ln_to_stack(stack, layer=-1, pos_slice=position)
    direction = (model.W_U[:, right] - model.W_U[:, wrong]).T
    return (stack * direction).sum(-1).reshape(model.cfg.n_layers, model.cfg.n_heads, -1)


# ── pair_tokens ─────────────────────────────────────────────────────────────────────────────────────────────


def cut(clean, corrupted, vocabulary):
    """Both whole sequences, without the last END, and where the products begin."""
    both = [task.sequences(products, vocabulary)[:, :-1] for products in (clean, corrupted)]
    return *both, task.prompt_length(clean)


def right_pair(clean, corrupted, vocabulary):
    a, b, n = cut(clean, corrupted, vocabulary)
    return a, torch.cat([b[:, :n], a[:, n:]], dim=1)


def each_its_own_answer(clean, corrupted, vocabulary):
    return cut(clean, corrupted, vocabulary)[:2]


def the_corrupted_answer(clean, corrupted, vocabulary):
    a, b, n = cut(clean, corrupted, vocabulary)
    return torch.cat([a[:, :n], b[:, n:]], dim=1), b


def answers_exchanged(clean, corrupted, vocabulary):
    a, b, n = cut(clean, corrupted, vocabulary)
    return torch.cat([a[:, :n], b[:, n:]], dim=1), torch.cat([b[:, :n], a[:, n:]], dim=1)


def end_kept(clean, corrupted, vocabulary):
    a, b = right_pair(clean, corrupted, vocabulary)
    end = torch.full((len(a), 1), vocabulary.end)
    return torch.cat([a, end], dim=1), torch.cat([b, end], dim=1)


def prompts_only(clean, corrupted, vocabulary):
    a, b, n = cut(clean, corrupted, vocabulary)
    return a[:, :n], b[:, :n]


def pair_turned_round(clean, corrupted, vocabulary):
    return right_pair(clean, corrupted, vocabulary)[::-1]


def ids_of_the_bundled(clean, corrupted, vocabulary):
    return right_pair(clean, corrupted, task.BUNDLED)


def without_the_first_token(clean, corrupted, vocabulary):
    return tuple(tokens[:, 1:] for tokens in right_pair(clean, corrupted, vocabulary))


def same_twice(clean, corrupted, vocabulary):
    a, _ = right_pair(clean, corrupted, vocabulary)
    return a, a


def last_digit_dropped(clean, corrupted, vocabulary):
    return tuple(tokens[:, :-1] for tokens in right_pair(clean, corrupted, vocabulary))


def one_tensor(clean, corrupted, vocabulary):
    return torch.stack(right_pair(clean, corrupted, vocabulary))


def pair_by_products(clean, corrupted, vocabulary):
    """Written in place over a clone, as a list."""
    a = task.sequences(clean, vocabulary)[:, :-1]
    b = a.clone()
    n = task.prompt_length(clean)
    b[:, :n] = task.sequences(corrupted, vocabulary)[:, :n]
    return [a, b]


# ── patching ────────────────────────────────────────────────────────────────────────────────────────────────


def resid_name(activation, layer):
    return f"blocks.{layer}.hook_{activation}"


def head_name(activation, layer):
    return f"blocks.{layer}.attn.hook_{activation}"


def scaled(patched, clean, corrupted):
    return (patched - corrupted) / (clean - corrupted)


def sweep(model, clean, corrupted, metric, names, indices, scale=scaled, base=None, leave=False):
    """One run a patch. `indices` are the places to patch in each layer; wrong answers change one thing."""
    logits, cache = model.run_with_cache(clean)
    clean_value, corrupted_value = metric(logits), metric(model(corrupted))
    table = []
    hooks = []
    for name in names:
        row = []
        for index in indices:

            def put(value, hook, index=index, name=name):
                value[index] = cache[name][index]
                return value

            hooks = [*hooks, (name, put)] if leave else [(name, put)]
            patched = metric(model.run_with_hooks(corrupted if base is None else base, fwd_hooks=hooks))
            row.append(scale(patched, clean_value, corrupted_value))
        table.append(torch.stack(row))
    return torch.stack(table)


def positions(model, clean, corrupted, metric, activation, indices=None, **changes):
    names = [resid_name(activation, layer) for layer in range(model.cfg.n_layers)]
    indices = indices or [(slice(None), p) for p in range(clean.shape[1])]
    return sweep(model, clean, corrupted, metric, names, indices, **changes)


def runs_exchanged(model, clean_tokens, corrupted_tokens, metric, activation):
    return positions(model, corrupted_tokens, clean_tokens, metric, activation)


def runs_exchanged_scale_kept(model, clean_tokens, corrupted_tokens, metric, activation):
    return 1 - positions(model, corrupted_tokens, clean_tokens, metric, activation)


def not_normalised(model, clean_tokens, corrupted_tokens, metric, activation):
    return positions(model, clean_tokens, corrupted_tokens, metric, activation, scale=lambda p, a, b: p)


def difference_only(model, clean_tokens, corrupted_tokens, metric, activation):
    return positions(model, clean_tokens, corrupted_tokens, metric, activation, scale=lambda p, a, b: p - b)


def divided_by_clean(model, clean_tokens, corrupted_tokens, metric, activation):
    return positions(model, clean_tokens, corrupted_tokens, metric, activation, scale=lambda p, a, b: p / a)


def difference_by_clean(model, clean_tokens, corrupted_tokens, metric, activation):
    return positions(
        model, clean_tokens, corrupted_tokens, metric, activation, scale=lambda p, a, b: (p - b) / a
    )


def what_is_missing(model, clean_tokens, corrupted_tokens, metric, activation):
    return positions(
        model, clean_tokens, corrupted_tokens, metric, activation, scale=lambda p, a, b: (a - p) / (a - b)
    )


def always_resid_pre(model, clean_tokens, corrupted_tokens, metric, activation):
    return positions(model, clean_tokens, corrupted_tokens, metric, "resid_pre")


def after_the_layer(model, clean_tokens, corrupted_tokens, metric, activation):
    return positions(model, clean_tokens, corrupted_tokens, metric, "resid_post")


def after_attention(model, clean_tokens, corrupted_tokens, metric, activation):
    return positions(model, clean_tokens, corrupted_tokens, metric, "resid_mid")


def every_position(model, clean_tokens, corrupted_tokens, metric, activation):
    everything = [(slice(None), slice(None))] * clean_tokens.shape[1]
    return positions(model, clean_tokens, corrupted_tokens, metric, activation, everything)


def up_to_the_position(model, clean_tokens, corrupted_tokens, metric, activation):
    some = [(slice(None), slice(p + 1)) for p in range(clean_tokens.shape[1])]
    return positions(model, clean_tokens, corrupted_tokens, metric, activation, some)


def only_row_zero(model, clean_tokens, corrupted_tokens, metric, activation):
    some = [(0, p) for p in range(clean_tokens.shape[1])]
    return positions(model, clean_tokens, corrupted_tokens, metric, activation, some)


def layers_last(model, clean_tokens, corrupted_tokens, metric, activation):
    return positions(model, clean_tokens, corrupted_tokens, metric, activation).transpose(0, 1)


def without_layer_zero(model, clean_tokens, corrupted_tokens, metric, activation):
    return positions(model, clean_tokens, corrupted_tokens, metric, activation)[1:]


def metric_averaged(model, clean_tokens, corrupted_tokens, metric, activation):
    def mean(logits):
        return metric(logits).mean()

    return positions(model, clean_tokens, corrupted_tokens, mean, activation)


def scores_averaged(model, clean_tokens, corrupted_tokens, metric, activation):
    scores = positions(model, clean_tokens, corrupted_tokens, metric, activation)
    return scores.flatten(2).mean(2) if scores.ndim > 2 else scores


def hooks_pile_up(model, clean_tokens, corrupted_tokens, metric, activation):
    return positions(model, clean_tokens, corrupted_tokens, metric, activation, leave=True)


def clean_run_patched_with_itself(model, clean_tokens, corrupted_tokens, metric, activation):
    return positions(model, clean_tokens, corrupted_tokens, metric, activation, base=clean_tokens)


def hooks_stay_on(model, clean_tokens, corrupted_tokens, metric, activation):
    model.add_hook("blocks.0.hook_mlp_out", lambda value, hook: value)
    return positions(model, clean_tokens, corrupted_tokens, metric, activation)


def nothing_returned(model, clean_tokens, corrupted_tokens, metric, activation):
    """The hook makes a new tensor and forgets to return it."""
    clean_value = metric(model(clean_tokens))
    corrupted_value = metric(model(corrupted_tokens))
    _, cache = model.run_with_cache(clean_tokens)
    table = []
    for layer in range(model.cfg.n_layers):
        name = resid_name(activation, layer)

        def put(value, hook, name=name):
            value = value.clone()
            value[:, 0] = cache[name][:, 0]

        patched = metric(model.run_with_hooks(corrupted_tokens, fwd_hooks=[(name, put)]))
        table.append(torch.stack([scaled(patched, clean_value, corrupted_value)] * clean_tokens.shape[1]))
    return torch.stack(table)


def positions_by_hooks(model, clean_tokens, corrupted_tokens, metric, activation):
    return positions(model, clean_tokens, corrupted_tokens, metric, activation)


def positions_by_the_library(model, clean_tokens, corrupted_tokens, metric, activation):
    """`patching`, with one sweep for each number of the metric."""
    logits, cache = model.run_with_cache(clean_tokens)
    clean, corrupted = metric(logits), metric(model(corrupted_tokens))
    of = {
        "resid_pre": patching.get_act_patch_resid_pre,
        "attn_out": patching.get_act_patch_attn_out,
        "mlp_out": patching.get_act_patch_mlp_out,
    }[activation]
    tables = [
        of(model, corrupted_tokens, cache, lambda logits, i=i: metric(logits).flatten()[i])
        for i in range(clean.numel())
    ]
    patched = torch.stack(tables, dim=-1).view(*tables[0].shape, *clean.shape)
    return (patched - corrupted) / (clean - corrupted)


def positions_with_gradients(model, clean_tokens, corrupted_tokens, metric, activation):
    with torch.enable_grad():
        return positions(model, clean_tokens, corrupted_tokens, metric, activation).double()


# ── patch_heads and patch_groups ────────────────────────────────────────────────────────────────────────────


def head_index(activation, head):
    return (slice(None), head) if activation == "pattern" else (slice(None), slice(None), head)


def count(model, activation):
    return model.cfg.n_key_value_heads if activation in ("k", "v") else model.cfg.n_heads


def by_heads(model, clean, corrupted, metric, activation, indices=None, **changes):
    names = [head_name(activation, layer) for layer in range(model.cfg.n_layers)]
    indices = indices or [head_index(activation, head) for head in range(count(model, activation))]
    return sweep(model, clean, corrupted, metric, names, indices, **changes)


def positions_for_heads(model, clean_tokens, corrupted_tokens, metric, activation):
    """The write-up's: the second axis, whatever it is; as many as there are query heads."""
    indices = [(slice(None), head) for head in range(model.cfg.n_heads)]
    return by_heads(model, clean_tokens, corrupted_tokens, metric, activation, indices)


def position_axis_of_each(model, clean_tokens, corrupted_tokens, metric, activation):
    before = (slice(None), slice(None)) if activation == "pattern" else (slice(None),)
    indices = [(*before, head) for head in range(count(model, activation))]
    return by_heads(model, clean_tokens, corrupted_tokens, metric, activation, indices)


def third_axis_always(model, clean_tokens, corrupted_tokens, metric, activation):
    indices = [(slice(None), slice(None), head) for head in range(count(model, activation))]
    return by_heads(model, clean_tokens, corrupted_tokens, metric, activation, indices)


def column_for_each_query_head(model, clean_tokens, corrupted_tokens, metric, activation):
    scores = by_heads(model, clean_tokens, corrupted_tokens, metric, activation)
    return scores.repeat_interleave(model.cfg.n_heads // scores.shape[1], dim=1)


def as_many_as_query_heads(model, clean_tokens, corrupted_tokens, metric, activation):
    indices = [head_index(activation, head) for head in range(model.cfg.n_heads)]
    return by_heads(model, clean_tokens, corrupted_tokens, metric, activation, indices)


def padded_with_zeros(model, clean_tokens, corrupted_tokens, metric, activation):
    scores = by_heads(model, clean_tokens, corrupted_tokens, metric, activation)
    missing_columns = model.cfg.n_heads - scores.shape[1]
    return torch.cat([scores, torch.zeros(len(scores), missing_columns, *scores.shape[2:])], dim=1)


def all_heads_at_once(model, clean_tokens, corrupted_tokens, metric, activation):
    n = count(model, activation)
    indices = [head_index(activation, slice(None))] * n
    return by_heads(model, clean_tokens, corrupted_tokens, metric, activation, indices)


def always_z(model, clean_tokens, corrupted_tokens, metric, activation):
    return by_heads(model, clean_tokens, corrupted_tokens, metric, "z")


def heads_not_normalised(model, clean_tokens, corrupted_tokens, metric, activation):
    return by_heads(model, clean_tokens, corrupted_tokens, metric, activation, scale=lambda p, a, b: p)


def heads_divided_by_clean(model, clean_tokens, corrupted_tokens, metric, activation):
    return by_heads(model, clean_tokens, corrupted_tokens, metric, activation, scale=lambda p, a, b: p / a)


def heads_exchanged(model, clean_tokens, corrupted_tokens, metric, activation):
    return by_heads(model, corrupted_tokens, clean_tokens, metric, activation)


def heads_pile_up(model, clean_tokens, corrupted_tokens, metric, activation):
    return by_heads(model, clean_tokens, corrupted_tokens, metric, activation, leave=True)


def heads_at_the_end(model, clean_tokens, corrupted_tokens, metric, activation):
    if activation == "pattern":
        indices = [(slice(None), head, -1) for head in range(count(model, activation))]
    else:
        indices = [(slice(None), -1, head) for head in range(count(model, activation))]
    return by_heads(model, clean_tokens, corrupted_tokens, metric, activation, indices)


def heads_before_layers(model, clean_tokens, corrupted_tokens, metric, activation):
    return by_heads(model, clean_tokens, corrupted_tokens, metric, activation).transpose(0, 1)


def heads_averaged(model, clean_tokens, corrupted_tokens, metric, activation):
    scores = by_heads(model, clean_tokens, corrupted_tokens, metric, activation)
    return scores.flatten(2).mean(2) if scores.ndim > 2 else scores


def heads_after_rotation(model, clean_tokens, corrupted_tokens, metric, activation):
    name = {"q": "rot_q", "k": "rot_k"}.get(activation, activation)
    return (
        by_heads(model, clean_tokens, corrupted_tokens, metric, name, None)
        if name == activation
        else (
            by_heads(
                model,
                clean_tokens,
                corrupted_tokens,
                metric,
                name,
                [head_index(activation, head) for head in range(count(model, activation))],
            )
        )
    )


def heads_by_patch(model, clean_tokens, corrupted_tokens, metric, activation):
    names = [get_act_name(activation, layer) for layer in range(model.cfg.n_layers)]
    with record(model, *names) as seen:
        clean = metric(model(clean_tokens))
    corrupted = metric(model(corrupted_tokens))
    rows = []
    for layer, name in enumerate(names):
        row = []
        for head in range(count(model, activation)):
            with patch(model, activation, layer, seen[name], heads=[head]):
                row.append((metric(model(corrupted_tokens)).double() - corrupted) / (clean - corrupted))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def heads_by_the_library(model, clean_tokens, corrupted_tokens, metric, activation):
    logits, cache = model.run_with_cache(clean_tokens)
    clean, corrupted = metric(logits), metric(model(corrupted_tokens))
    name = "out" if activation == "z" else activation
    of = getattr(patching, f"get_act_patch_attn_head_{name}_all_pos")
    tables = [
        of(model, corrupted_tokens, cache, lambda logits, i=i: metric(logits).flatten()[i])
        for i in range(clean.numel())
    ]
    patched = torch.stack(tables, dim=-1).view(*tables[0].shape, *clean.shape)
    return (patched - corrupted) / (clean - corrupted)


def query_heads(kv_head, n_heads, n_key_value_heads):
    size = n_heads // n_key_value_heads
    return list(range(kv_head * size, (kv_head + 1) * size))


def by_groups(model, clean, corrupted, metric, activation, groups=None, **changes):
    n = model.cfg.n_key_value_heads
    groups = groups or [query_heads(group, model.cfg.n_heads, n) for group in range(n)]
    indices = [head_index(activation, group) for group in groups]
    return by_heads(model, clean, corrupted, metric, activation, indices, **changes)


def groups_dealt_in_turns(model, clean_tokens, corrupted_tokens, metric, activation):
    n = model.cfg.n_key_value_heads
    groups = [list(range(group, model.cfg.n_heads, n)) for group in range(n)]
    return by_groups(model, clean_tokens, corrupted_tokens, metric, activation, groups)


def sums_of_single_heads(model, clean_tokens, corrupted_tokens, metric, activation):
    scores = by_heads(model, clean_tokens, corrupted_tokens, metric, activation)
    return scores.unflatten(1, (model.cfg.n_key_value_heads, -1)).sum(2)


def means_of_single_heads(model, clean_tokens, corrupted_tokens, metric, activation):
    scores = by_heads(model, clean_tokens, corrupted_tokens, metric, activation)
    return scores.unflatten(1, (model.cfg.n_key_value_heads, -1)).mean(2)


def single_heads(model, clean_tokens, corrupted_tokens, metric, activation):
    return by_heads(model, clean_tokens, corrupted_tokens, metric, activation)


def values_instead(model, clean_tokens, corrupted_tokens, metric, activation):
    return by_heads(model, clean_tokens, corrupted_tokens, metric, "v")


def groups_not_normalised(model, clean_tokens, corrupted_tokens, metric, activation):
    return by_groups(model, clean_tokens, corrupted_tokens, metric, activation, scale=lambda p, a, b: p)


def groups_exchanged(model, clean_tokens, corrupted_tokens, metric, activation):
    return by_groups(model, corrupted_tokens, clean_tokens, metric, activation)


def groups_always_z(model, clean_tokens, corrupted_tokens, metric, activation):
    return by_groups(model, clean_tokens, corrupted_tokens, metric, "z")


def groups_by_slices(model, clean_tokens, corrupted_tokens, metric, activation):
    n, size = model.cfg.n_key_value_heads, model.cfg.n_heads // model.cfg.n_key_value_heads
    groups = [slice(group * size, (group + 1) * size) for group in range(n)]
    return by_groups(model, clean_tokens, corrupted_tokens, metric, activation, groups)


# ── sweep_share ─────────────────────────────────────────────────────────────────────────────────────────────


def cells(n_layers, n_positions, first, layers, positions):
    return sum(layers(i) * positions(p) for i in range(n_layers) for p in range(first, n_positions))


def share(n_layers, n_positions, first):
    needed = cells(n_layers, n_positions, first, lambda i: n_layers - i, lambda p: n_positions - p)
    return needed / (n_layers * n_positions) ** 2


def positions_before(n_layers, n_positions, first):
    return (
        cells(n_layers, n_positions, first, lambda i: n_layers - i, lambda p: p + 1)
        / (n_layers * n_positions) ** 2
    )


def without_the_patched_layer(n_layers, n_positions, first):
    return (
        cells(n_layers, n_positions, first, lambda i: n_layers - i - 1, lambda p: n_positions - p)
        / (n_layers * n_positions) ** 2
    )


def depth_only(n_layers, n_positions, first):
    return (
        cells(n_layers, n_positions, first, lambda i: n_layers - i, lambda p: n_positions)
        / (n_layers * n_positions) ** 2
    )


def positions_only(n_layers, n_positions, first):
    return (
        cells(n_layers, n_positions, first, lambda i: n_layers, lambda p: n_positions - p)
        / (n_layers * n_positions) ** 2
    )


def every_site(n_layers, n_positions, first):
    return share(n_layers, n_positions, 0)


def of_the_visited_sites(n_layers, n_positions, first):
    return share(n_layers, n_positions, first) * n_positions / (n_positions - first)


def of_one_pass(n_layers, n_positions, first):
    return share(n_layers, n_positions, first) * n_layers * n_positions


def number_of_cells(n_layers, n_positions, first):
    return cells(n_layers, n_positions, first, lambda i: n_layers - i, lambda p: n_positions - p)


def share_saved(n_layers, n_positions, first):
    return 1 - share(n_layers, n_positions, first)


def sites_visited(n_layers, n_positions, first):
    return (n_positions - first) / n_positions


def integer_division(n_layers, n_positions, first):
    return number_of_cells(n_layers, n_positions, first) // (n_layers * n_positions) ** 2


def share_in_closed_form(n_layers, n_positions, first):
    left = n_positions - first
    return n_layers * (n_layers + 1) / 2 * left * (left + 1) / 2 / (n_layers * n_positions) ** 2


def share_by_tensors(n_layers, n_positions, first):
    layers = torch.arange(1, n_layers + 1)
    positions_left = torch.arange(1, n_positions - first + 1)
    return (layers[:, None] * positions_left).sum() / (n_layers * n_positions) ** 2


# ── query_heads_of and reach ────────────────────────────────────────────────────────────────────────────────


def dealt_in_turns(kv_head, n_heads, n_key_value_heads):
    return [head for head in range(n_heads) if head % n_key_value_heads == kv_head]


def groups_of_the_other_size(kv_head, n_heads, n_key_value_heads):
    return list(range(kv_head * n_key_value_heads, (kv_head + 1) * n_key_value_heads))


def next_group(kv_head, n_heads, n_key_value_heads):
    return query_heads(kv_head + 1, n_heads, n_key_value_heads)


def itself(kv_head, n_heads, n_key_value_heads):
    return [kv_head]


def one_too_many(kv_head, n_heads, n_key_value_heads):
    size = n_heads // n_key_value_heads
    return list(range(kv_head * size, (kv_head + 1) * size + 1))


def group_of_each_head(kv_head, n_heads, n_key_value_heads):
    return [head // (n_heads // n_key_value_heads) for head in range(n_heads)]


def seven_heads(kv_head, n_heads, n_key_value_heads):
    return list(range(7 * kv_head, 7 * kv_head + 7))


def query_heads_as_range(kv_head, n_heads, n_key_value_heads):
    size = n_heads // n_key_value_heads
    return range(kv_head * size, kv_head * size + size)


def query_heads_by_tensor(kv_head, n_heads, n_key_value_heads):
    return torch.arange(n_heads).view(n_key_value_heads, -1)[kv_head]


def at_reading(scores, read_positions):
    return torch.stack([scores[:, p, i] for i, p in enumerate(read_positions)], dim=1)


def stays(scores, read_positions, threshold):
    """Whether the score is high from each layer on."""
    high = at_reading(scores, read_positions) >= threshold
    return high.flip(0).cumprod(0).flip(0).bool()


def reached(scores, read_positions, threshold):
    layers = (~stays(scores, read_positions, threshold)).sum(0)
    return layers.where(~at_reading(scores, read_positions).isnan().any(0), -1)


def first_high(scores, read_positions, threshold):
    high = at_reading(scores, read_positions) >= threshold
    first = high.int().argmax(0).where(high.any(0), len(scores))
    return first.where(~at_reading(scores, read_positions).isnan().any(0), -1)


def first_high_or_zero(scores, read_positions, threshold):
    high = at_reading(scores, read_positions) >= threshold
    return high.int().argmax(0).where(~at_reading(scores, read_positions).isnan().any(0), -1)


def zero_if_never(scores, read_positions, threshold):
    layers = stays(scores, read_positions, threshold).int().argmax(0)
    return layers.where(~at_reading(scores, read_positions).isnan().any(0), -1)


def nan_forgotten(scores, read_positions, threshold):
    return (~stays(scores, read_positions, threshold)).sum(0)


def nan_as_zero(scores, read_positions, threshold):
    return reached(scores, read_positions, threshold).clamp(min=0)


def highest_layer(scores, read_positions, threshold):
    at = at_reading(scores, read_positions)
    return at.nan_to_num(-9).argmax(0).where(~at.isnan().any(0), -1)


def where_it_stands(scores, read_positions, threshold):
    return reached(scores, [min(p + 1, scores.shape[1] - 1) for p in read_positions], threshold)


def one_layer_early(scores, read_positions, threshold):
    layers = reached(scores, read_positions, threshold)
    return (layers - 1).where(layers >= 0, -1)


def the_scores(scores, read_positions, threshold):
    return at_reading(scores, read_positions).T


def layers_from_one(scores, read_positions, threshold):
    layers = reached(scores, read_positions, threshold)
    return (layers + 1).where(layers >= 0, -1)


def strictly_above(scores, read_positions, threshold):
    return reached(scores, read_positions, threshold + 1e-7)


def reached_by_loops(scores, read_positions, threshold):
    found = []
    for place, position in enumerate(read_positions):
        column = scores[:, position, place]
        if column.isnan().any():
            found.append(-1)
            continue
        candidates = [layer for layer in range(len(column)) if (column[layer:] >= threshold).all()]
        found.append(min(candidates, default=len(column)))
    return found


LESSON = [
    Answers(
        checks.answer_logits,
        wrong={
            all_at_the_prompts_end: "last position of the prompt",
            where_the_digit_stands: "where the digit stands",
            one_earlier: "one position too early",
            as_written: "in the order of writing",
            as_written_and_late: "read where each digit stands",
            first_ten_columns: "0 to 9 of the vocabulary",
            probabilities_of_tokens: "softmax over the whole vocabulary",
            probabilities_of_digits: "softmax is taken",
            log_probabilities: "Logarithms of probabilities",
            from_the_end: "from the end of the sequence",
            whole_vocabulary: "All tokens of the vocabulary",
            digit_before_place: "(batch, digit, place)",
            five_places: "shape",
            ids_of_the_bundled_model: "fixed in the code",
        },
        right=[answers_by_slices, answers_by_loops],
    ),
    Answers(
        checks.place_accuracy,
        wrong={
            text_not_turned_round: "Turn them round",
            turned_round_at_the_end: "comes first",
            no_modulo: "`% 10` is missing",
            tens_for_units: "one too far",
            whole_products: "every place is right",
            mean_accuracy: "mean over places",
            counts: "These are counts",
            percentages: "percentages",
            share_of_errors: "share of wrong digits",
            mean_probability: "mean probability",
            row_by_row: "for each row; average over the rows",
            not_averaged: "each row and place",
        },
        right=[accuracy, accuracy_by_texts, accuracy_as_list],
    ),
    Answers(
        checks.logit_difference,
        wrong={
            wrong_minus_right: "sign is turned round",
            mean_over_places: "mean over places",
            mean_where_they_differ: "places that differ",
            sum_over_places: "sum over places",
            mean_over_rows: "mean over rows;",
            mean_over_all: "mean over rows and places",
            of_probabilities: "differences of probabilities",
            best_other_digit: "best other digit",
            right_logit_alone: "Only the right product's digit",
            first_written_first: "digits are taken in the order of writing",
            turned_differences: "result is in the order of writing",
            first_digit_only: "Only the first written digit",
            nan_where_they_agree: "NaN where",
        },
        right=[difference, by_log_probabilities, by_one_hot],
    ),
    Answers(
        checks.lens,
        wrong={
            lens_with_the_final_scale: "*final* scale",
            lens_without_norm: "norm is left out",
            lens_without_bias: "b_U is left out",
            lens_before_layers: "Only the streams before each layer are there",
            lens_without_mid: "after each attention (`resid_mid`)",
            lens_without_the_last: "last depth",
            lens_by_layernorm: "mean is subtracted",
            lens_divided_by_length: "divided by its length",
            lens_of_the_parts: "parts that each component adds",
            lens_at_the_end: "last position is taken",
            lens_of_all_tokens: "All tokens",
            lens_of_columns: "0 to 9 of the vocabulary",
            lens_as_probabilities: "Softmax is taken over the digits",
        },
        right=[look, lens_by_transformer_lens, lens_by_loops],
    ),
    Answers(
        checks.component_attribution,
        wrong={
            no_scale: "scale is left out",
            no_scale_no_bias: "so is the row of b_U",
            own_scale: "its own scale",
            mean_scale: "averaged over the batch",
            scale_of_the_last_position: "scale is that of the last position",
            without_b_U: "row of b_U is missing",
            b_U_scaled: "b_U is divided by the scale",
            sum_over_the_batch: "sum over the batch",
            mean_over_the_batch: "mean over the batch",
            one_position_late: "one position too late",
            one_position_early: "one position too early",
            right_and_wrong_exchanged: "sign is turned round",
            stream_for_outputs: "residual stream so far",
            mlp_before_attention: "the MLP comes first",
            attentions_then_mlps: "All attentions come first",
            whole_layers: "one row, attention and MLP together",
            right_token_alone: "right token's logit alone",
        },
        right=[
            lambda model, tokens, position, right, wrong: attribution(model, tokens, position, right, wrong),
            attribution_by_transformer_lens,
            attribution_in_double,
            attribution_by_loops,
        ],
    ),
    Answers(checks.sum_or_mean, wrong={Value(["b"]): "Choose one of"}),
    Answers(
        checks.head_attribution,
        wrong={
            heads_without_scale: "scale is left out",
            heads_with_their_own_scale: "its own scale",
            heads_late: "one too late",
            bias_shared_out: "b_O is shared out",
            bias_for_everyone: "added to every head",
            by_key_value_head: "share a key/value head are added up",
            values_at_the_position: "values at `position` themselves",
            groups_in_turns: "in turns",
            heads_by_head_first: "(head, layer, batch)",
            heads_in_one_axis: "one axis",
            mean_head: "mean over the batch",
            heads_turned_round: "sign is turned round",
        },
        right=[
            lambda model, tokens, position, right, wrong: by_head(model, tokens, position, right, wrong),
            heads_by_transformer_lens,
        ],
    ),
    Answers(
        checks.pair_tokens,
        wrong={
            each_its_own_answer: "fed their own products",
            the_corrupted_answer: "fed the *corrupted* product",
            answers_exchanged: "products are exchanged",
            end_kept: "END after the product",
            prompts_only: "Only the prompts",
            pair_turned_round: "Clean and corrupted are exchanged",
            ids_of_the_bundled: "ids are the bundled model's",
            without_the_first_token: "END at the beginning",
            same_twice: "Both are the clean sequences",
            last_digit_dropped: "last digit of the product is missing",
        },
        right=[right_pair, pair_by_products, one_tensor],
    ),
    Answers(checks.corrupted_that_is_not),
    Answers(
        checks.patch_positions,
        wrong={
            runs_exchanged: "exchanged throughout",
            runs_exchanged_scale_kept: "run the *corrupted* tokens",
            not_normalised: "not normalised",
            difference_only: "nothing is divided by",
            divided_by_clean: "divided by the clean run's alone",
            difference_by_clean: "divided by the clean run's metric",
            what_is_missing: "still missing",
            always_resid_pre: "before the layer, `resid_pre`",
            after_the_layer: "`resid_post`",
            after_attention: "`resid_mid`",
            every_position: "All positions are patched at once",
            up_to_the_position: "All positions up to",
            only_row_zero: "first sequence",
            layers_last: "Layer and position are exchanged",
            without_layer_zero: "first layer is missing",
            metric_averaged: "averaged before it is normalised",
            scores_averaged: "metric is averaged",
            hooks_pile_up: "hooks of earlier entries",
            hooks_stay_on: "leaves a hook on the model",
            clean_run_patched_with_itself: "every entry is 1",
            nothing_returned: "Every entry is 0",
        },
        right=[positions_by_hooks, positions_by_the_library, positions_with_gradients],
    ),
    Answers(
        checks.sweep_share,
        wrong={
            positions_before: "The positions *before*",
            without_the_patched_layer: "patched layer itself is left out",
            depth_only: "All positions are counted",
            positions_only: "All layers are counted",
            every_site: "Sites before `first`",
            of_the_visited_sites: "visited sites only",
            of_one_pass: "one forward pass",
            number_of_cells: "number of cells",
            share_saved: "saved",
            sites_visited: "sites that are visited",
            integer_division: "`/`, not `//`",
        },
        right=[share, share_in_closed_form, share_by_tensors],
    ),
    Answers(
        checks.reach,
        wrong={
            first_high: "a later one falls below",
            first_high_or_zero: "argmax of all False",
            zero_if_never: "never reached gives 0",
            nan_forgotten: "comparison with NaN",
            nan_as_zero: "NaN gives 0",
            highest_layer: "highest score",
            where_it_stands: "one too late",
            one_layer_early: "one layer too early",
            the_scores: "These are the scores",
            layers_from_one: "counted from 1",
            strictly_above: "`>=`",
        },
        right=[reached, reached_by_loops],
    ),
    Answers(
        checks.patch_heads,
        wrong={
            positions_for_heads: "Positions were patched",
            position_axis_of_each: "used for a position",
            third_axis_always: "used for a query position",
            column_for_each_query_head: "column for each *query* head",
            as_many_as_query_heads: "IndexError",
            padded_with_zeros: "The columns after those are 0",
            all_heads_at_once: "All heads are patched at once",
            always_z: "Patched is the heads' outputs, z",
            heads_not_normalised: "not normalised",
            heads_divided_by_clean: "divided by the clean run's alone",
            heads_exchanged: "exchanged throughout",
            heads_pile_up: "hooks of earlier entries",
            heads_at_the_end: "Only the last position",
            heads_before_layers: "Layer and head are exchanged",
            heads_averaged: "metric is averaged",
        },
        right=[
            lambda model, clean_tokens, corrupted_tokens, metric, activation: by_heads(
                model, clean_tokens, corrupted_tokens, metric, activation
            ),
            heads_by_patch,
            heads_by_the_library,
            heads_after_rotation,
        ],
    ),
    Answers(
        checks.query_heads_of,
        wrong={
            dealt_in_turns: "dealt out in turns",
            groups_of_the_other_size: "n_heads / n_key_value_heads",
            next_group: "next key/value head",
            itself: "key/value head itself",
            one_too_many: "one head too many",
            group_of_each_head: "which key/value head each query head reads",
            seven_heads: "fixed in the code",
        },
        right=[query_heads, query_heads_as_range, query_heads_by_tensor],
    ),
    Answers(checks.positions_for_heads),
    Answers(
        checks.patch_groups,
        wrong={
            groups_dealt_in_turns: "in turns",
            sums_of_single_heads: "sums of the single heads",
            means_of_single_heads: "means of the single heads",
            single_heads: "one column for each query head",
            values_instead: "own values are patched",
            groups_not_normalised: "not normalised",
            groups_exchanged: "exchanged throughout",
            groups_always_z: "Patched is the heads' outputs, z",
        },
        right=[
            lambda model, clean_tokens, corrupted_tokens, metric, activation: by_groups(
                model, clean_tokens, corrupted_tokens, metric, activation
            ),
            groups_by_slices,
        ],
    ),
]
OTHERS = {"counterexamples", "circuit", "explanation"}
"""Exercises whose answers are in `test_05_evidence.py`."""


@pytest.mark.parametrize("proof", proofs(LESSON))
def test_wrong_answers(proof):
    proof()


def test_every_exercise_is_here():
    assert set(missing(checks.CHECKS, LESSON)) <= OTHERS


@pytest.mark.parametrize("name", [checks_common.TWO_LAYERS, checks_common.THREE_LAYERS, checks_common.LESSON])
def test_the_model_written_out_by_hand_is_the_model(name):
    model, plain = checks_common.MODELS[name].get(), checks_common.Plain.of(name)
    tokens = torch.randint(model.cfg.d_vocab, (3, 9), generator=torch.Generator().manual_seed(0))
    logits, cache = model.run_with_cache(tokens)
    seen = plain.run(tokens)
    torch.testing.assert_close(seen.pop(("logits", -1)).float(), logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(seen.pop(("scale", -1)).float(), cache["ln_final.hook_scale"])
    torch.testing.assert_close(seen.pop(("embed", -1)).float(), cache["hook_embed"])
    for (activation, layer), value in seen.items():
        torch.testing.assert_close(value.float(), cache[activation, layer], atol=1e-4, rtol=1e-4)
