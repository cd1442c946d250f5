"""Helpers shared by the wrappers. The state of a wrapper keeps that of the inner environment in its field `env`."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.spaces import ACTION_MASK, split_action_mask
from jaxrl.types import Box, Dict, Discrete, Environment, EnvState, MultiDiscrete, PyTree, Space

OBSERVATION = "observation"  # the entry for the original observation, if a wrapper turns it into a `Dict`
KEEP = "keep"  # marks an entry of an observation that a wrapper leaves unchanged


# --- time limits and episodes ---------------------------------------------------------------------


def inner_time_limit(params: Any) -> Any:
    """The time limit of the inner environment, whose parameters are `params.env`, or None."""
    return getattr(params.env, "max_steps_in_episode", None)


def carry_over_or_fresh(env: Environment) -> Callable:
    """`env.carry_over`, or a function that returns the fresh state and observation if the environment has none."""
    return env.carry_over or (lambda old, fresh, obs: (fresh, obs))


def carry_over_inside(env: Environment) -> Callable | None:
    """The `carry_over` of a wrapper that resets its own state at each episode and does not change observations."""

    def carry_over(old, fresh, obs):
        state, obs = carry_over_or_fresh(env)(old.env, fresh.env, obs)
        return fresh._replace(env=state), obs

    return None if env.carry_over is None else carry_over


class Observed(NamedTuple):
    """A state and its observation."""

    env: EnvState
    obs: PyTree


def keep_observation(env: Environment) -> Environment:
    """Keep the last observation of an environment in its state, if it has a `carry_over`; otherwise return it unchanged.

    `carry_over` receives the fresh observation after the outer wrapper has changed it, and often the original cannot be
    recovered from that. The `carry_over` of the result ignores the observation that it receives.
    """
    if env.carry_over is None:
        return env

    def reset(key, params):
        state, obs = env.reset(key, params)
        return Observed(state, obs), obs

    def step(key, state, action, params):
        inside, after = env.step(key, state.env, action, params)
        return Observed(inside, after.obs), after

    def carry_over(old, fresh, _):
        state, obs = carry_over_or_fresh(env)(old.env, fresh.env, fresh.obs)
        return Observed(state, obs), obs

    return env._replace(reset=reset, step=step, carry_over=carry_over)


# --- observations ---------------------------------------------------------------------------------


def map_observations(env: Environment, observe: Callable[[PyTree], PyTree], space: Space) -> Environment:
    """Replace every observation by `observe(obs)`, an element of `space`."""
    env = keep_observation(env)

    def reset(key, params):
        state, obs = env.reset(key, params)
        return state, observe(obs)

    def step(key, state, action, params):
        state, after = env.step(key, state, action, params)
        return state, after._replace(obs=observe(after.obs))

    def carry_over(old, fresh, obs):
        state, obs = carry_over_or_fresh(env)(old, fresh, obs)
        return state, observe(obs)

    return env._replace(
        reset=reset, step=step, observation_space=space, carry_over=None if env.carry_over is None else carry_over
    )


def entries(space: Space) -> PyTree:
    """The space as a pytree with the structure of its observations; a `Dict` becomes a dict of spaces."""
    return {name: entries(entry) for name, entry in space.items()} if isinstance(space, Dict) else space


def space_of(tree: PyTree) -> Space:
    """The inverse of `entries`."""
    return Dict({name: space_of(entry) for name, entry in tree.items()}) if isinstance(tree, dict) else tree


def choose_entries(wrapper: str, env: Environment, wanted: Callable[[Space], bool], needs: str, fix: str) -> PyTree:
    """`entries(env.observation_space)`, with `KEEP` for the action mask and for entries that are not `wanted`.

    Raises:
      ValueError: if no entry is wanted. The message says what the wrapper `needs`, and the `fix`.
    """
    rest, mask = split_action_mask(env.observation_space)
    chosen = jax.tree.map(lambda space: space if wanted(space) else KEEP, entries(rest))
    if all(space is KEEP for space in jax.tree.leaves(chosen)):
        raise ValueError(f"{wrapper} needs {needs}, got {env.observation_space}: {fix}")
    return chosen if mask is None else chosen | {ACTION_MASK: KEEP}


def map_entries(function: Callable, chosen: PyTree, first: PyTree, *others: PyTree) -> PyTree:
    """Apply `function(space, x, *others)` to every chosen entry; keep the entries of the tree `first` elsewhere."""

    def one(space, x, *others):
        return x if space is KEEP else function(space, x, *others)

    return jax.tree.map(one, chosen, first, *others)


def is_box(space: Space) -> bool:
    return isinstance(space, Box)


def is_float_box(space: Space) -> bool:
    return isinstance(space, Box) and bool(np.issubdtype(space.dtype, np.floating))


def is_integer(space: Space) -> bool:
    return isinstance(space, Discrete | MultiDiscrete)


def one_hot_of(space: Any, x: jax.Array) -> jax.Array:
    """One-hot vector, float32: `[n]` for a Discrete, or `[sum(nvec)]`, the components concatenated, for a MultiDiscrete."""
    if isinstance(space, Discrete):
        return jax.nn.one_hot(x, space.n, dtype=jnp.float32)
    return jnp.concatenate([jax.nn.one_hot(x[i], n, dtype=jnp.float32) for i, n in enumerate(space.nvec)])


def check_broadcast(name: str, shape: tuple[int, ...], space: Box) -> None:
    """Raise ValueError unless an array of this shape broadcasts to that of the space."""
    try:
        fits = np.broadcast_shapes(shape, space.shape) == space.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name} {list(shape)} does not broadcast to {space}")


# --- actions --------------------------------------------------------------------------------------


def action_box(wrapper: str, env: Environment, *, bounded: bool = False) -> Box:
    """Return the action space, which must be a Box of floats, with finite bounds if `bounded`.

    Raises:
      ValueError: for any other action space.
    """
    space = env.action_space
    if not isinstance(space, Box) or not np.issubdtype(space.dtype, np.floating):
        raise ValueError(f"{wrapper} needs actions in a Box of floats, got {space}: do not use it here")
    if bounded and not space.bounded:
        raise ValueError(
            f"{wrapper} needs finite bounds, got {space}: replace the action space, env._replace(action_space=Box(...))"
        )
    return space


def action_mask(env: Environment, obs: PyTree) -> jax.Array | None:
    """The entry "action_mask" of an observation; None if there is none, or if the actions are not integers."""
    return split_action_mask(obs)[1] if is_integer(env.action_space) else None


def is_legal(space: Any, mask: Any, action: jax.Array) -> jax.Array:
    """Whether an action is legal, bool `[]`: Discrete `[]` with a mask `[n]`, or MultiDiscrete `[m]` with `[sum(nvec)]`."""
    nvec = (space.n,) if isinstance(space, Discrete) else space.nvec
    components = jnp.asarray(action, jnp.int32).reshape(len(nvec))
    taken = [np.arange(n, dtype=np.int32) == components[i] for i, n in enumerate(nvec)]  # compared, which fuses on a GPU
    starts = itertools.accumulate(nvec, initial=0)
    allowed = [jnp.any(mask[start : start + n] & x) for start, n, x in zip(starts, nvec, taken, strict=False)]
    return jnp.all(jnp.stack(allowed))
