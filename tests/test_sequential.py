"""A network is one vector φ, seen through its layers, and itself a layer."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tables import LAYERS, Scale, forward, network, spread

import backprop as bp


def classifier(seed=0, **settings):
    """A small network for four features and two outputs."""
    return bp.Sequential(bp.Linear(4, 3), bp.ReLU(), bp.Linear(3, 2), seed=seed, **settings)


class TestPhi:
    def test_holds_every_parameter_layer_by_layer_beta_before_omega(self):
        net = classifier()
        assert list(net.parameters) == ["0.beta", "0.omega", "2.beta", "2.omega"]
        assert net.phi.shape == (4 * 3 + 3 + 3 * 2 + 2,) == (net.size,)
        assert_array_equal(net.phi, np.concatenate([p.ravel() for p in net.parameters.values()]))

    @pytest.mark.parametrize("name", LAYERS)
    def test_and_parameters_are_one_memory(self, name):
        net = network(name)
        net.phi[...] = np.arange(net.size)
        assert_array_equal(net.phi, np.concatenate([[], *(p.ravel() for p in net.parameters.values())]))
        for p in net.parameters.values():
            p += 1
        assert_array_equal(net.phi, np.arange(net.size) + 1)
        assert net.phi.flags.c_contiguous

    def test_is_what_the_layers_compute_with(self):
        net, h = classifier(), spread((4, 3)).astype(np.float32)
        net.phi[...] = 0
        assert_array_equal(net.infer(h), np.zeros((2, 3)))
        assert_array_equal(net[0].infer(h), np.zeros((3, 3)))

    def test_of_a_nested_network_is_a_stretch_of_the_outer_one(self):
        inner = bp.Sequential(bp.Linear(3, 2), bp.Sin())
        net = bp.Sequential(bp.Linear(4, 3), inner, bp.FanOut(bp.Linear(2, 1), bp.Residual(Scale(2))))
        of_outer, of_inner = ["0.beta", "0.omega"], ["1.0.beta", "1.0.omega"]
        of_branches = ["2.0.beta", "2.0.omega", "2.1.layer.omega"]
        assert list(net.parameters) == [*of_outer, *of_inner, *of_branches]
        inner.phi[...] = 7
        assert_array_equal(net.phi[15:23], np.full(8, 7))
        assert np.shares_memory(inner.phi, net.phi)

    def test_of_a_network_without_parameters_is_empty(self):
        net = bp.Sequential(bp.ReLU(), bp.Sin())
        assert net.phi.shape == (0,)
        assert net.parameters == {}

    def test_buffers_are_named_like_parameters_and_lie_outside(self):
        net = bp.Sequential(bp.Linear(4, 3), bp.Sequential(bp.BatchNorm(3)))
        assert list(net.buffers) == ["1.0.running_mean", "1.0.running_variance"]
        assert net.size == 4 * 3 + 3 + 3 + 3


def values_of(name, shape):
    """Numbers for an assignment, none of them there already."""
    return 0.25 + np.arange(np.prod(shape, dtype=int)).reshape(shape)


# how a value is assigned, and where it shows
ASSIGNED = {
    "phi": (lambda net, v: setattr(net, "phi", v), lambda net: net.phi),
    "a parameter of the network": (
        lambda net, v: net.parameters.__setitem__("0.omega", v),
        lambda net: net[0].omega,
    ),
    "of a network inside": (
        lambda net, v: net.parameters.__setitem__("2.0.omega", v),
        lambda net: net[2][0].omega,
    ),
    "phi of a network inside": (lambda net, v: setattr(net[2], "phi", v), lambda net: net.phi[-8:]),
    "a parameter of a layer": (
        lambda net, v: net[0].parameters.__setitem__("omega", v),
        lambda net: net.parameters["0.omega"],
    ),
    "an attribute": (lambda net, v: setattr(net[0], "beta", v), lambda net: net.parameters["0.beta"]),
    "a buffer of the network": (
        lambda net, v: net.buffers.__setitem__("1.running_mean", v),
        lambda net: net[1].running_mean,
    ),
    "a buffer of a layer": (
        lambda net, v: net[1].buffers.__setitem__("running_variance", v),
        lambda net: net.buffers["1.running_variance"],
    ),
    "an attribute that is a buffer": (
        lambda net, v: setattr(net[1], "running_mean", v),
        lambda net: net.buffers["1.running_mean"],
    ),
}


class TestAssignment:
    """What is assigned is copied into the place there is, so that it counts everywhere."""

    def network(self):
        return bp.Sequential(bp.Linear(4, 3), bp.BatchNorm(3), bp.Sequential(bp.Linear(3, 2)), seed=0, dtype="float64")

    every_place = pytest.mark.parametrize("place", ASSIGNED)

    @every_place
    @pytest.mark.parametrize("kind", ["float64", "float32", "int64", "list"])
    def test_copies_in(self, place, kind):
        net = self.network()
        assign, look = ASSIGNED[place]
        phi, memory = net.phi, look(net)
        value = values_of(place, memory.shape)
        value = value.astype(kind) if kind != "list" else value
        assign(net, value.tolist() if kind == "list" else value)
        expected, value = value.copy(), np.multiply(value, 0, out=value)
        assert_array_equal(look(net), expected)
        assert np.shares_memory(look(net), memory)
        assert net.phi is phi
        assert look(net).dtype == np.float64
        assert_array_equal(net.phi, np.concatenate([p.ravel() for p in net.parameters.values()]))

    @every_place
    def test_counts_in_every_pass(self, place):
        net, twin, X = self.network(), self.network(), spread((5, 4))
        assign, look = ASSIGNED[place]
        value = values_of(place, look(net).shape)
        for each in (net, twin):  # whatever was computed before
            each.predict(X)
            bp.Trainer(each, bp.LeastSquares(), bp.SGD(1e-3)).step(X, np.ones((5, 2)))
        assign(net, value)
        look(twin)[...] = value
        assert_array_equal(net.predict(X), twin.predict(X))
        assert_array_equal(net.forward(X.T), twin.forward(X.T))
        for each in (net, twin):
            bp.Trainer(each, bp.LeastSquares(), bp.SGD(1e-3)).step(X, np.ones((5, 2)))
        assert_array_equal(net.phi, twin.phi)

    @every_place
    def test_counts_between_two_steps_of_a_trainer(self, place):
        net, X, y = self.network(), spread((5, 4)), np.ones((5, 2))
        assign, look = ASSIGNED[place]
        trainer = bp.Trainer(net, bp.LeastSquares(), bp.SGD(1e-3))
        trainer.step(X, y)
        assign(net, values_of(place, look(net).shape))
        twin = net.copy()
        trainer.step(X, y)
        bp.Trainer(twin, bp.LeastSquares(), bp.SGD(1e-3)).step(X, y)
        assert_array_equal(net.phi, twin.phi)
        assert all((net.buffers[name] == twin.buffers[name]).all() for name in net.buffers)

    @every_place
    @pytest.mark.parametrize(
        ("bad", "error", "words"),
        [
            (lambda a: np.ones((*a.shape, 1)), ValueError, r"expected shape \(.*\), got shape"),
            (lambda a: 1.0, ValueError, r"expected shape \(.*\), got shape \(\)"),
            (lambda a: np.ones(a.size + 1), ValueError, "expected shape .*It keeps its shape for good"),
            (lambda a: a.astype(str), TypeError, "expected real numbers, got an array of dtype <U"),
            (lambda a: a + 1j, TypeError, "expected real numbers, got an array of dtype complex128"),
            (lambda a: a.astype(object), TypeError, "expected real numbers, got an array of dtype object"),
            (lambda a: None, TypeError, "expected real numbers"),
        ],
        ids=["an axis more", "a number", "an entry more", "text", "complex", "objects", "None"],
    )
    def test_of_what_does_not_fit_is_refused_and_changes_nothing(self, place, bad, error, words):
        net = self.network()
        assign, look = ASSIGNED[place]
        before = [array.copy() for array in (net.phi, *net.buffers.values())]
        with pytest.raises(error, match=words):
            assign(net, bad(look(net)))
        for array, then in zip((net.phi, *net.buffers.values()), before, strict=True):
            assert_array_equal(array, then)

    def test_a_transposed_matrix_says_so(self):
        net = self.network()
        with pytest.raises(ValueError, match=r"expected shape \(3, 4\), got shape \(4, 3\)\. Pass its transpose"):
            net.parameters["0.omega"] = np.ones((4, 3))

    @pytest.mark.parametrize("which", ["parameters", "buffers"])
    def test_a_name_that_is_not_there(self, which):
        net = self.network()
        for arrays in (getattr(net, which), getattr(net[1], which)):
            with pytest.raises(KeyError, match="expected one of"):
                arrays["1.nothing"] = np.ones(3)

    @pytest.mark.parametrize("of", ["the network", "a layer"])
    @pytest.mark.parametrize("which", ["parameters", "buffers"])
    def test_all_at_once(self, of, which):
        net = self.network()
        owner = net if of == "the network" else net[1]
        arrays = {name: values_of(name, array.shape) for name, array in getattr(owner, which).items()}
        phi = net.phi
        setattr(owner, which, arrays)
        for name, array in arrays.items():
            assert_array_equal(getattr(owner, which)[name], array)
        assert net.phi is phi
        assert_array_equal(net.phi, np.concatenate([p.ravel() for p in net.parameters.values()]))
        with pytest.raises(ValueError, match="expected a dict of"):
            setattr(owner, which, {"omega": np.ones(3)})

    @pytest.mark.parametrize("of", ["the network", "a layer"])
    @pytest.mark.parametrize("which", ["parameters", "buffers"])
    def test_several_at_once(self, of, which):
        net = self.network()
        owner = net if of == "the network" else net[1]
        memory = list(getattr(owner, which).values())
        for how in ("update", "|="):
            arrays = {
                name: np.random.default_rng(len(how)).random(a.shape) for name, a in getattr(owner, which).items()
            }
            arrays.pop(next(iter(arrays)))
            if how == "update":
                getattr(owner, which).update(arrays)
            elif which == "parameters":
                owner.parameters |= arrays
            else:
                owner.buffers |= arrays
            for name, array in arrays.items():
                assert_array_equal(getattr(owner, which)[name], array)
            assert all(np.shares_memory(a, b) for a, b in zip(getattr(owner, which).values(), memory, strict=True))

    def test_in_place_arithmetic(self):
        net = self.network()
        before = net.phi.copy()
        net.phi *= 2
        net[0].beta += 1
        net.parameters["0.omega"] -= 1
        before *= 2
        before[:3] += 1
        before[3:15] -= 1
        assert_array_equal(net.phi, before)

    def test_after_a_copy_and_after_a_file(self, tmp_path):
        net = self.network()
        net.save(tmp_path / "net")
        for twin in (net.copy(), pickle.loads(pickle.dumps(net)), bp.Sequential.load(tmp_path / "net")):
            twin[0].beta = [1, 2, 3]
            twin.parameters["0.omega"] = np.ones((3, 4))
            twin[1].running_mean = np.full(3, 7.0)
            assert_array_equal(twin.phi[:15], [1, 2, 3, *[1] * 12])
            assert_array_equal(twin.buffers["1.running_mean"], 7)
        assert not (net.buffers["1.running_mean"] == 7).any()


class TestDtype:
    @pytest.mark.parametrize("dtype", ["float32", "float64", np.float32, np.float64, np.dtype("float64")])
    def test_is_that_of_phi_parameters_and_predictions(self, dtype):
        net = classifier(dtype=dtype)
        assert net.phi.dtype == dtype
        assert {p.dtype for p in net.parameters.values()} == {np.dtype(dtype)}
        for kind in (int, np.float32, np.float64, bool):
            assert net.predict(np.ones((2, 4), kind)).dtype == dtype

    def test_is_float32_by_default(self):
        assert bp.Sequential(bp.Linear(2, 2)).phi.dtype == np.float32


class TestSeed:
    def test_gives_the_same_weights_again(self):
        assert_array_equal(classifier(seed=5).phi, classifier(seed=5).phi)
        assert (classifier(seed=5).phi != classifier(seed=6).phi).any()

    def test_draws_all_layers_from_one_generator(self):
        net = bp.Sequential(bp.Linear(3, 3), bp.Linear(3, 3), bp.Sequential(bp.Linear(3, 3)), seed=0)
        omegas = [p for key, p in net.parameters.items() if key.endswith("omega")]
        assert len({omega.tobytes() for omega in omegas}) == 3

    def test_left_out_keeps_the_values_of_the_layers(self):
        layer = bp.Linear(2, 2, seed=3)
        expected = layer.parameters["omega"].copy()
        assert_array_equal(bp.Sequential(layer).parameters["0.omega"], expected)
        assert layer.parameters["omega"].base is not None

    def test_weights_start_as_the_initializer_says(self):
        net = bp.Sequential(bp.Linear(400, 300), bp.Linear(300, 200, initializer=bp.Constant(0.5)), seed=0)
        assert_allclose(net.parameters["0.omega"].var(), 2 / 400, rtol=0.05)
        assert_array_equal(net.parameters["1.omega"], np.full((200, 300), 0.5))


DUPLICATES = {
    "copy()": lambda net: net.copy(),
    "deepcopy": copy.deepcopy,
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
    "copy of a copy": lambda net: net.copy().copy(),
}


class TestCopies:
    @pytest.mark.parametrize("name", LAYERS)
    @pytest.mark.parametrize("duplicate", DUPLICATES.values(), ids=DUPLICATES)
    def test_have_a_phi_of_their_own_in_one_memory(self, name, duplicate):
        net, h = network(name), spread((4, 5))
        twin = duplicate(net)
        assert repr(twin) == repr(net)
        assert_array_equal(forward(twin, h), forward(net, h))
        assert not np.shares_memory(twin.phi, net.phi)
        before = net.phi.copy()
        twin.phi[...] = np.arange(net.size)
        assert_array_equal(net.phi, before)
        assert_array_equal(np.arange(net.size), np.concatenate([[], *(p.ravel() for p in twin.parameters.values())]))

    def test_have_running_statistics_of_their_own(self):
        net = network("BatchNorm")
        twin = net.copy()
        twin.forward(spread((4, 5)))
        assert_array_equal(net.buffers["0.running_mean"], np.zeros(4))

    def test_of_a_nested_network_keep_its_phi_a_stretch_of_the_outer_one(self):
        twin = network("Sequential in Sequential").copy()
        assert np.shares_memory(twin[0][0].phi, twin.phi)

    def test_of_a_part_belong_to_nobody(self):
        net = bp.Sequential(bp.Residual(bp.Linear(4, 4)), bp.Sequential(bp.Linear(4, 2)))
        other = bp.Sequential(*[layer.copy() for layer in net])
        assert_array_equal(other.phi, net.phi)
        assert not np.shares_memory(other.phi, net.phi)


class TestPredict:
    def test_takes_and_returns_rows(self):
        net, X = classifier(), spread((7, 4))
        assert net.predict(X).shape == (7, 2)
        assert_array_equal(net.predict(X), net.infer(X.T.astype(np.float32)).T)

    @pytest.mark.parametrize("order", ["C", "F", "list"])
    def test_takes_any_layout(self, order):
        net, X = classifier(dtype="float64"), spread((7, 4))
        given = X.tolist() if order == "list" else X.copy(order=order)
        assert_allclose(net.predict(given), net.predict(X), rtol=1e-13)

    def test_of_many_rows_is_that_of_each(self):
        net, X = classifier(dtype="float64"), np.random.default_rng(0).normal(size=(5000, 4))
        single = [net.predict(X[n : n + 1])[0] for n in (0, 1234, 4999)]
        assert_allclose(net.predict(X)[[0, 1234, 4999]], single, rtol=1e-12, atol=1e-14)

    def test_drops_nothing_and_repeats_itself(self):
        net = bp.Sequential(bp.Linear(4, 8), bp.Dropout(0.5), bp.BatchNorm(8), bp.Linear(8, 1), seed=0)
        assert_array_equal(net.predict(spread((7, 4))), net.predict(spread((7, 4))))

    def test_leaves_a_pending_backward_alone(self):
        net = classifier(dtype="float64")
        f = net.forward(spread((4, 5)))
        _, gradients = net.backward(f)
        net.predict(spread((9, 4), seed=2))
        assert_array_equal(net.backward(f)[1].dL_dphi, gradients.dL_dphi)

    def test_returns_an_array_of_the_callers(self):
        net, X = bp.Sequential(bp.Identity(), dtype="float64"), spread((3, 2))
        net.predict(X)[...] = 0
        assert_array_equal(X, spread((3, 2)))


class TestGradients:
    @pytest.mark.parametrize("traced", [False, True])
    def test_in_any_order_of_a_layer_of_ones_own_are_laid_out_like_phi(self, traced):
        """One parameter was once trained with the gradient of the other."""

        class Affine(bp.Linear):
            def backward(self, dL_df):
                dL_dh, gradients = super().backward(dL_df)
                return dL_dh, dict(reversed(gradients.items()))

        Affine.traced = traced
        net = bp.Sequential(bp.Linear(4, 3), Affine(3, 2), seed=0, dtype="float64")
        ours = bp.Sequential(bp.Linear(4, 3), bp.Linear(3, 2), seed=0, dtype="float64")
        for each in (net, ours):
            each.forward(spread((4, 5)))
        found, wanted = (each.backward(spread((2, 5), seed=2))[1] for each in (net, ours))
        assert list(found) == list(wanted)
        assert_array_equal(found.dL_dphi, wanted.dL_dphi)
        for name, gradient in wanted.items():
            assert_array_equal(found[name], gradient)


class TestContainer:
    def test_indexing_length_and_iteration(self):
        layers = [bp.Linear(4, 3), bp.ReLU(), bp.Linear(3, 2)]
        net = bp.Sequential(*layers)
        assert len(net) == 3
        assert list(net) == layers == [net[0], net[1], net[-1]]
        assert net[:2] == layers[:2]
        with pytest.raises(IndexError):
            net[3]

    def test_knows_its_widths(self):
        net = bp.Sequential(bp.Dropout(0.1), bp.Residual(bp.Linear(4, 4)), bp.FanOut(bp.Identity(), bp.Linear(4, 2)))
        assert net.out_features == 6
        assert bp.Sequential(bp.Tanh(), bp.Linear(4, 3), bp.Tanh()).in_features == 4
        assert (bp.Sequential(bp.Sin()).in_features, bp.Sequential(bp.Sin()).out_features) == (None, None)

    def test_knows_its_input_behind_a_layer_that_keeps_the_width(self):
        assert bp.Sequential(bp.Residual(bp.Tanh()), bp.Linear(4, 2)).in_features == 4


class TestRepr:
    def test_is_a_table_with_widths_counts_and_memory(self):
        net = bp.Sequential(
            bp.Linear(784, 128),
            bp.ReLU(),
            bp.Sequential(bp.Linear(128, 10), bp.Tanh()),
            bp.Residual(bp.LayerNorm(10)),
        )
        lines = repr(net).splitlines()
        cells = [line.split() for line in lines]
        assert len(lines) == 1 + len(net) + 1
        assert cells[1] == ["0", "Linear(784", "→", "128)", "128", "100,480"]
        assert cells[2] == ["1", "ReLU()", "128", "0"]
        assert cells[3][-2:] == ["10", "1,290"]
        assert cells[4][-2:] == ["10", "20"]
        assert cells[5] == ["φ", "101,790", "397.6", "KiB", "float32"]

    @pytest.mark.parametrize("name", LAYERS)
    def test_lines_up(self, name):
        header, *rows = repr(network(name)).splitlines()
        assert all(len(row.split("  float")[0]) >= len(header) for row in rows)
        assert all(row[: len(header)].rstrip() == row.rstrip() for row in rows[:-1])


class TestNamesOfOthers:
    @pytest.mark.parametrize(
        ("name", "advice"),
        [("Softmax", "CrossEntropy"), ("MSELoss", "LeastSquares"), ("BCEWithLogitsLoss", "BinaryCrossEntropy")]
        + [(name, f"Write from backprop.estimators import {name}") for name in ("MLPClassifier", "MLPRegressor")],
    )
    def test_say_where_it_is(self, name, advice):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'. .*{advice}"):
            getattr(bp, name)

    @pytest.mark.parametrize("layers", [[bp.Identity()], (bp.Identity(), bp.Tanh())])
    def test_a_list_of_layers_is_told_to_come_apart(self, layers):
        with pytest.raises(TypeError, match=r"Pass them one by one: Sequential\(\*layers\)"):
            bp.Sequential(layers)


@pytest.mark.parametrize("name", ["one row later", "one row before", "in reverse", "the same"])
def test_predictions_written_over_their_inputs(name):
    net = bp.Sequential(bp.Linear(4, 4), seed=0, dtype="float64")
    B = np.random.default_rng(0).normal(size=(100_001, 4))
    X, out = {
        "one row later": (B[:-1], B[1:]),
        "one row before": (B[1:], B[:-1]),
        "in reverse": (B[::-1], B),
        "the same": (B, B),
    }[name]
    expected = net.predict(X.copy())
    assert_array_equal(net.predict(X, out=out), expected)
