"""The examples, run small; the notebook cell by cell."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from launching import launch, needs_mpi

FOLDER = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))
OF_RANKS = sorted((FOLDER / "ranks").glob("*.py"))
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_LINES = 80


def source(path):
    """The code of a script or a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return text
    cells = json.loads(text)["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_runs_and_draws(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), "--quick", "--out", str(tmp_path)])
    runpy.run_path(str(path), run_name="__main__")
    assert (tmp_path / f"{path.stem}.png").stat().st_size > 5_000
    assert capsys.readouterr().out


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{path.name}[{number}]", "exec"), names)
    assert names["report"].passed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_was_saved_with_what_it_shows(path):
    """`make pictures` runs it; whoever looks at it where nothing runs sees pictures, tables and numbers."""
    assert path.stat().st_size < 400_000
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    shown = [set(output.get("data", ())) for cell in cells for output in cell["outputs"]]
    assert sum("image/png" in kinds for kinds in shown) == 3
    assert any("text/html" in kinds for kinds in shown)  # the report
    for cell in cells:
        last = "".join(cell["source"]).splitlines()[-1]
        assert bool(cell["outputs"]) == (
            "print(" in "".join(cell["source"]) or not re.match(r"assert|import|\w+ = | ", last)
        )


@pytest.mark.parametrize(
    ("name", "said"), [("pipeline", "one process: True"), ("split_layer", r"process \de-0[67] apart")]
)
def test_two_ranks_get_what_one_process_gets(name, said, tmp_path):
    needs_mpi()
    code, out, err = launch(tmp_path, FOLDER / "ranks" / f"{name}.py", options=["--max-restarts", "0"], timeout=60)
    assert code == 0, err
    assert len(re.findall(said, out)) == 2
    for path in OF_RANKS:
        assert f"examples/ranks/{path.name})" in (FOLDER.parent / "docs" / "gallery" / "index.md").read_text("utf-8")


@pytest.mark.parametrize("path", [*SCRIPTS, *OF_RANKS, *NOTEBOOKS], ids=lambda path: path.stem)
def test_is_short_and_uses_what_is_public(path):
    code = source(path)
    assert len(code.splitlines()) < MOST_LINES
    compile(code, path.name, "exec")
    assert "import _" not in code


@pytest.mark.parametrize("path", [*SCRIPTS, *NOTEBOOKS], ids=lambda path: path.stem)
def test_is_in_the_gallery_with_its_picture(path):
    docs = FOLDER.parent / "docs"
    gallery = (docs / "gallery" / "index.md").read_text(encoding="utf-8")
    assert f"examples/{path.name})" in gallery
    assert f"]({path.stem}.png)" in gallery
    assert (docs / "gallery" / f"{path.stem}.png").stat().st_size > 2_000


def test_there_is_one_for_each_thing_promised():
    expected = {"digits", "table", "quantiles", "pendulum", "image", "larger_than_memory", "tour"}
    assert expected == {path.stem for path in [*SCRIPTS, *NOTEBOOKS]}
