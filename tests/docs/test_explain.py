"""docs/explain.md: it names every public function, and its code prints what it says."""

import re

import jax
import numpy as np
import pytest

from jaxrl import explain
from tests.docs import pages

PAGE = pages.read("docs/explain.md")


def test_the_page_names_the_functions():
    functions = ("policy_outputs", "outputs_of_settings", "gradient", "integrated_gradients", "grid_map", "action_statistics")
    for name in (*functions, "action_probabilities", "most_disagreeing"):
        assert name in explain.__all__
        assert f"{name}(" in PAGE, name


def test_pictures_exist_and_are_small():
    for name in re.findall(r"\]\((images/[\w-]+\.png)\)", PAGE.replace("\n", " ")):
        assert 10_000 < (pages.ROOT / "docs" / name).stat().st_size <= 150_000


@pytest.mark.slow
def test_the_code_of_the_page_runs():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        scope = pages.run(pages.code(PAGE))
    difference = scope["preference"](scope["obs"]) - scope["preference"](np.zeros(4, np.float32))
    np.testing.assert_allclose(scope["shares"].sum(), difference, atol=1e-5)
    assert scope["drawn"].values.shape == (48, 48)
    assert scope["found"].distance[0] >= scope["found"].mean
