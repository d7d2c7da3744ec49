"""A network that no machine holds: each rank has some of its layers, and the batch runs through them in small portions.

backprop launch -n 2 examples/ranks/pipeline.py
"""

import numpy as np
from mpi4py import MPI

import backprop as bp

WIDTHS = [64, 48, 48, 32, 10]  # four layers with weights: for one rank to four
N, PORTIONS, STEPS, RATE = 512, 4, 60, 0.2


class Linear(bp.Linear):
    """The library's, with ∂L/∂β as the product that the trainer makes of the sum: another last bit."""

    def backward(self, dL_df: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """∂L/∂β = ∂L/∂f 1."""
        dL_dh, gradients = super().backward(dL_df)
        return dL_dh, gradients | {"beta": dL_df @ np.ones(dL_df.shape[1], dL_df.dtype)}


def layers(first: int, stop: int, kind: type[bp.Linear]) -> bp.Sequential:
    """The layers with these numbers, the same on every rank."""
    made: list[bp.Layer] = []
    for k in range(first, stop):
        made += [kind(WIDTHS[k], WIDTHS[k + 1], seed=k), bp.ReLU()]
    return bp.Sequential(*made[: -1 if stop == len(WIDTHS) - 1 else None])


class Stage:
    """The layers of one rank. Of a portion it keeps nothing but the h that came in; the rest it computes again."""

    def __init__(self, comm: MPI.Comm) -> None:
        self.first, self.stop = ((len(WIDTHS) - 1) * rank // comm.size for rank in (comm.rank, comm.rank + 1))
        self.net, self.loss, self.comm = layers(self.first, self.stop, Linear), bp.CrossEntropy(), comm
        self.before = comm.rank - 1 if comm.rank else MPI.PROC_NULL  # nobody, to whom sending does nothing
        self.behind = comm.rank + 1 if comm.rank + 1 < comm.size else MPI.PROC_NULL

    def step(self, X: np.ndarray, y: np.ndarray) -> None:
        """All portions forward, then all of them backward, and each rank moves its own φ."""
        kept, found = [], []
        for rows in np.split(X, PORTIONS):
            h = np.empty((WIDTHS[self.first], len(rows)), np.float32) if self.first else np.ascontiguousarray(rows.T)
            self.comm.Recv(h, self.before)
            kept.append(h)
            self.comm.Send(self.net.infer(h), self.behind)
        for h, answers in zip(kept, np.split(y, PORTIONS), strict=True):
            f = self.net.forward(h)
            dL_df = np.empty_like(f)
            if self.behind == MPI.PROC_NULL:
                self.loss.forward(f, answers)
                dL_df = self.loss.backward() / np.float32(PORTIONS)  # the batch's mean is that of its portions' means
            self.comm.Recv(dL_df, self.behind)
            dL_dh, gradients = self.net.backward(dL_df)
            found.append(gradients.dL_dphi)
            self.comm.Send(np.ascontiguousarray(dL_dh), self.before)
        while len(found) > 1:  # in pairs, as the trainer adds its shards
            found = [a + b for a, b in zip(found[::2], found[1::2], strict=True)]
        self.net.phi -= np.float32(RATE) * found[0]


def main() -> None:
    """Train a pipeline; and the whole network in one process, which this one is small enough for."""
    X, y = bp.load_digits()
    X, y = (X[:N] / 16).astype(np.float32), y[:N]
    stage, whole = Stage(MPI.COMM_WORLD), layers(0, len(WIDTHS) - 1, bp.Linear)
    for _ in range(STEPS):
        stage.step(X, y)
    options = {"batch_size": N, "shards": PORTIONS, "shuffle": False, "threads": 1}
    bp.Trainer(whole, bp.CrossEntropy(), bp.SGD(RATE), **options).fit(X, y, epochs=STEPS, verbose=0)
    own = [p for name, p in whole.parameters.items() if stage.first <= int(name.split(".")[0]) // 2 < stage.stop]
    same = all(map(np.array_equal, stage.net.parameters.values(), own))
    print(f"rank {stage.comm.rank}: {stage.net.size:,} parameters of {whole.size:,}; the bits of one process: {same}")


if __name__ == "__main__":
    main()
