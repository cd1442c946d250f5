"""What a policy of a run folder has learned: saliency, maps, and statistics of its greedy episodes, as NumPy arrays."""

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import explain
from jaxrl._src.checks import check_size
from jaxrl._src.numbers import shown
from jaxrl.algorithms import algorithm
from jaxrl.experiment.config import Config, load_config
from jaxrl.experiment.deployment import read_policy
from jaxrl.experiment.host import is_on_host
from jaxrl.experiment.policies import SavedPolicy, restored_env_state
from jaxrl.outputs import LOGITS
from jaxrl.rendering.drawings import DRAWINGS
from jaxrl.rendering.episodes import record_episodes
from jaxrl.rendering.film import Play
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space
from jaxrl.types import Environment, Learner

Outputs = Callable[[Any], explain.Outputs]  # of a pair of one observation and a carry

_MAX_OBSERVATIONS = 1024  # for which saliency is computed, and between which maps are averaged
_NUM_NEIGHBORS = 32
_NUM_STEPS = 32  # of integrated gradients
_NUM_MOMENTS = 5  # images
_STILL_COUNTS = 0.1  # a return is known where later rewards, cut off with the episode, would have less weight than this


class Moment(NamedTuple):
    """A step of an episode in which the choice of the action mattered much."""

    time: int
    env_state: Any
    obs: np.ndarray  # [H, W, C]
    saliency: np.ndarray  # [H, W, C], of the action that was taken
    action: Any


class Explanation(NamedTuple):
    """What the picture shows. N observations, d components, m numbers of a Box or n actions."""

    title: str
    env: Environment
    drawn_as: str  # the name of the environment in `rendering.drawings`
    discount: float
    returns: np.ndarray  # [E], of the episodes
    cut_after: int | None  # steps, where an episode had not ended and its return misses later rewards
    components: list[str]  # [d]
    observations: np.ndarray  # [N, d], those visited
    saliency: dict[str, np.ndarray]  # shares [d] that sum to 1, for "action" and, if there is one, "value"
    dims: tuple[int, int] | None  # of the maps; None without maps
    value: explain.Map | None  # values [H, W]
    value_is_measured: bool  # a mean of discounted returns; otherwise the policy's own value
    policy: explain.Map | None  # probabilities [H, W, n] of a component, or actions [H, W, m]
    statistics: Any  # of `explain.action_statistics`
    actions: np.ndarray  # [steps, *action_shape]
    moments: list[Moment]  # for images


def explain_policy(
    run: Path | str, *, seed: int | None = None, setting: Mapping[str, float] | None = None, which: str = "last",
    dims: tuple[int, int] | None = None, num_episodes: int = 8, max_steps: int = 500, episode_seed: int = 0,
) -> Explanation:  # fmt: skip
    """Explain one policy of a run folder, by greedy episodes.

    Saliency is the mean absolute integrated gradient over the visited observations: of the preference for the action that is
    chosen, or of each number of a Box, and of the value. The baseline is the mean visited observation; for images it is zeros.

    Args:
      run: the folder of a finished run.
      seed, setting, which: as for `jaxrl.load_policy`.
      dims: the components of the observation on the axes of the maps; by default the two with the largest saliency.
      num_episodes: episodes to play.
      max_steps: steps after which an episode is cut.
      episode_seed: seed of the episodes.

    Raises:
      ValueError: for a folder without a finished run or without this policy, a policy that has diverged, an environment on the
        host, observations without components that vary, and components that do not exist.
      TypeError: for numbers that are not ints.
    """
    check_size("the seed of the episodes", episode_seed, minimum=0, maximum=2**32 - 1)
    num_episodes, max_steps = check_size("episodes", num_episodes), check_size("max_steps", max_steps)
    config = load_config(Path(run))
    preset = config.preset()
    env = preset.learner.env
    if is_on_host(preset.learner):
        raise ValueError(f"explain needs an environment that is a JAX program, and {config.env} runs on the host")
    is_image = isinstance(env.observation_space, Box) and len(env.observation_space.shape) == 3
    names = _component_names(config, env.observation_space)
    _check_dims(dims, names, is_image)
    index, policy = read_policy(Path(run), config, preset, seed, setting or {}, which)
    policy = jax.tree.map(jnp.asarray, policy)
    episodes = _play(preset.learner, policy, jax.random.key(episode_seed), num_episodes, max_steps)
    outputs = explain.outputs_of_settings(config.settings, env)
    function = lambda pair: outputs.apply(policy.params, *pair)
    swept = config.identifiers()[index]  # the preset has the values that all runs share
    discount = float(swept.get("discount", getattr(preset.hparams, "discount", 0.99)))
    pairs, later_returns = _sample(episodes, discount)
    vectors = np.asarray(jax.vmap(lambda obs: explain.components(obs)[0])(pairs[0]))
    baseline = jnp.zeros(len(names)) if is_image else jnp.mean(jnp.asarray(vectors), axis=0)
    saliency = {name: _share(x) for name, x in _saliency(function, env.action_space, pairs, baseline).items()}
    if not all(np.isfinite(share).all() for share in saliency.values()):
        raise ValueError(f"the policy of {_title(config, index)}, has diverged (it is NaN); choose another seed or setting")
    has_value = "value" in saliency
    if dims is None and not is_image and len(names) > 1:
        first, second = np.argsort(-np.sum(list(saliency.values()), axis=0), kind="stable")[:2].tolist()
        dims = min(first, second), max(first, second)
    value, shown_policy = None, None
    if dims is not None:
        draw = functools.partial(_maps, function, outputs.kind, env.action_space, has_value=has_value)
        value, shown_policy = draw(pairs, vectors, later_returns, dims)
    actions, valid = episodes.play.action, episodes.valid
    statistics = explain.action_statistics(env.action_space, jnp.asarray(actions), jnp.asarray(valid))
    return Explanation(
        title=_title(config, index),
        env=env,
        drawn_as=config.env,
        discount=discount,
        returns=np.sum(episodes.play.reward * valid, axis=0),
        cut_after=None if episodes.ended.all() else max_steps,
        components=names,
        observations=vectors,
        saliency=saliency,
        dims=dims,
        value=value,
        value_is_measured=not has_value,
        policy=shown_policy,
        statistics=jax.tree.map(np.asarray, statistics),
        actions=actions[valid],
        moments=_moments(function, env.action_space, episodes) if is_image else [],
    )


# --- episodes -----------------------------------------------------------------------------------------


class _Episodes(NamedTuple):
    play: Play  # NumPy arrays, leaves [T, E, ...], without the last observation and state
    carry: Any  # of the policy before each step, leaves [T, E, ...]
    valid: np.ndarray  # bool [T, E]: before the end of the episode
    cut: np.ndarray  # bool [E]: the episode had not terminated
    ended: np.ndarray  # bool [E]: it had terminated, or been truncated by the environment


def _play(learner: Learner, policy: SavedPolicy, key: jax.Array, num_episodes: int, max_steps: int) -> _Episodes:
    agent = learner.agent

    @jax.jit
    def record(policy):
        env_state = restored_env_state(learner, policy)
        play = record_episodes(
            key, learner.env, agent, policy.params, num_episodes=num_episodes, max_steps=max_steps, env_state=env_state
        )
        step = lambda carry, obs: (agent.exploit(policy.params, obs, carry, key)[1], carry)
        before = jax.tree.map(lambda x: x[:-1], play.obs)
        return play, jax.lax.scan(step, agent.initial_carry(num_episodes), before)[1]

    play, carry = jax.tree.map(np.asarray, record(policy))
    play = play._replace(obs=jax.tree.map(np.asarray, explain.as_floats(learner.env.observation_space, play.obs)))
    play = play._replace(**{name: jax.tree.map(lambda x: x[:-1], getattr(play, name)) for name in ("state", "obs")})
    done = play.terminated | play.truncated
    over = np.cumsum(done, axis=0) - done > 0
    return _Episodes(play, carry, ~over, ~np.any(play.terminated & ~over, axis=0), np.any(done, axis=0))


def _sample(episodes: _Episodes, discount: float) -> tuple[Any, np.ndarray]:
    """Pairs (observation, carry) from all episodes, leaves `[N, ...]`, and the discounted returns that followed, NaN if unknown.

    Where an episode was cut, the returns of its last steps miss rewards, and are unknown.
    """
    valid, reward = episodes.valid, episodes.play.reward * episodes.valid
    num_steps = len(valid)
    later = np.zeros(reward.shape[1:])
    returns = np.empty(reward.shape)
    for t in reversed(range(num_steps)):
        returns[t] = later = reward[t] + discount * later
    remaining = np.maximum(0, valid.sum(axis=0)[None] - np.arange(num_steps)[:, None])  # after the end, a power would overflow
    known = ~episodes.cut[None] | (discount**remaining < _STILL_COUNTS)
    returns = np.where(known | ~known[valid].any(), returns, np.nan)
    steps = np.flatnonzero(valid)
    chosen = np.sort(np.random.default_rng(0).permutation(steps)[:_MAX_OBSERVATIONS])
    pick = lambda x: x.reshape(-1, *x.shape[2:])[chosen]
    return jax.tree.map(lambda x: jnp.asarray(pick(x)), (episodes.play.obs, episodes.carry)), pick(returns)


# --- saliency -----------------------------------------------------------------------------------------


def _preferences(action: jax.Array, action_space: Space) -> jax.Array:
    """Weights `[k, n]` of the outputs for the action: k numbers whose saliency is that of the action.

    For a Box they are the numbers of the action. Otherwise it is one number, the preference for the greedy action over the
    mean of the legal ones, summed over the components of a `MultiDiscrete`.
    """
    if isinstance(action_space, Box):
        return jnp.eye(action.shape[0])
    weights = []
    for part in jnp.split(action, np.cumsum(sizes_of(action_space))[:-1]):
        legal = (part > -jnp.inf).astype(jnp.float32)
        weights.append(jax.nn.one_hot(jnp.argmax(part), part.shape[0], dtype=jnp.float32) - legal / jnp.sum(legal))
    return jnp.concatenate(weights)[None]


def sizes_of(action_space: Any) -> tuple[int, ...]:
    """The numbers of actions of the components of a `Discrete` or `MultiDiscrete`."""
    return (action_space.n,) if isinstance(action_space, Discrete) else action_space.nvec


def _saliency(function: Outputs, action_space: Space, pairs: Any, baseline: jax.Array) -> dict[str, jax.Array]:
    """Integrated gradients `[N, d]` of the action and of the value; for a Box the mean of their sizes over its numbers."""

    def of_one(obs, carry):
        vector, restore = explain.components(obs)
        attribute = lambda f: explain.integrated_gradients(f, vector, baseline, num_steps=_NUM_STEPS)
        outputs = lambda x: function((restore(x), carry))

        def preference(weights, x):
            action = outputs(x).action
            return jnp.sum(weights * jnp.where(action > -jnp.inf, action, 0.0))

        weights = _preferences(outputs(vector).action, action_space)
        each = jax.vmap(lambda w: attribute(lambda x: preference(w, x)))(weights)
        found = {"action": jnp.mean(jnp.abs(each), axis=0) if isinstance(action_space, Box) else each[0]}
        if outputs(vector).value is not None:
            found["value"] = attribute(lambda x: outputs(x).value)
        return found

    return jax.jit(jax.vmap(of_one))(*pairs)


def _share(saliency: jax.Array) -> np.ndarray:
    """The share of each component `[d]` in the total size of saliencies `[N, d]`."""
    size = np.mean(np.abs(np.asarray(saliency)), axis=0)
    return size / max(size.sum(), 1e-12)


def _moments(function: Outputs, action_space: Space, episodes: _Episodes) -> list[Moment]:
    """Steps of the first episode whose choice of an action mattered most, at least a tenth of the episode apart, in order."""
    num = int(episodes.valid[:, 0].sum())
    first = lambda tree: jax.tree.map(lambda x: x[:num, 0], tree)
    pairs = jax.tree.map(jnp.asarray, first((episodes.play.obs, episodes.carry)))

    def gap(obs, carry):
        action = function((obs, carry)).action
        weights = _preferences(action, action_space)
        return jnp.sum(jnp.abs(weights @ jnp.where(action > -jnp.inf, action, 0.0)))

    gaps = np.asarray(jax.jit(jax.vmap(gap))(*pairs))
    chosen: list[int] = []
    for t in np.argsort(-gaps).tolist():
        if len(chosen) < _NUM_MOMENTS and all(abs(t - other) > num / (2 * _NUM_MOMENTS) for other in chosen):
            chosen.append(t)
    times = np.array(sorted(chosen))
    at = jax.tree.map(lambda x: x[times], pairs)
    shape = at[0].shape[1:]
    saliency = np.asarray(_saliency(function, action_space, at, jnp.zeros(math.prod(shape)))["action"]).reshape(-1, *shape)
    states, obs, actions = first((episodes.play.state, episodes.play.obs, episodes.play.action))
    return [
        Moment(t, jax.tree.map(lambda x, t=t: x[t], states), obs[t], saliency[i], actions[t])
        for i, t in enumerate(times.tolist())
    ]


# --- maps ---------------------------------------------------------------------------------------------


def _maps(
    function: Outputs, kind: str, action_space: Space, pairs: Any, vectors: np.ndarray, later_returns: np.ndarray,
    dims: tuple[int, int], *, has_value: bool,
) -> tuple[explain.Map, explain.Map]:  # fmt: skip
    """The maps of the value and of the policy over two components.

    Without a value of its own, the value of a policy is the mean of the returns that followed observations nearby.
    """

    def outputs(pair):
        action, value = function(pair)
        if isinstance(action_space, Discrete | MultiDiscrete):
            action = _probabilities(kind, action, action_space)
        return (action, value) if has_value else (action,)

    num_neighbors = min(_NUM_NEIGHBORS, len(vectors))
    drawn = jax.jit(lambda pairs: explain.grid_map(outputs, pairs, dims, num_neighbors=num_neighbors))(pairs)
    drawn = jax.tree.map(np.asarray, drawn)
    policy = drawn._replace(values=drawn.values[0])
    if has_value:
        return drawn._replace(values=drawn.values[1]), policy
    known = ~np.isnan(later_returns)
    points = jnp.asarray(vectors[known][:, list(dims)])
    indices, distance = explain.nearest(points, jnp.asarray(drawn.x), jnp.asarray(drawn.y), min(num_neighbors, len(points)))
    measured = np.mean(later_returns[known][np.asarray(indices)], axis=-1)
    return policy._replace(values=measured, distance=np.asarray(distance)), policy


def _probabilities(kind: str, action: jax.Array, action_space: Discrete | MultiDiscrete) -> jax.Array:
    """Of the actions of a `Discrete`, or of the first component of a `MultiDiscrete`, `[n]`."""
    first = action[: sizes_of(action_space)[0]]
    if kind == LOGITS:
        return jax.nn.softmax(first)
    return jax.nn.one_hot(jnp.argmax(first), first.shape[0], dtype=jnp.float32)


# --- names and checks ---------------------------------------------------------------------------------


def _component_names(config: Config, space: Space) -> list[str]:
    names = explain.component_names(space)
    known = DRAWINGS[config.env].components if config.env in DRAWINGS else ()
    return list(known) if len(known) == len(names) else names


def _check_dims(dims: tuple[int, int] | None, names: list[str], is_image: bool) -> None:
    if dims is None:
        return
    if is_image:
        raise ValueError("dims are for observations that are vectors; the picture of images has no maps")
    if len(dims) != 2 or dims[0] == dims[1] or not all(0 <= dim < len(names) for dim in dims):
        known = ", ".join(f"{i} ({name})" if str(i) != name else name for i, name in enumerate(names[:20]))
        raise ValueError(f"dims must be two different components of the observation, {known}; got {' '.join(map(str, dims))}")


def _title(config: Config, index: int) -> str:
    identifier = ", ".join(f"{name} {shown(value)}" for name, value in config.identifiers()[index].items())
    return f"{algorithm(config.settings.algorithm).title} on {config.env_title}, {identifier}"
