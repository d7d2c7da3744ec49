"""An example of weight 0 is absent, even where its loss overflows, one of weight 2 there twice: every loss, every door.

BatchNorm is the exception: its statistics are those of all examples of a batch, whatever they weigh.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from tables import LOSSES

import backprop as bp

D, K, N = 3, 2, 8
W = np.array([1, 0, 2, 1, 0, 3, 1, 2])  # examples 1 and 4 are absent
TIMES = np.repeat(np.arange(N), W)
SIZES = {"far": 1e6, "overflowing": 1e200}  # of the absent rows: e^f and f² are inf

every_loss = pytest.mark.parametrize("name", LOSSES)
every_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
every_reduction = pytest.mark.parametrize("reduction", ["mean", "sum"])


def example(name, size, reduction="mean"):
    row, rng = LOSSES[name], np.random.default_rng(0)
    X = rng.normal(size=(N, D))
    X[W == 0] = size
    y = row.target(rng, K, N)
    loss = row.make(reduction=reduction)
    net = bp.Sequential(bp.Linear(D, 4), bp.ReLU(), bp.Linear(4, K * row.outputs), seed=0, dtype="float64")
    return net, loss, X, np.ascontiguousarray(y.T) if y.ndim == 2 else y


def by_hand(net, loss, X, y, w=None):
    L = loss.forward(net.forward(X.T), y.T, w)
    _, gradients = net.backward(loss.backward())
    return [L, gradients.dL_dphi]


def fit(net, loss, X, y, w=None):
    trainer = bp.Trainer(net, loss, bp.Adam(1e-3), batch_size="full")
    history = trainer.fit(X, y, sample_weight=w, epochs=3, verbose=0)
    return [net.phi, history["loss"]]


def fit_in_shards(net, loss, X, y, w=None):
    trainer = bp.Trainer(net, loss, bp.SGD(1e-3), batch_size="full", shards=2)
    trainer.fit(X, y, sample_weight=w, epochs=3, verbose=0)
    return [net.phi]


def step(net, loss, X, y, w=None):
    L = bp.Trainer(net, loss, bp.SGD(1e-3, momentum=0.9)).step(X, y, w)
    return [L, net.phi]


def validate(net, loss, X, y, w=None):
    trainer = bp.Trainer(net, loss, bp.SGD(1e-3))
    some = slice(0, 1)
    validation = (X, y) if w is None else (X, y, w)
    history = trainer.fit(X[some], y[some], validation_data=validation, epochs=1, verbose=0)
    return [history["validation_loss"]]


def evaluate(net, loss, X, y, w=None):
    found = bp.Trainer(net, loss, bp.SGD(0.1)).evaluate(X, y, w)
    return [found[name] for name in sorted(found)]


def minimize(net, loss, X, y, w=None):
    bp.minimize(net, loss, X, y, sample_weight=w, iterations=5, weight_decay=0.1, verbose=0)
    return [net.phi]


def input_gradient(net, loss, X, y, w=None):
    g = bp.input_gradient(net, loss, X, y, w)
    if w is None:  # each copy has its part
        return [sum(g[n == TIMES]) for n in range(N) if (n == TIMES).any()]
    return list(g[w > 0])


def curvature(net, loss, X, y, w=None):
    v = np.random.default_rng(1).normal(size=net.size)
    return [product(net, loss, X, y, v, w) for product in (bp.hessian_product, bp.gauss_newton_product)]


def explain(net, loss, X, y, w=None):
    passes = bp.explain(net, loss, X, y, w)
    return [item.value for step in passes.backward for item in step.items if "Ω" in item.name or "β" in item.name]


DOORS = [by_hand, fit, fit_in_shards, step, validate, evaluate, minimize, input_gradient, curvature, explain]


@every_loss
@every_size
@every_reduction
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid", "ignore::backprop.TrainingAdvice")
def test_weights_count_examples(name, size, reduction, door):
    if door is minimize and name in ("AbsoluteError", "Pinball"):
        pytest.skip("the search of a kinked function ends where rounding sends it")
    net, loss, X, y = example(name, size, reduction)
    weighted = door(net.copy(), loss, X, y, W.astype(float))
    counted = door(net.copy(), loss, X[TIMES], y[TIMES])
    assert len(weighted) == len(counted) > 0
    for found, expected in zip(weighted, counted, strict=True):
        assert np.all(np.isfinite(found))
        assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


def test_the_exception_is_a_layer_that_couples_examples():
    net = bp.Sequential(bp.Linear(D, 2), bp.BatchNorm(2), seed=0, dtype="float64")
    X, y = np.random.default_rng(0).normal(size=(N, D)), np.zeros((N, 2))
    with_absent = by_hand(net.copy(), bp.LeastSquares(), X, y, W.astype(float))
    without = by_hand(net.copy(), bp.LeastSquares(), X[TIMES], y[TIMES])
    assert not np.allclose(with_absent[0], without[0])


@pytest.mark.parametrize("solver", ["lbfgs", "sgd", "adam"])
@pytest.mark.parametrize("kind", ["MLPRegressor", "MLPClassifier"])
@pytest.mark.filterwarnings("ignore")
def test_weights_count_rows_of_the_estimators(kind, solver):
    """Scales are those of the rows that are there."""
    estimators = pytest.importorskip("backprop.estimators")
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(N, D)), rng.integers(0, 2, N)
    X[W == 0], y = 1e6, y if kind == "MLPClassifier" else y - 1e9 * (W == 0)
    options = {"hidden_layer_sizes": (4,), "solver": solver, "max_iter": 5, "random_state": 0, "scale_inputs": True}
    weighted, counted = (getattr(estimators, kind)(batch_size=50, **options) for _ in range(2))
    weighted.fit(X, y, W)
    counted.fit(X[TIMES], y[TIMES])
    assert_allclose(weighted.predict(X[W > 0]), counted.predict(X[W > 0]), atol=1e-12)
    assert_allclose(weighted.score(X, y, W), counted.score(X[TIMES], y[TIMES]), atol=1e-12)
