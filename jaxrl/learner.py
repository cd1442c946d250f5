"""A training run as one pure function: `make_learner`, `train`, `advance`.

The driver owns the iteration number, an unbatched int32, and the random numbers: those of iteration i are derived from
`fold_in(run_key, i)`, so a run has the same bits however it is divided into calls.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.agent_checks import check_agent
from jaxrl._src.checks import check_key, check_keys, check_record, check_size
from jaxrl._src.shards import mean, num_shards, own, own_key, shard_size, total
from jaxrl._src.traced_once import TracedOnce
from jaxrl.resets import MAX_NOISE_BYTES, ResetScheme, num_bytes, reset_all, reset_scheme
from jaxrl.rollout import RolloutCarry, RolloutNoise, unroll, zero_stats
from jaxrl.types import Agent, Environment, EpisodeStats, HParams, Learner, LearnerState, Metrics, Transition

# Noise is drawn for about this many environment steps at once, up to MAX_NOISE_BYTES per seed. This saves kernels: an iteration
# of DQN takes 30 on a GPU, and 41 if it draws its own noise.
_BLOCK_STEPS = 64
_POOLED_BLOCK_STEPS = 512  # an expensive reset is usually a loop, and looping over the pools of many iterations takes no longer

_MAP = "to train with several values, map over them: jax.vmap(lambda hparams: jaxrl.train(key, learner, num_iterations, hparams))"


class IterationNoise(NamedTuple):
    """What `Learner.noise` draws and `Learner.step` consumes."""

    rollout: RolloutNoise
    update: Any  # the agent's `Noise.update`


def make_learner(env: Environment, agent: Agent, *, num_envs: int, rollout_length: int, reset_pool: int | None = None) -> Learner:
    """Combine an agent with `num_envs` copies of an environment.

    An iteration takes `rollout_length` steps in each copy. Every function of the agent is traced once, without computing
    anything, so that mistakes are reported here.

    Args:
      env: from `jaxrl.make`, or your own.
      agent: from `jaxrl.agents`, or your own.
      num_envs: B, the number of environments that each seed steps in parallel.
      rollout_length: T, steps of each environment between two updates.
      reset_pool: K, for environments whose reset is much more expensive than their step. Only K fresh episodes are drawn for
        an iteration instead of one for each of its B × T steps, and every episode that begins in it starts from one of
        them, chosen at random. The distribution of starts is still that of the environment. Two episodes that begin in the
        same iteration have the same start with probability 1 / K; starts in different iterations are independent. By default
        there is no pool, and all starts are independent.

    Raises:
      TypeError, ValueError: if a size is not a positive int, if the agent plays whole episodes and the environment's
        time limit is longer than the rollout, or if a function of the agent violates its protocol in `jaxrl.types` (the
        error names the field and how to fix it).
    """
    if not isinstance(env, Environment):
        raise TypeError(f"env must be an Environment, such as jaxrl.make('CartPole-v1'); got {env!r}")
    if not isinstance(agent, Agent):
        raise TypeError(f"agent must be an Agent, such as jaxrl.agents.dqn(network, env.action_space); got {agent!r}")
    num_envs = check_size("num_envs", num_envs)
    rollout_length = check_size("rollout_length", rollout_length)
    reset_pool = None if reset_pool is None else check_size("reset_pool", reset_pool)
    _check_fresh_episodes(env, agent, rollout_length)
    traced = _traced_once(agent)

    envs_of_shard = lambda: shard_size("num_envs", num_envs)  # of what is being traced
    resets_of = functools.partial(_resets_of_shard, env, agent.fresh_episodes, rollout_length, reset_pool)
    whole = resets_of(num_envs, 1)  # here, so that the shapes of a reset are not found in the middle of the program
    resets_of_shard = lambda: whole if num_shards() == 1 else resets_of(envs_of_shard(), num_shards())
    max_block = _max_block(rollout_length, reset_pool)

    # Three callers trace the functions that follow: the metrics' shapes, the warm-up and the run.
    # All keys of a level come from a single split: each call of the generator takes a CPU a quarter of a second to compile.
    @TracedOnce
    def noise(key: jax.Array) -> IterationNoise:
        envs, resets = envs_of_shard(), resets_of_shard()
        agent_key, step_key, reset_keys = _split(own_key(key), 2, resets.num_keys)
        agent_noise = agent.noise(agent_key, rollout_length, envs)
        step_keys = jax.random.split(step_key, (rollout_length, envs))
        return IterationNoise(RolloutNoise(step_keys, resets.draw(reset_keys), agent_noise.act), agent_noise.update)

    @TracedOnce
    def act(
        state: LearnerState, noise: IterationNoise, hparams: HParams, iteration: jax.Array
    ) -> tuple[LearnerState, Transition]:
        carry = RolloutCarry(state.env, state.obs, state.carry, state.stats)
        policy_params = agent.policy(state.agent)
        episode = resets_of_shard().episode
        carry, rollout = unroll(env, traced, policy_params, carry, noise.rollout, episode, hparams, iteration)
        return LearnerState(state.key, traced.store(state.agent, rollout, iteration), *carry), rollout

    @TracedOnce
    def step(state: LearnerState, noise: IterationNoise, hparams: HParams, iteration: jax.Array) -> tuple[LearnerState, Metrics]:
        state, rollout = act(state, noise, hparams, iteration)
        agent_state, metrics = traced.update(state.agent, rollout, noise.update, hparams, iteration)
        return state._replace(agent=agent_state), metrics

    def init(key: jax.Array, hparams: HParams) -> LearnerState:
        run_key, agent_key, reset_keys = _split(key, 2, num_envs)
        envs = envs_of_shard()
        env_state, obs = reset_all(env, own(reset_keys))
        agent_state = agent.init(agent_key, obs, hparams)  # checks them, where they are not arrays of a trace yet
        hparams = _as_arrays(hparams)
        state = LearnerState(run_key, agent_state, env_state, obs, agent.initial_carry(envs), zero_stats(envs))
        if agent.warmup:
            state, _ = _scan_iterations(
                noise, lambda *args: (act(*args)[0], {}), state, jnp.int32(0), agent.warmup, max_block, hparams
            )
        return state._replace(stats=reset_log_interval(state.stats))

    check_agent(env, traced, envs_of_shard(), rollout_length)
    return Learner(env, agent, num_envs, rollout_length, init, noise, step, reset_pool)


def train(
    key: jax.Array, learner: Learner, num_iterations: int, hparams: HParams | None = None, *, log_every: int | None = None
) -> tuple[LearnerState, Metrics]:
    """Train an agent: initialise, warm up, then act and learn for `num_iterations`.

    This is a pure function. Transform it with `jit`, `vmap` (over keys, hyperparameters, environment parameters) or
    `jaxrl.vectorize`.

    Args:
      key: a typed PRNG key, consumed.
      learner: from `make_learner`.
      num_iterations: number of iterations, of `num_envs * rollout_length` environment steps each.
      hparams: the agent's record of hyperparameters; by default `learner.agent.hparams`.
      log_every: number of iterations in a logging interval, over which metrics are averaged. By default there are
        about 100 intervals, as near as a divisor of `num_iterations` allows: a prime number has 1 or `num_iterations`.

    Returns:
      The final state, from which the run continues at iteration `learner.agent.warmup + num_iterations`, and the metrics,
      each `[num_iterations // log_every]`: means over each logging interval. Episode means are NaN for an interval in which
      no episode finished.

    Raises:
      ValueError: if `log_every` does not divide `num_iterations`, or a hyperparameter is out of range or has another shape than
        its default. A traced one, such as an argument of a function under `jit`, has no value yet and is not checked.
      TypeError: if a size is not an int, the key is not a typed PRNG key, or `hparams` belong to another agent.

    >>> import jax, jaxrl
    >>> env = jaxrl.make("PointMass")
    >>> network = jaxrl.networks.policy(env.observation_space, env.action_space)
    >>> learner = jaxrl.make_learner(env, jaxrl.agents.reinforce(network, env.action_space), num_envs=4, rollout_length=50)
    >>> state, metrics = jax.jit(lambda key: jaxrl.train(key, learner, 10))(jax.random.key(0))
    >>> metrics["episode_return"].shape
    (10,)
    """
    check_iterations(num_iterations, learner.agent.warmup)
    check_key(key)
    hparams = _check_scalars(learner, hparams)
    state = learner.init(key, hparams)
    return advance(state, jnp.int32(learner.agent.warmup), learner, num_iterations, hparams, log_every=log_every)


def advance(
    state: LearnerState,
    iteration: jax.Array | int,
    learner: Learner,
    num_iterations: int,
    hparams: HParams | None = None,
    *,
    log_every: int | None = None,
) -> tuple[LearnerState, Metrics]:
    """Continue a run.

    `train` for n iterations equals `learner.init` followed by any calls of `advance` that add up to n iterations, bit for bit.
    The exception is `train` for a single iteration, which XLA inlines into the initialisation and may round differently in
    the last bit.

    Args:
      state: the state of the run so far. Donate it at the jit boundary to avoid copying a replay.
      iteration: the number of the next iteration: `agent.warmup` plus the iterations done so far. May be traced, but not
        batched.
      learner, num_iterations, hparams, log_every: as for `train`; whether hyperparameters are within their ranges is checked by
        `learner.init` and `train` alone.

    Returns:
      The next state, from which the run continues at `iteration + num_iterations`, and the metrics, as for `train`.

    Raises:
      ValueError: if `iteration` is not traced and lies within the warm-up, which `learner.init` has already done.
      TypeError, ValueError: as for `train`.
    """
    num_iterations = check_iterations(num_iterations)
    log_every = check_log_every(num_iterations, log_every)
    check_key(state.key)
    hparams = _as_arrays(_check_scalars(learner, hparams))
    iteration = _check_iteration(iteration, learner.agent.warmup)

    max_block = _max_block(learner.rollout_length, learner.reset_pool)

    def log_interval(state, start):
        state, sums = _scan_iterations(learner.noise, learner.step, state, start, log_every, max_block, hparams)
        means = mean({name: jnp.mean(values) / log_every for name, values in sums.items()})
        metrics = episode_means(state.stats) | means
        return state._replace(stats=reset_log_interval(state.stats)), metrics

    starts = iteration + log_every * jnp.arange(num_iterations // log_every, dtype=jnp.int32)
    return jax.lax.scan(log_interval, state, starts)


def _check_iteration(iteration: jax.Array | int, warmup: int) -> jax.Array:
    """Return the number of the next iteration as int32. Raises ValueError if it is not traced and below the warm-up."""
    if not isinstance(iteration, jax.core.Tracer):
        iteration = check_size("iteration", iteration, minimum=0)
        if iteration < warmup:
            raise ValueError(
                f"iteration {iteration} is within the warm-up of {warmup} iterations, which learner.init has done already: a run "
                f"starts at iteration agent.warmup = {warmup}"
            )
    return jnp.asarray(iteration, jnp.int32)


def _max_block(rollout_length: int, reset_pool: int | None) -> int:
    """The largest number of iterations for which noise is drawn at once."""
    return max(1, (_BLOCK_STEPS if reset_pool is None else _POOLED_BLOCK_STEPS) // rollout_length)


def _scan_iterations(draw, step, state: LearnerState, start: jax.Array, num: int, max_block: int, hparams: HParams):
    """Run iterations start … start + num - 1, drawing their noise in blocks, and sum their metrics."""
    key = state.key
    fitting = min(max_block, MAX_NOISE_BYTES // max(1, num_bytes(jax.eval_shape(draw, key))))
    block = _largest_divisor(num, at_most=max(1, fitting))

    def iterate(carry, iteration_and_noise):
        state, sums = carry
        iteration, noise = iteration_and_noise
        state, metrics = step(state, noise, hparams, iteration)
        return (state, jax.tree.map(jnp.add, sums, metrics)), None

    def run_block(carry, first):
        iterations = first + jnp.arange(block, dtype=jnp.int32)
        noise = jax.vmap(lambda iteration: draw(jax.random.fold_in(key, iteration)))(iterations)
        return jax.lax.scan(iterate, carry, (iterations, noise))

    metrics = jax.eval_shape(lambda s: step(s, draw(key), hparams, start)[1], state)
    sums = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), metrics)
    firsts = start + block * jnp.arange(num // block, dtype=jnp.int32)
    return jax.lax.scan(run_block, (state, sums), firsts)[0]


def check_iterations(num_iterations: int, warmup: int = 0) -> int:
    """Return `num_iterations` as an int. Raises ValueError if an int32 could not number the iterations."""
    num_iterations = check_size("num_iterations", num_iterations, maximum=None)
    if num_iterations + warmup >= 2**31:
        raise ValueError(
            f"num_iterations {num_iterations} is too many: iterations are numbered by an int32, up to 2^31 - 1 with the warm-up; "
            "take more environment steps in each (num_envs, rollout_length)"
        )
    return num_iterations


def check_log_every(num_iterations: int, log_every: int | None) -> int:
    """Return the number of iterations in a logging interval; by default, `default_log_every`.

    Raises ValueError if it does not divide `num_iterations`.
    """
    log_every = default_log_every(num_iterations) if log_every is None else check_size("log_every", log_every)
    if num_iterations % log_every:
        raise ValueError(
            f"num_iterations {num_iterations} must be a multiple of log_every {log_every}: a remainder would compile "
            f"the program twice; the nearest are {num_iterations - num_iterations % log_every} and "
            f"{num_iterations + -num_iterations % log_every}"
        )
    return log_every


def default_log_every(num_iterations: int) -> int:
    """The divisor of `num_iterations` for which the number of logging intervals is nearest to 100, by ratio."""
    divisors = [d for d in range(1, min(num_iterations, 10_000) + 1) if num_iterations % d == 0]
    num_intervals = min(divisors, key=lambda d: abs(math.log(d / 100)))
    return num_iterations // num_intervals


def _largest_divisor(n: int, at_most: int) -> int:
    return next(d for d in range(min(n, at_most), 0, -1) if n % d == 0)


def _split(key: jax.Array, num: int, num_more: int) -> tuple[jax.Array, ...]:
    """Split a key into `num` single keys and an array of `num_more` keys."""
    keys = jax.random.split(key, num + num_more)
    return *(keys[i] for i in range(num)), keys[num:]


def episode_means(stats: EpisodeStats) -> Metrics:
    """Means over the episodes that finished in any environment; NaN if none did.

    Under `jax_debug_nans`, which takes every NaN in the results of a program for an error, 0 stands for NaN if `episodes` is 0.
    """
    finished = total(jnp.sum(stats.finished, dtype=jnp.int32))
    count = jnp.maximum(finished, 1).astype(jnp.float32)
    none = 0.0 if jax.config.jax_debug_nans else jnp.nan  # type: ignore[attr-defined]
    per_episode = lambda values: jnp.where(finished > 0, total(jnp.sum(values)) / count, none)
    return {
        "episode_return": per_episode(stats.finished_return),
        "episode_length": per_episode(stats.finished_length),
        "episodes": finished,
    }


def reset_log_interval(stats: EpisodeStats) -> EpisodeStats:
    """Reset the sums over finished episodes; running episodes continue."""
    return stats._replace(
        finished_return=jnp.zeros_like(stats.finished_return),
        finished_length=jnp.zeros_like(stats.finished_length),
        finished=jnp.zeros_like(stats.finished),
    )


def check_and_cast(key: jax.Array, learner: Learner, hparams: HParams | None) -> HParams:
    """Check the key and return the hyperparameters, of one run or of several, as float32 arrays."""
    check_keys(key)
    return _as_arrays(_check_hparams(learner, hparams))


def _check_hparams(learner: Learner, hparams: HParams | None) -> HParams:
    """The hyperparameters in float32, as NumPy arrays where they are not traced: `jit` would trace a JAX array, which has no
    value then that `agent.init` could check."""
    hparams = learner.agent.hparams if hparams is None else hparams
    defaults = learner.agent.hparams
    check_record(hparams, type(defaults))
    for name, value, default in zip(hparams._fields, hparams, defaults, strict=True):
        if jax.tree.structure((value,)) != jax.tree.structure((default,)):  # type: ignore[operator]
            raise TypeError(f"hparams.{name} must be a number or an array, got {value!r}; {_MAP}")
    cast = lambda x: x.astype(jnp.float32) if isinstance(x, jax.core.Tracer) else np.asarray(x, np.float32)
    return jax.tree.map(cast, hparams)


def _check_scalars(learner: Learner, hparams: HParams | None) -> HParams:
    """As `_check_hparams`, for one run. Raises ValueError for values of several runs."""
    hparams = _check_hparams(learner, hparams)
    for (path, x), default in zip(
        jax.tree_util.tree_leaves_with_path(hparams), jax.tree.leaves(learner.agent.hparams), strict=True
    ):
        if x.shape != np.shape(default):
            shapes = f"the shape {list(np.shape(default))}, got {list(x.shape)}"
            raise ValueError(f"hparams{jax.tree_util.keystr(path)} must have {shapes}; {_MAP}")
    return hparams


def _as_arrays(hparams: HParams) -> HParams:
    """As float32 arrays of JAX, so that they have the same type everywhere and NumPy computes nothing with them."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), hparams)


def _traced_once(agent: Agent) -> Agent:
    """The agent with functions that Python runs once for all that trace them: the checks, the warm-up and the run."""
    return agent._replace(explore=TracedOnce(agent.explore), store=TracedOnce(agent.store), update=TracedOnce(agent.update))


def _resets_of_shard(env: Environment, once: bool, rollout_length: int, pool: int | None, envs: int, shards: int) -> ResetScheme:
    """How one of several shards draws the fresh episodes of an iteration, for `envs` environments of its own."""
    shape = (envs,) if once else (rollout_length, envs)
    return reset_scheme(env, shape, None if pool is None else math.ceil(pool / shards))


def _check_fresh_episodes(env: Environment, agent: Agent, rollout_length: int) -> None:
    limit = getattr(env.params, "max_steps_in_episode", None)
    if not agent.fresh_episodes or limit is None or isinstance(limit, jax.core.Tracer):
        return
    if rollout_length < limit:
        raise ValueError(
            f"rollout_length {rollout_length} is shorter than an episode of {env.name} may be ({limit} steps), and this agent "
            f"learns from whole episodes: use rollout_length={limit}, or an agent that bootstraps, such as reinforce with "
            "mode='continuing'"
        )
