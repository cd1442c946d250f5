"""Films of the policies in a run folder."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import check_size
from jaxrl._src.numbers import shown
from jaxrl.experiment import folder
from jaxrl.experiment.config import load_config
from jaxrl.experiment.policies import abstract_policies, restored_env_state
from jaxrl.rendering import film
from jaxrl.rendering.drawings import drawing_of
from jaxrl.rendering.episodes import record_episodes
from jaxrl.types import Environment
from jaxrl.vectorization import vectorize


def render_run(
    run: Path,
    out: Path | str,
    *,
    seeds: tuple[int, ...] | None = None,
    num_episodes: int = 1,
    max_steps: int = 500,
    fps: int | None = None,
    seed: int = 0,
    which: str = "last",
) -> Path:
    """Film policies of a run folder as `jaxrl.render` does, for some seeds and every combination of the swept values.

    Args:
      run: a run folder.
      out, num_episodes, max_steps, fps: as for `jaxrl.render`.
      seeds: seeds of the policies; by default the first four of the run.
      seed: seed of the episodes.
      which: "last" for the policies after training, or "best" for those with the highest returns in the evaluations during it.

    Raises:
      ValueError: for a folder without a finished run or without such policies, a seed that the run does not have, and as
        `jaxrl.render`.
    """
    check_size("seed", seed, minimum=0, maximum=2**32 - 1)
    config = load_config(run)
    drawing = drawing_of(config.env)
    fps = drawing.fps if fps is None else fps
    existing = range(config.seed, config.seed + config.seeds)
    seeds = tuple(existing[:4]) if seeds is None else tuple(dict.fromkeys(seeds))
    if not seeds or not set(seeds) <= set(existing):
        raise ValueError(f"{run} has the seeds {existing[0]} to {existing[-1]}; got {', '.join(map(str, seeds)) or 'none'}")
    identifiers = config.identifiers()
    indices = [i for i, identifier in enumerate(identifiers) if identifier["seed"] in seeds]
    folder.policies_folder(run, which)  # before the size of the film, which of a search that did not finish is not known
    out = film.check_film(out, fps, len(indices), num_episodes, max_steps)
    env, plays = record_policies(run, indices, num_episodes=num_episodes, max_steps=max_steps, seed=seed, which=which)
    labels = ["\n".join(f"{name} {shown(value)}" for name, value in identifiers[i].items()) for i in indices]
    return film.write(out, labels, plays, env, drawing, fps, group=len(seeds))


def record_policies(
    run: Path, indices: Sequence[int], *, num_episodes: int = 1, max_steps: int = 500, seed: int = 0, which: str = "last"
) -> tuple[Environment, film.Play]:
    """Play policies of a run folder, all on the same episodes.

    Args:
      run: a run folder.
      indices: numbers of the runs, as in `Config.identifiers`.
      num_episodes, max_steps, seed, which: as for `render_run`.

    Returns:
      The environment, and the episodes with leaves `[len(indices), T, E, ...]`.

    Raises:
      ValueError: for a folder without a finished run or without such policies.
    """
    config = load_config(run)
    preset = config.preset()
    learner = preset.learner
    policies = folder.load_policies(run, abstract_policies(config, preset), which)

    def record(policy):
        return record_episodes(
            jax.random.key(seed),  # the same for all policies, so that they can be compared
            learner.env,
            learner.agent,
            policy.params,
            num_episodes=num_episodes,
            max_steps=max_steps,
            env_state=restored_env_state(learner, policy),
        )

    return learner.env, vectorize(record)(jax.tree.map(lambda x: jnp.asarray(x[np.array(indices)]), policies))
