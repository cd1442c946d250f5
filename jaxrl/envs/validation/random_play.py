"""The second half of `check_environment`: mistakes that only random actions reveal."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.envs.validation.spaces import Findings
from jaxrl.rollout import select_done
from jaxrl.spaces import split_action_mask
from jaxrl.types import Box, Dict, Discrete, Environment, MultiDiscrete, Space, Step

_NUM_ENVS = 16
_STARTS = 256  # fresh states, to know what a fresh state looks like
_FAR = 100_000  # steps: beyond most time limits
_FEW = 32  # if an integer can start from fewer values than this, all of them are among the starts


class StepRecord(NamedTuple):
    """What is recorded of a step; leaves `[B]`, or `[T, B]` for all steps."""

    terminated: jax.Array
    truncated: jax.Array
    fresh: jax.Array  # the state after it looks like one that reset returns
    change: jax.Array  # [..., L]: the change of each number in the state that may count steps
    obs_bad: jax.Array  # NaN or infinite
    reward_bad: jax.Array  # NaN or infinite
    state_bad: jax.Array  # NaN; an infinity may be intended, such as "the best so far"
    no_legal_action: jax.Array  # the mask of an observation that does not terminate the episode


class Ahead(NamedTuple):
    """One more step, from the state itself and with the l-th number of the state set far ahead."""

    done: jax.Array  # [B]: from the state itself
    terminated: jax.Array  # [L, B]: with the number far ahead
    truncated: jax.Array
    shown: jax.Array  # [L, B]: whether that changes the observation


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
            span, record, ahead, start_masks = jax.tree.map(np.asarray, play(draw, env.params))
    except jax.errors.KeyReuseError as error:
        return [(f"a key is used twice: {str(error).splitlines()[0]}", "split it, and use each part once")]
    names = [f"env_state{jax.tree_util.keystr(path)}" for path, _ in numbers]
    done = record.terminated | record.truncated
    pace = _pace(record, done)
    found = [*_not_finite(record), *_out_of_bounds(env.observation_space, span), *_no_legal_action(env, record, start_masks)]
    return [*found, *_resets(record, done, pace), *_flags(record, done, pace, ahead, names)]


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
    return draw.uniform(size=(*shape, len(_nvec(env.action_space)))).astype(np.float32)


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
    return jnp.split(mask, np.cumsum(_nvec(space))[:-1])


def _nvec(space: Any) -> tuple[int, ...]:
    return (space.n,) if isinstance(space, Discrete) else space.nvec


def _play(env: Environment, numbers: list[int], draw: Draw, params: Any):
    """The extremes of the observations, the record `[T, B]`, what `_look_ahead` finds after it, and bool `[K]`: which
    starts have a legal action.

    States are carried with their keys as bits: JAX's check of keys does not allow a choice between two keys, and starts
    are reused on purpose.
    """
    space = env.action_space
    drawn_starts, first_obs = jax.vmap(env.reset, (0, None))(draw.start, params)
    like = jax.tree.map(lambda x: x.dtype, drawn_starts)
    starts = _bits(drawn_starts), split_action_mask(first_obs)[1]

    def step(key, state_bits, mask, number):
        action = number if mask is None else legal_action(space, mask, number)
        after, out = env.step(key, _keys(state_bits, like), action, params)
        return _bits(after), out

    def look(carry, drawn):
        (state, mask), (low, high) = carry
        keys, number, fresh = drawn
        after, out = jax.vmap(step)(keys, state, mask, number)
        next_mask = split_action_mask(out.obs)[1]
        seen = _look(state, after, out, starts[0], numbers)
        if next_mask is not None:
            seen = seen._replace(no_legal_action=~jax.vmap(partial(_any_legal, space))(next_mask) & ~out.terminated)
        lowest, highest = (jax.tree.map(lambda x, f=f: f(x, axis=0), out.obs) for f in (jnp.min, jnp.max))
        span = jax.tree.map(jnp.minimum, low, lowest), jax.tree.map(jnp.maximum, high, highest)
        carry = select_done(out.terminated | out.truncated, jax.tree.map(lambda x: x[fresh], starts), (after, next_mask))
        return (carry, span), seen

    first_span = tuple(jax.tree.map(lambda x, f=f: f(x, axis=0), first_obs) for f in (jnp.min, jnp.max))
    first = jax.tree.map(lambda x: x[:_NUM_ENVS], starts), first_span
    ((state, mask), span), record = jax.lax.scan(look, first, (draw.step[:-1], draw.action[:-1], draw.fresh))
    key_bits = _bits(draw.step[-1])

    def again(state):  # always with the same keys
        return jax.vmap(step)(jax.random.wrap_key_data(key_bits), state, mask, draw.action[-1])[1]

    has_legal = jnp.ones(1, bool) if starts[1] is None else jax.vmap(partial(_any_legal, space))(starts[1])
    return span, record, _look_ahead(again, state, record, numbers), has_legal


def _bits(tree: Any) -> Any:
    """Replace every key in the tree by its bits."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x.dtype) else x, tree)


def _keys(tree: Any, dtypes: Any) -> Any:
    """The tree with its keys again, the inverse of `_bits`."""
    return jax.tree.map(lambda x, dtype: jax.random.wrap_key_data(x) if _is_key(dtype) else x, tree, dtypes)


def _is_key(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _look(state: Any, after: Any, out: Step, starts: Any, numbers: list[int]) -> StepRecord:
    nan = jnp.zeros(_NUM_ENVS, bool)
    for leaf in jax.tree.leaves(after):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            nan |= _any(jnp.isnan(leaf))
    change = _take(after, numbers) - _take(state, numbers)
    obs_bad, reward_bad = (_any_leaf(lambda x: ~jnp.isfinite(x.astype(jnp.float32)), x) for x in (out.obs, out.reward))
    none = jnp.zeros(_NUM_ENVS, bool)
    return StepRecord(out.terminated, out.truncated, _looks_fresh(after, starts), change, obs_bad, reward_bad, nan, none)


def _look_ahead(step: Callable[[Any], Step], state: Any, record: StepRecord, numbers: list[int]) -> Ahead:
    """Set each possible step counter `_FAR` steps ahead, and record whether and how the episode then ends."""
    leaves, structure = jax.tree.flatten(state)
    change = jnp.max(record.change, axis=(0, 1))  # of a counter it is the same in every step

    def far(which):
        moved = list(leaves)
        for place, number in enumerate(numbers):
            bound = jnp.iinfo(x.dtype).max // 2 if jnp.issubdtype((x := leaves[number]).dtype, jnp.integer) else jnp.inf
            later = jnp.clip(x.astype(jnp.float32) + _FAR * change[place], -bound, bound).astype(x.dtype)
            moved[number] = jnp.where(which == place, later, x)
        return step(jax.tree.unflatten(structure, moved))

    none = len(numbers)
    outs = jax.lax.map(far, jnp.arange(none + 1))
    as_it_is, later = jax.tree.map(lambda x: x[none], outs), jax.tree.map(lambda x: x[:none], outs)
    return Ahead(
        done=as_it_is.terminated | as_it_is.truncated,
        terminated=later.terminated,
        truncated=later.truncated,
        shown=jax.vmap(lambda obs: _any_leaf(jnp.not_equal, obs, as_it_is.obs))(later.obs),
    )


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
    """Not a key, neither typed nor the older uint32."""
    return leaf.dtype != jnp.uint32 and not _is_key(leaf.dtype)


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


# --- findings -------------------------------------------------------------------------------------


def _not_finite(record: StepRecord) -> Findings:
    bad = {
        "an observation that is NaN or infinite": record.obs_bad,
        "a reward that is NaN or infinite": record.reward_bad,
        "NaN in env_state": record.state_bad,
    }
    return [
        (
            f"step returns {what}, first after {np.flatnonzero(where.any(axis=1))[0] + 1} random steps",
            "look for divisions by 0, roots and logarithms of negative numbers, and sums that grow without bound",
        )
        for what, where in bad.items()
        if where.any()
    ]


def _out_of_bounds(space: Space, span: tuple[Any, Any], entry: str = "") -> Findings:
    """Observations may exceed a bound by a rounding error only."""
    if isinstance(space, Dict):
        least, most = span
        return [f for name in space for f in _out_of_bounds(space[name], (least[name], most[name]), f"{entry}[{name!r}]")]
    bounds = (space.low, space.high) if isinstance(space, Box) else (0, np.asarray(_nvec(space)).reshape(space.shape) - 1)
    ends = [np.asarray(x, np.float64) for x in (*bounds, *span)]
    low, high, least, most = np.broadcast_arrays(*ends)
    slack = 1e-5 * np.maximum(1, np.where(np.isfinite(high - low), high - low, 0))
    wrong = np.argwhere((least < low - slack) | (most > high + slack))  # never where they are NaN
    if not len(wrong):
        return []
    first = tuple(int(i) for i in wrong[0])
    low, high, least, most = (x[first] for x in (low, high, least, most))
    where = f" at {list(first)}" if first else ""
    seen = f"they go from {least:g} to {most:g}{where}, its bounds from {low:g} to {high:g}"
    return [
        (f"observations leave observation_space{entry}: {seen}", "widen its bounds (±inf is unbounded), or clip the observation")
    ]


def _no_legal_action(env: Environment, record: StepRecord, has_legal: np.ndarray) -> Findings:
    fix = "leave at least one action legal wherever the episode continues, such as one that does nothing, or terminate there"
    component = "" if isinstance(env.action_space, Discrete) else " of some component"
    if not has_legal.all():
        return [(f"the action mask after a reset allows no action{component}", fix)]
    if record.no_legal_action.any():
        first = np.flatnonzero(record.no_legal_action.any(axis=1))[0] + 1
        wrong = f"the action mask allows no action{component} where the episode continues, first after {first} random steps"
        return [(wrong, fix)]
    return []


def _resets(record: StepRecord, done: np.ndarray, pace: np.ndarray) -> Findings:
    ends, others = record.fresh[done], record.fresh[~done]
    looks_fresh = ends.size and others.size and ends.mean() > 0.9 and others.mean() < 0.5
    goes_back = done.any() and np.any((record.change[done] * pace < 0).all(axis=0))
    if not (looks_fresh or goes_back):
        return []
    return [
        (
            "step resets: after the end of an episode it returns a fresh state",
            "return the true successor, in the state and in the observation; training and evaluation reset by themselves",
        )
    ]


def _pace(record: StepRecord, done: np.ndarray) -> np.ndarray:
    """`[L]`: the change of a step counter in each step that does not end an episode; 0 for other numbers."""
    steps = record.change[~done]
    steady = np.all(steps == steps[:1], axis=0)
    return np.where(steady, steps[0], 0) if len(steps) else np.zeros(record.change.shape[-1])


def _flags(record: StepRecord, done: np.ndarray, pace: np.ndarray, ahead: Ahead, names: list[str]) -> Findings:
    """The two flags: what sets them, and whether they are ever set."""
    opened = (pace != 0)[:, None] & ~ahead.done
    limits = (opened & ahead.terminated).any(axis=1) & ~ahead.shown.any(axis=1)
    if limits.any():
        which = ", ".join(name for name, limit in zip(names, limits, strict=True) if limit)
        wrong = f"terminated is set by the number of steps ({which}), which no observation shows: a time limit"
        return [(wrong, "set truncated there, and terminated only where the task itself ends")]
    truncates = (record.truncated & ~record.terminated).any() or (opened & ahead.truncated & ~ahead.terminated).any()
    if done.any() and not truncates and np.array_equal(record.terminated, record.truncated):
        fix = "set terminated where the task ends, truncated at a time limit only, and jnp.bool_(False) for what never happens"
        return [("every end sets both terminated and truncated", fix)]
    if not done.any() and not (opened & (ahead.terminated | ahead.truncated)).any():
        wrong = f"no episode ended in {len(done)} random steps, nor with a step counter far ahead"
        fix = "count the steps in env_state and set truncated at a limit; if episodes are longer than that, raise num_steps"
        return [(wrong, fix)]
    return []
