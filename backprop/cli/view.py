"""What `backprop plot` draws of a model and data: results, and what the columns do."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from backprop.cli.data import Reading
from backprop.cli.group import refusal
from backprop.cli.models import default_loss, log_loss
from backprop.cli.predict import held_out

if TYPE_CHECKING:
    from backprop.checks import Array
    from backprop.cli.models import Model, Rows
    from backprop.tables import Table

MOST_ROWS = 5000  # looked at for what the columns do, at equal distances
MOST_DIFFERENT = 12  # up to so many different numbers are drawn as they are


class View:
    """A model on rows of data: those that fit held out, if these are the data that it was given, else all."""

    def __init__(self, model: Model, table: Table, rows: Rows, column: str | None = None) -> None:
        import numpy as np

        held = held_out(model, table, rows)
        self.held_out = held is not None and len(held) > 0
        chosen = held if held is not None and len(held) else np.arange(len(rows.X))
        self.net, self.table, self.name, self.given = model.net, table, str(rows.target), column
        self.X, self.y = rows.X[chosen], rows.y[chosen]
        self.features = rows.features.take(chosen)
        self.some = slice(None, None, -(-len(chosen) // MOST_ROWS))

    def draw(self, kind: str, ax: Any) -> Any:
        """One picture, into axes or a figure of its own."""
        return getattr(self, f"_{kind}")(ax)

    def answers(self, X: Array) -> Array:
        """Numbers in units of the target (N,), or the probability of each class (N, K)."""
        from backprop.cli.predict import probabilities

        f = self.net.predict(X)
        return self.table.values(f) if self.table.classes is None else probabilities(f)

    def error(self, X: Array) -> float:
        """Of some of the rows: of numbers the root mean squared error, of classes the log-loss."""
        import numpy as np

        if self.table.classes is not None:
            return log_loss(self.table, self.net.predict(X), self.y[self.some])
        return float(np.sqrt(np.mean((self.answers(X) - self.true[self.some]) ** 2)))

    @cached_property
    def true(self) -> Array:
        """The targets in their units (N,)."""
        return self.table.values(self.y[:, None])

    @cached_property
    def classes(self) -> list[Any]:
        """The classes, in the order of the labels."""
        return [] if self.table.classes is None else self.table.classes.tolist()

    @cached_property
    def column(self) -> str:
        """The column that was asked for, or the one whose shuffling costs most."""
        from backprop.plots.columns import importances

        if self.given is not None:
            return self.given
        growths = importances(self.error, self.X[self.some], self.table.places)
        return max(growths, key=lambda name: growths[name].mean())

    def _predictions(self, ax: Any) -> Any:
        from backprop import plots

        return plots.predicted_against_true(self.true, self.answers(self.X), name=self.name, ax=ax)

    def _residuals(self, ax: Any) -> Any:
        from backprop import plots

        return plots.residuals(self.true, self.answers(self.X), name=self.name, ax=ax)

    def _confusion(self, ax: Any) -> Any:
        from backprop import plots

        predicted = self.answers(self.X).argmax(axis=1)
        return plots.confusion_matrix(self.y, predicted, self.classes, ax=ax)

    def _importance(self, ax: Any) -> Any:
        from backprop import plots
        from backprop.plots.canvas import shortened

        ax = plots.column_importance(self.error, self.X[self.some], self.table.places, ax=ax)
        what = f"root mean squared error of {shortened(self.name)}" if self.table.classes is None else "log-loss"
        ax.set_xlabel(f"growth of the {what}\nwhen the column is shuffled", parse_math=False)
        return ax

    def _dependence(self, ax: Any) -> Any:
        import numpy as np

        from backprop import plots
        from backprop.plots.canvas import shortened

        places, (values, at) = self.table.places[self.column], self._settings()
        classes = self.classes or None
        ax = plots.column_dependence(
            self.answers, self.X[self.some], places, np.asarray(values), at, classes=classes, ax=ax
        )
        ax.set_xlabel(shortened(self.column, 48), parse_math=False)
        if self.column in Reading.of(self.table).dates:
            ax.xaxis_date()  # which counts days since 1970, too
            for label in ax.get_xticklabels():
                label.set(rotation=30, horizontalalignment="right")
        if not classes:
            ax.set_ylabel(f"predicted {shortened(self.name)}", parse_math=False)
        return ax

    def _settings(self) -> tuple[Array, Any]:
        """What is written into the features of the column (V, places), and the values that stand for it (V,): none is missing."""
        import numpy as np

        width = len(self.table.places[self.column])
        if self.column in self.table.categories:
            categories = self.table.categories[self.column]
            return np.eye(len(categories), width), np.array([str(each) for each in categories])
        learnt = next(each for each in self.table.state()["columns"] if each["name"] == self.column)
        known = self.features[self.column].drop_null()
        x = np.asarray(known.to_numpy(), float)
        at = np.unique(x)
        if len(at) > MOST_DIFFERENT:
            low, high = np.quantile(x, (0.01, 0.99))
            at = np.linspace(low, high, 40)
        values = np.zeros((len(at), width))
        values[:, 0] = (at - learnt["shift"]) * learnt["factor"]
        return values, np.array(["false", "true"])[at.astype(int)] if learnt["kind"] == "booleans" else at

    def _boundary(self, ax: Any) -> Any:
        from backprop import plots

        if not len(self.table.columns) == len(self.table.feature_names) == 2:
            got = f"{len(self.table.feature_names)} features of {len(self.table.columns)} columns"
            raise refusal("--kind boundary", "a model of two columns of numbers without holes", got)
        ax = plots.decision_boundary(self.net, self.X, self.y, self.classes or None, ax=ax)
        for axis, name in zip(("x", "y"), self.table.feature_names, strict=True):
            getattr(ax, f"set_{axis}label")(f"{name}, scaled", parse_math=False)
        return ax

    def _loss(self, ax: Any) -> Any:
        from backprop import plots

        return plots.loss_surface(self.net, default_loss(self.table, self.net.out_features), self.X, self.y, ax=ax)
