"""One suite for every wrapper, and for all of them in any order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxrl
from jaxrl.envs import wrappers as w
from jaxrl.envs.wrappers._inner import entries
from jaxrl.spaces import spec
from jaxrl.types import Box, Discrete
from tests.envs.wrappers.problems import (
    ENVIRONMENTS,
    OF_OBSERVATIONS,
    OF_THE_REST,
    WRAPPERS,
    check_types,
    compose,
    done,
    first,
    jit,
    random_rollout,
    rollout_of,
    room,
    walk,
)
from tests.problems import dqn_learner, reinforce_learner

LIMITS = dict.fromkeys(ENVIRONMENTS, 5) | {
    "action_repeat": 3,
    "time_limit": 4,
    "over_params": 6,
    "one_hot": None,
    "room, time_limit": 4,
}


def check_in(space, obs):
    """The leaves `[..., *shape]` of the observation lie in their spaces."""
    tree = entries(space)
    assert jax.tree.structure(obs) == jax.tree.structure(spec(space))
    for box, x in zip(jax.tree.leaves(tree), jax.tree.leaves(obs), strict=True):
        assert x.dtype == box.dtype
        low, high = (box.low, box.high) if isinstance(box, Box) else (0, (box.n if isinstance(box, Discrete) else box.nvec))
        assert np.all(x >= low)
        assert np.all(x <= high if isinstance(box, Box) else x < high)


def check_rollout(env, transitions):
    """The observation acted on is the successor of the step before, unless an episode began; and all lie in their space."""
    begins = first(transitions)
    for obs in (transitions.obs, transitions.next_obs):
        check_in(env.observation_space, obs)
    for obs, next_obs in zip(jax.tree.leaves(transitions.obs), jax.tree.leaves(transitions.next_obs), strict=True):
        np.testing.assert_allclose(obs[~begins], next_obs[:-1][~begins[1:]], atol=1e-6)
    assert np.isfinite(transitions.reward).all()
    assert begins[1:].any()


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_wrapped_environment_keeps_the_contract(name):
    env = ENVIRONMENTS[name]()
    check_types(env)
    check_rollout(env, rollout_of(name).transitions)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_parameters_can_be_traced_and_batched_and_the_time_limit_read(name):
    env = ENVIRONMENTS[name]()
    assert getattr(env.params, "max_steps_in_episode", None) == LIMITS[name]
    batched = jax.tree.map(lambda x: np.stack([x] * 3), env.params)
    action = jnp.zeros(env.action_space.shape, env.action_space.dtype)

    def step(params):
        state, _ = env.reset(jax.random.key(0), params)
        _, after = env.step(jax.random.key(0), state, action, params)
        return after.obs, jnp.asarray(getattr(params, "max_steps_in_episode", 0))

    obs, limit = jax.eval_shape(jax.vmap(step), batched)
    assert jax.tree.map(lambda x: x.shape, obs) == jax.tree.map(lambda x: (3, *x.shape), spec(env.observation_space))
    assert limit.shape == (3,)


@settings(deadline=None, max_examples=12)
@given(st.permutations(list(WRAPPERS)))
def test_all_wrappers_compose_in_any_order(names):
    env = compose(walk(), names)
    check_types(env)
    repeat, limit = names.index("action_repeat"), names.index("time_limit")
    assert env.params.max_steps_in_episode == (3 if repeat < limit else 2)


@pytest.mark.parametrize("name", [name for name in ENVIRONMENTS if name.startswith("room") and "flatten_a" not in name])
def test_the_action_mask_passes_every_wrapper_untouched(name):
    """Bool, and False at entry t mod n at step t: not normalised, stacked, flattened or noisy."""
    obs = rollout_of(name).transitions.obs["action_mask"]
    begins = first(rollout_of(name).transitions)
    assert obs.dtype == np.bool_
    num = obs.shape[-1]
    for b in range(begins.shape[1]):
        starts = np.flatnonzero(begins[:, b])
        time = np.arange(len(begins)) - np.repeat(starts, np.diff([*starts, len(begins)]))
        expected = np.arange(num) != time[:, None] % num
        if "action_repeat" in name:  # counts other steps
            assert np.all(obs[:, b].sum(axis=1) == num - 1)
            expected = expected[begins[:, b]]
            np.testing.assert_array_equal(obs[begins[:, b], b], expected)
        else:
            np.testing.assert_array_equal(obs[:, b], expected)


@settings(deadline=None, max_examples=6)
@given(st.permutations(sorted(OF_OBSERVATIONS | OF_THE_REST)))
def test_all_wrappers_compose_in_any_order_over_a_dict(names):
    env = room()
    for name in names:
        is_vector = not {"position", "image"} & set(env.observation_space)
        if name == "partial_observation" and is_vector:
            continue
        env = WRAPPERS[name](env)
    check_types(env)
    assert env.observation_space["action_mask"] == room().observation_space["action_mask"]


def test_a_composition_over_a_dict_keeps_the_contract():
    env = w.episode_statistics(room())
    for name in ("partial_observation", "normalize_observations", "frame_stack", "previous_action_and_reward", "flatten"):
        env = WRAPPERS[name](env)
    env = w.sticky_actions(w.time_aware(w.observation_noise(env, 0.1)), 0.5)
    env_state, transitions = random_rollout(env)
    check_rollout(env, transitions)
    num_episodes = w.find_state(env_state, w.EpisodeStatistics).episodes
    np.testing.assert_array_equal(num_episodes, done(transitions).sum(axis=0))


def test_a_composition_keeps_the_contract_and_passes_on_what_outlives_an_episode():
    """Statistics at the bottom count every episode, so each wrapper has handed `carry_over` through."""
    # JAX's check of keys takes the transposition of a batch of them, before the scan of action_repeat, for a use. So nothing
    # random is inside of it.
    inside = ("episode_statistics", "action_repeat")
    names = [str(name) for name in np.random.default_rng(0).permutation(sorted(WRAPPERS)) if name not in inside]
    env = compose(w.episode_statistics(walk()), ["action_repeat", *names])
    env_state, transitions = random_rollout(env)
    check_rollout(env, transitions)
    num_episodes = w.find_state(env_state, w.EpisodeStatistics).episodes
    np.testing.assert_array_equal(num_episodes, done(transitions).sum(axis=0))
    assert num_episodes.min() >= 2


def check_finite(metrics):
    assert all(np.isfinite(metrics[name]).all() for name in metrics if not name.startswith("episode"))


def test_an_agent_trains_on_a_composition():
    env = compose(walk(), ["sticky_actions", "frame_stack", "normalize_observations", "rescale_actions"])
    learner = reinforce_learner(env, num_envs=2, rollout_length=5, hidden=(4,))
    check_finite(jit(lambda key: jaxrl.train(key, learner, 4)[1])(jax.random.key(0)))


def check_training(learner):
    """A run, and an evaluation with its statistics."""

    def run(key):
        state, metrics = jaxrl.train(key, learner, 12)
        frozen = state._replace(env=w.freeze(w.synchronize(state.env)))
        return metrics, jaxrl.evaluate(jax.random.key(1), learner, frozen, num_episodes=2, max_steps=100)

    metrics, returns = jit(run)(jax.random.key(0))
    check_finite(metrics)
    assert np.isfinite(returns).all()


@pytest.mark.slow
def test_agents_train_and_evaluate_on_everything_at_once():
    names = [name for name in WRAPPERS if name not in ("clip_actions", "discretize_actions")]
    check_training(reinforce_learner(compose(walk(9), names), mode="continuing", baseline="value", num_envs=2))
    check_training(reinforce_learner(compose(walk(9), names), num_envs=2, rollout_length=4))
    check_training(dqn_learner(compose(walk(9), [*names, "discretize_actions"]), num_envs=2))


def test_whole_episodes_are_checked_against_the_wrapped_limit():
    env = w.time_limit(w.sticky_actions(walk(9)), 3)
    reinforce_learner(env, rollout_length=3)
    with pytest.raises(ValueError, match=r"rollout_length 2 is shorter .* \(3 steps\)"):
        reinforce_learner(env, rollout_length=2)
    reinforce_learner(w.action_repeat(env, 2), rollout_length=2)
