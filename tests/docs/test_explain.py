"""docs/explain.md: it names every public function, and its code prints what it says."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrl import explain

PAGE = (Path(__file__).parents[2] / "docs" / "explain.md").read_text()


def test_the_page_names_the_functions():
    functions = ("policy_outputs", "outputs_of_settings", "gradient", "integrated_gradients", "grid_map", "action_statistics")
    for name in (*functions, "action_probabilities", "most_disagreeing"):
        assert name in explain.__all__
        assert f"{name}(" in PAGE, name


def test_pictures_exist_and_are_small():
    for name in re.findall(r"\]\((images/[\w-]+\.png)\)", PAGE.replace("\n", " ")):
        assert 10_000 < (Path(__file__).parents[2] / "docs" / name).stat().st_size <= 150_000


@pytest.mark.slow
def test_the_code_of_the_page_runs():
    scope: dict = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
            exec(block, scope)
    difference = scope["preference"](scope["obs"]) - scope["preference"](np.zeros(4, np.float32))
    np.testing.assert_allclose(scope["shares"].sum(), difference, atol=1e-5)
    assert scope["drawn"].values.shape == (48, 48)
    assert scope["found"].distance[0] >= scope["found"].mean
