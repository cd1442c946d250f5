"""README.md runs as it says, links lead somewhere, and imports follow the layout in ARCHITECTURE.md."""

import ast
import re
import shlex
import tomllib

import numpy as np
import pytest

from jaxrl import cli
from tests.docs import pages
from tests.docs.pages import ROOT

README = pages.read("README.md")
BLOCKS = pages.code(README)
COMMANDS = [
    line.partition("#")[0] for block in pages.code(README, "sh") for line in block.splitlines() if line.startswith("jaxrl ")
]
PAGES = sorted(
    str(path.relative_to(ROOT)) for place in (".", "docs", "docs/agents", "benchmarks") for path in (ROOT / place).glob("*.md")
)


def test_the_first_example_trains_every_seed():
    block = pages.replaced(BLOCKS[0], {'"CartPole-v1")': '"CartPole-v1", env_steps=12_000)', "16": 2})
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 10
    names = pages.run([block])
    assert names["env_steps"] == 12_000
    returns = names["metrics"]["episode_return"]
    assert returns.shape[0] == 2
    assert not np.array_equal(returns[0], returns[1], equal_nan=True)


def test_the_examples_of_the_library_run_one_after_the_other():
    run, rates, seeds, continued = BLOCKS[1:]
    names = pages.run([pages.replaced(run, {"5_000": 64, "20_000": 1_600})])
    assert names["returns"].shape == (10,)
    assert np.isfinite(names["returns"]).all()
    pages.run([pages.replaced(rates, {"1_000": 16})], names)
    loss = np.asarray(names["metrics"]["loss"])
    assert loss.shape == (3, 16)
    assert len(set(loss[:, -1].tolist())) == 3
    pages.run([pages.replaced(seeds, {"5_000": 16, "100": 3})], names)
    assert names["metrics"]["loss"].shape == (3, 16)
    before = names["state"]
    pages.run([pages.replaced(continued, {"5_000": 64, "1_000": 16})], names)
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
    algorithm = arguments[:1] if name in ("train", "tune") else []
    assert cli.main([name, *algorithm, "--help"]) == 0
    helped = capsys.readouterr().out
    for option in options:
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", helped), option


def anchors(text):
    """The anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead(page, text):
    """The links of a page that lead nowhere, and the files that it names and that do not exist."""
    prose = re.sub(r"```.*?```|`[^`\n]*`(?!\])", "", text, flags=re.DOTALL)
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        if "://" in link:
            continue
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target.read_text())):
            found.append(link)
    named = re.findall(r"`((?:scripts|tests|benchmarks|experiment|jaxrl|docs)/[\w/.-]+\.\w+)", text)
    return found + [name for name in named if not ((ROOT / name).exists() or (ROOT / "jaxrl" / name).exists())]


@pytest.mark.parametrize("page", PAGES)
def test_links_anchors_and_named_files_exist(page):
    assert dead(page, pages.read(page)) == []


def test_dead_links_are_found():
    assert len(PAGES) > 30
    assert anchors("# A: *b* `c_d`\n```\n# no\n```\n## Über-all 2") == {"a-b-c_d", "über-all-2"}
    text = "[a](gone.md) [b](docs/devices.md#gone) [c](docs/devices.md#the-same-bits) [d](#gone) `docs/gone.md` `[e](no.md)`"
    assert dead("README.md", text) == ["gone.md", "docs/devices.md#gone", "#gone", "docs/gone.md"]


@pytest.mark.parametrize("page", ["README.md", "docs/install.md"])
def test_every_extra_is_named(page):
    extras = tomllib.loads(pages.read("pyproject.toml"))["project"]["optional-dependencies"]
    assert len(extras) > 15
    text = pages.read(page)
    text = text.partition("\nExtras: ")[2].partition("\n\n")[0] if page == "README.md" else text
    assert [extra for extra in extras if not re.search(rf"`{extra}`|\[[\w,]*\b{extra}\b[\w,]*\]", text)] == []


def layers():
    """The lines of the layout in ARCHITECTURE.md, from top to bottom, as sets of modules."""
    text = pages.read("ARCHITECTURE.md").partition("## Layout")[2]
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
