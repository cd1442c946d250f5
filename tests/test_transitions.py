"""What agents compute from rollouts, against loops in NumPy, and the layout that a replay is made for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import transitions
from jaxrl._src.packing import layout_of
from jaxrl.envs.problems.probes import SPACE_PROBES
from jaxrl.replay.prioritized import Prioritized
from jaxrl.resets import reset_scheme
from jaxrl.rollout import RolloutCarry, unroll
from jaxrl.types import Transition
from tests.problems import LEARNERS, dqn_learner, lopsided, ppo_learner, recurrent_ppo_learner

T, B = 9, 7


def make_rollout(seed=0, ends=0.3):
    """Random rewards, values and episode ends; where an episode terminates, the value of the successor is infinite."""
    rng = np.random.default_rng(seed)
    reward, value, next_value = rng.normal(size=(3, T, B)).astype(np.float32)
    kind = rng.choice(3, size=(T, B), p=[1 - ends, ends / 2, ends / 2])
    terminated, truncated = kind == 1, kind == 2
    assert terminated.any() or ends == 0
    assert truncated.any() or ends == 0
    next_value = np.where(terminated, np.inf, next_value)
    obs = rng.normal(size=(T, B, 2)).astype(np.float32)
    return Transition(obs, kind, reward, terminated, truncated, obs, (), ()), value, next_value


def advantages_by_loop(rollout, value, next_value, discount, lambda_):
    """Each environment by itself, backwards: δ_t + γλ δ_{t+1} + … up to the end of the episode or of the rollout."""
    advantage = np.zeros((T, B))
    for b in range(B):
        for t in range(T):
            weight = 1.0
            for k in range(t, T):
                over = rollout.terminated[k, b], rollout.truncated[k, b]
                bootstrap = 0.0 if over[0] else discount * float(next_value[k, b])
                advantage[t, b] += weight * (rollout.reward[k, b] + bootstrap - value[k, b])
                weight *= discount * lambda_
                if any(over):
                    break
    return advantage


@pytest.mark.parametrize("ends", [0.0, 0.3, 0.8])
@pytest.mark.parametrize(("discount", "lambda_"), [(0.9, 0.7), (0.9, 0.0), (1.0, 1.0), (0.0, 0.5)])
def test_advantages_are_the_sums_of_td_errors_to_the_end_of_the_episode(ends, discount, lambda_):
    rollout, value, next_value = make_rollout(ends=ends)
    advantage, target = jax.jit(transitions.advantages)(rollout, value, next_value, discount, lambda_)
    expected = advantages_by_loop(rollout, value, next_value, discount, lambda_)
    np.testing.assert_allclose(advantage, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(target, expected + value, rtol=1e-4, atol=1e-5)


def test_a_termination_and_a_truncation_in_one_place():
    """One step each, γ = 0.5, reward 1, value 2, next value 4, λ = 1, then a step of reward 100."""
    flags = jnp.array([[False, True, False], [False, False, False]]), jnp.array([[False, False, True], [False, False, False]])
    reward = jnp.array([[1.0] * 3, [100.0] * 3])
    rollout = Transition((), (), reward, *flags, (), (), ())
    next_value = jnp.array([[4.0] * 3, [0.0] * 3])
    advantage, target = transitions.advantages(rollout, jnp.full((2, 3), 2.0), next_value, 0.5, 1.0)
    # Going on: (1 + 0.5 · 4 − 2) + 0.5 · (100 − 2); terminated: 1 − 2; truncated: 1 + 0.5 · 4 − 2.
    np.testing.assert_allclose(advantage[0], [50.0, -1.0, 1.0])
    np.testing.assert_allclose(target[0], [52.0, 1.0, 3.0])
    np.testing.assert_allclose(transitions.discounts(rollout, 0.5)[0], [0.5, 0.0, 0.5])


@pytest.mark.parametrize("discount", [0.9, 1.0, 0.0])
def test_monte_carlo_returns_are_discounted_sums(discount):
    rollout, _, next_value = make_rollout(seed=1)
    expected = np.zeros((T, B))
    for b in range(B):
        for t in reversed(range(T)):
            cut = rollout.truncated[t, b] or t == T - 1
            later = 0.0 if rollout.terminated[t, b] else float(next_value[t, b]) if cut else expected[t + 1, b]
            expected[t, b] = rollout.reward[t, b] + discount * later
    found = jax.jit(transitions.monte_carlo_returns)(rollout, next_value, discount)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# --- normalize


def test_normalized_advantages_have_mean_zero_and_deviation_one():
    x = np.random.default_rng(0).normal(5.0, 3.0, size=(T, B)).astype(np.float32)
    found = transitions.normalize(jnp.asarray(x))
    np.testing.assert_allclose(found, (x - x.mean()) / x.std(), rtol=1e-4, atol=1e-5)


def test_normalization_counts_the_entries_with_weight_alone():
    rng = np.random.default_rng(0)
    x, weight = rng.normal(5.0, 3.0, size=(T, B)).astype(np.float32), rng.integers(0, 2, size=(T, B)).astype(np.float32)
    counted = weight > 0
    assert 0 < counted.sum() < counted.size
    found = np.asarray(transitions.normalize(jnp.asarray(x), jnp.asarray(weight)))
    np.testing.assert_allclose(found[counted], (x[counted] - x[counted].mean()) / x[counted].std(), rtol=1e-4, atol=1e-5)
    changed = np.where(counted, x, -1e3).astype(np.float32)
    again = np.asarray(transitions.normalize(jnp.asarray(changed), jnp.asarray(weight)))
    np.testing.assert_array_equal(again[counted], found[counted])


@pytest.mark.parametrize("weight", [None, jnp.zeros(4), jnp.array([1.0, 0.0, 0.0, 0.0])])
def test_normalization_of_equal_or_no_advantages_is_finite(weight):
    found = transitions.normalize(jnp.full(4, 2.5), weight)
    assert np.isfinite(found).all()
    if weight is None or weight.any():
        np.testing.assert_array_equal(found, 0.0)


# --- flat batches


def test_flat_rows_are_time_major():
    tree = {"a": jnp.arange(T * B).reshape(T, B), "b": (jnp.arange(T * B * 6.0).reshape(T, B, 2, 3),)}
    flat = transitions.flatten(tree)
    np.testing.assert_array_equal(flat["a"], np.arange(T * B))
    assert flat["b"][0].shape == (T * B, 2, 3)
    np.testing.assert_array_equal(flat["b"][0][2 * B + 1], tree["b"][0][2, 1])


# --- the layout of a replay

WITH_SPACES = {name: (lambda make=make: ppo_learner(make().env)) for name, make in SPACE_PROBES.items()}
MORE_DQN = {
    "dqn": dqn_learner,
    "dqn, rollouts": LEARNERS["double dqn, huber, hard sync, rollouts"],
    "dqn, mask": lambda: dqn_learner(SPACE_PROBES["action mask"]().env),
    "dqn, Dict": lambda: dqn_learner(SPACE_PROBES["Dict observation"]().env),
}
LAYOUTS = LEARNERS | WITH_SPACES | MORE_DQN | {"recurrent, Box": lambda: recurrent_ppo_learner(lopsided())}


def real_rollout(learner):
    """The state before it, and the rollout, as shapes and dtypes."""
    hparams = jax.tree.map(jnp.float32, learner.agent.hparams)
    state, noise = jax.eval_shape(lambda key: (learner.init(key, hparams), learner.noise(key).rollout), jax.random.key(0))
    agent = learner.agent
    shape = (learner.num_envs,) if agent.fresh_episodes else (learner.rollout_length, learner.num_envs)
    fresh_episode = reset_scheme(learner.env, shape, None).episode

    def play(state, noise):
        carry = RolloutCarry(state.env, state.obs, state.carry, state.stats)
        return unroll(learner.env, agent, agent.policy(state.agent), carry, noise, fresh_episode, hparams, jnp.int32(0))[1]

    return state, jax.eval_shape(play, state, noise)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_example_has_the_layout_of_a_real_rollout(name):
    learner = LAYOUTS[name]()
    state, rollout = real_rollout(learner)
    carry, extras = (jax.tree.map(lambda x: jnp.zeros(x.shape[2:], x.dtype), tree) for tree in (rollout.carry, rollout.extras))
    make = lambda obs: transitions.example_transition(obs, learner.env.action_space, carry=carry, extras=extras)
    assert layout_of(jax.eval_shape(make, state.obs)) == layout_of(rollout, batch_ndim=2)
    if hasattr(state.agent, "replay"):
        rows = state.agent.replay.rows if isinstance(state.agent.replay, Prioritized) else state.agent.replay
        kept = rollout if name != "td3" else rollout._replace(carry=())  # the carry is noise, which no update reads
        assert rows.layout == layout_of(kept, batch_ndim=2)


def test_agents_with_a_replay_are_among_those():
    with_replay = {name for name in LEARNERS if hasattr(real_rollout(LEARNERS[name]())[0].agent, "replay")}
    from_rollouts = {name for name in LEARNERS if name.startswith(("a2c", "openai_es", "ppo", "pqn", "recurrent", "reinforce"))}
    assert with_replay == set(LEARNERS) - from_rollouts


def test_an_example_is_one_transition_of_zeros_with_the_observation_given():
    obs = {"x": jnp.arange(6.0).reshape(2, 3), "n": jnp.array([4, 5], jnp.uint8)}
    example = transitions.example_transition(
        obs, jaxrl.types.MultiDiscrete((2, 3)), carry=jnp.ones(2), extras={"a": jnp.int32(1)}
    )
    np.testing.assert_array_equal(example.obs["x"], [0, 1, 2])
    assert (example.action.shape, example.action.dtype) == ((2,), jnp.int32)
    assert example.obs["n"].dtype == example.next_obs["n"].dtype == jnp.uint8
    assert example.terminated.dtype == example.truncated.dtype == jnp.bool_
    assert example.reward.dtype == jnp.float32
    np.testing.assert_array_equal(example.carry, [1, 1])
