"""Training in one file, to be taken up again where it was left, with the same bits as if it had never stopped.

    φ, running statistics, the optimizer's t and state    what a step reads and writes
    epochs, batches, the loss so far                      where the next step is, and what the epoch's record needs
    a schedule's memory, generators                       what else changes while training
    network, loss, optimizer, constraints, settings       as data (see `architecture`)
    the data's fingerprint                                with other data `fit` raises ValueError
    versions, BLAS, kernel, threads if they matter        with others `resume` warns

Shuffling and dropout need no state: they depend on (seed, epoch) and (seed, step, shard) alone.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
import reprlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import zip_longest
from typing import Any, TypeVar

import numpy as np

from backprop import checks, notation
from backprop.architecture import build, describe, require_finite, tensors, with_classes
from backprop.checks import Array
from backprop.engine import native, threads
from backprop.files import container
from backprop.files.atomic import PathLike
from backprop.layers import Layer
from backprop.losses import Loss
from backprop.optimizers import Optimizer
from backprop.schedules import Schedule
from backprop.sequential import Sequential
from backprop.training.callbacks import Callback
from backprop.training.data import Examples
from backprop.training.look import inside
from backprop.training.state import Position, Settings, State

KIND = "checkpoint"
STATE, CALLBACKS = "optimizer.", "callbacks."  # with which the names of arrays begin that are not the network's
NUMBERS = (bool, int, float, str, type(None))

Part = TypeVar("Part", Sequential, Loss, Optimizer)

after_save: list[Callable[[str, int], object]] = []  # told of each file that was written: its path, the optimizer's t


def save(state: State, path: PathLike) -> None:
    """Write the file of `Trainer.save`."""
    about: dict[str, Any] = {
        "net": described(state.net),
        "loss": described(state.loss),
        "optimizer": described(state.optimizer),
        "settings": dataclasses.asdict(state.settings),
        "constraints": {pattern: describe(each) for pattern, each in state.constraints.items()},
        "memory": memory(state.optimizer),
        "generators": {name: as_lists(g.bit_generator.state) for name, g in generators(state.net)},
        "position": dataclasses.asdict(state.position),
        "data": state.data,
        "machine": machine(state.settings),
        "notes": state.notes,
        "callbacks": [],
    }
    found = arrays(state.net, state.optimizer)
    for i, (name, remembered) in enumerate(state.callbacks):
        found |= {f"{CALLBACKS}{i}.{key}": value for key, value in remembered.items() if isinstance(value, np.ndarray)}
        numbers = {key: as_json(value) for key, value in remembered.items() if not isinstance(value, np.ndarray)}
        about["callbacks"].append([name, numbers])
    require_finite("Trainer.save", found)
    container.write(path, KIND, about, found)
    for told in after_save:
        told(os.fspath(path), state.optimizer.t)


def arrays(net: Sequential, optimizer: Optimizer) -> dict[str, Array]:
    """Everything a step reads and writes, by the name it has in the file; a network's tensors begin with the key of a layer."""
    return tensors(net) | {STATE + name: array for name, array in optimizer.state.items()}


def described(part: Sequential | Loss | Optimizer) -> dict[str, Any]:
    """Its name, line by line, and itself as data; where it is none, `resume` has to be given the object."""
    instead = {"learning_rate": part.schedule} if isinstance(part, Optimizer) else {}
    data, reason = as_data(part, **instead)
    return {"name": list(outline(part)) if isinstance(part, Layer) else [repr(part)], "data": data, "reason": reason}


def as_data(thing: object, **instead: Any) -> tuple[dict[str, Any] | None, str]:
    """What `build` makes it of again, or None and the reason."""
    try:
        return describe(thing, **instead), ""
    except TypeError as error:
        return None, str(error)


def outline(layer: Layer) -> Iterator[str]:
    """A line for a layer and for each inside it."""
    for path, each in inside(layer, "net"):
        arguments = not each.children and as_data(each)[0]
        yield f"{path} = {notation.call(each) if arguments else each.label}"


def memory(thing: Optimizer | Schedule) -> dict[str, Any]:
    """What it remembers of the steps behind it: attributes that are numbers or words and no arguments of its class."""
    arguments = inspect.signature(type(thing).__init__).parameters
    found: dict[str, Any] = {}
    for name, value in vars(thing).items():
        if isinstance(value, Schedule):
            found[name] = memory(value)
        elif isinstance(value, (NUMBERS, np.generic)) and name not in arguments:
            found[name] = as_json(value)
    return found


def as_json(value: Any) -> Any:
    """A number or word; [text] for a number that is not finite, for which JSON has no word. Raises TypeError for other things."""
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, bool | int | float | str | dict | None):
        raise TypeError(checks.message("Trainer.save", "states of numbers, words and arrays", reprlib.repr(value)))
    return [repr(value)] if isinstance(value, float) and not math.isfinite(value) else value


def from_json(value: Any) -> Any:
    """What `as_json` was given."""
    return float(value[0]) if isinstance(value, list) else value


def remember(thing: Optimizer | Schedule, found: Mapping[str, Any]) -> None:
    """Put back what `memory` found. Raises ValueError for what is of another kind than it has."""
    for name, value in found.items():
        before = vars(thing).get(name)
        kind = type(before) if isinstance(before, np.generic) else None  # a number of NumPy comes back as one
        before = before.item() if isinstance(before, np.generic) else before
        if isinstance(value, dict) and isinstance(before, Schedule):
            remember(before, value)
        elif name in vars(thing):
            value = from_json(value)
            if not isinstance(value, NUMBERS) or (None not in (before, value) and kind_of(before) != kind_of(value)):
                raise ValueError(checks.message(repr(thing), f"{name} like {before!r}", reprlib.repr(value)))
            setattr(thing, name, value if kind is None or value is None else kind(value))
    if isinstance(thing, Optimizer):
        checks.integer(repr(thing), "t", thing.t, least=0)


def kind_of(value: Any) -> str:
    """Number, or the class."""
    return "number" if type(value) in (int, float) else type(value).__name__


def generators(layer: Layer) -> Iterator[tuple[str, np.random.Generator]]:
    """The generators of a layer and those inside it, by place."""
    for path, each in inside(layer):
        for name, value in vars(each).items():
            if isinstance(value, np.random.Generator):
                yield f"{path}.{name}" if path else name, value


def as_lists(state: Any) -> Any:
    """A generator's state without arrays."""
    if isinstance(state, Mapping):
        return {name: as_lists(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state


def machine(settings: Settings | None = None) -> dict[str, str]:
    """What else decides the last bits: versions, the BLAS and its kernels, and, unless it is all the same, threads."""
    import scipy

    version = import_module("backprop").__version__  # an import would go up the floors
    found = {"backprop": version, "numpy": np.__version__, "scipy": scipy.__version__}
    for library in sorted((library.info() for library in threads._blas_libraries()), key=lambda info: info["filepath"]):
        name = f"BLAS of {os.path.basename(library['filepath'])}"
        found[name] = " ".join(str(library.get(key)) for key in ("internal_api", "version", "architecture"))
    found["vector instructions"] = " ".join(np.show_config(mode="dicts")["SIMD Extensions"].get("found", []))
    in_shards = settings is None or (not isinstance(settings.shards, str) and settings.shards > 1)
    if settings is not None and not (settings.deterministic or in_shards or native.player is not None):
        found["threads"] = str(threads.cores() if settings.threads == "auto" else settings.threads)
    return found


def check_data(who: str, expected: Mapping[str, Any], examples: Examples) -> None:
    """Refuse other data than those of the file, naming the first thing that differs."""
    found = examples.fingerprint()
    for name, value in expected.items():
        if found.get(name) != value:
            advice = "Training goes on with the same data; Trainer.resume(…, other_data=True) allows others."
            raise ValueError(checks.message(who, f"{name} {value}, as in the file", f"{found.get(name)}", advice))


def check_machine(who: str, expected: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Warn of the first thing that may change bits."""
    for name in {**expected, **found}:
        if expected.get(name) != found.get(name):
            advice = "Training goes on, but its last bits may not be those of a run that never stopped."
            wanted = f"{name} {expected.get(name, 'missing')}, as where it was saved"
            text = checks.message(who, wanted, found.get(name, "none"), advice)
            warnings.warn(text, stacklevel=3)
            return


def load(
    path: PathLike, classes: Iterable[type], net: Sequential | None, loss: Loss | None, optimizer: Optimizer | None
) -> tuple[State, dict[str, str]]:
    """The state in a file, and the machine it was saved on. What is handed in stays as it is until the whole file fits."""
    known = with_classes("Trainer.resume", [Sequential, *classes])
    about, found = container.read(path, KIND)
    name = os.fspath(path)
    weights = {tensor: array for tensor, array in found.items() if not tensor.startswith((STATE, CALLBACKS))}
    try:
        net = part(name, "net", about["net"], net, known, weights)
        loss = part(name, "loss", about["loss"], loss, known)
        optimizer = part(name, "optimizer", about["optimizer"], optimizer, known)
        found.pop(f"{STATE}velocity_before", None)  # Nesterov's rule kept it in version 0.1
        check_arrays(net, optimizer, found)
        require_finite("Trainer.resume", found)
        constraints = {pattern: build(each, known) for pattern, each in about["constraints"].items()}
        there = {str(each): str(version)[:200] for each, version in about["machine"].items()}
        state = State(net, loss, optimizer, Settings(**about["settings"]), constraints)
        put(state, about, found)
    except Missing as error:
        raise TypeError(str(error)) from None
    except Exception as error:
        raise container.refusal(path, "a checkpoint", error) from error
    return state, there


class Missing(Exception):
    """An argument that this file needs."""


def part(
    path: str, name: str, stored: Mapping[str, Any], given: Part | None, known: Mapping[str, type], weights: Any = ()
) -> Part:
    """The network, loss or optimizer of the file: the one that was handed in if it is the same, else a new one."""
    if given is None:
        if stored["data"] is None:
            raise Missing(checks.message(f"Trainer.resume({path!r})", f"{name}=…", "none", stored["reason"]))
        return build(stored["data"], known, dict(weights))
    for saved, line in zip_longest(stored["name"], described(given)["name"], fillvalue="nothing"):
        if saved != line:
            raise ValueError(checks.message("Trainer.resume", f"{saved}, as in the file", line))
    return given


def check_arrays(net: Sequential, optimizer: Optimizer, found: Mapping[str, Array]) -> None:
    """Refuse arrays of another network or optimizer, naming the first."""
    like_phi = {STATE + name: net.phi for name in optimizer.slots if STATE + name in found}
    expected = tensors(net) | like_phi
    for name in [*expected, *(name for name in found if not name.startswith(CALLBACKS))]:
        shapes = [f"shape {a[name].shape} of {a[name].dtype}" if name in a else "none" for a in (found, expected)]
        if shapes[0] != shapes[1]:
            raise ValueError(checks.message("Trainer.resume", f"{name} with {shapes[0]}, as in the file", shapes[1]))


def put(state: State, about: Mapping[str, Any], found: Mapping[str, Array]) -> None:
    """Write what the file holds to the parts of a new state."""
    net, optimizer = state.net, state.optimizer
    state.position = position_of(**about["position"])
    for name in ("data", "notes"):
        if not isinstance(about[name], dict | None):
            raise ValueError(checks.message("Trainer.resume", f"{name} by name", reprlib.repr(about[name])))
    state.data, state.notes = about["data"], about["notes"] or {}
    for i, (name, numbers) in enumerate(about["callbacks"]):
        start = f"{CALLBACKS}{i}."
        arrays_ = {key[len(start) :]: array for key, array in found.items() if key.startswith(start)}
        state.callbacks.append((name, arrays_ | {key: from_json(value) for key, value in numbers.items()}))
    # In 0.1 their names had an underscore.
    known = {name.replace("._", "."): each for name, each in (about["generators"] or {}).items()}
    states = [(generator, known[name.replace("._", ".")]) for name, generator in generators(net)]
    for generator, each in states:
        generator.bit_generator.state = each
    remember(optimizer, about["memory"])
    optimizer.state = {name[len(STATE) :]: array for name, array in found.items() if name.startswith(STATE)}
    for name, array in tensors(net).items():
        array[...] = found[name]


def position_of(epoch: int, batch: int, **numbers: float) -> Position:
    """A position of numbers that training can go on from."""
    who = "position"
    epoch, batch = (checks.integer(who, name, n, least=0) for name, n in (("epoch", epoch), ("batch", batch)))
    return Position(epoch, batch, **{name: checks.number(who, name, value) for name, value in numbers.items()})


def go_on(waiting: list[tuple[str, dict[str, Any]]], callbacks: Sequence[Callback]) -> None:
    """Give the callbacks that have just started what those of the file remembered, each the first left of its class."""
    for callback in callbacks:
        of_its_class = [each for each in waiting if each[0] == type(callback).__name__]
        if of_its_class:
            waiting.remove(of_its_class[0])
            callback.go_on(dict(of_its_class[0][1]))
    waiting.clear()
