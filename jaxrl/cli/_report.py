"""`jaxrl report`"""

from pathlib import Path

from jaxrl.cli._compare import add_reference, parse_references
from jaxrl.cli._parsing import Parser, UsageError, integer, output_file, user_errors
from jaxrl.cli._set_up import set_up_jax


def parser() -> Parser:
    parser = Parser("report", "Write a report of run folders: one HTML page that works offline.", positional="RUN ...")
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="run folders")
    parser.add_argument(
        "-o", "--out", type=output_file, default=Path("report.html"), metavar="FILE", help="the page (default: report.html)"
    )
    parser.add_argument(
        "--films", type=integer, default=4, metavar="INT",
        help="number of settings whose best, median and worst seed are filmed (default: 4; 0 for no films)",
    )  # fmt: skip
    add_reference(parser)
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse(argv)
    if not options.runs:
        raise UsageError("name at least one run folder")
    if options.films < 0:
        raise UsageError(f"--films must be at least 0, got {options.films}")
    references = parse_references(options.reference)
    set_up_jax()
    from jaxrl.experiment.report import write_report

    with user_errors():
        page = write_report(options.runs, options.out, references=references, num_films=options.films)
    print(page)
    return 0
