"""Trainers: how the runs of an experiment are advanced chunk by chunk, in a compiled program or on the host."""

import math
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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


class Trainer(NamedTuple):
    """How a batch of runs is trained."""

    batch_size: int  # number of runs that are trained at once
    chunks: Callable[
        [slice], Generator[Chunk, None, None]
    ]  # from the first to the last; the states of a chunk are gone with the next one
    policies: Callable[[Chunk], SavedPolicy]  # as NumPy arrays, leaves [num_runs, ...]


def make_trainer(config: Config, preset: Preset) -> Trainer:
    """Compile what trains a batch of `config.batch_size` runs, or as many as fit into memory.

    Raises:
      ValueError: if not even a single run fits.
    """
    return (_host_trainer if is_on_host(preset.learner) else _device_trainer)(config, preset)


def _device_trainer(config: Config, preset: Preset) -> Trainer:
    learner, interval = preset.learner, default_log_every(preset.num_iterations)
    keys, hparams = config.runs(preset)
    devices = spread_over(min(config.num_runs, config.batch_size or config.num_runs), jax.devices())
    while True:
        try:
            size, init, program = _compile_batch(config, learner, interval, (keys, hparams), devices)
            break
        except DoesNotFit:
            if len(devices) == 1 or devices[0].platform != "cpu":
                raise
            devices = devices[: len(devices) // 2]  # they share one memory

    def chunks(runs):
        indices = np.minimum(runs.start + np.arange(size), config.num_runs - 1)  # the last batch may be smaller: repeat a run
        num = runs.stop - runs.start
        batch_keys, batch_hparams = jax.tree.map(lambda x: jnp.asarray(x[indices]), (keys, hparams))
        states = init(batch_keys, batch_hparams)
        for done in range(interval, preset.num_iterations + 1, interval):
            args = states, jnp.int32(learner.agent.warmup + done - interval), batch_hparams
            states, metrics = program(*jax.device_put(args, program.input_shardings[0]))
            rows = {name: np.asarray(values)[:num, 0] for name, values in metrics.items()}
            yield Chunk(runs, done, _env_steps(learner, done), states, rows)

    def policies(chunk):
        return as_numpy(jax.vmap(lambda state: policy_of(learner, state))(chunk.states), chunk.runs.stop - chunk.runs.start)

    return Trainer(size, chunks, policies)


def _compile_batch(config: Config, learner: Learner, interval: int, runs: Any, devices: Sequence[jax.Device]) -> Any:
    """Choose the number of runs in a batch and compile the program of a chunk; `runs` are all keys and hyperparameters.

    Returns the number of runs, which is equal on each device so that nothing has to be gathered, the function from keys and
    hyperparameters to initial states, and the compiled program.
    """
    init = vectorize(learner.init, devices=devices)

    def advance_batch(states, iteration, hparams):
        advance_run = lambda state, h: advance(state, iteration, learner, interval, h, log_every=interval)
        return vectorize(advance_run, devices=devices)(states, hparams)

    jitted = jax.jit(advance_batch, donate_argnums=0, compiler_options=compiler_options(devices))

    def compile_for(each):
        specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct((each * len(devices), *x.shape[1:]), x.dtype), runs)
        return jitted.lower(jax.eval_shape(init, *specs), jax.ShapeDtypeStruct((), jnp.int32), specs[1]).compile()

    share = math.ceil(config.num_runs / len(devices))
    most = min(share, max(1, config.batch_size // len(devices))) if config.batch_size else share
    each, program = largest_that_fits(compile_for, most, devices)
    equal = math.ceil(share / math.ceil(share / each))  # batches of equal size repeat the fewest runs
    return equal * len(devices), init, program if equal == each else compile_for(equal)


def _host_trainer(config: Config, preset: Preset) -> Trainer:
    """For environments on the host: one run after the other."""
    learner = preset.learner
    keys, hparams = config.runs(preset)

    def chunks(runs):
        key, run_hparams = jax.tree.map(lambda x: x[runs.start], (keys, hparams))
        for done, state, row in chunks_on_host(key, learner, preset.num_iterations, run_hparams):
            states = jax.tree.map(lambda x: x[None], state)
            yield Chunk(runs, done, _env_steps(learner, done), states, jax.tree.map(lambda x: np.asarray(x)[None], row))

    def policies(chunk):
        return as_numpy(policy_of(learner, chunk.states), 1)

    return Trainer(1, chunks, policies)


def _env_steps(learner: Learner, done: int) -> int:
    return (learner.agent.warmup + done) * learner.num_envs * learner.rollout_length
