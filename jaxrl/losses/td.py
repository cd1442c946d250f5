"""Temporal-difference errors: target minus prediction, `[...]`. Apply a squared or Huber loss of `optax.losses` to them.

No gradient flows into the target (semi-gradient methods, Sutton & Barto 2018, section 9.3) unless
`stop_target_gradient` is False. For n-step targets, subtract the prediction from a return of `jaxrl.returns`:

>>> import jax.numpy as jnp
>>> from jaxrl.losses import select
>>> from jaxrl.returns import n_step_returns
>>> q_tm1, a_tm1 = jnp.zeros((3, 2)), jnp.zeros(3, int)  # [T, A], [T]
>>> r_t, discount_t, q_t = jnp.ones(3), jnp.full(3, 0.5), jnp.full((3, 2), 8.0)
>>> (n_step_returns(r_t, discount_t, q_t.max(-1), 2) - select(q_tm1, a_tm1)).tolist()
[3.5, 3.5, 5.0]
"""

import jax
import jax.numpy as jnp

from jaxrl._src.dtypes import promote
from jaxrl._src.masking import mask_unweighted, safe_multiply
from jaxrl._src.shapes import check_equal, check_like, leading_axes, scalar_or_like
from jaxrl.losses.selection import greedy, max_value, select


def _error(prediction: jax.Array, r_t, discount_t, v_t: jax.Array, stop_target_gradient: bool) -> jax.Array:
    target = r_t + safe_multiply(discount_t, v_t)
    return (jax.lax.stop_gradient(target) if stop_target_gradient else target) - prediction


def _check(function: str, q_tm1, a_tm1, r_t, discount_t, **q_t) -> None:
    leading = leading_axes(function, "A", q_tm1=q_tm1)
    check_like(function, "the leading axes of q_tm1", leading, a_tm1=a_tm1, r_t=r_t, discount_t=discount_t)
    check_like(function, "the shape of q_tm1", jnp.shape(q_tm1), **q_t)


def td_learning(
    v_tm1: jax.Array, r_t: jax.Array, discount_t: jax.Array, v_t: jax.Array, *, stop_target_gradient: bool = True
) -> jax.Array:
    """TD(0): r_t + γ_t v_t − v_tm1 (Sutton & Barto 2018, eq. 6.5).

    Args:
      v_tm1: value of the state in which the agent acted, `[...]`. Differentiated.
      r_t: rewards, `[...]`.
      discount_t: γ, 0 where the episode terminated, `[...]`.
      v_t: value of the successor, `[...]`. No gradient by default.
      stop_target_gradient: False differentiates the target too (residual gradient, Baird 1995).

    Returns:
      `[...]`.

    Raises:
      ValueError: if the shapes differ.

    >>> import jax.numpy as jnp
    >>> float(td_learning(jnp.array(1.0), jnp.array(0.5), jnp.array(0.5), jnp.array(4.0)))
    1.5
    """
    check_equal("td_learning", v_tm1=v_tm1, r_t=r_t, discount_t=discount_t, v_t=v_t)
    v_tm1, r_t, discount_t, v_t = promote(v_tm1, r_t, discount_t, v_t)
    return _error(v_tm1, r_t, discount_t, v_t, stop_target_gradient)


def sarsa(
    q_tm1: jax.Array,
    a_tm1: jax.Array,
    r_t: jax.Array,
    discount_t: jax.Array,
    q_t: jax.Array,
    a_t: jax.Array,
    *,
    stop_target_gradient: bool = True,
) -> jax.Array:
    """SARSA: r_t + γ_t q_t[a_t] − q_tm1[a_tm1] (Rummery & Niranjan 1994; Sutton & Barto 2018, eq. 6.7).

    Args:
      q_tm1: action values of the state in which the agent acted, `[..., A]`. Differentiated.
      a_tm1: integer actions taken, `[...]`.
      r_t: rewards, `[...]`.
      discount_t: γ, 0 where the episode terminated, `[...]`.
      q_t: action values of the successor, `[..., A]`. No gradient by default.
      a_t: integer actions taken in the successor, `[...]`.
      stop_target_gradient: False differentiates the target too.

    Returns:
      `[...]`.

    Raises:
      ValueError: if the shapes do not match.

    >>> import jax.numpy as jnp
    >>> float(sarsa(jnp.array([1.0, 2.0]), jnp.array(0), jnp.array(0.5), jnp.array(0.5), jnp.array([3.0, 4.0]), jnp.array(0)))
    1.0
    """
    _check("sarsa", q_tm1, a_tm1, r_t, discount_t, q_t=q_t)
    check_like("sarsa", "the leading axes of q_tm1", jnp.shape(q_tm1)[:-1], a_t=a_t)
    q_tm1, r_t, discount_t, q_t = promote(q_tm1, r_t, discount_t, q_t)
    return _error(select(q_tm1, a_tm1), r_t, discount_t, select(q_t, a_t), stop_target_gradient)


def expected_sarsa(
    q_tm1: jax.Array,
    a_tm1: jax.Array,
    r_t: jax.Array,
    discount_t: jax.Array,
    q_t: jax.Array,
    probs_t: jax.Array,
    *,
    stop_target_gradient: bool = True,
) -> jax.Array:
    """Expected SARSA: r_t + γ_t Σ_a π(a) q_t[a] − q_tm1[a_tm1] (van Seijen et al. 2009; Sutton & Barto 2018, eq. 6.9).

    Args:
      q_tm1: action values of the state in which the agent acted, `[..., A]`. Differentiated.
      a_tm1: integer actions taken, `[...]`.
      r_t: rewards, `[...]`.
      discount_t: γ, 0 where the episode terminated, `[...]`.
      q_t: action values of the successor, `[..., A]`. No gradient by default.
      probs_t: π(a|s_t), `[..., A]`; 0 for illegal actions. No gradient by default.
      stop_target_gradient: False differentiates the target too.

    Returns:
      `[...]`.

    Raises:
      ValueError: if the shapes do not match.

    >>> import jax.numpy as jnp
    >>> q_t, probs_t = jnp.array([3.0, 5.0]), jnp.array([0.5, 0.5])
    >>> float(expected_sarsa(jnp.array([1.0, 2.0]), jnp.array(0), jnp.array(0.0), jnp.array(0.5), q_t, probs_t))
    1.0
    """
    _check("expected_sarsa", q_tm1, a_tm1, r_t, discount_t, q_t=q_t, probs_t=probs_t)
    q_tm1, r_t, discount_t, q_t, probs_t = promote(q_tm1, r_t, discount_t, q_t, probs_t)
    v_t = jnp.sum(safe_multiply(mask_unweighted(discount_t, probs_t), q_t), axis=-1)
    return _error(select(q_tm1, a_tm1), r_t, discount_t, v_t, stop_target_gradient)


def q_learning(
    q_tm1: jax.Array,
    a_tm1: jax.Array,
    r_t: jax.Array,
    discount_t: jax.Array,
    q_t: jax.Array,
    *,
    stop_target_gradient: bool = True,
) -> jax.Array:
    """Q-learning: r_t + γ_t max_a q_t[a] − q_tm1[a_tm1] (Watkins & Dayan 1992; Mnih et al. 2015, eq. 2).

    Args:
      q_tm1: action values of the state in which the agent acted, `[..., A]`. Differentiated.
      a_tm1: integer actions taken, `[...]`.
      r_t: rewards, `[...]`.
      discount_t: γ, 0 where the episode terminated, `[...]`.
      q_t: action values of the successor, usually by a target network, `[..., A]`. No gradient by default.
      stop_target_gradient: False differentiates the target too.

    Returns:
      `[...]`.

    Raises:
      ValueError: if the shapes do not match.

    >>> import jax.numpy as jnp
    >>> float(q_learning(jnp.array([1.0, 2.0]), jnp.array(0), jnp.array(0.5), jnp.array(0.5), jnp.array([3.0, 4.0])))
    1.5
    """
    _check("q_learning", q_tm1, a_tm1, r_t, discount_t, q_t=q_t)
    q_tm1, r_t, discount_t, q_t = promote(q_tm1, r_t, discount_t, q_t)
    return _error(select(q_tm1, a_tm1), r_t, discount_t, max_value(q_t), stop_target_gradient)


def double_q_learning(
    q_tm1: jax.Array,
    a_tm1: jax.Array,
    r_t: jax.Array,
    discount_t: jax.Array,
    q_t_value: jax.Array,
    q_t_selector: jax.Array,
    *,
    stop_target_gradient: bool = True,
) -> jax.Array:
    """Double Q-learning: r_t + γ_t q_t_value[argmax_a q_t_selector[a]] − q_tm1[a_tm1] (van Hasselt et al. 2016, eq. 4).

    Args:
      q_tm1: action values of the state in which the agent acted, `[..., A]`. Differentiated.
      a_tm1: integer actions taken, `[...]`.
      r_t: rewards, `[...]`.
      discount_t: γ, 0 where the episode terminated, `[...]`.
      q_t_value: successor values by the target network, `[..., A]`. No gradient by default.
      q_t_selector: successor values by the online network, which select the action, `[..., A]`. Never a gradient.
      stop_target_gradient: False differentiates the target too.

    Returns:
      `[...]`.

    Raises:
      ValueError: if the shapes do not match.

    >>> import jax.numpy as jnp
    >>> q_t, selector = jnp.array([3.0, 4.0]), jnp.array([1.0, 0.0])
    >>> float(double_q_learning(jnp.array([1.0, 2.0]), jnp.array(0), jnp.array(0.5), jnp.array(0.5), q_t, selector))
    1.0
    """
    _check("double_q_learning", q_tm1, a_tm1, r_t, discount_t, q_t_value=q_t_value, q_t_selector=q_t_selector)
    q_tm1, r_t, discount_t, q_t_value = promote(q_tm1, r_t, discount_t, q_t_value)
    v_t = select(q_t_value, greedy(q_t_selector))
    return _error(select(q_tm1, a_tm1), r_t, discount_t, v_t, stop_target_gradient)


def persistent_q_learning(
    q_tm1: jax.Array,
    a_tm1: jax.Array,
    r_t: jax.Array,
    discount_t: jax.Array,
    q_t: jax.Array,
    action_gap_scale,
    *,
    stop_target_gradient: bool = True,
) -> jax.Array:
    """Q-learning with a larger action gap: r_t + γ_t [(1 − α) max_a q_t[a] + α q_t[a_tm1]] − q_tm1[a_tm1].

    α > 0 favours repeating the action just taken: the persistent operator of Bellemare et al. (2016), with both values
    at the successor, as in rlax. Where that action is illegal in the successor, max_a q_t[a] takes its place.

    Args:
      q_tm1: action values of the state in which the agent acted, `[..., A]`. Differentiated.
      a_tm1: integer actions taken, `[...]`.
      r_t: rewards, `[...]`.
      discount_t: γ, 0 where the episode terminated, `[...]`.
      q_t: action values of the successor, `[..., A]`. No gradient by default.
      action_gap_scale: α in [0, 1], a scalar or `[...]`; 0 is Q-learning.
      stop_target_gradient: False differentiates the target too.

    Returns:
      `[...]`.

    Raises:
      ValueError: if the shapes do not match.

    >>> import jax.numpy as jnp
    >>> args = jnp.array([1.0, 2.0]), jnp.array(0), jnp.array(0.0), jnp.array(1.0), jnp.array([3.0, 4.0])
    >>> float(persistent_q_learning(*args, action_gap_scale=0.5))
    2.5
    """
    _check("persistent_q_learning", q_tm1, a_tm1, r_t, discount_t, q_t=q_t)
    q_tm1, r_t, discount_t, q_t = promote(q_tm1, r_t, discount_t, q_t)
    best, repeated = max_value(q_t), select(q_t, a_tm1)
    scale = scalar_or_like("persistent_q_learning", "action_gap_scale", action_gap_scale, r_t)
    repeated = jnp.where(repeated != -jnp.inf, repeated, best)
    return _error(select(q_tm1, a_tm1), r_t, discount_t, best + scale * (repeated - best), stop_target_gradient)


def munchausen_q_learning(
    q_tm1: jax.Array,
    a_tm1: jax.Array,
    r_t: jax.Array,
    discount_t: jax.Array,
    q_t: jax.Array,
    q_tm1_target: jax.Array,
    *,
    temperature=0.03,
    munchausen_scale=0.9,
    log_policy_min=-1.0,
    stop_target_gradient: bool = True,
) -> jax.Array:
    """Munchausen Q-learning (Vieillard et al. 2020, M-DQN), with π = softmax(q/τ) of the target network:

    r_t + α clip(τ ln π(a_tm1|s_tm1), l₀, 0) + γ_t Σ_a π(a|s_t) (q_t[a] − τ ln π(a|s_t)) − q_tm1[a_tm1].

    Args:
      q_tm1: online action values of the state in which the agent acted, `[..., A]`. Differentiated.
      a_tm1: integer actions taken, `[...]`.
      r_t: rewards, `[...]`.
      discount_t: γ, 0 where the episode terminated, `[...]`.
      q_t: action values of the successor by the target network, `[..., A]`. No gradient by default.
      q_tm1_target: action values of the state in which the agent acted by the target network, `[..., A]`. As q_t.
      temperature: τ > 0, a scalar; with munchausen_scale 0, the limit τ → 0 is Q-learning.
      munchausen_scale: α in [0, 1], a scalar or `[...]`.
      log_policy_min: l₀ < 0, the lower bound of the log-policy term, a scalar or `[...]`.
      stop_target_gradient: False differentiates the target too.

    Returns:
      `[...]`.

    Raises:
      ValueError: if the shapes do not match.

    >>> import jax.numpy as jnp
    >>> q, a, r, discount = jnp.array([0.0, 0.0]), jnp.array(0), jnp.array(1.0), jnp.array(0.0)
    >>> round(float(munchausen_q_learning(q, a, r, discount, q, q, temperature=0.1, munchausen_scale=1.0)), 4)
    0.9307
    """
    name = "munchausen_q_learning"
    _check(name, q_tm1, a_tm1, r_t, discount_t, q_t=q_t, q_tm1_target=q_tm1_target)
    check_like(name, "the shape of a scalar", (), temperature=temperature)
    q_tm1, r_t, discount_t, q_t, q_tm1_target = promote(q_tm1, r_t, discount_t, q_t, q_tm1_target)
    scale = scalar_or_like(name, "munchausen_scale", munchausen_scale, r_t)
    log_policy_min = scalar_or_like(name, "log_policy_min", log_policy_min, r_t)
    best, excess = _soft_value(q_tm1_target, temperature)
    log_policy = (select(q_tm1_target, a_tm1) - best) - excess  # τ ln π(a_tm1|s_tm1)
    bonus = scale * jnp.clip(log_policy, log_policy_min, 0)
    q_t = jnp.where(q_t == -jnp.inf, q_t, mask_unweighted(discount_t, q_t))  # illegal actions stay −inf
    best_t, excess_t = _soft_value(q_t, temperature)
    return _error(select(q_tm1, a_tm1), r_t + bonus, discount_t, best_t + excess_t, stop_target_gradient)


def _soft_value(q: jax.Array, temperature) -> tuple[jax.Array, jax.Array]:
    """τ ln Σ_a exp(q[a]/τ) = Σ_a π(a) (q[a] − τ ln π(a)), as max_a q[a] and the rest; `[..., A]` to two of `[...]`."""
    best, temperature, legal = max_value(q), jnp.asarray(temperature, q.dtype), q != -jnp.inf
    advantage = jnp.where(legal, q - best[..., None], 0)  # −inf / τ would have the derivative NaN in τ
    return best, temperature * jax.nn.logsumexp(advantage / temperature, axis=-1, where=legal)
