"""How much there is to read: the chalkboard, and the functions that a step by hand, a layer, and a fit enter, with docstrings."""

import inspect
import sys
from pathlib import Path

import numpy as np

import backprop as bp

HOME = str(Path(bp.__file__).parent)
# The floor of the mathematics, with the checks and functions that it leans on.
CHALKBOARD = ["layers", "losses", "optimizers", "initializers", "schedules", "constraints", "sequential"]
CHALKBOARD += ["checks", "functions"]
# What stands around it, once for all: machinery, and no mathematics.
AROUND = ["around", "prediction", "training/projections"]


def read(run):
    """Lines and files of the functions of the library that `run` enters."""
    entered = set()

    def note(frame, event, arg):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(HOME) and code.co_name != "<module>":
            entered.add(code)

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    lines = set()
    for code in entered:
        source, start = inspect.getsourcelines(code)
        lines |= {(code.co_filename, start + i) for i in range(len(source))}
    return len(lines), len({file for file, _ in lines})


def made():
    rng = np.random.default_rng(0)
    net = bp.Sequential(bp.Linear(3, 4), bp.ReLU(), bp.Linear(4, 2), seed=0)
    return net, rng.normal(size=(60, 3)).astype("f"), rng.normal(size=(60, 2)).astype("f")


def lines_of(rooms):
    """Lines of each file in these rooms."""
    files = [path for room in rooms for path in (*Path(HOME, room).glob("*.py"), Path(HOME, f"{room}.py"))]
    return {path: len(path.read_text("utf-8").splitlines()) for path in files if path.exists()}


def test_the_chalkboard():
    lines = lines_of(CHALKBOARD)
    of_tables = {path: n for path, n in lines.items() if path.name in ("columns.py", "members.py")}
    assert len(of_tables) == 3
    assert sum(of_tables.values()) <= 805  # columns of tables, members and their loss, which came later
    assert 2000 < sum(lines.values()) - sum(of_tables.values()) <= 3070


def test_what_stands_around_it():
    assert 500 < sum(lines_of(AROUND).values()) <= 720


def test_a_step_by_hand():
    net, X, Y = made()
    loss, optimizer = bp.LeastSquares(), bp.SGD(0.1)

    def step():
        loss.forward(net.forward(X.T), Y.T)
        _, gradients = net.backward(loss.backward())
        optimizer.step(net.phi, gradients.dL_dphi)

    lines, files = read(step)
    assert 200 < lines <= 330
    assert files <= 10


def test_both_passes_of_linear():
    layer, (_, X, _) = bp.Linear(3, 4), made()
    lines, files = read(lambda: layer.backward(layer.forward(X.T)))
    assert 50 < lines <= 90
    assert files <= 5


def test_an_epoch_of_fit(monkeypatch):
    monkeypatch.setenv("BACKPROP_NATIVE", "0")  # the player in NumPy, which is the one to read
    net, X, Y = made()
    trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.01))
    trainer.fit(X, Y, epochs=1, verbose=0)  # the plan of the step is made here, once
    lines, _ = read(lambda: trainer.fit(X, Y, epochs=1, verbose=0))
    assert 500 < lines <= 1430
