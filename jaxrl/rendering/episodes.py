"""Films of policies: one compiled program plays greedy episodes, and `film` draws them on the host."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl._src.checks import check_key
from jaxrl._src.keys import unwrap_keys
from jaxrl.rendering import film
from jaxrl.rendering.drawings import Draw, Drawing, drawing_of
from jaxrl.rendering.film import Play
from jaxrl.rollout import greedy_policy, play_episodes
from jaxrl.types import Agent, Environment, EnvState, Learner, LearnerState, PolicyParams
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
) -> Path:
    """Film greedy episodes of a policy, or of several side by side, and return the path of the film.

    Args:
      key: consumed. All policies play episodes with the same starts and the same random numbers.
      learner: as it was trained.
      state: of one run, or of many with leaves `[S, ...]`, as `vmap` and `vectorize` return them.
      out: the file: `.gif` is a film, `.png` a sheet with six snapshots of each policy.
      draw: (env_state, obs, params) -> picture. It takes one state, one observation and the environment's parameters as
        NumPy arrays, and returns a PIL image or uint8 `[height, width, 3]`, always of the same size. By default jaxrl's
        own drawing of the environment.
      num_episodes: episodes of each policy, shown one after the other.
      max_steps: steps after which an episode is cut.
      fps: frames per second, at most 50, with one frame for each step. The default depends on the environment.

    Raises:
      ValueError: if jaxrl has no drawing of the environment, the file cannot be written, or the film would be too long.
      TypeError, ValueError: if the key is not a typed PRNG key, or a size is not a positive int.
    """
    check_key(key)
    drawing = drawing_of(learner.env.name) if draw is None else Drawing(draw)
    fps = drawing.fps if fps is None else fps
    if state.key.ndim == 0:
        state = jax.tree.map(lambda x: x[None], state)
    num_policies = len(state.key)
    out = film.check_film(out, fps, num_policies, num_episodes, max_steps)

    def record(state):
        return record_episodes(
            key,
            learner.env,
            learner.agent,
            greedy_policy(learner.agent, state.agent),
            num_episodes=num_episodes,
            max_steps=max_steps,
            env_state=state.env,
        )

    plays = vectorize(record)(state)
    labels = [f"policy {i}" for i in range(num_policies)] if num_policies > 1 else [learner.env.name]
    return film.write(out, labels, plays, learner.env, drawing, fps, group=num_policies)


def record_episodes(
    key: jax.Array,
    env: Environment,
    agent: Agent,
    policy_params: PolicyParams,
    *,
    num_episodes: int,
    max_steps: int,
    env_state: EnvState | None = None,
) -> Play:
    """Every step of greedy episodes, leaves `[max_steps, E, ...]`; the arguments are those of `rollout.play_episodes`.

    Entries after the end of an episode are meaningless.
    """

    def allocate(env_state, obs):
        first = unwrap_keys(env_state), obs
        states, observations = jax.tree.map(lambda x: _buffer(x, max_steps + 1).at[0].set(x), first)
        action = jax.eval_shape(lambda obs: agent.exploit(policy_params, obs, agent.initial_carry(num_episodes), key)[0], obs)
        flags = jnp.zeros((max_steps, num_episodes), bool)
        return Play(
            states, observations, _buffer(action, max_steps), jnp.zeros((max_steps, num_episodes), jnp.float32), flags, flags
        )

    def record(play, t, played):
        step = played.step
        new = Play(unwrap_keys(played.env_state), step.obs, played.action, step.reward, step.terminated, step.truncated)
        at = Play(t + 1, t + 1, t, t, t, t)
        write = lambda index, buffer, value: jax.tree.map(lambda x, y: x.at[index].set(y), buffer, value)
        return Play(*(write(*fields) for fields in zip(at, play, new, strict=True)))

    _, play = play_episodes(
        key, env, agent, policy_params, record, allocate, num_episodes=num_episodes, max_steps=max_steps, env_state=env_state
    )
    return play


def _buffer(like: Any, num_rows: int) -> jax.Array:
    return jnp.zeros((num_rows, *like.shape), like.dtype)
