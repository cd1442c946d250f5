"""Settings, which define a run except for its environment, and `build`, which turns them into a learner.

Settings are in environment steps and in fractions of a run, so that they scale with the length of the run. Presets and the
command line fill them in.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from jaxrl._src.checks import check_plain, check_size, check_table
from jaxrl._src.signatures import Option
from jaxrl.algorithms import ALGORITHMS, Algorithm, algorithm
from jaxrl.learner import check_iterations, make_learner
from jaxrl.types import Environment, HParams, Learner


class _Default(int):
    """A default that follows from the sizes, which is computed again when settings of other sizes are made from these."""


@dataclass(frozen=True)
class Settings:
    """Everything that defines a run except the environment. Options that are not given take the algorithm's defaults.

    Attributes:
      algorithm: a name in `jaxrl.algorithms.ALGORITHMS`.
      steps: environment steps per seed, warm-up included.
      num_envs: number of environments per seed.
      rollout_length: steps of each environment per iteration.
      network: keyword arguments of the network builder.
      agent: keyword arguments of the agent's factory; `options_of_agent` lists them with their units.
      schedules: `X_fraction` sets the hyperparameter `X_iterations` to this fraction of the run, in [0, 1]; inf means
        constant. Hyperparameters without a schedule keep the value in `hparams`.
      hparams: hyperparameters.

    Raises:
      ValueError: for an unknown algorithm or an unknown option; the message lists the known ones.
      TypeError: for a value that is not of the type of its option; the message names the option.
    """

    algorithm: str
    steps: int = 500_000
    num_envs: int = 16
    rollout_length: int = 32
    network: Mapping[str, Any] = field(default_factory=dict)
    agent: Mapping[str, Any] = field(default_factory=dict)
    schedules: Mapping[str, float] = field(default_factory=dict)
    hparams: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        check_plain("algorithm", self.algorithm, str)
        for name in ("steps", "num_envs", "rollout_length"):
            check_plain(name, getattr(self, name), int)
        entry = algorithm(self.algorithm)
        known = _options(entry)
        defaults = {group: {o.name: o.default for o in options} for group, options in known.items() if group != "schedules"}
        if "warmup_steps" in defaults["agent"]:  # the factory's default is in iterations
            defaults["agent"]["warmup_steps"] = _Default(defaults["agent"]["warmup_steps"] * self.num_envs * self.rollout_length)
        for group, options in known.items():
            check_table(group, getattr(self, group))
            given = {k: v for k, v in getattr(self, group).items() if not isinstance(v, _Default)}  # of other sizes
            given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
            by_name = {option.name: option for option in options}
            for name, value in given.items():
                if name not in by_name:
                    what = {"hparams": "hyperparameter", "schedules": "schedule"}.get(group, f"{group} option")
                    raise ValueError(f"{self.algorithm} has no {what} {name!r}; it has {', '.join(by_name)}")
                check_plain(f"{group}.{name}", value, by_name[name].type, repeated=by_name[name].repeated)
            object.__setattr__(self, group, defaults.get(group, {}) | given)


SIZES = (
    Option("num_envs", int, False, Settings.num_envs, "number of environments per seed"),
    Option("rollout_length", int, False, Settings.rollout_length, "steps of each environment per iteration"),
)


def options_of_agent(entry: Algorithm) -> tuple[Option, ...]:
    """The options of the factory, with sizes in environment steps: `warmup_steps` replaces `warmup`, and `build` rounds
    `capacity` down to whole iterations."""
    in_steps = {
        "warmup": ("warmup_steps", "environment steps before the first update, rounded down to whole iterations, at least one."),
        "capacity": ("capacity", "transitions in the replay, rounded down to whole iterations."),
    }

    def convert(option: Option) -> Option:
        name, text = in_steps.get(option.name, (option.name, option.help))
        return option._replace(name=name, help=text)

    return tuple(map(convert, entry.agent_options))


def _options(entry: Algorithm) -> dict[str, tuple[Option, ...]]:
    """The options of each group of the settings."""
    number = lambda name, default: Option(name, float, False, default, "")
    return {
        "network": entry.network_options,
        "agent": options_of_agent(entry),
        "schedules": tuple(number(name, None) for name in schedules_of(entry)),
        "hparams": tuple(number(name, default) for name, default in entry.hparams._asdict().items()),
    }


def schedules_of(entry: Algorithm) -> dict[str, str]:
    """Map the name of each schedule, a fraction of a run, to the hyperparameter that it sets.

    >>> schedules_of(algorithm("dqn"))["epsilon_fraction"]
    'epsilon_iterations'
    """
    names = (name for name in entry.hparams._fields if name.endswith("_iterations"))
    return {name.removesuffix("iterations") + "fraction": name for name in names}


def override(settings: Settings, **changes: Any) -> Settings:
    """Replace some fields of `settings`. In `network`, `agent`, `schedules` and `hparams`, replace only the given options.

    >>> override(Settings("dqn"), steps=1000, network={"hidden": (8,)}).network["activation"]
    'relu'
    """
    merged: dict[str, Any] = {k: {**getattr(settings, k), **v} if isinstance(v, Mapping) else v for k, v in changes.items()}
    return replace(settings, **merged)


class Preset(NamedTuple):
    """The arguments of `train`, and the number of environment steps that it takes, warm-up included."""

    learner: Learner
    hparams: HParams
    num_iterations: int
    env_steps: int


def build(settings: Settings, env: Environment, **hparams: Any) -> Preset:
    """Build the learner, the hyperparameters and the length of a run from settings.

    Args:
      settings: the settings.
      env: the environment.
      hparams: hyperparameters that override those of the settings and their schedules.

    Raises:
      ValueError: if the algorithm does not support the environment's action space (the message lists those that do), or
        `settings.steps` is too small for the warm-up and one update; and as for the agent's factory and `make_learner`.
    """
    entry = algorithm(settings.algorithm)
    if not isinstance(env.action_space, entry.action_spaces):
        fitting = ", ".join(other.name for other in ALGORITHMS.values() if isinstance(env.action_space, other.action_spaces))
        raise ValueError(
            f"{entry.name} needs a {entry.actions} action space, and that of {env.name} is {env.action_space}; "
            f"algorithms for it: {fitting or 'none'}"
        )
    num_envs, rollout_length = settings.num_envs, settings.rollout_length
    steps = check_size("num_envs", num_envs) * check_size("rollout_length", rollout_length)  # of an iteration
    agent_options = _in_iterations(settings.agent, steps)
    network = entry.network(env, settings.network, settings.agent)
    agent = entry.factory(network, env.action_space, **agent_options)
    learner = make_learner(env, agent, num_envs=num_envs, rollout_length=rollout_length)
    num_iterations, env_steps = run_length(settings)
    given = {**settings.hparams, **_schedules(settings, num_iterations, agent.warmup), **hparams}
    return Preset(learner, entry.hparams._replace(**given), num_iterations, env_steps)


def run_length(settings: Settings) -> tuple[int, int]:
    """The number of iterations of a run, without the warm-up, and of its environment steps, with it. It needs no environment.

    Raises:
      ValueError: if `settings.steps` is too small for the warm-up and one update.

    >>> run_length(Settings("ppo", steps=1_000_000))
    (1938, 992256)
    """
    steps = settings.num_envs * settings.rollout_length  # of an iteration
    warmup = _in_iterations(settings.agent, steps).get("warmup", 0)
    num_iterations = check_size("steps", settings.steps, maximum=None) // steps - warmup
    if num_iterations < 1:
        raise ValueError(
            f"steps={settings.steps} is too few: an iteration is {steps} environment steps and the warm-up takes "
            f"{warmup * steps}, so give at least {(warmup + 1) * steps}"
        )
    check_iterations(num_iterations, warmup)
    log_every = max(1, num_iterations // 100)  # so that the run divides into about a hundred logging intervals,
    log_every += num_iterations // log_every > 125
    log_every -= log_every % 16 if log_every >= 64 else 0  # and an interval into blocks of noise
    num_iterations -= num_iterations % log_every
    return num_iterations, (num_iterations + warmup) * steps


def _in_iterations(agent_options: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """Convert options from environment steps to iterations of `steps` environment steps each, as the factory takes them."""
    arguments = dict(agent_options)
    if "capacity" in arguments:
        capacity = check_size("capacity", arguments["capacity"])
        arguments["capacity"] = max(1, capacity // steps) * steps
    if "warmup_steps" in arguments:
        warmup_steps = check_size("warmup_steps", arguments.pop("warmup_steps"), minimum=0)
        arguments["warmup"] = max(1, warmup_steps // steps)
    return arguments


def _schedules(settings: Settings, num_iterations: int, warmup: int) -> dict[str, float]:
    """The lengths of the schedules in iterations. Learning rates start with the first update, all others with the warm-up."""
    lengths = {}
    for fraction, name in schedules_of(algorithm(settings.algorithm)).items():
        share = settings.schedules.get(fraction)
        if share is None:
            continue
        if not (0 <= share <= 1 or share == math.inf):
            raise ValueError(f"{fraction} is a share of the run, between 0 and 1, or inf for a constant; got {share}")
        lengths[name] = share * (num_iterations + (0 if name.startswith("learning_rate") else warmup))
    return lengths
