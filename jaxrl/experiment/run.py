"""The host's side of an experiment: compile once, then chunk after chunk, with files and progress in between."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from jaxrl.checks import check_size
from jaxrl.experiment import curves, folder
from jaxrl.experiment.config import Config
from jaxrl.learner import advance, default_log_every
from jaxrl.presets import Preset
from jaxrl.rollout import evaluate
from jaxrl.vectorization import vectorize

_EVALUATION_EPISODES = 32  # of the summary, for each policy
_EVALUATION_STREAM = 2**31 - 1  # an iteration number that no run reaches: evaluation never reuses a training key


class Progress(NamedTuple):
    """What the progress display is told after each chunk."""

    env_steps: int  # done so far, over all runs
    total_env_steps: int
    seconds: float  # since the first chunk began, compilation included
    episode_return: float  # mean over the runs' latest rows; NaN before any episode finished


class Result(NamedTuple):
    config: Config
    params: Any  # of the final policies, leaves [num_runs, ...]
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
      ValueError, TypeError: for a wrong configuration, a folder that cannot be used, or more runs than
        memory; all before the first step.
    """
    preset = config.preset()
    check_memory(config, preset)
    out = folder.create(out)
    config.save(out / folder.CONFIG)
    report(Progress(0, config.num_runs * preset.env_steps, 0.0, float("nan")))
    started = time.perf_counter()
    pieces = []
    with folder.MetricsFile(out / folder.METRICS) as metrics:
        for first in range(0, config.num_runs, config.batch_size or config.num_runs):
            chosen = slice(first, first + (config.batch_size or config.num_runs))
            pieces.append(_run_piece(config, preset, chosen, metrics, started, report))
    params = jax.tree.map(lambda *parts: np.concatenate(parts), *(piece[0] for piece in pieces))
    training = np.concatenate([piece[1] for piece in pieces])
    seconds = time.perf_counter() - started
    folder.save_policies(out, params)
    curves.plot(curves.read_curves(out), out / folder.CURVE)
    returns = evaluate_policies(config, params, num_episodes=_EVALUATION_EPISODES)
    return Result(config, params, training, returns, preset.env_steps, seconds)


def _run_piece(config, preset, chosen, metrics, started, report) -> tuple[Any, np.ndarray]:
    """Train the chosen runs to their end; give their policies, and the returns of their last row."""
    learner, num_iterations = preset.learner, preset.num_iterations
    steps = learner.num_envs * learner.rollout_length
    warmup = learner.agent.warmup
    chunk = default_log_every(num_iterations)
    keys, hparams = jax.tree.map(lambda x: x[chosen], config.runs(preset))
    labels = config.labels()[chosen]

    def chunk_of_all(states, clock, hparams):
        return vectorize(lambda state, h: advance(state, clock, learner, chunk, h, log_every=chunk))(states, hparams)

    advance_all = jax.jit(chunk_of_all, donate_argnums=0)
    states = vectorize(learner.init)(keys, jax.tree.map(jnp.asarray, hparams))
    latest = np.full(len(labels), np.nan)
    for done in range(chunk, num_iterations + 1, chunk):
        states, rows = advance_all(states, jnp.int32(warmup + done - chunk), hparams)
        rows = {name: np.asarray(values)[:, 0] for name, values in rows.items()}
        latest = np.where(np.isnan(rows["episode_return"]), latest, rows["episode_return"])
        seconds = time.perf_counter() - started
        env_steps = (warmup + done) * steps
        metrics.write(
            label
            | {"env_steps": env_steps, "wall_seconds": round(seconds, 3)}
            | {name: values[i] for name, values in rows.items()}
            for i, label in enumerate(labels)
        )
        before = chosen.start * preset.env_steps
        mean = float(np.mean(latest[~np.isnan(latest)])) if not np.isnan(latest).all() else float("nan")
        report(Progress(before + env_steps * len(labels), config.num_runs * preset.env_steps, seconds, mean))
    return jax.tree.map(np.asarray, states.agent.params), latest


def evaluate_policies(config: Config, params: Any, *, num_episodes: int, seed: int | None = None) -> np.ndarray:
    """Greedy returns `[num_runs, num_episodes]` of saved policies, each run on episodes of its own.

    Args:
      config: of the run that trained them.
      params: leaves `[num_runs, ...]`.
      num_episodes: for each policy.
      seed: of the episodes; by default from the runs' own keys.
    """
    num_episodes = check_size("num_episodes", num_episodes)
    preset = config.preset()
    keys, hparams = config.runs(preset)
    if seed is not None:
        check_size("seed", seed, minimum=0, maximum=2**32 - 1)
        keys = jax.random.split(jax.random.key(seed), config.num_runs)

    def play(key, params, hparams):
        state = preset.learner.init(key, hparams)  # only its structure matters: XLA drops what the policy does not read
        state = state._replace(agent=state.agent._replace(params=params))
        key = jax.random.fold_in(key, _EVALUATION_STREAM)
        return evaluate(key, preset.learner, state, num_episodes=num_episodes, hparams=hparams)

    return np.asarray(vectorize(play)(keys, params, jax.tree.map(jnp.asarray, hparams)))


def abstract_policies(config: Config) -> Any:
    """Arrays of the shapes and dtypes that `folder.load_policies` needs, their contents undefined."""
    preset = config.preset()
    keys, hparams = config.runs(preset)
    shapes = jax.eval_shape(lambda k, h: jax.vmap(preset.learner.init)(k, h).agent.params, keys, hparams)
    return jax.tree.map(lambda x: np.empty(x.shape, x.dtype), shapes)


def check_memory(config: Config, preset: Preset) -> None:
    """Raise ValueError where the runs that are held at once do not fit into the device's memory."""
    state = jax.eval_shape(preset.learner.init, jax.random.key(0), preset.hparams)
    per_run = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(lambda s: s._replace(key=()), state)))
    at_once = min(config.num_runs, config.batch_size or config.num_runs)
    # Going through the runs in groups, and the step from one chunk to the next, hold a state twice.
    needed, free = 2 * per_run * at_once, free_memory()
    if needed > free:
        fitting = max(1, free // (2 * per_run))
        raise ValueError(
            f"{at_once} runs at once need {_bytes(needed)} ({_bytes(2 * per_run)} each) and {_bytes(free)} are free; "
            f"use --batch-size {fitting} to hold fewer at once"
        )


def free_memory() -> int:
    """Bytes free on the devices of the default backend together; on a CPU, of the machine."""
    devices = jax.devices()
    if devices[0].platform == "cpu":
        return psutil.virtual_memory().available
    stats = [device.memory_stats() or {} for device in devices]
    return sum(s.get("bytes_limit", 0) - s.get("bytes_in_use", 0) for s in stats)


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1024:.1f} KiB"
