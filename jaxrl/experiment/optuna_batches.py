"""Optuna (Akiba et al. 2019) proposes batches of settings, and one program trains each batch."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import check_size
from jaxrl.experiment.halving import ranking
from jaxrl.experiment.sampling import Range, check_space
from jaxrl.experiment.stages import compile_stages, take
from jaxrl.learner import check_and_cast, check_iterations
from jaxrl.types import HParams, Learner, LearnerState


class Batch(NamedTuple):
    """A batch of settings that were proposed and trained together."""

    samples: list[dict[str, float]]  # n of them
    scores: np.ndarray  # float [n, S], the mean greedy return of each seed


def optuna_search(
    keys: jax.Array,
    learner: Learner,
    hparams: HParams,
    space: Mapping[str, Range],
    *,
    num_iterations: int,
    num_samples: int,
    samples_per_batch: int = 16,
    seed: int = 0,
    sampler: Any = None,
    num_episodes: int = 32,
    batch_size: int | None = None,
    report: Callable[[Batch], None] = lambda batch: None,
) -> tuple[LearnerState, list[Batch]]:
    """Search with a sampler of Optuna: it proposes a batch of settings, learns how they did, and proposes the next batch.

    Every setting is trained for the whole run. One program trains all batches (see `stages`).

    Args:
      keys: one for each seed, `[S]`; every setting is trained with each, and told to Optuna as the mean over them.
      learner: from `make_learner`; any agent.
      hparams: the hyperparameters that are not searched, scalars.
      space: the hyperparameters that are searched, with their ranges.
      num_iterations: length of each run.
      num_samples: number of settings in total.
      samples_per_batch: number of settings that are proposed together. Fewer learn more from each other.
      seed: seed of the sampler.
      sampler: an Optuna sampler; by default its tree-structured Parzen estimator, made for batches. Not one that ends a study
        by itself, as `GridSampler` and `BruteForceSampler` do.
      num_episodes: number of greedy episodes for each run.
      batch_size: the largest number of runs at once; see `stages.compile_stages`.
      report: called after each batch.

    Returns:
      The states of the best setting, leaves `[S, ...]`, and all batches.

    Raises:
      ImportError: without Optuna, the extra `optuna`.
      TypeError, ValueError: for a wrong size, or an environment on the host.
    """
    optuna = _import_optuna()
    num_samples = check_size("samples", num_samples)
    seed = check_size("seed", seed, minimum=0, maximum=2**32 - 1)
    per_batch = min(check_size("samples_per_batch", samples_per_batch), num_samples)
    check_space(space)
    base = check_and_cast(keys, learner, hparams)
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        sampler = sampler or optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {name: optuna.distributions.FloatDistribution(r.low, r.high, log=r.log) for name, r in space.items()}
    seeds, best_score, batches = len(keys), -np.inf, []
    best: Any = None
    all_keys, specs = _runs(keys, base, [{}] * per_batch)
    stages = compile_stages(
        learner,
        all_keys,
        specs,
        num_iterations=check_iterations(num_iterations, learner.agent.warmup),
        num_episodes=num_episodes,
        batch_size=batch_size,
    )
    for first in range(0, num_samples, per_batch):
        trials = [study.ask(distributions) for _ in range(min(per_batch, num_samples - first))]
        samples = [dict(trial.params) for trial in trials]
        run_keys, run_hparams = _runs(keys, base, samples)
        states = stages.advance(stages.init(run_keys, run_hparams), 0, 1, run_hparams)
        scores = stages.evaluate(run_keys, states).reshape(-1, seeds)
        means = scores.mean(axis=1)
        for trial, mean in zip(trials, means.tolist(), strict=True):
            if np.isfinite(mean):
                study.tell(trial, mean)
            else:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
        top = int(ranking(scores)[0])
        score = -np.inf if np.isnan(means[top]) else means[top]
        if best is None or score > best_score:
            best, best_score = take(states, top * seeds + np.arange(seeds)), score
        batches.append(Batch(samples, scores))
        report(batches[-1])
    return best, batches


def _runs(keys: jax.Array, base: HParams, samples: list[dict[str, float]]) -> tuple[jax.Array, HParams]:
    """Keys and hyperparameters of every sample with every seed, leaves `[n * S]`; the seeds of a sample are adjacent."""
    settings = [base._replace(**{name: jnp.float32(value) for name, value in sample.items()}) for sample in samples]
    stacked = jax.tree.map(lambda *x: jnp.repeat(jnp.stack(x), len(keys)), *settings)
    return jnp.tile(keys, len(samples)), stacked


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ImportError("this search needs Optuna: pip install 'jaxrl[optuna]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
