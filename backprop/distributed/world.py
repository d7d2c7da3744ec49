"""The ranks of this job, if it is one: the only place that imports mpi4py."""

from __future__ import annotations

import os
from typing import Any

from backprop import checks

# In which of them whoever started this process has said how many there are: our launcher, MPICH, Open MPI, srun.
SAID = ("BACKPROP_RANKS", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def world() -> Any:
    """MPI's communicator of all ranks; None outside of a job and in one of a single rank, where mpi4py is not imported.

    Raises ImportError without mpi4py, RuntimeError where MPI finds another number of ranks than were started.
    """
    found = [int(os.environ[name]) for name in SAID if os.environ.get(name, "").isdecimal()]
    if (found[:1] or [1]) == [1] and "PMIX_RANK" not in os.environ:
        return None
    try:
        from mpi4py import MPI
    except ImportError as error:
        advice = 'Install mpi4py and an MPI: pip install "backprop-mlp[mpi]"'
        raise ImportError(checks.message("team", "mpi4py, for more than one rank", str(error), advice)) from error
    comm = MPI.COMM_WORLD
    if found and comm.size != found[0]:
        got = f"{comm.size} of {MPI.Get_library_version().split(',')[0].splitlines()[0]}"
        advice = "Start them by the mpiexec of the MPI that mpi4py uses; with srun, try --mpi=pmi2 or --mpi=pmix."
        raise RuntimeError(checks.message("team", f"the {found[0]} ranks that were started", got, advice))
    return comm if comm.size > 1 else None
