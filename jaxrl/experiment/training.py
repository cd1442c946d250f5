"""The host's side of an experiment: compile once, then chunk after chunk, with files and progress in between."""

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
from jaxrl.experiment.host import is_on_host, train_on_host
from jaxrl.experiment.policies import SavedPolicy, as_numpy, evaluate_policies, policy_of
from jaxrl.learner import advance, default_log_every
from jaxrl.presets import Preset
from jaxrl.types import Learner
from jaxrl.vectorization import compiler_options, spread_over, vectorize

_EVALUATION_EPISODES = 32  # of the summary, for each policy


class Progress(NamedTuple):
    """What the progress display is told after each chunk."""

    env_steps: int  # done so far, over all runs
    total_env_steps: int
    seconds: float  # since the first chunk began, compilation included
    episode_return: float  # mean over the runs' latest rows; NaN before any episode finished


class Result(NamedTuple):
    config: Config
    policies: SavedPolicy  # the final ones, leaves [num_runs, ...]
    training_returns: np.ndarray  # [num_runs]: of the last row
    evaluation_returns: np.ndarray  # [num_runs, episodes], greedy
    env_steps: int  # of each run
    seconds: float


def run(config: Config, out: Path, *, report: Callable[[Progress], None] = lambda progress: None) -> Result:
    """Train every run of the configuration and leave a run folder.

    Args:
      config: what to run.
      out: a folder that does not exist yet, or is empty.
      report: called once before compilation, and after every chunk.

    Raises:
      ValueError, TypeError: for a wrong configuration, a folder that cannot be used, or where memory is too
        small for a single run; all before the first step, and before anything is written.
    """
    preset = config.preset()
    out = folder.create(out)
    report(Progress(0, config.num_runs * preset.env_steps, 0.0, float("nan")))
    started = time.perf_counter()
    at_once, train_part = (_host_trainer if is_on_host(preset.learner) else _device_trainer)(config, preset)
    config.save(out / folder.CONFIG)
    parts = []
    with folder.MetricsFile(out / folder.METRICS) as metrics:
        for first in range(0, config.num_runs, at_once):
            chosen = slice(first, min(first + at_once, config.num_runs))
            parts.append(train_part(chosen, _recorder(config, preset, chosen, metrics, started, report)))
    policies = jax.tree.map(lambda *parts: np.concatenate(parts), *(part[0] for part in parts))
    training = np.concatenate([part[1] for part in parts])
    seconds = time.perf_counter() - started
    folder.save_policies(out, policies)
    curves.plot(curves.read_curves(out), out / folder.CURVE)
    returns = evaluate_policies(config, policies, num_episodes=_EVALUATION_EPISODES)
    return Result(config, policies, training, returns, preset.env_steps, seconds)


Record = Callable[[int, dict[str, np.ndarray]], np.ndarray]
Trainer = Callable[[slice, Record], tuple[Any, np.ndarray]]  # trains the chosen runs: their policies and latest returns


def _device_trainer(config: Config, preset: Preset) -> tuple[int, Trainer]:
    """How many runs go at once, all or as many as fit or were asked for, and what trains so many: it is compiled here."""
    learner, chunk = preset.learner, default_log_every(preset.num_iterations)
    keys, hparams = config.runs(preset)
    devices = spread_over(min(config.num_runs, config.batch_size or config.num_runs), jax.devices())
    while True:
        try:
            size, init, program = _compile_parts(config, learner, chunk, (keys, hparams), devices)
            break
        except DoesNotFit:
            if len(devices) == 1 or devices[0].platform != "cpu":
                raise
            devices = devices[: len(devices) // 2]  # they share one memory

    def train(chosen, record):
        filled = np.minimum(chosen.start + np.arange(size), config.num_runs - 1)  # the last part may be shorter
        num = chosen.stop - chosen.start
        some_keys, some_hparams = jax.tree.map(lambda x: jnp.asarray(x[filled]), (keys, hparams))
        states, latest = init(some_keys, some_hparams), np.full(num, np.nan)
        for done in range(chunk, preset.num_iterations + 1, chunk):
            args = states, jnp.int32(learner.agent.warmup + done - chunk), some_hparams
            states, rows = program(*jax.device_put(args, program.input_shardings[0]))
            latest = record(done, {name: np.asarray(values)[:num, 0] for name, values in rows.items()})
        return as_numpy(policy_of(learner, states), num), latest

    return size, train


def _compile_parts(config: Config, learner: Learner, chunk: int, runs: Any, devices: Sequence[jax.Device]) -> Any:
    """How many runs go at once, the same number on each device so that nothing has to be gathered; what makes their states
    from `runs`, keys and hyperparameters; and the compiled program of a chunk."""
    init = vectorize(learner.init, devices=devices)

    def chunk_of_all(states, iteration, hparams):
        go_on = vectorize(lambda state, h: advance(state, iteration, learner, chunk, h, log_every=chunk), devices=devices)
        return go_on(states, hparams)

    advance_all = jax.jit(chunk_of_all, donate_argnums=0, compiler_options=compiler_options(devices))

    def compile_for(each):
        some = jax.tree.map(lambda x: jax.ShapeDtypeStruct((each * len(devices), *x.shape[1:]), x.dtype), runs)
        return advance_all.lower(jax.eval_shape(init, *some), jax.ShapeDtypeStruct((), jnp.int32), some[1]).compile()

    share = math.ceil(config.num_runs / len(devices))
    most = min(share, max(1, config.batch_size // len(devices))) if config.batch_size else share
    each, program = largest_that_fits(compile_for, most, devices)
    equal = math.ceil(share / math.ceil(share / each))  # parts of equal size waste least
    return equal * len(devices), init, program if equal == each else compile_for(equal)


def _host_trainer(config: Config, preset: Preset) -> tuple[int, Trainer]:
    """As `_device_trainer`, for environments on the host: one run after the other."""
    keys, hparams = config.runs(preset)

    def train(chosen, record):
        latest = np.full(1, np.nan)

        def report(done, row):
            nonlocal latest
            latest = record(done, {name: value[None] for name, value in row.items()})

        key, own = jax.tree.map(lambda x: x[chosen.start], (keys, hparams))
        state, _ = train_on_host(key, preset.learner, preset.num_iterations, own, report=report)
        return jax.tree.map(lambda x: np.asarray(x)[None], policy_of(preset.learner, state)), latest

    return 1, train


def _recorder(config, preset, chosen, metrics, started, report) -> Record:
    """A function that files and reports a chunk of the chosen runs, and gives their latest known returns.

    It takes the iterations done and one row of metrics, each `[len(chosen)]`.
    """
    labels = config.labels()[chosen]
    steps = preset.learner.num_envs * preset.learner.rollout_length
    latest = np.full(len(labels), np.nan)

    def record(done: int, rows: dict[str, np.ndarray]) -> np.ndarray:
        latest[:] = np.where(np.isnan(rows["episode_return"]), latest, rows["episode_return"])
        seconds = time.perf_counter() - started
        env_steps = (preset.learner.agent.warmup + done) * steps
        metrics.write(
            label
            | {"env_steps": env_steps, "wall_seconds": round(seconds, 3)}
            | {name: values[i] for name, values in rows.items()}
            for i, label in enumerate(labels)
        )
        before = chosen.start * preset.env_steps
        mean = float(np.mean(latest[~np.isnan(latest)])) if not np.isnan(latest).all() else float("nan")
        report(Progress(before + env_steps * len(labels), config.num_runs * preset.env_steps, seconds, mean))
        return latest

    return record
