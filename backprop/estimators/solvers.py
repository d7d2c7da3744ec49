"""The two ways of a fit from checked examples to trained weights: minibatch descent, and L-BFGS on all examples at once."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from backprop import checks, training
from backprop.estimators import build, data
from backprop.estimators.data import HOLD_OUT, Examples
from backprop.estimators.hooks import EpochTasks, warn
from backprop.functions import norm
from backprop.gradients.problem import independent
from backprop.optimizers import SGD
from backprop.optimizers.penalties import over_phi
from backprop.sequential import Sequential
from backprop.training import Epoch, Trainer
from backprop.training.descent import interrupts
from backprop.training.watch import running

UNFINISHED = "Training stopped after max_iter={} epochs, before it converged."


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
    tasks = EpochTasks(model, 0, X=train.X, y=train.y)
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
        limit = f"max_fun={model.max_fun} evaluations" if evaluations else f"max_iter={model.max_iter} iterations"
        warn(f"L-BFGS stopped after {limit}, before it converged.", ConvergenceWarning)


class Descent:
    """Minibatch descent of one `fit` or `partial_fit`, from where the last one of this model stopped."""

    def __init__(self, model: Any, train: Examples, held_out: Any) -> None:
        self.model, self.course = model, model._course
        if held_out is None and model.early_stopping:
            train, held_out = split(model, train)
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
            threads=model.threads,
        )
        self.trainer.epochs_done = self.course.epochs

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
        if course.last is not None:
            net.phi[...], course.last = course.last, None
        return net if course.dtype == net.phi.dtype else independent(net, course.dtype)

    def run(self, epochs: int, incremental: bool) -> None:
        """Train for so many epochs, or until patience is over: that of a `partial_fit` ends by its score alone."""
        model, trainer, train = self.model, self.trainer, self.train
        tasks = EpochTasks(model, epochs, X=train.X, y=train.y)
        validation = self.held_out and model._for_network(self.held_out, trainer.net.phi.dtype)
        X, targets, w = self.examples
        records = trainer.epochs(X, targets, epochs, sample_weight=w, validation_data=validation)
        model.n_iter_, stalled = 0, False
        try:
            with running(trainer, model.callbacks or ()), interrupts() as interrupted:
                for _ in range(epochs):
                    stop = self._epoch(records, tasks)
                    if interrupted:
                        raise KeyboardInterrupt
                    stalled = not stop and (model.early_stopping or not incremental) and self._stalled()
                    if stop or stalled:
                        break
                else:
                    if not incremental:
                        warn(UNFINISHED.format(model.max_iter), ConvergenceWarning)
        except KeyboardInterrupt:
            warn("Training interrupted by user.", UserWarning)
        except FloatingPointError as error:
            raise ValueError(str(error)) from error
        finally:
            self.course.epochs = trainer.epochs_done
        build.take_over(model.network_, trainer.net)
        if model.early_stopping and (stalled or not incremental) and self.course.best is not None:
            self._restore_best(incremental)
        tasks.end(tasks.fit)

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
        score = self._score(record) if model.early_stopping else None
        if self._improved(score) and model.early_stopping:
            course.best = model.network_.phi.copy()
        stops = [bool(callback.epoch(trainer, record)) for callback in model.callbacks or ()]
        return any([tasks.end(task), *stops])

    def _score(self, record: Epoch) -> float:
        """What early stopping goes by, the more the better."""
        model = self.model
        if model.monitor == "loss":
            score = -record.validation["loss"]
        elif model.monitor is None:
            score = model._score_held_out(self.held_out)
        else:
            scorer = get_scorer(model.monitor) if isinstance(model.monitor, str) else model.monitor
            X, y, _, w = self.held_out
            twin = self._for_numbers(X.shape[1])
            score = float(scorer(twin, X, y) if w is None else scorer(twin, X, y, sample_weight=w))
        model._say(f"Validation score: {score:f}")
        return score

    def _for_numbers(self, columns: int) -> Any:
        """The model as it predicts from X that is checked and encoded already."""
        twin = copy.copy(self.model)
        twin.table_, twin.n_features_in_ = None, columns
        twin.__dict__.pop("feature_names_in_", None)
        if self.model.table_ is not None:
            twin.scale_inputs = False  # the table has scaled them
        return twin

    def _improved(self, score: float | None) -> bool:
        """Keep count of epochs without progress; whether this one is the best so far."""
        model, course = self.model, self.course
        scores, best = model.validation_scores_, model.best_validation_score_
        if score is not None and scores is not None and best is not None:
            scores.append(score)
            course.waited = course.waited + 1 if score < best + model.tol else 0
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

    def _restore_best(self, incremental: bool) -> None:
        """Take the best φ; a `partial_fit` starts from there and waits anew, a `fit` goes on from where it was."""
        course, phi = self.course, self.model.network_.phi
        if incremental:
            course.waited = 0
        else:
            course.last = phi.copy()
        phi[...] = course.best


def split(model: Any, examples: Examples) -> tuple[Examples, Examples]:
    """The part to train on, and what early stopping holds out."""
    who, n = type(model).__name__, examples.X.shape[0]
    fraction = checks.number(who, "validation_fraction", model.validation_fraction, above=0)
    size = math.ceil(fraction * n)  # as train_test_split counts
    if size < 2 or size >= n:
        got = f"{min(size, n)} of {n} by validation_fraction={fraction:g}"
        expected = "at least 2 examples to validate on, and some to train on"
        raise ValueError(checks.message(who, expected, got, HOLD_OUT))
    random = check_random_state(0)
    random.set_state(model._course.split)
    one_class_each = hasattr(model, "classes_") and examples.y.ndim == 1
    stratify = model._stratify(examples.y, size) if one_class_each else None
    train, held = train_test_split(np.arange(n), random_state=random, test_size=fraction, stratify=stratify)
    return examples.at(train), examples.at(held)
