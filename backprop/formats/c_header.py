"""A network as a C99 header: float32, static sizes, no allocation, and nothing but math.h."""

from __future__ import annotations

import os
import re
import reprlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.files.atomic import write_atomically
from backprop.formats.plan import Plan, Step
from backprop.formats.preparation import Column, Preparation
from backprop.formats.verify import ExportReport, compare

# Counted from the first, numbers that are all alike are exactly 0.
LAYER_NORM = """\
{{
    float first = {first}, mean = 0, sigma = 0;
    {each} mean += {h} - first;
    mean /= {D};
    {each} sigma += ({h} - first - mean) * ({h} - first - mean);
    sigma = sqrtf(sigma / {D} + {number});
    {each} {f} = ({h} - first - mean) / sigma * {name}_gamma_{key}[i] + {name}_beta_{key}[i];
}}"""

SELECT = """\
{{
    static const int rows[] = {{{rows}}};
    {each} {f}[i] = {h}[rows[i]];
}}"""

CODES = """\
{{
    float code = rintf({h}[0]);
    int known = code > 0 && code < {D} && fabsf({h}[0] - code) < 0.25f;
    {each} {f}[i] = i == (known ? (int)code : 0);
}}"""

# One entry of Ω meets all members, which lie side by side.
MEMBERS_LINEAR = """\
for (int i = 0; i < {D}; i++) {f}[i] = 0;
for (int i = 0; i < {inputs}; i++)
    for (int o = 0; o < {outputs}; o++)
        for (int m = 0; m < {k}; m++)
            {f}[o * {k} + m] += {name}_omega_{key}[i][o] * ({name}_r_{key}[i][m] * {h}[{place}]);
for (int o = 0; o < {outputs}; o++)
    for (int m = 0; m < {k}; m++)
        {f}[o * {k} + m] = {name}_beta_{key}[o][m] + {name}_s_{key}[o][m] * {f}[o * {k} + m];"""

# No exponent is > 0: each sum is taken with its largest term outside.
MEAN_OF_SOFTMAX = """\
{{
    float norm[{k}];
    for (int m = 0; m < {k}; m++) {{
        float top = {h}[m], sum = 0;
        for (int c = 1; c < {D}; c++) if ({h}[c * {k} + m] > top) top = {h}[c * {k} + m];
        for (int c = 0; c < {D}; c++) sum += expf({h}[c * {k} + m] - top);
        norm[m] = top + logf(sum);
    }}
    for (int c = 0; c < {D}; c++) {{
        float top = {h}[c * {k}] - norm[0], sum = 0;
        for (int m = 1; m < {k}; m++) if ({h}[c * {k} + m] - norm[m] > top) top = {h}[c * {k} + m] - norm[m];
        for (int m = 0; m < {k}; m++) sum += expf({h}[c * {k} + m] - norm[m] - top);
        {f}[c] = top + logf(sum / {k});
    }}
}}"""

MEAN_OF_SIGMOID = """\
for (int c = 0; c < {D}; c++) {{
    float least = {h}[c * {k}], most = least, yes = 0, no = 0;
    for (int m = 1; m < {k}; m++) {{
        if ({h}[c * {k} + m] > most) most = {h}[c * {k} + m];
        if ({h}[c * {k} + m] < least) least = {h}[c * {k} + m];
    }}
    float top = (most < 0 ? most : 0) - log1pf(expf(-fabsf(most)));
    float other = (least > 0 ? -least : 0) - log1pf(expf(-fabsf(least)));
    for (int m = 0; m < {k}; m++) {{
        float z = {h}[c * {k} + m], tail = log1pf(expf(-fabsf(z)));
        yes += expf((z < 0 ? z : 0) - tail - top);
        no += expf((z > 0 ? -z : 0) - tail - other);
    }}
    {f}[c] = top + logf(yes) - other - logf(no);
}}"""

# Of one entry h; number: that of the step. Below −200 and −20 SiLU and GELU are 0 in float32, and −∞ · 0 is no number.
FORMULAS = {
    "Identity": "{h}",
    "ReLU": "{h} < 0 ? 0 : {h}",
    "LeakyReLU": "{h} < 0 ? {number} * {h} : {h}",
    "ELU": "{h} < 0 ? {number} * expm1f({h}) : {h}",
    "SiLU": "{h} < -200 ? 0 : {h} / (1 + expf(-{h}))",
    "GELU": "{h} < -20 ? 0 : 0.5f * {h} * erfcf(-0.70710678f * {h})",
    "Softplus": "({h} < 0 ? 0 : {h}) + log1pf(expf(-fabsf({h})))",
    "Sigmoid": "1 / (1 + expf(-{h}))",
    "Tanh": "tanhf({h})",
    "Sin": "sinf({h})",
    "Cos": "cosf({h})",
    "Cut": "{h} < 0 ? 0 : {h} > 1 ? 1 : {h}",
    "Exp": "expf({h})",
    "BatchNorm": "({h} - {name}_mean_{key}[i]) * {name}_scale_{key}[i] + {name}_beta_{key}[i]",
}

WHOLE = {"Select": SELECT, "Codes": CODES, "MembersLinear": MEMBERS_LINEAR}
WHOLE |= {"MeanOfSoftmax": MEAN_OF_SOFTMAX, "MeanOfSigmoid": MEAN_OF_SIGMOID}
IN_PLACE = {*FORMULAS, "Add", "LayerNorm"}  # entry by entry, or after all that is read

TEMPLATE = """\
/* A network of {plan.inputs} inputs and {plan.outputs} outputs, {plan.net.size:,} parameters, in C99 and float32.

       #include "{name}.h"

{usage}
   No memory is allocated; {stack} bytes of stack are used. Nothing but {headers} is needed (link with -lm).
   Loops run along memory, so that compilers vectorize them; -O3 -march=native is the fastest. */

#ifndef {NAME}_PREDICT_H
#define {NAME}_PREDICT_H

#include <math.h>
#include <stddef.h>
{includes}
#define {NAME}_INPUTS {plan.inputs}
#define {NAME}_OUTPUTS {plan.outputs}
{declarations}
{weights}static inline void {name}_{call}(const float *x, float *f)
{{
{steps}
}}
{functions}
#endif
"""

USAGE = """\
       float x[{NAME}_INPUTS] = {{ ... }}, f[{NAME}_OUTPUTS];
       {name}_predict(x, f);
"""

DECLARATIONS = """
/* f[{NAME}_OUTPUTS] from x[{NAME}_INPUTS]; the two must not overlap. */
static inline void {name}_predict(const float *x, float *f);

/* The same for n rows, one after another: X[n * {NAME}_INPUTS], f[n * {NAME}_OUTPUTS]. */
static inline void {name}_predict_rows(size_t n, const float *X, float *f);
"""

FUNCTIONS = """
static inline void {name}_predict_rows(size_t n, const float *X, float *f)
{{
    for (size_t row = 0; row < n; row++)
        {name}_predict(X + row * {NAME}_INPUTS, f + row * {NAME}_OUTPUTS);
}}
"""

GIVEN = {"numbers": "const double *", "words": "const char *const *"}  # rows of each, and how C takes them …
USED = {"numbers": "double ", "words": "const char *"}  # … and has one

# With a table: numbers and words as they are, in double precision until they are scaled.
TABLE_USAGE = """\
{declared}       double y[{NAME}_OUTPUTS];
       {name}_predict({given}y);

{listing}"""

TABLE_DECLARATIONS = """#define {NAME}_NUMBERS {n}
#define {NAME}_WORDS {w}
{classes}
/* y[{NAME}_OUTPUTS], {returns}, from the columns as they are.
   true and false are 1 and 0, a missing value is {missing}.
   Where a value cannot be used, as {unusable}, every y is NAN. */
static inline void {name}_predict({parameter}double *y);

/* The same for n rows, one after another. */
static inline void {name}_predict_rows(size_t n, {parameter}double *y);
"""

PLACE_OF_WORD = """
static inline int {name}_place_of_word(const char *word, int n, const char *const *words)
{{
    for (int i = 0; i < n; i++) if (word && !strcmp(word, words[i])) return i;
    return -1;
}}
"""

PLACE_OF_NUMBER = """
static inline int {name}_place_of_number(double number, int n, const double *numbers)
{{
    for (int i = 0; i < n; i++) if (number == numbers[i]) return i;
    return -1;
}}
"""

TABLE_FUNCTIONS = """{places}
static inline void {name}_predict({parameter}double *y)
{{
    float x[{NAME}_INPUTS] = {{0}}, f[{NAME}_OUTPUTS];
    int usable = 1;
{encode}
    {name}_network(x, f);
    for (int o = 0; o < {NAME}_OUTPUTS; o++) y[o] = usable ? {answer} : NAN;
}}

static inline void {name}_predict_rows(size_t n, {parameter}double *y)
{{
    for (size_t row = 0; row < n; row++)
        {name}_predict({rows}y + row * {NAME}_OUTPUTS);
}}
"""

# One column; {x} is where it is given.
NUMBER = """\
    {{   /* {comment} */
        double v = {value};
        usable = usable && isfinite(v);
        x[{at}] = (float)((v - {shift}) * {factor});{indicator}
    }}"""

CATEGORY = """\
    {{   /* {comment} */
        static const {type} known[] = {{{known}}};
        int k = {missing}{name}_place_of_{what}({x}, {K}, known);{other}
        if (k >= 0) x[{at} + k] = 1;{unknown}
    }}"""

# Runs the header on the rows in one file and writes its outputs to another; words are compiled in.
MAIN = """\
#include <stdio.h>
#include <stdlib.h>
#include "{name}.h"
{rows}
int main(int count, char **arguments)
{{
    size_t n = (size_t)atol(arguments[count - 1]), given = {given}, made = {NAME}_OUTPUTS * sizeof({type});
    {type} *X = malloc(n * given + 1), *f = malloc(n * made);
    FILE *in = fopen(arguments[1], "rb"), *out = fopen(arguments[2], "wb");
    if (!X || !f || !in || !out || (given && fread(X, given, n, in) != n)) return 1;
    {name}_predict_rows(n, {called}f);
    return fwrite(f, made, n, out) != n || fclose(out);
}}
"""

FLAGS = ("-std=c99", "-O2")

# Beside a program's own files, a header of one of these names is taken for the one of C; glibc's include features.h.
HEADERS_OF_C = """
    assert complex ctype errno features fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg stdatomic
    stdbit stdbool stdckdint stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype
"""


def to_c(
    net: Any, path: str | os.PathLike[str], *, name: str | None = None, table: Any = None, X: Any = None
) -> ExportReport:
    """Write the network as a C99 header with `NAME_predict(x, f)` for one row and `NAME_predict_rows(n, X, f)` for n.

    It computes in float32 whatever the network's dtype, allocates nothing, and needs math.h only. `name` is that of the file
    without its ending, unless given. Before anything is written, the header is compiled, run on generated rows and on those
    of `X`, and compared with `net.predict`; where there is no C compiler, the report says so.

    With the `table` that makes the network's inputs, `NAME_predict(numbers, words, y)` takes columns as they are, numbers in
    double precision and words as text, and gives numbers in units of the target, or the scores of classes; X is then a frame. A
    fitted estimator in the place of the network brings its own scaling and table.

    Raises ValueError for a name that is no identifier in C and for a file that is called like a header of C, `math.h`; else
    the errors of `to_numpy`.

    >>> import tempfile, pathlib, backprop as bp
    >>> net = bp.Sequential(bp.Linear(4, 8), bp.Tanh(), bp.Linear(8, 2), seed=0)
    >>> report = bp.to_c(net, pathlib.Path(tempfile.mkdtemp(), "tiny.h"))
    >>> "tiny_predict_rows" in pathlib.Path(report.path).read_text()
    True
    """
    _not_a_header_of_c(Path(path).name)
    name = _identifier(Path(path).stem if name is None else name)
    plan = Plan("to_c", net, X, "float32", table)
    source = _source(plan, name)
    report = _compared(plan, source, name, path)
    write_atomically(path, source.encode())
    return report


def _not_a_header_of_c(file: str) -> None:
    stem, ending = os.path.splitext(file.lower())  # not every file system tells Math.h from math.h
    if ending == ".h" and stem in HEADERS_OF_C.split():
        advice = f"Programs would include it for <{file.lower()}>; call it net_{file.lower()}."
        raise ValueError(checks.message("to_c", "a file that is not called like a header of C", repr(file), advice))


def _identifier(name: object) -> str:
    expected = "a name for C: letters, digits and _, a letter first"
    if not isinstance(name, str):
        raise TypeError(checks.message("to_c", expected, repr(name)))
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name):
        raise ValueError(checks.message("to_c", expected, repr(name), "Pass name='…', or rename the file."))
    return name


def _compared(plan: Plan, source: str, name: str, path: object) -> ExportReport:
    compiler = next((found for found in map(shutil.which, ("cc", "gcc", "clang")) if found), None)
    if compiler is None:
        return ExportReport(str(path), 0, np.nan, np.nan, "float32", "no C compiler found")
    with TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        (folder / f"{name}.h").write_text(source, encoding="utf-8")

        def run(numbers: Array, words: Any = None) -> Array:
            main, source = folder / "main.c", _main(plan, name, words)
            if not main.exists() or main.read_text() != source:
                main.write_text(source)
                _call(compiler, *FLAGS, str(main), "-o", str(folder / "main"), "-lm")
            dtype = np.dtype(np.float32 if plan.preparation is None else np.float64)
            numbers.astype(dtype).tofile(folder / "X")
            _call(str(folder / "main"), str(folder / "X"), str(folder / "f"), str(len(numbers)))
            return np.fromfile(folder / "f", dtype).reshape(len(numbers), -1)

        return compare(plan, run, path, f"{Path(compiler).name} {' '.join(FLAGS)}")


def _main(plan: Plan, name: str, words: Any) -> str:
    """The program that runs a header on rows."""
    names, table = {"name": name, "NAME": name.upper()}, plan.preparation
    if table is None:
        return MAIN.format(**names, rows="", given=f"{name.upper()}_INPUTS * sizeof(float)", type="float", called="X, ")
    texts = [] if words is None else map(_word, words.ravel().tolist())
    rows = f"static const char *const words[] = {{{', '.join(texts)}}};\n" if table.words else ""
    called = ("X, " if table.numbers else "") + ("words, " if table.words else "")
    given = f"{name.upper()}_NUMBERS * sizeof(double)"
    return MAIN.format(**names, rows=rows, given=given, type="double", called=called)


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        got = f"exit code {done.returncode}"
        raise RuntimeError(checks.message("to_c", f"{command[0]} to succeed", got, done.stderr))


def _source(plan: Plan, name: str) -> str:
    places, sizes = _places(plan)
    code = [f"    float {', '.join(f'h{k}[{size}]' for k, size in enumerate(sizes))};"] if sizes else []
    for step, place in zip(plan.steps, places[1:], strict=True):
        code += ["", f"    /* {f'{step.key}: ' if step.key else ''}{step.text} */"]
        code += ["    " + line for line in _lines(step, [places[k] for k in step.inputs], place, plan, name)]
    weights = "".join(_weights(step, name) for step in plan.steps if step.arrays)
    steps, names = "\n".join(code).strip("\n"), {"name": name, "NAME": name.upper()}
    stack, table = 4 * sum(sizes), plan.preparation
    if table is None:
        parts = {
            "usage": USAGE,
            "headers": "math.h",
            "includes": "",
            "declarations": DECLARATIONS,
            "functions": FUNCTIONS,
        }
        parts = {part: text.format(**names) for part, text in parts.items()} | {"call": "predict"}
    else:
        parts = _with_table(plan, table, names)
        stack += 4 * (plan.inputs + plan.outputs)
    return TEMPLATE.format(plan=plan, stack=stack, weights=weights, steps=steps, **names, **parts)


def _with_table(plan: Plan, table: Preparation, names: dict[str, str]) -> dict[str, str]:
    """The parts of the header that take columns as they are."""
    given = [(kind, declared) for kind, declared in GIVEN.items() if getattr(table, kind)]
    names |= {
        "parameter": "".join(f"{declared}{kind}, " for kind, declared in given),
        "given": "".join(f"{kind}, " for kind, _ in given),
        "rows": "".join(f"{kind} + row * {names['NAME']}_{kind.upper()}, " for kind, _ in given),
    }
    usage = [
        f"       {GIVEN[kind][:-1].removesuffix('const ')}{kind}[{names['NAME']}_{kind.upper()}];\n"
        for kind, _ in given
    ]
    listing = [f"       {kind}[{j}]  {_comment(c)}\n" for kind, _ in given for j, c in enumerate(getattr(table, kind))]
    fills = any(column.fill is not None for column in table.columns)
    unknown = "" if table.ignores else " or a category that was not there in training"
    words = {
        "classes": _classes(plan, table, names["name"]),
        "returns": _safe(f"in units of {table.target}") if table.scales and table.target else "the outputs",
        "missing": f"NAN{', or NULL for a word' if table.words else ''}{', and filled as in training' if fills else ''}",
        "unusable": f"{'inf' if fills else 'inf, a missing one'}{unknown}",
    }
    places = PLACE_OF_WORD.format(**names) if table.words else ""
    places += PLACE_OF_NUMBER.format(**names) if any(c.categories for c in table.numbers) else ""
    answer = f"{_double(table.mean)} + {_double(table.sigma)} * f[o]" if table.scales else "(double)f[o]"
    encode = "\n".join(_encode(table, names["name"]))
    return {
        "usage": TABLE_USAGE.format(**names, declared="".join(usage), listing="".join(listing)),
        "headers": "math.h and string.h" if table.words else "math.h",
        "includes": "#include <string.h>\n" if table.words else "",
        "declarations": TABLE_DECLARATIONS.format(**names, **words, n=len(table.numbers), w=len(table.words)),
        "call": "network",
        "functions": TABLE_FUNCTIONS.format(**names, places=places, encode=encode, answer=answer),
    }


def _classes(plan: Plan, table: Preparation, name: str) -> str:
    """The names of the classes, in the order of the outputs."""
    if not table.classes:
        return ""
    words = ", ".join(_word(str(each)) for each in table.classes)
    which = "the largest output is that of the class" if plan.outputs > 1 else "an output above 0 is the second one"
    return f"\n/* The classes; {which}. */\nstatic const char *const {name}_classes[] = {{{words}}};\n"


def _encode(table: Preparation, name: str) -> Iterator[str]:
    """The statements for each column."""
    at, places = 0, {"numbers": 0, "words": 0}
    for column in table.columns:
        kind = "words" if column.is_word else "numbers"
        x = f"{kind}[{places[kind]}]"
        places[kind] += 1
        if not column.categories:
            value = x if column.fill is None else f"isnan({x}) ? {_double(column.fill)} : {x}"
            shift, factor = _double(column.shift), _double(column.factor)
            indicator = f"\n        x[{at + 1}] = isnan({x});" if column.indicator else ""
            told = {"comment": _comment(column), "value": value, "indicator": indicator}
            yield NUMBER.format(**told, at=at, shift=shift, factor=factor)
        else:
            yield _category(table, column, name, x, at)
        at += column.width


def _category(table: Preparation, column: Column, name: str, x: str, at: int) -> str:
    """The statements for a column of categories."""
    missing = f"!{x}" if column.is_word else f"isnan({x})"
    filled = "" if column.fill is None else f"{missing} ? {column.missing_at} : "
    ignores = table.ignores or column.other
    unknown = "" if ignores and column.fill is not None else "\n        else usable = 0;"
    if ignores and column.fill is None:
        unknown = f"\n        usable = usable && !({missing});"
    return CATEGORY.format(
        comment=_comment(column),
        type="char *const" if column.is_word else "double",
        known=", ".join(map(_word if column.is_word else _double, column.categories)),
        missing=filled,
        name=name,
        what="word" if column.is_word else "number",
        x=x,
        K=len(column.categories),
        at=at,
        other=f"\n        if (k < 0) k = {column.other_at};" if column.other else "",
        unknown=unknown,
    )


def _comment(column: Column) -> str:
    """A column as a comment names it."""
    if not column.categories:
        return _safe(column.name)
    return _safe(f"{column.name}: {reprlib.repr(list(column.categories))}")


def _safe(text: str) -> str:
    """Text that neither ends a comment nor begins one, on one line."""
    return " ".join(re.sub(r"\*/|/\*|\\\\|\?\?", "_", text).split())


def _word(text: str | None) -> str:
    """A string of C, in UTF-8; everything but plain letters as octal digits."""
    if text is None:
        return "NULL"
    plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-.,:;=+()"
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode()) + '"'


def _double(value: Any) -> str:
    """A number of C in double precision, with the digits that give it back."""
    text = f"{float(value):.17g}"
    return text if any(sign in text for sign in ".en") else f"{text}.0"


def _places(plan: Plan) -> tuple[list[str], list[int]]:
    """Where each value lives: x, f, or one of few arrays, each used again once nobody needs its value; and their sizes."""
    last_use = {value: k for k, step in enumerate(plan.steps, 1) for value in step.inputs}
    places, sizes, free = ["x"], list[int](), list[int]()
    held: dict[int, int] = {}  # value -> array
    for k, step in enumerate(plan.steps[:-1], 1):
        done = [held.pop(value) for value in dict.fromkeys(step.inputs) if last_use[value] == k and value in held]
        if done and step.kind in IN_PLACE:
            held[k] = done.pop()
        elif free:
            held[k] = free.pop()
        else:
            held[k] = len(sizes)
            sizes.append(0)
        free += done
        sizes[held[k]] = max(sizes[held[k]], step.width)
        places.append(f"h{held[k]}")
    return [*places, "f"], sizes


def _lines(step: Step, inputs: list[str], out: str, plan: Plan, name: str) -> list[str]:
    """The statements of one step."""
    h, key, D = inputs[0], step.key.replace(".", "_"), step.width
    each = f"for (int i = 0; i < {D}; i++)"
    if step.kind == "Linear":
        return _linear(step, h, out, f"{name}_omega_{key}", f"{name}_beta_{key}[o]" if "beta" in step.arrays else "0")
    if step.kind == "Add":
        return [f"{each} {out}[i] = {' + '.join(f'{place}[i]' for place in inputs)};"]
    if step.kind in WHOLE:
        return _whole(step, h, out, plan, name)
    if step.kind == "Concatenate":
        widths = [plan.widths[k] for k in step.inputs]
        starts = [sum(widths[:k]) for k in range(len(widths))]
        parts = zip(inputs, widths, starts, strict=True)
        return [f"for (int i = 0; i < {width}; i++) {out}[{start} + i] = {place}[i];" for place, width, start in parts]
    entry = {"h": f"{h}[i]", "number": _number(step.number), "name": name, "key": key}
    if step.kind == "LayerNorm":
        return LAYER_NORM.format(first=f"{h}[0]", f=f"{out}[i]", each=each, D=D, **entry).splitlines()
    return [f"{each} {out}[i] = {FORMULAS[step.kind].format(**entry)};"]


def _whole(step: Step, h: str, out: str, plan: Plan, name: str) -> list[str]:
    """The statements of a step whose entries come from many, at other places."""
    k, D_in = int(step.number), plan.widths[step.inputs[0]]
    own = {"h": h, "f": out, "D": step.width, "each": f"for (int i = 0; i < {step.width}; i++)", "k": k}
    own |= {"name": name, "key": step.key.replace(".", "_"), "rows": ", ".join(map(str, step.rows))}
    if step.kind == "MembersLinear":
        outputs, inputs = step.arrays["omega"].shape
        own |= {"outputs": outputs, "inputs": inputs, "place": "i" if D_in == inputs else f"i * {k} + m"}
    return WHOLE[step.kind].format(**own).splitlines()


def _linear(step: Step, h: str, out: str, omega: str, start: str) -> list[str]:
    """Four inputs to a round: a quarter of the loads and stores of f, two to three times as fast at -O2."""
    D_in, outputs = step.arrays["omega"].shape[1], f"for (int o = 0; o < {step.width}; o++)"
    whole = D_in - D_in % 4
    lines = [f"{outputs} {out}[o] = {start};"]
    if whole:
        terms = [f"{omega}[{i}][o] * {h}[{i}]" for i in ("i", "i + 1", "i + 2", "i + 3")]
        lines += [f"for (int i = 0; i < {whole}; i += 4)", f"    {outputs}"]
        lines += [f"        {out}[o] += {terms[0]} + {terms[1]}", f"            + {terms[2]} + {terms[3]};"]
    if whole < D_in:
        rest = " + ".join(f"{omega}[{i}][o] * {h}[{i}]" for i in range(whole, D_in))
        lines += [f"{outputs} {out}[o] += {rest};"]
    return lines


def _weights(step: Step, name: str) -> str:
    """The arrays of one step; Ω transposed, one line of outputs per input, because the loops add up along it."""
    text = f"/* {step.key}: {step.text} */\n"
    for own, array in step.arrays.items():
        array = array.T if own == "omega" else array
        sizes = "".join(f"[{size}]" for size in array.shape)
        rows = [", ".join(map(_number, row)) for row in array.reshape(-1, array.shape[-1]).tolist()]
        body = ",\n".join(f"    {{{row}}}" for row in rows) if array.ndim == 2 else f"    {rows[0]}"
        text += f"static const float {name}_{own}_{step.key.replace('.', '_')}{sizes} = {{\n{body}\n}};\n"
    return text + "\n"


def _number(value: float) -> str:
    """A float in C, with the nine digits that give back the same float32."""
    text = f"{value:.9g}"
    return text + ("f" if "." in text or "e" in text else ".0f")
