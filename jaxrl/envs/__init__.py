"""Environments: jaxrl's own, and gymnax's behind the same record."""

import difflib
from collections.abc import Callable

from jaxrl.envs import wrappers
from jaxrl.envs.point_mass import point_mass
from jaxrl.types import Environment

OWN: dict[str, Callable[..., Environment]] = {"PointMass": point_mass}

__all__ = ["OWN", "make", "names", "point_mass", "wrappers"]


def names() -> list[str]:
    """Every name that `make` takes."""
    from jaxrl.envs import gymnax  # slow to import: only where it is asked for

    return [*OWN, *gymnax.names()]


def make(name: str, **overrides) -> Environment:
    """The environment of that name: one of jaxrl's own, or of gymnax.

    Args:
      name: e.g. "CartPole-v1" or "PointMass"; `jaxrl envs` lists them all.
      overrides: fields of its parameters, or arguments of its factory.

    Raises:
      ValueError: for an unknown name (with the nearest ones) or an unknown parameter (with the list).
    """
    if name in OWN:
        return OWN[name](**overrides)
    from jaxrl.envs import gymnax

    if name in gymnax.names():
        return gymnax.make(name, **overrides)
    known = names()
    folded = {n.lower(): n for n in known}
    near = difflib.get_close_matches(str(name).lower(), folded, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(folded[n] for n in near)}?" if near else f"there are {', '.join(known)}"
    raise ValueError(f"unknown environment {name!r}; {hint}")
