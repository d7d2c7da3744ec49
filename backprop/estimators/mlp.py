"""`MLPClassifier` and `MLPRegressor`: the parameters of scikit-learn's, and what they mean."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy.special import ndtri

from backprop import checks
from backprop.checks import Array
from backprop.estimators import build, data
from backprop.estimators.answers import Classes, Quantities
from backprop.estimators.base import BaseMLP
from backprop.estimators.course import unchanged_if_refused
from backprop.estimators.data import Examples
from backprop.estimators.hooks import available_if, with_callbacks
from backprop.losses import GaussianNLL, Loss, Pinball, Poisson


class MLPClassifier(Classes, BaseMLP):
    """A multilayer perceptron that predicts classes, with the parameters of `sklearn.neural_network.MLPClassifier`.

    One class of several (softmax), yes or no (logistic), or several yes/no answers at once (y (N, K) of 0 and 1). Beyond
    scikit-learn's: `activation` also "leaky_relu", "elu", "silu", "gelu", "softplus", "sin", "cos", a layer, or a list with
    one for each hidden layer; `dropout` a rate or a list of them; `class_weight` a dict or "balanced"; `monitor` what early
    stopping goes by ("loss", or a scorer of scikit-learn); `callbacks`; `shards`, `threads` and `native` as in `Trainer`;
    `scale_inputs` standardizes X and keeps the scaling with the model; `missing` and `unknown` what a `Table` does with the
    holes and new categories of a frame.
    `learning_rate_init` may be a schedule. With `dtype` "auto" weights and predictions have the dtype of X, and minibatches are
    computed in float32; "float64" and "float32" are for everything.

    >>> from backprop.estimators import MLPClassifier
    >>> X, y = [[0.0], [1.0], [2.0], [3.0]], ["low", "low", "high", "high"]
    >>> model = MLPClassifier((8,), solver="lbfgs", random_state=0).fit(X, y)
    >>> model.predict([[0.5], [2.5]])
    array(['low', 'high'], dtype='<U4')
    """

    classes_: Array

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
        shards: int | str = "auto",
        threads: int | str = "auto",
        native: bool | str = "auto",
    ) -> None:
        self._keep(locals())

    @available_if(lambda model: model.solver != "lbfgs")
    @unchanged_if_refused
    @with_callbacks
    def partial_fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        classes: Any = None,
        *,
        epochs: int = 1,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
        validation_data: Any = None,
    ) -> Self:
        """Train `epochs` more passes over these examples; the first call needs `classes`, all there will ever be.

        Validation data are as in `fit`; `early_stopping` needs them in each call.
        """
        who = "MLPClassifier.partial_fit"
        if self.class_weight == "balanced":
            advice = "Pass a dict: what is balanced in one part of the data is not in the next."
            raise ValueError(checks.message(who, "class_weight a dict", "'balanced'", advice))
        judges = self._judges(validation_data, X_val, y_val, sample_weight_val)
        if classes is not None:
            classes = np.unique(data.answers(who, None, classes, "classes"))
        if not hasattr(self, "network_"):
            if classes is None:
                advice = "Pass classes=np.unique(all_y)."
                raise ValueError(checks.message(who, "classes in the first call", "None", advice))
            self._classes_given = classes
        elif classes is not None and not np.array_equal(classes, self.classes_):
            raise ValueError(checks.message(who, f"classes {list(self.classes_)}", f"{list(classes)}"))
        return self._fit(X, y, sample_weight, judges, epochs=epochs, incremental=True)


class MLPRegressor(Quantities, BaseMLP):
    """A multilayer perceptron that predicts numbers, with the parameters of `sklearn.neural_network.MLPRegressor`.

    Beyond scikit-learn's: `loss` also "absolute_error", "huber" (with `delta`), "quantile" (with `quantiles`), "gaussian", or a
    `Loss`; the activations, `dropout`, `monitor`, `callbacks`, `shards`, `threads`, `native`, `scale_inputs`, `missing`,
    `unknown` and `dtype` of `MLPClassifier`; `scale_targets` standardizes y while training and turns predictions back.

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
        shards: int | str = "auto",
        threads: int | str = "auto",
        native: bool | str = "auto",
    ) -> None:
        self._keep(locals())

    @available_if(lambda model: model.solver != "lbfgs")
    @unchanged_if_refused
    @with_callbacks
    def partial_fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        epochs: int = 1,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
        validation_data: Any = None,
    ) -> Self:
        """Train `epochs` more passes over these examples. Validation data are as in `fit`; `early_stopping` needs them."""
        judges = self._judges(validation_data, X_val, y_val, sample_weight_val)
        return self._fit(X, y, sample_weight, judges, epochs=epochs, incremental=True)

    def _make_loss(self) -> Loss:
        loss = build.regression_loss(self.loss, self.quantiles, self.delta)
        self.out_activation_ = "exp" if isinstance(loss, Poisson) else "identity"
        return loss

    def _advice_on_use(self, examples: Examples) -> str:
        """What to do where predictions are further from the targets than their mean is, on up to 2048 rows; else ""."""
        n = len(examples.targets)
        some = examples.at(np.arange(0, n, 1 + n // 2048))._replace(w=None)
        possible = {
            "scale_inputs": not hasattr(some.X, "tocsr"),
            "scale_targets": not isinstance(self._loss_function, Poisson),
        }
        unscaled = [f"{name}=True" for name in possible if possible[name] and not self._made_by(name)]
        score = self._r2(some) if unscaled and n > 1 else np.nan
        if not score < 0:
            return ""
        mean, deviation = some.targets.mean(), some.targets.std()
        return (
            f" What it predicts is further from y (mean {mean:.3g}, standard deviation {deviation:.3g}) than that mean is: "
            f"R² = {score:.2g}. {' and '.join(unscaled)} let training begin on the scale of the data."
        )

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
