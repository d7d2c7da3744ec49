"""What both estimators share: the life of a fit, from checked data to fitted attributes."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from backprop import checks
from backprop.checks import Array
from backprop.estimators import build
from backprop.estimators.hooks import CallbackSupportMixin, EpochTasks, with_callbacks
from backprop.layers import Linear
from backprop.losses import Loss
from backprop.optimizers import SGD, Optimizer
from backprop.sequential import Sequential
from backprop.training import Callback, Epoch, Trainer, minimize
from backprop.training.watch import check_callbacks, running

SOLVERS = ("lbfgs", "sgd", "adam")
LEARNING_RATES = ("constant", "invscaling", "adaptive")


class SparseRows:
    """A SciPy sparse matrix as rows to train on: a batch is made dense, the whole never is."""

    def __init__(self, matrix: Any, dtype: Any) -> None:
        self.matrix, self.shape, self.dtype = matrix.tocsr(), matrix.shape, np.dtype(dtype)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: slice) -> Array:
        return np.asarray(self.matrix[rows].toarray(), self.dtype)


class Standardization:
    """Columns shifted to mean 0 and divided by their standard deviation; constant columns are only shifted."""

    def __init__(self, rows: Array, w: Array | None = None) -> None:
        rows = np.asarray(rows, np.float64)
        self.mean = np.average(rows, axis=0, weights=w)
        deviation = np.sqrt(np.average((rows - self.mean) ** 2, axis=0, weights=w))
        # What the mean of equal numbers may be off by.
        rounding = len(rows) * np.finfo(np.float64).eps * np.abs(self.mean)
        self.scale = np.where(deviation > rounding, deviation, 1.0)

    def forth(self, rows: Array) -> Array:
        """(rows − mean) / scale."""
        return (rows - self.mean) / self.scale

    def back(self, rows: Array) -> Array:
        """Rows · scale + mean."""
        return rows * self.scale + self.mean


def unchanged_if_refused(method: Callable[..., Any]) -> Callable[..., Any]:
    """A fit after whose error the model has the attributes that it had before."""

    @functools.wraps(method)
    def fitted(model: Any, *arguments: Any, **named: Any) -> Any:
        before = dict(vars(model))
        try:
            return method(model, *arguments, **named)
        except Exception:
            vars(model).clear()
            vars(model).update(before)
            raise

    return fitted


class BaseMLP(CallbackSupportMixin, BaseEstimator):
    """Fit, warm start, early stopping and the fitted attributes; `MLPClassifier` and `MLPRegressor` say what y means."""

    network_: Sequential
    _loss_function: Loss

    def _keep(self, given: dict[str, Any]) -> None:
        """Keep the constructor's arguments as they are, under their names, as scikit-learn's `clone` wants them."""
        self.__dict__.update({name: value for name, value in given.items() if name not in ("self", "__class__")})

    @unchanged_if_refused
    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, validation_data: Any = None) -> Any:
        """Train on rows X (N, D) and targets y from new weights, or with `warm_start` from where the last fit ended.

        `validation_data` is (X, y): its loss is kept in `validation_loss_curve_`, and `early_stopping` goes by it. X may be an
        array, a frame or a sparse matrix. Raises TypeError or ValueError for data or parameters that do not fit; the model is
        then as it was.
        """
        return self._fit(X, y, sample_weight, validation_data, epochs=self.max_iter, incremental=False)

    def _fit(self, X: Any, y: Any, sample_weight: Any, validation_data: Any, *, epochs: int, incremental: bool) -> Any:
        self._check_parameters()
        new = not hasattr(self, "network_") or not (self.warm_start or incremental)
        X, y = self._checked(X, y, reset=new)
        if validation_data is not None and not (
            isinstance(validation_data, tuple | list) and len(validation_data) == 2
        ):
            got = type(validation_data).__name__
            raise TypeError(checks.message(type(self).__name__, "validation_data as (X, y)", got))
        w = (
            None
            if sample_weight is None
            else _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        )
        w = self._class_weights(y, w)
        targets = self._encode(y, reset=new)
        if new:
            self._begin(X.shape[1], targets, X.dtype if self.dtype == "auto" else self.dtype)
        if self.solver == "lbfgs":
            self._minimize(X, targets, w, validation_data)
            return self
        return self._descend(X, y, targets, w, validation_data, epochs, incremental)

    def _check_parameters(self) -> None:
        who = type(self).__name__
        check_callbacks(who, self.callbacks or ())
        checks.choice(who, "solver", self.solver, SOLVERS)
        checks.choice(who, "learning_rate", self.learning_rate, LEARNING_RATES)
        checks.integer(who, "max_iter", self.max_iter)
        checks.number(who, "alpha", self.alpha, least=0)
        checks.number(who, "tol", self.tol, least=0)
        checks.number(who, "power_t", self.power_t, least=0)
        checks.integer(who, "max_fun", self.max_fun)
        for name in ("scale_inputs", "scale_targets"):
            checks.boolean(who, name, getattr(self, name, False))
        checks.number(who, "validation_fraction", self.validation_fraction, above=0, below=1)
        for name in ("shuffle", "warm_start", "early_stopping"):
            checks.boolean(who, name, getattr(self, name))
        if self.batch_size != "auto":
            checks.integer_or(who, "batch_size", self.batch_size, "auto")
        if self.n_iter_no_change != np.inf:
            checks.integer(who, "n_iter_no_change", self.n_iter_no_change)

    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Array]:
        X, y = validate_data(
            self, X, y, accept_sparse=("csr", "csc"), multi_output=True, dtype=(np.float64, np.float32), reset=reset
        )
        return X, y

    def _begin(self, features: int, targets: Array, dtype: Any) -> None:
        """New weights, a new optimizer, empty curves."""
        random = check_random_state(self.random_state)
        self._loss_function = self._make_loss()
        columns = 1 if targets.ndim == 1 else targets.shape[1]
        self.n_outputs_ = self._outputs(columns)
        units = [features, *build.widths(self.hidden_layer_sizes), self.n_outputs_]
        self.network_ = build.network(units, self.activation, self.dropout, random, dtype)
        self.n_layers_ = len(units)
        self._split_random = copy.deepcopy(random)  # each fit that goes on holds out the same examples
        self._seed = int(random.randint(np.iinfo(np.int32).max))
        self._optimizer: Optimizer | None = None
        self._epochs_done, self.t_, self._waited = 0, 0, 0
        self.loss_curve_: list[float] = []
        self.validation_loss_curve_: list[float] = []
        self.best_loss_: float | None = None if self.early_stopping else np.inf
        self.validation_scores_: list[float] | None = [] if self.early_stopping else None
        self.best_validation_score_: float | None = -np.inf if self.early_stopping else None
        self._input_scaling: Standardization | None = None
        self._target_scaling: Standardization | None = None

    def _scaled(self, X: Any, w: Array | None = None) -> Any:
        """X as the network takes it: standardized where `scale_inputs` says so, row by row where it is sparse."""
        if hasattr(X, "tocsr"):
            if self.scale_inputs:
                advice = "Use scale_inputs=False and sklearn.preprocessing.MaxAbsScaler."
                raise ValueError(
                    checks.message(type(self).__name__, "dense X with scale_inputs=True", "sparse", advice)
                )
            return SparseRows(X, self.network_.phi.dtype)
        if self.scale_inputs:
            if self._input_scaling is None:
                self._input_scaling = Standardization(X, w)
            X = self._input_scaling.forth(X)
        return np.asarray(X, self.network_.phi.dtype)

    def _decay(self, examples: float) -> float | dict[str, float]:
        """λ of scikit-learn's penalty ½ α Σ Ω² / examples: on Ω alone."""
        return {"*.omega": self.alpha / examples} if self.alpha else 0.0

    def _penalty(self, examples: float) -> float:
        with np.errstate(over="ignore"):  # weights that diverged are told of by the trainer
            return 0.5 * self.alpha / examples * sum(float(np.sum(np.square(c, dtype=float))) for c in self.coefs_)

    def _minimize(self, X: Any, targets: Array, w: Array | None, validation: Any) -> None:
        X, net = self._scaled(X, w), self.network_
        total = float(X.shape[0] if w is None else w.sum())
        decay = np.zeros(net.size)
        for name, view in net.views(decay).items():
            view[...] = self.alpha / total if name.endswith("omega") else 0.0
        held = None
        if validation is not None:
            X_held, y_held = self._checked(*validation, reset=False)
            held = self._scaled(X_held), self._as_trained(self._encode(y_held, reset=False))
        tasks = EpochTasks(self, 0, X=X, y=targets)
        history = minimize(
            net,
            self._loss_function,
            X,
            self._as_trained(targets, w),
            sample_weight=w,
            weight_decay=decay,
            iterations=self.max_iter,
            tolerance=self.tol,
            threads=self.threads,
            validation_data=held,
            callbacks=self._callbacks(),
            verbose=2 if self.verbose else 0,
            options={"maxfun": self.max_fun, "ftol": 1e7 * np.finfo(np.float64).eps},  # SciPy's own, as scikit-learn's
        )
        self.validation_loss_curve_ = [record.validation["loss"] for record in history if record.validation]
        tasks.close()
        self.n_iter_ = len(history)
        self.loss_curve_ = [record.metrics["objective"] for record in history]
        self.loss_ = self.loss_curve_[-1] if history else self._objective(X, targets, w, total)
        self.best_loss_ = min(self.loss_curve_, default=self.loss_)
        self.t_ += self.n_iter_ * X.shape[0]
        if self.n_iter_ == self.max_iter:
            text = f"L-BFGS stopped after max_iter={self.max_iter} iterations, before it converged."
            warnings.warn(text, ConvergenceWarning, stacklevel=4)

    def _objective(self, X: Any, targets: Array, w: Array | None, total: float) -> float:
        trainer = Trainer(self.network_, self._loss_function, SGD(0.1))
        return trainer.evaluate(X, self._as_trained(targets), w)["loss"] + self._penalty(total)

    def _descend(
        self, X: Any, y: Array, targets: Array, w: Array | None, validation: Any, epochs: int, incremental: bool
    ) -> Any:
        X, y, targets, w, held_out = self._split(X, y, targets, w, validation, incremental)
        batch_size = min(200, X.shape[0]) if self.batch_size == "auto" else min(self.batch_size, X.shape[0])
        rows, trained = self._scaled(X, w), self._as_trained(targets, w)
        data = None
        if held_out is not None:
            data = (self._scaled(held_out[0]), self._as_trained(held_out[2]), *held_out[3:])
        weight = batch_size if w is None else batch_size * float(w.mean())
        trainer = self._trainer(X.shape[0], batch_size, weight)
        tasks = EpochTasks(self, epochs, X=X, y=y)
        best, self.n_iter_ = self.network_.phi.copy(), 0
        records = trainer.epochs(rows, trained, epochs, sample_weight=w, validation_data=data)
        going_on = incremental and not self.early_stopping
        try:
            with running(trainer, self._callbacks()):
                for stop in self._watched(records, trainer, tasks, weight, X.shape[0], held_out, best):
                    if stop or (not going_on and self._stalled()):
                        break
                else:
                    if not incremental:
                        text = f"Training stopped after max_iter={self.max_iter} epochs, before it converged."
                        warnings.warn(text, ConvergenceWarning, stacklevel=5)
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=5)
        except FloatingPointError as error:
            raise ValueError(str(error)) from error
        finally:
            self._epochs_done = trainer.epochs_done
        if self.early_stopping and held_out is not None:
            self.network_.phi[...] = best
        tasks.close()
        return self

    def _trainer(self, n: int, batch_size: int, weight: float) -> Trainer:
        """A trainer that goes on where the last one of this model stopped."""
        if self._optimizer is None:
            self._optimizer = build.optimizer(self, n, batch_size, self._decay(weight))
        trainer = Trainer(
            self.network_,
            self._loss_function,
            self._optimizer,
            batch_size=batch_size,
            seed=self._seed,
            shuffle=self.shuffle,
            threads=self.threads,
        )
        trainer.epochs_done = self._epochs_done
        return trainer

    def _watched(
        self,
        records: Iterator[Epoch],
        trainer: Trainer,
        tasks: EpochTasks,
        weight: float,
        n: int,
        held_out: tuple[Any, ...] | None,
        best: Array,
    ) -> Iterator[bool]:
        """After each epoch: curves, counts, callbacks, the best φ into `best`; yields whether a callback stops training."""
        for _ in range(tasks.epochs):
            task, penalty = tasks.begin(), self._penalty(weight)
            record = next(records)
            self._note(record, penalty, n)
            score = None if held_out is None or not self.early_stopping else self._score_held_out(held_out)
            if self._improved(score):
                best[...] = self.network_.phi
            stops = [bool(callback.epoch(trainer, record)) for callback in self._callbacks()]
            yield any([tasks.end(task), *stops])

    def _callbacks(self) -> Sequence[Callback]:
        return self.callbacks or ()

    def _note(self, record: Any, penalty: float, n: int) -> None:
        self.n_iter_ += 1
        self.t_ += n
        self.loss_ = record.loss + penalty
        self.loss_curve_.append(self.loss_)
        if record.validation:
            self.validation_loss_curve_.append(record.validation["loss"])
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")

    def _improved(self, score: float | None) -> bool:
        """Keep count of epochs without progress; whether this one is the best so far."""
        if score is not None and self.validation_scores_ is not None and self.best_validation_score_ is not None:
            self.validation_scores_.append(score)
            self._waited = self._waited + 1 if score < self.best_validation_score_ + self.tol else 0
            better = score > self.best_validation_score_
            self.best_validation_score_ = score if better else self.best_validation_score_
            return better
        best = np.inf if self.best_loss_ is None else self.best_loss_
        self._waited = self._waited + 1 if self.loss_ > best - self.tol else 0
        self.best_loss_ = min(best, self.loss_)
        return self.loss_ < best

    def _stalled(self) -> bool:
        """Whether patience is over; with learning_rate="adaptive" the rate is divided first."""
        if self._waited <= self.n_iter_no_change:
            return False
        rate = self._optimizer.schedule if self._optimizer else None
        if isinstance(rate, build.Adaptive) and rate.divide():
            self._waited = 0
            return False
        return True

    def _split(
        self, X: Any, y: Array, targets: Array, w: Array | None, validation: Any, incremental: bool
    ) -> tuple[Any, Array, Array, Array | None, tuple[Any, ...] | None]:
        """The training part and what is held out: (X, y, encoded y), given or cut off for early stopping."""
        if validation is not None:
            X_held, y_held = self._checked(*validation, reset=False)
            return X, y, targets, w, (X_held, y_held, self._encode(y_held, reset=False))
        if not self.early_stopping:
            return X, y, targets, w, None
        rows = np.arange(X.shape[0])
        train, held = train_test_split(
            rows,
            random_state=copy.deepcopy(self._split_random),
            test_size=self.validation_fraction,
            stratify=self._stratify(y),
        )
        if len(held) < 2:
            advice = "Increase validation_fraction, or give validation_data."
            expected = "at least 2 examples to validate on"
            raise ValueError(checks.message(type(self).__name__, expected, f"{len(held)}", advice))
        held_out = X[held], y[held], targets[held]
        if w is None:
            return X[train], y[train], targets[train], None, held_out
        return X[train], y[train], targets[train], w[train], (*held_out, w[held])

    def _rows(self, X: Any) -> Array:
        """Outputs of the network (N, K) for checked X."""
        check_is_fitted(self, "network_")
        X = validate_data(self, X, accept_sparse=("csr", "csc"), dtype=(np.float64, np.float32), reset=False)
        return self._network_outputs(X)

    def _network_outputs(self, X: Any) -> Array:
        return self.network_.predict(self._scaled(X))

    @property
    def _linears(self) -> list[Linear]:
        check_is_fitted(self, "network_")
        return [layer for layer in self.network_.leaves() if isinstance(layer, Linear)]

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
