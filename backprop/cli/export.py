"""`backprop export`: a model for other programs, compared with `predict` before it is handed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import backprop as bp
from backprop.cli import options
from backprop.cli.group import Command, answer, tell
from backprop.cli.models import Model, load

SUFFIXES = {"onnx": ".onnx", "numpy": ".py", "c": ".h", "torch": ".safetensors"}


@click.command(cls=Command, short_help="Write a model for ONNX, NumPy, C or PyTorch.")
@options.model
@click.option("--to", type=click.Choice(list(SUFFIXES)), required=True, help="What it is for.")
@options.out("File to write. [the model's name with .onnx, .py, .h; for torch with .torch.safetensors]")
@options.as_json
def export(model: Path, layers: tuple[str, ...], to: str, out: Path | None, as_json: bool) -> None:
    """Write MODEL for other programs. What is written is run and compared with predict, and the largest difference told.

    \b
    onnx    a graph for onnxruntime and others
    numpy   a Python file with predict(columns) that needs NumPy and nothing of this library
    c       a C99 header with a function that allocates nothing
    torch   weights under the names that load_state_dict takes
    \b
    Examples:
      backprop export rent.safetensors --to numpy --out rent.py
      backprop export rent.safetensors --to c --out rent.h --json

    What is written takes the columns as they are and gives units of the target, or scores of the classes: scaling and categories
    go with it, in double precision. Only weights for torch have no place for categories: they take 0 or 1 for each of them, and
    their scaling is worked into the first and the last layer.
    """
    out = out or model.with_suffix(".torch.safetensors" if to == "torch" else SUFFIXES[to])
    if out.suffix != SUFFIXES[to]:
        raise click.BadParameter(f"'{out}' should end in {SUFFIXES[to]}.", param_hint="'--out'")
    options.outputs(out, given=(model,))
    loaded = load(model, layers)
    table = loaded.table
    report = _export(loaded, to, out)
    tell(f"Exported to {out}.")
    if to == "torch":
        tell(f"In PyTorch: module.load_state_dict(safetensors.torch.load_file({str(out)!r})).")
    about: dict[str, Any] = {}
    if table is not None:
        takes = table.feature_names if to == "torch" else table.columns
        kinds = f"{'features' if to == 'torch' else 'columns'}, as they are in the data"
        tell(f"Its inputs are {len(takes)} {kinds}: {', '.join(takes)}.")
        about = {"inputs": takes, "target": table.target, "classes": table.classes}
        if table.classes is not None:
            tell(f"Its outputs are scores of the classes {', '.join(map(str, table.classes.tolist()))}.")
        elif table.state()["answers"] is not None:
            tell(f"Its output is in units of {table.target or 'the target'}.")
    answer({"out": str(out), "to": to, **about, **report}, as_json, _text(report))


def _export(model: Model, to: str, out: Path) -> dict[str, Any]:
    """Write it; how it was compared with `predict`."""
    net, table = model.net, model.table
    if to != "torch":
        report = {"onnx": bp.to_onnx, "numpy": bp.to_numpy, "c": bp.to_c}[to](net, out, table=table)
        return {"largest_difference": report.largest_difference, "rows": report.rows, "run_by": report.run_by}
    rounding = 0.0
    if table is not None:
        from backprop.formats.folding import folded

        net, rounding = folded("--to torch", net, table)
    bp.save_weights(net, out)
    try:
        return {"largest_difference": rounding + bp.to_torch(net).largest_difference, "run_by": "torch"}
    except ImportError:
        return {"largest_difference": None, "run_by": "nothing: torch is not installed"}


def _text(report: dict[str, Any]) -> str:
    difference = report["largest_difference"]
    if difference is None or difference != difference:
        return f"not compared with predict; run by {report['run_by']}"
    return f"largest difference from predict {difference:.2g}, run by {report['run_by']}"
