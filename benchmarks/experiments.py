"""What the experiment layer costs: `jaxrl.experiment.run` with checkpoints, evaluations and TensorBoard, over `jaxrl.train`.

Both train the same runs for the same number of steps, and take turns. Of an experiment, the time counts from before the first
chunk to after the last one, with all that happens between chunks and with the closing of the logger. Neither contains the
compilation of its programs, but that of the experiment contains their tracing, and imports: let the runs take a minute or more.
The least times count. On a busy machine, trust the ratio of the CPU times of all cores.

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
from jaxrl.experiment import Config, loggers, run, training
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
    jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp())
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    for algorithm in options.algorithms:
        settings = presets.tuned(algorithm, options.env, options.steps) or presets.default_settings(algorithm)
        config = Config(options.env, presets.override(settings, steps=options.steps), seeds=options.seeds)
        plain, experiment = measure(config, options.repeats, options.checkpoint_every)
        for name, a, b in zip(("seconds", "CPU seconds"), plain, experiment, strict=True):
            verdict = "" if b <= _TARGET * a else f", more than {_TARGET}"
            print(f"{algorithm}: {name} of jaxrl.train {a:.2f}, of an experiment {b:.2f}, ratio {b / a:.3f}{verdict}", flush=True)


Times = tuple[float, float]  # seconds, and CPU seconds of all cores


def measure(config: Config, repeats: int, checkpoint_every: float) -> tuple[Times, Times]:
    """The least times of both."""
    preset = config.preset()
    keys, hparams = config.runs(preset)
    plain = vectorize(lambda key, h: train(key, preset.learner, preset.num_iterations, h)[1]["episode_return"])
    np.asarray(plain(keys, hparams))  # compiles
    time_experiment(config, checkpoint_every)  # fills the cache
    pairs = []
    for _ in range(repeats):
        begun = now()
        np.asarray(plain(keys, hparams))
        pairs.append((minus(now(), begun), time_experiment(config, checkpoint_every)))
    least = lambda times: tuple(map(min, zip(*times, strict=True)))
    return tuple(least(times) for times in zip(*pairs, strict=True))  # type: ignore[return-value]


def now() -> Times:
    return time.perf_counter(), time.process_time()


def minus(end: Times, begin: Times) -> Times:
    return end[0] - begin[0], end[1] - begin[1]


def time_experiment(config: Config, checkpoint_every: float) -> Times:
    """Times from before the first chunk to after the last, and of closing the logger."""
    with tempfile.TemporaryDirectory() as folder:
        out, begun = Path(folder) / "run", []
        real = training.make_trainer

        def make(*args, **kwargs):
            trainer = real(*args, **kwargs)

            def chunks(*args):
                begun.append(now())
                yield from trainer.chunks(*args)

            return trainer._replace(chunks=chunks)

        training.make_trainer = make
        save = training.best_policies.save
        ended = []
        training.best_policies.save = lambda *args: ended.append(now()) or save(*args)
        try:
            run(config, out, checkpoint_every=checkpoint_every, loggers=[loggers.tensorboard(out)])
        finally:
            training.make_trainer, training.best_policies.save = real, save
        assert len(begun) == 1, "the runs do not fit into memory at once: use fewer"
        return minus(ended[0], begun[0])


if __name__ == "__main__":
    main()
