"""Tuned settings for pairs of algorithm and environment, in one table.

`scripts/presets.py` reproduces the results in the README.
"""

import math
from dataclasses import replace
from typing import Any

from jaxrl import envs
from jaxrl._src.checks import check_size
from jaxrl.settings import SIZES, Preset, Settings, build, options_of_agent, override, schedules_of

__all__ = [
    "DEFAULTS", "PRESETS", "SIZES", "Preset", "Settings", "build", "default_settings", "options_of_agent", "override",
    "preset", "schedules_of", "tuned",
]  # fmt: skip


_A2C = Settings(
    "a2c",
    num_envs=8,
    rollout_length=32,
    schedules={"learning_rate_fraction": 1.0},
    hparams={"learning_rate": 6e-3, "value_coef": 0.01},
)
_Q_LEARNING: dict[str, Any] = {
    "num_envs": 8,
    "rollout_length": 1,
    "network": {"hidden": (64, 64)},
    "agent": {"batch_size": 128, "capacity": 100_000, "warmup_steps": 1_000, "updates_per_iteration": 4},
    "schedules": {"epsilon_fraction": 0.3, "learning_rate_fraction": 1.0, "importance_exponent_fraction": 1.0},
    "hparams": {"learning_rate": 1e-3, "tau": 0.02, "epsilon_end": 0.02},
}
_C51 = Settings("c51", **_Q_LEARNING)
_DQN = Settings("dqn", **_Q_LEARNING)
_IQN = Settings("iqn", **_Q_LEARNING)
_QR_DQN = Settings("qr_dqn", **_Q_LEARNING)
_RAINBOW = override(
    Settings("rainbow", **_Q_LEARNING),
    network={"dueling": True},
    schedules={"epsilon_fraction": math.inf},
    hparams={"epsilon_start": 0.0, "epsilon_end": 0.0, "priority_exponent": 0.5},
)
_OPENAI_ES = Settings(
    "openai_es",
    steps=1_000_000,
    num_envs=32,
    rollout_length=500,
    network={"hidden": (32,)},
    hparams={"learning_rate": 0.03},
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
_PQN = Settings(
    "pqn",
    num_envs=32,
    rollout_length=32,
    network={"layer_norm": True},
    schedules={"epsilon_fraction": 0.2, "learning_rate_fraction": 1.0},
    hparams={"learning_rate": 1e-3, "q_lambda": 0.9},
)
_RECURRENT_PPO = Settings(
    "recurrent_ppo",
    num_envs=16,
    rollout_length=64,
    agent={"num_epochs": 8, "normalize_observations": True},
    schedules={"learning_rate_fraction": 1.0},
    hparams={"learning_rate": 2e-3, "gae_lambda": 1.0, "value_coef": 0.01, "entropy_coef": 0.0},
)
_SAC = Settings(
    "sac",
    steps=20_000,
    num_envs=1,
    rollout_length=1,
    network={"hidden": (64, 64)},
    agent={"batch_size": 128, "warmup_steps": 500},
    schedules={"learning_rate_fraction": 1.0},
    hparams={"learning_rate": 1e-3, "tau": 0.01},
)
_TD3 = Settings(
    "td3",
    steps=20_000,
    num_envs=1,
    rollout_length=2,
    network={"hidden": (64, 64)},
    agent={"batch_size": 128, "warmup_steps": 500},
    schedules={"learning_rate_fraction": 1.0},
    hparams={"learning_rate": 2e-3, "tau": 0.01},
)
_DDPG = Settings(
    "ddpg",
    steps=20_000,
    num_envs=1,
    rollout_length=1,
    network={"hidden": (64, 64)},
    agent={"batch_size": 128, "warmup_steps": 500},
    schedules={"learning_rate_fraction": 1.0},
    hparams={"learning_rate": 1e-3, "tau": 0.01},
)

_DQN_CARTPOLE = override(
    _DQN, steps=100_000, network={"hidden": (120, 84)}, agent={"n_step": 3}, hparams={"learning_rate": 2e-3, "tau": 0.01}
)
_PPO_POINT_MASS = override(
    _PPO,
    num_envs=16,
    rollout_length=100,
    network={"activation": "relu"},
    agent={"num_epochs": 10},
    hparams={"gae_lambda": 0.9, "entropy_coef": 0.0},
)

# The settings for environments that are not in PRESETS.
_ALL = (_A2C, _C51, _DDPG, _DQN, _IQN, _OPENAI_ES, _PPO, _PQN, _QR_DQN, _RAINBOW, _RECURRENT_PPO, _REINFORCE, _SAC, _TD3)
DEFAULTS: dict[str, Settings] = {settings.algorithm: settings for settings in _ALL}

# Several settings for one environment are for runs of different lengths; `tuned` chooses the nearest.
PRESETS: dict[tuple[str, str], tuple[Settings, ...]] = {
    ("a2c", "CartPole-v1"): (
        override(
            _A2C,
            num_envs=4,
            rollout_length=256,  # half an episode: with shorter rollouts, more seeds forget late how to balance
            agent={"normalize_advantage": True},
            hparams={"learning_rate": 2e-3, "gae_lambda": 1.0, "max_grad_norm": 0.1},
        ),
    ),
    ("ppo", "CartPole-v1"): (
        override(
            _PPO,
            num_envs=16,
            agent={"num_epochs": 8, "num_minibatches": 8},
            schedules={"clip_range_fraction": 1.0},
            hparams={"gae_lambda": 1.0, "entropy_coef": 0.0},
        ),
    ),
    ("ppo", "Acrobot-v1"): (_PPO,),
    ("ppo", "Pendulum-v1"): (
        override(
            _PPO,
            steps=300_000,
            num_envs=4,
            rollout_length=256,
            agent={"num_epochs": 10, "num_minibatches": 16},
            hparams={"discount": 0.95, "value_coef": 0.01, "entropy_coef": 0.0},
        ),
    ),
    # At random, the car rarely gets out of the valley unless its noise lasts for several steps.
    ("ppo", "MountainCarContinuous-v0"): (
        override(
            _PPO,
            steps=300_000,
            rollout_length=512,
            network={"log_std": 0.0},
            agent={"num_epochs": 10, "num_minibatches": 32, "noise_period": 32},
            hparams={"discount": 0.999, "value_coef": 0.05, "entropy_coef": 0.0},
        ),
    ),
    ("ppo", "PointMass"): (
        override(_PPO_POINT_MASS, steps=1_000_000, agent={"num_minibatches": 16}, hparams={"learning_rate": 1e-4}),
        override(_PPO_POINT_MASS, steps=300_000, agent={"num_minibatches": 8}, hparams={"learning_rate": 6e-4}),
    ),
    ("c51", "CartPole-v1"): (
        override(
            _C51,
            steps=500_000,
            num_envs=10,
            network={"hidden": (120, 84)},
            agent={
                "capacity": 500_000,  # the whole run, as for DQN
                "warmup_steps": 10_000,
                "updates_per_iteration": 1,
                "target_update_period": 50,
                "double": True,
                "v_min": 0.0,
                "v_max": 100.0,
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
            network={"hidden": (120, 84)},
            agent={"batch_size": 64, "updates_per_iteration": 3, "double": True},
            schedules={"epsilon_fraction": 0.4},
            hparams={"learning_rate": 1.2e-3, "epsilon_end": 0.05},
        ),
    ),
    ("dqn", "CartPole-v1"): (
        _DQN_CARTPOLE,
        # The replay keeps the whole run: without the failures of its beginning, some seeds forget late how to recover.
        override(_DQN_CARTPOLE, steps=500_000, agent={"capacity": 500_000, "updates_per_iteration": 1}),
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
    ("dqn", "Breakout-MinAtar"): (
        override(
            _DQN,
            steps=1_000_000,
            network={"channels": (16,), "hidden": (128,)},
            agent={"batch_size": 64, "updates_per_iteration": 2},
            schedules={"epsilon_fraction": 0.1},
            hparams={"learning_rate": 2.5e-4},
        ),
    ),
    ("pqn", "CartPole-v1"): (override(_PQN, hparams={"learning_rate": 5e-4, "q_lambda": 0.95}),),
    ("pqn", "Acrobot-v1"): (_PQN,),
    ("pqn", "Breakout-MinAtar"): (  # as in the paper
        override(
            _PQN,
            steps=10_000_000,
            num_envs=128,
            network={"channels": (16,), "hidden": (128,)},
            agent={"num_minibatches": 32},
            schedules={"epsilon_fraction": 0.1},
            hparams={"learning_rate": 5e-4, "q_lambda": 0.65},
        ),
    ),
    ("qr_dqn", "CartPole-v1"): (
        override(
            _QR_DQN,
            steps=50_000,
            network={"num_atoms": 10},
            agent={"batch_size": 64, "updates_per_iteration": 8, "kappa": 10.0, "double": True, "n_step": 3},
            hparams={"learning_rate": 3.3e-3},
        ),
    ),
    ("qr_dqn", "Acrobot-v1"): (
        override(
            _QR_DQN,
            steps=100_000,
            network={"num_atoms": 25, "hidden": (128, 128)},
            agent={"kappa": 10.0, "double": True},
            schedules={"epsilon_fraction": 0.2},
            hparams={"learning_rate": 2e-3, "tau": 0.01},
        ),
    ),
    ("iqn", "CartPole-v1"): (
        override(
            _IQN,
            steps=100_000,
            agent={"batch_size": 64, "double": True, "n_step": 3},
            hparams={"learning_rate": 2e-3},
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
    ("openai_es", "CartPole-v1"): (_OPENAI_ES,),
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
    ("sac", "CartPole-v1"): (
        override(
            _SAC,
            steps=50_000,
            num_envs=4,
            agent={"updates_per_iteration": 4},
            hparams={"learning_rate": 2.4e-3, "tau": 0.02, "relative_target_entropy": 0.3},
        ),
    ),
    ("sac", "Pendulum-v1"): (override(_SAC, agent={"capacity": 20_000}, hparams={"discount": 0.98}),),
    ("sac", "MountainCarContinuous-v0"): (
        override(
            _SAC,
            steps=50_000,
            rollout_length=32,
            agent={"capacity": 50_000, "warmup_steps": 1_024, "updates_per_iteration": 16, "noise_period": 32},
        ),
    ),
    ("sac", "PointMass"): (
        override(
            _SAC,
            steps=100_000,
            num_envs=4,
            hparams={"learning_rate": 2e-3, "initial_temperature": 0.1, "target_entropy": -3.0},
        ),
    ),
    ("ddpg", "Pendulum-v1"): (override(_DDPG, hparams={"learning_rate": 8e-4, "tau": 0.005, "exploration_noise": 0.3}),),
    ("td3", "Pendulum-v1"): (_TD3,),
    ("td3", "MountainCarContinuous-v0"): (
        override(
            _TD3,
            steps=300_000,
            num_envs=8,
            agent={"warmup_steps": 10_000},
            schedules={"learning_rate_fraction": math.inf},
            hparams={"learning_rate": 1e-3, "exploration_noise": 0.5, "noise_correlation": 0.95},
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
