"""One suite for every agent: shapes, learning, metrics, hyperparameters, batching, and the program that it compiles to."""

import pickle
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from tests.problems import LEARNERS, plain


@pytest.fixture(params=LEARNERS, scope="module")
def name(request):
    return request.param


@pytest.fixture(scope="module")
def learner(name):
    return LEARNERS[name]()


NUM_ITERATIONS = 2


@pytest.fixture(scope="module")
def train(learner):
    return jax.jit(lambda key, hparams: jaxrl.train(key, learner, NUM_ITERATIONS, hparams))


@pytest.fixture(scope="module")
def hparams(learner):
    return jax.tree.map(jnp.float32, learner.agent.hparams)


# A setting in which every hyperparameter matters within two iterations, and another value for each of them.
SETTINGS = {
    "learning_rate": (0.02, 0.01),
    "learning_rate_iterations": (10.0, 5.0),
    "discount": (0.9, 0.5),
    "tau": (0.5, 0.25),
    "epsilon_start": (0.9, 0.2),
    "epsilon_end": (0.1, 0.8),
    "epsilon_iterations": (20.0, 7.0),
    "priority_exponent": (0.6, 0.2),
    "importance_exponent": (0.4, 0.9),
    "importance_exponent_iterations": (20.0, 7.0),
    "munchausen_scale": (0.9, 0.5),
    "munchausen_temperature": (0.5, 0.1),
    "entropy_coef": (0.1, 0.2),
    "value_coef": (0.5, 1.0),
    "max_grad_norm": (0.5, 0.1),
    "gae_lambda": (0.9, 0.5),
    "clip_range": (0.02, 0.1),
    "clip_range_iterations": (10.0, 2.0),
    "value_clip_range": (0.1, 0.02),
    "target_kl": (10.0, 1e-4),
    "initial_temperature": (1.0, 0.3),
    "target_entropy": (-1.0, -0.5),
    "q_lambda": (0.9, 0.5),
    "relative_target_entropy": (0.5, 0.2),
    "exploration_noise": (0.1, 0.3),
    "noise_correlation": (0.5, 0.9),
    "target_noise": (0.2, 0.4),
    "target_noise_clip": (0.3, 0.1),
    "noise_std": (0.2, 0.1),
    "weight_decay": (0.1, 0.01),
}

PRIORITIZED = {"priority_exponent", "importance_exponent", "importance_exponent_iterations"}
MUNCHAUSEN = {"munchausen_scale", "munchausen_temperature"}
UNREAD = {  # since an option is off
    "c51": PRIORITIZED,
    "dqn": PRIORITIZED | MUNCHAUSEN,
    "double dqn, huber, hard sync, rollouts": PRIORITIZED | MUNCHAUSEN,
    "dqn, three steps, prioritized": MUNCHAUSEN,
    "dqn, munchausen": PRIORITIZED,
    "iqn": PRIORITIZED,
    "qr_dqn": PRIORITIZED,
    "reinforce, episodic": {"value_coef"},  # its baseline is not learned
    "sac": {"relative_target_entropy"},
    "sac, discrete": {"target_entropy"},
    "sac, dropout and batch renormalisation": {"relative_target_entropy", "tau"},  # it has no target network
}


@pytest.fixture(scope="module")
def settings(learner):
    """Leaves `[N]`: a setting in which all hyperparameters are read, one for each that differs in it, and the first again."""
    fields = learner.agent.hparams._fields
    base, other = (learner.agent.hparams._replace(**{field: SETTINGS[field][i] for field in fields}) for i in (0, 1))
    rows = [base, *(base._replace(**{field: getattr(other, field)}) for field in fields), base]
    return jax.tree.map(lambda *x: jnp.array(x, jnp.float32), *rows)


@pytest.fixture(scope="module")
def start(learner, hparams):
    return jax.jit(learner.init)(jax.random.key(0), hparams)


@pytest.fixture(scope="module")
def train_batch(learner):
    """Every seed with every setting: `(keys[S], hparams[N]) -> states[N, S]`."""
    train = lambda key, hparams: jaxrl.train(key, learner, NUM_ITERATIONS, hparams)[0]
    return jax.jit(jax.vmap(jax.vmap(train, (0, None)), (None, 0)))


def varied(hparams, num):
    """Settings that differ in every field, leaves `[num]`."""
    return jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, 100.0) * jnp.linspace(0.5, 1.0, num, dtype=jnp.float32), hparams)


def equal_leaves(one, other):
    """The paths of the leaves that are equal to the bit."""
    leaves = jax.tree.leaves_with_path(one)
    assert leaves
    pairs = zip(leaves, jax.tree.leaves(other), strict=True)
    return [jax.tree_util.keystr(path) for (path, x), y in pairs if np.array_equal(x, y)]


LEARNER_METRICS = {"episode_return", "episode_length", "episodes"}
REINFORCE_METRICS = {"loss", "entropy", "gradient_norm"}
PPO_METRICS = {"loss", "policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "gradient_norm"}
SAC_METRICS = {"loss", "critic_loss", "actor_loss", "temperature", "entropy", "q"}
METRICS = {
    "a2c": {"loss", "policy_loss", "value_loss", "entropy", "gradient_norm"},
    "c51": {"loss", "q"},
    "dqn": {"loss", "q"},
    "double dqn, huber, hard sync, rollouts": {"loss", "q"},
    "dqn, three steps, prioritized": {"loss", "q"},
    "dqn, munchausen": {"loss", "q"},
    "iqn": {"loss", "q"},
    "qr_dqn": {"loss", "q"},
    "rainbow": {"loss", "q"},
    "openai_es": {"return_std", "gradient_norm", "unfinished"},
    "reinforce, continuing": REINFORCE_METRICS | {"value_loss"},
    "reinforce, episodic": REINFORCE_METRICS | {"unfinished"},
    "reinforce, squashed": REINFORCE_METRICS | {"value_loss", "unfinished"},
    "ppo": PPO_METRICS,
    "ppo, normalised": PPO_METRICS,
    "ppo, continuous": PPO_METRICS,
    "pqn": {"loss", "q", "gradient_norm"},
    "sac": SAC_METRICS,
    "sac, discrete": SAC_METRICS,
    "sac, dropout and batch renormalisation": SAC_METRICS,
    "td3": {"loss", "critic_loss", "actor_loss", "q"},
    "recurrent ppo": PPO_METRICS,
}


def test_a_run_is_finite_and_reports_exactly_its_metrics(name, train, hparams):
    state, metrics = train(jax.random.key(0), hparams)
    assert set(metrics) == METRICS[name] | LEARNER_METRICS
    for metric, values in metrics.items():
        assert values.shape == (NUM_ITERATIONS,), metric
        if not metric.startswith("episode_"):
            assert np.isfinite(values).all(), metric
    chex.assert_tree_all_finite(state.agent.params)


def test_it_can_be_pickled(learner):
    """An agent, its environment and the learner, which draws the same noise: its trace passes through all three."""
    found = pickle.loads(pickle.dumps(learner))
    of = lambda learner: jax.eval_shape(learner.noise, jax.random.key(0))
    chex.assert_trees_all_equal(of(found), of(learner))
    assert pickle.loads(pickle.dumps(learner.agent)).hparams == learner.agent.hparams
    assert pickle.loads(pickle.dumps(learner.env)).action_space == learner.env.action_space


@pytest.mark.slow
def test_pickled_it_is_the_same_program(learner):
    """The jaxpr, without the addresses of functions, and its constants."""

    def program(learner):
        closed = jax.make_jaxpr(lambda key: jaxrl.train(key, learner, NUM_ITERATIONS))(jax.random.key(0))
        return re.sub(r"0x[0-9a-f]+", "", str(closed)), closed.consts

    (found, found_consts), (expected, consts) = (program(x) for x in (pickle.loads(pickle.dumps(learner)), learner))
    assert found == expected
    jax.tree.map(np.testing.assert_array_equal, found_consts, consts)


def test_every_parameter_learns(start, train, hparams):
    """Each array of the network and of the optimizer's moments has changed, and the target network's with Polyak averaging."""
    state, _ = train(jax.random.key(0), hparams)
    assert equal_leaves(state.agent.params, start.agent.params) == []
    assert equal_leaves(state.agent.opt_state, start.agent.opt_state) == []
    if hasattr(state.agent, "target_params"):
        assert equal_leaves(state.agent.target_params, start.agent.target_params) == []


def test_a_step_keeps_shapes_dtypes_and_strong_types(learner, hparams):
    state = jax.eval_shape(learner.init, jax.random.key(0), hparams)
    noise = jax.eval_shape(learner.noise, jax.random.key(1))
    after, _ = jax.eval_shape(learner.step, state, noise, hparams, jnp.int32(learner.agent.warmup))
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
        assert not old.weak_type
        assert not new.weak_type


def test_the_second_call_does_not_compile(train, hparams):
    train(jax.random.key(0), hparams)
    train(jax.random.key(1), jax.tree.map(lambda x: x * 0.5, hparams))
    assert train._cache_size() == 1


def test_every_hyperparameter_changes_the_run(name, learner, train_batch, settings):
    """The first seed; the second is only there since the test below has two."""
    state = train_batch(jnp.stack([jax.random.key(0), jax.random.key(1)]), settings)
    leaves = [x[:, 0] for x in jax.tree.leaves(plain(state.agent.params))]
    same = [all(np.array_equal(x[0], x[row]) for x in leaves) for row in range(1, len(settings[0]))]
    assert same.pop()  # the batch itself makes no difference
    unread = {field for field, equal in zip(settings._fields, same, strict=True) if equal}
    assert unread == UNREAD.get(name, set())


def test_runs_in_a_batch_equal_each_alone(train, train_batch, hparams, settings):
    """Over seeds and over every hyperparameter at once. The batch has the sizes of the test above, to compile it once."""
    keys, values = jax.random.split(jax.random.key(3), 2), varied(hparams, len(settings[0]))
    batch = plain(train_batch(keys, values))
    for row, seed in ((0, 1), (1, 0)):
        alone = train(keys[seed], jax.tree.map(lambda x, row=row: x[row], values))[0]
        one = jax.tree.map(lambda x, row=row, seed=seed: x[row, seed], batch)
        chex.assert_trees_all_close(one.agent.params, plain(alone.agent.params), rtol=1e-4, atol=1e-5)
        chex.assert_trees_all_close(one.env, plain(alone.env), rtol=1e-4, atol=1e-5)


def test_seeds_differ_in_everything_that_is_random(train, hparams):
    """In every array of parameters, moments and observations, with the same hyperparameters."""
    one, other = (plain(train(jax.random.key(seed), hparams)[0]) for seed in (3, 4))
    for found in (equal_leaves(one.agent.params, other.agent.params), equal_leaves(one.agent.opt_state, other.agent.opt_state)):
        assert [path for path in found if not path.endswith((".count", "['count']"))] == []  # of steps, or of passes in training
    assert equal_leaves(one.obs, other.obs) == []
    assert equal_leaves(one.key, other.key) == []


def test_no_key_is_used_twice(learner, hparams):
    """JAX checks this where it traces."""
    state = jax.eval_shape(learner.init, jax.random.key(1), hparams)
    with jax.debug_key_reuse(True):
        jax.jit(lambda key: jaxrl.train(key, learner, NUM_ITERATIONS, hparams)).trace(jax.random.key(0))
        jax.jit(lambda key, state: jaxrl.evaluate(key, learner, state, num_episodes=3)).trace(jax.random.key(2), state)


def test_evaluation_is_reproducible(learner, start):
    play = jax.jit(lambda key: jaxrl.evaluate(key, learner, start, num_episodes=3))
    first, again, other = play(jax.random.key(5)), play(jax.random.key(5)), play(jax.random.key(6))
    assert first.shape == (3,)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_acting_and_evaluation_read_the_policy_parameters_alone(learner, hparams):
    """What `agent.policy` returns is all that is saved of a policy: no leaf of it may be larger than what acting needs."""
    state = jax.eval_shape(learner.init, jax.random.key(0), hparams)
    policy = jax.eval_shape(learner.agent.policy, state.agent)
    carry = jax.eval_shape(lambda: learner.agent.initial_carry(learner.num_envs))
    closed = jax.make_jaxpr(learner.agent.exploit)(policy, state.obs, carry, jax.random.key(0))
    used = {id(variable) for equation in closed.eqns for variable in equation.invars}
    inputs = closed.jaxpr.invars[: len(jax.tree.leaves(policy))]
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(policy)]
    unused = [path for path, variable in zip(paths, inputs, strict=True) if id(variable) not in used]
    # What exploring reads and evaluation does not: standard deviations, a population, and counts of running statistics.
    assert all(
        "critic" in p or "log_std" in p or p.startswith(".members") or p.endswith(("_scale']", "['count']")) for p in unused
    ), unused


def test_the_program_has_no_branch_and_no_callback(train, hparams):
    text = train.lower(jax.random.key(0), hparams).compile().as_text()
    assert "while(" in text
    assert " conditional(" not in text
    # Not anywhere in the text: the name of this test is in it, where it was the first to trace something.
    assert not [target for target in re.findall(r'custom_call_target="([^"]+)"', text) if "callback" in target]
