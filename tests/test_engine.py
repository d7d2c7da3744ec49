"""The fast path is the plain path: the trainer against net.forward, net.backward and optimizer.step, written out."""

from __future__ import annotations

import linecache
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from helpers import Scale
from numpy.testing import assert_allclose, assert_array_equal

import backprop as bp
from backprop.engine.step import automatic_shards
from backprop.engine.threads import Pool, _blas_libraries, _quota, blas_threads, cores

D, K, N = 6, 3, 50


class Quartic(bp.Loss):
    """A loss of one's own."""

    def ell(self, f, y):
        self.d = f - y
        return (self.d**4).sum(axis=0)

    def dell_df(self):
        return 4 * self.d**3


ACTIVATIONS = [
    *(bp.ReLU, bp.LeakyReLU, bp.ELU, bp.SiLU, bp.GELU, bp.Softplus, bp.Sigmoid, bp.Tanh, bp.Sin, bp.Cos),
    *(bp.Exp, bp.Identity),
]
HIDDEN = {a.__name__: (lambda a=a: a()) for a in ACTIVATIONS} | {
    "Scale": lambda: Scale(5),
    "LayerNorm": lambda: bp.LayerNorm(5),
    "BatchNorm": lambda: bp.BatchNorm(5),
    "Residual": lambda: bp.Residual(bp.Sequential(bp.Linear(5, 5), bp.Tanh())),
    "concatenate": lambda: bp.FanOut(bp.Linear(5, 2), bp.Sequential(bp.Linear(5, 3), bp.ReLU())),
    "sum": lambda: bp.FanOut(bp.Linear(5, 5), bp.Identity(), Scale(5), join="sum"),
    "without bias": lambda: bp.Linear(5, 5, bias=False),
    "Select": lambda: bp.Select([3, 0, 4, 1, 2]),
    "InputScale": lambda: bp.InputScale(5, pace=2),
    "Embedding": lambda: bp.Embedding([3, 4, 2, 3, 2], [1] * 5),
    "PiecewiseLinear": lambda: bp.PiecewiseLinear([[-0.4, 0.2]] * 5),
    "Quantiles": lambda: bp.Quantiles([[-0.4, 0.1, 0.9]] * 5, [[-1, 0, 2]] * 5),
    "members": lambda: bp.Sequential(
        bp.MembersLinear(5, 4, 3, first=True), bp.MembersLinear(4, 5, 3), bp.MembersMean(3)
    ),
    "separate": lambda: bp.Sequential(
        bp.MembersLinear(5, 4, 2, first=True), bp.SeparateLinear(4, 5, 2), bp.MembersMean(2)
    ),
    "two in a row": lambda: bp.Sequential(bp.ReLU(), bp.ReLU(), bp.Exp(), bp.ReLU()),
}
OPTIMIZERS = {
    "SGD": lambda: bp.SGD(0.05),
    "weight decay": lambda: bp.SGD(0.05, weight_decay=0.1),
    "momentum": lambda: bp.SGD(0.05, momentum=0.9),
    "momentum and decay": lambda: bp.SGD(0.05, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda: bp.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    "schedule": lambda: bp.SGD(bp.ExponentialDecay(0.05, factor=0.9), momentum=0.5),
    "clip value": lambda: bp.SGD(0.05, clip_value=0.01),
    "clip norm": lambda: bp.SGD(0.05, clip_norm=0.1),
    "RMSProp": lambda: bp.RMSProp(0.01),
    "Adagrad": lambda: bp.Adagrad(0.05),
    "Adam": lambda: bp.Adam(0.01, weight_decay=0.1, clip_norm=0.5),
    "AdamW": lambda: bp.AdamW(0.01),
}
LOSSES = {
    "LeastSquares": (lambda: bp.LeastSquares(), K),
    "AbsoluteError": (lambda: bp.AbsoluteError(), K),
    "Huber": (lambda: bp.Huber(0.5), K),
    "Poisson": (lambda: bp.Poisson(), K),
    "BinaryCrossEntropy": (lambda: bp.BinaryCrossEntropy(), K),
    "GaussianNLL": (lambda: bp.GaussianNLL(), 2 * K),
    "Pinball": (lambda: bp.Pinball([0.2, 0.8]), 2 * K),
    "PerMember": (lambda: bp.PerMember(bp.LeastSquares(), 2), 2 * K),
    "CrossEntropy": (lambda: bp.CrossEntropy(), K),
    "one-hot": (lambda: bp.CrossEntropy(), K),
    "sum": (lambda: bp.LeastSquares(reduction="sum"), K),
    "Quartic": (lambda: Quartic(), K),
}


def data(loss="CrossEntropy", n=N):
    rng = np.random.default_rng(1)
    X, labels = rng.standard_normal((n, D)), rng.integers(0, K, n)
    onehot = np.eye(K)[labels]
    y = {"CrossEntropy": labels, "BinaryCrossEntropy": onehot, "one-hot": onehot}.get(loss, rng.random((n, K)))
    return X, y


def network(hidden=bp.ReLU, outputs=K):
    return bp.Sequential(bp.Linear(D, 5), hidden(), bp.Linear(5, outputs), seed=0, dtype="float64")


def plain(net, loss, optimizer, X, y, batch_size, epochs, weights=None, seed=0):
    """Minibatch descent as on the chalkboard."""
    history = []
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(X))
        order = np.arange(len(X)) if batch_size >= len(X) else order
        total = share = 0.0
        for start in range(0, len(X), batch_size):
            rows = order[start : start + batch_size]
            w = None if weights is None else weights[rows]
            L = loss.forward(net.forward(X[rows].T), y[rows].T, w)
            _, gradients = net.backward(loss.backward())
            optimizer.step(net.phi, gradients.dL_dphi)
            of_batch = len(rows) if w is None else w.sum()
            total, share = total + L * of_batch, share + of_batch
        history.append(total / share)
    return history


def assert_same_training(net, loss, optimizer, X, y, batch_size=8, weights=None, **settings):
    epochs, twin = 3, net.copy()
    expected = plain(twin, loss(), optimizer(), X, y, batch_size, epochs, weights)
    trainer = bp.Trainer(net, loss(), optimizer(), batch_size=batch_size, **settings)
    found = [record.loss for record in trainer.epochs(X, y, epochs, sample_weight=weights)]
    scale = np.abs(twin.phi).max()
    assert_allclose(net.phi, twin.phi, rtol=0, atol=1e-12 * max(1, scale))
    if loss().reduction == "mean":
        assert_allclose(found, expected, rtol=1e-12)
    for name, buffer in net.buffers.items():
        assert_allclose(buffer, twin.buffers[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("hidden", HIDDEN)
def test_every_layer_trains_as_on_the_chalkboard(hidden, shards):
    if hidden == "BatchNorm":
        shards = 1
    assert_same_training(network(HIDDEN[hidden]), bp.CrossEntropy, lambda: bp.SGD(0.05), *data(), shards=shards)


FIRST = {
    "Residual": lambda: bp.Residual(bp.Sequential(bp.Linear(D, 4), bp.Tanh(), bp.Linear(4, D))),
    "FanOut": lambda: bp.FanOut(bp.Linear(D, 2), bp.Linear(D, 4)),
    "Sequential": lambda: bp.Sequential(bp.Linear(D, D), bp.ReLU()),
    "Scale": lambda: Scale(D),
    "activation": bp.Tanh,
    "Dropout": lambda: bp.Dropout(1e-9),
}


@pytest.mark.parametrize("first", FIRST)
def test_any_layer_may_come_first(first):
    net = bp.Sequential(FIRST[first](), bp.Linear(D, K), seed=0, dtype="float64")
    assert_same_training(net, bp.CrossEntropy, lambda: bp.SGD(0.05), *data())


@pytest.mark.parametrize("shards", [1, 2, 11])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_trains_as_on_the_chalkboard(optimizer, shards):
    assert_same_training(
        network(), bp.CrossEntropy, OPTIMIZERS[optimizer], *data(), batch_size=12, shards=shards, threads=2
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_as_on_the_chalkboard(loss, shards, weighted):
    make, outputs = LOSSES[loss]
    weights = np.random.default_rng(2).random(N) if weighted else None
    assert_same_training(
        network(bp.Tanh, outputs), make, lambda: bp.SGD(0.01), *data(loss), weights=weights, shards=shards
    )


class Attribute(Scale):
    """A parameter that is an attribute, too, and is read from there."""

    def __init__(self, features):
        self.omega = np.full((features, 1), 1.5)
        self.parameters = {"omega": self.omega}

    def forward(self, h):
        self.h = h
        return self.omega * h

    def backward(self, dL_df):
        return self.omega * dL_df, {"omega": (dL_df * self.h).sum(axis=1, keepdims=True)}


class Property(Attribute):
    """Parameters that are collected when they are asked for."""

    def __init__(self, features):
        self.omega = np.full((features, 1), 1.5)

    @property
    def parameters(self):
        return {"omega": self.omega}


@pytest.mark.parametrize("kind", [Scale, Attribute, Property])
def test_a_layer_of_ones_own_may_keep_its_parameters_as_it_likes(kind):
    net = bp.Sequential(bp.Linear(D, 5), kind(5), bp.Tanh(), bp.Linear(5, K), seed=0, dtype="float64")
    before = net[1].parameters["omega"].copy()
    X, y = data()
    assert bp.check_gradients(net, bp.CrossEntropy(), X[:3], y[:3]).passed
    assert_same_training(net, bp.CrossEntropy, lambda: bp.SGD(0.05), X, y)
    assert np.abs(net[1].parameters["omega"] - before).min() > 0
    assert np.shares_memory(net[1].parameters["omega"], net.phi)
    twin = net.copy()
    twin.phi += 1
    assert_allclose(twin[1].parameters["omega"], net[1].parameters["omega"] + 1)


def test_parameters_made_anew_at_each_look_are_refused():
    class Fresh(Property):
        @property
        def parameters(self):
            return {"omega": np.array(self.omega)}

    with pytest.raises(ValueError, match=r"expected parameter 'omega' in self\.parameters"):
        bp.Sequential(Fresh(5))


class Wide(Scale):
    """A layer of one's own that answers in float64, whatever it is given."""

    def forward(self, h):
        return super().forward(h.astype(np.float64))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_layer_that_changes_the_dtype_trains_as_on_the_chalkboard(loss, weighted):
    make, outputs = LOSSES[loss]
    X, y = data(loss)
    weights = np.random.default_rng(2).random(N) if weighted else None
    net = bp.Sequential(bp.Linear(D, outputs), bp.Tanh(), Wide(outputs), seed=0)
    twin = net.copy()
    plain(twin, make(), bp.SGD(0.01), X.astype(np.float32), y, 8, 3, weights)
    trainer = bp.Trainer(net, make(), bp.SGD(0.01), batch_size=8)
    trainer.fit(X, y, epochs=3, sample_weight=weights, verbose=0)
    assert_allclose(net.phi, twin.phi, rtol=2e-5, atol=2e-6)  # float32


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_single_example_minibatch_and_full_batch_descent(batch_size):
    assert_same_training(network(), bp.CrossEntropy, lambda: bp.SGD(0.05), *data(), batch_size=batch_size)


def test_full_batch_by_its_name():
    X, y = data()
    a, b = network(), network()
    bp.Trainer(a, bp.CrossEntropy(), bp.SGD(0.1), batch_size="full").fit(X, y, epochs=2, verbose=0)
    bp.Trainer(b, bp.CrossEntropy(), bp.SGD(0.1), batch_size=N).fit(X, y, epochs=2, verbose=0)
    assert_array_equal(a.phi, b.phi)


def test_a_step_of_the_trainer_is_a_step_on_the_chalkboard():
    X, y = data()
    net, twin = network(), network()
    L = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1)).step(X, y)
    expected = plain(twin, bp.CrossEntropy(), bp.SGD(0.1), X, y, N, 1)
    assert_allclose(L, expected[0], rtol=1e-13)
    assert_allclose(net.phi, twin.phi, rtol=1e-12, atol=1e-14)


def trained(threads, deterministic=True, hidden=bp.ReLU, dtype="float32", optimizer=lambda: bp.SGD(0.1, 0.9), **more):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((700, 40)).astype(np.float32), rng.integers(0, 10, 700)
    net = bp.Sequential(bp.Linear(40, 64), hidden(), bp.Linear(64, 10), seed=0, dtype=dtype)
    settings = {"batch_size": 300, "shards": 5, "threads": threads, "deterministic": deterministic} | more
    bp.Trainer(net, bp.CrossEntropy(), optimizer(), **settings).fit(X, y, epochs=3, verbose=0)
    return np.concatenate([net.phi, *net.buffers.values()])


@pytest.mark.parametrize("optimizer", [lambda: bp.SGD(0.1, 0.9), lambda: bp.Adam(0.01)], ids=["SGD", "Adam"])
@pytest.mark.parametrize("hidden", [bp.ReLU, lambda: bp.Dropout(0.3), lambda: bp.BatchNorm(64), lambda: Scale(64)])
def test_threads_never_change_a_bit(hidden, optimizer):
    one = trained(1, hidden=hidden, optimizer=optimizer)
    for threads in (2, 4, 7):
        assert_array_equal(trained(threads, hidden=hidden, optimizer=optimizer), one)


@pytest.mark.parametrize("there", [True, False])
def test_without_shards_bits_do_not_depend_on_threads(there, monkeypatch):
    """With the native player, whoever plays; without it where `deterministic` gives BLAS one thread."""
    from backprop.engine import native

    if not there:
        monkeypatch.setattr(native, "player", None)
    for deterministic in (False, True) if native.player else (True,):
        assert_array_equal(*(trained(threads, deterministic, shards=1, native=False) for threads in (1, 4)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_seed_one_hash(dtype):
    assert_array_equal(trained(2, False, dtype=dtype), trained(2, False, dtype=dtype))


PROGRAM = """
import hashlib, numpy as np, backprop as bp
rng = np.random.default_rng(0)
X, y = rng.standard_normal((2048, 96)).astype("f"), rng.integers(0, 10, 2048)
net = bp.Sequential(bp.Linear(96, 256), bp.ReLU(), bp.Dropout(0.2), bp.Linear(256, 256), bp.ReLU(), bp.Linear(256, 10), seed=0)
bp.Trainer(net, bp.CrossEntropy(), bp.Adam(), batch_size=512).fit(X, y, epochs=1, verbose=0)
print(hashlib.sha256(net.phi.tobytes()).hexdigest())
"""


def test_fresh_processes_agree_to_the_bit():
    """Three processes here; twenty are run by benchmarks/reproducible.py."""
    hashes = {
        subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    }
    assert len(hashes) == 1
    assert len(hashes.pop().strip()) == 64


RULES = {"SGD": lambda: bp.SGD(0.01), "Nesterov": lambda: bp.SGD(0.01, 0.9, True), "Adam": lambda: bp.Adam()}


SPARING = {
    "ReLU": bp.ReLU,
    "GELU": bp.GELU,
    "Residual": lambda: bp.Residual(bp.Linear(1024, 1024)),
    "FanOut": lambda: bp.FanOut(bp.Tanh(), bp.Sin(), join="sum"),
    "LayerNorm": lambda: bp.LayerNorm(1024),
    "BatchNorm": lambda: bp.BatchNorm(1024),
    "Dropout": bp.Dropout,
}


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("optimizer", RULES)
@pytest.mark.parametrize("hidden", SPARING)
def test_a_step_allocates_nothing_that_grows(hidden, optimizer, shards):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((2 * 1024, 256)).astype(np.float32), rng.integers(0, 10, 2 * 1024)
    net = bp.Sequential(bp.Linear(256, 1024), SPARING[hidden](), bp.Linear(1024, 10), seed=0)
    trainer = bp.Trainer(net, bp.CrossEntropy(), RULES[optimizer](), batch_size=1024, shards=shards)
    trainer._advisor.quiet = True  # its look at a few examples makes arrays of its own
    peaks = []
    tracemalloc.start()
    for _ in trainer.epochs(X, y, 5, sample_weight=rng.random(len(X))):
        now, peak = tracemalloc.get_traced_memory()
        peaks.append(peak - now)
        tracemalloc.reset_peak()
    tracemalloc.stop()
    # An activation here takes 4 MiB, a gradient at least 1 MiB; pieces of φ and the buffers of NumPy's casts are smaller.
    # Until the fourth epoch a step is compared for each number of threads, on copies.
    assert max(peaks[3:]) < 400_000


def test_shards_depend_on_network_and_batch_alone():
    small = bp.Sequential(bp.Linear(64, 32), bp.ReLU(), bp.Linear(32, 10))
    large = bp.Sequential(bp.Linear(784, 512), bp.ReLU(), bp.Linear(512, 512), bp.ReLU(), bp.Linear(512, 10))
    coupled = bp.Sequential(bp.Linear(784, 2048), bp.BatchNorm(2048), bp.Linear(2048, 10))
    assert [automatic_shards(small, n) for n in (1, 512, 2048)] == [1, 1, 1]
    assert [automatic_shards(large, n) for n in (1, 32, 256, 512, 2048, 8192)] == [1, 1, 1, 2, 4, 8]
    assert automatic_shards(coupled, 8192) == 1


def test_activation_memory_is_that_of_a_shard():
    rng = np.random.default_rng(0)

    def arrays(batch_size, shards):
        X, y = rng.standard_normal((batch_size, 64)).astype(np.float32), rng.integers(0, 10, batch_size)
        net = bp.Sequential(bp.Linear(64, 512), bp.Tanh(), bp.Linear(512, 10), seed=0)
        trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1), batch_size="full", shards=shards, threads=1)
        tracemalloc.start()
        trainer.fit(X, y, epochs=1, verbose=0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert arrays(8192, 32) < 1.5 * arrays(256, 1) + 6 * 4 * 40_000  # log₂ 32 + 1 vectors


def test_a_worker_s_exception_arrives_with_its_traceback():
    def fail():
        raise ZeroDivisionError("from a worker")

    with Pool(2) as pool, pytest.raises(ZeroDivisionError, match="from a worker") as caught:
        pool.run([lambda: None, fail])
    assert any(entry.name == "fail" for entry in caught.traceback)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("backprop")]


def test_a_layer_of_ones_own_sees_one_shard_after_the_other_in_one_thread():
    seen = []

    class Watched(Scale):
        def forward(self, h):
            seen.append(("forward", threading.current_thread().name, h.shape[1]))
            return super().forward(h)

        def backward(self, dL_df):
            seen.append(("backward", threading.current_thread().name, dL_df.shape[1]))
            return super().backward(dL_df)

    X, y = data()
    net = bp.Sequential(bp.Linear(D, 5), Watched(5), bp.Linear(5, K), seed=0)
    bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1), batch_size=N, shards=2, threads=2).fit(X, y, epochs=2, verbose=0)
    main = threading.main_thread().name
    assert seen == [(pass_, main, N // 2) for pass_ in ("forward", "backward")] * 4


@pytest.mark.parametrize("line", range(40))
def test_blas_threads_come_back_wherever_an_interrupt_comes(line):
    """At each line of what sets them, as Ctrl-C may: by the time the error is forgotten they are as before."""
    from backprop.engine import threads

    left = [line]

    def trace(frame, event, arg):
        code = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        # No interrupt comes between the end of a `with` block and the release of its lock.
        if frame.f_code.co_filename == threads.__file__ and event == "line" and not code.startswith("with "):
            left[0] -= 1
            if left[0] < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = [library.num_threads for library in _blas_libraries()]
    outer = sys.gettrace()
    sys.settrace(trace)
    try:
        with blas_threads(1):
            pass
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(outer)
    assert [library.get_num_threads() for library in _blas_libraries()] == before
    assert not threads._wanted


def test_a_trainer_is_free_again_wherever_an_interrupt_has_come():
    trainer = bp.Trainer(bp.Sequential(bp.Linear(2, 1), seed=0), bp.LeastSquares(), bp.SGD(0.1))
    alone = trainer._descent.alone("here")
    alone.__enter__()
    with pytest.raises(RuntimeError, match="one training of a trainer at a time"):
        trainer.fit(np.ones((4, 2)), np.ones(4), epochs=1, verbose=0)
    del alone  # as where the block was never entered
    trainer.fit(np.ones((4, 2)), np.ones(4), epochs=1, verbose=0)


def test_one_blas_has_threads_the_others_one():
    """Both of them spinning takes a step from 0.2 ms to 12; NumPy's library has "scipy" in its name, too."""
    with blas_threads(2):
        counts = {Path(library.filepath).parts[-2]: library.num_threads for library in _blas_libraries()}
    if {"numpy.libs", "scipy.libs"} <= counts.keys():
        assert (counts["numpy.libs"], counts["scipy.libs"]) == (1, 2)
    else:  # both use one library
        assert set(counts.values()) == {2}


def test_blas_threads_come_back_after_trainings_that_overlap():
    before = [library.num_threads for library in _blas_libraries()]
    first, second = blas_threads(1), blas_threads(3)
    with first:
        second.__enter__()
        assert all(library.num_threads == 1 for library in _blas_libraries())  # the least counts
    assert any(library.num_threads == 3 for library in _blas_libraries())
    second.__exit__(None, None, None)
    assert [library.num_threads for library in _blas_libraries()] == before


def test_no_thread_outlives_fit():
    trained(4)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("backprop")]


def test_a_pool_runs_and_raises():
    with Pool(3) as pool:
        found = []
        pool.run([lambda i=i: found.append(i) for i in range(3)])
        assert sorted(found) == [0, 1, 2]
        with pytest.raises(ZeroDivisionError):
            pool.run([lambda: None, lambda: 1 / 0])


def test_blas_threads_are_set_from_any_thread():
    """threadpoolctl 3.8 ignores all threads but the first that set any."""
    seen = []

    def work():
        with blas_threads(1):
            seen.extend(library.num_threads for library in _blas_libraries())

    with blas_threads(2):
        pass
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert set(seen) == {1}


def test_the_same_bits_in_any_thread():
    found = [trained(1, shards=1)]
    thread = threading.Thread(target=lambda: found.append(trained(1, shards=1)))
    thread.start()
    thread.join()
    assert_array_equal(*found)


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"])
def test_thread_limits_of_the_environment_are_respected(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert cores() == 1


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "max 100000"}, []),
        ({"cpu.max": "150000 100000"}, [2]),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, []),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, [3]),
        ({}, []),
    ],
)
def test_limits_of_a_control_group_are_respected(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert _quota(tmp_path) == expected


class Slices:
    """Rows that can only be sliced."""

    def __init__(self, X):
        self._X, self.shape, self.dtype = X, X.shape, X.dtype

    def __getitem__(self, rows):
        return self._X[rows]


def test_shards_on_threads_read_sliced_data_right(monkeypatch):
    monkeypatch.setattr("backprop.training.data.BLOCK_BYTES", 40 * D)
    X, y = data(n=400)
    found = []
    for threads in (1, 4):
        net = network()
        trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.05), batch_size=100, shards=4, threads=threads)
        trainer.fit(Slices(X), y, epochs=5, verbose=0)
        found.append(net.phi)
    assert_array_equal(*found)


def test_user_arrays_survive_training():
    X, y = data()
    net = network()
    f = net.forward(X.T)
    before = f.copy()
    bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1), batch_size=N).fit(X, y, epochs=3, verbose=0)
    assert_array_equal(f, before)
    twin = network()
    twin.forward(X.T)
    d = np.ones((K, N))
    expected = twin.backward(d)[1]["0.beta"]
    net.phi[...] = twin.phi  # training left the caches of `net` alone
    assert_allclose(net.backward(d)[1]["0.beta"], expected, rtol=1e-12)
