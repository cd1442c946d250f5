"""What a policy has learned: saliency, maps of values and actions, statistics of its actions, and where two policies disagree.

All functions but `policy_outputs` and `outputs_of_settings` take plain functions of one observation, without a batch axis, so
they explain any network; batch them with `vmap`. See docs/explain.md.
"""

from jaxrl.explain.actions import (
    BoxStatistics,
    Disagreement,
    DiscreteStatistics,
    action_statistics,
    most_disagreeing,
)
from jaxrl.explain.maps import Map, grid_map, nearest
from jaxrl.explain.policies import action_probabilities, outputs_of_settings, policy_outputs
from jaxrl.explain.saliency import as_floats, component_names, components, gradient, integrated_gradients, vary
from jaxrl.outputs import Outputs, PolicyOutputs

__all__ = [
    "BoxStatistics", "Disagreement", "DiscreteStatistics", "Map", "Outputs", "PolicyOutputs", "action_probabilities",
    "action_statistics", "as_floats", "component_names", "components", "gradient", "grid_map", "integrated_gradients",
    "most_disagreeing", "nearest", "outputs_of_settings", "policy_outputs", "vary",
]  # fmt: skip
