"""Normalisation of observations and rewards as a part of an agent, by statistics that all environments of a seed share.

The statistics of the observations are part of what acting reads, so they are saved with the policy and stand still in evaluation.
A wrapper of environments, `jaxrl.envs.wrappers.normalize_observations`, cannot see the other environments of a batch.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import returns
from jaxrl.running_statistics import (
    RunningStatistics,
    empty_statistics,
    merge,
    merge_shards,
    standard_deviation,
    statistics_of_batch,
)
from jaxrl.types import Agent, AgentState, HParams, Obs, PolicyParams, Transition, store_nothing

CLIP = 10.0  # bound of normalised observations and rewards


class Scale(NamedTuple):
    """What to subtract from an observation and to divide it by, each `[*shape]`."""

    mean: jax.Array
    mean_compensation: jax.Array  # the digits of the mean that do not fit into a float32
    deviation: jax.Array


class NormalizedPolicy(NamedTuple):
    """Policy parameters of an agent that normalises observations."""

    policy: PolicyParams  # of the agent that it was made from
    scale: Any  # a tree like the observations: `Scale` for a leaf of floats, () for any other


class NormalizedState(NamedTuple):
    """State of an agent that normalises observations, rewards, or both."""

    agent: AgentState  # of the agent that it was made from
    observations: Any  # a tree like them: `RunningStatistics` for a leaf of floats, () for any other; () if unused
    returns: Any  # RunningStatistics of the discounted return so far, []; () if unused
    discounted_return: Any  # of the running episodes, float32 [B]; () if unused

    @property
    def params(self) -> Any:
        """The network's parameters."""
        return self.agent.params

    @property
    def opt_state(self) -> Any:
        return self.agent.opt_state


def normalize_agent(agent: Agent, *, observations: bool = False, rewards: bool = False) -> Agent:
    """Let an agent act on and learn from normalised observations, rewards, or both; with neither, return it unchanged.

    Each leaf of floats of an observation is normalised to mean 0 and variance 1 by the statistics of all observations that the
    agent has acted on, and clipped to ± 10. Integers, bools and the action mask are unchanged. A rollout and the update that
    follows it use the statistics from before the rollout, so log-probabilities in the update are those of the policy that
    acted. The rollout is added to the statistics at the end of the update. Before the first update nothing is subtracted or
    divided.

    Rewards are divided by the standard deviation of the discounted return so far, R_t = γ R_{t−1} + r_t from the start of each
    episode (Engstrom et al. 2020, algorithm 1), and clipped to ± 10; the statistics include the rollout that is scaled. γ is
    the agent's hyperparameter `discount`. The learner's metrics stay in the units of the task.

    The network's parameters are in the field `params` of the state, as before.

    Args:
      agent: an agent without a replay, whose rollouts continue across episodes.
      observations: normalise observations.
      rewards: normalise rewards; the agent has a hyperparameter `discount`.

    Raises:
      ValueError: if the agent has a replay or plays fresh episodes.
    """
    if not (observations or rewards):
        return agent
    if agent.store is not store_nothing or agent.fresh_episodes:
        raise ValueError("normalize_agent: the agent must have no replay, and no fresh episodes in each iteration")

    def init(key, obs, hparams):
        statistics: Any = ()
        running: tuple[Any, Any] = (), ()
        if observations:
            statistics = jax.tree.map(lambda x: empty_statistics(x.shape[1:]) if _is_float(x) else (), obs)
            obs = _apply(_scale_of(statistics), obs)
        if rewards:
            running = empty_statistics(()), jnp.zeros(jax.tree.leaves(obs)[0].shape[0], jnp.float32)
        return NormalizedState(agent.init(key, obs, hparams), statistics, *running)

    def policy(state):
        inner = agent.policy(state.agent)
        return NormalizedPolicy(inner, _scale_of(state.observations)) if observations else inner

    def greedy(policy_params):
        if not observations:
            return agent.greedy(policy_params)
        return policy_params._replace(policy=agent.greedy(policy_params.policy))

    def explore(policy_params, obs, carry, noise_t, hparams, iteration):
        policy_params, obs = normalized_input(policy_params, obs)
        return agent.explore(policy_params, obs, carry, noise_t, hparams, iteration)

    def exploit(policy_params, obs, carry, key):
        policy_params, obs = normalized_input(policy_params, obs)
        return agent.exploit(policy_params, obs, carry, key)

    def update(state, rollout, noise, hparams, iteration):
        normalized = rollout
        if observations:
            scale = _scale_of(state.observations)
            normalized = normalized._replace(obs=_apply(scale, rollout.obs), next_obs=_apply(scale, rollout.next_obs))
            state = state._replace(observations=_add(state.observations, rollout.obs))
        if rewards:
            statistics, discounted_return = _add_returns(state, rollout, hparams)
            reward = jnp.clip(rollout.reward / standard_deviation(statistics), -CLIP, CLIP)
            normalized = normalized._replace(reward=reward)
            state = state._replace(returns=statistics, discounted_return=discounted_return)
        inner, metrics = agent.update(state.agent, normalized, noise, hparams, iteration)
        return state._replace(agent=inner), metrics

    return agent._replace(init=init, policy=policy, greedy=greedy, explore=explore, exploit=exploit, update=update)


def normalized_input(policy_params: PolicyParams, obs: Obs) -> tuple[PolicyParams, Obs]:
    """The policy parameters and observations that the agent inside receives; unchanged for any other agent.

    Args:
      policy_params: of any agent; `NormalizedPolicy` if it normalises observations.
      obs: leaves `[..., *obs_shape]`, as the environment returns them.
    """
    if not isinstance(policy_params, NormalizedPolicy):
        return policy_params, obs
    return policy_params.policy, _apply(policy_params.scale, obs)


def _is_float(x: jax.Array) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.floating))


def _scale_of(statistics: Any) -> Any:
    """The identity where the statistics are empty."""

    def one(s: RunningStatistics) -> Scale:
        return Scale(s.mean, s.mean_compensation, jnp.where(s.num > 0, standard_deviation(s), 1.0))

    return jax.tree.map(one, statistics, is_leaf=lambda x: isinstance(x, RunningStatistics))


def _apply(scale: Any, obs: Obs) -> Obs:
    """Normalised observations; leaves with any leading axes."""

    def one(x, scale):
        if scale == ():
            return x
        mean, rest, deviation = (s.reshape((1,) * (x.ndim - s.ndim) + s.shape) for s in scale)
        return jnp.clip(((x.astype(jnp.float32) - mean) - rest) / deviation, -CLIP, CLIP)

    return jax.tree.map(one, obs, scale)


def _add(statistics: Any, obs: Obs) -> Any:
    """The statistics with the observations of a rollout, leaves `[T, B, ...]`, added."""

    def one(x, old):
        return () if old == () else merge(old, merge_shards(statistics_of_batch(x.reshape(-1, *x.shape[2:]))))

    return jax.tree.map(one, obs, statistics)


def _add_returns(state: NormalizedState, rollout: Transition, hparams: HParams) -> tuple[RunningStatistics, jax.Array]:
    """The statistics with the discounted returns of a rollout added, and the return at its end, 0 where an episode ended."""
    done = rollout.terminated | rollout.truncated
    began = jnp.concatenate([jnp.zeros_like(done[:1]), done[:-1]])
    discount = hparams.discount * (1.0 - began.astype(jnp.float32))
    # R_t = r_t + γ_t R_{t−1} is the recursion of discounted returns, with time reversed.
    reward, discount = rollout.reward[::-1], discount[::-1]
    before = jnp.broadcast_to(state.discounted_return[None], reward.shape)
    so_far = returns.discounted_returns(reward, discount, before)
    statistics = merge_shards(statistics_of_batch(so_far.reshape(-1)))
    return merge(state.returns, statistics), jnp.where(done[-1], 0.0, so_far[0])
