"""What C51, QR-DQN and Rainbow share: a network with K numbers for each action, which describe the distribution of its return."""

from collections.abc import Callable

import jax

from jaxrl import losses
from jaxrl.agents._q_learning import Method, acting_noise, loss_noise
from jaxrl.checks import check_network, check_network_output
from jaxrl.types import Discrete, Network


def distributional_method(
    name: str,
    network: Network,
    actions: Discrete,
    *,
    mean: Callable[[jax.Array], jax.Array],
    loss: Callable[..., jax.Array],
    double: bool,
    noisy: bool,
) -> Method:
    """The `Method` of a network with outputs `[N, A, K]`.

    Args:
      name: of the agent, for errors.
      network: `apply(params, obs) -> [..., n, K]`.
      actions: `Discrete(n)`.
      mean: outputs `[..., A, K]` to the mean returns `[..., A]`.
      loss: `(out_tm1, action, reward, discount, out_t, out_t_selector) -> [N]`. The mean of the selector's outputs
        chooses the successor's action. The loss is also the priority.
      double: select with the online network; otherwise with the target network.
      noisy: the network is a `NoisyNetwork`.
    """
    check_network(name, network, "distributional_q_network")

    def init(key, obs):
        params = network.init(key, obs)
        out = jax.eval_shape(network.apply, params, obs)
        size = jax.tree.leaves(out)[0].shape[-1]
        needed = jax.ShapeDtypeStruct((jax.tree.leaves(obs)[0].shape[0], actions.n, size), "float32")
        check_network_output(name, out, needed, "Build it with jaxrl.networks.distributional_q_network")
        return params

    def q_values(params, obs, noise):
        return mean(network.apply(params, obs, *noise))

    def loss_of_batch(params, target_params, batch, noise, hparams):
        online, target, selector = noise or ((), (), ())
        out_tm1 = network.apply(params, batch.obs, *online)
        out_t = network.apply(target_params, batch.next_obs, *target)
        out_t_selector = network.apply(params, batch.next_obs, *selector) if double else out_t
        each = loss(out_tm1, batch.action, batch.reward, batch.discount, out_t, out_t_selector)
        return each, each, losses.select(mean(out_tm1), batch.action)

    method = Method(init, q_values, loss_of_batch)
    if noisy:
        method = method._replace(acting_noise=acting_noise(network), loss_noise=loss_noise(network))
    return method
