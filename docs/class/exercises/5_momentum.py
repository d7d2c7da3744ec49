# %% [markdown]
# # 5. Momentum
#
# A rule of the library is a function of α, φ, the gradient and its own state, and changes φ *in place*, and its state, too. Write
# descent with a velocity: v ← μ v + ∂L/∂φ, then φ ← φ − α v.
#
# Put your answers in the place of each `...`.

# %%
import numpy as np

import backprop as bp
from backprop.testing import grade


class MyMomentum(bp.Optimizer):
    slots = ("velocity",)  # arrays in the shape of φ, 0 at the beginning; `update` gets them after g

    def __init__(self, learning_rate, momentum=0.9):
        super().__init__(learning_rate)
        self.momentum = momentum

    def update(self, alpha, phi, g, velocity):
        # your turn: two lines, both in place: velocity[...] = …, phi -= …
        velocity[...] = self.momentum * velocity + g
        phi -= alpha * velocity
        # thank you


# %%
def steps(rule):
    phi, found = np.array([1.0, -2.0, 3.0]), {}
    for k, g in enumerate(np.random.default_rng(0).normal(size=(3, 3)), 1):
        rule.step(phi, g)
        found[f"φ after step {k}"] = phi.copy()
    return found


grade_of_rule = grade(steps(MyMomentum(0.05, momentum=0.5)), steps(bp.SGD(0.05, momentum=0.5)))
print(grade_of_rule)

# %% [markdown]
# And what the library asks of any optimizer: that it goes down, trains a network, and remembers nothing but its state.

# %%
grade_of_optimizer = grade(MyMomentum(0.05, momentum=0.5))
print(grade_of_optimizer)

# %% [markdown]
# ## Where does it arrive?
#
# The valley L = ½ (φ₀² + 50 φ₁²) has the gradient (φ₀, 50 φ₁). From (10, 1), where is φ after three steps with α = 0.02 and
# μ = 0.5? Work it out on paper, or let your rule do it.

# %%
phi, rule = np.array([10.0, 1.0]), MyMomentum(0.02, momentum=0.5)
for _ in range(3):
    rule.step(phi, np.array([1.0, 50.0]) * phi)

# your turn: φ after these steps, as an array
where = phi.copy()
# thank you

expected, theirs = np.array([10.0, 1.0]), bp.SGD(0.02, momentum=0.5)
for _ in range(3):
    theirs.step(expected, np.array([1.0, 50.0]) * expected)
grade_of_place = grade({"φ after three steps": where}, {"φ after three steps": expected})
print(grade_of_place)
