"""Handwritten digits: check the gradients, train until it no longer helps, and look at what goes wrong.

python examples/digits.py
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import backprop as bp
from backprop.datasets import split


def main(out: Path, quick: bool = False) -> float:
    """Train 64-128-10 and draw the confusion matrix beside the images that were taken for another digit."""
    X, y = bp.load_digits()
    X_train, X_test, y_train, y_test = split(X / 16, y, seed=0)
    net = bp.Sequential(bp.Linear(64, 128), bp.ReLU(), bp.Dropout(0.2), bp.Linear(128, 10), seed=0)
    print(net)
    print(bp.check_gradients(net, bp.CrossEntropy(), X_train[:5], y_train[:5], max_entries=500))

    trainer = bp.Trainer(net, bp.CrossEntropy(), bp.Adam(0.003), batch_size=32)
    stop = bp.EarlyStopping("validation_accuracy", mode="max", patience=10)
    history = trainer.fit(
        X_train,
        y_train,
        epochs=3 if quick else 100,
        validation_data=(X_test, y_test),
        metrics=["accuracy"],
        callbacks=[stop],
    )
    predicted = net.predict(X_test).argmax(axis=1)
    accuracy = float(np.mean(predicted == y_test))
    print(f"{accuracy:.1%} of {len(y_test)} images are read correctly, after {len(history)} epochs.")

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.25, 1])
    bp.plots.confusion_matrix(y_test, predicted, ax=left.subplots())
    wrong = np.flatnonzero(predicted != y_test)[:9]
    right.suptitle("Taken for another digit")
    for axes, i in zip(right.subplots(3, 3).flat, wrong, strict=False):
        axes.imshow(X_test[i].reshape(8, 8), cmap="gray_r")
        axes.set_title(f"{y_test[i]}, not {predicted[i]}", fontsize="medium")
    for axes in right.axes:
        axes.axis("off")
    figure.savefig(out / "digits.png", dpi=192)
    net.save(out / "digits.safetensors")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the picture (default: here)")
    parser.add_argument("--quick", action="store_true", help="a small run, to see that it works")
    main(**vars(parser.parse_args()))
