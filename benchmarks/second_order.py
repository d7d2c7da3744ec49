"""Training loss against training time: second-order methods on all examples, and tuned minibatch descent.

    python benchmarks/second_order.py

The digits in the package, a small smooth net, `--rounds` starting weights, the same for all; shown is the median over them. SGD
with momentum and Adam try every learning rate with every batch size, and the setting with the lowest median at the end is shown.
The time is that of training alone, the loss that of all training data in float64. The classes are separable, so the loss has no
minimum above 0. Writes second_order.csv, second_order.md and second_order.png.
"""

from __future__ import annotations

import argparse
import math
import sys
from itertools import product
from typing import Any

import common
import numpy as np

import backprop as bp

METHODS = ["L-BFGS-B", "CG", "Newton-CG", "trust-ncg"]
RATES = {"SGD": [0.03, 0.1, 0.3, 1.0], "Adam": [0.001, 0.003, 0.01, 0.03]}
Setting = tuple[float, int]  # learning rate and batch size
STYLES = {"SGD": (0, (1, 1)), "Adam": (0, (4, 1, 1, 1))}


def network(given: argparse.Namespace, seed: int) -> bp.Sequential:
    """A net with one smooth hidden layer."""
    return bp.Sequential(bp.Linear(64, given.hidden), bp.Tanh(), bp.Linear(given.hidden, 10), seed=seed)


def optimizer(name: str, learning_rate: float) -> bp.Optimizer:
    """SGD with the usual momentum, or Adam."""
    return bp.SGD(learning_rate, momentum=0.9) if name == "SGD" else bp.Adam(learning_rate)


class Clock(bp.Callback):
    """Stops when the records add up to a given training time."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    def epoch(self, trainer: Any, record: bp.Epoch) -> bool:
        """Count down."""
        self.left -= record.seconds
        return self.left <= 0


def second_order(method: str, net: bp.Sequential, X: np.ndarray, y: np.ndarray, seconds: float) -> list[Any]:
    """(seconds, loss) after each iteration."""
    history = bp.minimize(
        *(net, bp.CrossEntropy(), X, y),
        method=method,
        iterations=10**9,
        tolerance=0.0,
        callbacks=[Clock(seconds)],
        verbose=0,
    )
    return list(zip(np.cumsum(history["seconds"]), history["loss"], strict=True))


def descent(
    rule: bp.Optimizer, batch_size: int, net: bp.Sequential, X: np.ndarray, y: np.ndarray, marks: np.ndarray
) -> list[Any]:
    """(seconds, loss) after the first epoch past each mark. The loss is not measured within the time."""
    trainer = bp.Trainer(net, bp.CrossEntropy(), rule, batch_size=batch_size)
    exact = bp.Trainer(bp.Sequential(*[layer.copy() for layer in net], dtype="float64"), trainer.loss, rule)
    seconds, found = 0.0, []
    for epoch in trainer.epochs(X, y, 10**9):
        seconds += epoch.seconds
        if seconds >= marks[min(len(found), len(marks) - 1)]:
            exact.net.phi[...] = net.phi
            found.append((seconds, exact.evaluate(X, y)["loss"]))
        if seconds >= marks[-1]:
            return found
    return found


def at(marks: np.ndarray, curve: list[Any]) -> list[float]:
    """The last loss of a curve at each mark, NaN before its first."""
    seconds, losses = zip(*curve, strict=True)
    found = np.searchsorted(seconds, marks, side="right") - 1
    return [float(losses[k]) if k >= 0 else math.nan for k in found]


def run(name: str, setting: Setting | None, seed: int, given: argparse.Namespace) -> list[float]:
    """Losses of one training at the marks; inf if it diverges."""
    X, y = bp.load_digits()
    X, net = X / 16, network(given, seed)
    common.wait_until_quiet()
    try:
        if setting is None:
            curve = second_order(name, net, X, y, given.seconds)
        else:
            curve = descent(optimizer(name, setting[0]), setting[1], net, X.astype(np.float32), y, given.marks)
    except FloatingPointError:
        return [math.inf] * len(given.marks)
    return at(given.marks, curve)


def label(setting: Setting | None) -> str:
    """How a contender is set."""
    return "all examples" if setting is None else f"rate {setting[0]:g}, batch {setting[1]}"


def draw(rows: list[common.Row], path: Any) -> None:
    """One curve per contender."""
    if (picture := common.figure(7, 4.4)) is None:
        return
    axes = picture.subplots()
    for name in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == name]
        style = {"color": "black", "linestyle": STYLES[name]} if name in STYLES else {"linewidth": 1.8}
        text = f"{name}, {own[0]['setting']}" if name in STYLES else name
        axes.plot([row["seconds"] for row in own], [row["loss"] for row in own], label=text, **style)
    axes.set(xscale="log", yscale="log", xlabel="seconds of training", ylabel="cross-entropy of the training data")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    common.save(picture, path)


def options() -> argparse.Namespace:
    """The command line."""
    parser = common.parser(__doc__ or "", "second_order")
    parser.add_argument("--seconds", type=float, help="training time of each (default 1)")
    parser.add_argument("--rounds", type=int, help="trainings from other weights (default 5)")
    parser.add_argument("--hidden", type=int, default=32, help="width of the hidden layer (default %(default)s)")
    given = parser.parse_args()
    given.seconds = given.seconds or (0.05 if given.quick else 1.0)
    given.rounds = given.rounds or (1 if given.quick else 5)
    given.batches = [256] if given.quick else [16, 64, 256]
    given.rates = {name: rates[2:3] if given.quick else rates for name, rates in RATES.items()}
    given.marks = np.geomspace(given.seconds / 100, given.seconds, 41)
    return given


def measure(given: argparse.Namespace) -> dict[tuple[str, Setting | None], list[list[float]]]:
    """The curves of every contender in every setting, one for each round; Ctrl-C leaves out what is not done."""
    from tqdm import tqdm

    contenders: list[tuple[str, Setting | None]] = [(method, None) for method in METHODS]
    for name, rates in given.rates.items():
        contenders += [(name, setting) for setting in product(rates, given.batches)]
    found: dict[tuple[str, Setting | None], list[list[float]]] = {}
    with tqdm(total=given.rounds * len(contenders), file=sys.stderr, unit="run", dynamic_ncols=True) as bar:
        try:
            for seed, (name, setting) in product(range(given.rounds), contenders):
                found.setdefault((name, setting), []).append(run(name, setting, seed, given))
                bar.update()
        except KeyboardInterrupt:
            print("\nStopped by Ctrl-C.", file=sys.stderr)
    return found


def main() -> None:
    """Measure, choose, print, write."""
    given = options()
    medians = {who: np.median(rounds, axis=0) for who, rounds in measure(given).items()}
    best: dict[str, tuple[Setting | None, np.ndarray]] = {}
    for (name, setting), curve in medians.items():
        if name not in best or curve[-1] < best[name][1][-1]:
            best[name] = setting, curve
    if not best:
        return
    shown = [given.seconds * share for share in (0.03, 0.1, 0.3, 1)]
    table, rows = [], []
    for name, (setting, curve) in best.items():
        who = {"method": name, "setting": label(setting)}
        near = [float(curve[np.argmin(np.abs(given.marks - t))]) for t in shown]
        table.append(who | {f"loss after {t:.2g} s": loss for t, loss in zip(shown, near, strict=True)})
        rows += [who | {"seconds": float(t), "loss": float(L)} for t, L in zip(given.marks, curve, strict=True)]
    net = f"Net: 64-{given.hidden}-10 with tanh, cross-entropy, 1,797 digits; median of {given.rounds} round(s)"
    common.publish(given.out, "second_order", ["Second-order training", net, *common.environment()], table, rows)
    draw(rows, given.out / "second_order.png")


if __name__ == "__main__":
    main()
