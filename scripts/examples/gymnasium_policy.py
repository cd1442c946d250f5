"""Train where it is fast, play where it counts: a policy that was trained in a JAX program acts in a Gymnasium environment.

pip install '.[gymnax,gymnasium]'  # in a clone of jaxrl
python scripts/examples/gymnasium_policy.py runs/cartpole
"""

import argparse
from pathlib import Path

import gymnasium
import numpy as np

import jaxrl
from jaxrl import experiment, presets
from jaxrl.experiment import folder


def play(policy, env: gymnasium.Env, seed: int) -> float:
    """The return of one greedy episode."""
    obs, _ = env.reset(seed=seed)
    policy.reset()  # forgets the last episode, if the policy has a memory
    total, over = 0.0, False
    while not over:
        obs, reward, terminated, truncated, _ = env.step(policy.act(obs))
        total, over = total + float(reward), terminated or truncated
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder; it is trained if it does not exist")
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps of training (default: 100000)")
    parser.add_argument("--episodes", type=int, default=10)
    options = parser.parse_args()
    if not folder.is_finished(options.run):
        settings = presets.override(presets.tuned("ppo", "CartPole-v1"), steps=options.steps)
        experiment.run(experiment.Config(env="CartPole-v1", settings=settings, seeds=2), options.run)
    policy = jaxrl.load_policy(options.run)  # the best seed
    returns = [play(policy, gymnasium.make("CartPole-v1"), seed) for seed in range(options.episodes)]
    print(f"seed {policy.seed} in Gymnasium: mean return {np.mean(returns):.1f} of {len(returns)} episodes")


if __name__ == "__main__":
    main()
