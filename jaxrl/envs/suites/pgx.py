"""pgx's board and card games against a fixed opponent, its 2048 and its MinAtar. Extra: `jaxrl[pgx]`.

The agent is player 0. A step consists of its move and the moves of the other players, until it is the agent's turn again or the
game is over. The first player is drawn at the reset. Rewards are those of the agent, summed over the moves of a step.

Observations are dicts: "observation" is that of pgx, and "action_mask", bool `[n]`, marks the legal moves. An agent that uses
the mask never plays an illegal move. For any other agent pgx's rule applies: an illegal move ends the game at once, with a
reward of −1 (backgammon: −3). MinAtar's actions are always legal, and its observations are arrays.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pgx

from jaxrl._src.checks import check_size
from jaxrl.envs.suites.adapter import adapt, check_name, lenient, obs_spec, unbounded
from jaxrl.spaces import ACTION_MASK, Discrete
from jaxrl.types import Environment

Opponent = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # (key, obs, legal_action_mask) -> action

# The maximum number of moves of the other players between two moves of the agent; one in all other games.
_MOVES = {"backgammon": 4, "leduc_holdem": 2, "sparrow_mahjong": 2}


def names() -> tuple[str, ...]:
    """The names that `make` takes."""
    return tuple(pgx.available_envs())


def uniform_opponent(key: jax.Array, obs: jax.Array, legal_action_mask: jax.Array) -> jax.Array:
    """Draw a legal move uniformly."""
    return jax.random.categorical(key, jnp.where(legal_action_mask, 0.0, -jnp.inf)).astype(jnp.int32)


def make(name: str, *, opponent: Opponent = uniform_opponent, max_steps_in_episode: int | None = None) -> Environment:
    """The pgx game of that name, as an environment for one agent.

    Args:
      name: e.g. "tic_tac_toe" or "minatar-breakout".
      opponent: `(key, obs, legal_action_mask) -> action`, plays for everyone but the agent; `obs` is what the player to
        move sees. By default uniform over the legal moves.
      max_steps_in_episode: time limit in moves of the agent, by default none. The games end by themselves, but an episode
        of MinAtar may be arbitrarily long.

    Raises:
      ValueError: for an unknown name, with similar names.
    """
    check_name(name, names(), "pgx")
    with lenient():
        game = pgx.make(name)
    env = from_pgx(game, opponent=opponent, max_steps_in_episode=max_steps_in_episode)
    return env._replace(name=f"pgx/{name}")


def from_pgx(
    game: Any,
    *,
    opponent: Opponent = uniform_opponent,
    opponent_moves: int | None = None,
    max_steps_in_episode: int | None = None,
) -> Environment:
    """Wrap a `pgx.Env`, as described at the top of this module.

    Args:
      game: for any number of players; the agent is player 0.
      opponent: as for `make`.
      opponent_moves: the most moves that the other players make between two of the agent's, the length of a loop in the
        compiled program. The default is right for pgx's own games; in other games it is one for each other player.
      max_steps_in_episode: time limit in moves of the agent; None: no time limit.
    """
    usual = _MOVES.get(game.id, max(1, game.num_players - 1))
    opponent_moves = usual if opponent_moves is None else check_size("opponent_moves", opponent_moves)

    def others_move(state_and_total, key):
        """Play one move, unless it is the agent's turn or the game is over."""
        state, total = state_and_total
        policy_key, move_key = jax.random.split(key)
        action = opponent(policy_key, state.observation, state.legal_action_mask)
        moved = game.step(state, action, move_key)
        waiting = (state.current_player == 0) | state.terminated | state.truncated
        state = jax.tree.map(partial(jnp.where, waiting), state, moved)
        return (state, total + jnp.where(waiting, 0.0, moved.rewards[0])), None

    def play_others(key, state, total):
        if game.num_players == 1:
            return state, total
        return jax.lax.scan(others_move, (state, total), jax.random.split(key, opponent_moves))[0]

    all_legal = game.id.startswith("minatar-")

    def observe(state):
        obs = game._observe(state, jnp.int32(0))  # the agent's view, also at the end of a game
        return obs if all_legal else {"observation": obs, ACTION_MASK: state.legal_action_mask}

    def reset(key, params):
        game_key, others_key = jax.random.split(key)
        state, _ = play_others(others_key, game.init(game_key), jnp.float32(0))
        return state, observe(state)

    def step(key, state, action, params):
        move_key, others_key = jax.random.split(key)
        state = game.step(state, action, move_key)
        state, reward = play_others(others_key, state, state.rewards[0])
        return state, observe(state), reward, state.terminated

    with lenient():
        num_actions = int(game.num_actions)
    return adapt(
        game.id,
        reset,
        step,
        unbounded(obs_spec(reset, None)),
        Discrete(num_actions),
        max_steps_in_episode=max_steps_in_episode,
    )
