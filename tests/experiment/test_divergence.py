"""Seeds that become NaN are counted, named, and kept out of the curves of the others."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from jaxrl.experiment import Config, curves
from jaxrl.experiment.curves import plot, read_curves
from jaxrl.experiment.divergence import describe, diverged_runs, not_finite
from jaxrl.experiment.evaluations import write_evaluation
from jaxrl.experiment.folder import read_metrics
from jaxrl.experiment.terminal import _mean_return, returns_table
from jaxrl.experiment.trainers import make_trainer, with_gaps
from jaxrl.experiment.training import Progress
from jaxrl.presets import DEFAULTS, override
from tests.experiment.run_folders import keep_rows, write_run

CONFIG = Config(env="CartPole-v1", settings=DEFAULTS["dqn"], seeds=2, sweep={"tau": [0.5, 1.0]})
ROWS = """seed,tau,env_steps,episode_return,episode_length,episodes,loss
0,0.5,1000,nan,nan,0,1.0
1,0.5,1000,20,20,1,1.0
0,1.0,1000,30,30,2,1.0
1,1.0,1000,nan,nan,0,nan
0,0.5,2000,10,10,3,1.0
1,0.5,2000,nan,20,1,0.5
0,1.0,2000,nan,nan,0,0.5
1,1.0,2000,200,200,1,inf
"""


def folder_with(tmp_path, text):
    CONFIG.save(tmp_path / "config.json")
    (tmp_path / "metrics.csv").write_text(text)
    return tmp_path


def test_a_seed_without_episodes_is_not_a_seed_that_is_nan(tmp_path):
    columns = read_metrics(folder_with(tmp_path, ROWS))
    np.testing.assert_array_equal(not_finite(columns), [0, 0, 0, 1, 0, 1, 0, 1])
    diverged = diverged_runs(CONFIG, columns)
    assert [(d.run, d.env_steps, d.metric) for d in diverged] == [
        ({"seed": 1, "tau": 1.0}, 1000, "loss"),
        ({"seed": 1, "tau": 0.5}, 2000, "episode_return"),
    ]
    line = "NaN in 2 runs: seed 1 tau 1 since step 1,000 (loss), seed 1 tau 0.5 since step 2,000 (episode_return)"
    assert describe(diverged) == line
    assert describe(diverged, most=1).endswith("(loss), and 1 more")


def test_a_value_of_a_sweep_may_be_infinite_and_a_seed_large(tmp_path):
    config = Config(
        env="CartPole-v1", settings=DEFAULTS["dqn"], seeds=1, seed=1_234_567, sweep={"epsilon_iterations": [0.5, math.inf]}
    )
    config.save(tmp_path / "config.json")
    rows = "1234567,0.5,1000,10,1.0\n1234567,inf,1000,20,nan\n1234567,inf,2000,20,1.0\n1234567,0.5,2000,10,1.0\n"
    (tmp_path / "metrics.csv").write_text("seed,epsilon_iterations,env_steps,episode_return,loss\n" + rows)
    diverged = diverged_runs(config, read_metrics(tmp_path))
    assert [(d.run["epsilon_iterations"], d.env_steps, d.metric) for d in diverged] == [(math.inf, 1000, "loss")]
    assert describe(diverged) == "NaN in 1 run: seed 1234567 epsilon_iterations inf since step 1,000 (loss)"
    assert [curve.diverged.tolist() for curve in read_curves(tmp_path)] == [[False], [True]]


def test_curves_leave_them_out_and_count_them(tmp_path, monkeypatch):
    figures, save = [], curves.save
    monkeypatch.setattr(curves, "save", lambda figure, path: figures.append(figure) or save(figure, path))
    found = read_curves(folder_with(tmp_path, ROWS))
    np.testing.assert_array_equal([curve.diverged for curve in found], [[False, True], [False, True]])
    both = found[0]._replace(label="both", diverged=np.array([True, True]))
    whole = found[1]._replace(label="whole", returns=np.array([[1.0, 3.0], [2.0, 6.0]]), diverged=np.array([False, False]))
    plot([*found, both, whole], tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5_000
    (axes,) = figures[0].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "DQN on CartPole-v1, tau=0.5 (1 seed of 2, 1 NaN)",
        "DQN on CartPole-v1, tau=1 (1 seed of 2, 1 NaN)",
        "both (0 seeds of 2, 2 NaN)",
        "whole (2 seeds)",
    ]
    first, second, none, mean = (line.get_xydata() for line in axes.lines)
    np.testing.assert_array_equal(first, [[2000, 10]])  # before, its seed had finished no episode
    np.testing.assert_array_equal(second, [[1000, 30], [2000, 30]])  # and none in its second interval
    assert np.isnan(none[:, 1]).all()
    np.testing.assert_array_equal(mean, [[1000, 2], [2000, 4]])
    assert len(axes.collections) == 1, "a band for two seeds and more"
    assert axes.get_ylabel() == "return of finished episodes (IQM, 95 % interval)"


def test_seeds_that_are_behind_are_left_out_and_counted(tmp_path, monkeypatch):
    """A batch of two seeds is trained, the next one has begun, and the second setting has not."""
    config = write_run(tmp_path / "run", [100, 200], spread=0, evaluate=False, seeds=5, sweep={"tau": [0.1, 0.2]})
    for steps in (500, 1500):
        write_evaluation(tmp_path / "run", config, steps, np.full((10, 2), float(steps)))
    for file in ("metrics.csv", "evaluation.csv"):
        path = tmp_path / "run" / file
        path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if ",0.2," not in line))
        keep_rows(path, lambda seed, steps: seed < 2 or (seed < 4 and steps == 500))
    labels, draw = [], curves.draw
    monkeypatch.setattr(curves, "draw", lambda *given, label: labels.append(label) or draw(*given, label=label))
    for read, steps in ((read_curves, [500, 1000, 1500, 2000]), (curves.read_evaluation_curves, [500, 1500])):
        begun, not_begun = read(tmp_path / "run")
        np.testing.assert_array_equal(begun.env_steps, steps)
        assert (begun.returns.shape, not_begun.returns.shape) == ((len(steps), 2), (0, 0))
        plot([begun._replace(diverged=np.array([True, False])), not_begun], tmp_path / "curve.png")
    assert labels == 2 * [
        "DQN on CartPole-v1, tau=0.1 (1 seed of 5, 1 NaN, 3 not trained that far)",
        "DQN on CartPole-v1, tau=0.2 (0 seeds of 5, 5 not trained that far)",
    ]


def test_progress_and_table_show_them():
    assert _mean_return(Progress(1, 2, 1.0, -189.0, 1)) == "-189.0 (1 NaN)"
    table = returns_table(CONFIG, np.array([[1.0], [np.nan], [3.0], [4.0]]), "return")
    cells = {column.header: list(column.cells) for column in table.columns}
    assert cells["NaN seeds"] == ["1", "0"]
    assert cells["IQM"] == ["1.00", "3.50"]
    assert cells["worst seed"] == ["NaN", "3.00"]


def test_a_mean_just_below_zero_is_shown_as_zero():
    assert _mean_return(Progress(1, 2, 1.0, -0.04)) == "0.0"
    table = returns_table(dataclasses.replace(CONFIG, sweep={}), np.float32([[-0.001], [-0.002]]), "return")
    cells = {column.header: list(column.cells) for column in table.columns}
    assert (cells["IQM"], cells["95 % interval"], cells["worst seed"]) == (["0.00"], ["0.00 … 0.00"], ["0.00"])


def test_one_seed_has_no_interval():
    table = returns_table(CONFIG, np.array([[1.0], [np.nan], [np.nan], [np.nan]]), "return")
    cells = {column.header: list(column.cells) for column in table.columns}
    assert (cells["IQM"][0], cells["95 % interval"]) == ("1.00", ["–", "–"])


def test_an_interval_without_episodes_has_no_mean():
    rows = {name: np.float32([0, 0, 7]) for name in ("episode_return", "episode_length", "loss")} | {
        "episodes": np.int32([0, 1, 2])
    }
    found = with_gaps(rows)
    np.testing.assert_array_equal(found["episode_return"], np.float32([np.nan, 0, 7]), strict=True)
    np.testing.assert_array_equal(found["episode_length"], np.float32([np.nan, 0, 7]), strict=True)
    assert found["loss"] is rows["loss"]


@pytest.mark.slow
def test_it_has_none_under_debug_nans():
    settings = override(DEFAULTS["reinforce"], steps=16, num_envs=2, rollout_length=4, network={"hidden": ()})
    config = Config(env="CartPole-v1", settings=settings)
    with jax.debug_nans(True):
        chunk = next(make_trainer(config, config.preset()).chunks(slice(0, 1), 0, None))
    assert chunk.metrics["episodes"] == 0
    assert np.isnan(chunk.metrics["episode_return"])
