"""The sources of models by name: what is shipped, what lies at a path, what a write-up published, what is on the hub.

A name goes one way. `find` says which source it means, the source fetches and reads the weights and their card, and
`loading` builds the model from these.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from exercises_utils.models.cards import (
    DEFAULT_VARIANT,
    WEIGHTS,
    UnknownChallengeError,
    UnknownInstanceError,
    card_path,
)
from exercises_utils.models.checkpoints import Source, Stored
from exercises_utils.models.hub import OnHub
from exercises_utils.models.published import INSTANCE, Published


def checkpoints_folder() -> Path:
    """The folder of checkpoints, one per challenge: the repository's, or an installed package's."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_checkpoints"
    return installed if installed.is_dir() else package.parent / "checkpoints"


def available_instances(challenge: str) -> list[str]:
    """The names of the instances stored for a challenge, `seed2` before `seed10`. Empty if there are none."""
    folder = checkpoints_folder() / challenge
    names = [path.stem for path in folder.glob("*.safetensors")]
    names += [path.parent.name for path in folder.glob(f"*/{WEIGHTS}")]
    return sorted(
        names, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
    )


def lesson_instances(challenge: str) -> list[str]:
    """The instances that the challenge's lesson holds on: all but the models that it is only compared with."""
    cards = checkpoints_folder() / challenge
    return [
        name
        for name in available_instances(challenge)
        if _values(cards / f"{name}.json").get("variant", DEFAULT_VARIANT) == DEFAULT_VARIANT
    ]


def hub_addresses(challenge: str) -> dict[str, Path]:
    """The models of a challenge that are on the hub, not here: their names, and the files with their addresses."""
    cards = sorted((checkpoints_folder() / challenge).glob("*.json"))
    return {path.stem: path for path in cards if _values(path).get("kind") == "hub"}


def find(challenge: str, instance: str | Path) -> Source:
    """The source that an instance names: a shipped one, "published", one on the hub, or the path of a file or folder.

    Raises UnknownChallengeError or UnknownInstanceError, which say what there is.
    """
    folder, on_hub = checkpoints_folder() / challenge, hub_addresses(challenge)
    if str(instance) in on_hub:
        return OnHub.at(on_hub[str(instance)])
    by_path = isinstance(instance, Path) or "/" in instance or os.sep in instance
    if str(instance).endswith(".safetensors") or (by_path and Path(instance).is_dir()):
        path = Path(instance)
        known = on_hub and path.is_dir() and not card_path(path).exists()
        return OnHub.in_folder(path, list(on_hub.values())) if known else Stored(path, challenge)
    there = sorted(path.name for path in checkpoints_folder().glob("*") if path.is_dir())
    if challenge not in there:
        raise UnknownChallengeError(f"There is no challenge {challenge!r}. Challenges: {', '.join(there)}.")
    if instance == INSTANCE:
        return Published.at(folder / f"{INSTANCE}.json")
    if instance not in available_instances(challenge):
        raise _unknown(challenge, instance)
    path = folder / f"{instance}.safetensors"
    return Stored(path if path.is_file() else path.with_suffix(""), challenge)


def checkpoint_path(challenge: str, instance: str | Path) -> Path:
    """Where an instance's weights are, with a card: a `.safetensors` file, or a model's folder.

    `instance` is a name, or already the path of one of these. The name "published" is that of the write-up's own
    model, which is fetched the first time it is asked for.
    """
    source = find(challenge, instance)
    if isinstance(source, OnHub):
        raise _unknown(challenge, instance)
    return source.fetch()


def _unknown(challenge: str, instance: str | Path) -> UnknownInstanceError:
    instances = ", ".join(available_instances(challenge)) or "none"
    fetched = [f'"{name}" from the hub (`load_model` only)' for name in hub_addresses(challenge)]
    others = ", ".join(fetched) or f'"{INSTANCE}"'
    return UnknownInstanceError(
        f"{challenge} has no instance {str(instance)!r}. Instances: {instances}; "
        f"or {others}, or the path of a .safetensors file or of a model's folder."
    )


def _values(path: Path) -> dict[str, Any]:
    """What a card or an address says; nothing where it is damaged: whoever loads its weights hears of that."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
