"""Cut texts to a text tower's context at a word, and batch them by length."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from ost.types import TextContext


def fit_to_context(texts: Sequence[str], context: TextContext, notify: Callable[[str], None]) -> list[str]:
    """Return each text, cut at a word where it has more tokens than the context.

    Args:
        texts: the texts before the tokenizer.
        context: the text tower's; its count grows with the text.
        notify: called with one sentence for each text that was cut.
    """
    return [
        text if context.count(text) <= context.limit else _cut(text, context.count, context.limit, notify)
        for text in texts
    ]


def batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Return batches of indices of texts, the shortest texts first; every index is in one batch.

    Args:
        lengths: number of tokens of each text.
        budget: most tokens of a batch, padded to its longest text; a longer text has a batch of its own.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not batches or (len(batches[-1]) + 1) * lengths[i] > budget:
            batches.append([])
        batches[-1].append(i)
    return batches


def _cut(text: str, count: Callable[[str], int], limit: int, notify: Callable[[str], None]) -> str:
    words = text.split()
    fitting = bisect_right(range(1, len(words) + 1), limit, key=lambda n: count(" ".join(words[:n])))
    cut = " ".join(words[:fitting])
    if not fitting:  # the first word is longer than the context, so the cut has to be inside it
        word = words[0] if words else text
        cut = word[: bisect_right(range(1, len(word) + 1), limit, key=lambda n: count(word[:n]))]
    notify(f"a text of {count(text)} tokens was cut to the {limit} the text tower reads, after {cut[-40:]!r}")
    return cut
