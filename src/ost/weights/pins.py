"""The revisions of hub repositories that names stand for, and the SHA-256 of their files.

Each revision and each hash was stated alike by at least two independent public sources when it was written down here.
A repository that is missing here is read at its branch "main".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Pin:
    """The revision at which a repository is read.

    Attributes:
        revision: a commit, or the branch "main".
        sha256: file name -> SHA-256 of its content, hexadecimal, where it is known.
    """

    revision: str = "main"
    sha256: Mapping[str, str] = field(default_factory=dict[str, str])


def _safetensors(revision: str, sha256: str) -> Pin:
    return Pin(revision, {"open_clip_model.safetensors": sha256})


PINS: dict[str, Pin] = {
    "timm/vit_base_patch16_clip_224.openai": _safetensors(
        "977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d",
        "4b8699299b1e8997753c64b052ba32031449d5d853f55a039148560ee02b820f",
    ),
    "timm/vit_base_patch32_clip_224.openai": _safetensors(
        "a6f597a30f7b82c51704746581f9a4e41421e878",
        "e6d1bd7789aa45192b3bf90570a789b478bae1b74ebcce7eddd908e83a2b7c31",
    ),
    "timm/vit_large_patch14_clip_224.openai": Pin("18d0535469bb561bf468d76c1d73aa35156c922b"),
    "timm/vit_large_patch14_clip_336.openai": Pin("81e38efc4637de5023b10e75a7f9bd1c6fa6b010"),
    "timm/PE-Core-L-14-336": Pin("8eff41b3f687e50a323662c2dda5eb3588c6dd35"),
    "timm/ViT-B-16-SigLIP2": Pin("eee10eff6dd8cabae2d7f379d4e8cfcd352030aa"),
    "timm/MobileCLIP2-S0-OpenCLIP": _safetensors(
        "095906d28bf54d7584dc411e8ffe448f34289e05",
        "ab91a1a0c4330d6b1913e24d5035dfdea15423316aaec649610c6b1c6ddd0e95",
    ),
}
