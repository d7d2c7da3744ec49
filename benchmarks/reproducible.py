"""One seed, one result: hashes of the trained φ from fresh processes, and from different numbers of threads.

    python benchmarks/reproducible.py

First the same training in 20 fresh processes, at the defaults; then with deterministic=True on 1, 2 and 4 threads, with the
shards the library picks and with 8. Each group must end in one SHA-256 of φ; else the exit code is 1.
Writes reproducible.csv and reproducible.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from itertools import product
from typing import Any

import common


def trained(setting: dict[str, Any]) -> str:
    """SHA-256 of φ after some epochs on the digits in the package."""
    import backprop as bp

    X, y = bp.load_digits()
    net = common.network(setting.pop("widths"))
    epochs = setting.pop("epochs")
    trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.05, momentum=0.9), seed=0, **setting)
    for _ in trainer.epochs(X / 16, y, epochs):
        pass
    return hashlib.sha256(net.phi.tobytes()).hexdigest()


def jobs(quick: bool) -> list[tuple[str, dict[str, Any]]]:
    """Groups that must each end in one hash, and the settings of their members."""
    small = {"widths": [64, 128, 10], "epochs": 1 if quick else 5, "batch_size": 32}
    large = {"widths": [64, 64, 10] if quick else [64, 512, 512, 10], "epochs": 1 if quick else 3, "batch_size": 512}
    found: list[tuple[str, dict[str, Any]]] = [("fresh processes, batch 32", small)] * (3 if quick else 20)
    for shards, threads in product((8,) if quick else ("auto", 8), (1, 2) if quick else (1, 2, 4)):
        exact = {"deterministic": True, "threads": threads, "shards": shards}
        found.append((f"deterministic, batch 512, shards {shards}", large | exact))
    return found


def main() -> int:
    """Train, compare, print, write; 1 if a group has more than one hash."""
    from tqdm import tqdm

    parser = common.parser(__doc__ or "", "reproducible")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(trained(json.loads(given.one))))
        return 0
    rows: list[common.Row] = []
    for group, setting in tqdm(jobs(given.quick), file=sys.stderr, unit="run", dynamic_ncols=True):
        digest = common.fresh(__file__, "--one", json.dumps(setting))
        run = 1 + sum(row["group"] == group for row in rows)
        rows.append({"group": group, "run": run, "threads": setting.get("threads", "auto"), "sha256": digest})
    hashes = {row["group"]: {other["sha256"] for other in rows if other["group"] == row["group"]} for row in rows}
    rows = [row | {"hashes": len(hashes[row["group"]])} for row in rows]
    common.publish(given.out, "reproducible", ["One seed, one result", *common.environment()], rows)
    bad = [group for group, found in hashes.items() if len(found) > 1]
    print("\n".join(f"DIFFERENT: {group}" for group in bad) or "One hash in each group.")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
