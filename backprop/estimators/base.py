"""What both estimators share: the life of a fit, from checked data to fitted attributes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.validation import _check_sample_weight, check_array, check_is_fitted, check_X_y, validate_data

from backprop import arrays, checks
from backprop.checks import Array
from backprop.engine.team import ALONE, Team
from backprop.estimators import build, data, files, solvers, views
from backprop.estimators.course import Course, built, require_same, unchanged_if_refused
from backprop.estimators.data import Examples, Standardization, standardization
from backprop.estimators.hooks import CallbackSupportMixin, advise, tell_untransformed, with_callbacks
from backprop.files.atomic import PathLike
from backprop.losses import Loss
from backprop.sequential import Sequential
from backprop.tables import Table
from backprop.tables.frame import listing
from backprop.training.watch import described

OWN = ("callbacks", "native", "threads", "verbose")  # parameters that change no bit, or are told otherwise
AS_NUMBERS = {"accept_sparse": ("csr", "csc"), "dtype": (np.float64, np.float32)}  # how scikit-learn is to take X


class BaseModel(CallbackSupportMixin, BaseEstimator):
    """From what came in to what the network takes, and from the network to what is saved; `answers` says what y means."""

    network_: Sequential
    table_: Table | None = None
    most_categories: int | None = None  # of a column
    dates: str = "refuse"  # of a frame
    n_features_in_: int
    n_iter_: int
    n_layers_: int
    n_outputs_: int
    out_activation_: str
    loss_: float
    loss_curve_: list[float]
    validation_loss_curve_: list[float]
    _loss_function: Loss
    _course: Course
    _input_scaling: Standardization | None
    _target_scaling: Standardization | None

    def _keep(self, given: dict[str, Any]) -> None:
        """Keep the constructor's arguments as they are, under their names, as scikit-learn's `clone` wants them."""
        self.__dict__.update({name: value for name, value in given.items() if name not in ("self", "__class__")})

    @property
    def _who(self) -> str:
        return type(self).__name__

    def _judges(self, validation_data: Any, X_val: Any, y_val: Any, w_val: Any) -> Any:
        """The validation data as (X, y, weights), or None, however they were given."""
        separately = [X_val, y_val, w_val]
        if validation_data is not None:
            if any(part is not None for part in separately):
                raise ValueError(checks.message(self._who, "either validation_data or X_val and y_val", "both"))
            if not isinstance(validation_data, tuple | list) or len(validation_data) not in (2, 3):
                expected = "validation_data as (X, y) or (X, y, sample_weight)"
                raise TypeError(checks.message(self._who, expected, type(validation_data).__name__))
            tell_untransformed(self, "validation_data", "its y")
            return [*validation_data, None][:3]
        if (X_val is None) != (y_val is None) or (X_val is None and w_val is not None):
            raise ValueError(checks.message(self._who, "X_val together with y_val", "one of them"))
        if X_val is None:
            return None
        tell_untransformed(self, "X_val", "y_val")
        return separately

    def _checked_groups(self, groups: Any, n: int, held_out: Any) -> Array:
        """One group (N,) for each row, as whole numbers in the order of the groups."""
        if held_out is not None:
            advice = "The groups in X_val are yours to choose."
            raise ValueError(checks.message(self._who, "either groups or validation data", "both", advice))
        if isinstance(groups, str):
            raise TypeError(checks.message(self._who, "groups with one for each row", repr(groups), "Pass X[name]."))
        found = data.answers(self._who, None, groups, "groups")
        if found.dtype.kind == "f" and (missing := np.isnan(found)).any():
            expected, got = "groups with a value in each row", f"nan at row {int(missing.argmax())}"
            raise ValueError(checks.message(self._who, expected, got, "Leave such rows out, or give each a group."))
        if found.shape != (n,):
            raise ValueError(
                checks.message(self._who, f"groups with shape ({n},), one for each row", f"shape {found.shape}")
            )
        try:
            return np.unique(found, return_inverse=True)[1]
        except TypeError:
            kinds = listing(sorted({type(group).__name__ for group in found.tolist()}))
            advice = "Make text of them: [str(group) for group in groups]."
            raise TypeError(
                checks.message(self._who, "groups of one kind, which can be sorted", kinds, advice)
            ) from None

    def _examples(self, X: Any, y: Any, w: Any = None, *, reset: bool = False, whole: bool = False) -> Examples:
        """What came in, checked; with `whole`, y has all classes. `table_` is for a frame's words and holes, else None."""
        who = self._who
        for name, array in (("X", X), ("y", y), ("sample_weight", w)):
            checks.made(who, name, array, arrays.plain)
        names = () if reset else getattr(self, "feature_names_in_", ())
        given = X = data.in_memory(who, X, {*names, *([y] if isinstance(y, str) else ())})
        if reset:
            self.table_ = None
        values = data.answers(who, X, y)
        if reset and data.needs_table(X, y, self.missing):
            settings = {"missing": self.missing, "unknown": self.unknown, "scale": self.scale_inputs}
            settings |= {"most_categories": self.most_categories, "dates": self.dates}
            table = Table(y if isinstance(y, str) else None, dtype="float64", **settings)
            X, _ = table.fit(X)
            self.table_, self.n_features_in_ = table, len(table.columns)
            self.feature_names_in_ = np.array(table.columns, dtype=object)
        elif self.table_ is not None:
            X = self.table_.transform(X)
        with self._naming_holes(who, given):
            if self.table_ is not None:
                X, y = check_X_y(X, values, multi_output=True, estimator=self)
            else:
                X, y = validate_data(self, X, values, multi_output=True, reset=reset, **AS_NUMBERS)
        if w is not None:
            w = _check_sample_weight(w, X, dtype=np.float64, ensure_non_negative=True)
        flat = column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
        return Examples(X, flat, self._encode(flat, reset=reset, whole=whole), w, given)

    @contextmanager
    def _naming_holes(self, who: str, X: Any) -> Iterator[None]:
        """Where scikit-learn only says that there is a hole, say in which column and row."""
        try:
            yield
        except ValueError:
            data.refuse_holes(who, X, self.missing)
            raise

    def _made_by(self, name: str) -> Any:
        """A parameter as it was when the network was made."""
        return self._course.made_by.get(name)

    def _scaled(self, X: Any, w: Array | None = None, dtype: Any = None) -> Any:
        """X as a network of this dtype takes it: standardized where `scale_inputs` says so, row by row where it is sparse."""
        dtype = dtype or self.network_.phi.dtype
        scale = self._made_by("scale_inputs") and self.table_ is None  # a table scales the columns that are numbers
        if hasattr(X, "tocsr"):
            if scale:
                advice = "Use scale_inputs=False and sklearn.preprocessing.MaxAbsScaler."
                raise ValueError(checks.message(self._who, "dense X with scale_inputs=True", "sparse", advice))
            return data.SparseRows(X, dtype)
        if scale:
            if self._input_scaling is None:
                self._input_scaling = self._learn_scaling(X, w)
            X = self._input_scaling.forth(X)
        with np.errstate(over="ignore"):  # numbers that do not fit are looked for afterwards
            return X if data.is_mapped(X) else np.asarray(X, dtype)

    def _learn_scaling(self, X: Array, w: Array | None) -> Standardization:
        scaling = standardization(X, w)
        constant = np.flatnonzero(np.isinf(scaling.scale))
        if len(constant):
            names = getattr(self, "feature_names_in_", range(X.shape[1]))
            held = listing(names[i] for i in constant)
            advise(self._who, f"columns {held} hold one value only, and are taken for 0 from now on. Leave them out.")
        return scaling

    def _for_network(self, examples: Examples, dtype: Any = None) -> tuple[Any, Array, Array | None]:
        """X, targets and weights as a network of this dtype takes them; the first to come are those that scaling goes by."""
        targets, w = examples.targets, examples.w
        if self._made_by("scale_targets"):
            targets = self._scaled_targets(targets, w)
        return self._scaled(examples.X, w, dtype), targets, w

    def _facts(self, train: Examples, held_out: Examples | None, groups: Array | None) -> dict[str, Any]:
        """What tells this training from others: parameters, names and labels; of numbers in plenty their SHA-256."""
        found: dict[str, Any] = {name: value for name, value in self.get_params(deep=False).items() if name not in OWN}
        found["seed from random_state"] = self._course.seed
        found["callbacks"] = [
            described(callback) for callback in self.callbacks or () if not getattr(callback, "writes", False)
        ]
        found["columns"] = getattr(self, "feature_names_in_", np.empty(0)).tolist()
        found["classes"] = getattr(self, "classes_", np.empty(0)).tolist()
        for kind, examples in (("", train), ("validation ", held_out)):
            of = (None, None, None) if examples is None else (examples.X, examples.y, examples.w)
            for name, array in zip("Xyw", of, strict=True):
                found[f"SHA-256 of {kind}{name}"] = data.digest(array)
        return found | {"SHA-256 of groups": data.digest(groups)}

    def _stratify(self, examples: Examples, size: int) -> Array | None:
        """What is to be held out in the same shares, if anything."""
        return None

    def _advice_on_use(self, examples: Examples) -> str:
        """What to do about predictions of no use, where that can be told; begins with a space."""
        return ""

    def _tell_of_scores(self, held_out: Examples) -> None:
        """Advise where the score that early stopping went by does not say much."""

    def _say(self, line: str) -> None:
        if self.verbose and self.verbose != "bar" and (not hasattr(self, "network_") or self.network_.saves):
            print(line)

    def save(self, path: PathLike) -> None:
        """Save the fitted model as one file of data that `load` reads: parameters, network, scaling, table, classes, curves.

        Callbacks, `random_state` and the state of the optimizer are not in it. Raises OSError where it cannot be written,
        TypeError for a parameter that is no data, such as a function, NotFittedError.
        """
        files.save(self, path)

    @classmethod
    def load(cls, path: PathLike, classes: Iterable[type] = ()) -> Self:
        """The fitted model that `save` has saved; it predicts the same. `classes` are layers or losses of your own in it.

        Nothing in the file is executed. Raises FileFormatError for a file that is damaged, altered, or of another kind, OSError
        for one that cannot be read.
        """
        return files.load(cls, path, classes)

    def as_network(self) -> tuple[Sequential, Table]:
        """A network and the table before it that predict what this fitted model predicts, scaling and categories included.

        They are copies. Columns without names are called x0, x1, …. Of several quantiles the network gives the one nearest to the
        median, of a Gaussian loss the mean, of counts exp f. Raises NotFittedError, ValueError for several yes-or-no questions.

        >>> from backprop.estimators import MLPRegressor
        >>> X = np.arange(8.0).reshape(-1, 1)
        >>> model = MLPRegressor(hidden_layer_sizes=(3,), solver="lbfgs", tol=1, random_state=0).fit(X, X[:, 0])
        >>> net, table = model.as_network()
        >>> table.columns, net.out_features
        (['x0'], 1)
        """
        from backprop.estimators.convert import as_network

        return as_network(self)

    def _rows(self, X: Any) -> Array:
        """Outputs of the network (N, K) for checked X."""
        check_is_fitted(self, "network_")
        who = f"{self._who}.predict"
        checks.made(who, "X", X, arrays.plain)
        X = data.in_memory(who, X, getattr(self, "feature_names_in_", ()))
        if self.table_ is not None:
            return self._network_outputs(check_array(self.table_.transform(X)))
        with self._naming_holes(who, X):
            X = validate_data(self, X, reset=False, **AS_NUMBERS)
        return self._network_outputs(X)

    def _network_outputs(self, X: Any) -> Array:
        return self.network_.predict(self._scaled(X))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


class BaseMLP(BaseModel):
    """Fit, warm start, early stopping and the fitted attributes of `MLPClassifier` and `MLPRegressor`."""

    @unchanged_if_refused
    @with_callbacks
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
        groups: Any = None,
        validation_data: Any = None,
        team: Team | None = None,
    ) -> Self:
        """Train on rows X (N, D) and targets y from new weights, or with `warm_start` from where the last fit ended.

        X may be an array, a sparse matrix or a frame; in a frame, columns of words or categories are encoded, and `y` may be the
        name of the target's column. The loss of `X_val` and `y_val`, weighted or not, is kept in `validation_loss_curve_`, and
        `early_stopping` goes by them; `validation_data` is (X_val, y_val) or (X_val, y_val, sample_weight_val). Without
        them `early_stopping` holds out rows by chance, with `groups` (N,) whole groups. Raises TypeError or ValueError for data
        or parameters that do not fit, or when numbers are no longer finite; the model is then as it was.

        The ranks of a `team`, `bp.distributed.team()`, train one model together, each its own of the `shards`, on the same data
        with the same `random_state`: all have it then, with the bits that one process gives. Not with solver "lbfgs".
        """
        judges = self._judges(validation_data, X_val, y_val, sample_weight_val)
        return self._fit(X, y, sample_weight, judges, groups, epochs=self.max_iter, team=team or ALONE)

    def _fit(
        self,
        X: Any,
        y: Any,
        w: Any,
        judges: Any,
        groups: Any = None,
        *,
        epochs: int,
        incremental: bool = False,
        team: Team = ALONE,
    ) -> Self:
        """Check what came in, make the network or take the one there is, and train it: `solvers` says how."""
        build.check_parameters(self)
        checks.instance(self._who, "team", team, Team)
        if team.size > 1 and self.solver == "lbfgs":
            raise ValueError(checks.message(self._who, 'solver "adam" or "sgd" with a team', '"lbfgs"'))
        if incremental and self.early_stopping and judges is None:
            advice = "By itself partial_fit does not support early_stopping=True: what each part holds out is another measure."
            raise ValueError(checks.message(self._who, "X_val and y_val to stop by", "neither", advice))
        new = not hasattr(self, "network_") or not (self.warm_start or incremental)
        if not new:
            require_same(self)
        train = self._examples(X, y, w, reset=new, whole=not incremental)
        if getattr(self, "class_weight", None) is not None:
            train = train._replace(w=self._class_weights(train.y, train.w))
        if new:
            self._begin(train.X.shape[1], train.targets, train.X.dtype if self.dtype == "auto" else self.dtype)
        held_out = None if judges is None else self._examples(*judges)
        if groups is not None:
            groups = self._checked_groups(groups, train.X.shape[0], held_out)
            if not self.early_stopping or self.solver == "lbfgs":
                advice = "It is by early stopping that they choose which rows are held out."
                expected = "early_stopping=True beside groups"
                raise ValueError(checks.message(self._who, expected, "early_stopping=False", advice))
        if team.size > 1:
            team.compare(self._who, self._facts(train, held_out, groups))
        if self.solver == "lbfgs":
            solvers.lbfgs(self, train, held_out)
        else:
            solvers.Descent(self, train, held_out, groups, team).run(epochs, incremental)
        return self

    def _begin(self, features: int, targets: Array, dtype: Any) -> None:
        """New weights, a new optimizer, empty curves."""
        random = check_random_state(self.random_state)
        self._loss_function = self._make_loss()
        self.n_outputs_ = self._outputs(1 if targets.ndim == 1 else targets.shape[1])
        units = [features, *build.widths(self.hidden_layer_sizes), self.n_outputs_]
        self.network_ = build.network(units, self.activation, self.dropout, random, dtype)
        views.begin_with(self)
        self.n_layers_ = len(units)
        split = random.get_state()  # of which a copy is a hundred times dearer
        self._course = Course(int(random.randint(np.iinfo(np.int32).max)), split, built(self))
        self.t_ = 0
        self.loss_curve_ = []
        self.validation_loss_curve_ = []
        self.best_loss_: float | None = None if self.early_stopping else np.inf
        self.validation_scores_: list[float] | None = [] if self.early_stopping else None
        self.best_validation_score_: float | None = -np.inf if self.early_stopping else None
        self._input_scaling = self._target_scaling = None

    coefs_ = views.Parameter()
    intercepts_ = views.Parameter()

    @property
    def _optimizer(self) -> Any:
        """The optimizer as it is now: private in scikit-learn, and looked up all the same."""
        return self._course.optimizer
