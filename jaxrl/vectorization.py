"""`vectorize`: one function over a leading axis of seeds or settings, laid out for the machine.

The axis is spread over devices, then walked in groups by `lax.map`, and each group is one `vmap`.
Seeds never speak to each other, so the program holds no collective.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

from jaxrl.checks import check_size

# Batched small matrix products are slow on a CPU: one seed after the other on each core is fastest.
_CPU_BATCH_SIZE = 1


def vectorize(
    fn: Callable[..., Any], *, batch_size: int | None = None, devices: Sequence[jax.Device] | None = None
) -> Callable[..., Any]:
    """`jit(vmap(fn))`, with the leading axis spread over devices and walked in groups.

    Args:
      fn: a pure function of one seed, e.g. `lambda key: jaxrl.train(key, learner, 1000)`.
      batch_size: how many of the axis run at once on a device, the rest one group after the other; less
        memory with fewer. By default all of them on a GPU or TPU, one on a CPU.
      devices: by default all of the default backend.

    Returns:
      A function of the same arguments with an axis in front of every leaf, `[N, ...]`, giving results with
      that axis. Where N is not a multiple of devices times groups, the last element is repeated to fill
      up, and what it gave is dropped.

    Raises:
      ValueError: where the leaves have no common leading axis, or it is empty.
      TypeError: where `batch_size` is no int.

    >>> import jax, jax.numpy as jnp
    >>> vectorize(lambda x: x**2, batch_size=2)(jnp.arange(5.0)).tolist()
    [0.0, 1.0, 4.0, 9.0, 16.0]
    """
    if batch_size is not None:
        batch_size = check_size("batch_size", batch_size)
    used = tuple(jax.devices() if devices is None else devices)
    if not used:
        raise ValueError("devices must name at least one device, got none")

    @jax.jit
    def run(*args):
        total = _axis_size(args)
        mesh = Mesh(np.array(used[: min(len(used), total)]), ("seeds",), axis_types=(AxisType.Auto,))
        groups, width = _groups(math.ceil(total / mesh.size), batch_size, used[0].platform)
        padded = mesh.size * groups * width
        if padded != total:
            args = jax.tree.map(lambda x: x[np.minimum(np.arange(padded), total - 1)], args)

        @partial(jax.shard_map, mesh=mesh, in_specs=PartitionSpec("seeds"), out_specs=PartitionSpec("seeds"), check_vma=False)
        def on_each_device(*args):
            if groups == 1:
                return jax.vmap(fn)(*args)
            split = jax.tree.map(lambda x: x.reshape(groups, width, *x.shape[1:]), args)
            one = jax.vmap(fn) if width > 1 else _without_axis(fn)
            out = jax.lax.map(lambda group: one(*group), split)
            return jax.tree.map(lambda x: x.reshape(groups * width, *x.shape[2:]), out)

        out = on_each_device(*args)
        if padded == total:
            return out
        return jax.tree.map(lambda x: x[:total], out)

    def checked(*args):
        _axis_size(args)
        return run(*args)

    return checked


def _without_axis(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`vmap` over an axis of length 1, without batching anything."""

    def one(*args):
        return jax.tree.map(lambda x: x[None], fn(*jax.tree.map(lambda x: x[0], args)))

    return one


def _groups(per_device: int, batch_size: int | None, platform: str) -> tuple[int, int]:
    """How many groups on each device, and how many elements in each: equal groups waste least."""
    if batch_size is None:
        batch_size = _CPU_BATCH_SIZE if platform == "cpu" else per_device
    groups = math.ceil(per_device / batch_size)
    return groups, math.ceil(per_device / groups)


def _axis_size(args: Any) -> int:
    shapes = [np.shape(x) for x in jax.tree.leaves(args)]
    sizes = {shape[0] if shape else 0 for shape in shapes}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"vectorize: every argument needs one common, non-empty leading axis; got shapes {shapes}")
    return sizes.pop()
