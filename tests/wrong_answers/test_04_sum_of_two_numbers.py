"""Lesson 04: wrong answers that no table of slips covers, and right ones by other routes."""

import math

import einops
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformer_lens.utilities import get_act_name

from exercises_utils.challenges.sum_of_two_numbers import checks, checks_evidence, evidence, task
from exercises_utils.tools.hooks import ablate, patch, record
from tests.wrong_answers.harness import Answers, Made, Value, missing, proofs

# ── waves ───────────────────────────────────────────────────────────────────────────────────────────────────


def by_numpy_loops(n):
    table = np.zeros((n, n))
    for wave in range(n):
        k = (wave + 1) // 2
        for x in range(n):
            angle = 2 * np.pi * k * x / n
            table[wave, x] = np.cos(angle) if wave % 2 == 1 or wave == 0 else np.sin(angle)
        table[wave] /= np.sqrt((table[wave] ** 2).sum())
    return table


def basis(n):
    return torch.as_tensor(by_numpy_loops(n)).float()


def shares_by_fft(matrix):
    energy = torch.fft.fft(matrix.double(), dim=1).abs().pow(2).sum(0)
    n = matrix.shape[1]
    both = torch.stack([energy[k] + (energy[n - k] if 0 < k < n - k else 0) for k in range(n // 2 + 1)])
    return both / energy.sum()


def one(matrix, frequency):
    waves = basis(matrix.shape[1])[(torch.arange(matrix.shape[1]) + 1) // 2 == frequency]
    return matrix @ waves.T @ waves


def other_signs(matrix):
    return matrix.T @ torch.linalg.svd(matrix).U[:, :2] * torch.tensor([-1.0, 1.0])


def circle(logits, frequency):
    return logits[..., :10] @ basis(10)[2 * frequency - 1 : 2 * frequency + 1].T


def circle_squeezed(logits, frequency):
    return circle(logits, frequency).squeeze()


# ── heads, sites and directions ─────────────────────────────────────────────────────────────────────────────


def attention_squeezed(pattern):
    return (pattern[:, :, 9:13, :4] + pattern[:, :, 9:13, 5:9]).squeeze().mean(0)


def attention_by_einops(pattern):
    seen = pattern[:, :, 9:13, :].double()
    numbers = torch.stack([seen[..., :4], seen[..., 5:9]])
    return einops.reduce(numbers, "number s head place column -> head place column", "sum") / len(pattern)


def costs(model, tokens, activation, how):
    def losses():
        log_probs = model(tokens)[:, 9:13].log_softmax(-1)
        return -log_probs.gather(-1, tokens[:, 10:14, None])[..., 0].mean(0)

    before, rows = losses(), []
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):
            with ablate(model, [(layer, head)], activation=activation, how=how):
                rows.append(losses() - before)
    return torch.stack(rows).view(model.cfg.n_layers, model.cfg.n_heads, 4)


def how_by_activation(model, tokens, activation, how):
    return costs(model, tokens, activation, "mean" if activation in "qv" else "zero")


def swapped(model, head, position, base, source, activation="result"):
    layer, index = head
    name = get_act_name(activation, layer)
    with record(model, name) as seen:
        model(source)
    with patch(model, activation, layer, seen[name], heads=[index], positions=[position]):
        return model(base)[:, 9:13]


def by_own_hook(model, head, position, base, source):
    layer, index = head
    _, cache = model.run_with_cache(source)
    theirs = cache["z", layer]

    def put(z, hook):
        z[:, position, index] = theirs[:, position, index]
        return z

    logits = model.run_with_hooks(base, fwd_hooks=[(get_act_name("z", layer), put)])
    return logits[:, [9, 10, 11, 12]].double()


def swapped_late(model, head, position, base, source):
    return swapped(model, head, max(position, 6), base, source)


def swapped_and_squeezed(model, head, position, base, source):
    return swapped(model, head, position, base, source).squeeze()


def leaves_its_hook(model, head, position, base, source):
    model.hook_dict[get_act_name("z", head[0])].add_hook(lambda z, hook: z)
    return swapped(model, head, position, base, source)


def sites():
    return checks.carry_sites.course_version()


def d_head_in_the_code(model, head, query, scale):
    return model.W_E[:10] @ model.W_K[head] @ query / scale / 24**0.5


def scores_by_einsum(model, head, query, scale):
    keys = einops.einsum(
        model.W_E[:10].double() / scale,
        model.W_K[head].double(),
        "digit d_model, d_model d_head -> digit d_head",
    )
    return [float(key @ query.double()) / math.sqrt(model.cfg.d_head) for key in keys]


def message_by_loops(scores, votes):
    rows = []
    for s, v in zip(scores.tolist(), votes.tolist(), strict=True):
        row = []
        for t, w in zip(scores.tolist(), votes.tolist(), strict=True):
            p = math.exp(s) / (math.exp(s) + math.exp(t))
            row.append(p * v + (1 - p) * w)
        rows.append(row)
    return rows


def direction_from_the_overall_mean(activations, carry):
    return F.normalize(activations[carry].double().mean(0) - activations.double().mean(0), dim=0)


def by_coordinates(model, hook_name, position, basis, base, source):
    with record(model, hook_name) as seen:
        model(source)

    def put(x, hook):
        x[:, position] += (seen[hook_name][:, position] - x[:, position]) @ basis @ basis.T
        return x

    return model.run_with_hooks(base, fwd_hooks=[(hook_name, put)])[:, 9:13]


def at_late_positions(model, hook_name, position, basis, base, source):
    return by_coordinates(model, hook_name, max(position, 7), basis, base, source)


def at_two_hooks(model, hook_name, position, basis, base, source):
    layer = hook_name.split(".")[1]
    name = hook_name if hook_name.endswith("attn_out") else f"blocks.{layer}.hook_resid_post"
    return by_coordinates(model, name, position, basis, base, source)


def by_transformer_lens(model, hook_name, position, basis, base, source):
    from transformer_lens.tools.analysis import SubspaceInterchange, collect_activations, intervened_logits

    at = torch.full((len(base),), position)

    def read(tokens):
        return model(tokens)[:, 9:13]

    theirs = collect_activations(model, hook_name, source, read, positions=at)
    return intervened_logits(model, hook_name, SubspaceInterchange(basis), base, theirs, read, positions=at)


# ── paths ───────────────────────────────────────────────────────────────────────────────────────────────────


def paths(model, tokens, place):
    _, cache = model.run_with_cache(tokens)
    return paths_with(
        model, tokens, place, cache, cache["blocks.1.ln1.hook_scale"], cache["ln_final.hook_scale"]
    )


def paths_with(model, tokens, place, cache, scale, last):
    at = 9 + place
    early = [cache["embed"] + cache["pos_embed"], *cache["result", 0].unbind(2)]
    early = torch.stack([*early, model.b_O[0].expand_as(early[0])])
    written = list(early[:, :, at])
    for head in range(model.cfg.n_heads):
        weights = cache["pattern", 1][:, head, at]
        moved = einops.einsum(weights, early / scale, "s key, part s key d -> part s d")
        written += list(moved @ model.W_V[1, head] @ model.W_O[1, head])
    written.append(model.b_O[1].expand(len(tokens), -1))
    return torch.cat([torch.stack(written) / last[:, at] @ model.W_U, model.b_U.expand(1, len(tokens), -1)])


def epsilon_in_the_code(model, tokens, place):
    _, cache = model.run_with_cache(tokens)
    scales = [(cache["resid_post", i].var(-1, correction=0, keepdim=True) + 1e-5).sqrt() for i in range(2)]
    return paths_with(model, tokens, place, cache, *scales)


def hard_coded_heads(model, tokens, place):
    return paths(model, tokens, place)[[*range(20), -2, -1]]


def pairs(model, early, late):
    OV = [model.W_V[head] @ model.W_O[head] for head in (early, late)]
    single = model.W_E[:10] @ OV[0] @ OV[1] @ model.W_U[:, :10]
    return single[:, None] + single


def pairs_of_the_last_layers(model, early, late):
    last = model.cfg.n_layers - 1
    return pairs(model, (last - 1, early[1]), (last, late[1]))


def pairs_by_einsum(model, early, late):
    digits = model.W_E[:10].double()
    both = digits[:, None] + digits[None, :]
    V = [model.W_V[head].double() for head in (early, late)]
    O = [model.W_O[head].double() for head in (early, late)]  # noqa: E741
    U = model.W_U[:, :10].double()
    return torch.einsum("abd,dh,hm,mk,kn,nv->abv", both, V[0], O[0], V[1], O[1], U)


# ── counterexamples ─────────────────────────────────────────────────────────────────────────────────────────


def known():
    return checks.counterexamples.course_version()


def beyond_training_alone():
    pool = checks_evidence.stored_evidence().pool
    wrong = pool.tokens[~pool.model_is_right.all(-1)]
    beyond = wrong[~evidence.in_distribution(wrong)]
    return beyond[:50]


def wrong_digits_in_c():
    tokens = known().clone()
    tokens[:15, 13] = (tokens[:15, 13] + 1) % 10
    return tokens


def five_digits():
    tokens = known().clone()
    tokens[:15, 0] = tokens[:15, 5] = 9
    return tokens


def repeats():
    tokens = known()
    return torch.cat([tokens[:25], tokens[:25]])


def pruned():
    return checks.circuit.course_version()


def perfect_algorithm(model):
    def simulate(inputs, numbers):
        powers = torch.tensor([1000, 100, 10, 1])
        total = (inputs[:, :4] * powers).sum(-1) + (inputs[:, 5:9] * powers).sum(-1)
        return total[:, None] // powers % 10

    return simulate, {}


def copies_the_sum(model):
    def simulate(inputs, numbers):
        return inputs[:, 10:]

    return simulate, {}


def always_four(model):
    def simulate(inputs, numbers):
        return torch.full((len(inputs), 4), 4)

    return simulate, {}


def one_answer_each(model):
    def simulate(inputs, numbers):
        return inputs[:, 10]

    return simulate, {}


def places_backwards(model):
    def simulate(inputs, numbers):
        return inputs[:, 10:].flip(1)

    return simulate, {}


def asks_the_model(model):
    def simulate(inputs, numbers):
        return model(inputs)[:, 9:13].argmax(-1)

    return simulate, {}


def gives_logits(model):
    def simulate(inputs, numbers):
        return torch.zeros(len(inputs), 4)

    return simulate, {}


def only_the_function(model):
    return lambda inputs, numbers: inputs[:, 10:]


def the_whole_model(model):
    names = ("W_E", "W_pos", "W_Q", "W_K", "W_V", "W_O", "W_U")
    return lambda inputs, numbers: inputs[:, 10:], {name: getattr(model, name) for name in names}


def hides_answers(model):
    return lambda inputs, numbers: inputs[:, 10:], {"answers": ["1", "2"]}


LESSON = [
    Answers(checks.fourier_basis, right=[by_numpy_loops]),
    Answers(checks.frequency_shares, right=[shares_by_fft]),
    Answers(checks.one_frequency, right=[one]),
    Answers(checks.circle_of_digits, right=[other_signs]),
    Answers(checks.blind_frequency),
    Answers(
        checks.column_attention,
        wrong={attention_squeezed: "right on 3 heads, a batch of 40"},
        right=[attention_by_einops],
    ),
    Answers(
        checks.place_costs,
        wrong={how_by_activation: "for another `how`"},
        right=[costs],
    ),
    Answers(checks.carry_bug),
    Answers(
        checks.swap_site,
        wrong={
            swapped_late: "position 2",
            swapped_and_squeezed: "one sequence",
            leaves_its_hook: "leaves a hook on the model",
        },
        right=[swapped, by_own_hook],
    ),
    Answers(
        checks.carry_sites,
        wrong={
            Made(lambda: [(0, (head + 1) % 3, position) for _, head, position in sites()]): "another site",
            Made(
                lambda: [(1, head, 9 + place) for place, (_, head, _) in enumerate(sites())]
            ): "is in layer 1",
            Made(lambda: [sites()[2]] * 3): "Place 0",
            Made(lambda: sites()[::-1]): "reverse order",
            Made(lambda: [site[1:] for site in sites()]): "has two",
            Made(lambda: [*sites(), sites()[-1]]): "nothing carries into the units",
            Made(lambda: sites()[0]): "One site came",
            Made(lambda: [(layer, head, 13) for layer, head, _ in sites()]): "nothing looks ahead",
            Made(lambda: [(0, 3, position) for _, _, position in sites()]): "has no head 0.3",
            Made(lambda: [".".join(map(str, site)) for site in sites()]): "three whole numbers",
            Made(
                lambda: [(layer, torch.tensor(head), position) for layer, head, position in sites()]
            ): "`int(...)`",
        },
        right=[
            Made(sites),
            Made(lambda: tuple(list(site) for site in sites())),
            Made(lambda: np.array(sites())),
        ],
    ),
    Answers(checks.which_digit),
    Answers(
        checks.digit_scores,
        wrong={d_head_in_the_code: "In its code stands"},
        right=[scores_by_einsum],
    ),
    Answers(checks.carry_message, right=[message_by_loops]),
    Answers(checks.carry_direction, right=[direction_from_the_overall_mean]),
    Answers(
        checks.interchange,
        wrong={at_late_positions: "position 6", at_two_hooks: "resid_pre"},
        right=[by_coordinates, by_transformer_lens],
    ),
    Answers(
        checks.path_attribution,
        wrong={epsilon_in_the_code: "right on the lesson's model", hard_coded_heads: "In its code stands 20"},
        right=[paths],
    ),
    Answers(checks.to_circle, wrong={circle_squeezed: "shape (1, 3, 10)"}, right=[circle]),
    Answers(
        checks.pair_sums,
        wrong={pairs_of_the_last_layers: "right on the lesson's model"},
        right=[pairs, pairs_by_einsum],
    ),
    Answers(
        checks.counterexamples,
        wrong={
            Made(beyond_training_alone): "of these are needed",
            Made(lambda: task.make_data(50, 3).tokens): "40 are needed",
            Made(wrong_digits_in_c): "must be the digits of",
            Made(five_digits): "must be below 10000",
            Made(repeats): "repeats input 0",
            Made(lambda: known()[:, :10]): "has 10 tokens; expected 14",
            Made(lambda: known()[:10]): "Give 50 sequences; 10 came",
            Made(lambda: known()[0]): "expected (input, position)",
            Made(lambda: list(known())): "torch.stack",
            Made(lambda: torch.cat([known()[:25], task.make_data(25, 4).tokens])): "in distribution",
        },
        right=[
            Made(known),
            Made(lambda: known().flip(0).tolist()),
            Made(lambda: torch.cat([known()[:45], task.make_data(5, 5).tokens])),
        ],
    ),
    Answers(
        checks.circuit,
        wrong={
            Made(lambda: [(layer, head) for layer in range(2) for head in range(3)]): "Name sites",
            Made(lambda: list(evidence.SITES)): "name at most",
            Made(lambda: [site for site in evidence.SITES if site[1] == 0]): "is needed",
            Made(lambda: [site for site in pruned() if site[0] == 0]): "is needed",
            Made(lambda: [*pruned()[1:], (0, 3, 9)]): "heads 0 to 2",
            Value((0, 1, 9)): "heads (layer, head) or sites",
            Made(lambda: [(0, 1), (1, 0, 9)]): "mixes heads and sites",
        },
        right=[Made(pruned), Made(lambda: set(pruned()))],
    ),
    Answers(
        checks.explanation,
        wrong={
            perfect_algorithm: "as the task demands",
            copies_the_sum: "as the task demands",
            always_four: "same answer to every input",
            one_answer_each: "expected",
            places_backwards: "is needed",
            asks_the_model: "model",
            gives_logits: "threshold or an argmax",
            only_the_function: "return two things",
            hides_answers: "expected a tensor or a number",
            the_whole_model: "at most 10,000 are allowed",
        },
        right=[],
    ),
]


@pytest.mark.parametrize("proof", proofs(LESSON))
def test_answers(proof):
    proof()


def test_every_exercise_has_its_wrong_answers():
    assert missing(checks.CHECKS, LESSON) == []
