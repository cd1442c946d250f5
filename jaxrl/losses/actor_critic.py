"""Losses of actors and critics: the deterministic policy gradient, and soft actor-critic for continuous and discrete actions.

`K` is the number of critics; targets use their minimum (clipped double Q-learning, Fujimoto et al. 2018,
eq. 10). With temperature 0, `soft_td_error` and `sac_actor` are those of TD3 and DDPG.
"""

import jax
import jax.numpy as jnp

from jaxrl._src.dtypes import promote
from jaxrl._src.masking import safe_multiply
from jaxrl._src.shapes import check_equal, check_like, leading_axes, scalar_or_like
from jaxrl.losses.policies import entropy


def deterministic_policy_gradient(a_t: jax.Array, dqda_t: jax.Array, *, max_norm=None) -> jax.Array:
    """−a_t · ∂q/∂a, whose gradient is the deterministic policy gradient.

    (Silver et al. 2014, eq. 9; Lillicrap et al. 2016, eq. 6.)

    Args:
      a_t: actions of the policy, `[..., m]`. Differentiated.
      dqda_t: gradient of the critic with respect to the action, at a_t, `[..., m]`. No gradient.
      max_norm: a scalar; dqda_t is scaled down to this norm where its own is larger; None does not clip.

    Returns:
      `[...]`. Only its gradient is meaningful.

    Raises:
      ValueError: if the shapes do not match.

    >>> import jax, jax.numpy as jnp
    >>> jax.grad(deterministic_policy_gradient)(jnp.array([0.5, 0.5]), jnp.array([0.0, 4.0]), max_norm=1.0).tolist()
    [-0.0, -1.0]
    """
    check_equal("deterministic_policy_gradient", a_t=a_t, dqda_t=dqda_t)
    a_t, dqda_t = promote(a_t, dqda_t)
    dqda_t = jax.lax.stop_gradient(dqda_t)
    if max_norm is not None:
        check_like("deterministic_policy_gradient", "the shape of a scalar", (), max_norm=max_norm)
        max_norm = jnp.asarray(max_norm, dqda_t.dtype)
        largest = jnp.max(jnp.abs(dqda_t), axis=-1, keepdims=True)  # factored out, so that no square overflows
        largest = jnp.where(largest > 0, largest, jnp.ones((), dqda_t.dtype))
        norm = largest * jnp.linalg.norm(dqda_t / largest, axis=-1, keepdims=True)
        dqda_t = jnp.where(norm > max_norm, dqda_t / norm * max_norm, dqda_t)
    return -jnp.sum(a_t * dqda_t, axis=-1)


def soft_td_error(
    q_tm1: jax.Array, r_t: jax.Array, discount_t: jax.Array, q_t: jax.Array, log_prob_t: jax.Array, temperature
) -> jax.Array:
    """TD errors of the soft critics: r_t + γ_t (min_k q_t[k] − α log π(a_t|s_t)) − q_tm1[k] (Haarnoja et al. 2018b, eq. 3, 5).

    Args:
      q_tm1: each critic's value of the action taken, `[..., K]`. Differentiated.
      r_t: rewards, `[...]`.
      discount_t: γ, 0 where the episode terminated, `[...]`.
      q_t: each target critic's value of an action a_t drawn from the policy in the successor, `[..., K]`. No gradient.
      log_prob_t: log π(a_t|s_t), `[...]`. No gradient.
      temperature: α ≥ 0, a scalar or `[...]`. No gradient.

    Returns:
      `[..., K]`: target minus prediction.

    Raises:
      ValueError: if the shapes do not match.

    >>> import jax.numpy as jnp
    >>> q_t = jnp.array([3.0, 4.0])
    >>> soft_td_error(jnp.array([1.0, 2.0]), jnp.array(0.5), jnp.array(0.5), q_t, jnp.array(-1.0), 1.0).tolist()
    [1.5, 0.5]
    """
    leading = leading_axes("soft_td_error", "K", q_tm1=q_tm1)
    check_equal("soft_td_error", q_tm1=q_tm1, q_t=q_t)
    check_like("soft_td_error", "the leading axes of q_tm1", leading, r_t=r_t, discount_t=discount_t, log_prob_t=log_prob_t)
    q_tm1, r_t, discount_t, q_t, log_prob_t = promote(q_tm1, r_t, discount_t, q_t, log_prob_t)
    v_t = jnp.min(q_t, axis=-1) - scalar_or_like("soft_td_error", "temperature", temperature, log_prob_t) * log_prob_t
    return jax.lax.stop_gradient(r_t + safe_multiply(discount_t, v_t))[..., None] - q_tm1


def sac_actor(log_prob_t: jax.Array, q_t: jax.Array, temperature) -> jax.Array:
    """α log π(a_t|s_t) − min_k q_t[k], for a reparameterised action a_t (Haarnoja et al. 2018b, eq. 9).

    Args:
      log_prob_t: log π(a_t|s_t), `[...]`. Differentiated.
      q_t: each critic's value of a_t, `[..., K]`. Differentiated: through the action, with the critics' parameters fixed.
      temperature: α ≥ 0, a scalar or `[...]`. No gradient.

    Returns:
      `[...]`.

    Raises:
      ValueError: if the shapes do not match.

    >>> import jax.numpy as jnp
    >>> float(sac_actor(jnp.array(-1.0), jnp.array([3.0, 4.0]), 0.5))
    -3.5
    """
    check_like("sac_actor", "the leading axes of q_t", leading_axes("sac_actor", "K", q_t=q_t), log_prob_t=log_prob_t)
    log_prob_t, q_t = promote(log_prob_t, q_t)
    temperature = scalar_or_like("sac_actor", "temperature", temperature, log_prob_t)
    return jax.lax.stop_gradient(temperature) * log_prob_t - jnp.min(q_t, axis=-1)


def soft_value(logits_t: jax.Array, q_t: jax.Array, temperature) -> jax.Array:
    """Σ_a π(a|s_t) (min_k q_t[a, k] − α log π(a|s_t)), the soft value for discrete actions (Christodoulou 2019, eq. 10, 12).

    Its negative is the loss of the actor. As a target of the critics, put it into `td_learning` as v_t. An illegal action, whose
    logit is −inf, counts for nothing, whatever its values.

    Args:
      logits_t: of the policy in s_t, `[..., A]`. Differentiated.
      q_t: each critic's value of each action, `[..., A, K]`. No gradient.
      temperature: α ≥ 0, a scalar or `[...]`. No gradient.

    Returns:
      `[...]`.

    Raises:
      ValueError: if the shapes do not match.

    >>> import jax.numpy as jnp
    >>> q_t = jnp.array([[1.0, 2.0], [5.0, 3.0], [-jnp.inf, -jnp.inf]])
    >>> float(soft_value(jnp.array([0.0, 0.0, -jnp.inf]), q_t, 0.0))  # the mean of 1 and 3
    2.0
    """
    leading_axes("soft_value", "A", logits_t=logits_t)
    check_like("soft_value", "the shape of logits_t and one axis more", jnp.shape(logits_t), free=1, q_t=q_t)
    logits_t, q_t = promote(logits_t, q_t)
    q_t = jax.lax.stop_gradient(jnp.min(q_t, axis=-1))
    expected = jnp.sum(safe_multiply(jax.nn.softmax(logits_t), q_t), axis=-1)
    temperature = scalar_or_like("soft_value", "temperature", temperature, expected)
    return expected + jax.lax.stop_gradient(temperature) * entropy(logits_t)


def sac_temperature(log_prob_t: jax.Array, log_temperature: jax.Array, target_entropy) -> jax.Array:
    """−α (log π(a_t|s_t) + H̄), which moves the policy's entropy towards H̄ (Haarnoja et al. 2018b, eq. 18, in log α).

    Args:
      log_prob_t: log π(a_t|s_t), or its mean over all actions, minus the entropy, `[...]`. No gradient.
      log_temperature: log α, a scalar or `[...]`. Differentiated.
      target_entropy: H̄ in nats, a scalar or `[...]`; −m for m action dimensions is usual.

    Returns:
      `[...]`.

    Raises:
      ValueError: if the shapes do not match.

    >>> import jax.numpy as jnp
    >>> float(sac_temperature(jnp.array(-1.0), jnp.array(0.0), -2.0))
    3.0
    """
    log_prob_t, log_temperature = promote(log_prob_t, log_temperature)
    log_temperature = scalar_or_like("sac_temperature", "log_temperature", log_temperature, log_prob_t)
    target_entropy = scalar_or_like("sac_temperature", "target_entropy", target_entropy, log_prob_t)
    surplus = jax.lax.stop_gradient(log_prob_t) + target_entropy
    return -jnp.exp(log_temperature) * surplus
