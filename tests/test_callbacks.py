"""Callbacks: when they run, what ends with what, which weights are kept, and what the loggers write."""

from __future__ import annotations

import copy
import csv
import json
import math
import os
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from test_bad_input import assert_refused

import backprop as bp

X = np.linspace(-1, 1, 12).reshape(-1, 1)
Y = 2 * X[:, 0] + 1


def trainer_of(*layers):
    net = bp.Sequential(bp.Linear(1, 1), *layers, seed=0, dtype="float64")
    return bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.1), batch_size=4)


def minimize(**settings):
    return bp.minimize(trainer_of().net, bp.LeastSquares(), X, Y, verbose=0, **settings)


def scripted(*values):
    """A metric that returns these values, epoch after epoch."""
    left = iter(values)

    def score(f, y):
        return next(left)

    return score


class Log(bp.Callback):
    """Notes what is called, keeps φ and the buffers of each epoch, and may fail at one of its calls."""

    def __init__(self, name, events, fails=""):
        self.name, self.events, self.fails, self.phi, self.buffers = name, events, fails, [], []

    def note(self, event):
        self.events.append(f"{self.name} {event}")
        if self.fails == event:
            raise ZeroDivisionError(f"{self.name} {event}")

    def start(self, trainer):
        self.note("start")

    def epoch(self, trainer, record):
        self.phi.append(trainer.net.phi.copy())
        self.buffers.append({name: buffer.copy() for name, buffer in trainer.net.buffers.items()})
        self.note("epoch")

    def end(self, trainer):
        self.note("end")


RUNS = {
    "fit": lambda callbacks, **settings: trainer_of().fit(X, Y, epochs=1, callbacks=callbacks, verbose=0, **settings),
    "minimize": lambda callbacks, **settings: minimize(iterations=1, callbacks=callbacks, **settings),
}


class TestProtocol:
    @pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
    @pytest.mark.parametrize(
        ("fails", "expected"),
        [
            ("", "a start, b start, c start, a epoch, b epoch, c epoch, a end, b end, c end"),
            ("start", "a start, b start, a end"),
            ("epoch", "a start, b start, c start, a epoch, b epoch, a end, b end, c end"),
            ("end", "a start, b start, c start, a epoch, b epoch, c epoch, a end, b end, c end"),
        ],
    )
    def test_what_was_started_is_ended_whatever_happens(self, run, fails, expected):
        events = []
        callbacks = [Log("a", events), Log("b", events, fails), Log("c", events)]
        if fails:
            with pytest.raises(ZeroDivisionError, match=f"b {fails}"):
                run(callbacks)
        else:
            run(callbacks)
        assert ", ".join(events) == expected

    def test_an_error_in_training_ends_them_too(self):
        class Broken(bp.Identity):
            def forward(self, h):
                raise ZeroDivisionError("mine")

        events = []
        with pytest.raises(ZeroDivisionError, match="mine") as caught:
            trainer_of(Broken()).fit(X, Y, callbacks=[Log("a", events)], verbose=0)
        assert events == ["a start", "a end"]
        assert caught.value.__notes__ == ["In Broken().forward, for an array of shape (1, 4)."]

    def test_a_start_that_fails_comes_before_the_first_step(self):
        trainer = trainer_of()
        with pytest.raises(ZeroDivisionError):
            trainer.fit(X, Y, callbacks=[Log("a", [], "start")], verbose=0)
        assert trainer.optimizer.t == 0

    @pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
    def test_what_the_trainer_offers(self, run):
        class Look(bp.Callback):
            def epoch(self, trainer, record):
                self.seen = trainer.net, trainer.loss

        look = Look()
        run([look])
        net, loss = look.seen
        assert isinstance(net, bp.Sequential)
        assert isinstance(loss, bp.LeastSquares)


class TestBestWeights:
    def fit(self, keeper, values, *layers):
        trainer, log = trainer_of(*layers), Log("", [])
        history = trainer.fit(X, Y, epochs=len(values), metrics=[scripted(*values)], callbacks=[log, keeper], verbose=0)
        assert len(history) == len(values)
        return trainer.net, log

    @pytest.mark.parametrize(("mode", "best"), [("min", 1), ("max", 2)])
    def test_restores_the_best_without_stopping(self, mode, best):
        values = [3, 1, 5, 4, 2, 4]
        keeper = bp.BestWeights("score", mode=mode)
        net, log = self.fit(keeper, values)
        assert (keeper.best, keeper.best_epoch) == (values[best], best + 1)
        assert_array_equal(net.phi, log.phi[best])
        assert not np.array_equal(log.phi[best], log.phi[-1])

    def test_restores_running_statistics(self):
        net, log = self.fit(bp.BestWeights("score"), [2, 1, 3], bp.BatchNorm(1))
        for name, buffer in net.buffers.items():
            assert_array_equal(buffer, log.buffers[1][name])
            assert not np.array_equal(buffer, log.buffers[2][name])

    def test_nan_is_never_the_best(self):
        net, log = self.fit(bp.BestWeights("score"), [math.nan, 2, math.nan])
        assert_array_equal(net.phi, log.phi[1])

    def test_leaves_weights_of_which_none_was_best(self):
        net, log = self.fit(bp.BestWeights("score"), [math.nan, math.nan])
        assert_array_equal(net.phi, log.phi[-1])

    def test_restores_them_after_an_error_and_says_so(self):
        trainer, log = trainer_of(), Log("", [])
        with pytest.raises(RuntimeError, match="StopIteration") as caught:
            trainer.fit(X, Y, epochs=9, metrics=[scripted(1, 2)], callbacks=[log, bp.BestWeights("score")], verbose=0)
        assert_array_equal(trainer.net.phi, log.phi[0])
        assert "changed the weights" in caught.value.__notes__[0]

    def test_in_minimize(self):
        log, keeper = Log("", []), bp.BestWeights("gradient_norm", mode="max")
        net = trainer_of().net
        bp.minimize(net, bp.LeastSquares(), X, Y, callbacks=[log, keeper], verbose=0)
        assert len(log.phi) > keeper.best_epoch
        assert_array_equal(net.phi, log.phi[keeper.best_epoch - 1])

    def test_monitors_the_validation_loss_where_there_is_one(self):
        keeper = bp.BestWeights()
        history = trainer_of().fit(X, Y, epochs=4, validation_data=(X, -Y), callbacks=[keeper], verbose=0)
        assert keeper.best == min(history["validation_loss"])
        assert keeper.best != min(history["loss"])

    def test_is_what_early_stopping_has_patience_with(self):
        assert issubclass(bp.EarlyStopping, bp.BestWeights)

    @pytest.mark.parametrize("kind", ["BestWeights", "EarlyStopping"])
    def test_errors_bear_the_right_name(self, kind):
        make = getattr(bp, kind)
        assert_refused(lambda: make(mode="low"), ValueError, kind, "'min', 'max'")
        call = lambda: trainer_of().fit(X, Y, callbacks=[make("auc")], verbose=0)  # noqa: E731
        assert_refused(call, ValueError, kind, "'loss'", "'auc'")


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


FILES = {"CSVLogger": (bp.CSVLogger, read_csv), "JSONLLogger": (bp.JSONLLogger, read_jsonl)}
each_file = pytest.mark.parametrize(("make", "read"), FILES.values(), ids=FILES)


class TestFiles:
    @each_file
    def test_a_line_per_epoch_with_numbers_that_read_back(self, make, read, tmp_path):
        path = tmp_path / "log"
        history = trainer_of().fit(
            X, Y, epochs=3, validation_data=(X, Y), metrics=["r2"], callbacks=[make(path)], verbose=0
        )
        found = read(path)
        assert len(found) == 3
        for row, record in zip(found, history, strict=True):
            assert list(row) == history.names()
            assert {name: float(value) for name, value in row.items()} == record.flat()
        assert path.read_bytes().endswith(b"\n")
        assert b"\r" not in path.read_bytes()

    @each_file
    def test_in_minimize(self, make, read, tmp_path):
        history = minimize(callbacks=[make(tmp_path / "log")])
        assert [float(row["objective"]) for row in read(tmp_path / "log")] == history["objective"]

    @each_file
    def test_can_be_read_while_training_runs(self, make, read, tmp_path):
        class Reader(bp.Callback):
            def epoch(self, trainer, record):
                lines.append(len(read(tmp_path / "log")))

        lines = []
        trainer_of().fit(X, Y, epochs=3, callbacks=[make(tmp_path / "log"), Reader()], verbose=0)
        assert lines == [1, 2, 3]

    @each_file
    def test_a_file_that_holds_something_is_left_alone(self, make, read, tmp_path):
        path = tmp_path / "log"
        path.write_text("precious\n")
        trainer = trainer_of()
        call = lambda: trainer.fit(X, Y, callbacks=[make(path)], verbose=0)  # noqa: E731
        assert_refused(call, FileExistsError, make.__name__, "append=True", "overwrite=True", str(path))
        assert path.read_text() == "precious\n"
        assert trainer.optimizer.t == 0

    @each_file
    def test_overwrite(self, make, read, tmp_path):
        path = tmp_path / "log"
        path.write_text("worthless\n")
        trainer, logger = trainer_of(), make(path, overwrite=True)
        for _ in range(2):  # the second goes on in what is now its own file
            trainer.fit(X, Y, epochs=2, callbacks=[logger], verbose=0)
        assert [float(row["epoch"]) for row in read(path)] == [1, 2, 3, 4]

    @each_file
    @pytest.mark.parametrize("there", [None, "", "a run before"])
    def test_append(self, make, read, there, tmp_path):
        path = tmp_path / "log"
        trainer = trainer_of()
        if there == "":
            path.touch()
        elif there:
            trainer.fit(X, Y, epochs=2, callbacks=[make(path)], verbose=0)
        trainer.fit(X, Y, epochs=2, callbacks=[make(path, append=True)], verbose=0)
        assert [float(row["epoch"]) for row in read(path)] == [1, 2, 3, 4][: 4 if there else 2]

    @each_file
    def test_a_second_fit_goes_on(self, make, read, tmp_path):
        trainer, logger = trainer_of(), make(tmp_path / "log")
        for _ in range(3):
            trainer.fit(X, Y, epochs=1, callbacks=[logger], verbose=0)
            copy.deepcopy(logger)  # no open file is kept between two fits
        assert [float(row["epoch"]) for row in read(tmp_path / "log")] == [1, 2, 3]

    @each_file
    def test_a_line_cut_off_is_not_written_to(self, make, read, tmp_path):
        path = tmp_path / "log"
        path.write_text("epoch,loss\n1,0.")
        call = lambda: trainer_of().fit(X, Y, callbacks=[make(path, append=True)], verbose=0)  # noqa: E731
        assert_refused(call, ValueError, make.__name__, "whole lines", "Remove that line")
        assert path.read_text() == "epoch,loss\n1,0."

    @each_file
    @pytest.mark.parametrize("value", [math.nan, math.inf, 1e-310, 0.1 + 0.2], ids=str)
    def test_numbers_that_are_hard_to_write(self, make, read, value, tmp_path):
        trainer_of().fit(X, Y, epochs=1, metrics=[scripted(value)], callbacks=[make(tmp_path / "log")], verbose=0)
        (row,) = read(tmp_path / "log")
        if make is bp.JSONLLogger and not math.isfinite(value):
            assert row["score"] is None
        else:
            assert_array_equal(float(row["score"]), value)

    @each_file
    def test_names_that_are_hard_to_write(self, make, read, tmp_path):
        score = scripted(1.0)
        score.__name__ = 'a "β", of\nmine'
        logger = make(tmp_path / "log")
        trainer_of().fit(X, Y, epochs=1, metrics=[score], callbacks=[logger], verbose=0)
        score = scripted(2.0)
        score.__name__ = 'a "β", of\nmine'
        trainer_of().fit(X, Y, epochs=1, metrics=[score], callbacks=[logger], verbose=0)
        assert [float(row['a "β", of\nmine']) for row in read(tmp_path / "log")] == [1, 2]

    @each_file
    def test_a_folder_that_is_not_there(self, make, read, tmp_path):
        trainer = trainer_of()
        with pytest.raises(FileNotFoundError):
            trainer.fit(X, Y, callbacks=[make(tmp_path / "nowhere" / "log")], verbose=0)
        assert trainer.optimizer.t == 0

    @each_file
    def test_ctrl_c_leaves_whole_lines(self, make, read, tmp_path):
        """Ctrl-C at any moment, between the callbacks too, in a process of its own."""
        program = f"""if True:
            import threading, os, signal, numpy as np, backprop as bp
            class Soon(bp.Callback):
                def epoch(self, trainer, record):
                    if record.epoch == 1:
                        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
            X = np.linspace(-1, 1, 12).reshape(-1, 1)
            trainer = bp.Trainer(bp.Sequential(bp.Linear(1, 1), seed=0), bp.LeastSquares(), bp.SGD(0.1))
            callbacks = [Soon(), bp.{make.__name__}({str(tmp_path / "log")!r})]
            history = trainer.fit(X, X[:, 0], epochs=10**7, callbacks=callbacks, verbose=0)
            assert history.stopped == "Ctrl-C"
            print(len(history))
        """
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
        found = read(tmp_path / "log")
        assert [float(row["epoch"]) for row in found] == list(range(1, len(found) + 1))
        assert int(run.stdout) - len(found) in (0, 1)
        assert (tmp_path / "log").read_bytes().endswith(b"\n")

    @each_file
    def test_settings(self, make, read):
        name = make.__name__
        assert_refused(lambda: make(3), TypeError, name, "path")
        assert_refused(lambda: make("log", append=1), TypeError, name, "append")
        assert_refused(lambda: make("log", overwrite="yes"), TypeError, name, "overwrite")
        assert_refused(lambda: make("log", append=True, overwrite=True), ValueError, name, "both")

    def test_columns_of_a_csv_file_stay(self, tmp_path):
        trainer, logger = trainer_of(), bp.CSVLogger(tmp_path / "log")
        trainer.fit(X, Y, epochs=1, metrics=["r2"], callbacks=[logger], verbose=0)
        trainer.fit(X, Y, epochs=1, callbacks=[logger], verbose=0)
        assert [row["r2"] == "" for row in read_csv(tmp_path / "log")] == [False, True]
        call = lambda: trainer.fit(X, Y, metrics=[scripted(1.0)], callbacks=[logger], verbose=0)  # noqa: E731
        assert_refused(call, ValueError, "CSVLogger", "'score'", "'r2'", "JSONLLogger")
        assert len(read_csv(tmp_path / "log")) == 2

    def test_lines_of_a_jsonl_file_may_differ(self, tmp_path):
        trainer, logger = trainer_of(), bp.JSONLLogger(tmp_path / "log")
        trainer.fit(X, Y, epochs=1, callbacks=[logger], verbose=0)
        trainer.fit(X, Y, epochs=1, metrics=["r2"], callbacks=[logger], verbose=0)
        assert ["r2" in row for row in read_jsonl(tmp_path / "log")] == [False, True]

    def test_pandas_reads_them(self, tmp_path):
        pandas = pytest.importorskip("pandas")
        loggers = [bp.CSVLogger(tmp_path / "log.csv"), bp.JSONLLogger(tmp_path / "log.jsonl")]
        history = trainer_of().fit(X, Y, epochs=3, metrics=[scripted(1, math.nan, 2)], callbacks=loggers, verbose=0)
        for frame in (
            pandas.read_csv(tmp_path / "log.csv"),
            pandas.read_json(tmp_path / "log.jsonl", lines=True, precise_float=True),
        ):
            assert_allclose(frame["loss"], history["loss"], rtol=1e-12)
            assert_array_equal(frame["score"], history["score"])
            assert list(frame.columns) == history.names()


class Writer:
    """Stands for `SummaryWriter`."""

    made: list[Writer] = []  # noqa: RUF012

    def __init__(self, log_dir):
        self.log_dir, self.scalars, self.closed = log_dir, {}, False
        self.made.append(self)

    def add_scalar(self, name, value, step):
        self.scalars.setdefault(name, []).append((step, value))

    def flush(self):
        pass

    def close(self):
        self.closed = True


class MLflow(types.ModuleType):
    """Stands for `mlflow`: one run at a time, by number."""

    def __init__(self):
        super().__init__("mlflow")
        self.active, self.runs, self.ended = None, {}, []

    def active_run(self):
        return self.active

    def start_run(self, run_id=None, run_name=None):
        run_id = run_id or f"run {len(self.runs) + 1}"
        self.runs.setdefault(run_id, {"name": run_name})
        self.active = types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id))
        return self.active

    def log_metrics(self, metrics, step):
        self.runs[self.active.info.run_id][step] = metrics

    def end_run(self):
        self.ended.append(self.active.info.run_id)
        self.active = None


class TestBridges:
    @pytest.mark.parametrize("module", ["torch.utils.tensorboard", "tensorboardX"])
    def test_tensorboard(self, module, monkeypatch, tmp_path):
        for name in ("torch", "torch.utils", "torch.utils.tensorboard", "tensorboardX"):
            monkeypatch.setitem(sys.modules, name, None)
        parts = module.split(".")
        for n in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:n]), types.ModuleType(".".join(parts[:n])))
        sys.modules[module].SummaryWriter = Writer
        monkeypatch.setattr(Writer, "made", [])
        logger, trainer = bp.TensorBoardLogger(tmp_path / "runs"), trainer_of()
        histories = [
            trainer.fit(X, Y, epochs=2, validation_data=(X, Y), callbacks=[logger], verbose=0) for _ in range(2)
        ]
        copy.deepcopy(logger)
        for writer, history in zip(Writer.made, histories, strict=True):
            assert writer.log_dir == str(tmp_path / "runs")
            assert writer.closed
            assert list(writer.scalars) == history.names()[1:]
            assert writer.scalars["validation_loss"] == list(
                zip(history["epoch"], history["validation_loss"], strict=True)
            )

    def test_mlflow_with_a_run_of_its_own(self, monkeypatch):
        mlflow = MLflow()
        monkeypatch.setitem(sys.modules, "mlflow", mlflow)
        logger, trainer = bp.MLflowLogger("mine"), trainer_of()
        for _ in range(2):
            history = trainer.fit(X, Y, epochs=2, callbacks=[logger], verbose=0)
        assert logger.run_id == "run 1"
        assert mlflow.ended == ["run 1", "run 1"]
        assert list(mlflow.runs["run 1"]) == ["name", 1, 2, 3, 4]
        assert mlflow.runs["run 1"]["name"] == "mine"
        assert mlflow.runs["run 1"][4]["loss"] == history["loss"][-1]

    def test_mlflow_in_the_run_at_hand(self, monkeypatch):
        mlflow = MLflow()
        monkeypatch.setitem(sys.modules, "mlflow", mlflow)
        mlflow.start_run()
        trainer_of().fit(X, Y, epochs=2, callbacks=[bp.MLflowLogger()], verbose=0)
        assert list(mlflow.runs) == ["run 1"]
        assert list(mlflow.runs["run 1"]) == ["name", 1, 2]
        assert mlflow.ended == []

    @pytest.mark.parametrize(
        ("make", "extra"),
        [(lambda: bp.TensorBoardLogger("runs"), "tensorboard"), (lambda: bp.MLflowLogger(), "mlflow")],
        ids=["TensorBoardLogger", "MLflowLogger"],
    )
    def test_what_is_missing_is_named(self, make, extra, monkeypatch):
        for name in ("torch.utils.tensorboard", "tensorboardX", "mlflow"):
            monkeypatch.setitem(sys.modules, name, None)
        trainer = trainer_of()
        with pytest.raises(ImportError, match=rf"backprop-mlp\[{extra}\]"):
            trainer.fit(X, Y, callbacks=[make()], verbose=0)
        assert trainer.optimizer.t == 0


def test_ctrl_c_in_an_epoch_of_a_callback_ends_the_others():
    class Impatient(bp.Callback):
        def epoch(self, trainer, record):
            os.kill(os.getpid(), signal.SIGINT)

    events = []
    history = trainer_of().fit(X, Y, epochs=3, callbacks=[Impatient(), Log("a", events)], verbose=0)
    assert history.stopped == "Ctrl-C"
    assert events[-1] == "a end"
