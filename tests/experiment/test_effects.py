"""A hyperparameter that no run depends on is an error before anything runs."""

import pytest

from jaxrl.cli import main
from jaxrl.experiment import Config, run, tune
from jaxrl.experiment.effects import check_effects
from jaxrl.experiment.planning import plan
from jaxrl.presets import DEFAULTS, override

MUNCHAUSEN = ["munchausen_scale", "munchausen_temperature"]
PRIORITIES = ["priority_exponent", "importance_exponent", "importance_exponent_iterations"]


def config_of(algorithm, env, agent, **others):
    return Config(env=env, settings=override(DEFAULTS[algorithm], agent=agent), **others)


def without_effect(algorithm, env, agent):
    """The hyperparameters that are refused when all are set."""
    hparams = config_of(algorithm, env, agent).preset().hparams._asdict()
    config = config_of(algorithm, env, agent, hparams={name: float(value) for name, value in hparams.items()})
    try:
        check_effects(config, config.preset())
    except ValueError as error:
        return set(str(error).split(" ha")[0].split(", "))
    return set()


@pytest.mark.parametrize(
    ("algorithm", "env", "agent", "expected"),
    [
        ("dqn", "Chain", {}, MUNCHAUSEN + PRIORITIES),
        ("dqn", "Chain", {"munchausen": True}, PRIORITIES),
        ("dqn", "Chain", {"prioritized": True}, MUNCHAUSEN),
        ("qr_dqn", "Chain", {}, PRIORITIES),
        ("rainbow", "Chain", {}, []),
        ("ppo", "Chain", {}, []),
        ("reinforce", "Chain", {}, []),
        ("td3", "PointMass", {}, []),
        ("sac", "PointMass", {}, ["relative_target_entropy"]),  # of discrete actions
        ("sac", "Chain", {}, ["target_entropy"]),  # of continuous ones
        ("dqn", "gymnasium/CartPole-v1", {}, MUNCHAUSEN + PRIORITIES),  # on the host
        ("sac", "gymnasium/Pendulum-v1", {}, ["relative_target_entropy"]),
    ],
)
def test_what_an_option_switches_off_has_no_effect(algorithm, env, agent, expected):
    assert without_effect(algorithm, env, agent) == set(expected)


@pytest.mark.parametrize("how", [{"hparams": {"munchausen_scale": 0.5}}, {"sweep": {"munchausen_scale": [0.5, 0.9]}},
                                 {"samples": [{"munchausen_scale": 0.5}, {"munchausen_scale": 0.9}]}])  # fmt: skip
@pytest.mark.parametrize("start", [run, tune, lambda config, out: plan(config)])
def test_it_is_an_error_before_anything_runs(tmp_path, start, how):
    out = tmp_path / "run"
    config = config_of("dqn", "Chain", {}, **how)
    with pytest.raises(
        ValueError, match="nothing to search" if start is tune and "hparams" in how else "munchausen_scale has no effect"
    ):
        start(config, out)
    assert not out.exists()


def test_several_are_named_together():
    config = config_of("dqn", "Chain", {}, hparams=dict.fromkeys(MUNCHAUSEN, 0.5))
    message = "munchausen_scale, munchausen_temperature have no effect with these settings: leave them out, or choose"
    with pytest.raises(ValueError, match=message):
        check_effects(config, config.preset())


def test_the_command_line_says_it_in_one_line(tmp_path, capsys):
    out = tmp_path / "run"
    command = f"train dqn --env Chain --seeds 1 --hparams.priority-exponent 0.5 --out {out}"
    assert main(command.split()) == 2
    assert capsys.readouterr().err == (
        "jaxrl: error: priority_exponent has no effect with these settings: leave it out, or choose the options that use it "
        "(`jaxrl train dqn --help` lists them)\n"
    )
    assert not out.exists()
