"""`backprop export`: a model for other programs, compared with `predict` before it is handed over."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import backprop as bp
from backprop.cli import options
from backprop.cli.group import Command, answer, tell
from backprop.cli.models import load

if TYPE_CHECKING:
    from backprop.sequential import Sequential

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
    numpy   a Python file with predict(X) that needs NumPy and nothing of this library
    c       a C99 header with a function in float32 that allocates nothing
    torch   weights under the names that load_state_dict takes
    \b
    Examples:
      backprop export rent.safetensors --to numpy --out rent.py
      backprop export rent.safetensors --to c --out rent.h --json

    Only the network is exported: what it takes are scaled numbers, as `Table.transform` makes them of the columns, and what it
    gives is the scaled target of a regression, which `Table.values` turns into its units.
    """
    out = out or model.with_suffix(".torch.safetensors" if to == "torch" else SUFFIXES[to])
    if out.suffix != SUFFIXES[to]:
        raise click.BadParameter(f"'{out}' should end in {SUFFIXES[to]}.", param_hint="'--out'")
    options.outputs(out, given=(model,))
    loaded = load(model, layers)
    net, table = loaded.net, loaded.table
    report = _export(net, to, out)
    tell(f"Exported to {out}.")
    if to == "torch":
        tell(f"In PyTorch: module.load_state_dict(safetensors.torch.load_file({str(out)!r})).")
    if table is not None:
        tell(f"Its inputs, scaled as in training: {', '.join(table.feature_names)}.")
        if table.scale_target and table.classes is None:
            mean, above = table.values([[0.0], [1.0]])
            tell(f"Its output is scaled, too: {table.target} = {mean:.9g} + {above - mean:.9g} · output.")
    answer({"out": str(out), "to": to, **report}, as_json, _text(report))


def _export(net: Sequential, to: str, out: Path) -> dict[str, Any]:
    """Write it; how it was compared with `predict`."""
    if to != "torch":
        report = {"onnx": bp.to_onnx, "numpy": bp.to_numpy, "c": bp.to_c}[to](net, out)
        return {"largest_difference": report.largest_difference, "rows": report.rows, "run_by": report.run_by}
    bp.save_weights(net, out)
    try:
        return {"largest_difference": bp.to_torch(net).largest_difference, "run_by": "torch"}
    except ImportError:
        return {"largest_difference": None, "run_by": "nothing: torch is not installed"}


def _text(report: dict[str, Any]) -> str:
    difference = report["largest_difference"]
    if difference is None or difference != difference:
        return f"not compared with predict; run by {report['run_by']}"
    return f"largest difference from predict {difference:.2g}, run by {report['run_by']}"
