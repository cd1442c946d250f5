"""Parameters drawn for each episode: kept within it, new in the next, of the right distribution."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import jaxrl
from jaxrl.envs import wrappers as w
from tests.envs.wrappers.problems import Constant, Rollout, constant, first, jit, random_rollout, walk
from tests.problems import reinforce_learner


@dataclasses.dataclass(frozen=True)
class Plain:
    gravity: float
    mass: float


MEMBERS = np.float32([1.0, 2.0, 5.0, 7.0])


@functools.cache
def long_rollout(kind: str) -> Rollout:
    """1,000 episodes of four steps that show the parameter of their episode."""
    if kind == "range":
        env = w.randomize_params(constant(), w.uniform_params(value=(2.0, 6.0)))
    else:
        env = w.over_params(constant(), Constant(MEMBERS))
    return random_rollout(env, num_steps=4 * 125, num_envs=8)


@pytest.mark.parametrize("kind", ["range", "set"])
def test_parameters_are_constant_within_an_episode_and_drawn_anew_for_the_next(kind):
    transitions = long_rollout(kind).transitions
    np.testing.assert_array_equal(transitions.obs, transitions.next_obs)
    begins = first(transitions)
    assert begins.sum() == 1000
    drawn = transitions.obs[..., 0][begins]
    np.testing.assert_array_equal(transitions.obs[..., 0].reshape(125, 4, 8), np.repeat(drawn.reshape(125, 1, 8), 4, axis=1))
    same = (drawn.reshape(125, 8)[1:] == drawn.reshape(125, 8)[:-1]).mean()  # as in the episode before
    chance = 0.0 if kind == "range" else 0.25
    assert abs(same - chance) <= 4 * np.sqrt(chance * (1 - chance) / (124 * 8))


def test_a_range_is_drawn_from_uniformly():
    """Mean, variance and the distribution function (Kolmogorov-Smirnov, p = 1e-4) of 1,000 draws."""
    drawn = long_rollout("range").transitions.obs[::4].ravel()
    uniform = np.sort((drawn - 2) / 4)
    assert len(np.unique(drawn)) >= 1000 - 2  # as floats, more than two pairs are alike with probability 4e-5
    assert uniform[0] >= 0
    assert uniform[-1] <= 1
    assert abs(uniform.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 1000)
    assert abs(uniform.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / 1000)
    steps = np.arange(1001) / 1000
    assert max(np.max(steps[1:] - uniform), np.max(uniform - steps[:-1])) < 2.23 / np.sqrt(1000)


def test_each_member_of_a_set_is_as_likely():
    drawn = long_rollout("set").transitions.obs[::4].ravel()
    values, counts = np.unique(drawn, return_counts=True)
    np.testing.assert_array_equal(values, MEMBERS)
    assert np.all(np.abs(counts - 250) < 4 * np.sqrt(1000 * 0.25 * 0.75))


def test_arrays_are_drawn_component_by_component_and_the_rest_is_left_alone():
    env = w.randomize_params(jaxrl.make("PointMass"), w.uniform_params(transition=(-1.0, 1.0), noise_scale=(0.5, 0.5)))
    state, _ = env.reset(jax.random.key(0), env.params)
    drawn, nominal = state.params, env.params
    assert len(np.unique(drawn.transition)) == 4
    assert drawn.noise_scale == 0.5
    np.testing.assert_array_equal(drawn.control, nominal.control)
    changed = env.reset(jax.random.key(0), nominal._replace(max_action=0.25))[0].params
    assert changed.max_action == 0.25  # the nominal ones are still traced


@struct.dataclass
class GymnaxParams:
    """Parameters as gymnax has them."""

    drift: float = 0.25
    max_steps_in_episode: int = 5


def test_parameters_of_gymnax_and_of_wrappers_can_be_drawn():
    env = w.randomize_params(walk()._replace(params=GymnaxParams()), w.uniform_params(drift=(0.4, 0.6)))
    state, _ = env.reset(jax.random.key(0), env.params)
    assert 0.4 <= state.params.drift <= 0.6
    assert state.params.max_steps_in_episode == env.params.max_steps_in_episode == 5
    sticky = w.randomize_params(w.sticky_actions(walk()), w.uniform_params(probability=(0.0, 0.5)))
    assert sticky.params.max_steps_in_episode == 5
    assert 0 <= sticky.reset(jax.random.key(0), sticky.params)[0].params.probability <= 0.5


def test_both_halves_of_a_split_are_drawn_by_keys_of_their_own():
    """The sample is its key, so that no two draws may be alike."""
    sample = lambda key, params: Constant(jax.random.key_data(key))
    split = jit(lambda key: w.split_params(key, constant().params, sample, num_train=300, num_test=500))
    train, test = split(jax.random.key(0))
    assert (train.value.shape, test.value.shape) == ((300, 2), (500, 2))
    assert len(np.unique(np.concatenate([train.value, test.value]), axis=0)) == 800


def test_training_meets_the_members_of_its_own_half_alone():
    sample = w.uniform_params(value=(0.0, 1.0))
    train, test = w.split_params(jax.random.key(0), constant().params, sample, num_train=4, num_test=6)
    reset = jit(jax.vmap(w.over_params(constant(), train).reset, (0, None)))
    keys = jax.random.split(jax.random.key(1), 50)
    for members in (train, test._replace(value=test.value[:4])):
        env = w.over_params(constant(), members)
        assert set(np.asarray(reset(keys, env.params)[1]).ravel()) == set(np.asarray(members.value))


def test_a_sample_may_return_plain_numbers():
    env = w.randomize_params(walk(), lambda key, params: params._replace(drift=0.5))
    state, _ = env.reset(jax.random.key(0), env.params)
    assert state.params.drift == 0.5
    train, test = w.split_params(jax.random.key(0), walk().params, lambda key, params: params, num_train=2, num_test=1)
    assert (train.drift.shape, test.drift.shape) == ((2,), (1,))
    assert w.over_params(walk(), train).params.max_steps_in_episode == 5


def test_the_longest_limit_of_a_set_is_the_one_to_be_read():
    members = walk().params._replace(drift=np.zeros(3), max_steps_in_episode=np.array([4, 9, 7]))
    assert w.over_params(walk(), members).params.max_steps_in_episode == 9
    assert w.over_params(constant(), Constant(MEMBERS)).params.max_steps_in_episode is None


@pytest.mark.parametrize(
    ("wrap", "error", "message"),
    [
        (lambda: w.uniform_params(value=(2.0, 1.0)), ValueError, "value has low 2.0 above high 1.0"),
        (lambda: w.uniform_params(value=(0.0, np.inf)), ValueError, "value must lie in"),
        (
            lambda: w.randomize_params(constant(), w.uniform_params(weight=(0.0, 1.0))),
            ValueError,
            "there is no parameter weight; there are value",
        ),
        (
            lambda: w.randomize_params(constant(), lambda key, params: 1.0),
            ValueError,
            "sample must return parameters like env.params",
        ),
        (
            lambda: w.randomize_params(constant(), lambda key, params: Constant(jnp.ones(2))),
            ValueError,
            "sample must return parameters like",
        ),
        (
            lambda: w.over_params(constant(), constant().params),
            ValueError,
            r"a leading axis of the same length N; the shapes are \[\]",
        ),
        (lambda: w.over_params(constant(), Constant(np.ones((3, 2)))), ValueError, "members must be parameters like env.params"),
        (lambda: w.over_params(walk(), walk().params._replace(drift=np.ones(3))), ValueError, r"the shapes are \[3\], \[\]"),
        (
            lambda: w.split_params(0, constant().params, w.uniform_params(), num_train=1, num_test=1),
            TypeError,
            "key must be a typed PRNG key",
        ),
        (
            lambda: w.split_params(jax.random.key(0), constant().params, w.uniform_params(), num_train=0, num_test=1),
            ValueError,
            "num_train must be at least 1",
        ),
        (lambda: w.uniform_params(value=0.5), TypeError, r"uniform_params: value must be two numbers, such as .*; got 0\.5"),
        (lambda: w.uniform_params(value=(1, 2, 3)), TypeError, "uniform_params: value must be two numbers"),
        (lambda: w.randomize_params(constant(), 3), TypeError, "randomize_params: sample must be a function, got 3"),
    ],
)
def test_what_does_not_fit_is_refused(wrap, error, message):
    with pytest.raises(error, match=message):
        wrap()


def test_a_range_may_be_an_array():
    drawn = w.uniform_params(value=np.array([2.0, 2.0]))(jax.random.key(0), constant().params)
    assert float(drawn.value) == 2.0


def test_a_parameter_inside_a_wrapper_is_found_and_one_of_a_plain_dataclass_replaced():
    sample = w.uniform_params(force_mag=(5.0, 5.0), probability=(0.5, 0.5))
    drawn = sample(jax.random.key(0), w.sticky_actions(jaxrl.make("CartPole-v1")).params)
    assert (float(drawn.probability), float(drawn.env.force_mag)) == (0.5, 5.0)
    drawn = w.uniform_params(gravity=(3.0, 3.0))(jax.random.key(0), Plain(1.0, 2.0))
    assert (float(drawn.gravity), drawn.mass) == (3.0, 2.0)
    with pytest.raises(ValueError, match="no parameter charge; there are gravity, mass"):
        w.uniform_params(charge=(0.0, 1.0))(jax.random.key(0), Plain(1.0, 2.0))


# --- grids of parameters


def test_a_grid_has_every_combination():
    grid = w.params_grid(jaxrl.make("CartPole-v1").params, masscart=[1, 2], length=[0.5, 0.7, 0.9])
    np.testing.assert_allclose(grid.masscart, [1, 1, 1, 2, 2, 2])
    np.testing.assert_allclose(grid.length, [0.5, 0.7, 0.9] * 2)
    np.testing.assert_allclose(grid.gravity, [9.8] * 6, rtol=1e-6)
    assert grid.max_steps_in_episode.dtype == np.int32
    inside = w.params_grid(w.sticky_actions(walk()).params, probability=[0.0, 0.5], drift=[0.1])
    np.testing.assert_allclose(inside.probability, [0.0, 0.5])
    np.testing.assert_allclose(inside.env.drift, [0.1, 0.1])
    rows = w.params_grid(jaxrl.make("PointMass").params, transition=np.arange(8.0).reshape(2, 2, 2), noise_scale=[0.0, 1.0])
    np.testing.assert_array_equal(rows.transition, np.repeat(np.arange(8.0).reshape(2, 2, 2), 2, axis=0))
    assert w.over_params(jaxrl.make("PointMass"), rows).params.members.noise_scale.shape == (4,)


def test_a_wrong_grid_is_refused():
    with pytest.raises(ValueError, match=r"params_grid: the values of transition must have the shape \[3, 2, 2\]; got \[3\]"):
        w.params_grid(jaxrl.make("PointMass").params, transition=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"params_grid: max_steps_in_episode is int32, which cannot be \[1\.5, 2\.0\]"):
        w.params_grid(jaxrl.make("CartPole-v1").params, max_steps_in_episode=[1.5, 2.0])
    with pytest.raises(ValueError, match="params_grid: there is no parameter mass; there are"):
        w.params_grid(walk().params, mass=[1.0])
    for structure in ("num_repeats", "env"):
        with pytest.raises(ValueError, match=f"params_grid: there is no parameter {structure}; there are"):
            w.params_grid(w.action_repeat(walk(), 2).params, **{structure: [1, 2]})
    with pytest.raises(ValueError, match="params_grid: drift needs one or more values"):
        w.params_grid(walk().params, drift=[])
    with pytest.raises(ValueError, match="params_grid: drift needs one or more values"):
        w.params_grid(walk().params, drift=1.0)


def test_evaluation_over_a_grid():
    """Episodes of four steps pay the parameter in every step; the key is the same for all."""
    env = constant()
    learner = reinforce_learner(w.randomize_params(env, w.uniform_params(value=(0.0, 1.0))), num_envs=2, rollout_length=4)
    state = jax.jit(lambda key: learner.init(key, learner.agent.hparams))(jax.random.key(0))
    grid = w.params_grid(env.params, value=[-1.0, 0.5, 2.0])
    returns = jaxrl.evaluate_over_params(jax.random.key(1), learner._replace(env=env), state, grid, num_episodes=2)
    np.testing.assert_allclose(returns, np.repeat([[-4.0], [2.0], [8.0]], 2, axis=1))
    random = walk()
    learner = reinforce_learner(random, num_envs=2, rollout_length=5)
    state = jax.jit(lambda key: learner.init(key, learner.agent.hparams))(jax.random.key(0))
    grid = w.params_grid(random.params, drift=[0.0, 0.3])
    returns = jaxrl.evaluate_over_params(jax.random.key(1), learner, state, grid, num_episodes=3)
    for i in range(2):
        one = learner._replace(env=random._replace(params=jax.tree.map(lambda x, i=i: x[i], grid)))
        np.testing.assert_allclose(returns[i], jaxrl.evaluate(jax.random.key(1), one, state, num_episodes=3), rtol=1e-5)
    assert np.all(returns[0] != returns[1])
    with pytest.raises(ValueError, match=r"params must be parameters like those of walk with a leading axis"):
        jaxrl.evaluate_over_params(jax.random.key(1), learner, state, jnp.ones(2), num_episodes=1)
