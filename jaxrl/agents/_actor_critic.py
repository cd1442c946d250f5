"""What A2C and PPO share: acting, the batch of a rollout, and the sum of their losses."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import transitions
from jaxrl.checks import check_hparams, check_network_output
from jaxrl.minibatches import map_rows
from jaxrl.optimizers import Optimizer
from jaxrl.policies import PolicyHead
from jaxrl.types import Agent, HParams, Network, Noise, Transition, UpdateFn


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


def actor_critic(
    name: str,
    network: Network,
    head: PolicyHead,
    update: UpdateFn,
    *,
    optimizer: Optimizer,
    hparams: HParams,
    record: type,
    ranges: dict,
) -> Agent:
    """An agent that acts with `head` on `network`, records raw actions, and learns by `update`.

    `hparams` must be a `record`, and every field of it must lie in its interval of `ranges`.
    """
    check_hparams(hparams, record, ranges)

    def init(key, obs, hparams):
        check_hparams(hparams, record, ranges)
        params = network.init(key, obs)
        batch_shape = (jax.tree.leaves(obs)[0].shape[0],)
        wanted = head.params_spec(batch_shape), jax.ShapeDtypeStruct(batch_shape, jnp.float32)
        out, hint = jax.eval_shape(network.apply, params, obs), "Build it with jaxrl.networks.policy(..., value=True)"
        check_network_output(name, out, wanted, hint)
        return ActorCriticState(params, optimizer(hparams.learning_rate).init(params))

    def noise(key, num_steps, num_envs):
        return Noise(act=head.noise(key, (num_steps, num_envs)))

    def explore(params, obs, carry, noise_t, hparams, iteration):
        raw_action = head.sample(network.apply(params, obs)[0], noise_t)
        return head.to_action(raw_action), carry, raw_action

    def exploit(params, obs, carry, key):
        return head.to_action(head.mode(network.apply(params, obs)[0])), carry

    policy = lambda state: state.params
    return Agent(hparams=hparams, init=init, noise=noise, policy=policy, explore=explore, exploit=exploit, update=update)


def make_batch(network: Network, head: PolicyHead, params: Any, rollout: Transition, hparams: HParams) -> Batch:
    """Compute the old log-probabilities and values in one pass over all steps, which is cheaper than during the rollout."""

    def old_outputs(steps):
        policy, value = network.apply(params, steps.obs)
        return head.log_prob(policy, steps.extras), value, network.apply(params, steps.next_obs)[1]

    flat, shape = transitions.flatten(rollout), rollout.reward.shape
    log_prob, value, next_value = map_rows(old_outputs, flat)
    advantage, target = transitions.advantages(
        rollout, value.reshape(shape), next_value.reshape(shape), hparams.discount, hparams.gae_lambda
    )
    return Batch(flat.obs, flat.extras, log_prob, value, *transitions.flatten((target, advantage)))


def total_loss(
    policy_loss: jax.Array, value_loss: jax.Array, entropy: jax.Array, hparams: HParams
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The weighted sum of the means, and its metrics; all arguments but the last have the same shape."""
    policy_loss, value_loss, entropy = jnp.mean(policy_loss), jnp.mean(value_loss), jnp.mean(entropy)
    total = policy_loss + hparams.value_coef * value_loss - hparams.entropy_coef * entropy
    return total, {"loss": total, "policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
