# %% [markdown]
# # 1. The gradient of a line
#
# A line f = φ₀ + φ₁ x is fitted to points by least squares, L = Σ (φ₀ + φ₁ x − y)². The first page of the notes has all you need.
#
# Put your answers in the place of each `...`. The last cell of a part says whether they are right, and where they are not.

# %%
import numpy as np

import backprop as bp
from backprop.testing import grade

x = np.array([0.1, 0.5, 0.9, 1.4, 1.9])
y = np.array([0.7, 1.0, 1.5, 1.6, 1.8])

# %% [markdown]
# ## The loss
#
# `phi` is an array of two numbers. Return L, one number.


# %%
def L(phi):
    # your turn
    return float(((phi[0] + phi[1] * x - y) ** 2).sum())
    # thank you


# %%
line, squares = bp.Sequential(bp.Linear(1, 1), dtype="float64"), bp.LeastSquares(reduction="sum")
found, right = {}, {}
for name, phi in {"L at (0, 0)": np.array([0.0, 0.0]), "L at (0.6, −0.2)": np.array([0.6, -0.2])}.items():
    line.phi[...] = phi
    found[name], right[name] = L(phi), squares.forward(line.forward(x[None]), y)
grade_of_loss = grade(found, right)
print(grade_of_loss)

# %% [markdown]
# ## The gradient
#
# Return an array in the shape of φ: the derivative of L by φ₀, then that by φ₁. It is compared with small changes of your own L.


# %%
def dL_dphi(phi):
    # your turn
    f = phi[0] + phi[1] * x
    return np.array([(2 * (f - y)).sum(), (2 * x * (f - y)).sum()])
    # thank you


# %%
grade_of_gradient = grade(dL_dphi, L, np.array([0.0, 0.0]), np.array([0.6, -0.2]))
print(grade_of_gradient)

# %% [markdown]
# ## A step down
#
# Start at φ = (0.6, −0.2) and go 100 steps with the learning rate 0.05. Where is φ then?

# %%
phi = np.array([0.6, -0.2])
for _ in range(100):
    # your turn
    phi = phi - 0.05 * dL_dphi(phi)
    # thank you

line.phi[...] = 0.6, -0.2
trainer = bp.Trainer(line, squares, bp.SGD(0.05), batch_size="full")
list(trainer.epochs(x[:, None], y, 100))
grade_of_descent = grade({"φ after 100 steps": phi}, {"φ after 100 steps": line.phi})
print(grade_of_descent)
