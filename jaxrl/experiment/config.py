"""The configuration of an experiment, as `config.json` holds it, and the runs that it describes."""

import dataclasses
import itertools
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from jaxrl import envs, presets
from jaxrl._src.checks import check_plain, check_size, check_table
from jaxrl.experiment.folder import CONFIG, not_a_run
from jaxrl.experiment.host import is_on_host
from jaxrl.experiment.storage import from_json, to_json
from jaxrl.experiment.wrapping import parse, wrap
from jaxrl.presets import Preset, Settings


@dataclass(frozen=True)
class Config:
    """A batch of runs: every seed with every combination of the swept values, and with every sample.

    Attributes:
      env: name of the environment, as `jaxrl.make` takes it.
      settings: settings of the agent and the length of the run.
      wrappers: wrappers of the environment, in the order in which `jaxrl.experiment.wrapping.wrap` applies them.
      seeds: number of seeds.
      seed: the first seed; the others follow it consecutively.
      hparams: hyperparameters that override those of `settings` and their schedules.
      sweep: the values of each swept hyperparameter.
      samples: settings of other hyperparameters that are tried together, such as random samples
        (`jaxrl.experiment.draw_samples`). Each runs with every combination of the swept values.
      batch_size: maximum number of runs in memory at once; by default as many as fit.
      eval_every: environment steps of each run between evaluations of its greedy policy during training, "auto" for a tenth of
        the run, or "none". An evaluation takes place at the end of the logging interval in which it is due.
      num_shards: number of devices for each run, which share its environments, its replay and its batches
        (`jaxrl.vectorize`).
      deterministic: whether `jaxrl train` and `jaxrl resume` compile programs so that every process computes the same bits on a
        GPU. In a process of your own, set XLA_FLAGS before JAX starts (docs/devices.md).
    """

    env: str
    settings: Settings
    wrappers: tuple[str, ...] = ()
    seeds: int = 16
    seed: int = 0
    hparams: dict[str, float] = field(default_factory=dict)
    sweep: dict[str, list[float]] = field(default_factory=dict)
    samples: list[dict[str, float]] = field(default_factory=list)
    batch_size: int | None = None
    eval_every: int | str = "auto"
    num_shards: int = 1
    deterministic: bool = False

    def __post_init__(self):
        _check_types(self)
        object.__setattr__(self, "wrappers", tuple(self.wrappers))
        check_size("seeds", self.seeds)
        check_size("seed", self.seed, minimum=0, maximum=2**32 - 1)
        if self.seed + self.seeds > 2**32:
            raise ValueError(
                f"seeds are numbers below 2^32, since larger ones repeat the others; got seed={self.seed} and seeds={self.seeds}"
            )
        if self.batch_size is not None:
            check_size("batch_size", self.batch_size)
        if self.eval_every not in ("auto", "none"):
            if isinstance(self.eval_every, str):
                raise ValueError(f'eval_every must be a number of environment steps, "auto" or "none"; got {self.eval_every!r}')
            check_size("eval_every", self.eval_every)
        check_size("num_shards", self.num_shards)
        for name in {*self.hparams, *self.swept} - self.settings.hparams.keys():
            raise ValueError(
                f"{self.settings.algorithm} has no hyperparameter {name!r}; it has {', '.join(self.settings.hparams)}"
            )
        for name, values in self.sweep.items():
            if not values or len(set(values)) < len(values):
                raise ValueError(f"the swept values of {name} must be one or more different numbers; got {list(values)}")
        if any(sample.keys() != self.samples[0].keys() for sample in self.samples):
            raise ValueError("every one of the samples must set the same hyperparameters")
        times = Counter(tuple(sorted(sample.items())) for sample in self.samples)
        if equal := next((dict(sample) for sample, num in times.items() if num > 1), None):
            raise ValueError(f"every one of the samples must differ from the others; got {equal} twice")
        for name in self.samples[0] if self.samples else ():
            if name in self.sweep:
                raise ValueError(f"{name} is both swept and sampled: give one of the two")
        for name in set(self.hparams) & set(self.swept):
            raise ValueError(f"{name} is both swept and set: give one of the two")
        for spec in self.wrappers:
            parse(spec)

    @property
    def env_title(self) -> str:
        """The environment and its wrappers, such as "CartPole-v1 (time_aware, frame_stack:4)"."""
        return self.env + (f" ({', '.join(self.wrappers)})" if self.wrappers else "")

    @property
    def swept(self) -> tuple[str, ...]:
        """The names of the hyperparameters in which the runs differ."""
        return (*self.sweep, *(self.samples[0] if self.samples else ()))

    @property
    def combinations(self) -> list[dict[str, float]]:
        """The combinations of the swept values and the samples; one empty dict without either."""
        grid = [dict(zip(self.sweep, values, strict=True)) for values in itertools.product(*self.sweep.values())]
        return [combination | sample for combination in grid for sample in self.samples or [{}]]

    @property
    def num_runs(self) -> int:
        return self.seeds * len(self.combinations)

    def preset(self) -> Preset:
        """The learner, and the hyperparameters that are not swept.

        Raises:
          ValueError, TypeError: for an invalid setting, hyperparameter or wrapper.
        """
        preset = presets.build(self.settings, wrap(envs.make(self.env), self.wrappers), **self.hparams)
        if self.wrappers and is_on_host(preset.learner):
            raise ValueError(f"jaxrl's wrappers have no effect on {self.env}, which runs on the host: leave out --wrap")
        if self.num_shards > 1 and is_on_host(preset.learner):
            raise ValueError(f"{self.env} runs on the host, which has no shards: leave out --num-shards")
        # Tracing with concrete values checks their ranges, before anything runs. These are intervals: the ends are enough.
        columns = {name: [combination[name] for combination in self.combinations] for name in self.swept}
        for end in (np.min, np.max):  # which keep a NaN
            hparams = preset.hparams._replace(**{name: float(end(values)) for name, values in columns.items()})
            jax.eval_shape(lambda key, hparams=hparams: preset.learner.init(key, hparams), jax.random.key(0))
        return preset

    def part(self, index: int, num_parts: int) -> "Config":
        """Part `index`, from 1 to `num_parts`, of the runs: some of the seeds or, if there are too few, of the swept values.

        Raises:
          ValueError: if there is no such part, or more parts than seeds and than values of each swept hyperparameter.
        """
        check_size("num_parts", num_parts)
        if not 1 <= check_size("part", index) <= num_parts:
            raise ValueError(f"the parts are 1/{num_parts} to {num_parts}/{num_parts}; got {index}/{num_parts}")
        bounds = lambda total: (total * (index - 1) // num_parts, total * index // num_parts)
        if self.seeds >= num_parts:
            first, end = bounds(self.seeds)
            return dataclasses.replace(self, seed=self.seed + first, seeds=end - first)
        longest = max(self.sweep, key=lambda name: len(self.sweep[name]), default="")
        values = self.sweep.get(longest, [])
        if len(values) < num_parts:
            raise ValueError(
                f"the runs cannot be divided into {num_parts} parts: there are {self.seeds} seeds and {len(values)} values in "
                f"the longest sweep; use at most {max(self.seeds, len(values))}"
            )
        first, end = bounds(len(values))
        return dataclasses.replace(self, sweep=self.sweep | {longest: values[first:end]})

    def runs(self, preset: Preset) -> tuple[jax.Array, Any]:
        """Keys `[num_runs]` and hyperparameters with leaves `[num_runs]`; the seeds of a combination are adjacent.

        A seed has the same key in every combination, so that combinations are compared with the same random numbers.
        """
        combined = [preset.hparams._replace(**c) for c in self.combinations]
        columns = [np.repeat(np.asarray(values, np.float32), self.seeds) for values in zip(*combined, strict=True)]
        seeds = jnp.tile(jnp.arange(self.seed, self.seed + self.seeds), len(combined))
        return jax.vmap(jax.random.key)(seeds), type(preset.hparams)(*columns)

    def identifiers(self) -> list[dict[str, Any]]:
        """The seed and the swept values of each run."""
        seeds = range(self.seed, self.seed + self.seeds)
        return [{"seed": seed} | combination for combination in self.combinations for seed in seeds]

    def resolved(self) -> dict[str, Any]:
        """All of it as JSON values, except that infinity stays a number."""
        return from_json(to_json(dataclasses.asdict(self)))

    def save(self, path: Path) -> None:
        """Write a new file. Raises FileExistsError if there is one, and another OSError if that fails, which leaves no file."""
        record = to_json({"jaxrl": jaxrl.__version__, **dataclasses.asdict(self)})
        file = path.open("x")
        try:
            with file:
                file.write(json.dumps(record, indent=2, allow_nan=False) + "\n")
        except OSError:
            path.unlink()
            raise

    @staticmethod
    def load(path: Path) -> "Config":
        """Read a file that `save` wrote. Raises ValueError if it is not one."""
        try:
            record = from_json(json.loads(path.read_text()))
            check_version(path, record.pop("jaxrl"))
            settings, wrappers = record.pop("settings"), record.pop("wrappers")
            check_table("settings", settings)
            return Config(settings=Settings(**settings), wrappers=wrappers, **record)
        except OSError as error:
            raise ValueError(f"cannot read {path} ({error.strerror})") from error
        except _Newer:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{path} is not a configuration that this version of jaxrl can read ({reason})") from error


def _check_types(config: Config) -> None:
    """Raise TypeError for the first entry whose value is not of its type; sizes are checked on their own."""
    check_plain("env", config.env, str)
    check_plain("wrappers", config.wrappers, str, repeated=True)
    check_plain("deterministic", config.deterministic, bool)
    if not isinstance(config.samples, list | tuple):
        raise TypeError(f"samples must be a list of tables of hyperparameters, got {config.samples!r}")
    for name, table in (("hparams", config.hparams), *((f"samples[{i}]", sample) for i, sample in enumerate(config.samples))):
        check_table(name, table)
        for key, value in table.items():
            check_plain(f"{name}.{key}", value, float)
    check_table("sweep", config.sweep)
    for key, values in config.sweep.items():
        check_plain(f"sweep.{key}", values, float, repeated=True)


def load_config(run: Path) -> Config:
    """The configuration of a run folder. Raises ValueError if the folder is not one."""
    if not (run / CONFIG).is_file():
        raise ValueError(not_a_run(run, CONFIG))
    return Config.load(run / CONFIG)


class _Newer(ValueError):
    """A folder of a later version."""


def check_version(path: Path, version: str) -> None:
    """Raise ValueError if a later version wrote the folder, since it may mean something else by the same names."""
    release = lambda version: tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if release(version) > release(jaxrl.__version__):
        raise _Newer(
            f"{path} was written by jaxrl {version}, which is later than this version, {jaxrl.__version__}: update jaxrl"
        )
