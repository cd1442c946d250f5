"""Films for a report: the best, the median and the worst seed of a setting, as images inside the page."""

import base64
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.experiment.comparison import Entry
from jaxrl.rendering import film
from jaxrl.rendering.drawings import Drawing, drawing_of
from jaxrl.types import Environment

MAX_STEPS = 250
_FPS = 50  # steps per second
_EVERY = 2  # of so many pictures one is kept
_COLORS = 64


class Film(NamedTuple):
    entry: int  # its number among all entries
    text: str  # which seed it shows, and its return
    gif: str  # a data URI
    still: str  # the same as a picture, for readers who prefer no motion


class Films(NamedTuple):
    films: list[Film]
    notes: list[str]  # why there are no more


def films_of(entries: Sequence[Entry], num_entries: int) -> Films:
    """Film the policies of the first entries; where that is impossible, say why."""
    made, notes = [], []
    for number, entry in enumerate(entries[:num_entries]):
        try:
            made += _film_entry(number, entry)
        except (ValueError, TypeError, ImportError) as error:
            notes.append(f"No film of {entry.label}: {error}.")
    if len(entries) > num_entries > 0:
        notes.append(f"Only the first {num_entries} of {len(entries)} settings are filmed; --films takes another number.")
    return Films(made, notes)


def chosen_seeds(returns: np.ndarray) -> dict[int, str]:
    """The indices of the best, the median and the worst of returns `[R]`, with what they are.

    >>> chosen_seeds(np.array([3.0, 1.0, 2.0]))
    {0: 'best', 2: 'median', 1: 'worst'}
    >>> chosen_seeds(np.array([1.0]))
    {0: 'only'}
    """
    order = np.argsort(-returns, kind="stable")
    if len(order) < 2:
        return {int(i): "only" for i in order}
    names = {int(order[0]): "best", int(order[-1]): "worst"}
    middle = int(order[len(order) // 2])
    return {int(order[0]): "best", **({} if middle in names else {middle: "median"}), int(order[-1]): "worst"}


def _film_entry(number: int, entry: Entry) -> list[Film]:
    from jaxrl.experiment.films import record_policies

    drawing = drawing_of(entry.config.env)
    seeds = chosen_seeds(entry.returns)
    identifiers = entry.config.identifiers()
    wanted = [{"seed": int(entry.seeds[i])} | entry.combination for i in seeds]
    if not wanted:
        return []
    env, plays = record_policies(entry.run, [identifiers.index(each) for each in wanted], max_steps=MAX_STEPS)
    made = []
    for i, (k, which) in enumerate(seeds.items()):
        play = jax.tree.map(lambda x, i=i: x[i : i + 1], plays)
        seed = f"{which}: seed {entry.seeds[k]}" if which != "only" else f"seed {entry.seeds[k]}"
        gif, still = _images(seed, play, env, drawing)
        made.append(Film(number, f"{seed}, return {entry.returns[k]:z.2f}", gif, still))
    return made


def _images(label: str, play: film.Play, env: Environment, drawing: Drawing) -> tuple[str, str]:
    """The film with fewer pictures and colours, which makes it much smaller; and one of its pictures. Data URIs."""
    from PIL import Image

    none = Image.Dither.NONE
    with tempfile.TemporaryDirectory() as folder:
        path = film.write(Path(folder) / "film.gif", [label], play, env, drawing, fps := min(drawing.fps, _FPS), group=1)
        with Image.open(path) as gif:
            count = gif.n_frames  # type: ignore[attr-defined]
            kept = [*range(0, count - 1, _EVERY), count - 1]
            pictures = [_picture(gif, i) for i in kept]
    colors = film.palette(pictures, _COLORS)
    frames = [picture.quantize(palette=colors, dither=none) for picture in pictures]
    still = frames[len(frames) // 2]
    duration = round(100 * _EVERY / fps) * 10  # ms; a GIF counts hundredths of a second
    options = {"save_all": True, "append_images": frames[1:], "duration": duration, "loop": 0}
    return _uri(frames[0], "gif", **options), _uri(still, "png")


def _picture(gif: Any, index: int) -> Any:
    gif.seek(index)
    return gif.convert("RGB")


def _uri(image: Any, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=kind.upper(), optimize=True, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
