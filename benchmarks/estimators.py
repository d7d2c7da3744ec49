"""Our estimators against scikit-learn's, with the same parameters on the same data: seconds of `fit`, and scores.

    python benchmarks/estimators.py

For each data set (the digits, a table of 100,000 × 50 with 2 targets, the same with 10 classes), solver and batch size, in one
process: theirs, ours, theirs, … with another `random_state` in each round. The number of epochs or iterations is fixed, so that
both do the same work. Between two fits there is a pause: the threads of NumPy's BLAS and of SciPy's, which the two libraries use,
each go on spinning for some 20 ms after their last product, on the cores that the other needs. Writes estimators.csv,
estimators.md and estimators.png.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import common
import numpy as np
from sklearn import neural_network
from sklearn.datasets import load_digits
from tqdm import tqdm

from backprop import estimators

SOLVERS = [("sgd", 32), ("sgd", 200), ("sgd", 4096), ("adam", 32), ("adam", 200), ("adam", 4096), ("lbfgs", 200)]
PAUSE = 0.1  # seconds
EPOCHS = {"digits": 20, "table, 2 targets": 2, "table, 10 classes": 2}


def data(name: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """X and y of a data set; the tables are drawn, from a network that is not the one that is fitted."""
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        return X[:n] / 16, y[:n]
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 50))
    hidden = np.tanh(X @ rng.normal(size=(50, 20)) / 7)
    if name == "table, 2 targets":
        return X, hidden @ rng.normal(size=(20, 2)) + 0.1 * rng.normal(size=(n, 2))
    return X, np.argmax(hidden @ rng.normal(size=(20, 10)) + 0.1 * rng.normal(size=(n, 10)), axis=1)


def fit(module: Any, name: str, X: np.ndarray, y: np.ndarray, settings: dict[str, Any]) -> tuple[float, float]:
    """(seconds of fit, score on held-out rows)."""
    kind = module.MLPRegressor if name == "table, 2 targets" else module.MLPClassifier
    held = slice(0, len(X) // 5)
    model = kind(hidden_layer_sizes=(100,), **settings)
    time.sleep(PAUSE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that so few epochs do not converge
        begin = time.perf_counter()
        model.fit(X[held.stop :], y[held.stop :])
        seconds = time.perf_counter() - begin
    return seconds, float(model.score(X[held], y[held]))


def measure(n: int, rounds: int, seeds: int) -> list[common.Row]:
    """A row for each fit; where a fit takes long, there are fewer than `seeds` rounds, but at least `rounds`."""
    rows: list[common.Row] = []
    cases = [(name, *solver) for name in EPOCHS for solver in SOLVERS]
    for name, solver, batch_size in tqdm(cases, file=sys.stderr, dynamic_ncols=True):
        X, y = data(name, n)
        spent, seed = 0.0, 0
        while seed < rounds or (seed < seeds and spent < 4):
            settings: dict[str, Any] = {"solver": solver, "batch_size": batch_size, "random_state": seed, "tol": 0.0}
            settings |= {"max_iter": EPOCHS[name] if solver != "lbfgs" else 20, "n_iter_no_change": 10**6}
            for library, module in (("scikit-learn", neural_network), ("backprop", estimators)):
                seconds, score = fit(module, name, X, y, settings)
                spent += seconds
                row = {"data": name, "solver": solver, "batch_size": batch_size, "library": library, "seed": seed}
                rows.append(row | {"seconds": seconds, "score": score})
            seed += 1
    return rows


def summary(rows: list[common.Row]) -> list[common.Row]:
    """Medians of each case, and the geometric mean of the ratios."""
    lines: list[common.Row] = []
    for case in dict.fromkeys((row["data"], row["solver"], row["batch_size"]) for row in rows):
        mine, theirs = (
            [r for r in rows if (r["data"], r["solver"], r["batch_size"]) == case and r["library"] == library]
            for library in ("backprop", "scikit-learn")
        )
        ratio = statistics.median(t["seconds"] / m["seconds"] for t, m in zip(theirs, mine, strict=True))
        scores = [np.array([r["score"] for r in part]) for part in (mine, theirs)]
        lines.append(
            {
                **dict(zip(("data", "solver", "batch"), case, strict=True)),
                "theirs / ours": ratio,
                "ours, ms": 1e3 * statistics.median(m["seconds"] for m in mine),
                "score": f"{scores[0].mean():.4f} ± {scores[0].std():.4f}",
                "their score": f"{scores[1].mean():.4f} ± {scores[1].std():.4f}",
                "fits": len(mine),
            }
        )
    return lines


def draw(lines: list[common.Row], path: Path) -> None:
    """A bar for each case: how many times longer scikit-learn takes."""
    if (picture := common.figure(7, 5)) is None:
        return
    axes = picture.subplots()
    names = [f"{line['data']}, {line['solver']}, {line['batch']}" for line in reversed(lines)]
    bars = axes.barh(names, [line["theirs / ours"] for line in reversed(lines)], color="0.5")
    axes.bar_label(bars, fmt=" %.2f", fontsize=7)
    axes.axvline(1, color="black", linewidth=1)
    axes.tick_params(labelsize=7)
    axes.set(xlabel="scikit-learn's time over ours")
    common.save(picture, path)


def main() -> None:
    """Measure, print, write."""
    parser = common.parser(__doc__ or "", "estimators")
    parser.add_argument("--seeds", type=int, help="rounds of each case, at most (default 10)")
    given: argparse.Namespace = parser.parse_args()
    rows = measure(400 if given.quick else 100_000, 1 if given.quick else 3, 1 if given.quick else given.seeds or 10)
    lines = summary(rows)
    mean = common.geometric_mean(line["theirs / ours"] for line in lines)
    about = [*common.environment(["backprop-mlp", "scikit-learn", "numpy", "scipy"])]
    about.append(f"Geometric mean of theirs / ours: {mean:.2f}, least {min(r['theirs / ours'] for r in lines):.2f}")
    common.publish(given.out, "estimators", ["Estimators", *about], lines, every=rows)
    draw(lines, given.out / "estimators.png")


if __name__ == "__main__":
    main()
