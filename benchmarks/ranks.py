"""What the exchange between ranks costs: a step on p ranks, each with as many examples as one rank alone has.

    python benchmarks/ranks.py

Weak scaling: the time of a step on one rank over that on p, with the batch p times as large. Each rank has one thread, all ranks
are on this machine, and both take turns. 1 is an exchange that costs nothing; a machine with fewer free cores than ranks says
nothing. Needs the extra `backprop-mlp[mpi]`. Writes ranks.csv and ranks.md.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import common
import numpy as np


def seconds_per_step(widths: list[int], examples: int, steps: int) -> float:
    """One rank's side: the median of the time between two steps."""
    import backprop as bp

    team, times = bp.distributed.team(), []

    class Clock(bp.Callback):
        def step(self, trainer: bp.Trainer) -> None:
            times.append(time.perf_counter())

    warnings.simplefilter("ignore", bp.TrainingAdvice)
    batch = examples * team.size
    X, y = common.synthetic(batch, widths[0], widths[-1])
    settings: dict[str, Any] = {"batch_size": batch, "shards": team.size, "threads": 1, "team": team}
    trainer = bp.Trainer(common.network(widths), bp.CrossEntropy(), bp.SGD(0.01), **settings)
    trainer.fit(X, y, epochs=steps + 3, verbose=0, callbacks=[Clock()])
    return float(np.median(np.diff(times)[2:]))  # the first steps make plans


def measured(ranks: int, given: argparse.Namespace, mpiexec: str) -> float:
    """A step on so many ranks. Raises RuntimeError with what they said, if they failed."""
    shape = ["--widths", given.widths, "--examples", str(given.examples), "--steps", str(given.steps)]
    command = [mpiexec, "-n", str(ranks), sys.executable, __file__, "--rank", *shape]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{ranks} ranks ended with {done.returncode}:\n{done.stderr}")
    return max(map(float, re.findall(r"\[(.+?)\]", done.stdout)))  # two ranks may share a line


def main() -> int:
    """Measure, print, write."""
    parser = common.parser(__doc__ or "", "ranks")
    parser.add_argument("--ranks", type=int, default=2, help="default %(default)s")
    parser.add_argument("--widths", help="of the net; default 784,1500,1500,10: 13.5 MiB of gradient")
    parser.add_argument("--examples", type=int, help="of each rank in a step; default 512")
    parser.add_argument("--steps", type=int, help="of each round; default 20")
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.widths = given.widths or ("20,32,2" if given.quick else "784,1500,1500,10")
    given.examples, given.steps = (
        given.examples or (32 if given.quick else 512),
        given.steps or (3 if given.quick else 20),
    )
    widths = [int(width) for width in given.widths.split(",")]
    if given.rank:
        print(f"[{seconds_per_step(widths, given.examples, given.steps)!r}]", flush=True)
        return 0
    beside = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        parser.error('there is no mpiexec: pip install "backprop-mlp[mpi]"')
    rows: list[common.Row] = []
    for repetition in range(2 if given.quick else 7):
        found = {ranks: measured(ranks, given, mpiexec) for ranks in (1, given.ranks)}
        for ranks, seconds in found.items():
            row = {"net": given.widths.replace(",", "-"), "ranks": ranks, "batch": ranks * given.examples}
            rows.append(row | {"repetition": repetition, "seconds": seconds, "scaling": found[1] / seconds})
    mib = common.network(widths).phi.nbytes / 2**20
    lines = []
    for ranks in (1, given.ranks):
        mine = [row for row in rows if row["ranks"] == ranks]
        medians = {name: statistics.median(row[name] for row in mine) for name in ("seconds", "scaling")}
        lines.append({name: value for name, value in mine[0].items() if name != "repetition"} | medians)
    about = [f"Weak scaling on {given.ranks} ranks, {mib:.1f} MiB of gradient", *common.environment()]
    common.publish(given.out, "ranks", about, lines, every=rows)
    print(f"{lines[-1]['scaling']:.3f} of a step alone, on {given.ranks} ranks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
