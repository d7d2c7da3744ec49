"""A program as a user with a strict type checker writes it; `make check` reads it."""

import numpy as np
import numpy.typing as npt

import backprop as bp

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
    optimizer.step(net.phi, gradients.dL_dphi)
    return L


def by_trainer(net: bp.Sequential, X: Array, y: Array) -> float:
    """The same by the trainer, and what it tells."""
    trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(1e-2, momentum=0.9), batch_size=2)
    history = trainer.fit(X, y, epochs=2, validation_data=(X, y), verbose=0)
    for epoch in trainer.epochs(X, y, 1):
        print(epoch.loss, net.predict(X).shape)
    assert bp.check_gradients(net, bp.LeastSquares(), X, y).passed
    return history[-1].loss


if __name__ == "__main__":
    made = bp.Sequential(bp.Linear(2, 8), Scale(8), bp.ReLU(), bp.Linear(8, 1), seed=0)
    print(by_hand(made, np.ones((4, 2)), np.ones(4)), by_trainer(made, np.ones((4, 2)), np.ones(4)))
