"""Tuned settings: one table, a row for each algorithm and environment, and what builds a learner from a row.

Rows speak in environment steps and in shares of a run, so that a preset scales with the length asked
for. `scripts/presets.py` reproduces the results that README gives for each.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

from jaxrl import agents, envs, networks
from jaxrl._src.checks import check_size
from jaxrl.agents import DQNHParams, ReinforceHParams
from jaxrl.learner import check_iterations, make_learner
from jaxrl.types import Agent, Environment, HParams, Learner

Activation = Literal["relu", "tanh", "silu", "gelu", "elu"]  # the keys of networks.ACTIVATIONS
Dtype = Literal["float32", "bfloat16"]  # the keys of networks.DTYPES


class Preset(NamedTuple):
    """What `train` takes, and the environment steps that it will take, warm-up included."""

    learner: Learner
    hparams: HParams
    num_iterations: int
    env_steps: int


@dataclass(frozen=True)
class DQNSettings:
    """A row for DQN. Arguments that share a name with `jaxrl.agents.dqn` are its own."""

    algorithm: ClassVar[str] = "dqn"
    steps: int = 500_000  # environment steps of each seed, warm-up included
    num_envs: int = 8
    rollout_length: int = 1
    hidden: tuple[int, ...] = (64, 64)
    activation: Activation = "relu"
    channels: tuple[int, ...] = ()
    dtype: Dtype = "float32"
    batch_size: int = 128
    capacity: int = 100_000  # rounded down to whole iterations
    warmup_steps: int = 1_000
    updates_per_iteration: int = 4
    target_update_period: int = 1
    double: bool = False
    loss: Literal["squared", "huber"] = "squared"
    epsilon_fraction: float = 0.3  # of the run, until hparams.epsilon_end
    decay_learning_rate: bool = True  # linearly to 0 over the run
    hparams: DQNHParams = DQNHParams(learning_rate=1e-3, tau=0.02, epsilon_end=0.02)

    def agent(self, env: Environment) -> Agent:
        network = networks.q_network(
            env.observation_space,
            env.action_space,
            hidden=self.hidden,
            activation=self.activation,
            channels=self.channels,
            dtype=self.dtype,
        )
        rows = check_size("num_envs", self.num_envs) * check_size("rollout_length", self.rollout_length)
        check_size("capacity", self.capacity)
        check_size("warmup_steps", self.warmup_steps, minimum=0)
        if not 0 <= self.epsilon_fraction <= 1:
            raise ValueError(f"epsilon_fraction is a share of the run, between 0 and 1; got {self.epsilon_fraction}")
        return agents.dqn(
            network,
            env.action_space,
            batch_size=self.batch_size,
            capacity=max(1, self.capacity // rows) * rows,
            warmup=max(1, self.warmup_steps // rows),
            updates_per_iteration=self.updates_per_iteration,
            target_update_period=self.target_update_period,
            double=self.double,
            loss=self.loss,
        )

    def scheduled(self, num_iterations: int, warmup: int) -> DQNHParams:
        hparams = self.hparams._replace(epsilon_iterations=self.epsilon_fraction * (num_iterations + warmup))
        return _decay(hparams, num_iterations) if self.decay_learning_rate else hparams


@dataclass(frozen=True)
class ReinforceSettings:
    """A row for REINFORCE. Arguments that share a name with `jaxrl.agents.reinforce` are its own."""

    algorithm: ClassVar[str] = "reinforce"
    steps: int = 500_000  # environment steps of each seed, warm-up included
    num_envs: int = 16
    rollout_length: int = 32
    hidden: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    channels: tuple[int, ...] = ()
    dtype: Dtype = "float32"
    mode: Literal["episodic", "continuing"] = "continuing"
    baseline: Literal["none", "mean", "value"] = "value"
    squash: bool = False
    normalize_advantage: bool = True
    state_dependent_std: bool = False
    decay_learning_rate: bool = True  # linearly to 0 over the run
    hparams: ReinforceHParams = ReinforceHParams(learning_rate=3e-3, entropy_coef=0.01)

    def agent(self, env: Environment) -> Agent:
        network = networks.policy(
            env.observation_space,
            env.action_space,
            value=self.baseline == "value",
            hidden=self.hidden,
            activation=self.activation,
            channels=self.channels,
            dtype=self.dtype,
            state_dependent_std=self.state_dependent_std,
        )
        return agents.reinforce(
            network,
            env.action_space,
            mode=self.mode,
            baseline=self.baseline,
            squash=self.squash,
            normalize_advantage=self.normalize_advantage,
        )

    def scheduled(self, num_iterations: int, warmup: int) -> ReinforceHParams:
        return _decay(self.hparams, num_iterations) if self.decay_learning_rate else self.hparams


Settings = DQNSettings | ReinforceSettings

DEFAULTS: dict[str, Settings] = {"dqn": DQNSettings(), "reinforce": ReinforceSettings()}

# More than one row where a longer run wants other settings: the one whose length is nearest is taken.
PRESETS: dict[tuple[str, str], tuple[Settings, ...]] = {
    ("dqn", "CartPole-v1"): (
        DQNSettings(
            steps=100_000,
            hidden=(120, 84),
            hparams=DQNHParams(learning_rate=1e-3, tau=0.01, epsilon_end=0.02),
        ),
        DQNSettings(
            steps=500_000,
            num_envs=10,
            hidden=(120, 84),
            capacity=10_000,
            warmup_steps=10_000,
            updates_per_iteration=1,
            target_update_period=50,
            double=True,
            epsilon_fraction=0.5,
            hparams=DQNHParams(learning_rate=5e-4, tau=1.0, epsilon_end=0.05),
        ),
    ),
    ("dqn", "Acrobot-v1"): (
        DQNSettings(
            steps=200_000,
            updates_per_iteration=2,
            hparams=DQNHParams(learning_rate=1e-3, tau=0.02, epsilon_end=0.02),
        ),
    ),
    ("dqn", "MountainCar-v0"): (
        DQNSettings(
            steps=500_000,
            num_envs=16,
            hidden=(120, 84),
            batch_size=64,
            capacity=10_000,
            target_update_period=300,
            epsilon_fraction=0.2,
            hparams=DQNHParams(learning_rate=4e-3, discount=0.98, tau=1.0, epsilon_end=0.07),
        ),
    ),
    ("reinforce", "CartPole-v1"): (
        ReinforceSettings(
            num_envs=8,
            rollout_length=500,
            mode="episodic",
            baseline="mean",
            normalize_advantage=False,
            hparams=ReinforceHParams(learning_rate=2e-3),
        ),
    ),
    ("reinforce", "Acrobot-v1"): (
        ReinforceSettings(
            hparams=ReinforceHParams(learning_rate=5e-3, entropy_coef=0.01),
        ),
    ),
    ("reinforce", "PointMass"): (
        ReinforceSettings(
            rollout_length=50,
            activation="relu",
            hparams=ReinforceHParams(learning_rate=3e-3, max_grad_norm=0.5),
        ),
    ),
}


def tuned(algorithm: str, env_name: str, env_steps: int | None = None) -> Settings | None:
    """The table's row for a run of `env_steps` (by default the first row's own), or None where it has none."""
    rows = PRESETS.get((algorithm, env_name))
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
      algorithm: "dqn" or "reinforce".
      env_name: an environment that the table has a row for.
      env_steps: length of the run in environment steps, warm-up included; the schedules scale with it.

    Raises:
      ValueError: where the table has no such row (it names those it has), or the steps are too few.

    >>> import jaxrl
    >>> learner, hparams, num_iterations, env_steps = jaxrl.preset("dqn", "CartPole-v1")
    >>> env_steps <= 100_000
    True
    """
    settings = tuned(algorithm, env_name, env_steps)
    if settings is None:
        rows = ", ".join(f"{a} on {e}" for a, e in PRESETS)
        raise ValueError(f"no preset for {algorithm!r} on {env_name!r}; there are {rows}")
    return build(settings, envs.make(env_name))


def build(settings: Settings, env: Environment, **hparams: Any) -> Preset:
    """The learner and the schedule that `settings` describe; `hparams` replaces single hyperparameters last.

    Raises:
      ValueError: where `steps` does not reach past the warm-up, and as the agent's factory and `make_learner`.
    """
    learner = make_learner(env, settings.agent(env), num_envs=settings.num_envs, rollout_length=settings.rollout_length)
    warmup, steps = learner.agent.warmup, learner.num_envs * learner.rollout_length
    num_iterations = check_size("steps", settings.steps, maximum=None) // steps - warmup
    if num_iterations < 1:
        raise ValueError(
            f"steps={settings.steps} is too few: an iteration is {steps} environment steps and the warm-up takes "
            f"{warmup * steps}, so give at least {(warmup + 1) * steps}"
        )
    check_iterations(num_iterations, warmup)
    row = max(1, num_iterations // 100)  # so that about a hundred rows of metrics divide it,
    row -= row % 16 if row >= 64 else 0  # and a row divides into blocks of noise
    num_iterations -= num_iterations % row
    scheduled = settings.scheduled(num_iterations, warmup)._replace(**hparams)
    return Preset(learner, scheduled, num_iterations, (num_iterations + warmup) * steps)


def _decay(hparams: Any, num_iterations: int) -> Any:
    return hparams._replace(learning_rate_iterations=float(num_iterations))
