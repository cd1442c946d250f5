"""Observations: each wrapper against plain play of the same environment with the same actions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.envs import wrappers as w
from jaxrl.types import Box, Discrete
from tests.envs.wrappers.problems import constant, done, echo, episodes, first, jit, played, walk
from tests.problems import countdown, endless

IMAGE = countdown()._replace(observation_space=Box(0, 255, (4, 4, 2), np.uint8))


def test_flatten_reshapes_observations_and_their_bounds():
    image = np.arange(6, dtype=np.uint8).reshape(3, 2)
    flat = w.flatten(echo(Box(image, image + 1, (3, 2), np.uint8)))
    space = flat.observation_space
    assert (space.shape, space.dtype, space.high.tolist()) == ((6,), np.uint8, [1, 2, 3, 4, 5, 6])
    state, obs = flat.reset(jax.random.key(0), flat.params)
    _, after = flat.step(jax.random.key(0), state, image, flat.params)
    np.testing.assert_array_equal(obs, np.zeros(6))
    np.testing.assert_array_equal(after.obs, np.arange(6))


def test_one_hot_shows_the_number():
    transitions = played("one_hot").transitions
    np.testing.assert_array_equal(transitions.next_obs, np.eye(3)[transitions.action])


@pytest.mark.parametrize("name", ["flatten", "partial_observation", "time_aware"])
def test_reward_flags_and_what_is_visible_are_those_of_the_environment_inside(name):
    plain, wrapped = played("plain").transitions, played(name).transitions
    for ours, theirs in zip(wrapped[1:5], plain[1:5], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    mask = [1, 0] if name == "partial_observation" else [1, 1]
    np.testing.assert_allclose(wrapped.obs[..., :2], plain.obs * mask, rtol=1e-6)
    np.testing.assert_allclose(wrapped.next_obs[..., :2], plain.next_obs * mask, rtol=1e-6)


def test_hidden_components_are_zero_in_the_space_too():
    space = w.partial_observation(walk(), [True, False]).observation_space
    assert (space.low.tolist(), space.high.tolist()) == ([-4, 0], [4, 0])


def test_a_stack_holds_frames_of_its_own_episode_alone():
    plain, stacked = played("plain").transitions, played("frame_stack").transitions
    for b in range(plain.reward.shape[1]):
        for inside, outside in zip(episodes(plain, b), episodes(stacked, b), strict=True):
            frames = np.concatenate([inside.obs[:1]] * 2 + [inside.obs, inside.next_obs[-1:]])
            expected = np.concatenate([frames[:-2], frames[1:-1], frames[2:]], axis=-1)
            np.testing.assert_allclose(outside.obs, expected[:-1], rtol=1e-6)
            np.testing.assert_allclose(outside.next_obs, expected[1:], rtol=1e-6)
    assert first(plain).sum() > 6


@pytest.mark.parametrize(
    ("space", "stacked"), [(Box(0, 1, ()), (3,)), (Box(0, 1, (2,)), (6,)), (Box(0, 1, (5, 4, 2), np.bool_), (5, 4, 6))]
)
def test_stacks_keep_rank_and_dtype(space, stacked):
    env = w.frame_stack(echo(space), 3)
    state, obs = env.reset(jax.random.key(0), env.params)
    _, after = env.step(jax.random.key(0), state, jnp.ones(space.shape, space.dtype), env.params)
    assert env.observation_space.shape == obs.shape == after.obs.shape == stacked
    assert env.observation_space.dtype == obs.dtype == after.obs.dtype == space.dtype
    channels = space.shape[-1] if space.shape else 1
    np.testing.assert_array_equal(after.obs, np.broadcast_to(np.arange(stacked[-1]) >= 2 * channels, stacked))


def test_the_time_that_remains_falls_to_zero_at_the_limit():
    transitions = played("time_aware").transitions
    for b in range(transitions.reward.shape[1]):
        for episode in episodes(transitions, b):
            passed = np.arange(len(episode.reward))
            np.testing.assert_allclose(episode.obs[:, -1], 1 - passed / 5, atol=1e-6)
            np.testing.assert_allclose(episode.next_obs[:, -1], 1 - (passed + 1) / 5, atol=1e-6)
    truncated = transitions.next_obs[..., -1] == 0
    np.testing.assert_array_equal(truncated, transitions.truncated | truncated & transitions.terminated)
    assert done(transitions).sum() > truncated.sum() > 0


def test_noise_has_its_scale_from_the_first_observation_on():
    """4,000 draws of three scales in one program: mean and variance within four standard errors; at 0 there is none."""
    env = w.observation_noise(constant(1.0), 0.0)
    scales = jnp.array([0.0, 0.5, 3.0])

    def draw(key, scale):
        params = env.params._replace(scale=scale)
        reset_key, step_key = jax.random.split(key)
        state, obs = env.reset(reset_key, params)
        _, after = env.step(step_key, state, jnp.int32(0), params)
        return jnp.stack([obs[0], after.obs[0]]) - 1.0

    keys = jax.random.split(jax.random.key(0), 4000)
    noise = np.asarray(jit(jax.vmap(jax.vmap(draw, (0, None)), (None, 0)))(keys, scales))  # [scale, draw, reset or step]
    assert not noise[0].any()
    for drawn, scale in zip(noise[1:], scales[1:], strict=True):
        assert np.all(np.abs(drawn.mean(axis=0)) < 4 * scale / np.sqrt(4000))
        assert np.all(np.abs(drawn.var(axis=0) / scale**2 - 1) < 4 * np.sqrt(2 / 4000))
        assert abs(np.corrcoef(drawn.T)[0, 1]) < 4 / np.sqrt(4000)


@pytest.mark.parametrize("wrap", [w.normalize_observations, w.episode_statistics])
@pytest.mark.parametrize("scale", [0.0, 0.5, [0.0, 1.0]])
def test_noise_lies_on_what_the_environment_inside_renewed(wrap, scale):
    inside = wrap(walk())
    env = w.observation_noise(inside, scale)
    (old, _), (fresh, noisy) = (env.reset(jax.random.key(i), env.params) for i in range(2))
    state, obs = env.carry_over(old, fresh, noisy)
    expected_state, expected = inside.carry_over(old.env, fresh.env, fresh.obs)
    np.testing.assert_allclose(obs - expected, noisy - fresh.obs, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, state.env, expected_state)


@pytest.mark.parametrize("name", ["flatten", "partial_observation", "frame_stack", "time_aware"])
def test_new_episodes_show_what_the_environment_inside_renewed(name):
    """Over a normaliser, whose first observations of an episode depend on those before."""
    inside = w.normalize_observations(walk())
    env = {"flatten": w.flatten, "frame_stack": lambda env: w.frame_stack(env, 2), "time_aware": w.time_aware}.get(
        name, lambda env: w.partial_observation(env, [True, False])
    )(inside)
    (old, _), (fresh, shown) = (env.reset(jax.random.key(i), env.params) for i in range(2))
    renewed, obs = env.carry_over(old, fresh, shown)
    (old, _), (fresh, shown) = (inside.reset(jax.random.key(i), inside.params) for i in range(2))
    expected_state, expected = inside.carry_over(old, fresh, shown)
    seen = {"partial_observation": expected * np.float32([1, 0]), "time_aware": np.append(expected, 1)}
    np.testing.assert_array_equal(obs, np.tile(expected, 2) if name == "frame_stack" else seen.get(name, expected))
    jax.tree.map(np.testing.assert_array_equal, renewed.env, expected_state)
    assert np.abs(obs).max() > 0.9


@pytest.mark.parametrize(
    ("wrap", "error", "message"),
    [
        (lambda: w.flatten(echo(Discrete(3))), ValueError, "flatten needs observations in a Box, got Discrete.*one_hot"),
        (lambda: w.frame_stack(echo(Discrete(3)), 2), ValueError, "frame_stack needs observations in a Box, got Discrete"),
        (lambda: w.frame_stack(walk(), 0), ValueError, "num_frames must be at least 1"),
        (lambda: w.one_hot(walk()), ValueError, "one_hot needs Discrete observations, got Box.*leave it out"),
        (lambda: w.partial_observation(walk(), [0, 1]), TypeError, "visible must be booleans"),
        (lambda: w.partial_observation(walk(), [True] * 3), ValueError, r"visible \[3\] does not broadcast to Box"),
        (lambda: w.observation_noise(walk(), -1.0), ValueError, r"scale must lie in \[0, inf\], got -1"),
        (lambda: w.observation_noise(walk(), [1.0] * 3), ValueError, r"scale \[3\] does not broadcast to Box"),
        (lambda: w.observation_noise(IMAGE, 1.0), ValueError, "needs observations of floats, got Box.*normalize_observations"),
        (lambda: w.time_aware(endless()), ValueError, "endless has no params.max_steps_in_episode: wrap it in time_limit"),
        (lambda: w.time_aware(echo(Box(0, 1, (2, 2)))), ValueError, "observations of one axis.*flatten first"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_mend(wrap, error, message):
    with pytest.raises(error, match=message):
        wrap()
