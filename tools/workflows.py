"""Refuses workflows that GitHub would refuse or that are unsafe: `python tools/workflows.py [FILES]`, without a network.

Three things look at every file:

- check-jsonschema, with GitHub's schema: keys, their places and their types.
- zizmor: what is unsafe, and expressions that cannot be parsed. Those it only warns of; here they are refused.
- The names in expressions: the contexts that GitHub has, and the inputs and the matrix that the file itself declares.
  GitHub takes a name that is not there for an empty text, so a slip of the pen changes a run without a word.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

ROOT = Path(__file__).resolve().parent.parent
CONTEXTS = {
    *("env", "github", "inputs", "job", "matrix", "needs", "runner", "secrets", "steps", "strategy", "vars")
}
UNPARSED = "couldn't parse expression"


def complaints(files: Iterable[Path]) -> list[str]:
    """What is wrong with these workflows: nothing, if the list is empty."""
    paths = [str(path) for path in files]
    bin = Path(sys.executable).parent
    schema = ["--builtin-schema", "vendor.github-workflows", *paths]
    unsafe = [
        "--offline",
        "--no-progress",
        "--color",
        "never",
        "--config",
        str(ROOT / ".github" / "zizmor.yml"),
        *paths,
    ]
    found = []
    for tool, arguments in (("check-jsonschema", schema), ("zizmor", unsafe)):
        done = subprocess.run(
            [shutil.which(tool, path=bin) or tool, *arguments], capture_output=True, text=True
        )
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if not line.startswith(" INFO")]
            found.append("\n".join([done.stdout, *said]))
        for file, expression in re.findall(rf"Workflow\(file://(.*?)\).*{UNPARSED}: (.*)", done.stderr):
            found.append(f"{file}: {UNPARSED} {expression}")
    for path in paths:
        found += [f"{path}: {what}" for what in unknown_names(Path(path).read_text())]
    return list(dict.fromkeys(found))


def unknown_names(text: str) -> Iterator[str]:
    """The names in a workflow's expressions that nothing declares."""
    try:
        workflow = YAML(typ="safe").load(text)
        triggers, jobs = workflow["on"], workflow["jobs"].values()
    except (YAMLError, KeyError, TypeError, AttributeError):
        return  # the schema says what is wrong
    inputs = set()
    for trigger in ("workflow_dispatch", "workflow_call"):
        if isinstance(triggers, dict):
            inputs |= set((triggers.get(trigger) or {}).get("inputs") or {})
    outside = {key: value for key, value in workflow.items() if key != "jobs"}
    for part in (outside, *jobs):
        matrix = part.get("strategy", {}).get("matrix", {})
        declared = {"inputs": inputs}
        if isinstance(matrix, dict):
            rows = [row for row in matrix.get("include", []) if isinstance(row, dict)]
            declared["matrix"] = set(matrix).union(*rows)
        for expression in expressions(part):
            for context, name in re.findall(
                r"(?<![\w.'-])([A-Za-z_][\w-]*)\.([\w-]+)", re.sub(r"'[^']*'", "''", expression)
            ):
                if context not in CONTEXTS:
                    yield f"`{expression}`: there is no context `{context}`"
                elif name not in declared.get(context, {name}):
                    yield f"`{expression}`: this file declares no `{context}.{name}`"


def expressions(part: Any, key: str = "") -> Iterator[str]:
    """What stands in `${{ }}`, and the conditions of `if`, which need no braces."""
    if isinstance(part, dict):
        for name, value in part.items():
            yield from expressions(value, name)
    elif isinstance(part, list):
        for value in part:
            yield from expressions(value)
    elif isinstance(part, str):
        found = [each.strip() for each in re.findall(r"\$\{\{(.*?)\}\}", part, re.DOTALL)]
        yield from found or ([part] if key == "if" else [])


if __name__ == "__main__":
    named = [Path(name) for name in sys.argv[1:]]
    found = complaints(named or sorted((ROOT / ".github" / "workflows").glob("*.yml")))
    print("\n".join(found), end="\n" if found else "")
    sys.exit(bool(found))
