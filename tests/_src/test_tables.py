"""Tables are not cut, however narrow the console is."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from jaxrl._src.tables import print_table


def printed(width):
    table = Table(title="a title")
    table.add_column("run")
    for name in ("IQM", "95 % interval", "median", "worst"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row("a-long-name-of-a-folder (learning_rate=0.0003)", "-1034721.25", "-1134721.25 … -934721.25", "-1034720.75", "–")
    out = io.StringIO()
    print_table(table, Console(file=out, width=width))
    return out.getvalue()


@pytest.mark.parametrize("width", [20, 60, 80, 200])
def test_numbers_are_whole_and_names_stay(width):
    text = printed(width)
    for number in ("-1034721.25", "-1134721.25 … -934721.25", "-1034720.75"):
        assert number in text
    lines = [line for line in text.splitlines() if "│" in line]
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) <= max(width, 84)
    name = "".join(line.split("│")[1].strip() for line in lines)
    assert name.replace(" ", "") == "a-long-name-of-a-folder(learning_rate=0.0003)"


def test_a_table_that_fits_is_as_wide_as_the_console_allows():
    assert max(map(len, printed(100).splitlines())) <= 100
    assert "a-long-name-of-a-folder (learning_rate=0.0003)" in printed(200)
