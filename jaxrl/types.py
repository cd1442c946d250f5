"""The records that the parts of jaxrl hand to each other: named tuples of pure functions, and of arrays.

Shapes are written `[T, B, ...]`: time leads, then the batch of environments.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from jaxrl.spaces import Box as Box
from jaxrl.spaces import Dict as Dict
from jaxrl.spaces import Discrete as Discrete
from jaxrl.spaces import MultiDiscrete as MultiDiscrete
from jaxrl.spaces import Space as Space

PyTree = Any
EnvState = PyTree
AgentState = PyTree
Memory = PyTree
HParams = Any  # an agent's own NamedTuple of floats or float32 arrays
Metrics = dict[str, jax.Array]


class Step(NamedTuple):
    """What one step of one environment gives, unbatched."""

    obs: jax.Array  # the true successor, also where the episode ended: never a reset observation
    reward: jax.Array  # float32 scalar
    terminated: jax.Array  # bool scalar: the task itself ended here; bootstrapping stops
    truncated: jax.Array  # bool scalar: only the clock ended it; bootstrapping goes on


class Environment(NamedTuple):
    """A Markov decision process as two pure functions. `step` never resets; `rollout.unroll` does."""

    reset: Callable[[jax.Array, PyTree], tuple[EnvState, jax.Array]]  # (key, params) -> (env_state, obs)
    step: Callable[..., tuple[EnvState, Step]]  # (key, env_state, action, params) -> (env_state, Step)
    params: PyTree  # default parameters: traced, may be replaced and vmapped
    observation_space: Space
    action_space: Space
    name: str
    carry_over: Callable[..., tuple[EnvState, jax.Array]] | None = None
    # carry_over: (old env_state, fresh env_state, fresh obs) -> (env_state, obs), where something outlives an episode


class Transition(NamedTuple):
    """Leaves are `[T, B, ...]` from a rollout and `[N, ...]` from a replay."""

    obs: jax.Array
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array  # never true where `terminated` is
    next_obs: jax.Array
    memory: PyTree  # what the policy carried when it acted
    extras: PyTree  # what `agent.act` wants to see again in `agent.update`


class Noise(NamedTuple):
    """Everything random that an agent consumes in one iteration."""

    act: PyTree  # leaves [T, B, ...]
    update: PyTree  # anything: sample indices, permutations


class Network(Protocol):
    """A pair of pure functions; a `flax.linen.Module` is one as it stands."""

    def init(self, key: jax.Array, obs: jax.Array, /) -> PyTree: ...

    def apply(self, params: PyTree, obs: jax.Array, /) -> Any: ...


class Agent(NamedTuple):
    """An algorithm as pure functions. `clock` is the unbatched int32 number of the iteration.

    `noise_t=None` asks `act` for the greedy action. `store` puts a trajectory into a replay and is the
    identity for an on-policy agent. `fresh_episodes` asks for a fresh episode in every environment at
    the start of every iteration. Metrics are float arrays of any shape, reported by their mean: an array over
    a batch is summed over the iterations as it is, where a mean in each would be a kernel of its own.
    """

    hparams: HParams  # the defaults
    init: Callable[..., AgentState]  # (key, obs[B, ...], hparams)
    noise: Callable[[jax.Array, int, int], Noise]  # (key, T, B)
    memory: Callable[[int], Memory]  # (B)
    act: Callable[..., tuple[jax.Array, Memory, PyTree]]
    # act: (agent_state, obs[B, ...], memory, noise_t, hparams, clock) -> (action[B, ...], memory, extras)
    store: Callable[[AgentState, Transition, jax.Array], AgentState]
    update: Callable[..., tuple[AgentState, Metrics]]
    # update: (agent_state, trajectory[T, B, ...], noise.update, hparams, clock) -> (agent_state, metrics)
    warmup: int = 0  # iterations that only act and store, before the first update
    fresh_episodes: bool = False


class EpisodeStats(NamedTuple):
    """Episode sums, each `[B]`: of the episode under way, and of those finished since the row began."""

    episode_return: jax.Array  # float32
    episode_length: jax.Array  # int32
    finished_return: jax.Array  # float32
    finished_length: jax.Array  # float32
    finished: jax.Array  # int32


class LearnerState(NamedTuple):
    """All that changes in a run. Save it with the clock and the run goes on with the same bits."""

    key: jax.Array  # the run's key, never changed
    agent: AgentState
    env: EnvState  # leaves [B, ...]
    obs: jax.Array  # [B, ...]
    memory: Memory
    stats: EpisodeStats


class Learner(NamedTuple):
    """An agent in its environments: the pieces that `train` drives."""

    env: Environment
    agent: Agent
    num_envs: int
    rollout_length: int
    init: Callable[[jax.Array, HParams], LearnerState]  # (key, hparams): reset, initialise, warm up
    noise: Callable[[jax.Array], PyTree]  # (key): everything random that one iteration consumes
    step: Callable[..., tuple[LearnerState, Metrics]]  # (state, noise, hparams, clock): deterministic
    reset_pool: int | None = None  # fresh episodes of an iteration, shared by all; by default each has its own
