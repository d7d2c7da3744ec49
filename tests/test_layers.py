"""Every layer keeps one contract: exact gradients, no surprises in memory, shape or type."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import Scale
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from tables import LAYERS, SEED, assert_close, complex_step, forward, network, spread

import backprop as bp
from backprop.around.nesting import draws, reseed

COUPLED = [name for name in LAYERS if network(name).couples_examples]
RANDOM = [name for name in LAYERS if draws(network(name))]
PLAIN = [name for name in LAYERS if name not in COUPLED + RANDOM]

every_layer = pytest.mark.parametrize("name", LAYERS)
every_plain_layer = pytest.mark.parametrize("name", PLAIN)


def flat(gradients):
    """All gradients as one vector, in their order."""
    return np.concatenate([[], *(gradient.ravel() for gradient in gradients.values())])


def passes(net, h, seed=1):
    """One forward and one backward pass: f, dL_df, dL_dh and dL_dphi."""
    f = forward(net, h)
    dL_df = np.random.default_rng(seed).normal(size=f.shape).astype(f.dtype)
    dL_dh, gradients = net.backward(dL_df)
    return f, dL_df, dL_dh, flat(gradients)


class TestGradients:
    @every_layer
    @pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 2), (4, 7), (4, 64)], ids=str)
    def test_are_those_of_the_complex_step(self, name, shape):
        net, h = network(name), spread(shape)
        _, dL_df, dL_dh, dL_dphi = passes(net, h)
        complex_net = net.copy()
        complex_net.bind(net.phi.astype(complex))

        def L_of_phi(phi):
            complex_net.phi[...] = phi
            return (dL_df * forward(complex_net, h)).sum()

        assert_close(dL_dh, complex_step(lambda h: (dL_df * forward(net, h)).sum(), h))
        assert_close(dL_dphi, complex_step(L_of_phi, net.phi))

    @every_layer
    def test_are_named_and_shaped_like_the_parameters(self, name):
        net = network(name)
        _, gradients = net.backward(net.forward(spread((4, 3))))
        assert [(k, g.shape) for k, g in gradients.items()] == [(k, p.shape) for k, p in net.parameters.items()]

    @every_layer
    def test_are_views_of_one_vector_laid_out_like_phi(self, name):
        net = network(name)
        _, gradients = net.backward(net.forward(spread((4, 3))))
        assert gradients.dL_dphi.shape == net.phi.shape
        assert all(np.shares_memory(g, gradients.dL_dphi) for g in gradients.values())
        assert_array_equal(gradients.dL_dphi, flat(gradients))

    @every_layer
    def test_are_the_same_when_backward_runs_twice(self, name):
        net = network(name)
        _, dL_df, dL_dh, dL_dphi = passes(net, spread((4, 3)))
        again, gradients = net.backward(dL_df)
        assert_array_equal(again, dL_dh)
        assert_array_equal(flat(gradients), dL_dphi)

    @every_plain_layer
    def test_of_a_batch_are_the_sum_over_its_examples(self, name):
        net, h = network(name), spread((4, 7))
        _, dL_df, dL_dh, dL_dphi = passes(net, h)
        total = np.zeros(net.size)
        for n in range(7):
            net.forward(h[:, n])
            dL_dh_n, gradients = net.backward(dL_df[:, n])
            assert_close(dL_dh_n, dL_dh[:, n])
            total += flat(gradients)
        assert_close(total, dL_dphi)

    def test_couple_examples_exactly_where_a_batch_norm_is(self):
        assert COUPLED == ["BatchNorm", "BatchNorm inside"]


class TestArrays:
    @every_layer
    def test_returned_once_are_never_written_again(self, name):
        net = network(name)
        f, _, dL_dh, _ = passes(net, spread((4, 5)))
        inferred = net.infer(spread((4, 5)))
        _, gradients = net.backward(np.ones_like(f))
        returned = [f, dL_dh, inferred, *gradients.values()]
        before = [array.copy() for array in returned]
        for n in (5, 3):
            passes(net, spread((4, n), seed=9))
            net.infer(spread((4, n), seed=9))
        for array, then in zip(returned, before, strict=True):
            assert_array_equal(array, then)

    @every_layer
    def test_handed_in_are_never_written(self, name):
        net, h = network(name), spread((4, 5))
        h.setflags(write=False)
        dL_df = np.ones_like(net.forward(h))
        dL_df.setflags(write=False)
        phi = net.phi.copy()
        net.infer(h)
        net.backward(dL_df)
        assert_array_equal(h, spread((4, 5)))
        assert_array_equal(dL_df, np.ones_like(dL_df))
        assert_array_equal(net.phi, phi)

    @every_layer
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("shape", [(4,), (4, 3)], ids=str)
    def test_keep_their_type(self, name, dtype, shape):
        net, h = network(name, dtype=dtype), spread(shape).astype(dtype)
        f = net.forward(h)
        dL_dh, gradients = net.backward(f)
        for array in (f, dL_dh, net.infer(h), *gradients.values()):
            assert array.dtype == dtype

    @every_layer
    def test_of_whole_numbers_count_as_float64(self, name):
        net, h = network(name), np.array([[1, 2], [-3, 1], [2, -1], [-1, 5]])
        assert_array_equal(forward(net, h), forward(net, h.astype(float)))

    @every_layer
    @given(
        D=st.integers(1, 6),
        N=st.one_of(st.none(), st.integers(1, 9)),
        layout=st.sampled_from(["C", "F", "strided", "reversed", "read-only", "packed"]),
    )
    def test_of_any_layout_give_the_same_answer(self, name, D, N, layout):
        net, h = network(name, D), spread((D,) if N is None else (D, N))
        expected = passes(net, h)
        f, dL_df, dL_dh, dL_dphi = passes(net, laid_out(h, layout))
        assert_close(f, expected[0], 1e-12)
        again, _ = net.backward(laid_out(dL_df, layout))
        assert dL_dh.shape == h.shape
        for actual in (dL_dh, again):
            assert_close(actual, expected[2], 1e-12)
        assert_close(dL_dphi, expected[3], 1e-12)

    @every_layer
    @given(D=st.integers(1, 6), N=st.integers(1, 9))
    def test_of_float32_agree_with_float64(self, name, D, N):
        h = spread((D, N), seed=4)
        # A variance near 0 makes the answer itself sensitive to the last digits of h.
        h = h * 3 if D > 1 else h
        wide = passes(network(name, D), h.astype(np.float32).astype(float))
        narrow = passes(network(name, D, dtype="float32"), h.astype(np.float32))
        assert_close(narrow[0], wide[0], 1e-3)


def laid_out(array, layout):
    """The same values in another memory layout."""
    if layout == "strided":
        room = np.full([2 * n for n in array.shape], np.nan)
        room[tuple(slice(None, None, 2) for _ in array.shape)] = array
        return room[tuple(slice(None, None, 2) for _ in array.shape)]
    if layout == "packed":  # a field of records whose size is no multiple of the size of a number
        records = np.zeros(array.shape[:-1], [("own", array.dtype, array.shape[-1:]), ("other", "i4")])
        records["own"] = array
        return records["own"]
    if layout == "reversed":
        return array[::-1].copy()[::-1]
    array = array.copy(order="F" if layout == "F" else "C")
    array.setflags(write=layout != "read-only")
    return array


class TestInfer:
    @every_layer
    def test_leaves_a_pending_backward_alone(self, name):
        net = network(name)
        _, dL_df, dL_dh, dL_dphi = passes(net, spread((4, 3)))
        forward(net, spread((4, 3)))
        net.infer(spread((4, 6), seed=8))
        again, gradients = net.backward(dL_df)
        assert_array_equal(again, dL_dh)
        assert_array_equal(flat(gradients), dL_dphi)

    @every_plain_layer
    @pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 7)], ids=str)
    def test_equals_forward_without_randomness_and_batch_statistics(self, name, shape):
        net, h = network(name), spread(shape)
        assert_array_equal(net.infer(h), net.forward(h))

    def test_of_a_composite_of_ones_own_leaves_a_pending_backward_alone(self):
        class Twice(bp.Composite):
            def __init__(self, layer):
                self.layers = {"inner": layer}

            def forward(self, h):
                return 2 * self.layers["inner"].forward(h)

            def backward(self, dL_df):
                return self.backward_child("inner", 2 * dL_df)

        net, h = bp.Sequential(Twice(bp.Linear(4, 2)), dtype="float64"), spread((4, 3))
        _, dL_df, dL_dh, dL_dphi = passes(net, h)
        net.infer(spread((4, 3), seed=8))
        again, gradients = net.backward(dL_df)
        assert_array_equal(again, dL_dh)
        assert_array_equal(gradients.dL_dphi, dL_dphi)


class TestCallersArrays:
    """What is done with the arrays of a call reaches no later one."""

    @every_layer
    @pytest.mark.parametrize("shape", [(4,), (4, 3)], ids=str)
    @pytest.mark.parametrize("alone", [False, True], ids=["in a network", "by itself"])
    def test_backward_is_the_gradient_of_the_last_forward(self, name, shape, alone):
        layer, h = network(name), spread(shape)
        layer = layer[0] if alone else layer
        _, dL_df, dL_dh, dL_dphi = passes(layer, h)
        f = forward(layer, h)
        f *= 2
        h[...] = 0
        for _ in range(2):
            given = dL_df.copy()
            again, gradients = layer.backward(given)
            assert_array_equal(again, dL_dh)
            assert_array_equal(flat(gradients), dL_dphi)
            for array in (given, again, *gradients.values()):
                array[...] = np.nan

    @every_layer
    @pytest.mark.parametrize("shape", [(4,), (4, 3)], ids=str)
    def test_what_infer_returns_is_the_callers(self, name, shape):
        net, h = network(name), spread(shape)
        expected = net.infer(h)
        f = net.infer(h)
        assert not np.may_share_memory(f, h)
        f[...] = np.nan
        assert_array_equal(h, spread(shape))
        assert_array_equal(net.infer(h), expected)


class Doubled:
    """Twice a layer, by the passes of the class above."""

    def forward(self, h):
        assert h.ndim == 2
        return 2 * super().forward(h)

    def backward(self, dL_df):
        assert dL_df.ndim == 2
        return super().backward(2 * dL_df)


class DoubledScale(Doubled, Scale):
    """Its `infer` is that of `Layer`, and runs `forward`."""


class DoubledLinear(Doubled, bp.Linear):
    def infer(self, h):
        return 2 * super().infer(h)


class Centered(bp.Layer):
    """h − m for a running mean m, which forward moves; there is no `infer`."""

    def __init__(self, features):
        self.buffers["m"] = np.zeros((features, 1))
        self.passes = 0

    def forward(self, h):
        self.m += 0.5 * (h.mean(axis=1, keepdims=True) - self.m)
        self.passes += 1
        return h - self.m

    def backward(self, dL_df):
        return dL_df * self.passes, {}


class TestOnesOwn:
    h = spread((4, 5))

    def test_public_names_of_a_layer(self):
        contract = ["forward", "backward", "infer", "initialize", "copy", "children", "size", "label"]
        facts = ["in_features", "out_features", "keeps_width", "couples_examples", "equations", "traced"]
        assert [name for name in dir(bp.Layer) if not name.startswith("_")] == sorted(contract + facts)
        assert [name for name in vars(Scale(4)) if not name.startswith("_")] == ["parameters", "buffers"]

    @pytest.mark.parametrize("shape", [(4,), (4, 5)], ids=str)
    @pytest.mark.parametrize("alone", [False, True], ids=["in a network", "by itself"])
    @pytest.mark.parametrize("make", [lambda: DoubledScale(4), lambda: DoubledLinear(4, 4)], ids=["Scale", "Linear"])
    def test_super_goes_to_the_equation(self, shape, alone, make):
        layer, h = make(), spread(shape)
        layer.omega = np.eye(4) if isinstance(layer, bp.Linear) else np.ones((4, 1))
        if not alone:
            bp.Sequential(layer, dtype="float64")
        factor = 2
        assert_array_equal(layer.forward(h), factor * h)
        assert_array_equal(layer.infer(h), factor * h)
        dL_dh, gradients = layer.backward(h)
        assert_array_equal(dL_dh, factor * h)
        columns = h.reshape(4, -1)
        expected = 2 * columns @ columns.T
        of_omega = gradients["omega"]
        assert_allclose(of_omega, expected if of_omega.shape == (4, 4) else np.diag(expected)[:, None], rtol=1e-14)

    def test_an_attribute_is_the_parameter_or_buffer_of_its_name(self):
        layer, norm = Scale(4), bp.BatchNorm(4)
        assert layer.omega is layer.parameters["omega"]
        assert norm.running_mean is norm.buffers["running_mean"]
        layer.omega = np.ones((4, 1))
        assert_array_equal(layer.parameters["omega"], 1)
        with pytest.raises(AttributeError, match="'Scale' object has no attribute 'gamma'"):
            layer.gamma  # noqa: B018

    def test_a_parameter_may_have_another_name_as_an_attribute(self):
        class Named(Scale):
            def __init__(self, features):
                self.weight = np.ones((features, 1))
                self.parameters = {"omega": self.weight}

            def forward(self, h):
                self.h = h
                return self.weight * h

        net = bp.Sequential(Named(4), dtype="float64")
        net.phi = [1, 2, 3, 4]
        assert_array_equal(net.forward(self.h), self.h * [[1], [2], [3], [4]])
        net[0].weight = np.full((4, 1), 5.0)
        assert_array_equal(net.phi, 5)
        assert_array_equal(net.copy().forward(self.h), 5 * self.h)

    @pytest.mark.parametrize(
        "inside", [lambda layer: layer, bp.Residual, lambda layer: bp.Sequential(bp.Tanh(), layer)]
    )
    def test_infer_that_is_left_out_moves_nothing(self, inside):
        layer = Centered(4)
        net = bp.Sequential(inside(layer), dtype="float64")
        f = net.forward(self.h)
        before, m = net.backward(f), layer.m.copy()
        assert m.any()
        for _ in range(2):
            net.predict(self.h.T + 1)
            net.infer(self.h)
            layer.infer(self.h)
        assert_array_equal(layer.m, m)
        assert layer.passes == 1
        assert_array_equal(net.backward(f)[0], before[0])
        net.forward(self.h)
        assert layer.passes == 2
        assert (layer.m != m).any()

    @pytest.mark.parametrize("name", ["empty", "land", "scratch", "take"])
    def test_what_layers_of_version_0_1_called_says_so(self, name):
        with pytest.raises(AttributeError, match=r"Since version 0\.2 a layer is plain"):
            getattr(Scale(4), name)

    @pytest.mark.parametrize("alone", [False, True], ids=["in a network", "by itself"])
    def test_a_pass_that_returns_something_else_is_refused(self, alone):
        class Rows(Scale):
            def forward(self, h):
                return super().forward(h).T

        layer = Rows(4) if alone else bp.Sequential(Rows(4), dtype="float64")
        with pytest.raises(
            ValueError, match=r"Rows\(\)\.forward: expected f with 5 columns for 5 examples, got shape \(5, 4\)"
        ):
            layer.forward(self.h[:, :5].copy())

    def test_a_parameter_shared_by_two_names_counts_once_each(self):
        """Two layers that begin with one array have two places in φ."""
        first, second = Scale(4), Scale(4)
        second.parameters["omega"] = first.parameters["omega"]
        net = bp.Sequential(first, second, dtype="float64")
        first.omega = np.zeros((4, 1))
        assert_array_equal(second.omega, np.full((4, 1), 1.5))
        assert net.size == 8


class Shift(bp.Layer):
    """A parameter that is called as the vector of a network is."""

    def __init__(self):
        self.parameters["phi"] = np.zeros((2, 1))

    def forward(self, h):
        return h + self.phi

    def backward(self, dL_df):
        return dL_df, {"phi": dL_df.sum(axis=1, keepdims=True)}


def test_a_layer_with_a_parameter_called_phi_is_no_network():
    net = bp.Sequential(Shift(), seed=0)
    twin = net[0].copy()
    twin.parameters["phi"] = np.zeros((3, 1))  # free again, so that even its shape may change
    assert twin.phi.shape == (3, 1)
    assert net.phi.shape == (2,)


class TestStability:
    # The exponential of 10⁴ is no number.
    @pytest.mark.parametrize("name", [name for name in LAYERS if name != "Exp"])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_at_ten_thousand(self, name, dtype):
        net = network(name, dtype=dtype)
        h = np.array([[1e4, -1e4, 1e4], [-1e4, -1e4, 0], [1e4, 1e4, 1], [0, -1e4, -1]], dtype)
        f = net.forward(h)
        dL_dh, gradients = net.backward(np.ones_like(f))
        for array in (f, dL_dh, net.infer(h), *gradients.values()):
            assert np.isfinite(array).all()


# name: layer, a[h], a'[h] of a number h, with Python's own functions
ACTIVATIONS = {
    "ReLU": (bp.ReLU(), lambda h: max(h, 0), lambda h: h > 0),
    "LeakyReLU": (bp.LeakyReLU(0.1), lambda h: h if h > 0 else 0.1 * h, lambda h: 1 if h > 0 else 0.1),
    "LeakyReLU by default": (bp.LeakyReLU(), lambda h: max(h, h / 100), lambda h: 1 if h > 0 else 0.01),
    "ELU": (bp.ELU(), lambda h: h if h > 0 else math.expm1(h), lambda h: math.exp(min(h, 0))),
    "ELU of 2": (
        bp.ELU(2.0),
        lambda h: h if h > 0 else 2 * math.expm1(h),
        lambda h: 1 if h > 0 else 2 * math.exp(h),
    ),
    "SiLU": (
        bp.SiLU(),
        lambda h: h * logistic(h),
        lambda h: logistic(h) * (1 + h * logistic(-h)),
    ),
    "GELU": (
        bp.GELU(),
        lambda h: h * math.erfc(-h / math.sqrt(2)) / 2,
        lambda h: math.erfc(-h / math.sqrt(2)) / 2 + h * math.exp(-h * h / 2) / math.sqrt(2 * math.pi),
    ),
    "Softplus": (bp.Softplus(), lambda h: max(h, 0) + math.log1p(math.exp(-abs(h))), lambda h: logistic(h)),
    "Sigmoid": (bp.Sigmoid(), lambda h: logistic(h), lambda h: logistic(h) * logistic(-h)),
    "Tanh": (bp.Tanh(), math.tanh, lambda h: 1 - math.tanh(h) ** 2),
    "Sin": (bp.Sin(), math.sin, math.cos),
    "Cos": (bp.Cos(), math.cos, lambda h: -math.sin(h)),
    "Exp": (bp.Exp(), lambda h: math.exp(min(h, 700)), lambda h: math.exp(min(h, 700))),
    "Identity": (bp.Identity(), lambda h: h, lambda h: 1),
    "Elementwise": (
        bp.Elementwise(lambda v: (v.tanh() + v.sigmoid()) / 2),
        lambda h: (math.tanh(h) + logistic(h)) / 2,
        lambda h: (1 - math.tanh(h) ** 2 + logistic(h) * logistic(-h)) / 2,
    ),
}


def logistic(h):
    """1 / (1 + e⁻ʰ)."""
    return 1 / (1 + math.exp(-h)) if h > 0 else math.exp(h) / (1 + math.exp(h))


class TestActivations:
    @pytest.mark.parametrize("name", ACTIVATIONS)
    def test_are_their_formulas(self, name):
        layer, value, slope = ACTIVATIONS[name]
        h = np.array([-1e4, -50.0, -3.0, -1.0, -1e-3, 0.0, 1e-3, 0.5, 2.0, 30.0, 1e4])
        h = h[h <= 700] if name == "Exp" else h
        assert_allclose(layer.forward(h), [value(x) for x in h], rtol=1e-14, atol=1e-300)
        # Where a slope is 1 − something near 1, its digits end at 1e-16 of 1, not of the slope.
        dL_dh, _ = layer.backward(np.ones_like(h))
        assert_allclose(dL_dh, [slope(x) for x in h], rtol=1e-14, atol=1e-15)

    @pytest.mark.parametrize("name", ACTIVATIONS)
    def test_take_the_complex_step_at_0_to_the_side_of_their_slope(self, name):
        layer, _, slope = ACTIVATIONS[name]
        for zero in (0.0, -0.0):
            h = np.array([zero + 1e-30j])
            assert_allclose(layer.infer(h).imag / 1e-30, slope(0.0), rtol=1e-15)

    def test_are_all_in_the_table(self):
        ours = [c for c in bp.Activation.__subclasses__() if c.__module__.startswith("backprop.")]
        elementwise = {"ReLU", "Identity"} | {c.__name__ for c in ours}
        assert elementwise == {type(layer).__name__ for layer, _, _ in ACTIVATIONS.values()}


class TestMatrixCalculus:
    """∂f/∂x holds ∂f_j/∂x_i in row i and column j: a row per entry of x, a column per entry of f."""

    h, beta = np.array([0.3, -1.2, 0.8]), np.array([0.5, -0.25])
    omega = np.array([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]])

    @staticmethod
    def jacobian(function, x):
        """∂f/∂x by central differences."""
        step = 1e-6
        rows = [(function(x + step * e) - function(x - step * e)) / (2 * step) for e in np.eye(len(x))]
        return np.array(rows)

    def linear(self, beta):
        layer = bp.Sequential(bp.Linear(3, 2), dtype="float64")
        layer.parameters["0.beta"][...] = beta
        layer.parameters["0.omega"][...] = self.omega
        return layer

    def test_df_dh_is_omega_transposed(self):
        assert_allclose(self.jacobian(self.linear(self.beta).infer, self.h), self.omega.T, atol=1e-9)

    def test_df_dbeta_is_the_identity(self):
        J = self.jacobian(lambda beta: self.linear(beta).infer(self.h), self.beta)
        assert_allclose(J, np.eye(2), atol=1e-9)

    def test_da_db_is_a_diagonal_of_indicators(self):
        J = self.jacobian(bp.ReLU().infer, self.h)
        assert_allclose(J, np.diag([1.0, 0.0, 1.0]), atol=1e-9)

    @pytest.mark.parametrize("name", PLAIN)
    def test_backward_multiplies_by_the_jacobian(self, name):
        net, h = network(name), spread((4,))
        f = net.forward(h)
        columns = np.stack([net.backward(e)[0] for e in np.eye(len(f))], axis=1)
        assert_allclose(columns, self.jacobian(net.infer, h), rtol=1e-7, atol=1e-7)


class TestDropout:
    @pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
    def test_keeps_the_mean(self, rate):
        n = 200_000
        f = bp.Dropout(rate, seed=0).forward(np.ones((1, n)))
        # Five standard deviations of the mean of n values that are 0 or 1/(1 − rate).
        assert_allclose(f.mean(), 1, atol=5 * math.sqrt(rate / (1 - rate) / n))
        assert_allclose(f[f > 0], 1 / (1 - rate), rtol=1e-15)

    def test_drops_the_share_it_is_told(self):
        f = bp.Dropout(0.25, seed=1).forward(np.ones(100_000))
        assert_allclose(np.mean(f == 0), 0.25, atol=0.01)

    def test_of_rate_0_and_in_inference_is_the_identity(self):
        h = spread((4, 3))
        assert_array_equal(bp.Dropout(0.0).forward(h), h)
        assert_array_equal(bp.Dropout(0.9).infer(h), h)

    def test_repeats_its_mask_from_the_same_key_only(self):
        layer, h = bp.Dropout(0.5), np.ones((8, 64))
        masks = []
        for key in [(1, 2), (1, 2), (1, 3), (2, 2)]:
            reseed(layer, *key)
            masks.append(layer.forward(h))
        assert_array_equal(masks[0], masks[1])
        assert len({mask.tobytes() for mask in masks}) == 3

    def test_draws_a_new_mask_each_time(self):
        layer, h = bp.Dropout(0.5, seed=0), np.ones((8, 64))
        assert (layer.forward(h) != layer.forward(h)).any()

    def test_twice_in_a_network_draws_two_masks(self):
        net = bp.Sequential(bp.FanOut(bp.Dropout(0.5), bp.Dropout(0.5)))
        net.reseed(SEED)
        first, second = np.split(net.forward(np.ones((64, 4), np.float32)), 2)
        assert (first != second).any()


class TestNormalization:
    def test_batch_norm_keeps_running_statistics_as_pytorch_does(self):
        layer, generator = bp.BatchNorm(3, momentum=0.2), np.random.default_rng(0)
        mean, variance = np.zeros(3), np.ones(3)
        for n in (4, 9, 2):
            h = generator.normal(3, 2, (3, n))
            layer.forward(h)
            mean = 0.8 * mean + 0.2 * h.mean(axis=1)
            variance = 0.8 * variance + 0.2 * h.var(axis=1, ddof=1)
        assert_allclose(layer.buffers["running_mean"], mean, rtol=1e-14)
        assert_allclose(layer.buffers["running_variance"], variance, rtol=1e-14)
        z = (h - mean[:, None]) / np.sqrt(variance[:, None] + 1e-5)
        assert_allclose(layer.infer(h), z, rtol=1e-13)
        assert_allclose(layer.infer(h[:, 0]), z[:, 0], rtol=1e-13)

    def test_infer_and_backward_leave_running_statistics_alone(self):
        layer, h = bp.BatchNorm(4), spread((4, 5))
        layer.forward(h)
        before = {name: buffer.copy() for name, buffer in layer.buffers.items()}
        layer.infer(h)
        layer.backward(h)
        for name, buffer in layer.buffers.items():
            assert_array_equal(buffer, before[name])

    @pytest.mark.parametrize(("layer", "axis"), [(bp.BatchNorm(4), 1), (bp.LayerNorm(4), 0)], ids=str)
    def test_gives_mean_0_and_variance_1(self, layer, axis):
        f = layer.forward(100 + 7 * spread((4, 9)))
        assert_allclose(f.mean(axis=axis), 0, atol=1e-12)
        assert_allclose(f.var(axis=axis), 1, rtol=1e-4)

    def test_layer_norm_is_its_formula(self):
        net, h = network("LayerNorm"), spread((4, 9))
        beta, gamma = (net.parameters[f"0.{name}"][:, None] for name in ("beta", "gamma"))
        z = (h - h.mean(axis=0)) / np.sqrt(h.var(axis=0) + 1e-5)
        assert_allclose(net.forward(h), beta + gamma * z, rtol=1e-13)


class TestComposition:
    h = spread((4, 5))

    def test_residual_adds_its_input(self):
        layer = bp.Linear(4, 4, seed=0)
        assert_allclose(bp.Residual(layer).forward(self.h), self.h + layer.infer(self.h), rtol=1e-15)

    @pytest.mark.parametrize("join", ["concatenate", "sum"])
    def test_fan_out_joins_its_branches(self, join):
        branches = [
            bp.Linear(4, 2, seed=0),
            bp.Linear(4, 2, seed=1),
            bp.Sequential(bp.Linear(4, 2), bp.Sin()),
        ]
        outputs = [branch.infer(self.h) for branch in branches]
        expected = np.concatenate(outputs) if join == "concatenate" else sum(outputs)
        assert_allclose(bp.FanOut(*branches, join=join).forward(self.h), expected, rtol=1e-14)

    def test_fan_out_gradient_is_the_sum_over_branches(self):
        branches = [bp.Sin(), bp.Exp(), bp.Tanh()]
        fan_out, dL_df = bp.FanOut(*branches, join="sum"), spread((4, 5), seed=2)
        fan_out.forward(self.h)
        dL_dh, gradients = fan_out.backward(dL_df)
        assert_allclose(dL_dh, sum(branch.backward(dL_df)[0] for branch in branches), rtol=1e-14)
        assert gradients == {}

    def test_forward_is_one_layer_after_another(self):
        net = network("Sequential in Sequential")
        net.reseed(SEED)
        h = self.h
        for layer in net:
            h = layer.forward(h)
        assert_array_equal(forward(net, self.h), h)


class TestFrozen:
    """`frozen` computes what `infer` does, with a backward pass."""

    def warm(self, name):
        net = network(name)
        for seed in range(3):  # running statistics that are not those of any batch
            net.reseed(seed)
            net.forward(spread((4, 6), seed))
        return net

    @every_layer
    def test_computes_what_infer_does(self, name):
        net, h = self.warm(name), spread((4, 7), seed=9)
        frozen = net.frozen()
        assert_array_equal(frozen.forward(h), net.infer(h))
        assert_array_equal(frozen.infer(h), net.infer(h))
        assert_allclose(frozen.forward(h[:, :2]), frozen.forward(h)[:, :2], rtol=1e-13)  # no batch, no randomness
        assert not frozen.couples_examples

    @every_layer
    def test_gradients(self, name):
        report = bp.check_gradients(self.warm(name).frozen(), spread((5, 4), seed=2))
        assert report.passed, report
        assert report.worst.error < 1e-12

    @every_layer
    def test_is_independent_with_the_same_parameters(self, name):
        net = self.warm(name)
        frozen = net.frozen()
        assert list(frozen.parameters) == list(net.parameters)
        assert_array_equal(frozen.phi, net.phi)
        assert all(np.shares_memory(p, frozen.phi) for p in frozen.parameters.values())
        before = net.phi.copy()
        frozen.phi[...] = 0
        assert_array_equal(net.phi, before)

    def test_a_layer_outside_a_network(self):
        norm = bp.BatchNorm(4)
        norm.forward(spread((4, 5)))
        assert_array_equal(norm.frozen().forward(spread((4, 3))), norm.infer(spread((4, 3))))
        assert isinstance(bp.Dropout(0.5).frozen(), bp.Identity)
