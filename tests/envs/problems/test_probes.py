"""The answers of the probes, what each bug does to them, and agents that learn them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.envs.problems.probes import PROBES, SPACE_PROBES, memory
from jaxrl.envs.problems.tabular import State
from jaxrl.types import Discrete
from tests.problems import dqn_learner, reinforce_learner

ALL = {name: make() for name, make in PROBES.items()}


@pytest.mark.parametrize("name", ALL)
def test_the_answers_are_the_optimal_values(name):
    """By value iteration in NumPy, over the states: what a policy that knew them would get."""
    probe = ALL[name]
    mdp, features = (jax.tree.map(np.asarray, x) for x in (probe.env.params.mdp, probe.env.params.features))
    q = np.zeros(mdp.reward.shape)
    for _ in range(100):
        q = (mdp.reward + probe.discount * mdp.transition @ q.max(axis=1)) * ~mdp.terminal[:, None]
    states = [np.flatnonzero((features == obs).all(axis=1) & ~mdp.terminal)[0] for obs in probe.obs]
    np.testing.assert_allclose(probe.q, q[states], atol=1e-6)
    assert probe.env.name == f"probe: {name}"
    assert probe.obs.dtype == probe.q.dtype == np.float32
    if name != "memory":
        seen = {tuple(features[s]) for s in np.flatnonzero(~mdp.terminal)}
        assert seen == {tuple(obs) for obs in probe.obs}


# --- a learner without function approximation, with a bug


def transitions(probe):
    """Each (time, obs, action, reward, terminated, truncated, next obs) that an episode may hold, and the first obs."""
    mdp, features = (jax.tree.map(np.asarray, x) for x in (probe.env.params.mdp, probe.env.params.features))
    found, states = [], set(np.flatnonzero(mdp.start).tolist())
    for time in range(1, probe.env.params.max_steps_in_episode + 1):
        entered = set()
        for s in states:
            for a in range(mdp.reward.shape[1]):
                t = int(mdp.transition[s, a].argmax())
                over = bool(mdp.terminal[t]), time == probe.env.params.max_steps_in_episode and not mdp.terminal[t]
                found.append((tuple(features[s]), a, mdp.reward[s, a], *over, tuple(features[t])))
                entered |= {t} - set(np.flatnonzero(mdp.terminal).tolist())
        states = entered
    return found, [tuple(features[s]) for s in np.flatnonzero(mdp.start)]


def learn(probe, bug):
    """Expected Q-learning over all transitions of a probe: the mean target of each observation and action."""
    found, first = transitions(probe)
    num_actions = probe.q.shape[1]
    key = (lambda obs: ()) if bug == "sees no observation" else (lambda obs: obs)
    gamma = 1.0 if bug == "does not discount" else probe.discount
    q = {key(obs): np.zeros(num_actions) for obs, *_ in found}

    def value(obs):
        return q.get(key(obs), np.zeros(1)).max()

    for _ in range(30):
        targets = {obs: [[] for _ in range(num_actions)] for obs in q}
        for obs, a, reward, terminated, truncated, next_obs in found:
            follows = value(next_obs)
            if bug == "bootstraps from the next episode" and (terminated or truncated):
                follows = np.mean([value(obs) for obs in first])
            stops = {"stops at the time limit": terminated or truncated, "goes on through the end": False}
            target = reward + (0.0 if stops.get(bug, terminated) else gamma * follows)
            targets[key(obs)][a].append(target)
        q = {obs: np.array([np.mean(x) for x in each]) for obs, each in targets.items()}
        if bug == "ignores the action":
            q = {obs: np.full(num_actions, x.mean()) for obs, x in q.items()}
        if bug == "adds values of action and observation":
            effect = np.mean(list(q.values()), axis=0)
            q = {obs: x.mean() + effect - effect.mean() for obs, x in q.items()}
    return np.array([q[key(tuple(obs))] for obs in probe.obs])


@pytest.mark.parametrize(
    ("bug", "first"),
    [
        ("sees no observation", "value of the observation"),
        ("does not discount", "discounting"),
        ("ignores the action", "action"),
        ("adds values of action and observation", "action and observation"),
        ("bootstraps from the next episode", "reset leakage"),
        ("stops at the time limit", "truncation"),
        ("goes on through the end", "truncation"),
        ("remembers nothing", "memory"),
    ],
)
def test_the_first_probe_that_fails_names_the_bug(bug, first):
    wrong = [name for name, probe in ALL.items() if not np.allclose(learn(probe, bug), probe.q, atol=1e-3)]
    assert wrong[0] == first


# --- action masks, observations in a Dict, MultiDiscrete actions


def all_actions(space):
    return range(space.n) if isinstance(space, Discrete) else np.ndindex(space.nvec)


def solve(env, state, legal, discount):
    """(q, [A]) of the actions in a state, -inf where illegal: by trying them all, as far as the episode goes."""
    q = []
    for i, action in enumerate(all_actions(env.action_space)):
        after, out = env.step(jax.random.key(0), state, jnp.int32(action), env.params)
        value = float(out.reward)
        if legal is not None and not legal[i]:
            assert value == -10
            assert out.terminated
            value = -np.inf
        elif not out.terminated:
            mask = None if legal is None else np.asarray(out.obs["action_mask"])
            value += discount * solve(env, after, mask, discount).max()
        q.append(value)
    return np.array(q)


def test_the_best_components_of_the_multi_discrete_probe_depend_on_the_observation():
    q = np.asarray(SPACE_PROBES["MultiDiscrete action"]().q)
    np.testing.assert_allclose(q.max(axis=1), [1.5, 1.0])
    assert [divmod(int(a), 3) for a in q.argmax(axis=1)] == [(1, 1), (0, 2)]


@pytest.mark.parametrize("name", SPACE_PROBES)
def test_the_answers_are_what_the_environment_pays(name):
    """Every start, and for the mask the second step, is among the observations, with its optimal action values."""
    probe = SPACE_PROBES[name]()
    env = probe.env
    assert jaxrl.check_environment(env, num_steps=20) == []
    assert env.name == f"probe: {name}"
    num_observations, found = len(probe.q), set()
    for seed in range(12):
        state, obs = env.reset(jax.random.key(seed), env.params)
        steps = [(state, obs)]
        if name == "action mask":
            after, out = env.step(jax.random.key(0), state, jnp.int32(seed % 2), env.params)
            steps.append((after, out.obs))
        for state, obs in steps:
            same = [jax.tree.map(lambda x, y, i=i: np.array_equal(x, y[i]), obs, probe.obs) for i in range(num_observations)]
            (i,) = (i for i in range(num_observations) if all(jax.tree.leaves(same[i])))
            legal = np.asarray(obs["action_mask"]) if name == "action mask" else None
            np.testing.assert_allclose(solve(env, state, legal, probe.discount), probe.q[i], atol=1e-6)
            found.add(i)
    assert found == set(range(num_observations))


def test_bootstrapping_from_illegal_actions_is_seen():
    """Linear action values in the vector [1, t], each fitted to its own targets: from 1.25 it goes to 2, and does not return."""
    probe = SPACE_PROBES["action mask"]()
    legal = probe.obs["action_mask"]
    for ignores_mask, expected in ((False, 1.25), (True, 2.0)):
        weights = np.zeros((2, 3))
        for _ in range(200):
            q = probe.obs["vector"] @ weights
            follows = q[1].max() if ignores_mask else q[1, legal[1]].max()
            targets = np.array([[1 + 0.5 * follows, 0.5 * follows, 0], [0, 0, 0.5]])
            weights += 0.2 * probe.obs["vector"].T @ np.where(legal, targets - q, 0)
        np.testing.assert_allclose((probe.obs["vector"] @ weights)[0, 0], expected, atol=0.02)


def test_an_image_or_vector_that_is_ignored_costs_what_it_shows():
    """The best policy that sees one entry alone earns less than the one that sees both."""
    probe = SPACE_PROBES["Dict observation"]()
    assert probe.q.max(axis=1).mean() == 1.25
    for entry in ("image", "vector"):
        shown = probe.obs[entry].reshape(4, -1)
        groups = [np.flatnonzero((shown == x).all(axis=1)) for x in np.unique(shown, axis=0)]
        assert np.mean([probe.q[group].mean(axis=0).max() for group in groups]) == 1.0


# --- the environments


@pytest.mark.parametrize("delay", [1, 3])
def test_memory_shows_its_cue_once(delay):
    env = memory(delay).env
    step = jax.jit(env.step)
    for cue, right in ((0, 0), (1, 1)):
        state, shown, rewards = State(jnp.int32(cue), jnp.int32(0)), [], []
        for _ in range(delay + 1):
            state, after = step(jax.random.key(0), state, jnp.int32(right), env.params)
            shown.append(float(after.obs[0]))
            rewards.append(float(after.reward))
        assert rewards == [0.0] * delay + [1.0]
        assert not any(shown)
        assert bool(after.terminated)
    np.testing.assert_array_equal(memory(delay).q, 0.5**delay)


MARKOV = [name for name in ALL if name != "memory"]


@pytest.mark.slow
@pytest.mark.parametrize("name", MARKOV)
@pytest.mark.parametrize("static", [{}, {"n_step": 3, "prioritized": True}])
def test_dqn_learns_the_answer(name, static):
    probe = ALL[name]
    learner = dqn_learner(probe.env, hidden=(), **static)
    hparams = learner.agent.hparams._replace(
        learning_rate=0.05, learning_rate_iterations=1000.0, discount=probe.discount, tau=0.1, epsilon_end=1.0
    )
    state, _ = jax.jit(lambda key: jaxrl.train(key, learner, 1000, hparams))(jax.random.key(0))
    network = jaxrl.networks.q_network(probe.env.observation_space, probe.env.action_space, hidden=())
    np.testing.assert_allclose(network.apply(state.agent.params, probe.obs), probe.q, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", MARKOV)
def test_reinforce_learns_value_and_policy(name):
    probe = ALL[name]
    learner = reinforce_learner(probe.env, mode="continuing", baseline="value", hidden=())
    hparams = learner.agent.hparams._replace(learning_rate=0.05, learning_rate_iterations=2000.0, discount=probe.discount)
    state, _ = jax.jit(lambda key: jaxrl.train(key, learner, 2000, hparams))(jax.random.key(0))
    network = jaxrl.networks.policy(probe.env.observation_space, probe.env.action_space, hidden=(), value=True)
    logits, value = network.apply(state.agent.params, probe.obs)
    np.testing.assert_array_equal(
        np.take_along_axis(probe.q, np.argmax(logits, axis=1)[:, None], axis=1)[:, 0], probe.q.max(axis=1)
    )
    np.testing.assert_allclose(value, probe.q.max(axis=1), atol=0.05)
