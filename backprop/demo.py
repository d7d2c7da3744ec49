"""The main job on real data: handwritten digits, from the summary table to saved weights."""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path

import backprop as bp
from backprop import checks
from backprop.checks import Array
from backprop.datasets import load_digits, split
from backprop.formats import save_weights

BATCH_SIZES = (1, 8, 32, 128, 512)


def network(seed: int) -> bp.Sequential:
    """64 pixels, 128 hidden units, 10 classes."""
    return bp.Sequential(bp.Linear(64, 128), bp.ReLU(), bp.Linear(128, 10), seed=seed)


def run(out: Path, epochs: int, seed: int) -> None:
    """Train, check, measure and save; prints as it goes."""
    start = time.perf_counter()
    checks.integer("demo", "epochs", epochs)
    out.mkdir(parents=True, exist_ok=True)
    X, y = load_digits()
    X_train, X_test, y_train, y_test = split(X / 16, y, seed=seed)
    print(f"Handwritten digits: {len(X_train):,} images to train on, {len(X_test):,} to test on, 8 × 8 pixels each.\n")
    net = network(seed)
    print(net, end="\n\n")
    report = bp.check_gradients(net, bp.CrossEntropy(), X_train[:5], y_train[:5], max_entries=net.size + 5 * 64)
    print(report, end="\n\n", flush=True)

    trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1, momentum=0.9), batch_size=32, seed=seed)
    history = trainer.fit(X_train, y_train, epochs=epochs, validation_data=(X_test, y_test))
    result = trainer.evaluate(X_test, y_test)
    print(f"\nTest accuracy {result['accuracy']:.1%}, test loss {result['loss']:.4f}", end="")
    print(f" after {len(history)} epochs in {sum(history['seconds']):.2f} s.\n")

    print("The batch size decides how fast examples go through, and how far 5 epochs get:")
    print(batch_sizes(X_train, y_train))
    weights, picture = out / "digits.safetensors", out / "digits.png"
    save_weights(net, weights)
    print(f"\nWeights saved to {weights} (PyTorch's names, safetensors).")
    drawn = draw(history, picture)
    print(f"Loss curve drawn to {picture}." if drawn else "Install matplotlib for a picture of the loss.")
    print(f"All of it took {time.perf_counter() - start:.1f} s.")


def batch_sizes(X: Array, y: Array, epochs: int = 5) -> str:
    """A table of examples/s and loss for several batch sizes at the same number of epochs."""
    lines = [f"{'batch size':>12}{'steps/epoch':>14}{'examples/s':>14}{'loss':>10}"]
    for batch_size in BATCH_SIZES:
        trainer = bp.Trainer(network(seed=0), bp.CrossEntropy(), bp.SGD(0.1), batch_size=batch_size)
        *_, last = trainer.epochs(X, y, epochs)
        steps = -(-len(X) // batch_size)
        lines.append(f"{batch_size:>12,}{steps:>14,}{last.examples_per_second:>14,.0f}{last.loss:>10.4f}")
    return "\n".join(lines)


def draw(history: bp.History, path: Path) -> bool:
    """Draw the loss curve; False where matplotlib is not installed."""
    try:
        ax = bp.plots.learning_curves(history)
    except ImportError:
        return False
    ax.set_title("Handwritten digits, 64-128-10")
    ax.figure.savefig(path, dpi=150)
    return True


if __name__ == "__main__":  # `backprop demo`, which is a floor above
    sys.argv.insert(1, "demo")
    runpy.run_module("backprop", run_name="__main__")
