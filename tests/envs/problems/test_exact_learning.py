"""Agents against exact optima: eight seeds each, one setting for all tabular problems, and none that failed left out.

Networks are linear in one-hot observations: tables. What is asked of every seed is the optimum.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import dynamic_programming as dp
from jaxrl.envs.problems.lqr import finite_riccati, policy_value, riccati, start_value

pytestmark = pytest.mark.slow

PROBLEMS = {"FrozenLake": 0.99, "CliffWalk": 0.99, "Garnet": 0.9}  # and their discounts
SEEDS = 8


def reachable(mdp):
    """States in which one may have to act, bool `[S]`."""
    reached, before = np.asarray(mdp.start) > 0, None
    while before is None or (reached != before).any():
        before = reached
        acting = reached & ~np.asarray(mdp.terminal)
        reached = reached | (np.asarray(mdp.transition)[acting] > 0).any(axis=(0, 1))
    return reached & ~np.asarray(mdp.terminal)


def outputs(learner, network, hparams, num_iterations, of_state=lambda state: ()):
    """What the trained networks of all seeds say of each state, `[seed, S, ...]`, and `of_state(final state)`."""
    states = jnp.eye(learner.env.observation_space.shape[0])

    def one(key):
        state, _ = jaxrl.train(key, learner, num_iterations, hparams)
        return network.apply(state.agent.params, states), of_state(state)

    return jax.tree.map(np.asarray, jaxrl.vectorize(one)(jax.random.split(jax.random.key(1), SEEDS)))


def visits(state):
    """How often each action was taken in each state, as a full replay tells, `[S, A]`."""
    items = jaxrl.replay.take(state.agent.replay, jnp.arange(state.agent.replay.capacity))
    shape = state.agent.params["params"]["Dense_0"]["kernel"].shape
    return jnp.zeros(shape).at[jnp.argmax(items.obs, axis=1), items.action].add(1.0)


def errors_of_advantages(mdp, counts, discount):
    """Standard errors `[S, A]` of Q(s, a) − Q(s, a*), where Q is the exact solution for the transitions that were seen, to
    first order: Q̂ − Q = e + γ P (I − γ P*)⁻¹ e*, where e(s, a), the error of the mean of the `counts` successors'
    values, has the variance γ² Var V(s') / n, and a star says: of the optimal actions."""
    solved = dp.policy_iteration(mdp, discount)
    transition, v, q = (np.asarray(x, np.float64) for x in (mdp.transition, solved.v, solved.q))
    transition[np.asarray(mdp.terminal)] = 0.0
    states, num_actions = np.arange(len(v)), q.shape[1]
    best = q.argmax(axis=1)
    variance = discount**2 * (transition @ v**2 - (transition @ v) ** 2).clip(0.0) / np.maximum(counts, 1)
    own = np.eye(q.size).reshape(*q.shape, q.size)
    of_best = own[states, best]  # e*, in terms of e
    spread = np.linalg.solve(np.eye(len(v)) - discount * transition[states, best], of_best)
    error = own + discount * np.einsum("sat,te->sae", transition, spread)
    difference = error - error[states, best][:, None]
    return np.sqrt(difference**2 @ variance.reshape(-1)).reshape(-1, num_actions)


def regrets(mdp, preferences, discount):
    """By how much each seed's greedy policy falls short at the start, as a share of the optimum."""
    value = jax.jit(lambda x: dp.expected_return(mdp, dp.greedy_policy(x), discount))
    best = float(mdp.start @ dp.policy_iteration(mdp, discount).v)
    return np.array([(best - float(value(x))) / abs(best) for x in preferences])


@pytest.mark.parametrize("name", PROBLEMS)
def test_dqn_finds_the_optimal_policy_and_its_values(name):
    """Adam moves a value by about the learning rate a step, so the rate is 1/200 of the largest value, and falls to 0.
    Half of all actions are random in the end, and the replay keeps all transitions, so that every value is learned:
    of the frozen lake's, 0.2 % are of its rarest state and action. The mean target there has a standard error of
    1.1 % of the largest value, which leaves room for what the other states add to it.

    The greedy action of every state must be optimal as far as 640,000 transitions can tell: no more worse than the best
    than four standard errors of their difference, where batches add as much variance as the transitions (the last
    quarter of the run draws as many), and a thousandth of the largest value, below which the rate comes for its last fifth.
    """
    env, discount, num_iterations = jaxrl.make(name), PROBLEMS[name], 20_000
    mdp = env.params.mdp
    live, exact = reachable(mdp), np.asarray(dp.policy_iteration(mdp, discount).q)
    scale = np.abs(exact[live]).max()
    network = jaxrl.networks.q_network(env.observation_space, env.action_space, hidden=())
    agent = jaxrl.agents.dqn(network, env.action_space, capacity=640_000)
    learner = jaxrl.make_learner(env, agent, num_envs=32, rollout_length=1)
    hparams = agent.hparams._replace(
        learning_rate=float(scale) / 200,
        learning_rate_iterations=float(num_iterations),
        discount=discount,
        epsilon_end=0.5,
        epsilon_iterations=num_iterations / 2,
    )
    q, counts = outputs(learner, network, hparams, num_iterations, visits)
    error, regret = np.abs(q - exact)[:, live].max(axis=(1, 2)) / scale, regrets(mdp, q, discount)
    taken = q.argmax(axis=2)[..., None]
    gaps = np.broadcast_to(exact.max(axis=1, keepdims=True) - exact, q.shape)
    unsure = np.stack([1e-3 * scale + 4 * np.sqrt(2) * errors_of_advantages(mdp, n, discount) for n in counts])
    gap, bound = (np.take_along_axis(x, taken, axis=2)[:, live, 0] for x in (gaps, unsure))
    print(f"{name}: regret {regret.round(5)}, error {error.round(4)}, gap {(gap.max(axis=1) / scale).round(5)}")
    assert (gap <= bound).all()
    assert error.max() < 0.05


@pytest.mark.parametrize("name", PROBLEMS)
def test_reinforce_finds_the_optimal_policy(name):
    """Advantages of unit size, and enough entropy that no action dies out before the values are known."""
    env, discount, num_iterations = jaxrl.make(name), PROBLEMS[name], 4_000
    network = jaxrl.networks.policy(env.observation_space, env.action_space, hidden=(), value=True)
    agent = jaxrl.agents.reinforce(network, env.action_space, mode="continuing", baseline="value", normalize_advantage=True)
    learner = jaxrl.make_learner(env, agent, num_envs=32, rollout_length=32)
    hparams = agent.hparams._replace(
        learning_rate=0.02, learning_rate_iterations=float(num_iterations), discount=discount, entropy_coef=0.05
    )
    (logits, _), _ = outputs(learner, network, hparams, num_iterations)
    regret = regrets(env.params.mdp, logits, discount)
    print(f"{name}: regret {regret.round(5)}")
    assert regret.max() < 1e-3


def test_reinforce_finds_the_best_gain():
    """Whole episodes of 50 steps, undiscounted. The entropy keeps the noise up, which hardly moves the best gain."""
    env, horizon, num_iterations = jaxrl.make("LQR"), 50, 3_000
    network = jaxrl.networks.policy(env.observation_space, env.action_space, hidden=())
    agent = jaxrl.agents.reinforce(network, env.action_space, normalize_advantage=True)
    learner = jaxrl.make_learner(env, agent, num_envs=64, rollout_length=horizon)
    hparams = agent.hparams._replace(
        learning_rate=0.02, learning_rate_iterations=float(num_iterations), discount=1.0, entropy_coef=0.05
    )

    def one(key):
        state, _ = jaxrl.train(key, learner, num_iterations, hparams)
        mean, _ = network.apply(state.agent.params, jnp.float32([[0, 0], [1, 0], [0, 1]]))
        return mean[:1].T - mean[1:].T, mean[0]

    @jax.jit
    def cost(gain, offset):
        return -start_value(env.params, policy_value(env.params, gain, 1.0, offset=offset, horizon=horizon))

    def descend(gain, _):
        return gain - 0.02 * jax.grad(lambda x: cost(x, jnp.zeros(1)))(gain), None

    best_gain, _ = jax.lax.scan(descend, riccati(env.params, 0.99).gain, length=500)
    best = float(cost(best_gain, jnp.zeros(1)))
    least = -float(start_value(env.params, finite_riccati(env.params, horizon).value[0]))
    assert least < best < 1.02 * least
    gains, offsets = jaxrl.vectorize(one)(jax.random.split(jax.random.key(1), SEEDS))
    excess = np.array([float(cost(*x)) / best - 1 for x in zip(gains, offsets, strict=True)])
    print(f"best gain {best_gain}, excess cost {excess.round(5)}")
    assert excess.min() > -1e-4
    assert excess.max() < 0.01
