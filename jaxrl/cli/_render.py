"""`jaxrl render`"""

from pathlib import Path

from jaxrl.cli._parsing import Parser, add_which_option, integer, output_file, user_errors
from jaxrl.cli._set_up import set_up_jax


def main(argv: list[str]) -> int:
    options = _parser().parse(argv)
    set_up_jax()
    from jaxrl.experiment.films import render_run

    with user_errors():
        film = render_run(
            options.run,
            options.out,
            seeds=None if options.seeds is None else tuple(options.seeds),
            num_episodes=options.episodes,
            max_steps=options.max_steps,
            fps=options.fps,
            seed=options.seed,
            which=options.policy,
        )
    print(film)
    return 0


def _parser() -> Parser:
    parser = Parser("render", "Film the policies of a run folder, acting greedily.", positional="RUN")
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "-o", "--out", type=output_file, default=Path("policy.gif"), metavar="FILE",
        help="a .gif is a film, a .png a sheet of six snapshots per policy (default: policy.gif)",
    )  # fmt: skip
    for flag, default, text in (
        ("--episodes", 1, "episodes per policy, shown one after the other; all policies play the same ones (default: 1)"),
        ("--max-steps", 500, "steps after which an episode is cut (default: 500)"),
        ("--fps", None, "steps per second, at most 50 (default: depends on the environment)"),
        ("--seed", 0, "seed of the episodes (default: 0)"),
    ):
        parser.add_argument(flag, type=integer, default=default, metavar="INT", help=text)
    parser.add_argument(
        "--seeds", type=integer, nargs="+", metavar="INT", help="seeds of the policies (default: the first four of the run)"
    )
    add_which_option(parser)
    return parser
