"""When two spellings are one name: one folding for class names, labels and the names in lists."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

REMEMBERED = 1 << 16  # a list of names is looked up in every pack, name by name


@lru_cache(REMEMBERED)
def fold(name: str | None) -> str:
    """The spelling-free key of a name: no case, spaces or punctuation; letters, marks, digits and symbols stay.

    Marks are the vowels of many scripts, and symbols tell "c++" from "c".
    """
    text = unicodedata.normalize("NFKC", (name or "").casefold())
    return "".join(ch for ch in text if unicodedata.category(ch)[0] in "LMNS")
