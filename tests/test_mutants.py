"""Every planted fault is caught and named; what the faults are planted in is right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mutants
import numpy as np
import pytest
from mutants import MUTANTS, Affine, K, N, Squares, between, data

import backprop as bp

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_fault_is_caught_and_named(name):
    mutant = MUTANTS[name]
    report = mutant.report()
    assert not report.passed, str(report)
    assert mutant.words in report.mistakes[0], str(report)
    assert mutant.place in report.mistakes[0], str(report)
    assert report.mistakes[0] in " ".join(str(report).split())  # whose lines are broken


RIGHT_LAYERS = {
    "Affine": Affine,
    "Tanh": bp.Tanh,
    "ReLU": bp.ReLU,
    "GELU": bp.GELU,
    "LeakyReLU": lambda: bp.LeakyReLU(0.1),
    "Dropout": lambda: bp.Dropout(0.2),
    "BatchNorm": lambda: bp.BatchNorm(4),
    "LayerNorm": lambda: bp.LayerNorm(4),
    "FanOut": lambda: bp.FanOut(bp.Linear(4, 2), bp.Linear(4, 2)),
    "FanOut that sums": lambda: bp.FanOut(bp.Tanh(), Affine(), join="sum"),
    "Residual": lambda: bp.Residual(bp.Sequential(bp.Linear(4, 4), bp.Tanh())),
}
RIGHT_FUNCTIONS = {
    "sin and L2": (lambda x: np.sin(x).sum() + 0.5 * (x**2).sum(), lambda x: np.cos(x) + x),
    "penalty": (mutants.penalty, mutants.penalty_gradient),
    "cos": (lambda x: np.cos(x).sum(), lambda x: -np.sin(x)),
}


@pytest.mark.parametrize("name", RIGHT_LAYERS)
def test_the_layers_that_faults_are_planted_in_are_right(name):
    assert mutants.of_layer(RIGHT_LAYERS[name])().passed


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("make", [Squares, bp.LeastSquares, lambda: bp.Huber(0.3)])
def test_the_losses_that_faults_are_planted_in_are_right(make, weighted):
    assert mutants.of_loss(make, weighted)().passed


@pytest.mark.parametrize("name", RIGHT_FUNCTIONS)
def test_the_functions_that_faults_are_planted_in_are_right(name):
    assert mutants.of_function(*RIGHT_FUNCTIONS[name])().passed


def test_forgotten_weights_show_only_where_there_are_weights():
    y = np.random.default_rng(0).normal(size=(N, K))
    assert bp.check_gradients(between(bp.Tanh()), mutants.WeightsForgotten(), data()[0], y).passed


def test_the_table_is_a_script():
    run = subprocess.run(
        [sys.executable, ROOT / "tests" / "mutants.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == f"{len(MUTANTS)} mutants"
    assert "NO" not in run.stdout


def test_the_script_says_so_where_a_fault_is_missed(monkeypatch):
    missed = mutants.Mutant(mutants.of_layer(bp.Tanh), "anything")
    monkeypatch.setattr(mutants, "MUTANTS", {"a fault that is none": missed})
    text, good = mutants.table()
    assert not good
    assert "a fault that is none" in text
    assert "NO" in text


def test_there_are_many():
    assert len(MUTANTS) >= 50
