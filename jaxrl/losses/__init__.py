"""Losses and temporal-difference errors, as functions of arrays that depend only on jax.

Names follow Sutton & Barto and rlax: `_tm1` is the state in which the agent acted, `_t` its successor. Every
function takes any leading axes `[...]` and returns an array of that shape; the caller takes the mean, with
weights or a mask. `discount_t` is γ, or 0 where the episode *terminated* (not where it was truncated).

Illegal actions have the action value or logit −inf (in distributions of returns, all logits or quantiles of the
action are −inf). The result then depends only on the legal actions, and illegal actions get no gradient.
At least one action must be legal, except in a successor whose `discount_t` is 0.
`jaxrl.distributions.mask_illegal` masks by a boolean array.

Floating-point arguments are promoted to their common floating type, which the result has. Integers and
booleans are converted to it, and so are hyperparameters, which do not widen it. Shapes that do not match
raise a ValueError, and actions that are not integers a TypeError, when the function is traced.
"""

from jaxrl.losses.actor_critic import deterministic_policy_gradient, sac_actor, sac_temperature, soft_td_error, soft_value
from jaxrl.losses.distributional import (
    categorical_double_q_learning,
    categorical_l2_project,
    categorical_mean,
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
    "categorical_mean",
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
    "soft_value",
    "td_learning",
]
