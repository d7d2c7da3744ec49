"""Data at the trainer's door: refused by name with nothing changed, or read block by block and never copied whole."""

from __future__ import annotations

import math
import threading
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from test_bad_input import ROWS, assert_refused

import backprop as bp

D, K, N = 3, 2, 5


def network(outputs=K, dtype="float32"):
    return bp.Sequential(bp.Linear(D, 4), bp.Tanh(), bp.Linear(4, outputs), seed=0, dtype=dtype)


class Untouched:
    """A trainer after a few steps, with a backward pending; `check` says whether anything has changed since."""

    def __init__(self, loss=None, outputs=K):
        loss = loss or bp.CrossEntropy()
        self.net = network(outputs)
        self.trainer = bp.Trainer(self.net, loss, bp.SGD(0.1, momentum=0.9), batch_size=2)
        labels = [0, 1, 0, 1, 0] if loss.takes_labels else np.zeros((N, outputs // loss.outputs_per_target))
        labels = np.ravel(labels) if np.size(labels) == N else labels
        self.trainer.fit(np.ones((N, D)), labels, epochs=1, verbose=0)
        self.f = self.net.forward(np.ones((D, 2)))
        self.before = self.state()

    def state(self):
        gradients = self.net.backward(self.f)[1].dL_dphi
        optimizer = self.trainer.optimizer
        return (
            [self.net.phi.copy(), gradients.copy(), optimizer.state["velocity"].copy()],
            [optimizer.t, self.trainer.epochs_done],
        )

    def check(self):
        arrays, counts = self.state()
        assert counts == self.before[1]
        for found, expected in zip(arrays, self.before[0], strict=True):
            assert_array_equal(found, expected)


GOOD = np.arange(N * D).reshape(N, D) / 10, np.array([0, 1, 0, 1, 1])
DOORS = {
    "fit": lambda trainer, X, y: trainer.fit(X, y, verbose=0),
    "epochs": lambda trainer, X, y: trainer.epochs(X, y, 1),
    "step": lambda trainer, X, y: trainer.step(X, y),
    "evaluate": lambda trainer, X, y: trainer.evaluate(X, y),
    "validation_data": lambda trainer, X, y: trainer.fit(*GOOD, validation_data=(X, y), verbose=0),
}


@pytest.mark.parametrize("door", DOORS)
class TestRefused:
    @pytest.mark.parametrize("bad", ROWS)
    def test_inputs(self, door, bad):
        X, error, parts = ROWS[bad]
        untouched = Untouched()
        assert_refused(lambda: DOORS[door](untouched.trainer, X, GOOD[1]), error, "Trainer", *parts)
        untouched.check()

    @pytest.mark.parametrize(
        ("make", "outputs", "y", "error", "parts"),
        [
            (bp.CrossEntropy, 2, [0, 1, 0, 1], ValueError, ["(5,)", "(4,)"]),
            (bp.CrossEntropy, 2, [0, 1, 2, 1, 0], ValueError, ["0 … 1", "2 at row 2"]),
            (bp.CrossEntropy, 2, [0, 1, -1, 1, 0], ValueError, ["0 … 1", "-1 at row 2"]),
            (bp.CrossEntropy, 2, [0, 1, 0.5, 1, 0], ValueError, ["0 … 1", "0.5 at row 2"]),
            (bp.CrossEntropy, 2, [[0], [1], [0], [1], [0]], ValueError, ["(5,)", "(5, 1)", "ravel"]),
            (bp.CrossEntropy, 2, np.eye(2)[[0, 1, 0, 1, 0]].T, ValueError, ["(5, 2)", "(2, 5)", "y.T"]),
            (bp.CrossEntropy, 2, list("abcab"), TypeError, ["Encode text", "<U1"]),
            (bp.CrossEntropy, 2, [0, 1, math.nan, 1, 0], ValueError, ["nan", "row 2"]),
            (bp.LeastSquares, 1, np.zeros((1, 5)), ValueError, ["(5,)", "(1, 5)"]),
            (bp.LeastSquares, 1, 0.0, ValueError, ["(5,)", "()"]),
            (bp.LeastSquares, 1, [0, 0, math.inf, 0, 0], ValueError, ["inf", "row 2"]),
            (bp.LeastSquares, 2, np.zeros(5), ValueError, ["(5, 2)", "(5,)"]),
            (bp.LeastSquares, 2, np.zeros((5, 3)), ValueError, ["(5, 2)", "(5, 3)"]),
            (bp.LeastSquares, 2, np.zeros((2, 5)), ValueError, ["(5, 2)", "(2, 5)", "y.T"]),
            (bp.LeastSquares, 2, np.zeros((4, 2)), ValueError, ["(5, 2)", "(4, 2)"]),
            (bp.LeastSquares, 2, [[0, 0]] * 3 + [[0, math.nan]] * 2, ValueError, ["nan", "row 3, column 1"]),
            (bp.LeastSquares, 2, np.zeros((5, 2), object), TypeError, ["numbers", "object"]),
            (bp.LeastSquares, 2, np.zeros((5, 2), complex), TypeError, ["real numbers", "complex"]),
            (bp.LeastSquares, 2, np.ma.masked_array(np.zeros((5, 2))), TypeError, ["masked"]),
            (bp.LeastSquares, 2, [], ValueError, ["at least one example"]),
            (bp.LeastSquares, 2, [[0, 1], [0]] * 2 + [[1, 1]], ValueError, ["unequal length"]),
            (bp.LeastSquares, 2, None, TypeError, ["numbers"]),
            (bp.LeastSquares, 2, [[0, 0]] * 4 + [[0, 1e300]], ValueError, ["1e+300", "row 4", "float32"]),
            (bp.GaussianNLL, 2, np.zeros((5, 2)), ValueError, ["(5,)", "(5, 2)"]),
            (bp.Pinball, 3, np.zeros((5, 3)), ValueError, ["(5,)", "(5, 3)"]),
            (bp.BinaryCrossEntropy, 1, [0, 1, 0, 2, 1], ValueError, ["0 ≤ y ≤ 1", "2"]),
            (bp.Poisson, 1, [0, 1, -1, 2, 1], ValueError, ["0 ≤ y", "-1"]),
        ],
        ids=lambda value: str(value)[:40] if not isinstance(value, list | type) else None,
    )
    def test_targets(self, door, make, outputs, y, error, parts):
        loss = make([0.1, 0.5, 0.9]) if make is bp.Pinball else make()
        untouched = Untouched(loss, outputs)
        if door == "validation_data":
            fitting = [0, 1, 0, 1, 1] if loss.takes_labels else np.zeros((N, outputs // loss.outputs_per_target))
            fitting = np.ravel(fitting) if np.size(fitting) == N else fitting
            call = lambda: untouched.trainer.fit(  # noqa: E731
                GOOD[0], fitting, validation_data=(GOOD[0], y), verbose=0
            )
        else:
            call = lambda: DOORS[door](untouched.trainer, GOOD[0], y)  # noqa: E731
        assert_refused(call, error, *parts)
        untouched.check()

    @pytest.mark.parametrize(
        ("w", "error", "parts"),
        [
            (np.ones(4), ValueError, ["(5,)", "(4,)"]),
            (np.ones((5, 1)), ValueError, ["(5,)", "(5, 1)"]),
            ([1, 1, -1, 1, 1], ValueError, ["≥ 0", "-1 at row 2"]),
            ([1, 1, math.nan, 1, 1], ValueError, ["nan", "row 2"]),
            ([1, 1, math.inf, 1, 1], ValueError, ["inf", "row 2"]),
            (np.zeros(5), ValueError, ["> 0", "zeros"]),
            (list("abcde"), TypeError, ["sample_weight"]),
            (np.ones(5, complex), TypeError, ["complex"]),
            (2.0, ValueError, ["(5,)", "()"]),
        ],
        ids=str,
    )
    def test_weights(self, door, w, error, parts):
        untouched = Untouched()
        trainer = untouched.trainer
        call = {
            "fit": lambda: trainer.fit(*GOOD, sample_weight=w, verbose=0),
            "epochs": lambda: trainer.epochs(*GOOD, 1, sample_weight=w),
            "step": lambda: trainer.step(*GOOD, w),
            "evaluate": lambda: trainer.evaluate(*GOOD, w),
            "validation_data": lambda: trainer.fit(*GOOD, validation_data=(*GOOD, w), verbose=0),
        }[door]
        assert_refused(call, error, "sample_weight", *parts)
        untouched.check()


class TestRefusedSettings:
    @pytest.mark.parametrize(
        ("n", "error"),
        [
            *((n, ValueError) for n in (0, -1)),
            *((n, TypeError) for n in (True, 2.0, math.nan, "3", None, [1])),
        ],
        ids=repr,
    )
    def test_epochs(self, n, error):
        untouched = Untouched()
        assert_refused(lambda: untouched.trainer.epochs(*GOOD, n), error, "Trainer.epochs", "n ≥ 1", repr(n))
        call = lambda: untouched.trainer.fit(*GOOD, epochs=n, verbose=0)  # noqa: E731
        assert_refused(call, error, "Trainer", repr(n))
        untouched.check()

    @pytest.mark.parametrize(
        "data", [GOOD[0], (GOOD[0],), (*GOOD, None, None), "Xy", {"X": 1}, 3], ids=lambda data: str(type(data))
    )
    def test_validation_data_of_another_form(self, data):
        untouched = Untouched()
        call = lambda: untouched.trainer.fit(*GOOD, validation_data=data, verbose=0)  # noqa: E731
        assert_refused(call, TypeError, "Trainer", "(X, y)")
        untouched.check()


class Sliceable:
    """Nothing but a shape, a dtype and slices, as a data set in a file; remembers how many rows were asked for."""

    def __init__(self, X):
        self._X, self.shape, self.dtype, self.asked = X, X.shape, X.dtype, []

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        start, stop, step = rows.indices(self.shape[0])
        assert step == 1
        self.asked.append((start, stop))
        return self._X[start:stop].copy()


def kinds(values, tmp_path):
    """The same whole numbers, in every form in which data comes."""
    f4 = values.astype(np.float32)
    mapped = np.memmap(tmp_path / "X.bin", np.float32, "w+", shape=f4.shape)
    mapped[...] = f4
    mapped_columns = np.memmap(tmp_path / "columns.bin", np.float32, "w+", shape=f4.shape, order="F")
    mapped_columns[...] = f4
    packed = np.zeros(len(f4), [("flag", "i1"), ("x", "f4", (f4.shape[1],))])
    packed["x"] = f4
    return {
        "float32": f4,
        "float32, Fortran order": np.asfortranarray(f4),
        "float64": values.astype(float),
        "float64, Fortran order": np.asfortranarray(values.astype(float)),
        "int64": values.astype(np.int64),
        "uint8": values.astype(np.uint8),
        "float16": values.astype(np.float16),
        "big-endian": values.astype(">f4"),
        "memory map": mapped,
        "memory map, Fortran order": mapped_columns,
        "every other row": np.repeat(f4, 2, axis=0)[::2],
        "every other column": np.repeat(f4, 2, axis=1)[:, ::2],
        "some columns": np.hstack([f4, f4])[:, : f4.shape[1]],
        "backwards": np.ascontiguousarray(f4[::-1])[::-1],
        "unaligned": packed["x"],
        "read-only": np.frombuffer(f4.tobytes(), np.float32).reshape(f4.shape),
        "list": values.tolist(),
        "sliceable": Sliceable(f4),
        "sliceable integers": Sliceable(values.astype(np.int16)),
    }


class TestKinds:
    @pytest.mark.filterwarnings("ignore::backprop.TrainingAdvice")  # units die of it, which is no matter here
    @pytest.mark.parametrize(("batch_size", "shards"), [(1, 1), (7, 1), (32, 3), ("full", 1)])
    def test_every_kind_gives_the_same_training_to_the_bit(self, batch_size, shards, tmp_path):
        rng = np.random.default_rng(0)
        values, y = rng.integers(0, 17, (60, 12)), rng.integers(0, 3, 60)
        weights, losses = {}, {}
        for name, X in kinds(values, tmp_path).items():
            net = bp.Sequential(bp.Linear(12, 16), bp.ReLU(), bp.Linear(16, 3), seed=0)
            trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.01, 0.9), batch_size=batch_size, shards=shards)
            history = trainer.fit(X, y, epochs=2, validation_data=(X, y), verbose=0)
            weights[name], losses[name] = net.phi, [*history["loss"], *history["validation_loss"]]
        for name, phi in weights.items():
            assert_array_equal(phi, weights["float32"], err_msg=name)
            assert losses[name] == losses["float32"], name

    def test_every_kind_gives_the_same_step_evaluation_and_prediction(self, tmp_path):
        rng = np.random.default_rng(0)
        values, y = rng.integers(0, 17, (20, 12)), rng.integers(0, 3, 20)
        found = {}
        for name, X in kinds(values, tmp_path).items():
            net = bp.Sequential(bp.Linear(12, 16), bp.ReLU(), bp.Linear(16, 3), seed=0)
            trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.01))
            numbers = [trainer.step(X, y), *trainer.evaluate(X, y).values()]
            found[name] = np.append(net.predict(X), numbers)
        for name, numbers in found.items():
            assert_allclose(numbers, found["float32"], rtol=1e-6, err_msg=name)

    @pytest.mark.parametrize("dtype", [np.float64, np.int32, bool])
    def test_targets_of_every_kind(self, dtype):
        X, y = GOOD
        results = []
        for labels in (y, y.astype(dtype), y.tolist(), np.repeat(y, 2)[::2]):
            net = network()
            bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1), batch_size=2).fit(X, labels, epochs=2, verbose=0)
            results.append(net.phi)
        for phi in results[1:]:
            assert_array_equal(phi, results[0])

    def test_a_column_of_targets_is_a_vector_of_targets(self):
        X, y = GOOD
        results = []
        for targets in (y, y[:, None]):
            net = network(outputs=1)
            bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.1), batch_size=2).fit(X, targets, verbose=0)
            results.append(net.phi)
        assert_array_equal(*results)

    def test_the_caller_s_data_are_not_changed(self):
        X, y, w = GOOD[0].copy(), GOOD[1].copy(), np.arange(1.0, 6.0)
        net = bp.Sequential(bp.ReLU(), bp.Linear(D, K), seed=0, dtype="float64")
        trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1), batch_size="full")
        trainer.fit(X, y, epochs=2, sample_weight=w, validation_data=(X, y), verbose=0)
        trainer.step(X, y, w)
        assert_array_equal(X, GOOD[0])
        assert_array_equal(y, GOOD[1])
        assert_array_equal(w, np.arange(1.0, 6.0))


class TestBlocks:
    @pytest.fixture(autouse=True)
    def small_blocks(self, monkeypatch):
        """Ten rows of twelve float32 numbers."""
        monkeypatch.setattr("backprop.training.data.BLOCK_BYTES", 480)
        monkeypatch.setattr("backprop.prediction.BLOCK_BYTES", 640)
        monkeypatch.setattr("backprop.prediction.LEAST_ROWS", 1)

    def make(self, n=64):
        rng = np.random.default_rng(0)
        return rng.standard_normal((n, 12)).astype(np.float32), rng.integers(0, 3, n)

    def network(self):
        return bp.Sequential(bp.Linear(12, 3), bp.Tanh(), bp.Linear(3, 3), seed=0)

    def test_no_more_than_a_block_is_asked_for(self):
        values, y = self.make()
        X = Sliceable(values)
        trainer = bp.Trainer(self.network(), bp.CrossEntropy(), bp.SGD(0.1), batch_size=7)
        history = trainer.fit(X, y, epochs=3, validation_data=(X, y), verbose=0)
        assert history["loss"][-1] < history["loss"][0]
        assert max(stop - start for start, stop in X.asked) <= 10

    def test_each_block_is_read_once_an_epoch(self):
        values, y = self.make()
        X = Sliceable(values)
        for native, again in ((False, 0), (True, 2)):  # once per training a step is played both ways
            trainer = bp.Trainer(self.network(), bp.CrossEntropy(), bp.SGD(0.1), batch_size=7, native=native)
            reads = []
            for _ in trainer.epochs(X, y, 4):
                reads.append(len(X.asked))
                X.asked.clear()
            assert max(reads[1:]) <= 7 + again  # the last block of an epoch may still be at hand
            assert sum(reads[1:]) <= 3 * 7 + again

    def test_every_row_is_seen_once_an_epoch(self):
        values = np.repeat(np.arange(64, dtype=np.float32)[:, None], 12, axis=1)
        seen = []

        class Spy(bp.Layer):
            keeps_width = True

            def forward(self, h):
                seen.append(h[0].copy())
                return h * 1.0

            def infer(self, h):
                return h

            def backward(self, dL_df):
                return dL_df, {}

        net = bp.Sequential(Spy(), bp.Linear(12, 3), seed=0)
        orders = []
        trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(1e-6), batch_size=7)
        for _ in trainer.epochs(Sliceable(values), np.zeros(64, int), 2):
            orders.append(np.concatenate(seen))
            seen.clear()
        for order in orders:
            assert_array_equal(np.sort(order), np.arange(64))
        assert not np.array_equal(*orders)

    def test_the_full_batch_is_that_of_an_array(self):
        values, y = self.make()
        results = []
        for X in (values, Sliceable(values)):
            net = self.network()
            bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1), batch_size="full").fit(X, y, epochs=2, verbose=0)
            results.append(net.phi)
        assert_array_equal(*results)

    def test_the_evaluation_is_that_of_an_array(self):
        values, y = self.make()
        trainer = bp.Trainer(self.network(), bp.CrossEntropy(), bp.SGD(0.1))
        assert trainer.evaluate(Sliceable(values), y) == trainer.evaluate(values, y)

    def test_a_bad_value_is_named_by_its_row_in_the_whole(self):
        values, y = self.make()
        values[37, 5] = np.nan
        trainer = bp.Trainer(self.network(), bp.CrossEntropy(), bp.SGD(0.1))
        for X in (values, Sliceable(values)):
            assert_refused(lambda X=X: trainer.step(X, y), ValueError, "Trainer.step", "row 37, column 5")
            assert_refused(lambda X=X: trainer.net.predict(X), ValueError, ".predict", "row 37, column 5")

    @pytest.mark.parametrize("n", [1, 9, 10, 11, 64])
    def test_predictions(self, n, tmp_path):
        values, _ = self.make(n)
        net = self.network()
        expected = net.infer(values.T).T
        X = Sliceable(values)
        assert_allclose(net.predict(X), expected, rtol=1e-6, atol=1e-7)
        assert max(stop - start for start, stop in X.asked) <= 10
        mapped = np.memmap(tmp_path / "X.bin", np.float32, "w+", shape=values.shape)
        mapped[...] = values
        for same in (values, np.asfortranarray(values), mapped, values.astype(float), values.tolist()):
            assert_allclose(net.predict(same), expected, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("n", [1, 64])
    def test_predictions_into_an_array(self, n, tmp_path):
        values, _ = self.make(n)
        net = self.network()
        expected = net.infer(values.T).T
        outs = [
            np.empty((n, 3), np.float32),
            np.empty((n, 3), np.float64),
            np.empty((n, 3), np.float32, order="F"),
            np.empty((n, 6), np.float32)[:, ::2],
            np.memmap(tmp_path / "out.bin", np.float32, "w+", shape=(n, 3)),
        ]
        for out in outs:
            assert net.predict(values, out=out) is out
            assert_allclose(out, expected, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize(
        "out", [np.empty((64, 2)), np.empty((3, 64)), np.empty((64, 3), int), [[0.0] * 3] * 64, "out"], ids=range(5)
    )
    def test_an_array_that_does_not_fit_the_predictions(self, out):
        values, _ = self.make()
        assert_refused(lambda: self.network().predict(values, out=out), ValueError, ".predict", "(64, 3)", "out")

    def test_threads_may_predict_at_once(self):
        values, _ = self.make()
        net = bp.Sequential(bp.Linear(12, 32), bp.BatchNorm(32), bp.GELU(), bp.Dropout(), bp.Linear(32, 3), seed=0)
        inputs = [values + i for i in range(4)]
        expected = [net.predict(X) for X in inputs]
        wrong, start = [], threading.Barrier(4)

        def work(i):
            start.wait()
            wrong.extend(i for _ in range(20) if not np.array_equal(net.predict(inputs[i]), expected[i]))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def peak_of(action):
    tracemalloc.start()
    action()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


class TestMemory:
    """X takes 40 MB; nothing may hold a second one."""

    N, D = 20_000, 500

    def fill(self, X):
        X[...] = np.linspace(-1, 1, self.D, dtype=np.float32)
        X[::2] *= -1
        return X

    def kinds(self, tmp_path):
        shape = self.N, self.D
        yield "C order", lambda: self.fill(np.empty(shape, np.float32))
        yield "Fortran order", lambda: self.fill(np.empty(shape, np.float32, order="F"))
        yield "memory map", lambda: self.fill(np.memmap(tmp_path / "X.bin", np.float32, "w+", shape=shape))
        yield "strided", lambda: self.fill(np.empty((self.N, 2 * self.D), np.float16)[:, ::2])
        yield "sliceable", lambda: Sliceable(self.fill(np.empty(shape, np.float32)))

    def test_no_second_copy_of_the_data(self, tmp_path):
        y = np.arange(self.N) % 2
        for name, make in self.kinds(tmp_path):
            X = make()
            net = bp.Sequential(bp.Linear(self.D, 2), seed=0)
            trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(1e-3), batch_size=256)
            peak = peak_of(lambda X=X, trainer=trainer: trainer.fit(X, y, epochs=1, verbose=0))
            # A block of the check (4 MiB and its copy as float32), the order, a batch; of columns, one copy in rows.
            in_rows = 4 * X.size if isinstance(X, np.ndarray) and not X.flags.c_contiguous else 0
            assert peak < 14e6 + in_rows, name
            out = np.empty((self.N, 2), np.float32)
            peak = peak_of(lambda X=X, net=net, out=out: net.predict(X, out=out))
            assert peak < 14e6, name
