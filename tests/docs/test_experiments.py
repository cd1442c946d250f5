"""docs/experiments.md: its code runs, and what it says of the files is true."""

import pytest

from tests.docs import pages


@pytest.mark.slow
def test_logging_interrupting_saving_and_loading(capsys):
    names = pages.run(pages.code(pages.read("docs/experiments.md")))
    assert "(2, 32)" in capsys.readouterr().out
    assert [steps for steps, _ in names["evaluations"]][-1] == 2_000
    assert 4 <= len(names["evaluations"]) <= 5
    assert names["result"].config == names["config"]
