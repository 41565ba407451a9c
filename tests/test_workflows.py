"""The workflows of GitHub Actions: the linter lets ours pass, and refuses what it is there to refuse."""

import subprocess
import sys

import pytest
from ruamel.yaml import YAML

from tools.workflows import ROOT, complaints

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
GOOD = """\
name: small
on:
  workflow_dispatch:
    inputs:
      runner:
        type: string
permissions: {}
jobs:
  all:
    strategy:
      matrix:
        python: ["3.11", "3.13"]
    if: github.ref == 'refs/heads/main'
    runs-on: ${{ inputs.runner || 'ubuntu-latest' }}
    steps:
      - run: make test PYTHON=python${{ matrix.python }}
"""
BROKEN = {
    "unknown key": ("runs-on:", "runs_on:", "runs_on"),
    "wrong type": ("permissions: {}", "permissions: 7", "permissions"),
    "not yaml": ("jobs:", "jobs: [", "Failed to parse"),
    "unfinished expression": ("matrix.python }}", "matrix.python || }}", "couldn't parse expression"),
    "unknown function": ("matrix.python }}", "upper(matrix.python) }}", "couldn't parse expression"),
    "unknown context": ("inputs.runner ||", "input.runner ||", "there is no context `input`"),
    "unknown input": ("inputs.runner ||", "inputs.runer ||", "this file declares no `inputs.runer`"),
    "unknown column": ("matrix.python }}", "matrix.pyton }}", "this file declares no `matrix.pyton`"),
    "unknown context in a condition": ("github.ref", "git.ref", "there is no context `git`"),
    "no permissions named": ("permissions: {}\n", "", "excessive-permissions"),
    "a stranger's text in a script": ("matrix.python }}", "github.head_ref }}", "template-injection"),
    "an action that its owner can change": (
        "- run: make test",
        "- uses: somebody/something@v1\n      - run: make test",
        "unpinned-uses",
    ),
}


def load(name):
    return YAML(typ="safe").load(ROOT / ".github" / "workflows" / name)


def test_our_workflows_pass():
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "gpu.yml"]
    assert complaints(WORKFLOWS) == []


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What is said of a good file and of every broken one, each in a line or a paragraph with the file's name."""
    folder = tmp_path_factory.mktemp("workflows")
    files = [folder / "good.yml"]
    files[0].write_text(GOOD)
    for name, (old, new, _) in BROKEN.items():
        assert GOOD.count(old) == 1
        files.append(folder / f"{name}.yml")
        files[-1].write_text(GOOD.replace(old, new))
    whole = "\n\n".join(complaints(files))
    return whole.splitlines() + whole.split("\n\n")


def test_a_good_one_passes(said):
    assert said
    assert not [line for line in said if "good.yml" in line]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_one_is_refused(said, name):
    message = BROKEN[name][2]
    assert [part for part in said if f"{name}.yml" in part and message in part]


def test_the_command_fails_with_the_complaint(tmp_path):
    (tmp_path / "small.yml").write_text(GOOD.replace("inputs.runner ||", "inputs.runer ||"))
    command = [sys.executable, "-m", "tools.workflows", str(tmp_path / "small.yml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "this file declares no `inputs.runer`" in done.stdout


def test_ci_covers_the_pythons_that_are_promised():
    rows = load("ci.yml")["jobs"]["test"]["strategy"]["matrix"]["include"]
    assert [row["python"] for row in rows] == ["3.11", "3.12", "3.13"]
    assert [row["command"] for row in rows].count(".ci/run") == 1


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_only_read_and_end_some_time(path):
    workflow = load(path.name)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"]
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())
    assert "secrets." not in path.read_text()


def test_gpu_runs_on_the_runner_that_is_named_and_never_falls_back_to_the_cpu():
    workflow = load("gpu.yml")
    job = workflow["jobs"]["gpu"]
    assert job["runs-on"] == "${{ inputs.runner || vars.GPU_RUNNER || 'ubuntu-latest' }}"
    assert job["env"]["EXERCISES_DEVICE"] == "cuda"
    assert set(workflow["on"]) == {"workflow_dispatch", "schedule"}, "never for a pull request"
    script = "\n".join(step.get("run", "") for step in job["steps"])
    for needed in ("torch.cuda.is_available()", "make regression", "-m network"):
        assert needed in script
    for benchmark in (ROOT / "benchmarks").glob("*.py"):
        assert f"benchmarks/{benchmark.name}" in script
    for step in job["steps"][5:]:
        assert "steps.ready" in step.get("if", "steps.ready"), "without a GPU nothing else is worth running"
