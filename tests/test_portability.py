"""What differs between systems: outputs that are not UTF-8, files on Windows and macOS, cores, the folders of libraries."""

from __future__ import annotations

import ast
import fcntl
import io
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import backprop as bp
from backprop import signs
from backprop.__main__ import main
from backprop.engine import threads
from backprop.files import atomic

PACKAGE = Path(bp.__file__).parent
ENCODINGS = ["cp1252", "ascii", "utf-8"]


def ended(encoding, *arguments, cwd=None, **environment):
    """What Python prints, with standard output and error in an encoding, as bytes; it must succeed."""
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"} | environment
    run = subprocess.run([sys.executable, *arguments], capture_output=True, env=environment, cwd=cwd, check=False)
    assert run.returncode == 0, run.stderr.decode(encoding, "replace")
    return run.stdout


SHAPE = r"  (\([\d, ]*\)) +([-\d\[].*)"  # of an array, and its numbers


def shown(text, encoding, errors="backprop.spell"):
    """A text as a file or a terminal of an encoding gets it."""
    return text.encode(encoding, errors).decode(encoding)


class TestEncodings:
    PROGRAM = """
import backprop as bp
net = bp.Sequential(bp.Linear(2, 3), bp.ReLU(), bp.Linear(3, 1), seed=0)
print(net)
X, y = [[1.0, 2.0], [0.5, -1.0]], [1.0, 0.0]
print(bp.check_gradients(net, bp.LeastSquares(), X, y))
print(bp.explain(net, bp.LeastSquares(), X, y))
try:
    net.forward([[1.0, 2.0, 3.0]])
except ValueError as error:
    print(error)
"""

    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_a_program_prints_all_of_it(self, encoding):
        text = ended(encoding, "-c", self.PROGRAM).decode(encoding)
        if encoding == "utf-8":
            assert "∂L/∂Ω" in text
            assert "Linear(2 → 3)" in text
        else:
            assert "dL/domega" in text
            assert "Linear(2 -> 3)" in text
            assert "phi" in text

    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_columns_stay_under_each_other(self, encoding):
        """Each column of `explain` and of a network begins, or ends, in one place, whatever the signs take."""
        layers = bp.Linear(2, 3), bp.Sigmoid(), bp.LayerNorm(3), bp.Linear(3, 1)
        net = bp.Sequential(*layers, seed=0)
        passes = bp.explain(net, bp.LeastSquares(), [[1.0, 2.0], [0.5, -1.0]], [1.0, 0.0], [1.0, 2.0])
        text = shown(passes.text, encoding)
        shapes = {
            (found.start(1), found.start(2)) for found in map(re.compile(SHAPE).search, text.splitlines()) if found
        }
        ((_, numbers),) = shapes
        assert {len(blanks) for blanks in re.findall(r"^( +)\[", text, re.MULTILINE)} == {numbers + 1}  # further rows
        assert "\n".join(shown(line, encoding) for line in passes.lines) == text  # an equation at a time as well
        rows = shown(str(net), encoding).splitlines()
        assert len({len(row) for row in rows[:-1]}) == 1
        assert rows[-1].index("  0.") == len(rows[0])

    def test_a_name_that_is_not_ours_is_told_of_beside_signs_that_are(self):
        assert shown("Ω of größe   1\nΩ   2", "ascii", "backprop.tell") == "omega of gr\\xf6\\xdfe   1\nomega  2"
        with pytest.raises(UnicodeEncodeError, match="u672c"):
            shown("Ω of 本   1", "cp1252")

    @pytest.mark.parametrize(
        ("text", "spelled"),
        [
            ("Ω      1\nβ      2", "omega  1\nbeta   2"),
            ("Ω 1", "omega 1"),
            ("Ω  1", "omega  1"),
            ("a → b    c → d    e", "a -> b   c -> d   e"),
            ("Ω\n\n   β", "omega\n\n   beta"),
            ("Ω   ", "omega  "),
        ],
    )
    def test_blanks_pay_for_letters(self, text, spelled):
        assert shown(text, "ascii") == spelled

    def test_the_demo_is_a_module_to_run(self):
        assert b"--epochs" in ended("ascii", "-m", "backprop.demo", "--help")

    @pytest.fixture
    def looked(self, tmp_path, monkeypatch):
        """What `backprop look` says, to outputs in an encoding, of a table with names that only UTF-8 has."""
        (tmp_path / "a.csv").write_text("größe,本,y\n" + "1,2,3\n2,1,4\n3,5,6\n" * 8, encoding="utf-8")

        def look(encoding, *options):
            out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
            monkeypatch.setattr(sys, "stdout", out)
            assert main(["look", str(tmp_path / "a.csv"), *options]) == 0
            out.flush()
            return out.buffer.getvalue().decode(encoding)

        return look

    def test_results_for_programs_lose_nothing(self, looked):
        results = [json.loads(looked(encoding, "--json")) for encoding in ENCODINGS]
        assert results[0] == results[1] == results[2]
        assert {"größe", "本"} <= set(re.findall(r"\w+", str(results[0])))

    def test_the_command_line_escapes_names_that_an_output_lacks(self, looked):
        text = looked("cp1252")
        assert "größe" in text
        assert r"\u672c" in text

    def test_what_is_not_ours_stays_an_error(self):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
        signs.let_print(stream)
        with pytest.raises(UnicodeEncodeError, match="u672c"):
            print("本", file=stream)

    @pytest.mark.parametrize(
        ("encoding", "errors"), [("utf-8", "strict"), ("cp1252", "replace"), ("cp1252", "xmlcharrefreplace")]
    )
    def test_an_output_that_needs_no_help_is_left_alone(self, encoding, errors):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors)
        signs.let_print(stream)
        assert stream.errors == errors

    @pytest.mark.parametrize("stream", [None, io.StringIO(), SimpleNamespace(write=print)], ids=["none", "text", "own"])
    def test_what_is_no_stream_of_bytes_is_left_alone(self, stream):
        before = getattr(stream, "errors", "none")
        signs.let_print(stream)
        assert getattr(stream, "errors", "none") == before

    def test_every_sign_of_the_library_has_a_spelling(self):
        data = {PACKAGE / "tables" / "words.py", PACKAGE / "signs.py"}  # patterns of what other people write
        found = {
            sign
            for path in set(PACKAGE.rglob("*.py")) - data
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            for sign in node.value
            if ord(sign) > 127 and not sign.isspace()
        }
        ours = {sign: signs.spelled(sign) for sign in found - set("éüŝ\ufeff")}
        assert {sign for sign, spelled in ours.items() if spelled is None or not spelled.isascii()} == set()


class Windows:
    """What `os` does there, as far as it matters: read-only files can neither be replaced nor removed, open ones neither."""

    def __init__(self, monkeypatch, fault=None):
        self.unlinked, self.replaced, self.fault = os.unlink, os.replace, fault
        monkeypatch.setattr(sys, "platform", "win32")
        monkeypatch.setattr(os, "replace", self.replace)
        monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: self.unlink(path))
        monkeypatch.delattr(os, "O_DIRECTORY")

    def refuse(self, path):
        if os.path.exists(path) and not os.stat(path).st_mode & stat.S_IWRITE:
            raise PermissionError(13, "Access is denied", str(path))
        held = {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
        if os.path.realpath(path) in held:
            raise PermissionError(13, "The process cannot access the file", str(path))

    def replace(self, source, target):
        self.refuse(source)
        self.refuse(target)
        if self.fault:
            raise self.fault
        self.replaced(source, target)

    def unlink(self, path):
        if os.path.exists(path):
            self.refuse(path)
            self.unlinked(path)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Windows is played on Linux")
class TestWindows:
    @pytest.mark.parametrize("mode", [0o644, 0o444], ids=["writable", "read-only"])
    @pytest.mark.parametrize("fault", [None, OSError(28, "no space left"), KeyboardInterrupt()], ids=repr)
    def test_a_file_is_replaced_whole_or_not_at_all(self, mode, fault, tmp_path, monkeypatch):
        path = tmp_path / "net.safetensors"
        path.write_bytes(b"old")
        path.chmod(mode)
        Windows(monkeypatch, fault)
        if fault:
            with pytest.raises(type(fault)):
                atomic.write_atomically(path, b"new")
        else:
            atomic.write_atomically(path, b"new")
        monkeypatch.undo()
        assert path.read_bytes() == (b"old" if fault else b"new")
        assert bool(path.stat().st_mode & stat.S_IWRITE) == (mode == 0o644)
        assert os.listdir(tmp_path) == [path.name]

    def test_a_new_file(self, tmp_path, monkeypatch):
        Windows(monkeypatch)
        atomic.write_atomically(tmp_path / "new", b"data")
        monkeypatch.undo()
        assert (tmp_path / "new").read_bytes() == b"data"
        assert os.listdir(tmp_path) == ["new"]


class TestMacOS:
    @pytest.mark.parametrize("known", [True, False], ids=["its disks", "a file system without it"])
    def test_files_reach_the_disk_itself(self, known, tmp_path, monkeypatch):
        asked, synced, fsync = [], [], os.fsync

        def control(file, request):
            asked.append(request)
            if not known:
                raise OSError(45, "Operation not supported")

        monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
        monkeypatch.setattr(fcntl, "fcntl", control)
        monkeypatch.setattr(os, "fsync", lambda file: (synced.append(file), fsync(file)))
        atomic.write_atomically(tmp_path / "file", b"data")
        assert asked == [51, 51]  # the file, and its name in the folder
        assert len(synced) == (0 if known else 2)
        assert (tmp_path / "file").read_bytes() == b"data"


class TestCores:
    @pytest.mark.skipif(not hasattr(os, "process_cpu_count"), reason="from Python 3.13 on")
    def test_a_limit_of_python_counts(self):
        program = "from backprop.engine.threads import cores; print(cores())"
        assert ended("utf-8", "-X", "cpu_count=1", "-c", program).strip() == b"1"

    def test_process_cpu_count_decides_where_there_is_one(self, monkeypatch):
        monkeypatch.setattr(os, "process_cpu_count", lambda: 1, raising=False)
        assert threads.cores() == 1

    def test_without_it_affinity_decides(self, monkeypatch):
        monkeypatch.delattr(os, "process_cpu_count", raising=False)
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3}, raising=False)
        assert threads.cores() == 1


class TestFolders:
    """Which of the BLAS libraries in memory is SciPy's is told by where SciPy is."""

    @pytest.mark.parametrize("above", ["venv", "scipy", "scipy.libs"])
    @pytest.mark.parametrize("inside", ["scipy.libs", "scipy/.dylibs"])
    def test_a_folder_of_any_name_may_hold_the_environment(self, above, inside, monkeypatch):
        import scipy

        site = Path("/", above, "site-packages")
        libraries = [SimpleNamespace(filepath=str(site / place / "libblas")) for place in ("numpy.libs", inside)]
        monkeypatch.setattr(scipy, "__file__", str(site / "scipy" / "__init__.py"))
        monkeypatch.setattr(threads, "_blas_libraries", lambda: libraries)
        assert threads._scipys.__wrapped__() == libraries[1:]

    def test_one_library_for_both_is_scipy_s(self, monkeypatch):
        libraries = [SimpleNamespace(filepath=str(Path("/", "usr", "libopenblas.so.0")))]
        monkeypatch.setattr(threads, "_blas_libraries", lambda: libraries)
        assert threads._scipys.__wrapped__() == libraries
