"""What `check_environment` finds in the spaces, and in observations that do not match theirs."""

from typing import Any

import jax
import numpy as np

from jaxrl.spaces import num_choices, spec, split_action_mask
from jaxrl.types import Box, Dict, Discrete, Environment, MultiDiscrete, Space

Findings = list[tuple[str, str]]  # what is wrong, and how to fix it


def check_spaces(env: Environment) -> Findings:
    """Spaces of another kind, and an action mask that does not describe the actions."""
    found = []
    for name, space, kinds in (
        ("observation_space", env.observation_space, (Box, Dict, Discrete, MultiDiscrete)),
        ("action_space", env.action_space, (Box, Discrete, MultiDiscrete)),
    ):
        if not isinstance(space, kinds):
            allowed = ", ".join(kind.__name__ for kind in kinds)
            fix = f"use one of the spaces in jaxrl.types: {allowed}"
            found.append((f"{name} is a {type(space).__module__}.{type(space).__name__}", fix))
    return found or _check_mask(split_action_mask(env.observation_space)[1], env.action_space)


def _check_mask(mask: Any, action_space: Space) -> Findings:
    if mask is None:
        return []
    if not isinstance(action_space, Discrete | MultiDiscrete):
        wrong = f"the observation has an action mask, and action_space is {action_space}"
        return [(wrong, "remove or rename the entry: only Discrete and MultiDiscrete actions can be masked")]
    n = num_choices(action_space)
    if isinstance(mask, Box) and mask.shape == (n,) and mask.dtype == np.bool_:
        return []
    size = f"{n} entries, one for each " + ("action" if isinstance(action_space, Discrete) else "choice of each component")
    wrong = f"observation_space['action_mask'] is {mask}, and {action_space} needs a mask of bools with {size}"
    return [(wrong, f"make it Box(False, True, ({n},), bool), True where the choice is legal")]


def check_observation(space: Space, name: str, obs: Any) -> Findings:
    """Where the observation that the function `name` returns has another structure, shape or dtype than its space."""
    expected = spec(space)
    if str(jax.tree.structure(obs)) != str(jax.tree.structure(expected)):
        return [_wrong_structure(space, name, obs)]
    found = []
    for (path, x), wanted in zip(jax.tree_util.tree_leaves_with_path(obs), jax.tree.leaves(expected), strict=True):
        if (x.shape, x.dtype) != (wanted.shape, wanted.dtype):
            entry = jax.tree_util.keystr(path)
            where = f"obs{entry} as" if entry else "the observation"
            there = f"there {describe(wanted)}" if entry else str(space)
            found.append(
                (f"{name} returns {where} {describe(x)}, and observation_space is {there}", "give both the same shape and dtype")
            )
    return found


def _wrong_structure(space: Space, name: str, obs: Any) -> tuple[str, str]:
    if not isinstance(space, Dict):
        fix = "return one array, e.g. by jnp.concatenate, or a dict of arrays with a Dict space"
        return f"{name} returns a {type(obs).__name__} as observation, and observation_space is {space}", fix
    if not isinstance(obs, dict):
        given = describe(obs) if hasattr(obs, "dtype") else f"a {type(obs).__name__}"
        return f"{name} returns {given} as observation, and observation_space is {space}", "return a dict with these entries"
    missing, extra = (", ".join(map(repr, sorted(keys))) for keys in (set(space) - set(obs), set(obs) - set(space)))
    parts = [f"without {missing}"] * bool(missing) + [f"with {extra} besides"] * bool(extra) or ["with another structure"]
    wrong = f"{name} returns an observation {' and '.join(parts)}, and observation_space is {space}"
    return wrong, "return a dict with exactly these entries"


def nvec(space: Any) -> tuple[int, ...]:
    """The number of choices of each component of a Discrete or MultiDiscrete space."""
    return (space.n,) if isinstance(space, Discrete) else space.nvec


def matches(space: Space, obs: Any) -> bool:
    """Whether structure and shapes are those of the space."""
    expected = spec(space)
    if str(jax.tree.structure(obs)) != str(jax.tree.structure(expected)):
        return False
    return all(getattr(x, "shape", None) == y.shape for x, y in zip(*map(jax.tree.leaves, (obs, expected)), strict=True))


def describe(x: Any) -> str:
    """Shape and dtype."""
    return f"{x.dtype}{list(x.shape)}" if x.shape else f"a {x.dtype} scalar"
