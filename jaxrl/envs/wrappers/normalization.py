"""Observations and rewards normalised by running statistics, which live in the environment's state and outlive its episodes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl._src.checks import AT_LEAST_ZERO, FRACTION, check_scalar
from jaxrl.envs.wrappers._inner import observed_box, renewal
from jaxrl.envs.wrappers.running_statistics import RunningStatistics, deviation, empty_moments, merge, moments_of, standardize
from jaxrl.types import Box, Environment, EnvState


class NormalizedObservations(NamedTuple):
    """State of `normalize_observations`."""

    env: EnvState
    statistics: RunningStatistics  # of the observations, [*obs_shape]


class NormalizedRewards(NamedTuple):
    """State of `normalize_rewards`."""

    env: EnvState
    statistics: RunningStatistics  # of the discounted return so far, []
    discounted_return: jax.Array  # float32 []


def normalize_observations(env: Environment, *, clip: float = 10.0) -> Environment:
    """Observations with mean 0 and variance 1 over all that the environment has shown so far, float32, clipped to ± `clip`.

    An observation counts before it is normalised, and is normalised once, by the statistics of that moment: the true
    successor of a step is the observation acted on in the next (up to the last digit, where XLA computes it for each of
    them). What an agent keeps in a replay stays as it was seen then.

    Every environment of a batch has statistics of its own, and begins with none: until it has seen some hundred
    observations they are rough. `synchronize` merges them, `freeze` stops them for evaluation.

    Args:
      env: with observations in a Box; counted in float32, where integers above 2^24 are rounded.
      clip: bound of the normalised observations; a size of the observation space, so no tracer. inf: none.

    Raises:
      ValueError: where the observations are not a Box, or `clip` is negative.
      TypeError: where `clip` is a tracer.
    """
    space = observed_box("normalize_observations", env)
    if isinstance(clip, jax.core.Tracer):
        raise TypeError("normalize_observations: clip bounds the observation space, so it must be a Python float; got a tracer")
    clip = float(check_scalar("clip", clip, *AT_LEAST_ZERO))

    def see(state, statistics, obs):
        statistics = merge(statistics, moments_of(obs))
        return NormalizedObservations(state, statistics), standardize(statistics, obs, clip)

    def reset(key, params):
        state, obs = env.reset(key, params)
        return see(state, empty_moments(space.shape), obs)

    def step(key, state, action, params):
        inside, after = env.step(key, state.env, action, params)
        state, obs = see(inside, state.statistics, after.obs)
        return state, after._replace(obs=obs)

    def carry_over(old, fresh, _):
        first = fresh.statistics.mean.astype(space.dtype)  # the mean of a single observation is that observation
        state, obs = renewal(env)(old.env, fresh.env, first)
        return see(state, old.statistics, obs)

    return env._replace(reset=reset, step=step, observation_space=Box(-clip, clip, space.shape), carry_over=carry_over)


def normalize_rewards(env: Environment, *, discount: float = 0.99, clip: float = 10.0) -> Environment:
    """Rewards divided by the standard deviation of the discounted return so far, clipped to ± `clip`.

    R_t = γ R_{t−1} + r_t from the start of each episode, and the reward is r_t / √(Var[R_0 … R_t] + 1e-8): the reward
    scaling of Engstrom et al. (2020, algorithm 1). No mean is subtracted: that would change what is optimal. What an
    agent earns is then in other units, and so are `episode_return` and `jaxrl.evaluate`: put `episode_statistics` inside.

    Args:
      env: any.
      discount: γ, the agent's. May be traced.
      clip: bound of the normalised rewards; may be traced, inf: none.

    Raises:
      ValueError: where `discount` is not in [0, 1] or `clip` is negative.
    """
    discount = check_scalar("discount", discount, *FRACTION)
    clip = check_scalar("clip", clip, *AT_LEAST_ZERO)

    def reset(key, params):
        state, obs = env.reset(key, params)
        return NormalizedRewards(state, empty_moments(()), jnp.float32(0)), obs

    def step(key, state, action, params):
        inside, after = env.step(key, state.env, action, params)
        discounted_return = discount * state.discounted_return + after.reward
        statistics = merge(state.statistics, moments_of(discounted_return))
        reward = jnp.clip(after.reward / deviation(statistics), -clip, clip)
        return NormalizedRewards(inside, statistics, discounted_return), after._replace(reward=reward)

    def carry_over(old, fresh, obs):
        state, obs = renewal(env)(old.env, fresh.env, obs)
        return fresh._replace(env=state, statistics=old.statistics), obs

    return env._replace(reset=reset, step=step, carry_over=carry_over)
