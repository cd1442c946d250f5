"""Saved policies: the part of a trained agent that evaluation and rendering need."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import check_size
from jaxrl._src.keys import unwrap_keys, wrap_keys
from jaxrl.experiment.config import Config
from jaxrl.experiment.host import evaluate_policy_on_host, is_on_host
from jaxrl.presets import Preset
from jaxrl.rollout import evaluate_policy, greedy_policy
from jaxrl.types import EnvState, Learner, LearnerState, PolicyParams
from jaxrl.vectorization import vectorize

# No run reaches these iteration numbers, so evaluation never reuses a key of training. The episodes by which the best policies
# are chosen during training are not those by which the final ones are judged.
EVALUATION_STREAM, SELECTION_STREAM = 2**31 - 1, 2**31 - 2

Evaluate = Callable[[jax.Array, "SavedPolicy"], np.ndarray]  # keys [N], policies with leaves [N, ...] -> returns [N, episodes]


class SavedPolicy(NamedTuple):
    """A policy, or all policies of a run folder, with leaves `[num_runs, ...]`."""

    params: PolicyParams
    env_state: EnvState  # with its keys as arrays; () unless the environment has a carry_over


def policy_of(learner: Learner, state: LearnerState) -> SavedPolicy:
    """The policy of a run, without the state that only training needs."""
    env_state = () if learner.env.carry_over is None else unwrap_keys(state.env)
    return SavedPolicy(greedy_policy(learner.agent, state.agent), env_state)


def restored_env_state(learner: Learner, policy: SavedPolicy) -> EnvState | None:
    """The `env_state` that `rollout.play_episodes` takes, with typed keys; None if the environment has no carry_over."""
    if learner.env.carry_over is None:
        return None
    like = jax.eval_shape(learner.init, jax.random.key(0), learner.agent.hparams).env
    return wrap_keys(policy.env_state, like)


def abstract_policies(config: Config, preset: Preset | None = None) -> SavedPolicy:
    """Uninitialised arrays with the shapes and dtypes of the saved policies, for `folder.load_policies`."""
    preset = config.preset() if preset is None else preset
    init = lambda key, hparams: policy_of(preset.learner, preset.learner.init(key, hparams))
    hparams = jax.tree.map(jnp.float32, preset.hparams)
    one = jax.eval_shape(init, jax.random.key(0), hparams)
    return jax.tree.map(lambda x: np.empty((config.num_runs, *x.shape), x.dtype), one)


def evaluate_policies(config: Config, policies: SavedPolicy, *, num_episodes: int, seed: int | None = None) -> np.ndarray:
    """Play saved policies greedily, each on its own episodes, and return their returns `[num_runs, num_episodes]`.

    Args:
      config: the configuration with which they were trained.
      policies: leaves `[num_runs, ...]`.
      num_episodes: number of episodes per policy.
      seed: seed of the episodes; by default they are derived from the keys of the runs.

    Raises:
      TypeError, ValueError: if `num_episodes` or `seed` is not an int, or is out of range.
    """
    num_episodes = check_size("num_episodes", num_episodes)
    preset = config.preset()
    keys, _ = config.runs(preset)
    if seed is not None:
        check_size("seed", seed, minimum=0, maximum=2**32 - 1)
        keys = jax.random.split(jax.random.key(seed), config.num_runs)
    evaluate = in_slices(greedy_evaluation(preset.learner, num_episodes), slice_size(config, preset.learner))
    return evaluate(stream_of(keys, EVALUATION_STREAM), policies)


def stream_of(keys: jax.Array, stream: int) -> jax.Array:
    """The keys of evaluations from those of the runs, `[N]`."""
    return jax.vmap(lambda key: jax.random.fold_in(key, stream))(keys)


def greedy_evaluation(learner: Learner, num_episodes: int) -> Evaluate:
    """A function that plays policies greedily, each on its own episodes. It compiles once for each number of policies."""

    def play(key, policy):
        env_state = restored_env_state(learner, policy)
        return evaluate_policy(key, learner.env, learner.agent, policy.params, num_episodes=num_episodes, env_state=env_state)

    played = vectorize(play)

    def evaluate(keys, policies):
        return np.asarray(played(keys, jax.tree.map(jnp.asarray, policies)))

    def evaluate_on_the_host(keys, policies):
        one = lambda i: jax.tree.map(lambda x: x[i], policies.params)
        return np.stack([evaluate_policy_on_host(keys[i], learner, one(i), num_episodes=num_episodes) for i in range(len(keys))])

    return evaluate_on_the_host if is_on_host(learner) else evaluate


def slice_size(config: Config, learner: Learner) -> int:
    """The number of policies to evaluate at once where training does not tell how many runs it had at once."""
    return 1 if is_on_host(learner) else config.batch_size or config.num_runs


def in_slices(evaluate: Evaluate, size: int) -> Evaluate:
    """`evaluate` for slices of `size` policies, one after the other, or of fewer where these do not fit into memory.

    The last slice repeats a policy, so that a single program is compiled. As each policy has its own key, the returns do not
    depend on the size.
    """

    def evaluate_slices(keys, policies):
        nonlocal size  # what does not fit once is not tried again
        num = len(keys)
        while True:
            try:
                parts = []
                for first in range(0, num, size):
                    indices = np.minimum(first + np.arange(size), num - 1)
                    parts.append(evaluate(keys[indices], jax.tree.map(lambda x, i=indices: x[i], policies)))
                return np.concatenate(parts)[:num]
            except jax.errors.JaxRuntimeError as error:
                if size == 1 or "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                size = math.ceil(size / 2)

    return evaluate_slices


def as_numpy(tree: Any, num: int) -> Any:
    """The first `num` elements of each leaf, as NumPy arrays."""
    return jax.tree.map(lambda x: np.asarray(x)[:num], tree)
