"""Schedules are functions of the step t alone, in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

import backprop as bp

COSINE = bp.CosineDecay(0.1, steps=100, final=0.02)
ONE_CYCLE = bp.OneCycle(1.0, steps=101, rise=0.5)  # the top is at t = 49.5

# schedule, {t: α(t)}
VALUES = [
    (bp.ConstantRate(0.1), {0: 0.1, 7: 0.1, 10**9: 0.1}),
    (bp.StepDecay(1.0, every=10, factor=0.5), {0: 1, 9: 1, 10: 0.5, 19: 0.5, 20: 0.25, 100: 2**-10}),
    (bp.StepDecay(0.3, every=1), {0: 0.3, 1: 0.03, 2: 0.003}),
    (bp.ExponentialDecay(2.0, factor=0.9), {0: 2, 1: 1.8, 2: 1.62, 50: 2 * 0.9**50}),
    (COSINE, {0: 0.1, 50: 0.06, 100: 0.02, 10**6: 0.02, 25: 0.06 + 0.04 * math.cos(math.pi / 4)}),
    (bp.CosineDecay(0.1, steps=1), {0: 0.1, 1: 0, 2: 0}),
    (bp.WarmUp(0.4, steps=3), {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4, 99: 0.4}),
    (
        bp.WarmUp(bp.StepDecay(1.0, every=2, factor=0.5), steps=1),
        {0: 0.5, 1: 1, 2: 1, 3: 0.5, 4: 0.5, 5: 0.25},
    ),
    (ONE_CYCLE, {0: 0.04, 100: 4e-6, 1000: 4e-6, 49: 0.52 - 0.48 * math.cos(math.pi * 49 / 49.5)}),
    (bp.OneCycle(1.0, steps=100), {0: 0.04, 29: 1, 99: 4e-6, 64: 0.5 + 2e-6}),
]


@pytest.mark.parametrize(("schedule", "values"), VALUES, ids=[repr(schedule) for schedule, _ in VALUES])
def test_closed_form(schedule, values):
    assert_allclose([schedule(t) for t in values], list(values.values()), rtol=1e-13, atol=1e-17)


@pytest.mark.parametrize("schedule", [schedule for schedule, _ in VALUES], ids=repr)
class TestEverySchedule:
    def test_depends_on_t_alone(self, schedule):
        forwards = [schedule(t) for t in range(120)]
        assert forwards == [schedule(t) for t in reversed(range(120))][::-1]

    def test_is_finite_and_never_negative(self, schedule):
        rates = np.array([schedule(t) for t in range(300)])
        assert np.isfinite(rates).all()
        assert (rates >= 0).all()

    def test_repr_is_the_call_that_makes_it(self, schedule):
        again = eval(repr(schedule), vars(bp.schedules))
        assert [again(t) for t in range(120)] == [schedule(t) for t in range(120)]

    def test_does_not_mind_the_loss(self, schedule):
        before = [schedule(t) for t in range(120)]
        for loss in (3.0, 4.0, math.nan):
            schedule.observe(loss)
        assert [schedule(t) for t in range(120)] == before


@pytest.mark.parametrize("steps", [2, 3, 7, 100])
@pytest.mark.parametrize("rise", [0.01, 0.3, 0.5, 0.99])
def test_one_cycle_stays_between_its_end_and_its_top(steps, rise):
    rates = np.array([bp.OneCycle(1.0, steps=steps, rise=rise)(t) for t in range(steps + 5)])
    top = int(rates.argmax())
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top:]) <= 0).all()
    assert rates.max() <= 1
    assert_allclose(rates[-1], 4e-6, rtol=1e-10)


# settings, then (loss of an epoch, rate after it)
PLATEAUS = {
    "each bad epoch": ({"patience": 0}, [(3, 1), (2, 1), (2, 0.5), (2, 0.25), (1, 0.25), (1, 0.125)]),
    "patience": ({"patience": 2}, [(3, 1), (3, 1), (3, 1), (3, 0.5), (3, 0.5), (3, 0.5), (3, 0.25)]),
    "an improvement starts the count anew": (
        {"patience": 1},
        [(3, 1), (3, 1), (2, 1), (2, 1), (2, 0.5), (1, 0.5), (1, 0.5), (1, 0.25)],
    ),
    "threshold": ({"patience": 0, "threshold": 0.1}, [(10, 1), (9.5, 0.5), (8.9, 0.5), (8.1, 0.25)]),
    "nan is no improvement": ({"patience": 0}, [(3, 1), (math.nan, 0.5), (2, 0.5), (math.nan, 0.25)]),
    "nan first": ({"patience": 1}, [(math.nan, 1), (3, 1), (2, 1), (1, 1)]),
    "inf first": ({"patience": 1}, [(math.inf, 1), (3, 1), (2, 1), (1, 1)]),
}


@pytest.mark.parametrize("name", PLATEAUS)
def test_reduce_on_plateau(name):
    settings, sequence = PLATEAUS[name]
    rate = bp.ReduceOnPlateau(1.0, factor=0.5, **settings)
    seen = []
    for loss, _ in sequence:
        rate.observe(loss)
        seen.append((loss, rate(0)))
    assert str(seen) == str([(loss, float(r)) for loss, r in sequence])


def test_warm_up_passes_the_loss_on():
    rate = bp.WarmUp(bp.ReduceOnPlateau(1.0, factor=0.5, patience=0), steps=1)
    for loss in (1.0, 1.0):
        rate.observe(loss)
    assert [rate(0), rate(1), rate(2)] == [0.25, 0.5, 0.5]
