"""Tuned settings for pairs of algorithm and environment, and `build`, which turns settings into a learner.

Settings are in environment steps and in fractions of a run, so that they scale with the length of the run.
`scripts/presets.py` reproduces the results in the README.
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
    """The arguments of `train`, and the number of environment steps that it takes, warm-up included."""

    learner: Learner
    hparams: HParams
    num_iterations: int
    env_steps: int


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

    >>> override(DEFAULTS["dqn"], steps=1000, network={"hidden": (8,)}).network["activation"]
    'relu'
    """
    merged: dict[str, Any] = {k: {**getattr(settings, k), **v} if isinstance(v, Mapping) else v for k, v in changes.items()}
    return replace(settings, **merged)


_Q_LEARNING: dict[str, Any] = {
    "num_envs": 8,
    "rollout_length": 1,
    "network": {"hidden": (64, 64)},
    "agent": {"batch_size": 128, "capacity": 100_000, "warmup_steps": 1_000, "updates_per_iteration": 4},
    "schedules": {"epsilon_fraction": 0.3, "learning_rate_fraction": 1.0},
    "hparams": {"learning_rate": 1e-3, "tau": 0.02, "epsilon_end": 0.02},
}
_C51 = Settings("c51", **_Q_LEARNING)
_DQN = Settings("dqn", **_Q_LEARNING)
_IQN = Settings("iqn", **_Q_LEARNING)
_QR_DQN = Settings("qr_dqn", **_Q_LEARNING)
_RAINBOW = override(
    Settings("rainbow", **_Q_LEARNING),
    network={"dueling": True},
    schedules={"epsilon_fraction": math.inf, "importance_exponent_fraction": 1.0},
    hparams={"epsilon_start": 0.0, "epsilon_end": 0.0, "priority_exponent": 0.5},
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

# The settings for environments that are not in PRESETS.
DEFAULTS: dict[str, Settings] = {
    "c51": _C51,
    "dqn": _DQN,
    "iqn": _IQN,
    "ppo": _PPO,
    "qr_dqn": _QR_DQN,
    "rainbow": _RAINBOW,
    "reinforce": _REINFORCE,
    "sac": _SAC,
}

# Several settings for one environment are for runs of different lengths; `tuned` chooses the nearest.
PRESETS: dict[tuple[str, str], tuple[Settings, ...]] = {
    ("c51", "CartPole-v1"): (
        override(
            _C51,
            steps=500_000,
            num_envs=10,
            network={"hidden": (120, 84)},
            agent={
                "v_min": 0.0,
                "v_max": 100.0,
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
    ("c51", "MountainCar-v0"): (  # the support is wider than the returns: its middle, the initial value, is optimistic
        override(
            _C51,
            steps=500_000,
            num_envs=16,
            network={"hidden": (120, 84), "num_atoms": 21},
            agent={"v_min": -60.0, "v_max": 60.0, "batch_size": 64, "updates_per_iteration": 3, "double": True},
            schedules={"epsilon_fraction": 0.2},
            hparams={"tau": 0.01, "epsilon_end": 0.05},
        ),
    ),
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
    ("qr_dqn", "CartPole-v1"): (
        override(
            _QR_DQN,
            steps=50_000,
            network={"num_atoms": 10},
            agent={"batch_size": 64, "kappa": 10.0, "double": True},
            hparams={"learning_rate": 2.3e-3, "tau": 0.01},
        ),
    ),
    ("qr_dqn", "Acrobot-v1"): (
        override(
            _QR_DQN,
            steps=100_000,
            network={"num_atoms": 25},
            agent={"updates_per_iteration": 2, "kappa": 10.0, "double": True},
            schedules={"epsilon_fraction": 0.12},
            hparams={"learning_rate": 2e-3, "tau": 0.01},
        ),
    ),
    ("rainbow", "CartPole-v1"): (
        override(
            _RAINBOW,
            steps=100_000,
            network={"num_atoms": 21},
            agent={"batch_size": 64, "v_min": 0.0, "v_max": 100.0, "n_step": 2},
            hparams={"tau": 0.01},
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
    """The settings of an algorithm for environments without tuned ones. Raises ValueError for an unknown algorithm."""
    return DEFAULTS.get(name) or Settings(name)


def tuned(name: str, env_name: str, env_steps: int | None = None) -> Settings | None:
    """The settings tuned for an algorithm, an environment and a run of `env_steps`, or None. By default the first ones."""
    candidates = PRESETS.get((name, env_name))
    if candidates is None:
        return None
    if env_steps is None:
        return candidates[0]
    check_size("steps", env_steps, maximum=None)
    nearest = min(candidates, key=lambda settings: abs(math.log(env_steps / settings.steps)))
    return replace(nearest, steps=env_steps)


def preset(algorithm: str, env_name: str, *, env_steps: int | None = None) -> Preset:
    """Build a learner with tuned settings.

    Args:
      algorithm: name of the algorithm, such as "dqn".
      env_name: name of an environment with tuned settings for this algorithm.
      env_steps: length of the run in environment steps, warm-up included; the schedules scale with it.

    Raises:
      ValueError: if there are no tuned settings for this pair (the message lists all pairs), or `env_steps` is too small.

    >>> import jaxrl
    >>> learner, hparams, num_iterations, env_steps = jaxrl.preset("dqn", "CartPole-v1")
    >>> env_steps <= 100_000
    True
    """
    settings = tuned(algorithm, env_name, env_steps)
    if settings is None:
        known = ", ".join(f"{name} on {env}" for name, env in PRESETS)
        raise ValueError(f"no preset for {algorithm!r} on {env_name!r}; there are {known}")
    return build(settings, envs.make(env_name))


def build(settings: Settings, env: Environment, **hparams: Any) -> Preset:
    """Build the learner, the hyperparameters and the length of a run from settings.

    Args:
      settings: the settings.
      env: the environment.
      hparams: hyperparameters that override those of the settings and their schedules.

    Raises:
      ValueError: if `settings.steps` is too small for the warm-up and one update; and as for the agent's factory and
        `make_learner`.
    """
    entry = algorithm(settings.algorithm)
    num_envs, rollout_length = settings.num_envs, settings.rollout_length
    steps = check_size("num_envs", num_envs) * check_size("rollout_length", rollout_length)  # of an iteration
    agent_options = _in_iterations(settings.agent, steps)
    network = entry.network(env, settings.network, settings.agent)
    agent = entry.factory(network, env.action_space, **agent_options)
    learner = make_learner(env, agent, num_envs=num_envs, rollout_length=rollout_length)
    num_iterations = check_size("steps", settings.steps, maximum=None) // steps - agent.warmup
    if num_iterations < 1:
        raise ValueError(
            f"steps={settings.steps} is too few: an iteration is {steps} environment steps and the warm-up takes "
            f"{agent.warmup * steps}, so give at least {(agent.warmup + 1) * steps}"
        )
    check_iterations(num_iterations, agent.warmup)
    log_every = max(1, num_iterations // 100)  # so that the run divides into about a hundred logging intervals,
    log_every += num_iterations // log_every > 125
    log_every -= log_every % 16 if log_every >= 64 else 0  # and an interval into blocks of noise
    num_iterations -= num_iterations % log_every
    given = {**settings.hparams, **_schedules(settings, num_iterations, agent.warmup), **hparams}
    return Preset(learner, entry.hparams._replace(**given), num_iterations, (num_iterations + agent.warmup) * steps)


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
