"""The floor: the network passes and optimizer steps of a run, and nothing else.

No environment, no replay, no random numbers, no returns: the same products of the same shapes in the same
order, Adam, and the move of the target network. Inputs are fixed numbers, plus a nudge that the iteration
before computed, so that nothing can be done ahead of the loop or left out. Time over this floor is what
everything else of a framework costs.
"""

import math

import gymnax  # noqa: F401 - jaxrl imports this and the others when it first needs them; no contestant's imports are timed
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxrl
import jaxrl.agents
import jaxrl.networks
from benchmarks.program import Job, compiled_job, keys_of, weights
from benchmarks.works import Work
from jaxrl.optimizers import adam, take_step
from jaxrl.pieces import grad_of_mean, map_rows


def fixed(*shape: int, largest: float = 1.0) -> jax.Array:
    """Numbers between ±largest; of one shape they must differ, or equal products are computed once."""
    return jnp.asarray(np.linspace(-largest, largest, math.prod(shape), dtype=np.float32).reshape(shape))


def nudge_from(outputs: jax.Array) -> jax.Array:
    """A small number that needs every output."""
    return 1e-6 * jnp.mean(jnp.max(outputs, axis=-1))


def network_of(work: Work):
    env = jaxrl.make(work.env)
    spaces = env.observation_space, env.action_space
    if work.name == "reinforce":
        return jaxrl.networks.policy(*spaces, value=True, hidden=work.hidden), *spaces
    return jaxrl.networks.q_network(*spaces, hidden=work.hidden, channels=work.channels), *spaces


def dqn(work: Work):
    """Each iteration: a forward pass for the actions, one of the target network, one forward and back, Adam, the target."""
    network, obs_space, action_space = network_of(work)
    optimizer = adam(1e-3)

    def train(key):
        acting, batch = fixed(work.num_envs, *obs_space.shape), fixed(work.batch_size, *obs_space.shape)
        successors = fixed(*batch.shape, largest=0.5)
        actions = jnp.arange(work.batch_size, dtype=jnp.int32) % action_space.n
        params = network.init(key, acting)

        def loss(params, target_params, nudge):
            goal = 1.0 + 0.99 * jnp.max(network.apply(target_params, successors + nudge), axis=-1)
            return jnp.mean(jnp.square(goal - jaxrl.losses.select(network.apply(params, batch + nudge), actions)))

        def iterate(carry, clock):
            params, target_params, opt_state, nudge = carry
            q = network.apply(params, acting + nudge)
            grads = jax.grad(loss)(params, target_params, nudge)
            params, opt_state = take_step(optimizer, clock, grads, opt_state, params)
            moved = optax.incremental_update(params, target_params, work.tau)
            sync = (clock + 1) % work.target_period == 0
            target_params = jax.tree.map(lambda new, old: jnp.where(sync, new, old), moved, target_params)
            return (params, target_params, opt_state, nudge_from(q)), None

        carry = (params, params, optimizer.init(params), jnp.float32(0))
        (params, _, opt_state, _), _ = jax.lax.scan(iterate, carry, jnp.arange(work.updates, dtype=jnp.int32))
        return opt_state.count, params

    return train


def reinforce(work: Work):
    """Each iteration: T forward passes of the policy, one after the other; the value of the rollout's successors forward,
    policy and value forward and back over the rollout, in pieces as jaxrl does; Adam."""
    network, obs_space, action_space = network_of(work)
    optimizer = adam(1e-3)

    def train(key):
        num = work.rollout_length * work.num_envs
        acting, rollout = fixed(work.num_envs, *obs_space.shape), fixed(num, *obs_space.shape)
        successors = fixed(*rollout.shape, largest=0.5)
        actions = jnp.arange(num, dtype=jnp.int32) % action_space.n
        params = network.init(key, acting)

        def loss(params, rows, nudge):
            obs, action, target = rows
            logits, value = network.apply(params, obs + nudge)
            log_prob = jaxrl.losses.select(jax.nn.log_softmax(logits), action)
            advantage = jax.lax.stop_gradient(target - value)
            return jnp.mean(0.25 * jnp.square(target - value) - advantage * log_prob), ()

        def iterate(carry, clock):
            params, opt_state, nudge = carry

            def act(nudge, _):
                return nudge_from(network.apply(params, acting + nudge)[0]), None

            nudge, _ = jax.lax.scan(act, nudge, None, work.rollout_length)
            target = 1.0 + 0.99 * map_rows(lambda obs: network.apply(params, obs + nudge)[1], successors)
            grads, _ = grad_of_mean(lambda params, rows: loss(params, rows, nudge), params, (rollout, actions, target))
            params, opt_state = take_step(optimizer, clock, grads, opt_state, params)
            return (params, opt_state, nudge), None

        carry = (params, optimizer.init(params), jnp.float32(0))
        (params, opt_state, _), _ = jax.lax.scan(iterate, carry, jnp.arange(work.updates, dtype=jnp.int32))
        return opt_state.count, params

    return train


def train_of(work: Work):
    return reinforce(work) if work.name == "reinforce" else dqn(work)


def facts_of(work: Work) -> dict:
    network, obs_space, _ = network_of(work)
    return {"weights": weights(jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *obs_space.shape))))}


def prepare(work: Work, layout: str) -> Job:
    return compiled_job(lambda: train_of(work), keys_of(work.seeds), work, layout, lambda: facts_of(work))
