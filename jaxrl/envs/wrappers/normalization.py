"""Normalisation of observations and rewards by running statistics, which are in the state and persist across episodes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl._src.checks import AT_LEAST_ZERO, FRACTION, check_scalar
from jaxrl.envs.wrappers._inner import KEEP, carry_over_or_fresh, choose_entries, entries, is_box, map_entries, space_of
from jaxrl.running_statistics import (
    RunningStatistics,
    empty_statistics,
    merge,
    standard_deviation,
    standardize,
    statistics_of,
)
from jaxrl.types import Box, Environment, EnvState


class NormalizedObservations(NamedTuple):
    """State of `normalize_observations`."""

    env: EnvState
    statistics: Any  # RunningStatistics of [*obs_shape]; for a Dict, one for each normalised entry and () for the others


class NormalizedRewards(NamedTuple):
    """State of `normalize_rewards`."""

    env: EnvState
    statistics: RunningStatistics  # of the discounted return so far, []
    discounted_return: jax.Array  # float32 []


def normalize_observations(env: Environment, *, clip: float = 10.0) -> Environment:
    """Normalise observations to mean 0 and variance 1 over all observations so far, as float32, and clip them to ± `clip`.

    In a `Dict`, every Box is normalised; Discrete and MultiDiscrete entries and the action mask are unchanged.

    Each observation is first added to the statistics and then normalised once, so the true successor of a step equals the
    observation that the agent acts on next (up to rounding). Observations in a replay are not normalised again.

    **Each environment of a batch has its own statistics**, which start empty. The same state therefore looks different in two
    environments until both have seen many observations, and learning can be worse than without normalisation. Call
    `synchronize` between calls of `jaxrl.advance`, or use the option `normalize_observations` of the agent, such as PPO's, whose
    statistics all environments share. `freeze` stops the statistics for an evaluation.

    Args:
      env: with observations in a Box, or a `Dict` with at least one. They are converted to float32, which rounds integers
        above 2^24.
      clip: bound of the normalised observations and of their space, so it must not be traced; inf for no bound.

    Raises:
      ValueError: if no observation is in a Box, or `clip` is negative.
      TypeError: if `clip` is a tracer.
    """
    chosen = choose_entries(
        "normalize_observations", env, is_box, "observations in a Box", "wrap the environment in one_hot first"
    )
    if isinstance(clip, jax.core.Tracer):
        raise TypeError("normalize_observations: clip bounds the observation space, so it must be a Python float; got a tracer")
    clip = float(check_scalar("clip", clip, *AT_LEAST_ZERO))
    empty = jax.tree.map(lambda space: () if space is KEEP else empty_statistics(space.shape), chosen)

    def observe(state, statistics, obs):
        statistics = map_entries(lambda _, old, obs: merge(old, statistics_of(obs)), chosen, statistics, obs)
        obs = map_entries(lambda _, obs, statistics: standardize(statistics, obs, clip), chosen, obs, statistics)
        return NormalizedObservations(state, statistics), obs

    def reset(key, params):
        state, obs = env.reset(key, params)
        return observe(state, empty, obs)

    def step(key, state, action, params):
        inside, after = env.step(key, state.env, action, params)
        state, obs = observe(inside, state.statistics, after.obs)
        return state, after._replace(obs=obs)

    def carry_over(old, fresh, obs):
        # The fresh statistics contain a single observation, so their mean is that observation.
        first = map_entries(lambda space, _, own: own.mean.astype(space.dtype), chosen, obs, fresh.statistics)
        state, obs = carry_over_or_fresh(env)(old.env, fresh.env, first)
        return observe(state, old.statistics, obs)

    normalized = map_entries(lambda space, _: Box(-clip, clip, space.shape), chosen, entries(env.observation_space))
    return env._replace(reset=reset, step=step, observation_space=space_of(normalized), carry_over=carry_over)


def normalize_rewards(env: Environment, *, discount: float = 0.99, clip: float = 10.0) -> Environment:
    """Divide rewards by the standard deviation of the discounted return so far, and clip them to ± `clip`.

    R_t = γ R_{t−1} + r_t from the start of each episode, and the reward is r_t / √(Var[R_0 … R_t] + 1e-8): the reward
    scaling of Engstrom et al. (2020, algorithm 1). No mean is subtracted, since that would change the optimal policy. The
    metric `episode_return` and the results of `jaxrl.evaluate` are in normalised units; put `episode_statistics` inside to
    record the returns of the task. Each environment of a batch has its own statistics, see `normalize_observations`.

    Args:
      env: any environment.
      discount: γ, the discount factor of the agent. May be traced.
      clip: bound of the normalised rewards; inf for no bound. May be traced.

    Raises:
      ValueError: if `discount` is not in [0, 1], or `clip` is negative.
    """
    discount = check_scalar("discount", discount, *FRACTION)
    clip = check_scalar("clip", clip, *AT_LEAST_ZERO)

    def reset(key, params):
        state, obs = env.reset(key, params)
        return NormalizedRewards(state, empty_statistics(()), jnp.float32(0)), obs

    def step(key, state, action, params):
        inside, after = env.step(key, state.env, action, params)
        discounted_return = discount * state.discounted_return + after.reward
        statistics = merge(state.statistics, statistics_of(discounted_return))
        reward = jnp.clip(after.reward / standard_deviation(statistics), -clip, clip)
        return NormalizedRewards(inside, statistics, discounted_return), after._replace(reward=reward)

    def carry_over(old, fresh, obs):
        state, obs = carry_over_or_fresh(env)(old.env, fresh.env, obs)
        return fresh._replace(env=state, statistics=old.statistics), obs

    return env._replace(reset=reset, step=step, carry_over=carry_over)
