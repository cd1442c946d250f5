"""The best return that any policy can get in `PointMass` with its default parameters, averaged over its starts.

Given the start, nothing is random. Minimising Σ ‖s_t‖ + ‖a_t‖ over the actions, subject to s_{t+1} = s_t + 0.1 a_t and
|a_t| ≤ 1, is a convex program with 100 variables. Two methods solve it:

- `solve`: L-BFGS-B on the program with both norms smoothed, from one start at a time. The gradient of the
  smoothed state norms is a feasible dual solution, so each answer comes with a bound on its error.
- `dynamic_program`: backward induction on a grid, for all starts at once, with displacements restricted
  to the grid. Exact but for that restriction, which only adds to the cost.

The mean over the starts is that of the grid, which is an exact integral, plus the mean difference of the two methods over
random starts. This difference is small, so a few starts suffice for a small standard error.

    python scripts/point_mass_optimum.py
"""

import numpy as np
from scipy.optimize import minimize

STEPS = 50
GAIN = 0.1  # of the action on the state
START_RANGE = 1.0


def states(start: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """The states acted in, `[STEPS, 2]`."""
    moved = np.cumsum(actions[:-1], axis=0)
    return start + GAIN * np.concatenate([np.zeros((1, 2)), moved])


def cost(start: np.ndarray, actions: np.ndarray) -> float:
    """Minus the return of the episode."""
    return float(np.linalg.norm(states(start, actions), axis=1).sum() + np.linalg.norm(actions, axis=1).sum())


def slope(pull: np.ndarray) -> np.ndarray:
    """The gradient in each action of Σ pull_t · s_t: an action moves every later state."""
    later = np.cumsum(pull[::-1], axis=0)[::-1]
    return GAIN * np.concatenate([later[1:], np.zeros((1, 2))])


def lower_bound(start: np.ndarray, pull: np.ndarray) -> float:
    """A bound on the cost of all actions, by weak duality: ‖s‖ ≥ pull · s wherever ‖pull‖ ≤ 1."""
    c = np.abs(slope(pull))  # each step then minimises ‖a‖ − c · a over 0 ≤ a ≤ 1
    best = np.zeros(STEPS)
    for i in (0, 1):  # the minimum is 0 or on the side where a_i = 1
        other = c[:, 1 - i]
        a = np.where(other < np.sqrt(0.5), other / np.sqrt(np.maximum(1 - other**2, 0.5)), 1.0)
        best = np.minimum(best, np.sqrt(1 + a**2) - c[:, i] - other * a)
    return float((pull @ start).sum() + best.sum())


def solve(
    start: np.ndarray, smoothings: tuple[float, ...] = tuple(10 ** (-i / 2) for i in range(2, 9))
) -> tuple[np.ndarray, float]:
    """The best actions from `start`, `[STEPS, 2]`, and a lower bound on the cost of any others.

    With the smoothing made smaller in steps, for a long one can end the search early; every step gives a bound, and the
    largest counts.
    """

    def smoothed(x, width):
        actions = x.reshape(STEPS, 2)
        s = states(start, actions)
        state_norm = np.sqrt((s**2).sum(axis=1) + width**2)
        action_norm = np.sqrt((actions**2).sum(axis=1) + width**2)
        gradient = slope(s / state_norm[:, None]) + actions / action_norm[:, None]
        return state_norm.sum() + action_norm.sum(), gradient.ravel()

    x, bound = np.zeros(STEPS * 2), -np.inf
    options = {"maxiter": 5000, "maxfun": 10_000, "ftol": 1e-12, "gtol": 1e-8}
    for width in smoothings:
        x = minimize(smoothed, x, (width,), "L-BFGS-B", jac=True, bounds=[(-1, 1)] * x.size, options=options).x
        s = states(start, x.reshape(STEPS, 2))
        bound = max(bound, lower_bound(start, s / np.sqrt((s**2).sum(axis=1) + width**2)[:, None]))
    return x.reshape(STEPS, 2), bound


def dynamic_program(levels: int) -> np.ndarray:
    """The least cost from every point of a grid over [0, 1]², whose spacing is 1 / `levels` of the longest step.

    The signs are symmetric, so one quadrant is enough, and moving away from or past 0 never pays.
    """
    points = round(START_RANGE / GAIN) * levels + 1
    axis = np.linspace(0.0, START_RANGE, points)
    norm = np.hypot(axis[:, None], axis)
    value = norm  # of the last step, which is best spent at rest
    for _ in range(STEPS - 1):
        best = np.full_like(norm, np.inf)
        for i in range(levels + 1):
            for j in range(levels + 1):
                after = value[: points - i, : points - j] + np.hypot(i, j) / levels
                best[i:, j:] = np.minimum(best[i:, j:], after)
        value = norm + best
    return value


def interpolate(value: np.ndarray, start: np.ndarray) -> float:
    """Bilinear interpolation of a grid from `dynamic_program`."""
    at = np.abs(start) / START_RANGE * (len(value) - 1)
    i, j = np.minimum(at.astype(int), len(value) - 2)
    x, y = at - (i, j)
    return float(np.array([1 - x, x]) @ value[i : i + 2, j : j + 2] @ np.array([1 - y, y]))


def grid_mean(value: np.ndarray) -> float:
    """The mean of the interpolated grid over all starts, exactly."""
    weights = np.ones(len(value))
    weights[[0, -1]] = 0.5
    weights /= weights.sum()
    return float(weights @ value @ weights)


def main(num_starts: int = 100, levels: int = 10) -> None:
    value = dynamic_program(levels)
    starts = np.random.default_rng(0).uniform(-START_RANGE, START_RANGE, (num_starts, 2))
    solutions = [solve(start) for start in starts]
    costs = np.array([cost(start, actions) for start, (actions, _) in zip(starts, solutions, strict=True)])
    bounds = np.array([bound for _, bound in solutions])
    difference = bounds - [interpolate(value, start) for start in starts]
    mean = grid_mean(value) + difference.mean()
    error = difference.std(ddof=1) / np.sqrt(num_starts)
    print(f"optimal return {-mean:.4f}, standard error {error:.4f}")
    print(f"  the {num_starts} solutions cost at most {(costs - bounds).max():.1e} more than their lower bounds")
    print(f"  dynamic program alone, {len(value)}² points: {-grid_mean(value):.4f}")


if __name__ == "__main__":
    main()
