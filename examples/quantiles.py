"""Not one number but an interval: quantile regression where the noise grows with x.

python examples/quantiles.py
"""

import argparse
from pathlib import Path

import numpy as np

import backprop as bp
from backprop.pictures import INK, axes

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def data(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A wave, noisier to the right."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, n)
    return x[:, None], np.sin(4 * x) + (0.1 + 0.35 * (x + 1)) * rng.normal(size=n)


def main(out: Path, quick: bool = False) -> float:
    """Train one output per quantile by the pinball loss, and count how many new examples lie between them."""
    X, y = data(300 if quick else 3000, seed=0)
    net = bp.Sequential(
        bp.Linear(1, 32), bp.Tanh(), bp.Linear(32, 32), bp.Tanh(), bp.Linear(32, len(QUANTILES)), seed=0
    )
    steps = 50 if quick else 6000
    rate = bp.CosineDecay(0.005, steps=steps)
    trainer = bp.Trainer(net, bp.Pinball(QUANTILES), bp.Adam(rate), batch_size=100)
    trainer.fit(X, y, epochs=steps * 100 // len(X))

    X_new, y_new = data(4000, seed=1)
    f = net.predict(X_new)
    for low, high in ((0, 4), (1, 3)):
        inside = np.mean((f[:, low] <= y_new) & (y_new <= f[:, high]))
        print(f"asked for {QUANTILES[high] - QUANTILES[low]:.0%}: {inside:.1%} of what it never saw lies inside")

    grid = np.linspace(-1, 1, 200)[:, None]
    q = net.predict(grid)
    picture = axes()
    picture.scatter(X_new[:600], y_new[:600], 5, color="0.6", label="new examples")
    picture.fill_between(grid[:, 0], q[:, 0], q[:, 4], color="tab:blue", alpha=0.2, label="90 %")
    picture.fill_between(grid[:, 0], q[:, 1], q[:, 3], color="tab:blue", alpha=0.45, label="50 %")
    picture.plot(grid, q[:, 2], color=INK, label="median")
    picture.set(xlabel="x", ylabel="y")
    picture.legend(frameon=False, loc="upper left")
    picture.figure.savefig(out / "quantiles.png", dpi=192)
    return float(np.mean((f[:, 0] <= y_new) & (y_new <= f[:, 4])))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the picture (default: here)")
    parser.add_argument("--quick", action="store_true", help="a small run, to see that it works")
    main(**vars(parser.parse_args()))
