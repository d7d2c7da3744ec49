"""A picture as a function: a network of sines learns the color at each place (x, y).

python examples/image.py

The idea is that of Sitzmann et al. (2020), "Implicit neural representations with periodic activation functions".
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import backprop as bp


def places(n: int) -> np.ndarray:
    """The places (n², 2) of n × n pixels, between −1 and 1."""
    x, y = np.meshgrid(np.linspace(-1, 1, n), np.linspace(1, -1, n))
    return np.stack([x.ravel(), y.ravel()], axis=1)


def landscape(n: int) -> np.ndarray:
    """Something to look at (n², 3): sun, mountains and water, colors between 0 and 1."""
    x, y = places(n).T
    sky = np.stack([0.95 - 0.45 * y, 0.6 + 0.1 * y, 0.45 + 0.4 * y], axis=1)
    sun = np.hypot(x - 0.35, y - 0.35) < 0.18
    ridge = 0.25 * np.abs(np.sin(3.1 * x + 1)) + 0.12 * np.abs(np.sin(7.3 * x)) - 0.05
    color = np.where(sun[:, None], [1.0, 0.9, 0.55], sky)
    color = np.where((y < ridge)[:, None], np.array([0.25, 0.2, 0.35]) + 0.5 * (ridge - y)[:, None], color)
    glitter = 0.06 * np.sin(60 * y + 4 * np.sin(9 * x)) + 0.25 * np.exp(-((8 * (x - 0.35)) ** 2))
    water = np.array([0.2, 0.3, 0.45]) + glitter[:, None]
    return np.clip(np.where((y < -0.3)[:, None], water, color), 0, 1)


def sines(width: int, layers: int, seed: int) -> bp.Sequential:
    """Linear maps and sines; the first map is steep, so that waves of many lengths are there from the start."""
    parts: list[bp.Layer] = [bp.Linear(2, width, initializer=bp.Normal(6.0)), bp.Sin()]
    for _ in range(layers - 1):
        parts += [bp.Linear(width, width, initializer=bp.Normal((2 / width) ** 0.5)), bp.Sin()]
    return bp.Sequential(*parts, bp.Linear(width, 3, initializer=bp.Normal(0.01)), seed=seed)


def main(out: Path, quick: bool = False) -> float:
    """Learn the colors of the pixels, then ask for four times as many."""
    n = 32 if quick else 96
    X, colors = places(n), landscape(n)
    net = sines(32 if quick else 128, layers=3, seed=0)
    epochs = 3 if quick else 100
    trainer = bp.Trainer(
        net, bp.LeastSquares(), bp.Adam(bp.CosineDecay(0.001, steps=epochs * n * n // 64)), batch_size=64
    )
    seen, after = {"the pixels": colors}, {1, 10, epochs}
    for epoch in trainer.epochs(X, colors, epochs):
        if epoch.epoch in after:
            seen[f"epochs: {epoch.epoch}"] = net.predict(X)
    noise = float(np.mean((net.predict(X) - colors) ** 2))
    print(f"{net.size:,} numbers for {colors.size:,}: the signal is {-10 * np.log10(noise):.1f} dB above the error.")

    seen["asked at four times the pixels"] = net.predict(places(2 * n))
    figure = Figure(figsize=(3 * len(seen), 3.3), layout="constrained")
    for axes, (title, picture) in zip(figure.subplots(1, len(seen)), seen.items(), strict=True):
        side = round(len(picture) ** 0.5)
        axes.imshow(np.clip(picture, 0, 1).reshape(side, side, 3))
        axes.set_title(title)
        axes.axis("off")
    figure.savefig(out / "image.png", dpi=192)
    return noise


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the picture (default: here)")
    parser.add_argument("--quick", action="store_true", help="a small run, to see that it works")
    main(**vars(parser.parse_args()))
