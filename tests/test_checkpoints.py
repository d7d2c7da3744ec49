"""Training that stops and goes on: the same bits as if it had not, from any step, in another process, after a kill."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from test_bad_input import assert_refused

import backprop as bp
from backprop.engine import native
from backprop.files import container
from backprop.training import checkpoint
from backprop.training.data import BLOCK_BYTES

D, K, N = 6, 3, 50
THOROUGH = bool(os.environ.get("BACKPROP_THOROUGH"))  # every step of every row, and more kills, in a minute
TIMES = {"seconds", "examples_per_second"}

# Nothing here is meant to train well.
pytestmark = pytest.mark.filterwarnings("ignore::backprop.training.advice.TrainingAdvice")


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Hundreds of saves are waited for otherwise; tests/test_container.py is about the disk, and the processes below do wait."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def data(n=N, seed=1):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, D))
    return X, (X[:, :K] + 0.3 * rng.standard_normal((n, K))).argmax(axis=1)


class Scale(bp.Layer):
    """A layer of one's own, with a parameter, a buffer and noise whose generator the trainer does not know."""

    def __init__(self, features, seed=5):
        self.features, self.seed = features, seed
        self.noise = np.random.default_rng(seed)
        self.parameters["omega"] = np.full((features, 1), 1.5)
        self.buffers["seen"] = np.zeros(1)

    def forward(self, h):
        self.h = h + 0.1 * self.noise.standard_normal(h.shape)
        self.buffers["seen"] += h.shape[-1]
        return self.parameters["omega"] * self.h

    def infer(self, h):
        return self.parameters["omega"] * h

    def backward(self, dL_df):
        return self.parameters["omega"] * dL_df, {"omega": (dL_df * self.h).sum(axis=1, keepdims=True)}


class Counting(bp.Optimizer):
    """A rule of one's own that remembers more than `t`."""

    slots = ("sum",)

    def __init__(self, learning_rate, gain=0.5):
        super().__init__(learning_rate)
        self.gain, self.turns = gain, 0

    def step(self, phi, dL_dphi):
        self.turns += 1
        super().step(phi, dL_dphi)

    def update(self, alpha, phi, g, *state):
        (s,) = state
        s += g * self.gain
        phi -= alpha * s / self.turns


class Halving(bp.Schedule):
    """A schedule of one's own that listens."""

    def __init__(self, learning_rate):
        self.learning_rate, self.observed, self.worst = learning_rate, 0, float("-inf")

    def __call__(self, t):
        return self.learning_rate / 2**self.observed

    def observe(self, loss):
        self.observed, self.worst = self.observed + 1, max(self.worst, loss)


class Cubed(bp.CrossEntropy):
    """A loss of one's own."""

    def ell(self, f, y):
        return super().ell(f, y)


class Rounded(bp.Constraint):
    """A constraint of one's own."""

    def __init__(self, digits):
        self.digits = digits

    def project(self, parameter):
        parameter[...] = parameter.round(self.digits)


OWN = [Scale, Counting, Halving, Cubed, Rounded]

OPTIMIZERS = {
    "SGD": lambda: bp.SGD(0.05),
    "decay by name": lambda: bp.SGD(0.05, weight_decay={"*.omega": 0.1, "0.beta": 0.05}),
    "momentum": lambda: bp.SGD(0.05, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda: bp.SGD(0.05, momentum=0.9, nesterov=True, l1=1e-3),
    "clip value": lambda: bp.SGD(0.05, clip_value=0.01),
    "clip norm": lambda: bp.SGD(bp.CosineDecay(0.05, steps=30), momentum=0.5, clip_norm=0.1),
    "RMSProp": lambda: bp.RMSProp(bp.OneCycle(0.01, steps=20)),
    "Adagrad": lambda: bp.Adagrad(bp.StepDecay(0.05, every=5)),
    "Adam": lambda: bp.Adam(bp.WarmUp(bp.ReduceOnPlateau(0.05, patience=0, threshold=0.2), steps=4), l1={"0.*": 0.01}),
    "AdamW": lambda: bp.AdamW(bp.ExponentialDecay(0.01, factor=0.9), clip_norm=0.5),
    "of one's own": lambda: Counting(Halving(0.05)),
}
HIDDEN = {
    "plain": lambda: bp.ReLU(),
    "Dropout": lambda: bp.Dropout(0.3),
    "BatchNorm": lambda: bp.Sequential(bp.BatchNorm(5), bp.ReLU()),
    "both": lambda: bp.Residual(bp.Sequential(bp.Linear(5, 5), bp.BatchNorm(5), bp.Dropout(0.2))),
    "of one's own": lambda: Scale(5),
}


def network(hidden="plain", dtype="float64"):
    return bp.Sequential(bp.Linear(D, 5), HIDDEN[hidden](), bp.Linear(5, K), seed=0, dtype=dtype)


def trainer_of(net=None, optimizer=None, loss=None, **settings):
    net, optimizer = net or network(), optimizer or bp.SGD(0.1, momentum=0.9)
    return bp.Trainer(net, loss or bp.CrossEntropy(), optimizer, **{"batch_size": 8} | settings)


def numbers(history):
    """The records without their times."""
    return [{name: value for name, value in record.flat().items() if name not in TIMES} for record in history]


def digest(trainer, history=()):
    """SHA-256 of φ, running statistics, the optimizer's state, and the records."""
    found = hashlib.sha256()
    for name, array in checkpoint.arrays(trainer.net, trainer.optimizer).items():
        found.update(name.encode() + np.ascontiguousarray(array).tobytes())
    found.update(json.dumps([trainer.optimizer.t, trainer.position, numbers(history)]).encode())
    return found.hexdigest()


def assert_resumes(make, steps, folder, *, epochs=3, classes=OWN, X=None, y=None, **fit):
    """Resume at each of these steps and train to the end: weights, state and records are those of a run that never stopped."""
    X, y = (data()[0] if X is None else X), (data()[1] if y is None else y)
    whole = make()
    paths = {step: folder / f"{step}.safetensors" for step in steps}

    def save():
        if whole.optimizer.t in paths:
            whole.save(paths[whole.optimizer.t])

    whole.after_step.append(save)
    records = whole.fit(X, y, epochs=epochs, verbose=0, **fit)
    for step, path in paths.items():
        trainer = bp.Trainer.resume(path, classes=classes)
        assert trainer.optimizer.t == step
        done = trainer.epochs_done
        left = trainer.fit(X, y, epochs=epochs - done, verbose=0, **fit)
        assert digest(trainer, left) == digest(whole, records[done:]), f"resumed after step {step}"
    return whole


class TestSameBits:
    @pytest.mark.parametrize("hidden", ["both", "of one's own"])
    def test_from_each_of_the_first_fifty_steps(self, hidden, tmp_path):
        def make():
            return trainer_of(network(hidden), OPTIMIZERS["Adam"]())

        assert_resumes(make, range(1, 51), tmp_path, epochs=8, validation_data=data(20, 2), metrics=["accuracy"])

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("hidden", HIDDEN)
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_with_every_optimizer(self, optimizer, hidden, dtype, tmp_path):
        def make():
            return trainer_of(network(hidden, dtype), OPTIMIZERS[optimizer]())

        steps = range(1, 29) if THOROUGH else (10,)
        assert_resumes(make, steps, tmp_path, epochs=4 if THOROUGH else 2)

    @pytest.mark.parametrize(
        "settings",
        [
            *({"shards": 2}, {"shards": 4, "threads": 2}, {"shards": 3, "threads": 1, "deterministic": True}),
            *(
                {"shuffle": False},
                {"seed": 7},
                {"batch_size": 1},
                {"batch_size": 7},
                {"batch_size": "full"},
                {"threads": 2},
            ),
            {"constraints": {"*.omega": bp.MaxNorm(0.5), "*.beta": Rounded(3)}},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("weighted", [False, True])
    def test_with_every_setting(self, settings, weighted, tmp_path):
        def make():
            return trainer_of(network("Dropout"), bp.Adam(0.01), **settings)

        w = None
        if weighted:
            w = np.random.default_rng(4).uniform(0, 2, N)
            w[::3] = 0  # batches of one example are then no steps
        found = assert_resumes(make, (1, 2, 4), tmp_path, epochs=5, sample_weight=w)
        if found.shards != 1:
            assert np.isfinite(found.net.phi).all()

    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    def test_with_either_reduction(self, reduction, tmp_path):
        assert_resumes(lambda: trainer_of(loss=bp.CrossEntropy(reduction=reduction)), (3, 7, 8), tmp_path)

    def test_with_classes_of_one_s_own(self, tmp_path):
        assert_resumes(lambda: trainer_of(network("of one's own"), loss=Cubed()), (3, 7, 8), tmp_path)

    def test_with_stored_activations(self, tmp_path):
        def make():
            layers = [bp.Linear(D, 5), bp.Dropout(0.2), bp.BatchNorm(5), bp.Tanh(), bp.Linear(5, K)]
            return trainer_of(bp.Sequential(*layers, seed=0, checkpoint=2))

        assert_resumes(make, (3, 7, 8), tmp_path)

    def test_of_a_step_large_enough_for_threads(self, tmp_path):
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((600, 300)).astype(np.float32), rng.integers(0, K, 600)

        def make():
            net = bp.Sequential(bp.Linear(300, 500), bp.GELU(), bp.Linear(500, K), seed=0)
            return trainer_of(net, bp.Adam(0.01), batch_size=256)

        assert_resumes(make, (2, 4), tmp_path, X=X, y=y, epochs=2)

    @pytest.mark.parametrize("kind", ["memory map", "Fortran order", "blocks", "list"])
    def test_from_data_of_every_kind(self, kind, tmp_path):
        X, y = data()
        if kind == "memory map":
            np.save(tmp_path / "X.npy", X)
            X = np.load(tmp_path / "X.npy", mmap_mode="r")
        X = {"Fortran order": np.asfortranarray(X), "blocks": Blocks(X), "list": X.tolist()}.get(kind, X)
        assert_resumes(trainer_of, (3, 7, 8), tmp_path, X=X, y=y)

    def test_before_the_first_step_and_between_epochs(self, tmp_path):
        X, y = data()
        whole, path = trainer_of(network("Dropout"), bp.Adam()), tmp_path / "run"
        for record in whole.epochs(X, y, 4):
            if record.epoch == 2:
                whole.save(path)
        first = trainer_of(network("Dropout"), bp.Adam())
        first.save(tmp_path / "new")
        for start, left in ((path, 2), (tmp_path / "new", 4)):
            trainer = bp.Trainer.resume(start)
            trainer.fit(X, y, epochs=left, verbose=0)
            assert digest(trainer) == digest(whole)

    def test_saved_resumed_and_saved_again(self, tmp_path):
        X, y = data()
        path, trainer = tmp_path / "run", trainer_of(network("both"))
        trainer.after_step.append(lambda: trainer.save(path) if trainer.optimizer.t == 10 else None)
        trainer.fit(X, y, epochs=2, verbose=0)
        again = bp.Trainer.resume(path)
        again.save(tmp_path / "again")
        assert path.read_bytes() == (tmp_path / "again").read_bytes()

    def test_notes_go_along(self, tmp_path):
        trainer = trainer_of()
        assert trainer.notes == {}
        trainer.notes["table"] = {"columns": ["a", "b"], "scale": 0.1}
        trainer.save(tmp_path / "run")
        assert bp.Trainer.resume(tmp_path / "run").notes == trainer.notes

    def test_saving_changes_nothing(self, tmp_path):
        X, y = data()
        saved, plain = (trainer_of(network("both"), bp.Adam(0.01)) for _ in range(2))
        saved.after_step.append(lambda: saved.save(tmp_path / "run"))
        assert digest(saved, saved.fit(X, y, epochs=2, verbose=0)) == digest(
            plain, plain.fit(X, y, epochs=2, verbose=0)
        )

    def test_what_the_network_draws_outside_training(self, tmp_path):
        trainer = trainer_of(bp.Sequential(bp.Linear(D, 5), bp.Dropout(0.5), bp.Linear(5, K)))
        trainer.save(tmp_path / "run")
        h = data()[0].T
        assert_array_equal(trainer.net.forward(h), bp.Trainer.resume(tmp_path / "run").net.forward(h))

    @pytest.mark.parametrize("kind", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64])
    def test_whatever_the_generator(self, kind, tmp_path):
        def net():
            scale = Scale(5)
            scale.noise = np.random.Generator(kind(3))
            return bp.Sequential(bp.Linear(D, 5), scale, bp.Linear(5, K), seed=0)

        X, y = data()
        trainer = trainer_of(net())
        trainer.fit(X, y, epochs=1, verbose=0)
        trainer.save(tmp_path / "run")
        again = bp.Trainer.resume(tmp_path / "run", net=net())
        for each in (trainer, again):
            each.fit(X, y, epochs=1, verbose=0)
        assert digest(trainer) == digest(again)


class Blocks:
    """What can only be sliced, as an HDF5 data set."""

    def __init__(self, X):
        self.X, self.shape, self.dtype, self.chunks = X, X.shape, X.dtype, (16, D)

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        return self.X[rows]


PROGRAM = """
import sys
import backprop as bp
sys.path.insert(0, {tests!r})
from test_checkpoints import *

path, count = sys.argv[1], int(sys.argv[2])
X, y = data()
if os.path.exists(path):
    trainer = bp.Trainer.resume(path)
else:
    trainer = trainer_of(network("both"), OPTIMIZERS["Adam"]())
history = trainer.fit(X, y, epochs=count - trainer.epochs_done, verbose=0, callbacks=[bp.Checkpoints(path, every_steps=1)])
print(digest(trainer), trainer.epochs_done)
"""


def started(path, epochs):
    program = PROGRAM.format(tests=os.path.dirname(__file__))
    command = [sys.executable, "-W", "ignore::UserWarning", "-c", program, str(path), str(epochs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class TestProcesses:
    def test_kill_and_resume(self, tmp_path):
        """Killed at random instants while it saves after each step, it ends with the bits of a run that was let alone."""
        path, epochs, rng = tmp_path / "run.safetensors", 200 if THOROUGH else 10, np.random.default_rng()
        kills = 0
        while True:
            process = started(path, epochs)
            before = path.stat().st_mtime_ns if path.exists() else 0
            while process.poll() is None and not (path.exists() and path.stat().st_mtime_ns > before):
                time.sleep(0.001)
            if kills < (20 if THOROUGH else 2):
                time.sleep(rng.uniform(0, 0.05))
                process.kill()
                kills += 1
                process.communicate()
            else:
                break
        out, err = process.communicate()
        assert process.returncode == 0, err
        X, y = data()
        whole = trainer_of(network("both"), OPTIMIZERS["Adam"]())
        whole.fit(X, y, epochs=epochs, verbose=0)
        assert out.split() == [digest(whole), str(epochs)]
        assert os.listdir(tmp_path) == [path.name]  # nothing of a killed writer stays

    def test_control_c_in_a_terminal(self, tmp_path):
        path = tmp_path / "run.safetensors"
        process = started(path, 10**6)
        while not path.exists() and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        assert process.returncode == 0, err
        trainer = bp.Trainer.resume(path)
        assert out.split() == [digest(trainer), str(trainer.epochs_done)]


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def at_step(trainer, k, action):
    trainer.after_step.append(lambda: action() if trainer.optimizer.t == k else None)


class TestControlC:
    @pytest.mark.parametrize("k", [1, 3, 6, 7, 8, 13, 14])
    def test_the_next_fit_goes_on_where_it_stopped(self, k):
        X, y = data()
        whole, trainer = (trainer_of(network("both"), OPTIMIZERS["Adam"]()) for _ in range(2))
        records = whole.fit(X, y, epochs=3, verbose=0)
        at_step(trainer, k, interrupt)
        first = trainer.fit(X, y, epochs=3, verbose=0)
        assert first.stopped == "Ctrl-C"
        assert trainer.position == ((k - 1) // 7, (k - 1) % 7 + 1)
        second = trainer.fit(X.copy(), y, epochs=3 - len(first), verbose=0)
        assert digest(trainer, [*first, *second]) == digest(whole, records)
        assert trainer.position == (3, 0)

    def test_in_another_process(self, tmp_path):
        X, y = data()
        whole, trainer = trainer_of(network("both")), trainer_of(network("both"))
        records = whole.fit(X, y, epochs=3, verbose=0)
        at_step(trainer, 10, interrupt)
        first = trainer.fit(X, y, epochs=3, verbose=0)
        trainer.save(tmp_path / "run")
        again = bp.Trainer.resume(tmp_path / "run")
        assert again.position == (1, 3)
        second = again.fit(X, y, epochs=2, verbose=0)
        assert digest(again, [*first, *second]) == digest(whole, records)

    def test_while_the_epoch_is_measured(self):
        X, y = data()
        whole, trainer = (trainer_of(network(), OPTIMIZERS["Adam"]()) for _ in range(2))
        calls = []

        def score(f, y):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return 0.5

        records = whole.fit(X, y, epochs=3, metrics=[lambda f, y: 0.5], verbose=0)
        first = trainer.fit(X, y, epochs=3, metrics=[score], verbose=0)
        assert trainer.position[1] == 7
        second = trainer.fit(X, y, epochs=3 - len(first), metrics=[score], verbose=0)
        assert first["loss"] + second["loss"] == records["loss"]
        assert digest(trainer) == digest(whole)

    def test_from_the_loop_one_can_see(self):
        X, y = data()
        whole, trainer = trainer_of(), trainer_of()
        losses = whole.fit(X, y, epochs=2, verbose=0)["loss"]
        at_step(trainer, 9, interrupt)
        found = []
        with pytest.raises(KeyboardInterrupt):
            found.extend(record.loss for record in trainer.epochs(X, y, 2))
        found.extend(record.loss for record in trainer.epochs(X, y, 2 - trainer.epochs_done))
        assert found == losses
        assert digest(trainer) == digest(whole)

    def test_times_are_those_of_all_parts(self, tmp_path):
        X, y = data()
        trainer = trainer_of()
        at_step(trainer, 3, lambda: time.sleep(0.05))
        at_step(trainer, 3, lambda: trainer.save(tmp_path / "run"))
        at_step(trainer, 3, interrupt)
        start = time.perf_counter()
        trainer.fit(X, y, epochs=1, verbose=0)
        first = time.perf_counter() - start
        for each in (trainer, bp.Trainer.resume(tmp_path / "run")):
            time.sleep(0.1)  # this does not count
            start = time.perf_counter()
            (record,) = each.fit(X, y, epochs=1, verbose=0)
            assert 0.05 < record.seconds < first + time.perf_counter() - start
            assert record.examples_per_second == N / record.seconds

    @pytest.mark.parametrize("other", ["X", "y", "weights", "batch_size", "seed"])
    def test_with_other_data_the_epoch_begins_anew(self, other):
        X, y = data()
        trainer, net = trainer_of(), network()
        at_step(trainer, 9, interrupt)
        trainer.fit(X, y, epochs=2, verbose=0)
        phi, w, optimizer = trainer.net.phi.copy(), None, copy.deepcopy(trainer.optimizer)
        if other == "X":
            X = 2 * X
        elif other == "y":
            y = (y + 1) % K
        elif other == "weights":
            w = np.linspace(1, 2, N)
        elif other == "batch_size":
            trainer.batch_size = 10
        else:
            trainer.seed = 3
        (record,) = trainer.fit(X, y, epochs=1, sample_weight=w, verbose=0)
        net.phi[...] = phi
        twin = trainer_of(net, batch_size=trainer.batch_size, seed=trainer.seed)
        twin.epochs_done, twin.optimizer = 1, optimizer
        assert record.epoch == 2
        assert trainer.optimizer.t == 9 + -(-N // trainer.batch_size)  # all batches, not those that were left

    def test_after_numbers_that_were_not_finite_the_epoch_begins_anew(self):
        X, y = data()
        trainer = trainer_of(network("plain", "float32"), bp.SGD(0.1))
        at_step(trainer, 9, lambda: np.copyto(trainer.net.phi, np.nan))
        with pytest.raises(FloatingPointError):
            trainer.fit(X, y, epochs=3, verbose=0)
        assert trainer.position == (1, 0)


OTHER_DATA = {
    "X": (lambda X, y, w: (X * np.where(np.arange(N) == 17, 1.001, 1)[:, None], y, w), "SHA-256 of X"),
    "rows in another order": (lambda X, y, w: (X[::-1], y, w), "SHA-256 of X"),
    "fewer rows": (lambda X, y, w: (X[:-1], y[:-1], w[:-1]), "shape of X [50, 6]", "[49, 6]"),
    "dtype": (lambda X, y, w: (X.astype(np.float32), y, w), "dtype of X float64", "float32"),
    "blocks": (lambda X, y, w: (Blocks(X), y, w), "way to read X at once", "in blocks of"),
    "y": (lambda X, y, w: (X, (y + 1) % K, w), "SHA-256 of y"),
    "weights": (lambda X, y, w: (X, y, 2 * w), "SHA-256 of sample_weight"),
    "no weights": (lambda X, y, w: (X, y, None), "SHA-256 of sample_weight", "none"),
}


class TestData:
    @pytest.mark.parametrize("other", OTHER_DATA)
    @pytest.mark.parametrize("step", [7, 10], ids=lambda step: f"step {step}")
    def test_other_data_are_named(self, other, step, tmp_path):
        change, *parts = OTHER_DATA[other]
        (X, y), w = data(), np.linspace(1, 2, N)
        trainer = trainer_of()
        at_step(trainer, step, lambda: trainer.save(tmp_path / "run"))
        trainer.fit(X, y, sample_weight=w, epochs=2, verbose=0)
        again = bp.Trainer.resume(tmp_path / "run")
        X2, y2, w2 = change(X, y, w)
        before = digest(again)
        call = lambda: again.fit(X2, y2, sample_weight=w2, epochs=1, verbose=0)  # noqa: E731
        assert_refused(call, ValueError, "Trainer.epochs", *parts, "other_data=True")
        assert digest(again) == before
        again.fit(X, y, sample_weight=w, epochs=2 - again.epochs_done, verbose=0)  # the right ones still go
        assert digest(again) == digest(trainer)

    def test_other_data_where_that_is_meant(self, tmp_path):
        X, y = data()
        trainer = trainer_of()
        at_step(trainer, 10, lambda: trainer.save(tmp_path / "run"))
        trainer.fit(X, y, epochs=2, verbose=0)
        again = bp.Trainer.resume(tmp_path / "run", other_data=True)
        assert (again.position, again.optimizer.t) == ((1, 0), 10)
        history = again.fit(2 * X, y, epochs=1, verbose=0)
        assert (history["epoch"], again.optimizer.t) == ([2], 17)

    def test_after_the_first_fit_it_is_a_trainer_like_any_other(self, tmp_path):
        X, y = data()
        trainer = trainer_of()
        trainer.fit(X, y, epochs=1, verbose=0)
        trainer.save(tmp_path / "run")
        again = bp.Trainer.resume(tmp_path / "run")
        for scale in (1, 2):
            again.fit(scale * X, y, epochs=1, verbose=0)

    def test_single_steps_and_evaluation_take_any(self, tmp_path):
        X, y = data()
        trainer = trainer_of()
        trainer.fit(X, y, epochs=1, verbose=0)
        trainer.save(tmp_path / "run")
        again = bp.Trainer.resume(tmp_path / "run")
        assert again.step(X[:8], y[:8]) == trainer.step(X[:8], y[:8])
        assert again.evaluate(X[:9], y[:9]) == trainer.evaluate(X[:9], y[:9])

    @pytest.mark.parametrize("order", "CF")
    def test_no_copy_is_made_of_large_data(self, order):
        X = np.zeros((400_000, D), order=order)
        trainer = trainer_of()
        examples = checkpoint.Examples("", trainer.net, trainer.loss, X, np.zeros(len(X), int))
        tracemalloc.start()
        examples.fingerprint()
        assert tracemalloc.get_traced_memory()[1] < 1.1 * BLOCK_BYTES  # X has 19 MB
        tracemalloc.stop()


class TestMachine:
    @pytest.mark.parametrize("name", ["numpy", "backprop", "threads", "vector instructions"])
    def test_the_first_difference_is_told(self, name, tmp_path, monkeypatch):
        if name == "threads":
            monkeypatch.setattr(native, "player", None)  # with which they do not count
        trainer = trainer_of()
        trainer.save(tmp_path / "run")
        there = checkpoint.machine(trainer.settings)
        monkeypatch.setattr(checkpoint, "machine", lambda settings: there | {name: "0.0"})
        with pytest.warns(UserWarning, match=f"{name} {there[name]}, as where it was saved, got 0.0") as caught:
            bp.Trainer.resume(tmp_path / "run")
        assert caught[0].filename == __file__

    def test_names_the_library_and_its_kernel(self):
        found = checkpoint.machine()
        blas = [value for name, value in found.items() if name.startswith("BLAS of")]
        assert blas
        assert all(len(value.split()) == 3 for value in blas if value.startswith("openblas"))
        assert found["backprop"] == bp.__version__

    @pytest.mark.parametrize(("player", "deterministic"), [(None, True), (object(), False)])
    def test_threads_do_not_matter_where_bits_do_not_depend_on_them(self, player, deterministic, monkeypatch):
        monkeypatch.setattr(native, "player", player)
        assert "threads" not in checkpoint.machine(trainer_of(deterministic=deterministic).settings)


def swish(v):
    return v * v.sigmoid()


def tanh(v):
    return v.tanh()


def with_function(function=swish, width=5):
    return bp.Sequential(bp.Linear(D, width), bp.Elementwise(function), bp.Linear(width, K), seed=0, dtype="float64")


OTHER_OBJECTS = {
    "function": (lambda: {"net": with_function(tanh)}, "net.1 = Elementwise(swish)", "net.1 = Elementwise(tanh)"),
    "width": (lambda: {"net": with_function(width=4)}, "out_features=5", "out_features=4"),
    "layers": (lambda: {"net": bp.Sequential(bp.Linear(D, K))}, "Linear(in_features=6, out_features=5"),
    "loss": (lambda: {"net": with_function(), "loss": bp.LeastSquares()}, "CrossEntropy()", "LeastSquares()"),
    "rule": (lambda: {"net": with_function(), "optimizer": bp.Adam()}, "SGD(learning_rate=0.1", "Adam()"),
    "rate": (lambda: {"net": with_function(), "optimizer": bp.SGD(0.2, 0.9)}, "0.1", "0.2"),
}


class TestObjects:
    """What is no data, or a class of one's own."""

    def saved(self, path, **settings):
        trainer = trainer_of(with_function(), **settings)
        trainer.fit(*data(), epochs=1, verbose=0)
        trainer.save(path)
        return trainer

    def test_a_function_comes_with_its_network(self, tmp_path):
        trainer, net = self.saved(tmp_path / "run"), with_function()
        again = bp.Trainer.resume(tmp_path / "run", net=net)
        assert again.net is net
        for each in (trainer, again):
            each.fit(*data(), epochs=1, verbose=0)
        assert digest(trainer) == digest(again)

    def test_its_network_is_asked_for(self, tmp_path):
        self.saved(tmp_path / "run")
        call = lambda: bp.Trainer.resume(tmp_path / "run")  # noqa: E731
        assert_refused(call, TypeError, "Trainer.resume", "net=…", "got none", "swish")

    @pytest.mark.parametrize("name", ["loss", "optimizer"])
    def test_the_other_objects(self, name, tmp_path):
        trainer = trainer_of()
        trainer.fit(*data(), epochs=1, verbose=0)
        trainer.save(tmp_path / "run")
        given = {"loss": bp.CrossEntropy(), "optimizer": bp.SGD(0.1, momentum=0.9)}[name]
        again = bp.Trainer.resume(tmp_path / "run", **{name: given})
        assert getattr(again, name) is given
        assert digest(again) == digest(trainer)

    @pytest.mark.parametrize("other", OTHER_OBJECTS)
    def test_another_object_is_refused_and_unchanged(self, other, tmp_path):
        make, *parts = OTHER_OBJECTS[other]
        self.saved(tmp_path / "run")
        given = make()
        phi = given["net"].phi.copy()
        call = lambda: bp.Trainer.resume(tmp_path / "run", **given)  # noqa: E731
        assert_refused(call, bp.FileFormatError, str(tmp_path / "run"), *parts)
        assert_array_equal(given["net"].phi, phi)
        if "optimizer" in given:
            assert (given["optimizer"].t, given["optimizer"].state) == (0, {})

    def test_another_dtype_is_refused(self, tmp_path):
        trainer_of(network("Dropout", "float32")).save(tmp_path / "run")
        call = lambda: bp.Trainer.resume(tmp_path / "run", net=network("Dropout"))  # noqa: E731
        assert_refused(call, bp.FileFormatError, "float32", "float64")

    @pytest.mark.parametrize("missing", OWN)
    def test_classes_of_one_s_own_have_to_be_passed(self, missing, tmp_path):
        settings = {"constraints": {"*.omega": Rounded(5)}}
        trainer_of(network("of one's own"), OPTIMIZERS["of one's own"](), Cubed(), **settings).save(tmp_path / "run")
        classes = [each for each in OWN if each is not missing]
        assert isinstance(bp.Trainer.resume(tmp_path / "run", classes=OWN).optimizer.schedule, Halving)
        call = lambda: bp.Trainer.resume(tmp_path / "run", classes=classes)  # noqa: E731
        assert_refused(call, bp.FileFormatError, str(tmp_path / "run"), missing.__name__)

    def test_other_data_is_true_or_false(self, tmp_path):
        trainer_of().save(tmp_path / "run")
        assert_refused(lambda: bp.Trainer.resume(tmp_path / "run", other_data="yes"), TypeError, "other_data", "'yes'")

    @pytest.mark.parametrize("classes", [["Scale"], [Scale(3)], 3], ids=str)
    def test_what_are_no_classes(self, classes, tmp_path):
        trainer_of().save(tmp_path / "run")
        with pytest.raises(TypeError):
            bp.Trainer.resume(tmp_path / "run", classes=classes)

    def test_constraints_have_to_be_data(self, tmp_path):
        class Function(bp.Constraint):
            def __init__(self, function):
                self.function = function

            def project(self, parameter):
                self.function(parameter)

        trainer = trainer_of(constraints={"*": Function(lambda parameter: None)})
        assert_refused(lambda: trainer.save(tmp_path / "run"), TypeError, "function")
        assert not (tmp_path / "run").exists()


class TestFiles:
    @pytest.fixture
    def path(self, tmp_path):
        trainer = trainer_of()
        trainer.fit(*data(), epochs=1, verbose=0)
        trainer.save(tmp_path / "run")
        return tmp_path / "run"

    @pytest.mark.parametrize("where", [0.01, 0.3, 0.6, 0.9])
    def test_altered(self, where, path):
        content = bytearray(path.read_bytes())
        content[int(where * len(content))] ^= 1
        path.write_bytes(content)
        assert_refused(lambda: bp.Trainer.resume(path), bp.FileFormatError, str(path))

    def test_cut_short(self, path):
        path.write_bytes(path.read_bytes()[:-1])
        assert_refused(lambda: bp.Trainer.resume(path), bp.FileFormatError, str(path))

    def test_of_another_kind(self, path):
        network().save(path)
        assert_refused(lambda: bp.Trainer.resume(path), bp.FileFormatError, str(path), "checkpoint", "network")

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            bp.Trainer.resume(tmp_path / "nothing")

    @pytest.mark.parametrize("change", ["net", "position", "memory", "settings", "rng", "tensor", "state"])
    def test_whole_but_not_a_checkpoint(self, change, path):
        """What nobody altered but another version or program wrote."""
        about, arrays = container.read(path, "checkpoint")
        if change == "tensor":
            arrays["0.weight"] = arrays["0.weight"][:, 1:]
        elif change == "state":
            arrays["optimizer.velocity"] = arrays["optimizer.velocity"][1:]
        elif change == "settings":
            about["settings"]["batch_size"] = -1
        elif change == "rng":
            about["generators"] = None
        else:
            about[change] = {"class": "os.system"}
        container.write(path, "checkpoint", about, arrays)
        if change in ("rng", "memory"):  # there are no generators in this network, and no attribute `class`
            assert bp.Trainer.resume(path).optimizer.t in (0, 7)
        else:
            assert_refused(lambda: bp.Trainer.resume(path), bp.FileFormatError, str(path))

    def test_where_it_cannot_be_written(self, path, tmp_path):
        before = path.read_bytes()
        with pytest.raises(OSError, match="nowhere"):
            trainer_of().save(tmp_path / "nowhere" / "run")
        assert path.read_bytes() == before


class TestCheckpoints:
    def fit(self, callbacks, *, epochs=3, k=0, action=interrupt, **settings):
        trainer = trainer_of(network("both"), OPTIMIZERS["Adam"](), **settings)
        at_step(trainer, k, action)
        saved, save = [], trainer.save
        trainer.save = lambda path: (save(path), saved.append((trainer.optimizer.t, *trainer.position)))
        history = trainer.fit(*data(), epochs=epochs, callbacks=callbacks, verbose=0)
        return trainer, history, saved

    @pytest.mark.parametrize(
        ("every", "expected"),
        [
            ({}, [(7, 1, 0), (14, 2, 0), (21, 3, 0)]),
            ({"every_epochs": 2}, [(14, 2, 0), (21, 3, 0)]),
            ({"every_steps": 5}, [(5, 0, 5), (10, 1, 3), (15, 2, 1), (20, 2, 6), (21, 3, 0)]),
            ({"every_steps": 9, "every_epochs": 2}, [(9, 1, 2), (14, 2, 0), (18, 2, 4), (21, 3, 0)]),
        ],
        ids=str,
    )
    def test_saves_when_it_is_time(self, every, expected, tmp_path):
        trainer, _, saved = self.fit([bp.Checkpoints(tmp_path / "run", **every)])
        assert saved == expected
        assert digest(bp.Trainer.resume(tmp_path / "run")) == digest(trainer)

    def test_counts_from_the_very_first_step(self, tmp_path):
        trainer = trainer_of()
        checkpoints = bp.Checkpoints(tmp_path / "run", every_steps=10)
        at_step(trainer, 12, interrupt)
        trainer.fit(*data(), epochs=3, callbacks=[checkpoints], verbose=0)
        again = bp.Trainer.resume(tmp_path / "run")
        seen, save = [], again.save
        again.save = lambda path: (save(path), seen.append(again.optimizer.t))
        again.fit(*data(), epochs=2, callbacks=[checkpoints], verbose=0)
        assert seen == [20, 21]

    @pytest.mark.parametrize("first", [False, True])
    def test_control_c_saves_before_others_change_the_weights(self, first, tmp_path):
        path = tmp_path / "run"
        others = [bp.EarlyStopping(patience=9), bp.WeightAverage(0.9)]
        own = [bp.Checkpoints(path, every_epochs=10)]
        trainer, history, saved = self.fit(own + others if first else others + own, k=10)
        assert (history.stopped, saved) == ("Ctrl-C", [(10, 1, 3)])
        again, whole = bp.Trainer.resume(path), trainer_of(network("both"), OPTIMIZERS["Adam"]())
        assert not np.array_equal(again.net.phi, trainer.net.phi)
        records = whole.fit(*data(), epochs=3, verbose=0)
        left = again.fit(*data(), epochs=2, verbose=0)
        assert digest(again, [*history, *left]) == digest(whole, records)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: [bp.EarlyStopping("validation_loss", patience=2)],
            lambda: [
                bp.EarlyStopping(patience=2, restore_best=False),
                bp.BestWeights("validation_accuracy", mode="max"),
            ],
            lambda: [bp.WeightAverage(0.9), bp.EarlyStopping("epoch", patience=5), bp.WeightAverage(start_epoch=3)],
        ],
        ids=["early stopping", "best weights", "averages"],
    )
    def test_callbacks_remember(self, make, tmp_path):
        """The weights that callbacks put in place, and the epoch in which they stop, are those of a run that never stopped."""
        path, validation = tmp_path / "run", data(20, 2)
        saved = []

        class Copies(bp.Callback):
            outermost = True

            def step(self, trainer):
                trainer.save(path)
                saved.append(path.read_bytes())

        def fit(trainer, *more):
            left = 8 - trainer.epochs_done
            callbacks = [*make(), *more]
            return trainer.fit(*data(), epochs=left, validation_data=validation, callbacks=callbacks, verbose=0)

        whole = trainer_of(network("BatchNorm"), bp.SGD(0.3, momentum=0.95))
        records = fit(whole, Copies())
        for content in saved[:: 1 if THOROUGH else 5]:
            path.write_bytes(content)
            trainer = bp.Trainer.resume(path)
            trainer.save(path)  # what waits for its callback is kept
            trainer = bp.Trainer.resume(path)
            done = trainer.epochs_done
            history = fit(trainer)
            assert digest(trainer, history) == digest(whole, records[done:])
            assert history.stopped == records.stopped

    def test_callbacks_of_a_fit_that_is_over_begin_anew(self, tmp_path):
        trainer, path = trainer_of(), tmp_path / "run"
        trainer.fit(*data(), epochs=3, callbacks=[bp.EarlyStopping("epoch", patience=1)], verbose=0)
        trainer.save(path)
        stopper = bp.EarlyStopping("loss", patience=9)
        bp.Trainer.resume(path).fit(*data(), epochs=2, callbacks=[stopper], verbose=0)
        assert stopper.best_epoch > 2

    def test_sees_an_epoch_after_the_others(self, tmp_path):
        class Halve(bp.Callback):
            def epoch(self, trainer, record):
                trainer.optimizer.schedule = bp.ConstantRate(record.learning_rate / 2)

        self.fit([bp.Checkpoints(tmp_path / "run"), Halve()], epochs=2)
        assert bp.Trainer.resume(tmp_path / "run").optimizer.learning_rate == 0.05 / 5 / 4  # 1/5 of it: warm-up

    def test_what_a_callback_stopped_is_saved(self, tmp_path):
        _, history, saved = self.fit(
            [bp.Checkpoints(tmp_path / "run", every_epochs=9), bp.EarlyStopping("learning_rate", patience=1)], epochs=9
        )
        assert saved == [(7 * len(history), len(history), 0)]

    def test_numbers_that_are_not_finite_are_not_saved(self, tmp_path):
        path = tmp_path / "run"
        trainer = trainer_of(network(dtype="float32"))
        at_step(trainer, 24, lambda: np.copyto(trainer.net.phi, np.nan))
        with pytest.raises(FloatingPointError):
            trainer.fit(*data(), epochs=5, callbacks=[bp.Checkpoints(path, every_epochs=2)], verbose=0)
        assert bp.Trainer.resume(path).position == (2, 0)

    def test_a_fit_that_never_began_saves_nothing(self, tmp_path):
        class Broken(bp.Callback):
            outermost = True

            def start(self, trainer):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            self.fit([bp.Checkpoints(tmp_path / "run"), Broken()])
        assert os.listdir(tmp_path) == []

    def test_training_is_the_same_with_them(self, tmp_path):
        trainer, history, _ = self.fit([bp.Checkpoints(tmp_path / "run", every_steps=1)])
        plain, records, _ = self.fit([])
        assert digest(trainer, history) == digest(plain, records)
        assert len(trainer.after_step) == 1  # the one of this test

    def test_what_cannot_be_written_is_told(self, tmp_path):
        with pytest.raises(OSError, match="nowhere"):
            self.fit([bp.Checkpoints(tmp_path / "nowhere" / "run", every_steps=3)])

    @pytest.mark.parametrize(
        ("settings", "error"),
        [
            ({"path": 3}, TypeError),
            ({"every_steps": 0}, ValueError),
            ({"every_epochs": 1.5}, TypeError),
            ({"every_epochs": -1}, ValueError),
        ],
        ids=str,
    )
    def test_bad_settings(self, settings, error):
        assert_refused(lambda: bp.Checkpoints(**{"path": "run"} | settings), error, "Checkpoints", next(iter(settings)))

    def test_minimize_has_no_steps_to_go_on_from(self, tmp_path):
        X, y = data()
        call = lambda: bp.minimize(  # noqa: E731
            network(), bp.CrossEntropy(), X, y, iterations=2, callbacks=[bp.Checkpoints(tmp_path / "run")], verbose=0
        )
        assert_refused(call, TypeError, "Checkpoints", "Trainer.fit")

    def test_repr(self):
        assert repr(bp.Checkpoints("run", every_epochs=2)) == "Checkpoints(path='run', every_epochs=2)"


class TestStepOfCallbacks:
    def test_is_called_after_each_step(self):
        class Log(bp.Callback):
            def step(self, trainer):
                seen.append((trainer.optimizer.t, *trainer.position))

        seen = []
        trainer = trainer_of()
        for _ in range(2):
            trainer.fit(*data(), epochs=1, callbacks=[Log()], verbose=0)
        assert seen == [(k, (k - 1) // 7, (k - 1) % 7 + 1) for k in range(1, 15)]
        assert trainer.after_step == []

    def test_an_error_there_leaves_a_position_to_go_on_from(self):
        class Broken(bp.Callback):
            def step(self, trainer):
                if trainer.optimizer.t == 5:
                    raise ZeroDivisionError

        X, y = data()
        whole, trainer = trainer_of(), trainer_of()
        with pytest.raises(ZeroDivisionError):
            trainer.fit(X, y, epochs=2, callbacks=[Broken()], verbose=0)
        assert (trainer.position, trainer.after_step) == ((0, 5), [])
        assert digest(trainer, trainer.fit(X, y, epochs=2, verbose=0)) == digest(
            whole, whole.fit(X, y, epochs=2, verbose=0)
        )


OVERFLOWING = {
    "Adam": (bp.Adam, [], 1e10, "second_moment of 0.omega"),
    "RMSProp": (bp.RMSProp, [], 1e10, "square of 0.omega"),
    "BatchNorm": (bp.SGD, [bp.BatchNorm(1)], 1e20, "0.running_variance"),
}


@pytest.mark.parametrize("name", OVERFLOWING)
def test_what_is_saved_in_an_epoch_can_be_read_back(name, tmp_path):
    """State and statistics that overflow are named before a callback could write them."""
    rule, before, far, tensor = OVERFLOWING[name]
    layers = [each.copy() for each in before]
    net = bp.Sequential(*layers, bp.Linear(1, 1, initializer=bp.Constant(1.0)), seed=0)
    trainer = bp.Trainer(net, bp.LeastSquares(), rule(1e-3), batch_size=2, shuffle=False)
    X, path = np.array([[1.0], [2.0], [far], [-far], [1.0], [2.0]]), tmp_path / "run"
    with pytest.raises(FloatingPointError, match=f"at step 2.*{tensor}"):
        trainer.fit(X, np.zeros(6), epochs=1, verbose=0, callbacks=[bp.Checkpoints(path, every_steps=1)])
    assert bp.Trainer.resume(path).position == (0, 1)
    trainer.save(path)
    assert bp.Trainer.resume(path).position == (0, 0)


def test_numbers_that_are_not_finite_are_not_saved(tmp_path):
    trainer = trainer_of(network("plain"), bp.Adam(1e-3))
    trainer.step(*data(8))
    trainer.save(tmp_path / "run")
    for vector in (trainer.net.phi, trainer.optimizer.state["first_moment"]):
        vector[0] = np.nan
        with pytest.raises(ValueError, match=r"Trainer\.save: expected finite numbers"):
            trainer.save(tmp_path / "run")
        vector[0] = 0
    bp.Trainer.resume(tmp_path / "run")


def test_state_that_the_rule_has_not_is_refused(tmp_path):
    path = tmp_path / "run"
    trainer_of(network("plain"), bp.SGD(1e-3)).save(path)
    about, arrays = container.read(path, "checkpoint")
    container.write(path, "checkpoint", about, arrays | {"optimizer.junk": np.zeros(7)})
    with pytest.raises(bp.FileFormatError, match=r"optimizer\.junk"):
        bp.Trainer.resume(path)


@pytest.mark.parametrize("value", [[], ["a"], [0.1, 0.2], (1, 2), {1, 2}])
def test_a_callback_s_state_that_cannot_come_back_is_not_saved(value, tmp_path):
    class Keeps(bp.Callback):
        def state(self):
            return {"seen": value}

    trainer, path = trainer_of(), tmp_path / "run"
    with pytest.raises(TypeError, match=r"Trainer\.save: expected states of numbers, words and arrays"):
        trainer.fit(*data(), epochs=1, verbose=0, callbacks=[Keeps(), bp.Checkpoints(path)])


def test_what_a_schedule_remembers_may_be_a_number_of_numpy(tmp_path):
    class Halves(bp.Schedule):
        def __init__(self, learning_rate):
            self.learning_rate, self.m = learning_rate, np.float32(1)

        def __call__(self, t):
            return self.learning_rate * float(self.m)

        def observe(self, loss):
            self.m = np.float32(self.m * 0.5)

    trainer = trainer_of(optimizer=bp.SGD(Halves(0.1)))
    trainer.fit(*data(), epochs=2, verbose=0)
    trainer.save(tmp_path / "run")
    again = bp.Trainer.resume(tmp_path / "run", classes=[Halves])
    assert again.optimizer.learning_rate == trainer.optimizer.learning_rate == 0.025


def test_an_error_of_a_schedule_that_observes_loses_no_epoch():
    class Fails(bp.ReduceOnPlateau):
        fail = False

        def observe(self, loss):
            if self.fail:
                raise OSError
            super().observe(loss)

    def make():
        return trainer_of(optimizer=bp.SGD(Fails(0.05, patience=0, threshold=0.5)))

    whole, parts = make(), make()
    whole.fit(*data(), epochs=6, verbose=0)
    n = len(parts.fit(*data(), epochs=2, verbose=0))
    parts.optimizer.schedule.fail = True
    with pytest.raises(OSError):  # noqa: PT011
        parts.fit(*data(), epochs=4, verbose=0)
    parts.optimizer.schedule.fail = False
    n += len(parts.fit(*data(), epochs=6 - parts.epochs_done, verbose=0))
    assert n == 6
    assert_array_equal(whole.net.phi, parts.net.phi)
