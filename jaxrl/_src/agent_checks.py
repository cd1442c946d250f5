"""Checks of an agent's functions against the protocols in `jaxrl.types`, by tracing each of them once.

`make_learner` calls this, so that a mistake in an agent raises an error that names the field instead of one inside a scan.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import spaces
from jaxrl.types import Agent, Environment, Noise, Transition

RESERVED_METRICS = ("episode_return", "episode_length", "episodes")  # the driver's own


class _Sizes(NamedTuple):
    env: Environment
    num_steps: int
    num_envs: int


def check_agent(env: Environment, agent: Agent, num_envs: int, num_steps: int) -> None:
    """Trace every function of the agent for these sizes.

    Raises:
      TypeError, ValueError: for the first function that violates its protocol, with the name of the field and the fix.
    """
    sizes = _Sizes(env, num_steps, num_envs)
    key = jax.eval_shape(lambda: jax.random.key(0))
    hparams = jax.tree.map(lambda _: jax.ShapeDtypeStruct((), jnp.float32), agent.hparams)
    iteration = jax.ShapeDtypeStruct((), jnp.int32)
    obs = _with_axes(_strong(jax.eval_shape(env.reset, key, env.params)[1]), num_envs)

    defaults = jax.tree.map(jnp.float32, agent.hparams)  # not traced: init checks their ranges
    state = _trace("init", lambda key, obs: agent.init(key, obs, defaults), key, obs)
    _check_strong("init", "the agent's state", state)
    noise = _check_noise(_trace("noise", lambda key: agent.noise(key, num_steps, num_envs), key), sizes)
    policy_params = _trace("policy", agent.policy, state)
    carry = _trace("initial_carry", lambda: agent.initial_carry(num_envs))
    _check_carry("initial_carry", carry, num_envs)
    noise_t = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), noise.act)

    explored = _trace("explore", agent.explore, policy_params, obs, carry, noise_t, hparams, iteration)
    action, extras = _check_explore(explored, carry, sizes)
    greedy = _trace("greedy", agent.greedy, policy_params)
    _check_exploit(_trace("exploit", agent.exploit, greedy, obs, carry, key), action, carry, sizes)

    reward, flag = _batch_of(jnp.float32, num_envs), _batch_of(jnp.bool_, num_envs)
    one = Transition(obs, action, reward, flag, flag, obs, carry, extras)
    rollout = jax.tree.map(lambda x: jax.ShapeDtypeStruct((num_steps, *x.shape), x.dtype), one)
    stored = _trace("store", agent.store, state, rollout, iteration)
    _check_same("store", "the agent's state", stored, state)
    _check_update(_trace("update", agent.update, state, rollout, noise.update, hparams, iteration), state)


def _trace(field: str, function: Callable[..., Any], *args: Any) -> Any:
    """Shapes of what `function` returns. Raises ValueError where it branches on data."""
    # A lambda of its own each time: `make_jaxpr` does not trace a function again that it knows.
    jaxpr, out = jax.make_jaxpr(lambda *args: function(*args), return_shape=True)(*args)
    if _branches_on_data(jaxpr.jaxpr):
        raise ValueError(
            f"agent.{field} branches by lax.cond or lax.switch on a traced value: a GPU makes the host wait for it, and under "
            "vmap both branches run. Choose with jnp.where, or make work that is done every k-th time a static structure"
        )
    return out


def _branches_on_data(jaxpr: Any) -> bool:
    """Whether a program has a branch other than on the platform that it is compiled for (`lax.platform_dependent`)."""
    on_platform: set[int] = set()
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "platform_index" or (name in ("clamp", "convert_element_type") and _any_in(equation.invars, on_platform)):
            on_platform |= {id(variable) for variable in equation.outvars}
        elif name == "cond" and id(equation.invars[0]) not in on_platform:
            return True
        inner = (x for value in equation.params.values() for x in (value if isinstance(value, tuple | list) else (value,)))
        if any(_branches_on_data(getattr(x, "jaxpr", x)) for x in inner if hasattr(getattr(x, "jaxpr", x), "eqns")):
            return True
    return False


def _any_in(variables: Any, found: set[int]) -> bool:
    return any(id(variable) in found for variable in variables)


def _check_noise(noise: Any, sizes: _Sizes) -> Noise:
    if not isinstance(noise, Noise):
        raise TypeError(f"agent.noise must return a jaxrl.types.Noise(act, update), got {_describe(noise)}")
    wanted = sizes.num_steps, sizes.num_envs
    for name, leaf in _leaves(noise.act):
        if leaf.shape[:2] != wanted:
            raise ValueError(
                f"agent.noise: Noise.act{name} must have the leading axes [num_steps, num_envs] = {list(wanted)}, since "
                f"`explore` consumes it step by step; got {_describe(leaf)}. What `update` consumes belongs in Noise.update"
            )
    return noise


def _check_carry(field: str, carry: Any, num_envs: int) -> None:
    for name, leaf in _leaves(carry):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise TypeError(
                f"agent.{field}: the carry holds a PRNG key{name and f' at {name}'}; draw what is random in agent.noise, "
                "which `explore` gets as noise_t"
            )
        if leaf.shape[:1] != (num_envs,):
            raise ValueError(
                f"agent.{field}: the carry{name} must have the leading axis [num_envs] = [{num_envs}], got {_describe(leaf)}"
            )
    _check_strong(field, "the carry", carry)


def _check_explore(explored: Any, carry: Any, sizes: _Sizes) -> tuple[Any, Any]:
    if not isinstance(explored, tuple) or len(explored) != 3:
        raise TypeError(f"agent.explore must return (action, carry, extras), got {_describe(explored)}")
    action, next_carry, extras = explored
    _check_action("explore", action, sizes)
    _check_carry("explore", next_carry, sizes.num_envs)
    _check_same("explore", "the carry", next_carry, carry)
    for name, leaf in _leaves(extras):
        if leaf.shape == () and getattr(leaf, "weak_type", False):
            raise TypeError(
                f"agent.explore: extras{name} is a Python number: return an array with the leading axis [num_envs] and a "
                f"dtype of its own, such as jnp.full(num_envs, x, jnp.{leaf.dtype})"
            )
        if leaf.shape[:1] != (sizes.num_envs,):
            raise ValueError(
                f"agent.explore: extras{name} must have the leading axis [num_envs] = [{sizes.num_envs}], got "
                f"{_describe(leaf)}; a value that is the same for all environments is a function of hparams and "
                "iteration, which `update` gets too"
            )
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise TypeError(f"agent.explore: extras{name} is a PRNG key; draw what is random in agent.noise")
    return action, extras


def _check_exploit(exploited: Any, action: Any, carry: Any, sizes: _Sizes) -> None:
    if not isinstance(exploited, tuple) or len(exploited) != 2:
        raise TypeError(f"agent.exploit must return (action, carry), got {_describe(exploited)}")
    _check_action("exploit", exploited[0], sizes)
    _check_same("exploit", "the action (as agent.explore returns it)", exploited[0], action)
    _check_same("exploit", "the carry", exploited[1], carry)


def _check_action(field: str, action: Any, sizes: _Sizes) -> None:
    space = sizes.env.action_space
    wanted = spaces.spec(space)
    if not hasattr(action, "dtype"):
        raise TypeError(f"agent.{field}: the action must be one array, got {_describe(action)}")
    same_kind = jnp.issubdtype(action.dtype, jnp.integer) == jnp.issubdtype(wanted.dtype, jnp.integer)
    if action.shape != (sizes.num_envs, *wanted.shape) or not same_kind:
        raise ValueError(
            f"agent.{field}: the actions are {action.dtype}{list(action.shape[1:])} for each of {sizes.num_envs} environments, "
            f"and {sizes.env.name} takes {space}: make the agent with env.action_space"
        )


def _check_update(updated: Any, state: Any) -> None:
    if not isinstance(updated, tuple) or len(updated) != 2 or not isinstance(updated[1], dict):
        raise TypeError(f"agent.update must return (agent_state, metrics), with a dict of metrics; got {_describe(updated)}")
    new_state, metrics = updated
    _check_same("update", "the agent's state", new_state, state)
    for name, value in metrics.items():
        if name in RESERVED_METRICS:
            raise ValueError(f"agent.update: the metric {name!r} is the learner's own; rename it")
        if not hasattr(value, "dtype") or not jnp.issubdtype(value.dtype, jnp.floating):
            raise TypeError(
                f"agent.update: the metric {name!r} must be a float array, got {_describe(value)}; use .astype(jnp.float32)"
            )


def _check_strong(field: str, what: str, tree: Any) -> None:
    for name, leaf in _leaves(tree):
        if getattr(leaf, "weak_type", False):
            raise TypeError(
                f"agent.{field}: {what}{name} is a weakly typed {leaf.dtype}, as Python numbers are, so that the second call "
                f"would compile again: write jnp.{leaf.dtype}(...) or .astype(jnp.{leaf.dtype})"
            )


def _check_same(field: str, what: str, found: Any, wanted: Any) -> None:
    """Raise unless `found` has the structure, shapes and strong dtypes of `wanted`."""
    if str(jax.tree.structure(found)) != str(jax.tree.structure(wanted)):
        raise TypeError(f"agent.{field} returns {what} with another structure: {_describe(found)} instead of {_describe(wanted)}")
    for (name, x), (_, y) in zip(_leaves(found), _leaves(wanted), strict=True):
        if (x.shape, x.dtype) != (y.shape, y.dtype):
            raise ValueError(f"agent.{field} returns {what}{name} as {_describe(x)} instead of {_describe(y)}")
    _check_strong(field, what, found)


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _describe(tree: Any) -> str:
    """Shapes and dtypes, e.g. `(float32[4, 2], ())`."""
    leaf = lambda x: f"{x.dtype}{list(x.shape)}" if hasattr(x, "dtype") else repr(x)
    if hasattr(tree, "dtype"):
        return leaf(tree)
    text = str(jax.tree.map(lambda x: _Text(leaf(x)), tree))
    return text if len(text) < 400 else f"{text[:400]} …"


class _Text(str):
    __repr__ = str.__str__


def _with_axes(tree: Any, *sizes: int) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*sizes, *x.shape), x.dtype), tree)


def _batch_of(dtype: Any, num_envs: int) -> Any:
    return jax.ShapeDtypeStruct((num_envs,), dtype)


def _strong(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
