"""Random play that shows what tracing cannot: the second half of `check_environment`."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.rollout import select_done
from jaxrl.types import Discrete, Environment, Space, Step

_NUM_ENVS = 16
_STARTS = 256  # fresh states, which tell what a fresh state looks like
_FAR = 100_000  # steps: beyond most time limits
_FEW = 32  # if an integer can start from fewer values than this, all of them are among the starts

Findings = list[tuple[str, str]]  # what is wrong, and the mend


class Row(NamedTuple):
    """What one step shows; leaves `[B]`, and `[T, B]` of the whole play."""

    terminated: jax.Array
    truncated: jax.Array
    fresh: jax.Array  # the state after it looks like one that reset gives
    change: jax.Array  # [..., L]: of each number in the state that may count steps
    obs_bad: jax.Array  # NaN or infinite
    reward_bad: jax.Array  # NaN or infinite
    state_bad: jax.Array  # NaN; a state may well hold an infinity, such as "the best so far"


class Ahead(NamedTuple):
    """One more step, and again with the l-th number of the state set far ahead."""

    done: jax.Array  # [B]: as it is
    terminated: jax.Array  # [L, B]
    truncated: jax.Array
    shown: jax.Array  # [L, B]: the observation is another than as it is


class Draw(NamedTuple):
    """All that is random: drawn before, since random numbers would be most of what there is to compile."""

    start: jax.Array  # keys [K]
    step: jax.Array  # keys [T + 1, B]
    action: np.ndarray  # [T + 1, B, ...]
    fresh: np.ndarray  # int32 [T, B]: which start follows, where the episode ends


def played(env: Environment, num_steps: int) -> Findings:
    """What is wrong, and the mend, after `num_steps` random steps in each of 16 environments."""
    start_key, step_key = jax.random.split(jax.random.key(0))
    state, _ = jax.eval_shape(env.reset, start_key, env.params)
    numbers = [(path, i) for i, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(state)) if _may_count(leaf)]
    numpy, shape = np.random.default_rng(0), (num_steps + 1, _NUM_ENVS)
    draw = Draw(
        start=jax.random.split(start_key, _STARTS),
        step=jax.random.split(step_key, shape),
        action=random_actions(numpy, env.action_space, shape),
        fresh=numpy.integers(0, _STARTS, (num_steps, _NUM_ENVS), np.int32),
    )
    # It runs once: the sooner it is compiled the better.
    hurry = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    play = jax.jit(lambda draw, params: _play(env, [i for _, i in numbers], draw, params), compiler_options=hurry)
    try:
        with jax.debug_key_reuse(True):
            span, rows, ahead = jax.tree.map(np.asarray, play(draw, env.params))
    except jax.errors.KeyReuseError as error:
        return [(f"a key is used twice: {str(error).splitlines()[0]}", "split it, and use each part once")]
    names = [f"env_state{jax.tree_util.keystr(path)}" for path, _ in numbers]
    done = rows.terminated | rows.truncated
    pace = _pace(rows, done)
    found = [*_not_finite(rows), *_outside(env.observation_space, span), *_resets(rows, done, pace)]
    return [*found, *_flags(rows, done, pace, ahead, names)]


def random_actions(draw: np.random.Generator, space: Space, shape: tuple[int, ...]) -> np.ndarray:
    """`[*shape, *space.shape]`: uniform in a `Discrete` and between the bounds of a `Box`, normal where it has none."""
    if isinstance(space, Discrete):
        return draw.integers(0, space.n, shape, np.int32)
    shape = (*shape, *space.shape)
    if not np.issubdtype(space.dtype, np.floating):
        return draw.integers(space.low, space.high, shape, endpoint=True).astype(space.dtype)
    bounded = np.isfinite(space.low) & np.isfinite(space.high)
    within = draw.uniform(np.where(bounded, space.low, 0), np.where(bounded, space.high, 0), shape)
    return np.where(bounded, within, draw.normal(size=shape)).astype(space.dtype)


def _play(env: Environment, numbers: list[int], draw: Draw, params: Any):
    """The extremes of the observations `[*obs_shape]`, the rows `[T, B]`, and what `_look_ahead` sees after them.

    States are carried with their keys as bits: JAX's check of keys knows no choice between two keys, and starts
    come again on purpose.
    """
    drawn_starts, first_obs = jax.vmap(env.reset, (0, None))(draw.start, params)
    like, starts = jax.tree.map(lambda x: x.dtype, drawn_starts), _bits(drawn_starts)

    def step(key, state_bits, action):
        after, out = env.step(key, _keys(state_bits, like), action, params)
        return _bits(after), out

    def look(carry, drawn):
        state, (low, high) = carry
        keys, action, fresh = drawn
        after, out = jax.vmap(step)(keys, state, action)
        row = _look(state, after, out, starts, numbers)
        span = jnp.minimum(low, out.obs.min(axis=0)), jnp.maximum(high, out.obs.max(axis=0))
        state = select_done(out.terminated | out.truncated, jax.tree.map(lambda x: x[fresh], starts), after)
        return (state, span), row

    first = jax.tree.map(lambda x: x[:_NUM_ENVS], starts), (first_obs.min(axis=0), first_obs.max(axis=0))
    (state, span), rows = jax.lax.scan(look, first, (draw.step[:-1], draw.action[:-1], draw.fresh))
    key_bits = _bits(draw.step[-1])

    def again(state):  # always the same keys
        return jax.vmap(step)(jax.random.wrap_key_data(key_bits), state, draw.action[-1])[1]

    return span, rows, _look_ahead(again, state, rows, numbers)


def _bits(tree: Any) -> Any:
    """With the bits of every key in its place."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x.dtype) else x, tree)


def _keys(tree: Any, dtypes: Any) -> Any:
    """With the keys again."""
    return jax.tree.map(lambda x, dtype: jax.random.wrap_key_data(x) if _is_key(dtype) else x, tree, dtypes)


def _is_key(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _look(state: Any, after: Any, out: Step, starts: Any, numbers: list[int]) -> Row:
    nan = jnp.zeros(_NUM_ENVS, bool)
    for leaf in jax.tree.leaves(after):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            nan |= _any(jnp.isnan(leaf))
    change = _take(after, numbers) - _take(state, numbers)
    obs_bad, reward_bad = (_any(~jnp.isfinite(x.astype(jnp.float32))) for x in (out.obs, out.reward))
    return Row(out.terminated, out.truncated, _looks_fresh(after, starts), change, obs_bad, reward_bad, nan)


def _look_ahead(step: Callable[[Any], Step], state: Any, rows: Row, numbers: list[int]) -> Ahead:
    """Tell the step counters apart by what they do: `_FAR` steps later, does the episode end, and how?"""
    leaves, structure = jax.tree.flatten(state)
    change = jnp.max(rows.change, axis=(0, 1))  # of a counter it is the same in every step

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
        shown=jax.vmap(lambda obs: _any(obs != as_it_is.obs))(later.obs),
    )


def _looks_fresh(state: Any, starts: Any) -> jax.Array:
    """bool `[B]`: everything in the state lies where it lies in `starts`, leaves `[K, ...]`.

    A number that all starts share must be that one; a single integer of few values one of them; any other must lie
    between the extremes of the starts, with half their distance to spare. Keys and random bits say nothing.
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
    """Not a key, typed or as the uint32 of the older kind."""
    return leaf.dtype != jnp.uint32 and not _is_key(leaf.dtype)


def _may_count(leaf: Any) -> bool:
    return leaf.shape == () and _is_number(leaf) and leaf.dtype != jnp.bool_


def _take(state: Any, numbers: list[int]) -> jax.Array:
    """float32 `[B, L]`: these leaves of the state."""
    leaves = jax.tree.leaves(state)
    columns = [leaves[i].astype(jnp.float32)[:, None] for i in numbers]
    return jnp.concatenate([jnp.zeros((_NUM_ENVS, 0)), *columns], axis=1)


def _any(x: jax.Array) -> jax.Array:
    return x.any(axis=tuple(range(1, x.ndim)))


# --- what it means -------------------------------------------------------------------------------


def _not_finite(rows: Row) -> Findings:
    bad = {
        "the observation NaN or infinite": rows.obs_bad,
        "the reward NaN or infinite": rows.reward_bad,
        "env_state NaN": rows.state_bad,
    }
    return [
        (
            f"step makes {what}, first after {np.flatnonzero(where.any(axis=1))[0] + 1} random steps",
            "look for divisions by 0, roots and logarithms of what may be negative, and sums that grow without bound",
        )
        for what, where in bad.items()
        if where.any()
    ]


def _outside(space: Space, span: tuple[np.ndarray, np.ndarray]) -> Findings:
    """Observations may pass a bound by a rounding error, no more."""
    bounds = (0, space.n - 1) if isinstance(space, Discrete) else (space.low, space.high)
    ends = [np.asarray(x, np.float64) for x in (*bounds, *span)]
    low, high, least, most = ends
    slack = 1e-5 * np.maximum(1, np.where(np.isfinite(high - low), high - low, 0))
    wrong = np.argwhere((least < low - slack) | (most > high + slack))  # never where they are NaN
    if not len(wrong):
        return []
    first = tuple(int(i) for i in wrong[0])
    low, high, least, most = (x[first] for x in ends)
    where = f" at {list(first)}" if first else ""
    seen = f"observations leave observation_space: from {least:g} to {most:g}{where}, and it goes from {low:g} to {high:g} there"
    return [(seen, "widen its bounds (±inf is unbounded), or clip the observation")]


def _resets(rows: Row, done: np.ndarray, pace: np.ndarray) -> Findings:
    ends, others = rows.fresh[done], rows.fresh[~done]
    looks_fresh = ends.size and others.size and ends.mean() > 0.9 and others.mean() < 0.5
    goes_back = done.any() and np.any((rows.change[done] * pace < 0).all(axis=0))
    if not (looks_fresh or goes_back):
        return []
    return [
        (
            "step resets: after an episode's end its state is a fresh one",
            "return the true successor, in the state and in the observation; what trains and evaluates resets by itself",
        )
    ]


def _pace(rows: Row, done: np.ndarray) -> np.ndarray:
    """`[L]`: by how much a step counter moves in each step that ends nothing; 0 for what is none."""
    steps = rows.change[~done]
    steady = np.all(steps == steps[:1], axis=0)
    return np.where(steady, steps[0], 0) if len(steps) else np.zeros(rows.change.shape[-1])


def _flags(rows: Row, done: np.ndarray, pace: np.ndarray, ahead: Ahead, names: list[str]) -> Findings:
    """The two flags: what sets them, and whether anything does."""
    opened = (pace != 0)[:, None] & ~ahead.done
    limits = (opened & ahead.terminated).any(axis=1) & ~ahead.shown.any(axis=1)
    if limits.any():
        which = ", ".join(name for name, limit in zip(names, limits, strict=True) if limit)
        wrong = f"terminated is set by the number of steps ({which}), which no observation shows: a time limit"
        return [(wrong, "set truncated there, and terminated only where the task itself ends: values go on past a time limit")]
    truncates = (rows.truncated & ~rows.terminated).any() or (opened & ahead.truncated & ~ahead.terminated).any()
    if done.any() and not truncates and np.array_equal(rows.terminated, rows.truncated):
        mend = "terminated is the end of the task, truncated that of the clock alone; what never happens is jnp.bool_(False)"
        return [("every end sets both terminated and truncated", mend)]
    if not done.any() and not (opened & (ahead.terminated | ahead.truncated)).any():
        wrong = f"no episode ended in {len(done)} random steps, nor with a step counter far ahead"
        mend = "count the steps in env_state and set truncated at a limit; if episodes are just longer, raise num_steps"
        return [(wrong, mend)]
    return []
