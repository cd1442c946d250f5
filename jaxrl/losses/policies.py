"""Losses of stochastic policies and of their value functions, `[...]`, to be averaged and minimized."""

import jax
import jax.numpy as jnp

from jaxrl._src.dtypes import promote
from jaxrl._src.shapes import check_equal, leading_axes, scalar_or_like


def policy_gradient(log_prob_t: jax.Array, advantage_t: jax.Array) -> jax.Array:
    """−log π(a_t|s_t) A_t, whose gradient is that of REINFORCE (Williams 1992, eq. 4; Sutton et al. 1999, theorem 1).

    Args:
      log_prob_t: log-probabilities of the actions taken, `[...]`. Differentiated.
      advantage_t: returns or advantages, `[...]`. No gradient.

    Returns:
      `[...]`.

    Raises:
      ValueError: if the shapes differ.

    >>> import jax.numpy as jnp
    >>> float(policy_gradient(jnp.array(-0.5), jnp.array(4.0)))
    2.0
    """
    check_equal("policy_gradient", log_prob_t=log_prob_t, advantage_t=advantage_t)
    log_prob_t, advantage_t = promote(log_prob_t, advantage_t)
    return -log_prob_t * jax.lax.stop_gradient(advantage_t)


def entropy(logits: jax.Array) -> jax.Array:
    """Entropy of the categorical distribution, −Σ_a π(a) ln π(a), in nats (Williams & Peng 1991).

    Subtract it, scaled, from a policy's loss.

    Args:
      logits: `[..., A]`; −inf marks an illegal action. Differentiated.

    Returns:
      `[...]`.

    Raises:
      ValueError: if there is no axis of actions.

    >>> import jax.numpy as jnp
    >>> round(float(entropy(jnp.array([0.0, 0.0, -jnp.inf]))), 4)
    0.6931
    """
    leading_axes("entropy", "A", logits=logits)
    (logits,) = promote(logits)
    log_p = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(log_p) * jnp.where(log_p == -jnp.inf, jnp.zeros((), log_p.dtype), log_p), axis=-1)


def ppo_clip(log_prob_t: jax.Array, old_log_prob_t: jax.Array, advantage_t: jax.Array, clip_range=0.2) -> jax.Array:
    """−min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) with ρ = π(a_t|s_t)/π_old(a_t|s_t) (Schulman et al. 2017, eq. 7).

    Args:
      log_prob_t: log-probabilities of the actions taken, `[...]`. Differentiated.
      old_log_prob_t: the same under the policy that collected the data, `[...]`. No gradient.
      advantage_t: `[...]`. No gradient.
      clip_range: ε > 0, a scalar or `[...]`; from 1 on, the lower bound has no effect.

    Returns:
      `[...]`.

    Raises:
      ValueError: if the shapes differ.

    >>> import jax.numpy as jnp
    >>> round(float(ppo_clip(jnp.log(jnp.array(3.0)), jnp.array(0.0), jnp.array(2.0))), 4)
    -2.4
    """
    check_equal("ppo_clip", log_prob_t=log_prob_t, old_log_prob_t=old_log_prob_t, advantage_t=advantage_t)
    log_prob_t, old_log_prob_t, advantage_t = promote(log_prob_t, old_log_prob_t, advantage_t)
    old_log_prob_t, advantage_t = jax.lax.stop_gradient((old_log_prob_t, advantage_t))
    log_ratio, clip_range = log_prob_t - old_log_prob_t, scalar_or_like("ppo_clip", "clip_range", clip_range, log_prob_t)
    # The minimum bounds the ratio from above where A > 0 and from below where A < 0. The bound is on the log-ratio, so
    # that a ratio too large for a float causes neither inf nor, in the gradient, inf · 0.
    above, below = (
        jnp.minimum(log_ratio, jnp.log1p(clip_range)),
        jnp.maximum(log_ratio, jnp.log1p(-jnp.minimum(clip_range, 1))),
    )
    return -jnp.exp(jnp.where(advantage_t < 0, below, above)) * advantage_t


def ppo_value_loss(v_tm1: jax.Array, old_v_tm1: jax.Array, target_tm1: jax.Array, clip_range=0.2) -> jax.Array:
    """½ max((v − G)², (v_old + clip(v − v_old, −ε, ε) − G)²): PPO's clipped value loss.

    It is in PPO's first implementation (Engstrom et al. 2020, section 3, equation for L^V).

    Args:
      v_tm1: values, `[...]`. Differentiated.
      old_v_tm1: values when the data were collected, `[...]`. No gradient.
      target_tm1: G, the returns, `[...]`. No gradient.
      clip_range: ε > 0, a scalar or `[...]`, in units of the value.

    Returns:
      `[...]`.

    Raises:
      ValueError: if the shapes differ.

    >>> import jax.numpy as jnp
    >>> float(ppo_value_loss(jnp.array(2.0), jnp.array(0.0), jnp.array(2.0), clip_range=1.0))
    0.5
    """
    check_equal("ppo_value_loss", v_tm1=v_tm1, old_v_tm1=old_v_tm1, target_tm1=target_tm1)
    v_tm1, old_v_tm1, target_tm1 = promote(v_tm1, old_v_tm1, target_tm1)
    old_v_tm1, target_tm1 = jax.lax.stop_gradient((old_v_tm1, target_tm1))
    clip_range = scalar_or_like("ppo_value_loss", "clip_range", clip_range, v_tm1)
    clipped = old_v_tm1 + jnp.clip(v_tm1 - old_v_tm1, -clip_range, clip_range)
    return 0.5 * jnp.maximum(jnp.square(v_tm1 - target_tm1), jnp.square(clipped - target_tm1))
