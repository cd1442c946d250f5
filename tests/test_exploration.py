"""ε-greedy against its definition, the binomial distribution, and loops over the actions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl.exploration import epsilon_greedy, epsilon_greedy_noise

ONE_IN_A_MILLION = 1e-6
ALWAYS, NEVER = np.uint32(0), np.uint32(2**32 - 1)  # bits with which exploration happens at any ε > 0, or at none below 1

NUM_STEPS, NUM_ENVS, NUM_ACTIONS = 500, 64, 5


@partial(jax.jit, static_argnums=1)
def draw(epsilon, shape=(NUM_STEPS, NUM_ENVS), seed=0):
    """Actions, and by the noise: a uniform number and the random action. The greedy action is everywhere the last one."""
    noise = epsilon_greedy_noise(jax.random.key(seed), shape)
    q = jnp.broadcast_to(jnp.arange(NUM_ACTIONS, dtype=jnp.float32), (*shape, NUM_ACTIONS))
    explore, action = noise
    return epsilon_greedy(q, noise, epsilon), (explore.astype(jnp.float32) * 2.0**-32, (action % NUM_ACTIONS).astype(jnp.int32))


def assert_uniform(actions):
    """Pearson's chi-square test, at a level that a uniform draw fails for one key in a million."""
    counts, expected = np.bincount(np.ravel(actions), minlength=NUM_ACTIONS), actions.size / NUM_ACTIONS
    assert len(counts) == NUM_ACTIONS
    assert np.sum((counts - expected) ** 2) / expected < scipy.stats.chi2.isf(ONE_IN_A_MILLION, NUM_ACTIONS - 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": (5, 1)}, r"epsilon must be a scalar or \(5,\), got \(5, 1\)"),
        ({"epsilon": (3,)}, r"epsilon must be a scalar or \(5,\), got \(3,\)"),
        ({"explore": (5, 1)}, r"noise must have the leading axes of q, \(5,\); got \(5, 1\)"),
        ({"action": ()}, r"noise must have the leading axes of q, \(5,\); got \(\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change, message):
    shape = {"explore": (5,), "action": (5,), "epsilon": ()} | change
    noise = tuple(jax.ShapeDtypeStruct(shape[name], jnp.uint32) for name in ("explore", "action"))
    q, epsilon = jax.ShapeDtypeStruct((5, 3), jnp.float32), jax.ShapeDtypeStruct(shape["epsilon"], jnp.float32)
    for all_legal in (False, True):
        with pytest.raises(ValueError, match=f"epsilon_greedy: {message}"):
            jax.eval_shape(partial(epsilon_greedy, all_legal=all_legal), q, noise, epsilon)


def test_epsilon_zero_is_greedy():
    actions, _ = draw(0.0)
    np.testing.assert_array_equal(actions, np.full((NUM_STEPS, NUM_ENVS), NUM_ACTIONS - 1))


def test_epsilon_one_is_uniformly_random():
    actions, (_, random_actions) = draw(1.0)
    np.testing.assert_array_equal(actions, random_actions)
    assert_uniform(actions)


@pytest.mark.parametrize("epsilon", [0.01, 0.3, 0.9])
def test_epsilon_is_the_share_of_random_actions(epsilon):
    actions, _ = draw(epsilon)
    others = actions[actions != NUM_ACTIONS - 1]
    # One random action in NUM_ACTIONS happens to be the greedy one.
    share = epsilon * (NUM_ACTIONS - 1) / NUM_ACTIONS
    low, high = scipy.stats.binom(actions.size, share).interval(1 - ONE_IN_A_MILLION)
    assert low <= others.size <= high
    counts = np.bincount(others, minlength=NUM_ACTIONS - 1)
    statistic = np.sum((counts - counts.mean()) ** 2) / counts.mean()
    assert statistic < scipy.stats.chi2.isf(ONE_IN_A_MILLION, NUM_ACTIONS - 2)


def test_every_environment_has_its_own_draw():
    """If all explored together, the number that does would be 0 or all of them, not binomial."""
    _, (uniform, random_actions) = draw(0.5)
    explores = np.asarray(uniform) < 0.5
    for exploring in (explores.sum(axis=1), explores.sum(axis=0)):  # over environments, then over steps
        size = explores.size // exploring.size
        low, high = scipy.stats.binom(size, 0.5).interval(1 - ONE_IN_A_MILLION / exploring.size)
        assert (low <= exploring).all()
        assert (exploring <= high).all()
    assert np.unique(uniform).size > 0.99 * uniform.size
    # Nor do two neighbours pick the same random action more often than by chance.
    random_actions = np.asarray(random_actions)
    same = np.sum(random_actions[:, 1:] == random_actions[:, :-1])
    low, high = scipy.stats.binom(NUM_STEPS * (NUM_ENVS - 1), 1 / NUM_ACTIONS).interval(1 - ONE_IN_A_MILLION)
    assert low <= same <= high


def test_the_random_action_does_not_depend_on_the_decision_to_explore():
    _, (uniform, random_actions) = draw(0.5)
    assert_uniform(random_actions[uniform < 0.1])


@pytest.mark.parametrize("shape", [(), (5,), (3, 4)])
def test_actions_have_the_shape_of_the_batch(shape):
    actions, _ = draw(0.5, shape)
    assert actions.shape == shape
    assert actions.dtype == jnp.int32


def test_epsilon_may_be_batched():
    q, noise = jnp.array([0.0, 1.0]), (jnp.uint32(int(0.4 * 2**32)), jnp.uint32(0))
    assert jax.vmap(epsilon_greedy, (None, None, 0))(q, noise, jnp.float32([0.3, 0.5])).tolist() == [1, 0]


def test_the_noise_is_two_words_a_position_and_nothing_is_shared():
    noise = epsilon_greedy_noise(jax.random.key(0), (3, 40))
    assert [(x.shape, x.dtype) for x in noise] == [((3, 40), jnp.uint32)] * 2
    assert np.unique(np.stack(noise)).size == 240


# --- illegal actions


def random_legal_loop(q, bits):
    """The k-th action that is not −inf, for k = bits mod their number."""
    actions = []
    for values, word in zip(q, bits, strict=True):
        legal = [a for a, value in enumerate(values) if value != -np.inf]
        actions.append(legal[int(word) % len(legal)] if legal else 0)
    return actions


@pytest.mark.parametrize("num_actions", [1, 2, 3, 5, 8, 18, 31, 32, 33, 70])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.05])
def test_the_random_action_is_the_kth_legal_one(num_actions, share):
    rng = np.random.default_rng(num_actions)
    q = np.where(rng.random((300, num_actions)) < share, rng.normal(size=(300, num_actions)), -np.inf).astype(np.float32)
    bits = rng.integers(0, 2**32, 300, np.uint32)
    bits[:2] = 0, 2**32 - 1
    actions = jax.jit(epsilon_greedy)(q, (np.full(300, ALWAYS), bits), 1.0)
    assert actions.tolist() == random_legal_loop(q, bits)
    assert actions.dtype == jnp.int32
    if share == 1.0:
        np.testing.assert_array_equal(actions, bits % num_actions)
    greedy = jax.jit(epsilon_greedy)(q, (np.full(300, NEVER), bits), 0.99)
    np.testing.assert_array_equal(greedy, np.argmax(q, axis=-1))


@pytest.mark.parametrize("num_actions", [3, 50])
def test_without_a_legal_action_the_result_is_zero(num_actions):
    q = np.full((4, num_actions), -np.inf, np.float32)
    for explore in (ALWAYS, NEVER):
        bits = np.array([0, 1, 2**32 - 1, 77], np.uint32)
        assert epsilon_greedy(q, (np.full(4, explore), bits), 0.5).tolist() == [0] * 4


@pytest.mark.parametrize("num_actions", [6, 40])
def test_random_actions_are_uniform_over_the_legal_ones(num_actions):
    legal = np.random.default_rng(0).random(num_actions) < 0.6
    q = jnp.broadcast_to(jnp.where(legal, jnp.arange(num_actions, dtype=jnp.float32), -jnp.inf), (60_000, num_actions))
    actions = jax.jit(epsilon_greedy)(q, epsilon_greedy_noise(jax.random.key(0), (60_000,)), 1.0)
    counts = np.bincount(actions, minlength=num_actions)
    assert not counts[~legal].any()
    expected = 60_000 / legal.sum()
    assert np.sum((counts[legal] - expected) ** 2) / expected < scipy.stats.chi2.isf(ONE_IN_A_MILLION, legal.sum() - 1)


def test_values_that_are_nan_or_infinite_are_legal():
    """A network that has diverged still explores."""
    q = np.array([[np.nan, np.inf, np.nan]] * 6, np.float32)
    actions = epsilon_greedy(q, (np.full(6, ALWAYS), np.arange(6, dtype=np.uint32)), 1.0)
    assert actions.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("num_actions", [1, 2, 5, 40])
def test_to_say_that_all_actions_are_legal_changes_nothing_where_they_are(num_actions):
    q = jax.random.normal(jax.random.key(0), (512, num_actions))
    noise = epsilon_greedy_noise(jax.random.key(1), (512,))
    np.testing.assert_array_equal(epsilon_greedy(q, noise, 0.5), epsilon_greedy(q, noise, 0.5, all_legal=True))
