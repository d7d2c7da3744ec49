"""Advice: each typical mistake is told once and in the right words, good settings never; and looking changes nothing."""

from __future__ import annotations

import copy
import warnings
from contextlib import nullcontext, suppress
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import backprop as bp
from backprop.around import boundary
from backprop.training import advice, look
from backprop.training.data import Examples

rng = np.random.default_rng(0)
DIGITS, LABELS = bp.load_digits()
DIGITS = DIGITS[:600] / 16
LABELS = LABELS[:600]
IRIS = np.vstack(
    [rng.normal(mean, 0.4, (50, 4)) for mean in ([5, 3.4, 1.5, 0.2], [5.9, 2.8, 4.3, 1.3], [6.6, 3, 5.5, 2])]
)
IRIS, SPECIES = (IRIS - IRIS.mean(axis=0)) / IRIS.std(axis=0), np.repeat([0, 1, 2], 50)
LINE = np.linspace(-3, 3, 200)[:, None]
SINE, COUNTS = np.sin(2 * LINE[:, 0]), rng.poisson(np.exp(LINE[:, 0]))
XOR, PARITY = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
HOUSES = np.stack([rng.lognormal(11, 0.5, 500), rng.integers(1, 9, 500), rng.uniform(20, 300, 500)], axis=1)
PRICES = 2 * HOUSES[:, 0] + 1000 * HOUSES[:, 2]
STANDARD = (HOUSES - HOUSES.mean(axis=0)) / HOUSES.std(axis=0)
ANGLE, SPEED, TORQUE = rng.uniform(-np.pi, np.pi, 600), rng.uniform(-8, 8, 600), rng.uniform(-2, 2, 600)
PENDULUM = np.stack([np.cos(ANGLE), np.sin(ANGLE), SPEED, TORQUE], axis=1)
NEXT = np.stack([np.cos(ANGLE + 0.05 * SPEED), np.sin(ANGLE + 0.05 * SPEED), SPEED + 0.75 * np.sin(ANGLE)], axis=1)


class Normalize(bp.Layer):
    """Divides by the sum: after Exp, a softmax of one's own."""

    keeps_width = True

    def forward(self, h):
        self.h = h
        return h / h.sum(axis=0)

    def backward(self, dL_df):
        total = self.h.sum(axis=0)
        return (dL_df - (dL_df * self.h).sum(axis=0) / total) / total, {}


def mlp(*widths, activation=bp.ReLU, initializer=None, last=(), dtype="float32", seed=0):
    layers = []
    for fan_in, fan_out in pairwise(widths):
        layers += [bp.Linear(fan_in, fan_out, initializer=initializer), activation()]
    return bp.Sequential(*layers[:-1], *last, seed=seed, dtype=dtype)


def biased(net, beta):
    net[0].parameters["beta"][...] = beta
    return net


def told(net, loss, optimizer, X, y, epochs=2, **settings):
    """The advice of a training, which may break off."""
    with warnings.catch_warnings(record=True, action="always") as caught, suppress(FloatingPointError):
        bp.Trainer(net, loss, optimizer, **settings).fit(X, y, epochs=epochs, verbose=0)
    assert {warning.category for warning in caught} <= {bp.TrainingAdvice}
    assert {warning.filename for warning in caught} <= {__file__}
    return [str(warning.message) for warning in caught]


deep = [64] * 19
CE, BCE, LS = bp.CrossEntropy, bp.BinaryCrossEntropy, bp.LeastSquares
GOOD = {
    "digits": (lambda: mlp(64, 32, 10), CE(), bp.SGD(0.1), DIGITS, LABELS),
    "digits with Adam": (lambda: mlp(64, 32, 10), CE(), bp.Adam(), DIGITS, LABELS),
    "digits slowly": (lambda: mlp(64, 32, 10), CE(), bp.SGD(0.001), DIGITS, LABELS),
    "digits 0 … 16": (lambda: mlp(64, 32, 10), CE(), bp.Adam(), 16 * DIGITS, LABELS),
    "digits in float64": (lambda: mlp(64, 32, 10, dtype="float64"), CE(), bp.SGD(0.1), DIGITS, LABELS),
    "one example a batch": (lambda: mlp(64, 32, 10), CE(), bp.SGD(0.01), DIGITS, LABELS, {"batch_size": 1}),
    "one batch": (lambda: mlp(64, 32, 10), CE(), bp.SGD(0.3), DIGITS, LABELS, {"batch_size": "full", "epochs": 32}),
    "one-hot": (lambda: mlp(64, 32, 10), LS(), bp.SGD(0.05), DIGITS, np.eye(10)[LABELS]),
    "20 layers": (lambda: mlp(64, *deep, 10), CE(), bp.SGD(0.01), DIGITS, LABELS),
    "7 of 8 units dead by chance": (lambda: mlp(64, *[8] * 9, 10), CE(), bp.SGD(0.01), DIGITS, LABELS),
    "20 narrow layers": (lambda: mlp(64, *[16] * 19, 10), CE(), bp.SGD(0.01), DIGITS, LABELS),
    "weights of 0 at the end": (lambda: mlp(64, 32, 32, 10, last=(bp.Residual(bp.Linear(10, 10, initializer=bp.Constant(0))),)),
                                CE(), bp.SGD(0.05), DIGITS, LABELS),
    "BatchNorm first": (lambda: bp.Sequential(bp.BatchNorm(3), bp.Linear(3, 16), bp.ReLU(), bp.Linear(16, 1), seed=0),
                        LS(), bp.SGD(0.05), HOUSES, STANDARD[:, 0]),
    "iris": (lambda: mlp(4, 16, 3), CE(), bp.SGD(0.1), IRIS, SPECIES, {"epochs": 32}),
    "sine": (lambda: mlp(1, 32, 32, 1, activation=bp.Tanh), LS(), bp.SGD(0.05), LINE, SINE, {"epochs": 32}),
    "an outlier": (lambda: mlp(1, 32, 1), bp.Huber(), bp.Adam(), np.where(LINE < 2.99, LINE, 1e3), SINE),
    "XOR": (lambda: mlp(2, 4, 1, activation=bp.Tanh), BCE(), bp.SGD(0.5), XOR, PARITY, {"epochs": 64}),
    "XOR by least squares": (lambda: mlp(2, 4, 1, activation=bp.Tanh), LS(), bp.SGD(0.1), XOR, PARITY, {"epochs": 64}),
    "counts": (lambda: mlp(1, 16, 1, activation=bp.Tanh), bp.Poisson(), bp.SGD(0.01), LINE, COUNTS, {"epochs": 32}),
    "counts by least squares": (lambda: mlp(1, 16, 1), LS(), bp.SGD(0.003), LINE, COUNTS, {"epochs": 32}),
    "yes and no by least squares": (lambda: mlp(4, 16, 1), LS(), bp.SGD(0.05), IRIS, SPECIES > 1),
    "houses": (lambda: mlp(3, 32, 1), LS(), bp.SGD(0.01), STANDARD, PRICES / PRICES.std() - 2),
    "a pendulum": (lambda: mlp(4, 64, 64, 3), LS(), bp.SGD(0.002), PENDULUM, NEXT, {"epochs": 8}),
    "means and variances": (lambda: mlp(1, 32, 2), bp.GaussianNLL(), bp.Adam(0.01), LINE, SINE, {"epochs": 16}),
    "quantiles": (lambda: mlp(1, 32, 3), bp.Pinball([0.1, 0.5, 0.9]), bp.Adam(0.01), LINE, SINE, {"epochs": 16}),
    "a sum as loss": (lambda: mlp(64, 32, 10), CE(reduction="sum"), bp.SGD(0.002), DIGITS, LABELS),
    "warming up": (lambda: mlp(64, 32, 10), CE(), bp.SGD(bp.WarmUp(0.1, steps=10**6)), DIGITS, LABELS),
    "at rest on purpose": (lambda: mlp(64, 32, 10), CE(), bp.SGD(1e-300), DIGITS, LABELS),
    "logits between 0 and 1": (lambda: mlp(2, 4, 1, last=(bp.Tanh(), bp.Linear(1, 1))), BCE(), bp.SGD(0.5), XOR, PARITY),
}  # fmt: skip


@pytest.mark.parametrize("setting", GOOD)
def test_good_settings_are_left_alone(setting):
    net, loss, optimizer, X, y, *more = GOOD[setting]
    assert told(net(), loss, copy.deepcopy(optimizer), X, y, **{"epochs": 4, **(more[0] if more else {})}) == []


def test_what_was_learned_may_be_refined():
    net = mlp(64, 32, 10)
    assert told(net, CE(), bp.SGD(0.5), DIGITS, LABELS, epochs=30) == []
    for rate in (1e-5, 0.5):
        assert told(net, CE(), bp.SGD(rate), DIGITS, LABELS, epochs=2) == []


BAD = {
    "pixels": (lambda: mlp(64, 32, 10), CE(), bp.SGD(0.01), 255 * DIGITS, LABELS,
               ["inputs are not scaled", "of X has mean 191 and standard deviation 62.4", "more are like it", "StandardScaler"]),
    "houses": (lambda: mlp(3, 32, 1), LS(), bp.Adam(), HOUSES, PRICES, ["inputs are not scaled", "Column 0", "bp.Table"]),
    "wavelengths": (lambda: mlp(1, 32, 1), LS(), bp.SGD(0.1), 1e-7 * LINE, SINE, ["inputs are not scaled", "1.74e-07"]),
    "prices": (lambda: mlp(3, 32, 1), LS(), bp.Adam(), STANDARD, PRICES, ["targets are not scaled", "scale_targets=True"]),
    "tiny targets": (lambda: mlp(1, 32, 1), LS(), bp.Adam(), LINE, 1e-6 * SINE, ["targets are not scaled", "7.21e-07"]),
    "sigmoids": (lambda: mlp(64, *deep, 10, activation=bp.Sigmoid, initializer=bp.GlorotNormal()), CE(), bp.SGD(0.1),
                 DIGITS, LABELS, ["gradients vanish", "in layer 38, Linear(64 → 10)", "in layer 0, Linear(64 → 64)"]),
    "large weights": (lambda: mlp(64, *deep[:9], 10, initializer=bp.Normal(1.0)), CE(), bp.SGD(1e-4), DIGITS, LABELS,
                      ["activations explode", "in layer 16, Linear(64 → 64)", "HeNormal"]),
    "large weights, tanh": (lambda: mlp(64, *deep[:9], 10, activation=bp.Tanh, initializer=bp.Normal(1.0)), CE(),
                            bp.SGD(1e-4), DIGITS, LABELS, ["gradients explode"]),
    "small weights": (lambda: mlp(64, *deep[:9], 10, initializer=bp.Normal(1e-3)), CE(), bp.SGD(0.1), DIGITS, LABELS,
                      ["activations vanish"]),
    "a small rate": (lambda: mlp(64, 32, 10), CE(), bp.SGD(1e-7), DIGITS, LABELS,
                     ["learning rate 1e-07 is too small", "After epoch 1", "bp.learning_rate_range_test"]),
    "a small rate of Adam": (lambda: mlp(64, 32, 10), CE(), bp.Adam(1e-8), DIGITS, LABELS, ["1e-08 is too small"]),
    "a large rate": (lambda: mlp(64, 32, 10, activation=bp.Tanh), CE(), bp.SGD(10), DIGITS, LABELS,
                     ["learning rate 10 is too large", "After epoch 1", "bp.learning_rate_range_test"]),
    "a large rate and ReLU": (lambda: mlp(64, 32, 10), CE(), bp.SGD(10), DIGITS, LABELS,
                              ["dead units", "32 of the 32 units of layer 1, ReLU()", "learning rate 10 is too large"]),
    "a large rate, regression": (lambda: mlp(1, 32, 1, activation=bp.Tanh), LS(), bp.SGD(10), LINE, SINE,
                                 ["learning rate 10 is too large"]),
    "a large rate of a sum": (lambda: mlp(64, 32, 10, activation=bp.Tanh), CE(reduction="sum"), bp.SGD(1), DIGITS, LABELS,
                              ["learning rate 1 is too large"]),
    "labels as amounts": (lambda: mlp(64, 32, 1), LS(), bp.SGD(0.001), DIGITS, LABELS,
                          ["whole numbers 0 … 9", "LeastSquares()", "CrossEntropy with 10 outputs"]),
    "species as amounts": (lambda: mlp(4, 16, 1), bp.AbsoluteError(), bp.SGD(0.01), IRIS, SPECIES.astype(float),
                           ["whole numbers 0 … 2", "CrossEntropy with 3 outputs"]),
    "a sigmoid twice": (lambda: mlp(2, 8, 1, last=(bp.Sigmoid(),)), BCE(), bp.SGD(0.5), XOR, PARITY,
                        ["layer 3, Sigmoid()", "BinaryCrossEntropy() has a sigmoid inside", "Leave that layer out"]),
    "a softmax twice": (lambda: mlp(64, 32, 10, last=(bp.Exp(), Normalize())), CE(), bp.SGD(0.1), DIGITS, LABELS,
                        ["layer 4, Normalize()", "sum to 1", "CrossEntropy() has a softmax inside"]),
    "a sigmoid before a softmax": (lambda: mlp(64, 32, 10, last=(bp.Sigmoid(),)), CE(), bp.SGD(0.1), DIGITS, LABELS,
                                   ["layer 3, Sigmoid()", "has a softmax inside"]),
    "biases of -10": (lambda: biased(mlp(64, 32, 10), -10), CE(), bp.SGD(0.1), DIGITS, LABELS,
                      ["dead units", "32 of the 32 units of layer 1, ReLU()", "biases of 0"]),
    "nested": (lambda: bp.Sequential(bp.Linear(64, 32), bp.Residual(biased(mlp(32, 32, 32), -20)), bp.Linear(32, 10)),
               CE(), bp.SGD(0.1), DIGITS, LABELS, ["dead units", "32 of the 32 units of layer 1.layer.1, ReLU()"]),
}  # fmt: skip


@pytest.mark.parametrize("setting", BAD)
def test_bad_settings_are_told_once(setting):
    net, loss, optimizer, X, y, words = BAD[setting]
    (text,) = told(net(), loss, copy.deepcopy(optimizer), X, y, epochs=4)
    assert text.startswith("Trainer: ")
    for word in words:
        assert word in text, text


@pytest.mark.parametrize("dead", [0, 1, 2, 8, 32])
def test_a_few_dead_units_are_no_trouble(dead):
    beta = np.zeros(32)
    beta[:dead] = -50
    assert len(told(biased(mlp(64, 32, 10), beta), CE(), bp.SGD(0.1), DIGITS, LABELS)) == (dead == 32)


def test_units_that_l1_puts_out_are_meant_to_be():
    net = mlp(64, 32, 10)
    assert told(net, CE(), bp.SGD(0.1, l1=1.0), DIGITS, LABELS, epochs=2) == []
    assert not net[0].parameters["omega"].any()


class TestWhen:
    def test_once_in_a_training(self):
        trainer = bp.Trainer(mlp(64, 32, 10), CE(), bp.SGD(1e-7))
        with pytest.warns(bp.TrainingAdvice) as caught:
            [*trainer.epochs(DIGITS, LABELS, 2), *trainer.epochs(DIGITS, LABELS, 3)]
        assert len(caught) == 1

    def test_each_kind_has_a_warning_of_its_own(self):
        texts = told(mlp(64, 32, 1), LS(), bp.Adam(), 255 * DIGITS, LABELS)
        assert ["inputs" in texts[0], "whole numbers" in texts[1]] == [True, True]
        assert len(texts) == 2

    def test_the_loop_one_can_see(self):
        trainer = bp.Trainer(mlp(64, 32, 10), CE(), bp.SGD(0.01))
        with pytest.warns(bp.TrainingAdvice, match="inputs are not scaled") as caught:
            next(trainer.epochs(255 * DIGITS, LABELS, 1))
        assert caught[0].filename == __file__

    def test_minimize(self):
        with pytest.warns(bp.TrainingAdvice, match=r"minimize: the inputs .* Column 0 of X") as caught:
            bp.minimize(mlp(3, 4, 1), LS(), HOUSES, STANDARD[:, 0], iterations=1, verbose=0)
        assert caught[0].filename == __file__

    def test_minimize_finds_the_scale_of_the_targets_itself(self):
        with warnings.catch_warnings(record=True, action="always") as caught:
            bp.minimize(mlp(3, 4, 1), LS(), STANDARD, PRICES, iterations=1, verbose=0)
        assert not caught

    def test_after_epochs_1_2_4_8(self, monkeypatch):
        looks = []

        def counted(*arguments, **named):
            looks.append(trainer.epochs_done)
            return look.look(*arguments, **named)

        monkeypatch.setattr(advice, "look", counted)
        trainer = bp.Trainer(mlp(64, 32, 10), CE(), bp.SGD(0.1))
        trainer.fit(DIGITS, LABELS, epochs=10, verbose=0)
        assert looks == [0, 1, 2, 4, 8]

    @pytest.mark.parametrize("action", ["ignore", "error"])
    def test_silence_and_errors(self, action):
        trainer = bp.Trainer(mlp(64, 32, 10), CE(), bp.SGD(0.01))
        with warnings.catch_warnings():
            warnings.simplefilter(action, bp.TrainingAdvice)
            with pytest.raises(bp.TrainingAdvice) if action == "error" else nullcontext():
                trainer.fit(255 * DIGITS, LABELS, epochs=1, verbose=0)
        assert trainer.epochs_done == (action == "ignore")

    def test_suggest_batch_size_is_silent(self):
        with warnings.catch_warnings(record=True, action="always") as caught:
            bp.suggest_batch_size(mlp(64, 32, 10), CE(), 255 * DIGITS, LABELS, batch_sizes=[8, 64], seconds=0.01)
        assert not caught

    def test_scaling_ends_the_advice_of_the_estimators(self):
        from backprop.estimators import MLPRegressor

        settings = {"max_iter": 2, "random_state": 0, "tol": 0.0}
        with warnings.catch_warnings(record=True, action="always") as caught:
            MLPRegressor(**settings).fit(HOUSES, PRICES)
            told = [str(warning.message) for warning in caught if warning.category is bp.TrainingAdvice]
            del caught[:]
            MLPRegressor(scale_inputs=True, scale_targets=True, **settings).fit(HOUSES, PRICES)
        assert ["inputs are not scaled" in text for text in told] == [True]
        assert bp.TrainingAdvice not in {warning.category for warning in caught}


LAYERS = {
    "Dropout": lambda: bp.Dropout(0.3, seed=1),
    "BatchNorm": lambda: bp.BatchNorm(6),
    "LayerNorm": lambda: bp.LayerNorm(6),
    "Residual": lambda: bp.Residual(bp.Sequential(bp.Linear(6, 6), bp.Dropout(0.2, seed=2), bp.Tanh())),
    "FanOut": lambda: bp.FanOut(bp.Linear(6, 6), bp.GELU(), join="sum"),
    "nested": lambda: bp.Sequential(bp.Linear(6, 6), bp.BatchNorm(6), bp.ReLU(), bp.Linear(6, 6), checkpoint=2),
    "Elementwise": lambda: bp.Elementwise(lambda v: v * v.sigmoid()),
    **{name: getattr(bp, name) for name in ("ReLU", "LeakyReLU", "ELU", "SiLU", "GELU", "Softplus", "Sigmoid", "Tanh")},
    **{name: getattr(bp, name) for name in ("Sin", "Cos", "Identity", "Exp")},
}
LOSSES = {
    **{loss.__name__: (loss(), 3) for loss in (LS, bp.AbsoluteError, bp.Huber, bp.Poisson, CE, BCE)},
    "GaussianNLL": (bp.GaussianNLL(), 6),
    "Pinball": (bp.Pinball([0.2, 0.8]), 6),
}


def network(layer, K=3, **settings):
    return bp.Sequential(
        bp.Linear(6, 6), LAYERS[layer](), bp.Linear(6, 6), bp.ReLU(), bp.Linear(6, K), seed=0, **settings
    )


class TestNothingChanges:
    @pytest.mark.parametrize("shards", [1, 3])
    @pytest.mark.parametrize("checkpoint", [None, 2])
    @pytest.mark.parametrize("layer", LAYERS)
    def test_same_bits_with_and_without(self, layer, checkpoint, shards):
        X, y, w = rng.standard_normal((50, 6)), rng.integers(0, 3, 50), rng.integers(0, 3, 50)
        trained = []
        shards = (
            1 if network(layer).couples_examples else shards
        )  # on threads, running statistics are of no fixed order
        for quiet in (False, True):
            net = network(layer, checkpoint=checkpoint)
            trainer = bp.Trainer(net, CE(), bp.Adam(0.01), batch_size=20, shards=shards)
            trainer._advisor.quiet = quiet
            history = trainer.fit(X, y, epochs=4, sample_weight=w, verbose=0)
            trained.append([net.phi, history["loss"], *net.buffers.values()])
        for one, other in zip(*trained, strict=True):
            assert_array_equal(one, other)

    @pytest.mark.parametrize("layer", LAYERS)
    def test_a_look_leaves_the_network_as_it_was(self, layer):
        X, y = rng.standard_normal((40, 6)), rng.integers(0, 3, 40)
        nets = [network(layer) for _ in range(2)]
        for net in nets:
            net.forward(X[:5].T)  # a pass whose backward is still to come
        examples = Examples("test", nets[0], CE(), X, y)
        advice.Advisor("test", nets[0], CE(), bp.SGD(0.1)).before(examples)
        dL_df = np.ones((3, 5), np.float32)
        first, second = (net.backward(dL_df) for net in nets)
        assert_array_equal(first[1].dL_dphi, second[1].dL_dphi)
        assert_array_equal(*(net.forward(X.T) for net in nets))  # with the same randomness
        for one, other in zip(*(net.buffers.values() for net in nets), strict=True):
            assert_array_equal(one, other)


class TestLook:
    @pytest.mark.parametrize("loss", LOSSES)
    @pytest.mark.parametrize("layer", LAYERS)
    def test_knows_every_layer_and_loss(self, layer, loss, monkeypatch):
        monkeypatch.setattr(look, "suppress", lambda kind: nullcontext())
        loss, K = LOSSES[loss]
        net, X = network(layer, K, checkpoint=2), 0.1 * rng.standard_normal((40, 6))
        y = rng.integers(0, 2, 40) if loss.takes_labels else rng.random((40, 3))
        examples = Examples("test", net, loss, X, y)
        X, y, w = look.sample(examples, net)
        assert look.may_look(net, loss)
        seen = look.look(net, loss, X.T, y.T, w, backward=True)

        own = boundary.beside(net)
        own.checkpoint = None
        f = own.forward(X.T)
        expected = loss.forward(f, y.T)
        gradient = own.backward(loss.backward())[1].dL_dphi
        assert_array_equal(seen.f, f)
        assert np.allclose([seen.loss, seen.gradient], [expected, np.linalg.norm(gradient)], rtol=1e-4)
        assert np.isclose(seen.of_zeros, loss.forward(0 * f, y.T), rtol=1e-5)
        assert [passed.name for passed in seen.layers[-3:]] == ["2", "3", "4"]
        assert np.isclose(seen.layers[-1].size, np.sqrt(np.mean(f**2)), rtol=1e-4)
        assert seen.layers[-2].dead == np.count_nonzero((own[3].f <= 0).all(axis=1))

    def test_weight_0_is_absent(self):
        X, y, w = np.full((50, 6), 1e6), rng.integers(0, 3, 50), np.zeros(50)
        X[25:], w[25:] = rng.standard_normal((25, 6)), 1
        bp.Trainer(network("ReLU"), CE(), bp.SGD(0.01)).fit(X, y, sample_weight=w, epochs=2, verbose=0)

    def test_takes_few_of_many(self):
        net, X = mlp(64, 2000, 10), np.zeros((5000, 64), np.float32)
        assert look.sample(Examples("test", net, CE(), X, np.zeros(5000, int)), net)[0].shape == (50, 64)
        assert look.sample(Examples("test", mlp(64, 10), CE(), X, np.zeros(5000, int)), mlp(64, 10))[0].shape == (
            256,
            64,
        )

    def test_what_can_only_be_sliced(self):
        class Slices:
            shape, dtype = DIGITS.shape, DIGITS.dtype

            def __getitem__(self, rows):
                assert isinstance(rows, slice)
                return 255 * DIGITS[rows]

        with pytest.warns(bp.TrainingAdvice, match="inputs are not scaled"):
            bp.Trainer(mlp(64, 32, 10), CE(), bp.SGD(0.001)).fit(Slices(), LABELS, epochs=1, verbose=0)


class Counted(bp.Tanh):
    """Counts its passes, in all copies together."""

    def __init__(self, passes):
        super().__init__()
        self.passes = passes

    def forward(self, h):
        self.passes.append(h.shape[1])
        return super().forward(h)


class TestOnesOwn:
    def test_layers_are_not_run(self):
        passes = []
        net = bp.Sequential(bp.Linear(64, 8), Counted(passes), bp.Linear(8, 10), seed=0)
        assert told(net, CE(), bp.SGD(1e-7), DIGITS, LABELS, epochs=2, batch_size=300) == []
        assert passes == [300] * 4

    def test_losses_are_not_run(self):
        class Cubic(bp.Loss):
            def ell(self, f, y):
                passes.append(f.shape[1])
                self.d = f - y
                return (np.abs(self.d) ** 3).sum(axis=0)

            def dell_df(self):
                return 3 * self.d * np.abs(self.d)

        passes = []
        assert told(mlp(1, 8, 1), Cubic(), bp.SGD(1e-4), LINE, SINE, epochs=2, batch_size="full") == []
        assert passes == [200] * 2

    def test_inputs_are_looked_at_all_the_same(self):
        net = bp.Sequential(bp.Linear(64, 8), Counted([]), bp.Linear(8, 10), seed=0)
        (text,) = told(net, CE(), bp.SGD(0.01), 255 * DIGITS, LABELS)
        assert "inputs are not scaled" in text

    def test_a_last_layer_that_takes_batches_of_its_own_size_alone(self):
        class Picky(Normalize):
            def forward(self, h):
                if h.shape[1] != 20:
                    raise ValueError("20 examples, please")
                return super().forward(h)

        assert told(mlp(64, 32, 10, last=(bp.Exp(), Picky())), CE(), bp.SGD(0.1), DIGITS, LABELS, batch_size=20) == []


@pytest.mark.parametrize("size", [1e-30, 1e-4, 1e4, 1e30, 1e150])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_at_the_end_of_their_range_raise_nothing_but_advice(size, dtype):
    size = min(size, 1e30) if dtype == "float32" else size
    X, y = size * rng.standard_normal((40, 6)), size * rng.standard_normal((40, 3))
    for initializer in (None, bp.Normal(1e-30), bp.Normal(1e30)):
        net = mlp(6, 6, 6, 6, 3, initializer=initializer, dtype=dtype)
        texts = told(net, LS(), bp.SGD(1e-3), X, y)
        assert 1 <= len(texts) <= 2
