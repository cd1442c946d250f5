"""Agents against exact optima of tabular problems: eight seeds each, one setting for all of them, and none that failed left out.

Networks are linear in one-hot observations, tables, but for that of IQN. What is asked of every seed is the optimum.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import algorithms, presets
from jaxrl import dynamic_programming as dp
from jaxrl.types import Discrete

DISCOUNTS = {"Chain": 0.9, "FrozenLake": 0.99, "CliffWalk": 0.99, "Garnet": 0.9}
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


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DISCOUNTS if name != "Chain"])
def test_dqn_finds_the_optimal_policy_and_its_values(name):
    """Adam moves a value by about the learning rate a step, so the rate is 1/200 of the largest value, and falls to 0.
    Half of all actions are random in the end, and the replay keeps all transitions, so that every value is learned:
    of the frozen lake's, 0.2 % are of its rarest state and action. The mean target there has a standard error of
    1.1 % of the largest value, which leaves room for what the other states add to it.

    The greedy action of every state must be optimal as far as 640,000 transitions can tell: no more worse than the best
    than four standard errors of their difference, where batches add as much variance as the transitions (the last
    quarter of the run draws as many), and a thousandth of the largest value, below which the rate comes for its last fifth.
    """
    env, discount, num_iterations = jaxrl.make(name), DISCOUNTS[name], 20_000
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


# --- the optimal policy, by every algorithm with discrete actions

RETURNS = {"Chain": (0, 100), "FrozenLake": (0, 1), "CliffWalk": (-200, 0), "Garnet": (-5, 25)}  # what an episode may return


def from_rollouts(steps, rate, *, agent=(), schedules=(), **hparams):
    """Settings of an algorithm that learns from rollouts, for each problem."""
    return lambda problem: {
        "steps": steps, "num_envs": 32, "rollout_length": 32, "agent": dict(agent),
        "schedules": {"learning_rate_fraction": 1.0} | dict(schedules), "hparams": {"learning_rate": rate} | hparams,
    }  # fmt: skip


def from_replay(steps, *, atoms=False, agent=(), network=(), epsilon=0.5, **hparams):
    """The same with a replay of all transitions, half of them random in the end; the rate is 1/200 of the largest return."""
    explores = {} if epsilon is None else {"epsilon_end": epsilon}
    schedules = {"learning_rate_fraction": 1.0} | ({} if epsilon is None else {"epsilon_fraction": 0.5})

    def settings(problem):
        low, high = RETURNS[problem]
        support = {"v_min": float(low), "v_max": float(high)} if atoms else {}
        rate = 0.02 if atoms else max(-low, high) / 400
        return {
            "steps": steps, "num_envs": 32, "rollout_length": 1,
            "agent": {"capacity": steps, "warmup_steps": 3_200, "updates_per_iteration": 1} | support | dict(agent),
            "schedules": schedules, "network": dict(network),
            "hparams": {"learning_rate": rate, "tau": 0.05} | explores | hparams,
        }  # fmt: skip

    return settings


# By algorithm: the settings for a problem. Policies keep enough entropy that no action dies out before the values are known.
TABULAR = {
    "a2c": from_rollouts(4_000_000, 0.02, agent={"normalize_advantage": True}, entropy_coef=0.05),
    "c51": from_replay(400_000, atoms=True),
    # Levels multiply features: of a table, a unit of their embedding that dies takes all that is known of a state with it.
    "iqn": from_replay(400_000, network={"hidden": (32, 32)}, learning_rate=5e-3),
    "ppo": from_rollouts(1_000_000, 0.02, entropy_coef=0.05),
    "pqn": from_rollouts(2_000_000, 0.02, schedules={"epsilon_fraction": 0.5}, epsilon_end=0.5, q_lambda=0.0),
    "qr_dqn": from_replay(400_000),
    "rainbow": from_replay(400_000, atoms=True, agent={"n_step": 1}),
    "reinforce": from_rollouts(
        4_000_000, 0.02, agent={"mode": "continuing", "baseline": "value", "normalize_advantage": True}, entropy_coef=0.05
    ),
    "sac": from_replay(400_000, agent={"batch_size": 128}, epsilon=None, relative_target_entropy=0.1),
}
DISCRETE = {name for name, entry in algorithms.ALGORITHMS.items() if Discrete in entry.action_spaces}
ELSEWHERE = {
    "dqn",  # held to its values too, above
    "openai_es",  # maximises the undiscounted return of an episode; see its own tests
    "recurrent_ppo",  # its policy is no table
}
TASKS = [(name, problem) for name in sorted(DISCRETE - ELSEWHERE) for problem in DISCOUNTS if problem != "CliffWalk"]
TASKS += [("reinforce", "CliffWalk")]
NEAR_TIES = {("ppo", "Garnet"), ("pqn", "Garnet")}  # their noise does not tell the best two actions of some states apart


def settings_for(name, problem):
    settings = TABULAR[name](problem)
    return presets.Settings(name, **settings | {"network": {"hidden": ()} | settings.get("network", {})})


def test_every_algorithm_has_settings():
    assert TABULAR.keys() == DISCRETE - ELSEWHERE


@pytest.mark.slow
@pytest.mark.parametrize(("name", "problem"), TASKS)
def test_the_optimal_policy_is_found(name, problem):
    """To a thousandth of the value at the start, or half a percent for those in `NEAR_TIES`.

    In Chain and FrozenLake this is the optimal policy, since a single mistake costs at least 1.7 %. In the Garnet there are eight
    states whose second-best action costs from 0.05 to 0.46 %.
    """
    env, discount = jaxrl.make(problem), DISCOUNTS[problem]
    learner, hparams, num_iterations, _ = presets.build(settings_for(name, problem), env, discount=discount)
    agent, states = learner.agent, jnp.eye(env.observation_space.shape[0])

    def one(key):
        state, _ = jaxrl.train(key, learner, num_iterations, hparams)
        return agent.exploit(agent.policy(state.agent), states, agent.initial_carry(len(states)), key)[0]

    actions = jaxrl.vectorize(one)(jax.random.split(jax.random.key(1), SEEDS))
    regret = regrets(env.params.mdp, jax.nn.one_hot(actions, env.action_space.n), discount)
    print(f"{name} on {problem}: regret {regret.round(5)}")
    assert regret.max() < (5e-3 if (name, problem) in NEAR_TIES else 1e-3)
