"""Policy heads, which convert the outputs of a network and noise to actions.

`policy_head` chooses a distribution for the action space; `deterministic_head` is for DDPG and TD3. The distribution is over
*raw actions*. A rollout has to keep the raw action for `log_prob`, and `to_action` converts it to an action of the environment.

The raw action of a `Box` is in normalised units: in every dimension with two finite bounds, [-1, 1] stands for [low, high]. A
policy whose output is near 0 therefore starts in the middle of the Box, and its standard deviation is relative to the size of the
Box. A dimension with one finite bound keeps its units, with the origin one unit inside that bound. A dimension without bounds is
unchanged.

>>> import jax, jax.numpy as jnp
>>> head = policy_head(Box(15.0, 30.0, (1,)))
>>> params = (jnp.zeros(1), jnp.full(1, -0.5))  # mean and log_std
>>> head.to_action(head.mode(params)).tolist()
[22.5]
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.distributions import categorical, diagonal_gaussian, tanh_gaussian, tanh_log_prob_at
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space

Params = Any  # logits, or (mean, log_std)


class PolicyHead(NamedTuple):
    """A stochastic policy as functions of a network's output, here called `params`; `policy_head` builds one.

    `params` is the logits, or `(mean, log_std)` for a Box. It may have any leading axes `[...]`, and the results have the same.

    Attributes:
      params_spec: `(batch_shape) -> params` as `jax.ShapeDtypeStruct`s: what the network must return for a batch of this shape.
      noise: `(key, batch_shape) -> noise`, everything random that `sample` needs. The key is consumed.
      sample: `(params, noise) -> raw_action`, a sample of the distribution. For a Box it is reparameterised: gradients with
        respect to `params` pass through it.
      mode: `(params) -> raw_action`, that of the greedy policy.
      to_action: `(raw_action) -> action[..., *action_shape]`, in the dtype of the action space and inside its bounds.
      log_prob: `(params, raw_action) -> [...]`, the log-probability, or the log-density for a Box.
      entropy: `(params, raw_action) -> [...]`. Only a squashed Gaussian reads the raw action, which must be a sample of it.
      kl: `(params, other) -> [...]`, the divergence KL(params, other).
      noise_of: `(params, raw_action) -> noise`, the noise with which `sample` gives the raw action. With it, parameters that
        have changed since have a sample of their own, for `entropy`. None if `entropy` does not read the raw action.
    """

    params_spec: Callable[[tuple[int, ...]], Params]
    noise: Callable[[jax.Array, tuple[int, ...]], jax.Array]
    sample: Callable[[Params, jax.Array], jax.Array]
    mode: Callable[[Params], jax.Array]
    to_action: Callable[[jax.Array], jax.Array]
    log_prob: Callable[[Params, jax.Array], jax.Array]
    entropy: Callable[[Params, jax.Array], jax.Array]
    kl: Callable[[Params, Params], jax.Array]
    noise_of: Callable[[Params, jax.Array], jax.Array] | None = None


class DeterministicHead(NamedTuple):
    """A deterministic policy as functions of a network's output `[..., m]`, `params`; `deterministic_head` builds one.

    Attributes:
      params_spec: `(batch_shape) -> params` as a `jax.ShapeDtypeStruct`: what the network must return for a batch of this shape.
      noise: `(key, batch_shape) -> noise[*batch_shape, m]`, standard normal. The key is consumed.
      mode: `(params) -> raw_action[..., m]`.
      perturb: `(raw_action, scaled_noise) -> raw_action`, the sum of the two, clipped to the bounds.
      random: `(noise) -> raw_action`, a random action without a policy: uniform in dimensions with two finite bounds, elsewhere
        the noise itself, clipped to the bounds. Correlated noise gives correlated actions.
      to_action: `(raw_action) -> action[..., *action_shape]`, in the dtype of the action space and inside its bounds.
    """

    params_spec: Callable[[tuple[int, ...]], Params]
    noise: Callable[[jax.Array, tuple[int, ...]], jax.Array]
    mode: Callable[[Params], jax.Array]
    perturb: Callable[[jax.Array, jax.Array], jax.Array]
    random: Callable[[jax.Array], jax.Array]
    to_action: Callable[[jax.Array], jax.Array]


def policy_head(action_space: Space, *, squash: bool = False) -> PolicyHead:
    """Return the stochastic policy for an action space.

    | action space | network output | raw action | distribution |
    |---|---|---|---|
    | `Discrete(n)` | logits `[..., n]` | int32 `[...]` | categorical |
    | `MultiDiscrete(nvec)` | logits `[..., sum(nvec)]`, concatenated | int32 `[..., m]` | m independent categoricals |
    | `Box` of m floats | (mean, log_std), each `[..., m]` | float `[..., m]` | normal, clipped to the bounds by `to_action` |
    | `Box`, `squash=True` | (mean, log_std), each `[..., m]` | float `[..., m]` | normal, tanh in `to_action` |

    A logit of −inf marks an illegal action: it is never sampled, and gradients stay finite. At least one action must be
    legal, in each component of a `MultiDiscrete`.

    The log-probability of a `Box` is a density in normalised units: of the raw action without `squash`, of tanh(raw_action)
    with it (Haarnoja et al. 2018, appendix C), computed from the raw action so that it is exact where the tanh rounds to ±1.
    The density in the environment's units differs by a constant factor, which cancels in gradients and in ratios.

    `entropy` is exact without `squash`. With it, `entropy` is an unbiased estimate from the sample `raw_action`, and its gradient
    is that of the reparameterised sample. `kl` is always exact.

    Args:
      action_space: `Discrete`, `MultiDiscrete`, or a `Box` of floats.
      squash: for a `Box` with finite bounds, apply a tanh to the normal sample instead of clipping it.

    Returns:
      A `PolicyHead`.

    Raises:
      ValueError: for another action space, or `squash` without finite bounds. The functions of a `MultiDiscrete` raise it for
        logits of another width.

    >>> head = policy_head(MultiDiscrete((3, 2)))
    >>> head.params_spec((8,)).shape
    (8, 5)
    """
    if squash and not isinstance(action_space, Box):
        raise ValueError(f"squash=True is for a Box of actions, got {action_space}; use squash=False")
    if isinstance(action_space, Discrete):
        return _categorical_head(action_space.n)
    if isinstance(action_space, MultiDiscrete):
        return _multi_categorical_head(action_space.nvec)
    box = _check_box("a policy needs a Discrete or MultiDiscrete action space or a Box of floats", action_space)
    if squash and not box.bounded:
        raise ValueError(f"squash=True needs finite bounds, got {box}; use squash=False")
    return _squashed_head(box) if squash else _gaussian_head(box)


def deterministic_head(action_space: Space) -> DeterministicHead:
    """Return the deterministic policy for a `Box`, as used by DDPG and TD3.

    The raw action is tanh of the network's output in every dimension with two finite bounds, and the output itself where there
    are none. Where there is one, it is softplus of the output, measured from the bound, shifted so that an output of 0 is a raw
    action of 0: an output beyond the bound would have no gradient. Exploration noise is in normalised units:
    `perturb(mode(params), sigma * noise)`.

    Args:
      action_space: a `Box` of floats, with m numbers.

    Returns:
      A `DeterministicHead`.

    Raises:
      ValueError: for another action space.

    >>> import jax.numpy as jnp
    >>> head = deterministic_head(Box(0.0, 10.0, (1,)))
    >>> head.to_action(head.perturb(head.mode(jnp.zeros(1)), jnp.array([0.5]))).tolist()
    [7.5]
    """
    box = _check_box("a deterministic policy needs a Box of floats as its action space", action_space)
    size = math.prod(box.shape)
    has_low, has_high = (np.isfinite(bound).reshape(-1) for bound in (box.low, box.high))
    low, high = np.where(has_low, -1.0, -np.inf), np.where(has_high, 1.0, np.inf)

    def mode(output):
        raw_action = jnp.where(_row(has_low & has_high, output), jnp.tanh(output), output)
        if not np.any(has_low ^ has_high):
            return raw_action
        sign = _row(np.where(has_low, 1.0, -1.0), output)  # the raw bound is -1 below, 1 above
        inside = sign * (jax.nn.softplus(sign * output + math.log(math.e - 1)) - 1)
        return jnp.where(_row(has_low ^ has_high, output), inside, raw_action)

    def perturb(raw_action, noise):
        return jnp.clip(raw_action + noise.astype(raw_action.dtype), _row(low, raw_action), _row(high, raw_action))

    def random(noise):
        uniform = jax.lax.erf(noise * 0.5**0.5)  # 2 Φ(noise) − 1
        return perturb(jnp.where(_row(has_low & has_high, noise), uniform, noise), jnp.zeros_like(noise))

    return DeterministicHead(
        params_spec=lambda batch_shape: _float32(*batch_shape, size),
        noise=lambda key, batch_shape: jax.random.normal(key, (*batch_shape, size), jnp.float32),
        mode=mode,
        perturb=perturb,
        random=random,
        to_action=_to_box(box),
    )


# --- units of a Box


def box_units(box: Box) -> tuple[np.ndarray, np.ndarray]:
    """The origin and scale of a Box's normalised units, each float64 `[m]`: action = origin + scale * raw_action.

    >>> box_units(Box(np.array([15, 0, -np.inf]), np.array([30, np.inf, np.inf]), (3,)))
    (array([22.5,  1. ,  0. ]), array([7.5, 1. , 1. ]))
    """
    low, high = (bound.astype(np.float64).reshape(-1) for bound in (box.low, box.high))
    has_low, has_high = np.isfinite(low), np.isfinite(high)
    low, high = (
        np.where(has_low, low, np.where(has_high, high - 2, -1)),
        np.where(has_high, high, np.where(has_low, low + 2, 1)),
    )
    return low / 2 + high / 2, np.where(has_low & has_high, high / 2 - low / 2, 1.0)


def to_units(origin: np.ndarray, scale: np.ndarray, x: jax.Array) -> jax.Array:
    """origin + scale * x, for x `[..., m]`; exactly x if the bounds are already [-1, 1]."""
    if np.all(origin == 0) and np.all(scale == 1):
        return x
    return _row(origin, x) + _row(scale, x) * x


def _row(row: np.ndarray, like: jax.Array) -> jax.Array:
    """Broadcast a constant `[m]` to the shape of `like` `[..., m]`, as strict rank promotion requires; floats take its dtype."""
    dtype = row.dtype if row.dtype == bool else like.dtype
    return jnp.broadcast_to(jnp.asarray(row, dtype), like.shape)


def _to_box(box: Box) -> Callable[[jax.Array], jax.Array]:
    """Return a function that converts normalised units `[..., m]` to the Box and clips them to its bounds."""
    origin, scale = box_units(box)
    dtype = jax.dtypes.canonicalize_dtype(box.dtype)

    def to_action(raw_action):
        action = to_units(origin, scale, raw_action).reshape(*raw_action.shape[:-1], *box.shape).astype(dtype)
        low, high = (jnp.broadcast_to(jnp.asarray(bound, dtype), action.shape) for bound in (box.low, box.high))
        return jnp.clip(action, low, high)

    return to_action


def _check_box(needs: str, action_space: Space) -> Box:
    if not isinstance(action_space, Box) or not jnp.issubdtype(action_space.dtype, jnp.floating):
        raise ValueError(f"{needs}, got {action_space}")
    return action_space


# --- heads


def _float32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _categorical_head(num_actions: int) -> PolicyHead:
    return PolicyHead(
        params_spec=lambda batch_shape: _float32(*batch_shape, num_actions),
        noise=lambda key, batch_shape: categorical.noise(key, (*batch_shape, num_actions)),
        sample=categorical.sample,
        mode=categorical.mode,
        to_action=lambda raw_action: raw_action,
        log_prob=categorical.log_prob,
        entropy=lambda params, raw_action: categorical.entropy(params),
        kl=categorical.kl,
    )


def _multi_categorical_head(nvec: tuple[int, ...]) -> PolicyHead:
    """One categorical, batched over the components; shorter components are padded with illegal actions."""
    largest = max(nvec)

    def parts(logits, padding=-jnp.inf):
        """`[..., sum(nvec)]` to `[..., m, largest]`."""
        if logits.shape[-1:] != (sum(nvec),):
            space = MultiDiscrete(nvec)
            raise ValueError(f"policy_head of {space}: logits and noise must be [..., {sum(nvec)}], got {logits.shape}")
        if min(nvec) < largest:
            split = jnp.split(logits, np.cumsum(nvec)[:-1], axis=-1)
            missing = [jnp.full_like(logits[..., : largest - x.shape[-1]], padding) for x in split]
            logits = jnp.concatenate([x for pair in zip(split, missing, strict=True) for x in pair], axis=-1)
        return logits.reshape(*logits.shape[:-1], len(nvec), largest)

    return PolicyHead(
        params_spec=lambda batch_shape: _float32(*batch_shape, sum(nvec)),
        noise=lambda key, batch_shape: categorical.noise(key, (*batch_shape, sum(nvec))),
        sample=lambda params, noise: categorical.sample(parts(params), parts(noise, padding=0.0)),
        mode=lambda params: categorical.mode(parts(params)),
        to_action=lambda raw_action: raw_action,
        log_prob=lambda params, raw_action: jnp.sum(categorical.log_prob(parts(params), raw_action), axis=-1),
        entropy=lambda params, raw_action: jnp.sum(categorical.entropy(parts(params)), axis=-1),
        kl=lambda params, other: jnp.sum(categorical.kl(parts(params), parts(other)), axis=-1),
    )


def _gaussian_head(box: Box) -> PolicyHead:
    size = math.prod(box.shape)
    return PolicyHead(
        params_spec=lambda batch_shape: (_float32(*batch_shape, size), _float32(*batch_shape, size)),
        noise=lambda key, batch_shape: diagonal_gaussian.noise(key, (*batch_shape, size)),
        sample=diagonal_gaussian.sample,
        mode=diagonal_gaussian.mode,
        to_action=_to_box(box),
        log_prob=diagonal_gaussian.log_prob,
        entropy=lambda params, raw_action: diagonal_gaussian.entropy(params),
        kl=diagonal_gaussian.kl,
    )


def _squashed_head(box: Box) -> PolicyHead:
    to_action = _to_box(box)

    def noise_of(params, raw_action):
        mean, log_std = params
        return jax.lax.stop_gradient((raw_action - mean) * jnp.exp(-log_std))

    def entropy(params, raw_action):
        return tanh_gaussian.entropy(params, noise_of(params, raw_action))

    return _gaussian_head(box)._replace(
        to_action=lambda raw_action: to_action(jnp.tanh(raw_action)),
        log_prob=tanh_log_prob_at,
        entropy=entropy,
        kl=tanh_gaussian.kl,
        noise_of=noise_of,
    )
