"""A policy outside of training acts as in training: with its wrappers, normalisation, mask and memory, and without jaxrl."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.experiment import Config, folder
from jaxrl.experiment.csv_file import CsvFile
from jaxrl.experiment.deployment import choose_run, policy_function, zero_carry
from jaxrl.experiment.export import export_policy
from jaxrl.experiment.policies import abstract_policies
from jaxrl.presets import default_settings, override
from jaxrl.running_statistics import RunningStatistics
from jaxrl.spaces import Box, Dict, Discrete, MultiDiscrete
from jaxrl.types import Environment, Step
from tests.experiment.run_folders import write_run

FLATTENED = ("discretize_actions:3", "flatten_actions")
MEMORY = ("normalize_observations", "discretize_actions:3", "observation_noise:9", "frame_stack:2", "time_aware")


def masked_environment(action_space=Discrete(4)):
    """Four actions, of which the observation says which are legal."""

    def observe():
        return {"x": jnp.zeros(3), "action_mask": jnp.ones(4, bool)}

    def step(key, state, action, params):
        return state, Step(observe(), jnp.float32(0), jnp.bool_(False), jnp.bool_(False))

    space = Dict({"x": Box(-1, 1, (3,)), "action_mask": Box(False, True, (4,), bool)})
    return Environment(lambda key, params: ((), observe()), step, (), space, action_space, "masked")


def random_policies(config, rng):
    """Policies as they are saved, with random numbers for parameters, and statistics that are possible."""

    def possible(x):
        if not isinstance(x, RunningStatistics):
            return rng.normal(size=x.shape).astype(x.dtype)
        zero = jax.tree.map(np.zeros_like, x)
        return zero._replace(
            num=rng.integers(2, 9, x.num.shape).astype(np.float32),
            mean=rng.normal(size=x.mean.shape).astype(np.float32),
            variance=rng.uniform(0.5, 2, x.mean.shape).astype(np.float32),
        )

    return jax.tree.map(possible, abstract_policies(config), is_leaf=lambda x: isinstance(x, RunningStatistics))


def make_run(run, algorithm, env, *, wrappers=(), sweep=None, **changes):
    """A run folder as after training, without training."""
    settings = override(default_settings(algorithm), num_envs=4, **changes)
    config = Config(env=env, settings=settings, wrappers=wrappers, seeds=2, seed=5, sweep=sweep or {})
    run.mkdir(parents=True, exist_ok=True)
    config.save(run / folder.CONFIG)
    folder.save_policies(run, random_policies(config, np.random.default_rng(0)))
    with CsvFile(run / folder.METRICS) as metrics:
        for step, returns in enumerate([[0.0, 3.0, 9.0, 0.0], [1.0, 2.0, np.nan, 4.0], [np.nan] * 4]):
            metrics.write(
                i | {"env_steps": step, "episode_return": value} for i, value in zip(config.identifiers(), returns, strict=False)
            )
    return config


NETWORK = {"network": {"hidden": (8,)}}
REPLAY = {"agent": {"batch_size": 8, "capacity": 64, "warmup_steps": 64}, "steps": 2000, "rollout_length": 8}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of four kinds of policies, and the configuration of each."""
    root = tmp_path_factory.mktemp("runs")
    make = jaxrl.envs.make
    masked = {"masked": masked_environment, "masked unequal": lambda: masked_environment(MultiDiscrete((3, 1)))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            jaxrl.envs,
            "make",
            lambda name, **fields: masked[name]() if name in masked else make(name, **fields),
        )
        made = {
            "values": make_run(root / "values", "dqn", "CartPole-v1", sweep={"tau": [0.1, 0.5]}, **NETWORK, **REPLAY),
            "mask": make_run(root / "mask", "dqn", "masked", **NETWORK, **REPLAY),
            "wrapped": make_run(root / "wrapped", "reinforce", "PointMass", wrappers=MEMORY, **NETWORK),
            "recurrent": make_run(root / "recurrent", "recurrent_ppo", "CartPole-v1", network={"hidden": (), "num_units": 5}),
            "repeated": make_run(root / "repeated", "reinforce", "PointMass", wrappers=("action_repeat:2", "frame_stack:2")),
            "bools": make_run(root / "bools", "dqn", "masked", wrappers=("frame_stack:2",), **NETWORK, **REPLAY),
            "unequal": make_run(root / "unequal", "ppo", "masked unequal", **NETWORK),
            "flattened": make_run(root / "flattened", "dqn", "PointMass", wrappers=FLATTENED, **NETWORK, **REPLAY),
        }
        yield {name: (root / name, config) for name, config in made.items()}


def learner_and_params(runs, name, index=0):
    run, config = runs[name]
    preset = config.preset()
    policies = folder.load_policies(run, abstract_policies(config, preset))
    return preset.learner, jax.tree.map(lambda x: np.asarray(x[index]), policies)


def test_a_policy_acts_as_its_agent_on_one_observation_and_on_a_batch(runs):
    policy = jaxrl.load_policy(runs["values"][0], seed=6, setting={"tau": 0.5})
    learner, saved = learner_and_params(runs, "values", index=3)
    obs = np.random.default_rng(1).normal(size=(50, 4))
    expected = learner.agent.exploit(saved.params, jnp.float32(obs), (), jax.random.key(0))[0]
    actions = policy.act(obs)
    assert isinstance(actions, np.ndarray)
    np.testing.assert_array_equal(actions, expected)
    assert set(actions.tolist()) == {0, 1}
    for one, action in zip(obs[:5], actions, strict=False):
        assert policy.act(one) == action
    assert policy.act(obs[0]).shape == ()
    assert (policy.seed, policy.setting, policy.algorithm, policy.env) == (6, {"tau": 0.5}, "dqn", "CartPole-v1")


def test_a_policy_with_repeated_actions_acts_as_its_agent(tmp_path):
    config = make_run(tmp_path / "run", "dqn", "CartPole-v1", wrappers=("action_repeat:3",), **NETWORK, **REPLAY)
    learner, saved = learner_and_params({"repeated": (tmp_path / "run", config)}, "repeated")
    obs = np.random.default_rng(1).normal(size=(50, 4))
    expected = learner.agent.exploit(saved.params, jnp.float32(obs), (), jax.random.key(0))[0]
    np.testing.assert_array_equal(jaxrl.load_policy(tmp_path / "run", seed=5).act(obs), expected)


def test_the_best_policy_has_the_highest_latest_return(runs):
    run, _ = runs["values"]  # the latest returns are 1, 2, 9 and 4
    assert jaxrl.load_policy(run).setting == {"tau": 0.5}
    assert jaxrl.load_policy(run).seed == 5
    assert jaxrl.load_policy(run, setting={"tau": 0.1}).seed == 6
    assert jaxrl.load_policy(run, seed=6).setting == {"tau": 0.5}


def test_large_seeds_and_small_values_are_told_apart(tmp_path):
    """They differ by less than the tolerance of NumPy's comparisons."""
    run = tmp_path / "run"
    config = write_run(run, [1.0, 2.0], seeds=3, seed=20_240_100, sweep={"tau": [1e-8, 1e-10]}, spread=0, evaluate=False)
    for i, identifier in enumerate(config.identifiers()):
        setting = {"tau": identifier["tau"]}
        assert choose_run(run, config, identifier["seed"], setting) == i
    with pytest.raises(ValueError, match="has seeds 20240100 to 20240102"):
        choose_run(run, config, 20_240_103, {})
    assert choose_run(run, config, None, {}) == 3  # the first of those with the highest latest return
    nan = float("nan")
    assert choose_run(run, config, None, {}, [nan, 5.0, nan, 3.0] + [nan] * (config.num_runs - 4)) == 1
    with pytest.raises(TypeError, match="seed must be an int, got '0'"):
        choose_run(run, config, "0", {})


def test_illegal_actions_are_never_taken(runs):
    policy = jaxrl.load_policy(runs["mask"][0])
    rng = np.random.default_rng(2)
    mask = rng.random((200, 4)) < 0.4
    mask[:, 1] |= ~mask.any(axis=1)
    actions = policy.act({"x": rng.normal(size=(200, 3)), "action_mask": mask.astype(np.int8)})  # Gymnasium's masks are int8
    assert mask[np.arange(200), actions].all()
    assert len(set(actions.tolist())) > 1


def merged(statistics):
    """Mean and variance of all environments' observations, from those of each, in NumPy."""
    num = statistics.num[:, None].astype(float)
    mean = (num * statistics.mean).sum(0) / num.sum()
    variance = (num * (statistics.variance + statistics.mean**2)).sum(0) / num.sum() - mean**2
    return mean, variance


def test_wrappers_are_part_of_the_policy(runs):
    """Episodes, compared with a loop in NumPy: normalise, stack two frames, append the time, choose one of three forces."""
    policy = jaxrl.load_policy(runs["wrapped"][0], seed=5)
    learner, saved = learner_and_params(runs, "wrapped")
    (statistics,) = [
        x
        for x in jax.tree.leaves(saved.env_state, is_leaf=lambda x: isinstance(x, RunningStatistics))
        if isinstance(x, RunningStatistics)
    ]
    mean, variance = merged(statistics)
    exploit = jax.jit(learner.agent.exploit)
    raw = np.random.default_rng(3).normal(size=(2, 6, 2)).astype(np.float32)
    chosen = []
    for episode in raw:
        policy.reset()
        frames = None
        for t, obs in enumerate(episode):
            seen = np.clip((obs - mean) / np.sqrt(variance + 1e-8), -10, 10)
            frames = [seen, seen] if frames is None else [frames[1], seen]
            limit = jaxrl.make("PointMass").params.max_steps_in_episode
            whole = np.concatenate([*frames, [1 - t / limit]]).astype(np.float32)
            chosen.append(np.asarray(exploit(saved.params, whole[None], (), jax.random.key(0))[0][0]))
            np.testing.assert_allclose(policy.act(obs), np.array([-1.0, 0.0, 1.0])[chosen[-1]], rtol=1e-6)
    assert len(np.unique(chosen, axis=0)) > 2
    assert len(policy.function.carry) == 4  # started, frames, time, previous action: no statistics


def test_a_recurrent_policy_remembers_until_it_is_reset(runs):
    policy = jaxrl.load_policy(runs["recurrent"][0], seed=5)
    learner, saved = learner_and_params(runs, "recurrent")
    obs = np.random.default_rng(4).normal(size=(12, 3, 4)).astype(np.float32)
    exploit, initial = jax.jit(learner.agent.exploit), np.asarray(learner.agent.initial_carry(3))
    carry, carries = initial, []
    for t, batch in enumerate(obs):
        action, carry = exploit(saved.params, batch, carry, jax.random.key(0))
        carry = np.asarray(carry).copy()
        carries.append(carry)
        np.testing.assert_array_equal(policy.act(batch), action)
        if t % 4 == 3:
            policy.reset([False, True, False])
            carry[1] = initial[1]
    with pytest.raises(ValueError, match=r"this policy remembers episodes, 3 at once so far; got 1: call reset\(\) first"):
        policy.act(obs[0, 0])
    policy.reset()
    assert policy.act(obs[0, 0]).shape == ()
    function = policy.function
    action, *following = function.act(jnp.asarray(obs[0]), *zero_carry(function, 3))
    np.testing.assert_allclose(following[1], carries[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("obs", "kind", "message"),
    [
        (np.zeros(3), ValueError, r"obs must have the shape \[4\], or \['B', 4\] for a batch; got \[3\]"),
        (np.zeros((2, 2, 4)), ValueError, r"got \[2, 2, 4\]"),
        (np.zeros((0, 4)), ValueError, r"got \[0, 4\]"),
        (np.zeros(4, complex), TypeError, "obs must be of dtype float32, .*got complex128"),
        ({"x": np.zeros(4)}, (TypeError, ValueError), "obs must"),
    ],
)
def test_wrong_observations_are_refused(runs, obs, kind, message):
    with pytest.raises(kind, match=message):
        jaxrl.load_policy(runs["values"][0]).act(obs)


def test_wrong_entries_are_refused(runs):
    policy = jaxrl.load_policy(runs["mask"][0])
    with pytest.raises(ValueError, match="obs must be a dict with the entries action_mask, x; got ndarray"):
        policy.act(np.zeros(3))
    with pytest.raises(ValueError, match="obs must be a dict with the entries action_mask, x; got a dict with x"):
        policy.act({"x": np.zeros(3)})
    with pytest.raises(ValueError, match="all be of one observation, or all of a batch of one size"):
        policy.act({"x": np.zeros((2, 3)), "action_mask": np.ones(4, bool)})


def test_a_policy_that_the_folder_does_not_have_is_named(runs):
    run, _ = runs["values"]
    with pytest.raises(ValueError, match=r"has seeds 5 to 6, tau 0\.1 0\.5; got seed 4$"):
        jaxrl.load_policy(run, seed=4)
    with pytest.raises(ValueError, match="sweeps tau; got a value of 'discount'"):
        jaxrl.load_policy(run, setting={"discount": 0.9})
    with pytest.raises(ValueError, match="is not a run folder"):
        jaxrl.load_policy(run / "policies")


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (("previous_action_and_reward",), "needs the rewards"),
        (("frame_stack:2", "action_repeat:2"), "frame_stack inside action_repeat"),
    ],
)
def test_wrappers_that_need_more_than_observations_are_refused(tmp_path, specs, message):
    settings = default_settings("reinforce")
    Config(env="PointMass", settings=settings, wrappers=specs).save(tmp_path / folder.CONFIG)
    with pytest.raises(ValueError, match=message):
        jaxrl.load_policy(tmp_path)


def test_the_carry_of_exploration_is_no_memory():
    """DDPG with noise that lasts has a carry, which its greedy policy does not use."""
    config = Config(env="Pendulum-v1", settings=override(default_settings("ddpg"), **REPLAY, num_envs=4), seeds=1)
    preset = config.preset()
    assert jax.tree.leaves(preset.learner.agent.initial_carry(1))
    saved = jax.tree.map(lambda x: x[0], random_policies(config, np.random.default_rng(0)))
    assert policy_function(config, preset, saved).carry == ()


ALONE = """
import sys
sys.modules["jaxrl"] = None  # import jaxrl fails
import json
import jax, numpy as np
for name in sys.argv[2:]:
    base = f"{sys.argv[1]}/{name}"
    description, arrays = json.load(open(base + ".json")), np.load(base + ".npz")
    policy = jax.export.deserialize(bytearray(open(base + ".stablehlo", "rb").read()))
    carry = [np.zeros((1000, *x["shape"][1:]), x["dtype"]) for x in description["inputs"] if x["name"].startswith("carry")]
    observations = [arrays[x["name"]] for x in description["inputs"] if x["name"].startswith("observation")]
    for t, expected in enumerate(arrays["actions"]):
        action, *carry = policy.call(*(x[t] for x in observations), *carry)
        np.testing.assert_array_equal(action, expected)
        assert [list(x.shape[1:]) for x in carry] == [x["shape"][1:] for x in description["outputs"][1:]]
    print(name, len(policy.call(*(x[0, :7] for x in observations), *(x[:7] for x in carry))[0]))
"""


def thousand_observations(policy, rng, path=None):
    """Two steps of 1,000 observations, and the actions that the loaded policy chooses."""
    policy.reset()
    if isinstance(policy.observation_space, Dict):
        mask = rng.random((2, 1000, 4)) < 0.5
        mask[..., 1] |= ~mask.any(axis=-1)
        obs = {"action_mask": mask, "x": rng.normal(size=(2, 1000, 3)).astype(np.float32)}
        steps = [{name: x[t] for name, x in obs.items()} for t in range(2)]
        named = {f"observation.{name}": x for name, x in obs.items()}
    else:
        steps = rng.normal(size=(2, 1000, *policy.observation_space.shape)).astype(np.float32)
        named = {"observation": steps}
    return named, np.stack([policy.act(obs) for obs in steps])


def test_a_program_acts_without_jaxrl(runs, tmp_path):
    rng = np.random.default_rng(5)
    for name, (run, _) in runs.items():
        assert export_policy(run, tmp_path / name, seed=5) == (tmp_path / f"{name}.stablehlo", tmp_path / f"{name}.json")
        named, actions = thousand_observations(jaxrl.load_policy(run, seed=5), rng)
        np.savez(tmp_path / f"{name}.npz", actions=actions, **named)
    done = subprocess.run([sys.executable, "-c", ALONE, tmp_path, *runs], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [word for name in runs for word in (name, "7")]


def test_the_description_says_what_goes_in_and_out(runs, tmp_path):
    _, path = export_policy(runs["wrapped"][0], tmp_path / "policy.stablehlo", seed=5)
    assert path == tmp_path / "policy.json"
    with pytest.raises(ValueError, match="holds no best policies"):
        export_policy(runs["wrapped"][0], tmp_path / "policy.stablehlo", which="best")
    description = json.loads(path.read_text())
    assert description["env"] == f"PointMass ({', '.join(MEMORY)})"
    assert description["seed"] == 5
    assert description["observation_space"] == {"type": "Box", "low": "-inf", "high": "inf", "shape": [2], "dtype": "float32"}
    assert description["action_space"] == {"type": "Box", "low": -1.0, "high": 1.0, "shape": [2], "dtype": "float32"}
    assert description["inputs"][:2] == [
        {"name": "observation", "shape": ["batch", 2], "dtype": "float32"},
        {"name": "carry.0", "shape": ["batch"], "dtype": "bool"},
    ]
    assert [x["name"] for x in description["outputs"]] == ["action", *(f"next_carry.{i}" for i in range(4))]


@pytest.mark.needs("jax2onnx", "onnxruntime")
@pytest.mark.parametrize("name", ["values", "mask", "wrapped", "recurrent", "bools", "unequal", "flattened"])
def test_onnx_acts_the_same(runs, tmp_path, name, capfd):
    import onnxruntime

    path, description = export_policy(runs[name][0], tmp_path / name, format="onnx", seed=5)
    session = onnxruntime.InferenceSession(str(path))
    assert not capfd.readouterr().err
    names = [x.name for x in session.get_inputs()]
    assert names == [x["name"] for x in json.loads(description.read_text())["inputs"]]
    assert json.loads(session.get_modelmeta().custom_metadata_map["jaxrl"]) == json.loads(description.read_text())
    policy = jaxrl.load_policy(runs[name][0], seed=5)
    observations, actions = thousand_observations(policy, np.random.default_rng(6))
    carry = zero_carry(policy.function, 1000)
    for t in range(2):
        action, *carry = session.run(None, dict(zip(names, [*(observations[n][t] for n in observations), *carry], strict=True)))
        np.testing.assert_allclose(action, actions[t], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("format", "package", "extra"), [("onnx", "jax2onnx", "onnx"), ("stablehlo", "flatbuffers", "export")])
def test_a_format_without_its_extra_is_an_error_that_names_it(runs, tmp_path, monkeypatch, format, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'jaxrl\[{extra}\]'"):
        export_policy(runs["values"][0], tmp_path / "policy", format=format)
    assert not list(tmp_path.iterdir())


def test_an_export_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxrl.experiment.export.load_policy", None)
    with pytest.raises(ValueError, match="format must be one of 'stablehlo', 'onnx'; got 'h5'"):
        export_policy(tmp_path, tmp_path / "policy", format="h5")


def test_a_place_that_cannot_be_written_is_named(runs):
    with pytest.raises(ValueError, match="cannot write /proc/nowhere/policy"):
        export_policy(runs["values"][0], Path("/proc/nowhere/policy"))
