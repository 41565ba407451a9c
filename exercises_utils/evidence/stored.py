"""What is the same for everyone who checks evidence on one model: computed once, stored beside the weights.

`evidence/seed0.safetensors` beside `seed0.safetensors`, or beside the folder `seed0`, holds the pool of hard inputs, and
what random circuits of every size are worth. Its card, `evidence/seed0.json`, says how both came about and of which
weights.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Generator, Tensor

from exercises_utils.evidence.pools import EvidenceTask, NoMistakesError, build_pool
from exercises_utils.evidence.scores import SEQUENCES_A_PASS, CircuitScorer, Pool, Site, random_circuits
from exercises_utils.models import published
from exercises_utils.models.cards import CheckpointError, card_path
from exercises_utils.models.checkpoints import load_checkpoint
from exercises_utils.models.files import write_whole
from exercises_utils.models.loading import model_and_card
from exercises_utils.models.sources import checkpoints_folder

FORMAT_VERSION = 1
N_CIRCUITS = 1000
N_CIRCUIT_INPUTS = 128
LARGEST_CIRCUIT = 24
"""The last two are for a task that names none of its own. A task whose model is slow may also name `CIRCUIT_SIZES`, the
sizes of the random circuits that are stored, and `N_DRAWS`, how many inputs are drawn for the pool."""
SEED = 0


class EvidenceFileError(CheckpointError):
    """The evidence beside a checkpoint is missing, damaged, or of other weights."""


@dataclass(frozen=True, eq=False)
class RandomCircuits:
    """What random circuits with positions are worth, for every size up to a largest one, or for some of these sizes."""

    tokens: Int[Tensor, "input position"]  # score a circuit on these to compare it with the random ones
    sites: tuple[Site, ...]  # what the circuits were drawn from
    table: Float[Tensor, "circuit size"]  # `CircuitScorer.values` of the circuits of each of `sizes`
    sizes: tuple[int, ...]

    def values(self, size: int) -> Float[Tensor, " circuit"] | None:
        """The metric of each random circuit of `size` sites, or None for sizes that were not computed."""
        return self.table[:, self.sizes.index(size)].double() if size in self.sizes else None


@dataclass(frozen=True)
class EvidenceCard:
    """What an evidence file is and how it came about; stored as JSON beside it."""

    challenge: str
    instance: str
    weights_sha256: str
    pool: str
    kinds: list[str]
    n_answers: int
    circuits: str
    seed: int
    sha256: str
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that is stored for one model."""

    pool: Pool
    circuits: RandomCircuits | None  # None where the task has no `SITES`
    card: EvidenceCard


def accuracy(task: EvidenceTask, tokens: Int[Tensor, "input position"]) -> Callable[[Tensor], float]:
    """The metric of the stored circuits: from the logits for `tokens` to the share of right answers."""
    right = task.right_answers(tokens)
    return lambda logits: float((task.answers(logits).cpu() == right.cpu()).double().mean())


def evidence_path(weights: Path) -> Path:
    """Where the evidence for a weights file, or for a model's folder, is: beside it, in `evidence`.

    That of a published model is shipped (inputs and scores are ours; only the weights are fetched), and is where the
    challenge's other evidence is.
    """
    folder, name = weights.parent, card_path(weights).stem
    if name == published.INSTANCE and folder == published.cache_folder() / folder.name:
        folder = checkpoints_folder() / folder.name
    return folder / "evidence" / f"{name}.safetensors"


def write_evidence(
    task: EvidenceTask, weights: Path, progress: Callable[[Any], Any] = iter, *, force: bool = False
) -> EvidenceCard:
    """The card of the evidence written for a weights file: its pool, and its random circuits.

    Takes a minute or two, nearly all for the circuits. `progress` wraps the loop over sizes, such as `tqdm`. A task
    without `SITES`, whose circuits have no positions, gets no random circuits.

    Raises:
        CheckpointError: the weights cannot be loaded.
        EvidenceFileError: there is evidence already and `force` is False, or the model makes no mistake that
            a pool could hold.
    """
    path = evidence_path(weights)
    taken = [str(file) for file in (path, card_path(path)) if file.exists()]
    if taken and not force:
        raise EvidenceFileError(f"{' and '.join(taken)} would be overwritten. Overwrite with --force.")
    model, card = model_and_card(weights)

    def logits_of(tokens: Tensor) -> Tensor:
        parts = tokens.split(SEQUENCES_A_PASS)
        return torch.cat([model(some.to(model.W_E.device)).cpu() for some in parts])

    try:
        fewer = {"draws": task.N_DRAWS} if hasattr(task, "N_DRAWS") else {}
        pool = build_pool(logits_of, task, seed=SEED, **fewer)
    except NoMistakesError as error:
        raise EvidenceFileError(
            f"No evidence can be made for {weights}: {error}. Train a model with another seed."
        ) from error
    circuits, how = _random_circuits(model, task, progress)
    content = save(
        {
            "pool.tokens": _small(pool.tokens),
            "pool.right_answers": _small(pool.right_answers),
            "pool.model_answers": _small(pool.model_answers),
            "pool.kinds": _small(pool.kinds),
            **circuits,
        }
    )
    evidence_card = EvidenceCard(
        challenge=card.challenge,
        instance=card_path(weights).stem,
        weights_sha256=card.identity,
        pool=pool.how,
        kinds=list(pool.kind_names),
        n_answers=pool.n_answers,
        circuits=how,
        seed=SEED,
        sha256=hashlib.sha256(content).hexdigest(),
    )
    path.parent.mkdir(exist_ok=True)
    card_text = json.dumps(asdict(evidence_card), indent=2, ensure_ascii=False) + "\n"
    # The card comes last: until it is there, nothing loads the file.
    write_whole(path, content)
    write_whole(card_path(path), card_text.encode())
    return evidence_card


def _random_circuits(
    model: Any, task: EvidenceTask, progress: Callable[[Any], Any]
) -> tuple[dict[str, Tensor], str]:
    """What random circuits of every size are worth, as it is stored, and how that came about."""
    if not task.SITES:
        return (
            {},
            "None: the circuits of this challenge have no positions, and are ranked among all of their size.",
        )
    n_inputs = getattr(task, "N_CIRCUIT_INPUTS", N_CIRCUIT_INPUTS)
    tokens = task.typical_inputs(n_inputs, Generator().manual_seed(SEED))
    scorer = CircuitScorer(model, tokens, accuracy(task, tokens), chance=task.CHANCE)
    sites = sorted(task.SITES)
    largest = getattr(task, "LARGEST_CIRCUIT", LARGEST_CIRCUIT)
    every = tuple(range(1, min(largest, len(sites)) + 1))
    sizes = tuple(getattr(task, "CIRCUIT_SIZES", every))
    columns = [scorer.values(random_circuits(sites, size, N_CIRCUITS, SEED)) for size in progress(sizes)]
    stored = {
        "circuits.tokens": _small(tokens),
        "circuits.sites": _small(torch.tensor(sites)),
        "circuits.table": torch.stack(columns, dim=1).half(),
    }
    if sizes != every:
        stored["circuits.sizes"] = _small(torch.tensor(sizes))
    which = (
        f"every size from 1 to {len(columns)}" if sizes == every else f"{', '.join(map(str, sizes))} sites"
    )
    return stored, (
        f"Accuracy of {N_CIRCUITS} random circuits of {which}, everything "
        f"else mean-ablated, on {n_inputs} inputs as the model was trained on (seed {SEED})."
    )


def load_evidence(weights: Path) -> Evidence:
    """The evidence stored for a weights file, after every check.

    Raises:
        CheckpointError: the weights cannot be loaded.
        EvidenceFileError: the evidence is missing, damaged, or belongs to other weights.
    """
    _, weights_card = load_checkpoint(weights)
    path = evidence_path(weights)
    shipped = path.parent.parent == checkpoints_folder() / weights_card.challenge
    command = f"exercises evidence {weights_card.challenge} {card_path(weights).stem if shipped else weights}"
    if not path.is_file() or not card_path(path).is_file():
        raise EvidenceFileError(
            f"{weights.name} has no evidence yet: {path} or its card is missing. Make it: `{command}`."
        )
    remedy = f"Restore it from the repository, or make it again: `{command} --force`."
    try:
        values = json.loads(card_path(path).read_text(encoding="utf-8"))
        if values.get("format_version") != FORMAT_VERSION:
            raise EvidenceFileError(
                f"{path} has format version {values.get('format_version')!r}; this package reads "
                f"{FORMAT_VERSION}. {remedy}"
            )
        card = EvidenceCard(**values)
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != card.sha256:
            raise EvidenceFileError(f"{path} is not the file that its card was written for. {remedy}")
        tensors = load(content)
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError, SafetensorError) as error:
        raise EvidenceFileError(f"{path} or its card cannot be read: {error}. {remedy}") from error
    if card.weights_sha256 != weights_card.identity:
        raise EvidenceFileError(f"{path} was made for other weights than {weights}. {remedy}")
    pool = Pool(
        **{
            field.name: tensors[f"pool.{field.name}"].long()
            for field in fields(Pool)
            if f"pool.{field.name}" in tensors
        },
        kind_names=tuple(card.kinds),
        n_answers=card.n_answers,
        how=card.pool,
    )
    circuits = None
    if "circuits.table" in tensors:
        table = tensors["circuits.table"]
        every = torch.arange(1, table.shape[1] + 1)
        circuits = RandomCircuits(
            tokens=tensors["circuits.tokens"].long(),
            sites=tuple(tuple(site) for site in tensors["circuits.sites"].tolist()),
            table=table,
            sizes=tuple(tensors.get("circuits.sizes", every).tolist()),
        )
    return Evidence(pool=pool, circuits=circuits, card=card)


def _small(numbers: Tensor) -> Tensor:
    """Whole numbers in one byte each where they fit, else in four."""
    return numbers.to(torch.uint8 if int(numbers.max()) < 256 else torch.int32).contiguous()
