"""`jaxrl explain`"""

from pathlib import Path

from jaxrl.cli._parsing import Parser, add_policy_options, integer, output_file, user_errors
from jaxrl.cli._set_up import set_up_jax


def parser() -> Parser:
    parser = Parser("explain", "Draw what a policy has learned: values, actions, and what they depend on.", positional="RUN")
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "-o", "--out", type=output_file, default=Path("explanation.png"), metavar="FILE",
        help="the picture (default: explanation.png)",
    )  # fmt: skip
    add_policy_options(parser)
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
    set_up_jax()
    from jaxrl.experiment import explanation, explanation_picture

    with user_errors():
        explained = explanation.explain_policy(
            options.run,
            seed=options.seed,
            setting=dict(options.setting),
            which=options.policy,
            dims=None if options.dims is None else tuple(options.dims),
            num_episodes=options.episodes,
            max_steps=options.max_steps,
            episode_seed=options.episode_seed,
        )
        print(explanation_picture.draw(explained, options.out))
    return 0
