"""What the batch size does: time per epoch, examples per second, and the loss after equal epochs and after equal time.

    python benchmarks/batch_size.py                      the digits in the package
    python benchmarks/batch_size.py --data data/mnist    MNIST from its IDX files

Each batch size trains a net of its own from the same weights with the same learning rate (SGD), until it has done `--epochs`
epochs and `--seconds` seconds of training. Losses are those of the whole training data at these two moments.
Writes batch_size.csv, batch_size.md and batch_size.png.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import common
import numpy as np

import backprop as bp


def load(folder: Path | None, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """MNIST, or the digits of the package repeated until there are `rows`."""
    if folder is not None:
        return common.mnist(folder)
    X, y = bp.load_digits()
    copies = -(-rows // len(X))
    return np.tile(X.astype(np.float32) / 16, (copies, 1)), np.tile(y, copies)


def run(X: np.ndarray, y: np.ndarray, batch_size: int, given: argparse.Namespace) -> common.Row:
    """Train with one batch size. A run that diverges has NaN for the losses it did not reach."""
    net = common.network([X.shape[1], given.hidden, 10])
    trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(given.learning_rate), batch_size=batch_size)
    seconds: list[float] = []
    epochs_loss = time_loss = math.nan
    epochs_in_time = 0
    try:
        for epoch in trainer.epochs(X, y, 10**9):
            seconds.append(epoch.seconds)
            if epoch.epoch == given.epochs:
                epochs_loss = trainer.evaluate(X, y)["loss"]
            if not epochs_in_time and sum(seconds) >= given.seconds:
                epochs_in_time, time_loss = epoch.epoch, trainer.evaluate(X, y)["loss"]
            if epochs_in_time and epoch.epoch >= given.epochs:
                break
    except FloatingPointError as error:
        print(f"Batch size {batch_size}: {error}", file=sys.stderr)
    per_epoch = statistics.median(seconds) if seconds else math.nan
    return {
        **{"batch_size": batch_size, "steps_per_epoch": -(-len(X) // batch_size), "seconds_per_epoch": per_epoch},
        **{"examples_per_second": len(X) / per_epoch, "epochs": given.epochs, "loss_equal_epochs": epochs_loss},
        **{"seconds": given.seconds, "epochs_in_time": epochs_in_time, "loss_equal_time": time_loss},
    }


def draw(rows: list[common.Row], path: Path) -> None:
    """Left: how fast examples go through. Right: how far that gets."""
    if (picture := common.figure(9, 3.8)) is None:
        return
    left, right = picture.subplots(1, 2)
    x = [row["batch_size"] for row in rows]

    def line(axes: Any, name: str, label: str, **style: Any) -> None:
        axes.plot(x, [row[name] for row in rows], color="black", marker="o", markersize=4, label=label, **style)

    line(left, "examples_per_second", "examples/s")
    left.set(title="Speed", ylabel="examples per second", yscale="log")
    line(right, "loss_equal_epochs", f"after {rows[0]['epochs']} epochs")
    line(right, "loss_equal_time", f"after {rows[0]['seconds']:g} s", linestyle="--", markerfacecolor="white")
    right.set(title="Loss on the training data", ylabel="cross-entropy", yscale="log")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set(xlabel="batch size")
        axes.grid(alpha=0.3)
    common.save(picture, path)


def options() -> argparse.Namespace:
    """The command line."""
    parser = common.parser(__doc__ or "", "batch_size")
    numbers = lambda text: [int(part) for part in text.split(",")]  # noqa: E731
    parser.add_argument("--batches", type=numbers, help="default 1,2,4,…,4096")
    parser.add_argument("--epochs", type=int, help="epochs for the loss at equal epochs (default 10)")
    parser.add_argument("--seconds", type=float, help="training time for the loss at equal time (default 2)")
    parser.add_argument("--hidden", type=int, default=128, help="width of the hidden layer (default %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=0.05, help="of SGD (default %(default)s)")
    parser.add_argument("--data", type=Path, help="folder with MNIST's IDX files; else the digits in the package")
    given = parser.parse_args()
    given.batches = given.batches or ([32, 256] if given.quick else [2**k for k in range(13)])
    given.epochs = given.epochs or (2 if given.quick else 10)
    given.seconds = given.seconds or (0.05 if given.quick else 2.0)
    return given


def main() -> None:
    """Measure, print, write; Ctrl-C prints what there is."""
    from tqdm import tqdm

    given = options()
    X, y = load(given.data, 1 if given.quick else max(given.batches))
    rows: list[common.Row] = []
    try:
        for batch_size in tqdm(given.batches, file=sys.stderr, unit="run", dynamic_ncols=True):
            rows.append(run(X, y, batch_size, given))  # noqa: PERF401
    except KeyboardInterrupt:
        print("\nStopped by Ctrl-C.", file=sys.stderr)
    if not rows:
        return
    net = f"Net: {X.shape[1]}-{given.hidden}-10, SGD({given.learning_rate}), {len(X):,} examples"
    common.publish(given.out, "batch_size", ["Batch size", net, *common.environment()], rows)
    draw(rows, given.out / "batch_size.png")


if __name__ == "__main__":
    main()
