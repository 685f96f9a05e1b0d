"""Load a backbone by name or weights, with a blend or an adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ost.backbones.adapted import AdaptedBackbone
from ost.backbones.adapter import Adapter, read_adapter
from ost.backbones.base import Backbone
from ost.backbones.catalog import DEFAULT
from ost.backbones.names import check_model, is_adapter
from ost.backbones.resolve import Notify, find_spec, named_weights, openai_name, resolve_model
from ost.backbones.spec import Build
from ost.errors import UsageError
from ost.weights.blend import blend as blend_weights
from ost.weights.formats import Weights

Grow = Callable[[Weights], Weights]


def load_backbone(
    name: str | None = None,
    weights: str | Path | None = None,
    *,
    blend: float | None = None,
    blend_with: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    notify: Notify = lambda _: None,
    grow: Grow = lambda weights: weights,
) -> Backbone:
    """Build a backbone; its towers are loaded on first use.

    Args:
        name: of the catalog, of open_clip ("ARCHITECTURE/TAG"), or an architecture for `weights`. By default
            OpenAI's ViT-B/16, or the architecture that the tensors of `weights` determine.
        weights: a published name ("ost/k400"), a name of the catalog, or a file; an adapter's file is loaded over
            the backbone that it names.
        blend: share of the original weights in a WiSE-FT blend.
        blend_with: a name or file to blend with; by default the OpenAI weights of the same sizes.
        device, dtype: see `ost.device`.
        notify: called with notices, one sentence each.
        grow: adds tensors of training to the weights of a CLIP before its towers are built.

    Raises:
        UsageError: a name is unknown, or settings contradict each other.
        WeightsError: a file cannot be downloaded or read, or does not fit.
    """
    check_model(name, weights, blend=blend, blend_with=blend_with, device=device, dtype=dtype)
    if weights is not None and is_adapter(Path(weights)):
        adapter = read_adapter(Path(weights))
        base = load_backbone(*_backbone_under(adapter, name), device=device, dtype=dtype, notify=notify)
        return AdaptedBackbone(base, adapter, str(weights))
    build = Build(name or DEFAULT, device, dtype, notify, grow)
    if weights is None and (spec := find_spec(build.name)) is not None:
        return spec.build(build)
    resolved = resolve_model(name, weights, notify)
    if blend is not None:
        other = str(blend_with or openai_name(resolved.weights))
        _, start = named_weights(other, notify, "blend_with")
        blended = blend_weights(start, resolved.weights, blend)
        title = f"{resolved.name} + {blend:g} x {other}"
        resolved = replace(resolved, name=title, weights=blended)
    from ost.backbones.clip import build_clip

    return build_clip(resolved, build)


def _backbone_under(adapter: Adapter, name: str | None) -> tuple[str | None, str | None]:
    """Return (name, weights) of the backbone under an adapter: `name` if given, else that of training."""
    source = name or adapter.backbone
    return (source, None) if find_spec(source) else (None, source)


def original_of(weights: str | Path | None, original: str | Path | None, notify: Notify) -> str:
    """Return the weights that fine-tuned ones started from: `original`, or the OpenAI weights of the same sizes.

    Raises:
        UsageError: there are no fine-tuned weights, or OpenAI has none of their sizes.
        WeightsError: a file cannot be downloaded or read.
    """
    if weights is None:
        raise UsageError("the untuned weights are those of fine-tuned ones", "name these with {weights}")
    return str(original or openai_name(named_weights(weights, notify)[1]))
