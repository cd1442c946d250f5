"""`jaxrl compare` as a user meets it."""

import json

import pytest

from jaxrl.cli import main
from tests.experiment.run_folders import write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("compare")
    write_run(root / "[b]a", [100, 200], spread=10, sweep={"tau": [0.1, 0.2]})
    write_run(root / "c", [-300], spread=30, env="Acrobot-v1", random_seed=2, seeds=1)
    return root


def test_tables_and_sentences(runs, capsys):
    assert main(["compare", str(runs / "[b]a"), str(runs / "c")]) == 0
    printed = capsys.readouterr().out
    assert "CartPole-v1: return of the final policies" in printed
    assert "Acrobot-v1: return of the final policies" in printed
    assert "[b]a (tau=0.2)" in printed  # a name is not markup
    assert "what differs" in printed
    assert "hparams.tau" in printed
    assert "On CartPole-v1, [b]a (tau=0.2) scores higher than [b]a (tau=0.1) in 100 % of pairs" in " ".join(printed.split())
    assert "Note: No aggregate over environments of DQN (tau=0.1)" in printed


def test_json_holds_the_same(runs, capsys):
    assert main(["compare", "--json", str(runs / "[b]a"), str(runs / "c")]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert [entry["label"] for entry in found["entries"]] == ["[b]a (tau=0.1)", "[b]a (tau=0.2)", "c"]
    assert found["entries"][0]["low"] < found["entries"][0]["iqm"] < found["entries"][0]["high"]
    assert found["entries"][2]["low"] is None  # one seed
    assert len(found["entries"][0]["returns"]) == 8
    assert found["differences"]["env"] == ["CartPole-v1", "CartPole-v1", "Acrobot-v1"]
    (pair,) = found["pairs"]
    assert pair["more_than_noise"] is True
    assert pair["improvement"]["probability"] == 1
    assert "scores higher" in pair["sentence"]


def test_many_settings_go_down_the_page(tmp_path, capsys):
    write_run(tmp_path / "run", range(20), sweep={"tau": [i / 100 for i in range(20)]}, seeds=2)
    assert main(["compare", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "run (tau=0.19)" in printed
    assert "│ hparams.tau │     20 │" in printed
