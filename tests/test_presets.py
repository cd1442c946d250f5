"""The table of settings, and what is built from it."""

import dataclasses
import typing

import jax
import pytest

import jaxrl
from jaxrl import envs, networks, presets
from jaxrl.learner import default_log_every

ROWS = [(algorithm, env, row.steps) for (algorithm, env), rows in presets.PRESETS.items() for row in rows]


@pytest.mark.parametrize(("algorithm", "env", "wanted"), ROWS)
def test_a_preset_keeps_to_its_budget_and_traces(algorithm, env, wanted):
    learner, hparams, num_iterations, env_steps = jaxrl.preset(algorithm, env, env_steps=wanted)
    assert wanted * 0.98 <= env_steps <= wanted
    assert env_steps == (num_iterations + learner.agent.warmup) * learner.num_envs * learner.rollout_length
    assert hparams.learning_rate_iterations in (num_iterations, float("inf"))
    metrics = jax.eval_shape(lambda key: jaxrl.train(key, learner, num_iterations, hparams), jax.random.key(0))[1]
    assert 90 <= len(metrics["episode_return"]) <= 130
    row = default_log_every(num_iterations)
    blocks = [size for size in range(1, 65) if row % size == 0]
    assert max(blocks) * learner.rollout_length >= 16  # noise is drawn for so many steps at once


def test_schedules_scale_with_the_length():
    short, long = (jaxrl.preset("dqn", "CartPole-v1", env_steps=steps) for steps in (50_000, 100_000))
    assert 1.9 < long.hparams.epsilon_iterations / short.hparams.epsilon_iterations < 2.1
    assert long.hparams.learning_rate_iterations == long.num_iterations


def test_the_row_is_that_of_the_nearest_length():
    short, long = presets.PRESETS["dqn", "CartPole-v1"]
    assert presets.tuned("dqn", "CartPole-v1") is short
    for steps, row in ((1, short), (100_000, short), (200_000, short), (300_000, long), (10_000_000, long)):
        assert presets.tuned("dqn", "CartPole-v1", steps) == dataclasses.replace(row, steps=steps)
    assert jaxrl.preset("dqn", "CartPole-v1").env_steps <= 100_000
    assert presets.tuned("dqn", "Pong", 100) is None


def test_single_hyperparameters_win_over_the_schedule():
    row = presets.tuned("dqn", "CartPole-v1")
    assert presets.build(row, envs.make("CartPole-v1"), epsilon_iterations=7.0).hparams.epsilon_iterations == 7.0


def test_an_unknown_row_names_those_there_are():
    with pytest.raises(ValueError, match=r"no preset for 'dqn' on 'Pong'; there are dqn on CartPole-v1, "):
        jaxrl.preset("dqn", "Pong")


def test_too_few_steps_name_the_fewest():
    with pytest.raises(ValueError, match=r"steps=10 is too few: .* so give at least 1008"):
        jaxrl.preset("dqn", "CartPole-v1", env_steps=10)


def test_the_activations_offered_are_those_there_are():
    assert typing.get_args(presets.Activation) == tuple(networks.ACTIVATIONS)
    assert typing.get_args(presets.Dtype) == tuple(networks.DTYPES)
