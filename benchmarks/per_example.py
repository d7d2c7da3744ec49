"""What it costs to see each example's gradient, or its norm, beside ordinary passes and a loop over the examples.

    python benchmarks/per_example.py

For each network and batch size, in one process on one CPU, in turns:

    loop              forward, loss and backward of one example after another, each gradient copied into a row of a new (N, P)
    gradients         per_example_gradients
    writing           a new matrix (N, P) filled with a number: what the memory alone takes
    pass              forward, loss and backward of the whole batch
    norms             per_example_gradient_norms: the same three, and the checks and the copy of the network besides

Writes per_example.csv, per_example.md and per_example.png.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np

import backprop as bp

NETS = {"64-32-10": [64, 32, 10], "784-128-10": [784, 128, 10]}
COMPARED = [  # what, over what, its target
    ("loop", "gradients", "≥ 20"),
    ("gradients", "writing", ""),
    ("norms", "pass", "≤ 1.3"),
]


def contenders(widths: list[int], N: int) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    net, loss = common.network(widths), bp.CrossEntropy()
    X, y = common.synthetic(N, widths[0], widths[-1])
    shape = N, net.size

    def passes(rows: slice) -> np.ndarray:
        loss.forward(net.forward(X[rows].T), y[rows])
        _, gradients = net.backward(loss.backward())
        return gradients.dL_dphi

    def loop() -> None:
        G = np.empty(shape, np.float32)
        for n in range(N):
            G[n] = passes(slice(n, n + 1))

    return {
        "gradients": lambda: bp.per_example_gradients(net, loss, X, y),
        "writing": lambda: np.empty(shape, np.float32).fill(1),
        "norms": lambda: bp.per_example_gradient_norms(net, loss, X, y),
        "loop": loop,
        "pass": lambda: passes(slice(None)),
    }


def answer(job: dict[str, Any]) -> list[common.Row]:
    """The worker's side: every contender in turns, each for about a fifth of a second at a time, the first round to warm up."""
    timed = contenders(NETS[job["net"]], job["batch"])
    once = {name: common.seconds(function, 1) for name, function in timed.items()}
    calls = {name: max(1, min(100, int(0.2 / took))) for name, took in once.items()} if not job["quick"] else {}
    return [
        {"net": job["net"], "batch": job["batch"], "what": name, "repetition": r, "seconds": took}
        for r in range(job["repetitions"])
        for name, took in [(name, common.seconds(function, calls.get(name, 1))) for name, function in timed.items()]
    ]


def summary(rows: list[common.Row]) -> list[common.Row]:
    """For each question its two medians and the median of their ratios in the same repetition."""
    lines = []
    for net, batch in dict.fromkeys((row["net"], row["batch"]) for row in rows):
        times: dict[str, list[float]] = {}
        for row in rows:
            if (row["net"], row["batch"]) == (net, batch):
                times.setdefault(row["what"], []).append(row["seconds"])
        for what, over, target in COMPARED:
            ratio = statistics.median(a / b for a, b in zip(times[what], times[over], strict=True))
            medians = (1e6 * statistics.median(times[name]) for name in (what, over))
            lines.append({"net": net, "batch": batch, "what": what, "over": over, "ratio": ratio, "target": target})
            lines[-1] |= dict(zip(("what, µs", "over, µs"), medians, strict=True))
    return lines


def draw(lines: list[common.Row], path: Path) -> None:
    """A panel of bars for each network and batch size."""
    cases = list(dict.fromkeys((line["net"], line["batch"]) for line in lines))
    if (picture := common.figure(3.2 * len(cases), 2.6)) is None:
        return
    panels = picture.subplots(1, len(cases), squeeze=False, sharex=True, sharey=True)[0]
    for axes, case in zip(panels, cases, strict=True):
        mine = [line for line in reversed(lines) if (line["net"], line["batch"]) == case]
        names = [f"{line['what']}\nover {line['over']}" for line in mine]
        bars = axes.barh(names, [line["ratio"] for line in mine], color="0.7")
        notes = [f" ×{line['ratio']:.3g}" + (f", target {line['target']}" if line["target"] else "") for line in mine]
        axes.bar_label(bars, notes, fontsize=8)
        axes.axvline(1, color="black", linewidth=0.8, zorder=0)
        axes.set(title=f"{case[0]}, batch {case[1]:,}", xscale="log", xlim=(0.1, 20000))
    common.save(picture, path)


def main() -> None:
    """Measure, print, write; Ctrl-C prints what there is."""
    from tqdm import tqdm

    parser = common.parser(__doc__ or "", "per_example")
    numbers = lambda text: [int(part) for part in text.split(",")]  # noqa: E731
    parser.add_argument("--batches", type=numbers, help="default 256,1024")
    parser.add_argument("--repetitions", type=int, help="default 11")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--cpus", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        common.pin(given.cpus)
        common.serve(answer)
        return
    batches = given.batches or ([16] if given.quick else [256, 1024])
    repetitions = given.repetitions or (2 if given.quick else 11)
    jobs = [{"net": net, "batch": batch, "repetitions": repetitions} for net in NETS for batch in batches]
    rows: list[common.Row] = []
    worker = common.Worker(__file__, "backprop", 1)
    try:
        for job in tqdm(jobs, file=sys.stderr, unit="case", dynamic_ncols=True):
            rows += worker.ask(**job, quick=given.quick)
    except KeyboardInterrupt:
        print("\nStopped by Ctrl-C.", file=sys.stderr)
    finally:
        worker.close()
    if not rows:
        return
    lines = summary(rows)
    about = [
        "Per-example gradients and norms",
        *common.environment(),
        "One thread; medians of ratios within a repetition",
    ]
    common.publish(given.out, "per_example", about, lines, every=rows)
    draw(lines, given.out / "per_example.png")


if __name__ == "__main__":
    main()
