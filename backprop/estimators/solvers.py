"""The two ways of a fit from checked examples to trained weights: minibatch descent, and L-BFGS on all examples at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import sklearn
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from backprop import checks, training
from backprop.checks import Array
from backprop.engine.team import ALONE, Team
from backprop.estimators import build, data
from backprop.estimators.data import Examples
from backprop.estimators.hooks import EpochTasks, advise, warn
from backprop.functions import norm
from backprop.optimizers import SGD
from backprop.optimizers.penalties import over_phi
from backprop.sequential import Sequential
from backprop.training import Epoch, Trainer
from backprop.training.descent import interrupts
from backprop.training.watch import of_rank, running

# Texts begin as scikit-learn's do, by which its users filter them.
UNFINISHED = (
    "Stochastic Optimizer: Maximum iterations ({}) reached and the optimization hasn't converged yet. Raise max_iter."
)
UNFINISHED_LBFGS = "lbfgs failed to converge after {} iteration(s): stopped by {}."
NOT_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and need to be preprocessed."
)
HOLD_OUT = "The validation set is too small: change validation_fraction, or give X_val and y_val."


def penalty(model: Any, examples: float) -> float:
    """Scikit-learn's ½ α Σ Ω² / examples: on Ω alone."""
    lengths = [norm(a.ravel()) for name, a in model.network_.parameters.items() if name.endswith("omega")]
    return 0.5 * model.alpha / examples * sum(length * length for length in lengths)


def lbfgs(model: Any, train: Examples, held_out: Examples | None) -> None:
    """Minimize the loss of all examples at once."""
    net, loss, w = model.network_, model._loss_function, train.w
    n = train.X.shape[0]
    total = float(n if w is None else w.sum())
    sizes = {name: array.size for name, array in net.parameters.items()}
    X, targets, _ = model._for_network(train)  # before what is held out, which is scaled likewise
    tasks = EpochTasks(model, 0, train)
    history = training.minimize(
        net,
        loss,
        X,
        targets,
        sample_weight=w,
        weight_decay=over_phi("MLP", "alpha", {"*.omega": model.alpha / total}, sizes, np.float64),
        iterations=model.max_iter,
        tolerance=model.tol,
        threads=model.threads,
        native=model.native,
        validation_data=held_out and model._for_network(held_out),
        callbacks=model.callbacks or (),
        verbose=2 if model.verbose else 0,
        options={"maxfun": model.max_fun, "ftol": 1e7 * np.finfo(np.float64).eps},  # SciPy's own, as scikit-learn's
    )
    model.validation_loss_curve_ = [record.validation["loss"] for record in history if record.validation]
    tasks.end(tasks.fit)
    model.n_iter_ = len(history)
    model.loss_curve_ = [record.metrics["objective"] for record in history]
    model.loss_ = model.loss_curve_[-1] if history else None
    if not history:
        model.loss_ = Trainer(net, loss, SGD(0.1)).evaluate(X, targets, w)["loss"] + penalty(model, total)
    model.best_loss_ = min(model.loss_curve_, default=model.loss_)
    model.t_ += model.n_iter_ * n
    evaluations = "EVALUATIONS" in history.stopped.upper()  # SciPy's word for its limit
    if model.n_iter_ == model.max_iter or evaluations:
        limit = f"max_fun={model.max_fun}" if evaluations else f"max_iter={model.max_iter}"
        text = UNFINISHED_LBFGS.format(model.n_iter_, limit)
        warn(text + model._advice_on_use(train), ConvergenceWarning)


class Descent:
    """Minibatch descent of one `fit` or `partial_fit`, from where the last one of this model stopped."""

    def __init__(
        self, model: Any, train: Examples, held_out: Any, groups: Array | None = None, team: Team = ALONE
    ) -> None:
        self.model, self.course, self.team = model, model._course, team
        model.network_.saves = not team.rank
        self._go_back()
        if held_out is None and model.early_stopping:
            train, held_out = split(model, train, groups)
        if model.early_stopping:
            self._appoint(held_out)
        self.train, self.held_out, n, w = train, held_out, train.X.shape[0], train.w
        if w is not None:
            checks.weights(type(model).__name__, w, n)  # those left after a split may be all 0
        batch_size = min(200 if model.batch_size == "auto" else model.batch_size, n)
        self.weight = batch_size if w is None else batch_size * float(w.mean())  # of a batch
        self.examples = self._in_trained_dtype(batch_size < n)
        self.trainer = Trainer(
            self._trainee(),
            model._loss_function,
            build.optimizer(model, n, batch_size, {"*.omega": model.alpha / self.weight} if model.alpha else 0.0),
            batch_size=batch_size,
            seed=self.course.seed,
            shuffle=model.shuffle,
            shards=model.shards,
            threads=model.threads,
            native=model.native,
            team=team,
        )
        self.trainer.epochs_done = self.course.epochs
        self.callbacks = of_rank(team, model.callbacks or ())

    def _go_back(self) -> None:
        """Go on from where early stopping left for the best φ, unless somebody has set others since."""
        course, phi = self.course, self.model.network_.phi
        if course.last is not None and np.array_equal(phi, course.best):
            phi[...] = course.last
        course.last = None

    def _appoint(self, judges: Examples) -> None:
        """Scores by other examples than before are another measure: the best is to be found anew."""
        course, found = self.course, f"{self.model.monitor} {data.mark(judges)}"
        if course.judges != found:
            course.best, course.waited, self.model.best_validation_score_ = None, 0, -np.inf
        course.judges = found
        self.model.validation_scores_ = self.model.validation_scores_ or []  # None where training began without

    def _in_trained_dtype(self, stochastic: bool) -> Any:
        """The examples in what descent computes in: with dtype="auto" float32 for minibatches, else the network's dtype.

        A minibatch's gradient is off by far more than float32 rounds, and half as many bytes go through memory.
        """
        model, course = self.model, self.course
        if course.dtype is None and stochastic and model.dtype == "auto":
            single = model._for_network(self.train, np.float32)
            if data.fits_single(single[0], self.train.targets):
                course.dtype = np.dtype(np.float32)
                return single
        course.dtype = course.dtype or model.network_.phi.dtype
        return model._for_network(self.train, course.dtype)

    def _trainee(self) -> Sequential:
        """The network that descends: `network_`, or a copy of it in the dtype of the training."""
        net, course = self.model.network_, self.course
        if course.dtype == net.phi.dtype:
            return net
        twin = net.copy()
        twin.bind(np.empty(net.size, course.dtype))
        return twin

    def run(self, epochs: int, incremental: bool) -> None:
        """Train for so many epochs, or until patience is over: that of a `partial_fit` ends by its score alone."""
        model, trainer = self.model, self.trainer
        tasks = EpochTasks(model, epochs, self.train)
        validation = self.held_out and model._for_network(self.held_out, trainer.net.phi.dtype)
        X, targets, w = self.examples
        records = trainer.epochs(X, targets, epochs, sample_weight=w, validation_data=validation)
        model.n_iter_, stalled, unfinished = 0, False, False
        try:
            with running(trainer, self.callbacks), interrupts(self.team) as interrupted:
                for _ in range(epochs):
                    stop = self._epoch(records, tasks)
                    if self.team.meet(interrupted, trainer.net):
                        raise KeyboardInterrupt
                    stop = self.team.all_texts(str(stop))[0] == "True"  # rank 0 decides
                    stalled = not stop and (model.early_stopping or not incremental) and self._stalled()
                    if stop or stalled:
                        break
                else:
                    unfinished = not incremental
        except KeyboardInterrupt:
            if self.team.size > 1:  # the program ends on all ranks
                raise
            warn("Training interrupted by user.", UserWarning)
        except FloatingPointError as error:
            if not model.early_stopping or self.course.best is None:
                raise ValueError(f"{error} {NOT_FINITE}") from error
            self._diverged(error)
            stalled = True
        finally:
            self.course.epochs = trainer.epochs_done
        build.take_over(model.network_, trainer.net)
        if model.early_stopping and (stalled or not incremental):
            self._end_with_best(incremental)
        if unfinished:
            warn(UNFINISHED.format(model.max_iter) + model._advice_on_use(self.train), ConvergenceWarning)
        model._no_improvement_count = self.course.waited  # private in scikit-learn, and looked up all the same
        tasks.end(tasks.fit)

    def _diverged(self, error: FloatingPointError) -> None:
        """Numbers are no longer finite, and there are weights to go back to: the fit ends with them."""
        model, course = self.model, self.course
        model.validation_scores_.append(float("nan"))
        what = str(error).partition(" The weights are")[0]
        text = f"Training diverged. {what} The weights are those of the best validation score; lower the learning rate."
        warn(text, ConvergenceWarning)
        build.take_over(self.trainer.net, model.network_)
        self.trainer.net.phi[...] = course.best
        course.optimizer = None  # the velocity is that of a way that led nowhere

    def _epoch(self, records: Iterator[Epoch], tasks: EpochTasks) -> bool:
        """One more: curves, counts, the best φ, callbacks; whether one of these stops training."""
        model, course, trainer = self.model, self.course, self.trainer
        task, of_weights = tasks.begin(), penalty(model, self.weight)
        course.alpha = build.at_pace(trainer.optimizer, course.alpha)
        record = next(records)
        build.take_over(model.network_, trainer.net)
        model.n_iter_ += 1
        model.t_ += self.train.X.shape[0]
        model.loss_ = record.loss + of_weights
        model.loss_curve_.append(model.loss_)
        if record.validation:
            model.validation_loss_curve_.append(record.validation["loss"])
        model._say(f"Iteration {model.n_iter_}, loss = {model.loss_:.8f}")
        with trainer._descent.measuring(trainer.settings):
            score = self._score(record) if model.early_stopping else None
        if self._improved(score) and model.early_stopping:
            course.best = model.network_.phi.copy()
        stops = [bool(callback.epoch(trainer, record)) for callback in self.callbacks]
        return any([tasks.end(task), *stops])

    def _score(self, record: Epoch) -> float:
        """What early stopping goes by, the more the better."""
        model = self.model
        if model.monitor == "loss":
            score = -record.validation["loss"]
        elif model.monitor is None:
            score = model._score_held_out(self.held_out)
        else:
            score = scored(model, self.held_out)
        model._say(f"Validation score: {score:f}")
        return score

    def _improved(self, score: float | None) -> bool:
        """Keep count of epochs without progress; whether this one is the best so far."""
        model, course = self.model, self.course
        scores, best = model.validation_scores_, model.best_validation_score_
        if score is not None and scores is not None and best is not None:
            scores.append(score)
            course.waited = 0 if score >= best + model.tol else course.waited + 1  # nan is no progress
            model.best_validation_score_ = score if score > best else best
            return score > best
        best = np.inf if model.best_loss_ is None else model.best_loss_
        course.waited = course.waited + 1 if model.loss_ > best - model.tol else 0
        model.best_loss_ = min(best, model.loss_)
        return model.loss_ < best

    def _stalled(self) -> bool:
        """Whether patience is over; with learning_rate="adaptive" the rate is divided first."""
        model, rate = self.model, self.trainer.optimizer.schedule
        if self.course.waited <= model.n_iter_no_change:
            return False
        what = "Validation score" if model.early_stopping else "Training loss"
        seen = f"{what} did not improve more than tol={model.tol:f} for {model.n_iter_no_change} consecutive epochs."
        if isinstance(rate, build.Adaptive) and rate.divide():
            self.course.waited = 0
            model._say(f"{seen} Setting learning rate to {rate.learning_rate:f}")
            return False
        model._say(f"{seen} Stopping.")
        return True

    def _end_with_best(self, incremental: bool) -> None:
        """Take the best φ; a `partial_fit` starts from there and waits anew, a `fit` goes on from where it was."""
        model, course, phi = self.model, self.course, self.model.network_.phi
        if course.best is None:
            if not model.n_iter_:  # interrupted at once
                return
            text = "no validation score was a number, so that early stopping had nothing to go by. The weights are the last ones."
            advise(type(model).__name__, text)
            return
        if incremental:
            course.waited = 0
        else:
            course.last = phi.copy()
        phi[...] = course.best
        model._tell_of_scores(self.held_out)


def scored(model: Any, held_out: Examples) -> float:
    """The score of held-out examples by `monitor`; of a measure that needs all classes, those that are absent are told."""
    from sklearn.metrics import get_scorer  # a third of the time that scikit-learn takes to start

    scorer = get_scorer(model.monitor) if isinstance(model.monitor, str) else model.monitor
    of = model, held_out.original, held_out.y
    w = {} if held_out.w is None else {"sample_weight": held_out.w}
    try:
        return float(scorer(*of, **w))
    except ValueError as error:
        if not (isinstance(model.monitor, str) and hasattr(model, "classes_")):
            raise
        try:
            with sklearn.config_context(enable_metadata_routing=True):
                return float(scorer(*of, labels=model.classes_, **w))
        except TypeError:  # it knows no labels
            raise error from None


def split(model: Any, examples: Examples, groups: Array | None) -> tuple[Examples, Examples]:
    """The part to train on, and what early stopping holds out: rows, or of groups (N,) whole ones."""
    from sklearn.model_selection import GroupShuffleSplit, train_test_split  # only where it is needed

    who, n = type(model).__name__, examples.X.shape[0]
    fraction = checks.number(who, "validation_fraction", model.validation_fraction, above=0)
    random = check_random_state(0)
    random.set_state(model._course.split)
    size = math.ceil(fraction * n)  # as train_test_split counts
    stratify = model._stratify(examples, size) if groups is None else None
    if groups is None and (things := data.repeated_things(examples.given)):
        name, count = things
        text = f"column {name!r} repeats: {count:,} values in {n:,} rows. If the model is for new ones, a hold-out by"
        advise(who, f"{text} chance flatters it: groups=X[{name!r}] holds out whole ones. Leave the column itself out.")
    expected = "at least 2 examples to validate on, and some to train on"
    try:
        if groups is None:
            train, held = train_test_split(np.arange(n), random_state=random, test_size=fraction, stratify=stratify)
        else:
            parts = GroupShuffleSplit(1, test_size=fraction, random_state=random)
            train, held = next(parts.split(np.empty(n), groups=groups))
        size = len(held)
    except ValueError as error:
        got = f"{min(size, n)} of {n} by validation_fraction={fraction:g}"
        if groups is not None:
            expected, got = "at least 2 groups", f"{len(np.unique(groups))}"
        elif stratify is not None:
            counts = np.unique(stratify, return_counts=True)[1].tolist()
            expected = "each class to train on and to validate on"
            got = f"{counts} examples of {model.classes_.tolist()}, and {size} to hold out"
        raise ValueError(checks.message(who, expected, got, f"{HOLD_OUT} {error}")) from None
    if size < 2:
        raise ValueError(checks.message(who, expected, f"{size} of {n} by validation_fraction={fraction:g}", HOLD_OUT))
    return examples.at(train), examples.at(held)
