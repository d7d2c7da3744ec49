"""`TabularClassifier` and `TabularRegressor`: strong answers for tables, without a setting."""

from __future__ import annotations

import copy
import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.validation import _check_sample_weight, _num_samples

from backprop import arrays, checks
from backprop.checks import Array
from backprop.estimators import data, members
from backprop.estimators.answers import Classes, Quantities
from backprop.estimators.base import BaseModel
from backprop.estimators.course import Course, built, unchanged_if_refused
from backprop.estimators.data import Examples
from backprop.estimators.ended import Ended
from backprop.estimators.hooks import EpochTasks, warn, with_callbacks
from backprop.estimators.solvers import NOT_FINITE
from backprop.losses import BinaryCrossEntropy, CrossEntropy, LeastSquares, Loss
from backprop.training.callbacks import path_of
from backprop.training.native import choice
from backprop.training.watch import NoBar, check_callbacks, progress_bar

SHARPEST = math.log(1.25)  # rows that are all told right would ask for ever more
ROUNDING = 1e-9  # by which sums of equal shares are off
NO_FACTS = ("checkpoint", "max_time", "random_state")  # of which the seed tells
MEANS = {"softmax": "softmax", "logistic": "sigmoid", "identity": "values"}


class BaseTabular(BaseModel):
    """The fit of `TabularClassifier` and `TabularRegressor`; `answers` says what y means."""

    scale_inputs = True
    most_categories = 255  # of a column; all others count as one
    dates = "cycles"

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
        `max_time`, leave the best that there is by then; with the same data and settings, the next `fit` with the same
        `checkpoint` goes on, and ends in the same bits as if nothing had been between. Raises TypeError or ValueError for
        data or parameters that do not fit, or another training's `checkpoint`, OSError where that cannot be written; the
        model is then as it was.
        """
        began = time.perf_counter()
        self._check_parameters()
        judges = self._judges(validation_data, X_val, y_val, sample_weight_val)
        train = self._examples(X, y, sample_weight, reset=True, whole=True)
        if getattr(self, "class_weight", None) is not None:
            train = self._weighed_by_class(X, y, train)
        self._begin(train)
        held_out = None if judges is None else self._examples(*judges)
        if groups is not None:
            groups = self._checked_groups(self._of_present(groups, train), len(train.X), held_out)
        self._train(train, held_out, groups, began)
        return self

    def _examples(self, X: Any, y: Any, w: Any = None, *, reset: bool = False, whole: bool = False) -> Examples:
        """As of the other estimators, but rows of weight 0 are absent before anything is learned, or refused, of them."""
        who, how = self._who, {"reset": reset, "whole": whole}
        for name, array in (("X", X), ("y", y), ("sample_weight", w)):
            checks.made(who, name, array, arrays.plain)
        X = data.in_memory(who, X, [*getattr(self, "feature_names_in_", ()), *([y] if isinstance(y, str) else [])])
        w = None if w is None else _check_sample_weight(w, X, dtype=np.float64, ensure_non_negative=True)
        if w is None or w.all():
            return super()._examples(X, y, w, **how)
        there = np.flatnonzero(w)
        if not len(there):
            raise ValueError(checks.message(who, "sample_weight > 0 for some row", "0 for all"))
        check_consistent_length(X, None if isinstance(y, str) else y)
        with _counted_among(len(there), len(w)):
            found = super()._examples(data.at_rows(X, there), data.at_rows(y, there), w[there], **how)
        return found._replace(given=X, rows=there)

    def _weighed_by_class(self, X: Any, y: Any, train: Examples) -> Examples:
        """The examples with the weights of their classes as well; where these are 0 they are absent, and the classes known."""
        w = self._class_weights(train.y, train.w)
        if w.all():
            return train._replace(w=w)
        everywhere = np.zeros(_num_samples(X))
        everywhere[slice(None) if train.rows is None else train.rows] = w
        self._classes_given = self.classes_
        return self._examples(X, y, everywhere, reset=True)

    def _of_present(self, groups: Any, train: Examples) -> Any:
        if train.rows is None or isinstance(groups, str):
            return groups
        check_consistent_length(train.given, groups)
        return data.at_rows(groups, train.rows)

    def _check_parameters(self) -> None:
        who = self._who
        checks.integer(who, "members", self.members)
        if self.max_time is not None:
            checks.number(who, "max_time", self.max_time, above=0)
        if self.checkpoint is not None:
            path_of(f"{who}(checkpoint=…)", self.checkpoint)
        check_callbacks(who, self.callbacks or ())
        choice(who, self.native)
        if isinstance(self.verbose, str):
            checks.choice(who, "verbose", self.verbose, ["bar"])
        if self.warm_start is not False:
            advice = "Each member has ended at its best epoch, and more of the same would not be better: fit anew."
            raise ValueError(checks.message(who, "warm_start=False", repr(self.warm_start), advice))

    def _begin(self, train: Examples) -> None:
        """New scaling, and a seed for all that is drawn."""
        self._loss_function = self._make_loss()
        self.n_outputs_ = self._outputs(1 if train.targets.ndim == 1 else train.targets.shape[1])
        random = check_random_state(self.random_state)
        self._course = Course(int(random.randint(1 << 30)), random.get_state(), built(self))
        self._input_scaling = self._target_scaling = None

    def _train(self, train: Examples, held_out: Examples | None, groups: Array | None, began: float) -> None:
        """Train the members, and make one network of them."""
        X, targets, w = self._for_network(train, np.float32)
        before = members.inputs(X, w)
        rows = judges = members.Rows(before.of(X), targets, w, groups)
        part = None
        if held_out is None:
            part = self._parts(train, groups)
        else:
            X, targets, w = self._for_network(held_out, np.float32)
            judges = members.Rows(before.of(X), targets, w)
        course = self._plan(len(train.X), part, began, self._ended(train, held_out, groups))
        tasks = EpochTasks(self, course.members, train)
        epochs = course.epochs * len(members.jobs_of(course, rows))
        with progress_bar(epochs, "epoch") if self.verbose == "bar" else nullcontext(NoBar()) as bar:
            try:
                found, interrupted = members.train(course, rows, part, judges, tasks, bar)
            except FloatingPointError as error:
                raise ValueError(f"{error} {NOT_FINITE}") from error
        if interrupted:
            warn("Training interrupted by user.", UserWarning)
        epochs_there = members.epochs_of_others(found) if part is not None else [member.epoch for member in found]
        sharpness = self._calibrate(*members.judged(found, epochs_there, judges, part, course.of))
        self.network_ = members.together(before, found, course.of, sharpness, train.X.dtype)
        self._conclude(found)
        short = interrupted or any(member.cut for member in found) or len(found) < course.members
        self.stopped_ = "Ctrl-C" if interrupted else "max_time" if short and self.max_time is not None else ""
        self.report_ = self._report(before, found, course, len(train.X), groups, part is None, short)
        self._say(self.report_)
        tasks.end(tasks.fit)

    def _parts(self, train: Examples, groups: Array | None) -> Array:
        """The part that each row belongs to; of at least five, so that members are trained on most rows."""
        of, what = (len(train.X), "sample") if groups is None else (int(groups.max()) + 1, "group")
        if of < 2:
            raise ValueError(checks.message(self._who, f"at least 2 {what}s, to hold some out", f"{of} {what}"))
        key = train.targets if train.targets.ndim == 1 else train.targets[:, 0]
        return members.parts(min(max(self.members, 5), of), key, groups, np.random.default_rng(self._course.seed))

    def _ended(self, train: Examples, held_out: Examples | None, groups: Array | None) -> Ended:
        """The members that have ended in an earlier `fit` of the same training."""
        if self.checkpoint is None:
            return Ended()
        table = None if self.table_ is None else self.table_.state()
        facts = {"class": self._who} | self._facts(train, held_out, groups) | {"table": table}
        return Ended.of(self.checkpoint, {name: facts[name] for name in facts if name not in NO_FACTS})

    def _plan(self, n: int, part: Array | None, began: float, ended: Ended) -> members.Course:
        batch_size = members.batch_of(n)
        return members.Course(
            loss=self._loss_function,
            of=MEANS[self.out_activation_],
            outputs=self.n_outputs_,
            members=self.members if part is None else min(self.members, int(part.max()) + 1),
            seed=self._course.seed,
            epochs=members.epochs_of(n, batch_size),
            batch_size=batch_size,
            until=math.inf if self.max_time is None else began + self.max_time,
            ended=ended,
            callbacks=self.callbacks or (),
            native=self.native,
            say=self._say,
        )

    def _conclude(self, found: list[members.Member]) -> None:
        """What the fit leaves beside the network: means over the members that got so far."""
        self.n_iter_ = longest = max(len(member.losses) for member in found)
        curves = [member.losses for member in found], [member.validation for member in found]
        self.loss_curve_, self.validation_loss_curve_ = (
            [float(np.mean([curve[epoch] for curve in each if epoch < len(curve)])) for epoch in range(longest)]
            for each in curves
        )
        self.loss_ = self.loss_curve_[-1]
        self.best_loss_ = float(np.mean([member.best for member in found]))

    def _report(
        self,
        before: members.Inputs,
        found: list[members.Member],
        course: members.Course,
        n: int,
        groups: Array | None,
        given: bool,
        short: bool,
    ) -> str:
        kinds = {"numbers, as they are, as normal scores and in pieces": before.several, "two values": before.two}
        columns = " and ".join(f"{len(own)} columns of {kind}" for kind, own in kinds.items() if len(own))
        by = "the validation data" if given else f"{'rows' if groups is None else 'groups'} that it was not trained on"
        gentle = sum(member.gentle for member in found)
        epochs, weights = [member.epoch for member in found], self.network_.size // len(found)
        lines = [
            f"{self._who}: {n:,} rows; {columns}.",
            f"{len(found)} members of {weights:,} weights each, in batches of {course.batch_size}; "
            f"each at its best epoch, {min(epochs)} to {max(epochs)} of {course.epochs}, by {by}.",
            *([f"{gentle} of them have learned gently, which did best on such rows."] if gentle else []),
            self._worth(),
        ]
        if short:
            lines.append(f"Training was cut short, with {len(found)} of {course.members} members begun.")
        return "\n".join(lines)

    def _worth(self) -> str:
        """What the members are worth on the rows that they were stopped by."""
        raise NotImplementedError

    def _calibrate(self, f: Array, own: members.Rows) -> float:
        """Learn from outputs f (n, K) for rows that were held out what the outputs are to be multiplied by."""
        raise NotImplementedError

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False
        return tags


@contextmanager
def _counted_among(present: int, n: int) -> Iterator[None]:
    """Where an error names a row, say how rows are counted."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if not re.search(r"\brow \d", str(error)):
            raise
        raise type(error)(f"{error} Rows are counted among the {present} of {n} with a weight > 0.") from None


class TabularClassifier(Classes, BaseTabular):
    """A strong classifier for tables, without a setting: k networks, each stopped by rows of its own, that answer as one.

    Frames of numbers, booleans and words with holes go in as they are; probabilities come out. What predicts is one `Sequential`,
    `network_`. `members` are how many networks; up to 500 rows, or where there are fewer than inputs, as many that learn
    gently are tried too. `max_time` are the seconds that `fit` may take, with which a faster machine gives other bits;
    `class_weight` as in scikit-learn; `callbacks` are told of every epoch of each member, one member after another; `verbose`
    prints what each has come to, and as "bar" draws how far they are, on standard error. `missing` and `unknown` are those of
    `Table`. `checkpoint` is the path of a file that keeps each member that has ended: a `fit` that was interrupted goes on
    there. After `fit` there are `report_`, a text of what was done, `stopped_`, what ended training early ("Ctrl-C",
    "max_time" or ""), `classes_`, and `loss_curve_` and `validation_loss_curve_`, means over members.

    Probabilities are calibrated by one number, for the rows that members were not trained on, of which each says there what it
    says at the epoch that the others have chosen.

    >>> import numpy as np
    >>> from backprop.estimators import TabularClassifier
    >>> X = np.linspace(-1, 1, 80).reshape(-1, 1)
    >>> TabularClassifier(members=2, random_state=0).fit(X, X[:, 0] > 0).score(X, X[:, 0] > 0) > 0.9
    True
    """

    scale_targets = False

    def __init__(
        self,
        *,
        members: int = 8,
        max_time: float | None = None,
        random_state: Any = 0,
        verbose: bool | str = False,
        class_weight: Any = None,
        checkpoint: Any = None,
        callbacks: Any = None,
        missing: str = "indicate",
        unknown: str = "ignore",
        native: bool | str = "auto",
        warm_start: bool = False,
    ) -> None:
        self._keep(locals())

    def _make_loss(self) -> Loss:
        return CrossEntropy() if self.out_activation_ == "softmax" else BinaryCrossEntropy()

    def _calibrate(self, f: Array, own: members.Rows) -> float:
        """The number with the least log-loss: outputs are then as sure of themselves as they are right.

        Source: Guo et al. (2017), "On calibration of modern neural networks", section 4.
        """
        loss, f = copy.copy(self._loss_function), np.asarray(f.T, np.float64)
        y = own.targets if loss.takes_labels else own.targets.reshape(f.T.shape).T

        def log_loss(s: float) -> float:
            return loss.forward(math.exp(s) * f, y, sample_weight=own.w)

        self.sharpness_ = math.exp(minimize_scalar(log_loss, bounds=(-1.5, SHARPEST), method="bounded").x)
        return self.sharpness_

    def _worth(self) -> str:
        calibrated = f"Calibrated by them: log-odds times {self.sharpness_:.3g}"
        return f"Log-loss of a member on these rows: {self.best_loss_:.4g}. {calibrated}."


class TabularRegressor(Quantities, BaseTabular):
    """A strong regressor for tables, without a setting: k networks, each stopped by rows of its own, that answer as one.

    As `TabularClassifier`, for numbers, one or several; `predict_interval` says how far off they may be.

    >>> import numpy as np
    >>> from backprop.estimators import TabularRegressor
    >>> X = np.linspace(-1, 1, 80).reshape(-1, 1)
    >>> TabularRegressor(members=2, random_state=0).fit(X, X[:, 0] ** 2).score(X, X[:, 0] ** 2) > 0.9
    True
    """

    scale_targets = True
    residuals_: Array
    coverages_: Array

    def __init__(
        self,
        *,
        members: int = 8,
        max_time: float | None = None,
        random_state: Any = 0,
        verbose: bool | str = False,
        checkpoint: Any = None,
        callbacks: Any = None,
        missing: str = "indicate",
        unknown: str = "ignore",
        native: bool | str = "auto",
        warm_start: bool = False,
    ) -> None:
        self._keep(locals())

    _scale_of_one_value = 0.0  # which is then the answer, to the last digit

    def _make_loss(self) -> Loss:
        self.out_activation_ = "identity"
        return LeastSquares()

    def _calibrate(self, f: Array, own: members.Rows) -> float:
        """How far the outputs are from the targets, sorted (n, K), in units of y: what intervals go by."""
        scaling: Any = self._target_scaling
        away = np.abs(np.asarray(f, np.float64) * scaling.scale - own.targets.reshape(f.shape) * scaling.unit)
        order = np.argsort(away, axis=0, kind="stable")
        self.residuals_, self.coverages_ = np.take_along_axis(away, order, axis=0), members.coverages(order, own)
        return 1.0

    def _worth(self) -> str:
        half, explained = float(np.median(self._reach(0.5))), 1 - self.best_loss_ / self.n_outputs_
        off = f"half of its answers are off by less than {half:.4g}"
        return f"On these rows a member explains {explained:.1%} of the variance; {off}."

    def _reach(self, coverage: float) -> Array:
        """The least distance (K,) that shows this coverage, or the greatest there is."""
        place = np.minimum((self.coverages_ < coverage - ROUNDING).sum(axis=0), len(self.coverages_) - 1)
        return np.asarray(np.take_along_axis(self.residuals_, place[None], axis=0)[0])

    def predict_interval(self, X: Any, coverage: float = 0.9) -> tuple[Array, Array]:
        """(low, high), each like `predict`, between which y is to lie with probability `coverage`, for rows like those of `fit`.

        prediction ± q, where q is the k-th smallest distance, k = (n + 1) coverage rounded up, between the targets of `fit` and
        what members say that were not trained on them; `residuals_` (n, K) are the distances, `coverages_` (n, K) what each
        shows. With `groups` it is for rows of new groups, and n counts groups: each has a mass of 1, shared by its rows. Rows
        count by weight, and as many as (Σ w)² / Σ w² that are equal.

        A member says it at the epoch that the others have chosen, so that its own rows have chosen none; that one member is
        further off than all together makes q larger. Proven is 1 − 2 (1 − coverage) only, in simulations it was coverage or more
        (0.91 to 0.94 in place of 0.9). With validation data, and with one member, the rows have chosen the epochs, too. Raises
        ValueError for more than n / (n + 1), which n cannot show.
        Sources: Vovk (2015), "Cross-conformal predictors"; Barber et al. (2021), "Predictive inference with the jackknife+".

        >>> import numpy as np
        >>> from backprop.estimators import TabularRegressor
        >>> X = np.linspace(-1, 1, 80).reshape(-1, 1)
        >>> low, high = TabularRegressor(members=2, random_state=0).fit(X, X[:, 0] ** 2).predict_interval(X, 0.5)
        >>> bool(np.all(low < high))
        True
        """
        who = f"{self._who}.predict_interval"
        coverage = checks.number(who, "coverage", coverage, above=0, below=1)
        predicted = np.asarray(self.predict(X), np.float64)
        n, most = len(self.coverages_), float(self.coverages_[-1, 0])
        if coverage > most + ROUNDING:
            alike = most / (1 - most)
            count = "" if math.isclose(alike, n) else f", as many as {alike:.4g} by their groups and weights,"
            expected = f"coverage up to {most:.4g}, which {n} rows{count} can show"
            raise ValueError(checks.message(who, expected, f"{coverage:g}"))
        reach = self._reach(coverage)
        reach = reach if predicted.ndim > 1 else reach[0]
        return predicted - reach, predicted + reach
