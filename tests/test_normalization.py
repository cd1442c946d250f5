"""An agent that normalises: statistics against NumPy over everything it has seen, and what acting and learning read of them."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.experiment import Config, load_policies, run
from jaxrl.experiment.policies import abstract_policies, evaluate_policies
from jaxrl.normalization import normalize_agent
from jaxrl.presets import DEFAULTS, override
from jaxrl.rollout import evaluate_policy
from jaxrl.types import Agent, Box, Dict, Discrete, Environment, Noise, Step
from tests.problems import dqn_learner, ppo_learner, reinforce_learner, short_point_mass

DISCOUNT = 0.9
NUM_ENVS, NUM_STEPS, NUM_ITERATIONS = 3, 8, 5


class HParams(NamedTuple):
    discount: float = DISCOUNT


class Recorded(NamedTuple):
    params: jax.Array
    seen: tuple  # obs, next_obs, reward and ends of episodes of the last update


def recorder():
    """Acts at random; its state keeps the rollout that `update` received, its extras what `explore` received."""

    def keep(rollout):
        return rollout.obs, rollout.next_obs, rollout.reward, rollout.terminated | rollout.truncated

    def init(key, obs, hparams):
        sequence = jax.tree.map(lambda x: jnp.zeros((NUM_STEPS, *x.shape), x.dtype), obs)
        return Recorded(
            jnp.float32([0]),
            (sequence, sequence, jnp.zeros((NUM_STEPS, NUM_ENVS), jnp.float32), jnp.zeros((NUM_STEPS, NUM_ENVS), bool)),
        )

    def explore(params, obs, carry, noise_t, hparams, iteration):
        return noise_t, carry, obs

    return Agent(
        hparams=HParams(),
        init=init,
        noise=lambda key, num_steps, num_envs: Noise(jax.random.randint(key, (num_steps, num_envs), 0, 2, jnp.int32)),
        policy=lambda state: state.params,
        explore=explore,
        exploit=lambda params, obs, carry, key: (jnp.zeros(NUM_ENVS, jnp.int32), carry),
        update=lambda state, rollout, noise, hparams, iteration: (state._replace(seen=keep(rollout)), {"loss": jnp.float32(0)}),
    )


class State(NamedTuple):
    key: jax.Array
    time: jax.Array


SPACE = Dict(
    {
        "action_mask": Box(False, True, (2,), bool),
        "index": Discrete(7),
        "near": Box(-np.inf, np.inf, ()),
        "far": Box(-np.inf, np.inf, (2,)),
    }
)


def stream():
    """Random observations of several kinds, among them floats far from zero, and episodes of 5 steps or of random length."""

    normal = functools.partial(jax.random.normal, dtype=jnp.float32)

    def observe(key):
        one, two, three = jax.random.split(key, 3)
        return {
            "action_mask": jnp.ones(2, bool),
            "index": jax.random.randint(one, (), 0, 7, jnp.int32),
            "near": 0.01 * normal(two, ()),
            "far": jnp.float32([1e6, -300.0]) + normal(three, (2,)) * jnp.float32([1.0, 100.0]),
        }

    def reset(key, params):
        return jnp.int32(0), observe(key)

    def step(key, state, action, params):
        obs_key, end_key, reward_key = jax.random.split(key, 3)
        reward = 100 * normal(reward_key, ()) + 50
        return state + 1, Step(observe(obs_key), reward, jax.random.uniform(end_key) < 0.1, state + 1 >= 5)

    return Environment(reset, step, (), SPACE, Discrete(2), "stream")


@pytest.fixture(scope="module")
def runs():
    """The learner, and for each iteration its state before, its rollout as the task gave it, and its state after."""
    agents = [normalize_agent(recorder(), observations=on, rewards=on) for on in (False, True)]
    plain, learner = (jaxrl.make_learner(stream(), agent, num_envs=NUM_ENVS, rollout_length=NUM_STEPS) for agent in agents)
    hparams = HParams(jnp.float32(DISCOUNT))
    before, raw = (jax.jit(x.init)(jax.random.key(0), hparams) for x in (learner, plain))
    step, raw_step = jax.jit(learner.step), jax.jit(plain.step)
    found = []
    for i in range(NUM_ITERATIONS):
        noise = learner.noise(jax.random.key(i))
        after, _ = step(before, noise, hparams, jnp.int32(i))
        raw, _ = raw_step(raw, noise, hparams, jnp.int32(i))
        found.append((before, jax.tree.map(np.asarray, raw.agent.seen), after))
        np.testing.assert_array_equal(after.stats.finished_return, raw.stats.finished_return)  # in the units of the task
        before = after
    return learner, found


def test_observations_are_normalised_by_all_of_the_rollouts_before(runs):
    """Acting, the update and evaluation alike, each float leaf by its own statistics in NumPy's float64; the rest unchanged."""
    learner, found = runs
    for i, (before, (obs, next_obs, *_), after) in enumerate(found):
        update_obs, update_next, *_ = after.agent.agent.seen
        policy = learner.agent.policy(before.agent)
        noise_t = jnp.zeros(NUM_ENVS, jnp.int32)
        first = jax.tree.map(lambda x: jnp.asarray(x[0]), obs)
        explored = learner.agent.explore(policy, first, (), noise_t, HParams(), jnp.int32(i))[2]
        for name in ("near", "far"):
            past = [np.reshape(x[1][0][name], (NUM_STEPS * NUM_ENVS, -1)).astype(np.float64) for x in found[:i]]
            mean, deviation = (0.0, 1.0) if i == 0 else (np.mean(np.concatenate(past), 0), np.std(np.concatenate(past), 0))
            shape = obs[name].shape
            for seen, got in ((obs, update_obs), (next_obs, update_next)):
                expected = np.clip((seen[name].reshape(*shape[:2], -1) - mean) / deviation, -10, 10).reshape(shape)
                np.testing.assert_allclose(got[name], expected, rtol=1e-4, atol=1e-4)
            np.testing.assert_array_equal(explored[name], update_obs[name][0])
        for name in ("action_mask", "index"):
            np.testing.assert_array_equal(update_obs[name], obs[name])
            np.testing.assert_array_equal(explored[name], obs[name][0])
    assert np.abs(update_obs["far"]).max() < 6


def test_rewards_are_divided_by_the_deviation_of_all_discounted_returns_so_far(runs):
    _, found = runs
    running, so_far = np.zeros(NUM_ENVS), []
    for _, (_, _, reward, done), after in found:
        for reward_t, done_t in zip(reward.astype(np.float64), done, strict=True):
            running = DISCOUNT * running + reward_t
            so_far.append(running)
            running = np.where(done_t, 0.0, running)
        np.testing.assert_allclose(after.agent.agent.seen[2], np.clip(reward / np.std(so_far), -10, 10), rtol=1e-4)
        np.testing.assert_allclose(after.agent.discounted_return, running, rtol=1e-4, atol=1e-3)
    assert after.agent.returns.num == NUM_ITERATIONS * NUM_STEPS * NUM_ENVS
    ends = np.stack([x[1][3] for x in found])
    assert ends[:, :-1].any()
    assert ends[:, -1].any()
    assert not ends[:, -1].all()


def test_what_is_normalised_is_clipped():
    agent = normalize_agent(recorder(), observations=True, rewards=True)
    learner = jaxrl.make_learner(stream(), agent, num_envs=NUM_ENVS, rollout_length=NUM_STEPS)
    state = learner.init(jax.random.key(0), HParams())
    obs = state.obs | {"near": jnp.float32([50.0, -50.0, 3.0])}
    shown = agent.explore(agent.policy(state.agent), obs, (), jnp.zeros(NUM_ENVS, jnp.int32), HParams(), jnp.int32(0))[2]
    np.testing.assert_array_equal(shown["near"], [10.0, -10.0, 3.0])


def test_seeds_keep_their_own_statistics(runs):
    learner, _ = runs
    run = lambda key: jaxrl.train(key, learner, 2)[0].agent
    keys = jax.random.split(jax.random.key(0), 2)
    batch, alone = jax.jit(jax.vmap(run))(keys), jax.jit(run)(keys[1])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[1], y, rtol=1e-5), batch, alone)
    assert np.all(batch.observations["far"].mean[0] != batch.observations["far"].mean[1])


def test_without_either_option_the_agent_is_the_same():
    agent = recorder()
    assert normalize_agent(agent) is agent
    learner = ppo_learner()
    state = jax.eval_shape(learner.init, jax.random.key(0), learner.agent.hparams).agent
    assert learner.agent.policy(state) is state.params


@pytest.mark.parametrize("observations", [True, False])
def test_a_saved_policy_holds_what_the_agent_says(observations):
    agent = recorder()._replace(policy=lambda state: (state.params, "all"), greedy=lambda params: (params[0], "greedy"))
    agent = normalize_agent(agent, observations=observations, rewards=True)
    state = agent.init(jax.random.key(0), jnp.zeros((NUM_ENVS, 3)), HParams())
    policy = agent.greedy(agent.policy(state))
    assert (policy.policy if observations else policy)[1] == "greedy"


@pytest.mark.parametrize("learner", [dqn_learner, lambda: reinforce_learner(short_point_mass())], ids=["dqn", "reinforce"])
def test_agents_with_a_replay_or_fresh_episodes_are_refused(learner):
    with pytest.raises(ValueError, match="must have no replay, and no fresh episodes"):
        normalize_agent(learner().agent, observations=True)


def test_observations_without_floats_are_unchanged():
    """Settings that suit floats, such as the defaults of recurrent PPO, train on any other observation too."""
    env = stream()._replace(observation_space=Discrete(3))
    env = env._replace(
        reset=lambda key, params: (jnp.int32(0), jnp.int32(2)),
        step=lambda key, state, action, params: (state, stream().step(key, state, action, params)[1]._replace(obs=action)),
    )

    def trained(**normalised):
        learner = jaxrl.make_learner(
            env, normalize_agent(recorder(), rewards=True, **normalised), num_envs=NUM_ENVS, rollout_length=NUM_STEPS
        )
        return jax.jit(lambda key: jaxrl.train(key, learner, 3))(jax.random.key(0))[0]

    plain, normalized = trained(), trained(observations=True)
    jax.tree.map(np.testing.assert_array_equal, plain.agent.agent, normalized.agent.agent)
    assert len(np.unique(normalized.obs)) == 2


@pytest.fixture(scope="module")
def trained():
    """PPO with a single gradient step an iteration, and its state and metrics after some of them."""
    learner = ppo_learner(num_epochs=1, num_minibatches=1, normalize_observations=True, normalize_rewards=True)
    return learner, *jax.jit(lambda key: jaxrl.train(key, learner, 6, log_every=1))(jax.random.key(0))


def test_the_first_ratio_of_probabilities_is_one(trained):
    """Statistics that change between acting and the update would change the policy."""
    _, _, metrics = trained
    assert np.max(metrics["approx_kl"]) < 1e-10


def test_the_policy_alone_plays_with_the_statistics_of_its_training(trained):
    learner, state, _ = trained
    policy = learner.agent.policy(state.agent)
    play = jax.jit(lambda policy: evaluate_policy(jax.random.key(1), learner.env, learner.agent, policy, num_episodes=16))
    np.testing.assert_array_equal(play(policy), jaxrl.evaluate(jax.random.key(1), learner, state, num_episodes=16))
    without = policy._replace(scale=jax.tree.map(jnp.ones_like, policy.scale))
    assert not np.array_equal(play(policy), play(without))
    # Networks see a normalised observation as the plain agent sees a raw one.
    plain = ppo_learner(num_epochs=1, num_minibatches=1).agent
    seen = (state.obs - policy.scale.mean[None]) / policy.scale.deviation[None]
    expected = plain.exploit(policy.policy, seen, (), jax.random.key(0))[0]
    np.testing.assert_array_equal(learner.agent.exploit(policy, state.obs, (), jax.random.key(0))[0], expected)


def test_a_run_folder_keeps_the_statistics(tmp_path):
    agent = {"normalize_observations": True, "normalize_rewards": True}
    settings = override(DEFAULTS["ppo"], steps=1_600, num_envs=4, rollout_length=50, network={"hidden": (4,)}, agent=agent)
    config = Config(env="PointMass", settings=settings, seeds=3)  # not the size of an observation
    result = run(config, tmp_path / "run")
    saved = load_policies(tmp_path / "run", abstract_policies(config))
    jax.tree.map(np.testing.assert_array_equal, saved, result.policies)
    assert np.ptp(saved.params.scale.mean, axis=0).min() > 0
    assert saved.params.scale.deviation.shape == (3, 2)
    np.testing.assert_array_equal(
        evaluate_policies(config, saved, num_episodes=16), evaluate_policies(config, result.policies, num_episodes=16)
    )


def badly_scaled():
    """CartPole with its observations in other units."""
    env, units = jaxrl.make("CartPole-v1"), jnp.float32([1e3, 1e-3, 1e-3, 1e2])
    offset = jnp.float32([5e3, 0.0, 1.0, 0.0])

    def reset(key, params):
        state, obs = env.reset(key, params)
        return state, obs * units + offset

    def step(key, state, action, params):
        state, after = env.step(key, state, action, params)
        return state, after._replace(obs=after.obs * units + offset)

    return env._replace(reset=reset, step=step, observation_space=Box(-np.inf, np.inf, (4,)))


@pytest.mark.slow
def test_badly_scaled_observations_are_learned_from_with_it_and_not_without():
    """Mean returns of eight seeds with each; random actions have 22. Three other sets of eight had 99 or more, and 10 or less."""

    def returns(on):
        learner = ppo_learner(
            badly_scaled(),
            num_envs=8,
            rollout_length=64,
            hidden=(32,),
            num_epochs=4,
            num_minibatches=4,
            normalize_observations=on,
        )
        hparams = learner.agent.hparams._replace(learning_rate=2e-3)

        def run(key):
            state, _ = jaxrl.train(key, learner, 200, hparams)
            return jaxrl.evaluate(jax.random.fold_in(key, 1), learner, state, num_episodes=16).mean()

        return np.asarray(jaxrl.vectorize(run)(jax.random.split(jax.random.key(0), 8)))

    normalised, raw = returns(True), returns(False)
    print(normalised.round(), raw.round())
    assert np.min(normalised) > 60
    assert np.max(raw) < 22
