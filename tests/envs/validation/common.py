"""A sound environment, and how to check which mistakes `check_environment` finds."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from jaxrl import check_environment
from jaxrl.types import Box, Discrete, Environment, Step


class Params(NamedTuple):
    drift: float = 0.1
    limit: int = 20


class State(NamedTuple):
    x: jax.Array
    time: jax.Array


def reset(key, params):
    bits = jax.random.key_data(key)[-1]  # random enough, and nothing to compile
    x = bits.astype(jnp.float32) / 2.0**32 * 0.2 - 0.1
    return State(x, jnp.int32(0)), x[None]


def step(key, state, action, params):
    """A walk that terminates beyond ±1; 20 steps are the time limit."""
    state = State(state.x + params.drift * (2.0 * action.astype(jnp.float32) - 1.0), state.time + 1)
    return state, Step(state.x[None], -jnp.abs(state.x), jnp.abs(state.x) >= 1, state.time >= params.limit)


SOUND = Environment(reset, step, Params(), Box(-2, 2, (1,)), Discrete(2), "walk")


def with_step(change, **fields):
    """The sound environment with a step whose results `change` (from the inputs, the new state and the Step) replaces."""

    def changed(key, state, action, params):
        return change(key, state, *step(key, state, action, params))

    return SOUND._replace(step=changed, **fields)


def with_more(more_at_reset, more_after, step=step):
    """The sound environment, or its `step`, with something besides in its state: `more_at_reset(key)`, and then
    `more_after(more, out) -> more, out`."""

    class More(NamedTuple):
        state: State
        more: jax.Array

    def first(key, params):
        state, obs = reset(key, params)
        return More(state, more_at_reset(key)), obs

    def following(key, old, action, params):
        state, out = step(key, old.state, action, params)
        more, out = more_after(old.more, out)
        return More(state, more), out

    return SOUND._replace(reset=first, step=following)


def finds(env, *messages, remark=None, **options):
    """Exactly these mistakes, and a fix with every one; `remark` is part of the only remark."""
    with pytest.raises(ValueError, match="check_environment found") as caught:
        check_environment(env, **options)
    lines = str(caught.value).splitlines()
    remarks = [line for line in lines if line.startswith("Remark: ")]
    assert len(remarks) == (remark is not None)
    assert remark is None or remark in remarks[0]
    fixes = [line for line in lines if line.startswith("   To fix this: ")]
    wrong = [line for line in lines[1:] if line not in fixes and line not in remarks]
    assert len(wrong) == len(messages), lines
    for line, message in zip(wrong, messages, strict=True):
        assert message in line
    assert len(fixes) == len(wrong)
