"""A layer that no machine holds: each rank has some of its units, and what the ranks say is added.

backprop launch -n 2 examples/ranks/split_layer.py

    h = a[β₁ + Ω₁ x]     rank r has some rows of Ω₁, so it makes some of the units h
    f = β₂ + Ω₂ h        and has the columns of Ω₂ that these meet: f is a sum over ranks, the only exchange
"""

import numpy as np
from mpi4py import MPI

import backprop as bp

D, H, K, EPOCHS = 64, 128, 10, 20


class SumOverRanks(bp.Layer):
    """f = Σᵣ hᵣ, on every rank; so ∂L/∂hᵣ = ∂L/∂f."""

    keeps_width = True

    def __init__(self, comm: MPI.Comm) -> None:
        self.comm = comm

    def forward(self, h: np.ndarray) -> np.ndarray:
        """The sum, in the order of the ranks on each of them."""
        parts = np.empty((self.comm.size, *h.shape), h.dtype)
        self.comm.Allgather(np.ascontiguousarray(h), parts)
        return parts.sum(axis=0)

    def backward(self, dL_df: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """As it came."""
        return dL_df, {}


def part_and_whole(comm: MPI.Comm) -> tuple[bp.Sequential, bp.Sequential]:
    """The part of this rank, with the numbers of the whole; and the whole, only to compare."""
    whole = bp.Sequential(bp.Linear(D, H), bp.ReLU(), bp.Linear(H, K), seed=0)
    mine = slice(H * comm.rank // comm.size, H * (comm.rank + 1) // comm.size)
    units = mine.stop - mine.start
    part = bp.Sequential(bp.Linear(D, units), bp.ReLU(), bp.Linear(units, K, bias=comm.rank == 0), SumOverRanks(comm))
    part.parameters["0.omega"] = whole.parameters["0.omega"][mine]
    part.parameters["2.omega"] = whole.parameters["2.omega"][:, mine]
    return part, whole


def main() -> None:
    """Train the parts, each by a trainer that knows nothing of the others, and the whole."""
    comm = MPI.COMM_WORLD
    X, y = bp.load_digits()
    X = (X / 16).astype(np.float32)
    part, whole = part_and_whole(comm)
    for net in (part, whole):
        trainer = bp.Trainer(net, bp.CrossEntropy(), bp.SGD(0.1), batch_size=64, seed=0, threads=1)
        trainer.fit(X, y, epochs=EPOCHS, verbose=0)
    f, expected = part.predict(X), whole.predict(X)
    told = f"{part.size:,} of {whole.size:,} parameters; right {np.mean(f.argmax(axis=1) == y):.1%}"
    apart = np.abs(f - expected).max() / np.abs(expected).max()
    print(f"rank {comm.rank}: {told}; from one process {apart:.0e} apart", flush=True)


if __name__ == "__main__":
    main()
