"""Stepping environments: `unroll` for training, `play_episodes` for greedy episodes, `evaluate` for their returns.

During training, only `unroll` resets environments.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl._src.checks import check_key, check_size
from jaxrl._src.packing import pack, unpack
from jaxrl.resets import Episode, ResetNoise, begin_episodes, reset_all
from jaxrl.types import (
    Agent,
    AgentState,
    Carry,
    Environment,
    EnvState,
    EpisodeStats,
    HParams,
    Learner,
    LearnerState,
    Obs,
    PolicyParams,
    Step,
    Transition,
)


class RolloutNoise(NamedTuple):
    """Everything random in a rollout."""

    env: jax.Array  # keys [T, B], one for each step of each environment
    reset: ResetNoise
    act: Any  # the agent's, leaves [T, B, ...]


class RolloutCarry(NamedTuple):
    """The state that `unroll` carries from step to step."""

    env: EnvState  # leaves [B, ...]
    obs: Obs  # [B, ...]
    carry: Carry  # [B, ...]
    stats: EpisodeStats


def zero_stats(num_envs: int) -> EpisodeStats:
    def zeros(dtype):
        return jnp.zeros(num_envs, dtype)

    return EpisodeStats(zeros(jnp.float32), zeros(jnp.int32), zeros(jnp.float32), zeros(jnp.float32), zeros(jnp.int32))


def select_done(done: jax.Array, if_done: Any, otherwise: Any) -> Any:
    """Choose per environment: `done` is bool `[B]`, the leaves of both trees `[B, ...]`."""

    def choose(x, y):
        return jnp.where(done.reshape(done.shape + (1,) * (y.ndim - 1)), x, y)

    return jax.tree.map(choose, if_done, otherwise)


def batched_step(env: Environment, keys: jax.Array, env_state: EnvState, action: jax.Array) -> tuple[EnvState, Step]:
    """`env.step` over a batch of environments, leaves `[B, ...]`. Where both flags are set, `truncated` is cleared."""
    env_state, step = jax.vmap(env.step, (0, 0, 0, None))(keys, env_state, action, env.params)
    return env_state, step._replace(truncated=step.truncated & ~step.terminated)


def count_step(stats: EpisodeStats, reward: jax.Array, done: jax.Array, ignored: jax.Array) -> EpisodeStats:
    """Add a step to the running episodes. Where it ends an episode and is not `ignored`, count that episode as finished."""
    total, length = stats.episode_return + reward, stats.episode_length + 1
    ends = done & ~ignored
    return EpisodeStats(
        episode_return=jnp.where(done, 0.0, total),
        episode_length=jnp.where(done, 0, length),
        finished_return=stats.finished_return + jnp.where(ends, total, 0.0),
        finished_length=stats.finished_length + jnp.where(ends, length, 0).astype(jnp.float32),
        finished=stats.finished + ends.astype(jnp.int32),
    )


def unroll(
    env: Environment,
    agent: Agent,
    policy_params: PolicyParams,
    carry: RolloutCarry,
    noise: RolloutNoise,
    fresh_episode: Callable[[Any, Any], Episode],
    hparams: HParams,
    iteration: jax.Array,
) -> tuple[RolloutCarry, Transition]:
    """Let the agent act for T steps in B environments, and reset each environment at the end of its episode.

    For an agent with `fresh_episodes`, every environment first starts a fresh episode. Only that episode enters the
    statistics; the steps after its end fill up the rollout.

    Args:
      env, agent: the environment and the agent.
      policy_params: from `agent.policy`.
      carry: from the end of the previous rollout.
      noise: everything random in the rollout.
      fresh_episode: `ResetScheme.episode`, which makes fresh episodes from one step of `noise.reset`.
      hparams, iteration: as for `agent.explore`.

    Returns:
      The carry after the last step, and the rollout, leaves `[T, B, ...]`. Its `next_obs` is always the true successor.
    """
    num_envs = carry.stats.finished.shape[0]
    once = agent.fresh_episodes
    if once:
        first = fresh_episode(noise.reset.steps, noise.reset.shared)
        carry = _start_afresh(env, agent, carry, first, num_envs)

    def step(carry_and_over, noise_t):
        (env_state, obs, policy_carry, stats), over = carry_and_over
        step_keys, reset_noise, act_noise = noise_t
        action, next_carry, extras = agent.explore(policy_params, obs, policy_carry, act_noise, hparams, iteration)
        env_state, after = batched_step(env, step_keys, env_state, action)
        transition = Transition(obs, action, after.reward, after.terminated, after.truncated, after.obs, policy_carry, extras)
        done = after.terminated | after.truncated
        stats = count_step(stats, after.reward, done, ignored=over)
        over = over | done if once else over
        fresh = first if once else fresh_episode(reset_noise, noise.reset.shared)
        env_state, obs = select_done(done, begin_episodes(env, env_state, fresh), (env_state, after.obs))
        policy_carry = select_done(done, agent.initial_carry(num_envs), next_carry)
        return (RolloutCarry(env_state, obs, policy_carry, stats), over), pack(transition, batch_ndim=1)

    reset_steps = None if once else noise.reset.steps
    start = carry, jnp.zeros(num_envs, bool)
    (carry, _), packed = jax.lax.scan(step, start, (noise.env, reset_steps, noise.act))
    return carry, unpack(packed)


def _start_afresh(env: Environment, agent: Agent, carry: RolloutCarry, first: Episode, num_envs: int) -> RolloutCarry:
    env_state, obs = begin_episodes(env, carry.env, first)
    stats = carry.stats._replace(episode_return=jnp.zeros(num_envs, jnp.float32), episode_length=jnp.zeros(num_envs, jnp.int32))
    return RolloutCarry(env_state, obs, agent.initial_carry(num_envs), stats)


class GreedyStep(NamedTuple):
    """One step of greedy episodes; leaves `[E, ...]`."""

    action: jax.Array
    env_state: EnvState  # after the step
    step: Step
    over: jax.Array  # bool: the episode had ended before this step


def play_episodes(
    key: jax.Array,
    env: Environment,
    agent: Agent,
    policy_params: PolicyParams,
    record: Callable[[Any, jax.Array, GreedyStep], Any],
    start: Callable[[EnvState, Obs], Any],
    *,
    num_episodes: int,
    max_steps: int,
    env_state: EnvState | None = None,
) -> tuple[jax.Array, Any]:
    """Play E fresh episodes in parallel with the greedy policy, until all have ended.

    Args:
      key: consumed. Equal keys give equal starts.
      env, agent: the environment and the agent.
      policy_params: from `greedy_policy`, the only part of the agent's state that is used.
      record: `(record, t, step) -> record`, called after each step t, an int32 scalar, to update what is recorded.
      start: `(env_state, obs) -> record`, called with the fresh episodes to initialise what is recorded.
      num_episodes: E.
      max_steps: steps after which an episode is cut.
      env_state: the environments' state from training, leaves `[B, ...]`, for environments with a `carry_over`, such as one
        with running statistics. Episode i continues from environment i mod B.

    Returns:
      Whether each episode ended, bool `[E]`, and the final record.
    """
    reset_key, step_key = jax.random.split(key)
    fresh = reset_all(env, jax.random.split(reset_key, num_episodes))
    if env_state is not None and env.carry_over is not None:
        num_envs = jax.tree.leaves(env_state)[0].shape[0]
        fresh = begin_episodes(env, jax.tree.map(lambda x: x[jnp.arange(num_episodes) % num_envs], env_state), fresh)

    def unfinished(loop):
        t, over = loop[0], loop[1]
        return (t < max_steps) & ~jnp.all(over)

    def step(loop):
        t, over, (env_state, obs), carry, recorded = loop
        keys = jax.random.split(jax.random.fold_in(step_key, t), num_episodes + 1)
        action, carry = agent.exploit(policy_params, obs, carry, keys[-1])
        env_state, after = batched_step(env, keys[:-1], env_state, action)
        recorded = record(recorded, t, GreedyStep(action, env_state, after, over))
        return t + 1, over | after.terminated | after.truncated, (env_state, after.obs), carry, recorded

    loop = (jnp.int32(0), jnp.zeros(num_episodes, bool), fresh, agent.initial_carry(num_episodes), start(*fresh))
    _, over, _, _, recorded = jax.lax.while_loop(unfinished, step, loop)
    return over, recorded


def evaluate(key: jax.Array, learner: Learner, state: LearnerState, *, num_episodes: int, max_steps: int = 100_000) -> jax.Array:
    """Play `num_episodes` fresh episodes with the greedy policy and return their returns.

    Args:
      key: consumed. Pass the same key to compare policies on the same starts.
      learner: the learner that trained the agent.
      state: the state of one run; use `vmap` for the states of several runs.
      num_episodes: number of episodes; all are played in parallel.
      max_steps: steps after which an episode is cut.

    Returns:
      The undiscounted returns, float32 `[num_episodes]`; NaN for an episode that had not ended by `max_steps`.

    Raises:
      TypeError, ValueError: if the key is not a typed PRNG key, `num_episodes` or `max_steps` is not a positive int, or
        `state` is a batch of states.
    """
    if jnp.ndim(state.stats.finished) != 1:
        raise ValueError(
            f"evaluate takes the state of one run, and this is a batch of states (statistics "
            f"{list(jnp.shape(state.stats.finished))}, not [{learner.num_envs}]): use jax.vmap over the states"
        )
    policy_params = greedy_policy(learner.agent, state.agent)
    return evaluate_policy(
        key, learner.env, learner.agent, policy_params, num_episodes=num_episodes, max_steps=max_steps, env_state=state.env
    )


def greedy_policy(agent: Agent, agent_state: AgentState) -> PolicyParams:
    """What `agent.exploit` reads of the agent's state, and all that a saved policy holds."""
    return agent.greedy(agent.policy(agent_state))


def evaluate_policy(
    key: jax.Array,
    env: Environment,
    agent: Agent,
    policy_params: PolicyParams,
    *,
    num_episodes: int,
    max_steps: int = 100_000,
    env_state: EnvState | None = None,
) -> jax.Array:
    """`evaluate` for policy parameters alone, such as a saved policy. The arguments are those of `play_episodes`.

    Returns:
      The undiscounted returns, float32 `[num_episodes]`; NaN for an episode that had not ended by `max_steps`.

    Raises:
      TypeError, ValueError: if the key is not a typed PRNG key, or a size is not a positive int.
    """
    check_key(key)
    num_episodes = check_size("num_episodes", num_episodes)
    max_steps = check_size("max_steps", max_steps)

    def add_reward(returns, t, played):
        return returns + jnp.where(played.over, 0.0, played.step.reward)

    over, returns = play_episodes(
        key,
        env,
        agent,
        policy_params,
        add_reward,
        lambda env_state, obs: jnp.zeros(num_episodes, jnp.float32),
        num_episodes=num_episodes,
        max_steps=max_steps,
        env_state=env_state,
    )
    return jnp.where(over, returns, jnp.nan)


def evaluate_over_params(
    key: jax.Array, learner: Learner, state: LearnerState, params: Any, *, num_episodes: int, max_steps: int = 100_000
) -> jax.Array:
    """`evaluate` in N environments that differ in their parameters, in one program: how robust or general is a policy?

    The episodes have the same random numbers for all parameters. Use `vmap` for the states of several runs.

    Args:
      key, state, num_episodes, max_steps: as for `evaluate`.
      learner: the learner that trained the agent; `learner._replace(env=env)` to play in another environment, such as one
        without the wrapper that randomises its parameters.
      params: parameters like `learner.env.params`, leaves `[N, ...]`, e.g. from `jaxrl.envs.wrappers.params_grid`.

    Returns:
      The undiscounted returns, float32 `[N, num_episodes]`; NaN for an episode that had not ended by `max_steps`.

    Raises:
      TypeError, ValueError: as `evaluate`, and ValueError if the parameters have another structure than those of the environment.
    """
    given, wanted = jax.tree.structure(params), jax.tree.structure(learner.env.params)
    if (given,) != (wanted,):
        raise ValueError(
            f"params must be parameters like those of {learner.env.name} with a leading axis, {wanted}; got {given}. For "
            "those of the environment without a wrapper pass learner._replace(env=env)"
        )

    def returns_with(params):
        changed = learner._replace(env=learner.env._replace(params=params))
        return evaluate(key, changed, state, num_episodes=num_episodes, max_steps=max_steps)

    return jax.vmap(returns_with)(params)
