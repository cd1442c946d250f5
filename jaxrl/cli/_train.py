"""`jaxrl train`"""

import argparse
import secrets
import time
from functools import partial
from pathlib import Path
from typing import Any

from jaxrl._src.signatures import Option
from jaxrl.cli._parsing import Parser, UsageError, add_option, integer, show, user_errors
from jaxrl.cli._running import add_checkpoint_option, carry_out
from jaxrl.cli._set_up import set_up_jax

_ENV = "CartPole-v1"


def main(argv: list[str]) -> int:
    from jaxrl.algorithms import ALGORITHMS

    names = ", ".join(ALGORITHMS)
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: jaxrl train ALGORITHM [OPTIONS]\n\nalgorithms: {names}")
        print("\n`jaxrl train ALGORITHM --help` lists the options of an algorithm.")
        return 0 if argv else 2
    algorithm, *argv = argv
    algorithm = algorithm.replace("-", "_")  # as in the names of options
    if algorithm not in ALGORITHMS:
        raise UsageError(f"unknown algorithm {algorithm!r}; there are {names}")
    settings = _settings(algorithm, argv)
    options = _parser(settings).parse(argv)
    set_up_jax()
    from jaxrl.experiment import run

    with user_errors():
        config = _config(settings, options)
        out = options.out or _default_folder(algorithm, options.env)
    return carry_out(partial(run, config, out, checkpoint_every=options.checkpoint_every), config, out)


def _default_folder(algorithm: str, env: str) -> Path:
    """A folder name that no other run uses, even if several runs start in the same second."""
    return Path("runs") / f"{algorithm}-{env.replace('/', '-')}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def _settings(algorithm: str, argv: list[str]) -> Any:
    """The settings tuned for the environment and the number of steps in `argv`, or else the defaults of the algorithm."""
    from jaxrl import presets

    parser = Parser(f"train {algorithm}")
    parser.add_argument("--env", default=_ENV)
    parser.add_argument("--steps", type=integer)
    try:
        known, _ = parser.parse_known_args([word for word in argv if word not in ("-h", "--help")])
    except (argparse.ArgumentError, UsageError):  # the full parser will report it
        return presets.default_settings(algorithm)
    steps = None if known.steps is None else max(1, known.steps)
    return presets.tuned(algorithm, known.env, steps) or presets.default_settings(algorithm)


def _parser(settings: Any) -> Parser:
    """The parser of all options, whose defaults are those of `settings`."""
    from jaxrl.algorithms import algorithm
    from jaxrl.presets import SIZES, options_of_agent, schedules_of

    entry, name = algorithm(settings.algorithm), settings.algorithm
    parser = Parser(
        f"train {name}",
        f"Train {name}: every seed with every combination of the swept values, in one program. The defaults of --agent and "
        "--hparams are tuned for --env and --steps if a preset exists.",
    )
    _add_run_options(parser, settings.steps)
    group = parser.add_argument_group("agent")
    for option in SIZES:
        add_option(group, "agent", option, getattr(settings, option.name))
    for option in options_of_agent(entry):
        add_option(group, "agent", option, settings.agent[option.name])
    group = parser.add_argument_group("network")
    for option in entry.network_options:
        add_option(group, "agent", option, settings.network[option.name])
    group = parser.add_argument_group("schedules", "Fractions of the run, between 0 and 1, or inf for a constant.")
    for fraction, hparam in schedules_of(entry).items():
        share = settings.schedules.get(fraction)
        option = Option(fraction, float, False, share, f"sets hparams.{hparam}")
        add_option(group, "agent", option, share, "not scheduled" if share is None else None)
    scheduled = {schedules_of(entry)[fraction] for fraction in settings.schedules}
    hparams = parser.add_argument_group("hyperparameters")
    sweep = parser.add_argument_group("sweep", "Every combination of the swept values runs with every seed.")
    for hparam, default in settings.hparams.items():
        text = entry.hparams_help.get(hparam, "")
        shown = "from the schedule" if hparam in scheduled else show(default)
        add_option(hparams, "hparams", Option(hparam, float, False, None, text), None, shown)
        add_option(sweep, "sweep", Option(hparam, float, True, None, f"values of hparams.{hparam}"), None, "not swept")
    return parser


def _add_run_options(parser: Parser, steps: int) -> None:
    def add(flag: str, text: str, default: Any = None, **options: Any) -> None:
        parser.add_argument(flag, default=default, help=text if default is None else f"{text} (default: {default})", **options)

    add("--env", "environment; see jaxrl envs", _ENV, metavar="NAME")
    parser.add_argument(
        "--wrap", action="append", default=[], metavar="WRAPPER",
        help="wrapper of jaxrl.envs.wrappers with its arguments, such as frame_stack:4; repeatable, the last is the outermost",
    )  # fmt: skip
    add("--seeds", "number of seeds", 16, type=integer, metavar="INT")
    add("--seed", "first seed; the others follow it consecutively", 0, type=integer, metavar="INT")
    add("--steps", "environment steps per seed, warm-up included", steps, type=integer, metavar="INT")
    add("--out", "run folder (default: runs/ALGORITHM-ENV-TIME-RANDOM)", type=Path, metavar="FOLDER")
    add("--batch-size", "maximum number of runs in memory at once (default: as many as fit)", type=integer, metavar="INT")
    add_checkpoint_option(parser)


def _config(settings: Any, options: argparse.Namespace) -> Any:
    """The configuration that the parsed options describe; `settings` supplies everything else."""
    from jaxrl.experiment import Config
    from jaxrl.presets import SIZES, override

    groups: dict[str, dict[str, Any]] = {"agent": {}, "hparams": {}, "sweep": {}}
    for destination, value in vars(options).items():
        group, _, name = destination.partition(".")
        if name and value is not None:
            groups[group][name] = value
    agent = groups["agent"]
    changes: dict[str, Any] = {option.name: agent.pop(option.name) for option in SIZES}
    for field in ("network", "agent"):
        changes[field] = {name: agent.pop(name) for name in getattr(settings, field) if name in agent}
    return Config(
        env=options.env,
        settings=override(settings, steps=options.steps, schedules=agent, **changes),
        wrappers=tuple(options.wrap),
        seeds=options.seeds,
        seed=options.seed,
        hparams=groups["hparams"],
        sweep={name: list(values) for name, values in groups["sweep"].items()},
        batch_size=options.batch_size,
    )
