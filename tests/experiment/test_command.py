"""The command that a report shows gives the configuration that it describes."""

import os
import shlex

import pytest

from jaxrl import experiment
from jaxrl.cli import main
from jaxrl.experiment import Config
from jaxrl.experiment.command import train_command
from jaxrl.presets import DEFAULTS

COMMANDS = [
    "jaxrl train dqn --env CartPole-v1 --steps 4000 --seeds 16",
    "jaxrl train ppo --env CartPole-v1 --steps 500000 --seeds 3 --agent.num-envs 4 --hparams.learning-rate 1e-05",
    "jaxrl train ppo --env Acrobot-v1 --steps 20000 --seeds 1 --eval-every none --agent.no-normalize-advantage",
    "jaxrl train reinforce --env PointMass --steps 9000 --seeds 2 --seed 7 --agent.mode episodic --agent.baseline mean",
    "jaxrl train dqn --env Acrobot-v1 --wrap flatten --wrap frame_stack:2 --steps 4000 --seeds 3 --batch-size 2 "
    "--agent.double --agent.loss huber --agent.hidden none --agent.epsilon-fraction 0.5 --agent.learning-rate-fraction inf "
    "--hparams.tau 0.123456789 --sweep.discount 0.9 0.99",
    "jaxrl train sac --env Pendulum-v1 --steps 20000 --seeds 4 --num-shards 2 --deterministic --agent.hidden 32 16 "
    "--hparams.target-entropy -5e-05 --sweep.tau 0.1 0.2 --sweep.learning-rate 0.001 0.003",
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split()[2] + command.split()[4])
def test_the_command_gives_its_configuration(monkeypatch, command):
    configs = []

    def stop(config, out, **options):
        configs.append(config)
        raise ValueError("stop")

    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))  # which --deterministic changes
    monkeypatch.setattr(experiment, "run", stop)
    assert main(shlex.split(command)[1:]) == 2
    again = train_command(configs[0])
    assert main(shlex.split(again)[1:]) == 2
    assert configs[1] == configs[0]
    assert set(shlex.split(again)) <= set(shlex.split(command)), "it says nothing that need not be said"


def test_samples_cannot_be_written_as_a_command():
    config = Config("CartPole-v1", DEFAULTS["dqn"], samples=[{"tau": 0.1}])
    with pytest.raises(ValueError, match=r"train from its config\.json"):
        train_command(config)
