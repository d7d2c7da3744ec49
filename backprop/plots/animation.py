"""Training as a film: the decision boundary and the loss, epoch by epoch, as a GIF or as a page with a slider."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import os
import re
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.files.atomic import write_atomically
from backprop.pictures import ACCENT, INK, suffix
from backprop.plots import canvas
from backprop.plots.boundary import View
from backprop.training import Callback, Epoch, History, Trainer

MOST_FRAMES = 100  # of more epochs, some are left out
HOLD = 2.0  # seconds on the last frame of a GIF
RESOLUTION, DPI, SHADES = 120, 90, 128


def animate_training(
    trainer: Trainer,
    X: Any,
    y: Any,
    path: str | os.PathLike[str],
    *,
    epochs: int = 30,
    classes: Any = None,
    threshold: float = 0.0,
    frames_per_second: float = 5.0,
    verbose: int = 1,
) -> History:
    """Train for `epochs`, and write a film of it: the plane as `decision_boundary` draws it, and the loss so far.

    The suffix of `path` decides: ".gif", or ".html", one file that needs no network, with buttons, a slider and the arrow keys.
    The first frame is the network before training, the others are epochs; of more than 100, some are left out. The loss is that
    of all rows at the weights one sees. X (N, 2), y (N,), `classes` and `threshold` are as in `decision_boundary`, `verbose` as
    in `fit`. Returns the history.

    The file is written when training is over, whole or not at all; Ctrl-C ends training, and the film with it. An error in
    training writes nothing.

    Raises ValueError for another suffix, FileNotFoundError for a folder that is not there, TypeError or ValueError for what does
    not fit, all before the first step; OSError where the file cannot be written.
    """
    who = "animate_training"
    checks.instance(who, "trainer", trainer, Trainer)
    path, kind = Path(path), suffix(who, path, (".gif", ".html"))
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{who}: there is no folder {os.fspath(path.parent)!r}.")
    epochs = checks.integer(who, "epochs", epochs)
    frames_per_second = checks.number(who, "frames_per_second", frames_per_second, above=0, most=50)
    canvas.axes(who, None, 1, 1)  # without matplotlib, say so now
    view = View(who, trainer.net, X, y, classes, threshold, RESOLUTION)
    film = Film(view, X, y, every=math.ceil(epochs / MOST_FRAMES), last=trainer.epochs_done + epochs)
    history = trainer.fit(X, y, epochs=epochs, callbacks=[film], verbose=verbose)
    if kind == ".gif":
        write_atomically(path, gif(film.pictures(), frames_per_second))
    else:
        write_atomically(path, page(film.pictures(), film.captions(), frames_per_second).encode())
    return history


class Film(Callback):
    """A callback that keeps what each frame needs, and draws all of them when their common scale is known."""

    def __init__(self, view: View, X: Any, y: Any, every: int, last: int) -> None:
        self.view, self.X, self.y, self.every, self.last = view, X, y, every, last
        self.frames: list[tuple[int, float, Array]] = []  # epoch, loss, heights

    def start(self, trainer: Any) -> None:
        """The network before training."""
        self._keep(trainer, trainer.epochs_done)

    def epoch(self, trainer: Any, record: Epoch) -> None:
        """The network after an epoch, if it has a frame."""
        if (self.last - record.epoch) % self.every == 0:
            self._keep(trainer, record.epoch)

    def _keep(self, trainer: Any, epoch: int) -> None:
        loss, heights = trainer.evaluate(self.X, self.y)["loss"], self.view.heights()
        self.frames.append((epoch, loss, heights.astype(np.float32)))

    def captions(self) -> list[str]:
        """A line about each frame."""
        return [f"epoch {epoch}: loss {loss:.4g}" for epoch, loss, _ in self.frames]

    def pictures(self) -> list[Any]:
        """The frames as images of Pillow. All have the layout of the first: finding one takes longer than the rest."""
        found: list[Any] = []
        places: list[Any] = []
        for i in range(len(self.frames)):
            figure = self._figure(i)
            if places:
                figure.set_layout_engine("none")
            for ax, place in zip(figure.axes, places, strict=False):
                ax.set_position(place)
            found.append(_image(figure))
            places = [ax.get_position() for ax in figure.axes]
        return found

    def _figure(self, i: int) -> Any:
        left, right = canvas.panels("animate_training", None, 2, 4.1 + self.view.legend_width / 2, 3.6)
        epochs, losses, heights = zip(*self.frames, strict=True)
        limits = min(map(np.min, heights)), max(map(np.max, heights))
        self.view.draw(left, heights[i], limits=limits)
        left.set_title(f"epoch {epochs[i]}", loc="left")
        right.plot(epochs, losses, color="none")  # the same axis in each frame
        right.plot(epochs[: i + 1], losses[: i + 1], color=INK)
        right.plot(epochs[i], losses[i], "o", ms=8, color=ACCENT, mec=INK)
        canvas.logarithmic(right, np.array(losses))
        canvas.whole_numbers(right.xaxis)
        right.set_title(f"loss {losses[i]:.4g}", loc="left")
        right.set(xlabel="epoch", ylabel="loss")
        right.grid(alpha=0.3)
        return left.figure


def _image(figure: Any) -> Any:
    """A figure as an image of few colors."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.dpi = DPI
    agg: Any = FigureCanvasAgg(figure)
    agg.draw()
    return Image.fromarray(np.asarray(agg.buffer_rgba())[..., :3].copy()).quantize(SHADES)


def gif(pictures: list[Any], frames_per_second: float) -> bytes:
    """An animated GIF that starts again when it is over."""
    into, duration = io.BytesIO(), round(1000 / frames_per_second)
    durations = [duration] * (len(pictures) - 1) + [max(duration, round(1000 * HOLD))]
    pictures[0].save(into, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    return into.getvalue()


def page(pictures: list[Any], captions: list[str], frames_per_second: float) -> str:
    """A page of HTML, `data/film.html`, that holds its frames and needs nothing else."""
    frames = []
    for picture in pictures:
        into = io.BytesIO()
        picture.save(into, "PNG", optimize=True)
        frames.append("data:image/png;base64," + base64.b64encode(into.getvalue()).decode())
    values = {
        "last": str(len(frames) - 1),
        "caption": html.escape(captions[-1]),
        "width": str(pictures[0].width),
        "delay": json.dumps(1000 / frames_per_second),
        "captions": json.dumps(captions),
        "frame": frames[-1],
        "frames": json.dumps(frames),
    }
    empty = resources.files("backprop").joinpath("data/film.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], empty)
