"""Which constraint holds for which parameter of a network in training."""

from __future__ import annotations

from collections.abc import Mapping

from backprop import checks
from backprop.checks import Array
from backprop.constraints import Constraint
from backprop.patterns import by_pattern

Projection = tuple[Constraint, Array]


def projections(
    who: str, constraints: Mapping[str, Constraint] | None, parameters: Mapping[str, Array]
) -> list[Projection]:
    """Each constrained parameter with its constraint, tried on a copy.

    Raises TypeError for what is no constraint, or does not project in place; ValueError for a pattern that matches nothing.
    """
    if constraints is None:
        return []
    if not isinstance(constraints, Mapping):
        expected = 'constraints as a dict, such as {"*.omega": MaxNorm(3)}'
        raise TypeError(checks.message(who, expected, repr(constraints)))
    for pattern, constraint in constraints.items():
        if not isinstance(pattern, str):
            raise TypeError(checks.message(who, 'patterns such as "*.omega" in constraints', repr(pattern)))
        checks.instance(who, f"constraints[{pattern!r}]", constraint, Constraint)
    chosen = by_pattern(who, "constraints", constraints, parameters)
    for name, constraint in chosen.items():
        returned: object = constraint.project(parameters[name].copy())
        if returned is not None:
            got = f"a {type(returned).__name__} returned for {name}"
            advice = "Write parameter[...] = … and return nothing."
            raise TypeError(checks.message(f"{constraint!r}.project", "the parameter changed in place", got, advice))
    return [(constraint, parameters[name]) for name, constraint in chosen.items()]
