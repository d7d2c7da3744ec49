"""What the benchmarks share: data, where they run, worker processes, tables, CSV files and pictures.

Not a program; `python benchmarks/peers.py --help` is one.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SPEED_PREFIXES = ("OPENBLAS_", "OMP_", "MKL_", "GOMP_", "XLA_", "NPY_")

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100

Row = dict[str, Any]


def parser(doc: str, out: str) -> argparse.ArgumentParser:
    """Options every benchmark has; the first line of its docstring is the description."""
    made = argparse.ArgumentParser(description=doc.partition("\n")[0])
    made.add_argument(
        "--out", type=Path, default=Path("out") / out, help="folder for what is written (default: %(default)s)"
    )
    made.add_argument("--quick", action="store_true", help="a small form that takes seconds; its numbers mean nothing")
    return made


def cpus() -> list[int]:
    """The CPUs this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def processor() -> str:
    """The processor's name, as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def environment(packages: Sequence[str] = ("backprop-mlp", "numpy", "scipy")) -> list[str]:
    """Lines that say where numbers come from: processor, cores, load, versions, variables that change the speed."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    variables = [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith(SPEED_PREFIXES)]
    versions = [f"Python {platform.python_version()}"] + [f"{name} {version(name)}" for name in packages]
    return [
        f"Processor: {processor()}, {len(cpus())} of {os.cpu_count()} cores{load}; {platform.system()} {platform.machine()}",
        f"Versions: {', '.join(versions)}",
        f"Variables set: {', '.join(variables) or 'none that change the speed'}",
    ]


def version(package: str) -> str:
    """The installed version of a package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def blas_lines() -> list[str]:
    """Each BLAS and OpenMP library loaded in this process, with the kernels it chose."""
    from threadpoolctl import threadpool_info

    return [
        f"{info['internal_api']} {info.get('version') or ''} {info.get('architecture', '')} "
        f"{info['num_threads']} thread(s), {Path(info['filepath']).parent.name}/{Path(info['filepath']).name}"
        for info in threadpool_info()
    ]


def synthetic(n: int, width: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows X (n, width) in float32 and the labels that a random linear map gives them: something to learn, on any net."""
    generator = np.random.default_rng(seed)
    X = (0.3 * generator.standard_normal((n, width))).astype(np.float32)
    return X, (X @ generator.standard_normal((width, classes)).astype(np.float32)).argmax(axis=1)


def mnist(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """All images (N, 784) in 0 … 1 and labels of the IDX files in a folder: `*images-idx3*`, `*labels-idx1*`, gzipped or not."""

    def read(pattern: str, header: int) -> np.ndarray:
        files = sorted(folder.glob(pattern))
        if not files:
            raise FileNotFoundError(f"no file {pattern} in {folder}")
        contents = [gzip.decompress(f.read_bytes()) if f.suffix == ".gz" else f.read_bytes() for f in files]
        return np.concatenate([np.frombuffer(content, np.uint8, offset=header) for content in contents])

    return (read("*images-idx3*", 16).reshape(-1, 784) / np.float32(255)), read("*labels-idx1*", 8).astype(np.int64)


def examples(n: int, width: int, classes: int, folder: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Rows and labels for a net: MNIST where a folder is given and the width fits, repeated as needed; else synthetic."""
    if not folder or (width, classes) != (784, 10):
        return synthetic(n, width, classes)
    X, y = mnist(Path(folder))
    rows = np.random.default_rng(0).permutation(max(n, len(X)))[:n] % len(X)
    return X[rows], y[rows]


def network(widths: Sequence[int], **options: Any) -> Any:
    """A net of this library with ReLU between its linear layers."""
    import backprop as bp

    layers: list[Any] = []
    for k, (D_in, D_out) in enumerate(pairwise(widths)):
        layers += [bp.ReLU()] * (k > 0) + [bp.Linear(D_in, D_out)]
    return bp.Sequential(*layers, **{"seed": 0} | options)


def machine_seconds() -> float | None:
    """CPU time that all processes of the machine have used; None where the system does not tell."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _, _, *rest = map(float, stat.read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + sum(rest)) / TICKS


def wait_until_quiet(most: float = 0.5) -> None:
    """Wait until the machine rests: OpenBLAS's threads spin for 0.1 s after their work, in everybody else's way."""
    end = time.perf_counter() + most
    before = machine_seconds()
    while before is not None and time.perf_counter() < end:
        time.sleep(0.05)
        now = machine_seconds()
        if now is None or now - before < 0.015:
            return
        before = now
    if before is None:
        time.sleep(0.2)


class Worker:
    """A process of its own that answers one JSON line per JSON line; see `serve`.

    It is pinned to `threads` CPUs, and every library in it is told that number: so all contenders have the same means.
    """

    def __init__(self, script: str, name: str, threads: int, drop: Iterable[str] = ()) -> None:
        self.name, self.threads = name, threads
        set_to = {variable: str(threads) for variable in THREAD_VARIABLES}
        inherited = {k: v for k, v in os.environ.items() if k not in set(drop)}
        self.process = subprocess.Popen(
            [sys.executable, script, "--worker", name, "--cpus", ",".join(map(str, cpus()[-threads:]))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=inherited | set_to,
            start_new_session=True,  # Ctrl-C is for the parent, which then prints what there is
        )

    def ask(self, **job: Any) -> Any:
        """Send a job, wait for its answer. Raises RuntimeError with the worker's words if it failed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": "the worker ended"}
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(f"{self.name}: {answer['error']}")
        return answer

    def cpu_seconds(self) -> float:
        """CPU time of all its threads so far; 0 where the system does not tell."""
        stat = Path(f"/proc/{self.process.pid}/stat")
        fields = stat.read_text().rpartition(")")[2].split() if stat.exists() else ["0"] * 13
        return (float(fields[11]) + float(fields[12])) / TICKS

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def serve(answer: Callable[[Row], Any]) -> None:
    """The worker's side: one answer per line until the parent closes the pipe. What libraries print goes to stderr."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies, flush=True)


def pin(given: str) -> None:
    """Stay on these CPUs, before any library counts them."""
    if given and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(cpu) for cpu in given.split(",")})


def fresh(*arguments: str, **variables: str) -> Any:
    """Run Python in a fresh process and return the JSON it prints last. Raises RuntimeError with its stderr if it fails."""
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=os.environ | variables
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)[:200]} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def seconds(function: Callable[[], Any], calls: int) -> float:
    """Of one call, the mean of several."""
    begin = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - begin) / calls


def geometric_mean(values: Iterable[float]) -> float:
    """The mean of ratios; NaN of none."""
    logs = np.log(list(values))
    return float(np.exp(logs.mean())) if logs.size else float("nan")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, padded so that it reads as text too; numbers to the right."""
    cells = [[_text(value) for value in row] for row in rows]
    widths = [max(len(line[k]) for line in [list(header), *cells]) for k in range(len(header))]
    right = [all(_is_number(line[k]) for line in cells) for k in range(len(header))]

    def line(parts: Sequence[str]) -> str:
        padded = [p.rjust(w) if r else p.ljust(w) for p, w, r in zip(parts, widths, right, strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * (w - 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)]
    return "\n".join([line(list(header)), line(rule), *map(line, cells)])


def _text(value: object) -> str:
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    if value != value:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _is_number(text: str) -> bool:
    return text in ("–", "") or text.replace(",", "").replace(".", "").replace("e-", "").replace("e+", "").isdigit()


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Rows with the same keys as a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
    print(f"Written: {path}", file=sys.stderr)


def figure(width: float, height: float) -> Any:
    """An empty picture, or None with a line where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("No picture: matplotlib is not installed.", file=sys.stderr)
        return None
    return Figure(figsize=(width, height), layout="constrained")


def save(picture: Any, path: Path) -> None:
    """Write a picture as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=130)
    print(f"Written: {path}", file=sys.stderr)


def publish(out: Path, name: str, about: Sequence[str], rows: list[Row], every: list[Row] | None = None) -> None:
    """Print rows as a table and write it as Markdown, its first line the title; write the rows, or `every` one, as CSV."""
    lines = "\n".join(f"- {line}" for line in about[1:])
    text = f"# {about[0]}\n\n{lines}\n\n{table(list(rows[0]), [list(row.values()) for row in rows])}\n"
    print(text)
    write_csv(out / f"{name}.csv", every or rows)
    (out / f"{name}.md").write_text(text, encoding="utf-8")
