"""Exact solutions against loops in NumPy, published values, and each other."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import dynamic_programming as dp
from jaxrl.envs.problems.tabular import tabular_mdp

NUM_STATES, NUM_ACTIONS = 6, 3
GAMMA = 0.9
GAMMAS = [0.0, 0.3, 0.5, 0.7, 0.9, 0.9, 0.95, 0.95]

evaluate = jax.jit(dp.policy_evaluation)
by_values = jax.jit(dp.value_iteration)
by_policies = jax.jit(dp.policy_iteration)


class Problem:
    """A random MDP in float64: two terminal states whose rows are nonsense, rewards r(s, a, s'), a random policy."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.transition = rng.dirichlet(np.full(NUM_STATES, 0.3), size=(NUM_STATES, NUM_ACTIONS))
        self.reward = rng.normal(size=(NUM_STATES, NUM_ACTIONS, NUM_STATES))
        self.terminal = np.arange(NUM_STATES) >= NUM_STATES - 2
        self.transition[self.terminal] = rng.normal(size=(2, NUM_ACTIONS, NUM_STATES))
        self.start = np.r_[rng.dirichlet(np.ones(NUM_STATES - 2)), 0.0, 0.0]
        self.logits = rng.normal(size=(NUM_STATES, NUM_ACTIONS))
        self.policy = softmax(self.logits)
        self.mdp = tabular_mdp(self.transition, self.reward, self.start, self.terminal)


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def backup(problem, v, gamma):
    """q(s, a), by the sum over successors as it is written; terminal states have none."""
    q = np.zeros((NUM_STATES, NUM_ACTIONS))
    for s in np.flatnonzero(~problem.terminal):
        for a in range(NUM_ACTIONS):
            for t in range(NUM_STATES):
                follows = 0.0 if problem.terminal[t] else gamma * v[t]
                q[s, a] += problem.transition[s, a, t] * (problem.reward[s, a, t] + follows)
    return q


def value_of(problem, policy, gamma, steps=300):
    v = np.zeros(NUM_STATES)
    for _ in range(steps):
        v = (policy * backup(problem, v, gamma)).sum(axis=1)
    return v


def optimum(problem, gamma, steps=300):
    v = np.zeros(NUM_STATES)
    for _ in range(steps):
        v = backup(problem, v, gamma).max(axis=1)
    return v


def visits(problem, policy, gamma, steps=300):
    at, total = problem.start.copy(), np.zeros((NUM_STATES, NUM_ACTIONS))
    for t in range(steps):
        acting = np.where(problem.terminal, 0.0, at)
        total += gamma**t * acting[:, None] * policy
        at = np.einsum("s,sa,sat->t", acting, policy, problem.transition)
    return total


def everything(mdp, logits, other, gamma):
    policy, sevens = jax.nn.softmax(logits), jnp.full(NUM_STATES, 7.0)
    return {
        "q": dp.action_values(mdp, sevens, gamma),
        "v": dp.policy_evaluation(mdp, policy, gamma),
        "v of the other": dp.policy_evaluation(mdp, other, gamma),
        "occupancy": dp.occupancy(mdp, policy, gamma),
        "gradient": dp.policy_gradient(mdp, jax.nn.softmax, logits, gamma),
        "by values": dp.value_iteration(mdp, gamma),
        "by policies": dp.policy_iteration(mdp, gamma),
    }


@cache
def solved():
    """Eight problems, each with its discount, another policy, and what `everything` says, in one batch."""
    problems = [Problem(seed) for seed in range(len(GAMMAS))]
    others = np.random.default_rng(9).dirichlet(np.ones(NUM_ACTIONS), size=(len(GAMMAS), NUM_STATES))
    mdps = jax.tree.map(lambda *x: jnp.stack(x), *(problem.mdp for problem in problems))
    logits = jnp.float32([problem.logits for problem in problems])
    out = jax.jit(jax.vmap(everything))(mdps, logits, jnp.float32(others), jnp.float32(GAMMAS))
    answers = [jax.tree.map(lambda x, i=i: np.asarray(x[i], np.float64), out) for i in range(len(GAMMAS))]
    return list(zip(problems, GAMMAS, others, answers, strict=True))


def close(actual, expected, rtol=1e-4, atol=2e-5):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def test_values_and_occupancy_are_those_of_the_sums():
    for problem, gamma, other, answer in solved():
        close(answer["q"], backup(problem, np.full(NUM_STATES, 7.0), gamma))
        close(answer["v"], value_of(problem, problem.policy, gamma))
        close(answer["v of the other"], value_of(problem, other, gamma))
        close(answer["occupancy"], visits(problem, problem.policy, gamma))


def test_optimal_values_are_those_of_the_loop():
    for problem, gamma, _, answer in solved():
        best = optimum(problem, gamma)
        for solution in (answer["by values"], answer["by policies"]):
            close(solution.v, best)
            close(solution.q, backup(problem, best, gamma))
            close(value_of(problem, solution.policy, gamma), best)
            assert solution.residual < 1e-5


def test_a_horizon_counts_so_many_steps():
    problem = Problem(3)
    for horizon in (1, 4):
        v = dp.policy_evaluation(problem.mdp, jnp.float32(problem.policy), 1.0, horizon=horizon)
        np.testing.assert_allclose(v, value_of(problem, problem.policy, 1.0, steps=horizon), rtol=1e-5, atol=1e-5)


def test_the_identities_between_them():
    """Σ d r = Σ d₀ v; Σ d (1 − γ P(no end)) = 1; the performance difference lemma (Kakade & Langford 2002, lemma 6.1)."""
    for problem, gamma, _, answer in solved():
        d = answer["occupancy"]
        close(np.sum(d * dp.expected_reward(problem.mdp)), problem.start @ answer["v"])
        ends = problem.transition[..., problem.terminal].sum(axis=-1)
        close(np.sum(d * (1 - gamma * (1 - ends))), 1)
        advantage = backup(problem, answer["v of the other"], gamma) - answer["v of the other"][:, None]
        close(np.sum(d * advantage), problem.start @ (answer["v"] - answer["v of the other"]), atol=1e-4)


def test_where_nothing_ends_occupancy_sums_to_one_over_one_minus_gamma():
    problem = Problem(0)
    transition = np.full((NUM_STATES, NUM_ACTIONS, NUM_STATES), 1 / NUM_STATES)
    d = jax.jit(dp.occupancy)(
        tabular_mdp(transition, problem.reward, problem.start), jnp.float32(problem.policy), jnp.float32(0.99)
    )
    assert float(d.sum()) == pytest.approx(100, rel=1e-4)


def test_the_policy_gradient_is_that_of_finite_differences_and_of_the_theorem():
    for problem, gamma, _, answer in solved():
        for s, a in [(0, 0), (1, 2), (3, 1), (5, 0)]:
            nudge = np.zeros_like(problem.logits)
            nudge[s, a] = 1e-5
            high, low = (value_of(problem, softmax(problem.logits + x), gamma, steps=150) for x in (nudge, -nudge))
            close(answer["gradient"][s, a], problem.start @ (high - low) / 2e-5, rtol=1e-3)
        q = backup(problem, value_of(problem, problem.policy, gamma), gamma)
        advantage = q - (problem.policy * q).sum(axis=1, keepdims=True)
        close(answer["gradient"], visits(problem, problem.policy, gamma) * advantage, rtol=1e-3)


def test_gradient_ascent_with_the_exact_gradient_finds_the_optimum():
    """Scaled to one length, since plain softmax gradients vanish near a corner (Mei et al. 2021)."""
    mdp = Problem(1).mdp

    def climb(logits, _):
        gradient = dp.policy_gradient(mdp, jax.nn.softmax, logits, GAMMA)
        return logits + 0.2 * gradient / jnp.linalg.norm(gradient), None

    logits, _ = jax.jit(lambda x: jax.lax.scan(climb, x, length=1000))(jnp.zeros((NUM_STATES, NUM_ACTIONS)))
    reached = dp.expected_return(mdp, jax.nn.softmax(logits), GAMMA)
    assert float(reached) == pytest.approx(float(mdp.start @ by_policies(mdp, GAMMA).v), rel=1e-3)


@pytest.mark.parametrize("solve", [dp.value_iteration, dp.policy_iteration])
def test_optimal_values_have_the_derivative_of_a_fixed_policy(solve):
    """In rewards, transitions and the discount, by central differences on the loop; in both modes."""
    problem = Problem(11)
    best = optimum(problem, GAMMA)

    def v0(reward, gamma):
        return solve(problem.mdp._replace(reward=reward), gamma).v[0]

    reward, gamma = problem.mdp.reward, jnp.float32(GAMMA)
    by_reward, by_gamma = jax.jit(jax.grad(v0, (0, 1)))(reward, gamma)
    forward = jax.jit(jax.jacfwd(v0, 1))(reward, gamma)
    slope = (optimum(problem, GAMMA + 1e-5)[0] - optimum(problem, GAMMA - 1e-5)[0]) / 2e-5
    assert float(by_gamma) == pytest.approx(slope, rel=1e-3)
    assert float(forward) == pytest.approx(slope, rel=1e-3)
    greedy = np.eye(NUM_ACTIONS)[backup(problem, best, GAMMA).argmax(axis=1)]
    problem.start = np.eye(NUM_STATES)[0]
    expected = visits(problem, greedy, GAMMA)[:, :, None] * problem.transition
    np.testing.assert_allclose(by_reward, expected, rtol=1e-3, atol=1e-5)


def test_iterations_stop_where_they_are_told_to():
    problem = Problem(0)

    @jax.jit
    def stopped(mdp):
        coarse = dp.value_iteration(mdp, GAMMA, tolerance=0.1)
        return dp.value_iteration(mdp, GAMMA, max_iterations=2), coarse, dp.policy_iteration(mdp, GAMMA, max_iterations=1)

    early, coarse, first = stopped(problem.mdp)
    assert (int(early.iterations), int(first.iterations)) == (2, 1)
    close(early.v, optimum(problem, GAMMA, steps=2))
    assert early.residual > 1e-3
    assert 2 < int(coarse.iterations) < int(by_values(problem.mdp, GAMMA).iterations)


def test_ties_do_not_keep_policy_iteration_going():
    problem = Problem(0)
    assert int(by_policies(problem.mdp._replace(reward=jnp.zeros_like(problem.mdp.reward)), 0.99).iterations) == 1


def test_it_is_exact_to_the_precision_of_jax():
    problem = Problem(5)
    with jax.enable_x64(True):
        mdp = tabular_mdp(problem.transition, problem.reward, problem.start, problem.terminal)
        solution = by_policies(mdp, 0.9)
        assert solution.v.dtype == jnp.float64
        np.testing.assert_allclose(solution.v, optimum(problem, 0.9), rtol=1e-12, atol=1e-12)


def test_without_a_discount_and_without_an_end_a_value_is_not_finite():
    problem = Problem(0)
    stay = np.repeat(np.eye(NUM_STATES)[:, None], NUM_ACTIONS, axis=1)
    v = evaluate(tabular_mdp(stay, problem.reward), jnp.float32(problem.policy), 1.0)
    assert not np.isfinite(v).any()


# --- published values


def test_the_utilities_of_russell_and_norvig():
    """Figure 17.3 (3rd edition), to the three digits printed there; the terminal cells and the wall have none."""
    v = by_values(jaxrl.make("GridWorld").params.mdp, 1.0).v.reshape(3, 4)
    printed = [[0.812, 0.868, 0.918, 0], [0.762, 0, 0.660, 0], [0.705, 0.655, 0.611, 0.388]]
    np.testing.assert_allclose(v, printed, atol=6e-4)


def test_the_chain_of_strens():
    """The best policy goes forward everywhere and earns 3677 in 1000 steps, on average over its states (Strens 2000)."""
    mdp = jaxrl.make("Chain").params.mdp
    solution = by_policies(mdp, 0.99)
    assert solution.policy[:, 0].tolist() == [1.0] * 5
    earned = [jax.jit(partial(dp.expected_return, horizon=n))(mdp, solution.policy, 1.0) for n in (1000, 2000)]
    assert float(earned[1] - earned[0]) == pytest.approx(3677, abs=0.5)


def test_the_cliff_costs_13_steps_and_the_short_way_is_along_the_edge():
    mdp = jaxrl.make("CliffWalk").params.mdp
    solution = by_values(mdp, 1.0)
    assert float(solution.v[36]) == -13
    assert solution.policy[36].tolist() == [1, 0, 0, 0]
    assert solution.policy[24:35, 1].tolist() == [1.0] * 11


def test_the_frozen_lake_is_crossed_with_probability_14_17():
    """For ever, that is; within Gymnasium's 100 steps, by the policy for γ = 0.99, in 74 of 100 episodes."""

    @jax.jit
    def crossing(mdp):
        policy = dp.policy_iteration(mdp, 0.99).policy
        return dp.value_iteration(mdp, 1.0).v[0], dp.expected_return(mdp, policy, 1.0, horizon=100)

    ever, in_time = crossing(jaxrl.make("FrozenLake").params.mdp)
    assert float(ever) == pytest.approx(14 / 17, abs=1e-4)
    assert float(in_time) == pytest.approx(0.74, abs=5e-3)


def test_semi_gradient_td_diverges_in_bairds_counterexample():
    """The expected update of Sutton & Barto (2018), figure 11.2 right; on-policy, the same weights converge."""
    env = jaxrl.make("Baird")
    transition, x = np.asarray(env.params.mdp.transition, np.float64), np.asarray(env.params.features, np.float64)

    def run(policy):
        w = np.array([1, 1, 1, 1, 1, 1, 10, 1.0])
        for _ in range(3000):
            v = x @ w
            w = w + 0.01 * np.mean((0.99 * np.einsum("sa,sat,t->s", policy, transition, v) - v)[:, None] * x, axis=0)
        return np.abs(w).max()

    solid, behaviour = np.tile([0.0, 1.0], (7, 1)), np.tile([6 / 7, 1 / 7], (7, 1))
    assert run(solid) > 1000
    assert run(behaviour) < 10


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: dp.policy_evaluation(m, jnp.ones((6, 2)), 0.9), ValueError, r"policy must be \[6, 3\] .* got \[6, 2\]"),
        (lambda m: dp.occupancy(m, jnp.ones((3, 6)), 0.9), ValueError, r"policy must be \[6, 3\]"),
        (lambda m: dp.action_values(m, jnp.ones(5), 0.9), ValueError, r"v must be \[6\] .* got \[5\]"),
        (lambda m: dp.policy_evaluation(m, jnp.ones((6, 3)), 0.9, horizon=0), ValueError, "horizon must be at least 1"),
        (lambda m: dp.policy_evaluation(m, jnp.ones((6, 3)), 1.5), ValueError, r"discount must lie in \[0, 1\], got 1.5"),
        (lambda m: dp.occupancy(m, jnp.ones((6, 3)), -1), ValueError, "discount must lie in"),
        (lambda m: dp.value_iteration(m, float("nan")), ValueError, "discount must lie in"),
        (lambda m: dp.policy_iteration(m, 1.5), ValueError, "discount must lie in"),
        (lambda m: dp.value_iteration(m, 0.9, max_iterations=0), ValueError, "max_iterations must be at least 1"),
        (lambda m: dp.policy_iteration(m, 0.9, max_iterations=2.5), TypeError, "max_iterations must be an int"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call(Problem(0).mdp)
