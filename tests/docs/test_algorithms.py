"""docs/algorithms.md: its algorithms are complete, keep the contract and learn, and its error messages are the real ones."""

import ast
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import algorithms, presets
from jaxrl.types import Agent, Box, Dict, Discrete, Environment, Step
from tests.agents import test_contract
from tests.docs import pages

TEXT = pages.read("docs/algorithms.md")
BLOCKS = pages.code(TEXT)
FAILING = re.findall(r"```python\n([^`]*)```\s*```text\n(.*?)```", TEXT, re.DOTALL)
A2C, CARTPOLE, BATCHED, SOFT_Q, PROBE, RECURRENT, MEMORY, TABLE = [b for b in BLOCKS if b not in [code for code, _ in FAILING]]


def run(block, names):
    return pages.run([block], names)


@pytest.fixture(scope="module")
def names():
    """What the blocks that define the algorithms leave behind."""
    return run(RECURRENT, run(SOFT_Q, run(A2C, {})))


@pytest.fixture(scope="module")
def cartpole(names):
    """The page's own run."""
    return run(CARTPOLE, dict(names))


def agent_of(names, name, env):
    spaces = env.observation_space, env.action_space
    if name == "recurrent_a2c":
        network = jaxrl.networks.recurrent_policy(*spaces, value=True, hidden=(), num_units=8)
        return names["recurrent_a2c"](network, env.action_space)
    if name == "a2c":
        return names["a2c"](jaxrl.networks.policy(*spaces, value=True, hidden=(8,)), env.action_space)
    return names["soft_q"](jaxrl.networks.q_network(*spaces, hidden=(8,)), env.action_space, capacity=64, batch_size=16)


@pytest.fixture(params=["a2c", "soft_q", "recurrent_a2c"], scope="module")
def learner(request, names):
    env = jaxrl.envs.probes.action_and_observation().env
    return jaxrl.make_learner(env, agent_of(names, request.param, env), num_envs=4, rollout_length=2)


@pytest.fixture(scope="module")
def settings(hparams):
    return test_contract.varied(hparams, 3)


# These run on the fixtures of this file.
hparams = test_contract.hparams
train = test_contract.train
train_batch = test_contract.train_batch
test_a_step_keeps_shapes_dtypes_and_strong_types = test_contract.test_a_step_keeps_shapes_dtypes_and_strong_types
test_runs_in_a_batch_equal_each_alone = test_contract.test_runs_in_a_batch_equal_each_alone
test_no_key_is_used_twice = test_contract.test_no_key_is_used_twice


def test_the_actor_critic_learns_cart_pole(cartpole):
    """Sixteen other seeds had mean returns of 158 to 500, eleven of them 500; random actions have 22."""
    assert np.asarray(cartpole["returns"]).mean() > 100


def test_seeds_and_hyperparameters_are_batched(cartpole):
    loss = run(BATCHED, dict(cartpole))["loss"]
    assert loss.shape == (3, 2)
    assert np.isfinite(loss).all()
    assert len(set(np.asarray(loss)[:, 0].tolist())) == 3


def test_the_q_learner_finds_the_values_of_the_probe(names):
    scope = run(PROBE, dict(names))
    np.testing.assert_allclose(scope["q"], scope["probe"].q, atol=0.05)


@pytest.mark.parametrize("case", range(len(FAILING)))
def test_the_error_messages_are_the_real_ones(names, case):
    block, said = FAILING[case]
    scope = dict(names)
    exec(CARTPOLE.partition("state, metrics")[0], scope)
    kind, _, message = " ".join(said.split()).partition(": ")
    with pytest.raises((TypeError, ValueError)) as error:
        run(block, scope)
    assert type(error.value).__name__ == kind
    assert " ".join(str(error.value).split()) == message


@pytest.mark.parametrize("name", ["a2c", "soft_q"])
def test_illegal_actions_are_never_taken_and_harm_nothing(names, name):
    """One step, in which action 1 of 3 is legal; after it none is."""

    def observe(time):
        return {"x": jnp.ones(1), "action_mask": jnp.array([False, True, False]) & (time == 0)}

    def reset(key, params):
        return jnp.int32(0), observe(jnp.int32(0))

    def step(key, state, action, params):
        return state + 1, Step(observe(state + 1), action.astype(jnp.float32), jnp.bool_(True), jnp.bool_(False))

    space = Dict({"x": Box(0, 1, (1,)), "action_mask": Box(False, True, (3,), bool)})
    env = Environment(reset, step, (), space, Discrete(3), "one legal action")
    agent = agent_of(names, name, env)
    learner = jaxrl.make_learner(env, agent, num_envs=4, rollout_length=2)
    state, metrics = jax.jit(lambda key: jaxrl.train(key, learner, 4, log_every=1))(jax.random.key(0))
    np.testing.assert_array_equal(metrics["episode_return"], 1)
    np.testing.assert_array_equal(jaxrl.evaluate(jax.random.key(1), learner, state, num_episodes=3), 1)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((metrics, state.agent.params)))


@pytest.mark.parametrize("value", [float("nan"), -1.0])
def test_the_actor_critic_refuses_hyperparameters_out_of_range(names, value):
    env = jaxrl.envs.probes.action_and_observation().env
    agent = agent_of(names, "a2c", env)
    assert names["_RANGES"].keys() == set(agent.hparams._fields)
    for field in agent.hparams._fields:
        wrong = agent.hparams._replace(**{field: value})
        with pytest.raises(ValueError, match=rf"hparams\.{field} must lie in"):
            agent.init(jax.random.key(0), jnp.zeros((4, 2)), wrong)
        with pytest.raises(ValueError, match=rf"hparams\.{field} must lie in"):
            names["a2c"](None, env.action_space, hparams=wrong)


def test_the_actor_critic_refuses_a_network_without_a_value(names):
    env = jaxrl.envs.probes.action_and_observation().env
    agent = names["a2c"](jaxrl.networks.policy(env.observation_space, env.action_space), env.action_space)
    with pytest.raises(ValueError, match=r"a2c: the network must return shapes .* Build it with jaxrl\.networks\.policy"):
        jaxrl.make_learner(env, agent, num_envs=4, rollout_length=2)


def test_the_row_of_the_table_makes_it_an_algorithm(names, monkeypatch):
    monkeypatch.setattr(jaxrl.agents, "a2c", names["a2c"])
    entry = run("entry = " + TABLE, dict(vars(algorithms)))["entry"]
    assert [(option.name, option.default) for option in entry.agent_options] == [("normalize_advantage", True)]
    assert all(option.help for option in entry.agent_options + entry.network_options)
    assert "value" not in [option.name for option in entry.network_options]
    assert entry.hparams_help.keys() == set(entry.hparams._fields)
    monkeypatch.setitem(algorithms.ALGORITHMS, "a2c", entry)
    monkeypatch.delitem(presets.DEFAULTS, "a2c")  # the package's own
    settings = presets.override(presets.default_settings("a2c"), steps=1024, network={"hidden": (8,)})
    env = jaxrl.envs.probes.action_and_observation().env
    assert presets.build(settings, env).hparams == entry.hparams  # nothing is scheduled
    scheduled = presets.override(settings, schedules={"learning_rate_fraction": 0.5})
    assert presets.build(scheduled, env).hparams.learning_rate_iterations == 1.0  # of two


def test_the_page_names_every_module_that_the_agents_import():
    intro = TEXT.partition("## An actor-critic")[0]
    files = (Path(jaxrl.__file__).parent / "agents").glob("_*.py")
    imports = [node for file in files for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
    modules = {node.module.split(".")[1] for node in imports if (node.module or "").startswith("jaxrl.")} - {"agents"}
    assert {"checks", "minibatches", "noise"} <= modules
    assert modules <= {name.removeprefix("jaxrl.") for name in re.findall(r"`([\w.]+)`", intro)}


def test_the_page_lists_every_field_of_an_agent():
    assert re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE) == list(Agent._fields)


def test_the_skeletons_need_no_private_import():
    imports = [line for block in BLOCKS for line in block.splitlines() if re.match(r"(import|from) ", line)]
    assert imports
    assert not [line for line in imports if re.search(r"[ .]_", line)]


def test_the_recurrent_one_remembers(names):
    scope = run(MEMORY, dict(names))
    np.testing.assert_array_equal(scope["memory_returns"], 1)
