"""The checks of lesson 03, sections 5 and 6: what the comparing head says, and how the reading head gets it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformer_lens.utilities import get_act_name

from exercises_utils.challenges.palindromes import task
from exercises_utils.challenges.palindromes.checks_old_common import (
    LESSON,
    MODELS,
    draw_tokens,
    seen_at,
    verdict_direction,
)
from exercises_utils.challenges.palindromes.checks_old_comparing import find_matching_head
from exercises_utils.challenges.palindromes.checks_old_verdict import noticed_change, palindromes, verdicts
from exercises_utils.checking import Case, Check, Question
from exercises_utils.tools import circuits, hooks

# ── 5 · is that the message ─────────────────────────────────────────────────────────────────────────────────


def _swap_pattern(
    model: Any, head: tuple[int, int], intact: Tensor, broken: Tensor, position: int
) -> Float[Tensor, " sequence"]:
    """By the head's output: the row of attention of the broken run times the values of the intact one, put into z."""
    layer, index = head
    (pattern,) = seen_at(model, broken, get_act_name("pattern", layer))
    (values,) = seen_at(model, intact, get_act_name("v", layer))

    def put(z: Tensor, hook: Any) -> Tensor:
        z = z.clone()
        z[:, position, index] = torch.einsum("sk,skd->sd", pattern[:, index, position], values[:, :, index])
        return z

    with model.hooks(fwd_hooks=[(get_act_name("z", layer), put)]):
        return verdicts(model, intact)


def _with_patches(model: Any, tokens: Tensor, *patches: tuple[Any, ...]) -> Tensor:
    """Logit differences with patches (activation, layer, value, heads, positions)."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        for activation, layer, value, heads, positions in patches:
            stack.enter_context(
                hooks.patch(model, activation, layer, value, heads=heads, positions=positions)
            )
        return verdicts(model, tokens)


def _pair_of_runs(name: str, seed: int, position: int) -> tuple[Any, Tensor, Tensor]:
    """A model, sequences, and the same sequences with one value changed."""
    model = MODELS[name].get()
    if name == LESSON:
        intact = palindromes(24, seed)
        return model, intact, task.change_value(intact, position, seed)
    intact = draw_tokens(model, 6, seed)
    broken = intact.clone()
    broken[:, position] = (broken[:, position] + 1 + torch.arange(6) % 3) % model.cfg.d_vocab
    return model, intact, broken


def _swap_pattern_cases() -> list[Case]:
    cases = []
    best = find_matching_head()
    position = noticed_change()[0]
    for name, head, place in (
        (LESSON, best, position),
        ("a random model with 3 layers and 3 heads", (1, 2), 7),
        ("a random model with 2 layers and 3 heads", (0, 1), 5),
    ):
        model, intact, broken = _pair_of_runs(name, 11, place)
        layer, index = head
        broken_pattern, broken_z = seen_at(
            model, broken, get_act_name("pattern", layer), get_act_name("z", layer)
        )
        (intact_pattern,) = seen_at(model, intact, get_act_name("pattern", layer))
        (broken_v,) = seen_at(model, broken, get_act_name("v", layer))
        right, last = _swap_pattern(model, head, intact, broken, place), intact.shape[1] - 1
        entry = intact_pattern.clone()
        entry[:, index, place, last - place] = broken_pattern[:, index, place, last - place]
        column = intact_pattern.clone()
        column[:, index, :, place] = broken_pattern[:, index, :, place]
        logits = model(intact)
        cases.append(
            Case(
                f"{name}, head {layer}.{index}, position {place}",
                (MODELS[name], head, intact, broken, place),
                right,
                axes=("sequence",),
                mistakes={
                    "Nothing was swapped that differs: these are the logit differences of the intact sequences. Does the "
                    "forward pass stand inside the `with` block, does the pattern come from `broken`, and is it the row of "
                    "`position`?": verdicts(model, intact),
                    "These are the logit differences of the broken sequences; run `intact` inside the block.": verdicts(
                        model, broken
                    ),
                    "The two runs are exchanged: the intact run's attention was put into the broken one.": _with_patches(
                        model, broken, ("pattern", layer, intact_pattern, [index], [place])
                    ),
                    "All rows of the head's pattern were swapped; swap only the row of query `position` "
                    "(`positions=[position]`).": _with_patches(
                        model, intact, ("pattern", layer, broken_pattern, [index], None)
                    ),
                    "All heads of the layer were swapped; swap only `head` (`heads=[index]`).": _with_patches(
                        model, intact, ("pattern", layer, broken_pattern, None, [place])
                    ),
                    "The column was swapped: who attends *to* the position. Swap the row, where the position itself "
                    "attends.": _with_patches(model, intact, ("pattern", layer, column, [index], None)),
                    "The head's output `z` was swapped, which takes the broken run's values along; swap the pattern "
                    "only.": _with_patches(model, intact, ("z", layer, broken_z, [index], [place])),
                    "The values `v` were swapped, not the pattern.": _with_patches(
                        model, intact, ("v", layer, broken_v, [index], [place])
                    ),
                    "The row of END was swapped; swap the row of `position`.": _with_patches(
                        model, intact, ("pattern", layer, broken_pattern, [index], [last])
                    ),
                    "Only the attention to the mirror was swapped; swap the whole row of `position`.": _with_patches(
                        model, intact, ("pattern", layer, entry, [index], [place])
                    ),
                    "This is a difference of probabilities; return the difference of the logits.": (
                        right / 2
                    ).tanh(),
                    "The sign is turned round: palindrome (index 1) minus no palindrome (index 0).": -right,
                    "These are both logits; return their difference, one number for each sequence.": logits[
                        :, -1
                    ],
                },
            )
        )
    return cases


swap_pattern = Check(
    "swap_pattern",
    "One row of attention, swapped",
    core=True,
    cases=_swap_pattern_cases,
    reference=_swap_pattern,
)


def _swap_inputs(
    model: Any, layer: int, inputs: Sequence[str], intact: Tensor, broken: Tensor, position: int
) -> Float[Tensor, " sequence"]:
    """By hand-written hooks, one for each input."""
    end = intact.shape[1] - 1
    fwd_hooks: list[tuple[str, Callable[..., Tensor]]] = []
    for name in inputs:
        place = end if name == "q" else position
        (source,) = seen_at(model, broken, get_act_name(name, layer))

        def put(activation: Tensor, hook: Any, source: Tensor = source, place: int = place) -> Tensor:
            activation[:, place] = source[:, place]
            return activation

        fwd_hooks.append((get_act_name(name, layer), put))
    with model.hooks(fwd_hooks=fwd_hooks):
        return verdicts(model, intact)


def _swap_inputs_cases() -> list[Case]:
    cases = []
    noticed = noticed_change()[0]
    for name, layer, inputs, place in (
        (LESSON, 1, ("k", "v"), noticed),
        (LESSON, 1, ("v",), noticed),
        ("a random model with 3 layers and 3 heads", 2, ("q", "k"), 7),
        ("a random model with 2 layers and 3 heads", 1, ("q",), 5),
        ("a random model with 2 layers and 3 heads", 1, ("k", "q", "v"), 4),
    ):
        model, intact, broken = _pair_of_runs(name, 12, place)
        end = intact.shape[1] - 1
        source = {n: seen_at(model, broken, get_act_name(n, layer))[0] for n in "qkv"}

        def patched(
            places: dict[str, int | None],
            heads: list[int] | None = None,
            model: Any = model,
            intact: Tensor = intact,
            layer: int = layer,
            inputs: tuple[str, ...] = inputs,
            source: dict[str, Tensor] = source,
        ) -> Tensor:
            """With each input taken at its place; None stands for all places."""
            at = {name: None if place is None else [place] for name, place in places.items()}
            return _with_patches(model, intact, *[(n, layer, source[n], heads, at[n]) for n in inputs])

        right, before = _swap_inputs(model, layer, inputs, intact, broken, place), verdicts(model, intact)
        alone = {n: _swap_inputs(model, layer, (n,), intact, broken, place) for n in inputs}
        end_or_place = end if inputs[-1] == "q" else place
        bound_late = [(n, layer, source[inputs[-1]], None, [end_or_place]) for n in inputs]
        cases.append(
            Case(
                f"{name}, layer {layer}, {' and '.join(inputs)}",
                (MODELS[name], layer, inputs, intact, broken, place),
                right,
                axes=("sequence",),
                mistakes={
                    "Nothing was swapped: these are the logit differences of the intact sequences.": verdicts(
                        model, intact
                    ),
                    "Queries were taken at `position`; END asks, so take them at END.": patched(
                        dict.fromkeys("qkv", place)
                    ),
                    "Keys and values were taken at END; take them at `position`.": patched(
                        dict.fromkeys("qkv", end)
                    ),
                    "All positions were swapped; take queries at END, keys and values at `position`.": patched(
                        dict.fromkeys("qkv")
                    ),
                    "Only one head was swapped; swap all heads of the layer.": patched(
                        {"q": end, "k": place, "v": place}, heads=[0]
                    ),
                    "Only the first of the `inputs` was swapped; swap them all, in the same run.": _swap_inputs(
                        model, layer, inputs[:1], intact, broken, place
                    ),
                    "Only the last of the `inputs` was swapped; swap them all, in the same run.": alone[
                        inputs[-1]
                    ],
                    "Each of the `inputs` was swapped in a run of its own, and the effects added; swap them all in the same "
                    "run.": before + torch.stack([one - before for one in alone.values()]).sum(0),
                    "Every hook puts in the last of the `inputs`: a function made in a loop sees the loop variable as the "
                    "loop left it. Bind it when the hook is made: `def put(value, hook, name=name)`.": _with_patches(
                        model, intact, *bound_late
                    ),
                    "Keys and values were taken at the mirror of `position`; take them at `position`.": patched(
                        {"q": end, "k": end - place, "v": end - place}
                    ),
                    "The two runs are exchanged: inputs of the intact run were put into the broken one.": _swap_inputs(
                        model, layer, inputs, broken, intact, place
                    ),
                    "The sign is turned round: palindrome (index 1) minus no palindrome (index 0).": -right,
                    "These are the logit differences of the broken sequences; run `intact` inside the blocks.": verdicts(
                        model, broken
                    ),
                },
            )
        )
    return cases


swap_inputs = Check(
    "swap_inputs",
    "Through queries, keys or values?",
    core=False,
    cases=_swap_inputs_cases,
    reference=_swap_inputs,
)


def _composed_key_scores(
    model: Any, matcher: tuple[int, int], reader: tuple[int, int], query: Tensor
) -> Float[Tensor, " position"]:
    """From the query back to the positions, one factor after the other."""
    (l0, h0), (l1, h1) = matcher, reader
    asked = model.W_K[l1, h1] @ query / model.cfg.d_head**0.5
    return model.W_pos @ (model.W_V[l0, h0] @ (model.W_O[l0, h0] @ asked))


def _composed_verdict(
    model: Any, matcher: tuple[int, int], reader: tuple[int, int]
) -> Float[Tensor, " position"]:
    (l0, h0), (l1, h1) = matcher, reader
    asked = model.W_V[l1, h1] @ (model.W_O[l1, h1] @ verdict_direction(model))
    return model.W_pos @ (model.W_V[l0, h0] @ (model.W_O[l0, h0] @ asked))


_COMPOSED = (
    (LESSON, (0, 0), (1, 1)),
    (LESSON, (0, 1), (1, 0)),
    ("a random model with 3 layers and 3 heads", (0, 2), (2, 1)),
    ("a random model with 2 layers and 3 heads", (0, 1), (1, 2)),
)


def _composed_key_scores_cases() -> list[Case]:
    cases = []
    for i, (name, matcher, reader) in enumerate(_COMPOSED):
        model = MODELS[name].get()
        query = torch.randn(model.cfg.d_head, generator=torch.Generator().manual_seed(i))
        right, root = _composed_key_scores(model, matcher, reader, query), model.cfg.d_head**0.5
        direct = model.W_pos @ model.W_K[reader] @ query / root
        swapped_heads = (
            model.W_pos @ model.W_V[reader] @ model.W_O[reader] @ model.W_K[matcher] @ query / root
        )
        as_query = model.W_pos @ model.W_V[matcher] @ model.W_O[matcher] @ model.W_Q[reader] @ query / root
        through_v = model.W_pos @ model.W_V[matcher] @ model.W_O[matcher] @ model.W_V[reader] @ query / root
        tokens = model.W_E @ model.W_V[matcher] @ model.W_O[matcher] @ model.W_K[reader] @ query / root
        cases.append(
            Case(
                f"{name}, heads {matcher[0]}.{matcher[1]} and {reader[0]}.{reader[1]}",
                (MODELS[name], matcher, reader, query),
                right,
                axes=("position",),
                mistakes={
                    "The score is not divided by sqrt(d_head).": right * root,
                    "The matching head is missing: this is the position embedding read directly.": direct,
                    "The two heads are exchanged: the matching head moves, the reading head's W_K reads.": swapped_heads,
                    "This goes through the reading head's W_Q; keys are made with W_K.": as_query,
                    "This goes through the reading head's W_V; keys are made with W_K.": through_v,
                    "The score is divided by d_head; attention divides by its square root.": right / root,
                    "The position embedding itself is in it; only what the matching head moves is asked for.": right
                    + direct,
                    "These are the token embeddings; use W_pos.": tokens,
                    "START and END are left out; return all positions.": right[1:-1],
                    "A softmax has been taken; return the scores.": right.softmax(0),
                },
            )
        )
    return cases


def _composed_verdict_cases() -> list[Case]:
    cases = []
    for name, matcher, reader in _COMPOSED:
        model = MODELS[name].get()
        right = _composed_verdict(model, matcher, reader)
        moved = circuits.ov_output(model, matcher, model.W_pos)
        cases.append(
            Case(
                f"{name}, heads {matcher[0]}.{matcher[1]} and {reader[0]}.{reader[1]}",
                (MODELS[name], matcher, reader),
                right,
                axes=("position",),
                mistakes={
                    "The sign is turned round: towards palindrome is W_U[:, 1] - W_U[:, 0].": -right,
                    "The matching head is missing: only the reading head moves the embedding.": circuits.ov_output(
                        model, reader, model.W_pos
                    )
                    @ verdict_direction(model),
                    "The reading head is missing: this is what the matching head writes, read directly.": moved
                    @ verdict_direction(model),
                    "The two heads are in the wrong order: the matching head moves first.": circuits.ov_output(
                        model, matcher, circuits.ov_output(model, reader, model.W_pos)
                    )
                    @ verdict_direction(model),
                    "These are the token embeddings; use W_pos.": circuits.ov_output(
                        model, reader, circuits.ov_output(model, matcher, model.W_E)
                    )
                    @ verdict_direction(model),
                    "This is the logit of palindrome alone; subtract W_U[:, 0].": circuits.ov_output(
                        model, reader, moved
                    )
                    @ model.W_U[:, 1],
                    "This is the logit of no palindrome alone; take W_U[:, 1] - W_U[:, 0].": circuits.ov_output(
                        model, reader, moved
                    )
                    @ model.W_U[:, 0],
                    "START and END are left out; return all positions.": right[1:-1],
                },
            )
        )
    return cases


composed_key_scores = Check(
    "composed_key_scores",
    "K-composition by position",
    core=False,
    cases=_composed_key_scores_cases,
    reference=_composed_key_scores,
)
composed_verdict = Check(
    "composed_verdict",
    "V-composition by position",
    core=False,
    cases=_composed_verdict_cases,
    reference=_composed_verdict,
)


def _composition_score(A: Tensor, B: Tensor) -> float:
    """By singular values: the Frobenius norm is the root of the sum of their squares."""

    def norm(matrix: Tensor) -> Tensor:
        return torch.linalg.svdvals(matrix).pow(2).sum().sqrt()

    return (norm(A @ B) / (norm(A) * norm(B))).item()


def _composition_score_cases() -> list[Case]:
    cases = []
    for seed, (d_in, d_mid, d_out) in enumerate(((6, 6, 6), (5, 8, 3), (12, 4, 9))):
        generator = torch.Generator().manual_seed(seed)
        A = torch.randn(d_in, d_mid, generator=generator)
        B = torch.randn(d_mid, d_out, generator=generator)
        mistakes = {
            "These are spectral norms (the largest singular value); use Frobenius norms.": (
                torch.linalg.matrix_norm(A @ B, 2)
                / (torch.linalg.matrix_norm(A, 2) * torch.linalg.matrix_norm(B, 2))
            ).item(),
            "The square root is missing: these are squared norms.": _composition_score(A, B) ** 2,
            "Divide by both norms, of A and of B.": ((A @ B).norm() / A.norm()).item(),
            "Divide by the product of the norms, not by their sum.": (
                (A @ B).norm() / (A.norm() + B.norm())
            ).item(),
            "Brackets are missing: `x / a * b` multiplies by b. Divide by both norms.": (
                (A @ B).norm() / A.norm() * B.norm()
            ).item(),
            "This is the norm of the product; divide it by the norms of A and of B.": (A @ B).norm().item(),
        }
        if d_in == d_out:
            mistakes["The order is turned round: A comes first, A @ B."] = _composition_score(B, A)
            mistakes["B is transposed; A @ B is what reaches the second head."] = _composition_score(A, B.T)
        cases.append(
            Case(
                f"matrices {d_in}×{d_mid} and {d_mid}×{d_out}",
                (A, B),
                _composition_score(A, B),
                mistakes=mistakes,
            )
        )
    return cases


composition_score = Check(
    "composition_score",
    "Composition score",
    core=False,
    cases=_composition_score_cases,
    reference=_composition_score,
)


def _verdict_by_position(
    model: Any, matcher: tuple[int, int], reader: tuple[int, int], tokens: Tensor
) -> Float[Tensor, "sequence value_position"]:
    """By linearity, one position and sequence at a time, from the direction back to the value."""
    (l0, h0), (l1, h1) = matcher, reader
    asked = model.W_O[l0, h0] @ (model.W_V[l1, h1] @ (model.W_O[l1, h1] @ verdict_direction(model)))
    (values,) = seen_at(model, tokens, get_act_name("v", l0))
    last = tokens.shape[1] - 1
    return torch.stack([values[:, position, h0] @ asked for position in range(1, last)], dim=1)


def _verdict_by_position_cases() -> list[Case]:
    cases = []
    for name, matcher, reader in _COMPOSED:
        model = MODELS[name].get()
        tokens = palindromes(16, 13) if name == LESSON else draw_tokens(model, 5, seed=13)
        right = _verdict_by_position(model, matcher, reader, tokens)
        (l0, h0), (l1, h1) = matcher, reader
        v, z, other = (
            seen_at(model, tokens, get_act_name(n, at))[0] for n, at in (("v", l0), ("z", l0), ("v", l1))
        )
        asked = model.W_V[l1, h1] @ (model.W_O[l1, h1] @ verdict_direction(model))
        every = v[:, :, h0] @ model.W_O[l0, h0] @ asked
        cases.append(
            Case(
                f"{name}, heads {l0}.{h0} and {l1}.{h1}",
                (MODELS[name], matcher, reader, tokens),
                right,
                axes=("sequence", "position"),
                mistakes={
                    "START and END are in it; return the values' positions only.": every,
                    "Off by one: leave out START (position 0) and END (the last).": every[:, :-2],
                    "The sign is turned round: towards palindrome is W_U[:, 1] - W_U[:, 0].": -right,
                    "This is the head's output `z`, already averaged by its attention; take the value `v` of each "
                    "position.": (z[:, :, h0] @ model.W_O[l0, h0] @ asked)[:, 1:-1],
                    "These are the reading head's values; start from the matching head's.": (
                        other[:, 1:-1, h1] @ model.W_O[l1, h1] @ verdict_direction(model)
                    ),
                    "The reading head is missing: this is the direct effect of what the matching head writes.": (
                        v[:, 1:-1, h0] @ model.W_O[l0, h0] @ verdict_direction(model)
                    ),
                    "This is the logit of palindrome alone; subtract W_U[:, 0].": (
                        v[:, :, h0]
                        @ model.W_O[l0, h0]
                        @ model.W_V[l1, h1]
                        @ model.W_O[l1, h1]
                        @ model.W_U[:, 1]
                    )[:, 1:-1],
                    "This is the mean over sequences; return a row for each.": right.mean(0),
                },
            )
        )
    return cases


verdict_by_position = Check(
    "verdict_by_position",
    "What each value is worth as a vote",
    core=False,
    cases=_verdict_by_position_cases,
    reference=_verdict_by_position,
)


def _ablation_costs(
    model: Any, tokens: Tensor, labels: Tensor, activation: str, how: str
) -> Float[Tensor, "layer head"]:
    """With in-place hooks of its own."""

    def loss() -> Tensor:
        log_probs = model(tokens)[:, -1].log_softmax(-1)
        return -log_probs[torch.arange(len(tokens)), labels].mean()

    before = loss()
    costs = []
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):

            def put(value: Tensor, hook: Any, head: int = head) -> Tensor:
                value[:, :, head] = 0.0 if how == "zero" else value[:, :, head].mean(0)
                return value

            with model.hooks(fwd_hooks=[(get_act_name(activation, layer), put)]):
                costs.append(loss() - before)
    return torch.stack(costs).view(model.cfg.n_layers, model.cfg.n_heads)


def _costs_with(
    model: Any,
    tokens: Tensor,
    labels: Tensor,
    activation: str,
    how: str,
    together: dict[tuple[int, int], list[tuple[int, int]]],
) -> Float[Tensor, "layer head"]:
    """What it costs to ablate, for each head, the heads that `together` names."""
    before = F.cross_entropy(model(tokens)[:, -1], labels)
    costs = torch.zeros(model.cfg.n_layers, model.cfg.n_heads)
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):
            with hooks.ablate(model, together[layer, head], activation=activation, how=how):
                costs[layer, head] = F.cross_entropy(model(tokens)[:, -1], labels) - before
    return costs


def _ablation_costs_cases() -> list[Case]:
    cases = []
    for name, activation, how in (
        (LESSON, "q", "mean"),
        (LESSON, "z", "zero"),
        ("a random model with 3 layers and 3 heads", "v", "mean"),
        ("a random model with 1 layer and 4 heads", "k", "zero"),
    ):
        model = MODELS[name].get()
        if name == LESSON:
            data = task.make_data(64, seed=14)
            tokens, labels = data.tokens, data.labels.long()
        else:
            tokens = draw_tokens(model, 8, seed=14)
            labels = torch.arange(8) % 3 % 2
        right = _ablation_costs(model, tokens, labels, activation, how)
        before = F.cross_entropy(model(tokens)[:, -1], labels)
        n_layers, n_heads = right.shape
        heads = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]
        data_of = (tokens, labels)

        # Many forward passes each: made only for an answer that is wrong.
        def instead(
            a: str, h: str, name: str = name, data_of: tuple[Tensor, Tensor] = data_of
        ) -> Callable[[], Tensor]:
            return lambda: _ablation_costs(MODELS[name].get(), *data_of, a, h)

        def together(
            which: Callable[[Any, Any], bool],
            name: str = name,
            data_of: tuple[Tensor, Tensor] = data_of,
            a: str = activation,
            h: str = how,
            heads: Any = heads,
        ) -> Callable[[], Tensor]:
            groups = {one: [other for other in heads if which(other, one)] for one in heads}
            return lambda: _costs_with(MODELS[name].get(), *data_of, a, h, groups)

        mistakes: dict[str, Any] = {
            "These are the losses after ablation; subtract the loss before it.": right + before,
            "The sign is turned round: the loss after ablation minus the loss before it.": -right,
            "Everything is log(2) times too large: bits, not nats.": right / torch.tensor(2.0).log(),
            "Mean and zero are exchanged.": instead(activation, "zero" if how == "mean" else "mean"),
            **{
                f"This is always {one} ablation; pass the argument `how` on.": instead(activation, one)
                for one in ("mean", "zero")
            },
            **{
                f"This is always the ablation of `{one}`; pass the argument `activation` on.": instead(
                    one, how
                )
                for one in "qkvz"
            },
            "The loss is summed over sequences; take the mean.": right * len(tokens),
            "Nothing is ablated: every loss is compared with itself. The loss before is computed outside the `with` "
            "block, the loss after inside it.": torch.zeros_like(right),
            "All heads of the layer are ablated at once; ablate one head at a time.": together(
                lambda other, one: other[0] == one[0]
            ),
            "The heads before are still ablated; ablate one head at a time, from a fresh list.": together(
                lambda other, one: other <= one
            ),
        }
        if n_layers == n_heads:
            mistakes["Rows and columns are swapped: layers are the rows."] = right.T
        cases.append(
            Case(
                f"{name}, {how} ablation of {activation}",
                (MODELS[name], tokens, labels, activation, how),
                right,
                axes=("layer", "head"),
                mistakes=mistakes,
                atol=2e-5,
            )
        )
    return cases


ablation_costs = Check(
    "ablation_costs",
    "What each activation of each head is worth",
    core=False,
    cases=_ablation_costs_cases,
    reference=_ablation_costs,
)


stale_label = Question(
    "stale_label",
    "Find the bug: whose queries?",
    core=False,
    options={
        "a": (
            "head 0.0's, as the line says",
            "the line prints `layer` and `head`; the hook uses `target_layer` and `target_head`.",
        ),
        "b": (
            "head 1.0's",
            "the hook acts on head 1.0, the line prints variables left over from an early cell. In the write-up, such "
            "lines mislabel results of the reading head as results of the matching head.",
        ),
        "c": (
            "nobody's",
            "2.491 nats came from somewhere: the hook is called for the queries of layer 1.",
        ),
        "d": ("those of all heads of layer 1", "the third index picks one head, `target_head`."),
    },
    answer="b",
)
