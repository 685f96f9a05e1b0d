"""Size, published accuracy and speed of the backbones of the catalog, for lists."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Figures(NamedTuple):
    """The figures of one backbone.

    Attributes:
        parameters: millions, of both towers.
        imagenet: published zero-shot top-1 on ImageNet-1k in %; None where there is none. From open_clip's table
            (OpenAI), and from the authors' own (Perception Encoder, SigLIP 2, MobileCLIP2).
        frames: frames a second through the image tower, in fp32 on two CPU cores (`benchmarks/backbone_speed.py`).
    """

    parameters: float
    imagenet: float | None
    frames: float


@cache
def figures() -> dict[str, Figures]:
    """Return the figures by name of the backbone."""
    text = (files("ost.backbones") / "figures.csv").read_text(encoding="utf-8")
    return {
        row["name"]: Figures(
            float(row["parameters"]),
            float(row["imagenet"]) if row["imagenet"] else None,
            float(row["frames"]),
        )
        for row in csv.DictReader(text.splitlines())
    }
