"""docs/policies.md: its programs run, on a run folder and on what is exported from it."""

import re

import numpy as np
import pytest

import jaxrl
from jaxrl.envs import wrappers
from jaxrl.experiment import deployment
from jaxrl.experiment.export import export_policy
from tests.docs import pages
from tests.experiment.test_deployment import NETWORK, REPLAY, make_run

TEXT = pages.read("docs/policies.md")
GYMNASIUM, CONTROL, STABLEHLO, ONNX, CARRY = pages.code(TEXT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("policies")
    make_run(root / "runs" / "x", "dqn", "CartPole-v1", **NETWORK, **REPLAY)
    return root


@pytest.fixture(autouse=True)
def _there(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_a_policy_acts_in_gymnasium_and_in_a_loop(capsys):
    names = pages.run([GYMNASIUM])
    assert names["over"]
    assert float(capsys.readouterr().out) == names["total"] >= 8
    pages.run([CONTROL], names)
    assert capsys.readouterr().out.split() == [str(int(names["policy"].act(np.zeros(4))))] * 3
    assert names["late"] in range(4)


def test_the_exported_program_acts(folder):
    export_policy("runs/x", folder / "policy")
    expected = jaxrl.load_policy("runs/x").act(np.zeros((1, 4)))
    names = pages.run([STABLEHLO])
    np.testing.assert_array_equal(names["action"], expected)
    pages.run([CARRY], names)
    np.testing.assert_array_equal(names["action"], expected)
    assert names["carry"] == []


@pytest.mark.needs("jax2onnx", "onnxruntime")
def test_the_exported_onnx_acts(folder):
    export_policy("runs/x", folder / "policy", format="onnx")
    names = pages.run([ONNX])
    np.testing.assert_array_equal(names["action"], jaxrl.load_policy("runs/x").act(np.zeros((1, 4))))


def test_the_table_names_wrappers_that_exist():
    named = set(re.findall(r"`(\w+)`", TEXT.partition("| wrapper")[2].partition("\n\n")[0]))
    assert len(named) > 10
    assert all(hasattr(wrappers, name) for name in named)
    assert named >= deployment._WITH_MEMORY
    assert {"observation_noise", "sticky_actions"} <= deployment._LEFT_OUT
