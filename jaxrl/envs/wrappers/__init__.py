"""Wrappers: pure functions from `Environment` to `Environment`, which compose in any order; see docs/wrappers.md."""

from jaxrl.envs.wrappers.actions import (
    action_grid,
    action_repeat,
    clip_actions,
    discretize_actions,
    flatten_actions,
    rescale_actions,
    sticky_actions,
)
from jaxrl.envs.wrappers.drift import drift_params, linear_drift
from jaxrl.envs.wrappers.episodes import EpisodeStatistics, episode_statistics, find_state, time_limit
from jaxrl.envs.wrappers.normalization import (
    NormalizedObservations,
    NormalizedRewards,
    normalize_observations,
    normalize_rewards,
)
from jaxrl.envs.wrappers.observations import flatten, frame_stack, observation_noise, one_hot, partial_observation, time_aware
from jaxrl.envs.wrappers.randomization import (
    over_levels,
    over_params,
    params_grid,
    randomize_params,
    split_params,
    uniform_params,
)
from jaxrl.envs.wrappers.recurrence import previous_action_and_reward
from jaxrl.envs.wrappers.rewards import clip_rewards, scale_rewards
from jaxrl.running_statistics import RunningStatistics, freeze, merge, merge_all, standardize, synchronize

__all__ = [
    "EpisodeStatistics",
    "NormalizedObservations",
    "NormalizedRewards",
    "RunningStatistics",
    "action_grid",
    "action_repeat",
    "clip_actions",
    "clip_rewards",
    "discretize_actions",
    "drift_params",
    "episode_statistics",
    "find_state",
    "flatten",
    "flatten_actions",
    "frame_stack",
    "freeze",
    "linear_drift",
    "merge",
    "merge_all",
    "normalize_observations",
    "normalize_rewards",
    "observation_noise",
    "one_hot",
    "over_levels",
    "over_params",
    "params_grid",
    "partial_observation",
    "previous_action_and_reward",
    "randomize_params",
    "rescale_actions",
    "scale_rewards",
    "split_params",
    "standardize",
    "sticky_actions",
    "synchronize",
    "time_aware",
    "time_limit",
    "uniform_params",
]
