"""gymnax's environments, without its automatic resets: exact flags, true final observations, fixed dtypes, true bounds.

`docs/gymnax.md` lists what is corrected in which environment, what is refused, and where the games differ from the originals.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from gymnax.environments.environment import Environment as GymnaxEnvironment

from jaxrl._src.checks import AT_LEAST_ZERO, FRACTION, check_size
from jaxrl.envs.suites.adapter import cast, lenient, narrow
from jaxrl.spaces import Box, Discrete
from jaxrl.types import Environment, Step

REFUSED = {"MNISTBandit-bsuite": "it downloads its data set when it is made"}

Derived = Mapping[str, Callable[[Any], Any]]  # parameters, and how each is computed from the others


class Correction(NamedTuple):
    """What is changed in an environment that differs from its own description."""

    bounds: Callable[[Any, Any], tuple[Any, Any]] | None = None  # (env, params) -> true (low, high) of its observations
    dtype: Any = None  # of its observations, if a smaller one represents them exactly
    derived: Derived = MappingProxyType({})  # parameters computed from others, unless given to `make`
    refused: Mapping[str, str] = MappingProxyType({})  # arguments of its constructor that break it, and how


_ROUNDING = 1e-6  # 1 - time / length may be just below 0 where XLA fuses it


def _time_bounds(params: Any, t_max: Any = 100, start: Any = -1.0, end: Any = 1.0) -> tuple[Any, Any]:
    """Bounds of the time in an observation: in steps, or scaled linearly to `start` at step 0 and `end` at step `t_max`."""
    if not params.normalize_time:
        return 0, params.max_steps_in_episode
    last = start + (end - start) * params.max_steps_in_episode / t_max
    return min(start, last) - _ROUNDING, max(start, last) + _ROUNDING


def _memory_chain_bounds(env: Any, params: Any) -> tuple[Any, Any]:
    """Bounds of: remaining time, query, and context bits, which are -1 or 1 at first and 0 later."""
    return [-_ROUNDING, 0] + env.num_bits * [-1], [1, env.num_bits - 1] + env.num_bits * [1]


def _umbrella_chain_bounds(env: Any, params: Any) -> tuple[Any, Any]:
    """Bounds of: need, umbrella, remaining time, and distractors."""
    return [0, 0, -_ROUNDING] + env.n_distractor * [0], [1] * (3 + env.n_distractor)


def _meta_maze_bounds(env: Any, params: Any) -> tuple[Any, Any]:
    """Bounds of: walls and last action (0 or 1), last reward, time."""
    rewards = (0.0, params.reward, params.punishment, params.reward + params.punishment)
    start, end = _time_bounds(params)
    flags = env.rf_size**2 + env.num_actions
    return flags * [0] + [min(rewards), start], flags * [1] + [max(rewards), end]


def _bandit_bounds(low: float, high: float) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Bounds of: last reward (`low` to `high`), last action of two, time."""

    def bounds(env: Any, params: Any) -> tuple[Any, Any]:
        scale = (params.t_max, params.min_lim, params.max_lim) if hasattr(params, "t_max") else ()
        start, end = _time_bounds(params, *scale)
        return [low, 0, 0, start], [high, 1, 1, end]

    return bounds


_PLANES = Correction(dtype=np.bool_)  # 0 and 1, as float32

CORRECTIONS: dict[str, Correction] = {
    "CartPole-v1": Correction(
        derived={
            "total_mass": lambda params: params.masscart + params.masspole,
            "polemass_length": lambda params: params.masspole * params.length,
        }
    ),
    "Asterix-MinAtar": _PLANES,
    "Breakout-MinAtar": _PLANES,
    "Freeway-MinAtar": _PLANES,
    "Seaquest-MinAtar": _PLANES,
    "SpaceInvaders-MinAtar": _PLANES,
    "MemoryChain-bsuite": Correction(bounds=_memory_chain_bounds),
    "UmbrellaChain-bsuite": Correction(bounds=_umbrella_chain_bounds),
    "DiscountingChain-bsuite": Correction(refused={"n_actions": "its rewards come at the times of five actions"}),
    "FourRooms-misc": Correction(
        refused={"use_visual_obs": "it draws the agent with rows and columns exchanged, and not the goal"}
    ),
    "MetaMaze-misc": Correction(
        bounds=_meta_maze_bounds,
        refused=dict.fromkeys(("maze_size", "rf_size"), "the agent would start next to the centre, or in a wall"),
    ),
    "BernoulliBandit-misc": Correction(
        bounds=_bandit_bounds(0, 1), derived={"t_max": lambda params: params.max_steps_in_episode}
    ),
    "GaussianBandit-misc": Correction(bounds=_bandit_bounds(-math.inf, math.inf)),
    "Reacher-misc": Correction(refused={"num_joints": "its observations fit two joints alone"}),
}

_COUNT = (1, 2**31 - 1)
_TIMER = (0, 2**31 - 1)
_POSITIVE = (float(np.finfo(np.float32).tiny), math.inf)

# Inclusive (low, high) of parameters that would otherwise stop the game, or make it divide by 0.
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("max_steps_in_episode", "memory_length", "chain_length", "reward_timestep", "t_max", "max_oxygen"), _COUNT),
    **dict.fromkeys(("ramp_interval", "init_spawn_speed", "init_move_interval", "diver_spawn_speed", "shot_cool_down"), _TIMER),
    **dict.fromkeys(("enemy_shot_interval", "enemy_move_interval", "diver_move_interval", "player_speed"), _TIMER),
    **dict.fromkeys(("ball_max_y_speed", "paddle_y_speed"), _TIMER),
    **dict.fromkeys(("dt", "tau", "length", "masscart", "total_mass", "m", "l", "link_length_1", "link_length_2"), _POSITIVE),
    **dict.fromkeys(("link_mass_1", "link_mass_2", "link_moi", "circle_radius"), _POSITIVE),
    **dict.fromkeys(("masspole", "polemass_length", "link_com_pos_1", "link_com_pos_2", "goal_radius"), AT_LEAST_ZERO),
    **dict.fromkeys(("max_speed", "max_torque", "max_force", "max_vel_1", "max_vel_2", "x_threshold"), AT_LEAST_ZERO),
    **dict.fromkeys(("theta_threshold_radians", "torque_noise_max", "sigma_p", "sigma_l"), AT_LEAST_ZERO),
    "mapping_seed": (0, 4),  # the index of the best of five actions
    "reward_prob": FRACTION,
    "fail_prob": (0.0, 0.75),  # a random action is the intended one in a quarter of the cases
}


def names() -> tuple[str, ...]:
    """The names that `make` takes."""
    return tuple(name for name in gymnax.registered_envs if name not in REFUSED)


def make(name: str, **overrides) -> Environment:
    """The gymnax environment of that name.

    Args:
      name: one of `names()`.
      overrides: parameters, or arguments of its constructor (`size=20` for DeepSea-bsuite, `map_name="8x8"` for
        FrozenLake-misc). A parameter may be a traced scalar unless the bounds of a space depend on it; to have many
        values at once, `vmap` a function that makes the environment. Parameters that depend on others (`total_mass` of
        CartPole-v1) are recomputed unless they are given too, also where other `params` are used later.

    Raises:
      ValueError: for an environment or argument that is refused, an unknown parameter (with the list of parameters), and
        a value that is out of range, has another shape, or breaks the environment.
      TypeError: for a value of another type than the parameter's.
    """
    if name in REFUSED:
        raise ValueError(f"{name} of gymnax is refused: {REFUSED[name]}")
    correction = CORRECTIONS.get(name, Correction())
    with lenient(), jax.ensure_compile_time_eval():
        env, params = gymnax.make(name)
    arguments, parameters = _split_overrides(name, correction, env, params, overrides)
    if arguments:
        env, params = _construct(name, arguments)
    params = _integer_time_limit(params)
    given = {key: _check_parameter(name, key, getattr(params, key), value) for key, value in parameters.items()}
    derived = {key: compute for key, compute in correction.derived.items() if key not in given}
    try:
        return _compute_derived(from_gymnax(env, _with_derived(params.replace(**given), derived)), derived)._replace(name=name)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
        traced = ", ".join(key for key, x in given.items() if isinstance(x, jax.core.Tracer))
        raise ValueError(
            f"{name}: the bounds of its spaces depend on a parameter that is traced ({traced}), so they are not known when it "
            f"is made. Make it outside jit and vmap with the value that has the widest bounds, and put the traced one in by "
            f"env._replace(params=env.params.replace(...))"
        ) from None
    except ValueError as error:
        raise ValueError(f"{name} with {overrides}: {error}") from error


def from_gymnax(env: Any, params: Any = None) -> Environment:
    """Wrap a gymnax environment: its `step_env`, which does not reset, and its `is_truncated`.

    Observations keep the dtype that they have, whatever their space declares, except that MinAtar's planes become bool.
    `jax_enable_x64` changes nothing: gymnax computes in 32 bits.

    Args:
      env: a bare gymnax environment.
      params: by default `env.default_params`.

    Raises:
      TypeError: for a gymnax wrapper. Its `step_env` is that of the environment inside, so the wrapper would silently do
        nothing. Apply a jaxrl wrapper to the result instead.
    """
    if not isinstance(env, GymnaxEnvironment):
        raise TypeError(
            f"from_gymnax takes a bare gymnax environment, got {type(env).__name__}, whose step_env bypasses the wrapper. "
            f"Pass the environment inside it and wrap the result: jaxrl.envs.wrappers.flatten replaces "
            f"FlattenObservationWrapper, and the learner's metrics replace LogWrapper"
        )
    correction = CORRECTIONS.get(env.name, Correction())
    params = _integer_time_limit(env.default_params if params is None else params)
    state_spec, obs_spec = _specs(env, params, correction.dtype)
    with lenient(), jax.ensure_compile_time_eval():
        action_space = _space(env.action_space(params))
        if correction.bounds is None:
            observation_space = _space(env.observation_space(params), obs_spec)
        else:
            observation_space = _box(*correction.bounds(env, params), obs_spec.shape, obs_spec.dtype)

    def reset(key, params):
        with lenient():
            obs, state = env.reset_env(key, narrow(params))
        return cast(state, state_spec), cast(obs, obs_spec)

    def step(key, state, action, params):
        with lenient():
            params, action = narrow(params), jnp.asarray(action, action_space.dtype)
            obs, state, reward, terminated, _ = env.step_env(key, state, action, params)
            truncated = env.is_truncated(state, params)
        flags = (jnp.asarray(flag, jnp.bool_).reshape(()) for flag in (terminated, truncated))
        reward = jnp.asarray(reward, jnp.float32).reshape(())
        return cast(state, state_spec), Step(cast(obs, obs_spec), reward, *flags)

    return Environment(reset, step, params, observation_space, action_space, env.name)


def _with_derived(params: Any, derived: Derived) -> Any:
    return params.replace(**{key: compute(params) for key, compute in derived.items()})


def _compute_derived(env: Environment, derived: Derived) -> Environment:
    """Compute derived parameters where they are read, so that they stay right when `params` are replaced."""

    def reset(key, params):
        return env.reset(key, _with_derived(params, derived))

    def step(key, state, action, params):
        return env.step(key, state, action, _with_derived(params, derived))

    return env._replace(reset=reset, step=step) if derived else env


# --- spaces and specs in jaxrl's terms ---------------------------------------------------------------


def _specs(env: Any, params: Any, obs_dtype: Any) -> tuple[Any, Any]:
    """Shapes and dtypes of state and observation, without the weak types of Python scalars in gymnax."""
    with lenient():
        obs, state = jax.eval_shape(env.reset_env, jax.random.key(0), params)
    return state, obs if obs_dtype is None else jax.ShapeDtypeStruct(obs.shape, obs_dtype)


def _space(space: Any, spec: Any = None) -> Discrete | Box:
    """The space in jaxrl. Observations get the shape and dtype of `spec`, since some declare others."""
    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n))
    if isinstance(space, spaces.Box):
        shape, dtype = (tuple(space.shape), space.dtype) if spec is None else (spec.shape, spec.dtype)
        return _box(space.low, space.high, shape, dtype)
    raise TypeError(f"only gymnax's Discrete and Box spaces are supported, got {space}")


def _box(low: Any, high: Any, shape: tuple[int, ...], dtype: Any) -> Box:
    """A Box in which float32's largest number, which means unbounded in gymnax, is infinite, or the largest integer."""
    dtype = np.dtype(dtype)

    def bound(value):
        value = np.asarray(value, np.float64)
        value = np.where(np.abs(value) >= np.finfo(np.float32).max, np.copysign(np.inf, value), value)
        return np.clip(value, np.iinfo(dtype).min, np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else value

    return Box(bound(low), bound(high), shape, dtype)


# --- checks of overrides ----------------------------------------------------------------


def _integer_time_limit(params: Any) -> Any:
    """Make the time limit an int: some environments of gymnax have 100.0."""
    limit = getattr(params, "max_steps_in_episode", None)
    return params.replace(max_steps_in_episode=int(limit)) if isinstance(limit, float) and limit.is_integer() else params


def _split_overrides(name: str, correction: Correction, env: Any, params: Any, overrides: dict[str, Any]) -> tuple[dict, dict]:
    """Split the overrides into arguments of the environment's constructor, which are checked, and parameters."""
    fields = tuple(params.__dataclass_fields__)
    defaults = {key: x.default for key, x in inspect.signature(type(env)).parameters.items() if key not in correction.refused}
    for key in overrides:
        if key in correction.refused:
            raise ValueError(f"{name}: {key} is refused: {correction.refused[key]}")
        if key not in (*fields, *defaults):
            raise ValueError(f"{name} has no parameter {key}; it has {', '.join((*fields, *defaults))}")
    arguments = {key: _check_argument(name, key, defaults[key], x) for key, x in overrides.items() if key not in fields}
    return arguments, {key: x for key, x in overrides.items() if key in fields}


def _construct(name: str, arguments: dict[str, Any]) -> tuple[Any, Any]:
    """The environment and its default parameters; any error of its constructor or first trace becomes a ValueError."""
    try:
        with lenient(), jax.ensure_compile_time_eval():
            env, params = gymnax.make(name, **arguments)
        _specs(env, params, None)
    except Exception as error:
        raise ValueError(f"{name} cannot be made with {arguments}: {error or type(error).__name__}") from error
    return env, params


def _check_argument(name: str, key: str, default: Any, value: Any) -> Any:
    """Check an argument of a constructor: ints and bools here; gymnax checks the rest."""
    if isinstance(default, bool):
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{name}: {key} must be True or False, got {value!r}")
    elif isinstance(default, int):
        low, high = _RANGES.get(key, (min(default, 1), 2**31 - 1))
        return check_size(f"{name}: {key}", value, minimum=int(low), maximum=int(high))
    return value


def _check_parameter(name: str, key: str, default: Any, value: Any) -> Any:
    """Return `value` with the dtype of the parameter's default, after checks of type, shape and, if concrete, range."""
    default = np.asarray(default)
    kind, allowed = {"b": ("True or False", "b"), "i": ("an int", "iu"), "f": ("a number", "iuf")}[default.dtype.kind]
    traced = isinstance(value, jax.core.Tracer)
    given = value if traced else np.asarray(value)
    if given.dtype.kind not in allowed:
        raise TypeError(f"{name}: {key} must be {kind}, got {value!r}")
    if given.shape != default.shape:
        raise ValueError(
            f"{name}: {key} must have the shape {list(default.shape)}, got {list(given.shape)}; for many values at once, vmap a "
            f"function that makes the environment with one of them"
        )
    if traced:
        return given.astype(jax.dtypes.canonicalize_dtype(default.dtype))
    low, high = _RANGES.get(key, (-(2**31), 2**31 - 1) if default.dtype.kind == "i" else (-math.inf, math.inf))
    if not np.all((given >= low) & (given <= high)):  # NaN fails both
        allowed = "be above 0" if (low, high) == _POSITIVE else f"lie in [{low:g}, {high:g}]"
        raise ValueError(f"{name}: {key} must {allowed}, got {value!r}")
    return given.astype(default.dtype).item() if given.ndim == 0 else jnp.asarray(given, default.dtype)
