"""The notes, worked: the pages run, print what they show, draw what they show, and end with three checked exercises."""

from __future__ import annotations

import contextlib
import io
import re
from itertools import pairwise
from pathlib import Path

import pytest

NOTES = Path(__file__).resolve().parents[1] / "docs" / "notes"
PAGES = sorted(NOTES.glob("[0-9][0-9]_*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d+")
MOST_BYTES = 130_000  # as text, which travels at a fifth of it

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def runs(page):
    """(line, printed, shown) of every block, run in order in one namespace; shown is the text block right below it, or ""."""
    text, namespace = page.read_text("utf-8"), {"__name__": page.stem}
    for block in BLOCK.finditer(text):
        line, printed = text[: block.start(1)].count("\n"), io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * line + block[1], str(page), "exec", dont_inherit=True), namespace)  # our own code
        lines = [each.rstrip() for each in printed.getvalue().splitlines()]
        yield line, "\n".join(lines).rstrip("\n"), (block[2] or "").rstrip("\n")


def agree(printed, shown):
    """The same text; counts of bytes, which depend on the version of Python, may differ by 2 activations."""
    if "activations" not in shown:
        return printed == shown
    a, b = (list(map(int, NUMBER.findall(text))) for text in (printed, shown))
    return NUMBER.sub("#", printed).split() == NUMBER.sub("#", shown).split() and all(
        abs(m - n) <= 2 for m, n in zip(a, b, strict=True)
    )


def pictures(page):
    """Names of the pictures that a page shows."""
    return set(re.findall(r"^!\[[^\]]+\]\((\S+)\)$", page.read_text("utf-8"), re.MULTILINE))


@every_page
def test_prints_and_draws_what_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line, printed, shown in runs(page):
        assert agree(printed, shown), (
            f"{page.name}, the block at line {line} prints\n{printed}\nand the page shows\n{shown}"
        )
    assert pictures(page) == {path.name for path in tmp_path.iterdir()}
    for name in pictures(page):
        assert (NOTES / name).stat().st_size < MOST_BYTES


def test_agree_can_disagree():
    assert agree("holds 76 activations", "holds 75 activations")
    assert not agree("holds 76 activations", "holds 70 activations")
    assert not agree("held 76 activations", "holds 76 activations")
    assert not agree("0.75", "0.76")


@every_page
def test_ends_with_three_exercises_and_checked_answers(page):
    _, exercises = page.read_text("utf-8").split("\n## Exercises\n")
    questions = re.split(r"^\*\*(\d)\.\*\* ", exercises, flags=re.MULTILINE)[1:]
    assert questions[::2] == ["1", "2", "3"]
    for text in questions[1::2]:
        question, answer = text.split("\n<details><summary>Answer</summary>\n\n")
        assert question.strip()
        answer, _ = answer.split("\n</details>\n")
        assert any("assert " in block[1] for block in BLOCK.finditer(answer))


def test_lead_from_one_to_the_next():
    names = [page.name for page in PAGES]
    assert len(names) == 10
    assert re.findall(r"^\d+\. \[[^\]]+\]\((\S+)\)", (NOTES / "index.md").read_text("utf-8"), re.MULTILINE) == names
    for page, following in pairwise(PAGES):
        assert re.search(rf"^Next: \[[^\]]+\]\({following.name}\)\.$", page.read_text("utf-8"), re.MULTILINE)


def test_no_picture_is_left_over():
    shown = set().union(*map(pictures, PAGES))
    assert shown == {path.name for path in NOTES.iterdir() if path.suffix in {".png", ".svg"}}
