"""Stable-Baselines3 on PyTorch and Gymnasium, on the CPU: one seed, the environments in one process.

A run continues with the model of the previous run. Its DQN has the Huber loss and clips the gradient's norm
(here at infinity, but it is computed), and keeps ε at 0.05, where it acts without a forward pass. REINFORCE
is nearest to its A2C, with Adam and λ = 1: one gradient of the same rollout, with the value as a baseline.
Its PPO acts with policy and value, and counts epochs; its SAC updates the temperature, the critics and the
actor in turn, on one batch.
"""

import math

import torch
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.env_util import make_vec_env

from benchmarks.program import Job
from benchmarks.workloads import Workload

# Products this small are slower when two threads share them.
torch.set_num_threads(1)


def replay_settings(workload: Workload) -> dict:
    """What the DQN and the SAC of SB3 and sbx have in common."""
    return {
        "learning_rate": 1e-3,
        "buffer_size": workload.capacity,
        "learning_starts": workload.num_envs * (workload.warmup - 1),  # it learns where more than these were played
        "batch_size": workload.batch_size,
        "tau": workload.tau,
        "gamma": 0.99,
        "train_freq": workload.rollout_length,
        "gradient_steps": 1,
        "seed": 0,
        "device": "cpu",
    }


def dqn_settings(workload: Workload) -> dict:
    """Those of DQN."""
    return replay_settings(workload) | {
        "target_update_interval": workload.num_envs,  # in steps: every time that the environments step
        "exploration_initial_eps": 0.05,
        "exploration_final_eps": 0.05,
    }


def ppo_settings(workload: Workload) -> dict:
    """What the PPO of SB3 and sbx have in common."""
    return {
        "learning_rate": 1e-3,
        "n_steps": workload.rollout_length,
        "batch_size": workload.num_envs * workload.rollout_length // workload.num_minibatches,
        "n_epochs": workload.num_epochs,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "ent_coef": 0.01,
        "max_grad_norm": 0.5,
        "seed": 0,
        "device": "cpu",
    }


def replay_facts(replay) -> dict:
    """SB3's replay, which sbx has too, counts its rows by steps of all environments."""
    arrays = (replay.observations, replay.next_observations, replay.actions, replay.rewards, replay.dones, replay.timeouts)
    rows = replay.buffer_size * replay.n_envs
    return {"capacity": rows, "bytes_per_transition": sum(x.nbytes for x in arrays) / rows}


def job_of(model, workload: Workload, facts: dict) -> Job:
    """A model that learns on in every run."""
    steps = workload.num_envs * workload.rollout_length

    def run(_):
        before = model._n_updates
        model.learn(steps * workload.updates, reset_num_timesteps=False)
        return (model._n_updates - before) * workload.num_minibatches  # PPO counts epochs

    model.learn(steps * (workload.warmup + 10))  # fill a batch, and compile what sbx compiles
    return Job(lambda n: None, run, facts | {"env_steps": steps * workload.updates})


def net_arch(workload: Workload, critic: str) -> dict:
    return {"net_arch": {"pi": list(workload.hidden), critic: list(workload.hidden)}}


def a2c(workload: Workload) -> A2C:
    network = net_arch(workload, "vf") | {"activation_fn": torch.nn.Tanh}
    settings = {
        "learning_rate": 1e-3,
        "n_steps": workload.rollout_length,
        "gamma": 0.99,
        "gae_lambda": 1.0,
        "use_rms_prop": False,
    }
    envs = make_vec_env(workload.env, n_envs=workload.num_envs, seed=0)
    return A2C("MlpPolicy", envs, **settings, max_grad_norm=math.inf, policy_kwargs=network, seed=0, device="cpu")


def dqn(workload: Workload) -> DQN:
    envs, network = make_vec_env(workload.env, n_envs=workload.num_envs, seed=0), {"net_arch": list(workload.hidden)}
    return DQN("MlpPolicy", envs, **dqn_settings(workload), max_grad_norm=math.inf, policy_kwargs=network)


def prepare(workload: Workload, layout: str) -> Job:
    envs, tanh = make_vec_env(workload.env, n_envs=workload.num_envs, seed=0), {"activation_fn": torch.nn.Tanh}
    if workload.name == "reinforce":
        model = a2c(workload)
        layers, facts = model.policy.parameters(), {}
    elif workload.name == "ppo":
        model = PPO("MlpPolicy", envs, **ppo_settings(workload), policy_kwargs=net_arch(workload, "vf") | tanh)
        layers, facts = model.policy.parameters(), {}
    elif workload.name == "sac":
        model = SAC("MlpPolicy", envs, **replay_settings(workload), policy_kwargs=net_arch(workload, "qf"))
        parameters = sum(x.numel() for part in (model.actor, model.critic) for x in part.parameters())
        return job_of(model, workload, replay_facts(model.replay_buffer) | {"parameters": parameters})
    else:
        model = dqn(workload)
        layers, facts = model.q_net.parameters(), replay_facts(model.replay_buffer)
    return job_of(model, workload, facts | {"weights": sorted(sorted(x.shape) for x in layers if x.ndim > 1)})
