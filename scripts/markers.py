"""Generated parts of pages, between two lines such as `<!-- results:begin -->` and `<!-- results:end -->`."""

import re


def fill(text: str, name: str, content: str) -> str:
    """The page with `content` between the markers `name`. Raises ValueError if it does not have them exactly once."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    text = re.sub(f"^<!-- {name} -->$", f"{begin}\n{end}", text, flags=re.MULTILINE)
    pattern = re.compile(f"^{begin}$.*?^{end}$", re.MULTILINE | re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"the page needs one line `<!-- {name} -->`, or one pair of lines {begin} and {end}")
    return pattern.sub(lambda _: f"{begin}\n\n{content}\n\n{end}", text)
