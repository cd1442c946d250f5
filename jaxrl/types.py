"""The records that the parts of jaxrl hand to each other: named tuples of pure functions, and of arrays.

Shapes are written `[T, B, ...]`: time leads, then the batch of environments.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

PyTree = Any
EnvState = PyTree
AgentState = PyTree
Memory = PyTree
HParams = Any  # an agent's own NamedTuple of floats or float32 arrays
Metrics = dict[str, jax.Array]


@dataclass(frozen=True)
class Discrete:
    """The integers 0 … n-1, as int32 scalars."""

    n: int

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)

    def __str__(self) -> str:
        return f"Discrete({self.n})"


@dataclass(frozen=True, eq=False)
class Box:
    """Arrays of one shape and dtype within bounds; `low` and `high` broadcast to `shape`, ±inf is unbounded."""

    low: Any
    high: Any
    shape: tuple[int, ...]
    dtype: Any = np.float32

    def __post_init__(self):
        dtype = np.dtype(self.dtype)
        for name in ("low", "high"):
            bound = np.broadcast_to(np.asarray(getattr(self, name), dtype), self.shape)
            object.__setattr__(self, name, bound)
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "shape", tuple(self.shape))
        if np.any(self.low > self.high):
            raise ValueError(f"Box: low {self.low} is above high {self.high}")

    @property
    def bounded(self) -> bool:
        return bool(np.all(np.isfinite(self.low)) and np.all(np.isfinite(self.high)))

    def __str__(self) -> str:
        bounds = self.low.astype(float).min(initial=np.inf), self.high.astype(float).max(initial=-np.inf)
        low, high = (f"{np.sign(x) * np.inf if abs(x) > 1e38 else x:g}" for x in bounds)
        return f"Box({low} … {high}, {list(self.shape)}, {self.dtype})"


Space = Discrete | Box


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
