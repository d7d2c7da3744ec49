"""A program for ranks: trains the cases named on the command line, and rank 0 prints one SHA-256 for each.

    mpiexec -n 4 python tests/ranks.py FOLDER SGD,folder,2,1 …      kind, where the rows are, threads, native

The hash is that of φ, the optimizer's state, running statistics and history, which must be the same on all ranks. `train` is also
what tests call in threads of one process.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from pathlib import Path

import numpy as np

import backprop as bp

N, D, K, BATCH, SHARDS, EPOCHS = 230, 5, 2, 48, 11, 3  # a last batch of 38, and more shards than fit evenly
KINDS = ("SGD", "Adam with clipping", "BatchNorm", "Dropout", "weights", "float64")


def data():
    """X, y and weights, a third of which are 0."""
    random = np.random.default_rng(0)
    X = random.standard_normal((N, D)).astype(np.float32)
    w = random.random(N) * (random.random(N) > 0.3)
    return X, random.standard_normal(N).astype(np.float32), w


def write(folder):
    """The same rows in two files with row groups of 37."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    X, y, _ = data()
    table = pa.table({f"x{j}": X[:, j] for j in range(D)} | {"y": y})
    for i, rows in enumerate((slice(0, 100), slice(100, N))):
        pq.write_table(table[rows], Path(folder, f"{i}.parquet"), row_group_size=37)


def network(kind):
    """A small net for each kind of training."""
    inner = {"BatchNorm": [bp.BatchNorm(7)], "Dropout": [bp.Dropout(0.3)]}.get(kind, [])
    dtype = "float64" if kind == "float64" else "float32"
    return bp.Sequential(bp.Linear(D, 7), *inner, bp.Tanh(), bp.Linear(7, 1), seed=0, dtype=dtype)


def rows(folder, where, kind):
    """X and y as `fit` takes them."""
    X, y, _ = data()
    if where == "arrays":
        return X, y
    dtype = "float64" if kind == "float64" else "float32"
    return bp.ParquetRows(folder, target="y", dtype=dtype, piece_bytes=3000), None


def trainer_of(kind, team, **settings):
    """A trainer of each kind."""
    adam = kind in ("Adam with clipping", "weights")
    rule = bp.Adam(0.01, clip_norm=0.5) if adam else bp.SGD(0.05, momentum=0.9 if kind == "float64" else 0.0)
    settings = {"batch_size": BATCH, "shards": SHARDS, "seed": 1} | settings
    return bp.Trainer(network(kind), bp.LeastSquares(), rule, team=team, **settings)


def train(folder, case, team):
    """The SHA-256 of one training."""
    kind, where, threads, native = case.split(",")
    X, y, w = data()
    trainer = trainer_of(kind, team, threads=int(threads), native=native == "1")
    stopping = bp.EarlyStopping(
        patience=2, min_delta=1e9
    )  # which ends it after the third epoch, and restores the first
    options = {
        "sample_weight": w if kind == "weights" else None,
        "validation_data": (X[:99], y[:99]),
        "metrics": ["r2"],
    }
    history = trainer.fit(*rows(folder, where, kind), epochs=EPOCHS + 2, callbacks=[stopping], verbose=0, **options)
    assert history.stopped == "EarlyStopping"
    return sha(trainer, history)


def sha(trainer, history=()):
    """One hash of φ, state, running statistics and history."""
    digest = hashlib.sha256(trainer.net.phi)
    for name, array in (*trainer.optimizer.state.items(), *trainer.net.buffers.items()):
        digest.update(name.encode() + array.tobytes())
    for epoch in history:
        digest.update(repr((epoch.epoch, epoch.loss, epoch.validation, epoch.metrics)).encode())
    return digest.hexdigest()


def main(folder, *cases):
    """Print a line for each case."""
    team = bp.distributed.team()
    for case in cases:
        found = team.all_texts(train(folder, case, team))
        assert len(set(found)) == 1, f"{case}: the ranks differ: {found}"
        if not team.rank:
            print(case, found[0], flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore", bp.TrainingAdvice)
    main(*sys.argv[1:])
