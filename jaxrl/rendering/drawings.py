"""Drawings of environments: functions `(env_state, obs, params) -> picture` of NumPy arrays, without a window and without JAX."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from jaxrl.envs.problems.grids import CLIFF, FROZEN_LAKES, RUSSELL_NORVIG

Picture = Image.Image | np.ndarray  # uint8 [height, width, 3]
Draw = Callable[[Any, Any, Any], Picture]  # (env_state, obs, params)
Point = tuple[float, float]


class Drawing(NamedTuple):
    """How to draw an environment."""

    draw: Draw
    fps: int = 30  # frames per second, one frame for each step
    actions: tuple[str, ...] = ()  # names of the actions of a Discrete space; by default their numbers
    components: tuple[str, ...] = ()  # names of the components of a vector that is observed, or of the channels of an image


INK, PAPER, SHADE, LINE = "#22262b", "#ffffff", "#f3f5f8", "#c3c9d2"
BLUE, ORANGE, GREEN, RED, VIOLET = "#2f6db3", "#e07b24", "#2f9e5b", "#c8383a", "#7b5ab5"
_SMOOTH = 3  # pictures are drawn this many times larger, then reduced


class Canvas:
    """A picture in world coordinates, x to the right and y up; it is `width` pixels wide."""

    def __init__(self, left: float, right: float, bottom: float, top: float, *, width: int = 240):
        self._left, self._top = left, top
        self._scale = _SMOOTH * width / (right - left)
        height = _SMOOTH * round(width * (top - bottom) / (right - left))
        self._image = Image.new("RGB", (_SMOOTH * width, height), SHADE)
        self._draw = ImageDraw.Draw(self._image)

    def _pixels(self, points: Sequence[Point]) -> list[Point]:
        return [((x - self._left) * self._scale, (self._top - y) * self._scale) for x, y in points]

    def polygon(self, points: Sequence[Point], color: str) -> None:
        self._draw.polygon(self._pixels(points), fill=color)

    def line(self, points: Sequence[Point], color: str, width: float) -> None:
        """Draw a line through the points, with round ends; `width` is in world units."""
        self._draw.line(self._pixels(points), fill=color, width=max(1, round(width * self._scale)), joint="curve")
        for point in (points[0], points[-1]):
            self.disc(point, width / 2, color)

    def disc(self, center: Point, radius: float, color: str) -> None:
        ((x, y),), r = self._pixels([center]), radius * self._scale
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=color)

    def picture(self) -> Image.Image:
        return self._image.reduce(_SMOOTH)


def _rotated(points: Sequence[Point], angle: float, center: Point) -> list[Point]:
    """The points, rotated counter-clockwise about (0, 0), then moved by `center`."""
    c, s = math.cos(angle), math.sin(angle)
    return [(center[0] + c * x - s * y, center[1] + s * x + c * y) for x, y in points]


def _rectangle(left: float, right: float, bottom: float, top: float) -> list[Point]:
    return [(left, bottom), (right, bottom), (right, top), (left, top)]


# --- classic control -----------------------------------------------------------------------------


def cartpole(state: Any, obs: np.ndarray, params: Any) -> Picture:
    x, theta, limit = float(state.x), float(state.theta), float(params.x_threshold)
    canvas = Canvas(-limit - 0.6, limit + 0.6, -0.5, 1.5, width=280)
    canvas.line([(-limit - 0.6, 0), (limit + 0.6, 0)], LINE, 0.03)
    for side in (-limit, limit):
        canvas.line([(side, -0.12), (side, 0.12)], RED, 0.03)
    canvas.polygon(_rectangle(x - 0.3, x + 0.3, -0.15, 0.15), INK)
    pole = 2 * float(params.length)
    canvas.line([(x, 0.1), (x + pole * math.sin(theta), 0.1 + pole * math.cos(theta))], ORANGE, 0.1)
    canvas.disc((x, 0.1), 0.05, PAPER)
    return canvas.picture()


def acrobot(state: Any, obs: np.ndarray, params: Any) -> Picture:
    """The goal is to swing the tip above the line."""
    first, second = float(params.link_length_1), float(params.link_length_2)
    angle, reach = float(state.joint_angle1), 1.1 * (first + second)
    elbow = first * math.sin(angle), -first * math.cos(angle)
    angle += float(state.joint_angle2)
    tip = elbow[0] + second * math.sin(angle), elbow[1] - second * math.cos(angle)
    canvas = Canvas(-reach, reach, -reach, reach, width=220)
    canvas.line([(-reach, 1), (reach, 1)], GREEN, 0.03)
    canvas.line([(0, 0), elbow], BLUE, 0.18)
    canvas.line([elbow, tip], ORANGE, 0.18)
    for joint in ((0, 0), elbow):
        canvas.disc(joint, 0.06, PAPER)
    return canvas.picture()


def pendulum(state: Any, obs: np.ndarray, params: Any) -> Picture:
    """Angle 0 is upright; a positive torque turns the pendulum counter-clockwise."""
    theta, length = float(state.theta), float(params.l)
    canvas = Canvas(-1.3 * length, 1.3 * length, -1.3 * length, 1.3 * length, width=220)
    canvas.line([(0, 0), (0, 1.25 * length)], LINE, 0.02 * length)
    canvas.line([(0, 0), (-length * math.sin(theta), length * math.cos(theta))], ORANGE, 0.16 * length)
    canvas.disc((0, 0), 0.06 * length, INK)
    return canvas.picture()


def mountain_car(state: Any, obs: np.ndarray, params: Any) -> Picture:
    def height(x):
        return 0.55 + 0.45 * math.sin(3 * x)

    left, right, x = float(params.min_position), float(params.max_position), float(state.position)
    canvas = Canvas(left - 0.1, right + 0.1, 0, 1.3)
    hill = [(p, height(p)) for p in np.linspace(left - 0.1, right + 0.1, 60)]
    canvas.polygon([*hill, (right + 0.1, 0), (left - 0.1, 0)], LINE)
    goal = float(params.goal_position)
    canvas.line([(goal, height(goal)), (goal, height(goal) + 0.22)], INK, 0.015)
    canvas.polygon([(goal, height(goal) + 0.22), (goal, height(goal) + 0.13), (goal + 0.1, height(goal) + 0.175)], GREEN)
    slope = math.atan(3 * 0.45 * math.cos(3 * x))
    canvas.polygon(_rotated(_rectangle(-0.09, 0.09, 0.03, 0.1), slope, (x, height(x))), BLUE)
    for wheel in _rotated([(-0.055, 0.03), (0.055, 0.03)], slope, (x, height(x))):
        canvas.disc(wheel, 0.03, INK)
    return canvas.picture()


def point_mass(state: Any, obs: np.ndarray, params: Any) -> Picture:
    """The first two dimensions; episodes start inside the square, and the goal is the origin."""
    x, y = (*map(float, state.position[:2]), 0.0)[:2]
    start = max(float(params.start_range), 1e-6)
    canvas = Canvas(-1.3 * start, 1.3 * start, -1.3 * start, 1.3 * start, width=220)
    corners = _rectangle(-start, start, -start, start)
    canvas.line([*corners, corners[0]], LINE, 0.015 * start)
    for axis in ([(-0.1 * start, 0), (0.1 * start, 0)], [(0, -0.1 * start), (0, 0.1 * start)]):
        canvas.line(axis, GREEN, 0.03 * start)
    canvas.disc((x, y), 0.06 * start, ORANGE)
    return canvas.picture()


# --- grids ---------------------------------------------------------------------------------------


def grid(colors: np.ndarray, agent: tuple[int, int] | None = None, *, width: int = 220) -> Picture:
    """A grid of coloured cells, with a disc at the agent's cell.

    Args:
      colors: uint8 `[rows, cols, 3]`.
      agent: (row, column).
      width: approximate size of the longer side in pixels; cells are square.

    >>> grid(np.full((2, 4, 3), 255, np.uint8), agent=(0, 1), width=40).shape
    (20, 40, 3)
    """
    rows, cols, _ = colors.shape
    size = max(2, width // max(rows, cols))
    picture = np.repeat(np.repeat(colors, size, axis=0), size, axis=1)
    if size >= 8:  # lines between the cells, in a darker shade of each cell
        for axis in (picture.swapaxes(0, 1), picture):
            axis[::size] = axis[::size] // 8 * 7
    if agent is not None:
        row, col = agent
        cell = Image.fromarray(picture[row * size : (row + 1) * size, col * size : (col + 1) * size])
        disc = Image.new("L", (4 * size, 4 * size))
        ImageDraw.Draw(disc).ellipse((0.7 * size, 0.7 * size, 3.3 * size, 3.3 * size), fill=255)
        cell.paste(ORANGE, mask=disc.reduce(4))
        picture[row * size : (row + 1) * size, col * size : (col + 1) * size] = np.asarray(cell)
    return picture


def rgb(color: str) -> tuple[int, int, int]:
    """Red, green and blue of "#rrggbb", each 0 … 255."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def tiles(rows: Sequence[str], colors: Mapping[str, str]) -> np.ndarray:
    """Colours uint8 `[rows, cols, 3]` of a map of letters.

    >>> tiles(["x."], {"x": "#000000", ".": "#ffffff"}).tolist()
    [[[0, 0, 0], [255, 255, 255]]]
    """
    return np.array([[rgb(colors[letter]) for letter in row] for row in rows], np.uint8)


def planes(*colors: str, background: str = INK) -> Draw:
    """Draw observations `[rows, cols, C]` or `[rows, cols]`: a colour for each plane, the first on top."""
    table = np.array([rgb(background), *map(rgb, reversed(colors))], np.uint8)

    def draw(state: Any, obs: np.ndarray, params: Any) -> Picture:
        layers = obs.reshape(*obs.shape[:2], -1)[..., ::-1] > 0
        return grid(table[np.max(layers * np.arange(1, len(table)), axis=-1)])

    return draw


_LAKE = FROZEN_LAKES["4x4"]
_LAKE_COLORS = {"S": "#d9ecd9", "F": "#e4eef7", ".": "#e4eef7", "H": "#2b4a73", "G": GREEN, "C": RED, "#": INK}


def frozen_lake(state: Any, obs: np.ndarray, params: Any) -> Picture:
    position = int(state.position)
    return grid(tiles(_LAKE, _LAKE_COLORS), divmod(position, len(_LAKE[0])))


def grid_world(rows: Sequence[str]) -> Draw:
    """Draw a grid world from its map, as `jaxrl.envs.grid_world`, `cliff_walk` and `frozen_lake` take them.

    Drawing raises ValueError if the environment has another map.
    """
    ends = np.isin(np.array([list(row) for row in rows]), ["G", "H", "#"]).ravel()

    def draw(state: Any, obs: np.ndarray, params: Any) -> Picture:
        if not np.array_equal(ends, params.mdp.terminal):
            raise ValueError("its map is another one")
        columns = len(rows[0])
        return grid(tiles(rows, _LAKE_COLORS), divmod(int(state.state), columns), width=max(220, 24 * columns))

    return draw


def four_rooms(state: Any, obs: np.ndarray, params: Any) -> Picture:
    from gymnax.environments.misc.rooms import four_rooms_map  # gymnax is loaded already, since it made the environment

    colors = tiles(four_rooms_map.strip("\n").split("\n"), {"x": INK, " ": PAPER})
    colors[tuple(state.goal)] = rgb(GREEN)
    row, col = map(int, state.pos)
    return grid(colors, (row, col))


# --- all drawings -------------------------------------------------------------------------------

_MOVES = ("·", "←", "↑", "→", "↓")  # of MinAtar

DRAWINGS: dict[str, Drawing] = {
    "CartPole-v1": Drawing(cartpole, 50, ("←", "→"), ("position", "velocity", "angle", "angular velocity")),
    "Acrobot-v1": Drawing(acrobot, 15, ("-1", "0", "+1"), ("cos θ₁", "sin θ₁", "cos θ₂", "sin θ₂", "θ₁ velocity", "θ₂ velocity")),
    "Pendulum-v1": Drawing(pendulum, 20, components=("cos θ", "sin θ", "angular velocity")),
    "MountainCar-v0": Drawing(mountain_car, 30, ("←", "·", "→"), ("position", "velocity")),
    "MountainCarContinuous-v0": Drawing(mountain_car, 30, components=("position", "velocity")),
    "PointMass": Drawing(point_mass, 20),
    "Asterix-MinAtar": Drawing(planes(PAPER, RED, "#8d3b3c", "#e8c33c"), 15, _MOVES, ("player", "enemy", "trail", "gold")),
    "Breakout-MinAtar": Drawing(
        planes(PAPER, ORANGE, "#7d5433", BLUE), 15, ("·", "←", "→"), ("paddle", "ball", "trail", "brick")
    ),
    "Freeway-MinAtar": Drawing(planes(PAPER, RED, *("#3c4a5a", "#4a5a6c", "#5b6d80", "#6e8196", "#8397ad")), 15, ("·", "↑", "↓")),
    "Seaquest-MinAtar": Drawing(
        planes(PAPER, "#b9c2cc", "#f4e285", "#43515f", RED, VIOLET, ORANGE, "#5fb3e6", "#2a7f86", GREEN), 15, (*_MOVES, "fire")
    ),
    "SpaceInvaders-MinAtar": Drawing(planes(PAPER, GREEN, GREEN, GREEN, "#f4e285", RED), 15, ("·", "←", "→", "fire")),
    "Catch-bsuite": Drawing(planes(ORANGE), 5, ("←", "·", "→")),
    "DeepSea-bsuite": Drawing(planes(ORANGE), 5),
    "CliffWalk": Drawing(grid_world(CLIFF), 8, ("↑", "→", "↓", "←")),
    "GridWorld": Drawing(grid_world(RUSSELL_NORVIG), 8, ("↑", "→", "↓", "←")),
    "FrozenLake": Drawing(grid_world(_LAKE), 5, ("←", "↓", "→", "↑")),
    "FourRooms-misc": Drawing(four_rooms, 8, ("↑", "→", "↓", "←")),
    "FrozenLake-misc": Drawing(frozen_lake, 5, ("←", "↓", "→", "↑")),
}


def drawing_of(name: str) -> Drawing:
    """Return the drawing of the environment with that name. It also works inside wrappers that do not change observations.

    Raises:
      ValueError: if there is none; the message lists the environments that have one. The drawing itself raises ValueError
        if the environment is not the default one of that name.
    """
    if name not in DRAWINGS:
        raise ValueError(f"there is no picture of {name!r}; there are pictures of {', '.join(DRAWINGS)}")
    drawing = DRAWINGS[name]

    def draw(state: Any, obs: Any, params: Any) -> Picture:
        try:
            return drawing.draw(*_inside(state, obs, params))
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise ValueError(
                f"the picture of {name} does not fit this environment, which is wrapped or made with other arguments "
                f"({error}): pass a function that draws it as draw="
            ) from error

    return drawing._replace(draw=draw)


def _inside(state: Any, obs: Any, params: Any) -> tuple[Any, Any, Any]:
    """State and parameters of the innermost environment; wrappers keep them in the fields `env` and `params`."""
    while hasattr(state, "env"):
        params, state = getattr(state, "params", params), state.env
    while hasattr(params, "env"):
        params = params.env
    return state, obs, params
