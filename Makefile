# Every target makes its own .venv and needs nothing but Python and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: slides exercises demo test test-all test-whole test-oldest thorough check format mutants bench docs look pictures dist clean
demo: .venv/plots
	$(BIN)/python -m backprop demo

test: .venv/dev
	$(BIN)/python -m pytest -n auto $(addprefix --ignore=,$(SLOWER) tests/test_rows.py) tests backprop

# The benchmarks once, small, the pages and the site, a class, the examples, pictures, Dask, planted faults, what scikit-learn asks
# of estimators, tables, ranks and how they die (BACKPROP_TEAM=1 tries all their cases).
SLOWER := $(addprefix tests/test_,$(addsuffix .py,benchmarks class cli_held_out deaths docs estimators_resuming estimators_sklearn estimators_tabular \
	estimators_tabular_checks estimators_theirs examples launch migrate mutants notes_pages partitions plots ranks site))

# What is slower: these, many more random programs, all odd files, tens of millions of rows, and what needs PyTorch or Dask.
# `make test-whole` tries several times as many random nets, programs and steps, of which these are the first ones.
NESTS ?= 500
NETWORKS ?= 900
PROGRAMS ?= 300
STEPS ?= 5000
test-whole:
	$(MAKE) test-all NESTS=1500 NETWORKS=3000 PROGRAMS=1000 STEPS=20000

test-all: .venv/dev .venv/test-torch .venv/test-dask
	$(BIN)/python -m pytest -n auto $(SLOWER)
	BACKPROP_NESTS=$(NESTS) $(BIN)/python -m pytest -n auto tests/test_nests.py
	BACKPROP_TABLES=1 $(BIN)/python -m pytest -n auto tests/test_hostile_tables.py tests/test_spreadsheets.py tests/test_written.py
	BACKPROP_NETWORKS=$(NETWORKS) $(BIN)/python -m pytest -n auto tests/test_check_gradients.py
	BACKPROP_ROWS=1 $(BIN)/python -m pytest tests/test_rows.py
	BACKPROP_NATIVE_PROGRAMS=$(PROGRAMS) BACKPROP_NATIVE_STEPS=$(STEPS) $(BIN)/python -m pytest -n auto tests/test_native.py
	for n in 0 1; do BACKPROP_NATIVE=$$n $(BIN)/python -m pytest -n auto $(TRAINING) || exit 1; done
	$(BIN)/python tests/sanitized.py
	$(BIN)/python -m pytest -n auto tests/test_curvature.py tests/test_exports.py tests/test_regularization.py

TRAINING := $(addprefix tests/test_,$(addsuffix .py,trainer engine weights checkpoints callbacks settable spellings recomputation \
	regularization yesterday minimize sequential optimizers))

# The suite with the oldest versions that pyproject.toml promises, for each Python that there is: about 5 minutes each.
test-oldest: .venv/dev
	$(BIN)/python tests/oldest.py

# The long hunts, for as many minutes as wanted; what fails is printed with the number that repeats it.
MINUTES ?= 10
SEED ?= $(shell date +%s)
thorough: .venv/dev .venv/test-torch
	$(BIN)/python tests/thorough.py --minutes $(MINUTES) --seed $(SEED)

check: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --cache-dir .cache/imports
	$(BIN)/mypy

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

mutants: .venv/dev
	$(BIN)/python tests/mutants.py

bench: .venv/bench
	for name in batch_size curvature estimators exports generated latency memory per_example second_order tables ranks reproducible peers; do $(BIN)/python benchmarks/$$name.py || exit 1; done

docs: .venv/dev
	$(BIN)/python docs/build.py
	$(BIN)/python -m pytest tests/test_docs.py tests/test_site.py

# Photographs of the site, if there is a Chromium, and what looks wrong in them.
look: .venv/dev
	$(BIN)/python docs/build.py
	$(BIN)/python docs/look.py

# The notes as slides, in out/slides; the exercises' notebooks, made anew, with solutions in out/solutions.
slides: .venv/dev
	$(BIN)/python docs/slides.py

exercises: .venv/dev
	$(BIN)/python docs/exercises.py --solutions out/solutions

# The pictures of the pages, drawn anew by the pages themselves.
pictures: .venv/dev
	$(BIN)/python docs/pictures.py

# What is uploaded, made and tried: an archive with tests that run from it, and a wheel in a fresh environment.
dist: .venv/dev .venv/dist
	$(BIN)/python tests/dist.py $(if $(ADDRESS),--address $(ADDRESS))

.venv/bin/python:
	$(PYTHON) -m venv .venv

# One stamp file per set of extras; `pip install -e` runs again when pyproject.toml or the native player changes.
.venv/%: pyproject.toml backprop/engine/native/player.c | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	@touch $@

clean:
	rm -rf .venv .cache out build dist *.egg-info
