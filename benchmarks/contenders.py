"""The contenders of `peers.py`: one class per library, each training the same nets on the same rows.

A contender is made for a net, a batch size, an optimizer and a data set whose rows make whole batches; `epoch()` shuffles the
rows and trains on all of them once. What a library checks at its door, and what it compiles, happens in the first epoch
or before, outside the clock.
"""

# ruff: noqa: D102 (`Contender` says what the methods of all contenders do)

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import numpy as np

RATES = {"SGD": 1e-3, "momentum": 1e-3, "Adam": 1e-3}
MOMENTUM, BETA1, BETA2, EPS = 0.9, 0.9, 0.999, 1e-8


class Contender:
    """What all have; `seconds` is set by an epoch that measures itself."""

    needs = "numpy"  # the module that must be there
    packages: tuple[str, ...] = ("numpy",)
    seconds: float | None = None

    def __init__(self, widths: list[int], batch: int, optimizer: str, X: Any, y: Any) -> None:
        self.widths, self.batch, self.optimizer, self.X, self.y = widths, batch, optimizer, X, y
        self.rate = RATES[optimizer]
        self.generator = np.random.default_rng(0)
        self.start()

    def start(self) -> None:
        """Make the net."""

    def epoch(self) -> None:
        """Train on each row once, shuffled."""
        raise NotImplementedError

    def batches(self) -> Any:
        """The shuffled row numbers, (steps, batch)."""
        return self.generator.permutation(len(self.X)).reshape(-1, self.batch)

    def weights(self) -> list[tuple[Any, Any]]:
        """He normal weights (D_in, D_out) and biases (D_out,), for libraries where we write the net."""
        draw = self.generator.standard_normal
        return [
            (np.zeros(b, np.float32), (draw((a, b)) * np.sqrt(2 / a)).astype(np.float32))
            for a, b in pairwise(self.widths)
        ]


class Backprop(Contender):
    """Ours at its defaults: how many threads it may use it learns from its environment, as a user's would."""

    needs, packages = "backprop", ("backprop-mlp", "numpy", "scipy")

    def start(self) -> None:
        from common import network

        import backprop as bp

        optimizers = {
            "SGD": lambda: bp.SGD(self.rate),
            "momentum": lambda: bp.SGD(self.rate, momentum=MOMENTUM),
            "Adam": lambda: bp.Adam(self.rate),
        }
        self.net = network(self.widths)
        trainer = bp.Trainer(self.net, bp.CrossEntropy(), optimizers[self.optimizer](), batch_size=self.batch)
        self.records = trainer.epochs(self.X, self.y, 10**9)

    def epoch(self) -> None:
        next(self.records)


class NumPy(Contender):
    """The loop that somebody who knows NumPy writes by hand."""

    def start(self) -> None:
        self.parameters = [p for pair in self.weights() for p in pair]  # b0, W0, b1, W1, …
        self.m = [np.zeros_like(p) for p in self.parameters]
        self.v = [np.zeros_like(p) for p in self.parameters]
        self.t = 0

    def epoch(self) -> None:
        for idx in self.batches():
            self.update(self.gradients(self.X[idx], self.y[idx]))

    def gradients(self, x: Any, y: Any) -> list[Any]:
        b, W = self.parameters[::2], self.parameters[1::2]
        h = [x]
        for k in range(len(W) - 1):
            h.append(np.maximum(h[-1] @ W[k] + b[k], 0))
        f = h[-1] @ W[-1] + b[-1]
        p = np.exp(f - f.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        self.loss = -np.log(p[np.arange(len(y)), y] + 1e-12).mean()
        p[np.arange(len(y)), y] -= 1
        d = p / len(y)
        gradients: list[Any] = []
        for k in reversed(range(len(W))):
            gradients = [d.sum(axis=0), h[k].T @ d, *gradients]
            if k:
                d = (d @ W[k].T) * (h[k] > 0)
        return gradients

    def update(self, gradients: list[Any]) -> None:
        self.t += 1
        for k, (p, g) in enumerate(zip(self.parameters, gradients, strict=True)):
            if self.optimizer == "SGD":
                p -= self.rate * g
            elif self.optimizer == "momentum":
                self.v[k] = MOMENTUM * self.v[k] + g
                p -= self.rate * self.v[k]
            else:
                self.m[k] = BETA1 * self.m[k] + (1 - BETA1) * g
                self.v[k] = BETA2 * self.v[k] + (1 - BETA2) * g**2
                m, v = self.m[k] / (1 - BETA1**self.t), self.v[k] / (1 - BETA2**self.t)
                p -= self.rate * m / (np.sqrt(v) + EPS)


class PyTorch(Contender):
    """Eager PyTorch, the loop of its tutorials; Adam and SGD in their foreach form."""

    needs, packages = "torch", ("torch",)
    form = {"foreach": True}  # noqa: RUF012

    def start(self) -> None:
        import os

        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        torch.manual_seed(0)
        layers: list[Any] = []
        for k, (D_in, D_out) in enumerate(pairwise(self.widths)):
            layers += [torch.nn.ReLU()] * (k > 0) + [torch.nn.Linear(D_in, D_out)]
        self.torch, self.net, self.criterion = torch, torch.nn.Sequential(*layers), torch.nn.CrossEntropyLoss()
        optim, parameters = torch.optim, self.net.parameters()
        if self.optimizer == "Adam":
            self.descent: Any = optim.Adam(parameters, lr=self.rate, **self.form)
        else:
            mu = MOMENTUM if self.optimizer == "momentum" else 0.0
            self.descent = optim.SGD(parameters, lr=self.rate, momentum=mu, **self.form)
        self.X, self.y = torch.from_numpy(self.X), torch.from_numpy(self.y)

    def epoch(self) -> None:
        X, y, net, descent = self.X, self.y, self.net, self.descent
        for idx in self.torch.randperm(len(X)).split(self.batch):
            descent.zero_grad()
            self.criterion(net(X[idx]), y[idx]).backward()
            descent.step()


class PyTorchFused(PyTorch):
    """Eager PyTorch with fused optimizers, which one has to ask for."""

    form = {"fused": True}  # noqa: RUF012


class ScikitLearn(Contender):
    """MLPClassifier, one epoch per `partial_fit`; the clock runs in the descent itself, not in the checks at its door."""

    needs, packages = "sklearn", ("scikit-learn",)

    def start(self) -> None:
        from sklearn.neural_network import MLPClassifier

        contender = self

        class Timed(MLPClassifier):  # type: ignore[misc]
            def _fit_stochastic(self, *args: Any, **kwargs: Any) -> None:
                from time import perf_counter

                begin = perf_counter()
                super()._fit_stochastic(*args, **kwargs)
                contender.seconds = perf_counter() - begin

        mu = MOMENTUM if self.optimizer == "momentum" else 0.0
        self.net = Timed(
            hidden_layer_sizes=tuple(self.widths[1:-1]),
            solver="adam" if self.optimizer == "Adam" else "sgd",
            **{"alpha": 0.0, "batch_size": self.batch, "learning_rate_init": self.rate, "learning_rate": "constant"},
            **{"momentum": mu, "nesterovs_momentum": False, "shuffle": True, "tol": 0.0, "n_iter_no_change": 10**9},
            random_state=0,
        )
        self.classes = np.arange(self.widths[-1])

    def epoch(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.net.partial_fit(self.X, self.y, classes=self.classes)


class JAX(Contender):
    """A whole epoch as one compiled program, with lax.scan over its batches and its state donated."""

    needs, packages = "jax", ("jax",)

    def start(self) -> None:
        import os

        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import jax
        import jax.numpy as jnp

        self.jax, self.jnp = jax, jnp
        phi = [(jnp.asarray(b), jnp.asarray(W)) for b, W in self.weights()]
        zeros = jax.tree.map(jnp.zeros_like, phi)
        self.state = (phi, zeros, jax.tree.map(jnp.copy, zeros), jnp.zeros((), jnp.float32))
        self.X, self.y = jnp.asarray(self.X), jnp.asarray(self.y.astype(np.int32))
        self.run = jax.jit(self._epoch, donate_argnums=0)

    def epoch(self) -> None:
        batches = self.jnp.asarray(self.batches().astype(np.int32))
        self.state, losses = self.run(self.state, self.X, self.y, batches)
        self.jax.block_until_ready((self.state, losses))

    def _epoch(self, state: Any, X: Any, y: Any, batches: Any) -> Any:
        def step(state: Any, idx: Any) -> Any:
            L, gradients = self.jax.value_and_grad(self._loss)(state[0], X[idx], y[idx])
            return self._update(state, gradients), L

        return self.jax.lax.scan(step, state, batches)

    def _loss(self, phi: Any, h: Any, y: Any) -> Any:
        for b, W in phi[:-1]:
            h = self.jax.nn.relu(h @ W + b)
        logp = self.jax.nn.log_softmax(h @ phi[-1][1] + phi[-1][0])
        return -self.jnp.take_along_axis(logp, y[:, None], 1).mean()

    def _update(self, state: Any, g: Any) -> Any:
        phi, m, v, t = state
        tree, t = self.jax.tree.map, t + 1
        if self.optimizer == "SGD":
            return tree(lambda p, g: p - self.rate * g, phi, g), m, v, t
        if self.optimizer == "momentum":
            m = tree(lambda m, g: MOMENTUM * m + g, m, g)
            return tree(lambda p, m: p - self.rate * m, phi, m), m, v, t
        m = tree(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, g)
        v = tree(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, g)
        a, c = self.rate / (1 - BETA1**t), 1 / (1 - BETA2**t)
        return tree(lambda p, m, v: p - a * m / (self.jnp.sqrt(c * v) + EPS), phi, m, v), m, v, t


class Floor(Contender):
    """The matrix products of a step and nothing else, through the BLAS and the kernels this library uses.

    Forward Ω h, backward Ωᵀ ∂L/∂f (not for the first layer) and ∂L/∂f hᵀ, into arrays made once, with activations stored
    by columns and by rows: the faster of the two counts.
    """

    needs, packages = "backprop", ("backprop-mlp", "scipy")

    def start(self) -> None:
        from backprop.functions import load

        self.gemm = load().sgemm
        self.layouts = [self.products(rows=False), self.products(rows=True)]

    def products(self, *, rows: bool) -> list[tuple[Any, ...]]:
        """Arguments for every product. BLAS sees Fortran arrays, so C-ordered arrays are passed as their transposes."""
        N = self.batch
        made: list[tuple[Any, ...]] = []
        for k, (D_in, D_out) in enumerate(pairwise(self.widths)):
            omega, domega = (np.full((D_out, D_in), 1e-3, np.float32).T for _ in range(2))  # (D_in, D_out), Fortran
            shapes = ((N, D_in), (N, D_out)) if rows else ((D_in, N), (D_out, N))
            (h, dh), (f, df) = ([np.full(shape, 1e-3, np.float32).T for _ in range(2)] for shape in shapes)
            # With rows, h here is (D_in, N); with columns, (N, D_in).
            if rows:
                made += [(omega, h, f, 1, 0), (h, df, domega, 0, 1)] + [(omega, df, dh, 0, 0)] * (k > 0)
            else:
                made += [(h, omega, f, 0, 0), (h, df, domega, 1, 0)] + [(df, omega, dh, 0, 1)] * (k > 0)
        return made

    def epoch(self) -> None:
        from time import perf_counter

        gemm, times = self.gemm, []
        for layout in self.layouts:
            begin = perf_counter()
            for _ in range(len(self.X) // self.batch):
                for A, B, C, trans_a, trans_b in layout:
                    gemm(1.0, A, B, 0.0, C, trans_a, trans_b, 1)
            times.append(perf_counter() - begin)
        self.seconds = min(times)


CONTENDERS: dict[str, type[Contender]] = {
    "backprop": Backprop,
    "numpy": NumPy,
    "pytorch": PyTorch,
    "pytorch_fused": PyTorchFused,
    "sklearn": ScikitLearn,
    "jax": JAX,
    "floor": Floor,
}
