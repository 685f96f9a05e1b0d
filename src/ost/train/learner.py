"""Select the parameters of a backbone that a regime trains, and compute embeddings that gradients flow through."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ost.backbones.clip import ClipBackbone
from ost.backbones.extras import draw_prompts, draw_temporal
from ost.backbones.load import load_backbone
from ost.descriptors.pack import Pack
from ost.descriptors.prompts import prompts
from ost.device import cpu_has_fast_bf16
from ost.errors import UsageError, WeightsError
from ost.train.config import TrainConfig
from ost.train.data import TowerBatch
from ost.types import ClassHead, Descriptors, Kind
from ost.video.augment import Augmentation, recolour
from ost.weights.formats import Weights
from ost.weights.hub import LITE_REMEDIES

# Newly initialised parameters train at the full learning rate, pretrained ones at `tower_lr` times it.
NEW = ("prompts.", "temporal.", "lora.")


def grown(config: TrainConfig) -> Any:
    """Return the function that adds new parameters to the weights, as `load_backbone` takes it."""

    def grow(weights: Weights) -> Weights:
        state = dict(weights.state)
        if config.prompt_count and "prompts.visual" not in state:
            state |= draw_prompts(weights, config.prompt_layers, config.prompt_count, config.seed)
        if config.temporal_layers and "temporal.positions" not in state:
            width = _width(weights)
            state |= draw_temporal(config.frames, width, config.temporal_layers, config.seed)
        return replace(weights, state=state)

    return grow


def _width(weights: Weights) -> int:
    projection = weights.state.get("text_projection", weights.state.get("text.text_projection"))
    if projection is None or projection.ndim != 2:
        raise UsageError(
            "a transformer over time needs a CLIP with a plain text projection, such as ViT-B-16"
        )
    return int(projection.shape[1])


def load_learner(
    config: TrainConfig, pack: Pack, device: str, augmentation: Augmentation, notify: Any
) -> Learner:
    """Load the backbone of a config and select the parameters that its regime trains.

    Raises:
        UsageError: the backbone has no towers that can be trained.
    """
    try:
        backbone = load_backbone(
            config.named_backbone,
            config.weights,
            device=device,
            dtype="fp32",
            notify=notify,
            grow=grown(config),
        )
    except WeightsError as error:  # lite is no remedy here: its towers cannot be trained
        others = [remedy for remedy in error.remedies if remedy not in LITE_REMEDIES]
        raise WeightsError(error.fault, *others) from error
    if (towers := backbone.trainable()) is None:
        raise UsageError(
            f"the towers of {backbone.name} cannot be trained",
            "train an adapter over them: ost train adapter",
        )
    return Learner(towers, config, pack, augmentation)


@dataclass(frozen=True)
class Prompted:
    """The tokenised prompts of one kind.

    Attributes:
        tokens: int64 [A, N, L], padded rows zero.
        mask: bool [A, N].
    """

    tokens: Tensor
    mask: Tensor


class Learner:
    """A backbone in training.

    The towers stay in evaluation mode: without dropout, computing a chunk twice gives the same embeddings, and no
    running statistic depends on a batch.

    Args:
        backbone: fp32; its towers are trained in place.
        config: the settings, which select the trained parameters.
        pack: the classes.
        augmentation: its colour part is applied on the device.
    """

    def __init__(
        self, backbone: ClipBackbone, config: TrainConfig, pack: Pack, augmentation: Augmentation
    ) -> None:
        self.backbone, self.config, self.pack = backbone, config, pack
        self.augmentation = augmentation
        self.trains_image = config.tune in ("both", "image", "prompts", "lora")
        self.trains_text = config.tune in ("both", "text", "prompts", "lora")
        self.autocasts = _uses_bf16(config, backbone.device)
        if config.tune == "lora":
            from ost.train.lora import inject

            inject(backbone, config.lora_rank, config.seed)
        self.parameters = dict(self._trained_parameters())
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        if config.checkpointing:
            for tower in (backbone.visual, backbone.text.transformer):
                _enable_checkpointing(tower, backbone.name)
        self._visual: Any = torch.compile(backbone.visual) if config.compile else backbone.visual
        self._text_embeddings: dict[Kind, Tensor] | None = None
        notices: list[str] = []
        self.prompted = {kind: self._tokenise(kind, notices.append) for kind in config.kinds}
        self.notices = tuple(dict.fromkeys(notices))

    @property
    def device(self) -> torch.device:
        """Return the device of the backbone."""
        return self.backbone.device

    @property
    def width(self) -> int:
        """Return D, the width of an embedding."""
        return self.backbone.width

    @property
    def log_scale(self) -> Tensor:
        """Return the logarithm of the logit scale, a parameter."""
        return self.backbone.text.logit_scale

    @property
    def scale(self) -> Tensor:
        """Return the logit scale s."""
        return self.log_scale.exp()

    def clamp_scale(self) -> None:
        """Clamp the logit scale to `max_scale`, and update the copy that the backbone holds as a number."""
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(self.config.max_scale))
        self.backbone.logit_scale = float(self.scale.detach())

    def precision(self) -> AbstractContextManager[Any]:
        """Return the autocast context of the towers; the weights stay fp32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocasts)

    def embed_chunk(self, chunk: TowerBatch) -> Tensor:
        """Embed a chunk: unnormalised [c, T, D], fp32."""
        with self.precision():
            pixels = torch.cat([self._pixels(clip, colour) for clip, colour in _clips(chunk)])
            raw = self._visual(self.backbone.moved(pixels)).float()
            return self.backbone.over_time(raw.unflatten(0, chunk.pixels.shape[:2]))

    def _pixels(self, clip: Tensor, colour: Any) -> Tensor:
        moved = clip.to(self.device, non_blocking=True)
        return self.backbone.preprocess.normalised(recolour(moved, colour, self.augmentation))

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Embed tokens [m, L]: unnormalised [m, D], fp32."""
        with self.precision():
            return self.backbone.encode_tokens(tokens)

    def text_rows(self, kind: Kind, classes: Sequence[int]) -> Tensor:
        """Return the prompts of some classes as tokens [m, L], class by class."""
        prompted = self.prompted[kind]
        rows = list(classes)
        return prompted.tokens[rows][prompted.mask[rows]]

    def head(self, classes: Sequence[int], raw: dict[Kind, Tensor]) -> ClassHead:
        """Return a class head with scale 1 from unnormalised text embeddings, in the order of `text_rows`."""
        rows = list(classes)
        kinds: dict[Kind, Descriptors] = {}
        for kind, flat in raw.items():
            mask = self.prompted[kind].mask[rows].to(flat.device)
            values = flat.new_zeros(*mask.shape, flat.shape[-1])
            values = values.masked_scatter(mask[..., None], normalize(flat, dim=-1))
            kinds[kind] = Descriptors(values, mask, tuple(() for _ in rows))
        return ClassHead(tuple(self.pack.names[a] for a in rows), kinds, 1.0)

    def frozen_texts(self, classes: Sequence[int]) -> dict[Kind, Tensor]:
        """Return unnormalised text embeddings of some classes from a frozen text tower, computed once and kept."""
        if self._text_embeddings is None:
            all_classes = range(len(self.pack))
            with torch.no_grad():
                self._text_embeddings = {
                    kind: torch.cat(
                        [self.embed_tokens(part) for part in self.text_rows(kind, all_classes).split(16)]
                    )
                    for kind in self.config.kinds
                }
        rows: dict[Kind, Tensor] = {}
        for kind, flat in self._text_embeddings.items():
            counts = self.prompted[kind].mask.sum(1).tolist()
            parts = flat.split(counts)
            rows[kind] = torch.cat([parts[a] for a in classes])
        return rows

    def weights(self) -> Weights:
        """Return the current weights of the backbone, as a weight file holds them."""
        if self.config.tune == "lora":
            from ost.train.lora import merged

            return merged(self.backbone)
        return self.backbone.weights()

    def groups(self) -> list[dict[str, Any]]:
        """Return the parameter groups of AdamW, split by weight decay and by new or pretrained."""
        groups: list[dict[str, Any]] = []
        for new in (True, False):
            for decays in (True, False):
                chosen = [
                    (name, p)
                    for name, p in self.parameters.items()
                    if name.startswith(NEW) == new and _has_weight_decay(name, p) == decays
                ]
                if chosen:
                    decay = self.config.weight_decay if decays else 0.0
                    share = 1.0 if new else self.config.tower_lr
                    groups.append({"params": [p for _, p in chosen], "weight_decay": decay, "share": share})
        return groups

    def _trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the name in a weight file and the parameter, for each that the regime trains."""
        backbone, tune = self.backbone, self.config.tune
        if backbone.prompts is not None and tune in ("both", "prompts"):
            yield from _named(backbone.prompts, "prompts.")
        if backbone.temporal is not None and tune in ("both", "image"):
            yield from _named(backbone.temporal, "temporal.")
        if tune == "lora":
            from ost.train.lora import is_update

            for tower, prefix in ((backbone.visual, "lora.visual."), (backbone.text, "lora.")):
                yield from ((n, p) for n, p in _named(tower, prefix) if is_update(n))
        if tune in ("both", "image"):
            yield from _named(backbone.visual, "visual.")
        if tune in ("both", "text"):
            yield from ((n, p) for n, p in _named(backbone.text, "") if not n.startswith("logit_"))
        if tune in ("both", "image", "text"):
            yield "logit_scale", backbone.text.logit_scale

    def _tokenise(self, kind: Kind, notify: Callable[[str], None]) -> Prompted:
        texts = [prompts(item, kind, self.backbone.text_context.templates) for item in self.pack.classes]
        mask = torch.tensor([[n < len(row) for n in range(max(map(len, texts)))] for row in texts])
        flat = self.backbone.tokens([text for row in texts for text in row], notify)
        tokens = flat.new_zeros(*mask.shape, flat.shape[-1])
        tokens[mask] = flat
        return Prompted(tokens, mask)


def _clips(chunk: TowerBatch) -> Iterator[tuple[Tensor, Any]]:
    return zip(chunk.pixels, chunk.colours, strict=True)


def _named(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Parameter]]:
    return ((prefix + name, parameter) for name, parameter in module.named_parameters())


def _has_weight_decay(name: str, parameter: Tensor) -> bool:
    """Return whether weight decay applies: to matrices, but not to biases, norms, the scale or single vectors."""
    return parameter.ndim > 1 and not name.endswith("bias")


def _uses_bf16(config: TrainConfig, device: torch.device) -> bool:
    if config.precision != "auto":
        return config.precision == "bf16"
    return torch.cuda.is_bf16_supported() if device.type == "cuda" else cpu_has_fast_bf16()


def _enable_checkpointing(tower: Any, name: str) -> None:
    if hasattr(tower, "set_grad_checkpointing"):
        tower.set_grad_checkpointing(True)
    elif hasattr(tower, "grad_checkpointing"):
        tower.grad_checkpointing = True
    else:
        raise UsageError(f"a tower of {name} cannot recompute its activations; leave checkpointing out")
