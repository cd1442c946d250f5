"""The configuration of an experiment: what `config.json` holds, and the runs that it asks for."""

import dataclasses
import itertools
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from jaxrl import envs, presets
from jaxrl._src.checks import check_size
from jaxrl.experiment.folder import CONFIG
from jaxrl.presets import Preset, Settings


@dataclass(frozen=True)
class Config:
    """`seeds` seeds for every combination of the values in `sweep`, all of them one batch of runs."""

    env: str
    settings: Settings
    seeds: int = 16
    seed: int = 0  # the first seed; the others follow it
    hparams: dict[str, float] = field(default_factory=dict)  # over those of the settings and their schedules
    sweep: dict[str, list[float]] = field(default_factory=dict)
    batch_size: int | None = None  # at most so many runs are in memory at once; by default as many as fit

    def __post_init__(self):
        check_size("seeds", self.seeds)
        check_size("seed", self.seed, minimum=0, maximum=2**32 - 1)
        if self.seed + self.seeds > 2**32:
            raise ValueError(
                f"seeds are numbers below 2^32, for they repeat after that; got {self.seed} and {self.seeds} of them"
            )
        if self.batch_size is not None:
            check_size("batch_size", self.batch_size)
        for name in {*self.hparams, *self.sweep} - set(self.settings.hparams._fields):
            raise ValueError(
                f"{self.settings.algorithm} has no hyperparameter {name!r}; it has {', '.join(self.settings.hparams._fields)}"
            )
        for name, values in self.sweep.items():
            if not values or len(set(values)) < len(values):
                raise ValueError(f"the swept values of {name} must be some, and different; got {list(values)}")
        for name in set(self.hparams) & set(self.sweep):
            raise ValueError(f"{name} is both swept and set: give one of the two")

    @property
    def combinations(self) -> list[dict[str, float]]:
        """One dict of swept values for each setting; one empty dict without a sweep."""
        return [dict(zip(self.sweep, values, strict=True)) for values in itertools.product(*self.sweep.values())]

    @property
    def num_runs(self) -> int:
        return self.seeds * len(self.combinations)

    def preset(self) -> Preset:
        """The learner, with the hyperparameters that are not swept. Raises what a wrong setting raises."""
        preset = presets.build(self.settings, envs.make(self.env), **self.hparams)
        for combination in self.combinations:  # tracing with concrete values checks their ranges, before anything runs
            hparams = preset.hparams._replace(**combination)
            jax.eval_shape(lambda key, hparams=hparams: preset.learner.init(key, hparams), jax.random.key(0))
        return preset

    def runs(self, preset: Preset) -> tuple[jax.Array, Any]:
        """Keys `[num_runs]` and hyperparameters with leaves `[num_runs]`, setting by setting.

        Seed i has one key in every setting, so that settings are compared on the same random numbers.
        """
        keys = jax.vmap(jax.random.key)(jnp.arange(self.seed, self.seed + self.seeds))
        combined = [preset.hparams._replace(**c) for c in self.combinations]
        columns = [np.repeat(np.asarray(values, np.float32), self.seeds) for values in zip(*combined, strict=True)]
        return jnp.tile(keys, len(combined)), type(preset.hparams)(*columns)

    def labels(self) -> list[dict[str, Any]]:
        """For each run its seed and its swept values."""
        seeds = range(self.seed, self.seed + self.seeds)
        return [{"seed": seed} | combination for combination in self.combinations for seed in seeds]

    def save(self, path: Path) -> None:
        record = {"jaxrl": jaxrl.__version__, "algorithm": self.settings.algorithm} | dataclasses.asdict(self)
        record["settings"]["hparams"] = self.settings.hparams._asdict()
        path.write_text(json.dumps(_to_json(record), indent=2, allow_nan=False) + "\n")

    @staticmethod
    def load(path: Path) -> "Config":
        """Read what `save` wrote. Raises ValueError where the file is not one."""
        try:
            record = json.loads(path.read_text())
            kind: Any = type(presets.DEFAULTS[record.pop("algorithm")])
            values = record.pop("settings")
            hparams = type(kind().hparams)(**{k: float(v) for k, v in values.pop("hparams").items()})
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            record.pop("jaxrl")
            for name in ("hparams", "sweep"):
                record[name] = {k: [*map(float, v)] if isinstance(v, list) else float(v) for k, v in record[name].items()}
            return Config(settings=kind(hparams=hparams, **values), **record)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a configuration that this version of jaxrl wrote ({error})") from error


def load_config(run: Path) -> Config:
    """The configuration of a run folder. Raises ValueError where it is none."""
    if not (run / CONFIG).is_file():
        raise ValueError(f"{run} is no run folder: it has no {CONFIG}")
    return Config.load(run / CONFIG)


def _to_json(value: Any) -> Any:
    """JSON has no infinity: such a number is written as a string, which `float` reads back."""
    if isinstance(value, dict):
        return {k: _to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
