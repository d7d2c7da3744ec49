"""`backprop demo` and `backprop bench`: what the library does, and how fast on this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

import backprop as bp
from backprop.cli import options
from backprop.cli.group import Command, answer, tell
from backprop.cli.pictures import save_picture


@click.command(cls=Command, short_help="Train on handwritten digits and show what the library does.")
@click.option("--out", "-o", type=options.FILE, default=Path("out"), help="Folder for weights and picture.")
@options.whole("--epochs", 30, "Passes over the data.")
@options.whole("--seed", 0, "Of weights and shuffling.", least=0)
def demo(out: Path, epochs: int, seed: int) -> None:
    """Train on handwritten digits: the network, its gradient check, training, batch sizes, weights, a picture.

    \b
    Examples:
      backprop demo
      backprop demo --epochs 5 --out digits
    """
    from backprop.demo import run

    run(out, epochs, seed)


@click.command(cls=Command, short_help="Measure batch sizes on this machine.")
@options.numbers("--batch-sizes", "1,8,64,512", "To compare.")
@options.numbers("--hidden", "128", "Widths of the hidden layers, or none.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=2.0, help="For all of them.")
@options.out("Also draw the report as a picture (.png, .svg or .pdf).", options.PICTURE)
@options.as_json
def bench(
    batch_sizes: tuple[int, ...], hidden: tuple[int, ...], seconds: float, out: Path | None, as_json: bool
) -> None:
    """Measure how fast examples go through at several batch sizes, and predict which one gets furthest in the same time.

    The data are 1,797 images of handwritten digits. Small batches waste the machine, large ones waste examples: the report says
    how many steps each needs for the same progress, relative to the least.

    \b
    Examples:
      backprop bench --batch-sizes 1,8,64,512
      backprop bench --hidden 512,512 --seconds 1 --json
    """
    from backprop.cli.training import chain

    options.outputs(out, given=())
    X, y = bp.load_digits()
    net = chain([64, *hidden, 10], "ReLU", seed=0)
    tell(f"Digits, {'-'.join(map(str, [64, *hidden, 10]))}, {net.size:,} parameters, float32.")
    report = bp.suggest_batch_size(net, bp.CrossEntropy(), X / 16, y, batch_sizes=batch_sizes, seconds=seconds)
    if out is not None:
        save_picture(report.plot(), out)
    rows = [asdict(row) for row in report.rows]
    answer({"batch_size": report.batch_size, "noise_scale": report.noise.scale, "rows": rows}, as_json, str(report))
