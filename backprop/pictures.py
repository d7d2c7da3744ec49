"""The canvas of every picture: matplotlib without a display, imported on first use."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backprop import checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    class Drawn(Axes):
        """Axes of a figure that can be written to a file, not of a part of one."""

        figure: Figure


Png = tuple[bytes, dict[str, int]]

INK, ACCENT, SOFT = "black", "tab:orange", "0.7"  # told apart in grey, and by the color-blind
PIXELS = 72  # for an inch, of a screen that is not dense


def axes(ax: Any = None, width: float = 6.0, height: float = 4.0) -> Drawn:
    """The axes handed in, or those of a new figure of this size in inches; `axes.figure.savefig(path)` writes it.

    A figure made here belongs to no window, so that it needs no display; a notebook shows it. Raises ImportError without
    matplotlib.

    >>> axes(width=3, height=2).figure.get_size_inches()
    array([3., 2.])
    """
    if ax is not None:
        return ax
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures need matplotlib: pip install "backprop-mlp[plots]"') from error
    return showing(Figure(figsize=(width, height), layout="constrained").subplots())


def showing(made: Any) -> Any:
    """Axes that a notebook shows as their picture, where it would say `<Axes: >`."""
    made._repr_png_ = partial(png, made)
    return made


class Panels(np.ndarray[Any, np.dtype[Any]]):
    """Several axes (n,) of one picture, which a notebook shows."""

    def _repr_png_(self) -> Png | None:
        return png(self.flat[0]) if self.size and hasattr(self.flat[0], "figure") else None


def png(made: Any) -> Png:
    """The figure of axes as a PNG, with two pixels for one, as dense screens have, and the size in which it is to be shown."""
    figure = made.figure
    width, height = (round(inches * PIXELS) for inches in figure.get_size_inches())
    file = io.BytesIO()
    figure.savefig(file, dpi=2 * PIXELS, format="png")
    return file.getvalue(), {"width": width, "height": height}


def suffix(who: str, path: str | os.PathLike[str], suffixes: Sequence[str]) -> str:
    """The suffix of a path, in small letters. Raises ValueError unless it is one of these."""
    found = Path(path).suffix.lower()
    if found not in suffixes:
        raise ValueError(checks.message(who, f"a path that ends in {' or '.join(suffixes)}", repr(os.fspath(path))))
    return found
