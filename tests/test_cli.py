"""The command `exercises`, as it is typed. What its parts do is tested beside them."""

import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from exercises_utils import cli, lessons
from exercises_utils.lessons import find_lessons, write_notebook
from exercises_utils.models import published, sources, training


def run(capsys, *arguments):
    """The exit code, and what was said."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    captured = capsys.readouterr()
    return ended.value.code, captured.out + captured.err


def test_help_lists_the_commands(capsys):
    code, said = run(capsys, "--help")
    assert code == 0
    for command in ("check", "train", "evidence", "build", "verify", "compare", "published", "release"):
        assert f" {command} " in said


def test_the_installed_command_is_this_one():
    finished = subprocess.run(
        [sys.executable, "-c", "from importlib.metadata import entry_points as e;"
         "print(e(group='console_scripts', name='exercises')['exercises'].value)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert finished.stdout.strip() == "exercises_utils.cli:main"


@pytest.fixture
def in_lesson_folder(lesson_folder, monkeypatch):
    monkeypatch.setattr(cli, "repository", lambda: lesson_folder)
    return lesson_folder


def test_what_is_built_is_in_step(in_lesson_folder, capsys):
    assert lessons.out_of_step(in_lesson_folder) != []
    assert run(capsys, "build", "01")[0] == 0
    assert lessons.out_of_step(in_lesson_folder) == []


def test_build_of_nothing(in_lesson_folder, capsys):
    code, said = run(capsys, "build", "07")
    assert code == 1
    assert said == "There is no lesson '07'. There are: 01_small.\n"


def test_verify_runs_each_instance_and_names_the_one_that_fails(in_lesson_folder, capsys, monkeypatch):
    source = find_lessons(in_lesson_folder)[0].source
    names = "os.environ['EXERCISES_STRICT'], os.environ['EXERCISES_INSTANCE']"
    source.write_text(f"{source.read_text()}\n# %%\nimport os\nassert ({names}) == ('1', 'b')\n")
    code, said = run(capsys, "verify", "--instance", "a", "--instance", "b")
    assert code == 1
    assert "On a: 01_small.py, cell" in said
    assert "On b" not in said
    assert run(capsys, "verify", "--instance", "b")[0] == 0
    code, said = run(capsys, "verify")
    assert code == 1
    assert "there are no weights in checkpoints/small" in said


def test_the_published_model_is_one_more_where_its_folder_is_known(monkeypatch):
    fetched = []
    monkeypatch.setattr(sources, "checkpoint_path", lambda *asked: fetched.append(asked))
    monkeypatch.delenv(published.LOCAL, raising=False)
    ours = sources.lesson_instances("palindromes")
    assert cli._instances("palindromes", None) == ours
    assert fetched == []
    monkeypatch.setenv(published.LOCAL, "somewhere")
    assert cli._instances("palindromes", None) == [*ours, "published"]
    assert fetched == [("palindromes", "published")]
    assert cli._instances("palindromes", ["seed1"]) == ["seed1"]
    assert "published" not in cli._instances("llm_multiplication", None)


def test_a_published_model_without_evidence_is_left_out_and_named(monkeypatch, tmp_path, capsys):
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "published.json").write_text("{}")
    monkeypatch.setenv(published.LOCAL, "somewhere")
    monkeypatch.setattr(sources, "checkpoints_folder", lambda: tmp_path)
    assert cli._instances("small", None) == []
    assert "small: not on the published model, whose evidence is not there yet" in capsys.readouterr().out


def test_a_published_model_that_cannot_be_had_is_said_in_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv(published.LOCAL, str(tmp_path))
    monkeypatch.setattr(published, "cache_folder", lambda: tmp_path / "cache")
    with pytest.raises(cli.UsageError, match="there is no palindrome_classifier.pt in it"):
        cli._instances("palindromes", None)


def test_train_names_the_challenges_there_are(capsys):
    code, said = run(capsys, "train", "palindrome", "--seed", "1")
    assert code == 1
    assert said.startswith("There is no challenge 'palindrome'. There are: llm_multiplication, palindromes, ")


def test_train_does_not_overwrite(capsys, tmp_path):
    path = tmp_path / "mine.safetensors"
    path.write_text("precious")
    code, said = run(capsys, "train", "palindromes", "--seed", "1", "--out", str(path))
    assert code == 1
    assert "mine.safetensors" in said
    assert "Traceback" not in said
    assert path.read_text() == "precious"


def test_train_says_where_the_model_is_and_what_comes_next(capsys, tmp_path, monkeypatch):
    card = SimpleNamespace(instance="mine", accuracy={"value": 0.99912, "n": 10_000})
    monkeypatch.setattr(training, "run_training", lambda *arguments: card)
    path = tmp_path / "mine.safetensors"
    code, said = run(capsys, "train", "palindromes", "--seed", "1", "--out", str(path))
    assert code == 0
    assert f"{path} is written: accuracy 0.9991 on 10,000 fresh examples." in said
    assert f"exercises evidence palindromes {path}" in said


@pytest.mark.parametrize(
    ("instance", "message"),
    [("seed0", "would be overwritten. Overwrite with --force."), ("seed99", "no instance 'seed99'")],
)
def test_evidence_says_why_it_is_not_written(capsys, instance, message):
    code, said = run(capsys, "evidence", "palindromes", instance)
    assert code == 1
    assert message in said
    assert "Traceback" not in said


def test_release_refuses_a_folder_in_use(capsys, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    code, said = run(capsys, "release", "--out", str(tmp_path))
    assert code == 1
    assert "nothing was written" in said


def test_check_of_no_notebook(capsys, tmp_path):
    (tmp_path / "x.ipynb").write_text("hello")
    code, said = run(capsys, "check", str(tmp_path / "x.ipynb"))
    assert code == 2
    assert "not a Jupyter notebook" in said
    assert "Traceback" not in said


def test_check_of_another_course(capsys, tmp_path):
    cell = new_code_cell("from exercises_utils.challenges.lessons import checks")
    write_notebook(new_notebook(cells=[cell]), tmp_path / "x.ipynb")
    code, said = run(capsys, "check", str(tmp_path / "x.ipynb"))
    assert code == 1
    assert said.startswith("There is no challenge 'lessons'. There are: llm_multiplication, palindromes, ")


def test_check_of_a_real_notebook(capsys, tmp_path):
    """One exercise solved, one wrong, the others as the learner found them; the file stays as it is."""
    lesson = find_lessons(cli.repository(), ["palindromes"])[0]
    source = lessons.read_source(lesson)
    learner = lessons.exercise_notebook(source)
    solved, wrong = ("logit_diff", "logit_attribution")
    cells = {cell.id: cell for cell in learner.cells}
    cells[solved].source = {cell.id: cell.source for cell in source.cells}[solved]
    cells[wrong].source = f"def {wrong}(*arguments):\n    return 3"
    # What the checks do not need is left out: the test is about what is said.
    needed = [cell for cell in learner.cells if "checks." in cell.source or cell.id in (solved, wrong)]
    setup = next(cell for cell in learner.cells if "exercises_utils.challenges" in cell.source)
    learner.cells = [setup, *(cell for cell in needed if cell is not setup and "working" not in cell.source)]
    path = tmp_path / "my work.ipynb"
    write_notebook(learner, path)
    before = path.read_bytes()
    code, said = run(capsys, "check", str(path))
    lines = {line.split()[1]: line for line in said.splitlines() if line[:1] in "✓✗○?"}
    assert code == 1
    assert path.read_bytes() == before
    assert "✓" in lines[solved]
    assert " passed" in lines[solved]
    assert " failed: " in lines[wrong]
    others = [line for name, line in lines.items() if name not in (solved, wrong)]
    assert len(others) >= 10
    assert nbformat.read(path, 4)
    assert "1 of" in said.splitlines()[-1]
    assert f"Next: `{wrong}`" in said.splitlines()[-1]
