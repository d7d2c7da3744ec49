"""How fast an exported network is, beside `predict`: as a NumPy file, in onnxruntime, in PyTorch and as a C header.

    python benchmarks/exports.py

Each contender runs in a process of its own, pinned to one CPU, in turns, for one row and for a batch. The C programs are
compiled by the system's compiler and measure themselves, without Python between the calls. Writes exports.csv, exports.md and
exports.png; contenders that are not installed are left out.
"""

from __future__ import annotations

import argparse
import runpy
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import common

NETS = ["64-32-10", "784-128-10", "784-512-512-10"]
BATCHES = [1, 512]
NEEDS = {"predict": "backprop", "NumPy file": "numpy", "onnxruntime": "onnxruntime", "PyTorch": "torch"}
FLAGS = {"C -O2": ["-O2"], "C -O3 -march=native": ["-O3", "-march=native"]}
PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "net.h"

int main(int count, char **arguments)
{
    long rows = atol(arguments[count - 2]), calls = atol(arguments[count - 1]);
    float *X = malloc(rows * NET_INPUTS * sizeof(float)), *f = malloc(rows * NET_OUTPUTS * sizeof(float)), used = 0;
    for (long i = 0; i < rows * NET_INPUTS; i++) X[i] = 0.1f * (float)(i % 7);
    clock_t begin = clock();
    for (long call = 0; call < calls; call++) {
        X[0] = (float)call; /* or one call would do for all of them */
        net_predict_rows(rows, X, f);
        used += f[0];
    }
    printf("%.9g %g\\n", (double)(clock() - begin) / CLOCKS_PER_SEC / calls, used);
}
"""


def predictor(name: str, net: Any, X: Any, folder: Path) -> Callable[[], Any]:
    """A call of one contender in Python."""
    import backprop as bp

    if name == "predict":
        return lambda: net.predict(X)
    if name == "NumPy file":
        bp.to_numpy(net, folder / "net.py")
        predict = runpy.run_path(str(folder / "net.py"))["predict"]
        return lambda: predict(X)
    if name == "onnxruntime":
        import onnxruntime

        bp.to_onnx(net, folder / "net.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(folder / "net.onnx", options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"X": X})
    import torch

    module, given = bp.to_torch(net), torch.from_numpy(X)
    torch.set_grad_enabled(False)  # for good: entering no_grad each time would cost a microsecond
    return lambda: module(given)


def answers(name: str) -> Callable[[dict[str, Any]], float]:
    """The worker's side: seconds per call."""

    @cache
    def prepared(widths: str, batch: int, folder: Path) -> Callable[[int], float]:
        import backprop as bp

        sizes = [int(width) for width in widths.split("-")]
        net = common.network(sizes)
        if name not in FLAGS:
            call = predictor(name, net, common.synthetic(batch, sizes[0], sizes[-1])[0], folder)
            return lambda calls: common.seconds(call, calls)
        bp.to_c(net, folder / "net.h")
        program = folder / f"{widths} {batch}"
        (folder / "main.c").write_text(PROGRAM)
        compiler = ["cc", "-std=c99", *FLAGS[name]]
        subprocess.run([*compiler, str(folder / "main.c"), "-o", str(program), "-lm"], check=True)

        def seconds(calls: int) -> float:
            done = subprocess.run([program, str(batch), str(calls)], capture_output=True, text=True, check=True)
            return float(done.stdout.split()[0])

        return seconds

    def seconds(job: dict[str, Any]) -> float:
        measure = prepared(job["net"], job["batch"], Path(job["folder"]))
        calls = 1
        while (spent := measure(calls)) * calls < job["least"]:
            calls = max(2 * calls, min(100 * calls, int(1.2 * job["least"] / max(spent, 1e-9))))
        return spent

    return seconds


def measurements(names: list[str], nets: list[str], repetitions: int, least: float) -> list[common.Row]:
    """Seconds per call of every contender, in turns; the first round does not count."""
    from tqdm import tqdm

    workers = [common.Worker(__file__, name, 1) for name in names]
    jobs = [(net, batch) for net in nets for batch in BATCHES]
    rows: list[common.Row] = []
    folders = {name: tempfile.TemporaryDirectory() for name in names}
    try:
        for net, batch in tqdm(jobs, desc="exports", file=sys.stderr, dynamic_ncols=True):
            for repetition in range(-1, repetitions):
                for worker in workers:
                    seconds = worker.ask(net=net, batch=batch, least=least, folder=folders[worker.name].name)
                    row = {"net": net, "batch": batch, "contender": worker.name, "repetition": repetition}
                    rows.append(row | {"seconds": seconds})
    finally:
        for worker in workers:
            worker.close()
            folders[worker.name].cleanup()
    return [row for row in rows if row["repetition"] >= 0]


def summary(rows: list[common.Row]) -> list[common.Row]:
    """Medians, and the time of `predict` over each contender's in the same repetition."""
    place = lambda row: (row["net"], row["batch"], row["repetition"])  # noqa: E731
    predict = {place(row): row["seconds"] for row in rows if row["contender"] == "predict"}
    lines = []
    for net, batch, name in dict.fromkeys((row["net"], row["batch"], row["contender"]) for row in rows):
        mine = [row for row in rows if (row["net"], row["batch"], row["contender"]) == (net, batch, name)]
        line = {"net": net, "batch": batch, "contender": name}
        line["microseconds"] = 1e6 * statistics.median(row["seconds"] for row in mine)
        line["predict / it"] = statistics.median(predict[place(row)] / row["seconds"] for row in mine)
        lines.append(line)
    return lines


def _short(microseconds: float) -> str:
    return f" {microseconds:,.0f}" if microseconds >= 100 else f" {microseconds:.2g}"


def draw(lines: list[common.Row], path: Path) -> None:
    """A panel of bars for each net and batch: how many times as fast as predict."""
    nets = list(dict.fromkeys(line["net"] for line in lines))
    if (picture := common.figure(4.5 * len(nets), 5.5)) is None:
        return
    panels = picture.subplots(len(BATCHES), len(nets), squeeze=False)
    for (row, batch), (column, net) in ((r, c) for r in enumerate(BATCHES) for c in enumerate(nets)):
        axes = panels[row][column]
        mine = [line for line in reversed(lines) if (line["net"], line["batch"]) == (net, batch)]
        shades = ["0.2" if line["contender"] == "predict" else "0.7" for line in mine]
        names = [line["contender"] for line in mine]
        bars = axes.barh(names, [line["microseconds"] for line in mine], color=shades)
        axes.bar_label(bars, [_short(line["microseconds"]) for line in mine], fontsize=8)
        axes.set(title=f"{net}, {batch} row{'s' * (batch > 1)}", xlabel="microseconds")
        axes.margins(x=0.3)
        axes.tick_params(axis="y", labelleft=column == 0)
        axes.locator_params(axis="x", nbins=5)
    common.save(picture, path)


def main() -> None:
    """Measure, print, write."""
    parser = common.parser(__doc__ or "", "exports")
    parser.add_argument("--repetitions", type=int, help="default 7")
    parser.add_argument("--contenders", default=",".join([*NEEDS, *FLAGS]), help="default %(default)s")
    parser.add_argument("--worker", choices=[*NEEDS, *FLAGS], help=argparse.SUPPRESS)
    parser.add_argument("--cpus", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        common.pin(given.cpus)
        common.serve(answers(given.worker))
        return
    there = lambda name: shutil.which("cc") if name in FLAGS else find_spec(NEEDS[name])  # noqa: E731
    names = list(dict.fromkeys(["predict", *given.contenders.split(",")]))
    for name in names:
        if name not in NEEDS and name not in FLAGS:
            parser.error(f"unknown contender {name!r}")
    names = [name for name in names if there(name)]
    repetitions, least = (2, 1e-3) if given.quick else (given.repetitions or 7, 0.1)
    rows = measurements(names, NETS[:1] if given.quick else NETS, repetitions, least)
    packages = ("backprop-mlp", "numpy", "onnxruntime", "torch")
    compiler = (
        subprocess.run(["cc", "--version"], capture_output=True, text=True, check=False) if there("C -O2") else None
    )
    about = [*common.environment(packages), f"Compiler: {compiler.stdout.splitlines()[0] if compiler else 'none'}"]
    lines = summary(rows)
    common.publish(given.out, "exports", ["Exported networks, one thread, float32", *about], lines, every=rows)
    draw(lines, given.out / "exports.png")


if __name__ == "__main__":
    main()
