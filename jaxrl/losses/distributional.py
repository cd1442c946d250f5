"""Distributional Q-learning: returns as atoms with probabilities (C51), or as quantiles (QR-DQN, IQN).

An illegal action has −inf as each of its logits or quantiles. All functions but the projection, `categorical_mean`
and `dueling` are losses `[...]`, to be averaged and minimized. No gradient flows into a target.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.dtypes import floating_type, promote
from jaxrl._src.masking import mask_unweighted
from jaxrl._src.shapes import check_like, leading_axes
from jaxrl.losses.selection import greedy, select_row


def categorical_l2_project(atoms_p: jax.Array, probs: jax.Array, atoms_q: jax.Array) -> jax.Array:
    """Project a distribution onto another support, to the nearest distribution in Cramér distance.

    The probability of each atom is split between the two neighbouring atoms of the support, in proportion to
    proximity; atoms outside go to the nearest end (Bellemare et al. 2017, eq. 7; Rowland et al. 2018, prop. 6).

    Args:
      atoms_p: the atoms of the distribution, in any order, `[..., P]`.
      probs: their probabilities, `[..., P]`.
      atoms_q: the new support, increasing, `[K]`.

    Returns:
      Probabilities on `atoms_q`, `[..., K]`.

    Raises:
      ValueError: if the shapes do not match.

    >>> import jax.numpy as jnp
    >>> categorical_l2_project(jnp.array([0.25, 7.0]), jnp.array([0.5, 0.5]), jnp.array([0.0, 1.0, 2.0])).tolist()
    [0.375, 0.125, 0.5]
    """
    check_like("categorical_l2_project", "the shape of atoms_p", jnp.shape(atoms_p), probs=probs)
    if jnp.ndim(atoms_q) != 1:
        raise ValueError(f"categorical_l2_project: atoms_q must be [K], got {jnp.shape(atoms_q)}")
    atoms_p, probs, atoms_q = promote(atoms_p, probs, atoms_q)
    gaps = jnp.diff(atoms_q)
    one = jnp.ones(1, gaps.dtype)  # after the clip no atom lies beyond the ends
    row = (1,) * (jnp.ndim(atoms_p) - 1) + (1, -1)
    support, below, above = (x.reshape(row) for x in (atoms_q, jnp.append(one, gaps), jnp.append(gaps, one)))
    distance = jnp.clip(atoms_p, atoms_q[0], atoms_q[-1])[..., None] - support  # [..., P, K]
    share = jnp.clip(1 - jnp.where(distance < 0, -distance / below, distance / above), 0, 1)
    return jnp.sum(probs[..., None] * share, axis=-2)


def categorical_mean(logits: jax.Array, atoms: jax.Array) -> jax.Array:
    """The mean return of each action, Σ_k softmax(logits)_k z_k; −inf for an illegal action.

    (Bellemare et al. 2017, algorithm 1.)

    Args:
      logits: of the return's distribution for each action, `[..., A, K]`. Differentiated.
      atoms: the support z, `[K]`. Differentiated.

    Returns:
      `[..., A]`.

    Raises:
      ValueError: if the shapes do not match.

    >>> import jax.numpy as jnp
    >>> logits = jnp.array([[0.0, 0.0], [-jnp.inf, -jnp.inf], [-100.0, 0.0]])
    >>> categorical_mean(logits, jnp.array([1.0, 2.0])).tolist()
    [1.5, -inf, 2.0]
    """
    leading_axes("categorical_mean", "K", logits=logits)
    check_like("categorical_mean", "the last axis of logits", jnp.shape(logits)[-1:], atoms=atoms)
    logits, atoms = promote(logits, atoms)
    legal = jnp.max(logits, axis=-1) != -jnp.inf
    probs = jax.nn.softmax(jnp.where(legal[..., None], logits, 0))
    return jnp.where(legal, jnp.sum(probs * jnp.broadcast_to(atoms, jnp.shape(probs)), axis=-1), -jnp.inf)


def categorical_q_learning(
    q_logits_tm1: jax.Array, a_tm1: jax.Array, r_t: jax.Array, discount_t: jax.Array, q_logits_t: jax.Array, atoms: jax.Array
) -> jax.Array:
    """C51: the cross-entropy of the projected target r_t + γ_t z, z ~ `q_t[a*]`, with `a*` greedy in the mean of q_t.

    (Bellemare et al. 2017, algorithm 1.)

    Args:
      q_logits_tm1: logits of the return's distribution for each action, `[..., A, K]`. Differentiated.
      a_tm1: integer actions taken, `[...]`.
      r_t: rewards, `[...]`.
      discount_t: γ, 0 where the episode terminated, `[...]`.
      q_logits_t: of the successor, usually by a target network, `[..., A, K]`. No gradient.
      atoms: the support of both, increasing, `[K]`.

    Returns:
      `[...]`.

    Raises:
      ValueError: if the shapes do not match.

    >>> import jax.numpy as jnp
    >>> logits, atoms = jnp.zeros((2, 3)), jnp.array([-1.0, 0.0, 1.0])
    >>> round(float(categorical_q_learning(logits, jnp.array(0), jnp.array(1.0), jnp.array(0.0), logits, atoms)), 4)
    1.0986
    """
    return _categorical("categorical_q_learning", q_logits_tm1, a_tm1, r_t, discount_t, q_logits_t, q_logits_t, atoms)


def categorical_double_q_learning(
    q_logits_tm1: jax.Array,
    a_tm1: jax.Array,
    r_t: jax.Array,
    discount_t: jax.Array,
    q_logits_t: jax.Array,
    q_logits_t_selector: jax.Array,
    atoms: jax.Array,
) -> jax.Array:
    """C51 with the successor's action selected by another network (Bellemare et al. 2017; van Hasselt et al. 2016).

    Args:
      q_logits_tm1, a_tm1, r_t, discount_t, q_logits_t, atoms: as for `categorical_q_learning`.
      q_logits_t_selector: of the successor by the online network, whose mean selects the action, `[..., A, K]`. No gradient.

    Returns:
      `[...]`.

    Raises:
      ValueError: if the shapes do not match.

    >>> import jax.numpy as jnp
    >>> q, atoms = jnp.zeros((2, 3)), jnp.array([-1.0, 0.0, 1.0])
    >>> loss = categorical_double_q_learning(q, jnp.array(0), jnp.array(1.0), jnp.array(0.0), q, q, atoms)
    >>> round(float(loss), 4)
    1.0986
    """
    name = "categorical_double_q_learning"
    return _categorical(name, q_logits_tm1, a_tm1, r_t, discount_t, q_logits_t, q_logits_t_selector, atoms)


def _categorical(name, q_logits_tm1, a_tm1, r_t, discount_t, q_logits_t, q_logits_t_selector, atoms) -> jax.Array:
    _check_actions(name, "q_logits_tm1", q_logits_tm1, a_tm1, r_t, discount_t)
    shape, successors = jnp.shape(q_logits_tm1), {"q_logits_t": q_logits_t, "q_logits_t_selector": q_logits_t_selector}
    check_like(name, "the shape of q_logits_tm1", shape, **successors)
    check_like(name, "the last axis of q_logits_tm1", shape[-1:], atoms=atoms)
    q_logits_tm1, r_t, discount_t, q_logits_t, atoms = promote(q_logits_tm1, r_t, discount_t, q_logits_t, atoms)
    best = greedy(categorical_mean(q_logits_t_selector, atoms))
    atoms_t = r_t[..., None] + discount_t[..., None] * jnp.broadcast_to(atoms, jnp.shape(r_t) + jnp.shape(atoms))
    probs_t = jax.nn.softmax(mask_unweighted(discount_t, select_row(q_logits_t, best)))
    target = categorical_l2_project(atoms_t, probs_t, atoms)
    target = jax.lax.stop_gradient(target)
    log_probs = jax.nn.log_softmax(select_row(q_logits_tm1, a_tm1))
    return -jnp.sum(target * jnp.where(target != 0, log_probs, jnp.zeros((), log_probs.dtype)), axis=-1)


def quantile_regression(quantiles: jax.Array, tau: jax.Array, targets: jax.Array, *, kappa: float = 1.0) -> jax.Array:
    """Quantile Huber loss: Σ_i mean_j |τ_i − 1{u_ij < 0}| L_κ(u_ij)/κ with u_ij = targets_j − quantiles_i.

    (Dabney et al. 2018b, eq. 3; for κ = 1 also 2018a, eq. 10, which does not divide. L_κ is Huber's.) Its minimum is
    the τ-quantile of the targets for κ = 0, where the loss is |τ − 1{u < 0}| |u|, and near it for a small κ.

    Args:
      quantiles: estimates, `[..., N]`. Differentiated.
      tau: their levels in (0, 1), `[..., N]` or `[N]`. No gradient.
      targets: samples, `[..., M]`. No gradient.
      kappa: κ ≥ 0, a Python number: half the width of the quadratic part.

    Returns:
      `[...]`.

    Raises:
      ValueError: if the shapes do not match, or κ is negative or not finite.

    >>> import jax.numpy as jnp
    >>> float(quantile_regression(jnp.array([0.0]), jnp.array([0.25]), jnp.array([-2.0, 2.0]), kappa=0.0))
    1.0
    """
    leading = leading_axes("quantile_regression", "N", quantiles=quantiles)
    if jnp.shape(tau) not in (jnp.shape(quantiles), jnp.shape(quantiles)[-1:]):
        raise ValueError(
            f"quantile_regression: tau must have the shape of quantiles, {jnp.shape(quantiles)}; got {jnp.shape(tau)}"
        )
    check_like("quantile_regression", "the leading axes of quantiles", leading, free=1, targets=targets)
    quantiles, tau, targets = promote(quantiles, tau, targets)
    u = jax.lax.stop_gradient(targets)[..., None, :] - quantiles[..., :, None]  # [..., N, M]
    size = jnp.abs(u)
    width = np.asarray(kappa, quantiles.dtype)
    if not (width.ndim == 0 and 0 <= width < np.inf):
        raise ValueError(f"quantile_regression: kappa must be a finite number of at least 0, got {kappa}")
    if width >= jnp.finfo(width.dtype).tiny:  # XLA may round smaller ones to 0, by which this would divide
        inner = jnp.minimum(size, width)
        size = inner / width * (size - 0.5 * inner)  # L_κ(u)/κ, without a square that overflows
    levels = jnp.broadcast_to(jax.lax.stop_gradient(tau), jnp.shape(quantiles))[..., None]
    weight = jnp.abs(levels - (u < 0).astype(quantiles.dtype))
    return jnp.sum(jnp.mean(weight * size, axis=-1), axis=-1)


def quantile_q_learning(
    q_quantiles_tm1: jax.Array,
    a_tm1: jax.Array,
    r_t: jax.Array,
    discount_t: jax.Array,
    q_quantiles_t: jax.Array,
    *,
    q_quantiles_t_selector: jax.Array | None = None,
    kappa: float = 1.0,
) -> jax.Array:
    """QR-DQN: quantile regression of q_tm1[a_tm1] on `r_t + γ_t q_t[a*]`, with `a*` greedy in the mean.

    (Dabney et al. 2018a, algorithm 1; the i-th of N quantiles is that of τ_i = (i + ½)/N.)

    Args:
      q_quantiles_tm1: quantiles of the return for each action, `[..., A, N]`. Differentiated.
      a_tm1: integer actions taken, `[...]`.
      r_t: rewards, `[...]`.
      discount_t: γ, 0 where the episode terminated, `[...]`.
      q_quantiles_t: of the successor, usually by a target network, `[..., A, M]`. No gradient.
      q_quantiles_t_selector: of the successor by the online network, to select `a*` (double Q-learning), `[..., A, L]`;
        by default q_quantiles_t. No gradient.
      kappa: as for `quantile_regression`.

    Returns:
      `[...]`.

    Raises:
      ValueError: if the shapes do not match.

    >>> import jax.numpy as jnp
    >>> q = jnp.array([[0.0, 1.0], [1.0, 2.0]])
    >>> float(quantile_q_learning(q, jnp.array(0), jnp.array(0.5), jnp.array(0.0), q))
    0.0625
    """
    name, selector = "quantile_q_learning", q_quantiles_t if q_quantiles_t_selector is None else q_quantiles_t_selector
    _check_actions(name, "q_quantiles_tm1", q_quantiles_tm1, a_tm1, r_t, discount_t)
    dtype, num = floating_type(q_quantiles_tm1, r_t, discount_t, q_quantiles_t), jnp.shape(q_quantiles_tm1)[-1]
    tau = (jnp.arange(num, dtype=dtype) + 0.5) / num
    return _quantile(name, q_quantiles_tm1, tau, a_tm1, r_t, discount_t, q_quantiles_t, selector, kappa)


def implicit_quantile_q_learning(
    q_quantiles_tm1: jax.Array,
    tau_tm1: jax.Array,
    a_tm1: jax.Array,
    r_t: jax.Array,
    discount_t: jax.Array,
    q_quantiles_t: jax.Array,
    q_quantiles_t_selector: jax.Array,
    *,
    kappa: float = 1.0,
) -> jax.Array:
    """IQN: `quantile_q_learning` with quantiles at sampled levels (Dabney et al. 2018b, eq. 3).

    Args:
      q_quantiles_tm1: quantiles of the return for each action at `tau_tm1`, `[..., A, N]`. Differentiated.
      tau_tm1: the levels, uniform in (0, 1), `[..., N]`.
      a_tm1: integer actions taken, `[...]`.
      r_t: rewards, `[...]`.
      discount_t: γ, 0 where the episode terminated, `[...]`.
      q_quantiles_t: of the successor at M sampled levels, by the target network, `[..., A, M]`. No gradient.
      q_quantiles_t_selector: of the successor at L sampled levels, whose mean selects the action, `[..., A, L]`. No gradient.
      kappa: as for `quantile_regression`.

    Returns:
      `[...]`.

    Raises:
      ValueError: if the shapes do not match.

    >>> import jax.numpy as jnp
    >>> q = jnp.array([[0.0, 1.0], [1.0, 2.0]])
    >>> float(implicit_quantile_q_learning(q, jnp.array([0.25, 0.75]), jnp.array(0), jnp.array(0.5), jnp.array(0.0), q, q))
    0.0625
    """
    name = "implicit_quantile_q_learning"
    _check_actions(name, "q_quantiles_tm1", q_quantiles_tm1, a_tm1, r_t, discount_t)
    check_like(
        name, "the leading and last axes of q_quantiles_tm1", (*jnp.shape(a_tm1), jnp.shape(q_quantiles_tm1)[-1]), tau_tm1=tau_tm1
    )
    return _quantile(name, q_quantiles_tm1, tau_tm1, a_tm1, r_t, discount_t, q_quantiles_t, q_quantiles_t_selector, kappa)


def _quantile(name, q_quantiles_tm1, tau, a_tm1, r_t, discount_t, q_quantiles_t, selector, kappa) -> jax.Array:
    each = {"q_quantiles_t": q_quantiles_t, "q_quantiles_t_selector": selector}
    check_like(name, "the leading axes and actions of q_quantiles_tm1", jnp.shape(q_quantiles_tm1)[:-1], free=1, **each)
    (selector,) = promote(selector)
    best = greedy(jnp.mean(selector, axis=-1))
    q_quantiles_tm1, tau, r_t, discount_t, q_quantiles_t = promote(q_quantiles_tm1, tau, r_t, discount_t, q_quantiles_t)
    targets = r_t[..., None] + discount_t[..., None] * mask_unweighted(discount_t, select_row(q_quantiles_t, best))
    return quantile_regression(select_row(q_quantiles_tm1, a_tm1), tau, targets, kappa=kappa)


def _check_actions(function: str, of: str, q, a_tm1, r_t, discount_t) -> None:
    leading = leading_axes(function, "A, N", **{of: q})
    check_like(function, f"the leading axes of {of}", leading, a_tm1=a_tm1, r_t=r_t, discount_t=discount_t)


def dueling(value: jax.Array, advantage: jax.Array) -> jax.Array:
    """Action values of a dueling network, v + a − mean a (Wang et al. 2016, eq. 9), with the mean over legal actions.

    Args:
      value: `[...]`. Differentiated.
      advantage: `[..., A]`; −inf for an illegal action, whose action value is then −inf. Differentiated.

    Returns:
      `[..., A]`.

    Raises:
      ValueError: if the shapes do not match.

    >>> import jax.numpy as jnp
    >>> dueling(jnp.array(5.0), jnp.array([1.0, 3.0])).tolist()
    [4.0, 6.0]
    """
    check_like("dueling", "the leading axes of advantage", leading_axes("dueling", "A", advantage=advantage), value=value)
    value, advantage = promote(value, advantage)
    legal = advantage != -jnp.inf
    # Not jnp.mean(…, where=legal), which rounds differently where all actions are legal.
    mean, share = (jnp.mean(x, axis=-1, keepdims=True) for x in (jnp.where(legal, advantage, 0), legal.astype(advantage.dtype)))
    return value[..., None] + advantage - mean / share
