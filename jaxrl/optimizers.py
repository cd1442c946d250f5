"""Optimizers whose step count comes from the driver, and updates of target networks.

An optimizer is built where it is used, from the learning rate, which may be traced. Counters in its state are not relied on,
since `vmap` would batch a counter in a seed's state. `apply_gradients` sets them instead, unless the number of steps depends on
data.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl._src.shards import mean

Optimizer = Callable[[Any], optax.GradientTransformation]  # from a learning rate, e.g. optax.adam


class AdamState(NamedTuple):
    count: jax.Array  # type: ignore[assignment]  # int32 scalar; optax's name, which hides tuple.count
    mu: Any
    nu: Any


def adam(learning_rate, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015, algorithm 1), equivalent to `optax.adam` but with fewer kernels.

    optax corrects the bias of each moment in a separate pass. Here both corrections are scalars that fuse into a single pass
    over the parameters.
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(jnp.int32(0), zeros, zeros)

    def update(grads, state, params=None):
        del params
        count = jnp.minimum(state.count, jnp.iinfo(jnp.int32).max - 1) + 1  # of PPO, nothing else keeps it from overflowing
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, grads)
        steps = count.astype(jnp.float32)
        step_size = learning_rate / (1 - b1**steps)
        correction = 1 / (1 - b2**steps)

        def change(m, v):
            return -step_size.astype(m.dtype) * m / (jnp.sqrt(correction.astype(v.dtype) * v) + eps)

        updates = jax.tree.map(change, mu, nu)
        return updates, AdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


# --- one step


def optimizer_step(
    optimizer: Optimizer, learning_rate, step: jax.Array | None, grads: Any, opt_state: Any, params: Any, *, max_grad_norm=None
) -> tuple[Any, Any, jax.Array | None]:
    """Average the gradients over the shards, clip them by their global norm, then take one step of the optimizer.

    Args:
      optimizer: function from a learning rate to an optax transformation.
      learning_rate: scalar, may be traced; e.g. from `schedules.linear_schedule`.
      step: int32 scalar, the number of previous steps; see `num_updates`. Must not be batched. None if it depends on data, as
        after an early stop: then the counters in the state of the optimizer are those of the steps that were taken.
      grads, opt_state, params: as for optax.
      max_grad_norm: scalar, may be traced; inf never clips. With None, the norm is not computed, which saves a pass over the
        gradients.

    Returns:
      The new parameters, the new state, and the norm of the gradients before clipping, float32 scalar or None.

    Raises:
      ValueError: if the state of the optimizer holds a counter that does not follow from `step`.
    """
    norm, grads = None, mean(grads)
    if max_grad_norm is not None:
        grads, norm = clip_by_global_norm(grads, max_grad_norm)
    params, opt_state = apply_gradients(optimizer(learning_rate), step, grads, opt_state, params)
    return params, opt_state, norm


def apply_gradients(
    optimizer: optax.GradientTransformation, step: jax.Array | None, grads: Any, opt_state: Any, params: Any
) -> tuple[Any, Any]:
    """Take one step of `optimizer`; `step` is as for `optimizer_step`. Returns the new (params, opt_state).

    Raises:
      ValueError: if the state holds a counter that does not follow from `step`.
    """
    with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes, e.g. radam
        updates, opt_state = optimizer.update(grads, set_step(optimizer, opt_state, step, params), params)
        return optax.apply_updates(params, updates), opt_state


def clip_by_global_norm(grads: Any, max_norm) -> tuple[Any, jax.Array]:
    """Scale all gradients so that their global norm is at most `max_norm` (may be traced; inf never clips).

    Returns:
      The gradients, and their norm before clipping, float32 scalar.
    """
    norm = optax.tree_utils.tree_norm(jax.tree.map(lambda g: g.astype(jnp.float32), grads))
    scale = jnp.where(norm <= max_norm, 1.0, max_norm / norm)  # not a minimum: inf / inf is NaN
    return jax.tree.map(lambda g: g * scale.astype(g.dtype), grads), norm


# --- counts


# The types of states of optax and jaxrl with a field that counts the steps. Given by name, since some are not public.
_COUNTS = dict.fromkeys(
    (
        "AdamState",
        "EmaState",
        "FactoredState",
        "InjectStatefulHyperparamsState",
        "MuonState",
        "ScaleByAdamState",
        "ScaleByAmsgradState",
        "ScaleByBeliefState",
        "ScaleByLionState",
        "ScaleByNovogradState",
        "ScaleByRStdDevWithCountState",
        "ScaleByRmsWithCountState",
        "ScaleByScheduleState",
        "WeightDecaySchedule",
        "WrappedScheduleState",
    ),
    "count",
) | {"ScaleByAdanState": "t"}
_INJECTED = "InjectStatefulHyperparamsState"


def set_step(optimizer: optax.GradientTransformation, opt_state: Any, step: jax.Array | None, params: Any) -> Any:
    """Set the counters in the state of an optimizer: `step`, int32 scalar, is the number of steps taken so far. None leaves them.

    `optax.MultiSteps` may be the outermost transformation. The hyperparameters that `optax.inject_hyperparams` keeps in its
    state are replaced by those that `optimizer` was built with, so that a changing learning rate takes effect.

    Raises:
      ValueError: if the state holds an integer that is not known to follow from the number of steps.
    """
    step = None if step is None else jnp.asarray(step, jnp.int32)
    injected = any(_name(node) == _INJECTED for node in jax.tree.leaves(opt_state, is_leaf=lambda x: _name(x) == _INJECTED))
    built = optimizer.init(params) if injected else opt_state
    if _name(opt_state) != "MultiStepsState" or step is None:
        return _set(opt_state, built, step)
    every = _accumulated_steps(optimizer)
    if every is None or jax.tree.leaves(opt_state.skip_state):
        raise ValueError(
            "optax.MultiSteps must apply its gradients at steps that follow from their number: "
            "give it an int as every_k_schedule, and no should_skip_update_fn"
        )
    inner = _set(opt_state.inner_opt_state, built.inner_opt_state, step // every)
    return opt_state._replace(mini_step=step % every, gradient_step=step // every, inner_opt_state=inner)


def _set(state: Any, built: Any, step: jax.Array | None, owner: str = "the optimizer's state") -> Any:
    """`set_step` for one node of the state; `owner` is the type that contains it."""
    count = _COUNTS.get(_name(state))
    if count:
        counter = getattr(state, count)
        known = {count: counter if step is None else step.astype(counter.dtype)}
        if _name(state) == _INJECTED:
            known["hyperparams"] = built.hyperparams
        others = [name for name in state._fields if name not in known]
        inner = {name: _set(getattr(state, name), getattr(built, name), step, type(state).__name__) for name in others}
        return state._replace(**known, **inner)
    if jax.tree_util.all_leaves([state]):
        if step is not None and jnp.issubdtype(jnp.result_type(state), jnp.integer):
            raise ValueError(
                f"{owner} holds an integer that does not follow from the number of steps, as far as jaxrl knows. "
                "A counter inside the state would be batched by vmap, so the driver has to set it: use a transformation "
                "without one, or with a count of all steps, as optax.adam has"
            )
        return state
    owner = type(state).__name__ if hasattr(state, "_fields") else owner
    one_level = lambda tree: jax.tree.flatten(tree, is_leaf=lambda x: x is not tree)
    (children, treedef), (built_children, _) = one_level(state), one_level(built)
    return jax.tree.unflatten(
        treedef, [_set(child, other, step, owner) for child, other in zip(children, built_children, strict=True)]
    )


def _name(state: Any) -> str:
    """The name of the type of a state, if the type is defined by optax or jaxrl; otherwise empty."""
    kind = type(state)
    return kind.__name__ if kind.__module__.partition(".")[0] in ("optax", "jaxrl") else ""


def _accumulated_steps(optimizer: Any) -> int | None:
    """The number of steps over which `optimizer`, an `optax.MultiSteps` or its transformation, accumulates; None if it varies."""
    schedule = getattr(getattr(optimizer.update, "__self__", None), "_every_k_schedule", lambda step: None)
    every = schedule(jnp.int32(0))
    return every if isinstance(every, int) else None


def num_updates(iteration: jax.Array, warmup: int, updates: int, period: int = 1) -> jax.Array:
    """The number of updates before iteration `iteration`, with `updates` in each iteration from `warmup` on.

    The number stops growing before int32 overflows, but keeps the correct remainder modulo `period`.

    Args:
      iteration: int32 scalar, at least `warmup`.
      warmup, updates: Python ints.
      period: Python int; pass the period of anything that is done every `period` updates, such as `update_target`.

    Raises:
      ValueError: if `period * updates` is not less than 2^31.
    """
    last = (2**31 - 1) // updates - period
    if last < 0:
        raise ValueError(f"a period of {period} updates with {updates} in an iteration is too long to count in int32")
    iterations = iteration - warmup
    if period == 1:
        return jnp.minimum(iterations, last) * updates
    return jnp.where(iterations < last, iterations, last + (iterations - last) % period) * updates


# --- target networks


def polyak_update(params: Any, target_params: Any, tau) -> Any:
    """Move the target parameters by the fraction `tau` towards `params`: tau · params + (1 − tau) · target_params.

    Args:
      params, target_params: trees of float arrays.
      tau: scalar in [0, 1], may be traced. At 0 the target stays exactly the same, at 1 it becomes an exact copy.
    """
    tau = jnp.asarray(tau, jnp.float32)

    def mix(new, old):
        dtype = jnp.float32 if old.dtype.itemsize < 4 else old.dtype  # 1 − tau would round to 1 in bfloat16
        share = tau.astype(dtype)
        return (share * new.astype(dtype) + (1.0 - share) * old.astype(dtype)).astype(old.dtype)

    return jax.tree.map(mix, params, target_params)


def update_target(params: Any, target_params: Any, tau, step: jax.Array, period: int) -> Any:
    """Apply `polyak_update` after every `period`-th gradient step; after the others, return the target unchanged.

    Args:
      params: after the gradient step.
      target_params: before it.
      tau: as for `polyak_update`; 1 is the periodic copy of DQN (Mnih et al. 2015).
      step: int32 scalar, the number of previous gradient steps. If it comes from `num_updates`, pass the same period there, so
        that it is exact in runs of any length.
      period: Python int.
    """
    moved = polyak_update(params, target_params, tau)
    if period == 1:
        return moved
    due = (step + 1) % period == 0
    return jax.tree.map(lambda new, old: jnp.where(due, new, old), moved, target_params)
