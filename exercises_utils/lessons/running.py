"""Run the cells of a notebook in a fresh process: for the build, `exercises verify` and `exercises check`."""

import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

_ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class RunError(Exception):
    """A notebook that did not reach its end; `cell` is the index of the cell where it stopped."""

    def __init__(self, cell: int, message: str) -> None:
        super().__init__(message)
        self.cell = cell


class _Client(NotebookClient):
    """An nbclient that can leave out what cells show, however much that is."""

    keep_outputs = True

    def output(self, outs: list, msg: dict, display_id: str | None, cell_index: int) -> NotebookNode | None:
        if self.keep_outputs or msg["msg_type"] == "error":
            return super().output(outs, msg, display_id, cell_index)
        return None


def environment(**settings: str) -> dict[str, str]:
    """Returns this process's environment with `settings` as the only settings of the course in it.

    So a learner's `EXERCISES_INSTANCE` or `PLOTLY_RENDERER` never reaches a build.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("EXERCISES_") and name != "PLOTLY_RENDERER"
    }
    return inherited | settings


def run_notebook(
    notebook: NotebookNode,
    folder: Path,
    environment: Mapping[str, str],
    *,
    keep_going: bool = False,
    timeout: float | None = None,
    on_cell: Callable[[int], Any] | None = None,
) -> None:
    """Fills in the outputs of `notebook` by running it in `folder`, in a kernel of this Python's own.

    With `keep_going`, an exception in a cell is stored as its only output, everything else that cells show
    is dropped, and the next cell runs: for notebooks that others wrote. `timeout` is in seconds, for a cell;
    `on_cell` is called with the index of each cell that starts.

    Raises `RunError` where a cell raises (without `keep_going`), takes too long, or ends the kernel.
    """
    # Only the kernel that belongs to this Python, whatever else is registered as "python3".
    kernels = KernelSpecManager(kernel_dirs=[])
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=kernels)
    silent = logging.getLogger("exercises_utils.kernel")
    silent.setLevel(logging.CRITICAL + 1)
    client = _Client(notebook, km=manager, timeout=timeout, allow_errors=keep_going, log=silent)
    client.keep_outputs = not keep_going
    client.record_timing = False
    client.store_widget_state = False  # widgets live in the kernel, and are named anew in each run
    client.resources = {"metadata": {"path": str(folder)}}
    current = 0

    def started(cell: NotebookNode, cell_index: int) -> None:
        nonlocal current
        current = cell_index
        if on_cell:
            on_cell(cell_index)

    client.on_cell_start = started
    try:
        # What the kernel itself says on the terminal is for nobody; what cells say is in their outputs.
        client.execute(env=dict(environment), cleanup_kc=True, stdout=DEVNULL, stderr=DEVNULL)
    except CellExecutionError as error:
        raise RunError(current, _ANSI_COLOUR.sub("", error.traceback).strip()) from None
    except CellTimeoutError:
        raise RunError(current, f"The cell was stopped after {timeout:g} seconds.") from None
    except DeadKernelError:
        raise RunError(current, "The cell ended the Python process (memory full, or `exit()`?).") from None
