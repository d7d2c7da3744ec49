"""What both estimators share: the life of a fit, from checked data to fitted attributes."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_array, check_is_fitted, check_X_y, validate_data

from backprop import checks
from backprop.checks import Array
from backprop.estimators import build, data, files, parameters, scoring
from backprop.estimators.course import Course, built, require_same, unchanged_if_refused
from backprop.estimators.data import Standardization
from backprop.estimators.hooks import CallbackSupportMixin, EpochTasks, warn, with_callbacks
from backprop.files.atomic import PathLike
from backprop.functions import norm
from backprop.layers import Linear
from backprop.layers.nesting import leaves
from backprop.losses import Loss
from backprop.optimizers import SGD
from backprop.sequential import Sequential
from backprop.tables import Table
from backprop.training import Callback, Epoch, Trainer, minimize
from backprop.training.descent import interrupts
from backprop.training.watch import running

FLOATS = (np.float64, np.float32)
UNFINISHED = "Training stopped after max_iter={} epochs, before it converged."
HOLD_OUT = "Change validation_fraction, or give validation_data."


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
        return self._fit(X, y, sample_weight, validation_data, epochs=self.max_iter, incremental=False)

    def _fit(self, X: Any, y: Any, sample_weight: Any, validation_data: Any, *, epochs: int, incremental: bool) -> Any:
        parameters.check(self)
        new = not hasattr(self, "network_") or not (self.warm_start or incremental)
        if not new:
            require_same(self)
        X, y = self._checked(X, y, reset=new)
        w = self._class_weights(y, self._weights(sample_weight, X))
        targets = self._encode(y, reset=new)
        if new:
            self._begin(X.shape[1], targets, X.dtype if self.dtype == "auto" else self.dtype)
        held_out = self._held_out(validation_data)
        if self.solver == "lbfgs":
            self._minimize(X, targets, w, held_out)
            return self
        return self._descend(X, y, targets, w, held_out, epochs, incremental)

    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Array]:
        """X as numbers and y as values. `table_` is what a frame's words and holes need, None for numbers alone."""
        who = type(self).__name__
        if reset:
            self.table_ = None
        values = data.take_out(who, X, y)
        if reset and data.needs_table(X, y, self.missing):
            self.table_, X = data.learn(X, y, self.missing, self.unknown, self.scale_inputs)
            self.feature_names_in_ = np.array(self.table_.columns, dtype=object)
            self.n_features_in_ = len(self.table_.columns)
        elif self.table_ is not None:
            X = self.table_.transform(X)
        if self.table_ is not None:
            return check_X_y(X, values, multi_output=True, estimator=self)
        X, y = validate_data(
            self, X, values, accept_sparse=("csr", "csc"), multi_output=True, dtype=FLOATS, reset=reset
        )
        return X, y

    def _weights(self, sample_weight: Any, X: Any) -> Array | None:
        if sample_weight is None:
            return None
        return _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)

    def _held_out(self, validation_data: Any) -> tuple[Any, ...] | None:
        """Validation data as (X, y, encoded y), and weights if there are any."""
        if validation_data is None:
            return None
        if not isinstance(validation_data, tuple | list) or len(validation_data) not in (2, 3):
            expected = "validation_data as (X, y) or (X, y, sample_weight)"
            raise TypeError(checks.message(type(self).__name__, expected, type(validation_data).__name__))
        X, y = self._checked(*validation_data[:2], reset=False)
        w = [self._weights(w, X) for w in validation_data[2:]]
        return X, y, self._encode(y, reset=False), *(each for each in w if each is not None)

    def _begin(self, features: int, targets: Array, dtype: Any) -> None:
        """New weights, a new optimizer, empty curves."""
        random = check_random_state(self.random_state)
        self._loss_function = self._make_loss()
        columns = 1 if targets.ndim == 1 else targets.shape[1]
        self.n_outputs_ = self._outputs(columns)
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
                raise ValueError(
                    checks.message(type(self).__name__, "dense X with scale_inputs=True", "sparse", advice)
                )
            return data.SparseRows(X, dtype)
        if scale:
            if self._input_scaling is None:
                self._input_scaling = Standardization(X, w)
            X = self._input_scaling.forth(X)
        with np.errstate(over="ignore"):  # numbers that do not fit are looked for afterwards
            return X if data.is_mapped(X) else np.asarray(X, dtype)

    def _decay(self, examples: float) -> float | dict[str, float]:
        """λ of scikit-learn's penalty ½ α Σ Ω² / examples: on Ω alone."""
        return {"*.omega": self.alpha / examples} if self.alpha else 0.0

    def _penalty(self, examples: float) -> float:
        lengths = [norm(a.ravel()) for name, a in self.network_.parameters.items() if name.endswith("omega")]
        return 0.5 * self.alpha / examples * sum(length * length for length in lengths)

    def _minimize(self, X: Any, targets: Array, w: Array | None, held_out: tuple[Any, ...] | None) -> None:
        X, net = self._scaled(X, w), self.network_
        total = float(X.shape[0] if w is None else w.sum())
        decay = np.zeros(net.size)
        for name, view in net.views(decay).items():
            view[...] = self.alpha / total if name.endswith("omega") else 0.0
        tasks = EpochTasks(self, 0, X=X, y=targets)
        trained = self._as_trained(targets, w)  # before what is held out, which is scaled likewise
        history = minimize(
            net,
            self._loss_function,
            X,
            trained,
            sample_weight=w,
            weight_decay=decay,
            iterations=self.max_iter,
            tolerance=self.tol,
            threads=self.threads,
            validation_data=self._validation(held_out),
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
        evaluations = "EVALUATIONS" in history.stopped.upper()  # SciPy's word for its limit
        if self.n_iter_ == self.max_iter or evaluations:
            limit = f"max_fun={self.max_fun} evaluations" if evaluations else f"max_iter={self.max_iter} iterations"
            warn(f"L-BFGS stopped after {limit}, before it converged.", ConvergenceWarning)

    def _objective(self, X: Any, targets: Array, w: Array | None, total: float) -> float:
        trainer = Trainer(self.network_, self._loss_function, SGD(0.1))
        return trainer.evaluate(X, self._as_trained(targets), w)["loss"] + self._penalty(total)

    def _validation(self, held_out: tuple[Any, ...] | None, dtype: Any = None) -> tuple[Any, ...] | None:
        """What is held out, as the trainer takes it."""
        if held_out is None:
            return None
        X, _, targets, *w = held_out
        return self._scaled(X, dtype=dtype), self._as_trained(targets), *w

    def _descend(
        self,
        X: Any,
        y: Array,
        targets: Array,
        w: Array | None,
        held_out: tuple[Any, ...] | None,
        epochs: int,
        incremental: bool,
    ) -> Any:
        if held_out is None and self.early_stopping:
            X, y, targets, w, held_out = self._split(X, y, targets, w)
        n, course = X.shape[0], self._course
        if w is not None:
            checks.weights(type(self).__name__, w, n)  # those left after a split may be all 0
        batch_size = min(200, n) if self.batch_size == "auto" else min(self.batch_size, n)
        weight = batch_size if w is None else batch_size * float(w.mean())
        rows, trained = self._in_trained_dtype(X, w, targets, batch_size < n), self._as_trained(targets, w)
        net = self._trainee()
        trainer = self._trainer(net, n, batch_size, weight)
        tasks = EpochTasks(self, epochs, X=X, y=y)
        validation = self._validation(held_out, net.phi.dtype)
        records = trainer.epochs(rows, trained, epochs, sample_weight=w, validation_data=validation)
        self.n_iter_, over = 0, not incremental
        try:
            with running(trainer, self._callbacks()), interrupts() as interrupted:
                for stop in self._watched(records, trainer, tasks, weight, n, held_out):
                    if interrupted:
                        raise KeyboardInterrupt
                    if stop or ((self.early_stopping or not incremental) and self._stalled()):
                        over = over or not stop
                        break
                else:
                    if not incremental:
                        warn(UNFINISHED.format(self.max_iter), ConvergenceWarning)
        except KeyboardInterrupt:
            warn("Training interrupted by user.", UserWarning)
        except FloatingPointError as error:
            raise ValueError(str(error)) from error
        finally:
            course.epochs = trainer.epochs_done
        build.take_over(self.network_, net)
        self._restore_best(incremental, over)
        tasks.close()
        return self

    def _restore_best(self, incremental: bool, over: bool) -> None:
        """Take the best φ; a `partial_fit` starts from there and waits anew, a `fit` goes on from where it was."""
        course, phi = self._course, self.network_.phi
        if course.best is None or not (self.early_stopping and over):
            return
        if incremental:
            course.waited = 0
        else:
            course.last = phi.copy()
        phi[...] = course.best

    def _in_trained_dtype(self, X: Any, w: Array | None, targets: Array, stochastic: bool) -> Any:
        """X in what descent computes in: with dtype="auto" float32 for minibatches, else the network's.

        A minibatch's gradient is off by far more than float32 rounds, and half as many bytes go through memory.
        """
        course = self._course
        if course.dtype is None and stochastic and self.dtype == "auto":
            rows = self._scaled(X, w, np.float32)
            if data.fits_single(rows, targets):
                course.dtype = np.dtype(np.float32)
                return rows
        course.dtype = course.dtype or self.network_.phi.dtype
        return self._scaled(X, w, course.dtype)

    def _trainee(self) -> Sequential:
        """The network that descends: `network_`, or a copy of it in the dtype of the training."""
        course, net = self._course, self.network_
        if course.last is not None:
            net.phi[...], course.last = course.last, None
        return net if course.dtype == net.phi.dtype else build.in_dtype(net, course.dtype)

    def _trainer(self, net: Sequential, n: int, batch_size: int, weight: float) -> Trainer:
        """A trainer that goes on where the last one of this model stopped."""
        course = self._course
        rate = build.rate_settings(self)
        optimizer = build.optimizer(self, n, batch_size, self._decay(weight))
        course.optimizer = build.continued(optimizer, course.optimizer, same_rate=rate == course.rate)
        course.rate = rate
        trainer = Trainer(
            net,
            self._loss_function,
            course.optimizer,
            batch_size=batch_size,
            seed=course.seed,
            shuffle=self.shuffle,
            threads=self.threads,
        )
        trainer.epochs_done = course.epochs
        return trainer

    def _watched(
        self,
        records: Iterator[Epoch],
        trainer: Trainer,
        tasks: EpochTasks,
        weight: float,
        n: int,
        held_out: tuple[Any, ...] | None,
    ) -> Iterator[bool]:
        """After each epoch: curves, counts, callbacks, the best φ; yields whether a callback stops training."""
        for _ in range(tasks.epochs):
            task, penalty = tasks.begin(), self._penalty(weight)
            self._course.alpha = build.at_pace(trainer.optimizer, self._course.alpha)
            record = next(records)
            build.take_over(self.network_, trainer.net)
            self._note(record, penalty, n)
            score = self._score(held_out, record) if held_out is not None and self.early_stopping else None
            if score is not None:
                self._say(f"Validation score: {score:f}")
            if self._improved(score) and self.early_stopping:
                self._course.best = self.network_.phi.copy()
            stops = [bool(callback.epoch(trainer, record)) for callback in self._callbacks()]
            yield any([tasks.end(task), *stops])

    def _score(self, held_out: tuple[Any, ...], record: Epoch) -> float:
        """What early stopping goes by, the more the better."""
        if self.monitor is None:
            return self._score_held_out(held_out)
        if self.monitor == "loss":
            return -record.validation["loss"]
        X, y, _, *w = held_out
        return scoring.score(self.monitor, self._for_numbers(X.shape[1]), X, y, *w)

    def _for_numbers(self, columns: int) -> Any:
        """The model as it predicts from X that is checked and encoded already."""
        twin = copy.copy(self)
        twin.table_, twin.n_features_in_ = None, columns
        twin.__dict__.pop("feature_names_in_", None)
        if self.table_ is not None:
            twin.scale_inputs = False  # the table has scaled them
        return twin

    def _callbacks(self) -> Sequence[Callback]:
        return self.callbacks or ()

    def _note(self, record: Any, penalty: float, n: int) -> None:
        self.n_iter_ += 1
        self.t_ += n
        self.loss_ = record.loss + penalty
        self.loss_curve_.append(self.loss_)
        if record.validation:
            self.validation_loss_curve_.append(record.validation["loss"])
        self._say(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")

    def _say(self, line: str) -> None:
        if self.verbose:
            print(line)

    def _improved(self, score: float | None) -> bool:
        """Keep count of epochs without progress; whether this one is the best so far."""
        if score is not None and self.validation_scores_ is not None and self.best_validation_score_ is not None:
            self.validation_scores_.append(score)
            self._course.waited = self._course.waited + 1 if score < self.best_validation_score_ + self.tol else 0
            better = score > self.best_validation_score_
            self.best_validation_score_ = score if better else self.best_validation_score_
            return better
        best = np.inf if self.best_loss_ is None else self.best_loss_
        self._course.waited = self._course.waited + 1 if self.loss_ > best - self.tol else 0
        self.best_loss_ = min(best, self.loss_)
        return self.loss_ < best

    def _stalled(self) -> bool:
        """Whether patience is over; with learning_rate="adaptive" the rate is divided first."""
        if self._course.waited <= self.n_iter_no_change:
            return False
        rate = self._course.optimizer.schedule if self._course.optimizer else None
        what = "Validation score" if self.early_stopping else "Training loss"
        seen = f"{what} did not improve more than tol={self.tol:f} for {self.n_iter_no_change} consecutive epochs."
        if isinstance(rate, build.Adaptive) and rate.divide():
            self._course.waited = 0
            self._say(f"{seen} Setting learning rate to {rate.learning_rate:f}")
            return False
        self._say(f"{seen} Stopping.")
        return True

    def _split(
        self, X: Any, y: Array, targets: Array, w: Array | None
    ) -> tuple[Any, Array, Array, Array | None, tuple[Any, ...]]:
        """The part to train on, and what early stopping holds out: (X, y, encoded y), and weights if there are any."""
        who, n = type(self).__name__, X.shape[0]
        fraction = checks.number(who, "validation_fraction", self.validation_fraction, above=0)
        size = math.ceil(fraction * n)  # as train_test_split counts
        if size < 2 or size >= n:
            got = f"{min(size, n)} of {n} by validation_fraction={fraction:g}"
            expected = "at least 2 examples to validate on, and some to train on"
            raise ValueError(checks.message(who, expected, got, HOLD_OUT))
        random = check_random_state(0)
        random.set_state(self._course.split)
        stratify = self._stratify(y, size)
        train, held = train_test_split(np.arange(n), random_state=random, test_size=fraction, stratify=stratify)
        held_out = X[held], y[held], targets[held]
        if w is None:
            return X[train], y[train], targets[train], None, held_out
        return X[train], y[train], targets[train], w[train], (*held_out, w[held])

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

    def _rows(self, X: Any) -> Array:
        """Outputs of the network (N, K) for checked X."""
        check_is_fitted(self, "network_")
        if self.table_ is not None:
            return self._network_outputs(check_array(self.table_.transform(X)))
        try:
            X = validate_data(self, X, accept_sparse=("csr", "csc"), dtype=FLOATS, reset=False)
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
