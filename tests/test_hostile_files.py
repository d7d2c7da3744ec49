"""Networks, tables, estimators and checkpoints from files that somebody has altered, also with the right digest.

BACKPROP_THOROUGH=1 tries 100,000 mutants of each kind and every replacement.
"""

import json
import os
import tracemalloc

import numpy as np
import pytest
from forgery import forge, mutated, parts, sign

import backprop as bp
from backprop.files import container

pytest.importorskip("sklearn", "1.7")
pd = pytest.importorskip("pandas")
from backprop.estimators import MLPClassifier, MLPRegressor  # noqa: E402

# Two epochs do not converge, and an altered file says that it is from another machine.
pytestmark = pytest.mark.filterwarnings("ignore")

THOROUGH = bool(os.environ.get("BACKPROP_THOROUGH"))
MUTANTS = 100_000 if THOROUGH else 300
EVERY = 1 if THOROUGH else 37  # of the replacements, so many are left out
N = 24
X = np.random.default_rng(0).normal(size=(N, 2))
FRAME = pd.DataFrame({"size": X[:, 0], "town": ["Bonn", "Ulm"] * (N // 2)})


def network(path):
    table = bp.Table(target="rent")
    table.fit(FRAME.assign(rent=X[:, 1]))
    bp.Sequential(bp.Linear(3, 2), bp.BatchNorm(2), bp.Residual(bp.Linear(2, 2)), seed=0).save(path, table=table)


def regressor(path):
    model = MLPRegressor(hidden_layer_sizes=(2,), max_iter=2, scale_inputs=True, scale_targets=True, random_state=0)
    model.fit(X, X @ [1.0, 2.0]).save(path)


def classifier(path):
    activation = bp.ELU(0.5)
    model = MLPClassifier((2,), activation, max_iter=2, early_stopping=True, random_state=0)
    model.fit(FRAME, np.array(["a", "b", "c"] * (N // 3))).save(path)


def checkpoint(path):
    net = bp.Sequential(bp.Linear(2, 2), bp.Dropout(0.1), bp.Linear(2, 1), seed=0)
    optimizer = bp.Adam(bp.ReduceOnPlateau(0.01))
    trainer = bp.Trainer(net, bp.LeastSquares(), optimizer, constraints={"*.omega": bp.MaxNorm(2.0)})
    callbacks = [bp.EarlyStopping(), bp.Checkpoints(path)]
    trainer.fit(X, X[:, :1], epochs=2, validation_data=(X, X[:, :1]), callbacks=callbacks, verbose=0)


KINDS = {
    "network": (network, bp.Sequential.load),
    "table": (network, bp.Table.load),
    "regressor": (regressor, MLPRegressor.load),
    "classifier": (classifier, MLPClassifier.load),
    "checkpoint": (checkpoint, bp.Trainer.resume),
}
DEEP = "[" * 150 + "]" * 150
HOSTILE = [
    *(None, True, -1, 1e308, 10**90, "", "nan", "<U100000000", "V2000000000", "|O", "x" * 50_000, list(range(3000))),
    *([], ["nan"], [[1]], json.loads(DEEP), {}, {"a": 1}, {"float": "inf"}, {"tuple": [10**9, 10**9]}),
    {"class": "Linear", "arguments": {"in_features": 10**9, "out_features": 10**9}},
    {"class": "MLPRegressor", "arguments": {}},
    {"class": "Loss", "arguments": {}},
]


@pytest.fixture(scope="module", params=KINDS)
def saved(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / "saved"
    make, load = KINDS[request.param]
    make(path)
    load(path)
    return path, path.read_bytes(), load


def outcome(path, data, load):
    """What became of a file: the object, or the text of its error."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    try:
        return load(path)
    except bp.FileFormatError as error:
        text, start = str(error), f"{path}: "
    except TypeError as error:  # net=… is to be handed in, because it was no data
        text, start = str(error), f"Trainer.resume({os.fspath(path)!r}): expected "
    assert text.startswith(start)
    assert len(text) < 1200
    return text


def places(data, path=()):
    """The way to each value inside plain data, at most three of each list."""
    if isinstance(data, dict | list):
        items = data.items() if isinstance(data, dict) else list(enumerate(data))[:3]
        for key, value in items:
            yield (*path, key)
            yield from places(value, (*path, key))


def inside(data, path):
    for key in path:
        data = data[key]
    return data


def test_random_mutants(saved):
    path, data, load = saved
    generator = np.random.default_rng(0)
    for _ in range(MUTANTS):
        if (mutant := mutated(data, generator)) != data:
            assert isinstance(outcome(path, mutant, load), str)


def test_random_mutants_that_are_signed_again(saved):
    path, data, load = saved
    generator = np.random.default_rng(1)
    found = [isinstance(outcome(path, sign(mutated(data, generator)), load), str) for _ in range(MUTANTS)]
    assert any(found)


def test_anything_in_any_place(saved):
    path, data, load = saved
    about = parts(data)[0]
    cases = [(place, value) for place in places(about) for value in [*HOSTILE, ...]]
    for place, value in cases[::EVERY]:

        def change(about, header, place=place, value=value):
            *where, last = place
            if value is ...:
                del inside(about, where)[last]
            else:
                inside(about, where)[last] = value

        outcome(path, forge(data, change), load)


@pytest.mark.parametrize("dtype", ["<U100000000", "|S2000000000", "|V2000000000", "<U0", "<i1", "<M8[s]", "<c16"])
def test_classes_take_no_room_that_a_file_only_claims(dtype, tmp_path):
    path = tmp_path / "model"
    model = MLPClassifier((2,), max_iter=1, random_state=0)
    model.fit(X, np.where(X[:, 0] > 0, 300, 4)).save(path)
    data = forge(path.read_bytes(), lambda about, header: about["story"]["classes_"].update(dtype=dtype))
    tracemalloc.start()
    found = outcome(path, data, MLPClassifier.load)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "classes_" in found
    assert peak < 2 * len(data) + (16 << 20)


def test_wide_text_is_narrowed(tmp_path):
    path = tmp_path / "model"
    classifier(path)
    data = forge(path.read_bytes(), lambda about, header: about["story"]["classes_"].update(dtype="<U100000000"))
    tracemalloc.start()
    found = outcome(path, data, MLPClassifier.load)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.classes_.dtype == "<U1"
    assert peak < 2 * len(data) + (16 << 20)


@pytest.mark.parametrize("activation", ["logistic", "softmax"])
@pytest.mark.parametrize("name", ["n_outputs_", "n_features_in_", "n_layers_", "n_iter_", "t_", "_targets"])
@pytest.mark.parametrize("make", [classifier, regressor])
def test_counts_take_no_room_that_a_file_only_claims(make, name, activation, tmp_path):
    path = tmp_path / "model"
    make(path)
    story = {name: 30_000_000, "out_activation_": activation}
    data = forge(path.read_bytes(), lambda about, header: about["story"].update(story))
    tracemalloc.start()
    outcome(path, data, KINDS[make.__name__][1])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * len(data) + (16 << 20)


STORIES = {
    "features": {"n_features_in_": 3},
    "outputs": {"n_outputs_": 2},
    "count": {"n_iter_": "two"},
    "curve": {"loss_curve_": [1.0, "x"]},
    "activation": {"out_activation_": "softmax"},
    "targets": {"_targets": 7},
    "method": {"predict": 1},
}


@pytest.mark.parametrize("story", STORIES)
def test_a_story_that_does_not_fit_the_network(story, tmp_path):
    path = tmp_path / "model"
    regressor(path)
    data = forge(path.read_bytes(), lambda about, header: about["story"].update(STORIES[story]))
    if story == "activation":  # which a regressor finds in its loss
        assert outcome(path, data, MLPRegressor.load).out_activation_ == "identity"
    else:
        assert isinstance(outcome(path, data, MLPRegressor.load), str)


@pytest.mark.parametrize("name", ["inputs.scale", "targets.mean", "0.weight"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
def test_scalings_and_weights_are_numbers_to_count_with(name, value, tmp_path):
    path = tmp_path / "model"
    regressor(path)
    about, arrays = container.read(path, "estimator")
    arrays[name] = np.full_like(arrays[name], value)
    container.write(path, "estimator", about, arrays)
    good = np.isfinite(value) and (name != "inputs.scale" or value == 0)  # 0 is that of a constant column
    assert isinstance(outcome(path, path.read_bytes(), MLPRegressor.load), MLPRegressor if good else str)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_checkpoint_of_weights_that_are_not_finite(value, tmp_path):
    path = tmp_path / "run"
    checkpoint(path)
    about, arrays = container.read(path, "checkpoint")
    arrays["0.weight"][0, 0] = value
    container.write(path, "checkpoint", about, arrays)
    assert "finite numbers in '0.weight'" in outcome(path, path.read_bytes(), bp.Trainer.resume)


@pytest.mark.parametrize("depth", [150, 250, 2000])
def test_data_nested_deeply(depth, tmp_path):
    path = tmp_path / "run"
    checkpoint(path)
    deep = json.loads("[" * min(depth, 900) + "]" * min(depth, 900))
    data = forge(path.read_bytes(), lambda about, header: about["notes"].update(deep=deep))
    found = outcome(path, data, bp.Trainer.resume)
    assert isinstance(found, str if depth > 200 else bp.Trainer)
    if depth > 200:
        assert "nested too deeply" in found
        with pytest.raises(ValueError, match="levels"):
            container.write(path, "checkpoint", {"deep": deep}, {})
