"""A program as a user with a strict type checker writes it; `make check` reads it, and so does `make dist`, from outside."""

from typing import assert_type

import numpy as np
import numpy.typing as npt

import backprop as bp
from backprop.estimators import MLPClassifier

Array = npt.NDArray[np.floating]


class Scale(bp.Layer):
    """A layer of one's own."""

    def __init__(self, features: int) -> None:
        self.parameters["omega"] = np.ones((features, 1))

    def forward(self, h: Array) -> Array:
        self.h = h
        return self.parameters["omega"] * h

    def backward(self, dL_df: Array) -> tuple[Array, dict[str, Array]]:
        return self.parameters["omega"] * dL_df, {"omega": (dL_df * self.h).sum(axis=1, keepdims=True)}


def by_hand(net: bp.Sequential, X: Array, y: Array) -> float:
    """A step, written out."""
    loss, optimizer = bp.LeastSquares(), bp.Adam(1e-2)
    L = loss.forward(net.forward(X.T), y)
    _, gradients = net.backward(loss.backward())
    dL_dphi: Array = gradients.dL_dphi
    optimizer.step(net.phi, dL_dphi)
    return L


def by_trainer(net: bp.Sequential, X: Array, y: Array) -> float:
    """The same by the trainer, and what it tells."""
    trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(1e-2, momentum=0.9), batch_size=2)
    history = trainer.fit(X, y, epochs=2, validation_data=(X, y), verbose=0)
    for epoch in trainer.epochs(X, y, 1):
        print(epoch.loss, net.predict(X).shape)
    report = bp.check_gradients(net, bp.LeastSquares(), X, y)
    assert report.passed
    print(bp.explain(net, bp.LeastSquares(), X, y))
    bp.plots.learning_curves(history).figure.savefig("curves.svg")
    report.plot().set_title("checked")
    return assert_type(history[-1].loss, float)


def by_estimator(X: Array, y: Array) -> list[float]:
    """The same with scikit-learn's interface."""
    model = MLPClassifier((8,), max_iter=5, random_state=0).fit(X, y > 0)
    assert_type(model, MLPClassifier)
    print(model.score(X, y > 0) + 1.0, model.predict_proba(X).shape, [weights.shape for weights in model.coefs_])
    return assert_type(model.loss_curve_, list[float])


if __name__ == "__main__":
    made = bp.Sequential(bp.Linear(2, 8), Scale(8), bp.ReLU(), bp.Linear(8, 1), seed=0)
    ones: Array = np.ones((4, 2))
    print(by_hand(made, ones, ones[:, 0]), by_trainer(made, ones, ones[:, 0]), by_estimator(ones, ones[:, 0]))
