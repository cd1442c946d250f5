"""Population-based training (Jaderberg et al. 2017): runs that copy the best of them, and change hyperparameters on the way."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import check_size
from jaxrl.experiment.sampling import Range, check_space
from jaxrl.experiment.stages import check_settings, compile_stages, stage_length
from jaxrl.learner import check_and_cast, check_iterations
from jaxrl.types import HParams, Learner, LearnerState

_FACTORS = 0.8, 1.2  # by which a hyperparameter is perturbed, as in the paper
_RESAMPLED = 0.25  # share of the hyperparameters that are drawn anew instead


class Generation(NamedTuple):
    """The members of a population at the end of a generation; each field but the first is `[N]`, or a dict of them."""

    num_iterations: int  # from the start of the run
    hparams: dict[str, np.ndarray]  # the values in this generation, by name
    scores: np.ndarray  # mean greedy returns
    parents: np.ndarray  # int, the member of the previous generation whose state each continued from


def exploit_and_explore(
    key: jax.Array,
    scores: jax.Array,
    states: LearnerState,
    hparams: HParams,
    space: Mapping[str, Range],
    *,
    num_replaced: int,
) -> tuple[LearnerState, HParams, jax.Array]:
    """Replace the worst members of a population by copies of the best, with changed hyperparameters.

    Each of the worst copies one of the best at random, with everything but its key: network, optimizer, replay, environments and
    hyperparameters. Each hyperparameter of `space` is then multiplied by 0.8 or 1.2, or with probability 1/4 drawn anew from its
    range, and clipped to it.

    Args:
      key: consumed.
      scores: `[N]`; NaN is the worst.
      states, hparams: leaves `[N, ...]`.
      space: the hyperparameters that change, with their ranges.
      num_replaced: Python int, the number of members to replace, and of those to copy.

    Returns:
      The states, the hyperparameters, and the index of each member's parent, int32 `[N]`.
    """
    order = jnp.argsort(jnp.where(jnp.isnan(scores), -jnp.inf, scores))
    losers, winners = order[:num_replaced], order[-num_replaced:]
    choice_key, *keys = jax.random.split(key, 1 + 3 * len(space))
    sources = jax.random.choice(choice_key, winners, (num_replaced,))
    copied = jax.tree.map(lambda x: x.at[losers].set(x[sources]), states)._replace(key=states.key)
    hparams = jax.tree.map(lambda x: x.at[losers].set(x[sources]), hparams)
    changed = {}
    for i, (name, values) in enumerate(space.items()):
        factor_key, resample_key, value_key = keys[3 * i : 3 * i + 3]
        value = getattr(hparams, name)[losers]
        value = value * jnp.where(jax.random.bernoulli(factor_key, shape=value.shape), *_FACTORS)
        resampled = jax.random.bernoulli(resample_key, _RESAMPLED, value.shape)
        value = jnp.where(resampled, _uniform(value_key, values, value.shape), value)
        changed[name] = getattr(hparams, name).at[losers].set(jnp.clip(value, values.low, values.high))
    parents = jnp.arange(scores.shape[0]).at[losers].set(sources)
    return copied, hparams._replace(**changed), parents


def _uniform(key: jax.Array, values: Range, shape: tuple[int, ...]) -> jax.Array:
    if values.log:
        return jnp.exp(jax.random.uniform(key, shape, minval=np.log(values.low), maxval=np.log(values.high)))
    return jax.random.uniform(key, shape, minval=values.low, maxval=values.high)


def population_based_training(
    key: jax.Array,
    learner: Learner,
    hparams: HParams,
    space: Mapping[str, Range],
    *,
    num_iterations: int,
    num_generations: int = 20,
    replaced: float = 0.2,
    num_episodes: int = 32,
    batch_size: int | None = None,
    report: Callable[[Generation], None] = lambda generation: None,
) -> tuple[LearnerState, HParams, list[Generation]]:
    """Train a population, in generations of about equal length. One program trains all generations (see `stages`).

    After each generation but the last, `exploit_and_explore` replaces the worst members. Schedules of hyperparameters, such as a
    decaying learning rate, go on as in a single run.

    Args:
      key: a typed PRNG key, consumed; each member has a key of its own.
      learner: from `make_learner`; any agent.
      hparams: the initial settings, one for each member, leaves `[N]`.
      space: the hyperparameters that change, with their ranges.
      num_iterations: length of the run. If `num_generations` does not divide it, a generation is one or more stages
        (`stages.stage_length`).
      num_generations: number of generations.
      replaced: share of the population that is replaced after a generation, in (0, 1/2]; at least one member is.
      num_episodes: number of greedy episodes for each member and generation, the same ones for all members.
      batch_size: the largest number of runs at once; see `stages.compile_stages`.
      report: called after each generation.

    Returns:
      The final states and hyperparameters, leaves `[N, ...]`, and all generations.

    Raises:
      TypeError, ValueError: for a wrong size, an unknown hyperparameter, a population of one, or an environment on the host.
    """
    hparams = check_and_cast(key, learner, hparams)
    size = check_settings(hparams)
    num_iterations = check_iterations(num_iterations, learner.agent.warmup)
    num_replaced = _check_population(size, replaced, space, hparams)
    num_generations = check_size("num_generations", num_generations, maximum=num_iterations)
    member_key, explore_key, evaluation_key = jax.random.split(key, 3)
    keys = jax.random.split(member_key, size)
    unit = stage_length(num_iterations, num_generations)
    ends = [num_iterations // unit * number // num_generations for number in range(num_generations + 1)]
    stages = compile_stages(learner, keys, hparams, num_iterations=unit, num_episodes=num_episodes, batch_size=batch_size)
    replace = jax.jit(partial(exploit_and_explore, space=space, num_replaced=num_replaced), donate_argnums=2)
    states, parents, generations = stages.init(keys, hparams), np.arange(size), []
    for number in range(num_generations):
        states = stages.advance(states, ends[number], ends[number + 1] - ends[number], hparams)
        same_episodes = jnp.broadcast_to(jax.random.fold_in(evaluation_key, number), (size,))
        scores = stages.evaluate(same_episodes, states)
        values = {name: np.asarray(getattr(hparams, name)) for name in space}
        generations.append(Generation(ends[number + 1] * unit, values, scores, np.asarray(parents)))
        report(generations[-1])
        if number + 1 < num_generations:
            fold = jax.random.fold_in(explore_key, number)
            states, hparams, parents = replace(fold, jnp.asarray(scores), states, hparams)
    return states, hparams, generations


def _check_population(size: int, replaced: float, space: Mapping[str, Range], hparams: HParams) -> int:
    """Return the number of members that a generation replaces. Raises ValueError for what cannot be."""
    if size < 2:
        raise ValueError("a population needs at least 2 members, to replace one by another; got 1")
    if not 0 < replaced <= 0.5:
        raise ValueError(f"replaced is the share of the population that is replaced, in (0, 1/2]; got {replaced}")
    check_space(space)
    for name in space:
        if name not in hparams._fields:
            raise ValueError(f"space: there is no hyperparameter {name!r}; there are {', '.join(hparams._fields)}")
    return max(1, int(replaced * size))
