"""The canvas of every picture: matplotlib without a display, imported on first use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backprop import checks

INK, ACCENT, SOFT = "black", "tab:orange", "0.7"  # told apart in grey, and by the color-blind


def axes(ax: Any = None, width: float = 6.0, height: float = 4.0) -> Any:
    """The axes handed in, or those of a new figure of this size in inches; `axes.figure.savefig(path)` writes it.

    A figure made here belongs to no window, so that it needs no display. Raises ImportError without matplotlib.

    >>> axes(width=3, height=2).figure.get_size_inches()
    array([3., 2.])
    """
    if ax is not None:
        return ax
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures need matplotlib: pip install "backprop-mlp[plots]"') from error
    return Figure(figsize=(width, height), layout="constrained").subplots()


def suffix(who: str, path: str | os.PathLike[str], suffixes: Sequence[str]) -> str:
    """The suffix of a path, in small letters. Raises ValueError unless it is one of these."""
    found = Path(path).suffix.lower()
    if found not in suffixes:
        raise ValueError(checks.message(who, f"a path that ends in {' or '.join(suffixes)}", repr(os.fspath(path))))
    return found
