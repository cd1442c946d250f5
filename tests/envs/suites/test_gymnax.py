"""gymnax's environments against gymnax itself, and the corrections of their quirks."""

import zlib
from functools import partial
from pathlib import Path

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.wrappers import FlattenObservationWrapper

import jaxrl
from jaxrl import envs
from jaxrl.envs.suites.adapter import lenient, narrow
from jaxrl.envs.suites.gymnax import CORRECTIONS, REFUSED, from_gymnax, names
from jaxrl.envs.wrappers import randomize_params, uniform_params
from jaxrl.networks import Encoder
from jaxrl.spaces import Box, Discrete
from tests.envs.suites.common import run_with_x64

PAGE = Path(__file__).parents[3] / "docs" / "gymnax.md"
MINATAR = [name for name in names() if name.endswith("-MinAtar")]
CHEAP = ["Breakout-MinAtar", "DeepSea-bsuite", "CartPole-v1"]  # planes, both flags at once, physics
# Their arithmetic is fused differently in the two copies: the last bit may differ. All others are equal bit for bit.
ROUNDED = {"CartPole-v1", "Acrobot-v1"}
SHORTER = {"Freeway-MinAtar": {"max_steps_in_episode": 300}}  # no episode would end within the test


def theirs_of(name, **overrides):
    with lenient():
        env, params = gymnax.make(name)
    return env, params.replace(**overrides)


def random_action(space, key):
    if isinstance(space, Discrete):
        return jax.random.randint(key, (), 0, space.n)
    return jax.random.uniform(key, space.shape, minval=space.low, maxval=space.high).astype(space.dtype)


def contains(space, obs):
    if isinstance(space, Discrete):
        return np.issubdtype(obs.dtype, np.integer) and np.all((obs >= 0) & (obs < space.n))
    return obs.dtype == space.dtype and np.all((obs >= space.low) & (obs <= space.high))


@partial(jax.jit, static_argnums=0)
def play(env, actions):
    """The first observation and the steps of `actions`, from one start, without a reset."""
    state, obs = env.reset(jax.random.key(0), env.params)
    keys = jax.random.split(jax.random.key(1), actions.shape[0])
    return obs, jax.lax.scan(lambda state, x: env.step(x[0], state, x[1], env.params), state, (keys, actions))[1]


def compare(name, num_steps, num_seeds):
    """Both over random steps, also where gymnax resets: pairs (ours, theirs) for the first observation and each of `Step`."""
    overrides = SHORTER.get(name, {})
    env, (theirs, params) = jaxrl.make(name, **overrides), theirs_of(name, **overrides)

    def run(key):
        reset_key, run_key = jax.random.split(key)
        with lenient():
            obs, state = theirs.reset(reset_key, params)
        own_state, own_obs = env.reset(reset_key, env.params)

        def step(state, key):
            action_key, step_key = jax.random.split(key)
            action = random_action(env.action_space, action_key)
            with lenient():
                _, after, reward, terminated, truncated, info = theirs.step(step_key, state, narrow(action), params)
            inner_key, _ = jax.random.split(step_key)  # as gymnax does inside
            # Both step from gymnax's state: chaotic dynamics would magnify the last bit of the step before.
            own, out = env.step(inner_key, state, action, env.params)
            their_step = (info["final_observation"], reward, terminated, truncated)
            return jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), after, own), (out, their_step)

        state = jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), state, own_state)
        return (own_obs, obs), jax.lax.scan(step, state, jax.random.split(run_key, num_steps))[1]

    first, (out, their_step) = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), num_seeds))
    return env, jax.tree.map(np.asarray, first), jax.tree.map(np.asarray, list(zip(out, their_step, strict=True)))


def check_steps(name, num_steps, num_seeds):
    env, first, (obs, reward, terminated, truncated) = compare(name, num_steps, num_seeds)
    tolerance = {"rtol": 1e-6, "atol": 1e-6} if name in ROUNDED else {"rtol": 0, "atol": 0}
    for own, their in (first, obs, reward):
        np.testing.assert_allclose(np.asarray(own, np.float64), np.asarray(their, np.float64), **tolerance)
    for own, their in (terminated, truncated):
        np.testing.assert_array_equal(own, their)
    for own, their in (first, obs):
        assert contains(env.observation_space, own)
        assert own.dtype == (np.bool_ if name in MINATAR else their.dtype)
    assert reward[0].dtype == np.float32
    assert np.any(terminated[0] | truncated[0])


@pytest.mark.parametrize("name", CHEAP)
def test_steps_equal_gymnax_step_by_step(name):
    check_steps(name, 120, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_a_thousand_random_steps_of_32_seeds_equal_gymnax(name):
    check_steps(name, 1000, 32)


@pytest.mark.parametrize("name", names())
def test_every_environment_has_stable_types_and_spaces_of_ours(name):
    """Under `vmap` over parameters, and for actions of any integer dtype."""
    env = jaxrl.make(name)
    key = jax.random.key(0)
    params = jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x), (2, *np.shape(x))), env.params)
    state, obs = jax.eval_shape(jax.vmap(env.reset, (None, 0)), key, params)
    action = jax.ShapeDtypeStruct(env.action_space.shape, np.uint8 if isinstance(env.action_space, Discrete) else np.float32)
    after, out = jax.eval_shape(jax.vmap(env.step, (None, 0, None, 0)), key, state, action, params)
    for old, new in zip(jax.tree.leaves((state, obs)), jax.tree.leaves((after, out.obs)), strict=True):
        assert (old.shape, old.dtype, old.weak_type) == (new.shape, new.dtype, new.weak_type)
        assert not new.weak_type
    assert (out.reward.shape, out.reward.dtype) == ((2,), jnp.float32)
    for flag in (out.terminated, out.truncated):
        assert (flag.shape, flag.dtype) == ((2,), jnp.bool_)
    assert (env.observation_space.shape, env.observation_space.dtype) == (obs.shape[1:], obs.dtype)
    assert isinstance(env.observation_space, Discrete | Box)
    assert isinstance(env.action_space, Discrete | Box)
    assert env.name == name
    assert isinstance(env.params.max_steps_in_episode, int)


def test_the_time_limit_truncates_and_does_not_terminate():
    env = jaxrl.make("Pendulum-v1", max_steps_in_episode=3)
    _, steps = play(env, jnp.zeros((3, 1)))
    assert not np.any(steps.terminated)
    assert steps.truncated.tolist() == [False, False, True]


def test_64_bits_outside_change_nothing_inside():
    """gymnax itself fails with `jax_enable_x64` in these: the same bits come out, also from strict promotion outside."""
    names = ["Freeway-MinAtar", "DiscountingChain-bsuite", "MetaMaze-misc", "GaussianBandit-misc", "CartPole-v1"]
    code = f"""
import jax, jax.numpy as jnp, numpy as np
import jaxrl
from tests.envs.suites.test_gymnax import digest
jax.config.update("jax_numpy_dtype_promotion", "strict")
assert jax.config.jax_enable_x64
for name in {names}:
    print(name, digest(jaxrl.make(name)))
"""
    assert run_with_x64(code).splitlines() == [f"{name} {digest(jaxrl.make(name))}" for name in names]


def digest(env):
    """Dtypes and bits of the space's bounds, and of a short episode whose parameters are traced."""

    def short(params):
        state, obs = env.reset(jax.random.key(0), params)
        keys = jax.random.split(jax.random.key(1), 12)
        return obs, jax.lax.scan(lambda state, key: env.step(key, state, jnp.int32(0), params), state, keys)[1]

    leaves = [env.observation_space.low, env.observation_space.high, *jax.tree.leaves(jax.jit(short)(env.params))]
    return [(str(x.dtype), zlib.crc32(np.asarray(x).tobytes())) for x in leaves]


# --- spaces and dtypes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "overrides", "low", "high"),
    [
        ("MemoryChain-bsuite", {"num_bits": 3}, [0, 0, -1, -1, -1], [1, 2, 1, 1, 1]),
        ("UmbrellaChain-bsuite", {"n_distractor": 2}, [0] * 5, [1] * 5),
        ("MetaMaze-misc", {"punishment": -3.0}, [0] * 13 + [-3, 0], [1] * 13 + [10, 200]),
        ("MetaMaze-misc", {"normalize_time": True}, [0] * 13 + [0, -1], [1] * 13 + [10, 3]),
        ("BernoulliBandit-misc", {}, [0, 0, 0, -1], [1, 1, 1, 1]),
        ("BernoulliBandit-misc", {"t_max": 50}, [0, 0, 0, -1], [1, 1, 1, 3]),
        ("GaussianBandit-misc", {}, [-np.inf, 0, 0, -1], [np.inf, 1, 1, 1]),
        ("GaussianBandit-misc", {"normalize_time": False}, [-np.inf, 0, 0, 0], [np.inf, 1, 1, 100]),
        ("CartPole-v1", {}, [-4.8, -np.inf, -24 * np.pi / 180, -np.inf], [4.8, np.inf, 24 * np.pi / 180, np.inf]),
        ("Reacher-misc", {}, [-np.inf] * 8, [np.inf] * 8),
        ("FourRooms-misc", {}, [1] * 4, [11] * 4),
    ],
)
def test_bounds_are_true_ones(name, overrides, low, high):
    space = jaxrl.make(name, **overrides).observation_space
    np.testing.assert_allclose(space.low, low, atol=2e-6)
    np.testing.assert_allclose(space.high, high, atol=2e-6)


def test_the_bounds_of_a_bandit_are_reached_and_kept():
    """Time is the last of its observations: scaled to 1 at `t_max`, it goes on beyond."""
    env = jaxrl.make("BernoulliBandit-misc", max_steps_in_episode=6, t_max=4)
    first, steps = play(env, jnp.zeros(6, jnp.int32))
    obs = np.asarray(jnp.concatenate([first[None], steps.obs]))
    np.testing.assert_allclose(obs[:, -1], [-1, -0.5, 0, 0.5, 1, 1.5, 2], atol=1e-6)
    assert contains(env.observation_space, obs)
    assert steps.reward.dtype == jnp.float32
    assert steps.truncated.tolist() == [False] * 5 + [True]


def test_bounds_leave_room_for_rounding():
    """1 − t / 10 is 0 at the end but for the last bit: XLA multiplies by 0.1 instead."""
    env = jaxrl.make("UmbrellaChain-bsuite")
    _, steps = play(env, jnp.ones(10, jnp.int32))
    assert steps.terminated.tolist() == [False] * 9 + [True]
    assert contains(env.observation_space, np.asarray(steps.obs))


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.float32])
def test_observations_keep_their_dtype_and_get_a_space_whatever_is_declared(dtype):
    class Odd(type(theirs_of("CartPole-v1")[0])):
        name = "Odd"

        def get_obs(self, state, params=None, key=None):
            return jnp.zeros(2, dtype)

        def observation_space(self, params):
            return gymnax.environments.spaces.Box(-jnp.inf, jnp.finfo(jnp.float32).max, (2,), jnp.float32)

    space = from_gymnax(Odd()).observation_space
    low, high = (-np.inf, np.inf) if dtype == np.float32 else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    assert (space.shape, space.dtype, space.low[0], space.high[0]) == ((2,), dtype, low, high)


def test_planes_are_bits_in_the_replay():
    env = jaxrl.make("Breakout-MinAtar")
    assert str(env.observation_space) == "Box(0 … 1, [10, 10, 4], bool)"
    network = jaxrl.networks.q_network(env.observation_space, env.action_space)
    agent = jaxrl.agents.dqn(network, env.action_space, capacity=64, batch_size=16)
    obs = jax.ShapeDtypeStruct((1, 10, 10, 4), jnp.bool_)
    rows = jax.eval_shape(lambda obs: agent.init(jax.random.key(0), obs, agent.hparams).replay.rows, obs)
    words = -(-(2 * 400 + 2) // 32) + 2  # two observations and two flags as bits; action and reward
    assert (rows.size, rows.dtype) == (64 * words, jnp.uint32)


def test_networks_take_bools_integers_and_positions():
    def features(name, obs):
        return Encoder(jaxrl.make(name).observation_space).apply({}, obs)

    planes = jax.random.bernoulli(jax.random.key(0), 0.5, (3, 10, 10, 4))
    np.testing.assert_array_equal(features("Breakout-MinAtar", planes), planes.reshape(3, 400).astype(np.float32))
    np.testing.assert_array_equal(features("FourRooms-misc", jnp.array([[4, 1, 6, 11]])), np.float32([[0.3, 0, 0.5, 1]]))
    np.testing.assert_array_equal(features("FrozenLake-misc", jnp.array([5, 0])), np.eye(16, dtype=np.float32)[[5, 0]])


# --- parameters --------------------------------------------------------------------------------------


def test_overrides_are_parameters():
    assert jaxrl.make("CartPole-v1", gravity=5).params.gravity == 5.0
    assert jaxrl.make("CartPole-v1", gravity=jnp.float32(5.0)).params.gravity == 5.0
    torque = jaxrl.make("Acrobot-v1", available_torque=[-2, 0, 2]).params.available_torque
    np.testing.assert_array_equal(torque, np.float32([-2, 0, 2]))


def test_defaults_are_those_of_gymnax():
    for name in names():
        for own, their in zip(jax.tree.leaves(jaxrl.make(name).params), jax.tree.leaves(theirs_of(name)[1]), strict=True):
            np.testing.assert_array_equal(own, their)


def test_what_follows_from_a_parameter_is_computed_anew_unless_given():
    params = jaxrl.make("CartPole-v1", length=2.0, masspole=0.5, masscart=3.0).params
    assert (params.total_mass, params.polemass_length) == (3.5, 1.0)
    params = jaxrl.make("CartPole-v1", length=2.0, polemass_length=0.7).params
    assert (params.total_mass, params.polemass_length) == (1.1, 0.7)
    assert jaxrl.make("BernoulliBandit-misc", max_steps_in_episode=20).params.t_max == 20


def test_what_follows_from_a_parameter_follows_wherever_that_comes_from():
    """From `make`, from other `params`, and from a wrapper that draws them; a value that `make` was given stays."""

    def successor(env):
        state, _ = env.reset(jax.random.key(0), env.params)
        return env.step(jax.random.key(1), state, jnp.int32(1), env.params)[1].obs

    changes = {"length": 2.0, "masscart": 3.0, "masspole": 0.5}
    env, changed = jaxrl.make("CartPole-v1"), jaxrl.make("CartPole-v1", **changes)
    replaced = env._replace(params=env.params.replace(**changes))
    np.testing.assert_allclose(successor(replaced), successor(changed), rtol=1e-6)
    assert not np.allclose(successor(env), successor(changed))
    drawn = randomize_params(env, uniform_params(**{name: (value, value) for name, value in changes.items()}))
    state, _ = drawn.reset(jax.random.key(0), drawn.params)
    after = drawn.step(jax.random.key(1), state, jnp.int32(1), drawn.params)[1].obs
    wanted = changed.step(jax.random.key(1), state.env, jnp.int32(1), changed.params)[1].obs
    np.testing.assert_allclose(after, wanted, rtol=1e-6)
    heavy = jaxrl.make("CartPole-v1", total_mass=9.0)
    heavier = heavy._replace(params=heavy.params.replace(masscart=3.0))
    np.testing.assert_array_equal(successor(heavy), successor(heavier))


def test_parameters_may_be_traced_and_batched():
    """`vmap` over a function that makes the environment, and over its record of parameters, equals making each."""
    lengths = jnp.array([0.25, 0.5, 1.5])

    def first_step(env, params):
        state, _ = env.reset(jax.random.key(0), params)
        return env.step(jax.random.key(1), state, jnp.int32(1), params)[1].obs

    def made(length):
        env = jaxrl.make("CartPole-v1", length=length)
        return env.params, first_step(env, env.params)

    each = np.stack([made(float(length))[1] for length in lengths])
    params, traced = jax.jit(jax.vmap(made))(lengths)
    np.testing.assert_allclose(traced, each, rtol=1e-6)
    env = jaxrl.make("CartPole-v1")
    full = jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x), (3,)), params)
    np.testing.assert_allclose(jax.vmap(partial(first_step, env))(full), each, rtol=1e-6)
    assert np.ptp(each[:, 3]) > 0.1


def test_a_traced_parameter_in_a_bound_is_refused_with_the_way_out():
    with pytest.raises(
        ValueError, match=r"Pendulum-v1: the bounds of its spaces depend on .* traced \(g, max_torque\).*_replace"
    ):
        jax.vmap(lambda x: jaxrl.make("Pendulum-v1", g=x, max_torque=x).params.g)(jnp.ones(2))
    with pytest.raises(ValueError, match=r"MetaMaze-misc: the bounds .* traced \(reward\)"):
        jax.jit(lambda x: jaxrl.make("MetaMaze-misc", reward=x).params.reward)(1.0)


def test_arguments_of_a_constructor_are_overrides_too():
    lake = jaxrl.make("FrozenLake-misc", map_name="8x8", is_slippery=False)
    assert (lake.observation_space, lake.params.max_steps_in_episode) == (Discrete(64), 200)
    sea = jaxrl.make("DeepSea-bsuite", size=3, unscaled_move_cost=0.5)
    assert (sea.observation_space.shape, sea.params.max_steps_in_episode, sea.params.unscaled_move_cost) == ((3, 3), 3, 0.5)
    assert jaxrl.make("Breakout-MinAtar", use_minimal_action_set=False).action_space == Discrete(6)


@pytest.mark.parametrize(
    ("name", "overrides", "error", "message"),
    [
        ("CartPole-v1", {"lenght": 1.0}, ValueError, "CartPole-v1 has no parameter lenght; it has max_steps_in_episode, gravity"),
        ("CartPole-v1", {"length": None}, TypeError, "CartPole-v1: length must be a number, got None"),
        ("CartPole-v1", {"length": "1"}, TypeError, "CartPole-v1: length must be a number, got '1'"),
        ("CartPole-v1", {"length": True}, TypeError, "CartPole-v1: length must be a number, got True"),
        ("CartPole-v1", {"length": np.nan}, ValueError, "CartPole-v1: length must be above 0, got nan"),
        ("CartPole-v1", {"length": 0.0}, ValueError, "CartPole-v1: length must be above 0, got 0.0"),
        ("CartPole-v1", {"gravity": np.nan}, ValueError, r"CartPole-v1: gravity must lie in \[-inf, inf\], got nan"),
        ("CartPole-v1", {"length": [0.5, 1.0]}, ValueError, r"length must have the shape \[\], got \[2\]; .* vmap"),
        ("CartPole-v1", {"max_steps_in_episode": -1}, ValueError, r"max_steps_in_episode must lie in \[1, 2.1\S*\], got -1"),
        ("CartPole-v1", {"max_steps_in_episode": 0}, ValueError, "max_steps_in_episode must lie in"),
        ("CartPole-v1", {"max_steps_in_episode": 10.5}, TypeError, "max_steps_in_episode must be an int, got 10.5"),
        ("CartPole-v1", {"max_steps_in_episode": 2**31}, ValueError, "max_steps_in_episode must lie in"),
        ("BernoulliBandit-misc", {"max_steps_in_episode": 50.0}, TypeError, "max_steps_in_episode must be an int, got 50.0"),
        ("BernoulliBandit-misc", {"normalize_time": 1}, TypeError, "normalize_time must be True or False, got 1"),
        ("BernoulliBandit-misc", {"reward_prob": 1.5}, ValueError, r"reward_prob must lie in \[0, 1\], got 1.5"),
        ("FourRooms-misc", {"fail_prob": 0.9}, ValueError, r"fail_prob must lie in \[0, 0.75\], got 0.9"),
        ("MemoryChain-bsuite", {"memory_length": 0}, ValueError, "memory_length must lie in"),
        ("Acrobot-v1", {"available_torque": [1.0]}, ValueError, r"available_torque must have the shape \[3\], got \[1\]"),
        ("MountainCar-v0", {"min_position": 1.0}, ValueError, r"MountainCar-v0 with .*min_position.* low must be at most high"),
        ("DeepSea-bsuite", {"size": 0}, ValueError, "DeepSea-bsuite: size must be at least 1, got 0"),
        ("DiscountingChain-bsuite", {"mapping_seed": 5}, ValueError, "mapping_seed must be at most 4, got 5"),
        ("DeepSea-bsuite", {"size": 4.0}, TypeError, "DeepSea-bsuite: size must be an int, got 4.0"),
        ("FrozenLake-misc", {"is_slippery": "no"}, TypeError, "FrozenLake-misc: is_slippery must be True or False, got 'no'"),
        ("FrozenLake-misc", {"map_name": "9x9"}, ValueError, "FrozenLake-misc cannot be made with .*9x9.*map_name must be '4x4'"),
        ("Reacher-misc", {"num_joints": 3}, ValueError, "Reacher-misc: num_joints is refused: its observations fit two"),
        ("MNISTBandit-bsuite", {}, ValueError, "MNISTBandit-bsuite of gymnax is refused: it downloads its data set"),
    ],
)
def test_wrong_overrides_are_errors_that_name_them(name, overrides, error, message):
    with pytest.raises(error, match=message):
        jaxrl.make(name, **overrides)


def test_wrong_names_are_refused():
    with pytest.raises(ValueError, match=r"unknown environment 'cartpole'; did you mean CartPole-v1"):
        jaxrl.make("cartpole")
    with pytest.raises(ValueError, match=r"unknown environment 'zzzz'; there are PointMass, .*CartPole-v1"):
        jaxrl.make("zzzz")


def test_a_wrapped_environment_is_refused_and_ours_is_named():
    with pytest.raises(
        TypeError, match=r"bare gymnax environment, got FlattenObservationWrapper.*jaxrl\.envs\.wrappers\.flatten"
    ):
        from_gymnax(FlattenObservationWrapper(gymnax.make("Catch-bsuite")[0]))


def test_what_a_user_registers_is_found(monkeypatch):
    monkeypatch.setattr(gymnax, "registered_envs", [*gymnax.registered_envs, "Mine-v0"])
    assert "Mine-v0" in names()


# --- all of them ---------------------------------------------------------------------------------------


def test_the_page_has_a_row_for_every_environment_and_names_what_is_refused():
    page = PAGE.read_text()
    rows = {line.split("|")[1].strip().strip("`"): line for line in page.splitlines() if line.startswith("| `")}
    assert {*names(), *REFUSED} <= {*rows}
    for name, correction in CORRECTIONS.items():
        for word in (*correction.derived, *correction.refused):
            assert f"`{word}`" in rows[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", envs.names())
def test_every_environment_trains_with_the_default_network(name):
    """Two seeds under `jit` and `vmap`: DQN where actions are Discrete, REINFORCE where they are a Box."""
    env = jaxrl.make(name)
    if isinstance(env.action_space, Discrete):
        network = jaxrl.networks.q_network(env.observation_space, env.action_space)
        agent, rollout_length = jaxrl.agents.dqn(network, env.action_space, batch_size=16, capacity=64, warmup=4), 1
    else:
        network = jaxrl.networks.policy(env.observation_space, env.action_space, value=True)
        agent, rollout_length = jaxrl.agents.reinforce(network, env.action_space, mode="continuing", baseline="value"), 8
    learner = jaxrl.make_learner(env, agent, num_envs=4, rollout_length=rollout_length)
    train = jax.jit(jax.vmap(lambda key: jaxrl.train(key, learner, 20, log_every=20)))
    state, metrics = train(jax.random.split(jax.random.key(0), 2))
    for x in jax.tree.leaves((state.agent.params, metrics["loss"])):
        assert np.all(np.isfinite(x))
    start = jax.vmap(lambda key: learner.init(key, agent.hparams))(jax.random.split(jax.random.key(0), 2))
    for before, after in zip(jax.tree.leaves(start.agent.params), jax.tree.leaves(state.agent.params), strict=True):
        assert np.all(np.any(before != after, axis=tuple(range(1, before.ndim)))), "every layer of every seed was trained"
    assert state.obs.dtype == env.observation_space.dtype
