"""A backbone by name, with the weights it should have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ost.activity import activity
from ost.backbones.adapter import AdaptedBackbone, Adapter, read_adapter
from ost.backbones.base import Backbone
from ost.backbones.catalog import BACKBONES, DEFAULT, BackboneSpec
from ost.backbones.names import check_backbone, check_model, check_weights, is_adapter, is_backbone
from ost.device import resolve_device, resolve_dtype
from ost.errors import UsageError, WeightsError
from ost.types import Preprocess
from ost.weights.blend import blend
from ost.weights.formats import Architecture, Weights, architecture, read_weights
from ost.weights.hub import fetch, show_licence_once
from ost.weights.pixels import clip_preprocess
from ost.weights.published import PUBLISHED, HubFile, open_clip_file

Tell = Callable[[str], None]
Grow = Callable[[Weights], Weights]


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
    grow: Grow = lambda weights: weights,
) -> Backbone:
    """Build a backbone; its towers are filled when they are first used.

    Args:
        name: of the catalog, of open_clip ("ARCHITECTURE/TAG"), or an architecture for `weights`. By default
            OpenAI's ViT-B/16, or what the tensors of `weights` say.
        weights: a published name ("ost/k400"), a name of the catalog, or a file; an adapter's file is loaded over
            the backbone that it names.
        blend_ratio: share of the original weights in a WiSE-FT blend.
        original: a name or file to blend with; by default the OpenAI weights of the same sizes.
        device, dtype: see `ost.device`.
        tell: is given notices, one sentence each.
        grow: what training adds to the weights of a CLIP before its towers are built.

    Raises:
        UsageError: a name is unknown, or settings contradict each other.
        WeightsError: a file cannot be had, read, or does not fit.
    """
    check_model(name, weights, blend=blend_ratio, blend_with=original, device=device, dtype=dtype)
    if weights is not None and is_adapter(Path(weights)):
        adapter = read_adapter(Path(weights))
        base = load_backbone(*_base_of(adapter, name), device=device, dtype=dtype, tell=tell)
        return AdaptedBackbone(base, adapter, str(weights))
    if name == "lite":
        from ost.backbones.lite.backbone import LiteBackbone

        return LiteBackbone()
    chosen = _choose(name, weights, tell)
    if blend_ratio is not None:
        other = _choose(None, original or _openai_name(chosen.weights), tell, "blend_with")
        blended = blend(other.weights, chosen.weights, blend_ratio)
        chosen = Chosen(f"{chosen.name} + {blend_ratio:g} x {other.name}", blended, chosen.spec)
    torch_device = resolve_device(device)
    with activity("preparing the towers"):  # imports open_clip, which takes seconds
        from ost.backbones.clip import ClipBackbone

        model, quick_gelu, preprocess = _settle(chosen)
        return ClipBackbone(
            chosen.name,
            grow(chosen.weights),
            model,
            quick_gelu=quick_gelu,
            preprocess=preprocess,
            device=torch_device,
            dtype=resolve_dtype(dtype, torch_device),
        )


def _base_of(adapter: Adapter, name: str | None) -> tuple[str | None, str | None]:
    """Name and weights of the backbone under an adapter: as given, else as it was in training."""
    wanted = name or adapter.backbone
    return (wanted, None) if wanted == "lite" or find_spec(wanted) else (None, wanted)


def find_weights(
    weights: str | Path, tell: Tell, argument: str = "weights"
) -> tuple[Path, BackboneSpec | None]:
    """The local file of named weights or of a path, and the spec that a name implies.

    Args:
        weights: a published name, a backbone's name, or a file.
        tell: is given notices.
        argument: of which it is the value, for errors.

    Raises:
        UsageError: it is neither a known name nor a file.
        WeightsError: the hub does not give it.
    """
    check_weights(weights)
    text, remedy = str(weights), f"{{{argument}=FILE}}"
    if text in PUBLISHED:
        published = PUBLISHED[text]
        file = fetch(published.weights, text, remedy)
        show_licence_once(text, published.licence, tell)
        return file, None
    spec = find_spec(text) if is_backbone(text) else None
    if spec is None or spec.weights is None:
        return Path(text), None
    return fetch(spec.weights, text, _by_name(text) if argument == "weights" else remedy), spec


def _by_name(name: str) -> str:
    """How to give the file of a backbone: it does not tell its activation, the name does."""
    return f"{{backbone={name}}} {{weights=FILE}}"


def find_spec(name: str) -> BackboneSpec | None:
    """The catalog's or open_clip's entry of that name; an architecture alone gets its first weights."""
    if name in BACKBONES:
        return BACKBONES[name]
    if first := next((known for known in BACKBONES if known.startswith(f"{name}/")), None):
        return BACKBONES[first]
    return _open_clip_spec(*name.split("/")) if name.count("/") < 2 else None


def _open_clip_spec(name: str, tag: str | None = None) -> BackboneSpec | None:
    """A spec for any weights that open_clip publishes on the hub."""
    from open_clip import get_model_config, get_pretrained_cfg, list_pretrained_tags_by_model

    tag = tag or next(iter(list_pretrained_tags_by_model(name)), "")
    told: dict[str, Any] = dict(get_pretrained_cfg(name, tag))
    config = get_model_config(name)
    if config is None or not told.get("hf_hub"):
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
            mean=told["mean"],
            std=told["std"],
        ),
        context_length=int(config["text_cfg"].get("context_length", 77)),
        licence="see the hub",
    )


def _choose(name: str | None, weights: str | Path | None, tell: Tell, argument: str = "weights") -> Chosen:
    if weights is None:
        title = name or DEFAULT
        check_backbone(title)
        spec = find_spec(title)
        if spec is None or spec.weights is None:
            raise UsageError(f"there are no weights of {title!r} on the hub that open_clip knows")
        with activity(f"reading the weights {title}"):
            return Chosen(title, read_weights(fetch(spec.weights, title, _by_name(title))), spec)
    with activity(f"reading the weights {weights}"):
        spec = _architecture_spec(name) if name else None
        file, implied = find_weights(weights, tell, argument)
        return Chosen(str(weights), read_weights(file), spec or implied)


def _architecture_spec(name: str) -> BackboneSpec:
    """The spec that a name implies for weights from elsewhere: its architecture to the letter."""
    from ost.backbones.clip import open_clip_config

    spec = find_spec(name)
    if spec and (name in BACKBONES or "/" in name):
        return spec
    config = open_clip_config(name)
    if spec:
        return replace(spec, architecture=name)
    pixels = clip_preprocess(int(config["vision_cfg"].get("image_size", 224)))
    return BackboneSpec(name, None, pixels, int(config["text_cfg"].get("context_length", 77)), "")


def completed(weights: Weights, spec: BackboneSpec | None) -> Weights:
    """The weights with what their name implies, where the file does not tell: model, activation, pixels."""
    if spec is None:
        return weights
    quick_gelu = weights.quick_gelu
    if quick_gelu is None:
        quick_gelu = spec.architecture.endswith("-quickgelu")
    preprocess = weights.preprocess or spec.preprocess
    return replace(weights, model=spec.architecture, preprocess=preprocess, quick_gelu=quick_gelu)


def _settle(chosen: Chosen) -> tuple[Architecture | str, bool, Preprocess]:
    """The model, its activation and its pixels.

    Where the tensors' shapes tell the whole architecture, the file counts: a small CLIP under a known name is
    loaded as what it is. Any other architecture is what its name says.
    """
    from ost.backbones.clip import open_clip_config, told_by_shapes

    weights = completed(chosen.weights, chosen.spec)
    if weights.model and weights.preprocess and not told_by_shapes(open_clip_config(weights.model)):
        return weights.model, False, weights.preprocess
    sizes = architecture(weights, chosen.name)
    if weights.quick_gelu is None:
        raise WeightsError(
            f"{chosen.name}: does not tell its activation",
            "name the architecture with {backbone=ViT-B-16-quickgelu}",
            "{backbone=ViT-B-16} for plain GELU",
        )
    preprocess = weights.preprocess or clip_preprocess(sizes.image_size)
    return sizes, weights.quick_gelu, _scaled(preprocess, sizes.image_size)


def _scaled(preprocess: Preprocess, size: int) -> Preprocess:
    if preprocess.size == size:
        return preprocess
    resize = None if preprocess.resize is None else preprocess.resize * size // preprocess.size
    return replace(preprocess, size=size, resize=resize)


def original_of(weights: str | Path | None, original: str | Path | None, tell: Tell) -> str:
    """What fine-tuned weights started from: as given, or the OpenAI weights of the same sizes.

    Raises:
        UsageError: there are no fine-tuned weights, or OpenAI has none of their sizes.
        WeightsError: a file cannot be had or read.
    """
    if weights is None:
        raise UsageError("the untuned weights are those of fine-tuned ones", "name these with {weights}")
    return str(original or _openai_name(_choose(None, weights, tell).weights))


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
        raise UsageError(
            f"OpenAI has no CLIP of these sizes ({sizes})", "name the original weights with {blend_with}"
        )
    return name
