"""Check descriptors for faults: those of one class, and those of a whole pack."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator

from ost.descriptors.names import says
from ost.descriptors.pack import Pack, PackClass
from ost.descriptors.prompts import prompts
from ost.types import BOTH, TextContext

MAX_WORDS, MAX_LETTERS = 16, 160


def class_faults(item: PackClass, *, count: int, context: TextContext | None = None) -> list[str]:
    """Return the faults of one class's descriptors, worded for whoever wrote them.

    Args:
        item: the class.
        count: the number of descriptors of each kind that it should have.
        context: that of the backbone that will read the prompts; None skips the check of their length.
    """
    faults = [
        f"it has {len(getattr(item, kind))} {kind} descriptors, not {count}"
        for kind in BOTH
        if len(getattr(item, kind)) != count
    ]
    seen: set[str] = set()
    for kind in BOTH:
        for text in getattr(item, kind):
            faults += [f"the {kind} {text[:MAX_LETTERS]!r} {fault}" for fault in _text_faults(text)]
            if text.casefold() in seen:
                faults.append(f"the {kind} {text[:MAX_LETTERS]!r} stands twice")
            seen.add(text.casefold())
    faults += [
        f"the spatial {text[:MAX_LETTERS]!r} says the name of the class"
        for text in item.spatial
        if any(says(text, name) for name in (item.name, item.label) if name)
    ]
    if context and (longest := max(prompt_tokens(item, context))) > context.limit:
        faults.append(f"a prompt has {longest} tokens and the text tower reads {context.limit}")
    return faults


def pack_faults(pack: Pack, context: TextContext | None = None) -> list[str]:
    """Return the faults of a pack, one sentence each, beginning with the class."""
    counts = Counter(len(getattr(item, kind)) for item in pack.classes for kind in BOTH)
    usual = counts.most_common(1)[0][0]
    owners: dict[str, str] = {}
    faults: list[str] = []
    for item in pack.classes:
        faults += [f"{item.name}: {fault}" for fault in class_faults(item, count=usual, context=context)]
        for kind in BOTH:
            for text in getattr(item, kind):
                owner = owners.setdefault(text.casefold(), item.name)
                if owner != item.name:
                    faults.append(f"{item.name}: shares the {kind} {text!r} with {owner}")
    recorded = pack.provenance.get("hash")
    if recorded is not None and recorded != pack.hash:
        faults.append(f"edited since it was written: its hash was {str(recorded)[:12]}")
    return faults


def prompt_tokens(item: PackClass, context: TextContext) -> list[int]:
    """Return the number of tokens in each prompt of a class, spatial prompts first."""
    return [context.count(prompt) for kind in BOTH for prompt in prompts(item, kind, context.templates)]


def _text_faults(text: str) -> Iterator[str]:
    if not text.strip():
        yield "is empty"
        return
    if any(unicodedata.category(ch) in ("Cc", "Cf", "Cs", "Co", "Cn") for ch in text):
        yield "holds signs that cannot be seen"
    if not any(ch.isalpha() for ch in text):
        yield "holds no word"
    if len(text.split()) > MAX_WORDS or len(text) > MAX_LETTERS:
        yield f"is longer than {MAX_WORDS} words or {MAX_LETTERS} letters"
