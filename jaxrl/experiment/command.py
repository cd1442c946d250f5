"""The command line that trains what a configuration describes."""

import shlex
from collections.abc import Iterator
from typing import Any

from jaxrl import presets
from jaxrl.experiment.config import Config
from jaxrl.presets import SIZES


def train_command(config: Config) -> str:
    """The command that gives the same configuration, with the options that differ from their defaults.

    Raises:
      ValueError: for samples, which the command line draws but does not take.

    >>> from jaxrl.presets import DEFAULTS, override
    >>> settings = override(DEFAULTS["dqn"], steps=5000, agent={"double": True}, network={"hidden": ()})
    >>> train_command(Config("Chain", settings, seeds=4, hparams={"tau": 0.5}))
    'jaxrl train dqn --env Chain --steps 5000 --seeds 4 --agent.double --agent.hidden none --hparams.tau 0.5'
    """
    if config.samples:
        raise ValueError("the samples of a configuration cannot be written as options: train from its config.json")
    settings = config.settings
    words: list[Any] = ["jaxrl", "train", settings.algorithm, "--env", config.env]
    for wrapper in config.wrappers:
        words += ["--wrap", wrapper]
    words += ["--steps", settings.steps, "--seeds", config.seeds]
    words += ["--seed", config.seed] if config.seed else []
    words += ["--batch-size", config.batch_size] if config.batch_size else []
    words += ["--eval-every", config.eval_every] if config.eval_every != "auto" else []
    words += ["--num-shards", config.num_shards] if config.num_shards > 1 else []
    words += ["--deterministic"] if config.deterministic else []
    words += _changed_options(config)
    hparams = {k: v for k, v in settings.hparams.items() if v != _defaults(config).hparams[k]}
    for name, value in ({k: v for k, v in hparams.items() if k not in config.sweep} | config.hparams).items():
        words += [_flag("hparams", name), value]
    for name, values in config.sweep.items():
        words += [_flag("sweep", name), *values]
    return shlex.join(map(str, words))


def _defaults(config: Config) -> presets.Settings:
    """The settings to which the command adds its options."""
    settings = config.settings
    return presets.tuned(settings.algorithm, config.env, settings.steps) or presets.default_settings(settings.algorithm)


def _changed_options(config: Config) -> Iterator[Any]:
    """The words of --agent for what differs from the defaults."""
    settings, defaults = config.settings, _defaults(config)
    for option in SIZES:
        if getattr(settings, option.name) != getattr(defaults, option.name):
            yield from (_flag("agent", option.name), getattr(settings, option.name))
    for group in ("agent", "network", "schedules"):
        known = getattr(defaults, group)
        for name, value in getattr(settings, group).items():
            if value == known.get(name):
                continue
            if isinstance(value, bool):
                yield _flag("agent", name if value else f"no_{name}")
            else:
                yield from (_flag("agent", name), *((value or ("none",)) if isinstance(value, tuple) else (value,)))


def _flag(group: str, name: str) -> str:
    return f"--{group}.{name.replace('_', '-')}"
