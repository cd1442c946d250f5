"""Illegal actions, whose values and logits are −inf: every function is what it is over the legal actions alone."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import losses
from tests import calls

LEGAL = calls.SIZES["A"]
NAMES = [name for name, call in calls.CALLS.items() if any("A" in own for _, own in call.arguments.values())]
# Whose derivatives must not be NaN either.
HYPERPARAMETERS = {
    "persistent_q_learning": {"action_gap_scale": 0.3},
    "munchausen_q_learning": {"temperature": 0.5, "munchausen_scale": 0.9},
    "q_lambda": {"lambda_": 0.7},
}


def spread(x, where, num_actions, fill):
    """`x` `[..., A, ...]` with its actions at the indices `where` `[..., A]` of `num_actions`, and `fill` elsewhere."""
    own = x.shape[where.ndim :]
    result = np.full((*where.shape[:-1], num_actions, *own), fill, x.dtype)
    np.put_along_axis(result, where.reshape(*where.shape, *(1 for _ in own)), x, axis=where.ndim - 1)
    return result


def with_illegal(name, args, num_actions):
    """The arguments with illegal actions between the legal ones, others in the successor; and where the legal ones are."""
    rng, shape = np.random.default_rng(0), (*calls.leading(name), LEGAL)
    before, after = (
        np.sort(rng.permuted(np.broadcast_to(np.arange(num_actions), (*shape[:-1], num_actions)), axis=-1)[..., :LEGAL])
        for _ in range(2)
    )
    if name == "persistent_q_learning":  # one action acts in both states
        after = before
    result, positions = {}, {}
    for argument, (kind, own) in calls.CALLS[name].arguments.items():
        where = after if argument in ("q_t", "a_t") or "_t_" in argument or argument.endswith("s_t") else before
        if kind == "action":
            result[argument] = np.take_along_axis(where, args[argument][..., None], -1)[..., 0].astype(np.int32)
        elif "A" in own:
            result[argument], positions[argument] = (
                spread(args[argument], where, num_actions, 0 if kind == "probability" else -np.inf),
                where,
            )
        else:
            result[argument] = args[argument]
    return result, positions


def values_and_gradients(name, args):
    """The results; and the gradients of their weighted sum, also into the target, in every float and hyperparameter."""
    call, hyper = calls.CALLS[name], HYPERPARAMETERS.get(name, {})
    floats = {**{k: args[k] for k in call.floats}, **jax.tree.map(jnp.float32, hyper)}
    fixed = {k: v for k, v in args.items() if k not in call.floats}
    through = "stop_target_gradient" in inspect.signature(calls.function(name)).parameters

    def total(floats):
        result = calls.called(name, **({"stop_target_gradient": False} if through else {}))(**floats, **fixed)
        weights = 1 + jnp.arange(np.prod(calls.leading(name)), dtype=jnp.float32).reshape(calls.leading(name))
        if result.ndim > weights.ndim:  # the action values themselves, illegal ones among them
            result = jnp.sum(jnp.sin(jnp.where(result == -jnp.inf, 0, result)), axis=-1)
        return jnp.sum(result * weights)

    @jax.jit
    def run(floats):
        return calls.called(name)(**floats, **fixed), {} if name == "greedy" else jax.grad(total)(floats)

    return run(floats)


@pytest.mark.parametrize("num_actions", [5, 40])
@pytest.mark.parametrize("name", NAMES)
def test_illegal_actions_are_as_if_they_were_not_there(name, num_actions):
    args = calls.draw(name, calls.leading(name), 4)
    masked_args, positions = with_illegal(name, args, num_actions)
    assert any(np.isneginf(x).any() for x in masked_args.values())
    expected, expected_gradients = values_and_gradients(name, args)
    result, gradients = values_and_gradients(name, masked_args)
    if name == "greedy":
        expected = np.take_along_axis(positions["values"], np.asarray(expected)[..., None], -1)[..., 0]
    elif name in ("dueling", "categorical_mean"):
        (where,) = positions.values()
        expected = spread(np.asarray(expected), where, num_actions, -np.inf)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
    for argument, gradient in gradients.items():
        wanted = np.asarray(expected_gradients[argument])
        if argument in positions:  # and 0 for what is illegal
            wanted = spread(wanted, positions[argument], num_actions, 0)
        np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-5, err_msg=argument)


@pytest.mark.parametrize("num_actions", [3, 33])
def test_a_policy_over_no_legal_action_of_a_terminal_successor_has_no_gradient(num_actions):
    """Where all logits are −inf, their softmax is NaN."""
    args = calls.draw("expected_sarsa", (5,), A=num_actions) | {"discount_t": np.float32([0, 0.9, 0, 0.9, 0])}
    end, logits = args["discount_t"] == 0, np.log(args.pop("probs_t"))

    def gradients(logits):
        policy = lambda q_t, logits: jax.nn.softmax(jnp.where(end[:, None], logits, q_t))
        error = lambda q_t: losses.expected_sarsa(**args | {"q_t": q_t}, probs_t=policy(q_t, logits), stop_target_gradient=False)
        return jax.value_and_grad(lambda q_t: jnp.sum(error(q_t)))(args["q_t"])

    jax.tree.map(np.testing.assert_array_equal, gradients(np.full_like(logits, -np.inf)), gradients(logits))


@pytest.mark.parametrize("num_actions", [3, 33])
@pytest.mark.parametrize("scale", [0.0, 0.4, 1.0])
def test_persistent_q_learning_is_q_learning_where_the_action_cannot_be_repeated(num_actions, scale):
    args = calls.draw("q_learning", (5,), A=num_actions)
    args["q_t"][np.arange(5), args["a_tm1"]] = -np.inf
    np.testing.assert_allclose(losses.persistent_q_learning(**args, action_gap_scale=scale), losses.q_learning(**args), rtol=1e-6)


def test_an_illegal_action_is_not_greedy_in_a_mean_of_atoms_below_zero():
    """Its own mean would be a NaN, with which no action compares."""
    logits = jnp.array([[-jnp.inf] * 3, [0.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    atoms = jnp.array([-3.0, -2.0, -1.0])
    args = jnp.zeros((3, 3)), jnp.array(0), jnp.array(0.0), jnp.array(1.0)
    for loss in (
        losses.categorical_q_learning(*args, logits, atoms),
        losses.categorical_double_q_learning(*args, logits, logits, atoms),
    ):
        np.testing.assert_allclose(loss, np.log(3), rtol=1e-6)
