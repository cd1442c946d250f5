"""Comparing run folders: returns with intervals, what differs between the configurations, and whether a difference is noise."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrl._src.numbers import shown
from jaxrl.algorithms import algorithm
from jaxrl.experiment import divergence, folder, statistics
from jaxrl.experiment.config import Config, load_config
from jaxrl.experiment.evaluations import EVALUATION, final_returns
from jaxrl.settings import schedules_of

# Returns that normalise scores: of uniformly random actions (the mean of 4,000 episodes), and the largest possible or else the
# best known one (docs/choosing.md).
REFERENCES: Mapping[str, tuple[float, float]] = {
    "CartPole-v1": (22.5, 500.0),
    "Acrobot-v1": (-498.9, -76.8),
    "Pendulum-v1": (-1222.0, -147.4),
    "MountainCarContinuous-v0": (-32.9, 94.4),
    "PointMass": (-79.9, -10.87),
}
# Wrappers after which the references are wrong.
_CHANGE_RETURNS = ("clip_rewards", "normalize_rewards", "scale_rewards", "time_limit")
_EVERY_PAIR = 6  # with more settings than this in an environment, each is compared with the best one only
_SIGNIFICANT = 0.05


class Summary(NamedTuple):
    """Aggregates of the returns `[R]` of a setting; NaN where there is nothing to aggregate."""

    iqm: float
    low: float  # bounds of the 95 % interval of the IQM; NaN for fewer than two seeds
    high: float
    median: float
    mean: float
    worst: float
    optimality_gap: float  # of normalised returns; NaN without a reference


class Entry(NamedTuple):
    """One setting of a run folder: a combination of the swept values, with all its seeds."""

    label: str  # differs from that of every other entry
    run: Path
    config: Config
    combination: dict[str, float]
    seeds: np.ndarray  # [R], those that have a return
    returns: np.ndarray  # [R]
    env_steps: int
    source: str
    reference: tuple[float, float] | None  # (low, high) returns that normalise the scores
    summary: Summary

    @property
    def scores(self) -> np.ndarray:
        return self.returns[:, None]


class Pair(NamedTuple):
    """Two entries or methods that were compared; `better` has the higher probability of improvement."""

    env: str  # "" for all environments together
    better: str
    worse: str
    improvement: statistics.Improvement
    p_value: float  # adjusted for the number of pairs by Holm's method
    more_than_noise: bool


class Overall(NamedTuple):
    """A method's normalised scores over several environments."""

    method: str
    scores: np.ndarray  # [R, M]
    iqm: np.ndarray  # [3]: the IQM and its 95 % interval, as the others
    median: np.ndarray
    mean: np.ndarray
    optimality_gap: np.ndarray


class Comparison(NamedTuple):
    entries: list[Entry]
    differences: dict[str, list[Any]]  # name of an option to its value in each entry; `MISSING` where it has no such option
    pairs: list[Pair]
    envs: list[str]  # of `overall`
    overall: list[Overall]
    notes: list[str]  # what the reader must know


MISSING = "–"
ADJUSTED = "The p-values are adjusted for the number of comparisons (Holm)."


def compare(runs: Sequence[Path], references: Mapping[str, tuple[float, float]] | None = None) -> Comparison:
    """Compare the final policies of run folders.

    Args:
      runs: run folders; each combination of swept values is compared on its own.
      references: (low, high) returns by the name of an environment, which normalise its scores; in addition to `REFERENCES`. An
        environment whose wrappers change returns is named with them, as in the tables: "CartPole-v1 (clip_rewards:-1,1)".

    Raises:
      ValueError: for a folder that is not a run folder, or one that is given twice, or a reference for another environment.
    """
    entries, notes = _read_entries(runs, references or {})
    envs, overall, more = _overall(entries)
    groups = {env: {entry.label: entry.scores for entry in group} for env, group in _by_env(entries).items()}
    groups[""] = {method.method: method.scores for method in overall}
    pairs = [pair for env, scores in groups.items() for pair in _pairs(env, scores)]
    num_tests = sum(math.comb(sum(len(values) > 1 for values in scores.values()), 2) for scores in groups.values())
    return Comparison(entries, _differences(entries), _adjusted(pairs, num_tests), envs, overall, notes + more)


def _read_entries(runs: Sequence[Path], references: Mapping[str, tuple[float, float]]) -> tuple[list[Entry], list[str]]:
    """The entries of run folders, and notes on what is missing in them. Raises ValueError as `compare`."""
    resolved = [run.resolve() for run in runs]
    for run in runs:
        if resolved.count(run.resolve()) > 1:
            raise ValueError(f"{run} is given twice: name each run folder once")
    entries, notes, unused = [], [], set(references)
    for run, title in zip(runs, folder.titles(runs), strict=True):
        config, found = load_config(run), final_returns(run)
        if found.source != EVALUATION:
            notes.append(f"{title}: the returns are {found.source}.")
        notes += [f"{title}: {text}." for text in _divergence(run, config)]
        by_combination = found.values.reshape(-1, config.seeds)
        behind = found.behind.reshape(-1, config.seeds)
        name = _name_of_reference(config, references)
        reference = {**REFERENCES, **references}.get(name)
        unused.discard(name)
        for combination, values, late in zip(config.combinations, by_combination, behind, strict=True):
            label = _with(title, combination)
            there = np.isfinite(values)
            seeds = np.arange(config.seed, config.seed + config.seeds)
            notes += _left_out(label, seeds, late, ", which have not been trained that far")
            notes += _left_out(label, seeds, ~there & ~late)
            kept, summary = values[there], summarize(values[there], reference)
            entries.append(
                Entry(label, run, config, combination, seeds[there], kept, found.env_steps, found.source, reference, summary)
            )
    if unused:
        known = ", ".join(dict.fromkeys(_name_of_reference(entry.config, {}) for entry in entries))
        raise ValueError(f"there is a reference for {', '.join(sorted(unused))}, and the environments of the runs are {known}")
    return entries, notes


def _name_of_reference(config: Config, references: Mapping[str, tuple[float, float]]) -> str:
    """The name of the environment among the references: with its wrappers if these change returns, or if it is given so."""
    changed = any(wrapper.partition(":")[0] in _CHANGE_RETURNS for wrapper in config.wrappers)
    return config.env_title if changed or config.env_title in references else config.env


def _divergence(run: Path, config: Config) -> list[str]:
    """Which runs have diverged; nothing if none has, or the folder has no metrics, as that of a search."""
    if not (run / folder.METRICS).is_file() or not folder.has_rows(run / folder.METRICS):
        return []
    diverged = divergence.diverged_runs(config, folder.read_metrics(run))
    return [divergence.describe(diverged)] if diverged else []


def _left_out(label: str, seeds: np.ndarray, missing: np.ndarray, why: str = "") -> list[str]:
    """A note on the seeds that are missing, bool `[S]`; none if there are none."""
    if not missing.any():
        return []
    names = ", ".join(map(str, seeds[missing][:10])) + (" …" if missing.sum() > 10 else "")
    return [f"{label}: no return of {missing.sum()} of {len(seeds)} seeds ({names}){why}; they are left out."]


def _with(title: str, combination: Mapping[str, float]) -> str:
    values = ", ".join(f"{name}={shown(value)}" for name, value in combination.items())
    return f"{title} ({values})" if values else title


def summarize(returns: np.ndarray, reference: tuple[float, float] | None) -> Summary:
    """The aggregates of returns `[R]`, which `reference` normalises."""
    scores, nan = returns[:, None], float("nan")
    if not len(scores):
        return Summary(*(nan,) * 7)
    low, high = statistics.stratified_interval(statistics.pooled_iqm, scores) if len(scores) > 1 else (nan, nan)
    gap = nan if reference is None else statistics.optimality_gap(statistics.normalize(scores, *reference))
    values = statistics.pooled_iqm(scores), low, high, np.median(scores), np.mean(scores), np.min(scores), gap
    return Summary(*map(float, values))


def estimate(values: np.ndarray, digits: int) -> str:
    """A value with its 95 % interval `[3]`, such as "0.98 (0.95 … 1.00)"; the value alone where the interval is NaN.

    >>> estimate(np.array([1.0, np.nan, np.nan]), 2)
    '1.00'
    """
    value, low, high = (f"{x:z.{digits}f}" for x in values)
    return value if np.isnan(values[1]) else f"{value} ({low} … {high})"


def sentence(pair: Pair) -> str:
    """What a pair says, in words."""
    found = pair.improvement
    where = f"On {pair.env}" if pair.env else "On all environments together"
    if np.isnan(pair.p_value):
        return (
            f"{where}, {pair.better} and {pair.worse} cannot be compared: it takes two seeds or more of each to know the noise."
        )
    if found.probability == 0.5 and found.low == found.high:
        return f"{where}, {pair.better} and {pair.worse} do not differ."
    share, low, high = map(_percent, found[:3])
    p = "p < 0.001" if pair.p_value < 0.001 else f"p = {pair.p_value:.2g}"
    verdict = "this is more than noise" if pair.more_than_noise else "this may be noise"
    return (
        f"{where}, {pair.better} scores higher than {pair.worse} in {share} of pairs of seeds "
        f"(95 % interval {low} to {high}, {p}): {verdict}."
    )


def _percent(share: float) -> str:
    """Whole percents, except next to 50 %, which decides what is more than noise.

    >>> _percent(0.627), _percent(0.5), _percent(0.503)
    ('63 %', '50 %', '50.3 %')
    """
    text = f"{100 * share:.0f}"
    return f"{100 * share:.1f} %" if text == "50" and share != 0.5 else f"{text} %"


# --- what differs --------------------------------------------------------------------------------


def describe(config: Config, combination: Mapping[str, Any]) -> dict[str, Any]:
    """Every option that defines the runs of a setting, except for the seeds, by its name on the command line."""
    settings = config.settings
    options: dict[str, Any] = {"algorithm": settings.algorithm, "env": config.env, "wrap": ", ".join(config.wrappers) or "none"}
    options |= {"steps": settings.steps, "agent.num_envs": settings.num_envs, "agent.rollout_length": settings.rollout_length}
    for group in (settings.agent, settings.network, settings.schedules):
        options |= {f"agent.{name}": value for name, value in group.items()}
    given = {**config.hparams, **combination}
    scheduled = {schedules_of(algorithm(settings.algorithm))[name] for name in settings.schedules} - given.keys()
    hparams = {**settings.hparams, **given, **dict.fromkeys(scheduled, "from the schedule")}
    return options | {f"hparams.{name}": value for name, value in hparams.items()}


def _differences(entries: Sequence[Entry]) -> dict[str, list[Any]]:
    described = [describe(entry.config, entry.combination) for entry in entries]
    names = dict.fromkeys(name for options in described for name in options)
    values = {name: [options.get(name, MISSING) for options in described] for name in names}
    values["seeds"] = [entry.config.seeds for entry in entries]
    return {name: row for name, row in values.items() if any(value != row[0] for value in row)}


# --- pairs ---------------------------------------------------------------------------------------


def _by_env(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.config.env_title, []).append(entry)
    return groups


def _pairs(env: str, scores: Mapping[str, np.ndarray]) -> list[Pair]:
    """Compare all pairs of a few, and each of many with the best one: of equal IQM, that with the highest mean."""
    usable = {name: values for name, values in scores.items() if len(values)}
    aggregates = {name: (float(statistics.pooled_iqm(x)), float(statistics.mean_score(x))) for name, x in usable.items()}
    names = sorted(sorted(usable), key=aggregates.__getitem__, reverse=True)  # whatever the order of the folders
    of_the_best = [(names[0], other) for other in names[1:]] if names else []
    return [
        _pair(env, a, b, usable[a], usable[b])
        for a, b in (itertools.combinations(names, 2) if len(names) <= _EVERY_PAIR else of_the_best)
    ]


def _pair(env: str, a: str, b: str, x: np.ndarray, y: np.ndarray) -> Pair:
    if statistics.probability_of_improvement(x, y) < 0.5:
        a, b, x, y = b, a, y, x
    found = statistics.improvement(x, y)
    return Pair(env, a, b, found, found.p_value if min(len(x), len(y)) > 1 else float("nan"), False)


def _adjusted(pairs: list[Pair], num_tests: int) -> list[Pair]:
    """Adjust the p-values for all pairs that there are, since the best one is chosen by the same returns, and decide."""
    known = [i for i, pair in enumerate(pairs) if not np.isnan(pair.p_value)]
    adjusted = statistics.holm(np.array([pairs[i].p_value for i in known]), num_tests)
    for i, p in zip(known, adjusted, strict=True):
        more = bool(p < _SIGNIFICANT and pairs[i].improvement.low > 0.5)
        pairs[i] = pairs[i]._replace(p_value=float(p), more_than_noise=more)
    return pairs


def are_adjusted(pairs: Sequence[Pair]) -> bool:
    """Whether there are several p-values."""
    return sum(not np.isnan(pair.p_value) for pair in pairs) > 1


# --- several environments ------------------------------------------------------------------------


def _overall(entries: Sequence[Entry]) -> tuple[list[str], list[Overall], list[str]]:
    """Aggregate the methods that were run in every environment, after normalising their returns."""
    envs = list(_by_env(entries))
    if len(envs) < 2:
        return [], [], []
    unknown = [env for env in envs if any(e.reference is None for e in entries if e.config.env_title == env)]
    if unknown:
        missing = f"there are no reference returns for {', '.join(unknown)}; give --reference ENV LOW HIGH"
        return [], [], [f"No aggregate over environments: {missing}."]
    methods: dict[str, dict[str, list[Entry]]] = {}
    for entry in entries:
        method = _with(algorithm(entry.config.settings.algorithm).title, entry.combination)
        methods.setdefault(method, {}).setdefault(entry.config.env_title, []).append(entry)
    overall: list[Overall] = []
    notes: list[str] = []
    lacking: list[str] = []
    for method, by_env in methods.items():
        if set(by_env) != set(envs) or any(len(found) > 1 or not len(found[0].returns) for found in by_env.values()):
            lacking.append(method)
            continue
        columns = [statistics.normalize(e.returns, *(e.reference or (0, 1))) for [e] in (by_env[env] for env in envs)]
        num = min(map(len, columns))
        if max(map(len, columns)) > num:
            notes.append(f"The aggregate over environments of {method} uses the first {num} seeds of each.")
        overall.append(_aggregate(method, np.stack([column[:num] for column in columns], axis=1)))
    if lacking:
        needs = f"it takes one run with returns in each of {', '.join(envs)}"
        notes.append(f"No aggregate over environments of {', '.join(lacking)}: {needs}.")
    return envs, overall, notes


def _aggregate(method: str, scores: np.ndarray) -> Overall:
    functions = (statistics.pooled_iqm, statistics.median_score, statistics.mean_score, statistics.optimality_gap)

    def all_at_once(scores):
        return np.stack([function(scores) for function in functions], axis=-1)

    bounds = statistics.stratified_interval(all_at_once, scores) if len(scores) > 1 else np.full((2, 4), np.nan)
    return Overall(method, scores, *np.stack([all_at_once(scores), *bounds], axis=1))
