"""The two cells for Google Colab, and the command that gives them their address. In Colab itself: tests/colab."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_output

from exercises_utils import cli, lessons
from exercises_utils.lessons import LessonError, build, colab, exercise_notebook, find_lessons, out_of_step
from exercises_utils.lessons.colab import Publication

ROOT = Path(__file__).parent.parent
UNSET = Publication("small-course", "v1.2.3", "ADDRESS-NOT-SET/small-course")
SET = UNSET.at("maria/interp")


@pytest.fixture
def lesson(lesson_folder):
    return find_lessons(lesson_folder)[0]


# The setup cell


@pytest.fixture
def colab_session(monkeypatch):
    """Runs a cell as Colab would, with a pip whose exit code is chosen; gives what was printed and pip's commands."""

    def run_cell(source, *, in_colab=True, installed=False, listing=0, install=0):
        commands = []

        def pip(command, check=False, **options):
            commands.append([str(part) for part in command])
            code = listing if "list" in command else install
            if check and code:
                raise subprocess.CalledProcessError(code, command)
            return SimpleNamespace(returncode=code, stdout="torch==2.11.0+cpu\n", stderr="fatal: no network")

        monkeypatch.setattr(subprocess, "run", pip)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: installed or None)
        if in_colab:
            monkeypatch.setitem(sys.modules, "google.colab", sys)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            try:
                exec(source, {})
            except RuntimeError as error:
                return said.getvalue(), commands, str(error)
        return said.getvalue(), commands, None

    return run_cell


def test_outside_colab_or_once_installed_it_does_nothing_and_says_nothing(colab_session):
    assert colab_session(SET.setup(), in_colab=False) == ("", [], None)
    assert colab_session(SET.setup(), installed=True) == ("", [], None)


def test_what_is_installed_is_held_in_one_transaction(colab_session):
    said, commands, error = colab_session(SET.setup())
    assert error is None
    assert said.endswith("Installed.\n")
    listing, install = commands
    assert listing == [sys.executable, "-m", "pip", "--quiet", "list", "--format=freeze"]
    held = install[install.index("--constraint") + 1]
    assert Path(held).read_text() == "torch==2.11.0+cpu\n"
    assert install[-1] == "small-course @ git+https://github.com/maria/interp@v1.2.3"


def test_a_failure_shows_what_pip_said_and_what_to_do(colab_session):
    said, _, error = colab_session(SET.setup(), install=1)
    assert "fatal: no network" in said
    assert "Installed." not in said
    assert error.startswith("The course could not be installed; Colab's own packages are as they were.")
    assert "Run this cell again." in error
    assert error.endswith("https://github.com/maria/interp/issues")


def test_nothing_is_installed_where_it_is_not_known_what_to_hold(colab_session):
    with pytest.raises(subprocess.CalledProcessError):
        colab_session(SET.setup(), listing=1)


@pytest.mark.parametrize("publication", [UNSET.at("m/i"), UNSET.at(f"{'m' * 39}/{'i' * 100}")])
@pytest.mark.parametrize("folder", ["solutions", "notebooks"])
def test_the_cell_is_as_ruff_wants_it_whatever_the_address(publication, folder):
    for command in (["format", "--diff"], ["check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", f"{folder}/x.py", "-"]
        finished = subprocess.run(
            ruff, input=publication.setup() + "\n", cwd=ROOT, capture_output=True, text=True
        )
        assert finished.returncode == 0, finished.stdout


# The badge


def test_the_badge_leads_to_the_notebook_itself(lesson_folder, lesson):
    lessons_source = lessons.read_source(lesson, SET)
    opened = "https://colab.research.google.com/github/maria/interp/blob/v1.2.3"
    assert lessons_source.cells[0].source.endswith(f"({opened}/solutions/01_small.ipynb)")
    assert exercise_notebook(lessons_source).cells[0].source.endswith(f"({opened}/notebooks/01_small.ipynb)")


def test_without_an_address_a_lesson_opens_with_its_question(lesson):
    source = lessons.read_source(lesson)
    for notebook in (source, exercise_notebook(source)):
        assert not any(colab.is_generated(cell) for cell in notebook.cells)
        assert notebook.cells[0].source.startswith("# 01")
        assert "olab" not in "".join(cell.source for cell in notebook.cells)


def test_the_setup_comes_right_after_its_heading(lesson):
    cells = exercise_notebook(lessons.read_source(lesson, SET)).cells
    ids = [cell.id for cell in cells]
    assert ids.count(colab.BADGE) == ids.count(colab.SETUP) == 1
    assert cells[ids.index(colab.SETUP) - 1].source.startswith("## Setup")


def test_a_lesson_without_the_heading_is_refused(lesson):
    text = lesson.source.read_text(encoding="utf-8")
    lesson.source.write_text(text.replace("# ## Setup", "# ## Set up"), encoding="utf-8")
    with pytest.raises(LessonError, match="01_small.py: there is no cell with the heading `## Setup`"):
        lessons.read_source(lesson)


# The address


@pytest.mark.parametrize(
    "address", ["https://github.com/maria/interp", "https://github.com/maria/interp.git", "https://github.com/maria/interp/"]
)  # fmt: skip
def test_the_address_is_read_as_people_write_it(lesson_folder, address):
    path = lesson_folder / "pyproject.toml"
    path.write_text(colab.with_address(path.read_text(), address))
    assert Publication.of(lesson_folder) == SET
    assert Publication.of(lesson_folder).is_set


def test_an_address_that_colab_cannot_open_is_refused(lesson_folder, lesson):
    path = lesson_folder / "pyproject.toml"
    path.write_text(colab.with_address(path.read_text(), "https://example.org/maria/interp"))
    with pytest.raises(LessonError, match="Colab opens notebooks from GitHub alone"):
        lessons.read_source(lesson)


@pytest.mark.parametrize(
    "name",
    [
        "", "maria", "maria/", "/interp", "maria/interp/x", "https://github.com/maria/interp", "maria/interp.git",
        "-maria/interp", "maria-/interp", "ma--ria/interp", "mar_ia/interp", "maria/in terp", "maria/..", 'maria/x"y',
        "maria/interp\n", "märia/interp", "ADDRESS-NOT-SET/interp", f"{'m' * 40}/interp",
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match="expected OWNER/NAME"):
        UNSET.at(name)


@pytest.mark.parametrize("name", ["maria/interp", "m/i", "a-b-c/d.e_f-g", "Maria99/.github"])
def test_names(name):
    assert UNSET.at(name).address == f"https://github.com/{name}"


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_only_the_address_and_the_two_cells_change(lesson_folder, lesson):
    build(lesson)
    before = files(lesson_folder)
    old = nbformat.read(lesson.solution, as_version=4)
    lessons.set_repository(lesson_folder, "maria/interp")
    assert out_of_step(lesson_folder) == []
    text = (lesson_folder / "pyproject.toml").read_text()
    assert text == before[(lesson_folder / "pyproject.toml").relative_to(lesson_folder)].decode().replace(
        "ADDRESS-NOT-SET/small-course", "maria/interp"
    )
    new = nbformat.read(lesson.solution, as_version=4)
    assert [cell.id for cell in new.cells if cell.id not in {cell.id for cell in old.cells}] == [
        colab.BADGE,
        colab.SETUP,
    ]
    kept = [cell for cell in new.cells if not colab.is_generated(cell)]
    assert [(cell.id, cell.source) for cell in kept] == [(cell.id, cell.source) for cell in old.cells]
    assert [cell.outputs[0].text for cell in new.cells if cell.get("outputs")] == ["checked 5\n", "(0, 1)\n"]
    assert "git+https://github.com/maria/interp@v1.2.3" in new.cells[3].source
    once = files(lesson_folder)
    assert set(once) == set(before)
    lessons.set_repository(lesson_folder, "maria/interp")
    assert files(lesson_folder) == once
    lessons.set_repository(lesson_folder, "maria/elsewhere")
    assert "maria/interp" not in "".join(content.decode() for content in files(lesson_folder).values())


def test_the_cells_of_a_solution_stay_counted_from_1_as_after_a_run(lesson_folder, lesson):
    build(lesson)
    notebook = nbformat.read(lesson.solution, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code[1].outputs = [new_output("execute_result", {"text/plain": "3"}, execution_count=2)]
    lessons.write_notebook(notebook, lesson.solution)
    lessons.set_repository(lesson_folder, "maria/interp")
    assert out_of_step(lesson_folder) == []
    code = [cell for cell in nbformat.read(lesson.solution, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert code[2].outputs[0].execution_count == 3


@pytest.mark.parametrize("place", ["source", "solution", "exercises"])
def test_what_a_build_has_not_made_is_never_overwritten(lesson_folder, lesson, place):
    build(lesson)
    path = getattr(lesson, place)
    path.write_text(path.read_text(encoding="utf-8").replace("Given to everybody", "My own work"))
    before = files(lesson_folder)
    with pytest.raises(
        LessonError, match=r"01_small.ipynb is not what 01_small.py gives, so nothing was written"
    ):
        lessons.set_repository(lesson_folder, "maria/interp")
    assert files(lesson_folder) == before


def test_before_the_first_build_it_asks_for_one(lesson_folder):
    before = files(lesson_folder)
    with pytest.raises(LessonError, match="solutions/01_small.ipynb is missing: run `make build` first"):
        lessons.set_repository(lesson_folder, "maria/interp")
    assert files(lesson_folder) == before


@pytest.mark.parametrize("n", [1, 2, 3])
def test_after_a_crash_it_can_be_run_again(lesson_folder, lesson, disk_fills_up, n, monkeypatch):
    build(lesson)
    with monkeypatch.context():
        disk_fills_up(n)
        with pytest.raises(OSError, match="the disk is full"):
            lessons.set_repository(lesson_folder, "maria/interp")
    assert not Publication.of(lesson_folder).is_set
    lessons.set_repository(lesson_folder, "maria/interp")
    assert out_of_step(lesson_folder) == []


# The command


def command(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    captured = capsys.readouterr()
    return ended.value.code, captured.out + captured.err


def test_the_command_says_what_comes_next(lesson_folder, lesson, monkeypatch, capsys):
    monkeypatch.setattr(cli, "repository", lambda: lesson_folder)
    build(lesson)
    code, said = command(capsys, "set-repository", "maria/interp")
    assert code == 0
    assert "git tag v1.2.3" in said
    assert out_of_step(lesson_folder) == []
    code, said = command(capsys, "set-repository", "maria")
    assert code == 1
    assert said.startswith("'maria' does not name a repository on GitHub; expected OWNER/NAME")
    assert "Traceback" not in said


def test_outside_a_clone_the_command_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "repository", lambda: tmp_path)
    code, said = command(capsys, "set-repository", "maria/interp")
    assert code == 1
    assert "this command works in a clone of the repository" in said
    assert list(tmp_path.iterdir()) == []
