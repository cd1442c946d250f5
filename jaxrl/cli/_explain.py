"""`jaxrl explain`"""

from pathlib import Path

from jaxrl.cli._parsing import Parser, UsageError, assignment, integer, user_errors
from jaxrl.cli._set_up import set_up_jax


def parser() -> Parser:
    parser = Parser("explain", "Draw what a policy has learned: values, actions, and what they depend on.", positional="RUN")
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("explanation.png"), metavar="FILE", help="the picture (default: explanation.png)"
    )
    parser.add_argument("--seed", type=integer, metavar="INT", help="seed of the policy (default: that with the highest return)")
    parser.add_argument(
        "--setting", type=assignment, nargs="+", default=[], metavar="NAME=VALUE", help="values of swept hyperparameters"
    )
    parser.add_argument(
        "--dims", type=integer, nargs=2, metavar=("X", "Y"),
        help="components of the observation on the axes of the maps, counted from 0 (default: the two that matter most)",
    )  # fmt: skip
    for flag, default, text in (
        ("--episodes", 8, "greedy episodes to play"),
        ("--max-steps", 500, "steps after which an episode is cut"),
        ("--episode-seed", 0, "seed of the episodes"),
    ):
        parser.add_argument(flag, type=integer, default=default, metavar="INT", help=f"{text} (default: {default})")
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse(argv)
    if options.out.is_dir():
        raise UsageError(f"{options.out} is a folder; name a file in it with --out")
    set_up_jax()
    from jaxrl.experiment import explanation, explanation_picture

    with user_errors():
        explained = explanation.explain_policy(
            options.run,
            seed=options.seed,
            setting=dict(options.setting),
            dims=None if options.dims is None else tuple(options.dims),
            num_episodes=options.episodes,
            max_steps=options.max_steps,
            episode_seed=options.episode_seed,
        )
        print(explanation_picture.draw(explained, options.out))
    return 0
