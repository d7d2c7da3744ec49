"""Networks, and whatever else is its class and its arguments, as plain data and back.

    {"class": "Residual", "arguments": {…}, "layers": {"layer": {"class": "Linear", "arguments": {"in_features": 4, …}}}}

Only classes are looked up by name, in the library and among those the caller passes; nothing is imported or executed by name.
Arguments are found as `notation.call` finds them, in attributes named as the constructor's parameters, and where a layer has no
such attribute, in what its constructor was called with.
"""

from __future__ import annotations

import inspect
import math
import reprlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from backprop import checks, constraints, initializers, layers, losses, optimizers, schedules
from backprop.around.held import adopt
from backprop.around.nesting import inside
from backprop.checks import Array
from backprop.files import container
from backprop.files.atomic import PathLike
from backprop.initializers import Initializer
from backprop.layers import BatchNorm, Embedding, InputScale, Layer, LayerNorm, Linear, MembersLinear, SeparateLinear
from backprop.layers.normalization import FrozenBatchNorm

TORCH_NAMES = {"omega": "weight", "gamma": "weight", "beta": "bias", "running_variance": "running_var"}
THINGS = (Layer, Initializer, losses.Loss, optimizers.Optimizer, schedules.Schedule, constraints.Constraint)
HOMES: tuple[ModuleType, ...] = (layers, initializers, losses, optimizers, schedules, constraints)
_NAMED = {name: getattr(home, name) for home in HOMES for name in home.__all__} | {"FrozenBatchNorm": FrozenBatchNorm}
LIBRARY = {name: each for name, each in _NAMED.items() if isinstance(each, type) and issubclass(each, THINGS)}
Data = dict[str, Any]
POSITIONAL, KEYWORDS = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD


def tensors(layer: Layer) -> dict[str, Array]:
    """Parameters and running statistics by PyTorch's names: "0.weight", "0.bias", ….

    >>> import backprop as bp
    >>> list(tensors(bp.Sequential(bp.Linear(2, 1))))
    ['0.bias', '0.weight']
    """
    names = torch_names([*layer.parameters, *layer.buffers])
    return {names[name]: array for name, array in {**layer.parameters, **layer.buffers}.items()}


def torch_names(names: Iterable[str]) -> dict[str, str]:
    """PyTorch's name for each of ours; a second one for the same tensor, as of a layer with both ω and γ, stays as it is."""
    theirs: dict[str, str] = {}
    taken = set()
    for name in names:
        layer, dot, own = name.rpartition(".")
        wanted = f"{layer}{dot}{TORCH_NAMES.get(own, own)}"
        theirs[name] = name if wanted in taken else wanted
        taken.add(theirs[name])
    return theirs


def describe(thing: Any, **instead: Any) -> Data:
    """Class and constructor arguments as plain data; `instead` gives arguments that are not attributes.

    Raises TypeError, with advice, for an argument that is not data.

    >>> import backprop as bp
    >>> describe(bp.StepDecay(0.1, every=10))
    {'class': 'StepDecay', 'arguments': {'learning_rate': 0.1, 'every': 10, 'factor': 0.1}}
    """
    kind, who = type(thing), getattr(thing, "label", repr(thing))
    if LIBRARY.get(kind.__name__, kind) is not kind:
        got = f"one named {kind.__name__}"
        raise TypeError(checks.message(who, "a class with a name of its own", got, "Rename it."))
    children = thing.children if isinstance(thing, Layer) else {}
    places = _places(kind, children)
    found = _arguments(thing, instead, places)
    data = {"class": kind.__name__, "arguments": {name: plain(who, name, value) for name, value in found.items()}}
    return data | {"layers": {key: describe(child) for key, child in children.items()}} if places else data


def build(data: Any, classes: Mapping[str, type] = LIBRARY, arrays: dict[str, Array] | None = None) -> Any:
    """What `describe` has described. The layers take their parameters and buffers from `arrays`, which then holds the others.

    `classes` are those it may be made of, by name. Raises ValueError or TypeError, before anything large is allocated for the
    library's layers, for what cannot be built or does not fit the arrays; an own class may raise anything.

    >>> build({"class": "StepDecay", "arguments": {"learning_rate": 0.1, "every": 10}})
    StepDecay(learning_rate=0.1, every=10)
    """
    return _Builder(classes, {} if arrays is None else arrays).thing(data, "")


def with_classes(who: str, classes: Iterable[type]) -> dict[str, type]:
    """The library's classes and others, by name. Raises TypeError or ValueError for what is none or has the name of another."""
    known: dict[str, type] = dict(LIBRARY)
    for each in classes:
        if not isinstance(each, type):
            raise TypeError(checks.message(who, "a list of classes", repr(each), "Pass the class, without ()."))
        if known.setdefault(each.__name__, each) is not each:
            raise ValueError(checks.message(who, "classes with names of their own", f"two named {each.__name__}"))
    return known


def save(net: Any, path: PathLike, table: Any, notes: Mapping[str, Any] | None, classes: Iterable[type]) -> None:
    """What `Sequential.save` writes: the network, and the `Table` its inputs come from, as one file."""
    who, arrays = f"{net.label}.save", tensors(net)
    require_finite(who, arrays)
    if table is not None and not hasattr(table, "state"):
        raise TypeError(checks.message(who, "table: a Table", repr(table)))
    data = describe(net)
    require_rebuilt(net, data, classes)
    about = {"network": data, "table": None if table is None else table.state()}
    if net.saves:
        container.write(path, "network", about if notes is None else about | {"notes": dict(notes)}, arrays)


def load(path: PathLike, kind: type, classes: Iterable[type]) -> Any:
    """The network of this class that `save` has saved, made of the library's classes and others."""
    known = with_classes("Sequential.load", classes)
    about, arrays = container.read(path, "network")
    try:
        require_finite("tensors", arrays)
        net = build(about.get("network"), known, arrays)
        if not isinstance(net, kind):
            raise ValueError(checks.message("network", f"a {kind.__name__}", f"a {type(net).__name__}"))
        if arrays:
            raise ValueError(checks.message("network", "the tensors of its layers", f"also {sorted(arrays)[:3]}"))
    except Exception as error:
        raise container.refusal(path, "a network", error) from error
    return net


def require_finite(who: str, arrays: Mapping[str, Array]) -> None:
    """Refuse NaN and inf among parameters and running statistics, naming the first tensor with one."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not checks.all_finite(array):
            raise ValueError(checks.message(who, f"finite numbers in {reprlib.repr(name)}", "nan or inf"))


def require_rebuilt(net: Layer, data: Data, classes: Iterable[type]) -> None:
    """Build a network with classes of one's own from its description, before that stands in a file and it is too late.

    Raises ValueError or TypeError if it is not the same then.
    """
    who = f"{net.label}.save"
    parts = (part for layer in inside(net) for part in (layer, *vars(layer).values()) if isinstance(part, THINGS))
    known = with_classes(who, [*classes, *map(type, parts)])
    own = sorted(known.keys() - with_classes(who, classes).keys())
    if not own:
        return
    expected, arrays = f"{', '.join(own)} to be made again from their arguments", tensors(net)
    advice = "Arguments, parameters and buffers must be all there is to a layer."
    try:
        again = tensors(build(data, known, {name: array.copy() for name, array in arrays.items()}))
    except Exception as error:
        raise ValueError(checks.message(who, expected, str(error).rstrip("."), advice)) from error
    if again.keys() != arrays.keys() or any((again[name] != array).any() for name, array in arrays.items()):
        raise ValueError(checks.message(who, expected, "other parameters or buffers", advice))


@cache
def _signature(constructor: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(constructor)


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    """Those of the constructor, without self."""
    return dict(list(_signature(kind.__init__).parameters.items())[1:])  # type: ignore[misc]


def _places(kind: type, keys: Iterable[str]) -> dict[str, str]:
    """Child -> the parameter it is handed in as: that of its name, or *layers. {} for a constructor that makes the children."""
    parameters = _parameters(kind)
    rest = next((name for name, parameter in parameters.items() if parameter.kind is POSITIONAL), None)
    places = {key: key if key in parameters else rest for key in keys}
    return {} if None in places.values() else places  # type: ignore[return-value]


def _arguments(thing: Any, instead: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    kind, found, called = type(thing), dict(instead), _called(thing)
    for name, parameter in _parameters(kind).items():
        drawn = name == "seed" and (places or kind is Linear)  # what was drawn is in the file, not to be drawn again
        if name in found or name in places.values() or drawn:
            continue
        # A property that every layer has, such as `size`, is not the argument of that name.
        own = name in vars(thing) or getattr(kind, name, None) is not getattr(Layer, name, None)
        if own or name in called:
            found[name] = getattr(thing, name) if own else called[name]
        elif parameter.default is parameter.empty and parameter.kind not in (POSITIONAL, KEYWORDS):
            advice = f"Write self.{name} = {name} in its __init__."
            expected = f"the constructor's argument {name!r} as an attribute"
            raise TypeError(checks.message(getattr(thing, "label", repr(thing)), expected, "none", advice))
    return found


def _called(thing: Any) -> dict[str, Any]:
    """Those arguments of the constructor that a layer has kept."""
    positional, named = vars(thing).get("_called", ((), {}))
    bound = _signature(type(thing).__init__).bind_partial(thing, *positional, **named).arguments
    return {name: value for name, value in bound.items() if not _has_gap(value)}


def _has_gap(value: Any) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
    return any(part is ... for part in parts)


def plain(who: str, name: str, value: Any) -> Any:
    """An argument as JSON has it, and `value` reads it; tuples, dicts and numbers that are not finite are marked as such.

    Raises TypeError, with `who` and `name`, for what is not data.
    """
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if type(value) in (list, tuple):
        parts = [plain(who, name, part) for part in value]
        return parts if type(value) is list else {"tuple": parts}
    if type(value) is dict and all(type(key) is str for key in value):
        return {"dict": {key: plain(who, name, part) for key, part in value.items()}}
    if isinstance(value, THINGS):
        return describe(value)
    advice = (
        "A file holds no code: write an Activation or a Layer that has it inside, arrays as parameters or buffers, and pass "
        "its class when loading."
    )
    raise TypeError(checks.message(who, "arguments that are data, to be saved", f"{name}={value!r}", advice))


def value(data: Any) -> Any:
    """What `plain` was given, for things of the library. Raises ValueError or TypeError for anything else.

    >>> value(plain("", "rates", (0.1, float("inf"))))
    (0.1, inf)
    """
    return _Builder(LIBRARY, {}).value(data)


class _Undrawn(Initializer):
    """Stands in for the initializer of a layer whose weights are known, so that none are drawn."""

    def __call__(self, shape: tuple[int, int], generator: np.random.Generator) -> Array:
        return np.broadcast_to(np.float32(0), shape)


class _Builder:
    """Makes things of data, layers with parameters and buffers that are taken out of `arrays`."""

    def __init__(self, classes: Mapping[str, type], arrays: dict[str, Array]) -> None:
        self.classes, self.arrays = classes, arrays
        self.dtypes: set[np.dtype[Any]] = set()  # of the parameters so far

    def thing(self, data: Any, prefix: str) -> Any:
        kind, arguments, children = self.parts(data)
        self.require_shapes(kind, arguments, prefix)
        made = _call(kind, arguments, {key: self.thing(child, f"{prefix}{key}.") for key, child in children.items()})
        if isinstance(made, Layer) and not children:
            self.fill(made, prefix)
        if hasattr(made, "phi") and self.dtypes:
            if not children:  # it has made its layers itself, and they have other arrays now
                made.bind(np.empty(made.size, max(self.dtypes)))
            if self.dtypes != {made.phi.dtype}:
                raise _error(f"parameters of {made.phi.dtype}", sorted(dtype.name for dtype in self.dtypes))
        return made

    def parts(self, data: Any) -> tuple[type, Data, Data]:
        """Class, arguments, and layers still as data."""
        parts = data if isinstance(data, dict) else {}
        name, arguments, children = parts.get("class"), parts.get("arguments"), parts.get("layers", {})
        if not (isinstance(name, str) and isinstance(arguments, dict) and isinstance(children, dict)):
            raise _error("class, arguments and layers", data)
        if name not in self.classes:
            advice = "Pass a class of your own when loading: classes=[MyClass]."
            raise _error("a class of the library, or one that was passed", name, advice)
        return self.classes[name], {key: self.value(value) for key, value in arguments.items()}, children

    def value(self, data: Any) -> Any:
        """The argument that `plain` made plain."""
        if isinstance(data, list):
            return [self.value(part) for part in data]
        if not isinstance(data, dict):
            return data
        if "class" in data:
            kind, arguments, children = self.parts(data)
            if children or issubclass(kind, Layer):
                raise _error("layers among the layers", data)
            return _call(kind, arguments, {})
        match data:
            case {"tuple": list(parts)}:
                return tuple(self.value(part) for part in parts)
            case {"dict": dict(named)}:
                return {key: self.value(part) for key, part in named.items()}
            case {"float": "inf" | "-inf" | "nan"}:
                return float(data["float"])
        raise _error("an argument", data)

    def require_shapes(self, kind: type, arguments: Data, prefix: str) -> None:
        """Compare the widths of the library's layers with the arrays, before they allocate anything of that width."""
        for own, shape in _shapes(kind, arguments):
            self.find(prefix + TORCH_NAMES.get(own, own), shape)

    def find(self, name: str, shape: tuple[Any, ...]) -> Array:
        """The array of this name, if it has that shape."""
        array = self.arrays.get(name)
        if array is None or array.shape != shape:
            raise _error(f"{name} of shape {shape}", "no such tensor" if array is None else array.shape)
        return array

    def fill(self, layer: Layer, prefix: str) -> None:
        """Hand a layer, or those that its constructor has made, their arrays."""
        for key, child in layer.children.items():
            self.fill(child, f"{prefix}{key}.")
        if layer.children:
            return
        names = torch_names([*layer.parameters, *layer.buffers])
        for own, array in list(layer.parameters.items()):
            name = prefix + names[own]
            adopt(layer, own, self.find(name, array.shape))
            self.dtypes.add(self.arrays.pop(name).dtype)
        for own, buffer in layer.buffers.items():
            name = prefix + names[own]
            if self.find(name, buffer.shape).dtype != buffer.dtype:
                raise _error(f"{name} of {buffer.dtype}", self.arrays[name].dtype)
            buffer[...] = self.arrays.pop(name)


def _shapes(kind: type, arguments: Data) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The shapes that arguments of the library's layers ask for, each to be compared before the next one is looked at."""
    if kind is Linear:
        yield "omega", (arguments.get("out_features"), arguments.get("in_features"))
        if arguments.get("bias", True):
            yield "beta", (arguments.get("out_features"),)
    elif kind in (BatchNorm, LayerNorm, FrozenBatchNorm):
        yield from ((name, (arguments.get("features"),)) for name in ("beta", "gamma"))
    elif kind is InputScale:
        yield "gamma", (arguments.get("features"),)
    elif kind is Embedding:
        widths, cardinalities = (arguments.get(name) for name in ("widths", "cardinalities"))
        if isinstance(widths, tuple) and isinstance(cardinalities, tuple):
            yield from ((f"omega_{j}", shape) for j, shape in enumerate(zip(widths, cardinalities, strict=False)))
    elif kind in (MembersLinear, SeparateLinear):
        D_in, D_out, k = (arguments.get(name) for name in ("inputs", "outputs", "members"))
        if type(D_in) is type(D_out) is type(k) is int:  # else the constructor has an error for it
            yield "beta", (D_out * k,)
            if kind is MembersLinear:
                yield from (("omega", (D_out, D_in)), ("r", (D_in * k,)), ("s", (D_out * k,)))
            else:
                yield from ((f"omega_{m}", (D_out, D_in)) for m in range(k))


def _call(kind: type, arguments: Data, children: Mapping[str, Layer]) -> Any:
    signature = _signature(kind.__init__)  # type: ignore[misc]
    me, *names = signature.parameters
    unknown = [name for name in arguments if name not in names]
    places = _places(kind, children)
    if unknown or len(places) < len(children):
        raise _error(f"arguments of {kind.__name__}", unknown or list(children))
    values = {me: None, **arguments}
    drawn_by = arguments.get("initializer")
    lazy = kind is Linear and isinstance(drawn_by, Initializer)
    if lazy:
        values["initializer"] = _Undrawn()
    for key, place in places.items():
        values[place] = children[key] if place == key else (*values.get(place, ()), children[key])
    bound = inspect.BoundArguments(signature, OrderedDict(values))
    made = kind(*bound.args[1:], **bound.kwargs)
    if lazy:
        made.initializer = drawn_by
    return made


def _error(expected: str, got: object, advice: str = "") -> ValueError:
    return ValueError(checks.message("architecture", expected, reprlib.repr(got), advice))
