"""`MLPClassifier` and `MLPRegressor`: what y means to each, and what comes out of `predict`."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtri, softmax
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, unique_labels

from backprop import checks
from backprop.checks import Array
from backprop.estimators import build, data
from backprop.estimators.base import BaseMLP
from backprop.estimators.course import unchanged_if_refused
from backprop.estimators.data import HOLD_OUT, Examples, standardization
from backprop.estimators.hooks import with_callbacks
from backprop.functions import sigmoid
from backprop.losses import BinaryCrossEntropy, CrossEntropy, GaussianNLL, Loss, Pinball, Poisson


class MLPClassifier(ClassifierMixin, BaseMLP):
    """A multilayer perceptron that predicts classes, with the parameters of `sklearn.neural_network.MLPClassifier`.

    One class of several (softmax), yes or no (logistic), or several yes/no answers at once (y (N, K) of 0 and 1). Beyond
    scikit-learn's: `activation` also "leaky_relu", "elu", "silu", "gelu", "softplus", "sin", "cos", a layer, or a list with
    one for each hidden layer; `dropout` a rate or a list of them; `class_weight` a dict or "balanced"; `monitor` what early
    stopping goes by ("loss", or a scorer of scikit-learn); `callbacks`; `threads`; `scale_inputs` standardizes X and keeps the
    scaling with the model; `missing` and `unknown` what a `Table` does with the holes and new categories of a frame.
    `learning_rate_init` may be a schedule. With `dtype` "auto" weights and predictions have the dtype of X, and minibatches are
    computed in float32; "float64" and "float32" are for everything.

    >>> from backprop.estimators import MLPClassifier
    >>> X, y = [[0.0], [1.0], [2.0], [3.0]], ["low", "low", "high", "high"]
    >>> model = MLPClassifier((8,), solver="lbfgs", random_state=0).fit(X, y)
    >>> model.predict([[0.5], [2.5]])
    array(['low', 'high'], dtype='<U4')
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: Any = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dropout: Any = 0.0,
        class_weight: Any = None,
        monitor: Any = None,
        callbacks: Any = None,
        scale_inputs: bool = False,
        missing: str = "refuse",
        unknown: str = "refuse",
        dtype: str = "auto",
        threads: int | str = "auto",
    ) -> None:
        self._keep(locals())

    @available_if(lambda model: model.solver != "lbfgs")
    @unchanged_if_refused
    @with_callbacks
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None, *, epochs: int = 1) -> Any:
        """Train `epochs` more passes over these examples; the first call needs `classes`, all there will ever be."""
        who = "MLPClassifier.partial_fit"
        if self.class_weight == "balanced":
            advice = "Pass a dict: what is balanced in one part of the data is not in the next."
            raise ValueError(checks.message(who, "class_weight a dict", "'balanced'", advice))
        if classes is not None:
            classes = unique_labels(classes)
        if not hasattr(self, "network_"):
            if classes is None:
                advice = "Pass classes=np.unique(all_y)."
                raise ValueError(checks.message(who, "classes in the first call", "None", advice))
            self._classes_given = classes
        elif classes is not None and not np.array_equal(classes, self.classes_):
            raise ValueError(checks.message(who, f"classes {list(self.classes_)}", f"{list(classes)}"))
        return self._fit(X, y, sample_weight, epochs=epochs, incremental=True)

    def _make_loss(self) -> Loss:
        return CrossEntropy() if self.out_activation_ == "softmax" else BinaryCrossEntropy()

    def _outputs(self, columns: int) -> int:
        return len(self.classes_) if self.out_activation_ == "softmax" else columns

    def _encode(self, y: Array, *, reset: bool) -> Array:
        """Labels (N,) for softmax, 0 and 1 (N, K) or (N,) for logistic."""
        check_classification_targets(y)
        found = np.unique(y) if y.ndim == 1 else y
        if reset:
            classes = self.__dict__.pop("_classes_given", None)
            self._binarizer = LabelBinarizer().fit(found if classes is None or y.ndim == 2 else classes)
            self.classes_ = self._binarizer.classes_
            if len(self.classes_) < 2:
                got, advice = f"one class, {self.classes_.tolist()[0]!r}", "There is nothing to learn."
                raise ValueError(checks.message("MLPClassifier", "y with at least two classes", got, advice))
            self.out_activation_ = "softmax" if y.ndim == 1 and len(self.classes_) > 2 else "logistic"
        unknown = sorted(set(found.tolist()) - set(self.classes_.tolist())) if y.ndim == 1 else []
        if unknown:
            expected = f"y with classes {self.classes_.tolist()}"
            raise ValueError(checks.message("MLPClassifier", expected, f"also {unknown}"))
        if self.out_activation_ == "softmax":
            return np.searchsorted(self.classes_, y)
        answers = np.asarray(self._binarizer.transform(y), np.float64)
        return answers.ravel() if answers.shape[1] == 1 else answers

    def _class_weights(self, y: Array, w: Array | None) -> Array:
        extra = compute_sample_weight(self.class_weight, y)
        w = extra if w is None else w * extra
        if not (extra >= 0).all() or not w.any():
            expected = "class_weight ≥ 0, and > 0 for some example"
            raise ValueError(checks.message("MLPClassifier", expected, repr(self.class_weight)))
        return w

    def _stratify(self, y: Array, size: int) -> Array | None:
        """The classes to be held out in the same shares, where each can be in both parts; of two classes each must be."""
        counts = np.unique(y, return_counts=True)[1]
        if counts.min() >= 2 and len(counts) <= min(size, len(y) - size):
            return y
        if self.out_activation_ == "logistic":
            got = f"{counts.tolist()} examples of {self.classes_.tolist()}, and {size} to hold out"
            expected = "each class to train on and to validate on"
            raise ValueError(checks.message("MLPClassifier", expected, got, HOLD_OUT))
        return None

    def _score_held_out(self, held_out: Examples) -> float:
        X, y, _, w = held_out
        return float(accuracy_score(y, self._labels(self._network_outputs(X)), sample_weight=w))

    def _labels(self, f: Array) -> Array:
        if self.out_activation_ == "softmax":
            return self.classes_[np.argmax(f, axis=1)]
        labels = (f > 0).astype(int)
        return self._binarizer.inverse_transform(labels.ravel() if f.shape[1] == 1 else labels)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy on rows X (N, D); y may be the name of a column, as in `fit`."""
        return float(super().score(X, data.take_out("MLPClassifier.score", X, y), sample_weight))

    def predict(self, X: Any) -> Array:
        """Classes of rows X: (N,), or 0 and 1 (N, K) for several questions."""
        return self._labels(self._rows(X))

    def predict_proba(self, X: Any) -> Array:
        """Probabilities (N, K): one column per class, or per question."""
        f = np.asarray(self._rows(X), np.float64)
        if self.out_activation_ == "softmax":
            p = softmax(f, axis=1)
        else:
            p = sigmoid(f)
            p = np.hstack([1 - p, p]) if f.shape[1] == 1 else p
        return p.astype(self.network_.phi.dtype, copy=False)

    def predict_log_proba(self, X: Any) -> Array:
        """Logarithms of `predict_proba`."""
        return np.log(self.predict_proba(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, BaseMLP):
    """A multilayer perceptron that predicts numbers, with the parameters of `sklearn.neural_network.MLPRegressor`.

    Beyond scikit-learn's: `loss` also "absolute_error", "huber" (with `delta`), "quantile" (with `quantiles`), "gaussian", or a
    `Loss`; the activations, `dropout`, `monitor`, `callbacks`, `threads`, `scale_inputs`, `missing`, `unknown` and `dtype` of
    `MLPClassifier`; `scale_targets` standardizes y while training and turns predictions back.

    >>> import numpy as np
    >>> from backprop.estimators import MLPRegressor
    >>> X = np.linspace(-1, 1, 50).reshape(-1, 1)
    >>> model = MLPRegressor(hidden_layer_sizes=(8,), solver="lbfgs", random_state=0, max_iter=500).fit(X, X[:, 0] ** 2)
    >>> model.score(X, X[:, 0] ** 2) > 0.99
    True
    """

    def __init__(
        self,
        loss: Any = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: Any = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dropout: Any = 0.0,
        quantiles: Any = (0.1, 0.5, 0.9),
        delta: float = 1.0,
        monitor: Any = None,
        callbacks: Any = None,
        scale_inputs: bool = False,
        scale_targets: bool = False,
        missing: str = "refuse",
        unknown: str = "refuse",
        dtype: str = "auto",
        threads: int | str = "auto",
    ) -> None:
        self._keep(locals())

    @available_if(lambda model: model.solver != "lbfgs")
    @unchanged_if_refused
    @with_callbacks
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, *, epochs: int = 1) -> Any:
        """Train `epochs` more passes over these examples."""
        return self._fit(X, y, sample_weight, epochs=epochs, incremental=True)

    def _make_loss(self) -> Loss:
        loss = build.regression_loss(self.loss, self.quantiles, self.delta)
        self.out_activation_ = "exp" if isinstance(loss, Poisson) else "identity"
        return loss

    def _outputs(self, columns: int) -> int:
        return columns * self._loss_function.outputs_per_target

    def _encode(self, y: Array, *, reset: bool) -> Array:
        if y.dtype.kind in "OUS":
            y = self._numbers(y)
        y = np.asarray(y, np.float64)
        columns = 1 if y.ndim == 1 else y.shape[1]
        if reset:
            self._targets = columns
        elif columns != self._targets:
            raise ValueError(checks.message("MLPRegressor", f"y with {self._targets} columns", f"{columns}"))
        return y

    def _numbers(self, y: Array) -> Array:
        """Objects as numbers, or the first that is none of them by its row."""
        for row, value in enumerate(y):
            try:
                np.asarray(value, np.float64)
            except (TypeError, ValueError):
                raise ValueError(checks.message("MLPRegressor", "y: numbers", f"{str(value)!r} at row {row}")) from None
        return y.astype(np.float64)

    def _scaled_targets(self, targets: Array, w: Array | None) -> Array:
        if isinstance(self._loss_function, Poisson):
            raise ValueError(checks.message("MLPRegressor", "scale_targets=False with Poisson counts", "True"))
        if self._target_scaling is None:
            self._target_scaling = standardization(targets, w)
        return self._target_scaling.forth(targets)

    def _score_held_out(self, held_out: Examples) -> float:
        X, _, targets, w = held_out
        predicted = self._predicted(self._network_outputs(X))
        return float(r2_score(targets, predicted, sample_weight=w)) if np.isfinite(predicted).all() else np.nan

    def _predicted(self, f: Array) -> Array:
        """The mean, or the median quantile, in the units of y."""
        f, loss = np.asarray(f, np.float64), self._loss_function
        if isinstance(loss, Poisson):
            f = np.exp(f)
        middle = np.argmin(np.abs(np.array(loss.quantiles) - 0.5)) if isinstance(loss, Pinball) else 0
        return self._in_units(f, int(middle))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R² on rows X (N, D); y may be the name of a column, as in `fit`."""
        return float(super().score(X, data.take_out("MLPRegressor.score", X, y), sample_weight))

    def predict(self, X: Any) -> Array:
        """Predictions (N,) or (N, K): the mean, with loss="quantile" the quantile nearest to the median."""
        return self._predicted(self._rows(X)).astype(self.network_.phi.dtype, copy=False)

    def predict_interval(self, X: Any, coverage: float = 0.8) -> tuple[Array, Array]:
        """(low, high), each like `predict`, between which y lies with probability `coverage`.

        For loss="gaussian" any coverage; for "quantile" that of the two quantiles symmetric about ½ that were trained. Raises
        ValueError for other losses, or quantiles that were not trained.
        """
        who = "MLPRegressor.predict_interval"
        coverage = checks.number(who, "coverage", coverage, above=0, below=1)
        f, loss, K = np.asarray(self._rows(X), np.float64), self._loss_function, self._targets
        if isinstance(loss, GaussianNLL):
            reach = float(ndtri(0.5 + coverage / 2)) * np.exp(f[:, K:] / 2)
            return self._in_units(f[:, :K] - reach), self._in_units(f[:, :K] + reach)
        if not isinstance(loss, Pinball):
            raise ValueError(checks.message(who, "loss 'quantile' or 'gaussian'", repr(loss)))
        ends = []
        for q in (0.5 - coverage / 2, 0.5 + coverage / 2):
            found = [k for k, trained in enumerate(loss.quantiles) if abs(trained - q) < 1e-9]
            if not found:
                raise ValueError(checks.message(who, f"a model trained with the quantile {q:g}", f"{loss.quantiles}"))
            ends.append(self._in_units(f, found[0]))
        return ends[0], ends[1]

    def _in_units(self, f: Array, k: int = 0) -> Array:
        """Of the outputs f for each target the k-th, in the units of y."""
        f = f[:, k * self._targets : (k + 1) * self._targets]
        f = f.ravel() if f.shape[1] == 1 else f
        return f if self._target_scaling is None else self._target_scaling.back(f)
