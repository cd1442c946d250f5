"""Losses of actors and critics against loops written from the papers."""

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

NAMES = ["deterministic_policy_gradient", "soft_td_error", "sac_actor", "soft_value", "sac_temperature"]
HYPERPARAMETERS = {"deterministic_policy_gradient": ["max_norm"]}
functions = {
    name: jax.jit(getattr(losses, name), static_argnames=HYPERPARAMETERS.get(name, [])) for name in [*NAMES, "td_learning"]
}


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


def draw(name, *args):
    """With the temperature among the arguments that could have a gradient."""
    kwargs = dict(calls.CALLS[name].kwargs)
    args = calls.draw(name, *args)
    if "temperature" in kwargs:
        args["temperature"] = np.asarray(kwargs.pop("temperature"), args["q_t"].dtype)
    return args, kwargs


@pytest.mark.parametrize("name", NAMES)
def test_gradient_flows_where_it_should_and_nowhere_else(name):
    args, kwargs = draw(name, (4, 5))
    learns = calls.CALLS[name].learns or ("log_prob_t", "q_t")
    for argument, gradient in jitted_grad(summed(name, **kwargs))(args).items():
        if argument in learns:
            assert np.abs(gradient).max() > 0, argument
        else:
            np.testing.assert_array_equal(gradient, np.zeros_like(gradient), argument)


@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_gradients_agree_with_finite_differences(name, kwargs):
    with jax.enable_x64(True):
        args, others = draw(name, (4, 5), 1, np.float64)
        learns = calls.CALLS[name].learns or ("log_prob_t", "q_t")
        function = summed(name, **others, **kwargs)
        fixed = {k: v for k, v in args.items() if k not in learns}
        check_grads(lambda x: function({**fixed, **x}), ({k: args[k] for k in learns},), order=1, modes=["rev"])


# --- Deterministic policies --------------------------------------------------------------------------------------


def test_gradient_in_the_action_is_minus_that_of_the_critic():
    args = calls.draw("deterministic_policy_gradient", (4, 5))
    gradient = jitted_grad(lambda a: functions["deterministic_policy_gradient"](a, args["dqda_t"]).sum())(args["a_t"])
    np.testing.assert_array_equal(gradient, -args["dqda_t"])


@pytest.mark.parametrize("max_norm", [0.1, 1.0, 100.0])
def test_the_norm_of_the_gradient_is_bounded_and_its_direction_kept(max_norm):
    args = calls.draw("deterministic_policy_gradient", (20,))
    dqda = args["dqda_t"]
    gradient = -jitted_grad(lambda a: functions["deterministic_policy_gradient"](a, dqda, max_norm=max_norm).sum())(args["a_t"])
    norms = np.linalg.norm(dqda, axis=-1)
    close(np.linalg.norm(gradient, axis=-1), np.minimum(norms, max_norm))
    close((gradient * dqda).sum(-1), np.minimum(norms, max_norm) * norms, rtol=1e-4)


def test_the_chain_rule_ends_in_the_deterministic_policy_gradient():
    """∇_θ Q(s, μ_θ(s)) for μ_θ(s) = θ s and Q = −|a − 1|² is found without differentiating Q in θ (Silver et al. 2014)."""
    rng = np.random.default_rng(0)
    theta, states = rng.normal(size=(2, 3)).astype(np.float32), rng.normal(size=(5, 3)).astype(np.float32)

    def q(action):
        return -jnp.sum(jnp.square(action - 1), axis=-1)

    def loss(theta):
        actions = states @ theta.T
        dqda = jitted_grad(lambda a: q(a).sum())(actions)
        return functions["deterministic_policy_gradient"](actions, dqda).sum()

    close(jitted_grad(loss)(theta), -jitted_grad(lambda theta: q(states @ theta.T).sum())(theta), rtol=1e-4)


# --- SAC ---------------------------------------------------------------------------------------------------------


def test_at_temperature_zero_the_critic_takes_the_least_target():
    """As TD3 does: r + γ min_k q_k (Fujimoto et al. 2018, eq. 10)."""
    args = calls.draw("soft_td_error", (4, 5), C=3)
    expected = [
        functions["td_learning"](args["q_tm1"][..., k], args["r_t"], args["discount_t"], args["q_t"].min(-1)) for k in range(3)
    ]
    close(functions["soft_td_error"](**args, temperature=0.0), np.stack(expected, -1))


def test_entropy_is_worth_its_temperature():
    """The bonus is −α log π of the successor's action, discounted as the value is."""
    args = calls.draw("soft_td_error", (4, 5))
    bonus = functions["soft_td_error"](**args, temperature=0.5) - functions["soft_td_error"](**args, temperature=0.0)
    expected = -0.5 * args["discount_t"] * args["log_prob_t"]
    close(bonus, np.stack([expected] * 2, -1))


def test_the_actor_learns_from_the_lesser_critic():
    log_prob, q_t = jnp.float32([-1.0, 2.0]), jnp.float32([[1.0, 3.0], [5.0, -2.0]])
    gradients = jitted_grad(lambda *args: functions["sac_actor"](*args, 0.25).sum(), argnums=(0, 1))(log_prob, q_t)
    close(gradients[0], [0.25, 0.25])
    close(gradients[1], [[-1.0, 0.0], [0.0, -1.0]])


@pytest.mark.parametrize("temperature", [0.1, 2.0])
def test_the_soft_value_is_largest_for_the_boltzmann_policy(temperature):
    """Its maximum is α log Σ exp(q / α) (Haarnoja et al. 2017, eq. 4), where its gradient is 0."""
    q_t = calls.draw("soft_value", (20,))["q_t"]
    value = lambda logits: functions["soft_value"](logits, q_t, temperature)
    best = q_t.min(-1) / temperature
    close(value(best), temperature * np.log(np.exp(best).sum(-1)))
    np.testing.assert_allclose(jitted_grad(lambda logits: value(logits).sum())(best), np.zeros_like(best), atol=1e-5)
    assert (np.asarray(value(best + calls.draw("soft_value", (20,), 1)["logits_t"])) < np.asarray(value(best))).all()


@pytest.mark.parametrize(("entropy", "sign"), [(-3.0, -1.0), (-1.0, 1.0)])
def test_the_temperature_rises_where_the_entropy_is_too_low(entropy, sign):
    """Descent raises log α exactly where −log π is below the target."""
    gradient = jitted_grad(losses.sac_temperature, argnums=1)(jnp.float32(-entropy), jnp.float32(0.3), -2.0)
    close(gradient, sign * np.exp(0.3))


# --- rlax --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_norm", [None, 1.0])
@pytest.mark.needs("rlax")
def test_gradient_agrees_with_rlax(rlax, max_norm):
    args = calls.draw("deterministic_policy_gradient", (20,))

    def ours(a):
        return functions["deterministic_policy_gradient"](a, args["dqda_t"], max_norm=max_norm).sum()

    def theirs(a):  # ½ |stop(a + dq/da) − a|², of which only the gradient is the same
        return jax.vmap(lambda a, g: rlax.dpg_loss(a, g, max_norm))(a, args["dqda_t"]).sum()

    close(jitted_grad(ours)(args["a_t"]), jitted_grad(theirs)(args["a_t"]))
