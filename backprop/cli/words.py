"""What the library says in Python, in the words of the command line; any text on one line, of bounded length."""

from __future__ import annotations

import re
import unicodedata

MOST = 1200  # characters of a message
CLASSES = "Table|Trainer|MLP(?:Classifier|Regressor)|Tabular(?:Classifier|Regressor)|ParquetRows|Sequential"
DOORS = rf"(?:{CLASSES}|CSVLogger|JSONLLogger|EarlyStopping|Checkpoints)"
PHRASES = {  # a pattern of what an error or a warning of the library says, and what it is here
    r"^Trainer\.resume\('?(.*?)'?\): ": r"\1: ",
    r"to_numpy, to_onnx and to_c scale": "--to numpy, onnx and c scale",
    r" Afterwards a callback changed the weights, .*?\.": "",
    rf"\b{DOORS}(?:\([^()]*\))?(?:\.\w+)?(?:\([^()]*\))?: ": "",
    r"Remove such rows, or fill them with missing='impute'\.": "Remove such rows, or fill them with fit --missing impute.",
    r"unknown='ignore' encodes such values as zeros\.": "fit --unknown ignore encodes such values as zeros.",
    r"Leave the column out, or keep the most frequent ones: Table\(most_categories=50\)\.": (
        "--drop leaves the column out, and the tabular network keeps its most frequent ones."
    ),
    r"Leave (?:them|the column|it) out\.": "--drop leaves columns out.",
    r"Leave the column out, or make numbers or text of it\.": "--drop leaves the column out.",
    r"Convert the column first\.": "Convert the column first, or say how to read it: --decimal, --na, --categories.",
    r"Make .{1,20} of the column, or a categorical if they are names\.": (
        "--drop leaves the column out, --categories takes its values for names."
    ),
    r"Make numbers of it: days since a date, [^.]*\.": "--dates makes days of it, --drop leaves it out.",
    r"bp\.learning_rate_range_test\(net, loss, X, y\) suggests one\.": "Try a tenth of it: --learning-rate.",
    r"Lower the learning rate, scale the inputs, or clip gradients \(clip_norm=1\)\.": (
        "Lower --learning-rate; backprop look shows what is odd about the data."
    ),
    r"Trainer\.resume\(…, other_data=True\) allows others\.": "for others, fit anew.",
    r"Pass a class of your own when loading: classes=\[MyClass\]\.": (
        "A layer of your own is named: --layer module:Class."
    ),
    r"scale the data, or use dtype='float64'\.": "scale the data.",
    r"Save it with net\.save\(path, table=table\)\.": "backprop fit saves both.",
    r"Pass name='…', or rename the file\.": "Rename the file.",
    r"For classes use CrossEntropy with \S+ outputs": "For classes: --task classification",
    r"Standardize the columns: bp\.Table does .* in scikit-learn\. Divide pixels by their largest value\.": (
        "backprop look shows the columns."
    ),
    r"Train on \(y − mean\) / deviation and undo it in the predictions; .* in MLPRegressor\.": (
        "backprop look shows the target."
    ),
    r"Object arrays cannot be loaded when allow_pickle=False": "expected numbers, got objects of Python, which are not loaded",
    r"^to_(?=(?:numpy|onnx|c): )": "--to ",
    r"Trainer\.resume opens it": "backprop resume goes on from it",
    r"(?:Sequential\.load|(?:MLPClassifier\.load or )?MLPRegressor\.load) opens it": "predict, evaluate, export and plot take it",
    r"a file of net\.save or trainer\.save": "a file of backprop fit, net.save, or an estimator's save",
    r"a model saved with its table, as by backprop fit or net\.save\(path, table=table\)": "a model that backprop fit has saved",
}


def spoken(text: str) -> str:
    """A message of the library as the command line says it, on one line of bounded length.

    >>> spoken("Table.fit: expected x, got y. Remove such rows, or fill them with missing='impute'.")
    'expected x, got y. Remove such rows, or fill them with fit --missing impute.'
    """
    for pattern, instead in PHRASES.items():
        text = re.sub(pattern, instead, text)
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Text that a terminal shows and does not obey, cut in the middle where it is long."""
    if len(text) > MOST:
        text = f"{text[: MOST - 300]} … {text[-280:]}"
    return "".join(c if c in "\n\t" or unicodedata.category(c)[0] != "C" else repr(c)[1:-1] for c in text)
