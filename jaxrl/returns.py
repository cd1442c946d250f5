"""Returns and advantages over a rollout, as functions of time-major arrays `[T, ...]` that depend only on jax.

All of them are linear recursions backwards in time, x_t = b_t + a_t x_{t+1}. Termination and truncation
differ: where an episode *terminated*, `discount_t` is 0 and later rewards do not count; where it was
*truncated*, the recursion restarts from `v_t`, the value of the true successor. The end of the arrays
counts as a truncation, so no return treats an unfinished episode as finished.

A value whose weight is 0 may be infinite or NaN: it affects neither returns nor gradients. In action
values, −inf marks an illegal action. These functions do not stop gradients; the losses do.

Floating-point arguments are promoted to their common floating type, which the result has. Integers and
booleans, such as rewards, are converted to it, and so is λ, which does not widen it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl._src.checks import check_size
from jaxrl._src.dtypes import promote
from jaxrl._src.masking import safe_multiply
from jaxrl._src.shapes import check_equal, check_like, scalar_or_like
from jaxrl.losses import selection

__all__ = [
    "VTrace",
    "discounted_returns",
    "generalized_advantage_estimation",
    "lambda_returns",
    "n_step_returns",
    "q_lambda",
    "retrace",
    "vtrace",
]


def _linear_recursion(coefficients: Callable[..., tuple[jax.Array, jax.Array]], args: tuple, last: jax.Array) -> jax.Array:
    """x_t = b_t + a_t x_{t+1} with x_T = `last` `[...]`, for all t at once: `[T, ...]`.

    `coefficients(*args)` returns (a, b), elementwise; `args` are `[T, ...]`, scalars or None.
    """

    def sequential(args, last):
        arrays = [x if x is not None and x.ndim else None for x in args]

        def step(x, at_t):
            # Computed in the loop, the coefficients are never written to memory.
            a, b = coefficients(*(whole if here is None else here for whole, here in zip(args, at_t, strict=True)))
            x = b + safe_multiply(a, x)
            return x, x

        return jax.lax.scan(step, last, arrays, reverse=True)[1]

    def logarithmic(args, last):
        def combine(late, early):
            return safe_multiply(early[0], late[0]), early[1] + safe_multiply(early[0], late[1])

        scale, offset = jax.lax.associative_scan(combine, coefficients(*args), reverse=True)
        return offset + safe_multiply(scale, jnp.broadcast_to(last, offset.shape))

    # On an accelerator the cost of a sequential scan is its kernel launches, some for each of the T steps. A CPU
    # launches no kernels, and the associative scan does twice the arithmetic.
    return jax.lax.platform_dependent(args, last, cpu=sequential, default=logarithmic)


def lambda_returns(
    r_t: jax.Array, discount_t: jax.Array, v_t: jax.Array, lambda_=1.0, *, truncated: jax.Array | None = None
) -> jax.Array:
    """λ-returns, G_t = r_t + γ_t [(1 − λ_t) v_t + λ_t G_{t+1}] (Sutton & Barto 2018, eq. 12.18).

    Args:
      r_t: rewards of the steps, `[T, ...]`.
      discount_t: γ, 0 where the step terminated the episode, `[T, ...]`.
      v_t: value of the true successor of each step, `[T, ...]`; the last one bootstraps the tail.
      lambda_: in [0, 1], a scalar or one value for each step's successor, `[T, ...]`; 1 is Monte Carlo, 0 the one-step target.
      truncated: bool `[T, ...]`, True where the episode was cut off after the step without terminating; the return
        of such a step is r_t + γ_t v_t. The last step always counts as truncated.

    Returns:
      `[T, ...]`. Differentiable in every argument.

    Raises:
      ValueError: if the shapes differ.

    >>> import jax.numpy as jnp
    >>> lambda_returns(jnp.ones(3), jnp.array([0.5, 0.0, 0.5]), jnp.full(3, 8.0)).tolist()
    [1.5, 1.0, 5.0]
    """
    _check_shapes("lambda_returns", r_t=r_t, discount_t=discount_t, v_t=v_t, truncated=truncated)
    r_t, discount_t, v_t = promote(r_t, discount_t, v_t)

    def coefficients(r_t, discount_t, v_t, lambda_, truncated):
        lambda_t = _unless(truncated, lambda_)
        return discount_t * lambda_t, r_t + safe_multiply(discount_t * (1 - lambda_t), v_t)

    lambda_ = scalar_or_like("lambda_returns", "lambda_", lambda_, r_t)
    return _linear_recursion(coefficients, (r_t, discount_t, v_t, lambda_, truncated), v_t[-1])


def discounted_returns(r_t: jax.Array, discount_t: jax.Array, v_t: jax.Array, *, truncated: jax.Array | None = None) -> jax.Array:
    """Monte-Carlo returns, G_t = r_t + γ_t G_{t+1}; `lambda_returns` with λ = 1 (Sutton & Barto 2018, eq. 3.9).

    Args:
      r_t: rewards, `[T, ...]`.
      discount_t: γ, 0 where the step terminated the episode, `[T, ...]`.
      v_t: value of the true successor, `[T, ...]`; used only where `truncated` and at the end. Zeros there mean that
        no reward would follow.
      truncated: bool `[T, ...]`.

    Returns:
      `[T, ...]`. Differentiable in every argument.

    Raises:
      ValueError: if the shapes differ.

    >>> import jax.numpy as jnp
    >>> discounted_returns(jnp.ones(3), jnp.full(3, 0.5), jnp.array([0.0, 0.0, 4.0])).tolist()
    [2.25, 2.5, 3.0]
    """
    _check_shapes("discounted_returns", r_t=r_t, discount_t=discount_t, v_t=v_t, truncated=truncated)
    return lambda_returns(r_t, discount_t, v_t, 1.0, truncated=truncated)


def n_step_returns(
    r_t: jax.Array, discount_t: jax.Array, v_t: jax.Array, n: int, *, truncated: jax.Array | None = None
) -> jax.Array:
    """n-step returns, r_t + γ_t r_{t+1} + … + γ_t ⋯ γ_{t+n−1} v_{t+n−1} (Sutton & Barto 2018, eq. 7.1).

    Where the episode or the rollout ends earlier, the return has fewer steps.

    Args:
      r_t: rewards, `[T, ...]`.
      discount_t: γ, 0 where the step terminated the episode, `[T, ...]`.
      v_t: value of the true successor of each step, `[T, ...]`.
      n: steps, an int of at least 1. With n ≥ T these are `discounted_returns`.
      truncated: bool `[T, ...]`.

    Returns:
      `[T, ...]`. Differentiable in every argument.

    Raises:
      ValueError: if the shapes differ or n is less than 1.
      TypeError: if n is not an int.

    >>> import jax.numpy as jnp
    >>> n_step_returns(jnp.ones(3), jnp.full(3, 0.5), jnp.full(3, 8.0), 2).tolist()
    [3.5, 3.5, 5.0]
    """
    _check_shapes("n_step_returns", r_t=r_t, discount_t=discount_t, v_t=v_t, truncated=truncated)
    n = check_size("n_step_returns: n", n, maximum=None)
    r_t, discount_t, v_t = promote(r_t, discount_t, v_t)
    # One step is the map x -> b + a x; n of them are composed by doubling, in log n passes over the arrays.
    on = _uncut(jnp.ones_like(r_t), truncated)
    power = discount_t * on, r_t + safe_multiply(discount_t * (1 - on), v_t)
    remaining = min(n, r_t.shape[0]) - 1  # the last step uses the value instead of the next return
    scale, offset = jnp.ones_like(r_t), jnp.zeros_like(r_t)
    done, span = 0, 1
    while remaining:
        if remaining % 2:
            later = (_later(x, done) for x in power)
            scale, offset = _compose((scale, offset), later)
            done += span
        power, span, remaining = _compose(power, (_later(x, span) for x in power)), 2 * span, remaining // 2
    # No return reads a value before step `done`. If it is NaN, a product with it would make the gradient of its discount NaN.
    one_step = r_t[done:] + safe_multiply(discount_t[done:], v_t[done:])
    return offset + safe_multiply(scale, jnp.concatenate([one_step, jnp.zeros_like(r_t[:done])]))


def _compose(first, then) -> tuple[jax.Array, jax.Array]:
    (scale, offset), (later_scale, later_offset) = first, then
    return safe_multiply(scale, later_scale), offset + safe_multiply(scale, later_offset)


def _later(x: jax.Array, steps: int) -> jax.Array:
    """`x[t + steps]` at t, and 0 beyond the end."""
    return jnp.concatenate([x[steps:], jnp.zeros_like(x[: min(steps, x.shape[0])])])


def generalized_advantage_estimation(
    r_t: jax.Array,
    discount_t: jax.Array,
    v_tm1: jax.Array,
    v_t: jax.Array,
    lambda_=0.95,
    *,
    truncated: jax.Array | None = None,
) -> jax.Array:
    """GAE, A_t = δ_t + γ_t λ_t A_{t+1} with δ_t = r_t + γ_t v_t − v_tm1 (Schulman et al. 2016, eq. 16).

    Args:
      r_t: rewards, `[T, ...]`.
      discount_t: γ, 0 where the step terminated the episode, `[T, ...]`.
      v_tm1: value of the state in which the agent acted, `[T, ...]`.
      v_t: value of the true successor of each step, `[T, ...]`: `v_tm1` of the next step, except where the episode ended.
      lambda_: in [0, 1], a scalar or `[T, ...]`; 1 is the Monte-Carlo advantage, 0 the TD error.
      truncated: bool `[T, ...]`; no later step contributes to the advantage of such a step. The last step always counts
        as truncated.

    Returns:
      `[T, ...]`. Differentiable in every argument. Adding `v_tm1` makes them λ-returns.

    Raises:
      ValueError: if the shapes differ.

    >>> import jax.numpy as jnp
    >>> ones = jnp.ones(2)
    >>> generalized_advantage_estimation(ones, 0.5 * ones, ones, ones, 1.0).tolist()
    [0.75, 0.5]
    """
    name = "generalized_advantage_estimation"
    _check_shapes(name, r_t=r_t, discount_t=discount_t, v_tm1=v_tm1, v_t=v_t, truncated=truncated)
    r_t, discount_t, v_tm1, v_t = promote(r_t, discount_t, v_tm1, v_t)
    delta_t = r_t + safe_multiply(discount_t, v_t) - v_tm1  # in one pass ahead: a loop over four arrays is slower

    def coefficients(delta_t, discount_t, lambda_, truncated):
        return discount_t * _unless(truncated, lambda_), delta_t

    lambda_ = scalar_or_like(name, "lambda_", lambda_, r_t)
    return _linear_recursion(coefficients, (delta_t, discount_t, lambda_, truncated), jnp.zeros_like(r_t[-1]))


class VTrace(NamedTuple):
    """The targets and advantages of `vtrace`."""

    target: jax.Array  # [T, ...]: what v_tm1 should be
    advantage: jax.Array  # [T, ...]: for the policy gradient, importance-weighted


def vtrace(
    r_t: jax.Array,
    discount_t: jax.Array,
    v_tm1: jax.Array,
    v_t: jax.Array,
    rho_tm1: jax.Array,
    lambda_=1.0,
    *,
    clip_rho=1.0,
    clip_c=1.0,
    clip_pg_rho=1.0,
    truncated: jax.Array | None = None,
) -> VTrace:
    """V-trace: off-policy value targets and advantages (Espeholt et al. 2018, eq. 1 and section 4.2, λ of remark 2).

    `target_t = v_tm1 + ρ̂_t δ_t + γ_t ĉ_t (target_{t+1} − v_{t+1})` with ρ̂ = min(clip_rho, ρ), ĉ = λ min(clip_c, ρ), and
    `advantage_t = min(clip_pg_rho, ρ_t) (r_t + γ_t [(1 − λ) v_t + λ target_{t+1}] − v_tm1)`.

    Args:
      r_t: rewards, `[T, ...]`.
      discount_t: γ, 0 where the step terminated the episode, `[T, ...]`.
      v_tm1: value of the state in which the agent acted, `[T, ...]`.
      v_t: value of the true successor of each step, `[T, ...]`.
      rho_tm1: importance ratios π(a|s)/μ(a|s) ≥ 0 of the actions taken by the behaviour policy μ, `[T, ...]`.
      lambda_: in [0, 1], a scalar or `[T, ...]`.
      clip_rho: ρ̄, which determines the fixed point: with inf, the value of π; else that of a policy between μ and π.
      clip_c: c̄ ≤ ρ̄, which reduces the variance and does not change the fixed point.
      clip_pg_rho: the bound of the ratio in the advantage. All three are scalars or `[T, ...]`.
      truncated: bool `[T, ...]`; the target of such a step bootstraps from v_t. The last step always counts as truncated.

    Returns:
      `VTrace(target, advantage)`, each `[T, ...]`. Their gradients are not stopped.

    Raises:
      ValueError: if the shapes differ.

    >>> import jax.numpy as jnp
    >>> ones = jnp.ones(2)
    >>> vtrace(ones, 0.5 * ones, ones, ones, 2.0 * ones).target.tolist()
    [1.75, 1.5]
    """
    _check_shapes("vtrace", r_t=r_t, discount_t=discount_t, v_tm1=v_tm1, v_t=v_t, rho_tm1=rho_tm1, truncated=truncated)
    r_t, discount_t, v_tm1, v_t, rho_tm1 = promote(r_t, discount_t, v_tm1, v_t, rho_tm1)
    clipped_rho, clipped_c, clipped_pg_rho = (
        jnp.minimum(scalar_or_like("vtrace", name, bound, r_t), rho_tm1)
        for name, bound in (("clip_rho", clip_rho), ("clip_c", clip_c), ("clip_pg_rho", clip_pg_rho))
    )

    def coefficients(weighted_delta_t, discount_t, c_t, lambda_, truncated):
        return discount_t * _unless(truncated, lambda_) * c_t, weighted_delta_t

    lambda_ = scalar_or_like("vtrace", "lambda_", lambda_, r_t)
    weighted_delta_t = safe_multiply(clipped_rho, r_t + safe_multiply(discount_t, v_t) - v_tm1)
    args = (weighted_delta_t, discount_t, clipped_c, lambda_, truncated)
    target = v_tm1 + _linear_recursion(coefficients, args, jnp.zeros_like(r_t[-1]))
    lambda_t = _uncut(jnp.broadcast_to(lambda_, r_t.shape), truncated)
    successor = safe_multiply(1 - lambda_t, v_t) + safe_multiply(lambda_t, _later(target, 1))
    return VTrace(target, safe_multiply(clipped_pg_rho, r_t + safe_multiply(discount_t, successor) - v_tm1))


def retrace(
    r_t: jax.Array,
    discount_t: jax.Array,
    q_tm1: jax.Array,
    v_t: jax.Array,
    rho_tm1: jax.Array,
    lambda_=1.0,
    *,
    truncated: jax.Array | None = None,
) -> jax.Array:
    """Retrace(λ): off-policy targets for action values (Munos et al. 2016, eq. 3 and 4).

    G_t = r_t + γ_t [v_t + c_{t+1} (G_{t+1} − q_{t+1})] with c = λ min(1, ρ), of the next step.

    Args:
      r_t: rewards, `[T, ...]`.
      discount_t: γ, 0 where the step terminated the episode, `[T, ...]`.
      q_tm1: value of the action taken in the step, `[T, ...]`.
      v_t: E_π q of the true successor, Σ_a π(a) q_t[a], `[T, ...]`.
      rho_tm1: importance ratios π(a|s)/μ(a|s) ≥ 0 of the actions taken by the behaviour policy μ, `[T, ...]`.
      lambda_: in [0, 1], a scalar or `[T, ...]`.
      truncated: bool `[T, ...]`; the target of such a step is r_t + γ_t v_t. The last step always counts as truncated.

    Returns:
      `[T, ...]`: targets for `q_tm1`.

    Raises:
      ValueError: if the shapes differ.

    >>> import jax.numpy as jnp
    >>> ones = jnp.ones(2)
    >>> retrace(ones, 0.5 * ones, ones, ones, 0.5 * ones).tolist()
    [1.625, 1.5]
    """
    _check_shapes("retrace", r_t=r_t, discount_t=discount_t, q_tm1=q_tm1, v_t=v_t, rho_tm1=rho_tm1, truncated=truncated)
    r_t, discount_t, q_tm1, v_t, rho_tm1 = promote(r_t, discount_t, q_tm1, v_t, rho_tm1)
    lambda_ = scalar_or_like("retrace", "lambda_", lambda_, r_t)
    c_t = _later(safe_multiply(lambda_, jnp.minimum(rho_tm1, jnp.ones((), rho_tm1.dtype))), 1)

    def coefficients(r_t, discount_t, v_t, c_t, q_t, truncated):
        scale = safe_multiply(discount_t, _unless(truncated, c_t))
        return scale, r_t + safe_multiply(discount_t, v_t) - safe_multiply(scale, q_t)

    args = (r_t, discount_t, v_t, c_t, _later(q_tm1, 1), truncated)
    return _linear_recursion(coefficients, args, jnp.zeros_like(r_t[-1]))


def q_lambda(
    r_t: jax.Array,
    discount_t: jax.Array,
    q_t: jax.Array,
    lambda_,
    *,
    a_t: jax.Array | None = None,
    truncated: jax.Array | None = None,
) -> jax.Array:
    """Q(λ) targets: λ-returns with v_t = max_a q_t[a]; Peng's, or Watkins's if the actions are given.

    Peng's (Peng & Williams 1996) does not depend on the next actions; Watkins's (Watkins 1989; Sutton & Barto 2018,
    section 12.10) cuts the trace where the next action was not greedy.

    Args:
      r_t: rewards, `[T, ...]`.
      discount_t: γ, 0 where the step terminated the episode, `[T, ...]`.
      q_t: action values of the true successor of each step, `[T, ..., A]`.
      lambda_: in [0, 1], a scalar or `[T, ...]`.
      a_t: integer actions taken in the successor, `[T, ...]`, for Watkins's; all actions with the largest value are greedy.
      truncated: bool `[T, ...]`; the target of such a step is r_t + γ_t max q_t. The last step always counts as truncated.

    Returns:
      `[T, ...]`.

    Raises:
      ValueError: if the shapes do not match.

    >>> import jax.numpy as jnp
    >>> r_t, discount_t, q_t = jnp.ones(2), jnp.full(2, 0.5), jnp.array([[0.0, 4.0], [0.0, 8.0]])
    >>> q_lambda(r_t, discount_t, q_t, 1.0).tolist(), q_lambda(r_t, discount_t, q_t, 1.0, a_t=jnp.array([0, 0])).tolist()
    ([3.5, 5.0], [3.0, 5.0])
    """
    _check_shapes("q_lambda", r_t=r_t, discount_t=discount_t, a_t=r_t if a_t is None else a_t, truncated=truncated)
    check_like("q_lambda", "the leading axes of r_t", jnp.shape(r_t), free=1, q_t=q_t)
    r_t, discount_t, q_t = promote(r_t, discount_t, q_t)
    v_t, lambda_ = selection.max_value(q_t), scalar_or_like("q_lambda", "lambda_", lambda_, r_t)
    if a_t is not None:
        lambda_ = _unless(selection.select(q_t, a_t) != v_t, lambda_)
    return lambda_returns(r_t, discount_t, v_t, lambda_, truncated=truncated)


def _check_shapes(function: str, *, truncated: jax.Array | None, **arrays) -> None:
    """Raise ValueError unless all arrays, and `truncated` if there is one, have one shape `[T, ...]` with T ≥ 1."""
    check_equal(function, **arrays, **({} if truncated is None else {"truncated": truncated}))
    shape = jnp.shape(arrays["r_t"])
    if not shape or not shape[0]:
        raise ValueError(f"{function}: arrays must be [T, ...] with T at least 1, got {shape}")


def _unless(condition: jax.Array | None, x: jax.Array) -> jax.Array:
    """`x`, with 0 where the condition holds; None never holds."""
    return x if condition is None else jnp.where(condition, jnp.zeros((), x.dtype), x)


def _uncut(x: jax.Array, truncated: jax.Array | None) -> jax.Array:
    """`x` `[T, ...]`, with 0 where the episode was truncated and at the last step."""
    last = jnp.arange(x.shape[0]) == x.shape[0] - 1
    return _unless(truncated, _unless(jnp.broadcast_to(last.reshape((-1,) + (1,) * (x.ndim - 1)), x.shape), x))
