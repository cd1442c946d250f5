"""What the experiment layer costs: `jaxrl.experiment.run` with checkpoints, evaluations and TensorBoard, over `jaxrl.train`.

Both train the same runs, in the same number of environment steps. `jaxrl.train` is called once, compiled ahead. Of an experiment, the
time counts from the first chunk to the last, with everything that happens between chunks, so that neither contains compilation; that
of the evaluation program is left out by evaluating once before. The two take turns, and the least times count.

    python benchmarks/experiments.py                        # DQN and PPO on CartPole-v1
    python benchmarks/experiments.py --steps 50000 --repeats 3 dqn
"""

import argparse
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from jaxrl import presets, train, vectorize
from jaxrl.experiment import Config, loggers, policies, run, training
from jaxrl.vectorization import use_all_cores

_TARGET = 1.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithms", nargs="*", default=["dqn", "ppo"])
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--checkpoint-every", type=float, default=5.0, help="seconds; the default of jaxrl train is 300")
    options = parser.parse_args()
    use_all_cores()
    for algorithm in options.algorithms:
        settings = presets.tuned(algorithm, options.env, options.steps) or presets.default_settings(algorithm)
        config = Config(options.env, presets.override(settings, steps=options.steps), seeds=options.seeds)
        plain, experiment = measure(config, options.repeats, options.checkpoint_every)
        ratio = experiment / plain
        verdict = "" if ratio <= _TARGET else f", more than {_TARGET}"
        print(f"{algorithm}: jaxrl.train {plain:.2f} s, experiment {experiment:.2f} s, ratio {ratio:.3f}{verdict}", flush=True)


def measure(config: Config, repeats: int, checkpoint_every: float) -> tuple[float, float]:
    """The least seconds of both."""
    preset = config.preset()
    keys, hparams = config.runs(preset)
    plain = vectorize(lambda key, h: train(key, preset.learner, preset.num_iterations, h)[1]["episode_return"])
    np.asarray(plain(keys, hparams))  # compiles
    without_compilation()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        np.asarray(plain(keys, hparams))
        middle = time.perf_counter()
        times.append((middle - begun, time_experiment(config, checkpoint_every)))
    return tuple(min(column) for column in zip(*times, strict=True))  # type: ignore[return-value]


def without_compilation() -> None:
    """Make experiments compile their evaluation before the first chunk."""
    make = policies.greedy_evaluation

    def compiled(learner, num_episodes):
        evaluate = make(learner, num_episodes)
        key = jax.random.key(0)
        one = jax.jit(lambda: policies.policy_of(learner, learner.init(key, jax.tree.map(np.float32, learner.agent.hparams))))()
        for seeds in sizes:
            evaluate(jax.random.split(key, seeds), jax.tree.map(lambda x, n=seeds: np.stack([x] * n), one))
        return evaluate

    training.greedy_evaluation = compiled


sizes: list[int] = []  # of the batches of runs


def time_experiment(config: Config, checkpoint_every: float) -> float:
    """Seconds of training, from before the first chunk to after the last, and of closing the logger."""
    sizes[:] = [config.num_runs]
    with tempfile.TemporaryDirectory() as folder:
        out, begun = Path(folder) / "run", []
        real = training.make_trainer

        def make(*args, **kwargs):
            trainer = real(*args, **kwargs)

            def chunks(*args):
                begun.append(time.perf_counter())
                yield from trainer.chunks(*args)

            return trainer._replace(chunks=chunks)

        training.make_trainer = make
        save = training.best_policies.save
        ended = []
        training.best_policies.save = lambda *args: ended.append(time.perf_counter()) or save(*args)
        try:
            run(config, out, checkpoint_every=checkpoint_every, loggers=[loggers.tensorboard(out)])
        finally:
            training.make_trainer, training.best_policies.save = real, save
        assert len(begun) == 1, "the runs do not fit into memory at once: use fewer"
        return ended[0] - begun[0]


if __name__ == "__main__":
    main()
