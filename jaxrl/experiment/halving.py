"""Successive halving (Jamieson & Talwalkar 2016): train many settings a little, and only the best of them for the whole run."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import check_size
from jaxrl.experiment.stages import check_settings, compile_stages, stage_length, take
from jaxrl.learner import check_and_cast, check_iterations
from jaxrl.types import HParams, Learner, LearnerState


class Rung(NamedTuple):
    """The settings that reached a rung, and how they did."""

    num_iterations: int  # of each run, from its start
    settings: np.ndarray  # int [n], indices of the settings
    scores: np.ndarray  # float [n, S], the mean greedy return of each seed


def rung_sizes(num_settings: int, num_iterations: int, factor: int) -> list[int]:
    """The number of settings in each rung.

    Each rung keeps the best 1 / `factor` of the settings and makes their runs about `factor` times as long, up to
    `num_iterations`, so that every rung but the first takes about the same time.

    >>> rung_sizes(64, 1600, factor=4)
    [64, 16, 4, 1]
    """
    check_size("factor", factor, minimum=2)
    sizes = [check_size("num_settings", num_settings)]
    while sizes[-1] >= factor and factor ** len(sizes) <= num_iterations:
        sizes.append(sizes[-1] // factor)
    return sizes


def width_of(sizes: list[int], factor: int) -> int:
    """The number of runs that a GPU should train at once, for rungs of these sizes: one of the sizes.

    A program as wide as the first rung would train the last survivors as slowly as all runs, and a narrow one would make many
    calls for the first rung. On an H200, W runs of DQN take about 1 + W / 100 times as long as one (benchmarks/RESULTS.md).

    >>> width_of([1024, 256, 64, 16, 4, 1], factor=4)
    16
    """
    lengths = [1, *(factor**rung - factor ** (rung - 1) for rung in range(1, len(sizes)))]

    def time(width):
        return (1 + width / 100) * sum(length * math.ceil(size / width) for size, length in zip(sizes, lengths, strict=True))

    return min(sizes, key=time)


def ranking(scores: np.ndarray) -> np.ndarray:
    """The order of the settings by their mean over the seeds, from the best on. A setting with a NaN is among the worst.

    Args:
      scores: `[n, S]`.

    Returns:
      int `[n]`, indices. Equal means keep their order.
    """
    means = np.mean(scores, axis=1)
    return np.argsort(-np.where(np.isnan(means), -np.inf, means), kind="stable")


def successive_halving(
    keys: jax.Array,
    learner: Learner,
    hparams: HParams,
    *,
    num_iterations: int,
    factor: int = 4,
    num_episodes: int = 32,
    batch_size: int | None = None,
    report: Callable[[Rung], None] = lambda rung: None,
) -> tuple[LearnerState, list[Rung]]:
    """Train all settings, keep the best 1 / `factor`, make their runs about `factor` times as long, and so on.

    A run that is kept goes on from its state, so the survivors have been trained as by `jaxrl.train`, for the whole run. One
    program trains all rungs (see `stages`). Settings are compared on the same seeds, by greedy episodes.

    Args:
      keys: one for each seed, `[S]`; every setting is trained with each.
      learner: from `make_learner`; any agent.
      hparams: the settings, leaves `[n]`.
      num_iterations: length of the longest runs. The program trains a stage, whose length divides it (`stages.stage_length`): a
        prime number takes many calls.
      factor: η, the factor by which the number of settings falls and the length of runs grows. With 1 more than the number of
        settings, all are trained for the whole run: random search.
      num_episodes: number of greedy episodes for each run and rung.
      batch_size: the largest number of runs at once. By default one on each CPU device, and `width_of` the rungs elsewhere.
      report: called after each rung.

    Returns:
      The states of the last rung, leaves `[m * S, ...]`, those of a setting adjacent, from the best setting on; and all rungs.
      The settings of the last rung are `rungs[-1].settings`, in the same order.

    Raises:
      TypeError, ValueError: for a wrong size, hyperparameters of another agent, or an environment on the host.
    """
    hparams = check_and_cast(keys, learner, hparams)
    num_settings, seeds = check_settings(hparams), len(keys)
    num_iterations = check_iterations(num_iterations, learner.agent.warmup)
    sizes = rung_sizes(num_settings, num_iterations, factor)
    lengths = [factor**rung for rung in range(len(sizes))]  # in proportion
    unit = stage_length(num_iterations, lengths[-1])
    keys = jnp.tile(keys, num_settings)
    hparams = jax.tree.map(lambda x: jnp.repeat(x, seeds), hparams)
    if batch_size is None and jax.default_backend() != "cpu":
        batch_size = width_of([size * seeds for size in sizes], factor)
    stages = compile_stages(learner, keys, hparams, num_iterations=unit, num_episodes=num_episodes, batch_size=batch_size)
    states, settings, rungs, done = stages.init(keys, hparams), np.arange(num_settings), [], 0
    for rung, length in enumerate(lengths):
        until = num_iterations // unit * length // lengths[-1]
        states, done = stages.advance(states, done, until - done, hparams), until
        scores = stages.evaluate(keys, states).reshape(-1, seeds)
        ranked = ranking(scores)
        rungs.append(Rung(done * unit, settings[ranked], scores[ranked]))
        report(rungs[-1])
        order = ranked[: sizes[rung + 1]] if rung + 1 < len(sizes) else ranked
        runs = (order[:, None] * seeds + np.arange(seeds)).ravel()
        settings, (states, keys, hparams) = settings[order], take((states, keys, hparams), runs)
    return states, rungs
