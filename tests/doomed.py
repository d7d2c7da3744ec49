"""A training for `backprop launch` in which a rank dies, or does not do what the others do: what tests/test_launch.py starts.

    python tests/doomed.py WHAT RANK STEP [EPOCHS]     files are written to the working directory

A death is died once, so that the next attempt lives. "slow" is nothing but slow, "none" nothing at all. "every" begins with
each of the disagreements, one after another, and leaves in told.R what rank R was told.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

import backprop as bp

N, D = 96, 4
CHECKPOINT = "run.safetensors"


def kill(number: int) -> None:
    """Send this process a signal."""
    os.kill(os.getpid(), number)


def fail() -> None:
    """Raise what a program's own mistake would."""
    raise ValueError("bad luck")


def loop() -> None:
    """Be alive, and no help."""
    while True:
        time.sleep(0.01)


WAYS = {
    "exception": fail,
    "no memory": lambda: np.ones(1 << 50),
    "sys.exit(0)": lambda: sys.exit(0),
    "sys.exit(3)": lambda: sys.exit(3),
    "os._exit(0)": lambda: os._exit(0),
    "kill": lambda: kill(signal.SIGKILL),
    "stop": lambda: kill(signal.SIGSTOP),
    "crash": lambda: ctypes.string_at(0),
    "loop": loop,
}


class Doom(bp.Callback):
    """Dies when the step has come; all ranks have one."""

    def __init__(self, way: str, at: int) -> None:
        self.way, self.at = way, at

    def step(self, trainer: bp.Trainer) -> None:
        """Die, once."""
        if self.way == "slow":
            time.sleep(0.02)
        if self.way in WAYS and trainer.optimizer.t == self.at and not Path("died").exists():
            Path("died").write_text(str(os.getpid()))
            WAYS[self.way]()


def data(seed: int = 0, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Rows, and a number for each."""
    X = np.random.default_rng(seed).normal(size=(n, D)).astype("float32")
    return X, X[:, 0] * X[:, 1]


DISAGREEMENTS = (
    "layers",
    "widths",
    "dtype",
    "weights",
    "loss",
    "optimizer",
    "learning rate",
    "batch size",
    "shards",
    "seed",
    "rows",
    "fewer rows",
    "fewer epochs",
    "callbacks",
    "metrics",
    "constraints",
)


def trained(team: bp.distributed.Team, what: str, rank: int, at: int, epochs: int) -> bp.Trainer:
    """A training with, on one rank, something odd."""
    odd = what if team.rank == rank else ""
    if os.path.exists(CHECKPOINT):
        trainer = bp.Trainer.resume(CHECKPOINT, team=team)
    else:
        hidden = bp.Tanh() if odd == "layers" else bp.ReLU()
        width = 9 if odd == "widths" else 8
        dtype = "float64" if odd == "dtype" else "float32"
        seed = 1 if odd == "weights" else 0
        net = bp.Sequential(bp.Linear(D, width), hidden, bp.Linear(width, 1), seed=seed, dtype=dtype)
        loss = bp.Huber() if odd == "loss" else bp.LeastSquares()
        rate = 2e-3 if odd == "learning rate" else 1e-3
        optimizer = bp.SGD(rate) if odd == "optimizer" else bp.Adam(rate)
        batch_size, shards = 32 if odd == "batch size" else 16, 4 if odd == "shards" else 8
        settings = {"shards": shards, "constraints": {"*.omega": bp.MaxNorm(3)} if odd == "constraints" else None}
        seed = 1 if odd == "seed" else 0
        trainer = bp.Trainer(net, loss, optimizer, batch_size=batch_size, seed=seed, team=team, **settings)
    X, y = data(1 if odd == "rows" else 0, N // 2 if odd == "fewer rows" else N)
    limit = 0.2 if odd == "metrics" else 0.1
    metrics = [lambda f, y: float((abs(f - y) < limit).mean())]
    callbacks = [Doom("slow" if what == "slow" else odd, at), bp.Checkpoints(CHECKPOINT, every_steps=4)]
    callbacks = callbacks[odd == "callbacks" :]
    trainer.fit(X, y, until=epochs - (odd == "fewer epochs"), verbose=0, callbacks=callbacks, metrics=metrics)
    return trainer


def main(what: str, rank: int, at: int, epochs: int) -> None:
    """Train, and print a fingerprint of everything that training leaves behind."""
    team = bp.distributed.team()
    if what == "every":
        told = {}
        for each in DISAGREEMENTS:
            try:
                trained(team, each, rank, at, epochs)
            except ValueError as error:
                told[each] = str(error)
        Path(f"told.{team.rank}").write_text(json.dumps(told))
        return
    trainer = trained(team, what, rank, at, epochs)
    if team.rank == 0:
        state = b"".join(trainer.optimizer.state[name].tobytes() for name in sorted(trainer.optimizer.state))
        print(hashlib.sha256(trainer.net.phi.tobytes() + state).hexdigest())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 4)
