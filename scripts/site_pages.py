"""Hooks of MkDocs, see mkdocs.yml: pages that do not lie in docs/.

Those are the documents in the root and in benchmarks/, the notebooks, the reference, whose text mkdocstrings takes from the
docstrings, and the source files to which a page links. Links are as on GitHub, between files of the repository; here they become
links between pages.
"""

import json
import posixpath
import re
import textwrap
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = {"README.md": "index.md"} | {
    name: name
    for name in (
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        *(f"benchmarks/{x}.md" for x in ("README", "RESULTS", "NOTES")),
    )
}
# The reference: page -> (title, introduction, what mkdocstrings documents).
REFERENCE = {
    "training": ("Training", "Names in `jaxrl` itself.", (
        "learner.make_learner", "learner.train", "learner.advance", "rollout.evaluate",
        "rollout.evaluate_over_params", "vectorization.vectorize", "presets.preset", "presets.Preset",
        "rendering.episodes.render", "experiment.deployment.load_policy", "compilation.enable_compilation_cache",
    )),
    "environments": ("Environments", "", (
        "envs.make", "envs.names", "envs.suite", "envs.validation.environment.check_environment", "envs.suites.gymnasium",
        "envs.suites.adapter",
    )),
    "wrappers": ("jaxrl.envs.wrappers", "", ("envs.wrappers.*",)),
    "problems": ("Problems with exact solutions", "", (
        "envs.problems.point_mass", "envs.problems.lqr", "envs.problems.classics", "envs.problems.grids", "envs.problems.tabular",
        "envs.problems.probes", "dynamic_programming",
    )),
    "agents": ("jaxrl.agents", "", ("agents.*",)),
    "networks": ("jaxrl.networks", "", ("networks.*",)),
    "types": ("jaxrl.types and jaxrl.spaces", "", ("types", "spaces")),
    "losses": ("jaxrl.losses", "", ("losses.*",)),
    "returns": ("jaxrl.returns", "", ("returns",)),
    "distributions": ("jaxrl.distributions", "", ("distributions",)),
    "replay": ("jaxrl.replay", "", ("replay.*", "replay.prioritized")),
    "building_blocks": ("Parts of agents", "Functions that agents share, and that your own agent can use.", (
        "schedules", "exploration", "policies", "optimizers", "minibatches", "recurrence", "transitions", "off_policy",
        "training_passes", "noise", "normalization", "running_statistics", "shards", "checks",
    )),
    "explain": ("jaxrl.explain", "", ("explain.*",)),
    "experiment": ("jaxrl.experiment", "", ("experiment.*",)),
    "statistics": ("jaxrl.experiment.statistics", "", ("experiment.statistics",)),
}  # fmt: skip
_LINK = re.compile(r"""(?P<before>\]\(|(?:src|href)=")(?P<target>[^)"#\s]+)(?P<anchor>\#[^)"\s]*)?(?P<after>[)"])""")
_CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
_FORMULA = re.compile(r"\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+)\$", re.DOTALL)
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_LANGUAGES = {".py": "python", ".sh": "bash", ".toml": "toml", ".yml": "yaml", ".sbatch": "bash"}


def pages() -> dict[str, str]:
    """Path in the repository -> path in the site, of every page but the reference and the source files."""
    own = {f"docs/{path}": str(path) for path in sorted(p.relative_to(ROOT / "docs") for p in (ROOT / "docs").rglob("*.md"))}
    notebooks = {f"notebooks/{p.name}": f"notebooks/{p.stem}.md" for p in sorted((ROOT / "notebooks").glob("*.ipynb"))}
    return DOCUMENTS | own | notebooks


def on_config(config: Any) -> Any:
    """Expand `NAME/*` in the navigation, and leave out pages that do not exist."""
    there = [*pages().values(), *(f"reference/{name}.md" for name in REFERENCE)]

    def expand(entries: list[Any]) -> list[Any]:
        kept: list[Any] = []
        for entry in entries:
            if isinstance(entry, str) and entry.endswith("/*"):
                kept += [page for page in there if posixpath.dirname(page) == entry[:-2]]
            elif isinstance(entry, dict) and isinstance(next(iter(entry.values())), list):
                kept += [{title: inner} for title, sub in entry.items() if (inner := expand(sub))]
            elif next(iter(entry.values())) in there:
                kept.append(entry)
        return kept

    config.nav = expand(config.nav)
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that do not lie in docs/."""
    for source, page in pages().items():
        if source.startswith("docs/"):
            continue
        text = (ROOT / source).read_text()
        files.append(File.generated(config, page, content=notebook_text(text) if source.endswith(".ipynb") else text))
    for name in REFERENCE:
        files.append(File.generated(config, f"reference/{name}.md", content=reference_text(name)))
    for name in sorted({link for source in pages() for link in linked_files(source)}):
        language = _LANGUAGES.get(Path(name).suffix, "text")
        content = f"---\nsearch:\n  exclude: true\n---\n\n# {name}\n\n````{language}\n{(ROOT / name).read_text()}````\n"
        files.append(File.generated(config, f"source/{name}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Change links between files of the repository to links between pages, and describe the page by its first sentences."""
    if description := _description(markdown):
        page.meta.setdefault("description", description)
    sources = {site: source for source, site in pages().items()}
    if page.file.src_uri not in sources:
        return markdown
    return _outside_code(
        markdown, lambda text: _LINK.sub(lambda match: _link(match, sources[page.file.src_uri], page.file.src_uri), text)
    )


def _description(markdown: str) -> str:
    """The first paragraph of text, shortened, without markup."""
    paragraphs = (part.strip() for part in markdown.split("\n\n"))
    text = next((part for part in paragraphs if re.match(r"[\w*`\[]", part)), "")
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"<[^>]*>", "", text))
    return textwrap.shorten(text.replace("*", "").replace("`", ""), 200, placeholder=" …")


def reference_text(name: str) -> str:
    """A page of the reference: each module, or for `MODULE.*` each name in its `__all__`."""
    title, introduction, objects = REFERENCE[name]
    parts = [f"# {title}", introduction]
    for each in objects:
        module = each.removesuffix(".*")
        heading = each.endswith(".*") or module.rpartition(".")[2] not in _modules(module)
        options = (
            {"show_root_heading": True, "show_root_full_path": False, "show_root_toc_entry": True}
            if heading and "*" not in each
            else {}
        )
        if each.endswith(".*"):
            options = {"show_submodules": False}
        lines = "".join(f"      {key}: {str(value).lower()}\n" for key, value in options.items())
        if not heading and len(objects) > 1:
            parts.append(f"## jaxrl.{module}")
            lines += "      heading_level: 3\n"
        parts.append(f"::: jaxrl.{module}\n" + (f"    options:\n{lines}" if lines else ""))
    return "\n\n".join(parts) + "\n"


def _modules(path: str) -> set[str]:
    """The last part of a dotted path, if it is a module or package of jaxrl."""
    file = ROOT / "jaxrl" / Path(*path.split("."))
    return {path.rpartition(".")[2]} if file.with_suffix(".py").exists() or (file / "__init__.py").exists() else set()


def notebook_text(text: str) -> str:
    """A notebook as Markdown: its text, its code, and what that printed and drew. Formulas become MathML, without a script."""
    parts, heading = [], ""
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            heading = (_HEADING.findall(source) or [heading])[-1]
            parts.append(_outside_code(source, lambda text: _FORMULA.sub(_mathml, text)))
        elif cell["cell_type"] == "code":
            parts.append(f"````python\n{source}\n````")
            parts += [shown for output in cell["outputs"] if (shown := _output(output, heading))]
    return "\n\n".join(parts) + "\n"


def _mathml(match: re.Match[str]) -> str:
    return convert(match["inline"] or match["block"].strip(), display="block" if match["block"] else "inline")


def _output(output: dict[str, Any], heading: str) -> str:
    data = output.get("data", {})
    if "text/html" in data:
        return "".join(data["text/html"])
    for kind in ("image/png", "image/gif", "image/jpeg"):
        if kind in data:
            alt = f"A picture that the code draws: {heading}".replace("[", "").replace("]", "")
            return f"![{alt}](data:{kind};base64,{''.join(data[kind]).replace(chr(10), '')})"
    text = "".join(data.get("text/plain", output.get("text", "")))
    return f"````text\n{text.rstrip()}\n````" if text.strip() else ""


def linked_files(source: str) -> list[str]:
    """The files of the repository to which a document links, and which are no pages of their own."""
    if not source.endswith(".md"):
        return []
    found: list[str] = []
    _outside_code(
        (ROOT / source).read_text(), lambda text: found.extend(_target(m, source) for m in _LINK.finditer(text)) or text
    )
    return [
        name
        for name in found
        if name not in pages() and (ROOT / name).is_file() and Path(name).suffix not in (".png", ".gif", ".svg")
    ]


def _target(match: re.Match[str], source: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), match["target"]))


def _link(match: re.Match[str], source: str, page: str) -> str:
    if "://" in match["target"] or match["target"].startswith("data:"):
        return match[0]
    name = _target(match, source)
    if (ROOT / name).is_dir():  # on GitHub a list of its files: here its README, or else its first page
        inside = [source for source in pages() if source.startswith(f"{name}/")]
        name = min(inside, key=lambda source: (not source.endswith("/README.md"), source), default=name)
    site = pages().get(name) or (name.removeprefix("docs/") if name.startswith("docs/") else f"source/{name}.md")
    if not (ROOT / name).exists():
        return match[0]
    if match["before"] != "](" and site.endswith(".md"):
        site = site.removesuffix(".md") + ".html"
    relative = posixpath.relpath(site, posixpath.dirname(page) or ".")
    return f"{match['before']}{relative}{match['anchor'] or ''}{match['after']}"


def _outside_code(text: str, change: Any) -> str:
    return "".join(part if i % 2 else change(part) for i, part in enumerate(_CODE.split(text)))
