"""The option `--config` of `jaxrl train`: the words of the command line that a file stands for."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl.cli._parsing import UsageError, user_errors

_AS_WORDS = (
    "env", "settings", "wrappers", "seeds", "seed", "hparams", "sweep", "batch_size", "eval_every", "num_shards", "deterministic",
)  # fmt: skip


class FromFile(NamedTuple):
    """What a file says."""

    settings: Any  # those of the file; None without a file
    argv: list[str]  # the algorithm, the options of the file, and those of the command line, which override them
    fields: dict[str, Any]  # of the configuration, that no option sets


def read(argv: list[str]) -> FromFile:
    """Replace `--config FILE` in the words of a command by what the file says. Raises UsageError."""
    path, argv = _split(argv)
    if path is None and argv and argv[0].startswith("-"):
        raise UsageError(f"name an algorithm first, such as dqn, or a file with --config; got {argv[0]!r}")
    if path is None:
        return FromFile(None, argv, {})
    from jaxrl.experiment.config_file import read_config

    with user_errors():
        config = read_config(path)
    algorithm = config.settings.algorithm
    if argv and not argv[0].startswith("-"):
        named, *argv = argv
        if named.replace("-", "_") != algorithm:
            raise UsageError(f"{path} is a configuration of {algorithm}, not of {named}")
    given = {word.partition("=")[0].replace("_", "-") for word in argv if word.startswith("--")}
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name not in _AS_WORDS}
    if "--samples" in given:
        del fields["samples"]  # for those that are drawn
    else:
        fields["samples"] = _without(given, config.samples)
    return FromFile(config.settings, [algorithm, *_words(config, given), *argv], fields)


def _without(given: set[str], samples: list[dict[str, float]]) -> list[dict[str, float]]:
    """The samples without the hyperparameters that the command line sets or sweeps, each once."""
    names = {word.rpartition(".")[2].replace("-", "_") for word in given if word.startswith(("--hparams.", "--sweep."))}
    left = [{name: value for name, value in sample.items() if name not in names} for sample in samples]
    return [sample for i, sample in enumerate(left) if sample and sample not in left[:i]]


def _words(config: Any, given: set[str]) -> Iterator[str]:
    """The options of a configuration but for its settings, without those that the command line gives in another way."""
    yield from ("--env", config.env, "--seeds", str(config.seeds), "--seed", str(config.seed))
    yield from ("--eval-every", str(config.eval_every))
    if config.batch_size is not None:
        yield from ("--batch-size", str(config.batch_size))
    yield from ("--num-shards", str(config.num_shards))
    if config.deterministic:
        yield "--deterministic"
    if "--wrap" not in given:
        for wrapper in config.wrappers:
            yield from ("--wrap", wrapper)
    for name, value in config.hparams.items():
        name = name.replace("_", "-")
        if f"--sweep.{name}" not in given:
            yield from (f"--hparams.{name}", repr(float(value)))
    for name, values in config.sweep.items():
        name = name.replace("_", "-")
        if f"--hparams.{name}" not in given:
            yield from (f"--sweep.{name}", *(repr(float(value)) for value in values))


def _split(argv: list[str]) -> tuple[Path | None, list[str]]:
    """The last file that `--config` names, and the other words."""
    path, rest, words = None, [], iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name != "--config":
            rest.append(word)
            continue
        file = value if equals else next(words, None)
        if not file:
            raise UsageError("--config expected one argument (see `jaxrl train --help`)")
        path = Path(file)
    return path, rest
