# %% [markdown]
# # 3. A linear layer
#
# f = β + Ω h for columns: h is (D, N), an example in each column, and f is (D′, N). Write the forward pass, then the backward
# pass, which gets ∂L/∂f and returns ∂L/∂h and the gradients of the parameters, by their names.
#
# The layer has more inputs than outputs, so shapes will tell you a lot. Put your answers in the place of each `...`.

# %%
import numpy as np

import backprop as bp
from backprop.testing import grade


class MyLinear(bp.Layer):
    def __init__(self, in_features, out_features):
        draw = np.random.default_rng(0)
        self.parameters["beta"] = draw.normal(size=out_features)
        self.parameters["omega"] = draw.normal(size=(out_features, in_features))

    def forward(self, h):
        self.h = h  # kept for the way back
        beta, omega = self.parameters["beta"][:, None], self.parameters["omega"]
        # your turn: β is a column here, (D′, 1)
        return beta + omega @ h
        # thank you

    def backward(self, dL_df):
        omega = self.parameters["omega"]
        # your turn: one line each, as on page 5 of the notes
        dL_dh = omega.T @ dL_df
        dL_dbeta = dL_df.sum(axis=1)
        dL_domega = dL_df @ self.h.T
        # thank you
        return dL_dh, {"beta": dL_dbeta, "omega": dL_domega}


# %%
examples = np.random.default_rng(1).normal(size=(4, 6))
grade_of_layer = grade(MyLinear(4, 3), examples)
print(grade_of_layer)

# %% [markdown]
# When all of it is right, your layer is as good as the library's: put two of them into a network, and train it.

# %%
if grade_of_layer:
    net = bp.Sequential(MyLinear(4, 8), bp.Tanh(), MyLinear(8, 1))
    X = np.random.default_rng(2).normal(size=(100, 4))
    history = bp.Trainer(net, bp.LeastSquares(), bp.Adam(0.01)).fit(X, X[:, 0] * X[:, 1], epochs=50, verbose=0)
    print(f"the loss went from {history[0].loss:.3f} to {history[-1].loss:.3f}")
