"""Parameters that change during a run: non-stationary environments."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl._src.checks import check_size
from jaxrl.envs.wrappers._inner import carry_over_or_fresh
from jaxrl.envs.wrappers.randomization import check_function, check_pair, check_same, replace_params, strongly_typed
from jaxrl.types import Environment, EnvState, PyTree

Schedule = Callable[[jax.Array, PyTree], PyTree]  # (time, params) -> the parameters at that time


class Drifting(NamedTuple):
    """State of `drift_params`."""

    env: EnvState
    time: jax.Array  # int32: steps of this environment since the run began
    seed: jax.Array  # uint32: of the reset at the time when the episode begins
    params: PyTree  # the nominal ones, at time 0 of the schedule


def drift_params(env: Environment, schedule: Schedule) -> Environment:
    """Change the parameters during a run, as a function of time.

    Time is the number of steps of each environment since the run began; it continues across episodes, and is saved with the
    state of the environment. An evaluation continues from there too: it plays with the parameters of the present. The
    environment's `params` stay the nominal ones, which `schedule` receives, and so do its spaces and its time limit: make `env`
    with the widest and the largest.

    The start of an episode depends on the time when it begins. So the reset is computed in every step of every environment, and
    `make_learner(reset_pool=...)` saves nothing.

    Args:
      env: any environment.
      schedule: `(time, params) -> params`, traced, with time an int32 scalar; e.g. from `linear_drift`. It must return
        parameters with the structure and shapes of `env.params`. For a sudden change, use `jnp.where(time < 1000, ...)`.

    Raises:
      ValueError: if `schedule` returns anything else.
      TypeError: if it is not a function.
    """
    check_function("drift_params: schedule", schedule)
    at = lambda time, params: strongly_typed(schedule(time, params))
    scheduled = jax.eval_shape(lambda time: at(time, env.params), jax.ShapeDtypeStruct((), jnp.int32))
    check_same("drift_params: schedule must return parameters like env.params", scheduled, env.params)

    def reset(key, params):
        key, later = jax.random.split(key)
        time = jnp.int32(0)
        state, obs = env.reset(key, at(time, params))
        nominal = strongly_typed(params)
        return Drifting(state, time, jax.random.bits(later, dtype=jnp.uint32), nominal), obs

    def step(key, state, action, params):
        inside, after = env.step(key, state.env, action, at(state.time, params))
        return state._replace(env=inside, time=state.time + 1), after

    def carry_over(old, fresh, _):
        state, obs = env.reset(jax.random.key(fresh.seed), at(old.time, fresh.params))
        state, obs = carry_over_or_fresh(env)(old.env, state, obs)
        return fresh._replace(env=state, time=old.time), obs

    return env._replace(reset=reset, step=step, carry_over=carry_over)


def linear_drift(num_steps: int, **ranges: tuple[Any, Any]) -> Schedule:
    """Return a `schedule` that moves the named parameters linearly from a first value to a last one, and then stays there.

    Args:
      num_steps: steps of each environment from the first value to the last. A learner with B environments has taken B times as
        many in all.
      ranges: (first, last) for each parameter.

    Raises:
      ValueError: if a value is not finite; and when the result is called, if there is no such parameter.
      TypeError, ValueError: if `num_steps` is not a positive int, or a range is not two numbers.

    >>> import jaxrl
    >>> env = drift_params(jaxrl.make("PointMass"), linear_drift(10_000, noise_scale=(0.0, 0.1)))
    """
    num_steps = check_size("num_steps", num_steps)
    ends = {name: check_pair("linear_drift", name, range_) for name, range_ in ranges.items()}

    def schedule(time, params):
        share = jnp.minimum(time.astype(jnp.float32) / num_steps, 1.0)

        def at(name, old):
            first, last = (jnp.broadcast_to(jnp.asarray(end, jnp.float32), jnp.shape(old)) for end in ends[name])
            return (1 - share) * first + share * last

        return replace_params("linear_drift", params, ends, at)

    return schedule
