"""Training in environments that are not JAX programs: the loop of `jaxrl.train` on the host, with the same agents.

An iteration corresponds to `Learner.step`, with the same iteration number, the same random numbers of the agent (from
`fold_in(run_key, i)`), the same rollouts with exact truncation and true successors, and the same metrics. Acting, storing and
updating are compiled; between them the environments step in Python.
"""

import math
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import check_key, check_size
from jaxrl.envs.suites.host import Host, HostEnvs
from jaxrl.learner import check_and_cast, check_iterations, check_log_every, episode_means, reset_log_interval
from jaxrl.rollout import count_step, greedy_policy, select_done, zero_stats
from jaxrl.types import Agent, EpisodeStats, HParams, Learner, LearnerState, Metrics, Noise, PolicyParams, Transition

MetricsRow = dict[str, float]  # the metrics of a logging interval


def is_on_host(learner: Learner) -> bool:
    """Whether the learner's environments are stepped on the host rather than in a compiled program."""
    params = jax.tree.leaves(learner.env.params, is_leaf=lambda x: isinstance(x, Host))  # a wrapper may have nested them
    return any(isinstance(x, Host) for x in params)


def train_on_host(
    key: jax.Array,
    learner: Learner,
    num_iterations: int,
    hparams: HParams | None = None,
    *,
    log_every: int | None = None,
    report: Callable[[int, MetricsRow], None] = lambda done, row: None,
) -> tuple[LearnerState, Metrics]:
    """`jaxrl.train` for an environment on the host, e.g. `jaxrl.make("gymnasium/CartPole-v1")`.

    Args:
      key, learner, num_iterations, hparams, log_every: as for `jaxrl.train`. The key also seeds the environments.
      report: `(done, row)`, called after each logging interval with the number of iterations done so far, without the
        warm-up, and the metrics of the interval.

    Returns:
      The final state and the metrics, each `[num_iterations // log_every]`, as for `jaxrl.train`. The environments are closed,
      so `state.env` is empty and the running episodes are lost.

    Raises:
      TypeError: for an environment that is a JAX program (use `jaxrl.train`), or that is wrapped in one of jaxrl's wrappers.
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
    rows = []
    with closing(chunks_on_host(key, learner, num_iterations, hparams, log_every=log_every)) as chunks:
        for done, state, row in chunks:
            final = state
            rows.append(row)
            report(done, row)
    return final._replace(stats=reset_log_interval(final.stats)), jax.tree.map(lambda *x: np.stack(x), *rows)


def chunks_on_host(
    key: jax.Array, learner: Learner, num_iterations: int, hparams: HParams | None = None, *, log_every: int | None = None
) -> Generator[tuple[int, LearnerState, MetricsRow], None, None]:
    """`train_on_host` as a generator of `(done, state, row)` after each logging interval; the next one donates the state."""
    warmup, num_envs = learner.agent.warmup, learner.num_envs
    check_iterations(num_iterations, warmup)
    log_every = check_log_every(num_iterations, log_every)
    hparams = check_and_cast(key, learner, hparams)
    run_key, agent_key, reset_key = jax.random.split(key, 3)  # the first two are those of `Learner.init`
    with closing(_open(learner, num_envs)) as envs:
        obs = envs.reset(_seeds(reset_key, num_envs))
        agent_state = _init(_static(learner.agent), agent_key, obs, hparams)
        state = LearnerState(run_key, agent_state, (), obs, learner.agent.initial_carry(num_envs), zero_stats(num_envs))
        for iteration in range(warmup):
            state, rollout, _ = _play(learner, envs, state, hparams, iteration)
            state = _store(_static(learner.agent), state, rollout, np.int32(iteration))
        for start in range(warmup, warmup + num_iterations, log_every):
            state = state._replace(stats=reset_log_interval(state.stats))
            interval = []
            for iteration in range(start, start + log_every):
                state, rollout, noise = _play(learner, envs, state, hparams, iteration)
                state, metrics = _learn(_static(learner.agent), state, rollout, noise, hparams, np.int32(iteration))
                interval.append(metrics)
            means = jax.tree.map(lambda *x: np.mean(np.asarray(x), dtype=np.float32), *interval)
            yield start + log_every - warmup, state, jax.tree.map(np.asarray, episode_means(state.stats)) | means


def evaluate_on_host(
    key: jax.Array,
    learner: Learner,
    state: LearnerState,
    *,
    num_episodes: int,
    max_steps: int = 100_000,
) -> np.ndarray:
    """`jaxrl.evaluate` for an environment on the host: play greedy episodes, each with its own seed.

    Args:
      key, learner, state, num_episodes, max_steps: as for `jaxrl.evaluate`. At most `learner.num_envs` environments are
        open at once; the next episodes begin when all of these have ended.

    Returns:
      The undiscounted returns, float32 `[num_episodes]`; NaN for an episode that had not ended by `max_steps`.

    Raises:
      TypeError: for an environment that is a JAX program.
      TypeError, ValueError: as `jaxrl.evaluate`.
    """
    policy_params = greedy_policy(learner.agent, state.agent)
    return evaluate_policy_on_host(key, learner, policy_params, num_episodes=num_episodes, max_steps=max_steps)


def evaluate_policy_on_host(
    key: jax.Array, learner: Learner, policy_params: PolicyParams, *, num_episodes: int, max_steps: int = 100_000
) -> np.ndarray:
    """`evaluate_on_host` for policy parameters alone, such as a saved policy."""
    check_key(key)
    num_episodes = check_size("num_episodes", num_episodes)
    max_steps = check_size("max_steps", max_steps)
    num_envs = min(num_episodes, learner.num_envs)
    seed_key, act_key = jax.random.split(key)
    seeds = _seeds(seed_key, math.ceil(num_episodes / num_envs) * num_envs)
    with closing(_open(learner, num_envs)) as envs:
        returns = [
            _greedy_returns(
                jax.random.fold_in(act_key, first), learner.agent, envs, policy_params, seeds[first:][:num_envs], max_steps
            )
            for first in range(0, num_episodes, num_envs)
        ]
    return np.concatenate(returns)[:num_episodes]


def _greedy_returns(
    key: jax.Array, agent: Agent, envs: HostEnvs, policy_params: PolicyParams, seeds: list[int], max_steps: int
) -> np.ndarray:
    """The returns `[B]` of one greedy episode for each seed; like `rollout.play_episodes`, on the host."""
    obs, carry = envs.reset(seeds), agent.initial_carry(len(seeds))
    returns, over = np.zeros(len(seeds), np.float32), np.zeros(len(seeds), bool)
    for t in range(max_steps):
        action, carry = _exploit(_static(agent), policy_params, obs, carry, key, np.int32(t))
        obs, reward, terminated, truncated = envs.step(np.asarray(action))
        returns += np.where(over, 0, reward)
        ended = terminated | truncated
        over |= ended
        if over.all():
            return returns
        if ended.any():
            obs = envs.reset(mask=ended)  # these observations are not used, but an ended environment cannot be stepped
    return np.where(over, returns, np.nan)


def _play(
    learner: Learner, envs: HostEnvs, state: LearnerState, hparams: HParams, iteration: int
) -> tuple[LearnerState, Transition, Any]:
    """`unroll` on the host: return the state after T steps, the rollout `[T, B, ...]`, and the noise for the update."""
    agent, num_envs, num_steps = learner.agent, learner.num_envs, learner.rollout_length
    noise = _draw(_static(agent), num_steps, num_envs, state.key, np.int32(iteration))
    obs, carry = (envs.reset(), agent.initial_carry(num_envs)) if agent.fresh_episodes else (state.obs, state.carry)
    policy_params = agent.policy(state.agent)
    over = np.zeros(num_envs, bool)
    steps: list[Transition] = []
    for t in range(num_steps):
        acted = _explore(_static(agent), policy_params, obs, carry, noise.act, np.int32(t), hparams, np.int32(iteration))
        action, next_carry, extras = jax.tree.map(np.asarray, acted)
        successor, reward, terminated, truncated = envs.step(action)
        steps.append(Transition(obs, action, reward, terminated, truncated, successor, carry, extras))
        obs, carry, done = successor, next_carry, terminated | truncated
        if done.any():
            obs, carry = envs.reset(mask=done), select_done(done, agent.initial_carry(num_envs), next_carry)
        over |= done
        if agent.fresh_episodes and over.all():
            break
    steps += steps[-1:] * (num_steps - len(steps))  # padding, which is not used: all first episodes have ended
    rollout = jax.tree.map(lambda *x: np.stack(x), *steps)
    return state._replace(obs=obs, carry=carry), rollout, noise.update


# Compiled functions. The agent's functions are static arguments, so all runs of a learner share the compiled programs.


def _static(agent: Agent) -> Agent:
    """The agent without its default hyperparameters, which may be arrays and then cannot be hashed."""
    return agent._replace(hparams=())


@partial(jax.jit, static_argnums=0)
def _init(agent: Agent, key: jax.Array, obs: Any, hparams: HParams) -> Any:
    return agent.init(key, obs, hparams)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _draw(agent: Agent, num_steps: int, num_envs: int, run_key: jax.Array, iteration: Any) -> Noise:
    """The agent's part of `Learner.noise`, from the same keys."""
    agent_key, _ = jax.random.split(jax.random.fold_in(run_key, iteration))
    return agent.noise(agent_key, num_steps, num_envs)


@partial(jax.jit, static_argnums=0)
def _explore(agent: Agent, policy_params: Any, obs: Any, carry: Any, noise: Any, t: Any, hparams: HParams, iteration: Any) -> Any:
    return agent.explore(policy_params, obs, carry, jax.tree.map(lambda x: x[t], noise), hparams, iteration)


@partial(jax.jit, static_argnums=0)
def _exploit(agent: Agent, policy_params: Any, obs: Any, carry: Any, key: jax.Array, t: Any) -> Any:
    return agent.exploit(policy_params, obs, carry, jax.random.fold_in(key, t))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _store(agent: Agent, state: LearnerState, rollout: Transition, iteration: Any) -> LearnerState:
    stats = _count_rollout(agent, state.stats, rollout)
    return state._replace(agent=agent.store(state.agent, rollout, iteration), stats=stats)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _learn(
    agent: Agent, state: LearnerState, rollout: Transition, noise: Any, hparams: HParams, iteration: Any
) -> tuple[LearnerState, Metrics]:
    stats = _count_rollout(agent, state.stats, rollout)
    agent_state = agent.store(state.agent, rollout, iteration)
    agent_state, metrics = agent.update(agent_state, rollout, noise, hparams, iteration)
    return state._replace(agent=agent_state, stats=stats), jax.tree.map(jnp.mean, metrics)


def _count_rollout(agent: Agent, stats: EpisodeStats, rollout: Transition) -> EpisodeStats:
    """Count the steps as `unroll` does; with `fresh_episodes`, only those of each environment's first episode."""
    done = rollout.terminated | rollout.truncated
    ignored = jnp.zeros_like(done)
    if agent.fresh_episodes:
        ignored = jnp.cumsum(done, axis=0, dtype=jnp.int32) > done.astype(jnp.int32)
        begun = zero_stats(done.shape[1])
        stats = stats._replace(episode_return=begun.episode_return, episode_length=begun.episode_length)
    return jax.lax.scan(lambda stats, x: (count_step(stats, *x), None), stats, (rollout.reward, done, ignored))[0]


def _open(learner: Learner, num_envs: int) -> HostEnvs:
    env, host = learner.env, learner.env.params
    if not is_on_host(learner):
        raise TypeError(f"{env.name} is a JAX program: train it with jaxrl.train and play it with jaxrl.evaluate")
    if not isinstance(host, Host) or (env.reset, env.step) != (host.reset, host.step):
        raise TypeError(
            f"jaxrl's wrappers have no effect on {env.name}, which runs on the host: use one of "
            "gymnasium.wrappers before jaxrl.envs.from_gymnasium"
        )
    return host.open(num_envs)


def _seeds(key: jax.Array, num: int) -> list[int]:
    return [int(seed) for seed in jax.random.bits(key, (num,), jnp.uint32)]
