"""Command line: `python -m backprop demo`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, or 1 where data or files say no; wrong usage exits with 2."""
    parser = argparse.ArgumentParser(prog="backprop", description="Multilayer perceptrons on a CPU.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="train on handwritten digits and show what the library does")
    demo.add_argument("--out", type=Path, default=Path("out"), help="folder for weights and picture (default: out)")
    demo.add_argument("--epochs", type=int, default=30, help="passes over the data (default: 30)")
    demo.add_argument("--seed", type=int, default=0, help="of weights and shuffling (default: 0)")
    given = parser.parse_args(arguments)
    from backprop.demo import run

    try:
        run(given.out, given.epochs, given.seed)
    except (OSError, ValueError) as error:
        print(f"backprop demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
