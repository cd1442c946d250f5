"""Losses of policies over any actions, and of the values beside them, against loops written from the papers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxrl import losses
from tests import calls
from tests.losses import oracles

NAMES = ["policy_gradient", "entropy", "ppo_clip", "ppo_value_loss"]
functions = {name: jax.jit(getattr(losses, name), static_argnames=["clip_range"] * ("clip" in name)) for name in NAMES}


def jitted_grad(function, argnums=0):
    return jax.jit(jax.grad(function, argnums))


few_examples = settings(deadline=None, max_examples=30)
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
CASES = [(name, kwargs) for name in NAMES for kwargs in ({}, *calls.CALLS[name].variants)]


@pytest.mark.parametrize(("name", "kwargs"), CASES)
@few_examples
@given(st.sampled_from(calls.SHAPES), st.integers(0, 2**32 - 1))
def test_is_the_equation(name, kwargs, shapes, seed):
    calls.check(name, functions, shapes, kwargs, seed)


def summed(name, **kwargs):
    def function(floats):
        result = getattr(losses, name)(**floats, **kwargs)
        return jnp.sum(result * (1 + jnp.arange(result.size, dtype=result.dtype).reshape(result.shape)))

    return jax.jit(function)


@pytest.mark.parametrize("name", ["policy_gradient", "ppo_clip", "ppo_value_loss"])
def test_gradient_flows_into_the_prediction_and_nothing_else(name):
    gradients = jitted_grad(summed(name))(calls.draw(name, (4, 5)))
    assert np.abs(gradients.pop(*calls.CALLS[name].learns)).max() > 0
    for gradient in gradients.values():
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_gradients_agree_with_finite_differences(name, kwargs):
    with jax.enable_x64(True):
        args = calls.draw(name, (4, 5), 1, np.float64)
        learns = (calls.CALLS[name].learns or ("logits",))[0]
        function = summed(name, **kwargs)
        check_grads(lambda x: function({**args, learns: x}), (args[learns],), order=1, modes=["rev"])


# --- The policy gradient -----------------------------------------------------------------------------------------


def test_policy_gradient_is_exact():
    log_prob, advantage = (np.float32(np.random.default_rng(0).integers(-12, 12, (3, 4)) / 4) for _ in range(2))
    np.testing.assert_array_equal(functions["policy_gradient"](log_prob, advantage), -log_prob * advantage)


def test_policy_gradient_is_williams_estimator():
    """For a softmax, ∂ log π(a) / ∂ logit_b is [a = b] − π(b) (Williams 1992, section 4); the loss descends."""
    rng = np.random.default_rng(0)
    logits, advantage = rng.normal(size=(6, 4)), rng.normal(size=6)
    action = rng.integers(4, size=6)
    expected = np.zeros((6, 4))
    for i in range(6):
        probability = np.exp(logits[i]) / np.exp(logits[i]).sum()
        for b in range(4):
            expected[i, b] = -advantage[i] * ((action[i] == b) - probability[b])

    def loss(logits):
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None].astype(np.int32), 1)[:, 0]
        return jnp.sum(losses.policy_gradient(log_prob, advantage.astype(np.float32)))

    np.testing.assert_allclose(jax.grad(loss)(logits.astype(np.float32)), expected, atol=1e-6)


def test_no_gradient_flows_into_the_advantage():
    def loss(x):
        return losses.policy_gradient(3 * x, 5 * x)

    assert jax.grad(loss)(jnp.float32(2.0)) == -3 * 5 * 2


# --- Entropy -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_actions", [1, 3, 33])
def test_entropy_is_largest_for_the_uniform_distribution(num_actions):
    uniform = functions["entropy"](jnp.full((2, num_actions), 3.0, jnp.float32))
    close(uniform, np.full(2, np.log(num_actions)))
    logits = np.random.default_rng(0).normal(size=(20, num_actions)).astype(np.float32)
    assert (functions["entropy"](logits) <= float(np.log(num_actions)) + 1e-6).all()


def test_entropy_knows_no_level_of_the_logits():
    logits = calls.draw("entropy", (6,))["logits"]
    close(functions["entropy"](logits + 100), functions["entropy"](logits), rtol=1e-4)


def test_masked_actions_add_nothing_to_the_entropy_and_have_no_gradient():
    logits = calls.draw("entropy", (6,))["logits"]
    masked = np.concatenate([np.full((6, 2), -np.inf, np.float32), logits, np.full((6, 1), -np.inf, np.float32)], axis=1)
    close(functions["entropy"](masked), functions["entropy"](logits))
    gradient = jitted_grad(lambda x: functions["entropy"](x).sum())(masked)
    np.testing.assert_array_equal(gradient[:, [0, 1, -1]], 0)
    close(gradient[:, 2:-1], jitted_grad(lambda x: functions["entropy"](x).sum())(logits))


def test_gradient_of_the_entropy():
    """∂H/∂logit_b = −π(b) (ln π(b) + H)."""
    logits = calls.draw("entropy", ())["logits"]
    p = np.array(oracles.softmax(logits.astype(np.float64)))
    close(jitted_grad(losses.entropy)(logits), -p * (np.log(p) + oracles.entropy(logits=logits)))


# --- PPO ---------------------------------------------------------------------------------------------------------

ppo_gradient = jax.jit(jax.grad(lambda *args: functions["ppo_clip"](*args).sum()))


def test_at_ratio_one_ppo_is_the_policy_gradient():
    args = calls.draw("policy_gradient", (4, 5))
    log_prob, advantage = args["log_prob_t"], args["advantage_t"]
    expected = jitted_grad(lambda x: functions["policy_gradient"](x, advantage).sum())(log_prob)
    np.testing.assert_allclose(ppo_gradient(log_prob, log_prob, advantage), expected, rtol=1e-6)
    close(functions["ppo_clip"](log_prob, log_prob, advantage), -advantage)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [  # figure 1 of the paper; the gradient is in log π, so that of ρ A is ρ A
        (1.1, 2.0, -2.2, -2.2),
        (1.5, 2.0, -2.4, 0.0),
        (0.5, 2.0, -1.0, -1.0),
        (1.1, -2.0, 2.2, 2.2),
        (1.5, -2.0, 3.0, 3.0),
        (0.5, -2.0, 1.6, 0.0),
    ],
)
def test_ppo_clips_only_what_would_improve_it(ratio, advantage, loss, gradient):
    args = jnp.log(jnp.float32(ratio)) - 1.5, jnp.float32(-1.5), jnp.float32(advantage)
    close(functions["ppo_clip"](*args), loss)
    close(ppo_gradient(*args), gradient)


def test_without_a_clip_in_reach_ppo_is_importance_sampling():
    args = calls.draw("ppo_clip", (20,))
    ratio = np.exp(args["log_prob_t"] - args["old_log_prob_t"])
    close(functions["ppo_clip"](**args, clip_range=1e3), -ratio * args["advantage_t"])


# --- Clipped values ----------------------------------------------------------------------------------------------


def test_near_the_old_value_it_is_half_the_square():
    args = calls.draw("ppo_value_loss", (20,))
    args["v_tm1"] = args["old_v_tm1"] + 0.1 * args["v_tm1"].clip(-1.5, 1.5)
    close(functions["ppo_value_loss"](**args), 0.5 * (args["v_tm1"] - args["target_tm1"]) ** 2)


@pytest.mark.parametrize(
    ("v", "old", "target", "loss", "gradient"),
    [
        (1.0, 0.0, 3.0, 0.5 * 2.8**2, 0.0),  # moved too far towards the target: no reward for it
        (-1.0, 0.0, 3.0, 0.5 * 4.0**2, -4.0),  # moved away from it: comes back
        (4.0, 0.0, 1.0, 0.5 * 3.0**2, 3.0),  # far beyond it: comes back
    ],
)
def test_ppo_value_loss_takes_the_greater_loss(v, old, target, loss, gradient):
    args = jnp.float32(v), jnp.float32(old), jnp.float32(target)
    close(functions["ppo_value_loss"](*args), loss)
    close(jitted_grad(losses.ppo_value_loss)(*args), gradient)


# --- rlax --------------------------------------------------------------------------------------------------------


@pytest.mark.needs("rlax")
def test_ppo_agrees_with_rlax(rlax):
    args = calls.draw("ppo_clip", (20,))
    ratio = np.exp(args["log_prob_t"] - args["old_log_prob_t"])
    close(functions["ppo_clip"](**args, clip_range=0.3).mean(), rlax.clipped_surrogate_pg_loss(ratio, args["advantage_t"], 0.3))


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.needs("rlax")
def test_entropy_agrees_with_rlax(rlax):
    logits = calls.draw("entropy", (20,))["logits"]
    close(-functions["entropy"](logits).mean(), rlax.entropy_loss(logits, np.ones(20, np.float32)))


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.needs("rlax")
def test_policy_gradient_agrees_with_rlax(rlax):
    rng = np.random.default_rng(0)
    logits, advantage = rng.normal(size=(5, 3)).astype(np.float32), rng.normal(size=5).astype(np.float32)
    action = rng.integers(3, size=5).astype(np.int32)

    def loss(logits):
        log_prob = losses.select(jax.nn.log_softmax(logits), action)
        return jnp.mean(losses.policy_gradient(log_prob, advantage))

    def rlax_loss(logits):
        return rlax.policy_gradient_loss(logits, action, advantage, np.ones(5, np.float32))

    np.testing.assert_allclose(jax.grad(loss)(logits), jax.grad(rlax_loss)(logits), atol=1e-6)
