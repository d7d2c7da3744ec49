"""One clear error for each mistake, and the model as it was."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

pytest.importorskip("sklearn", "1.7")

from estimating import COUNTS, D, N, X, assert_same_weights, bp_held_out, line, ours, state, thirds
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import backprop as bp
from backprop.estimators import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def held_out_alone(model, y):
    """Weights of which only those are not 0 that early stopping holds out."""
    w = np.zeros(N)
    w[bp_held_out(clone(model).fit(X, y), N, y)] = 1
    return w


def with_nan(array):
    array = array.astype(float)
    array[3, 1] = np.nan
    return array


REFUSED = {
    # parameters
    "hidden_layer_sizes 0": (lambda m: m.set_params(hidden_layer_sizes=(5, 0)).fit(X, thirds), "hidden_layer_sizes"),
    "hidden_layer_sizes -1": (lambda m: m.set_params(hidden_layer_sizes=-1).fit(X, thirds), "hidden_layer_sizes"),
    "hidden_layer_sizes text": (lambda m: m.set_params(hidden_layer_sizes="5").fit(X, thirds), "hidden_layer_sizes"),
    "hidden_layer_sizes 1.5": (lambda m: m.set_params(hidden_layer_sizes=[1.5]).fit(X, thirds), "hidden_layer_sizes"),
    "activation": (lambda m: m.set_params(activation="rleu").fit(X, thirds), "relu"),
    "too many activations": (
        lambda m: m.set_params(activation=["relu"] * 3).fit(X, thirds),
        "activation.*hidden layer",
    ),
    "activation object": (lambda m: m.set_params(activation=np.tanh).fit(X, thirds), "activation"),
    "solver": (lambda m: m.set_params(solver="newton").fit(X, thirds), "lbfgs"),
    "alpha": (lambda m: m.set_params(alpha=-1.0).fit(X, thirds), "alpha"),
    "alpha nan": (lambda m: m.set_params(alpha=float("nan")).fit(X, thirds), "alpha"),
    "batch_size": (lambda m: m.set_params(batch_size=0).fit(X, thirds), "batch_size"),
    "batch_size text": (lambda m: m.set_params(batch_size="all").fit(X, thirds), "batch_size"),
    "learning_rate": (lambda m: m.set_params(learning_rate=0.1).fit(X, thirds), "learning_rate"),
    "learning_rate_init": (lambda m: m.set_params(learning_rate_init=0.0).fit(X, thirds), "learning_rate"),
    "max_iter": (lambda m: m.set_params(max_iter=0).fit(X, thirds), "max_iter"),
    "max_fun": (lambda m: m.set_params(solver="lbfgs", max_fun=-1).fit(X, thirds), "max_fun"),
    "tol": (lambda m: m.set_params(tol=-0.1).fit(X, thirds), "tol"),
    "shuffle": (lambda m: m.set_params(shuffle="yes").fit(X, thirds), "shuffle"),
    "momentum": (lambda m: m.set_params(solver="sgd", momentum=2.0).fit(X, thirds), "momentum"),
    "power_t": (
        lambda m: m.set_params(solver="sgd", learning_rate="invscaling", power_t=-1.0).fit(X, thirds),
        "power_t",
    ),
    "beta_1": (lambda m: m.set_params(beta_1=1.0).fit(X, thirds), "beta"),
    "epsilon": (lambda m: m.set_params(epsilon=-0.5).fit(X, thirds), "eps"),
    "n_iter_no_change": (lambda m: m.set_params(n_iter_no_change=-1).fit(X, thirds), "n_iter_no_change"),
    "validation_fraction": (
        lambda m: m.set_params(early_stopping=True, validation_fraction=1.0).fit(X, thirds),
        "validation_fraction",
    ),
    "dropout 1": (lambda m: m.set_params(dropout=1.0).fit(X, thirds), "dropout"),
    "too many dropouts": (lambda m: m.set_params(dropout=[0.1] * 3).fit(X, thirds), "dropout.*hidden layer"),
    "dropout with L-BFGS": (lambda m: m.set_params(dropout=0.5, solver="lbfgs").fit(X, thirds), "random|dropout"),
    "dtype": (lambda m: m.set_params(dtype="int8").fit(X, thirds), "float32"),
    "threads": (lambda m: m.set_params(threads=0).fit(X, thirds), "threads"),
    "random_state": (lambda m: m.set_params(random_state="0").fit(X, thirds), "'0'"),
    "callbacks": (lambda m: m.set_params(callbacks=[print]).fit(X, thirds), "callbacks"),
    "a class as a callback": (lambda m: m.set_params(callbacks=[bp.EarlyStopping]).fit(X, thirds), "callbacks"),
    "monitor": (lambda m: m.set_params(early_stopping=True, monitor="f1_marco").fit(X, thirds), "f1_macro"),
    "monitor number": (lambda m: m.set_params(early_stopping=True, monitor=1).fit(X, thirds), "monitor"),
    "class_weight": (lambda m: m.set_params(class_weight="equal").fit(X, thirds), "balanced"),
    # data
    "NaN in X": (lambda m: m.fit(with_nan(X), thirds), "NaN"),
    "inf in X": (lambda m: m.fit(np.where(X > 2, np.inf, X), thirds), "NaN|inf"),
    "text in X": (lambda m: m.fit(np.full((N, D), "a"), thirds), "could not convert|dtype"),
    "X of one dimension": (lambda m: m.fit(X[:, 0], thirds), "2D array"),
    "no examples": (lambda m: m.fit(X[:0], thirds[:0]), "0 sample"),
    "no columns": (lambda m: m.fit(X[:, :0], thirds), "0 feature"),
    "other lengths": (lambda m: m.fit(X, thirds[:-1]), "inconsistent numbers of samples"),
    "numbers for classes": (lambda m: m.fit(X, line), "continuous"),
    "class_weight 0": (
        lambda m: m.set_params(class_weight={0: 0, 1: 0, 2: 0}).fit(X, thirds),
        "class_weight ≥ 0, and > 0 for some",
    ),
    "class_weight -1": (lambda m: m.set_params(class_weight={0: -1, 1: 1, 2: 1}).fit(X, thirds), "class_weight ≥ 0"),
    "weight in what is held out alone": (
        lambda m: m.set_params(early_stopping=True).fit(X, line > 0, held_out_alone(m, line > 0)),
        "sample_weight > 0",
    ),
    "class_weight of a class that is not there": (
        lambda m: m.set_params(class_weight={0: 1, 7: 2}).fit(X, thirds),
        r"class_weight for classes \[0, 1, 2\], got also \[7\]",
    ),
    "balanced in parts": (
        lambda m: clone(m).set_params(class_weight="balanced").partial_fit(X, thirds, classes=[0, 1, 2]),
        "class_weight a dict",
    ),
    "nothing to hold out": (
        lambda m: m.set_params(early_stopping=True, validation_fraction=0.0).fit(X, thirds),
        "validation_fraction > 0",
    ),
    "several columns of classes": (lambda m: m.fit(X, np.column_stack([thirds, thirds])), "[Mm]ultioutput"),
    "weights too few": (lambda m: m.fit(X, thirds, sample_weight=np.ones(3)), "sample_weight"),
    "weights negative": (lambda m: m.fit(X, thirds, sample_weight=-np.ones(N)), "[Nn]egative|≥ 0"),
    "weights all zero": (lambda m: m.fit(X, thirds, sample_weight=np.zeros(N)), "zero|> 0|not all 0"),
    "weights NaN": (lambda m: m.fit(X, thirds, sample_weight=np.full(N, np.nan)), "NaN"),
    "too few to hold out": (
        lambda m: m.set_params(early_stopping=True, validation_fraction=0.01).fit(X, thirds),
        "at least 2 examples.*got 1 of 60 by validation_fraction=0.01",
    ),
    "too few to train on": (
        lambda m: m.set_params(early_stopping=True, validation_fraction=0.99).fit(X, thirds),
        "some to train on, got 60 of 60 by validation_fraction=0.99",
    ),
    "one example of a class to hold out": (
        lambda m: m.set_params(early_stopping=True).fit(X, np.r_[1, np.zeros(N - 1, int)]),
        r"each class to train on.*\[59, 1\] examples of \[0, 1\], and 6 to hold out",
    ),
    "validation data of other columns": (lambda m: m.fit(X, thirds, validation_data=(X[:, :2], thirds)), "features"),
    "validation data of other classes": (lambda m: m.fit(X, thirds, validation_data=(X, thirds + 5)), "classes"),
    "X_val without y_val": (lambda m: m.fit(X, thirds, X_val=X), "X_val together with y_val, got one of them"),
    "y_val without X_val": (lambda m: m.fit(X, thirds, y_val=thirds), "X_val together with y_val"),
    "weights of no validation data": (lambda m: m.fit(X, thirds, sample_weight_val=np.ones(N)), "X_val together with"),
    "validation data twice": (
        lambda m: m.fit(X, thirds, X_val=X, y_val=thirds, validation_data=(X, thirds)),
        "either validation_data or X_val and y_val, got both",
    ),
    "groups and validation data": (
        lambda m: m.fit(X, thirds, groups=thirds, X_val=X, y_val=thirds),
        "either groups or validation data, got both",
    ),
    "groups too few": (
        lambda m: m.fit(X, thirds, groups=[1, 2]),
        r"groups with shape \(60,\), one for each row, got shape \(2,\)",
    ),
    "a group missing": (
        lambda m: m.set_params(early_stopping=True).fit(X, thirds, groups=[None, *range(N - 1)]),
        "groups with a value in each row, got a missing one .* at row 0",
    ),
    "one group": (
        lambda m: m.set_params(early_stopping=True).fit(X, thirds, groups=np.zeros(N)),
        "at least 2 groups, got 1",
    ),
    "validation data that is no pair": (lambda m: m.fit(X, thirds, validation_data=X), "validation_data"),
    "first partial_fit without classes": (lambda m: clone(m).partial_fit(X, thirds), "classes"),
}

REFUSED_WHEN_FITTED = {
    "other columns in predict": (lambda m: m.predict(X[:, :2]), "features"),
    "NaN in predict": (lambda m: m.predict(with_nan(X)), "NaN"),
    "other columns in partial_fit": (lambda m: m.partial_fit(X[:, :2], thirds), "features"),
    "a new class in partial_fit": (lambda m: m.partial_fit(X, thirds + 1), "classes"),
    "other classes in partial_fit": (lambda m: m.partial_fit(X, thirds, classes=[0, 1]), "classes"),
    "early stopping in a stream without validation data": (
        lambda m: m.set_params(early_stopping=True).partial_fit(X, thirds),
        "X_val and y_val to stop by.*partial_fit does not support early_stopping=True",
    ),
    "fewer classes in a warm start": (
        lambda m: m.set_params(warm_start=True).fit(X, thirds > 0),
        r"Previously got \[0 1 2\]",
    ),
    "weights of another shape": (
        lambda m: setattr(m, "coefs_", [np.ones((3, 5)), np.ones((5, 3))]),
        r"coefs_\[0\]: expected shape \(4, 5\)",
    ),
    "weights transposed": (lambda m: setattr(m, "coefs_", [m.coefs_[0].T, m.coefs_[1]]), "It is transposed"),
    "weights of too few layers": (
        lambda m: setattr(m, "intercepts_", [np.ones(5)]),
        "a list of 2 arrays, one for each layer, got 1",
    ),
    "weights that are not finite": (
        lambda m: setattr(m, "intercepts_", [np.ones(5), np.full(3, np.nan)]),
        "finite values in it, got nan",
    ),
    "one weight of another shape": (lambda m: m.coefs_.__setitem__(0, np.ones(2)), r"coefs_\[0\]: expected shape"),
    "weights added to the list": (lambda m: m.coefs_.append(np.ones(2)), "one array at a time, or all"),
    "epochs 0": (lambda m: m.partial_fit(X, thirds, epochs=0), "epochs"),
    "other columns in a warm start": (lambda m: m.set_params(warm_start=True).fit(X[:, :2], thirds), "features"),
    "a new class in a warm start": (lambda m: m.set_params(warm_start=True).fit(X, thirds + 1), "classes"),
}


class TestErrors:
    """One clear error, and the model as it was."""

    @pytest.mark.parametrize("case", REFUSED)
    @pytest.mark.parametrize("fitted", [False, True])
    def test_refused(self, case, fitted):
        call, words = REFUSED[case]
        model = MLPClassifier((5,), max_iter=2, random_state=0)
        if fitted:
            model.fit(X, thirds)
        self.check(model, call, words)

    @pytest.mark.parametrize("case", REFUSED_WHEN_FITTED)
    def test_refused_when_fitted(self, case):
        call, words = REFUSED_WHEN_FITTED[case]
        self.check(MLPClassifier((5,), max_iter=2, random_state=0).fit(X, thirds), call, words)

    def check(self, model, call, words):
        before = state(model)
        parameters = set(model.get_params())
        with pytest.raises((ValueError, TypeError), match=words):
            call(model)
        after = state(model)
        assert {name for name in before if name not in parameters} == {name for name in after if name not in parameters}
        for name in before.keys() - parameters:
            assert before[name] == after[name], name

    @pytest.mark.parametrize(
        ("model", "call", "words"),
        [
            (MLPRegressor("squares"), lambda m: m.fit(X, line), "squared_error"),
            (MLPRegressor(bp.LeastSquares), lambda m: m.fit(X, line), "loss"),
            (MLPRegressor("huber", delta=-1.0), lambda m: m.fit(X, line), "delta"),
            (MLPRegressor("quantile", quantiles=(0.5, 1.5)), lambda m: m.fit(X, line), "quantile"),
            (MLPRegressor("quantile", quantiles=()), lambda m: m.fit(X, line), "quantile"),
            (MLPRegressor("poisson"), lambda m: m.fit(X, line), "y|count|≥ 0"),
            (MLPRegressor("poisson", scale_targets=True), lambda m: m.fit(X, COUNTS), "scale_targets"),
            (MLPRegressor(), lambda m: m.fit(X, np.where(line > 0, np.nan, line)), "NaN"),
            (MLPRegressor(), lambda m: m.fit(X, np.full(N, "a")), "y: numbers.*'a' at row 0"),
            (MLPRegressor(), lambda m: m.fit(X, line[:, None, None]), "dim"),
            (MLPRegressor(), lambda m: m.fit(X, line).partial_fit(X, X), "columns"),
            (MLPRegressor(learning_rate_init=1e200), lambda m: m.fit(X, line), "finite"),
            (MLPRegressor(scale_inputs="yes"), lambda m: m.fit(X, line), "scale_inputs"),
            (MLPRegressor(scale_targets=2), lambda m: m.fit(X, line), "scale_targets"),
        ],
        ids=range(14),
    )
    def test_of_the_regressor(self, model, call, words):
        with pytest.raises((ValueError, TypeError), match=words):
            call(model)

    @pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba"])
    def test_unfitted(self, method):
        with pytest.raises(NotFittedError):
            getattr(MLPClassifier(), method)(X)
        for name in ("coefs_", "intercepts_", "classes_", "loss_", "n_iter_", "network_"):
            assert not hasattr(MLPClassifier(), name)

    def test_l_bfgs_has_no_partial_fit(self):
        assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit")
        assert hasattr(MLPClassifier(), "partial_fit")

    @pytest.mark.parametrize("method", ["fit", "partial_fit"])
    def test_a_refused_fit_leaves_the_network_itself(self, method):
        """Weights that somebody took from it are still its own."""
        model = ours("one number", warm_start=True, max_iter=3).fit(X, line)
        net, coefs, before = model.network_, model.coefs_, model.network_.phi.copy()

        class Broken(bp.Callback):
            def epoch(self, trainer, record):
                raise ValueError("broken")

        with pytest.raises(ValueError, match="broken"):
            getattr(model.set_params(callbacks=[Broken()], learning_rate_init=0.1), method)(X, line)
        assert model.network_ is net
        assert np.shares_memory(coefs[0], net.phi)
        assert_array_equal(net.phi, before)

    def test_a_refused_fit_leaves_no_trace_in_the_next(self):
        a, b = (ours("one number", warm_start=True, max_iter=3, dropout=0.2).fit(X, line) for _ in range(2))
        for bad in (with_nan(X), X[:, :2]):
            with pytest.raises(ValueError, match=r"NaN|features"):
                a.fit(bad, line)
        assert_same_weights(a.fit(X, line), b.fit(X, line))

    @pytest.mark.parametrize("solver", ["sgd", "adam"])
    @pytest.mark.parametrize("method", ["fit", "partial_fit"])
    def test_a_fit_that_diverges_changes_nothing(self, solver, method):
        model = ours("one number", solver=solver, warm_start=True, max_iter=3).fit(X, line)
        before = state(model)

        class Poison(bp.Callback):
            def epoch(self, trainer, record):
                trainer.net.phi[0] = np.nan

        model.set_params(callbacks=[Poison()])
        with pytest.raises(ValueError, match="finite"):
            model.fit(X, line) if method == "fit" else model.partial_fit(X, line, epochs=3)
        model.set_params(callbacks=None)
        assert state(model) == before

    def test_ctrl_c_keeps_what_was_learned(self):
        class Interrupt(bp.Callback):
            def epoch(self, trainer, record):
                if record.epoch == 3:
                    raise KeyboardInterrupt

        with pytest.warns(UserWarning, match="interrupted"):
            model = MLPRegressor(callbacks=[Interrupt()], max_iter=20).fit(X, line)
        assert len(model.loss_curve_) == 3
        assert np.isfinite(model.predict(X)).all()


@pytest.mark.parametrize("what", ["X", "y", "sample_weight"])
@pytest.mark.parametrize("kind", [MLPRegressor, MLPClassifier])
def test_masked_arrays_are_refused(kind, what):
    """Scikit-learn takes what is behind the mask without a word."""
    rng = np.random.default_rng(0)
    given = {"X": rng.normal(size=(40, 2)), "y": rng.integers(0, 2, 40), "sample_weight": np.ones(40)}
    model = kind(hidden_layer_sizes=(2,), max_iter=1)
    masked = given | {what: np.ma.masked_array(given[what], given[what] > 1e9)}
    with pytest.raises(TypeError, match=f"expected {what} a plain array, got a masked array"):
        model.fit(**masked)
    with pytest.warns(Warning, match="converged"):
        model.fit(**given)
    if what == "X":
        with pytest.raises(TypeError, match="masked array"):
            model.predict(masked["X"])
