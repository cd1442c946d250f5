"""Exact solutions of tabular MDPs: pure functions that work under `jit`, `vmap` and `grad`.

A policy is a table π(a|s), `[S, A]`. Returns have an infinite horizon and end in terminal states, unless `horizon` is
given. If `discount` is 1 and an episode may never end, the value is inf or NaN. Floating-point arrays are promoted to
their common floating type, integers and booleans are converted to it, and so is `discount`, which does not widen it.
Equations are numbered as in Sutton & Barto (2018).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl._src.checks import FRACTION, check_scalar, check_size
from jaxrl._src.dtypes import promote
from jaxrl._src.linear_algebra import solve
from jaxrl.envs.problems.tabular import TabularMDP
from jaxrl.losses import greedy

# By default, accelerators multiply matrices in lower precision than float32.
_einsum = partial(jnp.einsum, precision="highest")


class Solution(NamedTuple):
    """Optimal values and a bound on their error, ‖v − v*‖∞ ≤ residual / (1 − γ)."""

    v: jax.Array  # [S]
    q: jax.Array  # [S, A], r(s, a) + γ E v(s')
    policy: jax.Array  # [S, A], greedy in q
    iterations: jax.Array  # int32, the number of iterations
    residual: jax.Array  # max_s |max_a q(s, a) − v(s)|


def expected_reward(mdp: TabularMDP) -> jax.Array:
    """r(s, a), `[S, A]`: the mean over the successors, where the reward depends on them (eq. 3.5); 0 in terminal states.

    >>> import jaxrl
    >>> expected_reward(jaxrl.make("FrozenLake").params.mdp)[14].tolist()  # next to the goal
    [0.0, 0.3333333432674408, 0.3333333432674408, 0.3333333432674408]
    """
    mdp = _promoted(mdp)[0]
    reward = mdp.reward if mdp.reward.ndim == 2 else _einsum("sat,sat->sa", mdp.transition, mdp.reward)
    return jnp.where(mdp.terminal[:, None], 0.0, reward)


def action_values(mdp: TabularMDP, v: jax.Array, discount) -> jax.Array:
    """q(s, a) = r(s, a) + γ Σ_s' P(s'|s, a) v(s') (eq. 4.6).

    Args:
      mdp: S states, A actions.
      v: `[S]`; its values in terminal states are ignored.
      discount: γ in [0, 1], a scalar.

    Returns:
      `[S, A]`, 0 in terminal states. Differentiable in every argument.

    Raises:
      ValueError: if v has another shape, or the discount is outside [0, 1].

    >>> import jax.numpy as jnp, jaxrl
    >>> mdp = jaxrl.make("Chain", slip=0.0).params.mdp
    >>> action_values(mdp, jnp.ones(5), 0.5)[4].tolist()
    [10.5, 2.5]
    """
    check_scalar("discount", discount, *FRACTION)
    _check_shape("v", v, mdp.terminal.shape)
    mdp, v = _promoted(mdp, v)
    discount = jnp.asarray(discount, v.dtype)
    v = jnp.where(mdp.terminal, 0.0, v)
    return expected_reward(mdp) + discount * _einsum("sat,t->sa", _transition(mdp), v)


def greedy_policy(q: jax.Array) -> jax.Array:
    """The policy that takes the first best action: `[S, A]` values to `[S, A]` probabilities, 0 and 1.

    >>> import jax.numpy as jnp
    >>> greedy_policy(jnp.array([[1.0, 2.0], [3.0, 3.0]])).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    (q,) = promote(q)
    return jax.nn.one_hot(greedy(q), q.shape[-1], dtype=q.dtype)


def policy_evaluation(mdp: TabularMDP, policy: jax.Array, discount, *, horizon: int | None = None) -> jax.Array:
    """The value of a policy: the v of v = r_π + γ P_π v, solved as linear equations (eq. 4.4).

    Args:
      mdp: S states, A actions.
      policy: π(a|s), `[S, A]`.
      discount: γ in [0, 1], a scalar.
      horizon: number of steps to count, where a time limit is part of the task; by default infinite.

    Returns:
      `[S]`, 0 in terminal states; infinite or NaN if γ is 1, there is no horizon, and the policy does not terminate.
      Differentiable in every argument.

    Raises:
      TypeError, ValueError: if the policy has another shape, the discount is outside [0, 1], or the horizon is
        not a positive int.

    >>> import jax.numpy as jnp, jaxrl
    >>> mdp = jaxrl.make("Chain", num_states=2, slip=0.0).params.mdp
    >>> always_forward = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    >>> policy_evaluation(mdp, always_forward, 0.5).tolist()  # 10 a step from the second state on
    [10.0, 20.0]
    """
    check_scalar("discount", discount, *FRACTION)
    mdp, policy = _promoted(mdp, policy)
    discount = jnp.asarray(discount, policy.dtype)
    transition, reward = _follow(mdp, policy)
    if horizon is None:
        return solve(jnp.eye(reward.shape[0], dtype=reward.dtype) - discount * transition, reward)

    def one_more_step(v, _):
        return reward + discount * _einsum("st,t->s", transition, v), None

    return jax.lax.scan(one_more_step, jnp.zeros_like(reward), length=check_size("horizon", horizon))[0]


def expected_return(mdp: TabularMDP, policy: jax.Array, discount, *, horizon: int | None = None) -> jax.Array:
    """The value of a policy at the start, Σ_s d₀(s) v_π(s): a scalar. Arguments as for `policy_evaluation`.

    >>> import jax.numpy as jnp, jaxrl
    >>> always_up = greedy_policy(jnp.zeros((48, 4)))
    >>> float(expected_return(jaxrl.make("CliffWalk").params.mdp, always_up, 1.0, horizon=20))
    -20.0
    """
    start, v = promote(mdp.start, policy_evaluation(mdp, policy, discount, horizon=horizon))
    return jnp.sum(start * v)


def policy_gradient(
    mdp: TabularMDP, policy: Callable[[Any], jax.Array], params: Any, discount, *, horizon: int | None = None
) -> Any:
    """The exact gradient of `expected_return` in the parameters of a policy, by differentiating the linear equations.

    It is Σ_s,a d(s) ∇π(a|s) q_π(s, a), with d the `occupancy` of the states (Sutton et al. 1999, theorem 1).

    Args:
      mdp: S states, A actions.
      policy: from parameters to π(a|s), `[S, A]`; e.g. `jax.nn.softmax`, for logits `[S, A]`.
      params: any pytree of float arrays.
      discount, horizon: as for `policy_evaluation`.

    Returns:
      As `params`.

    >>> import jax, jax.numpy as jnp, jaxrl
    >>> mdp = jaxrl.make("Chain").params.mdp
    >>> policy_gradient(mdp, jax.nn.softmax, jnp.zeros((5, 2)), 0.9).shape
    (5, 2)
    """
    return jax.grad(lambda params: expected_return(mdp, policy(params), discount, horizon=horizon))(params)


def occupancy(mdp: TabularMDP, policy: jax.Array, discount) -> jax.Array:
    """Discounted state-action visits of a policy, d(s, a) = Σ_t γ^t Pr(s_t = s, a_t = a).

    Its sum is the discounted length of an episode, 1 / (1 − γ) where nothing terminates; Σ d r is `expected_return`
    (Puterman 1994, §6.9).

    Args:
      mdp: S states, A actions.
      policy: π(a|s), `[S, A]`.
      discount: γ in [0, 1], a scalar.

    Returns:
      `[S, A]`, 0 in terminal states. Differentiable in every argument.

    Raises:
      ValueError: if the policy has another shape or the discount is outside [0, 1].

    >>> import jax.numpy as jnp, jaxrl
    >>> mdp = jaxrl.make("Chain").params.mdp
    >>> round(float(occupancy(mdp, jnp.full((5, 2), 0.5), 0.9).sum()), 3)
    10.0
    """
    check_scalar("discount", discount, *FRACTION)
    mdp, policy = _promoted(mdp, policy)
    discount = jnp.asarray(discount, policy.dtype)
    transition, _ = _follow(mdp, policy)
    visits = solve(jnp.eye(mdp.start.shape[0], dtype=mdp.start.dtype) - discount * transition.T, mdp.start)
    return jnp.where(mdp.terminal, 0.0, visits)[:, None] * policy


def value_iteration(mdp: TabularMDP, discount, *, tolerance=1e-6, max_iterations: int = 10_000) -> Solution:
    """Optimal values by iterating v ← max_a q(·, a) from v = 0 until convergence (eq. 4.10).

    Args:
      mdp: S states, A actions.
      discount: γ in [0, 1], a scalar. With 1, values must be finite under some policy.
      tolerance: stop when no value changes by more than this fraction of the largest. The error of v is then at most
        tolerance · γ / (1 − γ) times the largest; `policy_iteration` is more accurate.
      max_iterations: stop after this many in any case.

    Returns:
      A `Solution`. v and q are differentiable in the MDP and the discount, in forward and reverse mode, by the implicit
      function theorem, which needs no memory for the iterations.

    Raises:
      TypeError, ValueError: if the discount is outside [0, 1], or `max_iterations` is not a positive int.

    >>> import jaxrl
    >>> env = jaxrl.make("CliffWalk")
    >>> float(value_iteration(env.params.mdp, 1.0).v @ env.params.mdp.start)
    -13.0
    """
    check_size("max_iterations", max_iterations)
    mdp = _promoted(mdp)[0]
    tolerance = jnp.asarray(tolerance, mdp.start.dtype)

    def backup(v):
        return jnp.max(action_values(mdp, v, discount), axis=1)

    def unfinished(carry):
        v, change, iterations = carry
        return (change > tolerance * jnp.max(jnp.abs(v))) & (iterations < max_iterations)

    def improve(carry):
        v, _, iterations = carry
        better = backup(v)
        return better, jnp.max(jnp.abs(better - v)), iterations + 1

    def iterate(_, v):
        v, _, iterations = jax.lax.while_loop(unfinished, improve, improve((v, None, jnp.int32(0))))
        return v, iterations.astype(float)  # custom_root differentiates it too, and integers have no derivative

    v, iterations = jax.lax.custom_root(
        lambda v: backup(v) - v,
        jnp.zeros_like(mdp.start),
        iterate,
        lambda linear, y: solve(jax.jacfwd(linear)(y), y),  # γP − I of the greedy policy
        has_aux=True,
    )
    return _solution(mdp, v, discount, iterations.astype(jnp.int32))


def policy_iteration(mdp: TabularMDP, discount, *, tolerance=1e-6, max_iterations: int = 100) -> Solution:
    """Optimal values by policy iteration: evaluate exactly and make greedy, until the policy is greedy (§4.3).

    Args:
      mdp: S states, A actions.
      discount: γ in [0, 1), a scalar; 1 is allowed if every policy reaches a terminal state.
      tolerance: an action replaces that of the policy only if it is better by more than this fraction of the largest
        value, so that ties and rounding do not prolong the iteration.
      max_iterations: stop after this many in any case.

    Returns:
      A `Solution`; v is that of its last policy, from the linear equations. v and q are differentiable in the MDP and
      the discount, with the policy held constant, which leaves first derivatives exact but not higher ones.

    Raises:
      TypeError, ValueError: if the discount is outside [0, 1], or `max_iterations` is not a positive int.

    >>> import jaxrl
    >>> solution = policy_iteration(jaxrl.make("Chain").params.mdp, 0.99)
    >>> solution.policy[:, 0].tolist(), int(solution.iterations)  # forward, everywhere
    ([1.0, 1.0, 1.0, 1.0, 1.0], 3)
    """
    check_size("max_iterations", max_iterations)
    mdp = _promoted(mdp)[0]
    tolerance = jnp.asarray(tolerance, mdp.start.dtype)
    fixed, fixed_discount = jax.lax.stop_gradient((mdp, jnp.asarray(discount, mdp.start.dtype)))

    def improve(carry):
        policy, _, iterations = carry
        q = action_values(fixed, policy_evaluation(fixed, policy, fixed_discount), fixed_discount)
        taken = jnp.sum(policy * q, axis=1)
        better = jnp.max(q, axis=1) - taken > tolerance * jnp.max(jnp.abs(q))
        return jnp.where(better[:, None], greedy_policy(q), policy), jnp.any(better), iterations + 1

    first = greedy_policy(expected_reward(fixed))
    carry = jax.lax.while_loop(lambda c: c[1] & (c[2] < max_iterations), improve, (first, jnp.bool_(True), jnp.int32(0)))
    return _solution(mdp, policy_evaluation(mdp, carry[0], discount), discount, carry[2])


def _solution(mdp: TabularMDP, v: jax.Array, discount, iterations: jax.Array) -> Solution:
    q = action_values(mdp, v, discount)
    return Solution(v, q, greedy_policy(q), iterations, jnp.max(jnp.abs(jnp.max(q, axis=1) - v)))


def _promoted(mdp: TabularMDP, *arrays: jax.Array) -> tuple[Any, ...]:
    """The MDP and `arrays`, with their numbers in one floating type (see `_src/dtypes.py`). Raises TypeError if it is none."""
    if not isinstance(mdp, TabularMDP):
        raise TypeError(f"mdp must be a TabularMDP, such as env.params.mdp of a tabular environment; got {type(mdp).__name__}")
    transition, reward, start, *rest = promote(mdp.transition, mdp.reward, mdp.start, *arrays)
    return mdp._replace(transition=transition, reward=reward, start=start), *rest


def _follow(mdp: TabularMDP, policy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The Markov chain of a policy, `[S, S]`, and its rewards, `[S]`."""
    _check_shape("policy", policy, mdp.transition.shape[:2])
    return _einsum("sa,sat->st", policy, _transition(mdp)), jnp.sum(policy * expected_reward(mdp), axis=1)


def _transition(mdp: TabularMDP) -> jax.Array:
    """P(s'|s, a), with 0 where s is terminal, so that its value is 0."""
    return jnp.where(mdp.terminal[:, None, None], 0.0, mdp.transition)


def _check_shape(name: str, value: jax.Array, shape: tuple[int, ...]) -> None:
    if jnp.shape(value) != shape:
        raise ValueError(f"{name} must be {list(shape)} for this MDP, got {list(jnp.shape(value))}")
