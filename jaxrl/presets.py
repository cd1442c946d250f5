"""Tuned settings by algorithm and environment, and the learner that settings describe.

Settings count environment steps and shares of a run, so that they scale with the length of the run.
`scripts/presets.py` reproduces the results in README.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from jaxrl import envs
from jaxrl._src.checks import check_size
from jaxrl._src.signatures import Option
from jaxrl.algorithms import Algorithm, algorithm
from jaxrl.learner import check_iterations, make_learner
from jaxrl.types import Environment, HParams, Learner


class Preset(NamedTuple):
    """The arguments of `train`, and the environment steps that it takes, warm-up included."""

    learner: Learner
    hparams: HParams
    num_iterations: int
    env_steps: int


@dataclass(frozen=True)
class Settings:
    """All that a run needs beside the environment. What is not given takes the default of the algorithm's functions.

    Attributes:
      algorithm: a name in `jaxrl.algorithms.ALGORITHMS`.
      steps: environment steps of each seed, warm-up included.
      num_envs: environments of each seed.
      rollout_length: steps of each environment in an iteration.
      network: options of the network, the keyword arguments of its builder.
      agent: options of the agent, the keyword arguments of its factory; `options_of_agent` lists them with their units.
      schedules: `X_fraction` is the share of the run that becomes the hyperparameter `X_iterations`: a number in [0, 1], or
        inf for a constant. What is not scheduled stays as it is in `hparams`.
      hparams: hyperparameters.

    Raises:
      ValueError: for an unknown algorithm or an unknown option, with the known ones.
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
        row = algorithm(self.algorithm)
        defaults = {
            "network": {option.name: option.default for option in row.network_options},
            "agent": {option.name: option.default for option in options_of_agent(row)},
            "hparams": row.hparams._asdict(),
        }
        if "warmup_steps" in defaults["agent"]:  # the factory's default is in iterations
            defaults["agent"]["warmup_steps"] *= self.num_envs * self.rollout_length
        known = defaults | {"schedules": schedules_of(row)}
        for group, names in known.items():
            given = {k: tuple(v) if isinstance(v, list) else v for k, v in getattr(self, group).items()}
            for name in given.keys() - names.keys():
                what = {"hparams": "hyperparameter", "schedules": "schedule"}.get(group, f"{group} option")
                raise ValueError(f"{self.algorithm} has no {what} {name!r}; it has {', '.join(names)}")
            object.__setattr__(self, group, defaults.get(group, {}) | given)


SIZES = (
    Option("num_envs", int, False, Settings.num_envs, "environments of each seed"),
    Option("rollout_length", int, False, Settings.rollout_length, "steps of each environment in an iteration"),
)


def options_of_agent(row: Algorithm) -> tuple[Option, ...]:
    """The factory's options with its sizes in environment steps: `warmup_steps` in place of `warmup`, and a `capacity` that
    `build` rounds down to whole iterations."""
    in_steps = {
        "warmup": ("warmup_steps", "environment steps before the first update, rounded down to whole iterations, at least one."),
        "capacity": ("capacity", "transitions in the replay, rounded down to whole iterations."),
    }

    def convert(option: Option) -> Option:
        name, text = in_steps.get(option.name, (option.name, option.help))
        return option._replace(name=name, help=text)

    return tuple(map(convert, row.agent_options))


def schedules_of(row: Algorithm) -> dict[str, str]:
    """From the name of each share of a run to the hyperparameter that it becomes.

    >>> schedules_of(algorithm("dqn"))["epsilon_fraction"]
    'epsilon_iterations'
    """
    names = (name for name in row.hparams._fields if name.endswith("_iterations"))
    return {name.removesuffix("iterations") + "fraction": name for name in names}


def override(settings: Settings, **changes: Any) -> Settings:
    """`settings` with some fields replaced; in `network`, `agent`, `schedules` and `hparams` only the options that are given.

    >>> override(DEFAULTS["dqn"], steps=1000, network={"hidden": (8,)}).network["activation"]
    'relu'
    """
    merged: dict[str, Any] = {k: {**getattr(settings, k), **v} if isinstance(v, Mapping) else v for k, v in changes.items()}
    return replace(settings, **merged)


_DQN = Settings(
    "dqn",
    num_envs=8,
    rollout_length=1,
    network={"hidden": (64, 64)},
    agent={"batch_size": 128, "capacity": 100_000, "warmup_steps": 1_000, "updates_per_iteration": 4},
    schedules={"epsilon_fraction": 0.3, "learning_rate_fraction": 1.0},
    hparams={"learning_rate": 1e-3, "tau": 0.02, "epsilon_end": 0.02},
)
_REINFORCE = Settings(
    "reinforce",
    agent={"mode": "continuing", "baseline": "value", "normalize_advantage": True},
    schedules={"learning_rate_fraction": 1.0},
    hparams={"learning_rate": 3e-3, "entropy_coef": 0.01},
)
_PPO = Settings(
    "ppo",
    num_envs=8,
    rollout_length=128,
    schedules={"learning_rate_fraction": 1.0},
    hparams={"learning_rate": 1e-3},
)
_SAC = Settings(
    "sac",
    steps=20_000,
    num_envs=1,
    rollout_length=1,
    network={"hidden": (64, 64)},
    agent={"warmup_steps": 500},
    hparams={"learning_rate": 1e-3, "tau": 0.01},
)

# The settings of environments that are not in PRESETS.
DEFAULTS: dict[str, Settings] = {"dqn": _DQN, "ppo": _PPO, "reinforce": _REINFORCE, "sac": _SAC}

# Several rows for one environment are for runs of different lengths; `tuned` takes the nearest.
PRESETS: dict[tuple[str, str], tuple[Settings, ...]] = {
    ("dqn", "CartPole-v1"): (
        override(_DQN, steps=100_000, network={"hidden": (120, 84)}, hparams={"tau": 0.01}),
        override(
            _DQN,
            steps=500_000,
            num_envs=10,
            network={"hidden": (120, 84)},
            agent={
                "capacity": 10_000,
                "warmup_steps": 10_000,
                "updates_per_iteration": 1,
                "target_update_period": 50,
                "double": True,
            },
            schedules={"epsilon_fraction": 0.5},
            hparams={"learning_rate": 5e-4, "tau": 1.0, "epsilon_end": 0.05},
        ),
    ),
    ("dqn", "Acrobot-v1"): (override(_DQN, steps=200_000, agent={"updates_per_iteration": 2}),),
    ("dqn", "MountainCar-v0"): (
        override(
            _DQN,
            steps=500_000,
            num_envs=16,
            network={"hidden": (120, 84)},
            agent={"batch_size": 64, "capacity": 10_000, "target_update_period": 300},
            schedules={"epsilon_fraction": 0.2},
            hparams={"learning_rate": 4e-3, "discount": 0.98, "tau": 1.0, "epsilon_end": 0.07},
        ),
    ),
    ("reinforce", "CartPole-v1"): (
        override(
            _REINFORCE,
            num_envs=8,
            rollout_length=500,
            agent={"mode": "episodic", "baseline": "mean", "normalize_advantage": False},
            hparams={"learning_rate": 2e-3, "entropy_coef": 0.0},
        ),
    ),
    ("reinforce", "Acrobot-v1"): (override(_REINFORCE, hparams={"learning_rate": 5e-3}),),
    ("reinforce", "PointMass"): (
        override(
            _REINFORCE,
            rollout_length=50,
            network={"activation": "relu"},
            hparams={"entropy_coef": 0.0, "max_grad_norm": 0.5},
        ),
    ),
}


def default_settings(name: str) -> Settings:
    """The settings of an algorithm where none are tuned for the environment. Raises ValueError for an unknown algorithm."""
    return DEFAULTS.get(name) or Settings(name)


def tuned(name: str, env_name: str, env_steps: int | None = None) -> Settings | None:
    """The settings tuned for an algorithm, an environment and a run of `env_steps`, by default those of the first row.

    Returns None where there are none.
    """
    rows = PRESETS.get((name, env_name))
    if rows is None:
        return None
    if env_steps is None:
        return rows[0]
    check_size("steps", env_steps, maximum=None)
    nearest = min(rows, key=lambda row: abs(math.log(env_steps / row.steps)))
    return replace(nearest, steps=env_steps)


def preset(algorithm: str, env_name: str, *, env_steps: int | None = None) -> Preset:
    """A learner with tuned settings.

    Args:
      algorithm: its name, such as "dqn".
      env_name: an environment that has settings for this algorithm.
      env_steps: length of the run in environment steps, warm-up included; the schedules scale with it.

    Raises:
      ValueError: if no settings are tuned for the two, with the list of those that are, or the steps are too few.

    >>> import jaxrl
    >>> learner, hparams, num_iterations, env_steps = jaxrl.preset("dqn", "CartPole-v1")
    >>> env_steps <= 100_000
    True
    """
    settings = tuned(algorithm, env_name, env_steps)
    if settings is None:
        rows = ", ".join(f"{name} on {env}" for name, env in PRESETS)
        raise ValueError(f"no preset for {algorithm!r} on {env_name!r}; there are {rows}")
    return build(settings, envs.make(env_name))


def build(settings: Settings, env: Environment, **hparams: Any) -> Preset:
    """The learner, the hyperparameters and the length of a run that `settings` describe.

    Args:
      settings: what to build.
      env: where it learns.
      hparams: hyperparameters that replace those of the settings and their schedules.

    Raises:
      ValueError: if `steps` are too few for the warm-up and an update, and as the agent's factory and `make_learner`.
    """
    row = algorithm(settings.algorithm)
    num_envs, rollout_length = settings.num_envs, settings.rollout_length
    steps = check_size("num_envs", num_envs) * check_size("rollout_length", rollout_length)  # of an iteration
    agent_options = _in_iterations(settings.agent, steps)
    network = row.network(env, settings.network, settings.agent)
    agent = row.factory(network, env.action_space, **agent_options)
    learner = make_learner(env, agent, num_envs=num_envs, rollout_length=rollout_length)
    num_iterations = check_size("steps", settings.steps, maximum=None) // steps - agent.warmup
    if num_iterations < 1:
        raise ValueError(
            f"steps={settings.steps} is too few: an iteration is {steps} environment steps and the warm-up takes "
            f"{agent.warmup * steps}, so give at least {(agent.warmup + 1) * steps}"
        )
    check_iterations(num_iterations, agent.warmup)
    log_every = max(1, num_iterations // 100)  # so that about a hundred rows of metrics divide the run,
    log_every -= log_every % 16 if log_every >= 64 else 0  # and a row divides into blocks of noise
    num_iterations -= num_iterations % log_every
    given = {**settings.hparams, **_schedules(settings, num_iterations, agent.warmup), **hparams}
    return Preset(learner, row.hparams._replace(**given), num_iterations, (num_iterations + agent.warmup) * steps)


def _in_iterations(agent_options: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """The arguments of the factory for iterations of `steps` environment steps, from options as `options_of_agent` lists them."""
    arguments = dict(agent_options)
    if "capacity" in arguments:
        capacity = check_size("capacity", arguments["capacity"])
        arguments["capacity"] = max(1, capacity // steps) * steps
    if "warmup_steps" in arguments:
        warmup_steps = check_size("warmup_steps", arguments.pop("warmup_steps"), minimum=0)
        arguments["warmup"] = max(1, warmup_steps // steps)
    return arguments


def _schedules(settings: Settings, num_iterations: int, warmup: int) -> dict[str, float]:
    """The lengths of the schedules. Those of learning rates begin with the first update, the others with the warm-up."""
    lengths = {}
    for fraction, name in schedules_of(algorithm(settings.algorithm)).items():
        share = settings.schedules.get(fraction)
        if share is None:
            continue
        if not (0 <= share <= 1 or share == math.inf):
            raise ValueError(f"{fraction} is a share of the run, between 0 and 1, or inf for a constant; got {share}")
        lengths[name] = share * (num_iterations + (0 if name.startswith("learning_rate") else warmup))
    return lengths
