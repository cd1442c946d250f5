"""docs/experiments.md: its code runs, and what it says of the files is true."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "experiments.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.slow
def test_interrupting_saving_and_loading(capsys):
    names: dict = {}
    for block in BLOCKS:
        exec(block, names)
    assert "(2, 32)" in capsys.readouterr().out
    assert names["result"].config == names["config"]
