"""Losses and temporal-difference errors: arrays in, arrays out, nothing but jax.

Names follow Sutton & Barto and rlax: `_tm1` is the step acted in, `_t` the step that followed. Every
function takes any leading dimensions `[...]` and returns one number for each of them; the caller takes
the mean, with weights or a mask. `discount_t` is γ, and 0 where the episode *terminated* (not where it
was truncated). Square or Huberise a TD error with `optax.losses`.
"""

import jax
import jax.numpy as jnp

# Up to this many actions, comparing them one by one is cheaper on an accelerator than an argmax, a
# gather and the scatter of its gradient: the comparisons fuse with what surrounds them, those do not.
_FEW_ACTIONS = 32


def _check(name: str, q: jax.Array, *others: tuple[str, jax.Array], q_t: tuple[tuple[str, jax.Array], ...] = ()) -> None:
    for label, x in q_t:
        if jnp.shape(x) != jnp.shape(q):
            raise ValueError(f"{name}: {label} must have the shape of q_tm1, {jnp.shape(q)}; got {jnp.shape(x)}")
    for label, x in others:
        if jnp.shape(x) != jnp.shape(q)[:-1]:
            raise ValueError(
                f"{name}: {label} must have the shape of q without its last axis, {q.shape[:-1]}; got {jnp.shape(x)}"
            )


def select(values: jax.Array, index: jax.Array) -> jax.Array:
    """`values[..., index]` for each leading position.

    Args:
      values: `[..., A]`.
      index: integers `[...]` in 0 … A-1.

    Returns:
      `[...]`, of the dtype of `values`; differentiable in `values`.
    """
    if values.shape[-1] > _FEW_ACTIONS:
        return jnp.take_along_axis(values, index[..., None], axis=-1)[..., 0]
    chosen = values[..., 0]
    for a in range(1, values.shape[-1]):
        chosen = jnp.where(index == a, values[..., a], chosen)
    return chosen


def greedy(values: jax.Array) -> jax.Array:
    """The first index of the largest of `values` `[..., A]`, as int32 `[...]`. Where one is NaN, which index is undefined."""
    if values.shape[-1] > _FEW_ACTIONS:
        return jnp.argmax(values, axis=-1).astype(jnp.int32)
    best, index = values[..., 0], jnp.zeros(values.shape[:-1], jnp.int32)
    for a in range(1, values.shape[-1]):
        better = values[..., a] > best
        best, index = jnp.where(better, values[..., a], best), jnp.where(better, jnp.int32(a), index)
    return index


def _largest(values: jax.Array) -> jax.Array:
    if values.shape[-1] > _FEW_ACTIONS:
        return jnp.max(values, axis=-1)
    best = values[..., 0]
    for a in range(1, values.shape[-1]):
        best = jnp.maximum(best, values[..., a])
    return best


def q_learning(q_tm1: jax.Array, a_tm1: jax.Array, r_t: jax.Array, discount_t: jax.Array, q_t: jax.Array) -> jax.Array:
    """TD error of Q-learning: r_t + γ_t max_a q_t[a] − q_tm1[a_tm1] (Watkins & Dayan 1992; Mnih et al. 2015, eq. 2).

    Args:
      q_tm1: action values where the action was taken, `[..., A]`. Differentiated.
      a_tm1: integer actions taken, `[...]`.
      r_t: rewards, `[...]`.
      discount_t: γ, 0 where the episode terminated, `[...]`.
      q_t: action values of the successor, usually by a target network, `[..., A]`. No gradient flows into it.

    Returns:
      `[...]`: target minus prediction.

    Raises:
      ValueError: where the shapes do not fit.

    >>> import jax.numpy as jnp
    >>> float(q_learning(jnp.array([1.0, 2.0]), jnp.array(0), jnp.array(0.5), jnp.array(0.5), jnp.array([3.0, 4.0])))
    1.5
    """
    _check("q_learning", q_tm1, ("a_tm1", a_tm1), ("r_t", r_t), ("discount_t", discount_t), q_t=(("q_t", q_t),))
    target = r_t + discount_t * _largest(q_t)
    return jax.lax.stop_gradient(target) - select(q_tm1, a_tm1)


def double_q_learning(
    q_tm1: jax.Array,
    a_tm1: jax.Array,
    r_t: jax.Array,
    discount_t: jax.Array,
    q_t_value: jax.Array,
    q_t_selector: jax.Array,
) -> jax.Array:
    """TD error of double Q-learning: one estimate picks the action, the other values it (van Hasselt et al. 2016, eq. 4).

    Args:
      q_tm1: `[..., A]`. Differentiated.
      a_tm1: integer actions taken, `[...]`.
      r_t: rewards, `[...]`.
      discount_t: γ, 0 where the episode terminated, `[...]`.
      q_t_value: successor values by the target network, `[..., A]`. No gradient.
      q_t_selector: successor values by the online network, `[..., A]`. No gradient.

    Returns:
      `[...]`: r_t + γ_t q_t_value[argmax_a q_t_selector[a]] − q_tm1[a_tm1].

    Raises:
      ValueError: where the shapes do not fit.
    """
    successors = (("q_t_value", q_t_value), ("q_t_selector", q_t_selector))
    _check("double_q_learning", q_tm1, ("a_tm1", a_tm1), ("r_t", r_t), ("discount_t", discount_t), q_t=successors)
    target = r_t + discount_t * select(q_t_value, greedy(q_t_selector))
    return jax.lax.stop_gradient(target) - select(q_tm1, a_tm1)


def policy_gradient(log_prob_t: jax.Array, advantage_t: jax.Array) -> jax.Array:
    """−log π(a_t|s_t) · A_t, whose gradient is that of REINFORCE (Williams 1992, eq. 4; Sutton et al. 1999, theorem 1).

    Args:
      log_prob_t: log-probabilities of the actions taken, `[...]`. Differentiated.
      advantage_t: returns or advantages, `[...]`. No gradient flows into them.

    Returns:
      `[...]`, to be averaged and minimised.

    Raises:
      ValueError: where the shapes differ.
    """
    if log_prob_t.shape != advantage_t.shape:
        raise ValueError(
            f"policy_gradient: log_prob_t and advantage_t must have one shape, got {log_prob_t.shape} and {advantage_t.shape}"
        )
    return -log_prob_t * jax.lax.stop_gradient(advantage_t)
