"""Spaces as JSON values, for files and listings that other programs read."""

from typing import Any

import numpy as np

from jaxrl.spaces import Box, Dict, Discrete, Space


def space_to_json(space: Space) -> dict[str, Any]:
    """A space as JSON values. Bounds are numbers if they are equal everywhere; infinite ones are the strings inf and -inf.

    >>> space_to_json(Discrete(3))
    {'type': 'Discrete', 'n': 3, 'shape': [], 'dtype': 'int32'}
    """
    if isinstance(space, Dict):
        return {"type": "Dict", "spaces": {name: space_to_json(entry) for name, entry in space.items()}}
    values: dict[str, Any] = {}
    if isinstance(space, Box):
        values = {"low": _bound(space.low), "high": _bound(space.high)}
    elif isinstance(space, Discrete):
        values = {"n": space.n}
    else:
        values = {"nvec": list(space.nvec)}
    return {"type": type(space).__name__, **values, "shape": list(space.shape), "dtype": str(space.dtype)}


def _bound(bound: np.ndarray) -> Any:
    numbers = np.vectorize(lambda x: x if np.isfinite(x) else str(x), otypes=[object])(bound.astype(float))
    return numbers.flat[0] if bound.size and (bound == bound.flat[0]).all() else numbers.tolist()
