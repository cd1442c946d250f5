"""Apply recurrent networks along a rollout, differentiably, with the same carries and resets as when it was collected.

>>> import jax, jax.numpy as jnp
>>> from jaxrl.networks import recurrent_q_network
>>> from jaxrl.types import Box, Discrete
>>> network = recurrent_q_network(Box(-1, 1, (3,)), Discrete(2), hidden=(), num_units=4)
>>> obs, carry, done = jnp.zeros((5, 8, 3)), network.initial_carry(8), jnp.zeros((5, 8), bool)
>>> params = network.init(jax.random.key(0), obs[0], carry)
>>> q, carries = unroll_network(network, params, obs, carry, done)
>>> next_q = successor_outputs(network, params, obs, carries)  # of next_obs
>>> q.shape, carries.shape, next_q.shape
((5, 8, 2), (5, 8, 4), (5, 8, 2))
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.types import Carry, Obs, PyTree, RecurrentNetwork


def reset_carry(network: RecurrentNetwork, carry: Carry, done: jax.Array) -> Carry:
    """The carry for the next step: `carry`, or the initial carry where the episode is done.

    Args:
      network: a recurrent network.
      carry: after a step, leaves `[B, ...]`.
      done: whether that step ended the episode, by termination or truncation; bool `[B]`.

    Returns:
      Leaves `[B, ...]`.
    """

    def select(initial, x):
        return jnp.where(done.reshape(done.shape + (1,) * (x.ndim - 1)), initial, x)

    return jax.tree.map(select, network.initial_carry(done.shape[0]), carry)


def unroll_network(network: RecurrentNetwork, params: PyTree, obs: Obs, carry: Carry, done: jax.Array) -> tuple[Any, Carry]:
    """Apply a recurrent network along T steps, starting from `carry`, with a reset to the initial carry after each episode.

    Args:
      network: a recurrent network.
      params: its parameters. Differentiated, through time and up to the last reset.
      obs: leaves `[T, B, ...]`.
      carry: before the first step, leaves `[B, ...]`, such as `rollout.carry` at step 0. Differentiated.
      done: whether a step ended its episode, by termination or truncation; bool `[T, B]`. It takes effect on the next step.

    Returns:
      The outputs, and the carry after each step, before any reset: leaves `[T, B, ...]`. Pass the carries to
      `successor_outputs`, or the last one to `reset_carry` to continue at step T.

    Raises:
      ValueError: if `obs`, `carry` and `done` do not have the same T and B.
      TypeError: if `done` is not boolean.
    """
    _check(obs, carry, done)

    def step(carry, obs_and_done):
        obs_t, done_t = obs_and_done
        output, carry = network.apply(params, obs_t, carry)
        return reset_carry(network, carry, done_t), (output, carry)

    return jax.lax.scan(step, carry, (obs, done))[1]


def successor_outputs(network: RecurrentNetwork, params: PyTree, next_obs: Obs, carries: Carry) -> Any:
    """The network's outputs at the true successor of each step, for bootstrapping. All steps are computed in parallel.

    The carry for `next_obs[t]` is the carry after step t, without a reset: if step t truncated its episode, `next_obs[t]` still
    belongs to that episode.

    Args:
      network: a recurrent network.
      params: its parameters. Differentiated.
      next_obs: the true successors, leaves `[T, B, ...]`.
      carries: from `unroll_network`, leaves `[T, B, ...]`. Differentiated.

    Returns:
      The outputs, leaves `[T, B, ...]`.

    Raises:
      ValueError: if `next_obs` and `carries` do not have the same T and B.
    """
    shape = jax.tree.leaves(carries)[0].shape
    _check_leading("successor_outputs", "next_obs", next_obs, shape[:2], f"carries {shape}")
    flat_obs, flat_carries = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (next_obs, carries))
    outputs, _ = network.apply(params, flat_obs, flat_carries)
    return jax.tree.map(lambda x: x.reshape(*shape[:2], *x.shape[1:]), outputs)


def _check(obs: Obs, carry: Carry, done: jax.Array) -> None:
    if done.dtype != jnp.bool_:
        raise TypeError(f"unroll_network: done must be of bools, got {done.dtype}")
    if done.ndim != 2:
        raise ValueError(f"unroll_network: done must be [T, B], got shape {done.shape}")
    for name, tree, shape in (("obs", obs, done.shape), ("carry", carry, done.shape[1:])):
        _check_leading("unroll_network", name, tree, shape, f"done {done.shape}")


def _check_leading(function: str, name: str, tree: Any, shape: tuple[int, ...], fits: str) -> None:
    for x in jax.tree.leaves(tree):
        if x.shape[: len(shape)] != shape:
            raise ValueError(f"{function}: {name} must have leading axes {shape}, to fit {fits}; got {x.shape}")
