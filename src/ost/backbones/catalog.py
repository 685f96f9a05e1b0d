"""The catalog of backbones: where the weights of each are, and the pixels they take."""

from __future__ import annotations

from ost.backbones.spec import BackboneSpec, LiteSpec, OpenClipSpec
from ost.catalog import Catalog
from ost.types import Preprocess
from ost.weights.pixels import CLIP_MEAN, CLIP_STD, LITE_MEAN, LITE_STD, ONE, ZERO, clip_preprocess, squash
from ost.weights.published import open_clip_file


def _openai(name: str, repo: str, size: int = 224) -> OpenClipSpec:
    return OpenClipSpec(
        f"{name}-quickgelu", open_clip_file(repo), clip_preprocess(size), 77, "MIT", "OpenAI CLIP"
    )


def _pe(name: str, size: int, context: int = 32) -> OpenClipSpec:
    file = open_clip_file(f"timm/{name}")
    return OpenClipSpec(
        name, file, squash(size, "bilinear"), context, "Apache-2.0", "Meta Perception Encoder"
    )


def _siglip2(name: str, size: int) -> OpenClipSpec:
    file = open_clip_file(f"timm/{name}")
    return OpenClipSpec(
        name, file, squash(size, "bicubic"), 64, "Apache-2.0", "Google SigLIP 2, multilingual"
    )


def _mobileclip2(name: str, size: int, clip_pixels: bool) -> OpenClipSpec:
    mean, std = (CLIP_MEAN, CLIP_STD) if clip_pixels else (ZERO, ONE)
    interpolation = "bicubic" if name.endswith("L-14") else "bilinear"
    pixels = Preprocess(size, size, interpolation, True, mean, std)
    file = open_clip_file(f"timm/{name}-OpenCLIP")
    return OpenClipSpec(name, file, pixels, 77, "Apple AMLR (research)", "Apple MobileCLIP2, fast on phones")


LITE = LiteSpec(Preprocess(260, 260, "bicubic", True, LITE_MEAN, LITE_STD))

DEFAULT = "ViT-B-16/openai"

BACKBONES: Catalog[BackboneSpec] = Catalog(
    "backbone",
    {
        "lite": LITE,
        "ViT-B-16/openai": _openai("ViT-B-16", "timm/vit_base_patch16_clip_224.openai"),
        "ViT-B-32/openai": _openai("ViT-B-32", "timm/vit_base_patch32_clip_224.openai"),
        "ViT-L-14/openai": _openai("ViT-L-14", "timm/vit_large_patch14_clip_224.openai"),
        "ViT-L-14-336/openai": _openai("ViT-L-14-336", "timm/vit_large_patch14_clip_336.openai", 336),
        "PE-Core-T-16-384/meta": _pe("PE-Core-T-16-384", 384),
        "PE-Core-S-16-384/meta": _pe("PE-Core-S-16-384", 384),
        "PE-Core-B-16/meta": _pe("PE-Core-B-16", 224),
        "PE-Core-L-14-336/meta": _pe("PE-Core-L-14-336", 336),
        "PE-Core-bigG-14-448/meta": _pe("PE-Core-bigG-14-448", 448, 72),
        "ViT-B-32-SigLIP2-256/webli": _siglip2("ViT-B-32-SigLIP2-256", 256),
        "ViT-B-16-SigLIP2/webli": _siglip2("ViT-B-16-SigLIP2", 224),
        "ViT-L-16-SigLIP2-256/webli": _siglip2("ViT-L-16-SigLIP2-256", 256),
        "ViT-SO400M-14-SigLIP2/webli": _siglip2("ViT-SO400M-14-SigLIP2", 224),
        "MobileCLIP2-S0/dfndr2b": _mobileclip2("MobileCLIP2-S0", 256, False),
        "MobileCLIP2-S2/dfndr2b": _mobileclip2("MobileCLIP2-S2", 256, False),
        "MobileCLIP2-B/dfndr2b": _mobileclip2("MobileCLIP2-B", 224, False),
        "MobileCLIP2-S3/dfndr2b": _mobileclip2("MobileCLIP2-S3", 256, True),
        "MobileCLIP2-S4/dfndr2b": _mobileclip2("MobileCLIP2-S4", 256, True),
        "MobileCLIP2-L-14/dfndr2b": _mobileclip2("MobileCLIP2-L-14", 224, True),
    },
    group="ost.backbones",
)
