"""Training in environments that are no JAX programs: the loop of `jaxrl.train`, on the host, with the same agents.

An iteration is that of `Learner.step`: the same clock, the same random numbers of the agent (from
`fold_in(run_key, i)`), the same trajectories with exact truncation and true successors, the same metrics.
Acting, storing and updating are three compiled programs; between them the environments step in Python.
"""

import math
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import check_size
from jaxrl.envs.suites.host import Host, HostEnvs
from jaxrl.learner import check_and_cast, check_iterations, check_log_every, episode_means, reset_log_interval
from jaxrl.rollout import count_step, select_done, zero_stats
from jaxrl.types import Agent, EpisodeStats, HParams, Learner, LearnerState, Metrics, Noise, Transition

Row = dict[str, float]


def is_on_host(learner: Learner) -> bool:
    """Whether the learner's environments are stepped on the host, and not inside a compiled program."""
    params = jax.tree.leaves(learner.env.params, is_leaf=lambda x: isinstance(x, Host))  # a wrapper may have put them deeper
    return any(isinstance(x, Host) for x in params)


def train_on_host(
    key: jax.Array,
    learner: Learner,
    num_iterations: int,
    hparams: HParams | None = None,
    *,
    log_every: int | None = None,
    report: Callable[[int, Row], None] = lambda done, row: None,
) -> tuple[LearnerState, Metrics]:
    """`jaxrl.train` for an environment on the host, e.g. `jaxrl.make("gymnasium/CartPole-v1")`.

    Args:
      key, learner, num_iterations, hparams, log_every: as for `jaxrl.train`. The key also seeds the environments.
      report: called after each row of metrics, with the iterations done so far (warm-up not counted) and the row.

    Returns:
      The final state and the metrics, `[num_iterations // log_every]` each, as `jaxrl.train`. The environments
      are closed, so `state.env` is empty and the episodes under way are lost.

    Raises:
      TypeError: for an environment that is a JAX program: that is what `jaxrl.train` is for; and for a wrapper
        of jaxrl's around one that is none.
      ValueError, TypeError: as `jaxrl.train`.

    >>> import jax, jaxrl
    >>> env = jaxrl.make("gymnasium/CartPole-v1")
    >>> network = jaxrl.networks.q_network(env.observation_space, env.action_space, hidden=(16,))
    >>> agent = jaxrl.agents.dqn(network, env.action_space, batch_size=16, capacity=400, warmup=10)
    >>> learner = jaxrl.make_learner(env, agent, num_envs=4, rollout_length=1)
    >>> state, metrics = train_on_host(jax.random.key(0), learner, 20, log_every=10)
    >>> metrics["loss"].shape
    (2,)
    """
    warmup, num_envs = learner.agent.warmup, learner.num_envs
    check_iterations(num_iterations, warmup)
    log_every = check_log_every(num_iterations, log_every)
    hparams = check_and_cast(key, learner, hparams)
    run_key, agent_key, reset_key = jax.random.split(key, 3)  # the first two are those of `Learner.init`
    rows = []
    with closing(_open(learner, num_envs)) as envs:
        obs = envs.reset(_seeds(reset_key, num_envs))
        agent_state = _init(_static(learner.agent), agent_key, obs, hparams)
        state = LearnerState(run_key, agent_state, (), obs, learner.agent.memory(num_envs), zero_stats(num_envs))
        for clock in range(warmup):
            state, trajectory, _ = _play(learner, envs, state, hparams, clock)
            state = _store(_static(learner.agent), state, trajectory, np.int32(clock))
        for start in range(warmup, warmup + num_iterations, log_every):
            state = state._replace(stats=reset_log_interval(state.stats))
            of_each = []
            for clock in range(start, start + log_every):
                state, trajectory, noise = _play(learner, envs, state, hparams, clock)
                state, metrics = _learn(_static(learner.agent), state, trajectory, noise, hparams, np.int32(clock))
                of_each.append(metrics)
            means = jax.tree.map(lambda *x: np.mean(np.asarray(x), dtype=np.float32), *of_each)
            rows.append(jax.tree.map(np.asarray, episode_means(state.stats)) | means)
            report(start + log_every - warmup, rows[-1])
    return state._replace(stats=reset_log_interval(state.stats)), jax.tree.map(lambda *x: np.stack(x), *rows)


def evaluate_on_host(
    key: jax.Array,
    learner: Learner,
    state: LearnerState,
    *,
    num_episodes: int,
    hparams: HParams | None = None,
    max_steps: int = 100_000,
) -> np.ndarray:
    """`jaxrl.evaluate` for an environment on the host: whole greedy episodes, each from a seed of its own.

    Args:
      key, learner, state, num_episodes, hparams, max_steps: as for `jaxrl.evaluate`. At most
        `learner.num_envs` environments are open at once; further episodes wait until all of these have ended.

    Returns:
      float32 `[num_episodes]`, undiscounted; NaN for an episode that had not ended by `max_steps`.

    Raises:
      TypeError: for an environment that is a JAX program.
      TypeError, ValueError: as `jaxrl.evaluate`.
    """
    num_episodes = check_size("num_episodes", num_episodes)
    max_steps = check_size("max_steps", max_steps)
    hparams = check_and_cast(key, learner, hparams)
    num_envs = min(num_episodes, learner.num_envs)
    seeds = _seeds(key, math.ceil(num_episodes / num_envs) * num_envs)
    with closing(_open(learner, num_envs)) as envs:
        returns = [
            _episodes(learner.agent, envs, state.agent, seeds[first : first + num_envs], hparams, max_steps)
            for first in range(0, num_episodes, num_envs)
        ]
    return np.concatenate(returns)[:num_episodes]


def _episodes(agent: Agent, envs: HostEnvs, agent_state: Any, seeds: list[int], hparams: HParams, max_steps: int) -> np.ndarray:
    """Returns `[B]` of one greedy episode for each seed."""
    obs, memory = envs.reset(seeds), agent.memory(len(seeds))
    returns, over = np.zeros(len(seeds), np.float32), np.zeros(len(seeds), bool)
    for _ in range(max_steps):
        action, memory, _ = _act(_static(agent), agent_state, obs, memory, None, np.int32(0), hparams, np.int32(0))
        obs, reward, terminated, truncated = envs.step(np.asarray(action))
        returns += np.where(over, 0, reward)
        over |= terminated | truncated
        if over.all():
            return returns
        if (ended := terminated | truncated).any():
            obs = envs.reset(mask=ended)  # nobody looks at these any more, but an ended environment cannot be stepped
    return np.where(over, returns, np.nan)


def _play(
    learner: Learner, envs: HostEnvs, state: LearnerState, hparams: HParams, clock: int
) -> tuple[LearnerState, Transition, Any]:
    """`unroll` on the host: the state after T steps, their trajectory `[T, B, ...]`, and the noise of the update."""
    agent, num_envs, num_steps = learner.agent, learner.num_envs, learner.rollout_length
    noise = _draw(_static(agent), num_steps, num_envs, state.key, np.int32(clock))
    obs, memory = (envs.reset(), agent.memory(num_envs)) if agent.fresh_episodes else (state.obs, state.memory)
    over = np.zeros(num_envs, bool)
    steps: list[Transition] = []
    for t in range(num_steps):
        acted = _act(_static(agent), state.agent, obs, memory, noise.act, np.int32(t), hparams, np.int32(clock))
        action, next_memory, extras = jax.tree.map(np.asarray, acted)
        successor, reward, terminated, truncated = envs.step(action)
        steps.append(Transition(obs, action, reward, terminated, truncated, successor, memory, extras))
        obs, memory, done = successor, next_memory, terminated | truncated
        if done.any():
            obs, memory = envs.reset(mask=done), select_done(done, agent.memory(num_envs), next_memory)
        over |= done
        if agent.fresh_episodes and over.all():
            break
    steps += steps[-1:] * (num_steps - len(steps))  # after their episodes, where nobody looks
    trajectory = jax.tree.map(lambda *x: np.stack(x), *steps)
    return state._replace(obs=obs, memory=memory), trajectory, noise.update


# The compiled parts. An agent's functions are static, so that every run of one learner shares its programs.


def _static(agent: Agent) -> Agent:
    """The agent without its default hyperparameters, which may be arrays: what is left can be hashed."""
    return agent._replace(hparams=())


@partial(jax.jit, static_argnums=0)
def _init(agent: Agent, key: jax.Array, obs: Any, hparams: HParams) -> Any:
    return agent.init(key, obs, hparams)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _draw(agent: Agent, num_steps: int, num_envs: int, run_key: jax.Array, clock: Any) -> Noise:
    """The agent's part of `Learner.noise`, from the same keys."""
    agent_key, _ = jax.random.split(jax.random.fold_in(run_key, clock))
    return agent.noise(agent_key, num_steps, num_envs)


@partial(jax.jit, static_argnums=0)
def _act(agent: Agent, state: Any, obs: Any, memory: Any, noise: Any, t: Any, hparams: HParams, clock: Any) -> Any:
    noise_t = None if noise is None else jax.tree.map(lambda x: x[t], noise)
    return agent.act(state, obs, memory, noise_t, hparams, clock)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _store(agent: Agent, state: LearnerState, trajectory: Transition, clock: Any) -> LearnerState:
    stats = _tally(agent, state.stats, trajectory)
    return state._replace(agent=agent.store(state.agent, trajectory, clock), stats=stats)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _learn(
    agent: Agent, state: LearnerState, trajectory: Transition, noise: Any, hparams: HParams, clock: Any
) -> tuple[LearnerState, Metrics]:
    stats = _tally(agent, state.stats, trajectory)
    agent_state = agent.store(state.agent, trajectory, clock)
    agent_state, metrics = agent.update(agent_state, trajectory, noise, hparams, clock)
    return state._replace(agent=agent_state, stats=stats), jax.tree.map(jnp.mean, metrics)


def _tally(agent: Agent, stats: EpisodeStats, trajectory: Transition) -> EpisodeStats:
    """Count the steps as `unroll` does: of whole episodes, the first of each environment alone."""
    done = trajectory.terminated | trajectory.truncated
    ignored = jnp.zeros_like(done)
    if agent.fresh_episodes:
        ignored = jnp.cumsum(done, axis=0, dtype=jnp.int32) > done.astype(jnp.int32)
        begun = zero_stats(done.shape[1])
        stats = stats._replace(episode_return=begun.episode_return, episode_length=begun.episode_length)
    return jax.lax.scan(lambda stats, x: (count_step(stats, *x), None), stats, (trajectory.reward, done, ignored))[0]


def _open(learner: Learner, num_envs: int) -> HostEnvs:
    env, host = learner.env, learner.env.params
    if not is_on_host(learner):
        raise TypeError(f"{env.name} is a JAX program: train it with jaxrl.train and play it with jaxrl.evaluate")
    if not isinstance(host, Host) or (env.reset, env.step) != (host.reset, host.step):
        raise TypeError(
            f"a wrapper of jaxrl's around {env.name} would do nothing, for it runs on the host: use one of "
            "gymnasium.wrappers before jaxrl.envs.from_gymnasium"
        )
    return host.open(num_envs)


def _seeds(key: jax.Array, num: int) -> list[int]:
    return [int(seed) for seed in jax.random.bits(key, (num,), jnp.uint32)]
