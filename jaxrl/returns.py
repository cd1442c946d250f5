"""Returns and advantages over a rollout: time-major arrays `[T, ...]` in and out, nothing but jax.

All of them are one linear recursion backwards in time, x_t = b_t + a_t x_{t+1}. Two flags end an
episode, and they differ: where it *terminated*, `discount_t` is 0 and nothing after counts; where it
was *truncated*, the recursion restarts from `v_t`, the value of the true successor. The end of the
arrays is treated as a truncation. So no return ever counts an unfinished episode as finished.
"""

import jax
import jax.numpy as jnp


def _linear_recursion(a: jax.Array, b: jax.Array) -> jax.Array:
    """x_t = b_t + a_t x_{t+1} with x_T = 0, for all t at once; `a` and `b` are `[T, ...]`."""

    def sequential(a, b):
        def step(x, ab):
            x = ab[1] + ab[0] * x
            return x, x

        return jax.lax.scan(step, jnp.zeros_like(b[0]), (a, b), reverse=True)[1]

    def logarithmic(a, b):
        def combine(late, early):
            return early[0] * late[0], early[1] + early[0] * late[1]

        return jax.lax.associative_scan(combine, (a, b), reverse=True)[1]

    # A sequential scan launches kernels for each of the T steps, which is the whole cost on an
    # accelerator; a CPU launches nothing and only sees twice the arithmetic of the other form.
    return jax.lax.platform_dependent(a, b, cpu=sequential, default=logarithmic)


def lambda_returns(
    r_t: jax.Array, discount_t: jax.Array, v_t: jax.Array, lambda_=1.0, *, truncated: jax.Array | None = None
) -> jax.Array:
    """λ-returns, G_t = r_t + γ_t [(1 − λ) v_t + λ G_{t+1}] (Sutton & Barto 2018, eq. 12.18).

    Args:
      r_t: rewards of the steps, `[T, ...]`.
      discount_t: γ, 0 where the step terminated the episode, `[T, ...]`.
      v_t: value of the true successor of each step, `[T, ...]`; the last one bootstraps the tail.
      lambda_: scalar in [0, 1]; 1 is Monte Carlo, 0 the one-step target.
      truncated: bool `[T, ...]`: the step was the last of its rollout for a reason that is not the
        task's; its return is r_t + γ_t v_t. The last step always counts as one.

    Returns:
      `[T, ...]`.

    Raises:
      ValueError: where the shapes differ.

    >>> import jax.numpy as jnp
    >>> lambda_returns(jnp.ones(3), jnp.array([0.5, 0.0, 0.5]), jnp.full(3, 8.0)).tolist()
    [1.5, 1.0, 5.0]
    """
    shapes = {"r_t": r_t, "discount_t": discount_t, "v_t": v_t}
    if truncated is not None:
        shapes["truncated"] = truncated
    if len({x.shape for x in shapes.values()}) > 1:
        raise ValueError(
            "lambda_returns: all shapes must be equal, got " + ", ".join(f"{k} {x.shape}" for k, x in shapes.items())
        )
    last = jnp.arange(r_t.shape[0]) == r_t.shape[0] - 1
    cut = jnp.broadcast_to(last.reshape((-1,) + (1,) * (r_t.ndim - 1)), r_t.shape)
    if truncated is not None:
        cut = cut | truncated
    lambda_t = jnp.where(cut, jnp.zeros((), r_t.dtype), jnp.asarray(lambda_, r_t.dtype))
    weight = discount_t * (1 - lambda_t)
    read = jnp.where(weight != 0, v_t, jnp.zeros((), v_t.dtype))  # what has no weight may be infinite, or NaN
    return _linear_recursion(discount_t * lambda_t, r_t + weight * read)


def discounted_returns(r_t: jax.Array, discount_t: jax.Array, v_t: jax.Array, *, truncated: jax.Array | None = None) -> jax.Array:
    """Monte-Carlo returns, G_t = r_t + γ_t G_{t+1}; `lambda_returns` with λ = 1 (Sutton & Barto 2018, eq. 3.9).

    Args:
      r_t: rewards, `[T, ...]`.
      discount_t: γ, 0 where the step terminated the episode, `[T, ...]`.
      v_t: value of the true successor, `[T, ...]`; read only where `truncated` and at the end. Zeros
        there *are* a claim: that nothing more was to be had.
      truncated: bool `[T, ...]`.

    Returns:
      `[T, ...]`.
    """
    return lambda_returns(r_t, discount_t, v_t, 1.0, truncated=truncated)
