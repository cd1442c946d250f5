"""Greedy returns of the policies of a run folder: `evaluation.csv`, with a row for every episode."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrl.experiment import folder
from jaxrl.experiment.config import Config, load_config
from jaxrl.experiment.csv_file import CsvFile, Position, position_at_end
from jaxrl.settings import run_length

EVALUATION = "evaluation.csv"
EPISODES = 32  # for each policy
_EVALUATIONS = 10  # in a run, by default


class Evaluations(NamedTuple):
    """Mean returns of every run at some times."""

    env_steps: np.ndarray  # [T], increasing
    returns: np.ndarray  # [T, num_runs]; NaN where a run was not evaluated, or no episode ended
    evaluated: np.ndarray  # bool [T, num_runs]


class Returns(NamedTuple):
    """The returns by which a run folder is judged."""

    values: np.ndarray  # [num_runs], the mean over episodes; NaN for a run that has none
    env_steps: int  # of the policies
    source: str  # where the returns are from, for the reader
    behind: np.ndarray  # bool [num_runs]: not trained for `env_steps` yet


def interval_of(config: Config, env_steps: int) -> int | None:
    """Environment steps between two evaluations in runs of `env_steps`; None if there are none."""
    if config.eval_every == "none":
        return None
    return -(-env_steps // _EVALUATIONS) if config.eval_every == "auto" else int(config.eval_every)


def evaluation_due(config: Config, env_steps: int, before: int, now: int) -> bool:
    """Whether runs of `env_steps` environment steps are to be evaluated after `now` steps, if they were asked at `before`."""
    every = interval_of(config, env_steps)
    return every is not None and (now >= env_steps or now // every > before // every)


def evaluation_rows(config: Config, runs: slice, env_steps: int, returns: np.ndarray) -> Iterator[dict[str, Any]]:
    """The rows of some of the runs after `env_steps` environment steps; `returns` is `[len(runs), episodes]`.

    The columns are seed, the swept values, env_steps, episode and return.
    """
    for identifier, episodes in zip(config.identifiers()[runs], returns, strict=True):
        for episode, value in enumerate(episodes):
            yield identifier | {"env_steps": env_steps, "episode": episode, "return": float(value)}


def write_evaluation(run: Path, config: Config, env_steps: int, returns: np.ndarray, position: Position | None = None) -> None:
    """Append the returns `[num_runs, episodes]` of all policies after `env_steps` environment steps to `evaluation.csv`.

    Args:
      run: the run folder.
      config, env_steps, returns: as for `evaluation_rows`.
      position: where to go on, by default at the end of the file.

    Raises:
      ValueError: if the file does not begin with what `position` says, or cannot be written.
    """
    path = run / EVALUATION
    if position is None and path.exists():
        position = position_at_end(path)
    with CsvFile(path, position) as file:
        file.write(evaluation_rows(config, slice(None), env_steps, returns))


def read_evaluations(run: Path) -> Evaluations:
    """Read `evaluation.csv`.

    Raises:
      ValueError: if the file is missing, damaged, or empty.
    """
    columns = folder.read_table(run / EVALUATION)
    path, config = run / EVALUATION, load_config(run)
    names = ("seed", *config.swept)
    for name in (*names, "env_steps", "return"):
        if name not in columns:
            raise ValueError(f"{path} is damaged (it has no column {name})")
    times, at = np.unique(columns["env_steps"], return_inverse=True)
    runs = run_numbers(config, [columns[name] for name in names])
    if (runs < 0).any():
        raise ValueError(f"{path} and {run / folder.CONFIG} do not belong together: line {np.argmin(runs) + 2} is of another run")
    groups, shape = at * config.num_runs + runs, (len(times), config.num_runs)
    means = mean_by_group(groups, columns["return"], len(times) * config.num_runs)
    evaluated = np.bincount(groups, minlength=len(means)) > 0
    return Evaluations(times, means.reshape(shape), evaluated.reshape(shape))


def has_evaluations(run: Path) -> bool:
    """Whether `evaluation.csv` has a row; that of a run that was interrupted early is empty."""
    return (run / EVALUATION).is_file() and folder.has_rows(run / EVALUATION)


def mean_by_group(groups: np.ndarray, values: np.ndarray, num_groups: int) -> np.ndarray:
    """The mean of the values in each group, `[num_groups]`, over those that are not NaN; NaN without any.

    Args:
      groups: int `[N]`, the group of each value, from 0.
      values: `[N]`.
      num_groups: the number of groups.
    """
    known = ~np.isnan(values)
    count = np.bincount(groups[known], minlength=num_groups)
    total = np.bincount(groups[known], values[known], minlength=num_groups)
    return np.divide(total, count, out=np.full(num_groups, np.nan), where=count > 0)


def run_numbers(config: Config, columns: list[np.ndarray]) -> np.ndarray:
    """The number of the run to which each row belongs, as in `config.identifiers()`; -1 for none."""
    seeds = columns[0] - config.seed
    combination = np.full(len(seeds), -1)
    for i, values in enumerate(config.combinations):
        same = [column == value for column, value in zip(columns[1:], values.values(), strict=True)]
        combination[np.logical_and.reduce([np.ones(len(seeds), bool), *same])] = i
    known = (seeds >= 0) & (seeds < config.seeds) & (combination >= 0)
    return np.where(known, combination * config.seeds + seeds, -1).astype(int)


def final_returns(run: Path) -> Returns:
    """The greedy returns of the final policies: from `evaluation.csv`, or else by playing the saved policies.

    If the run holds neither, since it was interrupted, these are the returns of its last evaluation during training, or else
    the last ones of training, which include exploration.

    Raises:
      ValueError: if `run` is not a run folder, or holds nothing to judge it by.
    """
    config = load_config(run)
    found = read_evaluations(run) if has_evaluations(run) else None
    length = run_length(config.settings)[1]
    if found is not None and found.env_steps[-1] >= length:
        return _last_evaluation(found, EVALUATION)
    if (run / folder.POLICIES).is_dir():
        return _play(run, config, length)
    if found is not None:
        during = f"of the last evaluation during training, after {found.env_steps[-1]:,.0f} of {length:,} steps"
        return _last_evaluation(found, f"{during}: the run is not finished")
    return _last_training_returns(run, config, length)


def _last_evaluation(found: Evaluations, source: str) -> Returns:
    return Returns(found.returns[-1], int(found.env_steps[-1]), source, ~found.evaluated[-1])


def _play(run: Path, config: Config, env_steps: int) -> Returns:
    from jaxrl.experiment.policies import abstract_policies, evaluate_policies

    policies = folder.load_policies(run, abstract_policies(config))
    returns = evaluate_policies(config, policies, num_episodes=EPISODES)
    source = f"{EPISODES} episodes of each saved policy, played now, since {EVALUATION} does not have them"
    return Returns(mean_of_ended(returns), env_steps, source, np.zeros(config.num_runs, bool))


def _last_training_returns(run: Path, config: Config, length: int) -> Returns:
    columns = folder.read_metrics(run)
    runs, steps = run_numbers(config, [columns[name] for name in ("seed", *config.swept)]), columns["env_steps"]
    values, last = np.full(config.num_runs, np.nan), steps.max()
    known = (runs >= 0) & ~np.isnan(columns["episode_return"])
    values[runs[known]] = columns["episode_return"][known]  # the rows are in the order of time: the last one stays
    behind = ~np.isin(np.arange(config.num_runs), runs[steps == last])
    unfinished = last < length or behind.any()
    reason = f"the run is not finished, after {last:,.0f} of {length:,} steps" if unfinished else "there are no policies"
    source = f"the last returns of training, with exploration, since {reason}"
    return Returns(np.where(behind, np.nan, values), int(last), source, behind)


def mean_of_ended(returns: np.ndarray) -> np.ndarray:
    """The mean over the episodes `[num_runs, episodes]` that ended, NaN where none did."""
    ended = ~np.isnan(returns)
    total = np.sum(np.where(ended, returns, 0), axis=1, dtype=float)
    return np.divide(total, ended.sum(axis=1), out=np.full(len(returns), np.nan), where=ended.any(axis=1))
