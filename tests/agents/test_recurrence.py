"""What acting recorded, computed again from the first carry of the rollout; and who can solve a task of memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.agents import _recurrent_ppo
from jaxrl.envs.problems.probes import PROBES
from jaxrl.policies import policy_head
from jaxrl.recurrence import successor_outputs, unroll_network
from jaxrl.resets import reset_scheme
from jaxrl.rollout import RolloutCarry, unroll
from tests.problems import LEARNERS, lopsided, ppo_learner, recurrent_network, recurrent_ppo_learner


def play(learner, num_rollouts=1):
    """The policy parameters and noise of the last of `num_rollouts` rollouts, and that rollout with the carry after it."""
    hparams = jax.tree.map(jnp.float32, learner.agent.hparams)
    shape = (learner.num_envs,) if learner.agent.fresh_episodes else (learner.rollout_length, learner.num_envs)
    fresh_episode = reset_scheme(learner.env, shape, learner.reset_pool).episode

    @jax.jit
    def play(carry, noise):
        iteration = jnp.int32(learner.agent.warmup)
        return unroll(learner.env, learner.agent, policy_params, carry, noise, fresh_episode, hparams, iteration)

    state = jax.jit(learner.init)(jax.random.key(0), hparams)
    policy_params = jax.tree.map(lambda x: x * 1.5, learner.agent.policy(state.agent))  # actions depend on what is observed
    carry = RolloutCarry(state.env, state.obs, state.carry, state.stats)
    for i in range(num_rollouts):
        noise = learner.noise(jax.random.key(i)).rollout
        carry, rollout = play(carry, noise)
    return policy_params, noise, rollout, carry


def cart_pole():
    """Falls at different times, and is cut after 15 steps."""
    return jaxrl.make("CartPole-v1", max_steps_in_episode=15)


RECURRENT = {
    "CartPole": lambda: recurrent_ppo_learner(cart_pole(), num_envs=6, rollout_length=24),
    "continuous": lambda: recurrent_ppo_learner(lopsided(), num_envs=4, rollout_length=8),
}


def first_steps(name):
    """With a single gradient step in each iteration, at which the parameters are those that acted."""
    make = {"CartPole": lambda **static: recurrent_ppo_learner(cart_pole(), num_envs=6, rollout_length=24, **static)}
    make["continuous"] = lambda **static: recurrent_ppo_learner(lopsided(), num_envs=4, rollout_length=8, **static)
    return make[name](num_epochs=1, num_minibatches=1)


def allclose(found, expected):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), found, expected)


@pytest.mark.parametrize("name", [*RECURRENT, "reinforce, squashed", "ppo, continuous"])
def test_acting_again_step_by_step_takes_the_recorded_actions(name):
    """`explore` on each recorded observation: action, extras and carry, which is the initial one after each episode end."""
    learner = (LEARNERS | RECURRENT)[name]()
    policy_params, noise, rollout, after = play(learner, num_rollouts=2)
    done = np.asarray(rollout.terminated | rollout.truncated)
    hparams, iteration = jax.tree.map(jnp.float32, learner.agent.hparams), jnp.int32(learner.agent.warmup)
    explore = jax.jit(learner.agent.explore)
    initial = learner.agent.initial_carry(learner.num_envs)
    carry = jax.tree.map(lambda x: x[0], rollout.carry)
    for t in range(learner.rollout_length):
        allclose(jax.tree.map(lambda x, t=t: x[t], rollout.carry), carry)
        obs, noise_t = jax.tree.map(lambda x, t=t: x[t], (rollout.obs, noise.act))
        action, carry, extras = explore(policy_params, obs, carry, noise_t, hparams, iteration)
        allclose((action, extras), jax.tree.map(lambda x, t=t: x[t], (rollout.action, rollout.extras)))
        ended = done[t][:, None]
        carry = jax.tree.map(lambda new, old, ended=ended: jnp.where(ended, new, old), initial, carry)
    allclose(after.carry, carry)


@pytest.mark.parametrize("name", RECURRENT)
def test_a_replay_from_the_first_carry_returns_what_acting_recorded(name):
    """Log-probabilities, values and carries of the whole rollout, in which episodes end, by `unroll_network`."""
    learner = RECURRENT[name]()
    network, head = recurrent_network(learner.env), policy_head(learner.env.action_space)
    params, _, rollout, _ = play(learner, num_rollouts=2)
    done = rollout.terminated | rollout.truncated
    first = rollout.carry[0]
    assert np.any(first != 0)  # it continues episodes of the rollout before
    ends = np.asarray(done[:-1])
    assert ends.sum() >= learner.num_envs
    if name == "CartPole":
        assert np.any(rollout.terminated)
        assert np.any(rollout.truncated)
        assert len({tuple(column) for column in ends.T}) > 1  # the environments end at different times

    # What the network returned when it acted, from the carries that the rollout recorded.
    flat = lambda x: x.reshape(-1, *x.shape[2:])
    unflat = lambda x: x.reshape(*done.shape, *x.shape[1:])
    (acted, recorded), after = jax.tree.map(unflat, network.apply(params, flat(rollout.obs), flat(rollout.carry)))

    (policy, value), carries = jax.jit(lambda: unroll_network(network, params, rollout.obs, first, done))()
    allclose(head.log_prob(policy, rollout.extras), head.log_prob(acted, rollout.extras))
    allclose(value, recorded)
    np.testing.assert_array_equal(rollout.carry[1:][ends], 0.0)
    allclose(carries[:-1][~ends], rollout.carry[1:][~ends])

    # The carry of a successor is never reset, also where the episode ended: a time limit bootstraps from it.
    allclose(carries, after)

    # Within an episode, the value of the true successor is what the next step recorded.
    _, next_value = jax.jit(lambda: successor_outputs(network, params, rollout.next_obs, carries))()
    allclose(next_value[:-1][~ends], recorded[1:][~ends])
    assert not np.any(np.isclose(next_value[:-1][ends], recorded[1:][ends], rtol=1e-4, atol=1e-5))


def first_kl(learner):
    """The divergence of the policy that learns, before it has learned, from the one that acted, in each of four iterations."""

    @jax.jit
    def run(key):
        hparams = jax.tree.map(jnp.float32, learner.agent.hparams._replace(learning_rate=0.02))
        return jaxrl.train(key, learner, 4, hparams, log_every=1)[1]["approx_kl"]

    return np.asarray(run(jax.random.key(0)))


@pytest.mark.parametrize("name", RECURRENT)
def test_the_first_ratio_of_probabilities_is_one(name):
    """Half the mean squared logarithm of the ratio is below 10⁻¹⁰, so the ratio differs from 1 by 10⁻⁵ or less."""
    assert np.max(first_kl(first_steps(name))) < 1e-10


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_carry_that_is_reset_a_step_off_is_noticed(monkeypatch, shift):
    """As several public implementations do it."""

    def misaligned(network, params, obs, carry, done):
        return unroll_network(network, params, obs, carry, jnp.roll(done, shift, axis=0))

    monkeypatch.setattr(_recurrent_ppo, "unroll_network", misaligned)
    assert np.max(first_kl(first_steps("CartPole"))) > 1e-8


def test_minibatches_are_of_whole_environments():
    with pytest.raises(ValueError, match=r"num_minibatches 4 must divide the 6 rows .* whole sequences.* nearest that does is 3"):
        recurrent_ppo_learner(num_envs=6, num_minibatches=4)


def test_a_network_without_a_value_is_refused():
    env = cart_pole()
    network = jaxrl.networks.recurrent_policy(env.observation_space, env.action_space)
    agent = jaxrl.agents.recurrent_ppo(network, env.action_space)
    with pytest.raises(ValueError, match=r"recurrent_ppo: .*recurrent_policy\(\.\.\., value=True\)"):
        jaxrl.make_learner(env, agent, num_envs=4, rollout_length=2)


def test_another_carry_is_seen():
    """The policy of this test depends on the carry, or the comparisons above would show nothing."""
    learner = RECURRENT["CartPole"]()
    network = recurrent_network(learner.env)
    params, _, rollout, _ = play(learner, num_rollouts=2)
    (logits, value), _ = network.apply(params, rollout.obs[1], rollout.carry[1])
    (other_logits, other_value), _ = network.apply(params, rollout.obs[1], network.initial_carry(learner.num_envs))
    assert np.max(np.abs(value - other_value)) > 1e-2
    assert np.max(np.abs(logits - other_logits)) > 1e-4


def final_returns(learner, hparams, num_iterations, num_seeds=4):
    """Mean returns over 200 greedy episodes, for each seed."""

    def run(key):
        state, _ = jaxrl.train(key, learner, num_iterations, hparams)
        return jaxrl.evaluate(jax.random.fold_in(key, 1), learner, state, num_episodes=200).mean()

    return np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), num_seeds)))


def test_an_agent_with_memory_solves_the_memory_probe():
    """In most seeds it returns 1 in every episode. Rollouts end within episodes, so the carry must survive them."""
    probe = PROBES["memory"]()
    learner = recurrent_ppo_learner(probe.env, num_envs=16, rollout_length=7)
    hparams = learner.agent.hparams._replace(learning_rate=0.01, discount=probe.discount)
    assert np.sum(final_returns(learner, hparams, 150, num_seeds=8) == 1.0) > 4


def test_an_agent_without_memory_stays_at_chance():
    """It acts on the last observation, which is always 0: half of its 200 answers are right, ± 4.5 standard deviations."""
    probe = PROBES["memory"]()
    learner = ppo_learner(probe.env, num_envs=16, rollout_length=6)
    hparams = learner.agent.hparams._replace(learning_rate=0.01, discount=probe.discount)
    returns = final_returns(learner, hparams, 100)
    assert np.all(np.abs(returns) < 4.5 / np.sqrt(200))


@pytest.mark.slow
def test_the_memory_chain_is_solved_with_memory_and_stays_at_chance_without():
    """Most seeds answer all of 200 questions, of which half are right by chance, ± 4.5 standard deviations.

    Of 64 seeds all did after 100 iterations. After 200 it was 60: normalised, the advantages of a solved task are noise.
    """
    env = jaxrl.make("MemoryChain-bsuite")
    recurrent = recurrent_ppo_learner(env, num_envs=32, rollout_length=32, num_units=16, num_epochs=4, num_minibatches=4)
    forward = ppo_learner(env, num_envs=32, rollout_length=32, num_epochs=4, num_minibatches=4)
    hparams = recurrent.agent.hparams._replace(learning_rate=3e-3)
    assert np.sum(final_returns(recurrent, hparams, 100, num_seeds=8) == 1.0) > 4
    hparams = forward.agent.hparams._replace(learning_rate=3e-3)
    assert np.all(np.abs(final_returns(forward, hparams, 100, num_seeds=8)) < 4.5 / np.sqrt(200))
