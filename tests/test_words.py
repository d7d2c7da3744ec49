"""Messages that a command can say are in its words: a walk through all texts of the modules below it."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import backprop
from backprop.cli.words import MOST, PHRASES, printable, spoken

PACKAGE = Path(backprop.__file__).parent
BELOW = [
    "tables",
    "training",
    "files",
    "formats",
    "sequential.py",
    "prediction.py",
    "around",
    "architecture.py",
    "checks.py",
    "losses",
    "optimizers",
]
PYTHON = re.compile(r"\bbp\.\w|\b[a-z_]+=['\"\w…\[(]|\b[A-Za-z_]+\.[a-z_]+\(|\b(Table|Trainer|Sequential|MLP\w+)\.\w")
NOT_SAID = {  # what a text begins with, and why no command says it
    "Use X.reshape(": "commands hand over tables with rows and columns",
    "Sum over the wrong axis?": "of layers of one's own, which `check` tests in the words of Python",
    "help(bp.": "of `autodiff`",
    "Make numbers of it: days since a date. Table": "commands make numbers of dates before a table sees them",
    "Convert it first: module.float()": "of modules of PyTorch, which no command reads",
    "Pass y.ravel()": "commands hand over targets of one column",
    "Call optimizer.": "of optimizers by hand",
    "MLPClassifier.load or": "which a phrase takes with the rest of its sentence",
    "momentum > 0": "--optimizer sgd has momentum and not Nesterov's",
    "Use layer.copy()": "of networks made in Python",
    "Train with bp.Trainer": "of rows from disk",
    "Rows that bring their own": "of rows from disk",
    "Pass dtype='float64' and": "of rows from disk",
    "It is too large for X: scale it": "of rows from disk",
    "Leave native=": "commands leave it",
    "what Table.state": "what it says is replaced by the refusal of the file",
    "Trainer.fit with decay": "of averages of weights",
    "Pass append=True": "commands say which of both they mean",
    "sklearn.metrics.": "commands name no metrics",
    "Use trainer.save(": "commands copy no trainers",
    "/* A network": "a file that is exported",
    "LearningRateReport(": "what Python shows of it",
    "BatchSizeReport(": "what Python shows of it",
    "X, X, X, batch_size=X": "what Python shows of a trainer",
    "shards=X, X for a batch": "of ranks, on which no command trains",
    "Write shards=": "of ranks, on which no command trains",
}


@cache
def texts(path):
    """All texts of a module but its docstrings, with X where something is put in."""
    return [*walk(path)]


def walk(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = ast.FunctionDef | ast.ClassDef | ast.Module
    bodies = [node.body[0] for node in ast.walk(tree) if isinstance(node, kinds) and node.body]
    aside = {id(node.value) for node in bodies if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            aside |= {id(part) for part in ast.walk(node) if part is not node}
            if id(node) not in aside:
                yield "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in aside:
            yield node.value


MODULES = [
    path
    for name in BELOW
    for path in ([PACKAGE / name] if name.endswith(".py") else sorted((PACKAGE / name).rglob("*.py")))
    if path.name != "numpy_file.py"  # whose texts are the file that it writes
]
COMMANDS = [path for path in sorted((PACKAGE / "cli").glob("*.py")) if path.name != "words.py"]


@pytest.mark.parametrize("path", [*MODULES, *COMMANDS], ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_text_speaks_python(path):
    for text in texts(path):
        if " " in text and not spoken(text).startswith(tuple(NOT_SAID)) and "load_state_dict" not in text:
            assert not PYTHON.search(spoken(text)), spoken(text)


def test_no_exception_is_idle():
    all_texts = [spoken(text) for path in MODULES for text in texts(path)]
    for start in NOT_SAID:
        assert any(text.startswith(start) and PYTHON.search(text) for text in all_texts) or start == "help(bp.", start


@pytest.mark.parametrize("pattern", PHRASES)
def test_every_phrase_is_one_that_the_library_says(pattern):
    source = "\n".join(text for path in MODULES for text in texts(path))
    together = "Trainer.resume('x'): \nTable.fit: Trainer.resume opens it. Sequential.load opens it. MLPRegressor.load opens it."
    together += (
        " Afterwards a callback changed the weights, as BestWeights does when training ends."  # a note of an error
    )
    together += "\nto_numpy: expected"  # who says it is handed on
    numpy = "Object arrays cannot be loaded when allow_pickle=False"
    models = (PACKAGE / "cli" / "models.py").read_text("utf-8")
    assert re.search(pattern, "\n".join([source, together, numpy, models]), re.MULTILINE)


def test_it_is_one_line_that_a_terminal_does_not_obey():
    assert spoken("a\nb\t c") == "a b c"
    assert printable("\x1b[31m\u202e\x9b ä\u200b") == "\\x1b[31m\\u202e\\x9b ä\\u200b"
    long = spoken("x" * 10**6 + " the end")
    assert len(long) < MOST + 10
    assert long.endswith(" the end")
