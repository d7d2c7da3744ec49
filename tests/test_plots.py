"""Pictures: what they show against oracles of its own, what they look like against references, and whether one can read them.

`BACKPROP_REFERENCES=write python -m pytest tests/test_plots.py` draws the references anew; look at them before committing
them. `EXHAUSTIVE=1` also reads every letter of extreme cases.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib._pylab_helpers import Gcf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import backprop as bp
from backprop import plots
from backprop.plots import animation, canvas, landscape
from backprop.plots.boundary import color
from backprop.plots.columns import importances

REFERENCES = Path(__file__).parent / "references"
EXHAUSTIVE = bool(os.environ.get("EXHAUSTIVE"))
# Of 255, between a picture and its reference. matplotlib 3.8 and 3.11 are less than 0.4 apart, but round the edges of an image's
# cells to different pixels.
RMS = {"weights": 5.0, "confusion_matrix": 5.0}
OTHERS_RMS = 6.0


def network(*layers, dtype="float32"):
    """A network whose weights are the same on every machine."""
    net = bp.Sequential(*layers, dtype=dtype)
    net.phi[...] = 1.1 * np.sin(1 + 1.7 * np.arange(net.size))
    return net


def history(epochs=20, validation=True):
    def record(i):
        own = {"loss": 0.4 * np.exp(-i / 6) + 0.004 * i, "accuracy": 1 - 0.5 * np.exp(-i / 4)} if validation else {}
        return bp.Epoch(i, 2 * np.exp(-i / 4), 0.5, 1000.0, 0.1, validation=own)

    return bp.History([record(i) for i in range(1, epochs + 1)])


def histories(sizes=(1, 8, 64, 512)):
    def scaled(size):
        return bp.History(
            [replace(e, loss=e.loss * size**0.3, examples_per_second=900 * size**0.8) for e in history(3)]
        )

    return {size: scaled(size) for size in sizes}


def points(classes=2, n=60):
    """Rays of points, one for each class."""
    k, i = np.arange(n) % classes, np.arange(n)
    angle, radius = 2 * np.pi * k / classes + 0.7 * np.sin(i), 0.3 + 1.5 * i / n
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), k


def plane_net(outputs=1):
    return network(bp.Linear(2, 6), bp.Tanh(), bp.Linear(6, outputs))


def branching():
    inner = bp.Sequential(bp.Linear(4, 3), bp.Tanh(), bp.Linear(3, 4))
    fan = bp.FanOut(bp.Sequential(bp.Linear(4, 2), bp.ReLU()), bp.Identity(), bp.Residual(bp.Linear(4, 4)))
    return network(bp.Linear(5, 4), bp.Residual(inner), fan, bp.Dropout(0.5), bp.Linear(10, 1))


@cache
def measured(depth=4, epochs=3):
    """A `Magnitudes` after some epochs in which the weights shrink."""
    net = network(bp.Linear(3, 3), *(layer for _ in range(depth) for layer in (bp.Tanh(), bp.Linear(3, 3))))
    X = np.sin(np.arange(24.0)).reshape(8, 3)
    record, trainer = plots.Magnitudes(X, X), bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.1))
    record.start(trainer)
    for epoch in range(1, epochs + 1):
        net.phi[...] *= 0.7
        record.epoch(trainer, replace(history(1)[0], epoch=epoch))
    return record


@cache
def checked(fault=0.0):
    class Off(bp.Tanh):
        def backward(self, dL_df):
            return (1 + fault) * super().backward(dL_df)[0], {}

    X = np.sin(np.arange(10.0)).reshape(5, 2)
    net = network(bp.Linear(2, 4), Off(), bp.Linear(4, 1), dtype="float64")
    return bp.check_gradients(net, bp.LeastSquares(), X, X[:, 0])


X2, Y2 = points()
SURFACE = (plane_net(), bp.BinaryCrossEntropy(), X2, Y2)
CONFUSION = np.arange(200) % 4, (np.arange(200) % 4 + (np.arange(200) % 7 == 0)) % 4

# Numbers, and what a function of five columns, of which it uses three, makes of them.
TRUE = 50 + 30 * np.sin(np.arange(120.0))
PREDICTED = TRUE, TRUE + 5 * np.cos(7 * np.arange(120.0)) + 0.2 * (TRUE - 50)
X5 = np.sin(np.arange(200.0) * 1.7).reshape(40, 5)


def answers(X):
    return 3 * X[:, 0] + X[:, 0] * X[:, 1] - 2 * X[:, 2]


def error(X):
    return float(np.mean((answers(X) - answers(X5)) ** 2))


def chances(X):
    f = np.stack([2 * X[:, 0], 0.5 + 0 * X[:, 0], -(X[:, 0] ** 2) - X[:, 0]], axis=1)
    return np.exp(f) / np.exp(f).sum(axis=1, keepdims=True)


SMALL = network(bp.Linear(2, 3), bp.Tanh(), bp.Linear(3, 2), bp.ReLU(), bp.Linear(2, 1), dtype="float64")


def units(ax, weight=("0.omega", 1, 0), net=SMALL):
    return plots.units(net, bp.LeastSquares(), np.linspace(1, -1, net.in_features), [2.0], weight, ax=ax)


# name: (panels, how it is drawn)
PICTURES = {
    "learning_curves": (1, lambda ax: plots.learning_curves(history(), ax=ax)),
    "batch_size_tradeoff": (2, lambda ax: plots.batch_size_tradeoff(histories(), ax=ax)),
    "magnitudes": (2, lambda ax: plots.magnitudes(measured(), ax=ax)),
    "weights": (2, lambda ax: plots.weights(network(bp.Linear(5, 4), bp.Tanh(), bp.Linear(4, 3)), ax=ax)),
    "decision_boundary": (1, lambda ax: plots.decision_boundary(plane_net(), X2, Y2, ax=ax)),
    "decision_boundary_3": (1, lambda ax: plots.decision_boundary(plane_net(3), *points(3), ax=ax)),
    "decision_boundary_height": (1, lambda ax: plots.decision_boundary(plane_net(), X2, X2[:, 0] * X2[:, 1], ax=ax)),
    "confusion_matrix": (1, lambda ax: plots.confusion_matrix(*CONFUSION, ax=ax)),
    "predicted_against_true": (1, lambda ax: plots.predicted_against_true(*PREDICTED, ax=ax)),
    "residuals": (1, lambda ax: plots.residuals(*PREDICTED, ax=ax)),
    "column_importance": (
        1,
        lambda ax: plots.column_importance(error, X5, {"a": [0], "town": [1, 2], "c": [3]}, ax=ax),
    ),
    "column_dependence": (1, lambda ax: plots.column_dependence(answers, X5, 0, ax=ax)),
    "column_dependence_3": (1, lambda ax: plots.column_dependence(chances, X5, 0, classes=["a", "b", "c"], ax=ax)),
    "network_diagram": (1, lambda ax: plots.network_diagram(branching(), ax=ax)),
    "loss_line": (1, lambda ax: plots.loss_line(*SURFACE, np.ones(25), ax=ax)),
    "loss_surface": (1, lambda ax: plots.loss_surface(*SURFACE, np.eye(25)[[0, 9]], span=(-3, 3), ax=ax)),
    "gradient_check": (1, lambda ax: plots.gradient_check(checked(0.3), ax=ax)),
    "units": (2, units),
}
LONG = [f"a class with quite a long name {k}" for k in range(20)]
DEEP = network(bp.Linear(8, 8), *(layer for _ in range(12) for layer in (bp.Tanh(), bp.Linear(8, 8))))
FLAT = network(bp.Linear(2, 1, bias=False))
EXTREMES = {
    "one epoch": lambda ax: plots.learning_curves(history(1), ax=ax),
    "no validation data": lambda ax: plots.learning_curves(history(validation=False), ax=ax),
    "300 epochs": lambda ax: plots.learning_curves(history(300), "accuracy", ax=ax),
    "one batch size": lambda ax: plots.batch_size_tradeoff(histories([32]), ax=ax),
    "thirteen batch sizes": lambda ax: plots.batch_size_tradeoff(histories([2**k for k in range(13)]), ax=ax),
    "one layer": lambda ax: plots.magnitudes(measured(depth=0, epochs=0), ax=ax),
    "41 layers": lambda ax: plots.magnitudes(measured(depth=20, epochs=30), ax=ax),
    "weights of one layer": lambda ax: plots.weights(network(bp.Linear(1, 1)), ax=ax),
    "weights of 13 layers": lambda ax: plots.weights(DEEP, ax=ax),
    "20 classes": lambda ax: plots.decision_boundary(plane_net(20), *points(20), LONG, ax=ax),
    "one class": lambda ax: plots.decision_boundary(plane_net(), X2[:1], [1], ax=ax),
    "confusion of 2": lambda ax: plots.confusion_matrix([0, 1], [0, 1], LONG[:2], ax=ax),
    "confusion of 20": lambda ax: plots.confusion_matrix(np.arange(200) % 20, np.arange(200) % 19, LONG, ax=ax),
    "confusion of 60": lambda ax: plots.confusion_matrix(np.arange(200) % 60, np.arange(200) % 59, ax=ax),
    "counts of millions": lambda ax: plots.confusion_matrix(np.repeat([0, 1], 10**6), np.repeat([0, 1], 10**6), ax=ax),
    "diagram of 25 layers": lambda ax: plots.network_diagram(DEEP, ax=ax),
    "diagram of a layer": lambda ax: plots.network_diagram(bp.ReLU(), ax=ax),
    "a few predictions": lambda ax: plots.predicted_against_true([1e9, 2e9], [1e9, 3e9], name=LONG[0], ax=ax),
    "all the same": lambda ax: plots.residuals(np.zeros(60), np.zeros(60), name="$", ax=ax),
    "importance of 20": lambda ax: plots.column_importance(lambda X: 1.0, np.eye(20), LONG, ax=ax),
    "dependence on words": lambda ax: plots.column_dependence(answers, X5, [0, 1], np.eye(20)[:, :2], LONG, ax=ax),
    "dependence on one value": lambda ax: plots.column_dependence(answers, X5, 0, [2.0], ax=ax),
    "units of one layer": lambda ax: units(ax, ("0.omega", 0, 0), network(bp.Linear(1, 1))),
    "units of 8": lambda ax: units(ax, ("2.omega", 7, 0), network(bp.Linear(8, 8), bp.ReLU(), bp.Linear(8, 8), bp.Linear(8, 1))),
    "a flat loss": lambda ax: plots.loss_surface(FLAT, bp.LeastSquares(), np.zeros((4, 2)), np.ones(4), ax=ax),
}  # fmt: skip
every_picture = pytest.mark.parametrize("name", PICTURES)


def figure_of(drawn):
    return np.ravel(np.asarray(drawn, dtype=object))[0].figure


def grid(n, width=4.0, height=3.2):
    """Axes of a figure of the caller's, beside others."""
    figure = Figure(figsize=(width * (n + 1), height), layout="constrained")
    axes = figure.subplots(1, n + 1)
    axes[-1].plot([0, 1], label="another picture")
    return axes[:n]


class TestEveryPicture:
    @every_picture
    def test_returns_the_axes_it_was_given(self, name):
        n, draw = PICTURES[name]
        axes, settings = grid(n), dict(mpl.rcParams)
        drawn = draw(axes[0] if n == 1 else axes)
        assert dict(mpl.rcParams) == settings
        assert list(np.ravel(np.asarray(drawn, dtype=object))) == list(axes)
        assert all(ax.has_data() for ax in axes)
        other = axes[0].figure.axes[n]
        assert len(other.lines) == 1
        assert not other.texts

    @every_picture
    def test_makes_a_figure_of_its_own_which_no_window_knows(self, name):
        n, draw = PICTURES[name]
        drawn = np.ravel(np.asarray(draw(None), dtype=object))
        assert len(drawn) == n
        assert len({id(ax.figure) for ax in drawn}) == 1
        assert not Gcf.get_all_fig_managers()

    @every_picture
    def test_refuses_axes_that_are_none(self, name):
        n, draw = PICTURES[name]
        what = f"{name.partition('_3')[0].partition('_height')[0]}: expected ax: "
        with pytest.raises(TypeError if n == 1 else ValueError, match=what):
            draw("a figure")
        with pytest.raises((TypeError, ValueError), match=what):
            draw(grid(3))

    def test_needs_no_display_no_pyplot_and_is_imported_late(self):
        program = """
import sys, backprop as bp
from backprop import plots
assert "matplotlib" not in sys.modules
ax = plots.learning_curves([bp.Epoch(1, 0.5, 1.0, 100.0, 0.1)])
ax.figure.savefig(sys.stdout.buffer)
assert "matplotlib.pyplot" not in sys.modules and bp.plots is plots
"""
        environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")}
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment)
        assert run.stdout.startswith(b"\x89PNG")

    @every_picture
    def test_without_matplotlib_the_error_names_the_extra(self, name, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(ImportError, match=re.escape('pip install "backprop-mlp[plots]"')):
            PICTURES[name][1](None)


def pixels(figure, dpi):
    figure.dpi = dpi
    agg = FigureCanvasAgg(figure)
    agg.draw()
    return np.asarray(agg.buffer_rgba())[..., :3].astype(float)


def grey(rgb):
    return rgb @ [0.299, 0.587, 0.114]


def bare(n, draw):
    """The picture in grey without a letter, at fixed places: fonts and layout differ between versions of matplotlib."""
    figure = Figure(figsize=(2.4 * n, 2.0))
    axes = [figure.add_axes(((i + 0.1) / n, 0.1, 0.8 / n, 0.8)) for i in range(n)]
    draw(axes[0] if n == 1 else axes)
    for text in figure.findobj(Text):
        text.set_visible(False)
    for ax in figure.axes:
        ax.tick_params(which="both", length=0)
        if ax.get_legend():
            ax.get_legend().remove()
    return grey(pixels(figure, 120))


def blurred(image):
    """Means of 6 × 6 pixels: where the edge of a line falls is the rasterizer's business."""
    rows, columns = (size // 6 for size in image.shape)
    return image[: 6 * rows, : 6 * columns].reshape(rows, 6, columns, 6).mean(axis=(1, 3))


def distance(image, name):
    reference = np.asarray(Image.open(REFERENCES / f"{name}.png"), dtype=float)
    assert image.shape == reference.shape
    return float(np.sqrt(np.mean((blurred(image) - blurred(reference)) ** 2)))


OTHERS = {
    "learning_curves": lambda ax: plots.learning_curves(history(30), "accuracy", ax=ax),
    "batch_size_tradeoff": lambda ax: plots.batch_size_tradeoff(histories((1, 2, 512)), ax=ax),
    "magnitudes": lambda ax: plots.magnitudes(measured(2), ax=ax),
    "weights": lambda ax: plots.weights(network(bp.Linear(5, 4), bp.Tanh(), bp.Linear(4, 4)), ax=ax),
    "decision_boundary": lambda ax: plots.decision_boundary(plane_net(), X2, Y2, threshold=1, ax=ax),
    "decision_boundary_3": lambda ax: plots.decision_boundary(plane_net(4), *points(3), ax=ax),
    "decision_boundary_height": lambda ax: plots.decision_boundary(plane_net(), X2, X2[:, 0], ax=ax),
    "confusion_matrix": lambda ax: plots.confusion_matrix(CONFUSION[0], CONFUSION[1] ** 2 % 4, ax=ax),
    "predicted_against_true": lambda ax: plots.predicted_against_true(TRUE, TRUE[::-1], ax=ax),
    "residuals": lambda ax: plots.residuals(TRUE, TRUE[::-1], ax=ax),
    "column_importance": lambda ax: plots.column_importance(error, X5, list("abcde"), ax=ax),
    "column_dependence": lambda ax: plots.column_dependence(answers, X5, 2, ax=ax),
    "column_dependence_3": lambda ax: plots.column_dependence(chances, X5, 1, classes=["a", "b", "c"], ax=ax),
    "network_diagram": lambda ax: plots.network_diagram(network(bp.Linear(5, 4), bp.Tanh()), ax=ax),
    "loss_line": lambda ax: plots.loss_line(*SURFACE, -np.ones(25), ax=ax),
    "loss_surface": lambda ax: plots.loss_surface(*SURFACE, np.eye(25)[[9, 0]], span=(-3, 3), ax=ax),
    "gradient_check": lambda ax: plots.gradient_check(checked(), ax=ax),
    "units": lambda ax: units(ax, net=network(bp.Linear(2, 2), bp.Tanh(), bp.Linear(2, 1))),
}


class TestReferences:
    """The distance to the reference is small for the same numbers, and large for others."""

    @every_picture
    def test_looks_like_its_reference(self, name):
        image = bare(*PICTURES[name])
        if os.environ.get("BACKPROP_REFERENCES") == "write":
            Image.fromarray(np.round(image).astype(np.uint8)).save(REFERENCES / f"{name}.png", optimize=True)
        assert distance(image, name) <= RMS.get(name, 1.0)

    @every_picture
    def test_other_numbers_do_not(self, name):
        assert distance(bare(PICTURES[name][0], OTHERS[name]), name) > OTHERS_RMS


def texts(figure):
    """Every text one sees, with its box in pixels."""
    agg = FigureCanvasAgg(figure)
    agg.draw()
    renderer = agg.get_renderer()
    hidden = {
        id(text) for ax in figure.axes if not ax.axison for axis in (ax.xaxis, ax.yaxis) for text in axis.findobj(Text)
    }
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):  # labels of ticks beyond the ends are there, but are not drawn
            low, high = sorted(axis.get_view_interval())
            shown = {
                id(tick) for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()] if low <= tick.get_loc() <= high
            }
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            hidden |= {id(label) for tick in ticks if id(tick) not in shown for label in (tick.label1, tick.label2)}
    for text in figure.findobj(Text):
        if text.get_text().strip() and text.get_visible() and id(text) not in hidden:
            yield text, text.get_window_extent(renderer)


def overlapping(seen):
    """Pairs of texts that touch by more than a pixel; rotated numbers on contours lie apart by design of matplotlib."""
    found = [(text.get_text(), box) for text, box in seen if text.get_rotation() % 90 == 0]
    return [
        (one, other)
        for (one, a), (other, b) in combinations(found, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]


def clipped(figure, seen):
    edge = figure.bbox
    return [
        text.get_text()
        for text, box in seen
        if box.x0 < -1 or box.y0 < -1 or box.x1 > edge.x1 + 1 or box.y1 > edge.y1 + 1
    ]


ALL = {name: draw for name, (_, draw) in PICTURES.items()} | EXTREMES
QUICK = [*PICTURES, "one epoch", "one layer", "20 classes", "confusion of 2", "diagram of a layer"]


class TestLegible:
    @pytest.mark.parametrize("name", ALL if EXHAUSTIVE else QUICK)
    def test_no_text_lies_on_another_or_leaves_the_figure(self, name):
        figure = figure_of(ALL[name](None))
        seen = list(texts(figure))
        assert overlapping(seen) == []
        assert clipped(figure, seen) == []

    @pytest.mark.parametrize("name", PICTURES if EXHAUSTIVE else ["decision_boundary", "magnitudes"])
    def test_nor_beside_others(self, name):
        n, draw = PICTURES[name]
        axes = grid(n)
        draw(axes[0] if n == 1 else axes)
        seen = list(texts(axes[0].figure))
        assert overlapping(seen) == []
        assert clipped(axes[0].figure, seen) == []

    def test_the_test_sees_overlaps_and_clipping(self):
        figure = Figure()
        figure.text(0.5, 0.5, "one")
        figure.text(0.51, 0.5, "other")
        figure.text(0.98, 0.5, "outside")
        seen = list(texts(figure))
        assert overlapping(seen) == [("one", "other")]
        assert clipped(figure, seen) == ["outside"]

    def test_a_picture_of_a_large_network_has_a_size_one_can_save(self):
        net = bp.Sequential(*(bp.Linear(2, 2) for _ in range(130)))
        figure = plots.network_diagram(net).figure
        assert 59 < max(figure.get_size_inches()) < 60.1
        assert max(figure_of(ALL["20 classes"](None)).get_size_inches()) < 15


def lightness(rgb):
    """L* of CIE 1976, 0 … 100, of sRGB in 0 … 1."""
    rgb = np.asarray(rgb)[..., :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    Y = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(Y > 216 / 24389, 116 * np.cbrt(Y) - 16, 24389 / 27 * Y)


# Machado, Oliveira and Fernandes (2009), severity 1: what protanopes and deuteranopes see of linear RGB.
PROTANOPIA = np.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
)
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)


class TestRegression:
    def test_predictions_over_what_is_true(self):
        ax = plots.predicted_against_true(*PREDICTED, name="rent")
        (points,) = ax.collections
        assert_allclose(points.get_offsets(), np.transpose(PREDICTED))
        (line,) = ax.lines
        assert_allclose(line.get_xdata(), line.get_ydata())
        assert ax.get_xlim() == ax.get_ylim()
        y, f = PREDICTED
        r2 = 1 - np.sum((y - f) ** 2) / np.sum((y - y.mean()) ** 2)
        assert ax.get_title() == f"R² {r2:.3g}, mean absolute error {np.abs(y - f).mean():.3g}"

    def test_residuals_show_what_was_not_learnt(self):
        x = np.linspace(-1, 1, 500)
        median, _low, _high = plots.residuals(x**2, np.zeros(500) + x).lines[1:]
        assert_allclose(median.get_ydata(), median.get_xdata() ** 2 - median.get_xdata(), atol=0.03)
        spread = np.tile([-1, 1], 250) * np.linspace(0, 1, 500)
        _, low, high = plots.residuals(x + spread, x).lines[1:]
        width = high.get_ydata() - low.get_ydata()
        assert (np.diff(width) > 0).all()
        assert len(plots.residuals(x[:9], x[:9]).lines) == 1  # too few for a band

    def test_many_points_are_drawn_in_part_and_counted_whole(self):
        y = np.arange(20_000.0)
        ax = plots.predicted_against_true(y, y + (y == 1) * 20_000)
        assert len(ax.collections[0].get_offsets()) == 5000
        assert ax.get_title().endswith("mean absolute error 1")

    @pytest.mark.parametrize("draw", [plots.predicted_against_true, plots.residuals])
    @pytest.mark.parametrize(
        ("y", "predicted", "words"),
        [
            ([[1.0], [2.0]], [1.0, 2.0], r"Pass y\[:, 0\]"),
            ([1.0, 2.0], [1.0], r"predicted with shape \(2,\)"),
            ([1.0, np.nan], [1.0, 2.0], "finite"),
            (["a"], [1.0], "numbers"),
            ([], [], "shape"),
        ],
    )
    def test_refuses(self, draw, y, predicted, words):
        with pytest.raises((TypeError, ValueError), match=words) as raised:
            draw(y, predicted)
        assert str(raised.value).startswith(draw.__name__)


class TestColumns:
    def test_what_is_not_used_costs_nothing(self):
        found = importances(error, X5, list("abcde"))
        assert (found["d"] == 0).all()
        assert (found["e"] == 0).all()
        assert min(found[name].min() for name in "abc") > 0.1
        longest = plots.column_importance(error, X5, list("abcde"))
        assert [text.get_text() for text in longest.get_yticklabels()][:3] == ["a", "c", "b"]
        assert_allclose(longest.patches[0].get_width(), found["a"].mean())

    def test_features_of_one_column_are_shuffled_together(self):
        X = np.repeat(np.eye(3)[[0, 1, 2, 1]], 5, axis=0)

        def broken(rows):
            return float(np.mean((rows.sum(axis=1) - 1) ** 2))

        assert (importances(broken, X, {"town": [0, 1, 2]})["town"] == 0).all()
        assert all((growth > 0).any() for growth in importances(broken, X).values())

    def test_the_mean_and_single_rows(self):
        ax = plots.column_dependence(answers, X5, 0, [0.0, 1.0, 4.0], [10.0, 20.0, 50.0])
        mean, *rows = ax.lines[:-1]
        assert_allclose(mean.get_xdata(), [10, 20, 50])
        expected = [answers(np.column_stack([np.full(40, value), X5[:, 1:]])) for value in (0, 1, 4)]
        assert_allclose(mean.get_ydata(), np.mean(expected, axis=1))
        assert_allclose([row.get_ydata() for row in rows], np.transpose(expected))
        inside = np.clip(np.quantile(X5[:, 0], np.linspace(0.1, 0.9, 9)), 0, 1)
        assert_allclose(ax.lines[-1].get_xdata(), 10 + 10 * inside)

    def test_of_words_and_of_classes(self):
        ax = plots.column_dependence(answers, X5, [0, 1], np.eye(2), ["Bonn", "Ulm"])
        assert [text.get_text() for text in ax.get_xticklabels()] == ["Bonn", "Ulm"]
        ax = plots.column_dependence(chances, X5, 0, classes=["no", "maybe", "yes"])
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["no", "maybe", "yes"]
        assert_allclose(np.sum([line.get_ydata() for line in ax.lines[:3]], axis=0), 1)

    @pytest.mark.parametrize(
        ("draw", "words"),
        [
            (lambda: plots.column_importance(error, X5, ["a"]), "5 different names"),
            (lambda: plots.column_importance(error, X5, {"a": [7]}), "places 0 … 4"),
            (lambda: plots.column_importance(lambda X: np.nan, X5), "finite"),
            (lambda: plots.column_importance(error, X5, repeats=0), "repeats"),
            (lambda: plots.column_importance(error, X5[0]), "one example per row"),
            (lambda: plots.column_dependence(answers, X5, 5), "places 0 … 4"),
            (lambda: plots.column_dependence(answers, X5, [0, 1]), "values"),
            (lambda: plots.column_dependence(answers, X5, 0, np.eye(2)), r"shape \(V, 1\)"),
            (lambda: plots.column_dependence(answers, X5, 0, [1.0], [1.0, 2.0]), r"at with shape \(1,\)"),
            (lambda: plots.column_dependence(lambda X: X[:, 0] * np.inf, X5, 0, [1.0]), "finite"),
            (lambda: plots.column_dependence(chances, X5, 0, classes=["a"]), "at least 3 names"),
        ],
    )
    def test_refuses(self, draw, words):
        with pytest.raises((TypeError, ValueError), match=words):
            draw()


class TestWithoutColor:
    @pytest.mark.parametrize("name", [canvas.SIGNED, canvas.SHARES, "viridis_r", "cividis"])
    def test_the_lightness_of_a_map_only_grows_or_only_falls(self, name):
        steps = np.diff(lightness(mpl.colormaps[name](np.linspace(0, 1, 64))))
        assert (steps > 0).all() or (steps < 0).all()
        assert abs(steps.sum()) > 60

    def test_zero_is_grey_where_signs_matter(self):
        middle = np.array(mpl.colormaps[canvas.SIGNED](0.5)[:3])
        assert np.ptp(middle) < 0.03

    def test_lines_differ_in_more_than_color(self):
        for name in ("learning_curves", "batch_size_tradeoff", "magnitudes", "loss_line"):
            for ax in figure_of(PICTURES[name][1](None)).axes:
                lines = [line for line in ax.lines if line.get_label()[0] != "_"]
                styles = {
                    (line.get_linestyle(), line.get_marker(), line.get_markerfacecolor() == "white") for line in lines
                }
                assert len(styles) == len(lines)

    def test_later_epochs_are_darker(self):
        lines = plots.magnitudes(measured(epochs=9))[0].lines[:6]
        shades = [float(lightness(mpl.colors.to_rgb(line.get_color()))) for line in lines]
        assert all(later < earlier - 5 for earlier, later in pairwise(shades))

    def test_classes_differ_in_their_signs_and_no_two_are_alike(self):
        signs = [(canvas.MARKERS[k % len(canvas.MARKERS)], color(k)) for k in range(60)]
        assert len(set(canvas.MARKERS)) == len(canvas.MARKERS) == 12
        assert len(set(signs)) == 60

    @pytest.mark.parametrize("seen", [PROTANOPIA, DEUTERANOPIA], ids=["protanopia", "deuteranopia"])
    def test_neighbouring_colors_differ_to_the_color_blind(self, seen):
        colors = np.array([mpl.colors.to_rgb(each) for each in canvas.COLORS])
        linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
        apart = [np.linalg.norm(a - b) for a, b in combinations(linear @ seen.T, 2)]
        assert min(apart) > 0.1

    def test_signs_of_weights_survive_in_grey(self):
        omega = np.array([[-1.0, 0.0, 1.0]])
        layer = bp.Linear(3, 1)
        layer.parameters["omega"][...] = omega
        ax = plots.weights(layer)[0]
        shades = lightness(ax.images[0].to_rgba(ax.images[0].get_array()))[0]
        assert shades[0] + 25 < shades[1] < shades[2] - 25


class TestLearningCurves:
    def test_lines_are_the_columns(self):
        records = history(12)
        ax = plots.learning_curves(records)
        own, validation, best = ax.lines
        assert_array_equal(own.get_xydata(), np.stack([records["epoch"], records["loss"]], axis=1))
        assert_array_equal(validation.get_ydata(), records["validation_loss"])
        assert best.get_xdata() == [int(np.argmin(records["validation_loss"])) + 1]
        assert [text.get_text() for text in ax.get_legend().get_texts()][2] == f"lowest, epoch {best.get_xdata()[0]}"

    def test_a_metric(self):
        records = history(12)
        ax = plots.learning_curves(records, "accuracy")
        assert [line.get_label() for line in ax.lines] == ["validation"]
        assert ax.get_ylabel() == "accuracy"
        assert ax.get_yscale() == "linear"

    def test_scale_is_logarithmic_where_the_loss_falls_far(self):
        assert plots.learning_curves(history(40)).get_yscale() == "log"
        assert plots.learning_curves(history(2)).get_yscale() == "linear"

    def test_what_is_not_finite_is_a_gap(self):
        records = [replace(record, loss=np.nan if record.epoch == 2 else record.loss) for record in history(4)]
        assert_array_equal(np.isnan(plots.learning_curves(records).lines[0].get_ydata()), [False, True, False, False])

    def test_takes_what_fit_and_minimize_return(self):
        X = np.linspace(-1, 1, 16).reshape(-1, 1)
        net = bp.Sequential(bp.Linear(1, 1), seed=0)
        fitted = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.1)).fit(X, X, epochs=2, verbose=0)
        assert len(plots.learning_curves(fitted).lines[0].get_xdata()) == 2
        assert plots.learning_curves(bp.minimize(net, bp.LeastSquares(), X, X, verbose=0)).has_data()


class TestBatchSizes:
    def test_speed_is_the_median_and_the_loss_that_of_the_last_epoch(self):
        runs = histories()
        runs[8].epochs[0] = replace(runs[8][0], examples_per_second=1e9)
        left, right = plots.batch_size_tradeoff(dict(reversed(runs.items())))
        assert_array_equal(left.lines[0].get_xdata(), [1, 8, 64, 512])
        assert_allclose(left.lines[0].get_ydata(), [np.median(runs[b]["examples_per_second"]) for b in (1, 8, 64, 512)])
        assert_allclose(right.lines[0].get_ydata(), [runs[b][-1].loss for b in (1, 8, 64, 512)])
        assert_allclose(right.lines[1].get_ydata(), [runs[b][-1].validation["loss"] for b in (1, 8, 64, 512)])
        assert right.get_title() == "loss after 3 epochs"

    def test_unequal_epochs_are_not_called_equal(self):
        assert plots.batch_size_tradeoff({1: history(2), 2: history(3)})[1].get_title() == "loss at the end"


class TestMagnitudes:
    def test_are_those_of_explain(self):
        net = network(
            bp.Linear(3, 4), bp.Tanh(), bp.Sequential(bp.Linear(4, 4), bp.ReLU()), bp.Linear(4, 2), dtype="float64"
        )
        X, y = np.sin(np.arange(18.0)).reshape(6, 3), np.arange(6) % 2
        record = plots.Magnitudes(X, y)
        record.start(bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1)))
        numbers = bp.explain(net, bp.CrossEntropy(), X, y).numbers
        names = ["f_0", "h_1", "f_1", "h_2", "f_2"]
        rms = lambda array: np.sqrt(np.mean(array**2))  # noqa: E731
        assert record.layers == ["0 Linear", "1 Tanh", "2.0 Linear", "2.1 ReLU", "3 Linear"]
        assert_allclose(record.activations, [[rms(numbers[name]) for name in names]], rtol=1e-12)
        assert_allclose(record.gradients, [[rms(numbers[f"∂L/∂{name}"]) for name in names]], rtol=1e-12)

    @pytest.mark.parametrize("factor", [0.1, 10.0], ids=["vanish", "explode"])
    def test_gradients_of_a_chain_are_powers(self, factor):
        layers = [bp.Linear(2, 2) for _ in range(8)]
        for layer in layers:
            layer.parameters["omega"][...] = factor * np.eye(2)
        record = plots.Magnitudes(np.ones((4, 2)), np.zeros((4, 2)))
        record.start(bp.Trainer(bp.Sequential(*layers), bp.LeastSquares(), bp.SGD(0.1)))
        assert_allclose(record.activations[0], factor ** np.arange(1.0, 9), rtol=1e-5)
        assert_allclose(record.gradients[0][:-1] / record.gradients[0][1:], factor, rtol=1e-5)
        line = plots.magnitudes(record)[1].lines[0]
        assert_allclose(line.get_ydata(), record.gradients[0])

    def test_small_gradients_do_not_underflow_in_the_square(self):
        net = bp.Sequential(bp.Linear(1, 1), bp.Linear(1, 1))
        net.phi[...] = [0, 1, 0, 1e-25]
        record = plots.Magnitudes(np.ones((2, 1)), np.ones(2))
        record.start(bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.1)))
        assert_allclose(record.gradients[0, 0], 1e-25, rtol=1e-5)  # its square is not a float32

    @pytest.mark.parametrize("between", [bp.Tanh, lambda: bp.Dropout(0.5), lambda: bp.BatchNorm(4)])
    def test_training_with_it_is_training_without_it(self, between):
        X, y = np.sin(np.arange(90.0)).reshape(30, 3), np.arange(30) % 2
        ends = []
        for callbacks in ([], [plots.Magnitudes(X[:8], y[:8])]):
            net = bp.Sequential(bp.Linear(3, 4), between(), bp.Linear(4, 2), seed=1)
            trainer = bp.Trainer(net, bp.CrossEntropy(), bp.Adam(0.01), batch_size=8)
            trainer.fit(X, y, epochs=3, callbacks=callbacks, verbose=0)
            ends.append(np.concatenate([net.phi, *(buffer.ravel() for buffer in net.buffers.values())]))
        assert_array_equal(*ends)
        assert callbacks[0].epochs == [0, 1, 2, 3]
        assert callbacks[0].gradients.shape == (4, 3)

    def test_another_fit_begins_anew_where_training_stands(self):
        X = np.linspace(-1, 1, 16).reshape(-1, 1)
        trainer = bp.Trainer(bp.Sequential(bp.Linear(1, 1), seed=0), bp.LeastSquares(), bp.SGD(0.1))
        record = plots.Magnitudes(X, X)
        for _ in range(2):
            trainer.fit(X, X, epochs=2, callbacks=[record], verbose=0)
        assert record.epochs == [2, 3, 4]
        bp.minimize(trainer.net, bp.LeastSquares(), X, X + 1, iterations=1, callbacks=[record], verbose=0)
        assert record.epochs == [0, 1]

    def test_shows_the_first_and_the_last_of_many_epochs(self):
        record = measured(epochs=40)
        left, right = plots.magnitudes(record)
        names = [text.get_text() for text in left.get_legend().get_texts()]
        assert (len(names), names[0], names[-1]) == (6, "0", "40")
        assert len(right.lines) == 6

    def test_a_dead_layer_is_shown_as_zero(self):
        net = network(bp.Linear(1, 2), bp.ReLU(), bp.Linear(2, 1))
        net.parameters["0.omega"][...], net.parameters["0.beta"][...] = 0, -1
        record = plots.Magnitudes(np.ones((4, 1)), np.ones(4))
        record.start(bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.1)))
        zeros = [line.get_xdata()[0] for line in plots.magnitudes(record)[0].lines if line.get_marker() == "$0$"]
        assert zeros == [1]

    def test_levels_that_hardly_differ_look_level(self):
        low, high = plots.magnitudes(measured(depth=0, epochs=0))[0].get_ylim()
        assert high > 10 * low


class TestWeights:
    def test_are_the_matrices_centred_at_zero(self):
        net = network(bp.Linear(5, 4), bp.LayerNorm(4), bp.Linear(4, 3))
        axes = plots.weights(net)
        for ax, name in zip(axes, ("0.omega", "2.omega"), strict=True):
            (image,) = ax.images
            assert_array_equal(image.get_array(), net.parameters[name])
            assert image.norm.vmin == -image.norm.vmax == -np.abs(net.parameters[name]).max()

    def test_a_pattern_chooses(self):
        assert [ax.get_title() for ax in plots.weights(DEEP, "1?.*")] == [
            f"{k}.omega (8, 8)" for k in (10, 12, 14, 16, 18)
        ]

    def test_zeros(self):
        layer = bp.Linear(2, 2)
        layer.parameters["omega"][...] = 0
        assert plots.weights(layer)[0].images[0].norm.vmax == 1


class TestConfusionMatrix:
    @pytest.mark.parametrize("words", [False, True], ids=["numbers", "words"])
    def test_counts_are_those_of_scikit_learn(self, words):
        metrics = pytest.importorskip("sklearn.metrics")
        generator = np.random.default_rng(0)
        y, predicted = generator.integers(0, 5, (2, 300))
        if words:
            y, predicted = (np.array(list("ebcad"))[labels] for labels in (y, predicted))
        expected = metrics.confusion_matrix(y, predicted)
        ax = plots.confusion_matrix(y, predicted)
        assert_array_equal([int(text.get_text().split("\n")[0]) for text in ax.texts], expected.ravel())
        shares = expected / expected.sum(axis=1, keepdims=True)
        assert_allclose(ax.images[0].get_array(), shares)
        shown = [int(text.get_text().split("\n")[1].removesuffix(" %")) for text in ax.texts]
        assert_allclose(shown, 100 * shares.ravel(), atol=0.51)
        assert ax.get_title() == f"{np.trace(expected)} of 300 right ({np.trace(expected) / 300:.1%})"

    def test_classes_name_numbers_and_order_words(self):
        ax = plots.confusion_matrix([0, 2], [0, 2], ["a", "b", "c"])
        assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
        assert [text.get_text() for text in ax.texts] == ["1\n100 %", *"000", "0", "0", "0", "0", "1\n100 %"]
        ax = plots.confusion_matrix(["low", "high"], ["high", "high"], ["low", "middle", "high"])
        assert_array_equal(ax.images[0].get_array(), [[0, 0, 1], [0, 0, 0], [0, 0, 1]])


def lines_of(ax):
    """Points of the boundary lines drawn."""
    return np.concatenate([path.vertices for drawn in ax.collections for path in drawn.get_paths() if not drawn.filled])


def contours(ax):
    return [drawn for drawn in ax.collections if hasattr(drawn, "levels")]


class TestDecisionBoundary:
    @pytest.mark.parametrize("threshold", [0.0, 0.5])
    def test_of_a_linear_network_is_its_line(self, threshold):
        net = bp.Sequential(bp.Linear(2, 1))
        net.phi[...] = [0.3, 1.5, -0.7]
        ax = plots.decision_boundary(net, X2, Y2, threshold=threshold)
        (line, *_) = [drawn for drawn in contours(ax) if not drawn.filled]
        vertices = np.concatenate([path.vertices for path in line.get_paths()])
        assert len(vertices) > 10
        assert_allclose(0.3 + vertices @ [1.5, -0.7], threshold, atol=1e-5)

    @pytest.mark.parametrize("K", [2, 3, 5])
    def test_regions_are_those_of_the_largest_output(self, K):
        net, (X, y) = plane_net(K), points(K)
        ax = plots.decision_boundary(net, X, y)
        figure = ax.figure
        for drawn in ax.collections:
            drawn.set_visible(hasattr(drawn, "levels") and drawn.filled)
        image = pixels(figure, 100)[::-1]
        xs, ys = np.meshgrid(np.linspace(*ax.get_xlim(), 42)[1:-1], np.linspace(*ax.get_ylim(), 42)[1:-1])
        places = np.stack([xs.ravel(), ys.ravel()], axis=1)
        at = np.floor(ax.transData.transform(places)).astype(int)
        pale = [255 * (1 - 0.35 * (1 - np.array(mpl.colors.to_rgb(color(k))))) for k in range(K)]
        seen = np.argmin([np.abs(image[at[:, 1], at[:, 0]] - each).sum(axis=1) for each in pale], axis=0)
        assert np.mean(seen == net.predict(places).argmax(axis=1)) > 0.97  # all but those on a boundary

    def test_examples_are_where_they_are(self):
        X, y = points(3)
        ax = plots.decision_boundary(plane_net(3), X, y, ["a", "b", "c"])
        scattered = [drawn for drawn in ax.collections if not hasattr(drawn, "levels")]
        for k, drawn in enumerate(scattered):
            assert_array_equal(drawn.get_offsets(), X[y == k])
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "c"]

    def test_one_output_and_other_numbers_are_a_height(self):
        net = plane_net()
        y = X2[:, 0] - 3
        ax = plots.decision_boundary(net, X2, y)
        filled = contours(ax)[0]
        grid_x, grid_y = np.meshgrid(*(np.linspace(X2[:, d].min(), X2[:, d].max(), 50) for d in (0, 1)))
        f = net.predict(np.stack([grid_x.ravel(), grid_y.ravel()], axis=1))
        assert filled.levels[0] <= min(f.min(), y.min())
        assert filled.levels[-1] >= max(f.max(), y.max())
        assert ax.get_legend() is None

    def test_estimators_by_their_classes(self):
        class Labels:
            classes_ = np.array(["left", "right"])

            def predict(self, X):
                return self.classes_[(X[:, 0] > 0.25).astype(int)]

        class Sure(Labels):
            def predict_proba(self, X):
                p = 1 / (1 + np.exp(0.25 - X[:, 0]))
                return np.stack([1 - p, p], axis=1)

        y = Labels().predict(X2)
        for model, tolerance in ((Labels(), 0.02), (Sure(), 1e-4)):
            ax = plots.decision_boundary(model, X2, y)
            line = next(drawn for drawn in contours(ax) if not drawn.filled)
            vertices = np.concatenate([path.vertices for path in line.get_paths()])
            assert_allclose(vertices[:, 0], 0.25, atol=tolerance)
            assert [text.get_text() for text in ax.get_legend().get_texts()] == ["left", "right"]

    def test_estimators_of_numbers(self):
        class Plane:
            def predict(self, X):
                return X.sum(axis=1)

        assert plots.decision_boundary(Plane(), X2, X2[:, 0]).get_legend() is None

    def test_our_estimators(self):
        estimators = pytest.importorskip("backprop.estimators")
        model = estimators.MLPClassifier((8,), solver="lbfgs", max_iter=20, random_state=0)
        y = np.where(Y2 == 1, "spam", "ham")
        ax = plots.decision_boundary(model.fit(X2, y), X2, y)
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ham", "spam"]


class TestDiagram:
    def test_says_every_shape(self):
        words = [text.get_text() for text in plots.network_diagram(branching()).texts]
        assert words == [
            *("h (5, N)", "Linear", "β (4,)  Ω (4, 5)", "24 parameters", "(4, N)"),
            *("Linear", "β (3,)  Ω (3, 4)", "15 parameters", "(3, N)", "Tanh", "(3, N)"),
            *("Linear", "β (4,)  Ω (4, 3)", "16 parameters", "(4, N)", "+", "(4, N)"),
            *("Linear", "β (2,)  Ω (2, 4)", "10 parameters", "(2, N)", "ReLU", "(2, N)", "Identity", "(4, N)"),
            *("Linear", "β (4,)  Ω (4, 4)", "20 parameters", "(4, N)", "+", "(4, N)", "concatenate", "(10, N)"),
            *(
                "Dropout(0.5)",
                "(10, N)",
                "Linear",
                "β (1,)  Ω (1, 10)",
                "11 parameters",
                "f (1, N)",
                "φ: 96 parameters",
            ),
        ]

    def test_a_sum_and_unknown_widths(self):
        fan = bp.FanOut(bp.Exp(), bp.Sin(), join="sum")
        words = [text.get_text() for text in plots.network_diagram(bp.Sequential(fan)).texts]
        assert words == ["h (?, N)", "Exp", "(?, N)", "Sin", "(?, N)", "+", "f (?, N)", "φ: 0 parameters"]

    def test_branches_stand_side_by_side_and_layers_below_each_other(self):
        place = {}
        for text in plots.network_diagram(branching()).texts:
            place.setdefault(text.get_text(), text.get_position())
        assert place["ReLU"][0] < place["Identity"][0]
        assert (
            place["h (5, N)"][1] < place["Tanh"][1] < place["ReLU"][1] < place["concatenate"][1] < place["f (1, N)"][1]
        )

    def test_lines_lead_from_the_input_to_the_output_without_a_gap(self):
        ax = plots.network_diagram(branching())
        ends = [(line.get_xydata()[0], line.get_xydata()[-1]) for line in ax.lines]
        boxes = [
            patch.get_window_extent().transformed(ax.transData.inverted()) for patch in ax.patches if patch.get_lw()
        ]
        for ends_at in [point for pair in ends for point in pair]:
            joins = sum(np.allclose(ends_at, point) for pair in ends for point in pair) - 1
            near = any(box.padded(0.1).contains(*ends_at) for box in boxes)
            outside = ends_at[1] < 3 or ends_at[1] > ax.get_ylim()[0] - 5
            on_a_line = any(abs(line.get_xdata()[0] - ends_at[0]) < 1e-9 for line in ax.lines)
            assert joins or near or outside or on_a_line

    def test_letters_shrink_with_the_axes_and_stay_in_their_boxes(self):
        small, large = (plots.network_diagram(branching(), ax=grid(1, height=height)[0]) for height in (3, 9))
        sizes = []
        for ax in (small, large):
            found = {text.get_text(): (text, box) for text, box in texts(ax.figure) if text.axes is ax}
            boxes = [patch.get_window_extent() for patch in ax.patches]
            text, box = found["β (1,)  Ω (1, 10)"]
            corners = [(box.x0, box.y0), (box.x1, box.y1)]
            assert any(all(b.padded(1).contains(*corner) for corner in corners) for b in boxes)
            sizes.append(text.get_fontsize())
        assert sizes[0] < sizes[1]

    def test_a_layer_of_ones_own_with_many_parameters(self):
        class Many(bp.Layer):
            def __init__(self):
                self.parameters.update({f"a{k}": np.ones((k + 1, 2)) for k in range(5)})

            def forward(self, h):
                return h

            def backward(self, dL_df):
                return dL_df, {}

        words = [text.get_text() for text in plots.network_diagram(Many()).texts]
        assert words[1:4] == ["Many", "a0 (1, 2)  a1 (2, 2)  a2 (3, 2)  …", "30 parameters"]


class TestLandscape:
    def test_a_line_is_the_loss_at_these_weights(self):
        net, loss = plane_net(), bp.BinaryCrossEntropy()
        before = net.phi.copy()
        direction = np.cos(np.arange(net.size))
        ax = plots.loss_line(net, loss, X2, Y2, direction, span=(-2, 3), points=11)
        t, L = ax.lines[0].get_data()
        for each, value in zip(t, L, strict=True):
            twin = net.copy()
            twin.phi[...] = before + each * direction
            assert_allclose(value, loss.forward(twin.predict(X2).T, Y2), rtol=1e-5)
        assert_array_equal(net.phi, before)
        assert [(line.get_xdata()[0], line.get_label()) for line in ax.lines[1:]] == [(0, "φ"), (1, "φ + d")]

    def test_a_surface_is_the_loss_at_these_weights(self):
        net, d = bp.Sequential(bp.Linear(1, 1)), np.eye(2)
        net.phi[...] = [0.5, -1]  # f = β + ω x with x = 1, y = 0: L = (β + s + ω + t)²
        ax = plots.loss_surface(net, bp.LeastSquares(), np.ones((3, 1)), np.zeros(3), d, span=(1, 3), points=9)
        for drawn in contours(ax):
            if not drawn.filled:
                for level, path in zip(drawn.levels, drawn.get_paths(), strict=True):
                    assert_allclose((path.vertices.sum(axis=1) - 0.5) ** 2, level, rtol=0.02)

    def test_random_directions_have_rows_as_long_as_those_of_the_weights(self):
        net = network(bp.Linear(4, 3), bp.BatchNorm(3), bp.Linear(3, 2))
        direction = net.views(landscape.random_direction(net, np.random.default_rng(0)))
        for name, own in direction.items():
            if own.ndim == 1:
                assert not own.any()
            else:
                lengths = np.linalg.norm(net.parameters[name], axis=1)
                assert_allclose(np.linalg.norm(own, axis=1), lengths, rtol=1e-6)

    def test_the_seed_decides(self):
        lines = [plots.loss_line(*SURFACE, seed=seed, points=5).lines[0].get_ydata() for seed in (0, 0, 1)]
        assert_array_equal(lines[0], lines[1])
        assert np.abs(lines[0] - lines[2]).max() > 1e-3

    def test_the_network_is_taken_as_predict_takes_it(self):
        net = network(bp.Linear(2, 4), bp.BatchNorm(4), bp.Dropout(0.9), bp.Linear(4, 1))
        ax = plots.loss_line(net, bp.LeastSquares(), X2, Y2, points=3)
        assert_allclose(ax.lines[0].get_ydata()[1], bp.LeastSquares().forward(net.predict(X2).T, Y2), rtol=1e-6)

    def test_where_the_loss_is_not_finite_there_is_a_gap(self):
        net = network(bp.Linear(2, 1), bp.Exp())
        line = plots.loss_line(net, bp.LeastSquares(), X2, Y2, np.ones(3), span=(0, 200)).lines[0].get_ydata()
        assert np.isfinite(line[0])
        assert np.isnan(line[-1])
        surface = plots.loss_surface(net, bp.LeastSquares(), X2, Y2, np.eye(3)[:2], span=(0, 99), points=9)
        surface.figure.savefig(io.BytesIO(), dpi=40)


def test_the_gradient_check_is_that_of_the_report():
    report = checked(0.3)
    ours, its = plots.gradient_check(report), report.plot()
    assert ours.get_title() == its.get_title()
    for a, b in zip(ours.collections, its.collections, strict=True):
        assert_array_equal(a.get_offsets(), b.get_offsets())


class Parts(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.script, self.inside = [], "", False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag == "script"

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        self.script += data if self.inside else ""


def trainer():
    return bp.Trainer(plane_net(), bp.BinaryCrossEntropy(), bp.Adam(0.05), batch_size=8)


def listed(script, name):
    return json.loads(re.search(rf"^const {name} = (.*);$", script, re.MULTILINE)[1])


BROWSER = """
"use strict";
function node(value) { return { value: value, on: {}, addEventListener(kind, f) { this.on[kind] = f; }, setAttribute() {} }; }
const nodes = { frame: node(), play: node(), slider: node(LAST), caption: node() };
let tick = null;
globalThis.document = { getElementById(id) { return nodes[id]; }, addEventListener(kind, f) { this[kind] = f; } };
globalThis.window = { matchMedia() { return { matches: STILL }; } };
globalThis.setInterval = function (f, delay) { tick = f; return 1; };
globalThis.clearInterval = function () { tick = null; };
const seen = [];
function look() {
  seen.push([Number(nodes.slider.value), frames.indexOf(nodes.frame.src), nodes.caption.textContent, tick !== null]);
}
"""


class TestAnimation:
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch, request):
        if request.node.name != "test_page":
            monkeypatch.setattr(animation, "DPI", 30)
            monkeypatch.setattr(animation, "RESOLUTION", 20)

    def test_gif(self, tmp_path):
        path = tmp_path / "film.gif"
        other, own = trainer(), trainer()
        expected = other.fit(X2, Y2, epochs=3, verbose=0)
        found = plots.animate_training(own, X2, Y2, path, epochs=3, frames_per_second=10, verbose=0)
        assert found["loss"] == expected["loss"]
        assert_array_equal(own.net.phi, other.net.phi)  # looking changes nothing
        with Image.open(path) as film:
            assert film.n_frames == 4
            assert film.info["loop"] == 0
            frames, durations = [], []
            for i in range(4):
                film.seek(i)
                frames.append(np.asarray(film.convert("L"), float))
                durations.append(film.info["duration"])
        assert durations == [100, 100, 100, 2000]
        assert all(np.abs(a - b).max() > 50 for a, b in pairwise(frames))
        assert [each.name for each in tmp_path.iterdir()] == ["film.gif"]

    def test_page(self, tmp_path):
        path = tmp_path / "film.html"
        own = trainer()
        plots.animate_training(own, X2, Y2, path, epochs=3, classes=["<a>", "b"], verbose=0)
        page = path.read_text("utf-8")
        parts = Parts(page)
        frames = listed(parts.script, "frames")
        assert len(frames) == 4
        for frame in frames:
            with Image.open(io.BytesIO(base64.b64decode(frame.removeprefix("data:image/png;base64,")))) as image:
                image.load()
                assert image.size == (image.width, 324)
        captions = listed(parts.script, "captions")
        assert [caption.partition(":")[0] for caption in captions] == [f"epoch {k}" for k in range(4)]
        assert float(captions[-1].split()[-1]) == pytest.approx(own.evaluate(X2, Y2)["loss"], rel=1e-3)
        controls = {tag: attributes for tag, attributes in parts.tags if tag in ("button", "input", "img")}
        assert controls["input"]["type"] == "range"
        assert controls["input"]["max"] == "3"
        assert controls["img"]["src"] == frames[-1]
        assert "epoch 3" in controls["img"]["alt"]
        assert page.startswith("<!doctype html>")

    def test_page_needs_nothing_from_elsewhere(self, tmp_path):
        plots.animate_training(trainer(), X2, Y2, tmp_path / "film.html", epochs=1, verbose=0)
        page = (tmp_path / "film.html").read_text("utf-8")
        for tag, attributes in Parts(page).tags:
            assert tag not in ("link", "iframe", "object", "base")
            for name in ("src", "href", "action", "data", "srcset"):
                assert attributes.get(name, "data:").startswith("data:")
        rest = re.sub(r"data:image/png;base64,[\w+/=]+", "", page)
        assert not re.search(r"https?:|//\w|@import|url\(|fetch|XMLHttp|\{\{", rest)

    @pytest.mark.skipif(shutil.which("node") is None, reason="runs the page's script in node")
    @pytest.mark.parametrize("still", [False, True], ids=["plays", "waits where less motion is wanted"])
    def test_page_plays_pauses_and_slides(self, still):
        images = [Image.new("RGB", (4, 4), (90 * k, 0, 0)).quantize(4) for k in range(3)]
        script = Parts(animation.page(images, ["zero", "one", "two"], 5)).script
        use = """
look(); if (tick === null) { nodes.play.on.click(); look(); }
tick(); look(); nodes.play.on.click(); look(); nodes.play.on.click(); tick(); look();
nodes.slider.value = "1"; nodes.slider.on.input(); look();
document.keydown({ key: "ArrowLeft" }); look(); document.keydown({ key: "ArrowLeft" }); look();
console.log(JSON.stringify(seen));
"""
        browser = BROWSER.replace("LAST", "2").replace("STILL", json.dumps(still))
        run = subprocess.run(["node", "-e", browser + script + use], capture_output=True, text=True, check=True)
        expected = [[0, 0, "zero", True], [1, 1, "one", True], [1, 1, "one", False], [2, 2, "two", False]]
        expected += [[1, 1, "one", False], [0, 0, "zero", False], [0, 0, "zero", False]]
        found = json.loads(run.stdout)
        assert found[-7:] == expected
        if still:
            assert found[0][3] is False

    def test_many_epochs_leave_some_out_but_not_the_last(self, monkeypatch, tmp_path):
        monkeypatch.setattr(animation, "MOST_FRAMES", 3)
        plots.animate_training(trainer(), X2, Y2, tmp_path / "film.html", epochs=7, verbose=0)
        captions = listed(Parts((tmp_path / "film.html").read_text("utf-8")).script, "captions")
        assert [caption.partition(":")[0] for caption in captions] == ["epoch 0", "epoch 1", "epoch 4", "epoch 7"]

    def test_ctrl_c_ends_training_and_the_film(self, monkeypatch, tmp_path):
        evaluate, calls = bp.Trainer.evaluate, []

        def interrupted(self, *args, **kwargs):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return evaluate(self, *args, **kwargs)

        monkeypatch.setattr(bp.Trainer, "evaluate", interrupted)
        found = plots.animate_training(trainer(), X2, Y2, tmp_path / "film.gif", epochs=9, verbose=0)
        assert found.stopped == "Ctrl-C"
        with Image.open(tmp_path / "film.gif") as film:
            assert film.n_frames == 2

    def test_training_that_fails_leaves_the_old_film(self, tmp_path):
        path = tmp_path / "film.gif"
        path.write_bytes(b"the old one")
        own = bp.Trainer(plane_net(), bp.LeastSquares(), bp.SGD(1e30))
        with pytest.raises(FloatingPointError):
            plots.animate_training(own, X2, Y2, path, epochs=5, verbose=0)
        assert path.read_bytes() == b"the old one"
        assert [each.name for each in tmp_path.iterdir()] == ["film.gif"]

    @pytest.mark.parametrize(
        ("path", "error", "match"),
        [
            ("film.mp4", ValueError, r"a path that ends in \.gif or \.html, got '.*film\.mp4'"),
            ("nowhere/film.gif", FileNotFoundError, "there is no folder '.*nowhere'"),
        ],
    )
    def test_refuses_a_path_before_the_first_step(self, path, error, match, tmp_path):
        own = trainer()
        with pytest.raises(error, match=match):
            plots.animate_training(own, X2, Y2, tmp_path / path, verbose=0)
        assert own.epochs_done == 0
        assert list(tmp_path.iterdir()) == []

    def test_heights_keep_their_scale(self, tmp_path):
        own = bp.Trainer(plane_net(), bp.LeastSquares(), bp.Adam(0.01))
        plots.animate_training(own, X2, X2[:, 0], tmp_path / "film.gif", epochs=1, verbose=0)
        assert (tmp_path / "film.gif").stat().st_size > 1000


NET = plane_net()
THREE = network(bp.Linear(3, 1))
BAD = {
    "curves: no history": (lambda: plots.learning_curves({"loss": [1]}), TypeError, "a History, or a list of Epoch, got a dict"),
    "curves: empty": (lambda: plots.learning_curves(bp.History()), ValueError, "at least one epoch, got an empty one"),
    "curves: metric": (lambda: plots.learning_curves(history(), "f1"), ValueError, r"metric one of \['epoch'.*\], got 'f1'"),
    "curves: NaN": (
        lambda: plots.learning_curves([replace(history(1, False)[0], loss=np.nan)]), ValueError, "a finite loss in at least one"),
    "batch: no dict": (lambda: plots.batch_size_tradeoff([history()]), TypeError, r"a dict .* got a list\. Write \{32"),
    "batch: empty": (lambda: plots.batch_size_tradeoff({}), ValueError, "at least one history, got none"),
    "batch: size": (lambda: plots.batch_size_tradeoff({0: history()}), ValueError, "batch size ≥ 1, got 0"),
    "batch: one axes": (
        lambda: plots.batch_size_tradeoff(histories(), ax=grid(1)), ValueError, r"ax: 2 axes, one per panel, got 1\. Make"),
    "magnitudes: class": (lambda: plots.magnitudes(plots.Magnitudes), TypeError, r"Write Magnitudes\(…\)"),
    "magnitudes: empty": (
        lambda: plots.magnitudes(plots.Magnitudes(X2, Y2)), ValueError, r"an empty one\. Hand it to fit"),
    "magnitudes: rows": (lambda: plots.Magnitudes(X2, Y2[:3]).start(trainer()), ValueError, "Magnitudes: expected y with shape"),
    "weights: no net": (lambda: plots.weights("net"), TypeError, "net: a Layer, got 'net'"),
    "weights: none": (lambda: plots.weights(bp.Sequential(bp.Tanh())), ValueError, "at least one matrix .* got none"),
    "weights: pattern": (lambda: plots.weights(NET, "9.*"), ValueError, "which matches none"),
    "weights: vectors": (lambda: plots.weights(NET, "*.beta"), ValueError, r"got \['0.beta', '2.beta'\]"),
    "boundary: no model": (lambda: plots.decision_boundary(bp.Sequential, X2, Y2), TypeError, r"a model with predict\(X\)"),
    "boundary: 3-D": (
        lambda: plots.decision_boundary(THREE, np.ones((4, 3)), np.ones(4)), ValueError, r"got shape \(4, 3\)\. Choose two"),
    "boundary: NaN": (
        lambda: plots.decision_boundary(NET, np.full((4, 2), np.nan), np.ones(4)), ValueError, "finite values in X, got nan"),
    "boundary: y": (lambda: plots.decision_boundary(NET, X2, Y2[:, None]), ValueError, r"Pass y\.ravel\(\)"),
    "boundary: labels": (lambda: plots.decision_boundary(plane_net(3), X2, Y2 + 2), ValueError, r"labels 0 … 2, got 3 at row 1"),
    "boundary: names": (lambda: plots.decision_boundary(plane_net(3), X2, Y2, "ab"), ValueError, "at least 3 names in classes"),
    "boundary: inputs": (lambda: plots.decision_boundary(THREE, X2, Y2), ValueError, "X with 3 columns"),
    "boundary: y NaN": (
        lambda: plots.decision_boundary(NET, X2, np.where(Y2, np.nan, 0.5)), ValueError, "finite values in y, got nan"),
    "confusion: lengths": (lambda: plots.confusion_matrix([0, 1], [0]), ValueError, r"\(2,\), that of y, got shape \(1,"),
    "confusion: outputs": (
        lambda: plots.confusion_matrix([0, 1], np.eye(2)), ValueError, r"Pass predicted\.argmax\(axis=1\)"),
    "confusion: half": (lambda: plots.confusion_matrix([0, 0.5], [0, 1]), ValueError, "labels 0 … 1, got 0.5 at row 1"),
    "confusion: below": (lambda: plots.confusion_matrix([0, -1], [0, 1]), ValueError, "got -1 at row 1"),
    "confusion: words": (lambda: plots.confusion_matrix(["a"], ["b"], ["a"]), ValueError, r"labels among \['a'\], got 'b'"),
    "confusion: empty": (lambda: plots.confusion_matrix([], []), ValueError, "at least one example"),
    "diagram: no net": (lambda: plots.network_diagram([bp.Tanh()]), TypeError, "net: a Layer"),
    "units: no net": (lambda: plots.units(bp.Tanh(), bp.LeastSquares(), [1.0], [2.0], ("0.omega", 0, 0)), TypeError, "net"),
    "units: no place": (lambda: units(None, "0.omega"), TypeError, r"weight: \(name, row, column\)"),
    "units: another layer": (
        lambda: units(None, net=network(bp.Linear(2, 3), bp.LayerNorm(3))), TypeError, r"units: .*activations, got LayerNorm"),
    "units: wide": (lambda: units(None, net=network(bp.Linear(2, 9))), ValueError, r"at most 8 units, got Linear\(2 → 9\)"),
    "units: name": (lambda: units(None, ("omega", 0, 0)), ValueError, r"one of 0\.omega, 2\.omega, 4\.omega, got 'omega'"),
    "units: place": (lambda: units(None, ("0.omega", 3, 0)), ValueError, r"a row and a column of 0\.omega \(3, 2\), got 3, 0"),
    "units: x": (
        lambda: plots.units(SMALL, bp.LeastSquares(), [1.0], [2.0], ("0.omega", 0, 0)), ValueError, "units: expected X with 2"),
    "line: direction": (lambda: plots.loss_line(*SURFACE, np.ones(3)), ValueError, r"\(25,\), that of φ, got shape \(3,\)"),
    "line: zeros": (lambda: plots.loss_line(*SURFACE, np.zeros(25)), ValueError, "a direction, got zeros"),
    "line: NaN": (lambda: plots.loss_line(*SURFACE, np.full(25, np.inf)), ValueError, "finite values in a direction"),
    "line: span": (lambda: plots.loss_line(*SURFACE, span=(1, -1)), ValueError, "last of span > 1, got -1"),
    "line: a number": (lambda: plots.loss_line(*SURFACE, span=2), TypeError, r"span \(first, last\), got 2"),
    "line: y": (lambda: plots.loss_line(NET, bp.BinaryCrossEntropy(), X2, Y2 + 1), ValueError, "loss_line|BinaryCrossEntropy"),
    "line: no weights": (
        lambda: plots.loss_line(bp.Sequential(bp.LayerNorm(2)), bp.LeastSquares(), X2, X2), ValueError, "Random directions"),
    "line: not finite": (
        lambda: plots.loss_line(network(bp.Linear(2, 1), bp.Exp()), bp.LeastSquares(), X2, Y2, np.eye(3)[0], span=(500, 501)),
        ValueError, "a finite loss somewhere, got none"),
    "surface: one": (lambda: plots.loss_surface(*SURFACE, [np.ones(25)]), ValueError, "two directions"),
    "check: no report": (lambda: plots.gradient_check(checked), TypeError, "report: a GradientReport"),
    "film: no trainer": (lambda: plots.animate_training(NET, X2, Y2, "a.gif"), TypeError, "trainer: a Trainer"),
    "film: 3-D": (lambda: plots.animate_training(trainer(), np.ones((4, 3)), np.ones(4), "a.gif"), ValueError, r"\(N, 2\)"),
    "film: epochs": (lambda: plots.animate_training(trainer(), X2, Y2, "a.gif", epochs=0), ValueError, "epochs ≥ 1"),
    "film: speed": (lambda: plots.animate_training(trainer(), X2, Y2, "a.gif", frames_per_second=0), ValueError, "> 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, error, match = BAD[name]
    with pytest.raises(error, match=match) as caught:
        call()
    assert re.match(r"[\w() →.,]+: expected .+, got .+\.", str(caught.value), re.DOTALL)
    assert list(tmp_path.iterdir()) == []


class TestUnits:
    """The numbers in the units are derivatives: by the weight in the first picture, of ℓ in the second."""

    @pytest.mark.parametrize("weight", [("0.omega", 1, 0), ("2.omega", 0, 2), ("4.omega", 0, 1)], ids=str)
    def test_the_numbers_are_the_derivatives(self, weight):
        x, y, loss, tiny = np.array([1.0, -1.0]), np.array([2.0]), bp.LeastSquares(), 1e-6
        numbers = bp.explain(SMALL, loss, X=[x], y=y).numbers

        def held(change):
            net = SMALL.copy()
            net.parameters[weight[0]][weight[1:]] += change
            values = bp.explain(net, loss, X=[x], y=y).numbers
            return np.concatenate([np.ravel(values[name]) for name in ("x", "h_1", "h_2", "f_2", "ℓ")])

        moved = (held(tiny) - held(-tiny)) / (2 * tiny)
        slopes = [numbers[f"∂L/∂{name}"] for name in ("x", "h_1", "h_2", "f_2")]
        expected = [moved, np.concatenate([*map(np.ravel, slopes), [1.0]])]
        for ax, right in zip(units(None, weight), expected, strict=True):
            words = [text.get_text().replace("−", "-") for text in ax.texts]
            shown = [float(word) for word in words if re.fullmatch(r"-?[\d.]+(e[+-]\d+)?", word)]
            assert_allclose(shown, right, rtol=0.06, atol=1e-8)

    def test_the_ways_meet_at_the_weight(self):
        forward, backward = (" ".join(text.get_text() for text in ax.texts) for ax in units(None))
        arrived = re.search(r"at ℓ it is (\S+)", forward)[1]
        assert backward.endswith(f"= {arrived}")
        step = bp.explain(SMALL, bp.LeastSquares(), X=[[1.0, -1.0]], y=[2.0]).numbers["∂L/∂Ω_0"][1, 0]
        assert float(arrived.replace("−", "-")) == pytest.approx(step, rel=5e-3)

    def test_takes_labels_and_several_targets(self):
        net = network(bp.Linear(2, 3))
        for loss, y in ((bp.CrossEntropy(), 2), (bp.LeastSquares(), [1.0, 2.0, 0.5])):
            assert len(plots.units(net, loss, [1.0, -1.0], y, ("0.omega", 0, 0))) == 2

    def test_nothing_of_the_caller_is_changed(self):
        net, phi = SMALL.copy(), SMALL.phi.copy()
        units(None, net=net)
        assert_array_equal(net.phi, phi)
