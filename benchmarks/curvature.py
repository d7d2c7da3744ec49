"""What a product with second derivatives costs beside one gradient of the same network.

    python benchmarks/curvature.py

The gradient is forward, loss and backward of an ordinary network in the same dtype, float32. For each network, activation and
batch size all take turns in one process on one CPU. A product is that of a `Curvature` made before, with another vector each
time: many at one φ, as an eigenvalue needs them, or one at each φ. Writes curvature.csv, curvature.md and curvature.png.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np

import backprop as bp

NETS = {"64-32-10": [64, 32, 10], "784-128-10": [784, 128, 10], "784-512-512-10": [784, 512, 512, 10]}
ACTIVATIONS = {"ReLU": bp.ReLU, "Tanh": bp.Tanh, "GELU": bp.GELU}
PRODUCTS = ["hessian", "hessian at a new φ", "gauss-newton", "empirical fisher"]


def network(widths: list[int], activation: Callable[[], bp.Layer]) -> bp.Sequential:
    """A net with this activation between its linear layers."""
    layers: list[bp.Layer] = []
    for k, (D_in, D_out) in enumerate(itertools.pairwise(widths)):
        layers += [activation()] * (k > 0) + [bp.Linear(D_in, D_out)]
    return bp.Sequential(*layers, seed=0)


def contenders(net_name: str, activation: str, N: int) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    widths = NETS[net_name]
    net, loss = network(widths, ACTIVATIONS[activation]), bp.CrossEntropy()
    X, y = common.synthetic(N, widths[0], widths[-1])
    h, curvature, moving = np.ascontiguousarray(X.T), bp.Curvature(net, loss, X, y), bp.Curvature(net, loss, X, y)
    vectors = itertools.cycle(np.random.default_rng(1).standard_normal((8, net.size), np.float32))
    points = itertools.cycle([net.phi * np.float32(1 + k / 1000) for k in range(1, 4)])

    def gradient() -> np.ndarray:
        loss.forward(net.forward(h), y)
        _, gradients = net.backward(loss.backward())
        return gradients.dL_dphi

    return {
        "gradient": gradient,
        "hessian": lambda: curvature.hessian_product(next(vectors)),
        "hessian at a new φ": lambda: moving.at(next(points)).hessian_product(next(vectors)),
        "gauss-newton": lambda: curvature.gauss_newton_product(next(vectors)),
        "empirical fisher": lambda: curvature.fisher_product(next(vectors), empirical=True),
    }


def answer(job: dict[str, Any]) -> list[common.Row]:
    """The worker's side: all contenders in turns, after one call each to warm up."""
    timed = contenders(job["net"], job["activation"], job["batch"])
    once = {name: [function(), common.seconds(function, 1)][1] for name, function in timed.items()}
    calls = {name: 1 if job["quick"] else max(1, min(100, int(0.02 / took))) for name, took in once.items()}
    where = {key: job[key] for key in ("net", "activation", "batch")}
    return [
        where | {"what": name, "repetition": repetition, "seconds": common.seconds(function, calls[name])}
        for repetition in range(job["repetitions"])
        for name, function in timed.items()
    ]


def summary(rows: list[common.Row]) -> list[common.Row]:
    """The median gradient, and the median of each product over the gradient of the same turn."""
    lines = []
    for case in dict.fromkeys((row["net"], row["activation"], row["batch"]) for row in rows):
        times: dict[str, list[float]] = {}
        for row in rows:
            if (row["net"], row["activation"], row["batch"]) == case:
                times.setdefault(row["what"], []).append(row["seconds"])
        line: common.Row = dict(zip(("net", "activation", "batch"), case, strict=True))
        line["gradient, µs"] = 1e6 * statistics.median(times["gradient"])
        for name in PRODUCTS:
            ratios = [a / b for a, b in zip(times[name], times["gradient"], strict=True)]
            line[f"{name} / gradient"] = statistics.median(ratios)
        lines.append(line)
    return lines


def draw(lines: list[common.Row], path: Path) -> None:
    """The Hessian's ratio of each case, and the target."""
    if (picture := common.figure(7, 0.6 + 0.24 * len(lines))) is None:
        return
    axes = picture.subplots()
    names = [f"{line['net']}, {line['activation']}, batch {line['batch']}" for line in reversed(lines)]
    bars = axes.barh(names, [line["hessian / gradient"] for line in reversed(lines)], color="0.35")
    axes.bar_label(bars, fmt=" %.2f", fontsize=8)
    axes.axvline(4, color="0.6", linestyle="--")
    axes.set(title="One Hessian-vector product", xlabel="gradients of the same network (target: at most 4)")
    common.save(picture, path)


def main() -> None:
    """Measure, print, write; Ctrl-C prints what there is."""
    from tqdm import tqdm

    parser = common.parser(__doc__ or "", "curvature")
    parser.add_argument("--repetitions", type=int, help="default 21")
    parser.add_argument("--worker", choices=["products"], help=argparse.SUPPRESS)
    parser.add_argument("--cpus", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        common.pin(given.cpus)
        common.serve(answer)
        return
    cases = list(itertools.product(NETS, ACTIVATIONS, (32, 512)))
    setting = {"quick": given.quick, "repetitions": given.repetitions or (2 if given.quick else 21)}
    worker = common.Worker(__file__, "products", 1)
    rows: list[common.Row] = []
    try:
        for net, activation, batch in tqdm(cases[:2] if given.quick else cases, file=sys.stderr, dynamic_ncols=True):
            rows += worker.ask(net=net, activation=activation, batch=batch, **setting)
    except KeyboardInterrupt:
        print("\nStopped by Ctrl-C.", file=sys.stderr)
    finally:
        worker.close()
    if not rows:
        return
    lines = summary(rows)
    about = ["Products with second derivatives, in gradients", *common.environment()]
    common.publish(given.out, "curvature", about, lines, every=rows)
    draw(lines, given.out / "curvature.png")


if __name__ == "__main__":
    main()
