"""What cannot work is refused at once, by name, with what was expected and what came, and changes nothing."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from tables import LAYERS, OPTIMIZERS, Scale, forward, network, spread

import backprop as bp


def assert_refused(call, error, *parts):
    """The call raises exactly this error, in four parts, and names each of `parts`."""
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    assert type(caught.value) is error
    assert re.fullmatch(r"(?s).+: expected .+, got .+\.", text), text
    for part in parts:
        assert part in text, text


def net(**settings):
    """A small network for three features and two outputs."""
    return bp.Sequential(bp.Linear(3, 4), bp.Tanh(), bp.Linear(4, 2), seed=0, **settings)


# How to make something of one number, its name in the error, and numbers just outside its range.
NUMBERS = {
    "SGD learning_rate": (bp.SGD, "learning_rate", [0, -1, -1e-9]),
    "SGD momentum": (lambda x: bp.SGD(0.1, momentum=x), "momentum", [-0.1, 1, 1.5]),
    "SGD weight_decay": (lambda x: bp.SGD(0.1, weight_decay=x), "weight_decay", [-0.1]),
    "SGD clip_value": (lambda x: bp.SGD(0.1, clip_value=x), "clip_value", [0, -1]),
    "SGD clip_norm": (lambda x: bp.SGD(0.1, clip_norm=x), "clip_norm", [0, -1]),
    "RMSProp learning_rate": (bp.RMSProp, "learning_rate", [0, -1]),
    "RMSProp decay": (lambda x: bp.RMSProp(decay=x), "decay", [-0.1, 1]),
    "RMSProp eps": (lambda x: bp.RMSProp(eps=x), "eps", [0, -1e-8]),
    "Adagrad learning_rate": (bp.Adagrad, "learning_rate", [0, -1]),
    "Adagrad eps": (lambda x: bp.Adagrad(eps=x), "eps", [0]),
    "Adam learning_rate": (bp.Adam, "learning_rate", [0, -1]),
    "Adam betas": (lambda x: bp.Adam(betas=(x, 0.9)), "betas[0]", [-0.1, 1]),
    "Adam second of betas": (lambda x: bp.Adam(betas=(0.9, x)), "betas[1]", [-0.1, 1]),
    "Adam eps": (lambda x: bp.Adam(eps=x), "eps", [0]),
    "AdamW weight_decay": (lambda x: bp.AdamW(weight_decay=x), "weight_decay", [-0.1]),
    "ConstantRate": (bp.ConstantRate, "learning_rate", [0, -1]),
    "StepDecay": (lambda x: bp.StepDecay(x, every=2), "learning_rate", [0, -1]),
    "StepDecay factor": (lambda x: bp.StepDecay(1.0, every=2, factor=x), "factor", [0, -1, 1.1]),
    "ExponentialDecay factor": (lambda x: bp.ExponentialDecay(1.0, factor=x), "factor", [0, -1, 1.1]),
    "CosineDecay": (lambda x: bp.CosineDecay(x, steps=2), "learning_rate", [0, -1]),
    "CosineDecay final": (lambda x: bp.CosineDecay(1.0, steps=2, final=x), "final", [-0.1]),
    "WarmUp": (lambda x: bp.WarmUp(x, steps=2), "learning_rate", [0, -1]),
    "OneCycle": (lambda x: bp.OneCycle(x, steps=9), "learning_rate", [0, -1]),
    "OneCycle rise": (lambda x: bp.OneCycle(1.0, steps=9, rise=x), "rise", [0, 1]),
    "ReduceOnPlateau": (bp.ReduceOnPlateau, "learning_rate", [0, -1]),
    "ReduceOnPlateau factor": (lambda x: bp.ReduceOnPlateau(1.0, factor=x), "factor", [0, 1]),
    "ReduceOnPlateau threshold": (lambda x: bp.ReduceOnPlateau(1.0, threshold=x), "threshold", [-0.1, 1]),
    "Dropout rate": (bp.Dropout, "rate", [-0.1, 1, 1.5]),
    "LeakyReLU negative_slope": (bp.LeakyReLU, "negative_slope", [-0.1]),
    "ELU alpha": (bp.ELU, "alpha", [0, -1]),
    "BatchNorm momentum": (lambda x: bp.BatchNorm(2, momentum=x), "momentum", [0, 1.1]),
    "BatchNorm eps": (lambda x: bp.BatchNorm(2, eps=x), "eps", [0, -1]),
    "LayerNorm eps": (lambda x: bp.LayerNorm(2, eps=x), "eps", [0]),
    "Huber delta": (bp.Huber, "delta", [0, -1]),
    "Pinball quantile": (lambda x: bp.Pinball([0.5, x]), "quantile", [0, 1, -1]),
    "Normal variance": (bp.Normal, "variance", [-0.1]),
    "Orthogonal gain": (bp.Orthogonal, "gain", []),
    "Constant value": (bp.Constant, "value", []),
}
SIZES = {
    "Linear in_features": (lambda n: bp.Linear(n, 2), "in_features"),
    "Linear out_features": (lambda n: bp.Linear(2, n), "out_features"),
    "BatchNorm features": (bp.BatchNorm, "features"),
    "LayerNorm features": (bp.LayerNorm, "features"),
    "StepDecay every": (lambda n: bp.StepDecay(1.0, every=n), "every"),
    "CosineDecay steps": (lambda n: bp.CosineDecay(1.0, steps=n), "steps"),
    "WarmUp steps": (lambda n: bp.WarmUp(1.0, steps=n), "steps"),
    "OneCycle steps": (lambda n: bp.OneCycle(1.0, steps=n), "steps"),
}
NO_NUMBERS = [True, False, "0.1", b"1", [0.1], {}, 1j, np.array([0.1]), np.ones(2), object()]


class TestSettings:
    @pytest.mark.parametrize("name", NUMBERS)
    def test_numbers_out_of_range(self, name):
        make, argument, outside = NUMBERS[name]
        for value in [*outside, float("nan"), float("inf"), -float("inf"), np.float32("nan")]:
            assert_refused(lambda value=value: make(value), ValueError, name.split()[0], argument, str(value))

    @pytest.mark.parametrize("name", NUMBERS)
    def test_numbers_that_are_none(self, name):
        make, argument, _ = NUMBERS[name]
        for value in NO_NUMBERS:
            assert_refused(lambda value=value: make(value), TypeError, name.split()[0], argument)

    @pytest.mark.parametrize("name", SIZES)
    def test_sizes(self, name):
        make, argument = SIZES[name]
        for value in (0, -1, np.int64(0)):
            assert_refused(lambda value=value: make(value), ValueError, name.split()[0], argument, str(value))
        for value in (*NO_NUMBERS, 2.0, 2.5, float("nan"), None):
            assert_refused(lambda value=value: make(value), TypeError, name.split()[0], argument)

    def test_a_number_beyond_floating_point(self):
        assert_refused(lambda: bp.SGD(10**400), ValueError, "SGD", "learning_rate")

    @pytest.mark.parametrize(
        ("call", "error", "parts"),
        [
            (lambda: bp.Linear(2, 2, bias=1), TypeError, ["Linear", "bias", "True or False"]),
            (
                lambda: bp.Linear(2, 2, initializer="he"),
                TypeError,
                ["Linear", "initializer", "'he'", "HeNormal()"],
            ),
            (lambda: bp.Linear(2, 2, initializer=bp.HeNormal), TypeError, ["Linear", "initializer"]),
            (lambda: bp.Linear(2, 2, seed=-1), ValueError, ["Linear", "seed", "-1"]),
            (lambda: bp.Linear(2, 2, seed="one"), TypeError, ["Linear", "seed", "'one'"]),
            (lambda: bp.Dropout(0.5, seed=-1), ValueError, ["Dropout", "seed", "-1"]),
            (lambda: bp.SGD(0.1, nesterov=1), TypeError, ["SGD", "nesterov"]),
            (lambda: bp.SGD(0.1, nesterov=True), ValueError, ["SGD", "momentum > 0"]),
            (lambda: bp.SGD(bp.CosineDecay), TypeError, ["SGD", "learning_rate"]),
            (lambda: bp.Adam(betas=0.9), TypeError, ["Adam", "betas", "0.9"]),
            (lambda: bp.Adam(betas=(0.9,)), TypeError, ["Adam", "betas"]),
            (lambda: bp.Pinball(0.5), TypeError, ["Pinball", "quantiles", "0.5"]),
            (lambda: bp.Pinball([]), TypeError, ["Pinball", "quantiles"]),
            (lambda: bp.Pinball("0.5"), TypeError, ["Pinball", "quantiles"]),
            (lambda: bp.CrossEntropy("average"), ValueError, ["CrossEntropy", "'mean', 'sum'", "'average'"]),
            (lambda: bp.Huber(reduction=True), TypeError, ["Huber", "'mean', 'sum'", "True"]),
            (
                lambda: bp.FanOut(bp.ReLU(), join="max"),
                ValueError,
                ["FanOut", "'concatenate', 'sum'", "'max'"],
            ),
            (lambda: bp.ReduceOnPlateau(1.0, patience=-1), ValueError, ["ReduceOnPlateau", "patience", "-1"]),
            (lambda: bp.OneCycle(1.0, steps=1), ValueError, ["OneCycle", "steps ≥ 2", "1"]),
        ],
    )
    def test_of_other_kinds(self, call, error, parts):
        assert_refused(call, error, *parts)

    def test_unknown_names_list_the_known_ones(self):
        with pytest.raises(AttributeError, match=r"no attribute 'Lineer'.*CrossEntropy.*Linear.*Trainer"):
            bp.Lineer  # noqa: B018


class TestConstruction:
    @pytest.mark.parametrize(
        ("call", "error", "parts"),
        [
            (lambda: bp.Sequential(), ValueError, ["Sequential", "at least one layer"]),
            (lambda: bp.Sequential(bp.ReLU), TypeError, ["Sequential", "layers", "ReLU(…)"]),
            (lambda: bp.Sequential([bp.ReLU()]), TypeError, ["Sequential", "layers"]),
            (lambda: bp.Sequential(bp.Linear(2, 2), None), TypeError, ["Sequential", "layers", "None"]),
            (lambda: bp.Sequential(bp.Linear(2, 2), np.tanh), TypeError, ["Sequential", "layers", "tanh"]),
            (lambda: bp.Sequential(bp.ReLU(), seed="one"), TypeError, ["Sequential", "seed", "'one'"]),
            (lambda: bp.Sequential(bp.ReLU(), seed=True), TypeError, ["Sequential", "seed", "True"]),
            (lambda: bp.Sequential(bp.ReLU(), seed=-1), ValueError, ["Sequential", "seed", "-1"]),
            (lambda: bp.FanOut(), ValueError, ["FanOut", "at least one branch"]),
            (lambda: bp.FanOut(bp.Sin), TypeError, ["FanOut", "layers", "Sin(…)"]),
            (lambda: bp.Residual(np.tanh), TypeError, ["Residual", "layers"]),
            (lambda: bp.Residual(bp.Linear(3, 2)), ValueError, ["Residual", "3 features", "2"]),
            (
                lambda: bp.FanOut(bp.Linear(3, 2), bp.Linear(3, 4), join="sum"),
                ValueError,
                ["FanOut", "[2, 4]"],
            ),
            (lambda: bp.FanOut(bp.Linear(3, 2), bp.Linear(4, 2)), ValueError, ["Linear(4 → 2)", "4", "3"]),
        ],
    )
    def test_of_what_is_no_network(self, call, error, parts):
        assert_refused(call, error, *parts)

    @pytest.mark.parametrize("dtype", ["float16", "int64", "complex128", "no type", 7, None, object], ids=str)
    def test_dtype(self, dtype):
        assert_refused(
            lambda: bp.Sequential(bp.ReLU(), dtype=dtype), ValueError, "Sequential", "'float32' or 'float64'"
        )

    @pytest.mark.parametrize(
        "layers",
        [
            (bp.Linear(3, 4), bp.Linear(5, 2)),
            (bp.Linear(3, 4), bp.ReLU(), bp.Dropout(), bp.Linear(5, 2)),
            (bp.Linear(3, 4), bp.BatchNorm(5)),
            (bp.Linear(3, 4), bp.Residual(bp.Linear(5, 5))),
            (bp.Linear(3, 4), bp.Sequential(bp.Tanh(), bp.Linear(5, 2))),
            (bp.Linear(3, 4), bp.FanOut(bp.Identity(), bp.Linear(5, 2))),
            (bp.FanOut(bp.Linear(3, 2), bp.Linear(3, 2)), bp.Linear(5, 2)),
        ],
        ids=lambda layers: " ".join(type(layer).__name__ for layer in layers),
    )
    def test_layers_that_do_not_chain(self, layers):
        assert_refused(lambda: bp.Sequential(*layers), ValueError, "5 input features", "got 4 from the layer before it")

    def test_the_same_layer_twice(self):
        layer = bp.Linear(3, 3)
        for arrangement in (
            lambda: bp.Sequential(layer, bp.ReLU(), layer),
            lambda: bp.Sequential(bp.Sequential(bp.Residual(layer)), layer),
            lambda: bp.Sequential(bp.FanOut(layer, layer)),
        ):
            with pytest.raises(ValueError, match=r"expected .*, got .*Use layer\.copy\(\)\."):
                arrangement()

    def test_a_layer_of_another_network(self):
        first = net()
        phi = first.phi.copy()
        assert_refused(lambda: bp.Sequential(first[0]), ValueError, "no other network", "Linear(3 → 4)", "layer.copy()")
        assert_refused(lambda: bp.Sequential(bp.FanOut(bp.Sin(), first[0])), ValueError, "no other network")
        assert_array_equal(first.phi, phi)
        assert np.shares_memory(first[0].parameters["omega"], first.phi)

    @pytest.mark.parametrize("settings", [{"seed": -1}, {"seed": "one"}, {"dtype": "int8"}], ids=str)
    def test_refused_leaves_its_layers_free(self, settings):
        layer = bp.Linear(3, 2)
        with pytest.raises((TypeError, ValueError)):
            bp.Sequential(layer, **settings)
        assert bp.Sequential(layer).size == 8


MASKED = np.ma.masked_array(np.ones((3, 5)), mask=False)
# what a layer of three features is given, the error, what the message says
COLUMNS = {
    "too wide": (np.ones((4, 5)), ValueError, ["3 rows", "(4, 5)"]),
    "rows": (np.ones((5, 3)), ValueError, ["3 rows", "(5, 3)", "h.T", "predict(X)"]),
    "long vector": (np.ones(4), ValueError, ["3 rows", "(4,)"]),
    "scalar": (1.0, ValueError, ["()"]),
    "cube": (np.ones((3, 5, 2)), ValueError, ["(3, 5, 2)"]),
    "strings": (np.array([["a"], ["b"], ["c"]]), TypeError, ["real numbers", "<U1"]),
    "objects": (np.array([[1], [None], [2]], object), TypeError, ["real numbers", "object"]),
    "dates": (np.ones((3, 1), "M8[D]"), TypeError, ["real numbers", "datetime64"]),
    "masked": (MASKED, TypeError, ["masked"]),
}
OF_THREE = {
    "Linear": lambda: bp.Linear(3, 2),
    "BatchNorm": lambda: bp.BatchNorm(3),
    "LayerNorm": lambda: bp.LayerNorm(3),
    "Sequential": net,
    "Sequential of a row of activations": lambda: bp.Sequential(bp.Tanh(), bp.Linear(3, 2)),
    "Residual": lambda: bp.Residual(bp.Linear(3, 3)),
    "FanOut": lambda: bp.FanOut(bp.Identity(), bp.Linear(3, 2)),
}


class TestLayers:
    @pytest.mark.parametrize("name", OF_THREE)
    @pytest.mark.parametrize("method", ["forward", "infer"])
    @pytest.mark.parametrize("bad", COLUMNS)
    def test_input(self, name, method, bad):
        layer = OF_THREE[name]()
        h, error, parts = COLUMNS[bad]
        f = layer.forward(spread((3, 5)))
        dL_dh, _ = layer.backward(np.ones_like(f))
        buffers = {key: buffer.copy() for key, buffer in layer.buffers.items()}
        assert_refused(lambda: getattr(layer, method)(h), error, f".{method}", *parts)
        for key, buffer in layer.buffers.items():
            assert_array_equal(buffer, buffers[key])
        assert_array_equal(layer.backward(np.ones_like(f))[0], dL_dh)

    @pytest.mark.parametrize("name", [name for name in LAYERS if name != "a layer of one's own"])
    def test_backward_before_forward(self, name):
        layer = LAYERS[name](4)
        assert_refused(lambda: layer.backward(np.ones((4, 2))), RuntimeError, ".backward", "forward to have run")

    @pytest.mark.parametrize("name", [name for name in LAYERS if name != "a layer of one's own"])
    @pytest.mark.parametrize(
        ("change", "error"),
        [
            (lambda f: np.ones((len(f) + 1, *f.shape[1:])), ValueError),
            (lambda f: f[:, :1], ValueError),
            (lambda f: f[:, 0], ValueError),
            (lambda f: f.T, ValueError),
            (lambda f: 1.0, ValueError),
            (lambda f: f.astype(str), TypeError),
            (lambda f: f.astype(object), TypeError),
        ],
        ids=["too long", "one column", "vector", "transposed", "scalar", "strings", "objects"],
    )
    def test_gradient(self, name, change, error):
        layer = network(name)
        f = forward(layer, spread((4, 7)))
        dL_dh, gradients = layer.backward(f)
        assert_refused(lambda: layer.backward(change(f)), error, ".backward", "dL_df")
        again, gradients_again = layer.backward(f)
        assert_array_equal(again, dL_dh)
        for key, gradient in gradients.items():
            assert_array_equal(gradients_again[key], gradient)

    @pytest.mark.parametrize(
        ("returned", "parts"),
        [
            ({}, ["['omega']", "[]"]),
            ({"weight": np.ones(3)}, ["['omega']", "['weight']"]),
            ({"omega": np.ones(3), "beta": np.ones(3)}, ["['omega']", "['omega', 'beta']"]),
            ({"omega": np.ones(3)}, ["'omega'", "(3, 1)", "(3,)"]),
            ({"omega": 1.0}, ["'omega'", "(3, 1)", "()"]),
        ],
        ids=["missing", "misnamed", "one too many", "wrong shape", "scalar"],
    )
    def test_of_ones_own_with_wrong_gradients(self, returned, parts):
        class Wrong(Scale):
            def backward(self, dL_df):
                return dL_df, returned

        network = bp.Sequential(bp.Linear(3, 3), Wrong(3), seed=0)
        phi = network.phi.copy()
        f = network.forward(np.ones((3, 2)))
        assert_refused(lambda: network.backward(f), ValueError, "Wrong().backward", *parts)
        assert_array_equal(network.phi, phi)


def spoiled(value, dtype=float):
    """Five rows of three numbers with one that is not."""
    X = np.ones((5, 3), dtype)
    X[3, 1] = value
    return X


ROWS = {
    "nan": (spoiled(np.nan), ValueError, ["nan", "row 3, column 1"]),
    "inf": (spoiled(-np.inf), ValueError, ["-inf", "row 3, column 1"]),
    "nan in float32, Fortran order": (
        np.asfortranarray(spoiled(np.nan, "f4")),
        ValueError,
        ["row 3, column 1"],
    ),
    "too wide": (np.ones((5, 4)), ValueError, ["3 columns", "(5, 4)"]),
    "transposed": (np.ones((3, 5)), ValueError, ["3 columns", "(3, 5)", "X.T"]),
    "one row as a vector": (np.ones(3), ValueError, ["(N, D)", "(3,)", "reshape(1, -1)"]),
    "cube": (np.ones((5, 3, 1)), ValueError, ["(N, D)", "(5, 3, 1)"]),
    "scalar": (1.0, ValueError, ["(N, D)", "()"]),
    "empty": (np.ones((0, 3)), ValueError, ["at least one example", "(0, 3)"]),
    "empty list": ([], ValueError, ["at least one example"]),
    "ragged": ([[1, 2, 3], [1, 2]], ValueError, ["unequal length"]),
    "strings": ([["1", "2", "3"]], TypeError, ["numbers", "<U1"]),
    "text": ("file.csv", TypeError, ["numbers", "<U8"]),
    "objects": (np.ones((5, 3), object), TypeError, ["numbers", "object"]),
    "none": (None, TypeError, ["numbers", "None"]),
    "dates": (np.ones((5, 3), "M8[D]"), TypeError, ["numbers", "datetime64"]),
    "complex": (np.ones((5, 3), complex), TypeError, ["real numbers", "complex128"]),
    "masked": (MASKED.T, TypeError, ["masked array", "filled"]),
    "beyond float32": (spoiled(1e300), ValueError, ["row 3, column 1"]),
}


class TestPredict:
    @pytest.mark.parametrize("bad", ROWS)
    def test_input(self, bad):
        X, error, parts = ROWS[bad]
        network = net()
        phi = network.phi.copy()
        f = network.forward(np.ones((3, 2)))
        _, gradients = network.backward(f)
        assert_refused(lambda: network.predict(X), error, "Sequential(3 → 2).predict", *parts)
        assert_array_equal(network.phi, phi)
        assert_array_equal(network.backward(f)[1].dL_dphi, gradients.dL_dphi)

    def test_input_of_a_network_that_learns_its_width_from_a_later_layer(self):
        network = bp.Sequential(bp.Residual(bp.Tanh()), bp.Linear(3, 2))
        assert_refused(lambda: network.predict(np.ones((5, 4))), ValueError, ".predict", "3 columns", "(5, 4)")


def targets(*rows):
    """Rows of the table of bad targets: loss, shape of f, y, error, what the message says."""
    return [pytest.param(*row[1:], id=row[0]) for row in rows]


class TestLosses:
    @pytest.mark.parametrize(
        ("loss", "shape", "y", "error", "parts"),
        targets(
            ("vector for two rows", bp.LeastSquares(), (2, 4), np.zeros(4), ValueError, ["(2, 4)", "(4,)"]),
            ("column", bp.LeastSquares(), (1, 4), np.zeros((4, 1)), ValueError, ["(1, 4)", "(4, 1)", "y.T"]),
            ("transposed", bp.Huber(), (2, 4), np.zeros((4, 2)), ValueError, ["(2, 4)", "(4, 2)", "y.T"]),
            ("short", bp.AbsoluteError(), (1, 4), np.zeros(3), ValueError, ["(4,)", "(3,)"]),
            ("scalar", bp.LeastSquares(), (1, 4), 0.0, ValueError, ["(4,)", "()"]),
            ("empty", bp.LeastSquares(), (1, 4), [], ValueError, ["at least one example"]),
            ("odd rows", bp.GaussianNLL(), (3, 4), np.zeros((1, 4)), ValueError, ["(3, 4)", "2 outputs"]),
            ("too many targets", bp.GaussianNLL(), (2, 4), np.zeros((2, 4)), ValueError, ["2 outputs"]),
            ("two quantiles", bp.Pinball([0.1, 0.9]), (3, 4), np.zeros(4), ValueError, ["2 outputs"]),
            ("nan", bp.LeastSquares(), (1, 4), [0, 0, np.nan, 0], ValueError, ["nan", "row 2"]),
            (
                "inf",
                bp.LeastSquares(),
                (2, 4),
                spoiled(np.inf)[:4, :2].T,
                ValueError,
                ["inf", "row 3, column 1"],
            ),
            ("strings", bp.LeastSquares(), (1, 4), list("abcd"), TypeError, ["numbers", "<U1"]),
            ("objects", bp.Poisson(), (1, 4), np.ones(4, object), TypeError, ["numbers", "object"]),
            ("complex", bp.LeastSquares(), (1, 4), np.ones(4, complex), TypeError, ["complex"]),
            ("masked", bp.LeastSquares(), (1, 4), MASKED[0, :4], TypeError, ["masked"]),
            ("none", bp.LeastSquares(), (1, 4), None, TypeError, ["numbers"]),
            ("label too high", bp.CrossEntropy(), (2, 4), [0, 1, 2, 0], ValueError, ["0 … 1", "2 at row 2"]),
            ("label too low", bp.CrossEntropy(), (2, 4), [0, -1, 1, 0], ValueError, ["0 … 1", "-1 at row 1"]),
            ("labels from 1", bp.CrossEntropy(), (2, 4), [1, 2, 1, 2], ValueError, ["from 0"]),
            ("half a label", bp.CrossEntropy(), (2, 4), [0, 0.5, 1, 0], ValueError, ["0.5 at row 1"]),
            ("nan label", bp.CrossEntropy(), (2, 4), [0, np.nan, 1, 0], ValueError, ["nan", "row 1"]),
            ("true of one class", bp.CrossEntropy(), (1, 2), [False, True], ValueError, ["0 … 0", "row 1"]),
            (
                "label column",
                bp.CrossEntropy(),
                (2, 4),
                np.zeros((4, 1)),
                ValueError,
                ["(4,)", "(4, 1)", "ravel"],
            ),
            (
                "one-hot rows",
                bp.CrossEntropy(),
                (2, 4),
                np.eye(2)[[0, 1, 0, 1]],
                ValueError,
                ["(2, 4)", "y.T"],
            ),
            ("no sum of 1", bp.CrossEntropy(), (2, 4), np.full((2, 4), 0.4), ValueError, ["sum to 1", "0.8"]),
            ("below 0", bp.CrossEntropy(), (2, 1), [[-1.0], [2.0]], ValueError, ["0 ≤ y ≤ 1"]),
            ("names", bp.CrossEntropy(), (2, 2), ["cat", "dog"], TypeError, ["numbers", "Encode text"]),
            ("binary of 2", bp.BinaryCrossEntropy(), (1, 4), [0, 1, 2, 0], ValueError, ["0 ≤ y ≤ 1", "2"]),
            ("binary of −1", bp.BinaryCrossEntropy(), (1, 4), [1, -1, 1, 1], ValueError, ["0 ≤ y ≤ 1", "-1"]),
            (
                "binary labels",
                bp.BinaryCrossEntropy(),
                (2, 4),
                np.zeros(4, int),
                ValueError,
                ["(2, 4)", "(4,)"],
            ),
            (
                "counts below 0",
                bp.Poisson(),
                (1, 4),
                [0, 1, -2, 0],
                ValueError,
                ["0 ≤ y", "-2 for example 2"],
            ),
        ),
    )
    def test_targets(self, loss, shape, y, error, parts):
        for method in (loss.forward, loss.per_example):
            assert_refused(lambda method=method: method(np.zeros(shape), y), error, type(loss).__name__, *parts)

    @pytest.mark.parametrize(
        ("weight", "error", "parts"),
        [
            (np.ones(3), ValueError, ["(4,)", "(3,)"]),
            (np.ones((1, 4)), ValueError, ["(4,)", "(1, 4)"]),
            (1.0, ValueError, ["(4,)", "()"]),
            ([1, -1, 1, 1], ValueError, ["≥ 0", "-1 at row 1"]),
            ([1, np.nan, 1, 1], ValueError, ["nan", "row 1"]),
            ([1, np.inf, 1, 1], ValueError, ["inf", "row 1"]),
            (np.zeros(4), ValueError, ["> 0", "only zeros"]),
            (list("abcd"), TypeError, ["numbers"]),
            (np.ones(4, complex), TypeError, ["complex"]),
            ([], ValueError, ["sample_weight"]),
        ],
        ids=repr,
    )
    def test_sample_weight(self, weight, error, parts):
        loss = bp.LeastSquares()
        loss.forward(np.ones((1, 4)), np.zeros(4))
        dL_df = loss.backward()
        call = lambda: loss.forward(np.ones((1, 4)), np.zeros(4), weight)  # noqa: E731
        assert_refused(call, error, "LeastSquares", "sample_weight", *parts)
        assert_array_equal(loss.backward(), dL_df)

    @pytest.mark.parametrize(
        ("f", "error"),
        [
            (np.zeros((1, 2, 2)), ValueError),
            (np.zeros((1, 0)), ValueError),
            (np.zeros(0), ValueError),
            (np.array([["a", "b", "c", "d"]]), TypeError),
            (np.zeros((1, 4), object), TypeError),
            (np.ma.masked_array(np.zeros((1, 4)), mask=True), TypeError),
        ],
        ids=["cube", "no example", "empty", "strings", "objects", "masked"],
    )
    @pytest.mark.parametrize("loss", [bp.LeastSquares(), bp.CrossEntropy(), bp.Pinball([0.5])], ids=repr)
    def test_outputs(self, loss, f, error):
        for method in (loss.forward, loss.per_example):
            assert_refused(lambda method=method: method(f, np.zeros(4)), error, type(loss).__name__)

    @pytest.mark.parametrize("loss", [bp.LeastSquares(), bp.CrossEntropy(), bp.Pinball([0.1])], ids=repr)
    def test_backward_before_forward(self, loss):
        assert_refused(loss.backward, RuntimeError, repr(loss), ".backward", "forward to have run")

    @pytest.mark.parametrize("loss", [bp.LeastSquares(), bp.BinaryCrossEntropy(), bp.Huber()], ids=repr)
    def test_refused_leave_a_pending_backward_alone(self, loss):
        loss.forward(np.full((1, 4), 0.3), np.ones(4))
        dL_df = loss.backward()
        with pytest.raises(ValueError, match="expected"):
            loss.forward(np.zeros((1, 4)), np.zeros(3))
        assert_array_equal(loss.backward(), dL_df)


class TestOptimizers:
    @pytest.mark.parametrize("name", OPTIMIZERS)
    @pytest.mark.parametrize("shape", [(4,), (1,), (3, 1), ()], ids=str)
    def test_gradient_of_another_shape(self, name, shape):
        kind, settings = OPTIMIZERS[name]
        optimizer, phi = kind(**settings), np.ones(3)
        assert_refused(lambda: optimizer.step(phi, np.ones(shape)), ValueError, kind.__name__, "(3,)", str(shape))
        assert_array_equal(phi, np.ones(3))
        assert optimizer.t == 0

    @pytest.mark.parametrize("rate", [float("nan"), -0.1, float("inf")])
    def test_schedule_of_ones_own_that_leaves_the_positive_numbers(self, rate):
        class Wild(bp.Schedule):
            def __call__(self, t):
                return rate

        optimizer, phi = bp.SGD(Wild()), np.ones(3)
        assert_refused(lambda: optimizer.step(phi, np.ones(3)), ValueError, "Wild", "learning_rate", repr(rate))
        assert_array_equal(phi, np.ones(3))
