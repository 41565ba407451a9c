"""Lesson 04: the wrong answers that people give, the message each must get, and other right answers."""

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

# ── fourier_basis ───────────────────────────────────────────────────────────────────────────────────────────


def waves(n, start=0, speed=2 * math.pi):
    x = torch.arange(start, n + start)
    rows = [torch.ones(n)]
    for k in range(1, (n + 1) // 2):
        rows += [torch.cos(speed * k * x / n), torch.sin(speed * k * x / n)]
    if n % 2 == 0:
        rows.append(torch.cos(speed * (n // 2) * x / n))
    return torch.stack(rows)


def unit(rows):
    return rows / rows.norm(dim=1, keepdim=True)


def basis(n):
    return unit(waves(n))


def not_normalised(n):
    return waves(n)


def one_factor_for_all(n):
    return waves(n) * (2 / n) ** 0.5


def divided_by_n(n):
    return waves(n) / n


def from_one(n):
    return unit(waves(n, start=1))


def half_the_speed(n):
    return unit(waves(n, speed=math.pi))


def waves_as_columns(n):
    return basis(n).T


def cosines_then_sines(n):
    x = torch.arange(n)
    rows = [torch.ones(n)]
    rows += [torch.cos(2 * math.pi * k * x / n) for k in range(1, n // 2 + 1)]
    rows += [torch.sin(2 * math.pi * k * x / n) for k in range(1, (n + 1) // 2)]
    return unit(torch.stack(rows))


def sines_first(n):
    rows = basis(n).clone()
    for k in range(1, (n + 1) // 2):
        rows[[2 * k - 1, 2 * k]] = rows[[2 * k, 2 * k - 1]]
    return rows


def falling_sines(n):
    rows = basis(n).clone()
    for k in range(1, (n + 1) // 2):
        rows[2 * k] *= -1
    return rows


def a_sine_of_n_halves(n):
    x = torch.arange(n, dtype=torch.float64)
    rows = [torch.ones(n, dtype=torch.float64)]
    for k in range(1, n // 2 + 1):
        rows += [torch.cos(2 * math.pi * k * x / n), torch.sin(2 * math.pi * k * x / n).round(decimals=9)]
    return unit(torch.stack(rows)[:n] if n % 2 else torch.cat([torch.stack(rows)[: n - 1], rows[-1][None]]))


def no_constant(n):
    return basis(n)[1:]


def always_ten(n):
    return basis(10)


def three_waves_at_least(n):
    rows = [torch.ones(n), torch.cos(2 * math.pi * torch.arange(n) / n)]
    rows.append(torch.sin(2 * math.pi * torch.arange(n) / n))
    return torch.cat([unit(torch.stack(rows)), basis(n)[3:]])


def by_numpy_loops(n):
    table = np.zeros((n, n))
    for wave in range(n):
        k = (wave + 1) // 2
        for x in range(n):
            angle = 2 * np.pi * k * x / n
            table[wave, x] = np.cos(angle) if wave % 2 == 1 or wave == 0 else np.sin(angle)
        table[wave] /= np.sqrt((table[wave] ** 2).sum())
    return table


# ── frequency_shares and one_frequency ──────────────────────────────────────────────────────────────────────


def powers(matrix):
    """The sum of squares in each frequency, by the basis."""
    squares = (matrix @ basis(matrix.shape[1]).T).pow(2).sum(0)
    frequencies = torch.tensor([(i + 1) // 2 for i in range(len(squares))])
    return torch.zeros(matrix.shape[1] // 2 + 1).index_add(0, frequencies, squares)


def shares(matrix):
    return powers(matrix) / matrix.pow(2).sum()


def shares_of_amplitudes(matrix):
    return powers(matrix).sqrt() / powers(matrix).sqrt().sum()


def plain_rfft(matrix):
    energy = torch.fft.rfft(matrix, dim=1).abs().pow(2).sum(0)
    return energy / energy.sum()


def not_divided(matrix):
    return powers(matrix)


def divided_by_the_largest(matrix):
    return powers(matrix) / powers(matrix).max()


def row_by_row(matrix):
    return torch.stack([shares(row[None]) for row in matrix])


def mean_of_rows_shares(matrix):
    return row_by_row(matrix).mean(0)


def share_of_the_mean_row(matrix):
    return shares(matrix.mean(0, keepdim=True))


def by_wave(matrix):
    squares = (matrix @ basis(matrix.shape[1]).T).pow(2).sum(0)
    return squares / squares.sum()


def centred_first(matrix):
    return shares(matrix - matrix.mean(dim=1, keepdim=True))


def without_the_constant(matrix):
    return powers(matrix)[1:] / powers(matrix)[1:].sum()


def only_cosines(matrix):
    squares = (matrix @ basis(matrix.shape[1]).T).pow(2).sum(0)
    return torch.cat([squares[:1], squares[1::2]]) / squares.sum()


def shares_by_fft(matrix):
    energy = torch.fft.fft(matrix.double(), dim=1).abs().pow(2).sum(0)
    n = matrix.shape[1]
    both = torch.stack([energy[k] + (energy[n - k] if 0 < k < n - k else 0) for k in range(n // 2 + 1)])
    return both / energy.sum()


def rows_of(frequency, n):
    return [0] if frequency == 0 else [r for r in (2 * frequency - 1, 2 * frequency) if r < n]


def kept_rows(matrix, rows):
    chosen = basis(matrix.shape[1])[rows]
    return matrix @ chosen.T @ chosen


def one(matrix, frequency):
    return kept_rows(matrix, rows_of(frequency, matrix.shape[1]))


def one_cosine(matrix, frequency):
    return kept_rows(matrix, rows_of(frequency, matrix.shape[1])[:1])


def one_and_constant(matrix, frequency):
    return kept_rows(matrix, sorted({0, *rows_of(frequency, matrix.shape[1])}))


def one_too_far(matrix, frequency):
    n = matrix.shape[1]
    return kept_rows(
        matrix, [0] if frequency == 0 else [r for r in (2 * frequency, 2 * frequency + 1) if r < n]
    )


def all_but_one(matrix, frequency):
    return matrix - one(matrix, frequency)


def coefficients_alone(matrix, frequency):
    return matrix @ basis(matrix.shape[1])[rows_of(frequency, matrix.shape[1])].T


def low_frequencies(matrix, frequency):
    n = matrix.shape[1]
    return kept_rows(matrix, list(range(min(2 * frequency + 1, n))))


def one_by_irfft(matrix, frequency):
    spectrum = torch.fft.rfft(matrix, dim=1)
    mask = torch.arange(spectrum.shape[1]) == frequency
    return torch.fft.irfft(spectrum * mask, n=matrix.shape[1], dim=1)


# ── circle_of_digits ────────────────────────────────────────────────────────────────────────────────────────


def coordinates(matrix):
    U, _, _ = torch.linalg.svd(matrix, full_matrices=False)
    return matrix.T @ U[:, :2]


def other_signs(matrix):
    return coordinates(matrix.double()) * torch.tensor([-1.0, 1.0])


def right_vectors(matrix):
    return torch.linalg.svd(matrix, full_matrices=False).Vh[:2].T


def axes_first(matrix):
    return coordinates(matrix).T


def last_two(matrix):
    U, _, _ = torch.linalg.svd(matrix, full_matrices=False)
    return matrix.T @ U[:, [-1, -2]]


def centred_columns(matrix):
    return coordinates(matrix - matrix.mean(dim=1, keepdim=True))


def scaled_twice(matrix):
    U, S, _ = torch.linalg.svd(matrix, full_matrices=False)
    return matrix.T @ U[:, :2] * S[:2]


def smaller_first(matrix):
    return coordinates(matrix).flip(-1)


# ── column_attention ────────────────────────────────────────────────────────────────────────────────────────


def attention(pattern, query=9, b=5, both=True):
    mean = pattern.mean(0)[:, query : query + 4]
    table = mean[..., :4]
    return table + mean[..., b : b + 4] if both else table


def plus_counted_as_b(pattern):
    return attention(pattern, b=4)


def b_too_late(pattern):
    return attention(pattern, b=6)


def read_too_late(pattern):
    return attention(pattern, query=10)


def read_too_early(pattern):
    return attention(pattern, query=8)


def only_a(pattern):
    return attention(pattern, both=False)


def halved(pattern):
    return attention(pattern) / 2


def columns_first(pattern):
    return attention(pattern).transpose(1, 2)


def not_averaged(pattern):
    return pattern[:, :, 9:13, :4] + pattern[:, :, 9:13, 5:9]


def heads_averaged(pattern):
    return attention(pattern).mean(0)


def units_first(pattern):
    return attention(pattern).flip(1)


def three_heads(pattern):
    return torch.stack([attention(pattern)[head] for head in range(3)])


def attention_by_einops(pattern):
    seen = pattern[:, :, 9:13, :].double()
    numbers = torch.stack([seen[..., :4], seen[..., 5:9]])
    return einops.reduce(numbers, "number s head place column -> head place column", "sum") / len(pattern)


# ── place_costs ─────────────────────────────────────────────────────────────────────────────────────────────


def losses_by_place(model, tokens, read=9, target=10):
    log_probs = model(tokens)[:, read : read + 4].log_softmax(-1)
    right = log_probs.gather(-1, tokens[:, target : target + 4, None])[..., 0]
    return -right.mean(0)


def costs(model, tokens, activation, how, *, groups=None, read=9, target=10, sign=1.0, minus=True):
    before = losses_by_place(model, tokens, read, target)
    rows = []
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):
            heads = [(layer, head)] if groups is None else groups(model, layer, head)
            with ablate(model, heads, activation=activation, how=how):
                after = losses_by_place(model, tokens, read, target)
            rows.append(sign * (after - before if minus else after))
    return torch.stack(rows).view(model.cfg.n_layers, model.cfg.n_heads, 4)


def after_alone(model, tokens, activation, how):
    return costs(model, tokens, activation, how, minus=False)


def gains(model, tokens, activation, how):
    return costs(model, tokens, activation, how, sign=-1.0)


def read_at_ten(model, tokens, activation, how):
    return costs(model, tokens, activation, how, read=10)


def targets_at_nine(model, tokens, activation, how):
    return costs(model, tokens, activation, how, target=9)


def mean_over_places(model, tokens, activation, how):
    return costs(model, tokens, activation, how).mean(-1)


def whole_layers(model, tokens, activation, how):
    return costs(
        model,
        tokens,
        activation,
        how,
        groups=lambda m, layer, head: [(layer, h) for h in range(m.cfg.n_heads)],
    )


def always_mean(model, tokens, activation, how):
    return costs(model, tokens, activation, "mean")


def always_z(model, tokens, activation, how):
    return costs(model, tokens, "z", how)


def compared_with_itself(model, tokens, activation, how):
    return torch.zeros(model.cfg.n_layers, model.cfg.n_heads, 4)


def softmax_over_digits(model, tokens, activation, how):
    def losses():
        log_probs = model(tokens)[:, 9:13, :10].log_softmax(-1)
        return -log_probs.gather(-1, tokens[:, 10:14, None].clamp(max=9))[..., 0].mean(0)

    before, rows = losses(), []
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):
            with ablate(model, [(layer, head)], activation=activation, how=how):
                rows.append(losses() - before)
    return torch.stack(rows).view(model.cfg.n_layers, model.cfg.n_heads, 4)


def answer_positions_only(model, tokens, activation, how):
    before, rows = losses_by_place(model, tokens), []
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):
            with ablate(model, [(layer, head)], activation=activation, how=how, positions=range(9, 13)):
                rows.append(losses_by_place(model, tokens) - before)
    return torch.stack(rows).view(model.cfg.n_layers, model.cfg.n_heads, 4)


def two_layers_three_heads(model, tokens, activation, how):
    return costs(model, tokens, activation, how)[:2, :3]


# ── swap_site ───────────────────────────────────────────────────────────────────────────────────────────────


def swapped(
    model, head, position, base, source, *, activation="z", heads=None, positions=None, read=9, layer=None
):
    layer = head[0] if layer is None else layer
    name = get_act_name(activation, layer)
    with record(model, name) as seen:
        model(source)
    heads = [head[1]] if heads is None else heads(model)
    where = [position] if positions is None else positions
    with patch(model, activation, layer, seen[name], heads=heads, positions=where):
        return model(base)[:, read : read + 4]


def by_result(model, head, position, base, source):
    return swapped(model, head, position, base, source, activation="result")


def by_own_hook(model, head, position, base, source):
    layer, index = head
    _, cache = model.run_with_cache(source)
    theirs = cache["z", layer]

    def put(z, hook):
        z[:, position, index] = theirs[:, position, index]
        return z

    logits = model.run_with_hooks(base, fwd_hooks=[(get_act_name("z", layer), put)])
    return logits[:, [9, 10, 11, 12]].double()


def runs_exchanged(model, head, position, base, source):
    return swapped(model, head, position, source, base)


def everywhere(model, head, position, base, source):
    return swapped(model, head, position, base, source, positions=range(14))


def all_heads(model, head, position, base, source):
    return swapped(model, head, position, base, source, heads=lambda m: range(m.cfg.n_heads))


def the_pattern(model, head, position, base, source):
    return swapped(model, head, position, base, source, activation="pattern")


def the_values(model, head, position, base, source):
    return swapped(model, head, position, base, source, activation="v")


def positions_ten_to_thirteen(model, head, position, base, source):
    return swapped(model, head, position, base, source, read=10)


def all_positions_read(model, head, position, base, source):
    name = get_act_name("z", head[0])
    with record(model, name) as seen:
        model(source)
    with patch(model, "z", head[0], seen[name], heads=[head[1]], positions=[position]):
        return model(base)


def layer_zero(model, head, position, base, source):
    return swapped(model, head, position, base, source, layer=0)


def outside_the_block(model, head, position, base, source):
    return model(base)[:, 9:13]


def runs_source(model, head, position, base, source):
    return model(source)[:, 9:13]


def zero_ablated(model, head, position, base, source):
    with ablate(model, [head], activation="z", how="zero", positions=[position]):
        return model(base)[:, 9:13]


def digits_only(model, head, position, base, source):
    return swapped(model, head, position, base, source)[..., :10]


def log_probabilities(model, head, position, base, source):
    return swapped(model, head, position, base, source).log_softmax(-1)


def leaves_its_hook(model, head, position, base, source):
    name = get_act_name("z", head[0])
    model.hook_dict[name].add_hook(lambda z, hook: z)
    return swapped(model, head, position, base, source)


# ── carry_sites ─────────────────────────────────────────────────────────────────────────────────────────────


def sites():
    return checks.carry_sites.course_version()


def other_heads():
    return [(0, (head + 1) % 3, position) for _, head, position in sites()]


def in_layer_one():
    return [(1, head, 9 + place) for place, (_, head, _) in enumerate(sites())]


def the_same_three_times():
    return [sites()[2]] * 3


def backwards():
    return sites()[::-1]


def without_layers():
    return [site[1:] for site in sites()]


def with_units():
    return [*sites(), sites()[-1]]


def one_site():
    return sites()[0]


def too_late():
    return [(layer, head, 13) for layer, head, _ in sites()]


def no_such_head():
    return [(0, 3, position) for _, _, position in sites()]


def sites_as_text():
    return [".".join(map(str, site)) for site in sites()]


def holding_tensors():
    return [(layer, torch.tensor(head), position) for layer, head, position in sites()]


def as_lists():
    return tuple(list(site) for site in sites())


def as_array():
    return np.array(sites())


# ── digit_scores and carry_message ──────────────────────────────────────────────────────────────────────────


def raw_scores(model, head, query, rows=None, W=None):
    rows = model.W_E[:10] if rows is None else rows
    return rows @ (model.W_K[head] if W is None else W) @ query


def scores(model, head, query, scale):
    return raw_scores(model, head, query) / scale / model.cfg.d_head**0.5


def no_root(model, head, query, scale):
    return raw_scores(model, head, query) / scale


def root_of_d_model(model, head, query, scale):
    return raw_scores(model, head, query) / scale / model.cfg.d_model**0.5


def no_scale(model, head, query, scale):
    return raw_scores(model, head, query) / model.cfg.d_head**0.5


def scale_twice(model, head, query, scale):
    return raw_scores(model, head, query) / scale**2 / model.cfg.d_head**0.5


def with_W_Q(model, head, query, scale):
    return raw_scores(model, head, query, W=model.W_Q[head]) / scale / model.cfg.d_head**0.5


def all_tokens(model, head, query, scale):
    return raw_scores(model, head, query, rows=model.W_E) / scale / model.cfg.d_head**0.5


def softmaxed(model, head, query, scale):
    return scores(model, head, query, scale).softmax(-1)


def with_b_K(model, head, query, scale):
    return scores(model, head, query, scale) + model.b_K[head] @ query / model.cfg.d_head**0.5


def always_layer_zero(model, head, query, scale):
    return scores(model, (0, head[1]), query, scale)


def d_head_in_the_code(model, head, query, scale):
    return raw_scores(model, head, query) / scale / 24**0.5


def scores_by_einsum(model, head, query, scale):
    keys = einops.einsum(
        model.W_E[:10].double() / scale,
        model.W_K[head].double(),
        "digit d_model, d_model d_head -> digit d_head",
    )
    return [float(key @ query.double()) / math.sqrt(model.cfg.d_head) for key in keys]


def two_softmax(scores, votes):
    pairs = torch.stack(torch.broadcast_tensors(scores[:, None], scores[None, :]), dim=-1)
    weights = pairs.softmax(-1)
    return weights[..., 0] * votes[:, None] + weights[..., 1] * votes[None, :]


def message_by_loops(scores, votes):
    rows = []
    for s, v in zip(scores.tolist(), votes.tolist(), strict=True):
        row = []
        for t, w in zip(scores.tolist(), votes.tolist(), strict=True):
            p = math.exp(s) / (math.exp(s) + math.exp(t))
            row.append(p * v + (1 - p) * w)
        rows.append(row)
    return rows


def plain_mean(scores, votes):
    return (votes[:, None] + votes[None, :]) / 2


def softmax_over_all(scores, votes):
    weighted = scores.softmax(-1) * votes
    return weighted[:, None] + weighted[None, :]


def winner_takes_all(scores, votes):
    return torch.where(scores[:, None] > scores[None, :], votes[:, None], votes[None, :])


def without_dividing(scores, votes):
    weighted = scores.exp() * votes
    return weighted[:, None] + weighted[None, :]


def scores_times_votes(scores, votes):
    weighted = scores * votes
    return weighted[:, None] + weighted[None, :]


def exchanged_weights(scores, votes):
    return two_softmax(-scores, votes)


def first_digit_alone(scores, votes):
    return (scores[:, None] - scores[None, :]).sigmoid() * votes[:, None]


def scores_for_votes(scores, votes):
    return two_softmax(votes, scores)


# ── carry_direction and interchange ─────────────────────────────────────────────────────────────────────────


def direction(activations, carry):
    difference = activations[carry].mean(0) - activations[~carry].mean(0)
    return difference / difference.norm()


def direction_from_the_overall_mean(activations, carry):
    return F.normalize(activations[carry].double().mean(0) - activations.double().mean(0), dim=0)


def not_a_unit(activations, carry):
    return activations[carry].mean(0) - activations[~carry].mean(0)


def turned_round(activations, carry):
    return -direction(activations, carry)


def mean_with_carry(activations, carry):
    return F.normalize(activations[carry].mean(0), dim=0)


def sums_for_means(activations, carry):
    return F.normalize(activations[carry].sum(0) - activations[~carry].sum(0), dim=0)


def medians(activations, carry):
    return F.normalize(activations[carry].median(0).values - activations[~carry].median(0).values, dim=0)


def standardised(activations, carry):
    return direction(activations / activations.std(0), carry)


def largest_variance(activations, carry):
    return torch.linalg.svd(activations - activations.mean(0), full_matrices=False).Vh[0]


def with_edit(edit):
    """An interchange by a hook that sets the base's activation x to edit(x, y, B), with y the source's."""

    def answer(model, hook_name, position, basis, base, source):
        with record(model, hook_name) as seen:
            model(source)

        def put(x, hook):
            x[:, position] = edit(x[:, position], seen[hook_name][:, position], basis)
            return x

        return model.run_with_hooks(base, fwd_hooks=[(hook_name, put)])[:, 9:13]

    answer.__name__ = edit.__name__
    return answer


@with_edit
def by_coordinates(x, y, B):
    return x + (y @ B - x @ B) @ B.T


@with_edit
def whole_activation(x, y, B):
    return y


@with_edit
def the_complement(x, y, B):
    return y - (y - x) @ B @ B.T


@with_edit
def added(x, y, B):
    return x + y @ B @ B.T


@with_edit
def taken_out(x, y, B):
    return x - x @ B @ B.T


@with_edit
def nothing_else_left(x, y, B):
    return y @ B @ B.T


@with_edit
def mean_source(x, y, B):
    return x + (y.mean(0) - x) @ B @ B.T


def interchange_exchanged(model, hook_name, position, basis, base, source):
    return by_coordinates(model, hook_name, position, basis, source, base)


def interchange_at_all_positions(model, hook_name, position, basis, base, source):
    with record(model, hook_name) as seen:
        model(source)
    theirs = seen[hook_name]
    put = lambda x, hook: x + (theirs - x) @ basis @ basis.T  # noqa: E731
    return model.run_with_hooks(base, fwd_hooks=[(hook_name, put)])[:, 9:13]


def interchange_not_done(model, hook_name, position, basis, base, source):
    return model(base)[:, 9:13]


def by_transformer_lens(model, hook_name, position, basis, base, source):
    from transformer_lens.tools.analysis import SubspaceInterchange, collect_activations, intervened_logits

    at = torch.full((len(base),), position)

    def read(tokens):
        return model(tokens)[:, 9:13]

    theirs = collect_activations(model, hook_name, source, read, positions=at)
    return intervened_logits(model, hook_name, SubspaceInterchange(basis), base, theirs, read, positions=at)


# ── path_attribution ────────────────────────────────────────────────────────────────────────────────────────


def paths(
    model,
    tokens,
    place,
    *,
    at=None,
    early_scale=True,
    last_scale=True,
    transpose=False,
    keys="own",
    b_U="plain",
):
    _, cache = model.run_with_cache(tokens)
    at = 9 + place if at is None else at
    embed = cache["embed"] + cache["pos_embed"]
    heads = list(cache["result", 0].unbind(2))
    early = torch.stack([embed, *heads, model.b_O[0].expand_as(embed)])
    last = cache["ln_final.hook_scale"][:, at] if last_scale else 1.0
    scale = cache["blocks.1.ln1.hook_scale"]
    if keys == "query":
        scale = scale[:, at : at + 1]
    through = early / (scale if early_scale else 1.0)
    rows = list(early[:, :, at] / last @ model.W_U)
    for head in range(model.cfg.n_heads):
        pattern = cache["pattern", 1][:, head]
        weights = pattern[:, :, at] if transpose else pattern[:, at]
        moved = einops.einsum(weights, through, "s key, part s key d -> part s d")
        rows += list(moved @ model.W_V[1, head] @ model.W_O[1, head] / last @ model.W_U)
    rows.append((model.b_O[1] / last @ model.W_U).expand(len(tokens), -1))
    if b_U == "plain":
        rows.append(model.b_U.expand(len(tokens), -1))
    return torch.stack(rows)


def no_scales(model, tokens, place):
    return paths(model, tokens, place, early_scale=False, last_scale=False)


def no_early_scale(model, tokens, place):
    return paths(model, tokens, place, early_scale=False)


def no_last_scale(model, tokens, place):
    return paths(model, tokens, place, last_scale=False)


def scale_of_the_query(model, tokens, place):
    return paths(model, tokens, place, keys="query")


def pattern_transposed(model, tokens, place):
    return paths(model, tokens, place, transpose=True)


def one_position_late(model, tokens, place):
    return paths(model, tokens, place, at=10 + place)


def no_b_U(model, tokens, place):
    return paths(model, tokens, place, b_U="none")


def by_early_part(model, tokens, place):
    rows = paths(model, tokens, place)
    n_heads = model.cfg.n_heads
    direct, late, rest = rows.split([n_heads + 2, n_heads * (n_heads + 2), 2])
    return torch.cat(
        [direct, einops.rearrange(late, "(late part) s v -> (part late) s v", late=n_heads), rest]
    )


def biases_exchanged(model, tokens, place):
    rows = paths(model, tokens, place)
    return torch.cat([rows[:-2], rows[[-1]], rows[[-2]]])


def the_logits(model, tokens, place):
    return model(tokens)[:, 9 + place]


def direct_paths_only(model, tokens, place):
    return paths(model, tokens, place)[: model.cfg.n_heads + 2]


def hard_coded_heads(model, tokens, place):
    return paths(model, tokens, place)[[*range(20), -2, -1]]


# ── to_circle and pair_sums ─────────────────────────────────────────────────────────────────────────────────


def circle(logits, frequency):
    return logits[..., :10] @ basis(10)[2 * frequency - 1 : 2 * frequency + 1].T


def circle_by_rfft(logits, frequency):
    z = torch.fft.rfft(logits[..., :10], dim=-1)[..., frequency] / math.sqrt(5)
    return torch.stack([z.real, -z.imag], dim=-1)


def rfft_as_it_is(logits, frequency):
    z = torch.fft.rfft(logits[..., :10], dim=-1)[..., frequency] / math.sqrt(5)
    return torch.stack([z.real, z.imag], dim=-1)


def sine_first(logits, frequency):
    return circle(logits, frequency).flip(-1)


def waves_not_normalised(logits, frequency):
    return logits[..., :10] @ waves(10)[2 * frequency - 1 : 2 * frequency + 1].T


def every_token(logits, frequency):
    return logits @ basis(logits.shape[-1])[2 * frequency - 1 : 2 * frequency + 1].T


def row_too_far(logits, frequency):
    return logits[..., :10] @ basis(10)[2 * frequency : 2 * frequency + 2].T


def always_frequency_one(logits, frequency):
    return circle(logits, 1)


def pairs(model, early, late, *, rows=None, columns=10, order=1):
    OV = [model.W_V[head] @ model.W_O[head] for head in (early, late)][::order]
    rows = model.W_E[:10] if rows is None else rows
    single = rows @ OV[0] @ OV[1] @ model.W_U[:, :columns]
    return single[:, None] + single[None, :]


def pairs_by_einsum(model, early, late):
    digits = model.W_E[:10].double()
    both = digits[:, None] + digits[None, :]
    V = [model.W_V[head].double() for head in (early, late)]
    O = [model.W_O[head].double() for head in (early, late)]  # noqa: E741
    U = model.W_U[:, :10].double()
    return torch.einsum("abd,dh,hm,mk,kn,nv->abv", both, V[0], O[0], V[1], O[1], U)


def mean_of_pairs(model, early, late):
    return pairs(model, early, late) / 2


def late_head_first(model, early, late):
    return pairs(model, early, late, order=-1)


def every_logit(model, early, late):
    return pairs(model, early, late, columns=None)


def every_token_as_digit(model, early, late):
    return pairs(model, early, late, rows=model.W_E)


def table_of_digits(model, early, late):
    return (
        model.W_E[:10]
        @ model.W_V[early]
        @ model.W_O[early]
        @ model.W_V[late]
        @ model.W_O[late]
        @ model.W_U[:, :10]
    )


def without_the_late_head(model, early, late):
    single = model.W_E[:10] @ model.W_V[early] @ model.W_O[early] @ model.W_U[:, :10]
    return single[:, None] + single[None, :]


def flat_pairs(model, early, late):
    return pairs(model, early, late).flatten(0, 1)


# ── counterexamples ─────────────────────────────────────────────────────────────────────────────────────────


def known():
    return checks.counterexamples.course_version()


def typical_ones():
    tokens = known()
    return tokens[evidence.in_distribution(tokens)]


def untrained_ones():
    tokens = known()
    return tokens[~evidence.in_distribution(tokens)]


def beyond_training_alone():
    pool = checks_evidence.stored_evidence().pool
    wrong = pool.tokens[~pool.model_is_right.all(-1)]
    beyond = wrong[~evidence.in_distribution(wrong)]
    return beyond[:50]


def ordinary_sums():
    return task.make_data(50, 3).tokens


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


def without_the_sum():
    return known()[:, :10]


def too_few():
    return known()[:10]


def one_sequence():
    return known()[0]


def list_of_rows():
    return list(known())


def half_right():
    return torch.cat([known()[:25], task.make_data(25, 4).tokens])


def as_lists_of_numbers():
    return known().flip(0).tolist()


def some_misses():
    return torch.cat([known()[:45], task.make_data(5, 5).tokens])


# ── circuit ─────────────────────────────────────────────────────────────────────────────────────────────────


def pruned():
    return checks.circuit.course_version()


def whole_heads():
    return [(layer, head) for layer in range(2) for head in range(3)]


def every_site():
    return list(evidence.SITES)


def one_head_everywhere():
    return [site for site in evidence.SITES if site[1] == 0]


def without_layer_one():
    return [site for site in pruned() if site[0] == 0]


def site_that_does_not_exist():
    return [*pruned()[1:], (0, 3, 9)]


def one_tuple():
    return (0, 1, 9)


def mixed():
    return [(0, 1), (1, 0, 9)]


def as_a_set():
    return set(pruned())


# ── explanation ─────────────────────────────────────────────────────────────────────────────────────────────


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
    Answers(
        checks.fourier_basis,
        wrong={
            not_normalised: "not of length one",
            one_factor_for_all: "sqrt(2/n)",
            divided_by_n: "divided by n",
            from_one: "x starts at 1",
            half_the_speed: "half as fast",
            waves_as_columns: "Rows and columns are swapped",
            cosines_then_sines: "All cosines come first",
            sines_first: "Sines stand before cosines",
            falling_sines: "wrong sign",
            a_sine_of_n_halves: "sin n/2",
            no_constant: "constant row is missing",
            always_ten: "shape",
            three_waves_at_least: "This is on n = 2",
        },
        right=[basis, by_numpy_loops],
    ),
    Answers(
        checks.frequency_shares,
        wrong={
            shares_of_amplitudes: "square the coefficients",
            plain_rfft: "other half of the spectrum",
            not_divided: "divide by the matrix's whole",
            divided_by_the_largest: "Divide by the sum",
            row_by_row: "one row of shares for each row",
            mean_of_rows_shares: "mean of the rows' own shares",
            share_of_the_mean_row: "spectrum of the mean over rows",
            by_wave: "single waves",
            centred_first: "centred first",
            without_the_constant: "left out",
            only_cosines: "Only the cosines",
        },
        right=[shares, shares_by_fft],
    ),
    Answers(
        checks.one_frequency,
        wrong={
            one_cosine: "Only the cosine is kept",
            one_and_constant: "constant is kept as well",
            one_too_far: "off by one",
            all_but_one: "Everything but this frequency",
            coefficients_alone: "coefficients, one for each wave",
            low_frequencies: "All frequencies up to this one",
        },
        right=[one, one_by_irfft],
    ),
    Answers(
        checks.circle_of_digits,
        wrong={
            right_vectors: "right singular vectors",
            axes_first: "transpose",
            last_two: "last two singular vectors",
            centred_columns: "centred first",
            scaled_twice: "once too often",
            smaller_first: "larger singular value first",
        },
        right=[coordinates, other_signs],
    ),
    Answers(checks.blind_frequency),
    Answers(
        checks.column_attention,
        wrong={
            plus_counted_as_b: 'position 4 is "+"',
            b_too_late: "one position too late",
            read_too_late: "one position too late",
            read_too_early: "one position too early",
            only_a: "Only the digits of a",
            halved: "add them",
            columns_first: "Places and columns are swapped",
            not_averaged: "not averaged over sequences",
            heads_averaged: "averaged over heads",
            units_first: "reverse order",
            three_heads: "index 2 is out of bounds",
        },
        right=[attention, attention_by_einops],
    ),
    Answers(
        checks.place_costs,
        wrong={
            after_alone: "subtract the loss before",
            gains: "sign",
            read_at_ten: "one position too late",
            targets_at_nine: "targets are off by one",
            mean_over_places: "mean over places",
            whole_layers: "All heads of the layer",
            always_mean: "always mean ablation",
            always_z: "always the ablation of `z`",
            compared_with_itself: "compared with itself",
            softmax_over_digits: "over all tokens",
            answer_positions_only: "at all positions",
            two_layers_three_heads: "shape",
        },
        right=[lambda model, tokens, activation, how: costs(model, tokens, activation, how)],
    ),
    Answers(checks.carry_bug),
    Answers(
        checks.swap_site,
        wrong={
            runs_exchanged: "two runs are exchanged",
            everywhere: "at all positions",
            all_heads: "All heads of the layer",
            the_pattern: "whole pattern was swapped",
            the_values: "values `v` were swapped",
            positions_ten_to_thirteen: "positions 10 to 13",
            all_positions_read: "all 14 positions",
            layer_zero: "always layer 0",
            outside_the_block: "Nothing was swapped",
            runs_source: "logits on `source`",
            zero_ablated: "zero ablation",
            digits_only: "Only the ten digits",
            log_probabilities: "return the logits",
            leaves_its_hook: "leaves a hook on the model",
        },
        right=[
            lambda model, head, position, base, source: swapped(model, head, position, base, source),
            by_result,
            by_own_hook,
        ],
    ),
    Answers(
        checks.carry_sites,
        wrong={
            Made(other_heads): "another site",
            Made(in_layer_one): "is in layer 1",
            Made(the_same_three_times): "Place 0",
            Made(backwards): "reverse order",
            Made(without_layers): "has two",
            Made(with_units): "nothing carries into the units",
            Made(one_site): "One site came",
            Made(too_late): "nothing looks ahead",
            Made(no_such_head): "has no head 0.3",
            Made(sites_as_text): "three whole numbers",
            Made(holding_tensors): "`int(...)`",
        },
        right=[Made(sites), Made(as_lists), Made(as_array)],
    ),
    Answers(checks.which_digit),
    Answers(
        checks.digit_scores,
        wrong={
            no_root: "sqrt(d_head)",
            root_of_d_model: "sqrt(d_model)",
            no_scale: "scale is forgotten",
            scale_twice: "used twice",
            with_W_Q: "W_K",
            all_tokens: "All tokens are there",
            softmaxed: "softmax has been taken",
            with_b_K: "b_K",
            always_layer_zero: "always layer 0",
            d_head_in_the_code: "right on the lesson's model",
        },
        right=[scores, scores_by_einsum],
    ),
    Answers(
        checks.carry_message,
        wrong={
            plain_mean: "plain mean",
            softmax_over_all: "softmax runs over all digits",
            winner_takes_all: "takes everything",
            without_dividing: "not divided by their sum",
            scores_times_votes: "no exponential",
            exchanged_weights: "weights are exchanged",
            first_digit_alone: "Only the first digit's vote",
            scores_for_votes: "Scores and votes are exchanged",
        },
        right=[two_softmax, message_by_loops],
    ),
    Answers(
        checks.carry_direction,
        wrong={
            not_a_unit: "not of length one",
            turned_round: "sign is turned round",
            mean_with_carry: "mean with a carry alone",
            sums_for_means: "not equally large",
            medians: "take means",
            standardised: "standard deviation",
            largest_variance: "largest variance",
        },
        right=[direction, direction_from_the_overall_mean],
    ),
    Answers(
        checks.interchange,
        wrong={
            whole_activation: "whole activation",
            the_complement: "outside `basis`",
            added: "were added",
            taken_out: "not put in",
            nothing_else_left: "keep what the base has",
            mean_source: "mean of the sources",
            interchange_exchanged: "two runs are exchanged",
            interchange_at_all_positions: "every position",
            interchange_not_done: "Nothing is changed",
        },
        right=[by_coordinates, by_transformer_lens],
    ),
    Answers(
        checks.path_attribution,
        wrong={
            no_scales: "no LayerNorm scale",
            no_early_scale: "scale of layer 1's LayerNorm is missing",
            no_last_scale: "scale of the last LayerNorm is missing",
            scale_of_the_query: "at the query position",
            pattern_transposed: "Queries and keys",
            one_position_late: "not 10 + i",
            no_b_U: "row of `b_U` is missing",
            by_early_part: "another order",
            biases_exchanged: "last two rows are exchanged",
            the_logits: "sum over paths",
            direct_paths_only: "paths through layer 1 are missing",
            hard_coded_heads: "shape",
        },
        right=[lambda model, tokens, place: paths(model, tokens, place)],
    ),
    Answers(
        checks.to_circle,
        wrong={
            rfft_as_it_is: "`rfft` gives minus the sine",
            sine_first: "cosine is the first",
            waves_not_normalised: "not of length one",
            every_token: "first ten entries",
            row_too_far: "off by one",
            always_frequency_one: "frequency",
        },
        right=[circle, circle_by_rfft],
    ),
    Answers(
        checks.pair_sums,
        wrong={
            mean_of_pairs: "add them",
            late_head_first: "wrong order",
            every_logit: "All tokens' logits",
            every_token_as_digit: "among the digits",
            table_of_digits: "table of single digits",
            without_the_late_head: "late head is missing",
            flat_pairs: "flattened",
        },
        right=[lambda model, early, late: pairs(model, early, late), pairs_by_einsum],
    ),
    Answers(
        checks.counterexamples,
        wrong={
            Made(beyond_training_alone): "of these are needed",
            Made(ordinary_sums): "40 are needed",
            Made(wrong_digits_in_c): "must be the digits of",
            Made(five_digits): "must be below 10000",
            Made(repeats): "repeats input 0",
            Made(without_the_sum): "has 10 tokens; expected 14",
            Made(too_few): "Give 50 sequences; 10 came",
            Made(one_sequence): "expected (input, position)",
            Made(list_of_rows): "torch.stack",
            Made(half_right): "in distribution",
        },
        right=[Made(known), Made(as_lists_of_numbers), Made(some_misses)],
    ),
    Answers(
        checks.circuit,
        wrong={
            Made(whole_heads): "Name sites",
            Made(every_site): "name at most",
            Made(one_head_everywhere): "is needed",
            Made(without_layer_one): "is needed",
            Made(site_that_does_not_exist): "heads 0 to 2",
            Value((0, 1, 9)): "heads (layer, head) or sites",
            Made(mixed): "mixes heads and sites",
        },
        right=[Made(pruned), Made(as_a_set)],
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
