"""What can be set counts: every public attribute, changed after a fit, trains on as in a trainer that was built with it.

Or the assignment is refused. The walk goes over the attributes themselves, so that a new one is walked, too.
"""

from __future__ import annotations

import copy
import gc
import os
import threading

import numpy as np
import pytest
from helpers import Scale
from numpy.testing import assert_array_equal
from tables import LAYERS, LOSSES, OPTIMIZERS

import backprop as bp

pytestmark = pytest.mark.filterwarnings("ignore::backprop.TrainingAdvice")
rng = np.random.default_rng(0)
X, Y, LABELS = rng.normal(size=(23, 4)), rng.normal(size=(23, 3)), rng.integers(0, 3, 23)


def other(value):
    """Another value of the same kind, or None."""
    if isinstance(value, bool | np.bool_):
        return not value
    if isinstance(value, float) and 0 < value < 1:
        return value * 0.75
    if isinstance(value, float):
        return value + 0.125
    if isinstance(value, tuple) and value and all(isinstance(each, float) for each in value):
        return tuple(each * 0.75 for each in value)
    return {"mean": "sum", "sum": "mean"}.get(value) if isinstance(value, str) else None


def settable(thing):
    """Public plain attributes that may have another value."""
    return {name: other(value) for name, value in vars(thing).items() if name[0] != "_" and other(value) is not None}


def trained(make, change, X=X, y=Y, epochs=(2, 2)):
    """φ of a trainer in which something changes between two fits, and of one that goes on from there built with the change."""
    first = make()
    first.fit(X, y, epochs=epochs[0], verbose=0)
    second = copy.deepcopy(first)
    change(first)
    first.fit(X, y, epochs=epochs[1], verbose=0)

    fresh = make()
    change(fresh)
    fresh.net.phi[...] = second.net.phi
    for name, buffer in fresh.net.buffers.items():
        buffer[...] = second.net.buffers[name]
    state = {name: second.optimizer.state.get(name, np.zeros_like(fresh.net.phi)) for name in fresh.optimizer.slots}
    fresh.optimizer.state, fresh.optimizer.t = state, second.optimizer.t
    fresh.epochs_done = second.epochs_done
    fresh.fit(X, y, epochs=epochs[1], verbose=0)
    return first.net.phi, fresh.net.phi


def inside(layer):
    yield layer
    for child in layer.children.values():
        yield from inside(child)


LAYER_SETTINGS = [
    (name, i, attribute)
    for name, make in LAYERS.items()
    for i, layer in enumerate(inside(make(4)))
    for attribute in settable(layer)
]


@pytest.mark.parametrize(("name", "place", "attribute"), LAYER_SETTINGS)
def test_settings_of_every_layer_count(name, place, attribute):
    def make():
        net = bp.Sequential(bp.Linear(4, 4), LAYERS[name](4), bp.Tanh(), seed=0, dtype="float64")
        outputs = net.infer(np.zeros((4, 1))).shape[0]
        net = bp.Sequential(net, bp.Linear(outputs, 3), seed=0, dtype="float64")
        return bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.01), batch_size=5)

    def change(trainer):
        layer = list(inside(trainer.net[0][1]))[place]
        setattr(layer, attribute, settable(layer)[attribute])

    if attribute in ("bias", "first"):
        with pytest.raises(ValueError, match="for good"):
            change(make())
        return
    assert_array_equal(*trained(make, change))


LOSS_SETTINGS = [(name, attribute) for name, row in LOSSES.items() for attribute in settable(row.make())]


@pytest.mark.parametrize(("name", "attribute"), LOSS_SETTINGS)
def test_settings_of_every_loss_count(name, attribute):
    row = LOSSES[name]
    y = row.target(np.random.default_rng(1), 3, 23)

    def make():
        net = bp.Sequential(bp.Linear(4, 5), bp.Tanh(), bp.Linear(5, 3 * row.outputs), seed=0, dtype="float64")
        return bp.Trainer(net, row.make(), bp.SGD(1e-3), batch_size=5)

    def change(trainer):
        setattr(trainer.loss, attribute, settable(trainer.loss)[attribute])

    assert_array_equal(*trained(make, change, y=y.T))


RULE_SETTINGS = [
    (name, attribute)
    for name, (kind, settings) in OPTIMIZERS.items()
    for attribute in (*settable(kind(**settings)), "learning_rate", "schedule", "clip_norm", "clip_value", "by name")
    if attribute not in ("nesterov",)
]


@pytest.mark.parametrize(("name", "attribute"), RULE_SETTINGS)
def test_settings_of_every_rule_count(name, attribute):
    kind, settings = OPTIMIZERS[name]

    def make():
        net = bp.Sequential(bp.Linear(4, 5), bp.Tanh(), bp.Linear(5, 3), seed=0, dtype="float64")
        return bp.Trainer(net, bp.LeastSquares(), kind(**settings), batch_size=5)

    def change(trainer):
        rule = trainer.optimizer
        value = {
            "learning_rate": 0.003,
            "schedule": bp.StepDecay(0.01, every=3),
            "clip_norm": 0.5,
            "clip_value": 0.05,
            "by name": {"*.omega": 0.03, "0.beta": 0.2},
        }.get(attribute) or settable(rule)[attribute]
        setattr(rule, "weight_decay" if attribute == "by name" else attribute, value)
        if attribute == "by name":
            rule.weight_decay = {"*.omega": 0.0, "2.*": 0.5}

    assert_array_equal(*trained(make, change))


def network():
    return bp.Sequential(bp.Linear(4, 5), bp.Tanh(), bp.Linear(5, 3), seed=0, dtype="float64")


def trainer_of(**settings):
    return bp.Trainer(network(), bp.LeastSquares(), bp.SGD(0.01), **{"batch_size": 5, **settings})


TRAINER_SETTINGS = {
    "batch_size": 7,
    "shuffle": False,
    "seed": 3,
    "shards": 2,
    "threads": 2,
    "deterministic": True,
    "native": False,
    "constraints": {"*.omega": bp.MaxNorm(0.1)},
    "loss": bp.AbsoluteError(),
}


@pytest.mark.parametrize("name", TRAINER_SETTINGS)
def test_settings_of_the_trainer_count(name):
    assert_array_equal(*trained(trainer_of, lambda trainer: setattr(trainer, name, TRAINER_SETTINGS[name])))


def test_no_setting_of_the_trainer_is_forgotten():
    public = {name for name in vars(trainer_of()) if name[0] != "_"}
    assert public == {*TRAINER_SETTINGS, "net", "team", "optimizer", "notes"}


def test_another_optimizer_counts():
    trainer = trainer_of()
    trainer.fit(X, Y, epochs=2, verbose=0)
    twin = bp.Trainer(trainer.net.copy(), bp.LeastSquares(), bp.Adam(0.01), batch_size=5)
    trainer.optimizer = bp.Adam(0.01)
    twin.epochs_done = 2
    for each in (trainer, twin):
        each.fit(X, Y, epochs=2, verbose=0)
    assert_array_equal(trainer.net.phi, twin.net.phi)
    assert repr(bp.Adam(0.01)) == repr(trainer.optimizer)


def test_a_constraint_put_into_the_dict_counts():
    def change(trainer):
        trainer.constraints["*.omega"] = bp.MaxNorm(0.1)

    phi, expected = trained(trainer_of, change)
    assert_array_equal(phi, expected)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("net", network(), ValueError),
        ("batch_size", 0, ValueError),
        ("batch_size", "all", ValueError),
        ("optimizer", bp.SGD, TypeError),
        ("loss", None, TypeError),
        ("seed", -1, ValueError),
        ("shuffle", 1, TypeError),
        ("threads", 0, ValueError),
        ("constraints", {"nothing": bp.MaxNorm(1)}, ValueError),
    ],
)
def test_what_means_nothing_is_refused_at_once(name, value, error):
    trainer = trainer_of()
    trainer.fit(X, Y, epochs=1, verbose=0)
    before = getattr(trainer, name)
    with pytest.raises(error, match="expected"):
        setattr(trainer, name, value)
    assert getattr(trainer, name) is before


def test_an_attribute_of_a_loss_of_ones_own_counts():
    class Strong(bp.LeastSquares):
        strength = 1.0

        def ell(self, f, y):
            return self.strength * super().ell(f, y)

        def dell_df(self):
            return self.strength * super().dell_df()

    class Traced(Strong):
        traced = True

        def ell(self, f, y):
            return super().ell(f, y)

    for kind in (Strong, Traced):

        def make(kind=kind):
            return bp.Trainer(network(), kind(), bp.SGD(0.01), batch_size=5)

        assert_array_equal(*trained(make, lambda trainer: setattr(trainer.loss, "strength", 2.0)))


def test_a_change_by_a_callback_counts_for_gradient_and_validation():
    class Off(bp.Callback):
        def epoch(self, trainer, record):
            trainer.net[1].rate = 0.0

    net = bp.Sequential(bp.Linear(4, 5), bp.Dropout(0.5), bp.Linear(5, 3), seed=0, dtype="float64")
    trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.01), batch_size="full")
    history = trainer.fit(X, Y, epochs=2, validation_data=(X, Y), callbacks=[Off()], verbose=0)
    assert history["loss"][1] == pytest.approx(history["validation_loss"][0], rel=1e-12)  # no mask any more


@pytest.mark.parametrize(("before", "after"), [(0.9, 0.0), (0.0, 0.9)])
def test_momentum_that_a_callback_switches_before_the_short_last_batch(before, after):
    class Switch(bp.Callback):
        def step(self, trainer):
            trainer.optimizer.momentum = after

    def trained_with(native):
        trainer = bp.Trainer(network(), bp.LeastSquares(), bp.SGD(0.01, momentum=before), batch_size=5, native=native)
        trainer.fit(X[:13], Y[:13], epochs=3, verbose=0, callbacks=[Switch()])
        return trainer.net.phi

    assert np.isfinite(trained_with(False)).all()
    assert_array_equal(trained_with(False), trained_with("auto"))


def test_a_deep_copy_made_by_a_callback_fits():
    class Copies(bp.Callback):
        def epoch(self, trainer, record):
            self.twin = copy.deepcopy(trainer)

    trainer = bp.Trainer(network(), bp.LeastSquares(), bp.Adam(0.01), batch_size=5)
    copies = Copies()
    trainer.fit(X, Y, epochs=2, verbose=0, callbacks=[copies])
    assert trainer.fit(X, Y, epochs=1, verbose=0)["loss"] == copies.twin.fit(X, Y, epochs=1, verbose=0)["loss"]


def test_deep_copies_are_whole():
    trainer = bp.Trainer(network(), bp.LeastSquares(), bp.Adam(0.01), batch_size=5)
    trainer.fit(X, Y, epochs=2, verbose=0)
    twin = copy.deepcopy(trainer)
    history = twin.fit(X, Y, epochs=3, verbose=0)
    assert not np.array_equal(twin.net.phi, trainer.net.phi)
    assert trainer.fit(X, Y, epochs=3, verbose=0)["loss"] == history["loss"]
    assert_array_equal(twin.net.phi, trainer.net.phi)


def test_a_trainer_is_not_pickled():
    import pickle

    with pytest.raises(TypeError, match=r"trainer\.save"):
        pickle.dumps(trainer_of())


def test_a_callback_that_saves_before_the_average_finds_it(tmp_path):
    class Saves(bp.Callback):
        def step(self, trainer):
            if trainer.optimizer.t == 6:
                trainer.save(tmp_path / "run")

    whole, average = trainer_of(), bp.WeightAverage(0.9)
    whole.fit(X, Y, epochs=3, callbacks=[Saves(), average], verbose=0)
    resumed = bp.Trainer.resume(tmp_path / "run")
    resumed.fit(X, Y, epochs=2, callbacks=[bp.WeightAverage(0.9)], verbose=0)
    assert_array_equal(resumed.net.phi, whole.net.phi)


class Failing(Scale):
    """Raises when it is told to."""

    where = ""

    def forward(self, h):
        if self.where == "forward":
            raise MemoryError
        return super().forward(h)

    def backward(self, dL_df):
        if self.where == "backward":
            raise MemoryError
        return super().backward(dL_df)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("rule", [lambda: bp.SGD(0.01), lambda: bp.Adam(0.01)], ids=["SGD", "Adam"])
def test_an_exception_in_a_step_changes_nothing(where, rule, first):
    def make():
        net = bp.Sequential(bp.Linear(4, 5), bp.BatchNorm(5), Failing(5), bp.Linear(5, 3), seed=0, dtype="float64")
        return bp.Trainer(net, bp.LeastSquares(), rule(), batch_size="full")

    trainer, twin = make(), make()
    if not first:
        for each in (trainer, twin):
            each.fit(X, Y, epochs=2, verbose=0)
    trainer.net[2].where = where
    with pytest.raises(MemoryError):
        trainer.fit(X, Y, epochs=1, verbose=0)
    for name, buffer in twin.net.buffers.items():
        assert_array_equal(trainer.net.buffers[name], buffer)
    assert_array_equal(trainer.net.phi, twin.net.phi)
    assert (trainer.optimizer.t, trainer.position) == (twin.optimizer.t, twin.position)
    trainer.net[2].where = ""
    for each in (trainer, twin):
        each.fit(X, Y, epochs=3, verbose=0)
    assert_array_equal(trainer.net.phi, twin.net.phi)


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_what_a_fit_made_goes_with_it():
    """47 MiB a fit once stayed for ever."""
    big = rng.normal(size=(2048, 64)).astype(np.float32)
    y = big[:, 0]

    def fit():
        net = bp.Sequential(bp.Linear(64, 256), bp.Tanh(), bp.Linear(256, 256), bp.Tanh(), bp.Linear(256, 1))
        bp.Trainer(net, bp.LeastSquares(), bp.SGD(1e-3), batch_size=2048).fit(big, y, epochs=1, verbose=0)

    gc.disable()
    try:
        for _ in range(4):
            fit()
        before = resident()
        for _ in range(20):
            fit()
        assert resident() - before < 20 << 20
    finally:
        gc.enable()


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_memory_of_many_batch_sizes_is_bounded():
    big, y = rng.normal(size=(500, 64)), rng.normal(size=500)

    def steps(sizes):
        net = bp.Sequential(bp.Linear(64, 512), bp.Tanh(), bp.Linear(512, 1), seed=0)
        trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(1e-3))
        for n in sizes:
            trainer.step(big[:n], y[:n])
        return trainer

    steps(range(1, 20))
    before = resident()
    found = steps(range(100, 300))
    assert resident() - before < 100 << 20
    again = steps(range(100, 300))
    assert_array_equal(found.net.phi, again.net.phi)


def test_two_trainings_in_threads_leave_blas_as_it_was():
    from backprop.engine.threads import _blas_libraries

    before = [library.num_threads for library in _blas_libraries()]
    threads = [threading.Thread(target=lambda e=e: trainer_of().fit(X, Y, epochs=e, verbose=0)) for e in (1, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [library.num_threads for library in _blas_libraries()] == before
