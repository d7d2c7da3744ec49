"""Metrics by scikit-learn's names: the numbers scikit-learn gives for predictions made by hand, and early refusals."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose
from test_bad_input import assert_refused

import backprop as bp

sklearn_metrics = pytest.importorskip("sklearn.metrics")

N, D = 60, 4
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, D))
W = RNG.integers(0, 3, N).astype(float)
CLASSES = (X[:, :3] + RNG.standard_normal((N, 3))).argmax(axis=1)
ANSWERS = (X[:, :2] + RNG.standard_normal((N, 2)) > 0).astype(float)
NUMBERS = X[:, :2] + RNG.standard_normal((N, 2))
COUNTS = RNG.poisson(np.exp(0.3 * X[:, 0])).astype(float)


def trainer_of(loss, outputs, dtype="float64"):
    net = bp.Sequential(bp.Linear(D, outputs), seed=0, dtype=dtype)
    return bp.Trainer(net, loss, bp.SGD(0.05))


def softmax(f):
    p = np.exp(f - f.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def sigmoid(f):
    return 1 / (1 + np.exp(-f))


m = sklearn_metrics
# name: loss, outputs, y, and the metric as one would write it for outputs f (N, K), targets y and weights w
CASES = {
    "f1_macro": (
        bp.CrossEntropy,
        3,
        CLASSES,
        lambda f, y, w: m.f1_score(y, f.argmax(1), average="macro", sample_weight=w),
    ),
    "balanced_accuracy": (
        *(bp.CrossEntropy, 3, CLASSES),
        lambda f, y, w: m.balanced_accuracy_score(y, f.argmax(1), sample_weight=w),
    ),
    "neg_log_loss": (bp.CrossEntropy, 3, CLASSES, lambda f, y, w: -m.log_loss(y, softmax(f), sample_weight=w)),
    "roc_auc_ovr": (
        *(bp.CrossEntropy, 3, CLASSES),
        lambda f, y, w: m.roc_auc_score(y, softmax(f), multi_class="ovr", sample_weight=w),
    ),
    "top_k_accuracy": (
        *(bp.CrossEntropy, 3, CLASSES),
        lambda f, y, w: m.top_k_accuracy_score(y, softmax(f), sample_weight=w),
    ),
    "adjusted_rand_score": (  # takes no weights: only those of 0 count
        *(bp.CrossEntropy, 3, CLASSES),
        lambda f, y, w: m.adjusted_rand_score(*((y, f.argmax(1)) if w is None else (y[w > 0], f.argmax(1)[w > 0]))),
    ),
    "f1_weighted": (  # one-hot targets
        *(bp.CrossEntropy, 3, np.eye(3)[CLASSES]),
        lambda f, y, w: m.f1_score(y.argmax(1), f.argmax(1), average="weighted", sample_weight=w),
    ),
    "f1": (bp.CrossEntropy, 2, CLASSES % 2, lambda f, y, w: m.f1_score(y, f.argmax(1), sample_weight=w)),
    "neg_brier_score": (
        *(bp.CrossEntropy, 2, CLASSES % 2),
        lambda f, y, w: -m.brier_score_loss(y, softmax(f)[:, 1], sample_weight=w),
    ),
    "roc_auc": (
        *(bp.BinaryCrossEntropy, 1, ANSWERS[:, 0]),
        lambda f, y, w: m.roc_auc_score(y, f[:, 0], sample_weight=w),
    ),
    "recall": (
        *(bp.BinaryCrossEntropy, 1, ANSWERS[:, 0]),
        lambda f, y, w: m.recall_score(y, f[:, 0] > 0, sample_weight=w),
    ),
    "average_precision": (  # two answers to each example
        *(bp.BinaryCrossEntropy, 2, ANSWERS),
        lambda f, y, w: m.average_precision_score(y, sigmoid(f), sample_weight=w),
    ),
    "f1_micro": (
        *(bp.BinaryCrossEntropy, 2, ANSWERS),
        lambda f, y, w: m.f1_score(y, f > 0, average="micro", sample_weight=w),
    ),
    "neg_mean_absolute_error": (
        *(bp.LeastSquares, 2, NUMBERS),
        lambda f, y, w: -m.mean_absolute_error(y, f, sample_weight=w),
    ),
    "explained_variance": (
        *(bp.Huber, 1, NUMBERS[:, 0]),
        lambda f, y, w: m.explained_variance_score(y, f[:, 0], sample_weight=w),
    ),
    "neg_max_error": (
        *(bp.AbsoluteError, 1, NUMBERS[:, 0]),
        lambda f, y, w: -np.abs(y - f[:, 0])[slice(None) if w is None else w > 0].max(),
    ),
    "neg_mean_poisson_deviance": (
        *(bp.Poisson, 1, COUNTS),
        lambda f, y, w: -m.mean_poisson_deviance(y, np.exp(f[:, 0]), sample_weight=w),
    ),
    "neg_mean_squared_error": (
        *(bp.GaussianNLL, 4, NUMBERS),
        lambda f, y, w: -m.mean_squared_error(y, f[:, :2], sample_weight=w),
    ),
    "neg_median_absolute_error": (
        *(lambda: bp.Pinball([0.1, 0.5, 0.9]), 6, NUMBERS),
        lambda f, y, w: -m.median_absolute_error(y, f[:, 2:4], sample_weight=w),
    ),
}


@pytest.mark.parametrize("weights", [None, W], ids=["", "weighted"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
class TestNumbers:
    def test_of_evaluate(self, name, dtype, weights):
        loss, outputs, y, by_hand = CASES[name]
        trainer = trainer_of(loss(), outputs, dtype)
        found = trainer.evaluate(X, y, weights, metrics=[name])
        assert (next(iter(found)), list(found)[-1]) == ("loss", name)
        assert type(found[name]) is float
        expected = by_hand(trainer.net.predict(X).astype(float), y, weights)
        assert_allclose(found[name], expected, rtol=1e-12 if dtype == "float64" else 1e-5)


class TestWhereTheyGo:
    def test_fit_and_validation(self):
        trainer = trainer_of(bp.CrossEntropy(), 3)
        history = trainer.fit(
            X[:40], CLASSES[:40], epochs=3, validation_data=(X[40:], CLASSES[40:]), metrics=["f1_macro"], verbose=0
        )
        assert history.names()[5:] == ["f1_macro", "validation_loss", "validation_accuracy", "validation_f1_macro"]
        for rows, name in ((slice(40), "f1_macro"), (slice(40, None), "validation_f1_macro")):
            predicted = trainer.net.predict(X[rows]).argmax(axis=1)
            assert_allclose(history[name][-1], m.f1_score(CLASSES[rows], predicted, average="macro"), rtol=1e-12)

    def test_minimize_and_early_stopping(self):
        net = trainer_of(bp.CrossEntropy(), 3).net
        stopper = bp.EarlyStopping("validation_balanced_accuracy", mode="max", patience=3)
        history = bp.minimize(
            net,
            bp.CrossEntropy(),
            X[:40],
            CLASSES[:40],
            validation_data=(X[40:], CLASSES[40:]),
            metrics=["balanced_accuracy"],
            callbacks=[stopper],
            verbose=0,
        )
        assert stopper.best == max(history["validation_balanced_accuracy"])

    def test_the_loss_s_own_come_first(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
        trainer = trainer_of(bp.LeastSquares(), 2)
        f = trainer.net.predict(X)
        own = 1 - ((f - NUMBERS) ** 2).sum() / ((NUMBERS - NUMBERS.mean(axis=0)) ** 2).sum()
        assert_allclose(trainer.evaluate(X, NUMBERS, metrics=["r2"])["r2"], own, rtol=1e-12)


BCE, CE, LS = bp.BinaryCrossEntropy, bp.CrossEntropy, bp.LeastSquares
REFUSED = {
    "a typing error": (CE, 3, CLASSES, "f1_marco", ["'accuracy'", "'f1_marco'", "Close to it: f1_macro"]),
    "a typing error in an own name": (CE, 3, CLASSES, "acuracy", ["'acuracy'", "Close to it: accuracy"]),
    "nothing like it": (CE, 3, CLASSES, "zzzzzz", ["'zzzzzz'", "get_scorer_names"]),
    "regression for classes": (CE, 3, CLASSES, "r2", ["for classification", "'r2'", "for regression"]),
    "regression for answers": (BCE, 1, ANSWERS[:, 0], "neg_max_error", ["for classification", "for regression"]),
    "classes for regression": (LS, 2, NUMBERS, "accuracy", ["for regression", "'accuracy'", "for classification"]),
    "two classes for three": (CE, 3, CLASSES, "roc_auc", ["CrossEntropy()", "'roc_auc'", "It says", "multi_class"]),
    "negative targets": (LS, 1, NUMBERS[:, 0], "neg_mean_squared_log_error", ["LeastSquares()", "It says"]),
    "no median": (lambda: bp.Pinball([0.1, 0.9]), 2, NUMBERS[:, 0], "neg_mean_absolute_error", ["0.5", "median"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_the_first_step(case):
    loss, outputs, y, name, parts = REFUSED[case]
    trainer = trainer_of(loss(), outputs)
    for call in (
        lambda: trainer.fit(X, y, metrics=[name], verbose=0),
        lambda: trainer.evaluate(X, y, metrics=[name]),
    ):
        assert_refused(call, ValueError, "Trainer", *parts)
    call = lambda: bp.minimize(trainer.net, loss(), X, y, metrics=[name], verbose=0)  # noqa: E731
    assert_refused(call, ValueError, "minimize", *parts)
    assert trainer.optimizer.t == 0


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    trainer = trainer_of(bp.CrossEntropy(), 3)
    with pytest.raises(ImportError, match=r"'accuracy'.*'f1_macro'.*backprop-mlp\[sklearn\]"):
        trainer.fit(X, CLASSES, metrics=["f1_macro"], verbose=0)
    assert trainer.optimizer.t == 0


def test_an_undefined_metric_warns_as_scikit_learn_does():
    trainer = trainer_of(bp.CrossEntropy(), 3)
    trainer.net.phi[:3] = [100, 0, 0]  # β: everything is taken for class 0
    with pytest.warns(
        m.UndefinedMetricWarning if hasattr(m, "UndefinedMetricWarning") else UserWarning, match="ill-defined"
    ):
        found = trainer.evaluate(X, CLASSES, metrics=["precision_macro"])
    assert_allclose(found["precision_macro"], np.mean(CLASSES == 0) / 3, rtol=1e-12)
