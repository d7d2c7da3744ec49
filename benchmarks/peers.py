"""Training time of this library against plain NumPy, PyTorch, scikit-learn and JAX, and against the matrix products alone.

    python benchmarks/peers.py                     everything
    python benchmarks/peers.py --quick             a few cells in seconds
    python benchmarks/peers.py --nets 64-32-10 --batches 1,32 --optimizers SGD --threads 2

Each contender lives in a process of its own for each thread count, pinned to that many CPUs, and all of them take turns: in
each repetition of a cell (net × batch size × optimizer) every contender trains one epoch of the same rows, so what else the
machine does hits all alike; rounds in which other processes kept the CPUs busy are run again. Times are seconds per step, the
shuffle included; a ratio is a contender's time over ours in the same repetition, and a cell shows the median over repetitions.
The loop of this library is at its defaults.

Writes peers.csv (every repetition), peers.md (the tables) and peers.png. Contenders that are not installed are left out.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import common
from contenders import CONTENDERS, Contender

NETS = ("64-32-10", "784-128-10", "784-512-512-10", "256-256x8-10")
BATCHES, OPTIMIZERS, THREADS = (1, 8, 32, 128, 512, 2048), ("SGD", "momentum", "Adam"), (1, 2)
DEFAULT = ("backprop", "numpy", "pytorch", "sklearn", "jax", "floor")
DISTURBED = 0.15  # CPUs used by other processes from which on a round does not count
GRAIN = 0.02  # seconds of CPU time that the system may have counted late
OURS, FLOOR, LARGE = "backprop", "floor", "784-512-512-10"

LEAST_MEAN = {"pytorch": 3.0, "sklearn": 4.0, "jax": 1.0}
MOST_FLOOR, LEAST_SPEEDUP = 1.15, 1.85

Cell = tuple[str, int, str]  # net, batch size, optimizer
Times = dict[tuple[str, int, str, int, str], list[float]]  # cell, threads, contender → seconds per step


def target(name: str, net: str, batch: int) -> float | None:
    """The least ratio to reach in a cell, if there is one."""
    if name == "jax":
        return 3.0 if (net, batch) == (LARGE, 1) else 0.8 if batch >= 32 else None
    return {"pytorch": 1.0, "sklearn": 1.2, "numpy": 1.1}.get(name)


def widths(net: str) -> list[int]:
    """Turn "256-256x8-10" into [256, 256, …, 10]."""
    parts = [part.split("x") for part in net.split("-")]
    return [int(part[0]) for part in parts for _ in range(int(part[1]) if len(part) > 1 else 1)]


class Answers:
    """The worker's side: holds one contender for the cell at hand."""

    def __init__(self, name: str) -> None:
        self.name, self.contender = name, None
        self.made: Contender | None = None

    def __call__(self, job: dict[str, Any]) -> Any:
        """Do what the job says."""
        return getattr(self, job.pop("do"))(**job)

    def hello(self) -> list[str]:
        """Load the library; what it runs on."""
        common.network([2, 2]) if CONTENDERS[self.name].needs == "backprop" else __import__(CONTENDERS[self.name].needs)
        if CONTENDERS[self.name].needs == "backprop":
            from backprop.functions import load

            load()
        return common.blas_lines()

    def prepare(self, net: str, batch: int, optimizer: str, steps: int, data: str | None) -> int:
        """Make the contender and run its first epoch, which compiles and allocates."""
        self.made = None  # first, so that two never need memory at once
        D = widths(net)
        X, y = common.examples(steps * batch, D[0], D[-1], data)
        self.made, self.steps = CONTENDERS[self.name](D, batch, optimizer, X, y), steps
        self.made.epoch()
        return steps

    def run(self) -> float:
        """Seconds per step of one epoch."""
        assert self.made is not None
        begin = time.perf_counter()
        self.made.epoch()
        seconds = time.perf_counter() - begin
        return (seconds if self.made.seconds is None else self.made.seconds) / self.steps


def steps_for(worker: common.Worker, cell: Cell, given: argparse.Namespace) -> int:
    """Steps of one repetition: at least 3, and enough that this worker takes the time wanted."""
    net, batch, optimizer = cell
    steps = 3
    while True:
        worker.ask(do="prepare", net=net, batch=batch, optimizer=optimizer, steps=steps, data=given.data)
        seconds = worker.ask(do="run") * steps
        wanted = math.ceil(steps * given.milliseconds / 1000 / seconds)
        if wanted <= 1.3 * steps:
            return steps
        steps = min(wanted, 16 * steps)


def measure(given: argparse.Namespace, workers: list[common.Worker], rows: list[common.Row]) -> None:
    """Run all cells, appending a row per repetition and contender."""
    from tqdm import tqdm

    cells = list(product(given.nets, given.batches, given.optimizers))
    with tqdm(cells, file=sys.stderr, unit="cell", dynamic_ncols=True) as bar:
        for cell in bar:
            bar.set_postfix_str("{} batch {} {}".format(*cell))
            rows.extend(measure_cell(cell, workers, given))


def measure_cell(cell: Cell, workers: list[common.Worker], given: argparse.Namespace) -> Iterator[common.Row]:
    """All repetitions of one cell. Who fails is named on stderr and left out."""
    net, batch, optimizer = cell
    by_speed = [w for w in workers if w.name == OURS]
    steps = steps_for(max(by_speed, key=lambda worker: worker.threads), cell, given)
    ready = []
    for worker in workers:
        try:
            worker.ask(do="prepare", net=net, batch=batch, optimizer=optimizer, steps=steps, data=given.data)
            ready.append(worker)
        except RuntimeError as error:
            print(f"Left out of {cell}, {worker.threads} thread(s): {error}", file=sys.stderr)
    done = quiet = 0
    # A round that other processes disturbed is run again, though not for ever.
    while quiet < given.repetitions and done < 2 * given.repetitions:
        others = 0.0
        for worker in ready:
            measured = run_once(worker)
            others = max(others, measured["others"])
            yield {
                **{"net": net, "batch": batch, "optimizer": optimizer, "threads": worker.threads},
                **{"contender": worker.name, "repetition": done, "steps": steps, **measured},
            }
        done, quiet = done + 1, quiet + (others <= DISTURBED)


def run_once(worker: common.Worker) -> common.Row:
    """Seconds per step, and how many CPUs other processes used meanwhile."""
    common.wait_until_quiet()
    begin, all_before, own_before = time.perf_counter(), common.machine_seconds(), worker.cpu_seconds()
    seconds = worker.ask(do="run")
    wall, all_after = time.perf_counter() - begin, common.machine_seconds()
    others = 0.0
    if all_before is not None and all_after is not None:
        others = (all_after - all_before) - (worker.cpu_seconds() - own_before) - GRAIN
    return {"seconds_per_step": seconds, "others": max(others, 0.0) / wall}


def undisturbed(rows: list[common.Row]) -> tuple[list[common.Row], int]:
    """Without the rounds other processes disturbed, where a cell has others; and how many cells have none."""
    cells = defaultdict(list)
    for row in rows:
        cells[row["net"], row["batch"], row["optimizer"], row["threads"]].append(row)
    kept, hopeless = [], 0
    for mine in cells.values():
        bad = {row["repetition"] for row in mine if row["others"] > DISTURBED}
        good = [row for row in mine if row["repetition"] not in bad]
        hopeless += not good
        kept += good or mine
    return kept, hopeless


def times_of(rows: list[common.Row]) -> Times:
    """Seconds per step in the order of repetitions."""
    times: Times = defaultdict(list)
    for row in rows:
        key = (row["net"], row["batch"], row["optimizer"], row["threads"], row["contender"])
        times[key].append(row["seconds_per_step"])
    return times


def ratios_of(times: Times) -> dict[tuple[str, int, str, int, str], float]:
    """Contender's time / ours, the median over repetitions; for the floor, our time / the floor's."""
    ratios = {}
    for key, seconds in times.items():
        *cell, name = key
        ours = times.get((*cell, OURS), [])  # type: ignore[arg-type]
        if name == OURS or not ours:
            continue
        pairs = [(a / b if name != FLOOR else b / a) for a, b in zip(seconds, ours, strict=False)]
        ratios[key] = statistics.median(pairs)
    return ratios


def cells_table(times: Times, ratios: dict[Any, float], names: list[str]) -> str:
    """One line per cell and thread count: our time, each ratio, our time over the floor's."""
    peers = [name for name in names if name not in (OURS, FLOOR)]
    lines = []
    for net, batch, optimizer, threads in dict.fromkeys(key[:4] for key in times):
        cell = (net, batch, optimizer, threads)
        if (*cell, OURS) in times:
            ours = statistics.median(times[*cell, OURS]) * 1e6
            shown = [ratios.get((*cell, name), math.nan) for name in [*peers, *([FLOOR] if FLOOR in names else [])]]
            lines.append([net, optimizer, threads, batch, ours, *shown])
    header = ["net", "optimizer", "threads", "batch", "ours, µs/step", *(f"{name} / ours" for name in peers)]
    return common.table(header + ["ours / floor"] * (FLOOR in names), lines)


def means_table(ratios: dict[Any, float], names: list[str]) -> str:
    """Geometric means, least and greatest ratio per peer and thread count."""
    lines = []
    for name, threads in product(names, sorted({key[3] for key in ratios})):
        mine = [ratio for key, ratio in ratios.items() if key[3:] == (threads, name)]
        if mine and name != FLOOR:
            lines.append(
                [name, threads, len(mine), common.geometric_mean(mine), min(mine), max(mine), LEAST_MEAN.get(name, "")]
            )
    header = ["peer", "threads", "cells", "geometric mean", "least", "greatest", "mean wanted"]
    return common.table(header, lines)


def speedups(times: Times) -> dict[Cell, float]:
    """How many times faster we are with the most threads than with one."""
    most = max((key[3] for key in times), default=1)
    found = {}
    for net, batch, optimizer, threads, name in times:
        two = (net, batch, optimizer, most, OURS)
        if threads == 1 < most and name == OURS and two in times:
            pairs = zip(times[net, batch, optimizer, 1, OURS], times[two], strict=False)
            found[net, batch, optimizer] = statistics.median(one / more for one, more in pairs)
    return found


def below(times: Times, ratios: dict[Any, float]) -> list[str]:
    """The cells that miss their target."""
    lines = []
    for (net, batch, optimizer, threads, name), ratio in ratios.items():
        where = f"{net}, batch {batch}, {optimizer}, {threads} thread(s)"
        wanted = target(name, net, batch)
        if wanted is not None and ratio < wanted:
            lines.append(f"{name} / ours {ratio:.2f} < {wanted}: {where}")
        if name == FLOOR and net == LARGE and batch >= 128 and ratio > MOST_FLOOR:
            lines.append(f"ours / floor {ratio:.2f} > {MOST_FLOOR}: {where}")
    for (net, batch, optimizer), speedup in speedups(times).items():
        if net == LARGE and batch >= 512 and speedup < LEAST_SPEEDUP:
            lines.append(f"speed-up by threads {speedup:.2f} < {LEAST_SPEEDUP}: {net}, batch {batch}, {optimizer}")
    return sorted(lines)


def report(rows: list[common.Row], names: list[str], about: list[str]) -> str:
    """All tables as Markdown."""
    kept, hopeless = undisturbed(rows)
    times = times_of(kept)
    ratios = ratios_of(times)
    missed = below(times, ratios)
    faster = [[*cell, ratio] for cell, ratio in speedups(times).items()]
    parts = [
        "# Seconds per step against peers\n",
        *(f"- {line}" for line in about),
        f"- Other processes disturbed {len(rows) - len(kept)} of {len(rows)} measurements, which do not count, and all those of "
        f"{hopeless} cells, which do.",
        "\nRatios are a contender's time / ours (above 1, we are faster), medians over repetitions.\n",
        means_table(ratios, names),
        f"\n## Below target: {len(missed)}\n",
        *([f"- {line}" for line in missed] or ["None."]),
        f"\n## Cells\n\n{cells_table(times, ratios, names)}",
    ]
    if faster:
        header = ["net", "batch", "optimizer", "one thread / most threads"]
        parts.append(f"\n## Our speed-up by threads\n\n{common.table(header, faster)}")
    return "\n".join(parts) + "\n"


def draw(rows: list[common.Row], names: list[str], path: Path) -> None:
    """A panel per peer and thread count; each square holds the ratio, dark where we are faster, framed below target."""
    times = times_of(undisturbed(rows)[0])
    ratios = ratios_of(times)
    shown = [name for name in names if name != OURS and any(key[4] == name for key in ratios)]
    threads = sorted({key[3] for key in ratios})
    lines = list(dict.fromkeys((key[0], key[2]) for key in times))
    batches = sorted({key[1] for key in times})
    size = (3 + (0.55 * len(batches) + 0.5) * len(shown), 1.6 + (0.3 * len(lines) + 0.8) * len(threads))
    if not shown or (picture := common.figure(*size)) is None:
        return
    panels = picture.subplots(len(threads), len(shown), squeeze=False, sharey=True)
    for (i, n), (j, name) in product(enumerate(threads), enumerate(shown)):
        axes = panels[i, j]
        draw_panel(axes, lines, batches, lambda net, b, opt, n=n, name=name: ratios.get((net, b, opt, n, name)), name)
        axes.set_title(
            f"{f'{name} / ours' if name != FLOOR else 'ours / floor'}, {n} thread{'s' * (n > 1)}", fontsize=9
        )
        if i == len(threads) - 1:
            axes.set_xlabel("batch size")
    picture.suptitle("Time per step: numbers are ratios, a thick frame marks a cell below its target", fontsize=10)
    common.save(picture, path)


def draw_panel(
    axes: Any,
    lines: list[tuple[str, str]],
    batches: list[int],
    ratio: Callable[[str, int, str], float | None],
    name: str,
) -> None:
    """Squares with numbers; their grey runs from 0.5 (white) to 16 (black)."""
    from matplotlib.patches import Rectangle

    for (y, (net, optimizer)), (x, batch) in product(enumerate(lines), enumerate(batches)):
        value = ratio(net, batch, optimizer)
        if value is None:
            continue
        dark = min(max(math.log2(value / 0.5) / 5, 0.0), 1.0) * 0.85
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=str(1 - dark), edgecolor="white", linewidth=0.5))
        color = "white" if dark > 0.45 else "black"
        axes.text(
            x, y, f"{value:.2g}" if value < 9.95 else f"{value:.0f}", ha="center", va="center", fontsize=7, color=color
        )
        wanted = target(name, net, batch)
        bad = value > MOST_FLOOR and net == LARGE and batch >= 128 if name == FLOOR else wanted and value < wanted
        if bad:
            axes.add_patch(Rectangle((x - 0.42, y - 0.42), 0.84, 0.84, fill=False, edgecolor="black", linewidth=1.8))
    axes.set(xlim=(-0.5, len(batches) - 0.5), ylim=(len(lines) - 0.5, -0.5))
    axes.set_xticks(range(len(batches)), [str(b) for b in batches], fontsize=7)
    axes.set_yticks(range(len(lines)), [f"{net} {optimizer}" for net, optimizer in lines], fontsize=7)


def hire(given: argparse.Namespace) -> tuple[list[common.Worker], list[str]]:
    """Start the workers, first those that are installed for one thread, …; and say what they run on."""
    names = [name for name in given.contenders if find_spec(CONTENDERS[name].needs)]
    for name in given.contenders:
        if name not in names:
            print(f"Left out: {name}, because {CONTENDERS[name].needs} is not installed.", file=sys.stderr)
    drop = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "MKL_ENABLE_INSTRUCTIONS") if given.own_kernels else ()
    workers = [common.Worker(__file__, name, n, drop) for n, name in product(given.threads, names)]
    packages = dict.fromkeys(package for name in names for package in CONTENDERS[name].packages)
    about = common.environment(tuple(packages))
    if given.own_kernels:
        about.append(f"For the contenders unset: {', '.join(drop)} (--own-kernels)")
    for worker in workers:
        found = "; ".join(worker.ask(do="hello")) or "no BLAS that shows itself (XLA and oneDNN are built in)"
        about.append(f"{worker.name}, {worker.threads} thread(s): {found}")
    return workers, about


def options() -> argparse.Namespace:
    """The command line; --quick takes a few cells and is overruled by what is given."""
    parser = common.parser(__doc__ or "", "peers")
    names = lambda text: text.split(",")  # noqa: E731
    numbers = lambda text: [int(part) for part in text.split(",")]  # noqa: E731
    parser.add_argument("--nets", type=names, help=f"default {','.join(NETS)}")
    parser.add_argument("--batches", type=numbers, help=f"default {','.join(map(str, BATCHES))}")
    parser.add_argument("--optimizers", type=names, help=f"default {','.join(OPTIMIZERS)}")
    parser.add_argument("--threads", type=numbers, help=f"default {','.join(map(str, THREADS))}, at most the CPUs")
    parser.add_argument("--contenders", type=names, default=list(DEFAULT), help=f"of {','.join(CONTENDERS)}")
    parser.add_argument("--repetitions", type=int, help="default 7")
    parser.add_argument("--milliseconds", type=float, help="least time of a repetition for this library, default 50")
    parser.add_argument("--data", help="folder with the MNIST IDX files, for the nets with 784 inputs; else synthetic")
    parser.add_argument("--own-kernels", action="store_true", help="unset OPENBLAS_CORETYPE and the like for all")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--cpus", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    quick = given.quick
    given.nets = given.nets or list(NETS[:1] if quick else NETS)
    given.batches = given.batches or list((8, 128) if quick else BATCHES)
    given.optimizers = given.optimizers or list(("SGD", "Adam") if quick else OPTIMIZERS)
    given.threads = [n for n in given.threads or THREADS if n <= len(common.cpus())]
    given.repetitions = given.repetitions or (2 if quick else 7)
    given.milliseconds = given.milliseconds or (5 if quick else 50)
    given.data = str(Path(given.data).resolve()) if given.data else None
    check(parser, given)
    return given


def check(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Refuse what would fail later."""
    for name in given.contenders:
        if name not in CONTENDERS:
            parser.error(f"unknown contender {name!r}; there are {', '.join(CONTENDERS)}")
    for name in given.optimizers:
        if name not in OPTIMIZERS:
            parser.error(f"unknown optimizer {name!r}; there are {', '.join(OPTIMIZERS)}")
    if OURS not in given.contenders or not given.threads or min(given.batches + given.threads) < 1:
        parser.error("it takes backprop among the contenders, sizes of at least 1, and no more threads than CPUs")


def main() -> int:
    """Measure, print, write; Ctrl-C prints what there is."""
    given = options()
    if given.worker:
        common.pin(given.cpus)
        common.serve(Answers(given.worker))
        return 0
    workers: list[common.Worker] = []
    rows: list[common.Row] = []
    try:
        workers, about = hire(given)
        measure(given, workers, rows)
    except KeyboardInterrupt:
        print("\nStopped by Ctrl-C; what follows is what there is.", file=sys.stderr)
    finally:
        for worker in workers:
            worker.close()
    if not rows:
        return 1
    names = list(dict.fromkeys(row["contender"] for row in rows))
    text = report(rows, names, about)
    print(text)
    common.write_csv(given.out / "peers.csv", rows)
    (given.out / "peers.md").write_text(text, encoding="utf-8")
    draw(rows, names, given.out / "peers.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
