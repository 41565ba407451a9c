"""The arrows between the modules point one way, and nothing names the machine it was written on."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "exercises_utils"
CHALLENGES = {path.parent.name for path in PACKAGE.glob("challenges/*/task.py")}
MAY_IMPORT: dict[str, set[str]] = {
    "tools": set(),
    "plotting": set(),
    "checking": set(),
    "models": {"tools"},
    "evidence": {"tools", "checking", "models"},
    "lessons": {"tools", "plotting", "checking", "models", "evidence"},
    "challenges": {"tools", "plotting", "checking", "models", "evidence"},
    "cli": {"tools", "plotting", "checking", "models", "evidence", "lessons"},
}
"""The rooms, and which others each may import from. A room's `__init__` is its front door."""
FROM_THE_TOP = {
    "available_instances": "models",
    "build_model": "models",
    "load_model": "models",
    "DEFAULT_INSTANCE": "models",
    "circuits": "tools",
    "hooks": "tools",
    "patching": "tools",
}
"""What the package itself offers, and the room that it is in."""
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(source: str, package: str) -> set[str]:
    """The dotted names that a module imports, lazily or not; `package` is where it lives."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            )
            module = ".".join(filter(None, [base, node.module]))
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def room_of(name: str) -> str:
    """The room that a dotted name is in; "" for what is outside, or is the package itself."""
    first = (name.split(".") + [""])[1] if name.startswith("exercises_utils") else ""
    return FROM_THE_TOP.get(first, first if first in MAY_IMPORT else "")


def rooms(source: str, package: str = "exercises_utils") -> set[str]:
    """The rooms that a module imports from."""
    return {room_of(name) for name in imports(source, package)} - {""}


def challenges(source: str, package: str = "exercises_utils") -> set[str]:
    """The challenges that a module imports."""
    parts = [name.split(".") for name in imports(source, package)]
    return {p[2] for p in parts if p[:2] == ["exercises_utils", "challenges"] and len(p) > 2} & CHALLENGES


def problems(path: Path) -> list[str]:
    source, relative = path.read_text(encoding="utf-8"), path.relative_to(PACKAGE)
    package = ".".join(["exercises_utils", *relative.parts[:-1]])
    room = relative.with_suffix("").parts[0]
    if room == "__init__":
        return []
    found = [f"imports from the room {name}" for name in rooms(source, package) - MAY_IMPORT[room] - {room}]
    own = {relative.parts[1]} if room == "challenges" else set()
    found += [f"imports the challenge {name}" for name in challenges(source, package) - own]
    if room in ("checking", "plotting") and any(
        "transformer_lens" in name for name in imports(source, package)
    ):
        found.append("knows models")
    if any(name.split(".")[0] in ("tests", "tools", "solutions") for name in imports(source, package)):
        found.append("imports what is not in the package")
    # Only the one place that finds a challenge by its name may import by name.
    if "import_module" in source and path.stem != "cli":
        found.append("imports a module by a computed name")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_one_way(path):
    assert problems(path) == []


def test_every_module_is_in_a_room():
    top = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in MODULES} - {"__init__"}
    assert top == set(MAY_IMPORT)


@pytest.mark.parametrize(
    "source",
    [
        "from exercises_utils.challenges.palindromes import task",
        "import exercises_utils.challenges.palindromes.task",
        "from exercises_utils.challenges import palindromes",
        "def late():\n    from exercises_utils.challenges.palindromes.checks import CHECKS",
        "from .challenges.palindromes import task",
        "from .challenges import palindromes",
    ],
)
def test_the_arrow_test_sees_every_way_to_import(source):
    assert challenges(source) == {"palindromes"}
    assert rooms(source) == {"challenges"}


@pytest.mark.parametrize(
    "source",
    [
        "from exercises_utils import load_model",
        "from exercises_utils import models",
        "import exercises_utils.models",
        "from exercises_utils.models import load_model",
        "from exercises_utils.models.checkpoints import Card",
        "def late():\n    from .models.hub import load_hub",
    ],
)
def test_the_arrow_test_sees_rooms(source):
    assert rooms(source) == {"models"}


def test_a_challenge_is_one_folder():
    for challenge in CHALLENGES:
        assert (PACKAGE / "challenges" / challenge / "checks.py").exists(), challenge
        assert list((ROOT / "solutions").glob(f"[0-9][0-9]_{challenge}.py")), challenge


@pytest.fixture(scope="module")
def tracked():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not in a git repository")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and path.suffix not in (".safetensors", ".png", ".pt")]


MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(?:home|root|Users|work|tmp|opt|mnt|private)/[\w.-]+")


def test_no_file_names_a_machine(tracked):
    assert len(tracked) > 20
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked
        for match in MACHINE_PATH.finditer(path.read_text(encoding="utf-8"))
        if path != Path(__file__)
    ]
    assert found == []


@pytest.mark.parametrize("text", ["open('/home/ada/x')", "path: /mnt/x", '"/Users/ada"'])
def test_a_machine_path_is_seen(text):
    assert MACHINE_PATH.search(text)


@pytest.mark.parametrize("text", ["notebooks/home/x", "https://a.org/home/x", "~/home/x", "a / home / b"])
def test_other_paths_are_not(text):
    assert not MACHINE_PATH.search(text)


def test_the_public_address_stands_in_one_place(tracked):
    metadata = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    address = re.search(r'^Repository = "(.*)"$', metadata, re.MULTILINE)[1]
    # Generated files may repeat it; sources may not.
    sources = [
        path for path in tracked if path.suffix in (".py", ".md", ".yml", "") or path.name == "Makefile"
    ]
    assert [path.name for path in sources if address in path.read_text(encoding="utf-8")] == []
