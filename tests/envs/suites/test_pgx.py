"""pgx's games against pgx itself, move by move."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from tests.envs.suites.common import assert_contained, assert_same, check_types, dqn, play_beside, returns_before_and_after

pgx = pytest.importorskip("pgx")


def first_legal(key, obs, legal_action_mask):
    return jnp.argmax(legal_action_mask).astype(jnp.int32)


@pytest.mark.parametrize("name", ["tic_tac_toe", "connect_four", "kuhn_poker"])
def test_a_step_is_the_agents_move_and_the_answers(name):
    """Beside a loop that knows nothing of bounds: the first legal move for the other, until it is the agent's turn."""
    env = jaxrl.make(f"pgx/{name}", opponent=first_legal)
    game = pgx.make(name)

    def theirs(key, state, action):
        def answer(carry):
            state, total, key = carry
            key, move_key = jax.random.split(key)
            state = game.step(state, jnp.argmax(state.legal_action_mask), move_key)
            return state, total + state.rewards[0], key

        state = game.step(state.inner, action, key)
        waiting = lambda carry: (carry[0].current_player != 0) & ~carry[0].terminated
        state, total, _ = jax.lax.while_loop(waiting, answer, (state, state.rewards[0], key))
        return game._observe(state, 0), total, state.terminated, jnp.bool_(False)

    check_types(env)
    ours, their, fresh = play_beside(env, theirs)
    assert_same(ours, their)
    assert ours[2].sum() > 20
    assert_contained(env, ours[0])
    assert_contained(env, fresh)


@pytest.mark.parametrize("name", ["minatar-breakout", "2048"])
def test_who_plays_alone_plays_the_game_as_it_is(name):
    env = jaxrl.make(f"pgx/{name}", max_steps_in_episode=8)
    game = pgx.make(name)

    def theirs(key, state, action):
        after = game.step(state.inner, action, jax.random.split(key)[0])
        return after.observation, after.rewards[0], after.terminated, state.time == 7

    check_types(env)
    assert env.observation_space.dtype == np.bool_
    ours, their, _ = play_beside(env, theirs)
    assert_same(ours, their)
    assert ours[2].any()
    assert ours[3].any()


def test_the_agent_is_player_0_and_begins_every_other_game():
    env = jaxrl.make("pgx/tic_tac_toe")
    state, obs = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), 400), env.params)
    assert (state.inner.current_player == 0).all()
    begins = ~np.asarray(obs).any(axis=(1, 2, 3))
    assert 160 < begins.sum() < 240  # 200 expected, 40 is four standard deviations


@pytest.mark.parametrize("name", ["backgammon", "leduc_holdem", "sparrow_mahjong"])
def test_it_is_always_the_agents_turn(name):
    """The bound on the moves of the others is high enough: after every step the agent moves, or the game is over."""
    env = jaxrl.make(f"pgx/{name}")

    def play(key):
        state, _ = env.reset(key, env.params)

        def step(state, key):
            action = jax.random.categorical(key, jnp.where(state.inner.legal_action_mask, 0.0, -jnp.inf))
            state, _ = env.step(key, state, action, env.params)
            return state, (state.inner.current_player == 0) | state.inner.terminated

        return jax.lax.scan(step, state, jax.random.split(key, 200))[1]

    assert jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(1), 64)).all()


def test_an_illegal_move_loses_at_once():
    env = jaxrl.make("pgx/tic_tac_toe")
    state, _ = env.reset(jax.random.key(0), env.params)
    taken = jnp.argmin(state.inner.legal_action_mask)
    state, _ = env.step(jax.random.key(1), state, jnp.argmax(state.inner.legal_action_mask), env.params)
    taken = jnp.argmin(state.inner.legal_action_mask).astype(jnp.int32)
    _, out = env.step(jax.random.key(2), state, taken, env.params)
    assert (float(out.reward), bool(out.terminated)) == (-1.0, True)


def test_unknown_games_are_refused():
    with pytest.raises(ValueError, match=r"unknown environment 'pgx/tictactoe'; did you mean pgx/tic_tac_toe\?"):
        jaxrl.make("pgx/tictactoe")


def test_dqn_learns_to_beat_random_moves():
    """Random play loses more often than not, for half of its games end with an illegal move."""
    learner = dqn(jaxrl.make("pgx/tic_tac_toe"), warmup=50)
    before, after = returns_before_and_after(learner, 4_000, learning_rate=1e-3, epsilon_iterations=2_000.0, epsilon_end=0.02)
    assert before.max() < -0.2
    assert after.min() > 0.4
