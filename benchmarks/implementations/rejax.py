"""rejax, with gymnax's adapter to the step that it knows; without evaluations, and so without any metrics.

Its DQN puts 64-64 into its own network whatever one asks for, so that the network is replaced; and it has
no network for images since version 0.1, so that Breakout gets jaxrl's, with the method that rejax calls.
REINFORCE is nearest to its PPO with one epoch of one minibatch: the same rollout and one gradient of it,
with clipped ratios and two optimizers.

Its PPO acts with policy and value, evaluates only the last successors, normalises the advantages of each
minibatch, clips each element of the gradients, and shuffles by sorting. Its SAC takes turns: the actor, the
critics, which therefore act with the new actor, and the temperature, each with its own optimizer. Its PQN
evaluates the successors while it acts, those after a reset among them.
"""

import gymnax
import jax
import jax.numpy as jnp
from flax import linen as nn
from gymnax.wrappers import LegacyStepAPIWrapper
from rejax.algos import DQN, PPO, PQN, SAC
from rejax.networks import DiscreteQNetwork, EpsilonGreedyPolicy

from benchmarks.program import Job, bytes_per_row, compiled_job, keys_of, num_parameters, weights
from benchmarks.workloads import Workload
from jaxrl.envs.suites.gymnax import from_gymnax
from jaxrl.networks import MLP


class Legacy(LegacyStepAPIWrapper):
    """rejax copies its settings deeply, and the adapter would look for what copying needs in the environment."""

    def __deepcopy__(self, memo):
        return self


class ImageQNetwork(MLP):
    def take(self, obs, action):
        return jnp.take_along_axis(self(obs), action[:, None], axis=1).squeeze(1)


def q_network(workload: Workload, env, params):
    num_actions = env.action_space(params).n
    if workload.channels:
        space = from_gymnax(env._env, params).observation_space
        return EpsilonGreedyPolicy(ImageQNetwork)(space, num_actions, workload.hidden, "relu", workload.channels)
    return EpsilonGreedyPolicy(DiscreteQNetwork)(hidden_layer_sizes=workload.hidden, activation=nn.relu, action_dim=num_actions)


def algorithm_of(workload: Workload):
    env, params = gymnax.make(workload.env)
    env = Legacy(env)
    steps = workload.env_steps // workload.seeds
    common = {
        "env": env,
        "env_params": params,
        "num_envs": workload.num_envs,
        "learning_rate": 1e-3,
        "gamma": 0.99,
        "total_timesteps": steps,
        "eval_freq": steps,
        "skip_initial_evaluation": True,
    }
    if workload.name in ("reinforce", "ppo"):
        sizes = {
            "num_steps": workload.rollout_length,
            "num_epochs": workload.num_epochs,
            "num_minibatches": workload.num_minibatches,
        }
        if workload.name == "ppo":
            rest = {"gae_lambda": 0.95, "ent_coef": 0.01, "max_grad_norm": 0.5}
        else:
            rest = {"gae_lambda": 1.0, "ent_coef": 0.0}
        network = {"activation": "tanh", "hidden_layer_sizes": workload.hidden}
        algorithm = PPO.create(**common, **sizes, **rest, agent_kwargs=network)
    elif workload.name == "pqn":  # its hidden layers are 64-64
        algorithm = PQN.create(
            **common,
            num_steps=workload.rollout_length,
            num_epochs=workload.num_epochs,
            num_minibatches=workload.num_minibatches,
            td_lambda=0.65,
            max_grad_norm=10.0,
        )
    elif workload.name == "sac":
        algorithm = SAC.create(
            **common,
            buffer_size=workload.capacity,
            fill_buffer=workload.num_envs * workload.warmup,  # it learns where more than these were played
            batch_size=workload.batch_size,
            target_update_freq=workload.num_envs * workload.target_update_period,
            polyak=1.0 - workload.tau,
            hidden_layer_sizes=workload.hidden,
        )
    else:
        algorithm = DQN.create(
            **common,
            buffer_size=workload.capacity,
            fill_buffer=workload.num_envs * (workload.warmup - 1),  # it learns where more than these were played before
            batch_size=workload.batch_size,
            target_update_freq=workload.num_envs * workload.target_update_period,
            polyak=1.0 - workload.tau,
            ddqn=False,
        ).replace(agent=q_network(workload, env, params))
    return algorithm.replace(eval_callback=lambda algorithm, state, key: ())


def train_of(workload: Workload):
    algorithm = algorithm_of(workload)

    def train(key):
        state, _ = algorithm.train(key)
        if workload.name in ("reinforce", "ppo", "sac"):
            return state.critic_ts.step, (state.actor_ts.params, state.critic_ts.params)
        return state.q_ts.step, state.q_ts.params

    return train


def facts_of(workload: Workload) -> dict:
    state = jax.eval_shape(algorithm_of(workload).init_state, jax.random.key(0))
    if workload.name in ("reinforce", "ppo"):
        return {"weights": weights((state.actor_ts.params, state.critic_ts.params))}
    if workload.name == "pqn":
        return {"weights": weights(state.q_ts.params)}
    rows = state.replay_buffer.size
    if workload.name == "sac":
        facts = {"parameters": num_parameters((state.actor_ts.params, state.critic_ts.params)), "capacity": rows}
    else:
        facts = {"weights": weights(state.q_ts.params), "capacity": rows}
    return facts | {"bytes_per_transition": bytes_per_row(state.replay_buffer.data, rows)}


def prepare(workload: Workload, layout: str) -> Job:
    return compiled_job(lambda: train_of(workload), keys_of(workload.seeds), workload, layout, lambda: facts_of(workload))
