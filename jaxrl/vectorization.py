"""`vectorize`: one function over a leading axis of seeds or settings, laid out for the machine.

The axis is spread over devices, then walked in groups by `lax.map`, and each group is one `vmap`.
Seeds never speak to each other, so the program holds no collective.
"""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

from jaxrl._src.checks import check_size
from jaxrl._src.device_memory import largest_that_fits

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
    available = tuple(jax.devices() if devices is None else devices)
    if not available:
        raise ValueError("devices must name at least one device, got none")

    def run(groups, width, *args):
        """`fn` over an axis that is as long as devices times `groups` times `width`."""
        used = available[: _axis_size(args) // (groups * width)]
        on_a_device = _in_groups(fn, groups, width)
        if used == tuple(jax.devices()[:1]) and not jax.config.jax_default_device:  # type: ignore[attr-defined]
            # JAX goes there by itself, and inside a mesh it would trace once more what it knows.
            return on_a_device(*args)
        mesh, spec = Mesh(np.array(used), ("seeds",), axis_types=(AxisType.Auto,)), PartitionSpec("seeds")
        return jax.shard_map(on_a_device, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)(*args)

    outermost = jax.jit(run, static_argnums=(0, 1), compiler_options=compiler_options(available))
    inside = jax.jit(run, static_argnums=(0, 1))  # of another jit, which alone may have options
    fitting: dict[Any, tuple[int, jax.stages.Compiled]] = {}  # by the shapes of the arguments

    def fitted(most, used, args):
        leaves, treedef = jax.tree.flatten(args)
        shapes = treedef, tuple((np.shape(x), x.dtype) for x in leaves)

        def compile_for(size):
            groups, width, padded = _plan(size, used, args)
            return outermost.lower(groups, width, *padded).compile()

        if shapes not in fitting:
            fitting[shapes] = largest_that_fits(compile_for, most, used)
        return fitting[shapes]

    def checked(*args):
        total = _axis_size(args)
        used = spread_over(total, available)
        per_device = math.ceil(total / len(used))
        most = min(per_device, _CPU_BATCH_SIZE) if used[0].platform == "cpu" else per_device
        traced = _traced(args)
        if batch_size == "auto":
            if traced:
                raise ValueError('batch_size="auto" compiles and measures: call it outside of jit and vmap, or give a number')
            size, program = fitted(most, used, args)
            _, _, padded = _plan(size, used, args)
            out = program(*jax.device_put(padded, program.input_shardings[0]))
        else:
            groups, width, padded = _plan(most if batch_size is None else batch_size, used, args)
            out = (inside if traced else outermost)(groups, width, *padded)
        # Cut here and not in the program, where what does not divide would have to be gathered from all devices.
        return out if _axis_size(padded) == total else jax.tree.map(lambda x: x[:total], out)

    return checked


def spread_over(total: int, devices: Sequence[jax.Device]) -> tuple[jax.Device, ...]:
    """The devices for an axis: of 12 for 16 elements 8, for four of 12 would have nothing to do while the last are done."""
    rounds = math.ceil(total / len(devices))
    return tuple(devices[: math.ceil(total / rounds)])


def use_all_cores() -> None:
    """One CPU device for each core that this process may use; to be called before JAX starts its backend.

    Raises:
      RuntimeError: where the backend has started.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jax.config.update("jax_num_cpu_devices", cores)


def compiler_options(devices: Sequence[jax.Device]) -> dict[str, Any] | None:
    """For training programs. On a CPU, LLVM's higher levels take a third of the time to compile, for no speed."""
    return {"xla_backend_optimization_level": 1} if devices[0].platform == "cpu" else None


def _traced(args: Any) -> bool:
    """Whether this is called while a program is traced: with tracers, or with nothing of it but what `fn` closes over."""
    return any(isinstance(x, jax.core.Tracer) for x in (*jax.tree.leaves(args), jax.lax.full((), 0)))


def _in_groups(fn: Callable[..., Any], groups: int, width: int) -> Callable[..., Any]:
    """`fn` over an axis of `groups` times `width`, one group after the other."""

    def on_a_device(*args):
        one = jax.vmap(fn) if width > 1 else _without_axis(fn)
        if groups == 1:
            return one(*args)
        split = jax.tree.map(lambda x: x.reshape(groups, width, *x.shape[1:]), args)
        out = jax.lax.map(lambda group: one(*group), split)
        return jax.tree.map(lambda x: x.reshape(groups * width, *x.shape[2:]), out)

    return on_a_device


def _without_axis(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`vmap` over an axis of length 1, without batching anything."""

    def one(*args):
        return jax.tree.map(lambda x: jnp.expand_dims(x, 0), fn(*jax.tree.map(lambda x: x[0], args)))

    return one


def _plan(batch_size: int, devices: Sequence[jax.Device], args: Any) -> tuple[int, int, Any]:
    """How many groups on each device, how many elements in each, for equal groups waste least; and the arguments, with the
    last element repeated to fill them up."""
    total = _axis_size(args)
    per_device = math.ceil(total / len(devices))
    groups = math.ceil(per_device / batch_size)
    width = math.ceil(per_device / groups)
    filled = len(devices) * groups * width
    if filled == total:
        return groups, width, args
    return groups, width, jax.tree.map(lambda x: x[np.minimum(np.arange(filled), total - 1)], args)


def _axis_size(args: Any) -> int:
    shapes = [np.shape(x) for x in jax.tree.leaves(args)]
    sizes = {shape[0] if shape else 0 for shape in shapes}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"vectorize: every argument needs one common, non-empty leading axis; got shapes {shapes}")
    return sizes.pop()
