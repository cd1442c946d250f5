"""Tabular environments against their arrays, and the ready ones against Gymnasium's tables and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from gymnasium.envs.toy_text.cliffwalking import CliffWalkingEnv
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv

import jaxrl
from jaxrl import dynamic_programming as dp
from jaxrl.envs import baird, chain, cliff_walk, frozen_lake, garnet, grid_world, tabular, wrappers
from jaxrl.envs.problems.classics import garnet_mdp
from jaxrl.envs.problems.tabular import State, TabularMDP, _draw, tabular_mdp

ONE_IN_A_MILLION = 1e-6
NUM_STATES, NUM_ACTIONS = 5, 2


def small(rewards="successor"):
    """Five states, the last of them terminal; about half of all transitions never happen."""
    rng = np.random.default_rng(0)
    transition = rng.dirichlet(np.ones(NUM_STATES), size=(NUM_STATES, NUM_ACTIONS)) * (rng.random((5, 2, 5)) < 0.6)
    transition[..., 0] += 1 - transition.sum(axis=-1)
    reward = rng.normal(size=(5, 2, 5) if rewards == "successor" else (5, 2))
    return tabular_mdp(transition, reward, [0.25, 0.75, 0, 0, 0], np.arange(5) == 4)


ENV = tabular(small(), max_steps_in_episode=7)
play = jax.jit(jax.vmap(ENV.step, (0, 0, 0, None)))
begin = jax.jit(jax.vmap(ENV.reset, (0, None)))


def fits(counts, probs):
    """No outcome without probability, and a chi-squared test of the others."""
    possible = probs > 0
    assert not counts[~possible].any()
    if possible.sum() > 1:
        expected = probs[possible] / probs[possible].sum() * counts.sum()
        assert scipy.stats.chisquare(counts[possible], expected).pvalue > ONE_IN_A_MILLION


def test_transitions_starts_and_rewards_are_those_of_the_arrays():
    num, mdp = 2_000, ENV.params.mdp
    pairs = np.repeat(np.stack(np.meshgrid(range(4), range(2), indexing="ij"), -1).reshape(-1, 2), num, axis=0)
    keys = jax.random.split(jax.random.key(0), len(pairs))
    before = State(jnp.int32(pairs[:, 0]), jnp.zeros(len(pairs), jnp.int32))
    after, step = play(keys, before, jnp.int32(pairs[:, 1]), ENV.params)
    np.testing.assert_array_equal(step.obs, np.eye(5)[after.state])
    np.testing.assert_array_equal(step.reward, np.asarray(mdp.reward)[pairs[:, 0], pairs[:, 1], after.state])
    np.testing.assert_array_equal(step.terminated, np.asarray(after.state) == 4)
    assert not step.truncated.any()
    for entered, (s, a) in zip(np.asarray(after.state).reshape(-1, num), pairs[::num], strict=True):
        fits(np.bincount(entered, minlength=5), np.asarray(mdp.transition[s, a], np.float64))
    state, obs = begin(keys, ENV.params)
    np.testing.assert_array_equal(obs, np.eye(5)[state.state])
    fits(np.bincount(state.state, minlength=5), np.asarray(mdp.start, np.float64))
    assert step.obs.dtype == obs.dtype == step.reward.dtype == jnp.float32
    assert state.state.dtype == after.state.dtype == after.time.dtype == jnp.int32


def test_nothing_without_probability_is_drawn_at_the_ends_of_the_interval(monkeypatch):
    """Thirds and the like sum to less than 1 in float32: the largest uniform number must still find a state."""
    probs = jnp.float32([0.0, 0.1, 0.0, 0.6, 0.2, 0.1 - 1e-6, 0.0])
    for uniform, expected in ((0.0, 1), (1 - 2**-23, 5)):
        monkeypatch.setattr(jax.random, "uniform", lambda key, dtype, u=uniform: jnp.asarray(u, dtype))
        assert int(_draw(jax.random.key(0), probs)) == expected


def test_the_time_limit_truncates_where_nothing_terminates():
    stay = tabular(tabular_mdp(np.eye(2)[[[0, 1], [1, 1]]], np.ones((2, 2)), terminal=[False, True]), max_steps_in_episode=3)
    for time, action, flags in ((0, 0, (False, False)), (2, 0, (False, True)), (0, 1, (True, False)), (2, 1, (True, False))):
        _, step = stay.step(jax.random.key(0), State(jnp.int32(0), jnp.int32(time)), action, stay.params)
        assert (bool(step.terminated), bool(step.truncated)) == flags


def test_rewards_of_state_and_action_alone():
    env = tabular(small("state and action"))
    _, step = env.step(jax.random.key(0), State(jnp.int32(2), jnp.int32(0)), jnp.int32(1), env.params)
    assert step.reward == env.params.mdp.reward[2, 1]
    assert step.reward.shape == ()


def test_features_are_observed_instead():
    features = np.float32([[1, 2], [3, 4], [1, 2], [0, 0], [-1, 9]])
    env = tabular(small(), features=features)
    state, step = env.step(jax.random.key(0), State(jnp.int32(0), jnp.int32(0)), jnp.int32(1), env.params)
    np.testing.assert_array_equal(step.obs, features[int(state.state)])
    np.testing.assert_array_equal(env.observation_space.low, [-1, 0])
    np.testing.assert_array_equal(env.observation_space.high, [3, 9])


def test_the_mean_return_is_the_exact_one():
    """5,000 episodes of 7 steps with random actions; within 5 standard errors (p < 6e-7)."""
    num = 5_000

    @jax.jit
    def returns(key):
        reset_key, action_key, step_key = jax.random.split(key, 3)
        state, _ = jax.vmap(ENV.reset, (0, None))(jax.random.split(reset_key, num), ENV.params)
        actions = jax.random.randint(action_key, (7, num), 0, NUM_ACTIONS)

        def step(carry, inputs):
            state, over, total = carry
            state, after = jax.vmap(ENV.step, (0, 0, 0, None))(*inputs[:1], state, *inputs[1:], ENV.params)
            return (state, over | after.terminated, total + jnp.where(over, 0.0, after.reward)), after.truncated

        carry = (state, jnp.zeros(num, bool), jnp.zeros(num))
        (_, over, total), truncated = jax.lax.scan(step, carry, (jax.random.split(step_key, (7, num)), actions))
        return total, over, truncated

    total, over, truncated = map(np.asarray, returns(jax.random.key(1)))
    exact = dp.expected_return(ENV.params.mdp, jnp.full((5, 2), 0.5), 1.0, horizon=7)
    assert abs(np.mean(total) - float(exact)) < 5 * np.std(total) / np.sqrt(num)
    assert not truncated[:-1].any()
    assert (truncated[-1] | over).all()


def test_the_arrays_are_parameters_that_may_be_batched():
    endless = small()._replace(terminal=jnp.zeros(NUM_STATES, bool))
    mdps = [endless, endless._replace(reward=endless.reward + 1.0)]
    params = ENV.params._replace(mdp=jax.tree.map(lambda *x: jnp.stack(x), *mdps), max_steps_in_episode=jnp.int32([1, 2]))
    state = State(jnp.int32(0), jnp.int32(0))
    _, step = jax.vmap(ENV.step, (None, None, None, 0))(jax.random.key(0), state, jnp.int32(0), params)
    assert float(step.reward[1] - step.reward[0]) == pytest.approx(1, abs=1e-6)
    assert step.truncated.tolist() == [True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transition": np.ones((2, 3))}, r"transition must be .* got \[2, 3\]"),
        ({"transition": np.ones((2, 3, 4))}, r"transition must be .* got \[2, 3, 4\]"),
        ({"transition": np.full((2, 1, 2), 0.4)}, r"transition\[0, 0\] must be probabilities that sum to 1; .* sum to 0.8"),
        ({"transition": [[[0.5, 0.5]], [[1.5, -0.5]]]}, r"transition\[1, 0\] must be probabilities .* between -0.5 and 1.5"),
        ({"transition": np.full((2, 1, 2), np.nan)}, r"transition must be finite; transition\[0, 0, 0\] is not"),
        ({"reward": np.ones((1, 2))}, r"reward must be r\(s, a\), \[2, 1\], or .*\[2, 1, 2\]; got \[1, 2\]"),
        ({"reward": [[0.0], [np.inf]]}, r"reward must be finite; reward\[1, 0\] is not"),
        ({"start": [1.0]}, r"start must be \[2\], one entry for each state; got \[1\]"),
        ({"start": [0.5, 0.4]}, "start must be probabilities that sum to 1"),
        ({"start": [0.5, 0.5], "terminal": [False, True]}, "start must be 0 for terminal states; state 1 is one"),
        ({"terminal": [False]}, r"terminal must be \[2\]"),
    ],
)
def test_arrays_that_are_no_mdp_are_refused(change, message):
    good = {"transition": np.full((2, 1, 2), 0.5), "reward": np.zeros((2, 1)), "start": [1.0, 0.0], "terminal": [False, False]}
    with pytest.raises(ValueError, match=message):
        tabular_mdp(**good | change)
    with pytest.raises(ValueError, match=message):
        tabular(TabularMDP(**{name: np.asarray(x) for name, x in (good | change).items()}))


def test_terminal_rows_need_not_sum_to_one():
    tabular_mdp([[[0.0, 1.0]], [[0.0, 0.0]]], np.zeros((2, 1)), terminal=[False, True])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: tabular(small(), max_steps_in_episode=0), ValueError, "max_steps_in_episode must be at least 1"),
        (lambda: tabular(small(), features=np.ones((4, 2))), ValueError, r"features must be \[5, K\].* got \[4, 2\]"),
        (lambda: chain(1), ValueError, "num_states must be at least 2"),
        (lambda: chain(slip=1.1), ValueError, r"slip must lie in \[0, 1\], got 1.1"),
        (lambda: grid_world(slip=-0.1), ValueError, "slip must lie in"),
        (lambda: grid_world([]), ValueError, "rows must be strings of equal length"),
        (lambda: grid_world("S.G"), ValueError, "rows must be strings of equal length"),
        (lambda: grid_world(["S.", "G"]), ValueError, "rows must be strings of equal length"),
        (lambda: grid_world(["Sx", "?G"]), ValueError, r"rows may contain S \. F # G H C only; they contain \? x"),
        (lambda: grid_world(["..", ".G"]), ValueError, "rows must contain a start"),
        (lambda: frozen_lake("5x5"), ValueError, "rows must be '4x4' or '8x8' or a list of strings; got '5x5'"),
        (lambda: garnet(-1), ValueError, "seed must be at least 0"),
        (lambda: garnet(branching=21), ValueError, "branching must be at most 20"),
        (lambda: garnet_mdp(0), TypeError, "key must be a typed PRNG key"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


# --- the ready ones


def gymnasium_tables(env):
    """P `[S, A, S]`, r `[S, A, S]` and terminal `[S]` of a toy-text environment."""
    num_states, num_actions = env.observation_space.n, env.action_space.n
    transition, paid = np.zeros((2, num_states, num_actions, num_states))
    terminal = np.zeros(num_states, bool)
    for s, actions in env.P.items():
        for a, outcomes in actions.items():
            for prob, entered, reward, terminated in outcomes:
                transition[s, a, entered] += prob
                paid[s, a, entered] += prob * reward
                terminal[entered] |= terminated
    return transition, np.divide(paid, transition, out=np.zeros_like(paid), where=transition > 0), terminal


@pytest.mark.parametrize("slippery", [True, False])
@pytest.mark.parametrize("rows", ["4x4", "8x8"])
def test_the_frozen_lake_is_gymnasiums(rows, slippery):
    mdp, theirs = frozen_lake(rows, slippery=slippery).params.mdp, FrozenLakeEnv(map_name=rows, is_slippery=slippery)
    transition, reward, terminal = gymnasium_tables(theirs)
    np.testing.assert_array_equal(mdp.terminal, terminal)
    np.testing.assert_allclose(mdp.transition[~terminal], transition[~terminal], atol=1e-7)
    np.testing.assert_allclose(mdp.reward[~terminal], reward[~terminal], atol=1e-7)
    np.testing.assert_allclose(mdp.start, theirs.initial_state_distrib)


@pytest.mark.parametrize("slippery", [True, False])
def test_the_cliff_walk_is_gymnasiums(slippery):
    """But for the cells of the cliff, where nobody ever is."""
    mdp, theirs = cliff_walk(slip=2 / 3 if slippery else 0.0).params.mdp, CliffWalkingEnv(is_slippery=slippery)
    transition, reward, terminal = gymnasium_tables(theirs)
    np.testing.assert_array_equal(mdp.terminal, terminal)
    visited = np.arange(48) < 37
    np.testing.assert_allclose(mdp.transition[visited], transition[visited], atol=1e-7)
    np.testing.assert_allclose(mdp.reward[visited], reward[visited], atol=1e-5)
    np.testing.assert_allclose(mdp.start, theirs.initial_state_distrib)
    assert not np.asarray(mdp.transition[visited][:, :, 37:47]).any()


def test_the_time_limits_are_gymnasiums():
    assert [frozen_lake(rows).params.max_steps_in_episode for rows in ("4x4", "8x8", ["SFG"])] == [100, 200, 100]


def test_a_grid_by_hand():
    """Two rows of three cells, and slips to both sides."""
    env = grid_world(["S.#", "HG."], slip=0.5, step_reward=-1.0, goal_reward=10.0, hole_reward=-10.0)
    mdp = env.params.mdp
    assert mdp.terminal.tolist() == [False, False, True, True, True, False]
    np.testing.assert_allclose(mdp.transition[0, 1], [0.25, 0.5, 0, 0.25, 0, 0])  # right; up is the rim, down the hole
    np.testing.assert_allclose(mdp.transition[1, 1], [0, 0.75, 0, 0, 0.25, 0])  # right is the wall, down the goal
    np.testing.assert_allclose(mdp.transition[1, 0], [0.25, 0.75, 0, 0, 0, 0])  # up; left, and the wall to the right
    np.testing.assert_allclose(mdp.reward[0, 1], [-1, -1, 0, -11, 0, 0])
    np.testing.assert_allclose(mdp.reward[1, 1], [0, -1, 0, 0, 9, 0])
    assert mdp.start.tolist() == [1, 0, 0, 0, 0, 0]


def test_several_starts_share_what_falls_off_the_cliff():
    mdp = cliff_walk(["SCS"], cliff_reward=-5.0).params.mdp
    assert mdp.start.tolist() == [0.5, 0, 0.5]
    assert mdp.transition[0, 1].tolist() == [0.5, 0, 0.5]
    assert mdp.reward[0, 1].tolist() == [-5, 0, -5]


def test_the_chain_by_hand():
    mdp = chain(3, slip=0.1, near_reward=1.0, far_reward=7.0).params.mdp
    forward, back = [[0.1, 0.9, 0], [0.1, 0, 0.9], [0.1, 0, 0.9]], [[0.9, 0.1, 0], [0.9, 0, 0.1], [0.9, 0, 0.1]]
    np.testing.assert_allclose(mdp.transition, np.stack([forward, back], axis=1), rtol=1e-6)
    np.testing.assert_allclose(dp.expected_reward(mdp), [[0.1, 0.9], [0.1, 0.9], [0.1 + 6.3, 0.9 + 0.7]], rtol=1e-6)


def test_garnets_are_what_their_paper_says():
    """Over 960 rows: b different successors, uniform; Dirichlet(1, 1, 1), so each is Beta(1, 2); normal rewards."""
    mdps = [garnet_mdp(jax.random.key(seed)) for seed in range(12)]
    probs, rewards = (np.stack([np.asarray(x, np.float64) for x in xs]) for xs in list(zip(*mdps, strict=True))[:2])
    np.testing.assert_allclose(probs.sum(axis=-1), 1, rtol=1e-5)
    assert ((probs > 0).sum(axis=-1) == 3).all()
    assert scipy.stats.chisquare((probs > 0).sum(axis=(0, 1, 2))).pvalue > ONE_IN_A_MILLION
    first = np.take_along_axis(probs, np.argmax(probs > 0, axis=-1)[..., None], axis=-1).ravel()
    assert scipy.stats.kstest(first, scipy.stats.beta(1, 2).cdf).pvalue > ONE_IN_A_MILLION
    assert scipy.stats.kstest(rewards.ravel(), scipy.stats.norm.cdf).pvalue > ONE_IN_A_MILLION
    np.testing.assert_array_equal(garnet(3).params.mdp.reward, rewards[3])  # a seed names one
    batch = jax.eval_shape(jax.vmap(garnet_mdp), jax.random.split(jax.random.key(0), 7))
    assert batch.transition.shape == (7, 20, 4, 20)


def test_bairds_features_and_its_two_actions():
    env = baird()
    np.testing.assert_array_equal(env.params.features[2], [0, 0, 2, 0, 0, 0, 0, 1])
    np.testing.assert_allclose(env.params.mdp.transition[3], [[1 / 6] * 6 + [0], [0] * 6 + [1]], rtol=1e-6)
    assert env.observation_space.shape == (8,)


@pytest.mark.parametrize("name", ["Chain", "CliffWalk", "GridWorld", "FrozenLake", "Garnet", "Baird"])
def test_make_knows_them(name):
    env = jaxrl.make(name, max_steps_in_episode=5)
    assert env.name == name
    assert env.params.max_steps_in_episode == 5
    _, obs = env.reset(jax.random.key(0), env.params)
    assert obs.shape == env.observation_space.shape


@pytest.mark.parametrize("name", ["PointMass", "FrozenLake", "Garnet"])
def test_an_unknown_parameter_is_refused_with_the_list(name):
    with pytest.raises(ValueError, match=rf"{name} has no parameter gravity; it has .*max_steps_in_episode"):
        jaxrl.make(name, gravity=3)


def test_one_number_is_not_several():
    for make in (lambda: jaxrl.make("Chain", slip=[0.2]), lambda: wrappers.scale_rewards(jaxrl.make("Chain"), [1.0, 2.0])):
        with pytest.raises(ValueError, match=r"(slip|scale) must be one number, got an array of the shape \[[12]\]"):
            make()
