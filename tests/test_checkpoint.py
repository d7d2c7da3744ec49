"""Checkpoints: the same bits with fewer stored activations."""

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


@pytest.mark.parametrize("k", [2, 3, 5, 19, 40])
@pytest.mark.parametrize("hidden", HIDDEN)
def test_forward_and_backward_give_the_same_bits(hidden, k):
    plain, sparing = deep(None, HIDDEN[hidden]), deep(k, HIDDEN[hidden])
    h = np.random.default_rng(0).standard_normal((6, 7))
    for _ in range(2):  # the second pass starts from advanced generators and statistics
        f = plain.forward(h)
        assert_array_equal(sparing.forward(h), f)
        expected = plain.backward(np.sin(f))
        for _ in range(2):
            dL_dh, gradients = sparing.backward(np.sin(f))
            assert_array_equal(dL_dh, expected[0])
            assert_array_equal(gradients.dL_dphi, expected[1].dL_dphi)
        for name, buffer in plain.buffers.items():
            assert_array_equal(sparing.buffers[name], buffer)


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


@pytest.mark.parametrize("trains", [True, False], ids=["trainer", "by hand"])
def test_memory_of_a_deep_network_falls_to_a_third(trains):
    def peak(checkpoint):
        net = deep(checkpoint, bp.Tanh, depth=32, width=64, dtype="float32")
        h = np.random.default_rng(0).standard_normal((64, 1024)).astype(np.float32)
        y = np.zeros(1024, int)
        trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1), batch_size="full", shards=1)
        tracemalloc.start()
        if trains:
            trainer.fit(np.ascontiguousarray(h.T), y, epochs=1, verbose=0)
        else:
            net.backward(net.forward(h))
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
