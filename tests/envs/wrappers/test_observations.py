"""Observations: each wrapper against a rollout of the same environment without it, with the same actions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.envs import wrappers as w
from jaxrl.types import Box, Dict, Discrete, Environment, MultiDiscrete, Step
from tests.envs.wrappers.problems import (
    ENVIRONMENTS,
    check_types,
    constant,
    done,
    echo,
    episodes,
    first,
    jit,
    random_rollout,
    rollout_of,
    room,
    walk,
)
from tests.problems import countdown, endless

ONLY_A_MASK = countdown()._replace(observation_space=Dict({"action_mask": Box(False, True, (2,), np.bool_)}))
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


def test_flatten_joins_the_entries_in_the_order_of_their_names_and_keeps_the_mask():
    plain, flat = rollout_of("room").transitions, rollout_of("room, flatten").transitions
    for inside, outside in ((plain.obs, flat.obs), (plain.next_obs, flat.next_obs)):
        pair = np.concatenate([np.eye(2)[inside["pair"][..., 0]], np.eye(4)[inside["pair"][..., 1]]], axis=-1)
        image = inside["image"].reshape(*inside["image"].shape[:2], 6)
        expected = np.concatenate([image, np.eye(3)[inside["inside"]["kind"]], pair, inside["position"]], axis=-1)
        np.testing.assert_allclose(outside["observation"], expected, rtol=1e-6)
        np.testing.assert_array_equal(outside["action_mask"], inside["action_mask"])
    space = ENVIRONMENTS["room, flatten"]().observation_space
    assert sorted(space) == ["action_mask", "observation"]
    assert space["observation"] == Box([0] * 15 + [-2] * 2, [255] * 6 + [1] * 9 + [2] * 2, (17,))


def test_flatten_without_a_mask_gives_a_vector_and_keeps_a_dtype_that_all_share():
    space = Dict({"b": Box(0, 9, (2, 1), np.uint8), "a": Box(0, 5, (), np.uint8)})
    env = w.flatten(
        countdown()._replace(
            observation_space=space, reset=lambda key, params: ((), {"a": jnp.uint8(1), "b": jnp.array([[2], [3]], jnp.uint8)})
        )
    )
    _, obs = env.reset(jax.random.key(0), env.params)
    np.testing.assert_array_equal(obs, np.uint8([1, 2, 3]))
    assert obs.dtype == np.uint8
    assert env.observation_space == Box([0, 0, 0], [5, 9, 9], (3,), np.uint8)
    assert w.flatten(echo(MultiDiscrete((2, 3)))).observation_space == Box(0, 1, (5,))


def test_one_hot_changes_the_integers_of_a_dict():
    plain, wrapped = rollout_of("room").transitions.obs, rollout_of("room, one_hot").transitions.obs
    np.testing.assert_array_equal(wrapped["inside"]["kind"], np.eye(3)[plain["inside"]["kind"]])
    first, second = plain["pair"][..., 0], plain["pair"][..., 1]
    np.testing.assert_array_equal(wrapped["pair"], np.concatenate([np.eye(2)[first], np.eye(4)[second]], axis=-1))
    for name in ("position", "image", "action_mask"):
        np.testing.assert_array_equal(wrapped[name], plain[name])


def test_of_a_dict_the_named_entries_are_hidden():
    plain, wrapped = rollout_of("room").transitions, rollout_of("room, partial_observation").transitions
    np.testing.assert_array_equal(wrapped.next_obs["position"], plain.next_obs["position"] * np.float32([0, 1]))
    np.testing.assert_array_equal(wrapped.obs["image"], plain.obs["image"])
    hidden = w.partial_observation(room(), {"image": False})
    _, obs = hidden.reset(jax.random.key(0), hidden.params)
    assert not np.any(obs["image"])
    assert np.any(obs["position"])
    assert hidden.observation_space["image"] == Box(0, 0, (3, 2, 1), np.uint8)


def test_of_a_dict_each_box_is_stacked():
    plain, stacked = rollout_of("room").transitions, rollout_of("room, frame_stack").transitions
    for name in ("position", "image"):
        for b in range(3):
            for inside, outside in zip(episodes(plain, b), episodes(stacked, b), strict=True):
                frames = np.concatenate([inside.obs[name][:1]] * 2 + [inside.obs[name]])
                expected = np.concatenate([frames[:-2], frames[1:-1], frames[2:]], axis=-1)
                np.testing.assert_array_equal(outside.obs[name], expected)
    np.testing.assert_array_equal(stacked.obs["pair"], plain.obs["pair"])
    assert stacked.obs["image"].shape[2:] == (3, 2, 3)


def test_of_a_dict_each_box_of_floats_gets_noise():
    space = Dict({"a": Box(-1, 1, (2000,)), "b": Box(-1, 1, (2, 1000)), "n": Box(0, 3, (5,), np.uint8)})
    zeros = {"a": jnp.zeros(2000), "b": jnp.zeros((2, 1000)), "n": jnp.zeros(5, jnp.uint8)}
    env = w.observation_noise(countdown()._replace(observation_space=space, reset=lambda key, params: ((), zeros)), 2.0)
    _, obs = env.reset(jax.random.key(0), env.params)
    a, b = np.ravel(obs["a"]), np.ravel(obs["b"])
    assert not np.any(obs["n"])
    assert abs(np.var(np.append(a, b)) / 4 - 1) < 4 * np.sqrt(2 / 4000)
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(2000)
    assert not env.observation_space["b"].bounded


@pytest.mark.parametrize("actions", [Discrete(3), MultiDiscrete((2, 3)), Box([1, -2], [3, 2], (2,)), Box(-1, 1, (2, 2))])
@pytest.mark.parametrize("observations", ["vector", "image", "dict"])
def test_previous_actions_and_rewards_are_those_that_led_here_and_zeros_at_a_start(actions, observations):
    """Against a loop over the environment without the wrapper, over a normaliser, whose first observations outlive episodes."""
    spaces = {"vector": Box(-1, 1, (1,)), "image": Box(0, 255, (2, 1, 1), np.uint8)}
    spaces["dict"] = Dict({"x": spaces["vector"], "kind": Discrete(2)})
    space = spaces[observations]

    def observe(time):
        x = {"vector": time[None].astype(jnp.float32), "image": time.astype(jnp.uint8) * jnp.ones((2, 1, 1), jnp.uint8)}
        return x.get(observations, {"x": x["vector"], "kind": time % 2})

    def step(key, time, action, params):
        reward = 10.0 * time.astype(jnp.float32) + jnp.sum(jnp.asarray(action, jnp.float32))
        return time + 1, Step(observe(time + 1), reward, jnp.bool_(False), time >= 2)

    inside = Environment(lambda key, params: (jnp.int32(0), observe(jnp.int32(0))), step, (), space, actions, "counter")
    env = w.previous_action_and_reward(inside)
    check_types(env)
    transitions = random_rollout(env, num_steps=8, num_envs=2).transitions
    begins = first(transitions)
    assert begins.sum() == 6
    shown = transitions.action.astype(np.float32).reshape(8, 2, -1)
    if isinstance(actions, Discrete):
        shown = np.eye(3)[transitions.action]
    if isinstance(actions, MultiDiscrete):
        shown = np.concatenate([np.eye(2)[transitions.action[..., 0]], np.eye(3)[transitions.action[..., 1]]], axis=-1)
    for obs, action, reward in (
        (transitions.next_obs, shown, transitions.reward),
        (
            transitions.obs,
            *(
                np.concatenate([0 * x[:1], x[:-1]]) * ~begins.reshape(8, 2, *[1] * (x.ndim - 2))
                for x in (shown, transitions.reward)
            ),
        ),
    ):
        if observations == "vector":
            obs = {"previous_action": obs[..., 1:-1], "previous_reward": obs[..., -1:]}
        np.testing.assert_array_equal(obs["previous_action"], action)
        np.testing.assert_array_equal(obs["previous_reward"], reward[..., None])
    names = {"vector": None, "image": ["observation"], "dict": ["kind", "x"]}[observations]
    assert names is None or set(env.observation_space) == {*names, "previous_action", "previous_reward"}


def test_previous_actions_are_the_executed_ones_inside_sticky_actions():
    env = w.sticky_actions(w.previous_action_and_reward(echo(Box(-1, 1, (1,)), limit=1000)), 0.5)
    transitions = random_rollout(env, num_steps=60, num_envs=1).transitions
    executed, shown, given = transitions.next_obs[:, 0, 0], transitions.next_obs[:, 0, 1], transitions.action[:, 0, 0]
    np.testing.assert_array_equal(shown, executed)
    assert 10 < np.sum(shown == given) < 50


def test_one_hot_shows_the_number():
    transitions = rollout_of("one_hot").transitions
    np.testing.assert_array_equal(transitions.next_obs, np.eye(3)[transitions.action])


@pytest.mark.parametrize("name", ["flatten", "partial_observation", "time_aware"])
def test_reward_flags_and_what_is_visible_are_those_of_the_environment_inside(name):
    plain, wrapped = rollout_of("plain").transitions, rollout_of(name).transitions
    for ours, theirs in zip(wrapped[1:5], plain[1:5], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    mask = [0, 1] if name == "partial_observation" else [1, 1]
    np.testing.assert_allclose(wrapped.obs[..., :2], plain.obs * mask, rtol=1e-6)
    np.testing.assert_allclose(wrapped.next_obs[..., :2], plain.next_obs * mask, rtol=1e-6)


def test_hidden_components_are_zero_in_the_space_too():
    space = w.partial_observation(walk(), [True, False]).observation_space
    assert (space.low.tolist(), space.high.tolist()) == ([-4, 0], [4, 0])


def test_a_stack_holds_frames_of_its_own_episode_alone():
    plain, stacked = rollout_of("plain").transitions, rollout_of("frame_stack").transitions
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
    transitions = rollout_of("time_aware").transitions
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
def test_noise_is_added_to_what_the_environment_inside_carried_over(wrap, scale):
    inside = wrap(walk())
    env = w.observation_noise(inside, scale)
    (old, _), (fresh, noisy) = (env.reset(jax.random.key(i), env.params) for i in range(2))
    state, obs = env.carry_over(old, fresh, noisy)
    expected_state, expected = inside.carry_over(old.env, fresh.env, fresh.obs)
    np.testing.assert_allclose(obs - expected, noisy - fresh.obs, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, state.env, expected_state)


@pytest.mark.parametrize("name", ["flatten", "partial_observation", "frame_stack", "time_aware", "previous"])
def test_new_episodes_show_what_the_environment_inside_carried_over(name):
    """Over a normaliser, whose first observations of an episode depend on those before."""
    inside = w.normalize_observations(walk())
    wrap = {
        "flatten": w.flatten,
        "frame_stack": lambda env: w.frame_stack(env, 2),
        "time_aware": w.time_aware,
        "previous": w.previous_action_and_reward,
        "partial_observation": lambda env: w.partial_observation(env, [True, False]),
    }
    env = wrap[name](inside)
    (old, _), (fresh, shown) = (env.reset(jax.random.key(i), env.params) for i in range(2))
    carried_over, obs = env.carry_over(old, fresh, shown)
    (old, _), (fresh, shown) = (inside.reset(jax.random.key(i), inside.params) for i in range(2))
    expected_state, expected = inside.carry_over(old, fresh, shown)
    seen = {"partial_observation": expected * np.float32([1, 0]), "time_aware": np.append(expected, 1)}
    seen["previous"] = np.append(expected, [0, 0, 0])
    np.testing.assert_array_equal(obs, np.tile(expected, 2) if name == "frame_stack" else seen.get(name, expected))
    jax.tree.map(np.testing.assert_array_equal, carried_over.env, expected_state)
    assert np.abs(obs).max() > 0.9


@pytest.mark.parametrize(
    ("wrap", "error", "message"),
    [
        (lambda: w.flatten(ONLY_A_MASK), ValueError, "flatten needs an entry besides the action mask, got Dict"),
        (lambda: w.one_hot(w.flatten(room())), ValueError, "one_hot needs Discrete or MultiDiscrete observations, got Dict"),
        (
            lambda: w.partial_observation(room(), [True]),
            ValueError,
            "visible must be a dict with some of the keys image, position",
        ),
        (
            lambda: w.partial_observation(room(), {"pair": True}),
            ValueError,
            "keys image, position, which are the entries of Dict",
        ),
        (lambda: w.partial_observation(room(), {"action_mask": False}), ValueError, "keys image, position, which"),
        (lambda: w.partial_observation(room(), {"position": 1}), TypeError, r"visible\['position'\] must be booleans"),
        (lambda: w.partial_observation(room(), {"position": [True] * 3}), ValueError, r"\[3\] does not broadcast to Box"),
        (lambda: w.observation_noise(room(), [1.0, 2.0, 3.0]), ValueError, r"scale \[3\] does not broadcast to Box"),
        (lambda: w.time_aware(w.time_aware(room())), ValueError, "room have an entry 'time_remaining' already"),
        (
            lambda: w.previous_action_and_reward(w.previous_action_and_reward(room())),
            ValueError,
            "room have an entry 'previous_action', 'previous_reward' already",
        ),
        (lambda: w.frame_stack(ONLY_A_MASK, 2), ValueError, "frame_stack needs observations in a Box, got Dict"),
        (lambda: w.frame_stack(echo(Discrete(3)), 2), ValueError, "frame_stack needs observations in a Box, got Discrete"),
        (lambda: w.frame_stack(walk(), 0), ValueError, "num_frames must be at least 1"),
        (lambda: w.one_hot(walk()), ValueError, "one_hot needs Discrete or MultiDiscrete observations, got Box.*do not use"),
        (lambda: w.partial_observation(walk(), [0, 1]), TypeError, "visible must be booleans"),
        (lambda: w.partial_observation(walk(), [True] * 3), ValueError, r"visible \[3\] does not broadcast to Box"),
        (lambda: w.observation_noise(walk(), -1.0), ValueError, r"scale must lie in \[0, inf\], got -1"),
        (lambda: w.observation_noise(walk(), [1.0] * 3), ValueError, r"scale \[3\] does not broadcast to Box"),
        (lambda: w.observation_noise(IMAGE, 1.0), ValueError, "needs observations of floats, got Box.*normalize_observations"),
        (lambda: w.time_aware(endless()), ValueError, "endless has no params.max_steps_in_episode: wrap it in time_limit"),
        (
            lambda: w.time_aware(echo(Box(0, 1, (2, 2)))),
            ValueError,
            "time_aware needs a vector of floats, or a Dict, got Box.*flatten first",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_fix(wrap, error, message):
    with pytest.raises(error, match=message):
        wrap()
