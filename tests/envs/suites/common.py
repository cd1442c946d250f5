"""What the tests of all suites do: play at random beside the suite's own API, and learn something quickly."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from jaxrl.envs.suites.adapter import lenient
from jaxrl.types import Discrete, Environment, Learner


def random_action(space: Any, key: jax.Array) -> jax.Array:
    if isinstance(space, Discrete):
        return jax.random.randint(key, (), 0, space.n)
    return jax.random.uniform(key, space.shape, space.dtype, space.low, space.high)


def check_types(env: Environment) -> None:
    """State and observation keep shape and dtype, strongly typed; reward float32, flags bool; the space is the observation's."""
    key = jax.random.key(0)
    state, obs = jax.eval_shape(env.reset, key, env.params)
    action = jax.eval_shape(lambda key: random_action(env.action_space, key), key)
    after, out = jax.eval_shape(env.step, key, state, action, env.params)
    before, later = jax.tree.leaves((state, obs)), jax.tree.leaves((after, out.obs))
    assert [(x.shape, x.dtype, x.weak_type) for x in before] == [(x.shape, x.dtype, x.weak_type) for x in later]
    assert not any(x.weak_type for x in before)
    assert (out.reward.shape, out.reward.dtype) == ((), jnp.float32)
    assert [(flag.shape, flag.dtype) for flag in (out.terminated, out.truncated)] == [((), jnp.bool_)] * 2
    assert (env.observation_space.shape, env.observation_space.dtype) == (obs.shape, obs.dtype)


def play_beside(
    env: Environment, theirs: Callable[..., Any], *, num_steps: int = 200, num_envs: int = 4
) -> tuple[Any, Any, np.ndarray]:
    """Random steps under jit and vmap; each is also made by the suite's own API, from the same state.

    Args:
      theirs: `(key, state, action) -> (obs, reward, terminated, truncated)`, where `state` is that of `env`.

    Returns:
      ours and theirs, each `(obs, reward, terminated, truncated)` with leaves `[num_envs, num_steps, ...]`, and the
      first observations of the episodes after a step that ended one, `[num_envs, num_steps, ...]`.
    """

    def play(key):
        reset_key, run_key = jax.random.split(key)
        state, _ = env.reset(reset_key, env.params)

        def step(state, key):
            action_key, step_key, reset_key = jax.random.split(key, 3)
            action = random_action(env.action_space, action_key)
            with lenient():
                their = theirs(step_key, state, action)
            after, ours = env.step(step_key, state, action, env.params)
            fresh, obs = env.reset(reset_key, env.params)
            done = ours.terminated | ours.truncated
            return jax.tree.map(lambda x, y: jnp.where(done, x, y), fresh, after), (tuple(ours), their, obs)

        return jax.lax.scan(step, state, jax.random.split(run_key, num_steps))[1]

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(0), num_envs)))


def beside_episode_wrapper(theirs: Any) -> Callable[..., Any]:
    """For `play_beside`: brax's EpisodeWrapper, with its own clock and flags, from the state of ours."""
    with lenient():
        info = jax.eval_shape(theirs.reset, jax.random.key(0)).info

    def step(key, state, action):
        clock = {name: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), spec) for name, spec in info.items()}
        clock |= state.inner.info | {"steps": state.time.astype(jnp.float32)}
        after = theirs.step(state.inner.replace(info=clock), action)
        truncated = after.info["truncation"] > 0
        return after.obs, after.reward, (after.done > 0) & ~truncated, truncated

    return step


def assert_same(ours: Any, theirs: Any, *, rtol: float = 1e-5, atol: float = 1e-5) -> None:
    for name, x, y in zip(("obs", "reward", "terminated", "truncated"), ours, theirs, strict=True):
        np.testing.assert_allclose(x.astype(np.float64), y.astype(np.float64), rtol=rtol, atol=atol, err_msg=name)


def assert_contained(env: Environment, obs: np.ndarray) -> None:
    space = env.observation_space
    assert np.all((obs >= space.low) & (obs <= space.high))


def returns_before_and_after(learner: Learner, num_iterations: int, *, seeds: int = 2, **hparams: float) -> np.ndarray:
    """Mean returns `[2, seeds]` of the first and the last tenth of the training run."""
    hparams = learner.agent.hparams._replace(**hparams)
    train = jaxrl.vectorize(lambda key: jaxrl.train(key, learner, num_iterations, hparams, log_every=num_iterations // 10)[1])
    curve = np.asarray(train(jax.random.split(jax.random.key(0), seeds))["episode_return"])
    print(np.round(curve, 2))  # for the report of pytest -rA
    return curve[:, [0, -1]].T


def reinforce(env: Environment, *, num_envs: int = 16, rollout_length: int = 32, **static: Any) -> Learner:
    value = static.get("baseline") == "value"
    network = jaxrl.networks.policy(env.observation_space, env.action_space, value=value)
    agent = jaxrl.agents.reinforce(network, env.action_space, **static)
    return jaxrl.make_learner(env, agent, num_envs=num_envs, rollout_length=rollout_length)


def dqn(env: Environment, *, num_envs: int = 16, **static: Any) -> Learner:
    network = jaxrl.networks.q_network(env.observation_space, env.action_space)
    agent = jaxrl.agents.dqn(
        network, env.action_space, **{"capacity": 32_000, "warmup": 100, "updates_per_iteration": 2} | static
    )
    return jaxrl.make_learner(env, agent, num_envs=num_envs, rollout_length=1)
