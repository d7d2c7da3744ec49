"""The tests of the library as others use them: every part of ours passes, every planted fault is found and named."""

from __future__ import annotations

import inspect
import subprocess
import sys

import mutants
import numpy as np
import pytest
from helpers import Scale
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from tables import LAYERS, LOSSES, OPTIMIZERS, spread

import backprop as bp
from backprop import testing

F, Y = spread((3, 8), seed=1), spread((3, 8), seed=2)  # outputs and targets
LABELS = np.array([0, 1, 2, 0, 0, 2, 0, 1])


class NoiseInInference(bp.Layer):
    """h + ε, with a generator kept as an attribute."""

    keeps_width = True

    def __init__(self):
        self.generator = np.random.default_rng(0)

    def forward(self, h):
        return h + self.generator.normal(size=h.shape).astype(h.dtype)

    def backward(self, dL_df):
        return dL_df.copy(), {}


class NotFrozen(NoiseInInference):
    def infer(self, h):
        return h.copy()


class Noise(NotFrozen):
    """The right one: no noise in inference, and it says what that is in training."""

    def frozen(self):
        return bp.Identity()


class TracedNoise(Noise):
    traced = True


class NoiseByItsOwnMethod(Noise):
    """A generator where nobody looks, and `reseed` to set it."""

    def __init__(self):
        self.of = [np.random.default_rng(0)]

    def reseed(self, *key):
        self.of[0] = np.random.default_rng(key)

    def forward(self, h):
        return h + self.of[0].normal(size=h.shape).astype(h.dtype)


class NoiseWithoutReseed(Noise):
    def __init__(self):
        self.of = [np.random.default_rng(0)]

    def forward(self, h):
        return h + self.of[0].normal(size=h.shape).astype(h.dtype)


class Centred(bp.Layer):
    """h − mean over the batch; says nothing of it."""

    keeps_width = True

    def forward(self, h):
        return h - h.mean(axis=1, keepdims=True)

    def backward(self, dL_df):
        return dL_df - dL_df.mean(axis=1, keepdims=True), {}


class CentredAndSaysSo(Centred):
    couples_examples = True


class Attribute(Scale):
    """A right layer that reads its parameter from an attribute."""

    def __init__(self):
        self.omega = np.full((4, 1), 1.5)
        self.parameters = {"omega": self.omega}

    def forward(self, h):
        self.h = h
        return self.omega * h


class Halves(bp.Composite):
    """A right composite: h/2 through one layer."""

    keeps_width = True

    def __init__(self):
        self.layers = {"inner": bp.Linear(4, 4, seed=0)}

    def forward(self, h):
        return self.layers["inner"].forward(h / 2)

    def backward(self, dL_df):
        dL_dh, gradients = self.backward_child("inner", dL_df)
        return dL_dh / 2, gradients


class Logarithm(bp.Layer):
    """A right layer that takes positive numbers only."""

    keeps_width = True

    def forward(self, h):
        self.h = h
        return np.log(h)

    def backward(self, dL_df):
        return dL_df / self.h, {}


class CachesInADict(Scale):
    """Right: a twin has lists and dicts of its own."""

    def __init__(self):
        super().__init__()
        self.cache = {}

    def forward(self, h):
        self.cache["h"] = [h]
        return self.omega * h

    def backward(self, dL_df):
        return self.omega * dL_df, {"omega": (dL_df * self.cache["h"][0]).sum(axis=1, keepdims=True)}


class Traced(Scale):
    traced = True


class TracedCache(CachesInADict):
    traced = True


class TracedBuffers(Traced):
    """A running mean that nobody uses, written in each of the ways there are."""

    traced = True

    def __init__(self, features=4):
        super().__init__(features)
        self.buffers |= {name: np.zeros((features, 1)) for name in "abc"}

    def forward(self, h):
        m = h.mean(axis=1, keepdims=True)
        self.a = 0.9 * self.a + 0.1 * m
        self.b += 0.1 * (m - self.b)
        self.buffers["c"][...] = self.a - self.b
        return super().forward(h)

    def infer(self, h):
        return self.omega * h


class TracedArray(Traced):
    """The largest so far, in an array that is written in place and does not change f."""

    traced = True

    def __init__(self, features=4):
        super().__init__(features)
        self.largest = np.zeros((features, 1))

    def forward(self, h):
        self.largest[...] = np.maximum(self.largest, h.real.max(axis=1, keepdims=True))
        return super().forward(h)


class TracedSettings(Traced):
    """Numbers, words, arrays and shapes may decide, as long as they are not those of a pass."""

    traced = True

    def __init__(self, features=4):
        super().__init__(features)
        self.rate, self.word, self.steps = 0.5, "twice", [1, 2]
        self.array = np.linspace(-1, 1, features)[:, None]

    def factor(self, h):
        made = self.rate * sum(self.steps) if self.word == "twice" and h.shape[1] > 1 and self.rate else 1.0
        return made * np.random.default_rng(0).random((len(h), 1)).astype(h.real.dtype)

    def forward(self, h):
        self.c = self.factor(h) + self.array.astype(h.real.dtype) * len(h)
        return super().forward(self.c * h)

    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        return self.c * dL_dh, gradients


class TracedActivation(bp.Activation):
    traced = True

    def value(self, h):
        return np.where(h.real > 0, np.log1p(h * h), np.sin(h))

    def slope(self, h, f):
        return np.where(h.real > 0, 2 * h / (1 + h * h), np.cos(h))


class TracedHalves(Halves):
    traced = True


RIGHT = {
    "Scale": (Scale, spread((4, 9))),
    "Scale of one example": (Scale, spread((4, 1))),
    "Attribute": (Attribute, spread((4, 9))),
    "Noise": (Noise, spread((4, 9))),
    "Noise by reseed": (NoiseByItsOwnMethod, spread((4, 9))),
    "a cache in a dict": (CachesInADict, spread((4, 9))),
    "coupled": (CentredAndSaysSo, spread((4, 9))),
    "a composite": (Halves, spread((4, 3))),
    "positive inputs": (Logarithm, np.abs(spread((4, 9))) + 0.1),
    "float32": (Scale, spread((4, 3)).astype(np.float32)),
    "whole numbers": (Scale, np.arange(12).reshape(4, 3)),
    "many examples": (Scale, spread((4, 60))),
    "wide": (lambda: bp.Linear(30, 20, seed=0), spread((30, 5))),
    "a vector": (Scale, spread((4,))),
}
RIGHT |= {kind.__name__: (kind, spread((4, 9))) for kind in (Traced, TracedCache, TracedBuffers, TracedArray)}
RIGHT |= {
    kind.__name__: (kind, spread((4, 9))) for kind in (TracedSettings, TracedNoise, TracedActivation, TracedHalves)
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_layers_pass(name):
    make, h = RIGHT[name]
    testing.assert_layer(make(), h)


@pytest.mark.parametrize("shape", [(4,), (4, 9)], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_of_the_library_passes(name, shape):
    testing.assert_layer(LAYERS[name](4), spread(shape))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("K", [2, 3])
def test_every_loss_of_the_library_passes(name, K):
    row, generator = LOSSES[name], np.random.default_rng(K)
    f = generator.normal(0, 1.5, (K * row.outputs, 6))
    testing.assert_loss(row.make(), f, row.target(generator, K, 6))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_the_library_passes(name):
    kind, settings = OPTIMIZERS[name]
    testing.assert_optimizer(kind(**settings))


# The gradient check names most mistakes; a few are found before it, by the state they leave.
STATES = {
    "infer writes over the cache": "the same gradients after infer",
    "the cache used up": "an f that backward does not write over",
    "the mask drawn again": "the same gradients after a first backward",
    "the last example forgotten": "wrong in example 6 alone",  # of the seven that are drawn
    "∂L/∂Ω accumulates": "the same gradients after a first backward",
    "a loss with old targets": "what a new loss gives",
    "wrong for one example": "another gradient for a batch of 1",
    "wrong for even numbers of examples": "another gradient for a batch of 2",
    "wrong in Fortran's order": "the same from F-ordered arrays",
    "entries by their place in memory": "the same from F-ordered arrays",
    "∂L/∂f written over": "h and ∂L/∂f as they were handed in",
    "h written over on the way back": "h and ∂L/∂f as they were handed in",
    "a cache of the class": "the same gradients after a pass of a copy",
    "Ω of the first pass": "what a new layer with this φ gives",
    "a buffer of the largest batch": "float32 from float32 parameters",
    "a loss wrong for many examples": "another gradient for a batch of 7",
    "a loss with a cache of the class": "the same after per_example",
}


def makers(report):
    """Name -> what makes the layers or losses of the mutants that are made by `report`."""
    return {
        name: inspect.getclosurevars(mutant.report).nonlocals["make"]
        for name, mutant in mutants.MUTANTS.items()
        if mutant.report.__qualname__.startswith(f"{report.__name__}.")
    }


def fault_of(check, *arguments):
    """The text of the AssertionError."""
    with pytest.raises(AssertionError) as caught:
        check(*arguments)
    return " ".join(str(caught.value).split())


@pytest.mark.parametrize("name", makers(mutants.of_layer))
def test_every_faulty_layer_fails_and_its_fault_is_named(name):
    make = makers(mutants.of_layer)[name]
    text = fault_of(testing.assert_layer, make(), spread((4, 5)))
    words = STATES.get(name, mutants.MUTANTS[name].words)
    assert any(word in text for word in words.split("|")), text
    assert text.startswith(make().label)
    assert ": expected " in text
    assert ", got " in text


@pytest.mark.parametrize("name", makers(mutants.of_loss))
def test_every_faulty_loss_fails_and_its_fault_is_named(name):
    make = makers(mutants.of_loss)[name]
    y = LABELS if make is mutants.TargetTwice else Y
    assert STATES.get(name, mutants.MUTANTS[name].words) in fault_of(testing.assert_loss, make(), F, y)


class ReusesItsOutput(Scale):
    def forward(self, h):
        self.h = h
        if getattr(self, "room", np.empty(0)).shape != h.shape:
            self.room = np.empty_like(h)
        return np.multiply(self.parameters["omega"], h, out=self.room)


class ReusesItsGradient(Scale):
    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        self.room = getattr(self, "room", gradients["omega"])
        self.room[...] = gradients["omega"]
        return dL_dh, {"omega": self.room}


class WritesOverTheSlope(Scale):
    def backward(self, dL_df):
        dL_domega = (dL_df * self.h).sum(axis=1, keepdims=True)
        dL_df *= self.parameters["omega"]
        return dL_df, {"omega": dL_domega}


class WritesOverItsParameter(Scale):
    def forward(self, h):
        self.parameters["omega"] /= np.linalg.norm(self.parameters["omega"])
        return super().forward(h)


class KeepsItsParameterElsewhere(Scale):
    def __init__(self):
        super().__init__()
        self.own = self.parameters["omega"].copy()

    def forward(self, h):
        self.h = h
        return self.own * h


class GoesBackThroughAnotherParameter(KeepsItsParameterElsewhere):
    forward = Scale.forward

    def backward(self, dL_df):
        return self.own * dL_df, super().backward(dL_df)[1]


class KeepsWhatItMadeOfItsParameter(Scale):
    """Right until φ moves."""

    def forward(self, h):
        self.made = getattr(self, "made", self.parameters["omega"].copy())
        return super().forward(h)

    def backward(self, dL_df):
        return self.made * dL_df, super().backward(dL_df)[1]


class Widens(Scale):
    def forward(self, h):
        return super().forward(h.astype(float) if h.dtype.kind == "f" else h)


class CachesInTheClass(Scale):
    cache = {}  # noqa: RUF012

    def forward(self, h):
        self.cache["h"] = h
        return self.parameters["omega"] * h

    def infer(self, h):
        return self.parameters["omega"] * h

    def backward(self, dL_df):
        return self.parameters["omega"] * dL_df, {"omega": (dL_df * self.cache["h"]).sum(axis=1, keepdims=True)}


class Record:
    """What is no array, list, dict or layer is one for a layer and its twins."""


class CachesInAnObject(Scale):
    def __init__(self):
        super().__init__()
        self.cache = Record()

    def forward(self, h):
        self.cache.h = h
        return self.omega * h

    def infer(self, h):
        return self.omega * h

    def backward(self, dL_df):
        return self.omega * dL_df, {"omega": (dL_df * self.cache.h).sum(axis=1, keepdims=True)}


class CachesInAnObjectAndInfersByDefault(CachesInAnObject):
    infer = bp.Layer.infer


class CopiesAreOne(Scale):
    def __deepcopy__(self, memo):
        return self


class CopiesShare(Scale):
    def copy(self):
        twin = super().copy()
        twin.parameters["omega"] = self.parameters["omega"]
        return twin


class InfersSomethingElse(Scale):
    def infer(self, h):
        return 2 * h


class SaysItIsWider(Scale):
    out_features = 7


class SaysItKeepsWidth(bp.FanOut):
    keeps_width = True


class Rows(Scale):
    def forward(self, h):
        return super().forward(h).T

    def backward(self, dL_df):
        return super().backward(dL_df.T)


class GradientOfAnotherName(Scale):
    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        return dL_dh, {"weight": gradients["omega"]}


class GradientOfAnotherShape(Scale):
    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        return dL_dh, {"omega": gradients["omega"].ravel()}


class GradientsForgotten(Scale):
    def backward(self, dL_df):
        return super().backward(dL_df)[0]


class OneBatchSize(Scale):
    def forward(self, h):
        self.room = getattr(self, "room", np.empty_like(h))
        return np.multiply(1, super().forward(h), out=self.room).copy()


class OnlyForSingles(Scale):
    def forward(self, h):
        return super().forward(h.reshape(-1, 1))


class ReadsMemory(Scale):
    def forward(self, h):
        self.h = h.ravel(order="K").reshape(h.shape)
        return self.parameters["omega"] * self.h


class Counts(Scale):
    """Another f each time."""

    calls = 0

    def forward(self, h):
        self.calls += 1
        return super().forward(h) * self.calls


class ForgetsHowManyExamples(bp.Tanh):
    """Wrong in large batches alone."""

    def backward(self, dL_df):
        dL_dh, gradients = super().backward(dL_df)
        return dL_dh / (2 if dL_df.shape[1] > 8 else 1), gradients


FAULTS = {
    mutants.WritesOverItsInput: "h and ∂L/∂f as they were handed in, got h",
    ReusesItsOutput: "what is returned: expected arrays that no later pass writes over, got f",
    ReusesItsGradient: "arrays that no later pass writes over, got ∂L/∂omega",
    WritesOverTheSlope: "what is handed in: expected h and ∂L/∂f as they were handed in, got ∂L/∂f",
    WritesOverItsParameter: "repetition: expected φ as it was before a pass",
    KeepsItsParameterElsewhere: "parameters: expected another f when 'omega' changes in φ, got the same f",
    GoesBackThroughAnotherParameter: "gradients: expected backward to be the derivative",
    KeepsWhatItMadeOfItsParameter: "parameters: expected what a new layer with this φ gives, got ∂L/∂h",
    Widens: "dtypes: expected float32 from float32 parameters and h, got f of float64",
    CachesInTheClass: "the same gradients after a pass of a copy",
    CachesInAnObject: "the same gradients after a pass of a twin",
    CachesInAnObjectAndInfersByDefault: "the same gradients after infer",
    CopiesAreOne: "copies: expected a copy() with parameters of its own",
    CopiesShare: "copies: expected a copy() with parameters of its own, got one that shares 'omega'",
    NoiseWithoutReseed: "repetition: expected the same f from the same h",
    NoiseInInference: "inference: expected the same f from infer each time",
    NotFrozen: "inference: expected frozen() to compute what infer does",
    InfersSomethingElse: "inference: expected infer to agree with forward",
    SaysItIsWider: "shapes: expected f with out_features = 7 rows, got 4",
    Rows: "shapes: expected no error, got ValueError: Rows().forward: expected f with 7 columns for 7 examples",
    GradientOfAnotherName: "got ValueError: GradientOfAnotherName().backward: expected gradients named ['omega']",
    GradientOfAnotherShape: "expected gradient 'omega' with shape (4, 1), got shape (4,)",
    GradientsForgotten: "expected a pair (dL_dh, gradients)",
    OneBatchSize: "stale cache: after a forward pass over fewer examples, the next passes fail",
    OnlyForSingles: "expected no error, got ValueError",
    ReadsMemory: "memory order: expected the same from",
    Counts: "repetition: expected the same f",
    Centred: "set couples_examples = True",
    ForgetsHowManyExamples: "another gradient for a batch of 9",
}


class CountsPasses(Scale):
    """Wrong in nothing but the promise: f does not depend on it."""

    traced = True

    def __init__(self, features=4):
        super().__init__(features)
        self.calls = 0

    def forward(self, h):
        self.calls += 1
        return super().forward(h)


class KeepsTheLargest(Traced):
    """State in an array that is no buffer."""

    traced = True

    def __init__(self, features=4):
        super().__init__(features)
        self.largest = np.zeros((features, 1))

    def forward(self, h):
        self.largest = np.maximum(self.largest, h.real.max(axis=1, keepdims=True))
        return super().forward(h)


class DrawsElsewhere(Traced):
    """The draws do not matter for f, but they are another constant each time."""

    traced = True

    def forward(self, h):
        return super().forward(h) + 1e-30 * np.random.default_rng().random(h.shape).astype(h.real.dtype)


class DrawsNoise(Traced):
    traced = True

    def forward(self, h):
        return super().forward(h) + np.random.default_rng().random(h.shape).astype(h.real.dtype)


class Decides(Traced):
    traced = True

    def forward(self, h):
        self.c = 2.0 if h.real.sum() > 0 else 3.0
        return self.c * super().forward(h)

    def backward(self, dL_df):
        return super().backward(self.c * dL_df)


class DecidesByParameters(Decides):
    traced = True

    def forward(self, h):
        self.c = 2.0 if self.omega.real.max() > 0 else 3.0
        return self.c * Traced.forward(self, h)


class DecidesInSecret(Decides):
    """Catches what the trace says of its decision."""

    traced = True

    def forward(self, h):
        try:
            self.c = 2.0 if h.real.sum() > 0 else 3.0
        except Exception:
            self.c = 2.0
        return self.c * Traced.forward(self, h)


class ReadsNumbers(Decides):
    traced = True

    def forward(self, h):
        self.c = 1.0 + float(np.abs(h.real).max() > 100)
        return self.c * Traced.forward(self, h)


class TakesAMask(Traced):
    traced = True

    def forward(self, h):
        f = super().forward(h)
        f[h.real > 100] = 0
        return f


class MakesAnotherArray(Traced):
    traced = True

    def forward(self, h):
        return super().forward(np.asarray(h))


class ReadsASettingInSecret(Traced):
    traced = True

    def __init__(self, features=4):
        super().__init__(features)
        self.rate = 0.5

    def forward(self, h):
        return object.__getattribute__(self, "rate") * super().forward(h)

    def backward(self, dL_df):
        return super().backward(object.__getattribute__(self, "rate") * dL_df)


class TracedRows(Rows):
    traced = True


class TracedGradientOfAnotherName(GradientOfAnotherName):
    traced = True


class TracedGradientOfAnotherShape(GradientOfAnotherShape):
    traced = True


class TracedGradientsForgotten(GradientsForgotten):
    traced = True


ALWAYS = "traced: expected passes whose calls are always the same, as traced = True says, got"
TRACED_FAULTS = {
    CountsPasses: f"{ALWAYS} tests/test_testing.py:",
    KeepsTheLargest: f"{ALWAYS} tests/test_testing.py:",
    DrawsElsewhere: f"{ALWAYS} tests/test_testing.py:",
    DrawsNoise: "repetition: expected the same f from the same h",
    Decides: f"{ALWAYS} tests/test_testing.py:",
    DecidesByParameters: f"{ALWAYS} tests/test_testing.py:",
    DecidesInSecret: f"{ALWAYS} tests/test_testing.py:",
    ReadsNumbers: f"{ALWAYS} tests/test_testing.py:",
    TakesAMask: f"{ALWAYS} tests/test_testing.py:",
    MakesAnotherArray: f"{ALWAYS} tests/test_testing.py:",
    ReadsASettingInSecret: "by hand, with another rate after the first, got φ that differs",
    TracedRows: "shapes: expected f with 7 columns for 7 examples, got shape (7, 4)",
    TracedGradientOfAnotherName: "expected gradients named ['omega']",
    TracedGradientOfAnotherShape: "expected gradient 'omega' with shape (4, 1), got shape (4,)",
    TracedGradientsForgotten: "expected a pair (dL_dh, gradients)",
}


@pytest.mark.parametrize("kind", TRACED_FAULTS, ids=lambda kind: kind.__name__)
def test_every_broken_promise_of_traced_is_named(kind):
    text = fault_of(testing.assert_layer, kind(), spread((4, 9)))
    assert TRACED_FAULTS[kind] in text
    if ALWAYS in TRACED_FAULTS[kind]:
        assert "cannot be traced." in text
        assert text.endswith(". Or leave `traced` out.")
        assert ".." not in text


@pytest.mark.parametrize("kind", [kind for kind, text in TRACED_FAULTS.items() if ALWAYS in text])
def test_without_traced_it_is_right(kind):
    free = type(f"Free{kind.__name__}", (kind,), {"traced": False})
    testing.assert_layer(free(), spread((4, 9)))


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_every_broken_promise_is_named(kind):
    assert FAULTS[kind] in fault_of(testing.assert_layer, kind(), spread((4, 9)))


def test_a_width_that_is_not_kept():
    with pytest.raises(AssertionError, match="f with the 4 rows of h, as keeps_width says, got 8"):
        testing.assert_layer(SaysItKeepsWidth(bp.Tanh(), bp.Sin()), spread((4, 3)))


def test_the_layer_is_left_alone():
    layer, h = bp.Linear(4, 3, seed=0), spread((4, 5))
    h.setflags(write=False)
    f = layer.forward(h)
    expected = layer.backward(np.ones_like(f))
    before = layer.parameters["omega"].copy()
    testing.assert_layer(layer, h)
    assert_array_equal(layer.parameters["omega"], before)
    assert_array_equal(layer.backward(np.ones_like(f))[0], expected[0])
    bp.Sequential(layer)  # and it belongs to no network yet


def test_the_error_behind_a_fault_is_kept():
    with pytest.raises(AssertionError) as caught:
        testing.assert_layer(OnlyForSingles(), spread((4, 9)))
    assert isinstance(caught.value.__cause__, ValueError)


class DividesByTheBatch(mutants.Squares):
    def ell(self, f, y):
        return super().ell(f, y) / f.shape[1]

    def dell_df(self):
        return 2 * self.d / self.d.shape[1]


class PerExampleDisturbs(mutants.Squares):
    def per_example(self, f, y):
        return self.ell(f, self.targets(y, f.shape))


class CachesInADictLoss(mutants.Squares):
    def __init__(self):
        super().__init__()
        self.cache = {}

    def ell(self, f, y):
        self.cache["d"] = f - y
        return (self.cache["d"] ** 2).sum(axis=0)

    def dell_df(self):
        return 2 * self.cache["d"]

    def per_example(self, f, y):
        return ((f - y) ** 2).sum(axis=0)


class WritesOverTargets(mutants.Squares):
    def ell(self, f, y):
        y -= f
        self.d = -y
        return (self.d**2).sum(axis=0)


class WidensLoss(mutants.Squares):
    def dell_df(self):
        return 2 * self.d.astype(float) if self.d.dtype.kind == "f" else 2 * self.d


class OneNumberForAll(mutants.Squares):
    def per_example(self, f, y):
        return super().per_example(f, y).sum()


class AnArrayForANumber(mutants.Squares):
    def forward(self, f, y, sample_weight=None):
        return np.float64(super().forward(f, y, sample_weight))


class WeightsSquared(mutants.Squares):
    """Value and gradient agree, but weight 2 is not twice."""

    def forward(self, f, y, sample_weight=None):
        return super().forward(f, y, None if sample_weight is None else sample_weight**2)


class TracedSquares(mutants.Squares):
    traced = True


class TracedAndWeighted(mutants.Squares):
    """Right: a setting is a plain attribute."""

    traced = True

    def __init__(self, scale=2.0):
        super().__init__()
        self.scale = scale

    def ell(self, f, y):
        return self.scale * super().ell(f, y)

    def dell_df(self):
        return self.scale * super().dell_df()


class DecidesByOutputs(mutants.Squares):
    traced = True

    def ell(self, f, y):
        self.sign = 1.0 if np.abs(f - y).max() < 1e6 else 2.0
        return self.sign * super().ell(f, y)

    def dell_df(self):
        return self.sign * super().dell_df()


class CountsItsCalls(mutants.Squares):
    traced = True
    calls = 0

    def ell(self, f, y):
        self.calls += 1
        return super().ell(f, y)


class WritesOverOutputs(mutants.Squares):
    def ell(self, f, y):
        f -= y
        self.d = f
        return (self.d**2).sum(axis=0)


@pytest.mark.parametrize("kind", [mutants.Squares, TracedSquares, TracedAndWeighted])
def test_right_losses_pass(kind):
    testing.assert_loss(kind(), F, Y)


LOSS_FAULTS = {
    DividesByTheBatch: "expected the same ℓ for a batch and for its two parts",
    PerExampleDisturbs: "the same after per_example",
    CachesInADictLoss: "the same after a pass of a shallow copy",
    WritesOverTargets: "what is handed in as it was, got y",
    WritesOverOutputs: "what is handed in as it was, got f",
    DecidesByOutputs: "training: expected passes whose calls are always the same, as traced = True says, got",
    CountsItsCalls: "training: expected passes whose calls are always the same, as traced = True says, got",
    WidensLoss: "dtypes: expected ∂L/∂f of float32",
    OneNumberForAll: "ℓ with shape (7,), one number per example",
    AnArrayForANumber: "a float from forward, got a float64",
    WeightsSquared: "the mean or sum of per_example",
}


@pytest.mark.parametrize("kind", LOSS_FAULTS, ids=lambda kind: kind.__name__)
def test_every_broken_promise_of_a_loss_is_named(kind):
    assert LOSS_FAULTS[kind] in fault_of(testing.assert_loss, kind(), F, Y.copy())


class Climbs(bp.Optimizer):
    def update(self, alpha, phi, g):
        phi += alpha * g


class Jitters(bp.Optimizer):
    def update(self, alpha, phi, g):
        phi -= alpha * g * np.random.default_rng().random()


class Normalizes(bp.Optimizer):
    """Right: it looks at all of φ at once, and gets it, whether it is traced or not."""

    def update(self, alpha, phi, g):
        phi -= alpha * g / np.linalg.norm(g)


class TracedNorm(bp.Optimizer):
    traced = True

    def update(self, alpha, phi, g):
        phi -= alpha * g / np.sqrt((g * g).sum() + 1e-12)


class TracedMomentum(bp.Optimizer):
    """Right: state in slots, α and t in arithmetic."""

    traced = True
    slots = ("v",)
    mu = 0.5

    def update(self, alpha, phi, g, *state):
        (v,) = state
        v[...] = self.mu * v + g
        phi -= alpha / (self.t + 1) ** 0.5 * v


class CountsSteps(bp.Optimizer):
    """A traced rule with a counter of its own."""

    traced = True

    def __init__(self, learning_rate):
        super().__init__(learning_rate)
        self.calls = 0

    def update(self, alpha, phi, g):
        self.calls += 1
        phi -= alpha * g / self.calls


class DecidesByTheGradient(bp.Optimizer):
    traced = True

    def update(self, alpha, phi, g):
        if g[0] > 0 or self.t > 3:
            alpha = alpha / 2
        phi -= alpha * g


class DecidesByStep(bp.Optimizer):
    traced = True

    def update(self, alpha, phi, g):
        phi -= (alpha if self.t % 2 else alpha / 2) * g


class FirstStepApart(bp.Optimizer):
    traced = True

    def update(self, alpha, phi, g):
        phi -= alpha * (2 * g if self.t == 0 else g)


class NewPhi(bp.Optimizer):
    def update(self, alpha, phi, g):
        return phi - alpha * g


@pytest.mark.parametrize("kind", [Normalizes, TracedNorm, TracedMomentum])
def test_right_optimizers_pass(kind):
    testing.assert_optimizer(kind(0.01))


def test_an_optimizer_with_penalties_by_name_passes():
    testing.assert_optimizer(bp.SGD(0.01, 0.9, weight_decay={"*.omega": 0.1}, l1={"*.beta": 0.01}))


ALWAYS_OF_STEPS = "training: expected steps whose calls are always the same, as traced = True says"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Climbs, "to fall"),
        (Jitters, "from the same steps"),
        (NewPhi, "expected no error, got TypeError: NewPhi.update: expected None, got a ndarray"),
        (CountsSteps, ALWAYS_OF_STEPS),
        (DecidesByTheGradient, ALWAYS_OF_STEPS),
        (DecidesByStep, "training: expected"),
        (FirstStepApart, "training: expected"),
    ],
)
def test_faulty_optimizers_fail(kind, words):
    assert words in fault_of(testing.assert_optimizer, kind(0.01))


def test_an_optimizer_may_have_been_used():
    optimizer = bp.Adam(0.01)
    optimizer.step(np.ones(3), np.ones(3))
    testing.assert_optimizer(optimizer)
    assert optimizer.t == 1


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: testing.assert_layer(Scale, F), TypeError, "Write Scale"),
        (lambda: testing.assert_layer(bp.LeastSquares(), F), TypeError, "expected layers"),
        (lambda: testing.assert_layer(bp.Tanh(), "h"), TypeError, "h numbers"),
        (lambda: testing.assert_layer(bp.Tanh(), F + 1j), TypeError, "real numbers"),
        (lambda: testing.assert_layer(bp.Tanh(), F * np.nan), ValueError, "finite"),
        (lambda: testing.assert_layer(bp.Tanh(), F[None]), ValueError, "shape"),
        (lambda: testing.assert_layer(bp.Tanh(), np.empty((4, 0))), ValueError, "at least one"),
        (lambda: testing.assert_layer(bp.Linear(8, 2), F), ValueError, "Pass h.T"),
        (lambda: testing.assert_loss(bp.LeastSquares, F, Y), TypeError, "Write LeastSquares"),
        (lambda: testing.assert_loss(bp.LeastSquares(), F, Y.T), ValueError, r"Pass y\.T"),
        (lambda: testing.assert_loss(bp.LeastSquares(), F[0], Y[0]), ValueError, "one column per example"),
        (lambda: testing.assert_loss(bp.CrossEntropy(), F, np.full(8, 3)), ValueError, "labels 0 … 2"),
        (lambda: testing.assert_optimizer(bp.SGD), TypeError, "Write SGD"),
        (lambda: testing.targets(bp.GaussianNLL(), 3, 2), ValueError, "multiple of 2"),
        (lambda: testing.inputs(0), ValueError, "features ≥ 1"),
        (lambda: testing.inputs(2, examples=0), ValueError, "examples ≥ 1"),
    ],
)
def test_what_does_not_fit_is_refused(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


class TestStrategies:
    @given(st.data(), st.integers(1, 5), st.integers(1, 6))
    def test_inputs_are_what_they_say(self, data, features, examples):
        strategy = testing.inputs(features, examples=examples, low=-1.0, high=2.0, away_from_zero=0.5)
        h = data.draw(strategy)
        assert h.shape[0] == features
        assert 1 <= h.shape[1] <= examples
        assert h.dtype in (np.float32, np.float64)
        assert ((h >= -1) & (h <= 2) & (np.abs(h) >= 0.5)).all()

    @pytest.mark.parametrize(
        "wanted",
        [
            lambda h: not h.flags.writeable,
            lambda h: h.flags.f_contiguous and not h.flags.c_contiguous,
            lambda h: not h.flags.forc,
            lambda h: h.flags.c_contiguous and h.dtype == np.float64,
        ],
        ids=["read-only", "F", "strided", "float64"],
    )
    def test_inputs_come_in_every_order(self, wanted):
        found = find(
            testing.inputs(3, examples=4), wanted, settings=settings(phases=[Phase.generate], max_examples=100)
        )
        assert wanted(found)

    @given(testing.inputs(features=4))
    def test_a_layer_in_one_line(self, h):
        testing.assert_layer(Scale(4), h)

    @given(st.data(), testing.inputs(features=3, away_from_zero=0.25), testing.losses())
    def test_networks_losses_and_targets_fit_each_other(self, data, h, loss):
        K, N = 2 * loss.outputs_per_target, h.shape[1]
        net = data.draw(testing.networks(3, outputs=K))
        y, w = data.draw(testing.targets(loss, K, N)), data.draw(testing.sample_weights(N))
        report = bp.check_gradients(net, loss, h.T, y.T, w)
        assert report.passed, report

    @given(st.data(), testing.losses())
    def test_a_loss_in_one_line(self, data, loss):
        K = 2 * loss.outputs_per_target
        f = data.draw(testing.inputs(K, away_from_zero=0.01))
        testing.assert_loss(loss, f, data.draw(testing.targets(loss, K, f.shape[1])))

    @settings(max_examples=8)
    @given(testing.networks(4))
    def test_a_network_is_a_layer(self, net):
        testing.assert_layer(net, spread((4, 3)))


def test_without_hypothesis_the_tests_work_and_strategies_say_what_to_install():
    program = """
import sys
sys.modules["hypothesis"] = None
import numpy as np, backprop as bp
bp.testing.assert_layer(bp.Tanh(), np.eye(2))
try:
    bp.testing.inputs(3)
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install hypothesis" in run.stdout


class IgnoresTheRate(bp.Optimizer):
    def update(self, alpha, phi, g, *state):
        phi -= 0.01 * g


class HidesItsVelocity(bp.Optimizer):
    """Keeps it in a dict of its own, which no checkpoint knows of."""

    def __init__(self, learning_rate):
        super().__init__(learning_rate)
        self.kept = {}

    def update(self, alpha, phi, g, *state):
        v = self.kept["v"] = 0.9 * self.kept.get("v", 0.0) + g
        phi -= alpha * v


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (IgnoresTheRate, "half the learning rate to move φ less"),
        (HidesItsVelocity, "keep state in slots|belongs in slots"),
    ],
)
def test_rules_that_ignore_the_rate_or_hide_state_fail(rule, words):
    text = fault_of(testing.assert_optimizer, rule(0.01))
    assert any(word in text for word in words.split("|")), text
