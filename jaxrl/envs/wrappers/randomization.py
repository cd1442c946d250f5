"""New parameters for every episode: domain randomisation, and sets of parameters or levels for training and testing."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import FINITE, check_key, check_number, check_size
from jaxrl.envs.wrappers._inner import carry_over_inside, inner_time_limit
from jaxrl.types import Environment, EnvState, PyTree

Sample = Callable[[jax.Array, PyTree], PyTree]  # (key, params) -> the parameters of an episode


class Randomized(NamedTuple):
    """State of `randomize_params` and `over_params`."""

    env: EnvState
    params: PyTree  # of this episode


class ParamSet(NamedTuple):
    """Parameters of `over_params`."""

    members: PyTree  # leaves [N, ...]

    @property
    def max_steps_in_episode(self) -> Any:
        """The longest time limit of all members."""
        limits = getattr(self.members, "max_steps_in_episode", None)
        if limits is None:
            return None
        return jnp.max(limits) if isinstance(limits, jax.core.Tracer) else np.max(limits)


def randomize_params(env: Environment, sample: Sample) -> Environment:
    """Domain randomisation: draw new parameters at each reset and keep them for the episode.

    Tobin et al. 2017; for dynamics, Peng et al. 2018. The environment's `params` stay the nominal ones, which `sample`
    receives; a learner compares the length of its rollouts with their time limit, and the spaces are theirs. So make `env` with
    the largest time limit and the widest bounds that can be drawn. The drawn parameters are part of the state, so every
    environment of a batch stores its own.

    Args:
      env: any environment.
      sample: `(key, params) -> params`, traced; e.g. from `uniform_params`. It must return parameters with the structure and
        shapes of `env.params`.

    Raises:
      ValueError: if `sample` returns anything else.
      TypeError: if it is not a function.
    """
    check_function("randomize_params: sample", sample)
    drawn = jax.eval_shape(lambda key: strongly_typed(sample(key, env.params)), jax.random.key(0))
    check_same("randomize_params: sample must return parameters like env.params", drawn, env.params)
    return _randomize(env, sample)


def uniform_params(**ranges: tuple[Any, Any]) -> Sample:
    """Return a `sample` that draws the named parameters uniformly from (low, high), as float32, and keeps the others.

    Every component of an array is drawn independently. If several wrappers have a parameter of the same name, the outermost
    one is drawn.

    Raises:
      ValueError: if a range is not finite, or its low is above its high; and when the result is called, if there is no such
        parameter.
      TypeError: if a range is not two numbers.

    >>> import jaxrl
    >>> env = randomize_params(jaxrl.make("PointMass"), uniform_params(noise_scale=(0.0, 0.1), start_range=(0.5, 2.0)))
    """
    bounds = {name: check_pair("uniform_params", name, range_) for name, range_ in ranges.items()}
    for name, (low, high) in bounds.items():
        if not any(isinstance(bound, jax.core.Tracer) for bound in (low, high)) and np.any(low > high):
            raise ValueError(f"uniform_params: {name} has low {low} above high {high}")

    def sample(key, params):
        keys = dict(zip(bounds, jax.random.split(key, len(bounds)), strict=True))

        def draw(name, old):
            low, high = (jnp.broadcast_to(bound, np.shape(old)) for bound in bounds[name])
            return jax.random.uniform(keys[name], np.shape(old), jnp.float32, low, high)

        return replace_params("uniform_params", params, bounds, draw)

    return sample


def check_pair(caller: str, name: str, pair: Any) -> tuple[Any, Any]:
    """Return two finite numbers or arrays. Raises TypeError or ValueError, with the names of caller and parameter."""
    try:
        first, second = pair
    except (TypeError, ValueError):
        raise TypeError(f"{caller}: {name} must be two numbers, such as {name}=(0.5, 2.0); got {pair!r}") from None
    return tuple(check_number(name, number, -FINITE[1], FINITE[1]) for number in (first, second))


def params_grid(params: PyTree, **values: Any) -> PyTree:
    """Every combination of some values of the named parameters, to evaluate a policy over them.

    If several wrappers have a parameter of the same name, it is that of the outermost one.

    Args:
      params: the others, such as `env.params`.
      values: for each parameter its values, `[K, ...]`, with trailing axes if the parameter is an array.

    Returns:
      Parameters with leaves `[N, ...]`, where N is the product of all K and the last name varies fastest, for `over_params` or
      `jaxrl.evaluate_over_params`.

    Raises:
      ValueError: if a parameter does not exist or has no values, or they have another shape or cannot have its dtype.

    >>> import jaxrl
    >>> grid = params_grid(jaxrl.make("PointMass").params, noise_scale=[0.0, 0.1], start_range=[0.5, 1.0, 2.0])
    >>> grid.noise_scale.shape, [round(float(x), 1) for x in grid.noise_scale], grid.start_range[:3].tolist()
    ((6,), [0.0, 0.0, 0.0, 0.1, 0.1, 0.1], [0.5, 1.0, 2.0])
    """
    columns = {name: np.asarray(column) for name, column in values.items()}
    for name, column in columns.items():
        if column.ndim == 0 or not len(column):
            raise ValueError(f"params_grid: {name} needs one or more values, such as {name}=[0.5, 1.0]; got {values[name]}")
    combinations = np.array(list(itertools.product(*(range(len(column)) for column in columns.values()))), int)
    chosen = {name: column[combinations[:, i]] for i, (name, column) in enumerate(columns.items())}

    def choose(name, old):
        if chosen[name].shape != old.shape:
            wanted = [len(columns[name]), *old.shape[1:]]
            raise ValueError(f"params_grid: the values of {name} must have the shape {wanted}; got {list(columns[name].shape)}")
        values = chosen[name].astype(old.dtype)
        if not jnp.issubdtype(old.dtype, jnp.inexact) and not np.array_equal(values, chosen[name]):
            raise ValueError(f"params_grid: {name} is {old.dtype}, which cannot be {columns[name].tolist()}")
        return jnp.asarray(values)

    repeated = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(combinations), *x.shape)), strongly_typed(params))
    return replace_params("params_grid", repeated, chosen, choose)


def check_function(name: str, fn: Any) -> None:
    if not callable(fn):
        raise TypeError(f"{name} must be a function, got {fn!r}")


def replace_params(caller: str, params: PyTree, names: Iterable[str], new: Callable[[str, Any], Any]) -> PyTree:
    """Replace the named parameters by `new(name, old)`, each in the outermost wrapper that has it.

    Raises ValueError, with the name of the `caller`, if there is no such parameter.
    """
    names = list(names)
    fields = _traced_fields(params)
    inside = [name for name in names if name not in fields or name == "env"]
    if inside and ("env" not in fields or "env" in inside):
        known = ", ".join(field for field in fields if field != "env")
        raise ValueError(f"{caller}: there is no parameter {', '.join(inside)}; there are {known or 'none'}")
    replaced = {"env": replace_params(caller, params.env, inside, new)} if inside else {}
    replaced |= {name: new(name, getattr(params, name)) for name in names if name in fields}
    replace = params._replace if hasattr(params, "_replace") else partial(dataclasses.replace, params)
    return replace(**replaced)


def _traced_fields(params: PyTree) -> tuple[str, ...]:
    """The names of the fields, without those that are structure."""
    if dataclasses.is_dataclass(params):
        return tuple(field.name for field in dataclasses.fields(params) if not field.metadata.get("static"))
    return getattr(params, "_fields", ())


def split_params(key: jax.Array, params: PyTree, sample: Sample, *, num_train: int, num_test: int) -> tuple[PyTree, PyTree]:
    """Draw parameters for training and for testing, to measure how well a policy generalises (Cobbe et al. 2019).

    Args:
      key: consumed.
      params: the nominal parameters, which `sample` receives.
      sample: as for `randomize_params`.
      num_train, num_test: the number of draws for each, at least 1.

    Returns:
      Parameters with leaves `[num_train, ...]` and `[num_test, ...]`, for `over_params`. All draws are independent, so if
      `sample` has few possible values, the same parameters may be in both.

    Raises:
      ValueError: if a number is below 1.
      TypeError: if `key` is not a typed PRNG key, or a number not an int.
    """
    check_key(key)
    num_train, num_test = check_size("num_train", num_train), check_size("num_test", num_test)
    keys = jax.random.split(key, num_train + num_test)
    drawn = jax.vmap(lambda key: strongly_typed(sample(key, params)))(keys)
    return jax.tree.map(lambda x: x[:num_train], drawn), jax.tree.map(lambda x: x[num_train:], drawn)


def over_params(env: Environment, members: PyTree) -> Environment:
    """Choose one of N sets of parameters uniformly at random at each reset, and keep it for the episode.

    Args:
      env: any environment.
      members: parameters like `env.params`, leaves `[N, ...]`, e.g. from `split_params`. They become `params.members`.

    Raises:
      ValueError: if the members have another structure than `env.params`, or their leading axes differ.
    """
    message = "over_params: members must be parameters like env.params with a leading axis of the same length N"
    shapes = [np.shape(x) for x in jax.tree.leaves(members)]
    num_members = max((shape[0] for shape in shapes if shape), default=0)
    if num_members == 0 or any(shape[:1] != (num_members,) for shape in shapes):
        raise ValueError(f"{message}; the shapes are {', '.join(str(list(shape)) for shape in shapes)}")
    one = jax.eval_shape(lambda: jax.tree.map(lambda x: strongly_typed(x)[0], members))
    check_same(message, one, env.params)

    def sample(key, params):
        member = jax.random.randint(key, (), 0, num_members)
        return jax.tree.map(lambda x: jnp.asarray(x)[member], params.members)

    return _randomize(env._replace(params=ParamSet(members)), sample)


class LevelSet(NamedTuple):
    """Parameters of `over_levels`."""

    env: Any
    seeds: Any  # uint32 [N]

    @property
    def max_steps_in_episode(self) -> Any:
        return inner_time_limit(self)


def over_levels(env: Environment, seeds: Any) -> Environment:
    """Play a fixed set of levels: each episode starts from the reset of one of N seeds, chosen uniformly at random.

    For environments whose reset generates a level, such as a maze: train on some seeds and test on others, to measure how well a
    policy generalises to levels that it has not seen (Cobbe et al. 2020). What is random in steps stays random.

    Args:
      env: any environment.
      seeds: N integers in 0 … 2^32 − 1; they become `params.seeds`.

    Raises:
      ValueError: if there are none, or they are not such integers.

    >>> import jaxrl
    >>> train_env = over_levels(jaxrl.make("PointMass"), range(10))
    >>> test_env = over_levels(jaxrl.make("PointMass"), range(1_000, 2_000))
    """
    numbers = np.asarray(seeds)
    if numbers.ndim != 1 or not numbers.size or not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(f"over_levels: seeds must be one or more integers, such as range(10); got {seeds!r}")
    if numbers.min() < 0 or numbers.max() >= 2**32:
        raise ValueError(f"over_levels: seeds lie in 0 to 2^32 - 1; got {numbers.min()} to {numbers.max()}")

    def reset(key, params):
        index = jax.random.randint(key, (), 0, len(params.seeds))
        return env.reset(jax.random.key(jnp.asarray(params.seeds)[index]), params.env)

    def step(key, state, action, params):
        return env.step(key, state, action, params.env)

    return env._replace(reset=reset, step=step, params=LevelSet(env.params, numbers.astype(np.uint32)))


def _randomize(env: Environment, sample: Sample) -> Environment:
    def reset(key, params):
        key, sample_key = jax.random.split(key)
        drawn = strongly_typed(sample(sample_key, params))
        state, obs = env.reset(key, drawn)
        return Randomized(state, drawn), obs

    def step(key, state, action, params):
        inside, after = env.step(key, state.env, action, state.params)
        return state._replace(env=inside), after

    return env._replace(reset=reset, step=step, carry_over=carry_over_inside(env))


def strongly_typed(params: PyTree) -> PyTree:
    """Convert to strongly typed arrays: the weak type of a Python number would change the type of the state."""

    def one(x):
        python = {int: jnp.int32, float: jnp.float32}.get(type(x))
        return jnp.asarray(x, python or jnp.result_type(x))

    return jax.tree.map(one, params)


def check_same(message: str, drawn: PyTree, params: PyTree) -> None:
    """Raise ValueError unless both have the same structure and shapes."""

    def kind(tree):
        return jax.tree.structure(tree), [np.shape(x) for x in jax.tree.leaves(tree)]

    if kind(drawn) != kind(params):
        shapes, wanted = (jax.tree.map(np.shape, tree) for tree in (drawn, params))
        raise ValueError(f"{message}, whose shapes are {wanted}; got {shapes}")
