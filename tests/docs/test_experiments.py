"""docs/experiments.md: its code runs, and what it says of the files is true."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "experiments.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.slow
def test_logging_interrupting_saving_and_loading(capsys):
    names: dict = {}
    for block in BLOCKS:
        exec(block, names)
    assert "(2, 32)" in capsys.readouterr().out
    assert [steps for steps, _ in names["evaluations"]][-1] == 2_000
    assert 4 <= len(names["evaluations"]) <= 5
    assert names["result"].config == names["config"]
