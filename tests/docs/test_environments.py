"""docs/environments.md: its environment is complete, short, sound, trains and is filmed."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import jaxrl
from tests import problems

PAGE = Path(__file__).parents[2] / "docs" / "environments.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def page():
    """What the page's first block defines; it ends with `check_environment`."""
    names = {}
    exec(compile(BLOCKS[0], str(PAGE), "exec"), names)
    return names


def test_the_environment_is_complete_and_short(page):
    assert len(BLOCKS[0].splitlines()) < 40
    assert BLOCKS[0].rstrip().endswith("jaxrl.check_environment(hover)")
    assert page["hover"].name == "Hover"


def test_it_trains_and_is_filmed(page, tmp_path, monkeypatch):
    """The page's own training is traced, a smaller one is run."""
    monkeypatch.chdir(tmp_path)
    names = dict(page)
    exec("\n".join(BLOCKS[1].replace("jax.jit(", "jax.eval_shape(").replace(")(jax", ", jax").splitlines()[:-1]), names)
    assert set(names["metrics"]) >= {"episode_return", "loss"}
    names["learner"] = problems.reinforce_learner(page["hover"], rollout_length=4, mode="continuing", baseline="value")
    names["state"], metrics = jax.jit(lambda key: jaxrl.train(key, names["learner"], 4))(jax.random.key(0))
    assert np.all(np.isfinite(metrics["loss"]))
    exec(BLOCKS[2], names)
    with Image.open("hover.gif") as gif:
        assert gif.n_frames > 5


@pytest.mark.slow
def test_it_is_learned(page):
    """Eight seeds of the page's own run gave mean returns of 97.3 to 98.5; random actions give 39.7."""
    one = BLOCKS[1].replace("jax.jit(lambda key: ", "(lambda key: ")

    def train(key):
        names = dict(page) | {"key": key}
        exec(one.replace("jax.random.key(0)", "key"), names)
        return names["returns"]

    returns = np.asarray(jaxrl.vectorize(train)(jax.random.split(jax.random.key(0), 8)))
    assert np.all(returns.mean(axis=1) > 90)
