"""OpenAI-ES (Salimans et al. 2017): an evolution strategy, which follows the gradient of the return in parameter space."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import shards, transitions
from jaxrl.checks import AT_LEAST_ZERO, FINITE, check_choice, check_hparams, check_network, check_network_output, check_optimizer
from jaxrl.optimizers import Optimizer, adam, optimizer_step
from jaxrl.policies import policy_head
from jaxrl.schedules import linear_schedule
from jaxrl.training_passes import weights, with_weights
from jaxrl.types import Agent, Network, Noise, Space, UpdateFn


class OpenAIESHParams(NamedTuple):
    """Hyperparameters of `openai_es`; each may be traced and batched by `vmap`.

    Attributes:
      learning_rate: learning rate at the first update.
      learning_rate_iterations: iterations over which it decays linearly to 0; inf keeps it constant.
      noise_std: standard deviation σ of the perturbations of the weights.
      weight_decay: coefficient of the squared norm of the weights, λ/2 ‖θ‖², which is added to the loss.
    """

    learning_rate: float = 0.05
    learning_rate_iterations: float = math.inf
    noise_std: float = 0.1
    weight_decay: float = 0.0


_RANGES = {
    "learning_rate": FINITE,
    "learning_rate_iterations": AT_LEAST_ZERO,
    "noise_std": (1e-6, float(np.finfo(np.float32).max)),
    "weight_decay": FINITE,
}


class OpenAIESState(NamedTuple):
    params: Any  # the mean of the population
    opt_state: Any
    noise_keys: jax.Array  # uint32 [B / 2, ...], the data of a key for each pair; the numbers would be as many as weights
    noise_std: jax.Array  # σ, float32 scalar


class Population(NamedTuple):
    """What acting reads."""

    params: Any  # the mean of the population
    members: Any  # the weights of each environment's policy, leaves [B, ...]; () in a greedy policy


def openai_es(
    network: Network,
    action_space: Space,
    *,
    fitness: str = "ranks",
    optimizer: Optimizer = adam,
    hparams: OpenAIESHParams = OpenAIESHParams(),
) -> Agent:
    """OpenAI's evolution strategy, with antithetic sampling and rank shaping (Salimans et al. 2017, algorithm 1).

    Each environment plays one episode per iteration with a policy of its own: the mean weights θ plus Gaussian noise σε in the
    first half of the environments, and minus the same noise in the second half. The returns of the episodes give an estimate
    of the gradient of the expected return with respect to θ, without differentiating the network or knowing the actions. The
    number of environments is therefore the size of the population, and must be even. An episode that is longer than the
    rollout counts with its rewards up to there; `rollout_length` must be at least the time limit.

    Every policy acts greedily: the noise in the weights explores.

    Args:
      network: `apply(params, obs[..., *obs_shape])` returns the policy's parameters: `logits[..., n]` for
        Discrete, `(mean, log_std)`, each `[..., m]`, for a Box of m numbers (see `jaxrl.policies.policy_head`), of which
        only the mean is used. `jaxrl.networks.policy` builds such networks. It need not be differentiable.
      action_space: `Discrete`, `MultiDiscrete`, or a `Box` of floats.
      fitness: "ranks" replaces the returns by their centred ranks, which makes the step independent of the scale of the rewards
        and of outliers; "returns" uses the returns themselves.
      optimizer: function from a learning rate to an optax transformation.
      hparams: the default hyperparameters.

    Returns:
      An `Agent`. Its metrics: `return_std`, the standard deviation of the returns over the population; `gradient_norm`;
      `unfinished`, the fraction of the episodes that the rollout cut off. The driver's `episode_return` is the mean over the
      perturbed policies; the policy with the mean weights is usually better.

    Raises:
      ValueError: for an unsupported action space, or an odd number of environments.
    """
    check_choice("fitness", fitness, ("ranks", "returns"))
    check_network("openai_es", network, "policy")
    check_optimizer(optimizer)
    check_hparams(hparams, OpenAIESHParams, _RANGES)
    head = policy_head(action_space)

    def init(key, obs, hparams):
        check_hparams(hparams, OpenAIESHParams, _RANGES)
        num_envs = jax.tree.leaves(obs)[0].shape[0]
        if num_envs % 2:
            raise ValueError(f"openai_es: perturbations come in pairs, so num_envs of a shard must be even; got {num_envs}")
        network_key, noise_key = jax.random.split(key)
        params = network.init(network_key, obs)
        out = jax.eval_shape(network.apply, params, obs)
        check_network_output("openai_es", out, head.params_spec((num_envs,)), "Build it with jaxrl.networks.policy(...)")
        opt_state = optimizer(hparams.learning_rate).init(weights(params))
        return _with_noise(params, opt_state, shards.own_key(noise_key), num_envs // 2, hparams.noise_std)

    def noise(key, num_steps, num_envs):
        return Noise(act=(), update=key)

    def policy(state):
        mean = weights(state.params)
        mirrored = jax.tree.map(lambda w, p: jnp.concatenate([w[None] + p, w[None] - p]), mean, perturbation(state))
        return Population(state.params, mirrored)

    def explore(population, obs, carry, noise_t, hparams, iteration):
        def act(member, obs):
            one = jax.tree.map(lambda x: x[None], obs)
            return head.mode(network.apply(with_weights(population.params, member), one))[0]

        return head.to_action(jax.vmap(act)(population.members, obs)), carry, ()

    def exploit(population, obs, carry, key):
        return head.to_action(head.mode(network.apply(population.params, obs))), carry

    update = _make_update(optimizer, ranks=fitness == "ranks")
    return Agent(
        hparams=hparams, init=init, noise=noise, policy=policy, explore=explore, exploit=exploit, update=update,
        greedy=lambda population: population._replace(members=()), fresh_episodes=True,
    )  # fmt: skip


def _make_update(optimizer: Optimizer, *, ranks: bool) -> UpdateFn:
    def update(state, rollout, key, hparams, iteration):
        within = transitions.first_episodes(rollout)
        episode_returns = jnp.sum(within * rollout.reward, axis=0)
        everyone = shards.gather(episode_returns).ravel()
        shaped = centred_ranks(episode_returns, everyone) if ranks else episode_returns
        mean = weights(state.params)
        ascent = antithetic_gradient(shaped, perturbation(state), state.noise_std)
        grads = jax.tree.map(lambda g, w: hparams.weight_decay.astype(w.dtype) * w - g, ascent, mean)
        learning_rate = linear_schedule(hparams.learning_rate, 0.0, hparams.learning_rate_iterations, iteration)
        new, opt_state, norm = optimizer_step(
            optimizer, learning_rate, iteration, grads, state.opt_state, mean, max_grad_norm=jnp.inf
        )
        done = rollout.terminated | rollout.truncated
        metrics = {
            "return_std": jnp.std(everyone),
            "gradient_norm": norm,
            "unfinished": 1.0 - jnp.any(done, axis=0).astype(jnp.float32),
        }
        num_pairs = rollout.reward.shape[1] // 2
        return _with_noise(with_weights(state.params, new), opt_state, key, num_pairs, hparams.noise_std), metrics

    return update


def centred_ranks(returns: jax.Array, population: jax.Array) -> jax.Array:
    """Ranks of the returns `[N]` in the population `[M]`, of which they are a part, scaled to [−1/2, 1/2].

    Equal returns share their mean rank, so that they exert no pull.

    >>> returns = jnp.array([10.0, -3.0, 500.0, 10.0])
    >>> centred_ranks(returns, returns).tolist()
    [0.0, -0.5, 0.5, 0.0]
    """
    below = jnp.sum(returns[:, None] > population[None], axis=1)
    above = jnp.sum(returns[:, None] < population[None], axis=1)
    return (below - above).astype(jnp.float32) / (2 * max(1, population.shape[0] - 1))


def antithetic_gradient(fitness: jax.Array, perturbation: Any, noise_std) -> Any:
    """Estimate the gradient of the expected fitness with respect to the weights (Salimans et al. 2017, section 2.1).

    The estimate is 1 / (2 n σ) Σ_i (F(θ + σ ε_i) − F(θ − σ ε_i)) ε_i. Terms of even order in σ cancel in each pair, so that
    it is exact for a quadratic F if the ε_i are orthogonal with the squared norm n.

    Args:
      fitness: `[2 n]`, first of all weights θ + σ ε_i, then of all θ − σ ε_i.
      perturbation: σ ε, leaves `[n, ...]`.
      noise_std: σ, a scalar, may be traced.

    Returns:
      The gradient, leaves `[...]`.
    """
    num = fitness.shape[0] // 2
    difference = (fitness[:num] - fitness[num:]) / (2 * num * jnp.square(noise_std))
    return jax.tree.map(lambda p: jnp.tensordot(difference.astype(p.dtype), p, axes=1), perturbation)


def perturbation(state: OpenAIESState) -> Any:
    """σ ε of the present iteration, leaves `[n, ...]`: normal numbers for each weight and pair. The same at every call.

    They are drawn for acting and again for the update, so that neither a state nor a checkpoint holds them.
    """
    leaves, treedef = jax.tree.flatten(weights(state.params))
    ends = np.cumsum([x.size for x in leaves])

    def one(key_data):
        numbers = state.noise_std * jax.random.normal(jax.random.wrap_key_data(key_data), (ends[-1],), jnp.float32)
        parts = jnp.split(numbers, ends[:-1])
        return [part.reshape(x.shape).astype(x.dtype) for part, x in zip(parts, leaves, strict=True)]

    return jax.tree.unflatten(treedef, jax.vmap(one)(state.noise_keys))


def _with_noise(params: Any, opt_state: Any, key: jax.Array, num_pairs: int, noise_std) -> OpenAIESState:
    """The state at the start of an iteration. The key is consumed."""
    noise_keys = jax.random.key_data(jax.random.split(key, num_pairs))
    return OpenAIESState(params, opt_state, noise_keys, jnp.asarray(noise_std, jnp.float32))
