"""What each part of the method does: names or descriptors, of which kind, pooled or transported; one pass for all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from ost.backbones.base import Backbone
from ost.descriptors.pack import Pack, PackClass
from ost.evaluate.run import Question, answer
from ost.evaluate.summary import Summary, summary
from ost.recognition.recognizer import Settings
from ost.types import BOTH


class Way(NamedTuple):
    """One way of matching, and its numbers."""

    texts: str
    matched: str
    numbers: Summary


def ablation(backbone: Backbone, questions: Sequence[Question], settings: Settings) -> Iterator[Way]:
    """Numbers of every way, the embeddings being in the store after the first.

    "mean" of names is ViFi-CLIP's: mean-pooled frames against one prompt a class. "mean" of descriptors is the pooled
    score alone, the limit of transport at infinite eps.

    Args:
        backbone, questions: as for `answer`.
        settings: sampling, and the eps of transport.
    """
    named = [replace(q, pack=_names_alone(q.pack)) for q in questions]
    pooled = replace(settings, method="ot", eps=math.inf)
    transported = replace(settings, method="ot")
    yield Way("names", "mean", summary(answer(backbone, named, replace(settings, method="mean"))))
    yield Way(
        "names", "transport", summary(answer(backbone, named, replace(transported, kinds=("spatial",))))
    )
    for texts, kinds in (("spatial", ("spatial",)), ("temporal", ("temporal",)), ("both", BOTH)):
        for matched, how in (("mean", pooled), ("transport", transported)):
            found = answer(backbone, questions, replace(how, kinds=kinds))  # pyright: ignore[reportArgumentType]
            yield Way(texts, matched, summary(found))


def _names_alone(pack: Pack) -> Pack:
    """Without descriptors every kind of prompt is the template around the name."""
    return Pack(pack.name, tuple(PackClass(item.name, label=item.label) for item in pack.classes))
