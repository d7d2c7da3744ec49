# %% [markdown]
# # 2. The toy network, by hand
#
# f = β₃ + ω₃ cos[β₂ + ω₂ exp[β₁ + ω₁ sin[β₀ + ω₀ x]]], with ℓ = (f − y)² for one pair x, y. Compute all of it with a
# pencil's worth of Python: forward, backward, and the parameters.
#
# Put your answers in the place of each `...`. Cells that print a grade say whether they are right, and where they are not.

# %%
import numpy as np

import backprop as bp
from backprop.testing import grade

beta, omega = [0.5, -0.2, 1.5, -1.0], [0.8, 0.6, -0.7, 2.0]
x, y = 1.1, 0.5

toy = bp.Sequential(
    *(bp.Linear(1, 1), bp.Sin(), bp.Linear(1, 1), bp.Exp()),
    *(bp.Linear(1, 1), bp.Cos(), bp.Linear(1, 1)),
    dtype="float64",
)
toy.phi[0::2], toy.phi[1::2] = beta, omega
right = bp.explain(toy, bp.LeastSquares(), X=[[x]], y=[y]).numbers

# %% [markdown]
# ## Forward
#
# One line for each, from x to ℓ. Keep them all: the way back asks for them.

# %%
# your turn
f_0 = beta[0] + omega[0] * x
h_1 = np.sin(f_0)
f_1 = beta[1] + omega[1] * h_1
h_2 = np.exp(f_1)
f_2 = beta[2] + omega[2] * h_2
h_3 = np.cos(f_2)
f_3 = beta[3] + omega[3] * h_3
ell = (f_3 - y) ** 2
# thank you

# %%
forward = {"f_0": f_0, "h_1": h_1, "f_1": f_1, "h_2": h_2, "f_2": f_2, "h_3": h_3, "f_3": f_3, "ℓ": ell}
grade_of_forward = grade(forward, {name: right[name] for name in forward})
print(grade_of_forward)

# %% [markdown]
# ## Backward
#
# Begin at the end. Each derivative is one local factor times the one before it.

# %%
# your turn
dl_df_3 = 2 * (f_3 - y)
dl_dh_3 = omega[3] * dl_df_3
dl_df_2 = -np.sin(f_2) * dl_dh_3
dl_dh_2 = omega[2] * dl_df_2
dl_df_1 = np.exp(f_1) * dl_dh_2
dl_dh_1 = omega[1] * dl_df_1
dl_df_0 = np.cos(f_0) * dl_dh_1
# thank you

# %%
backward = {"∂L/∂f_3": dl_df_3, "∂L/∂h_3": dl_dh_3, "∂L/∂f_2": dl_df_2, "∂L/∂h_2": dl_dh_2}
backward |= {"∂L/∂f_1": dl_df_1, "∂L/∂h_1": dl_dh_1, "∂L/∂f_0": dl_df_0}
grade_of_backward = grade(backward, {name: right[name] for name in backward})
print(grade_of_backward)

# %% [markdown]
# ## The parameters
#
# Eight derivatives, each with one more factor, which may be 1.

# %%
# your turn
dl_dbeta = [dl_df_0, dl_df_1, dl_df_2, dl_df_3]
dl_domega = [x * dl_df_0, h_1 * dl_df_1, h_2 * dl_df_2, h_3 * dl_df_3]
# thank you

# %%
parameters = {}
for k in range(4):
    parameters[f"∂L/∂β_{k}"] = dl_dbeta[k] if dl_dbeta is not ... else ...
    parameters[f"∂L/∂Ω_{k}"] = dl_domega[k] if dl_domega is not ... else ...
grade_of_parameters = grade(parameters, {name: right[name] for name in parameters})
print(grade_of_parameters)
