"""Networks as plain data: every layer goes into a file and comes back, and nothing else does."""

from __future__ import annotations

import inspect
import os
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from forgery import forge, parts
from numpy.testing import assert_array_equal
from tables import LAYERS, Scale, network, spread

import backprop as bp
from backprop import architecture
from backprop.architecture import build, describe
from backprop.around.nesting import leaves
from backprop.files import container

WITH_CODE = [name for name in LAYERS if name.startswith("Elementwise")]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


def reloaded(net, path, classes=()):
    """The network, after a file; saved again, it gives the same bytes."""
    net.save(path)
    again, before = type(net).load(path, classes=classes), path.read_bytes()
    again.save(path)
    assert path.read_bytes() == before
    return again


def assert_same(again, net):
    assert repr(again) == repr(net)
    assert again.phi.dtype == net.phi.dtype
    assert again.phi.tobytes() == net.phi.tobytes()
    assert list(again.parameters) == list(net.parameters)
    for name, parameter in again.parameters.items():
        assert_array_equal(parameter, net.parameters[name], strict=True)
        assert np.shares_memory(parameter, again.phi)
    assert list(again.buffers) == list(net.buffers)
    for name, buffer in again.buffers.items():
        assert_array_equal(buffer, net.buffers[name], strict=True)


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("name", [name for name in LAYERS if name not in WITH_CODE])
    def test_every_layer(self, name, dtype, path):
        net = network(name, dtype=dtype)
        net.forward(spread((4, 7)).astype(dtype))  # moves the running statistics
        again = reloaded(net, path, classes=[Scale])
        assert_same(again, net)
        X = spread((5, 4)).astype(dtype)
        assert_array_equal(again.predict(X), net.predict(X))
        assert again.size == net.size

    def test_a_frozen_network(self, path):
        net = network("BatchNorm inside")
        net.forward(spread((4, 7)))
        frozen = net.frozen()
        again = reloaded(frozen, path)
        assert_same(again, frozen)
        assert_array_equal(again.forward(spread((4, 3))), net.infer(spread((4, 3))))

    @pytest.mark.parametrize("k", [None, 2, 5])
    def test_checkpointing(self, k, path):
        net = bp.Sequential(*[layer for _ in range(4) for layer in (bp.Linear(3, 3), bp.Tanh())], seed=0, checkpoint=k)
        again = reloaded(net, path)
        assert again.checkpoint == k
        assert_same(again, net)

    INITIALIZERS = (
        *(bp.HeNormal(), bp.HeUniform(), bp.GlorotNormal(), bp.GlorotUniform(), bp.LeCunNormal(), bp.LeCunUniform()),
        *(bp.Normal(0.25), bp.Orthogonal(gain=1.5), bp.Constant(0.1)),
    )

    @pytest.mark.parametrize("initializer", INITIALIZERS, ids=repr)
    def test_initializers_as_arguments(self, initializer, path):
        net = bp.Sequential(bp.Linear(3, 4, initializer=initializer, bias=False, seed=1), dtype="float64")
        again = reloaded(net, path)
        assert repr(again[0].initializer) == repr(initializer)
        assert not again[0].bias
        for each in (net, again):
            each.initialize(np.random.default_rng(5))
        assert_same(again, net)

    def test_arguments_of_layers(self, path):
        net = bp.Sequential(
            *(bp.LeakyReLU(0.3), bp.ELU(1.7), bp.BatchNorm(2, momentum=0.25, eps=1e-3), bp.LayerNorm(2, eps=0.1)),
            *(bp.Dropout(0.125, seed=4), bp.FanOut(bp.Sin(), bp.Cos(), join="sum")),
        )
        again = reloaded(net, path)
        assert (again[0].negative_slope, again[1].alpha) == (0.3, 1.7)
        assert (again[2].momentum, again[2].eps, again[3].eps) == (0.25, 1e-3, 0.1)
        assert (again[4].rate, again[5].join) == (0.125, "sum")

    def test_dropout_starts_again_from_its_seed(self, path):
        net = bp.Sequential(bp.Dropout(0.5, seed=4))
        first = net.forward(np.ones((50, 3)))
        assert_array_equal(reloaded(net, path).forward(np.ones((50, 3))), first)
        assert not np.array_equal(net.forward(np.ones((50, 3))), first)

    def test_nothing_is_drawn_again(self, path):
        """Not from a seed of the network, of a network inside it, or of a layer, nor by an initializer that takes its time."""

        class Counting(bp.Initializer):
            calls = 0

            def __call__(self, shape, generator):
                Counting.calls += 1
                return generator.normal(size=shape)

        inner = bp.Sequential(bp.Linear(2, 2, seed=1, initializer=Counting()), seed=2)
        net = bp.Sequential(inner, bp.Linear(2, 1, seed=np.random.default_rng(0)), seed=3)
        net.phi += 1
        before = Counting.calls
        net.save(path)
        assert_same(bp.Sequential.load(path, classes=[Counting]), net)
        assert Counting.calls == before

    def test_training_goes_on_with_the_same_bits(self, path):
        X, y = spread((20, 3)), np.arange(20) % 2
        net = bp.Sequential(bp.Linear(3, 4), bp.BatchNorm(4), bp.Dropout(0.2), bp.ReLU(), bp.Linear(4, 2), seed=0)
        bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1)).fit(X, y, epochs=2, verbose=0)
        again = reloaded(net, path)
        for each in (net, again):
            bp.Trainer(each, bp.CrossEntropy(), bp.SGD(0.1)).fit(X, y, epochs=2, verbose=0)
        assert_same(again, net)

    def test_the_network_is_not_changed_by_being_saved(self, path):
        net = bp.Sequential(Scale(3), bp.Linear(3, 2), seed=0)
        copy = net.copy()
        net.save(path)
        assert_same(net, copy)

    def test_a_loaded_network_is_free_of_the_file(self, path):
        net = bp.Sequential(bp.Linear(3, 2), seed=0)
        again = reloaded(net, path)
        path.unlink()
        again.phi[...] = 1
        assert again.phi.flags.writeable
        assert bp.Sequential(again.copy(), bp.ReLU()).phi[0] == 1

    def test_paths_of_either_kind(self, path):
        net = bp.Sequential(bp.Linear(3, 2), seed=0)
        net.save(str(path))
        assert_same(bp.Sequential.load(str(path)), net)


class Block(bp.Composite):
    """Makes its layers itself."""

    def __init__(self, size, *, depth=2):
        self.layers = {f"layer{i}": bp.Linear(size, size) for i in range(depth)}
        self.in_features = self.out_features = size

    def forward(self, h):
        for layer in self.layers.values():
            h = layer.forward(h)
        return h

    def backward(self, dL_df):
        gradients = {}
        for key in reversed(self.layers):
            dL_df, of_layer = self.backward_child(key, dL_df)
            gradients = of_layer | gradients
        return dL_df, gradients


class Pair(Block):
    """Is given its layers by name."""

    def __init__(self, first, second):
        self.layers = {"first": first, "second": second}


class Network(bp.Sequential):
    """A network of one's own, with a network inside."""

    def __init__(self, width, seed=None):
        super().__init__(bp.Linear(3, width), bp.Sequential(bp.Tanh(), bp.Linear(width, 2)), seed=seed, dtype="float64")


class Kept(bp.Layer):
    """Keeps what it is given: in attributes, in parameters also as attribute, in buffers."""

    def __init__(self, options, *widths, mode=("a", 2), **more):
        self.options, self.mode = options, mode
        self.omega = self.parameters["omega"] = np.full(sum(widths), 2.0)
        self.parameters["gamma"] = np.ones(2)
        self.buffers["count"] = np.zeros(3, np.int64)

    def forward(self, h):
        self.h = h
        return self.omega[:, None] * h

    def backward(self, dL_df):
        gradients = {"omega": (dL_df * self.h).sum(axis=1), "gamma": np.zeros(2)}
        return self.omega[:, None] * dL_df, gradients


class Fixed(bp.Initializer):
    def __init__(self, value):
        self.value = value

    def __call__(self, shape, generator):
        return np.full(shape, self.value)


OWN = [Block, Pair, Network, Kept, Fixed]


def own():
    options = {"list": [1, (2.5, None)], "limit": np.inf, "flag": np.True_, "n": np.int32(3), "x": np.float32(0.1)}
    net = bp.Sequential(
        *(Block(3, depth=3), Pair(bp.Linear(3, 3, initializer=Fixed(0.5)), bp.ReLU()), Network(5)),
        *(bp.Linear(2, 4), Kept(options, 1, 3, mode=["b"], note="ä")),
        seed=0,
    )
    net.buffers["4.count"][...] = 7
    return net


class Forgets(bp.Layer):
    """Depends on something that is neither an argument, nor a parameter, nor a buffer."""

    def __init__(self, width=2):
        self.parameters["omega"] = np.ones(width)

    def forward(self, h):
        return h

    def backward(self, dL_df):
        return dL_df, {"omega": np.zeros(2)}


class Draws(bp.Composite):
    """Draws the parameters of the layers it is given."""

    def __init__(self, *layers):
        self.layers = dict(enumerate(layers))
        self.layers = {str(i): layer for i, layer in self.layers.items()}
        self.initialize(np.random.default_rng())

    forward, backward = Block.forward, Block.backward


class NeedsArray(Forgets):
    def __init__(self, start):
        self.parameters["omega"] = start.copy()


def widened():
    layer = Forgets()
    layer.parameters["omega"] = np.ones(3)
    return layer


REFUSED = {
    "Elementwise": (lambda: bp.Elementwise(np.sin), TypeError, ["function=<ufunc 'sin'>", "Activation", "no code"]),
    "a layer with a lambda inside": (
        lambda: bp.Residual(bp.Sequential(bp.Elementwise(lambda v: v * 2))),
        TypeError,
        ["Elementwise", "function=", "Activation"],
    ),
    "an array as argument": (lambda: NeedsArray(np.ones(2)), TypeError, ["'start'", "self.start = start"]),
    "an argument that is an object": (lambda: Kept(object(), 4), TypeError, ["options=<object", "data"]),
    "an argument that is a layer": (lambda: Kept(bp.ReLU(), 4), ValueError, ["made again", "layers among the layers"]),
    "other parameters than it was made with": (widened, ValueError, ["Forgets", "made again", "(2,)", "(3,)"]),
    "drawn anew when made": (lambda: Draws(bp.Linear(2, 2)), ValueError, ["made again", "other parameters"]),
    "the name of another": (lambda: type("ReLU", (Scale,), {})(3), TypeError, ["name of its own", "ReLU", "Rename"]),
    "two classes of one name": (
        lambda: bp.Residual(bp.Sequential(Scale(3), type("Scale", (Scale,), {})(3))),
        ValueError,
        ["two named Scale"],
    ),
}


class TestLayersOfOnesOwn:
    def test_come_back_where_their_classes_are_passed(self, path):
        net = own()
        again = reloaded(net, path, classes=OWN)
        assert_same(again, net)
        assert [type(layer) for layer in again] == [type(layer) for layer in net]
        assert repr(again[4].options) == repr(
            {"list": [1, (2.5, None)], "limit": np.inf, "flag": True, "n": 3, "x": float(np.float32(0.1))}
        )
        assert again[4].mode == ["b"]
        assert again[4].omega is again[4].parameters["omega"]
        assert again[1].layers["first"].initializer.value == 0.5
        X = spread((5, 3)).astype("f4")
        assert_array_equal(again.predict(X), net.predict(X))

    @pytest.mark.parametrize("missing", OWN)
    def test_are_refused_by_name_otherwise(self, missing, path):
        own().save(path)
        with pytest.raises(bp.FileFormatError, match=rf"net\.safetensors: .*'{missing.__name__}'.*classes=\[MyClass\]"):
            bp.Sequential.load(path, classes=[kind for kind in OWN if kind is not missing])

    @pytest.mark.parametrize("case", REFUSED)
    def test_that_could_not_come_back_are_not_saved(self, case, path):
        make, error, words = REFUSED[case]
        net = bp.Sequential(make())
        with pytest.raises(error) as caught:
            net.save(path)
        for word in words:
            assert word in str(caught.value)
        assert not path.exists()

    def test_a_network_of_ones_own(self, path):
        net = Network(4, seed=1)
        assert_same(reloaded(net, path), net)
        assert type(bp.Sequential.load(path, classes=[Network])) is Network
        with pytest.raises(bp.FileFormatError, match="'Network'"):
            bp.Sequential.load(path)
        bp.Sequential(bp.Linear(3, 4)).save(path)
        with pytest.raises(bp.FileFormatError, match="expected a Network, got a Sequential"):
            Network.load(path)

    def test_may_raise_what_they_like(self, path):
        class Fails(Scale):
            fails = False

            def __init__(self, features):
                if Fails.fails:
                    raise KeyError("features")
                super().__init__(features)

        bp.Sequential(Fails(3)).save(path)
        Fails.fails = True
        with pytest.raises(bp.FileFormatError, match=r"net\.safetensors: .* KeyError: 'features'\."):
            bp.Sequential.load(path, classes=[Fails])

    @pytest.mark.parametrize(
        ("classes", "error", "words"),
        [
            ([Scale(3)], TypeError, r"classes, got Scale.*without \(\)"),
            (["Scale"], TypeError, "classes, got 'Scale'"),
            ([type("Linear", (Scale,), {})], ValueError, "two named Linear"),
            ([Scale, type("Scale", (Scale,), {})], ValueError, "two named Scale"),
        ],
    )
    def test_are_passed_as_classes(self, classes, error, words, path):
        bp.Sequential(bp.Linear(2, 1)).save(path)
        with pytest.raises(error, match=words):
            bp.Sequential.load(path, classes=classes)


def linear(**arguments):
    """Other arguments for the first layer."""
    return lambda about, _: about["network"]["layers"]["0"]["arguments"].update(arguments)


def norm(**arguments):
    return lambda about, _: about["network"]["layers"]["1"]["arguments"].update(arguments)


def layer(**entries):
    return lambda about, _: about["network"]["layers"]["0"].update(entries)


def whole(**entries):
    return lambda about, _: about["network"].update(entries)


def renamed(old, new):
    def change(_, header):
        entries = {new if name == old else name: entry for name, entry in header.items()}
        header.clear()
        header.update(entries)

    return change


def nested(about, _):
    for _ in range(200):
        about["network"] = {"class": "Residual", "arguments": {}, "layers": {"layer": about["network"]}}
    about["network"] = {"class": "Sequential", "arguments": {}, "layers": {"0": about["network"]}}


HUGE = 2**40
FORGED = {
    "a huge width in": (linear(in_features=HUGE), ["0.weight", f"(3, {HUGE})", "(3, 2)"]),
    "a huge width out": (linear(out_features=HUGE), ["0.weight", f"({HUGE}, 2)"]),
    "huge widths": (linear(in_features=HUGE, out_features=HUGE), ["0.weight"]),
    "a huge norm": (norm(features=HUGE), ["1.bias", f"({HUGE},)", "(3,)"]),
    "huge members": (
        layer(**{"class": "MembersLinear", "arguments": {"inputs": 2, "outputs": 3, "members": HUGE}}),
        ["0.bias", f"({3 * HUGE},)"],
    ),
    "huge members with weights of their own": (
        layer(**{"class": "SeparateLinear", "arguments": {"inputs": HUGE, "outputs": 1, "members": 3}}),
        ["0.omega_0", f"(1, {HUGE})"],
    ),
    "a huge embedding": (
        layer(**{"class": "Embedding", "arguments": {"cardinalities": {"tuple": [HUGE]}, "widths": {"tuple": [HUGE]}}}),
        ["0.omega_0", f"({HUGE}, {HUGE})"],
    ),
    "a width of a hundred digits": (linear(in_features=10**99), ["0.weight"]),
    "a width that is text": (linear(in_features="2"), ["0.weight"]),
    "a width that is not whole": (linear(in_features=2.0), ["in_features"]),
    "a width that is missing": (
        lambda about, _: about["network"]["layers"]["0"]["arguments"].pop("in_features"),
        ["None"],
    ),
    "widths that do not chain": (lambda about, _: about["network"]["layers"].pop("1"), ["1."]),
    "no bias": (linear(bias=False), ["0.bias"]),
    "an argument that there is not": (linear(device="cuda"), ["arguments of Linear", "device"]),
    "self": (linear(self=1), ["arguments of Linear", "self"]),
    "an initializer that is none": (linear(initializer={"class": "SGD", "arguments": {"learning_rate": 1}}), ["SGD"]),
    "a layer as argument": (linear(initializer={"class": "ReLU", "arguments": {}}), ["layers among the layers"]),
    "a layer that allocates, as argument": (
        linear(initializer={"class": "BatchNorm", "arguments": {"features": HUGE}}),
        ["layers among the layers"],
    ),
    "an argument of no kind": (linear(bias={"set": []}), ["an argument"]),
    "an argument with a float of no kind": (linear(bias={"float": "1e9"}), ["an argument"]),
    "a class of Python": (layer(**{"class": "eval"}), ["'eval'", "class of the library"]),
    "a class by its path": (layer(**{"class": "os.system"}), ["'os.system'"]),
    "a class that is abstract": (layer(**{"class": "Layer", "arguments": {}}), ["abstract"]),
    "a class that is no layer": (layer(**{"class": "SGD", "arguments": {"learning_rate": 1}}), ["SGD"]),
    "a class that is no text": (layer(**{"class": ["Linear"]}), ["class, arguments and layers"]),
    "arguments that are a list": (layer(arguments=[2, 3]), ["class, arguments and layers"]),
    "layers in a layer without any": (layer(layers={"0": {"class": "ReLU", "arguments": {}}}), ["arguments of Linear"]),
    "layers that are a list": (whole(layers=[]), ["class, arguments and layers"]),
    "no layers": (whole(layers={}), ["at least one layer"]),
    "a layer too many": (
        lambda about, _: about["network"]["layers"].update({"9": {"class": "Linear", "arguments": {}}}),
        ["9.weight", "no such tensor"],
    ),
    "a residual without its layer": (layer(**{"class": "Residual", "arguments": {}}), ["layer"]),
    "no network": (lambda about, _: about.pop("network"), ["class, arguments and layers", "None"]),
    "a network that is no network": (
        whole(**{"class": "FanOut", "arguments": {}, "layers": {"0": {"class": "ReLU", "arguments": {}}}}),
        ["a Sequential", "a FanOut"],
    ),
    "another dtype": (whole(arguments={"dtype": "float64"}), ["parameters of float64", "float32"]),
    "no dtype": (whole(arguments={"dtype": "float16"}), ["dtype"]),
    "a dtype in the wrong place": (
        lambda _, header: header["0.bias"].update(dtype="I32"),
        ["parameters of float32", "int32"],
    ),
    "a statistic in another dtype": (
        lambda _, header: header["1.running_mean"].update(dtype="I64"),
        ["1.running_mean of float64", "int64"],
    ),
    "a transposed weight": (lambda _, header: header["0.weight"].update(shape=[2, 3]), ["0.weight", "(2, 3)"]),
    "a tensor by another name": (renamed("0.bias", "0.beta"), ["0.bias", "no such tensor"]),
    "a tensor of nobody": (lambda about, _: about["network"]["layers"].pop("2"), ["also ['2.bias', '2.weight']"]),
    "nested deeply": (nested, []),
}


class TestForged:
    """The file is intact, what it asks for is not to be had."""

    @pytest.fixture
    def saved(self, path):
        net = bp.Sequential(bp.Linear(2, 3), bp.BatchNorm(3), bp.Linear(3, 3), seed=0)
        net.save(path)
        assert forge(path.read_bytes(), lambda about, header: None)  # the forger's tools leave a good file
        path.write_bytes(forge(path.read_bytes(), lambda about, header: None))
        assert_same(bp.Sequential.load(path), net)
        return path.read_bytes()

    @pytest.mark.parametrize("case", FORGED)
    def test_is_refused_before_anything_is_allocated(self, case, path, saved):
        change, words = FORGED[case]
        path.write_bytes(forge(saved, change))
        tracemalloc.start()
        with pytest.raises(bp.FileFormatError) as caught:
            bp.Sequential.load(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert str(caught.value).startswith(f"{path}: ")
        for word in words:
            assert word in str(caught.value)
        assert peak < 4 << 20

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("name", ["0.weight", "1.running_var"])
    def test_numbers_that_are_not_finite(self, name, value, path, saved):
        about, header, _ = parts(saved)
        arrays = {**architecture.tensors(bp.Sequential.load(path))}
        arrays[name] = np.full_like(arrays[name], value)
        container.write(path, "network", about, arrays)
        with pytest.raises(bp.FileFormatError, match=rf"net\.safetensors: .*finite numbers in '{name}'"):
            bp.Sequential.load(path)
        assert header

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_numbers_that_are_not_finite_are_not_saved(self, value, path):
        net = bp.Sequential(bp.Linear(2, 3), bp.BatchNorm(3))
        net.buffers["1.running_mean"][1] = value
        with pytest.raises(ValueError, match=r"save: expected finite numbers in '1\.running_mean'"):
            net.save(path)
        assert not path.exists()

    def test_widths_are_compared_for_every_layer_with_parameters(self):
        """A layer of the library that allocates what its arguments say needs a row in the table of shapes."""
        for name in LAYERS:
            for leaf in leaves(network(name)):
                if leaf.parameters and type(leaf) is not Scale:
                    with pytest.raises(ValueError, match="no such tensor"):
                        build(describe(leaf), {type(leaf).__name__: type(leaf)} | architecture.LIBRARY)


class TestMemory:
    @pytest.mark.parametrize("nest", [False, True])
    def test_of_loading_is_twice_the_file(self, nest, path):
        net = bp.Sequential(bp.Linear(1000, 2000, initializer=bp.Constant(0.5)), bp.ReLU(), bp.Linear(2000, 1000))
        (bp.Sequential(bp.Sequential(bp.Residual(net))) if nest else net).save(path)
        tracemalloc.start()
        bp.Sequential.load(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= 2.1 * os.path.getsize(path)

    def test_of_saving_is_little(self, path):
        net = bp.Sequential(bp.Linear(1000, 2000, initializer=bp.Constant(0.5)))
        tracemalloc.start()
        net.save(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= 0.3 * os.path.getsize(path)  # the mask that says which numbers are finite


THINGS = (
    *(bp.SGD(0.1, momentum=0.5), bp.LeastSquares(), bp.Huber(0.5, reduction="sum"), bp.Pinball([0.1, 0.9])),
    *(bp.WarmUp(bp.CosineDecay(0.1, steps=10), steps=3), bp.MaxNorm(2.0), bp.Orthogonal(2.0)),
    bp.AdamW(bp.OneCycle(0.1, steps=10), weight_decay={"*.omega": 0.1}, clip_norm=1.0),
)


@pytest.mark.parametrize("thing", THINGS, ids=repr)
def test_other_things_are_class_and_arguments_too(thing):
    instead = {"learning_rate": thing.schedule} if isinstance(thing, bp.Optimizer) else {}
    assert repr(build(describe(thing, **instead))) == repr(thing)


class TestTable:
    FRAME = pd.DataFrame({"size": [40, 60, 50], "town": ["Köln", "Ulm", "Ulm"], "price": [9.0, 7.0, 8.0]})

    def test_travels_with_the_network(self, path):
        table = bp.Table(target="price")
        X, _ = table.fit(self.FRAME)
        net = bp.Sequential(bp.Linear(3, 1), seed=0)
        net.save(path, table=table)
        again = bp.Table.load(path)
        assert again.state() == table.state()
        assert_array_equal(again.transform(self.FRAME), X)
        assert_same(bp.Sequential.load(path), net)

    def test_that_is_not_there(self, path):
        bp.Sequential(bp.Linear(3, 1)).save(path)
        with pytest.raises(
            bp.FileFormatError, match=r"net\.safetensors: expected a network with its table.*table=table"
        ):
            bp.Table.load(path)

    def test_that_is_altered(self, path):
        table = bp.Table()
        table.fit(self.FRAME)
        bp.Sequential(bp.Linear(4, 1)).save(path, table=table)
        path.write_bytes(forge(path.read_bytes(), lambda about, _: about["table"].update(columns=[])))
        with pytest.raises(bp.FileFormatError, match=r"net\.safetensors: Table\.from_state"):
            bp.Table.load(path)

    def test_that_is_none(self, path):
        with pytest.raises(TypeError, match="table: a Table"):
            bp.Sequential(bp.Linear(3, 1)).save(path, table=self.FRAME)
        with pytest.raises(RuntimeError, match="fit"):
            bp.Sequential(bp.Linear(3, 1)).save(path, table=bp.Table())
        assert not path.exists()


def test_every_class_of_the_library_is_known_by_its_name():
    assert all(issubclass(thing, architecture.THINGS) for thing in architecture.LIBRARY.values())  # no functions
    for name in bp.__all__:
        thing = getattr(bp, name)
        if inspect.isclass(thing) and issubclass(thing, architecture.THINGS) and thing is not bp.Sequential:
            assert architecture.LIBRARY[name] is thing
