"""Figures of matplotlib without a window or pyplot's global state."""

import warnings
from pathlib import Path
from typing import Any


def new_figure(width: float, height: float, *, dpi: int = 120) -> Any:
    """An empty figure of this size in inches. Raises ImportError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: Path) -> Path:
    """Write a figure and return its path. The format is PNG if `path` has no suffix.

    Raises:
      ValueError: if the file cannot be written, or matplotlib does not know the format.
    """
    path = path if path.suffix else path.with_suffix(".png")
    try:
        with warnings.catch_warnings():
            # A character that the font lacks is a box, and a layout without room is seen too: nothing to print.
            warnings.filterwarnings("ignore", "Glyph|constrained_layout", UserWarning)
            figure.savefig(path)
    except OSError as error:
        raise ValueError(f"cannot write the picture {path} ({error.strerror})") from error
    return path
