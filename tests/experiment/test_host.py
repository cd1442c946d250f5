"""The host loop against `jaxrl.train`: the same environment on both sides, and the same run must come out."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.interpreters.partial_eval import dce_jaxpr

import jaxrl
from jaxrl.cli import main
from jaxrl.envs import from_gymnasium, to_gymnasium, wrappers
from jaxrl.experiment import evaluate_on_host, train_on_host
from jaxrl.experiment.host import evaluate_policy_on_host
from jaxrl.types import Agent, Box, Discrete, Environment, Noise, Step
from tests.problems import dqn_learner, endless, reinforce_learner


class Walk(NamedTuple):
    position: jax.Array
    time: jax.Array


def walk() -> Environment:
    """One step left or right; it terminates at ±3 and is truncated after 5 steps. Nothing is random, so that both loops see
    the same episodes; a reset observation shows."""

    def observe(state):
        return jnp.stack([state.position.astype(jnp.float32), jnp.where(state.time == 0, 10.0, state.time.astype(jnp.float32))])

    def reset(key, params):
        state = Walk(jnp.int32(0), jnp.int32(0))
        return state, observe(state)

    def step(key, state, action, params):
        state = Walk(state.position + 2 * action - 1, state.time + 1)
        reward = 1.0 + state.position.astype(jnp.float32)
        return state, Step(observe(state), reward, jnp.abs(state.position) >= 3, state.time >= params.max_steps_in_episode)

    return Environment(reset, step, Limit(5), Box(-5, 10, (2,)), Discrete(2), "walk")


class Limit(NamedTuple):
    max_steps_in_episode: int


def on_host(env):
    """Its twin: the same functions, stepped through Gymnasium."""
    return from_gymnasium(lambda: to_gymnasium(env))


class Memory(NamedTuple):
    params: jax.Array


def remembering(num_actions=2) -> Agent:
    """Acts by how many steps it remembers, and reports its carry, extras and successors as it finds them."""

    def explore(policy_params, obs, carry, noise_t, hparams, iteration):
        return carry % num_actions, carry + 1, {"squared": carry * carry}

    def update(state, rollout, noise, hparams, iteration):
        metrics = {
            "carry": rollout.carry.astype(jnp.float32),
            "squared": rollout.extras["squared"].astype(jnp.float32),
            "successor": jnp.sum(rollout.next_obs, axis=-1),
            "noise": noise,
        }
        return state, metrics

    return Agent(
        hparams=Memory(1.0),
        init=lambda key, obs, hparams: Memory(jnp.float32(0)),
        noise=lambda key, num_steps, num_envs: Noise(jnp.zeros((num_steps, num_envs)), jax.random.normal(key)),
        policy=lambda state: (),
        explore=explore,
        exploit=lambda policy_params, obs, carry, key: (carry % num_actions, carry + 1),
        update=update,
        initial_carry=lambda num_envs: jnp.zeros(num_envs, jnp.int32),
        warmup=2,
    )


def remembering_learner(env):
    return jaxrl.make_learner(env, remembering(), num_envs=3, rollout_length=7)


LEARNERS = {
    "dqn": lambda env: dqn_learner(env, rollout_length=3, capacity=96),
    "reinforce, whole episodes": lambda env: reinforce_learner(env, rollout_length=6),
    "memory": lambda env: remembering_learner(env),
}


@cache
def both(name):
    """(learner, state, metrics) of the compiled run, and of the run on the host, with the same key."""
    compiled, hosted = LEARNERS[name](walk()), LEARNERS[name](on_host(walk()))
    key = jax.random.key(4)
    train = jax.jit(lambda key: jaxrl.train(key, compiled, 24, log_every=6))
    return (compiled, *train(key)), (hosted, *train_on_host(key, hosted, 24, log_every=6))


@pytest.mark.parametrize("name", LEARNERS)
def test_the_loop_on_the_host_is_the_compiled_one(name):
    (compiled, state, metrics), (_, host_state, host_metrics) = both(name)
    assert metrics.keys() == host_metrics.keys()
    for metric, values in metrics.items():
        assert values.dtype == host_metrics[metric].dtype, metric
        np.testing.assert_allclose(host_metrics[metric], values, rtol=2e-4, atol=1e-5, err_msg=metric)
    assert metrics["episodes"].sum() > 0
    for ours, theirs in zip(jax.tree.leaves(state.agent.params), jax.tree.leaves(host_state.agent.params), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-4)
    if not compiled.agent.fresh_episodes:  # where the compiled loop plays on after them, and the host does not
        np.testing.assert_allclose(host_state.obs, state.obs)
        for ours, theirs in zip(state.stats, host_state.stats, strict=True):
            np.testing.assert_allclose(theirs, ours)


def test_policies_play_on_the_host_as_in_the_program():
    (compiled, *_), (hosted, host_state, _) = both("dqn")
    expected = jaxrl.evaluate(jax.random.key(0), compiled, host_state, num_episodes=6)
    returns = evaluate_on_host(jax.random.key(1), hosted, host_state, num_episodes=6)
    np.testing.assert_allclose(returns, expected, rtol=1e-5)
    assert returns.dtype == np.float32


def test_an_episode_without_an_end_has_no_return():
    learner = remembering_learner(on_host(endless(limit=1_000)))
    state, _ = train_on_host(jax.random.key(0), learner, 1)
    returns = evaluate_on_host(jax.random.key(0), learner, state, num_episodes=2, max_steps=5)
    assert np.isnan(returns).all()


def test_one_key_one_run_and_another_key_another():
    learner = remembering_learner(jaxrl.make("gymnasium/CartPole-v1"))
    (a, rows), (b, same), (c, other) = (train_on_host(jax.random.key(seed), learner, 6, log_every=6) for seed in (0, 0, 1))
    for x, y in zip(jax.tree.leaves((a.agent.params, rows)), jax.tree.leaves((b.agent.params, same)), strict=True):
        np.testing.assert_array_equal(x, y)
    assert rows["noise"] != other["noise"]
    assert rows["successor"] != other["successor"]
    assert (a.obs != c.obs).all()
    played = [evaluate_on_host(jax.random.key(seed), learner, a, num_episodes=5) for seed in (2, 2, 3)]
    np.testing.assert_array_equal(played[0], played[1])
    assert (played[0] != played[2]).any()
    assert played[0].shape == (5,)


def test_returns_do_not_depend_on_how_many_play_at_once():
    env = jaxrl.make("gymnasium/CartPole-v1")
    learners = [jaxrl.make_learner(env, remembering(), num_envs=n, rollout_length=7) for n in (1, 3)]
    state, _ = train_on_host(jax.random.key(0), learners[0], 1)
    alone, together = (evaluate_on_host(jax.random.key(1), learner, state, num_episodes=6) for learner in learners)
    np.testing.assert_array_equal(alone, together)
    assert len(set(alone)) > 3, "every episode has a seed of its own"


def test_rows_are_reported_as_they_come():
    seen = []
    learner = remembering_learner(on_host(walk()))
    _, metrics = train_on_host(jax.random.key(0), learner, 9, log_every=3, report=lambda done, row: seen.append((done, row)))
    assert [done for done, _ in seen] == [3, 6, 9]
    np.testing.assert_array_equal([row["noise"] for _, row in seen], metrics["noise"])


def test_each_driver_refuses_the_others_environments():
    host, compiled = remembering_learner(jaxrl.make("gymnasium/CartPole-v1")), remembering_learner(walk())
    key = jax.random.key(0)
    message = r"gymnasium/CartPole-v1 runs on the host and cannot be compiled: train with jaxrl\.experiment\.train_on_host"
    with pytest.raises(TypeError, match=message):
        jaxrl.train(key, host, 10)
    with pytest.raises(TypeError, match=message):
        jax.jit(lambda key: jaxrl.train(key, host, 10))(key)
    with pytest.raises(TypeError, match=message):
        host.env.reset(key, host.env.params)
    with pytest.raises(TypeError, match=r"walk is a JAX program: train it with jaxrl\.train"):
        train_on_host(key, compiled, 10)


@pytest.mark.parametrize("wrap", [wrappers.flatten, lambda env: wrappers.time_limit(env, 10)], ids=["flatten", "time_limit"])
def test_a_wrapper_that_would_do_nothing_is_refused(wrap):
    learner = remembering_learner(wrap(jaxrl.make("gymnasium/CartPole-v1")))
    with pytest.raises(TypeError, match=r"jaxrl's wrappers have no effect on gymnasium/CartPole-v1"):
        train_on_host(jax.random.key(0), learner, 1)


def test_wrong_numbers_are_refused_before_an_environment_is_opened():
    learner = remembering_learner(on_host(walk()))
    with pytest.raises(ValueError, match="must be a multiple of log_every 4"):
        train_on_host(jax.random.key(0), learner, 10, log_every=4)
    with pytest.raises(TypeError, match="key must be a typed PRNG key"):
        train_on_host(0, learner, 10)
    state = jax.eval_shape(learner.agent.init, jax.random.key(0), jnp.zeros((3, 1)), learner.agent.hparams)
    with pytest.raises(ValueError, match="num_episodes must be at least 1"):
        evaluate_policy_on_host(jax.random.key(0), learner, state, num_episodes=0)


def test_the_command_line_trains_and_plays_them(tmp_path, capsys):
    out = tmp_path / "run"
    small = ["--agent.num-envs", "4", "--agent.hidden", "8", "--agent.warmup-steps", "40", "--agent.batch-size", "8"]
    sizes = ["--steps", "240", "--seeds", "2", "--agent.capacity", "64"]
    assert main(["train", "dqn", "--env", "gymnasium/CartPole-v1", *small, *sizes, "--out", str(out)]) == 0
    assert "2 runs of 240 environment steps" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "metrics.csv",
        "evaluation.csv",
        "system.json",
        "curve.png",
        "evaluation.png",
        "policies",
        "best_policies",
    }
    assert main(["eval", str(out), "--episodes", "2"]) == 0
    assert "dqn on gymnasium/CartPole-v1" in capsys.readouterr().out


def test_a_traced_step_depends_on_the_action():
    env = jaxrl.make("gymnasium/CartPole-v1")
    jaxpr = jax.make_jaxpr(lambda action: env.step(jax.random.key(0), (), action, env.params))(jnp.int32(0)).jaxpr
    assert dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[1] == [True]


@pytest.mark.slow
def test_dqn_learns_gymnasiums_cart_pole():
    """Random actions give 22; the preset's compiled runs reach 498 (worst of 32 seeds 259) in as many steps."""
    env = jaxrl.make("gymnasium/CartPole-v1")
    settings = jaxrl.presets.tuned("dqn", "CartPole-v1", 100_000)
    learner, hparams, num_iterations, _ = jaxrl.presets.build(settings, env)
    returns = []
    for seed in range(5):
        key, play_key = jax.random.split(jax.random.key(seed))
        state, _ = train_on_host(key, learner, num_iterations, hparams)
        returns.append(evaluate_on_host(play_key, learner, state, num_episodes=20).mean())
    print(np.round(returns, 1))
    assert np.median(returns) > 400, returns
    assert min(returns) > 100, returns
