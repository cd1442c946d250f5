"""jaxrl as its users do: `jaxrl.vectorize` over keys, one CPU device a core, metrics on."""

from typing import NamedTuple

import gymnax  # noqa: F401 - jaxrl imports this and the others when it first needs them; no implementation's imports are timed
import jax
import jax.numpy as jnp

import jaxrl
import jaxrl.agents
import jaxrl.networks
import jaxrl.optimizers
from benchmarks.program import Job, bytes_per_row, compiled_job, keys_of, num_parameters, weights
from benchmarks.workloads import Workload
from jaxrl.types import Agent, Learner, Noise


class Nothing(NamedTuple):
    """No hyperparameters."""


def random_agent(num_actions: int) -> Agent:
    """Acts at random and learns nothing; it looks at the rewards, so that the transitions have to be written."""
    return Agent(
        hparams=Nothing(),
        init=lambda key, obs, hparams: (),
        noise=lambda key, num_steps, num_envs: Noise(jax.random.randint(key, (num_steps, num_envs), 0, num_actions), ()),
        policy=lambda state: (),
        explore=lambda policy_params, obs, carry, noise_t, hparams, iteration: (noise_t, carry, ()),
        exploit=lambda policy_params, obs, carry, key: (jnp.zeros(len(obs), jnp.int32), carry),
        update=lambda state, rollout, noise, hparams, iteration: (state, {"reward": rollout.reward}),
    )


def learner_of(workload: Workload) -> Learner:
    env = jaxrl.make(workload.env)
    if workload.name == "rollout":
        agent = random_agent(env.action_space.n)
    elif workload.name == "reinforce":
        network = jaxrl.networks.policy(env.observation_space, env.action_space, value=True, hidden=workload.hidden)
        agent = jaxrl.agents.reinforce(network, env.action_space, mode="continuing", baseline="value")
    elif workload.name == "ppo":
        network = jaxrl.networks.policy(env.observation_space, env.action_space, value=True, hidden=workload.hidden)
        agent = jaxrl.agents.ppo(
            network, env.action_space, num_epochs=workload.num_epochs, num_minibatches=workload.num_minibatches
        )
    elif workload.name == "pqn":
        network = jaxrl.networks.q_network(env.observation_space, env.action_space, hidden=workload.hidden, layer_norm=True)
        agent = jaxrl.agents.pqn(
            network,
            env.action_space,
            num_epochs=workload.num_epochs,
            num_minibatches=workload.num_minibatches,
            optimizer=jaxrl.optimizers.adam,
        )
    elif workload.name == "sac":
        network = jaxrl.networks.actor_critic(env.observation_space, env.action_space, hidden=workload.hidden)
        agent = jaxrl.agents.sac(
            network,
            env.action_space,
            batch_size=workload.batch_size,
            capacity=workload.capacity,
            warmup=workload.warmup,
        )
        agent = agent._replace(hparams=agent.hparams._replace(tau=workload.tau))
    else:
        network = jaxrl.networks.q_network(
            env.observation_space, env.action_space, hidden=workload.hidden, channels=workload.channels
        )
        agent = jaxrl.agents.dqn(
            network,
            env.action_space,
            batch_size=workload.batch_size,
            capacity=workload.capacity,
            warmup=workload.warmup,
            target_update_period=workload.target_update_period,
        )
        agent = agent._replace(hparams=agent.hparams._replace(tau=workload.tau))
    return jaxrl.make_learner(env, agent, num_envs=workload.num_envs, rollout_length=workload.rollout_length)


def log_every(updates: int) -> int:
    """Ten rows of metrics: a long run has a hundred, of as many iterations each or more."""
    return updates // 10 if updates % 10 == 0 else updates


def train_of(workload: Workload):
    """A whole run of one seed: key -> (updates, (what a user keeps of it)). The replay is not kept, as by no implementation."""
    learner = learner_of(workload)

    def train(key):
        state, metrics = jaxrl.train(key, learner, workload.updates, log_every=log_every(workload.updates))
        if workload.name == "rollout":  # CartPole gives 1 a step, so the mean reward counts the steps
            return jnp.round(jnp.mean(metrics["reward"]) * workload.updates).astype(jnp.int32), metrics
        return state.agent.opt_state.count, (state.agent.params, metrics)

    return train


def facts_of(workload: Workload) -> dict:
    if workload.name == "rollout":
        return {}
    learner = learner_of(workload)
    state = jax.eval_shape(lambda key: learner.init(key, learner.agent.hparams), jax.random.key(0)).agent
    if workload.name == "sac":
        facts = {"parameters": num_parameters((state.params.actor, state.params.critic))}
    else:
        facts = {"weights": weights(state.params)}
    if workload.capacity:
        facts |= {"capacity": state.replay.capacity, "bytes_per_transition": bytes_per_row(state.replay, workload.capacity)}
    return facts


def prepare(workload: Workload, layout: str) -> Job:
    return compiled_job(lambda: train_of(workload), keys_of(workload.seeds), workload, layout, lambda: facts_of(workload))
