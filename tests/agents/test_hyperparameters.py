"""That every hyperparameter is checked and scheduled, for every agent. test_contract.py tests that it is read."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrl
from jaxrl.optimizers import adam
from tests.problems import (
    LEARNERS,
    a2c_learner,
    dqn_learner,
    ppo_learner,
    pqn_learner,
    recurrent_ppo_learner,
    reinforce_learner,
)

ONE_OF_EACH = [
    "a2c",
    "c51",
    "dqn",
    "iqn",
    "openai_es",
    "ppo",
    "pqn",
    "qr_dqn",
    "rainbow",
    "recurrent ppo",
    "reinforce, continuing",
    "sac",
    "td3",
]


@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize("value", [float("nan"), -1.0])
def test_hyperparameters_out_of_range_are_refused(name, value):
    learner = LEARNERS[name]()
    assert learner.agent.hparams._fields
    for field in learner.agent.hparams._fields:
        if field == "target_entropy" and value < 0:
            continue  # entropies of densities may be negative
        wrong = learner.agent.hparams._replace(**{field: value})
        with pytest.raises(ValueError, match=rf"hparams\.{field} must lie in"):
            jax.eval_shape(lambda key, wrong=wrong: jaxrl.train(key, learner, 1, wrong), jax.random.key(0))


@pytest.mark.parametrize("run", ["train", "advance"])
def test_the_hyperparameters_of_several_runs_are_refused_in_one(run):
    """They would broadcast where the shapes happen to fit."""
    learner = dqn_learner()
    hparams = learner.agent.hparams._replace(discount=np.full(64, 0.9, np.float32))

    def several(key):
        if run == "train":
            return jaxrl.train(key, learner, 1, hparams)
        return jaxrl.advance(learner.init(key, learner.agent.hparams), learner.agent.warmup, learner, 1, hparams)

    with pytest.raises(ValueError, match=r"hparams\.discount must have the shape \[\], got \[64\]; .* jax\.vmap"):
        jax.eval_shape(several, jax.random.key(0))


@pytest.mark.parametrize("value", [[1e-3, 1e-4], (1e-3,), None, {"a": 1.0}])
def test_a_hyperparameter_that_is_no_number_is_named(value):
    learner = dqn_learner()
    hparams = learner.agent.hparams._replace(learning_rate=value)
    for call in (
        lambda: jaxrl.train(jax.random.key(0), learner, 1, hparams),
        lambda: jaxrl.advance(learner.init(jax.random.key(0), learner.agent.hparams), 5, learner, 1, hparams),
        lambda: learner.init(jax.random.key(0), hparams),
        lambda: jax.eval_shape(lambda key: jaxrl.train(key, learner, 1, hparams), jax.random.key(0)),
    ):
        with pytest.raises(
            TypeError, match=rf"hparams\.learning_rate must be a number or an array, got {re.escape(repr(value))}"
        ):
            call()


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_an_agent_refuses_the_hyperparameters_of_another(name):
    class Others(tuple):
        pass

    with pytest.raises(TypeError, match="hparams must be a jaxrl"):
        jaxrl.train(jax.random.key(0), LEARNERS[name](), 1, Others())


# --- schedules: at every iteration, a step is the one with the constant value that the schedule has there


SCHEDULED = {
    "a2c": a2c_learner,
    "dqn": functools.partial(dqn_learner, num_envs=256, capacity=2048, warmup=5),
    "reinforce": functools.partial(reinforce_learner, mode="continuing", baseline="value"),
    "ppo": functools.partial(ppo_learner, num_envs=16),
    "pqn": functools.partial(pqn_learner, num_envs=64),
}
LENGTH = 4.0
CASES = [
    # learner, what is scheduled, from which iteration on, its start, its end
    ("a2c", "learning_rate", 0, 0.02, 0.0),
    ("dqn", "learning_rate", 5, 0.02, 0.0),
    ("dqn", "epsilon", 0, 0.9, 0.1),
    ("reinforce", "learning_rate", 0, 0.02, 0.0),
    ("ppo", "learning_rate", 0, 0.02, 0.0),
    ("ppo", "clip_range", 0, 0.1, 0.0),
    ("pqn", "learning_rate", 0, 0.02, 0.0),
    ("pqn", "epsilon", 0, 0.9, 0.1),
]


def scheduled_and_constant(agent_hparams, what, start, end, value):
    """Hyperparameters with the schedule, and with the constant `value`."""
    if what == "epsilon":
        return (
            agent_hparams._replace(epsilon_start=start, epsilon_end=end, epsilon_iterations=LENGTH),
            agent_hparams._replace(epsilon_start=value, epsilon_end=value),
        )
    return (
        agent_hparams._replace(**{what: start, f"{what}_iterations": LENGTH}),
        agent_hparams._replace(**{what: value, f"{what}_iterations": np.inf}),
    )


@pytest.mark.parametrize(("name", "what", "first", "start", "end"), CASES)
def test_a_schedule_has_the_value_of_its_iteration(name, what, first, start, end):
    """Also after its end, and for DQN's ε within the warm-up. The learning rate's starts after the warm-up."""
    learner = SCHEDULED[name](optimizer=optax.sgd)
    base = learner.agent.hparams._replace(learning_rate=5.0 if what == "clip_range" else 0.5)
    state = jax.jit(learner.init)(jax.random.key(0), base)
    noise = learner.noise(jax.random.key(1))
    step = jax.jit(lambda hparams, iteration: learner.step(state, noise, hparams, iteration)[0].agent)
    for elapsed in (0, 1, 3, 4, 9):
        fraction = min(elapsed / LENGTH, 1.0)
        value = (1 - fraction) * start + fraction * end
        schedule, constant = scheduled_and_constant(base, what, start, end, value)
        _, wrong = scheduled_and_constant(base, what, start, end, value + 0.05)
        iteration = jnp.int32(first + elapsed)
        found, expected, other = (step(jax.tree.map(jnp.float32, h), iteration) for h in (schedule, constant, wrong))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), found, expected)
        differences = jax.tree.map(lambda x, y: np.array_equal(x, y), other, expected)
        assert not all(jax.tree.leaves(differences)), "the step does not depend on what is scheduled"


def test_epsilon_is_the_share_of_random_actions_times_the_share_of_others():
    """With two actions, half of the random ones are the greedy one: ε / 2 of 4,096 differ from it, ± 4.5 standard deviations."""
    learner = dqn_learner(num_envs=4096, capacity=4096, warmup=1)
    hparams = learner.agent.hparams._replace(epsilon_start=0.9, epsilon_end=0.1, epsilon_iterations=10.0)
    state = jax.jit(learner.init)(jax.random.key(0), hparams)
    noise = jax.tree.map(lambda x: x[0], learner.noise(jax.random.key(1)).rollout.act)
    greedy = learner.agent.exploit(state.agent.params, state.obs, (), jax.random.key(2))[0]
    explore = jax.jit(lambda i: learner.agent.explore(state.agent.params, state.obs, (), noise, hparams, i)[0])
    for iteration, epsilon in ((0, 0.9), (5, 0.5), (10, 0.1), (2**31 - 1, 0.1)):
        share = np.mean(explore(jnp.int32(iteration)) != greedy)
        np.testing.assert_allclose(share, epsilon / 2, atol=4.5 * np.sqrt(epsilon / 2 * (1 - epsilon / 2) / 4096))


ADAM = functools.partial(adam, eps=1e-20)  # ε would blur the steps of small gradients


@pytest.mark.parametrize(
    ("learner", "counts_itself"),
    [
        (reinforce_learner(mode="continuing", baseline="value", optimizer=ADAM), False),
        (ppo_learner(num_epochs=1, num_minibatches=1, optimizer=ADAM), True),
        (pqn_learner(num_epochs=1, num_minibatches=1, optimizer=ADAM, hparams=jaxrl.agents.PQNHParams(epsilon_end=1.0)), False),
        (recurrent_ppo_learner(num_epochs=1, num_minibatches=1, optimizer=ADAM), True),
    ],
    ids=["reinforce", "ppo", "pqn", "recurrent ppo"],
)
def test_the_step_count_of_the_optimizer_is_that_of_the_iteration(learner, counts_itself):
    """PPO, which may leave steps out, counts them itself: there, the count is in the state, and not the iteration's.

    From moments of zero, Adam changes a parameter by η √(1 − β₂ⁿ) / (1 − β₁ⁿ) · (1 − β₁) / √(1 − β₂) at its n-th step.
    """
    hparams = jax.tree.map(jnp.float32, learner.agent.hparams)
    state, noise = jax.jit(learner.init)(jax.random.key(0), hparams), learner.noise(jax.random.key(1))

    @jax.jit
    def step(iteration):
        opt_state = state.agent.opt_state._replace(count=iteration if counts_itself else jnp.int32(3))
        before = state._replace(agent=state.agent._replace(opt_state=opt_state))
        return learner.step(before, noise, hparams, 3 if counts_itself else iteration)[0].agent.params

    params = jax.tree.leaves(state.agent.params)
    first, eleventh = (
        np.concatenate([np.ravel(new - old) for new, old in zip(jax.tree.leaves(step(jnp.int32(i))), params, strict=True)])
        for i in (0, 10)
    )
    moved = np.abs(first) > 0.5 * np.abs(first).max()
    assert moved.sum() > 10
    factor = np.sqrt(1 - 0.999**11) / (1 - 0.9**11) * 0.1 / np.sqrt(0.001)
    np.testing.assert_allclose(eleventh[moved] / first[moved], factor, rtol=1e-2)
