"""Make the exercises of a class: `python docs/exercises.py [--solutions folder]`, and grade them: `… --grade notebook …`.

Each is written once, with its solution, as a program in cells (docs/class/exercises/*.py):

    # %% [markdown]            a cell of text, in comments
    # %%                       a cell of code
    # your turn: a hint        what follows, up to "# thank you", is the solution

The notebooks for students have holes in the place of the solutions: `name = ...` for what is assigned, `return ...` where
something is returned. They lie beside the sources; those with solutions go to a folder of yours.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import json
import linecache
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).resolve().parent / "class" / "exercises"
CELL = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)
GRADE = re.compile(r"^(\w+) = grade\(", re.MULTILINE)
MAGIC = re.compile(r"^([ \t]*)([%!?].*|[\w.]+\?+[ \t]*)$", re.MULTILINE)
SOLUTION = re.compile(r"^( *)# your turn(.*)\n((?:.*\n)*?) *# thank you\n?", re.MULTILINE)


def cells(text: str) -> Iterator[tuple[str, str]]:
    """("markdown" or "code", text) of each cell of a source."""
    _, *parts = CELL.split(text)
    for markdown, body in zip(parts[::2], parts[1::2], strict=True):
        if markdown:
            yield "markdown", re.sub(r"^# ?", "", body, flags=re.MULTILINE).strip()
        else:
            yield "code", body.strip()


def with_holes(code: str) -> str:
    """The code with a hole for each solution."""
    return SOLUTION.sub(
        lambda found: f"{found[1]}# your turn{found[2]}\n{hole(found[3], found[1])}\n", f"{code}\n"
    ).strip()


def solved(code: str) -> str:
    """The code with its solutions, without the marks."""
    return re.sub(r"^ *# thank you\n?", "", f"{code}\n", flags=re.MULTILINE).strip()


def hole(solution: str, margin: str) -> str:
    """What stands in the place of a solution: the names it gives, each with nothing yet."""
    statements = ast.parse(textwrap.dedent(solution)).body
    if any(isinstance(statement, ast.Return) for statement in statements):
        return f"{margin}return ..."
    names = [ast.unparse(each.targets[0]) for each in statements if isinstance(each, ast.Assign)]
    lines = [f"{name} = ..." for name in names if name.isidentifier()]
    return "\n".join(margin + line for line in lines or ["..."])


def notebook(text: str, change: Any) -> str:
    """A notebook of the cells of a source, each code cell changed."""
    made = []
    for number, (kind, body) in enumerate(cells(text)):
        lines = (change(body) if kind == "code" else body).splitlines(keepends=True)
        cell: dict[str, Any] = {"cell_type": kind, "id": f"c{number}", "metadata": {}, "source": lines}
        made.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"cells": made, "metadata": {"kernelspec": python}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def handed_in(path: Path) -> list[tuple[str, str]]:
    """("markdown" or "code", text) of each cell of a notebook. Raises ValueError for what is none."""
    try:
        return [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(path.read_text("utf-8"))["cells"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name}: expected a notebook, got {type(error).__name__}: {error}") from None


def asked(made: list[tuple[str, str]]) -> dict[str, None]:
    """The names of the grades that a notebook has, or that its exercise, known by its first line, had."""
    texts = [text for kind, text in made if kind == "code"]
    for source in SOURCES.glob("*.py"):
        whole = source.read_text("utf-8")
        title = next(cells(whole))[1].partition("\n")[0]
        texts += [whole] if any(text.startswith(title) for _, text in made) else []
    return dict.fromkeys(name for text in texts for name in GRADE.findall(text))


def python(code: str) -> str:
    """A cell without the lines that are a notebook's own, if it has some: they do nothing here."""
    try:
        ast.parse(code)
    except SyntaxError:
        return MAGIC.sub(r"\1pass  # \2", code)
    return code


def grades(path: Path) -> dict[str, Any]:
    """Run a notebook that was handed in, in its folder, and return its grades by name, None for one that is missing.

    It runs what somebody else wrote. Raises ValueError or OSError for what is no notebook.
    """
    from backprop.testing import Grade

    made = handed_in(path)
    names: dict[str, Any] = {"__name__": "__main__", "display": lambda *things, **settings: None}
    with contextlib.chdir(path.parent), contextlib.redirect_stdout(io.StringIO()):
        for number, (kind, text) in enumerate(made):
            if kind == "code":
                code, name = python(text), f"{path.name}, cell {number}"
                linecache.cache[name] = len(code), None, code.splitlines(keepends=True), name  # for lines that fail
                try:
                    exec(compile(code, name, "exec", dont_inherit=True), names)
                except (Exception, SystemExit) as error:
                    print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
    found = {name: value for name, value in names.items() if isinstance(value, Grade)}
    return {name: found.get(name) for name in asked(made) | found}


def report(path: Path) -> bool:
    """Print the grades of a notebook; False for a file that is none."""
    print(path.name)
    try:
        found = grades(path)
    except (OSError, ValueError) as error:
        print("  not graded")
        print(error, file=sys.stderr)
        return False
    for name, each in found.items():
        print(f"  {name:<24}{'missing' if each is None else f'{each.points} of {len(each.marks)}'}")
    return True


def main() -> None:
    """Write the notebooks, or grade some."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--solutions", type=Path, metavar="FOLDER", help="write the notebooks with solutions there, too"
    )
    parser.add_argument("--grade", type=Path, nargs="+", metavar="NOTEBOOK", help="run and grade these instead")
    arguments = parser.parse_args()
    if arguments.grade:
        read = [report(path) for path in arguments.grade]  # all of them, whatever the first one is
        sys.exit(not all(read))
    for source in sorted(SOURCES.glob("*.py")):
        text = source.read_text("utf-8")
        source.with_suffix(".ipynb").write_text(notebook(text, with_holes), "utf-8")
        if arguments.solutions:
            arguments.solutions.mkdir(parents=True, exist_ok=True)
            (arguments.solutions / f"{source.stem}_solved.ipynb").write_text(notebook(text, solved), "utf-8")


if __name__ == "__main__":
    main()
