"""`jaxrl explain`: one picture of what a policy has learned."""

import math
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.experiment.explanation import Explanation, Moment, sizes_of
from jaxrl.experiment.pictures import new_figure, save
from jaxrl.explain import BoxStatistics
from jaxrl.rendering.drawings import BLUE, DRAWINGS, GREEN, INK, LINE, ORANGE, RED, VIOLET, drawing_of
from jaxrl.spaces import Box, Discrete

_COLORS = (BLUE, ORANGE, GREEN, RED, VIOLET, "#8c6d31", "#d6616b", "#17becf", "#637939", "#7f7f7f")
_MAX_BARS = 12  # components
_MAX_NUMBERS = 4  # of a Box whose distributions are drawn
_MAX_DOTS = 300  # visited observations
_FADE = 0.08, 0.4  # distances from the visited observations between which a map fades


def draw(explanation: Explanation, path: Path) -> Path:
    """Write the picture and return its path; the format is PNG if `path` has no suffix.

    Raises:
      ImportError: without matplotlib.
      ValueError: if the file cannot be written.
    """
    figure = new_figure(11, 8.2, dpi=100)
    mean, num = float(np.mean(explanation.returns)), len(explanation.returns)
    steps = explanation.cut_after
    what = "greedy return" if steps is None else f"greedy return of the first {steps:,} step{'s' * (steps != 1)}:"
    result = f"{what} {mean:.4g}, mean of {num} episode{'s' * (num != 1)}"
    figure.suptitle(f"{textwrap.fill(explanation.title, 90)}\n{result}", fontsize=13, color=INK)
    rows = figure.subfigures(2, 1, height_ratios=(1.4, 1) if explanation.moments else (1.25, 1))
    if explanation.moments:
        _draw_moments(rows[0], explanation)
    elif explanation.dims is not None:
        value_axes, policy_axes = rows[0].subplots(1, 2)
        _draw_value(rows[0], value_axes, explanation, explanation.value)
        _draw_policy(rows[0], policy_axes, explanation, explanation.policy)
    saliency_axes, statistics_axes = (rows[1] if explanation.moments or explanation.dims else figure).subplots(1, 2)
    _draw_saliency(saliency_axes, explanation)
    _draw_statistics(statistics_axes, explanation)
    return save(figure, path)


# --- maps ---------------------------------------------------------------------------------------------


def _extent(drawn: Any) -> tuple[float, float, float, float]:
    """The edges of the outermost cells, whose centres are the points of the grid."""
    half_x, half_y = ((values[-1] - values[0]) / (len(values) - 1) / 2 for values in (drawn.x, drawn.y))
    return drawn.x[0] - half_x, drawn.x[-1] + half_x, drawn.y[0] - half_y, drawn.y[-1] + half_y


def _draw_map(axes: Any, explanation: Explanation, drawn: Any, image: np.ndarray, **options: Any) -> Any:
    """Draw an image `[H, W]` or `[H, W, 3]` that fades where no observation was visited, and dots for those visited."""
    extent = _extent(drawn)
    shown = axes.imshow(image, origin="lower", extent=extent, aspect="auto", interpolation="nearest", **options)
    low, high = _FADE
    fade = np.ones((*drawn.distance.shape, 4))
    fade[..., 3] = 0.85 * np.clip((drawn.distance - low) / (high - low), 0, 1)
    axes.imshow(fade, origin="lower", extent=extent, aspect="auto", interpolation="bilinear")
    every = math.ceil(len(explanation.observations) / _MAX_DOTS)
    points = explanation.observations[::every, list(explanation.dims or ())]
    axes.scatter(points[:, 0], points[:, 1], s=5, color=INK, alpha=0.35, linewidths=0)
    axes.set(xlim=extent[:2], ylim=extent[2:])
    for set_label, dim in zip((axes.set_xlabel, axes.set_ylabel), explanation.dims or (), strict=True):
        name = explanation.components[dim]
        set_label(f"component {name}" if name[:1].isdigit() else name)
    return shown


def _draw_value(figure: Any, axes: Any, explanation: Explanation, drawn: Any) -> None:
    shown = _draw_map(axes, explanation, drawn, drawn.values, cmap="viridis")
    measured = f"discounted return that followed, γ = {explanation.discount:g}"
    axes.set_title("Value: " + (measured if explanation.value_is_measured else "what the policy expects"), fontsize=11)
    figure.colorbar(shown, ax=axes, pad=0.02)


def _draw_policy(figure: Any, axes: Any, explanation: Explanation, drawn: Any) -> None:
    space = explanation.env.action_space
    if isinstance(space, Box):
        action = drawn.values[..., 0]
        bounds = (float(space.low.flat[0]), float(space.high.flat[0])) if space.bounded else (action.min(), action.max())
        shown = _draw_map(axes, explanation, drawn, np.clip(action, *bounds), cmap="coolwarm", vmin=bounds[0], vmax=bounds[1])
        figure.colorbar(shown, ax=axes, pad=0.02)
        if drawn.values.shape[-1] > 1:
            every = max(1, len(drawn.x) // 16)
            x, y = np.meshgrid(drawn.x[::every], drawn.y[::every])
            axes.quiver(x, y, *(drawn.values[::every, ::every, i] for i in (0, 1)), color=INK, alpha=0.7, angles="xy")
        axes.set_title("Policy: action" + (" 0 (arrows: 0 and 1)" if drawn.values.shape[-1] > 1 else ""), fontsize=11)
        return
    names = _action_names(explanation)
    colors = np.array([_rgb(_COLORS[i % len(_COLORS)]) for i in range(len(names))])
    _draw_map(axes, explanation, drawn, np.clip(drawn.values @ colors, 0, 1))
    from matplotlib.patches import Patch

    patches = [Patch(color=color, label=name) for color, name in zip(colors[:10], names, strict=False)]
    axes.legend(handles=patches, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, title="action")
    what = "action" if isinstance(space, Discrete) else "first component of the action"
    axes.set_title(f"Policy: {what} (mixed colours: probabilities)", fontsize=11)


def _rgb(color: str) -> tuple[float, ...]:
    return tuple(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))


def _action_names(explanation: Explanation) -> list[str]:
    num = max(sizes_of(explanation.env.action_space))
    known = DRAWINGS[explanation.drawn_as].actions if explanation.drawn_as in DRAWINGS else ()
    return list(known) if len(known) == num else [str(i) for i in range(num)]


# --- images -------------------------------------------------------------------------------------------


def _draw_moments(figure: Any, explanation: Explanation) -> None:
    """The frames of the moments, and below each the saliency of its pixels, summed over the channels."""
    figure.suptitle("Where the choice of the action mattered most: red pixels speak for it, blue ones against it", fontsize=11)
    names = _action_names(explanation) if isinstance(explanation.env.action_space, Discrete) else None
    axes = figure.subplots(2, len(explanation.moments), squeeze=False)
    for column, moment in zip(axes.T, explanation.moments, strict=True):
        saliency = moment.saliency.sum(axis=-1)
        largest = float(np.abs(saliency).max()) or 1.0
        column[0].imshow(_frame(explanation, moment))
        column[1].imshow(saliency, cmap="bwr", vmin=-largest, vmax=largest, interpolation="nearest")
        action = np.round(moment.action, 2) if names is None else names[int(moment.action)]
        column[0].set_title(f"step {moment.time}: {action}", fontsize=10)
        for panel in column:
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_color(LINE)


def _frame(explanation: Explanation, moment: Moment) -> np.ndarray:
    """jaxrl's drawing of the environment, or else the observation itself, uint8 `[height, width, 3]`."""
    try:
        return np.asarray(drawing_of(explanation.drawn_as).draw(moment.env_state, moment.obs, explanation.env.params))
    except ValueError:
        planes = np.asarray(moment.obs, np.float32)
        gray = planes.max(axis=-1) if planes.shape[-1] != 3 else planes.mean(axis=-1)
        gray = 255 - 255 * (gray - gray.min()) / max(float(np.ptp(gray)), 1e-6)
        return np.repeat(gray[..., None], 3, axis=-1).astype(np.uint8)


# --- bars ---------------------------------------------------------------------------------------------


def _draw_saliency(axes: Any, explanation: Explanation) -> None:
    saliency, names = explanation.saliency, explanation.components
    if explanation.moments:
        channels = explanation.moments[0].obs.shape[-1]
        saliency = {name: share.reshape(-1, channels).sum(axis=0) for name, share in saliency.items()}
        known = DRAWINGS[explanation.drawn_as].components if explanation.drawn_as in DRAWINGS else ()
        names = list(known) if len(known) == channels else [f"channel {i}" for i in range(channels)]
    order = np.arange(len(names))
    if len(names) > _MAX_BARS:
        order = np.argsort(-np.sum(list(saliency.values()), axis=0), kind="stable")[:_MAX_BARS]
    height = 0.8 / len(saliency)
    for i, (name, share) in enumerate(saliency.items()):
        axes.barh(np.arange(len(order)) + i * height, share[order], height, color=(VIOLET, GREEN)[i], label=name)
    axes.set_yticks(np.arange(len(order)) + height * (len(saliency) - 1) / 2, [names[i] for i in order])
    axes.invert_yaxis()
    axes.set_xlabel("share of the saliency" + (" of the action" if len(saliency) == 1 else ""))
    axes.set_title("Saliency (integrated gradients)", fontsize=11)
    if len(saliency) > 1:
        axes.legend(title="of the", framealpha=0.8, edgecolor="none")
    _plain(axes)


def _draw_statistics(axes: Any, explanation: Explanation) -> None:
    statistics = explanation.statistics
    space: Any = explanation.env.action_space
    if isinstance(statistics, BoxStatistics):
        flat = explanation.actions.reshape(len(explanation.actions), -1)
        for i in range(min(flat.shape[1], _MAX_NUMBERS)):
            label = f"action {i}: " if flat.shape[1] > 1 else ""
            at_bounds = 100 * (statistics.at_low[i] + statistics.at_high[i])
            label += f"{statistics.mean[i]:.2g} ± {statistics.std[i]:.2g}, {at_bounds:.0f} % at a bound"
            ends = (float(space.low.flat[i]), float(space.high.flat[i])) if space.bounded else None
            axes.hist(flat[:, i], bins=40, range=ends, histtype="stepfilled", alpha=0.5, color=_COLORS[i], label=label)
        axes.set(xlabel="action", ylabel="steps")
        axes.legend(fontsize=9, framealpha=0.8, edgecolor="none")
        change = ", ".join(f"{x:.2g}" for x in statistics.change[:_MAX_NUMBERS] if np.isfinite(x))  # NaN for a single step
        axes.set_title("Actions" + f"; mean change from step to step {change}" * bool(change), fontsize=11)
    else:
        frequency, names = np.atleast_2d(statistics.frequency), _action_names(explanation)
        width = 0.8 / len(frequency)
        for i, row in enumerate(frequency):
            one = isinstance(space, Discrete)
            colors = [_COLORS[j % len(_COLORS)] for j in range(len(row))] if one else _COLORS[i % len(_COLORS)]
            axes.bar(np.arange(len(row)) + i * width, row, width, color=colors, label=None if one else f"component {i}")
        axes.set_xticks(np.arange(len(names)) + width * (len(frequency) - 1) / 2, names)
        axes.set(xlabel="action", ylabel="share of the steps")
        if len(frequency) > 1:
            axes.legend(frameon=False)
        most = float(np.mean(np.log(sizes_of(space))))
        entropy, repeat = float(np.mean(statistics.entropy)), float(np.mean(statistics.repeat))
        repeats = f", {100 * repeat:.0f} % repeat the last" * math.isfinite(repeat)  # NaN for a single step
        axes.set_title(f"Actions: entropy {entropy:.2f} of {most:.2f}{repeats}", fontsize=11)
    _plain(axes)


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=LINE, alpha=0.4)
    axes.set_axisbelow(True)
