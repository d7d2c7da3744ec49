"""Weights start where their sources say; He keeps activations alive through many ReLU layers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import backprop as bp

# name: initializer, its variance for Ω (D_out, D_in), whether it is uniform
SCALED = {
    "HeNormal": (bp.HeNormal(), lambda D_out, D_in: 2 / D_in, False),
    "HeUniform": (bp.HeUniform(), lambda D_out, D_in: 2 / D_in, True),
    "GlorotNormal": (bp.GlorotNormal(), lambda D_out, D_in: 2 / (D_in + D_out), False),
    "GlorotUniform": (bp.GlorotUniform(), lambda D_out, D_in: 2 / (D_in + D_out), True),
    "LeCunNormal": (bp.LeCunNormal(), lambda D_out, D_in: 1 / D_in, False),
    "LeCunUniform": (bp.LeCunUniform(), lambda D_out, D_in: 1 / D_in, True),
    "Normal": (bp.Normal(0.3), lambda D_out, D_in: 0.3, False),
}
EVERY = {name: initializer for name, (initializer, _, _) in SCALED.items()} | {
    "Orthogonal": bp.Orthogonal(),
    "Constant": bp.Constant(0.5),
}


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("shape", [(300, 200), (100, 800)], ids=str)
def test_mean_variance_and_bounds(name, shape):
    initializer, variance, uniform = SCALED[name]
    omega = initializer(shape, np.random.default_rng(0))
    expected = variance(*shape)
    n = omega.size
    # Five standard deviations of the sample mean and variance (√(2/n) for a normal, less for a uniform).
    assert_allclose(omega.mean(), 0, atol=5 * np.sqrt(expected / n))
    assert_allclose(omega.var(), expected, rtol=5 * np.sqrt(2 / n))
    bound = np.sqrt(3 * expected)
    assert (np.abs(omega).max() <= bound) == uniform
    if uniform:
        assert_allclose([omega.min(), omega.max()], [-bound, bound], rtol=1e-3)


@pytest.mark.parametrize("name", EVERY)
def test_depend_on_the_generator_alone(name):
    def draw(seed):
        return EVERY[name]((3, 4), np.random.default_rng(seed))

    assert draw(0).shape == (3, 4)
    assert draw(0).dtype == np.float64
    assert_array_equal(draw(0), draw(0))
    assert (draw(0) != draw(1)).any() == (name != "Constant")


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (5, 5), (1, 4)], ids=str)
@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_orthogonal_rows_or_columns(shape, gain):
    omega = bp.Orthogonal(gain)(shape, np.random.default_rng(0))
    gram = omega @ omega.T if shape[0] <= shape[1] else omega.T @ omega
    assert_allclose(gram, gain**2 * np.eye(min(shape)), atol=1e-14)


def test_orthogonal_signs_are_fair():
    generator = np.random.default_rng(0)
    first = [bp.Orthogonal()((3, 3), generator)[0, 0] for _ in range(2000)]
    # A QR factorization without the sign rule makes this entry negative always.
    assert_allclose(np.mean(np.array(first) > 0), 0.5, atol=0.06)


def test_constant():
    assert_array_equal(bp.Constant(0.5)((2, 3), np.random.default_rng(0)), np.full((2, 3), 0.5))


@pytest.mark.parametrize("name", EVERY)
def test_linear_draws_omega_from_its_initializer_and_starts_beta_at_0(name):
    layer = bp.Linear(4, 3, initializer=EVERY[name], seed=5)
    expected = EVERY[name]((3, 4), np.random.default_rng(5)).astype(np.float32)
    assert_array_equal(layer.parameters["omega"], expected)
    assert_array_equal(layer.parameters["beta"], np.zeros(3))


@pytest.mark.parametrize("name", EVERY)
def test_repr_is_the_call_that_makes_it(name):
    again = eval(repr(EVERY[name]), vars(bp.initializers))
    generators = np.random.default_rng(0), np.random.default_rng(0)
    assert_array_equal(*[i((3, 4), g) for i, g in zip((EVERY[name], again), generators, strict=True)])


def growth(initializer, seed, depth=50, width=100):
    """Mean square of h after `depth` ReLU layers, over that before them."""
    layers = [layer for _ in range(depth) for layer in (bp.Linear(width, width, initializer=initializer), bp.ReLU())]
    net = bp.Sequential(*layers, seed=seed, dtype="float64")
    h = np.random.default_rng([seed, 1]).normal(size=(width, 20))
    return np.mean(net.infer(h) ** 2) / np.mean(h**2)


@pytest.mark.parametrize(
    ("initializer", "low", "high"),
    [
        (bp.HeNormal(), 0.1, 10),
        (bp.HeUniform(), 0.1, 10),
        (bp.Normal(0.001), 0, 1e-15),
        (bp.Normal(0.1), 1e15, np.inf),
    ],
    ids=repr,
)
def test_mean_square_through_fifty_relu_layers(initializer, low, high):
    median = np.median([growth(initializer, seed) for seed in range(20)])
    assert low < median < high
