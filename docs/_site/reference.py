"""The reference: one page for each family of public names, made of their docstrings."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import FunctionType

import backprop

# page -> title, its opening sentence, and the modules whose names it has
PAGES = {
    "networks": ("Networks and layers", "What a network is made of, in columns.", ["sequential", "layers"]),
    "losses": ("Losses", "How far outputs are from targets.", ["losses"]),
    "initializers": ("Initializers", "Where weights start.", ["initializers"]),
    "optimizers": (
        "Optimizers, schedules, constraints",
        "How parameters move, how fast, and within which bounds.",
        ["optimizers", "schedules", "constraints"],
    ),
    "training": (
        "Training",
        "Minibatch descent, callbacks and loggers, all-at-once minimization, advice.",
        ["training"],
    ),
    "gradients": ("Gradients and curvature", "What the gradient is, and proof of it.", ["gradients", "autodiff"]),
    "data": ("Data", "Tables, files of rows, and the digits that come along.", ["tables", "datasets"]),
    "files": (
        "Files and exports",
        "Weights and networks in files, and in other programs.",
        ["formats", "files", "predictor"],
    ),
    "estimators": ("Estimators", "scikit-learn's interface; import them from `backprop.estimators`.", ["estimators"]),
    "plots": ("Plots", "Pictures; call them as `bp.plots.weights(…)`.", ["plots"]),
    "testing": ("Testing", "Tests for parts of your own; import them from `backprop.testing`.", ["testing"]),
}
INSIDE = "bind, chain, reseed, backward_child"  # what layers do for the engine, and nobody else calls
OF_ITS_OWN = ("estimators", "plots", "testing")  # modules whose names are not at the top


def names(module: str) -> list[str]:
    """The full public names of a module: those at the top first, in their order there, then what they return."""
    at_top = backprop._HOMES[module]
    inside = getattr(import_module(f"backprop.{module}"), "__all__", [])
    rest = inside if module in OF_ITS_OWN else [name for name in inside if name not in backprop.__all__]
    rest = [
        name for name in rest if isinstance(getattr(import_module(f"backprop.{module}"), name), (type, FunctionType))
    ]
    extra = [f"backprop.{module}.{name}" for name in rest]
    return (
        [f"backprop.{name}" for name in at_top] + extra + (["backprop.datasets.split"] if module == "datasets" else [])
    )


def short(full_name: str) -> str:
    """A full name as one writes it after `import backprop as bp`, without the bp."""
    return full_name.removeprefix("backprop.")


def entry(full_name: str) -> str:
    """The directive that shows one name."""
    module, _, name = full_name.rpartition(".")
    thing = getattr(import_module(module), name)
    kind = "autoexception" if isinstance(thing, type) and issubclass(thing, Exception) else "autofunction"
    if kind == "autofunction" and isinstance(thing, type):
        # scikit-learn's users look for fit at the estimator itself; layers would only repeat what Layer says.
        inherited = "   :inherited-members:\n" if ".estimators." in full_name else ""
        return f".. autoclass:: {full_name}\n   :members:\n   :exclude-members: {INSIDE}\n{inherited}"
    return f".. {kind}:: {full_name}\n"


def write_reference(target: Path) -> None:
    """Write the pages below `target`/reference, and hang them below the table of all names."""
    folder = target / "reference"
    folder.mkdir(parents=True, exist_ok=True)
    for page, (title, opening, modules) in PAGES.items():
        entries = "\n".join(entry(name) for module in modules for name in names(module))
        listed = " · ".join(f"`{short(name)}`" for module in modules for name in names(module))
        text = f"# {title}\n\n{opening}\n\n{listed}\n\n```{{eval-rst}}\n{entries}```\n"
        (folder / f"{page}.md").write_text(text, "utf-8")
    with (folder / "api.md").open("a", encoding="utf-8") as api:
        api.write("\n".join(["\n```{toctree}", ":hidden:", "", *PAGES, "```\n"]))
