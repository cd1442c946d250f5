"""Trainers: how the runs of an experiment are advanced chunk by chunk, in a compiled program or on the host.

A chunk is a logging interval. A call of the compiled program takes as many of them as fit into two seconds, or fewer if an
evaluation is due before: for each call the states of all runs are copied, and the host takes some milliseconds.
"""

import math
import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from jaxrl._src.device_memory import DoesNotFit, largest_that_fits
from jaxrl.experiment.config import Config
from jaxrl.experiment.evaluations import evaluation_due
from jaxrl.experiment.host import chunks_on_host, is_on_host
from jaxrl.experiment.policies import SavedPolicy, abstract_policies, as_numpy, policy_of
from jaxrl.learner import advance, default_log_every
from jaxrl.presets import Preset
from jaxrl.types import HParams, Learner, LearnerState, Metrics
from jaxrl.vectorization import compiler_options, rows_of_devices, spread_over, vectorize

_SECONDS = 2.0  # that a call should take, unless a single interval takes longer
_MOST_INTERVALS = 64  # in a call


class Chunk(NamedTuple):
    """A batch of runs after a logging interval."""

    runs: slice  # of all runs of the configuration
    done: int  # iterations so far, without the warm-up
    env_steps: int  # of each run so far, warm-up included
    states: Any  # leaves [batch_size, ...], of which those past the end of `runs` are copies; None in the middle of a call
    metrics: dict[str, np.ndarray]  # each [num_runs]: means over the interval
    env_steps_before: int  # of each run when the interval began


class Trainer(NamedTuple):
    """How a batch of runs is trained."""

    batch_size: int  # number of runs that are trained at once
    num_devices: int  # over which they are spread
    # (runs, done, states): from the chunk after `done` iterations to the last. `states` are those of that chunk, or None if
    # `done` is 0. The last chunk has states, and every one after which an evaluation is due. They are gone with the next chunk.
    chunks: Callable[[slice, int, Any], Generator[Chunk, None, None]]
    policies: Callable[[Chunk], SavedPolicy]  # as NumPy arrays, leaves [num_runs, ...]
    abstract_states: Any  # shapes and shardings of `Chunk.states`; None if a batch cannot go on from its states


def make_trainer(config: Config, preset: Preset, *, batch: tuple[int, int] | None = None) -> Trainer:
    """Compile what trains a batch of `config.batch_size` runs, or as many as fit into memory.

    Args:
      config: the runs.
      preset: `config.preset()`.
      batch: size of a batch, and the largest number of devices for it, to continue with batches that have begun.

    Raises:
      ValueError: if not even a single run fits, or not a batch of the size given.
    """
    return _host_trainer(config, preset) if is_on_host(preset.learner) else _device_trainer(config, preset, batch)


def _device_trainer(config: Config, preset: Preset, batch: tuple[int, int] | None) -> Trainer:
    learner, interval = preset.learner, default_log_every(preset.num_iterations)
    keys, hparams = config.runs(preset)
    size, devices, init, program = _compile_batch(config, learner, interval, (keys, hparams), batch)

    def chunks(runs, done, states):
        indices = np.minimum(runs.start + np.arange(size), config.num_runs - 1)  # the last batch may be smaller: repeat a run
        num = runs.stop - runs.start
        batch_keys, batch_hparams = jax.tree.map(lambda x: jnp.asarray(x[indices]), (keys, hparams))
        states, seconds = init(batch_keys, batch_hparams) if states is None else states, math.inf
        while done < preset.num_iterations:
            ends = _ends_of_call(config, preset, range(done + interval, preset.num_iterations + 1, interval), seconds)
            begun = time.perf_counter()
            args = states, jnp.int32(learner.agent.warmup + done), jnp.int32(len(ends)), batch_hparams
            states, metrics = program(*jax.device_put(args, program.input_shardings[0]))
            metrics = {name: np.asarray(values)[:num] for name, values in metrics.items()}
            seconds = (time.perf_counter() - begun) / len(ends)
            for i, done in enumerate(ends):
                rows = with_gaps({name: values[:, i] for name, values in metrics.items()})
                states_now = states if done == ends[-1] else None
                yield Chunk(runs, done, _env_steps(learner, done), states_now, rows, _env_steps(learner, done - interval))

    def policies(chunk):
        policy, num = partial(policy_of, learner), chunk.runs.stop - chunk.runs.start
        if config.num_shards == 1:
            return as_numpy(jax.vmap(policy)(chunk.states), num)
        of_shards = as_numpy(jax.vmap(jax.vmap(policy))(chunk.states), num)
        return jax.tree.map(_whole, of_shards, abstract_policies(config, preset))

    specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), (keys, hparams))
    sharding: Any = SingleDeviceSharding(devices[0])
    if len(devices) > 1:
        mesh = Mesh(np.array(devices).reshape(-1, config.num_shards), ("seeds", "shards"))
        sharding = NamedSharding(mesh, PartitionSpec("seeds", "shards") if config.num_shards > 1 else PartitionSpec("seeds"))
    place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    return Trainer(size, len(devices), chunks, policies, jax.tree.map(place, jax.eval_shape(init, *specs)))


def _ends_of_call(config: Config, preset: Preset, ends: range, seconds: float) -> range:
    """Those of the intervals that are left, by their last iterations, that the next call takes; one takes `seconds`."""
    most = min(len(ends), _MOST_INTERVALS, max(1, int(_SECONDS / seconds)))
    steps = [_env_steps(preset.learner, done) for done in (ends.start - ends.step, *ends[:most])]
    due = (i for i in range(1, most) if evaluation_due(config, preset.env_steps, steps[i - 1], steps[i]))
    return ends[: next(due, most)]


def _compile_batch(config: Config, learner: Learner, interval: int, runs: Any, batch: tuple[int, int] | None) -> Any:
    """Choose the number of runs in a batch and compile the program of a chunk; `runs` are all keys and hyperparameters.

    Returns the number of runs, which is equal on each device so that nothing has to be gathered, the devices, the function from
    keys and hyperparameters to initial states, and the compiled program.
    """

    def compile_on(devices):
        init = vectorize(learner.init, devices=devices, num_shards=config.num_shards)

        def advance_batch(states, iteration, num_intervals, hparams):
            advance_run = partial(_advance_run, learner, interval, iteration, num_intervals)
            return vectorize(advance_run, devices=devices, num_shards=config.num_shards)(states, hparams)

        jitted = jax.jit(advance_batch, donate_argnums=0, compiler_options=compiler_options(devices))

        num_rows = len(rows_of_devices(devices, config.num_shards))

        def compile_for(each):
            specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct((each * num_rows, *x.shape[1:]), x.dtype), runs)
            number = jax.ShapeDtypeStruct((), jnp.int32)
            return jitted.lower(jax.eval_shape(init, *specs), number, number, specs[1]).compile()

        return init, compile_for

    if batch is not None:
        return _compile_again(*batch, config.num_shards, compile_on)
    rows = rows_of_runs(config)
    while True:
        devices = tuple(device for row in rows for device in row)
        init, compile_for = compile_on(devices)
        share = math.ceil(config.num_runs / len(rows))
        most = min(share, max(1, config.batch_size // len(rows))) if config.batch_size else share
        try:
            each, program = largest_that_fits(compile_for, most, devices)
            break
        except DoesNotFit:
            if len(rows) == 1 or devices[0].platform != "cpu":
                raise
            rows = rows[: len(rows) // 2]  # they share one memory
    equal = math.ceil(share / math.ceil(share / each))  # batches of equal size repeat the fewest runs
    return equal * len(rows), devices, init, program if equal == each else compile_for(equal)


def _advance_run(
    learner: Learner, interval: int, iteration: jax.Array, num_intervals: jax.Array, state: LearnerState, hparams: HParams
) -> tuple[LearnerState, Metrics]:
    """Advance a run by a number of intervals that is known when the program runs; metrics are `[_MOST_INTERVALS]`."""

    def advance_by_one(i, state):
        return advance(state, iteration + i * interval, learner, interval, hparams, log_every=interval)

    def advance_and_log(i, carry):
        state, rows = carry
        state, row = advance_by_one(i, state)
        return state, jax.tree.map(lambda all, x: all.at[i].set(x[0]), rows, row)

    shapes = jax.eval_shape(advance_by_one, 0, state)[1]
    rows = jax.tree.map(lambda x: jnp.zeros((_MOST_INTERVALS, *x.shape[1:]), x.dtype), shapes)
    return jax.lax.fori_loop(0, num_intervals, advance_and_log, (state, rows))


def rows_of_runs(config: Config) -> tuple[tuple[jax.Device, ...], ...]:
    """The devices over which the runs are spread, each row for a run at a time: one device, or as many as a run has shards.

    If there are fewer devices than shards, there is one row with one device, on which the shards run by `vmap`.
    """
    available = jax.local_devices()
    rows = rows_of_devices(available if len(available) >= config.num_shards else available[:1], config.num_shards)
    return spread_over(min(config.num_runs, config.batch_size or config.num_runs), rows)


def _compile_again(size: int, num_devices: int, num_shards: int, compile_on: Callable) -> Any:
    """As `_compile_batch`, for batches of a given size, on as many of the devices as divide it."""
    most = min(num_devices, len(jax.local_devices())) // num_shards
    num_rows = max((n for n in range(1, most + 1) if size % n == 0), default=1)
    devices = tuple(jax.local_devices()[: num_rows * num_shards if most else 1])
    init, compile_for = compile_on(devices)
    each, program = largest_that_fits(compile_for, size // num_rows, devices)
    if each * num_rows < size:
        raise DoesNotFit(f"the run has batches of {size} runs, of which only {each * num_rows} fit into the free memory")
    return size, devices, init, program


def with_gaps(metrics: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Metrics `[N]` with NaN as the means over episodes where none finished, for which `jax_debug_nans` allows no more than 0."""
    means = ("episode_return", "episode_length")
    return metrics | {name: np.where(metrics["episodes"] > 0, metrics[name], np.nan) for name in means}


def _whole(of_shards: np.ndarray, like: np.ndarray) -> np.ndarray:
    """A leaf of policies from its shards `[num_runs, S, ...]`: they are equal, or each has a part of the environments."""
    if of_shards.shape[2:] == like.shape[1:]:
        return of_shards[:, 0]
    return of_shards.reshape(len(of_shards), *like.shape[1:])


def _host_trainer(config: Config, preset: Preset) -> Trainer:
    """For environments on the host: one run after the other. Their state is in Python, so an interrupted run begins again."""
    learner = preset.learner
    keys, hparams = config.runs(preset)

    def chunks(runs, done, states):
        assert not done, "an environment on the host cannot go on from where it was"
        key, run_hparams = jax.tree.map(lambda x: x[runs.start], (keys, hparams))
        before = 0
        for done, state, row in chunks_on_host(key, learner, preset.num_iterations, run_hparams):
            states, metrics = jax.tree.map(lambda x: x[None], state), jax.tree.map(lambda x: np.asarray(x)[None], row)
            yield Chunk(runs, done, _env_steps(learner, done), states, with_gaps(metrics), _env_steps(learner, before))
            before = done

    def policies(chunk):
        return as_numpy(policy_of(learner, chunk.states), 1)

    return Trainer(1, 1, chunks, policies, None)


def _env_steps(learner: Learner, done: int) -> int:
    return (learner.agent.warmup + done) * learner.num_envs * learner.rollout_length
