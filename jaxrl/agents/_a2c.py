"""Advantage actor-critic (A2C, the synchronous form of A3C, Mnih et al. 2016), for discrete and continuous actions."""

import math
from functools import partial
from typing import NamedTuple

import optax

from jaxrl import losses, transitions
from jaxrl.agents._actor_critic import ActorCriticState, Feedforward, actor_critic, make_batch, total_loss
from jaxrl.checks import AT_LEAST_ZERO, FINITE, FRACTION, check_network
from jaxrl.minibatches import grad_of_mean
from jaxrl.optimizers import Optimizer, adam, optimizer_step
from jaxrl.policies import policy_head
from jaxrl.schedules import linear_schedule
from jaxrl.types import Agent, Network, Space


class A2CHParams(NamedTuple):
    """Hyperparameters of `a2c`; each may be traced and batched by `vmap`.

    Attributes:
      learning_rate: learning rate at the first update.
      learning_rate_iterations: iterations over which it decays linearly to 0; inf keeps it constant.
      discount: discount factor γ.
      gae_lambda: λ of the generalised advantage estimates and of the value targets.
      value_coef: weight of the value loss.
      entropy_coef: weight of the policy's entropy in the loss.
      max_grad_norm: bound on the global norm of the gradients; inf does not clip.
    """

    learning_rate: float = 3e-3
    learning_rate_iterations: float = math.inf
    discount: float = 0.99
    gae_lambda: float = 0.95
    value_coef: float = 0.5
    entropy_coef: float = 0.01
    max_grad_norm: float = 0.5


_RANGES = {
    "learning_rate": FINITE,
    "learning_rate_iterations": AT_LEAST_ZERO,
    "discount": FRACTION,
    "gae_lambda": FRACTION,
    "value_coef": FINITE,
    "entropy_coef": FINITE,
    "max_grad_norm": AT_LEAST_ZERO,
}


def a2c(
    network: Network,
    action_space: Space,
    *,
    squash: bool = False,
    normalize_advantage: bool = False,
    optimizer: Optimizer = partial(adam, eps=1e-5),
    hparams: A2CHParams = A2CHParams(),
) -> Agent:
    """Advantage actor-critic with generalised advantage estimates (Schulman et al. 2016).

    Each iteration takes one gradient step on one rollout, on log π(a|s) A + c_e H(π(s)) − c_v ½ (V(s) − G)², averaged over its
    steps. Values are bootstrapped from true successors, even at time limits.

    Args:
      network: `apply(params, obs[..., *obs_shape]) -> (policy, value[...])`, where `policy` is what
        `jaxrl.policies.policy_head` takes; e.g. from `jaxrl.networks.policy(..., value=True)`.
      action_space: `Discrete`, `MultiDiscrete`, or a `Box` of floats.
      squash: for a Box with finite bounds, apply a tanh to the Gaussian's sample instead of clipping it to the bounds.
      normalize_advantage: normalise the advantages of a rollout to mean 0 and standard deviation 1.
      optimizer: function from a learning rate to an optax transformation.
      hparams: the default hyperparameters.

    Returns:
      An `Agent`. Its metrics: `loss`, `policy_loss`, `value_loss`, `entropy`, `gradient_norm` (before clipping).

    Raises:
      ValueError: for an unsupported action space, `squash` without finite bounds, or a hyperparameter out of range.
    """
    check_network("a2c", network, "policy(..., value=True)")
    head, stateless = policy_head(action_space, squash=squash), Feedforward(network)

    def update(state, rollout, noise, hparams, iteration):
        batch = make_batch(stateless, head, state.params, rollout, hparams)
        if normalize_advantage:
            batch = batch._replace(advantage=transitions.normalize(batch.advantage))

        def loss(params, batch):
            policy, value = network.apply(params, batch.obs)
            policy_loss = losses.policy_gradient(head.log_prob(policy, batch.raw_action), batch.advantage)
            value_loss = optax.losses.l2_loss(value, batch.target)
            return total_loss(policy_loss, value_loss, head.entropy(policy, batch.raw_action), hparams)

        grads, metrics = grad_of_mean(loss, state.params, batch)
        learning_rate = linear_schedule(hparams.learning_rate, 0.0, hparams.learning_rate_iterations, iteration)
        params, opt_state, norm = optimizer_step(
            optimizer, learning_rate, iteration, grads, state.opt_state, state.params, max_grad_norm=hparams.max_grad_norm
        )
        return ActorCriticState(params, opt_state), metrics | {"gradient_norm": norm}

    return actor_critic("a2c", stateless, head, update, optimizer=optimizer, hparams=hparams, record=A2CHParams, ranges=_RANGES)
