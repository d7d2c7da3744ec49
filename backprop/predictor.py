"""A saved model as a function of rows, for whoever hands out rows to many processes: Dask, Ray, joblib."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from backprop import arrays, checks
from backprop.checks import Array
from backprop.files import container
from backprop.files.atomic import PathLike

_loading = threading.Lock()


class Predictor:
    """The model in a file, as a function of rows: it pickles as the path, and each process loads the file once.

    A frame (pandas, polars, pyarrow) becomes a frame of the same library, with the rows and the index that it had, and with the
    columns that `backprop predict` writes: the target in its units or its classes, "prediction" for an estimator and, of a
    network alone, f0, f1, …. Columns are found and prepared as the model's `Table`, its estimator or `backprop fit` has learnt
    them; that of a table's target may be there. No rows give no rows. An array (N, D) is for models without a table: it becomes
    what `net.predict` or the estimator's `predict` returns. `classes` are layers of your own, as of `Sequential.load`.

    It stands for the file as it was: where another one has taken its place, a process that has not loaded it raises ValueError.
    Several threads may call it at once. Raises OSError and FileFormatError for the file, TypeError for a lazy frame, ValueError
    and TypeError for rows that do not fit the model.

    >>> import tempfile, numpy as np, backprop as bp
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     bp.Sequential(bp.Exp()).save(f"{folder}/net.safetensors")
    ...     bp.Predictor(f"{folder}/net.safetensors")(np.zeros((1, 3)))
    array([[1., 1., 1.]], dtype=float32)
    """

    def __init__(self, path: PathLike, *, classes: Iterable[type] = ()) -> None:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(checks.message("Predictor", "path of a file", f"{path!r} ({type(path).__name__})"))
        self.path, self.classes = os.path.abspath(path), tuple(classes)
        self.digest = _digest(self.path)
        self._model()

    def __repr__(self) -> str:
        return f"Predictor({self.path!r})"

    def _model(self) -> Any:
        with _loading:
            return _load(self.path, self.digest, self.classes)

    def __call__(self, rows: Any) -> Any:
        """Predictions for a frame, as a frame; for an array (N, D), as an array."""
        model = self._model()
        if isinstance(rows, np.ndarray | list | tuple):
            return model.predict(rows)
        from backprop.tables.frame import narwhals, no_frame

        nw = narwhals()
        try:
            frame = nw.from_native(rows, eager_only=True)
        except TypeError:
            _refuse_whole(rows)
            raise no_frame("Predictor", rows) from None
        if len(frame):
            columns = model.columns(frame)
        else:  # Dask and Ray have partitions without rows; their columns are those of others
            columns = {name: each[:0] for name, each in model.of_zero(len(frame.columns)).items()}
        found = nw.from_dict(columns, backend=frame.implementation).to_native()
        if hasattr(rows, "index"):
            found.index = rows.index
        return found


def _refuse_whole(rows: Any) -> None:
    """Refuse what Dask and Ray have of rows where one of their pieces is meant."""
    got = advice = ""
    if arrays.loader(rows) == "compute":
        got, advice = "one of Dask", "Write frame.map_partitions(predictor, meta=predictor(frame.head(1)))."
    if isinstance(rows, dict):
        got, advice = "a dict", 'With Ray write data.map_batches(predictor, batch_format="pandas").'
    if got:
        raise TypeError(checks.message("Predictor", "a frame in memory", got, advice))


def _digest(path: str) -> str:
    return hashlib.sha256(container.contents(path)).hexdigest()


@lru_cache(maxsize=8)
def _load(path: str, digest: str, classes: tuple[type, ...]) -> Any:
    if _digest(path) != digest:
        advice = "Make the Predictor anew."
        raise ValueError(checks.message(path, "the file that the Predictor was made of", "another one", advice))
    return (_Estimator if container.kind(path) == "estimator" else _Network)(path, classes)


class _Network:
    """A network, with its table if it has one, prepared as backprop fit has said if it has trained it."""

    def __init__(self, path: str, classes: tuple[type, ...]) -> None:
        from backprop.cli.models import load

        self.model = load(Path(path), classes)
        self.fitted = self.model.plan() is not None

    def predict(self, X: Any) -> Array:
        if (table := self.model.table) is not None:
            raise TypeError(checks.message("Predictor", f"a frame with the columns {table.columns}", "an array"))
        return self.model.net.predict(X)

    def columns(self, frame: Any) -> dict[str, Array]:
        from backprop.cli.predict import predictions

        table = self.model.table
        if self.fitted:
            X = self.model.prepared(frame.to_arrow())
        else:
            X = frame.to_numpy() if table is None else table.transform(frame.to_native())
        return predictions(table, self.model.net.predict(X), False)

    def of_zero(self, width: int) -> dict[str, Array]:
        from backprop.cli.predict import predictions

        net = self.model.net
        return predictions(self.model.table, np.zeros((1, net.out_features or width), net.phi.dtype), False)


class _Estimator:
    """A fitted estimator."""

    def __init__(self, path: str, classes: tuple[type, ...]) -> None:
        from backprop.estimators.files import load_any

        self.model = load_any(path, classes)

    def predict(self, X: Any) -> Array:
        return self.model.predict(X)

    def columns(self, frame: Any) -> dict[str, Array]:
        return self._named(self.model.predict(frame.to_native()))

    def of_zero(self, width: int) -> dict[str, Array]:
        net, table = self.model.as_network()
        f = np.zeros((1, net.out_features))
        return self._named(table.values(f).astype(net.phi.dtype) if table.classes is None else table.labels(f))

    def _named(self, y: Array) -> dict[str, Array]:
        return {"prediction": y} if y.ndim == 1 else {f"prediction {k}": column for k, column in enumerate(y.T)}
