"""The tables that drive the tests, and the complex step that judges every gradient.

Adding a layer, a loss or an optimizer to the suite is adding a row here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from helpers import Scale
from numpy.testing import assert_allclose

import backprop as bp
from backprop.around.nesting import reseed

STEP = 1e-30
SEED = 3  # reseeding before each forward pass freezes Dropout


def swish(v):
    """A function for `Elementwise`."""
    return v * v.sigmoid()


def two_branches(v):
    """Another, with a kink at 0."""
    return v.maximum(0.1 * v.sin()) - v.tanh() ** 2 / 3


def members(D):
    """Members for which there are features: two, of an odd number one."""
    return 2 - D % 2


# Every layer, for h of D features. None of them needs a seed: `network` draws the parameters.
LAYERS: dict[str, Callable[[int], bp.Layer]] = {
    "Linear": lambda D: bp.Linear(D, 3),
    "Linear without bias": lambda D: bp.Linear(D, 3, bias=False),
    "Linear to one": lambda D: bp.Linear(D, 1),
    "ReLU": lambda D: bp.ReLU(),
    "LeakyReLU": lambda D: bp.LeakyReLU(0.1),
    "ELU": lambda D: bp.ELU(1.3),
    "SiLU": lambda D: bp.SiLU(),
    "GELU": lambda D: bp.GELU(),
    "Softplus": lambda D: bp.Softplus(),
    "Sigmoid": lambda D: bp.Sigmoid(),
    "Tanh": lambda D: bp.Tanh(),
    "Sin": lambda D: bp.Sin(),
    "Cos": lambda D: bp.Cos(),
    "Exp": lambda D: bp.Exp(),
    "Identity": lambda D: bp.Identity(),
    "Elementwise": lambda D: bp.Elementwise(swish),
    "Elementwise of two branches": lambda D: bp.Elementwise(two_branches),
    "Dropout": lambda D: bp.Dropout(0.4),
    "BatchNorm": lambda D: bp.BatchNorm(D),
    "LayerNorm": lambda D: bp.LayerNorm(D),
    "Sequential": lambda D: bp.Sequential(bp.Linear(D, 5), bp.Tanh(), bp.Linear(5, 2)),
    "Sequential with ReLU": lambda D: bp.Sequential(bp.Linear(D, 5), bp.ReLU(), bp.Linear(5, 2), bp.ReLU()),
    "Sequential in Sequential": lambda D: bp.Sequential(
        bp.Sequential(bp.Linear(D, 4), bp.SiLU()), bp.Sequential(bp.Dropout(0.3), bp.Linear(4, 2))
    ),
    "Residual": lambda D: bp.Residual(bp.Sequential(bp.Linear(D, 4), bp.Tanh(), bp.Linear(4, D))),
    "Residual of one layer": lambda D: bp.Residual(bp.Linear(D, D)),
    "FanOut concatenates": lambda D: bp.FanOut(bp.Linear(D, 2), bp.Identity(), bp.Sin()),
    "FanOut sums": lambda D: bp.FanOut(bp.Linear(D, D), bp.Tanh(), bp.LayerNorm(D), join="sum"),
    "Select": lambda D: bp.Select(range(D)[::-2]),
    "InputScale": lambda D: bp.InputScale(D, pace=3),
    "Embedding": lambda D: bp.Embedding([3, 2, 4, 3, 2, 4][:D], [2, 1, 3, 2, 1, 3][:D]),
    "PiecewiseLinear": lambda D: bp.PiecewiseLinear([[0.1, 0.2, 1.9]] + [[-1.7, -0.3, 0.6, 2.5]] * (D - 1)),
    "Quantiles": lambda D: bp.Quantiles(
        [[-1.7, -0.3, 0.6]] * (D - 1) + [[-1, 1]], [[-2, 0.5, 0.7]] * (D - 1) + [[-1, 0.5]]
    ),
    "MembersLinear": lambda D: bp.MembersLinear(D // members(D), 3, members(D)),
    "MembersLinear comes first": lambda D: bp.MembersLinear(D, 2, 3, first=True),
    "SeparateLinear": lambda D: bp.SeparateLinear(D // members(D), 3, members(D)),
    "MembersMean of values": lambda D: bp.MembersMean(members(D)),
    "MembersMean of softmax": lambda D: bp.MembersMean(members(D), of="softmax"),
    "MembersMean of sigmoid": lambda D: bp.MembersMean(members(D), of="sigmoid"),
    "BatchNorm inside": lambda D: bp.Sequential(bp.Linear(D, 3), bp.BatchNorm(3), bp.ReLU()),
    "a layer of one's own": Scale,
    "a layer of one's own inside": lambda D: bp.Sequential(bp.Linear(D, 3), Scale(3), bp.ReLU()),
}


def network(name: str, D: int = 4, dtype: str = "float64") -> bp.Sequential:
    """The layer of one row as a network of its own, with parameters between ½ and 1½ of either sign."""
    net = bp.Sequential(LAYERS[name](D), dtype=dtype)
    generator = np.random.default_rng(0)
    net.phi[...] = generator.uniform(0.5, 1.5, net.phi.size) * generator.choice([-1, 1], net.phi.size)
    return net


def forward(layer: bp.Layer, h: np.ndarray) -> np.ndarray:
    """A forward pass with the frozen mask."""
    reseed(layer, SEED)
    return layer.forward(h)


def spread(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Inputs spread evenly over ±2 in random order: none near the kink at 0, no two alike."""
    n = int(np.prod(shape))
    return np.random.default_rng(seed).permutation(np.linspace(-2, 2, 2 * n + 1)[1::2] + 0.2 / n).reshape(shape)


@dataclass(frozen=True)
class LossRow:
    """One loss: how to make it, its targets (K, N) or labels (N,), and ℓ_n written out independently."""

    make: Callable[..., bp.Loss]
    target: Callable[[np.random.Generator, int, int], np.ndarray]
    formula: Callable[[np.ndarray, np.ndarray], np.ndarray]
    outputs: int = 1  # rows of f for each row of y


def real(generator: np.random.Generator, K: int, N: int) -> np.ndarray:
    """Any numbers."""
    return generator.normal(size=(K, N))


def labels(generator: np.random.Generator, K: int, N: int) -> np.ndarray:
    """Classes 0 … K−1."""
    return generator.integers(K, size=N)


def one_hot(generator: np.random.Generator, K: int, N: int) -> np.ndarray:
    """A column with a single 1 per example."""
    return np.eye(K)[:, labels(generator, K, N)]


def soft(generator: np.random.Generator, K: int, N: int) -> np.ndarray:
    """A column of probabilities per example."""
    return generator.dirichlet(np.ones(K), N).T


def softmax_formula(f: np.ndarray, y: np.ndarray) -> np.ndarray:
    """− Σ_k y_k log p_k."""
    log_p = np.log(np.exp(f) / np.exp(f).sum(axis=0))
    return -log_p[y, np.arange(f.shape[1])] if y.ndim == 1 else -(y * log_p).sum(axis=0)


def binary_formula(f: np.ndarray, y: np.ndarray) -> np.ndarray:
    """− Σ_k y log p + (1 − y) log(1 − p)."""
    p = 1 / (1 + np.exp(-f))
    return -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(axis=0)


def huber_formula(f: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Both branches, for δ = 0.7."""
    d = np.abs(f - y)
    return np.where(d <= 0.7, d**2 / 2, 0.7 * (d - 0.35)).sum(axis=0)


def pinball_formula(f: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Quantile after quantile, for 0.1, 0.5 and 0.9."""
    quantiles = zip((0.1, 0.5, 0.9), np.split(f, 3), strict=True)
    return sum(np.maximum(q * (y - f_q), (q - 1) * (y - f_q)).sum(axis=0) for q, f_q in quantiles)


def gaussian_formula(f: np.ndarray, y: np.ndarray) -> np.ndarray:
    """− log of the normal density with mean μ and variance eˢ."""
    mean, s = np.split(f, 2)
    density = np.exp(-((y - mean) ** 2) / (2 * np.exp(s))) / np.sqrt(2 * np.pi * np.exp(s))
    return -np.log(density).sum(axis=0)


LOSSES: dict[str, LossRow] = {
    "LeastSquares": LossRow(bp.LeastSquares, real, lambda f, y: ((f - y) ** 2).sum(axis=0)),
    "AbsoluteError": LossRow(bp.AbsoluteError, real, lambda f, y: np.abs(f - y).sum(axis=0)),
    "Huber": LossRow(lambda **kw: bp.Huber(0.7, **kw), real, huber_formula),
    "Pinball": LossRow(lambda **kw: bp.Pinball([0.1, 0.5, 0.9], **kw), real, pinball_formula, outputs=3),
    "PerMember": LossRow(
        lambda **kw: bp.PerMember(bp.Huber(0.7, **kw), 3),
        real,
        lambda f, y: np.mean([huber_formula(f[m::3], y) for m in range(3)], axis=0),
        outputs=3,
    ),
    "Poisson": LossRow(
        bp.Poisson,
        lambda generator, K, N: generator.poisson(2.0, (K, N)),
        lambda f, y: (np.exp(f) - y * f).sum(axis=0),
    ),
    "GaussianNLL": LossRow(bp.GaussianNLL, real, gaussian_formula, outputs=2),
    "CrossEntropy of labels": LossRow(bp.CrossEntropy, labels, softmax_formula),
    "CrossEntropy of one-hot": LossRow(bp.CrossEntropy, one_hot, softmax_formula),
    "CrossEntropy of probabilities": LossRow(bp.CrossEntropy, soft, softmax_formula),
    "BinaryCrossEntropy": LossRow(
        bp.BinaryCrossEntropy, lambda generator, K, N: generator.integers(2, size=(K, N)), binary_formula
    ),
    "BinaryCrossEntropy of probabilities": LossRow(
        bp.BinaryCrossEntropy, lambda generator, K, N: generator.uniform(size=(K, N)), binary_formula
    ),
}

# Every optimizer with the settings that choose another path through its rule.
OPTIMIZERS: dict[str, tuple[type[bp.Optimizer], dict[str, Any]]] = {
    "SGD": (bp.SGD, {"learning_rate": 0.05}),
    "SGD decay": (bp.SGD, {"learning_rate": 0.05, "weight_decay": 0.1}),
    "SGD momentum": (bp.SGD, {"learning_rate": 0.05, "momentum": 0.9}),
    "SGD momentum decay": (bp.SGD, {"learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.1}),
    "SGD nesterov": (bp.SGD, {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True}),
    "SGD nesterov decay": (
        bp.SGD,
        {"learning_rate": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
    ),
    "RMSProp": (bp.RMSProp, {"learning_rate": 0.01}),
    "RMSProp decay": (bp.RMSProp, {"learning_rate": 0.01, "decay": 0.9, "eps": 1e-6, "weight_decay": 0.1}),
    "Adagrad": (bp.Adagrad, {"learning_rate": 0.05}),
    "Adagrad decay": (bp.Adagrad, {"learning_rate": 0.05, "eps": 1e-6, "weight_decay": 0.1}),
    "Adam": (bp.Adam, {"learning_rate": 0.01}),
    "Adam decay": (bp.Adam, {"learning_rate": 0.01, "betas": (0.8, 0.99), "weight_decay": 0.1}),
    "Adam without memory": (bp.Adam, {"learning_rate": 0.01, "betas": (0.0, 0.0), "eps": 0.1}),
    "AdamW": (bp.AdamW, {"learning_rate": 0.01}),
    "AdamW decay": (bp.AdamW, {"learning_rate": 0.01, "eps": 1e-6, "weight_decay": 0.3}),
    "AdamW without decay": (bp.AdamW, {"learning_rate": 0.01, "weight_decay": 0.0}),
}


def complex_step(function: Callable[[np.ndarray], complex], x: np.ndarray) -> np.ndarray:
    """∂function/∂x, entry by entry: Im function(x + iε) / ε, exact because nothing cancels."""
    gradient = np.empty(x.shape)
    for entry in np.ndindex(x.shape):
        stepped = x.astype(complex)
        stepped[entry] += 1j * STEP
        gradient[entry] = function(stepped).imag / STEP
    return gradient


def assert_close(actual: np.ndarray, desired: np.ndarray, tolerance: float = 1e-13) -> None:
    """Within `tolerance` of max(1, |desired|), entry by entry."""
    assert np.shape(actual) == np.shape(desired)
    scale = np.maximum(1, np.abs(desired))
    assert_allclose(actual / scale, desired / scale, rtol=0, atol=tolerance)
