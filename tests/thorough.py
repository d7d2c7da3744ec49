"""The long hunts, one after another for a given time: `make thorough`, or

    python tests/thorough.py --minutes 10 --seed 1

Random networks played and by hand, trajectories beside PyTorch's, files that were altered, processes that are killed or
interrupted, and a soak: memory, file descriptors and threads of this process must not grow. What fails is printed with the
number that repeats it, `--only NAME:NUMBER`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import test_checkpoints
import test_hostile_files
import test_nests
from forgery import mutated, sign

import backprop as bp

LEAK = 24  # MiB that the resident memory may move by: what the allocator keeps


def nests(seed: int) -> None:
    """A random network, played and by hand."""
    test_nests.test_the_exact_player_gives_the_bits_of_the_plain_passes(seed)
    test_nests.test_the_fast_player_gives_the_same_numbers(seed)


def trajectories(seed: int) -> None:
    """Ten steps of a random rule, beside PyTorch's."""
    import torch

    rng = np.random.default_rng(seed)
    D, width, K, n = (int(v) for v in rng.integers(1, 9, 4))
    hidden = [bp.ReLU(), bp.Tanh(), bp.Sigmoid(), bp.GELU(), bp.SiLU(), bp.Softplus()][rng.integers(6)]
    net = bp.Sequential(bp.Linear(D, width), hidden, bp.Linear(width, K), seed=seed, dtype="float64")
    X, y = rng.normal(size=(n, D)), rng.normal(size=(n, K))
    rate, decay = float(10 ** rng.uniform(-4, -1)), float(rng.choice([0, 0.1]))
    mu = float(rng.choice([0, 0.9]))
    ours, theirs = [
        (bp.SGD(rate, mu, weight_decay=decay), lambda p: torch.optim.SGD(p, rate, mu, weight_decay=decay)),
        (bp.Adam(rate, weight_decay=decay), lambda p: torch.optim.Adam(p, rate, weight_decay=decay)),
        (bp.AdamW(rate, weight_decay=decay), lambda p: torch.optim.AdamW(p, rate, weight_decay=decay)),
        (bp.RMSProp(rate), lambda p: torch.optim.RMSprop(p, rate)),
        (bp.Adagrad(rate), lambda p: torch.optim.Adagrad(p, rate)),
    ][rng.integers(5)]
    module = bp.to_torch(net)
    optimizer = theirs(module.parameters())
    trainer = bp.Trainer(net, bp.LeastSquares(), ours, batch_size="full")
    for _ in range(10):
        trainer.step(X, y)
        optimizer.zero_grad()
        ((module(torch.from_numpy(X)) - torch.from_numpy(y)) ** 2).sum(1).mean().backward()
        optimizer.step()
    found = np.concatenate([p.detach().numpy().ravel() for p in module.parameters()])
    mine = [net.parameters[f"{k}.{name}"].ravel() for k in (0, 2) for name in ("omega", "beta")]
    np.testing.assert_allclose(np.concatenate(mine), found, rtol=1e-9, atol=1e-11)


def files(seed: int) -> None:
    """A file of each kind with a change: it is refused. Signed again, it is refused or can be read, with no other error."""
    rng = np.random.default_rng(seed)
    for make, load in test_hostile_files.KINDS.values():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "saved"
            make(path)
            whole = path.read_bytes()
            for _ in range(100):
                data = mutated(whole, rng)
                for content, signed in ((data, False), (sign(data), True)):
                    path.write_bytes(content)
                    try:
                        load(path)
                    except bp.FileFormatError:
                        continue
                    assert signed or data == whole, "a file with a change was read"


def processes(seed: int) -> None:
    """A training that saves each step is killed or interrupted, and goes on to the bits of one that was let alone."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.safetensors"
        for how in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, None):
            process = test_checkpoints.started(path, 10)
            if how is not None:
                time.sleep(rng.uniform(0.3, 1.5))
                process.send_signal(how)
            out, err = process.communicate(timeout=120)
            if out.split()[1:] == ["10"]:  # all is said; it may still be killed on its way out
                break
        assert out.split()[1:] == ["10"], err
        X, y = test_checkpoints.data()
        alone = test_checkpoints.trainer_of(test_checkpoints.network("both"), test_checkpoints.OPTIMIZERS["Adam"]())
        alone.fit(X, y, epochs=10, verbose=0)
        assert out.split()[0] == test_checkpoints.digest(alone)


def soak(seed: int) -> None:
    """What people do, in one process; `Watch` looks at what it leaves behind."""
    from backprop.estimators import MLPRegressor

    rng = np.random.default_rng(seed)
    for _ in range(30):
        n, D, width = (int(v) for v in rng.integers(2, 200, 3))
        X, y = rng.normal(size=(n, D)), rng.normal(size=n)
        net = bp.Sequential(bp.Linear(D, width), bp.Tanh(), bp.Dropout(0.1), bp.Linear(width, 1), seed=seed)
        trainer = bp.Trainer(net, bp.LeastSquares(), bp.Adam(1e-4), batch_size=int(rng.integers(1, n + 1)))
        trainer.fit(X, y, epochs=2, verbose=0)
        net.predict(X)
        with tempfile.TemporaryDirectory() as folder:
            net.save(f"{folder}/net")
            bp.Sequential.load(f"{folder}/net")
    MLPRegressor(hidden_layer_sizes=(8,), max_iter=3).fit(X, y).predict(X)
    small = bp.Sequential(bp.Linear(D, 1), seed=0, dtype="float64")
    bp.minimize(small, bp.LeastSquares(), X, y, verbose=0)


HUNTS: list[Callable[[int], None]] = [nests, files, processes, soak]
if find_spec("torch"):
    HUNTS.append(trajectories)


class Watch:
    """Memory, descriptors, threads and temporary files of this process, from a moment on."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int, int, int]] = []

    def look(self) -> None:
        """Note them."""
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        stray = len(list(Path(tempfile.gettempdir()).glob("*.backprop-*")))
        self.seen.append((resident, len(os.listdir("/proc/self/fd")), threading.active_count(), stray))

    def complaint(self) -> str:
        """What has grown between the first third, in which things are loaded, and the last."""
        warm, last = self.seen[len(self.seen) // 3 :], self.seen[-1]
        if not warm:
            return ""
        names = ("MiB", "descriptors", "threads", "temporary files")
        grown = [b - a for a, b in zip(warm[0], last, strict=True)]
        print("now:", *(f"{x:.0f} {name} ({d:+.1f})" for x, name, d in zip(last, names, grown, strict=True)))
        bad = [name for name, d, most in zip(names, grown, (LEAK, 0, 0, 0), strict=True) if d > most]
        return f"grown: {', '.join(bad)}" if bad else ""


def main() -> None:
    """Hunt until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", help="one hunt again, such as files:17")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.only:
        name, number = given.only.split(":")
        {hunt.__name__: hunt for hunt in HUNTS}[name](int(number))
        return
    print("seed", given.seed, flush=True)
    rng, end, done, failed = np.random.default_rng(given.seed), time.monotonic() + 60 * given.minutes, Counter(), 0
    watch = Watch()
    while time.monotonic() < end:
        hunt, number = HUNTS[rng.integers(len(HUNTS))], int(rng.integers(2**31))
        try:
            hunt(number)
        except Exception:
            failed += 1
            print(f"FAILED --only {hunt.__name__}:{number}", flush=True)
            traceback.print_exc()
        done[hunt.__name__] += 1
        watch.look()
    print(", ".join(f"{count} {name}" for name, count in sorted(done.items())))
    if complaint := watch.complaint():
        sys.exit(complaint)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
