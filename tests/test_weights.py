"""An example of weight 0 is absent, even where its loss overflows, one of weight 2 there twice: every loss, every door.

BatchNorm is the exception: its statistics are those of all examples of a batch, whatever they weigh.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from tables import LOSSES

import backprop as bp
from backprop.training.minimize import Objective

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


def check(net, loss, X, y, w=None):
    report = bp.check_gradients(net, loss, X, y, w, max_entries=20)
    assert report.passed, report
    return [1.0]


def step_in_float32(net, loss, X, y, w=None):
    net.bind(net.phi.astype(np.float32))
    bp.Trainer(net, loss, bp.Adam(1e-3)).step(X, y, w)
    return [net.phi.astype(float)]


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


DOORS = [by_hand, fit, fit_in_shards, step, validate, evaluate, minimize, input_gradient, curvature, explain, check]
# What computes L alone, and what shows each example as it is, may meet inf on its way.
INSIDE = [
    fit,
    fit_in_shards,
    step,
    step_in_float32,
    validate,
    evaluate,
    minimize,
    input_gradient,
    curvature,
    check,
]


@every_loss
@every_size
@every_reduction
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid", "ignore::backprop.TrainingAdvice")
def test_weights_count_examples(name, size, reduction, door):
    net, loss, X, y = example(name, size, reduction)
    if door is minimize and name in ("AbsoluteError", "Pinball"):
        door = value_at_the_start  # the search of a kinked function ends where rounding sends it
    compare(door, net, loss, X, y)


@pytest.mark.parametrize("door", INSIDE)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid", "ignore::backprop.TrainingAdvice")
def test_an_absent_example_may_overflow_inside_the_network(door):
    net = bp.Sequential(bp.Linear(D, 4), bp.Exp(), bp.Linear(4, K), seed=0, dtype="float64")
    X, y = np.random.default_rng(0).normal(size=(2, N, D))
    X[W == 0] = 1e4
    compare(door, net, bp.LeastSquares(), X, y[:, :K], rtol=1e-5 if door is step_in_float32 else 1e-7)


def value_at_the_start(net, loss, X, y, w=None):
    objective = Objective(net, loss, X, y, w, 0.1, 1)
    point = objective.at(net.phi, None)
    return [point.J, point.gradient]


def compare(door, net, loss, X, y, rtol=1e-7):
    weighted = door(net.copy(), loss, X, y, W.astype(float))
    counted = door(net.copy(), loss, X[TIMES], y[TIMES])
    assert len(weighted) == len(counted) > 0
    for found, expected in zip(weighted, counted, strict=True):
        assert np.all(np.isfinite(found))
        assert_allclose(found, expected, rtol=rtol, atol=1e-9)


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


BY_NAME = {
    "LeastSquares": ("r2", "neg_mean_absolute_error", "neg_root_mean_squared_error", "explained_variance"),
    "CrossEntropy of labels": ("accuracy", "neg_log_loss", "balanced_accuracy", "f1_macro"),
}


@pytest.mark.parametrize(
    ("name", "metric"), [(name, metric) for name, metrics in BY_NAME.items() for metric in metrics]
)
@pytest.mark.filterwarnings("ignore")
def test_weights_count_examples_of_metrics(name, metric):
    pytest.importorskip("sklearn")
    net, loss, X, y = example(name, 1e200)
    trainer = bp.Trainer(net, loss, bp.SGD(0.1))
    weighted = trainer.evaluate(X, y, W.astype(float), metrics=[metric])
    assert_allclose(weighted[metric], trainer.evaluate(X[TIMES], y[TIMES], metrics=[metric])[metric], rtol=1e-9)
