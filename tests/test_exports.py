"""Exports compute what `predict` computes: run by PyTorch, onnxruntime, a C compiler, and NumPy alone."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.testing import assert_array_equal
from tables import LAYERS, SEED, network, spread
from test_numbers import ACTIVATIONS, DTYPES, ULPS, assert_numbers, expected, points

import backprop as bp
from backprop.around.nesting import leaves
from backprop.formats import c_header, numpy_file, onnx_file, verify
from backprop.formats.lowering import SEVERAL
from backprop.formats.plan import Plan
from backprop.testing import networks

OWN = {name for name in LAYERS if name.startswith(("Elementwise", "a layer of one's own"))}
KNOWN = [name for name in LAYERS if name not in OWN]
TABULAR = [name for name in KNOWN if type(LAYERS[name](4)) in SEVERAL]  # PyTorch has no such layers
TOLERANCE = 1e-6  # of the largest output
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2"]

needs_a_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")


def small(name="GELU", dtype="float32"):
    """A layer of the table behind a linear one, with running statistics that have moved."""
    net = bp.Sequential(bp.Linear(5, 4), LAYERS[name](4), seed=1, dtype=dtype)
    net.reseed(SEED)
    for layer in leaves(net):
        if isinstance(layer, bp.BatchNorm):
            layer.buffers["running_mean"] += spread((layer.in_features,))
            layer.buffers["running_variance"] += spread((layer.in_features,), 1) ** 2
    return net


def assert_same(found, net, X):
    f = net.predict(X)
    assert found.shape == f.shape
    assert np.abs(found - f).max() <= TOLERANCE * np.abs(f).max()


def run_numpy(path, X):
    return runpy.run_path(str(path))["predict"](X)


def run_onnx(path, X):
    """By onnxruntime; with the reference implementation of onnx where that has no wheel."""
    try:
        from onnxruntime import InferenceSession
    except ImportError:
        from onnx.reference import ReferenceEvaluator as InferenceSession
    return InferenceSession(os.fspath(path)).run(None, {"X": X.astype("f")})[0]


def run_c(path, X, name=None, flags=()):
    """Compiled with every warning an error; half of the rows at once, half of them one by one."""
    folder, name = path.parent, name or path.stem
    (folder / "run.c").write_text(
        f"""#include <stdio.h>
        #include "{path.name}"
        int main(void)
        {{
            static float X[{X.size}], f[{len(X)} * {name.upper()}_OUTPUTS];
            size_t half = {len(X)} / 2;
            if (fread(X, sizeof X, 1, stdin) != 1) return 1;
            {name}_predict_rows(half, X, f);
            for (size_t n = half; n < {len(X)}; n++)
                {name}_predict(X + n * {name.upper()}_INPUTS, f + n * {name.upper()}_OUTPUTS);
            return fwrite(f, sizeof f, 1, stdout) != 1;
        }}"""
    )
    program = folder / "run"
    subprocess.run([COMPILER, *STRICT, *flags, folder / "run.c", "-o", program, "-lm"], check=True)
    done = subprocess.run([program], input=X.astype("f").tobytes(), capture_output=True, check=True)
    return np.frombuffer(done.stdout, "f").reshape(len(X), -1)


TARGETS = {
    "numpy": (bp.to_numpy, "net.py", run_numpy),
    "onnx": (bp.to_onnx, "net.onnx", run_onnx),
    "c": (bp.to_c, "net.h", run_c),
}
every_target = pytest.mark.parametrize(
    "target", [pytest.param(t, marks=needs_a_compiler if t == "c" else ()) for t in TARGETS]
)


class TestEveryLayer:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("name", KNOWN)
    @pytest.mark.parametrize("target", ["numpy", "onnx"])
    def test_computes_what_predict_computes(self, target, name, dtype, tmp_path):
        export, file, run = TARGETS[target]
        net, X = small(name, dtype), spread((9, 5)).astype("f")
        report = export(net, tmp_path / file)
        assert_same(run(tmp_path / file, X), net, X)
        assert_same(run(tmp_path / file, X[:1]), net, X[:1])
        assert report.rows == 100
        assert report.relative_difference <= TOLERANCE
        assert report.dtype == (dtype if target == "numpy" else "float32")
        assert run(tmp_path / file, X).dtype == report.dtype

    @needs_a_compiler
    def test_in_c(self, tmp_path, monkeypatch):
        """All headers in one program, which shows that they get along and spares the compilation of each at its export."""
        monkeypatch.setattr(shutil, "which", lambda name: None)
        nets = {f"net{k}": small(name, "float64" if k % 4 == 0 else "float32") for k, name in enumerate(KNOWN)}
        X = spread((8, 5)).astype("f")
        for name, net in nets.items():
            bp.to_c(net, tmp_path / f"{name}.h")
        (tmp_path / "all.h").write_text(
            "".join(f'#include "{name}.h"\n#include "{name}.h"\n' for name in nets)
            + f"#define ALL_INPUTS {X.shape[1]}\n#define ALL_OUTPUTS {sum(n.predict(X).shape[1] for n in nets.values())}\n"
            + "static void all_predict(const float *x, float *f)\n{\n"
            + "".join(f"    {name}_predict(x, f); f += {name.upper()}_OUTPUTS;\n" for name in nets)
            + "}\nstatic void all_predict_rows(size_t n, const float *X, float *f)\n{\n"
            + "    for (size_t i = 0; i < n; i++) all_predict(X + i * ALL_INPUTS, f + i * ALL_OUTPUTS);\n"
            # Of each net the function for rows is used, too, or the compiler would not look at it.
            + "".join(f"    {name}_predict_rows(0, X, f);\n" for name in nets)
            + "}\n"
        )
        found, start = run_c(tmp_path / "all.h", X), 0
        for net in nets.values():
            width = net.predict(X).shape[1]
            assert_same(found[:, start : start + width], net, X)
            start += width
        assert start == found.shape[1]

    @every_target
    def test_activations_far_from_zero(self, target, tmp_path):
        """Entry by entry; rows of the caller's say how many inputs there are."""
        export, file, run = TARGETS[target]
        activations = [
            bp.ReLU(),
            bp.LeakyReLU(),
            bp.ELU(),
            bp.SiLU(),
            bp.GELU(),
            bp.Softplus(),
            bp.Sigmoid(),
            bp.Tanh(),
        ]
        net = bp.Sequential(bp.FanOut(*activations, bp.Sin(), bp.Cos()))
        X = np.concatenate([np.linspace(-30, 30, 61), [-1e4, -200, 200, 1e4]]).astype("f")[:, None]
        assert export(net, tmp_path / file, X=X).rows == 100 + len(X)
        f = net.predict(X)
        assert (np.abs(run(tmp_path / file, X) - f) <= TOLERANCE * np.maximum(1, np.abs(f))).all()

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    @pytest.mark.parametrize(
        ("target", "dtype"),
        [
            *(("numpy", "float32"), ("numpy", "float64"), ("onnx", "float32")),
            pytest.param("c", "float32", marks=needs_a_compiler),
        ],
    )
    def test_activations_at_the_edges(self, target, dtype, tmp_path):
        """The table of tests/test_numbers.py. A file refuses an infinite x, so it is the sum of two that are not."""
        export, file, run = TARGETS[target]
        branches = [row.make() for row in ACTIVATIONS.values()]
        net = bp.Sequential(bp.Linear(2, 1, bias=False), bp.FanOut(*branches), dtype=dtype)
        net.phi[...] = 1
        h, most = points(dtype), np.finfo(dtype).max
        X = np.where(np.isinf(h), np.sign(h) * most, [h, np.zeros_like(h)]).T
        export(net, tmp_path / file)
        # onnxruntime has a sigmoid of its own, which is 0 below −18: right to the rounding of 1, no more.
        slack = ULPS * np.finfo(dtype).eps if target == "onnx" else 0
        for name, found in zip(ACTIVATIONS, run(tmp_path / file, X).T, strict=True):
            f, tolerance = expected(name, "value", dtype)
            assert_numbers(found, f, tolerance + slack, h)

    @every_target
    def test_layer_norm_of_numbers_that_are_all_alike(self, target, tmp_path):
        export, file, run = TARGETS[target]
        for n in (3, 7):
            export(bp.Sequential(bp.LayerNorm(n)), tmp_path / file)
            assert not run(tmp_path / file, np.full((2, n), 1e6 + 0.3, np.float32)).any()

    @every_target
    @pytest.mark.parametrize("name", sorted(OWN))
    def test_what_cannot_be_exported_is_named(self, name, target, tmp_path):
        export, file, _ = TARGETS[target]
        with pytest.raises(TypeError, match=rf"{export.__name__}: expected .* got .*(swish|branches|Scale).* at 1"):
            export(small(name), tmp_path / file)
        assert os.listdir(tmp_path) == []

    @every_target
    def test_a_layer_of_ones_own_may_say_what_it_computes(self, target, tmp_path):
        class Noise(bp.Dropout):
            """Something in training, nothing afterwards."""

        export, file, run = TARGETS[target]
        net = bp.Sequential(bp.Linear(5, 4), Noise(0.2), bp.Linear(4, 2), seed=0)
        export(net, tmp_path / file)
        X = spread((6, 5))
        assert_same(run(tmp_path / file, X), net, X)

    @settings(max_examples=15)
    @given(net=networks(3))
    def test_any_network(self, net, tmp_path_factory):
        folder = tmp_path_factory.mktemp("net")
        for export, file, _ in TARGETS.values():
            if export is not bp.to_c:
                assert export(net, folder / file).rows > 0


class TestReport:
    def test_says_what_was_found(self, tmp_path):
        net = small()
        report = bp.to_numpy(net, tmp_path / "net.py", X=spread((7, 5)))
        X = np.concatenate([verify.generated(5), spread((7, 5)).astype("f")])
        difference = np.abs(run_numpy(tmp_path / "net.py", X) - net.predict(X))
        assert report.rows == 107
        assert report.path == str(tmp_path / "net.py")
        assert report.largest_difference == difference.max()
        assert report.relative_difference == (difference.max(axis=0) / np.abs(net.predict(X)).max(axis=0)).max()
        assert str(report).startswith(f"{tmp_path / 'net.py'}: float32, largest difference from predict ")
        assert str(report).endswith("on 107 rows, run by NumPy")

    def test_rows_that_overflow_do_not_count(self, tmp_path):
        net = bp.Sequential(bp.Linear(1, 1, bias=False), bp.Exp())
        net.phi[...] = 60
        assert 10 < bp.to_numpy(net, tmp_path / "net.py").rows < 100
        net = bp.Sequential(bp.Linear(1, 1), bp.Exp())
        net.phi[...] = 1000, 0
        with pytest.raises(ValueError, match="finite outputs for some rows"):
            bp.to_numpy(net, tmp_path / "net.py")

    def test_without_a_compiler_the_report_says_so(self, tmp_path, monkeypatch):
        monkeypatch.setattr(shutil, "which", lambda name: None)
        report = bp.to_c(small(), tmp_path / "net.h")
        assert report.rows == 0
        assert np.isnan(report.largest_difference)
        assert "not compared with predict: no C compiler found" in str(report)
        assert (tmp_path / "net.h").exists()

    def test_without_onnxruntime_onnx_itself_runs_the_model(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        for name in KNOWN:
            report = bp.to_onnx(small(name), tmp_path / "net.onnx")
            assert "run by onnx " in str(report)
            assert report.rows == 100

    def test_an_extra_that_is_missing_is_named(self, tmp_path, monkeypatch):
        for name in ("onnx", "torch"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=r"backprop-mlp\[onnx\]"):
            bp.to_onnx(small(), tmp_path / "net.onnx")
        with pytest.raises(ImportError, match=r"backprop-mlp\[torch\]"):
            bp.to_torch(small())
        with pytest.raises(ImportError, match=r"backprop-mlp\[torch\]"):
            bp.from_torch(small())


FAULTS = [
    (
        "numpy",
        numpy_file.FORMULAS,
        "GELU",
        "0.5 * {h} * (1 + np.tanh(0.7978845608 * ({h} + 0.044715 * {h}**3)))",
        "GELU",
    ),
    ("numpy", numpy_file.FORMULAS, "LayerNorm", "standardize({h}, 0.001) * gamma_{key} + beta_{key}", "LayerNorm"),
    ("numpy", numpy_file.FORMULAS, "ReLU", "np.where({h} > 0, np.inf, 0)", "ReLU"),
    ("numpy", numpy_file.FORMULAS, "ReLU", "np.maximum({h}, 0)[:1]", "ReLU"),
    ("onnx", onnx_file.NODES, "ELU", ("LeakyRelu", "alpha"), "ELU"),
    ("onnx", onnx_file.NODES, "LeakyReLU", ("LeakyRelu", None), "LeakyReLU"),
    ("c", c_header.FORMULAS, "SiLU", "{h} / (1 + expf(-1.0001f * {h}))", "SiLU"),
    ("c", c_header.FORMULAS, "BatchNorm", "({h} - {name}_mean_{key}[i]) * {name}_scale_{key}[i]", "BatchNorm"),
]


class TestFaults:
    """The comparison at export time is not for show."""

    @pytest.mark.parametrize(
        ("target", "table", "key", "wrong", "name"), FAULTS, ids=[f"{f[0]} {f[2]} {k}" for k, f in enumerate(FAULTS)]
    )
    def test_a_wrong_export_is_refused_and_the_file_before_stays(
        self, target, table, key, wrong, name, tmp_path, monkeypatch
    ):
        if target == "c" and COMPILER is None:
            pytest.skip("no C compiler")
        export, file, _ = TARGETS[target]
        net = small(name)
        net.phi[...] += 0.25
        monkeypatch.setitem(table, key, wrong)
        (tmp_path / file).write_text("what was there before")
        with pytest.raises(RuntimeError, match=r"to_\w+: expected output.*of predict|expected outputs with shape"):
            export(net, tmp_path / file)
        assert (tmp_path / file).read_text() == "what was there before"
        assert os.listdir(tmp_path) == [file]

    def test_one_weight_wrong_by_a_thousandth(self):
        net = network("Sequential in Sequential")
        plan, twin = Plan("export", net, None, "float32"), net.copy()
        twin.phi[5] *= 1.001
        assert verify.compare(plan, net.predict, "net", "").relative_difference < 1e-15
        with pytest.raises(RuntimeError, match=r"within .* of predict"):
            verify.compare(plan, twin.predict, "net", "")

    def test_a_header_that_does_not_compile(self, tmp_path, monkeypatch):
        if COMPILER is None:
            pytest.skip("no C compiler")
        monkeypatch.setitem(c_header.FORMULAS, "GELU", "gelu({h}")
        with pytest.raises(RuntimeError, match="error:"):
            bp.to_c(small(), tmp_path / "net.h")
        assert os.listdir(tmp_path) == []


class TestBadInput:
    @every_target
    def test_what_is_no_network(self, target, tmp_path):
        export, file, _ = TARGETS[target]
        for thing in (bp.Linear(2, 1), bp.Sequential, None):
            with pytest.raises(TypeError, match=f"{export.__name__}: expected net: a Sequential"):
                export(thing, tmp_path / file)

    @every_target
    def test_a_folder_that_is_not_there(self, target, tmp_path):
        export, file, _ = TARGETS[target]
        with pytest.raises(FileNotFoundError, match="nowhere"):
            export(small(), tmp_path / "nowhere" / file)

    @every_target
    def test_weights_that_are_not_finite_are_named(self, target, tmp_path):
        export, file, _ = TARGETS[target]
        net = small("BatchNorm inside")
        net.parameters["1.0.omega"][2, 1] = np.nan
        with pytest.raises(ValueError, match=r"finite numbers in 1\.0\.omega, as float32, got nan at \[2, 1\]"):
            export(net, tmp_path / file)
        net.parameters["1.0.omega"][2, 1] = 0
        net.buffers["1.1.running_mean"][0] = np.inf
        with pytest.raises(ValueError, match=r"finite numbers in 1\.1\.mean, as float32, got inf at \[0\]"):
            export(net, tmp_path / file)
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("target", ["onnx", "c"])
    def test_weights_too_large_for_float32(self, target, tmp_path):
        export, file, _ = TARGETS[target]
        net = small(dtype="float64")
        net.phi[0] = 1e300
        with pytest.raises(ValueError, match=r"0\.beta, as float32, got inf"):
            export(net, tmp_path / file)

    @every_target
    def test_rows_that_do_not_fit(self, target, tmp_path):
        export, file, _ = TARGETS[target]
        net = small()
        with pytest.raises(ValueError, match=r"X with 5 columns.*\(5, 4\)"):
            export(net, tmp_path / file, X=np.ones((5, 4)))
        with pytest.raises(ValueError, match="finite values in X"):
            export(net, tmp_path / file, X=np.full((2, 5), np.nan))
        with pytest.raises(TypeError, match="X numbers"):
            export(net, tmp_path / file, X=[["a"] * 5])

    @every_target
    def test_a_network_of_any_width(self, target, tmp_path):
        export, file, run = TARGETS[target]
        for net in (bp.Sequential(bp.Identity()), bp.Sequential(bp.FanOut(bp.Identity(), bp.Sin()), bp.Dropout())):
            with pytest.raises(ValueError, match=r"knows its number of inputs, got one of any\. Pass X"):
                export(net, tmp_path / file)
            X = spread((4, 3))
            export(net, tmp_path / file, X=X)
            assert_same(run(tmp_path / file, X), net, X.astype("f"))

    @pytest.mark.parametrize("name", ["my-net.h", "3net.h", "größe.h", "_net.h", "a b.h", ".h", "net.v2.h"])
    def test_names_that_c_does_not_know(self, name, tmp_path, monkeypatch):
        monkeypatch.setattr(shutil, "which", lambda name: None)
        with pytest.raises(ValueError, match=r"a name for C: .*Pass name="):
            bp.to_c(small(), tmp_path / name)
        assert bp.to_c(small(), tmp_path / name, name="net").path == str(tmp_path / name)

    @pytest.mark.parametrize("name", ["math.h", "stdio.h", "Math.h", "string.H", "features.h"])
    def test_files_called_like_a_header_of_c(self, name, tmp_path):
        with pytest.raises(
            ValueError, match=rf"to_c: expected a file .*, got '{name}'\. .* call it net_{name.lower()}"
        ):
            bp.to_c(small(), tmp_path / name, name="net")
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("name", ["numpy.py", "base64.py", "random.py", "backprop.py"])
    def test_files_called_like_a_module(self, name, tmp_path):
        """NumPy beside a file called numpy.py is that file, also for the file itself; and NumPy imports random."""
        stem = name.removesuffix(".py")
        with pytest.raises(
            ValueError, match=rf"to_numpy: expected a file .*, got '{name}'\. .* call it {stem}_net\.py"
        ):
            bp.to_numpy(small(), tmp_path / name)
        assert os.listdir(tmp_path) == []
        bp.to_numpy(small(), tmp_path / f"{stem}_net.py")

    @pytest.mark.parametrize("name", ["", "a;b", 'x"', "é", "a\n"])
    def test_names_given(self, name, tmp_path):
        with pytest.raises(ValueError, match="a name for C"):
            bp.to_c(small(), tmp_path / "net.h", name=name)
        with pytest.raises(TypeError, match="a name for C"):
            bp.to_c(small(), tmp_path / "net.h", name=3)


class TestNumPyFile:
    def test_needs_numpy_only(self, tmp_path):
        net, X = small("Sequential in Sequential"), spread((3, 5)).astype("f")
        bp.to_numpy(net, tmp_path / "model.py")
        np.savetxt(tmp_path / "data.csv", X, delimiter=",")
        program = (
            "import runpy, sys\nsys.argv = ['model.py', 'data.csv']\nrunpy.run_path('model.py', run_name='__main__')\n"
            "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
        )
        done = subprocess.run(
            [sys.executable, "-I", "-W", "error", "-c", program],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        *lines, modules = done.stdout.splitlines()
        assert_same(np.array([[float(x) for x in line.split(",")] for line in lines]), net, X)
        assert {"numpy", "base64"} <= set(modules.split())
        assert set(modules.split()).isdisjoint({"backprop", "scipy", "torch", "safetensors"})

    def test_as_a_program_without_a_file(self, tmp_path):
        bp.to_numpy(small(), tmp_path / "model.py")
        done = subprocess.run([sys.executable, tmp_path / "model.py"], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("usage: python ")

    def test_checks_what_it_is_given(self, tmp_path):
        net = small()
        bp.to_numpy(net, tmp_path / "model.py")
        predict = runpy.run_path(str(tmp_path / "model.py"))["predict"]
        for X, error, words in [
            (np.ones(5), ValueError, r"\(N, 5\).*shape \(5,\)"),
            (np.ones((5, 4)), ValueError, r"\(N, 5\).*shape \(5, 4\)"),
            (np.ones((2, 5)) * 1j, TypeError, "real numbers, got complex"),
            ([["a"] * 5], TypeError, "real numbers, got <U1"),
            (np.full((2, 5), np.inf), ValueError, "finite"),
        ]:
            with pytest.raises(error, match=words):
                predict(X)
        assert_same(predict([[1, 2, 3, 4, 5]]), net, [[1, 2, 3, 4, 5]])
        assert predict(np.ones((0, 5))).shape == (0, 4)

    def test_weights_are_the_same_bits(self, tmp_path):
        for dtype in ("float32", "float64"):
            net = small("Sequential", dtype)
            bp.to_numpy(net, tmp_path / "model.py")
            values = runpy.run_path(str(tmp_path / "model.py"))
            for name, array in net.parameters.items():
                *place, own = name.split(".")
                assert_array_equal(values[f"{own}_{'_'.join(place)}"], array)
            assert_array_equal(values["predict"](np.eye(5, dtype=dtype)), net.predict(np.eye(5, dtype=dtype)))


class TestONNX:
    def test_nodes_are_plain(self, tmp_path):
        import onnx

        net = bp.Sequential(
            bp.Linear(3, 4), bp.ReLU(), bp.Linear(4, 4, bias=False), bp.Dropout(), bp.SiLU(), bp.Linear(4, 2)
        )
        bp.to_onnx(net, tmp_path / "net.onnx")
        model = onnx.load(tmp_path / "net.onnx")
        onnx.checker.check_model(model, full_check=True)
        assert [node.op_type for node in model.graph.node] == [
            *("Gemm", "Relu", "Gemm"),
            *("Constant", "Max", "Sigmoid", "Mul"),
            "Gemm",
        ]
        shapes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input]
        assert shapes == [["N", 3]]
        assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["X", "f"]
        weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        assert weights.keys() == net.parameters.keys()
        for name, array in net.parameters.items():
            assert_array_equal(weights[name], array)

    def test_any_number_of_rows(self, tmp_path):
        net = small("BatchNorm inside")
        bp.to_onnx(net, tmp_path / "net.onnx")
        for n in (1, 2, 1000):
            X = spread((n, 5)).astype("f")
            assert_same(run_onnx(tmp_path / "net.onnx", X), net, X)


@needs_a_compiler
class TestC:
    @pytest.mark.parametrize(
        "flags", [["-O3"], ["-O0", "-fsanitize=undefined", "-Wconversion", "-Wshadow"]], ids=" ".join
    )
    def test_with_other_flags(self, flags, tmp_path):
        net = bp.Sequential(
            bp.FanOut(bp.Linear(4, 7), bp.Residual(bp.FanOut(bp.Linear(4, 4), bp.Tanh(), join="sum")), bp.Identity()),
            *(bp.LayerNorm(15), bp.Residual(bp.Residual(bp.Linear(15, 15))), bp.Cos(), bp.Linear(15, 3), bp.ELU(0.5)),
            seed=0,
        )
        bp.to_c(net, tmp_path / "deep.h", name="deep_net2")
        X = spread((9, 4)).astype("f")
        if "-fsanitize=undefined" in flags:
            (tmp_path / "try.c").write_text("int main(void) { return 0; }")
            tried = [COMPILER, "-fsanitize=undefined", tmp_path / "try.c", "-o", tmp_path / "try"]
            if subprocess.run(tried, capture_output=True, check=False).returncode:
                flags = [flag for flag in flags if "sanitize" not in flag]
        assert_same(run_c(tmp_path / "deep.h", X, "deep_net2", flags), net, X)

    def test_weights_are_the_same_bits(self, tmp_path):
        net = bp.Sequential(bp.Linear(5, 4, bias=False, seed=0))
        net.phi[:3] = 3, -1e-38, 3.4e38
        bp.to_c(net, tmp_path / "net.h")
        assert_array_equal(run_c(tmp_path / "net.h", np.eye(5, dtype="f")).T, net.parameters["0.omega"])

    def test_arrays_are_used_again(self, tmp_path):
        net = bp.Sequential(*(layer for _ in range(20) for layer in (bp.Linear(8, 8), bp.Tanh())))
        bp.to_c(net, tmp_path / "net.h")
        text = (tmp_path / "net.h").read_text(encoding="utf-8")
        assert f"{2 * 8 * 4} bytes of stack" in text
        assert "malloc" not in text
        assert [line for line in text.splitlines() if line.startswith("#include")] == [
            "#include <math.h>",
            "#include <stddef.h>",
        ]


class TestTorch:
    @pytest.fixture(autouse=True)
    def _torch(self):
        self.torch = pytest.importorskip("torch")

    def run(self, module, X, dtype):
        with self.torch.no_grad():
            return module(self.torch.tensor(X, dtype=getattr(self.torch, dtype))).numpy()

    @pytest.mark.parametrize("name", TABULAR)
    def test_refuses_columns_and_members_by_name(self, name):
        with pytest.raises(
            TypeError, match=rf"to_torch: expected .* got {type(LAYERS[name](4)).__name__}.* at 1\. to_onnx"
        ):
            bp.to_torch(small(name))

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("name", [name for name in KNOWN if name not in TABULAR])
    def test_there_and_back(self, name, dtype, tmp_path):
        net, X = small(name, dtype), spread((9, 5)).astype("f")
        module = bp.to_torch(net)
        assert type(module) is self.torch.nn.Sequential
        assert not module.training
        assert_same(self.run(module, X, dtype), net, X)
        f = net.predict(verify.generated(5))
        assert module.largest_difference <= TOLERANCE * np.abs(f).max() + 1e-30
        bp.save_weights(net, tmp_path / "net.safetensors")
        from safetensors.torch import load_file

        saved = load_file(tmp_path / "net.safetensors")
        keys = {key for key in module.state_dict() if not key.endswith("num_batches_tracked")}
        assert keys == set(saved)
        module.load_state_dict(saved)
        assert_same(self.run(module, X, dtype), net, X)

        twin = bp.from_torch(module)
        assert_array_equal(twin.phi, net.phi)
        assert twin.phi.dtype == dtype
        assert_array_equal(twin.predict(X), net.predict(X))
        assert repr(twin) == repr(net)
        assert bp.to_torch(twin).state_dict().keys() == module.state_dict().keys()

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("name", ACTIVATIONS)
    def test_activations_at_the_edges(self, name, dtype):
        net, h = bp.Sequential(ACTIVATIONS[name].make(), dtype=dtype), points(dtype)
        found = self.run(bp.to_torch(net, X=np.ones((1, 1))), h[:, None], dtype)[:, 0]
        f, tolerance = expected(name, "value", dtype)
        if name == "GELU":  # PyTorch's is 0.5 h (1 + erf), right to the rounding of 1
            tolerance = tolerance + ULPS * np.finfo(dtype).eps
        if name in ("GELU", "SiLU", "LeakyReLU(0)"):  # PyTorch has nan at −∞, for GELU also at ∞
            finite = np.isfinite(h)
            h, found, f, tolerance = h[finite], found[finite], f[finite], tolerance[finite]
        assert_numbers(found, f, tolerance, h)

    @pytest.mark.parametrize("name", sorted(OWN))
    def test_what_cannot_be_exported_is_named(self, name):
        with pytest.raises(TypeError, match=r"to_torch: expected .* got .*(swish|branches|Scale).* at 1"):
            bp.to_torch(small(name))

    def test_a_layer_of_ones_own_may_say_what_it_computes(self):
        class Noise(bp.Dropout):
            """Something in training, nothing afterwards."""

        net = bp.Sequential(bp.Linear(5, 4), Noise(0.2), seed=0)
        assert type(bp.to_torch(net)[1]) is self.torch.nn.Identity

    def test_training_goes_on(self):
        """BatchNorm is BatchNorm there: in training it takes the statistics of the batch and moves its own."""
        net = bp.Sequential(bp.Linear(3, 4), bp.BatchNorm(4, momentum=0.3, eps=0.1), bp.Sin(), bp.Linear(4, 1), seed=0)
        module, X = bp.to_torch(net).train(), spread((8, 3)).astype("f")
        f = module(self.torch.tensor(X))
        f.mean().backward()
        np.testing.assert_allclose(f.detach().numpy(), net.forward(X.T).T, rtol=0, atol=1e-6)
        _, gradients = net.backward(np.full((1, 8), 1 / 8, "f"))
        np.testing.assert_allclose(module[0].weight.grad.numpy(), gradients["0.omega"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(module[1].running_var.numpy(), net.buffers["1.running_variance"], rtol=1e-6)
        assert int(module[1].num_batches_tracked) == 1
        assert module[2:].training

    def test_nothing_is_shared_or_disturbed(self):
        net = small("Sequential")
        phi, state = net.phi.copy(), self.torch.random.get_rng_state()
        module = bp.to_torch(net)
        assert_array_equal(self.torch.random.get_rng_state().numpy(), state.numpy())
        with self.torch.no_grad():
            module[0].weight += 1
        assert_array_equal(net.phi, phi)
        module.train()
        module[1][1].eval()
        twin = bp.from_torch(module)
        assert module.training
        assert module[1][0].training
        assert not module[1][1].training
        twin.phi[...] = 0
        assert float(module[0].weight.detach().abs().sum()) > 0

    def test_a_module_made_by_hand(self):
        nn = self.torch.nn
        self.torch.manual_seed(0)
        inner = nn.Sequential(nn.Linear(6, 6, bias=False), nn.ELU(0.7), nn.LayerNorm(6, eps=1e-3))
        module = nn.Sequential(
            nn.Linear(4, 6), nn.BatchNorm1d(6, eps=1e-2), nn.GELU(), inner, nn.Dropout(0.3), nn.Softplus()
        )
        module(self.torch.randn(16, 4))  # moves the running statistics
        net, X = bp.from_torch(module), spread((9, 4)).astype("f")
        assert_same(self.run(module.eval(), X, "float32"), net, X)
        kinds = [bp.Linear, bp.BatchNorm, bp.GELU, bp.Sequential, bp.Dropout, bp.Softplus]
        assert [type(layer) for layer in net] == kinds
        assert net[4].rate == 0.3

    def test_parts_with_names(self):
        nn = self.torch.nn
        module = nn.Sequential()
        module.add_module("first", nn.Linear(4, 3))
        module.add_module("act", nn.Tanh())
        X = spread((9, 4)).astype("f")
        assert_same(self.run(module, X, "float32"), bp.from_torch(module), X)
        net = bp.from_torch(module[0])
        assert list(net.parameters) == ["0.beta", "0.omega"]

    def test_modules_without_a_counterpart_are_named(self):
        nn = self.torch.nn
        linear = nn.Linear(4, 4)
        for module, name in [
            (nn.Conv1d(1, 1, 1), "Conv1d"),
            (nn.GELU(approximate="tanh"), "GELU"),
            (nn.Softplus(beta=2), "Softplus"),
            (nn.Softplus(threshold=1), "Softplus"),
            (nn.LayerNorm((2, 4)), "LayerNorm"),
            (nn.LayerNorm(4, elementwise_affine=False), "LayerNorm"),
            (nn.LayerNorm(4, bias=False), "LayerNorm"),
            (nn.BatchNorm1d(4, affine=False), "BatchNorm1d"),
            (nn.BatchNorm1d(4, momentum=None), "BatchNorm1d"),
            (nn.BatchNorm1d(4, track_running_stats=False), "BatchNorm1d"),
            (nn.BatchNorm2d(4), "BatchNorm2d"),
            (nn.Softmax(dim=1), "Softmax"),
            (nn.ModuleList([nn.ReLU()]), "ModuleList"),
            (nn.TransformerEncoderLayer(4, 1), "TransformerEncoderLayer"),
            (nn.utils.parametrizations.orthogonal(nn.Linear(4, 4)), "ParametrizedLinear"),
        ]:
            with pytest.raises(TypeError, match=rf"from_torch: .*got {name}\b(?s:.*) at '1\.0'\. These are Sequential"):
                bp.from_torch(nn.Sequential(linear, nn.Sequential(module)))
        for thing in (None, nn.Linear, linear.state_dict()):
            with pytest.raises(TypeError, match=r"a torch\.nn\.Module"):
                bp.from_torch(thing)
        with pytest.raises(ValueError, match="at least one layer"):
            bp.from_torch(nn.Sequential())

    def test_parameters_it_cannot_take(self):
        nn = self.torch.nn
        with pytest.raises(ValueError, match=r"all float64, got float16\. Convert it first"):
            bp.from_torch(nn.Linear(2, 2).half())
        with pytest.raises(ValueError, match="got float32, float64"):
            bp.from_torch(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()))
        module = nn.Linear(2, 2)
        module.weight.data[1, 0] = np.nan
        with pytest.raises(ValueError, match=r"from_torch: expected finite numbers in 0\.omega"):
            bp.from_torch(module)

    @pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
    def test_what_a_hook_adds_is_not_left_out(self):
        module = self.torch.nn.Sequential(self.torch.nn.Linear(3, 2))
        module[0].register_forward_hook(lambda module, given, f: f + 1)
        with pytest.raises(RuntimeError, match="look for hooks"):
            bp.from_torch(module)
        module = self.torch.nn.utils.weight_norm(self.torch.nn.Linear(3, 2))
        X = spread((5, 3)).astype("f")
        assert_same(self.run(module, X, "float32"), bp.from_torch(module), X)

    def test_a_network_of_float64_without_parameters(self):
        X = spread((9, 5))
        module = bp.to_torch(bp.Sequential(bp.Exp(), dtype="float64"), X=X)
        assert module.largest_difference < 1e-14
