"""A population of runs that trains in stages: programs that are compiled once and take any number of runs.

A search trains many runs, compares them, and continues some of them. The number of runs changes, but a compiled program has a
fixed number. `compile_stages` therefore compiles for `width` runs; a stage of n runs calls the program ⌈n / width⌉ times, and the
last call repeats a run to fill it. On a CPU the width is one run per device, which wastes nothing.
docs/searches.md has figures.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import check_size
from jaxrl._src.device_memory import largest_that_fits
from jaxrl.experiment.host import is_on_host
from jaxrl.experiment.policies import SELECTION_STREAM
from jaxrl.learner import advance
from jaxrl.rollout import evaluate
from jaxrl.types import HParams, Learner, LearnerState
from jaxrl.vectorization import compiler_options, spread_over, vectorize


def check_settings(hparams: HParams) -> int:
    """Return N, the number of settings. Raises ValueError unless every leaf of `hparams` is `[N]`, N at least 1."""
    shapes = {jax.tree_util.keystr(path): np.shape(x) for path, x in jax.tree_util.tree_leaves_with_path(hparams)}
    distinct = set(shapes.values())
    if len(distinct) == 1 and len(shape := distinct.pop()) == 1 and shape[0] > 0:
        return shape[0]
    got = ", ".join(f"{list(shape)} for {name}" for name, shape in shapes.items())
    raise ValueError(f"hparams must have leaves of one shape [N], a value for each of N settings; got {got}")


class Stages(NamedTuple):
    """Programs for a population of N runs, for any N. Leaves of `keys`, `states` and `hparams` are `[N, ...]`.

    Attributes:
      init: `(keys, hparams) -> states`.
      advance: `(states, stage, num_stages, hparams) -> states`: `num_stages` stages from number `stage` on. The states that are
        passed must not be used again.
      evaluate: `(keys, states) -> returns[N]`, each the mean over greedy episodes, as NumPy array.
      width: number of runs for which the programs are compiled.
      num_iterations: number of iterations in a stage.
    """

    init: Callable[[jax.Array, HParams], LearnerState]
    advance: Callable[[LearnerState, int, int, HParams], LearnerState]
    evaluate: Callable[[jax.Array, LearnerState], np.ndarray]
    width: int
    num_iterations: int


def compile_stages(
    learner: Learner,
    keys: jax.Array,
    hparams: HParams,
    *,
    num_iterations: int,
    num_episodes: int,
    batch_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Stages:
    """Compile the programs of a population.

    Args:
      learner: from `make_learner`.
      keys: one for each run at the start, `[N]`; only the shape is used, as for `hparams`.
      hparams: leaves `[N]`.
      num_iterations: number of iterations in a stage.
      num_episodes: number of greedy episodes in an evaluation, played in parallel.
      batch_size: the largest number of runs that are trained at once. By default one on each CPU device, elsewhere as many as
        fit into memory.
      devices: by default all.

    Raises:
      ValueError: for an environment on the host, and if not even a single run fits into memory.
    """
    if is_on_host(learner):
        raise ValueError(f"searches train many runs in one program, and {learner.env.name} is not a JAX program: use jaxrl train")
    num_runs, available = len(keys), tuple(jax.local_devices() if devices is None else devices)
    default = len(available) if available[0].platform == "cpu" else num_runs
    most = check_size("batch_size", default if batch_size is None else batch_size)
    used = spread_over(min(most, num_runs), available)
    init = vectorize(learner.init, devices=used)
    shapes = partial(_widened, (keys, hparams))

    def advance_one(stage, state, hparams):
        start = learner.agent.warmup + stage * num_iterations
        return advance(state, start, learner, num_iterations, hparams, log_every=num_iterations)[0]

    def evaluate_one(_, key, state):
        key = jax.random.fold_in(key, SELECTION_STREAM)
        return jnp.nanmean(evaluate(key, learner, state, num_episodes=num_episodes))  # over those that end

    def states_of(width):
        return jax.eval_shape(init, *shapes(width))

    def compile_advance(each):
        width = each * len(used)
        return _compile(advance_one, used, (states_of(width), shapes(width)[1]), donate=True)

    each, program = largest_that_fits(compile_advance, math.ceil(min(most, num_runs) / len(used)), used)
    width = each * len(used)
    evaluation = _compile(evaluate_one, used, (shapes(width)[0], states_of(width)))

    def advance_all(states, stage, num_stages, hparams):
        def stages(states, hparams):
            for number in range(stage, stage + num_stages):
                states = _call(program, number, states, hparams)
            return states

        return in_batches(stages, width)(states, hparams)

    return Stages(
        init=in_batches(init, width),
        advance=advance_all,
        evaluate=lambda keys, states: np.asarray(in_batches(partial(_call, evaluation, 0), width)(keys, states)),
        width=width,
        num_iterations=num_iterations,
    )


def stage_length(num_iterations: int, num_stages: int) -> int:
    """The number of iterations in each of `num_stages` equal stages of a run, or in more and shorter ones if it does not divide.

    >>> stage_length(1000, 20), stage_length(1000, 16)
    (50, 50)
    """
    return next(length for length in range(num_iterations // num_stages, 0, -1) if num_iterations % length == 0)


def in_batches(fn: Callable[..., Any], width: int) -> Callable[..., Any]:
    """A function over a leading axis of any length N, by calls of `fn` with an axis of length `width`.

    The last call is filled up with copies of the last element. If N is `width`, the arguments are passed as they are.
    """

    def call(*args):
        total = jax.tree.leaves(args)[0].shape[0]
        if total == width:
            return fn(*args)
        parts = [fn(*take(args, np.minimum(first + np.arange(width), total - 1))) for first in range(0, total, width)]
        return _joined(parts, total)

    return call


@jax.jit
def take(tree: Any, indices: Any) -> Any:
    """The elements of every leaf with these indices, `[n]`."""
    return jax.tree.map(lambda x: x[indices], tree)


@partial(jax.jit, static_argnums=1)
def _joined(parts: Sequence[Any], total: int) -> Any:
    """The first `total` elements of the concatenated leaves."""
    return jax.tree.map(lambda *x: jnp.concatenate(x)[:total], *parts)


def _widened(tree: Any, width: int) -> Any:
    """The shapes of the leaves with another leading axis."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((width, *x.shape[1:]), x.dtype), tree)


def _compile(fn: Callable[..., Any], devices: Sequence[jax.Device], shapes: Any, *, donate: bool = False) -> jax.stages.Compiled:
    """Compile `fn(number, *args)` over a leading axis of `args`; `number` is an int32 that is not batched."""
    batched = lambda number, *args: vectorize(partial(fn, number), devices=devices)(*args)
    options = compiler_options(devices)
    jitted = jax.jit(batched, donate_argnums=1 if donate else (), compiler_options=options)
    return jitted.lower(jax.ShapeDtypeStruct((), jnp.int32), *shapes).compile()


def _call(program: jax.stages.Compiled, number: int, *args: Any) -> Any:
    return program(*jax.device_put((jnp.int32(number), *args), program.input_shardings[0]))
