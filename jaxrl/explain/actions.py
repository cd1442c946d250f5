"""What a policy does: statistics of the actions of a rollout, and the observations in which two policies differ most."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl._src.checks import check_size
from jaxrl.policies import box_units
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space
from jaxrl.types import Obs

_AT_BOUND = 1e-3  # an action counts as at a bound within this share of half the range


class DiscreteStatistics(NamedTuple):
    """Of integer actions; for a `MultiDiscrete` of m components with a leading axis `[m]`.

    Attributes:
      frequency: share of the steps with each action, `[n]`, or `[m, max(nvec)]`.
      entropy: −Σ f log f of these frequencies, in nats, at most log n; 0 for a policy that always does the same.
      repeat: share of the steps whose action is that of the step before.
    """

    frequency: jax.Array
    entropy: jax.Array
    repeat: jax.Array


class BoxStatistics(NamedTuple):
    """Of actions in a `Box` of m numbers, each `[m]`.

    Attributes:
      mean, std: in the units of the environment.
      at_low, at_high: share of the steps with the action at a bound; 0 without one.
      change: mean absolute difference to the action of the step before, in the units of the environment.
    """

    mean: jax.Array
    std: jax.Array
    at_low: jax.Array
    at_high: jax.Array
    change: jax.Array


def action_statistics(
    action_space: Space, actions: jax.Array, valid: jax.Array | None = None
) -> DiscreteStatistics | BoxStatistics:
    """Statistics of the actions of a rollout.

    Args:
      action_space: `Discrete`, `MultiDiscrete` or `Box`.
      actions: `[T, B, *action_shape]`, time first.
      valid: bool `[T, B]`, the steps that count, such as those before the end of an episode; by default all.

    Returns:
      Means over all valid steps. `repeat` and `change` are means over pairs of successive valid steps, NaN if there is none.

    Raises:
      ValueError: for another action space, or shapes that do not fit.

    >>> action_statistics(Discrete(3), jnp.array([0, 0, 2, 0])[:, None]).frequency.tolist()
    [0.75, 0.0, 0.25]
    """
    if not isinstance(action_space, Discrete | MultiDiscrete | Box):
        raise ValueError(f"action_statistics needs a Discrete, MultiDiscrete or Box action space, got {action_space}")
    if actions.shape[2:] != action_space.shape or actions.ndim < 2:
        wanted = ["T", "B", *action_space.shape]
        raise ValueError(f"actions must be {wanted} for {action_space}, got {list(actions.shape)}")
    steps = actions.shape[:2]
    valid = jnp.ones(steps, bool) if valid is None else valid
    if valid.shape != steps:
        raise ValueError(f"valid must be {list(steps)}, as the actions, got {list(valid.shape)}")
    flat = actions.reshape(*steps, -1)  # [T, B, m]
    if isinstance(action_space, Box):
        return _box_statistics(action_space, flat, valid)
    sizes = (action_space.n,) if isinstance(action_space, Discrete) else action_space.nvec
    statistics = _discrete_statistics(max(sizes), flat, valid)
    return jax.tree.map(lambda x: x[0], statistics) if isinstance(action_space, Discrete) else statistics


def _discrete_statistics(num_actions: int, actions: jax.Array, valid: jax.Array) -> DiscreteStatistics:
    taken = jax.nn.one_hot(actions, num_actions, dtype=jnp.float32)  # [T, B, m, n]
    frequency = _mean(taken, valid)
    entropy = jnp.sum(jax.scipy.special.entr(frequency), axis=-1)
    same = (actions[1:] == actions[:-1]).astype(jnp.float32)
    return DiscreteStatistics(frequency, entropy, _mean(same, valid[1:] & valid[:-1]))


def _box_statistics(box: Box, actions: jax.Array, valid: jax.Array) -> BoxStatistics:
    actions = actions.astype(jnp.float32)
    mean = _mean(actions, valid)
    variance = _mean(jnp.square(actions - mean[None, None]), valid)
    low, high, margin = (
        jnp.asarray(bound.reshape(-1), jnp.float32)[None, None] for bound in (box.low, box.high, _AT_BOUND * box_units(box)[1])
    )
    at_low, at_high = (_mean(at.astype(jnp.float32), valid) for at in (actions <= low + margin, actions >= high - margin))
    change = _mean(jnp.abs(actions[1:] - actions[:-1]), valid[1:] & valid[:-1])
    return BoxStatistics(mean, jnp.sqrt(variance), at_low, at_high, change)


def _mean(x: jax.Array, valid: jax.Array) -> jax.Array:
    """The mean of `[T, B, ...]` over the valid steps."""
    weight = valid.astype(jnp.float32)
    weighted = jnp.where(valid.reshape(*valid.shape, *(1,) * (x.ndim - 2)), x, 0.0)
    return jnp.sum(weighted, axis=(0, 1)) / jnp.sum(weight)


class Disagreement(NamedTuple):
    """Observations in which two policies differ, that with the largest distance first.

    Attributes:
      indices: of the observations, int32 `[num]`.
      distance: of the two policies there, `[num]`.
      mean: of the distance over all observations, a scalar.
    """

    indices: jax.Array
    distance: jax.Array
    mean: jax.Array


def most_disagreeing(
    first: Callable[[Obs], jax.Array], second: Callable[[Obs], jax.Array], observations: Obs, num: int
) -> Disagreement:
    """The observations in which two policies differ most.

    The distance is ½ Σ_i |a_i − b_i|. For probabilities of actions it is the total variation, the largest difference in the
    probability of any event, in [0, 1]. For greedy actions it is 1 where they differ.

    Args:
      first, second: from one observation to the probabilities of the actions `[n]`, such as `action_probabilities`; or for a
        Box to the action `[m]`.
      observations: leaves `[N, ...]`, such as those that both policies visited.
      num: how many to return, at most N.

    Raises:
      ValueError: if `num` is more than N, or the two return different shapes.
      TypeError: if `num` is not an int.
    """
    size = jax.tree.leaves(observations)[0].shape[0]
    num = check_size("num", num, maximum=size)
    a, b = jax.vmap(first)(observations), jax.vmap(second)(observations)
    if a.shape != b.shape:
        raise ValueError(f"the policies must return the same shape, got {list(a.shape[1:])} and {list(b.shape[1:])}")
    distance = 0.5 * jnp.sum(jnp.abs(a - b).reshape(size, math.prod(a.shape[1:])), axis=-1)
    largest, indices = jax.lax.top_k(distance, num)
    return Disagreement(indices, largest, jnp.mean(distance))
