"""`jaxrl plot`"""

from pathlib import Path

from jaxrl.cli._parsing import Parser, UsageError, output_file, user_errors


def main(argv: list[str]) -> int:
    parser = Parser("plot", "Draw the learning curves of run folders into one picture.", positional="RUN ...")
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="run folders")
    parser.add_argument(
        "-o", "--out", type=output_file, default=Path("curves.png"), metavar="FILE", help="the picture (default: curves.png)"
    )
    parser.add_argument("--evaluation", action="store_true", help="draw the greedy returns of the evaluations during training")
    options = parser.parse(argv)
    if not options.runs:
        raise UsageError("name at least one run folder")
    from jaxrl.experiment import curves

    with user_errors():
        read = curves.read_evaluation_curves if options.evaluation else curves.read_curves
        what = "greedy return" if options.evaluation else "return of finished episodes"
        picture = curves.plot(curves.read_all(options.runs, read), options.out, what)
    print(picture)
    return 0
