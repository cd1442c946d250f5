"""`jaxrl export`"""

from pathlib import Path

from jaxrl.cli._parsing import Parser, add_policy_options, output_file, user_errors
from jaxrl.cli._set_up import set_up_jax


def parser() -> Parser:
    parser = Parser("export", "Write a trained policy as a file that other programs run without jaxrl.", positional="RUN")
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "--format", default="stablehlo", choices=("stablehlo", "onnx"),
        help="stablehlo, which jax.export and XLA read, or onnx; they need the extras export and onnx (default: stablehlo)",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--out", type=output_file, default=Path("policy"), metavar="FILE",
        help="writes FILE.FORMAT and its description FILE.json (default: policy)",
    )  # fmt: skip
    add_policy_options(parser)
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse(argv)
    set_up_jax()
    from jaxrl.experiment.export import export_policy

    with user_errors():
        paths = export_policy(
            options.run,
            options.out,
            format=options.format,
            seed=options.seed,
            setting=dict(options.setting),
            which=options.policy,
        )
    print(*paths, sep="\n")
    return 0
