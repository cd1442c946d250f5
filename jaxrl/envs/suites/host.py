"""Environments that run on the host, outside compiled programs: they can be traced, and `experiment.host` steps them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import mlir

from jaxrl.spaces import Space, spec
from jaxrl.types import Environment, Step


class HostEnvs(NamedTuple):
    """B open environments. Arrays are NumPy arrays in the dtypes of the spaces; observations are pytrees `[B, ...]`."""

    reset: Callable[..., Any]
    # reset: (seeds=None, mask=None) -> obs: resets all, or those where the bool mask[B] is set and keeps the other rows
    step: Callable[[Any], tuple[Any, Any, Any, Any]]
    # step: (action[B, ...]) -> obs, reward, terminated, truncated: as `Step`, batched; it never resets
    close: Callable[[], None]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Host:
    """Describes an environment on the host; it replaces the parameters of an `Environment`.

    `reset` and `step` can be traced, so that everything that only needs shapes works as usual: `make_learner`, presets,
    networks. Compiling or running them raises TypeError.
    """

    name: str
    observation_space: Space
    action_space: Space
    open: Callable[[int], HostEnvs]  # (num_envs)
    max_steps_in_episode: int | None

    def environment(self) -> Environment:
        return Environment(self.reset, self.step, self, self.observation_space, self.action_space, self.name)

    def reset(self, key: jax.Array, params: Any) -> tuple[Any, Any]:
        return (), jax.tree.map(lambda leaf: self._unknown(leaf.shape, leaf.dtype), spec(self.observation_space))

    def step(self, key: jax.Array, state: Any, action: jax.Array, params: Any) -> tuple[Any, Step]:
        _, obs = self.reset(key, params)
        reward = self._unknown((), np.float32) + jnp.sum(action).astype(np.float32)  # so that a trace depends on the action
        flags = (self._unknown((), np.bool_) for _ in range(2))
        return (), Step(obs, reward, *flags)

    def _unknown(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        message = (
            f"{self.name} runs on the host and cannot be compiled: train with jaxrl.experiment.train_on_host and evaluate with "
            "jaxrl.experiment.evaluate_on_host"
        )
        return _unknown.bind(shape=shape, dtype=np.dtype(dtype), message=message)


def _refuse(*_: Any, message: str, **__: Any) -> Any:
    raise TypeError(message)


# An array of known shape and dtype, but without a value: it can be traced, and neither compiled nor computed.
_unknown = Primitive("unknown")
_unknown.def_abstract_eval(lambda *, shape, dtype, message: jax.core.ShapedArray(shape, dtype))
_unknown.def_impl(_refuse)
mlir.register_lowering(_unknown, _refuse)
