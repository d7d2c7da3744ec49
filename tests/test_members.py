"""Members: k networks in one are k networks, and their mean is the mean of what they say."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, log_softmax, logit, softmax
from test_bad_input import assert_refused

import backprop as bp

D, K, k, N = 4, 3, 5, 7
X = np.random.default_rng(0).normal(size=(N, D))


def members():
    """A network of members, with weights far from where they start."""
    layers = [bp.MembersLinear(D, 6, k, first=True), bp.Tanh(), bp.MembersLinear(6, 6, k), bp.SeparateLinear(6, K, k)]
    net = bp.Sequential(*layers, dtype="float64")
    net.phi[...] = np.random.default_rng(1).normal(size=net.size)
    return net


def alone(net, m):
    """Member m as a network of its own, with the weights it has in effect."""
    made = bp.Sequential(bp.Linear(D, 6), bp.Tanh(), bp.Linear(6, 6), bp.Linear(6, K), dtype="float64")
    for i in (0, 2):
        beta, omega, r, s = (net.parameters[f"{i}.{name}"] for name in ("beta", "omega", "r", "s"))
        made.parameters[f"{i}.omega"], made.parameters[f"{i}.beta"] = s[m::k, None] * omega * r[m::k], beta[m::k]
    made.parameters["3.omega"], made.parameters["3.beta"] = (
        net.parameters[f"3.omega_{m}"],
        net.parameters["3.beta"][m::k],
    )
    return made


class TestMembers:
    def test_are_networks_of_their_own(self):
        net = members()
        for m in range(k):
            assert_allclose(net.predict(X)[:, m::k], alone(net, m).predict(X), rtol=1e-13, atol=1e-13)

    def test_learn_the_mean_of_their_losses_and_share_its_gradient(self):
        net, y = members(), np.random.default_rng(2).normal(size=(N, K))
        loss = bp.PerMember(bp.LeastSquares(), k)
        L = loss.forward(net.forward(X.T), y.T)
        dL_dX, gradients = net.backward(loss.backward())
        total, dL_domega = 0, 0
        for m in range(k):
            own, its = bp.LeastSquares(), alone(net, m)
            total += own.forward(its.forward(X.T), y.T) / k
            dL_dx, of_one = its.backward(own.backward() / k)
            dL_dX = dL_dX - dL_dx
            s, r = net.parameters["2.s"][m::k, None], net.parameters["2.r"][m::k]
            dL_domega = dL_domega + s * of_one["2.omega"] * r
            assert_allclose(gradients[f"3.omega_{m}"], of_one["3.omega"], rtol=1e-12)
            assert_allclose(gradients["0.beta"][m::k], of_one["0.beta"], rtol=1e-12)
        assert_allclose(L, total, rtol=1e-13)
        assert_allclose(gradients["2.omega"], dL_domega, rtol=1e-12)
        assert_allclose(dL_dX, np.zeros((D, N)), atol=1e-12)

    def test_begin_apart_in_the_first_layer_and_alike_in_the_others(self):
        net = bp.Sequential(bp.MembersLinear(30, 4, k, first=True), bp.MembersLinear(4, 4, k), seed=0)
        assert set(net.parameters["0.r"].tolist()) == {-1.0, 1.0}
        assert not any(np.ptp(net.parameters[name]) for name in ("1.r", "0.s", "1.s"))

    @pytest.mark.parametrize("make", [bp.MembersLinear, bp.SeparateLinear])
    def test_keep_what_shapes_them(self, make):
        layer = make(2, 3, 4)
        for name in ("inputs", "outputs", "members"):
            assert_refused(lambda name=name: setattr(layer, name, 9), ValueError, "for good")
        layer.members = 4
        assert_refused(lambda: make(2, 3, 0), ValueError, "members ≥ 1")
        assert_refused(lambda: make(2, 3, 4, initializer=bp.HeNormal), TypeError, "initializer")

    @pytest.mark.parametrize("names", [["phi"], ["X", "phi"]], ids=str)
    def test_have_gradients_for_each_example(self, names):
        net, y = members(), np.random.default_rng(2).integers(0, K, N)
        loss = bp.PerMember(bp.CrossEntropy(), k)
        G = bp.per_example_gradients(net, loss, X, y)
        for n in range(N):
            loss.forward(net.forward(X[n : n + 1].T), y[n : n + 1])
            assert_allclose(G[n], net.backward(loss.backward())[1].dL_dphi, rtol=1e-12, atol=1e-13)
        assert_allclose(bp.per_example_gradient_norms(net, loss, X, y), np.linalg.norm(G, axis=1), rtol=1e-12)


class TestMean:
    H = np.random.default_rng(3).normal(0, 5, (K * k, N))
    EACH = H.reshape(K, k, N)

    def test_of_values(self):
        assert_allclose(bp.MembersMean(k).forward(self.H), self.EACH.mean(axis=1), rtol=1e-13)

    def test_of_softmax_is_that_of_the_probabilities(self):
        f = bp.MembersMean(k, of="softmax").forward(self.H)
        assert_allclose(f, np.log(softmax(self.EACH, axis=0).mean(axis=1)), rtol=1e-12)
        assert_allclose(np.exp(f).sum(axis=0), 1)

    def test_of_sigmoid_is_that_of_the_probabilities(self):
        f = bp.MembersMean(k, of="sigmoid").forward(self.H)
        assert_allclose(f, logit(expit(self.EACH).mean(axis=1)), rtol=1e-10)

    @pytest.mark.parametrize("of", ["softmax", "sigmoid"])
    @pytest.mark.parametrize("size", [1e4, 3e38], ids=str)
    def test_of_large_numbers_is_finite(self, of, size):
        layer, h = (
            bp.MembersMean(2, of=of),
            np.array([[size, size], [size, -size], [-size, size], [-size, -size]], "f") / 2,
        )
        f = layer.forward(h)
        assert np.isfinite(f).all()
        assert np.isfinite(layer.backward(np.ones_like(f))[0]).all()
        assert_allclose(
            layer.forward(np.array([[1e4], [1e4], [-1e4], [-1e4]])).ravel(),
            [0 if of == "softmax" else 1e4, -2e4 if of == "softmax" else -1e4],
        )

    def test_refuses_what_cannot_be_shared_out(self):
        assert_refused(
            lambda: bp.MembersMean(2).forward(np.zeros((3, 1))), ValueError, "a multiple of 2 input features"
        )
        assert_refused(lambda: bp.Sequential(bp.Linear(2, 3), bp.MembersMean(2)), ValueError, "a multiple of 2")
        assert_refused(lambda: bp.MembersMean(2, of="logits"), ValueError, "of one of")
        assert_refused(lambda: setattr(bp.MembersMean(2), "of", "softmax"), ValueError, "for good")

    def test_says_in_explain_which_one_it_is(self):
        net = bp.Sequential(bp.Linear(2, 2), bp.MembersMean(2, of="softmax"))
        text = str(bp.explain(net, bp.LeastSquares(), np.zeros((1, 2)), np.zeros(1)))
        assert "log (1/k) Σₘ softmax(" in text

    @pytest.mark.parametrize("of", ["softmax", "sigmoid"])
    def test_has_the_same_jacobian_for_every_output(self, of):
        """What `forward` computes for `backward` alone was overwritten before the second output was asked for."""
        net = bp.Sequential(bp.Linear(D, 2 * k), bp.MembersMean(k, of=of), seed=0, dtype="float64")
        J = bp.jacobian(net, X)
        for c in range(2):
            net.forward(X.T)
            dL_dX, _ = net.backward(np.repeat(np.eye(2)[:, [c]], N, axis=1))
            assert_allclose(J[:, c], dL_dX.T, rtol=1e-12)


class TestPerMember:
    f = np.random.default_rng(4).normal(size=(K * k, N))
    labels = np.random.default_rng(5).integers(0, K, N)
    w = np.random.default_rng(6).choice([0, 1, 0.5], (k, N))

    def test_weights_of_members_count_in_each(self):
        loss = bp.PerMember(bp.CrossEntropy(), k, weighted=True)
        L = loss.forward(self.f, np.vstack([self.labels, self.w]))
        each = -log_softmax(self.f.reshape(K, k, N), axis=0)[self.labels, :, np.arange(N)].T
        assert_allclose(L, (self.w * each).sum() / (k * N), rtol=1e-13)
        assert not loss.backward().reshape(K, k, N)[:, self.w == 0].any()

    @pytest.mark.parametrize("inner", [bp.CrossEntropy(), bp.BinaryCrossEntropy(), bp.Huber()], ids=repr)
    def test_weights_of_1_are_none(self, inner):
        y = np.eye(K)[self.labels].T
        plain, weighted = bp.PerMember(inner, k), bp.PerMember(inner, k, weighted=True)
        assert_allclose(weighted.forward(self.f, np.vstack([y, np.ones((k, N))])), plain.forward(self.f, y), rtol=1e-14)
        assert_allclose(weighted.backward(), plain.backward(), rtol=1e-14)

    def test_what_a_member_leaves_out_may_be_infinite(self):
        f, y = self.f.copy(), np.vstack([np.zeros((K, N)), self.w])
        f.reshape(K, k, N)[:, self.w == 0] = np.inf
        loss = bp.PerMember(bp.LeastSquares(), k, weighted=True)
        assert np.isfinite(loss.forward(f, y))
        assert np.isfinite(loss.backward()).all()

    @pytest.mark.parametrize("native", [False, True])
    def test_a_member_never_sees_the_rows_it_leaves_out(self, native):
        """With weights of their own, members trained as one are members trained alone."""
        w, X = np.ones((N, 2)), np.random.default_rng(7).normal(size=(N, D))
        w[:3, 0] = 0
        nets = []
        for y in (np.zeros(N), np.r_[np.full(3, 9.0), np.zeros(N - 3)]):
            net = bp.Sequential(bp.Linear(D, 2 * 3), bp.Tanh(), bp.SeparateLinear(3, 1, 2), seed=0, dtype="float64")
            loss = bp.PerMember(bp.LeastSquares(), 2, weighted=True)
            trainer = bp.Trainer(net, loss, bp.Adam(0.1), batch_size=3, native=native)
            trainer.fit(X, np.column_stack([y, w]), epochs=5, verbose=0)
            nets.append(net.predict(X))
        assert_array_equal(nets[0][:, 0], nets[1][:, 0])
        assert np.abs(nets[0][:, 1] - nets[1][:, 1]).max() > 0.1

    def test_per_example_leaves_a_pending_backward_alone(self):
        loss = bp.PerMember(bp.LeastSquares(), k)
        loss.forward(self.f, np.zeros((K, N)))
        before = loss.backward()
        loss.per_example(self.f + 1, np.ones((K, N)))
        assert_array_equal(loss.backward(), before)

    def test_measures_the_mean_of_the_members(self):
        loss, y = bp.PerMember(bp.LeastSquares(), k), self.f.reshape(K, k, N).mean(axis=1)
        assert loss.metrics(self.f, y) == {"r2": 1.0}

    @pytest.mark.parametrize(
        ("y", "words"),
        [
            (np.zeros((k, N)), f"y with {N} columns: targets, and below them {k} rows of weights"),
            (np.vstack([np.zeros(N), -np.ones((k, N))]), "0 ≤ weights in y"),
            (np.vstack([np.full(N, 9), np.ones((k, N))]), "labels 0 … 2"),
            (np.vstack([np.zeros(N), np.full((k, N), np.nan)]), "finite values in y"),
        ],
        ids=["no targets", "negative", "no label", "nan"],
    )
    def test_refuses_other_targets(self, y, words):
        with pytest.raises(ValueError, match=words):
            bp.PerMember(bp.CrossEntropy(), k, weighted=True).forward(self.f, y)

    def test_refuses_other_losses(self):
        class Own(bp.LeastSquares):
            pass

        assert_refused(lambda: bp.PerMember(Own(), 2), TypeError, "a loss that can be traced")
        assert_refused(lambda: bp.PerMember(bp.LeastSquares, 2), TypeError, "LeastSquares(…)")
        assert_refused(
            lambda: bp.PerMember(bp.LeastSquares(), 2).forward(np.zeros((3, 1)), [0]), ValueError, "a multiple of 2"
        )
        assert_refused(lambda: setattr(bp.PerMember(bp.LeastSquares(), 2), "weighted", True), ValueError, "for good")
