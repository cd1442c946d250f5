"""`check_environment` finds common mistakes in an environment and says how to fix them.

This file checks the traced functions, `spaces` checks spaces and observations, `random_play` takes random actions, and `findings`
says what they show.
"""

import re
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import check_size
from jaxrl.envs.validation.random_play import check_random_play
from jaxrl.envs.validation.side_effects import external_state
from jaxrl.envs.validation.spaces import Findings, check_observation, check_spaces, describe, matches
from jaxrl.spaces import spec
from jaxrl.types import Environment, Step

_FORMS = {
    "reset": "reset(key, params) -> (env_state, obs)",
    "step": "step(key, env_state, action, params) -> (env_state, jaxrl.types.Step)",
    "carry_over": "carry_over(old env_state, fresh env_state, fresh obs) -> (env_state, obs)",
}

# Errors during tracing, subclasses first: what the user wrote, and what to write instead.
_UNTRACEABLE: dict[type[Exception], tuple[str, str]] = {
    jax.errors.TracerBoolConversionError: (
        "branches in Python (if, while, and, or, min, max) on a value that is traced under jit",
        "choose with jnp.where or jax.lax.cond, loop with jax.lax.while_loop, use & and | for flags",
    ),
    jax.errors.TracerIntegerConversionError: (
        "uses a traced value as a Python int (range, an index into a list, a size)",
        "index jax arrays, loop with jax.lax.fori_loop, and keep sizes out of params",
    ),
    jax.errors.TracerArrayConversionError: ("passes a traced value to NumPy", "compute with jax.numpy"),
    jax.errors.NonConcreteBooleanIndexError: (
        "selects by a mask, so that the shape depends on data",
        "use jnp.where(mask, x, y)",
    ),
    jax.errors.ConcretizationTypeError: (
        "needs the concrete value of a traced array (float, int, .item(), a size)",
        "keep it an array: jnp.float32(x), x.astype(...); sizes are Python ints given to a factory",
    ),
    jax.errors.UnexpectedTracerError: (
        "reads a traced value that an earlier call stored outside of it",
        "keep everything that changes in env_state",
    ),
}


class Traced(NamedTuple):
    """A traced function: its jaxpr, and the shapes and dtypes that it returns."""

    jaxpr: Any
    out: Any  # pytree of jax.ShapeDtypeStruct


def check_environment(env: Environment, *, num_steps: int = 1000) -> list[str]:
    """Find common mistakes in an environment.

    Tracing `reset` and `step` reveals what cannot be compiled or batched, Python side effects, weak or changing types and
    shapes, and observations that do not match their space. Then 16 copies take random actions, which are legal if there is
    an action mask. This reveals observations outside their space, masks without a legal action, NaN, a key that a step uses
    twice, a `carry_over` after which episodes end at once, a reset inside `step`, and confused flags:

    - A reset inside `step` is recognised by the state after the end of an episode: a step counter goes back, or the whole
      state looks fresh (constants of a reset are restored, and all other numbers are within their range after resets) while
      other successors do not. It is not found if there is no counter and resets start in all states. An environment without
      a counter whose episodes really end where they began looks the same as one that resets. If only the observation is
      that of a reset, this is found where setting a step counter far ahead truncates the episode.
    - A time limit that is reported as `terminated` is found by setting each step counter of the state (a scalar that
      every step changes by the same amount) far ahead. If that terminates the episode, and no observation shows the
      counter, it is a time limit. A limit that is kept in anything but such a counter is not found.

    States that random actions do not reach within `num_steps` are not checked. Side effects are not seen in a function under
    `jit` that another one calls, because JAX traces it only once.

    Args:
      env: the environment.
      num_steps: steps of each copy; choose enough for some episodes to end.

    Returns:
      Remarks on what is unusual but may be intended, such as parameters that nothing reads. Often empty.

    Raises:
      ValueError: with every mistake found, and how to fix it.
      TypeError: if `env` is not a `jaxrl.types.Environment`, or `num_steps` not an int.

    >>> import jaxrl
    >>> env = jaxrl.make("PointMass")
    >>> check_environment(env)
    []
    >>> check_environment(env._replace(observation_space=jaxrl.types.Box(-1, 1, (3,))))
    Traceback (most recent call last):
    ...
    ValueError: check_environment found 2 mistakes in 'PointMass':
    1. reset returns the observation float32[2], and observation_space is Box(-1 … 1, [3], float32).
       To fix this: give both the same shape and dtype.
    2. step returns the observation float32[2], and observation_space is Box(-1 … 1, [3], float32).
       To fix this: give both the same shape and dtype.
    """
    num_steps = check_size("num_steps", num_steps)
    if not isinstance(env, Environment):
        raise TypeError(f"env must be a jaxrl.types.Environment, got {type(env).__name__}: {_FORMS['reset']}, {_FORMS['step']}")
    found = check_spaces(env)
    remarks: list[str] = []
    if not found:
        found, remarks, is_playable = _check_programs(env)
        found += check_random_play(env, num_steps) if is_playable else []
    if found:
        lines = [f"{i}. {wrong}.\n   To fix this: {fix}." for i, (wrong, fix) in enumerate(found, 1)]
        lines += [f"Remark: {remark}" for remark in remarks]
        count = f"{len(found)} mistake{'s' if len(found) > 1 else ''}"
        raise ValueError(f"check_environment found {count} in {env.name!r}:\n" + "\n".join(lines))
    return remarks


def _check_programs(env: Environment) -> tuple[Findings, list[str], bool]:
    """The mistakes that tracing reveals, remarks, and whether the functions are sound enough for random play."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    args = (key, env.params)
    reset = _trace("reset", env.reset, *args)
    if isinstance(reset, list):
        return reset, [], False
    if found := _not_a_pair(env, "reset", reset.out):
        return found, [], False
    state, obs = reset.out
    step_args = (key, state, spec(env.action_space), env.params)
    step = _trace("step", env.step, *step_args)
    if isinstance(step, list):
        return step, [], False
    if found := _not_a_pair(env, "step", step.out):
        return found, [], False
    after, out = step.out
    space = env.observation_space
    types = [*check_observation(space, "reset", obs), *check_observation(space, "step", out.obs), *_reward_and_flags(out)]
    types += [*_changed_types("step", state, after), *_weak("reset", state, obs), *_weak("step", after, out)]
    types += [*_unbatchable("reset", env.reset, args), *_unbatchable("step", env.step, step_args)]
    impure = [*_impure("reset", env.reset, args, reset), *_impure("step", env.step, step_args, step)]
    found = [*types, *impure, *_carry_over(env, state, obs)]
    return found, [*_unread(env, reset, step), *_fixed_key(step)], not found


def _trace(name: str, function: Any, *args: Any) -> Traced | Findings:
    """The traced function, or why it cannot be traced."""
    try:
        # A new lambda each time, since JAX does not trace the same function twice.
        return Traced(*jax.make_jaxpr(lambda *a: function(*a), return_shape=True)(*args))
    except Exception as error:  # the user's function may raise anything
        return [_untraceable(name, error)]


def _untraceable(name: str, error: Exception) -> tuple[str, str]:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename != __file__ and "jax" not in Path(frame.filename).parts]
    at = f" ({own[-1].filename}, line {own[-1].lineno}: {own[-1].line})" if own else ""
    for kind, (wrong, fix) in _UNTRACEABLE.items():
        if isinstance(error, kind):
            return f"{name} {wrong}{at}", fix
    reason = _first_line(error)
    return f"{name} raises {type(error).__name__}: {reason}{at}", f"it must run under jit as {_FORMS[name]}"


def _not_a_pair(env: Environment, name: str, out: Any) -> Findings:
    fix = f"return {_FORMS[name].partition(' -> ')[2]}"
    if not (isinstance(out, tuple) and len(out) == 2):
        given = f"{len(out)} values" if isinstance(out, tuple) else f"a {type(out).__name__}"
        return [(f"{name} returns {given}, not 2", fix)]
    if name == "step" and not isinstance(out[1], Step):
        return [(f"step returns the state and a {type(out[1]).__name__}, not a Step", fix)]
    space = env.observation_space
    if name == "reset" and matches(space, out[0]) and not matches(space, out[1]):
        return [("reset returns the observation first and the state second", fix)]
    return []


def _reward_and_flags(out: Any) -> Findings:
    found = []
    for name, dtype in (("reward", np.float32), ("terminated", np.bool_), ("truncated", np.bool_)):
        value = getattr(out, name)
        if not (hasattr(value, "dtype") and value.shape == () and value.dtype == dtype):
            given = describe(value) if hasattr(value, "dtype") else f"a {type(value).__name__}"
            fix = "compute the flag by a comparison" if dtype == np.bool_ else "end with .astype(jnp.float32)"
            found.append((f"step returns {name} as {given}, and it must be a {np.dtype(dtype)} scalar", fix))
    return found


def _weak(name: str, state: Any, rest: Any) -> Findings:
    """Find weakly typed results, such as Python numbers. As carried arrays they change type, so that JAX compiles again."""
    prefix = {"reset": "obs", "step": "Step"}[name]
    return [
        (
            f"{name} returns {path} as a weakly typed {leaf.dtype}, like a Python number",
            f"make it strongly typed: jnp.{leaf.dtype}(...) or .astype(jnp.{leaf.dtype})",
        )
        for root, tree in (("env_state", state), (prefix, rest))
        for path, leaf in _leaves(root, tree)
        if getattr(leaf, "weak_type", False) and leaf.dtype != jnp.bool_
    ]


def _changed_types(name: str, before: Any, after: Any) -> Findings:
    old, new = str(jax.tree.structure(before)), str(jax.tree.structure(after))
    if old != new:
        wrong = f"{name} returns a state of another structure than reset: {new}, not {old}"
        return [(wrong, "return the same record with the same fields from both")]
    return [
        (f"{name} returns {path} as {describe(y)}, and reset as {describe(x)}", "give both the same shape and dtype")
        for (path, x), (_, y) in zip(_leaves("env_state", before), _leaves("", after), strict=True)
        if (x.shape, x.dtype) != (y.shape, y.dtype)
    ]


def _impure(name: str, function: Any, args: Any, first: Traced) -> Findings:
    """Trace again: a pure function yields the same program and changes nothing outside of itself."""
    if isinstance(function, jax.stages.Wrapped):  # under jit it would not be traced again
        function = getattr(function, "__wrapped__", function)
    fix = "keep all that changes in env_state, and draw random numbers from the key"
    before = external_state(function)
    second = _trace(name, function, *args)
    after = external_state(function)
    if changed := sorted(variable for variable in before if before[variable] != after.get(variable)):
        return [(f"{name} changes {', '.join(changed)}, which is outside of it, whenever it is traced", fix)]
    if isinstance(second, list):
        return second
    if re.search(r"\b((pure|io|debug)_callback|debug_print)\[", str(first.jaxpr)):
        return [(f"{name} calls back into Python", "compute in jax.numpy: a training program must not wait for the host")]
    if not _same_program(first.jaxpr, second.jaxpr):
        return [(f"{name} is another program when it is traced again, so it depends on something outside of it", fix)]
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
        fix = "use operations that vmap supports; a custom one needs a batching rule"
        return [(f"{name} cannot be batched by vmap: {type(error).__name__}: {reason}", fix)]
    return []


def _unread(env: Environment, reset: Traced, step: Traced) -> list[str]:
    """A remark about parameters that neither program reads."""
    names = [path for path, _ in _leaves("params", env.params)]
    read = set.union(set(), *(_read(program.jaxpr.jaxpr, names) for program in (reset, step)))
    unused = [name for name in names if name not in read]
    if not unused:
        return []
    return [
        f"neither reset nor step reads {', '.join(unused)}, so changing it has no effect. That is right for a parameter that "
        "randomize_params replaces, or that only describes; otherwise compute with the params that are passed in, not with "
        "the arguments of the factory."
    ]


def _read(jaxpr: Any, names: list[str]) -> set[str]:
    """The parameters, the last inputs of the program, on which its outputs depend."""
    needed = {id(variable) for variable in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if equation.effects or any(id(variable) in needed for variable in equation.outvars):
            needed |= {id(variable) for variable in equation.invars}
    inputs = jaxpr.invars[len(jaxpr.invars) - len(names) :]
    return {name for name, variable in zip(names, inputs, strict=True) if id(variable) in needed}


def _fixed_key(step: Traced) -> list[str]:
    """A remark about a key that `step` makes from a constant."""
    if not re.search(r"\brandom_seed\[[^]]*\] -?\d", str(step.jaxpr)):
        return []
    return [
        "step makes a key from a number in the code, such as jax.random.key(0), so every step draws the same. That is right for "
        "something that never changes, such as a map; otherwise draw from the key that is passed in."
    ]


def _carry_over(env: Environment, state: Any, obs: Any) -> Findings:
    if env.carry_over is None:
        return []
    carry_over = _trace("carry_over", env.carry_over, state, state, obs)
    if isinstance(carry_over, list):
        return carry_over
    if found := _not_a_pair(env, "carry_over", carry_over.out):
        return found
    state_out, obs_out = carry_over.out
    args = state, state, obs
    return [
        *_changed_types("carry_over", state, state_out),
        *check_observation(env.observation_space, "carry_over", obs_out),
        *_unbatchable("carry_over", env.carry_over, args),
        *_impure("carry_over", env.carry_over, args, carry_over),
    ]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].rstrip(" .:")


def _leaves(root: str, tree: Any) -> list[tuple[str, Any]]:
    return [(root + jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
