"""Train on one CartPole and play others, with and without domain randomisation: `python scripts/generalization.py`.

It prints a table with the return for each value of a parameter, the IQM over the seeds with its 95 % interval, and draws the
robustness curves into OUT-PARAMETER.png. docs/generalization.md explains it.
"""

import argparse
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxrl
from jaxrl.envs import wrappers as w
from jaxrl.experiment.robustness import plot_robustness
from jaxrl.experiment.statistics import iqm, iqm_interval, robustness_curve
from jaxrl.presets import build, override, tuned


class Task(NamedTuple):
    """A parameter of CartPole: the one value, or the range, to train on, and the values to test."""

    title: str
    one: float
    range: tuple[float, float]
    tested: tuple[float, ...]


TASKS = {
    "masscart": Task("mass of the cart, kg", 0.1, (0.1, 20.0), (0.1, 0.3, 1.0, 3.0, 10.0, 15.0, 20.0)),
    "length": Task("half the length of the pole, m", 0.5, (0.1, 2.0), (0.1, 0.25, 0.5, 1.0, 1.5, 2.0)),
}


def returns_of(env: Any, grid: Any, *, seeds: int, steps: int, episodes: int) -> np.ndarray:
    """Train PPO in `env` and return the mean greedy returns `[seeds, N]` in CartPoles with the parameters `grid`."""
    learner, hparams, num_iterations, _ = build(override(tuned("ppo", "CartPole-v1"), steps=steps), env)
    plain = learner._replace(env=jaxrl.make("CartPole-v1"))

    def run(key):
        train_key, test_key = jax.random.split(key)
        state, _ = jaxrl.train(train_key, learner, num_iterations, hparams)
        return jaxrl.evaluate_over_params(test_key, plain, state, grid, num_episodes=episodes).mean(axis=-1)

    return np.asarray(jaxrl.vectorize(run)(jax.random.split(jax.random.key(0), seeds)))


def experiment(parameter: str, *, seeds: int, steps: int, episodes: int) -> dict[str, np.ndarray]:
    """The returns `[seeds, N]` of policies that trained on one value of the parameter, and on a range of it."""
    task, env = TASKS[parameter], jaxrl.make("CartPole-v1")
    grid = w.params_grid(env.params, **{parameter: task.tested})
    one = jaxrl.make("CartPole-v1", **{parameter: task.one})
    randomized = w.randomize_params(env, w.uniform_params(**{parameter: task.range}))
    sizes = {"seeds": seeds, "steps": steps, "episodes": episodes}
    return {"one value": returns_of(one, grid, **sizes), "a range": returns_of(randomized, grid, **sizes)}


def table(parameter: str, returns: dict[str, np.ndarray]) -> str:
    """A table in Markdown, and the gain by the range, seed by seed."""
    task = TASKS[parameter]
    curves = {label: robustness_curve(runs) for label, runs in returns.items()}
    heads = [f"trained on {task.one:g}", f"trained on {task.range[0]:g} to {task.range[1]:g}"]
    lines = [f"| {task.title} | {' | '.join(heads)} | gain |", "|---|---|---|---|"]
    gain = returns["a range"] - returns["one value"]
    for i, value in enumerate(task.tested):
        cells = [f"{c.value[i]:.0f} ({c.low[i]:.0f} to {c.high[i]:.0f})" for c in curves.values()]
        low, high = iqm_interval(gain[:, i])
        lines.append(f"| {value:g} | {' | '.join(cells)} | {iqm(gain[:, i]):+.0f} ({low:+.0f} to {high:+.0f}) |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=8, help="policies of each kind (default: 8)")
    parser.add_argument("--steps", type=int, default=150_000, help="environment steps of each (default: 150000)")
    parser.add_argument("--episodes", type=int, default=16, help="episodes for each value (default: 16)")
    parser.add_argument("--parameters", nargs="+", choices=TASKS, default=list(TASKS), help="default: all")
    parser.add_argument("--out", default="robustness", help="pictures are OUT-PARAMETER.png (default: robustness)")
    options = parser.parse_args()
    for parameter in options.parameters:
        task = TASKS[parameter]
        returns = experiment(parameter, seeds=options.seeds, steps=options.steps, episodes=options.episodes)
        print(table(parameter, returns), end="\n\n", flush=True)
        trained = {"one value": [task.one], "a range": list(task.range)}
        path = f"{options.out}-{parameter}.png"
        print(plot_robustness(path, task.title, task.tested, returns, trained_on=trained), flush=True)


if __name__ == "__main__":
    main()
