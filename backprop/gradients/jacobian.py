"""Derivatives of what a network predicts, and of its loss, with respect to its inputs; and the Jacobian by φ.

A backward pass multiplies with the transposed Jacobian, ∂L/∂h = (∂f/∂h)ᵀ ∂L/∂f, for all examples at once. With ∂L/∂f = 1 in
output k and 0 elsewhere it returns row k of every example's Jacobian: K passes give them all, whatever N is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backprop import checks
from backprop.around import boundary
from backprop.around.nesting import frozen as frozen_layer
from backprop.around.nesting import inside, views
from backprop.checks import Array
from backprop.engine.threads import playing
from backprop.gradients.per_example import Apart, factors, is_library
from backprop.gradients.problem import Problem, Projection
from backprop.layers import Layer
from backprop.losses import Loss


def input_gradient(net: Layer, loss: Loss, X: Any, y: Any, sample_weight: Any = None) -> Array:
    """How the loss of what `predict` returns changes with each entry of X: what a prediction hangs on.

        L      = loss(net.predict(X), y, w)
        ∂L/∂X  = the backward pass, in rows        (N, D)

    Rows X (N, D), targets y (N,) or (N, K). L is exactly the loss, weights and reduction included: for the mean, row n is 1/N of
    the gradient of example n's own loss. Computed on `net.frozen()` in the dtype of the network: Dropout is off, BatchNorm uses
    its running statistics.

    Raises TypeError or ValueError for data that does not fit, and ValueError for a layer of one's own whose `infer` is not what
    its `frozen` computes.
    Source: Simonyan, Vedaldi and Zisserman (2014), "Deep inside convolutional networks", arXiv:1312.6034 (saliency).

    >>> import numpy as np, backprop as bp
    >>> net = bp.Sequential(bp.Linear(2, 1, initializer=bp.Constant(3)))
    >>> input_gradient(net, bp.LeastSquares(), np.array([[1.0, 0.0]]), np.array([1.0]))
    array([[12., 12.]], dtype=float32)
    """
    who = "input_gradient"
    checks.instance(who, "net", net, Layer)
    problem = Problem(who, frozen_layer(net), loss, X, y, sample_weight).present()
    _check_frozen(problem)
    return np.ascontiguousarray(problem.gradients()["X"])


def jacobian(net: Layer, X: Any, wrt: str = "inputs") -> Array:
    """The Jacobian of what `predict` returns, for each example: by its inputs, or by all parameters.

        J_n = ∂f_n/∂x_n    (K, D)    wrt="inputs"       returns (N, K, D)
        J_n = ∂f_n/∂φ      (K, P)    wrt="phi"          returns (N, K, P), in the order of net.phi

    Rows X (N, D). K backward passes over all examples at once; by φ, writing the result, N · K · P numbers, is what it costs.
    Computed on `net.frozen()` in the dtype of the network: Dropout is off, BatchNorm uses its running statistics.

    Raises TypeError or ValueError for X that does not fit, ValueError for another `wrt` and where f_n is not a function of
    example n alone, as with a layer of one's own that is random or couples the examples.

    >>> import numpy as np, backprop as bp
    >>> net = bp.Sequential(bp.Linear(2, 3, seed=0), dtype="float64")
    >>> J = jacobian(net, np.zeros((5, 2)))
    >>> J.shape, bool((J == net[0].parameters["omega"]).all())
    ((5, 3, 2), True)
    """
    who = "jacobian"
    checks.instance(who, "net", net, Layer)
    checks.choice(who, "wrt", wrt, ["inputs", "phi"])
    problem = Problem(who, frozen_layer(net), Projection(), X, None)
    _check_frozen(problem)
    frozen, h, n = problem.net, problem.h, problem.n
    K = len(frozen.infer(h[:, :1]))
    J = np.empty((n, K, len(h) if wrt == "inputs" else frozen.size), h.dtype)
    dL_df = np.zeros((n, K), h.dtype).T
    bound, forms = Apart(who, frozen, None, data=wrt == "inputs").bind(h.T, dL_df)
    with playing(frozen.size, n):
        for call in bound.first:
            call()
        for k in range(K):
            dL_df[k] = 1
            for call in bound.rest:
                call()
            if wrt == "inputs":
                J[:, k] = bound.results[0].T
            else:
                found = factors(bound, forms)
                for name, rows in views(frozen, J[:, k]).items():
                    found[name].write(rows)
            dL_df[k] = 0  # only now: dL_df may itself be what was asked for
    return J


def _check_frozen(problem: Problem) -> None:
    """Refuse a frozen network that does not compute the prediction: only a layer of one's own can be wrong about itself."""
    net, h = problem.net, problem.h
    if all(map(is_library, inside(net))):
        return
    run, tolerance = boundary.beside(net), np.sqrt(np.finfo(net.phi.dtype).eps)
    f = boundary.forward(run, h)
    if not np.allclose(run.infer(h), f, tolerance, tolerance, equal_nan=True):
        expected = "layers whose `frozen` computes what their `infer` does"
        advice = "Give a layer whose forward pass is random, or another in training, a method `frozen`."
        raise ValueError(checks.message(problem.who, expected, f"other outputs from {net.label}", advice))
