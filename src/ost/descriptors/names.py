"""Class names: when two spellings mean one class, and when a text says a name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, lru_cache

from ost.names import REMEMBERED

ARTICLES = frozenset({"a", "an", "the"})
# What may stand between the words that make a name, without changing which action it is.
FUNCTION_WORDS = ARTICLES | frozenset(
    {"and", "from", "in", "of", "on", "or", "something", "to", "up", "with", "your"}
)


def readable(label: str) -> str:
    """A label as words: `ApplyEyeMakeup` -> "apply eye makeup", `brush_hair` -> "brush hair"."""
    words = label.replace("_", " ")
    if " " not in words.strip():
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", words)
        words = words.lower() if words != label else words
    return " ".join(words.split())


@lru_cache(REMEMBERED)
def stems(text: str, without: frozenset[str] = ARTICLES) -> tuple[str, ...]:
    """The words of a text without their endings (Porter2, through snowballstemmer), some words left out.

    "walks the dogs", "walking a dog" and "WalkingDog" have the same stems.
    """
    words = re.findall(r"\w+", readable(text).casefold())
    return tuple(_stem(word) for word in words if word not in without)


def sided(names: Iterable[str]) -> bool:
    """Whether left and right are in class names, so that a mirrored video shows another class."""
    words = {word for name in names for word in re.findall(r"[^\W_]+", name.casefold())}
    return bool(words & {"left", "right", "clockwise", "counterclockwise", "anticlockwise"})


def says(text: str, name: str) -> bool:
    """Whether a text holds the words of a class name side by side in their order, whatever their endings.

    What stands in brackets in a name ("fencing (sport)") tells readers what is meant and is not asked for.
    """
    wanted = stems(re.sub(r"\([^()]*\)", " ", name), FUNCTION_WORDS)
    found = stems(text, FUNCTION_WORDS)
    return bool(wanted) and any(
        found[i : i + len(wanted)] == wanted for i in range(len(found) - len(wanted) + 1)
    )


@cache
def _stem(word: str) -> str:
    return _stemmer().stemWord(word)


@cache
def _stemmer():
    from snowballstemmer import stemmer

    return stemmer("english")
