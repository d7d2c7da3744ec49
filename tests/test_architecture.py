"""The house rules: what `import backprop` costs, which floor may import which, and what no file may contain."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import backprop as bp

ROOT = Path(bp.__file__).parent
PROJECT = ROOT.parent
FILES = {
    ".".join(("backprop", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}
HEAVY = ["scipy", "sklearn", "matplotlib", "torch", "tqdm", "safetensors", "threadpoolctl", "pandas", "jax", "mpi4py"]
MOST_LINES = 45
ABOVE = ("predictor",)  # homes that stand on the command line; what `bp.` means below must not be theirs


def modules_after(program):
    """The modules in memory after a program, in a process of its own."""
    program = f"import sys, json\nbefore = set(sys.modules)\n{program}\nprint(json.dumps([*set(sys.modules) - before]))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout))


class TestImport:
    def test_is_light(self):
        found = modules_after("import backprop")
        assert {name for name in found if name.partition(".")[0] == "backprop"} == {"backprop"}
        assert len(found) <= 10, sorted(found)

    @pytest.mark.parametrize(
        "program",
        [
            "import backprop",
            "import backprop; dir(backprop); backprop.__version__",
            "from backprop import Sequential, Linear, CrossEntropy, SGD, Trainer",
            "from backprop import *",
            "import backprop as bp\nbp.Sequential(bp.Linear(3, 2), seed=0).predict([[1, 2, 3]])",
        ],
        ids=["the package", "its version", "some names", "all names", "a prediction"],
    )
    def test_brings_nothing_heavy(self, program):
        found = {name.partition(".")[0] for name in modules_after(program)}
        assert found.isdisjoint(HEAVY), sorted(found & set(HEAVY))


class TestNames:
    def test_all_is_sorted_and_without_doubles(self):
        assert sorted(set(bp.__all__)) == list(bp.__all__)
        assert set(bp.__all__) <= set(dir(bp))
        assert "__all__" in dir(bp)
        assert len(bp.__dir__()) == len(set(bp.__dir__()))

    @pytest.mark.parametrize("name", bp.__all__)
    def test_every_name_resolves_and_is_documented(self, name):
        thing = getattr(bp, name)
        assert thing.__name__ == name
        assert inspect.getdoc(thing)
        assert (thing.__doc__ or "").strip(), "a docstring of its own, not an inherited one"

    @pytest.mark.parametrize("name", bp.__all__)
    def test_public_methods_are_documented(self, name):
        thing = getattr(bp, name)
        for attribute, value in vars(thing).items() if isinstance(thing, type) else ():
            if not attribute.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                assert inspect.getdoc(getattr(thing, attribute)), f"{name}.{attribute}"

    @pytest.mark.parametrize("name", bp.__all__)
    def test_every_name_is_in_the_reference(self, name):
        text = (PROJECT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
        assert re.search(rf"`(?:bp\.)?{name}\b[^`]*`", text)

    def test_modules_list_what_the_package_offers(self):
        for module, names in bp._HOMES.items():
            home = import_module(f"backprop.{module}")
            missing = set(names) - set(getattr(home, "__all__", names))
            assert not missing, f"backprop.{module}.__all__ lacks {sorted(missing)}"

    @pytest.mark.parametrize("name", ["Lineer", "linear", "__nothing__"])
    def test_unknown_names_list_the_known_ones(self, name):
        with pytest.raises(AttributeError, match=rf"no attribute '{name}'") as caught:
            getattr(bp, name)
        assert all(known in str(caught.value) for known in bp.__all__)

    def test_the_version_is_that_of_the_project(self):
        project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert bp.__version__ == project["version"]


def floors():
    """Module -> floor, counted from the top, as pyproject.toml lists them."""
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [
        contract for contract in settings["tool"]["importlinter"]["contracts"] if contract["type"] == "layers"
    ]
    return {
        module.strip(" ()"): floor
        for floor, modules in enumerate(contract["layers"])
        for module in re.split(r"[|:]", modules)
    }


def floor_of(module):
    """The floor of a module or of the package it is in; None for `backprop` itself."""
    found = floors()
    parts = module.split(".")
    return next((found[".".join(parts[:n])] for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in found), None)


def imports(tree):
    """Modules imported when a file is loaded: not inside functions, nor for type checkers alone."""
    left = list(tree.body)
    while left:
        node = left.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            left.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports here are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((node.lineno, name if name in FILES else node.module) for name in names)
        else:
            left.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt))


class TestFloors:
    @pytest.mark.parametrize("module", [module for module in FILES if module != "backprop"])
    def test_every_module_has_one(self, module):
        assert floor_of(module) is not None, f"{module} is in no layer of pyproject.toml"

    @pytest.mark.parametrize("module", FILES)
    def test_imports_go_down(self, module):
        own = floor_of(module)
        doors = min(floor_of(f"backprop.{home}") for home in bp._HOMES if home not in ABOVE)
        for line, imported in imports(TREES[module]):
            if imported.partition(".")[0] != "backprop":
                continue
            assert own is not None, f"{module}:{line} must not import at load time"
            below = doors if imported == "backprop" else floor_of(imported)
            together = floors_name(module) == floors_name(imported)
            assert below > own or together, f"{module}:{line} imports {imported}, which is not below it"
        used = {node.attr for node in ast.walk(TREES[module]) if isinstance(node, ast.Attribute)}
        assert own is None or own <= floor_of("backprop.predictor") or "Predictor" not in used

    def test_the_walk_sees_what_it_should(self):
        tree = ast.parse(
            "import a\nif TYPE_CHECKING:\n    import b\ntry:\n    import c\nexcept E:\n    pass\n"
            "def f():\n    import d\nfrom backprop import checks, Linear\n"
        )
        assert sorted(name for _, name in imports(tree)) == ["a", "backprop", "backprop.checks", "c"]

    def test_the_chalkboard_does_not_know_the_engine(self):
        chalkboard = ("layers", "losses", "optimizers", "schedules", "initializers", "autodiff")
        found = [
            f"{module} imports {name}"
            for module, tree in TREES.items()
            if module.split(".")[1:2] and module.split(".")[1] in chalkboard
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            if name.startswith("backprop.engine") or name == "engine"
        ]
        assert found == []

    def test_the_ground_imports_nothing_of_the_house(self):
        rooms = {"arrays": set(), "signs": set(), "checks": {"backprop.arrays", "backprop.signs"}}
        for room, below in rooms.items():
            found = {name for _, name in imports(TREES[f"backprop.{room}"]) if name.startswith("backprop.")}
            assert found <= below


def floors_name(module):
    """The entry of the contract a module falls under."""
    found = floors()
    parts = module.split(".")
    return next((".".join(parts[:n]) for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in found), module)


def nodes(*kinds):
    """(module, node) for every node of these kinds."""
    return [(m, node) for m, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, kinds)]


def body_lines(function):
    """Lines of a function without its docstring."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        lines -= function.body[0].end_lineno - function.body[0].lineno + 1
    return lines


class TestHabits:
    def test_no_assert(self):
        assert [f"{module}:{node.lineno}" for module, node in nodes(ast.Assert)] == []

    @pytest.mark.parametrize("banned", ["pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"])
    def test_files_are_data_only(self, banned):
        found = [
            f"{module}:{node.lineno}"
            for module, node in nodes(ast.Import, ast.ImportFrom)
            for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            if name.partition(".")[0] == banned
        ]
        assert found == []

    def test_numpy_files_hold_no_objects(self):
        for module, node in nodes(ast.Call):
            if ast.unparse(node.func) in ("np.load", "numpy.load"):
                values = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert values.get("allow_pickle", "False") == "False", f"{module}:{node.lineno}"
            assert ast.unparse(node.func) not in ("eval", "exec", "torch.load"), f"{module}:{node.lineno}"

    def test_the_chalkboard_is_plain_expressions(self):
        """Where results go in memory is the engine's business."""
        chalkboard = ("backprop.layers", "backprop.losses", "backprop.optimizers", "backprop.functions")
        found = [
            f"{module}:{node.lineno}"
            for module, node in nodes(ast.Call)
            if module.startswith(chalkboard)
            and (any(keyword.arg == "out" for keyword in node.keywords) or ast.unparse(node.func) == "np.copyto")
        ]
        assert found == []

    def test_randomness_is_an_explicit_generator(self):
        allowed = {"Generator", "default_rng", "SeedSequence", "Philox", "PCG64", "BitGenerator"}
        found = [
            f"{module}:{node.lineno} {ast.unparse(node)}"
            for module, node in nodes(ast.Attribute)
            if ast.unparse(node.value) in ("np.random", "numpy.random") and node.attr not in allowed
        ]
        found += [
            f"{module}:{node.lineno}"
            for module, node in nodes(ast.Import, ast.ImportFrom)
            if "random" in (getattr(node, "module", None), *(alias.name for alias in node.names))
        ]
        assert found == []

    def test_nothing_is_printed_below_the_doors(self):
        doors = {"backprop.__main__", "backprop.demo", "backprop.cli", "backprop.estimators.base"}
        doors |= {"backprop.gradients.explain"}  # Explanation.walk prints because it is asked to
        found = [
            f"{module}:{node.lineno}"
            for module, node in nodes(ast.Call)
            if ast.unparse(node.func) == "print" and module not in doors
        ]
        assert found == []

    @pytest.mark.parametrize("module", FILES)
    def test_functions_fit_on_a_screen(self, module):
        long = {
            node.name: body_lines(node)
            for node in ast.walk(TREES[module])
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and body_lines(node) > MOST_LINES
        }
        assert long == {}

    @pytest.mark.parametrize("module", FILES)
    def test_every_module_says_what_it_is(self, module):
        assert ast.get_docstring(TREES[module])
