"""`check_environment`: a sound environment passes, and each planted mistake is found, with its fix."""

import random
from functools import partial

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import check_environment
from jaxrl.types import Box, Discrete, Environment, Step
from tests import problems
from tests.envs.validation.common import SOUND, Params, State, finds, reset, step, with_more, with_step


@pytest.fixture
def without_random_play(monkeypatch):
    """For mistakes that tracing finds, where the environment could still be run."""
    monkeypatch.setattr("jaxrl.envs.validation.environment.check_random_play", lambda env, num_steps: [])


# --- no false alarm ------------------------------------------------------------------------------


def lottery():
    """No state at all: what follows an end looks like a start, as everything does. Its observations are bits."""

    def step(key, state, action, params):
        lost = jax.random.key_data(key)[-1] < jnp.uint32(2**29)
        return (), Step(lost[None], jnp.float32(1), lost, jnp.bool_(False))

    space = Box(False, True, (1,), np.bool_)
    return Environment(lambda key, params: ((), jnp.zeros(1, bool)), step, (), space, Discrete(2), "lottery")


@pytest.mark.parametrize(
    "env",
    [
        SOUND,
        lottery(),
        problems.endless(),
        problems.countdown(),
        jaxrl.make("PointMass", noise_scale=0.1),
        jaxrl.envs.wrappers.episode_statistics(SOUND)._replace(name="NaN before the first episode"),
    ],
    ids=lambda env: env.name,
)
def test_a_sound_environment_passes(env):
    assert check_environment(env, num_steps=100) == []


# --- what tracing shows --------------------------------------------------------------------------


def test_a_branch_in_python_is_named_with_its_line():
    def branching(key, state, action, params):
        if action == 1:
            return step(key, state, action, params)
        return step(key, state, 1 - action, params)

    finds(SOUND._replace(step=branching), "step branches in Python (if, while, and, or, min, max) on a value that is traced")
    with pytest.raises(ValueError, match=r"test_check_environment\.py, line \d+: if action == 1:"):
        check_environment(SOUND._replace(step=branching))


@pytest.mark.parametrize(
    ("take", "message"),
    [
        (lambda state: np.sin(state.x), "passes a traced value to NumPy"),
        (lambda state: float(state.x), "needs the concrete value of a traced array"),
        (lambda state: [0.0, 1.0][state.time], "uses a traced value as a Python int"),
        (lambda state: state.x[None][state.x[None] > 0].sum(), "selects by a mask"),
        (lambda state: state.y, "step raises AttributeError: 'State' object has no attribute 'y'"),
    ],
)
def test_what_cannot_be_compiled_is_told_apart(take, message):
    finds(with_step(lambda key, old, state, out: (state, out._replace(reward=take(state)))), message)


def test_what_cannot_be_batched():
    @jax.custom_batching.custom_vmap
    def solve(x):
        return x

    @solve.def_vmap
    def rule(axis_size, in_batched, x):
        raise NotImplementedError("no rule for a batch")

    env = with_step(lambda key, old, state, out: (state, out._replace(reward=solve(out.reward))))
    finds(env, "step cannot be batched by vmap: NotImplementedError: no rule for a batch")


class Counter:
    def __init__(self):
        self.calls = 0

    def step(self, key, state, action, params):
        self.calls += 1
        return step(key, state, action, params)


class Called(Counter):
    def __call__(self, *args):
        return self.step(*args)


def count(log, *args):
    log["calls"] += 1
    return step(*args)


def test_side_effects_in_python():
    log = []

    def logging(key, old, state, out):
        log.append(out.reward)
        return state, out

    finds(with_step(logging), "step changes change.log, which is outside")
    finds(SOUND._replace(step=Counter().step), "step changes self.calls, which is outside of it")
    finds(SOUND._replace(step=jax.jit(Counter().step)), "step changes self.calls")
    finds(SOUND._replace(step=Called()), "step changes self.calls")
    finds(SOUND._replace(step=partial(count, {"calls": 0})), "step changes args[0]")


def test_numbers_that_are_drawn_while_tracing():
    noisy = with_step(lambda key, old, state, out: (state, out._replace(reward=out.reward + random.random())))
    finds(noisy, "step is another program when it is traced again, so it depends on something outside of it")


def test_a_callback():
    def called(key, old, state, out):
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return state, out._replace(reward=jax.pure_callback(np.abs, shape, out.reward, vmap_method="sequential"))

    finds(with_step(called), "step calls back into Python")


@pytest.mark.parametrize("look", [lambda x: jax.debug.callback(print, x), lambda x: jax.debug.print("{}", x)])
def test_a_callback_that_only_looks(look):
    def looked_at(key, old, state, out):
        look(out.reward)
        return state, out

    finds(with_step(looked_at), "step calls back into Python")


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (
            lambda state, out: (state._replace(time=state.time.astype(jnp.float32)), out),
            ["step returns env_state.time as a float32 scalar, and reset as a int32 scalar"],
        ),
        (
            lambda state, out: (state._replace(x=state.x[None]), out),
            ["step returns env_state.x as float32[1], and reset as a float32 scalar"],
        ),
        (lambda state, out: (tuple(state), out), ["step returns a state of another structure than reset"]),
        (lambda state, out: (state, out._replace(obs=out.obs[0])), ["step returns the observation a float32 scalar, and"]),
        (lambda state, out: (state, out._replace(obs=state)), ["step returns a State as observation"]),
    ],
)
def test_types_and_shapes_that_drift(change, messages):
    finds(with_step(lambda key, old, state, out: change(state, out)), *messages)


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ({"reward": 1.0}, ["step returns Step.reward as a weakly typed float32"]),
        ({"reward": jnp.int32(1)}, ["step returns reward as a int32 scalar, and it must be a float32 scalar"]),
        ({"reward": jnp.ones(1)}, ["step returns reward as float32[1]"]),
        ({"terminated": jnp.float32(0)}, ["step returns terminated as a float32 scalar, and it must be a bool scalar"]),
        (
            {"terminated": 0, "truncated": 0},
            [
                "terminated as a int32",
                "truncated as a int32",
                "Step.terminated as a weakly",
                "Step.truncated as a weakly",
            ],
        ),
    ],
)
def test_rewards_and_flags_of_another_type(change, messages):
    unread = "reads params.limit" if "truncated" in change else None
    finds(with_step(lambda key, old, state, out: (state, out._replace(**change))), *messages, remark=unread)


def test_weak_types_of_the_state():
    weak = SOUND._replace(reset=lambda key, params: (State(reset(key, params)[0].x, 0), reset(key, params)[1]))
    finds(weak, "reset returns env_state.time as a weakly typed int32, like a Python number", "step returns env_state.time")


def test_results_in_another_order():
    swapped = SOUND._replace(reset=lambda key, params: reset(key, params)[::-1])
    finds(swapped, "reset returns the observation first and the state second")
    gymnax_style = SOUND._replace(step=lambda *args: (step(*args)[1].obs, step(*args)[0], 0.0, False, {}))
    finds(gymnax_style, "step returns 5 values, not 2")
    finds(with_step(lambda key, old, state, out: (state, tuple(out))), "step returns the state and a tuple, not a Step")
    finds(SOUND._replace(reset=lambda key: reset(key, Params())), "reset raises TypeError")


def test_parameters_that_nothing_reads_are_a_remark(without_random_play):
    baked = SOUND._replace(step=lambda key, state, action, params: step(key, state, action, Params()))
    (remark,) = check_environment(baked)
    assert "neither reset nor step reads params.drift, params.limit, so changing it has no effect" in remark
    half = SOUND._replace(step=lambda key, state, action, params: step(key, state, action, Params()._replace(drift=params.drift)))
    (remark,) = check_environment(half)
    assert "reads params.limit," in remark


def test_spaces_of_another_library():
    finds(SOUND._replace(action_space=gymnasium.spaces.Discrete(2)), "action_space is a gymnasium.spaces.discrete.Discrete")


def keeping(carry_over):
    """An environment that counts all its steps besides those of the episode, and what happens to its state at a reset."""
    return with_more(lambda key: jnp.int32(0), lambda age, out: (age + 1, out))._replace(carry_over=carry_over)


def test_what_outlives_an_episode():
    assert check_environment(keeping(lambda old, fresh, obs: (fresh._replace(more=old.more), obs)), num_steps=100) == []
    finds(keeping(lambda old, fresh: fresh), "carry_over raises TypeError")
    as_float = keeping(lambda old, fresh, obs: (fresh._replace(more=old.state.x), obs))
    finds(as_float, "carry_over returns env_state.more as a float32")
    finds(keeping(lambda old, fresh, obs: obs), "carry_over returns a ")
    at_once = keeping(lambda old, fresh, obs: (fresh._replace(state=fresh.state._replace(time=old.state.time)), obs))
    finds(at_once, "the episodes that carry_over begins end after one step", num_steps=100)
    nan = keeping(lambda old, fresh, obs: (fresh, jnp.log(0 * obs)))
    finds(nan, "carry_over returns NaN or infinity", "observations leave", num_steps=100)

    def called(old, fresh, obs):
        jax.debug.print("{}", old.more)
        return fresh, obs

    finds(keeping(called), "carry_over calls back into Python")


# --- what random actions show --------------------------------------------------------------------


def resetting(step):
    """As gymnax steps: where the episode ended, the state is that of the next one."""

    def changed(key, state, action, params):
        key, reset_key = jax.random.split(key)
        state, out = step(key, state, action, params)
        fresh, obs = reset(reset_key, params)
        done = out.terminated | out.truncated
        state = jax.tree.map(lambda x, y: jnp.where(done, x, y), fresh, state)
        return state, out._replace(obs=jnp.where(done, obs, out.obs))

    return changed


def test_a_reset_inside_step():
    finds(
        SOUND._replace(step=resetting(step)), "step resets: after the end of an episode it returns a fresh state", num_steps=100
    )


def test_a_reset_inside_step_that_keeps_something():
    """Wins counted over the episodes: the state after an end is not a fresh one, but its step counter goes back."""
    ended = lambda num, out: (num + (out.terminated | out.truncated).astype(jnp.int32), out)
    finds(with_more(lambda key: jnp.int32(0), ended, resetting(step)), "step resets", num_steps=100)


def test_a_reset_inside_step_without_a_counter():
    def timeless(key, state, action, params):
        state, out = step(key, state, action, params)
        return state._replace(time=jnp.int32(0)), out._replace(truncated=jnp.bool_(False))

    sound = SOUND._replace(step=timeless, params=Params(drift=0.5, limit=0))
    unread = "neither reset nor step reads params.limit"
    (remark,) = check_environment(sound, num_steps=100)
    assert unread in remark
    finds(sound._replace(step=resetting(timeless)), "step resets", remark=unread, num_steps=100)


def test_the_observation_of_a_reset_at_the_end():
    """The state is the true successor, and a value would be bootstrapped from the observation."""

    def changed(key, state, action, params):
        after, out = step(key, state, action, params)
        _, obs = reset(key, params)
        return after, out._replace(obs=jnp.where(out.terminated | out.truncated, obs, out.obs))

    finds(
        SOUND._replace(step=changed),
        "step resets: after the end of an episode it returns a fresh observation",
        num_steps=100,
    )


@pytest.mark.parametrize(
    ("obs", "space", "message"),
    [
        (
            lambda state: state.time,
            Discrete(20),
            "observations leave observation_space: they go from 0 to 20, its bounds from 0 to 19",
        ),
        (
            lambda state: state.time + 149_990,
            Discrete(150_010),
            "they go from 149990 to 150010, its bounds from 0 to 150009",  # of integers, no part of the range is rounding
        ),
        (lambda state: jnp.stack([state.x, -jnp.abs(state.x)]), Box([-2, -0.5], 2, (2,)), "at [1], its bounds from -0.5 to 2"),
    ],
)
def test_observations_outside_their_space(obs, space, message):
    def first(key, params):
        state, _ = reset(key, params)
        return state, obs(state)

    env = with_step(lambda key, old, state, out: (state, out._replace(obs=obs(state))), reset=first, observation_space=space)
    finds(env, message, num_steps=100)


def either_way(out):
    return out._replace(terminated=out.terminated | out.truncated, truncated=jnp.bool_(False))


def one_flag_for_both(out):
    return out._replace(terminated=out.terminated | out.truncated, truncated=out.terminated | out.truncated)


@pytest.mark.parametrize(("flags", "limit"), [(either_way, 5000), (one_flag_for_both, 20)])
def test_a_time_limit_that_terminates(flags, limit):
    """Also a limit beyond the steps that are taken."""
    env = with_step(lambda key, old, state, out: (state, flags(out)), params=Params(limit=limit))
    finds(
        env, "terminated is set by the number of steps (env_state.time), which no observation shows: a time limit", num_steps=100
    )


def test_a_limit_that_counts_down_and_terminates():
    def first(key, params):
        state, obs = reset(key, params)
        return state._replace(time=jnp.asarray(params.limit, jnp.int16)), obs

    def down(key, state, action, params):
        after, out = step(key, state, action, params)
        time = state.time - jnp.int16(1)
        return State(after.x, time), out._replace(terminated=out.terminated | (time <= 0), truncated=jnp.bool_(False))

    finds(SOUND._replace(reset=first, step=down), "terminated is set by the number of steps (env_state.time)", num_steps=100)


@pytest.mark.parametrize(
    ("dtype", "pace", "limit"), [(jnp.uint32, 1, 5000), (jnp.uint8, 1, 200), (jnp.float32, 0.05, 3.0), (jnp.int32, 2, 5000)]
)
def test_a_limit_by_a_counter_of_any_dtype(dtype, pace, limit):
    def first(key, params):
        state, obs = reset(key, params)
        return state._replace(time=dtype(0)), obs

    def counted(key, state, action, params):
        after, out = step(key, state._replace(time=jnp.int32(0)), action, params)
        time = state.time + dtype(pace)
        return after._replace(time=time), out._replace(terminated=time >= dtype(limit), truncated=jnp.bool_(False))

    env = SOUND._replace(reset=first, step=counted, observation_space=Box(-np.inf, np.inf, (1,)))
    wrong = "terminated is set by the number of steps (env_state.time), which no observation shows: a time limit"
    finds(env, wrong, remark="reads params.limit", num_steps=100)


def test_flags_that_are_always_set_together():
    def together(key, old, state, out):
        return state, out._replace(truncated=out.terminated)

    env = with_step(together, params=Params(drift=0.5))
    finds(env, "every end sets both terminated and truncated", remark="reads params.limit")


def test_episodes_that_never_end():
    never = with_step(lambda key, old, state, out: (state, out._replace(terminated=out.reward > 0, truncated=out.reward > 0)))
    finds(
        never._replace(observation_space=Box(-np.inf, np.inf, (1,))),
        "no episode ended in 100 random steps, nor with a step counter far ahead",
        remark="reads params.limit",
        num_steps=100,
    )


def test_what_is_not_a_number():
    nan = with_step(lambda key, old, state, out: (state._replace(x=jnp.sqrt(state.x)), out))
    # The state is NaN after a step, and what the next step makes of it.
    reward = "step returns a reward that is NaN or infinite, first after 2 random steps"
    finds(nan, "an observation that is NaN or infinite", reward, "NaN in env_state, first after 1 random", num_steps=100)


@pytest.mark.parametrize("ends", [True, False])
def test_a_reset_that_is_not_a_number(ends):
    """Also where no episode ends while it is watched; and carry_over, of which there is none, is not blamed."""

    def first(key, params):
        state, obs = reset(key, params)
        return state, jnp.log(0 * obs)

    env = SOUND._replace(reset=first)
    if not ends:
        env = with_step(lambda key, old, state, out: (state, out._replace(truncated=jnp.bool_(False))), reset=first)
    with pytest.raises(ValueError, match="reset returns an observation that is NaN or infinite") as error:
        check_environment(env, num_steps=100)
    assert "carry_over" not in str(error.value)


def test_a_key_of_the_state_that_every_step_uses():
    def with_key(next_key):
        def draw(key, out):
            now, later = next_key(key)
            return later, out._replace(reward=jax.random.normal(now, dtype=jnp.float32))

        return with_more(lambda key: jax.random.fold_in(key, 1), draw)

    finds(with_key(lambda key: (key, key)), "a key is used twice", num_steps=100)
    assert check_environment(with_key(jax.random.split), num_steps=100) == []


def test_a_key_that_is_used_twice():
    def twice(key, old, state, out):
        return state, out._replace(reward=jax.random.normal(key) + jax.random.uniform(key))

    finds(with_step(twice), "a key is used twice", num_steps=100)


def test_keys_that_are_split_for_a_loop_are_right():
    def loop(draw):
        def added(key, old, state, out):
            rewards = jax.lax.scan(lambda total, key: (total + draw(key), None), 0.0, jax.random.split(key, 3))[0]
            return state, out._replace(reward=out.reward + rewards)

        return with_step(added)

    assert check_environment(loop(jax.random.uniform), num_steps=100) == []
    assert check_environment(jaxrl.envs.wrappers.action_repeat(jaxrl.make("PointMass", noise_scale=0.1), 2), num_steps=100) == []
    finds(loop(lambda key: jax.random.uniform(key) + jax.random.normal(key)), "a key is used twice", num_steps=100)


def test_a_key_that_every_pass_of_a_loop_uses():
    def added(key, old, state, out):
        rewards = jax.lax.scan(lambda total, _: (total + jax.random.uniform(key), None), 0.0, length=3)[0]
        return state, out._replace(reward=out.reward + rewards)

    finds(with_step(added), "a key is used twice", num_steps=100)


def test_a_key_that_reset_uses_twice():
    def reset(key, params):
        state, obs = SOUND.reset(key, params)
        return state, obs + 0 * (jax.random.uniform(key) + jax.random.normal(key))

    finds(SOUND._replace(reset=reset), "a key is used twice", num_steps=100)


def test_a_key_that_is_always_the_same_is_a_remark():
    def fixed(key, old, state, out):
        return state, out._replace(reward=out.reward + jax.random.uniform(jax.random.key(0)))

    (remark,) = check_environment(with_step(fixed), num_steps=100)
    assert remark.startswith("step makes a key from a number in the code")


def test_only_an_environment_is_checked():
    with pytest.raises(TypeError, match=r"env must be a jaxrl\.types\.Environment, got int: reset\(key, params\)"):
        check_environment(3)
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        check_environment(SOUND, num_steps=0)


# --- no false alarm in what jaxrl brings ------------------------------------------------------------

# Parameters that nothing reads: of CartPole they follow from others, of BernoulliBandit it is the time limit.
REMARKS = {
    "CartPole-v1": "params.total_mass, params.polemass_length",
    "BernoulliBandit-misc": "params.t_max",
    "Acrobot-v1": "params.link_length_2",
    "Asterix-MinAtar": "params.shot_cool_down",
    "Seaquest-MinAtar": "params.ramp_interval, params.enemy_move_interval",
}


def check_built_in(name, **options):
    remarks = check_environment(jaxrl.make(name), **options)
    assert len(remarks) == (name in REMARKS)
    assert not remarks or f"reads {REMARKS[name]}, so" in remarks[0]


@pytest.mark.parametrize("name", ["CartPole-v1", "Acrobot-v1", "BernoulliBandit-misc", "FrozenLake", "LQR"])
def test_a_sample_of_the_built_in_environments_passes(name):
    check_built_in(name, num_steps=200)


@pytest.mark.slow
@pytest.mark.parametrize("name", jaxrl.envs.names())
def test_every_built_in_environment_passes(name):
    check_built_in(name)
