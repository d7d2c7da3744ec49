"""More data than memory: train from a file on the disk, under a limit that the data would not fit into.

python examples/larger_than_memory.py        (Linux: the limit is one that the kernel keeps)
"""

import argparse
import resource
import tempfile
from pathlib import Path

import numpy as np

import backprop as bp
from backprop.pictures import ACCENT, INK, SOFT, axes

FEATURES = 100


def write(path: Path, n: int) -> np.ndarray:
    """Rows in a file, written piece by piece, and their targets."""
    rng = np.random.default_rng(0)
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (n, FEATURES))
    for start in range(0, n, 50_000):
        rows[start : start + 50_000] = rng.standard_normal(rows[start : start + 50_000].shape, np.float32)
    weights = rng.normal(size=FEATURES) / FEATURES**0.5
    return np.concatenate([np.tanh(rows[start : start + 50_000] @ weights) for start in range(0, n, 50_000)])


def main(out: Path, quick: bool = False) -> float:
    """Write 800 MB, allow the process 300 MB more than it has, and train."""
    n, room = (20_000, 200 << 20) if quick else (2_000_000, 300 << 20)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        y = write(Path(folder) / "rows.npy", n)
        X = np.load(Path(folder) / "rows.npy", mmap_mode="r")  # nothing is read yet
        before = resource.getrlimit(resource.RLIMIT_DATA)
        limit = _in_use() + room
        resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
        try:
            net = bp.Sequential(bp.Linear(FEATURES, 32), bp.ReLU(), bp.Linear(32, 1), seed=0)
            trainer = bp.Trainer(net, bp.LeastSquares(), bp.Adam(0.001), batch_size=256)
            history = trainer.fit(X, y, epochs=1 if quick else 2)
            used = _in_use()
            if not quick:
                try:
                    np.array(X)
                except MemoryError:
                    print(f"Read whole, the {X.nbytes / 1e6:.0f} MB would not have fitted.")
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, before)
    print(f"{n:,} rows, {X.nbytes / 1e6:.0f} MB on the disk, {used / 1e6:.0f} MB in use, loss {history[-1].loss:.4f}.")
    picture = axes(height=2)
    bars = {"in use while training": used, "allowed": limit, "data": X.nbytes}
    picture.bar_label(
        picture.barh(list(bars), [b / 1e6 for b in bars.values()], color=[ACCENT, SOFT, INK]), fmt=" %.0f"
    )
    picture.set(xlabel="MB", xlim=(0, 1.15 * max(bars.values()) / 1e6))
    picture.figure.savefig(out / "larger_than_memory.png", dpi=192)
    return history[-1].loss


def _in_use() -> int:
    """Bytes that count against the limit: those of the process's own, not those of files it has mapped."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("."), help="folder for the data and the picture (default: here)"
    )
    parser.add_argument("--quick", action="store_true", help="a small run, to see that it works")
    main(**vars(parser.parse_args()))
