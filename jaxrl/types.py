"""The records that jaxrl is built of: named tuples of pure functions, and named tuples of arrays.

Shapes are written `[T, B, ...]`: T time steps, then a batch of B environments. Spaces are defined in `jaxrl.spaces`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from jaxrl._src.pickling import picklable
from jaxrl.spaces import Box, Dict, Discrete, MultiDiscrete, Space

__all__ = [
    "ActorCritic", "Agent", "AgentState", "Box", "Carry", "Dict", "Discrete", "EnvState", "Environment", "EpisodeStats",
    "ExploitFn", "ExploreFn", "HParams", "InitFn", "InitialCarryFn", "Learner", "LearnerState", "Metrics",
    "MultiDiscrete", "Network", "NetworkParams", "Noise", "NoiseFn", "NoisyNetwork", "Obs", "PolicyFn",
    "PolicyParams", "PyTree", "RecurrentNetwork", "Space", "Step", "StoreFn", "TrainableNetwork", "Transition", "UpdateFn",
]  # fmt: skip

PyTree = Any
Obs = PyTree  # an array, or a dict of arrays
EnvState = PyTree
AgentState = PyTree
PolicyParams = PyTree
Carry = PyTree
HParams = Any  # an agent's own NamedTuple of floats or float32 arrays
Metrics = dict[str, jax.Array]


class Step(NamedTuple):
    """The result of one step of one environment, unbatched."""

    obs: Obs  # the true successor, even at the end of an episode; never a reset observation
    reward: jax.Array  # float32 scalar
    terminated: jax.Array  # bool scalar: the task itself ended; bootstrapping stops
    truncated: jax.Array  # bool scalar: a time limit ended the episode; bootstrapping continues


@picklable
class Environment(NamedTuple):
    """A Markov decision process as two pure functions. `step` never resets; `jaxrl.rollout.unroll` does."""

    reset: Callable[[jax.Array, PyTree], tuple[EnvState, Obs]]  # (key, params) -> (env_state, obs)
    step: Callable[..., tuple[EnvState, Step]]  # (key, env_state, action, params) -> (env_state, Step)
    params: PyTree  # the default parameters; may be traced, replaced, and batched by vmap
    observation_space: Space
    action_space: Space
    name: str
    carry_over: Callable[..., tuple[EnvState, Obs]] | None = None
    # carry_over: (old env_state, fresh env_state, fresh obs) -> (env_state, obs), if some state persists across episodes


class Transition(NamedTuple):
    """Steps of a rollout, leaves `[T, B, ...]`, or items of a replay, leaves `[N, ...]`."""

    obs: Obs
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array  # never true where `terminated` is
    next_obs: Obs  # the true successor
    carry: Carry  # the policy's recurrent state when it acted
    extras: PyTree  # what `agent.explore` passes on to `agent.update`


class Noise(NamedTuple):
    """Everything random that an agent consumes in one iteration."""

    act: PyTree  # leaves [T, B, ...]
    update: PyTree = ()  # anything: sample indices, keys of shuffles


class Network(Protocol):
    """A pair of pure functions. Any `flax.linen.Module` satisfies this protocol."""

    def init(self, key: jax.Array, obs: Obs, /) -> PyTree:
        """The parameters, for observations `[B, ...]`."""

    def apply(self, params: PyTree, obs: Obs, /) -> Any:
        """The outputs `[..., *output_shape]` for observations `[..., *obs_shape]`."""


class NoisyNetwork(Protocol):
    """A network with noise in its weights, for exploration; `jaxrl.networks.q_network` with `noisy` builds one."""

    def init(self, key: jax.Array, obs: Obs, /) -> PyTree:
        """The parameters, for observations `[B, ...]`."""

    def apply(self, params: PyTree, obs: Obs, noise: PyTree | None = None, /) -> Any:
        """The outputs `[..., *output_shape]` for observations `[..., *obs_shape]`.

        With leaves `[units]`, the noise is the same for the whole batch. Otherwise, leading axes of noise and observations are
        broadcast. Without noise, the network is deterministic.
        """

    def noise(self, key: jax.Array, batch_shape: tuple[int, ...], /) -> PyTree:
        """Draw independent noise, leaves `[*batch_shape, units]`; the key is consumed."""


class RecurrentNetwork(Protocol):
    """A network with a recurrent state, the carry; `jaxrl.networks.recurrent_policy` builds one."""

    def initial_carry(self, num_envs: int, /) -> Carry:
        """The carry at the start of an episode, leaves `[B, ...]`."""

    def init(self, key: jax.Array, obs: Obs, carry: Carry, /) -> PyTree:
        """The parameters, for observations and carry `[B, ...]`."""

    def apply(self, params: PyTree, obs: Obs, carry: Carry, /) -> tuple[Any, Carry]:
        """One step: the outputs `[B, ...]` and the next carry `[B, ...]`."""


class NetworkParams(NamedTuple):
    """The parameters of a `TrainableNetwork`."""

    weights: PyTree  # what the optimizer changes
    statistics: PyTree  # running statistics of its inputs, which passes in training change; empty if there are none


class TrainableNetwork(Protocol):
    """A network whose passes in training differ from those in evaluation, by dropout or statistics of the batch.

    An agent that supports it calls `jaxrl.training_passes.apply_training` in its loss. For any other agent it is a `Network`
    whose statistics never change.
    """

    def init(self, key: jax.Array, /, *inputs: Any) -> NetworkParams:
        """The parameters, for inputs `[B, ...]`."""

    def apply(self, params: NetworkParams, /, *inputs: Any) -> Any:
        """The outputs in evaluation: a deterministic function of each input, without dropout, with running statistics."""

    def apply_training(self, params: NetworkParams, key: jax.Array, /, *inputs: Any) -> tuple[Any, PyTree]:
        """The outputs for a batch in training, and the new statistics. The key is consumed; it is for dropout."""


class ActorCritic(NamedTuple):
    """A policy network and an ensemble of action-value networks; `jaxrl.networks.actor_critic` builds one.

    Each may be a `TrainableNetwork`.
    """

    actor: Any  # a Network: the policy's outputs for observations
    critic: Any  # init(key, obs, action) and apply(params, obs, action) -> q [K, ...], the values of K critics;
    # for Discrete actions init(key, obs) and apply(params, obs) -> q [K, ..., n], the values of all actions


# --- the fields of an Agent -----------------------------------------------------------------------


class InitFn(Protocol):
    def __call__(self, key: jax.Array, obs: Obs, hparams: HParams, /) -> AgentState:
        """Return the initial state, given example observations `[B, ...]`.

        By convention its field `params` holds the network's parameters. Its leaves must be strongly typed, and `update` must
        return the same structure, shapes and dtypes.
        """


class NoiseFn(Protocol):
    def __call__(self, key: jax.Array, num_steps: int, num_envs: int, /) -> Noise:
        """Draw everything random that one iteration consumes; the key is consumed.

        The leaves of `Noise.act` are `[T, B, ...]`; `explore` receives one step at a time. `update` receives all of
        `Noise.update`.
        """


class PolicyFn(Protocol):
    def __call__(self, agent_state: AgentState, /) -> PolicyParams:
        """Return the part of the state that acting reads, such as the network's parameters and running statistics of the
        observations, without the optimizer, the target network and the replay."""


class GreedyFn(Protocol):
    def __call__(self, policy_params: PolicyParams, /) -> PolicyParams:
        """Return what `exploit` reads of the policy parameters. Saved policies hold this part only."""


class ExploreFn(Protocol):
    def __call__(
        self, policy_params: PolicyParams, obs: Obs, carry: Carry, noise_t: PyTree, hparams: HParams, iteration: jax.Array, /
    ) -> tuple[jax.Array, Carry, PyTree]:
        """Choose the actions of one step of training.

        Args:
          policy_params: from `policy`.
          obs: observations, leaves `[B, ...]`.
          carry: recurrent state, leaves `[B, ...]`; `()` without recurrence.
          noise_t: one step of `Noise.act`, leaves `[B, ...]`.
          hparams: the agent's hyperparameters, scalars.
          iteration: the number of the iteration, warm-up included; int32 scalar, never batched.

        Returns:
          Actions `[B, *action_shape]`, the next carry, and extras: leaves `[B, ...]`, which `update` receives in
          `rollout.extras`.
        """


class ExploitFn(Protocol):
    def __call__(self, policy_params: PolicyParams, obs: Obs, carry: Carry, key: jax.Array, /) -> tuple[jax.Array, Carry]:
        """Choose greedy actions `[B, *action_shape]`, for evaluation, by what `greedy` returns; most agents ignore the key."""


class UpdateFn(Protocol):
    def __call__(
        self, agent_state: AgentState, rollout: Transition, noise: PyTree, hparams: HParams, iteration: jax.Array, /
    ) -> tuple[AgentState, Metrics]:
        """Learn from a rollout, leaves `[T, B, ...]`. `store` is called with the same rollout first.

        Returns:
          The next state, and the metrics: float arrays of any shape, of which the driver reports the means. Return arrays
          over the batch rather than their means: the driver sums them over iterations before it averages, which saves a
          kernel per iteration.
        """


class StoreFn(Protocol):
    def __call__(self, agent_state: AgentState, rollout: Transition, iteration: jax.Array, /) -> AgentState:
        """Add a rollout, leaves `[T, B, ...]`, to the replay. Also called during the warm-up."""


class InitialCarryFn(Protocol):
    def __call__(self, num_envs: int, /) -> Carry:
        """Return the carry at the start of an episode, leaves `[B, ...]`. It must be deterministic."""


def store_nothing(agent_state: AgentState, rollout: Transition, iteration: jax.Array) -> AgentState:
    """`Agent.store` of an agent without a replay."""
    del rollout, iteration
    return agent_state


def whole_policy(policy_params: PolicyParams) -> PolicyParams:
    """`Agent.greedy` of an agent whose `exploit` reads all that its `explore` reads."""
    return policy_params


def no_carry(num_envs: int) -> Carry:
    """`Agent.initial_carry` of an agent without recurrence."""
    del num_envs
    return ()


@picklable
class Agent(NamedTuple):
    """An algorithm as pure functions. The protocols above document their shapes. Construct it with keyword arguments."""

    hparams: HParams  # the default hyperparameters
    init: InitFn
    noise: NoiseFn
    policy: PolicyFn
    explore: ExploreFn
    exploit: ExploitFn
    update: UpdateFn
    store: StoreFn = store_nothing
    initial_carry: InitialCarryFn = no_carry
    greedy: GreedyFn = whole_policy
    warmup: int = 0  # iterations that act and store before the first update
    fresh_episodes: bool = False  # every environment starts a fresh episode at the start of each iteration


# --- the learner ------------------------------------------------------------------------------------


class EpisodeStats(NamedTuple):
    """Sums over the running episode, and over the episodes that finished in this logging interval; each `[B]`."""

    episode_return: jax.Array  # float32
    episode_length: jax.Array  # int32
    finished_return: jax.Array  # float32
    finished_length: jax.Array  # float32
    finished: jax.Array  # int32


class LearnerState(NamedTuple):
    """Everything that changes during a run. With the iteration number, it is all that is needed to continue the run."""

    key: jax.Array  # the run's key, never changed
    agent: AgentState
    env: EnvState  # leaves [B, ...]
    obs: Obs  # [B, ...]
    carry: Carry  # [B, ...]
    stats: EpisodeStats


@picklable
class Learner(NamedTuple):
    """An agent in its environments, as the functions that `train` calls."""

    env: Environment
    agent: Agent
    num_envs: int
    rollout_length: int
    init: Callable[[jax.Array, HParams], LearnerState]  # (key, hparams): reset, initialise, warm up
    noise: Callable[[jax.Array], PyTree]  # (key): everything random that one iteration consumes
    step: Callable[..., tuple[LearnerState, Metrics]]  # (state, noise, hparams, iteration): deterministic
    reset_pool: int | None = None  # number of fresh episodes that all resets of an iteration share; None: one for each step
