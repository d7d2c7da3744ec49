"""Peak memory of training against the batch size, with and without shards, and against depth, with and without checkpoints.

    python benchmarks/memory.py

Each point is a fresh process. `arrays` is the peak of what training allocates (tracemalloc; data and network excluded),
`resident` the peak of the whole process (ru_maxrss, before tracemalloc starts). For depth, `activations` is the peak of the
arrays less that of the same training at batch size 1, which holds everything but activations.
Writes memory.csv, memory.md and memory.png.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import sys
import tracemalloc
from itertools import product
from pathlib import Path
from typing import Any

import common

MIB = 1 << 20
COLUMNS = ["study", "variant", "batch_size", "arrays_mib", "activations_mib", "resident_mib", "milliseconds_per_step"]
COLUMNS += ["memory_ratio", "time_ratio"]
PLAIN = ("one piece", "all stored")


def point(job: dict[str, Any]) -> dict[str, float]:
    """Measure one training in this process: first time and resident memory, then allocations."""
    import backprop as bp

    widths, batch, n = job["widths"], job["batch_size"], job["rows"]
    X, y = common.examples(n, widths[0], widths[-1])

    def epochs(count: int) -> tuple[list[float], int]:
        net = common.network(widths, **job.get("network", {}))
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(1e-3), batch_size=batch, **job.get("trainer", {}))
        return [epoch.seconds for epoch in trainer.epochs(X, y, count)], before

    seconds = statistics.median(epochs(job["epochs"] + 1)[0][1:])
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    tracemalloc.start()
    _, before = epochs(1)
    arrays = tracemalloc.get_traced_memory()[1] - before
    return {
        **{"arrays_mib": arrays / MIB, "resident_mib": resident / MIB},
        "milliseconds_per_step": 1e3 * seconds / -(-n // batch),
    }


def jobs(quick: bool) -> list[dict[str, Any]]:
    """All points: batch sizes with shards of 256 examples and in one piece; depth at one batch size and at batch size 1."""
    widths, batches, shard = ([64, 32, 10], [64, 256], 32) if quick else ([784, 512, 512, 10], [1024, 4096, 16384], 256)
    made = []
    for batch, sharded in product(batches, (True, False)):
        variant = f"shards of {shard}" if sharded else "one piece"
        base = {"study": "batch", "variant": variant, "widths": widths, "batch_size": batch, "rows": max(batches)}
        made.append(base | {"epochs": 3, "trainer": {"shards": batch // shard if sharded else 1}})
    depth, width, batch = (16, 32, 64) if quick else (64, 256, 512)
    every = 4 if quick else 8
    for option, size in product(({}, {"checkpoint": every}), (batch, 1)):
        variant = f"checkpoint={every}" if option else "all stored"
        base = {"study": "depth", "variant": variant, "widths": [width] * depth + [10], "batch_size": size}
        # At batch size 1 only the peak counts, which two steps show.
        made.append(
            base | {"rows": 4 * batch if size > 1 else 2, "epochs": 3, "network": option, "trainer": {"shards": 1}}
        )
    return made


def finish(rows: list[common.Row]) -> list[common.Row]:
    """Add activations and ratios; the depth study's points at batch size 1 go into them."""
    found = []
    for row in rows:
        deep = row["study"] == "depth"
        least = min((r for r in rows if r["variant"] == row["variant"]), key=lambda r: r["batch_size"])
        alike = [r for r in rows if (r["study"], r["batch_size"]) == (row["study"], row["batch_size"])]
        plain = next((r for r in alike if r["variant"] in PLAIN), row)
        row["activations_mib"] = row["arrays_mib"] - least["arrays_mib"] if deep else math.nan
        row["memory_ratio"] = row["arrays_mib"] / least["arrays_mib"]
        row["time_ratio"] = row["milliseconds_per_step"] / plain["milliseconds_per_step"]
        if not deep or row is not least:
            found.append(row)
    stored = [row["activations_mib"] for row in found if row["study"] == "depth"]
    for row in found:
        if row["study"] == "depth":
            row["memory_ratio"] = row["activations_mib"] / stored[0]
    return [{name: row[name] for name in COLUMNS} for row in found]


def draw(rows: list[common.Row], path: Path) -> None:
    """Left: arrays against the batch size. Right: activations of the deep net."""
    if (picture := common.figure(9, 3.8)) is None:
        return
    left, right = picture.subplots(1, 2)
    for style, variant in zip(
        ("-", "--"), dict.fromkeys(r["variant"] for r in rows if r["study"] == "batch"), strict=False
    ):
        mine = [row for row in rows if row["variant"] == variant]
        left.plot(
            [r["batch_size"] for r in mine], [r["arrays_mib"] for r in mine], f"k{style}o", markersize=4, label=variant
        )
    left.set_xscale("log", base=2)
    left.set(title="Arrays of training", xlabel="batch size", ylabel="peak, MiB")
    left.set_ylim(bottom=0)
    left.legend(frameon=False)
    deep = [row for row in rows if row["study"] == "depth"]
    bars = right.bar(
        [r["variant"] for r in deep], [r["activations_mib"] for r in deep], color=["0.35", "0.75"][: len(deep)]
    )
    right.bar_label(bars, [f"time ×{row['time_ratio']:.2f}" for row in deep])
    right.margins(y=0.12)
    right.set(title="Activations of a deep net", ylabel="peak, MiB")
    for axes in (left, right):
        axes.grid(alpha=0.3, axis="y")
    common.save(picture, path)


def main() -> None:
    """Measure, print, write; Ctrl-C prints what there is."""
    from tqdm import tqdm

    parser = common.parser(__doc__ or "", "memory")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.point:
        print(json.dumps(point(json.loads(given.point))))
        return
    rows: list[common.Row] = []
    try:
        for job in tqdm(jobs(given.quick), file=sys.stderr, unit="point", dynamic_ncols=True):
            rows += [job | common.fresh(__file__, "--point", json.dumps(job))]
    except KeyboardInterrupt:
        print("\nStopped by Ctrl-C.", file=sys.stderr)
    rows = finish(rows)
    if not rows:
        return
    about = [
        "Peak memory of training",
        "memory_ratio: arrays over those of the variant's smallest batch; for depth, activations over those all stored",
        "time_ratio: over the time in one piece, or with all stored, at the same batch size",
        *common.environment(),
    ]
    common.publish(given.out, "memory", about, rows)
    draw(rows, given.out / "memory.png")


if __name__ == "__main__":
    main()
