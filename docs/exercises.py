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
import multiprocessing
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).resolve().parent / "class" / "exercises"
CELL = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)
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


def exercise_of(made: list[tuple[str, str]]) -> str:
    """The source of the exercise that a notebook is, known by its first line; "" for another notebook."""
    for source in SOURCES.glob("*.py"):
        whole = source.read_text("utf-8")
        title = next(cells(whole))[1].partition("\n")[0]
        if any(text.startswith(title) for _, text in made):
            return whole
    return ""


def questions(made: Iterable[tuple[str, str]]) -> dict[str, str]:
    """What is graded, by the name of its grade: `name = grade(…)` in cells of code that can be read."""
    found = {}
    for code in (python(text) for kind, text in made if kind == "code"):
        with contextlib.suppress(SyntaxError):
            for each in ast.walk(ast.parse(code)):
                if isinstance(each, ast.Assign) and ast.unparse(each.value).startswith("grade("):
                    found[ast.unparse(each.targets[0])] = ast.unparse(each.value)
    return found


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

    made, told = handed_in(path), sys.stderr
    names: dict[str, Any] = {"__name__": "__main__", "display": lambda *things, **settings: None}
    with (
        contextlib.chdir(path.parent),
        open(os.devnull, "w", encoding="utf-8") as nowhere,  # much may be printed
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        for number, (kind, text) in enumerate(made):
            if kind == "code":
                code, name = python(text), f"{path.name}, cell {number}"
                linecache.cache[name] = len(code), None, code.splitlines(keepends=True), name  # for lines that fail
                try:
                    exec(compile(code, name, "exec", dont_inherit=True), names)
                except (Exception, SystemExit) as error:
                    print(f"{name}: {type(error).__name__}: {str(error)[:300]}", file=told)
    found = {name: value for name, value in names.items() if isinstance(value, Grade)}
    return {name: found.get(name) for name in questions(cells(exercise_of(made))) | questions(made) | found}


def _grade(path: Path, answer: Connection) -> None:
    """In a process of its own: send the points by name, or None, and what there is to tell."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # what programs print that a notebook starts
    sys.stderr = told = io.StringIO()
    try:
        given = grades(path)
    except (OSError, ValueError) as error:
        answer.send((None, str(error)))
    else:
        points = {name: None if grade is None else (grade.points, len(grade.marks)) for name, grade in given.items()}
        answer.send((points, told.getvalue()))


def graded(path: Path, seconds: float) -> tuple[dict[str, tuple[int, int] | None] | None, str]:
    """The points of a notebook by name, and what there is to tell.

    It runs in a process of its own, for as long as it may: no notebook keeps the next one from being graded, or grades it.
    """
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe(duplex=False)
    process = context.Process(target=_grade, args=(path, its))
    process.start()
    its.close()
    try:
        return mine.recv() if mine.poll(seconds) else (None, f"{path.name}: it has not ended after {seconds:g} seconds")
    except EOFError:
        return None, f"{path.name}: it has ended the process in which it ran"
    finally:
        process.kill()
        process.join()


def report(path: Path, seconds: float) -> bool:
    """Print the grades of a notebook; False if there are none."""
    print(path.name)
    found, told = graded(path, seconds)
    if told:
        print(told.strip(), file=sys.stderr)
    if found is None:
        print("  not graded")
        return False
    made = handed_in(path)
    given, asked = questions(made), questions(cells(exercise_of(made)))
    for name, points in found.items():
        changed = points and given.get(name) != asked.get(name, given.get(name))
        said = "{} of {}".format(*points) if points else "missing"
        print(f"  {name:<24}{said}{', of another question' * bool(changed)}")
    return True


def main() -> None:
    """Write the notebooks, or grade some."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--solutions", type=Path, metavar="FOLDER", help="write the notebooks with solutions there, too"
    )
    parser.add_argument("--grade", type=Path, nargs="+", metavar="NOTEBOOK", help="run and grade these instead")
    parser.add_argument("--seconds", type=float, default=120.0, help="that each may take (default: %(default)g)")
    arguments = parser.parse_args()
    if arguments.grade:
        read = [report(path, arguments.seconds) for path in arguments.grade]  # all of them, whatever the first one is
        sys.exit(not all(read))
    for source in sorted(SOURCES.glob("*.py")):
        text = source.read_text("utf-8")
        source.with_suffix(".ipynb").write_text(notebook(text, with_holes), "utf-8")
        if arguments.solutions:
            arguments.solutions.mkdir(parents=True, exist_ok=True)
            (arguments.solutions / f"{source.stem}_solved.ipynb").write_text(notebook(text, solved), "utf-8")


if __name__ == "__main__":
    main()
