"""Resolve a name and a weight file to a model, and record the source of each of its properties."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ost.activity import activity
from ost.backbones.catalog import BACKBONES, DEFAULT
from ost.backbones.names import check_backbone, check_weights, is_backbone
from ost.backbones.spec import BackboneSpec, OpenClipSpec
from ost.errors import UsageError, WeightsError
from ost.types import Preprocess
from ost.weights.formats import Architecture, Weights, architecture, read_weights
from ost.weights.hub import fetch, show_licence_once
from ost.weights.pixels import clip_preprocess
from ost.weights.published import PUBLISHED, HubFile, open_clip_file

Notify = Callable[[str], None]
OPENAI = {  # (patch, width, image size) -> the weights that a fine-tuned CLIP of these sizes started from
    (16, 768, 224): "ViT-B-16/openai",
    (32, 768, 224): "ViT-B-32/openai",
    (14, 1024, 224): "ViT-L-14/openai",
    (14, 1024, 336): "ViT-L-14-336/openai",
}


@dataclass(frozen=True)
class ResolvedModel:
    """An open_clip model before its towers are built.

    Attributes:
        name: as the user gave it.
        file: the weight file on this machine.
        weights: the content of the file.
        model: the sizes of a CLIP with two transformers, or the name of an open_clip model.
        quick_gelu: the activation; an open_clip model takes it from its configuration.
        preprocess: the pixels that it takes.
        known_from: "weights", "architecture", "activation" and "pixels" -> the source of each, in words.
    """

    name: str
    file: Path
    weights: Weights
    model: Architecture | str
    quick_gelu: bool
    preprocess: Preprocess
    known_from: Mapping[str, str] = field(default_factory=dict[str, str])

    def explained(self) -> dict[str, str]:
        """Return each property in words, with its source."""
        pixels = self.preprocess
        resizing = "squashed" if pixels.resize is None else f"short side {pixels.resize}, then cropped"
        values = {
            "weights": f"{self.file}, SHA-256 {self.weights.hash[:12]}",
            "architecture": str(self.model),
            "activation": "QuickGELU" if self.quick_gelu else "GELU",
            "pixels": f"{pixels.size} px, {resizing}, {pixels.interpolation}, mean {_format_channels(pixels.mean)}, "
            f"std {_format_channels(pixels.std)}",
        }
        return {key: f"{value} ({self.known_from[key]})" for key, value in values.items()}


def resolve_model(
    name: str | None = None,
    weights: str | Path | None = None,
    notify: Notify = lambda _: None,
    argument: str = "weights",
) -> ResolvedModel:
    """Find and read the weights of a name or a file, and resolve architecture, activation and pixels.

    Where the tensors' shapes determine the whole architecture, they take precedence: a small CLIP under a known name is
    loaded with its real sizes. Any other architecture is taken from the name. Activation and pixels in the file take
    precedence over those that the name implies.

    Args:
        name: of the catalog, of open_clip ("ARCHITECTURE/TAG"), or an architecture for `weights`; by default
            OpenAI's ViT-B/16, or the architecture that the tensors of `weights` determine.
        weights: a published name, a name of the catalog, or a file.
        notify: called with notices, one sentence each.
        argument: the name of the weights' argument, for errors.

    Raises:
        UsageError: a name is unknown.
        WeightsError: a file cannot be downloaded or read, or its architecture or activation is unknown.
    """
    title = str(weights) if weights is not None else name or DEFAULT
    with activity(f"reading the weights {title}"):
        file, spec, source = _find_file(name, weights, notify, argument)
        return _resolve_properties(title, file, read_weights(file), spec, source)


def _find_file(
    name: str | None, weights: str | Path | None, notify: Notify, argument: str
) -> tuple[Path, OpenClipSpec | None, str]:
    """Return the weight file, the spec that a name implies, and the source of the file in words."""
    if weights is None:
        title = name or DEFAULT
        check_backbone(title)
        spec = _open_clip_only(title)
        if spec is None or spec.weights is None:
            raise UsageError(f"there are no weights of {title!r} on the hub that open_clip knows")
        return fetch(spec.weights, title, _named_remedy(title)), spec, f"the hub, {spec.weights.repo}"
    architecture_spec = _architecture_spec(name) if name else None
    file, implied = find_weights(weights, notify, argument)
    return (
        file,
        architecture_spec or implied,
        "the hub" if str(file) != str(weights) else "the file that was named",
    )


def named_weights(weights: str | Path, notify: Notify, argument: str = "weights") -> tuple[Path, Weights]:
    """Return the file of named weights or of a path, and its weights completed by what the name implies.

    Raises:
        UsageError, WeightsError: see `find_weights` and `ost.weights.formats.read_weights`.
    """
    file, spec = find_weights(weights, notify, argument)
    return file, completed(read_weights(file), spec)


def find_weights(
    weights: str | Path, notify: Notify, argument: str = "weights"
) -> tuple[Path, OpenClipSpec | None]:
    """Return the local file of named weights or of a path, and the spec that a name implies.

    Args:
        weights: a published name, a backbone's name, or a file.
        notify: called with notices.
        argument: the name of the argument, for errors.

    Raises:
        UsageError: it is neither a known name nor a file.
        WeightsError: it cannot be downloaded.
    """
    check_weights(weights)
    text, remedy = str(weights), f"{{{argument}=FILE}}"
    if text in PUBLISHED:
        published = PUBLISHED[text]
        file = fetch(published.weights, text, remedy)
        show_licence_once(text, published.licence, notify)
        return file, None
    spec = _open_clip_only(text) if is_backbone(text) else None
    if spec is None or spec.weights is None:
        return Path(text), None
    return fetch(spec.weights, text, _named_remedy(text) if argument == "weights" else remedy), spec


def _named_remedy(name: str) -> str:
    """Return the remedy that passes a backbone's file with its name: only the name tells the activation."""
    return f"{{backbone={name}}} {{weights=FILE}}"


def find_spec(name: str) -> BackboneSpec | None:
    """Return the spec of a name in the catalog or open_clip; an architecture alone gets its first weights."""
    if name in BACKBONES:
        return BACKBONES[name]
    if first := next((known for known in BACKBONES if known.startswith(f"{name}/")), None):
        return BACKBONES[first]
    return _open_clip_spec(*name.split("/")) if name.count("/") < 2 else None


def _open_clip_only(name: str) -> OpenClipSpec | None:
    """Return the spec like `find_spec`, and refuse backbones that take no other weights.

    Raises:
        UsageError: the backbone carries its own weights.
    """
    spec = find_spec(name)
    if spec is None or isinstance(spec, OpenClipSpec):
        return spec
    raise UsageError(
        f"the backbone {name} carries its own weights", f"name it with {{backbone={name}}} alone"
    )


def _open_clip_spec(name: str, tag: str | None = None) -> OpenClipSpec | None:
    """Return a spec for weights that open_clip publishes on the hub; None if there are none."""
    from open_clip import get_model_config, get_pretrained_cfg, list_pretrained_tags_by_model

    tag = tag or next(iter(list_pretrained_tags_by_model(name)), "")
    pretrained: dict[str, Any] = dict(get_pretrained_cfg(name, tag))
    config = get_model_config(name)
    if config is None or not pretrained.get("hf_hub"):
        return None
    repo, _, file = pretrained["hf_hub"].rpartition("/")
    size = int(config["vision_cfg"].get("image_size", 224))
    quick = pretrained.get("quick_gelu", False) and not name.endswith("-quickgelu")
    return OpenClipSpec(
        architecture=f"{name}-quickgelu" if quick else name,
        weights=HubFile(repo, (file,)) if file else open_clip_file(repo),
        preprocess=Preprocess(
            size=size,
            resize=None if pretrained["resize_mode"] == "squash" else size,
            interpolation=pretrained["interpolation"],
            antialias=True,
            mean=pretrained["mean"],
            std=pretrained["std"],
        ),
        context_length=int(config["text_cfg"].get("context_length", 77)),
        licence="see the hub",
    )


def _architecture_spec(name: str) -> OpenClipSpec:
    """Return the spec that a name implies for other weights, with exactly the architecture of that name."""
    from ost.backbones.clip import open_clip_config

    spec = _open_clip_only(name)
    if spec and (name in BACKBONES or "/" in name):
        return spec
    config = open_clip_config(name)
    if spec:
        return replace(spec, architecture=name)
    pixels = clip_preprocess(int(config["vision_cfg"].get("image_size", 224)))
    return OpenClipSpec(name, None, pixels, int(config["text_cfg"].get("context_length", 77)), "")


def completed(weights: Weights, spec: OpenClipSpec | None) -> Weights:
    """Return weights with model, activation and pixels from the spec where the file does not state them."""
    if spec is None:
        return weights
    quick_gelu = weights.quick_gelu
    if quick_gelu is None:
        quick_gelu = spec.architecture.endswith("-quickgelu")
    preprocess = weights.preprocess or spec.preprocess
    return replace(weights, model=spec.architecture, preprocess=preprocess, quick_gelu=quick_gelu)


def _resolve_properties(
    title: str, file: Path, read: Weights, spec: OpenClipSpec | None, source: str
) -> ResolvedModel:
    """Return the model with its activation and pixels, each with its source."""
    from ost.backbones.clip import is_determined_by_shapes, open_clip_config

    weights = completed(read, spec)
    by_name = "by its name" if spec is not None else "by the file"
    known_from = {
        "weights": source,
        "architecture": "by the shapes of its tensors",
        "activation": by_name if read.quick_gelu is None else "by the file",
        "pixels": by_name if read.preprocess is None else "by the file",
    }
    if weights.model and weights.preprocess:
        config = open_clip_config(weights.model)
        if not is_determined_by_shapes(config):
            quick = bool(config.get("quick_gelu", False))
            known_from |= {"architecture": by_name, "activation": "by the architecture's configuration"}
            return ResolvedModel(title, file, weights, weights.model, quick, weights.preprocess, known_from)
    sizes = architecture(weights, title)
    if weights.quick_gelu is None:
        raise WeightsError(
            f"{title}: does not state its activation",
            "name the architecture with {backbone=ViT-B-16-quickgelu}",
            "{backbone=ViT-B-16} for plain GELU",
        )
    preprocess = weights.preprocess or clip_preprocess(sizes.image_size)
    if weights.preprocess is None:
        known_from["pixels"] = "as OpenAI's, which most weights were trained with"
    scaled = _scaled(preprocess, sizes.image_size)
    return ResolvedModel(title, file, weights, sizes, weights.quick_gelu, scaled, known_from)


def _scaled(preprocess: Preprocess, size: int) -> Preprocess:
    if preprocess.size == size:
        return preprocess
    resize = None if preprocess.resize is None else preprocess.resize * size // preprocess.size
    return replace(preprocess, size=size, resize=resize)


def openai_name(weights: Weights) -> str:
    """Return the name of the OpenAI weights that a fine-tuned CLIP of these sizes started from.

    Raises:
        UsageError: OpenAI has none of these sizes.
    """
    sizes = architecture(weights)
    name = OPENAI.get((sizes.patch_size, sizes.vision_width, sizes.image_size))
    if name is None:
        raise UsageError(
            f"OpenAI has no CLIP of these sizes ({sizes})", "name the original weights with {blend_with}"
        )
    return name


def _format_channels(numbers: tuple[float, float, float]) -> str:
    return " ".join(f"{number:.3g}" for number in numbers)
