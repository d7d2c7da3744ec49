"""What y means to a classifier and to a regressor, and what comes out of `predict`."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from backprop import checks
from backprop.checks import Array
from backprop.estimators import data
from backprop.estimators.data import Examples, Standardization, standardization
from backprop.estimators.hooks import TrainingAdvice, advise
from backprop.functions import sigmoid
from backprop.losses import BinaryCrossEntropy, CrossEntropy, Loss, Pinball, Poisson


class Classes(ClassifierMixin):
    """Labels of classes, or answers to yes-or-no questions: how they are encoded, predicted and scored."""

    def _make_loss(self) -> Loss:
        return CrossEntropy() if self.out_activation_ == "softmax" else BinaryCrossEntropy()

    def _outputs(self, columns: int) -> int:
        return len(self.classes_) if self.out_activation_ == "softmax" else columns

    def _encode(self, y: Array, *, reset: bool, whole: bool = False) -> Array:
        """Labels (N,) for softmax, 0 and 1 (N, K) or (N,) for logistic."""
        if y.dtype != object:
            check_classification_targets(y)
        if y.ndim == 2:
            return self._encode_answers(y, reset)
        try:
            found = np.unique(y)
        except TypeError as error:
            raise TypeError(checks.message(self._who, "y with labels that can be sorted", str(error))) from None
        if reset:
            announced = self.__dict__.pop("_classes_given", None)
            self.classes_ = found if announced is None else announced
            self.out_activation_ = "softmax" if len(self.classes_) > 2 else "logistic"
            self._tell_of_one_class()
        elif self._answers_questions:
            raise ValueError(checks.message(self._who, f"y with {self.n_outputs_} columns of 0 and 1", "one column"))
        unknown = sorted(set(found.tolist()) - set(self.classes_.tolist()))
        if unknown or (whole and len(found) < len(self.classes_)):
            expected = f"y with classes {self.classes_.tolist()}"
            advice = "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
            advice += f"Previously got {self.classes_}, `y` has {found}"
            got = f"also {unknown}" if unknown else f"{found.tolist()}"
            raise ValueError(checks.message(self._who, expected, got, "" if reset or not whole else advice))
        codes = np.searchsorted(self.classes_, y)
        return codes if self.out_activation_ == "softmax" else codes.astype(np.float64)

    def _encode_answers(self, y: Any, reset: bool) -> Array:
        if type_of_target(y) != "multilabel-indicator":
            expected = "y (N,) of one class of several, or (N, K) of 0 and 1"
            raise ValueError(checks.message(self._who, expected, f"multioutput y of shape {y.shape}"))
        answers = np.asarray(y.toarray() if hasattr(y, "toarray") else y, np.float64)
        if reset:
            self.__dict__.pop("_classes_given", None)
            self.classes_, self.out_activation_ = np.arange(answers.shape[1]), "logistic"
        elif not self._answers_questions or answers.shape[1] != self.n_outputs_:
            expected = (
                f"y with {self.n_outputs_} columns" if self._answers_questions else f"y with classes {self.classes_}"
            )
            raise ValueError(checks.message(self._who, expected, f"shape {answers.shape}"))
        return answers

    @property
    def _answers_questions(self) -> bool:
        """Whether each class is a question of its own, with yes or no for an answer."""
        return self.out_activation_ == "logistic" and self.n_outputs_ > 1

    def _tell_of_one_class(self) -> None:
        if len(self.classes_) == 1:
            text = f"y holds one class, {self.classes_.tolist()[0]!r}, which is always predicted: there is nothing to learn."
            # Under early stopping such a fit ends by itself; those who make errors of UserWarnings are let go on.
            advise(self._who, text, RuntimeWarning if getattr(self, "early_stopping", False) else TrainingAdvice)

    def _class_weights(self, y: Array, w: Array | None) -> Array:
        weight = self.class_weight
        if isinstance(weight, dict) and y.ndim == 1:
            unknown = [label for label in weight if label not in self.classes_.tolist()]
            if unknown:
                expected = f"class_weight for classes {self.classes_.tolist()}"
                raise ValueError(checks.message(self._who, expected, f"also {unknown}"))
            each = np.array([weight.get(label, 1.0) for label in self.classes_.tolist()], np.float64)
            extra = each[np.searchsorted(self.classes_, y)]
        else:
            extra = compute_sample_weight(weight, y)
        w = extra if w is None else w * extra
        if not (extra >= 0).all() or not w.any():
            expected = "class_weight ≥ 0, and > 0 for some example"
            raise ValueError(checks.message(self._who, expected, repr(weight)))
        return w

    def _stratify(self, examples: Examples, size: int) -> Array | None:
        """What is to be held out in the same shares, where each class can be in both parts; of two classes each must be."""
        y, one_class_each = examples.y, examples.targets.ndim == 1
        if not one_class_each or len(self.classes_) < 2:
            return None
        counts = np.unique(y, return_counts=True)[1]
        fits = counts.min() >= 2 and len(counts) <= min(size, len(y) - size)
        if self.out_activation_ == "logistic":
            return examples.targets.astype(bool)[:, None]  # named 'True' and 'False', as scikit-learn has them
        return examples.targets if fits else None

    def _score_held_out(self, held_out: Examples) -> float:
        right = self._labels(self._network_outputs(held_out.X)) == held_out.y
        return float(np.average(right if right.ndim == 1 else right.all(axis=1), weights=held_out.w))

    def _tell_of_scores(self, held_out: Examples) -> None:
        """Advise where the best weights by accuracy are those that always say the same."""
        y, chosen = held_out.y, np.unique(self._labels(self._network_outputs(held_out.X)))
        if self.monitor is not None or y.ndim == 2 or len(chosen) > 1 or (y == chosen[0]).all():
            return
        share = np.average(y == chosen[0], weights=held_out.w)
        if share >= 0.8:
            always = f"{chosen.tolist()[0]!r} to all examples, as {share:.0%} of those"
            text = f"early stopping by accuracy kept weights that say {always}"
            advice = "held out are. With classes so rare let it go by monitor='loss', 'average_precision' or 'roc_auc'."
            advise(self._who, f"{text} {advice}")

    def _labels(self, f: Array) -> Array:
        if self.out_activation_ == "softmax":
            return self.classes_[np.argmax(f, axis=1)]
        answers = (f > 0).astype(int)
        return answers if self._answers_questions else self.classes_[np.minimum(answers[:, 0], len(self.classes_) - 1)]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy on rows X (N, D); y may be the name of a column, as in `fit`."""
        y = data.answers(f"{self._who}.score", X, y)
        if y is None or y.dtype.kind != "O":
            return float(super().score(X, y, sample_weight))
        from sklearn.metrics import accuracy_score

        # Dates and decimals are not known to it, so it gets their places among the classes.
        place = {label: code for code, label in enumerate(self.classes_.tolist())}
        codes = [[place.get(label, -1) for label in labels] for labels in (y.tolist(), self.predict(X).tolist())]
        return float(accuracy_score(*codes, sample_weight=sample_weight))

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
            p = np.hstack([1 - p, p]) if not self._answers_questions else p
            p = np.ones((len(p), 1)) if len(self.classes_) == 1 and not self._answers_questions else p
        return p.astype(self.network_.phi.dtype, copy=False)

    def predict_log_proba(self, X: Any) -> Array:
        """Logarithms of `predict_proba`."""
        return np.log(self.predict_proba(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class Quantities(RegressorMixin):
    """Numbers as targets: how they are scaled, predicted and scored."""

    _target_scaling: Standardization | None
    _scale_of_one_value = 1.0  # targets that are all the same are predicted by about their mean; others may come later
    _targets: int

    def _outputs(self, columns: int) -> int:
        return columns * self._loss_function.outputs_per_target

    def _encode(self, y: Array, *, reset: bool, whole: bool = False) -> Array:
        if y.dtype.kind in "Mm":
            advice = "Make numbers of them: days since a date, hours, seconds."
            raise TypeError(checks.message(self._who, "y: numbers", f"dates or times ({y.dtype})", advice))
        if y.dtype.kind in "OUS":
            y = self._numbers(y)
        y = np.asarray(y, np.float64)
        columns = 1 if y.ndim == 1 else y.shape[1]
        if reset:
            self._targets = columns
        elif columns != self._targets:
            raise ValueError(checks.message(self._who, f"y with {self._targets} columns", f"{columns}"))
        return y

    def _numbers(self, y: Array) -> Array:
        """Objects as numbers, or the first that is none of them by its row."""
        for row, value in enumerate(y):
            try:
                np.asarray(value, np.float64)
            except (TypeError, ValueError):
                advice = "Make numbers of dates: days since one of them." if hasattr(value, "resolution") else ""
                got = f"{str(value)!r} at row {row}"
                raise ValueError(checks.message(self._who, "y: numbers", got, advice)) from None
        return y.astype(np.float64)

    def _scaled_targets(self, targets: Array, w: Array | None) -> Array:
        if isinstance(self._loss_function, Poisson):
            raise ValueError(checks.message(self._who, "scale_targets=False with Poisson counts", "True"))
        if self._target_scaling is None:
            mean, scale = standardization(targets, w)
            self._target_scaling = Standardization(mean, np.where(np.isinf(scale), self._scale_of_one_value, scale))
        return self._target_scaling.forth(targets)

    def _score_held_out(self, held_out: Examples) -> float:
        return self._r2(held_out) if len(held_out.targets) > 1 else np.nan  # of one row there is none

    def _r2(self, examples: Examples) -> float:
        from sklearn.metrics import r2_score  # a third of the time that scikit-learn takes to start

        predicted = self._predicted(self._network_outputs(examples.X))
        if not np.isfinite(predicted).all():
            return np.nan
        with np.errstate(over="ignore"):
            return float(r2_score(examples.targets, predicted, sample_weight=examples.w))

    def _predicted(self, f: Array) -> Array:
        """The mean, or the median quantile, in the units of y."""
        f, loss = np.asarray(f, np.float64), self._loss_function
        if isinstance(loss, Poisson):
            f = np.exp(f)
        middle = np.argmin(np.abs(np.array(loss.quantiles) - 0.5)) if isinstance(loss, Pinball) else 0
        return self._in_units(f, int(middle))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R² on rows X (N, D); y may be the name of a column, as in `fit`."""
        return float(super().score(X, data.answers(f"{self._who}.score", X, y), sample_weight))

    def predict(self, X: Any) -> Array:
        """Predictions (N,) or (N, K): the mean, with loss="quantile" the quantile nearest to the median."""
        return self._predicted(self._rows(X)).astype(self.network_.phi.dtype, copy=False)

    def _in_units(self, f: Array, k: int = 0) -> Array:
        """Of the outputs f for each target the k-th, in the units of y."""
        f = f[:, k * self._targets : (k + 1) * self._targets]
        f = f.ravel() if f.shape[1] == 1 else f
        return f if self._target_scaling is None else self._target_scaling.back(f)
