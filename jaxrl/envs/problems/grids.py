"""Grid worlds drawn as text, as tabular MDPs: a world with slip, the cliff walk, the frozen lake.

Each character is a cell: "S" a start, "." or "F" a free cell, "#" a wall, "G" a goal and "H" a hole, which terminate the
episode, and "C" a cliff, which returns the agent to a start. State r · columns + c is row r, column c. A move out of the grid
or into a wall leaves the agent where it is. Walls are states too; they cannot be reached, and are terminal.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxrl._src.checks import FRACTION, check_scalar
from jaxrl.envs.problems.tabular import TabularMDP, tabular, tabular_mdp
from jaxrl.types import Environment

UP, RIGHT, DOWN, LEFT = (-1, 0), (0, 1), (1, 0), (0, -1)

RUSSELL_NORVIG = ("...G", ".#.H", "S...")
CLIFF = ("." * 12, "." * 12, "." * 12, "S" + "C" * 10 + "G")
FROZEN_LAKES = {
    "4x4": ("SFFF", "FHFH", "FFFH", "HFFG"),
    "8x8": ("SFFFFFFF", "FFFFFFFF", "FFFHFFFF", "FFFFFHFF", "FFFHFFFF", "FHHFFFHF", "FHFFHFHF", "FFFHFFFG"),
}


def grid_world(
    rows: Sequence[str] = RUSSELL_NORVIG,
    *,
    slip: float = 0.2,
    step_reward: float = -0.04,
    goal_reward: float = 1.0,
    hole_reward: float = -1.0,
    max_steps_in_episode: int = 100,
) -> Environment:
    """A grid with actions up, right, down, left; by default the 4 × 3 world of Russell & Norvig (2020, §17.1).

    Every step pays `step_reward`; entering a goal or a hole pays its own reward in addition, and terminates.

    Args:
      rows: the grid as strings of equal length, see the module.
      slip: probability in [0, 1] of moving sideways instead, half of it to each side.
      step_reward, goal_reward, hole_reward: any numbers.
      max_steps_in_episode: time limit in steps.

    Raises:
      ValueError: if the text is not such a grid, or `slip` not in [0, 1]; as `tabular`.
      TypeError: if the limit is not an int.

    >>> env = grid_world(["S.#", "..G"], slip=0.0)
    >>> env.params.mdp.transition[0, 1].tolist()  # right
    [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    pay = {"G": step_reward + goal_reward, "H": step_reward + hole_reward}
    mdp = _grid_mdp(rows, (UP, RIGHT, DOWN, LEFT), slip, step_reward, pay)
    return tabular(mdp, max_steps_in_episode=max_steps_in_episode, name="GridWorld")


def cliff_walk(
    rows: Sequence[str] = CLIFF, *, slip: float = 0.0, cliff_reward: float = -100.0, max_steps_in_episode: int = 100
) -> Environment:
    """Walk around a cliff, of 4 × 12 cells by default (Sutton & Barto 2018, example 6.6). Actions up, right, down, left.

    Every step pays −1. A step over the cliff pays `cliff_reward` and leads back to the start, without ending the episode.
    The best return is −13. States, actions and rewards are those of Gymnasium's CliffWalking-v1, which has no time limit.

    Args:
      rows: the grid as text, see the module.
      slip: probability in [0, 1] of moving sideways instead, half of it to each side.
      cliff_reward: reward of a step over the cliff. Where a slip can lead to the start both over the cliff and
        directly, the expectation of the two rewards is paid.
      max_steps_in_episode: time limit in steps.

    Raises:
      ValueError, TypeError: as `grid_world`.

    >>> env = cliff_walk()
    >>> env.params.mdp.reward[36, 1, 36].item()  # right, from the start
    -100.0
    """
    mdp = _grid_mdp(rows, (UP, RIGHT, DOWN, LEFT), slip, -1.0, {"C": cliff_reward})
    return tabular(mdp, max_steps_in_episode=max_steps_in_episode, name="CliffWalk")


def frozen_lake(
    rows: str | Sequence[str] = "4x4", *, slippery: bool = True, max_steps_in_episode: int | None = None
) -> Environment:
    """Cross a frozen lake with holes: reward 1 on reaching the goal, else 0. Actions left, down, right, up.

    States, actions, probabilities and rewards are those of Gymnasium's FrozenLake-v1.

    Args:
      rows: "4x4", "8x8", or a grid as text, see the module.
      slippery: the chosen move and the two sideways have a probability of one third each.
      max_steps_in_episode: time limit in steps; by default Gymnasium's, 200 for "8x8" and 100 for others.

    Raises:
      ValueError: for another string; as `grid_world`.
      TypeError: if the limit is not an int.

    >>> env = frozen_lake()
    >>> env.observation_space.shape, env.action_space.n
    ((16,), 4)
    """
    if isinstance(rows, str) and rows not in FROZEN_LAKES:
        raise ValueError(f"rows must be {' or '.join(map(repr, FROZEN_LAKES))} or a list of strings; got {rows!r}")
    if max_steps_in_episode is None:
        max_steps_in_episode = 200 if rows == "8x8" else 100
    grid = FROZEN_LAKES[rows] if isinstance(rows, str) else rows
    mdp = _grid_mdp(grid, (LEFT, DOWN, RIGHT, UP), 2 / 3 if slippery else 0.0, 0.0, {"G": 1.0})
    return tabular(mdp, max_steps_in_episode=max_steps_in_episode, name="FrozenLake")


def _grid_mdp(
    rows: Sequence[str], moves: Sequence[tuple[int, int]], slip: float, step_reward: float, pay: Mapping[str, float]
) -> TabularMDP:
    """The MDP of a grid. Sideways moves are the neighbours in the cycle of `moves`; `pay` is for entering a kind of cell."""
    cells = _cells(rows)
    check_scalar("slip", slip, *FRACTION)
    height, width = cells.shape
    num_states = height * width
    start = (cells == "S").ravel() / np.sum(cells == "S")
    transition, identity = np.zeros((num_states, 4, num_states)), np.eye(num_states)
    paid = np.zeros_like(transition)  # probability times reward
    for state, (row, column) in enumerate(np.ndindex(height, width)):
        for action in range(4):
            for turn, prob in ((0, 1 - slip), (-1, slip / 2), (1, slip / 2)):
                down, right = moves[(action + turn) % 4]
                entered = (min(max(row + down, 0), height - 1), min(max(column + right, 0), width - 1))
                entered = (row, column) if cells[entered] == "#" else entered
                kind = cells[entered]
                there = start if kind == "C" else identity[entered[0] * width + entered[1]]
                transition[state, action] += prob * there
                paid[state, action] += prob * there * pay.get(kind, step_reward)
    reward = paid / np.where(transition > 0, transition, 1.0)
    return tabular_mdp(transition, reward, start, np.isin(cells, ["G", "H", "#"]).ravel())


def _cells(rows: Sequence[str]) -> np.ndarray:
    """The characters `[height, width]`."""
    if (
        isinstance(rows, str)
        or not rows
        or any(not isinstance(row, str) or len(row) != len(rows[0]) for row in rows)
        or not rows[0]
    ):
        raise ValueError(f"rows must be strings of equal length, such as ['S.', '.G']; got {rows!r}")
    unknown = sorted(set("".join(rows)) - set("S.F#GHC"))
    if unknown:
        raise ValueError(f"rows may contain S . F # G H C only; they contain {' '.join(unknown)}")
    if not any("S" in row for row in rows):
        raise ValueError(f"rows must contain a start, 'S'; got {list(rows)}")
    return np.array([list(row) for row in rows])
