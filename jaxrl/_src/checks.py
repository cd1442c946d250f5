"""Checks of user input before tracing, with errors that name the argument and how to fix it."""

import math
import numbers
import operator
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np

AT_LEAST_ZERO = (0.0, math.inf)
FINITE = (0.0, float(np.finfo(np.float32).max))
FRACTION = (0.0, 1.0)


def check_size(name: str, value: Any, *, minimum: int = 1, maximum: int | None = 2**31 - 1) -> int:
    """Return `value` as an int. Sizes are structure: they must be Python ints of at least `minimum`.

    Raises TypeError for anything but an int, such as a tracer or an array of floats, and ValueError if it is out of range.
    """
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"{name} is a size and shapes the compiled program, so it must be a Python int; got the traced "
            f"value {value}. Pass it outside jit and vmap, or close over it."
        )
    try:
        size = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {value!r} ({type(value).__name__})") from None
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if size < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {size}")
    if maximum is not None and size > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {size}")
    return size


def check_number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> Any:
    """Return `value`, a number or an array, as float32. It must lie in [low, high]; a tracer has no value yet and is not checked.

    Raises TypeError for anything but numbers, ValueError for NaN and for values outside the range.
    """
    if isinstance(value, jax.core.Tracer):
        return value.astype(np.float32)
    array = np.asarray(value)
    if not (np.issubdtype(array.dtype, np.number) and np.isrealobj(array)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not np.all((array >= low) & (array <= high)):  # NaN fails both
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {value}")
    return array.astype(np.float32)


def check_scalar(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> Any:
    """Return `value`, a single number, as float32. Like `check_number`, but without arrays.

    Raises TypeError for anything but numbers, ValueError for several, for NaN and for values outside the range.
    """
    if np.shape(value):
        raise ValueError(f"{name} must be one number, got an array of the shape {list(np.shape(value))}")
    return check_number(name, value, low, high)


_PLAIN: dict[type, tuple[tuple[type, ...], str, str]] = {  # accepted types, one, several
    bool: ((bool, np.bool_), "true or false", "truth values"),
    int: ((numbers.Integral,), "an integer", "integers"),
    float: ((numbers.Real,), "a number", "numbers"),
    str: ((str,), "text", "texts"),
}


def check_plain(name: str, value: Any, kind: type, *, repeated: bool = False) -> None:
    """Raise TypeError unless `value` is of the type `kind`, or if `repeated`, a list or tuple of such values.

    Args:
      name: the name of the entry, for the message.
      value: as a file or a caller gives it.
      kind: bool, int, float or str. An int is a float too, but a bool is neither.
      repeated: whether there are several.
    """
    accepted, one, several = _PLAIN[kind]
    fits = lambda x: isinstance(x, accepted) and (kind is bool or not isinstance(x, bool))
    if repeated and not (isinstance(value, list | tuple) and all(map(fits, value))):
        raise TypeError(f"{name} must be a list of {several}, got {value!r}")
    if not repeated and not fits(value):
        raise TypeError(f"{name} must be {one}, got {value!r}")


def check_table(name: str, value: Any) -> None:
    """Raise TypeError unless `value` is a mapping."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a table of names and values, got {value!r}")


def check_key(key: Any) -> None:
    """Raise TypeError unless `key` is a typed PRNG key, and ValueError unless it is a single one."""
    check_keys(key)
    if key.ndim:
        raise ValueError(
            f"key must be a single PRNG key, got an array of keys {list(key.shape)}: use jax.vmap or jaxrl.vectorize over them"
        )


def check_keys(key: Any) -> None:
    """Raise TypeError unless `key` is a typed PRNG key, or an array of them."""
    if not (isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise TypeError(f"key must be a typed PRNG key, such as jax.random.key(0); got {key!r}")


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def check_record(hparams: Any, kind: type) -> None:
    """Raise TypeError unless `hparams` is a record of type `kind`."""
    if type(hparams) is not kind:
        wanted, given = _public_name(kind), _public_name(type(hparams))
        raise TypeError(
            f"hparams must be a {wanted}, got {given}; start from agent.hparams and change fields with ._replace(...)"
        )


def _public_name(kind: type) -> str:
    """A type with the modules that are not private, such as "jaxrl.agents.DQNHParams"."""
    return ".".join([*(part for part in kind.__module__.split(".") if not part.startswith("_")), kind.__name__])


def check_hparams(hparams: Any, kind: type, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Compare each concrete field of `hparams`, a record of type `kind`, with its inclusive (low, high) in `ranges`.

    Traced fields have no value yet and are not checked. Raises TypeError for another agent's record, and ValueError for NaN
    and for values outside the range.
    """
    check_record(hparams, kind)
    for name, value in hparams._asdict().items():
        if name not in ranges:
            raise TypeError(f"{kind.__name__}.{name} has no range: give (low, high) for every field, such as FRACTION or FINITE")
        low, high = ranges[name]
        if isinstance(value, jax.core.Tracer):
            continue
        array = np.asarray(None if isinstance(value, (list, tuple)) else value)  # which would be several leaves
        if not np.issubdtype(array.dtype, np.number):
            raise TypeError(f"hparams.{name} must be a number or an array, got {value!r}")
        if not np.all((array >= low) & (array <= high)):  # NaN fails both
            raise ValueError(f"hparams.{name} must lie in [{low:g}, {high:g}], got {value}")


def check_replay_sizes(batch_size: Any, capacity: Any, warmup: Any, updates_per_iteration: Any) -> tuple[int, int, int, int]:
    """Return the sizes of an agent with a replay as ints. Raises an error if one is not a positive int, or a batch cannot fit."""
    batch_size, capacity = check_size("batch_size", batch_size), check_size("capacity", capacity)
    if batch_size > capacity:
        raise ValueError(f"batch_size {batch_size} is larger than the replay's capacity {capacity}")
    return batch_size, capacity, check_size("warmup", warmup), check_size("updates_per_iteration", updates_per_iteration)


def check_network(agent_name: str, network: Any, builder: str, *, recurrent: bool = False) -> None:
    """Raise TypeError unless `network` has `init` and `apply`, and `initial_carry` if and only if it must be recurrent.

    The error names the `builder` in `jaxrl.networks`.
    """
    build, kind = f"build it with jaxrl.networks.{builder}", type(network).__name__
    if not all(callable(getattr(network, name, None)) for name in ("init", "apply")):
        raise TypeError(f"{agent_name} needs a network with init and apply, got {kind}; {build}")
    if recurrent and not hasattr(network, "initial_carry"):
        raise TypeError(f"{agent_name} needs a recurrent network, with initial_carry, got {kind}; {build}")
    if not recurrent and hasattr(network, "initial_carry"):
        raise TypeError(f"{agent_name} needs a network without a carry, got the recurrent {kind}; {build}, or use recurrent_ppo")


def check_optimizer(optimizer: Any) -> None:
    """Raise TypeError unless `optimizer` is a function, such as `optax.adam` and not `optax.adam(1e-3)`."""
    if not callable(optimizer):
        raise TypeError(
            "optimizer must be a function from a learning rate to an optax transformation, such as optax.adam or "
            f"lambda learning_rate: optax.adamw(learning_rate); got {type(optimizer).__name__}. The learning rate is a "
            "hyperparameter: hparams.learning_rate"
        )


def check_network_output(agent_name: str, out: Any, expected: Any, hint: str) -> None:
    """Raise ValueError unless a network's output has the expected structure and shapes.

    Args:
      agent_name: the name of the agent that uses the network, for the message.
      out: the output, as arrays or `jax.ShapeDtypeStruct`s, such as `jax.eval_shape(network.apply, params, obs)`.
      expected: what the agent needs, such as `PolicyHead.params_spec((num_envs,))`.
      hint: a sentence that says how to build a network that fits.
    """
    out_shapes, expected_shapes = (jax.tree.map(lambda x: list(np.shape(x)), tree) for tree in (out, expected))
    if out_shapes != expected_shapes:
        raise ValueError(f"{agent_name}: the network must return shapes {expected_shapes}, but it returns {out_shapes}. {hint}")
