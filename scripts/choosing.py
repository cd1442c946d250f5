"""Write the results of `scripts/presets.py` into README.md, docs/choosing.md and docs/agents/: `python scripts/choosing.py`.

Tables go between the lines `<!-- results:begin -->` and `<!-- results:end -->`. A page in docs/agents/ begins with one line
`<!-- results -->`. Nothing else on a page is changed.
"""

from pathlib import Path
from typing import Any, NamedTuple

import presets
from markers import fill

from jaxrl.algorithms import ALGORITHMS

ROOT = Path(__file__).parent.parent


class Task(NamedTuple):
    title: str  # in headings
    solved: float | None  # the IQM from which the comparison of samples and time counts a row


# In the order of the pages. Others follow, under their own names.
TASKS = {
    "CartPole-v1": Task("CartPole-v1", 475),
    "CartPole-v1 (partial_observation:1,0,1,0)": Task("CartPole-v1 without velocities", 450),
    "Acrobot-v1": Task("Acrobot-v1", -100),
    "MountainCar-v0": Task("MountainCar-v0", -110),
    "Pendulum-v1": Task("Pendulum-v1", -200),
    "MountainCarContinuous-v0": Task("MountainCarContinuous-v0", 90),
    "PointMass": Task("PointMass", -12),
    "MemoryChain-bsuite": Task("MemoryChain-bsuite", 0.99),
    "Breakout-MinAtar": Task("Breakout-MinAtar", 8),
}
NONE = "There are no results yet."


class Result(NamedTuple):
    """A line of the file, and the statistics of its returns."""

    algorithm: str
    env: str
    env_steps: int
    seeds: int
    cpu_seconds: float
    wall_seconds: float
    device: str
    iqm: float
    low: float
    high: float
    median: float
    worst: float

    @property
    def task(self) -> Task:
        return TASKS.get(self.env, Task(self.env, None))

    @property
    def on_cpu(self) -> bool:
        return self.device.endswith("cpu")

    @property
    def seconds_per_seed(self) -> float:
        return self.cpu_seconds / self.seeds


def result_of(line: dict[str, Any]) -> Result:
    same = ("algorithm", "env", "env_steps", "seeds", "cpu_seconds", "wall_seconds", "device")
    return Result(**{name: line[name] for name in same}, **presets.statistics(line["returns"]))


def measured() -> list[Result]:
    """The results of all rows, where they were measured with the settings of today."""
    lines = presets.read()
    return [result_of(lines[row.name]) for row in presets.ROWS if presets.is_current(row, lines.get(row.name))]


# --- selections


def by_task(results: list[Result]) -> dict[str, list[Result]]:
    """The results of each environment, best first; of equal ones, that with the fewest steps, then with the best worst seed."""
    found = {env: [r for r in results if r.env == env] for env in [*TASKS, *sorted({r.env for r in results} - TASKS.keys())]}
    return {env: sorted(rs, key=lambda r: (-round(r.iqm, 1), r.env_steps, -r.worst)) for env, rs in found.items() if rs}


def best_two(results: list[Result]) -> list[Result]:
    """In each environment, the best result and the best of another algorithm."""
    chosen = []
    for rs in by_task(results).values():
        chosen += [rs[0], *[r for r in rs if r.algorithm != rs[0].algorithm][:1]]
    return chosen


def fastest(results: list[Result]) -> list[Result]:
    """Results on a CPU that solve their task, and no other one with fewer steps and less time does; by environment and steps."""
    chosen = []
    for rs in by_task([r for r in results if r.on_cpu]).values():
        solved = [r for r in rs if r.task.solved is not None and r.iqm >= r.task.solved]
        better = lambda r, s: (
            (s.env_steps, s.seconds_per_seed) != (r.env_steps, r.seconds_per_seed)
            and (s.env_steps <= r.env_steps and s.seconds_per_seed <= r.seconds_per_seed)
        )
        chosen += sorted([r for r in solved if not any(better(r, s) for s in solved)], key=lambda r: r.env_steps)
    return chosen


# --- tables

COLUMNS = {
    "environment": lambda r: r.task.title,
    "algorithm": lambda r: title(r.algorithm),
    "steps": lambda r: f"{r.env_steps:,}",
    "IQM": lambda r: number(r, r.iqm),
    "95 % interval": lambda r: f"{number(r, r.low)} … {number(r, r.high)}",
    "median": lambda r: number(r, r.median),
    "worst seed": lambda r: number(r, r.worst),
    "seeds": lambda r: str(r.seeds),
    "time": lambda r: f"{r.cpu_seconds:,.0f} s CPU" if r.on_cpu else f"{r.wall_seconds:,.0f} s {r.device.split()[-1]}",
    "CPU seconds per seed": lambda r: f"{r.seconds_per_seed:,.1f}",
    "solved from": lambda r: f"{r.task.solved:g}",
}
STATISTICS = ("steps", "IQM", "95 % interval", "median", "worst seed", "seeds", "time")


def title(algorithm: str) -> str:
    return ALGORITHMS[algorithm].title


def number(result: Result, value: float) -> str:
    return f"{value:z.2f}" if abs(result.iqm) < 20 else f"{value:z.1f}"


def table(results: list[Result], *columns: str) -> str:
    if not results:
        return NONE
    rows = [columns, ["---"] * len(columns), *([COLUMNS[name](r) for name in columns] for r in results)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def tables_by_task(results: list[Result]) -> str:
    parts = [f"### {rs[0].task.title}\n\n{table(rs, 'algorithm', *STATISTICS)}" for rs in by_task(results).values()]
    return "\n\n".join(parts) or NONE


# --- pages


def pages(results: list[Result], root: Path = ROOT) -> dict[Path, str]:
    """The text of every page with tables."""
    readme, choosing = root / "README.md", root / "docs" / "choosing.md"
    short = table(best_two(results), "environment", "algorithm", *STATISTICS)
    time = table(fastest(results), "environment", "solved from", "algorithm", "steps", "IQM", "CPU seconds per seed")
    filled = {
        readme: fill(readme.read_text(), "results", short),
        choosing: fill(fill(choosing.read_text(), "results", tables_by_task(results)), "time", time),
    }
    for page in sorted((root / "docs" / "agents").glob("*.md")):
        own = [r for rs in by_task(results).values() for r in rs if r.algorithm == page.stem]
        filled[page] = fill(page.read_text(), "results", table(own, "environment", *STATISTICS))
    return filled


if __name__ == "__main__":
    for path, text in pages(measured()).items():
        if path.read_text() != text:
            path.write_text(text)
            print(path)
