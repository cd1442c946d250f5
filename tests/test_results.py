"""The results of the presets: how they are measured, what the tables say of them, and that the pages are those tables."""

import importlib
import json
import random
import re
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxrl
from jaxrl import envs
from jaxrl.algorithms import ALGORITHMS
from jaxrl.experiment.policies import SELECTION_STREAM
from jaxrl.experiment.statistics import iqm_interval

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture(scope="module")
def scripts():
    """The modules of the scripts, by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield {name: importlib.import_module(name) for name in ("presets", "choosing", "search")}


# --- measuring


def test_a_row_is_measured_and_replaces_its_earlier_result(scripts, tmp_path, monkeypatch):
    module, path = scripts["presets"], tmp_path / "results.jsonl"
    monkeypatch.setattr(module, "MANY_EPISODES", {"PointMass": 5})
    row = module.Row("reinforce", "PointMass", 1_600, seeds=2, wrappers=("time_aware",))
    assert row.name == "reinforce-PointMass+time_aware-1600"
    assert not module.is_current(row, module.read(path).get(row.name))
    result = module.measure(row, first_seed=3)
    module.write(result | {"returns": [0.0, 0.0]}, path)
    module.write(result | {"row": "another"}, path)
    module.write(result, path)
    assert module.read(path) == json.loads(json.dumps({row.name: result, "another": result | {"row": "another"}}))
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]
    assert result["env"] == "PointMass (time_aware)"
    assert (result["env_steps"], result["seeds"], result["first_seed"], len(result["returns"])) == (1_600, 2, 3, 2)
    assert result["cpu_seconds"] > 0 < result["wall_seconds"]
    assert result["returns"][0] != result["returns"][1]
    assert module.is_current(row, result)
    monkeypatch.setattr(module, "MANY_EPISODES", {"PointMass": 6})
    assert not module.is_current(row, result)


def test_a_result_of_other_settings_is_missing(scripts):
    module = scripts["presets"]
    row = module.Row("dqn", "CartPole-v1", 100_000)
    settings = module.flat_settings(row)
    assert settings["hparams.tau"] == "0.01"
    assert module.is_current(row, {"settings": settings})
    assert module.is_current(row, {"settings": {k: v for k, v in settings.items() if k != "agent.double"}})  # a new option
    assert not module.is_current(row, {"settings": settings | {"hparams.tau": "0.02"}})
    assert not module.is_current(row, {"settings": settings | {"steps": "1"}})


def test_rows_have_names_of_their_own_and_cover_every_preset(scripts):
    module = scripts["presets"]
    names = [row.name for row in module.ROWS]
    assert len(set(names)) == len(names)
    presets = {(a, env, s.steps) for (a, env), rows in jaxrl.presets.PRESETS.items() for s in rows}
    assert presets <= {(row.algorithm, row.env, row.steps) for row in module.ROWS if not row.wrappers}
    assert all(row.algorithm in ALGORITHMS for row in module.ROWS)


def test_the_statistics_of_made_up_returns(scripts):
    """The IQM of 0 … 7 is the mean of 2 … 5; one failure out of eight does not move it."""
    found = scripts["presets"].statistics([7, 0, 1, 2, 3, 4, 5, 6])
    assert (found["iqm"], found["median"], found["worst"]) == (3.5, 3.5, 0.0)
    assert [found["low"], found["high"]] == list(iqm_interval(np.array([7.0, 0, 1, 2, 3, 4, 5, 6])))
    assert 0 <= found["low"] < 3.5 < found["high"] <= 7
    failed = scripts["presets"].statistics([500.0] * 7 + [9.0])
    assert (failed["iqm"], failed["median"], failed["worst"]) == (500.0, 500.0, 9.0)
    assert scripts["presets"].statistics([1.0, 2.0, 6.0])["median"] == 2.0


# --- tables


def made_up(choosing, algorithm, steps, middle, cpu_seconds, env="CartPole-v1", seeds=4):
    line = {"algorithm": algorithm, "env": env, "env_steps": steps, "seeds": seeds, "cpu_seconds": cpu_seconds}
    line |= {"wall_seconds": 2.0, "device": "2 × cpu"}
    return choosing.result_of(line | {"returns": [middle] * seeds})


@pytest.fixture
def results(scripts):
    rows = [
        ("reinforce", 500_000, 499.0, 40.0),
        ("dqn", 50_000, 480.0, 400.0),
        ("dqn", 100_000, 500.0, 800.0),
        ("ppo", 500_000, 500.0, 30.0),  # faster than reinforce
        ("sac", 10_000, 100.0, 1.0),  # does not solve it
        ("ppo", 1_000, -12.5, 8.0, "PointMass"),
        ("ppo", 1_000, 3.0, 8.0, "unheard of"),
    ]
    return [made_up(scripts["choosing"], *row) for row in rows]


def keys(results):
    return [(r.algorithm, r.env_steps) for r in results]


def test_results_are_sorted_and_selected(scripts, results):
    choosing = scripts["choosing"]
    tasks = choosing.by_task(results)
    assert list(tasks) == ["CartPole-v1", "PointMass", "unheard of"]
    assert keys(tasks["CartPole-v1"]) == [
        ("dqn", 100_000), ("ppo", 500_000), ("reinforce", 500_000), ("dqn", 50_000), ("sac", 10_000),
    ]  # fmt: skip
    assert keys(choosing.best_two(results)) == [("dqn", 100_000), ("ppo", 500_000), ("ppo", 1_000), ("ppo", 1_000)]
    assert keys(choosing.fastest(results)) == [("dqn", 50_000), ("ppo", 500_000)]
    on_a_gpu = results[0]._replace(device="1 × NVIDIA H200", cpu_seconds=1.0)
    assert keys(choosing.fastest([*results, on_a_gpu])) == keys(choosing.fastest(results))


def test_a_table_shows_the_numbers(scripts, results):
    choosing = scripts["choosing"]
    table = choosing.table(results[:1], "environment", "algorithm", *choosing.STATISTICS)
    head, _, row = table.splitlines()
    assert head == "| environment | algorithm | steps | IQM | 95 % interval | median | worst seed | seeds | time |"
    assert row == "| CartPole-v1 | REINFORCE | 500,000 | 499.0 | 499.0 … 499.0 | 499.0 | 499.0 | 4 | 40 s CPU |"
    assert choosing.table([results[0]._replace(device="1 × NVIDIA H200")], "time").endswith("| 2 s H200 |")
    assert "| -12.50 |" in choosing.table(results[5:6], "IQM")
    assert choosing.table(results[:1], "CPU seconds per seed").endswith("| 10.0 |")
    assert choosing.table([], "IQM") == choosing.tables_by_task([]) == choosing.NONE


def test_pages_are_filled_between_their_markers_again_and_again(scripts):
    fill = scripts["choosing"].fill
    once = fill("before\n<!-- results -->\nafter\n", "results", "12")
    assert once == "before\n<!-- results:begin -->\n\n12\n\n<!-- results:end -->\nafter\n"
    assert fill(once, "results", "12") == once
    assert fill(once, "results", r"\1 3") == once.replace("12", r"\1 3")
    for wrong in ("no marker", "in a line <!-- results -->", once + once):
        with pytest.raises(ValueError, match="the page needs one line `<!-- results -->`"):
            fill(wrong, "results", "12")


def test_every_page_has_its_own_results(scripts, results, tmp_path):
    choosing = scripts["choosing"]
    (tmp_path / "docs" / "agents").mkdir(parents=True)
    texts = {"README.md": "<!-- results -->", "docs/choosing.md": "<!-- results -->\n<!-- time -->"}
    texts |= {f"docs/agents/{name}.md": "<!-- results -->" for name in ("dqn", "td3")}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    found = {str(path.relative_to(tmp_path)): text for path, text in choosing.pages(results, tmp_path).items()}
    assert found.keys() == texts.keys()
    rows = {
        name: [line for line in text.splitlines() if line.startswith("| ") and "---" not in line] for name, text in found.items()
    }
    assert [len(x) for x in rows.values()] == [1 + 4, 3 + 7 + 1 + 2, 1 + 2, 0]
    assert all("CartPole-v1" in line for line in rows["docs/agents/dqn.md"][1:])
    assert choosing.NONE in found["docs/agents/td3.md"]
    assert "### unheard of\n" in found["docs/choosing.md"]


def test_the_pages_are_up_to_date(scripts):
    choosing = scripts["choosing"]
    for path, text in choosing.pages(choosing.measured()).items():
        assert path.read_text() == text, "run scripts/choosing.py"


def test_the_guide_speaks_of_every_algorithm():
    text = (SCRIPTS.parent / "docs" / "choosing.md").read_text().partition("## Results")[0].lower()
    missing = [entry.title for entry in ALGORITHMS.values() if entry.title.lower() not in text]
    assert not missing


# --- search


def test_ranges_are_parsed_and_drawn(scripts):
    search = scripts["search"]
    space = dict(map(search.parse, ["hparams.tau=1e-3:0.1", "num_envs=[4, 8]", "network.hidden=[(8,), (4, 4)]"]))
    assert space == {"hparams.tau": (1e-3, 0.1), "num_envs": [4, 8], "network.hidden": [(8,), (4, 4)]}
    drawn = [search.draw(space, random.Random(seed)) for seed in range(400)]
    tau = np.log10([d["hparams.tau"] for d in drawn])
    assert -3 <= tau.min() < -2.9 < -1.1 < tau.max() <= -1
    assert abs(tau.mean() + 2) < 4.5 * 2 / np.sqrt(12 * 400)
    assert {d["num_envs"] for d in drawn} == {4, 8}
    assert search.draw(space, random.Random(7)) == drawn[7]
    for wrong in ("num_envs", "num_envs=4", "num_envs=[]", "hparams.tau=0:1", "hparams.tau=2:1", "hparams.tau=a:b", "x=[oops]"):
        with pytest.raises(search.argparse.ArgumentTypeError, match="give NAME=LOW:HIGH"):
            search.parse(wrong)


def test_drawn_values_reach_their_settings(scripts):
    changed, base = scripts["search"].changed, jaxrl.presets.tuned("dqn", "CartPole-v1")
    found = changed(base, {"num_envs": 4, "hparams.tau": 0.5, "agent.batch_size": 64, "schedules.epsilon_fraction": 0.1})
    assert (found.num_envs, found.hparams["tau"], found.agent["batch_size"]) == (4, 0.5, 64)
    assert found.agent["updates_per_iteration"] == base.agent["updates_per_iteration"]
    for wrong in ("tau", "hparam.tau", "hparams.tua"):
        with pytest.raises(ValueError, match=r"unknown setting|no hyperparameter"):
            changed(base, {wrong: 0.5})


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_search_has_a_command_for_every_algorithm(scripts, name):
    search = scripts["search"]
    commands = re.findall(rf"^    python scripts/search.py {name} ((?:.*\\\n)*.*)", search.__doc__, re.MULTILINE)
    assert len(commands) == 1, f"the docstring of scripts/search.py needs one command for {name}"
    env, *words = shlex.split(commands[0].replace("\\\n", " "))
    envs.make(env)
    space = dict(search.parse(word) for word in words if "=" in word)
    assert space
    search.changed(jaxrl.presets.default_settings(name), search.draw(space, random.Random(0)))


@pytest.mark.slow
def test_settings_that_are_tried_together_are_those_tried_alone(scripts):
    search, env = scripts["search"], envs.make("PointMass")
    base = search.changed(jaxrl.presets.tuned("reinforce", "PointMass", 3_200), {"network.hidden": (4,)})
    settings = [search.changed(base, {"hparams.learning_rate": rate}) for rate in (1e-3, 0.1)]
    together = search.train_all(settings, env, 2, num_episodes=32)
    assert together.shape == (2, 2)
    assert len(set(together.ravel().tolist())) == 4
    learner, hparams, num_iterations, _ = jaxrl.presets.build(settings[1], env)

    @jax.jit
    def alone(key):
        state, _ = jaxrl.train(key, learner, num_iterations, hparams)
        return jaxrl.evaluate(jax.random.fold_in(key, SELECTION_STREAM), learner, state, num_episodes=32).mean()

    np.testing.assert_allclose(together[1, 1], alone(jax.random.key(1)), rtol=1e-4)
