"""sbx, Stable-Baselines3's loop around JAX networks, on the CPU: one seed, the environments in one process.

It has one width for both hidden layers, so that its network is replaced by one of the widths asked for. The
rest is as in SB3, without the gradient's norm. Its PPO calls a compiled function for each minibatch, and its
SAC one for each update.
"""

import sbx.dqn.policies
from flax import linen as nn
from stable_baselines3.common.env_util import make_vec_env

from benchmarks.implementations.sb3 import dqn_settings, job_of, net_arch, ppo_settings, replay_facts, replay_settings
from benchmarks.program import Job, num_parameters, weights
from benchmarks.workloads import Workload


def q_network(hidden: tuple[int, ...]):
    """What stands in for sbx's network: a factory with its arguments."""

    def make(n_actions, n_units, activation_fn):
        layers = [layer for width in hidden for layer in (nn.Dense(width), activation_fn)]
        return nn.Sequential([*layers, nn.Dense(n_actions)])

    return make


def prepare(workload: Workload, layout: str) -> Job:
    envs = make_vec_env(workload.env, n_envs=workload.num_envs, seed=0)
    if workload.name == "ppo":
        model = sbx.PPO("MlpPolicy", envs, **ppo_settings(workload), policy_kwargs=net_arch(workload, "vf"))
        return job_of(model, workload, {"weights": weights((model.policy.actor_state.params, model.policy.vf_state.params))})
    if workload.name == "sac":
        model = sbx.SAC("MlpPolicy", envs, **replay_settings(workload), policy_kwargs=net_arch(workload, "qf"))
        parameters = num_parameters((model.policy.actor_state.params, model.policy.qf_state.params))
        return job_of(model, workload, replay_facts(model.replay_buffer) | {"parameters": parameters})
    sbx.dqn.policies.QNetwork = q_network(workload.hidden)
    model = sbx.DQN("MlpPolicy", envs, **dqn_settings(workload))
    facts = {"weights": weights(model.policy.qf_state.params)} | replay_facts(model.replay_buffer)
    return job_of(model, workload, facts)
