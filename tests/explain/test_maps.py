"""Maps against direct evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import explain


def function(obs):
    return {"value": jnp.sin(obs["a"][0]) * obs["b"] + obs["a"][1], "all": jnp.append(obs["a"], obs["b"])}


OBSERVATIONS = {
    "a": np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32),
    "b": np.linspace(-1, 1, 40, dtype=np.float32),
}


def test_a_map_of_one_observation_is_the_slice_through_it():
    one = jax.tree.map(lambda x: jnp.asarray(x[:1]), OBSERVATIONS)
    drawn = explain.grid_map(function, one, (2, 0), size=5, ranges=((-1.0, 3.0), (0.0, 2.0)))
    np.testing.assert_allclose(drawn.x, np.linspace(-1, 3, 5))
    np.testing.assert_allclose(drawn.y, np.linspace(0, 2, 5))
    for j, y in enumerate(drawn.y):
        for i, x in enumerate(drawn.x):
            there = {"a": jnp.array([y, OBSERVATIONS["a"][0, 1]]), "b": x}
            for name, value in function(there).items():
                np.testing.assert_allclose(drawn.values[name][j, i], value, rtol=1e-6)


def test_a_map_is_the_mean_over_the_nearest_observations():
    drawn = explain.grid_map(function, jax.tree.map(jnp.asarray, OBSERVATIONS), (0, 1), size=4, num_neighbors=3)
    points = OBSERVATIONS["a"]
    low, high = np.percentile(points, [1, 99], axis=0)
    np.testing.assert_allclose([drawn.x[0], drawn.x[-1], drawn.y[0], drawn.y[-1]], [low[0], high[0], low[1], high[1]], rtol=1e-5)
    for j, y in enumerate(np.asarray(drawn.y)):
        for i, x in enumerate(np.asarray(drawn.x)):
            distance = np.sqrt((((points - [x, y]) / (high - low)) ** 2).sum(axis=1))
            near = np.argsort(distance)[:3]
            values = [function({"a": jnp.array([x, y]), "b": OBSERVATIONS["b"][k]})["value"] for k in near]
            np.testing.assert_allclose(drawn.values["value"][j, i], np.mean(values), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(drawn.distance[j, i], distance.min(), rtol=1e-4)


def test_a_component_that_never_changes_has_a_range():
    drawn = explain.grid_map(lambda obs: obs[0], jnp.zeros((3, 2)).at[:, 0].set(jnp.arange(3.0)), (0, 1), size=3)
    np.testing.assert_allclose(drawn.y, [-1, 0, 1])
    assert np.all(np.isfinite(drawn.distance))


@pytest.mark.parametrize(
    ("dims", "options", "message"),
    [
        ((0, 0), {}, r"dims must be two different components, 0 to 2; got \(0, 0\)"),
        ((0, 3), {}, "dims must be two different components"),
        ((0, -1), {}, "dims must be at least 0"),
        ((0, 1), {"num_neighbors": 41}, "num_neighbors must be at most the number of observations, 40; got 41"),
        ((0, 1), {"size": 1}, "size must be at least 2"),
    ],
)
def test_wrong_arguments(dims, options, message):
    with pytest.raises(ValueError, match=message):
        explain.grid_map(function, OBSERVATIONS, dims, **options)
