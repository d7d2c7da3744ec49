"""The cores, and who may use them: one BLAS at a time, or Python threads of our own."""

from __future__ import annotations

import math
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from backprop.functions import load

Job = Callable[[], object]

BLAS_FLOPS = 3e7  # products of a step from which on a second BLAS thread pays, 0.3 ms at 100 GFLOP/s


_sharing = 1  # processes that train together on these cores


def share(processes: int) -> None:
    """Leave the other processes that train together on this machine their parts of the cores."""
    global _sharing
    _sharing = processes


def cores() -> int:
    """Cores this process may use: the least of affinity, `-X cpu_count`, control-group quota, OMP_NUM_THREADS and
    OPENBLAS_NUM_THREADS.

    Ranks of a team that have the same cores share them.

    >>> cores() >= 1
    True
    """
    limits = [limit // _sharing for limit in [_available(), *_quota("/sys/fs/cgroup")]]
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isdigit() and int(value):
            limits.append(int(value))
    return max(1, min(limits))


def _available() -> int:
    """Cores by affinity, where the system has one; by Python's own limit, -X cpu_count, from Python 3.13 on."""
    if hasattr(os, "process_cpu_count"):
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache  # read once: two files an epoch are a tenth of a short one
def _quota(path: str | Path) -> list[int]:
    """Whole cores that the control group grants: version 2 keeps them in one file, version 1 in two. [] is no limit."""
    folder = Path(path)
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        files = [folder / name for name in names]
        if all(file.exists() for file in files):
            allowed, period = " ".join(file.read_text() for file in files).split()
            return [math.ceil(int(allowed) / int(period))] if allowed not in ("max", "-1") else []
    return []


@cache
def _blas_libraries(with_scipys: bool = True) -> list[Any]:
    from threadpoolctl import ThreadpoolController

    if with_scipys:
        load()  # first, so that the controller finds it
    return [library for library in ThreadpoolController().lib_controllers if library.user_api == "blas"]


@cache
def _scipys() -> list[Any]:
    """SciPy's BLAS: in its folder, or in scipy.libs beside it. All, where it has none of its own there.

    By the name alone it cannot be told: NumPy's has "scipy" in its name, too, and so may any folder above both.
    """
    import scipy

    package = Path(scipy.__file__).resolve().parent
    folders = (package, package.with_name("scipy.libs"))
    libraries = _blas_libraries()
    return [each for each in libraries if _is_in(Path(each.filepath).resolve(), folders)] or libraries


def _is_in(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


_guard = threading.RLock()
_before: dict[str, tuple[Any, int]] = {}  # libraries, and the settings to go back to when nobody is at work any more
_wanted: dict[int, int] = {}  # by each `_Wish`; the least counts


def _after_fork() -> None:
    """In the child of a fork nobody is at work, and the lock is free, whatever the other threads of the parent were doing."""
    global _guard
    _guard = threading.RLock()
    _wanted.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Wish:
    """So many threads for BLAS, until it ends; at the latest when it is forgotten, wherever an interrupt has come in between."""

    def begin(self, n: int, with_scipys: bool) -> None:
        with _guard:
            if not _wanted:
                _before.clear()
            for library in _blas_libraries(with_scipys or "scipy.linalg" in sys.modules):
                if library.filepath not in _before:
                    _before[library.filepath] = library, library.get_num_threads()
            _wanted[id(self)] = n
            _set_threads(_wanted)

    def end(self) -> None:
        with _guard:
            if id(self) in _wanted:  # until the threads are set, so that an end that was interrupted comes again
                _set_threads({each: n for each, n in _wanted.items() if each != id(self)})
                del _wanted[id(self)]

    __del__ = end


@contextmanager
def blas_threads(n: int, *, with_scipys: bool = True) -> Iterator[None]:
    """Give SciPy's BLAS `n` threads and every other BLAS one, whatever thread asks.

    What was set before comes back when the last one at work, of several in threads, is done; until then the least counts.
    One thread for those that are there can be had without loading SciPy's.
    """
    wish = _Wish()
    try:
        wish.begin(n, with_scipys)
        yield
    finally:
        wish.end()


@contextmanager
def playing(size: int, n: int) -> Iterator[None]:
    """For passes over n examples outside training: a BLAS thread more where it pays, and no warnings of numbers not finite."""
    with np.errstate(all="ignore"), blas_threads(cores() if 6.0 * size * n >= BLAS_FLOPS else 1):
        yield


def _set_threads(wanted: dict[int, int]) -> None:
    least = min(wanted.values(), default=0)
    for library, before in _before.values():
        ours = least > 1 and library.filepath in [each.filepath for each in _scipys()]
        number = before if not least else least if ours else 1
        if library.get_num_threads() != number:
            # threadpoolctl 3.8 lets only the thread that was first set the number of OpenBLAS's, and ignores all others.
            getattr(library, "clear_controlling_thread", lambda force: None)(force=True)
            library.set_num_threads(number)
            getattr(library, "clear_controlling_thread", lambda force: None)(force=True)


def _stay(number: int, n: int) -> None:
    """Keep this thread on a core of its own where `n` threads use all the cores there are.

    Linux otherwise may put it beside the thread that wakes it, for whole epochs at a time (measured: 1.5 or 2.3 ms a step).
    """
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        if len(allowed) == n:
            os.sched_setaffinity(0, {allowed[number]})


class Pool:
    """Runs jobs on `n` threads, of which the caller's is one. Use it with `with`: no thread outlives the block.

    >>> with Pool(2) as pool:
    ...     found = []
    ...     pool.run([lambda: found.append(1), lambda: found.append(2)])
    >>> sorted(found)
    [1, 2]
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._jobs: list[queue.SimpleQueue[tuple[_Run, Job] | None]] = [queue.SimpleQueue() for _ in range(n - 1)]
        self._threads = [
            threading.Thread(target=self._work, args=(i, jobs), name=f"backprop-{i}", daemon=True)
            for i, jobs in enumerate(self._jobs, start=1)
        ]

    def __enter__(self) -> Pool:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for jobs in self._jobs:
            jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self, number: int, jobs: queue.SimpleQueue[tuple[_Run, Job] | None]) -> None:
        _stay(number, self.n)
        while (item := jobs.get()) is not None:
            run, job = item
            if run.begins():
                try:
                    with np.errstate(all="ignore"):
                        job()
                    run.ends(None)
                except BaseException as error:  # raised again in the caller, with its own traceback
                    run.ends(error)

    def run(self, jobs: Sequence[Job], on_error: Job | None = None) -> None:
        """Run at most `n` jobs, the first one here; returns when all are done and raises the first error.

        Where something is raised here, be it by a signal at any moment, `on_error` is called, what has not begun is left out,
        and what has is waited for.
        """
        run = _Run()
        try:
            for queue_, job in zip(self._jobs, jobs[1:], strict=False):
                queue_.put((run, job))
            jobs[0]()
            errors = [run.results.get() for _ in jobs[1:]]
        except BaseException:
            if on_error is not None:
                on_error()
            run.cancel()
            raise
        for error in filter(None, errors):
            raise error


class _Run:
    """The jobs of one call, as the threads take them."""

    def __init__(self) -> None:
        self.results: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._lock, self._cancelled, self._open = threading.Lock(), False, 0

    def begins(self) -> bool:
        """Take a job, if it is still wanted."""
        with self._lock:
            self._open += not self._cancelled
            return not self._cancelled

    def ends(self, error: BaseException | None) -> None:
        """A job is done."""
        with self._lock:
            self._open -= 1
        self.results.put(error)

    def cancel(self) -> None:
        """Wait for the jobs that have begun; let none begin any more."""
        self._cancelled = True
        while self._open:
            try:
                time.sleep(1e-4)
            except BaseException:  # of another signal: the first one is what is raised
                continue


def run_all(jobs: Sequence[Job], pool: Pool | None, on_error: Job | None = None) -> None:
    """Run the jobs on the pool's threads, or one after another."""
    if pool is not None and len(jobs) > 1:
        pool.run(jobs, on_error)
    else:
        run_in_turn(jobs)


def run_in_turn(jobs: Sequence[Job]) -> None:
    """Run the jobs one after another, here."""
    for job in jobs:
        job()
