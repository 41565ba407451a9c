"""Lesson 03: wrong answers that its tables of slips do not say, and right ones by other routes."""

from contextlib import ExitStack

import einops
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformer_lens.utilities import get_act_name

from exercises_utils.challenges.palindromes import checks, checks_evidence, task
from exercises_utils.challenges.palindromes.checks_common import palindromes
from exercises_utils.tools import circuits
from exercises_utils.tools.hooks import ablate, patch, record
from tests.wrong_answers.harness import Answers, Made, missing, proofs


def diff(logits):
    return logits[:, -1, 1] - logits[:, -1, 0]


def cached(model, tokens, name, layer):
    return model.run_with_cache(tokens)[1][name, layer]


# ── 1 to 3 · logit_diff, logit_attribution, mirror_attention ────────────────────────────────────────────────


def diff_squeezed(model, tokens):
    return diff(model(tokens)).squeeze()


def diff_at_n_ctx(model, tokens):
    logits = model(tokens)[:, model.cfg.n_ctx - 1]
    return logits[:, 1] - logits[:, 0]


def log_probabilities(model, tokens):
    log_probs = model(tokens)[:, -1].log_softmax(-1)
    return log_probs[:, 1] - log_probs[:, 0]


def by_loop_in_numpy(model, tokens):
    return np.array([float(row[-1][1] - row[-1][0]) for row in model(tokens)])


def own_scales_and_epsilon(model, tokens):
    components, _ = circuits.residual_components(model.run_with_cache(tokens)[1])
    normed = components / (components.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    rows = normed @ (model.W_U[:, 1] - model.W_U[:, 0])
    return torch.cat([rows, (model.b_U[1] - model.b_U[0]).expand(1, len(tokens))])


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


def attribution_by_logit_attrs(model, tokens):
    _, cache = model.run_with_cache(tokens)
    components, _ = circuits.residual_components(cache)
    verdicts = {name: torch.full((len(tokens),), i) for i, name in enumerate(("incorrect_tokens", "tokens"))}
    rows = cache.logit_attrs(components, pos_slice=-1, **verdicts)
    return [*rows, (model.b_U[1] - model.b_U[0]).expand(len(tokens))]


def hard_coded_length(pattern):
    queries = torch.arange(11, 21)
    return pattern[:, queries, 21 - queries]


def mirror_of_ten(pattern):
    return mirror_by_flip(pattern)[:, :10]


def mirror_by_flip(pattern):
    antidiagonal = torch.diagonal(torch.flip(pattern, dims=[2]), dim1=1, dim2=2)
    return antidiagonal[:, pattern.shape[1] // 2 : -1]


# ── 4 and 5 · swap_pattern, necessity ───────────────────────────────────────────────────────────────────────


def swapped(model, head, source, target, position, activation="pattern"):
    layer, index = head
    value = cached(model, source, activation, layer)
    with patch(model, activation, layer, value, heads=[index], positions=[position]):
        return diff(model(target))


def second_half_only(model, head, intact, broken, position):
    return swapped(model, head, broken, intact, max(position, intact.shape[1] // 2))


def swap_squeezed(model, head, intact, broken, position):
    return swapped(model, head, broken, intact, position).squeeze()


def scores_by_hook(model, head, intact, broken, position):
    return swapped(model, head, broken, intact, position, "attn_scores")


def row_by_own_hook(model, head, intact, broken, position):
    layer, index = head
    source = cached(model, broken, "pattern", layer)

    def put(pattern, hook):
        pattern[:, index, position] = source[:, index, position]
        return pattern

    return diff(model.run_with_hooks(intact, fwd_hooks=[(get_act_name("pattern", layer), put)]))


def three_shares(model, head, control, intact, broken, position):
    runs = (diff(model(broken)), *(swapped(model, h, intact, broken, position) for h in (head, control)))
    return {
        name: (d < 0).float().mean() for name, d in zip(("broken", "restored", "control"), runs, strict=True)
    }


def shares_in_percent(*arguments):
    return {name: 100 * share for name, share in three_shares(*arguments).items()}


def shares_without_names(*arguments):
    return tuple(three_shares(*arguments).values())


def control_left_out(*arguments):
    return {name: share for name, share in three_shares(*arguments).items() if name != "control"}


def restored_twice(model, head, control, intact, broken, position):
    """The control is run while `head`'s row is still restored."""
    with patch(
        model,
        "pattern",
        head[0],
        cached(model, intact, "pattern", head[0]),
        heads=[head[1]],
        positions=[position],
    ):
        shares = three_shares(model, head, control, intact, broken, position)
    return {**three_shares(model, head, control, intact, broken, position), "control": shares["control"]}


# ── 6, 7 and 9 · send_message, swap_inputs, mend ────────────────────────────────────────────────────────────


def message_by_pattern(model, head, tokens, place, source):
    """A row that is all on `source`, with the mask out of the way."""
    layer, index = head
    row = torch.zeros_like(cached(model, tokens, "pattern", layer))
    row[..., source] = 1
    with patch(model, "pattern", layer, row, heads=[index], positions=[place]):
        return diff(model(tokens))


def value_of_the_first_sequence(model, head, tokens, place, source):
    layer, index = head
    z = cached(model, tokens, "z", layer)
    z[:, place, index] = cached(model, tokens, "v", layer)[0, source, index]
    with patch(model, "z", layer, z, heads=[index], positions=[place]):
        return diff(model(tokens))


def inputs_by_patch(model, head, inputs, intact, broken, position, readers, *, everywhere=False):
    layer, index = head
    names = {name: get_act_name(name, layer + 1) for name in inputs}
    pattern = cached(model, broken, "pattern", layer)
    with (
        patch(model, "pattern", layer, pattern, heads=[index], positions=[position]),
        record(model, *names.values()) as seen,
    ):
        model(intact)
    with ExitStack() as stack:
        for name, full in names.items():
            places = [intact.shape[1] - 1] if name == "q" else None if everywhere else [position]
            stack.enter_context(patch(model, name, layer + 1, seen[full], heads=readers, positions=places))
        return diff(model(intact))


def keys_and_values_everywhere(*arguments):
    """Nothing else has changed, so this is the same."""
    return inputs_by_patch(*arguments, everywhere=True)


def inputs_left_on(model, head, inputs, intact, broken, position, readers):
    """The hooks stay on the model."""
    source = cached(model, broken, "k", head[0] + 1)
    model.add_hook(get_act_name("k", head[0] + 1), lambda value, hook: source)
    return diff(model(intact))


def mend_by_patch(model, head, tokens, place, attend_to=None, speak_as=None):
    layer, index = head
    row = cached(model, tokens, "pattern", layer)[:, index, place].clone()
    values = cached(model, tokens, "v", layer)[:, :, index].clone()
    if attend_to is not None:
        row = F.one_hot(torch.tensor(attend_to), row.shape[-1]).expand(len(tokens), -1).float()
    if speak_as is not None:
        values[:, place] = values[:, speak_as]
    z = cached(model, tokens, "z", layer).clone()
    z[:, place, index] = torch.einsum("sk,skd->sd", row, values)
    with patch(model, "z", layer, z, heads=[index], positions=[place]):
        return diff(model(tokens))


def mend_edits_the_tokens(model, head, tokens, place, attend_to, speak_as):
    if speak_as is not None:
        tokens[:, place] = tokens[:, speak_as]
    return mend_by_patch(model, head, tokens, place, attend_to)


# ── 10 to 15 · measurements ─────────────────────────────────────────────────────────────────────────────────


def token_scores(model, head, scale, rows=None, d_head=None):
    e = model.W_E[:-2].double()[:rows] / scale
    q = einops.einsum(e, model.W_Q[head].double(), "value d_model, d_model d_head -> value d_head")
    k = einops.einsum(e, model.W_K[head].double(), "value d_model, d_model d_head -> value d_head")
    return einops.einsum(q, k, "query d_head, key d_head -> query key") / (d_head or model.cfg.d_head) ** 0.5


def hard_coded_d_head(model, head, scale):
    return token_scores(model, head, scale, d_head=14)


def hard_coded_vocabulary(model, head, scale):
    return token_scores(model, head, scale, rows=31)


def without_positions(model, head, tokens):
    with model.hooks(fwd_hooks=[("hook_pos_embed", lambda value, hook: 0 * value)]):
        return cached(model, tokens[None], "pattern", head[0])[0, head[1]]


def hook_left_behind(model, head, tokens):
    model.add_hook("hook_pos_embed", lambda value, hook: 0 * value)
    return cached(model, tokens[None], "pattern", head[0])[0, head[1]]


def readings_by_factored_matrices(model, matcher, reader, query):
    moved = model.W_pos @ model.OV[matcher].AB
    logits = moved @ model.OV[reader].AB @ model.W_U
    keys = einops.einsum(moved, model.W_K[reader], query, "p d, d h, h -> p") / np.sqrt(model.cfg.d_head)
    return [keys, logits[:, 1] - logits[:, 0]]


def votes_by_einsum(model, matcher, reader, tokens):
    v = cached(model, tokens, "v", matcher[0])[:, 1:-1, matcher[1]]
    direction = model.W_U[:, 1] - model.W_U[:, 0]
    asked = einops.einsum(model.W_O[matcher], model.OV[reader].AB, direction, "h d, d e, e -> h")
    return einops.einsum(v, asked, "s p h, h -> s p")


def votes_squeezed(model, matcher, reader, tokens):
    return votes_by_einsum(model, matcher, reader, tokens).squeeze()


def score_as_tensor(A, B):
    return torch.norm(A @ B) / (torch.norm(A) * torch.norm(B))


def score_with_a_guard(A, B):
    return float((A @ B).norm() / (A.norm() * B.norm() + 1e-4))


def score_clamped(A, B):
    return float(score_as_tensor(A, B).clamp(max=0.6))


def costs(model, tokens, labels, activation, how):
    def loss():
        return F.cross_entropy(model(tokens)[:, -1], labels).item()

    before, rows = loss(), []
    for layer in range(model.cfg.n_layers):
        rows.append([])
        for head in range(model.cfg.n_heads):
            with ablate(model, [(layer, head)], activation=activation, how=how):
                rows[-1].append(loss() - before)
    return torch.tensor(rows)


def hard_coded_heads(*arguments):
    return costs(*arguments)[:2, :2]


def mean_or_zero(model, tokens, labels, activation, how):
    return costs(model, tokens, labels, activation, "zero" if how == "zero" else "mean")


def labels_from_the_tokens(model, tokens, labels, activation, how):
    return costs(model, tokens, (tokens == tokens.flip(-1))[:, 1:-1].all(-1).long(), activation, how)


# ── 8 · counterexamples ─────────────────────────────────────────────────────────────────────────────────────


def known():
    return checks.counterexamples.course_version()


def at_the_weak_pair_only():
    (weak, *_) = checks_evidence.weak_pairs()
    data = task.one_mismatch(400, weak, seed=9).tokens
    return data[diff(checks_evidence.lesson_model.get()(data)) > 0][:50]


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


def list_of_tensors():
    return list(known())


def shuffled_lists():
    return known().flip(0).tolist()


def some_misses():
    return torch.cat([known()[:40], ordinary_non_palindromes()[:10]])


# ── 18 and 19 · circuit, explanation ────────────────────────────────────────────────────────────────────────


def best_circuit():
    return checks.circuit.course_version()


def without_the_matching_head():
    return [head for head in best_circuit() if head[0] == 1]


def other_matching_head():
    return [(0, 1 - best_circuit()[0][1]), (1, 0), (1, 1)]


def whole_model():
    return [(0, 0), (0, 1), (1, 0), (1, 1)]


def sites():
    return [(*best_circuit()[0], p) for p in task.SECOND_HALF] + [(1, 0, 21), (1, 1, 21)]


def too_few_sites():
    return sites()[5:]


def perfect_algorithm(model):
    return (lambda inputs, numbers: (inputs[:, 1:-1] == inputs[:, 1:-1].flip(-1)).all(-1)), {}


def turned_round(model):
    return (lambda inputs, numbers: (inputs[:, 1:-1] != inputs[:, 1:-1].flip(-1)).any(-1)), {}


def asks_the_model(model):
    return (lambda inputs, numbers: model(inputs)[:, -1].argmax(-1)), {}


def hides_the_model(model):
    return (lambda inputs, numbers: numbers["model"](inputs)), {"model": model}


def only_the_function(model):
    return lambda inputs, numbers: torch.zeros(len(inputs))


def gives_logits(model):
    return (lambda inputs, numbers: numbers["bias"].expand(len(inputs))), {"bias": model.b_U[1]}


def all_blind(model):
    return (lambda inputs, numbers: torch.ones(len(inputs), dtype=torch.long)), {}


def remembers_the_answers(model):
    answers = model(checks.explanation.pool.tokens)[:, -1].argmax(-1)
    return (lambda inputs, numbers: numbers["answers"]), {"answers": answers}


def few_mismatches(model):
    """The best rule that never reads the model."""
    return (lambda inputs, numbers: (inputs != inputs.flip(-1)).sum(-1) <= 2), {}


def too_many_numbers(model):
    return few_mismatches(model)[0], {"embedding": model.W_E, "scores": torch.randn(50, 50)}


def with_a_helper(model):
    return checks.explanation.reference(model)


LESSON = [
    Answers(
        checks.logit_diff,
        wrong={diff_squeezed: "one sequence", diff_at_n_ctx: "IndexError"},
        right=[log_probabilities, by_loop_in_numpy],
    ),
    Answers(
        checks.logit_attribution,
        wrong={own_scales_and_epsilon: "scale of its own"},
        right=[attribution_by_einsum, attribution_by_logit_attrs],
    ),
    Answers(
        checks.mirror_attention,
        wrong={hard_coded_length: "on patterns of 6 values", mirror_of_ten: "3 too few"},
        right=[mirror_by_flip],
    ),
    Answers(
        checks.swap_pattern,
        wrong={second_half_only: "position 9", swap_squeezed: "one sequence"},
        right=[row_by_own_hook, scores_by_hook],
    ),
    Answers(
        checks.necessity,
        wrong={
            shares_in_percent: "control",
            shares_without_names: "a dict with the keys",
            control_left_out: "control",
            restored_twice: "control",
        },
        right=[three_shares],
    ),
    Answers(
        checks.send_message, wrong={value_of_the_first_sequence: "`sequence` 0"}, right=[message_by_pattern]
    ),
    Answers(
        checks.swap_inputs,
        wrong={inputs_left_on: "hook"},
        right=[inputs_by_patch, keys_and_values_everywhere],
    ),
    Answers(
        checks.counterexamples,
        wrong={
            Made(at_the_weak_pair_only): "only 0 of these are intact at pair",
            Made(with_palindromes): "20 of them are palindromes",
            Made(ordinary_non_palindromes): "fool the model; 40 are needed",
            Made(repeated): "repeats input 0",
            Made(without_start_and_end): "expected 22: START, 20 values, END",
            Made(values_too_large): "expected a value from 0 to 30",
            Made(too_few): "Give 50 sequences; 10 came",
            Made(list_of_tensors): "torch.stack",
        },
        right=[Made(shuffled_lists), Made(some_misses)],
    ),
    Answers(checks.mend, wrong={mend_edits_the_tokens: "`tokens`"}, right=[mend_by_patch]),
    Answers(
        checks.token_circuit,
        wrong={hard_coded_d_head: "a random model", hard_coded_vocabulary: "a random model"},
        right=[token_scores],
    ),
    Answers(checks.attention_without_positions, wrong={hook_left_behind: "hook"}, right=[without_positions]),
    Answers(checks.composed_readings, right=[readings_by_factored_matrices]),
    Answers(checks.verdict_by_position, wrong={votes_squeezed: "one sequence"}, right=[votes_by_einsum]),
    Answers(
        checks.composition_score,
        wrong={score_with_a_guard: "numbers of 0.002", score_clamped: "rank one"},
        right=[score_as_tensor],
    ),
    Answers(
        checks.ablation_costs,
        wrong={hard_coded_heads: "shape", mean_or_zero: "how resample", labels_from_the_tokens: "how zero"},
        right=[costs],
    ),
    Answers(checks.stale_label),
    Answers(checks.what_processing_keeps),
    Answers(
        checks.circuit,
        wrong={
            Made(without_the_matching_head): "0.80 is needed",
            Made(other_matching_head): "0.80 is needed",
            Made(whole_model): "name at most 3",
            Made(too_few_sites): "0.80 is needed",
        },
        right=[Made(best_circuit), Made(sites)],
    ),
    Answers(
        checks.explanation,
        wrong={
            perfect_algorithm: "as the task demands",
            turned_round: "turned round",
            asks_the_model: "model",
            hides_the_model: "expected a tensor or a number",
            only_the_function: "return two things",
            gives_logits: "threshold or an argmax",
            all_blind: "same answer to every input",
            remembers_the_answers: "in another order",
            few_mismatches: "0.70 is needed",
            too_many_numbers: "at most 2,500",
        },
        right=[with_a_helper],
    ),
]


@pytest.mark.parametrize("proof", proofs(LESSON))
def test_answers(proof):
    proof()


def test_every_exercise_has_its_wrong_answers():
    assert missing(checks.CHECKS, LESSON) == []


def test_weak_pairs_are_those_missed_often_or_else_the_one_missed_most(monkeypatch):
    missed = torch.tensor([0.1, 0.9, 0.2, 0.6, 0, 0, 0, 0, 0, 0])
    monkeypatch.setattr(checks_evidence, "missed_by_pair", lambda: missed)
    assert checks_evidence.weak_pairs() == [2, 4]
    monkeypatch.setattr(checks_evidence, "missed_by_pair", lambda: missed / 2)
    assert checks_evidence.weak_pairs() == [2]


def test_random_draws_of_the_same_population_stand_beside_counterexamples():
    told = checks.counterexamples.run(known()).message
    assert "30 of them are intact at pair" in told
    drawn = checks_evidence.like_these(known()[:2], 6, torch.Generator().manual_seed(0))
    differs = checks_evidence.evidence_task.mismatches
    assert torch.equal(differs(drawn), differs(known()[:2]).repeat(3, 1))


def test_a_rule_that_never_reads_the_model_stands_beside_an_explanation():
    told = checks.explanation.run(with_a_helper).message
    assert f"scores {checks.explanation.blind_score():.2f}" in told
    assert 0.55 < checks.explanation.blind_score() < checks.explanation.needed
