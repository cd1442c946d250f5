"""OpenAI-ES against exact gradients, ranks by SciPy, and NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import jaxrl
from jaxrl import dynamic_programming as dp
from jaxrl import shards
from jaxrl.agents._openai_es import Population, antithetic_gradient, centred_ranks, perturbation
from jaxrl.experiment.policies import policy_of
from jaxrl.experiment.statistics import iqm
from jaxrl.types import Box, Environment, NetworkParams, Step
from tests.precision import tolerance
from tests.problems import openai_es_learner, short_point_mass

SIGMA = 0.3


@pytest.mark.parametrize("order", [1, 2])
def test_the_gradient_of_a_linear_and_of_a_quadratic_function_is_exact_for_orthogonal_perturbations(order):
    """The pairs cancel every term of even order, so that a quadratic function has no bias of order σ²."""
    rng = np.random.default_rng(0)
    dim = 6
    matrix, vector, mean = rng.normal(size=(dim, dim)), rng.normal(size=dim), rng.normal(size=dim)
    matrix = (matrix + matrix.T) * (order - 1)
    f = lambda x: x @ matrix @ x / 2 + vector @ x + 3.0
    orthogonal, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
    noise = SIGMA * np.sqrt(dim) * orthogonal
    fitness = np.array([f(mean + p) for p in noise] + [f(mean - p) for p in noise])
    tree = {"a": jnp.float32(noise[:, :2]), "b": jnp.float32(noise[:, 2:]).reshape(dim, 2, 2)}
    found = antithetic_gradient(jnp.float32(fitness), tree, SIGMA)
    assert found["b"].shape == (2, 2)
    np.testing.assert_allclose(np.concatenate([found["a"], found["b"].ravel()]), matrix @ mean + vector, **tolerance(1e-4, 1e-4))


def test_ranks_are_those_of_scipy_and_equal_returns_share_theirs():
    returns = np.random.default_rng(0).integers(0, 8, size=20).astype(np.float32)
    assert len(set(returns)) < 20
    expected = (stats.rankdata(returns) - 1) / 19 - 0.5
    ranks = lambda x: centred_ranks(jnp.asarray(x), jnp.asarray(x))
    np.testing.assert_allclose(ranks(returns), expected, atol=1e-6)
    np.testing.assert_array_equal(ranks(np.full(4, 500.0)), 0.0)  # all solved: nothing moves
    np.testing.assert_allclose(ranks(1e6 * returns**3), expected, atol=1e-6)
    np.testing.assert_allclose(centred_ranks(jnp.asarray(returns[:7]), jnp.asarray(returns)), expected[:7], atol=1e-6)


WEIGHTS = np.array([0.7, -1.2])


def regression():
    """One step: the action should be WEIGHTS · obs, and the reward is minus the squared error."""

    def reset(key, params):
        obs = jax.random.normal(key, (2,))
        return obs, obs

    def step(key, obs, action, params):
        reward = -jnp.square(action[0] - obs @ jnp.float32(WEIGHTS))
        return obs, Step(obs, reward, jnp.bool_(True), jnp.bool_(False))

    return Environment(reset, step, (), Box(-jnp.inf, jnp.inf, (2,)), Box(-jnp.inf, jnp.inf, (1,)), "Regression")


class Linear:
    """mean = w · obs + b, with statistics that no optimizer may change."""

    def init(self, key, obs):
        return NetworkParams({"w": jnp.array([0.2, 0.4]), "b": jnp.float32(-0.5)}, {"count": jnp.float32(3.0)})

    def apply(self, params, obs):
        mean = (obs @ params.weights["w"] + params.weights["b"])[..., None] * params.statistics["count"] / 3.0
        return mean, jnp.zeros_like(mean)


def test_an_iteration_follows_the_exact_gradient_of_the_expected_return():
    """−2 (w − WEIGHTS) and −2 b, within 4.5 standard errors of 50 estimates from 2,000 pairs each."""
    env = regression()
    agent = jaxrl.agents.openai_es(Linear(), env.action_space, fitness="returns", optimizer=optax.sgd)
    learner = jaxrl.make_learner(env, agent, num_envs=4_000, rollout_length=1)
    hparams = jax.tree.map(jnp.float32, agent.hparams._replace(learning_rate=1.0, noise_std=SIGMA))

    def estimate(key):
        state = learner.init(key, hparams)
        after, _ = learner.step(state, learner.noise(key), hparams, jnp.int32(0))
        return jax.tree.map(jnp.subtract, after.agent.params, state.agent.params)

    moves = jax.jit(lambda keys: jax.lax.map(estimate, keys))(jax.random.split(jax.random.key(0), 50))
    np.testing.assert_array_equal(moves.statistics["count"], 0.0)
    for name, exact in (("w", -2 * (np.array([0.2, 0.4]) - WEIGHTS)), ("b", 1.0)):
        error = np.std(moves.weights[name], axis=0, ddof=1) / np.sqrt(50)
        assert (error < 0.1).all()
        assert (np.abs(np.mean(moves.weights[name], axis=0) - exact) < 4.5 * error).all()


def test_a_step_is_that_of_a_loop_in_numpy():
    """Ranks of the returns of first episodes, weight decay, and fresh mirrored perturbations of the size σ."""
    agent = jaxrl.agents.openai_es(Linear(), Box(-1, 1, (1,)), optimizer=optax.sgd)
    hparams = jax.tree.map(jnp.float32, agent.hparams._replace(learning_rate=0.5, noise_std=SIGMA, weight_decay=0.1))
    num_envs, length = 8, 6
    key, rng = jax.random.key(0), np.random.default_rng(1)
    state = agent.init(key, jnp.zeros((num_envs, 2)), hparams)
    done = rng.random((length, num_envs)) < 0.3
    reward = rng.normal(size=(length, num_envs)).astype(np.float32)
    rollout = jaxrl.types.Transition((), (), jnp.asarray(reward), jnp.asarray(done), jnp.zeros_like(done), (), (), ())
    after, metrics = jax.jit(agent.update)(state, rollout, jax.random.key(1), hparams, jnp.int32(0))

    returns = []
    for env_index in range(num_envs):
        total = 0.0
        for t in range(length):
            total += reward[t, env_index]
            if done[t, env_index]:
                break
        returns.append(total)
    ranks = (stats.rankdata(returns) - 1) / (num_envs - 1) - 0.5
    noise, fresh = perturbation(state), perturbation(after)
    for old, drawn, new in zip(*map(jax.tree.leaves, (state.params.weights, noise, after.params.weights)), strict=True):
        gradient = sum((ranks[i] - ranks[i + 4]) * np.asarray(drawn[i]) / SIGMA for i in range(4)) / (2 * 4 * SIGMA)
        np.testing.assert_allclose(new, old + 0.5 * (gradient - 0.1 * old), **tolerance(1e-4, 1e-5))
    np.testing.assert_allclose(metrics["return_std"], np.std(returns), rtol=1e-5)
    np.testing.assert_allclose(np.mean(metrics["unfinished"]), np.mean(~done.any(axis=0)))

    population = agent.policy(after)
    drawn = np.concatenate([np.ravel(x) for x in jax.tree.leaves(fresh)])
    assert len(set(drawn.tolist())) == drawn.size == 12  # independent in every pair and weight
    assert 0.4 * SIGMA < np.std(drawn) < 2 * SIGMA
    assert not set(drawn.tolist()) & {float(x) for leaf in jax.tree.leaves(noise) for x in np.ravel(leaf)}
    for mean, added, members in zip(*map(jax.tree.leaves, (after.params.weights, fresh, population.members)), strict=True):
        np.testing.assert_allclose(members, np.concatenate([mean[None] + added, mean[None] - added]), atol=1e-6)


def test_each_environment_acts_with_its_own_weights_and_evaluation_with_the_mean():
    learner = openai_es_learner(short_point_mass(), rollout_length=5)
    state = jax.jit(learner.init)(jax.random.key(0), jax.tree.map(jnp.float32, learner.agent.hparams))
    population = learner.agent.policy(state.agent)
    explore = functools.partial(learner.agent.explore, carry=(), noise_t=(), hparams=None, iteration=None)
    obs = jnp.broadcast_to(state.obs[:1], state.obs.shape)
    actions = np.asarray(explore(population, obs)[0])
    assert len(set(map(tuple, actions.tolist()))) == learner.num_envs
    member = Population(jax.tree.map(lambda x: x[2], population.members), ())
    np.testing.assert_allclose(learner.agent.exploit(member, obs[:1], (), None)[0][0], actions[2], rtol=1e-5, atol=1e-6)
    without_noise = explore(population._replace(members=jax.tree.map(lambda x: jnp.stack([x] * 4), population.params)), obs)[0]
    np.testing.assert_allclose(without_noise, learner.agent.exploit(population, obs, (), None)[0], rtol=1e-5, atol=1e-6)


def test_states_and_saved_policies_hold_no_weights_of_members():
    """The mean, its two moments in Adam, and a few numbers for each pair; a saved policy holds the mean alone."""
    learner = openai_es_learner(short_point_mass(), num_envs=64, rollout_length=5, hidden=(64, 64))
    state = jax.eval_shape(learner.init, jax.random.key(0), learner.agent.hparams)
    size = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
    mean = size(state.agent.params)
    assert size(state.agent) < 3 * mean + 10 * 32
    assert size(jax.eval_shape(lambda s: policy_of(learner, s), state)) == mean


def test_two_shards_follow_the_gradient_of_the_whole_population():
    """Each has half of the pairs, and ranks its returns among all."""
    agent = jaxrl.agents.openai_es(Linear(), Box(-1, 1, (1,)), optimizer=optax.sgd)
    hparams = jax.tree.map(jnp.float32, agent.hparams._replace(learning_rate=0.5))
    over_shards = functools.partial(jax.vmap, axis_name=shards.AXIS, axis_size=2)
    init = lambda _: agent.init(jax.random.key(0), jnp.zeros((4, 2)), hparams)
    states = jax.jit(over_shards(init))(jnp.arange(2))
    assert not set(np.ravel(states.noise_keys[0]).tolist()) & set(np.ravel(states.noise_keys[1]).tolist())
    reward = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), jnp.float32)

    def update(state, reward):
        done = jnp.zeros(reward.shape, bool)
        rollout = jaxrl.types.Transition((), (), reward, done, done, (), (), ())
        return agent.update(state, rollout, jax.random.key(1), hparams, jnp.int32(0))[0].params.weights

    found = jax.jit(over_shards(update))(states, reward)
    one = jax.tree.map(lambda x: x[0], states)._replace(noise_keys=states.noise_keys.reshape(4, -1))
    one_reward = jnp.concatenate([reward[0, :, :2], reward[1, :, :2], reward[0, :, 2:], reward[1, :, 2:]], axis=1)
    expected = jax.jit(update)(one, one_reward)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], np.stack([values, values]), rtol=1e-5)


def test_an_odd_population_is_refused():
    with pytest.raises(ValueError, match="perturbations come in pairs, so num_envs of a shard must be even; got 3"):
        openai_es_learner(num_envs=3)


@pytest.mark.slow
def test_it_learns_cartpole_in_a_million_steps():
    """Each of 32 other seeds reached 500."""
    learner, hparams, num_iterations, _ = jaxrl.preset("openai_es", "CartPole-v1")

    def run(key):
        state, _ = jaxrl.train(key, learner, num_iterations, hparams)
        return jaxrl.evaluate(jax.random.fold_in(key, 1), learner, state, num_episodes=20).mean()

    assert iqm(np.asarray(jaxrl.vectorize(run)(jax.random.split(jax.random.key(0), 8)))) > 475


@pytest.mark.slow
def test_it_finds_the_best_of_all_policies_of_the_chain():
    """What it maximises is the undiscounted return of an episode, so the expected returns of all 32 policies are computed."""
    chosen, returns = chain_policies(jax.random.key(1))
    best, second = np.sort(returns.ravel())[[-1, -2]]
    assert second < 0.9 * best
    assert [returns[tuple(actions)] for actions in chosen] == [best] * len(chosen)


def chain_policies(key, num_seeds=8):
    """The greedy actions that are learned, `[seed, S]`, and the expected return of every policy, `[A, ..., A]` by its actions."""
    env = jaxrl.make("Chain")
    mdp, horizon, states = env.params.mdp, int(env.params.max_steps_in_episode), jnp.eye(5)
    learner = openai_es_learner(env, num_envs=64, rollout_length=horizon, hidden=())
    agent, num_iterations = learner.agent, 200
    hparams = agent.hparams._replace(learning_rate=0.05, learning_rate_iterations=float(num_iterations), noise_std=0.2)

    def one(key):
        state, _ = jaxrl.train(key, learner, num_iterations, hparams)
        return agent.exploit(agent.policy(state.agent), states, (), key)[0]

    every = np.stack(np.meshgrid(*[[0, 1]] * 5, indexing="ij"), axis=-1)
    value = lambda actions: dp.expected_return(mdp, jax.nn.one_hot(actions, 2), 1.0, horizon=horizon)
    returns = np.asarray(jax.lax.map(value, every.reshape(32, 5))).reshape(every.shape[:-1])
    return np.asarray(jaxrl.vectorize(one)(jax.random.split(key, num_seeds))), returns
