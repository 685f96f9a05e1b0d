"""Check a pack: its counts, lengths, tokens and faults, and the separability of its classes."""

from __future__ import annotations

from dataclasses import dataclass

from ost.backbones.tokens import text_context
from ost.descriptors.faults import pack_faults, prompt_tokens
from ost.descriptors.pack import Pack
from ost.evaluate.separability import Embed, Separability, separability
from ost.types import BOTH, Kind

CONTEXTS = (77, 32)  # context lengths of the text towers of CLIP and PE-Core


@dataclass(frozen=True)
class PackReport:
    """The report on a pack.

    Attributes:
        pack: the pack.
        counts: per kind, the least and the most descriptors of a class.
        words: per kind, the least, mean and most words of a descriptor.
        longest: tokens of the longest prompt, by CLIP's tokenizer and templates.
        too_long: context length -> number of prompts that exceed it.
        faults: one sentence each; empty if there are none.
        separability: None for a pack of one class.
    """

    pack: Pack
    counts: dict[Kind, tuple[int, int]]
    words: dict[Kind, tuple[int, float, int]]
    longest: int
    too_long: dict[int, int]
    faults: tuple[str, ...]
    separability: Separability | None


def check_pack(pack: Pack, embed: Embed) -> PackReport:
    """Return the report on a pack; `embed` returns unit embeddings [n, D] of texts."""
    context = text_context()
    tokens = [n for item in pack.classes for n in prompt_tokens(item, context)]
    counts: dict[Kind, tuple[int, int]] = {}
    words: dict[Kind, tuple[int, float, int]] = {}
    for kind in BOTH:
        sizes = [len(getattr(item, kind)) for item in pack.classes]
        lengths = [len(text.split()) for item in pack.classes for text in getattr(item, kind)] or [0]
        counts[kind] = min(sizes), max(sizes)
        words[kind] = min(lengths), sum(lengths) / len(lengths), max(lengths)
    return PackReport(
        pack,
        counts,
        words,
        max(tokens),
        {limit: sum(n > limit for n in tokens) for limit in CONTEXTS},
        tuple(pack_faults(pack, context)),
        separability(pack, embed) if len(pack) > 1 else None,
    )
