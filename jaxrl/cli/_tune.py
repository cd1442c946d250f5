"""`jaxrl tune`"""

import argparse
import math
import signal
from pathlib import Path
from typing import Any

from jaxrl._src.numbers import shown
from jaxrl._src.signatures import options_of
from jaxrl.cli._parsing import Parser, UsageError, integer, user_errors
from jaxrl.cli._running import _say, stop_signals
from jaxrl.cli._set_up import set_up_jax
from jaxrl.cli._train import _config, _default_folder, _settings, add_options, algorithm_of, print_usage, swept

_SEEDS = 4


def main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        return print_usage("tune", bool(argv))
    algorithm, argv = algorithm_of(argv)
    settings = _settings(algorithm, argv)
    options = _parser(settings).parse(argv)
    if options.seeds is None:
        options.seeds = 1 if options.method == "pbt" else _SEEDS
    set_up_jax(deterministic=options.deterministic)
    from rich.console import Console

    from jaxrl._src.tables import print_table
    from jaxrl.experiment.terminal import search_table
    from jaxrl.experiment.tuning import tune

    with user_errors():
        config = _config(settings, options)
        out = options.out or _default_folder(f"tune-{algorithm}", options.env)
        try:
            with stop_signals(interrupt=True) as received:
                found = tune(
                    config,
                    out,
                    method=options.method,
                    space=swept(options)[1],
                    report=lambda line: print(line, flush=True),
                    **_option_of_the_method(options),
                )
        except KeyboardInterrupt:
            _say(f"interrupted; {_what_is_kept(out)}")
            return 128 + (received() or signal.SIGINT)
    console = Console()
    print_table(search_table(found), console)
    if not any(math.isfinite(trial.score) for trial in found.trials):
        _say("no setting has a finite return: all of them diverged")
        return 1
    _print_next_steps(console, found, out)
    return 0


def _option_of_the_method(options: argparse.Namespace) -> dict[str, int]:
    """The option that only one method has, if it is given. Raises UsageError for one of another method."""
    from jaxrl.experiment.tuning import OPTION_OF

    given = {method: name for method, name in OPTION_OF.items() if getattr(options, name) is not None}
    for method in given.keys() - {options.method}:
        raise UsageError(f"{_flag(given[method])} is of --method {method}, and the method is {options.method}: leave it out")
    return {name: getattr(options, name) for name in given.values()}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _what_is_kept(out: Path) -> str:
    """What an interrupted search leaves, which cannot be resumed."""
    from jaxrl.experiment import folder
    from jaxrl.experiment.tuning import TABLE

    if (out / folder.POLICIES).exists():
        return f"the policies and the scores are in {out}"
    if (out / TABLE).exists():
        return f"{out / TABLE} has the scores so far, and there are no policies. Start the search again in another folder"
    return "nothing is kept, since no scores are known yet"


def _print_next_steps(console: Any, found: Any, out: Path) -> None:
    from jaxrl.experiment.tuning import PICTURE, SEARCH, TABLE

    best = " ".join(f"--hparams.{name.replace('_', '-')} {shown(value)}" for name, value in found.config.combinations[0].items())
    console.print(
        f"{found.env_steps:,} environment steps in {found.seconds:.1f} s, compilation included\n"
        f"{out}: {TABLE}, {PICTURE}, {SEARCH}, config.json and policies/ of the best\n"
        f"the best, as options of jaxrl train: {best}",
        highlight=False,
        soft_wrap=True,
    )


def _parser(settings: Any) -> Parser:
    from jaxrl.experiment.tuning import METHODS, OPTION_OF, tune

    parser = Parser(
        f"tune {settings.algorithm}",
        f"Search hyperparameters of {settings.algorithm}. Settings are compared by greedy episodes, on the same seeds. "
        "Say what to search with --sweep, for example --sweep.learning-rate loguniform:1e-4:1e-2 --samples 64.",
    )
    group = parser.add_argument_group("search")
    group.add_argument(
        "--method", choices=METHODS, default="halving",
        help="halving: train all settings a little, and the best longer; random: all for the whole run; pbt: population-based "
        "training; optuna: settings that Optuna proposes (default: halving)",
    )  # fmt: skip
    for option in options_of(tune):
        if option.name in OPTION_OF.values():
            text = option.help.replace('"', "").rstrip(".")
            group.add_argument(_flag(option.name), type=integer, metavar="INT", help=f"{text} (default: {option.default})")
    add_options(parser, settings, seeds=_SEEDS)
    parser.set_defaults(seeds=None, eval_every="auto", num_shards=1)
    return parser
