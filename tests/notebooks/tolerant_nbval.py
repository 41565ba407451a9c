"""A pytest plugin: nbval, with outputs compared as a person would compare them.

- Integers, words and the names of heads (`1.0` is layer 1, head 0) are exact.
- Printed floats may differ by one unit in their last printed place, or by float noise (`FLOAT_NOISE`).
- Plotly figures are compared as numbers, however plotly stored them; other text in them as printed text is.
- A cell that was never executed fails; so does standard error that is not in the stored notebook.
- PNGs are ignored (they depend on fonts), and so are the outputs of cells tagged `drop-output`. Of drawings and games,
  which are stored as PNGs, the words beside them are compared.
"""

import base64
import math
import os
import re

import numpy as np
import pytest
from nbval.plugin import IPyNbCell

PLOTLY = "application/vnd.plotly.v1+json"
IGNORED_MIMES = {"image/png", "image/svg+xml", "application/vnd.jupyter.widget-view+json"}
FLOAT_NOISE = 1e-6  # relative; absolute below one
FIGURE_TOLERANCE = 1e-4

NUMBER = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?|\b(?:nan|inf)\b")
HEAD_NAME = re.compile(r"\d\.\d")


def _last_place(number: str) -> float:
    mantissa, _, exponent = number.lower().partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def numbers_agree(stored: str, new: str) -> bool:
    """Returns whether two printed numbers are the same up to their last printed place."""
    if stored == new:
        return True
    floats = all(re.search(r"[.eE]", number) for number in (stored, new))
    if not floats or (HEAD_NAME.fullmatch(stored) and HEAD_NAME.fullmatch(new)):
        return False
    # Two numbers with a different count of places: the longer one says how much was meant to be seen.
    unit = min(_last_place(stored), _last_place(new))
    a, b = float(stored), float(new)
    return abs(a - b) <= max(1.0001 * unit, FLOAT_NOISE * max(1.0, abs(a)))


def text_difference(stored: str, new: str) -> str | None:
    """Returns how two printed texts differ, None where they agree."""

    def words(text: str) -> list[str]:
        return NUMBER.sub(" # ", text).split()

    if words(stored) != words(new):
        return f"the words differ\n  stored: {stored!r:.2000}\n  now:    {new!r:.2000}"
    for i, (a, b) in enumerate(zip(NUMBER.findall(stored), NUMBER.findall(new), strict=True), start=1):
        if not numbers_agree(a, b):
            return f"number {i}: stored {a}, now {b}\n  stored: {stored!r:.2000}\n  now:    {new!r:.2000}"
    return None


def _decoded(value):
    """Returns plotly's base64 arrays as lists."""
    if not (isinstance(value, dict) and "bdata" in value):
        return value
    array = np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"])
    shape = value.get("shape")
    if isinstance(shape, str):
        shape = [int(size) for size in shape.split(",")]
    return (array.reshape(shape) if shape else array).tolist()


def figure_difference(stored, new, path: str = "figure") -> str | None:
    """Returns where two plotly figures (as JSON) differ, None where they agree."""
    stored, new = _decoded(stored), _decoded(new)
    if isinstance(stored, dict) and isinstance(new, dict):
        # The template belongs to plotly's version, the uid to the moment.
        keys = [sorted(set(tree) - {"template", "uid"}) for tree in (stored, new)]
        if keys[0] != keys[1]:
            return f"{path}: stored has {keys[0]}, now {keys[1]}"
        pairs = [(f"{path}.{key}", stored[key], new[key]) for key in keys[0]]
    elif isinstance(stored, list) and isinstance(new, list):
        if len(stored) != len(new):
            return f"{path}: stored has {len(stored)} entries, now {len(new)}"
        pairs = [(f"{path}[{i}]", a, b) for i, (a, b) in enumerate(zip(stored, new, strict=True))]
    elif isinstance(stored, str) and isinstance(new, str):
        difference = text_difference(stored, new)
        return difference and f"{path}: {difference}"
    elif isinstance(stored, int | float) and isinstance(new, int | float):
        exact = isinstance(stored, int) and isinstance(new, int)
        if stored == new or (stored != stored and new != new):
            return None
        if not exact and math.isclose(stored, new, rel_tol=FIGURE_TOLERANCE, abs_tol=FIGURE_TOLERANCE):
            return None
        return f"{path}: stored {stored}, now {new}"
    else:
        return None if stored == new else f"{path}: stored {stored!r:.200}, now {new!r:.200}"
    return next((found for p, a, b in pairs if (found := figure_difference(a, b, p))), None)


def _contents(output) -> dict:
    """Returns what an output shows, by kind: `stdout`, a mime type, …"""
    if output["output_type"] == "stream":
        return {output["name"]: output["text"]}
    if output["output_type"] == "error":
        return {"error": f"{output['ename']}: {output['evalue']}"}
    return {mime: value for mime, value in output["data"].items() if mime not in IGNORED_MIMES}


def outputs_difference(stored, new) -> str | None:
    """Returns how the outputs of one cell differ, None where they agree."""
    shown = [[_contents(output) for output in outputs] for outputs in (stored, new)]
    kinds = [[sorted(output) for output in outputs] for outputs in shown]
    if kinds[0] != kinds[1]:
        unexpected = next((text for output in shown[1] if (text := output.get("stderr"))), "")
        return f"the kinds of output differ\n  stored: {kinds[0]}\n  now:    {kinds[1]}\n{unexpected}"
    for i, (old_output, new_output) in enumerate(zip(*shown, strict=True)):
        for kind, value in old_output.items():
            if isinstance(value, str):
                difference = text_difference(value, new_output[kind])
            else:
                difference = figure_difference(value, new_output[kind])
            if difference:
                return f"output {i}, {kind}: {difference}"
    return None


def pytest_configure(config):
    if config.option.nbval:
        config.option.nbval_current_env = True  # never the kernel that happens to be named python3
        os.environ["EXERCISES_STRICT"] = "1"
        # The stored outputs are those of the default instance in the default renderer.
        for name in ("EXERCISES_INSTANCE", "PLOTLY_RENDERER"):
            os.environ.pop(name, None)


def pytest_itemcollected(item):
    if not isinstance(item, IPyNbCell):
        return

    def compare_outputs(new, stored):
        difference = outputs_difference(stored, new)
        item.comparison_traceback = [difference] if difference else []
        return difference is None

    item.compare_outputs = compare_outputs
    if "drop-output" in item.cell.metadata.get("tags", []):
        item.options["check"] = False


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    if isinstance(item, IPyNbCell) and item.cell.source.strip() and item.cell.execution_count is None:
        pytest.fail("this cell was never executed: run `make build`", pytrace=False)
