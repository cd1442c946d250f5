"""Environments: jaxrl's own, gymnax's, and those of other suites, all as the same record type."""

import importlib.util
import inspect
import warnings
from collections.abc import Callable
from typing import Any

from jaxrl.envs import wrappers
from jaxrl.envs.problems import probes
from jaxrl.envs.problems.classics import baird, chain, garnet
from jaxrl.envs.problems.grids import cliff_walk, frozen_lake, grid_world
from jaxrl.envs.problems.lqr import lqr
from jaxrl.envs.problems.point_mass import point_mass
from jaxrl.envs.problems.tabular import tabular, tabular_mdp
from jaxrl.envs.suites.adapter import unknown_name
from jaxrl.types import Environment

OWN: dict[str, Callable[..., Environment]] = {
    "PointMass": point_mass,
    "LQR": lqr,
    "Chain": chain,
    "CliffWalk": cliff_walk,
    "GridWorld": grid_world,
    "FrozenLake": frozen_lake,
    "Garnet": garnet,
    "Baird": baird,
}
# Each is a prefix of names, a module in `suites`, and an extra in pyproject.toml.
SUITES = ("brax", "craftax", "gymnasium", "jumanji", "pgx", "playground", "xminigrid")

__all__ = [
    "OWN", "SUITES", "baird", "chain", "cliff_walk", "from_gymnasium", "frozen_lake", "garnet", "grid_world", "lqr", "make",
    "names", "point_mass", "probes", "suite", "tabular", "tabular_mdp", "to_gymnasium", "wrappers",
]  # fmt: skip


def names() -> list[str]:
    """Every name that `make` accepts, except those with a suite's prefix; without gymnax, only those of jaxrl's own."""
    return [*OWN, *(suite("gymnax").names() if _has_gymnax() else ())]


def _has_gymnax() -> bool:
    return importlib.util.find_spec("gymnax") is not None


def suite(name: str) -> Any:
    """Import the module `jaxrl.envs.suites.NAME`, which adapts another suite.

    It has `make(name, **overrides)`, and `names()` if its environments can be listed.

    Raises:
      ImportError: if a package is missing; the message names the extra that installs it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from their dependencies
            return importlib.import_module(f"jaxrl.envs.suites.{name}")
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise ImportError(f"{name} needs the package {package}: pip install 'jaxrl[{name}]'", name=package) from error


def make(name: str, **overrides) -> Environment:
    """Make an environment by name: one of jaxrl's own, of gymnax's, or of another suite's.

    Args:
      name: e.g. "CartPole-v1" or "PointMass" (`jaxrl envs` lists all), or a name with a suite's prefix, e.g. "brax/ant" or
        "gymnasium/CartPole-v1".
      overrides: fields of the environment's parameters, or arguments of its factory.

    Raises:
      ValueError: for an unknown name (the message lists similar names), an unknown parameter (the message lists the known
        ones), or a value out of range. Invalid arguments of a suite's own factory raise the suite's errors.
      TypeError: for a name or a value of the wrong type.
      ImportError: if the suite's package is missing; the message names the extra that installs it.
    """
    if not isinstance(name, str):
        raise TypeError(f"make needs the name of an environment, such as 'CartPole-v1'; got {name!r}")
    if name in OWN:
        known = inspect.signature(OWN[name]).parameters
        if unknown := sorted(set(overrides) - set(known)):
            raise ValueError(f"{name} has no parameter {', '.join(unknown)}; it has {', '.join(known)}")
        return OWN[name](**overrides)
    prefix, _, rest = name.partition("/")
    if rest and prefix in SUITES:
        return suite(prefix).make(rest, **overrides)
    if not _has_gymnax():
        own = f"{name!r} is not one of jaxrl's own environments ({', '.join(OWN)})"
        raise ImportError(f"{own}, and gymnax's need an extra: pip install 'jaxrl[gymnax]'", name="gymnax")
    gymnax = suite("gymnax")
    if name in (*gymnax.names(), *gymnax.REFUSED):
        return gymnax.make(name, **overrides)
    raise unknown_name(name, names())


def __getattr__(name: str) -> Any:
    if name in ("from_gymnasium", "to_gymnasium"):
        return getattr(suite("gymnasium"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
