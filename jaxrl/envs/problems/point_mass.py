"""A point that is to reach the origin and rest there, with continuous states and actions."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import check_size
from jaxrl._src.linear_algebra import product
from jaxrl.types import Box, Environment, Step


class Params(NamedTuple):
    """s' = A s + B a + noise_scale · N(0, I); the fields are arrays and may be traced."""

    transition: Any  # A, [n, n]
    control: Any  # B, [n, m]
    noise_scale: Any  # standard deviation of the state noise; 0: deterministic
    max_action: Any  # actions are clipped to ± this
    start_range: Any  # episodes start uniformly in [-start_range, start_range]^n
    max_steps_in_episode: Any


class State(NamedTuple):
    position: jax.Array  # [n]
    time: jax.Array  # int32


def point_mass(
    n: int = 2,
    m: int | None = None,
    *,
    transition=None,
    control=None,
    noise_scale: float = 0.0,
    max_action: float = 1.0,
    start_range: float = 1.0,
    max_steps_in_episode: int = 50,
) -> Environment:
    """A point mass: state in R^n, action in R^m, reward −‖s‖ − ‖a‖ of the state before the step and the executed action.

    Episodes never terminate; the time limit truncates them. By default s' = s + 0.1 a.

    Args:
      n: dimensions of the state.
      m: dimensions of the action, by default n.
      transition: A `[n, n]`, by default the identity.
      control: B `[n, m]`, by default 0.1 on its diagonal.
      noise_scale: standard deviation of the noise on every component of s'.
      max_action: every component of the action is clipped to ± this before it is executed.
      start_range: the start is uniform in ± this.
      max_steps_in_episode: time limit in steps.

    Raises:
      ValueError: if a size is below 1, a matrix has another shape, or a scale is negative.
      TypeError: if a size is not an int.

    >>> import jax, jax.numpy as jnp
    >>> env = point_mass(n=3)
    >>> state, obs = env.reset(jax.random.key(0), env.params)
    >>> state, step = env.step(jax.random.key(1), state, jnp.zeros(3), env.params)
    >>> bool(jnp.isclose(step.reward, -jnp.linalg.norm(obs)))
    True
    """
    n = check_size("n", n)
    m = n if m is None else check_size("m", m)
    check_size("max_steps_in_episode", max_steps_in_episode)
    for name, value in (("noise_scale", noise_scale), ("max_action", max_action), ("start_range", start_range)):
        if not value >= 0:
            raise ValueError(f"{name} must be at least 0, got {value}")
    params = Params(
        transition=_matrix("transition", np.eye(n) if transition is None else transition, (n, n)),
        control=_matrix("control", 0.1 * np.eye(n, m) if control is None else control, (n, m)),
        noise_scale=np.float32(noise_scale),
        max_action=np.float32(max_action),
        start_range=np.float32(start_range),
        max_steps_in_episode=max_steps_in_episode,
    )
    return Environment(
        reset=_reset,
        step=_step,
        params=params,
        observation_space=Box(-np.inf, np.inf, (n,)),
        action_space=Box(-max_action, max_action, (m,)),
        name="PointMass",
    )


def _matrix(name: str, value, shape: tuple[int, int]) -> np.ndarray:
    matrix = np.asarray(value, np.float32)
    if matrix.shape != shape:
        raise ValueError(f"{name} must be {list(shape)}, got {list(matrix.shape)}")
    return matrix


def _reset(key: jax.Array, params: Params) -> tuple[State, jax.Array]:
    n = params.transition.shape[0]
    position = params.start_range * jax.random.uniform(key, (n,), jnp.float32, minval=-1.0, maxval=1.0)
    return State(position, jnp.int32(0)), position


def _step(key: jax.Array, state: State, action: jax.Array, params: Params) -> tuple[State, Step]:
    n, m = params.control.shape
    executed = jnp.clip(action.reshape(m), -params.max_action, params.max_action)
    reward = -jnp.linalg.norm(state.position) - jnp.linalg.norm(executed)
    position = product(params.transition, state.position) + product(params.control, executed)
    position = position + params.noise_scale * jax.random.normal(key, (n,), jnp.float32)
    time = state.time + 1
    step = Step(position, reward, jnp.bool_(False), time >= params.max_steps_in_episode)
    return State(position, time), step
