"""Tables on a terminal of any width."""

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

_SHORT = 8  # characters of a long word that a column shows at least on one line


def print_table(table: Table, console: Console | None = None) -> None:
    """Print a table without cutting anything, so that its lines may be longer than the console is wide.

    rich cuts columns that do not fit without a sign, which turns -1034721.00 into another number, and columns that may be
    folded vanish before. Here, columns with `no_wrap` have room for all of their text, and the others for short words.
    """
    console = console or Console()
    options = console.options.update_width(10_000)
    needed = 1
    for column in table.columns:
        column.overflow = "fold"
        sizes = [Measurement.get(console, options, cell) for cell in (column.header, *column.cells)]
        column.min_width = max(size.maximum if column.no_wrap else min(size.minimum, _SHORT) for size in sizes)
        needed += column.min_width + 3  # with its border and padding
    table.width = needed if needed > console.width else None
    console.print(table, crop=False)
