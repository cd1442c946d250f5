"""docs/devices.md: its code runs as it stands."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "devices.md").read_text()


@pytest.mark.slow
def test_the_code_of_the_page_runs():
    scope: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(block, scope)
    assert scope["returns"].shape == (10,)
    assert np.isfinite(scope["returns"]).all()
    assert scope["states"].obs.shape == (4, 64, 4)
    assert scope["state"].obs.shape == (1, 2, 32, 4)
    assert len(jax.devices()) == 2
