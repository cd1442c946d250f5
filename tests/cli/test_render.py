"""`jaxrl render` as a user meets it."""

import jax
import numpy as np
import pytest
from PIL import Image

from jaxrl.cli import main
from jaxrl.experiment import Config, folder
from jaxrl.experiment.policies import abstract_policies
from jaxrl.presets import DEFAULTS, override


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder as training leaves it, two settings of three seeds, with random policies."""
    path = tmp_path_factory.mktemp("render") / "run"
    sizes = {"capacity": 64, "batch_size": 8, "warmup_steps": 40}
    settings = override(DEFAULTS["dqn"], steps=2000, network={"hidden": (8,)}, agent=sizes)
    config = Config(env="CartPole-v1", settings=settings, seeds=3, seed=5, sweep={"tau": [0.1, 0.2]})
    path.mkdir()
    config.save(path / folder.CONFIG)
    draw = np.random.default_rng(0)
    for name in (folder.POLICIES, folder.BEST_POLICIES):
        policies = jax.tree.map(lambda x: draw.normal(size=x.shape).astype(x.dtype), abstract_policies(config))
        folder.save_policies(path, policies, name=name)
    return path


def test_a_film_of_a_run(run, tmp_path, capsys):
    out = tmp_path / "policy.gif"
    assert main(["render", str(run), "-o", str(out), "--seeds", "5", "7", "--max-steps", "8", "--fps", "10"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    with Image.open(out) as gif:
        assert gif.format == "GIF"
        assert gif.n_frames == 9
        assert gif.info["duration"] == 100
        two_rows_of_two = gif.size
    sheet = tmp_path / "policy.png"
    assert main(["render", str(run), "-o", str(sheet), "--seeds", "5", "7", "--max-steps", "8"]) == 0
    with Image.open(sheet) as png:
        assert png.size == (3 * two_rows_of_two[0], 2 * two_rows_of_two[1])  # six snapshots of four policies


def test_a_film_of_the_last_or_of_the_best_policies(run, tmp_path, capsys):
    films = [tmp_path / f"{which}.png" for which in ("last", "best")]
    for film in films:
        assert main(["render", str(run), "-o", str(film), "--policy", film.stem, "--seeds", "5", "--max-steps", "8"]) == 0
    capsys.readouterr()
    assert films[0].read_bytes() != films[1].read_bytes()


def test_an_environment_without_pictures_is_one_line_and_exit_code_2(tmp_path, capsys):
    path = tmp_path / "run"
    path.mkdir()
    Config(env="Swimmer-misc", settings=DEFAULTS["reinforce"]).save(path / folder.CONFIG)
    assert main(["render", str(path)]) == 2
    error = capsys.readouterr().err
    assert "there is no picture of 'Swimmer-misc'; there are pictures of CartPole-v1" in error
    assert error.count("\n") == 1


def test_the_options_are_listed(capsys):
    assert main(["render", "--help"]) == 0
    printed = capsys.readouterr().out
    for option in ("--out", "-o", "--seeds", "--episodes", "--max-steps", "--fps", "--seed"):
        assert option in printed
