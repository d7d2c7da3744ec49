"""The documentation says what is true: its code runs, its links resolve, its names and arguments are those of the library."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
import tomllib
from pathlib import Path

import pytest

import backprop as bp

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FOLDERS = ("backprop", "tests", "benchmarks", "docs", "examples")
CODE = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
API = (ROOT / "docs" / "reference" / "api.md").read_text("utf-8")
BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def run(page):
    """Run the Python blocks of a page in order, in one namespace; an error shows the page's own line.

    Returns (printed, shown) of each block that has a text below it.
    """
    text, namespace, pairs = page.read_text("utf-8"), {"__name__": page.stem}, []
    for block in BLOCK.finditer(text):
        first_line = text[: block.start(1)].count("\n")
        code = compile("\n" * first_line + block[1], str(page), "exec", dont_inherit=True)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)  # the blocks are our own
        if block[2]:
            pairs.append((printed.getvalue(), block[2]))
    return pairs


def words(text):
    """The words of a text, whatever its numbers are and how its lines are broken."""
    return sorted(re.findall(r"[^\W\d_]{2,}", text))


# Those that have a closer test: test_readme.py, test_notes_pages.py for the notes, test_class.py for a class.
ELSEWHERE = re.compile(r"README\.md|docs/notes/\d\d_.*|docs/class/.*")


@pytest.mark.parametrize("page", [page for page in PAGES if not ELSEWHERE.fullmatch(name_of(page))], ids=name_of)
def test_every_block_runs_and_prints_what_is_shown(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for printed, shown in run(page):
        assert words(printed) == words(shown)


def test_the_first_page_shows_what_it_prints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs = run(ROOT / "docs" / "start.md")
    assert len(pairs) == 6

    def form(text):  # the last digits differ from machine to machine, and with them which images are misread
        return re.sub(r"\d+(\.\d)?%|\d\.\de-\d+|(?<=read as ).*", "#", text).split()

    for printed, shown in pairs:
        assert form(printed) == form(shown)


def test_the_code_of_the_doors_is_not_cut():
    """Three columns on a window 1280 wide have room for 33 characters."""
    blocks = BLOCK.findall((ROOT / "docs" / "index.md").read_text("utf-8"))
    assert len(blocks) == 3
    assert max(len(line) for code, _ in blocks for line in code.splitlines()) <= 33


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.search(r"^cff-version: 1\.2\.0$", citation, re.MULTILINE)
    assert re.search(rf"^version: {re.escape(bp.__version__)}$", citation, re.MULTILINE)


@every_page
def test_installs_this_project_and_no_other(page):
    assert not re.search(r"pip install backprop(?!-mlp)", page.read_text("utf-8"))


NEEDS = {r"^import (pandas) as": "", r"^import (polars) as": "", r"^.*bp\.to_(onnx)\(": r"backprop-mlp\[[a-z,]*"}


@every_page
def test_says_what_its_blocks_need_beside_this_project(page):
    text = page.read_text("utf-8")
    for line, before in NEEDS.items():
        for name in {*re.findall(line, "".join(code for code, _ in BLOCK.findall(text)), re.MULTILINE)}:
            assert re.search(rf"pip install [^`\n]*{before}{name}", text), f"{page.name} does not say what has {name}"


def test_a_program_that_is_a_file_has_its_imports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "train" / "many_machines.md"
    folder, program = (code for code, _ in BLOCK.findall(page.read_text("utf-8"))[:2])
    for code in (folder, program):
        exec(compile(code, str(page), "exec", dont_inherit=True), names := {"__name__": "__main__"})
    assert names["trainer"].epochs_done > 0  # the program has trained, with nothing but what it imports itself


@every_page
def test_relative_links_resolve(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            path = (page.parent / target.partition("#")[0]).resolve()
            assert path.is_relative_to(ROOT), target
            assert path.exists(), f"{page.name} links to {target}, which does not exist"


@every_page
def test_names_of_the_library_exist(page):
    for dotted in re.findall(r"\bbp\.([A-Za-z_][\w.]*\w)", page.read_text("utf-8")):
        thing = bp
        for part in dotted.split("."):
            assert hasattr(thing, part), f"bp.{dotted}"
            thing = getattr(thing, part)


def in_sentences(page):
    """The code in backticks of a page, without its blocks."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`]+)`", text)


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "migrate"], ids=name_of)
def test_calls_in_sentences_name_arguments_there_are(page):
    for call in (match for code in in_sentences(page) if (match := re.fullmatch(r"(?:bp\.)?([\w.]+)\((.+)\)", code))):
        first, _, rest = call[1].partition(".")
        thing = things().get(first) or getattr(bp, first, None) or getattr(bp.estimators, first, None)
        for part in rest.split(".") if rest else []:
            thing = getattr(thing, part, None)
        if thing is not None:
            parameters = inspect.signature(thing).parameters
            outermost = re.sub(r"\([^()]*\)|\[[^][]*\]|\{[^{}]*\}", "", call[2])
            named = set(re.findall(r"(\w+)=", outermost))
            assert named <= set(parameters) or "kwargs" in parameters, call[0]


class TestHouse:
    DRAWING = re.search(
        r"^```text\n(.*?)^```$", (ROOT / "docs/reference/design.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )[1]

    def floors(self):
        """The names on each floor, from the top: single words, alone or joined by dots and arrows."""
        for floor in re.split(r"^ *├─+┤$", self.DRAWING, flags=re.MULTILINE):
            pieces = map(str.strip, re.split(r"  +|│", floor))
            yield {
                name for piece in pieces if re.fullmatch(r"\w+( [·→] \w+)*", piece) for name in re.split(r"\W+", piece)
            }

    def test_every_room_is_drawn(self):
        package = ROOT / "backprop"
        inside = [path for room in ("training", "gradients", "engine") for path in (package / room).iterdir()]
        modules = [*package.iterdir(), *inside]
        rooms = {path.stem for path in modules if path.suffix == ".py" or (path / "__init__.py").exists()}
        assert rooms - {"__init__", "gradients"} - set().union(*self.floors()) == set()

    def test_rooms_are_on_the_floors_of_the_contract(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
        drawn, floors = [], list(self.floors())
        for row in project["tool"]["importlinter"]["contracts"][0]["layers"]:
            for room in re.findall(r"backprop\.(\w+)", row):
                (floor,) = (i for i, names in enumerate(floors) if {"gradients": "insight"}.get(room, room) in names)
                drawn.append(floor)
        assert set(drawn) == set(range(7))
        assert drawn == sorted(drawn)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/reference/design.md"])
def test_files_named_in_sentences_exist(name):
    for code in in_sentences(ROOT / name):
        if re.fullmatch(r"[\w./]+\.(py|md|toml)|[\w./]+/", code):
            assert (ROOT / code).exists() or (ROOT / "backprop" / code).exists(), code


@pytest.mark.parametrize("path", [*PAGES, *CODE], ids=name_of)
def test_mentions_no_path_outside_the_project(path):
    # What Linux itself provides is the same on every machine; /backprop/ is a part of a path, wherever the package lies.
    absolute = re.compile(
        r"(?<![\w.:/<)\]}…-])/(?!dev/|proc/|sys/|usr/bin/env|usr/lib|backprop/)[a-z_]+/[\w.-]+|(?<!\w)~/\w|\b[A-Z]:\\(?!n)\w"
    )
    text = path.read_text("utf-8")
    assert not absolute.findall(text)
    for above in re.findall(r"(?:\.\./)+[\w./-]*", text):
        assert (path.parent / above).resolve().is_relative_to(ROOT), above
        assert (path.parent / above).exists(), above


def cells(text):
    """The code in the first cell of every table row: a name, or a call with its parameters."""
    for row in re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE):
        yield from re.findall(r"`([^`]+)`", row)


def things():
    """What the first words of the tables of methods stand for."""
    net = bp.Sequential(bp.Linear(1, 1))
    loss, optimizer = bp.LeastSquares(), bp.SGD(0.1)
    return {"net": net, "loss": loss, "optimizer": optimizer, "trainer": bp.Trainer(net, loss, optimizer)}


class TestApi:
    def test_has_every_public_name_and_no_other(self):
        named = {cell.partition("(")[0].partition(".")[0] for cell in cells(API)}
        first_words = (*things(), "estimators", "datasets", "distributed", "gradients", "formats", "plots", "testing")
        assert named - set(first_words) == set(bp.__all__)

    @pytest.mark.parametrize("cell", list(cells(API)), ids=lambda cell: cell.partition("(")[0])
    def test_shows_arguments_as_they_are(self, cell):
        dotted, is_call, parameters = cell.partition("(")
        first, _, rest = dotted.partition(".")
        thing = things().get(first) or getattr(bp, first)
        for part in rest.split(".") if rest else []:
            thing = getattr(thing, part)
        if is_call:
            assert arguments(inspect.signature(thing)) == arguments(written(parameters.removesuffix(")")))

    def test_shows_the_equations_as_they_are(self):
        shown = API.replace("\\|", "|")
        for name in bp.__all__:
            for equation in vars(getattr(bp, name)).get("equations", ()):
                if not equation.endswith("[h]") or name != "Layer":
                    assert equation in shown, f"{name}: {equation}"


def written(parameters):
    """The signature of a parameter list as it stands in the text."""
    tree = ast.parse(f"def f({parameters}): ...")
    namespace = {}
    exec(compile(tree, "api.md", "exec"), namespace)
    return inspect.signature(namespace["f"])


def arguments(signature):
    """Names, kinds and defaults, without annotations."""
    return [(parameter.name, parameter.kind, parameter.default) for parameter in signature.parameters.values()]
