"""PQN, parallelised Q-learning without replay and target network (Gallici et al. 2024)."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import losses, returns, transitions
from jaxrl.checks import (
    AT_LEAST_ZERO,
    FINITE,
    FRACTION,
    check_hparams,
    check_network,
    check_network_output,
    check_optimizer,
    check_size,
)
from jaxrl.exploration import epsilon_greedy
from jaxrl.minibatches import grad_of_mean, map_rows, scan_minibatches
from jaxrl.noise import random_bits
from jaxrl.optimizers import Optimizer, num_updates, optimizer_step
from jaxrl.schedules import linear_schedule
from jaxrl.types import Agent, Discrete, Network, Noise, Space, Transition, UpdateFn


class PQNHParams(NamedTuple):
    """Hyperparameters of `pqn`; each may be traced and batched by `vmap`.

    Attributes:
      learning_rate: learning rate at the first update.
      learning_rate_iterations: iterations over which it decays linearly to 0; inf keeps it constant.
      discount: discount factor γ.
      q_lambda: λ of the Q(λ) targets; 0 is one-step Q-learning, 1 sums the rewards up to the end of the episode or the rollout.
      epsilon_start: probability of a random action at the first iteration.
      epsilon_end: probability of a random action after epsilon_iterations.
      epsilon_iterations: iterations over which epsilon decays linearly.
      max_grad_norm: bound on the global norm of the gradients; inf does not clip.
    """

    learning_rate: float = 2.5e-4
    learning_rate_iterations: float = math.inf
    discount: float = 0.99
    q_lambda: float = 0.65
    epsilon_start: float = 1.0
    epsilon_end: float = 0.05
    epsilon_iterations: float = 100.0
    max_grad_norm: float = 10.0


_RANGES = dict.fromkeys(PQNHParams._fields, FRACTION) | {
    "learning_rate": FINITE,
    "learning_rate_iterations": AT_LEAST_ZERO,
    "epsilon_iterations": AT_LEAST_ZERO,
    "max_grad_norm": AT_LEAST_ZERO,
}


class PQNState(NamedTuple):
    params: Any
    opt_state: Any


class Batch(NamedTuple):
    """What the loss reads of a rollout's N = T * B steps, or of a minibatch of them."""

    obs: Any  # leaves [N, ...]
    action: jax.Array  # int32 [N]
    target: jax.Array  # [N], Q(λ)


def pqn(
    network: Network,
    action_space: Space,
    *,
    num_epochs: int = 2,
    num_minibatches: int = 16,
    optimizer: Optimizer = optax.radam,
    hparams: PQNHParams = PQNHParams(),
) -> Agent:
    """PQN: Q(λ) on rollouts of many environments, for discrete actions, without a replay and without a target network.

    Each iteration acts ε-greedily, computes targets for the whole rollout with the parameters that it starts with, and takes
    gradient steps in several epochs over shuffled minibatches. Layer normalisation in the network replaces the target network
    as what keeps learning stable. Targets bootstrap from the true successor where an episode was truncated and at the end of
    the rollout, and stop where it terminated. Actions whose value is −inf are illegal: they are neither taken nor bootstrapped
    from. The network learns which these are from the action mask of a `Dict` observation. If observations are arrays,
    exploration treats all actions as legal.

    Args:
      network: `apply(params, obs[..., *obs_shape]) -> q[..., n]`, e.g. from `jaxrl.networks.q_network(..., layer_norm=True)`.
      action_space: `Discrete`.
      num_epochs: passes over the rollout.
      num_minibatches: minibatches of each epoch; divides `num_envs * rollout_length`.
      optimizer: function from a learning rate to an optax transformation.
      hparams: the default hyperparameters.

    Returns:
      An `Agent`. Its metrics, means over the gradient steps: `loss`, `q` (mean value of the actions taken), `gradient_norm`
      (before clipping).

    Raises:
      ValueError, TypeError: for another action space, or sizes that are not positive ints.
    """
    if not isinstance(action_space, Discrete):
        raise ValueError(
            f"pqn needs a Discrete action space, got {action_space}; for others use jaxrl.agents.ppo, reinforce or sac, or "
            "wrap the environment in jaxrl.envs.wrappers.discretize_actions"
        )
    num_epochs, num_minibatches = check_size("num_epochs", num_epochs), check_size("num_minibatches", num_minibatches)
    check_network("pqn", network, "q_network(..., layer_norm=True)")
    check_optimizer(optimizer)
    check_hparams(hparams, PQNHParams, _RANGES)

    def init(key, obs, hparams):
        check_hparams(hparams, PQNHParams, _RANGES)
        params = network.init(key, obs)
        q = jax.eval_shape(network.apply, params, obs)
        q_spec = jax.ShapeDtypeStruct((jax.tree.leaves(obs)[0].shape[0], action_space.n), jnp.float32)
        check_network_output("pqn", q, q_spec, "Build it with jaxrl.networks.q_network(..., layer_norm=True)")
        return PQNState(params, optimizer(hparams.learning_rate).init(params))

    def noise(key, num_steps, num_envs):
        act_key, update_key = jax.random.split(key)
        steps = num_steps, num_envs
        return Noise(act=random_bits(act_key, steps, steps), update=jax.random.split(update_key, num_epochs))

    def explore(params, obs, carry, noise_t, hparams, iteration):
        epsilon = linear_schedule(hparams.epsilon_start, hparams.epsilon_end, hparams.epsilon_iterations, iteration)
        all_legal = not isinstance(obs, Mapping)  # only a Dict observation can have a mask
        return epsilon_greedy(network.apply(params, obs), noise_t, epsilon, all_legal=all_legal), carry, ()

    def exploit(params, obs, carry, key):
        return losses.greedy(network.apply(params, obs)), carry

    update = _make_update(network, optimizer, num_epochs, num_minibatches)
    policy = lambda state: state.params
    return Agent(hparams=hparams, init=init, noise=noise, policy=policy, explore=explore, exploit=exploit, update=update)


def _make_update(network: Network, optimizer: Optimizer, num_epochs: int, num_minibatches: int) -> UpdateFn:
    """Gradient steps towards the targets of a rollout, on shuffled minibatches of it."""

    def loss(params, batch):
        q = losses.select(network.apply(params, batch.obs), batch.action)
        mean = jnp.mean(optax.losses.squared_error(q, batch.target))
        return mean, {"loss": mean, "q": jnp.mean(q)}

    def update(state, rollout, noise, hparams, iteration):
        target = _targets(network, state.params, rollout, hparams)
        batch = transitions.flatten(Batch(rollout.obs, rollout.action, target))
        learning_rate = linear_schedule(hparams.learning_rate, 0.0, hparams.learning_rate_iterations, iteration)
        first = num_updates(iteration, 0, num_epochs * num_minibatches)

        def step(carry, minibatch):
            index, params, opt_state = carry
            grads, metrics = grad_of_mean(loss, params, minibatch)
            params, opt_state, norm = optimizer_step(
                optimizer, learning_rate, first + index, grads, opt_state, params, max_grad_norm=hparams.max_grad_norm
            )
            return (index + 1, params, opt_state), metrics | {"gradient_norm": norm}

        carry = jnp.int32(0), state.params, state.opt_state
        (_, params, opt_state), metrics = scan_minibatches(step, carry, batch, noise, num_minibatches)
        return PQNState(params, opt_state), metrics

    return update


def _targets(network: Network, params: Any, rollout: Transition, hparams: PQNHParams) -> jax.Array:
    """Peng's Q(λ) targets `[T, B]`, from one pass of the network over the true successors of all steps."""
    q_t = map_rows(lambda obs: network.apply(params, obs), transitions.flatten(rollout.next_obs))
    q_t = q_t.reshape(*rollout.reward.shape, -1)
    discount_t = transitions.discounts(rollout, hparams.discount)
    return returns.q_lambda(rollout.reward, discount_t, q_t, hparams.q_lambda, truncated=rollout.truncated)
