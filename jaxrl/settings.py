"""Settings, which define a run except for its environment: the record that presets and the command line fill in.

Settings are in environment steps and in fractions of a run, so that they scale with the length of the run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jaxrl._src.signatures import Option
from jaxrl.algorithms import Algorithm, algorithm


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
        entry = algorithm(self.algorithm)
        defaults = {
            "network": {option.name: option.default for option in entry.network_options},
            "agent": {option.name: option.default for option in options_of_agent(entry)},
            "hparams": entry.hparams._asdict(),
        }
        if "warmup_steps" in defaults["agent"]:  # the factory's default is in iterations
            defaults["agent"]["warmup_steps"] *= self.num_envs * self.rollout_length
        known = defaults | {"schedules": schedules_of(entry)}
        for group, names in known.items():
            given = {k: tuple(v) if isinstance(v, list) else v for k, v in getattr(self, group).items()}
            for name in given.keys() - names.keys():
                what = {"hparams": "hyperparameter", "schedules": "schedule"}.get(group, f"{group} option")
                raise ValueError(f"{self.algorithm} has no {what} {name!r}; it has {', '.join(names)}")
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
