"""jaxnasium, with its own CartPole; without its log and its metrics, and so without the wrapper that they need.

Its replay keeps an observation once and takes the successor from the next row, so that it can never sample
a truncated transition; its bytes are half of the others'. REINFORCE is nearest to its PPO with one epoch of
one minibatch: the same rollout and one gradient of it, with clipped ratios; it computes both values of a
transition while it acts.

Its PPO acts with the policy and both values, normalises the advantages of each minibatch, and clips the
gradient's global norm. Its SAC draws a batch each for critics, actor and temperature, with a pass of the
actor for the temperature alone. Its PQN evaluates the true successors while it acts.

Agents are made beforehand, one after the other: its orthogonal weights come from LAPACK's QR, which under
`vmap` can hang for good on two cores (jaxlib 0.10.2).
"""

import equinox as eqx
import jax
import jaxnasium
from jaxnasium.algorithms import DQN, PPO, PQN, SAC
from jaxnasium.algorithms.architectures import MLP
from jaxnasium.algorithms.core import TransitionBuffer

from benchmarks.program import Job, bytes_per_row, compiled_job, keys_of, num_parameters, weights
from benchmarks.workloads import Workload


def normalized_relu(x):
    """LayerNorm without its scale and offset, and ReLU; its MLP has no LayerNorm."""
    return jax.nn.relu(jax.nn.standardize(x))


def algorithm_of(workload: Workload):
    common = {
        "total_timesteps": workload.num_envs * workload.rollout_length * workload.updates,  # it does not count its warm-up
        "num_envs": workload.num_envs,
        "gamma": 0.99,
        "max_grad_norm": None,
        "normalize_observations": False,
        "normalize_rewards": False,
        "log_function": None,
        "reduce_metrics_fn": None,
    }
    activation = {"reinforce": jax.nn.tanh, "ppo": jax.nn.tanh, "pqn": normalized_relu}.get(workload.name, jax.nn.relu)
    body = {"body": MLP.with_params(hidden_sizes=workload.hidden, activation=activation)}
    if workload.name in ("reinforce", "ppo"):
        sizes = {
            "num_steps": workload.rollout_length,
            "num_epochs": workload.num_epochs,
            "num_minibatches": workload.num_minibatches,
            "warmup_steps": workload.num_envs,  # of its normalisation, which is off
        }
        if workload.name == "ppo":
            rest = {"gae_lambda": 0.95, "ent_coef_start": 0.01, "ent_coef_end": None, "max_grad_norm": 0.5}
        else:
            rest = {"gae_lambda": 1.0, "ent_coef_start": 0.0, "ent_coef_end": None}
        return PPO(**common | sizes | rest, learning_rate_start=1e-3, actor_kwargs=body, critic_kwargs=body)
    if workload.name == "pqn":
        return PQN(
            **common | {"max_grad_norm": 10.0},
            learning_rate_start=1e-3,
            num_steps=workload.rollout_length,
            num_epochs=workload.num_epochs,
            num_minibatches=workload.num_minibatches,
            warmup_steps=workload.num_envs,
            critic_kwargs=body,
        )
    if workload.name == "sac":
        return SAC(
            **common,
            update_every=workload.num_envs * workload.rollout_length,
            critics_num_updates=1,
            replay_buffer_size=workload.capacity,
            batch_size=workload.batch_size,
            warmup_steps=workload.num_envs * workload.warmup,
            tau=workload.tau,
            actor_kwargs=body,
            critic_kwargs=body,
        )
    return DQN(
        **common,
        learning_rate_start=1e-3,
        update_every=workload.num_envs * workload.rollout_length,
        num_updates=1,
        replay_buffer_size=workload.capacity,
        batch_size=workload.batch_size,
        warmup_steps=workload.num_envs * workload.warmup,
        tau=workload.tau,
        critic_kwargs=body,
    )


def networks_of(agent):
    critic = agent.critics if hasattr(agent, "critics") else agent.critic
    return (agent.actor, critic) if hasattr(agent, "actor") else critic


def is_array(x) -> bool:
    return isinstance(x, jax.Array | jax.ShapeDtypeStruct)


def train_of(workload: Workload):
    env, algorithm = jaxnasium.make(workload.env, wrappers=[]), algorithm_of(workload)
    # What is no array in an agent is the same for all of them.
    rest = eqx.filter(eqx.filter_eval_shape(algorithm.init_agent, jax.random.key(0), env), is_array, inverse=True)

    def train(key_and_agent):
        key, arrays = key_and_agent
        agent, _ = algorithm.train(key, env, eqx.combine(arrays, rest))
        states = agent.optimizer_state  # of SAC, one for each of its networks
        count = jaxnasium.tree.get_first(states["critics"] if isinstance(states, dict) else states, "count")
        return count, eqx.filter(networks_of(agent), eqx.is_array)

    return train


def facts_of(workload: Workload) -> dict:
    """The replay is made inside its `train`: as it does there, from the transitions of a rollout."""
    env, algorithm = jaxnasium.VecEnvWrapper(jaxnasium.make(workload.env, wrappers=[])), algorithm_of(workload)
    agent = eqx.filter_eval_shape(algorithm.init_agent, jax.random.key(0), env)
    arrays, rest = eqx.partition(agent, is_array)
    networks = networks_of(arrays)
    facts = {"parameters": num_parameters(networks)} if workload.name == "sac" else {"weights": weights(networks)}
    if not workload.capacity:
        return facts

    def replay(key, arrays):
        obs, state = env.reset(jax.random.split(key, workload.num_envs))
        _, trajectory = algorithm._collect_rollout(eqx.combine(arrays, rest), (state, obs, key), env, length=2)
        return TransitionBuffer(algorithm.replay_buffer_size, algorithm.batch_size, trajectory)

    buffer = eqx.filter_eval_shape(replay, jax.random.key(0), arrays)
    return facts | {"capacity": buffer.max_size, "bytes_per_transition": bytes_per_row(buffer.data, buffer.max_size)}


def prepare(workload: Workload, layout: str) -> Job:
    env, algorithm, keys = jaxnasium.make(workload.env, wrappers=[]), algorithm_of(workload), keys_of(workload.seeds)
    make = jax.jit(lambda keys: jax.lax.map(lambda key: eqx.filter(algorithm.init_agent(key, env), eqx.is_array), keys))
    agents = make(keys(0))
    return compiled_job(lambda: train_of(workload), lambda n: (keys(n), agents), workload, layout, lambda: facts_of(workload))
