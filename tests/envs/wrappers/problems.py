"""Small environments for every kind of wrapper, and random play of them through `unroll`."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.envs import wrappers as w
from jaxrl.rollout import RolloutCarry, RolloutNoise, unroll, zero_stats
from jaxrl.types import Agent, Box, Discrete, Environment, Step, Transition
from tests.test_rollout import counting_agent

# The programs here run for milliseconds: compiling them is what costs.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


class WalkParams(NamedTuple):
    drift: Any
    max_steps_in_episode: Any


class Walk(NamedTuple):
    position: jax.Array  # [2]
    time: jax.Array


def walk(limit: int = 5, drift: float = 0.25) -> Environment:
    """A walk in the plane: each action adds itself and a drift. It terminates beyond 2 on the first axis."""
    low, high = np.float32([-1.0, -0.5]), np.float32([1.5, 1.0])

    def reset(key, params):
        position = jax.random.uniform(key, (2,), minval=-1.0)
        return Walk(position, jnp.int32(0)), position

    def step(key, state, action, params):
        position = jnp.clip(state.position + action + jnp.asarray(params.drift, jnp.float32), -4.0, 4.0)
        time = state.time + 1
        after = Step(position, position[0] + 10 * position[1], position[0] > 2.0, time >= params.max_steps_in_episode)
        return Walk(position, time), after

    params = WalkParams(drift, limit)
    return Environment(reset, step, params, Box(-4, 4, (2,)), Box(low, high, (2,)), "walk")


class Constant(NamedTuple):
    value: Any


def constant(value: float = 1.0, limit: int = 4) -> Environment:
    """Shows and pays its parameter, for `limit` steps."""

    def observe(params):
        return jnp.reshape(jnp.asarray(params.value, jnp.float32), 1)

    def reset(key, params):
        return jnp.int32(0), observe(params)

    def step(key, time, action, params):
        return time + 1, Step(observe(params), observe(params)[0], jnp.bool_(False), time + 1 >= limit)

    return Environment(reset, step, Constant(value), Box(-np.inf, np.inf, (1,)), Discrete(2), "constant")


def echo(space, limit: int = 6) -> Environment:
    """Shows the action that was executed; before the first, zeros."""

    def reset(key, params):
        return jnp.int32(0), jnp.zeros(space.shape, space.dtype)

    def step(key, time, action, params):
        return time + 1, Step(jnp.asarray(action, space.dtype), jnp.float32(0), jnp.bool_(False), time + 1 >= limit)

    return Environment(reset, step, np.float32(0), space, space, "echo")


class Played(NamedTuple):
    players: RolloutCarry  # after the last step
    transitions: Transition  # leaves [T, B, ...], in NumPy


def random_actions(space, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform ones; normal ones where there are no bounds."""
    rng = np.random.default_rng(0)
    if isinstance(space, Discrete):
        return rng.integers(0, space.n, shape).astype(np.int32)
    shape = (*shape, *space.shape)
    return (rng.uniform(space.low, space.high, shape) if space.bounded else 3 * rng.standard_normal(shape)).astype(space.dtype)


def acting_by_noise() -> Agent:
    agent = counting_agent()
    return agent._replace(memory=lambda num_envs: (), act=lambda state, obs, memory, noise_t, hparams, clock: (noise_t, (), ()))


def play(env: Environment, num_steps: int = 16, num_envs: int = 3) -> Played:
    """A rollout with random actions. It is one program, and no key is used twice in it."""
    keys = jax.random.split(jax.random.key(0), (2, num_steps, num_envs))

    def run(start_keys, reset_keys, step_keys, actions):
        env_state, obs = jax.vmap(env.reset, (0, None))(start_keys, env.params)
        players = RolloutCarry(env_state, obs, (), zero_stats(num_envs))
        return unroll(env, acting_by_noise(), (), players, RolloutNoise(step_keys, reset_keys, actions), (), jnp.int32(0))

    start_keys = jax.random.split(jax.random.key(1), num_envs)
    actions = random_actions(env.action_space, (num_steps, num_envs))
    with jax.debug_key_reuse(True):
        players, transitions = jit(run)(start_keys, keys[0], keys[1], actions)
    return Played(players, jax.tree.map(np.asarray, transitions))


def done(transitions: Transition) -> np.ndarray:
    return transitions.terminated | transitions.truncated


def first(transitions: Transition) -> np.ndarray:
    """bool `[T, B]`: whether an episode begins with this step."""
    ended = done(transitions)
    return np.concatenate([np.ones_like(ended[:1]), ended[:-1]])


def episodes(transitions: Transition, b: int) -> list[Transition]:
    """The episodes of environment `b`, leaves `[length, ...]`; the last one may be unfinished."""
    starts = np.flatnonzero(first(transitions)[:, b])
    ends = [*starts[1:], len(transitions.reward)]
    return [jax.tree.map(lambda x, s=s, e=e: x[s:e, b], transitions) for s, e in zip(starts, ends, strict=True)]


def specs(tree):
    return [(x.shape, x.dtype, getattr(x, "weak_type", False)) for x in jax.tree.leaves(tree)]


def check_types(env):
    """Spaces say what is emitted, and neither a step nor a new episode changes a type."""
    key = jax.random.key(0)
    state, obs = jax.eval_shape(env.reset, key, env.params)
    action = jnp.zeros(env.action_space.shape, env.action_space.dtype)
    after, out = jax.eval_shape(env.step, key, state, action, env.params)
    space = env.observation_space
    assert specs(obs) == specs(out.obs) == [(space.shape, space.dtype, False)]
    assert specs(state) == specs(after)
    assert not any(x.weak_type for x in jax.tree.leaves(state))
    flag = ((), jnp.bool_, False)
    assert specs(out[1:]) == [((), jnp.float32, False), flag, flag]
    if env.carry_over is not None:
        assert specs(jax.eval_shape(env.carry_over, after, state, obs)) == specs((state, obs))


WRAPPERS = {
    "flatten": w.flatten,
    "partial_observation": lambda env: w.partial_observation(env, np.arange(env.observation_space.shape[0]) != 1),
    "frame_stack": lambda env: w.frame_stack(env, 3),
    "observation_noise": lambda env: w.observation_noise(env, 0.5),
    "time_aware": w.time_aware,
    "normalize_observations": w.normalize_observations,
    "normalize_rewards": w.normalize_rewards,
    "scale_rewards": lambda env: w.scale_rewards(env, 0.1),
    "clip_rewards": w.clip_rewards,
    "rescale_actions": w.rescale_actions,
    "clip_actions": w.clip_actions,
    "discretize_actions": lambda env: w.discretize_actions(env, w.action_grid(env.action_space, 3)),
    "sticky_actions": lambda env: w.sticky_actions(env, 0.5),
    "action_repeat": lambda env: w.action_repeat(env, 2),
    "time_limit": lambda env: w.time_limit(env, 4),
    "episode_statistics": w.episode_statistics,
    "randomize_params": lambda env: w.randomize_params(env, lambda key, params: params),
    "over_params": lambda env: w.over_params(env, jax.tree.map(lambda x: np.stack([x, x]), env.params)),
}
ENVIRONMENTS = {name: functools.partial(lambda wrap: wrap(walk()), wrap) for name, wrap in WRAPPERS.items()} | {
    "plain": walk,
    "randomize_params": lambda: w.randomize_params(walk(), w.uniform_params(drift=(0.0, 0.5))),
    "over_params": lambda: w.over_params(walk(), jax.tree.map(lambda x: np.stack([x, x + 1]), walk().params)),
    "one_hot": lambda: w.one_hot(echo(Discrete(3))),
}


@functools.cache
def played(name: str) -> Played:
    """Random play of one of `ENVIRONMENTS`, for all who look at it. Those that draw nothing meet what "plain" meets."""
    return play(ENVIRONMENTS[name]())


def compose(env, names):
    """Wrapped in this order, inside first; an action wrapper that does not fit the actions any more is left out."""
    for name in names:
        space = env.action_space
        bounded = isinstance(space, Box) and space.bounded
        fits = {"rescale_actions": bounded, "discretize_actions": bounded, "clip_actions": isinstance(space, Box)}
        env = WRAPPERS[name](env) if fits.get(name, True) else env
    return env
