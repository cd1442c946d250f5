"""`vectorize`: one function over a leading axis of seeds or settings, laid out for the machine.

The axis is spread over devices, then walked in groups by `lax.map`, and each group is one `vmap`.
Seeds never speak to each other, so the program holds no collective.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

from jaxrl.checks import check_size
from jaxrl.memory import fit

# Batched small matrix products are slow on a CPU: one seed after the other on each core is fastest.
_CPU_BATCH_SIZE = 1


def vectorize(
    fn: Callable[..., Any],
    *,
    batch_size: int | Literal["auto"] | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Callable[..., Any]:
    """`jit(vmap(fn))`, with the leading axis spread over devices and walked in groups.

    Args:
      fn: a pure function of one seed, e.g. `lambda key: jaxrl.train(key, learner, 1000)`.
      batch_size: how many of the axis run at once on a device, the rest one group after the other; less
        memory with fewer. By default all of them on a GPU or TPU, one on a CPU. "auto" takes as many of these as
        the compiled program's own memory analysis says fit into what the devices have free.
      devices: by default all of the default backend.

    Returns:
      A function of the same arguments with an axis in front of every leaf, `[N, ...]`, giving results with
      that axis. Where N is not a multiple of devices times groups, the last element is repeated to fill
      up, and what it gave is dropped.

    Raises:
      ValueError: where the leaves have no common leading axis, or it is empty. With "auto", where not even
        groups of one fit, for arguments and results are held for the whole axis (then return less of it, or
        call this for a part of the axis at a time), and inside another transformation, where nothing is compiled.
      TypeError: where `batch_size` is neither an int nor "auto".

    >>> import jax, jax.numpy as jnp
    >>> vectorize(lambda x: x**2, batch_size=2)(jnp.arange(5.0)).tolist()
    [0.0, 1.0, 4.0, 9.0, 16.0]
    """
    if batch_size is not None and batch_size != "auto":
        batch_size = check_size("batch_size", batch_size)
    used = tuple(jax.devices() if devices is None else devices)
    if not used:
        raise ValueError("devices must name at least one device, got none")

    def run(batch_size, *args):
        total = _axis_size(args)
        mesh = Mesh(np.array(used[: min(len(used), total)]), ("seeds",), axis_types=(AxisType.Auto,))
        groups, width = _groups(math.ceil(total / mesh.size), batch_size)
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

    outermost = jax.jit(run, static_argnums=0, compiler_options=compiler_options(used))
    inside = jax.jit(run, static_argnums=0)  # of another jit, which alone may have options
    fitting: dict[Any, jax.stages.Compiled] = {}  # by the shapes of the arguments

    def run_fitting(most, *args):
        leaves, treedef = jax.tree.flatten(args)
        if _traced(leaves):
            raise ValueError('batch_size="auto" compiles and measures: call it outside of jit and vmap, or give a number')
        shapes = treedef, tuple((np.shape(x), x.dtype) for x in leaves)
        if shapes not in fitting:
            fitting[shapes] = fit(lambda size: outermost.lower(size, *args).compile(), most, used)[1]
        return fitting[shapes](*jax.device_put(args, fitting[shapes].input_shardings[0]))

    def checked(*args):
        per_device = math.ceil(_axis_size(args) / len(used))
        most = min(per_device, _CPU_BATCH_SIZE) if used[0].platform == "cpu" else per_device
        if batch_size == "auto":
            return run_fitting(most, *args)
        return (inside if _traced(args) else outermost)(most if batch_size is None else batch_size, *args)

    return checked


def compiler_options(devices: Sequence[jax.Device]) -> dict[str, Any] | None:
    """For training programs. On a CPU, LLVM's higher levels take a third of the time to compile, for no speed."""
    return {"xla_backend_optimization_level": 1} if devices[0].platform == "cpu" else None


def _traced(args: Any) -> bool:
    return any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args))


def _without_axis(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`vmap` over an axis of length 1, without batching anything."""

    def one(*args):
        return jax.tree.map(lambda x: x[None], fn(*jax.tree.map(lambda x: x[0], args)))

    return one


def _groups(per_device: int, batch_size: int) -> tuple[int, int]:
    """How many groups on each device, and how many elements in each: equal groups waste least."""
    groups = math.ceil(per_device / batch_size)
    return groups, math.ceil(per_device / groups)


def _axis_size(args: Any) -> int:
    shapes = [np.shape(x) for x in jax.tree.leaves(args)]
    sizes = {shape[0] if shape else 0 for shape in shapes}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"vectorize: every argument needs one common, non-empty leading axis; got shapes {shapes}")
    return sizes.pop()
