"""Measure the separability of a pack's classes in a text tower (OST, CVPR 2024, section 3.1).

The paper argues that descriptors help because class names alone lie too close together: the mean cosine over
all pairs of classes falls from .80 (names) to .69 (descriptors) on Kinetics-400 with CLIP's text tower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ost.descriptors.pack import Pack
from ost.types import BOTH, Kind

CLOSEST = 20

Embed = Callable[[Sequence[str]], Tensor]


class Pair(NamedTuple):
    """Two classes and their cosines: of descriptors (mean of both kinds) and of names."""

    first: str
    second: str
    descriptors: float
    names: float


@dataclass(frozen=True)
class Separability:
    """Cosines between the classes of a pack.

    Attributes:
        cosines: per kind ("name", "spatial", "temporal"), fp32 [A, A].
        mean: per kind, the mean over all pairs of different classes.
        own_name: per kind of descriptors, the share of classes whose nearest class name is their own.
        closest: the pairs with the highest cosines of descriptors, highest first.
    """

    cosines: dict[Kind, Tensor]
    mean: dict[Kind, float]
    own_name: dict[Kind, float]
    closest: tuple[Pair, ...]


def separability(pack: Pack, embed: Embed) -> Separability:
    """Return the separability of a pack of at least two classes, from names and descriptors without templates.

    A class is the mean of the unit embeddings of its descriptors, normalised. A class without descriptors of a kind
    is represented by its name.

    Args:
        pack: the A classes.
        embed: texts -> unit embeddings [n, D].
    """
    classes: dict[Kind, Tensor] = {"name": embed(pack.names).float()}
    for kind in BOTH:
        texts: list[tuple[str, ...]] = [getattr(item, kind) or (item.name,) for item in pack.classes]
        flat = embed([text for row in texts for text in row]).float()
        means = [part.mean(0) for part in flat.split([len(row) for row in texts])]
        classes[kind] = normalize(torch.stack(means), dim=-1)
    cosines: dict[Kind, Tensor] = {kind: (values @ values.T).cpu() for kind, values in classes.items()}
    pairs = tuple(torch.triu_indices(len(pack), len(pack), 1))
    own_name: dict[Kind, float] = {}
    for kind in BOTH:
        nearest = (classes[kind] @ classes["name"].T).argmax(1).cpu()
        own_name[kind] = (nearest == torch.arange(len(pack))).float().mean().item()
    return Separability(
        cosines,
        {kind: float(values[pairs].mean()) for kind, values in cosines.items()},
        own_name,
        _closest(pack, cosines, pairs),
    )


def _closest(pack: Pack, cosines: dict[Kind, Tensor], pairs: tuple[Tensor, ...]) -> tuple[Pair, ...]:
    both = torch.stack([cosines[kind][pairs] for kind in BOTH]).mean(0)
    first, second = pairs
    return tuple(
        Pair(
            pack.names[int(first[i])],
            pack.names[int(second[i])],
            both[i].item(),
            cosines["name"][first[i], second[i]].item(),
        )
        for i in both.topk(min(CLOSEST, len(both))).indices.tolist()
    )
