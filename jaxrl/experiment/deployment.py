"""Trained policies outside of training: a policy as one function of observations, and `load_policy`."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import envs
from jaxrl._src.checks import check_size
from jaxrl._src.latest_returns import latest_returns
from jaxrl._src.numbers import shown
from jaxrl.envs.wrappers.normalization import NormalizedObservations
from jaxrl.experiment import folder
from jaxrl.experiment.config import Config, load_config
from jaxrl.experiment.policies import SavedPolicy, abstract_policies, restored_env_state
from jaxrl.experiment.wrapping import parse, wrap
from jaxrl.presets import Preset
from jaxrl.running_statistics import RunningStatistics, freeze, merge_all
from jaxrl.spaces import Dict, Space, spec
from jaxrl.types import Agent, Environment, Step

# Wrappers that change neither what a policy sees nor what its action does, or only add noise to it.
_LEFT_OUT = frozenset(
    ("clip_rewards", "episode_statistics", "normalize_rewards", "observation_noise", "scale_rewards", "sticky_actions")
)
_WITH_MEMORY = frozenset(("frame_stack", "time_aware"))  # their observations depend on earlier steps of the episode


class PolicyFunction(NamedTuple):
    """A greedy policy as a pure function, with its parameters, from observations of the environment without wrappers."""

    act: Callable[..., tuple[jax.Array, ...]]  # (obs [B, ...], *carry) -> (action [B, ...], *carry)
    carry: tuple[jax.ShapeDtypeStruct, ...]  # the arrays of the carry, without the batch axis; zeros start an episode
    observation_space: Space
    action_space: Space


class Policy(NamedTuple):
    """A saved policy, ready to act; `load_policy` makes one.

    `act(obs)` takes NumPy arrays, or a dict of them for a `Dict` space: one observation, or a batch with a leading axis. It
    returns the greedy action, or a batch of actions, as a NumPy array. What the policy remembers of an episode is kept between
    the calls. `reset()` starts new episodes, in all rows of the batch or in those of a bool mask `[B]`.
    """

    act: Callable[[Any], np.ndarray]
    reset: Callable[..., None]
    observation_space: Space
    action_space: Space
    algorithm: str
    env: str  # the environment and its wrappers
    seed: int
    setting: dict[str, float]  # the swept hyperparameters; empty without a sweep
    function: PolicyFunction


def load_policy(
    run: Path | str, seed: int | None = None, *, setting: Mapping[str, float] | None = None, which: str = "last"
) -> Policy:
    """Load one policy of a run folder. Nothing is trained or played, and no code of the folder is executed.

    Args:
      run: the folder of a finished run.
      seed: of the run whose policy is loaded. By default that with the highest return: the greedy one if
        `evaluation.csv` has it, or else the latest in training.
      setting: values of swept hyperparameters, such as `{"learning_rate": 1e-3}`, to choose among the runs of a sweep.
      which: "last" for a policy after training, or "best" for the one with the highest return in the evaluations during it.

    Returns:
      A record with the functions `act` and `reset`, the spaces, and the seed and the setting of the policy. It takes
      observations and returns actions of the environment without wrappers: wrappers such as `frame_stack` and
      `normalize_observations`, the latter with the merged and frozen statistics of all environments of the run, are part of
      the policy, and so is the normalisation of an agent. Noise, `sticky_actions` and wrappers of rewards are left out.

    Raises:
      ValueError: if the folder has no policies, or none of that seed and setting, or they are damaged; and for the wrappers
        `previous_action_and_reward`, whose reward the policy does not receive, and `frame_stack` inside `action_repeat`.
    """
    run = Path(run)
    config = load_config(run)
    _check_wrappers(config.wrappers)
    preset = config.preset()
    index, policy = read_policy(run, config, preset, seed, setting or {}, which)
    function = policy_function(config, preset, policy)
    act, reset = _stateful(function)
    identifier = dict(config.identifiers()[index])
    return Policy(
        act=act,
        reset=reset,
        observation_space=function.observation_space,
        action_space=function.action_space,
        algorithm=config.settings.algorithm,
        env=config.env_title,
        seed=int(identifier.pop("seed")),
        setting=identifier,
        function=function,
    )


def read_policy(
    run: Path, config: Config, preset: Preset, seed: int | None, setting: Mapping[str, float], which: str
) -> tuple[int, SavedPolicy]:
    """The policy that `load_policy` chooses, and the number of its run, as in `Config.identifiers`."""
    policies = folder.load_policies(run, abstract_policies(config, preset), which)
    returns = folder.read_record(run, which).get("returns")  # of best policies and of searches
    index = choose_run(run, config, seed, setting, returns)
    return index, jax.tree.map(lambda x: np.asarray(x[index]), policies)


def choose_run(
    run: Path, config: Config, seed: int | None, setting: Mapping[str, float], returns: Sequence[float] | None = None
) -> int:
    """The index of the run with this seed and setting; of several, the one with the highest of `returns`, or latest return."""
    identifiers = config.identifiers()
    swept = [name for name in identifiers[0] if name != "seed"]
    for name in setting.keys() - set(swept):
        raise ValueError(f"{run} sweeps {', '.join(swept) or 'no hyperparameter'}; got a value of {name!r}")
    if seed is not None:
        check_size("seed", seed, minimum=0, maximum=2**32 - 1)
    wanted = dict(setting) if seed is None else {"seed": seed, **setting}
    # Values may have been rounded where they were printed; seeds are numbers of their own, also large ones.
    same = lambda name, value, other: value == other if name == "seed" else math.isclose(value, other, rel_tol=1e-5)
    matches = [
        i for i, identifier in enumerate(identifiers) if all(same(name, identifier[name], x) for name, x in wanted.items())
    ]
    if not matches:
        seeds = f"seeds {config.seed} to {config.seed + config.seeds - 1}"
        values = {name: dict.fromkeys(f"{identifier[name]:g}" for identifier in identifiers) for name in swept}
        known = "".join(f", {name} {' '.join(list(texts)[:20])}" for name, texts in values.items())
        got = ", ".join(f"{name} {shown(value)}" for name, value in wanted.items())
        raise ValueError(f"{run} has {seeds}{known}; got {got}")
    if len(matches) == 1:
        return matches[0]
    latest = _latest_returns(run, identifiers) if returns is None else returns
    return max(matches, key=lambda i: -math.inf if math.isnan(latest[i]) else latest[i])


def _latest_returns(run: Path, identifiers: list[dict[str, Any]]) -> np.ndarray:
    """The latest return of each run `[num_runs]`; −inf for a run that has none."""
    found = latest_returns(run, list(identifiers[0]), len(identifiers)).returns
    return np.array([found.get(tuple(map(float, identifier.values())), -np.inf) for identifier in identifiers])


# --- the policy as a function -----------------------------------------------------------------------


class _Received(NamedTuple):
    """State of an environment that only records the action that it received."""

    action: Any


def policy_function(config: Config, preset: Preset, policy: SavedPolicy) -> PolicyFunction:
    """One saved policy as a pure function.

    Args:
      config, preset: of the run.
      policy: leaves without the axis of runs.

    The wrappers are applied to an environment that observes what the function receives and records the action that it is
    given. Their state, where later observations depend on it, is part of the carry, and so is that of a recurrent network.
    A flag in the carry tells whether the episode has started, so zeros are the carry at the start of an episode.
    """
    agent: Agent = preset.learner.agent
    env = envs.make(config.env)
    wrappers = [text for text in config.wrappers if parse(text)[0] not in _LEFT_OUT]
    memory = any(parse(text)[0] in _WITH_MEMORY for text in wrappers)
    statistics = [freeze(_merged(s)) for s in _statistics_in(restored_env_state(preset.learner, policy))]
    begin, proceed, received = _through_wrappers(env, wrappers, statistics)
    example = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), spec(env.observation_space))
    action = spec(preset.learner.env.action_space)
    remembered = jax.eval_shape(lambda: (begin(example)[0], jnp.zeros(action.shape, action.dtype)))
    recurrent = _is_recurrent(agent, policy.params, jax.eval_shape(lambda: begin(example)[1]))
    network_carry = jax.eval_shape(lambda: jax.tree.map(lambda x: x[0], agent.initial_carry(1)))
    carried = jax.ShapeDtypeStruct((), bool), remembered if memory else (), network_carry if recurrent else ()
    arrays, structure = jax.tree.flatten(carried if memory or recurrent else ())

    def act(obs, *carry):
        num = jax.tree.leaves(obs)[0].shape[0]
        agent_carry = agent.initial_carry(num)
        state, seen = jax.vmap(begin)(obs) if wrappers else ((), obs)
        if carry:
            started, remembered, network_carry = jax.tree.unflatten(structure, carry)
            if memory:
                state, seen = _select(started, jax.vmap(proceed)(obs, *remembered), (state, seen))
            if recurrent:
                agent_carry = _select(started, network_carry, agent_carry)
        action, agent_carry = agent.exploit(policy.params, seen, agent_carry, jax.random.key(0))
        executed = jax.vmap(received)(obs, state, action) if wrappers else action
        following = (jnp.ones(num, bool), (state, action) if memory else (), agent_carry if recurrent else ())
        return executed, *(jax.tree.leaves(following) if carry else ())

    return PolicyFunction(act, tuple(arrays), env.observation_space, env.action_space)


def _select(started: jax.Array, going_on: Any, fresh: Any) -> Any:
    """Choose for each row of the leaves `[B, ...]`. ONNX Runtime cannot choose between bools."""

    def choose(x, y):
        flags = started.reshape(-1, *(1 for _ in x.shape[1:]))
        return (flags & x) | (~flags & y) if x.dtype == bool else jnp.where(flags, x, y)

    return jax.tree.map(choose, going_on, fresh)


def _check_wrappers(wrappers: tuple[str, ...]) -> None:
    names = [parse(text)[0] for text in wrappers]
    if "previous_action_and_reward" in names:
        raise ValueError("a policy trained with previous_action_and_reward needs the rewards, which act(obs) does not receive")
    if "frame_stack" in names and "action_repeat" in names[names.index("frame_stack") :]:
        raise ValueError("a policy with frame_stack inside action_repeat needs the frames between its actions; put it outside")


def _through_wrappers(
    env: Environment, wrappers: list[str], statistics: list[Any]
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """What the wrappers make of observations and actions, as functions without a batch axis.

    Returns `begin(obs)` and `proceed(obs, state, action)`, which return the wrappers' state and the observation that the agent
    sees, and `received(obs, state, action)`, the action that the environment inside receives.
    """
    key = jax.random.key(0)
    space: Any = env.action_space
    dtype = jax.dtypes.canonicalize_dtype(space.dtype)

    def around(obs):
        def reset(key, params):
            return _Received(jnp.zeros(space.shape, dtype)), obs

        def step(key, state, action, params):
            return _Received(jnp.asarray(action, dtype)), Step(obs, jnp.float32(0), jnp.bool_(False), jnp.bool_(False))

        return wrap(env._replace(reset=reset, step=step, carry_over=None), wrappers)

    def begin(obs):
        wrapped = around(obs)
        state, seen = wrapped.reset(key, wrapped.params)
        if wrapped.carry_over is not None:
            state, seen = wrapped.carry_over(_with_statistics(state, iter(statistics)), state, seen)
        return _remembered(state), seen

    def step(obs, state, action):
        wrapped = around(obs)
        state = _with_statistics(state, iter(statistics))
        # Of the form that a step returns, since wrappers may choose between the states before and after one.
        state = _map_received(lambda x: _Received(jnp.zeros(space.shape, dtype)), state)
        state, after = wrapped.step(key, state, action, wrapped.params)
        return state, after.obs

    def proceed(obs, state, action):
        state, seen = step(obs, state, action)
        return _remembered(state), seen

    def received(obs, state, action):
        found = jax.tree.leaves(step(obs, state, action)[0], is_leaf=lambda x: isinstance(x, _Received))
        return next(x.action for x in found if isinstance(x, _Received))

    return begin, proceed, received


def _is_recurrent(agent: Agent, params: Any, seen: Any) -> bool:
    """Whether the greedy policy changes its carry: that of some agents only serves exploration."""
    batch = lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype)
    carry = jax.eval_shape(lambda: agent.initial_carry(1))

    def step(carry, seen):
        return jax.tree.leaves(agent.exploit(params, seen, carry, jax.random.key(0))[1])

    jaxpr = jax.make_jaxpr(step)(carry, jax.tree.map(batch, seen)).jaxpr
    return any(x is not y for x, y in zip(jaxpr.outvars, jaxpr.invars, strict=False))


# --- running statistics of the wrapper normalize_observations --------------------------------------


def _is_normalized(x: Any) -> bool:
    return isinstance(x, NormalizedObservations)


def _statistics_in(state: Any) -> list[Any]:
    """The statistics of each `normalize_observations` in the state of an environment, the outermost first."""
    found: list[Any] = []
    for x in jax.tree.leaves(state, is_leaf=_is_normalized):
        found += [x.statistics, *_statistics_in(x.env)] if _is_normalized(x) else []
    return found


def _with_statistics(state: Any, statistics: Iterator[Any]) -> Any:
    """The state with these statistics, the outermost first."""

    def one(x):
        return x._replace(statistics=next(statistics), env=_with_statistics(x.env, statistics)) if _is_normalized(x) else x

    return jax.tree.map(one, state, is_leaf=_is_normalized)


def _remembered(state: Any) -> Any:
    """The state without what is constant, the statistics, or not read, the action that was received."""
    state = _with_statistics(state, iter(lambda: (), None))  # without end
    return _map_received(lambda x: _Received(()), state)


def _map_received(fn: Callable[[_Received], _Received], state: Any) -> Any:
    is_received = lambda x: isinstance(x, _Received)
    return jax.tree.map(lambda x: fn(x) if is_received(x) else x, state, is_leaf=is_received)


def _merged(statistics: Any) -> Any:
    """Merge the statistics of all environments, leaves `[B, ...]`."""
    is_statistics = lambda x: isinstance(x, RunningStatistics)
    return jax.tree.map(lambda x: jax.jit(merge_all)(x) if is_statistics(x) else x, statistics, is_leaf=is_statistics)


# --- acting from NumPy ------------------------------------------------------------------------------


def _stateful(function: PolicyFunction) -> tuple[Callable[[Any], np.ndarray], Callable[..., None]]:
    """The functions `act` and `reset` of a `Policy`."""
    compiled = jax.jit(function.act)
    carry: list[np.ndarray] | None = None

    def act(obs: Any) -> np.ndarray:
        nonlocal carry
        batch, single = _as_batch(function.observation_space, obs)
        num = len(jax.tree.leaves(batch)[0])
        if carry is None:
            carry = zero_carry(function, num)
        if carry and len(carry[0]) != num:
            raise ValueError(f"this policy remembers episodes, {len(carry[0])} at once so far; got {num}: call reset() first")
        action, *after = map(np.asarray, compiled(batch, *carry))
        carry = after
        return action[0] if single else action

    def reset(mask: Any = None) -> None:
        nonlocal carry
        if mask is None or carry is None:
            carry = None
            return
        keep = ~np.asarray(mask, bool)
        if carry and keep.shape != (len(carry[0]),):
            raise ValueError(f"reset takes a bool mask of shape ({len(carry[0])},); got shape {keep.shape}")
        carry = [np.where(keep.reshape(-1, *(1,) * (x.ndim - 1)), x, np.zeros_like(x)) for x in carry]

    return act, reset


def zero_carry(function: PolicyFunction, num: int) -> list[np.ndarray]:
    """The carry at the start of `num` episodes."""
    return [np.zeros((num, *x.shape), x.dtype) for x in function.carry]


def _as_batch(space: Space, obs: Any) -> tuple[Any, bool]:
    """Observations with a leading axis, in the dtypes of the space, and whether there was only one, without that axis."""
    if not isinstance(space, Dict):
        batch, single = _leaf_as_batch("obs", space, obs)
        return batch, single
    if not isinstance(obs, Mapping) or set(obs) != set(space):
        got = f"a dict with {', '.join(map(str, obs))}" if isinstance(obs, Mapping) else type(obs).__name__
        raise ValueError(f"obs must be a dict with the entries {', '.join(space)}; got {got}")
    parts = {name: _as_batch(entry, obs[name]) for name, entry in space.items()}
    sizes = {(len(jax.tree.leaves(batch)[0]), single) for batch, single in parts.values()}
    if len(sizes) > 1:
        raise ValueError("the entries of obs must all be of one observation, or all of a batch of one size")
    return {name: batch for name, (batch, _) in parts.items()}, sizes.pop()[1]


def _leaf_as_batch(name: str, space: Any, obs: Any) -> tuple[np.ndarray, bool]:
    x, dtype = np.asarray(obs), jax.dtypes.canonicalize_dtype(space.dtype)
    if x.shape[x.ndim - len(space.shape) :] != space.shape or x.ndim - len(space.shape) not in (0, 1) or x.size == 0:
        shape = list(space.shape)
        raise ValueError(f"{name} must have the shape {shape}, or {['B', *shape]} for a batch; got {list(x.shape)}")
    if dtype != np.dtype(bool) and not np.can_cast(x.dtype, dtype, "same_kind"):
        raise TypeError(f"{name} must be of dtype {dtype}, as in {space}; got {x.dtype}")
    x = x.astype(dtype)
    return (x[None], True) if x.ndim == len(space.shape) else (x, False)
