"""The second half of `check_environment`: mistakes that only random actions reveal."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.envs.validation.findings import (
    Ahead,
    StepRecord,
    find_ends_at_once,
    find_flags,
    find_no_legal_action,
    find_not_finite,
    find_out_of_bounds,
    find_resets,
    step_counters,
)
from jaxrl.envs.validation.spaces import Findings, nvec
from jaxrl.rollout import select_done
from jaxrl.spaces import split_action_mask
from jaxrl.types import Discrete, Environment, MultiDiscrete, Step

_NUM_ENVS = 16
_STARTS = 256  # fresh states, to know what a fresh state looks like
_FAR = 100_000  # steps: beyond most time limits
_FEW = 32  # if an integer can start from fewer values than this, all of them are among the starts


class Draw(NamedTuple):
    """Everything random, drawn in advance: random numbers would take most of the time to compile."""

    start: jax.Array  # keys [K]
    step: jax.Array  # keys [T + 1, B]
    action: np.ndarray  # [T + 1, B, ...]: actions; with a mask, uniform numbers [T + 1, B, m] that choose legal ones
    fresh: np.ndarray  # int32 [T, B]: index of the start that follows if the episode ends


def check_random_play(env: Environment, num_steps: int) -> Findings:
    """Take `num_steps` random steps in each of 16 environments, and return the mistakes found and how to fix them."""
    start_key, step_key = jax.random.split(jax.random.key(0))
    state, _ = jax.eval_shape(env.reset, start_key, env.params)
    numbers = [(path, i) for i, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(state)) if _may_count(leaf)]
    numpy, shape = np.random.default_rng(0), (num_steps + 1, _NUM_ENVS)
    draw = Draw(
        start=jax.random.split(start_key, _STARTS),
        step=jax.random.split(step_key, shape),
        action=_random_numbers(numpy, env, shape),
        fresh=numpy.integers(0, _STARTS, (num_steps, _NUM_ENVS), np.int32),
    )
    # The program runs once, so compile time matters most.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    play = jax.jit(lambda draw, params: _play(env, [i for _, i in numbers], draw, params), compiler_options=options)
    try:
        with jax.debug_key_reuse(True):
            jax.jit(partial(_two_steps, env)).lower(*draw.step.ravel()[:3], draw.action[0, 0], env.params)
    except jax.errors.KeyReuseError as error:
        return [(f"a key is used twice: {str(error).splitlines()[0].rstrip('.')}", "split it, and use each part once")]
    span, record, ahead, reset_bad, start_masks = jax.tree.map(np.asarray, play(draw, env.params))
    names = [f"env_state{jax.tree_util.keystr(path)}" for path, _ in numbers]
    done = record.terminated | record.truncated
    pace = step_counters(record, done)
    return [
        *find_not_finite(record, reset_bad),
        *find_out_of_bounds(env.observation_space, span),
        *find_no_legal_action(env, record, start_masks),
        *find_resets(record, done, pace, ahead),
        *find_flags(record, done, pace, ahead, names),
        *(find_ends_at_once(done) if env.carry_over is not None else []),
    ]


def _two_steps(env: Environment, reset_key, first_key, second_key, number: jax.Array, params: Any) -> Any:
    """What JAX's check of keys has to see: an episode of two steps, in which a key of the state would be used twice.

    It is not for `_play`, which uses starts more than once, and steps many environments: the check takes the transposition of a
    batch of keys, before a loop over keys that `step` splits, for a use.
    """
    state, obs = env.reset(reset_key, params)
    for key in (first_key, second_key):
        mask = split_action_mask(obs)[1]
        action = number if mask is None else legal_action(env.action_space, mask, number)
        state, out = env.step(key, state, action, params)
        obs = out.obs
    return out


def random_actions(draw: np.random.Generator, space: Any, shape: tuple[int, ...]) -> np.ndarray:
    """`[*shape, *space.shape]`: uniform among integers and between the bounds of a `Box`, normal where it has none."""
    if isinstance(space, Discrete):
        return draw.integers(0, space.n, shape, np.int32)
    shape = (*shape, *space.shape)
    if isinstance(space, MultiDiscrete):
        return draw.integers(0, space.nvec, shape, np.int32)
    if not np.issubdtype(space.dtype, np.floating):
        return draw.integers(space.low, space.high, shape, endpoint=True).astype(space.dtype)
    bounded = np.isfinite(space.low) & np.isfinite(space.high)
    within = draw.uniform(np.where(bounded, space.low, 0), np.where(bounded, space.high, 0), shape)
    return np.where(bounded, within, draw.normal(size=shape)).astype(space.dtype)


def _random_numbers(draw: np.random.Generator, env: Environment, shape: tuple[int, int]) -> np.ndarray:
    if split_action_mask(env.observation_space)[1] is None:
        return random_actions(draw, env.action_space, shape)
    return draw.uniform(size=(*shape, len(nvec(env.action_space)))).astype(np.float32)


def legal_action(space: Any, mask: jax.Array, uniform: jax.Array) -> jax.Array:
    """A random legal action, int32, for a mask `[n]`, or `[sum(nvec)]`, and uniform numbers `[1]`, or `[m]`."""
    components = []
    for part, u in zip(_split_mask(space, mask), uniform, strict=True):
        rank = jnp.floor(u * jnp.sum(part, dtype=jnp.float32))
        index = jnp.sum(jnp.cumsum(part, dtype=jnp.float32) <= rank, dtype=jnp.int32)  # of the legal choice number `rank`
        components.append(jnp.minimum(index, part.shape[0] - 1))
    return jnp.stack(components).reshape(space.shape)


def _any_legal(space: Any, mask: jax.Array) -> jax.Array:
    """bool `[]`: every component has a legal choice."""
    return jnp.all(jnp.stack([jnp.any(part) for part in _split_mask(space, mask)]))


def _split_mask(space: Any, mask: jax.Array) -> list[jax.Array]:
    return jnp.split(mask, np.cumsum(nvec(space))[:-1])


def _play(env: Environment, numbers: list[int], draw: Draw, params: Any):
    """The extremes of the observations, the record `[T, B]`, what `_look_ahead` finds after it, and bool `[K]`: which
    starts have observations that are not finite, and which have a legal action."""
    space = env.action_space
    starts = jax.vmap(env.reset, (0, None))(draw.start, params)
    first_obs = starts[1]

    def step(key, state, obs, number):
        mask = split_action_mask(obs)[1]
        action = number if mask is None else legal_action(space, mask, number)
        return env.step(key, state, action, params)

    def begin(old, start, obs):
        return (start, obs) if env.carry_over is None else env.carry_over(old, start, obs)

    def look(carry, drawn):
        (state, obs), span = carry
        keys, number, fresh = drawn
        after, out = jax.vmap(step)(keys, state, obs, number)
        seen = _look(state, after, out, starts[0], numbers)
        next_mask = split_action_mask(out.obs)[1]
        done = out.terminated | out.truncated
        start = jax.tree.map(lambda x: x[fresh], starts)
        begun = jax.vmap(begin)(after, *start)
        begun_bad = _any_leaf(_not_finite_number, begun[1]) & ~_any_leaf(_not_finite_number, start[1])
        seen = seen._replace(begun_bad=(_any_new_nan(start[0], begun[0]) | begun_bad) & done)
        if next_mask is not None:
            none_legal = ~jax.vmap(partial(_any_legal, space))(next_mask) & ~out.terminated
            if env.carry_over is not None:
                none_legal |= ~jax.vmap(partial(_any_legal, space))(split_action_mask(begun[1])[1]) & done
            seen = seen._replace(no_legal_action=none_legal)
        carry = select_done(done, begun, (after, out.obs))
        return (carry, _widen(_widen(span, out.obs), carry[1])), seen

    first = jax.tree.map(lambda x: x[:_NUM_ENVS], starts)
    span = _widen((jax.tree.map(lambda x: x[0], first_obs),) * 2, first_obs)
    ((state, obs), span), record = jax.lax.scan(look, (first, span), (draw.step[:-1], draw.action[:-1], draw.fresh))

    def again(state):  # always with the same key
        return jax.vmap(step, (None, 0, 0, 0))(draw.step[-1, 0], state, obs, draw.action[-1])[1]

    mask = split_action_mask(first_obs)[1]
    has_legal = jnp.ones(1, bool) if mask is None else jax.vmap(partial(_any_legal, space))(mask)
    reset_bad = _any_leaf(_not_finite_number, first_obs)
    return span, record, _look_ahead(again, state, record, numbers, first_obs), reset_bad, has_legal


def _widen(span: tuple[Any, Any], obs: Any) -> tuple[Any, Any]:
    """The extremes so far and those of the observations `[B, ...]`."""
    low, high = span
    low = jax.tree.map(lambda low, x: jnp.minimum(low, x.min(axis=0)), low, obs)
    return low, jax.tree.map(lambda high, x: jnp.maximum(high, x.max(axis=0)), high, obs)


def _is_key(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _look(state: Any, after: Any, out: Step, starts: Any, numbers: list[int]) -> StepRecord:
    change = _take(after, numbers) - _take(state, numbers)
    obs_bad, reward_bad = (_any_leaf(_not_finite_number, x) for x in (out.obs, out.reward))
    flags, fresh, none = (out.terminated, out.truncated), _looks_fresh(after, starts), jnp.zeros(_NUM_ENVS, bool)
    return StepRecord(*flags, fresh, change, obs_bad, reward_bad, _any_new_nan(state, after), none, none)


def _not_finite_number(x: jax.Array) -> jax.Array:
    return ~jnp.isfinite(x.astype(jnp.float32))


def _any_new_nan(before: Any, after: Any) -> jax.Array:
    """bool `[B]`: a number of the state is NaN that was not. A state may begin with NaN, such as "no episode so far"."""
    floats = [pair for pair in zip(*map(jax.tree.leaves, (before, after)), strict=True) if _is_float(pair[1])]
    is_new = [jnp.isnan(new) & ~jnp.isnan(old) for old, new in floats]
    return _any_leaf(lambda x: x, is_new) if is_new else jnp.zeros(_NUM_ENVS, bool)


def _is_float(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _look_ahead(step: Callable[[Any], Step], state: Any, record: StepRecord, numbers: list[int], first_obs: Any) -> Ahead:
    """Set each possible step counter `_FAR` steps ahead, and record whether and how the episode then ends."""
    leaves, structure = jax.tree.flatten(state)
    change = jnp.max(record.change, axis=(0, 1))  # of a counter it is the same in every step

    def far(which):
        moved = list(leaves)
        for place, number in enumerate(numbers):
            x = leaves[number]
            later = jnp.clip(x.astype(jnp.float32) + _FAR * change[place], *_far_bounds(x.dtype)).astype(x.dtype)
            moved[number] = jnp.where(which == place, later, x)
        return step(jax.tree.unflatten(structure, moved))

    none = len(numbers)
    outs = jax.lax.map(far, jnp.arange(none + 1))
    as_it_is, later = jax.tree.map(lambda x: x[none], outs), jax.tree.map(lambda x: x[:none], outs)
    differ = lambda obs: _any_leaf(jnp.not_equal, obs, jax.tree.map(lambda x: x[:1], obs)).any()
    is_first = jax.vmap(lambda obs: _looks_fresh(obs, first_obs).all() & ~differ(obs))(later.obs)
    return Ahead(
        done=as_it_is.terminated | as_it_is.truncated,
        terminated=later.terminated,
        truncated=later.truncated,
        shown=jax.vmap(lambda obs: _any_leaf(jnp.not_equal, obs, as_it_is.obs))(later.obs),
        reset_obs=is_first & differ(as_it_is.obs),
    )


def _far_bounds(dtype: Any) -> tuple[float, float]:
    """What a step counter of this dtype can be set to, so that one more step does not overflow."""
    if not jnp.issubdtype(dtype, jnp.integer):
        return -math.inf, math.inf
    info = jnp.iinfo(dtype)
    high = info.max - 1 if info.bits < 32 else info.max // 2  # float32 rounds large integers
    return max(info.min + 1, -high), high


def _looks_fresh(state: Any, starts: Any) -> jax.Array:
    """bool `[B]`: everything in the state lies where it lies in `starts`, leaves `[K, ...]`.

    A number that is the same in all starts must have that value; a single integer of few values one of them; any other must
    lie between the extremes of the starts, widened by half their distance. Keys and random bits are ignored.
    """
    fresh = jnp.ones(_NUM_ENVS, bool)
    for leaf, pool in zip(jax.tree.leaves(state), jax.tree.leaves(starts), strict=True):
        if not _is_number(leaf):
            continue
        x, known = (y.astype(jnp.float32).reshape(y.shape[0], math.prod(y.shape[1:])) for y in (leaf, pool))
        low, high = known.min(axis=0, keepdims=True), known.max(axis=0, keepdims=True)
        spare = 0.5 * (high - low)
        near = ((x >= low - spare) & (x <= high + spare)).all(axis=1)
        if leaf.ndim == 1 and not jnp.issubdtype(leaf.dtype, jnp.floating):
            near &= (x == known.T).any(axis=1) | (high - low >= _FEW)[0]
        fresh &= near
    return fresh


def _is_number(leaf: Any) -> bool:
    """Not a key, neither typed nor one of JAX's older ones, which are 2 or 4 numbers of 32 bits."""
    return not _is_key(leaf.dtype) and not (leaf.dtype == jnp.uint32 and leaf.shape[-1:] in ((2,), (4,)))


def _may_count(leaf: Any) -> bool:
    return leaf.shape == () and _is_number(leaf) and leaf.dtype != jnp.bool_


def _take(state: Any, numbers: list[int]) -> jax.Array:
    """float32 `[B, L]`: these leaves of the state."""
    leaves = jax.tree.leaves(state)
    columns = [leaves[i].astype(jnp.float32)[:, None] for i in numbers]
    return jnp.concatenate([jnp.zeros((_NUM_ENVS, 0), jnp.float32), *columns], axis=1)


def _any(x: jax.Array) -> jax.Array:
    return x.any(axis=tuple(range(1, x.ndim)))


def _any_leaf(is_bad: Callable, *trees: Any) -> jax.Array:
    """bool `[B]`: whether it holds anywhere in leaves `[B, ...]`."""
    leaves = jax.tree.leaves(jax.tree.map(lambda *x: _any(is_bad(*x)), *trees))
    return jnp.any(jnp.stack(leaves), axis=0)
