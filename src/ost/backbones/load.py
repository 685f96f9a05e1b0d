"""A backbone by name, with the weights it should have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ost.backbones.base import Backbone
from ost.backbones.catalog import (
    BACKBONES,
    DEFAULT,
    PUBLISHED,
    BackboneSpec,
    HubFile,
    clip_preprocess,
    open_clip_file,
)
from ost.backbones.hub import fetch, show_licence_once
from ost.backbones.weights import Architecture, Weights, architecture, blend, read_weights
from ost.catalog import did_you_mean
from ost.errors import UsageError, WeightsError
from ost.runtime import resolve_device, resolve_dtype
from ost.types import Preprocess

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Chosen:
    """Weights, read, and what is known of the model they belong to."""

    name: str
    weights: Weights
    spec: BackboneSpec | None


def load_backbone(
    name: str | None = None,
    weights: str | Path | None = None,
    *,
    blend_ratio: float | None = None,
    original: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    tell: Tell = lambda _: None,
) -> Backbone:
    """Build a backbone; its towers are filled when they are first used.

    Args:
        name: of the catalog, of open_clip ("ARCHITECTURE/TAG"), or an architecture for `weights`. By default
            OpenAI's ViT-B/16, or what the tensors of `weights` say.
        weights: a published name ("ost/k400"), a name of the catalog, or a file.
        blend_ratio: share of the original weights in a WiSE-FT blend.
        original: a name or file to blend with; by default the OpenAI weights of the same sizes.
        device, dtype: see `ost.runtime`.
        tell: is given notices, one sentence each.

    Raises:
        UsageError: a name is unknown, or settings contradict each other.
        WeightsError: a file cannot be had, read, or does not fit.
    """
    if name == "lite":
        if weights is not None or blend_ratio is not None:
            raise UsageError("the backbone lite carries its own weights; leave --weights and --blend out")
        from ost.backbones.lite import LiteBackbone

        return LiteBackbone()
    if blend_ratio is not None and weights is None:
        raise UsageError(
            "a blend needs fine-tuned weights to blend the original with; name them with --weights"
        )
    from ost.backbones.clip import ClipBackbone

    chosen = _choose(name, weights, tell)
    if blend_ratio is not None:
        other = _choose(None, original or _openai_name(chosen.weights), tell)
        blended = blend(other.weights, chosen.weights, blend_ratio)
        chosen = Chosen(f"{chosen.name} + {blend_ratio:g} x {other.name}", blended, chosen.spec)
    torch_device = resolve_device(device)
    model, quick_gelu, preprocess = _settle(chosen)
    return ClipBackbone(
        chosen.name,
        chosen.weights,
        model,
        quick_gelu=quick_gelu,
        preprocess=preprocess,
        device=torch_device,
        dtype=resolve_dtype(dtype, torch_device),
    )


def find_weights(weights: str | Path, tell: Tell) -> tuple[Path, BackboneSpec | None]:
    """The local file of named weights or of a path, and the spec that a name implies.

    Raises:
        UsageError: it is neither a known name nor a file.
        WeightsError: the hub does not give it.
    """
    text = str(weights)
    if text in PUBLISHED:
        published = PUBLISHED[text]
        show_licence_once(text, published.licence, tell)
        return fetch(published.weights, text), None
    if not Path(text).exists():
        if text.startswith("ost/"):
            PUBLISHED.find(text)  # says what is meant
        spec = find_spec(text)
        if spec is not None and spec.weights is not None:
            return fetch(spec.weights, text), spec
        known = [*PUBLISHED, *BACKBONES]
        raise UsageError(f"{text!r} is neither a weight file nor a known name{did_you_mean(text, known)}")
    return Path(text), None


def find_spec(name: str) -> BackboneSpec | None:
    """The catalog's or open_clip's entry of that name; an architecture alone gets its first weights."""
    if name in BACKBONES:
        return BACKBONES[name]
    if first := next((known for known in BACKBONES if known.startswith(f"{name}/")), None):
        return BACKBONES[first]
    architecture_name, _, tag = name.partition("/")
    return _open_clip_spec(architecture_name, tag) if tag else None


def _open_clip_spec(name: str, tag: str) -> BackboneSpec | None:
    """A spec for any weights that open_clip publishes on the hub."""
    from open_clip import get_model_config, get_pretrained_cfg

    told, config = get_pretrained_cfg(name, tag), get_model_config(name)
    if not told or config is None or not told.get("hf_hub"):
        return None
    repo, _, file = told["hf_hub"].rpartition("/")
    size = int(config["vision_cfg"].get("image_size", 224))
    quick = told.get("quick_gelu", False) and not name.endswith("-quickgelu")
    return BackboneSpec(
        architecture=f"{name}-quickgelu" if quick else name,
        weights=HubFile(repo, (file,)) if file else open_clip_file(repo),
        preprocess=Preprocess(
            size=size,
            resize=None if told["resize_mode"] == "squash" else size,
            interpolation=told["interpolation"],
            antialias=True,
            mean=tuple(told["mean"]),
            std=tuple(told["std"]),
        ),
        context_length=int(config["text_cfg"].get("context_length", 77)),
        licence="see the hub",
    )


def _choose(name: str | None, weights: str | Path | None, tell: Tell) -> Chosen:
    spec = find_spec(name) if name else None
    if weights is None:
        spec = spec or (BACKBONES[DEFAULT] if name is None else None)
        if spec is None or spec.weights is None:
            raise UsageError(
                f"there is no backbone {name!r}{did_you_mean(str(name), list(BACKBONES))}; "
                "a model of open_clip is named ARCHITECTURE/TAG, as in ViT-B-32/laion2b_s34b_b79k"
            )
        title = name or DEFAULT
        return Chosen(title, read_weights(fetch(spec.weights, title)), spec)
    file, implied = find_weights(weights, tell)
    if name and spec is None and implied is None:
        spec = BackboneSpec(name, None, clip_preprocess(224), 77, "")
    return Chosen(str(weights), read_weights(file), spec or implied)


def completed(weights: Weights, spec: BackboneSpec | None) -> Weights:
    """The weights with the activation and pixels that their name implies, where the file does not tell."""
    if spec is None:
        return weights
    quick_gelu = weights.quick_gelu
    if quick_gelu is None:
        quick_gelu = spec.architecture.endswith("-quickgelu")
    return replace(weights, preprocess=weights.preprocess or spec.preprocess, quick_gelu=quick_gelu)


def _settle(chosen: Chosen) -> tuple[Architecture | str, bool, Preprocess]:
    """The model, its activation and its pixels: what the file tells counts, then what the name implies."""
    weights = completed(chosen.weights, chosen.spec)
    if "visual.conv1.weight" not in weights.state or "token_embedding.weight" not in weights.state:
        if chosen.spec is None:
            raise WeightsError(
                f"{chosen.name}: is not a CLIP with two transformers, nor do its tensors tell what it is; "
                "name its architecture with --backbone"
            )
        return chosen.spec.architecture, False, weights.preprocess or chosen.spec.preprocess
    sizes = architecture(weights, chosen.name)
    if weights.quick_gelu is None:
        raise WeightsError(
            f"{chosen.name}: does not tell its activation; name the architecture with --backbone "
            "(ViT-B-16-quickgelu, or ViT-B-16 for OpenAI's)"
        )
    preprocess = weights.preprocess
    if preprocess is None or preprocess.size != sizes.image_size:
        preprocess = clip_preprocess(sizes.image_size)
    return sizes, weights.quick_gelu, preprocess


def _openai_name(weights: Weights) -> str:
    """The OpenAI weights that a fine-tuned CLIP of these sizes started from."""
    sizes = architecture(weights)
    names = {
        (16, 768, 224): "ViT-B-16/openai",
        (32, 768, 224): "ViT-B-32/openai",
        (14, 1024, 224): "ViT-L-14/openai",
        (14, 1024, 336): "ViT-L-14-336/openai",
    }
    name = names.get((sizes.patch_size, sizes.vision_width, sizes.image_size))
    if name is None:
        raise UsageError(f"OpenAI has no CLIP of these sizes ({sizes}); say what to blend with --blend-with")
    return name
