"""`vectorize` maps a function over a leading axis of seeds or settings, with a layout that suits the machine.

The axis is split over the devices. Each device loops over groups with `lax.map` and runs each group with `vmap`. Seeds do not
communicate, so the program contains no collectives, unless one seed has several shards, each on a device of its own.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.core import trace_state_clean  # no public function knows of a `jax.grad` without a traced argument
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from jaxrl._src import shards
from jaxrl._src.checks import check_size
from jaxrl._src.device_memory import largest_that_fits
from jaxrl.types import LearnerState

# Batched small matrix products are slow on a CPU; it is fastest to run one seed at a time on each core.
_CPU_BATCH_SIZE = 1


def vectorize(
    fn: Callable[..., Any],
    *,
    batch_size: int | Literal["auto"] | None = None,
    devices: Sequence[jax.Device] | None = None,
    num_shards: int = 1,
) -> Callable[..., Any]:
    """`jit(vmap(fn))`, with the leading axis split over the devices and processed in groups.

    Args:
      fn: a pure function of one seed, e.g. `lambda key: jaxrl.train(key, learner, 1000)`.
      batch_size: size of a group: the number of elements that run at once on a device. Smaller groups need less memory. By
        default all elements on a GPU or TPU, and one on a CPU. "auto" reduces the default to what fits into the free memory
        of the devices, according to the compiler's memory analysis; they must belong to this process.
      devices: by default all devices of the default backend that belong to this process. Arguments on other devices are
        copied to these. A mesh that `jax.set_mesh` has set is not used. Within another `vectorize`, each of its devices runs
        all of it.
      num_shards: S, the number of devices for each element. With more than 1, `fn` runs on S devices at once: each has 1 / S of
        the environments, of the replay and of every batch, and gradients and statistics are averaged. If there is only one
        device, it runs the S shards by `vmap`, with the same result up to rounding. See `docs/devices.md`.

    Returns:
      A function of the same arguments with a leading axis on every leaf, `[N, ...]`, whose results also have that axis. If N
      elements do not divide into equal groups, copies of the last element are added as padding, and their results dropped.
      With several shards, a `LearnerState` in the arguments or the results has one more axis, that of the shards:
      `[N, S, ...]`. Everything else is the same in all shards, such as parameters and metrics.

    Raises:
      ValueError: if the leaves have no common leading axis, or it is empty. With "auto", also inside another transformation,
        and if not even groups of one fit into memory. Arguments and results for the whole axis must fit as well: to fix
        this, return less, or call the function on a part of the axis at a time. With several shards, if there are too few
        devices, if `num_shards` does not divide the sizes of a learner, or if a result other than a `LearnerState` differs
        between the shards, or within another `vectorize`. If there is no device, or one is there twice.
      TypeError: if `batch_size` is neither an int nor "auto", or `devices` are none.

    >>> import jax, jax.numpy as jnp
    >>> vectorize(lambda x: x**2, batch_size=2)(jnp.arange(5.0)).tolist()
    [0.0, 1.0, 4.0, 9.0, 16.0]
    """
    if batch_size is not None and batch_size != "auto":
        batch_size = check_size("batch_size", batch_size)
    available = rows_of_devices(jax.local_devices() if devices is None else devices, check_size("num_shards", num_shards))
    if batch_size == "auto" and any(device.process_index != jax.process_index() for row in available for device in row):
        raise ValueError('batch_size="auto" measures the free memory of this process; for devices of several, give a number')

    def run(groups, width, *args):
        """`fn` over an axis of length devices × `groups` × `width`."""
        used = available[: _axis_size(args) // (groups * width)]
        if num_shards > 1:
            return _run_shards(fn, num_shards, groups, width, used, args)
        on_a_device = _in_groups(fn, groups, width)
        if _needs_no_mesh(num_shards, used) or _within_devices():
            return on_a_device(*args)
        mesh, spec, _ = _layout(num_shards, used)
        return jax.shard_map(on_a_device, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)(*args)

    outermost = jax.jit(run, static_argnums=(0, 1), compiler_options=compiler_options(available[0]))
    inner = jax.jit(run, static_argnums=(0, 1))  # for use inside another jit, where compiler options are not allowed
    fitting: dict[Any, tuple[int, jax.stages.Compiled]] = {}  # keyed by the shapes of the arguments

    def largest_fitting(most, used, args):
        leaves, treedef = jax.tree.flatten(args)
        shapes = treedef, tuple((np.shape(x), x.dtype) for x in leaves)

        def compile_for(size):
            groups, width, padded = _planned_and_placed(num_shards, size, used, args)
            return outermost.lower(groups, width, *padded).compile()

        if shapes not in fitting:
            fitting[shapes] = largest_that_fits(compile_for, most, [device for row in used for device in row])
        return fitting[shapes]

    def vectorized(*args):
        total = _axis_size(args)
        used = spread_over(total, _usable(available, num_shards))
        most = _most_at_once(total, used)
        if _traced(args):
            if batch_size == "auto":
                raise ValueError('batch_size="auto" compiles and measures: call it outside of jit and vmap, or give a number')
            groups, width, padded = _plan(batch_size or most, used, args)
            return _without_padding(inner(groups, width, *padded), padded, total)
        with _own_mesh(num_shards, used):
            if batch_size == "auto":
                size, program = largest_fitting(most, used, args)
                _, _, padded = _planned_and_placed(num_shards, size, used, args)
                out = program(*jax.device_put(padded, program.input_shardings[0]))
            else:
                groups, width, padded = _planned_and_placed(num_shards, batch_size or most, used, args)
                out = outermost(groups, width, *padded)
            return _without_padding(out, padded, total)

    return vectorized


def rows_of_devices(devices: Sequence[jax.Device], num_shards: int) -> tuple[tuple[jax.Device, ...], ...]:
    """Disjoint rows of `num_shards` neighbouring devices, or a row of the only device."""
    row = tuple(devices) if isinstance(devices, Iterable) else None
    if row is None or not all(hasattr(device, "process_index") for device in row):
        raise TypeError(f"devices must be a sequence of devices, such as jax.devices()[:2]; got {devices!r}")
    if len(set(map(id, row))) < max(1, len(row)):
        raise ValueError(f"devices must be at least one device, and each only once; got {list(row)}")
    if len(row) == 1:
        return (row,)
    if len(row) < num_shards:
        raise ValueError(
            f"num_shards {num_shards} needs as many devices, and there are {len(row)}; on a single device, "
            "devices=jax.devices()[:1], the shards run by vmap"
        )
    return tuple(row[i : i + num_shards] for i in range(0, len(row) - num_shards + 1, num_shards))


def _usable(rows: Any, num_shards: int) -> Any:
    """The rows of devices, or a single one where each device runs the function by itself, as within another `vectorize`."""
    if not _within_devices():
        return rows
    if num_shards > 1:
        raise ValueError("vectorize: num_shards must be 1 within a function that is spread over devices already")
    return rows[:1]


def _mesh(devices: Any, axes: tuple[str, ...]) -> Mesh:
    return Mesh(np.array(devices), axes, axis_types=(AxisType.Auto,) * len(axes))


def _most_at_once(total: int, used: Any) -> int:
    """The size of a group on a device if memory is enough."""
    per_device = math.ceil(total / len(used))
    # JAX's check of keys takes the transposition of a batch of them for a use.
    one_by_one = used[0][0].platform == "cpu" or jax.config.jax_debug_key_reuse  # type: ignore[attr-defined]
    return min(per_device, _CPU_BATCH_SIZE) if one_by_one else per_device


def _needs_no_mesh(num_shards: int, used: Any) -> bool:
    """Whether it is the default device. Without a mesh, functions that were traced before are not traced again."""
    return num_shards == 1 and used == ((jax.local_devices()[0],),) and not jax.config.jax_default_device  # type: ignore[attr-defined]


def _layout(num_shards: int, used: Any) -> tuple[Mesh, PartitionSpec, PartitionSpec]:
    """The mesh of these devices, and how a `LearnerState` and everything else are split over it."""
    alike = PartitionSpec("seeds")
    if num_shards == 1:
        return _mesh([device for (device,) in used], ("seeds",)), alike, alike
    if len(used[0]) == 1:
        return _mesh(used, ("seeds", "one")), alike, alike
    return _mesh(used, ("seeds", shards.AXIS)), PartitionSpec("seeds", shards.AXIS), alike


def _own_mesh(num_shards: int, used: Any) -> Any:
    """The context of these devices, where another one is set: `shard_map` takes no mesh but that of its context."""
    if jax.sharding.get_abstract_mesh().empty:
        return contextlib.nullcontext()
    return jax.set_mesh(_layout(num_shards, used)[0])


def _planned_and_placed(num_shards: int, batch_size: int, used: Any, args: Any) -> tuple[int, int, Any]:
    """As `_plan`, with arguments on the devices that will run. JAX itself moves only arrays that nobody has placed."""
    groups, width, padded = _plan(batch_size, used, jax.tree.map(_without_explicit_axes, args))
    mesh, *specs = _layout(num_shards, used)
    state, other = (NamedSharding(mesh, spec) for spec in specs)  # type: Sharding, Sharding
    if _needs_no_mesh(num_shards, used):
        state = other = SingleDeviceSharding(used[0][0])

    def place(x):
        return jax.tree.map(partial(_move, state if _is_state(x) else other), x)

    return groups, width, jax.tree.map(place, padded, is_leaf=_is_state)


def _move(sharding: Sharding, x: Any) -> Any:
    """An array on its devices, without a copy if it is there. One that is spread over several processes stays as it is."""
    if not (isinstance(x, jax.Array) and x.committed and x.is_fully_addressable and x.sharding != sharding):
        return x
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])  # each process has the whole array


def _without_explicit_axes(x: Any) -> Any:
    """The same array, in whose type no mesh takes part."""
    sharding = getattr(x, "sharding", None)
    if not isinstance(sharding, NamedSharding) or AxisType.Explicit not in sharding.mesh.axis_types:
        return x
    return jax.device_put(x, NamedSharding(_mesh(sharding.mesh.devices, sharding.mesh.axis_names), sharding.spec))


def _without_padding(out: Any, padded: Any, total: int) -> Any:
    """The first results. Inside of the program, this would gather them from all devices."""
    return out if _axis_size(padded) == total else jax.tree.map(lambda x: x[:total], out)


def _run_shards(fn: Callable[..., Any], num: int, groups: int, width: int, used: Any, args: Any) -> Any:
    """`fn` in `num` shards, over an axis of length devices × `groups` × `width`. A `LearnerState` has an axis of shards."""
    joins: list[Callable[..., Any]] = []  # the last one is for the results, found while tracing

    def separate(*args):
        """`fn`, with its results in two lists: those that are `LearnerState`s, and the others."""
        states, others, join = _separate(fn(*args))
        joins.append(join)
        return states, others

    def on_one_device(*args):
        in_axes = _for_states(args, 0, None)
        return jax.vmap(separate, in_axes, (0, None), axis_size=num, axis_name=shards.AXIS)(*args)

    def on_its_device(*args):
        args = jax.tree.map(lambda x: jax.tree.map(lambda leaf: leaf[0], x) if _is_state(x) else x, args, is_leaf=_is_state)
        states, others = separate(*args)
        return jax.tree.map(lambda leaf: leaf[None], states), others

    _check_equal_in_shards(on_one_device, args)
    spread = len(used[0]) > 1
    mesh, own, alike = _layout(num, used)
    over_seeds = jax.shard_map(
        _in_groups(on_its_device if spread else on_one_device, groups, width),
        mesh=mesh, in_specs=_for_states(args, own, alike), out_specs=(own, alike), check_vma=False,
    )  # fmt: skip
    results = over_seeds(*args)
    return joins[-1](*results)


def _check_equal_in_shards(on_one_device: Callable[..., Any], args: Any) -> None:
    """Raise ValueError if a result that must be the same in all shards depends on the shard, as far as `vmap` can tell."""
    try:
        jax.eval_shape(on_one_device, *jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), args))
    except ValueError as error:
        if "out_axes" not in str(error):
            raise
        raise ValueError(
            "vectorize: with num_shards, a result that is no LearnerState must be the same in all shards, as parameters and "
            "metrics are; return the whole LearnerState, or average with jaxrl.shards.mean"
        ) from error


def _is_state(x: Any) -> bool:
    return isinstance(x, LearnerState)


def _separate(tree: Any) -> tuple[list[LearnerState], list[Any], Callable[[list[Any], list[Any]], Any]]:
    """The `LearnerState`s in a tree, its other leaves, and the function that puts two such lists into the tree's structure."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=_is_state)
    are_states = [_is_state(x) for x in leaves]

    def join(states, others):
        states, others = iter(states), iter(others)
        return jax.tree.unflatten(treedef, [next(states if is_state else others) for is_state in are_states])

    return [x for x in leaves if _is_state(x)], [x for x in leaves if not _is_state(x)], join


def _for_states(tree: Any, state: Any, other: Any) -> Any:
    """`tree` with `state` in place of each `LearnerState` in it, and `other` in place of each other leaf."""
    return jax.tree.map(lambda x: state if _is_state(x) else other, tree, is_leaf=_is_state)


def spread_over(total: int, devices: Sequence[Any]) -> tuple[Any, ...]:
    """The fewest devices that process `total` elements in as few rounds as all devices would, e.g. 8 of 12 for 16 elements."""
    rounds = math.ceil(total / len(devices))
    return tuple(devices[: math.ceil(total / rounds)])


def use_all_cores() -> None:
    """Create one CPU device for each core that this process may use. Call this before JAX initialises its backend.

    A number that is set stays: by `jax_num_cpu_devices`, the variable `JAX_NUM_CPU_DEVICES`, or
    `--xla_force_host_platform_device_count` in `XLA_FLAGS`.

    Raises:
      RuntimeError: if no number is set, and the backend is already initialised.
    """
    is_set = jax.config.jax_num_cpu_devices >= 0  # type: ignore[attr-defined]
    if is_set or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jax.config.update("jax_num_cpu_devices", cores)


def compiler_options(devices: Sequence[jax.Device]) -> dict[str, Any] | None:
    """Compiler options for training programs. On a CPU, LLVM's higher levels take a third of the compile time without a gain."""
    return {"xla_backend_optimization_level": 1} if devices[0].platform == "cpu" else None


def _traced(args: Any) -> bool:
    """Whether this is called during a trace, even if no argument is traced but only something that the function closes over."""
    return not trace_state_clean() or any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args))


def _within_devices() -> bool:
    """Whether this is traced for each device separately, as within `shard_map`."""
    return AxisType.Manual in jax.sharding.get_abstract_mesh().axis_types


def _in_groups(fn: Callable[..., Any], groups: int, width: int) -> Callable[..., Any]:
    """`fn` over an axis of length `groups` × `width`, one group after the other."""

    def on_a_device(*args):
        one = jax.vmap(fn) if width > 1 else _without_axis(fn)
        if groups == 1:
            return one(*args)
        split = jax.tree.map(lambda x: x.reshape(groups, width, *x.shape[1:]), args)
        out = _map_in_place(one, split)
        return jax.tree.map(lambda x: x.reshape(groups * width, *x.shape[2:]), out)

    return on_a_device


def _map_in_place(fn: Callable[..., Any], args: Any) -> Any:
    """`lax.map` of `fn(*args)`, in which the next `LearnerState`s, if `fn` returns as many as it takes, replace the former ones.

    `lax.map` cannot write its results over its arguments, even if they are donated: it would copy a replay four times instead
    of twice, and have it in memory twice.
    """
    states, others, join = _separate(args)
    first = jax.eval_shape(lambda args: jax.tree.map(lambda x: x[0], args), args)
    results, _, join_results = _separate(jax.eval_shape(fn, *first) if states else None)
    if not states or _shapes(results) != _shapes(_separate(first)[0]):
        return jax.lax.map(lambda group: fn(*group), args)

    def step(states, i_and_others):
        i, others = i_and_others
        now = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), states)
        new, others, _ = _separate(fn(*join(now, others)))
        return jax.tree.map(lambda all, x: jax.lax.dynamic_update_index_in_dim(all, x, i, 0), states, new), others

    return join_results(*jax.lax.scan(step, states, (jnp.arange(_axis_size(args)), others)))


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


def _without_axis(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` over an axis of length 1, without batching."""

    def one(*args):
        return jax.tree.map(lambda x: jnp.expand_dims(x, 0), fn(*jax.tree.map(lambda x: x[0], args)))

    return one


def _plan(batch_size: int, devices: Sequence[Any], args: Any) -> tuple[int, int, Any]:
    """The number of groups on each device, their size, and the arguments, padded with copies of the last element.

    Equal groups of at most `batch_size` need the least padding.
    """
    total = _axis_size(args)
    per_device = math.ceil(total / len(devices))
    groups = math.ceil(per_device / batch_size)
    width = math.ceil(per_device / groups)
    padded = len(devices) * groups * width
    if padded == total:
        return groups, width, args
    return groups, width, jax.tree.map(lambda x: x[np.minimum(np.arange(padded), total - 1)], args)


def _axis_size(args: Any) -> int:
    shapes = [np.shape(x) for x in jax.tree.leaves(args)]
    sizes = {shape[0] if shape else 0 for shape in shapes}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"vectorize: every argument needs one common, non-empty leading axis; got shapes {shapes}")
    return sizes.pop()
