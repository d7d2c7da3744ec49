"""The command line: `backprop`, and `python -m backprop`."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0; 1 where data, files or models say no; 2 for wrong usage; 130 for Ctrl-C."""
    try:
        from backprop.cli import commands
    except KeyboardInterrupt:
        print("backprop: interrupted; no result was written", file=sys.stderr)
        return 130
    return commands.main(arguments, prog_name="backprop", standalone_mode=False)


if __name__ == "__main__":
    sys.exit(main())
