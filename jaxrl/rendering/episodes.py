"""Films of policies: whole greedy episodes are played in one program; `film` makes pictures of them on the host."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import check_key, check_size
from jaxrl.experiment import folder
from jaxrl.experiment.config import load_config
from jaxrl.experiment.training import abstract_policies, state_of_policy
from jaxrl.rendering import film
from jaxrl.rendering.drawings import Draw, Drawing, drawing_of
from jaxrl.rendering.film import Play
from jaxrl.rollout import batched_step, begin_episodes
from jaxrl.types import HParams, Learner, LearnerState
from jaxrl.vectorization import vectorize


def render(
    key: jax.Array,
    learner: Learner,
    state: LearnerState,
    out: Path | str,
    *,
    draw: Draw | None = None,
    num_episodes: int = 1,
    max_steps: int = 500,
    fps: int | None = None,
    hparams: HParams | None = None,
) -> Path:
    """Film greedy episodes of a policy, or of several side by side, and return where the film is.

    Args:
      key: consumed. All policies play the same episodes, as far as their actions let them.
      learner: as it was trained.
      state: of one run, or of many with leaves `[S, ...]`, as `vmap` and `vectorize` give them.
      out: the file: `.gif` is a film, `.png` a sheet with six moments of each policy.
      draw: (env_state, obs, params) -> picture, of one state, one observation and the environment's parameters, as
        NumPy arrays. The picture is a PIL image or uint8 `[height, width, 3]`, always of one size. By default jaxrl's own.
      num_episodes: of each policy, one after the other.
      max_steps: of an episode; a longer one is cut.
      fps: steps in a second, at most 50; by default what suits the environment.
      hparams: of the agent, by default its own; leaves `[S]` for many runs.

    Raises:
      ValueError: where jaxrl has no picture of the environment, the file cannot be written, or the film would be too long.
      TypeError, ValueError: for a key that is none, or a size that is no positive int.
    """
    check_key(key)
    drawing = drawing_of(learner.env.name) if draw is None else Drawing(draw)
    fps = drawing.fps if fps is None else fps
    if state.key.ndim == 0:
        state = jax.tree.map(lambda x: x[None], state)
    num_policies = len(state.key)
    out = film.check_film(out, fps, num_policies, num_episodes, max_steps)
    hparams = learner.agent.hparams if hparams is None else hparams
    hparams = jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.float32), num_policies), hparams)

    def one(state, hparams):
        return play(key, learner, state, num_episodes=num_episodes, max_steps=max_steps, hparams=hparams)

    plays = vectorize(one)(state, hparams)
    labels = [f"policy {i}" for i in range(num_policies)] if num_policies > 1 else [learner.env.name]
    return film.write(out, labels, plays, learner.env, drawing, fps, group=num_policies)


def render_run(
    run: Path,
    out: Path | str,
    *,
    seeds: tuple[int, ...] | None = None,
    num_episodes: int = 1,
    max_steps: int = 500,
    fps: int | None = None,
    seed: int = 0,
) -> Path:
    """Film policies of a run folder, as `render` does: the chosen seeds of every setting.

    Args:
      run: a run folder.
      out, num_episodes, max_steps, fps: as for `render`.
      seeds: which of the run's seeds; by default its first four.
      seed: of the episodes.

    Raises:
      ValueError: for a folder that holds no finished run, a seed that it has not, and as `render`.
    """
    check_size("seed", seed, minimum=0, maximum=2**32 - 1)
    config = load_config(run)
    drawing = drawing_of(config.env)
    fps = drawing.fps if fps is None else fps
    existing = range(config.seed, config.seed + config.seeds)
    seeds = tuple(existing[:4]) if seeds is None else tuple(dict.fromkeys(seeds))
    if not seeds or not set(seeds) <= set(existing):
        raise ValueError(f"{run} has the seeds {existing[0]} to {existing[-1]}; got {', '.join(map(str, seeds)) or 'none'}")
    chosen = [i for i, label in enumerate(config.labels()) if label["seed"] in seeds]
    out = film.check_film(out, fps, len(chosen), num_episodes, max_steps)
    preset = config.preset()
    policies = folder.load_policies(run, abstract_policies(config))
    keys, hparams = config.runs(preset)
    picked = jax.tree.map(lambda x: x[np.array(chosen)], (keys, policies, hparams))

    def one(init_key, params, hparams):
        state = state_of_policy(preset.learner, init_key, params, hparams)
        key = jax.random.key(seed)  # of all alike, so that they can be compared
        return play(key, preset.learner, state, num_episodes=num_episodes, max_steps=max_steps, hparams=hparams)

    plays = vectorize(one)(*jax.tree.map(jnp.asarray, picked))
    labels = ["\n".join(f"{name} {value:g}" for name, value in config.labels()[i].items()) for i in chosen]
    return film.write(out, labels, plays, preset.learner.env, drawing, fps, group=len(seeds))


def play(key: jax.Array, learner: Learner, state: LearnerState, *, num_episodes: int, max_steps: int, hparams: HParams) -> Play:
    """Play the greedy policy of one run as `jaxrl.evaluate` does on the same key, and keep all of it.

    `max_steps` (T) steps of `num_episodes` (E) episodes; what comes after an episode's end has no meaning.
    """
    env, agent = learner.env, learner.agent
    reset_key, step_key = jax.random.split(key)
    fresh = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, num_episodes), env.params)
    players = jnp.arange(num_episodes) % learner.num_envs
    env_state, obs = begin_episodes(env, jax.tree.map(lambda x: x[players], state.env), fresh)

    def step(carry, t):
        env_state, obs, memory = carry
        keys = jax.random.split(jax.random.fold_in(step_key, t), num_episodes)
        action, memory, _ = agent.act(state.agent, obs, memory, None, hparams, jnp.int32(0))
        env_state, after = batched_step(env, keys, env_state, action)
        row = Play(_without_keys(env_state), after.obs, action, after.reward, after.terminated, after.truncated)
        return (env_state, after.obs, memory), row

    start = (env_state, obs, agent.memory(num_episodes))
    _, rows = jax.lax.scan(step, start, jnp.arange(max_steps, dtype=jnp.int32))
    first = (_without_keys(env_state), obs)
    states, observations = jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), first, (rows.state, rows.obs))
    return rows._replace(state=states, obs=observations)


def _without_keys(tree: Any) -> Any:
    """With the bits of every key in its place: NumPy has no keys."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, tree)
