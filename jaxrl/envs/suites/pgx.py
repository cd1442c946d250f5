"""pgx's board and card games against a fixed opponent, its 2048 and its MinAtar. Extra: `jaxrl[pgx]`.

The agent is player 0. A step is its move and then the others', until it is its turn again or the game is
over; who begins is drawn at the reset. Rewards are the agent's, summed over the moves of a step.

An illegal move of the agent is not prevented: by pgx's rules it ends the game at once, with a reward of −1
(backgammon: −3). Observations do not say what is legal.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pgx

from jaxrl._src.checks import check_size
from jaxrl.envs.suites.adapter import adapt, check_name, lenient, obs_shape, unbounded
from jaxrl.types import Discrete, Environment

Opponent = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # (key, obs, legal_action_mask) -> action

# How many moves the others can make between two of the agent's; in all other games one.
_MOVES = {"backgammon": 4, "leduc_holdem": 2, "sparrow_mahjong": 2}


def names() -> tuple[str, ...]:
    """The names that `make` takes."""
    return tuple(pgx.available_envs())


def uniform_opponent(key: jax.Array, obs: jax.Array, legal_action_mask: jax.Array) -> jax.Array:
    """A legal move, each with the same probability."""
    return jax.random.categorical(key, jnp.where(legal_action_mask, 0.0, -jnp.inf)).astype(jnp.int32)


def make(name: str, *, opponent: Opponent = uniform_opponent, max_steps_in_episode: int | None = None) -> Environment:
    """pgx's game of that name, as an environment for one agent.

    Args:
      name: e.g. "tic_tac_toe" or "minatar-breakout".
      opponent: `(key, obs, legal_action_mask) -> action`, plays everybody but the agent; `obs` is what the
        player to move sees. By default uniform over the legal moves.
      max_steps_in_episode: time limit in moves of the agent, by default none: the games end by themselves;
        MinAtar's may go on for ever.

    Raises:
      ValueError: for an unknown name, with the nearest ones.
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
    """Wrap a `pgx.Env`; see the top of this file for the rules.

    Args:
      game: any number of players; the agent is player 0.
      opponent: as for `make`.
      opponent_moves: how many moves the others can make between two of the agent's. It is the length of a
        loop in the compiled program, so it has a bound that is known beforehand. By default what the rules of
        pgx's own games allow, and one for each of the others in any other.
      max_steps_in_episode: time limit in moves of the agent; None: none.
    """
    usual = _MOVES.get(game.id, max(1, game.num_players - 1))
    opponent_moves = usual if opponent_moves is None else check_size("opponent_moves", opponent_moves)

    def others_move(state_and_total, key):
        """One move of whoever is at turn, unless that is the agent or the game is over."""
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

    def observe(state):
        return game._observe(state, jnp.int32(0))  # at the end of a game, too, the agent's view and not the other's

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
        obs, num_actions = obs_shape(reset, None), game.num_actions
    return adapt(
        game.id,
        reset,
        step,
        unbounded(obs.shape, obs.dtype),
        Discrete(num_actions),
        max_steps_in_episode=max_steps_in_episode,
    )
