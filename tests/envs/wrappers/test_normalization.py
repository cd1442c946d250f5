"""Running statistics against the batch formulas in NumPy's float64, and what becomes of them at the end of an episode."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.envs import wrappers as w
from jaxrl.running_statistics import empty_statistics, statistics_of, statistics_of_batch
from jaxrl.types import Box, Discrete
from tests.envs.wrappers.problems import (
    check_types,
    constant,
    done,
    echo,
    episodes,
    first,
    jit,
    random_rollout,
    rollout_of,
    room,
    walk,
)

LENGTH, PARTS = 256, 8


@jit
def running(stream, counted):
    """RunningStatistics of the stream in order, the standardised stream, and the statistics merged from eight parts of it."""

    def see(statistics, x_and_counted):
        x, counted = x_and_counted
        statistics = w.merge(statistics, statistics_of(x)._replace(num=counted))
        return statistics, w.standardize(statistics, x)

    whole, standardized = jax.lax.scan(see, empty_statistics(()), (stream, counted))
    parts = (x.reshape(PARTS, -1) for x in (stream, counted))
    merged = w.merge_all(jax.vmap(lambda *part: jax.lax.scan(see, empty_statistics(()), part)[0])(*parts))
    return whole, standardized, merged


def running_formula(x):
    """(x_t − mean) / √(variance + 1e-8) over x_0 … x_t, for every t."""
    return np.array([(x[t] - x[: t + 1].mean()) / np.sqrt(x[: t + 1].var() + 1e-8) for t in range(len(x))])


@settings(deadline=None, max_examples=60)
@given(
    size=st.integers(1, LENGTH),
    log_scale=st.floats(-3, 5),
    log_offset=st.floats(-3, 6),
    power=st.sampled_from([0, 1, 3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_running_and_merged_statistics_are_those_of_the_whole_stream(size, log_scale, log_offset, power, seed):
    """Offsets up to 10^6 standard deviations, tails up to a cubed normal, constant streams."""
    rng = np.random.default_rng(seed)
    scale = 10**log_scale
    stream = np.zeros(LENGTH, np.float32)
    stream[:size] = scale * rng.choice([-1, 1]) * 10**log_offset + (scale * rng.standard_normal(size) ** power if power else 0)
    counted = (np.arange(LENGTH) < size).astype(np.float32)
    whole, standardized, merged = jax.tree.map(np.asarray, running(stream, counted))
    x = stream[:size].astype(np.float64)
    np.testing.assert_allclose(standardized[:size], running_formula(x), rtol=1e-5, atol=1e-5)
    deviation = np.sqrt(x.var() + 1e-8)
    for statistics in (whole, merged):
        assert statistics.num == size
        assert abs(statistics.mean.astype(np.float64) + statistics.mean_compensation - x.mean()) < 1e-5 * deviation
        assert abs(np.sqrt(statistics.variance + np.float64(1e-8)) - deviation) < 1e-5 * deviation


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_statistics_of_a_long_stream_do_not_drift(offset):
    """Plain float32 would have the variance of so many wrong in the fifth digit or before."""
    x = (offset + np.random.default_rng(0).standard_normal(300_000)).astype(np.float32)
    scan = jit(lambda x: jax.lax.scan(lambda m, x: (w.merge(m, statistics_of(x)), None), empty_statistics(()), x)[0])
    statistics = jax.tree.map(lambda x: np.asarray(x, np.float64), scan(x))
    x = x.astype(np.float64)
    assert abs(statistics.variance + statistics.variance_compensation - x.var()) < 1e-6
    assert abs(statistics.mean + statistics.mean_compensation - x.mean()) < 1e-6


@settings(deadline=None, max_examples=60)
@given(
    log_scale=st.floats(-3, 5),
    log_offset=st.floats(-3, 6),
    power=st.sampled_from([0, 1, 3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_batches_merged_in_one_go_are_the_whole_stream(log_scale, log_offset, power, seed):
    """Two batches of observations `[N, 2]`, normal, cubed normal or constant, with means of up to 10^6 standard deviations."""
    rng = np.random.default_rng(seed)
    scale = 10**log_scale
    x = scale * rng.choice([-1, 1], 2) * 10**log_offset + scale * rng.standard_normal((4 * LENGTH, 2)) ** power
    x = x.astype(np.float32)
    merged = jax.tree.map(np.asarray, batches(x))
    x = x.astype(np.float64)
    deviation = np.sqrt(x.var(axis=0) + 1e-8)
    assert merged.num == len(x)
    assert np.all(np.abs(merged.mean.astype(np.float64) + merged.mean_compensation - x.mean(axis=0)) < 1e-5 * deviation)
    assert np.all(np.abs(np.sqrt(merged.variance + np.float64(1e-8)) - deviation) < 1e-5 * deviation)


@jit
def batches(x):
    half = len(x) // 2
    return w.merge(statistics_of_batch(x[:half]), statistics_of_batch(x[half:]))


def test_a_batch_of_one_is_that_observation():
    x = jnp.float32([[3.0, -1e9]])
    jax.tree.map(np.testing.assert_array_equal, statistics_of_batch(x), statistics_of(x[0]))


def test_merging_into_nothing_keeps_every_digit():
    batch = statistics_of_batch(jnp.float32([[1e6], [1e6], [1e6 + 1]]))
    assert batch.mean_compensation[0] != 0
    for merged in (w.merge(empty_statistics((1,)), batch), w.merge(batch, empty_statistics((1,)))):
        jax.tree.map(np.testing.assert_array_equal, merged, batch)


def test_merging_nothing_gives_nothing_and_adds_nothing():
    nothing, one = empty_statistics((2,)), statistics_of(jnp.float32([3.0, -1.0]))
    for merged, expected in ((w.merge(nothing, nothing), nothing), (w.merge(nothing, one), one), (w.merge(one, nothing), one)):
        jax.tree.map(np.testing.assert_array_equal, merged, expected)


EIGHT_DEVICES = """
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 8)
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec as P
from jaxrl.envs.wrappers import merge, merge_all
from jaxrl.running_statistics import empty_statistics, statistics_of

mesh = jax.make_mesh((8,), ("devices",), axis_types=(AxisType.Auto,))
x = (1e4 + np.random.default_rng(0).standard_normal((8, 50, 3)) * [1, 10, 100]).astype(np.float32)

def own(x):
    return jax.lax.scan(lambda old, x: (merge(old, statistics_of(x)), None), empty_statistics((3,)), x)[0]

def gathered(x):
    return merge_all(jax.lax.all_gather(own(x[0]), "devices"))

inside = jax.jit(jax.shard_map(gathered, mesh=mesh, in_specs=P("devices"), out_specs=P(), check_vma=False))(x)
spread = jax.device_put(x, jax.NamedSharding(mesh, P("devices")))
assert len(spread.sharding.device_set) == 8
outside = jax.jit(lambda x: merge_all(jax.vmap(own)(x)))(spread)
x = x.reshape(-1, 3).astype(np.float64)
for statistics in (inside, outside):
    assert statistics.num == 400
    mean = np.asarray(statistics.mean, np.float64) + statistics.mean_compensation
    np.testing.assert_allclose((mean - x.mean(axis=0)) / x.std(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.sqrt(statistics.variance), x.std(axis=0), rtol=1e-5)
print("as one stream")
"""


def test_statistics_merged_over_eight_devices_are_those_of_the_whole_stream():
    finished = subprocess.run([sys.executable, "-c", EIGHT_DEVICES], capture_output=True, text=True, timeout=240)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == "as one stream"


def streams(transitions):
    """Every observation that an environment showed, in order, `[n, *obs_shape]`, and where each step's successor is in it."""
    for b in range(transitions.reward.shape[1]):
        parts = [np.concatenate([e.obs[:1], e.next_obs]) for e in episodes(transitions, b)]
        begins = np.concatenate([np.arange(len(part)) == 0 for part in parts])
        yield b, np.concatenate(parts).astype(np.float64), begins


def check_normalized(plain, normalized, clip=10.0):
    for b, stream, begins in streams(plain):
        expected = np.clip(np.stack([running_formula(x) for x in stream.T], axis=-1), -clip, clip)
        np.testing.assert_allclose(normalized.next_obs[:, b], expected[~begins], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(normalized.obs[first(normalized)[:, b], b], expected[begins], rtol=1e-5, atol=1e-5)


def test_observations_are_normalised_by_all_that_were_shown_across_episodes():
    plain, normalized = rollout_of("plain").transitions, rollout_of("normalize_observations")
    check_normalized(plain, normalized.transitions)
    np.testing.assert_array_equal(normalized.transitions.reward, plain.reward)
    statistics = normalized.env_state.statistics
    begun = first(plain).sum(axis=0) + done(plain)[-1]  # an episode that ends with the rollout has its successor begun
    np.testing.assert_array_equal(statistics.num, len(plain.reward) + begun)


def test_a_normaliser_over_a_normaliser_sees_what_that_one_showed():
    twice = random_rollout(w.normalize_observations(w.normalize_observations(walk()))).transitions
    check_normalized(rollout_of("normalize_observations").transitions, twice)


def test_rewards_are_divided_by_the_deviation_of_the_discounted_return():
    plain, normalized = rollout_of("plain").transitions, rollout_of("normalize_rewards").transitions
    np.testing.assert_array_equal(normalized.obs, plain.obs)
    for b in range(3):
        discounted, total = [], 0.0
        for reward, ended in zip(plain.reward[:, b].astype(np.float64), done(plain)[:, b], strict=True):
            total = 0.99 * total + reward
            discounted.append(total)
            total = 0.0 if ended else total
        deviations = [np.sqrt(np.var(discounted[: t + 1]) + 1e-8) for t in range(len(discounted))]
        np.testing.assert_allclose(normalized.reward[:, b], np.clip(plain.reward[:, b] / deviations, -10, 10), rtol=1e-5)


def test_images_of_bytes_and_planes_become_floats():
    for dtype in (np.uint8, np.bool_):
        env = w.normalize_observations(echo(Box(0, 1, (2, 3), dtype)), clip=2.0)
        check_types(env)
        space = env.observation_space
        assert (space.dtype, space.shape, space.high.max()) == (np.float32, (2, 3), 2.0)


synchronize = jit(w.synchronize)


def seen(x):
    """RunningStatistics `[B]` of environments that have each seen their own `x` `[B, n]`."""
    exact = x.astype(np.float64).mean(axis=1), x.astype(np.float64).var(axis=1)
    rounded = [value.astype(np.float32) for value in exact]
    rests = [(value - near).astype(np.float32) for value, near in zip(exact, rounded, strict=True)]
    num = np.full(len(x), x.shape[1], np.float32)
    return w.RunningStatistics(num, *rounded, *rests, np.zeros_like(num))


def test_synchronised_environments_hold_the_statistics_of_all_and_count_nothing_twice():
    x = np.random.default_rng(0).normal([[5], [-3], [100]], [[1], [4], [0.1]], (3, 40)).astype(np.float32)
    state = synchronize(w.NormalizedRewards((np.arange(3),), seen(x), np.arange(3)))
    for _ in range(2):
        np.testing.assert_allclose(state.statistics.mean, np.full(3, x.mean()), rtol=1e-5)
        np.testing.assert_allclose(state.statistics.variance, np.full(3, x.var()), rtol=1e-5)
        np.testing.assert_allclose(state.statistics.num, 40.0)
        state = synchronize(state)
    np.testing.assert_array_equal(state.discounted_return, [0, 1, 2])
    np.testing.assert_array_equal(state.env[0], [0, 1, 2])
    later = (7 * x + 1)[:, :25]
    both = synchronize(state._replace(statistics=jax.vmap(w.merge)(state.statistics, seen(later)))).statistics
    everything = np.concatenate([x.ravel(), later.ravel()])
    np.testing.assert_allclose(both.mean[0], everything.mean(), rtol=1e-5)
    np.testing.assert_allclose(both.variance[0], everything.var(), rtol=1e-5)
    np.testing.assert_allclose(both.num, 65.0)


def test_frozen_statistics_stay_to_the_bit():
    statistics = seen(np.random.default_rng(0).normal(3, 2, (2, 30)).astype(np.float32))
    frozen = w.freeze({"anything": statistics})["anything"]
    after = jax.vmap(w.merge)(frozen, jax.vmap(statistics_of)(jnp.float32([1e6, -5.0])))
    jax.tree.map(np.testing.assert_array_equal, after, frozen)
    jax.tree.map(np.testing.assert_array_equal, frozen[1:], statistics[1:])


def test_frozen_environments_normalise_by_the_statistics_of_training_in_every_episode():
    env = w.normalize_observations(constant(7.0, limit=3))
    state, _ = env.reset(jax.random.key(0), env.params)
    trained = state._replace(statistics=state.statistics._replace(mean=jnp.zeros(1), variance=jnp.ones(1)))

    def shown(state):
        """The observations of the last step of an episode and of the first of the next, and the state then."""
        _, out = env.step(jax.random.key(0), state, jnp.int32(0), env.params)
        fresh, obs = env.reset(jax.random.key(1), env.params)
        state, next_obs = env.carry_over(state, fresh, obs)
        return [float(out.obs[0]), float(next_obs[0])], state

    frozen = w.freeze(trained)
    for _ in range(3):  # 7 standard deviations from the mean; otherwise the first observation already widens them
        obs, frozen = shown(frozen)
        assert obs == [7.0, 7.0]
    assert max(shown(trained)[0]) < 2.0


def test_the_count_goes_on_beyond_what_float32_can_count_one_by_one():
    """2^24 + 1 is no float32: a plain float32 count stays at 2^24, and each observation weighs too much ever after."""
    x = (3 + np.random.default_rng(0).standard_normal(5001)).astype(np.float32)
    start = w.RunningStatistics(*(np.float32(v) for v in (2**24, 0.5, 2.0, 0, 0, 0)))
    scan = jit(lambda old, x: jax.lax.scan(lambda old, x: (w.merge(old, statistics_of(x)), None), old, x)[0])
    one_by_one = jax.tree.map(lambda x: np.asarray(x, np.float64), scan(start, x))
    chunks = jax.vmap(lambda x: scan(empty_statistics(()), x))(x[:5000].reshape(50, 100))
    merged = jit(lambda: w.merge(w.merge(start, w.merge_all(chunks)), statistics_of(jnp.asarray(x[5000]))))()
    for statistics in (one_by_one, jax.tree.map(lambda x: np.asarray(x, np.float64), merged)):
        num = 2**24 + len(x)
        assert statistics.num + statistics.num_compensation == num
        mean = (2**24 * 0.5 + x.sum(dtype=np.float64)) / num
        square = (2**24 * (2.0 + 0.25) + np.square(x, dtype=np.float64).sum()) / num
        assert abs(statistics.mean + statistics.mean_compensation - mean) < 1e-9
        assert abs(statistics.variance + statistics.variance_compensation - (square - mean**2)) < 1e-9
    shared = w.synchronize(jax.tree.map(lambda x: jnp.stack([x, x]), w.RunningStatistics(*map(jnp.float32, one_by_one))))
    np.testing.assert_array_equal(np.float64(shared.num) + np.float64(shared.num_compensation), [num, num])


def test_of_a_dict_each_box_is_normalised_by_its_own_statistics():
    env_state, normalized = rollout_of("room, normalize_observations")
    plain = rollout_of("room").transitions
    for name in ("position", "image"):
        shape = plain.obs[name].shape
        pick = lambda t, name=name, shape=shape: t._replace(
            obs=t.obs[name].reshape(*shape[:2], -1).astype(np.float32),
            next_obs=t.next_obs[name].reshape(*shape[:2], -1).astype(np.float32),
        )
        check_normalized(pick(plain), pick(normalized))
    for name in ("inside", "pair"):
        jax.tree.map(np.testing.assert_array_equal, normalized.obs[name], plain.obs[name])
    assert env_state.statistics["position"].mean.shape == (3, 2)
    assert env_state.statistics["pair"] == ()


def test_statistics_over_dicts_are_found_and_synchronised():
    state, _ = jax.vmap(w.normalize_observations(room()).reset, (0, None))(jax.random.split(jax.random.key(0), 3), room().params)
    mean = synchronize(state).statistics["position"].mean
    np.testing.assert_allclose(mean, np.tile(np.mean(state.statistics["position"].mean, axis=0), (3, 1)), rtol=1e-5)
    assert np.isinf(w.freeze(state).statistics["image"].num).all()


@pytest.mark.parametrize(
    ("wrap", "error", "message"),
    [
        (
            lambda: w.normalize_observations(echo(Discrete(3))),
            ValueError,
            "needs observations in a Box, got Discrete.*one_hot first",
        ),
        (lambda: w.normalize_observations(walk(), clip=-1.0), ValueError, r"clip must lie in \[0, inf\], got -1"),
        (
            lambda: jax.eval_shape(lambda c: w.normalize_observations(walk(), clip=c), 1.0),
            TypeError,
            "clip bounds the observation",
        ),
        (lambda: w.normalize_rewards(walk(), discount=1.1), ValueError, r"discount must lie in \[0, 1\], got 1.1"),
        (lambda: w.normalize_rewards(walk(), clip=-1.0), ValueError, "clip must lie in"),
    ],
)
def test_wrong_values_are_refused(wrap, error, message):
    with pytest.raises(error, match=message):
        wrap()


def test_without_a_clip_the_space_is_unbounded():
    assert not w.normalize_observations(walk(), clip=np.inf).observation_space.bounded
