"""Lesson 05: wrong answers that no table of slips holds, and right ones by other routes than the course's.

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

# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────


def answers_by_slices(logits, ids, prompt_length, n_answer):
    return logits.double()[:, prompt_length - 1 :][:, :n_answer].flip(1)[..., ids]


def five_places(logits, ids, prompt_length, n_answer):
    return answers_by_slices(logits, ids, prompt_length, 5)


def late_and_as_written(logits, ids, prompt_length, n_answer):
    return logits[:, prompt_length : prompt_length + n_answer][..., ids]


def digits_of(products, n_places):
    return products[:, None] // 10 ** torch.arange(n_places) % 10


def accuracy_by_division(logits, products):
    return (logits.argmax(-1) == digits_of(products, logits.shape[1])).float().mean(0).tolist()


def accuracy_by_texts(logits, products):
    texts = torch.tensor([[int(digit) for digit in str(p)[::-1]] for p in products.tolist()])
    return (logits.argmax(-1) == texts).double().mean(0)


def difference_by_log_probabilities(logits, right, wrong):
    table = logits.double().log_softmax(-1)
    ours, theirs = (digits_of(products, logits.shape[1])[..., None] for products in (right, wrong))
    return (table.gather(-1, ours) - table.gather(-1, theirs))[..., 0]


def reached_by_all(scores, read_positions, threshold):
    found = []
    for place, position in enumerate(read_positions):
        column = scores[:, position, place]
        candidates = [layer for layer in range(len(column)) if (column[layer:] >= threshold).all()]
        found.append(-1 if column.isnan().any() else min(candidates, default=len(column)))
    return found


def reached_at_a_half(scores, read_positions, threshold):
    return reached_by_all(scores, read_positions, 0.5)


# ── attribution ─────────────────────────────────────────────────────────────────────────────────────────────


def lens_by_transformer_lens(model, tokens, position, ids):
    _, cache = model.run_with_cache(tokens)
    normed = model.ln_final(cache.accumulated_resid(layer=-1, incl_mid=True, pos_slice=position))
    return (
        einops.einsum(normed, model.W_U[:, ids], "depth batch d, d digit -> depth batch digit")
        + model.b_U[ids]
    )


def lens_with_another_epsilon(model, tokens, position, ids):
    _, cache = model.run_with_cache(tokens)
    stream = cache.accumulated_resid(layer=-1, incl_mid=True, pos_slice=position)
    return (stream / (stream.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() @ model.W_U + model.b_U)[..., ids]


def attribution_by_transformer_lens(model, tokens, position, right, wrong):
    _, cache = model.run_with_cache(tokens)
    stack = cache.decompose_resid(layer=-1, mode="all", pos_slice=position, apply_ln=True)
    rows = einops.einsum(stack, model.W_U[:, right] - model.W_U[:, wrong], "c b d, d b -> c b")
    return torch.cat([rows, (model.b_U[right] - model.b_U[wrong])[None]])


def heads_by_transformer_lens(model, tokens, position, right, wrong):
    _, cache = model.run_with_cache(tokens)
    stack = cache.stack_head_results(layer=-1, pos_slice=position)
    stack = cache.apply_ln_to_stack(stack, layer=-1, pos_slice=position)
    direction = (model.W_U[:, right] - model.W_U[:, wrong]).T
    return (stack * direction).sum(-1).reshape(model.cfg.n_layers, model.cfg.n_heads, -1)


# ── pairs and patching ──────────────────────────────────────────────────────────────────────────────────────


def pair_by_cloning(clean, corrupted, vocabulary):
    """Written in place over a clone, as a list."""
    a = task.sequences(clean, vocabulary)[:, :-1]
    b, n = a.clone(), task.prompt_length(clean)
    b[:, :n] = task.sequences(corrupted, vocabulary)[:, :n]
    return [a, b]


def pair_as_one_tensor(clean, corrupted, vocabulary):
    return torch.stack(pair_by_cloning(clean, corrupted, vocabulary))


def positions_by_the_library(model, clean_tokens, corrupted_tokens, metric, activation):
    """`transformer_lens.patching`, with one sweep for each number of the metric."""
    of = getattr(patching, f"get_act_patch_{activation}")
    logits, cache = model.run_with_cache(clean_tokens)
    clean, corrupted = metric(logits), metric(model(corrupted_tokens))
    tables = [
        of(model, corrupted_tokens, cache, lambda logits, i=i: metric(logits).flatten()[i])
        for i in range(clean.numel())
    ]
    patched = torch.stack(tables, dim=-1).view(*tables[0].shape, *clean.shape)
    return (patched - corrupted) / (clean - corrupted)


def heads_by_patch(model, clean_tokens, corrupted_tokens, metric, activation, n_heads=None):
    names = [get_act_name(activation, layer) for layer in range(model.cfg.n_layers)]
    with record(model, *names) as seen:
        clean = metric(model(clean_tokens))
    corrupted = metric(model(corrupted_tokens))
    rows = []
    for layer, name in enumerate(names):
        for head in range(n_heads or seen[name].shape[1 if activation == "pattern" else 2]):
            with patch(model, activation, layer, seen[name], heads=[head]):
                rows.append((metric(model(corrupted_tokens)).double() - corrupted) / (clean - corrupted))
    return torch.stack(rows).unflatten(0, (len(names), -1))


def a_column_for_each_query_head(model, clean_tokens, corrupted_tokens, metric, activation):
    return heads_by_patch(model, clean_tokens, corrupted_tokens, metric, activation, model.cfg.n_heads)


def hooks_stay_on(model, clean_tokens, corrupted_tokens, metric, activation):
    model.add_hook("blocks.0.hook_mlp_out", lambda value, hook: value)
    return metric(model(corrupted_tokens))


def hooks_pile_up(model, clean_tokens, corrupted_tokens, metric, activation):
    """Put on with `add_hook`, and taken off when all is done."""
    names = [get_act_name(activation, layer) for layer in range(model.cfg.n_layers)]
    with record(model, *names) as seen:
        clean = metric(model(clean_tokens))
    corrupted = metric(model(corrupted_tokens))
    rows = []
    for name in names:
        for position in range(clean_tokens.shape[1]):

            def put(value, hook, position=position, name=name):
                value[:, position] = seen[name][:, position]
                return value

            model.add_hook(name, put)
            rows.append((metric(model(corrupted_tokens)) - corrupted) / (clean - corrupted))
    model.reset_hooks()
    return torch.stack(rows).unflatten(0, (len(names), -1))


# ── costs, and who shares what ──────────────────────────────────────────────────────────────────────────────


def share_by_tensors(n_layers, n_positions, first):
    left = torch.arange(1, n_positions - first + 1)
    return (torch.arange(1, n_layers + 1)[:, None] * left).sum() / (n_layers * n_positions) ** 2


def query_heads_as_range(kv_head, n_heads, n_key_value_heads):
    size = n_heads // n_key_value_heads
    return range(kv_head * size, kv_head * size + size)


def query_heads_by_tensor(kv_head, n_heads, n_key_value_heads):
    return torch.arange(n_heads).view(n_key_value_heads, -1)[kv_head]


def seven_heads(kv_head, n_heads, n_key_value_heads):
    return list(range(7 * kv_head, 7 * kv_head + 7))


LESSON = [
    Answers(
        checks.answer_logits,
        wrong={
            five_places: "stands 5",
            late_and_as_written: "Two things at once. This is where the digit stands",
        },
        right=[answers_by_slices],
    ),
    Answers(checks.place_accuracy, right=[accuracy_by_division, accuracy_by_texts]),
    Answers(checks.logit_difference, right=[difference_by_log_probabilities]),
    Answers(
        checks.lens,
        wrong={lens_with_another_epsilon: "`model.cfg.eps`"},
        right=[lens_by_transformer_lens],
    ),
    Answers(checks.component_attribution, right=[attribution_by_transformer_lens]),
    Answers(checks.sum_or_mean, wrong={Value(["b"]): "Choose one of"}),
    Answers(checks.head_attribution, right=[heads_by_transformer_lens]),
    Answers(checks.pair_tokens, right=[pair_by_cloning, pair_as_one_tensor]),
    Answers(checks.corrupted_that_is_not),
    Answers(
        checks.patch_positions,
        wrong={hooks_stay_on: "leaves a hook on the model", hooks_pile_up: "hooks of earlier entries"},
        right=[positions_by_the_library],
    ),
    Answers(checks.sweep_share, right=[share_by_tensors]),
    Answers(checks.reach, wrong={reached_at_a_half: "`threshold` is not used"}, right=[reached_by_all]),
    Answers(
        checks.patch_heads,
        wrong={a_column_for_each_query_head: "IndexError"},
        right=[heads_by_patch],
    ),
    Answers(
        checks.query_heads_of,
        wrong={seven_heads: "stands 7"},
        right=[query_heads_as_range, query_heads_by_tensor],
    ),
    Answers(checks.positions_for_heads),
]
OTHERS = {"counterexamples", "circuit", "explanation"}
"""Exercises whose answers are in `test_05_evidence.py`."""


@pytest.mark.parametrize("proof", proofs(LESSON))
def test_wrong_answers(proof):
    proof()


def test_every_exercise_is_here():
    assert set(missing(checks.CHECKS, LESSON)) <= OTHERS


@pytest.mark.parametrize("name", checks_common.MODELS)
def test_the_model_written_out_by_hand_is_the_model(name):
    model = checks_common.MODELS[name].get()
    tokens = torch.randint(model.cfg.d_vocab, (3, 9), generator=torch.Generator().manual_seed(0))
    logits, cache = model.run_with_cache(tokens)
    expected = {"logits": logits, "scale": cache["ln_final.hook_scale"], "embed": cache["hook_embed"]}
    for (activation, layer), value in checks_common.Plain.of(model).run(tokens).items():
        other = expected[activation] if layer < 0 else cache[activation, layer]
        torch.testing.assert_close(value.float(), other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", checks_common.MODELS)
def test_scores_of_pairs_are_no_quotients_of_noise(name):
    """The runs of a pair differ enough for each metric of the checks."""
    for check in (checks.patch_positions, checks.patch_heads):
        for case in check.cases():
            fresh, clean, corrupted, metric, _ = case.arguments
            if case.name.startswith(name):
                run = checks_common.Plain.of(fresh.get()).run
                gap = metric(run(clean)["logits", -1]) - metric(run(corrupted)["logits", -1])
                assert gap.abs().min() > 0.02, f"{case.name}: {gap}"
