"""The regulator against loops in NumPy, SciPy's Riccati solver, and sampled returns."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxrl
from jaxrl.envs.problems.lqr import finite_riccati, lqr, policy_value, riccati, start_value, value_at

N, M, H = 3, 2, 6
GAMMA = 0.95
ONE_IN_A_MILLION = 1e-6
seeds = st.integers(0, 2**32 - 1)

solve_finite = jax.jit(partial(finite_riccati, horizon=H))
evaluate = jax.jit(lambda params, gain, offset, std, discount: policy_value(params, gain, discount, offset=offset, std=std))
evaluate_finite = jax.jit(
    lambda params, gain, offset, std, discount: policy_value(params, gain, discount, offset=offset, std=std, horizon=H)
)


def system(seed, **static):
    """A random one whose spectral radius is at most 1.1, so that some are unstable."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(N, N))
    a *= rng.uniform(0.5, 1.1) / np.abs(np.linalg.eigvals(a)).max()
    q, r = rng.normal(size=(N, N)), rng.normal(size=(M, M))
    static = {"noise_scale": 0.3, "start_scale": 0.7} | static
    return lqr(a, rng.normal(size=(N, M)), state_cost=_spd(q), action_cost=_spd(r), **static)


def _spd(x):
    x = np.float32(x @ x.T + 0.2 * np.eye(len(x)))
    return (x + x.T) / 2


def recursion(params, gains, offset, std, gamma):
    """P, p, c of v(s) = −(sᵀPs + 2 pᵀs + c), for the gains of the steps from the last to the first."""
    a, b, q, r = (np.asarray(x, np.float64) for x in params[:4])
    w = float(params.noise_scale) ** 2 * np.eye(N) + b @ np.diag(std**2) @ b.T
    p, linear, c = np.zeros((N, N)), np.zeros(N), 0.0
    for k in gains:
        closed, drift = a - b @ k, b @ offset
        c = (
            offset @ r @ offset
            + np.trace(r @ np.diag(std**2))
            + gamma * (drift @ p @ drift + 2 * linear @ drift + np.trace(p @ w) + c)
        )
        linear = -k.T @ r @ offset + gamma * closed.T @ (p @ drift + linear)
        p = q + k.T @ r @ k + gamma * closed.T @ p @ closed
    return np.block([[p, linear[:, None]], [linear[None], np.array([[c]])]])


def best_gain(params, p, gamma):
    a, b, _, r = (np.asarray(x, np.float64) for x in params[:4])
    return np.linalg.solve(r + gamma * b.T @ p @ b, gamma * b.T @ p @ a)


@cache
def optima():
    """Sixteen systems, each with its discount and its optimum, all solved in one batch."""
    systems = [system(seed).params for seed in range(16)]
    gammas = np.float32(np.linspace(0.5, 0.97, 16))
    batch = jax.jit(jax.vmap(riccati))(jax.tree.map(lambda *x: np.stack(x), *systems), gammas)
    return [(s, float(g), jax.tree.map(lambda x, i=i: x[i], batch)) for i, (s, g) in enumerate(zip(systems, gammas, strict=True))]


def test_the_optimum_is_scipys():
    for params, gamma, regulator in optima():
        a, b, q, r = (np.asarray(x, np.float64) for x in params[:4])
        p = scipy.linalg.solve_discrete_are(np.sqrt(gamma) * a, np.sqrt(gamma) * b, q, r)
        scale = np.abs(p).max()
        np.testing.assert_allclose(regulator.value[:N, :N], p, atol=1e-4 * scale)
        np.testing.assert_allclose(regulator.gain, best_gain(params, p, gamma), atol=1e-3)
        assert not np.asarray(regulator.value[:N, N]).any()
        constant = gamma / (1 - gamma) * float(params.noise_scale) ** 2 * np.trace(p)
        assert float(regulator.value[N, N]) == pytest.approx(constant, rel=1e-4)


@settings(deadline=None, max_examples=15)
@given(seed=seeds)
def test_the_finite_optimum_is_the_recursion(seed):
    params = system(seed).params
    regulator = solve_finite(params)
    gains: list[np.ndarray] = []
    for t in reversed(range(H)):
        value = recursion(params, gains, np.zeros(M), np.zeros(M), 1.0)
        gains.append(best_gain(params, value[:N, :N], 1.0))
        value = recursion(params, gains, np.zeros(M), np.zeros(M), 1.0)
        np.testing.assert_allclose(regulator.gain[t], gains[-1], atol=1e-3)
        np.testing.assert_allclose(regulator.value[t], value, atol=1e-3 * np.abs(value).max())


@pytest.mark.parametrize("seed", range(16))
def test_the_value_of_a_policy_is_the_recursion(seed):
    (params, _, regulator), rng = optima()[seed], np.random.default_rng(seed)
    gain = np.float32(regulator.gain + 0.1 * rng.normal(size=(M, N)))
    offset, std = np.float32(rng.normal(size=M)), np.float32(rng.uniform(0, 1, size=M))
    args = [x.astype(np.float64) for x in (gain, offset, std)]
    value = recursion(params, [args[0]] * H, *args[1:], 1.0)
    np.testing.assert_allclose(evaluate_finite(params, gain, offset, std, 1.0), value, atol=1e-4 * np.abs(value).max())
    closed = np.sqrt(GAMMA) * (np.asarray(params.transition) - np.asarray(params.control) @ gain)
    if np.abs(np.linalg.eigvals(closed)).max() < 0.97:
        value = recursion(params, [args[0]] * 1000, *args[1:], GAMMA)
        np.testing.assert_allclose(evaluate(params, gain, offset, std, GAMMA), value, atol=1e-3 * np.abs(value).max())


def test_no_policy_is_better_and_the_gradient_there_is_zero():
    params, gamma, regulator = optima()[4]
    cost = jax.jit(lambda gain: -start_value(params, policy_value(params, gain, gamma)))
    best = float(cost(regulator.gain))
    assert best == pytest.approx(-float(start_value(params, regulator.value)), rel=1e-5)
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert float(cost(regulator.gain + 0.05 * jnp.float32(rng.normal(size=(M, N))))) > best
    slope = jax.jit(jax.grad(cost))
    assert float(jnp.abs(slope(regulator.gain)).max()) < 1e-3 * float(jnp.abs(slope(regulator.gain + 0.1)).max())


def test_derivatives_of_the_optimum_are_those_of_finite_differences():
    """Of value and gain, in the dynamics and the discount: against SciPy's solution of neighbouring systems."""
    params = system(7).params
    a, b, q, r = (np.asarray(x, np.float64) for x in params[:4])

    def scipys(scale, gamma):
        p = scipy.linalg.solve_discrete_are(np.sqrt(gamma) * scale * a, np.sqrt(gamma) * b, q, r)
        return p[0, 1], np.linalg.solve(r + gamma * b.T @ p @ b, gamma * b.T @ p @ a * scale)[0, 0]

    def ours(scale, gamma):
        regulator = riccati(params._replace(transition=params.transition * scale), gamma)
        return regulator.value[0, 1], regulator.gain[0, 0]

    derivatives = jax.jit(jax.jacrev(ours, (0, 1)))(jnp.float32(1), jnp.float32(GAMMA))
    for i in (0, 1):
        by_scale = (scipys(1 + 1e-5, GAMMA)[i] - scipys(1 - 1e-5, GAMMA)[i]) / 2e-5
        by_gamma = (scipys(1, GAMMA + 1e-5)[i] - scipys(1, GAMMA - 1e-5)[i]) / 2e-5
        np.testing.assert_allclose(derivatives[i], (by_scale, by_gamma), rtol=2e-3, atol=1e-4)


def test_episodes_are_those_of_the_system_and_their_mean_return_is_the_value():
    """20,000 episodes of a random linear-Gaussian policy, undiscounted; the mean within 5 standard errors (p < 6e-7)."""
    env, num = system(2, max_steps_in_episode=H), 20_000
    rng, params = np.random.default_rng(2), env.params
    gain, offset, std = (np.float32(x) for x in (0.2 * rng.normal(size=(M, N)), [0.3, -0.2], [0.5, 0.1]))

    def episode(key):
        reset_key, step_key, noise_key = jax.random.split(key, 3)
        state, obs = env.reset(reset_key, params)

        def step(carry, inputs):
            state, obs = carry
            action = offset - gain @ obs + std * inputs[1]
            state, after = env.step(inputs[0], state, action, params)
            return (state, after.obs), (obs, action, after)

        noise = jax.random.normal(noise_key, (H, M))
        return jax.lax.scan(step, (state, obs), (jax.random.split(step_key, H), noise))[1]

    sampled = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), num))
    assert sampled[2].reward.dtype == sampled[2].obs.dtype == jnp.float32
    obs, action, after = jax.tree.map(np.asarray, sampled)
    cost = np.einsum("bti,ij,btj->bt", obs, params.state_cost, obs) + np.einsum(
        "bti,ij,btj->bt", action, params.action_cost, action
    )
    np.testing.assert_allclose(after.reward, -cost, rtol=1e-4, atol=1e-4)
    noise = after.obs - obs @ params.transition.T - action @ params.control.T
    for sample, scale in ((obs[:, 0], 0.7), (noise[:, 3], 0.3)):
        for component in sample.astype(np.float64).T:
            assert scipy.stats.kstest(component, scipy.stats.norm(0, scale).cdf).pvalue > ONE_IN_A_MILLION
        assert np.abs(np.corrcoef(sample.T) - np.eye(N)).max() < 5 / np.sqrt(num)
    assert (after.truncated == [False] * (H - 1) + [True]).all()
    assert not after.terminated.any()
    total = after.reward.sum(axis=1, dtype=np.float64)
    exact = float(start_value(params, evaluate_finite(params, gain, offset, std, 1.0)))
    assert abs(total.mean() - exact) < 5 * total.std() / np.sqrt(num)


def test_what_is_unstable_has_no_finite_value():
    params = system(0).params._replace(transition=2 * np.eye(N, dtype=np.float32))
    zeros = np.zeros(M, np.float32)
    assert not np.isfinite(evaluate(params, np.zeros((M, N), np.float32), zeros, zeros, GAMMA)[0, 0])


def test_the_value_at_a_state():
    value = jnp.float32([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0], [1.0, 0.0, 5.0]])
    states = jnp.float32([[0.0, 0.0], [1.0, 2.0]])
    np.testing.assert_allclose(value_at(value, states), [-5.0, -(2 + 12 + 2 + 5)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"control": np.ones(2)}, r"control must be a matrix \[n, m\], got \[2\]"),
        ({"transition": np.eye(3)}, r"transition must be \[2, 2\].* got \[3, 3\]"),
        ({"state_cost": np.eye(1)}, r"state_cost must be \[2, 2\]"),
        ({"state_cost": -np.eye(2)}, "state_cost must be symmetric and without negative eigenvalues"),
        ({"state_cost": [[1, 1], [0, 1]]}, "state_cost must be symmetric"),
        ({"action_cost": [[0.0]]}, "action_cost must be symmetric and positive definite"),
        ({"action_cost": [[np.nan]]}, "action_cost must be symmetric and positive definite"),
        ({"noise_scale": -1.0}, "noise_scale must be at least 0, got -1.0"),
        ({"start_scale": float("nan")}, "start_scale must be at least 0"),
        ({"max_steps_in_episode": 0}, "max_steps_in_episode must be at least 1"),
    ],
)
def test_bad_systems(arguments, message):
    with pytest.raises(ValueError, match=message):
        lqr(**arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: policy_value(p, jnp.zeros((2, 1)), 0.9), r"gain must be \[1, 2\], got \[2, 1\]"),
        (lambda p: policy_value(p, jnp.zeros((1, 2)), 0.9, offset=jnp.zeros(2)), r"offset must be \[1\]"),
        (lambda p: policy_value(p, jnp.zeros((1, 2)), 0.9, std=1.0), r"std must be \[1\], got \[\]"),
        (lambda p: policy_value(p, jnp.zeros((1, 2)), 0.9, horizon=0), "horizon must be at least 1"),
        (lambda p: policy_value(p, jnp.zeros((1, 2)), 1.1), r"discount must lie in \[0, 1\], got 1.1"),
        (lambda p: finite_riccati(p, 3, -0.1), "discount must lie in"),
        (lambda p: riccati(p, 2), "discount must lie in"),
        (lambda p: finite_riccati(p, 0), "horizon must be at least 1"),
        (lambda p: riccati(p, 0.9, max_iterations=0), "max_iterations must be at least 1"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(jaxrl.make("LQR").params)
