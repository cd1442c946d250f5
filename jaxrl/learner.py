"""A training run as one pure function: `make_learner`, `train`, `advance`.

The driver owns the clock, an unbatched int32 that numbers the iterations, and the random numbers: those
of iteration i come from `fold_in(run_key, i)`, so a run has the same bits however it is cut up.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl._src.checks import check_key, check_record, check_size
from jaxrl.rollout import RolloutCarry, RolloutNoise, unroll, zero_stats
from jaxrl.types import Agent, Environment, EpisodeStats, HParams, Learner, LearnerState, Metrics

# Noise is drawn for about this many environment steps at once: that saves the kernels which draw it
# (30 against 41 for an iteration of DQN on a GPU). It takes at most this many bytes of a seed; where the fresh episodes
# of a single iteration would take more, they are made when their step comes, from the same keys.
_BLOCK_STEPS = 64
_POOLED_BLOCK_STEPS = 512  # a dear reset is most often a loop, whose steps take no longer for the pools of more iterations
_NOISE_BYTES = 4 * 2**20


class IterationNoise(NamedTuple):
    """What `Learner.noise` draws and `Learner.step` consumes."""

    rollout: RolloutNoise
    update: Any  # the agent's `Noise.update`


def make_learner(env: Environment, agent: Agent, *, num_envs: int, rollout_length: int, reset_pool: int | None = None) -> Learner:
    """Put an agent into `num_envs` copies of an environment; an iteration is `rollout_length` steps of each.

    Args:
      env: from `jaxrl.make`, or your own.
      agent: from `jaxrl.agents`, or your own.
      num_envs: B, how many environments each seed steps at once.
      rollout_length: T, steps of each environment between two updates.
      reset_pool: K, for environments whose reset is much dearer than their step: only K fresh episodes are
        drawn for an iteration, not one for each of its B × T steps, and every episode that begins in it starts
        from one of these, taken at random. Each start has the environment's own distribution, and two that
        begin in one iteration are the same with probability 1 / K; in different iterations they are
        independent. By default there is no pool, and all are independent.

    Raises:
      TypeError, ValueError: where a size is not a positive int, where the agent plays whole episodes
        and the environment's time limit is longer than the rollout, or where the pieces do not fit
        each other (the agent's own errors, found by tracing the shapes of one iteration).
    """
    num_envs = check_size("num_envs", num_envs)
    rollout_length = check_size("rollout_length", rollout_length)
    reset_pool = None if reset_pool is None else check_size("reset_pool", reset_pool)
    _check_whole_episodes(env, agent, rollout_length)
    shape = (num_envs,) if agent.fresh_episodes else (rollout_length, num_envs)
    num_reset_keys, draw_resets = _reset_noise(env, shape, reset_pool)
    most_at_once = _most_at_once(rollout_length, reset_pool)

    # All keys of one level come from one split: on a CPU each call of the generator takes a quarter of a second to compile.
    def noise(key: jax.Array) -> IterationNoise:
        agent_key, step_key, reset_keys = _split(key, 2, num_reset_keys)
        agent_noise = agent.noise(agent_key, rollout_length, num_envs)
        step_keys = jax.random.split(step_key, (rollout_length, num_envs))
        reset, pool = draw_resets(reset_keys)
        return IterationNoise(RolloutNoise(step_keys, reset, agent_noise.act, pool), agent_noise.update)

    def play(state: LearnerState, noise: IterationNoise, hparams: HParams, clock: jax.Array):
        players = RolloutCarry(state.env, state.obs, state.memory, state.stats)
        players, trajectory = unroll(env, agent, state.agent, players, noise.rollout, hparams, clock)
        agent_state = agent.store(state.agent, trajectory, clock)
        return LearnerState(state.key, agent_state, *players), trajectory

    def step(state: LearnerState, noise: IterationNoise, hparams: HParams, clock: jax.Array) -> tuple[LearnerState, Metrics]:
        state, trajectory = play(state, noise, hparams, clock)
        agent_state, metrics = agent.update(state.agent, trajectory, noise.update, hparams, clock)
        return state._replace(agent=agent_state), metrics

    def init(key: jax.Array, hparams: HParams) -> LearnerState:
        run_key, agent_key, reset_keys = _split(key, 2, num_envs)
        env_state, obs = _reset(env, reset_keys)
        agent_state = agent.init(agent_key, obs, hparams)
        state = LearnerState(run_key, agent_state, env_state, obs, agent.memory(num_envs), zero_stats(num_envs))
        if agent.warmup:
            state, _ = _scan_iterations(
                noise, lambda *args: (play(*args)[0], {}), state, jnp.int32(0), agent.warmup, most_at_once, hparams
            )
        return state._replace(stats=reset_log_interval(state.stats))

    # Python runs these once for all that trace them: the check below, the shapes of the metrics, the warm-up and the run.
    noise, play, step = (jax.jit(f, inline=True) for f in (noise, play, step))
    learner = Learner(env, agent, num_envs, rollout_length, init, noise, step, reset_pool)
    jax.eval_shape(lambda key: train(key, learner, 1), jax.random.key(0))  # the agent's own errors, here and now
    return learner


def train(
    key: jax.Array, learner: Learner, num_iterations: int, hparams: HParams | None = None, *, log_every: int | None = None
) -> tuple[LearnerState, Metrics]:
    """A whole training run: initialise (with the agent's warm-up), then `num_iterations` that learn.

    Pure: put `jit`, `vmap` (over keys, hyperparameters, environment parameters) or `jaxrl.vectorize` around it.

    Args:
      key: a typed PRNG key, consumed.
      learner: from `make_learner`.
      num_iterations: each is `num_envs * rollout_length` environment steps.
      hparams: the agent's record of hyperparameters; by default `learner.agent.hparams`.
      log_every: iterations in a row of metrics; by default about 100 rows.

    Returns:
      The final state (its clock is `learner.agent.warmup + num_iterations`), and the metrics, each
      `[num_iterations // log_every]`: means over the row, NaN for episode means where none finished.

    Raises:
      ValueError: where `log_every` does not divide `num_iterations`, or a hyperparameter is out of range.
      TypeError: where a size is no int, the key is no key, or `hparams` are another agent's.

    >>> import jax, jaxrl
    >>> env = jaxrl.make("PointMass")
    >>> network = jaxrl.networks.policy(env.observation_space, env.action_space)
    >>> learner = jaxrl.make_learner(env, jaxrl.agents.reinforce(network, env.action_space), num_envs=4, rollout_length=50)
    >>> state, metrics = jax.jit(lambda key: jaxrl.train(key, learner, 10))(jax.random.key(0))
    >>> metrics["episode_return"].shape
    (10,)
    """
    check_iterations(num_iterations, learner.agent.warmup)
    hparams = check_and_cast(key, learner, hparams)
    state = learner.init(key, hparams)
    return advance(state, jnp.int32(learner.agent.warmup), learner, num_iterations, hparams, log_every=log_every)


def advance(
    state: LearnerState,
    clock: jax.Array | int,
    learner: Learner,
    num_iterations: int,
    hparams: HParams | None = None,
    *,
    log_every: int | None = None,
) -> tuple[LearnerState, Metrics]:
    """Continue a run: `train` for n iterations equals `init` and any chain of `advance` over n, bit for bit.

    (`train` for a single iteration is the exception: XLA then inlines it into the initialisation, folds what
    it knows there, and may round the last bit differently.)

    Args:
      state: of the run so far; donate it at the jit boundary, and a replay is not copied.
      clock: number of the next iteration, `agent.warmup` plus those done so far. May be traced, must not be batched.
      learner, num_iterations, hparams, log_every: as for `train`.

    Returns:
      The state after it (the clock then reads `clock + num_iterations`) and the metrics, as `train`.

    Raises:
      As `train`.
    """
    num_iterations = check_iterations(num_iterations)
    log_every = check_log_every(num_iterations, log_every)
    hparams = check_and_cast(state.key, learner, hparams)
    if not isinstance(clock, jax.Array):
        clock = check_size("clock", clock, minimum=0)
    clock = jnp.asarray(clock, jnp.int32)

    most_at_once = _most_at_once(learner.rollout_length, learner.reset_pool)

    def row(state, start):
        state, sums = _scan_iterations(learner.noise, learner.step, state, start, log_every, most_at_once, hparams)
        means = {name: jnp.mean(total) / log_every for name, total in sums.items()}
        metrics = episode_means(state.stats) | means
        return state._replace(stats=reset_log_interval(state.stats)), metrics

    starts = clock + log_every * jnp.arange(num_iterations // log_every, dtype=jnp.int32)
    return jax.lax.scan(row, state, starts)


def _most_at_once(rollout_length: int, reset_pool: int | None) -> int:
    """Of how many iterations the noise may be drawn at once."""
    return max(1, (_BLOCK_STEPS if reset_pool is None else _POOLED_BLOCK_STEPS) // rollout_length)


def _scan_iterations(draw, step, state: LearnerState, start: jax.Array, num: int, most_at_once: int, hparams: HParams):
    """Run iterations start … start + num - 1, drawing their noise in blocks; the metrics are summed."""
    key = state.key
    fitting = min(most_at_once, _NOISE_BYTES // max(1, _num_bytes(jax.eval_shape(draw, key))))
    block = _largest_divisor(num, at_most=max(1, fitting))

    def iterate(carry, clock_and_noise):
        state, sums = carry
        clock, noise = clock_and_noise
        state, metrics = step(state, noise, hparams, clock)
        return (state, jax.tree.map(jnp.add, sums, metrics)), None

    def run_block(carry, first):
        clocks = first + jnp.arange(block, dtype=jnp.int32)
        noise = jax.vmap(lambda clock: draw(jax.random.fold_in(key, clock)))(clocks)
        return jax.lax.scan(iterate, carry, (clocks, noise))

    metrics = jax.eval_shape(lambda s: step(s, draw(key), hparams, start)[1], state)
    sums = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), metrics)
    firsts = start + block * jnp.arange(num // block, dtype=jnp.int32)
    return jax.lax.scan(run_block, (state, sums), firsts)[0]


def check_iterations(num_iterations: int, warmup: int = 0) -> int:
    """Return `num_iterations` as an int; raise ValueError where the clock, an int32, could not number them."""
    num_iterations = check_size("num_iterations", num_iterations, maximum=None)
    if num_iterations + warmup >= 2**31:
        raise ValueError(
            f"num_iterations {num_iterations} is too many: the clock numbers iterations up to 2^31 - 1, warm-up included; "
            "take more environment steps in each (num_envs, rollout_length)"
        )
    return num_iterations


def check_log_every(num_iterations: int, log_every: int | None) -> int:
    """Return how many iterations make a row of metrics, by default about 100 rows.

    Raises ValueError where that does not divide `num_iterations`.
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
    """The divisor of `num_iterations` that gives nearest to 100 rows, by ratio."""
    divisors = [d for d in range(1, min(num_iterations, 10_000) + 1) if num_iterations % d == 0]
    rows = min(divisors, key=lambda d: abs(math.log(d / 100)))
    return num_iterations // rows


def _largest_divisor(n: int, at_most: int) -> int:
    return next(d for d in range(min(n, at_most), 0, -1) if n % d == 0)


def _reset(env: Environment, keys: jax.Array) -> Any:
    """Fresh (env_state, obs), one for each key, in the shape of the keys."""
    reset = env.reset
    for _ in keys.shape:
        reset = jax.vmap(reset, (0, None))
    return reset(keys, env.params)


def _split(key: jax.Array, num: int, num_more: int) -> tuple[jax.Array, ...]:
    """`num` keys one by one, and an array of `num_more`."""
    keys = jax.random.split(key, num + num_more)
    return *(keys[i] for i in range(num)), keys[num:]


def _reset_noise(
    env: Environment, shape: tuple[int, ...], pool_size: int | None
) -> tuple[int, Callable[[jax.Array], tuple[Any, Any]]]:
    """How to draw `RolloutNoise.reset` and `.pool`, fresh episodes for every position of `shape`: a number of keys, and a
    function of these."""
    episode = jax.eval_shape(env.reset, jax.random.key(0), env.params)
    ahead = math.prod(shape) * _num_bytes(episode) <= _NOISE_BYTES

    def draw_each(keys: jax.Array) -> tuple[Any, Any]:
        keys = keys.reshape(shape)
        return (_reset(env, keys) if ahead else keys), ()

    def draw_pool(keys: jax.Array) -> tuple[Any, Any]:
        places = jax.random.randint(keys[0], shape, 0, keys.size - 1)
        return places, _reset(env, keys[1:])

    return (math.prod(shape), draw_each) if pool_size is None else (1 + pool_size, draw_pool)


def _num_bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def episode_means(stats: EpisodeStats) -> Metrics:
    """Means over the episodes that finished, summed over the environments first; 0/0 is NaN, as it should."""
    finished = jnp.sum(stats.finished)
    count = finished.astype(jnp.float32)
    return {
        "episode_return": jnp.sum(stats.finished_return) / count,
        "episode_length": jnp.sum(stats.finished_length) / count,
        "episodes": finished,
    }


def reset_log_interval(stats: EpisodeStats) -> EpisodeStats:
    finished = (stats.finished_return, stats.finished_length, stats.finished)
    return stats._replace(
        **dict(zip(("finished_return", "finished_length", "finished"), map(jnp.zeros_like, finished), strict=True))
    )


def check_and_cast(key: jax.Array, learner: Learner, hparams: HParams | None) -> HParams:
    """Check the key, and give the hyperparameters as float32 arrays: a Python number's weak type would recompile."""
    check_key(key)
    hparams = learner.agent.hparams if hparams is None else hparams
    check_record(hparams, type(learner.agent.hparams))
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), hparams)


def _check_whole_episodes(env: Environment, agent: Agent, rollout_length: int) -> None:
    limit = getattr(env.params, "max_steps_in_episode", None)
    if not agent.fresh_episodes or limit is None or isinstance(limit, jax.core.Tracer):
        return
    if rollout_length < limit:
        raise ValueError(
            f"rollout_length {rollout_length} is shorter than an episode of {env.name} may be ({limit} steps), and this agent "
            f"learns from whole episodes: use rollout_length={limit}, or an agent that bootstraps (mode='continuing')"
        )
