"""A class: an hour on page 2 replayed, exercises handed in empty, wrong and right, their grading, and the slides."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from html import unescape
from pathlib import Path

import pytest
from test_notes_pages import runs

import backprop as bp

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

import exercises  # noqa: E402
import slides  # noqa: E402
from _site.steps import table  # noqa: E402

SOURCES = sorted(exercises.SOURCES.glob("*.py"))
NOTES = [path.read_text("utf-8") for path in sorted((DOCS / "notes").glob("[0-9][0-9]_*.md"))]
PAGE = (DOCS / "notes" / "02_chain_rule.md").read_text("utf-8")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
every_exercise = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)


def handed_in(folder, source, change=lambda code: code, old="", new=""):
    """A notebook of an exercise as a student hands it in."""
    text = source.read_text("utf-8")
    assert not old or text.count(old) == 1
    path = folder / f"{source.stem}.ipynb"
    path.write_text(exercises.notebook(text.replace(old, new) if old else text, change), "utf-8")
    return path


def not_yet(grade):
    return {mark.name: mark.where for mark in grade.marks if not mark.passed}


@pytest.mark.parametrize("page", sorted((DOCS / "class").glob("*.md")), ids=lambda page: page.stem)
def test_pages_print_what_they_show(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line, printed, shown in runs(page):
        assert not shown or printed == shown, f"{page.name}, line {line}"


class TestExercises:
    @every_exercise
    def test_the_notebook_is_made_of_the_source(self, source):
        made = exercises.notebook(source.read_text("utf-8"), exercises.with_holes)
        assert source.with_suffix(".ipynb").read_text("utf-8") == made, "run docs/exercises.py"

    @every_exercise
    def test_solved_it_is_right(self, source, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        found = exercises.grades(handed_in(tmp_path, source, exercises.solved))
        assert found
        assert all(found.values()), found
        assert not any("thank you" in line for line in code_of(tmp_path / f"{source.stem}.ipynb"))

    @every_exercise
    def test_empty_it_runs_and_nothing_is_right(self, source, capsys):
        found = exercises.grades(source.with_suffix(".ipynb"))
        assert not any(found.values())
        assert capsys.readouterr().err == ""
        solutions = [part for *_, part in exercises.SOLUTION.findall(source.read_text("utf-8"))]
        lines = {line.strip() for solution in solutions for line in solution.splitlines()}
        assert not lines & {line.strip() for line in code_of(source.with_suffix(".ipynb"))}

    @every_exercise
    def test_is_a_notebook_in_the_list_of_the_class(self, source):
        whole = json.loads(source.with_suffix(".ipynb").read_text("utf-8"))
        assert (whole["nbformat"], whole["nbformat_minor"]) == (4, 5)
        assert len({cell["id"] for cell in whole["cells"]}) == len(whole["cells"])
        assert all(cell["outputs"] == [] for cell in whole["cells"] if cell["cell_type"] == "code")
        assert f"(exercises/{source.stem}.ipynb)" in (DOCS / "class" / "index.md").read_text("utf-8")

    @pytest.mark.parametrize(
        ("solution", "holes"),
        [
            ("a = 1\nb = a + 2", "a = ...\nb = ..."),
            ("c = 1\nreturn c", "return ..."),
            ("v[...] = 1\nphi -= v", "..."),
            ("if x:\n    y = 1", "..."),
        ],
    )
    def test_holes(self, solution, holes):
        for margin in ("", "    "):
            lines = "".join(f"{margin}{line}\n" for line in solution.splitlines())
            code = f"{margin}# your turn: think\n{lines}{margin}# thank you\n{margin}x\n"
            expected = "".join(f"{margin}{line}\n" for line in ["# your turn: think", *holes.splitlines(), "x"])
            assert exercises.with_holes(code) == expected.strip()


def code_of(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return "".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code").splitlines()


@cache
def page_2():
    """The text of the table of page 2, as its blocks print it now, and what they define."""
    names, printed = {"__name__": "page"}, io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        for block in BLOCK.findall(PAGE):
            exec(compile(block, "page 2", "exec"), names)
    return re.search(r"^ +value ↓(?:.*\n){10}", printed.getvalue(), re.MULTILINE)[0], names


class TestAnHour:
    def test_the_table_is_walked_down_and_up(self):
        text, names = page_2()
        assert text.strip("\n") in PAGE
        cells = re.findall(r'<td data-step="(\d+)"(?: data-say="([^"]*)")?>([^<]*)</td>', table(text))
        said = {int(step): unescape(words) for step, words, _ in cells if words}
        assert sorted(said) == list(range(1, 18))
        assert {int(step) for step, _, _ in cells} == set(said)
        assert said[1].startswith("x = 2.3000")
        assert said[9].startswith("ℓ = 0.1386")
        assert said[10] == "∂ℓ/∂f₃ = 2 (f₃ − y) = 0.7445"
        for step in range(11, 18):  # a factor times the number of the step before
            factor, before, result = map(float, re.findall(r"-?\d+\.\d+", said[step].partition(" · ")[2]))
            assert factor * before == pytest.approx(result, abs=2e-3)
            assert said[step - 1].endswith(f" {before:.4f}")
        assert float(said[16].rpartition("= ")[2]) == pytest.approx(names["dl_df0"], abs=1e-4)

    def test_a_table_of_another_form_is_refused(self):
        with pytest.raises(ValueError, match="not a table of values"):
            table("value ↓ ↑\nx is large\n")

    def test_the_buttons(self):
        """The script of the page, in a document of as few parts as it needs."""
        node = shutil.which("node")
        if node is None:
            pytest.skip("the script of the page is run by Node.js, which is not installed")
        script = (DOCS / "_static" / "steps.js").read_text("utf-8")
        run = subprocess.run(
            [node, "-e", DOCUMENT.replace("SCRIPT", script)], capture_output=True, text=True, check=True
        )
        states = json.loads(run.stdout)
        assert states["at first"] == {"shown": [1, 2, 3], "now": [], "said": ""}
        assert states["From the start"] == {"shown": [], "now": [], "said": "Nothing is computed yet."}
        assert states["Step"] == {"shown": [1], "now": [1], "said": "one"}
        assert states["Step, Step"] == {"shown": [1, 2], "now": [2], "said": "two"}
        assert states["Back"] == {"shown": [1], "now": [1], "said": "one"}
        assert states["All"] == {"shown": [1, 2, 3], "now": [3], "said": "three"}
        assert states["Step after all"] == {"shown": [1], "now": [1], "said": "one"}

    def test_the_toy_network_is_walked_through(self, capsys):
        _, names = page_2()
        passes = bp.explain(names["toy"], bp.LeastSquares(), X=[[2.3]], y=[2.0])
        passes.walk()
        assert capsys.readouterr().out == passes.text + "\n"

    def test_an_exercise_is_handed_in_empty_wrong_and_right(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        toy = SOURCES[1]
        empty = exercises.grades(handed_in(tmp_path, toy, exercises.with_holes))
        assert {grade.points for grade in empty.values()} == {0}
        assert set(not_yet(empty["grade_of_backward"]).values()) == {"not answered"}

        sign = {"old": "dl_df_2 = -np.sin(f_2)", "new": "dl_df_2 = np.sin(f_2)"}
        wrong = exercises.grades(handed_in(tmp_path, toy, exercises.solved, **sign))
        assert wrong["grade_of_forward"]
        assert list(not_yet(wrong["grade_of_backward"])) == ["∂L/∂f_2", "∂L/∂h_2", "∂L/∂f_1", "∂L/∂h_1", "∂L/∂f_0"]
        assert not re.search(r"\d\.\d", str(wrong["grade_of_backward"]))  # where, but not what

        right = exercises.grades(handed_in(tmp_path, toy, exercises.solved))
        assert all(right.values())

    def test_a_layer_is_handed_in_wrong_twice_and_right(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        linear, line = SOURCES[2], "dL_dh = omega.T @ dL_df"
        for new, first, where in (
            ("dL_dh = omega @ dL_df", "shapes", "`omega @ dL_df`, which is (3, 4) @ (3, 7)"),
            ("dL_dh = -omega.T @ dL_df", "gradients", "∂L/∂h"),
        ):
            path = handed_in(tmp_path, linear, exercises.solved, line, new)
            marks = not_yet(exercises.grades(path)["grade_of_layer"])
            assert next(iter(marks)) == first
            assert marks[first].endswith(where)
        assert exercises.grades(handed_in(tmp_path, linear, exercises.solved))["grade_of_layer"]

    def test_a_pile_is_graded(self, tmp_path):
        right, empty = tmp_path / "ada.ipynb", tmp_path / "charles.ipynb"
        handed_in(tmp_path, SOURCES[1], exercises.solved).rename(right)
        handed_in(tmp_path, SOURCES[1], exercises.with_holes).rename(empty)
        command = [sys.executable, DOCS / "exercises.py", "--grade", right, empty]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        points = re.findall(r"(\d+) of (\d+)$", run.stdout, re.MULTILINE)
        assert points == [("8", "8"), ("7", "7"), ("8", "8"), ("0", "8"), ("0", "7"), ("0", "8")]
        assert [line for line in run.stdout.splitlines() if line.endswith(".ipynb")] == ["ada.ipynb", "charles.ipynb"]

    def test_a_pile_goes_on_after_whatever_lies_in_it(self, tmp_path, monkeypatch, capsys):
        line, folder = SOURCES[0], tmp_path / "elsewhere"
        folder.mkdir()
        handed_in(tmp_path, line, exercises.solved, "import numpy as np\n", MAGIC).rename(tmp_path / "ada.ipynb")
        short = handed_in(tmp_path, line, exercises.solved)
        whole = json.loads(short.read_text("utf-8"))
        whole["cells"] = whole["cells"][:5]  # up to the grade of the loss
        short.write_text(json.dumps(whole), "utf-8")
        short.rename(tmp_path / "charles.ipynb")
        (tmp_path / "broken.ipynb").write_text('{"cells": [', "utf-8")
        (tmp_path / "list.ipynb").write_text("[1]", "utf-8")
        names = ["broken.ipynb", "list.ipynb", "absent.ipynb", "ada.ipynb", "charles.ipynb"]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["exercises.py", "--grade", *names])
        with pytest.raises(SystemExit) as end:
            exercises.main()
        assert end.value.code
        printed, told = capsys.readouterr()
        assert "broken.ipynb: expected a notebook" in told
        assert "list.ipynb: expected a notebook" in told
        assert "ada.ipynb, cell" not in told
        asked = ["grade_of_loss", "grade_of_gradient", "grade_of_descent"]
        lost = [line for name in names[:3] for line in (name, "not graded")]
        ada = [f"{name:<24}{points}" for name, points in zip(asked, ("2 of 2", "2 of 2", "1 of 1"), strict=True)]
        charles = [f"{name:<24}{points}" for name, points in zip(asked, ("2 of 2", "missing", "missing"), strict=True)]
        expected = [*lost, "ada.ipynb", *ada, "charles.ipynb", *charles]
        assert [each.strip() for each in printed.splitlines()] == expected

    @pytest.mark.parametrize(
        ("line", "seconds", "told"),
        [
            ("while True: print(7)", 2, "7.ipynb: it has not ended after 2 seconds"),
            ("import os; os._exit(0)", 120, "7.ipynb: it has ended the process in which it ran"),
            ("raise KeyboardInterrupt", 120, "7.ipynb: it has ended the process in which it ran"),
        ],
    )
    def test_a_notebook_without_an_end_or_with_a_wrong_one_is_not_graded(self, tmp_path, capfd, line, seconds, told):
        path = handed_in(tmp_path, SOURCES[0], exercises.solved, FIRST, f"{line}\n{FIRST}").rename(tmp_path / "7.ipynb")
        assert not exercises.report(path, seconds)
        printed, said = capfd.readouterr()
        assert printed == "7.ipynb\n  not graded\n"
        assert said.splitlines()[-1] == told

    def test_a_notebook_that_changes_the_grader_grades_nobody_else(self, tmp_path, monkeypatch, capfd):
        sly = handed_in(tmp_path, SOURCES[0], exercises.with_holes, FIRST, FIRST + SLY).rename(tmp_path / "sly.ipynb")
        empty = handed_in(tmp_path, SOURCES[0], exercises.with_holes)
        monkeypatch.setattr(sys, "argv", ["exercises.py", "--grade", str(sly), str(empty)])
        with pytest.raises(SystemExit):
            exercises.main()
        printed, _ = capfd.readouterr()
        assert re.findall(r"(\d) of \d", printed.partition(empty.name)[2]) == ["0", "0", "0"]
        assert "solution" not in printed

    def test_a_question_that_was_changed_is_told_of(self, tmp_path, capfd):
        asked = "grade(dL_dphi, L, np.array([0.0, 0.0]), np.array([0.6, -0.2]))"
        easier = "grade(lambda x: 0 * x, lambda x: 0.0, phi)"
        path = handed_in(tmp_path, SOURCES[0], exercises.solved, asked, easier)
        assert exercises.report(path, seconds=60)
        points = dict(re.findall(r"  (\w+) +(.*)", capfd.readouterr().out))
        assert points["grade_of_loss"] == "2 of 2"
        assert points["grade_of_gradient"].endswith(" of another question")

    @pytest.mark.parametrize("code", ["x = 7 \\\n  % 4", 'text = """\n%s\n!"""'])
    def test_what_python_understands_is_no_magic(self, code):
        assert exercises.python(code) == code

    def test_a_loss_of_another_model_is_not_right(self, tmp_path):
        """At φ = (0, 0) all of them are the sum of y²."""
        line = "return float(((phi[0] + phi[1] * x - y) ** 2).sum())"
        for new in ("return float(((phi[0] - y) ** 2).sum())", "return float((y**2).sum())"):
            found = exercises.grades(handed_in(tmp_path, SOURCES[0], exercises.solved, line, new))
            assert list(not_yet(found["grade_of_loss"])) == ["L at (0.6, −0.2)"]

    @pytest.mark.parametrize(
        ("new", "wrong"),
        [
            ("velocity[...] = 0 * velocity + g", [2, 3]),  # converges as well, and never uses the velocity
            ("velocity[...] = self.momentum * velocity + (1 - self.momentum) * g", [1, 2, 3]),
            ("velocity[...] = self.momentum * velocity - g", [1, 2, 3]),
            ("velocity = self.momentum * velocity + g", [2, 3]),
        ],
    )
    def test_another_rule_is_not_right(self, tmp_path, new, wrong):
        path = handed_in(tmp_path, SOURCES[4], exercises.solved, "velocity[...] = self.momentum * velocity + g", new)
        assert list(not_yet(exercises.grades(path)["grade_of_rule"])) == [f"φ after step {k}" for k in wrong]

    def test_a_notebook_that_fails_is_told_of_and_graded_as_far_as_it_goes(self, tmp_path, capsys):
        path = handed_in(tmp_path, SOURCES[1], exercises.solved, "dl_dh_3 = omega[3] * dl_df_3", "dl_dh_3 = omega[9]")
        found = exercises.grades(path)
        assert found["grade_of_forward"]
        assert "IndexError" in capsys.readouterr().err


MAGIC = """%matplotlib inline
!echo nobody
import os
import numpy as np
np.dot?
display(np.ones(2))
os.chdir("elsewhere")
"""

FIRST = "import numpy as np\n"
SLY = """
import os
import backprop.testing.grading
np.allclose = lambda *arrays, **settings: True
backprop.testing.grading._number = None
os.system("echo solution")
print("solution")
"""

DOCUMENT = """
class Part {
  constructor(step, words) {
    this.dataset = step ? {step: String(step), say: words} : {};
    this.classes = new Set(); this.children = []; this.textContent = "";
    this.classList = {toggle: (name, on) => on ? this.classes.add(name) : this.classes.delete(name)};
  }
  append(...parts) { this.children.push(...parts); }
  addEventListener(kind, run) { this.press = run; }
}
const cells = [new Part(3, "three"), new Part(1, "one"), new Part(2, ""), new Part(2, "two")], say = new Part();
let bar = null;
const box = {querySelectorAll: () => cells, querySelector: () => say, insertBefore: (made) => { bar = made; }};
const document = {querySelectorAll: () => [box], createElement: () => new Part()};
SCRIPT
const steps = (wanted) => [...new Set(cells.filter(wanted).map((cell) => Number(cell.dataset.step)))].sort();
const state = () => ({shown: steps((c) => !c.classes.has("later")), now: steps((c) => c.classes.has("now")),
  said: say.textContent});
const press = (words) => { bar.children.find((button) => button.textContent === words).press(); return state(); };
const states = {"at first": state(), "From the start": press("From the start"), "Step": press("Step"),
  "Step, Step": press("Step"), "Back": press("Back"), "All": press("All"), "Step after all": press("Step")};
console.log(JSON.stringify(states));
"""


class TestSlides:
    def test_every_section_equation_and_picture_has_its_slide(self):
        for page in NOTES:
            text, deck = re.sub(r"<details>.*?</details>\n", "", page, flags=re.DOTALL), slides.deck(page)
            headings = [line for line in deck.splitlines() if line.startswith(("# ", "## "))]
            assert headings == re.findall(r"^##? .*", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
            shown = re.findall(r"^!\[.*\)$", text, re.M) + re.findall(r"^\$\$\n.*?^\$\$$", text, re.M | re.S)
            assert all(each in deck for each in shown)
            assert "](" not in re.sub(r"!\[.*?\]\(\S+\)", "", deck)  # links would lead nowhere
            assert "```python" not in deck

    def test_a_slide_is_not_overfull(self):
        for page in NOTES:
            for slide in re.split(r"^## .*|```\{revealjs-break\}", slides.deck(page), flags=re.MULTILINE):
                board = re.sub(r"````\{revealjs-notes\}.*?````", "", slide, flags=re.DOTALL)
                assert board.count("![") <= 1
                assert board.count("\n") < 45

    def test_are_built_without_a_warning_and_ask_nothing_of_the_net(self, tmp_path):
        pytest.importorskip("sphinx_revealjs", reason="the slides need the extra backprop-mlp[docs]")
        command = [sys.executable, DOCS / "slides.py", tmp_path / "slides"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        page = (tmp_path / "slides" / "02_chain_rule.html").read_text("utf-8")
        asked = re.findall(r'(?:src|href)="([^"]+)"|import\("([^"]+)"\)', page)
        for address in filter(None, (part for pair in asked for part in pair)):
            assert "://" not in address
            assert (tmp_path / "slides" / address.partition("?")[0]).exists(), address
        assert page.count("<section") > 20
        assert '<aside class="notes">' in page
        assert "RevealNotes" in page
