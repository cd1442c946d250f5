"""Ranges of hyperparameters and random samples of them."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from jaxrl.experiment import Config, Range, draw_samples
from jaxrl.experiment.sampling import parse_swept
from jaxrl.presets import DEFAULTS

SPACE = {"learning_rate": Range(1e-4, 1e-2, log=True), "tau": Range(0.25, 0.75)}


def test_samples_have_the_distributions_of_their_ranges():
    """Kolmogorov-Smirnov at p > 1e-4, and no correlation beyond 4.5 standard errors."""
    samples = draw_samples(SPACE, 4000, seed=3)
    rates, taus = (np.array([sample[name] for sample in samples]) for name in SPACE)
    assert stats.kstest(np.log(rates), "uniform", (math.log(1e-4), math.log(1e2))).pvalue > 1e-4
    assert stats.kstest(taus, "uniform", (0.25, 0.5)).pvalue > 1e-4
    assert stats.kstest(rates, "uniform", (1e-4, 1e-2 - 1e-4)).pvalue < 1e-9  # this test can fail
    assert abs(np.corrcoef(np.log(rates), taus)[0, 1]) < 4.5 / np.sqrt(4000)


def test_samples_depend_on_the_seed_alone_and_are_as_they_print():
    samples = draw_samples(SPACE, 20, seed=3)
    assert samples == draw_samples(SPACE, 20, seed=3)
    assert samples != draw_samples(SPACE, 20, seed=4)
    assert samples[:5] == draw_samples(SPACE, 5, seed=3)
    assert all(float(f"{value:g}") == value for sample in samples for value in sample.values())


def test_the_ends_of_a_range_are_its_bounds():
    for values in (Range(1 / 3, 2 / 3), Range(1 / 3, 2 / 3, log=True)):
        assert (values.at(0.0), values.at(1.0)) == (1 / 3, 2 / 3)  # not rounded beyond them
    assert Range(1e-4, 1e-2, log=True).at(0.5) == 1e-3
    assert Range(0.0, 3.0).at(0.5) == 1.5


def test_every_sample_runs_with_every_seed_and_every_value_of_the_grid(tmp_path):
    samples = draw_samples(SPACE, 2, seed=0)
    config = Config("CartPole-v1", DEFAULTS["dqn"], seeds=2, sweep={"discount": [0.9, 0.99]}, samples=samples)
    assert config.swept == ("discount", "learning_rate", "tau")
    assert config.num_runs == 8
    assert config.combinations == [{"discount": d} | sample for d in (0.9, 0.99) for sample in samples]
    assert config.identifiers()[2] == {"seed": 0, "discount": 0.9} | samples[1]
    config.save(tmp_path / "config.json")
    assert Config.load(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": [{"tau": 0.1}, {"discount": 0.1}]}, "every one of the samples must set the same hyperparameters"),
        ({"samples": [{"tua": 0.1}]}, "dqn has no hyperparameter 'tua'"),
        ({"samples": [{"tau": 0.1}], "sweep": {"tau": [0.2]}}, "tau is both swept and sampled"),
        ({"samples": [{"tau": 0.1}], "hparams": {"tau": 0.2}}, "tau is both swept and set"),
        ({"samples": [{"tau": 0.1}, {"tau": 0.2}, {"tau": 0.1}]}, "must differ from the others; got {'tau': 0.1} twice"),
    ],
)
def test_samples_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(Config("CartPole-v1", DEFAULTS["dqn"]), **changes)


def test_samples_differ_from_each_other():
    """Of ten values, ten samples are all of them, in an order of their own; eleven are too many."""
    narrow = {"tau": Range(0.1, 0.100009)}
    samples = [sample["tau"] for sample in draw_samples(narrow, 10, seed=0)]
    assert sorted(samples) == [round(0.1 + i * 1e-6, 6) for i in range(10)]
    assert samples != sorted(samples)
    with pytest.raises(ValueError, match="too few different values for 11 samples"):
        draw_samples(narrow, 11, seed=0)


@pytest.mark.parametrize("wrong", [float("nan"), 2.0, -0.1])
def test_a_sample_out_of_range_is_found_before_anything_runs(wrong):
    config = Config("CartPole-v1", DEFAULTS["dqn"], samples=[{"tau": 0.5}, {"tau": wrong}, {"tau": 0.7}])
    with pytest.raises(ValueError, match=r"hparams.tau must lie in \[0, 1\], got"):
        config.preset()


def test_words_are_values_or_one_range():
    assert parse_swept("tau", ["0.1", "1e-2"]) == [0.1, 0.01]
    assert parse_swept("tau", ["uniform:0:1"]) == Range(0.0, 1.0)
    assert parse_swept("tau", ["loguniform:1e-3:1"]) == Range(1e-3, 1.0, log=True)
