"""docs/devices.md: its code runs as it stands."""

import jax
import numpy as np
import pytest

from tests.docs import pages


@pytest.mark.slow
def test_the_code_of_the_page_runs():
    scope = pages.run(pages.code(pages.read("docs/devices.md")))
    assert scope["returns"].shape == (10,)
    assert np.isfinite(scope["returns"]).all()
    assert scope["states"].obs.shape == (4, 64, 4)
    assert scope["state"].obs.shape == (1, 2, 32, 4)
    assert len(jax.devices()) == 2
