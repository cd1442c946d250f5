"""The check of the built site, and the pages of the site."""

import ast
import importlib
import json
import re
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def check():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        yield importlib.import_module("check_site")


def test_dead_links_and_foreign_files_are_found(check, tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="b.html#there">b</a> <a href="#top">a</a> <a href="https://example.org">c</a>'
        '<a href="gone.html">d</a> <a href="b.html#gone">e</a> <script src="https://example.org/x.js"></script>'
    )
    (tmp_path / "b.html").write_text('<h2 id="there">B</h2>')
    assert check.problems(tmp_path) == [
        "a.html links to gone.html, which does not exist",
        "a.html links to b.html#gone, which has no such anchor",
        "a.html loads https://example.org/x.js",
    ]


def test_what_is_not_shown_as_it_was_meant_is_found(check, tmp_path):
    (tmp_path / "a.html").write_text(
        '<img src="x.png"><img src="x.png" alt="a curve"><blockquote>A word</blockquote> costs 5 $ or 6 $, <code>$x_1$</code>'
        "<blockquote><blockquote><p>f(x)</p></blockquote></blockquote> the value $v_\\pi(s)$ <pre><code>'$a_1$'</code></pre>"
    )
    (tmp_path / "x.png").touch()
    assert check.problems(tmp_path) == [
        "a.html has a picture without a text, x.png",
        "a.html has a quotation in a quotation, such as an example that is no block of code",
        r"a.html shows the source of a formula, $v_\pi(s)$",
    ]


@pytest.fixture
def scripts(monkeypatch):
    """Import a script that builds the site, with stand-ins for the packages of the site."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    stand_in = SimpleNamespace(Class=object, Extension=object, Object=object, File=object, Files=object)
    converter = SimpleNamespace(convert=lambda formula, display: f"<math {display}>{formula}</math>")
    for name in ("griffe", "mkdocs", "mkdocs.structure", "mkdocs.structure.files", "latex2mathml"):
        monkeypatch.setitem(sys.modules, name, stand_in)
    monkeypatch.setitem(sys.modules, "latex2mathml.converter", converter)
    yield importlib.import_module
    for name in ("site_docstrings", "site_pages"):
        sys.modules.pop(name, None)


def test_examples_become_code_and_records_show_their_fields(scripts):
    docstrings = scripts("site_docstrings").Docstrings()
    cls = SimpleNamespace(
        docstring=SimpleNamespace(value="A step.\n\n>>> Step(1).reward\n1\n\nMore."),
        lines='''class Step(NamedTuple):
    """A step.

    >>> Step(1).reward
    1

    More.
    """

    reward: float  # of the step
    # Of the episode:
    total: float = 0.0

    def mean(self):
        """Of it."""
        return 3'''.splitlines(),
    )
    docstrings.on_object(obj=cls)
    docstrings.on_class(cls=cls)
    assert cls.docstring.value == (
        "A step.\n\n```pycon\n>>> Step(1).reward\n1\n```\n\nMore.\n\n"
        "```python\nreward: float  # of the step\n# Of the episode:\ntotal: float = 0.0\n```"
    )
    undocumented = SimpleNamespace(docstring=None, lines=["class A:", "    x: int"])
    docstrings.on_object(obj=undocumented)
    docstrings.on_class(cls=undocumented)


def test_a_notebook_becomes_text_code_pictures_and_formulas(scripts):
    cells = [
        {"cell_type": "markdown", "source": ["# A [point]\n", "An action $a_1$ costs `$5`:\n", "$$\nx^2\n$$"]},
        {"cell_type": "code", "source": ["draw()"], "outputs": [{"data": {"image/png": ["AA\n"], "text/plain": ["<Figure>"]}}]},
        {"cell_type": "code", "source": ["show()"], "outputs": [{"data": {"text/html": ["<table>"], "text/plain": ["\x1b[1m"]}}]},
        {"cell_type": "code", "source": ["1"], "outputs": [{"text": ["1\n"]}]},
    ]
    assert scripts("site_pages").notebook_text(json.dumps({"cells": cells})) == (
        "# A [point]\nAn action <math inline>a_1</math> costs `$5`:\n<math block>x^2</math>\n\n"
        "````python\ndraw()\n````\n\n![A picture that the code draws: A point](data:image/png;base64,AA)\n\n"
        "````python\nshow()\n````\n\n<table>\n\n````python\n1\n````\n\n````text\n1\n````\n"
    )


def test_a_page_is_described_by_its_first_paragraph(scripts):
    page = SimpleNamespace(meta={}, file=SimpleNamespace(src_uri="other.md"))
    scripts("site_pages").on_page_markdown("# Title\n\n<img>\n\n**Read** [this](a.md) `first`.\n\nMore.", page, None, None)
    assert page.meta == {"description": "Read this first."}


def test_every_page_of_docs_is_in_the_navigation():
    listed = set(re.findall(r"[\w/*.]+\.md|\w+/\*", str(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])))
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name in listed, f"{page.name} is not in the navigation of mkdocs.yml"
    assert {"agents/*", "notebooks/*", "reference/*", "index.md"} <= listed


def test_the_reference_has_every_name_of_the_package():
    import jaxrl

    tree = ast.parse((ROOT / "scripts" / "site_pages.py").read_text())
    (reference,) = (node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "REFERENCE")
    objects = {entry for _, _, entries in ast.literal_eval(reference).values() for entry in entries}
    for name, module in jaxrl._NAMES.items():
        assert {f"{module}.{name}", module} & objects, f"jaxrl.{name} is not in the reference"
    for name in ("agents", "distributions", "envs.wrappers", "experiment", "explain", "losses", "networks", "replay"):
        assert {name, f"{name}.*"} & objects, f"jaxrl.{name} is not in the reference"


def test_the_lowest_jax_is_the_same_everywhere():
    import jaxrl

    oldest = ".".join(map(str, jaxrl._OLDEST_JAX))
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"jax>={oldest}" in dependencies
    assert f"jax {oldest} or later" in (ROOT / "docs" / "install.md").read_text()


@pytest.mark.parametrize(
    ("installed", "fits"), [("0.7.1", False), ("0.6.2", False), ("0.7.2", True), ("0.12.0.1", True), ("0.10.0rc1", True)]
)
def test_an_older_jax_is_an_error_that_says_what_to_do(installed, fits, monkeypatch):
    import jaxrl

    monkeypatch.setattr(jaxrl.metadata, "version", lambda name: installed)
    if fits:
        jaxrl._check_jax()
        return
    with pytest.raises(
        ImportError, match=rf"needs jax 0.7.2 or later, and {installed} is installed: pip install -U 'jax>=0.7.2'"
    ):
        jaxrl._check_jax()


def test_without_gymnax_the_error_names_its_extra(monkeypatch):
    import sys

    from jaxrl import envs

    for module in [name for name in sys.modules if name.startswith("jaxrl.envs.suites.gymnax")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "gymnax", None)
    assert envs.names() == list(envs.OWN)
    assert envs.make("PointMass").name == "PointMass"
    with pytest.raises(ImportError, match=r"'CartPole-v1' is not one of jaxrl's own .*pip install 'jaxrl\[gymnax\]'"):
        envs.make("CartPole-v1")
