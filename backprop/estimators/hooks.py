"""What scikit-learn's users have set up around a fit.

Its callbacks (`set_callbacks`, public since 1.9): a task for the fit, and below it one for each epoch. And filters of warnings.
"""

from __future__ import annotations

import copy
import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, TypeVar, cast

from sklearn.utils import metaestimators

from backprop.training.advice import TrainingAdvice, outside

# Scikit-learn's own is imported by those who set a callback: it brings a library that draws progress bars.
SUPPORTED = find_spec("sklearn.callback") is not None  # since 1.9
Method = TypeVar("Method", bound=Callable[..., Any])


class CallbackSupportMixin:
    """Scikit-learn's mixin, when it is asked for."""

    if SUPPORTED:

        def set_callbacks(self, *callbacks: Any) -> Any:
            """Set callbacks of scikit-learn's for the next `fit`; returns the estimator."""
            from sklearn.callback import CallbackSupportMixin as Theirs

            return Theirs.set_callbacks(self, *callbacks)

        def _init_callback_context(self, **settings: Any) -> Any:
            from sklearn.callback import CallbackSupportMixin as Theirs

            return Theirs._init_callback_context(self, **settings)


def with_callbacks(method: Method) -> Method:
    """Scikit-learn's decorator of `fit`, which ends callbacks whatever ends that, where there are any."""

    @functools.wraps(method)
    def run(model: Any, *arguments: Any, **named: Any) -> Any:
        if "sklearn.callback" not in sys.modules:  # nobody can have set one
            return method(model, *arguments, **named)
        from sklearn.callback import with_callbacks as theirs

        return theirs(method)(model, *arguments, **named)

    return cast(Method, run)


def available_if(condition: Callable[[Any], bool]) -> Callable[[Method], Method]:
    """Scikit-learn's decorator of a method that is there only for some settings, with the method's own type."""
    return cast("Callable[[Method], Method]", metaestimators.available_if(condition))


__all__ = [
    "CallbackSupportMixin",
    "EpochTasks",
    "TrainingAdvice",
    "advise",
    "available_if",
    "tell_untransformed",
    "warn",
    "with_callbacks",
]


def warn(text: str, category: type[Warning]) -> None:
    """Warn at the user's line, in the name of scikit-learn's module: filters that were written for that go on filtering."""
    frame = sys._getframe(outside() - 1)
    warnings.warn_explicit(
        text,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        module="sklearn.neural_network",
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def advise(who: str, text: str, category: type[Warning] = TrainingAdvice) -> None:
    """Give advice, at the user's line."""
    warnings.warn(f"{who}: {text}", category, stacklevel=outside())


def around(model: Any) -> Iterator[Any]:
    """The meta-estimators of scikit-learn whose last step is this model, from the `fit` of the model outwards."""
    frame = sys._getframe(1).f_back
    while frame is not None:
        outer: Any = frame.f_locals.get("self")
        if frame.f_globals.get("__name__", "").startswith("sklearn."):
            steps = getattr(outer, "steps", None)
            inner = steps[-1][1] if steps else getattr(outer, "regressor_", None)
            if inner is model:
                yield outer
                model = outer
        frame = frame.f_back


def tell_untransformed(model: Any, X_name: str, y_name: str) -> None:
    """Advise where validation data came past the steps of a pipeline, or the transformer of a target."""
    who = type(model).__name__
    for outer in around(model):
        if not hasattr(outer, "steps"):
            text = f"{y_name} is not transformed by {type(outer).__name__}. scale_targets=True scales y and {y_name} alike."
        elif all(step in (None, "passthrough") for _, step in outer.steps[:-1]) or (
            X_name in (getattr(outer, "transform_input", None) or ())
        ):
            continue
        else:
            text = (
                f"{X_name} came past the steps of the pipeline before this one, which have transformed X but not it. Let the "
                'pipeline transform it: Pipeline(…, transform_input=["X_val"]), model.set_fit_request(X_val=True, y_val=True), '
                "pipeline.fit(X, y, X_val=…, y_val=…), with enable_metadata_routing=True."
            )
        advise(who, text)


class EpochTasks:
    """Tells scikit-learn's callbacks of the fit and of each epoch; without callbacks it does nothing and costs nothing."""

    def __init__(self, model: Any, epochs: int, examples: Any) -> None:
        self.model, self.fit = model, None
        if getattr(model, "_skl_callbacks", None):
            self.data = {"X": examples.original, "y": examples.y}
            self.fit = model._init_callback_context(max_subtasks=epochs)
            self.fit.call_on_fit_task_begin(estimator=model, **self.data)

    def begin(self) -> Any:
        """An epoch begins; returns its task."""
        if self.fit is None:
            return None
        return self.fit.subcontext(task_name="epoch").call_on_fit_task_begin(estimator=self.model, **self.data)

    def end(self, task: Any) -> bool:
        """An epoch or the `fit` has ended; True where a callback stops training."""
        return task is not None and bool(
            task.call_on_fit_task_end(estimator=self.model, reconstruction_attributes=self._as_fitted, **self.data)
        )

    def _as_fitted(self) -> dict[str, Any]:
        """The attributes of a model that stopped here."""
        skipped = {"_skl_callbacks", "_skl_callbacks_to_teardown", "_callback_fit_ctx", "_parent_callback_ctx"}
        fitted = {n: v for n, v in vars(self.model).items() if "_" in (n[0], n[-1]) and n not in skipped}
        return fitted | {"network_": self.model.network_.copy(), "loss_curve_": copy.copy(self.model.loss_curve_)}
