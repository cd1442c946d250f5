"""What the tests of the documents share: their text, the code in it, and running that."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def read(name):
    """The text of a document, named from the root of the repository."""
    return (ROOT / name).read_text()


def code(text, language="python"):
    """The blocks of code in a text."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def replaced(text, changes):
    """The text with other numbers; each that is replaced must be there."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, str(new))
    return text


def run(blocks, names=None):
    """Run blocks one after the other, each with the names of those before it, and return the names."""
    names = {} if names is None else names
    assert blocks
    for block in blocks:
        exec(compile(block, "<document>", "exec"), names)
    return names
