"""HTML elements. Text and attributes are escaped when they are written, so no name in a run folder can become markup."""

from collections.abc import Iterable, Sequence
from typing import Any
from xml.etree import ElementTree

Element = ElementTree.Element
Child = Element | str | None | Iterable["Child"]  # iterables may be nested


def element(tag: str, *children: Child, **attributes: Any) -> Element:
    """An element with its children and attributes.

    Args:
      tag: its name.
      children: elements, text, None (nothing), or iterables of these.
      attributes: `class_` is `class`; in other names `_` is `-`. None and False leave an attribute out.

    >>> ElementTree.tostring(element("p", "1 < 2 ", element("b", "<script>"), class_="x"), encoding="unicode", method="html")
    '<p class="x">1 &lt; 2 <b>&lt;script&gt;</b></p>'
    """
    names = {name: name.rstrip("_").replace("_", "-") for name in attributes}
    given = {
        names[name]: "" if value is True else str(value)
        for name, value in attributes.items()
        if value is not None and value is not False
    }
    made = Element(tag, given)
    for child in children:
        _append(made, child)
    return made


def _append(parent: Element, child: Any) -> None:
    if child is None:
        return
    if isinstance(child, Element):
        parent.append(child)
    elif isinstance(child, str):
        if len(parent):
            parent[-1].tail = (parent[-1].tail or "") + child
        else:
            parent.text = (parent.text or "") + child
    else:
        for item in child:
            _append(parent, item)


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[Child]], *, numbers: bool = True) -> Element:
    """A table that scrolls sideways where it is too wide. The first cell of each row is its header.

    Args:
      caption: its title, which is shown.
      header: the titles of the columns.
      rows: text or elements.
      numbers: whether all columns but the first hold numbers, which are aligned to the right.
    """
    head = element("tr", (element("th", title, scope="col") for title in header))
    body = (
        element("tr", (element("td", cell) if i else element("th", cell, scope="row") for i, cell in enumerate(row)))
        for row in rows
    )
    made = element("table", element("caption", caption), element("thead", head), element("tbody", body))
    made.set("class", "numbers" if numbers else "text")
    return element("div", made, class_="scroll", role="region", aria_label=caption, tabindex=0)


def section(name: str, title: str, *children: Child) -> Element:
    """A landmark with a heading; `name` is what links refer to."""
    return element("section", element("h2", title, id=f"{name}-title"), *children, id=name, aria_labelledby=f"{name}-title")


def details(summary: str, *children: Child, open: bool = False) -> Element:
    """Something that is shown on demand."""
    return element("details", element("summary", summary), *children, open=open)


def to_html(made: Element) -> str:
    """The text of an element."""
    return ElementTree.tostring(made, encoding="unicode", method="html")
