"""Fold names to one key per spelling: for class names, labels and the names in lists."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

REMEMBERED = 1 << 16  # a list of names is looked up in every pack, name by name


@lru_cache(REMEMBERED)
def fold(name: str | None) -> str:
    """Return the key of a name: without case, spaces and punctuation; letters, marks, digits and symbols stay.

    Marks are the vowels of many scripts, and symbols distinguish "c++" from "c".
    """
    text = unicodedata.normalize("NFKC", (name or "").casefold())
    return "".join(ch for ch in text if unicodedata.category(ch)[0] in "LMNS")
