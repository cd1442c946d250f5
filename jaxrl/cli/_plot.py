"""`jaxrl plot`"""

from pathlib import Path

from jaxrl.cli._parsing import Parser, UsageError, user_errors


def main(argv: list[str]) -> int:
    parser = Parser("plot", "Draw the learning curves of run folders into one picture.", positional="RUN ...")
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="run folders")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("curves.png"), metavar="FILE", help="the picture (default: curves.png)"
    )
    options = parser.parse(argv)
    if not options.runs:
        raise UsageError("name at least one run folder")
    if options.out.is_dir():
        raise UsageError(f"{options.out} is a folder; name a file in it with --out")
    from jaxrl.experiment import curves

    with user_errors():
        picture = curves.plot([curve for run in options.runs for curve in curves.read_curves(run)], options.out)
    print(picture)
    return 0
