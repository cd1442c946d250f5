"""Playing environments: `unroll` for training, `evaluate` for whole greedy episodes.

`unroll` is the one place that resets an environment.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl._src.checks import check_key, check_size
from jaxrl._src.packing import pack, unpack
from jaxrl.types import Agent, Environment, EpisodeStats, HParams, Learner, LearnerState, Transition


class RolloutNoise(NamedTuple):
    """Everything random in a rollout."""

    env: jax.Array  # keys [T, B], one for each step of each environment
    reset: Any
    # reset, a fresh episode for each step of each environment [T, B], or [B] for whole episodes: as (env_state, obs),
    # as keys to make it from when its step comes, or as int32 places in the pool
    act: Any  # the agent's, leaves [T, B, ...]
    pool: Any = ()  # (env_state, obs) of the fresh episodes that all share, leaves [K, ...]


class RolloutCarry(NamedTuple):
    """What `unroll` carries from step to step."""

    env: Any  # leaves [B, ...]
    obs: jax.Array  # [B, ...]
    memory: Any
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


def batched_step(env: Environment, keys: jax.Array, env_state: Any, action: jax.Array):
    """`env.step` over a batch of environments; where both flags are set, `terminated` wins.

    Raises:
      ValueError: where the actions are not of the environment's space, as far as shapes and dtypes tell.
    """
    space = env.action_space
    same_kind = jnp.issubdtype(action.dtype, jnp.integer) == jnp.issubdtype(space.dtype, jnp.integer)
    if action.shape[1:] != space.shape or not same_kind:
        raise ValueError(
            f"the agent's actions are {action.dtype}{list(action.shape[1:])}, and {env.name} takes {space}: "
            "make the agent with env.action_space"
        )
    env_state, step = jax.vmap(env.step, (0, 0, 0, None))(keys, env_state, action, env.params)
    return env_state, step._replace(truncated=step.truncated & ~step.terminated)


def begin_episodes(env: Environment, env_state: Any, fresh: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
    """(env_state, obs) of new episodes `[B, ...]`: the fresh ones, with what outlives the episodes that ended."""
    return fresh if env.carry_over is None else jax.vmap(env.carry_over)(env_state, *fresh)


def _fresh(env: Environment, noise: RolloutNoise, reset: Any) -> tuple[Any, jax.Array]:
    """(env_state, obs) of fresh episodes, leaves `[B, ...]`, from one step's `noise.reset`."""
    if isinstance(reset, tuple):
        return reset
    if noise.pool:
        return jax.tree.map(lambda x: x[reset], noise.pool)
    return jax.vmap(env.reset, (0, None))(reset, env.params)


def count_step(stats: EpisodeStats, reward: jax.Array, done: jax.Array, ignored: jax.Array) -> EpisodeStats:
    """Add a step to the episodes under way, and to the finished ones where it ended them and is not `ignored`."""
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
    agent_state: Any,
    players: RolloutCarry,
    noise: RolloutNoise,
    hparams: HParams,
    clock: jax.Array,
) -> tuple[RolloutCarry, Transition]:
    """Let the agent act for T steps in B environments, resetting each where its episode ends.

    For an agent of `fresh_episodes`, every environment first starts afresh and only
    its first episode enters the statistics; what follows that is played but nobody looks at it.

    Returns:
      The players after the last step, and the trajectory, leaves `[T, B, ...]`; `next_obs` is always the
      true successor.
    """
    num_envs = players.obs.shape[0]
    nobody = jnp.zeros(num_envs, bool)
    first = _fresh(env, noise, noise.reset) if agent.fresh_episodes else None
    if first is not None:
        env_state, obs = begin_episodes(env, players.env, first)
        fresh = players.stats._replace(episode_return=jnp.zeros(num_envs), episode_length=jnp.zeros(num_envs, jnp.int32))
        players = RolloutCarry(env_state, obs, agent.memory(num_envs), fresh)

    def step(carry, noise_t):
        (env_state, obs, memory, stats), over = carry
        keys, reset, act_noise = noise_t
        action, next_memory, extras = agent.act(agent_state, obs, memory, act_noise, hparams, clock)
        env_state, after = batched_step(env, keys, env_state, action)
        transition = Transition(obs, action, after.reward, after.terminated, after.truncated, after.obs, memory, extras)
        done = after.terminated | after.truncated
        stats = count_step(stats, after.reward, done, ignored=over)
        over = over | done if agent.fresh_episodes else over
        fresh = _fresh(env, noise, reset) if first is None else first
        env_state, obs = select_done(done, begin_episodes(env, env_state, fresh), (env_state, after.obs))
        memory = select_done(done, agent.memory(num_envs), next_memory)
        return (RolloutCarry(env_state, obs, memory, stats), over), pack(transition, batch_ndim=1)

    resets = None if agent.fresh_episodes else noise.reset
    (players, _), rows = jax.lax.scan(step, (players, nobody), (noise.env, resets, noise.act))
    return players, unpack(rows)


def evaluate(
    key: jax.Array,
    learner: Learner,
    state: LearnerState,
    *,
    num_episodes: int,
    hparams: HParams | None = None,
    max_steps: int = 100_000,
) -> jax.Array:
    """Play `num_episodes` fresh episodes with the greedy policy, to their ends, and return their returns.

    Args:
      key: consumed. One key, one set of episodes: pass the same key to compare policies on the same starts.
      learner: as it was trained.
      state: of one run; `vmap` over the states of many.
      num_episodes: all are played at once.
      hparams: of the agent, by default its own.
      max_steps: an episode that has not ended by then has no return; it gives NaN.

    Returns:
      float32 `[num_episodes]`, undiscounted.

    Raises:
      TypeError, ValueError: where the key is no key, or `num_episodes` or `max_steps` is not a positive int.
    """
    check_key(key)
    num_episodes = check_size("num_episodes", num_episodes)
    max_steps = check_size("max_steps", max_steps)
    env, agent = learner.env, learner.agent
    hparams = agent.hparams if hparams is None else hparams
    reset_key, step_key = jax.random.split(key)
    fresh = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, num_episodes), env.params)
    players = jnp.arange(num_episodes) % learner.num_envs
    env_state, obs = begin_episodes(env, jax.tree.map(lambda x: x[players], state.env), fresh)
    clock = jnp.int32(0)

    def unfinished(carry):
        t, over = carry[0], carry[1]
        return (t < max_steps) & ~jnp.all(over)

    def step(carry):
        t, over, returns, env_state, obs, memory = carry
        keys = jax.random.split(jax.random.fold_in(step_key, t), num_episodes)
        action, memory, _ = agent.act(state.agent, obs, memory, None, hparams, clock)
        env_state, after = batched_step(env, keys, env_state, action)
        returns = returns + jnp.where(over, 0.0, after.reward)
        return t + 1, over | after.terminated | after.truncated, returns, env_state, after.obs, memory

    start = (jnp.int32(0), jnp.zeros(num_episodes, bool), jnp.zeros(num_episodes), env_state, obs, agent.memory(num_episodes))
    _, over, returns, *_ = jax.lax.while_loop(unfinished, step, start)
    return jnp.where(over, returns, jnp.nan)
