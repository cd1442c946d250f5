"""Trainers: how the runs of an experiment are advanced chunk by chunk, in a compiled program or on the host."""

import math
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from jaxrl._src.device_memory import DoesNotFit, largest_that_fits
from jaxrl.experiment.config import Config
from jaxrl.experiment.host import chunks_on_host, is_on_host
from jaxrl.experiment.policies import SavedPolicy, as_numpy, policy_of
from jaxrl.learner import advance, default_log_every
from jaxrl.presets import Preset
from jaxrl.types import Learner, LearnerState
from jaxrl.vectorization import compiler_options, spread_over, vectorize


class Chunk(NamedTuple):
    """A batch of runs after a logging interval."""

    runs: slice  # of all runs of the configuration
    done: int  # iterations so far, without the warm-up
    env_steps: int  # of each run so far, warm-up included
    states: LearnerState  # leaves [batch_size, ...]; elements past the end of `runs` are copies
    metrics: dict[str, np.ndarray]  # each [num_runs]: means over the interval
    env_steps_before: int  # of each run when the interval began


class Trainer(NamedTuple):
    """How a batch of runs is trained."""

    batch_size: int  # number of runs that are trained at once
    num_devices: int  # over which they are spread
    # (runs, done, states): from the chunk after `done` iterations to the last. `states` are those of that chunk, or None if
    # `done` is 0. The states of a chunk are gone with the next one.
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
        states = init(batch_keys, batch_hparams) if states is None else states
        for start in range(done, preset.num_iterations, interval):
            args = states, jnp.int32(learner.agent.warmup + start), batch_hparams
            states, metrics = program(*jax.device_put(args, program.input_shardings[0]))
            rows = {name: np.asarray(values)[:num, 0] for name, values in metrics.items()}
            done = start + interval
            yield Chunk(runs, done, _env_steps(learner, done), states, rows, _env_steps(learner, start))

    def policies(chunk):
        return as_numpy(jax.vmap(lambda state: policy_of(learner, state))(chunk.states), chunk.runs.stop - chunk.runs.start)

    specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), (keys, hparams))
    sharding: Any = SingleDeviceSharding(devices[0])
    if len(devices) > 1:
        sharding = NamedSharding(Mesh(np.array(devices), ("seeds",)), PartitionSpec("seeds"))
    place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    return Trainer(size, len(devices), chunks, policies, jax.tree.map(place, jax.eval_shape(init, *specs)))


def _compile_batch(config: Config, learner: Learner, interval: int, runs: Any, batch: tuple[int, int] | None) -> Any:
    """Choose the number of runs in a batch and compile the program of a chunk; `runs` are all keys and hyperparameters.

    Returns the number of runs, which is equal on each device so that nothing has to be gathered, the devices, the function from
    keys and hyperparameters to initial states, and the compiled program.
    """

    def compile_on(devices):
        init = vectorize(learner.init, devices=devices)

        def advance_batch(states, iteration, hparams):
            advance_run = lambda state, h: advance(state, iteration, learner, interval, h, log_every=interval)
            return vectorize(advance_run, devices=devices)(states, hparams)

        jitted = jax.jit(advance_batch, donate_argnums=0, compiler_options=compiler_options(devices))

        def compile_for(each):
            specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct((each * len(devices), *x.shape[1:]), x.dtype), runs)
            return jitted.lower(jax.eval_shape(init, *specs), jax.ShapeDtypeStruct((), jnp.int32), specs[1]).compile()

        return init, compile_for

    if batch is not None:
        return _compile_again(*batch, compile_on)
    devices = spread_over(min(config.num_runs, config.batch_size or config.num_runs), jax.local_devices())
    while True:
        init, compile_for = compile_on(devices)
        share = math.ceil(config.num_runs / len(devices))
        most = min(share, max(1, config.batch_size // len(devices))) if config.batch_size else share
        try:
            each, program = largest_that_fits(compile_for, most, devices)
            break
        except DoesNotFit:
            if len(devices) == 1 or devices[0].platform != "cpu":
                raise
            devices = devices[: len(devices) // 2]  # they share one memory
    equal = math.ceil(share / math.ceil(share / each))  # batches of equal size repeat the fewest runs
    return equal * len(devices), devices, init, program if equal == each else compile_for(equal)


def _compile_again(size: int, num_devices: int, compile_on: Callable) -> Any:
    """As `_compile_batch`, for batches of a given size, on as many of the devices as divide it."""
    num_devices = max(n for n in range(1, min(num_devices, len(jax.local_devices())) + 1) if size % n == 0)
    devices = tuple(jax.local_devices()[:num_devices])
    init, compile_for = compile_on(devices)
    each, program = largest_that_fits(compile_for, size // num_devices, devices)
    if each * num_devices < size:
        raise DoesNotFit(f"the run has batches of {size} runs, of which only {each * num_devices} fit into the free memory")
    return size, devices, init, program


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
            yield Chunk(runs, done, _env_steps(learner, done), states, metrics, _env_steps(learner, before))
            before = done

    def policies(chunk):
        return as_numpy(policy_of(learner, chunk.states), 1)

    return Trainer(1, 1, chunks, policies, None)


def _env_steps(learner: Learner, done: int) -> int:
    return (learner.agent.warmup + done) * learner.num_envs * learner.rollout_length
