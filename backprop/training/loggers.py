"""Callbacks that write training down while it runs: to a file, to TensorBoard, to MLflow."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from backprop import checks, notation
from backprop.files.atomic import PathLike
from backprop.training.callbacks import Callback, Training, path_of
from backprop.training.history import Epoch


class FileLogger(Callback):
    """A line per record, written whole and flushed at once, so that it can be read while training runs."""

    writes = True

    def __init__(self, path: PathLike, *, append: bool = False, overwrite: bool = False) -> None:
        who = type(self).__name__
        self.path = Path(path_of(who, path))
        self.append = checks.boolean(who, "append", append)
        self.overwrite = checks.boolean(who, "overwrite", overwrite)
        if append and overwrite:
            raise ValueError(checks.message(who, "append or overwrite", "both"))
        self._begun = False  # a later `fit` with the same logger goes on in what is now its own file
        self._file: IO[str] | None = None

    def start(self, trainer: Training) -> None:
        """Open the file. Raises FileExistsError for one that holds something, unless told what to do with it."""
        taken = self.path.exists() and self.path.stat().st_size > 0
        goes_on = self.append or self._begun
        if taken and not (goes_on or self.overwrite):
            advice = "Pass append=True to go on in it, or overwrite=True to lose it."
            raise FileExistsError(checks.message(type(self).__name__, "a new file", str(self.path), advice))
        if taken and goes_on:
            self._look_at_what_is_there()
        # Anything but a wish to overwrite appends, so that no file is emptied that came into being since.
        mode = "w" if self.overwrite and not self._begun else "a"
        self._file = self.path.open(mode, encoding="utf-8", newline="")
        self._begun = True

    def epoch(self, trainer: Training, record: Epoch) -> None:
        """Write one record."""
        if self._file is not None:
            self._file.write(self.lines(record.flat()))  # in one piece: Ctrl-C comes before it or after it
            self._file.flush()

    def end(self, trainer: Training) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def lines(self, columns: dict[str, float]) -> str:
        """The text for one record, with the ends of its lines."""
        raise NotImplementedError

    def _look_at_what_is_there(self) -> None:
        if not self.path.read_bytes().endswith(b"\n"):
            got = f"{self.path}, whose last line was cut off"
            raise ValueError(checks.message(type(self).__name__, "a file of whole lines", got, "Remove that line."))

    def __repr__(self) -> str:
        return notation.call(self, path=str(self.path))


class CSVLogger(FileLogger):
    """A line per epoch in a CSV file, below a line with the names of the columns.

    The columns are those of the first record, or of the file that is appended to. A record without one of them leaves it empty;
    one with another column raises ValueError. Every number reads back as the same number.

    A file that holds something is refused with FileExistsError unless `append` or `overwrite` is True; a later `fit` with the
    same logger goes on in its file. Each line is written at once, so the file can be read while training runs.

    >>> CSVLogger("training.csv", append=True)
    CSVLogger(path='training.csv', append=True)
    """

    _columns: tuple[str, ...] = ()

    def start(self, trainer: Training) -> None:
        """Open the file, and read the columns of one that is appended to. Errors as in the class."""
        self._columns = ()
        super().start(trainer)

    def lines(self, columns: dict[str, float]) -> str:
        """One line; before the first of a new file also the names."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not self._columns:
            self._columns = tuple(columns)
            writer.writerow(self._columns)
        new = [name for name in columns if name not in self._columns]
        if new:
            advice = "Log to another file, or use JSONLLogger, whose lines may differ."
            expected = f"the columns of {self.path}, {list(self._columns)}"
            raise ValueError(checks.message("CSVLogger", expected, f"also {new}", advice))
        writer.writerow([columns.get(name, "") for name in self._columns])
        return text.getvalue()

    def _look_at_what_is_there(self) -> None:
        super()._look_at_what_is_there()
        with self.path.open(encoding="utf-8", newline="") as file:
            self._columns = tuple(next(csv.reader(file)))


class JSONLLogger(FileLogger):
    """A JSON object per epoch and line, with the columns that this record has.

    Every number reads back as the same number; NaN and inf, for which JSON has no words, become null. Existing files, and a
    later `fit`, as with `CSVLogger`.

    >>> JSONLLogger("training.jsonl")
    JSONLLogger(path='training.jsonl')
    """

    def lines(self, columns: dict[str, float]) -> str:
        """One object."""
        finite = {name: value if math.isfinite(value) else None for name, value in columns.items()}
        return json.dumps(finite, ensure_ascii=False, allow_nan=False) + "\n"


class TensorBoardLogger(Callback):
    """The columns of each epoch as scalars of TensorBoard, in a folder to point `tensorboard --logdir` at.

    Writes with `torch.utils.tensorboard` where it is installed, else with `tensorboardX` (extra `tensorboard`). Raises
    ImportError when training starts and there is neither.

    >>> TensorBoardLogger("runs/digits")
    TensorBoardLogger(folder='runs/digits')
    """

    writes = True
    __repr__ = notation.call

    def __init__(self, folder: PathLike) -> None:
        self.folder = os.fspath(folder)

    def start(self, trainer: Training) -> None:
        """Open a file of events."""
        self._writer = _summary_writer()(log_dir=self.folder)

    def epoch(self, trainer: Training, record: Epoch) -> None:
        """Write one record."""
        for name, value in _but_epoch(record).items():
            self._writer.add_scalar(name, value, record.epoch)
        self._writer.flush()

    def end(self, trainer: Training) -> None:
        """Close the file."""
        self._writer.close()
        del self._writer  # it holds threads and locks, which a copy of this callback could not take along


class MLflowLogger(Callback):
    """The columns of each epoch as metrics of MLflow.

    Logs to the active run, and leaves it open; without one it starts a run of its own, called `run_name`, and finishes it when
    training ends. A later `fit` goes on in that run, whose id is `run_id`. Where runs are kept is MLflow's own setting
    (`mlflow.set_tracking_uri`, `mlflow.set_experiment`). Raises ImportError when training starts and MLflow is not installed
    (extra `mlflow`).

    >>> MLflowLogger("digits")
    MLflowLogger(run_name='digits')
    """

    writes = True
    __repr__ = notation.call

    def __init__(self, run_name: str | None = None) -> None:
        self.run_name = run_name
        self.run_id: str | None = None
        self._own = False

    def start(self, trainer: Training) -> None:
        """Find the active run, or start one."""
        mlflow = _mlflow()
        self._own = mlflow.active_run() is None
        if self._own:
            self.run_id = mlflow.start_run(run_id=self.run_id, run_name=self.run_name).info.run_id

    def epoch(self, trainer: Training, record: Epoch) -> None:
        """Write one record."""
        _mlflow().log_metrics(_but_epoch(record), step=record.epoch)

    def end(self, trainer: Training) -> None:
        """Finish the run, if it is our own."""
        if self._own:
            _mlflow().end_run()


def _but_epoch(record: Epoch) -> dict[str, float]:
    columns = record.flat()
    del columns["epoch"]
    return columns


def _summary_writer() -> Any:
    for module in ("torch.utils.tensorboard", "tensorboardX"):
        with suppress(ImportError):
            return import_module(module).SummaryWriter
    needs = "TensorBoardLogger needs tensorboardX, or torch with tensorboard"
    raise ImportError(f'{needs}: pip install "backprop-mlp[tensorboard]"')


def _mlflow() -> Any:
    try:
        return import_module("mlflow")
    except ImportError as error:
        raise ImportError('MLflowLogger needs mlflow: pip install "backprop-mlp[mlflow]"') from error
