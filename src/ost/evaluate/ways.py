"""Define the ways of matching to compare: which texts represent a class, and how they are matched with frames."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ost.recognition.settings import EPS, Match, Settings
from ost.types import BOTH, Kind

Texts = Literal["names", "spatial", "temporal", "both"]
Matched = Literal["mean-pool", "mean", "transport"]
TEXTS: tuple[Texts, ...] = ("names", "spatial", "temporal", "both")
KINDS_OF_TEXTS: dict[Texts, tuple[Kind, ...]] = {
    "names": ("name",),
    "spatial": ("spatial",),
    "temporal": ("temporal",),
    "both": BOTH,
}


@dataclass(frozen=True)
class Way:
    """One way of matching.

    Attributes:
        texts: the prompts that represent a class; "names" is one prompt with the name alone.
        matched: "mean-pool" averages the frames and compares them with the name, as ViFi-CLIP does; "mean" is the
            mean of all similarities, the limit of transport at infinite eps; "transport" adds the transported score.
        eps: entropic weight of the transport; ignored by the others.
    """

    texts: Texts
    matched: Matched
    eps: float = EPS

    def __str__(self) -> str:
        return f"{self.texts}, {self.matched}"

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Return the kinds of prompts to match."""
        return KINDS_OF_TEXTS[self.texts]

    @property
    def match(self) -> Match:
        """Return the `match` argument of `ost.match`."""
        return "mean" if self.matched == "mean-pool" else "ot"

    @property
    def weight(self) -> float:
        """Return the `eps` argument of `match`."""
        return math.inf if self.matched == "mean" else self.eps


MEAN_POOL = Way("names", "mean-pool")


def way_of(settings: Settings) -> Way:
    """Return the way of matching that settings select."""
    if settings.match == "mean":
        return MEAN_POOL
    texts: Texts = next(texts for texts in TEXTS if set(KINDS_OF_TEXTS[texts]) == set(settings.kinds))
    return Way(texts, "mean") if settings.eps == math.inf else Way(texts, "transport", settings.eps)


def ablation(eps: float = EPS) -> tuple[Way, ...]:
    """Return every way of matching: names, spatial, temporal and both, each pooled and transported."""
    ways: list[Way] = []
    for texts in TEXTS:
        ways += [MEAN_POOL if texts == "names" else Way(texts, "mean"), Way(texts, "transport", eps)]
    return tuple(ways)
