"""Wrong arguments of the parts that are used on their own: the error names the argument, and does not come from deep inside."""

import jax
import jax.numpy as jnp
import pytest

import jaxrl
from jaxrl import dynamic_programming, exploration, losses, minibatches, replay, returns
from jaxrl.replay import prioritized
from jaxrl.types import Box, Dict

ONES, Q, KEY = jnp.ones(3), jnp.ones((3, 2)), jax.random.key(0)
BITS = jnp.zeros(3, jnp.uint32)


def uniform_buffer():
    return replay.init(jnp.zeros(2), 8)


def prioritized_buffer():
    return prioritized.init(jnp.zeros(2), 8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: returns.lambda_returns([1.0, 2.0], ONES[:2], ONES[:2]),
            TypeError,
            r"lambda_returns: r_t must be an array, got \[1\.0, 2\.0\]; jnp",
        ),
        (lambda: returns.lambda_returns(ONES, ONES, ONES, truncated=[False] * 3), TypeError, "truncated must be an array, got"),
        (lambda: returns.lambda_returns(ONES, ONES, None), TypeError, "lambda_returns: v_t must be an array, got None"),
        (
            lambda: losses.q_learning(Q, [0, 0, 0], ONES, ONES, Q),
            TypeError,
            r"q_learning: a_tm1 must be an array, got \[0, 0, 0\]",
        ),
        (lambda: losses.entropy([1.0, 2.0]), TypeError, r"entropy: logits must be an array, got \[1\.0, 2\.0\]; jnp"),
        (
            lambda: losses.sac_temperature([1.0], 0.0, 1.0),
            TypeError,
            r"an array or a number, got \[1\.0\]; jnp\.asarray makes an",
        ),
        (lambda: losses.td_learning(ONES, ONES, ONES, None), TypeError, "td_learning: v_t must be an array, got None"),
        (
            lambda: exploration.epsilon_greedy(Q, (ONES, ONES), 0.1),
            TypeError,
            "noise must be two arrays of uint32, from epsilon_gr",
        ),
        (lambda: exploration.epsilon_greedy(Q, KEY, 0.1), TypeError, "noise must be two arrays of uint32"),
        (lambda: exploration.epsilon_greedy(Q, (BITS,), 0.1), TypeError, "noise must be two arrays of uint32"),
        (
            lambda: replay.sample(prioritized_buffer(), BITS, 4),
            TypeError,
            r"sample needs a Replay.*; got Prioritized\. The functions",
        ),
        (lambda: replay.take(prioritized_buffer(), BITS), TypeError, "take needs a Replay"),
        (lambda: replay.add(prioritized_buffer(), jnp.zeros((4, 2)), 0), TypeError, "add needs a Replay"),
        (lambda: replay.num_stored(3, 8, 2), ValueError, "capacity 2 must be a multiple of the 8 rows"),
        (lambda: replay.step_at(jnp.zeros((3, 2)), ONES), TypeError, "step_at: index must hold integers, got float32"),
        (lambda: scan(KEY, ONES), ValueError, r"keys must be \[num_epochs\], .*; got a single key"),
        (
            lambda: scan(jax.random.split(KEY, 2), (ONES, BITS[:2])),
            ValueError,
            r"one number of rows .* the shapes \[\(3,\), \(2,\)\]",
        ),
        (lambda: scan(jax.random.split(KEY, 2), jnp.float32(0)), ValueError, "one number of rows in front"),
        (lambda: Dict([("a", Box(0, 1, (2,)))]), TypeError, "Dict: spaces must be a dict with a space for each name"),
        (lambda: jaxrl.make(3), TypeError, "make needs the name of an environment, such as 'CartPole-v1'; got 3"),
        (
            lambda: dynamic_programming.value_iteration(jaxrl.make("Chain"), 0.9),
            TypeError,
            "mdp must be a TabularMDP, such as env.params.mdp of a tabular environment; got Environment",
        ),
    ],
)
def test_a_wrong_argument_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def scan(keys, batch):
    return minibatches.scan_minibatches(lambda carry, x: (carry, ()), 0, batch, keys, 1)


def test_priorities_may_be_lists():
    buffer = prioritized.add(prioritized_buffer(), jnp.ones((4, 2)), 0)
    for given in ([0, 1], jnp.array([0, 1])):
        updated = prioritized.update(buffer, given, [3.0, 1.0], alpha=1.0, eps=0.0)
        assert updated.sums[0][:3].tolist() == [3.0, 1.0, 1.0]


def test_noise_may_be_one_array():
    noise = exploration.epsilon_greedy_noise(KEY, (3,))
    expected = exploration.epsilon_greedy(Q, noise, 0.5)
    assert exploration.epsilon_greedy(Q, jnp.stack(noise), 0.5).tolist() == expected.tolist()
