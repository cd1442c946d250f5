"""Settings, presets, and what is built from them."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

import jaxrl
from jaxrl import algorithms, envs, presets
from jaxrl.learner import default_log_every

ROWS = [(algorithm, env, row.steps) for (algorithm, env), rows in presets.PRESETS.items() for row in rows]


@pytest.mark.parametrize(("algorithm", "env", "wanted"), ROWS)
def test_a_preset_keeps_to_its_budget_and_traces(algorithm, env, wanted):
    learner, hparams, num_iterations, env_steps = jaxrl.preset(algorithm, env, env_steps=wanted)
    assert wanted * 0.98 <= env_steps <= wanted
    assert env_steps == (num_iterations + learner.agent.warmup) * learner.num_envs * learner.rollout_length
    assert hparams.learning_rate_iterations in (num_iterations, float("inf"))
    metrics = jax.eval_shape(lambda key: jaxrl.train(key, learner, num_iterations, hparams), jax.random.key(0))[1]
    assert min(90, num_iterations) <= len(metrics["episode_return"]) <= 130
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
    with pytest.raises(ValueError, match=r"no preset for 'dqn' on 'Pong'; there are .*dqn on CartPole-v1, "):
        jaxrl.preset("dqn", "Pong")


def test_too_few_steps_name_the_fewest():
    with pytest.raises(ValueError, match=r"steps=10 is too few: .* so give at least 1008"):
        jaxrl.preset("dqn", "CartPole-v1", env_steps=10)


# By algorithm, environment and steps asked for: num_envs, rollout_length, warm-up, iterations, environment steps, and the
# hyperparameters that are not the algorithm's defaults. Results in README were measured with these numbers.
EXPECTED = {
    ("c51", "CartPole-v1", 500_000): (
        10, 1, 1000, 48960, 499600,
        {
            "learning_rate": 5e-4, "learning_rate_iterations": 48960.0, "epsilon_iterations": 24980.0, "tau": 1.0,
            "importance_exponent_iterations": 49960.0,
        },
    ),
    ("dqn", "CartPole-v1", None): (
        8, 1, 125, 12320, 99560,
        {
            "learning_rate_iterations": 12320.0,
            "importance_exponent_iterations": 12445.0, "epsilon_iterations": 3733.5, "epsilon_end": 0.02, "tau": 0.01,
            "learning_rate": 2e-3,
        },
    ),
    ("dqn", "CartPole-v1", 500_000): (
        8, 1, 125, 62016, 497128,
        {
            "learning_rate": 2e-3, "learning_rate_iterations": 62016.0,
            "importance_exponent_iterations": 62141.0, "epsilon_iterations": 18642.3, "epsilon_end": 0.02, "tau": 0.01,
        },
    ),
    ("dqn", "Acrobot-v1", 200_000): (
        8, 1, 125, 24720, 198760,
        {
            "learning_rate_iterations": 24720.0,
            "importance_exponent_iterations": 24845.0, "epsilon_iterations": 7453.5, "epsilon_end": 0.02, "tau": 0.02,
        },
    ),
    ("dqn", "MountainCar-v0", 500_000): (
        16, 1, 62, 31008, 497120,
        {
            "learning_rate": 4e-3, "learning_rate_iterations": 31008.0, "importance_exponent_iterations": 31070.0,
            "discount": 0.98, "tau": 1.0, "epsilon_end": 0.07,
            "epsilon_iterations": 6214.0,
        },
    ),
    ("iqn", "CartPole-v1", 100_000): (
        8, 1, 125, 12320, 99560,
        {
            "learning_rate": 2e-3, "learning_rate_iterations": 12320.0, "tau": 0.02, "epsilon_end": 0.02,
            "epsilon_iterations": 3733.5, "importance_exponent_iterations": 12445.0,
        },
    ),
    ("rainbow", "CartPole-v1", 100_000): (
        8, 1, 125, 12320, 99560,
        {
            "learning_rate_iterations": 12320.0, "epsilon_iterations": float("inf"),
            "importance_exponent_iterations": 12445.0,
        },
    ),
    ("openai_es", "CartPole-v1", 1_000_000): (32, 500, 0, 62, 992000, {"learning_rate": 0.03, "noise_std": 0.1}),
    ("reinforce", "CartPole-v1", 500_000): (
        8, 500, 0, 125, 500000, {"learning_rate": 2e-3, "learning_rate_iterations": 125.0},
    ),
    ("reinforce", "Acrobot-v1", 500_000): (
        16, 32, 0, 972, 497664, {"learning_rate": 5e-3, "learning_rate_iterations": 972.0, "entropy_coef": 0.01},
    ),
    ("reinforce", "PointMass", 2_000_000): (
        16, 50, 0, 2500, 2000000, {"learning_rate": 3e-3, "learning_rate_iterations": 2500.0, "max_grad_norm": 0.5},
    ),
    ("sac", "CartPole-v1", 50_000): (
        4, 1, 125, 12320, 49780,
        {"learning_rate": 2.4e-3, "learning_rate_iterations": 12320.0, "tau": 0.02, "relative_target_entropy": 0.3},
    ),
    ("td3", "Pendulum-v1", None): (
        1, 2, 250, 9696, 19892, {"learning_rate": 2e-3, "learning_rate_iterations": 9696.0, "tau": 0.01},
    ),
    ("td3", "MountainCarContinuous-v0", None): (
        8, 2, 625, 17952, 297232,
        {"learning_rate": 1e-3, "tau": 0.01, "exploration_noise": 0.5, "noise_correlation": 0.95},
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", EXPECTED, ids=lambda row: "-".join(map(str, row)))
def test_presets_are_the_measured_ones(row):
    algorithm, env, steps = row
    learner, hparams, num_iterations, env_steps = jaxrl.preset(algorithm, env, env_steps=steps)
    *sizes, changed = EXPECTED[row]
    assert [learner.num_envs, learner.rollout_length, learner.agent.warmup, num_iterations, env_steps] == sizes
    expected = algorithms.algorithm(algorithm).hparams._replace(**changed)._asdict()
    assert hparams._asdict() == pytest.approx(expected, rel=1e-12)


def test_options_that_are_not_given_take_their_defaults():
    settings = presets.Settings("dqn", num_envs=2, rollout_length=3, network={"hidden": [8]})
    defaults = {option.name: option.default for option in algorithms.algorithm("dqn").network_options}
    assert settings.network == defaults | {"hidden": (8,)}
    assert settings.agent["batch_size"] == 128
    assert settings.agent["warmup_steps"] == 100 * 2 * 3  # the factory's 100 iterations
    assert settings.hparams == algorithms.algorithm("dqn").hparams._asdict()
    assert presets.build(settings, envs.make("CartPole-v1")).learner.agent.warmup == 100


def test_a_default_that_depends_on_the_sizes_follows_them():
    """Until it is given, also by a file that holds it."""
    default, sizes = presets.Settings("sac"), {"num_envs": 1, "rollout_length": 2}
    changed = presets.override(default, **sizes)
    assert changed == presets.Settings("sac", **sizes)
    assert (default.agent["warmup_steps"], changed.agent["warmup_steps"]) == (512_000, 2_000)
    assert presets.override(changed, num_envs=16, rollout_length=32) == default
    given = presets.override(default, agent={"warmup_steps": 512_000})
    saved = presets.Settings(**json.loads(json.dumps(dataclasses.asdict(default))))
    for settings in (given, saved):
        assert presets.override(settings, **sizes).agent["warmup_steps"] == 512_000


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("network", "dqn has no network option 'size'; it has hidden, activation, channels, "),
        ("agent", "dqn has no agent option 'size'; it has batch_size, capacity, warmup_steps, "),
        ("schedules", "dqn has no schedule 'size'; it has learning_rate_fraction, epsilon_fraction"),
        ("hparams", "dqn has no hyperparameter 'size'; it has learning_rate, "),
    ],
)
def test_an_unknown_option_is_refused_with_the_known_ones(group, message):
    with pytest.raises(ValueError, match=message):
        presets.Settings("dqn", **{group: {"size": 1}})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"agent": {"double": "false"}}, "agent.double must be true or false, got 'false'"),
        ({"agent": {"double": 1}}, "agent.double must be true or false, got 1"),
        ({"agent": {"batch_size": 1.5}}, "agent.batch_size must be an integer, got 1.5"),
        ({"agent": {"batch_size": True}}, "agent.batch_size must be an integer, got True"),
        ({"agent": {"loss": {}}}, "agent.loss must be text, got {}"),
        ({"agent": []}, r"agent must be a table of names and values, got \[\]"),
        ({"network": {"hidden": 64}}, "network.hidden must be a list of integers, got 64"),
        ({"network": {"hidden": "64"}}, "network.hidden must be a list of integers, got '64'"),
        ({"network": {"hidden": [8, 0.5]}}, r"network.hidden must be a list of integers, got \(8, 0.5\)"),
        ({"schedules": {"epsilon_fraction": "all"}}, "schedules.epsilon_fraction must be a number, got 'all'"),
        ({"hparams": {"tau": None}}, "hparams.tau must be a number, got None"),
        ({"steps": "many"}, "steps must be an integer, got 'many'"),
        ({"num_envs": 1.0}, "num_envs must be an integer, got 1.0"),
    ],
)
def test_a_value_of_another_type_is_refused_with_the_name_of_its_option(fields, message):
    with pytest.raises(TypeError, match=message):
        presets.Settings("dqn", **fields)


def test_numbers_of_numpy_are_numbers():
    hparams, network = {"tau": np.float32(0.5), "discount": 1}, {"hidden": [np.int64(8)], "dueling": np.True_}
    settings = presets.Settings("dqn", steps=np.int64(500), hparams=hparams, network=network)
    assert (settings.hparams["tau"], settings.network["hidden"], settings.steps) == (0.5, (8,), 500)


def test_sizes_are_rounded_down_to_whole_iterations():
    small = {"capacity": 1_005, "warmup_steps": 47, "batch_size": 8}
    settings = presets.Settings("dqn", steps=500, num_envs=5, rollout_length=2, network={"hidden": (8,)}, agent=small)
    learner, hparams, _, _ = presets.build(settings, envs.make("CartPole-v1"))
    assert learner.agent.warmup == 4
    state = jax.eval_shape(learner.init, jax.random.key(0), hparams)
    assert {x.shape[0] for x in jax.tree.leaves(state.agent.replay)} == {1_000}


def test_learning_rates_are_scheduled_from_the_first_update_and_exploration_from_the_warm_up():
    settings = presets.override(
        presets.DEFAULTS["dqn"], steps=1_608, agent={"warmup_steps": 800}, schedules={"epsilon_fraction": 0.5}
    )
    _, hparams, num_iterations, _ = presets.build(settings, envs.make("CartPole-v1"))
    assert num_iterations == 101
    assert hparams.learning_rate_iterations == 101
    assert hparams.epsilon_iterations == 0.5 * 201


def test_an_infinite_share_is_a_constant_and_without_a_share_the_hyperparameter_stays():
    env = envs.make("CartPole-v1")
    constant = presets.override(presets.DEFAULTS["dqn"], schedules={"learning_rate_fraction": math.inf})
    assert presets.build(constant, env).hparams.learning_rate_iterations == math.inf
    plain = presets.Settings("dqn", hparams={"epsilon_iterations": 7.0})
    assert presets.build(plain, env).hparams.epsilon_iterations == 7.0
    wrong = presets.override(presets.DEFAULTS["dqn"], schedules={"epsilon_fraction": 1.5})
    with pytest.raises(ValueError, match="epsilon_fraction is a share of the run, between 0 and 1, or inf for a constant"):
        presets.build(wrong, env)
