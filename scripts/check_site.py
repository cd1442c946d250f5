"""Check a built site: links and anchors lead somewhere inside it, nothing comes from another host, pages are as they were meant.

That is, pictures have a text, and no example or formula is shown as its source.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_SHOWN_AS_IT_IS = {"code", "pre", "script", "style"}
_FORMULA = re.compile(r"\$[^$\n]*[\\^_][^$\n]*\$")  # $v_\pi$ and not 5 $
_LOADS = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "srcset", "video": "src"}


class _Page(HTMLParser):
    """What a page links to, what it loads, the anchors that it has, and what is wrong in it."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.wrong: list[str] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "img" and not values.get("alt"):
            self.wrong.append(f"has a picture without a text, {values.get('src', '')[:60]}")
        if tag in _SHOWN_AS_IT_IS or tag == "blockquote":
            self._open.append(tag)
            if self._open[-2:] == ["blockquote"] * 2:
                self.wrong.append("has a quotation in a quotation, such as an example that is no block of code")
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in _LOADS and _LOADS[tag] in values and values.get("rel") != "canonical":
            self.loads.append(values[_LOADS[tag]])

    def handle_endtag(self, tag: str) -> None:
        if self._open[-1:] == [tag]:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if not set(self._open) & _SHOWN_AS_IT_IS and (formula := _FORMULA.search(data)):
            self.wrong.append(f"shows the source of a formula, {formula[0]}")


def problems(site: Path) -> list[str]:
    """One line for each dead link, and for each file that would come from another host."""
    pages = {path.resolve(): _Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        found += [f"{path.name} {wrong}" for wrong in page.wrong]
        if path.name == "404.html":  # it has absolute links, since it is shown for any address
            continue
        for link in [*page.links, *page.loads]:
            url = urlsplit(link)
            if url.scheme == "data":
                continue
            if url.scheme or url.netloc:
                if link in page.loads:
                    found.append(f"{path.name} loads {link}")
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            if not target.is_file():
                found.append(f"{path.name} links to {link}, which does not exist")
            elif url.fragment and target in pages and unquote(url.fragment) not in pages[target].anchors:
                found.append(f"{path.name} links to {link}, which has no such anchor")
    return found


if __name__ == "__main__":
    lines = problems(Path(sys.argv[1]))
    print(*lines, sep="\n")
    sys.exit(bool(lines))
