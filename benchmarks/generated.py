"""What the interpretation of a plan costs: the native player beside C that is generated from the same plan.

    python benchmarks/generated.py

The player reads a list of operations that is data. Here the same list is written as C, too, one statement an operation, with its
addresses, sizes and strides as constants and the player's own loops inlined, compiled for this processor and loaded. Both play
the same steps from the same weights in turns, on one thread, each network, rule and batch in a process of its own, and must come
to the same bits; else the exit code is 1. Writes generated.csv and generated.md. Without a C compiler, or without the native
player, there is nothing to compare.

It looks under the hood, as no other benchmark does: what is measured has no public name.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from itertools import product
from pathlib import Path
from typing import Any

import common
import numpy as np

import backprop as bp
from backprop.engine import native
from backprop.engine.native import loops, program

NETS, BATCHES = ["20-64-64-2", "100-200-50-7"], [1, 24, 100]
RULES = {"SGD": lambda: bp.SGD(1e-3), "Adam": lambda: bp.Adam(1e-4)}
PLAYER = Path(native.__file__).parent / "player.c"
STEP = "static int run_step(const play *p, Py_ssize_t step, PyThreadState **state) {"
# Inlined loops get addresses of which the compiler knows nothing: it vectorizes no loop in place over an address that it knows.
OPAQUE = """static inline char *opaque(char *at) {
  __asm__("" : "+r"(at));
  return at;
}

"""
HEAD = """
  const double *values = p->values + step * p->numbers;
  double *losses = p->losses + step * p->shards;
  (void)state, (void)values, (void)losses;
"""
OF_STOP = """{{
    double L = 0;
    for (Py_ssize_t s = 0; s < p->shards; s++) L += losses[s];
    if (!isfinite(L) || ({lost} && atomic_load(&p->shared->lost))) return STOPPED;
    if (p->first && {commits}) p->shared->committing = 1;
  }}"""


class Writer:
    """The operations of a step as the statements of a function in C."""

    def __init__(self, ops: np.ndarray, values: list[Any]) -> None:
        self.ops, self.values = ops, values
        named = dict(re.findall(r'\{"([^"]+)", (\w+)\}', PLAYER.read_text(encoding="utf-8")))
        self.named = {address: named[name] for name, address in loops.own_loops().items()}

    def statements(self) -> Iterator[str]:
        """All of them. Raises ValueError for a kind of operation that no step of these networks has."""
        i = 0
        while i < len(self.ops):
            o = self.ops[i]
            if o["kind"] == loops.TILES:
                tiles = self.ops[i + 1 : i + 1 + int(o["n"][0])]
                yield self.tiles(o, tiles)
                i += len(tiles)
            else:
                yield self.statement(o)
            i += 1

    def statement(self, o: Any) -> str:
        """One operation."""
        at, n = [pointer(address) for address in o["at"]], o["n"]
        real, bits = ("double", "uint64_t") if o["is_double"] else ("float", "uint32_t")
        match int(o["kind"]):
            case loops.LOOP:
                return self.loop(o)
            case loops.GEMM | loops.GEMV | loops.AXPY:
                return self.blas(o, at, real)
            case loops.NUMBER:
                return f"*({real} *){at[0]} = {self.number(o['scale'], real)};"
            case loops.ROWS:
                return f"{{ {self.constant(o)} run_rows(&o, p, step); }}"
            case loops.PICK:
                return f"{{ {self.constant(o)} if (!run_pick(&o)) return FAILED; }}"
            case loops.LOSS if not n[1]:
                return f"losses[{n[0]}] = *({real} *){at[0]};"
            case loops.FINITE:
                return f"if (!finite_{real}s(({bits} *){at[0]}, {n[0]})) atomic_store(&p->shared->lost, 1);"
            case loops.STOP:
                return OF_STOP.format(commits=n[0], lost=n[1])
        raise ValueError(f"an operation of kind {o['kind']}, which is not written as C here")

    def constant(self, o: Any) -> str:
        """An operation that a function of the player's reads, as a constant."""
        strides = listed(listed(each) for each in o["strides"])
        fields = f".at = {listed(map(pointer, o['at']))}, .n = {listed(o['n'])}, .strides = {strides}"
        return f"static const operation o = {{{fields}, .is_double = {o['is_double']}}};"

    def number(self, place: int, real: str) -> str:
        """A number of the step: one that never changes as a constant."""
        value = self.values[place]
        return f"({real}){float(value).hex()}" if isinstance(value, int | float) else f"({real})values[{place}]"

    def inner(self, o: Any, at: list[str], n: str) -> str:
        """A call of an inner loop."""
        name = self.named.get(int(o["function"]), f"((loop *){int(o['function']):#x})")
        given = ", ".join(f"opaque({each})" for each in at)
        strides = ", ".join(str(stride) for stride in o["strides"][2][: o["operands"]])
        return f"{name}((char *[]){{{given}}}, &(intptr_t){{{n}}}, (intptr_t[]){{{strides}}}, {pointer(o['data'])});"

    def loop(self, o: Any) -> str:
        """A loop over at most three dimensions."""
        outer, middle, n = o["n"]
        counted = [("i", outer, o["strides"][0]), ("j", middle, o["strides"][1])]
        counted = [(name, count, strides) for name, count, strides in counted if count > 1]
        moves = lambda k: "".join(f" + {name} * {strides[k]}" for name, _, strides in counted)  # noqa: E731
        at = [pointer(address) + moves(k) for k, address in enumerate(o["at"][: o["operands"]])]
        heads = [f"for (int64_t {name} = 0; {name} < {count}; {name}++) " for name, count, _ in counted]
        return "".join(heads) + "{ " + self.inner(o, at, str(n)) + " }"

    def tiles(self, o: Any, tiles: np.ndarray) -> str:
        """Loops that take a part of their vectors at a time."""
        _, tile, size = o["n"]
        lines = []
        for each in tiles:
            bases = zip(each["at"][: each["operands"]], each["strides"][2], strict=False)
            lines.append(self.inner(each, [f"{pointer(at)} + start * {stride}" for at, stride in bases], "n"))
        head = f"for (int64_t start = 0; start < {size}; start += {tile}) {{\n"
        n = f"    intptr_t n = {size} - start < {tile} ? {size} - start : {tile};\n"
        return head + n + "".join(f"    {line}\n" for line in lines) + "  }"

    def blas(self, o: Any, at: list[str], real: str) -> str:
        """A product."""
        own = [f"const {real} a = {self.number(o['scale'], real)}, c = {self.number(o['keep'], real)};"]
        own += [f"static const int one = 1, size[] = {listed(o['size'])}, lead[] = {listed(o['lead'])};"]
        m, n, k = "size", "size + 1", "size + 2"
        trans = [f'"{letter}"' for letter in o["trans"].decode()]
        calls = {
            loops.GEMM: ["gemm", *trans, m, n, k, "&a", at[0], "lead", at[1], "lead + 1", "&c", at[2], "lead + 2"],
            loops.GEMV: ["gemv", *trans[:1], m, n, "&a", at[0], "lead", at[1], "&one", "&c", at[2], "&one"],
            loops.AXPY: ["axpy", m, "&a", at[0], "&one", at[1], "&one"],
        }
        kind, *given = calls[int(o["kind"])]
        return f"{{ {' '.join(own)} (({kind} *){int(o['function']):#x})({', '.join(given)}); }}"


def pointer(address: int) -> str:
    """An address as C has it."""
    return f"(char *){int(address):#x}" if address else "NULL"


def listed(values: Any) -> str:
    """Values as an initializer."""
    return "{" + ", ".join(map(str, values)) + "}"


def source(ops: np.ndarray, values: list[Any]) -> str:
    """The player, with the function of a step written anew for these operations alone."""
    text = PLAYER.read_text(encoding="utf-8")
    before, begin, rest = text.partition(STEP)
    _, end, after = rest.partition("\n}\n")
    if not begin or not end:
        raise ValueError(f"{PLAYER.name} has no function that begins with {STEP!r}")
    body = "".join(f"  {line}\n" for line in Writer(ops, values).statements())
    written = before + OPAQUE + STEP + HEAD + body + "  return ENDED;" + end + after
    return written.replace("static WIDE void", "static inline __attribute__((always_inline)) void")


def compiled(text: str, folder: Path) -> Any:
    """A module of C, made for this processor with the options of the player."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    flags = project["tool"]["setuptools"]["ext-modules"][0]["extra-compile-args"]
    written, made = folder / "player.c", folder / "player.so"
    written.write_text(text, encoding="utf-8")
    include = f"-I{sysconfig.get_path('include')}"
    command = ["cc", *flags, "-march=native", "-w", "-shared", "-fPIC", include, str(written), "-o", str(made)]
    subprocess.run(command, check=True)
    spec = spec_from_file_location("player", made, loader=ExtensionFileLoader("player", str(made)))
    module = module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


class Cell:
    """The steps of one network, rule and batch, and who plays them."""

    def __init__(self, net: str, optimizer: str, batch: int, folder: Path) -> None:
        widths = [int(width) for width in net.split("-")]
        X, y = common.synthetic(8 * batch, widths[0], widths[-1])
        rule = RULES[optimizer]()
        self.trainer = bp.Trainer(
            common.network(widths), bp.CrossEntropy(), rule, batch_size=batch, threads=1, native=True
        )
        self.trainer.fit(X, y, epochs=2, verbose=False)
        (chance,) = self.trainer._descent.native._chances.values()
        self.program = chance.programs[1]
        self.steps = self.program.steps
        self.kept = [self.trainer.net.phi, *rule.state.values()]
        self.start = [array.copy() for array in self.kept]
        (ops,) = self.program.packed
        self.operations = len(ops)
        begin = time.perf_counter()
        self.players = {"player": native.player, "generated": compiled(source(ops, self.program.values), folder)}
        self.made_in = time.perf_counter() - begin
        self.repeat(8)

    def repeat(self, count: int) -> None:
        """Let a call have so many steps."""
        n, steps = self.program.batch.shape.n, self.steps
        rows = np.resize(steps.rows, (count, n))
        self.steps = replace(steps, rows=rows, alphas=[steps.alphas[0]] * count)

    def play(self, who: str) -> tuple[float, bytes]:
        """Seconds of a step on its core, without waiting for others to leave it, and what all of them came to."""
        for array, start in zip(self.kept, self.start, strict=True):
            array[...] = start
        program.player = self.players[who]
        try:
            begin = time.thread_time()
            played = self.program.play(self.steps, None)
            seconds = time.thread_time() - begin
        finally:
            program.player = native.player
        if played.error is not None or played.done != len(self.steps.alphas):
            raise RuntimeError(f"{who}: {played.done} of {len(self.steps.alphas)} steps, {played.error}")
        return seconds / played.done, b"".join(array.tobytes() for array in [*self.kept, np.array(played.losses)])


def measured(net: str, optimizer: str, batch: int, repetitions: int, least: float) -> list[common.Row]:
    """Seconds of a step by turns; the first round does not count. None at all where bits differ."""
    with tempfile.TemporaryDirectory() as folder:
        cell = Cell(net, optimizer, batch, Path(folder))
    about = {"net": net, "optimizer": optimizer, "batch": batch, "operations": cell.operations}
    about["compiled_in"] = cell.made_in
    cell.repeat(max(8, min(1 << 14, int(least / cell.play("player")[0]))))
    rows: list[common.Row] = []
    for repetition in range(-1, repetitions):
        found = {who: cell.play(who) for who in cell.players}
        if found["player"][1] != found["generated"][1]:
            return []
        rows += [about | {"who": who, "repetition": repetition, "seconds": found[who][0]} for who in found]
    return [row for row in rows if row["repetition"] >= 0]


def summary(rows: list[common.Row]) -> list[common.Row]:
    """Medians, and the player's time over that of generated C in the same repetition."""
    lines = []
    for cell in dict.fromkeys((row["net"], row["optimizer"], row["batch"]) for row in rows):
        mine = [row for row in rows if (row["net"], row["optimizer"], row["batch"]) == cell]
        times = {who: [row["seconds"] for row in mine if row["who"] == who] for who in ("player", "generated")}
        line = dict(zip(("net", "optimizer", "batch"), cell, strict=True)) | {"operations": mine[0]["operations"]}
        line |= {f"{who}, µs": 1e6 * statistics.median(of_who) for who, of_who in times.items()}
        line["player / generated"] = statistics.median(a / b for a, b in zip(*times.values(), strict=True))
        lines.append(line | {"compiled in, s": mine[0]["compiled_in"]})
    return lines


def missing() -> str:
    """What is not there, of what is needed; "" where all is."""
    if native.player is None:
        return "the native player is not installed"
    if shutil.which("cc") is None:
        return "there is no C compiler cc"
    return "" if (Path(sysconfig.get_path("include")) / "Python.h").exists() else "Python.h is not installed"


def main() -> int:
    """Measure, compare, print, write; 1 if bits differ."""
    from tqdm import tqdm

    parser = common.parser(__doc__ or "", "generated")
    parser.add_argument("--repetitions", type=int, help="default 15")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(*json.loads(given.one))))
        return 0
    if reason := missing():
        print(f"Nothing to compare: {reason}.")
        return 0
    cells = [*product(NETS, RULES, [24] if given.quick else BATCHES)][: 1 if given.quick else None]
    repetitions, least = given.repetitions or (2 if given.quick else 15), 1e-3 if given.quick else 0.03
    rows: list[common.Row] = []
    for cell in tqdm(cells, desc="generated", file=sys.stderr, dynamic_ncols=True):
        one_thread = dict.fromkeys(common.THREAD_VARIABLES, "1")
        found = common.fresh(__file__, "--one", json.dumps([*cell, repetitions, least]), **one_thread)
        if not found:
            print(f"DIFFERENT: {', '.join(map(str, cell))}")
            return 1
        rows += found
    lines = summary(rows)
    title = "The native player and C generated from the same plan, one thread, float32"
    common.publish(given.out, "generated", [title, *common.environment()], lines, every=rows)
    ratio = common.geometric_mean(line["player / generated"] for line in lines)
    print(f"The same bits. Geometric mean of player / generated: {ratio:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
