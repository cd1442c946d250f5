"""`check_environment`: finds the usual mistakes in an environment of one's own, and says how to mend each.

What can be read off the traced functions is here; `playing` plays episodes and looks at what comes out.
"""

import re
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import check_size
from jaxrl.envs.validation.random_play import Findings, played
from jaxrl.envs.validation.side_effects import outside
from jaxrl.types import Box, Discrete, Environment, Step

_FORMS = {
    "reset": "reset(key, params) -> (env_state, obs)",
    "step": "step(key, env_state, action, params) -> (env_state, jaxrl.types.Step)",
    "carry_over": "carry_over(old env_state, fresh env_state, fresh obs) -> (env_state, obs)",
}

# What tracing raises, the more special errors first: what the user wrote, and what to write in its place.
_UNTRACEABLE: dict[type[Exception], tuple[str, str]] = {
    jax.errors.TracerBoolConversionError: (
        "branches in Python (if, while, and, or, min, max) on a value that is traced under jit",
        "choose by jnp.where or jax.lax.cond, loop by jax.lax.while_loop, use & and | for flags",
    ),
    jax.errors.TracerIntegerConversionError: (
        "uses a traced value as a Python int (range, an index into a list, a size)",
        "index jax arrays, loop by jax.lax.fori_loop, and keep sizes out of params",
    ),
    jax.errors.TracerArrayConversionError: ("hands a traced value to NumPy", "compute with jax.numpy"),
    jax.errors.NonConcreteBooleanIndexError: (
        "selects by a mask, so that the shape depends on data",
        "use jnp.where(mask, x, y)",
    ),
    jax.errors.ConcretizationTypeError: (
        "needs the number behind a traced value (float, int, .item(), a size)",
        "keep it an array: jnp.float32(x), x.astype(...); sizes are Python ints given to a factory",
    ),
    jax.errors.UnexpectedTracerError: (
        "reads a traced value that an earlier call left outside of it",
        "keep everything that changes in env_state",
    ),
}


class Traced(NamedTuple):
    """A function traced: its program as a jaxpr, and the shapes and dtypes that it returns."""

    jaxpr: Any
    out: Any  # pytree of jax.ShapeDtypeStruct


def check_environment(env: Environment, *, num_steps: int = 1000) -> None:
    """Find the usual mistakes in an environment; silent where there are none.

    `reset` and `step` are traced, which shows what cannot be compiled or batched, Python side effects, weak or
    drifting types and shapes, parameters that change nothing. Then random actions are played in 16 copies, which
    shows observations outside their space, NaN, keys used twice, a reset inside `step`, and flags that are mixed up:

    - A reset inside `step` is seen by the state after an episode's end: a step counter goes back there, or all of it
      looks fresh (numbers that every reset starts with are back, the others lie where resets put them) while other
      successors do not. It is not seen without a counter and with starts as wide as all that follows. An environment
      that has no counter and really ends where it began looks the same as one that resets.
    - A time limit that is reported as `terminated` is seen by setting each step counter of the state (a scalar that
      every step changes by the same amount) far ahead: if that terminates the episode, and no observation shows the
      counter, it is a time limit. A limit that is kept in anything but such a counter is not seen.

    What random actions do not reach within `num_steps` is not seen at all.

    Args:
      env: the environment.
      num_steps: steps of each copy, enough for some episodes to end.

    Raises:
      ValueError: with every mistake that was found and its mend.
      TypeError: where `env` is no `jaxrl.types.Environment`, or `num_steps` no int.

    >>> import jaxrl
    >>> env = jaxrl.make("PointMass")
    >>> check_environment(env)
    >>> check_environment(env._replace(observation_space=jaxrl.types.Box(-1, 1, (3,))))
    Traceback (most recent call last):
    ...
    ValueError: check_environment found 2 mistakes in 'PointMass':
    1. reset gives the observation float32[2], and observation_space is Box(-1 … 1, [3], float32).
       Mend: give both the same shape and dtype.
    2. step gives the observation float32[2], and observation_space is Box(-1 … 1, [3], float32).
       Mend: give both the same shape and dtype.
    """
    num_steps = check_size("num_steps", num_steps)
    if not isinstance(env, Environment):
        raise TypeError(f"env must be a jaxrl.types.Environment, got {type(env).__name__}: {_FORMS['reset']}, {_FORMS['step']}")
    found = _spaces(env)
    if not found:
        found, playable = _programs(env)
        found += played(env, num_steps) if playable else []
    if found:
        listed = (f"{i}. {wrong}.\n   Mend: {mend}." for i, (wrong, mend) in enumerate(found, 1))
        count = f"{len(found)} mistake{'s' if len(found) > 1 else ''}"
        raise ValueError(f"check_environment found {count} in {env.name!r}:\n" + "\n".join(listed))


def _spaces(env: Environment) -> Findings:
    return [
        (
            f"{name} is a {type(space).__module__}.{type(space).__name__}",
            "make it a jaxrl.types.Box(low, high, shape, dtype) or jaxrl.types.Discrete(n)",
        )
        for name, space in (("observation_space", env.observation_space), ("action_space", env.action_space))
        if not isinstance(space, Box | Discrete)
    ]


def _programs(env: Environment) -> tuple[Findings, bool]:
    """What tracing shows, and whether the functions are sound enough to be played."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    args = (key, env.params)
    reset = _trace("reset", env.reset, *args)
    if isinstance(reset, list):
        return reset, False
    if found := _not_a_pair(env, "reset", reset.out):
        return found, False
    state, obs = reset.out
    step_args = (key, state, jax.ShapeDtypeStruct(env.action_space.shape, env.action_space.dtype), env.params)
    step = _trace("step", env.step, *step_args)
    if isinstance(step, list):
        return step, False
    if found := _not_a_pair(env, "step", step.out):
        return found, False
    after, out = step.out
    types = [*_observation(env, "reset", obs), *_observation(env, "step", out.obs), *_reward_and_flags(out)]
    types += [*_drift("step", state, after), *_weak("reset", state, obs), *_weak("step", after, out)]
    types += [*_unbatchable("reset", env.reset, args), *_unbatchable("step", env.step, step_args)]
    impure = [*_impure("reset", env.reset, args, reset), *_impure("step", env.step, step_args, step)]
    return [*types, *impure, *_unread(env, reset, step), *_carry_over(env, state, obs)], not types and not impure


def _trace(name: str, function: Any, *args: Any) -> Traced | Findings:
    """The traced function, or what keeps it from being traced."""
    try:
        # A lambda of its own each time: what JAX has traced before, it does not trace again.
        return Traced(*jax.make_jaxpr(lambda *a: function(*a), return_shape=True)(*args))
    except Exception as error:  # it is the user's function: anything may come
        return [_untraceable(name, error)]


def _untraceable(name: str, error: Exception) -> tuple[str, str]:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename != __file__ and "jax" not in Path(frame.filename).parts]
    at = f" ({own[-1].filename}, line {own[-1].lineno}: {own[-1].line})" if own else ""
    for kind, (wrong, mend) in _UNTRACEABLE.items():
        if isinstance(error, kind):
            return f"{name} {wrong}{at}", mend
    reason = _first_line(error)
    return f"{name} raises {type(error).__name__}: {reason}{at}", f"it must run under jit as {_FORMS[name]}"


def _not_a_pair(env: Environment, name: str, out: Any) -> Findings:
    mend = f"return {_FORMS[name].partition(' -> ')[2]}"
    if not (isinstance(out, tuple) and len(out) == 2):
        given = f"{len(out)} values" if isinstance(out, tuple) else f"a {type(out).__name__}"
        return [(f"{name} returns {given}, not 2", mend)]
    if name == "step" and not isinstance(out[1], Step):
        return [(f"step returns a {type(out[1]).__name__} beside the state, not a Step", mend)]
    space = env.observation_space
    if name == "reset" and not hasattr(out[1], "dtype") and getattr(out[0], "shape", None) == space.shape:
        return [("reset returns the observation first and the state second", mend)]
    return []


def _observation(env: Environment, name: str, obs: Any) -> Findings:
    space = env.observation_space
    if not hasattr(obs, "dtype"):
        return [(f"{name} gives a {type(obs).__name__} as observation", "give one array, e.g. by jnp.concatenate")]
    if obs.shape == space.shape and obs.dtype == space.dtype:
        return []
    wrong = f"{name} gives the observation {_type(obs)}, and observation_space is {space}"
    return [(wrong, "give both the same shape and dtype")]


def _reward_and_flags(out: Any) -> Findings:
    found = []
    for name, dtype in (("reward", np.float32), ("terminated", np.bool_), ("truncated", np.bool_)):
        value = getattr(out, name)
        if not (hasattr(value, "dtype") and value.shape == () and value.dtype == dtype):
            given = _type(value) if hasattr(value, "dtype") else f"a {type(value).__name__}"
            mend = "compute the flag by a comparison" if dtype == np.bool_ else "end with .astype(jnp.float32)"
            found.append((f"step gives {name} as {given}, and it must be a {np.dtype(dtype)} scalar", mend))
    return found


def _weak(name: str, state: Any, rest: Any) -> Findings:
    """Python numbers take the type of what they meet, so a program that gets one back as an array is compiled anew."""
    prefix = {"reset": "obs", "step": "Step"}[name]
    return [
        (
            f"{name} gives {path} as a weakly typed {leaf.dtype}, as Python numbers are",
            f"give it a type of its own, jnp.{leaf.dtype}(...) or .astype(jnp.{leaf.dtype})",
        )
        for root, tree in (("env_state", state), (prefix, rest))
        for path, leaf in _leaves(root, tree)
        if getattr(leaf, "weak_type", False) and leaf.dtype != jnp.bool_
    ]


def _drift(name: str, before: Any, after: Any) -> Findings:
    old, new = str(jax.tree.structure(before)), str(jax.tree.structure(after))
    if old != new:
        wrong = f"{name} gives a state of another structure than reset: {new}, not {old}"
        return [(wrong, "give the same record with the same fields from both")]
    return [
        (f"{name} gives {path} as {_type(y)}, and reset as {_type(x)}", "give both the same shape and dtype")
        for (path, x), (_, y) in zip(_leaves("env_state", before), _leaves("", after), strict=True)
        if (x.shape, x.dtype) != (y.shape, y.dtype)
    ]


def _impure(name: str, function: Any, args: Any, first: Traced) -> Findings:
    """Traced a second time, a pure function is the same program and leaves everything outside of it as it was."""
    if isinstance(function, jax.stages.Wrapped):  # by jit, which would not trace it again
        function = getattr(function, "__wrapped__", function)
    mend = "keep all that changes in env_state, and draw random numbers from the key"
    before = outside(function)
    second = _trace(name, function, *args)
    after = outside(function)
    if changed := sorted(variable for variable in before if before[variable] != after.get(variable)):
        return [(f"{name} changes {', '.join(changed)}, which lives outside of it, each time that it is traced", mend)]
    if isinstance(second, list):
        return second
    if re.search(r"\b((pure|io|debug)_callback|debug_print)\[", str(first.jaxpr)):
        return [(f"{name} calls back into Python", "compute in jax.numpy: a training program must not wait for the host")]
    if not _same_program(first.jaxpr, second.jaxpr):
        return [(f"{name} is another program when it is traced again: something outside of it takes part", mend)]
    return []


def _same_program(a: Any, b: Any) -> bool:
    def text(jaxpr):
        return re.sub(r"0x[0-9a-f]+", "", str(jaxpr))

    return text(a) == text(b) and all(x is y or _plain(x) == _plain(y) for x, y in zip(a.consts, b.consts, strict=True))


def _plain(constant: Any) -> bytes:
    is_key = jnp.issubdtype(constant.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(constant) if is_key else constant).tobytes()


def _unbatchable(name: str, function: Any, args: Any) -> Findings:
    def two_of(x):
        return jax.ShapeDtypeStruct((2, *x.shape), x.dtype, weak_type=x.weak_type)

    batch = jax.tree.map(two_of, jax.eval_shape(lambda *a: a, *args))
    try:
        jax.eval_shape(jax.vmap(lambda *a: function(*a)), *batch)
    except Exception as error:
        reason = _first_line(error)
        mend = "use operations that vmap knows; a custom one needs a batching rule"
        return [(f"{name} cannot be batched by vmap: {type(error).__name__}: {reason}", mend)]
    return []


def _unread(env: Environment, reset: Traced, step: Traced) -> Findings:
    """Parameters that neither program reads: to change them changes nothing."""
    names = [path for path, _ in _leaves("params", env.params)]
    read = set.union(set(), *(_read(program.jaxpr.jaxpr, names) for program in (reset, step)))
    unused = [name for name in names if name not in read]
    if not unused:
        return []
    mend = (
        "compute with the params that are passed in, not with what the factory was given; or leave them out of params; "
        "one that randomize_params draws anew is rightly unread"
    )
    return [(f"neither reset nor step reads {', '.join(unused)}: to change a parameter then changes nothing", mend)]


def _read(jaxpr: Any, names: list[str]) -> set[str]:
    """The parameters, which are the last of the program's inputs, that its outputs depend on."""
    needed = {id(variable) for variable in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if equation.effects or any(id(variable) in needed for variable in equation.outvars):
            needed |= {id(variable) for variable in equation.invars}
    inputs = jaxpr.invars[len(jaxpr.invars) - len(names) :]
    return {name for name, variable in zip(names, inputs, strict=True) if id(variable) in needed}


def _carry_over(env: Environment, state: Any, obs: Any) -> Findings:
    if env.carry_over is None:
        return []
    carry_over = _trace("carry_over", env.carry_over, state, state, obs)
    if isinstance(carry_over, list):
        return carry_over
    if found := _not_a_pair(env, "carry_over", carry_over.out):
        return found
    return [*_drift("carry_over", state, carry_over.out[0]), *_observation(env, "carry_over", carry_over.out[1])]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].rstrip(" .:")


def _leaves(root: str, tree: Any) -> list[tuple[str, Any]]:
    return [(root + jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _type(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}" if x.shape else f"a {x.dtype} scalar"
