"""Drawings against the meaning of the states: which way a pole leans, where the agent is, what is a wall."""

import math
from types import SimpleNamespace

import gymnax
import jax
import numpy as np
import pytest
from PIL import Image

import jaxrl
from jaxrl.envs import wrappers as w
from jaxrl.envs.wrappers.randomization import Randomized
from jaxrl.rendering import drawings
from jaxrl.rendering.drawings import BLUE, GREEN, INK, ORANGE, PAPER, RED, grid, planes, rgb, tiles


def where(picture, color):
    """Mean (row, column) of the pixels of a colour."""
    return np.argwhere(np.all(np.asarray(picture) == rgb(color), axis=-1)).mean(axis=0)


@pytest.mark.parametrize("name", drawings.DRAWINGS)
def test_every_environment_with_a_picture_can_be_drawn(name):
    env = jaxrl.make(name)
    state, obs = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(env.reset, jax.random.key(0), env.params))
    drawing = drawings.drawing_of(name)
    picture = np.asarray(drawing.draw(state, obs, env.params))
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert 80 <= picture.shape[0] <= 240
    assert 100 <= picture.shape[1] <= 320
    assert 1 <= drawing.fps <= 50
    if drawing.actions:
        assert len(drawing.actions) == env.action_space.n
    if name.endswith("MinAtar"):
        planes_of_one = np.eye(obs.shape[-1], dtype=bool)  # every plane has a colour of its own, or shares one
        picture = np.asarray(drawing.draw(state, planes_of_one[None], env.params))
        size = picture.shape[0]
        assert np.all(np.any(picture[size // 2, size // 2 :: size] != rgb(INK), axis=-1))


def test_an_environment_without_a_picture_is_refused_with_a_list():
    with pytest.raises(ValueError, match=r"no picture of 'Swimmer-misc'; there are pictures of CartPole-v1, .*PointMass"):
        drawings.drawing_of("Swimmer-misc")


def test_an_environment_is_drawn_inside_its_wrappers():
    env = jaxrl.make("PointMass")
    wrapped = w.time_limit(w.randomize_params(w.sticky_actions(env), w.uniform_params(start_range=(0.5, 2.0))), 5)
    state, obs = wrapped.reset(jax.random.key(0), wrapped.params)
    shown = drawings.drawing_of(env.name).draw(state, np.asarray(obs), wrapped.params)
    drawn = w.find_state(state, Randomized).params.env  # those of this episode, not the nominal ones
    inside = state
    while hasattr(inside, "env"):
        inside = inside.env
    np.testing.assert_array_equal(shown, drawings.point_mass(inside, np.asarray(obs), drawn))
    assert not np.array_equal(shown, drawings.point_mass(inside, np.asarray(obs), env.params))


@pytest.mark.parametrize(
    "env",
    [
        w.frame_stack(jaxrl.make("Breakout-MinAtar"), 4),
        jaxrl.make("GridWorld", rows=["S..G"]),
        jaxrl.make("FrozenLake", rows="8x8"),
    ],
    ids=["frames", "world", "lake"],
)
def test_another_environment_of_the_same_name_is_refused(env):
    state, obs = env.reset(jax.random.key(0), env.params)
    with pytest.raises(ValueError, match=f"the picture of {env.name} does not fit this environment"):
        drawings.drawing_of(env.name).draw(state, np.asarray(obs), env.params)


@pytest.mark.parametrize(("name", "start"), [("CliffWalk", (3, 0)), ("GridWorld", (2, 0)), ("FrozenLake", (0, 0))])
def test_the_agent_of_a_grid_is_at_its_cell(name, start):
    env = jaxrl.make(name)
    state, obs = env.reset(jax.random.key(0), env.params)
    picture = np.asarray(drawings.drawing_of(name).draw(state, np.asarray(obs), env.params))
    cells = {"CliffWalk": (4, 12), "GridWorld": (3, 4), "FrozenLake": (4, 4)}[name]
    assert tuple(int(x) for x in where(picture, ORANGE) / np.divide(picture.shape[:2], cells)) == start


@pytest.mark.parametrize("theta", [-0.2, 0.0, 0.2])
def test_the_pole_leans_to_the_right_for_a_positive_angle(theta):
    state = SimpleNamespace(x=np.float32(1.2), theta=np.float32(theta))
    picture = drawings.cartpole(state, None, SimpleNamespace(x_threshold=2.4, length=0.5))
    (_, pole), (_, cart) = where(picture, ORANGE), where(picture, INK)
    pixels_per_unit = 280 / 6
    assert cart == pytest.approx(140 + 1.2 * pixels_per_unit, abs=1)
    assert pole - cart == pytest.approx(0.5 * math.sin(theta) * pixels_per_unit, abs=1.5)


@pytest.mark.parametrize("angles", [(0.0, 0.0), (math.pi, 0.0), (2.0, 1.0), (2.0, -1.5), (1.0, 0.5)])
def test_the_acrobot_is_above_the_line_where_the_task_ends(angles):
    params = SimpleNamespace(link_length_1=1.0, link_length_2=1.0)
    picture = drawings.acrobot(SimpleNamespace(joint_angle1=angles[0], joint_angle2=angles[1]), None, params)
    tip_height = -math.cos(angles[0]) - math.cos(sum(angles))
    links = np.argwhere(np.all(np.asarray(picture) == rgb(ORANGE), axis=-1))
    line = where(picture, GREEN)[0]
    assert (links[:, 0].min() < line - 6) == (tip_height > 1)  # the links are rounded off with a radius of 4.5 pixels


@pytest.mark.parametrize(("theta", "way"), [(0.0, (-1, 0)), (math.pi, (1, 0)), (math.pi / 2, (0, -1)), (-math.pi / 2, (0, 1))])
def test_the_pendulum_is_upright_at_angle_0_and_turns_counter_clockwise(theta, way):
    picture = drawings.pendulum(SimpleNamespace(theta=theta), None, SimpleNamespace(l=1.0))
    row, col = where(picture, ORANGE) - where(picture, INK)
    np.testing.assert_allclose(np.array((row, col)) / np.hypot(row, col), way, atol=0.05)


def test_the_car_stands_on_the_hill():
    params = SimpleNamespace(min_position=-1.2, max_position=0.6, goal_position=0.5)
    for x in (-1.0, -0.5, 0.3):
        picture = drawings.mountain_car(SimpleNamespace(position=x), None, params)
        row, col = where(picture, BLUE)
        scale = 240 / 2.0
        assert col == pytest.approx((x + 1.3) * scale, abs=9)
        hill = 0.55 + 0.45 * math.sin(3 * x)
        assert row == pytest.approx((1.3 - hill) * scale, abs=12)
        assert row < (1.3 - hill) * scale
        assert where(picture, GREEN)[1] == pytest.approx((0.5 + 1.3 + 0.033) * scale, abs=2)  # of the flag


def test_the_point_is_where_it_is():
    params = SimpleNamespace(start_range=2.0)
    center = np.array([110, 110])
    for position in ([1.0, 0.5], [-1.0, -2.0], [0.5]):
        picture = drawings.point_mass(SimpleNamespace(position=np.array(position, np.float32)), None, params)
        x, y = (*position, 0.0)[:2]
        np.testing.assert_allclose(where(picture, ORANGE) - center, np.array([-y, x]) * 220 / 5.2, atol=1)


def test_a_grid_shows_its_cells_and_the_agent():
    colors = tiles(["ab", "ba", "aa"], {"a": "#102030", "b": "#ffffff"})
    picture = grid(colors, agent=(2, 1), width=90)
    assert picture.shape == (90, 60, 3)
    for row, col in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0)):
        np.testing.assert_array_equal(picture[row * 30 + 15, col * 30 + 15], colors[row, col])
    np.testing.assert_allclose(where(picture, ORANGE), (74.5, 44.5), atol=0.5)
    np.testing.assert_array_equal(colors, tiles(["ab", "ba", "aa"], {"a": "#102030", "b": "#ffffff"}))  # not written to


def test_the_first_plane_lies_on_top():
    draw = planes(RED, BLUE, background=PAPER)
    obs = np.zeros((2, 2, 2), np.float32)
    obs[0, 0], obs[0, 1], obs[1, 0] = (1, 0), (0, 1), (1, 1)
    picture = draw(None, obs, None)
    size = picture.shape[0] // 2
    shown = [[tuple(picture[r * size + size // 2, c * size + size // 2]) for c in range(2)] for r in range(2)]
    assert shown == [[rgb(RED), rgb(BLUE)], [rgb(RED), rgb(PAPER)]]


def test_the_maps_are_those_of_gymnax():
    with jax.numpy_dtype_promotion("standard"):
        (lake, _), (rooms, _) = gymnax.make("FrozenLake-misc"), gymnax.make("FourRooms-misc")
    for position in range(16):
        picture = np.asarray(drawings.frozen_lake(SimpleNamespace(position=position), None, None))
        row, col = divmod(position, 4)
        corner = picture[row * 55 + 3, col * 55 + 3]  # beside the agent
        tile = "SFHG"[int(lake.desc[row, col])]
        np.testing.assert_array_equal(corner, rgb(drawings._LAKE_COLORS[tile]))
    picture = drawings.four_rooms(SimpleNamespace(pos=np.array([4, 1]), goal=np.array([8, 9])), None, None)
    size = picture.shape[0] // 13
    walls = np.all(picture[size // 2 :: size, size // 2 :: size][:13, :13] == rgb(INK), axis=-1)
    np.testing.assert_array_equal(walls, np.asarray(rooms.occupied_map, bool))
    assert where(picture, ORANGE).tolist() == pytest.approx([4.5 * size, 1.5 * size], abs=1)
    np.testing.assert_array_equal(picture[8 * size + size // 2, 9 * size + size // 2], rgb(GREEN))


def test_pictures_are_smooth():
    """Edges have shades between the colours, and no more than a GIF can hold."""
    picture = drawings.cartpole(SimpleNamespace(x=0.3, theta=0.1), None, SimpleNamespace(x_threshold=2.4, length=0.5))
    assert isinstance(picture, Image.Image)
    assert 10 < len(picture.getcolors()) < 255
