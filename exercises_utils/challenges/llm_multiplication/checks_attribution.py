"""The checks of lesson 05's second part: the logits as a sum over what the layers and the heads write."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from exercises_utils.challenges.llm_multiplication import task
from exercises_utils.challenges.llm_multiplication.checks_common import (
    LESSON,
    MODELS,
    THREE_LAYERS,
    TWO_LAYERS,
    Plain,
    random_tokens,
    recorded,
)
from exercises_utils.checking import Case, Check, Question


class _Run:
    """The parts of one run's residual stream at one position, and a direction for each row to project them on."""

    def __init__(self, name: str, tokens: Tensor, position: int, right: Tensor, wrong: Tensor) -> None:
        self.plain = plain = Plain.of(name)
        self.seen = plain.run(tokens)
        self.position, self.right, self.wrong = position, right, wrong
        self.layers = range(plain.n_layers)
        self.scale = self.seen["scale", -1]
        self.direction = (plain.W_U[:, right] - plain.W_U[:, wrong]).T
        self.bias = plain.b_U[right] - plain.b_U[wrong]

    def parts(self, position: int | None = None) -> list[Float[Tensor, "batch d_model"]]:
        """Embed, then what each layer's attention and MLP write."""
        at = self.position if position is None else position
        names = [("embed", -1), *((name, layer) for layer in self.layers for name in ("attn_out", "mlp_out"))]
        return [self.seen[site][:, at] for site in names]

    def rows(
        self,
        parts: list[Tensor] | None = None,
        *,
        scale: Tensor | None = None,
        own_scale: bool = False,
        direction: Tensor | None = None,
        bias: bool = True,
    ) -> Float[Tensor, "component batch"]:
        """The parts on the direction; keywords replace something by what a mistake takes."""
        parts = self.parts() if parts is None else parts
        scale = self.scale[:, self.position] if scale is None else scale
        direction = self.direction if direction is None else direction
        rows = [
            torch.stack(
                [
                    row @ d
                    for row, d in zip(
                        part / (self.plain.scale(part) if own_scale else scale), direction, strict=True
                    )
                ]
            )
            for part in parts
        ]
        return torch.stack([*rows, self.bias] if bias else rows)

    def logits(self) -> Float[Tensor, "batch vocabulary"]:
        """The model's own, at the position."""
        return self.seen["logits", -1][:, self.position]

    def at(self, name: str) -> list[Tensor]:
        """One activation of every layer, at the position."""
        return [self.seen[name, layer][:, self.position] for layer in self.layers]

    def normed_whole(self) -> list[Tensor]:
        """The parts divided by the whole tensor's norm instead of each row's."""
        return [part / part.norm() for part in self.parts()]


def _component_attribution(
    model: Any,
    tokens: Int[Tensor, "batch position"],
    position: int,
    right: Int[Tensor, " batch"],
    wrong: Int[Tensor, " batch"],
) -> Float[Tensor, "component batch"]:
    """From a run with the activations recorded by hooks."""
    names = [
        "hook_embed",
        *(
            f"blocks.{layer}.hook_{name}"
            for layer in range(model.cfg.n_layers)
            for name in ("attn_out", "mlp_out")
        ),
    ]
    scale = "ln_final.hook_scale"
    _, seen = recorded(model, tokens, [*names, scale])
    direction = (model.W_U[:, right] - model.W_U[:, wrong]).T
    parts = torch.stack([seen[name][:, position] for name in names]) / seen[scale][:, position]
    return torch.cat([(parts * direction).sum(-1), (model.b_U[right] - model.b_U[wrong])[None]])


def _lesson_tokens(size: int, seed: int) -> Int[Tensor, "batch position"]:
    """Multiplications of the bundled model."""
    return task.sequences(task.make_data(size, seed, order="long first", answer_digits=5))


def _cases_of(position_of_lesson: int = 11) -> list[tuple[str, str, tuple[Any, ...]]]:
    """For each model: its name, the case's, and (tokens, position, right, wrong)."""
    found = []
    for name, batch, length, position, seed in (
        (TWO_LAYERS, 5, 9, 6, 50),
        (THREE_LAYERS, 4, 8, 4, 51),
        (LESSON, 6, 0, position_of_lesson, 52),
    ):
        generator = Generator().manual_seed(seed)
        tokens = _lesson_tokens(batch, seed) if name == LESSON else random_tokens(name, batch, length, seed)
        right = torch.randint(1, 11, (batch,), generator=generator)
        wrong = (right - 1 + torch.randint(1, 10, (batch,), generator=generator)) % 10 + 1
        found.append((name, f"{name}, position {position}", (tokens, position, right, wrong)))
    return found


def _component_attribution_cases() -> list[Case]:
    cases = []
    for model, name, arguments in _cases_of():
        run = _Run(model, *arguments)
        position = run.position
        right = run.rows()
        batch = right.shape[1]
        scale = run.scale[:, position]
        by_token = run.plain.W_U.T

        def changed(row: int, value: Tensor, right: Tensor = right) -> Tensor:
            """`right` with one row replaced."""
            copy = right.clone()
            copy[row] = value
            return copy

        attention, mlp = range(1, right.shape[0] - 1, 2), range(2, right.shape[0] - 1, 2)
        pre, mid, post = run.at("resid_pre"), run.at("resid_mid"), run.at("resid_post")
        streams = [pre[0], *(x for pair in zip(mid, post, strict=True) for x in pair)]
        outputs = [run.parts()[0], *(x for pair in zip(mid, post, strict=True) for x in pair)]
        mistakes: dict[str, Any] = {
            "The rows do not add up to the logit difference: the final RMSNorm's scale is left out. Divide by "
            "`ln_final.hook_scale` at this position of this row.": run.rows(
                scale=torch.ones(batch, 1).double()
            ),
            "The scale is left out, and so is the row of b_U, the last.": run.rows(
                scale=torch.ones(batch, 1).double(), bias=False
            ),
            "Each component is divided by its own scale, so the rows do not add up. Divide all of them by the scale of the "
            "model's own final residual stream, `ln_final.hook_scale`.": run.rows(own_scale=True),
            "Each component is divided by its own scale, and the row of b_U, the last, is missing.": run.rows(
                own_scale=True, bias=False
            ),
            "The scale is averaged over the batch; each row has its own.": run.rows(
                scale=scale.mean(0, keepdim=True).expand_as(scale)
            ),
            "The scale is averaged over positions; take that of `position`.": run.rows(
                scale=run.scale.mean(1)
            ),
            "The scale is that of the last position; take that of `position`.": run.rows(
                scale=run.scale[:, -1]
            ),
            "The components are those of the last position; take `position`.": run.rows(run.parts(-1)),
            "Everything is taken at the last position; take `position`.": run.rows(
                run.parts(-1), scale=run.scale[:, -1]
            ),
            "Everything is taken one position too late; the logits at `position` are made of the stream at `position`.": (
                run.rows(run.parts(position + 1), scale=run.scale[:, position + 1])
            ),
            "Everything is taken one position too early; the logits at `position` are made of the stream at `position`.": (
                run.rows(run.parts(position - 1), scale=run.scale[:, position - 1])
            ),
            "The sign is turned round: logit(right) minus logit(wrong).": -right,
            "The row of b_U is missing; it is the last.": right[:-1],
            "The row of b_U is divided by the scale; it is added after the norm.": changed(
                -1, run.bias / scale[:, 0]
            ),
            "The row of b_U comes first; it is the last.": right.roll(1, 0),
            "The row of `embed` is missing; it is the first.": right[1:],
            "This is the sum over components, the logit difference itself; give one row for each component.": right.sum(
                0
            ),
            "This is the sum over the batch; give each row of the batch its own column.": right.sum(1),
            "This is the mean over the batch; give each row of the batch its own column.": right.mean(1),
            "The rows are the residual stream so far (`resid_mid`, `resid_post`); take what each component *adds*, "
            "`attn_out` and `mlp_out`.": run.rows(streams),
            "The rows are sums so far; give what each component adds.": right.cumsum(0),
            "The residual stream stands where the layers' outputs should; take what each component adds, `attn_out` and "
            "`mlp_out`.": partial(run.rows, outputs),
            "In each layer the MLP comes first; the order is attention, then MLP.": right[
                [0, *(row for pair in zip(mlp, attention, strict=True) for row in pair), -1]
            ],
            "All attentions come first, then all MLPs; the order is by layer: attention 0, MLP 0, attention 1, …": right[
                [0, *attention, *mlp, -1]
            ],
            "Each layer has one row, attention and MLP together; give them a row each.": torch.cat(
                [right[:1], right[list(attention)] + right[list(mlp)], right[-1:]]
            ),
            "This is the right token's logit alone; subtract the wrong token's.": torch.cat(
                [run.rows(direction=by_token[run.right], bias=False), run.plain.b_U[run.right][None]]
            ),
            "The wrong token is left out of b_U's row; it is b_U[right] - b_U[wrong].": changed(
                -1, run.plain.b_U[run.right]
            ),
            "Every row of the batch is projected on the direction of the first; each has its own.": run.rows(
                direction=run.direction[:1].expand_as(run.direction)
            ),
            "The components are divided by the norm of each, not by the final scale.": torch.cat(
                [
                    torch.stack(
                        [
                            (part / part.norm(dim=-1, keepdim=True) * run.direction).sum(-1)
                            for part in run.parts()
                        ]
                    ),
                    run.bias[None],
                ]
            ),
            "The logits are returned; give one row for each component.": run.logits(),
        }
        if bool((run.plain.b_U == 0).all()):
            # A row of zeros, whatever is done to it: the random models tell these mistakes apart.
            mistakes = {message: value for message, value in mistakes.items() if "b_U's row" not in message}
            mistakes.pop("The row of b_U is divided by the scale; it is added after the norm.")
        cases.append(
            Case(
                name,
                (MODELS[model], *arguments),
                right,
                axes=("component", "batch"),
                atol=2e-4,
                mistakes=mistakes,
            )
        )
    return cases


component_attribution = Check(
    "component_attribution",
    "What each layer adds",
    core=True,
    cases=_component_attribution_cases,
    reference=_component_attribution,
)


def _lens(
    model: Any, tokens: Int[Tensor, "batch position"], position: int, ids: list[int]
) -> Float[Tensor, "depth batch digit"]:
    """From the residual stream where hooks see it; the norm written out."""
    n_layers = model.cfg.n_layers
    names = [f"blocks.{layer}.hook_resid_{where}" for layer in range(n_layers) for where in ("pre", "mid")]
    names.append(f"blocks.{n_layers - 1}.hook_resid_post")
    _, seen = recorded(model, tokens, names)
    streams = torch.stack([seen[name][:, position] for name in names])
    scale = (streams.pow(2).mean(-1, keepdim=True) + model.cfg.eps).sqrt()
    return (streams / scale) @ model.W_U[:, list(ids)] + model.b_U[list(ids)]


def _lens_cases() -> list[Case]:
    cases = []
    for model, name, (tokens, position, right_ids, wrong_ids) in _cases_of(position_of_lesson=9):
        run = _Run(model, tokens, position, right_ids, wrong_ids)
        plain = run.plain
        ids = {TWO_LAYERS: [3, 1, 2, 4, 10, 8, 9, 5, 7, 6], THREE_LAYERS: [*range(16, 6, -1)]}.get(
            model, list(range(1, 11))
        )

        def streams(at: int, run: _Run = run) -> Float[Tensor, "depth batch d_model"]:
            return torch.stack(
                [
                    *(
                        run.seen[name, layer][:, at]
                        for layer in run.layers
                        for name in ("resid_pre", "resid_mid")
                    ),
                    run.seen["resid_post", run.layers[-1]][:, at],
                ]
            )

        def read(
            stream: Tensor,
            scale: Tensor | None = None,
            bias: bool = True,
            columns: list[int] | None = ids,
            plain: Plain = plain,
        ) -> Tensor:
            logits = stream / (plain.scale(stream) if scale is None else scale) @ plain.W_U
            logits = logits + plain.b_U if bias else logits
            return logits if columns is None else logits[..., columns]

        here = streams(position)
        right = read(here)
        final, one = run.scale[:, position], torch.ones(1).double()
        centred = here - here.mean(-1, keepdim=True)
        differences = torch.cat([here[:1], here.diff(dim=0)])
        n_layers = len(run.layers)
        everything = read(here, columns=None)
        mistakes: dict[str, Any] = {
            "Every depth is divided by the *final* scale; the lens gives each depth its own, as if everything after it were "
            "left out.": read(here, final),
            "The final scale is used for every depth, and b_U is left out.": read(here, final, bias=False),
            "The norm is left out: divide each depth by its own scale, sqrt(mean square + eps).": read(
                here, one
            ),
            "The norm and b_U are left out: divide each depth by its own scale, sqrt(mean square + eps), and add b_U at the "
            "end.": read(here, one, bias=False),
            "b_U is left out; add `b_U[ids]` at the end.": read(here, bias=False),
            "b_U of the first tokens is added; take `b_U[ids]`.": read(here, bias=False)
            + plain.b_U[: len(ids)],
            "Only the streams before each layer, and the last one, are there; those after each attention (`resid_mid`) are "
            "missing.": right[[*range(0, 2 * n_layers, 2), -1]],
            "Only the streams before each layer are there; add those after each attention, and the one after the last "
            "layer.": right[: 2 * n_layers : 2],
            "The last depth, after the last layer, is missing.": right[:-1],
            "The first depth, the embedding, is missing.": right[1:],
            "These are the parts that each component adds, not the residual stream up to a depth.": read(
                differences
            ),
            "The mean is subtracted, as in LayerNorm; RMSNorm only divides.": read(centred),
            "The stream is divided by its length; RMSNorm divides by the root of the *mean* square.": read(
                here, here.norm(dim=-1, keepdim=True)
            ),
            "The stream is divided by the mean square; its root is missing.": read(
                here, plain.scale(here).pow(2)
            ),
            "The stream is divided by the standard deviation, as in LayerNorm; RMSNorm divides by sqrt(mean square).": read(
                here, here.std(-1, keepdim=True)
            ),
            "The columns are 0 to 9 of the vocabulary; take `ids`.": read(here, columns=list(range(10))),
            "All tokens of the vocabulary are there; take the columns `ids`.": everything,
            "The position is one too late; take the stream at `position`.": read(streams(position + 1)),
            "The position is one too early; take the stream at `position`.": read(streams(position - 1)),
            "The last position is taken; take `position`.": read(streams(-1)),
            "Softmax is taken over the digits; logits are asked for.": right.softmax(-1),
            "Softmax is taken over the vocabulary; logits are asked for.": everything.softmax(-1)[..., ids],
            "Logarithms of probabilities are returned; logits are asked for.": everything.log_softmax(-1)[
                ..., ids
            ],
            "This is the mean over the batch; keep each row.": right.mean(1),
            "The depths are in reverse order: the embedding comes first.": right.flip(0),
            "The mids come after all the others; the order is by depth: before layer 0, after its attention, before "
            "layer 1, …": right[[*range(0, 2 * n_layers + 1, 2), *range(1, 2 * n_layers, 2)]],
        }
        if bool((plain.b_U == 0).all()):
            for message in [message for message in mistakes if message.startswith("b_U ")]:
                mistakes.pop(message)
        cases.append(
            Case(
                name,
                (MODELS[model], tokens, position, ids),
                right,
                axes=("depth", "batch", "digit"),
                atol=2e-4,
                mistakes=mistakes,
            )
        )
    return cases


lens = Check(
    "lens",
    "The logit lens",
    core=False,
    cases=_lens_cases,
    reference=_lens,
)


def _head_attribution(
    model: Any,
    tokens: Int[Tensor, "batch position"],
    position: int,
    right: Int[Tensor, " batch"],
    wrong: Int[Tensor, " batch"],
) -> Float[Tensor, "layer head batch"]:
    """Each head's z through its own rows of W_O, one head at a time."""
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    scale = "ln_final.hook_scale"
    _, seen = recorded(model, tokens, [*names, scale])
    direction = (model.W_U[:, right] - model.W_U[:, wrong]).T
    rows = []
    for layer, name in enumerate(names):
        for head in range(model.cfg.n_heads):
            wrote = seen[name][:, position, head] @ model.W_O[layer, head] / seen[scale][:, position]
            rows.append((wrote * direction).sum(-1))
    return torch.stack(rows).unflatten(0, (model.cfg.n_layers, -1))


def _head_attribution_cases() -> list[Case]:
    cases = []
    for model, name, arguments in _cases_of():
        run = _Run(model, *arguments)
        plain, position = run.plain, run.position
        n_heads, n_groups = plain.n_heads, plain.n_groups

        def rows(
            *,
            at: int = position,
            scale: Tensor | None = None,
            own_scale: bool = False,
            bias: float = 0.0,
            W_O: Callable[[int], Tensor] | None = None,
            z: Callable[[int], Tensor] | None = None,
            run: _Run = run,
        ) -> Float[Tensor, "layer head batch"]:
            written = []
            for layer in run.layers:
                here = run.seen["z", layer] if z is None else z(layer)
                matrices = (run.plain.W_O if W_O is None else W_O)(layer)
                written += [
                    here[:, at, head] @ matrices[head] + bias * run.plain.b_O(layer)
                    for head in range(run.plain.n_heads)
                ]
            flat = run.rows(
                written, scale=run.scale[:, at] if scale is None else scale, own_scale=own_scale, bias=False
            )
            return flat.unflatten(0, (run.plain.n_layers, -1))

        def mixed(layer: int, plain: Plain = plain) -> Tensor:
            """W_O cut the wrong way: every n-th row to a head."""
            whole = plain.w[f"blocks.{layer}.attn.o.weight"].T
            return whole.reshape(plain.d_head, plain.n_heads, -1).transpose(0, 1)

        def shuffled(layer: int, plain: Plain = plain) -> Tensor:
            """The heads of W_O as if key/value heads took turns."""
            order = [
                h for first in range(plain.n_groups) for h in range(first, plain.n_heads, plain.n_groups)
            ]
            return plain.W_O(layer)[order]

        def values(layer: int, interleaved: bool, run: _Run = run) -> Tensor:
            """z from the pattern and the values, with the query heads given to key/value heads in one of two ways."""
            v, repeats = run.seen["v", layer], run.plain.n_heads // run.plain.n_groups
            v = v.repeat(1, 1, repeats, 1) if interleaved else v
            return torch.einsum("bhqk,bkhd->bqhd", run.seen["pattern", layer], v)

        right = rows()
        batch = right.shape[-1]
        groups = right.unflatten(1, (n_groups, -1)).sum(2)
        repeated = [
            run.seen["v", layer].repeat_interleave(n_heads // n_groups, dim=2) for layer in run.layers
        ]
        own_values = rows(z=repeated.__getitem__)
        one_row = right.flatten(0, 1)
        mistakes: dict[str, Any] = {
            "The final RMSNorm's scale is left out; divide by `ln_final.hook_scale` at this position of this row.": rows(
                scale=torch.ones(batch, 1).double()
            ),
            "Each head's output is divided by its own scale; divide all by the scale of the model's own final residual "
            "stream.": rows(own_scale=True),
            "The scale is averaged over the batch; each row has its own.": rows(
                scale=run.scale[:, position].mean(0, keepdim=True).expand(batch, 1)
            ),
            "The scale is that of the last position; take that of `position`.": rows(scale=run.scale[:, -1]),
            "Everything is taken at the last position; take `position`.": rows(at=-1),
            "The position is one too late.": rows(at=position + 1),
            "The position is one too early.": rows(at=position - 1),
            "b_O is shared out among the heads; leave it out.": rows(bias=1 / n_heads),
            "b_O is added to every head; leave it out.": rows(bias=1.0),
            "The sign is turned round: logit(right) minus logit(wrong).": -right,
            "The heads that share a key/value head are added up; give each *query* head its own row: W_O has one matrix "
            "each.": groups,
            "The heads of a layer are added up; give each its own row.": right.sum(1),
            "W_O is cut the wrong way: its rows belong to head 0 first, all d_head of them, then to head 1.": rows(
                W_O=mixed
            ),
            "The values at `position` themselves are sent through W_O; take z, the values weighted by the attention.": (
                own_values
            ),
            "Layer and head are one axis; keep them apart: (layer, head, batch).": one_row,
            "The axes are (head, layer, batch); return (layer, head, batch).": right.transpose(0, 1),
            "The axes are (batch, layer, head); return (layer, head, batch).": right.permute(2, 0, 1),
            "This is the mean over the batch; keep each row.": right.mean(-1),
            "This is the sum over the batch; keep each row.": right.sum(-1),
        }
        if 1 < n_groups < n_heads:
            mistakes[
                "The query heads are given to the key/value heads in turns (head % n); the first n_heads / n of them "
                "read key/value head 0, the next head 1, and so on."
            ] = rows(z=partial(values, interleaved=True))
            mistakes[
                "W_O's heads are reordered as if key/value heads took turns; take them as they come."
            ] = rows(W_O=shuffled)
        cases.append(
            Case(
                name,
                (MODELS[model], *arguments),
                right,
                axes=("layer", "head", "batch"),
                atol=2e-4,
                mistakes=mistakes,
            )
        )
    return cases


head_attribution = Check(
    "head_attribution",
    "What each head adds",
    core=False,
    cases=_head_attribution_cases,
    reference=_head_attribution,
)

sum_or_mean = Question(
    "sum_or_mean",
    "Find the bug: 2.746 or 0.229?",
    core=False,
    options={
        "a": (
            "the normalisation is missing in the second figure",
            "the scale is divided by there, and without it the quotient would differ from prompt to prompt. What is 2.746 / "
            "0.229, and how many answer tokens does each prompt have?",
        ),
        "b": (
            "the one is a mean over twelve answer tokens, the other their sum",
            "the einsum sums over the answer axis and divides by the number of prompts only; 2.746 / 12 is 0.229. "
            "Attributions have to add up to the number that they split, and nothing asserted it.",
        ),
        "c": (
            "rounding: the second way sums many small terms",
            "float32 keeps about seven digits; rounding does not make a number twelve times as large.",
        ),
        "d": (
            "the BOS token is missing in one of the two runs",
            "both figures come from the same run, its logits and its cache.",
        ),
    },
    answer="b",
)
