"""The members that have ended, in one file, from which a training that was interrupted goes on.

    of each member   φ at its best epoch, which epoch that was, its two curves, and what it says of its rows after each epoch
    facts            what tells this training from others: version, settings, data; the file of another one is refused
    machine          what else decides the last bits: BLAS and its kernels; of another one is warned
    notes            what whoever began the file wants to find there

A member depends on nothing but its number, data and settings: it is the same whenever it is trained.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterator, Mapping
from importlib import import_module
from threading import Lock
from typing import Any, NamedTuple, NoReturn

import numpy as np

from backprop import checks
from backprop.architecture import require_finite
from backprop.checks import Array
from backprop.files import container
from backprop.files.atomic import PathLike
from backprop.training import checkpoint

KIND = "members"
VERSION = "version"
PARTS = ("phi", "curves", "answers")
Job = tuple[int, bool]  # the number of a member, and whether it learns gently


class OtherTraining(ValueError):
    """The file of another training: of what differs `name`, what `expected` in the file, and what was `got`."""

    def __init__(self, path: PathLike, name: str, expected: str, got: str) -> None:
        advice = "A training goes on with the same data and settings; another one needs a file of its own."
        super().__init__(checks.message(os.fspath(path), f"{name} {expected}, as in the file", got, advice))
        self.name, self.expected, self.got = name, expected, got


class Known(NamedTuple):
    """A member that has ended: φ (P,) of its best epoch, and of each epoch loss, validation loss (2, E) and answers (E, n, K)."""

    phi: Array
    curves: Array
    answers: Array
    epoch: int


class Ended:
    """The members by job, and the file that they are in, if there is one; each that comes is written at once."""

    def __init__(self, path: PathLike | None = None, notes: Mapping[str, Any] | None = None) -> None:
        self.path, self.notes, self.facts = path, dict(notes or {}), dict[str, str]()
        self.machine = {} if path is None else checkpoint.machine()
        self.members: dict[Job, Known] = {}
        self._lock = Lock()

    @classmethod
    def of(cls, path: PathLike | None, facts: Mapping[str, object]) -> Ended:
        """What the file of this training holds; where there is no file, a new one, without members.

        Raises OtherTraining, FileFormatError for a file that is damaged or of another kind, OSError.
        """
        if path is None:
            return cls()
        there = read(path) if os.path.exists(path) else cls(path)
        facts = {VERSION: import_module("backprop").__version__} | {name: _text(facts[name]) for name in facts}
        if there.facts:
            for name in {**there.facts, **facts}:
                if there.facts.get(name) != facts.get(name):
                    raise OtherTraining(path, name, there.facts.get(name, "none"), facts.get(name, "none"))
            checkpoint.check_machine(os.fspath(path), there.machine, checkpoint.machine())
        else:
            there.facts = facts
            there.write()
        return there

    def add(self, job: Job, member: Known) -> None:
        """Keep a member. Raises OSError where the file cannot be written."""
        with self._lock:
            self.members[job] = member
            self.write()

    def write(self) -> None:
        """Replace the file, if there is one, whole or not at all."""
        if self.path is None:
            return
        arrays: dict[str, Array] = {}
        for job, member in self.members.items():
            arrays |= {f"{_name(job)}.{part}": getattr(member, part) for part in PARTS}
        about = {name: getattr(self, name) for name in ("facts", "machine", "notes")}
        members = [[*job, member.epoch] for job, member in self.members.items()]
        container.write(self.path, KIND, about | {"members": members}, arrays)

    def refuse(self, job: Job) -> NoReturn:
        """Refuse the file for a member that is none of this training. Raises FileFormatError."""
        got = f"member {_name(job)} with {len(self.members[job].phi):,} weights"
        container.refuse(self.path or "", "members of this training", got)


def read(path: PathLike) -> Ended:
    """What a file holds. Raises FileFormatError, OSError."""
    about, arrays = container.read(path, KIND)
    try:
        found = Ended(path, about["notes"])
        texts = [about["facts"], about["machine"]]
        found.facts, found.machine = ({str(k): str(v) for k, v in each.items()} for each in texts)
        found.members = dict(_members(about["members"], arrays))
        if arrays or (found.members and not found.facts):
            raise ValueError(checks.message("members", "what tells of them", "none"))
    except Exception as error:
        raise container.refusal(path, "members that have ended", error) from error
    return found


def _members(listed: Any, arrays: dict[str, Array]) -> Iterator[tuple[Job, Known]]:
    for m, gentle, epoch in listed:
        name = _name((m, gentle))
        phi, curves, answers = (arrays.pop(f"{name}.{part}") for part in PARTS)
        require_finite("members", {f"{name}.phi": phi})
        kinds = (type(m), type(gentle), type(epoch)) == (int, bool, int)
        kinds = kinds and [each.dtype.str[1:] for each in (phi, curves, answers)] == ["f4", "f8", "f4"]
        shapes = phi.ndim == 1 and answers.ndim == 3 and curves.shape == (2, len(answers))
        if not (kinds and shapes and 1 <= epoch <= len(answers)):
            expected = "φ (P,), two curves, answers of each epoch, an epoch of them"
            raise ValueError(checks.message("members", expected, reprlib.repr(name)))
        yield (m, gentle), Known(phi, curves, answers, epoch)


def _name(job: Job) -> str:
    return f"{job[0]}{'.gentle' if job[1] else ''}"


def _text(fact: object) -> str:
    """A fact as text; of long ones, what tells them from others."""
    from backprop.estimators.data import digest

    text = str(fact)
    return text if len(text) < 200 else f"of SHA-256 {digest(np.frombuffer(text.encode(), np.uint8))}"
