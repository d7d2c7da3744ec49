"""What each rank of a job runs: python -m backprop.distributed.rank program.py arguments…"""

from __future__ import annotations

import os
import runpy
import sys
from types import TracebackType

from backprop.distributed import guard
from backprop.distributed.world import world


def run(program: str, arguments: list[str]) -> int:
    """Run a program as Python does, with a guard from before its first line until after its last; the exit code."""
    watch = guard.start(world())
    sys.argv = [program, *arguments]
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.abspath(program))
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as error:
        if error.code not in (None, 0):
            watch.end(f"has left with status {error.code}")
    except BaseException as error:
        watch.failed(error.with_traceback(_from(program, error.__traceback__)))
    return watch.code


def _from(program: str, trace: TracebackType | None) -> TracebackType | None:
    """A traceback from the program on, if it is in it: what has started it is nobody's mistake."""
    own = trace
    while own is not None and own.tb_frame.f_code.co_filename != program:
        own = own.tb_next
    return own or trace


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2:]))
