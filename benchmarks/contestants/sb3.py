"""Stable-Baselines3 on PyTorch and Gymnasium, on the CPU: one seed, the environments in one process.

A run goes on with the model of the run before it. Its DQN has the Huber loss and clips the gradient's norm
(here at infinity, but it is computed), and keeps ε at 0.05, where it acts without a forward pass. REINFORCE
is nearest to its A2C, with Adam and λ = 1: one gradient of the same rollout, with the value as a baseline.
"""

import math

import torch
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.env_util import make_vec_env

from benchmarks.program import Job
from benchmarks.works import Work

# Products this small are slower when two threads share them.
torch.set_num_threads(1)


def dqn_settings(work: Work) -> dict:
    """What SB3's DQN and sbx's have in common."""
    return {
        "learning_rate": 1e-3,
        "buffer_size": work.capacity,
        "learning_starts": work.num_envs * (work.warmup - 1),  # it learns where more than these were played
        "batch_size": work.batch_size,
        "tau": work.tau,
        "gamma": 0.99,
        "train_freq": work.rollout_length,
        "gradient_steps": 1,
        "target_update_interval": work.num_envs,  # in steps: every time that the environments step
        "exploration_initial_eps": 0.05,
        "exploration_final_eps": 0.05,
        "seed": 0,
        "device": "cpu",
    }


def replay_facts(replay) -> dict:
    """SB3's replay, which sbx has too, counts its rows by steps of all environments."""
    arrays = (replay.observations, replay.next_observations, replay.actions, replay.rewards, replay.dones, replay.timeouts)
    rows = replay.buffer_size * replay.n_envs
    return {"capacity": rows, "bytes_per_transition": sum(x.nbytes for x in arrays) / rows}


def job_of(model, work: Work, facts: dict) -> Job:
    """A model that learns on in every run."""
    steps = work.num_envs * work.rollout_length

    def run(_):
        before = model._n_updates
        model.learn(steps * work.updates, reset_num_timesteps=False)
        return model._n_updates - before

    model.learn(steps * (work.warmup + 10))  # fill a batch, and compile what sbx compiles
    return Job(lambda n: None, run, facts | {"env_steps": steps * work.updates})


def a2c(work: Work) -> A2C:
    network = {"net_arch": {"pi": list(work.hidden), "vf": list(work.hidden)}, "activation_fn": torch.nn.Tanh}
    settings = {"learning_rate": 1e-3, "n_steps": work.rollout_length, "gamma": 0.99, "gae_lambda": 1.0, "use_rms_prop": False}
    envs = make_vec_env(work.env, n_envs=work.num_envs, seed=0)
    return A2C("MlpPolicy", envs, **settings, max_grad_norm=math.inf, policy_kwargs=network, seed=0, device="cpu")


def dqn(work: Work) -> DQN:
    envs, network = make_vec_env(work.env, n_envs=work.num_envs, seed=0), {"net_arch": list(work.hidden)}
    return DQN("MlpPolicy", envs, **dqn_settings(work), max_grad_norm=math.inf, policy_kwargs=network)


def prepare(work: Work, layout: str) -> Job:
    if work.name == "reinforce":
        model = a2c(work)
        layers, facts = model.policy.parameters(), {}
    else:
        model = dqn(work)
        layers, facts = model.q_net.parameters(), replay_facts(model.replay_buffer)
    return job_of(model, work, facts | {"weights": sorted(sorted(x.shape) for x in layers if x.ndim > 1)})
