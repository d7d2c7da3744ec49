"""The start of a training by many: each rank tells what it is about to do, and the first difference ends all of them at once."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from backprop import checks
from backprop.engine.team import Team
from backprop.training import checkpoint
from backprop.training.data import Examples
from backprop.training.state import State

MOST = 200  # characters of a fact that are told
OWN = ("threads", "native")  # settings that change no bits
ADDRESS = re.compile(" at 0x[0-9a-f]+")  # of an object without words of its own, in this process


def facts(state: State, examples: Sequence[Examples | None], also: dict[str, Any]) -> dict[str, Any]:
    """What decides where training from a state on leads, by name; of numbers in plenty their SHA-256."""
    net, rule = state.net, state.optimizer
    found: dict[str, Any] = {f"layer {i}": line for i, line in enumerate(checkpoint.outline(net)) if i}
    found |= {"dtype": net.dtype, "loss": state.loss, "optimizer": rule, **vars(state.settings)}
    found |= {"constraints": state.constraints, "position": (state.position.epoch, state.position.batch), **also}
    for each, of in zip(examples, ("", "validation "), strict=True):
        found |= {of + name: value for name, value in (each.fingerprint() if each else {"data": "none"}).items()}
    found |= {name: value for name, value in checkpoint.machine().items() if name not in found}
    found |= {f"the optimizer's {name}": value for name, value in checkpoint.memory(rule).items()}
    for name, array in {**net.parameters, **net.buffers, **rule.state}.items():
        found[f"SHA-256 of {name}"] = hashlib.sha256(np.ascontiguousarray(array)).hexdigest()[:16]
    return {name: value for name, value in found.items() if name not in OWN}


def _told(value: Any) -> str:
    text = ADDRESS.sub("", str(value))
    return text if len(text) <= MOST else f"{text[:MOST]}… (SHA-256 {hashlib.sha256(text.encode()).hexdigest()[:16]})"


def require_same(team: Team, who: str, mine: dict[str, Any]) -> None:
    """Raise ValueError on every rank that names the first fact which is another on some of them."""
    told = json.dumps({name: _told(value) for name, value in mine.items()})
    of_ranks = [json.loads(text) for text in team.all_texts(told)]
    for name in dict.fromkeys(name for each in of_ranks for name in each):
        values = [each.get(name, "none") for each in of_ranks]
        usual = Counter(values).most_common(1)[0][0]
        odd = [rank for rank, value in enumerate(values) if value != usual]
        if odd:
            ranks = f"rank{'s' if len(odd) > 1 else ''} {', '.join(map(str, odd[:8]))}{' …' if len(odd) > 8 else ''}"
            advice = "All ranks run the same program on the same data, with the same versions."
            expected = f"{name} {usual}, as on other ranks"
            raise ValueError(checks.message(who, expected, f"{values[odd[0]]} on {ranks}", advice))
