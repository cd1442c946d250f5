"""Configurations from files: a `config.json` of a run folder, or one written by hand, in TOML or JSON."""

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

from jaxrl import presets
from jaxrl._src.checks import check_plain, check_table
from jaxrl.experiment.config import Config, check_version
from jaxrl.presets import Settings

_SETTINGS = tuple(field.name for field in dataclasses.fields(Settings) if field.name != "hparams")
_FIELDS = tuple(field.name for field in dataclasses.fields(Config))


def read_config(path: Path) -> Config:
    """Read a configuration from a file, in TOML if its name ends in .toml, otherwise in JSON.

    A file that `Config.save` wrote is complete, and gives that configuration. One written by hand has the same fields. What it
    leaves out comes from the settings tuned for its environment and number of steps, as on the command line. It may have the
    fields of `settings`, such as `algorithm`, `steps`, `agent` and `network`, at the top.

    Raises:
      ValueError: if the file cannot be read, or is not a configuration.
    """
    try:
        text = path.read_bytes().decode()
        record = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise ValueError(f"cannot read {path} ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"{path} is not {'TOML' if path.suffix == '.toml' else 'JSON'} ({error})") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} is not a configuration: it must be a table of fields")
    if "jaxrl" in record:
        if path.suffix != ".toml":
            return Config.load(path)
        check_version(path, str(record["jaxrl"]))
    try:
        return _from_record(record)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is not a configuration ({reason})") from error


def _from_record(record: dict[str, Any]) -> Config:
    complete = record.pop("jaxrl", None) is not None
    check_table("settings", record.get("settings", {}))
    given = record.pop("settings", {}) | {name: record.pop(name) for name in _SETTINGS if name in record}
    for name in record.keys() - set(_FIELDS):
        raise ValueError(f"it has the field {name!r}; there are {', '.join(dict.fromkeys([*_SETTINGS, *_FIELDS]))}")
    for table in (given, record):
        table |= {group: _with_floats(table[group]) for group in table.keys() & {"hparams", "schedules", "sweep", "samples"}}
    algorithm, steps = str(given["algorithm"]).replace("-", "_"), given.get("steps")
    given["algorithm"] = algorithm
    check_plain("env", record["env"], str)
    tuned = presets.tuned(algorithm, record["env"], steps) or presets.default_settings(algorithm)
    settings = Settings(**given) if complete else presets.override(tuned, **given)
    return Config(settings=settings, **record)


def _with_floats(value: Any) -> Any:
    """A table or a list with its numbers as floats, and with those that JSON writes as words, such as "inf".

    Everything else is left as it is, for `Settings` and `Config` to refuse.
    """
    if isinstance(value, dict):
        return {name: _with_floats(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_floats(inner) for inner in value]
    try:
        return value if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return value
