"""What a configuration will need, before it runs: memory, and how many of its runs go at once."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl._src.device_memory import usable_memory
from jaxrl.experiment.config import Config
from jaxrl.experiment.effects import check_effects
from jaxrl.experiment.host import is_on_host
from jaxrl.experiment.trainers import rows_of_runs
from jaxrl.learner import advance, default_log_every
from jaxrl.vectorization import compiler_options


class Plan(NamedTuple):
    """An estimate, from the compiled program of a single run."""

    num_runs: int
    env_steps: int  # of each run, warm-up included
    num_iterations: int  # of each run, without the warm-up
    bytes_per_run: int  # what the state of a run takes: networks, optimizer, replay, environments
    bytes_shared: int  # what the program needs besides, on each device
    bytes_usable: int  # of memory, on each device
    at_once: int  # runs at once, on all devices together; 0 if not even one fits
    num_batches: int
    devices: str


def plan(config: Config) -> Plan:
    """Compile the program of a single run, without running it, and estimate what all runs of a configuration need.

    Raises:
      ValueError, TypeError: for an invalid configuration, or a hyperparameter without an effect.
    """
    preset = config.preset()
    check_effects(config, preset)
    learner, num_runs = preset.learner, config.num_runs
    known = num_runs, preset.env_steps, preset.num_iterations
    if is_on_host(learner):
        return Plan(*known, 0, 0, 0, 1, num_runs, "the host")
    rows = rows_of_runs(config)
    devices = [device for row in rows for device in row]
    memory: Any = _compile(config, preset, devices).memory_analysis()
    whole = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    one_by_one = devices[0].platform == "cpu"  # as `vectorize` runs them, so they share what is temporary
    shared = memory.temp_size_in_bytes if one_by_one else 0
    each = whole if one_by_one else whole + memory.temp_size_in_bytes
    while True:
        usable = usable_memory([device for row in rows for device in row])
        share = min(math.ceil(num_runs / len(rows)), max(0, usable - shared) * len(rows[0]) // max(1, each))
        if share or len(rows) == 1 or not one_by_one:
            break
        rows = rows[: len(rows) // 2]  # as the trainer does: they share one memory
    devices = [device for row in rows for device in row]
    if config.batch_size is not None:
        share = min(share, max(1, config.batch_size // len(rows)))
    at_once = min(num_runs, share * len(rows))
    batches = math.ceil(num_runs / at_once) if at_once else 0
    kind = f"{len(devices)} × {devices[0].device_kind}"
    return Plan(*known, each, shared, usable, at_once, batches, kind)


def _compile(config: Config, preset: Any, devices: Any) -> jax.stages.Compiled:
    chunk = default_log_every(preset.num_iterations)
    hparams = jax.tree.map(lambda _: jax.ShapeDtypeStruct((), jnp.float32), preset.hparams)
    state = jax.eval_shape(preset.learner.init, jax.random.key(0), hparams)
    run = lambda state, iteration, hparams: advance(state, iteration, preset.learner, chunk, hparams, log_every=chunk)
    jitted = jax.jit(run, donate_argnums=0, compiler_options=compiler_options(devices))
    return jitted.lower(state, jax.ShapeDtypeStruct((), jnp.int32), hparams).compile()
