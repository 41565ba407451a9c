"""The table that the runs in Colab leave at the end."""

from dataclasses import dataclass, field

import pytest
from rich.console import Console
from rich.table import Table


@dataclass
class Report:
    """Where the notebooks ran, and a row for each."""

    place: str = ""
    rows: list[tuple[str, ...]] = field(default_factory=list)


REPORT = pytest.StashKey[Report]()


def pytest_configure(config):
    config.stash[REPORT] = Report()


@pytest.fixture(scope="session")
def report(pytestconfig):
    return pytestconfig.stash[REPORT]


def pytest_terminal_summary(config):
    report = config.stash[REPORT]
    if not report.rows:
        return
    table = Table(title=f"Google Colab, simulated: {report.place}")
    for name in ("notebook", "setup cell, s", "in all, s", "figures", "widgets", "added", "changed"):
        table.add_column(name, justify="left" if name == "notebook" else "right", overflow="fold")
    for row in report.rows:
        table.add_row(*row)
    Console(width=120).print(table)
