"""PPO's loss against a plain loop, and where an update stops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxrl
from jaxrl.agents._actor_critic import Batch
from jaxrl.agents._ppo import proximal_loss
from jaxrl.policies import policy_head
from jaxrl.types import Box, Discrete
from tests.agents.test_a2c import ACTIONS, NUM_ENVS, NUM_STEPS, SIZE, rollout_of


@pytest.mark.parametrize("value_clip_range", [0.3, np.inf])
def test_the_loss_is_that_of_a_plain_loop(value_clip_range):
    """With ratios and values on both sides of their clips, in float64."""
    rng = np.random.default_rng(0)
    num, clip_range = 64, 0.2
    hparams = jaxrl.agents.PPOHParams(value_clip_range=value_clip_range, value_coef=0.7, entropy_coef=0.3)
    logits, action = rng.normal(size=(num, ACTIONS)), rng.integers(ACTIONS, size=num)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    value, old_value, target, advantage = rng.normal(size=(4, num))
    old_log_prob = log_probs[np.arange(num), action] + 0.3 * rng.normal(size=num)
    expected = {"loss": 0.0, "policy_loss": 0.0, "value_loss": 0.0, "entropy": 0.0, "approx_kl": 0.0, "clip_fraction": 0.0}
    for i in range(num):
        ratio = np.exp(log_probs[i, action[i]] - old_log_prob[i])
        policy_loss = -min(ratio * advantage[i], np.clip(ratio, 1 - clip_range, 1 + clip_range) * advantage[i])
        clipped = old_value[i] + np.clip(value[i] - old_value[i], -value_clip_range, value_clip_range)
        value_loss = 0.5 * max((value[i] - target[i]) ** 2, (clipped - target[i]) ** 2)
        entropy = -np.exp(log_probs[i]) @ log_probs[i]
        terms = policy_loss + 0.7 * value_loss - 0.3 * entropy, policy_loss, value_loss, entropy, ratio - 1 - np.log(ratio)
        for name, term in zip(expected, (*terms, abs(ratio - 1) > clip_range), strict=True):
            expected[name] += term / num
    assert 0.2 < expected["clip_fraction"] < 0.8
    f32 = lambda *arrays: [jnp.asarray(x, jnp.float32) for x in arrays]
    batch = Batch(None, jnp.asarray(action, jnp.int32), *f32(old_log_prob, old_value, target, advantage))
    loss, metrics = jax.jit(lambda *x: proximal_loss(policy_head(Discrete(ACTIONS)), x, batch, hparams, jnp.float32(clip_range)))(
        *f32(logits, value)
    )
    np.testing.assert_array_equal(loss, metrics["loss"])
    assert metrics.keys() == expected.keys()
    for name, wanted in expected.items():
        np.testing.assert_allclose(metrics[name], wanted, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("new", [(0.2, -0.5), (0.0, -0.7)])
def test_a_squashed_entropy_is_that_of_the_policy_after_it_has_changed(new):
    """Of a bonus alone, the value and its gradient, against integrals."""
    num, head = 100_000, policy_head(Box(-1, 1, (1,)), squash=True)
    old = jnp.zeros((num, 1)), jnp.full((num, 1), -0.5)
    raw_action = head.sample(old, head.noise(jax.random.key(0), (num,)))
    zeros = jnp.zeros(num)
    batch = Batch(None, raw_action, zeros, zeros, zeros, zeros, head.noise_of(old, raw_action))
    hparams = jaxrl.agents.PPOHParams(value_coef=0.0, entropy_coef=-1.0)

    def estimate(new):
        policy = jax.tree.map(lambda x: jnp.broadcast_to(x, (num, 1)), new)
        return proximal_loss(head, (policy, zeros), batch, hparams, jnp.float32(0.2))[0]

    def exact(mean, log_std):
        u = np.linspace(-8, 8, 20_001)
        density = scipy.stats.norm.pdf(u, mean, np.exp(log_std))
        return np.trapezoid(density * (np.log1p(-(np.tanh(u) ** 2)) - np.log(density)), u)

    found, gradient = jax.jit(jax.value_and_grad(estimate))(tuple(map(jnp.float32, new)))
    np.testing.assert_allclose(found, exact(*new), atol=0.01)
    steps = 1e-3 * np.eye(2)
    np.testing.assert_allclose(gradient, [(exact(*(new + d)) - exact(*(new - d))) / 2e-3 for d in steps], atol=0.02)


def updated(num_epochs, target_kl, num_iterations=1):
    """State and metrics after iterations on the same rollout, each epoch one gradient step."""
    space, zeros = Discrete(ACTIONS), jnp.zeros((NUM_ENVS, SIZE))
    network = jaxrl.networks.policy(Box(-9, 9, (SIZE,)), space, hidden=(8,), value=True)
    rollout = rollout_of(np.random.default_rng(1).integers(ACTIONS, size=(NUM_STEPS, NUM_ENVS), dtype=np.int32))
    keys = jax.random.split(jax.random.key(2), 6)[:num_epochs]
    agent = jaxrl.agents.ppo(network, space, num_epochs=num_epochs, num_minibatches=1)
    hparams = jax.tree.map(jnp.float32, agent.hparams._replace(learning_rate=0.05, target_kl=target_kl))
    state, update = agent.init(jax.random.key(1), zeros, hparams), jax.jit(agent.update)
    for iteration in range(num_iterations):
        state, metrics = update(state, rollout, keys, hparams, jnp.int32(iteration))
    return state, metrics


def test_steps_that_an_early_stop_leaves_out_do_not_count():
    """Epochs that always stop after the first step are one epoch, also in the correction of Adam's bias in later iterations."""
    stopped, once = (updated(*setting, num_iterations=5)[0] for setting in ((6, 1e-6), (1, np.inf)))
    jax.tree.map(np.testing.assert_array_equal, stopped, once)
    assert int(stopped.opt_state.count) == 5


def test_after_the_divergence_exceeds_its_target_nothing_changes():
    """To the bit, parameters and the state of the optimizer: an update that stops at its k-th step is one of k steps.

    The k-th step counts from 0 and is the first whose divergence is above the target.
    """
    free, metrics = updated(6, np.inf)
    kl = np.asarray(metrics["approx_kl"]).ravel()
    assert (np.diff(kl) > 0).all()
    for k in (1, 4):
        stopped, metrics = updated(6, float(kl[k] + kl[k - 1]) / 2)
        jax.tree.map(np.testing.assert_array_equal, stopped, updated(k, np.inf)[0])
        assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, stopped.params, free.params)))
        np.testing.assert_allclose(np.ravel(metrics["approx_kl"])[k:], kl[k], rtol=1e-5)  # of the same policy
