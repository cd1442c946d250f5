"""What the tests of all suites do: play at random beside the suite's own API, and learn something quickly."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from jaxrl.envs.suites.adapter import lenient
from jaxrl.spaces import Box, Dict, Discrete, num_choices, spec, split_action_mask
from jaxrl.types import Environment, Learner


def random_action(space: Any, key: jax.Array, mask: Any = None) -> jax.Array:
    """A uniform action, legal where there is a mask."""
    if isinstance(space, Box):
        return jax.random.uniform(key, space.shape, space.dtype, space.low, space.high)
    sizes = (space.n,) if isinstance(space, Discrete) else space.nvec
    mask = jnp.ones(num_choices(space), jnp.bool_) if mask is None else mask
    parts = jnp.split(jnp.where(mask, 0.0, -jnp.inf), np.cumsum(sizes)[:-1])
    keys = jax.random.split(key, len(sizes))
    action = jnp.stack([jax.random.categorical(k, logits) for k, logits in zip(keys, parts, strict=True)])
    return action.reshape(space.shape).astype(jnp.int32)


def run_with_x64(code: str) -> str:
    """What a Python program prints in a process of its own, with `jax_enable_x64` and from the root of the repository."""
    root = Path(__file__).parents[3]
    env = os.environ | {"JAX_ENABLE_X64": "1", "PYTHONPATH": str(root)}
    return subprocess.run([sys.executable, "-c", code], cwd=root, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout


def check_types(env: Environment) -> None:
    """State and observation keep shape and dtype, strongly typed; reward float32, flags bool; the space is the observation's."""
    key = jax.random.key(0)
    state, obs = jax.eval_shape(env.reset, key, env.params)
    action = jax.eval_shape(lambda key: random_action(env.action_space, key), key)
    after, out = jax.eval_shape(env.step, key, state, action, env.params)
    before, later = jax.tree.leaves((state, obs)), jax.tree.leaves((after, out.obs))
    assert jax.tree.structure((state, obs)) == jax.tree.structure((after, out.obs))
    assert [(x.shape, x.dtype, x.weak_type) for x in before] == [(x.shape, x.dtype, x.weak_type) for x in later]
    assert not any(x.weak_type for x in before)
    assert (out.reward.shape, out.reward.dtype) == ((), jnp.float32)
    assert [(flag.shape, flag.dtype) for flag in (out.terminated, out.truncated)] == [((), jnp.bool_)] * 2
    assert jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), obs) == spec(env.observation_space)


def play_beside(
    env: Environment, theirs: Callable[..., Any], *, num_steps: int = 200, num_envs: int = 4, legal: bool = False
) -> tuple[Any, Any, np.ndarray]:
    """Random steps under jit and vmap; each is also made by the suite's own API, from the same state.

    Args:
      theirs: `(key, state, action) -> (obs, reward, terminated, truncated)`, where `state` is that of `env`.
      legal: take only actions that the mask in the observation allows.

    Returns:
      ours and theirs, each `(obs, reward, terminated, truncated)` with leaves `[num_envs, num_steps, ...]`, and the
      first observations of the episodes after a step that ended one, `[num_envs, num_steps, ...]`.
    """

    def play(key):
        reset_key, run_key = jax.random.split(key)
        start = env.reset(reset_key, env.params)

        def step(state_and_obs, key):
            state, obs = state_and_obs
            action_key, step_key, reset_key = jax.random.split(key, 3)
            action = random_action(env.action_space, action_key, split_action_mask(obs)[1] if legal else None)
            with lenient():
                their = theirs(step_key, state, action)
            after, ours = env.step(step_key, state, action, env.params)
            fresh = env.reset(reset_key, env.params)
            done = ours.terminated | ours.truncated
            carry = jax.tree.map(lambda x, y: jnp.where(done, x, y), fresh, (after, ours.obs))
            return carry, (tuple(ours), their, fresh[1])

        return jax.lax.scan(step, start, jax.random.split(run_key, num_steps))[1]

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
        assert jax.tree.structure(x) == jax.tree.structure(y)
        for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
            np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=rtol, atol=atol, err_msg=name)


def assert_contained(env: Environment, obs: Any, space: Any = None) -> None:
    space = env.observation_space if space is None else space
    if isinstance(space, Dict):
        assert sorted(space) == sorted(obs)
        for name in space:
            assert_contained(env, obs[name], space[name])
        return
    low, high = (0, space.n - 1) if isinstance(space, Discrete) else (space.low, space.high)
    assert np.all((obs >= low) & (obs <= high))


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
