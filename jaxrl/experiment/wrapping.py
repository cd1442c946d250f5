"""Wrappers written as text, such as "frame_stack:4", for the command line and `config.json`."""

import inspect
from collections.abc import Sequence
from typing import Any

from jaxrl.envs import wrappers
from jaxrl.types import Environment

# Those of jaxrl.envs.wrappers whose arguments are numbers.
NAMES = (
    "action_repeat", "clip_actions", "clip_rewards", "discretize_actions", "episode_statistics", "flatten", "flatten_actions",
    "frame_stack", "normalize_observations", "normalize_rewards", "observation_noise", "one_hot", "partial_observation",
    "previous_action_and_reward", "rescale_actions", "scale_rewards", "sticky_actions", "time_aware", "time_limit",
)  # fmt: skip


def wrap(env: Environment, specs: Sequence[str]) -> Environment:
    """Apply wrappers in the order given, so that the last is the outermost.

    Args:
      env: any environment.
      specs: each is "NAME" or "NAME:ARGUMENTS", where the arguments are numbers in the order of the wrapper's signature,
        separated by commas. `partial_observation` takes a 1 or 0 for each component: whether it is visible.

    Raises:
      ValueError: for an unknown name, with the known ones; for arguments that are not numbers, or too many or too few of them;
        and where the wrapper does not accept the environment.

    >>> import jaxrl
    >>> wrap(jaxrl.make("CartPole-v1"), ["time_aware", "frame_stack:4"]).observation_space.shape
    (20,)
    """
    for spec in specs:
        name, arguments = parse(spec)
        try:
            env = getattr(wrappers, name)(env, **arguments)
        except (TypeError, ValueError) as error:
            raise ValueError(f"wrapper {spec!r}: {error}") from error
    return env


def parse(spec: str) -> tuple[str, dict[str, Any]]:
    """The wrapper's name and its arguments. Raises ValueError as `wrap`.

    >>> parse("clip_rewards:-1,0.5")
    ('clip_rewards', {'low': -1, 'high': 0.5})
    >>> parse("partial_observation:1,0")
    ('partial_observation', {'visible': [True, False]})
    """
    name, _, text = spec.partition(":")
    if name not in NAMES:
        raise ValueError(f"unknown wrapper {name!r}; there are {', '.join(NAMES)}")
    values = [_number(spec, word) for word in text.split(",")] if text else []
    if name == "partial_observation":
        return name, {"visible": _mask(spec, values)}
    _, *parameters = inspect.signature(getattr(wrappers, name)).parameters.values()
    required = [parameter for parameter in parameters if parameter.default is parameter.empty]
    if not len(required) <= len(values) <= len(parameters):
        takes = ", ".join(p.name if p in required else f"{p.name}={p.default}" for p in parameters) or "no arguments"
        raise ValueError(f"wrapper {spec!r}: {name} takes {takes}; got {len(values)} numbers")
    return name, {parameter.name: value for parameter, value in zip(parameters, values, strict=False)}


def _mask(spec: str, values: Sequence[float]) -> list[bool]:
    if not values or not set(values) <= {0, 1}:
        raise ValueError(f"wrapper {spec!r}: partial_observation takes a 1 or 0 for each component, such as 1,0,1,0")
    return [bool(value) for value in values]


def _number(spec: str, text: str) -> float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    raise ValueError(f"wrapper {spec!r}: {text!r} is not a number")
