"""The worked examples of the lecture notes, with the arithmetic right."""

import math
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose

import backprop as bp

GENERATOR = np.random.default_rng(7)


def forward_all(net, h):
    """[h, f_0, h_1, f_1, …]: the input and what each layer returned."""
    values = [h]
    for layer in net:
        values.append(layer.forward(values[-1]))
    return values


def backward_all(net, dL_df):
    """The gradients of the same values, in the same order, and the layers' gradients."""
    slopes, parameters = [dL_df], []
    for layer in reversed(list(net)):
        dL_dh, gradients = layer.backward(slopes[-1])
        slopes.append(dL_dh)
        parameters.append(gradients)
    return slopes[::-1], parameters[::-1]


def numeric_jacobian(function, point, step=1e-6):
    """∂f/∂a in the layout of the notes: a column for each element of f, a row for each element of a."""
    rows = []
    for i in range(point.size):
        change = np.zeros_like(point)
        change[i] = step
        rows.append((function(point + change) - function(point - change)) / (2 * step))
    return np.array(rows)


# The toy network: f = β3 + ω3 cos[β2 + ω2 exp[β1 + ω1 sin[β0 + ω0 x]]], ℓ = (f − y)²

TOYS = [
    # (β0, β1, β2, β3), (ω0, ω1, ω2, ω3), x, y
    ((1.0, 2.0, -3.0, 0.4), (0.1, -0.4, 2.0, 3.0), 2.3, 2.0),
    ((0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0), 0.5, 1.0),
    ((-0.3, 0.1, 0.7, -1.2), (0.9, 0.5, -1.1, 0.6), -1.4, 0.25),
]


def toy_network(beta, omega):
    """The toy network with these parameters."""
    net = bp.Sequential(
        *(bp.Linear(1, 1), bp.Sin(), bp.Linear(1, 1), bp.Exp(), bp.Linear(1, 1), bp.Cos(), bp.Linear(1, 1)),
        dtype="float64",
    )
    net.phi[0::2], net.phi[1::2] = beta, omega
    return net


@pytest.mark.parametrize(("beta", "omega", "x", "y"), TOYS)
def test_toy_network_by_the_chain_rule(beta, omega, x, y):
    (b0, b1, b2, b3), (w0, w1, w2, w3) = beta, omega
    # forward, one intermediate quantity after another
    f0 = b0 + w0 * x
    h1 = math.sin(f0)
    f1 = b1 + w1 * h1
    h2 = math.exp(f1)
    f2 = b2 + w2 * h2
    h3 = math.cos(f2)
    f3 = b3 + w3 * h3
    ell = (f3 - y) ** 2
    # backward: each derivative from the one before it, so each product of the chain rule is formed once
    dl_df3 = 2 * (f3 - y)
    dl_dh3 = w3 * dl_df3
    dl_df2 = -math.sin(f2) * dl_dh3
    dl_dh2 = w2 * dl_df2
    dl_df1 = math.exp(f1) * dl_dh2
    dl_dh1 = w1 * dl_df1
    dl_df0 = math.cos(f0) * dl_dh1
    dl_dx = w0 * dl_df0

    net, loss = toy_network(beta, omega), bp.LeastSquares()
    values = forward_all(net, np.array([[x]]))
    L = loss.forward(values[-1], np.array([y]))
    slopes, parameters = backward_all(net, loss.backward())

    close = {"rtol": 1e-13, "atol": 1e-13}
    assert_allclose(np.ravel(values), [x, f0, h1, f1, h2, f2, h3, f3], **close)
    assert_allclose(L, ell, **close)
    expected = [dl_dx, dl_df0, dl_dh1, dl_df1, dl_dh2, dl_df2, dl_dh3, dl_df3]
    assert_allclose(np.ravel(slopes), expected, **close)
    for k, (h, dl_df) in enumerate([(x, dl_df0), (h1, dl_df1), (h2, dl_df2), (h3, dl_df3)]):
        assert_allclose(parameters[2 * k]["beta"], [dl_df], **close)  # ∂f_k/∂β_k = 1
        assert_allclose(parameters[2 * k]["omega"], [[h * dl_df]], **close)  # ∂f_k/∂ω_k = h_k


@pytest.mark.parametrize(("beta", "omega", "x", "y"), TOYS)
def test_toy_network_in_closed_form(beta, omega, x, y):
    """∂ℓ/∂φ as one product per parameter, each written out down to x."""
    (b0, b1, b2, b3), (w0, w1, w2, w3) = beta, omega
    s, c = math.sin(b0 + w0 * x), math.cos(b0 + w0 * x)
    e = math.exp(b1 + w1 * s)
    a = b2 + w2 * e
    d = 2 * (b3 + w3 * math.cos(a) - y)
    expected = {
        "6.beta": d,
        "6.omega": d * math.cos(a),
        "4.beta": d * w3 * -math.sin(a),
        "4.omega": d * w3 * -math.sin(a) * e,
        "2.beta": d * w3 * -math.sin(a) * w2 * e,
        "2.omega": d * w3 * -math.sin(a) * w2 * e * s,
        "0.beta": d * w3 * -math.sin(a) * w2 * e * w1 * c,
        "0.omega": d * w3 * -math.sin(a) * w2 * e * w1 * c * x,
    }
    net, loss = toy_network(beta, omega), bp.LeastSquares()
    loss.forward(net.forward(np.array([[x]])), np.array([y]))
    _, gradients = net.backward(loss.backward())
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        assert_allclose(gradients[name].item(), value, rtol=1e-13, atol=1e-13, err_msg=name)


# Linear regression with least squares: L = Σ (φ0 + φ1 x_i − y_i)²


def test_linear_regression_has_a_gradient_of_two_terms():
    x, y = GENERATOR.normal(size=20), GENERATOR.normal(size=20)
    net = bp.Sequential(bp.Linear(1, 1), dtype="float64")
    net.phi[...] = phi0, phi1 = 0.7, -1.3
    each = np.array([2 * (phi0 + phi1 * x - y), 2 * x * (phi0 + phi1 * x - y)])

    loss = bp.LeastSquares(reduction="sum")
    L = loss.forward(net.forward(x[None]), y)
    _, gradients = net.backward(loss.backward())
    assert_allclose(L, sum((phi0 + phi1 * xi - yi) ** 2 for xi, yi in zip(x, y, strict=True)), rtol=1e-13)
    assert_allclose(gradients.dL_dphi, each.sum(axis=1), rtol=1e-12)

    for i in range(20):  # one example: exactly the two terms
        loss.forward(net.forward(x[i : i + 1]), y[i : i + 1])
        _, gradients = net.backward(loss.backward())
        assert_allclose(gradients.dL_dphi, each[:, i], rtol=1e-13)


# L(w) = w1² + w2² − w1 w2 at (−5, 5)


class Quadratic(bp.Loss):
    """ℓ = w1² + w2² − w1 w2 of the outputs w; the targets play no part."""

    def ell(self, f, y):
        """w1² + w2² − w1 w2."""
        self.w = w1, w2 = f
        return w1**2 + w2**2 - w1 * w2

    def dell_df(self):
        """2 w1 − w2 and 2 w2 − w1: a vector; a line of the notes adds its entries up, which is wrong."""
        w1, w2 = self.w
        return np.stack([2 * w1 - w2, 2 * w2 - w1])


def test_quadratic_of_two_weights():
    loss, w = Quadratic(), np.array([-5.0, 5.0])
    assert loss.forward(w, np.zeros(2)) == 75.0
    assert_allclose(loss.backward(), [-15.0, 15.0], rtol=0)


def test_quadratic_of_two_weights_as_parameters():
    """The weights as the β of a linear layer whose Ω h is 0: ∂L/∂β = ∂L/∂f."""
    net, loss = bp.Sequential(bp.Linear(1, 2), dtype="float64"), Quadratic()
    net.parameters["0.beta"][...] = -5, 5
    L = loss.forward(net.forward(np.zeros((1, 1))), np.zeros((2, 1)))
    _, gradients = net.backward(loss.backward())
    assert L == 75.0
    assert_allclose(gradients["0.beta"], [-15.0, 15.0], rtol=0)


# J(b) = (5 − b)² + (10 − b)²
#
# The notes set out from dJ/db = 10 − 2b + 20 − 2b = 30 − 4b, and go on to "= 15 − 2b". Three slips:
#   - the sign: d(5 − b)²/db = −2 (5 − b), so dJ/db = 4b − 30; what stands there is −dJ/db;
#   - 30 − 4b is not 15 − 2b: half of it has the same root (b = 7.5, which is right) but half the slope;
#   - the step from b = 10 is worked as "15 − 2 · 10 · 0.1 = 13": it scales only a part of the slope by the
#     learning rate and leaves b itself out, and so climbs away from the minimum.
# Right is: J'(10) = 4 · 10 − 30 = 10, so b ← 10 − 0.1 · 10 = 9.


class Constant(bp.Layer):
    """f = b for every example: a model of one parameter."""

    out_features = 1
    equations = ("f = b", "∂L/∂h = 0", "∂L/∂b = Σₙ ∂L/∂f")

    def __init__(self, b):
        self.parameters["b"] = np.array([b])

    def forward(self, h):
        """The same b for each column of h."""
        self.shape = h.shape
        return np.broadcast_to(self.parameters["b"][:, None], (1, h.shape[1]))

    def backward(self, dL_df):
        """f does not depend on h."""
        return np.zeros(self.shape), {"b": dL_df.sum(axis=1)}


def batch_gradient_example(b):
    """The one-parameter network, its data and J."""
    X, y = np.zeros((2, 1)), np.array([5.0, 10.0])
    return bp.Sequential(Constant(b), dtype="float64"), bp.LeastSquares(reduction="sum"), X, y


@pytest.mark.parametrize(
    ("b", "J", "slope"), [(10.0, 25.0, 10.0), (9.0, 17.0, 6.0), (7.5, 12.5, 0.0), (0.0, 125.0, -30.0)]
)
def test_slope_of_J(b, J, slope):
    net, loss, X, y = batch_gradient_example(b)
    assert_allclose(loss.forward(net.forward(X.T), y), J, rtol=1e-14)
    _, gradients = net.backward(loss.backward())
    assert_allclose(gradients["0.b"], [slope], atol=1e-14)
    assert_allclose(slope, 4 * b - 30, atol=1e-14)


def test_batch_gradient_descent_on_J_goes_from_10_to_9_and_to_7_and_a_half():
    net, loss, X, y = batch_gradient_example(10.0)
    optimizer = bp.SGD(learning_rate=0.1)
    path = [net.phi.item()]
    for _ in range(80):
        loss.forward(net.forward(X.T), y)
        _, gradients = net.backward(loss.backward())
        optimizer.step(net.phi, gradients.dL_dphi)
        path.append(net.phi.item())
    assert_allclose(path[1], 9.0, rtol=1e-15)
    # each step leaves 1 − 4 · 0.1 = 0.6 of the distance to the minimum
    assert_allclose(path, 7.5 + 2.5 * 0.6 ** np.arange(81), rtol=1e-13)
    assert_allclose(path[-1], 7.5, rtol=1e-14)


def test_the_trainer_takes_the_same_step_on_J():
    net, loss, X, y = batch_gradient_example(10.0)
    trainer = bp.Trainer(net, loss, bp.SGD(learning_rate=0.1), batch_size="full")
    assert_allclose(trainer.step(X, y), 25.0, rtol=1e-14)  # the loss before the step
    assert_allclose(net.phi, [9.0], rtol=1e-15)


# Logistic regression and softmax with one-hot targets


def test_logistic_regression_has_the_gradient_p_minus_y():
    f, y = np.array([[-2.0, -0.1, 0.0, 3.0]]), np.array([0.0, 1.0, 1.0, 0.0])
    loss = bp.BinaryCrossEntropy(reduction="sum")
    L = loss.forward(f, y)
    p = np.array([1 / (1 + math.exp(-z)) for z in f[0]])
    assert_allclose(L, -sum(math.log(q if t else 1 - q) for q, t in zip(p, y, strict=True)), rtol=1e-13)
    assert_allclose(loss.backward(), [p - y], rtol=1e-13)


def test_softmax_of_one_hot_targets_has_the_gradient_p_minus_y():
    f = GENERATOR.normal(size=(3, 4))
    classes = np.array([0, 2, 1, 2])
    onehot = np.array([(1, 0, 0), (0, 0, 1), (0, 1, 0), (0, 0, 1)]).T
    p = np.exp(f) / np.exp(f).sum(axis=0)
    assert ((p > 0) & (p < 1)).all()
    assert_allclose(p.sum(axis=0), 1, rtol=1e-15)
    for y in (classes, onehot):
        loss = bp.CrossEntropy(reduction="sum")
        assert_allclose(loss.forward(f, y), -np.log(p[classes, range(4)]).sum(), rtol=1e-13)
        assert_allclose(loss.backward(), p - onehot, rtol=1e-13)


def test_softmax_of_two_classes_is_logistic_regression():
    f, y = GENERATOR.normal(size=(2, 5)), np.array([0, 1, 1, 0, 1])
    two, one = bp.CrossEntropy(), bp.BinaryCrossEntropy()
    assert_allclose(two.forward(f, y), one.forward(f[1:] - f[:1], y), rtol=1e-13)
    assert_allclose(two.backward()[1:], one.backward(), rtol=1e-13)


# K hidden layers, forward and backward in matrix form


@pytest.mark.parametrize("K", [0, 1, 3, 6])
@pytest.mark.parametrize("N", [1, 5])
def test_K_hidden_layers_forward_and_backward(K, N):
    generator = np.random.default_rng(K)
    widths = [4, *generator.integers(2, 7, size=K).tolist(), 3]
    beta = [generator.normal(size=(d, 1)) for d in widths[1:]]
    Omega = [generator.normal(size=(d, e)) for e, d in pairwise(widths)]
    x, y = generator.normal(size=(4, N)), generator.normal(size=(3, N))

    # forward: f_0 = β_0 + Ω_0 x, h_k = ReLU[f_{k−1}], f_k = β_k + Ω_k h_k
    h, f = [x], [beta[0] + Omega[0] @ x]
    for k in range(1, K + 1):
        h.append(np.maximum(f[k - 1], 0))
        f.append(beta[k] + Omega[k] @ h[k])
    # backward: ∂ℓ/∂f_{k−1} = 𝕀[f_{k−1} > 0] ⊙ (Ω_kᵀ ∂ℓ/∂f_k), ∂ℓ/∂β_k = ∂ℓ/∂f_k, ∂ℓ/∂Ω_k = ∂ℓ/∂f_k h_kᵀ
    dl_df = [np.empty(0)] * (K + 1)
    dl_df[K] = 2 * (f[K] - y)
    for k in range(K, 0, -1):
        dl_df[k - 1] = (f[k - 1] > 0) * (Omega[k].T @ dl_df[k])

    layers = [bp.Linear(4, widths[1])]
    for k in range(1, K + 1):
        layers += [bp.ReLU(), bp.Linear(widths[k], widths[k + 1])]
    net, loss = bp.Sequential(*layers, dtype="float64"), bp.LeastSquares(reduction="sum")
    for k in range(K + 1):
        net.parameters[f"{2 * k}.beta"][...] = beta[k][:, 0]
        net.parameters[f"{2 * k}.omega"][...] = Omega[k]

    values = forward_all(net, x)
    L = loss.forward(values[-1], y)
    slopes, parameters = backward_all(net, loss.backward())
    assert_allclose(L, ((f[K] - y) ** 2).sum(), rtol=1e-13)
    for k in range(K + 1):
        close = {"rtol": 1e-12, "atol": 1e-12}
        assert_allclose(values[2 * k], h[k], **close)
        assert_allclose(values[2 * k + 1], f[k], **close)
        assert_allclose(slopes[2 * k + 1], dl_df[k], **close)
        assert_allclose(parameters[2 * k]["beta"], sum(dl_df[k][:, i] for i in range(N)), **close)
        outer = sum(np.outer(dl_df[k][:, i], h[k][:, i]) for i in range(N))
        assert_allclose(parameters[2 * k]["omega"], outer, **close)


# Matrix calculus: columns are the element functions, rows the variables


def test_the_derivative_of_a_scalar_has_the_shape_of_its_variable():
    net, loss = bp.Sequential(bp.Linear(4, 3), seed=0, dtype="float64"), bp.LeastSquares()
    loss.forward(net.forward(np.ones(4)), np.zeros(3))
    dL_dh, gradients = net.backward(loss.backward())
    assert dL_dh.shape == (4,)
    assert {name: g.shape for name, g in gradients.items()} == {"0.beta": (3,), "0.omega": (3, 4)}


def test_jacobian_of_a_linear_layer():
    """∂f/∂h = Ωᵀ and ∂f/∂β = I.

    Two slips of the slides: the last entry of ∂f/∂a is ∂f_3/∂a_4 (there is no f_4), and ∂f_3/∂β_3 comes from
    ∂/∂β_3, where ∂/∂ω_3 stands.
    """
    layer = bp.Sequential(bp.Linear(4, 3), seed=1, dtype="float64")[0]
    Omega, beta, h = layer.parameters["omega"], layer.parameters["beta"].copy(), GENERATOR.normal(size=4)
    df_dh = numeric_jacobian(layer.infer, h)
    assert df_dh.shape == (4, 3)  # a row for each h, a column for each f
    assert_allclose(df_dh, Omega.T, atol=1e-8)

    def of_beta(b):
        layer.parameters["beta"][...] = b
        return layer.infer(h)

    assert_allclose(numeric_jacobian(of_beta, beta), np.eye(3), atol=1e-8)

    # in this layout the chain rule reads ∂ℓ/∂h = ∂f/∂h ∂ℓ/∂f, and that is what backward does
    layer.forward(h)
    dl_df = GENERATOR.normal(size=3)
    dl_dh, gradients = layer.backward(dl_df)
    assert_allclose(dl_dh, df_dh @ dl_df, atol=1e-8)
    assert_allclose(gradients["beta"], np.eye(3) @ dl_df, atol=1e-15)
    assert_allclose(gradients["omega"], np.outer(dl_df, h), rtol=1e-14)


def test_jacobian_of_relu_is_the_diagonal_indicator():
    b = np.array([-1.5, 0.5, 2.0])
    layer = bp.ReLU()
    indicator = np.diag((b > 0).astype(float))
    assert_allclose(numeric_jacobian(layer.infer, b), indicator, atol=1e-8)
    layer.forward(b)
    columns = np.array([layer.backward(e)[0] for e in np.eye(3)]).T
    assert_allclose(columns, indicator, rtol=0)
    # a product with a diagonal matrix is a pointwise product
    dl_da = np.array([3.0, 4.0, 5.0])
    assert_allclose(layer.backward(dl_da)[0], indicator @ dl_da, rtol=0)
    assert_allclose(layer.backward(dl_da)[0], (b > 0) * dl_da, rtol=0)


# Neurons: ∂z/∂w is the input of the weight, ∂ℓ/∂z = σ'(z) ∂ℓ/∂a, and ∂ℓ/∂a is the sum over what a feeds


def test_the_derivative_by_a_weight_is_its_input():
    """z = x1 w1 + x2 w2 + b: ∂z/∂w1 = x1, ∂z/∂w2 = x2, ∂z/∂b = 1."""
    layer, x = bp.Linear(2, 1, seed=0), np.array([1.5, -2.0])
    layer.forward(x)
    _, gradients = layer.backward(np.ones(1))
    assert_allclose(gradients["omega"], [x], rtol=1e-15)
    assert_allclose(gradients["beta"], [1.0], rtol=0)


def test_the_slope_of_sigmoid():
    """∂ℓ/∂z = σ'(z) ∂ℓ/∂a with σ' = σ (1 − σ)."""
    layer, z = bp.Sigmoid(), np.array([-1.0, 0.0, 2.0])
    s = layer.forward(z)
    assert_allclose(layer.backward(np.array([1.0, 2.0, 3.0]))[0], s * (1 - s) * [1, 2, 3], rtol=1e-14)


def test_a_neuron_that_feeds_two_gets_the_sum_of_both():
    """z1 = 2 a, z2 = −3 a: ∂ℓ/∂a = ∂z1/∂a ∂ℓ/∂z1 + ∂z2/∂a ∂ℓ/∂z2 = 2 ∂ℓ/∂z1 − 3 ∂ℓ/∂z2."""
    dl_dz = np.array([0.5, 4.0])
    first, second = (bp.Linear(1, 1, bias=False, initializer=bp.Constant(w)) for w in (2, -3))
    fan_out = bp.FanOut(first, second)
    assert_allclose(fan_out.forward(np.array([1.0])), [2.0, -3.0], rtol=1e-15)
    assert_allclose(fan_out.backward(dl_dz)[0], [2 * 0.5 - 3 * 4.0], rtol=1e-15)
    # the same sum is inside every product with Ωᵀ
    layer = bp.Linear(1, 2)
    layer.parameters["omega"][...] = [[2], [-3]]
    layer.forward(np.array([1.0]))
    assert_allclose(layer.backward(dl_dz)[0], [2 * 0.5 - 3 * 4.0], rtol=1e-15)


def test_branches_add_up_for_any_functions():
    a = GENERATOR.normal(size=(3, 4))
    dl_dz = GENERATOR.normal(size=(6, 4))
    fan_out = bp.FanOut(bp.Sin(), bp.Exp())
    fan_out.forward(a)
    expected = np.cos(a) * dl_dz[:3] + np.exp(a) * dl_dz[3:]
    assert_allclose(fan_out.backward(dl_dz)[0], expected, rtol=1e-14)
