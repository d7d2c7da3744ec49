"""The start of a training by many: each rank tells what it is about to do, and the first difference ends all of them at once."""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
import re
from collections.abc import Mapping, Sequence
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np

from backprop import checks
from backprop.around.nesting import inside
from backprop.engine.team import Team, differing, require_one_place
from backprop.training import checkpoint
from backprop.training.state import State

MOST = 200  # characters that are told of a fact
OWN = ("threads", "native")  # settings that change no bits
ADDRESS = re.compile(" at 0x[0-9a-fA-F]+")  # of an object without words of its own, in this process


def facts(state: State, examples: Sequence[Any], also: dict[str, Any], arrays: bool = True) -> dict[str, Any]:
    """What decides where training from a state on leads, by name; of numbers in plenty their SHA-256, of `arrays` if asked."""
    net, rule = state.net, state.optimizer
    found: dict[str, Any] = {f"layer {i}": line for i, line in enumerate(checkpoint.outline(net)) if i}
    found |= {f"layer {i} inside": layer for i, layer in enumerate(inside(net)) if i}
    found |= {"python": platform.python_version(), "dtype": net.dtype, "loss": state.loss, **vars(state.settings)}
    found |= {"optimizer": rule, "schedule": rule.schedule, "constraints": state.constraints, **also}
    found["position"] = (state.position.epoch, state.position.batch)
    for each, of in zip(examples, ("", "validation "), strict=True):
        found |= {of + name: value for name, value in (each.fingerprint() if each else {"data": "none"}).items()}
    found |= {name: value for name, value in checkpoint.machine().items() if name not in found}
    found |= {f"the optimizer's {name}": value for name, value in checkpoint.memory(rule).items()}
    for name, array in {**net.parameters, **net.buffers, **rule.state}.items() if arrays else ():
        found[f"SHA-256 of {name}"] = hashlib.sha256(np.ascontiguousarray(array)).hexdigest()[:16]
    return {name: value for name, value in found.items() if name not in OWN}


def likeness(thing: Any, deep: int = 8, inner: bool = False) -> Any:
    """What of a thing is to be the same on all ranks; what else it holds may be of its rank.

    Of a function its code, and what it finds around it. Of an object its class, with the code if that is neither the library's
    nor Python's; and its own values of its arguments and of what the class has, unless their name begins with an underscore.
    """
    of = partial(likeness, deep=deep - 1, inner=True)
    if not deep or isinstance(thing, str | bytes | int | float | complex | np.generic | None):
        return repr(thing) if deep else ""
    if isinstance(thing, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(thing)).hexdigest()
    if isinstance(thing, list | tuple):
        return [likeness(each, deep, inner) for each in thing]
    if isinstance(thing, Mapping | set | frozenset):
        return sorted([repr(key), of(thing[key]) if isinstance(thing, Mapping) else ""] for key in thing)
    if isinstance(thing, CodeType):
        return [thing.co_code.hex(), thing.co_names, of(thing.co_consts)]
    if isinstance(thing, FunctionType):
        around = inspect.getclosurevars(thing)
        return of([thing.__code__, thing.__defaults__, thing.__kwdefaults__, around.nonlocals, around.globals])
    if isinstance(thing, MethodType | staticmethod | classmethod | partial):
        return of([getattr(thing, name, None) for name in ("__func__", "func", "args", "keywords")])
    kinds, mine = type(thing).__mro__, getattr(thing, "__dict__", {})
    first = getattr(type(thing).__init__, "__code__", None)
    library = [kind.__module__.partition(".")[0] in ("backprop", "builtins") for kind in kinds].index(True)
    found = {name: each for kind in reversed(kinds[:library]) for name, each in vars(kind).items()}
    found = {name: each for name, each in found.items() if name[0] != "_" or isinstance(each, FunctionType)}
    names = {*found, *(first.co_varnames[: first.co_argcount + first.co_kwonlyargcount] if first else ())}
    return [kinds[0].__qualname__, of(found | {name: mine[name] for name in names if name in mine and not inner})]


def _told(value: Any) -> tuple[str, str]:
    """A value in words, and a SHA-256 of all that there is to compare."""
    text, found = (ADDRESS.sub("", each) for each in (str(value), json.dumps([str(value), likeness(value)])))
    found = hashlib.sha256(found.encode()).hexdigest()
    return text if len(text) <= MOST else f"{text[:MOST]}… (SHA-256 {found[:16]})", found


def require_same(team: Team, who: str, mine: dict[str, Any]) -> None:
    """Raise ValueError on every rank that names the first fact which is another on some of them."""
    texts = team.all_texts(json.dumps({name: _told(mine[name]) for name in mine}))
    require_one_place(all(text.startswith("{") for text in texts))
    of_ranks = [json.loads(text) for text in texts]
    for name in dict.fromkeys(name for each in of_ranks for name in each):
        values = [tuple(each.get(name, ("none", ""))) for each in of_ranks]
        usual, odd, ranks = differing(values)
        if odd:
            text = values[odd[0]][0]
            got = text if text != usual[0] else f"{text} of other code, or with other values in it,"
            advice = "All ranks run the same program on the same data, with the same versions."
            raise ValueError(checks.message(who, f"{name} {usual[0]}, as on other ranks", f"{got} on {ranks}", advice))
