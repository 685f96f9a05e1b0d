"""Write the reference in docs/api.md from the docstrings: python docs/make_api.py."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import ost

PAGE = Path(__file__).with_name("api.md")
BEGIN, END = "<!-- written by docs/make_api.py: begin -->", "<!-- end -->"
GROUPS = {
    "Recognise": [
        "load",
        "pack",
        "Recognizer",
        "Settings",
        "Prediction",
        "ClassScore",
        "Reading",
        "to_table",
        "save_page",
    ],
    "The method as parts": [
        "decode",
        "match",
        "score",
        "explain",
        "Evidence",
        "Scores",
        "ClassHead",
        "FrameEmbeddings",
    ],
    "Frames and packs": ["Frames", "Frame", "FrameSequence", "Pack", "describe", "Written"],
    "Errors": ["OstError", "UsageError", "VideoError", "PackError", "WeightsError", "TransportError"],
}


def reference() -> str:
    """Return the reference of every public name, as Markdown."""
    lines: list[str] = []
    for title, names in GROUPS.items():
        lines += [f"## {title}", ""]
        for name in names:
            lines += _entry(f"ost.{name}", getattr(ost, name), "###")
    return "\n".join(lines)


def _entry(title: str, item: object, heading: str) -> Iterator[str]:
    yield from (f"{heading} `{title}`", "")
    signature = _signature(item)
    if signature:
        yield from ("```python", f"{title}{signature}", "```", "")
    yield from (*_markdown(inspect.getdoc(item) or ""), "")
    if inspect.isclass(item) and not issubclass(item, Exception):
        for name, member in vars(item).items():
            if name.startswith("_") or not (callable(member) or isinstance(member, property)):
                continue
            if (inspect.getdoc(member) or "").startswith("Alias for field"):
                continue
            owner = title.removeprefix("ost.")
            yield from _entry(f"{owner}.{name}", member, "####")


def _signature(item: object) -> str:
    if (
        isinstance(item, property)
        or not callable(item)
        or (inspect.isclass(item) and issubclass(item, Exception))
    ):
        return ""
    parameters = [
        p.replace(annotation=inspect.Parameter.empty)
        for p in inspect.signature(item).parameters.values()
        if p.name != "self"
    ]
    text = str(inspect.Signature(parameters))
    if len(text) >= 90:
        lines = list(map(str, parameters))
        named = next((i for i, p in enumerate(parameters) if p.kind is p.KEYWORD_ONLY), None)
        if named is not None and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
            lines.insert(named, "*")
        text = "(\n    " + ",\n    ".join(lines) + ",\n)"
    return re.sub(r"<function [^>]*>? at 0x[0-9a-f]+>", "...", text)


def _markdown(docstring: str) -> Iterator[str]:
    """Yield a Google-style docstring as Markdown: its sections become lists."""
    section = False
    for line in docstring.splitlines():
        if re.fullmatch(r"(Args|Attributes|Raises|Returns|Yields):", line):
            section = True
            yield from (f"{line[:-1]}:", "")
        elif section and (entry := re.fullmatch(r"    (\w[\w, *]*): (.*)", line)):
            yield f"- `{entry[1]}`: {entry[2]}"
        elif section and line.startswith("    "):
            yield f"  {line.strip()}"
        else:
            section = section and not line.strip()
            yield line


def updated(page: str) -> str:
    """Return the page with the present reference."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
