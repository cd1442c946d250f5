"""Dropout and batch renormalisation: passes in training and in evaluation, against NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import training_passes
from jaxrl.networks import BatchRenorm, actor_critic, critic, ensemble, trainable
from jaxrl.networks.layers import MLP
from jaxrl.types import Box, Discrete, NetworkParams

OBS, ACTIONS = Box(-1, 1, (3,)), Box(-1, 1, (2,))
close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)


def layer_params(count, seed=0, size=3):
    """Random parameters and statistics of a layer after `count` passes."""
    rng = np.random.default_rng(seed)
    draw = lambda low, high: np.float32(rng.uniform(low, high, size))
    statistics = {"mean": draw(-2, 2), "std": draw(0.2, 2), "count": np.float32(count)}
    return NetworkParams({"params": {"scale": draw(0.5, 2), "bias": draw(-1, 1)}}, {"statistics": statistics})


def renormalize(params, x, training):
    """Ioffe (2017), algorithm 1, as a loop over the features: the outputs and the new mean and std."""
    (scale, bias), stats = (params.weights["params"][k] for k in ("scale", "bias")), params.statistics["statistics"]
    share = lambda end: min(max((float(stats["count"]) - 5_000) / (end - 5_000), 0), 1)
    r_max, d_max = 1 + 2 * share(40_000), 5 * share(25_000)
    y, means, stds = np.zeros(x.shape), [], []
    for f in range(x.shape[-1]):
        one, mu, sigma = np.float64(x[..., f]), float(stats["mean"][f]), float(stats["std"][f])
        if not training:
            y[..., f] = scale[f] * (one - mu) / sigma + bias[f]
            continue
        mu_b, sigma_b = one.mean(), np.sqrt(one.var() + 1e-3)
        r = min(max(sigma_b / sigma, 1 / r_max), r_max)
        d = min(max((mu_b - mu) / sigma, -d_max), d_max)
        y[..., f] = scale[f] * ((one - mu_b) / sigma_b * r + d) + bias[f]
        means.append(mu + 0.01 * (mu_b - mu))
        stds.append(sigma + 0.01 * (sigma_b - sigma))
    return y, means, stds


LAYER = trainable(BatchRenorm())
in_training = jax.jit(lambda params, x: LAYER.apply_training(params, jax.random.key(0), x))


def layer():
    """The passes of `BatchRenorm` in evaluation and in training."""
    evaluation = BatchRenorm().apply
    apply = lambda params, x: evaluation({**params.weights, **params.statistics}, x, training=False)
    return jax.jit(apply), in_training


@pytest.mark.parametrize("count", [0, 5_000, 12_000, 25_000, 40_000])
@pytest.mark.parametrize("shape", [(8, 3), (2, 5, 3)])
def test_batch_renormalisation_is_that_of_the_paper(count, shape):
    x = np.random.default_rng(1).normal(0.5, 3.0, shape).astype(np.float32)
    params, (evaluate, train) = layer_params(count), layer()
    close(evaluate(params, x), renormalize(params, x, False)[0])
    y, changed = train(params, x)
    expected, means, stds = renormalize(params, x, True)
    close(y, expected)
    close(changed["statistics"]["mean"], means)
    close(changed["statistics"]["std"], stds)
    assert changed["statistics"]["count"] == min(count + 1, 40_000)


def test_training_and_evaluation_agree_where_nothing_is_clipped():
    """Which is the point of r and d: the batch is near the running statistics, and the bounds have grown."""
    x = np.random.default_rng(1).normal(size=(64, 3)).astype(np.float32)
    params = layer_params(40_000)
    params.statistics["statistics"] |= {"mean": np.float32([0.3, -0.2, 0]), "std": np.float32([1, 0.8, 1.3])}
    evaluate, train = layer()
    close(train(params, x)[0], evaluate(params, x))


def test_gradients_pass_through_the_batch_but_not_through_the_correction():
    """They are those of the formula with r and d held: by finite differences in float64 of NumPy."""
    x = np.random.default_rng(1).normal(0.5, 2.0, (6, 3)).astype(np.float32)
    weights = np.random.default_rng(2).normal(size=x.shape)
    params, (_, train) = layer_params(20_000), layer()
    stats = jax.tree.map(np.float64, params.statistics["statistics"])
    max_scale, max_shift = 1 + 2 * 15 / 35, 5 * 15 / 20
    std_of = lambda x: np.sqrt(x.var(axis=0) + 1e-3)
    r = np.clip(std_of(np.float64(x)) / stats["std"], 1 / max_scale, max_scale)
    d = np.clip((np.float64(x).mean(axis=0) - stats["mean"]) / stats["std"], -max_shift, max_shift)

    def total(x):
        return np.sum(weights * params.weights["params"]["scale"] * ((x - x.mean(axis=0)) / std_of(x) * r + d))

    found = jax.grad(lambda x: jnp.sum(jnp.float32(weights) * train(params, x)[0]))(x)
    for i in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[i] = 1e-5
        np.testing.assert_allclose(found[i], (total(x + step) - total(x - step)) / 2e-5, rtol=1e-3, atol=1e-4)
    in_statistics = jax.grad(lambda params: jnp.sum(jnp.float32(weights) * train(params, x)[0]))(params).statistics
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(in_statistics))
    new_statistics = lambda x: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(train(params, x)[1]))
    np.testing.assert_array_equal(jax.grad(new_statistics)(x), np.zeros_like(x))


# --- networks


def dense(params, name, x):
    return x @ np.float64(params[name]["kernel"]) + np.float64(params[name]["bias"])


def sub_layer(params, name):
    only = lambda tree, collection: {collection: jax.tree.map(np.asarray, tree[collection]["mlp"][name])}
    return NetworkParams(only(params.weights, "params"), only(params.statistics, "statistics"))


def test_a_critic_renormalises_its_inputs_and_after_each_activation():
    """CrossQ's critic, in training and in evaluation, with one member's parameters and statistics."""
    rng = np.random.default_rng(0)
    obs, action = (rng.uniform(-1, 1, (8, n)).astype(np.float32) for n in (3, 2))
    network = actor_critic(OBS, ACTIONS, hidden=(7, 6), batch_renorm=True).critic
    params = jax.jit(network.init)(jax.random.key(0), obs, action)
    noisy = lambda x: np.asarray(x + rng.uniform(0.1, 0.5, x.shape), np.float32)
    params = params._replace(statistics=jax.tree.map(noisy, params.statistics))
    evaluated = jax.jit(network.apply)(params, obs, action)
    trained, statistics = jax.jit(network.apply_training)(params, jax.random.key(1), obs, action)
    for k in range(2):
        member = jax.tree.map(lambda x, k=k: x[k], params)
        for training, q in ((False, evaluated), (True, trained)):
            x = renormalize(sub_layer(member, "BatchRenorm_0"), np.concatenate([action, obs], axis=1), training)[0]
            for i in range(2):
                x = np.maximum(dense(member.weights["params"]["mlp"], f"Dense_{i}", x), 0)
                x, means, _ = renormalize(sub_layer(member, f"BatchRenorm_{i + 1}"), x, training)
            close(q[k], dense(member.weights["params"]["mlp"], "Dense_2", x)[:, 0], rtol=1e-3)
        close(statistics["statistics"]["mlp"]["BatchRenorm_2"]["mean"][k], means)
    assert not np.allclose(evaluated, trained)
    means = statistics["statistics"]["mlp"]["BatchRenorm_1"]["mean"]
    assert not np.allclose(means[0], means[1])  # each critic has its own


def test_dropout_is_inverted_and_only_in_training():
    """A unit is 0 with the probability of the rate, and divided by the rest otherwise; each key and member has its own."""
    module = MLP(space=OBS, num_outputs=None, hidden=(1000,), activation="relu", dropout=0.25)
    network = ensemble(trainable(module), 2)
    obs = np.float32([[0.1, -0.2, 0.3], [1, 1, 1]])
    params = network.init(jax.random.key(0), obs)
    plain = np.asarray(network.apply(params, obs))
    dropped, statistics = network.apply_training(params, jax.random.key(1), obs)
    other, _ = network.apply_training(params, jax.random.key(2), obs)
    assert jax.tree.leaves(statistics) == []
    active, kept = plain > 0, np.asarray(dropped) > 0
    np.testing.assert_allclose(np.asarray(dropped)[kept], plain[kept] / 0.75, rtol=1e-5)
    assert abs(kept[active].mean() - 0.75) < 4.5 * np.sqrt(0.75 * 0.25 / active.sum())
    both = active[0] & active[1]
    for one, two in ((kept[0], kept[1]), (kept, np.asarray(other) > 0), (kept[:, :1], kept[:, 1:])):
        assert not np.array_equal(one, two)
    assert abs((kept[0] & kept[1])[both].mean() - 0.75**2) < 4.5 * np.sqrt(0.25 / both.sum())


@pytest.mark.parametrize("space", [ACTIONS, Discrete(3)])
def test_networks_without_switches_have_no_pass_in_training(space):
    actor, critics = actor_critic(OBS, space, hidden=(4,), layer_norm=True)
    assert not training_passes.is_trainable(actor)
    assert not training_passes.is_trainable(critics)
    dropped = actor_critic(OBS, space, hidden=(4,), dropout=0.1)
    assert [training_passes.is_trainable(x) for x in dropped] == [False, True]
    assert all(training_passes.is_trainable(x) for x in actor_critic(OBS, space, hidden=(4,), batch_renorm=True))


def test_other_agents_leave_statistics_as_they_are():
    """An agent that knows nothing of them takes gradients of all parameters."""
    space = Discrete(2)
    network = trainable(jaxrl.networks.q_network(OBS, space, hidden=(4,)).clone(batch_renorm=True))
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, *OBS.shape)))
    grads = jax.jit(jax.grad(lambda params: jnp.sum(network.apply(params, jnp.ones((3, *OBS.shape))))))(params)
    assert len(jax.tree.leaves(grads.statistics)) == 6
    assert not any(jnp.any(x) for x in jax.tree.leaves(grads.statistics))
    assert any(jnp.any(x) for x in jax.tree.leaves(grads.weights))


def test_dropout_of_one_is_refused():
    with pytest.raises(ValueError, match=r"dropout must be at least 0 and less than 1, got 1\.0"):
        actor_critic(OBS, ACTIONS, dropout=1.0)


def test_weights_and_statistics_are_apart():
    """The optimizer's part has no statistics; what is put back is where it was, beside parameters of plain networks."""
    plain = critic(OBS, ACTIONS, hidden=())
    record = NetworkParams({"w": 1.0}, {"mean": 2.0})
    params = {"actor": record, "critic": {"w": 3.0}}
    assert training_passes.weights(params) == {"actor": {"w": 1.0}, "critic": {"w": 3.0}}
    new = training_passes.with_weights(params, {"actor": {"w": 4.0}, "critic": {"w": 5.0}})
    assert new == {"actor": NetworkParams({"w": 4.0}, {"mean": 2.0}), "critic": {"w": 5.0}}
    assert training_passes.with_statistics(new["actor"], {"mean": 6.0}) == NetworkParams({"w": 4.0}, {"mean": 6.0})
    assert training_passes.with_statistics(new["critic"], ()) == {"w": 5.0}
    assert training_passes.training_keys(jax.random.key(0), (2,), plain) == (None,)
