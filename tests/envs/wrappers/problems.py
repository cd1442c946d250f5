"""Small environments for every kind of wrapper, and random rollouts of them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.envs import wrappers as w
from jaxrl.envs.wrappers._inner import is_legal
from jaxrl.spaces import num_choices, spec
from jaxrl.types import Box, Dict, Discrete, Environment, MultiDiscrete, Step

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
        position = jax.random.uniform(key, (2,), jnp.float32, minval=-1.0)
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


class Room(NamedTuple):
    position: jax.Array  # [2]
    time: jax.Array


def room(action_space=Discrete(4), limit: int = 5) -> Environment:
    """Observations in a Dict, of every kind, with an action mask; an illegal action pays -100. It terminates beyond 1.

    All entries of the mask are True but one: entry t mod n at step t.
    """
    num = num_choices(action_space)
    space = Dict(
        {
            "position": Box(-2, 2, (2,)),
            "image": Box(0, 255, (3, 2, 1), np.uint8),
            "inside": Dict({"kind": Discrete(3)}),
            "pair": MultiDiscrete((2, 4)),
            "action_mask": Box(False, True, (num,), np.bool_),
        }
    )

    def observe(state):
        time = state.time
        return {
            "position": state.position,
            "image": (jnp.arange(6, dtype=jnp.int32).reshape(3, 2, 1) + 20 * time).astype(jnp.uint8),
            "inside": {"kind": time % 3},
            "pair": jnp.stack([time % 2, time % 4]),
            "action_mask": jnp.arange(num, dtype=jnp.int32) != time % num,
        }

    def reset(key, params):
        state = Room(jax.random.uniform(key, (2,), jnp.float32, minval=-0.5, maxval=0.5), jnp.int32(0))
        return state, observe(state)

    def step(key, state, action, params):
        legal = is_legal(action_space, observe(state)["action_mask"], action)
        move = params.drift * (1.0 + jnp.sum(jnp.asarray(action)).astype(jnp.float32))
        state = Room(jnp.clip(state.position + jnp.float32([1, -1]) * move, -2, 2), state.time + 1)
        reward = jnp.where(legal, move, -100.0)
        return state, Step(observe(state), reward, state.position[0] > 1.0, state.time >= params.max_steps_in_episode)

    return Environment(reset, step, WalkParams(np.float32(0.1), limit), space, action_space, "room")


class Transitions(NamedTuple):
    """NumPy arrays `[T, B, ...]`."""

    obs: Any
    action: Any
    reward: Any
    terminated: Any
    truncated: Any
    next_obs: Any


class Rollout(NamedTuple):
    env_state: Any  # after the last step, and after the reset where it ended an episode
    transitions: Transitions


def random_actions(space, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform ones; normal ones where there are no bounds."""
    rng = np.random.default_rng(0)
    if isinstance(space, Discrete):
        return rng.integers(0, space.n, shape).astype(np.int32)
    if isinstance(space, MultiDiscrete):
        return rng.integers(0, space.nvec, (*shape, len(space.nvec))).astype(np.int32)
    shape = (*shape, *space.shape)
    return (rng.uniform(space.low, space.high, shape) if space.bounded else 3 * rng.standard_normal(shape)).astype(space.dtype)


def random_rollout(env: Environment, num_steps: int = 16, num_envs: int = 3) -> Rollout:
    """A rollout with random actions, and resets as `jaxrl.rollout.unroll` makes them. No key is used twice in it."""
    keys = jax.random.split(jax.random.key(0), (2, num_steps, num_envs))
    reset = jax.vmap(env.reset, (0, None))

    def step(carry, drawn):
        env_state, obs = carry
        reset_key, step_key, action = drawn
        after, out = jax.vmap(env.step, (0, 0, 0, None))(step_key, env_state, action, env.params)
        over = out.terminated | out.truncated
        fresh = reset(reset_key, env.params)
        fresh = fresh if env.carry_over is None else jax.vmap(env.carry_over)(after, *fresh)
        choose = lambda x, y: jnp.where(over.reshape(num_envs, *[1] * (x.ndim - 1)), x, y)
        carry = jax.tree.map(choose, fresh, (after, out.obs))
        return carry, Transitions(obs, action, out.reward, out.terminated, out.truncated & ~out.terminated, out.obs)

    def run(start_keys, drawn):
        (env_state, _), transitions = jax.lax.scan(step, reset(start_keys, env.params), drawn)
        return Rollout(env_state, transitions)

    start_keys = jax.random.split(jax.random.key(1), num_envs)
    actions = random_actions(env.action_space, (num_steps, num_envs))
    with jax.debug_key_reuse(True):
        rollout = jit(run)(start_keys, (keys[0], keys[1], actions))
    return rollout._replace(transitions=jax.tree.map(np.asarray, rollout.transitions))


def done(transitions: Transitions) -> np.ndarray:
    return transitions.terminated | transitions.truncated


def first(transitions: Transitions) -> np.ndarray:
    """bool `[T, B]`: whether an episode begins with this step."""
    ended = done(transitions)
    return np.concatenate([np.ones_like(ended[:1]), ended[:-1]])


def episodes(transitions: Transitions, b: int) -> list[Transitions]:
    """The episodes of environment `b`, leaves `[length, ...]`; the last one may be unfinished."""
    starts = np.flatnonzero(first(transitions)[:, b])
    ends = [*starts[1:], len(transitions.reward)]
    return [jax.tree.map(lambda x, s=s, e=e: x[s:e, b], transitions) for s, e in zip(starts, ends, strict=True)]


def specs(tree):
    return [(x.shape, x.dtype, getattr(x, "weak_type", False)) for x in jax.tree.leaves(tree)]


def check_types(env):
    """Spaces describe what is returned, and neither a step nor a new episode changes a type."""
    key = jax.random.key(0)
    state, obs = jax.eval_shape(env.reset, key, env.params)
    action = jnp.zeros(env.action_space.shape, env.action_space.dtype)
    after, out = jax.eval_shape(env.step, key, state, action, env.params)
    expected = spec(env.observation_space)
    assert jax.tree.structure(obs) == jax.tree.structure(out.obs) == jax.tree.structure(expected)
    assert specs(obs) == specs(out.obs) == specs(expected)
    assert specs(state) == specs(after)
    assert not any(x.weak_type for x in jax.tree.leaves(state))
    flag = ((), jnp.bool_, False)
    assert specs(out[1:]) == [((), jnp.float32, False), flag, flag]
    if env.carry_over is not None:
        assert specs(jax.eval_shape(env.carry_over, after, state, obs)) == specs((state, obs))


def hide_first(env):
    """`partial_observation` without the first component of a vector, or of the entry "position"."""
    space = env.observation_space
    mask = np.arange((space if isinstance(space, Box) else space["position"]).shape[0]) != 0
    return w.partial_observation(env, mask if isinstance(space, Box) else {"position": mask})


OF_OBSERVATIONS = {
    "partial_observation": hide_first,
    "frame_stack": lambda env: w.frame_stack(env, 3),
    "observation_noise": lambda env: w.observation_noise(env, 0.5),
    "time_aware": w.time_aware,
    "normalize_observations": w.normalize_observations,
    "previous_action_and_reward": w.previous_action_and_reward,
    "flatten": w.flatten,
}
OF_THE_REST = {
    "normalize_rewards": w.normalize_rewards,
    "scale_rewards": lambda env: w.scale_rewards(env, 0.1),
    "clip_rewards": w.clip_rewards,
    "sticky_actions": lambda env: w.sticky_actions(env, 0.5),
    "action_repeat": lambda env: w.action_repeat(env, 2),
    "time_limit": lambda env: w.time_limit(env, 4),
    "episode_statistics": w.episode_statistics,
    "randomize_params": lambda env: w.randomize_params(env, lambda key, params: params),
    "over_params": lambda env: w.over_params(env, jax.tree.map(lambda x: np.stack([x, x]), env.params)),
    "over_levels": lambda env: w.over_levels(env, range(5)),
    "drift_params": lambda env: w.drift_params(env, lambda time, params: params),
}
OF_BOX_ACTIONS = {
    "rescale_actions": w.rescale_actions,
    "clip_actions": w.clip_actions,
    "discretize_actions": lambda env: w.discretize_actions(env, w.action_grid(env.action_space, 3)),
}
WRAPPERS = OF_OBSERVATIONS | OF_THE_REST | OF_BOX_ACTIONS
IN_A_ROOM = OF_OBSERVATIONS | OF_THE_REST | {"one_hot": w.one_hot}


def _wrapped(wrap, make, *args):
    return lambda: wrap(make(*args))


ENVIRONMENTS = {name: _wrapped(wrap, walk) for name, wrap in WRAPPERS.items()} | {
    "plain": walk,
    "randomize_params": lambda: w.randomize_params(walk(), w.uniform_params(drift=(0.0, 0.5))),
    "over_params": lambda: w.over_params(walk(), jax.tree.map(lambda x: np.stack([x, x + 1]), walk().params)),
    "one_hot": lambda: w.one_hot(echo(Discrete(3))),
    "discretize_actions, dimensions": lambda: w.discretize_actions(walk(), 3),
    "room": room,
    "room, two actions": lambda: room(MultiDiscrete((2, 3))),
}
ENVIRONMENTS |= {f"room, {name}": _wrapped(wrap, room) for name, wrap in IN_A_ROOM.items()}
ENVIRONMENTS |= {
    f"room, two actions, {name}": _wrapped(wrap, room, MultiDiscrete((2, 3)))
    for name, wrap in {
        "flatten_actions": w.flatten_actions,
        "flatten_actions over a normaliser": lambda env: w.flatten_actions(w.normalize_observations(env)),
        "previous_action_and_reward": w.previous_action_and_reward,
        "sticky_actions": lambda env: w.sticky_actions(env, 0.5),
        "action_repeat": lambda env: w.action_repeat(env, 2),
    }.items()
}


@functools.cache
def rollout_of(name: str) -> Rollout:
    """A random rollout of one of `ENVIRONMENTS`, shared by the tests. Those that draw nothing see the states of "plain"."""
    return random_rollout(ENVIRONMENTS[name]())


def compose(env, names):
    """Wrapped in this order, inside first; an action wrapper that does not fit the actions any more is left out."""
    for name in names:
        space = env.action_space
        bounded = isinstance(space, Box) and space.bounded
        fits = {"rescale_actions": bounded, "discretize_actions": bounded, "clip_actions": isinstance(space, Box)}
        env = WRAPPERS[name](env) if fits.get(name, True) else env
    return env
