"""Turn an LLM's answer into the descriptors of a class, or into faults; the text is untrusted until checked."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple, cast

from ost.descriptors.faults import class_faults
from ost.descriptors.pack import PackClass
from ost.types import BOTH, TextContext

MAX_ANSWER = 64_000  # characters; hundreds of times what a good answer needs
MAX_FAULTS = 8


class Judged(NamedTuple):
    """Descriptors that passed the checks, or None and the faults."""

    item: PackClass | None
    faults: tuple[str, ...]


def judge(answer: str, asked: PackClass, *, count: int, context: TextContext | None = None) -> Judged:
    """Parse and check an answer about one class.

    Args:
        answer: what the LLM wrote.
        asked: the class, still without descriptors.
        count: descriptors of each kind that were asked for.
        context: that of the backbone that will read the prompts.
    """
    parsed = _find_object(answer)
    if isinstance(parsed, str):
        return Judged(None, (parsed,))
    texts: list[tuple[str, ...]] = []
    for kind in BOTH:
        values = parsed.get(kind)
        if not isinstance(values, list) or not all(isinstance(v, str) for v in cast(list[object], values)):
            return Judged(None, (f"{kind!r} is not a list of texts",))
        texts.append(tuple(_tidy(text) for text in cast(list[str], values)))
    item = PackClass(asked.name, texts[0], texts[1], asked.label)
    faults = tuple(class_faults(item, count=count, context=context))
    return Judged(None, faults[:MAX_FAULTS]) if faults else Judged(item, ())


def _find_object(answer: str) -> dict[str, Any] | str:
    """Return the JSON object in an answer, ignoring text around it from servers without schemas; else the fault."""
    if not answer.strip():
        return "it is empty"
    if len(answer) > MAX_ANSWER:
        return f"it has {len(answer)} characters, more than {MAX_ANSWER}"
    decoder = json.JSONDecoder()
    other_objects = False
    # The last object wins: models that think aloud put drafts before the answer.
    for start in reversed([brace.start() for brace in re.finditer(r"\{", answer)]):
        try:
            value, _ = decoder.raw_decode(answer, start)
        except (ValueError, RecursionError):
            continue
        if set(BOTH) <= set(value):
            return value
        other_objects = True
    if other_objects:
        return 'it has no object with both "spatial" and "temporal"'
    return "it is not JSON, or breaks off before its end"


def _tidy(text: str) -> str:
    """Reduce a text to one line, without the bullet, number, quotes or full stop that models like to add."""
    line = " ".join(text.split())
    line = re.sub(r"^(?:[-*•]|\(?\d{1,2}[.):])\s+", "", line)
    return line.strip(" \"'`*_.;,")
