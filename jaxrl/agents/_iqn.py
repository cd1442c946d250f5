"""IQN, implicit quantile networks (Dabney et al. 2018b): Q-learning of the return's quantile function at sampled levels."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import losses
from jaxrl.agents._q_learning import Method, QHParams, check_discrete, replay_agent
from jaxrl.agents._qr_dqn import check_kappa
from jaxrl.checks import check_network, check_network_output, check_size
from jaxrl.optimizers import Optimizer, adam
from jaxrl.types import Agent, Space


def iqn(
    network: Any,
    action_space: Space,
    *,
    num_quantiles: int = 8,
    num_policy_quantiles: int = 32,
    kappa: float = 1.0,
    batch_size: int = 128,
    capacity: int = 10_000,
    warmup: int = 100,
    updates_per_iteration: int = 1,
    target_update_period: int = 1,
    double: bool = False,
    n_step: int = 1,
    prioritized: bool = False,
    optimizer: Optimizer = adam,
    hparams: QHParams = QHParams(),
) -> Agent:
    """Q-learning with an implicit quantile network, for discrete actions.

    The level τ of a quantile is an input of the network. An update draws N levels for each transition and N more for its
    successor, and moves the quantiles towards those of the reward plus the discounted return of the successor. The greedy action
    is that with the largest mean over the quantiles at K fixed levels, (i + ½) / K, so that it is deterministic. Everything else
    is as in `dqn`.

    Args:
      network: `init(key, obs, tau)` and `apply(params, obs[..., *obs_shape], tau[..., N] or [N]) -> quantiles[..., n, N]`, e.g.
        from `jaxrl.networks.implicit_quantile_network`.
      action_space: `Discrete`.
      num_quantiles: N, the number of levels drawn for each transition, and for its successor.
      num_policy_quantiles: K, the number of levels in the mean that selects actions, in acting and in targets.
      kappa: as for `qr_dqn`.
      batch_size, capacity, warmup, updates_per_iteration, target_update_period: as for `dqn`.
      double: as for `dqn`.
      n_step: as for `dqn`.
      prioritized: as for `qr_dqn`.
      optimizer: function from a learning rate to an optax transformation.
      hparams: the default hyperparameters.

    Returns:
      An `Agent`. Its metrics: `loss` (with the weights of prioritized replay), `q` (mean value of the actions in the batch, at
      the levels drawn).

    Raises:
      ValueError, TypeError: as for `qr_dqn`, and for numbers of levels that are not positive ints.
    """
    check_network("iqn", network, "implicit_quantile_network")
    check_kappa("iqn", kappa)
    actions, num_quantiles = check_discrete("iqn", action_space), check_size("num_quantiles", num_quantiles)
    num_levels = check_size("num_policy_quantiles", num_policy_quantiles)
    levels = (np.arange(num_levels, dtype=np.float32) + np.float32(0.5)) / np.float32(num_levels)

    def init(key, obs):
        params = network.init(key, obs, levels)
        quantiles = jax.eval_shape(network.apply, params, obs, levels)
        needed = jax.ShapeDtypeStruct((jax.tree.leaves(obs)[0].shape[0], actions.n, num_levels), jnp.float32)
        check_network_output("iqn", quantiles, needed, "Build it with jaxrl.networks.implicit_quantile_network")
        return params

    def quantiles_of_policy(params, obs):
        return network.apply(params, obs, jnp.asarray(levels))

    def q_values(params, obs, noise):
        return jnp.mean(quantiles_of_policy(params, obs), axis=-1)

    def loss_noise(key, shape):
        return (jax.random.uniform(key, (*shape, 2 * num_quantiles), jnp.float32),)

    def loss(params, target_params, batch, noise, hparams):
        tau_tm1, tau_t = jnp.split(noise[0], 2, axis=-1)
        q_tm1 = network.apply(params, batch.obs, tau_tm1)
        q_t = network.apply(target_params, batch.next_obs, tau_t)
        q_t_selector = quantiles_of_policy(params if double else target_params, batch.next_obs)
        each = losses.implicit_quantile_q_learning(
            q_tm1, tau_tm1, batch.action, batch.reward, batch.discount, q_t, q_t_selector, kappa=kappa
        )
        return each, each, losses.select(jnp.mean(q_tm1, axis=-1), batch.action)

    return replay_agent(
        Method(init, q_values, loss, loss_noise=loss_noise), actions, batch_size=batch_size, capacity=capacity, warmup=warmup,
        updates_per_iteration=updates_per_iteration, target_update_period=target_update_period, n_step=n_step,
        prioritized=prioritized, optimizer=optimizer, hparams=hparams,
    )  # fmt: skip
