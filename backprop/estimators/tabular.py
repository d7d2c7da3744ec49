"""`TabularClassifier` and `TabularRegressor`: strong answers for tables, without a setting."""

from __future__ import annotations

import copy
import math
import time
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.utils import check_random_state

from backprop import checks
from backprop.checks import Array
from backprop.estimators import members
from backprop.estimators.answers import Classes, Quantities
from backprop.estimators.base import BaseModel
from backprop.estimators.course import Course, built, unchanged_if_refused
from backprop.estimators.data import Examples
from backprop.estimators.hooks import EpochTasks, warn, with_callbacks
from backprop.estimators.solvers import NOT_FINITE
from backprop.losses import BinaryCrossEntropy, CrossEntropy, LeastSquares, Loss
from backprop.training.native import choice
from backprop.training.watch import check_callbacks

MEANS = {"softmax": "softmax", "logistic": "sigmoid", "identity": "values"}
CATEGORIES = 255  # of a column; all others count as one


class BaseTabular(BaseModel):
    """The fit of `TabularClassifier` and `TabularRegressor`; `answers` says what y means."""

    scale_inputs = scale_targets = True
    most_categories = CATEGORIES

    @unchanged_if_refused
    @with_callbacks
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
        groups: Any = None,
        validation_data: Any = None,
    ) -> Any:
        """Train on rows X (N, D) and targets y, anew with each call.

        X may be an array or a frame of any columns; `y` may be the name of the target's column in it. Each member is trained on
        the rows without a part of its own, which chooses its best epoch: by chance, with `groups` (N,) whole groups. With `X_val`
        and `y_val`, or `validation_data`, all members are trained on all rows and judged by those. Ctrl-C, and the end of
        `max_time`, leave the best that there is by then. Raises TypeError or ValueError for data or parameters that do not fit; the
        model is then as it was.
        """
        began = time.perf_counter()
        self._check_parameters()
        judges = self._judges(validation_data, X_val, y_val, sample_weight_val)
        train = self._examples(X, y, sample_weight, reset=True, whole=True)
        if hasattr(train.X, "tocsr"):
            raise TypeError(checks.message(self._who, "dense X", "a sparse matrix", "Pass X.toarray(), or an MLP."))
        if getattr(self, "class_weight", None) is not None:
            train = train._replace(w=self._class_weights(train.y, train.w))
        held_out = None if judges is None else self._examples(*judges)
        if groups is not None:
            groups = self._checked_groups(groups, len(train.X), held_out)
        self._begin(train)
        self._train(train, held_out, groups, began)
        return self

    def _check_parameters(self) -> None:
        who = self._who
        checks.integer(who, "members", self.members)
        if self.max_time is not None:
            checks.number(who, "max_time", self.max_time, above=0)
        check_callbacks(who, self.callbacks or ())
        choice(who, self.native)
        if self.warm_start is not False:
            advice = (
                "More of the same would not be better: each member has ended at its best epoch. Fit anew with all rows."
            )
            raise ValueError(checks.message(who, "warm_start=False", repr(self.warm_start), advice))

    def _begin(self, train: Examples) -> None:
        self._loss_function = self._make_loss()
        self.n_outputs_ = self._outputs(1 if train.targets.ndim == 1 else train.targets.shape[1])
        random = check_random_state(self.random_state)
        self._course = Course(int(random.randint(1 << 30)), random.get_state(), built(self))
        self._input_scaling = self._target_scaling = None

    def _train(self, train: Examples, held_out: Examples | None, groups: Array | None, began: float) -> None:
        raw, targets, w = self._for_network(train, np.float32)
        before = members.inputs(raw)
        encoded = [members.Rows(before.net.predict(raw) * before.weight, targets, w)]
        if held_out is not None:
            X, y, of_held = self._for_network(held_out, np.float32)
            encoded.append(members.Rows(before.net.predict(X) * before.weight, y, of_held))
        part, k = self._parts(train, held_out, groups)
        course = self._plan(encoded[0], part, k, began)
        tasks = EpochTasks(self, 1, train)
        try:
            found, interrupted = members.train(course, encoded[0], part, encoded[1] if held_out else None, k)
        except FloatingPointError as error:
            raise ValueError(f"{error} {NOT_FINITE}") from error
        if interrupted:
            warn("Training interrupted by user.", UserWarning)
        judged = _judged(found, encoded[-1], part)
        self.network_ = members.together(before, found, MEANS[self.out_activation_], self._calibrate(*judged))
        self._conclude(found)
        self.report_ = self._report(train, before, found, part, groups, interrupted or len(found) < k)
        self._say(self.report_)
        tasks.end(tasks.fit)

    def _parts(self, train: Examples, held_out: Examples | None, groups: Array | None) -> tuple[Array | None, int]:
        """The part that each row belongs to, and how many members there are."""
        n, k = len(train.X), self.members
        if held_out is not None:
            return None, k
        of = n if groups is None else int(groups.max()) + 1
        if of < 2:
            what = "rows" if groups is None else "groups"
            raise ValueError(checks.message(self._who, f"at least 2 {what}, to hold some out", f"{of}"))
        random = np.random.default_rng(self._course.seed)
        key = train.targets if train.targets.ndim == 1 else train.targets[:, 0]
        parts = min(max(k, 5), of)
        part = members.parts(parts, key, groups, random)
        return part, min(k, parts)

    def _plan(self, rows: members.Rows, part: Array | None, k: int, began: float) -> members.Course:
        n = len(rows.X)
        batch_size = members.batch_of(n)
        until = math.inf if self.max_time is None else began + self.max_time
        return members.Course(
            self._loss_function,
            self.n_outputs_,
            self._course.seed,
            members.epochs_of(n, batch_size),
            batch_size,
            until,
            self.callbacks or (),
            self.native,
            self._say,
        )

    def _conclude(self, found: list[members.Member]) -> None:
        """What the fit leaves beside the network."""
        longest = max(len(member.losses) for member in found)
        self.n_iter_ = longest
        curves = ([member.losses for member in found], [member.validation for member in found])
        means = [[float(np.mean([c[e] for c in each if e < len(c)])) for e in range(longest)] for each in curves]
        self.loss_curve_, self.validation_loss_curve_ = means
        self.loss_ = self.loss_curve_[-1]
        self.best_loss_ = float(np.mean([member.best for member in found]))
        self.n_members_ = len(found)

    def _report(
        self,
        train: Examples,
        before: members.Inputs,
        found: list[members.Member],
        part: Array | None,
        groups: Array | None,
        short: bool,
    ) -> str:
        n, k = len(train.X), len(found)
        made = (
            f"{len(before.several)} columns of numbers as they are, as normal scores and in pieces"
            if len(before.several)
            else ""
        )
        two = f"{len(before.two)} yes-or-no columns, as of categories" if len(before.two) else ""
        by = (
            "validation data of their own"
            if part is None
            else "whole groups"
            if groups is not None
            else "parts drawn by chance"
        )
        epochs = [member.epoch for member in found]
        lines = [
            f"{self._who}: {n:,} rows; {' and '.join(each for each in (made, two) if each)}.",
            f"{k} members of {self.network_.size // k:,} weights each, in batches of {members.batch_of(n)}; each was stopped at its best "
            f"epoch, {min(epochs)} to {max(epochs)}, by {by}{'' if part is None else ' that it was not trained on'}.",
            self._worth(found),
        ]
        if short:
            lines.append(f"Training was cut short: {k} of {self.members} members had begun.")
        return "\n".join(lines)

    def _worth(self, found: list[members.Member]) -> str:
        raise NotImplementedError

    def _calibrate(self, f: Array, targets: Array, w: Array | None) -> float:
        raise NotImplementedError


def _judged(found: list[members.Member], rows: members.Rows, part: Array | None) -> tuple[Array, Array, Array | None]:
    """Predictions (n, K) for rows that their member was not trained on, with the targets and weights of these rows."""
    if part is None:
        return np.mean([member.outside for member in found], axis=0), rows.targets, rows.w
    of = np.concatenate([np.flatnonzero(part == member.part) for member in found])
    own = rows.at(of)
    return np.concatenate([member.outside for member in found]), own.targets, own.w


class TabularClassifier(Classes, BaseTabular):
    """A strong classifier for tables, without a setting: k networks, each stopped by rows of its own, that answer as one.

    Frames of numbers, booleans, words and dates with holes go in as they are; probabilities come out. What predicts is one
    `Sequential`, `network_`. `members` are how many networks; `max_time` the seconds that `fit` may take, in which case a faster
    machine gives other bits; `class_weight` as in scikit-learn; `callbacks` are told of every epoch of each member, one member after
    another. `missing` and `unknown` are those of `Table`. After `fit` there are `report_`, `classes_`, `loss_curve_` and
    `validation_loss_curve_` (means over members).

    >>> import numpy as np
    >>> from backprop.estimators import TabularClassifier
    >>> X = np.linspace(-1, 1, 80).reshape(-1, 1)
    >>> TabularClassifier(members=2, random_state=0).fit(X, X[:, 0] > 0).score(X, X[:, 0] > 0) > 0.9
    True
    """

    def __init__(
        self,
        *,
        members: int = 8,
        max_time: float | None = None,
        random_state: Any = 0,
        verbose: bool = False,
        class_weight: Any = None,
        callbacks: Any = None,
        missing: str = "indicate",
        unknown: str = "ignore",
        native: bool | str = "auto",
        warm_start: bool = False,
    ) -> None:
        self._keep(locals())

    scale_targets = False

    def _make_loss(self) -> Loss:
        return CrossEntropy() if self.out_activation_ == "softmax" else BinaryCrossEntropy()

    def _calibrate(self, f: Array, targets: Array, w: Array | None) -> float:
        """The number that makes the outputs f as sure of themselves as they are right: the one of the least log-loss.

        Source: Guo et al. (2017), "On calibration of modern neural networks", section 4.
        """
        f, loss = np.asarray(f, np.float64).T, copy.copy(self._loss_function)
        y = targets if targets.ndim == 1 else targets.T
        y = y[None] if y.ndim == 1 and not loss.takes_labels else y
        least = minimize_scalar(
            lambda s: loss.forward(math.exp(s) * f, y, sample_weight=w), bounds=(-1.5, 1.5), method="bounded"
        )
        self.sharpness_ = float(math.exp(least.x))
        return self.sharpness_

    def _worth(self, found: list[members.Member]) -> str:
        return f"Log-loss of a member on these rows: {self.best_loss_:.4g}. Calibrated by them: log-odds times {self.sharpness_:.3g}."


class TabularRegressor(Quantities, BaseTabular):
    """A strong regressor for tables, without a setting: k networks, each stopped by rows of its own, that answer as one.

    As `TabularClassifier`, for numbers, one or several; `predict_interval` says how far off they may be.

    >>> import numpy as np
    >>> from backprop.estimators import TabularRegressor
    >>> X = np.linspace(-1, 1, 80).reshape(-1, 1)
    >>> TabularRegressor(members=2, random_state=0).fit(X, X[:, 0] ** 2).score(X, X[:, 0] ** 2) > 0.9
    True
    """

    def __init__(
        self,
        *,
        members: int = 8,
        max_time: float | None = None,
        random_state: Any = 0,
        verbose: bool = False,
        callbacks: Any = None,
        missing: str = "indicate",
        unknown: str = "ignore",
        native: bool | str = "auto",
        warm_start: bool = False,
    ) -> None:
        self._keep(locals())

    def _make_loss(self) -> Loss:
        self.out_activation_ = "identity"
        return LeastSquares()

    def _calibrate(self, f: Array, targets: Array, w: Array | None) -> float:
        """How far the outputs f (n, K) are from the targets, sorted (n, K), in units of y: what intervals are as wide as."""
        away = np.abs(np.asarray(f, np.float64) - targets.reshape(f.shape))
        self.residuals_ = np.sort(away if w is None else away[w > 0], axis=0) * np.atleast_1d(
            self._target_scaling.scale
        )
        return 1.0

    def _worth(self, found: list[members.Member]) -> str:
        half = float(np.median(self.residuals_))
        return f"On these rows the members explain {1 - self.best_loss_ / self.n_outputs_:.1%} of the variance; half of the answers are off by less than {half:.4g}."

    def predict_interval(self, X: Any, coverage: float = 0.9) -> tuple[Array, Array]:
        """(low, high), each like `predict`, between which y lies with probability `coverage` or more, on average over rows like those of `fit`.

        prediction ± q, where q is the ⌈(n + 1) coverage⌉-th smallest distance between the targets of `fit` and what members say that
        were not trained on them. These rows have chosen the member's epoch, which makes q a little too small; that one member
        is further off than all together makes it too large. Promised is 1 − 2 (1 − coverage), as of cross-conformal intervals.
        Raises ValueError for a coverage that n rows cannot show. Source: Vovk (2015), "Cross-conformal predictors"; Barber et al. (2021),
        "Predictive inference with the jackknife+".

        >>> import numpy as np
        >>> from backprop.estimators import TabularRegressor
        >>> X = np.linspace(-1, 1, 80).reshape(-1, 1)
        >>> low, high = TabularRegressor(members=2, random_state=0).fit(X, X[:, 0] ** 2).predict_interval(X, 0.5)
        >>> bool(np.all(low < high))
        True
        """
        who, n = f"{self._who}.predict_interval", None
        coverage = checks.number(who, "coverage", coverage, above=0, below=1)
        predicted = np.asarray(self.predict(X), np.float64)
        n = len(self.residuals_)
        place = math.ceil((n + 1) * coverage)
        if place > n:
            raise ValueError(
                checks.message(who, f"coverage up to {n / (n + 1):.4g}, of {n} rows held out", f"{coverage:g}")
            )
        reach = self.residuals_[place - 1]
        reach = reach[0] if predicted.ndim == 1 else reach
        return predicted - reach, predicted + reach
