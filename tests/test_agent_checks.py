"""What `make_learner` says of an agent that does not keep to its protocols: each mistake with the field's name."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl._src.agent_checks import RESERVED_METRICS, check_agent
from jaxrl._src.microbatches import grad_of_mean
from jaxrl.learner import episode_means
from jaxrl.rollout import zero_stats
from jaxrl.types import Agent, Noise
from tests.problems import LEARNERS, countdown

B, T = 3, 4


class HP(NamedTuple):
    scale: float = 1.0


class State(NamedTuple):
    params: Any


def agent(**fields: Any) -> Agent:
    """A right one, with the given fields in its place."""
    right: dict[str, Any] = {
        "hparams": HP(),
        "init": lambda key, obs, hparams: State(jnp.ones(2)),
        "noise": lambda key, num_steps, num_envs: Noise(jax.random.randint(key, (num_steps, num_envs), 0, 2)),
        "policy": lambda state: state.params,
        "explore": lambda params, obs, carry, noise_t, hparams, iteration: (noise_t, carry + 1, {"steps": carry}),
        "exploit": lambda params, obs, carry, key: (jnp.zeros(obs.shape[0], jnp.int32), carry + 1),
        "update": lambda state, rollout, noise, hparams, iteration: (state, {"loss": rollout.reward}),
        "initial_carry": lambda num_envs: jnp.zeros(num_envs, jnp.int32),
    }
    return Agent(**right | fields)


def explore(action=None, carry=None, extras=()):
    """`explore` of the right agent, with other parts."""

    def function(params, obs, old_carry, noise_t, hparams, iteration):
        return noise_t if action is None else action, old_carry + 1 if carry is None else carry, extras

    return function


MISTAKES = {
    "noise without the axis of time": (
        {"noise": lambda key, num_steps, num_envs: Noise(jax.random.randint(key, (num_envs,), 0, 2))},
        r"agent\.noise: Noise\.act must have the leading axes \[num_steps, num_envs\] = \[4, 3\].*got int32\[3\]",
    ),
    "noise that is no Noise": ({"noise": lambda key, num_steps, num_envs: ()}, r"agent\.noise must return a jaxrl\.types\.Noise"),
    "extras without the axis of environments": (
        {"explore": explore(extras={"temperature": jnp.float32(1)})},
        r"agent\.explore: extras\['temperature'\] must have the leading axis \[num_envs\] = \[3\], got float32\[\]",
    ),
    "a Python number in extras": (
        {"explore": explore(extras={"epsilon": 0.5})},
        r"agent\.explore: extras\['epsilon'\] is a Python number.*jnp\.full\(num_envs, x, jnp\.float32\)",
    ),
    "a key in extras": (
        {"explore": explore(extras=jax.random.split(jax.random.key(0), B))},
        r"agent\.explore: extras is a PRNG key.*agent\.noise",
    ),
    "a key in the carry": (
        {"initial_carry": lambda num_envs: jax.random.split(jax.random.key(0), num_envs)},
        r"agent\.initial_carry: the carry holds a PRNG key.*agent\.noise",
    ),
    "a carry of another shape": (
        {"explore": explore(carry=jnp.zeros((B, 2), jnp.int32))},
        r"agent\.explore returns the carry as int32\[3, 2\] instead of int32\[3\]",
    ),
    "a carry of another dtype": (
        {"explore": explore(carry=jnp.zeros(B))},
        r"agent\.explore returns the carry as float32\[3\] instead of int32\[3\]",
    ),
    "a carry without environments": (
        {"initial_carry": lambda num_envs: jnp.int32(0)},
        r"agent\.initial_carry: the carry must have the leading axis \[num_envs\] = \[3\], got int32\[\]",
    ),
    "explore returns the action alone": (
        {"explore": lambda params, obs, carry, noise_t, hparams, iteration: noise_t},
        r"agent\.explore must return \(action, carry, extras\), got int32\[3\]",
    ),
    "an update that returns the state alone": (
        {"update": lambda state, rollout, noise, hparams, iteration: state},
        r"agent\.update must return \(agent_state, metrics\)",
    ),
    "an update that returns another state": (
        {"update": lambda state, rollout, noise, hparams, iteration: (State(jnp.ones(3)), {})},
        r"agent\.update returns the agent's state\.params as float32\[3\] instead of float32\[2\]",
    ),
    "a weak type in the initial state": (
        {"init": lambda key, obs, hparams: State(jnp.asarray(1.0) + 0)},
        r"agent\.init: the agent's state\.params is a weakly typed float32.*jnp\.float32\(\.\.\.\)",
    ),
    "a weak type in the next state": (
        {
            "init": lambda key, obs, hparams: State(jnp.float32(1)),
            "update": lambda state, rollout, noise, hparams, iteration: (State(jnp.asarray(1.0)), {}),
        },
        r"agent\.update: the agent's state\.params is a weakly typed float32",
    ),
    "a branch on data": (
        {
            "update": lambda state, rollout, noise, hparams, iteration: (
                jax.lax.cond(rollout.reward[0, 0] > 0, lambda s: s, lambda s: State(-s.params), state),
                {},
            )
        },
        r"agent\.update branches by lax\.cond or lax\.switch on a traced value.*jnp\.where",
    ),
    "a branch inside a scan": (
        {
            "explore": lambda params, obs, carry, noise_t, hparams, iteration: (
                jax.lax.map(lambda x: jax.lax.cond(x > 0, lambda: jnp.int32(0), lambda: jnp.int32(1)), noise_t),
                carry + 1,
                (),
            )
        },
        r"agent\.explore branches by lax\.cond",
    ),
    "a metric with the learner's name": (
        {"update": lambda state, rollout, noise, hparams, iteration: (state, {"episode_return": rollout.reward})},
        r"agent\.update: the metric 'episode_return' is the learner's own; rename it",
    ),
    "a metric of integers": (
        {"update": lambda state, rollout, noise, hparams, iteration: (state, {"count": jnp.int32(1)})},
        r"agent\.update: the metric 'count' must be a float array, got int32\[\]",
    ),
    "an exploit that returns the action alone": (
        {"exploit": lambda params, obs, carry, key: jnp.zeros(obs.shape[0], jnp.int32)},
        r"agent\.exploit must return \(action, carry\)",
    ),
    "an exploit with other actions": (
        {"exploit": lambda params, obs, carry, key: (jnp.zeros((obs.shape[0], 2)), carry)},
        r"agent\.exploit: the actions are float32\[2\] .* countdown takes Discrete\(2\): make the agent with env\.action_space",
    ),
    "a store that returns another state": (
        {"store": lambda state, rollout, iteration: (state,)},
        r"agent\.store returns the agent's state with another structure",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_reported_with_the_name_of_the_field(mistake):
    fields, message = MISTAKES[mistake]
    with pytest.raises((TypeError, ValueError), match=message):
        jaxrl.make_learner(countdown(), agent(**fields), num_envs=B, rollout_length=T)


def test_the_right_agent_passes_and_trains():
    learner = jaxrl.make_learner(countdown(), agent(), num_envs=B, rollout_length=T)
    _, metrics = jaxrl.train(jax.random.key(0), learner, 3, log_every=1)
    np.testing.assert_array_equal(metrics["loss"], [1, 1, 1])


def test_the_reserved_metrics_are_those_of_the_learner():
    assert set(episode_means(zero_stats(2))) == set(RESERVED_METRICS)


def test_a_choice_of_the_platform_is_not_a_branch_on_data():
    """Which is how microbatches are made on a CPU alone."""

    def update(state, rollout, noise, hparams, iteration):
        rows = jnp.ones((4096, 2))
        grads, _ = grad_of_mean(lambda params, rows: (jnp.mean(rows @ params), {}), state.params, rows)
        return State(state.params + grads), {}

    check_agent(countdown(), agent(update=update), B, T)


@pytest.mark.parametrize("name", LEARNERS)
def test_an_error_of_the_agents_own_comes_through(name):
    learner = LEARNERS[name]()

    def broken(*args):
        raise RuntimeError("its own")

    with pytest.raises(RuntimeError, match="its own"):
        check_agent(learner.env, learner.agent._replace(update=broken), learner.num_envs, learner.rollout_length)
