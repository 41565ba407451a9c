"""Lesson 02: right answers by other routes, and the wrong ones that no table of slips covers."""

import math

import einops
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from exercises_utils.challenges.sorted_list_two_heads import checks, task
from exercises_utils.challenges.sorted_list_two_heads import evidence as evidence_task
from exercises_utils.tools.hooks import ablate, patch
from tests.wrong_answers.harness import Answers, Made, missing, proofs


def middle(tokens):
    return tokens.shape[1] // 2


def labels(tokens):
    return tokens[:, middle(tokens) + 1 :]


def answers_of(logits, tokens):
    return logits[:, middle(tokens) : -1]


def pick(values, numbers):
    return values.gather(-1, numbers[..., None])[..., 0]


# ── sections 1 to 3 ─────────────────────────────────────────────────────────────────────────────────────────


def answer_probabilities(model, tokens):
    return pick(answers_of(model(tokens).softmax(-1), tokens), labels(tokens))


def probabilities_in_numpy(model, tokens):
    n = middle(tokens)
    return np.array(
        [
            [float(logits[p].softmax(-1)[row[p + 1]]) for p in range(n, 2 * n)]
            for row, logits in zip(tokens, model(tokens).double(), strict=True)
        ]
    )


def always_ten(model, tokens):
    return pick(model(tokens).softmax(-1)[:, 10:20], tokens[:, 11:21])


def one_list_squeezed(model, tokens):
    return answer_probabilities(model, tokens).squeeze()


def folded_in_numpy(model):
    w, b, W_U = (tensor.numpy() for tensor in (model.ln_final.w, model.ln_final.b, model.W_U))
    return [(W_U.T * w).T, model.b_U.numpy() + (W_U.T @ b)]


def only_W_U(model):
    return model.ln_final.w[:, None] * model.W_U


def constant_scale_by_hook(model, tokens):
    _, cache = model.run_with_cache(tokens)
    mean = answers_of(cache["ln_final.hook_scale"], tokens).mean()
    put = ("ln_final.hook_scale", lambda scale, hook: torch.full_like(scale, mean.item()))
    return answers_of(model.run_with_hooks(tokens, fwd_hooks=[put]), tokens)


def mask_of(tokens):
    return (tokens[:, None, : middle(tokens)] == labels(tokens)[..., None]).float()


def to_next(model, tokens):
    _, cache = model.run_with_cache(tokens)
    n = middle(tokens)
    return (cache["pattern", 0][:, :, n:-1, :n] * mask_of(tokens)[:, None]).sum(-1).mean(0)


def in_the_sorted_part(model, tokens):
    _, cache = model.run_with_cache(tokens)
    n = middle(tokens)
    return cache["pattern", 0][:, :, range(n, 2 * n), range(n + 1, 2 * n + 1)].mean(0)


def next_by_argsort(model, tokens):
    _, cache = model.run_with_cache(tokens)
    n = middle(tokens)
    order = tokens[:, :n].argsort(dim=-1, stable=True)
    rows = cache["pattern", 0][:, :, n:-1, :n]
    return rows.gather(-1, order[:, None, :, None].expand(-1, rows.shape[1], -1, 1))[..., 0].mean(0)


# ── section 4 ───────────────────────────────────────────────────────────────────────────────────────────────


def losses(model, tokens):
    return -answer_probabilities(model, tokens).log()


def rises(model, tokens, activation="z"):
    before, found = losses(model, tokens), []
    for head in range(model.cfg.n_heads):
        with ablate(model, [(0, head)], activation=activation, how="mean"):
            found.append(losses(model, tokens) - before)
    return torch.stack(found)


def costs_of_result(model, tokens):
    return rises(model, tokens, "result").mean((1, 2)).tolist()


def two_heads_always(model, tokens):
    return rises(model, tokens).mean((1, 2))[:2]


def hook_left_on(model, tokens):
    result = rises(model, tokens).mean((1, 2))
    model.add_hook("blocks.0.attn.hook_z", lambda z, hook: z)
    return result


def by_number(model, tokens, n_numbers=None, how=torch.mean):
    n_numbers = n_numbers or model.cfg.d_vocab - 1
    rows = [[how(r[labels(tokens) == t]) for t in range(n_numbers)] for r in rises(model, tokens)]
    return torch.tensor(rows)


def by_number_with_bincount(model, tokens):
    flat, n = labels(tokens).flatten(), model.cfg.d_vocab - 1
    sums = [torch.bincount(flat, rise.double().flatten(), minlength=n) for rise in rises(model, tokens)]
    return torch.stack(sums) / torch.bincount(flat, minlength=n)


def sums_by_number(model, tokens):
    return by_number(model, tokens, how=torch.sum)


def fifty_one_numbers(model, tokens):
    return by_number(model, tokens, n_numbers=51)


def only(model, tokens, owner, heads=None):
    _, cache = model.run_with_cache(tokens)
    z, n = cache["z", 0].clone(), middle(tokens)
    for head in range(heads or z.shape[2]):
        others = (owner[labels(tokens)] != head)[..., None]
        z[:, n:-1, head] = torch.where(others, z[:, n:-1, head].mean(0), z[:, n:-1, head])
    with patch(model, "z", 0, z):
        return answers_of(model(tokens), tokens)


def two_heads_only(model, tokens, owner):
    return only(model, tokens, owner, heads=2)


def changes_the_owner(model, tokens, owner):
    result = only(model, tokens, owner)
    owner += 1
    return result


def ranges_as_lists_of_tensors(owner):
    found = {}
    for head in owner.unique():
        mine = (owner == head).nonzero().flatten()
        pieces = torch.tensor_split(mine, (mine.diff() > 1).nonzero().flatten() + 1)
        found[int(head)] = [[piece[0], piece[-1]] for piece in pieces]
    return found


def list_of_runs(owner):
    return [pair for pairs in ranges_as_lists_of_tensors(owner).values() for pair in pairs]


def circuits_by_einsum(model, head, scale, final_scale, width=None):
    E, at = model.W_E.double() / scale, head
    v = einops.einsum(E, model.W_V[at].double(), "s d, d h -> s h") @ model.W_O[at].double()
    q = einops.einsum(E, model.W_Q[at].double(), "t d, d h -> t h")
    k = einops.einsum(E, model.W_K[at].double(), "t d, d h -> t h")
    return [v @ model.W_U.double() / final_scale, q @ k.T / np.sqrt(width or model.cfg.d_head)]


def d_head_48(model, head, scale, final_scale):
    return circuits_by_einsum(model, head, scale, final_scale, width=48)


def margins(ov):
    diagonal = torch.diagonal(ov, dim1=1, dim2=2)
    hole = torch.eye(ov.shape[1], dtype=torch.bool)
    return diagonal - ov.masked_fill(hole, float("-inf")).max(-1).values


def copier(ov):
    return margins(ov[:, :-1, :-1]).argmax(0).tolist()


def shared_by_own_hook(model, tokens, giver):
    def put(pattern, hook):
        pattern[:] = pattern[:, [giver]]
        return pattern

    hooks = [("blocks.0.attn.hook_pattern", put)]
    return answers_of(model.run_with_hooks(tokens, fwd_hooks=hooks), tokens).double()


def shared_queries_and_keys(model, tokens, giver):
    _, cache = model.run_with_cache(tokens)
    q, k = (cache[name, 0][:, :, [giver]].expand_as(cache[name, 0]) for name in ("q", "k"))
    with patch(model, "q", 0, q), patch(model, "k", 0, k):
        return answers_of(model(tokens), tokens)


def asks_by_layer_norm(model, head, query, position, length=None):
    asks = model.W_E[query] + model.W_pos[position]
    keys = model.W_E[:-1] + model.W_pos[: length or model.cfg.n_ctx // 2].mean(0)
    q, k = (F.layer_norm(x.double(), x.shape[-1:], eps=model.cfg.eps) for x in (asks, keys))
    q = q @ model.W_Q[head].double() + model.b_Q[head]
    k = k @ model.W_K[head].double() + model.b_K[head]
    return (k * q).sum(-1) / math.sqrt(model.cfg.d_head)


def asks_list_of_ten(model, head, query, position):
    return asks_by_layer_norm(model, head, query, position, length=10)


def positions_by_einsum(model, head, scale):
    q = einops.einsum(model.W_pos.double(), model.W_Q[head].double(), "p d, d h -> p h") / scale
    k = einops.einsum(model.W_E.double(), model.W_K[head].double(), "t d, d h -> t h") / scale
    return einops.einsum(q, k, "p h, t h -> p t") / model.cfg.d_head**0.5


# ── sections 5 and 6 ────────────────────────────────────────────────────────────────────────────────────────


def no_direct_with_the_scale_held(model, tokens):
    _, cache = model.run_with_cache(tokens)
    scale = cache["ln_final.hook_scale"]
    hooks = [
        ("ln_final.hook_in", lambda resid, hook: resid - cache["embed"]),
        ("ln_final.hook_scale", lambda now, hook: scale),
    ]
    return answers_of(model.run_with_hooks(tokens, fwd_hooks=hooks), tokens)


def dla_at_once(model, tokens, head, queries, sources, predictions):
    layer, index = head
    _, cache = model.run_with_cache(tokens)
    rows = torch.arange(len(tokens))[:, None]
    weights = cache["pattern", layer][rows, index, queries[:, None], sources]
    written = cache["v", layer][rows, sources, index] * weights[..., None] @ model.W_O[layer, index]
    logits = written / cache["ln_final.hook_scale"][rows, queries[:, None]] @ model.W_U
    return logits.gather(-1, predictions[:, None].expand(-1, sources.shape[1], -1))


def dla_in_the_list(model, tokens, head, queries, sources, predictions):
    return dla_at_once(model, tokens, head, queries, sources % middle(tokens), predictions)


def looking_by_scores(model, tokens, heads=None):
    """By way of the scores: minus infinity everywhere else, and a softmax gives equal shares."""
    _, cache = model.run_with_cache(tokens)
    scores, n = cache["attn_scores", 0].clone(), middle(tokens)
    scores[:, :heads, n:-1] = float("-inf")
    scores[:, :heads, n:-1, :n] = mask_of(tokens).log()[:, None]
    with patch(model, "attn_scores", 0, scores):
        return answers_of(model(tokens), tokens).double()


def look_in_two_heads(model, tokens):
    return looking_by_scores(model, tokens, heads=2)


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
        {always_ten: "right on the lesson's model", one_list_squeezed: "one sequence"},
        [answer_probabilities, probabilities_in_numpy],
    ),
    Answers(checks.folded_unembedding, {only_W_U: "tuple (W_U, b_U)"}, [folded_in_numpy]),
    Answers(checks.what_folding_changes),
    Answers(checks.constant_scale_logits, {}, [constant_scale_by_hook]),
    Answers(checks.sep_attends_to),
    Answers(
        checks.attention_to_next,
        {in_the_sorted_part: "not in the sorted half", next_by_argsort: "all of its places"},
        [to_next],
    ),
    Answers(
        checks.ablation_costs,
        {two_heads_always: "a random model", hook_left_on: "hook"},
        [costs_of_result],
    ),
    Answers(
        checks.costs_by_number,
        {fifty_one_numbers: "a random model", sums_by_number: "summed"},
        [by_number, by_number_with_bincount],
    ),
    Answers(checks.owners_only, {two_heads_only: "a random model", changes_the_owner: "in place"}, [only]),
    Answers(checks.number_ranges, {list_of_runs: "dict"}, [ranges_as_lists_of_tensors]),
    Answers(checks.head_circuits, {d_head_48: "a random model"}, [circuits_by_einsum]),
    Answers(checks.copying_head, {}, [copier]),
    Answers(checks.shared_pattern, {}, [shared_by_own_hook, shared_queries_and_keys]),
    Answers(checks.key_scores, {asks_list_of_ten: "a random model"}, [asks_by_layer_norm]),
    Answers(checks.position_key_scores, {}, [positions_by_einsum]),
    Answers(checks.without_direct_path, {}, [no_direct_with_the_scale_held]),
    Answers(checks.dla_from_sources, {dla_in_the_list: "head 0.1"}, [dla_at_once]),
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
    Answers(checks.right_attention, {look_in_two_heads: "a random model"}, [looking_by_scores]),
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
