import os
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

from exercises_utils.lessons import (
    LessonError,
    build,
    colab,
    exercise_notebook,
    find_lessons,
    read_source,
    set_repository,
)
from exercises_utils.lessons.release import write_release

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The student version without solutions."""
    out = tmp_path_factory.mktemp("release") / "graded"
    write_release(ROOT, out, with_solutions=False)
    return out


def solution_lines():
    """The lines of the solutions that say something, as (lesson, line): long enough, and not in what is given."""
    for lesson in find_lessons(ROOT):
        solved, given, inside = [], [], False
        for cell in read_source(lesson).cells:
            tagged = "solution-only" in cell.metadata.get("tags", [])
            for line in map(str.strip, cell.source.split("\n")):
                inside = (inside or line == "### BEGIN SOLUTION") and line != "### END SOLUTION"
                (solved if inside or tagged else given).append(line)
        statements = "\n".join(given)
        yield from (
            (lesson.name, line)
            for line in solved
            if len(line) >= 16 and "###" not in line and line not in statements
        )


def texts(folder):
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".ipynb":
            yield path, "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
        elif path.is_file() and path.suffix != ".whl":
            yield path, path.read_text(encoding="utf-8")


def test_the_graded_version_has_no_line_of_a_solution(graded):
    lines = list(solution_lines())
    assert len(lines) > 20
    shipped = list(texts(graded))
    assert len(shipped) >= 4
    assert [
        (path.name, line)
        for path, text in shipped
        for lesson, line in lines
        if (path.stem == lesson or path.suffix != ".ipynb") and line in text  # other lessons give such lines
    ] == []


def test_the_search_finds_the_solutions_where_they_are_shown():
    notebooks = {
        lesson.name: exercise_notebook(read_source(lesson), with_solutions=True)
        for lesson in find_lessons(ROOT)
    }
    texts_by_lesson = {
        name: "\n".join(cell.source for cell in notebook.cells) for name, notebook in notebooks.items()
    }
    assert [line for lesson, line in solution_lines() if line not in texts_by_lesson[lesson]] == []


def test_it_is_complete_and_small(graded):
    names = sorted(path.name for path in graded.iterdir())
    wheel = next(graded.glob("*.whl"))
    assert names == sorted(["LICENSE", "README.md", "constraints.txt", "notebooks", wheel.name])
    packed = zipfile.ZipFile(wheel).namelist()
    assert "exercises_utils/_checkpoints/palindromes/seed0.safetensors" in packed
    assert {name.split("/")[0] for name in packed if "dist-info" not in name} == {"exercises_utils"}
    readme = (graded / "README.md").read_text()
    assert wheel.name in readme
    for notebook in (graded / "notebooks").glob("*.ipynb"):
        assert "output_type" not in notebook.read_text()


def test_the_wheel_has_every_file_of_the_package_and_every_weight(graded):
    """What Colab and a student install: it finds weights, evidence and the folders of larger models in itself."""
    packed = set(zipfile.ZipFile(next(graded.glob("*.whl"))).namelist())
    listed = subprocess.run(
        ["git", "ls-files", "exercises_utils", "checkpoints"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    expected = {
        name if name.startswith("exercises_utils/") else f"exercises_utils/_{name}"
        for name in listed.stdout.splitlines()
        if (ROOT / name).is_file()
    }
    assert len(expected) > 100
    assert expected - packed == set()


@pytest.mark.parametrize("with_solutions", [True, False])
def test_its_notebooks_have_no_badge_and_a_setup_that_does_nothing_here(
    lesson_folder, tmp_path, monkeypatch, capsys, with_solutions
):
    """The badge would open the public notebook, whose solutions are one click away."""
    monkeypatch.setattr("exercises_utils.lessons.release._build_wheel", lambda root, folder: folder / "x.whl")
    for name in ("LICENSE", "constraints.txt"):
        (lesson_folder / name).touch()
    build(find_lessons(lesson_folder)[0])
    set_repository(lesson_folder, "maria/interp")
    capsys.readouterr()
    write_release(lesson_folder, tmp_path / "out", with_solutions=with_solutions)
    (path,) = (tmp_path / "out" / "notebooks").glob("*.ipynb")
    cells = {cell.id: cell for cell in nbformat.read(path, as_version=4).cells}
    assert colab.BADGE not in cells
    exec(cells[colab.SETUP].source, {})
    assert capsys.readouterr().out == ""


def test_an_installed_wheel_finds_its_weights_and_their_evidence(graded, tmp_path):
    target = tmp_path / "site"
    wheel = next(graded.glob("*.whl"))
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    code = (
        "import exercises_utils;"
        "from exercises_utils.models import available_instances, checkpoint_path, checkpoints_folder;"
        "print(exercises_utils.__file__, checkpoints_folder(), *available_instances('palindromes'));"
        "from exercises_utils.evidence import load_evidence;"
        "print(load_evidence(checkpoint_path('palindromes', 'seed0')).card.challenge)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    module, folder, *instances, challenge = finished.stdout.split()
    assert Path(module).is_relative_to(target)
    assert Path(folder).is_relative_to(target)
    assert "seed0" in instances
    assert challenge == "palindromes"


def test_nothing_is_overwritten(tmp_path):
    notebook = tmp_path / "course" / "notebooks" / "03_palindromes.ipynb"
    notebook.parent.mkdir(parents=True)
    notebook.write_text("my work")
    with pytest.raises(LessonError, match="may be somebody's work: nothing was written"):
        write_release(ROOT, tmp_path / "course", with_solutions=True)
    assert notebook.read_text() == "my work"
    assert list(tmp_path.iterdir()) == [tmp_path / "course"]


def test_a_release_that_fails_leaves_nothing(lesson_folder):
    # Without LICENSE and pyproject.toml beside it, no release can be made of this lesson.
    out = lesson_folder / "out"
    with pytest.raises(FileNotFoundError):
        write_release(lesson_folder, out, with_solutions=True)
    assert sorted(path.name for path in lesson_folder.iterdir()) == ["pyproject.toml", "solutions"]
