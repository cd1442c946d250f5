"""What the wrappers share. The state of a wrapper that has one of its own holds the state inside as its field `env`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.types import Box, Environment, EnvState, Space


def limit_inside(params: Any) -> Any:
    """The time limit of the environment inside, from parameters that hold its own as `env`; None where it has none."""
    return getattr(params.env, "max_steps_in_episode", None)


def renewal(env: Environment) -> Callable:
    """`env.carry_over`, or what stands for it where nothing outlives an episode."""
    return env.carry_over or (lambda old, fresh, obs: (fresh, obs))


def carry_over_inside(env: Environment) -> Callable | None:
    """`carry_over` of a wrapper whose own state begins afresh with each episode and leaves observations as they are."""

    def carry_over(old, fresh, obs):
        state, obs = renewal(env)(old.env, fresh.env, obs)
        return fresh._replace(env=state), obs

    return None if env.carry_over is None else carry_over


class Observed(NamedTuple):
    """A state, with the observation that came with it."""

    env: EnvState
    obs: jax.Array


def recall(env: Environment) -> Environment:
    """The environment, with its observation kept in its state where `carry_over` will want it back.

    `carry_over` gets a fresh observation as the outermost wrapper made it, from which that of the environment inside can
    often not be had again. What this returns does not look at it. Without a `carry_over` nothing is kept.
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
        state, obs = renewal(env)(old.env, fresh.env, fresh.obs)
        return Observed(state, obs), obs

    return env._replace(reset=reset, step=step, carry_over=carry_over)


def map_observations(env: Environment, observe: Callable[[jax.Array], jax.Array], space: Space) -> Environment:
    """Show `observe(obs)`, which lies in `space`, for every observation; everything else as it was."""
    env = recall(env)

    def reset(key, params):
        state, obs = env.reset(key, params)
        return state, observe(obs)

    def step(key, state, action, params):
        state, after = env.step(key, state, action, params)
        return state, after._replace(obs=observe(after.obs))

    def carry_over(old, fresh, obs):
        state, obs = renewal(env)(old, fresh, obs)
        return state, observe(obs)

    return env._replace(
        reset=reset, step=step, observation_space=space, carry_over=None if env.carry_over is None else carry_over
    )


def observed_box(wrapper: str, env: Environment, *, floats: bool = False) -> Box:
    """The observation space, which must be a Box, of floats where the wrapper needs them."""
    space = env.observation_space
    if not isinstance(space, Box):
        raise ValueError(f"{wrapper} needs observations in a Box, got {space}: wrap the environment in one_hot first")
    if floats and not np.issubdtype(space.dtype, np.floating):
        raise ValueError(
            f"{wrapper} needs observations of floats, got {space}: wrap the environment in normalize_observations first"
        )
    return space


def check_broadcast(name: str, shape: tuple[int, ...], space: Box) -> None:
    """Raise ValueError unless an array of this shape broadcasts to that of the space."""
    try:
        fits = np.broadcast_shapes(shape, space.shape) == space.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name} {list(shape)} does not broadcast to {space}")


def acted_box(wrapper: str, env: Environment, *, bounded: bool = False) -> Box:
    """The action space, which must be a Box of floats, with finite bounds where the wrapper needs them."""
    space = env.action_space
    if not isinstance(space, Box) or not np.issubdtype(space.dtype, np.floating):
        raise ValueError(f"{wrapper} needs actions in a Box of floats, got {space}: leave it out")
    if bounded and not space.bounded:
        raise ValueError(
            f"{wrapper} needs finite bounds, got {space}: give the environment a bounded action_space by env._replace"
        )
    return space
