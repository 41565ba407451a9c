"""Lessons in Google Colab: the badge that opens a notebook there, and the cell that installs the course.

Both are generated from `pyproject.toml`, from the project's version and the one line with its public address. Until
that is set, neither is there: `exercises set-repository OWNER/NAME` sets it, and puts them in.
"""

import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

BADGE, SETUP = "colab-badge", "colab-setup"
"""The ids of the two generated cells."""
SETUP_HEADING = "## Setup"
NOT_SET = "ADDRESS-NOT-SET"

_ADDRESS_LINE = re.compile(r'^(Repository\s*=\s*)"[^"\n]*"', re.MULTILINE)
_ADDRESS = re.compile(r"https://github\.com/([^/]+/[^/]+?)(?:\.git)?/?")
# GitHub's rules for names: an owner has no underscore, and no hyphen at an end.
_NAME = re.compile(r"(?!.*\.git$)[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}/(?!\.{1,2}$)[\w.-]{1,100}", re.ASCII)

# Colab has some packages twice, Debian's old copy behind its own. `pip list` names the one that Python imports, and names
# it once: two constraints for one package could not be met. One `pip install` is one transaction: it resolves, fetches and
# builds everything before it installs anything.
_SETUP = """\
# In Google Colab this installs the course (about a minute). Anywhere else it does nothing.
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

if "google.colab" in sys.modules and not importlib.util.find_spec("exercises_utils"):
    print("Installing the course: about a minute ...")
    course = "{package} @ git+{address}@{tag}"
    pip = [sys.executable, "-m", "pip", "--quiet"]
    text = {{"capture_output": True, "text": True}}
    # What Colab has installed stays at its version.
    listed = subprocess.run([*pip, "list", "--format=freeze"], check=True, **text)
    held = Path(tempfile.mkdtemp(), "held.txt")
    held.write_text(listed.stdout)
    result = subprocess.run([*pip, "install", "--constraint", held, course], **text)
    importlib.invalidate_caches()
    if result.returncode:
        print(result.stderr[-3000:])
        raise RuntimeError(
            "The course could not be installed; Colab's own packages are as they were. "
            "Run this cell again. If it fails again, choose Runtime > Disconnect and delete "
            "runtime, and begin anew, or report what stands above this message: "
            "{address}/issues"
        )
    print("Installed.")"""


@dataclass(frozen=True)
class Publication:
    """Where the course is published: its package's name, the tag of this version, and the address."""

    package: str
    tag: str
    name: str
    """The repository on GitHub, such as `maria/mechinterp-exercises`."""

    @classmethod
    def of(cls, root: Path) -> "Publication":
        """Returns what `pyproject.toml` in `root` says; raises `ValueError` for an address outside GitHub."""
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        address = project["urls"]["Repository"]
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise ValueError(
                f"pyproject.toml has the address {address!r}, and Colab opens notebooks from GitHub alone. "
                "This sets another: exercises set-repository OWNER/NAME"
            )
        return cls(project["name"], f"v{project['version']}", match[1])

    def at(self, name: str) -> "Publication":
        """Returns the same under another name; raises `ValueError` for what cannot be a name on GitHub."""
        if not _NAME.fullmatch(name) or name.startswith(f"{NOT_SET}/"):
            raise ValueError(
                f"{name!r} does not name a repository on GitHub; expected OWNER/NAME, such as "
                f"maria/{self.package}, without https:// and .git."
            )
        return replace(self, name=name)

    @property
    def is_set(self) -> bool:
        """Whether there is a public address yet."""
        return not self.name.startswith(f"{NOT_SET}/")

    @property
    def address(self) -> str:
        """The address of the repository."""
        return f"https://github.com/{self.name}"

    def badge(self, path: str) -> str:
        """Returns the markdown that opens the notebook at `path` in Colab."""
        image = "https://colab.research.google.com/assets/colab-badge.svg"
        target = f"https://colab.research.google.com/github/{self.name}/blob/{self.tag}/{path}"
        return f"[![Open in Colab]({image})]({target})"

    def setup(self) -> str:
        """Returns the code that installs the course in Colab, and does nothing elsewhere."""
        return _SETUP.format(package=self.package, address=self.address, tag=self.tag)


def with_cells(cells: list[NotebookNode], publication: Publication, path: str) -> list[NotebookNode]:
    """Returns a lesson's cells with the badge of the notebook at `path` on top, and the setup under its heading.

    Without a public address they come back as they are: a lesson then opens with its question. Raises `ValueError`
    where there is no such heading.
    """
    starts = [i for i, cell in enumerate(cells) if cell.source.splitlines()[:1] == [SETUP_HEADING]]
    if not starts:
        raise ValueError(
            f"there is no cell with the heading `{SETUP_HEADING}`: the cell that installs the course in Colab "
            "comes after it"
        )
    if not publication.is_set:
        return cells
    after = starts[0] + 1
    badge = new_markdown_cell(publication.badge(path), id=BADGE)
    setup = new_code_cell(publication.setup(), id=SETUP)
    return [badge, *cells[:after], setup, *cells[after:]]


def is_generated(cell: NotebookNode) -> bool:
    """Whether a cell is one of the two that come from here."""
    return cell.get("id") in (BADGE, SETUP)


def with_address(pyproject: str, address: str) -> str:
    """Returns the text of pyproject.toml with another address in the one line that has it."""
    text, count = _ADDRESS_LINE.subn(lambda match: f'{match[1]}"{address}"', pyproject)
    if count != 1:
        raise ValueError(f"pyproject.toml has {count} lines `Repository = …`; expected one")
    return text
