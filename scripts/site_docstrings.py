"""A griffe extension, see mkdocs.yml: what mkdocstrings would not show of docstrings as it is meant.

Examples become blocks of code, since in Markdown `>>>` begins quotations. Records get a block with their fields, whose comments
say what they are.
"""

import re
from typing import Any

from griffe import Class, Extension, Object

_EXAMPLE = re.compile(r"^>>> .*?(?=\n\s*\n|\Z)", re.DOTALL | re.MULTILINE)
_FIELD = re.compile(r"^    (?:# .*|[a-z]\w*: .*)$", re.MULTILINE)


class Docstrings(Extension):
    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = _EXAMPLE.sub(lambda example: f"```pycon\n{example[0].rstrip()}\n```", obj.docstring.value)

    def on_class(self, *, cls: Class, **kwargs: Any) -> None:
        before = "\n".join(cls.lines).partition("\n    def ")[0].rpartition('"""')[2]  # what follows the docstring
        if cls.docstring and (fields := _FIELD.findall(before)):
            cls.docstring.value += "\n\n```python\n" + "\n".join(field.strip() for field in fields) + "\n```"
