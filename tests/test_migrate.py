"""What the pages for newcomers say of PyTorch and Keras holds: their code runs beside ours, and the tables were compared.

Both are large, so each test runs where the library is installed.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

import backprop as bp

PAGES = Path(__file__).resolve().parents[1] / "docs" / "migrate"
N, K = 7, 3

# Some versions warn of their own doings; what we do is tested with warnings as errors elsewhere.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def torch():
    """PyTorch on one thread: spinning threads on a busy machine make a second half a minute."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(threads)


@pytest.fixture
def keras(monkeypatch):
    """Keras on whichever library of tensors there is."""
    if not importlib.util.find_spec("keras"):
        pytest.skip("Keras is not installed")
    backends = ("torch", "jax", "tensorflow")
    monkeypatch.setenv("KERAS_BACKEND", next(name for name in backends if importlib.util.find_spec(name)))
    return pytest.importorskip("keras")


def run(page, their):
    """Run our blocks and theirs in order, in one namespace."""
    text, namespace = (PAGES / page).read_text("utf-8"), {"__name__": page}
    blocks = re.findall(rf"^```python(?: {their})?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) > len(re.findall(r"^```python$", text, re.MULTILINE))
    for block in blocks:
        exec(compile(block, page, "exec", dont_inherit=True), namespace)


def test_the_page_for_pytorch_runs(torch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("pytorch.md", "torch")


def test_the_page_for_keras_runs(keras, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("keras.md", "keras")


def examples():
    """Outputs (N, K), and targets of each kind: numbers, counts, 0 and 1, labels."""
    rng = np.random.default_rng(0)
    f, numbers = rng.normal(size=(2, N, K))
    kinds = {"numbers": numbers, "counts": rng.poisson(2.0, (N, K)) * 1.0, "answers": rng.integers(0, 2, (N, K)) * 1.0}
    return f, kinds | {"labels": rng.integers(0, K, N)}


def value(loss, f, y, w=None):
    return loss.forward(f.T, y.T, w)


TORCH_LOSSES = [  # theirs, with arguments, ours, targets, ours over theirs
    ("CrossEntropyLoss", {}, bp.CrossEntropy(), "labels", 1),
    ("MSELoss", {}, bp.LeastSquares(), "numbers", K),
    ("L1Loss", {}, bp.AbsoluteError(), "numbers", K),
    ("HuberLoss", {"delta": 0.5}, bp.Huber(0.5), "numbers", K),
    ("SmoothL1Loss", {"beta": 0.5}, bp.Huber(0.5), "numbers", 0.5 * K),
    ("BCEWithLogitsLoss", {}, bp.BinaryCrossEntropy(), "answers", K),
    ("PoissonNLLLoss", {}, bp.Poisson(), "counts", K),
]


@pytest.mark.parametrize(("name", "arguments", "ours", "kind", "factor"), TORCH_LOSSES)
def test_losses_of_pytorch(torch, name, arguments, ours, kind, factor):
    f, targets = examples()
    theirs = getattr(torch.nn, name)(**arguments)(torch.tensor(f), torch.tensor(targets[kind])).item()
    assert value(ours, f, targets[kind]) == pytest.approx(factor * theirs, rel=1e-12)


def test_weights_and_smooth_labels_of_pytorch(torch):
    f, targets = examples()
    y, weight = targets["labels"], np.array([1.0, 2.0, 5.0])
    given = torch.tensor(f), torch.tensor(y)
    theirs = torch.nn.CrossEntropyLoss(weight=torch.tensor(weight))(*given).item()
    assert value(bp.CrossEntropy(), f, y, weight[y]) == pytest.approx(theirs, rel=1e-12)
    theirs = torch.nn.CrossEntropyLoss(label_smoothing=0.1)(*given).item()
    assert value(bp.CrossEntropy(), f, np.eye(K)[y] * 0.9 + 0.1 / K) == pytest.approx(theirs, rel=1e-12)
    s = np.random.default_rng(1).normal(size=(N, K))
    theirs = torch.nn.GaussianNLLLoss(full=True)(given[0], torch.tensor(targets["numbers"]), torch.tensor(np.exp(s)))
    ours = value(bp.GaussianNLL(), np.hstack([f, s]), targets["numbers"])
    assert ours == pytest.approx(K * theirs.item(), rel=1e-12)


TORCH_SCHEDULES = [
    ("CosineAnnealingLR", {"T_max": 30, "eta_min": 0.01}, bp.CosineDecay(0.4, steps=30, final=0.01)),
    ("StepLR", {"step_size": 7, "gamma": 0.5}, bp.StepDecay(0.4, every=7, factor=0.5)),
    ("ExponentialLR", {"gamma": 0.9}, bp.ExponentialDecay(0.4, factor=0.9)),
    ("OneCycleLR", {"max_lr": 0.4, "total_steps": 40}, bp.OneCycle(0.4, steps=40)),
]


@pytest.mark.parametrize(("name", "arguments", "ours"), TORCH_SCHEDULES)
def test_schedules_of_pytorch(torch, name, arguments, ours):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.4, momentum=0.9)
    schedule, theirs = getattr(torch.optim.lr_scheduler, name)(optimizer, **arguments), []
    for _ in range(30):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose([ours(t) for t in range(30)], theirs, rtol=0, atol=1e-12)


KERAS_LOSSES = [
    ("SparseCategoricalCrossentropy", {"from_logits": True}, bp.CrossEntropy(), "labels", 1),
    ("MeanSquaredError", {}, bp.LeastSquares(), "numbers", K),
    ("MeanAbsoluteError", {}, bp.AbsoluteError(), "numbers", K),
    ("Huber", {"delta": 0.5}, bp.Huber(0.5), "numbers", K),
    ("BinaryCrossentropy", {"from_logits": True}, bp.BinaryCrossEntropy(), "answers", K),
]


@pytest.mark.parametrize(("name", "arguments", "ours", "kind", "factor"), KERAS_LOSSES)
def test_losses_of_keras(keras, name, arguments, ours, kind, factor):
    f, targets = examples()
    y, w = targets[kind], np.linspace(0.5, 2, N)
    theirs = getattr(keras.losses, name)(**arguments)
    assert value(ours, f, y) == pytest.approx(factor * float(theirs(y, f)), rel=1e-5)
    weighted = float(theirs(y, f, sample_weight=w)) / w.mean()  # over N there, over Σ w here
    assert value(ours, f, y, w) == pytest.approx(factor * weighted, rel=1e-5)


def test_poisson_and_smooth_labels_of_keras(keras):
    f, targets = examples()
    theirs = float(keras.losses.Poisson()(targets["counts"], np.exp(f)))
    assert value(bp.Poisson(), f, targets["counts"]) == pytest.approx(K * theirs, rel=1e-5)
    y = np.eye(K)[targets["labels"]]
    theirs = float(keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)(y, f))
    assert value(bp.CrossEntropy(), f, y * 0.9 + 0.1 / K) == pytest.approx(theirs, rel=1e-5)


KERAS_RULES = [  # theirs, with arguments, ours, whether they are the same
    ("SGD", {"momentum": 0.9}, bp.SGD(0.05, 0.9), True),
    ("SGD", {"momentum": 0.9, "nesterov": True}, bp.SGD(0.05, 0.9, nesterov=True), True),
    ("SGD", {"weight_decay": 0.1}, bp.SGD(0.05, weight_decay=0.1), True),
    ("SGD", {"momentum": 0.9, "weight_decay": 0.1}, bp.SGD(0.05, 0.9, weight_decay=0.1), False),
    ("SGD", {"clipvalue": 0.2}, bp.SGD(0.05, clip_value=0.2), True),
    ("SGD", {"global_clipnorm": 0.2}, bp.SGD(0.05, clip_norm=0.2), True),
    ("Adam", {}, bp.Adam(0.05), True),
    ("Adam", {"weight_decay": 0.1}, bp.Adam(0.05, weight_decay=0.1), False),
    ("Adam", {"weight_decay": 0.1}, bp.AdamW(0.05, weight_decay=0.1), True),
    ("AdamW", {"weight_decay": 0.1}, bp.AdamW(0.05, weight_decay=0.1), True),
    ("RMSprop", {}, bp.RMSProp(0.05, decay=0.9), True),
    ("Adagrad", {}, bp.Adagrad(0.05), False),
    ("Adagrad", {"initial_accumulator_value": 0.0}, bp.Adagrad(0.05), True),
]


@pytest.mark.parametrize(("name", "arguments", "ours", "same"), KERAS_RULES)
def test_rules_of_keras(keras, name, arguments, ours, same):
    phi, slopes = np.linspace(-1, 1, 9, dtype=np.float32), np.linspace(0.5, 3, 9, dtype=np.float32)
    theirs, variable = getattr(keras.optimizers, name)(0.05, **arguments), keras.Variable(phi.copy())
    theirs.build([variable])
    for _ in range(20):
        theirs.apply([keras.ops.convert_to_tensor(slopes) * variable], [variable])
        ours.step(phi, slopes * phi)
    apart = np.abs(keras.ops.convert_to_numpy(variable) - phi).max()
    assert apart < 2e-5 if same else apart > 1e-3


def test_layers_of_keras(keras):
    X = np.random.default_rng(0).normal(1, 3, size=(50, 4)).astype("float32")
    layers, numbers, ours = keras.layers, keras.ops.convert_to_numpy, bp.BatchNorm(4, momentum=0.01, eps=1e-3)
    pairs = [
        (layers.LeakyReLU(), bp.LeakyReLU(0.3)),
        (layers.ELU(), bp.ELU()),
        (layers.LayerNormalization(), bp.LayerNorm(4, eps=1e-3)),
        *((layers.Activation(name), layer) for name, layer in (("gelu", bp.GELU()), ("silu", bp.SiLU()))),
    ]
    for theirs, layer in pairs:
        np.testing.assert_allclose(numbers(theirs(X)), layer.forward(X.T).T, rtol=0, atol=1e-5)
    theirs = layers.BatchNormalization()
    np.testing.assert_allclose(numbers(theirs(X, training=True)), ours.forward(X.T).T, rtol=0, atol=1e-5)
    running = numbers(theirs.moving_variance) - 0.99
    np.testing.assert_allclose(ours.buffers["running_variance"] - 0.99, running * 50 / 49, rtol=1e-3)


def test_schedules_of_keras(keras):
    of = keras.optimizers.schedules
    pairs = [
        (of.CosineDecay(0.4, 30, alpha=0.1), bp.CosineDecay(0.4, steps=30, final=0.1 * 0.4)),
        (of.ExponentialDecay(0.4, 10, 0.5), bp.ExponentialDecay(0.4, factor=0.5 ** (1 / 10))),
        (of.ExponentialDecay(0.4, 10, 0.5, staircase=True), bp.StepDecay(0.4, every=10, factor=0.5)),
    ]
    for theirs, ours in pairs:
        np.testing.assert_allclose([float(theirs(t)) for t in range(40)], [ours(t) for t in range(40)], rtol=1e-5)
