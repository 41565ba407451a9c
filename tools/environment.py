"""Writes environment.yml (conda, mamba, Binder) from pyproject.toml: `python tools/environment.py`."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def environment(pyproject: str) -> str:
    """Returns the text of environment.yml that belongs to this text of pyproject.toml."""
    project = tomllib.loads(pyproject)["project"]
    return f"""\
# Generated from pyproject.toml by tools/environment.py: do not edit.
name: {project["name"]}
channels: [conda-forge, nodefaults]
dependencies:
  - python={project["requires-python"].removeprefix(">=")}
  - pip
  - pip:
      - --constraint=constraints.txt
      - --editable=.[lab]
"""


if __name__ == "__main__":
    (ROOT / "environment.yml").write_text(environment((ROOT / "pyproject.toml").read_text()))
