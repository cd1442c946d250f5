"""Every algorithm with continuous actions against the exact optimum of the linear-quadratic regulator: eight seeds each.

Policies are linear, as the best one is, and values and critics quadratic, as the exact ones are.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import algorithms
from jaxrl.envs.problems.lqr import finite_riccati, policy_value, riccati, start_value
from jaxrl.types import ActorCritic, Box, Environment
from tests.agents import test_td3

SEEDS = 8


# --- networks


def squares(x):
    """The constant, linear and quadratic terms of `[..., n]`."""
    i, j = np.triu_indices(x.shape[-1])
    return jnp.concatenate([jnp.ones((*x.shape[:-1], 1)), x, x[..., i] * x[..., j]], axis=-1)


class Pair(NamedTuple):
    init: Callable
    apply: Callable


def linear_policy(env):
    return jaxrl.networks.policy(env.observation_space, env.action_space, hidden=())


def policy_with_quadratic_value(env):
    policy = linear_policy(env)

    def init(key, obs):
        return {"policy": policy.init(key, obs), "value": jnp.zeros(squares(obs).shape[-1:])}

    return Pair(init, lambda params, obs: (policy.apply(params["policy"], obs), squares(obs) @ params["value"]))


def deterministic(num_critics):
    """A policy that starts at 0, and critics that move faster than it does: a policy that makes the system unstable fills the
    replay with states that no critic learns from."""
    return lambda env: ActorCritic(test_td3.Linear(1, scale=0.0), test_td3.Quadratic(num_critics, scale=3.0))


class Quadratic:
    """Two critics. Features are scaled up, so that with one learning rate the critics move faster than the actor."""

    @staticmethod
    def features(obs, action):
        x = jnp.concatenate([obs, action / 4, jnp.ones_like(obs[..., :1])], axis=-1)
        return 3 * jnp.stack([x[..., i] * x[..., j] for i in range(4) for j in range(i + 1)], axis=-1)

    @staticmethod
    def init(key, obs, action):
        return 0.001 * jax.random.normal(key, (2, 10))

    @staticmethod
    def apply(params, obs, action):
        return jnp.moveaxis(Quadratic.features(obs, action) @ params.T, -1, 0)


def stochastic(env):
    """The policy starts with the noise that the target for the entropy asks for, lest the temperature overshoot."""
    spaces = env.observation_space, env.action_space
    return ActorCritic(jaxrl.networks.policy(*spaces, hidden=(), state_dependent_std=True, log_std=-2.2), Quadratic)


# --- tasks


def regulator():
    return jaxrl.make("LQR")


def cheap():
    """Costs are scaled down, so that Adam moves critics faster than the actor."""
    return jaxrl.make("LQR", state_cost=0.1 * np.eye(2), action_cost=0.01 * np.eye(1))


def bounded():
    """Bounds that leave a squashed policy nearly linear where it acts."""
    return regulator()._replace(action_space=Box(-20.0, 20.0, (1,)))


class Task(NamedTuple):
    """How an algorithm learns the regulator. Its learning rate falls to 0; without a discount, `horizon` steps count."""

    network: Callable[[Environment], Any]
    num_iterations: int
    num_envs: int
    rollout_length: int
    agent: dict[str, Any]
    hparams: dict[str, float]
    env: Callable[[], Environment] = regulator
    horizon: int | None = None


# Entropy keeps the noise up. It moves no gain: noise of a fixed size adds a constant to the value.
GRADIENT = {"learning_rate": 0.02, "discount": 0.9, "entropy_coef": 0.05}
DETERMINISTIC = {"learning_rate": 1e-3, "discount": 0.9, "exploration_noise": 1.0, "tau": 0.02}
REPLAY = {"batch_size": 128, "capacity": 64_000, "warmup": 500, "updates_per_iteration": 4}
TASKS = {
    "a2c": Task(policy_with_quadratic_value, 3_000, 64, 32, {"normalize_advantage": True}, GRADIENT),
    "ddpg": Task(deterministic(1), 8_000, 16, 1, REPLAY, DETERMINISTIC, cheap),
    # Returns depend more on where an episode starts than on the gain. Ranks and noise move the best gain, by 0.25 % of the cost.
    "openai_es": Task(linear_policy, 3_000, 256, 50, {}, {"learning_rate": 0.05, "noise_std": 0.3}, horizon=50),
    "ppo": Task(policy_with_quadratic_value, 1_000, 64, 32, {}, GRADIENT | {"learning_rate": 0.01}),
    "reinforce": Task(linear_policy, 3_000, 64, 50, {"normalize_advantage": True}, GRADIENT | {"discount": 1.0}, horizon=50),
    # The noise is large, since a critic cannot tell the value of an action from that of the state it follows from.
    "sac": Task(
        stochastic, 16_000, 16, 1, {"capacity": 32_000, "warmup": 50},
        {"learning_rate": 0.03, "discount": 0.8, "tau": 0.1, "initial_temperature": 0.3, "target_entropy": -1.0}, bounded,
    ),
    "td3": Task(deterministic(2), 8_000, 16, 1, REPLAY, DETERMINISTIC, cheap),
}  # fmt: skip
CONTINUOUS = {name for name, entry in algorithms.ALGORITHMS.items() if Box in entry.action_spaces}
WITHOUT = {"recurrent_ppo"}  # no linear policy


def learned(name, key):
    """Gains `[seed, 1, 2]` and offsets `[seed, 1]` of the greedy policies."""
    task, probes = TASKS[name], 0.1 * jnp.float32([[0, 0], [1, 0], [0, 1]])
    env = task.env()
    agent = algorithms.algorithm(name).factory(task.network(env), env.action_space, **task.agent)
    learner = jaxrl.make_learner(env, agent, num_envs=task.num_envs, rollout_length=task.rollout_length)
    hparams = agent.hparams._replace(learning_rate_iterations=float(task.num_iterations), **task.hparams)

    def one(key):
        state, _ = jaxrl.train(key, learner, task.num_iterations, hparams)
        action = agent.exploit(agent.policy(state.agent), probes, agent.initial_carry(len(probes)), key)[0]
        return (action[:1].T - action[1:].T) / 0.1, action[0]

    return jax.tree.map(np.asarray, jaxrl.vectorize(one)(jax.random.split(key, SEEDS)))


def costs(name, gains, offsets):
    """The costs of policies `[N]`, and that of the best gain. Time limits truncate: with a discount, all steps to infinity count,
    and the best gain is Riccati's. Over a finite horizon the best gain that does not depend on time is found by descent."""
    task = TASKS[name]
    params, discount = task.env().params, task.hparams.get("discount", 1.0)

    @jax.jit
    def cost(gain, offset):
        return -start_value(params, policy_value(params, gain, discount, offset=offset, horizon=task.horizon))

    best_gain = riccati(params, min(discount, 0.99)).gain
    if task.horizon is not None:
        slope = jax.grad(lambda gain: cost(gain, jnp.zeros(1)))
        best_gain, _ = jax.lax.scan(lambda gain, _: (gain - 0.02 * slope(gain), None), best_gain, length=500)
    best = float(cost(best_gain, jnp.zeros(1)))
    if task.horizon is not None:  # what a gain that depends on time would cost
        least = -float(start_value(params, finite_riccati(params, task.horizon).value[0]))
        assert least < best < 1.02 * least
    return np.array([float(cost(*x)) for x in zip(gains, offsets, strict=True)]), best


def test_every_algorithm_with_continuous_actions_has_a_task():
    assert TASKS.keys() == CONTINUOUS - WITHOUT


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_the_cost_is_within_a_percent_of_the_optimum(name):
    """A cost below the optimum by more than float rounding would show that one of the two is wrong."""
    gains, offsets = learned(name, jax.random.key(1))
    found, best = costs(name, gains, offsets)
    excess = found / best - 1
    print(f"{name}: gains {gains.round(3).tolist()}, excess cost {excess.round(5)}")
    assert excess.min() > -1e-4
    assert excess.max() < 0.01
