"""The one training loop, for every challenge.

A challenge's `task` module is the protocol: it says what the model is (`CONFIG`), how it is trained
(`TRAINING`), and what the data, the loss and the right answers are. `run_training` does the rest: train,
measure on data that training never saw, write weights and card.
"""

import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor
from tqdm.auto import tqdm

from exercises_utils.models.architecture import ModelConfig, PlainTransformer
from exercises_utils.models.cards import Card
from exercises_utils.models.checkpoints import require_free, save_checkpoint
from exercises_utils.models.sources import checkpoints_folder

DATA_SEED = 3_000_000_000
"""Training draws its data from DATA_SEED + the run's seed: small seeds stay fresh for lessons and tests."""
EVALUATION_SEED = 2_000_000_000
"""Cards measure on data drawn from this seed, the same for every instance. Nothing is trained on it."""
EVALUATION_SIZE = 10_000
LOG_EVERY = 50


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained; `why` says, for the card, why so.

    `weight_decay` is L2 (added to the gradient, so Adam rescales it) for "adam", and decoupled (it shrinks
    the weights directly) for "adamw": the two give different models. `lr_final` makes the learning rate fall
    linearly from `lr` over all steps. `dataset_size` draws that many examples once and goes through them in
    a new random order each epoch; None draws fresh examples for every step.
    """

    lr: float
    steps: int
    batch_size: int
    why: str
    optimizer: str = "adam"
    lr_final: float | None = None
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    dataset_size: int | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(
                f"steps and batch_size must be at least 1; got {self.steps} and {self.batch_size}."
            )
        if self.optimizer not in ("adam", "adamw"):
            raise ValueError(f'optimizer must be "adam" or "adamw"; got {self.optimizer!r}.')
        if self.dataset_size is not None and self.dataset_size < self.batch_size:
            raise ValueError(
                f"dataset_size is {self.dataset_size}, less than one batch of {self.batch_size}."
            )


@runtime_checkable
class Task(Protocol):
    """What a challenge's `task` module offers."""

    CHALLENGE: str
    CONFIG: ModelConfig
    TRAINING: TrainingConfig
    DATA: str

    def sample(self, size: int, seed: int | Generator) -> Any:
        """`size` fresh examples: a frozen dataclass of tensors, batch first, with `tokens` and `labels`."""

    def loss(self, logits: Tensor, data: Any) -> Tensor:
        """The loss to minimise, a scalar in nats."""

    def correct(self, logits: Tensor, data: Any) -> Tensor:
        """Which answers are right."""

    def hard_slices(self, logits_fn: Callable[[Tensor], Tensor], seed: int) -> dict[str, dict[str, Any]]:
        """How good the model is where it is weak, for the card."""


@dataclass(frozen=True)
class Progress:
    """The loss and the accuracy on the batch of one step, before that step's update."""

    step: int
    loss: float
    accuracy: float


def as_generator(seed: int | Generator) -> Generator:
    """A generator on the CPU, so that data is the same on every device; a given one comes back."""
    return seed if isinstance(seed, Generator) else Generator().manual_seed(seed)


def train(task: Task, seed: int, *, quiet: bool = False) -> tuple[dict[str, Tensor], list[Progress]]:
    """The trained weights and how training went.

    The same seed gives the same weights on the same machine with the same number of threads (sums in another
    order round differently; the shipped weights were trained with `OMP_NUM_THREADS=1`).

    Runs on the CPU, with a progress bar unless `quiet`; leaves the global random state alone.
    """
    settings = task.TRAINING
    model = PlainTransformer(task.CONFIG, seed)
    optimizer_class = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
    optimizer = optimizer_class(
        model.parameters(), lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay
    )
    final = settings.lr if settings.lr_final is None else settings.lr_final
    schedule = torch.optim.lr_scheduler.LinearLR(
        optimizer, 1.0, final / settings.lr, total_iters=settings.steps
    )
    next_batch = _batches(task, as_generator(DATA_SEED + seed))
    history = []
    bar = tqdm(range(settings.steps), desc=f"{task.CHALLENGE} seed {seed}", disable=quiet, unit="step")
    for step in bar:
        data = next_batch()
        logits = model(data.tokens)
        loss = task.loss(logits, data)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % LOG_EVERY == 0 or step == settings.steps - 1:
            now = Progress(step, loss.item(), task.correct(logits.detach(), data).double().mean().item())
            history.append(now)
            bar.set_postfix(loss=f"{now.loss:.4f}", accuracy=f"{now.accuracy:.4f}")
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}, history


def evaluate(task: Task, state_dict: Mapping[str, Tensor], size: int = EVALUATION_SIZE) -> dict[str, Any]:
    """The accuracy on `size` fresh examples, as {"value", "n", "seed"} for the card."""
    data = task.sample(size, EVALUATION_SEED)
    right = task.correct(logits_function(task, state_dict)(data.tokens), data)
    return {"value": round(right.double().mean().item(), 6), "n": size, "seed": EVALUATION_SEED}


def logits_function(task: Task, state_dict: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """The function from tokens to logits that these weights are."""
    model = PlainTransformer(task.CONFIG)
    model.load_state_dict(state_dict)
    model.eval()

    @torch.no_grad()
    def logits(tokens: Tensor) -> Tensor:
        return torch.cat([model(part) for part in tokens.split(2000)])

    return logits


def draw_where(
    keep: Callable[[Int[Tensor, "batch position"]], Bool[Tensor, " batch"]],
    draw: Callable[[int], Int[Tensor, "batch position"]],
    size: int,
    *,
    at_once: int = 20_000,
) -> Int[Tensor, "size position"]:
    """`size` rows, drawn with `draw(at_once)` again and again, of which those stay for which `keep` is true.

    So they are distributed as `draw` gives them, under the condition. Raises ValueError for a size below 1,
    and if a million rows are drawn without one that stays.
    """
    if size < 1:
        raise ValueError(f"size is {size}; expected at least 1.")
    kept: list[Tensor] = []
    found = drawn = 0
    while found < size:
        rows = draw(at_once)
        rows = rows[keep(rows)]
        kept.append(rows)
        found, drawn = found + len(rows), drawn + at_once
        if not found and drawn >= 1_000_000:
            raise ValueError("none of a million rows meets the condition; is it too narrow?")
    return torch.cat(kept)[:size]


def slice_on_card(right: Bool[Tensor, "batch answer"], definition: str, seed: int) -> dict[str, Any]:
    """What a card says of one slice: accuracy of whole examples, and by answer position (shares from 0 to 1)."""
    return {
        "definition": f"{definition}; accuracy counts examples that are right at every answer position",
        "seed": seed,
        "n": len(right),
        "accuracy": round(right.all(dim=-1).double().mean().item(), 6),
        "accuracy_by_position": [round(value, 6) for value in right.double().mean(dim=0).tolist()],
    }


def run_training(
    task: Task, seed: int, out: str | Path | None = None, force: bool = False, *, quiet: bool = False
) -> Card:
    """Train, measure on fresh data, write weights and card; the card comes back.

    `out` is the path of the `.safetensors` file to write; None means the challenge's own folder, where it
    becomes the instance `seed<seed>`. Raises CheckpointExistsError before any training if something is there
    and `force` is False. Files appear whole, at the end, or not at all.
    """
    out = checkpoints_folder() / task.CHALLENGE / f"seed{seed}.safetensors" if out is None else Path(out)
    require_free(out, force)
    state_dict, history = train(task, seed, quiet=quiet)
    card = Card(
        challenge=task.CHALLENGE,
        instance=out.stem,
        config=task.CONFIG,
        training={**asdict(task.TRAINING), "final_loss": round(history[-1].loss, 6)},
        data=task.DATA,
        seed=seed,
        versions={
            "python": platform.python_version(),
            **{package: version(package) for package in ("mechinterp-exercises", "torch", "safetensors")},
        },
        accuracy=evaluate(task, state_dict),
        hard_slices=task.hard_slices(logits_function(task, state_dict), EVALUATION_SEED + 1),
    )
    return save_checkpoint(state_dict, card, out, force=force)


def _batches(task: Task, generator: Generator) -> Callable[[], Any]:
    batch_size, dataset_size = task.TRAINING.batch_size, task.TRAINING.dataset_size
    if dataset_size is None:
        return lambda: task.sample(batch_size, generator)
    data, order = task.sample(dataset_size, generator), torch.empty(0, dtype=torch.long)

    def next_batch() -> Any:
        nonlocal order
        if len(order) < batch_size:  # the incomplete batch at an epoch's end is left out
            order = torch.randperm(dataset_size, generator=generator)
        chosen, order = order[:batch_size], order[batch_size:]
        return replace(data, **{field.name: getattr(data, field.name)[chosen] for field in fields(data)})

    return next_batch
