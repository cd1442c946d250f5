"""A search in a run folder: `config.json` and `policies/` of what it found, `search.json`, `search.csv` and `search.png`."""

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import check_choice
from jaxrl.experiment import folder, storage
from jaxrl.experiment.config import Config
from jaxrl.experiment.csv_file import CsvFile
from jaxrl.experiment.effects import check_effects
from jaxrl.experiment.halving import ranking, successive_halving
from jaxrl.experiment.notes import Note
from jaxrl.experiment.optuna_batches import optuna_search
from jaxrl.experiment.parallel_coordinates import Trial, plot
from jaxrl.experiment.policies import as_numpy, policy_of
from jaxrl.experiment.population_training import population_based_training
from jaxrl.experiment.sampling import Range, check_space
from jaxrl.experiment.stages import take
from jaxrl.presets import Preset
from jaxrl.types import LearnerState

METHODS = ("halving", "random", "pbt", "optuna")
OPTION_OF = {"halving": "factor", "pbt": "generations", "optuna": "samples_per_batch"}  # the argument of one method only
TABLE, PICTURE = "search.csv", "search.png"
SEARCH = folder.SEARCH
_EPISODES = 32  # greedy ones, for each run and comparison


class Found(NamedTuple):
    """The result of a search.

    Attributes:
      config: the configuration with the settings that were left at the end as its samples, from the best on. Its runs are those
        of the saved policies.
      trials: every setting, with its last scores. In a population, the members of the last generation.
      env_steps: environment steps of all runs together.
      seconds: time with compilation.
    """

    config: Config
    trials: list[Trial]
    env_steps: int
    seconds: float


class _Log(NamedTuple):
    """What the stages of a search report to."""

    preset: Preset
    first_seed: int
    rows: CsvFile
    trials: dict[Any, Trial]  # by an identifier; later stages replace earlier ones
    history: list[Trial]
    report: Callable[[str], None]

    def env_steps(self, num_iterations: int) -> int:
        learner = self.preset.learner
        return (learner.agent.warmup + num_iterations) * learner.num_envs * learner.rollout_length

    def add(self, stage: dict[str, int], rows: Iterable[tuple[dict[str, int], Trial]]) -> None:
        """Write a row for each run, and report the best."""
        rows = list(rows)
        for identifier, trial in rows:
            for index, score in enumerate(trial.scores):
                steps, score = {"env_steps": trial.env_steps}, {"score": float(score)}
                seeds = {"seed": self.first_seed + index} if len(trial.scores) > 1 else {}
                self.rows.write([stage | identifier | seeds | steps | trial.hparams | score])
            self.trials[next(iter(identifier.values()))] = trial
        self.history.extend(trial for _, trial in rows)
        (name, number), scores = next(iter(stage.items())), [trial.score for _, trial in rows if not np.isnan(trial.score)]
        best = max(scores, default=np.nan)
        settings = "1 setting" if len(rows) == 1 else f"{len(rows)} settings"
        self.report(f"{name} {number}: {settings} after {rows[0][1].env_steps:,} steps, best return {best:z.1f}")


def tune(
    config: Config,
    out: Path,
    *,
    method: str = "halving",
    space: Mapping[str, Range] | None = None,
    factor: int = 4,
    generations: int = 20,
    samples_per_batch: int = 16,
    report: Callable[[str], None] = lambda line: None,
) -> Found:
    """Search hyperparameters, and write a run folder whose policies are those of the best settings.

    Args:
      config: its combinations are the settings that are tried, or the members of the first generation. For "optuna", only
        the number of its samples is used.
      out: the run folder, which must be empty or not exist.
      method: "halving" (`successive_halving`), "random" (all settings for the whole run), "pbt" (`population_based_training`) or
        "optuna" (`optuna_search`).
      space: the ranges of the samples, for "pbt" and "optuna".
      factor: of "halving": each rung keeps one in so many settings, and trains them about so many times as long.
      generations: of "pbt": their number, after each of which the worst members copy the best.
      samples_per_batch: of "optuna": the number of settings that are proposed together.
      report: called with a line of text after each stage.

    Raises:
      ImportError: for "optuna" without its extra.
      ValueError, TypeError: for an invalid configuration, a hyperparameter without an effect, a folder that cannot be used,
        or too little memory for a single run.
    """
    space = dict(space or {})
    check_space(space)
    _check(config, method, space)
    folder.check_unused(out)
    preset = _preset(config, space)
    check_effects(config, preset)
    if method == "pbt" and generations > preset.num_iterations:
        least = f"a run has {preset.num_iterations} iterations, and a generation takes at least one"
        raise ValueError(f"generations={generations} are too many: {least}; give fewer, or more steps")
    options = {"factor": factor, "generations": generations, "samples_per_batch": samples_per_batch}
    ranges = {name: values._asdict() for name, values in space.items()}
    used = {name: value for name, value in options.items() if name == OPTION_OF.get(method)}
    record = {"method": method, "space": ranges, **used}
    started = time.perf_counter()
    trials: dict[Any, Trial] = {}
    with folder.created(out, config.save):
        try:
            storage.write_json(out / SEARCH, record)
            with CsvFile(out / TABLE) as rows:
                log = _Log(preset, config.seed, rows, trials, [], report)
                states, samples, scores = _SEARCHES[method](config, preset, space, log, options)
        except (ValueError, TypeError, ImportError, KeyboardInterrupt):
            if not trials:  # wrong input, or interrupted at once; what is known is kept
                for name in (folder.CONFIG, SEARCH, TABLE):
                    (out / name).unlink(missing_ok=True)
            raise
        final = dataclasses.replace(config, samples=samples, sweep={})
        num = final.num_runs
        policies = as_numpy(jax.vmap(lambda state: policy_of(preset.learner, state))(states), num)
        _replace_config(out / folder.CONFIG, final)  # before its policies, without which a search is not finished
        folder.save_policies(out, policies, {"returns": scores.astype(float).tolist()})
        _plot(log.history if method == "pbt" else list(trials.values()), out / PICTURE, _logarithmic(space))
        total = sum(trial.env_steps * len(trial.scores) for trial in trials.values())
        return Found(final, list(trials.values()), total, time.perf_counter() - started)


# --- the methods: (config, preset, space, log, options) -> the states that are left, their settings, and a score of each state

Left = tuple[LearnerState, list[dict[str, float]], np.ndarray]


def _halving(config, preset, space, log, options) -> Left:
    combinations = config.combinations
    keys, hparams = config.runs(preset)
    number = iter(range(1, 1000))

    def report(rung):
        steps = log.env_steps(rung.num_iterations)
        pairs = zip(rung.settings.tolist(), rung.scores, strict=True)
        trials = (({"setting": index}, Trial(combinations[index], steps, scores)) for index, scores in pairs)
        log.add({"rung": next(number)}, trials)

    states, rungs = successive_halving(
        keys[: config.seeds],
        preset.learner,
        jax.tree.map(lambda x: jnp.asarray(x[:: config.seeds]), hparams),
        num_iterations=preset.num_iterations,
        factor=options["factor"],
        num_episodes=_EPISODES,
        batch_size=config.batch_size,
        report=report,
    )
    return states, [combinations[index] for index in rungs[-1].settings], rungs[-1].scores.reshape(-1)


def _random(config, preset, space, log, options) -> Left:
    return _halving(config, preset, space, log, options | {"factor": len(config.combinations) + 1})


def _population(config, preset, space, log, options) -> Left:
    _, hparams = config.runs(preset)
    number = iter(range(1, 10**9))

    def report(generation):
        steps = log.env_steps(generation.num_iterations)
        rows = []
        for member, (parent, score) in enumerate(zip(generation.parents.tolist(), generation.scores, strict=True)):
            values = {name: _number(column[member]) for name, column in generation.hparams.items()}
            rows.append(({"member": member, "parent": parent}, Trial(values, steps, np.array([score]))))
        log.add({"generation": next(number)}, rows)

    states, _, generations = population_based_training(
        jax.random.key(config.seed),
        preset.learner,
        jax.tree.map(jnp.asarray, hparams),
        space,
        num_iterations=preset.num_iterations,
        num_generations=options["generations"],
        num_episodes=_EPISODES,
        batch_size=config.batch_size,
        report=report,
    )
    values, scores = generations[-1].hparams, generations[-1].scores
    members: dict[Any, int] = {}  # the best of those with equal settings, which copied the same parent
    for i in ranking(scores[:, None]).tolist():
        members.setdefault(tuple(_number(column[i]) for column in values.values()), i)
    left = np.array(list(members.values()))
    return take(states, left), [dict(zip(values, member, strict=True)) for member in members], scores[left]


def _optuna(config, preset, space, log, options) -> Left:
    keys, _ = config.runs(preset)
    number, count = iter(range(1, 10**9)), iter(range(10**9))
    steps = log.env_steps(preset.num_iterations)

    def report(batch):
        pairs = zip(batch.samples, batch.scores, strict=True)
        log.add({"batch": next(number)}, (({"setting": next(count)}, Trial(s, steps, scores)) for s, scores in pairs))

    states, batches = optuna_search(
        keys[: config.seeds],
        preset.learner,
        preset.hparams,
        space,
        num_iterations=preset.num_iterations,
        num_samples=len(config.samples),
        samples_per_batch=options["samples_per_batch"],
        seed=config.seed,
        num_episodes=_EPISODES,
        batch_size=config.batch_size,
        report=report,
    )
    samples = [sample for batch in batches for sample in batch.samples]
    scores = np.concatenate([batch.scores for batch in batches])
    best = ranking(scores)[0]
    return states, [samples[best]], scores[best]


_SEARCHES = {"halving": _halving, "random": _random, "pbt": _population, "optuna": _optuna}


def _check(config: Config, method: str, space: Mapping[str, Range]) -> None:
    check_choice("method", method, METHODS)
    if not config.swept:
        raise ValueError("there is nothing to search: give values or a range, such as --sweep.learning-rate loguniform:1e-4:1e-2")
    if config.num_shards > 1:
        raise ValueError("the runs of a search have one device each: num_shards must be 1")
    if method in ("pbt", "optuna") and (config.sweep or set(space) != set(config.swept)):
        raise ValueError(f"{method} searches ranges: give every swept hyperparameter as uniform:LOW:HIGH or loguniform:LOW:HIGH")
    if method == "pbt" and config.seeds != 1:
        raise ValueError(f"the members of a population have one seed each: set --seeds 1 and --samples; got seeds={config.seeds}")


def _preset(config: Config, space: Mapping[str, Range]) -> Preset:
    """The preset, after a check of the settings and of the ends of the ranges, which a search may reach."""
    if space:
        ends = [{name: getattr(values, end) for name, values in space.items()} for end in ("low", "high")]
        dataclasses.replace(config, samples=ends).preset()
    return config.preset()


def _replace_config(path: Path, config: Config) -> None:
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    try:
        config.save(new)
    except OSError as error:
        reason = storage.reason(error)
        raise ValueError(f"cannot write {path} ({reason}): make room and search again in another folder") from error
    new.replace(path)


def _plot(trials: list[Trial], path: Path, log_axes: Mapping[str, bool]) -> None:
    """Draw the search. If the picture cannot be written, a note says so, since everything else is there."""
    try:
        plot(trials, path, log_axes=log_axes)
    except ValueError as error:
        warnings.warn(str(error), Note, stacklevel=3)


def _logarithmic(space: Mapping[str, Range]) -> dict[str, bool]:
    return {name: values.log for name, values in space.items()}


def _number(value: Any) -> float:
    return float(f"{float(value):.6g}")
