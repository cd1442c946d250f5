"""pgx's games against pgx itself, move by move."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.spaces import Box, split_action_mask
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
        obs = {"observation": game._observe(state, 0), "action_mask": state.legal_action_mask}
        return obs, total, state.terminated, jnp.bool_(False)

    check_types(env)
    assert set(env.observation_space) == {"observation", "action_mask"}
    assert env.observation_space["action_mask"] == Box(False, True, (env.action_space.n,), np.bool_)
    ours, their, fresh = play_beside(env, theirs)
    assert_same(ours, their)
    assert ours[2].sum() > 20
    assert_contained(env, ours[0])
    assert_contained(env, fresh)


@pytest.mark.parametrize("name", ["minatar-breakout", "2048"])
def test_games_of_one_player_are_unchanged(name):
    env = jaxrl.make(f"pgx/{name}", max_steps_in_episode=8)
    game = pgx.make(name)

    def theirs(key, state, action):
        after = game.step(state.inner, action, jax.random.split(key)[0])
        obs = {"observation": after.observation, "action_mask": after.legal_action_mask}
        return obs if masked else after.observation, after.rewards[0], after.terminated, state.time == 7

    check_types(env)
    masked = name == "2048"
    space, mask = split_action_mask(env.observation_space)
    assert (mask is not None) == masked
    assert (space["observation"] if masked else space).dtype == np.bool_
    ours, their, _ = play_beside(env, theirs)
    assert_same(ours, their)
    assert ours[2].any()
    assert ours[3].any()


def test_the_agent_is_player_0_and_begins_every_other_game():
    env = jaxrl.make("pgx/tic_tac_toe")
    state, obs = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), 400), env.params)
    assert (state.inner.current_player == 0).all()
    begins = ~np.asarray(obs["observation"]).any(axis=(1, 2, 3))
    assert 160 < begins.sum() < 240  # 200 expected, 40 is four standard deviations


@pytest.mark.parametrize("name", ["backgammon", "leduc_holdem", "sparrow_mahjong"])
def test_it_is_always_the_agents_turn(name):
    """The bound on the moves of the others is high enough: after every step it is the agent's turn, or the game is over."""
    env = jaxrl.make(f"pgx/{name}")

    def play(key):
        state, _ = env.reset(key, env.params)

        def step(state, key):
            action = jax.random.categorical(key, jnp.where(state.inner.legal_action_mask, 0.0, -jnp.inf))
            state, _ = env.step(key, state, action, env.params)
            return state, (state.inner.current_player == 0) | state.inner.terminated

        return jax.lax.scan(step, state, jax.random.split(key, 200))[1]

    assert jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(1), 64)).all()


@pytest.mark.parametrize(("name", "penalty"), [("tic_tac_toe", -1.0), ("backgammon", -3.0)])
def test_an_illegal_move_loses_at_once(name, penalty):
    env = jaxrl.make(f"pgx/{name}")
    step = jax.jit(env.step)
    state, obs = jax.jit(env.reset)(jax.random.key(0), env.params)
    state, out = step(jax.random.key(1), state, jnp.argmax(obs["action_mask"]).astype(jnp.int32), env.params)
    assert not out.terminated
    taken = jnp.argmin(out.obs["action_mask"]).astype(jnp.int32)
    assert not out.obs["action_mask"][taken]
    _, out = step(jax.random.key(2), state, taken, env.params)
    assert (float(out.reward), bool(out.terminated)) == (penalty, True)


@pytest.mark.parametrize("name", ["tic_tac_toe", "backgammon"])
def test_who_keeps_to_the_mask_plays_only_legal_moves(name):
    """Then the others never win by a move of the agent's, and the mask always leaves a move, also when the game is over."""
    env = jaxrl.make(f"pgx/{name}")

    def was_legal(key, state, action):
        over_by_own_move = pgx.make(name).step(state.inner, action, key)
        lost = over_by_own_move.terminated & (over_by_own_move.rewards[0] < 0)
        return state.inner.legal_action_mask[action], lost, jnp.bool_(False), jnp.bool_(False)

    (obs, _, terminated, _), (legal, lost, _, _), fresh = play_beside(env, was_legal, legal=True)
    assert legal.all()
    assert not lost.any()
    assert terminated.any()
    assert obs["action_mask"].any(axis=-1).all()
    assert fresh["action_mask"].any(axis=-1).all()
    assert not obs["action_mask"].all()


def test_unknown_games_are_refused():
    with pytest.raises(ValueError, match=r"unknown environment 'pgx/tictactoe'; did you mean pgx/tic_tac_toe\?"):
        jaxrl.make("pgx/tictactoe")


def test_dqn_learns_to_beat_random_moves():
    """Two players of random legal moves win equally often, but for who begins."""
    learner = dqn(jaxrl.make("pgx/tic_tac_toe"), warmup=50)
    before, after = returns_before_and_after(learner, 4_000, learning_rate=1e-3, epsilon_iterations=2_000.0, epsilon_end=0.02)
    assert (after > before + 0.2).all()
    assert after.min() > 0.5
