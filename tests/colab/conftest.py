"""The table that the runs in Colab leave at the end."""

from rich.console import Console
from rich.table import Table


def pytest_terminal_summary(terminalreporter):
    stats = terminalreporter.stats
    reports = [report for outcome in ("passed", "failed") for report in stats.get(outcome, [])]
    runs = [
        found for report in reports if "notebook" in (found := dict(getattr(report, "user_properties", [])))
    ]
    runs = {run["notebook"]: run for run in runs}  # each is reported for its setup, its call, its end
    if not runs:
        return
    table = Table(
        title="Google Colab, simulated: " + ", ".join(sorted({run.pop("place") for run in runs.values()}))
    )
    for name in next(iter(runs.values())):
        table.add_column(name, justify="left" if name == "notebook" else "right", overflow="fold")
    for _, run in sorted(runs.items()):
        table.add_row(*run.values())
    Console(width=120).print(table)
