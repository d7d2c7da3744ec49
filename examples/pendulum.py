"""Imitation: a network learns to swing up a pendulum from an expert who knows its equations.

python examples/pendulum.py
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

import backprop as bp
from backprop.pictures import ACCENT, INK, axes

STRONGEST, STEP = 0.3, 0.02  # torque, a third of what would hold the pendulum level; seconds
Policy = Callable[[np.ndarray, np.ndarray], np.ndarray]


def expert(angle: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Pump energy in until there is enough of it to stand upright (angle 0), then balance."""
    up = np.arctan2(np.sin(angle), np.cos(angle))
    energy = 0.5 * speed**2 + np.cos(angle) - 1
    pump = -0.8 * energy * np.tanh(20 * speed)
    balance = -4 * up - 2.5 * speed
    near = np.exp(-((up / 0.35) ** 4) - (speed / 0.9) ** 4)
    return np.clip(near * balance + (1 - near) * pump, -STRONGEST, STRONGEST)


def swing(policy: Policy, angle: np.ndarray, speed: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Angles and speeds (steps, pendulums) under a policy: θ̈ = sin θ − 0.02 θ̇ + torque."""
    angles, speeds = [], []
    for _ in range(steps):
        angles.append(angle)
        speeds.append(speed)
        speed = speed + STEP * (np.sin(angle) - 0.02 * speed + policy(angle, speed))
        angle = angle + STEP * speed
    return np.array(angles), np.array(speeds)


def features(angle: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Rows (cos θ, sin θ, θ̇): the same for angles a full turn apart."""
    return np.stack([np.cos(angle), np.sin(angle), speed], axis=-1).reshape(-1, 3)


def main(out: Path, quick: bool = False) -> float:
    """Watch the expert from 100 starts, learn what it does, and swing up from where it was never seen."""
    rng = np.random.default_rng(0)
    seen = swing(expert, rng.uniform(-np.pi, np.pi, 100), rng.uniform(-1, 1, 100), 300 if quick else 1500)
    net = bp.Sequential(bp.Linear(3, 64), bp.Tanh(), bp.Linear(64, 64), bp.Tanh(), bp.Linear(64, 1), seed=0)
    trainer = bp.Trainer(net, bp.LeastSquares(), bp.Adam(bp.CosineDecay(0.003, steps=15_000)), batch_size=256)
    trainer.fit(features(*seen), expert(*seen).ravel() / STRONGEST, epochs=1 if quick else 25)

    def network(angle: np.ndarray, speed: np.ndarray) -> np.ndarray:
        return np.clip(STRONGEST * net.predict(features(angle, speed))[:, 0], -STRONGEST, STRONGEST)

    start = np.linspace(np.pi - 0.2, np.pi + 0.2, 20), np.zeros(20)
    taught, learned = (swing(policy, *start, 1500)[0] for policy in (expert, network))
    upright = float(np.mean(np.cos(learned[-100:]).min(axis=0) > 0.95))
    print(
        f"{upright:.0%} of the pendulums end upright; the expert brings {np.mean(np.cos(taught[-1]) > 0.95):.0%} there."
    )

    picture = axes(width=7, height=3.5)
    seconds = STEP * np.arange(1500)
    picture.plot(seconds, -np.cos(taught[:, 3]), color=INK, label="expert")
    picture.plot(seconds, -np.cos(learned[:, 3]), color=ACCENT, linestyle="--", label="network")
    picture.invert_yaxis()
    picture.set(xlabel="seconds", ylabel="height", yticks=[-1, 0, 1], yticklabels=["up", "level", "down"])
    picture.legend(frameon=False)
    picture.figure.savefig(out / "pendulum.png", dpi=192)
    return upright


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the picture (default: here)")
    parser.add_argument("--quick", action="store_true", help="a small run, to see that it works")
    main(**vars(parser.parse_args()))
