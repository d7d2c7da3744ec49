"""The trainer: what it reports, how it stops, and that it never leaves weights behind that are no weights."""

from __future__ import annotations

import math
import os
import re
import signal
import threading
import time

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from test_bad_input import assert_refused

import backprop as bp

D, K, N = 6, 3, 50


def data(n=N, seed=1):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, D))
    return X, (X[:, :K] + 0.3 * rng.standard_normal((n, K))).argmax(axis=1)


def network(*hidden, dtype="float64", seed=0):
    return bp.Sequential(bp.Linear(D, 5), *(hidden or (bp.Tanh(),)), bp.Linear(5, K), seed=seed, dtype=dtype)


def trainer_of(net, optimizer=None, **settings):
    return bp.Trainer(net, bp.CrossEntropy(), optimizer or bp.SGD(0.1), **{"batch_size": 8} | settings)


def descended(net, optimizer, steps, batch_size=8, loss=None, first_epoch=0):
    """The first `steps` steps of minibatch descent, as on the chalkboard."""
    loss, (X, y) = loss or bp.CrossEntropy(), data()
    epoch = first_epoch
    while steps:
        order = np.random.default_rng([0, epoch]).permutation(N)
        for start in range(0, N, batch_size)[:steps]:
            rows = order[start : start + batch_size]
            loss.forward(net.forward(X[rows].T), y[rows])
            optimizer.step(net.phi, net.backward(loss.backward())[1].dL_dphi)
            steps -= 1
        epoch += 1
    return net


class Hook(bp.Layer):
    """The identity, which calls a function before each forward and changes the gradient of each backward."""

    keeps_width = True

    def __init__(self, before=lambda h: None, change=lambda dL_dh: dL_dh):
        self.before, self.change = before, change

    def forward(self, h):
        self.before(h)
        return h * 1.0

    def infer(self, h):
        return h * 1.0

    def backward(self, dL_df):
        return self.change(dL_df), {}


def at_call(k, action):
    """A function that acts in its k-th call (counting from 1) and returns its argument otherwise."""
    calls = [0]

    def act(x):
        calls[0] += 1
        return action(x) if calls[0] == k else x

    return act


class Log(bp.Callback):
    """Keeps φ after each epoch, and what was called in which order."""

    def __init__(self, name="", events=None, stop=None):
        self.name, self.events, self.stop, self.phi, self.buffers = name, events, stop, [], []

    def note(self, *event):
        if self.events is not None:
            self.events.append((self.name, *event))

    def start(self, trainer):
        self.note("start", trainer.epochs_done)

    def epoch(self, trainer, record):
        self.note("epoch", record.epoch)
        self.phi.append(trainer.net.phi.copy())
        self.buffers.append({name: buffer.copy() for name, buffer in trainer.net.buffers.items()})
        return record.epoch == self.stop

    def end(self, trainer):
        self.note("end", trainer.epochs_done)


def scripted(*values):
    """A metric that returns these values, epoch after epoch."""
    left = iter(values)

    def score(f, y):
        return next(left)

    return score


class TestHistory:
    def test_columns(self):
        X, y = data()
        history = trainer_of(network()).fit(X, y, epochs=3, verbose=0)
        assert history.names() == ["epoch", "loss", "seconds", "examples_per_second", "learning_rate"]
        assert history["epoch"] == [1, 2, 3]
        assert len(history) == 3
        assert history.stopped == ""
        assert history["learning_rate"] == [0.1] * 3
        assert [record.loss for record in history] == history["loss"]
        assert history[-1].epoch == 3
        assert [record.epoch for record in history[1:]] == [2, 3]

    def test_validation_and_metrics_by_name_and_function(self):
        def share_of_zeros(f, y):
            assert f.shape == (len(y), K)
            return float(np.mean(y == 0))

        X, y = data()
        Xv, yv = data(20, seed=2)
        net = network()
        history = trainer_of(net).fit(
            X, y, epochs=2, validation_data=(Xv, yv), metrics=["accuracy", share_of_zeros], verbose=0
        )
        assert history.names()[5:] == [
            *("accuracy", "share_of_zeros"),
            *("validation_loss", "validation_accuracy", "validation_share_of_zeros"),
        ]
        f = net.predict(Xv)
        assert_allclose(history["validation_loss"][-1], bp.CrossEntropy().forward(f.T, yv), rtol=1e-12)
        assert_allclose(history["validation_accuracy"][-1], np.mean(f.argmax(axis=1) == yv), rtol=1e-12)
        assert_allclose(history["accuracy"][-1], np.mean(net.predict(X).argmax(axis=1) == y), rtol=1e-12)
        assert history["validation_share_of_zeros"] == [np.mean(yv == 0)] * 2

    def test_validation_data_with_weights(self):
        X, y = data()
        Xv, yv = data(20, seed=2)
        w = np.repeat([0.0, 1.0], 10)
        both = [
            trainer_of(network()).fit(X, y, epochs=1, validation_data=validation, verbose=0)
            for validation in ((Xv, yv, w), (Xv[10:], yv[10:]))
        ]
        assert_allclose(both[0]["validation_loss"], both[1]["validation_loss"], rtol=1e-12)

    def test_the_loss_falls(self):
        X, y = data()
        losses = trainer_of(network()).fit(X, y, epochs=20, verbose=0)["loss"]
        assert losses[-1] < 0.7 * losses[0]

    def test_seconds_and_examples_per_second(self):
        X, y = data()
        start = time.perf_counter()
        slow = Hook(at_call(3, lambda h: time.sleep(0.05)))
        history = trainer_of(network(slow)).fit(X, y, epochs=2, verbose=0)
        wall = time.perf_counter() - start
        assert history["seconds"][0] >= 0.05
        assert sum(history["seconds"]) <= wall
        for record in history:
            assert_allclose(record.examples_per_second * record.seconds, N, rtol=1e-12)

    def test_the_learning_rate_is_that_of_the_first_step(self):
        X, y = data()
        rate = bp.ExponentialDecay(0.1, factor=0.9)
        history = trainer_of(network(), bp.SGD(rate)).fit(X, y, epochs=3, verbose=0)
        assert_allclose(history["learning_rate"], [0.1, 0.1 * 0.9**7, 0.1 * 0.9**14], rtol=1e-12)

    @pytest.mark.parametrize("batch_size", [1, 7, 8, 49, 50, 51])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_the_loss_of_an_epoch_is_the_mean_over_examples(self, batch_size, weighted):
        X, y = data()
        w = np.random.default_rng(3).uniform(0.1, 3, N) if weighted else None
        net = network()
        expected = bp.CrossEntropy().forward(net.forward(X.T), y, w)
        # At this rate φ stays where it is, so every batch is measured with the same weights.
        trainer = trainer_of(net, bp.SGD(1e-300), batch_size=batch_size)
        history = trainer.fit(X, y, epochs=1, sample_weight=w, verbose=0)
        assert_allclose(history["loss"], [expected], rtol=1e-12)

    def test_an_unknown_column_lists_the_columns(self):
        history = bp.History([bp.Epoch(1, 0.5, 1.0, 50.0, 0.1)])
        with pytest.raises(KeyError, match=r"examples_per_second.*got 'accuracy'"):
            history["accuracy"]

    def test_records_cannot_be_changed(self):
        record = bp.Epoch(1, 0.5, 1.0, 50.0, 0.1)
        with pytest.raises(AttributeError):
            record.loss = 0.0

    def test_repr(self):
        assert repr(bp.History()) == "History(no epochs)"
        text = repr(bp.History([bp.Epoch(1, 0.5, 1.0, 50.0, 0.1)], stopped="Ctrl-C"))
        assert "History(1 epoch;" in text
        assert "loss 0.5" in text
        assert "Ctrl-C" in text


class TestOrder:
    def test_epochs_may_be_left(self):
        X, y = data()
        net, twin = network(), network()
        trainer = trainer_of(net)
        for record in trainer.epochs(X, y, 100):
            if record.epoch == 3:
                break
        trainer_of(twin).fit(X, y, epochs=3, verbose=0)
        assert_array_equal(net.phi, twin.phi)
        assert (trainer.epochs_done, trainer.optimizer.t) == (3, 21)

    @pytest.mark.parametrize("shards", [1, 2])
    @pytest.mark.parametrize(
        "optimizer",
        [lambda: bp.SGD(0.1, momentum=0.9), lambda: bp.SGD(0.1, 0.9, True, 0.01), bp.Adam],
        ids=["momentum", "nesterov", "Adam"],
    )
    def test_a_second_fit_goes_on(self, optimizer, shards):
        X, y = data()
        net, twin = network(bp.Dropout(0.2)), network(bp.Dropout(0.2))
        trainer = trainer_of(net, optimizer(), shards=shards)
        first, second = (trainer.fit(X, y, epochs=n, verbose=0) for n in (4, 6))
        whole = trainer_of(twin, optimizer(), shards=shards).fit(X, y, epochs=10, verbose=0)
        assert_array_equal(net.phi, twin.phi)
        assert first["loss"] + second["loss"] == whole["loss"]
        assert second["epoch"] == [5, 6, 7, 8, 9, 10]

    def batches(self, epochs, *, seed=0, optimizer=None, steps_before=0):
        """The batches a network sees, by epoch."""
        X, y = data()
        seen = []
        net = bp.Sequential(Hook(lambda h: seen.append(h.T.copy())), bp.Linear(D, K), dtype="float64")
        trainer = trainer_of(net, optimizer, seed=seed)
        for _ in range(steps_before):
            trainer.step(X, y)
        seen.clear()
        for _ in trainer.epochs(X, y, epochs):
            pass
        return [np.concatenate(seen[i : i + 7]) for i in range(0, len(seen), 7)]

    def test_shuffling_depends_on_seed_and_epoch_alone(self):
        X, _ = data()
        plain = self.batches(3)
        for other in (self.batches(3, optimizer=bp.Adam()), self.batches(3, steps_before=2)):
            for a, b in zip(plain, other, strict=True):
                assert_array_equal(a, b)
        elsewhere = self.batches(3, seed=1)
        orders = [*plain, *elsewhere]
        for i, a in enumerate(orders):
            assert_array_equal(np.sort(a, axis=0), np.sort(X, axis=0))  # every row once
            assert not any(np.array_equal(a, b) for b in orders[:i])

    def test_rows_and_targets_stay_together(self):
        X = np.arange(N, dtype=float)[:, None]
        pairs = []

        class Spy(bp.Loss):
            def ell(self, f, y):
                pairs.append((f.copy(), np.array(y)))
                self.f = f
                return (f * 0).sum(axis=0)

            def dell_df(self):
                return np.zeros_like(self.f)

        net = bp.Sequential(bp.Identity(), dtype="float64")
        bp.Trainer(net, Spy(), bp.SGD(0.1), batch_size=8).fit(X, 3 * X[:, 0], epochs=2, verbose=0)
        assert len(pairs) == 14
        for f, y in pairs:
            assert_array_equal(3 * f, y)

    def test_the_caller_may_use_the_network_between_epochs(self):
        X, y = data()
        net, twin = network(), network()
        f = net.forward(X[:3].T)
        dL_dh, _ = net.backward(np.ones_like(f))
        for _ in trainer_of(net, bp.SGD(0.1, momentum=0.9)).epochs(X, y, 3):
            net.predict(X)
            net.forward(X[:11].T)
            net.backward(np.ones((K, 11)))
            net[0].forward(X[0])
        trainer_of(twin, bp.SGD(0.1, momentum=0.9)).fit(X, y, epochs=3, verbose=0)
        assert_array_equal(net.phi, twin.phi)
        assert dL_dh.shape == (D, 3)

    def test_training_in_another_thread(self):
        X, y = data()
        net, twin = network(), network()
        thread = threading.Thread(target=lambda: trainer_of(net).fit(X, y, epochs=2, verbose=0))
        thread.start()
        thread.join()
        trainer_of(twin).fit(X, y, epochs=2, verbose=0)
        assert_array_equal(net.phi, twin.phi)


class TestEarlyStopping:
    def fit(self, stopper, values, net=None, epochs=20, callbacks=()):
        X, y = data()
        trainer = trainer_of(net or network())
        log = Log()
        history = trainer.fit(
            X, y, epochs=epochs, metrics=[scripted(*values)], callbacks=[log, stopper, *callbacks], verbose=0
        )
        return trainer, log, history

    def test_stops_and_restores_the_best_weights(self):
        stopper = bp.EarlyStopping("score", patience=2)
        trainer, log, history = self.fit(stopper, [3, 2, 5, 4, 1, 1])
        assert len(history) == 4
        assert history.stopped == "EarlyStopping"
        assert stopper.best_epoch == 2
        assert_array_equal(trainer.net.phi, log.phi[1])
        assert not np.array_equal(log.phi[1], log.phi[3])

    def test_restores_running_statistics(self):
        net = network(bp.BatchNorm(5), bp.ReLU())
        _, log, _ = self.fit(bp.EarlyStopping("score", patience=1), [2, 1, 3], net)
        for name, buffer in net.buffers.items():
            assert_array_equal(buffer, log.buffers[1][name])
            assert not np.array_equal(buffer, log.buffers[2][name])

    def test_restores_the_best_also_when_training_runs_to_its_end(self):
        trainer, log, history = self.fit(bp.EarlyStopping("score", patience=9), [3, 1, 2], epochs=3)
        assert history.stopped == ""
        assert_array_equal(trainer.net.phi, log.phi[1])

    def test_may_leave_the_last_weights(self):
        stopper = bp.EarlyStopping("score", patience=2, restore_best=False)
        trainer, log, _ = self.fit(stopper, [1, 2, 3])
        assert_array_equal(trainer.net.phi, log.phi[2])

    def test_a_higher_score_may_be_better(self):
        stopper = bp.EarlyStopping("score", patience=2, mode="max")
        trainer, log, history = self.fit(stopper, [0.5, 0.9, 0.8, 0.7, 1.0])
        assert len(history) == 4
        assert_array_equal(trainer.net.phi, log.phi[1])

    @pytest.mark.parametrize("mode", ["min", "max"])
    def test_best_is_the_value_that_was_monitored(self, mode):
        stopper = bp.EarlyStopping("score", mode=mode)
        self.fit(stopper, [0.5, 0.25, 0.75], epochs=3)
        assert stopper.best == {"min": 0.25, "max": 0.75}[mode]

    def test_min_delta(self):
        stopper = bp.EarlyStopping("score", patience=2, min_delta=0.1)
        trainer, log, history = self.fit(stopper, [1.0, 0.95, 0.92, 0.1])
        assert len(history) == 3
        assert_array_equal(trainer.net.phi, log.phi[0])

    def test_nan_is_no_improvement(self):
        stopper = bp.EarlyStopping("score", patience=2)
        trainer, log, history = self.fit(stopper, [1.0, math.nan, math.nan, 0.5])
        assert len(history) == 3
        assert_array_equal(trainer.net.phi, log.phi[0])

    def test_monitors_the_validation_loss_where_there_is_one(self):
        X, y = data()
        flipped = (y + 1) % K  # what training learns makes this worse
        stopper = bp.EarlyStopping(patience=2)
        history = trainer_of(network()).fit(
            X, y, epochs=50, validation_data=(X, flipped), callbacks=[stopper], verbose=0
        )
        assert history.stopped == "EarlyStopping"
        assert stopper.best == min(history["validation_loss"])
        assert history["loss"][-1] < history["loss"][0]

    def test_monitors_the_loss_where_there_is_no_other(self):
        X, y = data()
        stopper = bp.EarlyStopping()
        history = trainer_of(network()).fit(X, y, epochs=3, callbacks=[stopper], verbose=0)
        assert stopper.best == min(history["loss"])

    def test_a_second_fit_starts_afresh(self):
        X, y = data()
        stopper = bp.EarlyStopping("score", patience=1)
        trainer = trainer_of(network())
        for values in ([1, 2], [8, 7, 9]):
            history = trainer.fit(X, y, epochs=9, metrics=[scripted(*values)], callbacks=[stopper], verbose=0)
            assert len(history) == len(values)
        assert stopper.best == 7

    def test_unknown_monitor_lists_the_columns(self):
        X, y = data()
        trainer = trainer_of(network())
        call = lambda: trainer.fit(  # noqa: E731
            X, y, epochs=2, callbacks=[bp.EarlyStopping("accuracy")], verbose=0
        )
        assert_refused(call, ValueError, "EarlyStopping", "'loss'", "'learning_rate'", "'accuracy'")

    @pytest.mark.parametrize(
        ("settings", "error", "name"),
        [
            ({"patience": 0}, ValueError, "patience"),
            ({"patience": 2.5}, TypeError, "patience"),
            ({"patience": True}, TypeError, "patience"),
            ({"min_delta": -1}, ValueError, "min_delta"),
            ({"min_delta": math.nan}, ValueError, "min_delta"),
            ({"min_delta": "small"}, TypeError, "min_delta"),
            ({"mode": "low"}, ValueError, "'min', 'max'"),
            ({"restore_best": 1}, TypeError, "restore_best"),
        ],
        ids=str,
    )
    def test_bad_settings(self, settings, error, name):
        assert_refused(lambda: bp.EarlyStopping(**settings), error, "EarlyStopping", name)


class TestCallbacks:
    def test_order(self):
        X, y = data()
        events = []
        trainer = trainer_of(network())
        callbacks = [Log("a", events), Log("b", events, stop=2), Log("c", events)]
        history = trainer.fit(X, y, epochs=5, callbacks=callbacks, verbose=0)
        assert history.stopped == "Log"
        names = ["a", "b", "c"]
        expected = [(name, "start", 0) for name in names]
        expected += [(name, "epoch", epoch) for epoch in (1, 2) for name in names]
        expected += [(name, "end", 2) for name in names]
        assert events == expected

    def test_the_base_class_does_nothing(self):
        X, y = data()
        net, twin = network(), network()
        trainer_of(net).fit(X, y, epochs=2, callbacks=[bp.Callback()], verbose=0)
        trainer_of(twin).fit(X, y, epochs=2, verbose=0)
        assert_array_equal(net.phi, twin.phi)

    @pytest.mark.parametrize("callbacks", [[bp.EarlyStopping], [print], bp.EarlyStopping(), "EarlyStopping"], ids=str)
    def test_what_is_no_callback(self, callbacks):
        X, y = data()
        trainer = trainer_of(network())
        assert_refused(lambda: trainer.fit(X, y, callbacks=callbacks, verbose=0), TypeError, "Trainer.fit", "callbacks")
        assert trainer.optimizer.t == 0

    def test_an_error_in_a_callback_arrives(self):
        class Broken(bp.Callback):
            def epoch(self, trainer, record):
                raise ZeroDivisionError("mine")

        X, y = data()
        trainer = trainer_of(network())
        with pytest.raises(ZeroDivisionError, match="mine"):
            trainer.fit(X, y, epochs=2, callbacks=[Broken()], verbose=0)
        assert trainer.epochs_done == 1


def interrupt(x):
    os.kill(os.getpid(), signal.SIGINT)
    return x


class TestControlC:
    @pytest.mark.parametrize("shards", [1, 2])
    @pytest.mark.parametrize("k", [1, 3, 7, 9, 15])
    @pytest.mark.parametrize("optimizer", [lambda: bp.SGD(0.1, momentum=0.9), bp.Adam], ids=["SGD", "Adam"])
    def test_ends_after_the_step_at_hand(self, k, optimizer, shards):
        X, y = data()
        net = network(Hook(at_call((k - 1) * shards + 1, interrupt)))
        handler = signal.getsignal(signal.SIGINT)
        trainer = trainer_of(net, optimizer(), shards=shards, threads=1)
        log = Log(events=[])
        history = trainer.fit(X, y, epochs=5, callbacks=[log], verbose=0)
        assert history.stopped == "Ctrl-C"
        assert trainer.optimizer.t == k
        assert len(history) == (k - 1) // 7
        assert log.events[-1][1] == "end"
        assert_allclose(net.phi, descended(network(Hook()), optimizer(), k).phi, rtol=0, atol=1e-12)
        assert signal.getsignal(signal.SIGINT) is handler

    def test_at_any_moment(self):
        X, y = data()
        net = network()
        trainer = trainer_of(net)
        timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        history = trainer.fit(X, y, epochs=10**6, verbose=0)
        timer.join()
        t = trainer.optimizer.t
        assert history.stopped == "Ctrl-C"
        assert t > 0
        assert trainer.epochs_done == len(history)
        assert len(history) in (t // 7, t // 7 - 1)
        assert_allclose(net.phi, descended(network(), bp.SGD(0.1), t).phi, rtol=0, atol=1e-8)

    def test_with_threads_at_work(self):
        X, y = data()
        net = network(Hook(at_call(5, interrupt)))
        trainer = trainer_of(net, shards=4, threads=3)
        assert trainer.fit(X, y, epochs=10, verbose=0).stopped == "Ctrl-C"
        t = trainer.optimizer.t
        assert t >= 2
        assert_allclose(net.phi, descended(network(Hook()), bp.SGD(0.1), t).phi, rtol=0, atol=1e-12)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("backprop")]

    def test_pressed_twice_it_does_not_wait_for_the_end_of_the_step(self):
        X, y = data()
        net = network(Hook(at_call(3, lambda h: interrupt(interrupt(h)))))
        handler = signal.getsignal(signal.SIGINT)
        trainer = trainer_of(net)
        assert trainer.fit(X, y, epochs=5, verbose=0).stopped == "Ctrl-C"
        assert trainer.optimizer.t == 2  # it came in the forward pass of the third
        assert_allclose(net.phi, descended(network(Hook()), bp.SGD(0.1), 2).phi, rtol=0, atol=1e-12)
        assert signal.getsignal(signal.SIGINT) is handler

    def test_a_handler_of_one_s_own_is_put_back(self):
        X, y = data()

        def mine(number, frame):
            raise AssertionError("not while training")

        before = signal.signal(signal.SIGINT, mine)
        try:
            history = trainer_of(network(Hook(at_call(2, interrupt)))).fit(X, y, epochs=3, verbose=0)
            assert signal.getsignal(signal.SIGINT) is mine
        finally:
            signal.signal(signal.SIGINT, before)
        assert history.stopped == "Ctrl-C"

    def test_a_process_that_ignores_it_goes_on(self):
        """As a job started with `nohup` or `&` does: Ctrl-C in the terminal is not meant for it."""
        X, y = data()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            history = trainer_of(network(Hook(at_call(2, interrupt)))).fit(X, y, epochs=3, verbose=0)
        finally:
            signal.signal(signal.SIGINT, before)
        assert (len(history), history.stopped) == (3, "")

    def test_in_a_callback(self):
        class Impatient(bp.Callback):
            def epoch(self, trainer, record):
                interrupt(None)

        X, y = data()
        history = trainer_of(network()).fit(X, y, epochs=3, callbacks=[Impatient()], verbose=0)
        assert (len(history), history.stopped) == (1, "Ctrl-C")

    def test_best_weights_are_restored_then_too(self):
        X, y = data()
        log = Log()
        net = network(Hook(at_call(18, interrupt)))
        history = trainer_of(net).fit(
            X,
            y,
            epochs=9,
            metrics=[scripted(1, 2, 3)],
            callbacks=[log, bp.EarlyStopping("score")],
            verbose=0,
        )
        assert (len(history), history.stopped) == (2, "Ctrl-C")
        assert_array_equal(net.phi, log.phi[0])

    def test_training_goes_on_afterwards(self):
        X, y = data()
        net = network(Hook(at_call(9, interrupt)))
        trainer = trainer_of(net)
        trainer.fit(X, y, epochs=5, verbose=0)
        history = trainer.fit(X, y, epochs=1, verbose=0)
        assert (history.stopped, history["epoch"]) == ("", [2])

    def test_raises_from_the_loop_one_can_see(self):
        X, y = data()
        with pytest.raises(KeyboardInterrupt):
            list(trainer_of(network(Hook(at_call(2, interrupt)))).epochs(X, y, 3))

    def test_weights_are_finite_even_if_the_step_at_hand_spoiled_them(self):
        X, y = data()

        def spoil(dL_df):
            return interrupt(dL_df) * np.inf

        net = network(Hook(change=at_call(3, spoil)))
        with pytest.raises(FloatingPointError, match="finite"):
            trainer_of(net).fit(X, y, epochs=5, verbose=0)
        assert np.isfinite(net.phi).all()


RULES = {
    "SGD": lambda: bp.SGD(0.05),
    "momentum": lambda: bp.SGD(0.05, momentum=0.9),
    "momentum and decay": lambda: bp.SGD(0.05, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda: bp.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    "Adam": lambda: bp.Adam(0.01),
    "RMSProp": lambda: bp.RMSProp(0.01),
    "clip norm": lambda: bp.SGD(0.05, clip_norm=1.0),
    "clip value": lambda: bp.SGD(0.05, momentum=0.9, clip_value=1.0),
}


def assert_all_finite(trainer):
    assert np.isfinite(trainer.net.phi).all()
    for array in [*trainer.optimizer.state.values(), *trainer.net.buffers.values()]:
        assert np.isfinite(array).all()


def weights_left(error):
    """The step whose weights are left, as the message says."""
    word, step = re.search(r"weights are those (after|before) step (\d+)", str(error)).groups()
    return int(step) - (word == "before")


class TestNonFinite:
    @pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
    @pytest.mark.parametrize("shards", [1, 2])
    @pytest.mark.parametrize("k", [1, 7, 10], ids=lambda k: f"step {k}")
    @pytest.mark.parametrize("rule", RULES)
    def test_gradient_while_fitting(self, rule, k, shards, value):
        X, y = data()
        spoil = at_call((k - 1) * shards + 1, lambda dL_df: dL_df * value)
        net = network(Hook(change=spoil))
        trainer = trainer_of(net, RULES[rule](), shards=shards, threads=1)
        with pytest.raises(FloatingPointError) as caught:
            trainer.fit(X, y, epochs=4, verbose=0)
        text = str(caught.value)
        assert re.search(r"expected a finite (loss|gradient|update) at step \d+, got nan or inf in .*0\.beta", text)
        assert k <= int(re.search(r"at step (\d+)", text)[1]) <= k + 1
        assert_all_finite(trainer)
        T = weights_left(text)
        assert trainer.optimizer.t == T
        expected = descended(network(Hook()), RULES[rule](), T)
        assert_allclose(net.phi, expected.phi, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("rule", RULES)
    def test_training_goes_on_from_the_weights_that_are_left(self, rule):
        X, y = data()
        net = network(Hook(change=at_call(10, lambda dL_df: dL_df * np.nan)))
        trainer = trainer_of(net, RULES[rule]())
        with pytest.raises(FloatingPointError) as caught:
            trainer.fit(X, y, epochs=4, verbose=0)
        T = weights_left(caught.value)
        trainer.fit(X, y, epochs=1, verbose=0)
        twin, optimizer = network(Hook()), RULES[rule]()
        descended(twin, optimizer, T)
        descended(twin, optimizer, 7, first_epoch=1)
        assert_allclose(net.phi, twin.phi, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("shards", [1, 2])
    @pytest.mark.parametrize("epochs_before", [0, 2])
    @pytest.mark.parametrize("rule", RULES)
    def test_gradient_of_a_single_step(self, rule, epochs_before, shards):
        X, y = data()
        armed = [False]
        net = network(Hook(change=lambda dL_df: dL_df * np.inf if armed[0] else dL_df))
        trainer = trainer_of(net, RULES[rule](), shards=shards, threads=1)
        if epochs_before:
            trainer.fit(X, y, epochs=epochs_before, verbose=0)
        trainer.step(X, y)
        before = net.phi.copy(), trainer.optimizer.t, {k: v.copy() for k, v in trainer.optimizer.state.items()}
        armed[0] = True
        with pytest.raises(FloatingPointError, match=r"finite gradient .* the gradient of 0\.beta") as caught:
            trainer.step(X, y)
        assert_array_equal(net.phi, before[0])
        assert trainer.optimizer.t == weights_left(caught.value) == before[1]
        armed[0] = False
        trainer.step(X, y)  # the optimizer's state must not have kept anything of the step that failed
        twin = network(Hook())
        twin.phi[...] = before[0]
        optimizer, loss = RULES[rule](), bp.CrossEntropy()
        optimizer.t, optimizer.state = before[1], before[2]
        loss.forward(twin.forward(X.T), y)
        optimizer.step(twin.phi, twin.backward(loss.backward())[1].dL_dphi)
        assert_allclose(net.phi, twin.phi, rtol=0, atol=1e-12)

    def test_running_statistics_of_a_single_step(self):
        X, y = data()
        armed = [False]
        hook = Hook(lambda h: np.copyto(h, np.nan) if armed[0] else None)
        net = bp.Sequential(bp.Linear(D, 5), hook, bp.BatchNorm(5), bp.Linear(5, K), seed=0)
        trainer = trainer_of(net)
        trainer.step(X, y)
        before = {name: buffer.copy() for name, buffer in net.buffers.items()}
        armed[0] = True
        with pytest.raises(FloatingPointError, match="step 2"):
            trainer.step(X, y)
        assert_all_finite(trainer)
        for name, buffer in net.buffers.items():
            assert_array_equal(buffer, before[name])

    @pytest.mark.parametrize("shards", [1, 2])
    @pytest.mark.parametrize("rule", RULES)
    def test_loss_names_the_layer(self, rule, shards):
        X, y = data()
        X = X.copy()
        X[20] = 1e4  # e^h of this row is beyond every floating-point number
        net = network(bp.Exp(), dtype="float32")
        net[0].parameters["omega"][...] = 1
        trainer = trainer_of(net, RULES[rule](), shards=shards)
        with pytest.raises(FloatingPointError, match=r"finite loss .* the output of layer 1, Exp\(\)"):
            trainer.fit(X, y, epochs=1, verbose=0)
        assert_all_finite(trainer)

    @pytest.mark.parametrize("rule", RULES)
    def test_a_rate_that_is_too_high(self, rule):
        X, y = data()
        kind = RULES[rule]()
        kind.schedule = bp.ConstantRate(1e38)
        net = network(bp.ReLU(), bp.Linear(5, 5), bp.ReLU(), dtype="float32")
        trainer = bp.Trainer(net, bp.LeastSquares(), kind, batch_size=8)
        with pytest.raises(FloatingPointError, match="Lower the learning rate"):
            trainer.fit(X, np.eye(K)[y], epochs=5, verbose=0)
        assert_all_finite(trainer)

    def test_a_step_the_last_of_its_epoch(self):
        X, y = data()
        net = network(Hook(change=at_call(7, lambda dL_df: dL_df * np.inf)))
        trainer = trainer_of(net)
        losses = []
        with pytest.raises(FloatingPointError):
            losses.extend(record.loss for record in trainer.epochs(X, y, 3))
        assert losses == []
        assert_all_finite(trainer)


class TestSampleWeight:
    def fit(self, X, y, weights=None, *, loss=bp.CrossEntropy, batch_size="full", epochs=3):
        net = network()
        trainer = bp.Trainer(net, loss(), bp.SGD(0.1, momentum=0.9), batch_size=batch_size)
        history = trainer.fit(X, y, epochs=epochs, sample_weight=weights, verbose=0)
        return net.phi, history["loss"], trainer

    def assert_same(self, a, b):
        assert_allclose(a[0], b[0], rtol=0, atol=1e-12)
        assert_allclose(a[1], b[1], rtol=1e-12)

    def test_weight_0_is_an_absent_example(self):
        X, y = data()
        w = np.where(np.arange(N) % 3, 1.0, 0.0)
        self.assert_same(self.fit(X, y, w), self.fit(X[w > 0], y[w > 0]))

    def test_weight_2_is_the_example_twice(self):
        X, y = data()
        w = np.where(np.arange(N) % 3, 1, 2)
        self.assert_same(self.fit(X, y, w), self.fit(np.repeat(X, w, axis=0), np.repeat(y, w)))

    def test_in_a_sum(self):
        X, y = data()
        w = np.arange(N) % 3

        def loss():
            return bp.CrossEntropy(reduction="sum")

        a = self.fit(X, y, w, loss=loss, epochs=1)
        self.assert_same(a, self.fit(np.repeat(X, w, axis=0), np.repeat(y, w), loss=loss, epochs=1))

    def test_only_ratios_count(self):
        X, y = data()
        w = np.random.default_rng(0).random(N)
        self.assert_same(self.fit(X, y, w, batch_size=8), self.fit(X, y, 1000 * w, batch_size=8))

    def test_a_batch_of_weight_0_is_no_step(self):
        X, y = data()
        w = np.zeros(N)
        w[7] = 1.0
        phi, losses, trainer = self.fit(X, y, w, batch_size=4)
        assert trainer.optimizer.t == 3
        self.assert_same((phi, losses), self.fit(X[7:8], y[7:8]))

    def test_a_single_step(self):
        X, y = data()
        w = np.where(np.arange(N) % 3, 1.0, 0.0)
        net, twin = network(), network()
        L = trainer_of(net).step(X, y, w)
        assert_allclose(L, trainer_of(twin).step(X[w > 0], y[w > 0]), rtol=1e-12)
        assert_allclose(net.phi, twin.phi, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("scale", [1e-50, 1e300], ids=str)
    def test_weights_beyond_the_network_s_dtype(self, scale):
        """Only ratios count, so the size of all weights together is no reason to fail."""
        X, y = data()
        results = []
        for s in (1.0, scale):
            net = network(dtype="float32")
            trainer = trainer_of(net)
            trainer.fit(X, y, epochs=2, sample_weight=np.linspace(1, 2, N) * s, verbose=0)
            results.append(net.phi)
        assert_allclose(results[1], results[0], rtol=1e-4, atol=1e-6)


class TestEvaluate:
    def test_loss_and_measures(self):
        X, y = data()
        trainer = trainer_of(network())
        phi = trainer.net.phi.copy()
        f = trainer.net.predict(X)
        found = trainer.evaluate(X, y)
        assert list(found) == ["loss", "accuracy"]
        assert_allclose(found["loss"], bp.CrossEntropy().forward(f.T, y), rtol=1e-12)
        assert found["accuracy"] == np.mean(f.argmax(axis=1) == y)
        assert_array_equal(trainer.net.phi, phi)
        assert trainer.optimizer.t == 0
        assert all(type(value) is float for value in found.values())

    def test_weights(self):
        X, y = data()
        w = np.where(np.arange(N) % 3, 1.0, 0.0)
        trainer = trainer_of(network())
        assert_allclose(trainer.evaluate(X, y, w)["loss"], trainer.evaluate(X[w > 0], y[w > 0])["loss"], rtol=1e-12)

    def test_functions(self):
        def worst(f, y):
            return np.abs(f - y).max()

        X = data()[0]
        net = bp.Sequential(bp.Linear(D, 2), seed=0, dtype="float64")
        y = net.predict(X) + np.array([0.0, 0.5])
        found = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.1)).evaluate(X, y, metrics=[worst])
        assert list(found) == ["loss", "r2", "worst"]
        assert_allclose([found["loss"], found["worst"]], [0.25, 0.5], rtol=1e-12)

    def test_a_pending_backward_is_not_disturbed(self):
        X, y = data()
        net = network(bp.Dropout(0.5))
        f = net.forward(X.T)
        before = net.backward(f)[0]
        trainer_of(net).evaluate(X, y)
        assert_array_equal(net.backward(f)[0], before)

    def test_dropout_and_running_statistics(self):
        X, y = data()
        net = network(bp.BatchNorm(5), bp.Dropout(0.5))
        buffers = {name: buffer.copy() for name, buffer in net.buffers.items()}
        trainer = trainer_of(net)
        assert trainer.evaluate(X, y) == trainer.evaluate(X, y)
        for name, buffer in net.buffers.items():
            assert_array_equal(buffer, buffers[name])

    @pytest.mark.parametrize(
        ("metrics", "error", "parts"),
        [
            (["r2"], ValueError, ["'accuracy'", "'r2'"]),
            (["acc"], ValueError, ["'accuracy'", "'acc'"]),
            ([3], TypeError, ["'accuracy'", "3"]),
            ("accuracy", TypeError, ["list", "'accuracy'"]),
        ],
        ids=str,
    )
    def test_unknown_metrics(self, metrics, error, parts):
        X, y = data()
        trainer = trainer_of(network())
        assert_refused(lambda: trainer.evaluate(X, y, metrics=metrics), error, "Trainer", *parts)
        assert_refused(lambda: trainer.fit(X, y, metrics=metrics, verbose=0), error, "Trainer", *parts)
        assert trainer.optimizer.t == 0

    def test_a_metric_without_a_name_of_its_own(self):
        class Share:
            def __call__(self, f, y):
                return 0.25

        X, y = data()
        found = trainer_of(network()).evaluate(X, y, metrics=[Share()])
        assert 0.25 in found.values()


class TestProgress:
    def test_goes_to_stderr(self, capsys):
        X, y = data()
        trainer_of(network()).fit(X, y, epochs=2, validation_data=(X, y))
        seen = capsys.readouterr()
        assert seen.out == ""
        assert "100%" in seen.err
        assert "validation_loss=" in seen.err

    def test_can_be_silent(self, capsys):
        X, y = data()
        trainer_of(network()).fit(X, y, epochs=2, verbose=0)
        list(trainer_of(network()).epochs(X, y, 2))
        seen = capsys.readouterr()
        assert seen.out + seen.err == ""

    def test_may_be_a_line_per_epoch(self, capsys):
        X, y = data()
        trainer = trainer_of(network())
        trainer.fit(X, y, epochs=2, validation_data=(X, y), verbose=2)
        trainer.fit(X, y, epochs=1, metrics=["accuracy"], verbose=2)
        seen = capsys.readouterr()
        assert seen.out == ""
        number = r"\d[\d.e-]*"
        line = rf"epoch {{}}: loss {number}, validation_loss {number}, validation_accuracy {number}, \d+\.\d\d s\n"
        assert re.fullmatch(
            line.format(1) + line.format(2) + rf"epoch 3: loss {number}, accuracy {number}, .* s\n", seen.err
        )

    @pytest.mark.parametrize(("verbose", "bar"), [(False, False), (True, True), (np.int64(1), True)], ids=str)
    def test_may_be_true_or_false(self, verbose, bar, capsys):
        X, y = data()
        trainer_of(network()).fit(X, y, epochs=1, verbose=verbose)
        assert ("100%" in capsys.readouterr().err) == bar

    @pytest.mark.parametrize(
        ("verbose", "error"),
        [("no", TypeError), (None, TypeError), (1.0, TypeError), (3, ValueError), (-1, ValueError)],
    )
    def test_is_0_1_or_2(self, verbose, error):
        X, y = data()
        trainer = trainer_of(network())
        assert_refused(lambda: trainer.fit(X, y, verbose=verbose), error, "Trainer.fit", "verbose")
        assert trainer.optimizer.t == 0


class Watched(bp.Schedule):
    """A constant rate that keeps what it observes."""

    def __init__(self):
        self.seen = []

    def __call__(self, t):
        return 0.1

    def observe(self, loss):
        self.seen.append(loss)


class TestSchedulesAndLayers:
    def test_a_schedule_observes_the_validation_loss(self):
        X, y = data()
        rate = Watched()
        history = trainer_of(network(), bp.SGD(rate)).fit(X, y, epochs=3, validation_data=(X[:9], y[:9]), verbose=0)
        assert rate.seen == history["validation_loss"]

    def test_or_the_loss_where_there_is_no_validation_data(self):
        X, y = data()
        rate = Watched()
        assert trainer_of(network(), bp.SGD(rate)).fit(X, y, epochs=3, verbose=0)["loss"] == rate.seen

    def test_reduce_on_plateau(self):
        X, y = data()
        rate = bp.ReduceOnPlateau(0.1, factor=0.5, patience=1)
        history = trainer_of(network(), bp.SGD(rate)).fit(X, y, epochs=6, validation_data=(X, (y + 1) % K), verbose=0)
        assert np.argmin(history["validation_loss"]) == 0
        assert history["learning_rate"] == [0.1, 0.1, 0.1, 0.05, 0.05, 0.025]

    @pytest.mark.parametrize("shards", ["auto", 2])
    @pytest.mark.parametrize(
        "hidden",
        [
            lambda: [bp.Dropout(0.2)],
            lambda: [bp.BatchNorm(5), bp.ReLU()],
            lambda: [bp.LayerNorm(5), bp.GELU(), bp.Dropout(0.1)],
        ],
        ids=["Dropout", "BatchNorm", "LayerNorm"],
    )
    def test_layers_that_differ_in_training_learn(self, hidden, shards):
        X, y = data()
        net = network(*hidden(), dtype="float32")
        before = {name: buffer.copy() for name, buffer in net.buffers.items()}
        trainer = trainer_of(net, bp.Adam(0.02), shards=shards, batch_size=10)
        start = trainer.evaluate(X, y)
        trainer.fit(X, y, epochs=40, verbose=0)
        end = trainer.evaluate(X, y)
        assert end["loss"] < 0.7 * start["loss"]
        assert end["accuracy"] > 0.75
        assert all(not np.array_equal(buffer, before[name]) for name, buffer in net.buffers.items())

    def test_a_sum_is_a_mean_with_a_higher_rate(self):
        X, y = data()
        net, twin = network(), network()
        summed = bp.CrossEntropy(reduction="sum")
        a = bp.Trainer(net, summed, bp.SGD(0.1 / N), batch_size="full").fit(X, y, epochs=3, verbose=0)
        b = trainer_of(twin, batch_size="full").fit(X, y, epochs=3, verbose=0)
        assert_allclose(net.phi, twin.phi, rtol=0, atol=1e-12)
        assert_allclose(a["loss"], np.multiply(b["loss"], N), rtol=1e-12)

    def test_the_loss_of_an_epoch_of_sums_is_their_sum(self):
        X, y = data()
        net = network()
        loss = bp.CrossEntropy(reduction="sum")
        expected = loss.forward(net.forward(X.T), y)
        history = bp.Trainer(net, loss, bp.SGD(1e-300), batch_size=8).fit(X, y, epochs=1, verbose=0)
        assert_allclose(history["loss"], [expected], rtol=1e-12)

    @pytest.mark.parametrize("optimizer", [lambda: bp.SGD(0.1, 0.9, clip_norm=1.0), bp.Adam], ids=["SGD", "Adam"])
    def test_a_network_without_parameters(self, optimizer):
        X = data()[0]
        net = bp.Sequential(bp.Tanh(), dtype="float64")
        history = bp.Trainer(net, bp.LeastSquares(), optimizer()).fit(X, X, epochs=2, verbose=0)
        assert_allclose(history["loss"], [((np.tanh(X) - X) ** 2).sum(axis=1).mean()] * 2, rtol=1e-12)

    def test_a_data_set_of_one_row(self):
        X, y = data()
        for dtype in ("float32", "float64"):
            x = X[:1].astype(dtype)
            net, twin = network(dtype=dtype), network(dtype=dtype)
            trainer_of(net).fit(x, y[:1], epochs=2, verbose=0)
            for _ in range(2):
                trainer_of(twin).step(x.tolist(), y[:1])
            assert_allclose(net.phi, twin.phi, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "error", "name"),
    [
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"batch_size": "all"}, ValueError, "batch_size"),
        ({"seed": -1}, ValueError, "seed"),
        ({"shards": 0}, ValueError, "shards"),
        ({"threads": -2}, ValueError, "threads"),
        ({"threads": "many"}, ValueError, "threads"),
        *[
            ({name: value}, TypeError, name)
            for name in ("batch_size", "seed", "shards", "threads")
            for value in (True, 2.0, math.nan, None, [1])
        ],
        ({"seed": "one"}, TypeError, "seed"),
        ({"deterministic": 1}, TypeError, "deterministic"),
    ],
    ids=str,
)
def test_settings(settings, error, name):
    assert_refused(lambda: trainer_of(network(), **settings), error, "Trainer", name)


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ((bp.Sequential, bp.CrossEntropy(), bp.SGD(0.1)), "Sequential(…)"),
        ((bp.Linear(2, 2), bp.CrossEntropy(), bp.SGD(0.1)), "net: a Sequential"),
        ((bp.Sequential(bp.ReLU()), bp.CrossEntropy, bp.SGD(0.1)), "CrossEntropy(…)"),
        ((bp.Sequential(bp.ReLU()), "mse", bp.SGD(0.1)), "'mse'"),
        ((bp.Sequential(bp.ReLU()), bp.CrossEntropy(), bp.SGD), "SGD(…)"),
        ((bp.Sequential(bp.ReLU()), bp.CrossEntropy(), 0.1), "optimizer: a Optimizer"),
        ((bp.Sequential(bp.ReLU()), bp.SGD(0.1), bp.CrossEntropy()), "loss: a Loss"),
    ],
    ids=str,
)
def test_parts(parts, name):
    assert_refused(lambda: bp.Trainer(*parts), TypeError, "Trainer")
    with pytest.raises(TypeError, match=re.escape(name)):
        bp.Trainer(*parts)


def test_without_shuffle_the_batches_are_in_the_order_of_the_data():
    X, seen = np.arange(10.0).reshape(-1, 1), []

    class Spy(bp.LeastSquares):
        def ell(self, f, y):
            seen.append(y.ravel().tolist())
            return super().ell(f, y)

    net = bp.Sequential(bp.Linear(1, 1), seed=0, dtype="float64")
    list(bp.Trainer(net, Spy(), bp.SGD(1e-6), batch_size=4, shuffle=False).epochs(X, X[:, 0], 2))
    assert seen == 2 * [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_functions_after_each_step_may_be_assigned():
    net, calls = bp.Sequential(bp.Linear(1, 1), seed=0), []
    trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.01), batch_size=2)
    trainer.after_step = [lambda: calls.append(trainer.optimizer.t)]
    trainer.fit(np.ones((4, 1)), np.ones(4), epochs=1, verbose=0)
    assert calls == [1, 2]
    with pytest.raises(TypeError, match="a list of functions"):
        trainer.after_step = [3]


class CountsPasses(bp.Layer):
    error = None

    def __init__(self):
        self.buffers["n"] = np.zeros(1)

    def forward(self, h):
        self.buffers["n"] += 1
        if self.error:
            raise self.error("overflow")
        return h.copy()

    def backward(self, dL_df):
        return dL_df, {}


@pytest.mark.parametrize("error", [ValueError, FloatingPointError])
def test_an_error_in_a_layer_of_one_s_own_leaves_its_buffers_at_a_step(error):
    own, X = CountsPasses(), np.ones((4, 1))
    trainer = bp.Trainer(bp.Sequential(own, bp.Linear(1, 1), seed=0), bp.LeastSquares(), bp.SGD(0.1), batch_size=2)
    trainer.fit(X, X[:, 0], epochs=1, verbose=0)
    own.error = error
    with pytest.raises(error):
        trainer.fit(X, X[:, 0], epochs=1, verbose=0)
    assert_array_equal(trainer.net.buffers["0.n"], [2])


class Odd(bp.LeastSquares):
    """A loss of one's own that returns what is no array of real numbers."""

    def __init__(self, made):
        super().__init__()
        self.made = made

    def ell(self, f, y):
        return self.made(super().ell(f, y))


class OddLayer(bp.Tanh):
    def __init__(self, made):
        self.made = made

    def forward(self, h):
        return self.made(super().forward(h))


@pytest.mark.parametrize(
    "made",
    [lambda a: a.astype(object), lambda a: a.astype(str), lambda a: a.tolist()],
    ids=["objects", "text", "a list"],
)
def test_what_parts_of_one_s_own_return_is_an_array_of_numbers(made):
    X = np.ones((4, 2))
    net = bp.Sequential(bp.Linear(2, 1), OddLayer(made), seed=0)
    with pytest.raises(TypeError, match="OddLayer"):
        bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.1)).step(X, X[:, 0])
    net = bp.Sequential(bp.Linear(2, 1), seed=0)
    with pytest.raises(TypeError, match=r"Odd.*\.ell: expected ℓ an array of real numbers"):
        bp.Trainer(net, Odd(made), bp.SGD(0.1)).step(X, X[:, 0])


def test_a_complex_loss_of_real_outputs_is_refused():
    X, net = np.ones((4, 2)), bp.Sequential(bp.Linear(2, 1), seed=0)
    with pytest.raises(TypeError, match="ℓ an array of real numbers, got one of complex"):
        bp.Trainer(net, Odd(lambda a: a * 1j), bp.SGD(0.1)).step(X, X[:, 0])


def test_a_fit_within_a_fit_is_refused():
    class Again(bp.Callback):
        def epoch(self, trainer, record):
            trainer.fit(X, X[:, 0], epochs=1, verbose=0)

    X, net = np.ones((4, 2)), bp.Sequential(bp.Linear(2, 1), seed=0)
    trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.1))
    with pytest.raises(RuntimeError, match="one fit of a trainer at a time"):
        trainer.fit(X, X[:, 0], epochs=2, verbose=0, callbacks=[Again()])
    assert len(trainer.fit(X, X[:, 0], epochs=2, verbose=0)) == 2


@pytest.mark.parametrize("door", ["fit", "predict", "evaluate", "minimize", "check_gradients"])
def test_a_sparse_matrix_is_told_to_be_dense(door):
    sparse = pytest.importorskip("scipy.sparse")
    X, y, net = sparse.csr_matrix(np.eye(4)), np.ones(4), bp.Sequential(bp.Linear(4, 1), seed=0)
    trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.1))
    doors = {
        "fit": lambda: trainer.fit(X, y, verbose=0),
        "predict": lambda: net.predict(X),
        "evaluate": lambda: trainer.evaluate(X, y),
        "minimize": lambda: bp.minimize(net, bp.LeastSquares(), X, y, verbose=0),
        "check_gradients": lambda: bp.check_gradients(net, bp.LeastSquares(), X, y),
    }
    with pytest.raises(TypeError, match=r"X a dense array, got a sparse one.*\.toarray\(\)"):
        doors[door]()


def test_a_history_without_epochs_has_no_losses():
    assert bp.History([])["loss"] == []
    with pytest.raises(KeyError):
        bp.History([])["accuracy"]


@pytest.mark.parametrize("monitor", [[], 0, "", [0.5]])
def test_monitor_is_the_name_of_a_column(monitor):
    if monitor == "":
        trainer = bp.Trainer(bp.Sequential(bp.Linear(1, 1), seed=0), bp.LeastSquares(), bp.SGD(0.1))
        with pytest.raises(ValueError, match="monitor one of"):
            trainer.fit(np.ones((2, 1)), np.ones(2), verbose=0, callbacks=[bp.EarlyStopping(monitor)])
        return
    with pytest.raises(TypeError, match="EarlyStopping: expected monitor"):
        bp.EarlyStopping(monitor)


class TestUntil:
    """`until` counts the epochs of a trainer, `epochs` those of a call."""

    def test_is_so_many_in_all(self):
        (X, y), parts, whole = data(), trainer_of(network()), trainer_of(network())
        history = whole.fit(X, y, epochs=5, verbose=0)
        lengths = [len(parts.fit(X, y, until=n, verbose=0)) for n in (2, 2, 1, 5, 5)]
        assert lengths == [2, 0, 0, 3, 0]
        assert_array_equal(parts.net.phi, whole.net.phi)
        assert parts.epochs_done == len(history) == 5

    def test_an_epoch_that_was_left_is_one_of_them(self):
        (X, y), parts, whole = data(), trainer_of(network()), trainer_of(network())
        parts.after_step = [lambda: parts.optimizer.t == 10 and os.kill(os.getpid(), signal.SIGINT)]
        assert parts.fit(X, y, until=4, verbose=0).stopped == "Ctrl-C"
        assert parts.position == (1, 3)
        assert [record.epoch for record in parts.fit(X, y, until=4, verbose=0)] == [2, 3, 4]
        whole.fit(X, y, epochs=4, verbose=0)
        assert_array_equal(parts.net.phi, whole.net.phi)

    def test_with_nothing_left_data_are_checked_and_callbacks_start_and_end(self):
        seen = []

        class Notes(bp.Callback):
            def start(self, trainer):
                seen.append("start")

            def end(self, trainer):
                seen.append("end")

        (X, y), trainer = data(), trainer_of(network())
        trainer.fit(X, y, epochs=2, verbose=0)
        before = trainer.net.phi.copy()
        history = trainer.fit(X, y, until=2, callbacks=[Notes()], verbose=0)
        assert (len(history), history.stopped, history["loss"], seen) == (0, "", [], ["start", "end"])
        assert_array_equal(trainer.net.phi, before)
        assert_refused(lambda: trainer.fit(X[:, 1:], y, until=2, verbose=0), ValueError, "Trainer", "6 columns")

    @pytest.mark.parametrize("epochs", [10, 3])
    def test_both_are_refused(self, epochs):
        trainer = trainer_of(network())
        call = lambda: trainer.fit(*data(), epochs=epochs, until=5, verbose=0)  # noqa: E731
        assert_refused(call, ValueError, "Trainer.fit", "either epochs or until", f"{epochs} and 5")

    @pytest.mark.parametrize(
        ("until", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError), ("3", TypeError)]
    )
    def test_is_a_number_of_epochs(self, until, error):
        trainer = trainer_of(network())
        assert_refused(lambda: trainer.fit(*data(), until=until), error, "Trainer.fit", "until", repr(until))

    def test_neither_is_ten_epochs(self):
        assert len(trainer_of(network()).fit(*data(), verbose=0)) == 10

    @pytest.mark.parametrize("how", [{"until": 50}, {"epochs": 3}])
    def test_what_early_stopping_had_stopped_stays_stopped(self, tmp_path, how):
        """Resumed again and again, it trained one epoch more each time."""
        (X, y), path = data(), tmp_path / "run"

        def fit(trainer, patience=2, **how):
            callbacks = [bp.EarlyStopping("epoch", patience=patience), bp.Checkpoints(path)]
            return trainer.fit(X, y, callbacks=callbacks, verbose=0, **how)

        trainer = trainer_of(network())
        history = fit(trainer, until=50)
        assert (len(history), history.stopped) == (3, "EarlyStopping")
        best = trainer.net.phi.copy()
        for _ in range(2):
            again = bp.Trainer.resume(path)
            history = fit(again, **how)
            assert (len(history), history.stopped, again.epochs_done) == (0, "EarlyStopping", 3)
            assert_array_equal(again.net.phi, best)
        assert len(fit(bp.Trainer.resume(path), patience=4, until=50)) == 2
