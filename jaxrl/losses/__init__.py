"""Losses and temporal-difference errors: arrays in, arrays out, nothing but jax.

Names follow Sutton & Barto and rlax: `_tm1` is the step acted in, `_t` the step that followed. Every
function takes any leading dimensions `[...]` and returns one number for each of them; the caller takes
the mean, with weights or a mask. `discount_t` is γ, and 0 where the episode *terminated* (not where it
was truncated). Dtypes are kept. Shapes that do not fit are a ValueError, actions that are not integers
a TypeError, both when the function is traced.
"""

from jaxrl.losses.actor_critic import deterministic_policy_gradient, sac_actor, sac_temperature, soft_td_error
from jaxrl.losses.distributional import (
    categorical_double_q_learning,
    categorical_l2_project,
    categorical_q_learning,
    dueling,
    implicit_quantile_q_learning,
    quantile_q_learning,
    quantile_regression,
)
from jaxrl.losses.policies import entropy, policy_gradient, ppo_clip, ppo_value_loss
from jaxrl.losses.selection import greedy, select
from jaxrl.losses.td import (
    double_q_learning,
    expected_sarsa,
    munchausen_q_learning,
    persistent_q_learning,
    q_learning,
    sarsa,
    td_learning,
)

__all__ = [
    "categorical_double_q_learning",
    "categorical_l2_project",
    "categorical_q_learning",
    "deterministic_policy_gradient",
    "double_q_learning",
    "dueling",
    "entropy",
    "expected_sarsa",
    "greedy",
    "implicit_quantile_q_learning",
    "munchausen_q_learning",
    "persistent_q_learning",
    "policy_gradient",
    "ppo_clip",
    "ppo_value_loss",
    "q_learning",
    "quantile_q_learning",
    "quantile_regression",
    "sac_actor",
    "sac_temperature",
    "sarsa",
    "select",
    "soft_td_error",
    "td_learning",
]
