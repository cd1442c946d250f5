"""README.md runs as it says, links lead somewhere, and imports follow the layout in ARCHITECTURE.md."""

import ast
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from jaxrl import cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.partition("#")[0]
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("jaxrl ")
]
PAGES = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/algorithms.md",
    "docs/choosing.md",
    "docs/devices.md",
    "docs/comparing.md",
    "benchmarks/NOTES.md",
]


def small(block, **sizes):
    """The block with smaller numbers; each must be there."""
    for old, new in sizes.items():
        assert old[1:] in block, old
        block = block.replace(old[1:], str(new))
    return block


def test_the_first_example_trains_every_seed():
    names = {}
    block = small(BLOCKS[0].replace('"CartPole-v1")', '"CartPole-v1", env_steps=1_800)'), _16=2)
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 10
    exec(block, names)
    assert names["env_steps"] == 1_800
    returns = names["metrics"]["episode_return"]
    assert returns.shape[0] == 2
    assert not np.array_equal(returns[0], returns[1], equal_nan=True)


def test_the_examples_of_the_library_run_one_after_the_other():
    names = {}
    run, rates, seeds, continued = BLOCKS[1:]
    exec(small(run, _5_000=64, _20_000=1_600), names)
    assert names["returns"].shape == (10,)
    assert np.isfinite(names["returns"]).all()
    exec(small(rates, _1_000=16), names)
    loss = np.asarray(names["metrics"]["loss"])
    assert loss.shape == (3, 16)
    assert len(set(loss[:, -1].tolist())) == 3
    exec(small(seeds, _5_000=16, _100=3), names)
    assert names["metrics"]["loss"].shape == (3, 16)
    before = names["state"]
    exec(small(continued, _5_000=64, _1_000=16), names)
    assert names["metrics"]["loss"].shape == (16,)
    assert names["iteration"] == names["agent"].warmup + 64
    assert names["state"].env.time.shape == before.env.time.shape


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_of_the_commands_exist(command, capsys):
    _, name, *arguments = shlex.split(command)
    assert name in cli.COMMANDS
    options = [word for word in arguments if word.startswith("-")]
    if not options:
        return
    algorithm = arguments[:1] if name == "train" else []
    assert cli.main([name, *algorithm, "--help"]) == 0
    helped = capsys.readouterr().out
    for option in options:
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", helped), option


@pytest.mark.parametrize("page", PAGES)
def test_links_and_named_files_exist(page):
    text = (ROOT / page).read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    for link in links:
        assert ((ROOT / page).parent / link).exists(), link
    for name in re.findall(r"`((?:scripts|tests|benchmarks|experiment|jaxrl|docs)/[\w/.-]+\.\w+)", text):
        assert (ROOT / name).exists() or (ROOT / "jaxrl" / name).exists(), name


def layers():
    """The lines of the layout in ARCHITECTURE.md, from top to bottom, as sets of modules."""
    text = (ROOT / "ARCHITECTURE.md").read_text().partition("## Layout")[2]
    block = re.search(r"```\n(.*?)```", text, re.DOTALL)[1]
    return [set(re.findall(r"(\w+)(?:/|\.py)", re.split(r"\s{4,}", line)[0])) for line in block.splitlines()]


def test_the_layout_has_every_module():
    modules = {path.stem for path in (ROOT / "jaxrl").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert set.union(*layers()) == modules - {"__init__", "__main__"}


def imported_by(path):
    """The modules below `jaxrl` that a file imports, by their first name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "jaxrl":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxrl."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("jaxrl."))


def test_imports_follow_the_layout():
    order = {name: depth for depth, names in enumerate(layers()) for name in names}
    assert len(order) > 20
    assert max(order, key=order.get) == "_src"  # below everything, but for the checks of agents, which know the records
    for name, depth in list(order.items())[:-1]:
        home = ROOT / "jaxrl" / name
        files = list(home.rglob("*.py")) if home.is_dir() else [home.with_suffix(".py")]
        for path in files:
            upwards = {other for other in imported_by(path) if order.get(other, depth) < depth}
            assert not upwards, f"{path}: {upwards}"
