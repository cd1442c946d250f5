"""Spaces describe the observations and actions of an environment. They are hashable and compare by value.

An observation is an array, or a dict of arrays in a `Dict` space. An environment that knows which actions are legal says so
in its observation, in the bool entry `"action_mask"` of a `Dict` space.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxrl._src.checks import check_size

ACTION_MASK = "action_mask"


@dataclass(frozen=True)
class Discrete:
    """The integers 0 … n-1, as int32 scalars."""

    n: int

    def __post_init__(self):
        object.__setattr__(self, "n", check_size("Discrete: n", self.n))

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)

    def __str__(self) -> str:
        return f"Discrete({self.n})"


@dataclass(frozen=True)
class MultiDiscrete:
    """Vectors of m integers, int32 `[m]`; the i-th is one of 0 … nvec[i]-1.

    >>> MultiDiscrete((3, 2)).shape
    (2,)
    """

    nvec: tuple[int, ...]

    def __post_init__(self):
        nvec = tuple(check_size(f"MultiDiscrete: nvec[{i}]", n) for i, n in enumerate(self.nvec))
        if not nvec:
            raise ValueError("MultiDiscrete: nvec must have an entry for each component, got ()")
        object.__setattr__(self, "nvec", nvec)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.nvec),)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)

    def __str__(self) -> str:
        return f"MultiDiscrete({', '.join(map(str, self.nvec))})"


@dataclass(frozen=True, eq=False)
class Box:
    """Arrays of one shape and dtype within bounds; `low` and `high` broadcast to `shape`, ±inf is unbounded.

    In a Box of integers, ±inf becomes the limit of the dtype.

    Raises:
      ValueError: if a lower bound exceeds its upper one or is NaN, or if integers of the dtype do not include a finite bound.
      TypeError: if `shape` is not a tuple.
    """

    low: Any
    high: Any
    shape: tuple[int, ...]
    dtype: Any = np.float32

    def __post_init__(self):
        try:
            object.__setattr__(self, "shape", tuple(self.shape))
        except TypeError:
            raise TypeError(f"Box: shape must be a tuple of ints, got {self.shape!r}") from None
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        for name in ("low", "high"):
            bound = _bound(name, getattr(self, name), self.dtype)
            object.__setattr__(self, name, np.broadcast_to(bound, self.shape))
        if not np.all(self.low <= self.high):  # NaN is neither
            raise ValueError(f"Box: low must be at most high, got low {self.low} and high {self.high}")

    @property
    def bounded(self) -> bool:
        """Whether all bounds are finite."""
        return bool(np.all(np.isfinite(self.low)) and np.all(np.isfinite(self.high)))

    def _identity(self) -> tuple[Any, ...]:
        return self.shape, self.dtype, self.low.tobytes(), self.high.tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __str__(self) -> str:
        bounds = self.low.astype(float).min(initial=np.inf), self.high.astype(float).max(initial=-np.inf)
        low, high = (f"{np.sign(x) * np.inf if abs(x) > 1e38 else x:g}" for x in bounds)
        return f"Box({low} … {high}, {list(self.shape)}, {self.dtype})"


def _bound(name: str, value: Any, dtype: np.dtype) -> np.ndarray:
    """`value` in `dtype`, always as a copy: a Box is compared by its bounds, which later writes to `value` must not change."""
    if not np.issubdtype(dtype, np.integer):
        return np.array(value, dtype)
    given, limits = np.asarray(value), np.iinfo(dtype)
    with np.errstate(invalid="ignore"):  # of ±inf, which the limits replace, and of NaN, which is refused
        bound = given.astype(dtype)
    bound = np.where(given <= limits.min, dtype.type(limits.min), np.where(given >= limits.max, dtype.type(limits.max), bound))
    if np.any((bound != given) & ~np.isinf(given)):
        raise ValueError(
            f"Box: {name} must be integers of {dtype}, from {limits.min} to {limits.max}, or infinite; got {value}. "
            "Change the bound or the dtype"
        )
    return bound


@dataclass(frozen=True, eq=False)
class Dict(Mapping[str, "Space"]):
    """Dicts of arrays, with a space for each entry.

    >>> space = Dict({"position": Box(-1, 1, (2,)), "action_mask": Box(False, True, (4,), bool)})
    >>> list(space), space["position"].shape
    (['action_mask', 'position'], (2,))
    """

    spaces: Mapping[str, "Space"]

    def __post_init__(self):
        if not isinstance(self.spaces, Mapping):
            raise TypeError(f"Dict: spaces must be a dict with a space for each name, got {self.spaces!r}")
        for name, space in self.spaces.items():
            if not isinstance(space, Space):
                raise TypeError(f"Dict: the entry {name!r} must be a space of jaxrl.types, got {space!r}")
        object.__setattr__(self, "spaces", dict(sorted(self.spaces.items())))  # the order in which JAX takes a dict's leaves

    def __getitem__(self, name: str) -> "Space":
        return self.spaces[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.spaces)

    def __len__(self) -> int:
        return len(self.spaces)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dict) and self.spaces == other.spaces

    def __hash__(self) -> int:
        return hash(tuple(self.spaces.items()))

    def __str__(self) -> str:
        return f"Dict({', '.join(f'{name}: {space}' for name, space in self.spaces.items())})"


Space = Discrete | MultiDiscrete | Box | Dict


def spec(space: Space) -> Any:
    """The shape and dtype of an element: a `jax.ShapeDtypeStruct`, or a dict of them for a `Dict`.

    >>> spec(Dict({"x": Discrete(3)}))
    {'x': ShapeDtypeStruct(shape=(), dtype=int32)}
    """
    if isinstance(space, Dict):
        return {name: spec(entry) for name, entry in space.items()}
    return jax.ShapeDtypeStruct(space.shape, space.dtype)


def num_choices(action_space: Discrete | MultiDiscrete) -> int:
    """The number of logits of a policy, and of entries of an action mask: n, or the sum of nvec."""
    return action_space.n if isinstance(action_space, Discrete) else sum(action_space.nvec)


def split_action_mask(observation: Any) -> tuple[Any, Any]:
    """Split off the entry `"action_mask"` of an observation or of its space: return the rest and the entry, or None.

    The rest of a dict is a dict, even if a single entry is left.

    >>> split_action_mask({"x": 1, "action_mask": 2})
    ({'x': 1}, 2)
    >>> split_action_mask(Discrete(3))
    (Discrete(n=3), None)
    """
    if not isinstance(observation, Mapping) or ACTION_MASK not in observation:
        return observation, None
    rest = {name: entry for name, entry in observation.items() if name != ACTION_MASK}
    return (Dict(rest) if isinstance(observation, Dict) else rest), observation[ACTION_MASK]
