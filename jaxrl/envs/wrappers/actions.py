"""Wrappers that change what an action does."""

import itertools
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import FRACTION, check_scalar, check_size
from jaxrl.envs.wrappers._inner import acted_box, carry_over_inside, limit_inside
from jaxrl.types import Box, Discrete, Environment, EnvState, Space, Step

_MOST_ACTIONS = 2**16  # of a grid


class StickyParams(NamedTuple):
    """Parameters of `sticky_actions`."""

    env: Any
    probability: Any  # in [0, 1]

    @property
    def max_steps_in_episode(self) -> Any:
        return limit_inside(self)


class StickyActions(NamedTuple):
    """State of `sticky_actions`."""

    env: EnvState
    action: jax.Array  # the one executed last
    started: jax.Array  # bool: whether there is one


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RepeatParams:
    """Parameters of `action_repeat`: those inside, and the number of repeats, which is structure and no array."""

    env: Any
    num_repeats: int = field(metadata={"static": True})

    @property
    def max_steps_in_episode(self) -> Any:
        """The limit inside, counted in actions: rounded up, for the last may be cut short."""
        limit = limit_inside(self)
        return None if limit is None else -(-limit // self.num_repeats)


def rescale_actions(env: Environment) -> Environment:
    """Actions in [-1, 1], stretched to the bounds: −1 is `low` and 1 is `high`, exactly. What lies outside is clipped.

    Raises:
      ValueError: where the actions are not a Box of floats with finite bounds.
    """
    space = acted_box("rescale_actions", env, bounded=True)

    def step(key, state, action, params):
        action = jnp.clip(jnp.asarray(action, space.dtype), -1, 1)
        stretched = 0.5 * (1 - action) * space.low + 0.5 * (1 + action) * space.high
        return env.step(key, state, jnp.clip(stretched, space.low, space.high), params)

    return env._replace(step=step, action_space=Box(-1, 1, space.shape, space.dtype))


def clip_actions(env: Environment) -> Environment:
    """Any action, clipped to the bounds before it is executed.

    Raises:
      ValueError: where the actions are not a Box of floats.
    """
    space = acted_box("clip_actions", env)

    def step(key, state, action, params):
        return env.step(key, state, jnp.clip(jnp.asarray(action, space.dtype), space.low, space.high), params)

    return env._replace(step=step, action_space=Box(-np.inf, np.inf, space.shape, space.dtype))


def action_grid(space: Space, bins: int) -> np.ndarray:
    """`bins` evenly spaced values in each dimension, bounds included, in all combinations: `[bins ** m, *shape]`.

    The last dimension varies fastest. For `discretize_actions`.

    Raises:
      ValueError: where the space is not a Box with finite bounds, `bins` is below 2, or there are more than 65,536 combinations.

    >>> action_grid(Box(-1, 1, (2,)), 2).tolist()
    [[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]
    """
    bins = check_size("bins", bins, minimum=2)
    if not isinstance(space, Box) or not space.bounded:
        raise ValueError(f"action_grid needs a Box with finite bounds, got {space}")
    size = math.prod(space.shape)
    if bins**size > _MOST_ACTIONS:
        raise ValueError(
            f"action_grid: {bins} bins in {size} dimensions are {bins}^{size} actions, more than {_MOST_ACTIONS}; use fewer "
            "bins, or give discretize_actions a list of your own"
        )
    axes = np.linspace(space.low.reshape(size), space.high.reshape(size), bins, dtype=space.dtype, axis=1)
    return np.array(list(itertools.product(*axes)), space.dtype).reshape(-1, *space.shape)


def discretize_actions(env: Environment, actions: Any) -> Environment:
    """Discrete actions 0 … N-1 that stand for `actions` `[N, *shape]` of the Box.

    Args:
      env: with actions in a Box of floats.
      actions: a list of actions, or all of a grid: `action_grid(env.action_space, bins)`.

    Raises:
      ValueError: where the actions are not a Box of floats, or one of the list is not in it.
    """
    space = acted_box("discretize_actions", env)
    table = np.asarray(actions, space.dtype)
    if table.shape[1:] != space.shape or not len(table):
        raise ValueError(f"discretize_actions: actions must be [N, {', '.join(map(str, space.shape))}], got {list(table.shape)}")
    inside = (table >= space.low) & (table <= space.high)
    if not np.all(inside):
        wrong = np.flatnonzero(~inside.reshape(len(table), -1).all(axis=1))[0]
        raise ValueError(f"discretize_actions: action {wrong}, {table[wrong]}, is not in {space}")

    def step(key, state, action, params):
        return env.step(key, state, jnp.asarray(table)[action], params)

    return env._replace(step=step, action_space=Discrete(len(table)))


def sticky_actions(env: Environment, probability: Any = 0.25) -> Environment:
    """With `probability`, the action executed last is executed again in place of the new one (Machado et al. 2018).

    The first action of an episode is always executed.

    Args:
      env: any.
      probability: ς in [0, 1], by default the paper's; a field of `params`, traced.

    Raises:
      ValueError: where the probability is not in [0, 1].
    """
    probability = check_scalar("probability", probability, *FRACTION)
    space = env.action_space

    def reset(key, params):
        state, obs = env.reset(key, params.env)
        return StickyActions(state, jnp.zeros(space.shape, space.dtype), jnp.bool_(False)), obs

    def step(key, state, action, params):
        key, sticky_key = jax.random.split(key)
        again = state.started & (jax.random.uniform(sticky_key) < params.probability)
        action = jnp.where(again, state.action, jnp.asarray(action, space.dtype))
        inside, after = env.step(key, state.env, action, params.env)
        return StickyActions(inside, action, jnp.bool_(True)), after

    return env._replace(reset=reset, step=step, params=StickyParams(env.params, probability), carry_over=carry_over_inside(env))


def action_repeat(env: Environment, num_repeats: int) -> Environment:
    """Each action is executed `num_repeats` times, or until the episode ends; rewards are summed, without a discount.

    The successor and the flags are those of the last step executed, so a time limit inside counts steps inside:
    the episode ends where it would, and `params.max_steps_in_episode` says so in actions, rounded up. Wrapped around this,
    `time_limit` counts actions.

    Raises:
      ValueError, TypeError: where `num_repeats` is not a positive int.
    """
    num_repeats = check_size("num_repeats", num_repeats)
    observed = env.observation_space

    def reset(key, params):
        return env.reset(key, params.env)

    def step(key, state, action, params):
        def again(carry, key):
            old_state, old = carry
            over = old.terminated | old.truncated
            state, after = env.step(key, old_state, action, params.env)
            after = after._replace(reward=old.reward + after.reward)
            return jax.tree.map(lambda x, y: jnp.where(over, x, y), carry, (state, after)), None

        nothing = Step(jnp.zeros(observed.shape, observed.dtype), jnp.float32(0), jnp.bool_(False), jnp.bool_(False))
        return jax.lax.scan(again, (state, nothing), jax.random.split(key, num_repeats))[0]

    return env._replace(reset=reset, step=step, params=RepeatParams(env.params, num_repeats))
