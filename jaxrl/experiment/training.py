"""Training the runs of an experiment: a compiled program is called once per chunk, with files and progress in between."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.device_memory import DoesNotFit, largest_that_fits
from jaxrl.experiment import curves, folder
from jaxrl.experiment.config import Config
from jaxrl.experiment.evaluations import write_results
from jaxrl.experiment.host import is_on_host, train_on_host
from jaxrl.experiment.policies import SavedPolicy, as_numpy, evaluate_policies, policy_of
from jaxrl.learner import advance, default_log_every
from jaxrl.presets import Preset
from jaxrl.types import Learner
from jaxrl.vectorization import compiler_options, spread_over, vectorize

_EVALUATION_EPISODES = 32  # for each policy


class Progress(NamedTuple):
    """The state of training after a chunk."""

    env_steps: int  # so far, of all runs together
    total_env_steps: int
    seconds: float  # since compilation began
    episode_return: float  # mean over the runs' latest returns; NaN before the first episode has finished


class Result(NamedTuple):
    config: Config
    policies: SavedPolicy  # after training, leaves [num_runs, ...]
    training_returns: np.ndarray  # [num_runs], the latest
    evaluation_returns: np.ndarray  # [num_runs, episodes], greedy
    env_steps: int  # environment steps per run
    seconds: float


def run(config: Config, out: Path, *, report: Callable[[Progress], None] = lambda progress: None) -> Result:
    """Train every run of the configuration and write a run folder.

    Args:
      config: what to run.
      out: the run folder, which must be empty or not exist. It is reserved before compilation.
      report: called once before compilation, and after every chunk.

    Raises:
      ValueError, TypeError: for an invalid configuration, a folder that cannot be used, or too little memory for a single run.
        All are raised before the first step, and leave no files behind.
    """
    folder.check_unused(out)
    preset = config.preset()
    out = folder.create(out, config.save)
    report(Progress(0, config.num_runs * preset.env_steps, 0.0, float("nan")))
    started = time.perf_counter()
    try:
        batch_size, train_batch = (_host_trainer if is_on_host(preset.learner) else _device_trainer)(config, preset)
    except BaseException:
        (out / folder.CONFIG).unlink()
        raise
    parts = []
    with folder.MetricsFile(out / folder.METRICS) as metrics:
        for first in range(0, config.num_runs, batch_size):
            runs = slice(first, min(first + batch_size, config.num_runs))
            parts.append(train_batch(runs, _record_function(config, preset, runs, metrics, started, report)))
    policies = jax.tree.map(lambda *parts: np.concatenate(parts), *(part[0] for part in parts))
    training = np.concatenate([part[1] for part in parts])
    seconds = time.perf_counter() - started
    folder.save_policies(out, policies)
    curves.plot(curves.read_curves(out), out / folder.CURVE)
    returns = evaluate_policies(config, policies, num_episodes=_EVALUATION_EPISODES)
    write_results(out, config, preset.env_steps, returns)
    return Result(config, policies, training, returns, preset.env_steps, seconds)


Record = Callable[[int, dict[str, np.ndarray]], np.ndarray]
Trainer = Callable[[slice, Record], tuple[Any, np.ndarray]]  # (runs, record) -> their policies and latest returns


def _device_trainer(config: Config, preset: Preset) -> tuple[int, Trainer]:
    """The number of runs in a batch (`config.batch_size`, or as many as fit), and a compiled function that trains a batch."""
    learner, chunk = preset.learner, default_log_every(preset.num_iterations)
    keys, hparams = config.runs(preset)
    devices = spread_over(min(config.num_runs, config.batch_size or config.num_runs), jax.local_devices())
    while True:
        try:
            size, init, program = _compile_batch(config, learner, chunk, (keys, hparams), devices)
            break
        except DoesNotFit:
            if len(devices) == 1 or devices[0].platform != "cpu":
                raise
            devices = devices[: len(devices) // 2]  # they share one memory

    def train(runs, record):
        indices = np.minimum(runs.start + np.arange(size), config.num_runs - 1)  # the last batch may be smaller: repeat a run
        num = runs.stop - runs.start
        batch_keys, batch_hparams = jax.tree.map(lambda x: jnp.asarray(x[indices]), (keys, hparams))
        states, latest = init(batch_keys, batch_hparams), np.full(num, np.nan)
        for done in range(chunk, preset.num_iterations + 1, chunk):
            args = states, jnp.int32(learner.agent.warmup + done - chunk), batch_hparams
            states, metrics = program(*jax.device_put(args, program.input_shardings[0]))
            latest = record(done, {name: np.asarray(values)[:num, 0] for name, values in metrics.items()})
        return as_numpy(jax.vmap(lambda state: policy_of(learner, state))(states), num), latest

    return size, train


def _compile_batch(config: Config, learner: Learner, chunk: int, runs: Any, devices: Sequence[jax.Device]) -> Any:
    """Choose the number of runs in a batch and compile the program of a chunk; `runs` are all keys and hyperparameters.

    Returns the number of runs, which is equal on each device so that nothing has to be gathered, the function from keys and
    hyperparameters to initial states, and the compiled program.
    """
    init = vectorize(learner.init, devices=devices)

    def advance_batch(states, iteration, hparams):
        advance_chunk = vectorize(lambda state, h: advance(state, iteration, learner, chunk, h, log_every=chunk), devices=devices)
        return advance_chunk(states, hparams)

    jitted = jax.jit(advance_batch, donate_argnums=0, compiler_options=compiler_options(devices))

    def compile_for(each):
        specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct((each * len(devices), *x.shape[1:]), x.dtype), runs)
        return jitted.lower(jax.eval_shape(init, *specs), jax.ShapeDtypeStruct((), jnp.int32), specs[1]).compile()

    share = math.ceil(config.num_runs / len(devices))
    most = min(share, max(1, config.batch_size // len(devices))) if config.batch_size else share
    each, program = largest_that_fits(compile_for, most, devices)
    equal = math.ceil(share / math.ceil(share / each))  # batches of equal size repeat the fewest runs
    return equal * len(devices), init, program if equal == each else compile_for(equal)


def _host_trainer(config: Config, preset: Preset) -> tuple[int, Trainer]:
    """Like `_device_trainer`, for environments on the host: one run after the other."""
    keys, hparams = config.runs(preset)

    def train(runs, record):
        latest = np.full(1, np.nan)

        def report(done, row):
            nonlocal latest
            latest = record(done, {name: value[None] for name, value in row.items()})

        key, run_hparams = jax.tree.map(lambda x: x[runs.start], (keys, hparams))
        state, _ = train_on_host(key, preset.learner, preset.num_iterations, run_hparams, report=report)
        return jax.tree.map(lambda x: np.asarray(x)[None], policy_of(preset.learner, state)), latest

    return 1, train


def _record_function(config, preset, runs, metrics, started, report) -> Record:
    """Return a function that writes and reports the metrics of a chunk, and returns the latest return of each run.

    It takes the number of iterations done, and the metrics of the runs in the slice `runs`, one number for each run.
    """
    identifiers = config.identifiers()[runs]
    steps = preset.learner.num_envs * preset.learner.rollout_length
    latest = np.full(len(identifiers), np.nan)

    def record(done: int, rows: dict[str, np.ndarray]) -> np.ndarray:
        latest[:] = np.where(np.isnan(rows["episode_return"]), latest, rows["episode_return"])
        seconds = time.perf_counter() - started
        env_steps = (preset.learner.agent.warmup + done) * steps
        metrics.write(
            identifier
            | {"env_steps": env_steps, "wall_seconds": round(seconds, 3)}
            | {name: values[i] for name, values in rows.items()}
            for i, identifier in enumerate(identifiers)
        )
        before = runs.start * preset.env_steps
        mean = float(np.mean(latest[~np.isnan(latest)])) if not np.isnan(latest).all() else float("nan")
        report(Progress(before + env_steps * len(identifiers), config.num_runs * preset.env_steps, seconds, mean))
        return latest

    return record
