"""What a newcomer meets first: the metadata, the exact versions, and make."""

import json
import os
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

from tools.environment import ROOT, environment

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [Requirement(text) for text in sum(EXTRAS.values(), PROJECT["dependencies"])]


def make(*arguments, **variables):
    """The exit code and the output of make, without the settings of the make that runs these tests."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--no-print-directory", *arguments]
    finished = subprocess.run(command, cwd=ROOT, env=inherited | variables, capture_output=True, text=True)
    return finished.returncode, finished.stdout + finished.stderr


def test_environment_yml_is_in_step_with_pyproject():
    expected = environment((ROOT / "pyproject.toml").read_text())
    assert (ROOT / "environment.yml").read_text() == expected, "run `python tools/environment.py`"


@pytest.fixture(scope="module")
def pip_lines():
    """What conda and mamba hand to pip, as a file of requirements, from the repository's folder."""
    dependencies = YAML(typ="safe").load(ROOT / "environment.yml")["dependencies"]
    assert [item if isinstance(item, str) else list(item) for item in dependencies] == [
        "python=3.11",
        "pip",
        ["pip"],
    ]
    return dependencies[-1]["pip"]


def test_pip_accepts_what_environment_yml_gives_it(pip_lines, tmp_path):
    requirements, report = tmp_path / "requirements.txt", tmp_path / "report.json"
    requirements.write_text("\n".join(pip_lines))
    (tmp_path / "constraints.txt").write_text((ROOT / "constraints.txt").read_text())
    # What is installed builds the metadata, and nothing is looked up: this needs no network and changes nothing.
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--no-input"]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", *offline]
    done = subprocess.run(
        [*command, f"--report={report}", f"--requirement={requirements}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (would_install,) = json.loads(report.read_text())["install"]
    assert would_install["metadata"]["name"] == PROJECT["name"]
    assert would_install["requested_extras"] == ["lab"]
    assert would_install["download_info"]["dir_info"] == {"editable": True}
    assert would_install["download_info"]["url"] == ROOT.as_uri()


def test_binder_copies_the_repository_before_it_makes_the_environment(pip_lines):
    # repo2docker 2026.4 (`utils.is_local_pip_requirement`) does so where a line is a constraint, or an option in its
    # long form with = whose value begins with a dot; it reads Python's version from `python=3.11`.
    assert any(line.startswith("--constraint=") for line in pip_lines)
    assert any(line.startswith("--editable=.") for line in pip_lines)


def test_constraints_hold_every_requirement_at_a_version_it_allows():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    versions = dict(line.split("==") for line in lines)
    versions = {canonicalize_name(name): version for name, version in versions.items()}
    for requirement in REQUIREMENTS:
        if requirement.name != PROJECT["name"]:
            version = versions.get(canonicalize_name(requirement.name))
            assert version, f"{requirement.name} is not in constraints.txt"
            assert requirement.specifier.contains(version), f"{requirement} excludes {version}"
    assert not [line for line in lines if "/" in line or "+" in line], "no hosts, no local versions"


def test_requirements_are_floors():
    for requirement in REQUIREMENTS:
        assert "==" not in str(requirement), f"{requirement}: exact versions belong in constraints.txt"


@pytest.mark.parametrize(
    "name",
    ["torch", "transformer-lens", "jupyterlab", "nbval", "circuitsvis", "plotly", "einops", "eindex-callum"],
)
def test_the_packages_of_the_course_are_declared(name):
    assert name in {requirement.name for requirement in REQUIREMENTS}


def test_help_lists_the_commands_and_is_the_default():
    code, said = make()
    assert code == 0
    for target in ("lab", "test", "build", "verify", "browser", "help"):
        assert f"make {target} " in said


def test_an_old_python_is_refused_with_a_way_out(tmp_path):
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 && exit 0\nexit 1\n')
    old.chmod(0o755)
    code, said = make("lab", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert code != 0
    assert "Python 3.11 or later is needed" in said
    assert "is Python 3.9.2" in said
    assert "make PYTHON=python3.12 lab" in said
    assert not (tmp_path / "venv").exists()


def test_a_python_that_is_not_there_is_said_to_be_missing(tmp_path):
    code, said = make("test", "PYTHON=python9", f"VENV={tmp_path / 'venv'}")
    assert code != 0
    assert said.startswith("There is no `python9` here, and Python 3.11 or later is needed.")
    assert "make PYTHON=python3.12 test" in said
    assert not (tmp_path / "venv").exists()


def test_a_python_without_venv_is_told_what_to_install(tmp_path):
    bare = tmp_path / "python3"
    bare.write_text(f'#!/bin/sh\n[ "$2" = venv ] && mkdir -p {tmp_path}/venv/bin && exit 1\nexit 0\n')
    bare.chmod(0o755)
    code, said = make("lab", f"PYTHON={bare}", f"VENV={tmp_path / 'venv'}")
    assert code != 0
    assert "apt-get install python3-venv" in said
    assert not (tmp_path / "venv").exists(), "half of an environment would be taken for a whole one"


def test_without_chromium_make_says_how_to_get_it():
    code, said = make("chromium", "CHROMIUM=")
    assert code != 0
    assert "apt-get install chromium" in said


def test_lab_opens_the_first_lesson_at_the_port_asked_for():
    _, said = make("-n", "lab", "PORT=9123", DISPLAY="", WAYLAND_DISPLAY="")
    command = next(line for line in said.splitlines() if "jupyter lab" in line)
    assert "--port=9123" in command
    assert "/lab/tree/notebooks/0" in command
    assert "--no-browser" in command
    assert ("--allow-root" in command) == (os.getuid() == 0)
    _, said = make("-n", "lab", DISPLAY=":0")
    assert "--no-browser" not in said
