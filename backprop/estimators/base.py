"""What both estimators share: the life of a fit, from checked data to fitted attributes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.validation import _check_sample_weight, check_array, check_is_fitted, check_X_y, validate_data

from backprop import checks
from backprop.checks import Array
from backprop.estimators import build, data, files, solvers
from backprop.estimators.course import Course, built, require_same, unchanged_if_refused
from backprop.estimators.data import Examples, Standardization, standardization
from backprop.estimators.hooks import CallbackSupportMixin, with_callbacks
from backprop.files.atomic import PathLike
from backprop.layers import Linear
from backprop.layers.nesting import leaves
from backprop.losses import Loss
from backprop.sequential import Sequential
from backprop.tables import Table

AS_NUMBERS = {"accept_sparse": ("csr", "csc"), "dtype": (np.float64, np.float32)}  # how scikit-learn is to take X


class BaseMLP(CallbackSupportMixin, BaseEstimator):
    """Fit, warm start, early stopping and the fitted attributes; `MLPClassifier` and `MLPRegressor` say what y means."""

    network_: Sequential
    table_: Table | None = None
    _loss_function: Loss
    _course: Course

    def _keep(self, given: dict[str, Any]) -> None:
        """Keep the constructor's arguments as they are, under their names, as scikit-learn's `clone` wants them."""
        self.__dict__.update({name: value for name, value in given.items() if name not in ("self", "__class__")})

    @unchanged_if_refused
    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, validation_data: Any = None) -> Any:
        """Train on rows X (N, D) and targets y from new weights, or with `warm_start` from where the last fit ended.

        X may be an array, a sparse matrix or a frame; in a frame, columns of words or categories are encoded, and `y` may be the
        name of the target's column. `validation_data` is (X, y) or (X, y, sample_weight): its loss is kept in
        `validation_loss_curve_`, and `early_stopping` goes by it. Raises TypeError or ValueError for data or parameters that do
        not fit, or when numbers are no longer finite; the model is then as it was.
        """
        return self._fit(X, y, sample_weight, validation_data, epochs=self.max_iter)

    def _fit(
        self, X: Any, y: Any, w: Any, validation_data: Any = None, *, epochs: int, incremental: bool = False
    ) -> Self:
        """Check what came in, make the network or take the one there is, and train it: `solvers` says how."""
        build.check_parameters(self)
        new = not hasattr(self, "network_") or not (self.warm_start or incremental)
        if not new:
            require_same(self)
        train = self._examples(X, y, w, reset=new)
        if getattr(self, "class_weight", None) is not None:
            train = train._replace(w=self._class_weights(train.y, train.w))
        if new:
            self._begin(train.X.shape[1], train.targets, train.X.dtype if self.dtype == "auto" else self.dtype)
        held_out = self._held_out(validation_data)
        if self.solver == "lbfgs":
            solvers.lbfgs(self, train, held_out)
        else:
            solvers.Descent(self, train, held_out).run(epochs, incremental)
        return self

    def _examples(self, X: Any, y: Any, w: Any = None, *, reset: bool = False) -> Examples:
        """What came in, checked. `table_` is what a frame's words and holes need, None for numbers alone."""
        for name, array in (("X", X), ("y", y), ("sample_weight", w)):
            checks.not_masked(type(self).__name__, name, array)
        if reset:
            self.table_ = None
        values = data.take_out(type(self).__name__, X, y)
        if reset and data.needs_table(X, y, self.missing):
            settings = {"missing": self.missing, "unknown": self.unknown, "scale": self.scale_inputs}
            table = Table(y if isinstance(y, str) else None, dtype="float64", **settings)
            X, _ = table.fit(X)
            self.table_, self.n_features_in_ = table, len(table.columns)
            self.feature_names_in_ = np.array(table.columns, dtype=object)
        elif self.table_ is not None:
            X = self.table_.transform(X)
        if self.table_ is not None:
            X, y = check_X_y(X, values, multi_output=True, estimator=self)
        else:
            X, y = validate_data(self, X, values, multi_output=True, reset=reset, **AS_NUMBERS)
        if w is not None:
            w = _check_sample_weight(w, X, dtype=np.float64, ensure_non_negative=True)
        flat = column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
        return Examples(X, y, self._encode(flat, reset=reset), w)

    def _held_out(self, validation_data: Any) -> Examples | None:
        if validation_data is None:
            return None
        if not isinstance(validation_data, tuple | list) or len(validation_data) not in (2, 3):
            expected = "validation_data as (X, y) or (X, y, sample_weight)"
            raise TypeError(checks.message(type(self).__name__, expected, type(validation_data).__name__))
        return self._examples(*validation_data)

    def _begin(self, features: int, targets: Array, dtype: Any) -> None:
        """New weights, a new optimizer, empty curves."""
        random = check_random_state(self.random_state)
        self._loss_function = self._make_loss()
        self.n_outputs_ = self._outputs(1 if targets.ndim == 1 else targets.shape[1])
        units = [features, *build.widths(self.hidden_layer_sizes), self.n_outputs_]
        self.network_ = build.network(units, self.activation, self.dropout, random, dtype)
        self.n_layers_ = len(units)
        split = random.get_state()  # of which a copy is a hundred times dearer
        self._course = Course(int(random.randint(np.iinfo(np.int32).max)), split, built(self))
        self.t_ = 0
        self.loss_curve_: list[float] = []
        self.validation_loss_curve_: list[float] = []
        self.best_loss_: float | None = None if self.early_stopping else np.inf
        self.validation_scores_: list[float] | None = [] if self.early_stopping else None
        self.best_validation_score_: float | None = -np.inf if self.early_stopping else None
        self._input_scaling: Standardization | None = None
        self._target_scaling: Standardization | None = None

    def _scaled(self, X: Any, w: Array | None = None, dtype: Any = None) -> Any:
        """X as a network of this dtype takes it: standardized where `scale_inputs` says so, row by row where it is sparse."""
        dtype = dtype or self.network_.phi.dtype
        scale = self.scale_inputs and self.table_ is None  # a table scales the columns that are numbers
        if hasattr(X, "tocsr"):
            if scale:
                advice = "Use scale_inputs=False and sklearn.preprocessing.MaxAbsScaler."
                who = type(self).__name__
                raise ValueError(checks.message(who, "dense X with scale_inputs=True", "sparse", advice))
            return data.SparseRows(X, dtype)
        if scale:
            if self._input_scaling is None:
                self._input_scaling = standardization(X, w)
            X = self._input_scaling.forth(X)
        with np.errstate(over="ignore"):  # numbers that do not fit are looked for afterwards
            return X if data.is_mapped(X) else np.asarray(X, dtype)

    def _for_network(self, examples: Examples, dtype: Any = None) -> tuple[Any, Array, Array | None]:
        """X, targets and weights as a network of this dtype takes them; the first to come are those that scaling goes by."""
        X, _, targets, w = examples
        if getattr(self, "scale_targets", False):
            targets = self._scaled_targets(targets, w)
        return self._scaled(X, w, dtype), targets, w

    def _say(self, line: str) -> None:
        if self.verbose:
            print(line)

    def save(self, path: PathLike) -> None:
        """Save the fitted model as one file of data that `load` reads: parameters, network, scaling, table, classes, curves.

        Callbacks, `random_state` and the state of the optimizer are not in it. Raises OSError where it cannot be written,
        TypeError for a parameter that is no data, such as a function, NotFittedError.
        """
        files.save(self, path)

    @classmethod
    def load(cls, path: PathLike, classes: Iterable[type] = ()) -> Self:
        """The fitted model that `save` has saved; it predicts the same. `classes` are layers or losses of your own in it.

        Nothing in the file is executed. Raises FileFormatError for a file that is damaged, altered, or of another kind, OSError
        for one that cannot be read.
        """
        return files.load(cls, path, classes)

    def as_network(self) -> tuple[Sequential, Table]:
        """A network and the table before it that predict what this fitted model predicts, scaling and categories included.

        They are copies. Columns without names are called x0, x1, …. Of several quantiles the network gives the one nearest to the
        median, of a Gaussian loss the mean, of counts exp f. Raises NotFittedError, ValueError for several yes-or-no questions.

        >>> from backprop.estimators import MLPRegressor
        >>> X = np.arange(8.0).reshape(-1, 1)
        >>> model = MLPRegressor(hidden_layer_sizes=(3,), solver="lbfgs", tol=1, random_state=0).fit(X, X[:, 0])
        >>> net, table = model.as_network()
        >>> table.columns, net.out_features
        (['x0'], 1)
        """
        from backprop.estimators.convert import as_network

        return as_network(self)

    def _rows(self, X: Any) -> Array:
        """Outputs of the network (N, K) for checked X."""
        check_is_fitted(self, "network_")
        checks.not_masked(f"{type(self).__name__}.predict", "X", X)
        if self.table_ is not None:
            return self._network_outputs(check_array(self.table_.transform(X)))
        try:
            X = validate_data(self, X, reset=False, **AS_NUMBERS)
        except ValueError:
            data.refuse_holes(f"{type(self).__name__}.predict", X)  # by column and row, if that is what is wrong
            raise
        return self._network_outputs(X)

    def _network_outputs(self, X: Any) -> Array:
        return self.network_.predict(self._scaled(X))

    @property
    def _linears(self) -> list[Linear]:
        check_is_fitted(self, "network_")
        return [layer for layer in leaves(self.network_) if isinstance(layer, Linear)]

    @property
    def coefs_(self) -> list[Array]:
        """Weights of each layer (D_in, D_out): views of the network's Ωᵀ."""
        return [layer.parameters["omega"].T for layer in self._linears]

    @property
    def intercepts_(self) -> list[Array]:
        """Biases of each layer (D_out,): views of the network's β."""
        return [layer.parameters["beta"] for layer in self._linears]

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
