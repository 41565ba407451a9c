"""The arrows between the modules point one way, and nothing names the machine it was written on."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "exercises_utils"
CHALLENGES = {path.parent.name for path in PACKAGE.glob("*/task.py")}
MODULES = sorted(PACKAGE.rglob("*.py"))
# These know nothing of models: they get tensors and values.
MODEL_FREE = {"checking", "diagnosis", "display", "isolation", "plotting", "progress", "values", "widgets"}
MODELS = {
    "transformer_lens",
    *(
        f"exercises_utils.{name}"
        for name in (
            "architecture",
            "checkpoints",
            "circuits",
            "comparison",
            "evidence",
            "evidence_checks",
            "evidence_files",
            "figures",
            "hooks",
            "hub",
            "huggingface",
            "models",
            "pools",
            "published",
            "slices",
            "training",
        )
    ),
}


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


def challenge_imports(source: str, package: str = "exercises_utils") -> set[str]:
    """The challenges that a module imports."""
    parts = [name.split(".") for name in imports(source, package)]
    return {p[1] for p in parts if p[0] == "exercises_utils" and len(p) > 1} & CHALLENGES


def model_imports(source: str, package: str = "exercises_utils") -> set[str]:
    """What a module imports of `MODELS`, or from within them."""
    return {
        name
        for name in imports(source, package)
        if any(name == model or name.startswith(f"{model}.") for model in MODELS)
    }


def problems(path: Path) -> list[str]:
    source, relative = path.read_text(encoding="utf-8"), path.relative_to(PACKAGE)
    package = ".".join(["exercises_utils", *relative.parts[:-1]])
    own = {relative.parts[0]} & CHALLENGES
    found = [f"imports the challenge {name}" for name in challenge_imports(source, package) - own]
    if path.stem in MODEL_FREE and not own:
        found += [f"imports {name}" for name in model_imports(source, package)]
    if any(name.split(".")[0] in ("tests", "tools", "solutions") for name in imports(source, package)):
        found.append("imports what is not in the package")
    # Only the one place that finds a challenge by its name may import by name.
    if "import_module" in source and path.stem not in ("cli", "__init__"):
        found.append("imports a module by a computed name")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_one_way(path):
    assert problems(path) == []


@pytest.mark.parametrize(
    "source",
    [
        "from exercises_utils.palindromes import task",
        "import exercises_utils.palindromes.task",
        "from exercises_utils import palindromes",
        "def late():\n    from exercises_utils.palindromes.checks import CHECKS",
        "from .palindromes import task",
        "from . import palindromes",
    ],
)
def test_the_arrow_test_sees_every_way_to_import(source):
    assert challenge_imports(source) == {"palindromes"}


@pytest.mark.parametrize(
    "source",
    [
        "import transformer_lens",
        "from transformer_lens.hook_points import HookPoint",
        "from exercises_utils.evidence import Pool",
        "from exercises_utils import models",
        "def late():\n    from .hooks import ablate",
    ],
)
def test_the_arrow_test_sees_what_knows_models(source):
    assert model_imports(source)


def test_the_modules_that_know_no_models_exist():
    assert {path.stem for path in PACKAGE.glob("*.py")} >= MODEL_FREE | {
        name.split(".")[-1] for name in MODELS
    } - {"transformer_lens"}


def test_a_challenge_is_one_folder():
    for challenge in CHALLENGES:
        assert (PACKAGE / challenge / "checks.py").exists(), challenge
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
