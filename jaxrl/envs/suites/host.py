"""Environments on the host, outside any compiled program: tracing knows their spaces, `experiment.host` steps them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import mlir

from jaxrl.types import Environment, Space, Step


class HostEnvs(NamedTuple):
    """B environments, open and ready; arrays are NumPy's, in the dtypes of the spaces."""

    reset: Callable[..., Any]
    # reset: (seeds=None, mask=None) -> obs[B, ...]: all, or those where the bool mask[B] is set, which keeps the other rows
    step: Callable[[Any], tuple[Any, Any, Any, Any]]
    # step: (action[B, ...]) -> obs, reward, terminated, truncated: as `Step`, batched; nothing is reset
    close: Callable[[], None]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Host:
    """Stands where other environments have their parameters, and its `reset` and `step` where they have theirs.

    Whatever looks at shapes alone takes the record like any other: `make_learner`, presets, networks. The two
    functions trace, and refuse to be compiled or run.
    """

    name: str
    observation_space: Space
    action_space: Space
    open: Callable[[int], HostEnvs]  # (num_envs)
    max_steps_in_episode: int | None

    def environment(self) -> Environment:
        return Environment(self.reset, self.step, self, self.observation_space, self.action_space, self.name)

    def reset(self, key: jax.Array, params: Any) -> tuple[Any, jax.Array]:
        return (), self._unknown(self.observation_space.shape, self.observation_space.dtype)

    def step(self, key: jax.Array, state: Any, action: jax.Array, params: Any) -> tuple[Any, Step]:
        _, obs = self.reset(key, params)
        flags = (self._unknown((), np.bool_) for _ in range(2))
        return (), Step(obs, self._unknown((), np.float32), *flags)

    def _unknown(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        message = (
            f"{self.name} runs on the host and is no JAX program: train it with jaxrl.experiment.train_on_host and play it "
            "with jaxrl.experiment.evaluate_on_host"
        )
        return _unknown.bind(shape=shape, dtype=np.dtype(dtype), message=message)


def _refuse(*_: Any, message: str, **__: Any) -> Any:
    raise TypeError(message)


# An array of which only the type is known: it can be traced, so that what it flows into is checked, and nothing else.
_unknown = Primitive("unknown")
_unknown.def_abstract_eval(lambda *, shape, dtype, message: jax.core.ShapedArray(shape, dtype))
_unknown.def_impl(_refuse)
mlir.register_lowering(_unknown, _refuse)
