"""`jaxrl explain` as a user meets it, and what it draws."""

import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from jaxrl.cli import main
from jaxrl.experiment import Config, explanation_picture, folder
from jaxrl.experiment.config import load_config
from jaxrl.experiment.explanation import explain_policy
from jaxrl.experiment.explanation_picture import draw
from jaxrl.experiment.pictures import new_figure
from jaxrl.experiment.policies import abstract_policies
from jaxrl.explain import action_statistics
from jaxrl.presets import DEFAULTS, override
from jaxrl.spaces import MultiDiscrete

REPLAY = {"capacity": 64, "batch_size": 8, "warmup_steps": 40}


def write_run(path, algorithm, env, *, agent=None, network=None, **fields):
    """A run folder as training leaves it, with random policies."""
    agent = (REPLAY if "capacity" in DEFAULTS[algorithm].agent else {}) | (agent or {})
    settings = override(DEFAULTS[algorithm], steps=16_000, network={"hidden": (8,)} | (network or {}), agent=agent)
    config = Config(**({"env": env, "settings": settings, "seeds": 2, "seed": 5} | fields))
    path.mkdir(parents=True)
    config.save(path / folder.CONFIG)
    draw = np.random.default_rng(0)
    random = lambda x: draw.normal(size=x.shape).astype(x.dtype)
    policies = abstract_policies(config)
    env_state = jax.tree.map(lambda x: np.abs(random(x)), policies.env_state)  # variances are positive
    folder.save_policies(path, policies._replace(params=jax.tree.map(random, policies.params), env_state=env_state))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two settings of two seeds. The best policies are the last ones in the opposite order."""
    path = write_run(tmp_path_factory.mktemp("explain") / "run", "dqn", "CartPole-v1", sweep={"discount": [0.1, 0.2]})
    last = folder.load_policies(path, abstract_policies(load_config(path)))
    reverse = jax.tree.map(lambda x: x[::-1], last)
    folder.save_policies(path, reverse, {"returns": [3.0, 2.0, 1.0, 0.0]}, name=folder.BEST_POLICIES)
    return path


def test_a_picture_of_a_run(run, tmp_path, capsys):
    out = tmp_path / "picture.png"
    options = ["--seed", "6", "--setting", "discount=0.2", "--dims", "0", "2", "--episodes", "2", "--max-steps", "20"]
    assert main(["explain", str(run), "-o", str(out), *options]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    with Image.open(out) as picture:
        assert picture.format == "PNG"
        assert picture.size == (1100, 820)
        assert len(np.unique(np.asarray(picture).reshape(-1, 4), axis=0)) > 100


def test_what_the_picture_shows(run):
    found = explain_policy(run, seed=6, setting={"discount": 0.2}, dims=(0, 2), num_episodes=2, max_steps=20)
    assert found.title == "DQN on CartPole-v1, seed 6, discount 0.2"
    assert found.discount == 0.2, "that of the setting"
    assert found.components == ["position", "velocity", "angle", "angular velocity"]
    assert found.saliency.keys() == {"action", "value"}
    for share in found.saliency.values():
        assert share.shape == (4,)
        np.testing.assert_allclose(share.sum(), 1, rtol=1e-5)
    num_steps = len(found.actions)
    assert len(found.observations) == num_steps <= 40
    np.testing.assert_allclose(found.returns.sum(), num_steps)  # CartPole's reward is 1 for each step
    np.testing.assert_allclose(found.statistics.frequency, [np.mean(found.actions == a) for a in (0, 1)], rtol=1e-6)
    np.testing.assert_allclose(found.policy.values.sum(axis=-1), 1, rtol=1e-5)
    assert found.value.values.shape == found.policy.values.shape[:2]
    assert not found.value_is_measured
    other = explain_policy(run, seed=5, setting={"discount": 0.2}, num_episodes=2, max_steps=20)
    total = sum(other.saliency.values())
    assert set(other.dims) == set(np.argsort(-total)[:2])
    assert np.abs(other.value.values - found.value.values).max() > 1e-3  # another policy


def picture_of(found, tmp_path, monkeypatch):
    """The figure that is written."""
    figures, save = [], explanation_picture.save
    monkeypatch.setattr(explanation_picture, "save", lambda figure, path: figures.append(figure) or save(figure, path))
    draw(found, tmp_path / "picture")
    return figures[0]


def test_a_long_title_is_whole_and_the_return_has_a_line_of_its_own(run, tmp_path, monkeypatch):
    found = explain_policy(run, num_episodes=2, max_steps=300)
    assert found.cut_after is None
    long = found.title + ", learning_rate 0.000314159, entropy_coef 0.00123" * 3
    for title in (found.title, long):
        figure = picture_of(found._replace(title=title), tmp_path, monkeypatch)
        box = figure._suptitle.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
        assert all(panel.get_tightbbox().y1 <= box.y0 for panel in figure.axes), "above the panels"
        *lines, result = figure._suptitle.get_text().split("\n")
        assert " ".join(lines) == title
        assert result == f"greedy return {found.returns.mean():.4g}, mean of 2 episodes"


def test_what_is_unknown_of_episodes_that_were_cut_is_not_shown(run, tmp_path, monkeypatch):
    """With two steps, how often the last action is repeated is known; with one it is not, nor how much an action changes."""
    titles = []
    for path, steps in ((run, 2), (run, 1), (write_run(tmp_path / "box", "sac", "Pendulum-v1"), 1)):
        found = explain_policy(path, num_episodes=1, max_steps=steps)
        assert found.cut_after == steps
        figure = picture_of(found, tmp_path, monkeypatch)
        titles.append((figure._suptitle.get_text().split("\n")[-1], figure.axes[-1].get_title()))
    assert titles[0][0] == "greedy return of the first 2 steps: 2, mean of 1 episode"
    assert "% repeat the last" in titles[0][1]
    assert titles[1] == ("greedy return of the first 1 step: 1, mean of 1 episode", "Actions: entropy 0.00 of 0.69")
    assert titles[2][1] == "Actions"


def test_the_largest_entropy_is_that_of_uniform_components():
    space, actions = MultiDiscrete((2, 8)), np.stack([np.arange(160) % 2, np.arange(160) // 2 % 8], axis=-1)
    statistics = action_statistics(space, actions[:, None])
    axes = new_figure(6, 4).add_subplot()
    shown = SimpleNamespace(statistics=statistics, env=SimpleNamespace(action_space=space), drawn_as="")
    explanation_picture._draw_statistics(axes, shown)
    assert axes.get_title().startswith("Actions: entropy 1.39 of 1.39")


def test_episodes_that_the_environment_truncates_are_not_cut(tmp_path):
    run = write_run(tmp_path / "run", "sac", "Pendulum-v1")
    assert explain_policy(run, num_episodes=1, max_steps=200).cut_after is None
    assert explain_policy(run, num_episodes=1, max_steps=199).cut_after == 199


@pytest.mark.parametrize(("algorithm", "env"), [("dqn", "CartPole-v1"), ("ppo", "Pendulum-v1"), ("pqn", "Catch-bsuite")])
def test_a_policy_that_has_diverged_is_named(tmp_path, algorithm, env, capsys):
    run = write_run(tmp_path / "run", algorithm, env, sweep={"discount": [0.1, 0.2]})
    policies = folder.load_policies(run, abstract_policies(load_config(run)))
    shutil.rmtree(run / folder.POLICIES)
    folder.save_policies(run, policies._replace(params=jax.tree.map(lambda x: np.full_like(x, np.nan), policies.params)))
    options = ["--seed", "6", "--setting", "discount=0.1", "--episodes", "2", "--max-steps", "500"]
    assert main(["explain", str(run), "-o", str(tmp_path / "p.png"), *options]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert f"on {env}, seed 6, discount 0.1, has diverged (it is NaN); choose another seed or setting" in printed
    assert not (tmp_path / "p.png").exists()


def test_the_policy_is_the_last_or_the_best_and_by_default_that_with_the_highest_return(run):
    same = {"dims": (0, 2), "num_episodes": 2, "max_steps": 20}
    last = explain_policy(run, seed=6, setting={"discount": 0.2}, **same)
    best = explain_policy(run, which="best", **same)
    assert best.title == "DQN on CartPole-v1, seed 5, discount 0.1"
    np.testing.assert_array_equal(best.value.values, last.value.values)


def test_the_pixels_of_a_picture(tmp_path):
    """A policy that reads a single pixel: it alone is salient, at the moments that matter as in the mean."""
    run = write_run(tmp_path / "run", "pqn", "Catch-bsuite", network={"hidden": (), "layer_norm": False}, seeds=1)
    config = Config.load(run / folder.CONFIG)
    policies = folder.load_policies(run, abstract_policies(config))
    kernel = np.zeros((50, 3), np.float32)  # pixels are [10, 5, 1] or [10, 5]
    kernel[3] = [1.0, -1.0, 0.0]
    one = lambda x: np.broadcast_to(kernel, x.shape) if x.shape[-2:] == (50, 3) else np.zeros_like(x)
    shutil.rmtree(run / folder.POLICIES)
    folder.save_policies(run, jax.tree.map(one, policies))
    found = explain_policy(run, num_episodes=8, max_steps=10)
    share = found.saliency["action"]
    np.testing.assert_allclose(share[3], 1, rtol=1e-6)
    np.testing.assert_allclose(np.delete(share, 3), 0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "env", "options"),
    [
        ("sac", "Pendulum-v1", {}),
        (
            "recurrent_ppo",
            "CartPole-v1",
            {"agent": {"normalize_observations": True}, "wrappers": ("partial_observation:1,0,1,0",)},
        ),
        ("ppo", "PointMass", {"wrappers": ("normalize_observations",)}),
        ("pqn", "Breakout-MinAtar", {"network": {"channels": (4,)}}),
        ("ppo", "FrozenLake-misc", {"wrappers": ("one_hot",)}),
        ("ppo", "FourRooms-misc", {}),
        ("openai_es", "PointMass", {}),
    ],
)
def test_every_kind_of_policy_has_a_picture(tmp_path, algorithm, env, options):
    """Measured values without a critic, memory, statistics of wrappers and agents, images, and integers as one-hot vectors."""
    found = explain_policy(write_run(tmp_path / "run", algorithm, env, **options), num_episodes=2, max_steps=50)
    assert found.value_is_measured == (algorithm in ("sac", "openai_es"))
    assert (len(found.moments) > 0) == (env == "Breakout-MinAtar")
    if found.value is not None:
        assert np.all(np.isfinite(found.value.values))
    assert draw(found, tmp_path / "picture").stat().st_size > 20_000


def test_what_cannot_be_explained_is_one_line(tmp_path, capsys):
    assert main(["explain", str(write_run(tmp_path / "discrete", "ppo", "FrozenLake-misc"))]) == 2
    assert "wrap the environment" in capsys.readouterr().err
