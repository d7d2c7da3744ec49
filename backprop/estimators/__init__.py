"""Estimators with scikit-learn's interface: the same parameters, attributes and habits as its MLP, trained by this library.

    from backprop.estimators import MLPClassifier, MLPRegressor

is all that changes in code written for `sklearn.neural_network`. Needs scikit-learn, the extra `backprop-mlp[sklearn]`.
"""

try:
    import sklearn as _  # noqa: F401
except ImportError as error:
    raise ImportError('backprop.estimators needs scikit-learn: pip install "backprop-mlp[sklearn]"') from error

from backprop.estimators.convert import from_sklearn, to_sklearn
from backprop.estimators.mlp import MLPClassifier, MLPRegressor
from backprop.estimators.tabular import TabularClassifier, TabularRegressor

__all__ = ["MLPClassifier", "MLPRegressor", "TabularClassifier", "TabularRegressor", "from_sklearn", "to_sklearn"]
