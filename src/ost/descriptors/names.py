"""Compare class names: readable forms, word stems, and whether a text contains a name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, lru_cache

from ost.names import REMEMBERED

ARTICLES = frozenset({"a", "an", "the"})
# Words that may stand between the words of a name without changing the action.
FUNCTION_WORDS = ARTICLES | frozenset(
    {"and", "from", "in", "of", "on", "or", "something", "to", "up", "with", "your"}
)


def readable(label: str) -> str:
    """Split a label into words: `ApplyEyeMakeup` -> "apply eye makeup", `brush_hair` -> "brush hair"."""
    words = label.replace("_", " ")
    if " " not in words.strip():
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", words)
        words = words.lower() if words != label else words
    return " ".join(words.split())


@lru_cache(REMEMBERED)
def stems(text: str, without: frozenset[str] = ARTICLES) -> tuple[str, ...]:
    """Return the stems of a text's words (Porter2, through snowballstemmer), leaving out those in `without`.

    "walks the dogs", "walking a dog" and "WalkingDog" have the same stems.
    """
    words = re.findall(r"\w+", readable(text).casefold())
    return tuple(_stem(word) for word in words if word not in without)


def sided(names: Iterable[str]) -> bool:
    """Return whether class names tell left from right, so that a mirrored video shows another class."""
    words = {word for name in names for word in re.findall(r"[^\W_]+", name.casefold())}
    return bool(words & {"left", "right", "clockwise", "counterclockwise", "anticlockwise"})


def says(text: str, name: str) -> bool:
    """Return whether a text contains the words of a class name, adjacent and in order, whatever their endings.

    Words in brackets ("fencing (sport)") explain a name to readers and are not required in the text.
    """
    name_stems = stems(re.sub(r"\([^()]*\)", " ", name), FUNCTION_WORDS)
    text_stems = stems(text, FUNCTION_WORDS)
    return bool(name_stems) and any(
        text_stems[i : i + len(name_stems)] == name_stems
        for i in range(len(text_stems) - len(name_stems) + 1)
    )


@cache
def _stem(word: str) -> str:
    return _stemmer().stemWord(word)


@cache
def _stemmer():
    from snowballstemmer import stemmer

    return stemmer("english")
