"""What the record of random steps shows: each function returns the mistakes of one kind, and how to fix them."""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.envs.validation.spaces import Findings, nvec
from jaxrl.types import Box, Dict, Discrete, Environment, Space


class StepRecord(NamedTuple):
    """What is recorded of a step; leaves `[B]`, or `[T, B]` for all steps."""

    terminated: jax.Array
    truncated: jax.Array
    fresh: jax.Array  # the state after it looks like one that reset returns
    change: jax.Array  # [..., L]: the change of each number in the state that may count steps
    obs_bad: jax.Array  # NaN or infinite
    reward_bad: jax.Array  # NaN or infinite
    state_bad: jax.Array  # a NaN that was not there before; an infinity may be intended, such as "the best so far"
    no_legal_action: jax.Array  # the mask of an observation that does not terminate the episode
    begun_bad: jax.Array  # NaN or infinite in the observation that carry_over returns, or NaN in its state, and not after reset


class Ahead(NamedTuple):
    """One more step, from the state itself and with the l-th number of the state set far ahead. All B have the same key."""

    done: jax.Array  # [B]: from the state itself
    terminated: jax.Array  # [L, B]: with the number far ahead
    truncated: jax.Array
    shown: jax.Array  # [L, B]: whether that changes the observation
    reset_obs: jax.Array  # [L]: all B observations are then equal, which they are not otherwise, and look like those of resets


def find_not_finite(record: StepRecord, reset_bad: np.ndarray) -> Findings:
    """`reset_bad [K]`: which first observations have a NaN or an infinity."""
    bad = {
        "step returns an observation that is NaN or infinite": record.obs_bad,
        "step returns a reward that is NaN or infinite": record.reward_bad,
        "step returns NaN in env_state": record.state_bad,
        "carry_over returns NaN or infinity": record.begun_bad & ~record.obs_bad & ~record.state_bad,
    }
    fix = "look for divisions by 0, roots and logarithms of negative numbers, and sums that grow without bound"
    of_reset = [("reset returns an observation that is NaN or infinite", fix)] if reset_bad.any() else []
    return of_reset + [
        (f"{wrong}, first after {np.flatnonzero(where.any(axis=1))[0] + 1} random steps", fix)
        for wrong, where in bad.items()
        if where.any()
    ]


def find_out_of_bounds(space: Space, span: tuple[Any, Any], entry: str = "") -> Findings:
    """Observations of floats may exceed a bound by a rounding error, and others not."""
    if isinstance(space, Dict):
        least, most = span
        return [f for name in space for f in find_out_of_bounds(space[name], (least[name], most[name]), f"{entry}[{name!r}]")]
    bounds = (space.low, space.high) if isinstance(space, Box) else (0, np.asarray(nvec(space)).reshape(space.shape) - 1)
    ends = [np.asarray(x, np.float64) for x in (*bounds, *span)]
    low, high, least, most = np.broadcast_arrays(*ends)
    is_float = isinstance(space, Box) and np.issubdtype(space.dtype, np.floating)
    slack = 1e-5 * np.maximum(1, np.where(np.isfinite(high - low), high - low, 0)) if is_float else 0
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


def find_no_legal_action(env: Environment, record: StepRecord, has_legal: np.ndarray) -> Findings:
    fix = "leave at least one action legal wherever the episode continues, such as one that does nothing, or terminate there"
    component = "" if isinstance(env.action_space, Discrete) else " of some component"
    if not has_legal.all():
        return [(f"the action mask after a reset allows no action{component}", fix)]
    if record.no_legal_action.any():
        first = np.flatnonzero(record.no_legal_action.any(axis=1))[0] + 1
        wrong = f"the action mask allows no action{component} where the episode continues, first after {first} random steps"
        return [(wrong, fix)]
    return []


def find_ends_at_once(done: np.ndarray) -> Findings:
    """`done [T, B]`: episodes that carry_over begins end with their first step, and the very first ones do not."""
    begun = done[:-1]
    if begun.sum() < 10 or done[0].all() or done[1:][begun].mean() < 0.9:
        return []
    return [
        (
            "the episodes that carry_over begins end after one step",
            "keep only what may outlive an episode, and take all else from the fresh state, such as the step counter",
        )
    ]


def find_resets(record: StepRecord, done: np.ndarray, pace: np.ndarray, ahead: Ahead) -> Findings:
    ends, others = record.fresh[done], record.fresh[~done]
    looks_fresh = ends.size and others.size and ends.mean() > 0.9 and others.mean() < 0.5
    goes_back = done.any() and np.any((record.change[done] * pace < 0).all(axis=0))
    truncates = (ahead.truncated & ~ahead.terminated).all(axis=1) & (pace != 0)
    shows_reset = (truncates & ahead.reset_obs).any()
    if not (looks_fresh or goes_back or shows_reset):
        return []
    what = "state" if looks_fresh or goes_back else "observation"
    return [
        (
            f"step resets: after the end of an episode it returns a fresh {what}",
            "return the true successor, in the state and in the observation; training and evaluation reset by themselves",
        )
    ]


def step_counters(record: StepRecord, done: np.ndarray) -> np.ndarray:
    """`[L]`: the change of a step counter in each step that does not end an episode; 0 for other numbers."""
    steps = record.change[~done]
    steady = np.all(np.isclose(steps, steps[:1], rtol=1e-3, atol=0), axis=0)  # a clock of floats rounds
    return np.where(steady, steps[0], 0) if len(steps) else np.zeros(record.change.shape[-1])


def find_flags(record: StepRecord, done: np.ndarray, pace: np.ndarray, ahead: Ahead, names: list[str]) -> Findings:
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
