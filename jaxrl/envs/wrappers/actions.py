"""Wrappers that change what an action does."""

import itertools
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import FRACTION, check_scalar, check_size
from jaxrl.envs.wrappers._inner import (
    action_box,
    action_mask,
    carry_over_inside,
    inner_time_limit,
    is_integer,
    is_legal,
    map_observations,
)
from jaxrl.spaces import ACTION_MASK, spec, split_action_mask
from jaxrl.types import Box, Dict, Discrete, Environment, EnvState, MultiDiscrete, Space, Step

_MAX_ACTIONS = 2**16  # of a discretized space


class StickyParams(NamedTuple):
    """Parameters of `sticky_actions`."""

    env: Any
    probability: Any  # in [0, 1]

    @property
    def max_steps_in_episode(self) -> Any:
        return inner_time_limit(self)


class StickyActions(NamedTuple):
    """State of `sticky_actions`."""

    env: EnvState
    action: jax.Array  # the action executed last
    started: jax.Array  # bool: whether an action has been executed
    mask: Any  # the action mask, bool, or None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RepeatParams:
    """Parameters of `action_repeat`: those of the inner environment, and the number of repeats, which is static."""

    env: Any
    num_repeats: int = field(metadata={"static": True})
    masked: bool = field(metadata={"static": True})  # illegal actions may end the repeats early

    @property
    def max_steps_in_episode(self) -> Any:
        """The inner time limit in actions, rounded up, since the last action may be cut short."""
        limit = inner_time_limit(self)
        return limit if limit is None or self.masked else -(-limit // self.num_repeats)


def rescale_actions(env: Environment) -> Environment:
    """Take actions in [-1, 1] and scale them to the bounds: −1 becomes exactly `low` and 1 exactly `high`.

    Actions outside [-1, 1] are clipped first.

    Raises:
      ValueError: if the action space is not a Box of floats with finite bounds.
    """
    space = action_box("rescale_actions", env, bounded=True)

    def step(key, state, action, params):
        action = jnp.clip(jnp.asarray(action, space.dtype), -1, 1)
        scaled = 0.5 * (1 - action) * space.low + 0.5 * (1 + action) * space.high
        return env.step(key, state, jnp.clip(scaled, space.low, space.high), params)

    return env._replace(step=step, action_space=Box(-1, 1, space.shape, space.dtype))


def clip_actions(env: Environment) -> Environment:
    """Accept any action and clip it to the bounds.

    Raises:
      ValueError: if the action space is not a Box of floats.
    """
    space = action_box("clip_actions", env)

    def step(key, state, action, params):
        return env.step(key, state, jnp.clip(jnp.asarray(action, space.dtype), space.low, space.high), params)

    return env._replace(step=step, action_space=Box(-np.inf, np.inf, space.shape, space.dtype))


def action_grid(space: Space, bins: int) -> np.ndarray:
    """All combinations of `bins` evenly spaced values in each dimension, bounds included: `[bins ** m, *shape]`.

    The last dimension varies fastest. Use it with `discretize_actions`.

    Raises:
      ValueError: if the space is not a Box with finite bounds, `bins` is below 2, or there are more than 65,536 combinations.
      TypeError: if `bins` is not an int.

    >>> action_grid(Box(-1, 1, (2,)), 2).tolist()
    [[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]
    """
    bins = check_size("bins", bins, minimum=2)
    if not isinstance(space, Box) or not space.bounded:
        raise ValueError(f"action_grid needs a Box with finite bounds, got {space}")
    size = math.prod(space.shape)
    if bins**size > _MAX_ACTIONS:
        raise ValueError(
            f"action_grid: {bins} bins in {size} dimensions are {bins}^{size} actions, more than {_MAX_ACTIONS}; use fewer "
            f"bins, give discretize_actions your own list, or choose each dimension for itself, discretize_actions(env, {bins})"
        )
    axes = np.linspace(space.low.reshape(size), space.high.reshape(size), bins, dtype=space.dtype, axis=1)
    return np.array(list(itertools.product(*axes)), space.dtype).reshape(-1, *space.shape)


def discretize_actions(env: Environment, actions: Any) -> Environment:
    """Replace actions in a Box by integers.

    With a list of N actions `[N, *shape]`, the action space is Discrete(N), and action i executes the i-th entry. With an int
    `bins`, it is MultiDiscrete with `bins` evenly spaced values in each dimension, bounds included (Tang & Agrawal 2020). Its
    size grows linearly with the number of dimensions, while that of a grid grows exponentially.

    Args:
      env: with actions in a Box of floats, without an action mask.
      actions: a list of actions, e.g. `action_grid(env.action_space, bins)`; or the int `bins`, at least 2, for a Box with
        finite bounds.

    Raises:
      ValueError: if the action space is not such a Box, an action of the list is not in it, or the environment has an action
        mask, which cannot describe the new actions.
    """
    space = action_box("discretize_actions", env)
    if split_action_mask(env.observation_space)[1] is not None:
        raise ValueError(
            f"discretize_actions: {env.name} observes an action mask, which does not describe the new actions: remove the entry"
        )
    if np.ndim(actions) == 0:
        return _discretize_dimensions(env, actions)
    table = np.asarray(actions, space.dtype)
    if table.shape[1:] != space.shape or not len(table):
        wanted = ", ".join(["N", *map(str, space.shape)])
        raise ValueError(f"discretize_actions: actions must be [{wanted}], got {list(table.shape)}")
    inside = (table >= space.low) & (table <= space.high)
    if not np.all(inside):
        wrong = np.flatnonzero(~inside.reshape(len(table), -1).all(axis=1))[0]
        raise ValueError(f"discretize_actions: action {wrong}, {table[wrong]}, is not in {space}")

    def step(key, state, action, params):
        return env.step(key, state, jnp.asarray(table)[action], params)

    return env._replace(step=step, action_space=Discrete(len(table)))


def _discretize_dimensions(env: Environment, bins: Any) -> Environment:
    space = action_box("discretize_actions", env, bounded=True)
    bins = check_size("discretize_actions: bins", bins, minimum=2)
    table = np.linspace(space.low.ravel(), space.high.ravel(), bins, dtype=space.dtype, axis=1)  # [m, bins]

    def step(key, state, action, params):
        chosen = np.arange(bins, dtype=np.int32)[None] == jnp.asarray(action, jnp.int32)[:, None]
        executed = jnp.sum(jnp.where(chosen, table, jnp.zeros_like(table)), axis=1)
        return env.step(key, state, executed.reshape(space.shape), params)

    return env._replace(step=step, action_space=MultiDiscrete((bins,) * len(table)))


def flatten_actions(env: Environment) -> Environment:
    """Discrete actions 0 … N-1 for all N combinations of a MultiDiscrete action, the last component varying fastest.

    An action mask becomes the mask `[N]` of the combinations: legal where every component is.

    Raises:
      ValueError: if the actions are not MultiDiscrete, or there are more than 65,536 combinations.
    """
    space = env.action_space
    if not isinstance(space, MultiDiscrete):
        raise ValueError(f"flatten_actions needs MultiDiscrete actions, got {space}: do not use it here")
    num_actions = math.prod(space.nvec)
    if num_actions > _MAX_ACTIONS:
        raise ValueError(f"flatten_actions: {space} has {num_actions} combinations, more than {_MAX_ACTIONS}")
    strides = np.array([math.prod(space.nvec[i + 1 :]) for i in range(len(space.nvec))], np.int32)
    sizes = np.array(space.nvec, np.int32)

    def combine(obs):
        rest, mask = split_action_mask(obs)
        legal = jnp.ones(1, bool)
        for part in jnp.split(mask, np.cumsum(space.nvec)[:-1]):
            legal = (legal[:, None] & part[None, :]).reshape(-1)
        return rest | {ACTION_MASK: legal}

    rest, mask = split_action_mask(env.observation_space)
    if mask is not None:
        masked = Dict({**rest, ACTION_MASK: Box(False, True, (num_actions,), np.bool_)})
        env = map_observations(env, combine, masked)
    inner = env

    def step(key, state, action, params):
        quotients = jax.lax.div(jnp.full(strides.shape, action, jnp.int32), strides)
        remainders = quotients - jax.lax.div(quotients, sizes) * sizes  # not `%`, which cannot be exported to ONNX
        return inner.step(key, state, remainders, params)

    return env._replace(step=step, action_space=Discrete(num_actions))


def sticky_actions(env: Environment, probability: Any = 0.25) -> Environment:
    """Repeat the last executed action with `probability`, instead of executing the new one (Machado et al. 2018).

    The first action of an episode is always executed, and so is any new action if an action mask forbids repeating the last
    one. Either all components of a MultiDiscrete action are repeated, or none.

    Args:
      env: any environment.
      probability: ς in [0, 1], by default that of the paper; becomes a field of `params`, and may be traced.

    Raises:
      ValueError: if the probability is not in [0, 1].
    """
    probability = check_scalar("probability", probability, *FRACTION)
    space: Any = env.action_space

    def reset(key, params):
        state, obs = env.reset(key, params.env)
        return StickyActions(state, jnp.zeros(space.shape, space.dtype), jnp.bool_(False), action_mask(env, obs)), obs

    def step(key, state, action, params):
        key, sticky_key = jax.random.split(key)
        again = state.started & (jax.random.uniform(sticky_key, dtype=jnp.float32) < params.probability)
        if state.mask is not None:
            again &= is_legal(space, state.mask, state.action)
        action = jnp.where(again, state.action, jnp.asarray(action, space.dtype))
        inside, after = env.step(key, state.env, action, params.env)
        return StickyActions(inside, action, jnp.bool_(True), action_mask(env, after.obs)), after

    return env._replace(reset=reset, step=step, params=StickyParams(env.params, probability), carry_over=carry_over_inside(env))


def action_repeat(env: Environment, num_repeats: int) -> Environment:
    """Execute each action `num_repeats` times, or until the episode ends; rewards are summed without a discount.

    If an action mask says that the action has become illegal, the repeats end early and the agent chooses again.

    The successor and the flags are those of the last executed step. An inner time limit therefore counts inner steps, and
    `params.max_steps_in_episode` is the largest number of actions within that limit: the limit divided by `num_repeats` and
    rounded up, or with an action mask the limit itself, since each action may be executed only once. An outer `time_limit`
    counts actions.

    Raises:
      ValueError: if `num_repeats` is below 1.
      TypeError: if it is not an int.
    """
    num_repeats = check_size("num_repeats", num_repeats)
    space, observed = env.action_space, spec(env.observation_space)
    masked = is_integer(space) and split_action_mask(env.observation_space)[1] is not None

    def reset(key, params):
        return env.reset(key, params.env)

    def step(key, state, action, params):
        def again(carry, key):
            old_state, old = carry
            over = old.terminated | old.truncated
            if masked:
                over |= ~is_legal(space, action_mask(env, old.obs), action)
            state, after = env.step(key, old_state, action, params.env)
            after = after._replace(reward=old.reward + after.reward)
            return jax.tree.map(lambda x, y: jnp.where(over, x, y), carry, (state, after)), None

        # Before the first step all actions count as legal, so that the agent's action is executed at least once.
        obs = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), observed)
        nothing = Step(obs, jnp.float32(0), jnp.bool_(False), jnp.bool_(False))
        return jax.lax.scan(again, (state, nothing), jax.random.split(key, num_repeats))[0]

    return env._replace(reset=reset, step=step, params=RepeatParams(env.params, num_repeats, masked))
