"""docs/wrappers.md: it names every wrapper, and its code runs as it stands."""

import jax
import numpy as np
import pytest

from jaxrl.envs import wrappers as w
from tests.docs import pages

PAGE = pages.read("docs/wrappers.md")


def test_the_page_names_everything_public():
    for name in w.__all__:
        assert name in PAGE or name[0].isupper() or name == "merge", name


@pytest.mark.slow
def test_the_code_of_the_page_runs():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        scope = pages.run(pages.code(PAGE))
    assert scope["last_returns"].shape == (16,)
    for name, shape in {"returns": (100,), "seen": (100,), "unseen": (100,), "test_returns": (200, 5)}.items():
        assert scope[name].shape == shape
        assert np.isfinite(scope[name]).all(), name
    assert scope["bonus"](scope["env"], 1.0).name == "CartPole-v1"
