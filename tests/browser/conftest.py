"""A table of what was drawn, at the end of a run."""


def pytest_terminal_summary(terminalreporter):
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    rows = [dict(report.user_properties).get("row") for report in reports if report.when == "call"]
    rows = sorted(filter(None, rows))
    if rows:
        terminalreporter.section("drawn, in the light theme and in the dark one")
        terminalreporter.write_line("\n".join(rows))
