"""`check_environment` with observations in a Dict, MultiDiscrete actions and action masks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import check_environment
from jaxrl.envs.validation.random_play import legal_action
from jaxrl.envs.wrappers._inner import is_legal
from jaxrl.spaces import num_choices
from jaxrl.types import Box, Dict, Discrete, Environment, MultiDiscrete, Step
from tests.envs.validation.common import SOUND, finds


class Limit(NamedTuple):
    limit: int


class Game(NamedTuple):
    x: jax.Array
    time: jax.Array


def game(action_space, mask_at, limit=20):
    """Observations in a Dict with the mask `mask_at(time)`; an illegal action loses it."""

    def observe(state):
        return {"x": state.x, "kind": state.time % 3, "action_mask": mask_at(state.time)}

    def reset(key, params):
        state = Game(jax.random.uniform(key, (2,), jnp.float32), jnp.int32(0))
        return state, observe(state)

    def step(key, state, action, params):
        legal = is_legal(action_space, mask_at(state.time), action)
        state = Game(1 - state.x, state.time + 1)
        return state, Step(observe(state), jnp.float32(1), ~legal, state.time >= params.limit)

    mask = Box(False, True, (num_choices(action_space),), np.bool_)
    space = Dict({"x": Box(0, 1, (2,)), "kind": Discrete(3), "action_mask": mask})
    return Environment(reset, step, Limit(limit), space, action_space, "game")


def all_but_one(time):
    return jnp.arange(3, dtype=jnp.int32) != time % 3


def some_of_each(time):
    return jnp.bool_([True, False, True, False, True, True]) | (time < 0)


MASKED = {"Discrete": (Discrete(3), all_but_one), "MultiDiscrete": (MultiDiscrete((2, 1, 3)), some_of_each)}


def with_obs(env, change):
    """The environment with every observation changed by `change(obs, state)`."""

    def reset(key, params):
        state, obs = env.reset(key, params)
        return state, change(obs, state)

    def step(*args):
        state, out = env.step(*args)
        return state, out._replace(obs=change(out.obs, state))

    return env._replace(reset=reset, step=step)


@pytest.mark.parametrize("name", MASKED)
def test_a_game_with_a_mask_passes_and_random_play_is_legal(name):
    """An illegal action pays NaN here, which would be found."""
    env = game(*MASKED[name])

    def step(key, state, action, params):
        state, out = env.step(key, state, action, params)
        return state, out._replace(reward=jnp.where(out.terminated, jnp.nan, out.reward))

    assert check_environment(env._replace(step=step), num_steps=100) == []
    illegal = env._replace(step=lambda key, state, action, params: step(key, state, 0 * action + 1, params))
    with pytest.raises(ValueError, match="a reward that is NaN or infinite"):
        check_environment(illegal, num_steps=100)


@pytest.mark.parametrize(("space", "legal"), [(Discrete(5), [[1, 2, 4]]), (MultiDiscrete((2, 3)), [[1], [0, 2]])])
def test_legal_actions_are_drawn_uniformly(space, legal):
    mask = jnp.bool_([False, True, True, False, True])
    uniform = np.random.default_rng(0).uniform(size=(3000, len(legal))).astype(np.float32)
    draw = jax.vmap(lambda u: legal_action(space, mask, u))
    actions = np.asarray(draw(uniform))
    assert actions.shape == (3000, *space.shape)
    assert actions.dtype == np.int32
    for component, choices in zip(actions.reshape(3000, -1).T, legal, strict=True):
        values, counts = np.unique(component, return_counts=True)
        np.testing.assert_array_equal(values, choices)
        share = 1 / len(choices)
        assert np.all(np.abs(counts - 3000 * share) <= 4 * np.sqrt(3000 * share * (1 - share)))
    np.testing.assert_array_equal(draw(np.zeros((1, len(legal)), np.float32)).ravel(), [choices[0] for choices in legal])
    largest = np.full((1, len(legal)), np.nextafter(np.float32(1), np.float32(0)))
    np.testing.assert_array_equal(draw(largest).ravel(), [choices[-1] for choices in legal])


@pytest.mark.parametrize("name", MASKED)
def test_a_mask_without_a_legal_action(name):
    space, mask_at = MASKED[name]
    component = " of some component" if name == "MultiDiscrete" else ""
    first_choices = np.arange(num_choices(space)) < num_choices(space) - 3
    late = game(space, lambda time: mask_at(time) & ((time != 7) | first_choices))
    finds(late, f"mask allows no action{component} where the episode continues, first after 7 random steps", num_steps=100)
    carried = game(space, mask_at)._replace(
        carry_over=lambda old, fresh, obs: (fresh, obs | {"action_mask": jnp.zeros_like(obs["action_mask"])})
    )
    with pytest.raises(ValueError, match=f"mask allows no action{component} where the episode continues"):
        check_environment(carried, num_steps=100)
    at_once = game(space, lambda time: mask_at(time) & (time > 0))
    finds(at_once, f"the action mask after a reset allows no action{component}", num_steps=50)


def test_the_mask_of_an_observation_that_terminates_may_be_empty():
    env = game(Discrete(2), lambda time: jnp.ones(2, bool) & (time < 5))

    def step(*args):
        state, out = env.step(*args)
        return state, out._replace(terminated=state.time >= 5)

    shown = Dict({**env.observation_space, "time": Discrete(30)})
    timed = with_obs(env._replace(step=step), lambda obs, state: obs | {"time": state.time})
    assert check_environment(timed._replace(observation_space=shown), num_steps=50) == []


@pytest.mark.parametrize(
    ("mask", "action_space", "message"),
    [
        (Box(False, True, (2,), np.bool_), Discrete(3), "Discrete(3) needs a mask of bools with 3 entries, one for each action"),
        (Box(0, 1, (3,)), Discrete(3), "observation_space['action_mask'] is Box(0 … 1, [3], float32), and Discrete(3) needs a"),
        (Discrete(3), Discrete(3), "['action_mask'] is Discrete(3), and Discrete(3) needs a mask of bools"),
        (Box(False, True, (2, 3), np.bool_), MultiDiscrete((2, 3)), "with 5 entries, one for each choice of each component"),
        (Box(False, True, (2,), np.bool_), Box(-1, 1, (2,)), "the observation has an action mask, and action_space is Box"),
    ],
)
def test_a_mask_that_does_not_describe_the_actions(mask, action_space, message):
    env = game(*MASKED["Discrete"])
    space = Dict({**env.observation_space, "action_mask": mask})
    finds(env._replace(observation_space=space, action_space=action_space), message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda obs: obs | {"x": obs["x"][0]}, "returns obs['x'] as a float32 scalar, and observation_space is there float32[2]"),
        (
            lambda obs: obs | {"kind": obs["x"]},
            "returns obs['kind'] as float32[2], and observation_space is there a int32 scalar",
        ),
        (lambda obs: obs | {"more": obs["x"]}, "returns an observation with 'more' besides, and observation_space is Dict("),
        (lambda obs: {"x": obs["x"], "y": obs["x"]}, "returns an observation without 'action_mask', 'kind' and with 'y' besides"),
        (lambda obs: obs["x"], "returns float32[2] as observation, and observation_space is Dict("),
        (lambda obs: tuple(obs.values()), "returns a tuple as observation, and observation_space is Dict("),
        (lambda obs: obs | {"x": {"x": obs["x"]}}, "returns an observation with another structure, and observation_space"),
    ],
)
def test_observations_that_are_not_in_their_dict(change, message):
    env = with_obs(game(*MASKED["Discrete"]), lambda obs, state: change(obs))
    finds(env, f"reset {message}", f"step {message}")


def test_entries_that_are_out_of_bounds_or_not_finite():
    env = game(*MASKED["Discrete"])
    tight = env._replace(observation_space=Dict({**env.observation_space, "kind": Discrete(2), "x": Box(0, 0.5, (2,))}))
    finds(
        tight,
        "observations leave observation_space['kind']: they go from 0 to 2, its bounds from 0 to 1",
        "observations leave observation_space['x']: they go from ",
        num_steps=50,
    )
    finds(
        with_obs(env, lambda obs, state: obs | {"x": obs["x"] / (state.time < 3).astype(jnp.float32)}),
        "an observation that is NaN or infinite, first after 3 random steps",
        "observations leave observation_space['x']: they go from ",
        num_steps=50,
    )


def test_a_dict_before_the_state():
    env = game(*MASKED["Discrete"])
    finds(env._replace(reset=lambda *args: env.reset(*args)[::-1]), "reset returns the observation first and the state second")


def test_actions_in_a_dict():
    finds(SOUND._replace(action_space=Dict({"a": Discrete(2)})), "action_space is a jaxrl.spaces.Dict")
