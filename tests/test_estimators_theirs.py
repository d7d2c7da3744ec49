"""Scikit-learn's own tests of its MLP, as they are installed, with these estimators in the place of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("sklearn", "1.9")  # the version whose tests were read

from sklearn import neural_network

# Those that differ, each with its reason; docs/use/estimators.md has the same table.
DIFFER = {"test_gradient": "calls a private function of scikit-learn's; here check_gradients proves each gradient"}
HOME = "from sklearn.neural_network import MLPClassifier, MLPRegressor\n"

source = Path(neural_network.__file__).parent / "tests" / "test_mlp.py"
if not source.exists():
    pytest.skip("scikit-learn was installed without its tests", allow_module_level=True)
text = source.read_text()
assert text.count(HOME) == 1
exec(compile(text.replace(HOME, HOME.replace("sklearn.neural_network", "backprop.estimators")), source, "exec"))
for name, reason in DIFFER.items():
    globals()[name] = pytest.mark.xfail(reason=reason, strict=True, raises=AttributeError)(globals()[name])

pytestmark = [  # as scikit-learn runs them
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("ignore::backprop.TrainingAdvice"),
]


@pytest.fixture
def global_random_seed():
    """What scikit-learn's own conftest gives."""
    return 0


def test_the_tests_are_there():
    """Of the module and no others: what is counted in docs/use/estimators.md."""
    own = [name for name in globals() if name.startswith("test_") and name != "test_the_tests_are_there"]
    assert len(own) == text.count("\ndef test_") >= 40
