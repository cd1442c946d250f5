"""Saved policies: the part of a trained agent that evaluation and rendering need."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import check_size
from jaxrl._src.keys import unwrap_keys, wrap_keys
from jaxrl.experiment.config import Config
from jaxrl.experiment.host import evaluate_policy_on_host, is_on_host
from jaxrl.presets import Preset
from jaxrl.rollout import evaluate_policy
from jaxrl.types import EnvState, Learner, LearnerState, PolicyParams
from jaxrl.vectorization import vectorize

_EVALUATION_STREAM = 2**31 - 1  # no run reaches this iteration number, so evaluation never reuses a key of training


class SavedPolicy(NamedTuple):
    """A policy, or all policies of a run folder, with leaves `[num_runs, ...]`."""

    params: PolicyParams
    env_state: EnvState  # with its keys as arrays; () unless the environment has a carry_over


def policy_of(learner: Learner, state: LearnerState) -> SavedPolicy:
    """The policy of a run, without the state that only training needs."""
    env_state = () if learner.env.carry_over is None else unwrap_keys(state.env)
    return SavedPolicy(learner.agent.policy(state.agent), env_state)


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
    learner = (preset := config.preset()).learner
    keys, _ = config.runs(preset)
    if seed is not None:
        check_size("seed", seed, minimum=0, maximum=2**32 - 1)
        keys = jax.random.split(jax.random.key(seed), config.num_runs)
    keys = jax.vmap(lambda key: jax.random.fold_in(key, _EVALUATION_STREAM))(keys)

    def play(key, policy):
        env_state = restored_env_state(learner, policy)
        return evaluate_policy(key, learner.env, learner.agent, policy.params, num_episodes=num_episodes, env_state=env_state)

    def play_on_host(i):
        params = jax.tree.map(lambda x: x[i], policies.params)
        return evaluate_policy_on_host(keys[i], learner, params, num_episodes=num_episodes)

    if is_on_host(learner):
        return np.stack([play_on_host(i) for i in range(config.num_runs)])
    return np.asarray(vectorize(play)(keys, jax.tree.map(jnp.asarray, policies)))


def as_numpy(tree: Any, num: int) -> Any:
    """The first `num` elements of each leaf, as NumPy arrays."""
    return jax.tree.map(lambda x: np.asarray(x)[:num], tree)
