"""The table of algorithms that presets, the command line and plots read.

To add an algorithm, add one file to `jaxrl.agents`, one entry here, and its settings to `jaxrl.presets`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxrl import agents, networks, outputs
from jaxrl._src.signatures import Option, help_of, options_of
from jaxrl.outputs import PolicyOutputs
from jaxrl.types import ActorCritic, Agent, Box, Discrete, Environment, HParams, MultiDiscrete, Network, RecurrentNetwork

Options = Mapping[str, Any]


class Algorithm(NamedTuple):
    """An entry of the table.

    Attributes:
      name: name in Python and on the command line.
      title: name in plots.
      factory: `(network, action_space, **options) -> Agent`. Its keyword-only arguments are the options of the agent, and
        the default of its argument `hparams` is the default hyperparameters.
      action_spaces: the types of action spaces that it supports.
      network: `(env, network_options, agent_options) -> network`; builds the network that the factory takes.
      network_builder: the function whose keyword-only arguments are the options of the network.
      derived: those of its options that `network` derives from the options of the agent.
      outputs: `(network, action_space, agent_options) -> PolicyOutputs`: what the network computes from an observation, for
        `jaxrl.explain`. None if there is no such function.
    """

    name: str
    title: str
    factory: Callable[..., Agent]
    action_spaces: tuple[type, ...]
    network: Callable[[Environment, Options, Options], Network | RecurrentNetwork | ActorCritic]
    network_builder: Callable
    derived: tuple[str, ...] = ()
    outputs: Callable[..., PolicyOutputs] | None = None

    @property
    def hparams(self) -> HParams:
        """The default hyperparameters."""
        return inspect.signature(self.factory).parameters["hparams"].default

    @property
    def agent_options(self) -> tuple[Option, ...]:
        return options_of(self.factory)

    @property
    def network_options(self) -> tuple[Option, ...]:
        return options_of(self.network_builder, without=self.derived)

    @property
    def hparams_help(self) -> dict[str, str]:
        """The description of each hyperparameter."""
        return help_of(type(self.hparams))

    @property
    def actions(self) -> str:
        """The names of the action spaces, such as "Discrete or Box"."""
        *others, last = (space.__name__ for space in self.action_spaces)
        return f"{', '.join(others)} or {last}" if others else last


def _q_network(env: Environment, network: Options, agent: Options) -> Network:
    return networks.q_network(env.observation_space, env.action_space, noisy=agent.get("noisy", False), **network)


def _distributional(env: Environment, network: Options, agent: Options) -> Network:
    return networks.distributional_q_network(env.observation_space, env.action_space, noisy=agent["noisy"], **network)


def _implicit_quantiles(env: Environment, network: Options, agent: Options) -> Network:
    return networks.implicit_quantile_network(env.observation_space, env.action_space, **network)


def _policy(env: Environment, network: Options, agent: Options) -> Network:
    value = agent.get("baseline", "value") == "value"
    return networks.policy(env.observation_space, env.action_space, value=value, **network)


def _policy_alone(env: Environment, network: Options, agent: Options) -> Network:
    return networks.policy(env.observation_space, env.action_space, **network)


def _actor_critic(env: Environment, network: Options, agent: Options) -> ActorCritic:
    return networks.actor_critic(env.observation_space, env.action_space, **network)


def _recurrent_policy(env: Environment, network: Options, agent: Options) -> RecurrentNetwork:
    return networks.recurrent_policy(env.observation_space, env.action_space, value=True, **network)


def _td3_network(env: Environment, network: Options, agent: Options) -> ActorCritic:
    return networks.deterministic_actor_critic(env.observation_space, env.action_space, **network)


def _ddpg_network(env: Environment, network: Options, agent: Options) -> ActorCritic:
    return networks.deterministic_actor_critic(env.observation_space, env.action_space, num_critics=1, **network)


_ANY = (Discrete, MultiDiscrete, Box)
_ATOMS = _distributional, networks.distributional_q_network, ("noisy",)
_POLICY = _policy, networks.policy, ("value",), outputs.stochastic_policy
_VALUES = _q_network, networks.q_network, ("noisy",), outputs.q_values
_DETERMINISTIC = networks.deterministic_actor_critic
_RECURRENT = _recurrent_policy, networks.recurrent_policy, ("value",), outputs.recurrent_policy
_IMPLICIT = _implicit_quantiles, networks.implicit_quantile_network, (), outputs.implicit_quantile_values

_TABLE = (
    Algorithm("a2c", "A2C", agents.a2c, _ANY, *_POLICY),
    Algorithm("c51", "C51", agents.c51, (Discrete,), *_ATOMS, outputs.categorical_values),
    Algorithm("ddpg", "DDPG", agents.ddpg, (Box,), _ddpg_network, _DETERMINISTIC, ("num_critics",), outputs.deterministic_actor),
    Algorithm("dqn", "DQN", agents.dqn, (Discrete,), *_VALUES),
    Algorithm("iqn", "IQN", agents.iqn, (Discrete,), *_IMPLICIT),
    Algorithm("openai_es", "OpenAI-ES", agents.openai_es, _ANY, _policy_alone, networks.policy, ("value",), outputs.mean_policy),
    Algorithm("ppo", "PPO", agents.ppo, _ANY, *_POLICY),
    Algorithm("pqn", "PQN", agents.pqn, (Discrete,), *_VALUES),
    Algorithm("qr_dqn", "QR-DQN", agents.qr_dqn, (Discrete,), *_ATOMS, outputs.quantile_values),
    Algorithm("rainbow", "Rainbow", agents.rainbow, (Discrete,), *_ATOMS, outputs.categorical_values),
    Algorithm("recurrent_ppo", "Recurrent PPO", agents.recurrent_ppo, _ANY, *_RECURRENT),
    Algorithm("reinforce", "REINFORCE", agents.reinforce, _ANY, *_POLICY),
    Algorithm("sac", "SAC", agents.sac, (Discrete, Box), _actor_critic, networks.actor_critic, (), outputs.actor),
    Algorithm("td3", "TD3", agents.td3, (Box,), _td3_network, _DETERMINISTIC, (), outputs.deterministic_actor),
)

ALGORITHMS: dict[str, Algorithm] = {entry.name: entry for entry in _TABLE}


def algorithm(name: str) -> Algorithm:
    """The entry of the algorithm with this name.

    Raises:
      ValueError: for an unknown name; the message lists the known ones.

    >>> algorithm("dqn").actions
    'Discrete'
    """
    if name not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {name!r}; there are {', '.join(ALGORITHMS)}")
    return ALGORITHMS[name]
