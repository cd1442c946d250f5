"""`jaxrl train`"""

import argparse
import dataclasses
import secrets
import time
from functools import partial
from pathlib import Path
from typing import Any

from jaxrl._src.signatures import Option
from jaxrl.cli import _config_file
from jaxrl.cli._dry_run import dry_run
from jaxrl.cli._parsing import Parser, UsageError, add_option, integer, number, show, user_errors
from jaxrl.cli._running import add_checkpoint_option, add_log_option, carry_out, carry_out_part, loggers_for, parse_part
from jaxrl.cli._set_up import set_up_jax

_ENV = "CartPole-v1"


def main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        return print_usage("train", bool(argv))
    file = _config_file.read(argv)
    algorithm, words = algorithm_of(file.argv)
    settings = file.settings or _settings(algorithm, words)
    options = _parser(settings).parse(words)
    if (options.part or options.distributed) and options.out is None:
        raise UsageError("--part and --distributed need --out, a folder that all processes share")
    if options.part and options.distributed:
        raise UsageError("--distributed chooses the part of each process itself: leave out --part")
    if not options.distributed or options.dry_run:  # else the devices are for child processes
        set_up_jax(deterministic=options.deterministic)
    with user_errors():
        config = dataclasses.replace(_config(settings, options), **file.fields)
    if options.distributed and not options.dry_run:
        from jaxrl.cli._distributed import train_parts

        with user_errors():
            return train_parts("train", config, options.out, argv)
    from jaxrl.experiment import run

    out = options.out or _default_folder(algorithm, options.env)
    if options.dry_run:
        with user_errors():
            return dry_run(config.part(*options.part) if options.part else config)
    if options.part:
        return carry_out_part(config, out, options.part, options)
    with user_errors():
        loggers = loggers_for(out, options)
    return carry_out(partial(run, config, out, checkpoint_every=options.checkpoint_every, loggers=loggers), config, out)


def print_usage(command: str, asked_for: bool) -> int:
    """Print how to call a command that takes an algorithm, and return the exit code."""
    from jaxrl.algorithms import ALGORITHMS

    print(f"usage: jaxrl {command} ALGORITHM [OPTIONS]\n\nalgorithms: {', '.join(ALGORITHMS)}")
    print(f"\n`jaxrl {command} ALGORITHM --help` lists the options of an algorithm.")
    return 0 if asked_for else 2


def algorithm_of(argv: list[str]) -> tuple[str, list[str]]:
    """The algorithm that the first word names, and the other words. Raises UsageError for an unknown one."""
    from jaxrl.algorithms import ALGORITHMS

    algorithm = argv[0].replace("-", "_")  # as in the names of options
    if algorithm not in ALGORITHMS:
        raise UsageError(f"unknown algorithm {algorithm!r}; there are {', '.join(ALGORITHMS)}")
    return algorithm, argv[1:]


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
    parser = Parser(
        f"train {settings.algorithm}",
        f"Train {settings.algorithm}: every seed with every combination of the swept values, in one program. The defaults of "
        "--agent and --hparams are tuned for --env and --steps if a preset exists.",
    )
    add_options(parser, settings, seeds=16)
    _add_training_options(parser)
    parser.add_argument(
        "--config", type=Path, metavar="FILE",
        help="take everything that is not given from a config.json of a run folder, or from a file in TOML; names the algorithm",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the configuration, the memory that its runs need, and how many fit; then stop",
    )
    return parser


def add_options(parser: Parser, settings: Any, *, seeds: int) -> None:
    """Add the options of a run, whose defaults are those of `settings`."""
    from jaxrl.algorithms import algorithm
    from jaxrl.presets import SIZES, options_of_agent, schedules_of

    entry = algorithm(settings.algorithm)
    _add_run_options(parser, settings.steps, seeds)
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
    sweep = parser.add_argument_group(
        "sweep",
        "Every combination of the swept values runs with every seed. In place of values, uniform:LOW:HIGH or loguniform:LOW:HIGH "
        "draws as many as --samples, at random from --seed.",
    )
    sweep.add_argument("--samples", type=integer, metavar="INT", help="number of random samples of the ranges")
    for hparam, default in settings.hparams.items():
        text = entry.hparams_help.get(hparam, "")
        shown = "from the schedule" if hparam in scheduled else show(default)
        add_option(hparams, "hparams", Option(hparam, float, False, None, text), None, shown)
        add_option(sweep, "sweep", Option(hparam, str, True, None, f"values of hparams.{hparam}, or a range"), None, "not swept")


def _add_run_options(parser: Parser, steps: int, seeds: int) -> None:
    def add(flag: str, text: str, default: Any = None, **options: Any) -> None:
        parser.add_argument(flag, default=default, help=text if default is None else f"{text} (default: {default})", **options)

    add("--env", "environment; see jaxrl envs", _ENV, metavar="NAME")
    parser.add_argument(
        "--wrap", action="append", default=[], metavar="WRAPPER",
        help="wrapper of jaxrl.envs.wrappers with its arguments, such as frame_stack:4; repeatable, the last is the outermost",
    )  # fmt: skip
    add("--seeds", "number of seeds", seeds, type=integer, metavar="INT")
    add("--seed", "first seed; the others follow it consecutively", 0, type=integer, metavar="INT")
    add("--steps", "environment steps per seed, warm-up included", steps, type=integer, metavar="INT")
    add("--out", "run folder (default: runs/ALGORITHM-ENV-TIME-RANDOM)", type=Path, metavar="FOLDER")
    add("--batch-size", "maximum number of runs in memory at once (default: as many as fit)", type=integer, metavar="INT")
    parser.add_argument(
        "--deterministic", action="store_true", help="the same bits from the same command on a GPU too, at some cost of speed"
    )


def _add_training_options(parser: Parser) -> None:
    """Add the options that a search does not have."""
    parser.add_argument(
        "--part", type=parse_part, metavar="I/N",
        help="train only this part of the runs, such as 3/8, the third of eight, or continue it; jaxrl merge joins them",
    )  # fmt: skip
    parser.add_argument(
        "--distributed", action="store_true",
        help="divide the runs among the processes of a SLURM, TPU pod, Open MPI or Kubernetes job, or of JAX_NUM_PROCESSES",
    )  # fmt: skip
    parser.add_argument(
        "--eval-every", type=steps_between, default="auto", metavar="STEPS",
        help="environment steps per seed between greedy evaluations during training, by which the best policy is kept; or none "
        "(default: a tenth of the run)",
    )  # fmt: skip
    parser.add_argument(
        "--num-shards", type=integer, default=1, metavar="INT",
        help="number of devices that share the environments of each run (default: 1)",
    )  # fmt: skip
    add_checkpoint_option(parser)
    add_log_option(parser, "metrics.csv is always written")


def steps_between(text: str) -> int | str:
    """A number of steps, "auto" or "none"."""
    return text if text in ("auto", "none") else number(int, text, "give an integer, auto or none")


def _config(settings: Any, options: argparse.Namespace) -> Any:
    """The configuration that the parsed options describe; `settings` supplies everything else."""
    from jaxrl.experiment import Config, draw_samples
    from jaxrl.presets import SIZES, override

    groups: dict[str, dict[str, Any]] = {"agent": {}, "hparams": {}}
    for destination, value in vars(options).items():
        group, _, name = destination.partition(".")
        if group in groups and value is not None:
            groups[group][name] = value
    agent = groups["agent"]
    sweep, space = swept(options)
    if bool(space) != (options.samples is not None):
        raise ValueError("--samples and a range belong together, such as --sweep.learning-rate loguniform:1e-4:1e-2 --samples 64")
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
        sweep=sweep,
        samples=draw_samples(space, options.samples, options.seed) if space else [],
        batch_size=options.batch_size,
        eval_every=options.eval_every,
        num_shards=options.num_shards,
        deterministic=options.deterministic,
    )


def swept(options: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """The words after each `--sweep.NAME`, as lists of values and as ranges, by name. Raises ValueError for others."""
    from jaxrl.experiment.sampling import Range, parse_swept

    given = {name.removeprefix("sweep."): words for name, words in vars(options).items() if name.startswith("sweep.")}
    parsed = {name: parse_swept(name, words) for name, words in given.items() if words is not None}
    ranges = {name: values for name, values in parsed.items() if isinstance(values, Range)}
    return {name: list(values) for name, values in parsed.items() if name not in ranges}, ranges
