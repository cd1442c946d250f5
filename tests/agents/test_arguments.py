"""What every agent says of a network or an optimizer of another kind, and of settings with which it could not learn."""

import math

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxrl
from jaxrl import agents, networks
from jaxrl.algorithms import ALGORITHMS
from jaxrl.types import Box, Discrete

OBS, PUSHES, CHOICES = Box(-1, 1, (3,)), Box(-1, 1, (2,)), Discrete(2)
POLICY = networks.policy(OBS, CHOICES, hidden=(4,), value=True)
Q_NETWORK = networks.q_network(OBS, CHOICES, hidden=(4,))
RECURRENT = networks.recurrent_policy(OBS, CHOICES, num_units=4, value=True)
ACTOR_CRITIC = networks.actor_critic(OBS, PUSHES, hidden=(4,))
DISTRIBUTION = networks.distributional_q_network(OBS, CHOICES, num_atoms=5, hidden=(4,))

# For each agent a network of its kind, one of another kind, and what it says of that one.
NETWORKS = {
    "a2c": (POLICY, RECURRENT, "a2c needs a network without a carry, got the recurrent"),
    "c51": (DISTRIBUTION, ACTOR_CRITIC, "c51 needs a network with init and apply, got ActorCritic"),
    "ddpg": (ACTOR_CRITIC, POLICY, "ddpg needs a jaxrl.types.ActorCritic, got Policy"),
    "dqn": (Q_NETWORK, ACTOR_CRITIC, "dqn needs a network with init and apply, got ActorCritic"),
    "iqn": (
        networks.implicit_quantile_network(OBS, CHOICES, hidden=(4,)),
        ACTOR_CRITIC,
        "iqn needs a network with init and apply",
    ),
    "openai_es": (POLICY, RECURRENT, "openai_es needs a network without a carry"),
    "ppo": (POLICY, RECURRENT, "ppo needs a network without a carry"),
    "pqn": (Q_NETWORK, RECURRENT, "pqn needs a network without a carry"),
    "qr_dqn": (DISTRIBUTION, ACTOR_CRITIC, "qr_dqn needs a network with init and apply"),
    "rainbow": (DISTRIBUTION, ACTOR_CRITIC, "rainbow needs a network with init and apply"),
    "recurrent_ppo": (RECURRENT, POLICY, "recurrent_ppo needs a recurrent network, with initial_carry, got Policy"),
    "reinforce": (POLICY, RECURRENT, "reinforce needs a network without a carry"),
    "sac": (ACTOR_CRITIC, POLICY, "sac needs a jaxrl.types.ActorCritic, got Policy"),
    "td3": (ACTOR_CRITIC, POLICY, "td3 needs a jaxrl.types.ActorCritic, got Policy"),
}


def build(name, network, **options):
    options |= {"noisy": False} if name == "rainbow" else {}
    return getattr(agents, name)(network, PUSHES if name in ("ddpg", "sac", "td3") else CHOICES, **options)


def test_every_agent_is_here():
    assert NETWORKS.keys() == ALGORITHMS.keys()


@pytest.mark.parametrize("name", NETWORKS)
def test_arguments_of_another_kind_are_refused(name):
    network, other, message = NETWORKS[name]
    with pytest.raises(TypeError, match=message + ".*jaxrl.networks"):
        build(name, other)
    with pytest.raises(TypeError, match=r"optimizer must be a function from a learning rate .* such as optax.adam"):
        build(name, network, optimizer=optax.adam(1e-3))
    with pytest.raises(TypeError, match=r"hparams must be a jaxrl\.agents\.\w+HParams, got builtins\.dict"):
        build(name, network, hparams={"learning_rate": 1e-3})


@pytest.mark.parametrize("name", ["c51", "dqn", "iqn", "qr_dqn"])
def test_a_record_of_hyperparameters_has_the_defaults_of_the_agent(name):
    agent = build(name, NETWORKS[name][0])
    assert agent.hparams == type(agent.hparams)()


@pytest.mark.parametrize(
    "options", [{"v_min": -math.inf}, {"v_max": math.inf}, {"v_min": math.nan}, {"v_min": 3.0, "v_max": 3.0}]
)
def test_a_support_without_atoms_is_refused(options):
    with pytest.raises(ValueError, match="c51: v_min must be less than v_max, both finite"):
        build("c51", DISTRIBUTION, **options)


@pytest.mark.parametrize("name", ["iqn", "qr_dqn"])
@pytest.mark.parametrize("kappa", [-1.0, math.inf, math.nan])
def test_a_loss_that_is_always_zero_is_refused(name, kappa):
    with pytest.raises(ValueError, match="kappa must be finite and at least 0"):
        build(name, NETWORKS[name][0], kappa=kappa)


def test_noise_that_never_changes_is_refused():
    agent = build("td3", ACTOR_CRITIC)
    with pytest.raises(ValueError, match=r"hparams\.noise_correlation must lie in"):
        agent.init(jax.random.key(0), jnp.zeros((1, 3)), agent.hparams._replace(noise_correlation=1.0))


def test_a_single_advantage_is_not_normalised():
    env = jaxrl.make("PointMass")
    network = networks.policy(env.observation_space, env.action_space, hidden=(4,), value=True)
    alone = agents.ppo(network, env.action_space, num_minibatches=2)
    with pytest.raises(ValueError, match="normalize_advantage: the only advantage of a batch would always become 0"):
        jaxrl.make_learner(env, alone, num_envs=2, rollout_length=1)
    jaxrl.make_learner(env, alone, num_envs=4, rollout_length=1)
