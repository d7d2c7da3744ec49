"""Rows from disk: folders of Parquet files, and the streams and windows in which training reads them."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from test_bad_input import assert_refused
from test_cli import run, succeeds

import backprop as bp
from backprop.training.rows import Source, Streamed

pytestmark = pytest.mark.filterwarnings("ignore::backprop.TrainingAdvice")

THOROUGH = bool(os.environ.get("BACKPROP_ROWS"))


class InMemory:
    """A source of rows (i, i) with targets i, in row groups of these sizes; remembers which rows were decoded."""

    target, feature_names, piece_bytes, dtype = "y", ["a", "b"], 1 << 30, np.dtype(np.float32)

    def __init__(self, sizes):
        self.starts = np.cumsum([0, *sizes])
        self.shape = (int(self.starts[-1]), 2)
        self.decoded = []

    def __getitem__(self, rows):
        return np.arange(self.shape[0], dtype=np.float32)[rows, None].repeat(2, axis=1)

    def targets(self):
        return np.arange(self.shape[0], dtype=float)

    def blocks(self, start, stop):
        self.decoded += range(start, stop)
        for columns in (slice(0, 1), slice(1, 2), None):
            for first in range(start, stop, 3):
                rows = np.arange(first, min(stop, first + 3))
                yield first, columns, rows.astype(float) if columns is None else rows.astype(np.float32)[:, None]

    def fingerprint(self):
        return {"sizes": np.diff(self.starts).tolist()}

    def in_order(self):
        return ""

    def require_digits(self, who, dtype):
        pass


def examples(source, shards="auto"):
    net = bp.Sequential(bp.Linear(2, 1), seed=0)
    return Streamed("test", net, bp.LeastSquares(), source, None, None, shards)


def batches(of, key, batch_size, start=0, in_order=False):
    """The rows of each batch, by what X, y and ids say of them."""
    order = of.order(*key, batch_size, in_order)
    found = []
    for at in range(start, of.n, batch_size):
        places = order[at : at + batch_size]
        rows = of.ids[places]
        assert_array_equal(of.X[places], rows[:, None].repeat(2, axis=1))
        assert_array_equal(of.y[places, 0], rows)
        found.append(rows)
    return found


@st.composite
def epochs(draw):
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=12))
    return {
        "sizes": sizes,
        "batch_size": draw(st.integers(1, sum(sizes))),
        "shards": draw(st.sampled_from(["auto", 1, 2, 3, 5, 8, 32])),
        "most": draw(st.integers(1, 80)),
        "places": draw(st.integers(1, 20)),
    }


@pytest.fixture
def small(monkeypatch):
    def set_to(most, places=16):
        monkeypatch.setattr("backprop.training.rows.MOST_ROWS", most)
        monkeypatch.setattr("backprop.training.streams.PLACES", places)

    return set_to


class TestOrder:
    @given(epochs(), st.data())
    def test_every_row_once_in_an_order_of_seed_and_epoch_alone(self, case, data):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("backprop.training.rows.MOST_ROWS", case["most"])
            patch.setattr("backprop.training.streams.PLACES", case["places"])
            source, size = InMemory(case["sizes"]), case["batch_size"]
            of = examples(source, case["shards"])
            source.decoded.clear()
            found = batches(of, (3, 0), size)
            assert_array_equal(np.sort(np.concatenate(found)), np.arange(of.n))
            assert sorted(source.decoded) == list(range(of.n))  # once, too
            assert [len(batch) for batch in found] == [min(size, of.n - at) for at in range(0, of.n, size)]
            batches(of, (3, 1), size)
            again = examples(InMemory(case["sizes"]), case["shards"])
            batches(again, (4, 7), size)
            start = data.draw(st.integers(0, len(found) - 1))  # from the middle, as after `resume`
            for one, other in zip(found[start:], batches(again, (3, 0), size, start * size), strict=True):
                assert_array_equal(one, other)

    @given(epochs())
    def test_in_order_it_is_that_of_the_file(self, case):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("backprop.training.rows.MOST_ROWS", case["most"])
            found = batches(examples(InMemory(case["sizes"]), case["shards"]), (3, 0), case["batch_size"], 0, True)
            assert_array_equal(np.concatenate(found), np.arange(sum(case["sizes"])))

    def test_several_batches_at_once_are_those_one_by_one(self, small):
        small(20, 4)
        one, many = examples(InMemory([7] * 20), 3), examples(InMemory([7] * 20), 3)
        expected = np.concatenate(batches(one, (0, 0), 8))
        order = many.order(0, 0, 8)

        def rows(start, stop):
            places = order[start:stop]
            return many.ids[places]

        assert_array_equal(np.concatenate([rows(at, at + 24) for at in range(0, 140, 24)]), expected)
        assert_array_equal(rows(30, 50), expected[30:50])

    @pytest.mark.parametrize("shards", [2, 4, 5])
    def test_a_shard_takes_rows_of_its_own_stream(self, shards, small):
        """The rows of a shard are a share of the line: they come from neighboring row groups, and no other shard reads them."""
        small(64)
        sizes, size = [10] * 40, 30
        of = examples(InMemory(sizes), shards)
        found = batches(of, (1, 0), size)
        cuts = [np.linspace(0, len(batch), shards + 1).astype(int) for batch in found]
        line = np.argsort(np.random.default_rng([1, 0]).permutation(len(sizes)))  # the place of each row group in it
        ends = []
        for s in range(shards):
            mine = np.concatenate([batch[cut[s] : cut[s + 1]] for batch, cut in zip(found, cuts, strict=True)])
            places = line[mine // 10]
            assert len(np.unique(places)) <= -(-len(mine) // 10) + 1
            ends.append((places.min(), places.max()))
        assert all(before[1] <= after[0] for before, after in pairwise(ends))

    def test_windows_mix_what_lies_apart(self, small):
        """From row groups as long as four windows, a batch has rows of nearly all of 16 groups."""
        small(160)
        found = batches(examples(InMemory([40] * 16)), (0, 0), 64)
        for batch in found:
            assert len(np.unique(batch // 40)) > 12

    def test_epochs_differ(self, small):
        small(20)
        of = examples(InMemory([9] * 9))
        first, second = (np.concatenate(batches(of, (0, epoch), 4)) for epoch in (0, 1))
        assert not np.array_equal(first, second)

    def test_nothing_is_left_open(self, small, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        small(8)
        of = examples(InMemory([50] * 5))
        gc.collect()
        before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
        order = of.order(0, 0, 4)
        order[:4]
        assert sys.platform != "linux" or len(os.listdir("/proc/self/fd")) > before  # row groups wait in files
        del of, order
        gc.collect()
        assert sys.platform != "linux" or len(os.listdir("/proc/self/fd")) == before
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("k", range(1, 12))
    def test_an_error_while_rows_are_read_leaves_no_half_of_a_window(self, small, k):
        small(30, 4)
        source, plain = InMemory([9] * 9), batches(examples(InMemory([9] * 9)), (0, 0), 4)
        of, calls, blocks = examples(source), [], source.blocks

        def broken(start, stop):
            calls.append(start)
            if len(calls) == k:
                raise KeyboardInterrupt
            return blocks(start, stop)

        source.blocks = broken
        for _ in range(3):
            try:
                found = batches(of, (0, 0), 4)
            except KeyboardInterrupt:
                continue
        for one, other in zip(found, plain, strict=True):
            assert_array_equal(one, other)

    def test_a_full_disk_says_where_rows_wait(self, small, monkeypatch):
        class Full:
            def __init__(self, room):
                self.close = self.tell = lambda: 0

            def write(self, data):
                raise OSError(28, "No space left on device")

        small(8)
        monkeypatch.setattr("backprop.training.streams.SpooledTemporaryFile", Full)
        with pytest.raises(OSError, match="No space left") as caught:
            batches(examples(InMemory([50] * 5)), (0, 0), 4)
        assert "TMPDIR" in caught.value.__notes__[0]


def numbers(n=600, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4)).astype(np.float32)
    return X, (X @ [1, -1, 0.5, 0] > 0).astype(int)


def write(folder, X, y, files=3, group=37, **more):
    folder.mkdir(exist_ok=True)
    for i, rows in enumerate(np.array_split(np.arange(len(X)), files)):
        columns = {f"x{j}": X[rows, j] for j in range(X.shape[1])} | {"y": y[rows]}
        columns |= {name: values[rows] for name, values in more.items()}
        pq.write_table(pa.table(columns), folder / f"{i}.parquet", row_group_size=group)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "rows", *numbers())


class TestFolder:
    def test_is_one_table(self, folder):
        X, y = numbers()
        rows = bp.ParquetRows(folder, target="y")
        assert isinstance(rows, Source)
        assert (rows.shape, rows.feature_names) == ((600, 4), ["x0", "x1", "x2", "x3"])
        assert_array_equal(rows[:], X)
        assert_array_equal(rows[150:457], X[150:457])
        assert_array_equal(rows.targets(), y)

    def test_only_footers_are_read_at_first(self, folder, monkeypatch):
        monkeypatch.setattr("backprop.tables.footers.Footers.batches", lambda *_: pytest.fail("data are read"))
        rows = bp.ParquetRows(folder, target="y")
        rows.fingerprint()
        assert rows.in_order() == ""

    def test_what_stands_beside_is_left_out(self, folder):
        for name in ("_SUCCESS", ".hidden.parquet", "notes.txt"):
            (folder / name).write_text("no table")
        assert len(bp.ParquetRows(folder)) == 600

    def test_what_pandas_calls_an_index_is_no_column(self, tmp_path):
        frame = pd.DataFrame({"a": [1.0, 2, 3], "y": [0.0, 1, 2]})
        frame.sample(frac=1, random_state=0).to_parquet(tmp_path / "a.parquet")
        frame.set_index(pd.Index([5, 9, 7], name="id")).to_parquet(tmp_path / "b.parquet")
        frame.to_parquet(tmp_path / "c.parquet")
        for name in "abc":
            assert bp.ParquetRows(tmp_path / f"{name}.parquet", target="y").feature_names == ["a"]
        assert bp.ParquetRows(tmp_path / "b.parquet", ["id"]).feature_names == ["id"]  # where it is asked for

    def test_through_a_table(self, tmp_path):
        X, _y = numbers()
        towns = np.random.default_rng(0).choice(["Ulm", "Bonn"], 600)
        path = write(tmp_path / "rows", X, towns, town=towns)
        table = bp.Table("y")
        expected, labels = table.fit(pq.read_table(path))
        rows = bp.ParquetRows(path, table=table, target="y")
        assert_array_equal(rows[:], expected)
        assert_array_equal(rows.targets(), labels)
        assert_refused(lambda: bp.ParquetRows(path, table=table, target="x0"), ValueError, "'y'", "'x0'")

    @pytest.mark.parametrize(
        ("change", "settings", "error", "parts"),
        [
            (lambda f: [p.unlink() for p in f.iterdir()], {}, ValueError, ["rows", "empty"]),
            (lambda f: [p.rename(p.with_suffix(".csv")) for p in f.iterdir()], {}, ValueError, [".parquet", "'0.csv'"]),
            (lambda f: (f / "year=2020").mkdir(), {}, ValueError, ["'year=2020'", "side by side"]),
            (lambda f: (f / "9.parquet").write_text("a,b"), {}, ValueError, ["9.parquet", "a Parquet file"]),
            (
                lambda f: write(f, numbers(9)[0][:, :3], numbers(9)[1], 1),
                {},
                ValueError,
                ["1.parquet", "no such column"],
            ),
            (lambda f: write(f, *numbers(9), 1, z=np.zeros(9)), {}, ValueError, ["1.parquet", "'z'"]),
            (
                lambda f: write(f, numbers(9)[0].astype(float), numbers(9)[1], 1),
                {},
                ValueError,
                ["'x0'", "float", "double"],
            ),
            (None, {"target": "z"}, ValueError, ["'z'", "'x0'"]),
            (None, {"target": 3}, TypeError, ["target", "3"]),
            (None, {"target": "y", "columns": ["x0", "y"]}, ValueError, ["without the target 'y'"]),
        ],
        ids=range(10),
    )
    def test_refused(self, folder, change, settings, error, parts):
        if change:
            change(folder)
        assert_refused(lambda: bp.ParquetRows(folder, **settings), error, "ParquetRows", *parts)

    def test_words_as_target_need_a_table(self, tmp_path):
        path = write(tmp_path / "rows", numbers()[0], np.array(["a"] * 600))
        assert_refused(lambda: bp.ParquetRows(path, target="y"), TypeError, "'y'", "table")

    def test_a_file_that_changes_later_is_refused(self, folder):
        rows = bp.ParquetRows(folder, target="y")
        write(folder, *numbers(590))
        assert_refused(lambda: rows[:], ValueError, "changed")

    def test_fingerprint_is_of_names_and_footers(self, folder, tmp_path):
        def found(path=folder, **settings):
            return bp.ParquetRows(path, **{"target": "y", **settings}).fingerprint()

        first = found()
        json.dumps(first)
        assert found() == found(write(tmp_path / "same", *numbers())) == first
        assert found(["x0"] and folder, columns=["x0"]) != first
        assert found(write(tmp_path / "other", *numbers(seed=1))) != first
        assert found(target=None, columns=["x0", "x1", "x2", "x3"]) != first
        (folder / "0.parquet").rename(folder / "7.parquet")  # which makes another order of the rows
        assert found() != first


class TestDigits:
    """What float32 cannot tell apart is refused where it would be lost."""

    SECONDS = 1_700_000_000 + np.arange(400)

    def path(self, tmp_path, x):
        pq.write_table(pa.table({"t": x, "y": np.zeros(len(x))}), tmp_path / "t.parquet", row_group_size=100)
        return tmp_path / "t.parquet"

    @pytest.mark.parametrize(
        ("x", "parts"),
        [
            (SECONDS, ["'t'", "4 values of 400", "float64"]),
            (SECONDS.astype(float), ["'t'", "4 values between"]),
            (np.arange(100, dtype=np.int64) * 10**12, ["'t'", "values of"]),
        ],
        ids=["whole seconds", "seconds", "ids"],
    )
    def test_refused_in_float32(self, tmp_path, x, parts):
        path = self.path(tmp_path, x)
        assert_refused(lambda: bp.ParquetRows(path, target="y"), ValueError, "ParquetRows", *parts)
        rows = bp.ParquetRows(path, target="y", dtype="float64")
        assert len(np.unique(rows[:])) == len(x)
        trainer = bp.Trainer(bp.Sequential(bp.Linear(1, 1), seed=0), bp.LeastSquares(), bp.SGD(0.1))
        assert_refused(lambda: trainer.fit(rows, verbose=0), ValueError, "Trainer", *parts)
        table = bp.Table("y")
        with pytest.warns(UserWarning, match="hold one value"):
            table.fit(pd.DataFrame({"t": x, "z": 0.0, "y": np.arange(len(x))}).drop(columns="z").assign(y=1.0, u=0))
        assert path.exists()

    @pytest.mark.parametrize(
        "x",
        [
            np.arange(400),
            2**24 - np.arange(400),
            np.linspace(1e6, 2e6, 400),
            np.full(400, 1.7e9),
            np.arange(400) % 2 > 0,
        ],
        ids=["small", "at the limit", "wide", "constant", "booleans"],
    )
    def test_kept(self, tmp_path, x):
        assert bp.ParquetRows(self.path(tmp_path, x), target="y").shape == (400, 1)

    def test_a_table_scales_before(self, tmp_path):
        path = self.path(tmp_path, self.SECONDS)
        table = bp.Table()
        table.fit(pq.read_table(path, columns=["t"]))
        assert len(np.unique(bp.ParquetRows(path, table=table)[:])) == 400


def trainer_of(outputs=1, loss=None, dtype="float32", **settings):
    net = bp.Sequential(bp.Linear(4, 8), bp.Tanh(), bp.Linear(8, outputs), seed=0, dtype=dtype)
    return bp.Trainer(net, loss or bp.LeastSquares(), bp.Adam(0.01), **{"batch_size": 32, "seed": 3, **settings})


class Stop(bp.Callback):
    def __init__(self, k):
        self.k = k

    def step(self, trainer):
        if trainer.optimizer.t == self.k:
            os.kill(os.getpid(), signal.SIGINT)


class TestTraining:
    def test_the_full_batch_and_the_order_of_the_file_are_those_of_an_array(self, folder):
        X, y = numbers()
        rows = bp.ParquetRows(folder, target="y")
        for settings in ({"batch_size": "full"}, {"batch_size": 50, "shuffle": False}, {"batch_size": 10**6}):
            results = []
            for data in ((X, y), (rows,), (bp.ParquetRows(folder, [f"x{j}" for j in range(4)]), y)):
                trainer = trainer_of(**settings)
                history = trainer.fit(*data, epochs=3, verbose=0)
                results.append((trainer.net.phi, history["loss"]))
            for phi, losses in results[1:]:
                assert_array_equal(phi, results[0][0])
                assert losses == results[0][1]

    def test_learns_as_from_an_array(self, folder, small):
        small(100)
        X, y = numbers()
        rows = bp.ParquetRows(folder, target="y")
        found = []
        for data in ((X, y), (rows,)):
            trainer = trainer_of(2, bp.CrossEntropy())
            trainer.fit(*data, epochs=8, verbose=0)
            found.append(trainer.evaluate(X, y)["accuracy"])
        assert abs(found[0] - found[1]) < 0.02
        assert trainer.evaluate(rows) == trainer.evaluate(X, y)
        assert trainer.evaluate(rows, metrics=["accuracy"])["accuracy"] == found[1]

    def test_metrics_and_validation_from_disk(self, folder, small):
        small(100)
        X, y = numbers()
        rows = bp.ParquetRows(folder, target="y")
        trainer = trainer_of(2, bp.CrossEntropy())
        history = trainer.fit(rows, epochs=2, validation_data=rows, metrics=["accuracy", "f1_macro"], verbose=0)
        assert history["accuracy"][-1] == history["validation_accuracy"][-1] == trainer.evaluate(X, y)["accuracy"]

    @pytest.mark.parametrize("given", ["target", "y", "weights"])
    @pytest.mark.parametrize("shards", ["auto", 3])
    def test_goes_on_within_an_epoch_with_the_same_bits(self, folder, tmp_path, small, shards, given):
        small(64)
        _X, y = numbers()
        w = np.random.default_rng(0).random(600) * (np.arange(600) % 5 > 0)
        data = (
            (bp.ParquetRows(folder, target="y"),)
            if given == "target"
            else (
                bp.ParquetRows(folder, ["x0", "x1", "x2", "x3"]),
                y.astype(float),
            )
        )
        more = {"sample_weight": w, "verbose": 0} if given == "weights" else {"verbose": 0}
        whole = trainer_of(shards=shards)
        history = whole.fit(*data, epochs=3, **more)
        for k in (1, 19, 30):
            trainer = trainer_of(shards=shards)
            first = trainer.fit(*data, until=3, callbacks=[Stop(k)], **more)
            assert first.stopped == "Ctrl-C"
            trainer.save(tmp_path / "run")
            again = bp.Trainer.resume(tmp_path / "run")
            second = again.fit(*data, until=3, **more)
            trainer.fit(*data, until=3, **more)  # in the same process
            assert_array_equal(again.net.phi, whole.net.phi)
            assert_array_equal(trainer.net.phi, whole.net.phi)
            assert first["loss"] + second["loss"] == history["loss"]

    @pytest.mark.parametrize("threads", [1, 2])
    def test_threads_change_no_bits(self, folder, small, threads):
        small(64)
        results = []
        for settings in ({"threads": threads}, {}):
            trainer = trainer_of(shards=4, deterministic=True, **settings)
            trainer.fit(bp.ParquetRows(folder, target="y"), epochs=2, verbose=0)
            results.append(trainer.net.phi)
        assert_array_equal(*results)

    def test_other_shards_begin_the_epoch_anew(self, folder, tmp_path, small):
        small(64)
        rows, trainer = bp.ParquetRows(folder, target="y"), trainer_of(shards=2)
        trainer.fit(rows, until=2, callbacks=[Stop(5)], verbose=0)
        trainer.save(tmp_path / "run")
        trainer.shards = 4
        seen = []
        trainer.after_step = [lambda: seen.append(trainer.position)]
        trainer.fit(rows, until=1, verbose=0)
        assert seen[0] == (0, 1)
        again = bp.Trainer.resume(tmp_path / "run")
        again.shards = 4
        assert_refused(
            lambda: again.fit(rows, verbose=0), ValueError, "for 2 shards", "for 4 shards", "other_data=True"
        )

    def test_files_of_earlier_versions_say_what_changed(self, folder, tmp_path):
        """Version 0.1 read blocks, and knew X by the SHA-256 of its numbers."""
        _X, y = numbers()
        rows, trainer = bp.ParquetRows(folder, ["x0", "x1", "x2", "x3"]), trainer_of()
        trainer._data = {
            "shape of X": [600, 4],
            "dtype of X": "float32",
            "way to read X": "in blocks of 37 rows",
            "SHA-256 of X": "0" * 64,
        }
        trainer._descent.position.batch = 3
        trainer.save(tmp_path / "run")
        again = bp.Trainer.resume(tmp_path / "run")
        fit = lambda: again.fit(rows, y, verbose=0)  # noqa: E731
        assert_refused(fit, ValueError, "in blocks of 37 rows, as in the file", "in windows of", "other_data=True")
        bp.Trainer.resume(tmp_path / "run", other_data=True).fit(rows, y, epochs=1, verbose=0)

    @pytest.mark.parametrize(
        ("column", "value", "loss", "parts"),
        [
            ("x2", np.nan, bp.LeastSquares(), ["'x2'", "missing", "row 437"]),
            ("y", np.nan, bp.LeastSquares(), ["'y'", "missing", "row 437"]),
            ("y", 2.0, bp.CrossEntropy(), ["'y' of row 437", "0 … 1", "2.0"]),
            ("y", -1.0, bp.Poisson(), ["'y' of row 437", "0 ≤ y", "-1"]),
            ("x1", 1e300, bp.LeastSquares(), ["'x1'", "row 437", "float32"]),
        ],
        ids=["nan", "nan as target", "label", "count", "too large"],
    )
    def test_a_row_that_cannot_be_used_is_named_and_nothing_has_changed(
        self, tmp_path, small, column, value, loss, parts
    ):
        small(64)
        X, y = numbers()
        columns = {f"x{j}": X[:, j].astype(float) for j in range(4)} | {"y": y.astype(float)}
        columns[column][437] = value
        pq.write_table(pa.table(columns), tmp_path / "rows.parquet", row_group_size=50)
        trainer = trainer_of(2 if loss.takes_labels else 1, loss)
        rows = bp.ParquetRows(tmp_path / "rows.parquet", target="y", dtype="float64")
        before = trainer.net.phi.copy()
        assert_refused(lambda: trainer.fit(rows, verbose=0), ValueError, *parts)
        assert_array_equal(trainer.net.phi, before)
        assert (trainer.position, trainer.optimizer.t) == ((0, 0), 0)

    def test_targets_are_either_given_or_among_the_columns(self, folder):
        rows, y = bp.ParquetRows(folder, target="y"), numbers()[1]
        trainer = trainer_of()
        assert_refused(lambda: trainer.fit(rows, y), ValueError, "Trainer", "either", "both")
        assert_refused(lambda: trainer.fit(bp.ParquetRows(folder, ["x0", "x1", "x2", "x3"])), TypeError, "target=")
        assert_refused(lambda: trainer.fit(numbers()[0]), TypeError, "Trainer", "y", "None")
        assert_refused(lambda: trainer.evaluate(numbers()[0]), TypeError, "Trainer", "y", "None")
        assert_refused(lambda: trainer.evaluate(rows, y), ValueError, "Trainer", "either", "both")


class TestAdvice:
    """Rows that lie in an order are told of before the first step; those in none are not."""

    def told(self, path, **settings):
        with warnings.catch_warnings(record=True, action="always") as caught:
            trainer_of(batch_size=64).fit(bp.ParquetRows(path, target="y", **settings), epochs=1, verbose=0)
        return [str(each.message) for each in caught if "lie in an order" in str(each.message)]

    @pytest.mark.parametrize("by", ["y", "x1"])
    def test_sorted(self, tmp_path, by):
        X, y = numbers(2000)
        order = np.argsort(y if by == "y" else X[:, 1], kind="stable")
        (text,) = self.told(write(tmp_path / "rows", X[order], y[order], group=100))
        assert text.startswith(f"Trainer: the rows lie in an order. Column '{by}' is at most")
        assert "`backprop shuffle" in text

    def test_of_one_row_group_the_first_windows_say_it(self, tmp_path, small):
        small(1000)
        X, y = numbers(5000)
        order = np.argsort(X[:, 0] + 0.5 * X[:, 1])
        path = write(tmp_path / "rows", X[order], y[order], files=1, group=10_000)
        assert "Column 'y' is 0" in self.told(path)[0]
        assert "in the mean of some rows from row" in self.told(path)[0]

    @pytest.mark.parametrize("seed", range(30 if THOROUGH else 4))
    def test_in_no_order(self, tmp_path, seed, small):
        small(800)
        X, y = numbers(3000, seed)
        X[:, 3] = X[:, 3] ** 7 * 1e3  # with long tails
        X[:, 2] = np.random.default_rng(seed).random(3000) < 0.01  # rare
        assert self.told(write(tmp_path / "rows", X, y, group=60)) == []

    def test_arrays_are_never_told(self):
        X, y = numbers(2000)
        order = np.argsort(y, kind="stable")
        with warnings.catch_warnings(record=True, action="always") as caught:
            trainer_of().fit(X[order], y[order], epochs=1, verbose=0)
        assert not [each for each in caught if "order" in str(each.message)]


def ten_classes(n=12_000):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 10)).astype(np.float32)
    y = (X @ rng.standard_normal((10, 10)) + rng.standard_normal((n, 10))).argmax(1)
    return X, y


class TestShuffle:
    @pytest.mark.parametrize("out", ["mixed.parquet", "mixed"])
    def test_every_row_is_there_once_with_its_types(self, tmp_path, monkeypatch, out):
        monkeypatch.setattr("backprop.tables.shuffle.BUCKET", 1 << 14)
        monkeypatch.setattr("backprop.tables.shuffle.GROUP_ROWS", 100)
        frame = pd.DataFrame(
            {
                "i": np.arange(1000),
                "word": pd.Categorical(np.random.default_rng(0).choice(["x", "y", "zz"], 1000)),
                "hole": pd.array([None, 1] * 500, dtype="Int64"),
                "day": pd.date_range("2020", periods=1000),
                "list": [[1, 2], None] * 500,
                "text": [f"row {i}" for i in range(1000)],
            },
            index=np.arange(1000) * 3,
        )
        source = tmp_path / "in"
        source.mkdir()
        for i in range(4):
            part = frame[i * 250 : (i + 1) * 250]
            (part[frame.columns[::-1]] if i == 2 else part).to_parquet(source / f"{i}.parquet", row_group_size=70)
        said = succeeds("shuffle", str(source), str(tmp_path / out), "--json")
        assert json.loads(said.stdout) == {"out": str(tmp_path / out), "rows": 1000}
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in", out]
        found = pq.read_table(tmp_path / out)
        expected = pa.concat_tables(
            [pq.read_table(source / f"{i}.parquet").select(found.column_names) for i in range(4)]
        )
        assert found.schema.equals(expected.schema)
        order = found["i"].to_numpy()
        assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.15
        assert (order[:-1] < order[1:]).mean() < 0.6
        assert found.take(np.argsort(order)).to_pylist() == expected.to_pylist()
        succeeds("shuffle", str(source), str(tmp_path / f"again-{out}"))
        succeeds("shuffle", str(source), str(tmp_path / f"other-{out}"), "--seed", "1")
        files = lambda path: sorted(path.rglob("*.parquet")) if path.is_dir() else [path]  # noqa: E731
        bits = {
            name: [file.read_bytes() for file in files(tmp_path / f"{name}{out}")] for name in ("", "again-", "other-")
        }
        assert bits[""] == bits["again-"] != bits["other-"]

    def test_sorted_rows_then_train_as_well_as_a_full_permutation(self, tmp_path, small, monkeypatch):
        monkeypatch.setattr("backprop.tables.shuffle.GROUP_ROWS", 500)
        small(400, 1)
        X, y = ten_classes()
        test, (X, y) = (X[:2000], y[:2000]), (X[2000:], y[2000:])
        order = np.argsort(y, kind="stable")
        write(tmp_path / "sorted", X[order], y[order], files=1, group=5000)
        succeeds("shuffle", str(tmp_path / "sorted"), str(tmp_path / "mixed"))
        found = {}
        for name in ("array", "sorted", "mixed"):
            net = bp.Sequential(bp.Linear(10, 32), bp.ReLU(), bp.Linear(32, 10), seed=0)
            trainer = bp.Trainer(net, bp.CrossEntropy(), bp.Adam(0.003), batch_size=50)
            data = (X, y) if name == "array" else (bp.ParquetRows(tmp_path / name, target="y"),)
            trainer.fit(*data, epochs=6, verbose=0)
            found[name] = trainer.evaluate(*test)["accuracy"]
        assert found["array"] - found["sorted"] > 0.1
        assert abs(found["array"] - found["mixed"]) <= 0.01

    def test_what_is_there_is_never_touched(self, folder, tmp_path):
        for out in (tmp_path / "there.parquet", tmp_path / "there", folder):
            if out.suffix:
                out.write_text("kept")
            else:
                out.mkdir(exist_ok=True)
            before = sorted(tmp_path.rglob("*"))
            found = run("shuffle", str(folder), str(out))
            assert found.exit_code in (1, 2)
            assert len(found.stderr.splitlines()) <= 4
            assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize(
        ("arguments", "code", "part"),
        [
            (["nowhere", "out"], 1, "nowhere"),
            (["notes.txt", "out"], 1, "a Parquet file"),
            (["rows", "nowhere/out"], 1, "nowhere"),
            (["rows"], 2, "OUT"),
            (["rows", "out", "--seed", "-1"], 2, "--seed"),
        ],
        ids=str,
    )
    def test_refused_in_a_line(self, folder, tmp_path, monkeypatch, arguments, code, part):
        monkeypatch.chdir(tmp_path)
        Path("notes.txt").write_text("no table")
        found = run("shuffle", *arguments)
        assert found.exit_code == code
        assert part in found.stderr
        assert "Traceback" not in found.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "rows"]

    def test_an_error_on_the_way_leaves_nothing(self, folder, tmp_path, monkeypatch):
        from backprop.tables.shuffle import shuffle

        def stop(rows, of):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            shuffle(folder, tmp_path / "out", progress=stop)
        assert [path.name for path in tmp_path.iterdir()] == ["rows"]


class TestCommandLine:
    def test_a_folder_goes_where_a_file_goes(self, folder, tmp_path):
        model = str(tmp_path / "model.safetensors")
        succeeds("fit", str(folder), "--target", "y", "--task", "classification", "--epochs", "5", "--out", model)
        found = json.loads(succeeds("evaluate", model, str(folder), "--json").stdout)
        assert (found["rows"], found["accuracy"] > 0.9) == (600, True)
        assert len(succeeds("predict", model, str(folder)).stdout.splitlines()) == 601

    def test_the_index_of_pandas_is_no_feature(self, tmp_path):
        X, _y = numbers(100)
        frame = pd.DataFrame({"a": X[:, 0], "y": np.sort(X[:, 1])}).sample(frac=1, random_state=0)
        frame.to_parquet(tmp_path / "shuffled.parquet")
        said = succeeds(
            *("fit", str(tmp_path / "shuffled.parquet"), "--target", "y", "--epochs", "1", "--json"),
            *("--out", str(tmp_path / "model.safetensors")),
        )
        assert json.loads(said.stdout)["features"] == 1

    def test_a_folder_without_tables_is_told(self, tmp_path):
        found = run("fit", str(tmp_path), "--target", "y", "--out", str(tmp_path / "model.safetensors"))
        assert found.exit_code == 2
        assert "a folder of .parquet files" in found.stderr
        (tmp_path / "a.parquet").write_text("no table")
        found = run("fit", str(tmp_path), "--target", "y", "--out", str(tmp_path / "model.safetensors"))
        assert found.exit_code == 1
        assert "a.parquet" in found.stderr
        assert len(found.stderr.splitlines()) == 1


MEMORY = """
import sys
import backprop as bp

rows = bp.ParquetRows(sys.argv[1], target="y")
net = bp.Sequential(bp.Linear(rows.shape[1], 8), bp.ReLU(), bp.Linear(8, 1), seed=0)
trainer = bp.Trainer(net, bp.LeastSquares(), bp.Adam(1e-3), batch_size=1000, shards=eval(sys.argv[2]))
trainer.fit(rows, epochs=1, verbose=0)
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is one that Linux tells")
@pytest.mark.parametrize("group", [1 << 20 if THOROUGH else 1 << 17, 20_000], ids=["large row groups", "small ones"])
@pytest.mark.parametrize("shards", ["'auto'", "8"] if THOROUGH else ["8"])
def test_memory_does_not_grow_with_the_rows(group, shards, tmp_path):
    """BACKPROP_ROWS=1 compares 10⁶ rows of 20 columns with 10⁷; this is a tenth of it, with windows that are full in both."""
    (few, many), D = ((10**6, 10**7), 20) if THOROUGH else ((200_000, 700_000), 4)
    peaks = []
    for n in (few, many):
        schema = pa.schema([(name, pa.float32()) for name in [*(f"x{j}" for j in range(D)), "y"]])
        (tmp_path / str(n)).mkdir()
        with pq.ParquetWriter(tmp_path / str(n) / "rows.parquet", schema) as file:
            rng = np.random.default_rng(0)
            for start in range(0, n, group):
                columns = [rng.standard_normal(min(group, n - start), np.float32) for _ in schema]
                file.write_table(pa.table(columns, schema=schema), row_group_size=group)
        command = [sys.executable, "-W", "ignore", "-c", MEMORY, str(tmp_path / str(n)), shards]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(found.stdout) / 1024)
    assert peaks[1] - peaks[0] < 20, peaks  # MiB
