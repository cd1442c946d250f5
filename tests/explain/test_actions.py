"""Statistics of actions against loops in NumPy, and disagreements that are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import explain
from jaxrl.types import Box, Dict, Discrete, MultiDiscrete

RNG = np.random.default_rng(0)
VALID = np.arange(6)[:, None] < np.array([6, 3, 1])[None]  # [T, B]


def pairs(actions):
    """(before, after) of successive valid steps."""
    return [(actions[t - 1, b], actions[t, b]) for t in range(1, 6) for b in range(3) if VALID[t, b]]


def test_discrete_actions():
    actions = RNG.integers(0, 3, (6, 3))
    found = explain.action_statistics(Discrete(4), jnp.asarray(actions), jnp.asarray(VALID))
    counted = [np.mean(actions[VALID] == a) for a in range(4)]
    np.testing.assert_allclose(found.frequency, counted, rtol=1e-6)
    np.testing.assert_allclose(found.entropy, -sum(f * np.log(f) for f in counted if f), rtol=1e-5)
    np.testing.assert_allclose(found.repeat, np.mean([x == y for x, y in pairs(actions)]), rtol=1e-6)


def test_multi_discrete_actions():
    actions = RNG.integers(0, 2, (6, 3, 2))
    found = explain.action_statistics(MultiDiscrete((2, 3)), jnp.asarray(actions), jnp.asarray(VALID))
    assert found.frequency.shape == (2, 3)
    for i in range(2):
        one = explain.action_statistics(Discrete(3), jnp.asarray(actions[..., i]), jnp.asarray(VALID))
        for x, y in zip(one, found, strict=True):
            np.testing.assert_allclose(y[i], x, rtol=1e-6)


def test_continuous_actions():
    space = Box(np.array([-1, 0]), np.array([1, np.inf]), (2,))
    actions = np.clip(RNG.normal(0, 2, (6, 3, 2)), space.low, space.high).astype(np.float32)
    found = explain.action_statistics(space, jnp.asarray(actions), jnp.asarray(VALID))
    np.testing.assert_allclose(found.mean, actions[VALID].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.std, actions[VALID].std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.at_low, (actions[VALID] == space.low).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.at_high, (actions[VALID] == space.high).mean(axis=0), rtol=1e-6)
    assert found.at_low.min() > 0
    assert found.at_high[1] == 0
    np.testing.assert_allclose(found.change, np.mean([np.abs(x - y) for x, y in pairs(actions)], axis=0), rtol=1e-5)


def test_one_step_has_no_repeats():
    found = explain.action_statistics(Discrete(2), jnp.zeros((1, 1), jnp.int32))
    assert np.isnan(found.repeat)
    assert found.entropy == 0


def test_where_two_policies_disagree():
    """Probabilities (1 − x, x) and (½, ½): the total variation is |x − ½|. Actions 0 and 3 x: half the difference."""
    observations = jnp.array([0.5, 0.9, 0.2, 0.45])
    first = lambda obs: jnp.stack([1 - obs, obs])
    found = explain.most_disagreeing(first, lambda obs: jnp.full(2, 0.5), observations, 3)
    np.testing.assert_array_equal(found.indices, [1, 2, 3])
    np.testing.assert_allclose(found.distance, [0.4, 0.3, 0.05], atol=1e-6)
    np.testing.assert_allclose(found.mean, 0.75 / 4, rtol=1e-5)
    found = explain.most_disagreeing(lambda obs: jnp.zeros(1), lambda obs: 3 * obs[None], observations, 1)
    assert (int(found.indices[0]), round(float(found.distance[0]), 5)) == (1, 1.35)


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"actions must be \['T', 'B', 2\]"):
        explain.action_statistics(Box(-1, 1, (2,)), jnp.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"valid must be \[3, 2\], as the actions, got \[2, 3\]"):
        explain.action_statistics(Discrete(2), jnp.zeros((3, 2), jnp.int32), jnp.ones((2, 3), bool))
    with pytest.raises(ValueError, match="action_statistics needs a Discrete, MultiDiscrete or Box action space"):
        explain.action_statistics(Dict({}), jnp.zeros((3, 2)))
    with pytest.raises(ValueError, match="num must be at most 2"):
        explain.most_disagreeing(jnp.sin, jnp.cos, jnp.zeros(2), 3)
    with pytest.raises(ValueError, match=r"must return the same shape, got \[2\] and \[3\]"):
        explain.most_disagreeing(lambda obs: jnp.zeros(2), lambda obs: jnp.zeros(3), jnp.zeros(2), 1)
