"""What A2C, PPO and recurrent PPO share: acting, the batch of a rollout, and the sum of their losses."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import transitions
from jaxrl.checks import check_hparams, check_network_output, check_optimizer
from jaxrl.minibatches import map_rows
from jaxrl.optimizers import Optimizer
from jaxrl.policies import PolicyHead
from jaxrl.types import Agent, HParams, Network, Noise, RecurrentNetwork, Transition, UpdateFn


class ActorCriticState(NamedTuple):
    params: Any
    opt_state: Any


class Batch(NamedTuple):
    """What the loss reads of a rollout's N = T * B steps, or of a minibatch of them."""

    obs: Any  # leaves [N, ...]
    raw_action: jax.Array  # [N, ...], what the policy sampled
    log_prob: jax.Array  # [N], of the policy that acted
    value: jax.Array  # [N], before the update
    target: jax.Array  # [N], λ-returns
    advantage: jax.Array  # [N]
    noise: Any = None  # [N, ...], of the raw actions, where the head's entropy needs a sample of the changed policy


class Feedforward(NamedTuple):
    """A network without recurrence as a `RecurrentNetwork` whose carry is `()`."""

    network: Network

    def initial_carry(self, num_envs: int) -> Any:
        return ()

    def init(self, key: jax.Array, obs: Any, carry: Any) -> Any:
        return self.network.init(key, obs)

    def apply(self, params: Any, obs: Any, carry: Any) -> tuple[Any, Any]:
        return self.network.apply(params, obs), carry


def actor_critic(
    name: str,
    network: RecurrentNetwork,
    head: PolicyHead,
    update: UpdateFn,
    *,
    optimizer: Optimizer,
    hparams: HParams,
    record: type,
    ranges: dict,
    builder: str = "policy",
    num_epochs: int = 0,
) -> Agent:
    """An agent that acts with `head` on `network`, records raw actions, and learns by `update`.

    `hparams` must be a `record`, and every field of it must lie in its interval of `ranges`. The error for another network names
    the `builder` in `jaxrl.networks`. `update` receives `num_epochs` keys.
    """
    check_optimizer(optimizer)
    check_hparams(hparams, record, ranges)

    def init(key, obs, hparams):
        check_hparams(hparams, record, ranges)
        num_envs = jax.tree.leaves(obs)[0].shape[0]
        carry = network.initial_carry(num_envs)
        params = network.init(key, obs, carry)
        wanted = head.params_spec((num_envs,)), jax.ShapeDtypeStruct((num_envs,), jnp.float32)
        out = jax.eval_shape(network.apply, params, obs, carry)[0]
        check_network_output(name, out, wanted, f"Build it with jaxrl.networks.{builder}(..., value=True)")
        return ActorCriticState(params, optimizer(hparams.learning_rate).init(params))

    def noise(key, num_steps, num_envs):
        if not num_epochs:
            return Noise(act=head.noise(key, (num_steps, num_envs)))
        act_key, update_key = jax.random.split(key)
        return Noise(act=head.noise(act_key, (num_steps, num_envs)), update=jax.random.split(update_key, num_epochs))

    def explore(params, obs, carry, noise_t, hparams, iteration):
        (policy, _), carry = network.apply(params, obs, carry)
        raw_action = head.sample(policy, noise_t)
        return head.to_action(raw_action), carry, raw_action

    def exploit(params, obs, carry, key):
        (policy, _), carry = network.apply(params, obs, carry)
        return head.to_action(head.mode(policy)), carry

    return Agent(
        hparams=hparams, init=init, noise=noise, policy=lambda state: state.params, explore=explore, exploit=exploit,
        update=update, initial_carry=network.initial_carry,
    )  # fmt: skip


def make_batch(network: RecurrentNetwork, head: PolicyHead, params: Any, rollout: Transition, hparams: HParams) -> Batch:
    """Compute the old log-probabilities and values in one pass over all steps, which is cheaper than during the rollout.

    A rollout has the carry of each step, so that also a recurrent network is applied to all steps at once.
    """

    def old_outputs(steps):
        (policy, value), carry = network.apply(params, steps.obs, steps.carry)
        log_prob = head.log_prob(policy, steps.extras)
        noise = None if head.noise_of is None else head.noise_of(policy, steps.extras)
        (_, next_value), _ = network.apply(params, steps.next_obs, carry)
        return log_prob, value, next_value, noise

    flat, shape = transitions.flatten(rollout), rollout.reward.shape
    log_prob, value, next_value, noise = map_rows(old_outputs, flat)
    advantage, target = transitions.advantages(
        rollout, value.reshape(shape), next_value.reshape(shape), hparams.discount, hparams.gae_lambda
    )
    target, advantage = transitions.flatten((target, advantage))
    return Batch(flat.obs, flat.extras, log_prob, value, target, advantage, noise)


def total_loss(
    policy_loss: jax.Array, value_loss: jax.Array, entropy: jax.Array, hparams: HParams
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The weighted sum of the means, and its metrics; all arguments but the last have the same shape."""
    policy_loss, value_loss, entropy = jnp.mean(policy_loss), jnp.mean(value_loss), jnp.mean(entropy)
    total = policy_loss + hparams.value_coef * value_loss - hparams.entropy_coef * entropy
    return total, {"loss": total, "policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
