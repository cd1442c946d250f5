"""C51, QR-DQN, IQN and Rainbow: one update against NumPy and finite differences, their noise, and known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

import jaxrl
from jaxrl import agents, replay
from jaxrl.agents import QHParams
from jaxrl.envs.problems import probes
from jaxrl.types import Box, Discrete
from tests.agents.test_q_learning import ALPHA, BETA, BETA_ITERATIONS, CAPACITY, EPS, GAMMA, WARMUP, Loop, newest, ragged
from tests.losses import oracles
from tests.precision import tolerance
from tests.problems import distributional_learner, distributional_network, endless

NUM_ENVS, NUM_STEPS = 3, 2
NUM_ACTIONS, NUM_ATOMS, NUM_QUANTILES = 3, 5, 4
V_MIN, V_MAX = -1.5, 2.0
LEVELS = (np.arange(NUM_ATOMS) + 0.5) / NUM_ATOMS

# --- one update from its equations: networks without hidden layers as functions of a dict of float64 arrays


def linear(layer, x, noise=None):
    """A dense layer for observations `[N, 2]`; with noise, a pair (f(ε_in), f(ε_out)), that of Fortunato et al. (2018), eq. 9."""
    kernel, bias = layer["kernel"], layer["bias"]
    if noise is not None:
        kernel = kernel + layer["kernel_scale"] * np.outer(*noise)
        bias = bias + layer["bias_scale"] * noise[1]
    return x @ kernel + bias


def atoms_of(params, obs, _):
    return linear(params["mlp"]["Dense_0"], obs).reshape(-1, NUM_ACTIONS, NUM_ATOMS)


def dueling_atoms_of(params, obs, noise):
    first, second = np.split(noise, [2 + NUM_ATOMS])
    value, advantage = (
        linear(params[f"NoisyDense_{i}"], obs, (x[:2], x[2:])).reshape(len(obs), -1, NUM_ATOMS)
        for i, x in enumerate((first, second))
    )
    return value + advantage - advantage.mean(axis=1, keepdims=True)


def quantiles_of(params, obs, tau):
    tau = np.broadcast_to(tau, (len(obs), np.shape(tau)[-1]))
    cosines = np.cos(np.pi * tau[..., None] * np.arange(6))
    features = obs[:, None] * np.maximum(linear(params["embedding"], cosines), 0)
    return np.swapaxes(linear(params["Dense_0"], features), 1, 2)


def categorical(params, inputs, outputs, transition, noise, double):
    of_obs, of_next, selector = inputs(outputs, params, noise, double)
    atoms = np.linspace(V_MIN, V_MAX, NUM_ATOMS)
    names = ("a_tm1", "r_t", "discount_t")
    given = dict(zip(names, transition, strict=True)) | {"q_logits_tm1": of_obs, "q_logits_t": of_next, "atoms": atoms}
    return oracles.categorical_double_q_learning(**given, q_logits_t_selector=selector)


def quantile(params, inputs, outputs, transition, noise, double):
    of_obs, of_next, selector = inputs(outputs, params, noise, double)
    given = dict(zip(("a_tm1", "r_t", "discount_t"), transition, strict=True))
    given |= {"q_quantiles_tm1": of_obs, "q_quantiles_t": of_next, "q_quantiles_t_selector": selector}
    return oracles.quantile_q_learning(**given)


def implicit(params, inputs, outputs, transition, noise, double):
    tau_tm1, tau_t = np.split(noise[0], 2, axis=-1)
    of_obs, of_next, selector = inputs(outputs, params, (tau_tm1, tau_t, LEVELS), double)
    given = dict(zip(("a_tm1", "r_t", "discount_t"), transition, strict=True)) | {"tau_tm1": tau_tm1}
    given |= {"q_quantiles_tm1": of_obs, "q_quantiles_t": of_next, "q_quantiles_t_selector": selector}
    return oracles.implicit_quantile_q_learning(**given)


CASES = {  # the agent, its options, the loss of each transition, the outputs of its network
    "c51, three steps, double": ("c51", {"n_step": 3, "double": True, "v_min": V_MIN, "v_max": V_MAX}, categorical, atoms_of),
    "qr_dqn, two steps": ("qr_dqn", {"n_step": 2}, quantile, atoms_of),
    "iqn": ("iqn", {}, implicit, quantiles_of),
    "iqn, double": ("iqn", {"double": True}, implicit, quantiles_of),
    "rainbow": ("rainbow", {"v_min": V_MIN, "v_max": V_MAX}, categorical, dueling_atoms_of),
}
HPARAMS = {
    "discount": GAMMA, "learning_rate": 1.0, "tau": 0.25, "priority_exponent": ALPHA, "importance_exponent": BETA,
    "importance_exponent_iterations": BETA_ITERATIONS,
}  # fmt: skip


def gradient(function, params, step=1e-6):
    """By central differences, for a tree of float64 arrays."""
    leaves, structure = jax.tree.flatten(params)
    result = [np.zeros_like(x) for x in leaves]
    for leaf, slopes in zip(leaves, result, strict=True):
        for i in np.ndindex(leaf.shape):
            value, ends = leaf[i], []
            for sign in (1, -1):
                leaf[i] = value + sign * step
                ends.append(function(params))
            leaf[i] = value
            slopes[i] = (ends[0] - ends[1]) / (2 * step)
    return jax.tree.unflatten(structure, result)


def float64(params):
    return jax.tree.map(lambda x: np.array(x, np.float64), params["params"])


@pytest.mark.parametrize("name", CASES)
def test_an_update_descends_on_the_loss_of_the_paper(name):
    """With a target network that differs, n-step targets over ragged episodes and, for Rainbow, weights and priorities."""
    agent, static, loss, outputs = CASES[name]
    learner = distributional_learner(
        agent, ragged(), num_envs=NUM_ENVS, rollout_length=NUM_STEPS, hidden=(), num_atoms=NUM_ATOMS, optimizer=optax.sgd,
        capacity=CAPACITY, warmup=WARMUP, batch_size=16, **static,
    )  # fmt: skip
    is_rainbow = agent == "rainbow"
    hparams = jax.tree.map(jnp.float32, learner.agent.hparams._replace(**HPARAMS))
    state = jax.jit(learner.init)(jax.random.key(0), hparams)
    rng, rows_of = np.random.default_rng(1), lambda state: state.replay.rows if is_rainbow else state.replay
    perturbed = jax.tree.map(lambda x: x + jnp.float32(2.0 * rng.normal(size=x.shape)), state.agent.params)
    state = state._replace(agent=state.agent._replace(target_params=perturbed))
    loop = Loop(np.zeros(1), n_step=3 if is_rainbow else static.get("n_step", 1), prioritized=is_rainbow)
    for iteration in range(WARMUP):
        loop.store(newest(rows_of(state.agent), iteration))
    if is_rainbow:  # other weights than 1
        td_error = rng.uniform(0.1, 3.0, size=12)
        buffer = jax.jit(replay.prioritized.update)(state.agent.replay, jnp.arange(12), jnp.float32(td_error), alpha=1.0, eps=0.0)
        state = state._replace(agent=state.agent._replace(replay=buffer))
        loop.priority[:12], loop.largest = td_error, max(1.0, td_error.max())
    noise = jax.jit(learner.noise)(jax.random.key(1))
    after, metrics = jax.jit(learner.step)(state, noise, hparams, jnp.int32(WARMUP))
    loop.store(newest(rows_of(after.agent), WARMUP))
    sample, learning = noise.update
    rows, weights = loop.draw(np.asarray(sample[0]).astype(np.int64), WARMUP)
    obs, action, reward, discount, next_obs = (np.array(x) for x in zip(*(loop.transition(row) for row in rows), strict=True))
    drawn = [np.asarray(x[0], np.float64) for x in jax.tree.leaves(learning)] or [None] * 3
    old, target = float64(state.agent.params), float64(state.agent.target_params)
    double = is_rainbow or static.get("double", False)

    def inputs(outputs, params, noise, double):
        online, of_target, selector = noise
        of_selector = selector if double or agent == "iqn" else of_target
        selecting = old if double else target
        return outputs(params, obs, online), outputs(target, next_obs, of_target), outputs(selecting, next_obs, of_selector)

    each = lambda params, double=double: loss(params, inputs, outputs, (action, reward, discount), drawn, double)
    assert np.any(np.abs(each(old) - each(old, not double)) > 0.01)  # the networks select different actions
    slopes = gradient(lambda params: np.mean(weights * each(params)), old)
    new = float64(after.agent.params)
    jax.tree.map(lambda x, y, slope: np.testing.assert_allclose(x - y, -slope, **tolerance(1e-3, 1e-5)), new, old, slopes)
    jax.tree.map(
        lambda x, y, z: np.testing.assert_allclose(x, 0.25 * y + 0.75 * z, rtol=1e-5, atol=1e-6),
        float64(after.agent.target_params), new, target,
    )  # fmt: skip
    np.testing.assert_allclose(np.mean(metrics["loss"]), np.mean(weights * each(old)), **tolerance(1e-4))
    first_noise = np.split(drawn[0], 2, axis=-1)[0] if agent == "iqn" else drawn[0]
    chosen = outputs(old, obs, first_noise)[np.arange(len(action)), action]
    means = (
        scipy.special.softmax(chosen, axis=-1) @ np.linspace(V_MIN, V_MAX, NUM_ATOMS) if loss is categorical else chosen.mean(-1)
    )
    np.testing.assert_allclose(np.mean(metrics["q"]), np.mean(means), **tolerance(1e-4))
    if is_rainbow:
        assert len(np.unique(weights.round(3))) > 3
        priority = np.asarray(after.agent.replay.sums[0])
        for row in set(rows.tolist()):
            expected = ((each(old)[rows == row] + EPS) ** ALPHA).max()
            np.testing.assert_allclose(priority[row], expected, **tolerance(1e-4))


# --- greedy actions are those of the largest mean


def stub(outputs):
    """A network with these outputs for every observation."""
    outputs = jnp.float32(outputs)
    apply = lambda params, obs, *_: jnp.broadcast_to(outputs, (obs.shape[0], *outputs.shape))
    return jaxrl.networks.Ensemble(lambda key, *_: {}, apply)


STUBS = {
    # Of atoms 0, 5 and 10, the mode of action 0 is the largest; its mean is 4.5, that of action 1 is 5.5.
    "c51": ({"v_min": 0.0, "v_max": 10.0}, [[0.0, -9.0, -0.2], [-2.0, 0.0, -1.3], [-np.inf] * 3]),
    # The medians are 3, 2 and −∞, the means 2, 4 and −∞.
    "qr_dqn": ({}, [[0.0, 3.0, 3.0], [0.0, 2.0, 10.0], [-np.inf] * 3]),
    "iqn": ({"num_policy_quantiles": 3}, [[0.0, 3.0, 3.0], [0.0, 2.0, 10.0], [-np.inf] * 3]),
}


@pytest.mark.parametrize("name", STUBS)
def test_the_greedy_action_has_the_largest_mean(name):
    options, outputs = STUBS[name]
    agent, obs = getattr(agents, name)(stub(outputs), Discrete(3), **options), jnp.zeros((4, 2))
    assert agent.exploit({}, obs, (), jax.random.key(0))[0].tolist() == [1, 1, 1, 1]
    noise = jax.tree.map(lambda x: x[0], agent.noise(jax.random.key(0), 1, 4).act)
    hparams = QHParams(epsilon_start=0.0, epsilon_end=0.0)
    assert agent.explore({}, obs, (), noise, hparams, jnp.int32(0))[0].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(("value", "best"), [(0.49, 0), (0.51, 1)])
def test_the_levels_of_iqns_policy_are_the_midpoints(value, best):
    """The quantiles of action 0 are the levels themselves, whose mean is then 1/2; those of action 1 are all the same."""

    def apply(params, obs, tau):
        tau = jnp.broadcast_to(tau, (obs.shape[0], tau.shape[-1]))
        return jnp.stack([tau, jnp.full_like(tau, value)], axis=1)

    network = jaxrl.networks.Ensemble(lambda key, *_: {}, apply)
    agent = agents.iqn(network, Discrete(2), num_policy_quantiles=8)
    assert agent.exploit({}, jnp.zeros((3, 2)), (), jax.random.key(0))[0].tolist() == [best] * 3


# --- noise


def test_noise_differs_between_updates_networks_steps_and_environments():
    learner = distributional_learner("rainbow", updates_per_iteration=3)
    noise = learner.agent.noise(jax.random.key(0), 2, 4)
    _, (acting,) = noise.act
    _, ((online,), (target,), (selector,)) = noise.update
    units = online.shape[-1]
    assert acting.shape == (2, 4, units)
    assert online.shape == target.shape == selector.shape == (3, units)  # one for the whole batch of each update
    everything = np.concatenate([np.ravel(x) for x in (acting, online, target, selector)])
    assert len(np.unique(everything)) > 0.999 * everything.size


def test_exploring_is_noisy_and_exploiting_is_not():
    learner = distributional_learner("rainbow", num_envs=64, capacity=512)
    state = jax.jit(learner.init)(jax.random.key(0), learner.agent.hparams)
    params = {"params": jax.tree_util.tree_map_with_path(
        lambda path, x: 30 * x if "scale" in jax.tree_util.keystr(path) else x, state.agent.params["params"]
    )}  # fmt: skip
    obs = jnp.tile(state.obs[:1], (64, 1))
    noise = jax.tree.map(lambda x: x[0], learner.agent.noise(jax.random.key(1), 1, 64).act)
    explored = jax.jit(learner.agent.explore)(params, obs, (), noise, learner.agent.hparams, jnp.int32(0))[0]
    assert 8 < np.sum(explored) < 56  # not all of them alike, although ε is 0
    for seed in range(3):
        action = learner.agent.exploit(params, obs, (), jax.random.key(seed))[0]
        np.testing.assert_array_equal(action, learner.agent.exploit(state.agent.params, obs, (), jax.random.key(9))[0])


# --- known answers


def action_values(name, learner, params, obs):
    """The means of what the network predicts."""
    network = distributional_network(name, learner.env, hidden=(16,), num_atoms=11)
    if name == "iqn":
        return jnp.mean(network.apply(params, obs, (jnp.arange(32.0) + 0.5) / 32), axis=-1)
    outputs = network.apply(params, obs)
    return jnp.mean(outputs, axis=-1) if name == "qr_dqn" else jaxrl.losses.categorical_mean(outputs, jnp.linspace(-1.0, 3.0, 11))


@pytest.mark.parametrize("name", ["c51", "qr_dqn", "iqn", "rainbow"])
def test_action_values_of_the_probe_with_illegal_actions(name):
    """Returns are certain, so the mean is exact; −∞ for illegal actions; a bootstrap from these would lift 1.25 to 2.

    One-step targets, since those of several steps are returns of the exploring policy.
    """
    probe = probes.action_mask()
    support = {"v_min": -1.0, "v_max": 3.0, "n_step": 1} if name in ("c51", "rainbow") else {}
    learner = distributional_learner(name, probe.env, num_envs=8, warmup=8, capacity=512, batch_size=32, num_atoms=11, **support)
    hparams = learner.agent.hparams._replace(
        learning_rate=0.02, discount=probe.discount, tau=0.1, epsilon_start=1.0, epsilon_end=0.5, learning_rate_iterations=600.0
    )

    def run(key):
        state, _ = jaxrl.train(key, learner, 600, hparams)
        return action_values(name, learner, state.agent.params, probe.obs)

    q = jax.jit(run)(jax.random.key(0))
    np.testing.assert_array_equal(np.isneginf(q), np.isneginf(probe.q))
    np.testing.assert_allclose(q, probe.q, atol=0.1)


@pytest.mark.parametrize(("v_max", "expected"), [(24.0, 20.0), (15.0, 15.0)])
def test_the_support_bounds_the_values_of_c51(v_max, expected):
    """Never terminates, reward 2, limit 10, γ = 0.9: Q = 20, with three-step targets too, and at most the largest atom."""
    learner = distributional_learner(
        "c51", endless(reward=2.0, limit=10), hidden=(), num_atoms=13, n_step=3, v_min=0.0, v_max=v_max
    )
    hparams = learner.agent.hparams._replace(learning_rate=0.3, learning_rate_iterations=800.0, discount=0.9, tau=0.1)
    network = distributional_network("c51", learner.env, hidden=(), num_atoms=13)

    def run(key):
        logits = network.apply(jaxrl.train(key, learner, 800, hparams)[0].agent.params, jnp.ones((1, 1)))
        return jaxrl.losses.categorical_mean(logits, jnp.linspace(0.0, v_max, 13))

    np.testing.assert_allclose(jax.jit(run)(jax.random.key(0)), np.full((1, 2), expected), atol=0.2)


# --- errors


@pytest.mark.parametrize("name", ["c51", "qr_dqn", "rainbow"])
def test_a_network_without_noise_is_refused_where_a_noisy_one_is_needed(name):
    network = distributional_network("c51", endless())
    with pytest.raises(TypeError, match=r"noisy=True needs a network with noise\(key, shape\)"):
        getattr(agents, name)(network, Discrete(2), noisy=True)


@pytest.mark.parametrize("name", ["c51", "qr_dqn", "iqn", "rainbow"])
def test_wrong_networks_and_actions_are_refused(name):
    env = endless()
    with pytest.raises(ValueError, match=rf"{name} needs a Discrete action space, got Box"):
        getattr(agents, name)(stub(np.zeros((2, 7))), Box(-1, 1, (2,)))
    options = {"noisy": False} if name == "rainbow" else {}
    agent = getattr(agents, name)(stub(np.zeros((3, 32))), env.action_space, batch_size=8, capacity=96, **options)
    with pytest.raises(
        ValueError, match=rf"{name}: .*\[4, 2, 32\].*\[4, 3, 32\].*jaxrl.networks.{'impl' if name == 'iqn' else 'dist'}"
    ):
        jaxrl.make_learner(env, agent, num_envs=4, rollout_length=1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: distributional_learner("c51", v_min=2.0, v_max=2.0),
            r"c51: v_min must be less than v_max, both finite, got 2\.0 and 2\.0",
        ),
        (lambda: distributional_learner("rainbow", v_min=float("nan")), "rainbow: v_min must be less than v_max"),
        (lambda: distributional_learner("c51", num_atoms=1), "c51 needs a network with at least 2 atoms, got 1"),
        (lambda: distributional_learner("qr_dqn", kappa=-1.0), r"qr_dqn: kappa must be finite and at least 0, got -1\.0"),
        (lambda: distributional_learner("iqn", kappa=-1.0), "iqn: kappa must be finite and at least 0"),
        (lambda: distributional_learner("iqn", num_quantiles=0), "num_quantiles must be at least 1"),
        (lambda: distributional_learner("iqn", num_policy_quantiles=0), "num_policy_quantiles must be at least 1"),
    ],
)
def test_wrong_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
