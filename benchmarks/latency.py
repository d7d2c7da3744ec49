"""How long a user waits: for the import, for one row through a small net, at the worst, and for the first step of training.

    python benchmarks/latency.py

Imports and first steps are measured in fresh processes that take turns; a process measures itself from its first line on.
One row through 64-32-10 is measured in one process per library, pinned to one CPU, again in turns. Of `net.compiled()`, which is
for control loops, a million calls are timed one by one: the median, 99.99 % of them, and the worst.
Writes latency.csv, latency.md and latency.png; libraries that are not installed are left out.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
import warnings
from array import array
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import common

WIDTHS, BATCH = [64, 32, 10], 32
CLOCK = "import time; start = time.perf_counter()\n{}\nprint(time.perf_counter() - start)"
IMPORTS = {
    "numpy": "import numpy",
    "backprop": "import backprop",
    "backprop, Trainer loaded": "import backprop; backprop.Trainer, backprop.Sequential, backprop.SGD",
    "sklearn": "from sklearn.neural_network import MLPClassifier",
    "torch": "import torch",
    "jax": "import jax",
}
FIRST_STEPS = {
    "backprop": """
import numpy as np, backprop as bp
net = bp.Sequential(bp.Linear(64, 32), bp.ReLU(), bp.Linear(32, 10))
bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1)).step(np.ones((32, 64), np.float32), np.arange(32) % 10)
""",
    "sklearn": """
import numpy as np
from sklearn.neural_network import MLPClassifier
net = MLPClassifier((32,), solver="sgd", batch_size=32)
net.partial_fit(np.ones((32, 64), np.float32), np.arange(32) % 10, classes=np.arange(10))
""",
    "torch": """
import torch
net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
descent = torch.optim.SGD(net.parameters(), 0.1)
torch.nn.functional.cross_entropy(net(torch.ones(32, 64)), torch.arange(32) % 10).backward()
descent.step()
""",
    "jax": """
import jax, jax.numpy as jnp, numpy as np
phi = [(jnp.zeros(32), jnp.full((64, 32), 0.1)), (jnp.zeros(10), jnp.full((32, 10), 0.1))]
def loss(phi, h, y):
    (b0, W0), (b1, W1) = phi
    f = jax.nn.log_softmax(jax.nn.relu(h @ W0 + b0) @ W1 + b1)
    return -jnp.take_along_axis(f, y[:, None], 1).mean()
step = jax.jit(lambda phi, h, y: jax.tree.map(lambda p, g: p - 0.1 * g, phi, jax.grad(loss)(phi, h, y)))
jax.block_until_ready(step(phi, np.ones((32, 64), np.float32), np.arange(32) % 10))
""",
}
PREDICTS = {
    "backprop": "backprop",
    "backprop, compiled": "backprop",
    "torch": "torch",
    "sklearn predict_proba": "sklearn",
    "sklearn predict": "sklearn",
}


def module(name: str) -> str:
    """The package a row of the tables is about."""
    return name.partition(",")[0].partition(" ")[0]


def predictor(name: str) -> Callable[[], Any]:
    """One row through 64-32-10, float32."""
    X, y = common.synthetic(64, WIDTHS[0], WIDTHS[-1])
    row = X[:1].copy()
    if name == "backprop":
        net = common.network(WIDTHS)
        return lambda: net.predict(row)
    if name == "backprop, compiled":
        play, x = common.network(WIDTHS).compiled(), row[0]
        return lambda: play(x)
    if name == "torch":
        import torch

        layers = [torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)]
        eager, given = torch.nn.Sequential(*layers), torch.from_numpy(row)
        torch.set_grad_enabled(False)  # for good: entering no_grad each time would cost a microsecond
        return lambda: eager(given)
    from sklearn.neural_network import MLPClassifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = MLPClassifier((32,), max_iter=1).fit(X, y)
    return lambda: getattr(fitted, name.split()[1])(row)


def each_call(predict: Callable[[], Any], calls: int) -> dict[str, float]:
    """Seconds of calls that are timed one by one, the clock's own time included: the median, 99.99 % of them, and the worst."""
    clock, spent = time.perf_counter_ns, array("q", bytes(8 * calls))
    for i in range(calls):
        begin = clock()
        predict()
        spent[i] = clock() - begin
    ordered = sorted(spent)
    at = {"median": calls // 2, "99.99 %": min(calls - 1, calls * 9999 // 10000), "worst": calls - 1}
    return {f"compiled, {name}": ordered[place] / 1e9 for name, place in at.items()}


def answers(name: str) -> Callable[[dict[str, Any]], Any]:
    """The worker's side: seconds per call, the median of several blocks; or of calls one by one."""
    predict = predictor(name)

    def seconds(job: dict[str, Any]) -> Any:
        if job["each"]:
            return each_call(predict, job["calls"])
        times = []
        for _ in range(job["blocks"]):
            begin = time.perf_counter()
            for _ in range(job["calls"]):
                predict()
            times.append((time.perf_counter() - begin) / job["calls"])
        return statistics.median(times)

    return seconds


def in_fresh_processes(codes: dict[str, str], repetitions: int, what: str) -> list[common.Row]:
    """Seconds of each piece of code, in turns; the first round fills the disk cache and does not count."""
    from tqdm import tqdm

    rows: list[common.Row] = []
    for repetition in tqdm(range(-1, repetitions), desc=what, file=sys.stderr, dynamic_ncols=True):
        for name, code in codes.items():
            seconds = common.fresh("-W", "ignore", "-c", CLOCK.format(code))
            rows.append({"what": what, "library": name, "repetition": repetition, "seconds": seconds})
    return [row for row in rows if row["repetition"] >= 0]


def predictions(names: list[str], repetitions: int) -> list[common.Row]:
    """Seconds for one row, in turns."""
    from tqdm import tqdm

    workers = [common.Worker(__file__, name, 1) for name in names]
    rows: list[common.Row] = []
    try:
        for repetition in tqdm(range(-1, repetitions), desc="predict one row", file=sys.stderr, dynamic_ncols=True):
            for worker in workers:
                seconds = worker.ask(blocks=5, calls=200, each=False)
                if repetition >= 0:
                    row = {"what": "predict one row", "library": worker.name, "repetition": repetition}
                    rows.append(row | {"seconds": seconds})
    finally:
        for worker in workers:
            worker.close()
    return rows


def worst(repetitions: int, calls: int) -> list[common.Row]:
    """Seconds of one row through `compiled`, call by call; the first round does not count."""
    rows: list[common.Row] = []
    worker = common.Worker(__file__, "backprop, compiled", 1)
    try:
        for repetition in range(-1, repetitions):
            for name, seconds in worker.ask(calls=calls, each=True).items():
                row = {"what": f"{calls:,} calls, one by one", "library": name, "repetition": repetition}
                rows.append(row | {"seconds": seconds})
    finally:
        worker.close()
    return [row for row in rows if row["repetition"] >= 0]


def summary(rows: list[common.Row]) -> list[common.Row]:
    """Medians, and our time over each library's in the same repetition, where it is not all ours."""
    ours = {(row["what"], row["repetition"]): row["seconds"] for row in rows if row["library"] == "backprop"}
    lines = []
    for what, library in dict.fromkeys((row["what"], row["library"]) for row in rows):
        mine = [row for row in rows if (row["what"], row["library"]) == (what, library)]
        ratio = statistics.median(ours.get((what, row["repetition"]), math.nan) / row["seconds"] for row in mine)
        median = statistics.median(row["seconds"] for row in mine)
        lines.append({"what": what, "library": library, "milliseconds": 1e3 * median, "ours / theirs": ratio})
    return lines


def draw(lines: list[common.Row], path: Path) -> None:
    """A panel of bars for each question."""
    questions = list(dict.fromkeys(line["what"] for line in lines))
    if (picture := common.figure(4 * len(questions), 3)) is None:
        return
    panels = picture.subplots(1, len(questions), squeeze=False)[0]
    for axes, what in zip(panels, questions, strict=True):
        mine = [line for line in reversed(lines) if line["what"] == what]
        shades = ["0.2" if module(line["library"]) == "backprop" else "0.7" for line in mine]
        bars = axes.barh([line["library"] for line in mine], [line["milliseconds"] for line in mine], color=shades)
        axes.bar_label(bars, [f" {line['milliseconds']:,.4g}" for line in mine], fontsize=8)
        axes.set(title=what, xlabel="milliseconds")
        axes.margins(x=0.25)
    common.save(picture, path)


def main() -> None:
    """Measure, print, write."""
    parser = common.parser(__doc__ or "", "latency")
    parser.add_argument("--repetitions", type=int, help="default 11")
    parser.add_argument("--libraries", default="numpy,backprop,torch,sklearn,jax", help="default %(default)s")
    parser.add_argument("--worker", choices=PREDICTS, help=argparse.SUPPRESS)
    parser.add_argument("--cpus", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        common.pin(given.cpus)
        common.serve(answers(given.worker))
        return
    repetitions = given.repetitions or (2 if given.quick else 11)
    there = {name for name in {"backprop", *given.libraries.split(",")} if find_spec(name)}
    kept = lambda table: {name: code for name, code in table.items() if module(name) in there}  # noqa: E731
    rows: list[common.Row] = []
    try:
        rows += in_fresh_processes(kept(IMPORTS), repetitions, "import")
        rows += predictions(list(kept(PREDICTS)), repetitions)
        rows += worst(repetitions, 10_000 if given.quick else 1_000_000)
        rows += in_fresh_processes(kept(FIRST_STEPS), repetitions, "import to first step")
    except KeyboardInterrupt:
        print("\nStopped by Ctrl-C.", file=sys.stderr)
    if not rows:
        return
    lines = summary(rows)
    packages = {"sklearn": "scikit-learn", "backprop": "backprop-mlp"}
    about = common.environment([packages.get(name, name) for name in sorted(there | {"numpy"})] + ["scipy"])
    common.publish(given.out, "latency", ["Waiting times", *about], lines, every=rows)
    draw(lines, given.out / "latency.png")


if __name__ == "__main__":
    main()
