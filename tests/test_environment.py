from tools.environment import ROOT, environment


def test_environment_yml_is_in_step_with_pyproject():
    expected = environment((ROOT / "pyproject.toml").read_text())
    assert (ROOT / "environment.yml").read_text() == expected, "run `python tools/environment.py`"
