"""Saliency against known answers: linear policies, completeness, and a task in which one pixel matters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import explain
from jaxrl.types import Box, Dict, Discrete, Environment, MultiDiscrete, Step

PIXEL = 1, 2


def test_on_a_linear_policy_saliency_is_the_weights():
    space, actions = Box(-1, 1, (4,)), Discrete(3)
    network = jaxrl.networks.q_network(space, actions, hidden=())
    params = network.init(jax.random.key(0), jnp.zeros((1, 4)))
    (kernel,) = [x for x in jax.tree.leaves(params) if x.shape == (4, 3)]
    outputs = explain.policy_outputs("dqn", network, actions)
    obs, baseline = jnp.array([0.3, -0.2, 0.9, 0.1]), jnp.array([1.0, 0.0, -1.0, 0.5])
    for a in range(3):
        q = lambda obs, a=a: outputs.apply(params, obs).action[a]
        np.testing.assert_allclose(explain.gradient(q, obs), kernel[:, a], rtol=1e-6)
        attributions = explain.integrated_gradients(q, obs, baseline, num_steps=4)
        np.testing.assert_allclose(attributions, kernel[:, a] * (obs - baseline), rtol=1e-5)


@pytest.mark.parametrize(("activation", "num_steps", "tolerance"), [("tanh", 64, 2e-5), ("relu", 1024, 2e-2)])
def test_integrated_gradients_are_complete(activation, num_steps, tolerance):
    """They sum to f(x) − f(b): to rounding for a smooth network, and nearly so where it has kinks."""
    network = jaxrl.networks.policy(Box(-1, 1, (5,)), Discrete(3), hidden=(16, 16), activation=activation)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 5)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.6, size=x.shape).astype(np.float32), shapes)
    logit = lambda obs: network.apply(params, obs)[1]
    obs, baseline = rng.normal(size=(2, 8, 5)).astype(np.float32)
    attribute = lambda x, b: explain.integrated_gradients(logit, x, b, num_steps=num_steps)
    attributions = jax.vmap(attribute)(obs, baseline)
    difference = jax.vmap(logit)(obs) - jax.vmap(logit)(baseline)
    assert np.abs(difference).min() > 10 * tolerance
    np.testing.assert_allclose(attributions.sum(axis=-1), difference, atol=tolerance)
    untouched = jax.vmap(attribute)(obs, jnp.where(jnp.arange(5)[None] == 2, obs, baseline))
    assert np.all(untouched[:, 2] == 0)  # a component that is equal in both has no share


def test_integrated_gradients_of_a_product():
    """f = x² y from 0: ∫ 2 α² x y dα x = ⅔ x² y for x, and ⅓ x² y for y."""
    attributions = explain.integrated_gradients(lambda o: o["x"][0] ** 2 * o["y"], {"x": jnp.array([3.0]), "y": jnp.array(5.0)})
    np.testing.assert_allclose(attributions["x"], [30.0], rtol=1e-6)
    np.testing.assert_allclose(attributions["y"], 15.0, rtol=1e-6)


def test_what_varies():
    obs = {
        "action_mask": jnp.array([True, False]), "image": jnp.ones((1, 2, 1), bool), "kind": jnp.int32(2),
        "pixels": jnp.array([7, 9], jnp.uint8), "speed": jnp.float32(0.5),
    }  # fmt: skip
    function = lambda o: 2 * o["image"][0, 1, 0] + 3 * o["pixels"][0] * o["kind"] + o["speed"] ** 2
    with jax.numpy_dtype_promotion("standard"):
        slope = explain.gradient(function, obs)
    assert {name: x.dtype for name, x in slope.items()} == dict.fromkeys(obs, np.float32)
    expected = {"action_mask": [0, 0], "image": [[[0], [2]]], "kind": 0, "pixels": [6, 0], "speed": 1}
    for name, x in expected.items():
        np.testing.assert_allclose(slope[name], x)
    vector, restore = explain.components(obs)
    np.testing.assert_allclose(vector, [1, 1, 7, 9, 0.5])
    restored = restore(vector.at[3].set(1.5))
    assert restored["kind"] == 2
    assert restored["action_mask"].dtype == bool
    np.testing.assert_allclose(restored["pixels"], [7, 1.5])
    space = Dict(
        {
            "action_mask": Box(False, True, (2,), bool), "image": Box(False, True, (1, 2, 1), bool), "kind": Discrete(3),
            "pixels": Box(0, 255, (2,), np.uint8), "speed": Box(0, 1, ()),
        }
    )  # fmt: skip
    assert explain.component_names(space) == ["image 0,0,0", "image 0,1,0", "pixels 0", "pixels 1", "speed"]
    assert explain.component_names(MultiDiscrete((2, 2))) == []
    assert float(explain.vary(lambda o: o["speed"] - o["pixels"][1], obs, (4, 3), jnp.array([3.0, 1.0]))) == 2.0


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"int32\[\] has no component with a gradient; wrap .*\.one_hot"):
        explain.gradient(lambda obs: obs, jnp.int32(3))
    with pytest.raises(ValueError, match=r"the baseline must be an observation like obs, whose shapes are \(2,\); got \(3,\)"):
        explain.integrated_gradients(jnp.sum, jnp.zeros(2), jnp.zeros(3))
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        explain.integrated_gradients(jnp.sum, jnp.zeros(2), num_steps=0)


def one_pixel() -> Environment:
    """Random pictures; the reward is 1 if the action tells whether a certain pixel is set. Episodes have one step."""

    def picture(key):
        return jax.random.bernoulli(key, 0.5, (4, 4, 1))

    def reset(key, params):
        obs = picture(key)
        return obs, obs

    def step(key, obs, action, params):
        reward = (action == obs[*PIXEL, 0].astype(jnp.int32)).astype(jnp.float32)
        return obs, Step(obs, reward, jnp.bool_(True), jnp.bool_(False))

    return Environment(reset, step, (), Box(False, True, (4, 4, 1), bool), Discrete(2), "one pixel")


def test_it_finds_the_pixel_that_matters():
    """With a policy learned by REINFORCE, the pixel has more than three times the saliency of any other."""
    env = one_pixel()
    network = jaxrl.networks.policy(env.observation_space, env.action_space, hidden=(8,))
    agent = jaxrl.agents.reinforce(network, env.action_space, hparams=jaxrl.agents.ReinforceHParams(learning_rate=2e-2))
    learner = jaxrl.make_learner(env, agent, num_envs=256, rollout_length=1)
    state, metrics = jax.jit(lambda key: jaxrl.train(key, learner, 200))(jax.random.key(0))
    assert metrics["episode_return"][-1] > 0.9
    outputs = explain.policy_outputs("reinforce", network, env.action_space)

    def preference(obs):
        logits = outputs.apply(state.agent.params, obs).action
        return logits[1] - logits[0]

    pictures = jax.random.bernoulli(jax.random.key(1), 0.5, (32, 4, 4, 1))
    attributions = jax.vmap(lambda obs: explain.integrated_gradients(preference, obs, jnp.zeros_like(obs), num_steps=16))(
        pictures
    )
    slopes = jax.vmap(lambda obs: explain.gradient(preference, obs))(pictures)
    for saliency in (attributions, slopes):
        size = np.abs(saliency).mean(axis=(0, 3))
        assert np.unravel_index(size.argmax(), size.shape) == PIXEL
        others = np.delete(size.ravel(), np.ravel_multi_index(PIXEL, size.shape))
        assert size.max() > 3 * others.max()
    assert np.all(attributions[~np.asarray(pictures)] == 0)  # pixels that equal the baseline
