"""`explain`: its numbers are those of forward and backward, it changes nothing, and it reads well."""

import re
import sys
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import backprop as bp

MODULE = import_module("backprop.gradients.explain")


class Scale(bp.Layer):
    """A layer of one's own, without equations."""

    def __init__(self, features):
        self.parameters["gain"] = np.full((features, 1), 2.0)

    def forward(self, h):
        self.h = h
        return self.parameters["gain"] * h

    def backward(self, dL_df):
        return self.parameters["gain"] * dL_df, {"gain": (dL_df * self.h).sum(axis=1, keepdims=True)}


class Overwriting(bp.Layer):
    """A layer that writes over the h it is handed."""

    keeps_width = True
    equations = ("f = 3 h", "∂L/∂h = 3 ∂L/∂f")

    def forward(self, h):
        h *= 3
        return h

    def backward(self, dL_df):
        return 3 * dL_df, {}


class Cubic(bp.Loss):
    """A loss of one's own, without equations."""

    def ell(self, f, y):
        self.d = f - y
        return (self.d**3).sum(axis=0)

    def dell_df(self):
        return 3 * self.d**2


ELEMENTWISE = [
    *(bp.ReLU, bp.LeakyReLU, bp.ELU, bp.SiLU, bp.GELU, bp.Softplus, bp.Sigmoid, bp.Tanh),
    *(bp.Sin, bp.Cos, bp.Exp, bp.Identity),
]
LAYERS = [
    *[kind() for kind in ELEMENTWISE],
    bp.Linear(3, 3, seed=1),
    bp.Linear(3, 3, bias=False, seed=1),
    bp.Dropout(0.5, seed=1),
    bp.BatchNorm(3),
    bp.LayerNorm(3),
    bp.Residual(bp.Linear(3, 3, seed=1)),
    bp.FanOut(bp.Linear(3, 2, seed=1), bp.Sin()),
    bp.FanOut(bp.Exp(), bp.Sin(), join="sum"),
    bp.Sequential(bp.Linear(3, 4, seed=1), bp.Tanh(), bp.Sequential(bp.Cos())),
    Scale(3),
]
LOSSES = [
    (bp.LeastSquares(), "columns"),
    (bp.LeastSquares(reduction="sum"), "columns"),
    (bp.AbsoluteError(), "columns"),
    (bp.Huber(), "columns"),
    (bp.Poisson(), "positive"),
    (bp.BinaryCrossEntropy(), "binary"),
    (bp.CrossEntropy(), "labels"),
    (bp.CrossEntropy(), "binary"),
    (bp.Pinball([0.2, 0.8]), "half"),
    (bp.GaussianNLL(), "half"),
    (Cubic(), "columns"),
]


def classifier():
    """The 2-3-2 network, four examples with their labels."""
    net = bp.Sequential(bp.Linear(2, 3), bp.ReLU(), bp.Linear(3, 2), seed=0)
    return net, np.array([[1.0, 2.0], [-1.0, 0.5], [0.0, -2.0], [3.0, 1.0]]), np.array([0, 1, 1, 0])


def in_float64(net):
    twin = net.copy()
    twin.bind(twin.phi.astype(np.float64))
    return twin


def printed(text, name):
    """The numbers that stand behind `name` in the text, up to the next name."""
    found = re.search(
        rf"^ *{re.escape(name)}(?: =[^\n]*?)? +\([\d, ]*\) +(\[[\s\d.e\[\]+-]*\]|\S+)", text, re.MULTILINE
    )
    return np.array(re.findall(r"-?[\d.]+(?:e[+-]\d+)?", found[1]), dtype=float)


def test_the_numbers_are_those_of_forward_and_backward():
    net, X, y = classifier()
    numbers = bp.explain(net, bp.CrossEntropy(), X, y).numbers
    twin, loss = in_float64(net), bp.CrossEntropy()
    L = loss.forward(twin.forward(X.T), y)
    dL_dx, gradients = twin.backward(loss.backward())
    assert_allclose(numbers["L"], L, rtol=1e-15)
    assert_allclose(numbers["f_1"], twin.forward(X.T), rtol=1e-15)
    assert_allclose(numbers["h_1"], twin[0].forward(X.T).clip(0), rtol=1e-15)
    assert_allclose(numbers["∂L/∂f_1"], loss.backward(), rtol=1e-15)
    assert_allclose(numbers["∂L/∂x"], dL_dx, rtol=1e-13)
    for key, k in (("0", 0), ("2", 1)):
        assert_array_equal(numbers[f"β_{k}"], net.parameters[f"{key}.beta"])
        assert_array_equal(numbers[f"Ω_{k}"], net.parameters[f"{key}.omega"])
        assert_allclose(numbers[f"∂L/∂β_{k}"], gradients[f"{key}.beta"], rtol=1e-13)
        assert_allclose(numbers[f"∂L/∂Ω_{k}"], gradients[f"{key}.omega"], rtol=1e-13)


def test_every_number_is_printed():
    net, X, y = classifier()
    explanation = bp.explain(net, bp.CrossEntropy(), X, y)
    for text in (explanation.text, explanation.markdown):
        for name, array in explanation.numbers.items():
            assert_allclose(printed(text, name), array.ravel(), atol=6e-5, err_msg=name)


def test_the_steps_come_in_the_order_of_the_notes():
    net = bp.Sequential(bp.Linear(1, 1), bp.Sin(), bp.Linear(1, 1), seed=0)
    explanation = bp.explain(net, bp.LeastSquares(), [[0.5]], [1.0])
    assert [item.equation for step in explanation.forward for item in step.items] == [
        *("x", "β_0", "Ω_0", "f_0 = β_0 + Ω_0 x", "h_1 = sin(f_0)"),
        *("β_1", "Ω_1", "f_1 = β_1 + Ω_1 h_1", "y", "ℓ = Σₖ (f_1 − y)²", "L = Σₙ ℓₙ / N"),
    ]
    assert [item.equation for step in explanation.backward for item in step.items] == [
        *("∂ℓ/∂f_1 = 2 (f_1 − y)", "∂L/∂f_1 = ∂ℓ/∂f_1 / N"),
        *("∂L/∂h_1 = Ω_1ᵀ ∂L/∂f_1", "∂L/∂β_1 = Σₙ ∂L/∂f_1", "∂L/∂Ω_1 = ∂L/∂f_1 h_1ᵀ"),
        "∂L/∂f_0 = cos(f_0) ⊙ ∂L/∂h_1",
        *("∂L/∂x = Ω_0ᵀ ∂L/∂f_0", "∂L/∂β_0 = Σₙ ∂L/∂f_0", "∂L/∂Ω_0 = ∂L/∂f_0 xᵀ"),
    ]


def test_names_stay_distinct_where_layers_without_parameters_follow_each_other():
    net = bp.Sequential(bp.Exp(), bp.Linear(2, 2), bp.LayerNorm(2), bp.Tanh(), bp.Sin(), bp.Cos(), seed=0)
    explanation = bp.explain(net, bp.LeastSquares(), np.ones((1, 2)), np.ones((1, 2)))
    outputs = [step.items[-1].name for step in explanation.forward[1:-1]]
    assert outputs == ["h_0", "f_0", "f_1", "h_2", "h_2'", "h_2''"]
    assert explanation.backward[1].items[0].equation == "∂L/∂h_2' = −sin(h_2') ⊙ ∂L/∂h_2''"
    assert "f_1 = β_1 + γ_1 ⊙ z, z = (f_0 − mean) / σ" in explanation.text


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_every_layer(layer):
    rng = np.random.default_rng(0)
    net = bp.Sequential(bp.Linear(2, 3, seed=0), layer.copy())
    X = rng.normal(size=(4, 2))
    y = rng.normal(size=net.predict(X).shape)
    explanation = bp.explain(net, bp.LeastSquares(), X, y)
    twin, loss = in_float64(net), bp.LeastSquares()
    L = loss.forward(twin.forward(X.T), y.T)
    dL_dx, gradients = twin.backward(loss.backward())
    numbers = explanation.numbers
    assert_allclose(numbers["L"], L, rtol=1e-13)
    assert_allclose(numbers["∂L/∂x"], dL_dx, rtol=1e-12, atol=1e-15)
    shown = [array.ravel() for name, array in numbers.items() if re.match("∂L/∂[βΩγg]", name)]
    assert len(shown) == len(gradients)
    # backward goes from the last layer to the first, so compare them as sets of numbers
    assert_allclose(np.sort(np.concatenate(shown)), np.sort(gradients.dL_dphi), rtol=1e-12, atol=1e-15)
    assert str(explanation) == repr(explanation) == explanation.text
    assert explanation._repr_markdown_() == explanation.markdown


@pytest.mark.parametrize(("loss", "kind"), LOSSES, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_loss(loss, kind, weighted):
    net, X, labels = classifier()
    y = {
        "columns": np.array([[0.5, 1.0], [2.0, -1.0], [0.0, 0.0], [1.0, 3.0]]),
        "positive": np.array([[0, 1], [2, 1], [0, 0], [1, 3]]),
        "binary": np.eye(2)[labels],
        "labels": labels,
        "half": np.array([0.5, 1.0, -1.0, 0.0]),
    }[kind]
    w = np.array([1.0, 0.0, 2.0, 0.5]) if weighted else None
    explanation = bp.explain(net, loss, X, y, w)
    f = in_float64(net).forward(X.T)
    L = loss.forward(f, y.T, w)
    numbers = explanation.numbers
    assert_allclose(numbers["L"], L, rtol=1e-14)
    assert_allclose(numbers["ℓ"], loss.per_example(f, y.T), rtol=1e-14)
    assert_allclose(numbers["∂L/∂f_1"], loss.backward(), rtol=1e-14, atol=1e-16)
    assert ("w" in numbers) == weighted
    divisor = {False: "N", True: "Σₙ wₙ"}[weighted]
    ell = "wₙ ℓₙ" if weighted else "ℓₙ"
    assert f"L = Σₙ {ell}{'' if loss.reduction == 'sum' else f' / {divisor}'} " in explanation.text


def test_nothing_of_the_network_or_the_loss_changes():
    net = bp.Sequential(bp.Linear(2, 3), bp.BatchNorm(3), bp.Dropout(0.5, seed=3), Overwriting(), bp.Exp(), seed=0)
    loss, X, y = bp.LeastSquares(), np.ones((4, 2)), np.zeros((4, 3))
    X[1] = 2
    f = net.forward(X.T.astype(np.float32))
    loss.forward(f, y.T)
    phi, before = net.phi.copy(), net.backward(loss.backward())
    buffers = {name: b.copy() for name, b in net.buffers.items()}
    untouched = net.copy()
    bp.explain(net, loss, 3 * X, y + 1, np.arange(4.0))
    assert net.phi.dtype == np.float32
    assert_array_equal(net.phi, phi)
    assert np.shares_memory(net.phi, net[0].parameters["omega"])
    for name, b in buffers.items():
        assert_array_equal(net.buffers[name], b)
    after = net.backward(loss.backward())
    assert_array_equal(after[0], before[0])
    assert_array_equal(after[1].dL_dphi, before[1].dL_dphi)
    assert_array_equal(net.forward(X.T), untouched.forward(X.T))  # the next dropout mask too
    assert_array_equal(X, [[1, 1], [2, 2], [1, 1], [1, 1]])


def test_the_input_of_a_layer_that_writes_over_it_is_shown_as_it_was():
    net = bp.Sequential(bp.Linear(2, 2, seed=0), Overwriting())
    numbers = bp.explain(net, bp.LeastSquares(), np.ones((1, 2)), np.zeros((1, 2))).numbers
    assert_allclose(numbers["h_1"], 3 * numbers["f_0"])
    assert_allclose(numbers["f_0"], in_float64(net)[0].forward(np.ones((2, 1))))


def test_a_layer_and_a_loss_of_ones_own_show_the_chain_rule():
    net = bp.Sequential(bp.Linear(2, 2), Scale(2), seed=0)
    text = bp.explain(net, Cubic(), np.ones((1, 2)), np.zeros((1, 2))).text
    assert "f_1 = Scale[f_0]" in text
    assert "∂L/∂f_0 = ∂f_1/∂f_0 ∂L/∂f_1" in text
    assert "∂L/∂gain_1 = ∂f_1/∂gain_1 ∂L/∂f_1" in text
    assert "ℓ = loss[f_1, y]" in text
    assert text.count("loss: Cubic()\n") == 2


def test_markdown_has_the_equations_and_the_shapes():
    net, X, y = classifier()
    markdown = bp.explain(net, bp.CrossEntropy(), X, y).markdown
    assert markdown.startswith("## Forward pass\n\n### the examples\n\n```text\nx ")
    assert "\n## Backward pass\n" in markdown
    assert "\n### layer 0: Linear(2 → 3)\n" in markdown
    for equation, shape in {
        "f_0 = β_0 + Ω_0 x": "(3, 4)",
        "h_1 = max(f_0, 0)": "(3, 4)",
        "∂ℓ/∂f_1 = softmax(f_1) − onehot(y)": "(2, 4)",
        "∂L/∂f_0 = 𝕀[f_0 > 0] ⊙ ∂L/∂h_1": "(3, 4)",
        "∂L/∂Ω_0 = ∂L/∂f_0 xᵀ": "(3, 2)",
        "∂L/∂β_0 = Σₙ ∂L/∂f_0": "(3,)",
    }.items():
        assert re.search(f"^{re.escape(equation)} +{re.escape(shape)}", markdown, re.MULTILINE), equation
    assert markdown.count("```") % 2 == 0


def test_a_larger_network_stays_on_a_few_screens():
    net = bp.Sequential(bp.Linear(64, 32), bp.ReLU(), bp.Linear(32, 10), seed=0)
    X = np.random.default_rng(0).normal(size=(5, 64))
    lines = bp.explain(net, bp.CrossEntropy(), X, np.arange(5)).text.splitlines()
    assert len(lines) < 150
    assert max(map(len, lines)) <= 120
    assert any("..." in line for line in lines)


def test_small_gradients_keep_their_digits():
    net = bp.Sequential(bp.Linear(1, 1, initializer=bp.Constant(1)))
    text = bp.explain(net, bp.LeastSquares(), [[1.0]], [1 - 2e-7]).text
    assert_allclose(printed(text, "∂L/∂Ω_0"), 4e-7, rtol=1e-4)


def test_minus_zero_is_printed_as_zero():
    net = bp.Sequential(bp.Linear(1, 1, initializer=bp.Constant(-1)), bp.ReLU())
    assert "-0" not in bp.explain(net, bp.LeastSquares(), [[1.0]], [1.0]).text


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (
            {"X": lambda X: X.T},
            ValueError,
            r"explain: expected X with 2 columns .* got shape \(2, 4\)\. .* X\.T",
        ),
        ({"X": lambda X: X[0]}, ValueError, r"explain: expected X with shape \(N, D\).*X\.reshape\(1, -1\)"),
        ({"X": lambda X: X[:, :1]}, ValueError, r"explain: expected X with 2 columns"),
        (
            {"X": lambda X: X * np.nan},
            ValueError,
            r"explain: expected finite values in X, got nan at row 0, column 0",
        ),
        ({"X": lambda X: X + 1j}, TypeError, r"explain: expected X real numbers"),
        ({"X": lambda X: X[:0]}, ValueError, r"explain: expected X with at least one example"),
        (
            {"y": lambda y: y[:3]},
            ValueError,
            r"explain: expected y with shape \(4,\) or \(4, 2\) .*got shape \(3,\)",
        ),
        (
            {"y": lambda y: y[:, None]},
            ValueError,
            r"explain: expected y .*got shape \(4, 1\)\. Pass y\.ravel\(\)\.",
        ),
        (
            {"y": lambda y: np.eye(2)[y].T},
            ValueError,
            r"explain: expected y .*got shape \(2, 4\)\. Pass y\.T\.",
        ),
        ({"y": lambda y: y + 1}, ValueError, r"CrossEntropy\(\): expected labels 0 … 1, got 2 at row 1"),
        ({"y": lambda y: y.astype(str)}, TypeError, r"explain: expected y numbers, got an array of dtype"),
        (
            {"y": lambda y: np.where(y, np.inf, 0)},
            ValueError,
            r"explain: expected finite values in y, got inf at row 1",
        ),
        (
            {"sample_weight": lambda _: np.ones(3)},
            ValueError,
            r"explain: expected sample_weight with shape \(4,\)",
        ),
        ({"sample_weight": lambda _: -np.ones(4)}, ValueError, r"explain: expected sample_weight ≥ 0"),
        ({"net": lambda net: net[0]}, TypeError, r"explain: expected net: a Sequential, got Linear\(2 → 3\)"),
        (
            {"loss": lambda _: bp.CrossEntropy},
            TypeError,
            r"explain: expected loss: a Loss.* Write CrossEntropy\(…\)\.",
        ),
    ],
)
def test_bad_input(change, error, says):
    net, X, y = classifier()
    arguments = {"net": net, "loss": bp.CrossEntropy(), "X": X, "y": y, "sample_weight": None}
    [(name, transform)] = change.items()
    arguments[name] = transform(arguments[name])
    with pytest.raises(error, match=says):
        bp.explain(**arguments)


def test_one_target_per_example_is_never_broadcast():
    net = bp.Sequential(bp.Linear(2, 1), seed=0)
    X, y = np.ones((3, 2)), np.array([1.0, 2.0, 3.0])
    assert bp.explain(net, bp.LeastSquares(), X, y).text == bp.explain(net, bp.LeastSquares(), X, y[:, None]).text
    wide = bp.Sequential(bp.Linear(2, 3), seed=0)
    with pytest.raises(ValueError, match=r"explain: expected y with shape \(3, 3\) .*got shape \(3,\)"):
        bp.explain(wide, bp.LeastSquares(), X, y)


class TestWalk:
    """An equation at a time, and all of them where nobody waits."""

    def explanation(self):
        net, X, y = classifier()
        return bp.explain(net, bp.CrossEntropy(), X, y)

    def test_the_lines_are_the_text(self):
        explanation = self.explanation()
        assert "\n".join(explanation.lines) == explanation.text
        assert len(explanation.lines) == len(explanation.numbers)
        for line, name in zip(explanation.lines, explanation.numbers, strict=True):
            assert re.search(rf"^    {re.escape(name)}\b", line, re.MULTILINE)

    @pytest.mark.parametrize(("where", "end"), [("terminal", ""), ("notebook", "\n")])
    def test_waits_after_each_line(self, where, end, monkeypatch, capsys):
        explanation, shown = self.explanation(), []
        monkeypatch.setattr(MODULE, "_who_waits", lambda: where)
        monkeypatch.setattr("builtins.input", lambda: shown.append(capsys.readouterr().out))
        explanation.walk()
        assert shown == [line + end for line in explanation.lines[:-1]]
        assert capsys.readouterr().out == explanation.lines[-1] + "\n"

    @pytest.mark.parametrize(("where", "error"), [("terminal", EOFError), ("notebook", NotImplementedError)])
    def test_goes_on_alone_where_there_is_no_input_after_all(self, where, error, monkeypatch, capsys):
        def nobody():
            raise error

        monkeypatch.setattr(MODULE, "_who_waits", lambda: where)
        monkeypatch.setattr("builtins.input", nobody)
        explanation = self.explanation()
        explanation.walk()
        assert capsys.readouterr().out == explanation.text + "\n"

    def test_ends_with_ctrl_c(self, monkeypatch, capsys):
        def stop():
            raise KeyboardInterrupt

        monkeypatch.setattr(MODULE, "_who_waits", lambda: "terminal")
        monkeypatch.setattr("builtins.input", stop)
        explanation = self.explanation()
        explanation.walk()
        assert capsys.readouterr().out == explanation.lines[0] + "\n"

    def test_does_not_wait_in_a_pipe(self, monkeypatch, capsys):
        monkeypatch.setattr("builtins.input", lambda: pytest.fail("asked"))
        explanation = self.explanation()
        explanation.walk()
        assert capsys.readouterr().out == explanation.text + "\n"

    def test_knows_a_notebook_by_its_kernel(self, monkeypatch):
        shell = SimpleNamespace(kernel=object())
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
        assert MODULE._who_waits() == "notebook"
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
        assert MODULE._who_waits() == ""
        monkeypatch.setattr("sys.stdin", None)
        assert MODULE._who_waits() == ""
