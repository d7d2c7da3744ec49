"""`backprop check`: the library's tests on a layer of one's own. `backprop explain`: a pass with its numbers."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import backprop as bp
from backprop.cli import options
from backprop.cli.group import Command, answer, refusal, tell
from backprop.cli.models import default_loss, load_with_targets, named

if TYPE_CHECKING:
    from backprop.layers import Layer
    from backprop.losses import Loss

EXAMPLES = 6  # columns of h: a few of them different are what assert_layer asks for


@click.command(cls=Command, short_help="Test a layer of your own.")
@click.argument("layer", metavar="PACKAGE.MODULE:LAYER")
@click.argument("arguments", nargs=-1, metavar="[NAME=VALUE]...")
@options.whole("--features", 3, "Rows of h where the layer takes any number.")
@click.option("--between", type=float, nargs=2, default=(-2.0, 2.0), help="The numbers in h.")
@options.whole("--seed", 0, "Of the numbers in h.", least=0)
@options.as_json
def check(
    layer: str, arguments: tuple[str, ...], features: int, between: tuple[float, float], seed: int, as_json: bool
) -> None:
    """Test a layer of your own: its gradients, and every promise of a layer.

    The class is imported from the module, which may be a file in this folder, and made with the arguments NAME=VALUE. It may also
    be a layer that is made already, a network, or a function that returns one. Exit code 1 says that a test failed, and which.

    \b
    Examples:
      backprop check layers:Swish
      backprop check layers:Scale features=3
      backprop check layers:Logarithm --between 0.5 2 --json
    """
    import numpy as np

    from backprop.testing import assert_layer

    made = _made(layer, arguments)
    width = made.in_features or features
    h = np.random.default_rng(seed).uniform(*between, (width, EXAMPLES))
    net = bp.Sequential(made.copy(), dtype="float64")
    f = net.infer(h)
    y = np.random.default_rng(seed + 1).uniform(-1, 1, f.T.shape)
    report = bp.check_gradients(net, bp.LeastSquares(), h.T, y)
    fault = "" if report.passed else f"{made.label}: a gradient is wrong"
    try:
        assert_layer(made, h)
    except AssertionError as error:
        fault = str(error)
    result = {"layer": made.label, "passed": not fault, "fault": fault}
    result |= {"error": report.worst.error, "method": report.method}
    answer(result, as_json, f"{report}\n\n{fault or 'Every promise of a layer is kept.'}")
    if fault:
        raise AssertionError(fault.splitlines()[0])


def _made(name: str, arguments: tuple[str, ...]) -> Layer:
    """The layer of a name: an object, or what a class or function makes of the arguments."""
    if name.endswith(".safetensors"):
        advice = "Its layers are of the library, or your own, which is what is tested: backprop check layers:Swish."
        raise refusal(name, "a layer as package.module:Name", "a model file", advice)
    thing = named(name)
    if isinstance(thing, bp.Layer):
        return thing
    if not callable(thing):
        raise refusal(name, "a class of layers, or a layer", repr(thing))
    given = dict(_argument(each) for each in arguments)
    try:
        inspect.signature(thing).bind(**given)
    except TypeError as error:
        takes = ", ".join(inspect.signature(thing).parameters) or "nothing"
        raise click.UsageError(f"{name}: {error}. It takes: {takes}. Write them behind it: {name} NAME=VALUE") from None
    made = thing(**given)
    if not isinstance(made, bp.Layer):
        raise refusal(name, "a layer", repr(made))
    return made


def _argument(text: str) -> tuple[str, Any]:
    """NAME=VALUE; a value is a number, true, false, null, a list, or else a word."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise click.BadParameter(f"'{text}' should have the form NAME=VALUE.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


@click.command(cls=Command, short_help="Show a forward and a backward pass with its numbers.")
@click.argument("model", type=options.FILE, required=False)
@click.argument("data", type=options.DATA, required=False)
@options.own_layers
@options.whole("--rows", 2, "So many rows, the first ones.")
@click.option("--markdown", is_flag=True, help="With headings, for a notebook or a page.")
@click.option("--step", is_flag=True, help="An equation at a time: Enter goes on.")
@options.target
@options.reading
@options.as_json
def explain(
    model: Path | None,
    data: Path | None,
    rows: int,
    markdown: bool,
    step: bool,
    target: str | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Show every equation of a forward and a backward pass, with shapes and numbers.

    Without arguments that of a small network; else that of MODEL for the first rows of DATA, a file with the target.

    \b
    Examples:
      backprop explain --step
      backprop explain rent.safetensors flats.csv --rows 1
    """
    import numpy as np

    if step and (markdown or as_json):
        raise click.UsageError("--step shows text: give it without --markdown and --json.")
    loss: Loss
    if model is None:
        net = bp.Sequential(bp.Linear(2, 2), bp.ReLU(), bp.Linear(2, 1), seed=0)
        loss, X, y = bp.LeastSquares(), np.array([[1.0, 2.0]]), np.array([1.0])
        tell("A small network, one example x = (1, 2) and its target y = 1.")
    elif data is None:
        raise click.UsageError("Missing argument 'DATA': the rows to show, with their target.")
    else:
        loaded, table, found = load_with_targets(model, data, target, rows, **how)
        net, X, y = loaded.net, found.X, found.y
        loss = default_loss(table, net.out_features)
    shown = bp.explain(net, loss, X, y)
    if step:
        shown.walk()
        return
    answer({"numbers": shown.numbers}, as_json, shown.markdown if markdown else shown.text)
