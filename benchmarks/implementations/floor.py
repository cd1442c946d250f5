"""The floor: the network passes and optimizer steps of a run, and nothing else.

No environment, no replay, no random numbers, no returns: the same products of the same shapes in the same
order, Adam, and the move of the target network. Inputs are fixed numbers, plus a nudge that the iteration
before computed, so that nothing can be done ahead of the loop or left out. Time over this floor is what
everything else of a framework costs.
"""

import functools
import math

import gymnax  # noqa: F401 - jaxrl imports this and the others when it first needs them; no implementation's imports are timed
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxrl
import jaxrl.agents
import jaxrl.networks
from benchmarks.program import Job, compiled_job, keys_of, num_parameters, weights
from benchmarks.workloads import Workload
from jaxrl._src.microbatches import grad_of_mean, map_rows
from jaxrl.optimizers import adam, apply_gradients, optimizer_step, polyak_update


def fixed(*shape: int, largest: float = 1.0) -> jax.Array:
    """Numbers between ±largest; of one shape they must differ, or equal products are computed once."""
    return jnp.asarray(np.linspace(-largest, largest, math.prod(shape), dtype=np.float32).reshape(shape))


def nudge_from(outputs: jax.Array) -> jax.Array:
    """A small number that needs every output."""
    return 1e-6 * jnp.mean(jnp.max(outputs, axis=-1))


def network_of(workload: Workload):
    env = jaxrl.make(workload.env)
    spaces = env.observation_space, env.action_space
    if workload.name in ("reinforce", "ppo"):
        return jaxrl.networks.policy(*spaces, value=True, hidden=workload.hidden), *spaces
    if workload.name == "sac":
        return jaxrl.networks.actor_critic(*spaces, hidden=workload.hidden), *spaces
    if workload.name == "pqn":
        return jaxrl.networks.q_network(*spaces, hidden=workload.hidden, layer_norm=True), *spaces
    return jaxrl.networks.q_network(*spaces, hidden=workload.hidden, channels=workload.channels), *spaces


def dqn(workload: Workload):
    """Each iteration: a forward pass for the actions, one of the target network, one forward and back, Adam, the target."""
    network, obs_space, action_space = network_of(workload)
    optimizer = adam(1e-3)

    def train(key):
        acting, batch = fixed(workload.num_envs, *obs_space.shape), fixed(workload.batch_size, *obs_space.shape)
        successors = fixed(*batch.shape, largest=0.5)
        actions = jnp.arange(workload.batch_size, dtype=jnp.int32) % action_space.n
        params = network.init(key, acting)

        def loss(params, target_params, nudge):
            goal = 1.0 + 0.99 * jnp.max(network.apply(target_params, successors + nudge), axis=-1)
            return jnp.mean(jnp.square(goal - jaxrl.losses.select(network.apply(params, batch + nudge), actions)))

        def iterate(carry, clock):
            params, target_params, opt_state, nudge = carry
            q = network.apply(params, acting + nudge)
            grads = jax.grad(loss)(params, target_params, nudge)
            params, opt_state = apply_gradients(optimizer, clock, grads, opt_state, params)
            moved = optax.incremental_update(params, target_params, workload.tau)
            sync = (clock + 1) % workload.target_update_period == 0
            target_params = jax.tree.map(lambda new, old: jnp.where(sync, new, old), moved, target_params)
            return (params, target_params, opt_state, nudge_from(q)), None

        carry = (params, params, optimizer.init(params), jnp.float32(0))
        (params, _, opt_state, _), _ = jax.lax.scan(iterate, carry, jnp.arange(workload.updates, dtype=jnp.int32))
        return opt_state.count, params

    return train


def reinforce(workload: Workload):
    """Each iteration: T forward passes of the policy, one after the other; the value of the rollout's successors forward,
    policy and value forward and back over the rollout, in microbatches as jaxrl does; Adam."""
    network, obs_space, action_space = network_of(workload)
    optimizer = adam(1e-3)

    def train(key):
        num = workload.rollout_length * workload.num_envs
        acting, rollout = fixed(workload.num_envs, *obs_space.shape), fixed(num, *obs_space.shape)
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

            nudge, _ = jax.lax.scan(act, nudge, None, workload.rollout_length)
            target = 1.0 + 0.99 * map_rows(lambda obs: network.apply(params, obs + nudge)[1], successors)
            grads, _ = grad_of_mean(lambda params, rows: loss(params, rows, nudge), params, (rollout, actions, target))
            params, opt_state = apply_gradients(optimizer, clock, grads, opt_state, params)
            return (params, opt_state, nudge), None

        carry = (params, optimizer.init(params), jnp.float32(0))
        (params, opt_state, _), _ = jax.lax.scan(iterate, carry, jnp.arange(workload.updates, dtype=jnp.int32))
        return opt_state.count, params

    return train


def learn(workload: Workload, optimizer, loss, params, opt_state, rows, nudge, index):
    """Epochs of minibatches, the same contiguous rows in every epoch: gradient, clipping and Adam."""
    minibatches = jax.tree.map(lambda x: x.reshape(workload.num_minibatches, -1, *x.shape[1:]), rows)

    def step(carry, minibatch):
        params, opt_state, index = carry
        grads, _ = grad_of_mean(lambda params, rows: loss(params, rows, nudge), params, minibatch)
        params, opt_state, _ = optimizer_step(optimizer, 1e-3, index, grads, opt_state, params, max_grad_norm=0.5)
        return (params, opt_state, index + 1), None

    def epoch(carry, _):
        return jax.lax.scan(step, carry, minibatches)

    (params, opt_state, _), _ = jax.lax.scan(epoch, (params, opt_state, index), None, workload.num_epochs)
    return params, opt_state


def ppo(workload: Workload):
    """Each iteration: T forward passes of the policy, one after the other; a pass of policy and value over the rollout and of
    the value over its successors; then policy and value forward and back over each minibatch of each epoch, clipping and Adam."""
    network, obs_space, action_space = network_of(workload)
    optimizer = functools.partial(adam, eps=1e-5)

    def train(key):
        num = workload.rollout_length * workload.num_envs
        acting, rollout = fixed(workload.num_envs, *obs_space.shape), fixed(num, *obs_space.shape)
        successors = fixed(*rollout.shape, largest=0.5)
        actions = jnp.arange(num, dtype=jnp.int32) % action_space.n
        params = network.init(key, acting)

        def log_prob_and_value(params, obs, action):
            logits, value = network.apply(params, obs)
            return jaxrl.losses.select(jax.nn.log_softmax(logits), action), value

        def loss(params, rows, nudge):
            obs, action, old_log_prob, old_value, goal = rows
            log_prob, value = log_prob_and_value(params, obs + nudge, action)
            ratio = jnp.exp(log_prob - old_log_prob)
            return jnp.mean(0.5 * jnp.square(goal - value) - ratio * (goal - old_value)), ()

        def iterate(carry, clock):
            params, opt_state, nudge = carry

            def act(nudge, _):
                return nudge_from(network.apply(params, acting + nudge)[0]), None

            def old_outputs(rows):
                obs, action, next_obs = rows
                return *log_prob_and_value(params, obs + nudge, action), network.apply(params, next_obs + nudge)[1]

            nudge, _ = jax.lax.scan(act, nudge, None, workload.rollout_length)
            log_prob, value, next_value = map_rows(old_outputs, (rollout, actions, successors))
            rows = rollout, actions, log_prob, value, 1.0 + 0.99 * next_value
            first = clock * workload.num_epochs * workload.num_minibatches
            params, opt_state = learn(workload, optimizer, loss, params, opt_state, rows, nudge, first)
            return (params, opt_state, nudge), None

        carry = (params, optimizer(1e-3).init(params), jnp.float32(0))
        (params, opt_state, _), _ = jax.lax.scan(iterate, carry, jnp.arange(workload.updates, dtype=jnp.int32))
        return opt_state.count, params

    return train


def pqn(workload: Workload):
    """Each iteration: T forward passes, one after the other; a pass over the successors; then forward and back over each
    minibatch of each epoch, clipping and Adam."""
    network, obs_space, action_space = network_of(workload)

    def train(key):
        num = workload.rollout_length * workload.num_envs
        acting, rollout = fixed(workload.num_envs, *obs_space.shape), fixed(num, *obs_space.shape)
        successors = fixed(*rollout.shape, largest=0.5)
        actions = jnp.arange(num, dtype=jnp.int32) % action_space.n
        params = network.init(key, acting)

        def loss(params, rows, nudge):
            obs, action, goal = rows
            return jnp.mean(jnp.square(goal - jaxrl.losses.select(network.apply(params, obs + nudge), action))), ()

        def iterate(carry, clock):
            params, opt_state, nudge = carry

            def act(nudge, _):
                return nudge_from(network.apply(params, acting + nudge)), None

            nudge, _ = jax.lax.scan(act, nudge, None, workload.rollout_length)
            goal = 1.0 + 0.99 * jnp.max(map_rows(lambda obs: network.apply(params, obs + nudge), successors), axis=-1)
            first = clock * workload.num_epochs * workload.num_minibatches
            params, opt_state = learn(workload, adam, loss, params, opt_state, (rollout, actions, goal), nudge, first)
            return (params, opt_state, nudge), None

        carry = (params, adam(1e-3).init(params), jnp.float32(0))
        (params, opt_state, _), _ = jax.lax.scan(iterate, carry, jnp.arange(workload.updates, dtype=jnp.int32))
        return opt_state.count, params

    return train


def sac(workload: Workload):
    """Each iteration: a forward pass of the actor for the action; actor and target critics forward over the successors; critics
    forward and back over the batch; actor forward, critics forward, and back through the critics' inputs to the actor; Adam of
    all; the target critics. The distribution is left out: an action is a sum of the actor's outputs."""
    (actor, critic), obs_space, action_space = network_of(workload)
    optimizer = adam(1e-3)

    def train(key):
        acting, batch = fixed(workload.num_envs, *obs_space.shape), fixed(workload.batch_size, *obs_space.shape)
        successors = fixed(*batch.shape, largest=0.5)
        actions = fixed(workload.batch_size, *action_space.shape)
        params = actor.init(key, acting), critic.init(key, batch, actions)

        def act(actor_params, obs):
            mean, log_std = actor.apply(actor_params, obs)
            return mean + log_std

        def loss(params, target, nudge):
            next_q = critic.apply(target, successors + nudge, act(jax.lax.stop_gradient(params[0]), successors + nudge))
            goal = 1.0 + 0.99 * jax.lax.stop_gradient(jnp.min(next_q, axis=0, keepdims=True))
            critic_loss = jnp.mean(jnp.square(goal - critic.apply(params[1], batch + nudge, actions)))
            q = critic.apply(jax.lax.stop_gradient(params[1]), batch + nudge, act(params[0], batch + nudge))
            return critic_loss - jnp.mean(jnp.min(q, axis=0))

        def iterate(carry, clock):
            params, target, opt_state, nudge = carry
            action = act(params[0], acting + nudge)
            grads = jax.grad(loss)(params, target, nudge)
            params, opt_state = apply_gradients(optimizer, clock, grads, opt_state, params)
            return (params, polyak_update(params[1], target, workload.tau), opt_state, nudge_from(action)), None

        carry = (params, params[1], optimizer.init(params), jnp.float32(0))
        (params, _, opt_state, _), _ = jax.lax.scan(iterate, carry, jnp.arange(workload.updates, dtype=jnp.int32))
        return opt_state.count, params

    return train


ALGORITHMS = {"dqn": dqn, "breakout": dqn, "reinforce": reinforce, "ppo": ppo, "pqn": pqn, "sac": sac}


def train_of(workload: Workload):
    return ALGORITHMS[workload.name](workload)


def facts_of(workload: Workload) -> dict:
    network, obs_space, action_space = network_of(workload)
    obs, key = jnp.zeros((1, *obs_space.shape)), jax.random.key(0)
    if workload.name != "sac":
        return {"weights": weights(jax.eval_shape(network.init, key, obs))}
    action = jnp.zeros((1, *action_space.shape))
    params = jax.eval_shape(lambda: (network.actor.init(key, obs), network.critic.init(key, obs, action)))
    return {"parameters": num_parameters(params)}


def prepare(workload: Workload, layout: str) -> Job:
    return compiled_job(lambda: train_of(workload), keys_of(workload.seeds), workload, layout, lambda: facts_of(workload))
