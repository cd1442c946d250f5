"""The command line: `jaxrl train | eval | plot | render | envs | agents`. A wrong input is one line and exit code 2."""

import contextlib
import dataclasses
import io
import os
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

COMMANDS = {
    "train": "train an agent: many seeds and settings in one program; leaves a run folder",
    "eval": "play the policies of a run folder on fresh episodes",
    "plot": "draw the learning curves of run folders into one picture",
    "render": "film the policies of a run folder",
    "envs": "list the environments and their spaces",
    "agents": "list the agents, their settings and hyperparameters",
}


class UsageError(Exception):
    """A wrong input: its message is the one line that the user sees."""


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    try:
        return _dispatch(argv)
    except UsageError as error:
        print(f"jaxrl: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxrl: interrupted", file=sys.stderr)
        return 130


def console() -> None:
    """The entry point of the command `jaxrl`."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has seen enough; do not try to write the rest at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: jaxrl COMMAND [OPTIONS]\n\n" + "\n".join(f"  {name:8}{text}" for name, text in COMMANDS.items()))
        print("\n`jaxrl COMMAND --help` lists the options of a command.")
        return 0 if argv else 2
    if argv[0] == "--version":
        import jaxrl

        print(f"jaxrl {jaxrl.__version__}")
        return 0
    if argv[0] not in COMMANDS:
        raise UsageError(f"unknown command {argv[0]!r}; there are {', '.join(COMMANDS)}")
    return globals()[f"_{argv[0]}"](argv[1:])


def _parse(kind: Any, argv: list[str], command: str, description: str) -> Any:
    """tyro, with its error box folded into one line."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(kind, args=argv, prog=f"jaxrl {command}", description=description)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        text = " ".join(re.sub(r"\x1b\[[0-9;]*m|[╭╮╰╯│─┌┐└┘├┤━]+", " ", errors.getvalue()).split())
        text = re.sub(r"^(Parsing error|Unrecognized options|Required options) ?", "", text)
        if wrong := re.search(r"Error parsing (--?\S+): .*?(?:from \[| base 10: |float: )('[^']*')", text):
            raise UsageError(f"{wrong[1]} cannot be {wrong[2]} (see `jaxrl {command} --help`)") from None
        raise UsageError(re.sub(r"For full helptext, run (.*)$", r"(see `\1`)", text) or "wrong options") from None


@contextlib.contextmanager
def _user_errors():
    """Turn the library's own ValueError and TypeError into a usage error."""
    try:
        yield
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(" ".join(str(error).split())) from error


def _set_up_jax() -> None:
    """One CPU device for each core, over which `vectorize` spreads the runs, and a cache of compiled programs.

    The cache is in the user's cache folder, or where `JAXRL_CACHE` says; `JAXRL_CACHE=off` is none. What is
    set for JAX itself (`JAX_COMPILATION_CACHE_DIR`) stays.
    """
    import jax

    from jaxrl.vectorization import use_all_cores

    with contextlib.suppress(RuntimeError):  # the backend is up already: someone else has decided
        use_all_cores()
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxrl"
    cache = os.environ.get("JAXRL_CACHE") or str(user)
    if cache != "off" and not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", cache)


# --- jaxrl train ---------------------------------------------------------------------------------


@dataclass
class TrainOptions:
    """What every algorithm takes; `_train_options` adds the algorithm's own."""

    env: str = "CartPole-v1"
    """environment, see `jaxrl envs`"""
    seeds: int = 16
    """how many seeds"""
    seed: int = 0
    """the first of them"""
    steps: int | None = None
    """environment steps of each seed; by default the preset's"""
    out: Path | None = None
    """run folder; by default runs/ALGORITHM-ENV-TIME"""
    batch_size: int | None = None
    """at most so many runs are in memory at once; by default as many as fit"""


def _option(kind: Any, default: Any, text: str) -> Any:
    return Annotated[kind, tyro.conf.arg(help=text, help_behavior_hint=f"(default: {default})")]


def _settings(algorithm: str, env: str, steps: str) -> Any:
    """The settings tuned for the environment and a run of `steps`, as the user wrote them; else the algorithm's own."""
    from jaxrl import presets

    try:
        env_steps = max(1, int(steps))
    except ValueError:  # none given, or no number: the parser will say so
        env_steps = None
    return presets.tuned(algorithm, env, env_steps) or presets.DEFAULTS[algorithm]


def _train_options(settings: Any) -> type:
    """`TrainOptions` with the algorithm's own, whose defaults are `settings`."""
    scheduled = {"learning_rate_iterations", "epsilon_iterations"}
    agent_fields = [
        (f.name, f.type, field(default=getattr(settings, f.name)))
        for f in dataclasses.fields(settings)
        if f.name not in ("steps", "hparams")
    ]
    hparams_fields, sweep_fields = [], []
    for name, value in settings.hparams._asdict().items():
        default = "from the schedule" if name in scheduled else f"{value:g}"
        hparams_fields.append((name, _option(float | None, default, ""), field(default=None)))
        sweep_fields.append((name, _option(tuple[float, ...] | None, "not swept", ""), field(default=None)))
    groups = {
        "agent": dataclasses.make_dataclass("agent", agent_fields),
        "hparams": dataclasses.make_dataclass("hparams", hparams_fields),
        "sweep": dataclasses.make_dataclass("sweep", sweep_fields),
    }
    extra = [(name, kind, field(default_factory=kind)) for name, kind in groups.items()]
    return dataclasses.make_dataclass("Train", extra, bases=(TrainOptions,))


def _train(argv: list[str]) -> int:
    from jaxrl import presets

    algorithms = ", ".join(presets.DEFAULTS)
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: jaxrl train ALGORITHM [OPTIONS]\n\nalgorithms: {algorithms}\n`jaxrl train dqn --help` lists the options.")
        return 0 if argv else 2
    algorithm = argv[0]
    if algorithm not in presets.DEFAULTS:
        raise UsageError(f"unknown algorithm {algorithm!r}; there are {algorithms}")
    settings = _settings(algorithm, _peek(argv, "--env", TrainOptions.env), _peek(argv, "--steps", ""))
    options = _parse(
        _train_options(settings),
        argv[1:],
        f"train {algorithm}",
        f"Train {algorithm}: every seed with every combination of the swept values, in one program. The defaults of agent and "
        "hparams are the tuned ones for --env and --steps, where there are any; `jaxrl agents` lists the others.",
    )
    _set_up_jax()
    from jaxrl.experiment import Config, run
    from jaxrl.experiment.terminal import progress_bar, summary

    with _user_errors():
        config = _config(settings, options, Config)
        out = options.out or Path("runs") / f"{algorithm}-{options.env.replace('/', '-')}-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        with progress_bar(config) as report, _user_errors():
            result = run(config, out, report=report)
    except KeyboardInterrupt:
        print(f"jaxrl: interrupted; {out} holds the metrics so far, and no policies", file=sys.stderr)
        return 130
    summary(result, out)
    return 0


def _peek(argv: list[str], name: str, default: str) -> str:
    """The value of one option, before the others are parsed; the last where it is given twice, as the parser has it."""
    for i, word in reversed(list(enumerate(argv))):
        if word == name and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return default


def _config(settings: Any, options: Any, config_type: type) -> Any:
    steps = settings.steps if options.steps is None else options.steps
    settings = dataclasses.replace(settings, steps=steps, **vars(options.agent))
    return config_type(
        env=options.env,
        settings=settings,
        seeds=options.seeds,
        seed=options.seed,
        hparams={k: v for k, v in vars(options.hparams).items() if v is not None},
        sweep={k: list(v) for k, v in vars(options.sweep).items() if v is not None},
        batch_size=options.batch_size,
    )


# --- jaxrl eval, plot, render, envs, agents --------------------------------------------------------------


@dataclass
class EvalOptions:
    run: tyro.conf.Positional[Path]
    """a run folder"""
    episodes: int = 100
    """episodes for each policy"""
    seed: int = 0
    """of the episodes"""


def _eval(argv: list[str]) -> int:
    options = _parse(EvalOptions, argv, "eval", "Play the policies of a run folder, greedily, on fresh episodes.")
    _set_up_jax()
    from rich.console import Console

    from jaxrl.experiment import evaluate_policies, load_policies
    from jaxrl.experiment.config import load_config
    from jaxrl.experiment.policies import abstract_policies
    from jaxrl.experiment.terminal import returns_table

    with _user_errors():
        config = load_config(options.run)
        params = load_policies(options.run, abstract_policies(config))
        returns = evaluate_policies(config, params, num_episodes=options.episodes, seed=options.seed)
    Console().print(returns_table(config, returns, f"greedy return over {options.episodes} episodes"))
    return 0


@dataclass
class PlotOptions:
    runs: tyro.conf.Positional[tuple[Path, ...]]
    """run folders"""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("curves.png")
    """the picture"""


def _plot(argv: list[str]) -> int:
    options = _parse(PlotOptions, argv, "plot", "Draw the learning curves of run folders into one picture.")
    from jaxrl.experiment import curves

    with _user_errors():
        if not options.runs:
            raise ValueError("name at least one run folder")
        if options.out.is_dir():
            raise ValueError(f"{options.out} is a folder; name a file in it with --out")
        picture = curves.plot([curve for run in options.runs for curve in curves.read_curves(run)], options.out)
    print(picture)
    return 0


@dataclass
class RenderOptions:
    run: tyro.conf.Positional[Path]
    """a run folder"""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("policy.gif")
    """the film; a .png is a sheet with six moments of each policy"""
    seeds: tuple[int, ...] | None = None
    """which seeds, side by side; by default the first four"""
    episodes: int = 1
    """episodes of each policy, one after the other; all policies play the same"""
    max_steps: int = 500
    """steps after which an episode is cut"""
    fps: int | None = None
    """steps in a second, at most 50; by default what suits the environment"""
    seed: int = 0
    """of the episodes"""


def _render(argv: list[str]) -> int:
    options = _parse(RenderOptions, argv, "render", "Film the policies of a run folder, playing greedily.")
    _set_up_jax()
    from jaxrl.experiment.films import render_run

    with _user_errors():
        film = render_run(
            options.run,
            options.out,
            seeds=options.seeds,
            num_episodes=options.episodes,
            max_steps=options.max_steps,
            fps=options.fps,
            seed=options.seed,
        )
    print(film)
    return 0


@dataclass
class EnvsOptions:
    pass


def _envs(argv: list[str]) -> int:
    _parse(EnvsOptions, argv, "envs", COMMANDS["envs"])
    from rich.console import Console
    from rich.table import Table

    from jaxrl import envs, presets

    table = Table()
    table.add_column("environment", no_wrap=True)
    for column in ("observations", "actions", "presets"):
        table.add_column(column)
    for name in envs.names():
        env = envs.make(name)
        tuned = ", ".join(algorithm for algorithm, tuned_env in presets.PRESETS if tuned_env == name)
        table.add_row(name, str(env.observation_space), str(env.action_space), tuned)
    console = Console()
    console.print(table)
    console.print(
        f"With their extras, by prefix: {', '.join(f'{name}/…' for name in envs.SUITES)}; see docs/suites.md", highlight=False
    )
    return 0


def _agents(argv: list[str]) -> int:
    _parse(EnvsOptions, argv, "agents", COMMANDS["agents"])
    from rich.console import Console
    from rich.table import Table

    from jaxrl import presets

    actions = {"dqn": "Discrete", "reinforce": "Discrete or Box"}
    for algorithm, settings in presets.DEFAULTS.items():
        table = Table(title=f"{algorithm}: actions {actions[algorithm]}", title_justify="left")
        for column in ("option", "default"):
            table.add_column(column)
        for f in dataclasses.fields(settings):
            if f.name not in ("steps", "hparams"):
                table.add_row(f"--agent.{f.name.replace('_', '-')}", str(getattr(settings, f.name)))
        for name, value in settings.hparams._asdict().items():
            table.add_row(f"--hparams.{name.replace('_', '-')}", f"{value:g}")
        Console().print(table)
    return 0
