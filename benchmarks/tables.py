"""RESULTS.md from the rows in results/: `python benchmarks/tables.py`. No figure in it is typed by hand."""

import json
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.workloads import NAMES

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent / "RESULTS.md"
ORDER = (
    "jaxrl",
    "floor",
    "rejax",
    "rejax/vectorize",
    "jaxnasium",
    "jaxnasium/vectorize",
    "sb3",
    "sbx",
    "gymnax",
    "gymnax/vectorize",
)
HEAD = """# Results

Made by `benchmarks/tables.py` from the rows in `benchmarks/results/`. [README.md](README.md) says what is measured and how, and
what each implementation does differently. A time is the median of the runs, which all implementations take in turns.
"""

Row = dict
Value = Callable[[Row], float | None]


def load(folder: Path) -> list[Row]:
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def identity(row: Row) -> tuple:
    """What a later row of the same replaces: how many updates were timed is no part of it."""
    workload = {name: value for name, value in row["workload"].items() if name not in ("updates", "warmup")}
    return row["platform"], row["device"], row["cores"], row["implementation"], json.dumps(workload, sort_keys=True)


def save(rows: Iterable[Row], folder: Path) -> None:
    """Add rows to those of the folder, in place of older ones of the same."""
    folder.mkdir(parents=True, exist_ok=True)
    merged = {identity(row): row for row in [*load(folder), *rows]}
    for name in NAMES:
        lines = [json.dumps(row, sort_keys=True) for key, row in sorted(merged.items()) if row["workload"]["name"] == name]
        if lines:
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def seconds(row: Row, clock: str = "seconds") -> float:
    return statistics.median(row[clock])


def micros(row: Row, clock: str = "seconds") -> float | None:
    """µs per update and seed."""
    if row["implementation"].startswith("gymnax"):
        return None
    return seconds(row, clock) / (row["workload"]["updates"] * row["workload"]["seeds"]) * 1e6


def core_micros(row: Row) -> float | None:
    """The same by the CPU time of all cores together."""
    return micros(row, "cpu_seconds")


def steps_per_second(row: Row) -> float | None:
    return None if row["implementation"] == "floor" else row["env_steps"] / seconds(row)


def known(field: str, unit: float = 1.0) -> Value:
    """A field of the row, where it has it."""
    return lambda row: None if field not in row else row[field] / unit


def relative(value: Value, rows: list[Row], to: str, by: str) -> Value:
    """`value` of a row over that of the implementation `to` in the same column."""
    base = {row["workload"][by]: value(row) for row in rows if row["implementation"] == to and "error" not in row}

    def ratio(row):
        mine, other = value(row), base.get(row["workload"][by])
        return None if mine is None or other is None else mine / other

    return ratio


def number(x: float | None) -> str:
    if x is None:
        return ""
    return f"{x:,.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}" if x >= 0.1 else f"{x:.2g}"


def cell(row: Row | None, value: Value) -> str:
    if row is None:
        return ""
    return "failed" if "error" in row else number(value(row))


def table(title: str, rows: list[Row], by: str, value: Value) -> list[str]:
    """Implementations downwards, the field `by` of the workload across; nothing where there is no value."""
    columns = sorted({row["workload"][by] for row in rows})
    label = {"seeds": "S", "num_envs": "B"}[by]
    lines = ["", f"| {title} | {' | '.join(f'{label} = {column:,}' for column in columns)} |", f"|---|{'---|' * len(columns)}"]
    for implementation in ORDER:
        mine = {row["workload"][by]: row for row in rows if row["implementation"] == implementation}
        cells = [cell(mine.get(column), value) for column in columns]
        lines += [f"| {implementation} | {' | '.join(cells)} |"] if any(cells) else []
    return lines if len(lines) > 3 else []


def training_tables(rows: list[Row]) -> list[str]:
    """The tables of one workload that learns, over seeds."""
    lines = table("µs per update and seed", rows, "seeds", micros)
    lines += table("time over the floor", rows, "seeds", relative(micros, rows, "floor", "seeds"))
    lines += table("time over jaxrl's", rows, "seeds", relative(micros, rows, "jaxrl", "seeds"))
    if rows[0]["platform"] == "cpu":
        lines += table("µs of all cores together per update and seed", rows, "seeds", core_micros)
    lines += table("environment steps a second", rows, "seeds", steps_per_second)
    for yardstick in ("gymnax", "gymnax/vectorize"):
        share = relative(steps_per_second, rows, yardstick, "seeds")
        lines += table(f"steps a second, as a share of {yardstick}'s", rows, "seeds", share)
    lines += table("CPU seconds to compile", rows, "seeds", known("compile_cpu_seconds"))
    lines += table("memory of the program, MiB", rows, "seeds", known("memory_bytes", 2**20))
    return lines + table("peak memory of the process, MiB", rows, "seeds", known("rss_bytes", 2**20))


def transition_table(rows: list[Row]) -> list[str]:
    """Bytes of a stored transition: by the replay's arrays, and by how a one-seed program's memory grows with the capacity."""
    lines = [
        "",
        "| bytes per stored transition | in the replay | in the program's memory, for each of more capacity |",
        "|---|---|---|",
    ]
    for implementation in ORDER:
        mine = [row for row in rows if row["implementation"] == implementation and "bytes_per_transition" in row]
        if not mine:
            continue
        alone = sorted(
            (r for r in mine if r["workload"]["seeds"] == 1 and "memory_bytes" in r), key=lambda r: r["workload"]["capacity"]
        )
        growth = None
        if len(alone) > 1:
            small, large = alone[0], alone[-1]
            growth = (large["memory_bytes"] - small["memory_bytes"]) / (
                large["workload"]["capacity"] - small["workload"]["capacity"]
            )
        lines.append(f"| {implementation} | {number(mine[0]['bytes_per_transition'])} | {number(growth)} |")
    return lines if len(lines) > 3 else []


def title(workload: dict) -> str:
    widths = "-".join(map(str, workload["hidden"]))
    if workload["name"] == "rollout":
        return f"Rollouts alone: B environments of {workload['env']}, random actions"
    if workload["name"] == "reinforce":
        sizes = f"{workload['num_envs']} environments × {workload['rollout_length']} steps"
        return f"REINFORCE on {workload['env']}: {sizes}, MLP {widths}"
    network = f"MLP {widths} on {workload['channels'][0]} channels" if workload["channels"] else f"MLP {widths}"
    environments = "one environment" if workload["num_envs"] == 1 else f"{workload['num_envs']} environments"
    return (
        f"DQN on {workload['env']}: {environments}, batch {workload['batch_size']}, {network}, replay of {workload['capacity']:,}"
    )


def work_section(name: str, rows: list[Row]) -> list[str]:
    """All sizes of a workload; S seeds, or B environments, go across."""
    if name == "rollout":
        lines = ["", f"### {title(rows[0]['workload'])}"]
        lines += table("environment steps a second", rows, "num_envs", steps_per_second)
        lines += table("times gymnax's", rows, "num_envs", relative(steps_per_second, rows, "gymnax", "num_envs"))
        return lines + table("CPU seconds to compile", rows, "num_envs", known("compile_cpu_seconds"))
    lines, size = [], "num_envs" if name == "reinforce" else "capacity"
    for value in sorted({row["workload"][size] for row in rows}):
        mine = [row for row in rows if row["workload"][size] == value]
        lines += ["", f"### {title(mine[0]['workload'])}", *training_tables(mine)]
    return lines + transition_table(rows)


def device_section(rows: list[Row]) -> list[str]:
    """What was measured on one device, with what, and how steadily."""
    first, timed = rows[0], [row for row in rows if "error" not in row]
    lines = ["", f"## {first['device']}" + (f", {first['cores']} cores" if first["platform"] == "cpu" else "")]
    if timed:
        versions = sorted({f"{name} {version}" for row in timed for name, version in row["versions"].items()})
        commits, dates = (sorted({row[field] for row in timed}) for field in ("commit", "date"))
        spreads = [(max(row["seconds"]) - min(row["seconds"])) / seconds(row) for row in timed]
        usual, worst = statistics.median(spreads), max(spreads)
        runs, load = min(len(row["seconds"]) for row in timed), max(row["load"] for row in timed)
        lines += ["", f"{dates[0]} to {dates[-1]}; {', '.join(versions)}; jaxrl at {', '.join(commits)}."]
        lines += [
            f"At least {runs} runs of each; from the fastest to the slowest it is {usual:.0%} of the median in half of the rows, "
            f"{worst:.0%} at worst. The machine's load before a implementation started was at most {load:.1f}."
        ]
    for row in rows:
        if "error" in row:
            lines += [
                "",
                f"{row['implementation']} failed at {row['workload']['name']} of {row['workload']['seeds']} seeds: "
                f"{row['error']}",
            ]
    for name in NAMES:
        mine = [row for row in rows if row["workload"]["name"] == name]
        lines += work_section(name, mine) if mine else []
    return lines


def page(rows: list[Row]) -> str:
    devices = sorted({(row["platform"], row["device"], row["cores"]) for row in rows})
    lines = [HEAD.rstrip()]
    for device in devices:
        lines += device_section([row for row in rows if (row["platform"], row["device"], row["cores"]) == device])
    if not rows:
        lines += ["", "Nothing was measured yet."]
    return "\n".join(lines) + "\n"


def main() -> None:
    PAGE.write_text(page(load(RESULTS)))


if __name__ == "__main__":
    main()
