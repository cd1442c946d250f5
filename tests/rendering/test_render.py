"""Films: what is played is what `evaluate` plays, and what is written is what was played."""

import base64
import io
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageSequence

import jaxrl
from jaxrl.experiment.report.films import _images
from jaxrl.rendering import film
from jaxrl.rendering.drawings import Drawing
from jaxrl.rendering.episodes import record_episodes, render
from jaxrl.rendering.film import Play, Snapshot, captions, check_film, snapshots
from jaxrl.types import Box, Discrete, Environment, MultiDiscrete, Step
from tests import problems


class Lottery(NamedTuple):
    key: jax.Array  # a state may hold a key
    time: jax.Array
    past: jax.Array  # episodes before this one


def lottery() -> Environment:
    """Every step ends the episode with probability 0.2, and its reward is random: other keys, other returns."""

    def reset(key, params):
        return Lottery(key, jnp.int32(0), jnp.int32(0)), jnp.zeros(1)

    def step(key, state, action, params):
        luck = jax.random.uniform(key)
        state = Lottery(jax.random.fold_in(state.key, 0), state.time + 1, state.past)
        return state, Step(state.time.astype(jnp.float32)[None], luck, luck < 0.2, state.time >= 40)

    def carry_over(old, fresh, obs):
        return fresh._replace(past=old.past + 1), obs

    return Environment(reset, step, (), Box(0, 40, (1,)), Discrete(2), "lottery", carry_over)


@pytest.fixture(scope="module")
def trained():
    learner = problems.reinforce_learner(lottery(), rollout_length=2, hidden=())
    state = jax.jit(learner.init)(jax.random.key(3), learner.agent.hparams)
    return learner, state._replace(env=state.env._replace(past=jnp.array([10, 20, 30, 40])))


def test_the_episodes_are_those_of_evaluate(trained):
    """On the same key the same returns, of episodes of many lengths: from the same starts, with the same keys."""
    learner, state = trained
    key = jax.random.key(4)
    returns = jax.jit(lambda: jaxrl.evaluate(key, learner, state, num_episodes=6))()
    policy_params = learner.agent.policy(state.agent)
    record = lambda: record_episodes(
        key, learner.env, learner.agent, policy_params, num_episodes=6, max_steps=40, env_state=state.env
    )
    played = jax.jit(record)()
    lengths = np.asarray(played.terminated | played.truncated).argmax(axis=0) + 1
    assert len(set(lengths)) > 2
    totals = [played.reward[: lengths[e], e].sum() for e in range(6)]
    np.testing.assert_allclose(totals, returns, rtol=1e-6)
    # Every state from the first to the end of the longest episode, each with its own observation.
    steps = np.arange(max(lengths) + 1)
    np.testing.assert_array_equal(played.obs[: len(steps), :, 0], np.repeat(steps[:, None], 6, axis=1))
    np.testing.assert_array_equal(played.state.time, played.obs[..., 0])
    assert played.state.key.dtype == jnp.uint32  # NumPy knows no keys
    # As in training, an episode begins with what outlives the one before.
    assert played.state.past[0].tolist() == [11, 21, 31, 41, 11, 21]


def some_play(rewards, terminated, truncated):
    """Lists of episodes; the state is the step's number, and the action ten times that."""
    rewards, terminated, truncated = (np.array(x).T for x in (rewards, terminated, truncated))
    steps, episodes = rewards.shape
    state = np.repeat(np.arange(steps + 1)[:, None], episodes, axis=1)
    return Play(state, state[..., None], 10 * state[1:], rewards.astype(np.float32), terminated == 1, truncated == 1)


def test_snapshots_of_episodes_that_end_in_each_way():
    ended = some_play(
        [[1, 2, 4, 8], [1, 1, 1, 1], [0.5, 0, 0, 0], [5, 5, 5, 5]],
        [[0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]],
        [[0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]],
    )
    assert snapshots(ended, hold=1) == [
        *[Snapshot(0, 0, 0, ""), Snapshot(0, 1, 1, ""), *2 * [Snapshot(0, 2, 3, "terminated")]],
        *[Snapshot(1, 0, 0, ""), Snapshot(1, 1, 1, ""), Snapshot(1, 2, 2, ""), *2 * [Snapshot(1, 3, 3, "time limit")]],
        *[Snapshot(2, 0, 0, ""), *(Snapshot(2, t, 0.5, "") for t in (1, 2, 3)), *2 * [Snapshot(2, 4, 0.5, "cut")]],
        *[Snapshot(3, 0, 0, ""), *2 * [Snapshot(3, 1, 5, "terminated")]],  # which wins over the clock
    ]


def bar(state, obs, params):
    """A picture that tells the step."""
    picture = np.full((40, 200, 3), 255, np.uint8)
    picture[:, : 10 * int(state)] = (200, 0, 0)
    return picture


def bars(frame, columns):
    """Which step each panel of a frame shows: the red pixels of its middle row."""
    red = np.asarray(frame.convert("RGB")).astype(int)
    red = (red[..., 0] > 150) & (red[..., 1] < 60)
    rows = np.flatnonzero(red.any(axis=1))
    if not len(rows):
        return [0] * columns
    return [round(int(part[len(rows) // 2].sum()) / 10) for part in np.split(red[rows], columns, axis=1)]


ENV = problems.endless()._replace(params=())


def test_a_gif_shows_every_step_of_all_policies_side_by_side(tmp_path):
    first = some_play([[1, 1, 1, 1, 1]], [[0, 0, 0, 0, 1]], [[0, 0, 0, 0, 0]])
    second = some_play([[1, 1, 1, 1, 1]], [[0, 1, 0, 0, 0]], [[0, 0, 0, 0, 0]])
    plays = jax.tree.map(lambda x, y: np.stack([x, y]), first, second)
    out = film.write(tmp_path / "a.gif", ["seed 0", "seed 1"], plays, ENV, Drawing(bar), 20, group=2)
    with Image.open(out) as gif:
        shown, durations = [], []
        for i in range(gif.n_frames):
            gif.seek(i)
            shown.append(bars(gif, 2))
            durations.append(gif.info["duration"])
        assert gif.info["loop"] == 0
    # The second is done after two steps, and stays there; the end is held for half a second.
    assert shown == [[0, 0], [1, 1], [2, 2], [3, 2], [4, 2], [5, 2]]
    assert durations == [50, 50, 50, 50, 50, 50 + 10 * 50]


def test_what_is_small_and_seldom_seen_keeps_its_colour(tmp_path):
    """In a film of its own, and in one for a report, which has fewer colours and every other picture."""
    bullet = (200, 56, 58)

    def draw(state, obs, params):
        picture = np.repeat(np.tile(np.arange(0, 240, dtype=np.uint8), (20, 1))[..., None], 3, axis=2) // 20 * 20
        if state in (30, 31):
            picture[:, 40:60] = bullet
        return picture

    plays = jax.tree.map(lambda x: x[None], some_play([[1] * 45], [[0] * 44 + [1]], [[0] * 45]))
    own = film.write(tmp_path / "a.gif", ["seed 0"], plays, ENV, Drawing(draw), 20, group=1).read_bytes()
    of_report = base64.b64decode(_images("seed 0", plays, ENV, Drawing(draw))[0].removeprefix("data:image/gif;base64,"))
    for data in (own, of_report):
        with Image.open(io.BytesIO(data)) as gif:
            pictures = [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(gif)]
        distance = [np.abs(picture[30:60] - bullet).max(axis=-1).min() for picture in pictures]
        seen = np.flatnonzero(np.array(distance) <= 8)
        assert len(seen) in (1, 2)
        assert seen[0] / len(pictures) == pytest.approx(30 / 46, abs=0.03)


def test_settings_begin_a_row_and_a_sheet_has_a_row_for_each_policy(tmp_path):
    one = some_play([[1, 1, 1, 1, 1, 1]], [[0, 0, 0, 0, 0, 1]], [[0, 0, 0, 0, 0, 0]])
    plays = jax.tree.map(lambda x: np.stack([x] * 6), one)
    labels = [f"seed {i}\nlearning_rate 0.1" for i in range(6)]
    with Image.open(film.write(tmp_path / "a.gif", labels, plays, ENV, Drawing(bar), 20, group=3)) as gif:
        gif.seek(4)
        width, height = gif.size
        assert bars(gif.crop((0, 0, width, height // 2)), 3) == [4, 4, 4]
        assert bars(gif.crop((0, height // 2, width, height)), 3) == [4, 4, 4]
        gif_panel = (width // 3, height // 2)
    short = some_play([[1, 1, 1, 1, 1, 1]], [[0, 0, 1, 0, 0, 0]], [[0, 0, 0, 0, 0, 0]])
    short = short._replace(state=short.state + 10)
    plays = jax.tree.map(lambda x, y: np.stack([x, y]), one, short)
    with Image.open(film.write(tmp_path / "a.png", labels[:2], plays, ENV, Drawing(bar), 20, group=2)) as png:
        assert png.format == "PNG"
        assert png.size == (6 * gif_panel[0], 2 * gif_panel[1])
        assert bars(png.crop((0, 0, png.width, png.height // 2)), 6) == [0, 1, 2, 3, 4, 6]
        assert bars(png.crop((0, png.height // 2, png.width, png.height)), 6) == [10, 10, 11, 11, 12, 13]


def test_a_panel_says_return_step_action_and_end():
    played = some_play([[1, 2], [0.5, 1]], [[0, 1], [0, 0]], [[0, 0], [0, 1]])
    panel = film.Panel("seed 3\ntau 0.1", played, [])
    numbered = Drawing(bar)
    above, below = captions(panel, Snapshot(0, 0, 0.0, ""), ENV, numbered)
    assert above == [("seed 3", "episode 1 of 2"), ("tau 0.1", ""), ("return 0.00", "step 0")]
    assert below == ("", "")  # nothing has been done yet
    assert captions(panel, Snapshot(1, 2, 1.5, "time limit"), ENV, numbered)[1] == ("action 20", "time limit")
    one = film.Panel("seed 3", jax.tree.map(lambda x: x[:, :1], played), [])
    assert captions(one, Snapshot(0, 1, 1.0, ""), ENV, numbered) == ([("seed 3", ""), ("return 1", "step 1")], ("action 10", ""))
    named = Drawing(bar, actions=tuple(f"<{i}>" for i in range(30)))
    many = ENV._replace(action_space=Discrete(30))
    assert captions(one, Snapshot(0, 2, 3.0, "cut"), many, named)[1] == ("action <20>", "cut")
    assert captions(one, Snapshot(0, 2, 3.0, "cut"), ENV, named)[1] == ("action 20", "cut")  # the names are of another space
    assert film._number(-0.001, np.array([0.5, 1])) == "0.00"
    plane = ENV._replace(action_space=Box(-1, 1, (5,)))
    assert film._action(plane, numbered, np.array([0.5, -0.25, 0, 1, 2], np.float32)) == "+0.50 -0.25 +0.00 +1.00 …"
    several = ENV._replace(action_space=MultiDiscrete((3, 12)))
    assert film._action(several, numbered, np.array([0, 11], np.int32)) == "0 11"


def test_a_drawing_receives_the_entries_of_a_dict_observation():
    played = some_play([[1, 2]], [[0, 1]], [[0, 0]])
    played = played._replace(obs={"x": played.obs, "mask": np.array([[[True, False]], [[False, True]], [[True, True]]])})
    seen = []

    def draw(state, obs, params):
        seen.append((obs["x"].tolist(), obs["mask"].tolist()))
        return np.zeros((4, 4, 3), np.uint8)

    paint = film._painter(ENV, Drawing(draw), [])
    for step in range(3):
        paint(film.Panel("", played, []), Snapshot(0, step, 0.0, ""))
    assert seen == [([0], [True, False]), ([1], [False, True]), ([2], [True, True])]


def test_the_text_changes_with_what_it_says():
    panel_play = some_play([[1, 1]], [[0, 1]], [[0, 0]])
    paint = film._painter(ENV, Drawing(lambda state, obs, params: np.full((40, 200, 3), 255, np.uint8)), [])

    def painted(label, snapshot):
        return np.asarray(paint(film.Panel(label, panel_play, []), snapshot))

    base = painted("seed 0", Snapshot(0, 1, 1.0, ""))
    for label, snapshot in [
        ("seed 1", Snapshot(0, 1, 1.0, "")),
        ("seed 0", Snapshot(0, 1, 2.0, "")),
        ("seed 0", Snapshot(0, 2, 1.0, "")),
        ("seed 0", Snapshot(0, 1, 1.0, "terminated")),
        ("seed 0", Snapshot(0, 0, 1.0, "")),
    ]:
        assert np.any(painted(label, snapshot) != base)
    assert np.all(painted("seed 0", Snapshot(0, 1, 1.0, "")) == base)


def test_panels_are_as_wide_as_their_longest_line_and_no_text_is_over_another(monkeypatch):
    plays = some_play([[1, 1]], [[0, 1]], [[0, 0]])
    plays = plays._replace(action=np.zeros_like(plays.action))
    drawing = Drawing(
        lambda state, obs, params: np.full((40, 20, 3), 255, np.uint8), actions=("a rather long name of an action",) * 2
    )
    panels = [
        film.Panel(label, plays, film.snapshots(plays, hold=0)) for label in ("seed 0", "learning_rate_iterations 0.000123456")
    ]
    written = []
    monkeypatch.setattr(film, "_text", lambda image, y, left, right, *colors: written.append((image.width, left, right)))
    paint = film._painter(ENV, drawing, panels)
    assert len({paint(panel, snapshot).size for panel in panels for snapshot in panel.snapshots}) == 1
    for width, left, right in written:
        assert film._font().getlength(left) + film._font().getlength(right) + film._MARGIN < width - 2 * film._MARGIN, (
            left,
            right,
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": "a.mp4"}, r"a film is a \.gif, or a \.png sheet with 6 snapshots of each policy; got a\.mp4"),
        ({"out": "/nowhere/a.gif"}, "there is no folder /nowhere"),
        ({"out": "/"}, "cannot write /"),
        ({"fps": 0}, "fps must be at least 1"),
        ({"fps": 60}, "fps must be at most 50, got 60"),
        ({"num_episodes": 0}, "num_episodes must be at least 1"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"max_steps": 10_000}, r"3 policies × 1 episodes × 10000 steps may be 30,000 pictures.*at most 20,000"),
    ],
)
def test_films_that_cannot_be_made(change, message):
    film_of = {"out": "a.gif", "fps": 30, "num_policies": 3, "num_episodes": 1, "max_steps": 10}
    with pytest.raises(ValueError, match=message):
        check_film(**(film_of | change))


def test_an_ending_is_added_where_there_is_none(tmp_path):
    assert check_film(tmp_path / "film", 30, 1, 1, 10) == tmp_path / "film.gif"
    assert check_film(tmp_path / "film.PNG", 30, 1, 1, 10) == tmp_path / "film.PNG"


def test_an_environment_of_ones_own_is_drawn_by_a_function_of_ones_own(trained, tmp_path):
    learner, state = trained
    two = jax.tree.map(lambda x: jnp.stack([x, x]), state)
    seen = []

    def draw(state, obs, params):
        seen.append((int(state.past), int(state.time), obs))
        return Image.new("L", (200, 30), 10 * int(state.time))

    out = render(jax.random.key(1), learner, two, str(tmp_path / "a.gif"), draw=draw, num_episodes=2, max_steps=3, fps=10)
    assert out == tmp_path / "a.gif"
    assert {past for past, _, _ in seen} == {11, 21}
    assert {0, 1} <= {time for _, time, _ in seen} <= {0, 1, 2, 3}
    assert all(isinstance(obs, np.ndarray) and obs.tolist() == [time] for _, time, obs in seen)
    with Image.open(out) as gif:
        assert gif.format == "GIF"


def test_what_render_cannot_draw(trained, tmp_path):
    learner, state = trained
    with pytest.raises(ValueError, match="there is no picture of 'lottery'"):
        render(jax.random.key(1), learner, state, tmp_path / "b.gif")
    with pytest.raises(TypeError, match="key must be a typed PRNG key"):
        render(3, learner, state, tmp_path / "b.gif", draw=bar)
    with pytest.raises(ValueError, match=r"draw must return a PIL image or a NumPy array uint8.*got float64\[3, 3\]"):
        film._image(np.ones((3, 3)))
    with pytest.raises(ValueError, match="got NoneType"):
        film._image(None)
