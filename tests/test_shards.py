"""One agent in several shards equals the same agent in one: the same gradients, statistics and metrics, from its own parts."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import shards
from jaxrl.replay import prioritized
from tests.problems import (
    LEARNERS,
    a2c_learner,
    countdown,
    dqn_learner,
    plain,
    ppo_learner,
    pqn_learner,
    recurrent_ppo_learner,
    reinforce_learner,
    sac_learner,
    short_point_mass,
    td3_learner,
)

SHARDS = 2
slow = functools.partial(pytest.param, marks=pytest.mark.slow)
over_shards = functools.partial(jax.vmap, axis_name=shards.AXIS, axis_size=SHARDS)


# --- what is learned is the same in all shards


DIFFERENT = (
    "dqn, three steps, prioritized", "recurrent ppo", "reinforce, episodic", "ppo, normalised",
    "sac, dropout and batch renormalisation",
)  # fmt: skip


@pytest.mark.parametrize("name", [name if name in DIFFERENT else slow(name) for name in LEARNERS])
def test_parameters_optimizer_and_metrics_cannot_differ_between_the_shards(name):
    """`vmap` knows what depends on its axis, and refuses to return it without one: a proof for every value of the data."""
    learner = LEARNERS[name]()
    hparams = jax.tree.map(jnp.float32, learner.agent.hparams)

    def step(key):
        state = learner.init(key, hparams)
        noise = learner.noise(state.key)
        state, metrics = jaxrl.learner.advance(state, jnp.int32(learner.agent.warmup), learner, 1, hparams)
        agent = state.agent
        targets = [getattr(agent, name, ()) for name in ("target_params", "target_critic", "observations", "returns")]
        policy = learner.agent.policy(agent)
        policy = policy._replace(members=()) if hasattr(policy, "members") else policy  # each shard has its part of a population
        return (state, noise), (agent.params, agent.opt_state, targets, policy, metrics)

    jax.eval_shape(over_shards(step, in_axes=None, out_axes=(0, None)), jax.random.key(0))


def test_a_missing_mean_would_be_found():
    learner = a2c_learner()
    unaware = learner.agent._replace(
        update=lambda state, rollout, *_: (
            state._replace(params=jax.tree.map(lambda x: x + jnp.mean(rollout.reward), state.params)),
            {},
        )
    )
    learner = jaxrl.make_learner(learner.env, unaware, num_envs=4, rollout_length=8)
    train = lambda key: jaxrl.train(key, learner, 1)[0].agent.params
    with pytest.raises(ValueError, match="must be the same in all shards"):
        jaxrl.vectorize(train, num_shards=2)(jax.random.split(jax.random.key(0), 1))


# --- a step in two shards is a step in one


def join(learner, states):
    """The state of one shard, from those of several, `[S, …]`; rows of a replay are in the order of time."""
    envs = learner.num_envs // SHARDS

    def rows(x):
        return jnp.moveaxis(x.reshape(SHARDS, -1, envs, x.shape[-1]), 0, 1).reshape(-1, x.shape[-1])

    def one(path, x):
        if "rows" in jax.tree_util.keystr(path):
            return rows(x)
        return x.reshape(-1) if "discounted_return" in jax.tree_util.keystr(path) else x[0]

    agent = jax.tree_util.tree_map_with_path(one, states.agent)
    merged = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), states._replace(key=(), agent=()))
    return merged._replace(key=states.key[0], agent=agent)


def join_noise(learner, noise, num_stored):
    """The noise of one shard that does the same as that of several."""
    fresh, envs = learner.agent.fresh_episodes, learner.num_envs // SHARDS
    join_axis = lambda tree, axis: jax.tree.map(lambda x: jnp.concatenate(list(x), axis=axis), tree)
    reset = noise.rollout.reset._replace(steps=join_axis(noise.rollout.reset.steps, 0 if fresh else 1))
    rollout = noise.rollout._replace(env=join_axis(noise.rollout.env, 1), act=join_axis(noise.rollout.act, 1), reset=reset)

    def drawn(x):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):  # of shuffles, and of dropout, which is off
            return x[0]
        if x.dtype == jnp.uint32:  # the bits that choose rows: those of the same transitions
            local = x % num_stored
            first = jnp.arange(SHARDS, dtype=jnp.uint32).reshape(-1, *[1] * (x.ndim - 1)) * envs
            x = local // envs * learner.num_envs + first + local % envs
        return jnp.concatenate(list(x), axis=-1 if x.dtype == jnp.uint32 else -2)

    return noise._replace(rollout=rollout, update=jax.tree.map(drawn, noise.update))


soon_stopped = jaxrl.agents.PPOHParams(target_kl=1e-5, learning_rate=0.1)
whole_epochs = {"num_epochs": 3, "num_minibatches": 1}  # the order of the rows does not matter
SAME = {
    "a2c": functools.partial(a2c_learner, normalize_advantage=True),
    "reinforce": lambda: reinforce_learner(short_point_mass(), rollout_length=5),
    "reinforce, normalised": lambda: reinforce_learner(mode="continuing", baseline="value", normalize_advantage=True),
    "ppo": lambda: ppo_learner(
        normalize_observations=True, normalize_rewards=True, hparams=soon_stopped, **whole_epochs
    ),
    "recurrent ppo": lambda: recurrent_ppo_learner(**whole_epochs),
    "pqn": lambda: pqn_learner(**whole_epochs),
    "dqn": lambda: dqn_learner(n_step=3, rollout_length=3, updates_per_iteration=2),
    "sac": lambda: sac_learner(target_network=False, updates_per_iteration=2, network={"batch_renorm": True}),
    "td3": lambda: td3_learner(rollout_length=2, updates_per_iteration=4),
}  # fmt: skip


@pytest.mark.parametrize("name", [name if name in ("reinforce", "ppo", "dqn", "sac") else slow(name) for name in SAME])
def test_a_step_in_two_shards_equals_a_step_in_one(name):
    learner = SAME[name]()
    hparams = jax.tree.map(jnp.float32, learner.agent.hparams)
    warmup = learner.agent.warmup

    @jax.jit
    def in_shards(key):
        states = over_shards(lambda _: learner.init(key, hparams))(jnp.arange(SHARDS))
        noise = over_shards(lambda _: learner.noise(key))(jnp.arange(SHARDS))
        after, metrics = over_shards(lambda s, n: learner.step(s, n, hparams, jnp.int32(warmup)))(states, noise)
        return states, noise, after, metrics

    @jax.jit
    def in_one(states, noise):
        num_stored = jnp.uint32((warmup + 1) * learner.num_envs * learner.rollout_length // SHARDS)
        return learner.step(join(learner, states), join_noise(learner, noise, num_stored), hparams, jnp.int32(warmup))

    states, noise, after, metrics = in_shards(jax.random.key(1))
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    assert shapes(jax.eval_shape(lambda n: join_noise(learner, n, jnp.uint32(1)), noise)) == shapes(
        jax.eval_shape(learner.noise, jax.random.key(1))
    )
    one, one_metrics = in_one(states, noise)
    chex.assert_trees_all_close(plain(join(learner, after)), plain(one), rtol=1e-4, atol=2e-6)
    means = lambda tree: {name: float(jnp.mean(x)) for name, x in tree.items()}
    assert means(metrics) == pytest.approx(means(one_metrics), rel=1e-4, abs=1e-6)
    assert not np.allclose(plain(noise.rollout.env)[0], plain(noise.rollout.env)[1])


def test_weights_of_prioritized_items_are_relative_to_the_probabilities_in_all_shards():
    """Each shard draws half of the batch from its own items, so P(i) = p_i / Σ p of its shard / 2."""
    priorities = np.float32([[1, 2, 3, 4], [5, 5, 5, 25]])

    def draw(priority, noise):
        buffer = prioritized.add(prioritized.init({"x": jnp.float32(0)}, 4), {"x": jnp.zeros(4)}, jnp.int32(0))
        filled = prioritized.update(buffer, jnp.arange(4), priority, alpha=1.0, eps=0.0)
        return prioritized.sample(filled, noise, jnp.int32(4), beta=0.5)[1:]

    indices, weights = jax.jit(over_shards(draw))(jnp.array(priorities), jax.random.uniform(jax.random.key(0), (SHARDS, 8)))
    probability = np.take_along_axis(priorities / priorities.sum(axis=1, keepdims=True) / SHARDS, np.asarray(indices), axis=1)
    expected = (8 * probability) ** -0.5
    np.testing.assert_allclose(weights, expected / expected.max(), rtol=1e-5)


# --- devices


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_two_devices_equal_two_shards_on_one_device(name):
    learner = LEARNERS[name]()
    train = lambda key: jaxrl.train(key, learner, 3)
    keys = jax.random.split(jax.random.key(0), 2)
    spread = jaxrl.vectorize(train, num_shards=SHARDS)(keys)
    alone = jaxrl.vectorize(train, num_shards=SHARDS, devices=jax.devices()[:1])(keys)
    chex.assert_trees_all_close(plain(spread), plain(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_run_on_two_devices_goes_on_in_two_shards_on_one():
    learner = a2c_learner(countdown(3), num_envs=4, rollout_length=8)
    keys = jax.random.split(jax.random.key(0), 2)
    whole, metrics = jaxrl.vectorize(lambda key: jaxrl.train(key, learner, 4), num_shards=SHARDS)(keys)
    assert all(len(x.sharding.device_set) == SHARDS for x in jax.tree.leaves(whole))
    assert metrics["episodes"].tolist() == [[8, 12, 12, 8]] * 2  # of all four environments: 8 steps make 2, 3, 3, 2 episodes
    assert metrics["episode_length"].tolist() == [[3.0] * 4] * 2

    states, _ = jaxrl.vectorize(lambda key: jaxrl.train(key, learner, 2), num_shards=SHARDS)(keys)
    assert states.obs.shape[:3] == (2, SHARDS, 2)  # two seeds, two shards, two environments
    on_one = jaxrl.vectorize(lambda s: jaxrl.advance(s, 2, learner, 2), num_shards=SHARDS, devices=jax.devices()[:1])
    states, rest = on_one(jax.tree.map(jnp.asarray, jax.device_get(states)))
    chex.assert_trees_all_close(plain(states), plain(whole), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(rest["loss"], metrics["loss"][:, 2:], rtol=1e-5)


def test_a_learner_may_be_made_in_the_program():
    """An environment's parameters may be traced, so the learner is made, and checked, where shards have their part of it."""
    run = lambda key: jaxrl.train(key, dqn_learner(num_envs=4, capacity=36), 1)[1]
    made_before = dqn_learner(num_envs=4, capacity=36)
    in_shards = jaxrl.vectorize(run, num_shards=2, devices=jax.devices()[:1])
    same = jaxrl.vectorize(lambda key: jaxrl.train(key, made_before, 1)[1], num_shards=2, devices=jax.devices()[:1])
    keys = jax.random.split(jax.random.key(0), 1)
    chex.assert_trees_all_equal(in_shards(keys), same(keys))


def test_sizes_that_do_not_fit_are_errors():
    keys = jax.random.split(jax.random.key(0), 1)
    with pytest.raises(ValueError, match="num_shards 3 needs as many devices, and there are 2"):
        jaxrl.vectorize(lambda key: key, num_shards=3)
    one = {"devices": jax.devices()[:1], "num_shards": 3}
    with pytest.raises(ValueError, match="num_envs 4 must be a multiple of num_shards 3"):
        jaxrl.vectorize(lambda key: jaxrl.train(key, a2c_learner(), 1), **one)(keys)
    with pytest.raises(ValueError, match="capacity 96 must be a multiple of num_shards 5"):
        jaxrl.vectorize(lambda key: jaxrl.train(key, dqn_learner(num_envs=5, capacity=96), 1), **(one | {"num_shards": 5}))(keys)
