"""Run folders on several devices: runs that are resumed on fewer of them, and agents that are spread over them."""

import shutil

import jax
import numpy as np
import pytest

import jaxrl
from jaxrl.experiment import Config, Interrupted, folder, resume, run
from jaxrl.experiment.notes import Note
from jaxrl.experiment.trainers import make_trainer
from jaxrl.presets import default_settings, override
from tests.problems import plain


def config_of(algorithm="a2c", rollout_length=8, **changes):
    settings = override(
        default_settings(algorithm),
        steps=4 * rollout_length * 12,
        num_envs=4,
        rollout_length=rollout_length,
        network={"hidden": (4,)},
        schedules={},
    )
    return Config(**({"env": "CartPole-v1", "settings": settings, "seeds": 2} | changes))


def interrupted(config, out, chunks=5):
    asked = iter([False] * chunks)
    with pytest.raises(Interrupted):
        run(config, out, stop=lambda: next(asked, True))


def assert_close(result, other, **tolerance):
    for x, y in zip(jax.tree.leaves(plain(result.policies)), jax.tree.leaves(plain(other.policies)), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


def without_time(out):
    return {name: column for name, column in folder.read_metrics(out).items() if name != "wall_seconds"}


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """A run of one seed in two shards, and the configuration."""
    config, out = config_of(seeds=1, num_shards=2), tmp_path_factory.mktemp("sharded") / "run"
    return config, out, run(config, out)


@pytest.mark.slow
def test_a_run_goes_on_on_fewer_devices_with_the_same_results_up_to_rounding(tmp_path, monkeypatch):
    config, one = config_of(), jax.local_devices()[:1]
    result = run(config, tmp_path / "reference")
    interrupted(config, tmp_path / "run")
    monkeypatch.setattr(jax, "local_devices", lambda: one)
    with pytest.warns(Note, match="continues on 1 devices in place of 2: the results are equal up to float rounding"):
        assert_close(resume(tmp_path / "run"), result, rtol=1e-5, atol=1e-7)
    for name, column in without_time(tmp_path / "run").items():
        np.testing.assert_allclose(column, without_time(tmp_path / "reference")[name], rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_a_run_in_shards_is_that_of_the_library(sharded):
    config, _, result = sharded
    preset = config.preset()
    train = lambda key: jaxrl.train(key, preset.learner, preset.num_iterations, preset.hparams)
    state, _ = jaxrl.vectorize(train, num_shards=2)(config.runs(preset)[0])
    for x, y in zip(jax.tree.leaves(plain(result.policies.params)), jax.tree.leaves(plain(state.agent.params)), strict=True):
        np.testing.assert_allclose(x, y[:, 0], rtol=1e-5, atol=1e-7)
    assert result.evaluation_returns.shape == (1, 32)


@pytest.mark.slow
def test_a_run_in_shards_goes_on_bit_for_bit_and_on_one_device_up_to_rounding(sharded, tmp_path, monkeypatch):
    config, out, result = sharded
    interrupted(config, tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "on one")
    assert_close(resume(tmp_path / "run"), result, rtol=0, atol=0)
    for name, column in without_time(tmp_path / "run").items():
        np.testing.assert_array_equal(column, without_time(out)[name])
    one = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: one)
    with pytest.warns(Note, match="continues on 1 devices in place of 2: the results are equal up to float rounding"):
        assert_close(resume(tmp_path / "on one"), result, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_the_population_of_openai_es_comes_from_all_shards():
    config = config_of("openai_es", 500, seeds=1, num_shards=2)
    trainer = make_trainer(config, config.preset())
    chunk = next(trainer.chunks(slice(0, 1), 0, None))
    keys = np.asarray(chunk.states.agent.noise_keys)  # of the pairs, which are all that a state holds of the population
    assert keys.shape[:3] == (1, 2, 1)
    assert len(np.unique(keys[0], axis=0)) == 2, "the shards have noise of their own"


def test_shards_that_cannot_be_are_errors(tmp_path):
    with pytest.raises(ValueError, match="num_envs 4 must be a multiple of num_shards 3"):
        run(config_of(num_shards=3), tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())
    with pytest.raises(ValueError, match="num_shards must be"):
        config_of(num_shards=0)
