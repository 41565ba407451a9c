"""Lesson 01: wrong answers that no table of slips says, the message each must get, and right answers by another way."""

import einops
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from exercises_utils.challenges.sorted_list_one_head import checks, checks_models, task
from exercises_utils.tools import circuits
from tests.wrong_answers.harness import Answers, Made, Value, missing, proofs

SCORES = "blocks.0.attn.hook_attn_scores"
PARTS = ("token", "position")


def pattern_of(model, tokens):
    return model.run_with_cache(tokens)[1]["pattern", 0][:, 0]


def hits(logits, tokens):
    return (logits[:, 11:21].argmax(-1) == tokens[:, 12:]).double()


def accuracy_as_list(model, tokens):
    return [float((model(tokens)[:, p].argmax(-1) == tokens[:, p + 1]).float().mean()) for p in range(11, 21)]


def accuracy_of_a_squeezed_batch(model, tokens):
    return hits(model(tokens), tokens).squeeze().mean(0)


def pattern_by_hand(model, tokens):
    x = (model.W_E[tokens] + model.W_pos[: tokens.shape[1]]).double()
    q, k = x @ model.W_Q[0, 0].double(), x @ model.W_K[0, 0].double()
    scores = einops.einsum(q, k, "b q d, b k d -> b q k") / np.sqrt(model.cfg.d_head)
    return circuits.causal(scores).softmax(-1).mean(0)


def head_axis_kept(model, tokens):
    return model.run_with_cache(tokens)[1]["pattern", 0].mean(0)


def hook_stays(model, tokens, position):
    def hide(scores, hook):
        return scores.index_fill(-1, torch.tensor([position]), float("-inf"))

    model.hook_dict[SCORES].add_hook(hide)
    return model(tokens)


def token_overwritten(model, tokens, position):
    tokens[:, position] = model.cfg.d_vocab_out
    return model(tokens)


def always_place_four(model, tokens, position):
    return hidden_in_place(model, tokens, 4)


def hidden_in_place(model, tokens, position):
    def hide(scores, hook):
        scores[..., position] = -torch.inf

    return model.run_with_hooks(tokens, fwd_hooks=[(SCORES, hide)])


def hidden_by_renormalising(model, tokens, position):
    def hide(pattern, hook):
        pattern = pattern.index_fill(-1, torch.tensor([position]), 0.0)
        return pattern / pattern.sum(-1, keepdim=True)

    return model.run_with_hooks(tokens, fwd_hooks=[(SCORES.replace("attn_scores", "pattern"), hide)])


def attention_by_einsum(model, tokens):
    right = tokens[:, 1:11].sort(-1).values
    same = F.one_hot(right, 60).double() @ F.one_hot(tokens[:, 1:11], 60).double().mT
    return torch.einsum("bqk,bqk->q", pattern_of(model, tokens)[:, 11:21, 1:11].double(), same) / len(tokens)


def ov_factored(model):
    return model.W_E @ model.OV[0, 0] @ model.W_U


def ov_multiplied_out(model):
    return ov_factored(model).AB


def ov_of_52_tokens(model):
    return ov_multiplied_out(model)[:52, :50]


def copying_in_numpy(ov):
    table = ov.numpy()[:-2]
    return np.mean(table.argmax(axis=1) == np.arange(len(table)))


def copied_by_scatter(model, tokens):
    pattern = pattern_of(model, tokens)[:, 11:21].double()
    table = torch.zeros(*pattern.shape[:2], model.cfg.d_vocab, dtype=torch.float64)
    table.scatter_add_(-1, tokens[:, None].expand_as(pattern), pattern)
    return table[..., : model.cfg.d_vocab_out].argmax(-1).tolist()


def terms(model, tokens):
    parts = torch.stack([model.W_E[tokens], model.W_pos[: tokens.shape[1]].expand(*tokens.shape, -1)])
    q, k = parts @ model.W_Q[0, 0], parts @ model.W_K[0, 0]
    return torch.einsum("xbqd,ybkd->xybqk", q, k) / model.cfg.d_head**0.5


def terms_with_nan_above(model, tokens):
    return terms(model, tokens).masked_fill(torch.ones(2 * tokens.shape[-1:]).triu(1).bool(), torch.nan)


def terms_of_the_longest_sequence(model, tokens):
    queries, keys = model.W_E[tokens] @ model.W_Q[0, 0], model.W_pos @ model.W_K[0, 0]
    every = terms(model, tokens)
    every[0, 1] = queries @ keys.T / model.cfg.d_head**0.5
    return every


def successor_in_numpy(token_scores):
    table = token_scores.numpy()[:-2, :-2]
    return np.mean([row.argmax() == i + 1 for i, row in enumerate(table[:-1])])


def slopes_by_polyfit(model):
    numbers = model.W_E[: model.cfg.d_vocab_out]
    rows = circuits.qk_scores(model, (0, 0), model.W_pos[11:21], numbers).double().numpy()
    return np.polyfit(np.arange(rows.shape[1]), rows.T, 1)[0]


def rebuilt(tables, tokens):
    n, logits = tokens.shape[1], []
    for row in tokens:
        scores = tables["token_token"][row][:, row] + tables["token_position"][row][:, :n]
        scores = scores + tables["position_token"][:n][:, row] + tables["position_position"][:n, :n]
        pattern = circuits.causal(scores).softmax(-1)
        direct = tables["direct_token"][row] + tables["direct_position"][:n]
        logits.append(pattern @ (tables["ov_token"][row] + tables["ov_position"][:n]) + direct)
    return torch.stack(logits)


def rebuilt_in_double(tables, tokens):
    return rebuilt({name: table.double() for name, table in tables.items()}, tokens)


def rebuilt_by_the_model(tables, tokens):
    return checks_models.MODELS[checks_models.LESSON].get()(tokens)


def bends_by_convolution(ov):
    return F.conv1d(ov[:, None], torch.tensor([[[1.0, -2.0, 1.0]]]))[:, 0]


def with_terms(model, tokens, kept):
    every = terms(model, tokens)
    scores = sum([every[PARTS.index(q), PARTS.index(k)] for q, k in kept], torch.zeros_like(every[0, 0]))
    return model.run_with_hooks(
        tokens, fwd_hooks=[(SCORES, lambda _, hook: circuits.causal(scores)[:, None])]
    )


def kept_plainly(model, tokens, kept):
    return hits(with_terms(model, tokens, kept), tokens).mean().item()


def kept_by_subtracting(model, tokens, kept):
    rest = [(q, k) for q in PARTS for k in PARTS if (q, k) not in kept]
    every = terms(model, tokens).double()
    dropped = sum([every[PARTS.index(q), PARTS.index(k)] for q, k in rest], torch.zeros_like(every[0, 0]))
    hook = (SCORES, lambda scores, hook: scores - dropped.float()[:, None])
    return hits(model.run_with_hooks(tokens, fwd_hooks=[hook]), tokens).mean()


def hits_of_600(model, tokens, kept):
    return hits(with_terms(model, tokens, kept), tokens).sum().item() / 600


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


def ov(model, source):
    return source @ model.W_V[0, 0] @ model.W_O[0, 0] @ model.W_U


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
        checks.answer_accuracy, wrong={accuracy_of_a_squeezed_batch: "one sequence"}, right=[accuracy_as_list]
    ),
    Answers(checks.mean_pattern, wrong={head_axis_kept: "one too many"}, right=[pattern_by_hand]),
    Answers(
        checks.hide_position,
        wrong={
            hook_stays: "hook",
            token_overwritten: "`tokens`",
            always_place_four: "`position` is not used",
        },
        right=[hidden_in_place, hidden_by_renormalising],
    ),
    Answers(checks.what_if_hidden),
    Answers(checks.attention_to_answer, right=[attention_by_einsum]),
    Answers(
        checks.full_ov_circuit,
        wrong={ov_factored: "`.AB`", ov_of_52_tokens: "In its code stands 50 and 52"},
        right=[ov_multiplied_out],
    ),
    Answers(checks.copying_share, right=[copying_in_numpy]),
    Answers(checks.position_bias),
    Answers(checks.copied_answers, right=[copied_by_scatter]),
    Answers(
        checks.score_terms,
        wrong={terms_of_the_longest_sequence: "right on the lesson's model"},
        right=[terms_with_nan_above],
    ),
    Answers(checks.successor_share, right=[successor_in_numpy]),
    Answers(checks.what_is_wrong_with_062),
    Answers(checks.slope_by_position, right=[slopes_by_polyfit]),
    Answers(
        checks.rebuilt_logits,
        wrong={rebuilt_by_the_model: "`tables` is not used"},
        right=[rebuilt, rebuilt_in_double],
    ),
    Answers(checks.second_differences, right=[bends_by_convolution]),
    Answers(
        checks.accuracy_with_terms,
        wrong={hits_of_600: "In its code stands"},
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
