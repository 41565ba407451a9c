"""The arrows between the modules point one way, and nothing names the machine it was written on."""

import ast
import re
import subprocess
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "exercises_utils"
CHALLENGES = {path.parent.name for path in PACKAGE.glob("challenges/*/task.py")}
ORDER = ("tools", "plotting", "models", "checking", "evidence", "challenges", "lessons", "cli")
"""The rooms. Each may import from those before it; but only a challenge, and the tests, know a challenge."""
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}


def imports(source: str, package: str) -> set[str]:
    """The dotted names that a module imports, lazily or not; `package` is where it lives."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def offered(package: Path) -> dict[str, str]:
    """What a front door offers (the package's, or a room's), and where each name comes from."""
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.name: f"{node.module}.{alias.name}" for node in nodes for alias in node.names}


DOORS = {
    ".".join(path.parent.relative_to(ROOT).parts): offered(path.parent)
    for path in PACKAGE.rglob("__init__.py")
}


def reached(name: str) -> set[str]:
    """The modules of the package that an import of a dotted name means; a front door stands for what it offers."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        prefix, rest = ".".join(parts[:n]), parts[n:]
        if prefix in MODULES:
            return {prefix}
        if prefix in DOORS and rest and rest != ["*"]:
            return reached(DOORS[prefix][rest[0]]) if rest[0] in DOORS[prefix] else set()
        if prefix in DOORS:
            return {prefix}.union(*(reached(home) for home in DOORS[prefix].values()))
    return set()


def arrows(source: str, package: str = "exercises_utils") -> set[str]:
    """The modules of the package that a module imports."""
    return set().union(*(reached(name) for name in imports(source, package)))


def read(module: str) -> tuple[str, str]:
    """A module's source, and the package that it is in."""
    return MODULES[module].read_text(encoding="utf-8"), module.rpartition(".")[0]


def rooms(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if "." in name}


def challenges(names: set[str]) -> set[str]:
    return {part for name in names for part in name.split(".")[2:3]} & CHALLENGES


def problems(module: str) -> list[str]:
    source, package = read(module)
    room, to = module.split(".")[1], arrows(source, package)
    before = ORDER[: ORDER.index(room) + 1]
    found = [f"imports from the room {name}" for name in sorted(rooms(to) - set(before))]
    own = challenges({module})
    found += [f"imports the challenge {name}" for name in sorted(challenges(to) - own)]
    outside = {name.split(".")[0] for name in imports(source, package)}
    if outside & {"tests", "tools", "solutions"}:
        found.append("imports what is not in the package")
    if room in ("checking", "plotting") and "transformer_lens" in outside:
        found.append("knows models")
    # Only the one place that finds a challenge by its name may import by name.
    if "import_module" in source and room != "cli":
        found.append("imports a module by a computed name")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_arrows_point_one_way(module):
    assert problems(module) == []


@pytest.mark.parametrize("door", [door for door in DOORS if DOORS[door]])
def test_a_front_door_has_what_it_says(door):
    """A lazy one says it twice: to the type checker, and to Python."""
    assert [name for name in DOORS[door] if not hasattr(import_module(door), name)] == []


def test_no_imports_go_in_a_circle():
    graph = {module: arrows(*read(module)) - {module} for module in MODULES}
    assert sum(map(len, graph.values())) > 200
    TopologicalSorter(graph).prepare()  # raises CycleError, with the circle


def test_the_rooms_are_few_and_each_is_in_the_order():
    assert {module.split(".")[1] for module in MODULES} == set(ORDER)
    assert len(ORDER) <= 8
    assert {path.name for path in PACKAGE.glob("*/")} - {"__pycache__", "_checkpoints"} <= set(ORDER)


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
    assert challenges(arrows(source)) == {"palindromes"}
    assert rooms(arrows(source)) == {"challenges"}


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("from exercises_utils import load_model", {"models.loading"}),
        ("from exercises_utils.models import load_model, Card", {"models.loading", "models.cards"}),
        ("from exercises_utils.models.cards import Card", {"models.cards"}),
        ("def late():\n    from .models import hub", {"models.hub"}),
        ("from exercises_utils import circuits", {"tools.circuits"}),
        ("from exercises_utils.models import nothing", set()),
    ],
)
def test_the_arrow_test_sees_through_front_doors(source, modules):
    assert arrows(source) == {f"exercises_utils.{module}" for module in modules}


@pytest.mark.parametrize("source", ["import exercises_utils.models", "from exercises_utils import models"])
def test_a_whole_room_is_all_that_it_offers(source):
    assert arrows(source) >= {f"exercises_utils.models.{name}" for name in ("loading", "sources", "training")}


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
