"""The outputs of every algorithm's network: what the agent acts by, differentiable in the observation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import explain
from jaxrl.algorithms import ALGORITHMS
from jaxrl.policies import policy_head
from jaxrl.presets import DEFAULTS, override
from jaxrl.settings import options_of_agent
from jaxrl.types import Box, Dict, Discrete, Environment, MultiDiscrete

OBSERVATIONS = Box(-1, 1, (3,))
MASKED = Dict({"action_mask": Box(False, True, (3,), bool), "position": OBSERVATIONS})
ACTIONS = {Discrete: Discrete(3), MultiDiscrete: MultiDiscrete((2, 3)), Box: Box(np.array([-1.0, 2.0]), 4.0, (2,))}
CASES = [(name, entry.action_spaces[-1], {}) for name, entry in ALGORITHMS.items() if name not in ("c51", "iqn", "rainbow")]
ALIKE = ("a2c", "ddpg", "pqn", "rainbow")  # in the table, they have the function of another one
CASES += [
    ("ppo", Discrete, {"normalize_observations": True}), ("ppo", Box, {"squash": True, "normalize_observations": True}),
    ("reinforce", MultiDiscrete, {"baseline": "value"}), ("sac", Discrete, {}), ("c51", Discrete, {"v_min": -3.0, "v_max": 1.0}),
    ("iqn", Discrete, {"num_policy_quantiles": 5}), ("rainbow", Discrete, {"noisy": False}),
]  # fmt: skip


def environment(observation_space, action_space) -> Environment:
    return Environment(None, None, (), observation_space, action_space, "none")  # type: ignore[arg-type]


def agent_of(name, env, options):
    """The agent, its network, and random policy parameters."""
    entry = ALGORITHMS[name]
    width: dict = {"hidden": (5,)} | ({"num_units": 4} if name == "recurrent_ppo" else {})
    network_options = {option.name: option.default for option in entry.network_options} | width
    agent_options = {option.name: option.default for option in options_of_agent(entry)} | options
    network = entry.network(env, network_options, agent_options)
    sizes = {"capacity": 8, "batch_size": 2, "warmup": 1} if "capacity" in agent_options else {}
    agent = entry.factory(network, env.action_space, **sizes, **options)
    obs = jax.tree.map(lambda x: jnp.ones((4, *x.shape), x.dtype), jaxrl.spaces.spec(env.observation_space))
    shapes = jax.eval_shape(lambda: agent.policy(agent.init(jax.random.key(0), obs, agent.hparams)))
    rng = np.random.default_rng(len(name))
    params = jax.tree.map(lambda x: rng.normal(0, 0.7, size=x.shape).astype(x.dtype), shapes)
    if hasattr(params, "scale"):
        params = params._replace(scale=params.scale._replace(deviation=np.exp(params.scale.deviation)))
    return agent, network, params


def greedy(action_space, action):
    """The greedy action of outputs `[k]`."""
    if isinstance(action_space, Box):
        return np.clip(action, action_space.low, action_space.high)
    if isinstance(action_space, Discrete):
        return np.argmax(action)
    return np.array([np.argmax(part) for part in np.split(action, np.cumsum(action_space.nvec)[:-1])])


def test_every_algorithm_is_tested():
    assert {name for name, _, _ in CASES} == set(ALGORITHMS)


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [pytest.param(*case, marks=[pytest.mark.slow] if case[0] in ALIKE else []) for case in CASES],
    ids=lambda x: getattr(x, "__name__", str(x)),
)
def test_the_agent_acts_by_its_outputs(name, kind, options):
    env = environment(OBSERVATIONS, ACTIONS[kind])
    agent, network, params = agent_of(name, env, options)
    outputs = explain.policy_outputs(name, network, env.action_space, **options)
    obs = np.random.default_rng(0).uniform(-1, 1, (4, 3)).astype(np.float32)
    actions, _ = jax.jit(agent.exploit)(params, obs, agent.initial_carry(4), jax.random.key(0))
    found = jax.jit(jax.vmap(lambda o: outputs.apply(params, o)))(obs)
    for action, own in zip(np.asarray(actions), np.asarray(found.action), strict=True):
        np.testing.assert_allclose(greedy(env.action_space, own), action, atol=1e-5)
    assert (outputs.kind == "action") == (kind is Box)
    sizes = {Discrete: 3, MultiDiscrete: 5, Box: 2}
    assert found.action.shape == (4, sizes[kind])
    if outputs.kind == "action values":
        np.testing.assert_array_equal(found.value, found.action.max(axis=-1))
    slope = jax.jit(jax.grad(lambda o: jnp.sum(jnp.square(outputs.apply(params, o).action))))(obs[0])
    assert np.all(np.isfinite(slope))
    assert np.any(slope != 0)


def test_values_are_those_of_the_network_and_of_normalised_observations():
    env = environment(OBSERVATIONS, ACTIONS[Discrete])
    _, network, params = agent_of("ppo", env, {"normalize_observations": True})
    obs = jnp.array([0.3, -0.2, 0.9])
    scale = params.scale
    seen = np.clip((obs - scale.mean - scale.mean_compensation) / scale.deviation, -10, 10)
    logits, value = network.apply(params.policy, seen[None])
    outputs = explain.policy_outputs("ppo", network, env.action_space, normalize_observations=True)
    found = outputs.apply(params, obs)
    np.testing.assert_allclose(found.action, logits[0], rtol=1e-5)
    np.testing.assert_allclose(found.value, value[0], rtol=1e-5)
    probabilities = explain.action_probabilities(outputs, params, env.action_space, obs)
    np.testing.assert_allclose(probabilities, np.exp(logits[0]) / np.exp(logits[0]).sum(), rtol=1e-5)


def test_the_carry_of_a_recurrent_policy():
    env = environment(OBSERVATIONS, ACTIONS[Discrete])
    _, network, params = agent_of("recurrent_ppo", env, {})
    outputs = explain.policy_outputs("recurrent_ppo", network, env.action_space)
    obs, carry = jnp.array([0.3, -0.2, 0.9]), jnp.linspace(-1, 1, network.num_units)
    (logits, value), _ = network.apply(params, obs[None], carry[None])
    found = outputs.apply(params, obs, carry)
    np.testing.assert_allclose(found.action, logits[0], rtol=1e-5)
    np.testing.assert_allclose(found.value, value[0], rtol=1e-5)
    fresh = outputs.apply(params, obs)
    assert np.abs(fresh.action - found.action).max() > 1e-3
    np.testing.assert_array_equal(fresh.action, outputs.apply(params, obs, jnp.zeros(network.num_units)).action)


def test_illegal_actions():
    env = environment(MASKED, ACTIONS[Discrete])
    _, network, params = agent_of("dqn", env, {})
    outputs = explain.policy_outputs("dqn", network, env.action_space)
    obs = {"action_mask": jnp.array([True, False, True]), "position": jnp.array([0.3, -0.2, 0.9])}
    found = outputs.apply(params, obs)
    assert found.action[1] == -np.inf
    assert np.isfinite(found.value)
    slope = explain.gradient(lambda o: outputs.apply(params, o).value, obs)
    assert np.all(slope["action_mask"] == 0)
    assert np.all(np.isfinite(slope["position"]))
    assert np.any(slope["position"] != 0)
    probabilities = explain.action_probabilities(outputs, params, env.action_space, obs)
    np.testing.assert_array_equal(probabilities, np.arange(3) == np.argmax(found.action))


def test_settings_build_the_same_network():
    env = environment(OBSERVATIONS, ACTIONS[Box])
    settings = override(DEFAULTS["ppo"], network={"hidden": (5,)}, agent={"squash": True})
    _, network, params = agent_of("ppo", env, {"squash": True})
    policy, _ = network.clone(actor=network.actor.clone(hidden=(5,))).apply(params, jnp.ones((1, 3)))
    head = policy_head(env.action_space, squash=True)
    found = explain.outputs_of_settings(settings, env).apply(params, jnp.ones(3))
    np.testing.assert_allclose(found.action, head.to_action(head.mode(policy))[0], atol=1e-5)


def test_wrong_arguments(monkeypatch):
    network = jaxrl.networks.q_network(OBSERVATIONS, Discrete(3))
    with pytest.raises(ValueError, match="unknown algorithm 'trpo'"):
        explain.policy_outputs("trpo", network, Discrete(3))
    with pytest.raises(ValueError, match="dqn needs a Discrete action space, got Box"):
        explain.policy_outputs("dqn", network, ACTIONS[Box])
    box = explain.policy_outputs("sac", jaxrl.networks.actor_critic(OBSERVATIONS, ACTIONS[Box]), ACTIONS[Box])
    with pytest.raises(ValueError, match="action_probabilities needs a Discrete action space"):
        explain.action_probabilities(box, (), ACTIONS[Box], jnp.ones(3))
    monkeypatch.setitem(ALGORITHMS, "dqn", ALGORITHMS["dqn"]._replace(outputs=None))
    with pytest.raises(ValueError, match=r"dqn cannot be explained.*add one of jaxrl\.outputs"):
        explain.policy_outputs("dqn", network, Discrete(3))
