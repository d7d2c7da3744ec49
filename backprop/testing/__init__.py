"""The tests of the library for a layer, a loss or an optimizer of one's own, in one line, and strategies for Hypothesis.

    assert_layer(layer, h)         every promise that a layer makes, on examples like those in h (D, N)
    assert_loss(loss, f, y)        the same for a loss, on outputs f (K, N) and targets y, one per column
    assert_optimizer(optimizer)    the same for an optimizer
    grade(answer, …)               an exercise: whether an answer is right and where it is not, but not what would be right

The promises are asked in the order of the tables `LAYER`, `LOSS` and `OPTIMIZER`, and the first fault found is the text of the
AssertionError. All of them run on copies.
"""

from backprop.testing.grading import Grade, Mark, grade
from backprop.testing.layer import assert_layer
from backprop.testing.loss import assert_loss
from backprop.testing.optimizer import assert_optimizer
from backprop.testing.strategies import inputs, losses, networks, sample_weights, targets

__all__ = [
    "Grade",
    "Mark",
    "assert_layer",
    "assert_loss",
    "assert_optimizer",
    "grade",
    "inputs",
    "losses",
    "networks",
    "sample_weights",
    "targets",
]
