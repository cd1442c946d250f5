"""The benchmarks: the floor does a part of the training program, and the tables show the rows."""

import functools
import re
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

import jaxrl
from benchmarks import launches, options, run, tables, worker
from benchmarks.implementations import floor
from benchmarks.implementations import jaxrl as ours
from benchmarks.workloads import OURS, Workload, breakout, dqn, entries, ppo, pqn, reinforce, rollout, sac, workloads
from scripts.markers import fill


@functools.cache
def compiled_text(implementation, workload: Workload) -> str:
    return jax.jit(implementation.train_of(workload)).lower(jax.random.key(0)).compile().as_text()


def products_in_loops(text: str) -> list[list[tuple[int, ...]]]:
    """The shapes of the products directly in each loop that has some, without axes of length 1. Each is sorted, since XLA chooses
    the order of axes."""
    bodies, found = launches.computations(text), []

    def products(name):
        shapes = []
        for operation, line in bodies[name]:
            if operation in ("dot", "convolution"):
                axes = (int(n) for n in re.search(r"\[([\d,]+)\]", line)[1].split(","))
                shapes.append(tuple(sorted(n for n in axes if n > 1)))
            elif operation == "while":
                found.append(sorted(products(re.search(r"body=%?([\w.\-]+)", line)[1])))
            else:
                for callee in re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", line):
                    shapes += products(callee)
        return shapes

    assert products("ENTRY") == []
    return sorted(shapes for shapes in found if shapes)


def test_the_floor_of_dqn_has_the_products_counted_by_hand():
    forward = lambda batch: [(120, batch), (84, batch), (2, batch)]
    weights, inputs = [(4, 120), (120, 84), (84, 2)], [(84, 128), (120, 128)]  # of the gradient
    expected = forward(10) + 2 * forward(128) + weights + inputs
    (found,) = products_in_loops(compiled_text(floor, dqn(1, 1_000, 60)))
    assert found == sorted(tuple(sorted(shape)) for shape in expected)


SMALL = [
    dqn(1, 1_000, 60),
    reinforce(1, 4, 6, 50),
    ppo(1, 4, 8, 20),
    pqn(1, 20)._replace(num_envs=4, rollout_length=8, num_minibatches=2),
    sac(1, 1_000, 100)._replace(batch_size=32, warmup=32, hidden=(24, 20)),
]


@pytest.mark.parametrize("workload", SMALL, ids=lambda workload: workload.name)
def test_the_floor_has_the_products_of_the_training_program_and_no_more(workload):
    real, bare = (products_in_loops(compiled_text(implementation, workload)) for implementation in (ours, floor))
    for shapes in bare:
        real.remove(shapes)
    # The warm-up of jaxrl acts in a loop of its own.
    acting = {"dqn": [(2, 10), (10, 84), (10, 120)], "sac": [(2,), (20,), (24,)]}
    assert real == [acting.get(workload.name)] * bool(workload.warmup)


def test_the_floor_has_no_environment_replay_or_random_numbers_in_its_loop():
    text = compiled_text(floor, dqn(1, 1_000, 60))
    loop = text[: text.index("ENTRY")]
    assert "dynamic-update-slice" not in loop
    assert "gather" not in loop
    assert "[1000," not in text
    assert "[1000," in compiled_text(ours, dqn(1, 1_000, 60))


def row(implementation: str, workload: Workload, seconds: list[float], **fields) -> dict:
    """A row as run.py writes it; JSON makes tuples lists."""
    same = {"platform": "cpu", "device": "Testing", "cores": 2, "commit": "abc", "date": "2026-01-01", "load": 0.5}
    workload_of_row = {name: list(x) if isinstance(x, tuple) else x for name, x in workload._asdict().items()}
    versions = {"jaxrl": "0.1.0", implementation.partition("/")[0]: "1.0"}
    times = {"seconds": seconds, "cpu_seconds": [2 * x for x in seconds]}
    return same | {"implementation": implementation, "workload": workload_of_row, "versions": versions} | times | fields


def lines_of(page: str, title: str) -> dict[str, list[str]]:
    """The cells of the first table with that title, by implementation."""
    table = page[page.index(f"| {title} |") :].split("\n\n")[0].splitlines()
    return {cells[1].strip(): [c.strip() for c in cells[2:-1]] for cells in (line.split("|") for line in table[2:])}


def test_the_page_names_every_script():
    folder = Path(launches.__file__).parent
    scripts = [path.name for path in folder.glob("*.py") if "argparse" in path.read_text() or "__main__" in path.read_text()]
    assert len(scripts) > 8
    text = (folder / "README.md").read_text()
    assert [name for name in scripts if name not in text and name != "worker.py"] == []  # which run.py starts


def test_versions_need_no_installed_jaxrl(monkeypatch):
    installed = []
    monkeypatch.setattr(worker.importlib.metadata, "version", lambda name: installed.append(name) or "1")
    assert worker.versions("sbx") == {"jaxrl": jaxrl.__version__} | dict.fromkeys(["jax", "jaxlib", "sbx-rl", "gymnasium"], "1")
    assert "jaxrl" not in installed


def test_the_tables_show_medians_and_ratios():
    one, four = dqn(1, 10_000, 100), dqn(4, 10_000, 100)
    rows = [
        row("jaxrl", one, [0.02, 0.01, 0.03], env_steps=one.env_steps, bytes_per_transition=44.0),
        row("floor", one, [0.01, 0.01, 0.01], env_steps=one.env_steps),
        row("rejax", one, [0.06, 0.5, 0.05], env_steps=one.env_steps, bytes_per_transition=41.0),
        row("jaxrl", four, [0.04, 0.04, 0.04], env_steps=four.env_steps),
        row("rejax", four, [], error="out of memory"),
    ]
    page = tables.page(rows)
    assert lines_of(page, "µs per update and seed") == {"jaxrl": ["200", "100"], "floor": ["100", ""], "rejax": ["600", "failed"]}
    assert lines_of(page, "µs of all cores together per update and seed")["jaxrl"] == ["400", "200"]
    assert lines_of(page, "time over the floor")["jaxrl"] == ["2.00", ""]
    assert lines_of(page, "CPU time over jaxrl's")["rejax"] == ["3.00", "failed"]
    assert lines_of(page, "CPU time over the floor")["jaxrl"] == ["2.00", ""]
    assert lines_of(page, "time over jaxrl's")["rejax"] == ["3.00", "failed"]
    # 113 iterations of 10 environments, warm-up included.
    assert lines_of(page, "environment steps a second") == {"jaxrl": ["56,500", "113,000"], "rejax": ["18,833", "failed"]}
    assert "rejax failed at dqn with 4 seeds: out of memory" in page
    assert "| jaxrl | 44.0 |" in page


def test_a_busy_machine_shows_cpu_time_alone():
    loaded = [row("jaxrl", ppo(1, 4, 128, 10), [0.1], env_steps=1) | {"load": 20.0}]
    page = tables.page(loaded)
    assert "| µs per update and seed |" not in page
    assert "| environment steps a second |" not in page
    assert lines_of(page, "µs of all cores together per update and seed") == {"jaxrl": ["20,000"]}


def test_memory_for_each_transition_is_the_growth_with_the_capacity():
    rows = [
        row("jaxrl", dqn(1, n, 100), [0.1], env_steps=1, bytes_per_transition=44.0, memory_bytes=88 * n + 5) for n in (100, 300)
    ]
    assert "| jaxrl | 44.0 | 88.0 |" in tables.page(rows)


def test_a_share_of_gymnax_is_by_steps():
    workload = reinforce(1, 16, 32, 100)
    rows = [
        row("jaxrl", workload, [0.4], env_steps=workload.env_steps),
        row("gymnax", workload, [0.1], env_steps=workload.env_steps),
    ]
    page = tables.page(rows)
    assert lines_of(page, "steps a second, as a share of gymnax's") == {"jaxrl": ["0.25"], "gymnax": ["1.00"]}
    assert lines_of(page, "µs per update and seed") == {"jaxrl": ["4,000"]}


def test_options_are_printed_as_soon_as_they_are_measured(monkeypatch, tmp_path, capsys):
    """So that a command that is stopped in the second round leaves the figures of the first."""

    class Stopped(Exception):
        pass

    def timed(worker, number, timeout):
        if number == 2:
            raise Stopped
        return {"seconds": 0.5 * number}

    monkeypatch.setattr(options, "PROGRAMS", {"one": dqn(1, 1_000, 1_000), "other": dqn(4, 1_000, 500)})
    monkeypatch.setattr(options, "OPTIONS", {"default": {}, "fast": {}})
    start = lambda implementation, workload, facts, *_: run.Worker(
        implementation, workload, SimpleNamespace(kill=lambda: None), tmp_path, facts | {"seconds": []}
    )
    monkeypatch.setattr(run, "start", start)
    monkeypatch.setattr(run, "answer", lambda worker, timeout: {"compile_cpu_seconds": 3.0})
    monkeypatch.setattr(run, "timed", timed)
    with pytest.raises(Stopped):
        options.run_in_turns([], SimpleNamespace(at_once=3, rounds=5, timeout=1.0), tmp_path)
    ready, table = capsys.readouterr().out.split("after 1 of 5 rounds:\n")
    assert ready.splitlines()[1] == "  other, default: compiled in 3.0 CPU s"
    assert table.splitlines() == [
        "one, default: 3.0 CPU s, 500.0 µs", "one, fast: 3.0 CPU s, 500.0 µs",
        "other, default: 3.0 CPU s, 1000.0 µs", "other, fast: 3.0 CPU s, 1000.0 µs",
    ]  # fmt: skip


def test_a_later_row_replaces_an_earlier_one(tmp_path):
    tables.save([row("jaxrl", dqn(1, 100, 10), [1.0]), row("rejax", dqn(1, 100, 10), [2.0])], tmp_path)
    tables.save([row("jaxrl", dqn(1, 100, 20), [3.0]), row("jaxrl", rollout(8, 320), [4.0])], tmp_path)
    kept = sorted((r["implementation"], r["workload"]["name"], r["seconds"]) for r in tables.load(tmp_path))
    assert kept == [("jaxrl", "dqn", [3.0]), ("jaxrl", "rollout", [4.0]), ("rejax", "dqn", [2.0])]


def test_the_results_page_is_generated_from_the_rows():
    assert tables.PAGE.read_text() == tables.page(tables.load(tables.RESULTS)), "run benchmarks/tables.py"


def test_the_tables_of_the_page_on_peers_are_generated_from_the_rows():
    text, content = tables.PEERS.read_text(), tables.peers_tables(tables.load(tables.RESULTS))
    assert text == fill(text, "benchmarks", content), "run benchmarks/tables.py"


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("quick", [False, True])
def test_the_workloads_are_possible(platform, quick):
    """Sizes are within jaxrl's bounds, and no row replaces another."""
    every = workloads(platform, quick)
    for workload in every:
        assert workload.updates > 0
        assert workload.capacity % (workload.num_envs * workload.rollout_length) == 0
        assert workload.capacity >= workload.batch_size
        assert workload.warmup * workload.num_envs >= workload.batch_size  # or jaxnasium and rejax would warm up for longer
        names = [name for name, _ in entries(workload, platform, jaxrl_only=False)]
        assert names[0] == "jaxrl"
        assert len(set(names)) == len(names)
        assert set(names) <= set(tables.ORDER)
        assert {name for name, _ in entries(workload, platform, jaxrl_only=True)} == set(names) & set(OURS[workload.name])
    rows = [row("jaxrl", workload, [1.0]) for workload in every]
    assert len({tables.identity(r) for r in rows}) == len(rows)


def test_runs_on_an_accelerator_are_short():
    """A step takes 5 to 10 µs on an H200, however many environments there are; an update takes longer."""
    for workload in workloads("gpu", quick=False):
        assert (workload.warmup + workload.updates) * workload.rollout_length <= 50_000, workload
    assert [w.updates for w in workloads("gpu", quick=False) if w.name == "rollout"] == [1_500, 1_500, 512, 64, 20]
    assert [w.updates for w in workloads("cpu", quick=False) if w.name == "rollout"] == [16_384, 2_048, 512, 64, 20]


def test_steps_include_all_seeds_and_the_warm_up():
    assert dqn(4, 1_000, 100).env_steps == 4 * 10 * 113
    assert ppo(2, 4, 128, 5).env_steps == 2 * 4 * 128 * 5
    assert ppo(2, 4, 128, 5).gradient_steps == 5 * 4 * 4  # of each seed
    assert reinforce(2, 16, 32, 5).env_steps == 2 * 16 * 32 * 5
    assert breakout(3, 1_000, 7, 5).env_steps == 36
