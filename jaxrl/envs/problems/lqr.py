"""The linear-quadratic regulator: continuous states and actions with an exact optimum, and exact values of policies.

s' = A s + B a + noise, reward −sᵀQs − aᵀRa. All functions except `lqr` take `env.params`, work under `jit` and `vmap`, and
are differentiable. With a discount of 1 the value is finite only without noise and offset, or for a finite horizon.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import FRACTION, check_scalar, check_size
from jaxrl._src.linear_algebra import product, solve
from jaxrl.types import Box, Environment, Step

# 2^24 steps of a geometric series: enough for every discount below 1 in float32.
_DOUBLINGS = 24


class Params(NamedTuple):
    """The fields are arrays and may be traced."""

    transition: Any  # A, [n, n]
    control: Any  # B, [n, m]
    state_cost: Any  # Q, [n, n], symmetric, no negative eigenvalue
    action_cost: Any  # R, [m, m], symmetric, positive definite
    noise_scale: Any  # standard deviation of the noise on every component of s'
    start_scale: Any  # episodes start from N(0, start_scale² I)
    max_steps_in_episode: Any


class State(NamedTuple):
    position: jax.Array  # [n]
    time: jax.Array  # int32


class Regulator(NamedTuple):
    """The optimum: the policy a = −gain s, and its value, for `value_at` and `start_value`."""

    gain: jax.Array  # K, [..., m, n]
    value: jax.Array  # [..., n + 1, n + 1]


def lqr(
    transition=((1.0, 0.1), (0.0, 1.0)),
    control=((0.0,), (0.1,)),
    *,
    state_cost=None,
    action_cost=None,
    noise_scale: float = 0.1,
    start_scale: float = 1.0,
    max_steps_in_episode: int = 50,
) -> Environment:
    """A linear system with a quadratic reward, by default a mass that a force brings to rest.

    State in R^n, unbounded action in R^m; the reward −sᵀQs − aᵀRa is that of the state before the step and the action.
    Episodes never terminate; the time limit truncates them.

    Args:
      transition: A `[n, n]`.
      control: B `[n, m]`.
      state_cost: Q `[n, n]`, symmetric without negative eigenvalues; by default the identity.
      action_cost: R `[m, m]`, symmetric and positive definite; by default 0.1 of the identity.
      noise_scale: standard deviation of the normal noise on every component of s'.
      start_scale: standard deviation of every component of the first state, whose mean is 0.
      max_steps_in_episode: time limit in steps.

    Raises:
      ValueError: if the shapes of the matrices do not match, Q or R is not of that kind, a scale is negative, or the limit
        is below 1.
      TypeError: if the limit is not an int.

    >>> import jax, jax.numpy as jnp
    >>> env = lqr()
    >>> state, obs = env.reset(jax.random.key(0), env.params)
    >>> state, step = env.step(jax.random.key(1), state, jnp.zeros(1), env.params)
    >>> bool(jnp.isclose(step.reward, -jnp.sum(obs**2)))
    True
    """
    control = np.asarray(control, np.float32)
    if control.ndim != 2 or 0 in control.shape:
        raise ValueError(f"control must be a matrix [n, m], got {list(control.shape)}")
    n, m = control.shape
    check_size("max_steps_in_episode", max_steps_in_episode)
    for name, scale in (("noise_scale", noise_scale), ("start_scale", start_scale)):
        if not scale >= 0:
            raise ValueError(f"{name} must be at least 0, got {scale}")
    params = Params(
        transition=_matrix("transition", transition, n),
        control=control,
        state_cost=_cost("state_cost", np.eye(n) if state_cost is None else state_cost, n, definite=False),
        action_cost=_cost("action_cost", 0.1 * np.eye(m) if action_cost is None else action_cost, m, definite=True),
        noise_scale=np.float32(noise_scale),
        start_scale=np.float32(start_scale),
        max_steps_in_episode=max_steps_in_episode,
    )
    return Environment(_reset, _step, params, Box(-np.inf, np.inf, (n,)), Box(-np.inf, np.inf, (m,)), "LQR")


def _matrix(name: str, value, size: int) -> np.ndarray:
    matrix = np.asarray(value, np.float32)
    if matrix.shape != (size, size):
        raise ValueError(f"{name} must be {[size, size]}, as control is [n, m]; got {list(matrix.shape)}")
    return matrix


def _cost(name: str, value, size: int, *, definite: bool) -> np.ndarray:
    matrix = _matrix(name, value, size)
    least = np.linalg.eigvalsh(matrix).min()
    if not np.array_equal(matrix, matrix.T) or not (least > 0 if definite else least >= -1e-6 * np.abs(matrix).max()):
        kind = "positive definite" if definite else "without negative eigenvalues"
        raise ValueError(f"{name} must be symmetric and {kind}, got {matrix.tolist()}")
    return matrix


def _reset(key: jax.Array, params: Params) -> tuple[State, jax.Array]:
    position = params.start_scale * jax.random.normal(key, params.transition.shape[:1], jnp.float32)
    return State(position, jnp.int32(0)), position


def _step(key: jax.Array, state: State, action: jax.Array, params: Params) -> tuple[State, Step]:
    n, m = params.control.shape
    s, a = state.position, action.reshape(m)
    cost = product(product(params.state_cost, s)[None], s) + product(product(params.action_cost, a)[None], a)
    position = product(params.transition, s) + product(params.control, a)
    position = position + params.noise_scale * jax.random.normal(key, (n,), jnp.float32)
    time = state.time + 1
    return State(position, time), Step(position, -cost[0], jnp.bool_(False), time >= params.max_steps_in_episode)


def riccati(params: Params, discount, *, tolerance: float = 1e-6, max_iterations: int = 10_000) -> Regulator:
    """The optimum over an infinite horizon: the solution of the discrete algebraic Riccati equation

    P = Q + γ Aᵀ P (A − B K) with K = γ (R + γ Bᵀ P B)⁻¹ Bᵀ P A, by iterating it from P = Q; then v(s) = −sᵀ P s − c.

    Args:
      params: of `lqr`; some control must keep γ^(t/2) s_t bounded, and Q must penalise every mode that does not decay.
      discount: γ in [0, 1], a scalar.
      tolerance: stop when no element of P changes by more than this fraction of the largest.
      max_iterations: maximum number of iterations.

    Returns:
      A `Regulator`, gain `[m, n]`. Its value is exactly that of the gain at the end of the iteration. First derivatives with
      respect to `params` and the discount are exact: the gain is held constant, which is right since it is optimal.

    Raises:
      ValueError: if the discount is not in [0, 1], or `max_iterations` below 1.
      TypeError: if `max_iterations` is not an int.

    >>> regulator = riccati(lqr(transition=[[1.0]], control=[[1.0]], action_cost=[[1.0]], noise_scale=0.0).params, 1.0)
    >>> round(float(regulator.value[0, 0]), 3), round(float(regulator.gain[0, 0]), 3)  # the golden ratio
    (1.618, 0.618)
    """
    check_scalar("discount", discount, *FRACTION)
    check_size("max_iterations", max_iterations)
    fixed, gamma = jax.lax.stop_gradient((_arrays(params), jnp.asarray(discount, jnp.float32)))

    def unfinished(carry):
        p, change, iterations = carry
        return (change > tolerance * jnp.max(jnp.abs(p))) & (iterations < max_iterations)

    def improve(carry):
        p, _, iterations = carry
        better = _backup(fixed, _gain(fixed, p, gamma), p, gamma)
        return better, jnp.max(jnp.abs(better - p)), iterations + 1

    p, _, _ = jax.lax.while_loop(unfinished, improve, improve((fixed.state_cost, None, jnp.int32(0))))
    value = policy_value(params, _gain(fixed, p, gamma), discount)
    n = p.shape[0]
    return Regulator(_gain(_arrays(params), value[:n, :n], discount), value)


def finite_riccati(params: Params, horizon: int, discount=1.0) -> Regulator:
    """The optimum of an episode of `horizon` steps, in which the gain depends on time.

    Args:
      params: of `lqr`.
      horizon: H, steps.
      discount: γ in [0, 1], a scalar.

    Returns:
      A `Regulator`: gain `[H, m, n]` and value `[H, n + 1, n + 1]` at each step t, with H − t steps left.

    Raises:
      ValueError: if the discount is not in [0, 1], or the horizon below 1.
      TypeError: if the horizon is not an int.

    >>> finite_riccati(lqr().params, 5).gain[-1].tolist()  # the last action earns nothing
    [[0.0, 0.0]]
    """
    check_scalar("discount", discount, *FRACTION)
    params = _arrays(params)
    n = params.transition.shape[0]

    def one_more_step(value, _):
        gain = _gain(params, value[:n, :n], discount)
        value = _one_step(params, -_homogeneous(gain), jnp.zeros(gain.shape[0]), value, discount)
        return value, Regulator(gain, value)

    return jax.lax.scan(one_more_step, jnp.zeros((n + 1, n + 1)), length=check_size("horizon", horizon), reverse=True)[1]


def policy_value(params: Params, gain, discount, *, offset=None, std=None, horizon: int | None = None) -> jax.Array:
    """The value of a linear-Gaussian policy, a ~ N(offset − gain s, diag(std²)).

    Args:
      params: of `lqr`.
      gain: K, `[m, n]`.
      discount: γ in [0, 1], a scalar.
      offset: `[m]`, by default 0.
      std: standard deviation of each component of the action, `[m]`, by default 0.
      horizon: number of steps that count, for a time limit that is part of the task; by default infinite.

    Returns:
      `[n + 1, n + 1]`, symmetric: v(s) = −[s, 1]ᵀ value [s, 1]. Its blocks are the matrix of the quadratic form, half of the
      linear form, and the constant. Differentiable in every argument. Not finite if the closed loop γ^½ (A − B K) is
      unstable, since then the value is not.

    Raises:
      ValueError: if a shape is wrong, the discount not in [0, 1], or the horizon below 1.
      TypeError: if the horizon is not an int.

    >>> import jax.numpy as jnp
    >>> params = lqr(transition=[[0.5]], control=[[1.0]], noise_scale=0.0).params
    >>> float(policy_value(params, jnp.zeros((1, 1)), 1.0, horizon=2)[0, 0])  # 1 + 0.5²
    1.25
    """
    check_scalar("discount", discount, *FRACTION)
    params = _arrays(params)
    n, m = params.control.shape
    offset = jnp.zeros(m) if offset is None else jnp.asarray(offset)
    std = jnp.zeros(m) if std is None else jnp.asarray(std)
    for name, value, shape in (("gain", gain, (m, n)), ("offset", offset, (m,)), ("std", std, (m,))):
        if jnp.shape(value) != shape:
            raise ValueError(f"{name} must be {list(shape)}, got {list(jnp.shape(value))}")
    policy = jnp.concatenate([-jnp.asarray(gain), offset[:, None]], axis=1)
    if horizon is not None:
        zero = jnp.zeros((n + 1, n + 1))
        step = lambda value, _: (_one_step(params, policy, std, value, discount), None)
        return jax.lax.scan(step, zero, length=check_size("horizon", horizon))[0]

    closed, cost = _closed_loop(params, policy)

    def double(carry, _):  # from the sum over the first k steps to that over 2 k (Smith 1968)
        total, power = carry
        return (total + _dot(power.T, total, power), _dot(power, power)), None

    (total, _), _ = jax.lax.scan(double, (cost, jnp.sqrt(discount) * closed), length=_DOUBLINGS)
    noise = _noise_cost(params, std, total, discount)
    return total.at[n, n].add(noise / jnp.where(noise > 0, 1 - discount, 1.0))


def value_at(value: jax.Array, state: jax.Array) -> jax.Array:
    """v(s) = −[s, 1]ᵀ value [s, 1], for a value `[n + 1, n + 1]` and states `[..., n]`: `[...]`.

    >>> import jax.numpy as jnp
    >>> float(value_at(jnp.eye(2), jnp.array([3.0])))
    -10.0
    """
    s = jnp.concatenate([state, jnp.ones((*state.shape[:-1], 1))], axis=-1)
    return -jnp.einsum("...i,ij,...j->...", s, value, s, precision="highest")


def start_value(params: Params, value: jax.Array) -> jax.Array:
    """The expectation of v over the first state of an episode, a scalar: E v(s₀) for s₀ ~ N(0, start_scale² I).

    >>> import jax.numpy as jnp
    >>> float(start_value(lqr(start_scale=2.0).params, jnp.eye(3)))
    -9.0
    """
    return -(params.start_scale**2 * jnp.trace(value[:-1, :-1]) + value[-1, -1])


def _arrays(params: Params) -> Params:
    return jax.tree.map(jnp.asarray, params)


def _dot(*matrices: jax.Array) -> jax.Array:
    """The product of the matrices, in full precision on every device."""
    product = matrices[0]
    for matrix in matrices[1:]:
        product = jnp.matmul(product, matrix, precision="highest")
    return product


def _gain(params: Params, p: jax.Array, discount) -> jax.Array:
    """K = γ (R + γ Bᵀ P B)⁻¹ Bᵀ P A, the best gain if −sᵀ P s is the value of the successor."""
    b_p = discount * _dot(params.control.T, p)
    return solve(params.action_cost + _dot(b_p, params.control), _dot(b_p, params.transition))


def _backup(params: Params, gain: jax.Array, p: jax.Array, discount) -> jax.Array:
    """Q + Kᵀ R K + γ (A − B K)ᵀ P (A − B K): symmetric and positive despite rounding."""
    closed = params.transition - _dot(params.control, gain)
    return params.state_cost + _dot(gain.T, params.action_cost, gain) + discount * _dot(closed.T, p, closed)


def _closed_loop(params: Params, policy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """In the coordinates [s, 1], for the mean action `policy` [s, 1]: the mean successor and the cost, `[n + 1, n + 1]`."""
    n = params.transition.shape[0]
    closed = jnp.eye(n + 1).at[:n, :n].set(params.transition).at[:n].add(_dot(params.control, policy))
    return closed, _dot(policy.T, params.action_cost, policy).at[:n, :n].add(params.state_cost)


def _noise_cost(params: Params, std: jax.Array, value: jax.Array, discount) -> jax.Array:
    """The expected cost of the noise of one step: in the action, and in −sᵀ P s at the successor."""
    n = params.transition.shape[0]
    variance = jnp.square(std)
    spread = _dot(params.control * variance[None], params.control.T) + params.noise_scale**2 * jnp.eye(n)
    return jnp.sum(jnp.diag(params.action_cost) * variance) + discount * jnp.sum(value[:n, :n] * spread)


def _one_step(params: Params, policy: jax.Array, std: jax.Array, value: jax.Array, discount) -> jax.Array:
    """The value of one step of a policy that is followed by `value`."""
    closed, cost = _closed_loop(params, policy)
    n = params.transition.shape[0]
    return (cost + discount * _dot(closed.T, value, closed)).at[n, n].add(_noise_cost(params, std, value, discount))


def _homogeneous(gain: jax.Array) -> jax.Array:
    return jnp.concatenate([gain, jnp.zeros((gain.shape[0], 1))], axis=1)
