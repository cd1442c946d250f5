"""Write played episodes to a GIF or a PNG sheet: panels side by side, with text around each picture."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxrl._src.checks import check_size
from jaxrl.rendering.drawings import INK, PAPER, RED, Drawing
from jaxrl.types import Discrete, Environment, MultiDiscrete

_MAX_PICTURES = 20_000  # in one film, which takes about 1 GB of memory while it is written
_MAX_COLUMNS = 8
_NUM_SNAPSHOTS = 6  # number of pictures per policy on a sheet
_MAX_SAMPLES = 200  # frames whose colours are counted for the palette
_MARGIN, _LINE = 8, 17  # pixels: around a panel, and of a line of text
_GREY = "#69727d"


class Play(NamedTuple):
    """Played episodes: leaves `[T, E, ...]`; those of state and observation `[T + 1, E, ...]`."""

    state: Any  # with PRNG keys as raw bits
    obs: Any  # an array, or a dict of arrays
    action: Any
    reward: Any
    terminated: Any
    truncated: Any


class Snapshot(NamedTuple):
    """What a panel shows at one time: the state after `step` steps, and the return so far."""

    episode: int
    step: int
    total: float  # the return so far
    end: str  # "terminated", "time limit", "cut", or "" while the episode continues


class Panel(NamedTuple):
    """One policy's part of the film."""

    label: str  # may have several lines
    play: Play  # NumPy arrays
    snapshots: list[Snapshot]


Paint = Callable[[Panel, Snapshot], Image.Image]
Line = tuple[str, str]  # a line of text: its left and its right part


def check_film(out: Path | str, fps: int, num_policies: int, num_episodes: int, max_steps: int) -> Path:
    """Return the path of the file. Raises ValueError if the film cannot be made, TypeError for sizes that are not ints."""
    check_size("fps", fps, maximum=50)  # browsers play faster GIFs at ten frames per second
    pictures = num_policies * check_size("num_episodes", num_episodes) * check_size("max_steps", max_steps)
    if pictures > _MAX_PICTURES:
        raise ValueError(
            f"{num_policies} policies × {num_episodes} episodes × {max_steps} steps may be {pictures:,} pictures, and a film has "
            f"at most {_MAX_PICTURES:,}: take fewer seeds, episodes or steps"
        )
    out = Path(out)
    if out.is_dir() or not out.parent.is_dir():
        raise ValueError(f"cannot write {out}: {'it is a folder' if out.is_dir() else f'there is no folder {out.parent}'}")
    out = out if out.suffix else out.with_suffix(".gif")
    if out.suffix.lower() not in (".gif", ".png"):
        raise ValueError(f"a film is a .gif, or a .png sheet with {_NUM_SNAPSHOTS} snapshots of each policy; got {out}")
    return out


def write(out: Path, labels: list[str], plays: Play, env: Environment, drawing: Drawing, fps: int, *, group: int) -> Path:
    """Write the file and return its path.

    Args:
      out: from `check_film`.
      labels: one for each policy.
      plays: leaves `[S, T, E, ...]`.
      env, drawing: the environment, and how to draw it.
      fps: frames per second.
      group: the number of consecutive policies that belong together; each group starts a row.

    Raises:
      ValueError: if the file cannot be written, or a drawing does not return a picture.
    """
    plays = jax.tree.map(np.asarray, plays)
    each = [jax.tree.map(lambda x, i=i: x[i], plays) for i in range(len(labels))]
    film = out.suffix.lower() == ".gif"
    panels = [Panel(label, play, snapshots(play, hold=fps // 2 if film else 0)) for label, play in zip(labels, each, strict=True)]
    paint = _painter(env, drawing, panels)
    try:
        if not film:
            _sheet(panels, paint).save(out)
        else:
            _save_gif(out, panels, paint, fps, columns=math.ceil(group / math.ceil(group / _MAX_COLUMNS)))
    except OSError as error:
        raise ValueError(f"cannot write {out} ({error.strerror})") from error
    return out


def snapshots(play: Play, *, hold: int) -> list[Snapshot]:
    """The snapshots of all episodes, one after the other; the last one of each episode is repeated `hold` times."""
    found = []
    for episode in range(play.reward.shape[1]):
        terminated, truncated = play.terminated[:, episode], play.truncated[:, episode]
        ends = np.flatnonzero(terminated | truncated)
        length = ends[0] + 1 if len(ends) else len(terminated)
        end = "cut" if not len(ends) else "terminated" if terminated[ends[0]] else "time limit"
        totals = [0.0, *np.cumsum(play.reward[:length, episode], dtype=np.float64)]
        found += [Snapshot(episode, step, total, "") for step, total in enumerate(totals[:-1])]
        found += [Snapshot(episode, length, totals[-1], end)] * (1 + hold)
    return found


# --- a panel -------------------------------------------------------------------------------------


@cache
def _font() -> Any:
    import matplotlib  # its font has arrows, and is installed with it

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", 12)


@cache
def _length(text: str) -> int:
    """In pixels."""
    return math.ceil(_font().getlength(text))


def _text_width(panels: list[Panel], env: Environment, drawing: Drawing) -> int:
    """The width of the longest line of text, so that all panels are equally wide and no text is cut or drawn over another."""
    lines = ((*above, below) for p in panels for s in p.snapshots for above, below in [captions(p, s, env, drawing)])
    return max((_length(left) + 2 * _MARGIN + _length(right) for each in lines for left, right in each), default=0)


def _painter(env: Environment, drawing: Drawing, panels: list[Panel]) -> Paint:
    """Return a function that paints one of the panels at a snapshot: the picture, and the text around it."""
    params = jax.tree.map(np.asarray, env.params)
    text_width = _text_width(panels, env, drawing)

    def paint(panel: Panel, snapshot: Snapshot) -> Image.Image:
        at = snapshot.step, snapshot.episode
        state, obs = jax.tree.map(lambda x: x[at], (panel.play.state, panel.play.obs))
        picture = _image(drawing.draw(state, obs, params))
        above, below = captions(panel, snapshot, env, drawing)
        top = _MARGIN // 2 + _LINE * len(above)
        width = max(picture.width, text_width) + 2 * _MARGIN
        image = Image.new("RGB", (width, top + picture.height + _LINE + 2 * _MARGIN), PAPER)
        image.paste(picture, ((width - picture.width) // 2, top))
        for i, (left, right) in enumerate(above):
            _text(image, _MARGIN // 2 + i * _LINE, left, right, INK if i < len(above) - 1 else _GREY, _GREY)
        _text(image, top + picture.height + _MARGIN // 2, *below, _GREY, RED)
        return image

    return paint


def captions(panel: Panel, snapshot: Snapshot, env: Environment, drawing: Drawing) -> tuple[list[Line], Line]:
    """The lines of text above the picture and the line below it."""
    play = panel.play
    episodes = play.reward.shape[1]
    above = [(line, "") for line in panel.label.split("\n")]
    above[0] = above[0][0], f"episode {snapshot.episode + 1} of {episodes}" if episodes > 1 else ""
    above.append((f"return {_number(snapshot.total, play.reward)}", f"step {snapshot.step}"))
    action = f"action {_action(env, drawing, play.action[snapshot.step - 1, snapshot.episode])}" if snapshot.step else ""
    return above, (action, snapshot.end)


def _number(total: float, rewards: np.ndarray) -> str:
    """The return, without decimals if all rewards are whole numbers."""
    return f"{total:z.0f}" if np.all(rewards == np.round(rewards)) else f"{total:z.2f}"


def _action(env: Environment, drawing: Drawing, action: np.ndarray) -> str:
    """The name or number of a Discrete action; the first components of any other."""
    if isinstance(env.action_space, Discrete):
        return drawing.actions[action] if len(drawing.actions) == env.action_space.n else str(action)
    form = "{:d}" if isinstance(env.action_space, MultiDiscrete) else "{:+.2f}"
    shown = " ".join(map(form.format, action.ravel()[:4]))
    return shown + (" …" if action.size > 4 else "")


def _text(image: Image.Image, y: int, left: str, right: str, left_color: str, right_color: str) -> None:
    draw = ImageDraw.Draw(image)
    if left:
        draw.text((_MARGIN, y), left, left_color, _font())
    if right:
        draw.text((image.width - _MARGIN, y), right, right_color, _font(), anchor="ra")


def _image(picture: Any) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3:
        return Image.fromarray(picture)
    given = f"{picture.dtype}{list(picture.shape)}" if hasattr(picture, "dtype") else type(picture).__name__
    raise ValueError(f"draw must return a PIL image or a NumPy array uint8 [height, width, 3], got {given}")


# --- frames and files ----------------------------------------------------------------------------


def _side_by_side(images: list[Image.Image], columns: int) -> Image.Image:
    width, height = images[0].size
    frame = Image.new("RGB", (columns * width, math.ceil(len(images) / columns) * height), PAPER)
    for i, image in enumerate(images):
        frame.paste(image, (i % columns * width, i // columns * height))
    return frame


def _frames(panels: list[Panel], paint: Paint, indices: Iterable[int], columns: int) -> Iterator[Image.Image]:
    """The frames with these indices; a policy that has finished stays at its last snapshot."""
    shown: list[Any] = [None] * len(panels)
    images: list[Any] = [None] * len(panels)
    for index in indices:
        for i, panel in enumerate(panels):
            snapshot = panel.snapshots[min(index, len(panel.snapshots) - 1)]
            if snapshot != shown[i]:
                shown[i], images[i] = snapshot, paint(panel, snapshot)
        yield _side_by_side(images, columns)


def palette(images: Iterable[Image.Image], size: int) -> Image.Image:
    """A palette of `size` colours for all of the images.

    Three quarters are the most frequent colours, unchanged; the rest are averages of all others, each of which counts once. So
    what is small and seldom seen, such as a bullet or the last word of an episode, keeps its colour.
    """
    counts: Counter[Any] = Counter()
    for image in images:
        counts.update({color: count for count, color in image.getcolors(image.width * image.height) or []})
    ordered = [color for color, _ in counts.most_common()]
    frequent, others = ordered[: size * 3 // 4], ordered[size * 3 // 4 :]
    values = [value for color in frequent for value in color]
    if others:
        strip = Image.new("RGB", (len(others), 1))
        strip.putdata(others)
        values += strip.quantize(size - len(frequent)).getpalette() or []
    found = Image.new("P", (1, 1))
    found.putpalette(values[: 3 * size])
    return found


def _save_gif(out: Path, panels: list[Panel], paint: Paint, fps: int, columns: int) -> None:
    """Use one palette for all frames, so that colours do not flicker and frames store differences."""
    length = max(len(panel.snapshots) for panel in panels)
    sampled = np.unique(np.linspace(0, length - 1, min(length, _MAX_SAMPLES)).astype(int))
    colors = palette(_frames(panels, paint, sampled, columns), 255)  # one is left for unchanged pixels
    frames = (
        frame.quantize(palette=colors, dither=Image.Dither.NONE) for frame in _frames(panels, paint, range(length), columns)
    )
    duration = round(100 / fps) * 10  # ms; a GIF counts hundredths of a second
    next(frames).save(out, format="GIF", save_all=True, append_images=frames, duration=duration, loop=0, optimize=True)


def _sheet(panels: list[Panel], paint: Paint) -> Image.Image:
    """A row for each policy, with evenly spaced snapshots from start to end."""
    chosen = [np.linspace(0, len(panel.snapshots) - 1, _NUM_SNAPSHOTS).astype(int) for panel in panels]
    return _side_by_side([paint(p, p.snapshots[i]) for p, row in zip(panels, chosen, strict=True) for i in row], _NUM_SNAPSHOTS)
