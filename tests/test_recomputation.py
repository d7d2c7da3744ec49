"""Recomputation: the same bits with fewer stored activations."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import backprop as bp


def deep(checkpoint, hidden=bp.ReLU, depth=9, width=6, dtype="float64"):
    body = [layer for _ in range(depth) for layer in (bp.Linear(width, width), hidden())]
    return bp.Sequential(*body, bp.Linear(width, 3), seed=0, dtype=dtype, checkpoint=checkpoint)


HIDDEN = {
    "ReLU": bp.ReLU,
    "Dropout": lambda: bp.Dropout(0.3, seed=4),
    "BatchNorm": lambda: bp.BatchNorm(6),
    "Residual": lambda: bp.Residual(bp.Sequential(bp.Linear(6, 6), bp.Dropout(0.2, seed=1), bp.Tanh())),
    "FanOut": lambda: bp.FanOut(bp.Linear(6, 6), bp.GELU(), join="sum"),
}


@pytest.mark.filterwarnings("ignore::backprop.TrainingAdvice")  # FanOut doubles the gradient in each layer
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("hidden", HIDDEN)
def test_training_gives_the_same_bits(hidden, k, shards):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 6)), rng.integers(0, 3, 40)
    trained = []
    for checkpoint in (None, k):
        net = deep(checkpoint, HIDDEN[hidden])
        settings = {"batch_size": 15, "shards": 1 if hidden == "BatchNorm" else shards}
        trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(1e-4, 0.9), **settings)
        losses = [record.loss for record in trainer.epochs(X, y, 3)]
        trained.append((net.phi, losses, net.buffers))
    assert_array_equal(trained[0][0], trained[1][0])
    assert trained[0][1] == trained[1][1]
    for name, buffer in trained[0][2].items():
        assert_array_equal(trained[1][2][name], buffer)


def test_memory_of_a_deep_network_falls_to_a_third():
    def peak(checkpoint):
        net = deep(checkpoint, bp.Tanh, depth=32, width=64, dtype="float32")
        h = np.random.default_rng(0).standard_normal((64, 4096)).astype(np.float32)
        y = np.zeros(4096, int)
        trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1), batch_size="full", shards=1)
        tracemalloc.start()
        trainer.fit(np.ascontiguousarray(h.T), y, epochs=1, verbose=0)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(8) < 0.4 * peak(None)


def test_gradients_are_proven_through_checkpoints():
    rng = np.random.default_rng(0)
    report = bp.check_gradients(deep(4, bp.Tanh), bp.CrossEntropy(), rng.standard_normal((3, 6)), [0, 1, 2])
    assert report.passed, report
    assert report.method == "complex step"


@pytest.mark.parametrize("k", [0, 1, -2])
def test_a_segment_has_at_least_two_layers(k):
    with pytest.raises(ValueError, match="checkpoint ≥ 2"):
        deep(k)


def test_backward_before_forward():
    with pytest.raises(RuntimeError, match="forward to have run"):
        deep(3).backward(np.ones((3, 2)))


def test_nested_networks_with_dropout_recompute_the_mask_of_this_step():
    def make(checkpoint):
        inner = bp.Sequential(bp.Dropout(0.5), bp.Tanh(), bp.Linear(3, 3), checkpoint=checkpoint)
        net = bp.Sequential(inner, bp.Tanh(), bp.Linear(3, 1), checkpoint=checkpoint, seed=0, dtype="float64")
        return bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.05), batch_size=5)

    X = np.random.default_rng(0).normal(size=(23, 3))
    plain, sparing = make(None), make(2)
    for trainer in (plain, sparing):
        trainer.fit(X, X.sum(axis=1), epochs=3, verbose=0)
    assert_array_equal(sparing.net.phi, plain.net.phi)


def test_a_checkpoint_set_later_counts():
    net = deep(None, bp.Tanh, depth=32)
    trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1))
    whole = trainer.plan(64).nbytes
    net.checkpoint = 8
    assert trainer.plan(64).nbytes < 0.5 * whole
