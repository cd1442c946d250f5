"""`jaxrl export`"""

from pathlib import Path

from jaxrl.cli._parsing import Parser, UsageError, assignment, integer, user_errors
from jaxrl.cli._set_up import set_up_jax


def parser() -> Parser:
    parser = Parser("export", "Write a trained policy as a file that other programs run without jaxrl.", positional="RUN")
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "--format", default="stablehlo", metavar="FORMAT",
        help="stablehlo, which jax.export and XLA read, or onnx; they need the extras export and onnx (default: stablehlo)",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("policy"), metavar="FILE",
        help="writes FILE.FORMAT and its description FILE.json (default: policy)",
    )  # fmt: skip
    parser.add_argument("--seed", type=integer, metavar="INT", help="seed of the policy (default: that with the highest return)")
    parser.add_argument(
        "--setting", type=assignment, nargs="+", default=[], metavar="NAME=VALUE", help="values of swept hyperparameters"
    )
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse(argv)
    if options.out.is_dir():
        raise UsageError(f"{options.out} is a folder; name a file in it with --out")
    set_up_jax()
    from jaxrl.experiment.export import export_policy

    with user_errors():
        paths = export_policy(options.run, options.out, format=options.format, seed=options.seed, setting=dict(options.setting))
    print(*paths, sep="\n")
    return 0
