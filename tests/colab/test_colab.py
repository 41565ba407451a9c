"""Each notebook, unmodified, as Google Colab runs it: `make colab`.

What is simulated: Python 3.13 (where there is one; COLAB_PYTHON names another interpreter), Colab's versions of the
packages that the course touches (`packages.txt`), `google.colab` imported before the first cell, an empty folder, no
pip cache. The course is not installed; the notebook's own setup cell does that, with the real pip and the real
package index. Only the address on GitHub is replaced, by git itself: it leads to a copy of this working tree, with
the tag. If no address is set, the copy gets one first, by the command that a teacher uses.

The environment of Colab is made once, in `.colab/`: some minutes, and some gigabytes where pip has PyTorch with CUDA
only. Each notebook gets a copy of it, by hard links.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell

from exercises_utils.lessons import colab, find_lessons
from exercises_utils.lessons.building import PLOTLY
from exercises_utils.lessons.running import environment

pytestmark = pytest.mark.colab

ROOT = Path(__file__).parent.parent.parent
CACHE = ROOT / ".colab"
PACKAGES = Path(__file__).with_name("packages.txt")
# PyTorch's own index has the build without CUDA, as Colab has it; where it cannot be reached, pip goes on without.
PYTORCH_INDEX = "https://download.pytorch.org/whl/cpu"

# What of Colab's own package the libraries look for.
STAND_IN = {
    "__init__.py": "from google.colab import drive, output, userdata\n",
    "drive.py": "def mount(path, **options):\n    raise RuntimeError('there is no Drive here')\n",
    "output.py": "def enable_custom_widget_manager():\n    pass\n",
    "userdata.py": "def get(key):\n    raise KeyError(key)\n",
}
IMPORTED_ALREADY = "import os\nif 'COLAB_RELEASE_TAG' in os.environ:\n    import google.colab\n"


# The machine


def run(*command, **options):
    """Standard output; what went wrong is in the error."""
    finished = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert finished.returncode == 0, f"{command[:4]}:\n{finished.stdout[-2000:]}{finished.stderr[-3000:]}"
    return finished.stdout


def colab_python():
    """Python 3.13, as Colab has it, or the Python that runs the tests."""
    if asked := os.environ.get("COLAB_PYTHON"):
        return asked
    candidates = [shutil.which("python3.13"), *(Path.home() / ".pyenv" / "versions").glob("3.13*/bin/python")]
    for python in filter(None, candidates):  # a shim of pyenv's may be there without its Python
        if subprocess.run([python, "--version"], capture_output=True).returncode == 0:
            return str(python)
    return sys.executable


@pytest.fixture(scope="session")
def base():
    """An environment with Colab's packages, made once for each list of them."""
    python = colab_python()
    recipe = [run(python, "--version"), PACKAGES.read_text(), json.dumps(STAND_IN), IMPORTED_ALREADY]
    folder = CACHE / hashlib.sha256("\n".join(recipe).encode()).hexdigest()[:12]
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests that run beside these wait, instead of making another
        if not folder.is_dir():
            make_base(python, folder)
    return folder


def make_base(python, folder):
    """Whole or not at all."""
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    run(python, "-m", "venv", unfinished)
    install = [unfinished / "bin" / "python", "-m", "pip", "install", "--quiet"]
    names = [line for line in PACKAGES.read_text().splitlines() if line and not line.startswith("#")]
    # PyTorch brings what its build needs; the others are held together by Colab, not by their own metadata.
    pytorch = [name for name in names if name.startswith("torch")]
    run(*install, "--extra-index-url", PYTORCH_INDEX, *pytorch)
    run(*install, "--no-deps", *(name for name in names if name not in pytorch))
    site = site_packages(unfinished)
    (site / "google" / "colab").mkdir(parents=True)
    for name, text in STAND_IN.items():
        (site / "google" / "colab" / name).write_text(text)
    (site / "sitecustomize.py").write_text(IMPORTED_ALREADY)
    unfinished.rename(folder)


def site_packages(environment):
    return next((environment / "lib").glob("python3*/site-packages"))


def installed(environment):
    """What is installed, as {name: version}."""
    command = [environment / "bin" / "python", "-m", "pip", "list", "--format=json"]
    return {found["name"]: found["version"] for found in json.loads(run(*command))}


# The repository on "GitHub"


@dataclass
class Published:
    """A copy of the working tree, as a repository with its address and its tag."""

    folder: Path
    publication: colab.Publication

    @property
    def redirection(self):
        """What makes git take this folder for the address."""
        return {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.file://{self.folder}.insteadOf",
            "GIT_CONFIG_VALUE_0": self.publication.address,
        }


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("github") / "repository"
    files = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    if not colab.Publication.of(folder).is_set:
        # The command of the copy, which is what it would change.
        command = "from exercises_utils.cli import main; main(['set-repository', 'test-owner/test-course'])"
        run(sys.executable, "-c", command, cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)})
    publication = colab.Publication.of(folder)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    run("git", "init", "--quiet", cwd=folder)
    run("git", "add", "--all", cwd=folder)
    run(*git, "commit", "--quiet", "--message", "as published", cwd=folder)
    run("git", "tag", publication.tag, cwd=folder)
    return Published(folder, publication)


# A session in Colab


@dataclass
class Session:
    """A fresh machine of Colab's: its environment, and the folder that notebooks run in."""

    environment: Path
    content: Path
    home: Path

    def run(self, notebook, **settings):
        """Runs a notebook from its first cell to its last; gives the seconds of each cell by its id."""
        kernels = self.home / "kernels"
        (kernels / "colab").mkdir(parents=True)
        python = str(self.environment / "bin" / "python")
        launch = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": launch, "display_name": "Colab", "language": "python"}
        (kernels / "colab" / "kernel.json").write_text(json.dumps(spec))
        manager = AsyncKernelManager(
            kernel_name="colab", kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(kernels)])
        )
        silent = logging.getLogger("tests.colab")
        silent.setLevel(logging.CRITICAL + 1)
        client = NotebookClient(notebook, km=manager, timeout=900, log=silent)
        client.record_timing = False
        client.resources = {"metadata": {"path": str(self.content)}}
        seconds = {}

        def started(cell, cell_index):
            seconds[cell.id] = -time.monotonic()

        def ended(cell, cell_index, **reply):
            seconds[cell.id] += time.monotonic()

        client.on_cell_start, client.on_cell_executed = started, ended
        output = subprocess.DEVNULL
        client.execute(env=self.settings() | settings, cleanup_kc=True, stdout=output, stderr=output)
        return seconds

    def settings(self):
        """The variables of this machine: nothing of the environment that runs the tests, no cache of pip's."""
        foreign = ("JUPYTER", "PYTHON", "PYTEST", "VIRTUAL_ENV", "XDG_CACHE", "HF_")
        kept = {key: value for key, value in environment().items() if not key.startswith(foreign)}
        # pip's own settings say how it reaches its index.
        user = Path.home() / ".config" / "pip" / "pip.conf"
        if user.is_file():
            kept.setdefault("PIP_CONFIG_FILE", str(user))
        return kept | {
            "COLAB_RELEASE_TAG": "release-colab-simulated",
            "HOME": str(self.home),
            "PATH": f"{self.environment / 'bin'}:{os.environ['PATH']}",
            "PIP_CACHE_DIR": str(self.home / "pip"),
        }


@pytest.fixture(scope="module")
def copy(base):
    """A copy of the environment by hard links, beside it: hard links do not leave a file system."""
    folder = CACHE / f"session-{os.getpid()}"
    folder.mkdir()
    yield folder
    run("rm", "-rf", folder)


@pytest.fixture
def session(base, copy, tmp_path):
    """A fresh machine, in which nothing of the course is installed."""
    restore(copy, base)
    for name in ("content", "home"):
        (tmp_path / name).mkdir()
    return Session(copy, tmp_path / "content", tmp_path / "home")


def restore(copy, base):
    """Makes `copy` what `base` is, file by file; much faster than another copy, when little has changed."""

    def entries(folder):
        found = {}
        for path, folders, files in os.walk(folder):
            for name in folders + files:
                entry = os.path.join(path, name)
                state = os.lstat(entry)
                is_folder = stat.S_ISDIR(state.st_mode)
                found[os.path.relpath(entry, folder)] = (is_folder, None if is_folder else state.st_ino)
        return found

    wanted, there = entries(base), entries(copy)
    foreign = {name for name, state in there.items() if wanted.get(name) != state}
    for name in sorted(foreign, reverse=True):  # what is in a folder, before the folder
        (os.rmdir if there[name][0] else os.unlink)(copy / name)
    for name, (is_folder, _) in wanted.items():  # a folder, before what is in it
        if name in foreign or name not in there:
            if is_folder:
                (copy / name).mkdir()
            else:
                os.link(base / name, copy / name, follow_symlinks=False)


# The tests


def outputs(notebook):
    return [(cell, output) for cell in notebook.cells for output in cell.get("outputs", [])]


def html(output):
    return "".join(output.get("data", {}).get("text/html", ""))


@pytest.mark.parametrize("folder", ["notebooks", "solutions"])
@pytest.mark.parametrize("lesson", find_lessons(ROOT), ids=lambda lesson: lesson.name)
def test_a_notebook_runs_unmodified(lesson, folder, published, session, record_property):
    """From "run all" to the last cell: no error, no restart, and no package that Colab has at another version."""
    notebook = nbformat.read(published.folder / folder / f"{lesson.name}.ipynb", as_version=4)
    sources = [cell.source for cell in notebook.cells]
    before = installed(session.environment)
    strict = {"EXERCISES_STRICT": "1"} if folder == "solutions" else {}
    outcomes = session.home / "outcomes.jsonl"
    begun = time.monotonic()
    seconds = session.run(notebook, EXERCISES_OUTCOMES=str(outcomes), **published.redirection, **strict)
    total = time.monotonic() - begun
    after = installed(session.environment)

    added = sorted(set(after) - set(before))
    changed = {name: (version, after.get(name)) for name, version in before.items()}
    changed = {name: pair for name, pair in changed.items() if pair[0] != pair[1]}
    # Plotly shows its figures in Colab as HTML, each with plotly.js.
    figures = [o for _, o in outputs(notebook) if PLOTLY in o.get("data", {}) or "Plotly.newPlot" in html(o)]
    widgets = [o for _, o in outputs(notebook) if 'class="cv-' in html(o)]
    site = site_packages(session.environment)
    for name, value in {
        "notebook": f"{folder}/{lesson.name}",
        "setup cell, s": f"{seconds[colab.SETUP]:.0f}",
        "in all, s": f"{total:.0f}",
        "figures": str(len(figures)),
        "widgets": str(len(widgets)),
        "added": str(len(added)),
        "changed": ", ".join(changed) or "0",
        "place": f"{site.parent.name}, torch {before['torch']}, plotly {before['plotly']}",
    }.items():
        record_property(name, value)
    assert changed == {}
    assert "mechinterp-exercises" in added
    assert [cell.source for cell in notebook.cells] == sources
    assert {record["status"] for record in map(json.loads, outcomes.read_text().splitlines())} == {
        "notebooks": {"not attempted"},
        "solutions": {"passed"},
    }[folder]
    assert len(figures) >= 5
    assert widgets
    assert all("circuitsVisReady ??=" in html(o) for o in widgets), (
        "in Colab each output is a page of its own"
    )
    assert [output.text for _, output in outputs(notebook) if output.get("name") == "stderr"] == []
    assert list(session.content.iterdir()) == [], "the notebook leaves nothing beside itself"


TOOLS = """
import torch
from exercises_utils import plotting
from exercises_utils.checking import predict, predictions

def ask(text):
    a, b, c = plotting.read_numbers(text, count=3, low=0, high=9)
    return plotting.Reply(
        [str(a), str(b), str(c)], {"yes": 0.7, "no": 0.3}, "yes" if a == c else "no", {"0.0": torch.eye(3)}, {(0, 2): a == c}
    )

game = plotting.play(ask, start="1 2 1", title="Three digits", buttons={"turn round": lambda text: text[::-1]})
game.type("1 2 3")
game.type("1 2")
game.report()
share = predict("share", "How often?", unit="", low=0, high=1)
share(0.5)
share.compare(0.7)
predictions.summary()
Box, Arrow = plotting.drawing.Box, plotting.drawing.Arrow
boxes = {"value": Box("7", "tokens", "a value"), "head": Box("END", "layer 0", "head {who}")}
columns, rows = {"7": "position 7", "END": "END"}, ("tokens", "layer 0")
plan = plotting.drawing.Plan("How it works", columns, rows, boxes, [Arrow("value", "head")])
plotting.drawing.assemble(plan, {"who": (0, 1)}).show()
"""


def test_play_predictions_and_drawings_work_there(published, session):
    """With Colab's own ipywidgets, which is an older one, and IPython; the game is shown as a widget alone."""
    notebook = nbformat.read(find_lessons(published.folder)[0].exercises, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.id == colab.SETUP] + [new_code_cell(TOOLS)]
    session.run(notebook, **published.redirection)
    assert [output.text for _, output in outputs(notebook) if output.get("name") == "stderr"] == []
    shown = [output.data for cell, output in outputs(notebook) if cell.id != colab.SETUP and "data" in output]
    assert "application/vnd.jupyter.widget-view+json" in shown[0]
    assert "image/svg+xml" not in shown[0]
    assert "Your best failure: `1 2 3`." in shown[1]["text/plain"]
    assert "What came: 0.7 (you were 0.2 below)." in shown[3]["text/plain"]
    assert "image/svg+xml" in shown[-1]


def test_a_failure_changes_nothing(published, session):
    """The address leads nowhere: the cell says so, and what is installed stays as it was."""
    lesson = find_lessons(published.folder)[0]
    notebook = nbformat.read(lesson.exercises, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.id == colab.SETUP]
    before = installed(session.environment)
    tag = published.publication.tag
    nowhere = published.redirection | {"GIT_CONFIG_KEY_0": f"url.file://{session.home}/nothing.insteadOf"}
    with pytest.raises(CellExecutionError) as caught:
        session.run(notebook, **nowhere)
    assert "The course could not be installed; Colab's own packages are as they were." in str(caught.value)
    assert f"{published.publication.address}/issues" in str(caught.value)
    said = "".join(output.get("text", "") for _, output in outputs(notebook))
    assert f"{published.publication.address}" in said, "git's own message is shown"
    assert tag in notebook.cells[0].source
    assert installed(session.environment) == before


def test_a_package_that_is_there_twice_is_held_at_the_version_that_python_imports(published, session):
    """Debian's old copies stand behind Colab's own on the path. Two constraints for one name could not be met."""
    site = site_packages(session.environment)
    old = session.home / "dist-packages" / "requests-2.25.1.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: requests\nVersion: 2.25.1\n")
    (site / "debian.pth").write_text(f"{old.parent}\n")
    notebook = nbformat.read(find_lessons(published.folder)[0].exercises, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.id == colab.SETUP]
    before = installed(session.environment)
    session.run(notebook, **published.redirection)
    after = installed(session.environment)
    assert {name: after[name] for name in before} == before
    assert "mechinterp-exercises" in after


def test_the_list_is_of_exact_versions():
    """No hosts and no local versions: the list names what any index has."""
    lines = [line for line in PACKAGES.read_text().splitlines() if not line.startswith("#")]
    assert all(line.count("==") == 1 and not set("/+@ ") & set(line) for line in lines)
    names = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    missing = {name.partition(">")[0] for name in dependencies} - names
    assert missing == {"circuitsvis", "eindex-callum", "jaxtyping", "transformer-lens"}, "what Colab has not"
